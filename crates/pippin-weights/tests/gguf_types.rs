//! What is made of ggml's types, beside what the `gguf` package makes of them (`tools/gguf/make_fixture.py`) and beside
//! numbers computed by hand.

#![allow(
    clippy::single_range_in_vec_init,
    reason = "rows of a matrix are a list of ranges, which may have one"
)]

use std::fs;
use std::path::Path;

use pippin_weights::gguf::{GgmlType, Gguf, GgufTensor, GgufWriter};
use pippin_weights::{Checkpoint, Dtype, MatrixData, QuantSpec, QuantizationConfig, WeightsError};

fn fixture() -> Gguf {
    Gguf::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/types.gguf")).unwrap()
}

/// The weights of a tensor of two axes, by way of the matrix that a model would read.
fn weights(tensor: &GgufTensor) -> Vec<f32> {
    let [rows, columns] = tensor.shape().try_into().unwrap();
    let tensors = tensor.view().tensors("m.weight").unwrap();
    let checkpoint = Checkpoint::from_tensors(tensors);
    match checkpoint.matrix("m", rows, columns, &QuantizationConfig::default()).unwrap() {
        MatrixData::Dense(dense) => dense.to_f32().unwrap(),
        MatrixData::Quantized(matrix) => {
            assert_eq!(Some(matrix.spec), tensor.kind().quantization().map(|(spec, _)| spec));
            matrix.dequantize().unwrap()
        }
    }
}

/// The types that have an expectation in the fixture: all that are repacked but Q1_0 and Q2_0, which the package does
/// not dequantize.
const TYPES: [GgmlType; 16] = [
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q8_0,
    GgmlType::Q2_K,
    GgmlType::Q3_K,
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::Q6_K,
    GgmlType::IQ4_NL,
    GgmlType::IQ4_XS,
    GgmlType::TQ1_0,
    GgmlType::TQ2_0,
    GgmlType::Mxfp4,
    GgmlType::Nvfp4,
];

#[test]
fn every_type_is_what_the_gguf_package_says() {
    let file = fixture();
    for kind in TYPES {
        let tensor = file.tensor(&format!("{kind}.weight")).unwrap();
        assert_eq!(tensor.kind(), kind);
        let expected = file.tensor(&format!("{kind}.expected")).unwrap();
        let expected = expected.view().tensors("expected").unwrap()[0].to_f32().unwrap();
        let found = weights(tensor);
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            // Bit for bit, but that there is one zero: the difference of two equal products.
            assert!(
                found.to_bits() == expected.to_bits() || *found == 0.0 && *expected == 0.0,
                "{kind}, element {i}: {found:e}, expected {expected:e}"
            );
        }
        assert!(expected.iter().filter(|value| **value != 0.0).count() > 100, "{kind} tells nothing");
    }
    let all = GgmlType::ALL.iter().filter(|kind| kind.quantization().is_some());
    assert_eq!(all.count(), TYPES.len() + 2, "a type is not tested");
}

#[test]
fn numbers_stay_in_the_file() {
    let file = fixture();
    for (kind, dtype) in [("F32", Dtype::F32), ("F16", Dtype::F16), ("BF16", Dtype::Bf16)] {
        let tensor = file.tensor(&format!("{kind}.weight")).unwrap();
        let [made] = tensor.view().tensors("a.weight").unwrap().try_into().unwrap();
        assert_eq!((made.dtype(), made.shape(), made.is_copy()), (dtype, &[3, 5][..], false));
        assert_eq!(made.bytes(), tensor.bytes());
    }
    assert_eq!(file.tensor("F32.weight").unwrap().view().columns(), 5);
}

#[test]
fn the_fixture_has_every_type_of_value() {
    let file = fixture();
    for kind in ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"] {
        assert_eq!(file.count(&format!("value.{kind}")).unwrap(), Some(100), "{kind}");
    }
    assert_eq!(file.number("value.float32").unwrap(), Some(1.5));
    assert_eq!(file.number("value.float64").unwrap(), Some(1.5));
    assert_eq!(file.flag("value.bool").unwrap(), Some(true));
    assert_eq!(file.string("value.string").unwrap(), Some("ü"));
    let strings = file.strings("value.array.strings").unwrap().unwrap();
    assert_eq!(strings.iter().collect::<Vec<_>>(), ["", "a", "ü"]);
    assert_eq!(file.integers("value.array.integers").unwrap().unwrap(), [1, -2, 3]);
    assert_eq!(file.floats("value.array.floats").unwrap().unwrap(), [0.5, -1.5]);
}

/// A file with one tensor.
fn one(kind: GgmlType, shape: &[usize], bytes: &[u8]) -> (tempfile::TempDir, Gguf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.gguf");
    let mut writer = GgufWriter::new();
    writer.tensor("a", kind, shape, bytes);
    fs::write(&path, writer.bytes()).unwrap();
    let file = Gguf::open(&path).unwrap();
    (folder, file)
}

/// 1.0 and 2.0 in half precision.
const ONE: [u8; 2] = [0, 0x3c];
const TWO: [u8; 2] = [0, 0x40];

#[test]
fn blocks_by_hand() {
    // Q4_1: 2 q + 1. The lower half of byte i is element i, the upper one element i + 16.
    let block = [&TWO[..], &ONE, &[0x31; 16]].concat();
    let (_folder, file) = one(GgmlType::Q4_1, &[1, 32], &block);
    let found = weights(file.tensor("a").unwrap());
    assert_eq!((found[..16].to_vec(), found[16..].to_vec()), (vec![3.0; 16], vec![7.0; 16]));

    // Q8_0: signed bytes.
    let block: Vec<u8> = TWO.iter().copied().chain((0..32).map(|i| (i - 16) as i8 as u8)).collect();
    let (_folder, file) = one(GgmlType::Q8_0, &[1, 32], &block);
    let expected: Vec<f32> = (0..32).map(|i| 2.0 * (i as f32 - 16.0)).collect();
    assert_eq!(weights(file.tensor("a").unwrap()), expected);

    // Q4_K: scale 1 · 3 and least value 2 · 5 in all groups; elements 0..32 are lower halves, 32..64 upper ones.
    let scales = [3, 3, 3, 3, 5, 5, 5, 5, 0x53, 0x53, 0x53, 0x53];
    let block = [&ONE[..], &TWO, &scales, &[0x42; 128]].concat();
    let (_folder, file) = one(GgmlType::Q4_K, &[1, 256], &block);
    let found = weights(file.tensor("a").unwrap());
    assert!(
        found.chunks_exact(64).all(|part| part[..32] == [-4.0; 32] && part[32..] == [2.0; 32]),
        "{found:?}"
    );

    // Q6_K: 2 · -1 · (q - 32), q of four bits here and two bits there.
    let block = [&[0x21; 128][..], &[0b11_10_01_00; 64], &[0xff; 16], &TWO].concat();
    let (_folder, file) = one(GgmlType::Q6_K, &[1, 256], &block);
    let found = weights(file.tensor("a").unwrap());
    for part in found.chunks_exact(128) {
        let codes = [1.0, 1.0 + 16.0, 2.0 + 32.0, 2.0 + 48.0];
        for (part, code) in part.chunks_exact(32).zip(codes) {
            assert_eq!(part, [-2.0 * (code - 32.0); 32]);
        }
    }

    // Q2_0: minus one, zero, one and two times the scale, from the lowest bits on.
    let block = [&TWO[..], &[0b11_10_01_00; 16]].concat();
    let (_folder, file) = one(GgmlType::Q2_0, &[1, 64], &block);
    assert!(weights(file.tensor("a").unwrap()).chunks_exact(4).all(|part| part == [-2.0, 0.0, 2.0, 4.0]));

    // Q1_0: minus or plus the scale.
    let block = [&TWO[..], &[0b1010_1010; 16]].concat();
    let (_folder, file) = one(GgmlType::Q1_0, &[1, 128], &block);
    assert!(weights(file.tensor("a").unwrap()).chunks_exact(2).all(|part| part == [-2.0, 2.0]));
}

#[test]
fn rows_are_chosen_before_they_are_made() {
    // Eight rows of one block each; row i is i + 1 everywhere.
    let blocks: Vec<u8> =
        (0..8u8).flat_map(|row| [&ONE[..], &[(8 + row + 1).min(15) * 17; 16]].concat()).collect();
    let (_folder, file) = one(GgmlType::Q4_0, &[2, 4, 32], &blocks);
    let view = file.tensor("a").unwrap().view();
    assert_eq!((view.shape(), view.rows(), view.columns()), (&[2, 4, 32][..], 8, 32));
    let firsts = |view: &pippin_weights::gguf::GgufView| {
        let tensors = view.tensors("m.weight").unwrap();
        let rows = view.rows();
        let shape: Vec<usize> = vec![rows, tensors[0].len() / rows];
        let flat: Vec<_> = tensors
            .iter()
            .map(|tensor| {
                let columns = tensor.len() / rows;
                tensor.reshape(&[rows, columns]).unwrap()
            })
            .collect();
        assert_eq!(shape[1], 4);
        let matrix =
            Checkpoint::from_tensors(flat).matrix("m", rows, 32, &QuantizationConfig::default()).unwrap();
        let MatrixData::Quantized(matrix) = matrix else { panic!("dense") };
        assert_eq!(matrix.spec, QuantSpec::affine(4, 32));
        matrix.dequantize().unwrap().chunks(32).map(|row| row[31]).collect::<Vec<f32>>()
    };
    assert_eq!(firsts(&view), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 7.0]);
    let turned = view.select_rows(&[4..6, 0..1, 1..3]).unwrap();
    assert_eq!(turned.shape(), [5, 32]);
    assert_eq!(firsts(&turned), [5.0, 6.0, 1.0, 2.0, 3.0]);
    let again = turned.select_rows(&[1..4]).unwrap();
    assert_eq!(firsts(&again), [6.0, 1.0, 2.0]);
    assert_eq!(firsts(&view.select_rows(&[3..5]).unwrap().select_rows(&[1..2]).unwrap()), [5.0]);
    assert_eq!(again.reshape(&[1, 3, 32]).unwrap().tensors("m.weight").unwrap()[0].shape(), [1, 3, 4]);
    assert!(
        view.select_rows(&[7..9]).is_err()
            && view.reshape(&[8, 16]).is_err()
            && view.reshape(&[7, 32]).is_err()
    );

    let numbers: Vec<u8> = (0..6).flat_map(|value| (value as f32).to_le_bytes()).collect();
    let (_folder, file) = one(GgmlType::F32, &[3, 2], &numbers);
    let view = file.tensor("a").unwrap().view().select_rows(&[2..3, 0..1]).unwrap();
    assert_eq!(view.tensors("a").unwrap()[0].to_f32().unwrap(), [4.0, 5.0, 0.0, 1.0]);

    let (_folder, file) = one(GgmlType::F32, &[6], &numbers);
    let view = file.tensor("a").unwrap().view();
    let column = view.as_column().unwrap();
    assert_eq!((column.shape(), column.rows()), (&[6, 1][..], 6));
    let chosen = column.select_rows(&[4..6, 1..2]).unwrap().as_vector();
    let [made] = chosen.tensors("a").unwrap().try_into().unwrap();
    assert_eq!((made.shape(), made.to_f32().unwrap()), (&[3][..], vec![4.0, 5.0, 1.0]));
    assert!(column.as_column().is_err());
    let empty = one(GgmlType::F32, &[3, 0], &[]).1;
    assert_eq!(empty.tensor("a").unwrap().view().tensors("a").unwrap()[0].shape(), [3, 0]);
}

#[test]
fn large_tensors_are_made_by_several_threads() {
    let rows = 3001;
    let blocks: Vec<u8> = (0..rows)
        .flat_map(|row| [&ONE[..], &[(row % 16) as u8 * 17; 512 / 32 * 16][..16]].concat())
        .collect();
    let wide: Vec<u8> = blocks.chunks_exact(18).flat_map(|block| block.repeat(24)).collect();
    let (_folder, file) = one(GgmlType::Q4_0, &[rows, 24 * 32], &wide);
    let found = weights(file.tensor("a").unwrap());
    for (row, values) in found.chunks_exact(24 * 32).enumerate() {
        assert!(values.iter().all(|value| *value == (row % 16) as f32 - 8.0), "row {row}");
    }
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let message = |error: WeightsError| {
        assert!(error.hint().is_some());
        error.to_string()
    };
    let (_folder, file) = one(GgmlType::IQ2_XXS, &[1, 256], &[0; 66]);
    let error = message(file.tensor("a").unwrap().view().tensors("m.weight").unwrap_err());
    assert!(
        error.contains("tensor `a` in") && error.contains("type IQ2_XXS is not read, only F32, F16"),
        "{error}"
    );
    assert!(error.contains("Q4_K") && error.contains("MXFP4"), "{error}");
    let (_folder, file) = one(GgmlType::Q8_0, &[32], &[0; 34]);
    let view = file.tensor("a").unwrap().view();
    assert!(message(view.tensors("m.bias").unwrap_err()).contains("m.bias cannot be of type Q8_0"));
    assert!(message(view.tensors("m.weight").unwrap_err()).contains("a vector cannot be of type Q8_0"));
}
