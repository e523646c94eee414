//! Anthropic's messages as those that templates know.

use std::collections::HashMap;

use pippin::chat::{ChatInput, ToolCall};
use pippin::{Message, Role};
use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::fields::Fields;
use crate::instructions;
use crate::options::Limits;

/// How a block begins that says which client asks, and from what. It is another in every conversation, and stands before all
/// else: a model that saw it would have to read everything behind it anew.
const BILLING_HEADER: &str = "x-anthropic-billing-header:";

/// Reads `system` and `messages`.
pub(super) fn read(fields: &mut Fields, limits: &Limits) -> ApiResult<ChatInput> {
    let given = fields.messages(limits)?;
    let mut messages = Vec::with_capacity(given.len() + 1);
    if let Some(mut system) = fields.take("system") {
        let is_header =
            |block: &Value| block["text"].as_str().is_some_and(|text| text.starts_with(BILLING_HEADER));
        if let Value::Array(blocks) = &mut system {
            blocks.retain(|block| !is_header(block));
        }
        let text = text(&system, "system")?;
        if !system.as_array().is_some_and(Vec::is_empty) {
            messages.push(Message::system(text));
        }
    }
    let mut names = HashMap::new();
    for (index, message) in given.iter().enumerate() {
        let place = format!("messages.{index}");
        let content = &message["content"];
        let place_of_content = format!("{place}.content");
        match message["role"].as_str() {
            Some("user") => user(blocks(content, &place_of_content)?, &names, &mut messages),
            Some("assistant") => messages.push(assistant(blocks(content, &place_of_content)?, &mut names)),
            Some("system") => messages.push(Message::system(text(content, &place_of_content)?)),
            _ => return Err(ApiError::field(&format!("{place}.role"), "user, assistant or system")),
        }
    }
    if messages.iter().all(|message| message.role() == Role::System) {
        return Err(ApiError::field("messages", "a conversation: at least one message of the user"));
    }
    let messages = instructions::fold(messages);
    // An answer at the end is the beginning of the next one.
    let last = messages.last();
    let continues = last.is_some_and(|last| last.role() == Role::Assistant && last.tool_calls().is_empty());
    Ok(ChatInput::from(messages)
        .with_add_generation_prompt(!continues)
        .with_continue_final_message(continues))
}

/// A block of a message.
enum Block {
    Text(String),
    Thinking(String),
    ToolUse(ToolCall),
    ToolResult { id: String, text: String },
}

fn blocks(content: &Value, place: &str) -> ApiResult<Vec<Block>> {
    let blocks = match content {
        Value::String(text) => return Ok(vec![Block::Text(text.clone())]),
        Value::Array(blocks) => blocks,
        _ => return Err(ApiError::field(place, "a string or a list of blocks")),
    };
    let read = |(index, value)| block(value, &format!("{place}.{index}"));
    blocks.iter().enumerate().filter_map(|one| read(one).transpose()).collect()
}

fn block(block: &Value, place: &str) -> ApiResult<Option<Block>> {
    let field = |name: &str| match block[name].as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(ApiError::field(&format!("{place}.{name}"), "a string")),
    };
    Ok(Some(match block["type"].as_str() {
        Some("text") => Block::Text(field("text")?),
        Some("thinking") => Block::Thinking(field("thinking")?),
        // Nobody here can read it.
        Some("redacted_thinking") => return Ok(None),
        Some("tool_use") => {
            if !block["input"].is_object() {
                return Err(ApiError::field(&format!("{place}.input"), "an object"));
            }
            Block::ToolUse(ToolCall::new(field("id")?, field("name")?, block["input"].clone()))
        }
        Some("tool_result") => {
            let content = match &block["content"] {
                Value::Null => String::new(),
                content => text(content, &format!("{place}.content"))?,
            };
            let text = if block["is_error"] == true { format!("Error: {content}") } else { content };
            Block::ToolResult { id: field("tool_use_id")?, text }
        }
        Some(kind) => return Err(unsupported(kind, place)),
        None => return Err(ApiError::field(&format!("{place}.type"), "the kind of the block")),
    }))
}

fn unsupported(kind: &str, place: &str) -> ApiError {
    // `Debug` shows what a terminal would obey.
    let message = format!("{place}: blocks of type {kind:?} are not supported by this version of Pippin");
    ApiError::invalid(message).at(format!("{place}.type"))
}

/// The text of a content: a string, or blocks of text, as they follow each other.
fn text(content: &Value, place: &str) -> ApiResult<String> {
    let mut all = String::new();
    match content {
        Value::String(text) => all.push_str(text),
        Value::Array(blocks) => {
            for (index, block) in blocks.iter().enumerate() {
                match (block["type"].as_str(), block["text"].as_str()) {
                    (Some("text"), Some(text)) => all.push_str(text),
                    (Some(kind), None) => return Err(unsupported(kind, &format!("{place}.{index}"))),
                    _ => return Err(ApiError::field(&format!("{place}.{index}"), "a block of text")),
                }
            }
        }
        _ => return Err(ApiError::field(place, "a string or a list of blocks")),
    }
    Ok(all)
}

/// Results of tools are messages of their own, and come first.
fn user(content: Vec<Block>, names: &HashMap<String, String>, messages: &mut Vec<Message>) {
    let (mut text, mut has_results) = (String::new(), false);
    for block in content {
        match block {
            Block::ToolResult { id, text } => {
                has_results = true;
                let name = names.get(&id).cloned();
                let result = Message::tool(id, text);
                messages.push(match name {
                    Some(name) => result.with_name(name),
                    None => result,
                });
            }
            Block::Text(part) => text.push_str(&part),
            Block::Thinking(_) | Block::ToolUse(_) => {}
        }
    }
    if !has_results || !text.is_empty() {
        messages.push(Message::user(text));
    }
}

fn assistant(content: Vec<Block>, names: &mut HashMap<String, String>) -> Message {
    let (mut text, mut thoughts, mut calls) = (String::new(), String::new(), Vec::new());
    for block in content {
        match block {
            Block::Text(part) => text.push_str(&part),
            Block::Thinking(part) => thoughts.push_str(&part),
            Block::ToolUse(call) => {
                names.insert(call.id.clone().unwrap_or_default(), call.function.name.clone());
                calls.push(call);
            }
            Block::ToolResult { .. } => {}
        }
    }
    let message = match (text.is_empty(), calls.is_empty()) {
        (true, false) => Message::assistant_calls(calls),
        (false, false) => Message::assistant(text).with_tool_calls(calls),
        (_, true) => Message::assistant(text),
    };
    if thoughts.is_empty() { message } else { message.with_reasoning(thoughts) }
}
