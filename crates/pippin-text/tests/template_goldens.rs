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
        (_, Some("continue"), Err(TextError::InvalidMessage { .. })) => true,
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
            media: &["image"],
            special_tokens: Some(&tokens),
            now: document["now"].as_i64(),
        });
        differences.extend(difference(expected, &rendered).map(|text| format!("{}: {text}", case["name"])));
    }
    report(differences, cases.len());
}

/// The hash of `tools/templates/published.py`, which says how to read it.
fn fingerprint(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut state, mut blocks) = (0xcbf2_9ce4_8422_2325_u64, String::new());
    for (at, byte) in text.bytes().enumerate() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        if (at + 1) % BLOCK == 0 {
            let digits = [(state >> 6) as usize & 63, state as usize & 63];
            blocks.extend(digits.map(|digit| char::from(DIGITS[digit])));
        }
    }
    format!("{} {state:016x} {blocks}", text.len()).trim_end().to_owned()
}

const BLOCK: usize = 128;

/// Where a text begins to differ from the one with the expected fingerprint: in which bytes, and what stands there.
fn place(expected: &str, text: &str) -> String {
    let actual = fingerprint(text);
    let blocks = |fingerprint: &str| fingerprint.split(' ').nth(2).unwrap_or_default().to_owned();
    let (expected_blocks, actual_blocks) = (blocks(expected), blocks(&actual));
    let pairs = expected_blocks.as_bytes().chunks(2).zip(actual_blocks.as_bytes().chunks(2));
    let from = pairs.take_while(|(a, b)| a == b).count() * BLOCK;
    let shown: Vec<u8> = text.bytes().skip(from).take(BLOCK).collect();
    format!(
        "differs in bytes {from} to {}, where there is now {:?}; {} bytes expected, {} found",
        from + BLOCK,
        String::from_utf8_lossy(&shown),
        expected.split(' ').next().unwrap_or_default(),
        text.len(),
    )
}

/// Every template of a published model with every conversation. Those that a model's template fails on while another
/// form of the conversation suits it are marked in the goldens; see `docs/templates.md`.
#[test]
fn published_templates_render_as_in_transformers() {
    let document = json("published.expected.json");
    let tokens: SpecialTokens = document["special_tokens"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, token)| (name.clone(), token.as_str().unwrap()))
        .collect();
    let cases = json("published.conversations.json");
    let cases = cases.as_array().unwrap();
    let expected: Vec<(&String, &Value)> = document["expected"].as_object().unwrap().iter().collect();
    let check = |model: &str, expected: &Value| {
        let path = goldens().join("published").join(format!("{model}.jinja"));
        let source = fs::read_to_string(&path).unwrap();
        let template = ChatTemplate::from_source(model, source);
        let mut differences = Vec::new();
        for case in cases {
            let expected = &expected[case["name"].as_str().unwrap()];
            let rendered = template.as_ref().map_err(ToString::to_string).and_then(|template| {
                let messages = Message::from_values(case["messages"].as_array().unwrap().iter().cloned());
                let media: Vec<&str> =
                    case["media"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let flag = |name: &str| case[name].as_bool().unwrap_or(false);
                let inputs = RenderInputs {
                    messages: &messages.unwrap(),
                    tools: case["tools"].as_array().map(Vec::as_slice),
                    add_generation_prompt: flag("add_generation_prompt"),
                    continue_final_message: flag("continue_final_message"),
                    extra: case["extra"].as_object(),
                    media: &media,
                    special_tokens: Some(&tokens),
                    now: document["now"].as_i64(),
                };
                template.render(&inputs).map_err(|error| match error {
                    TextError::TemplateRefused { message, .. } => format!("refused {message}"),
                    TextError::Template { .. } => "error runtime".to_owned(),
                    TextError::TemplateLimit { what: "levels of recursion", .. } => {
                        "error recursion".to_owned()
                    }
                    TextError::InvalidMessage { field, .. } if field == "content" => {
                        "error continue".to_owned()
                    }
                    // In place of the template's error where arguments are at fault.
                    TextError::InvalidMessage { field, .. } if field.ends_with("arguments") => {
                        "error runtime".to_owned()
                    }
                    other => other.to_string(),
                })
            });
            let wanted = match (&expected["refused"], &expected["error"], &expected["text"]) {
                (Value::String(message), _, _) => Err(format!("refused {message}")),
                (_, Value::String(kind), _) => Err(format!("error {kind}")),
                (_, _, Value::String(text)) => Ok(text.as_str()),
                _ => Ok(expected.as_str().unwrap()),
            };
            let problem = match (wanted, rendered) {
                (Ok(wanted), Ok(text)) if wanted == fingerprint(&text) => continue,
                (Err(wanted), Err(error)) if wanted == error => continue,
                (Ok(wanted), Ok(text)) => place(wanted, &text),
                (Ok(_), Err(error)) => format!("a text is expected, but: {error}"),
                (Err(wanted), found) => format!("expected {wanted:?}, found {found:?}"),
            };
            differences.push(format!("{model} | {} | {problem}", case["name"]));
        }
        differences
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let differences: Vec<String> = std::thread::scope(|scope| {
        let work = |part: &[(&String, &Value)]| {
            part.iter().flat_map(|(model, expected)| check(model, expected)).collect::<Vec<_>>()
        };
        let workers: Vec<_> = expected
            .chunks(expected.len().div_ceil(threads))
            .map(|part| scope.spawn(move || work(part)))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    report(differences, expected.len() * cases.len());
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

/// Every filter with every kind of value: see `tools/templates/filters.py`.
#[test]
fn filters_take_what_jinjas_take() {
    compare_with_jinja(&goldens().join("filters.json"));
}

/// Random templates: see `tools/templates/random_templates.py`, which also makes files of many more.
#[test]
fn random_templates_render_as_in_jinja() {
    let path = std::env::var_os("PIPPIN_RANDOM_TEMPLATES");
    compare_with_jinja(&path.map_or_else(|| goldens().join("random.json"), PathBuf::from));
}

fn compare_with_jinja(path: &Path) {
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
