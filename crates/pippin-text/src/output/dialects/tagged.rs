//! Calls in tags like those of XML.

use serde_json::{Map, Value};

use super::{Context, call, cut, json, some, without_line_ends};
use crate::message::ToolCall;
use crate::output::literal;
use crate::output::schema::Untyped;

/// `<function=name><parameter=key>value</parameter></function>`, once or more: Qwen3-Coder, Qwen3.5, Nemotron 3, Seed, Step.
pub(crate) fn functions(text: &str, context: &Context<'_>) -> Option<Vec<ToolCall>> {
    let mut rest = text.trim();
    if rest.starts_with(['{', '[']) {
        return json(rest, context);
    }
    let mut calls = Vec::new();
    while !rest.is_empty() {
        let (body, next) = cut(rest.strip_prefix("<function=")?, "</function>")?;
        calls.push(one_function(body, context)?);
        rest = next.trim_start();
    }
    some(calls)
}

/// What stands between `<function=` and `</function>`.
pub(crate) fn function(text: &str, context: &Context<'_>) -> Option<Vec<ToolCall>> {
    context.is_closed.then(|| one_function(text, context)).flatten().map(|call| vec![call])
}

fn one_function(text: &str, context: &Context<'_>) -> Option<ToolCall> {
    let (name, mut rest) = cut(text, ">")?;
    let name = name.trim();
    let mut arguments = Map::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return call(None, name, arguments);
        }
        let (key, value) = cut(rest.strip_prefix("<parameter=")?, ">")?;
        let (value, next) = cut(value, "</parameter>")?;
        let key = key.trim();
        let value = context.tools.convert(name, key, without_line_ends(value), Untyped::Text);
        arguments.insert(key.to_owned(), value);
        rest = next;
    }
}

/// The names of a dialect's tags.
struct Tags {
    call: &'static str,
    parameter: &'static str,
    untyped: Untyped,
}

/// `<invoke name="…"><parameter name="…">value</parameter></invoke>` under the names of MiniMax M2, DeepSeek V3.2 and V4, Muse and
/// MiniCPM5.
pub(crate) fn invokes(text: &str, context: &Context<'_>) -> Option<Vec<ToolCall>> {
    let all = [
        Tags { call: "invoke", parameter: "parameter", untyped: Untyped::Text },
        Tags { call: "｜DSML｜invoke", parameter: "｜DSML｜parameter", untyped: Untyped::Text },
        Tags { call: "atem:invoke", parameter: "atem:parameter", untyped: Untyped::Literal },
        Tags { call: "function", parameter: "param", untyped: Untyped::Text },
    ];
    let mut rest = text.trim();
    let tags = all.iter().find(|tags| element(rest, tags.call).is_some())?;
    let mut calls = Vec::new();
    while !rest.is_empty() {
        let (attributes, body, next) = element(rest, tags.call)?;
        let name = attribute(attributes, "name")?;
        let mut arguments = Map::new();
        let mut body = body.trim();
        while !body.is_empty() {
            let (attributes, value, next) = element(body, tags.parameter)?;
            let key = attribute(attributes, "name")?;
            let value = match (attribute(attributes, "string"), without_wrapping(value)) {
                // DeepSeek says of each value whether it is a string.
                (Some("true"), text) => text.into(),
                (Some(_), text) => literal::value(text)?,
                (None, text) => context.tools.convert(name, key, text, tags.untyped),
            };
            arguments.insert(key.to_owned(), value);
            body = next.trim_start();
        }
        calls.push(call(None, name, arguments)?);
        rest = next.trim_start();
    }
    some(calls)
}

/// What follows `<function name=`, up to `</function>`: MiniCPM5.
pub(crate) fn one_invoke(text: &str, context: &Context<'_>) -> Option<Vec<ToolCall>> {
    context.is_closed.then(|| invokes(&format!("<function name={text}</function>"), context)).flatten()
}

/// An element at the beginning of a text: its attributes, what is in it and what follows it.
fn element<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let rest = text.strip_prefix('<')?.strip_prefix(name)?;
    let (attributes, rest) = cut(rest, ">")?;
    if !attributes.is_empty() && !attributes.starts_with(char::is_whitespace) {
        return None;
    }
    // A section that is quoted may hold anything.
    let quoted = if rest.trim_start().starts_with(QUOTED.0) { rest.find(QUOTED.1)? } else { 0 };
    let close = format!("</{name}>");
    let end = quoted + rest.get(quoted..)?.find(&close)?;
    Some((attributes, rest.get(..end)?, rest.get(end + close.len()..)?))
}

/// The marks around text in which tags mean nothing.
const QUOTED: (&str, &str) = ("<![CDATA[", "]]>");

fn without_wrapping(value: &str) -> &str {
    let quoted = value.trim().strip_prefix(QUOTED.0).and_then(|value| value.strip_suffix(QUOTED.1));
    quoted.unwrap_or_else(|| without_line_ends(value))
}

/// An attribute of a tag: `name="value"`, with either quotation marks or none.
fn attribute<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = attributes;
    loop {
        let (key, after) = cut(rest, "=")?;
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
        let (value, next) = match quote {
            Some(quote) => after[1..].split_once(quote)?,
            None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        if key.trim() == name {
            return Some(value);
        }
        rest = next;
    }
}

/// What MiniMax M3 puts before each of its tags.
const NAMESPACE: &str = "]<]minimax[>[";

/// `<invoke name="…"><key>value</key></invoke>`, where a value may consist of elements: MiniMax M3.
pub(crate) fn elements(text: &str, context: &Context<'_>) -> Option<Vec<ToolCall>> {
    let mut reader = Elements { parts: text.split(NAMESPACE).peekable() };
    let mut calls = Vec::new();
    reader.parts.next().filter(|text| text.trim().is_empty())?;
    while let Some(tag) = reader.parts.next() {
        let name = attribute(tag.trim().strip_prefix("<invoke ")?.strip_suffix('>')?, "name")?;
        let mut arguments = Map::new();
        while let Some(key) = reader.open() {
            let value = match reader.value(key, 0)? {
                Value::String(text) => context.tools.convert(name, key, &text, Untyped::Literal),
                value => value,
            };
            arguments.insert(key.to_owned(), value);
        }
        reader.close("invoke")?;
        calls.push(call(None, name, arguments)?);
    }
    some(calls)
}

struct Elements<'a> {
    /// Each begins with a tag.
    parts: std::iter::Peekable<std::str::Split<'a, &'static str>>,
}

impl<'a> Elements<'a> {
    /// The name of the element that begins next; its text stays to be read.
    fn open(&mut self) -> Option<&'a str> {
        let (name, _) = cut(self.parts.peek()?.strip_prefix('<')?, ">")?;
        (!name.starts_with('/')).then_some(name)
    }

    fn close(&mut self, name: &str) -> Option<()> {
        let rest = self.parts.next()?.strip_prefix("</")?.strip_prefix(name)?.strip_prefix('>')?;
        rest.trim().is_empty().then_some(())
    }

    /// The value of the element `name`, which begins next: its text, a list of items, or an object.
    fn value(&mut self, name: &str, depth: usize) -> Option<Value> {
        let (_, text) = cut(self.parts.next()?, ">")?;
        let mut fields = Vec::new();
        while let Some(key) = self.open().filter(|_| depth < 32) {
            let value = match self.value(key, depth + 1)? {
                Value::String(text) => literal::value(&text).unwrap_or_else(|| text.into()),
                value => value,
            };
            fields.push((key, value));
        }
        self.close(name)?;
        Some(match fields.is_empty() {
            true => text.into(),
            false if fields.iter().all(|(key, _)| *key == "item") => {
                fields.into_iter().map(|(_, value)| value).collect::<Vec<_>>().into()
            }
            false => {
                fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>().into()
            }
        })
    }
}
