//! Whatever is drawn, what comes out satisfies the constraint.

mod common;

use std::sync::LazyLock;

use common::{Random, Tokens, is_valid};
use pippin_grammar::{Constraint, GrammarError, Limits, Start, compile};
use proptest::prelude::*;
use serde_json::{Value, json};

static NANO: LazyLock<Tokens> = LazyLock::new(Tokens::nano);
static BYTES: LazyLock<Tokens> = LazyLock::new(Tokens::bytes);
static PIECES: LazyLock<Tokens> = LazyLock::new(Tokens::pieces);

/// Draws several answers, of which at least one must be complete, and checks all that are.
fn check(tokens: &Tokens, constraint: &Constraint, is_right: impl Fn(&str) -> bool) {
    let mut complete = 0;
    for seed in 0..12 {
        let mut guide = tokens.compile(constraint).expect("it compiles");
        if let Some(answer) = tokens.draw(&mut guide, &mut Random(seed), 600) {
            complete += 1;
            assert!(is_right(&answer), "{constraint:?} gave {answer:?}");
        }
    }
    assert!(complete > 0, "{constraint:?} never came to an end");
}

fn check_all(constraint: &Constraint, is_right: impl Fn(&str) -> bool) {
    for tokens in [&*NANO, &*BYTES, &*PIECES] {
        check(tokens, constraint, &is_right);
    }
}

fn check_schema(tokens: &Tokens, schema: &Value) {
    check(tokens, &Constraint::json_schema(schema.clone()), |answer| {
        let document =
            serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer:?} for {schema}"));
        is_valid(schema, schema, &document)
    });
}

#[test]
fn choices() {
    let texts = ["yes", "no", "yes and no", "a\"b\\c", "é\n", " space", "a.c", "x/y", "[z]"];
    check_all(&Constraint::choice(texts), |answer| texts.contains(&answer));
    check_all(&Constraint::choice(["yes"]), |answer| answer == "yes");
}

#[test]
fn regular_expressions_match_as_a_whole() {
    for pattern in [
        r"[0-9]{3}-[a-f]+",
        r"^\d{1,3}(\.\d{1,3}){3}$",
        r" ?yes|no",
        r"(?i:abc)\\$",
        r"[^\n]{2,5}é?",
        "a/b\\/c",
    ] {
        let whole = regex::Regex::new(&format!("^(?:{pattern})$")).expect("a pattern");
        check_all(&Constraint::regex(pattern), |answer| whole.is_match(answer));
    }
}

#[test]
fn grammars() {
    let sums = "start: sum\nsum: NUMBER (\"+\" NUMBER)* | \"(\" sum \")\"\nNUMBER: /[1-9][0-9]{0,3}/\n";
    let sum = regex::Regex::new(r"^\(*[1-9][0-9]{0,3}(\+[1-9][0-9]{0,3})*\)*$").expect("a pattern");
    check_all(&Constraint::grammar(sums), |answer| {
        sum.is_match(answer) && answer.matches('(').count() == answer.matches(')').count()
    });
    let call = "start: \"call \" args\nargs: %json {\"type\": \"object\", \"properties\": {\"a\": {\"enum\": [1, 2]}}, \
                \"required\": [\"a\"], \"additionalProperties\": false}\n";
    check_all(&Constraint::grammar(call), |answer| {
        let document: Value =
            serde_json::from_str(answer.strip_prefix("call ").expect("a call")).expect("JSON");
        document == json!({"a": 1}) || document == json!({"a": 2})
    });
}

#[test]
fn any_json_object() {
    for tokens in [&*NANO, &*BYTES] {
        let mut complete = 0;
        for seed in 0..30 {
            let mut guide = tokens.compile(&Constraint::JsonObject).expect("it compiles");
            let Some(answer) = tokens.draw(&mut guide, &mut Random(seed), 400) else { continue };
            let document = serde_json::from_str::<Value>(&answer);
            assert!(document.as_ref().is_ok_and(Value::is_object), "{document:?}: {answer:?}");
            complete += 1;
        }
        assert!(complete > 0);
    }
}

#[test]
fn numbers_are_finite() {
    let number = json!({"type": "array", "items": {"type": "number"}});
    let object = json!({"type": "object"});
    let digits = |count: usize| "7".repeat(count);
    for (schema, text, is_answer) in [
        (&number, "[1e307, -2.5E+300, 0.1, 1e-300]".to_owned(), true),
        (&number, format!("[{}]", digits(308)), true),
        (&number, format!("[0.{}]", digits(2000)), true),
        (&number, "[1e308]".to_owned(), false),
        (&number, "[1, 1e999]".to_owned(), false),
        (&number, "[1e-999]".to_owned(), false),
        (&number, format!("[{}]", digits(309)), false),
        (&number, format!("[{}.0e200]", digits(150)), false),
        (&object, "{\"1e999\": \"1e999\"}".to_owned(), true),
        (&object, "{\"a\": {\"b\": [true, 1e999]}}".to_owned(), false),
    ] {
        let mut guide = BYTES.compile(&Constraint::json_schema(schema.clone())).expect("it compiles");
        assert_eq!(BYTES.accepts(&mut guide, &text), is_answer, "{text}");
        assert!(!is_answer || serde_json::from_str::<Value>(&text).is_ok(), "{text}");
    }
    // The mask knows it, too, and leaves a way on.
    let mut guide = BYTES.compile(&Constraint::json_schema(number)).expect("it compiles");
    for byte in format!("[{}", digits(308)).bytes() {
        assert!(guide.mask().expect("a mask").allows(byte.into()));
        guide.accept(byte.into()).expect("allowed");
    }
    let mask = guide.mask().expect("a mask");
    let [seven, long, close, point] = ["7", "123", "]", "."].map(|token| BYTES.id(token));
    assert!(!mask.allows(seven) && !mask.allows(long) && mask.allows(close) && mask.allows(point));
}

#[test]
fn what_would_be_followed_wrongly_is_not_followed() {
    // A name that is taken, written differently.
    let taken = json!({"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "boolean"}});
    let escaped = "{\"\\u0061\": true}";
    assert_eq!(serde_json::from_str::<Value>(escaped).expect("JSON"), json!({"a": true}));
    // The parser forgets what `items` was behind another group of keywords.
    let tuple =
        json!({"type": "array", "items": [{"type": "null"}], "allOf": [{}], "additionalItems": false});
    // Integers that are others as floating-point numbers.
    let bound = json!({"type": "integer", "maximum": 1_234_567_890_123_456_789_i64});
    for (schema, text, is_answer) in [
        (&taken, "{\"a\": null, \"b\": true}", true),
        (&taken, escaped, false),
        (&tuple, "[null]", true),
        (&tuple, "[null, 1]", false),
        (&bound, "1234567890123450000", true),
        (&bound, "1234567890123456790", false),
        (&bound, "1234567890123456800", false),
        (&json!({"type": "integer", "maximum": i64::MAX, "minimum": i64::MIN}), "-7", true),
        (&json!({"type": "string", "maxLength": 2.0}), "\"ab\"", true),
        (&json!({"type": "string", "maxLength": 2.0}), "\"abc\"", false),
        (&json!({"type": "string", "pattern": "^[^\\x00-\\x1f]{2}$"}), "\"ab\"", true),
        (&json!({"type": "string", "minLength": 2}), "\"a\"", false),
        (&json!({"const": 9_007_199_254_740_992_i64}), "9007199254740992", true),
    ] {
        let mut guide = BYTES.compile(&Constraint::json_schema(schema.clone())).expect("it compiles");
        assert_eq!(BYTES.accepts(&mut guide, text), is_answer, "{text} for {schema}");
    }
}

#[test]
fn days_and_times_are_such_as_there_are() {
    for (format, values, right) in [
        ("date", vec!["2023-02-29", "1900-02-29", "2024-02-30", "2024-02-29"], "2024-02-29"),
        ("date", vec!["2023-02-29", "2000-02-29", "2100-02-29"], "2000-02-29"),
        ("date", vec!["2023-02-29", "2023-02-28"], "2023-02-28"),
        ("time", vec!["10:10:60Z", "10:10:59.5+01:00"], "10:10:59.5+01:00"),
        (
            "date-time",
            vec!["2023-02-29T10:10:10Z", "2023-01-31T10:10:60Z", "2023-12-31t23:59:59z"],
            "2023-12-31t23:59:59z",
        ),
    ] {
        let schema = json!({"type": "string", "format": format, "enum": values});
        check_all(&Constraint::json_schema(schema), |answer| answer == format!("\"{right}\""));
    }
}

#[test]
fn schemas_as_programs_write_them() {
    let schemas = [
        // As pydantic: optional fields, nested models, enumerations, lists.
        json!({
            "$defs": {
                "Colour": {"enum": ["red", "green"], "title": "Colour", "type": "string"},
                "Point": {
                    "properties": {
                        "x": {"title": "X", "type": "integer", "minimum": -5, "maximum": 5},
                        "colour": {"$ref": "#/$defs/Colour"},
                        "next": {"anyOf": [{"$ref": "#/$defs/Point"}, {"type": "null"}], "default": null}
                    },
                    "required": ["x", "colour"], "title": "Point", "type": "object"
                }
            },
            "properties": {
                "name": {"title": "Name", "type": "string", "minLength": 1, "maxLength": 12},
                "points": {"items": {"$ref": "#/$defs/Point"}, "maxItems": 2, "title": "Points", "type": "array"},
                "kind": {"const": "path", "title": "Kind"}
            },
            "required": ["name", "points", "kind"], "title": "Path", "type": "object", "additionalProperties": false
        }),
        json!({"type": ["string", "null"], "pattern": "^[a-z]{2,4}$"}),
        json!({"type": "array", "prefixItems": [{"type": "boolean"}, {"enum": [1, "two", null]}], "items": false, "minItems": 2}),
        json!({"type": "string", "format": "date"}),
        json!({"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100}),
        json!({"allOf": [{"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
                         {"type": "object", "properties": {"a": {}, "b": {"enum": [1]}}, "required": ["b"],
                          "additionalProperties": {"type": "null"}}]}),
        json!({"oneOf": [{"type": "object", "properties": {"k": {"const": "a"}}, "required": ["k"], "additionalProperties": false},
                         {"type": "object", "properties": {"k": {"const": "b"}}, "required": ["k"], "additionalProperties": false}]}),
        // A long limit, and an object without properties.
        json!({"type": "object", "properties": {"text": {"type": "string", "maxLength": 5000}, "empty": {"type": "object", "properties": {},
            "additionalProperties": false}}, "required": ["text", "empty"], "additionalProperties": false}),
        json!({"type": "array", "uniqueItems": false, "items": {"type": "boolean"}, "maxItems": 3}),
        json!({"type": "object", "properties": {"not": {"type": "boolean"}, "uniqueItems": {"type": "null"}}, "required": ["not"],
            "additionalProperties": false}),
    ];
    for schema in schemas {
        check_schema(&NANO, &schema);
        check_schema(&BYTES, &schema);
    }
}

#[test]
fn a_list_of_items_is_a_tuple() {
    for draft in ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"] {
        let schema = json!({"$schema": draft, "type": "array", "items": [{"type": "null"}, {"enum": [1]}], "minItems": 2,
            "maxItems": 2});
        check(&BYTES, &Constraint::json_schema(schema), |answer| {
            serde_json::from_str::<Value>(answer).expect("JSON") == json!([null, 1])
        });
    }
}

/// Schemas of what is supported, all of them satisfiable, and with an end.
fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "boolean"})),
        Just(json!({"type": "null"})),
        (-50..50i64, 0..100i64)
            .prop_map(|(least, more)| json!({"type": "integer", "minimum": least, "maximum": least + more})),
        (-9..9i64, 1..5i64).prop_map(
            |(least, more)| json!({"type": "number", "minimum": least, "exclusiveMaximum": least + more})
        ),
        (0..4usize, 0..6usize).prop_map(
            |(least, more)| json!({"type": "string", "minLength": least, "maxLength": least + more})
        ),
        prop::sample::select(vec!["^[a-c]+$", "x", "^é?[0-9]{2}"])
            .prop_map(|pattern| json!({"type": "string", "pattern": pattern})),
        prop::collection::vec(
            prop_oneof![Just(json!("é\"")), Just(json!(7)), Just(json!([null])), Just(json!({"a": "b"}))],
            1..4
        )
        .prop_map(|all| json!({"enum": all})),
        Just(json!({"$ref": "#/$defs/shared"})),
    ];
    let names = prop::sample::subsequence(vec!["a", "b c", "d\"", "é", "$ref"], 0..5);
    let inner = leaf.prop_recursive(3, 12, 4, move |inner| {
        let object = (names.clone(), prop::collection::vec(inner.clone(), 5), any::<u8>(), any::<bool>());
        prop_oneof![
            object.prop_map(|(names, schemas, required, is_open)| {
                let required: Vec<&str> =
                    names.iter().enumerate().filter(|(i, _)| required >> i & 1 == 1).map(|(_, name)| *name).collect();
                let properties: Value = names.iter().map(|name| (*name).to_owned()).zip(schemas).collect::<serde_json::Map<_, _>>().into();
                let more = if is_open { json!({"type": "boolean"}) } else { json!(false) };
                json!({"type": "object", "properties": properties, "required": required, "additionalProperties": more})
            }),
            (inner.clone(), 0..3usize, 0..3usize)
                .prop_map(|(items, least, more)| json!({"type": "array", "items": items, "minItems": least, "maxItems": least + more})),
            prop::collection::vec(inner, 1..4).prop_map(|all| json!({"anyOf": all})),
        ]
    });
    inner.prop_map(|schema| {
        let Value::Object(mut fields) = schema else { unreachable!() };
        fields.insert(
            "$defs".to_owned(),
            json!({"shared": {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2}}),
        );
        Value::Object(fields)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Draws at random, which is what a model does that has learned nothing.
    #[test]
    fn random_answers_satisfy_random_schemas(schema in schemas(), seed in any::<u64>()) {
        for tokens in [&*NANO, &*BYTES] {
            let mut guide = tokens.compile(&Constraint::json_schema(schema.clone())).expect("supported");
            if let Some(answer) = tokens.draw(&mut guide, &mut Random(seed), 500) {
                let document = serde_json::from_str(&answer);
                prop_assert!(document.is_ok(), "{} gave {:?}", schema, answer);
                prop_assert!(is_valid(&schema, &schema, &document.unwrap()), "{} gave {:?}", schema, answer);
            }
        }
    }

    #[test]
    fn choices_of_any_text(texts in prop::collection::vec("\\PC{1,12}", 1..8), seed in any::<u64>()) {
        for tokens in [&*NANO, &*BYTES, &*PIECES] {
            let mut guide = tokens.compile(&Constraint::choice(texts.clone())).expect("a choice");
            let answer = tokens.draw(&mut guide, &mut Random(seed), 200).expect("an end");
            prop_assert!(texts.contains(&answer), "{:?} of {:?}", answer, texts);
        }
    }
}

#[test]
fn the_first_space_of_a_vocabulary_of_pieces_is_no_part_of_the_text() {
    let mut guide = PIECES.compile(&Constraint::choice(["yes", "no"])).expect("a choice");
    let mask = guide.mask().expect("a mask");
    assert!(mask.allows(PIECES.id("\u{2581}yes")) && mask.allows(PIECES.id("\u{2581}")));
    assert!(!mask.allows(PIECES.id("yes")) && !mask.allows(PIECES.id("\u{2581}\u{2581}")));
    assert!(guide.accept(PIECES.id("\u{2581}yes")).expect("allowed"));
}

#[test]
fn an_answer_ends_where_it_is_complete() {
    let [end, eot, a] = ["<|end|>", "<|eot|>", "a"].map(|token| BYTES.id(token));
    let mut guide = BYTES.compile(&Constraint::regex("a{1,2}")).expect("a pattern");
    let mask = guide.mask().expect("a mask");
    assert!(mask.allows(a) && !mask.allows(end) && !mask.allows(eot));
    assert!(!guide.accept(a).expect("allowed"));
    let mask = guide.mask().expect("a mask");
    assert!(mask.allows(a) && mask.allows(end) && mask.allows(eot));
    // Nothing can follow: no stop token is waited for.
    assert!(guide.accept(a).expect("allowed") && guide.is_complete());

    let mut guide = BYTES.compile(&Constraint::regex("a+")).expect("a pattern");
    assert!(!guide.accept(a).expect("allowed"));
    assert!(guide.accept(eot).expect("allowed"));

    let mut guide = BYTES.compile(&Constraint::regex("a+")).expect("a pattern");
    assert!(matches!(guide.accept(end), Err(GrammarError::Step { .. })));
    let mut guide = BYTES.compile(&Constraint::regex("a+")).expect("a pattern");
    assert!(matches!(guide.accept(BYTES.id("b")), Err(GrammarError::Step { .. })));
    assert!(guide.mask().is_err(), "after an error there is no mask, least of all one of everything");
}

#[test]
fn a_clone_goes_on_by_itself() {
    let [end, a, b] = ["<|end|>", "a", "b"].map(|token| BYTES.id(token));
    let mut first = BYTES.compile(&Constraint::regex("ab?")).expect("a pattern");
    let fresh = first.clone();
    assert!(!first.accept(a).expect("allowed"));
    let mut second = first.clone();
    assert!(second.accept(b).expect("allowed"));
    assert!(first.mask().expect("a mask").allows(end) && !first.is_complete());
    let mask = fresh.clone().mask().expect("a mask");
    assert!(mask.allows(a) && !mask.allows(b) && !mask.allows(end));
    // What an error has ended goes on in no clone.
    let mut wrong = fresh;
    assert!(wrong.accept(b).is_err() && wrong.clone().mask().is_err());
}

#[test]
fn markers_are_no_text() {
    let any = BYTES.compile(&Constraint::regex(r"(?s).*")).expect("a pattern").mask().expect("a mask");
    assert!(!any.allows(BYTES.id("<think>")) && any.allows(BYTES.id("<|end|>")) && any.allows(BYTES.id("<")));
    assert!((267..300).all(|id| !any.allows(id)), "tokens that the tokenizer does not have");
}

#[test]
fn thoughts_are_free_and_do_not_end_the_answer() {
    let [open, close, end, a, b] = ["<think>", "</think>", "<|end|>", "a", "b"].map(|token| BYTES.id(token));
    let (choice, limits) = (Constraint::choice(["a"]), Limits::default());
    let thought = Start::Thought { open: "<think>".to_owned(), close: "</think>".to_owned() };
    let start = |start: &Start| compile(&BYTES.vocabulary, &choice, start.clone(), &limits);

    let mut guide = start(&thought).expect("it compiles");
    let mask = guide.mask().expect("a mask");
    assert!(
        mask.allows(open) && mask.allows(a) && !mask.allows(b) && !mask.allows(end) && !mask.allows(close)
    );

    for token in [open, b, a, open] {
        assert!(!guide.accept(token).expect("allowed"));
        let mask = guide.mask().expect("a mask");
        assert!(mask.allows(b) && mask.allows(close) && !mask.allows(end));
    }
    assert!(!guide.accept(close).expect("allowed"));
    let mask = guide.mask().expect("a mask");
    assert!(mask.allows(a) && !mask.allows(b) && !mask.allows(open));
    assert!(guide.accept(a).expect("allowed"));

    let mut guide = start(&Start::After("x</think>".to_owned())).expect("a marker of several tokens");
    for token in [BYTES.id("x"), b, close, BYTES.id("x")] {
        assert!(!guide.accept(token).expect("allowed"));
        assert!(guide.mask().expect("a mask").allows(b));
    }
    assert!(!guide.accept(close).expect("allowed"));
    assert!(!guide.mask().expect("a mask").allows(b));

    for marker in ["", "x", "<|end|>"] {
        let error = start(&Start::After(marker.to_owned())).expect_err("no marker");
        assert!(matches!(error, GrammarError::Marker { .. }), "{error}");
    }
}
