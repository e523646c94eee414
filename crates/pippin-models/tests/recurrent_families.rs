//! RecurrentGemma, RWKV 7 and Gemma 3n: fields that are wrong are named, weights are counted once, states have the sizes
//! that the architecture gives them, and token ids without inputs of their own.

use std::path::Path;
use std::sync::Arc;

use pippin_cpu::CpuBackend;
use pippin_models::{
    CachePlan, Config, LanguageModel, ModelTypeRegistry, Output, describe_from, load_from, testing,
};
use pippin_tensor::{Batch, Dtype, Input, KvFormat, LogitRows, Numerics, SequenceRows, Want};
use pippin_weights::{Checkpoint, TensorData};
use serde_json::{Value, json};

const NAMES: [&str; 6] =
    ["recurrent_gemma", "recurrent_gemma-4bit", "rwkv7", "rwkv7-4bit", "gemma3n", "gemma3n-4bit"];

/// The configuration of a golden model.
fn config(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/{name}.json"));
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    golden["config"].clone()
}

fn spec_error(config: Value) -> String {
    let config = Config::new(config).unwrap();
    ModelTypeRegistry::find(&config).unwrap().spec(&config).expect_err("a wrong field").to_string()
}

#[test]
fn fields_out_of_range_are_named() {
    for (name, field, value, expected) in [
        ("recurrent_gemma", "hidden_size", json!(0), "must be a positive integer, found 0"),
        (
            "recurrent_gemma",
            "lru_width",
            json!(66),
            "`num_attention_heads` is 4, which does not divide the 66",
        ),
        ("recurrent_gemma", "lru_width", json!(1u64 << 40), "must be at most 1048576"),
        ("recurrent_gemma", "conv1d_width", json!(0), "must be a positive integer, found 0"),
        ("recurrent_gemma", "conv1d_width", json!(100_000), "must be at most 1024, found 100000"),
        ("recurrent_gemma", "head_dim", json!(2), "must be an even number"),
        ("recurrent_gemma", "num_key_value_heads", json!(3), "is 3, which does not divide the 4"),
        ("recurrent_gemma", "partial_rotary_factor", json!(-1), "must be a positive number, found -1"),
        ("recurrent_gemma", "partial_rotary_factor", json!(1e30), "`head_dim` must be an even number"),
        ("recurrent_gemma", "partial_rotary_factor", json!(1.5), "`head_dim` is 16, but 24 rotated"),
        ("recurrent_gemma", "intermediate_size", json!(193), "must be even, found 193"),
        ("recurrent_gemma", "attention_window_size", Value::Null, "is missing"),
        ("recurrent_gemma", "block_types", json!([]), "is missing"),
        ("recurrent_gemma", "block_types", json!(["recurrent", "mamba"]), "\"mamba\" is not supported"),
        ("recurrent_gemma", "logits_soft_cap", json!(-3), "must be a positive number, found -3"),
        ("recurrent_gemma", "logits_soft_cap", json!(1e-50), "must be a number in the range of f32"),
        ("rwkv7", "head_dim", json!(0), "must be a positive integer, found 0"),
        ("rwkv7", "head_dim", json!(24), "is 24, which does not divide the 64 columns"),
        ("rwkv7", "head_dim", json!(1 << 13), "must be at most 4096"),
        ("rwkv7", "hidden_size", json!(1u64 << 62), "must be at most 1048576"),
        ("rwkv7", "num_hidden_layers", json!(1 << 30), "must be at most 10000"),
        ("rwkv7", "a_low_rank_dim", json!(0), "must be a positive integer, found 0"),
        ("rwkv7", "v_low_rank_dim", Value::Null, "is missing"),
        ("rwkv7", "gate_low_rank_dim", json!(1u64 << 50), "must be at most 1048576"),
        ("rwkv7", "norm_eps", json!(-1e-5), "must be a positive number"),
        ("rwkv7", "norm_eps", json!(1e38), "`layer_norm_eps` must be a positive number, found inf"),
    ] {
        let mut config = config(name);
        config[field] = value.clone();
        let error = spec_error(config);
        assert!(error.starts_with("config.json: field `"), "{error}");
        assert!(error.contains(field) || expected.contains('`'), "{name}, {field} = {value}: {error}");
        assert!(error.contains(expected), "{name}, {field} = {value}: {error}");
    }
    for (field, value, expected) in [
        ("altup_num_inputs", json!(0), "must be a positive integer, found 0"),
        ("altup_num_inputs", json!(65), "must be at most 64, found 65"),
        ("altup_active_idx", json!(3), "is 3, but there are 3 streams"),
        ("altup_active_idx", json!(-1), "must be a non-negative integer, found -1"),
        ("altup_active_idx", json!(u64::MAX), "is 18446744073709551615, but there are 3 streams"),
        ("altup_correct_scale", Value::Null, "is missing; it must be true or false"),
        ("hidden_size_per_layer_input", json!(1u64 << 40), "must be at most 1048576"),
        ("vocab_size_per_layer_input", json!(0), "must be a positive integer, found 0"),
        ("laurel_rank", json!(0), "must be a positive integer, found 0"),
        ("intermediate_size", json!([96, 96]), "has 2 entries for 6 layers"),
        ("intermediate_size", json!([96, 96, 0, 96, 96, 96]), "must be a positive integer, or a list"),
        ("intermediate_size", json!(1u64 << 40), "must be at most 4194304"),
        ("activation_sparsity_pattern", json!([0.5]), "has 1 entries for 6 layers"),
        ("activation_sparsity_pattern", json!(1.0), "must be numbers from 0 to less than 1, found 1.0"),
        ("activation_sparsity_pattern", json!({"__float__": "NaN"}), "must be numbers from 0 to less than 1"),
        ("layer_types", Value::Null, "is missing"),
        ("layer_types", json!(["full_attention"]), "has 1 entries for 6 layers"),
        ("num_kv_shared_layers", json!(6), "is 6: no layer before them is of the kind of layer 0"),
        ("num_kv_shared_layers", json!(5), "is 5: no layer before them is of the kind of layer 2"),
        ("num_kv_shared_layers", json!(u64::MAX), "no layer before them"),
        ("num_key_value_heads", json!(3), "is 3, which does not divide the 4"),
        ("head_dim", json!(15), "must be an even number"),
        ("sliding_window", json!(0), "must be a positive integer, found 0"),
        ("rope_local_base_freq", json!(1e60), "must be a number in the range of f32"),
        ("final_logit_softcapping", json!(-1), "must be a positive number, found -1"),
    ] {
        let mut config = config("gemma3n");
        config["text_config"][field] = value.clone();
        let error = spec_error(config);
        assert!(error.starts_with("config.json: field `"), "{error}");
        assert!(error.contains(field) && error.contains(expected), "{field} = {value}: {error}");
    }
    let mut config = config("gemma3n");
    config["text_config"] = Value::Null;
    assert!(spec_error(config).contains("field `text_config` is missing"));
}

#[test]
fn weights_are_counted_once() {
    for name in NAMES {
        let config = Config::new(config(name)).unwrap();
        let tensors = testing::tensors(&config, Dtype::F32, 0).unwrap();
        let bytes: usize = tensors.iter().map(|tensor| tensor.bytes().len()).sum();
        let mut names: Vec<&str> = tensors.iter().map(TensorData::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), tensors.len(), "{name}");
        let info = describe_from(&config, &Checkpoint::from_tensors(tensors)).unwrap();
        assert_eq!(info.weight_bytes, bytes as u64, "{name}");
    }
}

#[test]
fn states_and_caches_follow_the_architecture() {
    let info = |name: &str| {
        let config = Config::new(config(name)).unwrap();
        describe_from(&config, &testing::checkpoint(&config, Dtype::F32, 0).unwrap()).unwrap()
    };
    // Three rows of the convolution and the state of each of three recurrent layers; one layer with a window.
    let recurrent = info("recurrent_gemma");
    assert_eq!(recurrent.cache.state_bytes, 4 * 3 * (3 * 64 + 64));
    assert_eq!((recurrent.cache.groups.len(), recurrent.cache.groups[0].layers), (1, 1));
    assert_eq!((recurrent.heads, recurrent.kv_heads, recurrent.sliding_window), (4, 1, Some(8)));
    // The last rows of both halves of a layer, and a matrix for each head.
    let rwkv = info("rwkv7");
    assert_eq!(rwkv.cache.state_bytes, 4 * 3 * (64 + 4 * 16 * 16 + 64));
    assert_eq!((rwkv.cache.groups.len(), rwkv.heads, rwkv.kv_heads), (0, 0, 0));
    // Of six layers two have no keys and values of their own.
    let gemma = info("gemma3n");
    let layers: Vec<_> = gemma.cache.groups.iter().map(|group| (group.layers, group.reach.limit())).collect();
    assert_eq!(layers, [(3, Some(8)), (1, None)]);
    assert!(!gemma.cache.has_state());
}

/// The logits of the last of some tokens.
fn logits(model: &mut dyn LanguageModel, tokens: &[u32]) -> Vec<f32> {
    let groups = model.info().cache.groups.len();
    let plan = CachePlan { page_size: 8, format: KvFormat::F32, pages: vec![2; groups], slots: 1 };
    model.allocate(&plan).unwrap();
    let mut batch = Batch::new(model.limits());
    let want = Want::Logits(LogitRows::Last);
    let pages = vec![&[0, 1][..]; groups];
    batch.push(SequenceRows::text(0, Input::Tokens(tokens), 0, &pages, want)).unwrap();
    let step = model.submit(batch).unwrap();
    match model.finish(step.id).unwrap().remove(0) {
        Output::Logits(logits) => logits.values,
        other => panic!("{other:?}"),
    }
}

/// A token id beyond the table of the layers' own inputs has those of token 0: with its embedding made equal to that of
/// token 0, it is token 0.
#[test]
fn ids_without_inputs_of_their_own_have_the_first() {
    for name in ["gemma3n", "gemma3n-4bit"] {
        let config = Config::new(config(name)).unwrap();
        let mut tensors = testing::tensors(&config, Dtype::F32, 0).unwrap();
        for tensor in &mut tensors {
            if tensor.name().starts_with("model.language_model.embed_tokens.") {
                // The last six rows are the first six.
                *tensor = tensor.select_rows(&[0..90, 0..6]).unwrap();
            }
        }
        let checkpoint = Checkpoint::from_tensors(tensors);
        let cpu = Arc::new(CpuBackend::new(Numerics::Exact));
        let mut model = load_from(&config, &checkpoint, cpu).unwrap();
        let expected = logits(&mut *model, &[5, 0]);
        assert_eq!(logits(&mut *model, &[5, 90]), expected, "{name}");
        assert_ne!(logits(&mut *model, &[5, 91]), logits(&mut *model, &[5, 1]), "{name}");
    }
}

/// The smallest sizes that a configuration may have are computed like any others.
#[test]
fn sizes_of_one() {
    for (name, changes) in [
        ("recurrent_gemma", json!({"conv1d_width": 1, "lru_width": 4, "attention_window_size": 1})),
        ("recurrent_gemma", json!({"lru_width": 1, "num_attention_heads": 1, "intermediate_size": 2})),
        ("recurrent_gemma", json!({"hidden_size": 1, "lru_width": 8})),
        ("rwkv7", json!({"head_dim": 1, "a_low_rank_dim": 1, "v_low_rank_dim": 1, "gate_low_rank_dim": 1})),
        ("rwkv7", json!({"hidden_size": 1, "head_dim": 1, "intermediate_size": 1, "decay_low_rank_dim": 1})),
        ("rwkv7", json!({"hidden_size": 1, "head_dim": 1, "vocab_size": 3, "num_hidden_layers": 1})),
        ("gemma3n", json!({"altup_num_inputs": 1, "laurel_rank": 1, "hidden_size_per_layer_input": 1})),
        ("gemma3n", json!({"hidden_size": 1, "intermediate_size": 1, "altup_active_idx": 2})),
        ("gemma3n", json!({"vocab_size_per_layer_input": 1, "num_kv_shared_layers": 0, "sliding_window": 1})),
    ] {
        let mut value = config(name);
        let fields = if name == "gemma3n" { &mut value["text_config"] } else { &mut value };
        for (field, change) in changes.as_object().unwrap() {
            fields[field] = change.clone();
        }
        let config = Config::new(value).unwrap();
        let checkpoint = testing::checkpoint(&config, Dtype::F32, 0).unwrap();
        let cpu = Arc::new(CpuBackend::new(Numerics::Exact));
        let mut model = load_from(&config, &checkpoint, cpu).unwrap();
        for tokens in [&[2][..], &[0, 1, 2, 2, 1, 0, 1, 2, 0]] {
            assert!(logits(&mut *model, tokens).iter().all(|logit| logit.is_finite()), "{name}, {changes}");
        }
    }
}
