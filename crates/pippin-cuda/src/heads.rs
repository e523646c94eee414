//! What happens to queries, keys and values before the attention.

use std::collections::HashMap;

use cudarc::driver::{DeviceRepr, sys};
use pippin_tensor::{
    HeadSpec, Norm, NormKind, PositionScale, Result, RopeFrequencies, RopeSpec, Rotation, TensorError,
};

use crate::kv::shape_of;
use crate::launch::{THREADS, blocks, launch};
use crate::memory::{CudaIndices, CudaTensor};
use crate::{CudaBackend, CudaKvCache};

/// Warps of a block of `write_heads`, and the most numbers that a head can have there: as in the kernel.
const HEAD_WARPS: u32 = 4;
const MOST_DIM: usize = 512;

/// `HeadNorm` of the kernels.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct HeadNorm {
    weight: sys::CUdeviceptr,
    bias: sys::CUdeviceptr,
    eps: f32,
    kind: i32,
}

// SAFETY: plain numbers in the order and alignment of the kernels' structure.
unsafe impl DeviceRepr for HeadNorm {}

/// A norm of heads by themselves, all with the same parameters. `None`: it is another one.
fn head_norm(norm: Option<&Norm<CudaTensor>>, dim: usize) -> Option<HeadNorm> {
    let Some(norm) = norm else { return Some(HeadNorm { weight: 0, bias: 0, eps: 0.0, kind: 0 }) };
    let fits = |parameter: &Option<CudaTensor>| {
        parameter.as_ref().is_none_or(|parameter| (parameter.rows, parameter.columns) == (1, dim))
    };
    let at = |parameter: &Option<CudaTensor>| parameter.as_ref().map_or(0, CudaTensor::at);
    let kind = if norm.kind == NormKind::Layer { 2 } else { 1 };
    (norm.width == dim && fits(&norm.weight) && fits(&norm.bias)).then(|| HeadNorm {
        weight: at(&norm.weight),
        bias: at(&norm.bias),
        eps: norm.eps,
        kind,
    })
}

/// Checks what is to be rotated by which angles.
fn check_rope(x: &CudaTensor, angles: &CudaTensor, head_dim: usize, spec: &RopeSpec) -> Result<()> {
    if head_dim == 0
        || !x.columns.is_multiple_of(head_dim)
        || spec.dims > head_dim
        || !spec.dims.is_multiple_of(2)
    {
        let expected = format!("heads of {head_dim}, an even {} of them rotated", spec.dims);
        return Err(TensorError::shape("rope", expected, x.columns));
    }
    if angles.rows != x.rows || angles.columns != spec.dims {
        let expected = format!("angles of [{}, {}]", x.rows, spec.dims);
        return Err(TensorError::shape("rope", expected, shape_of(angles)));
    }
    Ok(())
}

impl CudaBackend {
    pub(crate) fn run_rope_angles(
        &self,
        positions: &CudaIndices,
        axes: usize,
        spec: &RopeSpec,
    ) -> Result<CudaTensor> {
        const OPERATION: &str = "rope_angles";
        let pairs = match &spec.frequencies {
            RopeFrequencies::Fixed(frequencies) => frequencies.len(),
            RopeFrequencies::Dynamic { .. } => spec.dims / 2,
        };
        if !spec.dims.is_multiple_of(2) || pairs != spec.dims / 2 {
            return Err(TensorError::shape(OPERATION, format!("{} frequencies", spec.dims / 2), pairs));
        }
        if axes == 0 || !positions.len.is_multiple_of(axes) {
            return Err(TensorError::shape(OPERATION, format!("positions of {axes} axes"), positions.len));
        }
        let of_pairs = spec.axes.as_deref();
        if of_pairs.is_some_and(|own| own.len() != pairs || own.iter().any(|axis| usize::from(*axis) >= axes))
        {
            let expected = format!("one of {axes} axes for each of {pairs} pairs");
            return Err(TensorError::shape(OPERATION, expected, format!("{of_pairs:?}")));
        }
        let rows = positions.len / axes;
        let out = self.output(rows, spec.dims)?;
        let (frequencies, dynamic) = match &spec.frequencies {
            RopeFrequencies::Fixed(frequencies) => (Some(frequencies.as_slice()), (0.0, 0.0, 0.0)),
            RopeFrequencies::Dynamic { base, factor, original_context } => {
                (None, (f64::from(*base), f64::from(*factor), *original_context as f64))
            }
        };
        let frequencies =
            frequencies.map(|own| CudaTensor::of(self.memory(), 1, own.len(), own)).transpose()?;
        // A byte for each pair, in words.
        let words: Option<Vec<u32>> = of_pairs.map(|own| {
            let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
            own.chunks(4).map(word).collect()
        });
        let axes_at = words.map(|words| CudaIndices::of(self.memory(), &words)).transpose()?;
        let (base, factor, original) = dynamic;
        launch!(
            self,
            "rope_angles",
            ((blocks(rows * pairs), 1), THREADS, 0),
            out.at(),
            positions.at(),
            frequencies.as_ref().map_or(0, CudaTensor::at),
            axes_at.as_ref().map_or(0, CudaIndices::at),
            rows as u32,
            pairs as u32,
            spec.scale,
            i32::from(frequencies.is_none()),
            base,
            factor,
            original
        )?;
        Ok(out)
    }

    pub(crate) fn run_position_scale(
        &self,
        positions: &CudaIndices,
        axes: usize,
        spec: PositionScale,
    ) -> Result<CudaTensor> {
        if axes == 0 || !positions.len.is_multiple_of(axes) {
            return Err(TensorError::shape(
                "position_scale",
                format!("positions of {axes} axes"),
                positions.len,
            ));
        }
        let rows = positions.len / axes;
        let out = self.output(rows, 1)?;
        let PositionScale::Logarithmic { floor, scale, first } = spec;
        let grid = (blocks(rows), 1);
        launch!(
            self,
            "position_scale",
            (grid, THREADS, 0),
            out.at(),
            positions.at(),
            rows as u32,
            floor,
            scale,
            first
        )?;
        Ok(out)
    }

    pub(crate) fn run_rope(
        &self,
        x: &CudaTensor,
        angles: &CudaTensor,
        head_dim: usize,
        spec: &RopeSpec,
    ) -> Result<CudaTensor> {
        check_rope(x, angles, head_dim, spec)?;
        let out = self.output(x.rows, x.columns)?;
        launch!(
            self,
            "rope",
            ((blocks(x.count()), 1), THREADS, 0),
            out.at(),
            x.at(),
            angles.at(),
            x.count() as u64,
            x.columns as u32,
            head_dim as u32,
            spec.dims as u32,
            i32::from(spec.traditional)
        )?;
        Ok(out)
    }

    pub(crate) fn run_kv_write(
        &self,
        cache: &mut CudaKvCache,
        keys: &CudaTensor,
        values: Option<&CudaTensor>,
        rows: &CudaIndices,
    ) -> Result<()> {
        cache.check_write(keys, values, rows.len)?;
        let rows = self.distinct(rows)?;
        let parts = cache.spec.kv_heads * if values.is_some() { 2 } else { 1 };
        let count = rows.len * parts * 32;
        let values = values.map_or(0, CudaTensor::at);
        let grid = (blocks(count), 1);
        launch!(
            self,
            "kv_write",
            (grid, THREADS, 0),
            cache.view(),
            keys.at(),
            values,
            rows.at(),
            rows.len as u32
        )
    }

    /// Places of a cache's rows: of those that come twice the last one counts, because kernels would mix what is written.
    fn distinct<'a>(&self, rows: &'a CudaIndices) -> Result<&'a CudaIndices> {
        rows.derived(self.memory(), |rows| {
            let last: HashMap<u32, usize> = rows.iter().enumerate().map(|(i, row)| (*row, i)).collect();
            rows.iter().enumerate().map(|(i, row)| if last[row] == i { *row } else { u32::MAX }).collect()
        })
    }

    pub(crate) fn run_write_heads(
        &self,
        queries: &CudaTensor,
        keys: &CudaTensor,
        values: Option<&CudaTensor>,
        spec: HeadSpec<'_, Self>,
        cache: &mut CudaKvCache,
        rows: &CudaIndices,
    ) -> Result<CudaTensor> {
        let dim = spec.key_dim;
        let largest = cache.spec.key_dim.max(cache.spec.values.dim());
        let fits = dim == cache.spec.key_dim && largest <= MOST_DIM;
        let norms = (head_norm(spec.query_norm, dim), head_norm(spec.key_norm, dim));
        let (Some(query_norm), Some(key_norm), true) = (norms.0, norms.1, fits) else {
            // One after the other.
            let rotated = |x: &CudaTensor, norm| {
                let x = self.normalised(x, norm)?;
                match spec.rotation {
                    Some(Rotation { angles, spec: rope }) => self.run_rope(&x, angles, dim, rope),
                    None => Ok(x),
                }
            };
            self.run_kv_write(cache, &rotated(keys, spec.key_norm)?, values, rows)?;
            return rotated(queries, spec.query_norm);
        };
        if let Some(Rotation { angles, spec: rope }) = spec.rotation {
            check_rope(queries, angles, dim, rope)?;
            check_rope(keys, angles, dim, rope)?;
        }
        cache.check_write(keys, values, rows.len)?;
        if queries.rows != keys.rows || !queries.columns.is_multiple_of(dim.max(1)) {
            let expected = format!("{} rows of heads of {dim}", keys.rows);
            return Err(TensorError::shape("write_heads", expected, shape_of(queries)));
        }
        let rows = self.distinct(rows)?;
        let out = self.output(queries.rows, queries.columns)?;
        let heads = queries.columns / dim.max(1);
        let parts = heads + cache.spec.kv_heads * if values.is_some() { 2 } else { 1 };
        let (angles, dims, is_traditional) = match spec.rotation {
            Some(Rotation { angles, spec }) => (angles.at(), spec.dims as u32, i32::from(spec.traditional)),
            None => (0, 0, 0),
        };
        let grid = ((queries.rows * parts).div_ceil(HEAD_WARPS as usize) as u32, 1);
        launch!(
            self,
            "write_heads",
            (grid, 32 * HEAD_WARPS, 0),
            out.at(),
            queries.at(),
            keys.at(),
            values.map_or(0, CudaTensor::at),
            cache.view(),
            rows.at(),
            rows.len as u32,
            heads as u32,
            query_norm,
            key_norm,
            angles,
            dims,
            is_traditional
        )?;
        Ok(out)
    }
}
