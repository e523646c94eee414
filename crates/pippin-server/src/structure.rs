//! What an answer must look like: `response_format`, and what other servers call it.

use pippin::generate::Constraint;
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::fields::{Fields, unread};

/// A constraint, and the field that asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Structure {
    pub(crate) constraint: Constraint,
    pub(crate) field: &'static str,
}

impl Structure {
    /// What the answer itself must be, if it has to be a JSON document.
    pub(crate) fn schema(&self) -> Option<Value> {
        match &self.constraint {
            Constraint::JsonSchema(schema) => Some(schema.clone()),
            Constraint::JsonObject => Some(json!({"type": "object"})),
            _ => None,
        }
    }

    /// Reads all fields that ask for a structure, of which there may be one.
    pub(crate) fn read(fields: &mut Fields) -> ApiResult<Option<Self>> {
        let mut found: Option<Self> = None;
        // As the request has it: with what is within the field.
        let mut found_at = String::new();
        let mut add = |field, at: &str, constraint: Option<Constraint>| -> ApiResult<()> {
            let Some(constraint) = constraint else { return Ok(()) };
            if found.is_some() {
                return Err(ApiError::invalid(format!("{found_at} and {at} cannot both be given")).at(field));
            }
            found = Some(Self { constraint, field });
            at.clone_into(&mut found_at);
            Ok(())
        };
        let format = fields.take("response_format").map(response_format).transpose()?.flatten();
        add("response_format", "response_format", format)?;
        // vLLM
        if let Some(mut all) = fields.object("structured_outputs")? {
            all.retain(|_, value| !value.is_null());
            for (kind, value) in all {
                let constraint = of_kind("structured_outputs", &kind, value)?;
                add("structured_outputs", &format!("structured_outputs.{kind}"), constraint)?;
            }
        }
        for (field, kind) in [
            ("guided_json", "json"),
            ("guided_regex", "regex"),
            ("guided_choice", "choice"),
            ("guided_grammar", "grammar"),
            // llama.cpp
            ("json_schema", "json"),
        ] {
            if let Some(value) = fields.take(field) {
                add(field, field, of_kind(field, kind, value)?)?;
            }
        }
        Ok(found)
    }
}

fn response_format(value: Value) -> ApiResult<Option<Constraint>> {
    const FIELD: &str = "response_format";
    let wrong = |place: &str, expected: &str| Err(ApiError::field(&format!("{FIELD}{place}"), expected));
    match value["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => match value.get("schema").filter(|schema| !schema.is_null()) {
            Some(schema) => of_kind(FIELD, "json", schema.clone()),
            None => Ok(Some(Constraint::JsonObject)),
        },
        Some("json_schema") => {
            // Flat in the responses API.
            let holder = value.get("json_schema").filter(|holder| holder.is_object()).unwrap_or(&value);
            match holder.get("schema") {
                Some(schema @ (Value::Object(_) | Value::Bool(_))) => {
                    Ok(Some(Constraint::json_schema(schema.clone())))
                }
                _ => wrong(".json_schema.schema", "a JSON schema"),
            }
        }
        _ => wrong(".type", "text, json_object or json_schema"),
    }
}

fn of_kind(field: &str, kind: &str, value: Value) -> ApiResult<Option<Constraint>> {
    let wrong = |expected: &str| Err(ApiError::field(field, expected));
    Ok(Some(match (kind, value) {
        ("json", Value::String(text)) => match serde_json::from_str::<Value>(&text) {
            Ok(schema) => Constraint::json_schema(schema),
            Err(error) => return Err(ApiError::invalid(unread(field, &error)).at(field)),
        },
        ("json", schema @ (Value::Object(_) | Value::Bool(_))) => Constraint::json_schema(schema),
        ("json", _) => return wrong("a JSON schema"),
        ("json_object", Value::Bool(false)) => return Ok(None),
        ("json_object", Value::Bool(true)) => Constraint::JsonObject,
        ("json_object", _) => return wrong("true or false"),
        ("regex", Value::String(pattern)) => Constraint::regex(pattern),
        ("regex", _) => return wrong("a regular expression"),
        ("grammar", Value::String(grammar)) => Constraint::grammar(grammar),
        ("grammar", _) => return wrong("a grammar in Lark's notation"),
        ("choice", Value::Array(texts)) => {
            let texts: Option<Vec<String>> = texts
                .into_iter()
                .map(|text| if let Value::String(text) = text { Some(text) } else { None })
                .collect();
            match texts {
                Some(texts) if texts.is_empty() => return wrong("a list of at least one text"),
                Some(texts) => Constraint::choice(texts),
                None => return wrong("a list of texts"),
            }
        }
        ("choice", _) => return wrong("a list of texts"),
        (kind, _) => {
            let message = format!("{field}.{kind} is not supported by this version of Pippin");
            return Err(ApiError::invalid(message).at(field));
        }
    }))
}
