//! `GET /v1/models` and `/v1/models/{id}`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use pippin::cache::LoadedModel;
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult, IdResult, json_response, path_name};
use crate::shared::{Shared, blocking};

pub(crate) async fn all(State(shared): State<Arc<Shared>>) -> ApiResult<Response> {
    let list = move || {
        let loaded = shared.cache.models();
        shared.names().iter().map(|name| describe(&shared, &loaded, name)).collect::<Vec<_>>()
    };
    let models = blocking(list).await?;
    Ok(json_response(&json!({"object": "list", "data": models})))
}

pub(crate) async fn one(State(shared): State<Arc<Shared>>, name: IdResult) -> ApiResult<Response> {
    let name = path_name(name)?;
    let find = move || {
        let known = shared.knows(&name);
        if known {
            Ok(describe(&shared, &shared.cache.models(), &name))
        } else {
            Err(ApiError::no_model(&name))
        }
    };
    Ok(json_response(&blocking(find).await??))
}

/// A model as OpenAI has it, with two fields more: `status` as llama.cpp's server has it, and `max_model_len` as vLLM, the
/// tokens of its context where it is loaded.
fn describe(shared: &Shared, loaded: &[LoadedModel], name: &str) -> Value {
    let key = shared.configuration(name).ok().map(|configuration| configuration.name());
    let state = loaded.iter().find(|model| Some(&model.model) == key.as_ref());
    let status = match state {
        Some(model) if model.has_died => "unloaded",
        Some(model) if model.is_loaded => "loaded",
        Some(_) => "loading",
        None => "unloaded",
    };
    let mut model = json!({
        "id": name,
        "object": "model",
        "created": shared.started,
        "owned_by": "pippin",
        "status": {"value": status},
    });
    if let Some(context) = state.and_then(|model| model.context) {
        model["max_model_len"] = context.into();
    }
    model
}
