//! Random operands and the comparison with `f64` results.

use pippin_weights::quantize_minifloat;

use crate::{Backend, Dtype, MatrixData, QuantMode, QuantSpec, QuantizedData, TensorData};

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>): small, and the same everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[-1, 1)`.
    pub(super) fn value(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(super) fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.value()).collect()
    }

    /// Uniform below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }
}

/// A two-dimensional array of reference values.
#[derive(Clone, Debug)]
pub(super) struct Array {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) values: Vec<f64>,
}

impl Array {
    pub(super) fn random(random: &mut Random, rows: usize, columns: usize) -> Self {
        Self::new(rows, columns, &random.values(rows * columns))
    }

    pub(super) fn new(rows: usize, columns: usize, values: &[f32]) -> Self {
        Self { rows, columns, values: values.iter().map(|v| f64::from(*v)).collect() }
    }

    pub(super) fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..][..self.columns]
    }

    pub(super) fn rows_of(&self, range: std::ops::Range<usize>) -> Self {
        let values = self.values[range.start * self.columns..range.end * self.columns].to_vec();
        Self { rows: range.len(), columns: self.columns, values }
    }

    /// Each row through `f`.
    pub(super) fn map_rows(&self, f: impl Fn(usize, &[f64]) -> Vec<f64>) -> Self {
        let values: Vec<f64> = (0..self.rows).flat_map(|row| f(row, self.row(row))).collect();
        Self { rows: self.rows, columns: values.len() / self.rows.max(1), values }
    }

    pub(super) fn matmul(&self, weight: &Self) -> Self {
        assert_eq!(self.columns, weight.columns);
        self.map_rows(|_, x| {
            (0..weight.rows).map(|o| weight.row(o).iter().zip(x).map(|(w, x)| w * x).sum()).collect()
        })
    }

    pub(super) fn add(&self, other: &Self) -> Self {
        self.map_rows(|row, a| {
            let b = other.row(if other.rows == 1 { 0 } else { row });
            a.iter().zip(b).map(|(a, b)| a + b).collect()
        })
    }

    pub(super) fn rms_norm(&self, weight: &Self, eps: f64) -> Self {
        self.map_rows(|_, x| {
            x.chunks(weight.columns)
                .flat_map(|run| {
                    let mean = run.iter().map(|v| v * v).sum::<f64>() / run.len() as f64;
                    let factor = 1.0 / (mean + eps).sqrt();
                    run.iter().zip(&weight.values).map(move |(v, w)| v * factor * w)
                })
                .collect()
        })
    }

    pub(super) fn silu_mul(&self, up: &Self) -> Self {
        self.map_rows(|row, gate| {
            gate.iter().zip(up.row(row)).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect()
        })
    }

    pub(super) fn upload<B: Backend>(&self, backend: &B) -> B::Tensor {
        let values: Vec<f32> = self.values.iter().map(|v| *v as f32).collect();
        let data = TensorData::from_f32("test", &[self.rows, self.columns], &values).unwrap();
        backend.tensor(&data).unwrap()
    }
}

/// Norms below this count as this: a sum of terms of about one that happens to cancel has no digits of its own.
const SMALLEST_NORM: f64 = 0.3;

/// Fails unless `actual` is `expected` within `tolerance`, relative to each row's norm.
#[track_caller]
pub(super) fn assert_close<B: Backend>(
    backend: &B,
    actual: &B::Tensor,
    expected: &Array,
    tolerance: f64,
    case: &dyn std::fmt::Debug,
) {
    assert_eq!(backend.shape(actual), [expected.rows, expected.columns], "{case:?}: shape");
    let actual = backend.read(actual).unwrap();
    for row in 0..expected.rows {
        let expected_row = expected.row(row);
        let actual_row = &actual[row * expected.columns..][..expected.columns];
        let difference: f64 =
            expected_row.iter().zip(actual_row).map(|(e, a)| (e - f64::from(*a)).powi(2)).sum::<f64>().sqrt();
        let norm: f64 = expected_row.iter().map(|e| e * e).sum::<f64>().sqrt();
        // A comparison that NaN fails.
        assert!(
            difference <= tolerance * norm.max(SMALLEST_NORM),
            "{case:?}: row {row} deviates by {:.3e} (allowed {tolerance:.1e})\nexpected {:?}\nfound    {:?}",
            difference / norm.max(SMALLEST_NORM),
            &expected_row[..expected_row.len().min(8)],
            &actual_row[..actual_row.len().min(8)],
        );
    }
}

/// Every kind of matrix the contract names, with `rows * columns` random weights of about unit row norm.
pub(super) fn matrices(random: &mut Random, rows: usize, columns: usize) -> Vec<(String, MatrixData)> {
    let mut matrices = Vec::new();
    let norm = (columns as f32).sqrt();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let values: Vec<f32> = random.values(rows * columns).iter().map(|v| v / norm).collect();
        let data = TensorData::from_f32_as("dense", dtype, &[rows, columns], &values).unwrap();
        matrices.push((format!("dense {dtype} [{rows}, {columns}]"), MatrixData::Dense(data)));
    }
    for bits in [2, 3, 4, 5, 6, 8] {
        for group_size in [32, 64, 128] {
            if !columns.is_multiple_of(group_size) {
                continue;
            }
            let dtype = [Dtype::F32, Dtype::F16, Dtype::Bf16][random.below(3)];
            matrices.push((
                format!("{bits} bits, groups of {group_size}, {dtype} scales [{rows}, {columns}]"),
                MatrixData::Quantized(quantized(
                    random,
                    rows,
                    columns,
                    QuantSpec::affine(bits, group_size),
                    dtype,
                )),
            ));
        }
    }
    for mode in [QuantMode::Mxfp4, QuantMode::Mxfp8, QuantMode::Nvfp4] {
        if columns.is_multiple_of(mode.default_spec().group_size) {
            let values: Vec<f32> = random.values(rows * columns).iter().map(|v| v / norm).collect();
            let data = quantize_minifloat(&values, rows, columns, mode, Dtype::F32).unwrap();
            matrices.push((format!("{mode} [{rows}, {columns}]"), MatrixData::Quantized(data)));
        }
    }
    matrices
}

fn quantized(
    random: &mut Random,
    rows: usize,
    columns: usize,
    spec: QuantSpec,
    dtype: Dtype,
) -> QuantizedData {
    let words: Vec<u32> =
        (0..rows * columns * spec.bits as usize / 32).map(|_| random.bits() as u32).collect();
    let groups = columns / spec.group_size;
    let steps = (1u32 << spec.bits) as f32;
    let norm = (columns as f32).sqrt();
    // Scales of either sign occur in real checkpoints.
    let scales: Vec<f32> =
        (0..rows * groups).map(|_| (1.5 + random.value()) * random.value().signum() / steps / norm).collect();
    let biases: Vec<f32> =
        scales.iter().map(|scale| -scale * steps / 2.0 + 0.1 * random.value() / norm).collect();
    let shape = [rows, groups];
    QuantizedData::new(
        spec,
        rows,
        columns,
        TensorData::from_u32("weight", &[rows, words.len() / rows], &words).unwrap(),
        TensorData::from_f32_as("scales", dtype, &shape, &scales).unwrap(),
        Some(TensorData::from_f32_as("biases", dtype, &shape, &biases).unwrap()),
    )
    .unwrap()
}

/// The weights a matrix stands for.
pub(super) fn weights(matrix: &MatrixData) -> Array {
    let values = match matrix {
        MatrixData::Dense(data) => data.to_f32().unwrap(),
        MatrixData::Quantized(data) => data.dequantize().unwrap(),
    };
    Array::new(matrix.rows(), matrix.cols(), &values)
}
