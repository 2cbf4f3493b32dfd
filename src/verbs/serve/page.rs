//! The web page, `examples/web/page`: its files are part of the program, and it asks this server to run the model. Built
//! with the module that runs models in the browser, which is compiled for another target, it comes from a folder.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use axum::handler::HandlerWithoutStateExt;
use axum::http::Uri;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
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

/// A file of the page as it lies in the source tree.
macro_rules! asset {
    ($path:literal, $file:literal, $kind:literal) => {
        Asset {
            path: $path,
            content_type: concat!($kind, "; charset=utf-8"),
            bytes: include_bytes!(concat!("../../../examples/web/page/", $file)),
        }
    };
}

/// The page, but for what runs a model in the browser.
pub(super) static ASSETS: &[Asset] = &[
    asset!("/", "index.html", "text/html"),
    asset!("/style.css", "style.css", "text/css"),
    asset!("/page.js", "page.js", "text/javascript"),
    asset!("/chart.js", "chart.js", "text/javascript"),
    asset!("/heat.js", "heat.js", "text/javascript"),
    asset!("/remote.js", "remote.js", "text/javascript"),
    asset!("/words.js", "words.js", "text/javascript"),
];

/// Where the page asks what zstd needs for a text.
pub(super) const ZSTD: &str = "/page/zstd";

/// What the page offers where the server runs the model: where to ask, seen from the page.
pub(super) fn models(app: &App) -> Value {
    let (name, bytes) = (&app.model.name, app.model.bytes);
    json!([{ "api": "v1", "zstd": ZSTD[1..], "name": name, "about": "run by this server", "bytes": bytes }])
}

/// What the page may do: nothing from elsewhere, and no page of elsewhere may hold it in a frame.
pub(super) const POLICY: &str = "default-src 'self' 'wasm-unsafe-eval'; img-src 'self' data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'";

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
