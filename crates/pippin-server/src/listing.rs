//! `GET /v1/models` and `/v1/models/{id}`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult, json_response};
use crate::shared::{Shared, blocking};

pub(crate) async fn all(State(shared): State<Arc<Shared>>) -> ApiResult<Response> {
    let names = {
        let shared = Arc::clone(&shared);
        blocking(move || shared.names()).await?
    };
    let models: Vec<Value> = names.iter().map(|name| describe(&shared, name)).collect();
    Ok(json_response(&json!({"object": "list", "data": models})))
}

pub(crate) async fn one(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> ApiResult<Response> {
    let known = {
        let (shared, name) = (Arc::clone(&shared), name.clone());
        blocking(move || shared.knows(&name)).await?
    };
    if known { Ok(json_response(&describe(&shared, &name))) } else { Err(ApiError::no_model(&name)) }
}

fn describe(shared: &Shared, name: &str) -> Value {
    json!({"id": name, "object": "model", "created": shared.started, "owned_by": "pippin"})
}
