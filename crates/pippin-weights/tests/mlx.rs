//! Quantization compared with a file that `mlx.core` wrote (see `tools/quantization/make_fixture.py`).

use std::path::Path;

use pippin_weights::{
    Checkpoint, Dtype, MatrixData, QuantSpec, QuantizationConfig, TensorData, quantize_affine,
};

const ROWS: usize = 2;
const COLS: usize = 128;
const DTYPES: [(&str, Dtype); 3] = [("f32", Dtype::F32), ("f16", Dtype::F16), ("bf16", Dtype::Bf16)];

fn fixture() -> Checkpoint {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/affine.safetensors");
    Checkpoint::open_file(&path).unwrap()
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
