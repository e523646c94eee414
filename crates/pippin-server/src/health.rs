//! `GET /health`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use crate::error::json_response;
use crate::shared::{Phase, Shared};

/// Whether requests may be sent here. Anybody may ask, so it says nothing else.
pub(crate) async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let has_died = || shared.cache.models().iter().any(|model| model.has_died);
    let status = match () {
        () if shared.phase() != Phase::Serving => "shutting down",
        () if !shared.is_ready() => "loading",
        () if shared.cache.has_lost_device() => "a device is lost",
        () if has_died() => "a model has died",
        () => "ok",
    };
    let mut response = json_response(&json!({"status": status}));
    if status != "ok" {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}
