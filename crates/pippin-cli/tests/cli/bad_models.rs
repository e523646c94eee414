//! Models that are damaged, contradict themselves, or mean harm: an error that names file and field.

use std::fs;

use serde_json::json;

use crate::support::{Outcome, TinyModel, pippin};

/// Runs a model after its files have been spoiled.
#[track_caller]
fn run_spoiled(model: &TinyModel, spoil: impl FnOnce(&TinyModel)) -> Outcome {
    let folder = model.write();
    spoil(model);
    pippin(&["run", folder, "hello", "--max-tokens", "4"])
}

#[track_caller]
fn run_model(change: impl FnOnce(&mut TinyModel)) -> Outcome {
    let mut model = TinyModel::new();
    change(&mut model);
    run_spoiled(&model, |_| {})
}

#[track_caller]
fn run_weights(spoil: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Outcome {
    run_spoiled(&TinyModel::new(), |model| {
        let path = model.file("model.safetensors");
        let bytes = fs::read(&path).expect("readable");
        fs::write(&path, spoil(bytes)).expect("written");
    })
}

#[test]
fn the_model_itself_is_fine() {
    assert_eq!(run_model(|_| {}).code, Some(0));
}

#[test]
fn missing_files() {
    let without = |name: &'static str| {
        run_spoiled(&TinyModel::new(), move |model| fs::remove_file(model.file(name)).expect("removed"))
    };
    without("config.json").fails(4, &["config.json"]).hints("config.json");
    without("model.safetensors").fails(4, &["safetensors"]).hints("safetensors");
    without("tokenizer.json").fails(4, &["tokenizer.json"]);
}

#[test]
fn truncated_weights() {
    run_weights(|bytes| bytes[..bytes.len() / 2].to_vec())
        .fails(4, &["model.safetensors", "data_offsets"])
        .hints("download");
    run_weights(|_| Vec::new()).fails(4, &["model.safetensors", "truncated"]).hints("download");
}

#[test]
fn an_impossible_header_length() {
    let spoil = |mut bytes: Vec<u8>| {
        bytes[..8].copy_from_slice(&(1_u64 << 63).to_le_bytes());
        bytes
    };
    run_weights(spoil)
        .fails(4, &["model.safetensors", "header length", "9223372036854775808"])
        .hints("download");
}

#[test]
fn offsets_past_the_end() {
    let spoil = |_: Vec<u8>| {
        let header =
            json!({"model.norm.weight": {"dtype": "F32", "shape": [32], "data_offsets": [0, 1_u64 << 60]}});
        let header = header.to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 128]);
        bytes
    };
    run_weights(spoil).fails(4, &["model.safetensors", "model.norm.weight", "data_offsets"]);
}

#[test]
fn weights_of_another_shape() {
    run_model(|model| model.config["intermediate_size"] = 48.into())
        .fails(4, &["model.safetensors", "mlp.", "48"])
        .hints("config.json");
}

#[test]
fn unknown_model_types() {
    run_model(|model| model.config["model_type"] = "perceptron\u{1b}[31m".into())
        .fails(4, &["config.json", "model_type", "perceptron", "docs/models.md"])
        .hints("newer version");
    run_model(|model| model.config["model_type"] = "qwen33".into()).fails(4, &["supported: qwen3, "]);
}

#[test]
fn impossible_configurations() {
    for (field, value) in [
        ("num_attention_heads", json!(0)),
        ("num_hidden_layers", json!(0)),
        ("num_hidden_layers", json!(1_000_000_000)),
        ("hidden_size", json!(-1)),
        ("hidden_size", json!(1_u64 << 62)),
        ("vocab_size", json!("many")),
        ("max_position_embeddings", json!(0)),
    ] {
        run_model(|model| model.config[field] = value.clone()).fails(4, &["config.json", field]);
    }
    let broken =
        |model: &TinyModel| fs::write(model.file("config.json"), "{\"model_type\": ").expect("written");
    run_spoiled(&TinyModel::new(), broken).fails(4, &["config.json", "JSON"]);
}

#[test]
fn tokens_beyond_the_vocabulary() {
    let outcome = run_model(|model| model.tokenizer["model"]["vocab"]["far"] = 100_000.into());
    assert!(
        outcome.code == Some(0) && outcome.stderr.contains("100001 tokens, the model 257"),
        "{outcome:?}"
    );
}

#[test]
fn templates_that_loop_for_ever() {
    run_model(|model| {
        model.tokenizer_config["chat_template"] =
            "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}".into();
    })
    .fails(5, &["tokenizer_config.json", "line 1", "limit"]);
}

#[test]
fn templates_that_grow_for_ever() {
    run_model(|model| {
        model.tokenizer_config["chat_template"] =
            "{% set ns = namespace(x='x') %}{% for a in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"
                .into();
    })
    .fails(5, &["tokenizer_config.json", "limit"]);
}

#[test]
fn templates_that_refuse() {
    let outcome = run_model(|model| {
        model.tokenizer_config["chat_template"] = "{{ raise_exception('no \u{1b}[2J users') }}".into();
    })
    .fails(5, &["tokenizer_config.json", "line 1", "users"]);
    assert!(!outcome.stderr.contains('\u{1b}'), "{outcome:?}");
}

#[test]
fn templates_that_do_not_parse() {
    run_model(|model| model.tokenizer_config["chat_template"] = "\n{% for".into())
        .fails(5, &["tokenizer_config.json", "line 2"]);
}

#[test]
fn weights_that_are_not_numbers() {
    // All ones: f32 values that are not numbers.
    let spoil = |mut bytes: Vec<u8>| {
        let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        bytes[8 + header..].fill(0xff);
        bytes
    };
    let outcome = run_weights(spoil);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("error: "), "{outcome:?}");
}
