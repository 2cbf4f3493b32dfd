//! What is at which path.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, MatchedPath, Path, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::app::App;
use super::baseline;
use super::completions::complete;
use super::error::ApiError;
use super::metrics;
use super::page::{self, Asset, Built};

/// Headers of every answer: a browser runs no script but the page's own, and shows the page in no other.
const HEADERS: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, page::POLICY),
    (header::CACHE_CONTROL, "no-store"),
];

/// The whole server, with the page in a folder instead of its own if there is one.
pub(super) fn router(app: &Arc<App>, built: Option<&Built>) -> Router {
    let mut router = Router::new()
        .route("/v1/completions", post(complete))
        .route("/v1/models", get(models))
        .route(page::ZSTD, post(baseline::zstd))
        .route("/v1/models/{name}", get(model))
        .route("/health", get(health))
        .route("/metrics", get(text_of_metrics));
    router = match built {
        Some(built) => built.serve(router, app),
        None => {
            let own = page::ASSETS
                .iter()
                .fold(router, |router, asset| router.route(asset.path, get(|| async { serve(asset) })));
            let models = page::models(app);
            own.route("/models.json", get(|| async { Json(models) }))
                .fallback(|uri: Uri| async move { ApiError::unknown_path(uri.path()) })
        }
    };
    router
        .method_not_allowed_fallback(|method: Method| async move { ApiError::method(method.as_str()) })
        .layer(middleware::from_fn_with_state(Arc::clone(app), answer))
        .layer(DefaultBodyLimit::max(app.limits.max_body))
        .with_state(Arc::clone(app))
}

/// Adds the headers and counts.
async fn answer(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    app.metrics.answered(route.as_deref().unwrap_or("other"), response.status().as_u16());
    response
}

async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({ "object": "list", "data": [app.described()] }))
}

async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    if name == app.model.name {
        Ok(Json(app.described()).into_response())
    } else {
        Err(ApiError::unknown_model(&name, &app.model.name))
    }
}

async fn health(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    match app.failed() {
        _ if app.is_draining() => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "draining" }))),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "failed", "reason": reason }))),
        None => (StatusCode::OK, Json(json!({ "status": "ok" }))),
    }
}

async fn text_of_metrics(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], app.metrics.text()).into_response()
}

fn serve(asset: &'static Asset) -> Response {
    ([(header::CONTENT_TYPE, asset.content_type)], asset.bytes).into_response()
}
