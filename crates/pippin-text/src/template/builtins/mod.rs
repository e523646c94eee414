//! The functions, filters, tests and methods of the template language.
//!
//! Jinja's for filters and tests, Python's for methods; what templates for chat cannot use (random numbers, HTML helpers,
//! methods that change a value, the filler text of `lipsum`) is left out.

mod common;
mod filters;
mod methods;
mod predicates;

use indexmap::IndexMap;

use super::eval::{Args, Cycler, Fault, Interpreter, Joiner, Outcome, describe, fail};
use super::value::{Key, Range, Value};
pub(crate) use common::required;
use common::text;

pub(crate) use filters::filter;
pub(crate) use methods::{changes, has_method, method};
pub(crate) use predicates::test;

const GLOBALS: &[&str] =
    &["raise_exception", "strftime_now", "range", "dict", "namespace", "cycler", "joiner"];

/// Jinja's sandbox has the same limit.
const MAX_RANGE: usize = 100_000;

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
        "range" => range(args),
        "dict" | "namespace" => {
            let mut map = IndexMap::new();
            if args.positional.len() > 1 {
                return fail(format!("{name} takes at most one positional argument"));
            }
            for value in args.positional {
                if let Value::Undefined(reason) = &value {
                    return fail(reason.as_ref());
                }
                if let Value::Dict(dict) = &value {
                    vm.reserve(dict.map.len() as u64 * size_of::<(Key, Value)>() as u64)?;
                    map.extend(dict.map.iter().map(|(key, value)| (key.clone(), value.clone())));
                    continue;
                }
                for pair in vm.iterate(&value)? {
                    let pair = vm.iterate(&pair)?;
                    let [key, value] = pair.as_slice() else { return fail(format!("{name} needs pairs")) };
                    map.insert(vm.new_key(key)?, value.clone());
                }
            }
            vm.reserve(args.named.len() as u64 * size_of::<(Key, Value)>() as u64)?;
            map.extend(args.named.into_iter().map(|(name, value)| (Key::Str(name), value)));
            if name == "dict" { Value::dict(map) } else { vm.namespace(map) }
        }
        "cycler" => {
            if let Some((name, _)) = args.named.first() {
                return fail(format!("cycler has no parameter {name}"));
            }
            if args.positional.is_empty() {
                return fail("cycler: at least one item has to be provided");
            }
            vm.reserve(args.positional.len() as u64 * size_of::<Value>() as u64)?;
            vm.cyclers.push(Cycler { items: args.positional, position: 0 });
            Ok(Value::Cycler(vm.cyclers.len() - 1))
        }
        "joiner" => {
            let [separator] = args.take(name, ["sep"])?;
            vm.reserve(size_of::<Joiner>() as u64)?;
            let separator = separator.unwrap_or_else(|| Value::str(", "));
            vm.joiners.push(Joiner { separator, used: false });
            Ok(Value::Joiner(vm.joiners.len() - 1))
        }
        _ => fail(format!("{name} is unknown")),
    }
}

fn range(args: Args) -> Outcome<Value> {
    if let Some((name, _)) = args.named.first() {
        return fail(format!("range takes its arguments by position, not as {name}"));
    }
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
    if step == 0 {
        return fail("the step of range cannot be 0");
    }
    let range = Range::new(start, stop, step, MAX_RANGE);
    range.map(Value::Range).ok_or(Fault::Limit("items in a range", MAX_RANGE as u64))
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
