//! Quantization compared with a file that `mlx.core` wrote (see `tools/quantization/make_fixture.py`).

use std::path::Path;

use pippin_weights::{
    Checkpoint, Dtype, MatrixData, QuantMode, QuantSpec, QuantizationConfig, QuantizedData, TensorData,
    quantize_affine, quantize_minifloat,
};

const ROWS: usize = 2;
const COLS: usize = 128;
const DTYPES: [(&str, Dtype); 3] = [("f32", Dtype::F32), ("f16", Dtype::F16), ("bf16", Dtype::Bf16)];

const MINIFLOAT: [QuantMode; 3] = [QuantMode::Mxfp4, QuantMode::Mxfp8, QuantMode::Nvfp4];

fn fixture() -> Checkpoint {
    open("affine")
}

fn open(name: &str) -> Checkpoint {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.safetensors"));
    Checkpoint::open_file(&path).unwrap()
}

/// A matrix of the fixture, as the loader reads it without being told the mode.
fn quantized(checkpoint: &Checkpoint, path: &str, rows: usize, cols: usize) -> QuantizedData {
    match checkpoint.matrix(path, rows, cols, &QuantizationConfig::default()).unwrap() {
        MatrixData::Quantized(matrix) => matrix,
        MatrixData::Dense(_) => panic!("{path} is dense"),
    }
}

/// Calls `check` with the path in the fixture, the dtype and the spec of every case.
fn for_each_case(mut check: impl FnMut(&str, (&str, Dtype), QuantSpec)) {
    for dtype in DTYPES {
        for bits in [2, 3, 4, 5, 6, 8] {
            for group_size in [32, 64, 128] {
                let spec = QuantSpec::affine(bits, group_size);
                check(&format!("b{bits}g{group_size}.{}", dtype.0), dtype, spec);
            }
        }
    }
}

#[test]
fn mlx_writes_unaligned_files_that_open() {
    let checkpoint = fixture();
    assert_eq!(checkpoint.metadata()["format"], "mlx");
    assert_eq!(checkpoint.names().count(), 3 + 3 * 6 * 3 * 4);
    let address = checkpoint.require("b4g64.bf16.weight").unwrap().bytes().as_ptr().addr();
    assert_eq!(address % 2, 1, "the fixture is meant to be unaligned");
}

#[test]
fn specs_are_inferred_from_shapes() {
    let checkpoint = fixture();
    // The default is wrong for most cases on purpose: it must not matter.
    let config = QuantizationConfig::uniform(QuantSpec::affine(4, 64));
    for_each_case(|path, _, spec| {
        let MatrixData::Quantized(matrix) = checkpoint.matrix(path, ROWS, COLS, &config).unwrap() else {
            panic!("{path} is dense");
        };
        assert_eq!(matrix.spec, spec, "{path}");
    });
}

#[test]
fn dequantization_equals_mlx() {
    let checkpoint = fixture();
    for_each_case(|path, (_, dtype), _| {
        let matrix = checkpoint.matrix(path, ROWS, COLS, &QuantizationConfig::default()).unwrap();
        let MatrixData::Quantized(matrix) = matrix else { panic!("{path} is dense") };
        let expected = checkpoint.tensor(&format!("{path}.dense"), &[ROWS, COLS]).unwrap();
        let stored = matrix.dequantize_as_stored("dense").unwrap();
        assert_eq!(stored.dtype(), dtype);
        assert!(stored.bytes() == expected.bytes(), "{path}");

        // In f32 there is one way to compute; in the narrower dtypes mlx rounds twice, here nothing is
        // rounded to them.
        let values = matrix.dequantize().unwrap();
        let expected = expected.to_f32().unwrap();
        let tolerance = match dtype {
            Dtype::F32 => 0.0,
            Dtype::F16 => 1.0 / 1024.0,
            _ => 1.0 / 128.0,
        };
        let scale = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        for (index, (value, expected)) in values.iter().zip(&expected).enumerate() {
            assert!((value - expected).abs() <= tolerance * scale, "{path} {index}: {value} {expected}");
        }
        let mut row = [0.0; COLS];
        matrix.dequantize_row(1, &mut row).unwrap();
        assert_eq!(row, values[COLS..], "{path}");
    });
}

#[test]
fn quantization_equals_mlx() {
    let checkpoint = fixture();
    for_each_case(|path, (dtype_name, dtype), spec| {
        let input = checkpoint.tensor(&format!("{dtype_name}.input"), &[ROWS, COLS]).unwrap();
        let made = quantize_affine(&input.to_f32().unwrap(), ROWS, COLS, spec, dtype).unwrap();
        let same = |made: &TensorData, suffix: &str| {
            let expected = checkpoint.require(&format!("{path}.{suffix}")).unwrap();
            assert_eq!(made.shape(), expected.shape(), "{path}.{suffix}");
            assert_eq!(made.dtype(), expected.dtype(), "{path}.{suffix}");
            assert!(made.bytes() == expected.bytes(), "{path}.{suffix}");
        };
        same(&made.weight, "weight");
        same(&made.scales, "scales");
        same(made.biases.as_ref().unwrap(), "biases");
    });
}

#[test]
fn every_minifloat_code_dequantizes_as_in_mlx() {
    let checkpoint = open("minifloat");
    for mode in MINIFLOAT {
        let expected_f32 = checkpoint.require(&format!("{mode}.codes.f32")).unwrap();
        let expected_bf16 = checkpoint.require(&format!("{mode}.codes.bf16")).unwrap();
        let &[rows, cols] = expected_f32.shape() else { panic!("not a matrix") };
        let matrix = quantized(&checkpoint, &format!("{mode}.codes"), rows, cols);
        assert_eq!(matrix.spec, mode.default_spec());

        // The fixture has one NaN: which one a product is depends on the machine.
        let bits = |value: f32| if value.is_nan() { 0x7fc0_0000 } else { value.to_bits() };
        let values = matrix.dequantize().unwrap();
        let expected = expected_f32.to_u32().unwrap();
        for (index, (value, expected)) in values.iter().zip(&expected).enumerate() {
            let (row, column) = (index / cols, index % cols);
            assert_eq!(bits(*value), *expected, "{mode}, row {row}, column {column}: {value:e}");
        }
        assert!(expected.contains(&0x7fc0_0000) && expected.contains(&0x8000_0000));
        assert!(mode == QuantMode::Nvfp4 || expected.contains(&f32::INFINITY.to_bits()));

        let stored = matrix.dequantize_as_stored("dense").unwrap();
        assert_eq!(stored.dtype(), Dtype::Bf16);
        let expected = expected_bf16.bytes().as_chunks::<2>().0;
        for (index, (value, expected)) in stored.to_f32().unwrap().iter().zip(expected).enumerate() {
            let (row, column) = (index / cols, index % cols);
            let expected = u32::from(u16::from_le_bytes(*expected)) << 16;
            assert_eq!(bits(*value), expected, "{mode}, row {row}, column {column}: {value:e}");
        }

        let mut row = vec![0.0; cols];
        matrix.dequantize_row(9, &mut row).unwrap();
        for (column, (alone, value)) in row.iter().zip(&values[9 * cols..]).enumerate() {
            assert_eq!(bits(*alone), bits(*value), "{mode}, column {column}");
        }
    }
}

#[test]
fn minifloat_quantization_equals_mlx() {
    let checkpoint = open("minifloat");
    for mode in MINIFLOAT {
        for (dtype_name, dtype) in DTYPES {
            let path = format!("{mode}.{dtype_name}");
            let input = checkpoint.require(&format!("{dtype_name}.input")).unwrap();
            let &[rows, cols] = input.shape() else { panic!("not a matrix") };
            let made = quantize_minifloat(&input.to_f32().unwrap(), rows, cols, mode, dtype).unwrap();
            let expected = quantized(&checkpoint, &path, rows, cols);
            assert_eq!(made.spec, expected.spec, "{path}");
            assert_eq!(made.scales.shape(), expected.scales.shape(), "{path}");
            assert_eq!(made.scales.bytes(), expected.scales.bytes(), "{path}.scales");
            for (index, (made, expected)) in
                made.weight.bytes().iter().zip(expected.weight.bytes()).enumerate()
            {
                assert_eq!(made, expected, "{path}.weight, byte {index}");
            }
            let dense = checkpoint.require(&format!("{path}.dense")).unwrap();
            let stored = made.dequantize_as_stored("dense").unwrap();
            assert_eq!(stored.dtype(), dense.dtype());
            assert!(stored.bytes() == dense.bytes(), "{path}.dense");
        }
    }
}
