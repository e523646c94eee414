//! A name, and then keys and values in tags of their own: GLM, Laguna, Spark, Ling, LongCat, Hy3.

use serde_json::Map;

use super::{Context, call, cut, json, some};
use crate::message::ToolCall;
use crate::output::literal;
use crate::output::schema::Untyped;

/// What the tags of a dialect have before and behind their names.
const AFFIXES: [(&str, &str); 3] = [("", ""), ("longcat_", ""), ("", ":opensource")];

/// `name<arg_key>key</arg_key><arg_value>value</arg_value>`.
pub(crate) fn keyed(text: &str, context: &Context<'_>) -> Option<Vec<ToolCall>> {
    let text = text.trim();
    if text.starts_with(['{', '[']) {
        return json(text, context);
    }
    // Nothing else says that the last value was the last.
    if !context.is_closed {
        return None;
    }
    let tags = AFFIXES.map(|(before, behind)| {
        let tag = |slash: &str, name: &str| format!("<{slash}{before}{name}{behind}>");
        [tag("", "arg_key"), tag("/", "arg_key"), tag("", "arg_value"), tag("/", "arg_value")]
    });
    let Some([key_start, key_end, value_start, value_end]) = tags.iter().find(|tags| text.contains(&tags[0]))
    else {
        // Some write JSON after the name, and without arguments there is only the name.
        let text = text.trim_end_matches("<tool_sep:opensource>");
        let (name, given) = text.find('{').map_or((text, None), |at| (&text[..at], Some(&text[at..])));
        let arguments = given.map_or_else(|| Some(Map::new()), literal::object)?;
        return some(vec![call(None, name.trim(), arguments)?]);
    };
    let (name, mut rest) = text.split_at(text.find(key_start)?);
    let name = name.trim().trim_end_matches("<tool_sep:opensource>").trim_end();
    let mut arguments = Map::new();
    while !rest.is_empty() {
        let (key, after) = cut(rest.strip_prefix(key_start)?, key_end)?;
        // Some write the line end that stood in their examples as two characters.
        let after = after.trim_start().trim_start_matches("\\n").trim_start();
        let (value, next) = cut(after.strip_prefix(value_start)?, value_end)?;
        let key = key.trim();
        arguments.insert(key.to_owned(), context.tools.convert(name, key, value.trim(), Untyped::Literal));
        rest = next.trim_start();
    }
    some(vec![call(None, name, arguments)?])
}
