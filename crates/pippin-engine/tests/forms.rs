//! Answers of the shipped model that are held to the schemas of the JSON-Schema-Test-Suite, for an independent judge.

use std::io::Write;

use pippin_engine::{Constraint, FinishReason, GenerateParameters, LoadOptions, ModelContainer};
use serde_json::{Value, json};

/// Requests at a time.
const TOGETHER: usize = 32;
/// Answers for each schema and temperature.
const SEEDS: u64 = 3;

fn schemas() -> Vec<(String, String, Value)> {
    let text = concat!(
        include_str!("../../pippin-grammar/tests/suite/draft2020-12.jsonl"),
        include_str!("../../pippin-grammar/tests/suite/draft7.jsonl"),
    );
    let schemas = text.lines().map(|line| {
        let (file, description, schema, _, _): (_, _, _, Value, Value) =
            serde_json::from_str(line).expect("a case");
        (file, description, schema)
    });
    schemas.collect()
}

/// At a temperature of 100 the model knows nothing any more. PIPPIN_FORMS_MODEL names another model, such as one with random weights.
#[test]
#[ignore = "takes minutes; writes target/tmp/forms.jsonl, which tools/schemas/judge.py judges"]
fn answers_of_the_model_for_an_independent_judge() {
    let name = std::env::var("PIPPIN_FORMS_MODEL").unwrap_or_else(|_| "pippin-nano".to_owned());
    let model = ModelContainer::load(&name, &LoadOptions::default()).expect("a model");
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/forms.jsonl");
    let mut file = std::fs::File::create(path).expect("a file");
    let mut requests = Vec::new();
    for (index, (file, description, schema)) in schemas().into_iter().enumerate() {
        for temperature in [0.7, 100.0] {
            for seed in 0..SEEDS {
                let parameters = GenerateParameters::greedy()
                    .with_max_tokens(60)
                    .with_temperature(temperature)
                    .with_seed(index as u64 * SEEDS + seed)
                    .with_constraint(Constraint::json_schema(schema.clone()))
                    .with_constraint_after("");
                requests.push((file.clone(), description.clone(), schema.clone(), temperature, parameters));
            }
        }
    }
    let (mut complete, mut cut) = (0, 0);
    for requests in requests.chunks(TOGETHER) {
        let streams = requests.iter().filter_map(|(file, description, schema, temperature, parameters)| {
            let stream = model.generate_text("As JSON: ", parameters).ok()?;
            Some((json!([file, description, schema, format!("temperature {temperature}")]), stream))
        });
        for (mut line, stream) in streams.collect::<Vec<_>>() {
            let (text, info) = stream.collect_text().expect("no error");
            if info.is_some_and(|info| info.finish_reason == FinishReason::Stop) {
                line.as_array_mut().expect("a list").push(json!([text]));
                writeln!(file, "{line}").expect("room for it");
                complete += 1;
            } else {
                cut += 1;
            }
        }
    }
    println!("{complete} answers in {path}, {cut} cut");
    assert!(complete > 500);
}
