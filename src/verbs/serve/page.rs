//! The web page: a small one that is part of the program and asks this server, or one that runs the model in the browser,
//! of which the module is compiled for another target and comes from a folder.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use axum::handler::HandlerWithoutStateExt;
use axum::http::Uri;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tower_http::services::{ServeDir, ServeFile};

use super::app::App;
use super::error::ApiError;
use crate::args;

/// A file of the page.
#[derive(Debug)]
pub(super) struct Asset {
    /// Where it is.
    pub(super) path: &'static str,
    /// What it is.
    pub(super) content_type: &'static str,
    /// What is in it.
    pub(super) bytes: &'static [u8],
}

/// Everything that is served beside the API.
pub(super) static ASSETS: &[Asset] =
    &[Asset { path: "/", content_type: "text/html; charset=utf-8", bytes: include_bytes!("page.html") }];

/// What the page may do: nothing from elsewhere, and no page of elsewhere may hold it in a frame.
pub(super) const POLICY: &str = "default-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'";

/// A page in a folder, and the file of the model if it is one.
#[derive(Debug)]
pub(super) struct Built {
    folder: PathBuf,
    model: Option<PathBuf>,
}

impl Built {
    /// The folder that was asked for, if one was.
    ///
    /// # Errors
    /// If there is no page in it.
    pub(super) fn asked(args: &args::Serve) -> Result<Option<Self>> {
        let Some(folder) = args.page.clone() else { return Ok(None) };
        if !folder.join("index.html").is_file() {
            bail!("--page {}: expected a folder with an index.html", folder.display());
        }
        Ok(Some(Self { folder, model: args.model.is_file().then(|| args.model.clone()) }))
    }

    /// Adds the files of the folder; instead of the models that lie in it the page offers the one that is served.
    pub(super) fn serve(&self, mut router: Router<Arc<App>>, app: &App) -> Router<Arc<App>> {
        if let Some(model) = &self.model {
            let (name, bytes) = (&app.model.name, app.model.bytes);
            let models =
                json!([{ "file": "served.6pk", "name": name, "about": "as it is served here", "bytes": bytes }]);
            router = router.route("/models.json", get(|| async { Json(models) }));
            router = router.route_service("/served.6pk", ServeFile::new(model));
        }
        let unknown = |uri: Uri| async move { ApiError::unknown_path(uri.path()) };
        router.fallback_service(ServeDir::new(&self.folder).fallback(unknown.into_service()))
    }
}
