//! Products with weight matrices: `kernels/products.cu`.

use cudarc::driver::{DeviceRepr, sys};
use pippin_tensor::{Gate, Linear, Result, TensorError};

use crate::kv::shape_of;
use crate::launch::{THREADS, blocks, launch};
use crate::matrix::Weights;
use crate::memory::{CudaIndices, CudaTensor};
use crate::rows::numbers_of;
use crate::tiles::RowNorm;
use crate::{CudaBackend, CudaMatrix};

/// Outputs of a block: one for each of its warps.
const OUTPUTS: usize = THREADS as usize / 32;
/// Rows that a warp computes together, where there are several.
const ROWS: usize = 8;

/// Matrices of one launch.
const PARTS: usize = 3;

/// `Part` of the kernels.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Part {
    weights: Weights,
    out: sys::CUdeviceptr,
    bias: sys::CUdeviceptr,
    residual: sys::CUdeviceptr,
}

// SAFETY: plain numbers in the order and alignment of the kernels' structure.
unsafe impl DeviceRepr for Part {}

/// Rows that a warp computes together.
fn rows_of(x: &CudaTensor) -> usize {
    if x.rows == 1 { 1 } else { ROWS }
}

impl CudaBackend {
    pub(crate) fn run_embedding(&self, table: &CudaMatrix, rows: &CudaIndices) -> Result<CudaTensor> {
        if let Some(tiles) = table.tiles() {
            return self.tile_embedding(table, tiles, rows);
        }
        let out = self.output(rows.len, table.columns)?;
        let count = rows.len * table.columns.div_ceil(8);
        let name = format!("embedding_{}", table.kind);
        let weights = table.weights(table.rows);
        let (len, limit) = (rows.len as u64, table.rows as u32);
        launch!(self, &name, ((blocks(count), 1), THREADS, 0), weights, out.at(), rows.at(), len, limit)?;
        Ok(out)
    }

    /// A product, with a bias and a residual that are added where there are such.
    pub(crate) fn run_matmul(
        &self,
        x: &CudaTensor,
        weight: &CudaMatrix,
        bias: Option<&CudaTensor>,
        residual: Option<&CudaTensor>,
    ) -> Result<CudaTensor> {
        if let Some(tiles) = weight.tiles() {
            let mut outputs = self.tile_products(x, RowNorm::NONE, &[(weight, tiles, bias)], residual)?;
            return Ok(outputs.remove(0));
        }
        let (out, part) = self.part(x, weight, bias, residual)?;
        self.launch_parts(x, weight.kind, &[part])?;
        Ok(out)
    }

    /// Several linear layers of one input: in one launch as many neighbours of one kind as the kernel takes.
    pub(crate) fn run_linears(&self, x: &CudaTensor, linears: &[&Linear<Self>]) -> Result<Vec<CudaTensor>> {
        let mut outputs = Vec::with_capacity(linears.len());
        for alike in linears.chunk_by(|a, b| a.weight.kind == b.weight.kind) {
            if let Some(own) = self.tile_linears(x, None, alike)? {
                outputs.extend(own);
                continue;
            }
            for together in alike.chunks(PARTS) {
                let mut parts = Vec::with_capacity(PARTS);
                for linear in together {
                    let (out, part) = self.part(x, &linear.weight, linear.bias.as_ref(), None)?;
                    outputs.push(out);
                    parts.push(part);
                }
                self.launch_parts(x, together[0].weight.kind, &parts)?;
            }
        }
        Ok(outputs)
    }

    /// The gate of two linear layers of one input, whose matrices are of one kind and size.
    pub(crate) fn run_gated_linears(
        &self,
        x: &CudaTensor,
        gate: &Linear<Self>,
        up: &Linear<Self>,
        kind: Gate,
    ) -> Result<CudaTensor> {
        let (number, activation, p, q) = numbers_of(kind)?;
        let (out, gate_part) = self.part(x, &gate.weight, gate.bias.as_ref(), None)?;
        let (_, up_part) = self.part(x, &up.weight, up.bias.as_ref(), None)?;
        let of_each = rows_of(x);
        let grid = (gate.weight.rows.div_ceil(OUTPUTS) as u32, x.rows.div_ceil(of_each) as u32);
        let name = format!("gated_{}_{of_each}", gate.weight.kind);
        let rows = x.rows as u32;
        launch!(self, &name, (grid, THREADS, 0), gate_part, up_part, x.at(), rows, number, activation, p, q)?;
        Ok(out)
    }

    /// A product's output, when what belongs to the product has been checked.
    pub(crate) fn product_output(
        &self,
        x: &CudaTensor,
        weight: &CudaMatrix,
        bias: Option<&CudaTensor>,
        residual: Option<&CudaTensor>,
    ) -> Result<CudaTensor> {
        if x.columns != weight.columns {
            return Err(TensorError::shape("matmul", format!("[_, {}]", weight.columns), shape_of(x)));
        }
        if let Some(bias) = bias.filter(|bias| bias.rows != 1 || bias.columns != weight.rows) {
            return Err(TensorError::shape(
                "linear",
                format!("a bias of [1, {}]", weight.rows),
                shape_of(bias),
            ));
        }
        if let Some(residual) = residual.filter(|own| (own.rows, own.columns) != (x.rows, weight.rows)) {
            let expected = format!("[{}, {}]", x.rows, weight.rows);
            return Err(TensorError::shape("linear_add", expected, shape_of(residual)));
        }
        self.output(x.rows, weight.rows)
    }

    /// A product's output, and the product as kernels take it.
    fn part(
        &self,
        x: &CudaTensor,
        weight: &CudaMatrix,
        bias: Option<&CudaTensor>,
        residual: Option<&CudaTensor>,
    ) -> Result<(CudaTensor, Part)> {
        let out = self.product_output(x, weight, bias, residual)?;
        let at = |tensor: Option<&CudaTensor>| tensor.map_or(0, CudaTensor::at);
        let part = Part {
            weights: weight.weights(weight.rows),
            out: out.at(),
            bias: at(bias),
            residual: at(residual),
        };
        Ok((out, part))
    }

    fn launch_parts(&self, x: &CudaTensor, kind: &str, parts: &[Part]) -> Result<()> {
        let of_each = rows_of(x);
        let blocks =
            |part: Option<&Part>| part.map_or(0, |part| part.weights.outputs().div_ceil(OUTPUTS) as u32);
        let counts = [blocks(parts.first()), blocks(parts.get(1)), blocks(parts.get(2))];
        let Some(first) = parts.first().copied() else { return Ok(()) };
        let [second, third] = [1, 2].map(|index| parts.get(index).copied().unwrap_or(first));
        let grid = (counts.iter().sum(), x.rows.div_ceil(of_each) as u32);
        let name = format!("linears_{kind}_{of_each}");
        let rows = x.rows as u32;
        launch!(self, &name, (grid, THREADS, 0), first, second, third, counts[0], counts[1], x.at(), rows)
    }

    pub(crate) fn run_gathered_matmul(
        &self,
        x: &CudaTensor,
        weight: &CudaMatrix,
        experts: usize,
        routes: &CudaIndices,
    ) -> Result<CudaTensor> {
        const OPERATION: &str = "gathered_matmul";
        if x.columns != weight.columns {
            return Err(TensorError::shape(OPERATION, format!("[_, {}]", weight.columns), shape_of(x)));
        }
        let Some(outputs) =
            weight.rows.checked_div(experts).filter(|outputs| outputs * experts == weight.rows)
        else {
            let found = format!("{} rows of {experts} experts", weight.rows);
            return Err(TensorError::shape(OPERATION, "as many rows for each expert", found));
        };
        let Some(each) = routes.len.checked_div(x.rows).filter(|each| each * x.rows == routes.len) else {
            if x.rows == 0 && routes.len == 0 {
                return self.output(0, outputs);
            }
            return Err(TensorError::shape(
                OPERATION,
                format!("as many routes for each of {} rows", x.rows),
                routes.len,
            ));
        };
        if let Some(tiles) = weight.tiles() {
            return self.tile_gathered(x, weight, tiles, [experts, outputs, each], routes);
        }
        let out = self.output(routes.len, outputs)?;
        let grid = (routes.len as u32, outputs.div_ceil(OUTPUTS) as u32);
        let name = format!("gathered_{}", weight.kind);
        let weights = weight.weights(outputs);
        let (each, experts) = (each as u32, experts as u32);
        launch!(self, &name, (grid, THREADS, 0), weights, out.at(), x.at(), each, routes.at(), experts)?;
        Ok(out)
    }
}
