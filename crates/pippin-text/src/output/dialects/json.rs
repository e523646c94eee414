//! Calls that are JSON.

use serde_json::{Map, Value};

use super::{Context, call, cut, pythonic, some};
use crate::message::ToolCall;
use crate::output::literal;

/// One object, a list of them, or several after each other. Hermes, Qwen, Granite, Cohere, Phi, MiniMax M1 and others.
pub(crate) fn calls(text: &str, _: &Context<'_>) -> Option<Vec<ToolCall>> {
    let mut calls = Vec::new();
    for value in values(text)? {
        add(value, &mut calls)?;
    }
    some(calls)
}

/// The JSON values of a text, with nothing but white space, commas and semicolons between them.
fn values(text: &str) -> Option<Vec<Value>> {
    let mut values = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter();
        match stream.next()? {
            Ok(value) => values.push(value),
            // What Python would have written, or a line end within a string.
            Err(_) => {
                values.push(literal::value(rest)?);
                break;
            }
        }
        rest = rest.get(stream.byte_offset()..)?.trim_start_matches([' ', '\n', '\r', '\t', ',', ';']);
    }
    Some(values)
}

fn add(value: Value, calls: &mut Vec<ToolCall>) -> Option<()> {
    match value {
        Value::Array(list) => list.into_iter().try_for_each(|value| match value {
            Value::Object(object) => add_object(object, calls),
            _ => None,
        }),
        Value::Object(object) => add_object(object, calls),
        _ => None,
    }
}

fn add_object(mut object: Map<String, Value>, calls: &mut Vec<ToolCall>) -> Option<()> {
    // The form of the API: {"type": "function", "function": {…}}.
    if let Some(Value::Object(function)) = object.get_mut("function") {
        let mut function = std::mem::take(function);
        if let Some(id) = object.get("id") {
            function.insert("id".to_owned(), id.clone());
        }
        object = function;
    }
    let text = |names: &[&str]| names.iter().find_map(|name| object.get(*name)?.as_str().map(str::to_owned));
    let id = text(&["id", "tool_call_id"]);
    let name = text(&["name", "tool_name", "function"]);
    if let Some(name) = name {
        let given = ["arguments", "parameters"].into_iter().find_map(|name| object.shift_remove(name));
        calls.push(call(id.as_deref(), &name, arguments(given)?)?);
        return Some(());
    }
    // Apertus: {"name of the function": {…}}.
    let mut fields = object.into_iter();
    let (name, given) =
        fields.next().filter(|(name, given)| given.is_object() && !FIELDS.contains(&name.as_str()))?;
    if fields.next().is_some() {
        return None;
    }
    calls.push(call(None, &name, arguments(Some(given))?)?);
    Some(())
}

/// What the fields of a call are called, which is not a function's name.
const FIELDS: [&str; 4] = ["arguments", "parameters", "function", "name"];

/// Arguments are an object, or one written as JSON text; without any, an empty one.
fn arguments(given: Option<Value>) -> Option<Map<String, Value>> {
    match given {
        None | Some(Value::Null) => Some(Map::new()),
        Some(Value::Object(object)) => Some(object),
        Some(Value::String(text)) if text.trim().is_empty() => Some(Map::new()),
        Some(Value::String(text)) => literal::object(&text),
        Some(_) => None,
    }
}

/// Llama 3: JSON, or behind its mark for code also `name.call(…)`.
pub(crate) fn llama(text: &str, context: &Context<'_>) -> Option<Vec<ToolCall>> {
    let calls = calls(text, context).or_else(|| {
        let text = text.trim();
        let mut calls = pythonic(&format!("[{text}]"), context)?;
        for call in &mut calls {
            let name = &mut call.function.name;
            *name = name.strip_suffix(".call")?.to_owned();
        }
        some(calls)
    })?;
    // JSON without any mark is an answer like others, unless it names a tool.
    let is_known = |call: &ToolCall| context.tools.has(&call.function.name);
    (context.tools.is_empty() || calls.iter().all(is_known)).then_some(calls)
}

/// Mistral: `name[ARGS]{…}`, `name[CALL_ID]id[ARGS]{…}`, or a list.
pub(crate) fn mistral(text: &str, context: &Context<'_>) -> Option<Vec<ToolCall>> {
    let Some((header, given)) = cut(text, "[ARGS]").filter(|_| !text.trim_start().starts_with(['[', '{']))
    else {
        return calls(text, context);
    };
    let (name, id) = match cut(header, "[CALL_ID]") {
        Some((name, id)) => (name, Some(id.trim())),
        None => (header, None),
    };
    some(vec![call(id, name.trim(), literal::object(given)?)?])
}

/// The arguments of a function that was named before: harmony, functionary.
pub(crate) fn named(text: &str, context: &Context<'_>) -> Option<Vec<ToolCall>> {
    let given = arguments(Some(text.into()))?;
    some(vec![call(None, context.name?, given)?])
}

/// `name>{…}`, what follows `<function=`: Llama 3.1, functionary 3.1.
pub(crate) fn wrapped_name(text: &str, _: &Context<'_>) -> Option<Vec<ToolCall>> {
    let (name, given) = cut(text, ">")?;
    some(vec![call(None, name.trim().trim_matches('"'), arguments(Some(given.into()))?)?])
}
