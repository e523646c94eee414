//! What happens to queries, keys and values before the attention: rotations, and the write into the cache.

use pippin_tensor::{HeadSpec, PositionScale, Result, RopeSpec, TensorError};

use crate::{
    CpuBackend, CpuIndices, CpuKvCache, CpuTensor, kernels::elementwise::RowNorm, rope, rows::row_norm,
    tensor::Shared,
};

impl CpuBackend {
    pub(crate) fn run_rope_angles(
        &self,
        positions: &CpuIndices,
        axes: usize,
        spec: &RopeSpec,
    ) -> Result<CpuTensor> {
        rope::check(positions.len(), axes, spec)?;
        let rows = positions.len() / axes;
        let mut out = self.buffer(rows * spec.dims)?;
        let to = Shared::new(&mut out);
        self.rows(rows, 32 * spec.dims, &|i| {
            // SAFETY: each row is written by one task.
            let to = unsafe { to.slice(i * spec.dims, spec.dims) };
            rope::angles(|axis| positions[axis * rows + i], spec, to);
        });
        Ok(CpuTensor::new(rows, spec.dims, out))
    }

    pub(crate) fn run_position_scale(
        &self,
        positions: &CpuIndices,
        axes: usize,
        spec: PositionScale,
    ) -> Result<CpuTensor> {
        if axes == 0 || !positions.len().is_multiple_of(axes) {
            let expected = format!("positions of {axes} axes");
            return Err(TensorError::shape("position_scale", expected, positions.len()));
        }
        let rows = positions.len() / axes;
        let mut out = self.buffer(rows)?;
        let PositionScale::Logarithmic { floor, scale, first } = spec;
        for (out, position) in out.iter_mut().zip(&positions[..rows]) {
            *out = ((*position as f32 + first) / floor).floor().ln_1p() * scale + 1.0;
        }
        Ok(CpuTensor::new(rows, 1, out))
    }

    pub(crate) fn run_rope(
        &self,
        x: &CpuTensor,
        angles: &CpuTensor,
        head_dim: usize,
        spec: &RopeSpec,
    ) -> Result<CpuTensor> {
        rope::check_operands(x, angles, head_dim, spec)?;
        let mut out = self.buffer(x.rows * x.columns)?;
        let to = Shared::new(&mut out);
        self.rows(x.rows, x.columns, &|i| {
            // SAFETY: each row is written by one task.
            let to = unsafe { to.slice(i * x.columns, x.columns) };
            to.copy_from_slice(x.row(i));
            rope::rotate(to, angles.row(i), head_dim, spec);
        });
        Ok(CpuTensor::new(x.rows, x.columns, out))
    }

    /// Calls `task` for every row that is written to the cache: in parallel only if no two write to the same place.
    fn write_rows(&self, rows: &CpuIndices, columns: usize, task: &(dyn Fn(usize) + Sync)) {
        if rows.are_distinct() {
            self.rows(rows.len(), columns, task);
        } else {
            (0..rows.len()).for_each(task);
        }
    }

    pub(crate) fn run_kv_write(
        &self,
        cache: &mut CpuKvCache,
        keys: &CpuTensor,
        values: Option<&CpuTensor>,
        rows: &CpuIndices,
    ) -> Result<()> {
        cache.check_write(keys, values, rows.len())?;
        let writer = cache.writer();
        self.write_rows(rows, keys.columns, &|i| {
            // SAFETY: tasks that run together write different rows.
            unsafe { writer.write(rows[i] as usize, keys.row(i), values.map(|values| values.row(i))) };
        });
        Ok(())
    }

    pub(crate) fn run_write_heads(
        &self,
        queries: &CpuTensor,
        keys: &CpuTensor,
        values: Option<&CpuTensor>,
        spec: HeadSpec<'_, Self>,
        cache: &mut CpuKvCache,
        rows: &CpuIndices,
    ) -> Result<CpuTensor> {
        if let Some(rotation) = &spec.rotation {
            rope::check_operands(queries, rotation.angles, spec.key_dim, rotation.spec)?;
            rope::check_operands(keys, rotation.angles, spec.key_dim, rotation.spec)?;
        }
        let norm = |norm, x: &CpuTensor| -> Result<Option<RowNorm<'_>>> {
            Option::map(norm, |norm| row_norm(x.columns, norm)).transpose()
        };
        let (query_norm, key_norm) = (norm(spec.query_norm, queries)?, norm(spec.key_norm, keys)?);
        cache.check_write(keys, values, rows.len())?;
        if queries.rows != keys.rows {
            let expected = format!("{} rows of queries", keys.rows);
            return Err(TensorError::shape("write_heads", expected, queries.rows));
        }
        let writer = cache.writer();
        let mut out = self.buffer(queries.rows * queries.columns)?;
        let mut rotated = self.buffer(keys.rows * keys.columns)?;
        let (out_to, keys_to) = (Shared::new(&mut out), Shared::new(&mut rotated));
        self.write_rows(rows, queries.columns + keys.columns, &|i| {
            let prepare = |x: &[f32], norm: &Option<RowNorm<'_>>, to: &mut [f32]| {
                match norm {
                    // SAFETY: the table belongs to this machine; widths were checked.
                    Some(norm) => unsafe { (self.kernels.0.norm)(norm, x, to) },
                    None => to.copy_from_slice(x),
                }
                if let Some(rotation) = &spec.rotation {
                    rope::rotate(to, rotation.angles.row(i), spec.key_dim, rotation.spec);
                }
            };
            // SAFETY: each row is written by one task, and tasks that run together write different rows of the cache.
            unsafe {
                let query = out_to.slice(i * queries.columns, queries.columns);
                let key = keys_to.slice(i * keys.columns, keys.columns);
                prepare(queries.row(i), &query_norm, query);
                prepare(keys.row(i), &key_norm, key);
                writer.write(rows[i] as usize, key, values.map(|values| values.row(i)));
            }
        });
        Ok(CpuTensor::new(queries.rows, queries.columns, out))
    }
}
