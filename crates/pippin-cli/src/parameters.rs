//! Parameters of generation by name: for `/set`, and for the lines of `--batch`.

use pippin::GenerateParameters;
use serde_json::{Map, Value};

/// Other names that people have for parameters.
const ALIASES: &[(&str, &str)] = &[("temp", "temperature"), ("max_completion_tokens", "max_tokens")];

/// Parameters that mean nothing to the command line.
const HIDDEN: &[&str] = &["logprobs"];

/// Sets one parameter, and checks the result.
pub(crate) fn set(
    parameters: &GenerateParameters,
    name: &str,
    value: Value,
) -> Result<GenerateParameters, String> {
    let mut map = to_map(parameters);
    let Some(name) = find(&map, name) else {
        if name.replace('-', "_") == "prefill_step_size" {
            // It was one, and would make all requests wait for the one that sets it.
            return Err("prefill_step_size holds for the model, not for a request: give --prefill-step-size".to_owned());
        }
        return Err(format!("there is no parameter {name:?}"));
    };
    let value = match (name.as_str(), value) {
        ("stop", Value::String(text)) => Value::Array(vec![Value::String(text)]),
        (_, value) => value,
    };
    map.insert(name.clone(), value);
    let changed: GenerateParameters =
        serde_json::from_value(Value::Object(map)).map_err(|error| format!("{name}: {error}"))?;
    changed.validate().map_err(|error| error.to_string())?;
    Ok(changed)
}

/// Sets one parameter from what a person typed: JSON, a bare text, or `default`.
pub(crate) fn set_text(
    parameters: &GenerateParameters,
    name: &str,
    text: &str,
) -> Result<GenerateParameters, String> {
    let value = if text == "default" {
        let defaults = to_map(&GenerateParameters::default());
        find(&defaults, name).and_then(|name| defaults.get(&name).cloned()).unwrap_or_default()
    } else {
        serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
    };
    set(parameters, name, value)
}

/// A parameter's name as its field is spelled, when there is such a parameter.
pub(crate) fn known_name(name: &str) -> Option<String> {
    find(&to_map(&GenerateParameters::default()), name)
}

/// All parameters with their values, as people read them.
pub(crate) fn list(parameters: &GenerateParameters) -> Vec<(String, String)> {
    // By way of text: a value of f32 converted to f64 would show digits that nobody typed.
    let text = serde_json::to_string(parameters).unwrap_or_default();
    let map: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
    let shown = map.into_iter().filter(|(name, _)| !HIDDEN.contains(&name.as_str()));
    shown
        .map(|(name, value)| (name, if value.is_null() { "none".to_owned() } else { value.to_string() }))
        .collect()
}

fn to_map(parameters: &GenerateParameters) -> Map<String, Value> {
    match serde_json::to_value(parameters) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn find(map: &Map<String, Value>, name: &str) -> Option<String> {
    let name = name.trim_start_matches('-').replace('-', "_").to_ascii_lowercase();
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, name)| (*name).to_owned());
    alias.or(Some(name)).filter(|name| map.contains_key(name) && !HIDDEN.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default_with(name: &str, text: &str) -> Result<GenerateParameters, String> {
        set_text(&GenerateParameters::default(), name, text)
    }

    #[test]
    fn names_and_values_are_read_as_people_write_them() {
        assert_eq!(default_with("temp", "0").expect("valid").temperature, 0.0);
        assert_eq!(default_with("--top-k", "40").expect("valid").top_k, 40);
        assert_eq!(default_with("stop", "END").expect("valid").stop, ["END"]);
        assert_eq!(default_with("stop", r#"["a", "b"]"#).expect("valid").stop, ["a", "b"]);
        assert_eq!(default_with("max_tokens", "null").expect("valid").max_tokens, None);
        assert_eq!(default_with("logit_bias", r#"{"7": -1.5}"#).expect("valid").logit_bias[&7], -1.5);
        let changed = default_with("temp", "1.5").expect("valid");
        assert_eq!(set_text(&changed, "temperature", "default"), Ok(GenerateParameters::default()));
    }

    #[test]
    fn wrong_ones_are_refused_by_name() {
        for (name, text, expected) in [
            ("temprature", "1", "temprature"),
            ("prefill_step_size", "64", "--prefill-step-size"),
            ("temperature", "-1", "temperature"),
            ("temperature", "NaN", "temperature"),
            ("temperature", "1e999", "temperature"),
            ("top_p", "2", "top_p"),
            ("top_k", "-3", "top_k"),
            ("max_tokens", "99999999999999999999999", "max_tokens"),
            ("stop", "\"\"", "stop"),
            ("logit_bias", "[]", "logit_bias"),
            ("logprobs", "true", "logprobs"),
        ] {
            let error = default_with(name, text).expect_err(name);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn values_are_listed_as_they_were_typed() {
        let list = list(&default_with("min_p", "0.05").expect("valid"));
        assert!(list.contains(&("min_p".to_owned(), "0.05".to_owned())), "{list:?}");
        assert!(list.contains(&("temperature".to_owned(), "0.6".to_owned())));
        assert!(list.contains(&("seed".to_owned(), "none".to_owned())));
        assert!(list.iter().all(|(name, _)| known_name(name).is_some()));
    }
}
