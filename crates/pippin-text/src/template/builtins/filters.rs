//! Filters: `value | name(…)`.

use std::cmp::Ordering;
use std::fmt::Write;
use std::sync::Arc;

use super::super::eval::{Args, Fault, Interpreter, Outcome, describe, fail};
use super::super::format;
use super::super::parse::Operator;
use super::super::value::{JsonStyle, Key, Value};
use super::common::*;
use super::methods::has_method;
use super::predicates::test;

/// Applies a filter.
pub(crate) fn filter(vm: &mut Interpreter, name: &str, value: Value, args: Args) -> Outcome<Value> {
    match name {
        "default" | "d" => {
            let [default, boolean] = args.take(name, ["default_value", "boolean"])?;
            let falsy = boolean.is_some_and(|flag| flag.is_true()) && !value.is_true();
            Ok(if value.is_undefined() || falsy { default.unwrap_or_else(|| Value::str("")) } else { value })
        }
        "tojson" => tojson(vm, &value, args),
        "safe" | "string" => {
            let [] = args.take(name, [])?;
            vm.string(&value).map(Value::Str)
        }
        "length" | "count" => {
            let [] = args.take(name, [])?;
            vm.work(value.as_str().map_or(0, str::len) as u64 / 64)?;
            match value {
                Value::Loop { .. } => vm.attribute(&value, &"length".into()),
                _ => length(&value),
            }
        }
        "abs" | "int" | "float" | "round" => number_filter(vm, name, value, args),
        "lower" | "upper" | "title" | "capitalize" | "trim" | "replace" | "indent" | "center"
        | "truncate" | "wordcount" | "urlencode" | "escape" | "e" | "forceescape" | "format" => {
            text_filter(vm, name, value, args)
        }
        "attr" => {
            let [name] = args.take(name, ["name"])?;
            match required(name, "attr")? {
                // Attributes only: of a dict, its methods and not its items.
                Value::Str(name) if matches!(value, Value::Dict(_)) && !has_method(&value, &name) => {
                    Ok(Value::undefined(format!("'dict object' has no attribute '{name}'")))
                }
                Value::Str(name) => vm.attribute(&value, &name),
                other => fail(format!("attr needs a name, not {}", describe(&other))),
            }
        }
        "map" => map(vm, &value, args),
        "select" | "reject" | "selectattr" | "rejectattr" => select(vm, name, &value, args),
        _ if FILTERS.contains(&name) => list_filter(vm, name, value, args),
        _ => fail(format!("no filter named '{name}'")),
    }
}

/// The filters of `list_filter`, and all others for `is filter`.
pub(super) const FILTERS: &[&str] = &[
    "list", "first", "last", "join", "reverse", "sort", "unique", "min", "max", "sum", "items", "dictsort",
    "batch", "slice", "groupby",
];
pub(super) const OTHER_FILTERS: &[&str] = &[
    "default",
    "d",
    "tojson",
    "safe",
    "string",
    "length",
    "count",
    "abs",
    "int",
    "float",
    "round",
    "lower",
    "upper",
    "title",
    "capitalize",
    "trim",
    "replace",
    "indent",
    "center",
    "truncate",
    "wordcount",
    "urlencode",
    "escape",
    "e",
    "forceescape",
    "format",
    "attr",
    "map",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
];

fn length(value: &Value) -> Outcome<Value> {
    let count = match value {
        Value::Str(text) => text.chars().count(),
        Value::List(seq) | Value::Tuple(seq) | Value::Group(seq) => seq.items.len(),
        Value::Dict(dict) => dict.map.len(),
        Value::View(view) => view.dict.map.len(),
        Value::Range(range) => range.len(),
        Value::Undefined(_) => 0,
        other => return fail(format!("{} has no length", describe(other))),
    };
    Ok(Value::Int(count as i128))
}

fn tojson(vm: &mut Interpreter, value: &Value, args: Args) -> Outcome<Value> {
    let [ensure_ascii, indent, separators, sort_keys] =
        args.take("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    // An upper bound: every byte escaped.
    let limit = vm.memory_left();
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(indent)) => Some(indent.to_string()),
        other => Some(" ".repeat(width(other, 0, "tojson")?)),
    };
    let (mut item, mut key) = (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
    if let Some(separators) = separators.filter(|value| !matches!(value, Value::None)) {
        let pair = vm.iterate(&separators)?;
        let [first, second] = pair.as_slice() else { return fail("tojson: separators must be a pair") };
        item = text(first, "tojson")?.to_owned();
        key = text(second, "tojson")?.to_owned();
    }
    if item.len() + key.len() + indent.as_ref().map_or(0, String::len) > 256 {
        return fail("tojson: indent or separators are too long");
    }
    let style = JsonStyle {
        indent: indent.as_deref(),
        item_separator: &item,
        key_separator: &key,
        ensure_ascii: ensure_ascii.is_some_and(|flag| flag.is_true()),
        sort_keys: sort_keys.is_some_and(|flag| flag.is_true()),
    };
    let mut out = String::new();
    style.write(value, &mut out, 0, limit)?;
    vm.text(out)
}

fn number_filter(vm: &mut Interpreter, name: &str, value: Value, args: Args) -> Outcome<Value> {
    if let Value::Str(text) = &value {
        vm.scan(text)?;
    }
    if let Value::Undefined(reason) = &value {
        return fail(reason.as_ref());
    }
    match name {
        "abs" => {
            let [] = args.take(name, [])?;
            match &value {
                Value::Float(number) => Ok(Value::Float(number.abs())),
                other => match integer(other, name)?.checked_abs() {
                    Some(number) => Ok(Value::Int(number)),
                    None => fail("abs: the number is too large"),
                },
            }
        }
        "int" => {
            let [default, base] = args.take(name, ["default", "base"])?;
            let base = base.map_or(Ok(10), |base| integer(&base, name))?;
            let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base)).unwrap_or(10);
            let parsed = match &value {
                Value::Float(number) if number.is_finite() => Some(number.trunc() as i128),
                Value::Str(text) => {
                    let text = text.trim_matches(is_space).replace('_', "");
                    i128::from_str_radix(&text, base).ok().or_else(|| {
                        text.parse::<f64>().ok().filter(|x| x.is_finite()).map(|x| x.trunc() as i128)
                    })
                }
                other => other.as_int(),
            };
            Ok(parsed.map_or_else(|| default.unwrap_or(Value::Int(0)), Value::Int))
        }
        "float" => {
            let [default] = args.take(name, ["default"])?;
            let parsed = match &value {
                Value::Str(text) => text.trim_matches(is_space).parse().ok(),
                other => other.as_float(),
            };
            Ok(parsed.map_or_else(|| default.unwrap_or(Value::Float(0.0)), Value::Float))
        }
        _ => {
            let [precision, method] = args.take(name, ["precision", "method"])?;
            let precision = precision.map_or(Ok(0), |precision| integer(&precision, name))?;
            let method = method.unwrap_or_else(|| Value::str("common"));
            let method = vm.string(&method)?;
            let Some(number) = value.as_float() else {
                return fail(format!("cannot round {}", describe(&value)));
            };
            let precision = i32::try_from(precision.clamp(-300, 300)).unwrap_or(0);
            if let (Some(integer), "common") = (value.as_int(), method.as_ref()) {
                // An integer stays one.
                let scale = 10i128.checked_pow(u32::try_from(-precision.min(0)).unwrap_or(0));
                let rounded = scale.map_or(0, |scale| {
                    let (quotient, rest) = (integer.div_euclid(scale), integer.rem_euclid(scale));
                    let up = rest > scale - rest || (rest == scale - rest && quotient % 2 != 0);
                    (quotient + i128::from(up)) * scale
                });
                return Ok(Value::Int(rounded));
            }
            let scale = 10f64.powi(precision);
            let rounded = match method.as_ref() {
                "ceil" => (number * scale).ceil() / scale,
                "floor" => (number * scale).floor() / scale,
                "common" if precision == 0 => number.round_ties_even(),
                // Correctly rounded in decimal, as Python does it.
                "common" if precision > 0 => {
                    format!("{number:.0$}", precision as usize).parse().unwrap_or(number)
                }
                "common" => (number * scale).round_ties_even() / scale,
                other => return fail(format!("round: no method named '{other}'")),
            };
            Ok(Value::Float(rounded))
        }
    }
}

fn text_filter(vm: &mut Interpreter, name: &str, value: Value, args: Args) -> Outcome<Value> {
    match (name, &value) {
        // Of the text filters these two do not make text of what they are given.
        ("indent", value) => _ = text(value, name)?,
        ("truncate", value) if !matches!(value, Value::Str(_)) => return truncate_other(vm, value, args),
        (
            "urlencode",
            Value::List(_)
            | Value::Tuple(_)
            | Value::Group(_)
            | Value::Dict(_)
            | Value::View(_)
            | Value::Range(_)
            | Value::Generator(_),
        ) => {
            let [] = args.take(name, [])?;
            return query(vm, &value);
        }
        _ => {}
    }
    let source = vm.string(&value)?;
    vm.scan(&source)?;
    let result = match name {
        "lower" | "upper" | "title" | "capitalize" | "wordcount" | "escape" | "e" | "forceescape"
        | "urlencode" => {
            let [] = args.take(name, [])?;
            match name {
                "lower" => source.to_lowercase(),
                "upper" => source.to_uppercase(),
                "capitalize" => capitalize(&source),
                "title" => title(&source, |c| is_space(c) || "-({[<".contains(c)),
                "wordcount" => {
                    let word = |c: char| c.is_alphanumeric() || c == '_';
                    let count = source.split(|c| !word(c)).filter(|word| !word.is_empty()).count();
                    return Ok(Value::Int(count as i128));
                }
                "urlencode" => urlencode(&source, true),
                _ => escape(&source),
            }
        }
        "trim" => {
            let [chars] = args.take(name, ["chars"])?;
            strip(&source, chars, true, true, name)?.to_owned()
        }
        "replace" => {
            let [old, new, count] = args.take(name, ["old", "new", "count"])?;
            let (old, new) = (vm.string(&required(old, name)?)?, vm.string(&required(new, name)?)?);
            return replace(vm, &source, &old, &new, count);
        }
        "indent" => {
            let [indent, first, blank] = args.take(name, ["width", "first", "blank"])?;
            let indent = match indent {
                Some(Value::Str(indent)) => indent.to_string(),
                other => " ".repeat(width(other, 4, name)?),
            };
            let first = first.is_some_and(|flag| flag.is_true());
            let blank = blank.is_some_and(|flag| flag.is_true());
            let lines = split_lines(&source, false);
            vm.reserve((lines.len() as u64 + 1).saturating_mul(indent.len() as u64 + 1))?;
            let mut out = String::new();
            for (number, line) in lines.iter().enumerate() {
                if number > 0 {
                    out.push('\n');
                }
                if if number == 0 { first } else { blank || !line.is_empty() } {
                    out.push_str(&indent);
                }
                out.push_str(line);
            }
            // Jinja appends a newline before it splits: a final newline becomes an empty last line.
            if source.ends_with(is_line_end) {
                out.push('\n');
                if blank {
                    out.push_str(&indent);
                }
            } else if source.is_empty() && first {
                out.push_str(&indent);
            }
            out
        }
        "center" => {
            let [size] = args.take(name, ["width"])?;
            center(&source, width(size, 80, name)?, ' ')
        }
        "truncate" => {
            let Truncation { length, killwords, end, leeway } = truncation(vm, args)?;
            if source.chars().count() as i128 <= length.saturating_add(leeway) {
                return Ok(Value::Str(source));
            }
            let keep = usize::try_from(length - end.chars().count() as i128).unwrap_or(0);
            let mut kept: String = source.chars().take(keep).collect();
            if !killwords && let Some(space) = kept.rfind(' ') {
                kept.truncate(space);
            }
            kept + &end
        }
        _ => {
            if !args.named.is_empty() && !args.positional.is_empty() {
                return fail("format takes positional or named arguments, not both");
            }
            let argument = if args.named.is_empty() {
                Value::tuple(args.positional)?
            } else {
                Value::dict(args.named.into_iter().map(|(name, value)| (Key::Str(name), value)).collect())?
            };
            return format::percent(vm, &source, &argument);
        }
    };
    vm.text(result)
}

struct Truncation {
    length: i128,
    killwords: bool,
    end: Arc<str>,
    leeway: i128,
}

fn truncation(vm: &mut Interpreter, args: Args) -> Outcome<Truncation> {
    let name = "truncate";
    let [length, killwords, end, leeway] = args.take(name, ["length", "killwords", "end", "leeway"])?;
    let length = length.map_or(Ok(255), |length| integer(&length, name))?;
    let leeway = match leeway {
        None | Some(Value::None) => 5,
        Some(leeway) => integer(&leeway, name)?,
    };
    let end = vm.string(&end.unwrap_or_else(|| Value::str("...")))?;
    if length < end.chars().count() as i128 || leeway < 0 {
        return fail("truncate: the length must have room for the end, and leeway must not be negative");
    }
    Ok(Truncation { length, killwords: killwords.is_some_and(|flag| flag.is_true()), end, leeway })
}

/// As in Jinja, whatever is short enough stays what it is; only strings can be cut.
fn truncate_other(vm: &mut Interpreter, value: &Value, args: Args) -> Outcome<Value> {
    let Truncation { length: limit, leeway, .. } = truncation(vm, args)?;
    match length(value)?.as_int() {
        Some(count) if count <= limit.saturating_add(leeway) => Ok(value.clone()),
        _ => fail(format!("truncate needs a string, not {}", describe(value))),
    }
}

fn escape(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    for c in source.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn urlencode(source: &str, keeps_slash: bool) -> String {
    let mut out = String::with_capacity(source.len());
    for byte in source.bytes() {
        match byte {
            b'_' | b'.' | b'-' | b'~' => out.push(char::from(byte)),
            b'/' if keeps_slash => out.push('/'),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

/// The query of a URL: the pairs of a dict, or of anything that has pairs.
fn query(vm: &mut Interpreter, value: &Value) -> Outcome<Value> {
    let pairs = if let Value::Dict(_) = value { items(vm, value)? } else { vm.iterate(value)? };
    let mut parts = Vec::new();
    for pair in pairs {
        let pair = vm.iterate(&pair)?;
        let [key, value] = pair.as_slice() else { return fail("urlencode needs pairs") };
        let mut encoded = |value: &Value| {
            let text = vm.string(value)?;
            vm.reserve(text.len() as u64 * 3)?;
            Ok::<_, Fault>(urlencode(&text, false).replace("%20", "+"))
        };
        parts.push(format!("{}={}", encoded(key)?, encoded(value)?));
    }
    vm.text(parts.join("&"))
}

/// A dotted path of attributes and indices.
fn path(vm: &mut Interpreter, value: &Value, path: &Value) -> Outcome<Value> {
    let Value::Str(names) = path else { return vm.item(value, path) };
    let mut value = value.clone();
    for name in names.split('.') {
        let index = match name.parse() {
            Ok(index) if name.bytes().all(|byte| byte.is_ascii_digit()) => Value::Int(index),
            _ => Value::str(name),
        };
        value = vm.item(&value, &index)?;
    }
    Ok(value)
}

fn map(vm: &mut Interpreter, value: &Value, mut args: Args) -> Outcome<Value> {
    vm.lazily(|vm, result| {
        // Jinja asks whether there is anything before it looks at the rest.
        if !value.is_true() {
            return Ok(());
        }
        if args.positional.is_empty() && args.named.iter().any(|(name, _)| name.as_ref() == "attribute") {
            let [attribute, default] = args.take("map", ["attribute", "default"])?;
            let attribute = required(attribute, "map")?;
            for item in vm.iterate(value)? {
                let found = path(vm, &item, &attribute)?;
                result.push(if found.is_undefined() { default.clone().unwrap_or(found) } else { found });
            }
            return Ok(());
        }
        if args.positional.is_empty() {
            return fail("map needs the name of a filter");
        }
        let name = args.positional.remove(0);
        let name = text(&name, "map")?;
        for item in vm.iterate(value)? {
            let args = Args { positional: args.positional.clone(), named: args.named.clone() };
            result.push(filter(vm, name, item, args)?);
        }
        Ok(())
    })
}

fn select(vm: &mut Interpreter, name: &str, value: &Value, mut args: Args) -> Outcome<Value> {
    let wanted = name.starts_with("select");
    vm.lazily(|vm, result| {
        if !value.is_true() {
            return Ok(());
        }
        let attribute = if name.ends_with("attr") {
            if args.positional.is_empty() {
                return fail(format!("{name} needs the name of an attribute"));
            }
            Some(args.positional.remove(0))
        } else {
            None
        };
        let test_name = if args.positional.is_empty() { None } else { Some(args.positional.remove(0)) };
        let test_name = test_name.as_ref().map(|test| text(test, name)).transpose()?;
        for item in vm.iterate(value)? {
            let subject = match &attribute {
                Some(attribute) => path(vm, &item, attribute)?,
                None => item.clone(),
            };
            let passed = match test_name {
                Some(test_name) => {
                    let args = Args { positional: args.positional.clone(), named: args.named.clone() };
                    test(vm, test_name, &subject, args)?
                }
                None => subject.is_true(),
            };
            if passed == wanted {
                result.push(item);
            }
        }
        Ok(())
    })
}

/// Lower case for strings unless case matters.
fn sort_key(vm: &mut Interpreter, value: Value, case_sensitive: bool) -> Outcome<Value> {
    match &value {
        Value::Str(source) if !case_sensitive => vm.text(source.to_lowercase()),
        _ => Ok(value),
    }
}

fn sort_by_keys<T>(vm: &mut Interpreter, entries: &mut [(Value, T)], reverse: bool) -> Outcome<()> {
    let count = entries.len() as u64;
    let weight: u64 = entries.iter().map(|(key, _)| key.weight()).fold(0, u64::saturating_add);
    vm.work((count + weight / 16).saturating_mul(u64::from(count.max(1).ilog2()) + 1))?;
    let mut fault = None;
    entries.sort_by(|(a, _), (b, _)| {
        let order = a.compare(b).unwrap_or_else(|error| {
            fault.get_or_insert(error);
            Ordering::Equal
        });
        if reverse { order.reverse() } else { order }
    });
    fault.map_or(Ok(()), Err)
}

fn list_filter(vm: &mut Interpreter, name: &str, value: Value, args: Args) -> Outcome<Value> {
    let flag = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    match name {
        "list" => {
            let [] = args.take(name, [])?;
            let items = vm.iterate(&value)?;
            Value::list(items)
        }
        "first" | "last" => {
            let [] = args.take(name, [])?;
            let missing = || Value::undefined(format!("no {name} item, the sequence is empty"));
            if let Value::Generator(index) = value {
                if name == "last" {
                    return fail(
                        "last: a generator has no last item before all are made; use the filter list",
                    );
                }
                return Ok(vm.next_item(index)?.unwrap_or_else(missing));
            }
            let items = vm.iterate(&value)?;
            let item = if name == "first" { items.first() } else { items.last() };
            Ok(item.cloned().unwrap_or_else(missing))
        }
        "join" => {
            let [separator, attribute] = args.take(name, ["d", "attribute"])?;
            let separator = separator.unwrap_or_else(|| Value::str(""));
            let separator = vm.string(&separator)?;
            let mut parts = Vec::new();
            for item in vm.iterate(&value)? {
                let item = match &attribute {
                    Some(attribute) if !matches!(attribute, Value::None) => path(vm, &item, attribute)?,
                    _ => item,
                };
                parts.push(vm.string(&item)?);
            }
            join(vm, &parts, &separator)
        }
        "reverse" => {
            let [] = args.take(name, [])?;
            if let Value::Str(source) = &value {
                let reversed = source.chars().rev().collect();
                return vm.text(reversed);
            }
            let mut items = vm.iterate(&value)?;
            items.reverse();
            // Python reverses in place what cannot be read from its end.
            if matches!(value, Value::Generator(_)) { vm.list(items) } else { vm.generator(items, None) }
        }
        "sort" | "unique" => {
            let (reverse, case_sensitive, attribute) = if name == "sort" {
                let [reverse, case_sensitive, attribute] =
                    args.take(name, ["reverse", "case_sensitive", "attribute"])?;
                (flag(reverse), flag(case_sensitive), attribute)
            } else {
                let [case_sensitive, attribute] = args.take(name, ["case_sensitive", "attribute"])?;
                (false, flag(case_sensitive), attribute)
            };
            if name == "sort" {
                let mut entries = Vec::new();
                // The keys are lists, as in Jinja: several attributes are several keys, and equal ones are never ordered.
                let attributes = match &attribute {
                    Some(Value::Str(names)) => names.split(',').map(Value::str).map(Some).collect(),
                    other => vec![other.clone()],
                };
                for item in vm.iterate(&value)? {
                    let keys = attributes
                        .iter()
                        .map(|attribute| key_of(vm, &item, attribute.as_ref(), case_sensitive))
                        .collect::<Outcome<_>>()?;
                    entries.push((vm.list(keys)?, item));
                }
                sort_by_keys(vm, &mut entries, reverse)?;
                return vm.list(entries.into_iter().map(|(_, item)| item).collect());
            }
            vm.lazily(|vm, kept| {
                let mut seen = indexmap::IndexSet::new();
                for item in vm.iterate(&value)? {
                    let key = key_of(vm, &item, attribute.as_ref(), case_sensitive)?;
                    // Undefined values are equal to each other.
                    let key = if key.is_undefined() { None } else { Some(vm.new_key(&key)?) };
                    if seen.insert(key) {
                        kept.push(item);
                    }
                }
                Ok(())
            })
        }
        "min" | "max" => {
            let [case_sensitive, attribute] = args.take(name, ["case_sensitive", "attribute"])?;
            let case_sensitive = flag(case_sensitive);
            let better = if name == "min" { Ordering::Less } else { Ordering::Greater };
            let mut best: Option<(Value, Value)> = None;
            for item in vm.iterate(&value)? {
                let key = key_of(vm, &item, attribute.as_ref(), case_sensitive)?;
                let replace = match &best {
                    Some((best, _)) => key.compare(best)? == better,
                    None => true,
                };
                if replace {
                    best = Some((key, item));
                }
            }
            Ok(best.map_or_else(|| Value::undefined("no item, the sequence is empty"), |(_, item)| item))
        }
        "sum" => {
            let [attribute, start] = args.take(name, ["attribute", "start"])?;
            let mut sum = start.unwrap_or(Value::Int(0));
            for item in vm.iterate(&value)? {
                let item = match &attribute {
                    Some(attribute) if !matches!(attribute, Value::None) => path(vm, &item, attribute)?,
                    _ => item,
                };
                sum = vm.binary(Operator::Add, sum, item)?;
            }
            Ok(sum)
        }
        "items" => {
            let [] = args.take(name, [])?;
            vm.lazily(|vm, pairs| match &value {
                Value::Undefined(_) => Ok(()),
                Value::Dict(_) => {
                    *pairs = items(vm, &value)?;
                    Ok(())
                }
                other => fail(format!("items needs a mapping, not {}", describe(other))),
            })
        }
        "dictsort" => {
            let [case_sensitive, by, reverse] = args.take(name, ["case_sensitive", "by", "reverse"])?;
            let case_sensitive = flag(case_sensitive);
            let index = match by.as_ref().map(|by| text(by, name)).transpose()? {
                None | Some("key") => 0,
                Some("value") => 1,
                Some(other) => return fail(format!("dictsort sorts by key or value, not '{other}'")),
            };
            let mut entries = Vec::new();
            for pair in items(vm, &value)? {
                let key = vm.item(&pair, &Value::Int(index))?;
                entries.push((sort_key(vm, key, case_sensitive)?, pair));
            }
            sort_by_keys(vm, &mut entries, flag(reverse))?;
            vm.list(entries.into_iter().map(|(_, item)| item).collect())
        }
        "batch" => {
            let [size, fill] = args.take(name, ["linecount", "fill_with"])?;
            vm.lazily(|vm, result| {
                let size = width(size, 0, name)?.max(1);
                for row in vm.iterate(&value)?.chunks(size) {
                    let mut row = row.to_vec();
                    if let Some(fill) = fill.as_ref().filter(|fill| !matches!(fill, Value::None)) {
                        row.resize(size, fill.clone());
                    }
                    result.push(vm.list(row)?);
                }
                Ok(())
            })
        }
        "slice" => {
            let [count, fill] = args.take(name, ["slices", "fill_with"])?;
            vm.lazily(|vm, result| {
                let count = width(count, 0, name)?.max(1);
                let all = vm.iterate(&value)?;
                let (each, more) = (all.len() / count, all.len() % count);
                let mut rest = all.as_slice();
                for number in 0..count {
                    let (slice, tail) = rest.split_at(each + usize::from(number < more));
                    rest = tail;
                    let mut slice = slice.to_vec();
                    if let Some(fill) =
                        fill.as_ref().filter(|fill| number >= more && !matches!(fill, Value::None))
                    {
                        slice.push(fill.clone());
                    }
                    result.push(vm.list(slice)?);
                }
                Ok(())
            })
        }
        _ => {
            let [attribute, default, case_sensitive] =
                args.take(name, ["attribute", "default", "case_sensitive"])?;
            let attribute = required(attribute, name)?;
            let case_sensitive = flag(case_sensitive);
            let mut entries = Vec::new();
            for item in vm.iterate(&value)? {
                let mut key = path(vm, &item, &attribute)?;
                if key.is_undefined() {
                    key = default.clone().unwrap_or(key);
                }
                entries.push((sort_key(vm, key.clone(), case_sensitive)?, (key, item)));
            }
            sort_by_keys(vm, &mut entries, false)?;
            let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
            for (key, (shown, item)) in entries {
                match groups.last_mut() {
                    Some((last, _, group)) if last.equals(&key) => group.push(item),
                    _ => groups.push((key, shown, vec![item])),
                }
            }
            let mut result = Vec::new();
            for (_, shown, group) in groups {
                let group = vm.list(group)?;
                result.push(Value::group(shown, group)?);
            }
            vm.list(result)
        }
    }
}

fn key_of(
    vm: &mut Interpreter,
    item: &Value,
    attribute: Option<&Value>,
    case_sensitive: bool,
) -> Outcome<Value> {
    let key = match attribute {
        None | Some(Value::None) => item.clone(),
        Some(attribute) => path(vm, item, attribute)?,
    };
    sort_key(vm, key, case_sensitive)
}
