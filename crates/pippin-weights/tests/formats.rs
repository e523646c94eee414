//! Weights that other tools have quantized: in MLX's layout they are what mlx-lm makes of them, bit for bit, and what is wrong
//! with them is said. The fixture comes from `tools/quantization/make_formats.py`.

use std::path::Path;

use pippin_weights::{Checkpoint, Dtype, MatrixData, QuantizationConfig, TensorData, WeightsError};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The tensors of a case of the fixture: those that go in, and those that come out.
fn case(name: &str) -> [Vec<TensorData>; 2] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats.safetensors");
    let all = Checkpoint::open_file(&path).unwrap();
    ["in", "out"].map(|side| {
        let prefix = format!("{name}/{side}/");
        let own = all.tensors().filter_map(|tensor| Some((tensor, tensor.name().strip_prefix(&prefix)?)));
        own.map(|(tensor, name)| match tensor.dtype() {
            // MLX has no type for E4M3.
            Dtype::U8 if side == "in" && !name.ends_with("scale") && !prefix.starts_with("bitnet") => {
                TensorData::new(name, Dtype::F8E4m3, tensor.shape(), tensor.bytes().to_vec()).unwrap()
            }
            _ => tensor.renamed(name),
        })
        .collect()
    })
}

fn section(section: Value) -> Value {
    json!({"model_type": "llama", "quantization_config": section})
}

#[test]
fn weights_of_other_tools_are_what_mlx_lm_makes_of_them() {
    for (name, config) in [
        ("awq", json!({"quant_method": "awq", "bits": 4, "group_size": 32})),
        ("awq-symmetric", json!({"quant_method": "awq", "w_bit": 4})),
        ("gptq", json!({"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": false})),
        ("gptq-v2", json!({"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"})),
        ("gptq-8", json!({"quant_method": "gptq", "bits": "8"})),
        ("gptq-2-wide", json!({"quant_method": "gptq", "bits": 2, "sym": true})),
        ("compressed", json!({"quant_method": "compressed-tensors", "format": "pack-quantized"})),
        ("fp8", json!({"quant_method": "fp8", "weight_block_size": [128, 128]})),
        ("fp8-bf16", json!({"quant_method": "fp8"})),
        ("fp8-whole", json!({"quant_method": "fp8"})),
        ("fp8-stack", json!({"quant_method": "fp8"})),
        ("bitnet", json!({"quant_method": "bitnet", "linear_class": "autobitlinear"})),
        ("bitnet-divided", json!({"quant_method": "bitnet", "modules_to_not_convert": null})),
        ("mxfp8", json!({"quant_method": "fp8", "scale_fmt": "ue8m0", "weight_block_size": [32, 32]})),
    ] {
        let [given, expected] = case(name);
        assert!(!given.is_empty() && !expected.is_empty(), "{name}");
        let config = section(config);
        let unpacked = Checkpoint::from_tensors(given).unpacked(&config).unwrap();
        for tensor in &expected {
            let found = unpacked.get(tensor.name()).unwrap_or_else(|| panic!("{name}: no {}", tensor.name()));
            assert_eq!((found.dtype(), found.shape()), (tensor.dtype(), tensor.shape()), "{name}");
            assert!(found.bytes() == tensor.bytes(), "{name}: {}", tensor.name());
        }
        assert!(unpacked.names().all(|name| !name.contains("packed") && !name.contains("scale_inv")));

        // And a matrix can be read of it, though the section names a method that is not MLX's.
        if let Some(scales) = unpacked.get("m.scales") {
            let quantization = QuantizationConfig::from_config(&config, "config.json").unwrap();
            let (rows, weight) = (scales.shape()[0], unpacked.get("m.weight").unwrap());
            let matrix =
                (1..=4096).map(|cols| unpacked.matrix("m", rows, cols, &quantization)).find_map(Result::ok);
            let Some(MatrixData::Quantized(matrix)) = matrix else { panic!("{name}: {weight:?} {scales:?}") };
            assert!(matrix.dequantize().unwrap().iter().all(|weight| weight.is_finite()), "{name}");
        }
    }
}

#[test]
fn a_checkpoint_without_packed_weights_is_left_alone() {
    let tensors = [
        TensorData::from_f32("a.weight", &[2, 2], &[1.0; 4]).unwrap(),
        // Beside weights that are not of eight bits, such scales are nobody's.
        TensorData::from_f32("a.weight_scale_inv", &[1, 1], &[2.0]).unwrap(),
    ];
    let checkpoint = Checkpoint::from_tensors(tensors.to_vec()).unpacked(&json!({})).unwrap();
    assert_eq!(checkpoint.get("a.weight").unwrap().to_f32().unwrap(), [1.0; 4]);
}

#[test]
fn scales_of_deepseek_are_exponents_of_rows_or_of_blocks() {
    let tensor = |name, dtype, shape: &[usize], first: u8| {
        let len = shape.iter().product::<usize>();
        let bytes = (0..len).map(|i| first.wrapping_add((i % 3) as u8)).collect();
        TensorData::new(name, dtype, shape, bytes).unwrap()
    };
    let tensors = vec![
        // Two blocks of rows, of which the second is cut short, and two of columns.
        tensor("eight.weight", Dtype::F8E4m3, &[40, 64], 8),
        tensor("eight.scale", Dtype::F8E8m0, &[2, 2], 126),
        tensor("four.weight", Dtype::I8, &[3, 32], 0x21),
        tensor("four.scale", Dtype::F8E8m0, &[3, 2], 127),
        // A parameter of that name beside a dense weight.
        TensorData::from_f32("hc.weight", &[1, 2], &[1.0, 2.0]).unwrap(),
        TensorData::from_f32("hc.scale", &[3], &[1.0; 3]).unwrap(),
    ];
    let unpacked = Checkpoint::from_tensors(tensors).unpacked(&json!({})).unwrap();
    let bytes = |name: &str| unpacked.get(name).unwrap_or_else(|| panic!("{name}")).bytes().to_vec();
    let eight = bytes("eight.scales");
    assert_eq!((eight[0], eight[1], eight[2 * 32], eight[2 * 39 + 1]), (126, 127, 128, 126));
    assert_eq!(bytes("four.scales"), [127, 128, 129, 127, 128, 129]);
    let config = QuantizationConfig::from_config(&json!({}), "config.json").unwrap();
    let four = unpacked.matrix("four", 3, 64, &config).unwrap();
    let MatrixData::Quantized(four) = four else { panic!("not quantized") };
    // 0x21 is 0.5 and then 1; the scales of a row are one and two.
    let values = four.dequantize().unwrap();
    assert_eq!((values[0], values[1]), (0.5, 1.0));
    assert_eq!(bytes("hc.scale"), unpacked.get("hc.scale").unwrap().bytes());
    assert!(unpacked.get("four.scale").is_none() && unpacked.get("eight.scale").is_none());
}

#[test]
fn scales_of_the_family_bitnet_are_factors_whatever_the_section_says() {
    let [given, expected] = case("bitnet");
    for section in [json!(null), json!({"quant_method": "bitnet"}), json!({"linear_class": "bitlinear"})] {
        let config = json!({"model_type": "bitnet", "quantization_config": section});
        let unpacked = Checkpoint::from_tensors(given.clone()).unpacked(&config).unwrap();
        for tensor in &expected {
            assert_eq!(unpacked.get(tensor.name()).unwrap().bytes(), tensor.bytes(), "{}", tensor.name());
        }
    }
}

#[test]
fn scales_of_deepseek_that_are_no_powers_of_two_are_multiplied_with() {
    let weight = TensorData::new("m.weight", Dtype::F8E4m3, &[33, 64], vec![0x38; 33 * 64]).unwrap();
    let scales = TensorData::from_f32("m.scale", &[2, 2], &[1.5, -2.0, 0.75, 4.0]).unwrap();
    let unpacked = Checkpoint::from_tensors(vec![weight, scales.clone()]).unpacked(&json!({})).unwrap();
    let values = unpacked.get("m.weight").unwrap().to_f32().unwrap();
    assert_eq!([values[0], values[63], values[32 * 64], values[33 * 64 - 1]], [1.5, -2.0, 0.75, 4.0]);
    let halves = TensorData::new("m.weight", Dtype::I8, &[2, 32], vec![0x21; 64]).unwrap();
    let error = Checkpoint::from_tensors(vec![halves, scales]).unpacked(&json!({})).unwrap_err().to_string();
    assert!(error.contains("`m.scale`") && error.contains("must be F8_E8M0"), "{error}");
}

/// What is wrong with a case once a tensor of it is changed.
fn message(name: &str, config: Value, change: impl FnOnce(&mut Vec<TensorData>)) -> String {
    let [mut given, _] = case(name);
    change(&mut given);
    let error = Checkpoint::from_tensors(given).unpacked(&section(config)).expect_err(name);
    assert!(matches!(error, WeightsError::Quantized { .. }), "{error}");
    error.to_string()
}

fn replace(name: &str, with: TensorData) -> impl FnOnce(&mut Vec<TensorData>) {
    let with = with.renamed(name);
    move |tensors| {
        tensors.retain(|tensor| tensor.name() != with.name());
        tensors.push(with);
    }
}

fn words(shape: &[usize]) -> TensorData {
    TensorData::new("", Dtype::I32, shape, vec![0; 4 * shape.iter().product::<usize>()]).unwrap()
}

#[test]
fn what_does_not_fit_is_named() {
    let remove =
        |name: &'static str| move |tensors: &mut Vec<TensorData>| tensors.retain(|t| t.name() != name);
    let error = message("awq", json!({}), remove("m.scales"));
    assert!(error.contains("`m.qweight`") && error.contains("`m.scales` is missing"), "{error}");
    let error = message("awq", json!({"bits": 3}), |_| ());
    assert!(error.contains("3 bits are not supported"), "{error}");
    let error = message("awq", json!({"bits": 8}), |_| ());
    assert!(error.contains("`m.qweight`"), "{error}");
    let error = message("awq", json!({}), replace("m.qweight", words(&[64, 3])));
    assert!(error.contains("[64, 3] does not fit scales of [2, 16]"), "{error}");
    let error = message("awq", json!({}), replace("m.qzeros", words(&[2, 3])));
    assert!(error.contains("`m.qzeros`"), "{error}");
    let error = message("gptq", json!({}), replace("m.g_idx", words(&[64])));
    assert!(error.contains("`m.g_idx`") && error.contains("act-order"), "{error}");
    let floats = TensorData::from_f32("", &[7, 8], &[0.0; 56]).unwrap();
    let error = message("gptq", json!({}), replace("m.scales", floats));
    assert!(error.contains("7 groups of 64 inputs"), "{error}");
    let error = message("compressed", json!({}), replace("m.weight_zero_point", words(&[1, 4])));
    assert!(error.contains("zero points are not supported"), "{error}");
    let error = message("compressed", json!({}), replace("m.weight_packed", words(&[6, 17])));
    assert!(error.contains("17 words are not 128 elements"), "{error}");
    let bytes = TensorData::new("", Dtype::U8, &[4, 33], vec![0; 132]).unwrap();
    let error = message("bitnet", json!({}), replace("m.weight", bytes));
    assert!(error.contains("`m.weight`") && error.contains("33 weights"), "{error}");
    let scale = TensorData::new("", Dtype::U8, &[1], vec![1]).unwrap();
    let error = message("bitnet", json!({}), replace("m.weight_scale", scale));
    assert!(error.contains("must be F16, BF16 or F32, found U8"), "{error}");
    let scales = TensorData::from_f32("", &[2, 3], &[1.0; 6]).unwrap();
    let error = message("fp8", json!({}), replace("m.weight_scale_inv", scales));
    assert!(error.contains("[2, 3] does not fit weights of [130, 200]"), "{error}");
    let error = message("fp8", json!({}), replace("m.weight_scale_inv", words(&[2, 2])));
    assert!(error.contains("must be F16, BF16, F32 or F8_E8M0, found I32"), "{error}");
}

proptest! {
    /// Whatever ternary weights there are, and however they are packed: they are read as what they are.
    #[test]
    fn ternary_weights_are_read_as_they_were_packed(
        quarter in 1usize..5,
        groups in 1usize..6,
        seed in prop::collection::vec(0u8..3, 1..50),
        scale in 0.01f32..10.0,
        divides in any::<bool>(),
    ) {
        let (rows, columns) = (4 * quarter, 32 * groups);
        let weight = |row: usize, column: usize| seed[(row * columns + column) % seed.len()];
        // As `pack_weights` of transformers and the kernel of mlx-lm's `bitlinear_layers` have it.
        let byte = |index: usize| {
            let (row, column) = (index / columns, index % columns);
            (0..4).fold(0, |byte, field| byte | weight(row + field * quarter, column) << (2 * field))
        };
        let packed = (0..quarter * columns).map(byte).collect();
        let checkpoint = Checkpoint::from_tensors(vec![
            TensorData::new("m.weight", Dtype::U8, &[quarter, columns], packed).unwrap(),
            TensorData::from_f32("m.weight_scale", &[1], &[scale]).unwrap(),
        ]);
        let class = if divides { "bitlinear" } else { "autobitlinear" };
        let config = section(json!({"quant_method": "bitnet", "linear_class": class}));
        let quantization = QuantizationConfig::from_config(&config, "config.json").unwrap();
        let matrix = checkpoint.unpacked(&config).unwrap().matrix("m", rows, columns, &quantization).unwrap();
        let MatrixData::Quantized(matrix) = matrix else { panic!("it is packed") };
        let factor = if divides { 1.0 / scale } else { scale };
        let expected: Vec<f32> = (0..rows * columns)
            .map(|index| factor * (f32::from(weight(index / columns, index % columns)) - 1.0))
            .collect();
        prop_assert_eq!(matrix.dequantize().unwrap(), expected);
    }

    /// Whatever shapes the tensors have: an error, or tensors that can be read.
    #[test]
    fn odd_shapes_end_in_an_error_or_in_tensors(
        which in 0usize..18,
        shapes in prop::collection::vec(prop::collection::vec(0usize..70, 0..4), 4),
        bits in prop::option::of(0u32..10),
        block in prop::collection::vec(0usize..40, 0..3),
    ) {
        let sets = [
            vec![("m.qweight", Dtype::I32), ("m.scales", Dtype::F16), ("m.qzeros", Dtype::I32), ("m.g_idx", Dtype::I32)],
            vec![("m.weight_packed", Dtype::I32), ("m.weight_scale", Dtype::Bf16), ("m.weight_shape", Dtype::I64)],
            vec![("m.weight_packed", Dtype::U8), ("m.weight_scale", Dtype::U8)],
            vec![("m.weight", Dtype::F8E4m3), ("m.weight_scale_inv", Dtype::F8E8m0)],
            vec![("m.weight", Dtype::I8), ("m.scale", Dtype::F8E8m0)],
            vec![("m.weight", Dtype::U8), ("m.weight_scale", Dtype::Bf16)],
        ];
        let set = &sets[which % sets.len()];
        let tensors = set.iter().zip(&shapes).map(|((name, dtype), shape)| {
            let bytes = vec![1; shape.iter().product::<usize>() * dtype.size()];
            TensorData::new(*name, *dtype, shape, bytes).unwrap()
        });
        let mut section = json!({"weight_block_size": block, "scale_fmt": "ue8m0"});
        if let Some(bits) = bits {
            section["bits"] = json!(bits);
        }
        let config = json!({"quantization_config": section});
        if let Ok(checkpoint) = Checkpoint::from_tensors(tensors.collect()).unpacked(&config) {
            for tensor in checkpoint.tensors() {
                prop_assert_eq!(tensor.bytes().len(), tensor.byte_len());
            }
        }
    }
}
