//! Attention: `kernels/attention.cu`.

use cudarc::driver::{DeviceRepr, sys};
use pippin_tensor::{
    AttentionSpec, Beside, KeyChoice, KvCacheSpec, KvFormat, Reach, Result, StepInputs, TensorError,
    ValueStore,
};

use crate::kv::{CacheView, shape_of};
use crate::launch::{THREADS, launch};
use crate::memory::{CudaIndices, CudaTensor};
use crate::state::check_rows;
use crate::{CudaBackend, CudaKvCache, unsupported};

/// Warps of a block, and the most values that a head can have: as in the kernel.
const WARPS: usize = 8;
const MOST_VALUES: usize = 32 * 32;
/// Most bytes of shared memory that a block has without asking for more.
const SHARED: usize = 48 << 10;

/// Tokens of a page of the cache that keys and values of [`CudaBackend::run_attention_over`] are put into.
const OVER_PAGE: usize = 32;

/// `Step` of the kernels: a step's rows, and the pages of their sequences in a cache group.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct StepView {
    indices: sys::CUdeviceptr,
    ends: sys::CUdeviceptr,
    /// Null in `kernels/flash.cu`: each row is a sequence of its own.
    pub(crate) row_sequences: sys::CUdeviceptr,
    table: sys::CUdeviceptr,
    pub(crate) table_width: u32,
}

// SAFETY: plain numbers in the order and alignment of the kernels' structure.
unsafe impl DeviceRepr for StepView {}

const NO_STEP: StepView = StepView { indices: 0, ends: 0, row_sequences: 0, table: 0, table_width: 0 };

/// What an attention sees.
struct Seen<'a> {
    cache: CacheView,
    step: StepView,
    beside: Option<(CacheView, StepView, Reach)>,
    chosen: Option<&'a CudaIndices>,
    spans: Option<&'a CudaIndices>,
}

/// A reach as kernels take it.
pub(crate) fn reach(reach: Reach) -> (u32, u32) {
    let limit = |limit: usize| u32::try_from(limit).unwrap_or(u32::MAX);
    match reach {
        Reach::All => (0, 0),
        Reach::Window(window) => (1, limit(window)),
        Reach::Chunk(chunk) => (2, limit(chunk.max(1))),
    }
}

/// Checks the operands of an attention that its cache has not checked.
fn check_attention(
    queries: &CudaTensor,
    rows: usize,
    spec: &AttentionSpec,
    sinks: Option<&CudaTensor>,
) -> Result<()> {
    let &AttentionSpec { heads, kv_heads, key_dim, .. } = spec;
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) || spec.reach.limit() == Some(0) {
        let expected = "query heads in groups of equal size, and a window above zero";
        return Err(TensorError::shape("attention", expected, format!("{spec:?}")));
    }
    let columns = heads.saturating_mul(key_dim);
    if queries.rows != rows || queries.columns != columns {
        return Err(TensorError::shape("attention", format!("[{rows}, {columns}]"), shape_of(queries)));
    }
    if let Some(sinks) = sinks.filter(|sinks| sinks.rows != 1 || sinks.columns != heads) {
        return Err(TensorError::shape("attention", format!("[1, {heads}] sinks"), shape_of(sinks)));
    }
    Ok(())
}

impl CudaBackend {
    fn step_view(
        &self,
        operation: &'static str,
        cache: &CudaKvCache,
        step: &StepInputs<Self>,
        group: usize,
    ) -> Result<StepView> {
        let Some(inputs) = step.groups.get(group) else {
            return Err(TensorError::shape(operation, format!("cache group {group}"), step.groups.len()));
        };
        check_rows(operation, step)?;
        let width = inputs.pages_per_sequence;
        let seen = width.saturating_mul(cache.spec.page_size);
        let consistent = step.indices.len == step.rows
            && step.visible_ends.len == step.rows
            && inputs.page_tables.len == step.sequences * width
            && step.visible_ends.values()?.iter().all(|end| *end as usize <= seen);
        if !consistent {
            let found = format!("{} rows of {} sequences", step.rows, step.sequences);
            return Err(TensorError::shape(operation, "consistent step inputs", found));
        }
        if cache.spec.pages == 0 && step.rows > 0 {
            return Err(TensorError::shape(operation, "a cache with pages", "none"));
        }
        Ok(StepView {
            indices: step.indices.at(),
            ends: step.visible_ends.at(),
            row_sequences: self.row_sequences(step)?.at(),
            table: inputs.page_tables.at(),
            table_width: width as u32,
        })
    }

    /// The sequence of each row.
    pub(crate) fn row_sequences<'a>(&self, step: &'a StepInputs<Self>) -> Result<&'a CudaIndices> {
        step.query_starts.derived(self.memory(), |starts| {
            let rows = starts
                .windows(2)
                .zip(0..)
                .flat_map(|(pair, sequence)| (pair[0]..pair[1]).map(move |_| sequence));
            rows.collect()
        })
    }

    pub(crate) fn run_attention(
        &self,
        queries: &CudaTensor,
        cache: &CudaKvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &AttentionSpec,
        sinks: Option<&CudaTensor>,
    ) -> Result<CudaTensor> {
        cache.check_attention(spec)?;
        let view = self.step_view("attention", cache, step, group)?;
        if let Some(kernel) = self.flash_for(cache) {
            check_attention(queries, step.rows, spec, sinks)?;
            return self.run_flash(kernel, queries, (cache, view), step, spec, None, sinks);
        }
        let seen = Seen { cache: cache.view(), step: view, beside: None, chosen: None, spans: None };
        self.attend(queries, step.rows, &seen, spec, sinks)
    }

    pub(crate) fn run_attention_among(
        &self,
        queries: &CudaTensor,
        cache: &CudaKvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &AttentionSpec,
        chosen: &CudaIndices,
        beside: Option<Beside<'_, CudaKvCache>>,
        sinks: Option<&CudaTensor>,
    ) -> Result<CudaTensor> {
        const OPERATION: &str = "attention_among";
        cache.check_attention(spec)?;
        if spec.reach != Reach::All {
            return Err(TensorError::shape(
                OPERATION,
                "a reach over everything",
                format!("{:?}", spec.reach),
            ));
        }
        if !chosen.len.is_multiple_of(step.rows.max(1)) {
            let expected = format!("as many keys for each of {} rows", step.rows);
            return Err(TensorError::shape(OPERATION, expected, chosen.len));
        }
        let view = self.step_view(OPERATION, cache, step, group)?;
        // All keys, chosen, give the bits of `attention`.
        if let Some(kernel) = self.flash_for(cache).filter(|_| beside.is_none()) {
            check_attention(queries, step.rows, spec, sinks)?;
            return self.run_flash(kernel, queries, (cache, view), step, spec, Some(chosen), sinks);
        }
        let beside = match beside {
            Some(Beside { cache: other, group, reach }) => {
                if other.shape() != cache.shape() || reach.limit() == Some(0) {
                    let expected = format!("another cache of {:?}", cache.shape());
                    return Err(TensorError::shape(
                        OPERATION,
                        expected,
                        format!("{:?}, {reach:?}", other.shape()),
                    ));
                }
                Some((other.view(), self.step_view(OPERATION, other, step, group)?, reach))
            }
            None => None,
        };
        let seen = Seen { cache: cache.view(), step: view, beside, chosen: Some(chosen), spans: None };
        self.attend(queries, step.rows, &seen, spec, sinks)
    }

    pub(crate) fn run_attention_over(
        &self,
        [queries, keys, values]: [&CudaTensor; 3],
        spans: &CudaIndices,
        spec: &AttentionSpec,
    ) -> Result<CudaTensor> {
        if spans.len != 2 * queries.rows {
            let expected = format!("{} ends of spans", 2 * queries.rows);
            return Err(TensorError::shape("attention_over", expected, spans.len));
        }
        let mut cache = CudaKvCache::new(
            self.memory(),
            &KvCacheSpec {
                pages: keys.rows.div_ceil(OVER_PAGE),
                page_size: OVER_PAGE,
                kv_heads: spec.kv_heads,
                key_dim: spec.key_dim,
                values: ValueStore::Own(spec.value_dim),
                format: KvFormat::F32,
            },
        )?;
        let rows: Vec<u32> = (0..keys.rows as u32).collect();
        self.run_kv_write(&mut cache, keys, Some(values), &CudaIndices::of(self.memory(), &rows)?)?;
        let limit = keys.rows as u32;
        let bounded: Vec<u32> = spans
            .values()?
            .chunks_exact(2)
            .flat_map(|span| {
                let end = span[1].min(limit);
                let reached = end.checked_sub(1).map_or(0, |last| spec.reach.first(last as usize) as u32);
                [span[0].max(reached), end]
            })
            .collect();
        let bounded = CudaIndices::of(self.memory(), &bounded)?;
        let seen =
            Seen { cache: cache.view(), step: NO_STEP, beside: None, chosen: None, spans: Some(&bounded) };
        self.attend(queries, queries.rows, &seen, spec, None)
    }

    fn attend(
        &self,
        queries: &CudaTensor,
        rows: usize,
        seen: &Seen<'_>,
        spec: &AttentionSpec,
        sinks: Option<&CudaTensor>,
    ) -> Result<CudaTensor> {
        let &AttentionSpec { heads, key_dim, value_dim, .. } = spec;
        check_attention(queries, rows, spec, sinks)?;
        let shared = 4 * (key_dim + WARPS * (value_dim + 2));
        if value_dim > MOST_VALUES || shared > SHARED {
            return Err(unsupported(format!("attention heads of {key_dim} and {value_dim}")));
        }
        let out = self.output(rows, heads * value_dim)?;
        let (other, other_step, other_reach) = seen.beside.unwrap_or((seen.cache, NO_STEP, Reach::All));
        let (other_kind, other_limit) = reach(other_reach);
        let (reach_kind, reach_limit) = reach(spec.reach);
        launch!(
            self,
            "attention",
            ((rows as u32, heads as u32), 32 * WARPS as u32, shared as u32),
            out.at(),
            queries.at(),
            seen.cache,
            seen.step,
            other,
            other_step,
            other_kind,
            other_limit,
            seen.chosen.map_or(0, CudaIndices::at),
            seen.chosen.map_or(0, |chosen| chosen.len / rows.max(1)) as u32,
            seen.spans.map_or(0, CudaIndices::at),
            heads as u32,
            spec.scale,
            spec.softcap.unwrap_or(0.0),
            sinks.map_or(0, CudaTensor::at),
            reach_kind,
            reach_limit
        )?;
        Ok(out)
    }

    /// Ranks are computed on the device, and the highest are chosen on the host.
    pub(crate) fn run_choose_keys(
        &self,
        [queries, weights]: [&CudaTensor; 2],
        cache: &CudaKvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &KeyChoice,
        among: Option<&CudaIndices>,
    ) -> Result<CudaIndices> {
        const OPERATION: &str = "choose_keys";
        let &KeyChoice { heads, key_dim, top_k, stride, block } = spec;
        let view = self.step_view(OPERATION, cache, step, group)?;
        if (cache.spec.kv_heads, cache.spec.key_dim) != (1, key_dim)
            || [key_dim, top_k, stride, block].contains(&0)
        {
            let found = format!("{} of {}, and {spec:?}", cache.spec.kv_heads, cache.spec.key_dim);
            return Err(TensorError::shape(OPERATION, "one head of the index's keys", found));
        }
        for (operand, columns) in [(queries, heads.saturating_mul(key_dim)), (weights, heads)] {
            if (operand.rows, operand.columns) != (step.rows, columns) {
                return Err(TensorError::shape(
                    OPERATION,
                    format!("[{}, {columns}]", step.rows),
                    shape_of(operand),
                ));
            }
        }
        let of_each = among.map_or(0, |among| among.len / step.rows.max(1));
        if among.is_some_and(|among| among.len != of_each * step.rows || block > 1) {
            let expected = format!("as many keys for each of {} rows, one by one", step.rows);
            return Err(TensorError::shape(OPERATION, expected, format!("{spec:?}")));
        }
        let ends = step.visible_ends.values()?;
        let longest = ends.iter().max().copied().unwrap_or(0) as usize / stride;
        let count = top_k.saturating_mul(block);
        let width = count.min(longest);
        let ranks = self.output(step.rows, longest)?;
        let grid = (longest.div_ceil(THREADS as usize / 32).min(256) as u32, step.rows as u32);
        let (heads, stride_of, longest_of) = (heads as u32, stride as u32, longest as u32);
        launch!(
            self,
            "key_ranks",
            (grid, THREADS, 0),
            ranks.at(),
            queries.at(),
            weights.at(),
            cache.view(),
            view,
            heads,
            stride_of,
            longest_of
        )?;
        let ranks = ranks.read()?;
        let among = among.map(CudaIndices::values).transpose()?;
        let mut all = vec![u32::MAX; step.rows * width];
        for (row, to) in all.chunks_exact_mut(width.max(1)).enumerate() {
            let seen = ends[row];
            let own = &ranks[row * longest..][..longest];
            // The number of the key that a token has.
            let number = |token: u32| (token as usize + 1) / stride - 1;
            let keys: Vec<u32> = match &among {
                Some(among) => {
                    let own = among[row * of_each..][..of_each].iter();
                    own.copied().take_while(|token| *token < seen).collect()
                }
                None => (1..=seen / stride as u32).map(|key| key * stride as u32 - 1).collect(),
            };
            if keys.len() <= count {
                to[..keys.len()].copy_from_slice(&keys);
            } else {
                let of_keys: Vec<f32> = keys.iter().map(|token| own[number(*token)]).collect();
                for (to, key) in to.iter_mut().zip(best_blocks(&of_keys, top_k, block)) {
                    *to = keys[key];
                }
            }
        }
        CudaIndices::of(self.memory(), &all)
    }
}

/// The places of the blocks with the highest ranks, ascending: whole blocks, and the last one of what is there.
fn best_blocks(ranks: &[f32], count: usize, block: usize) -> Vec<usize> {
    if block == 1 {
        return best(ranks, count);
    }
    let higher = |a: f32, b: f32| if a.is_nan() || a > b { a } else { b };
    let highest = |ranks: &[f32]| ranks.iter().copied().fold(f32::NEG_INFINITY, higher);
    let mut blocks: Vec<f32> = ranks.chunks(block).map(highest).collect();
    blocks.last_mut().into_iter().for_each(|last| *last = f32::INFINITY);
    let places = |number: usize| number * block..((number + 1) * block).min(ranks.len());
    best(&blocks, count).into_iter().flat_map(places).collect()
}

/// The indices of the highest ranks, ascending; of equals the first. What is no number is higher than all.
fn best(ranks: &[f32], count: usize) -> Vec<usize> {
    let rank = |index: &usize| Some(ranks[*index]).filter(|rank| !rank.is_nan()).unwrap_or(f32::INFINITY);
    let mut order: Vec<usize> = (0..ranks.len()).collect();
    if count < order.len() {
        order.select_nth_unstable_by(count, |a, b| rank(b).total_cmp(&rank(a)).then(a.cmp(b)));
        order.truncate(count);
        order.sort_unstable();
    }
    order
}
