//! Chat templates against `transformers` and Jinja2: see `tools/templates/make_goldens.py`.

use std::fs;
use std::path::{Path, PathBuf};

use pippin_text::{ChatTemplate, Message, RenderInputs, SpecialTokens, TextError};
use serde_json::{Map, Value};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn json(name: &str) -> Value {
    let path = goldens().join(name);
    serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap()
}

/// Compares one outcome with the expected one; returns what differs.
fn difference(expected: &Value, actual: &Result<String, TextError>) -> Option<String> {
    let matches = match (expected["text"].as_str(), expected["error"].as_str(), actual) {
        (Some(text), _, Ok(actual)) => text == actual,
        (_, Some("refused"), Err(TextError::TemplateRefused { message, .. })) => {
            expected["message"].as_str() == Some(message)
        }
        (_, Some("runtime" | "syntax"), Err(TextError::Template { .. })) => true,
        _ => false,
    };
    let actual = actual.as_ref().map_err(ToString::to_string);
    (!matches).then(|| format!("expected {expected}\n  actual {actual:?}"))
}

fn report(differences: Vec<String>, count: usize) {
    assert!(count > 100);
    assert!(differences.is_empty(), "{} of {count} differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn conversations_render_as_in_transformers() {
    let document = json("conversations.expected.json");
    let cases = json("conversations.json");
    let cases = cases.as_array().unwrap();
    let mut differences = Vec::new();
    for (case, expected) in cases.iter().zip(document["expected"].as_array().unwrap()) {
        let path = goldens().join("templates").join(case["template"].as_str().unwrap());
        let template =
            ChatTemplate::from_source(path.display().to_string(), fs::read_to_string(&path).unwrap())
                .unwrap();
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let tokens: SpecialTokens = case["special_tokens"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, token)| (name.clone(), token.as_str().unwrap()))
            .collect();
        let flag = |name: &str| case[name].as_bool().unwrap_or(false);
        let rendered = template.render(&RenderInputs {
            messages: &messages,
            tools: case["tools"].as_array().map(Vec::as_slice),
            add_generation_prompt: flag("add_generation_prompt"),
            continue_final_message: flag("continue_final_message"),
            extra: case["extra"].as_object(),
            special_tokens: Some(&tokens),
            now: document["now"].as_i64(),
        });
        let matches_message_error =
            expected["error"] == "runtime" && matches!(rendered, Err(TextError::InvalidMessage { .. }));
        if !matches_message_error {
            differences
                .extend(difference(expected, &rendered).map(|text| format!("{}: {text}", case["name"])));
        }
    }
    report(differences, cases.len());
}

/// Small pieces of the language, each with the variables it needs. The variables are given as further template
/// arguments, except for `messages`.
#[test]
fn snippets_render_as_in_jinja() {
    let document = json("snippets.expected.json");
    let cases = json("snippets.json");
    let cases = cases.as_array().unwrap();
    let mut differences = Vec::new();
    for (case, expected) in cases.iter().zip(document["expected"].as_array().unwrap()) {
        let source = case["source"].as_str().unwrap();
        let mut extra: Map<String, Value> = case["context"].as_object().cloned().unwrap_or_default();
        let messages: Vec<Message> = match extra.remove("messages") {
            Some(messages) => serde_json::from_value(messages).unwrap(),
            None => vec![Message::user("")],
        };
        let rendered = ChatTemplate::from_source("snippet", source).and_then(|template| {
            template.render(&RenderInputs {
                extra: Some(&extra),
                now: document["now"].as_i64(),
                ..RenderInputs::new(&messages)
            })
        });
        differences.extend(difference(expected, &rendered).map(|text| format!("{source:?}\n  {text}")));
    }
    report(differences, cases.len());
}

/// Random templates: see `tools/templates/random_templates.py`, which also makes files of many more.
#[test]
fn random_templates_render_as_in_jinja() {
    let path = std::env::var_os("PIPPIN_RANDOM_TEMPLATES");
    let path = path.map_or_else(|| goldens().join("random.json"), PathBuf::from);
    let document: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let cases = document["cases"].as_array().unwrap();
    let messages = [Message::user("")];
    let mut differences = Vec::new();
    for case in cases {
        let source = case["source"].as_str().unwrap();
        let rendered = ChatTemplate::from_source("random", source).and_then(|template| {
            template.render(&RenderInputs {
                extra: document["context"].as_object(),
                ..RenderInputs::new(&messages)
            })
        });
        differences
            .extend(difference(&case["expected"], &rendered).map(|text| format!("{source:?}\n  {text}")));
    }
    report(differences, cases.len());
}
