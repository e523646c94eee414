//! Calls that are drawn at random under a grammar are read back as calls whose arguments satisfy their schemas.

mod common;

use std::sync::LazyLock;

use common::{Random, Tokens, is_valid};
use pippin_grammar::{Constraint, Limits, Start, compile};
use pippin_text::{AnswerForm, Calls, Dialect, OutputFormat, ParsedOutput};
use serde_json::{Value, json};

static BYTES: LazyLock<Tokens> = LazyLock::new(Tokens::bytes);
static MARKS: LazyLock<Tokens> = LazyLock::new(|| {
    let marks = [
        "<|end|>",
        "<|channel|>",
        "<|message|>",
        "<|start|>",
        "<|constrain|>",
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "<|eot|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
    ];
    Tokens::bytes_with(&marks, &["<|eot|>"])
});

const DIALECTS: [Dialect; 22] = [
    Dialect::Hermes,
    Dialect::Json,
    Dialect::Llama3,
    Dialect::Mistral,
    Dialect::Qwen3Coder,
    Dialect::Glm4,
    Dialect::LongCat,
    Dialect::FunctionGemma,
    Dialect::Gemma4,
    Dialect::KimiK2,
    Dialect::KimiK3,
    Dialect::MiniMaxM2,
    Dialect::MiniMaxM3,
    Dialect::DeepSeekV32,
    Dialect::DeepSeekV3,
    Dialect::Harmony,
    Dialect::Pythonic,
    Dialect::FunctionaryV31,
    Dialect::FunctionaryV32,
    Dialect::MiniCpm5,
    Dialect::Muse,
    Dialect::Solar,
];

fn tools() -> Vec<Value> {
    let tool = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    vec![
        tool(
            "weather",
            json!({
                "type": "object",
                "properties": {
                    "city": {"type": "string", "maxLength": 20},
                    "unit": {"enum": ["C", "F"]},
                    "days": {"type": "integer", "minimum": 1, "maximum": 9},
                    "at": {"$ref": "#/$defs/place"},
                },
                "required": ["city", "days"],
                "additionalProperties": false,
                "$defs": {"place": {
                    "type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"], "additionalProperties": false,
                }},
            }),
        ),
        json!({"type": "function", "function": {"name": "stop_it"}}),
        json!({"name": "mcp.get-time", "input_schema": {
            "type": "object", "properties": {"zone": {"const": "UTC"}}, "required": ["zone"], "additionalProperties": false,
        }}),
    ]
}

/// Answers in this form, drawn and read.
fn draw(tokens: &Tokens, dialect: Dialect, form: &AnswerForm) -> Option<Vec<(String, ParsedOutput)>> {
    let (grammar, format) = form.grammar(&dialect.into(), &tokens.tokenizer)?;
    let constraint = Constraint::grammar(&grammar);
    let mut all = Vec::new();
    for seed in 0..8 {
        let mut guide = compile(&tokens.vocabulary, &constraint, Start::Now, &Limits::default())
            .unwrap_or_else(|error| panic!("{dialect:?}: {error}\n{grammar}"));
        let Some(answer) = tokens.draw_all(&mut guide, &mut Random(seed), 900) else { continue };
        let prompt = if dialect == Dialect::Harmony { "<|start|>assistant" } else { "" };
        let mut parser = match form.calls {
            Calls::Never => format.text_parser(prompt),
            _ => format.parser(&form.tools, prompt),
        };
        let mut output = ParsedOutput::default();
        output.extend(parser.push(&answer));
        output.extend(parser.finish());
        all.push((answer, output));
    }
    assert!(!all.is_empty(), "{dialect:?} never came to an end");
    Some(all)
}

fn check_calls(form: &AnswerForm, answer: &str, output: &ParsedOutput) {
    for call in &output.tool_calls {
        let place =
            ["weather", "stop_it", "mcp.get-time"].iter().position(|name| *name == call.function.name);
        let tool = &form.tools[place.unwrap_or_else(|| panic!("{answer:?}"))];
        let parameters = tool.pointer("/function/parameters").or_else(|| tool.get("input_schema"));
        let none = json!({"type": "object", "additionalProperties": false});
        let mut schema = parameters.unwrap_or(&none).clone();
        // Of a text that stands by itself, the grammar does not count the characters.
        if let Some(city) = schema.pointer_mut("/properties/city") {
            *city = json!({"type": "string"});
        }
        assert!(is_valid(&schema, &schema, &call.function.arguments), "{answer:?}: {call:?}");
    }
}

#[test]
fn calls_that_are_required_are_there_in_every_dialect() {
    for is_parallel in [false, true] {
        let form = AnswerForm { tools: tools(), calls: Calls::Required, is_parallel, schema: None };
        for (tokens, dialect) in
            [&*BYTES, &*MARKS].into_iter().flat_map(|tokens| DIALECTS.map(|one| (tokens, one)))
        {
            for (answer, output) in draw(tokens, dialect, &form).expect("every dialect can") {
                assert!(output.content.trim().is_empty(), "{dialect:?}: {answer:?}: {output:?}");
                assert!(!output.tool_calls.is_empty(), "{dialect:?}: {answer:?}");
                assert!(is_parallel || output.tool_calls.len() == 1, "{dialect:?}: {answer:?}");
                check_calls(&form, &answer, &output);
            }
        }
    }
}

#[test]
fn one_tool_alone_may_be_called() {
    let form = AnswerForm {
        tools: tools()[1..2].to_vec(),
        calls: Calls::Required,
        is_parallel: false,
        schema: None,
    };
    for dialect in DIALECTS {
        for (answer, output) in draw(&MARKS, dialect, &form).expect("every dialect can") {
            let [call] = &output.tool_calls[..] else { panic!("{dialect:?}: {answer:?}") };
            assert_eq!((call.function.name.as_str(), &call.function.arguments), ("stop_it", &json!({})));
        }
    }
}

#[test]
fn calls_that_are_optional_are_right_where_there_are_any() {
    let form = AnswerForm { tools: tools(), calls: Calls::Optional, is_parallel: true, schema: None };
    let (mut with, mut without) = (0, 0);
    for dialect in DIALECTS {
        let Some(answers) = draw(&MARKS, dialect, &form) else { continue };
        for (answer, output) in answers {
            check_calls(&form, &answer, &output);
            if output.tool_calls.is_empty() { without += 1 } else { with += 1 }
        }
    }
    assert!(with > 0 && without > 0, "{with} with calls, {without} without");
}

#[test]
fn an_answer_is_a_call_or_a_document() {
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false});
    for calls in [Calls::Never, Calls::Optional] {
        let form = AnswerForm { tools: tools(), calls, is_parallel: true, schema: Some(schema.clone()) };
        for dialect in DIALECTS {
            let Some(answers) = draw(&MARKS, dialect, &form) else { continue };
            for (answer, output) in answers {
                check_calls(&form, &answer, &output);
                if output.tool_calls.is_empty() {
                    let document: Value = serde_json::from_str(&output.content)
                        .unwrap_or_else(|error| panic!("{dialect:?}: {answer:?}: {error}"));
                    assert!(is_valid(&schema, &schema, &document));
                } else {
                    assert_eq!(
                        (calls, output.content.trim()),
                        (Calls::Optional, ""),
                        "{dialect:?}: {answer:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_format_without_calls_of_its_own_borrows_them_where_they_are_required() {
    let form = AnswerForm { tools: tools(), calls: Calls::Required, is_parallel: false, schema: None };
    let (_, format) = form.grammar(&OutputFormat::default(), &BYTES.tokenizer).expect("a grammar");
    assert_eq!(format.dialect(), Some(Dialect::Hermes));
    let form = AnswerForm { calls: Calls::Optional, ..form };
    assert_eq!(form.grammar(&OutputFormat::default(), &BYTES.tokenizer), None);
}

#[test]
fn documents_within_a_grammar_have_no_endless_white_space() {
    let grammar = "start: %json {\"type\": \"object\", \"additionalProperties\": {\"type\": \"integer\"}}\n";
    let mut guide = BYTES.compile(&Constraint::grammar(grammar)).expect("compiles");
    let [open, line, space] = ["{", "\u{10a}", "\u{120}"].map(|token| BYTES.id(token));
    for token in [open, line].into_iter().chain([space; 40]) {
        assert!(guide.mask().expect("a mask").allows(token));
        guide.accept(token).expect("allowed");
    }
    let mask = guide.mask().expect("a mask");
    assert!(!mask.allows(line) && !mask.allows(space) && mask.allows(BYTES.id("}")));
}
