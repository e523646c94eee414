//! Every kind of weight matrix that the contract names.

use pippin_weights::quantize_minifloat;

use super::{
    array::{Array, Random},
    check::Check,
};
use crate::{Backend, Dtype, Linear, MatrixData, QuantMode, QuantSpec, QuantizedData, TensorData};

/// A matrix on the host, and the weights it stands for.
#[derive(Clone)]
pub(super) struct Weights {
    pub(super) kind: String,
    pub(super) data: MatrixData,
    pub(super) values: Array,
}

impl Weights {
    fn new(kind: String, data: MatrixData) -> Self {
        let values = match &data {
            MatrixData::Dense(data) => data.to_f32().unwrap(),
            MatrixData::Quantized(data) => data.dequantize().unwrap(),
        };
        let (rows, columns) = (data.rows(), data.cols());
        let kind = format!("{kind} [{rows}, {columns}]");
        Self { kind, data, values: Array::new(rows, columns, &values) }
    }

    /// A dense matrix of `f32` with random weights of about unit row norm.
    pub(super) fn dense(random: &mut Random, rows: usize, columns: usize) -> Self {
        Self::dense_as(random, rows, columns, Dtype::F32)
    }

    fn dense_as(random: &mut Random, rows: usize, columns: usize, dtype: Dtype) -> Self {
        let norm = (columns as f32).sqrt();
        let values: Vec<f32> = random.values(rows * columns).iter().map(|v| v / norm).collect();
        let data = TensorData::from_f32_as("dense", dtype, &[rows, columns], &values).unwrap();
        Self::new(format!("dense {dtype}"), MatrixData::Dense(data))
    }

    /// Every kind of matrix with `rows * columns` random weights of about unit row norm.
    pub(super) fn kinds(random: &mut Random, rows: usize, columns: usize) -> Vec<Self> {
        let dtypes = [Dtype::F32, Dtype::F16, Dtype::Bf16];
        let mut kinds: Vec<Self> =
            dtypes.iter().map(|dtype| Self::dense_as(random, rows, columns, *dtype)).collect();
        for bits in [2, 3, 4, 5, 6, 8] {
            for group_size in [16, 32, 64, 128] {
                let spec = QuantSpec::affine(bits, group_size);
                if spec.divides(columns) {
                    let dtype = dtypes[random.below(3)];
                    let data = affine(random, rows, columns, spec, dtype);
                    let kind = format!("{bits} bits, groups of {group_size}, {dtype} scales");
                    kinds.push(Self::new(kind, MatrixData::Quantized(data)));
                }
            }
        }
        let norm = (columns as f32).sqrt();
        for mode in [QuantMode::Mxfp4, QuantMode::Mxfp8, QuantMode::Nvfp4] {
            if columns.is_multiple_of(mode.default_spec().group_size) {
                let values: Vec<f32> = random.values(rows * columns).iter().map(|v| v / norm).collect();
                let data = quantize_minifloat(&values, rows, columns, mode, Dtype::F32).unwrap();
                kinds.push(Self::new(mode.to_string(), MatrixData::Quantized(data)));
            }
        }
        kinds
    }

    /// The matrix on the device; `None` where the backend has no such kind.
    pub(super) fn upload<B: Backend>(&self, check: &Check<'_, B>) -> Option<B::Matrix> {
        let matrix = check.supported(&self.kind, check.backend.matrix(self.data.clone()))?;
        let shape = [self.values.rows, self.values.columns];
        assert_eq!(check.backend.matrix_shape(&matrix), shape, "{}", self.kind);
        Some(matrix)
    }

    /// The matrix on the device with a bias.
    pub(super) fn linear<B: Backend>(&self, check: &Check<'_, B>, bias: Option<&Array>) -> Option<Linear<B>> {
        let bias = bias.map(|bias| bias.upload(check.backend));
        self.upload(check).map(|weight| Linear { weight, bias, hadamard: None })
    }

    /// What [`linear`](Self::linear) computes.
    pub(super) fn apply(&self, x: &Array, bias: Option<&Array>) -> Array {
        let y = x.matmul(&self.values);
        match bias {
            Some(bias) => y.add(bias),
            None => y,
        }
    }
}

fn affine(random: &mut Random, rows: usize, columns: usize, spec: QuantSpec, dtype: Dtype) -> QuantizedData {
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
