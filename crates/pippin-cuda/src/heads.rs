//! What happens to queries, keys and values before the attention.

use std::collections::HashMap;

use pippin_tensor::{PositionScale, Result, RopeFrequencies, RopeSpec, TensorError};

use crate::kv::shape_of;
use crate::launch::{THREADS, blocks, launch};
use crate::memory::{CudaIndices, CudaTensor};
use crate::{CudaBackend, CudaKvCache};

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
        // Of rows with one place the last one counts: the kernel would mix them.
        let rows = rows.derived(self.memory(), |rows| {
            let last: HashMap<u32, usize> = rows.iter().enumerate().map(|(i, row)| (*row, i)).collect();
            rows.iter().enumerate().map(|(i, row)| if last[row] == i { *row } else { u32::MAX }).collect()
        })?;
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
}
