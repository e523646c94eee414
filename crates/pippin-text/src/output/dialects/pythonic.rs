//! Calls as Python has them: `[name(key='value', other=3), second()]`. LFM2.

use serde_json::Map;

use super::{Context, call, json, some};
use crate::message::ToolCall;
use crate::output::literal::Reader;

pub(crate) fn pythonic(text: &str, context: &Context<'_>) -> Option<Vec<ToolCall>> {
    let mut reader = Reader::new(text);
    let mut calls = Vec::new();
    let is_list = reader.take("[");
    while !(reader.is_at_end() || is_list && reader.take("]")) {
        let name = reader.word(|c| c.is_alphanumeric() || "_.-".contains(c));
        let Some(name) = name.filter(|_| reader.take("(")) else { return json(text, context) };
        let mut arguments = Map::new();
        while !reader.take(")") {
            let key = reader.word(|c| c.is_alphanumeric() || c == '_')?;
            if !reader.take("=") {
                return None;
            }
            let value = reader.value()?;
            arguments.insert(key.to_owned(), value);
            if !reader.take(",") {
                if reader.take(")") {
                    break;
                }
                return None;
            }
        }
        calls.push(call(None, name, arguments)?);
        if !reader.take(",") {
            if is_list && !reader.take("]") {
                return None;
            }
            break;
        }
    }
    reader.is_at_end().then_some(())?;
    some(calls)
}
