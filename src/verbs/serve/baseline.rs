//! What the page sets beside the model's bytes: those that zstd needs for the same text. Not a part of OpenAI's API.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use sixpack_formats::Codec;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::app::App;
use super::completions::body;
use super::error::ApiError;

#[derive(Debug, Deserialize)]
struct Text {
    text: String,
}

/// What is answered.
#[derive(Debug, Serialize)]
pub(super) struct Size {
    bytes: usize,
}

/// The size of a text in zstd, at its highest level.
pub(super) async fn zstd(State(app): State<Arc<App>>, request: Request) -> Result<Json<Size>, ApiError> {
    let deadline = app.deadline(Instant::now());
    let _arrival = app.admission.arrive();
    app.takes_requests()?;
    let body = timeout_at(deadline, body(&app, request)).await.map_err(|_| ApiError::body_too_slow())??;
    let Text { text } = serde_json::from_slice(&body)
        .map_err(|e| ApiError::body(format!("expected a JSON object with a `text`: {e}")))?;
    // It computes as a completion does: in a place, with a turn.
    let slot = app.admission.enter(deadline).await?;
    let computing = spawn_blocking(move || {
        let _slot = slot;
        let _turn = app.admission.turn();
        Codec::Zstd.encode(text.as_bytes()).len()
    });
    Ok(Json(Size { bytes: computing.await.map_err(ApiError::internal)? }))
}
