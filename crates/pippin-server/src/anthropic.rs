//! Anthropic's API: `POST /v1/messages` and `/v1/messages/count_tokens`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use pippin::chat::ChatInput;
use pippin::{FinishReason, Message, Role};
use serde_json::{Map, Value, json};

use crate::answers::{self, Answers, Frame, Frames, Piece, Usage};
use crate::error::{ApiError, ApiResult, json_response};
use crate::fields::Fields;
use crate::options::Limits;
use crate::parameters;
use crate::shared::{Caller, Shared, blocking};

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
    // What the other API calls differently.
    fields.rename("stop_sequences", "stop");
    let read = parameters::read(&mut fields, &shared.options.parameters, limits);
    let mut parameters = read.map_err(|error| match error.param.as_deref() {
        Some("stop") => {
            ApiError::invalid(error.message.replacen("stop", "stop_sequences", 1)).at("stop_sequences")
        }
        _ => error,
    })?;
    parameters.max_tokens = Some(max_tokens);
    let is_streamed = fields.boolean("stream")?.unwrap_or(false);
    let name = fields.text("model")?;
    let input = conversation(&mut fields, limits)?;
    let permit = shared.permit(&caller, 1)?;
    let (lease, name) = shared.model(name).await?;
    let Some(model) = lease.container() else { return Err(ApiError::no_model(&name)) };
    let prompt = {
        let model = model.clone();
        blocking(move || model.prepare(&input)).await?.map_err(|error| shared.fault(error))?
    };
    let head = Head { id: format!("msg_{}", shared.new_id()), model: name, stop: parameters.stop.clone() };
    let prompt_tokens = prompt.len();
    let mut answers = Answers::begin(&shared, &model, lease, permit, vec![prompt], &parameters, 1)?;
    if is_streamed {
        return Ok(answers::events(answers, MessageFrames { head, prompt_tokens, end: None }));
    }
    let whole = answers::collect(&mut answers, 1).await?.pop().unwrap_or_default();
    let (reason, stop) = head.reason(whole.end.as_ref());
    let content = json!([{"type": "text", "text": whole.text}]);
    let usage = usage_of(answers.usage());
    Ok(json_response(&head.message(&content, Some(reason), stop, &usage)))
}

pub(crate) async fn count_tokens(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> ApiResult<Response> {
    let limits = &shared.options.limits;
    let mut fields = Fields::read(request, limits).await?;
    let name = fields.text("model")?;
    let input = conversation(&mut fields, limits)?;
    let _permit = shared.permit(&caller, 1)?;
    let (lease, name) = shared.model(name).await?;
    let Some(model) = lease.container() else { return Err(ApiError::no_model(&name)) };
    let tokens = blocking(move || model.prepare(&input)).await?.map_err(|error| shared.fault(error))?;
    Ok(json_response(&json!({"input_tokens": tokens.len()})))
}

/// Refuses what would change an answer and is not supported, and reads the rest of the prompt.
fn conversation(fields: &mut Fields, limits: &Limits) -> ApiResult<ChatInput> {
    fields.refuse_unless("thinking", |value| value["type"] == "disabled")?;
    fields.refuse_unless("tool_choice", |value| matches!(value["type"].as_str(), Some("none" | "auto")))?;
    for name in ["mcp_servers", "container", "output_config", "output_format"] {
        fields.refuse_unless(name, |value| value.as_array().is_some_and(Vec::is_empty))?;
    }
    fields.refuse_unsupported()?;
    let Some(given) = fields.list("messages")? else {
        return Err(ApiError::field("messages", "a list of messages"));
    };
    if given.is_empty() || given.len() > limits.messages {
        return Err(ApiError::field("messages", format!("1 to {} messages", limits.messages)));
    }
    let mut messages = Vec::with_capacity(given.len() + 1);
    if let Some(system) = fields.take("system") {
        messages.push(Message::system(text(&system, "system")?));
    }
    for (index, message) in given.iter().enumerate() {
        let place = format!("messages.{index}");
        let content = text(&message["content"], &format!("{place}.content"))?;
        messages.push(match message["role"].as_str() {
            Some("user") => Message::user(content),
            Some("assistant") => Message::assistant(content),
            _ => return Err(ApiError::field(&format!("{place}.role"), "user or assistant")),
        });
    }
    // An answer at the end is the beginning of the next one.
    let continues = messages.last().is_some_and(|last| last.role() == Role::Assistant);
    Ok(ChatInput::from(messages)
        .with_add_generation_prompt(!continues)
        .with_continue_final_message(continues))
}

/// The text of a content: a string, or blocks of text, as they follow each other.
fn text(content: &Value, place: &str) -> ApiResult<String> {
    let blocks = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(blocks) => blocks,
        _ => return Err(ApiError::field(place, "a string or a list of blocks")),
    };
    let mut all = String::new();
    for (index, block) in blocks.iter().enumerate() {
        match (block["type"].as_str(), block["text"].as_str()) {
            (Some("text"), Some(text)) => all.push_str(text),
            // `Debug` shows what a terminal would obey.
            (Some(kind), None) => {
                let message = format!(
                    "{place}.{index}: blocks of type {kind:?} are not supported by this version of Pippin"
                );
                return Err(ApiError::invalid(message).at(format!("{place}.{index}.type")));
            }
            _ => return Err(ApiError::field(&format!("{place}.{index}"), "a block of text")),
        }
    }
    Ok(all)
}

struct Head {
    id: String,
    model: String,
    /// The texts that the request wants answers to end at.
    stop: Vec<String>,
}

impl Head {
    fn message(&self, content: &Value, reason: Option<&str>, stop: Option<&str>, usage: &Value) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": stop,
            "usage": usage,
        })
    }

    /// Why an answer has ended, and the text that ended it, if the request named it.
    fn reason<'a>(&self, end: Option<&'a FinishReason>) -> (&'static str, Option<&'a str>) {
        match end {
            Some(FinishReason::StopString(text)) if self.stop.contains(text) => ("stop_sequence", Some(text)),
            Some(FinishReason::Stop | FinishReason::StopString(_)) => ("end_turn", None),
            _ => ("max_tokens", None),
        }
    }
}

/// Here, what was found in the cache does not count as input.
fn usage_of(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt.saturating_sub(usage.cached),
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.generated,
    })
}

struct MessageFrames {
    head: Head,
    prompt_tokens: usize,
    end: Option<FinishReason>,
}

fn frame(name: &'static str, fields: Value) -> Frame {
    let mut data = Map::new();
    data.insert("type".to_owned(), name.into());
    if let Value::Object(fields) = fields {
        data.extend(fields);
    }
    Frame { event: Some(name), data: Value::Object(data).to_string() }
}

impl Frames for MessageFrames {
    fn begin(&mut self) -> Vec<Frame> {
        let usage = json!({"input_tokens": self.prompt_tokens, "output_tokens": 0});
        let message = self.head.message(&json!([]), None, None, &usage);
        vec![
            frame("message_start", json!({"message": message})),
            frame("content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}})),
        ]
    }

    fn piece(&mut self, _index: usize, piece: Piece) -> Vec<Frame> {
        match piece {
            Piece::Text { text, .. } if text.is_empty() => Vec::new(),
            Piece::Text { text, .. } => {
                let delta = json!({"type": "text_delta", "text": text});
                vec![frame("content_block_delta", json!({"index": 0, "delta": delta}))]
            }
            Piece::End(reason) => {
                self.end = Some(reason);
                Vec::new()
            }
        }
    }

    fn end(&mut self, usage: Usage) -> Vec<Frame> {
        let (reason, stop) = self.head.reason(self.end.as_ref());
        let delta = json!({"stop_reason": reason, "stop_sequence": stop});
        vec![
            frame("content_block_stop", json!({"index": 0})),
            frame("message_delta", json!({"delta": delta, "usage": usage_of(usage)})),
            frame("message_stop", json!({})),
        ]
    }

    fn error(&mut self, error: &ApiError) -> Frame {
        Frame { event: Some("error"), data: error_body(error).to_string() }
    }
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
