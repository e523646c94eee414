//! Configurations of every family, with values changed at random: reading one ends in a checked description or an error,
//! and a model that loads can run.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use pippin_cpu::CpuBackend;
use pippin_models::{CachePlan, Config, load_from, testing};
use pippin_tensor::{Batch, Dtype, Input, KvFormat, LogitRows, Numerics, SequenceRows, Want};
use pippin_weights::Checkpoint;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Every model that there is a golden file for: its configuration and its checkpoint.
static MODELS: LazyLock<Vec<(Value, Checkpoint)>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let model = |path: &std::path::PathBuf| {
        let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let config = Config::new(golden["config"].clone()).unwrap();
        let checkpoint = testing::checkpoint(&config, Dtype::F32, 0).unwrap();
        (config.value().clone(), checkpoint)
    };
    files.iter().map(model).collect()
});

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

/// Changes a field of a configuration, or of its text configuration; a field beyond those that it has is one that other
/// configurations have.
fn change(config: &mut Value, field: usize, value: Value) {
    const OTHERS: [&str; 12] = [
        "rope_scaling",
        "rope_parameters",
        "layer_types",
        "sliding_window",
        "quantization",
        "quantization_config",
        "text_config",
        "hidden_act",
        "head_dim",
        "attention_bias",
        "use_sliding_window",
        "max_window_layers",
    ];
    let fields: Vec<String> = config.as_object().into_iter().flat_map(Map::keys).cloned().collect();
    match fields.get(field % (fields.len() + OTHERS.len())) {
        Some(name) if name == "text_config" && !field.is_multiple_of(3) && config[name].is_object() => {
            change(&mut config["text_config"], field / 3, value);
        }
        Some(name) => config[name] = value,
        None => config[OTHERS[field % OTHERS.len()]] = value,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_configurations_never_panic(
        model in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<u16>(), odd_value()), 1..4),
    ) {
        let (config, checkpoint) = model.get(&MODELS);
        let mut config = config.clone();
        for (field, value) in changes {
            change(&mut config, usize::from(field), value);
        }
        let cpu = Arc::new(CpuBackend::new(Numerics::Exact));
        if let Ok(config) = Config::new(config)
            && let Ok(mut model) = load_from(&config, checkpoint, cpu)
        {
            let groups = model.info().cache.groups.len();
            let plan = CachePlan { page_size: 8, format: KvFormat::F32, pages: vec![1; groups], slots: 1 };
            model.allocate(&plan).unwrap();
            let mut batch = Batch::new(model.limits());
            let pages = vec![&[0][..]; groups];
            let want = Want::Logits(LogitRows::Last);
            batch.push(SequenceRows::text(0, Input::Tokens(&[1, 2, 3]), 0, &pages, want)).unwrap();
            let step = model.submit(batch).unwrap();
            model.finish(step.id).unwrap();
        }
    }
}
