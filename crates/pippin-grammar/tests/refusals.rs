//! What cannot be followed is an error with its place, and what is hostile ends.

mod common;

use std::fmt::Write;
use std::sync::LazyLock;

use common::Tokens;
use pippin_grammar::{Constraint, GrammarError};
use serde_json::{Map, Value, json};

static BYTES: LazyLock<Tokens> = LazyLock::new(Tokens::bytes);

fn refused(constraint: &Constraint) -> GrammarError {
    match BYTES.compile(constraint) {
        Ok(_) => panic!("{constraint:?} was accepted"),
        Err(error) => error,
    }
}

#[test]
fn the_place_of_what_is_not_supported_is_named() {
    let cases = [
        (
            json!({"properties": {"a": {"items": {"not": {"type": "null"}}}}}),
            "#/properties/a/items/not",
            "`not`",
        ),
        (json!({"uniqueItems": true}), "#/uniqueItems", "`uniqueItems`"),
        (json!({"anyOf": [{"type": "null"}, {"if": true}]}), "#/anyOf/1/if", "`if`"),
        (json!({"$ref": "#/$defs/x", "$defs": {"x": {"contains": {}}}}), "#/$defs/x/contains", "`contains`"),
        (
            json!({"properties": {"a/b": {"propertyNames": {}}}}),
            "#/properties/a~1b/propertyNames",
            "`propertyNames`",
        ),
        (json!({"$ref": "https://example.org/schema"}), "#/$ref", "leads out of the schema"),
        (json!({"properties": {"a": {"$ref": "#/$defs/missing"}}}), "#/properties/a/$ref", "leads nowhere"),
        (json!({"x-guidance": {"lenient": true}}), "#/x-guidance", "options"),
        (json!({"properties": {"a": {"type": "strnig"}}}), "#/properties/a", "strnig"),
        (
            json!({"properties": {"a": {"type": "string", "pattern": "(a"}}, "required": ["a"]}),
            "#/properties/a/pattern",
            "unclosed",
        ),
        (
            json!({"properties": {"a": {"type": "string", "format": "colour"}}}),
            "#/properties/a/format",
            "colour",
        ),
        (
            json!({"properties": {"a": {"type": "string", "pattern": "(?=a)b"}}}),
            "#/properties/a/pattern",
            "look",
        ),
        (
            json!({"properties": {"a": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}}),
            "#/properties/a",
            "exclude each other",
        ),
        (json!({"type": "array", "minItems": 3, "maxItems": 2}), "#", "`minItems`"),
        (json!({"properties": {"a": []}}), "#/properties/a", "a schema is"),
        (json!({"items": {"multipleOf": 999_983}}), "#/items/multipleOf", "`multipleOf`"),
        (
            json!({"allOf": [{"multipleOf": 97}, {"multipleOf": 1.03}]}),
            "#/allOf/1/multipleOf",
            "`multipleOf`",
        ),
        (json!({"items": {"const": [9_007_199_254_740_993_i64]}}), "#/items/const", "too large"),
        (json!({"enum": [u64::MAX]}), "#/enum", "too large"),
        // The parser would leave the character out.
        (json!({"const": {"a": "b\u{1}c"}}), "#/const", "control"),
        (json!({"type": "string", "pattern": "^a[\u{7f}]?"}), "#/pattern", "control"),
        (json!({"patternProperties": {"\\x00": true}}), "#/patternProperties/\\x00", "control"),
        (json!({"exclusiveMaximum": 1e17}), "#/exclusiveMaximum", "`exclusiveMaximum`"),
        (json!({"minimum": 1e19}), "#/minimum", "`minimum`"),
        (json!({"type": "object", "minProperties": 2}), "#/minProperties", "`minProperties`"),
        (json!({"prefixItems": [{}], "additionalItems": false}), "#/additionalItems", "`additionalItems`"),
        (
            json!({"properties": {"a": {"$id": "x", "items": {"$ref": "#/$defs/b"}}}, "$defs": {"b": {}}}),
            "#/properties/a/$id",
            "address",
        ),
        (
            json!({"items": {"type": "string", "minLength": 4_294_967_296_u64}}),
            "#/items/minLength",
            "up to 4294967295",
        ),
        (json!([1]), "#", "a schema is"),
        (json!(false), "#", ""),
    ];
    for (schema, place, problem) in cases {
        match refused(&Constraint::json_schema(schema.clone())) {
            GrammarError::Schema { path, problem: found } => {
                assert_eq!(path, place, "{schema}: {found}");
                assert!(found.to_lowercase().contains(&problem.to_lowercase()), "{schema}: {found}");
            }
            error => panic!("{schema}: {error}"),
        }
    }
}

#[test]
fn patterns_and_grammars_that_cannot_be_followed() {
    for pattern in ["(a", "a(?=b)", r"(a)\1", "[z-a]", "*", "a{2", r"\p{Nonsense}", r"a\b"] {
        let error = refused(&Constraint::regex(pattern));
        assert!(matches!(error, GrammarError::Regex { .. }), "{pattern}: {error}");
    }
    for grammar in [
        "",
        "rule: \"a\"",
        "start: missing",
        "start: \"a",
        "start: %json {\"not\": {}}",
        "start: %json {\"x-guidance\": {}}",
    ] {
        let error = refused(&Constraint::grammar(grammar));
        assert!(matches!(error, GrammarError::Grammar { .. }), "{grammar}: {error}");
    }
    for texts in [vec![], vec![""], vec!["a", ""]] {
        let error = refused(&Constraint::choice(texts));
        assert!(matches!(error, GrammarError::Choice { .. }), "{error}");
    }
}

/// The limits that are named are those that there are.
#[test]
fn grammars_nest_as_deep_as_is_said() {
    let nested = |levels: usize, open: &str, close: &str| {
        Constraint::grammar(format!("start: {}\"a\"{}", open.repeat(levels), close.repeat(levels)))
    };
    for (open, close) in [("(", ")"), ("[", "]")] {
        assert!(BYTES.compile(&nested(28, open, close)).is_ok());
        for levels in [29, 36, 3000] {
            let error = refused(&nested(levels, open, close));
            let GrammarError::TooLarge { found, limit, .. } = error else { panic!("{error}") };
            assert_eq!((found, limit), (levels, 28));
        }
    }
    // Groups of an expression and values of a schema are others, and comments have none.
    let comments = "# ((\n// [[\n".repeat(100);
    assert!(BYTES.compile(&Constraint::grammar(format!("{comments}start: \"a\""))).is_ok());
    let pattern = format!("start: /{}a{}/", "(".repeat(100), ")".repeat(100));
    assert!(BYTES.compile(&Constraint::grammar(pattern)).is_ok());
    let schema = deep(40, |inner| json!([inner]));
    assert!(BYTES.compile(&Constraint::grammar(format!("start: %json {{\"const\": {schema}}}"))).is_ok());
}

#[test]
fn what_is_too_much_is_said_without_the_words_of_the_parser() {
    let many: Map<String, Value> = (0..18_000).map(|i| (format!("p{i}"), json!({"type": "null"}))).collect();
    let names: Vec<&String> = many.keys().collect();
    let either =
        |i: usize| json!({"anyOf": [{"required": [format!("a{i}")]}, {"required": [format!("b{i}")]}]});
    for schema in [
        json!({"type": "object", "properties": many, "required": names}),
        json!({"allOf": (0..14).map(either).collect::<Vec<_>>()}),
    ] {
        let error = refused(&Constraint::json_schema(schema)).to_string();
        assert!(error.contains("`allOf`") && error.contains("50000"), "{error}");
    }
}

/// What would only be refused after seconds of work is refused by its size.
#[test]
fn grammars_of_too_many_loose_parts_are_refused_at_once() {
    for part in ["\"a\"?", "(\"a\" | \"b\")*"] {
        let grammar = format!("start: {}", format!("{part} ").repeat(16_000));
        let begin = std::time::Instant::now();
        let error = refused(&Constraint::grammar(&grammar));
        assert!(matches!(error, GrammarError::TooLarge { found: 16_000, limit: 8192, .. }), "{error}");
        assert!(begin.elapsed() < std::time::Duration::from_secs(1), "{:?}", begin.elapsed());
    }
    // Those of texts and patterns are others.
    let grammar = format!("start: {}", "\"?*\" /[?*]/ ".repeat(5000));
    assert!(BYTES.compile(&Constraint::grammar(&grammar)).is_ok());
}

/// An object of more properties that may be left out than the parser keeps in mind fails in the answer, if it is not refused before.
#[test]
fn objects_of_too_many_optional_properties_are_refused() {
    let object = |count: usize, required: usize| {
        let name = |index: usize| format!("z_{index}");
        let properties: Map<String, Value> =
            (0..count).map(|index| (name(index), json!({"type": "null"}))).collect();
        let required: Vec<String> = (0..required).map(name).collect();
        Constraint::json_schema(json!({"items": {"properties": properties, "required": required}}))
    };
    match refused(&object(2001, 0)) {
        GrammarError::Schema { path, problem } => {
            assert_eq!(path, "#/items/properties");
            assert!(problem.contains("2001") && problem.contains("2000"), "{problem}");
        }
        error => panic!("{error}"),
    }
    assert!(BYTES.compile(&object(2001, 1)).is_ok());
}

/// What can be read in more and more ways takes longer with every token, while other answers wait.
#[test]
fn an_answer_that_takes_too_long_to_follow_ends() {
    let grammar = "start: e \"z\"\ne: e e | \"a\" | e \"+\" e | e e e";
    let mut guide = BYTES.compile(&Constraint::grammar(grammar)).expect("a guide");
    let token = BYTES.tokenizer.encode("a", false).expect("tokens")[0];
    let error = (0..2000).find_map(|_| guide.mask().and_then(|_| guide.accept(token)).err());
    assert!(error.as_ref().is_some_and(|error| error.to_string().contains("too long")), "{error:?}");
}

/// Either outcome will do, as long as it is one: these were chosen to exhaust stacks, memory or patience.
fn survives(name: &str, constraint: &Constraint) {
    let begin = std::time::Instant::now();
    let outcome = BYTES.compile(constraint).map(|mut guide| guide.mask().map(|mask| mask.vocab()));
    eprintln!("{name}: {:?}, {:?}", begin.elapsed(), outcome.map_err(|error| error.to_string()));
}

#[test]
fn hostile_patterns_end() {
    let nested = |n: usize| format!("{}a{}", "(".repeat(n), ")".repeat(n));
    for (name, pattern) in [
        ("60,000 groups", nested(30_000)),
        ("more than allowed", nested(60_000)),
        ("200 groups", nested(200)),
        ("a huge repetition", "a{1000000000}".to_owned()),
        ("repetitions of repetitions", "((((a{1000}){1000}){1000}){1000}){1000}".to_owned()),
        ("nested stars", format!("{}a{}", "(".repeat(100), "*)*".repeat(100))),
        ("exponential states", "(a|b)*a(a|b){500}".to_owned()),
        ("many alternatives", (0..8000).map(|i| format!("{i:x}")).collect::<Vec<_>>().join("|")),
        ("long", "ab?".repeat(20_000)),
        ("many classes", r"\p{L}\w[^a]".repeat(2000)),
        ("a large class", r"[\p{L}\p{N}]{1,1000}".to_owned()),
        ("unicode", r"(?i)\p{L}{500}".to_owned()),
    ] {
        survives(name, &Constraint::regex(pattern.as_str()));
        survives(name, &Constraint::json_schema(json!({"type": "string", "pattern": pattern})));
        survives(name, &Constraint::grammar(format!("start: /{pattern}/")));
    }
}

fn deep(levels: usize, wrap: impl Fn(Value) -> Value) -> Value {
    (0..levels).fold(json!({"type": "null"}), |inner, _| wrap(inner))
}

#[test]
fn hostile_schemas_end() {
    let chain = |length: usize| {
        let link = |i: usize| json!({"properties": {"a": {"$ref": format!("#/$defs/d{}", i + 1)}}});
        let mut all: Map<String, Value> = (0..length).map(|i| (format!("d{i}"), link(i))).collect();
        all.insert(format!("d{length}"), json!({"type": "null"}));
        json!({"$ref": "#/$defs/d0", "$defs": all})
    };
    let wide: Map<String, Value> =
        (0..20_000).map(|i| (format!("p{i}"), json!({"type": "string"}))).collect();
    let required: Vec<Value> = (0..20_000).map(|i| json!(format!("p{i}"))).collect();
    let options: Vec<Value> =
        (0..40).map(|i| json!({"properties": {format!("p{i}"): {"type": "string"}}})).collect();
    let tower = (0..30).fold(json!({}), |inner, i| {
        json!({"allOf": [{"anyOf": [{"properties": {format!("a{i}"): {"type": "null"}}},
        {"properties": {format!("b{i}"): {"type": "null"}}}]}, inner]})
    });
    for (name, schema) in [
        ("90 levels", deep(45, |inner| json!({"items": inner}))),
        ("many levels", deep(2000, |inner| Map::from_iter([("items".to_owned(), inner)]).into())),
        ("levels of choices", deep(45, |inner| json!({"anyOf": [inner, {"type": "boolean"}]}))),
        ("a chain of references", chain(1300)),
        ("a longer chain of references", chain(20_000)),
        ("itself", json!({"$ref": "#"})),
        (
            "itself, by two",
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        ),
        ("itself, and all of it", json!({"allOf": [{"$ref": "#"}, {"type": "object"}]})),
        ("without an end", json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})),
        ("wide", json!({"type": "object", "properties": wide})),
        ("wide and required", json!({"type": "object", "properties": wide, "required": required})),
        ("many items", json!({"type": "array", "items": {"type": "object"}, "minItems": 1_000_000_000})),
        ("many items at most", json!({"type": "array", "maxItems": 4_000_000_000_u64})),
        ("long texts", json!({"type": "string", "minLength": 1_000_000_000})),
        ("long texts at most", json!({"type": "string", "maxLength": 1_000_000_000})),
        ("many properties", json!({"type": "object", "minProperties": 1_000_000})),
        ("large numbers", json!({"type": "number", "minimum": -1e308, "maximum": 1e-300})),
        ("odd multiples", json!({"type": "integer", "multipleOf": 123_456_789_012_345_678_u64})),
        (
            "multiples of multiples",
            json!({"allOf": [{"multipleOf": 999_983}, {"multipleOf": 999_979}, {"multipleOf": 0.0000001}]}),
        ),
        (
            "all of any of",
            json!({"allOf": [{"anyOf": options}, {"anyOf": options}, {"anyOf": options}, {"anyOf": options}]}),
        ),
        ("a tower", tower),
        (
            "a large enumeration",
            json!({"enum": (0..60_000).map(|i| format!("value {i}")).collect::<Vec<_>>()}),
        ),
        (
            "many patterns",
            json!({"type": "object", "patternProperties":
            (0..300).map(|i| (format!("a.*{i}.*b"), json!({"type": "null"}))).collect::<Map<_, _>>()}),
        ),
        ("the largest multiple", json!({"multipleOf": 9973})),
        ("negative", json!({"type": "array", "minItems": -1})),
        ("strange values", json!({"type": 7, "required": "a", "enum": {}, "minimum": "x"})),
    ] {
        survives(name, &Constraint::json_schema(schema));
    }
    let text = "x".repeat(2 << 20);
    let error = refused(&Constraint::json_schema(json!({"description": text, "type": "null"})));
    assert!(matches!(error, GrammarError::TooLarge { .. }), "{error}");
}

#[test]
fn hostile_grammars_end() {
    let mut chain = String::from("start: r0\n");
    (0..6000).for_each(|i| writeln!(chain, "r{i}: r{} \"x\"?", i + 1).expect("a string"));
    let mut terminals = String::from("start: T0\n");
    (0..6000).for_each(|i| writeln!(terminals, "T{i}: T{} \"x\"?", i + 1).expect("a string"));
    let mut references = String::from("start: %json {\"$ref\": \"#/$defs/a0\", \"$defs\": {");
    (0..8000)
        .for_each(|i| write!(references, "\"a{i}\":{{\"$ref\":\"#/$defs/a{}\"}},", i + 1).expect("a string"));
    for (name, grammar) in [
        ("60,000 groups", format!("start: {}\"a\"{}", "(".repeat(60_000), ")".repeat(60_000))),
        ("groups in a pattern", format!("start: /{}a{}/", "(".repeat(60_000), ")".repeat(60_000))),
        ("brackets in brackets", format!("start: {}", "[".repeat(100_000))),
        ("a chain of rules", format!("{chain}r6000: \"a\"\n")),
        ("a chain of terminals", format!("{terminals}T6000: \"a\"\n")),
        ("a chain of references", format!("{references}\"a8000\":{{\"type\":\"null\"}}}}}}\n")),
        ("deep JSON", format!("start: %json {}{}", "{\"items\":".repeat(2000), "}".repeat(2000))),
        ("itself", "start: start".to_owned()),
        ("itself, at the left", "start: start \"a\" | \"a\"".to_owned()),
        ("ambiguous", "start: start start | \"a\" | \"\"".to_owned()),
        ("a huge repetition", "start: \"a\"{1000000000}".to_owned()),
        ("repetitions of repetitions", "start: a{1000}\na: b{1000}\nb: c{1000}\nc: \"x\"{1000}\n".to_owned()),
        (
            "many rules",
            (0..20_000).fold("start: r0\n".to_owned(), |text, i| text + &format!("r{i}: \"a\"\n")),
        ),
    ] {
        survives(name, &Constraint::grammar(grammar));
    }
}
