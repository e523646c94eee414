//! What is asked, as items, and as the messages that templates know.

use pippin::Message;
use pippin::chat::ToolCall;
use serde_json::{Map, Value, json};

use super::tools::{INPUT, shown};
use crate::error::{ApiError, ApiResult};
use crate::fields::Fields;

/// The items of `input`: a text is a message of the user.
pub(super) fn items(fields: &mut Fields) -> ApiResult<Vec<Value>> {
    match fields.take("input") {
        Some(Value::String(text)) => Ok(vec![json!({"type": "message", "role": "user", "content": text})]),
        Some(Value::Array(items)) if !items.is_empty() => Ok(items),
        _ => Err(ApiError::field("input", "a text, or a list of items")),
    }
}

/// The assistant's turn that is being put together: what it thinks, says and calls are items of their own.
#[derive(Default)]
struct Turn {
    reasoning: String,
    text: Option<String>,
    calls: Vec<ToolCall>,
}

impl Turn {
    fn end(&mut self, messages: &mut Vec<Message>) {
        let Self { reasoning, text, calls } = std::mem::take(self);
        let message = match (text, calls.is_empty()) {
            (None, true) => return,
            (None, false) => Message::assistant_calls(calls),
            (Some(text), true) => Message::assistant(text),
            (Some(text), false) => Message::assistant(text).with_tool_calls(calls),
        };
        messages.push(if reasoning.is_empty() { message } else { message.with_reasoning(reasoning) });
    }
}

/// The messages that items are, of which the first `begin` have been read before.
pub(super) fn messages(items: &[Value], begin: usize) -> ApiResult<Vec<Message>> {
    let mut messages = Vec::with_capacity(items.len());
    let mut turn = Turn::default();
    for (index, item) in items.iter().enumerate() {
        let place = format!("input.{}", index.saturating_sub(begin));
        let Value::Object(fields) = item else { return Err(ApiError::field(&place, "an object")) };
        let kind = fields.get("type").and_then(Value::as_str);
        match kind {
            Some("message") | None => {
                let role = fields.get("role").and_then(Value::as_str);
                let text =
                    content(fields.get("content").unwrap_or(&Value::Null), &format!("{place}.content"))?;
                if role == Some("assistant") {
                    // What it says after its calls is another turn.
                    if turn.text.is_some() || !turn.calls.is_empty() {
                        turn.end(&mut messages);
                    }
                    turn.text = Some(text);
                    continue;
                }
                turn.end(&mut messages);
                messages.push(match role {
                    Some("user") => Message::user(text),
                    Some("system") => Message::system(text),
                    Some("developer") => Message::new("developer".to_owned().into(), text),
                    _ => {
                        return Err(ApiError::field(
                            &format!("{place}.role"),
                            "user, assistant, system or developer",
                        ));
                    }
                });
            }
            Some("function_call") => {
                let arguments = match fields.get("arguments") {
                    Some(Value::String(text)) => match serde_json::from_str(text) {
                        Ok(arguments @ Value::Object(_)) => arguments,
                        _ => Value::String(text.clone()),
                    },
                    _ => return Err(ApiError::field(&format!("{place}.arguments"), "a string")),
                };
                let [id, mut name] = [text_of(fields, "call_id", &place)?, text_of(fields, "name", &place)?];
                if let Some(group) = fields.get("namespace").and_then(Value::as_str) {
                    name = shown(group, &name);
                }
                turn.calls.push(ToolCall::new(id, name, arguments));
            }
            Some("custom_tool_call") => {
                let [id, mut name] = [text_of(fields, "call_id", &place)?, text_of(fields, "name", &place)?];
                if let Some(group) = fields.get("namespace").and_then(Value::as_str) {
                    name = shown(group, &name);
                }
                let input = json!({INPUT: text_of(fields, "input", &place)?});
                turn.calls.push(ToolCall::new(id, name, input));
            }
            Some("function_call_output" | "custom_tool_call_output") => {
                turn.end(&mut messages);
                let output = fields.get("output").unwrap_or(&Value::Null);
                let text = content(output, &format!("{place}.output"))?;
                messages.push(Message::tool(text_of(fields, "call_id", &place)?, text));
            }
            Some("reasoning") => {
                if turn.text.is_some() || !turn.calls.is_empty() {
                    turn.end(&mut messages);
                }
                for list in ["content", "summary"] {
                    let parts = fields.get(list).and_then(Value::as_array).into_iter().flatten();
                    let text: String = parts.filter_map(|part| part["text"].as_str()).collect();
                    // The thought itself before what is said about it.
                    if turn.reasoning.is_empty() {
                        turn.reasoning = text;
                    }
                }
            }
            Some(kind) => {
                let message =
                    format!("{place}: items of type {kind:?} are not supported by this version of Pippin");
                return Err(ApiError::invalid(message).at(format!("{place}.type")));
            }
        }
    }
    turn.end(&mut messages);
    if messages.is_empty() { Err(ApiError::field("input", "at least one message")) } else { Ok(messages) }
}

fn text_of(fields: &Map<String, Value>, name: &str, place: &str) -> ApiResult<String> {
    match fields.get(name).and_then(Value::as_str) {
        Some(text) => Ok(text.to_owned()),
        None => Err(ApiError::field(&format!("{place}.{name}"), "a string")),
    }
}

/// The text of a content: a string, or parts of text.
fn content(content: &Value, place: &str) -> ApiResult<String> {
    let parts = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        _ => return Err(ApiError::field(place, "a string or a list of parts")),
    };
    let mut all = String::new();
    for (index, part) in parts.iter().enumerate() {
        let text = match part["type"].as_str() {
            Some("input_text" | "output_text" | "text") => part["text"].as_str(),
            Some("refusal") => part["refusal"].as_str(),
            Some(kind) => {
                let message = format!(
                    "{place}.{index}: parts of type {kind:?} are not supported by this version of Pippin"
                );
                return Err(ApiError::invalid(message).at(format!("{place}.{index}.type")));
            }
            None => None,
        };
        match text {
            Some(text) => all.push_str(text),
            None => return Err(ApiError::field(&format!("{place}.{index}"), "a part with a text")),
        }
    }
    Ok(all)
}
