//! Operations on elements and rows: `kernels/rows.cu`.

use pippin_tensor::{Activation, BlockFloat, Gate, Norm, NormKind, Reduction, Result, TensorError};

use crate::kv::shape_of;
use crate::launch::{ROW_THREADS, THREADS, blocks, launch};
use crate::memory::{CudaIndices, CudaTensor};
use crate::{CudaBackend, unsupported};

/// The number of an activation in the kernels, and its parameter.
fn number_of(activation: Activation) -> Result<(i32, f32)> {
    Ok(match activation {
        Activation::Silu => (0, 0.0),
        Activation::Gelu => (1, 0.0),
        Activation::GeluTanh => (2, 0.0),
        Activation::GeluSigmoid => (3, 0.0),
        Activation::Relu => (4, 0.0),
        Activation::ReluSquared => (5, 0.0),
        Activation::Sigmoid => (6, 0.0),
        Activation::Tanh => (7, 0.0),
        Activation::Softplus => (8, 0.0),
        Activation::Exp => (9, 0.0),
        Activation::ExpExcess => (10, 0.0),
        Activation::Sqrt => (11, 0.0),
        Activation::Reciprocal => (12, 0.0),
        Activation::SoftCap(cap) => (13, cap),
        Activation::Clamp(limit) => (14, limit),
        other => return Err(unsupported(format!("the activation {other:?}"))),
    })
}

/// The number of a gate in the kernels, that of its activation, and its parameters.
pub(crate) fn numbers_of(kind: Gate) -> Result<(i32, i32, f32, f32)> {
    Ok(match kind {
        Gate::Of(activation) => {
            let (activation, parameter) = number_of(activation)?;
            (0, activation, parameter, 0.0)
        }
        Gate::ClampedSwiglu { alpha, limit } => (1, 0, alpha, limit),
        Gate::SiluOfClamped { limit } => (2, 0, 0.0, limit),
        Gate::Situ { beta, limit } => (3, 0, beta, limit.unwrap_or(0.0)),
        Gate::ClampedSilu { limit } => (4, 0, 0.0, limit),
        other => return Err(unsupported(format!("the gate {other:?}"))),
    })
}

impl CudaBackend {
    pub(crate) fn output(&self, rows: usize, columns: usize) -> Result<CudaTensor> {
        CudaTensor::new(self.memory(), rows, columns)
    }

    pub(crate) fn broadcast(
        &self,
        operation: &'static str,
        a: &CudaTensor,
        b: &CudaTensor,
    ) -> Result<CudaTensor> {
        let (one_row, one_column) = (b.rows == 1 && a.rows != 1, b.columns == 1 && a.columns != 1);
        if (!one_row && b.rows != a.rows) || (!one_column && b.columns != a.columns) {
            return Err(TensorError::shape(operation, shape_of(a), shape_of(b)));
        }
        let out = self.output(a.rows, a.columns)?;
        let adds = i32::from(operation == "add");
        launch!(
            self,
            "broadcast",
            ((blocks(a.count()), 1), THREADS, 0),
            out.at(),
            a.at(),
            b.at(),
            a.count() as u64,
            a.columns as u32,
            i32::from(one_row),
            i32::from(one_column),
            adds
        )?;
        Ok(out)
    }

    pub(crate) fn run_scale(&self, x: &CudaTensor, factor: f32, offset: f32) -> Result<CudaTensor> {
        let out = self.output(x.rows, x.columns)?;
        launch!(
            self,
            "scale",
            ((blocks(x.count()), 1), THREADS, 0),
            out.at(),
            x.at(),
            x.count() as u64,
            factor,
            offset
        )?;
        Ok(out)
    }

    pub(crate) fn run_activate(&self, x: &CudaTensor, activation: Activation) -> Result<CudaTensor> {
        let (kind, parameter) = number_of(activation)?;
        let out = self.output(x.rows, x.columns)?;
        launch!(
            self,
            "activate",
            ((blocks(x.count()), 1), THREADS, 0),
            out.at(),
            x.at(),
            x.count() as u64,
            kind,
            parameter
        )?;
        Ok(out)
    }

    pub(crate) fn run_gated(&self, gate: &CudaTensor, up: &CudaTensor, kind: Gate) -> Result<CudaTensor> {
        if (gate.rows, gate.columns) != (up.rows, up.columns) {
            return Err(TensorError::shape("gated", shape_of(gate), shape_of(up)));
        }
        let (number, activation, p, q) = numbers_of(kind)?;
        let out = self.output(gate.rows, gate.columns)?;
        let count = gate.count();
        let grid = (blocks(count), 1);
        launch!(
            self,
            "gated",
            (grid, THREADS, 0),
            out.at(),
            gate.at(),
            up.at(),
            count as u64,
            number,
            activation,
            p,
            q
        )?;
        Ok(out)
    }

    pub(crate) fn run_norm(&self, x: &CudaTensor, norm: &Norm<CudaTensor>) -> Result<CudaTensor> {
        let &Norm { kind, width, eps, .. } = norm;
        if width == 0 || !x.columns.is_multiple_of(width) {
            let expected = format!("a width that divides {} columns", x.columns);
            return Err(TensorError::shape("norm", expected, width));
        }
        let check = |parameter: &Option<CudaTensor>| match parameter {
            Some(tensor) if tensor.rows != 1 || (tensor.columns != width && tensor.columns != x.columns) => {
                let expected = format!("[1, {width}] or [1, {}]", x.columns);
                Err(TensorError::shape("norm", expected, shape_of(tensor)))
            }
            Some(tensor) => Ok((tensor.at(), i32::from(tensor.columns != width))),
            None => Ok((0, 0)),
        };
        let ((weight, weight_runs), (bias, bias_runs)) = (check(&norm.weight)?, check(&norm.bias)?);
        let out = self.output(x.rows, x.columns)?;
        let runs = x.columns / width;
        launch!(
            self,
            "normalise",
            (((x.rows * runs) as u32, 1), ROW_THREADS, 0),
            out.at(),
            x.at(),
            weight,
            bias,
            width as u32,
            runs as u32,
            eps,
            i32::from(kind == NormKind::Layer),
            weight_runs,
            bias_runs
        )?;
        Ok(out)
    }

    pub(crate) fn run_reduce(&self, x: &CudaTensor, reduction: Reduction) -> Result<CudaTensor> {
        let kind = match reduction {
            Reduction::Sum => 0,
            Reduction::Mean => 1,
            Reduction::RootMeanSquare => 2,
            Reduction::Deviation => 3,
            other => return Err(unsupported(format!("the reduction {other:?}"))),
        };
        let out = self.output(x.rows, 1)?;
        launch!(
            self,
            "reduce",
            ((x.rows as u32, 1), ROW_THREADS, 0),
            out.at(),
            x.at(),
            x.columns as u32,
            kind
        )?;
        Ok(out)
    }

    pub(crate) fn run_softmax(&self, x: &CudaTensor) -> Result<CudaTensor> {
        let out = self.output(x.rows, x.columns)?;
        launch!(self, "softmax", ((x.rows as u32, 1), ROW_THREADS, 0), out.at(), x.at(), x.columns as u32)?;
        Ok(out)
    }

    pub(crate) fn run_sinkhorn(&self, x: &CudaTensor, iterations: usize, eps: f32) -> Result<CudaTensor> {
        let side = x.columns.isqrt();
        if side * side != x.columns || side == 0 || iterations == 0 {
            let found = format!("{} and {iterations} iterations", shape_of(x));
            return Err(TensorError::shape("sinkhorn", "rows of square matrices, and iterations", found));
        }
        let out = self.output(x.rows, x.columns)?;
        let (rows, side, iterations) =
            (x.rows as u32, side as u32, u32::try_from(iterations).unwrap_or(u32::MAX));
        launch!(
            self,
            "sinkhorn",
            ((blocks(x.rows), 1), THREADS, 0),
            out.at(),
            x.at(),
            rows,
            side,
            iterations,
            eps
        )?;
        Ok(out)
    }

    pub(crate) fn run_round_blocks(&self, x: &CudaTensor, kind: BlockFloat) -> Result<CudaTensor> {
        let block = kind.block();
        if !x.columns.is_multiple_of(block) {
            return Err(TensorError::shape(
                "round_blocks",
                format!("blocks of {block} columns"),
                shape_of(x),
            ));
        }
        let number = match kind {
            BlockFloat::E4m3 => 0,
            BlockFloat::E2m1 => 1,
            BlockFloat::E2m1Fine => 2,
            other => return Err(unsupported(format!("blocks of {other:?}"))),
        };
        let out = self.output(x.rows, x.columns)?;
        let count = x.count() / block;
        launch!(
            self,
            "round_blocks",
            ((blocks(count), 1), THREADS, 0),
            out.at(),
            x.at(),
            count as u64,
            block as u32,
            number
        )?;
        Ok(out)
    }

    pub(crate) fn run_weighted_sum(&self, x: &CudaTensor, weights: &CudaTensor) -> Result<CudaTensor> {
        let (rows, terms, columns) = (weights.rows, weights.columns, x.columns);
        if rows * terms != x.rows {
            let expected = format!("[{}, _] for weights of {}", rows * terms, shape_of(weights));
            return Err(TensorError::shape("weighted_sum", expected, shape_of(x)));
        }
        let out = self.output(rows, columns)?;
        let (count, columns, terms) = (out.count(), columns as u32, terms as u32);
        let grid = (blocks(count), 1);
        launch!(
            self,
            "weighted_sum",
            (grid, THREADS, 0),
            out.at(),
            x.at(),
            weights.at(),
            count as u64,
            columns,
            terms
        )?;
        Ok(out)
    }

    /// Some columns of one tensor, into some of another.
    fn copy_columns(
        &self,
        to: &CudaTensor,
        to_first: usize,
        from: &CudaTensor,
        from_first: usize,
        columns: usize,
    ) -> Result<()> {
        let count = from.rows * columns;
        launch!(
            self,
            "copy_columns",
            ((blocks(count), 1), THREADS, 0),
            to.at(),
            from.at(),
            count as u64,
            columns as u32,
            to.columns as u32,
            to_first as u32,
            from.columns as u32,
            from_first as u32
        )
    }

    pub(crate) fn run_columns(&self, x: &CudaTensor, range: std::ops::Range<usize>) -> Result<CudaTensor> {
        if range.start > range.end || range.end > x.columns {
            return Err(TensorError::shape("columns", format!("columns {range:?}"), shape_of(x)));
        }
        let out = self.output(x.rows, range.len())?;
        self.copy_columns(&out, 0, x, range.start, range.len())?;
        Ok(out)
    }

    pub(crate) fn run_join(&self, parts: &[&CudaTensor]) -> Result<CudaTensor> {
        let rows = parts.first().map_or(0, |part| part.rows);
        if parts.is_empty() || parts.iter().any(|part| part.rows != rows) {
            let found: Vec<String> = parts.iter().map(|part| shape_of(part)).collect();
            return Err(TensorError::shape("join", "tensors of equally many rows", format!("{found:?}")));
        }
        let out = self.output(rows, parts.iter().map(|part| part.columns).sum())?;
        let mut first = 0;
        for part in parts {
            self.copy_columns(&out, first, part, 0, part.columns)?;
            first += part.columns;
        }
        Ok(out)
    }

    pub(crate) fn run_select_rows(&self, x: &CudaTensor, rows: &CudaIndices) -> Result<CudaTensor> {
        let out = self.output(rows.len, x.columns)?;
        let count = out.count();
        let (columns, limit) = (x.columns as u32, x.rows as u32);
        let grid = (blocks(count), 1);
        launch!(
            self,
            "select_rows",
            (grid, THREADS, 0),
            out.at(),
            x.at(),
            rows.at(),
            count as u64,
            columns,
            limit
        )?;
        Ok(out)
    }
}
