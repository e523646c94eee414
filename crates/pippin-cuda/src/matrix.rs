//! Weight matrices in the memory of a device, packed as in the checkpoint.

use std::rc::Rc;

use cudarc::driver::{DeviceRepr, sys};
use pippin_tensor::{Dtype, MatrixData, QuantMode, Result, TensorData, TensorError};

use crate::launch::launch;
use crate::memory::{Block, Memory};
use crate::{CudaBackend, unsupported};

/// A weight matrix `[outputs, inputs]` on a device.
#[derive(Debug)]
pub struct CudaMatrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    data: Block,
    scales: Option<Block>,
    biases: Option<Block>,
    bits: u32,
    group: u32,
    scale_kind: u32,
    /// As kernels are called for it.
    pub(crate) kind: &'static str,
}

/// The kind of matrices that are packed as `kernels/tiles.cu` reads them.
const TILES: &str = "tiles";
/// Rows, columns and bytes of a tile, and columns that share a scale in it.
pub(crate) const TILE_ROWS: usize = 16;
const TILE_COLUMNS: usize = 256;
const TILE_BYTES: usize = 2304;
const TILE_GROUP: usize = 64;

/// A matrix in tiles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles {
    pub(crate) at: sys::CUdeviceptr,
    /// Tiles beside each other.
    pub(crate) quads: usize,
    /// Whether scales and biases are `f16`, and not `bf16`.
    pub(crate) is_f16: bool,
}

/// `Weights` of `kernels/products.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Weights {
    data: sys::CUdeviceptr,
    scales: sys::CUdeviceptr,
    biases: sys::CUdeviceptr,
    outputs: u32,
    columns: u32,
    bits: u32,
    group: u32,
    scale_kind: u32,
}

// SAFETY: plain numbers in the order and alignment of the kernels' structure.
unsafe impl DeviceRepr for Weights {}

impl Weights {
    pub(crate) fn outputs(&self) -> usize {
        self.outputs as usize
    }
}

fn dense_kind(dtype: Dtype) -> Option<(&'static str, u32)> {
    match dtype {
        Dtype::F32 => Some(("f32", 0)),
        Dtype::F16 => Some(("f16", 1)),
        Dtype::Bf16 => Some(("bf16", 2)),
        _ => None,
    }
}

fn copy(memory: &Rc<Memory>, data: &TensorData) -> Result<Block> {
    let block = memory.keep(data.byte_len(), "weights")?;
    block.write(0, data.bytes())?;
    Ok(block)
}

impl CudaMatrix {
    pub(crate) fn new(memory: &Rc<Memory>, data: &MatrixData) -> Result<Self> {
        let size = |rows: usize, columns: usize| {
            let fits = u32::try_from(rows).is_ok() && u32::try_from(columns).is_ok();
            fits.then_some(()).ok_or_else(|| unsupported(format!("matrices of [{rows}, {columns}]")))
        };
        match data {
            MatrixData::Dense(data) => {
                let &[rows, columns] = data.shape() else {
                    return Err(TensorError::shape(
                        "matrix",
                        "two dimensions",
                        format!("{:?}", data.shape()),
                    ));
                };
                size(rows, columns)?;
                let (kind, _) = dense_kind(data.dtype())
                    .ok_or_else(|| unsupported(format!("{} matrices ({})", data.dtype(), data.name())))?;
                let data = copy(memory, data)?;
                Ok(Self {
                    rows,
                    columns,
                    data,
                    scales: None,
                    biases: None,
                    bits: 0,
                    group: 1,
                    scale_kind: 0,
                    kind,
                })
            }
            MatrixData::Quantized(data) => {
                let (rows, columns, name) = (data.rows, data.cols, data.weight.name());
                size(rows, columns)?;
                let (kind, scale_kind) = match (data.spec.mode, data.spec.bits) {
                    (QuantMode::Affine, bits) => {
                        let (_, scale_kind) = dense_kind(data.scales.dtype())
                            .ok_or_else(|| unsupported(format!("{} scales ({name})", data.scales.dtype())))?;
                        (if bits == 4 { "affine4" } else { "affine" }, scale_kind)
                    }
                    (QuantMode::Mxfp4, _) => ("e2m1", 3),
                    (QuantMode::Mxfp8, _) => ("e4m3", 3),
                    (QuantMode::Nvfp4, _) => ("e2m1", 4),
                };
                let has_biases = match &data.biases {
                    Some(biases) => biases.dtype() == data.scales.dtype(),
                    None => false,
                };
                if has_biases != (data.spec.mode == QuantMode::Affine) {
                    let found =
                        data.biases.as_ref().map_or("none".to_owned(), |biases| biases.dtype().to_string());
                    return Err(TensorError::shape(
                        "matrix",
                        format!("biases as {} asks for beside {name}", data.spec),
                        found,
                    ));
                }
                // The kernels read without further checks: the sizes must be what the shape says.
                let element = [4, 2, 2, 1, 1][scale_kind as usize];
                let groups = columns / data.spec.group_size;
                let is_whole =
                    columns.is_multiple_of(data.spec.group_size) && data.spec.group_size.is_multiple_of(8);
                if !is_whole
                    || data.weight.byte_len() != rows * (columns * data.spec.bits as usize / 8)
                    || data.scales.byte_len() != element * rows * groups
                    || data.biases.as_ref().is_some_and(|biases| biases.byte_len() != element * rows * groups)
                {
                    let expected = format!("[{rows}, {columns}] as {}", data.spec);
                    return Err(TensorError::shape("matrix", expected, format!("{name} with other sizes")));
                }
                Ok(Self {
                    rows,
                    columns,
                    data: copy(memory, &data.weight)?,
                    scales: Some(copy(memory, &data.scales)?),
                    biases: data.biases.as_ref().map(|biases| copy(memory, biases)).transpose()?,
                    bits: data.spec.bits,
                    group: data.spec.group_size as u32,
                    scale_kind,
                    kind,
                })
            }
        }
    }

    /// The matrix in tiles, if it is packed so.
    pub(crate) fn tiles(&self) -> Option<Tiles> {
        let quads = self.columns.div_ceil(TILE_COLUMNS);
        (self.kind == TILES).then(|| Tiles { at: self.data.at(), quads, is_f16: self.scale_kind == 1 })
    }

    /// The same matrix in tiles, where such are for its kind: four bits, 64 or 128 weights that share a scale of 16 bits.
    pub(crate) fn in_tiles(self, backend: &CudaBackend) -> Result<Self> {
        let (lines, quads) = (self.rows.div_ceil(TILE_ROWS), self.columns.div_ceil(TILE_COLUMNS));
        let is_fit = self.kind == "affine4"
            && matches!(self.scale_kind, 1 | 2)
            && (self.group as usize).is_multiple_of(TILE_GROUP)
            && self.rows > 0;
        let (Some(count), Some(scales), Some(biases), true) =
            (u32::try_from(lines * quads).ok(), &self.scales, &self.biases, is_fit)
        else {
            return Ok(self);
        };
        let data = backend.memory().keep(lines * quads * TILE_BYTES, "weights")?;
        launch!(
            backend,
            "pack_tiles",
            ((count, 1), 128, 0),
            data.at(),
            self.data.at(),
            scales.at(),
            biases.at(),
            self.rows as u32,
            self.columns as u32,
            self.group,
            quads as u32
        )?;
        // The places of what was copied are given back when that is done: a block that is dropped waits.
        Ok(Self { data, scales: None, biases: None, kind: TILES, ..self })
    }

    /// As kernels take it, for so many outputs: a stack of experts has several matrices of them.
    pub(crate) fn weights(&self, outputs: usize) -> Weights {
        let at = |block: &Option<Block>| block.as_ref().map_or(0, Block::at);
        Weights {
            data: self.data.at(),
            scales: at(&self.scales),
            biases: at(&self.biases),
            outputs: outputs as u32,
            columns: self.columns as u32,
            bits: self.bits,
            group: self.group,
            scale_kind: self.scale_kind,
        }
    }
}
