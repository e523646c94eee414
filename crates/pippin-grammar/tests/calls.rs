//! Calls that are drawn at random under a grammar are read back as calls whose arguments satisfy their schemas.

mod common;

use std::sync::LazyLock;

use common::{Random, Tokens, is_valid};
use pippin_grammar::{Constraint, Limits, Start, compile};
use pippin_text::{AnswerForm, Calls, Dialect, OutputFormat, ParsedOutput};
use serde_json::{Value, json};

static BYTES: LazyLock<Tokens> = LazyLock::new(Tokens::bytes);
/// Marks that are tokens in some vocabularies.
const ALL_MARKS: [&str; 42] = [
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
    "<|eom|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<longcat_arg_value>",
    "</longcat_arg_value>",
    "<start_function_call>",
    "<end_function_call>",
    "<escape>",
    "<|tool_call>",
    "<tool_call|>",
    "<|\"|>",
    "<|open|>",
    "<|close|>",
    "<|sep|>",
    "<minimax:tool_call>",
    "</minimax:tool_call>",
    "]<]minimax[>[",
    "｜DSML｜",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<|tool_call_start|>",
    "<|tool_call:begin|>",
    "<|tool_call:name|>",
    "<|tool_call:args|>",
    "<|tool_call:end|>",
];

static MARKS: LazyLock<Tokens> = LazyLock::new(|| Tokens::bytes_with(&ALL_MARKS, &["<|eot|>"]));

/// What models write, and what somebody might write to fool a parser.
const WORDS: [&str; 44] = [
    "\n</parameter>",
    "</parameter>",
    "</parameter>\n",
    "</function>",
    "</function>\n</tool_call>",
    "<tool_call>",
    "</tool_call>",
    "</arg_value>",
    "</longcat_arg_value>",
    "<escape>",
    "<|\"|>",
    "</invoke>",
    "</minimax:tool_call>",
    "</｜DSML｜parameter>",
    "</｜DSML｜invoke>",
    "<|close|>argument<|sep|>",
    "<|close|>think<|sep|>",
    "<|close|>response<|sep|>",
    "<|open|>tools<|sep|>",
    "]<]minimax[>[",
    "]<]minimax[>[</city>",
    "]<]minimax[>[</note>",
    "<![CDATA[",
    "]]>",
    "</param>",
    "</atem:parameter>",
    "</atem:invoke>",
    "<|eom|><|start|>assistant",
    "<|end|><|start|>assistant",
    "<|tool_call_end|>",
    "<tool_call|>",
    "<end_function_call>",
    ">>>",
    ">>>weather\n",
    "\"",
    "'",
    "\\",
    "\n",
    " ",
    "]",
    "}",
    ")",
    "null",
    "5",
];

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
        // What is written in ways of its own.
        tool(
            "note",
            json!({
                "type": "object",
                "properties": {
                    "note": {"type": "string", "minLength": 1, "maxLength": 12},
                    "title": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null},
                    "either": {"type": ["string", "integer"]},
                    "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
                    "next": {"$ref": "#/$defs/node"},
                    "level": {"enum": ["low", 3, null, true]},
                    "number": {"$ref": "#/$defs/number"},
                    "most": {"type": "number"},
                    "anything": {"type": "object"},
                    "is_it": {"type": "boolean"},
                },
                "required": ["note", "tags", "is_it"],
                "additionalProperties": false,
                "$defs": {
                    "number": {"type": "integer", "minimum": -3, "maximum": 300},
                    "node": {
                        "type": "object",
                        "properties": {
                            "text": {"type": "string", "maxLength": 5},
                            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                        },
                        "required": ["text"],
                        "additionalProperties": false,
                    },
                },
            }),
        ),
        tool(
            "coded",
            json!({
                "type": "object",
                "properties": {"code": {"type": "string", "pattern": "^(?:[a-z]{2}|x(y|z))-[0-9]+$"}},
                "required": ["code"],
            }),
        ),
        tool("anything", json!({"type": "object"})),
        json!({"name": "mcp.get-time", "input_schema": {
            "type": "object", "properties": {"zone": {"const": "UTC"}}, "required": ["zone"], "additionalProperties": false,
        }}),
    ]
}

/// Tools that a dialect's form can call.
fn tools_of(dialect: Dialect) -> Vec<Value> {
    let other = match dialect {
        // Quotation marks change the characters that a pattern sees.
        Dialect::Pythonic => "coded",
        // A tag named as the argument cannot be any.
        Dialect::MiniMaxM3 => "anything",
        _ => "",
    };
    tools().into_iter().filter(|tool| tool.pointer("/function/name") != Some(&json!(other))).collect()
}

/// Answers in this form, drawn and read.
fn draw(tokens: &Tokens, dialect: Dialect, form: &AnswerForm) -> Option<Vec<(String, ParsedOutput)>> {
    let (grammar, format) = form.grammar(&dialect.into(), &tokens.tokenizer)?;
    let constraint = Constraint::grammar(&grammar);
    let mut all = Vec::new();
    for seed in 0..5 {
        let mut guide = compile(&tokens.vocabulary, &constraint, Start::Now, &Limits::default())
            .unwrap_or_else(|error| panic!("{dialect:?}: {error}\n{grammar}"));
        let Some(answer) = tokens.draw_words(&mut guide, &mut Random(seed), &WORDS) else { continue };
        let prompt = match dialect {
            Dialect::Harmony | Dialect::Muse => "<|start|>assistant",
            Dialect::FunctionaryV32 => ">>>",
            _ => "",
        };
        let parser = || match form.calls {
            Calls::Never => format.text_parser(prompt),
            _ => format.parser(&form.tools, prompt),
        };
        let read = |pieces: &[&str]| {
            let (mut parser, mut output) = (parser(), ParsedOutput::default());
            pieces.iter().for_each(|piece| output.extend(parser.push(piece)));
            output.extend(parser.finish());
            output
        };
        let (mut random, mut rest, mut pieces) = (Random(seed), answer.as_str(), Vec::new());
        while !rest.is_empty() {
            let at = rest.char_indices().nth(1 + random.below(9)).map_or(rest.len(), |(at, _)| at);
            let (piece, next) = rest.split_at(at);
            pieces.push(piece);
            rest = next;
        }
        let output = read(&[&answer]);
        assert_eq!(output, read(&pieces), "{dialect:?}: {answer:?}");
        all.push((answer, output));
    }
    assert!(!all.is_empty(), "{dialect:?} never came to an end");
    Some(all)
}

fn check_calls(form: &AnswerForm, answer: &str, output: &ParsedOutput) {
    for call in &output.tool_calls {
        let named = |tool: &&Value| {
            let name = tool.pointer("/function/name").or_else(|| tool.get("name"));
            name.expect("a name") == call.function.name.as_str()
        };
        let tool = form.tools.iter().find(named).unwrap_or_else(|| panic!("{answer:?}: {call:?}"));
        let parameters = tool.pointer("/function/parameters").or_else(|| tool.get("input_schema"));
        let none = json!({"type": "object", "additionalProperties": false});
        let schema = parameters.unwrap_or(&none).clone();
        assert!(is_valid(&schema, &schema, &call.function.arguments), "{answer:?}: {call:?}");
    }
}

#[test]
fn every_dialect_has_a_form_of_its_own() {
    for dialect in DIALECTS {
        let form = AnswerForm { tools: tools_of(dialect), ..AnswerForm::default() };
        let (_, format) =
            form.grammar(&dialect.into(), &BYTES.tokenizer).unwrap_or_else(|| panic!("{dialect:?}"));
        assert_eq!(format.dialect(), Some(dialect));
    }
}

#[test]
fn what_a_form_cannot_write_is_written_in_another() {
    let tool = |name: &str, schema: Value| {
        vec![json!({"function": {"name": name, "parameters": {
        "type": "object", "properties": {"x": schema}, "required": ["x"], "additionalProperties": false}}})]
    };
    let text = json!({"type": "string"});
    let cases = [
        (Dialect::Gemma4, tool("a:b", text.clone())),
        (Dialect::FunctionaryV32, tool("all", text)),
        (Dialect::Pythonic, tool("f", json!({"type": "string", "pattern": "^a+$"}))),
        (Dialect::Pythonic, tool("f", json!({"allOf": [{"type": "string"}, {"maxLength": 3}]}))),
        (Dialect::Gemma4, tool("f", json!({"type": "string", "format": "date"}))),
        (Dialect::Gemma4, tool("f", json!({"enum": ["<|\"|>"]}))),
        (Dialect::Qwen3Coder, tool("f", json!({"enum": ["</parameter>", "b"]}))),
        (Dialect::Qwen3Coder, tool("f", json!({"type": ["string", "integer"], "enum": ["5"]}))),
        (
            Dialect::Qwen3Coder,
            tool("f", json!({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 5}]})),
        ),
        (Dialect::Glm4, tool("f", json!({"enum": [" a", "b"]}))),
        (Dialect::MiniMaxM2, tool("f", json!({"type": "array", "uniqueItems": true}))),
        (
            Dialect::Qwen3Coder,
            vec![json!({"function": {"name": "f", "parameters": {
            "type": "object", "properties": {"a": true, "b": true}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}}})],
        ),
    ];
    for (dialect, tools) in cases {
        let form = AnswerForm { tools, calls: Calls::Required, ..AnswerForm::default() };
        let (_, format) = form.grammar(&dialect.into(), &BYTES.tokenizer).expect("a grammar");
        assert_eq!(format.dialect(), Some(Dialect::Hermes), "{dialect:?}: {:?}", form.tools);
        let form = AnswerForm { calls: Calls::Optional, ..form };
        assert_eq!(form.grammar(&dialect.into(), &BYTES.tokenizer), None);
    }
}

/// Whoever is held to a form can still say whatever a schema allows: texts come to an end where no mark is a token.
#[test]
fn texts_between_tags_are_free() {
    let properties = json!({"text": {"type": "string"}, "count": {"type": "integer"}});
    let parameters = json!({"type": "object", "properties": properties, "required": ["text"]});
    let tools = vec![json!({"function": {"name": "f", "parameters": parameters}})];
    let form = AnswerForm { tools, calls: Calls::Optional, ..AnswerForm::default() };
    let (grammar, _) = form.grammar(&Dialect::Qwen3Coder.into(), &BYTES.tokenizer).expect("a grammar");
    for (answer, is_good) in [
        (
            "Look.\n<tool_call>\n<function=f>\n<parameter=text>\n1 < 2\n</b>\n\n</parameter>\n</function>\n</tool_call>",
            true,
        ),
        (
            "<tool_call>\n<function=f>\n<parameter=text>\n\n</parameter>\n<parameter=count>\n3\n</parameter>\n</function>\n</tool_call>",
            true,
        ),
        ("<tool_call>\n<function=f>\n<parameter=text>\nab</parameter>\n</function>\n</tool_call>", false),
        ("Look at <tool_call> there", false),
        ("Look there, <tool", true),
    ] {
        let mut guide = BYTES.compile(&Constraint::grammar(&grammar)).expect("compiles");
        assert_eq!(BYTES.accepts(&mut guide, answer), is_good, "{answer:?}");
    }
}

#[test]
fn calls_that_are_required_are_there_in_every_dialect() {
    for is_parallel in [false, true] {
        for (tokens, dialect) in
            [&*BYTES, &*MARKS].into_iter().flat_map(|tokens| DIALECTS.map(|one| (tokens, one)))
        {
            let tools = tools_of(dialect);
            let form = AnswerForm { tools, calls: Calls::Required, is_parallel, schema: None, text: None };
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
        text: None,
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
    let (mut with, mut without) = (0, 0);
    for dialect in DIALECTS {
        let tools = tools_of(dialect);
        let form = AnswerForm { tools, calls: Calls::Optional, is_parallel: true, schema: None, text: None };
        let answers = draw(&MARKS, dialect, &form).unwrap_or_else(|| panic!("{dialect:?}"));
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
        for dialect in DIALECTS {
            let (tools, of_text) = (tools_of(dialect), Some(schema.clone()));
            let form = AnswerForm { tools, calls, is_parallel: true, schema: of_text, text: None };
            let answers = draw(&MARKS, dialect, &form).unwrap_or_else(|| panic!("{dialect:?}"));
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

/// Alternatives of alternatives, by reference: too many to be looked at one by one.
#[test]
fn references_that_branch_take_no_time() {
    let mut all = serde_json::Map::new();
    for level in 0..16 {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        all.insert(format!("d{level}"), json!({"anyOf": vec![next; 12]}));
    }
    all.insert("d16".to_owned(), json!({"type": "integer"}));
    let parameters = json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/d0"}}, "required": ["x"], "$defs": all});
    let tools = vec![json!({"function": {"name": "f", "parameters": parameters}})];
    let form = AnswerForm { tools, calls: Calls::Required, ..AnswerForm::default() };
    for dialect in DIALECTS {
        form.grammar(&dialect.into(), &BYTES.tokenizer).expect("a grammar");
    }
    let answer = "<tool_call>\n<function=f>\n<parameter=x>\n3\n</parameter>\n</function>\n</tool_call>";
    let mut parser = OutputFormat::from(Dialect::Qwen3Coder).parser(&form.tools, "");
    assert!(!parser.push(answer).is_empty());
}

/// Where answers are messages with headers, a grammar is for the last of them.
#[test]
fn a_text_in_a_channel_has_a_grammar() {
    let text = Some("start: word \"!\"\nword: TEXT\nTEXT: /[a-z]{2}\\/[0-9]{1,3}/".to_owned());
    let form = AnswerForm { calls: Calls::Never, text, ..AnswerForm::default() };
    let expected = regex::Regex::new("^[a-z]{2}/[0-9]{1,3}!$").expect("a pattern");
    let mut thoughts = 0;
    for dialect in [Dialect::Harmony, Dialect::Muse, Dialect::Hermes] {
        for (answer, output) in draw(&MARKS, dialect, &form).expect("a grammar") {
            assert!(expected.is_match(&output.content), "{dialect:?}: {answer:?}: {output:?}");
            thoughts += usize::from(!output.reasoning.is_empty());
        }
    }
    assert!(thoughts > 0);
}

#[test]
fn a_format_without_calls_of_its_own_borrows_them_where_they_are_required() {
    let form =
        AnswerForm { tools: tools(), calls: Calls::Required, is_parallel: false, schema: None, text: None };
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

#[test]
fn numbers_of_documents_within_a_grammar_stay_finite() {
    let grammar = "start: \"call: \" args \" \" NOTE\nNOTE: /(.|\\n)+/\nargs: %json {\"type\": \"object\", \"properties\": {\"a\": {}, \"b\": {\"pattern\": \"^[0-9]e[0-9]{5}$\", \"type\": \"string\"}, \"c\": {\"type\": \"string\"}}}\n";
    let guide = |text: &str| {
        let mut guide = BYTES.compile(&Constraint::grammar(grammar)).expect("compiles");
        for byte in text.bytes() {
            assert!(guide.mask().expect("a mask").allows(byte.into()), "{text}: {}", char::from(byte));
            guide.accept(byte.into()).expect("allowed");
        }
        guide
    };
    let digits = |mut guide: pippin_grammar::Guide| {
        let mask = guide.mask().expect("a mask");
        (b'0'..=b'9').filter(|digit| mask.allows((*digit).into())).count()
    };
    let (many, zeros) = ("9".repeat(308), "0".repeat(300));
    for (text, allowed) in [
        ("call: {\"a\": 1e3", 10),
        ("call: {\"a\": 1e30", 8),
        ("call: {\"a\": [{\"x\": 1.5E+74", 0),
        ("call: {\"a\": -2e-74", 0),
        ("call: {\"a\": 0.1e307", 0),
        (&format!("call: {{\"a\": {many}"), 0),
        (&format!("call: {{\"a\": [1{zeros}e7"), 0),
        (&format!("call: {{\"a\": 0.{many}"), 10),
        // What is no number.
        ("call: {\"a\": \"commit 12e987", 10),
        ("call: {\"b\": \"1e987", 10),
        ("call: {\"c\": \"1e987", 10),
        ("call: {\"a\": 1} it was 12e987", 10),
        ("call: {\"a\": 1} \"12e987", 10),
    ] {
        assert_eq!(digits(guide(text)), allowed, "{text}");
    }
    // The token `123`.
    let word = BYTES.id("123");
    assert!(!guide("call: {\"a\": 1e9").mask().expect("a mask").allows(word));
    assert!(guide("call: {\"c\": \"1e9").mask().expect("a mask").allows(word));
}
