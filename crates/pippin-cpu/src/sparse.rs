//! Attention over keys that an index chooses.
//!
//! What a row sees is copied to pages of its own, in order; then the row is a sequence by itself, and attention is the usual
//! one. So a row that sees all of its sequence has the same bits as without an index: pages are as large, and segments the
//! same.

use std::sync::OnceLock;

use pippin_tensor::{AttentionSpec, KeyChoice, KvFormat, Reach, Result, StepInputs, TensorError};

use crate::{
    CpuBackend, CpuIndices, CpuKvCache, CpuTensor,
    attention::{SCRATCH, Sequence, Tables, Visible},
    kernels::attention::{KvView, RankTask},
    kv::SharedView,
    shape_of,
    tensor::Shared,
};

/// Rows whose keys are copied at once: some megabytes each, for keys as wide as they are published.
const BLOCK: usize = 16;

impl CpuBackend {
    /// [`choose_keys`](pippin_tensor::Backend::choose_keys).
    pub(crate) fn run_choose_keys(
        &self,
        [queries, weights]: [&CpuTensor; 2],
        cache: &CpuKvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &KeyChoice,
    ) -> Result<CpuIndices> {
        let &KeyChoice { heads, key_dim, top_k } = spec;
        let tables = Tables::new("choose_keys", cache, step, group)?;
        let view = SharedView(cache.view());
        if (view.get().kv_heads, view.get().key_dim) != (1, key_dim) || key_dim == 0 || top_k == 0 {
            let found = format!("{} of {}, and {spec:?}", view.get().kv_heads, view.get().key_dim);
            return Err(TensorError::shape("choose_keys", "one head of the index's keys", found));
        }
        for (operand, columns) in [(queries, heads.saturating_mul(key_dim)), (weights, heads)] {
            if (operand.rows, operand.columns) != (step.rows, columns) {
                let expected = format!("[{}, {columns}]", step.rows);
                return Err(TensorError::shape("choose_keys", expected, shape_of(operand)));
            }
        }
        let longest = step.visible_ends.iter().max().copied().unwrap_or(0) as usize;
        let width = top_k.min(longest);
        let sequences = tables.sequences();
        let pages: Vec<&[u32]> = sequences.iter().flat_map(|of| of.rows.clone().map(|_| of.pages)).collect();
        let chosen: Vec<OnceLock<Vec<u32>>> = (0..step.rows).map(|_| OnceLock::new()).collect();
        self.pool.run(step.rows, &|row| {
            let seen = step.visible_ends[row];
            let keys = if seen as usize <= top_k {
                (0..seen).collect()
            } else {
                let task = RankTask {
                    queries: queries.row(row),
                    weights: weights.row(row),
                    kv: view.get(),
                    pages: pages[row],
                };
                let mut ranks = vec![0.0; seen as usize];
                // SAFETY: shapes, pages and lengths were checked.
                SCRATCH.with_borrow_mut(|scratch| unsafe {
                    (self.kernels.0.ranks)(&task, &mut ranks, scratch);
                });
                best(&ranks, top_k)
            };
            // Each row is one task's.
            let _ = chosen[row].set(keys);
        });
        let mut all = vec![u32::MAX; step.rows * width];
        for (to, keys) in all.chunks_exact_mut(width.max(1)).zip(&chosen) {
            let keys = keys.get().map_or(&[][..], Vec::as_slice);
            to[..keys.len()].copy_from_slice(keys);
        }
        Ok(CpuIndices::new(&all))
    }

    /// [`attention_among`](pippin_tensor::Backend::attention_among).
    pub(crate) fn run_attention_among(
        &self,
        queries: &CpuTensor,
        cache: &CpuKvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &AttentionSpec,
        chosen: &CpuIndices,
    ) -> Result<CpuTensor> {
        cache.check_attention(spec)?;
        if spec.reach != Reach::All {
            let found = format!("{:?}", spec.reach);
            return Err(TensorError::shape("attention_among", "a reach over everything", found));
        }
        let columns = spec.heads.saturating_mul(spec.key_dim);
        if (queries.rows, queries.columns) != (step.rows, columns) {
            let expected = format!("[{}, {columns}]", step.rows);
            return Err(TensorError::shape("attention_among", expected, shape_of(queries)));
        }
        if !chosen.len().is_multiple_of(step.rows.max(1)) {
            let expected = format!("as many keys for each of {} rows", step.rows);
            return Err(TensorError::shape("attention_among", expected, chosen.len()));
        }
        let tables = Tables::new("attention_among", cache, step, group)?;
        let width = chosen.len() / step.rows.max(1);
        // Of what a row may see; the list of its keys ends where they do.
        let keys = |row: usize| {
            let keys = &chosen[row * width..][..width];
            let end = step.visible_ends[row];
            &keys[..keys.iter().position(|key| *key >= end).unwrap_or(width)]
        };
        let sequences = tables.sequences();
        let pages: Vec<&[u32]> = sequences.iter().flat_map(|of| of.rows.clone().map(|_| of.pages)).collect();
        let view = SharedView(cache.view());
        let page_size = view.get().page_size;
        let own_pages = width.div_ceil(page_size);
        let own_table: Vec<u32> = (0..(own_pages * BLOCK.min(step.rows)) as u32).collect();
        let out_columns = spec.heads * spec.value_dim;
        let mut out = self.buffer(step.rows * out_columns)?;
        for first in (0..step.rows).step_by(BLOCK) {
            let rows = BLOCK.min(step.rows - first);
            let len = |dim: usize| {
                let page = page_size * view.get().kv_heads * view.get().format.row_bytes(dim);
                (rows * own_pages * page).div_ceil(size_of::<f32>())
            };
            let in_keys = view.get().values_in_keys();
            let lens = [len(view.get().key_dim), if in_keys { 0 } else { len(spec.value_dim) }];
            let mut copies = [self.buffer(lens[0])?, self.buffer(lens[1])?];
            let to = [Shared::new(&mut copies[0]), Shared::new(&mut copies[1])];
            let own = KvView {
                keys: to[0].at(0).cast(),
                values: if in_keys { to[0].at(0).cast() } else { to[1].at(0).cast() },
                ..view.get()
            };
            let own = SharedView(own);
            self.pool.run(rows, &|row| {
                // SAFETY: indices are below the ends of what rows see, whose pages were checked; each row writes to pages of
                // its own.
                unsafe {
                    view.get().copy(pages[first + row], keys(first + row), &own.get(), row * own_pages)
                };
            });
            let own_sequences: Vec<Sequence<'_>> = (0..rows)
                .map(|row| Sequence { rows: row..row + 1, pages: &own_table[row * own_pages..][..own_pages] })
                .collect();
            let ends = (0..rows).map(|row| keys(first + row).len() as u32).collect();
            let visible = Visible { firsts: vec![0; rows], ends };
            let mut own_queries = self.buffer(rows * columns)?;
            own_queries[..rows * columns]
                .copy_from_slice(&queries.values()[first * columns..][..rows * columns]);
            let own_queries = CpuTensor::new(rows, columns, own_queries);
            let mixed = self.attend(&own_queries, own, &own_sequences, &visible, spec, None)?;
            out[first * out_columns..][..rows * out_columns].copy_from_slice(mixed.values());
        }
        Ok(CpuTensor::new(step.rows, out_columns, out))
    }
}

/// The indices of the highest ranks, ascending; of equals the first. What is no number is higher than all.
fn best(ranks: &[f32], count: usize) -> Vec<u32> {
    let rank =
        |index: &u32| Some(ranks[*index as usize]).filter(|rank| !rank.is_nan()).unwrap_or(f32::INFINITY);
    let mut order: Vec<u32> = (0..ranks.len() as u32).collect();
    if count < order.len() {
        order.select_nth_unstable_by(count, |a, b| rank(b).total_cmp(&rank(a)).then(a.cmp(b)));
        order.truncate(count);
        order.sort_unstable();
    }
    order
}

impl KvView {
    fn values_in_keys(&self) -> bool {
        self.keys == self.values
    }

    /// Copies a sequence's tokens to pages of another cache of this shape, from `first_page` on.
    ///
    /// # Safety
    /// The tokens are in the sequence's pages, which lie in the cache; `to` has room for them, which nobody else uses.
    unsafe fn copy(&self, pages: &[u32], tokens: &[u32], to: &Self, first_page: usize) {
        let &Self { page_size, kv_heads, format, key_dim, value_dim, .. } = self;
        let element = match format {
            KvFormat::F32 => 4,
            KvFormat::F16 | KvFormat::Bf16 => 2,
            KvFormat::Int8 => 1,
        };
        let keys = (self.keys, to.keys.cast_mut(), key_dim);
        let values = (!self.values_in_keys()).then_some((self.values, to.values.cast_mut(), value_dim));
        for (from, to, dim) in std::iter::once(keys).chain(values) {
            let (row, block) = (dim * element, page_size * format.row_bytes(dim));
            for (place, token) in tokens.iter().enumerate() {
                let (page, slot) = (pages[*token as usize / page_size] as usize, *token as usize % page_size);
                let (to_page, to_slot) = (first_page + place / page_size, place % page_size);
                for head in 0..kv_heads {
                    // SAFETY: by contract; a block holds the rows of one head, then their scales.
                    unsafe {
                        let from = from.add((page * kv_heads + head) * block);
                        let to = to.add((to_page * kv_heads + head) * block);
                        std::ptr::copy_nonoverlapping(from.add(slot * row), to.add(to_slot * row), row);
                        if format == KvFormat::Int8 {
                            let scales = page_size * row;
                            let (from, to) = (from.add(scales + 4 * slot), to.add(scales + 4 * to_slot));
                            std::ptr::copy_nonoverlapping(from, to, 4);
                        }
                    }
                }
            }
        }
    }
}
