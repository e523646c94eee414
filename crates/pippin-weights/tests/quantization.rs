//! The quantization section of `config.json`, and quantization of bad values.

use pippin_weights::minifloat::{E2M1_VALUES, E4M3_VALUES, E8M0_VALUES};
use pippin_weights::{
    Checkpoint, Dtype, Lookup, MatrixData, QuantMode, QuantSpec, QuantizationConfig, QuantizedData,
    TensorData, WeightsError, quantize_affine, quantize_minifloat,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const MINIFLOAT: [QuantMode; 3] = [QuantMode::Mxfp4, QuantMode::Mxfp8, QuantMode::Nvfp4];

fn read(config: Value) -> Result<QuantizationConfig, WeightsError> {
    QuantizationConfig::from_config(&config, "dir/config.json")
}

#[track_caller]
fn assert_refused(config: Value, parts: &[&str]) {
    let error = read(config).expect_err("the configuration was accepted");
    assert!(error.hint().is_some(), "no hint for: {error}");
    let message = error.to_string();
    for part in ["dir/config.json"].iter().chain(parts) {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

#[test]
fn sections_are_found_in_order() {
    let section = |bits: u32| json!({"bits": bits, "group_size": 64});
    let bits = |config: Value| read(config).unwrap().default.map(|spec| spec.bits);
    assert_eq!(bits(json!({})), None);
    assert_eq!(bits(json!({"quantization": null, "quantization_config": false, "text_config": {}})), None);
    assert_eq!(bits(json!({"quantization_config": {}, "text_config": null})), None);
    assert_eq!(bits(json!({"quantization_config": section(3)})), Some(3));
    assert_eq!(bits(json!({"quantization_config": section(3), "quantization": section(2)})), Some(2));
    assert_eq!(bits(json!({"text_config": {"quantization_config": section(5)}})), Some(5));
    assert_eq!(
        bits(json!({"text_config": {"quantization": section(5)}, "quantization_config": section(3)})),
        Some(3)
    );
    // What MLX writes wins over what the unquantized original said.
    let gptq = json!({"quant_method": "gptq", "bits": 4, "group_size": 128});
    assert_eq!(bits(json!({"quantization": section(2), "quantization_config": gptq})), Some(2));
}

#[test]
fn overrides_are_read() {
    let config = read(json!({"quantization": {
        "group_size": 64, "bits": 4, "mode": "affine", "desc_act": "no", "modules_to_not_convert": ["x"],
        "model.layers.0.mlp.down_proj": {"group_size": 32, "bits": 6},
        "model.layers.1.mlp.down_proj": {"bits": 8},
        "model.embed_tokens": true,
        "lm_head": false,
        "expert": {"mode": "mxfp4"},
        "gate": {"mode": "nvfp4", "bits": 4, "group_size": 16},
    }}))
    .unwrap();
    assert_eq!(config.default, Some(QuantSpec::affine(4, 64)));
    assert_eq!(config.overrides().count(), 6);
    let lookup = |path: &str| config.lookup(path);
    assert_eq!(lookup("model.layers.0.mlp.down_proj"), Lookup::Quantized(QuantSpec::affine(6, 32)));
    assert_eq!(lookup("model.layers.1.mlp.down_proj"), Lookup::Quantized(QuantSpec::affine(8, 64)));
    assert_eq!(lookup("model.embed_tokens"), Lookup::Quantized(QuantSpec::affine(4, 64)));
    assert_eq!(lookup("lm_head"), Lookup::Dense);
    assert_eq!(lookup("expert"), Lookup::Quantized(QuantMode::Mxfp4.default_spec()));
    assert_eq!(lookup("gate"), Lookup::Quantized(QuantMode::Nvfp4.default_spec()));
    for unlisted in ["bits", "mode", "desc_act", "modules_to_not_convert", "other", ""] {
        assert_eq!(lookup(unlisted), Lookup::Infer, "{unlisted}");
    }
    let config = config.with_override("lm_head", Lookup::Infer).with_override("other", Lookup::Dense);
    assert_eq!((config.lookup("lm_head"), config.lookup("other")), (Lookup::Infer, Lookup::Dense));
}

/// What MLX does: an entry's settings stand for themselves, and what they leave out has its mode's default, not the model's
/// own. mlx-lm writes such entries for RWKV 7.
#[test]
fn overrides_do_not_inherit_from_the_section() {
    let config = read(json!({"quantization": {
        "group_size": 32, "bits": 3,
        "model.embeddings": {"bits": 8},
        "model.layers.0.attn.r_proj": {"group_size": 128},
        "lm_head": {},
    }}))
    .unwrap();
    assert_eq!(config.default, Some(QuantSpec::affine(3, 32)));
    assert_eq!(config.lookup("model.embeddings"), Lookup::Quantized(QuantSpec::affine(8, 64)));
    assert_eq!(config.lookup("model.layers.0.attn.r_proj"), Lookup::Quantized(QuantSpec::affine(4, 128)));
    assert_eq!(config.lookup("lm_head"), Lookup::Quantized(QuantSpec::affine(4, 64)));
    let config = read(json!({"quantization": {"mode": "mxfp4", "gate": {"bits": 8}}})).unwrap();
    assert_eq!(config.lookup("gate"), Lookup::Quantized(QuantSpec::affine(8, 64)));
}

#[test]
fn other_methods_are_named() {
    for method in
        ["gptq", "awq", "fp8", "bitnet", "compressed-tensors", "modelopt", "bitsandbytes", "\u{1b}x"]
    {
        for section in
            [json!({"quant_method": method}), json!({"quant_method": method, "bits": 4, "group_size": 64})]
        {
            // A conversion to bf16 often keeps the section of its source.
            let config = read(json!({"quantization_config": section})).unwrap();
            let dense = Checkpoint::from_tensors(vec![
                TensorData::from_f32("a.weight", &[2, 32], &[0.5; 64]).unwrap(),
            ]);
            assert!(matches!(dense.matrix("a", 2, 32, &config), Ok(MatrixData::Dense(_))));
            // As GPTQ, AWQ, and those that pack bytes have it.
            for name in ["a.qweight", "a.weight_packed", "a.weight"] {
                let bytes = TensorData::new(name, Dtype::U8, &[2, 16], vec![0; 32]).unwrap();
                let packed = Checkpoint::from_tensors(vec![bytes]);
                let error = packed.matrix("a", 2, 32, &config).unwrap_err().to_string();
                let shown = method.escape_debug().to_string();
                for part in ["`quantization_config.quant_method`", "unsupported quantization method", &shown]
                {
                    assert!(error.contains(part), "{error}");
                }
            }
        }
    }
    let mxfp4 = read(json!({"quantization_config": {"quant_method": "mxfp4"}})).unwrap();
    assert_eq!(mxfp4.default, Some(QuantMode::Mxfp4.default_spec()));
}

/// MLX infers what is not listed from the tensors, so a section that does not say the default takes nothing away.
#[test]
fn sections_that_do_not_say_the_default() {
    for section in [
        json!({}),
        json!({"bits": 4}),
        json!({"bits": null, "group_size": 64}),
        json!({"bits": null, "group_size": null, "mode": null}),
        json!({"group_size": "64", "a": true}),
    ] {
        let config = read(json!({"quantization": section})).unwrap();
        assert_eq!((config.default, config.lookup("a")), (None, Lookup::Infer), "{section}");
    }
    let spoken =
        read(json!({"quantization": {"bits": null, "group_size": 64, "a": {"bits": "8"}, "b": false}}))
            .unwrap();
    assert_eq!(spoken.lookup("a"), Lookup::Quantized(QuantSpec::affine(8, 64)));
    assert_eq!(spoken.lookup("b"), Lookup::Dense);
    // Numbers of a neighbouring type are numbers.
    let config = read(json!({"quantization": {"bits": 4.0, "group_size": "64"}})).unwrap();
    assert_eq!(config.default, Some(QuantSpec::affine(4, 64)));
}

#[test]
fn quantized_activations_are_refused_by_name() {
    let section = |value: Value| json!({"quantization": {"mode": "nvfp4", "bits": 4, "group_size": 16, "a.b": {"mode": "nvfp4", "quantize_input": value}}});
    assert_refused(
        section(json!(true)),
        &["`quantization.a.b.quantize_input`", "activations are not supported"],
    );
    assert!(read(section(json!(false))).is_ok() && read(section(json!(null))).is_ok());
}

#[test]
fn weights_that_are_quantized_in_use_are_refused_by_name() {
    let section =
        |mode: &str| json!({"quantization_config": {"quant_method": "bitnet", "quantization_mode": mode}});
    assert_refused(
        section("online"),
        &["`quantization_config.quantization_mode`", "quantized while they are used"],
    );
    assert!(read(section("offline")).is_ok());
    // Where a converter has written a section of its own, that counts.
    let mut converted = section("online");
    converted["quantization"] = json!({"bits": 4, "group_size": 64});
    assert!(read(converted).is_ok());
}

#[test]
fn malformed_sections() {
    let section = |section: Value| json!({"quantization": section});
    assert_refused(section(json!(4)), &["`quantization`", "must be an object"]);
    // No matrix is read by the default, as in MLX: numbers that cannot be are a warning.
    for (default, parts) in [
        (json!({"bits": -4, "group_size": 64}), ["`quantization.bits`", "unsigned"]),
        (json!({"bits": 4.5, "group_size": 64}), ["`quantization.bits`", "unsigned"]),
        (json!({"bits": 4, "group_size": 1u64 << 40}), ["`quantization.group_size`", "unsigned"]),
        (
            json!({"bits": 1, "group_size": 64}),
            ["`quantization.bits`", "unsupported quantization: 1-bit affine, group 64"],
        ),
        (json!({"bits": 4, "group_size": 0}), ["`quantization.group_size`", "group 0"]),
        // nvfp4 without its mode.
        (json!({"bits": 4, "group_size": 16}), ["`quantization.group_size`", "group 16"]),
        (json!({"bits": 4, "group_size": 64, "mode": "int4"}), ["`quantization.mode`", "mxfp8"]),
        (json!({"bits": 4, "group_size": 64, "mode": 4}), ["`quantization.mode`", "string"]),
    ] {
        let config = read(section(default.clone())).unwrap();
        assert_eq!((config.default, config.lookup("a")), (None, Lookup::Infer), "{default}");
        assert!(
            parts.iter().all(|part| config.warnings()[0].contains(part)),
            "{default}: {:?}",
            config.warnings()
        );
    }
    let own = read(section(json!({"bits": 4, "group_size": 64, "quant_method": "gptq"}))).unwrap();
    assert_eq!(own.default, Some(QuantSpec::affine(4, 64)));
    assert_refused(json!({"quantization_config": {"quant_method": 4}}), &["must be a string"]);
    assert_refused(
        section(json!({"bits": 4, "group_size": 64, "a.b": {"bits": 7}})),
        &["`quantization.a.b.bits`", "7-bit affine"],
    );
    assert_refused(
        json!({"text_config": {"quantization": {"a.b": {"bits": 4, "group_size": 3}}}}),
        &["`text_config.quantization.a.b.group_size`", "group 3"],
    );
}

/// The modes other than affine have one number of bits and one group size.
#[test]
fn modes_that_contradict_bits_or_group_size() {
    for (mode, bits, group_size, field) in [
        ("mxfp4", 8, 32, "bits"),
        ("mxfp4", 4, 64, "group_size"),
        ("mxfp4", 4, 16, "group_size"),
        ("mxfp8", 4, 32, "bits"),
        ("mxfp8", 8, 64, "group_size"),
        ("nvfp4", 4, 32, "group_size"),
        ("nvfp4", 8, 16, "bits"),
    ] {
        let spec = json!({"mode": mode, "bits": bits, "group_size": group_size});
        let message = format!("unsupported quantization: {bits}-bit {mode}, group {group_size}");
        let config = read(json!({"quantization": spec})).unwrap();
        let warning = &config.warnings()[0];
        assert!(
            warning.contains(&format!("`quantization.{field}`")) && warning.contains(&message),
            "{warning}"
        );
        assert_refused(
            json!({"quantization": {"bits": 4, "group_size": 64, "model.layers.0.mlp.up_proj": spec}}),
            &[&format!("`quantization.model.layers.0.mlp.up_proj.{field}`"), &message],
        );
    }
}

#[test]
fn global_scales_are_those_of_experts_in_nvfp4() {
    let expert = |mode: &str, global_scale: Value| {
        let entry = json!({"mode": mode, "bits": 4, "group_size": 16, "global_scale": global_scale});
        json!({"quantization": {"mode": "nvfp4", "bits": 4, "group_size": 16, "experts.up_proj": entry}})
    };
    for (global_scale, expected) in [(json!(false), false), (Value::Null, false), (json!(true), true)] {
        let config = read(expert("nvfp4", global_scale)).unwrap();
        assert_eq!(config.has_global_scale("experts.up_proj"), expected);
        assert!(!config.has_global_scale("experts.down_proj"));
    }
    let message = ["`quantization.experts.up_proj.global_scale`", "only the mode nvfp4"];
    assert_refused(expert("affine", json!(true)), &message);
}

#[test]
fn specs() {
    for (mode, bits, group_size, valid) in [
        (QuantMode::Affine, 4, 64, true),
        (QuantMode::Affine, 7, 64, false),
        (QuantMode::Affine, 1, 64, false),
        (QuantMode::Affine, 32, 64, false),
        (QuantMode::Affine, 4, 16, true),
        (QuantMode::Affine, 4, 8, false),
        (QuantMode::Mxfp4, 4, 32, true),
        (QuantMode::Mxfp4, 4, 64, false),
        (QuantMode::Mxfp8, 8, 32, true),
        (QuantMode::Nvfp4, 4, 16, true),
        (QuantMode::Nvfp4, 8, 16, false),
    ] {
        assert_eq!(
            QuantSpec { mode, bits, group_size }.validate().is_ok(),
            valid,
            "{mode} {bits} {group_size}"
        );
    }
    // Groups of 16 are read, of GGUF files, and not written.
    let small = QuantSpec::affine(4, 16);
    assert!(!small.is_of_mlx() && QuantSpec::affine(4, 32).is_of_mlx());
    let error = quantize_affine(&[0.0; 32], 1, 32, small, Dtype::F32).unwrap_err();
    assert!(error.to_string().contains("MLX has no such groups"), "{error}");
    assert!(
        small.divides(48) && QuantSpec::affine(3, 16).divides(64) && !QuantSpec::affine(3, 16).divides(48)
    );
    let spec = QuantSpec::affine(4, 64);
    assert_eq!(spec.to_string(), "4-bit affine, group 64");
    assert_eq!(serde_json::to_value(spec).unwrap(), json!({"mode": "affine", "bits": 4, "group_size": 64}));
    assert_eq!(serde_json::from_value::<QuantMode>(json!("nvfp4")).unwrap(), QuantMode::Nvfp4);
    assert_eq!(QuantSpec::affine(3, 32).packed_words(128), 12);
    assert_eq!(QuantMode::Nvfp4.default_spec().packed_words(16), 2);
    assert!((spec.bits_per_weight(Dtype::Bf16) - 4.5).abs() < 1e-9);
    assert!((QuantMode::Mxfp4.default_spec().bits_per_weight(Dtype::U8) - 4.25).abs() < 1e-9);
}

#[test]
fn values_that_cannot_be_quantized() {
    let spec = QuantSpec::affine(4, 32);
    let mut values = vec![0.5; 64];
    values[40] = f32::NAN;
    let error = quantize_affine(&values, 2, 32, spec, Dtype::F32).unwrap_err();
    assert_eq!(error.to_string(), "cannot quantize row 1, column 8: NaN is not finite as F32");
    values[40] = 70_000.0;
    assert!(quantize_affine(&values, 2, 32, spec, Dtype::Bf16).is_ok());
    assert!(matches!(quantize_affine(&values, 2, 32, spec, Dtype::F16), Err(WeightsError::Values { .. })));
    values[40] = f32::MAX;
    values[41] = f32::MIN;
    let error = quantize_affine(&values, 2, 32, spec, Dtype::F32).unwrap_err();
    assert!(error.to_string().contains("range of the group"), "{error}");

    assert!(matches!(quantize_affine(&values, 2, 31, spec, Dtype::F32), Err(WeightsError::Size { .. })));
    assert!(matches!(quantize_affine(&values, 4, 16, spec, Dtype::F32), Err(WeightsError::Quantized { .. })));
    assert!(matches!(quantize_affine(&values, 2, 32, spec, Dtype::U8), Err(WeightsError::WrongDtype { .. })));
    let mxfp4 = QuantMode::Mxfp4.default_spec();
    assert!(matches!(quantize_affine(&values, 2, 32, mxfp4, Dtype::F32), Err(WeightsError::Spec { .. })));
    let empty = quantize_affine(&[], 0, 32, spec, Dtype::F32).unwrap();
    assert!(empty.dequantize().unwrap().is_empty());
    let wide = quantize_affine(&[], 0, 1 << 16, spec, Dtype::F32).unwrap();
    assert!(wide.dequantize().unwrap().is_empty() && wide.dequantize_as_stored("w").is_ok());
    // Nobody would come to the end of such a row.
    assert!(matches!(quantize_affine(&[], 0, 1 << 50, spec, Dtype::F32), Err(WeightsError::Size { .. })));
    let empty = quantize_affine(&[], 3, 0, spec, Dtype::F32).unwrap();
    assert!(empty.dequantize().unwrap().is_empty());
}

#[test]
fn values_that_cannot_be_minifloats() {
    let mut values = vec![0.5; 64];
    let quantize =
        |values: &[f32], rows, cols, mode, dtype| quantize_minifloat(values, rows, cols, mode, dtype);
    for mode in MINIFLOAT {
        assert!(quantize(&values, 2, 32, mode, Dtype::F16).is_ok(), "{mode}");
        let size = quantize(&values, 2, 31, mode, Dtype::F32);
        assert!(matches!(size, Err(WeightsError::Size { .. })), "{mode}");
        let groups = quantize(&values, 8, 8, mode, Dtype::F32);
        assert!(matches!(groups, Err(WeightsError::Quantized { .. })), "{mode}");
        let dtype = quantize(&values, 2, 32, mode, Dtype::U8);
        assert!(matches!(dtype, Err(WeightsError::WrongDtype { .. })), "{mode}");
        let empty = quantize(&[], 0, 1 << 16, mode, Dtype::F32).unwrap();
        assert!(empty.dequantize().unwrap().is_empty() && empty.dequantize_as_stored("w").is_ok());
        assert!(quantize(&[], 3, 0, mode, Dtype::F32).unwrap().dequantize().unwrap().is_empty());
    }
    let affine = quantize(&values, 2, 32, QuantMode::Affine, Dtype::F32);
    assert!(matches!(affine, Err(WeightsError::Spec { .. })));
    values[40] = -70_000.0;
    assert!(quantize(&values, 2, 32, QuantMode::Mxfp4, Dtype::Bf16).is_ok());
    let error = quantize(&values, 2, 32, QuantMode::Mxfp4, Dtype::F16).unwrap_err();
    assert_eq!(error.to_string(), "cannot quantize row 1, column 8: -70000 is not finite as F16");
    values[40] = f32::NAN;
    assert!(quantize(&values, 2, 32, QuantMode::Nvfp4, Dtype::F32).is_err());
}

/// A group's extremes survive whatever f32 the scale has to be, down to the smallest scale.
#[test]
fn the_largest_weight_of_a_group_does_not_saturate() {
    // 2^127 itself may be rounded to infinity, as in MLX.
    for exponent in -124..127 {
        let largest = 2f32.powi(exponent);
        for largest in [largest, 1.5 * largest, 1.875 * largest] {
            let mut values = [0.0; 32];
            values[7] = -largest;
            for (mode, error) in [(QuantMode::Mxfp4, 1.0 / 6.0), (QuantMode::Mxfp8, 1.0 / 16.0)] {
                let matrix = quantize_minifloat(&values, 1, 32, mode, Dtype::F32).unwrap();
                let restored = matrix.dequantize().unwrap();
                assert!(
                    (restored[7] + largest).abs() <= error * largest,
                    "{mode} {largest:e} {:e}",
                    restored[7]
                );
                assert!(restored.iter().enumerate().all(|(index, value)| index == 7 || *value == 0.0));
            }
        }
    }
}

#[test]
fn rows_are_checked() {
    let matrix = quantize_affine(&[0.0; 64], 2, 32, QuantSpec::affine(4, 32), Dtype::F32).unwrap();
    assert!(matches!(matrix.dequantize_row(2, &mut [0.0; 32]), Err(WeightsError::View { .. })));
    assert!(matches!(matrix.dequantize_row(0, &mut [0.0; 31]), Err(WeightsError::View { .. })));
}

#[test]
fn three_bit_elements_cross_words() {
    // Element i is i modulo 8: the bit stream is that of the numbers 0 to 7 in three bits each, four times.
    let stream: u128 = (0..32).fold(0, |stream, index| stream | (index % 8) << (3 * index));
    let words = [stream as u32, (stream >> 32) as u32, (stream >> 64) as u32];
    let matrix = QuantizedData::new(
        QuantSpec::affine(3, 32),
        1,
        32,
        TensorData::from_u32("weight", &[1, 3], &words).unwrap(),
        TensorData::from_f32("scales", &[1, 1], &[2.0]).unwrap(),
        Some(TensorData::from_f32("biases", &[1, 1], &[-1.0]).unwrap()),
    )
    .unwrap();
    let expected: Vec<f32> = (0..32).map(|index| 2.0 * (index % 8) as f32 - 1.0).collect();
    assert_eq!(matrix.dequantize().unwrap(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// No weight moves by more than half a step (plus the slack of the rule that puts an end of the range on
    /// the grid).
    #[test]
    fn quantization_is_close(
        values in prop::collection::vec(-10.0f32..10.0, 128),
        bits in prop::sample::select(vec![2u32, 3, 4, 5, 6, 8]),
        group_size in prop::sample::select(vec![32usize, 64, 128]),
    ) {
        let spec = QuantSpec::affine(bits, group_size);
        let matrix = quantize_affine(&values, 1, 128, spec, Dtype::F32).unwrap();
        let scales = matrix.scales.to_f32().unwrap();
        let restored = matrix.dequantize().unwrap();
        for (index, (value, restored)) in values.iter().zip(&restored).enumerate() {
            let step = scales[index / group_size].abs();
            prop_assert!((value - restored).abs() <= 1.01 * step, "{index}: {value} {restored} {step}");
        }
    }

    /// No weight moves by more than its own rounding: of elements for the MX modes, and of the scale for nvfp4.
    #[test]
    fn minifloats_are_close(values in prop::collection::vec(-10.0f32..10.0, 128), magnitude in -12i32..6) {
        let values: Vec<f32> = values.iter().map(|value| value * 2f32.powi(magnitude)).collect();
        for mode in MINIFLOAT {
            let matrix = quantize_minifloat(&values, 1, 128, mode, Dtype::F32).unwrap();
            let restored = matrix.dequantize().unwrap();
            let group_size = matrix.spec.group_size;
            for (group, restored) in values.chunks(group_size).zip(restored.chunks(group_size)) {
                let largest = group.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                for (value, restored) in group.iter().zip(restored) {
                    // E4M3 has 4 significant bits and E2M1 has 2, above the smallest normal number. An MX
                    // scale is up to twice the largest weight by the largest element; an nvfp4 scale is
                    // rounded, to a multiple of 2^-9 at the finest.
                    let coarse = (value.abs() / 4.0).max(largest / 12.0);
                    let tolerance = match mode {
                        QuantMode::Mxfp8 => (value.abs() / 16.0).max(largest / 2f32.powi(17)),
                        QuantMode::Nvfp4 => 1.07 * coarse + 6.0 / 1024.0,
                        _ => coarse,
                    };
                    prop_assert!((value - restored).abs() <= tolerance, "{mode}: {value} {restored} of {largest}");
                }
            }
        }
    }

    /// What has been quantized once does not change when it is quantized again.
    #[test]
    fn minifloats_stay_what_they_are(
        values in prop::collection::vec(-10.0f32..10.0, 64),
        dtype in prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::Bf16]),
    ) {
        for mode in MINIFLOAT {
            let once = quantize_minifloat(&values, 2, 32, mode, dtype).unwrap().dequantize().unwrap();
            let twice = quantize_minifloat(&once, 2, 32, mode, dtype).unwrap().dequantize().unwrap();
            prop_assert_eq!(once, twice, "{} {}", mode, dtype);
        }
    }

    /// Any bytes are weights: each is element times scale, and the stored form is that in bf16.
    #[test]
    fn any_bytes_are_minifloats(packed in prop::collection::vec(any::<u8>(), 64), scales in prop::collection::vec(any::<u8>(), 8)) {
        for mode in MINIFLOAT {
            let spec = mode.default_spec();
            let cols = 64 * 8 / spec.bits as usize / 2;
            let groups = cols / spec.group_size;
            let matrix = QuantizedData::new(
                spec,
                2,
                cols,
                TensorData::new("weight", Dtype::U32, &[2, 8], packed.clone()).unwrap(),
                TensorData::new("scales", Dtype::U8, &[2, groups], scales[..2 * groups].to_vec()).unwrap(),
                None,
            )
            .unwrap();
            let values = matrix.dequantize().unwrap();
            for (index, &value) in values.iter().enumerate() {
                let scale = usize::from(scales[index / spec.group_size]);
                let expected = match mode {
                    QuantMode::Mxfp8 => E4M3_VALUES[usize::from(packed[index])] * E8M0_VALUES[scale],
                    _ => {
                        let element = E2M1_VALUES[usize::from(packed[index / 2] >> (index % 2 * 4) & 15)];
                        element * if mode == QuantMode::Nvfp4 { E4M3_VALUES[scale] } else { E8M0_VALUES[scale] }
                    }
                };
                prop_assert!(value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan());
            }
            let expected = TensorData::from_f32_as("w", Dtype::Bf16, &[2, cols], &values).unwrap();
            prop_assert!(matrix.dequantize_as_stored("w").unwrap().bytes() == expected.bytes());
        }
    }

    #[test]
    fn any_section_never_panics(
        bits in prop_oneof![Just(json!(4)), any::<i64>().prop_map(|value| json!(value)), Just(json!("4")), Just(Value::Null)],
        group_size in prop_oneof![Just(json!(64)), any::<f64>().prop_map(|value| json!(value)), Just(json!([]))],
        mode in prop_oneof![Just(json!("affine")), Just(json!("mxfp4")), any::<String>().prop_map(|value| json!(value)), Just(json!({}))],
        path in any::<String>(),
    ) {
        let entry = json!({"bits": bits, "group_size": group_size, "mode": mode, "global_scale": path});
        let _ = read(json!({"quantization": entry}));
        let _ = read(json!({"quantization": {"bits": 4, "group_size": 64, path: entry}}));
    }
}
