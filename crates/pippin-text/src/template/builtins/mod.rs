//! The functions, filters, tests and methods of the template language.
//!
//! Jinja's for filters and tests, Python's for methods; what templates for chat cannot use (random numbers, HTML helpers,
//! methods that change a value) is left out.

mod common;
mod filters;
mod methods;
mod predicates;

use indexmap::IndexMap;

use super::eval::{Args, Fault, Interpreter, Outcome, describe, fail};
use super::value::{Key, Value};
use common::{required, text};

pub(crate) use filters::filter;
pub(crate) use methods::{has_method, method};
pub(crate) use predicates::test;

const GLOBALS: &[&str] = &["raise_exception", "strftime_now", "range", "dict", "namespace"];

/// Jinja's sandbox has the same limit.
const MAX_RANGE: i128 = 100_000;

pub(crate) fn global(name: &str) -> Option<&'static str> {
    GLOBALS.iter().find(|global| **global == name).copied()
}

pub(crate) fn is_global(name: &str) -> bool {
    global(name).is_some()
}

/// Calls a global function.
pub(crate) fn call(vm: &mut Interpreter, name: &'static str, args: Args) -> Outcome<Value> {
    match name {
        "raise_exception" => {
            let [message] = args.take(name, ["message"])?;
            let message = vm.string(&message.unwrap_or(Value::None))?;
            Err(Fault::Refused(message.to_string()))
        }
        "strftime_now" => {
            let [pattern] = args.take(name, ["format"])?;
            let pattern = required(pattern, name)?;
            let text = strftime(vm.now(), text(&pattern, name)?)?;
            vm.text(text)
        }
        "range" => range(vm, args),
        "dict" | "namespace" => {
            let mut map = IndexMap::new();
            if args.positional.len() > 1 {
                return fail(format!("{name} takes at most one positional argument"));
            }
            for value in args.positional {
                if let Value::Dict(dict) = &value {
                    vm.reserve(dict.map.len() as u64 * size_of::<(Key, Value)>() as u64)?;
                    map.extend(dict.map.iter().map(|(key, value)| (key.clone(), value.clone())));
                    continue;
                }
                for pair in vm.iterate(&value)? {
                    let pair = vm.iterate(&pair)?;
                    let [key, value] = pair.as_slice() else { return fail(format!("{name} needs pairs")) };
                    vm.visit(key)?;
                    map.insert(Key::new(key)?, value.clone());
                }
            }
            vm.reserve(args.named.len() as u64 * size_of::<(Key, Value)>() as u64)?;
            map.extend(args.named.into_iter().map(|(name, value)| (Key::Str(name), value)));
            if name == "dict" { Value::dict(map) } else { vm.namespace(map) }
        }
        _ => fail(format!("{name} is unknown")),
    }
}

fn range(vm: &mut Interpreter, args: Args) -> Outcome<Value> {
    let [first, second, step] = args.take("range", ["start", "stop", "step"])?;
    let integer = |value: Value| {
        value.as_int().ok_or_else(|| Fault::Error(format!("range needs integers, not {}", describe(&value))))
    };
    let first = integer(required(first, "range")?)?;
    let (start, stop) = match second {
        Some(second) => (first, integer(second)?),
        None => (0, first),
    };
    let step = step.map_or(Ok(1), integer)?;
    let span = if step < 0 { start.saturating_sub(stop) } else { stop.saturating_sub(start) };
    let count = match step.checked_abs() {
        None | Some(0) => return fail("the step of range cannot be 0"),
        Some(size) => {
            if span <= 0 {
                0
            } else {
                (span - 1) / size + 1
            }
        }
    };
    if count > MAX_RANGE {
        return Err(Fault::Limit("items in a range", MAX_RANGE as u64));
    }
    let items = (0..count).map(|index| Value::Int(start + index * step)).collect();
    vm.list(items)
}

fn strftime(now: Option<i64>, pattern: &str) -> Outcome<String> {
    if pattern.len() > 1000 {
        return fail("strftime_now: the format is too long");
    }
    let time = match now {
        Some(seconds) => match jiff::Timestamp::from_second(seconds) {
            Ok(time) => time.to_zoned(jiff::tz::TimeZone::UTC),
            Err(error) => return fail(format!("strftime_now: {error}")),
        },
        None => jiff::Zoned::now(),
    };
    jiff::fmt::strtime::format(pattern, &time).map_err(|error| Fault::Error(format!("strftime_now: {error}")))
}
