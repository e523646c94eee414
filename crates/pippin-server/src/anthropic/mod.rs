//! Anthropic's API: `POST /v1/messages` and `/v1/messages/count_tokens`.

mod answer;
mod conversation;

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use pippin::text::Calls;
use serde_json::{Value, json};

use self::answer::{Head, MessageFrames};
use crate::answers;
use crate::error::{ApiError, ApiResult, json_response};
use crate::fields::Fields;
use crate::options::Limits;
use crate::parameters;
use crate::reasoning::{self, Reasoning};
use crate::request::{Begun, ChatRequest};
use crate::shared::{Caller, Shared};
use crate::structure::Structure;
use crate::tools::{Place, Tool, ToolUse};

pub(crate) async fn messages(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> ApiResult<Response> {
    let limits = &shared.options.limits;
    let mut fields = Fields::read(request, limits).await?;
    let Some(max_tokens) = fields.count("max_tokens", 1, usize::MAX)? else {
        return Err(ApiError::field("max_tokens", "a whole number from 1"));
    };
    let mut request = chat_request(&mut fields, &shared)?;
    request.parameters.max_tokens = Some(max_tokens);
    let is_streamed = fields.boolean("stream")?.unwrap_or(false);
    let stop = request.parameters.stop.clone();
    let Begun { mut answers, name, prompt_tokens, .. } = request.begin(&shared, &caller).await?;
    let head = Head { id: format!("msg_{}", shared.new_id()), model: name, stop };
    if is_streamed {
        return Ok(answers::events(answers, MessageFrames::new(head, prompt_tokens)));
    }
    let whole = answers::collect(&mut answers).await?.pop().unwrap_or_default();
    Ok(json_response(&head.whole(whole, answers.usage())))
}

pub(crate) async fn count_tokens(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> ApiResult<Response> {
    let mut fields = Fields::read(request, &shared.options.limits).await?;
    let tokens = chat_request(&mut fields, &shared)?.tokens(&shared, &caller).await?;
    Ok(json_response(&json!({"input_tokens": tokens.len()})))
}

fn chat_request(fields: &mut Fields, shared: &Shared) -> ApiResult<ChatRequest> {
    let limits = &shared.options.limits;
    for name in ["mcp_servers", "container"] {
        fields.refuse_unless(name, |value| value.as_array().is_some_and(Vec::is_empty))?;
    }
    // What the other API calls differently.
    fields.rename("stop_sequences", "stop");
    let read = parameters::read(fields, &shared.options.parameters, limits);
    let parameters = read.map_err(|error| match error.param.as_deref() {
        Some("stop") => {
            ApiError::invalid(error.message.replacen("stop", "stop_sequences", 1)).at("stop_sequences")
        }
        _ => error,
    })?;
    let (mut reasoning, budget) = match fields.take("thinking") {
        Some(value) => reasoning::thinking(&value)?,
        None => (Reasoning::default(), None),
    };
    let mut structure = format(fields.take("output_format"), "output_format")?;
    if let Some(mut config) = fields.object("output_config")? {
        if let Some(effort) = config.get("effort").and_then(Value::as_str) {
            reasoning = reasoning.or(Reasoning::of_effort(effort));
        }
        let own = format(config.remove("format"), "output_config")?;
        structure = own.or(structure);
    }
    Ok(ChatRequest {
        model: fields.text("model")?,
        tools: tools(fields, limits)?,
        structure,
        reasoning,
        thinking_budget: budget,
        count: 1,
        input: conversation::read(fields, limits)?,
        parameters,
    })
}

/// The schema of an answer.
fn format(value: Option<Value>, field: &'static str) -> ApiResult<Option<Structure>> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    match (value["type"].as_str(), &value["schema"]) {
        (Some("json_schema"), schema @ (Value::Object(_) | Value::Bool(_))) => {
            let constraint = pippin::generate::Constraint::json_schema(schema.clone());
            Ok(Some(Structure { constraint, field }))
        }
        _ => Err(ApiError::field(field, "{\"type\": \"json_schema\", \"schema\": …}")),
    }
}

/// `tools` and `tool_choice`, in the form of the other API.
fn tools(fields: &mut Fields, limits: &Limits) -> ApiResult<ToolUse> {
    let mut tools = Vec::new();
    for (index, tool) in fields.list("tools")?.unwrap_or_default().into_iter().enumerate() {
        match tool["type"].as_str() {
            None | Some("custom") => {}
            Some(kind) => {
                let message = format!("tools of type {kind:?} are not supported by this version of Pippin");
                return Err(ApiError::invalid(message).at(format!("tools.{index}.type")));
            }
        }
        if !tool["input_schema"].is_object() {
            return Err(ApiError::field(&format!("tools.{index}.input_schema"), "a JSON schema"));
        }
        let mut function = json!({"name": tool["name"], "parameters": tool["input_schema"]});
        for key in ["description", "strict"] {
            if let Some(value) = tool.get(key) {
                function[key] = value.clone();
            }
        }
        let at = format!("tools.{index}");
        // As this API calls it.
        let [schema, own] = [format!("{at}.parameters"), format!("{at}.input_schema")];
        let tool = crate::tools::function(function, &at).map_err(|error| match error.param.as_deref() {
            Some(param) if param == schema => {
                ApiError::invalid(error.message.replacen(&schema, &own, 1)).at(own.clone())
            }
            _ => error,
        })?;
        tools.push(Tool { place: Place::Schema(own), ..tool });
    }
    let (calls, only, is_parallel) = match fields.take("tool_choice") {
        None => (Calls::Optional, None, true),
        Some(choice) => {
            let is_parallel = choice["disable_parallel_tool_use"] != true;
            match (choice["type"].as_str(), choice["name"].as_str()) {
                (Some("auto"), _) => (Calls::Optional, None, is_parallel),
                (Some("none"), _) => (Calls::Never, None, is_parallel),
                (Some("any"), _) => (Calls::Required, None, is_parallel),
                (Some("tool"), Some(name)) => (Calls::Required, Some(name.to_owned()), is_parallel),
                _ => return Err(ApiError::field("tool_choice.type", "auto, any, none, or tool with a name")),
            }
        }
    };
    ToolUse::new(tools, calls, only, is_parallel, limits)
}

/// An error in Anthropic's shape.
pub(crate) fn error_body(error: &ApiError) -> Value {
    let kind = match error.status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": error.message}})
}
