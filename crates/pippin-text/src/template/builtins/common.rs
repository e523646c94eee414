//! What filters and methods share.

use std::sync::Arc;

use super::super::eval::{Fault, Interpreter, Outcome, describe, fail};
use super::super::value::{Value, View, ViewKind};

/// Widths given to filters and methods that fill up.
const MAX_WIDTH: i128 = 100_000;

pub(crate) fn required(value: Option<Value>, function: &str) -> Outcome<Value> {
    value.ok_or_else(|| Fault::Error(format!("{function}: an argument is missing")))
}

pub(super) fn text<'a>(value: &'a Value, function: &str) -> Outcome<&'a str> {
    match value {
        Value::Str(text) => Ok(text),
        Value::Undefined(reason) => fail(format!("{function}: {reason}")),
        other => fail(format!("{function} needs a string, not {}", describe(other))),
    }
}

pub(super) fn integer(value: &Value, function: &str) -> Outcome<i128> {
    value
        .as_int()
        .ok_or_else(|| Fault::Error(format!("{function} needs an integer, not {}", describe(value))))
}

pub(super) fn width(value: Option<Value>, default: i128, function: &str) -> Outcome<usize> {
    let width = value.map_or(Ok(default), |value| integer(&value, function))?;
    if width > MAX_WIDTH {
        return Err(Fault::Limit("characters of width", MAX_WIDTH as u64));
    }
    Ok(usize::try_from(width).unwrap_or(0))
}

/// What Python calls white space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Digits in any script: numeric characters except fractions and Roman numerals.
pub(super) fn is_digit(c: char) -> bool {
    c.is_numeric() && !matches!(c, '\u{bc}'..='\u{be}' | '\u{2150}'..='\u{2189}')
}

/// Whether a letter has an upper and a lower case: what Python asks to find where words begin.
pub(super) fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || is_title(c)
}

/// Letters in title case: digraphs, of which the first letter is large, and Greek ones with a subscript.
pub(super) fn is_title(c: char) -> bool {
    matches!(c, '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}' | '\u{1f88}'..='\u{1f8f}' | '\u{1f98}'..='\u{1f9f}'
        | '\u{1fa8}'..='\u{1faf}' | '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}')
}

/// Python's `str.istitle`.
pub(super) fn is_titled(source: &str) -> bool {
    let (mut cased, mut inside) = (false, false);
    for c in source.chars() {
        let large = c.is_uppercase() || is_title(c);
        // A large letter begins a word, a small one does not.
        if (large && inside) || (!large && c.is_lowercase() && !inside) {
            return false;
        }
        inside = large || c.is_lowercase();
        cased |= inside;
    }
    cased
}

pub(super) fn capitalize(source: &str) -> String {
    let mut chars = source.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars.flat_map(char::to_lowercase)).collect()
    })
}

/// Upper case at the start and after each separator, lower case elsewhere.
pub(super) fn title(source: &str, separates: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(source.len());
    let mut start = true;
    for c in source.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        start = separates(c);
    }
    out
}

pub(super) fn strip<'a>(
    source: &'a str,
    chars: Option<Value>,
    left: bool,
    right: bool,
    name: &str,
) -> Outcome<&'a str> {
    let chars = match &chars {
        None | Some(Value::None) => None,
        Some(chars) => Some(text(chars, name)?),
    };
    // Each character of the source may be compared with each of these.
    if chars.is_some_and(|chars| chars.len() > 1000) {
        return fail(format!("{name}: too many characters to strip"));
    }
    let unwanted = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let source = if left { source.trim_start_matches(unwanted) } else { source };
    Ok(if right { source.trim_end_matches(unwanted) } else { source })
}

pub(super) fn replace(
    vm: &mut Interpreter,
    source: &str,
    old: &str,
    new: &str,
    count: Option<Value>,
) -> Outcome<Value> {
    let count = match count {
        None | Some(Value::None) => -1,
        Some(count) => integer(&count, "replace")?,
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let found = source.matches(old).take(count).count() as u64;
    vm.reserve((source.len() as u64).saturating_add(found.saturating_mul(new.len() as u64)))?;
    Ok(Value::str(source.replacen(old, new, count)))
}

pub(super) fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Python's `splitlines`.
pub(super) fn split_lines(source: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find(is_line_end) {
        let end = if rest[at..].starts_with("\r\n") {
            at + 2
        } else {
            at + rest[at..].chars().next().map_or(1, char::len_utf8)
        };
        lines.push(&rest[..if keep_ends { end } else { at }]);
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// Python's `str.center`.
pub(super) fn center(source: &str, width: usize, fill: char) -> String {
    let missing = width.saturating_sub(source.chars().count());
    let left = missing / 2 + (missing & width & 1);
    let pad = |count: usize| std::iter::repeat_n(fill, count);
    pad(left).chain(source.chars()).chain(pad(missing - left)).collect()
}

pub(super) fn join(vm: &mut Interpreter, parts: &[Arc<str>], separator: &str) -> Outcome<Value> {
    let bytes: u64 = parts.iter().map(|part| (part.len() + separator.len()) as u64).sum();
    vm.reserve(bytes)?;
    Ok(Value::str(parts.join(separator)))
}

/// The entries of a dict as pairs.
pub(super) fn items(vm: &mut Interpreter, value: &Value) -> Outcome<Vec<Value>> {
    let Value::Dict(dict) = value else {
        return fail(format!("a mapping is needed, not {}", describe(value)));
    };
    vm.reserve(dict.map.len() as u64 * 4 * size_of::<Value>() as u64)?;
    View { kind: ViewKind::Items, dict: dict.clone() }.values()
}
