//! Attention over keys that an index chooses.
//!
//! What a row sees is copied to pages of its own, in order; then the row is a sequence by itself, and attention is the usual
//! one. So a row that sees all of its sequence has the same bits as without an index: pages are as large, and segments the
//! same.

use std::sync::OnceLock;

use pippin_tensor::{AttentionSpec, Beside, KeyChoice, KvFormat, Reach, Result, StepInputs, TensorError};

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
        among: Option<&CpuIndices>,
    ) -> Result<CpuIndices> {
        let &KeyChoice { heads, key_dim, top_k, stride, block } = spec;
        let tables = Tables::new("choose_keys", cache, step, group)?;
        let view = SharedView(cache.view());
        let sizes = [key_dim, top_k, stride, block];
        if (view.get().kv_heads, view.get().key_dim) != (1, key_dim) || sizes.contains(&0) {
            let found = format!("{} of {}, and {spec:?}", view.get().kv_heads, view.get().key_dim);
            return Err(TensorError::shape("choose_keys", "one head of the index's keys", found));
        }
        for (operand, columns) in [(queries, heads.saturating_mul(key_dim)), (weights, heads)] {
            if (operand.rows, operand.columns) != (step.rows, columns) {
                let expected = format!("[{}, {columns}]", step.rows);
                return Err(TensorError::shape("choose_keys", expected, shape_of(operand)));
            }
        }
        let of_each = among.map_or(0, |among| among.len() / step.rows.max(1));
        if among.is_some_and(|among| among.len() != of_each * step.rows || block > 1) {
            let expected = format!("as many keys for each of {} rows, one by one", step.rows);
            return Err(TensorError::shape("choose_keys", expected, format!("{spec:?}")));
        }
        let longest = step.visible_ends.iter().max().copied().unwrap_or(0) as usize / stride;
        let count = top_k.saturating_mul(block);
        let width = count.min(longest);
        let sequences = tables.sequences();
        let pages: Vec<&[u32]> = sequences.iter().flat_map(|of| of.rows.clone().map(|_| of.pages)).collect();
        let chosen: Vec<OnceLock<Vec<u32>>> = (0..step.rows).map(|_| OnceLock::new()).collect();
        self.pool.run(step.rows, &|row| {
            let seen = step.visible_ends[row];
            let keys: Vec<u32> = match among {
                Some(among) => {
                    let own = among[row * of_each..][..of_each].iter();
                    own.copied().take_while(|token| *token < seen).collect()
                }
                None => (1..=seen / stride as u32).map(|key| key * stride as u32 - 1).collect(),
            };
            let keys = if keys.len() <= count {
                keys
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
                let ranks: Vec<f32> = keys.iter().map(|token| ranks[*token as usize]).collect();
                best_blocks(&ranks, top_k, block).into_iter().map(|key| keys[key]).collect()
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
        beside: Option<Beside<'_, CpuKvCache>>,
        sinks: Option<&CpuTensor>,
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
        let other = match beside {
            Some(Beside { cache, group, reach }) => {
                let other = SharedView(cache.view());
                if other.get().shape() != view.get().shape() || reach.limit() == Some(0) {
                    let expected = format!("another cache of {:?}", view.get().shape());
                    let found = format!("{:?}, {reach:?}", other.get().shape());
                    return Err(TensorError::shape("attention_among", expected, found));
                }
                Some((other, Tables::new("attention_among", cache, step, group)?, reach))
            }
            None => None,
        };
        let other_sequences = other.as_ref().map(|(_, tables, _)| tables.sequences()).unwrap_or_default();
        let other_pages: Vec<&[u32]> =
            other_sequences.iter().flat_map(|of| of.rows.clone().map(|_| of.pages)).collect();
        // The keys of the other cache that a row sees, which come first.
        let besides = |row: usize| match &other {
            Some((_, _, reach)) => reach.first(step.indices[row] as usize) as u32..step.visible_ends[row],
            None => 0..0,
        };
        let most = (0..step.rows).map(|row| besides(row).len()).max().unwrap_or(0) + width;
        let page_size = view.get().page_size;
        let own_pages = most.div_ceil(page_size);
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
                let (at, besides) = (row * own_pages * page_size, besides(first + row));
                // SAFETY: indices are below the ends of what rows see, whose pages were checked; each row writes to pages of
                // its own, which have room for both.
                unsafe {
                    if let Some((other, ..)) = &other {
                        other.get().copy(other_pages[first + row], besides.clone(), &own.get(), at);
                    }
                    let keys = keys(first + row).iter().copied();
                    view.get().copy(pages[first + row], keys, &own.get(), at + besides.len());
                };
            });
            let own_sequences: Vec<Sequence<'_>> = (0..rows)
                .map(|row| Sequence { rows: row..row + 1, pages: &own_table[row * own_pages..][..own_pages] })
                .collect();
            let ends =
                (first..first + rows).map(|row| (besides(row).len() + keys(row).len()) as u32).collect();
            let visible = Visible { firsts: vec![0; rows], ends };
            let mut own_queries = self.buffer(rows * columns)?;
            own_queries[..rows * columns]
                .copy_from_slice(&queries.values()[first * columns..][..rows * columns]);
            let own_queries = CpuTensor::new(rows, columns, own_queries);
            let mixed = self.attend(&own_queries, own, &own_sequences, &visible, spec, sinks)?;
            out[first * out_columns..][..rows * out_columns].copy_from_slice(mixed.values());
        }
        Ok(CpuTensor::new(step.rows, out_columns, out))
    }
}

/// The places of the blocks with the highest ranks, ascending: whole blocks, and the last one of what is there.
fn best_blocks(ranks: &[f32], count: usize, block: usize) -> Vec<usize> {
    if block == 1 {
        return best(ranks, count).into_iter().map(|place| place as usize).collect();
    }
    let higher = |a: f32, b: f32| if a.is_nan() || a > b { a } else { b };
    let mut blocks: Vec<f32> =
        ranks.chunks(block).map(|ranks| ranks.iter().copied().fold(f32::NEG_INFINITY, higher)).collect();
    blocks.last_mut().into_iter().for_each(|last| *last = f32::INFINITY);
    let places = |number: u32| number as usize * block..((number as usize + 1) * block).min(ranks.len());
    best(&blocks, count).into_iter().flat_map(places).collect()
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

    /// What caches have in common whose rows can be copied from one to the other.
    fn shape(&self) -> (KvFormat, [usize; 4], bool) {
        let &Self { format, page_size, kv_heads, key_dim, value_dim, .. } = self;
        (format, [page_size, kv_heads, key_dim, value_dim], self.values_in_keys())
    }

    /// Copies a sequence's tokens to rows of another cache of this shape, from row `at` on, as pages follow each other.
    ///
    /// # Safety
    /// The tokens are in the sequence's pages, which lie in the cache; `to` has room for them, which nobody else uses.
    unsafe fn copy(&self, pages: &[u32], tokens: impl Iterator<Item = u32> + Clone, to: &Self, at: usize) {
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
            for (place, token) in (at..).zip(tokens.clone()) {
                let (page, slot) = (pages[token as usize / page_size] as usize, token as usize % page_size);
                let (to_page, to_slot) = (place / page_size, place % page_size);
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
