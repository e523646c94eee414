//! Attention over the paged KV cache, in tiles with an online softmax.
//!
//! The softmax is accumulated block of keys by block of keys (FlashAttention, <https://arxiv.org/abs/2205.14135>); a
//! block is a page, so where blocks begin depends on positions only, never on how a prompt was cut into chunks. Keys a
//! query may not see get weight zero, which leaves its sums as they were, bit for bit.

use super::matmul::{Element, Output, Packed, Tile, load_elements, tile};
use crate::simd::Simd;

/// One layer's keys or values: `[pages, kv_heads, page_size, head_dim]`.
#[derive(Clone, Copy)]
pub(crate) struct KvView {
    pub(crate) keys: *const u8,
    pub(crate) values: *const u8,
    pub(crate) element: Element,
    pub(crate) page_size: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl KvView {
    /// Byte offset of a page's rows of one head.
    fn offset(&self, page: usize, kv_head: usize) -> usize {
        (page * self.kv_heads + kv_head) * self.page_size * self.head_dim * self.element.size()
    }
}

/// The queries of one sequence that share a key-value head, for a range of rows.
pub(crate) struct AttentionTask<'a> {
    /// All queries, `[rows, heads * head_dim]`.
    pub(crate) queries: *const f32,
    /// Output in the same shape.
    pub(crate) out: *mut f32,
    pub(crate) heads: usize,
    /// Rows of this task, and the position of the first.
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    pub(crate) first_position: usize,
    pub(crate) kv_head: usize,
    pub(crate) kv: KvView,
    /// The sequence's pages.
    pub(crate) pages: &'a [u32],
    pub(crate) scale: f32,
    pub(crate) window: Option<usize>,
    pub(crate) softcap: Option<f32>,
}

/// Buffers of one thread.
#[derive(Default)]
pub(crate) struct Scratch {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
    sums: Vec<f32>,
    /// Maximum and sum of the softmax of each query.
    state: Vec<(f32, f32)>,
}

/// Runs one task.
///
/// # Safety
/// Pointers are valid for the sizes in `task`, pages lie in the cache, and the pages hold keys and values for all
/// positions up to the last row's.
#[inline(always)]
pub(crate) unsafe fn attention<S: Simd, const COLUMNS: usize>(
    task: &AttentionTask<'_>,
    scratch: &mut Scratch,
) {
    let KvView { page_size, head_dim, kv_heads, element, .. } = task.kv;
    let group = task.heads / kv_heads;
    let queries = task.rows * group;
    let stride = head_dim.next_multiple_of(S::LANES);
    let score_stride = page_size.next_multiple_of(S::LANES);
    scratch.queries.resize(queries * stride, 0.0);
    scratch.keys.resize(page_size * stride, 0.0);
    scratch.values.resize(page_size * stride, 0.0);
    scratch.scores.resize(queries * score_stride, 0.0);
    scratch.sums.clear();
    scratch.sums.resize(queries * stride, 0.0);
    scratch.state.clear();
    scratch.state.resize(queries, (f32::NEG_INFINITY, 0.0));

    // SAFETY: rows and heads are inside the query tensor; the scratch rows are padded to whole vectors.
    unsafe {
        for query in 0..queries {
            let (row, head) = (task.first_row + query / group, task.kv_head * group + query % group);
            let from = task.queries.add((row * task.heads + head) * head_dim);
            let to = &mut scratch.queries[query * stride..][..stride];
            for (i, to) in to.iter_mut().enumerate() {
                *to = if i < head_dim { *from.add(i) * task.scale } else { 0.0 };
            }
        }
        let last = task.first_position + task.rows - 1;
        let first_seen = task.window.map_or(0, |window| (task.first_position + 1).saturating_sub(window));
        for block in first_seen / page_size..=last / page_size {
            let page = task.pages[block] as usize;
            let offset = task.kv.offset(page, task.kv_head);
            let block_start = block * page_size;
            let keys = (last + 1 - block_start).min(page_size);
            let (key_rows, value_rows) = if element == Element::F32 && stride == head_dim {
                (task.kv.keys.add(offset).cast::<f32>(), task.kv.values.add(offset).cast::<f32>())
            } else {
                widen::<S>(task.kv.keys.add(offset), element, keys, head_dim, &mut scratch.keys, stride);
                widen::<S>(task.kv.values.add(offset), element, keys, head_dim, &mut scratch.values, stride);
                (scratch.keys.as_ptr(), scratch.values.as_ptr())
            };
            tile::<S, COLUMNS>(&Tile {
                panel: key_rows,
                panel_rows: keys,
                panel_stride: stride,
                x: Packed { values: scratch.queries.as_ptr(), stride, rows: queries },
                y: Output { values: scratch.scores.as_mut_ptr(), stride: score_stride },
            });
            for query in 0..queries {
                let position = task.first_position + query / group;
                // The keys of this block that the query sees.
                let end = (position + 1).saturating_sub(block_start).min(keys);
                let start = task
                    .window
                    .map_or(0, |window| (position + 1).saturating_sub(window).saturating_sub(block_start));
                if start >= end {
                    continue;
                }
                let scores = &mut scratch.scores[query * score_stride..][..score_stride];
                if let Some(cap) = task.softcap {
                    for score in &mut scores[start..end] {
                        *score = cap * (*score / cap).tanh();
                    }
                }
                let (old_max, old_sum) = scratch.state[query];
                scores[..start].fill(f32::NEG_INFINITY);
                scores[end..].fill(f32::NEG_INFINITY);
                let mut largest = S::splat(old_max);
                let mut i = 0;
                while i < score_stride {
                    largest = S::max(largest, S::load(scores.as_ptr().add(i)));
                    i += S::LANES;
                }
                let max = S::max_lane(largest);
                let correction = if old_max == f32::NEG_INFINITY { 0.0 } else { (old_max - max).exp() };
                let shift = S::splat(-max);
                let mut i = 0;
                while i < score_stride {
                    let at = scores.as_mut_ptr().add(i);
                    S::store(at, S::exp(S::add(S::load(at), shift)));
                    i += S::LANES;
                }
                // `exp` is clamped to normal numbers, so the weights of unseen keys must be made zero here.
                scores[..start].fill(0.0);
                scores[end..].fill(0.0);
                let mut sum = S::zero();
                let mut i = 0;
                while i < score_stride {
                    sum = S::add(sum, S::load(scores.as_ptr().add(i)));
                    i += S::LANES;
                }
                scratch.state[query] = (max, old_sum * correction + S::sum(sum));
                let sums = scratch.sums.as_mut_ptr().add(query * stride);
                accumulate::<S>(
                    &scores[start..end],
                    value_rows.add(start * stride),
                    stride,
                    sums,
                    stride,
                    correction,
                );
            }
        }
        for query in 0..queries {
            let (row, head) = (task.first_row + query / group, task.kv_head * group + query % group);
            let to = task.out.add((row * task.heads + head) * head_dim);
            let inverse = 1.0 / scratch.state[query].1;
            for (i, sum) in scratch.sums[query * stride..][..head_dim].iter().enumerate() {
                *to.add(i) = sum * inverse;
            }
        }
    }
}

/// Widens a page's rows of one head into a buffer of padded rows.
#[inline(always)]
unsafe fn widen<S: Simd>(
    from: *const u8,
    element: Element,
    rows: usize,
    head_dim: usize,
    to: &mut [f32],
    stride: usize,
) {
    for row in 0..rows {
        let mut column = 0;
        while column < head_dim {
            // SAFETY: `column` is inside a row of the page; the buffer's rows are padded to whole vectors.
            unsafe {
                let vector = load_elements::<S>(
                    from.add((row * head_dim + column) * element.size()),
                    element,
                    head_dim - column,
                );
                S::store(to.as_mut_ptr().add(row * stride + column), vector);
            }
            column += S::LANES;
        }
    }
}

/// `sums = sums * correction + weights · values`, value by value in order. Four vectors of columns at a time, so that
/// four chains of additions overlap.
#[inline(always)]
unsafe fn accumulate<S: Simd>(
    weights: &[f32],
    values: *const f32,
    value_stride: usize,
    sums: *mut f32,
    columns: usize,
    correction: f32,
) {
    // SAFETY: `columns` is a whole number of vectors, and value rows are that long.
    unsafe {
        let correction = S::splat(correction);
        let mut column = 0;
        while column + 4 * S::LANES <= columns {
            accumulate_columns::<S, 4>(weights, values, value_stride, sums, column, correction);
            column += 4 * S::LANES;
        }
        while column < columns {
            accumulate_columns::<S, 1>(weights, values, value_stride, sums, column, correction);
            column += S::LANES;
        }
    }
}

#[inline(always)]
unsafe fn accumulate_columns<S: Simd, const N: usize>(
    weights: &[f32],
    values: *const f32,
    value_stride: usize,
    sums: *mut f32,
    column: usize,
    correction: S::F,
) {
    // SAFETY: as `accumulate`'s.
    unsafe {
        let mut acc = [S::zero(); N];
        for (n, acc) in acc.iter_mut().enumerate() {
            *acc = S::mul(S::load(sums.add(column + n * S::LANES)), correction);
        }
        for (row, weight) in weights.iter().enumerate() {
            let weight = S::splat(*weight);
            let values = values.add(row * value_stride + column);
            for (n, acc) in acc.iter_mut().enumerate() {
                *acc = S::fma(weight, S::load(values.add(n * S::LANES)), *acc);
            }
        }
        for (n, acc) in acc.iter().enumerate() {
            S::store(sums.add(column + n * S::LANES), *acc);
        }
    }
}
