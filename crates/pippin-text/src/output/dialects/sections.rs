//! Calls whose parts stand between special tokens.

use serde_json::{Map, Value};

use super::{Context, call, cut, some};
use crate::message::ToolCall;
use crate::output::literal;

/// Kimi K2: `functions.name:0<|tool_call_argument_begin|>{…}`.
pub(crate) fn kimi_k2(text: &str, _: &Context<'_>) -> Option<Vec<ToolCall>> {
    let (header, given) = cut(text, "<|tool_call_argument_begin|>")?;
    let id = header.trim();
    let numbered =
        |(name, index): &(&str, &str)| !name.is_empty() && index.bytes().all(|c| c.is_ascii_digit());
    let name = id.rsplit_once(':').filter(numbered).map_or(id, |(name, _)| name);
    let name = name.strip_prefix("functions.").unwrap_or(name);
    some(vec![call(Some(id), name, literal::object(given)?)?])
}

/// DeepSeek V3 and R1: the kind, the name and JSON in a block of code; V3.1: the name and JSON.
pub(crate) fn deepseek(text: &str, _: &Context<'_>) -> Option<Vec<ToolCall>> {
    let (first, rest) = cut(text, "<｜tool▁sep｜>")?;
    let (name, given) = match cut(rest, "```") {
        Some((name, block)) if !rest.trim_start().starts_with('{') => {
            let block = block.strip_prefix("json").unwrap_or(block).trim();
            (name, block.strip_suffix("```").unwrap_or(block))
        }
        _ => (first, rest),
    };
    some(vec![call(None, name.trim(), literal::object(given)?)?])
}

/// Solar: an id, the name and JSON.
pub(crate) fn solar(text: &str, _: &Context<'_>) -> Option<Vec<ToolCall>> {
    let (id, rest) = cut(text, "<|tool_call:name|>")?;
    let (name, given) = cut(rest, "<|tool_call:args|>")?;
    some(vec![call(Some(id.trim()), name.trim(), literal::object(given)?)?])
}

const OPEN: &str = "<|open|>";
const CLOSE: &str = "<|close|>";
const SEPARATOR: &str = "<|sep|>";

/// Kimi K3: elements whose tags are special tokens, with the type of each argument, or JSON.
pub(crate) fn kimi_k3(text: &str, _: &Context<'_>) -> Option<Vec<ToolCall>> {
    let mut calls = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (tag, after) = opened(rest)?;
        let attributes = tag.strip_prefix("call")?;
        let name = attribute(attributes, "tool")?;
        let mut arguments = Map::new();
        let mut inner = after.trim_start();
        loop {
            if let Some(next) = inner.strip_prefix(CLOSE) {
                rest = next.strip_prefix("call")?.strip_prefix(SEPARATOR)?.trim_start();
                break;
            }
            let (tag, after) = opened(inner)?;
            let (value, next) = cut(after, CLOSE)?;
            if let Some(attributes) = tag.strip_prefix("argument") {
                let key = attribute(attributes, "key")?;
                let kind = attribute(attributes, "type");
                let is_text = kind.as_deref().is_none_or(|kind| kind == "string");
                let value = if is_text { None } else { serde_json::from_str(value).ok() }
                    .unwrap_or_else(|| Value::from(value));
                arguments.insert(key, value);
                inner = next.strip_prefix("argument")?;
            } else {
                tag.strip_prefix("json")?;
                arguments = literal::object(value)?;
                inner = next.strip_prefix("json")?;
            }
            inner = inner.strip_prefix(SEPARATOR)?.trim_start();
        }
        calls.push(call(None, &name, arguments)?);
    }
    some(calls)
}

/// The tag at the beginning of a text, and what follows it.
fn opened(text: &str) -> Option<(&str, &str)> {
    cut(text.strip_prefix(OPEN)?, SEPARATOR)
}

fn attribute(attributes: &str, name: &str) -> Option<String> {
    let mut rest = attributes;
    loop {
        let (key, after) = cut(rest, "=\"")?;
        let (value, next) = cut(after, "\"")?;
        if key.trim() == name {
            return Some(value.replace("&quot;", "\"").replace("&amp;", "&"));
        }
        rest = next;
    }
}
