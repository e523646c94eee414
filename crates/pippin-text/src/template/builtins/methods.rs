//! Methods of strings, lists and dicts: `value.name(…)`.

use std::sync::Arc;

use indexmap::IndexMap;

use super::super::eval::{Args, Interpreter, Outcome, describe, fail};
use super::super::format;
use super::super::parse::{Comparison, Name};
use super::super::value::{Key, Value, View, ViewKind, is_printable};
use super::common::*;

const STR_METHODS: &[&str] = &[
    "upper",
    "lower",
    "casefold",
    "title",
    "capitalize",
    "swapcase",
    "strip",
    "lstrip",
    "rstrip",
    "split",
    "rsplit",
    "splitlines",
    "replace",
    "startswith",
    "endswith",
    "removeprefix",
    "removesuffix",
    "find",
    "rfind",
    "index",
    "rindex",
    "count",
    "join",
    "format",
    "format_map",
    "expandtabs",
    "partition",
    "rpartition",
    "zfill",
    "ljust",
    "rjust",
    "center",
    "isalpha",
    "isdigit",
    "isnumeric",
    "isdecimal",
    "isalnum",
    "isspace",
    "islower",
    "isupper",
    "isascii",
    "istitle",
    "isidentifier",
    "isprintable",
];
const DICT_METHODS: &[&str] = &["get", "items", "keys", "values", "copy"];
const LIST_METHODS: &[&str] = &["count", "index", "copy"];

/// Whether a value has a method of this name.
pub(crate) fn has_method(value: &Value, name: &str) -> bool {
    match value {
        Value::Str(_) => STR_METHODS.contains(&name),
        Value::Dict(_) => DICT_METHODS.contains(&name),
        Value::List(_) => LIST_METHODS.contains(&name),
        Value::Tuple(_) | Value::Group(_) | Value::Range(_) => matches!(name, "count" | "index"),
        Value::View(view) => name == "isdisjoint" && view.kind != ViewKind::Values,
        Value::Loop { .. } => matches!(name, "cycle" | "changed"),
        Value::Cycler(_) => matches!(name, "next" | "reset"),
        Value::Function("dict") => name == "fromkeys",
        _ => false,
    }
}

/// Whether Python has a method of this name that changes the value. Jinja's sandbox hides these, and with them whatever
/// a dict holds under the same name.
pub(crate) fn changes(value: &Value, name: &str) -> bool {
    match value {
        Value::Dict(_) => matches!(name, "clear" | "pop" | "popitem" | "setdefault" | "update"),
        Value::List(_) => {
            matches!(name, "append" | "clear" | "extend" | "insert" | "pop" | "remove" | "reverse" | "sort")
        }
        _ => false,
    }
}

/// Calls a method.
pub(crate) fn method(vm: &mut Interpreter, value: &Value, name: &Name, args: Args) -> Outcome<Value> {
    match value {
        Value::Str(source) => str_method(vm, source, name, args),
        Value::Dict(dict) => match name.as_ref() {
            "get" => {
                let [key, default] = args.take(name, ["key", "default"])?;
                let found = vm.lookup_key(&required(key, name)?)?.and_then(|key| dict.map.get(&key).cloned());
                Ok(found.or(default).unwrap_or(Value::None))
            }
            "items" | "keys" | "values" => {
                let [] = args.take(name, [])?;
                let kind = match name.as_ref() {
                    "items" => ViewKind::Items,
                    "keys" => ViewKind::Keys,
                    _ => ViewKind::Values,
                };
                vm.reserve(size_of::<View>() as u64)?;
                Ok(Value::View(Arc::new(View { kind, dict: dict.clone() })))
            }
            _ => Ok(value.clone()),
        },
        Value::View(view) => {
            let [other] = args.take(name, ["other"])?;
            for item in vm.iterate(&required(other, name)?)? {
                if vm.compare(Comparison::In, &item, &Value::View(view.clone()))? {
                    return Ok(Value::Bool(false));
                }
            }
            Ok(Value::Bool(true))
        }
        Value::Range(range) => {
            let [item] = args.take(name, ["value"])?;
            let item = required(item, name)?;
            match (name.as_ref(), range.position(&item)) {
                ("count", position) => Ok(Value::Int(position.is_some().into())),
                (_, Some(position)) => Ok(Value::Int(position as i128)),
                (_, None) => fail(format!("{} is not in range", describe(&item))),
            }
        }
        Value::Cycler(index) => {
            let [] = args.take(name, [])?;
            let cycler = &mut vm.cyclers[*index];
            if name.as_ref() == "reset" {
                cycler.position = 0;
                return Ok(Value::None);
            }
            let current = cycler.items.get(cycler.position).cloned();
            cycler.position = (cycler.position + 1) % cycler.items.len().max(1);
            Ok(current.unwrap_or(Value::None))
        }
        Value::Function(_) => {
            let [keys, value] = args.take(name, ["iterable", "value"])?;
            let value = value.unwrap_or(Value::None);
            let mut map = IndexMap::new();
            for key in vm.iterate(&required(keys, name)?)? {
                vm.reserve(size_of::<(Key, Value)>() as u64)?;
                map.insert(vm.new_key(&key)?, value.clone());
            }
            Value::dict(map)
        }
        Value::List(seq) | Value::Tuple(seq) | Value::Group(seq) => match name.as_ref() {
            "copy" => Ok(value.clone()),
            _ => {
                let [item] = args.take(name, ["value"])?;
                let item = required(item, name)?;
                vm.visit(value)?;
                let mut positions = seq.items.iter().enumerate().filter(|(_, other)| other.equals(&item));
                if name.as_ref() == "count" {
                    return Ok(Value::Int(positions.count() as i128));
                }
                match positions.next() {
                    Some((position, _)) => Ok(Value::Int(position as i128)),
                    None => fail(format!("{} is not in the list", describe(&item))),
                }
            }
        },
        Value::Loop { slot, serial } => vm.loop_method(*slot, *serial, name, args),
        other => fail(format!("{} has no method '{name}'", other.type_name())),
    }
}

fn str_method(vm: &mut Interpreter, source: &str, name: &Name, args: Args) -> Outcome<Value> {
    let name = name.as_ref();
    let all = |test: fn(char) -> bool| Value::Bool(!source.is_empty() && source.chars().all(test));
    vm.scan(source)?;
    match name {
        "split" | "rsplit" => {
            let [separator, count] = args.take(name, ["sep", "maxsplit"])?;
            let count = count.map_or(Ok(-1), |count| integer(&count, name))?;
            let count = usize::try_from(count).unwrap_or(usize::MAX - 1);
            return split(vm, source, separator, count, name == "rsplit");
        }
        "replace" => {
            let [old, new, count] = args.take(name, ["old", "new", "count"])?;
            let (old, new) = (required(old, name)?, required(new, name)?);
            return replace(vm, source, text(&old, name)?, text(&new, name)?, count);
        }
        "join" => {
            let [iterable] = args.take(name, ["iterable"])?;
            let mut parts = Vec::new();
            for item in vm.iterate(&required(iterable, name)?)? {
                let Value::Str(part) = &item else {
                    return fail(format!("join needs strings, found {}", describe(&item)));
                };
                parts.push(part.clone());
            }
            return join(vm, &parts, source);
        }
        "format" => return format::braces(vm, source, args),
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = args.take(name, ["chars"])?;
            let (left, right) = (name != "rstrip", name != "lstrip");
            return vm.text(strip(source, chars, left, right, name)?.to_owned());
        }
        "splitlines" => {
            let [keep_ends] = args.take(name, ["keepends"])?;
            let keep_ends = keep_ends.is_some_and(|flag| flag.is_true());
            let count = source.matches(is_line_end).count() as u64 + 1;
            vm.reserve(source.len() as u64 + count * 2 * size_of::<Value>() as u64)?;
            return Value::list(split_lines(source, keep_ends).into_iter().map(Value::str).collect());
        }
        "startswith" | "endswith" => {
            let [affix, start, end] = args.take(name, ["prefix", "start", "end"])?;
            let affix = required(affix, name)?;
            let Some((_, source)) = window(source, start, end, name)? else {
                return Ok(Value::Bool(false));
            };
            let affixes = if let Value::Tuple(seq) = &affix {
                seq.items.as_slice()
            } else {
                std::slice::from_ref(&affix)
            };
            for affix in affixes {
                let affix = text(affix, name)?;
                if if name == "startswith" { source.starts_with(affix) } else { source.ends_with(affix) } {
                    return Ok(Value::Bool(true));
                }
            }
            return Ok(Value::Bool(false));
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let [part, start, end] = args.take(name, ["sub", "start", "end"])?;
            let part = required(part, name)?;
            let part = text(&part, name)?;
            return find(source, part, window(source, start, end, name)?, name);
        }
        "removeprefix" | "removesuffix" | "partition" | "rpartition" => {
            let [part] = args.take(name, ["part"])?;
            let part = required(part, name)?;
            let part = text(&part, name)?;
            vm.reserve(source.len() as u64)?;
            return divide(source, part, name);
        }
        "format_map" => {
            let [mapping] = args.take(name, ["mapping"])?;
            let Value::Dict(dict) = required(mapping, name)? else { return fail("format_map needs a dict") };
            let entries = dict.map.iter().filter_map(|(key, value)| match key {
                Key::Str(name) => Some((name.clone(), value.clone())),
                _ => None,
            });
            let named: Vec<_> = entries.collect();
            vm.reserve(named.len() as u64 * size_of::<(Name, Value)>() as u64)?;
            return format::braces(vm, source, Args { positional: Vec::new(), named });
        }
        "expandtabs" => {
            let [size] = args.take(name, ["tabsize"])?;
            let size = width(size, 8, name)?;
            let tabs = source.bytes().filter(|byte| *byte == b'\t').count();
            vm.reserve((source.len() as u64).saturating_add((tabs as u64).saturating_mul(size as u64)))?;
            return Ok(Value::str(expand_tabs(source, size)));
        }
        "zfill" | "ljust" | "rjust" | "center" => {
            let [size, fill] = args.take(name, ["width", "fillchar"])?;
            let size = width(Some(required(size, name)?), 0, name)?;
            let fill = match &fill {
                Some(fill) => text(fill, name)?.chars().next().unwrap_or(' '),
                None => ' ',
            };
            let missing = size.saturating_sub(source.chars().count());
            let pad = |c: char| std::iter::repeat_n(c, missing).collect::<String>();
            let result = match name {
                "zfill" => match source.strip_prefix(['+', '-']) {
                    Some(digits) => format!("{}{}{digits}", &source[..1], pad('0')),
                    None => pad('0') + source,
                },
                "ljust" => source.to_owned() + &pad(fill),
                "rjust" => pad(fill) + source,
                _ => center(source, size, fill),
            };
            return vm.text(result);
        }
        _ => {}
    }
    let [] = args.take(name, [])?;
    let result = match name {
        "upper" => source.to_uppercase(),
        "lower" | "casefold" => source.to_lowercase(),
        "title" => title(source, |c| !is_cased(c)),
        "capitalize" => capitalize(source),
        "swapcase" => {
            let swap = |c: char| -> String {
                if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
            };
            source.chars().map(swap).collect()
        }
        "isalpha" => return Ok(all(char::is_alphabetic)),
        "isnumeric" => return Ok(all(char::is_numeric)),
        "isdigit" | "isdecimal" => return Ok(all(is_digit)),
        "isalnum" => return Ok(all(char::is_alphanumeric)),
        "isspace" => return Ok(all(is_space)),
        "istitle" => return Ok(Value::Bool(is_titled(source))),
        "isidentifier" => {
            let mut chars = source.chars();
            let starts = chars.next().is_some_and(|c| c == '_' || c.is_alphabetic());
            return Ok(Value::Bool(starts && chars.all(|c| c == '_' || c.is_alphanumeric())));
        }
        "isprintable" => return Ok(Value::Bool(source.chars().all(is_printable))),
        "isascii" => return Ok(Value::Bool(source.is_ascii())),
        _ => {
            let (upper, lower) =
                (source.chars().any(char::is_uppercase), source.chars().any(char::is_lowercase));
            return Ok(Value::Bool(if name == "islower" { lower && !upper } else { upper && !lower }));
        }
    };
    vm.text(result)
}

/// The part of a string that `start` and `end` leave, and how many characters stand before it. `None` when `start` is behind
/// the end: there, not even nothing is found.
fn window<'a>(
    source: &'a str,
    start: Option<Value>,
    end: Option<Value>,
    name: &str,
) -> Outcome<Option<(usize, &'a str)>> {
    if start.is_none() && end.is_none() {
        return Ok(Some((0, source)));
    }
    let count = source.chars().count();
    let bound = |value: Option<Value>, default: usize| match value {
        None | Some(Value::None) => Ok(default as i128),
        Some(value) => {
            let bound = integer(&value, name)?;
            Ok(if bound < 0 { bound.saturating_add(count as i128).max(0) } else { bound })
        }
    };
    let (start, end) = (bound(start, 0)?, bound(end, count)?.min(count as i128));
    if start > end {
        return Ok(None);
    }
    // Both lie within the string now.
    let (start, end) = (start as usize, end as usize);
    let byte = |character: usize| source.char_indices().nth(character).map_or(source.len(), |(at, _)| at);
    Ok(Some((start, &source[byte(start)..byte(end)])))
}

fn find(source: &str, part: &str, window: Option<(usize, &str)>, name: &str) -> Outcome<Value> {
    let (before, inside) = window.unwrap_or((0, source));
    if name == "count" {
        return Ok(Value::Int(window.map_or(0, |_| inside.matches(part).count()) as i128));
    }
    let found = match name {
        "find" | "index" => inside.find(part),
        _ => inside.rfind(part),
    };
    match found.filter(|_| window.is_some()) {
        Some(bytes) => Ok(Value::Int((before + inside[..bytes].chars().count()) as i128)),
        None if name.ends_with("index") => fail("substring not found"),
        None => Ok(Value::Int(-1)),
    }
}

/// Python's `str.expandtabs`: columns begin anew at each line.
fn expand_tabs(source: &str, size: usize) -> String {
    let mut out = String::with_capacity(source.len());
    let mut column = 0;
    for c in source.chars() {
        match c {
            '\t' if size == 0 => {}
            '\t' => {
                let blanks = size - column % size;
                out.extend(std::iter::repeat_n(' ', blanks));
                column += blanks;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    out
}

fn divide(source: &str, part: &str, name: &str) -> Outcome<Value> {
    Ok(match name {
        "removeprefix" => Value::str(source.strip_prefix(part).unwrap_or(source)),
        "removesuffix" => Value::str(source.strip_suffix(part).unwrap_or(source)),
        _ => {
            if part.is_empty() {
                return fail(format!("{name}: empty separator"));
            }
            let parts = match name {
                "partition" => source.split_once(part).map(|(a, b)| [a, part, b]).unwrap_or([source, "", ""]),
                _ => source.rsplit_once(part).map(|(a, b)| [a, part, b]).unwrap_or(["", "", source]),
            };
            Value::tuple(parts.into_iter().map(Value::str).collect())?
        }
    })
}

/// Python's `split` and `rsplit`: at white space without a separator.
fn split(
    vm: &mut Interpreter,
    source: &str,
    separator: Option<Value>,
    count: usize,
    right: bool,
) -> Outcome<Value> {
    let separator = match &separator {
        None | Some(Value::None) => None,
        Some(separator) => Some(text(separator, "split")?),
    };
    if separator == Some("") {
        return fail("split: empty separator");
    }
    let pieces = match separator {
        Some(separator) => source.matches(separator).count() + 1,
        None => source.split(is_space).filter(|word| !word.is_empty()).count(),
    };
    // A string value and its buffer for each piece.
    vm.reserve(source.len() as u64 + pieces as u64 * 2 * size_of::<Value>() as u64)?;
    let mut parts: Vec<&str> = match (separator, right) {
        (Some(separator), false) => source.splitn(count.saturating_add(1), separator).collect(),
        (Some(separator), true) => source.rsplitn(count.saturating_add(1), separator).collect(),
        (None, false) => {
            let (mut parts, mut rest) = (Vec::new(), source.trim_start_matches(is_space));
            while !rest.is_empty() {
                let end =
                    if parts.len() < count { rest.find(is_space).unwrap_or(rest.len()) } else { rest.len() };
                parts.push(&rest[..end]);
                rest = rest[end..].trim_start_matches(is_space);
            }
            parts
        }
        (None, true) => {
            let (mut parts, mut rest) = (Vec::new(), source.trim_end_matches(is_space));
            while !rest.is_empty() {
                let last = |at: usize| at + rest[at..].chars().next().map_or(0, char::len_utf8);
                let start = if parts.len() < count { rest.rfind(is_space).map_or(0, last) } else { 0 };
                parts.push(&rest[start..]);
                rest = rest[..start].trim_end_matches(is_space);
            }
            parts
        }
    };
    if right {
        parts.reverse();
    }
    Value::list(parts.into_iter().map(Value::str).collect())
}
