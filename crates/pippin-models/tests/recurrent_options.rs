//! Families that keep state instead of keys and values: configurations that are wrong, options that no golden file has, and
//! what is said of them.

use std::path::Path;
use std::sync::Arc;

use pippin_cpu::CpuBackend;
use pippin_models::{CachePlan, Config, LanguageModel, ModelTypeRegistry, Output, Part, load_from, testing};
use pippin_tensor::{Batch, Dtype, Input, KvFormat, LogitRows, Numerics, SequenceRows, Want};
use serde_json::{Value, json};

/// The configuration of a golden file.
fn base(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/{name}.json"));
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    golden["config"].clone()
}

fn changed(name: &str, change: &Value) -> Value {
    let mut value = base(name);
    for (field, change) in change.as_object().unwrap() {
        value[field] = change.clone();
    }
    value
}

fn spec(value: &Value) -> pippin_models::Result<pippin_models::DecoderSpec> {
    let config = Config::new(value.clone())?;
    ModelTypeRegistry::find(&config)?.spec(&config)
}

fn model(value: &Value) -> Box<dyn LanguageModel> {
    let config = Config::new(value.clone()).unwrap();
    let checkpoint = testing::checkpoint(&config, Dtype::F32, 0).unwrap();
    let mut model = load_from(&config, &checkpoint, Arc::new(CpuBackend::new(Numerics::Exact))).unwrap();
    let pages = vec![4; model.info().cache.groups.len()];
    model.allocate(&CachePlan { page_size: 8, format: KvFormat::F32, pages, slots: 1 }).unwrap();
    model
}

/// The last logits of a prompt that is fed in chunks, after what the slot held is forgotten.
fn logits(model: &mut dyn LanguageModel, prompt: &[u32], chunk: usize) -> Vec<f32> {
    model.edit(vec![pippin_models::SlotEdit::Reset { slot: 0 }]).unwrap();
    let mut last = Vec::new();
    for (i, tokens) in prompt.chunks(chunk).enumerate() {
        let mut batch = Batch::new(model.limits());
        let pages = vec![&[0, 1, 2, 3][..]; model.info().cache.groups.len()];
        let want = Want::Logits(LogitRows::Last);
        batch.push(SequenceRows::text(0, Input::Tokens(tokens), i * chunk, &pages, want)).unwrap();
        let step = model.submit(batch).unwrap();
        let outputs = model.finish(step.id).unwrap();
        let [Output::Logits(logits)] = outputs.as_slice() else { panic!("{outputs:?}") };
        last = logits.row(0).to_vec();
    }
    last
}

#[test]
fn fields_out_of_range_are_named() {
    let infinity = json!({"__float__": "Infinity"});
    for (name, field, value, expected) in [
        ("lfm2", "conv_L_cache", json!(0), "must be a positive integer, found 0"),
        ("lfm2", "conv_L_cache", json!(1 << 20), "must be at most 1024, found 1048576"),
        ("lfm2", "conv_bias", json!(2), "must be true or false, found 2"),
        ("lfm2", "norm_eps", json!(-1.0), "must be a positive number, found -1.0"),
        ("lfm2", "block_dim", json!(32), "is 32, but hidden_size is 64"),
        ("lfm2", "block_ff_dim", json!(0), "must be a positive integer, found 0"),
        ("lfm2", "block_ff_dim", json!(u64::MAX), "must be at most 4194304"),
        ("lfm2", "block_multiple_of", json!(0), "must be a positive integer, found 0"),
        ("lfm2", "block_multiple_of", json!(u64::MAX), "must be at most 4194304"),
        ("lfm2", "layer_types", json!(["conv"]), "has 1 entries for 4 layers"),
        ("lfm2", "layer_types", json!(["conv", "conv", "mamba", "conv"]), "\"mamba\" is not supported"),
        ("lfm2", "layer_types", Value::Null, "is missing; it must be a list of strings"),
        ("lfm2", "full_attn_idxs", json!([0, 4]), "names layer 4 of 4"),
        ("lfm2", "full_attn_idxs", json!([-1]), "must be a list of integers, found a list"),
        ("mamba2", "num_heads", json!(0), "must be a positive integer, found 0"),
        ("mamba2", "num_heads", json!(1 << 30), "must be at most 16384"),
        ("mamba2", "head_dim", json!(1 << 30), "must be at most 4096"),
        ("mamba2", "n_groups", json!(3), "is 3, which does not divide the 8 heads"),
        ("mamba2", "n_groups", json!(16), "is 16, which does not divide the 8 heads"),
        ("mamba2", "state_size", json!(0), "must be a positive integer, found 0"),
        ("mamba2", "ssm_state_size", json!(1 << 20), "must be at most 4096"),
        ("mamba2", "conv_kernel", json!(0), "must be a positive integer, found 0"),
        ("mamba2", "conv_kernel", json!(1 << 12), "must be at most 1024"),
        ("mamba2", "hidden_act", json!("gelu"), "\"gelu\" is not supported; supported: silu"),
        ("mamba2", "time_step_limit", json!(1.0), "must be a list of two numbers"),
        ("mamba2", "time_step_limit", json!([0.0, 1.0, 2.0]), "must be a list of two numbers"),
        ("mamba2", "time_step_limit", json!([1.0, 0.5]), "ascending, found 1 and 0.5"),
        ("mamba2", "time_step_limit", json!([-1.0, 0.5]), "from 0 on and ascending, found -1 and 0.5"),
        ("mamba2", "time_step_limit", json!([infinity, infinity]), "ascending, found inf and inf"),
        ("qwen3_next", "linear_num_key_heads", json!(0), "must be a positive integer, found 0"),
        ("qwen3_next", "linear_num_key_heads", json!(3), "is 3, which does not divide the 4 value heads"),
        ("qwen3_next", "linear_num_key_heads", json!(8), "is 8, which does not divide the 4 value heads"),
        ("qwen3_next", "linear_num_value_heads", json!(u64::MAX), "must be at most 16384"),
        ("qwen3_next", "linear_key_head_dim", json!(1 << 20), "must be at most 4096"),
        ("qwen3_next", "linear_value_head_dim", json!(0), "must be a positive integer, found 0"),
        ("qwen3_next", "linear_conv_kernel_dim", json!(0), "must be a positive integer, found 0"),
        ("qwen3_next", "full_attention_interval", json!(0), "must be a positive integer, found 0"),
        ("qwen3_next", "partial_rotary_factor", json!(0), "must be a positive number, found 0"),
        ("qwen3_next", "shared_expert_intermediate_size", json!(0), "must be a positive integer, found 0"),
        ("qwen3_next", "layer_types", json!(["full_attention"]), "has 1 entries for 4 layers"),
    ] {
        let error = spec(&changed(name, &json!({field: value}))).unwrap_err().to_string();
        assert!(error.starts_with(&format!("config.json: field `{field}`")), "{name}, {field}: {error}");
        assert!(error.contains(expected), "{name}, {field} = {value}: {error}");
    }
    // A number that is wrong together with another one.
    for (change, expected) in [
        (
            json!({"block_ff_dim": 1}),
            "field `block_ff_dim` gives feed-forward networks an impossible width, 0",
        ),
        (json!({"block_ffn_dim_multiplier": 1e300}), "impossible width, 8388608"),
        (json!({"block_ff_dim": null, "intermediate_size": 1}), "field `intermediate_size` gives"),
    ] {
        let error = spec(&changed("lfm2", &change)).unwrap_err().to_string();
        assert!(error.contains(expected), "{change}: {error}");
    }
    let error = spec(&changed("qwen3_next", &json!({"partial_rotary_factor": 1.5}))).unwrap_err().to_string();
    assert!(error.contains("is 32, but 48 rotated dimensions must be even and within it"), "{error}");
}

/// The largest sizes that the checks let through: nothing overflows, and what the state takes is counted.
#[test]
fn the_largest_sizes_can_be_described() {
    let mamba = json!({
        "num_heads": 1 << 14, "head_dim": 1 << 12, "n_groups": 1 << 14, "state_size": 1 << 12, "conv_kernel": 1 << 10,
        "num_hidden_layers": 10_000, "hidden_size": 1 << 20,
    });
    let layout = spec(&changed("mamba2", &mamba)).unwrap().cache_layout();
    let (width, taps) = (1u64 << 26, (1 << 10) - 1);
    assert_eq!(layout.state_bytes, 4 * 10_000 * (taps * 3 * width + (width << 12)));
    let delta = json!({
        "linear_num_value_heads": 1 << 14, "linear_num_key_heads": 1 << 14, "linear_key_head_dim": 1 << 12,
        "linear_value_head_dim": 1 << 12, "linear_conv_kernel_dim": 1 << 10, "num_hidden_layers": 10_000,
        "hidden_size": 1 << 20, "full_attention_interval": 10_000,
    });
    let layout = spec(&changed("qwen3_next", &delta)).unwrap().cache_layout();
    assert_eq!(layout.state_bytes, 4 * 9_999 * (taps * 3 * width + (width << 12)));
    let short = json!({"conv_L_cache": 1 << 10, "hidden_size": 1 << 20, "block_dim": null, "num_attention_heads": 1 << 14});
    assert_eq!(spec(&changed("lfm2", &short)).unwrap().cache_layout().state_bytes, 4 * 2 * (taps << 20));
}

#[test]
fn layers_are_what_the_configuration_says() {
    let kinds = |name: &str, change: Value| -> String {
        let spec = spec(&changed(name, &change)).unwrap();
        let first = |layer: &pippin_models::LayerSpec| match layer.parts().next().unwrap() {
            Part::Attention(_) => 'a',
            Part::ShortConv(_) => 'c',
            Part::GatedDelta(_) => 'd',
            Part::StateSpace(_) => 's',
            _ => '?',
        };
        spec.layers.iter().map(first).collect()
    };
    assert_eq!(kinds("lfm2", json!({})), "caca");
    assert_eq!(kinds("lfm2", json!({"full_attn_idxs": [0, 3]})), "acca");
    assert_eq!(kinds("lfm2", json!({"full_attn_idxs": []})), "cccc");
    assert_eq!(kinds("mamba2", json!({})), "sss");
    assert_eq!(kinds("qwen3_next", json!({})), "ddad");
    assert_eq!(kinds("qwen3_next", json!({"full_attention_interval": 1})), "aaaa");
    assert_eq!(kinds("qwen3_next", json!({"full_attention_interval": null})), "ddda");
    let types = json!(["full_attention", "linear_attention", "linear_attention", "full_attention"]);
    assert_eq!(kinds("qwen3_next", json!({"layer_types": types})), "adda");
}

#[test]
fn feed_forward_networks_of_lfm2_are_rounded_up() {
    let width = |change: Value| {
        let spec = spec(&changed("lfm2", &change)).unwrap();
        let parts = spec.layers[0].parts();
        parts
            .filter_map(|part| match part {
                Part::Dense(dense) => Some(dense.intermediate_size),
                _ => None,
            })
            .sum::<usize>()
    };
    assert_eq!(width(json!({})), 112);
    assert_eq!(width(json!({"block_auto_adjust_ff_dim": false})), 128);
    assert_eq!(width(json!({"block_ffn_dim_multiplier": null})), 96);
    assert_eq!(width(json!({"block_ff_dim": null, "intermediate_size": 256})), 208);
    // The published model of 1.2 billion weights.
    assert_eq!(
        width(json!({"block_ff_dim": 12_288, "block_multiple_of": 256, "block_ffn_dim_multiplier": 1.0})),
        8192
    );
}

/// Options of published models that no golden file has.
#[test]
fn other_options_run_and_do_not_depend_on_chunks() {
    let infinity = json!({"__float__": "Infinity"});
    let prompt: Vec<u32> = (0..20).map(|i| i * 37 % 96).collect();
    for (name, change) in [
        ("lfm2", json!({"conv_L_cache": 1})),
        ("lfm2", json!({"full_attn_idxs": []})),
        ("mamba2", json!({"time_step_limit": [0.0, infinity], "use_bias": true, "use_conv_bias": false})),
        ("mamba2", json!({"time_step_limit": null, "n_groups": 1, "conv_kernel": 1})),
        ("mamba2", json!({"num_heads": 1, "head_dim": 1, "n_groups": 1, "state_size": 1})),
        ("mamba2", json!({"n_groups": 8, "head_dim": 1})),
        (
            "qwen3_next",
            json!({"linear_num_key_heads": 4, "linear_conv_kernel_dim": 1, "attention_bias": true}),
        ),
        (
            "qwen3_next",
            json!({"linear_num_key_heads": 1, "linear_key_head_dim": 1, "linear_value_head_dim": 1}),
        ),
        ("qwen3_next", json!({"full_attention_interval": 100})),
    ] {
        let mut model = model(&changed(name, &change));
        let whole = logits(&mut *model, &prompt, usize::MAX);
        assert!(whole.iter().all(|logit| logit.is_finite()), "{name}, {change}");
        for chunk in [1, 7] {
            assert!(logits(&mut *model, &prompt, chunk) == whole, "{name}, {change}: chunks of {chunk}");
        }
    }
}

/// Time steps are clamped: beyond both limits they are the limits, whatever the model computes.
#[test]
fn time_steps_are_clamped() {
    let prompt: Vec<u32> = (0..20).map(|i| i * 37 % 96).collect();
    let limited = |least: f64, most: f64| {
        let mut model = model(&changed("mamba2", &json!({"time_step_limit": [least, most]})));
        logits(&mut *model, &prompt, usize::MAX)
    };
    let infinite = json!([0.0, {"__float__": "Infinity"}]);
    let unlimited =
        logits(&mut *model(&changed("mamba2", &json!({"time_step_limit": infinite}))), &prompt, usize::MAX);
    // Limits that nothing reaches change no bit.
    assert!(limited(1e-12, 1e12) == unlimited);
    assert!(limited(0.25, 1.0) != unlimited);
    assert!(limited(0.25, 1.0) != limited(0.0, 1.0));
}

#[test]
fn a_model_without_attention_is_described() {
    let model = model(&base("mamba2"));
    let info = model.info();
    assert_eq!((info.heads, info.kv_heads, info.head_dim), (0, 0, 0));
    assert!(info.cache.groups.is_empty() && info.cache.has_state());
    // Three inputs of the convolution and the heads' states, in three layers.
    assert_eq!(info.cache.state_bytes, 4 * 3 * (3 * 192 + 8 * 16 * 16));
    assert_eq!(info.cache.token_bytes(KvFormat::F32), 0);
    let unlimited = spec(&changed("mamba2", &json!({"max_position_embeddings": null}))).unwrap();
    assert_eq!(unlimited.context_length, 1 << 20);
}
