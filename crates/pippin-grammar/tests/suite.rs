//! The JSON-Schema-Test-Suite's schemas (see `tools/schemas/suite.py`): each is either followed exactly, or refused with the place
//! of what cannot be followed.

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::LazyLock;

use common::{Random, Tokens, is_valid};
use pippin_grammar::{Constraint, GrammarError};
use serde_json::{Value, json};

static NANO: LazyLock<Tokens> = LazyLock::new(Tokens::nano);
static BYTES: LazyLock<Tokens> = LazyLock::new(Tokens::bytes);

/// A schema of the suite, with documents that it allows and such that it does not.
struct Case {
    file: String,
    description: String,
    schema: Value,
    valid: Vec<Value>,
    invalid: Vec<Value>,
}

fn cases() -> Vec<Case> {
    let text = concat!(include_str!("suite/draft2020-12.jsonl"), include_str!("suite/draft7.jsonl"));
    let cases = text.lines().map(|line| {
        let (file, description, schema, valid, invalid) = serde_json::from_str(line).expect("a case");
        Case { file, description, schema, valid, invalid }
    });
    cases.collect()
}

fn is_document(schema: &Value, answer: &str) -> bool {
    let document =
        serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer:?} for {schema}"));
    is_valid(schema, schema, &document)
}

/// Answers that were drawn at random and came to an end.
fn draw(tokens: &Tokens, schema: &Value, seeds: std::ops::Range<u64>, most: usize) -> Vec<String> {
    let guide = tokens.compile(&Constraint::json_schema(schema.clone())).expect("it compiled before");
    seeds.filter_map(|seed| tokens.draw(&mut guide.clone(), &mut Random(seed), most)).collect()
}

#[test]
fn schemas_are_followed_exactly_or_refused_by_name() {
    let mut counts = BTreeMap::<&str, usize>::new();
    for Case { file, description, schema, valid, invalid } in &cases() {
        let mut count = |what, number| *counts.entry(what).or_default() += number;
        let guide = match BYTES.compile(&Constraint::json_schema(schema.clone())) {
            Ok(guide) => guide,
            Err(GrammarError::Schema { path, problem }) => {
                let place = schema.pointer(path.strip_prefix('#').expect("a pointer"));
                assert!(place.is_some(), "{file}: {description}: {path}: {problem}");
                count("refused", 1);
                continue;
            }
            Err(error) => panic!("{file}: {description}: {error}: {schema}"),
        };
        count("followed", 1);
        for document in invalid {
            let text = document.to_string();
            assert!(!BYTES.accepts(&mut guide.clone(), &text), "{file}: {description}: {text} for {schema}");
            count("not accepted", 1);
        }
        let is_accepted = |document: &&Value| BYTES.accepts(&mut guide.clone(), &document.to_string());
        count("accepted", valid.iter().filter(is_accepted).count());
        count("valid", valid.len());
        for (tokens, seeds) in [(&*BYTES, 0..2), (&*NANO, 2..3)] {
            for answer in draw(tokens, schema, seeds, 80) {
                assert!(is_document(schema, &answer), "{file}: {description}: {answer} for {schema}");
                count("drawn", 1);
            }
        }
    }
    eprintln!("{counts:?}");
    let at_least = |what, number| assert!(counts[what] >= number, "{what}: {counts:?}");
    at_least("followed", 300);
    at_least("not accepted", 400);
    at_least("drawn", 800);
}

#[test]
#[ignore = "writes target/tmp/answers.jsonl, which tools/schemas/judge.py judges"]
fn answers_for_an_independent_judge() {
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/answers.jsonl");
    let mut file = std::fs::File::create(path).expect("a file");
    let mut answers = 0;
    for case in &cases() {
        if BYTES.compile(&Constraint::json_schema(case.schema.clone())).is_err() {
            continue;
        }
        for (name, tokens) in [("random", &*BYTES), ("pippin-nano", &*NANO)] {
            let drawn = draw(tokens, &case.schema, 100..106, 300);
            answers += drawn.len();
            let line = json!([case.file, case.description, case.schema, name, drawn]);
            writeln!(file, "{line}").expect("room for it");
        }
    }
    println!("{answers} answers in {path}");
    assert!(answers > 1000);
}
