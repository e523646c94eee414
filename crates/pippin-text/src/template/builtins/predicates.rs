//! Tests: `value is name(…)`.

use super::super::eval::{Args, Interpreter, Outcome, fail};
use super::super::parse::{Comparison, Operator};
use super::super::value::Value;
use super::common::*;
use super::filters::{FILTERS, OTHER_FILTERS};

/// Applies a test (`is …`).
pub(crate) fn test(vm: &mut Interpreter, name: &str, value: &Value, args: Args) -> Outcome<bool> {
    let comparison = match name {
        "eq" | "==" | "equalto" => Some(Comparison::Eq),
        "ne" | "!=" => Some(Comparison::Ne),
        "lt" | "<" | "lessthan" => Some(Comparison::Lt),
        "le" | "<=" => Some(Comparison::Le),
        "gt" | ">" | "greaterthan" => Some(Comparison::Gt),
        "ge" | ">=" => Some(Comparison::Ge),
        "in" => Some(Comparison::In),
        _ => None,
    };
    if let Some(comparison) = comparison {
        let [other] = args.take(name, ["other"])?;
        return vm.compare(comparison, value, &required(other, name)?);
    }
    match name {
        "divisibleby" => {
            let [divisor] = args.take(name, ["num"])?;
            let remainder = vm.binary(Operator::Rem, value.clone(), required(divisor, name)?)?;
            return Ok(!remainder.is_true());
        }
        "sameas" => {
            let [other] = args.take(name, ["other"])?;
            let other = required(other, name)?;
            vm.visit(value)?;
            return Ok(value.type_name() == other.type_name() && value.equals(&other));
        }
        _ => {}
    }
    let [] = args.take(name, [])?;
    Ok(match name {
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_)),
        "string" => matches!(value, Value::Str(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        // Whatever has a length and can be indexed: as in Jinja, strings and dicts too.
        "sequence" => is_sequence(value),
        "iterable" => {
            is_sequence(value) || matches!(value, Value::View(_) | Value::Generator(_) | Value::Loop { .. })
        }
        "callable" => matches!(
            value,
            Value::Function(_)
                | Value::Macro(..)
                | Value::Method(_)
                | Value::Loop { .. }
                | Value::Joiner(_)
                // Calling it is an error, but there is something to call.
                | Value::Undefined(_)
        ),
        "escaped" => false,
        "odd" | "even" => {
            let two = vm.binary(Operator::Rem, value.clone(), Value::Int(2))?;
            two.equals(&Value::Int(i128::from(name == "odd")))
        }
        "lower" | "upper" => {
            let source = vm.string(value)?;
            vm.scan(&source)?;
            let (upper, lower) =
                (source.chars().any(char::is_uppercase), source.chars().any(char::is_lowercase));
            if name == "lower" { lower && !upper } else { upper && !lower }
        }
        "filter" => {
            value.as_str().is_some_and(|name| FILTERS.contains(&name) || OTHER_FILTERS.contains(&name))
        }
        "test" => value.as_str().is_some_and(|name| TESTS.contains(&name)),
        _ => return fail(format!("no test named '{name}'")),
    })
}

fn is_sequence(value: &Value) -> bool {
    matches!(
        value,
        Value::Str(_)
            | Value::List(_)
            | Value::Tuple(_)
            | Value::Group(_)
            | Value::Dict(_)
            | Value::Range(_)
            | Value::Undefined(_)
    )
}

const TESTS: &[&str] = &[
    "eq",
    "==",
    "equalto",
    "ne",
    "!=",
    "lt",
    "<",
    "lessthan",
    "le",
    "<=",
    "gt",
    ">",
    "greaterthan",
    "ge",
    ">=",
    "in",
    "divisibleby",
    "sameas",
    "defined",
    "undefined",
    "none",
    "boolean",
    "true",
    "false",
    "integer",
    "float",
    "number",
    "string",
    "mapping",
    "sequence",
    "iterable",
    "callable",
    "escaped",
    "odd",
    "even",
    "lower",
    "upper",
    "filter",
    "test",
];
