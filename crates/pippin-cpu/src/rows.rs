//! Operations on rows: sums, products, norms, activations, gathers.

use pippin_tensor::{Activation, BlockFloat, Gate, Norm, Reduction, Result, TensorError};

use crate::{
    CpuBackend, CpuIndices, CpuTensor,
    kernels::elementwise::{Binary, RowNorm, has_activation},
    same_shape, shape_of,
    tensor::Shared,
};

/// A norm's parameters, checked against the width of what it is to normalise.
pub(crate) fn row_norm<'a>(columns: usize, norm: &'a Norm<CpuTensor>) -> Result<RowNorm<'a>> {
    let &Norm { kind, width, eps, .. } = norm;
    if width == 0 || !columns.is_multiple_of(width) {
        return Err(TensorError::shape("norm", format!("a width that divides {columns} columns"), width));
    }
    let check = |parameter: &'a Option<CpuTensor>| match parameter {
        Some(tensor) if tensor.rows != 1 || (tensor.columns != width && tensor.columns != columns) => {
            Err(TensorError::shape("norm", format!("[1, {width}] or [1, {columns}]"), shape_of(tensor)))
        }
        parameter => Ok(parameter.as_ref().map(CpuTensor::values)),
    };
    Ok(RowNorm { kind, width, eps, weight: check(&norm.weight)?, bias: check(&norm.bias)? })
}

/// The largest numbers of the types that blocks are rounded to.
const E4M3_MAX: f32 = 448.0;
const E2M1_MAX: f32 = 6.0;

/// A block of numbers, rounded.
fn round_block(kind: BlockFloat, x: &[f32], out: &mut [f32]) {
    let largest = x.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
    // The power of two that is a number, or the next one above it.
    let power_above = |x: f32| {
        let below = f32::from_bits(x.to_bits() & 0x7f80_0000);
        if below == x { x } else { below * 2.0 }
    };
    let scale = match kind {
        BlockFloat::E4m3 => power_above(largest.max(1e-4) / E4M3_MAX),
        BlockFloat::E2m1 => power_above((largest / E2M1_MAX).max(f32::MIN_POSITIVE)),
        _ => round_e4m3((largest / E2M1_MAX).max(2f32.powi(-9))),
    };
    for (out, x) in out.iter_mut().zip(x) {
        let x = x / scale;
        *out = scale * if kind == BlockFloat::E4m3 { round_e4m3(x) } else { round_e2m1(x) };
    }
}

fn round_e4m3(x: f32) -> f32 {
    // Normal numbers have three bits after the first; those below the smallest one have its spacing.
    round_to_multiple(x, 3, -6).clamp(-E4M3_MAX, E4M3_MAX)
}

fn round_e2m1(x: f32) -> f32 {
    round_to_multiple(x, 1, 0).clamp(-E2M1_MAX, E2M1_MAX)
}

/// A number rounded to so many bits after its first one, but to no less than those of `2^least`; of two nearest to the even one.
fn round_to_multiple(x: f32, bits: i32, least: i32) -> f32 {
    let exponent = (((x.to_bits() >> 23) & 0xff) as i32 - 127).clamp(least, 120);
    let spacing = f32::from_bits(((exponent - bits + 127) as u32) << 23);
    (x / spacing).round_ties_even() * spacing
}

impl CpuBackend {
    /// Each row of `x` through `f` into a row of `columns`.
    pub(crate) fn map_rows(
        &self,
        x: &CpuTensor,
        columns: usize,
        f: impl Fn(&[f32], &mut [f32]) + Sync,
    ) -> Result<CpuTensor> {
        let mut out = self.buffer(x.rows * columns)?;
        let to = Shared::new(&mut out);
        self.rows(x.rows, x.columns.max(columns), &|i| {
            // SAFETY: each row is written by one task.
            f(x.row(i), unsafe { to.slice(i * columns, columns) });
        });
        Ok(CpuTensor::new(x.rows, columns, out))
    }

    /// A sum or product of two tensors; `b` may be one row or one column.
    pub(crate) fn broadcast(
        &self,
        operation: &'static str,
        a: &CpuTensor,
        b: &CpuTensor,
    ) -> Result<CpuTensor> {
        let (one_row, one_column) = (b.rows == 1 && a.rows != 1, b.columns == 1 && a.columns != 1);
        if (!one_row && b.rows != a.rows) || (!one_column && b.columns != a.columns) {
            same_shape(operation, a, b)?;
        }
        let adds = operation == "add";
        let mut out = self.buffer(a.rows * a.columns)?;
        let to = Shared::new(&mut out);
        self.rows(a.rows, a.columns, &|i| {
            let (x, y) = (a.row(i), b.row(if one_row { 0 } else { i }));
            // SAFETY: each row is written by one task; the table belongs to this machine.
            let to = unsafe { to.slice(i * a.columns, a.columns) };
            match (one_column, adds) {
                // SAFETY: as above.
                (false, true) => unsafe { (self.kernels.0.add)(x, y, to) },
                // SAFETY: as above.
                (false, false) => unsafe { (self.kernels.0.binary)(Binary::Mul, x, y, to) },
                (true, true) => to.iter_mut().zip(x).for_each(|(to, x)| *to = x + y[0]),
                (true, false) => to.iter_mut().zip(x).for_each(|(to, x)| *to = x * y[0]),
            }
        });
        Ok(CpuTensor::new(a.rows, a.columns, out))
    }

    /// Two tensors of one shape, element by element.
    pub(crate) fn run_binary(
        &self,
        operation: &'static str,
        kind: Binary,
        a: &CpuTensor,
        b: &CpuTensor,
    ) -> Result<CpuTensor> {
        same_shape(operation, a, b)?;
        let mut out = self.buffer(a.rows * a.columns)?;
        let to = Shared::new(&mut out);
        self.rows(a.rows, a.columns, &|i| {
            // SAFETY: each row is written by one task; the table belongs to this machine.
            unsafe {
                let to = to.slice(i * a.columns, a.columns);
                (self.kernels.0.binary)(kind, a.row(i), b.row(i), to);
            }
        });
        Ok(CpuTensor::new(a.rows, a.columns, out))
    }

    pub(crate) fn check_gate(&self, kind: Gate) -> Result<()> {
        match kind {
            Gate::Of(activation) => self.check_activation(activation),
            Gate::ClampedSwiglu { .. }
            | Gate::ClampedSilu { .. }
            | Gate::SiluOfClamped { .. }
            | Gate::Situ { .. } => Ok(()),
            other => Err(TensorError::Unsupported { backend: "cpu", what: format!("the gate {other:?}") }),
        }
    }

    fn check_activation(&self, activation: Activation) -> Result<()> {
        if has_activation(activation) {
            Ok(())
        } else {
            let what = format!("the activation {activation:?}");
            Err(TensorError::Unsupported { backend: "cpu", what })
        }
    }

    pub(crate) fn run_activate(&self, x: &CpuTensor, activation: Activation) -> Result<CpuTensor> {
        self.check_activation(activation)?;
        self.map_rows(x, x.columns, |x, out| {
            // SAFETY: the table belongs to this machine.
            unsafe { (self.kernels.0.activate)(activation, x, out) };
        })
    }

    pub(crate) fn run_norm(&self, x: &CpuTensor, norm: &Norm<CpuTensor>) -> Result<CpuTensor> {
        let norm = row_norm(x.columns, norm)?;
        self.map_rows(x, x.columns, |x, out| {
            // SAFETY: the table belongs to this machine; widths were checked.
            unsafe { (self.kernels.0.norm)(&norm, x, out) };
        })
    }

    pub(crate) fn run_reduce(&self, x: &CpuTensor, reduction: Reduction) -> Result<CpuTensor> {
        self.map_rows(x, 1, |x, out| {
            // SAFETY: the table belongs to this machine.
            out[0] = unsafe { (self.kernels.0.reduce)(x, reduction) };
        })
    }

    pub(crate) fn run_softmax(&self, x: &CpuTensor) -> Result<CpuTensor> {
        self.map_rows(x, x.columns, |x, out| {
            // What is no number is no maximum, and stays what it is.
            let highest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let below: Vec<f32> = x.iter().map(|x| x - highest).collect();
            // SAFETY: the table belongs to this machine.
            let sum = unsafe {
                (self.kernels.0.activate)(Activation::Exp, &below, out);
                (self.kernels.0.reduce)(out, Reduction::Sum)
            };
            for (out, below) in out.iter_mut().zip(&below) {
                // The exponential's smallest result is above zero.
                *out = if *below == f32::NEG_INFINITY { 0.0 } else { *out / sum };
            }
        })
    }

    pub(crate) fn run_sinkhorn(&self, x: &CpuTensor, iterations: usize, eps: f32) -> Result<CpuTensor> {
        let side = x.columns.isqrt();
        if side * side != x.columns || side == 0 || iterations == 0 {
            let found = format!("{} and {iterations} iterations", shape_of(x));
            return Err(TensorError::shape("sinkhorn", "rows of square matrices, and iterations", found));
        }
        self.map_rows(x, x.columns, |x, out| {
            for column in 0..side {
                let places = || (column..side * side).step_by(side);
                let highest = places().map(|place| x[place]).fold(f32::NEG_INFINITY, f32::max);
                let mut sum = 0.0;
                for place in places() {
                    out[place] = (x[place] - highest).exp();
                    sum += out[place];
                }
                places().for_each(|place| out[place] = out[place] / sum + eps);
            }
            for iteration in 0..iterations {
                for column in (0..side).filter(|_| iteration > 0) {
                    let places = || (column..side * side).step_by(side);
                    let sum = places().map(|place| out[place]).sum::<f32>() + eps;
                    places().for_each(|place| out[place] /= sum);
                }
                for row in out.chunks_exact_mut(side) {
                    let sum = row.iter().sum::<f32>() + eps;
                    row.iter_mut().for_each(|share| *share /= sum);
                }
            }
        })
    }

    pub(crate) fn run_round_blocks(&self, x: &CpuTensor, kind: BlockFloat) -> Result<CpuTensor> {
        let block = kind.block();
        if !x.columns.is_multiple_of(block) {
            let expected = format!("blocks of {block} columns");
            return Err(TensorError::shape("round_blocks", expected, shape_of(x)));
        }
        self.map_rows(x, x.columns, |x, out| {
            for (x, out) in x.chunks_exact(block).zip(out.chunks_exact_mut(block)) {
                round_block(kind, x, out);
            }
        })
    }

    pub(crate) fn run_weighted_sum(&self, x: &CpuTensor, weights: &CpuTensor) -> Result<CpuTensor> {
        let (rows, terms, columns) = (weights.rows, weights.columns, x.columns);
        if rows * terms != x.rows {
            let expected = format!("[{}, _] for weights of {}", rows * terms, shape_of(weights));
            return Err(TensorError::shape("weighted_sum", expected, shape_of(x)));
        }
        let mut out = self.buffer(rows * columns)?;
        let to = Shared::new(&mut out);
        self.rows(rows, terms * columns, &|i| {
            // SAFETY: each row is written by one task.
            let to = unsafe { to.slice(i * columns, columns) };
            to.fill(0.0);
            for (term, weight) in weights.row(i).iter().enumerate() {
                for (to, x) in to.iter_mut().zip(x.row(i * terms + term)) {
                    *to += x * weight;
                }
            }
        });
        Ok(CpuTensor::new(rows, columns, out))
    }

    pub(crate) fn run_join(&self, parts: &[&CpuTensor]) -> Result<CpuTensor> {
        let rows = parts.first().map_or(0, |part| part.rows);
        if parts.is_empty() || parts.iter().any(|part| part.rows != rows) {
            let found: Vec<String> = parts.iter().map(|part| shape_of(part)).collect();
            return Err(TensorError::shape("join", "tensors of equally many rows", format!("{found:?}")));
        }
        let columns = parts.iter().map(|part| part.columns).sum();
        let mut out = self.buffer(rows * columns)?;
        let to = Shared::new(&mut out);
        self.rows(rows, columns, &|i| {
            // SAFETY: each row is written by one task.
            let mut to = unsafe { to.slice(i * columns, columns) };
            for part in parts {
                let (own, rest) = to.split_at_mut(part.columns);
                own.copy_from_slice(part.row(i));
                to = rest;
            }
        });
        Ok(CpuTensor::new(rows, columns, out))
    }

    pub(crate) fn run_select_rows(&self, x: &CpuTensor, rows: &CpuIndices) -> Result<CpuTensor> {
        let columns = x.columns;
        let mut out = self.buffer(rows.len() * columns)?;
        let to = Shared::new(&mut out);
        self.rows(rows.len(), columns, &|i| {
            // SAFETY: each row is written by one task.
            let to = unsafe { to.slice(i * columns, columns) };
            match rows[i] as usize {
                row if row < x.rows => to.copy_from_slice(x.row(row)),
                _ => to.fill(0.0),
            }
        });
        Ok(CpuTensor::new(rows.len(), columns, out))
    }
}
