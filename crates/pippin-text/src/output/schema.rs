//! What the tools say of their arguments.

use serde_json::{Value, json};

use super::literal;

/// The functions that a model may call, and what their parameters may be.
#[derive(Clone, Debug, Default)]
pub(super) struct Tools {
    /// Name, and the schema of the arguments.
    functions: Vec<(String, Value)>,
}

fn function_object(tool: &Value) -> &Value {
    tool.get("function").filter(|function| function.is_object()).unwrap_or(tool)
}

fn parameters_of(function: &Value) -> Option<&Value> {
    function.get("parameters").or_else(|| function.get("input_schema")).filter(|value| !value.is_null())
}

/// The name of a tool's function, and the schema of its arguments: an object without fields where it has none.
pub(super) fn function_of(tool: &Value) -> (&str, Value) {
    let function = function_object(tool);
    let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
    let none = || json!({"type": "object", "properties": {}, "additionalProperties": false});
    (name, parameters_of(function).cloned().unwrap_or_else(none))
}

/// What a value is of which no schema says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untyped {
    /// The text it is written as.
    Text,
    /// A literal, where it is one.
    Literal,
}

impl Tools {
    /// Reads tools in the form of the OpenAI API, flat ones and those of the Anthropic API. What is none is passed over: whoever
    /// renders the prompt says so.
    pub(super) fn read(tools: &[Value]) -> Self {
        let function = |tool: &Value| {
            let function = function_object(tool);
            let name = function.get("name")?.as_str()?.to_owned();
            Some((name, parameters_of(function).cloned().unwrap_or_default()))
        };
        Self { functions: tools.iter().filter_map(function).collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.functions.iter().any(|(known, _)| known == name)
    }

    /// The value of an argument that is written as text.
    pub(super) fn convert(&self, function: &str, parameter: &str, text: &str, untyped: Untyped) -> Value {
        let known = self.functions.iter().find(|(name, _)| name == function);
        let types = known.and_then(|(_, parameters)| {
            Some(Types::read(parameters.get("properties")?.as_object()?.get(parameter)?, parameters))
        });
        let Some(types) = types else {
            return match untyped {
                Untyped::Text if text.trim().eq_ignore_ascii_case("null") => Value::Null,
                Untyped::Text => text.into(),
                Untyped::Literal => literal::value(text).unwrap_or_else(|| text.into()),
            };
        };
        types.convert(text)
    }
}

/// The types that a schema allows.
#[derive(Clone, Copy, Debug, Default)]
struct Types {
    string: bool,
    integer: bool,
    number: bool,
    boolean: bool,
    object: bool,
    list: bool,
    null: bool,
}

/// How deeply alternatives of a schema are followed.
const MAX_DEPTH: usize = 16;

impl Types {
    /// References are followed within `root`.
    fn read(schema: &Value, root: &Value) -> Self {
        let mut types = Self::default();
        types.add(schema, root, 0, &mut 1000);
        types
    }

    /// References may lead to the same alternatives over and over, so there is a limit to all steps together.
    fn add(&mut self, schema: &Value, root: &Value, depth: usize, steps: &mut usize) {
        let Some(left) = steps.checked_sub(1) else { return };
        *steps = left;
        match schema.get("type") {
            Some(Value::String(name)) => self.name(name),
            Some(Value::Array(names)) => {
                names.iter().filter_map(Value::as_str).for_each(|name| self.name(name))
            }
            _ => {}
        }
        for value in
            schema.get("enum").and_then(Value::as_array).into_iter().flatten().chain(schema.get("const"))
        {
            match value {
                Value::Null => self.null = true,
                Value::Bool(_) => self.boolean = true,
                Value::Number(number) if number.is_f64() => self.number = true,
                Value::Number(_) => self.integer = true,
                Value::String(_) => self.string = true,
                Value::Array(_) => self.list = true,
                Value::Object(_) => self.object = true,
            }
        }
        if depth < MAX_DEPTH {
            for alternatives in ["anyOf", "oneOf", "allOf"] {
                let alternatives = schema.get(alternatives).and_then(Value::as_array);
                alternatives
                    .into_iter()
                    .flatten()
                    .for_each(|schema| self.add(schema, root, depth + 1, steps));
            }
            let target =
                schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
            if let Some(schema) = target.and_then(|target| root.pointer(target)) {
                self.add(schema, root, depth + 1, steps);
            }
        }
    }

    /// The names of JSON Schema, and those that people write instead.
    fn name(&mut self, name: &str) {
        match name.trim().to_ascii_lowercase().as_str() {
            "string" | "str" | "text" | "varchar" | "char" | "enum" => self.string = true,
            "null" | "none" => self.null = true,
            "boolean" | "bool" | "binary" => self.boolean = true,
            "object" => self.object = true,
            "array" | "arr" => self.list = true,
            name if ["int", "uint", "long", "short", "unsigned"]
                .iter()
                .any(|start| name.starts_with(start)) =>
            {
                self.integer = true;
            }
            name if ["num", "float", "double"].iter().any(|start| name.starts_with(start)) => {
                self.number = true
            }
            name if name.starts_with("dict") => self.object = true,
            name if name.starts_with("list") => self.list = true,
            _ => {}
        }
    }

    /// The narrowest type that fits wins; a text that fits none is what it looks like.
    fn convert(self, text: &str) -> Value {
        let trimmed = text.trim();
        let lower = trimmed.to_ascii_lowercase();
        // A string that may not be null is one even if it says "null".
        if lower == "null" && (self.null || !self.string)
            || self.null && matches!(lower.as_str(), "none" | "nil")
        {
            return Value::Null;
        }
        if let Some(number) = literal::number(trimmed).filter(|_| self.integer || self.number) {
            let whole = number.as_f64().filter(|value| value.fract() == 0.0 && value.abs() < 9e15);
            match whole {
                _ if !number.is_f64() => return number.into(),
                Some(whole) => return (whole as i64).into(),
                None if self.number => return number.into(),
                None => {}
            }
        }
        if self.boolean {
            match lower.as_str() {
                "true" | "1" | "yes" | "on" => return true.into(),
                "false" | "0" | "no" | "off" => return false.into(),
                _ => {}
            }
        }
        let is_structure = |value: &Value| value.is_object() || value.is_array();
        let is_known = |value: &Value| value.is_object() && self.object || value.is_array() && self.list;
        if (self.object || self.list)
            && let Some(value) = literal::value(trimmed).filter(is_known)
        {
            return value;
        }
        if self.string {
            return text.into();
        }
        let value = literal::value(trimmed);
        let says_something =
            self.integer || self.number || self.boolean || self.object || self.list || self.null;
        value.filter(|value| says_something || is_structure(value)).unwrap_or_else(|| text.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_what_the_schema_says() {
        let cases = [
            (json!({"type": "string"}), "3", json!("3")),
            (json!({"type": "string"}), "null", json!("null")),
            (json!({"type": ["string", "null"]}), "null", json!(null)),
            (json!({"type": "integer"}), " 3 ", json!(3)),
            (json!({"type": "integer"}), "3.0", json!(3)),
            (json!({"type": "integer"}), "many", json!("many")),
            (json!({"type": "number"}), "2.5", json!(2.5)),
            (json!({"type": "boolean"}), "True", json!(true)),
            (json!({"type": "object"}), "{'a': None}", json!({"a": null})),
            (json!({"type": "array"}), "[1", json!("[1")),
            (json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}), "x", json!("x")),
            (json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}), "5", json!(5)),
            (json!({"enum": [1, 2]}), "2", json!(2)),
            (json!({"enum": ["1", "2"]}), "2", json!("2")),
            (json!({}), "{\"a\": 1}", json!({"a": 1})),
            (json!({}), "7", json!("7")),
            (json!(true), "7", json!("7")),
        ];
        for (schema, text, expected) in cases {
            let tools = Tools::read(&[
                json!({"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": schema.clone()}}}}),
            ]);
            assert_eq!(tools.convert("f", "x", text, Untyped::Text), expected, "{schema} {text:?}");
        }
    }

    #[test]
    fn without_a_schema_the_dialect_decides() {
        let tools = Tools::default();
        assert_eq!(tools.convert("f", "x", "7", Untyped::Text), json!("7"));
        assert_eq!(tools.convert("f", "x", "7", Untyped::Literal), json!(7));
        assert_eq!(tools.convert("f", "x", "seven", Untyped::Literal), json!("seven"));
    }
}
