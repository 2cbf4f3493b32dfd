//! Errors in the form that OpenAI's clients expect.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Seconds after which a client may try again where the server is full.
const RETRY_AFTER: &str = "1";

/// What is wrong with a request, or with the server.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    param: Option<String>,
    message: String,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, param: None, message: message.into() }
    }

    /// A field of the request that makes no sense.
    pub(super) fn field(param: &str, message: impl std::fmt::Display) -> Self {
        let message = format!("`{param}`: {message}");
        Self { param: Some(param.into()), ..Self::new(StatusCode::BAD_REQUEST, "invalid_value", message) }
    }

    /// More than a limit of the server allows.
    pub(super) fn too_much(param: &str, what: &str, limit: usize, found: usize) -> Self {
        let error = Self::field(param, format_args!("expected at most {limit} {what}, found {found}"));
        Self { code: "limit_exceeded", ..error }
    }

    /// A body that is no request at all.
    pub(super) fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_body", message)
    }

    /// A body of another kind than JSON.
    pub(super) fn content_type() -> Self {
        let message = "expected a body with the header `Content-Type: application/json`";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// A body over the limit.
    pub(super) fn body_too_large(limit: usize) -> Self {
        let message = format!("expected a body of at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    /// A body that does not arrive.
    pub(super) fn body_too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body did not arrive in time")
    }

    /// A model that is not served here.
    pub(super) fn unknown_model(found: &str, served: &str) -> Self {
        let message = format!("the model `{found}` does not exist; this server has `{served}`");
        let error = Self::new(StatusCode::NOT_FOUND, "model_not_found", message);
        Self { param: Some("model".into()), ..error }
    }

    /// A path that is not served here.
    pub(super) fn unknown_path(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_url", format!("nothing is at {path}"))
    }

    /// A method that a path does not have.
    pub(super) fn method(method: &str) -> Self {
        let message = format!("the method {method} means nothing here");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    /// Too many wait already.
    pub(super) fn full(limit: usize) -> Self {
        let message = format!("the server is busy and {limit} requests wait already");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
    }

    /// The server is about to end.
    pub(super) fn draining() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", "the server is shutting down")
    }

    /// The machine that runs the model is gone: nothing but another start of the server helps.
    pub(super) fn machine(reason: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "device_failed", reason)
    }

    /// A request that took too long.
    pub(super) fn late(seconds: f64) -> Self {
        let message = format!("the request was not done within {seconds} seconds");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
    }

    /// A failure that is not the client's.
    pub(super) fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message.to_string())
    }

    /// What the client reads.
    pub(super) fn json(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let Self { code, param, message, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        if matches!(self.code, "queue_full" | "shutting_down") {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}
