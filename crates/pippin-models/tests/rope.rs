//! Rotation frequencies and scales against what mlx-lm's rope modules do, as `tools/goldens/rope.py` measured it.

use pippin_models::{Attention, Config, LayerSpec, ModelTypeRegistry, Part, Result, testing};
use pippin_tensor::{RopeFrequencies, RopeSpec};
use serde_json::{Value, json};

/// A tiny llama with some of its fields replaced; `null` removes one.
fn config(changes: &Value) -> Config {
    let mut value = testing::tiny_llama();
    for (field, change) in changes.as_object().unwrap() {
        value[field] = change.clone();
    }
    Config::new(value).unwrap()
}

fn rope(changes: &Value) -> Result<RopeSpec> {
    let config = config(changes);
    let spec = ModelTypeRegistry::find(&config)?.spec(&config)?;
    let rope = attention(&spec.layers[0]).rope.as_deref();
    Ok(rope.expect("llama rotates").clone())
}

/// The attention of a layer that has one.
fn attention(layer: &LayerSpec) -> &Attention {
    let mut parts = layer.parts().filter_map(|part| match part {
        Part::Attention(attention) => Some(attention),
        _ => None,
    });
    parts.next().expect("a layer with attention")
}

fn fixed(spec: &RopeSpec) -> &[f32] {
    match &spec.frequencies {
        RopeFrequencies::Fixed(frequencies) => frequencies,
        other => panic!("{other:?}"),
    }
}

#[test]
fn frequencies_are_those_of_mlx_lm() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("rope.json")).unwrap();
    for case in &cases {
        let name = &case["name"];
        let spec = rope(&case["config"]).unwrap();
        assert_eq!(spec.dims as u64, case["config"]["head_dim"].as_u64().unwrap());
        assert!(
            (f64::from(spec.scale) - case["scale"].as_f64().unwrap()).abs() < 3e-7,
            "{name}: {}",
            spec.scale
        );
        let expected = case["frequencies"].as_array().unwrap();
        assert_eq!(fixed(&spec).len(), expected.len());
        let deviation = |(a, b): (&f32, &Value)| (f64::from(*a) / b.as_f64().unwrap() - 1.0).abs();
        let worst = fixed(&spec).iter().zip(expected).map(deviation).fold(0.0, f64::max);
        println!("{name}: {worst:.1e}");
        assert!(worst < 1e-6, "{name}: frequencies deviate by {worst:e}");
    }
}

#[test]
fn longrope_never_rotates_adjacent_pairs() {
    let scaling = json!({"type": "longrope", "original_max_position_embeddings": 64, "long_factor": 2.0});
    let spec = rope(&json!({"rope_traditional": true, "rope_scaling": scaling})).unwrap();
    assert!(!spec.traditional);
    assert!(rope(&json!({"rope_traditional": true})).unwrap().traditional);
}

#[test]
fn fields_may_be_where_newer_configurations_have_them() {
    let old = rope(&json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}})).unwrap();
    for new in [
        json!({"rope_theta": null, "rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0}}),
        json!({"rope_theta": null, "rope_scaling": {"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0}}),
        json!({"rope_theta": 5e5, "rope_parameters": {"rope_type": "linear", "factor": 4.0}}),
        json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 4.0}}),
    ] {
        assert_eq!(rope(&new).unwrap(), old, "{new}");
    }
    let defaults = rope(&json!({"rope_theta": null})).unwrap();
    assert_eq!(defaults, rope(&json!({"rope_theta": 10000})).unwrap());
}

/// transformers 5: `rope_scaling` unless it is empty, else `rope_parameters`; and what stands inside before what stands beside.
#[test]
fn of_fields_that_contradict_each_other_the_inner_one_counts() {
    let linear = json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}});
    for contradictory in [
        json!({"rope_theta": 1e4, "rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0}}),
        json!({"rope_theta": 1e4, "rope_scaling": {"type": "linear", "rope_theta": 5e5, "factor": 4.0}}),
        json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0},
               "rope_parameters": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}}),
        json!({"rope_theta": 5e5, "rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": "4"}}),
        json!({"rope_theta": "5e5", "rope_scaling": false, "rope_parameters": {"rope_type": "linear", "factor": 4}}),
    ] {
        assert_eq!(rope(&contradictory).unwrap(), rope(&linear).unwrap(), "{contradictory}");
    }
    // Parameters by types of layers, which all have the same.
    let own = json!({"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0});
    for nested in [
        json!({"rope_theta": null, "rope_parameters": {"full_attention": own}}),
        json!({"rope_theta": null, "rope_parameters": {"sliding_attention": own, "full_attention": own}}),
    ] {
        assert_eq!(rope(&nested).unwrap(), rope(&linear).unwrap(), "{nested}");
    }
    let sections = json!({"rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]}});
    assert_eq!(rope(&sections).unwrap(), rope(&json!({})).unwrap());
}

/// transformers 5 writes them so.
#[test]
fn layers_of_gemma_3_may_have_parameters_by_their_type() {
    let spec = |changes: Value| {
        let mut value = json!({"model_type": "gemma3_text"});
        value.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let config = Config::new(value).unwrap();
        ModelTypeRegistry::find(&config).unwrap().spec(&config).unwrap()
    };
    let flat = json!({"rope_theta": 1e6, "rope_local_base_freq": 12000, "rope_scaling": {"type": "linear", "factor": 8}});
    let nested = json!({"rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000},
        "sliding_attention": {"rope_type": "default", "rope_theta": 12000},
    }});
    assert_eq!(spec(flat), spec(nested));
    assert_eq!(
        spec(json!({})),
        spec(json!({"rope_parameters": {"full_attention": {}, "sliding_attention": null}}))
    );
}

#[test]
fn scaling_stretches_the_context() {
    for (changes, expected) in [
        (json!({}), 2048),
        // The recipe of Qwen's model cards: the field says what the model was trained with.
        (
            json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}}),
            8192,
        ),
        (
            json!({"rope_parameters": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 2048}}),
            8192,
        ),
        (
            json!({"rope_scaling": {"type": "yarn", "factor": 0.5, "original_max_position_embeddings": 2048}}),
            2048,
        ),
        (json!({"rope_scaling": {"type": "yarn", "factor": 40.0}}), 2048),
        (json!({"rope_scaling": {"type": "linear", "factor": 4.0}}), 8192),
        (json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}), 4096),
        // These have the field say what comes out.
        (
            json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 512}}),
            2048,
        ),
        (json!({"rope_scaling": {"type": "default", "factor": 8.0}}), 2048),
    ] {
        let mut all = json!({"max_position_embeddings": 2048});
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let config = config(&all);
        let spec = ModelTypeRegistry::find(&config).unwrap().spec(&config).unwrap();
        assert_eq!(spec.context_length, expected, "{changes}");
    }
}

#[test]
fn dynamic_scaling_is_left_to_the_backend() {
    let spec = rope(&json!({"rope_scaling": {"type": "dynamic", "factor": 2.5}})).unwrap();
    let expected = RopeFrequencies::Dynamic { base: 10000.0, factor: 2.5, original_context: 256 };
    assert_eq!(spec.frequencies, expected);
}

#[test]
fn layers_share_one_table() {
    let config = config(&json!({}));
    let spec = ModelTypeRegistry::find(&config).unwrap().spec(&config).unwrap();
    let ropes: Vec<_> = spec.layers.iter().filter_map(|layer| attention(layer).rope.as_ref()).collect();
    assert!(std::sync::Arc::ptr_eq(ropes[0], ropes[1]));
}

#[test]
fn bad_values_are_named() {
    for (changes, expected) in [
        (
            json!({"rope_scaling": {"type": "ntk"}}),
            "`rope_scaling.type`: \"ntk\" is not supported; supported: default, linear",
        ),
        (
            json!({"rope_parameters": {"rope_type": "x"}}),
            "`rope_parameters.rope_type`: \"x\" is not supported",
        ),
        (
            json!({"rope_scaling": {"type": "linear"}}),
            "`rope_scaling.factor` is missing; it must be a positive number",
        ),
        (
            json!({"rope_scaling": {"type": "linear", "factor": 0}}),
            "`rope_scaling.factor` must be a positive number, found 0",
        ),
        (
            json!({"rope_scaling": {"type": "linear", "factor": "two"}}),
            "`rope_scaling.factor` must be a positive number",
        ),
        (
            json!({"rope_scaling": {"type": "linear", "factor": 1e-300}}),
            "`rope_scaling` gives the frequency inf",
        ),
        (
            json!({"rope_scaling": {"type": "dynamic", "factor": {"__float__": "Infinity"}}}),
            "`rope_scaling.factor` must be a positive number, found inf",
        ),
        (
            json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": null}),
            "`max_position_embeddings` is missing",
        ),
        (
            json!({"rope_scaling": {"type": "longrope", "original_max_position_embeddings": 64,
                "long_factor": [1, 1, 1, {"__float__": "NaN"}, 1, 1, 1, 1]}}),
            "`rope_scaling.long_factor` must be a list of positive numbers, found a list",
        ),
        (
            json!({"rope_scaling": {"type": "longrope", "original_max_position_embeddings": 64, "long_factor": [1, 2]}}),
            "`rope_scaling.long_factor` must have 8 numbers, one per rotated pair, found 2",
        ),
        (
            json!({"rope_scaling": {"type": "longrope", "long_factor": 1}}),
            "`rope_scaling.original_max_position_embeddings` is missing",
        ),
        (
            json!({"rope_scaling": {"type": "longrope", "original_max_position_embeddings": 1, "long_factor": 1}}),
            "`rope_scaling` must be a positive number, found inf",
        ),
        (
            json!({"rope_scaling": {"type": "yarn", "factor": 2}, "rope_theta": 1}),
            "`rope_scaling` gives the frequency NaN",
        ),
        (json!({"rope_scaling": 7}), "`rope_scaling` must be an object, found 7"),
        (json!({"rope_theta": 1e300}), "`rope_theta` must be a number in the range of f32"),
        (json!({"rope_theta": -1}), "`rope_theta` must be a positive number, found -1"),
        (
            json!({"rope_parameters": {"full_attention": {"rope_theta": 1e4}, "sliding_attention": {"rope_theta": 1e5}}}),
            "`rope_parameters.sliding_attention` is not supported",
        ),
        (json!({"head_dim": 15}), "`head_dim` must be an even number"),
        (json!({"head_dim": 1u64 << 40}), "`head_dim` must be an even number"),
    ] {
        let error = rope(&changes).expect_err(&changes.to_string());
        assert!(error.to_string().contains(expected), "{changes}: {error}");
        assert!(error.to_string().starts_with("config.json: field `"), "{error}");
        assert!(error.hint().is_some());
    }
}
