//! Products with weight matrices: `kernels/products.cu`.

use pippin_tensor::{Result, TensorError};

use crate::kv::shape_of;
use crate::launch::{THREADS, blocks, launch};
use crate::memory::{CudaIndices, CudaTensor};
use crate::{CudaBackend, CudaMatrix};

/// Outputs of a block: one for each of its warps.
const OUTPUTS: usize = THREADS as usize / 32;
/// Rows that a warp computes together, where there are several.
const ROWS: usize = 8;

impl CudaBackend {
    pub(crate) fn run_embedding(&self, table: &CudaMatrix, rows: &CudaIndices) -> Result<CudaTensor> {
        let out = self.output(rows.len, table.columns)?;
        let count = rows.len * table.columns.div_ceil(8);
        let name = format!("embedding_{}", table.kind);
        let weights = table.weights(table.rows);
        let (len, limit) = (rows.len as u64, table.rows as u32);
        launch!(self, &name, ((blocks(count), 1), THREADS, 0), weights, out.at(), rows.at(), len, limit)?;
        Ok(out)
    }

    /// A product, with a bias that is added to each row if there is one.
    pub(crate) fn run_matmul(
        &self,
        x: &CudaTensor,
        weight: &CudaMatrix,
        bias: Option<&CudaTensor>,
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
        let out = self.output(x.rows, weight.rows)?;
        let of_each = if x.rows == 1 { 1 } else { ROWS };
        let grid = (weight.rows.div_ceil(OUTPUTS) as u32, x.rows.div_ceil(of_each) as u32);
        let name = format!("matmul_{}_{of_each}", weight.kind);
        let (weights, bias) = (weight.weights(weight.rows), bias.map_or(0, CudaTensor::at));
        launch!(self, &name, (grid, THREADS, 0), weights, out.at(), x.at(), x.rows as u32, bias)?;
        Ok(out)
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
        let out = self.output(routes.len, outputs)?;
        let grid = (routes.len as u32, outputs.div_ceil(OUTPUTS) as u32);
        let name = format!("gathered_{}", weight.kind);
        let weights = weight.weights(outputs);
        let (each, experts) = (each as u32, experts as u32);
        launch!(self, &name, (grid, THREADS, 0), weights, out.at(), x.at(), each, routes.at(), experts)?;
        Ok(out)
    }
}
