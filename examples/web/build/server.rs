//! The files of a folder over HTTP, for this machine.

use std::net::TcpListener;
use std::path::Path;

use anyhow::Result;
use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use tower_http::services::ServeDir;
use tower_http::set_header::SetResponseHeaderLayer;

/// Serves `folder` until the program ends.
pub(crate) fn serve(listener: TcpListener, folder: &Path) -> Result<()> {
    // A page that was built anew is seen at the next load.
    let fresh = SetResponseHeaderLayer::overriding(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let files = Router::new().fallback_service(ServeDir::new(folder)).layer(fresh);
    listener.set_nonblocking(true)?;
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        axum::serve(tokio::net::TcpListener::from_std(listener)?, files).await?;
        Ok(())
    })
}
