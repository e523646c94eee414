//! Ollama's API, for clients that speak no other.

mod answer;
mod chat;
mod models;
mod options;

use axum::response::Response;
use pippin::generate::Constraint;
use serde_json::{Value, json};

pub(crate) use self::chat::{chat, generate};
pub(crate) use self::models::{embed, loaded, show, tags};
use crate::error::{ApiError, ApiResult, json_response};
use crate::fields::Fields;
use crate::reasoning::Reasoning;
use crate::shared::Shared;
use crate::structure::Structure;

/// The version of Ollama whose API this is; clients look at it to know what they can ask for.
const API_VERSION: &str = "0.12.6";

pub(crate) async fn version() -> Response {
    json_response(&json!({"version": API_VERSION, "pippin": env!("CARGO_PKG_VERSION")}))
}

/// An error in Ollama's shape.
pub(crate) fn error_body(error: &ApiError) -> Value {
    json!({"error": error.message})
}

/// The model of a request, under the names that clients make of those that they are given.
pub(crate) fn model(fields: &mut Fields, shared: &Shared) -> ApiResult<String> {
    let old = fields.text("name")?;
    let Some(name) = fields.text("model")?.or(old).filter(|name| !name.is_empty()) else {
        return Err(ApiError::field("model", "the name of a model: see /api/tags"));
    };
    let is_served = |name: &str| shared.options.models.iter().any(|(known, _)| known == name);
    match name.strip_suffix(":latest") {
        Some(bare) if !is_served(&name) => Ok(bare.to_owned()),
        _ => Ok(name),
    }
}

/// `format`: `json`, or a schema.
fn format(fields: &mut Fields) -> ApiResult<Option<Structure>> {
    let constraint = match fields.take("format") {
        None => return Ok(None),
        Some(Value::String(name)) if name.is_empty() => return Ok(None),
        Some(Value::String(name)) if name == "json" => Constraint::JsonObject,
        Some(schema @ Value::Object(_)) => Constraint::json_schema(schema),
        Some(_) => return Err(ApiError::field("format", "\"json\" or a JSON schema")),
    };
    Ok(Some(Structure { constraint, field: "format" }))
}

/// `think`: whether, or how hard.
fn think(fields: &mut Fields) -> ApiResult<Reasoning> {
    match fields.take("think") {
        None => Ok(Reasoning::default()),
        Some(Value::Bool(is_wanted)) => Ok(Reasoning::wanted(is_wanted)),
        Some(Value::String(effort)) => Ok(Reasoning::of_effort(&effort)),
        Some(_) => Err(ApiError::field("think", "true, false, low, medium or high")),
    }
}

/// A time as Ollama writes it.
fn time(time: std::time::SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or_default().to_string()
}
