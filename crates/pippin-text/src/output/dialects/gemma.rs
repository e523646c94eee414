//! Gemma's: `call:name{key:<escape>text<escape>,other:3}` and, with other marks around strings, Gemma 4's.

use serde_json::Value;

use super::{Context, call, some};
use crate::message::ToolCall;
use crate::output::literal::Reader;

pub(crate) fn function_gemma(text: &str, _: &Context<'_>) -> Option<Vec<ToolCall>> {
    calls(text, "<escape>")
}

pub(crate) fn gemma4(text: &str, _: &Context<'_>) -> Option<Vec<ToolCall>> {
    calls(text, "<|\"|>")
}

fn calls(text: &str, mark: &'static str) -> Option<Vec<ToolCall>> {
    let mut reader = Reader::new(text).with_mark(mark);
    let mut calls = Vec::new();
    while !reader.is_at_end() {
        if !reader.take("call:") {
            return None;
        }
        let name = reader.word(|c| c.is_alphanumeric() || "_.-".contains(c))?;
        match reader.value()? {
            Value::Object(arguments) => calls.push(call(None, name, arguments)?),
            _ => return None,
        }
    }
    some(calls)
}
