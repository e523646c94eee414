//! Files that are wrong: each is refused with a message that names the file and the field or tensor, before anything
//! large is allocated, and nothing panics.

use std::sync::Arc;

use pippin_cpu::CpuBackend;
use pippin_models::{
    Config, LanguageModel, ModelError, ModelTypeRegistry, describe, describe_from, load_from, testing,
};
use pippin_tensor::{Batch, Dtype, KvFormat, LogitRows, Numerics, SequenceRows, TensorData};
use pippin_weights::{Checkpoint, write_safetensors};
use proptest::prelude::*;
use serde_json::{Value, json};

fn base(model_type: &str) -> Value {
    let mut value = testing::tiny_llama();
    value["model_type"] = model_type.into();
    value
}

fn spec_error(value: &Value) -> ModelError {
    let result = Config::new(value.clone())
        .and_then(|config| ModelTypeRegistry::find(&config).and_then(|family| family.spec(&config)));
    result.expect_err(&value.to_string())
}

fn cpu() -> Arc<CpuBackend> {
    Arc::new(CpuBackend::new(Numerics::Exact))
}

#[test]
fn fields_out_of_range_are_named() {
    let int = |field: &str| format!("field `{field}` must be a positive integer, found ");
    for (field, value, expected) in [
        ("num_attention_heads", json!(0), int("num_attention_heads") + "0"),
        ("num_hidden_layers", json!(0), int("num_hidden_layers") + "0"),
        (
            "num_hidden_layers",
            json!(10_001),
            "field `num_hidden_layers` must be at most 10000, found 10001".into(),
        ),
        ("num_hidden_layers", json!(u64::MAX), "field `num_hidden_layers` must be at most 10000".into()),
        ("num_key_value_heads", json!(0), int("num_key_value_heads")),
        (
            "num_key_value_heads",
            json!(3),
            "field `num_key_value_heads` is 3, which does not divide the 4 attention heads".into(),
        ),
        (
            "num_key_value_heads",
            json!(8),
            "field `num_key_value_heads` is 8, which does not divide the 4".into(),
        ),
        ("vocab_size", json!(0), int("vocab_size")),
        ("vocab_size", json!(1u64 << 40), "field `vocab_size` must be at most ".into()),
        ("vocab_size", Value::Null, "field `vocab_size` is missing; it must be a positive integer".into()),
        ("hidden_size", json!(-64), int("hidden_size")),
        ("hidden_size", json!(64.5), int("hidden_size") + "64.5"),
        ("hidden_size", json!("64"), int("hidden_size") + "\"64\""),
        ("hidden_size", json!(1u64 << 60), "field `hidden_size` must be at most ".into()),
        ("hidden_size", json!(3), "field `head_dim` must be an even number of at most 4096, found 0".into()),
        ("intermediate_size", json!([96]), int("intermediate_size") + "a list"),
        ("max_position_embeddings", json!(0), int("max_position_embeddings")),
        (
            "max_position_embeddings",
            json!(1u64 << 50),
            "field `max_position_embeddings` must be at most ".into(),
        ),
        ("rms_norm_eps", json!(0), "field `rms_norm_eps` must be a positive number, found 0".into()),
        (
            "rms_norm_eps",
            json!({"__float__": "NaN"}),
            "field `rms_norm_eps` must be a positive number, found NaN".into(),
        ),
        ("rms_norm_eps", json!(1e300), "field `rms_norm_eps` must be a positive number, found inf".into()),
        (
            "tie_word_embeddings",
            json!("yes"),
            "field `tie_word_embeddings` must be true or false, found \"yes\"".into(),
        ),
        (
            "hidden_act",
            json!("gelu"),
            "field `hidden_act`: \"gelu\" is not supported; supported: silu".into(),
        ),
        ("layer_types", json!(["full_attention"]), "field `layer_types` has 1 entries for 2 layers".into()),
        (
            "layer_types",
            json!(["sliding_attention", "full_attention"]),
            "field `sliding_window` is missing".into(),
        ),
        (
            "layer_types",
            json!(["full_attention", "mamba"]),
            "field `layer_types`: \"mamba\" is not supported".into(),
        ),
        ("layer_types", json!([1, 2]), "field `layer_types` must be a list of strings".into()),
    ] {
        for model_type in ["llama", "mistral", "qwen2"] {
            let mut config = base(model_type);
            config[field] = value.clone();
            let error = spec_error(&config).to_string();
            assert_eq!(error.split(": ").next(), Some("config.json"));
            assert!(error.contains(&expected), "{model_type}, {field} = {value}: {error}");
        }
    }
    let mut config = base("mistral");
    config["sliding_window"] = json!(0);
    assert!(
        spec_error(&config)
            .to_string()
            .contains("field `sliding_window` must be a positive integer, found 0")
    );
    let mut config = base("qwen2");
    config["use_sliding_window"] = json!(true);
    assert!(spec_error(&config).to_string().contains("field `max_window_layers` is missing"));
    let mut config = base("qwen3");
    config["rope_theta"] = Value::Null;
    assert!(spec_error(&config).to_string().contains("field `rope_theta` is missing"));
}

#[test]
fn an_unknown_model_type_names_the_known_ones() {
    let error = spec_error(&base("gpt-9\u{1b}[2J"));
    assert_eq!(
        error.to_string(),
        "config.json: field `model_type`: \"gpt-9\\u001b[2J\" is not supported; supported: llama, mistral, qwen2, qwen3"
    );
    assert!(error.hint().unwrap().contains("newer version"));
    assert!(spec_error(&json!({})).to_string().contains("field `model_type` is missing"));
    assert!(
        spec_error(&json!({"model_type": 3}))
            .to_string()
            .contains("field `model_type` must be a string, found 3")
    );
    assert!(spec_error(&json!([])).to_string().contains("must be an object, found a list"));
}

#[test]
fn folders_without_a_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = describe(folder.path()).unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
    std::fs::write(folder.path().join("config.json"), base("llama").to_string()).unwrap();
    let error = describe(folder.path()).unwrap_err();
    assert!(error.to_string().contains("safetensors"), "{error}");
    // The wrong kind of model is reported before the missing weights.
    std::fs::write(folder.path().join("config.json"), base("bert").to_string()).unwrap();
    assert!(matches!(describe(folder.path()), Err(ModelError::Unsupported { .. })));
}

#[test]
fn checkpoints_that_do_not_fit_are_refused() {
    let config = Config::new(base("llama")).unwrap();
    let tensors = testing::tensors(&config, Dtype::F32, 0).unwrap();
    let without =
        |name: &str| tensors.iter().filter(|tensor| tensor.name() != name).cloned().collect::<Vec<_>>();
    let error =
        |tensors| load_from(&config, &Checkpoint::from_tensors(tensors), cpu()).err().unwrap().to_string();

    for name in ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"] {
        let error = error(without(name));
        assert!(error.contains(name), "{error}");
    }
    let name = "model.layers.0.self_attn.k_proj.weight";
    let mut wrong = without(name);
    wrong.push(TensorData::from_f32(name, &[64, 64], &vec![0.0; 64 * 64]).unwrap());
    let message = error(wrong);
    assert!(
        message.contains(name) && message.contains("[32, 64]") && message.contains("[64, 64]"),
        "{message}"
    );
    let name = "model.layers.0.input_layernorm.weight";
    let mut wrong = without(name);
    wrong.push(TensorData::from_f32(name, &[1], &[1.0]).unwrap());
    assert!(error(wrong).contains(name));

    // The configuration asks for more than the checkpoint has: by size, by count, by biases.
    for (field, value) in [
        ("hidden_size", json!(128)),
        ("num_hidden_layers", json!(10_000)),
        ("vocab_size", json!(1 << 24)),
        ("head_dim", json!(4096)),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("tie_word_embeddings", json!(false)),
    ] {
        let mut value_of = base("llama");
        value_of[field] = value;
        let config = Config::new(value_of).unwrap();
        let error = describe_from(&config, &Checkpoint::from_tensors(tensors.clone())).unwrap_err();
        assert!(matches!(error, ModelError::Weights(_)), "{field}: {error}");
        assert!(
            error.to_string().contains("model.") || error.to_string().contains("lm_head"),
            "{field}: {error}"
        );
    }
}

#[test]
fn tensors_that_no_spec_names_are_ignored() {
    let config = Config::new(base("llama")).unwrap();
    let mut tensors = testing::tensors(&config, Dtype::F32, 0).unwrap();
    let plain = describe_from(&config, &Checkpoint::from_tensors(tensors.clone())).unwrap();
    for name in ["model.layers.0.self_attn.rotary_emb.inv_freq", "lm_head.weight"] {
        tensors.push(TensorData::from_f32(name, &[1], &[0.0]).unwrap());
    }
    assert_eq!(describe_from(&config, &Checkpoint::from_tensors(tensors)).unwrap(), plain);
}

#[test]
fn an_unspoken_head_is_used_if_it_is_there() {
    let mut value = base("llama");
    value["tie_word_embeddings"] = false.into();
    let untied = Config::new(value.clone()).unwrap();
    let checkpoint = testing::checkpoint(&untied, Dtype::F32, 0).unwrap();
    value.as_object_mut().unwrap().remove("tie_word_embeddings");
    let unspoken = Config::new(value).unwrap();
    assert!(!describe_from(&unspoken, &checkpoint).unwrap().tied_head);
    let tied = testing::checkpoint(&unspoken, Dtype::F32, 0).unwrap();
    assert!(describe_from(&unspoken, &tied).unwrap().tied_head);
}

fn model() -> Box<dyn LanguageModel> {
    let config = Config::new(base("llama")).unwrap();
    load_from(&config, &testing::checkpoint(&config, Dtype::F32, 0).unwrap(), cpu()).unwrap()
}

fn batch(page_size: usize, tokens: &[u32], pages: &[u32]) -> Batch {
    let mut batch = Batch::new(page_size);
    batch.push(SequenceRows { tokens, start: 0, pages, logits: LogitRows::Last }).unwrap();
    batch
}

#[test]
fn steps_that_do_not_fit_are_refused_and_leave_the_model_usable() {
    let mut model = model();
    let good = batch(8, &[1, 2, 3], &[1]);
    let error = model.step(&good).unwrap_err();
    assert_eq!(error.to_string(), "the KV cache does not fit the step: none is allocated");
    model.allocate_kv(2, 8, KvFormat::F32).unwrap();
    assert_eq!(model.kv_page_bytes(8, KvFormat::F32), 2 * 2 * 8 * 2 * 16 * 4);
    let expected = model.step(&good).unwrap();

    let error = model.step(&batch(8, &[1, 96], &[0])).unwrap_err();
    assert_eq!(error.to_string(), "token id 96 is outside the model's vocabulary of 96 tokens");
    assert!(
        model.step(&batch(16, &[1], &[0])).unwrap_err().to_string().contains("hold 8 tokens, the batch's 16")
    );
    assert!(matches!(model.step(&batch(8, &[1], &[7])), Err(ModelError::Backend(_))));
    let beyond = SequenceRows { tokens: &[1], start: 0, pages: &[u32::MAX], logits: LogitRows::Last };
    assert!(Batch::new(8).push(beyond).is_err());
    assert_eq!(model.step(&Batch::new(8)).unwrap().rows, 0);
    assert_eq!(model.step(&good).unwrap(), expected);

    for (pages, page_size) in [(0, 8), (8, 0), (usize::MAX, 2), (1 << 20, 1 << 20), (usize::MAX, usize::MAX)]
    {
        let error = model.allocate_kv(pages, page_size, KvFormat::F32).unwrap_err();
        assert!(error.to_string().contains("cannot be addressed"), "{error}");
    }
    // What was there before a refused request is still there.
    assert_eq!(model.step(&good).unwrap(), expected);
}

/// Values that configurations do not expect.
fn odd_value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0u64..200).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0.0..10.0).prop_map(Value::from),
        Just(json!({"__float__": "Infinity"})),
        Just(json!({"__float__": "NaN"})),
    ];
    let text = prop_oneof![
        Just("full_attention"),
        Just("sliding_attention"),
        Just("yarn"),
        Just("llama3"),
        Just("linear"),
        Just("dynamic"),
        Just("longrope"),
        Just(""),
    ];
    let leaf = prop_oneof![
        4 => number,
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        2 => text.prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 24, 10, |inner| {
        let field = prop_oneof![
            Just("type"),
            Just("rope_type"),
            Just("factor"),
            Just("rope_theta"),
            Just("bits"),
            Just("group_size"),
            Just("long_factor"),
            Just("original_max_position_embeddings"),
            Just("beta_fast"),
            Just("mscale"),
            Just("low_freq_factor"),
            Just("model.embed_tokens"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..10).prop_map(Value::from),
            prop::collection::btree_map(field.prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

const FIELDS: [&str; 24] = [
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "vocab_size",
    "max_position_embeddings",
    "rope_theta",
    "tie_word_embeddings",
    "head_dim",
    "attention_bias",
    "mlp_bias",
    "rope_traditional",
    "rope_scaling",
    "rope_parameters",
    "layer_types",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "hidden_act",
    "quantization",
    "quantization_config",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stands in a configuration, reading it ends in a checked spec or an error, and so does loading a
    /// checkpoint with it; a model that loads can run.
    #[test]
    fn mutated_configurations_never_panic(
        family in prop::sample::select(vec!["llama", "mistral", "qwen2", "qwen3"]),
        changes in prop::collection::vec((prop::sample::select(FIELDS.to_vec()), odd_value()), 1..4),
    ) {
        let mut value = base(family);
        for (field, change) in changes {
            value[field] = change;
        }
        let tiny = Config::new(base(family)).unwrap();
        let checkpoint = testing::checkpoint(&tiny, Dtype::F32, 0);
        if let (Ok(config), Ok(checkpoint)) = (Config::new(value), checkpoint)
            && let Ok(mut model) = load_from(&config, &checkpoint, cpu())
        {
            model.allocate_kv(1, 8, KvFormat::F32).unwrap();
            model.step(&batch(8, &[1, 2, 3], &[0])).unwrap();
        }
    }
}

#[test]
fn bytes_after_a_download_that_was_cut_short() {
    let config = Config::new(base("llama")).unwrap();
    let tensors = testing::tensors(&config, Dtype::F32, 0).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.value().to_string()).unwrap();
    let path = folder.path().join("model.safetensors");
    write_safetensors(&path, &tensors, &Default::default()).unwrap();
    assert!(describe(folder.path()).is_ok());
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
    let error = describe(folder.path()).unwrap_err();
    assert!(error.to_string().contains("model.safetensors"), "{error}");
}
