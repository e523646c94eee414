//! Attention over the paged KV cache.
//!
//! # Segments
//!
//! A sequence's keys are cut into segments of a fixed number of pages, about [`SEGMENT_KEYS`] keys, counted from position
//! zero. Each segment gives a query its own maximum, sum of exponentials and weighted sum of values, and the segments'
//! results are merged in order of position (FlashDecoding, <https://pytorch.org/blog/flash-decoding/>). Where segments
//! begin depends on positions only, and every segment is computed by the same operations in the same order whether one
//! thread does them one after the other or several do them at once. So an output is the same bits however a prompt was
//! cut into chunks, whatever else is in the batch, and on any number of threads.
//!
//! # Two ways to read a page
//!
//! The query of a decoding sequence meets each key once: stored numbers are widened in registers as they are multiplied,
//! and the page that comes next is fetched meanwhile, because pages are scattered and shorter than what hardware
//! prefetchers need to follow. Rows of a prompt meet each key many times: a page is widened into a buffer first. Both
//! ways add the same products in the same order.
//!
//! Numbers stored in eight bits are multiplied as integers widened to `f32`. A key's scale is applied to its score, a
//! value's to its weight.

#![allow(clippy::needless_range_loop, reason = "index arithmetic is what these loops are about")]

use std::ops::Range;

use pippin_tensor::KvFormat;

use super::matmul::TILE_ROWS;
use crate::simd::{MAX_LANES, Simd};

/// Keys of a segment, where the page size divides it: a task of some microseconds, and scores of all queries of a task
/// in the second-level cache.
const SEGMENT_KEYS: usize = 512;
/// Queries up to which a page is widened as it is read rather than into a buffer first.
const DIRECT_QUERIES: usize = 16;
const CACHE_LINE: usize = 64;

/// Pages of a segment.
pub(crate) fn segment_pages(page_size: usize) -> usize {
    (SEGMENT_KEYS / page_size).max(1)
}

/// One layer's keys and values: `[pages, kv_heads]` blocks of each. A block holds the rows of one head's tokens,
/// `[page_size, dim]`, and after them, in [`KvFormat::Int8`], their `page_size` scales as `f32`.
#[derive(Clone, Copy)]
pub(crate) struct KvView {
    pub(crate) keys: *const u8,
    /// The keys again where values are part of them.
    pub(crate) values: *const u8,
    pub(crate) format: KvFormat,
    pub(crate) page_size: usize,
    pub(crate) kv_heads: usize,
    pub(crate) key_dim: usize,
    pub(crate) value_dim: usize,
    /// Elements from one row of values to the next: `value_dim`, or `key_dim` where values are part of keys.
    pub(crate) value_stride: usize,
}

impl KvView {
    /// Byte offset of a page's block of one head, for rows of `dim` elements.
    fn offset(&self, page: usize, kv_head: usize, dim: usize) -> usize {
        (page * self.kv_heads + kv_head) * self.page_size * self.format.row_bytes(dim)
    }
}

/// The queries of one sequence that share a key-value head, for a range of rows and a range of segments.
pub(crate) struct AttentionTask<'a> {
    /// All queries, `[rows, heads * key_dim]`.
    pub(crate) queries: *const f32,
    /// All outputs, `[rows, heads * value_dim]`.
    pub(crate) out: *mut f32,
    pub(crate) heads: usize,
    /// First row of this task.
    pub(crate) first_row: usize,
    /// For each row of this task, the first index that it sees, and the end of what it sees.
    pub(crate) firsts: &'a [u32],
    pub(crate) ends: &'a [u32],
    pub(crate) kv_head: usize,
    pub(crate) kv: KvView,
    /// The sequence's pages.
    pub(crate) pages: &'a [u32],
    pub(crate) scale: f32,
    pub(crate) softcap: Option<f32>,
    /// A score for each head that has no value, or null.
    pub(crate) sinks: *const f32,
    /// The segments to compute, some of those that [`segments`] names.
    pub(crate) segments: Range<usize>,
    /// Where the segments' results go, [`Layout::len`] elements for each, to be merged when all are there. Null: these
    /// are all segments, and the task merges them and writes the output.
    pub(crate) partials: *mut f32,
}

/// The segments that hold keys which some of the rows see that begin at `firsts` and end before `ends`.
pub(crate) fn segments(firsts: &[u32], ends: &[u32], page_size: usize) -> Range<usize> {
    let keys = segment_pages(page_size) * page_size;
    let (first, end) = bounds(firsts, ends);
    if first < end { first / keys..(end - 1) / keys + 1 } else { 0..0 }
}

/// The first index that any row sees, and the end of what they see.
fn bounds(firsts: &[u32], ends: &[u32]) -> (usize, usize) {
    let (mut first, mut end) = (usize::MAX, 0);
    for (row_first, row_end) in firsts.iter().zip(ends) {
        if row_first < row_end {
            first = first.min(*row_first as usize);
            end = end.max(*row_end as usize);
        }
    }
    (first, end)
}

/// How the result of a segment, and the merged result, lie in memory: the weighted sums of values of each query
/// (`[queries, stride]`), then each query's maximum and its sum of exponentials (`[queries, 2]`).
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    queries: usize,
    stride: usize,
}

impl Layout {
    pub(crate) fn new(queries: usize, value_dim: usize, lanes: usize) -> Self {
        Self { queries, stride: value_dim.next_multiple_of(lanes) }
    }

    /// Elements of a result.
    pub(crate) fn len(self) -> usize {
        self.queries * (self.stride + 2)
    }

    /// Index of a query's maximum; its sum follows.
    fn state(self, query: usize) -> usize {
        self.queries * self.stride + 2 * query
    }

    /// Makes `result` one of no keys at all.
    ///
    /// # Safety
    /// `result` is valid for [`len`](Self::len) elements.
    unsafe fn clear(self, result: *mut f32) {
        // SAFETY: by contract.
        unsafe {
            result.write_bytes(0, self.len());
            for query in 0..self.queries {
                *result.add(self.state(query)) = f32::NEG_INFINITY;
            }
        }
    }
}

/// Buffers of one thread.
#[derive(Default)]
pub(crate) struct Scratch {
    queries: Vec<f32>,
    /// A widened page of keys or values.
    panel: Vec<f32>,
    scores: Vec<f32>,
    /// Scales of a segment's keys, then of its values.
    scales: Vec<f32>,
    /// The result of one segment.
    segment: Vec<f32>,
    /// The result so far.
    total: Vec<f32>,
}

impl Scratch {
    fn resize(buffer: &mut Vec<f32>, len: usize) -> *mut f32 {
        buffer.resize(len.max(buffer.len()), 0.0);
        buffer.as_mut_ptr()
    }
}

/// A type that keys and values are stored as.
trait Stored {
    const BYTES: usize;
    /// Whether rows have scales.
    const SCALED: bool = false;

    /// Widens a vector, without its scale.
    ///
    /// # Safety
    /// The instruction set is there, and `from` is valid for a vector's elements.
    unsafe fn load<S: Simd>(from: *const u8) -> S::F;
}

struct F32;
struct F16;
struct Bf16;
struct Int8;

#[allow(clippy::undocumented_unsafe_blocks, reason = "the trait's contract is the loads' contract")]
mod stored {
    use super::*;

    impl Stored for F32 {
        const BYTES: usize = 4;
        #[inline(always)]
        unsafe fn load<S: Simd>(from: *const u8) -> S::F {
            unsafe { S::load(from.cast()) }
        }
    }

    impl Stored for F16 {
        const BYTES: usize = 2;
        #[inline(always)]
        unsafe fn load<S: Simd>(from: *const u8) -> S::F {
            unsafe { S::load_f16(from.cast()) }
        }
    }

    impl Stored for Bf16 {
        const BYTES: usize = 2;
        #[inline(always)]
        unsafe fn load<S: Simd>(from: *const u8) -> S::F {
            unsafe { S::load_bf16(from.cast()) }
        }
    }

    impl Stored for Int8 {
        const BYTES: usize = 1;
        const SCALED: bool = true;
        #[inline(always)]
        unsafe fn load<S: Simd>(from: *const u8) -> S::F {
            unsafe { S::load_i8(from.cast()) }
        }
    }
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
    // SAFETY: as this function's.
    unsafe {
        match task.kv.format {
            KvFormat::F32 => run::<S, F32, COLUMNS>(task, scratch),
            KvFormat::F16 => run::<S, F16, COLUMNS>(task, scratch),
            KvFormat::Bf16 => run::<S, Bf16, COLUMNS>(task, scratch),
            KvFormat::Int8 => run::<S, Int8, COLUMNS>(task, scratch),
        }
    }
}

/// Merges the results of all segments of a task, `partials`, and writes its output.
///
/// # Safety
/// As [`attention`]; `partials` holds a result for each of `task.segments`.
#[inline(always)]
pub(crate) unsafe fn merge<S: Simd>(task: &AttentionTask<'_>, partials: *const f32, scratch: &mut Scratch) {
    let layout = Layout::new(task.queries_len(), task.kv.value_dim, S::LANES);
    let total = Scratch::resize(&mut scratch.total, layout.len());
    // SAFETY: as this function's.
    unsafe {
        layout.clear(total);
        for segment in 0..task.segments.len() {
            add_segment::<S>(layout, total, partials.add(segment * layout.len()));
        }
        write_output(task, layout, total);
    }
}

/// The queries of one row of an index, and the keys that it ranks, of one head.
pub(crate) struct RankTask<'a> {
    /// `[heads, key_dim]`.
    pub(crate) queries: &'a [f32],
    /// A weight for each query.
    pub(crate) weights: &'a [f32],
    pub(crate) kv: KvView,
    /// The sequence's pages.
    pub(crate) pages: &'a [u32],
}

/// The ranks of a sequence's first keys, as many as `ranks` has room for: `Σ weight · max(query · key, 0)`, added in the
/// order of the queries.
///
/// # Safety
/// There are `key_dim` numbers for each query; pages lie in the cache, and hold so many keys.
#[inline(always)]
pub(crate) unsafe fn ranks<S: Simd, const COLUMNS: usize>(
    task: &RankTask<'_>,
    ranks: &mut [f32],
    scratch: &mut Scratch,
) {
    // SAFETY: as this function's.
    unsafe {
        match task.kv.format {
            KvFormat::F32 => rank::<S, F32, COLUMNS>(task, ranks, scratch),
            KvFormat::F16 => rank::<S, F16, COLUMNS>(task, ranks, scratch),
            KvFormat::Bf16 => rank::<S, Bf16, COLUMNS>(task, ranks, scratch),
            KvFormat::Int8 => rank::<S, Int8, COLUMNS>(task, ranks, scratch),
        }
    }
}

#[inline(always)]
unsafe fn rank<S: Simd, T: Stored, const COLUMNS: usize>(
    task: &RankTask<'_>,
    ranks: &mut [f32],
    scratch: &mut Scratch,
) {
    let KvView { page_size, key_dim, .. } = task.kv;
    let queries = task.weights.len();
    let key_stride = key_dim.next_multiple_of(S::LANES);
    let score_stride = page_size.next_multiple_of(MAX_LANES) + MAX_LANES;
    let x = Scratch::resize(&mut scratch.queries, queries * key_stride);
    let panel = Scratch::resize(&mut scratch.panel, page_size * key_stride);
    let scores = Scratch::resize(&mut scratch.scores, queries * score_stride);
    // SAFETY: blocks are those of keys that are there, and buffers have the sizes above, which are whole vectors.
    unsafe {
        for query in 0..queries {
            let to = std::slice::from_raw_parts_mut(x.add(query * key_stride), key_stride);
            to[..key_dim].copy_from_slice(&task.queries[query * key_dim..][..key_dim]);
            to[key_dim..].fill(0.0);
        }
        for (ranks, page) in ranks.chunks_mut(page_size).zip(task.pages) {
            let from = task.kv.keys.add(task.kv.offset(*page as usize, 0, key_dim));
            let panel = widen::<S, T>(from, ranks.len(), key_dim, key_dim, panel, std::ptr::null());
            let (x, y) =
                (Rows { values: x, stride: key_stride }, Rows { values: scores, stride: score_stride });
            products::<S, F32, COLUMNS>(&panel, x, queries, y);
            ranks.fill(0.0);
            for (query, weight) in task.weights.iter().enumerate() {
                let scores = std::slice::from_raw_parts(scores.add(query * score_stride), ranks.len());
                for (rank, score) in ranks.iter_mut().zip(scores) {
                    // What is no number stays none.
                    *rank += weight * if *score < 0.0 { 0.0 } else { *score };
                }
            }
            if T::SCALED {
                let scales = from.add(page_size * key_dim * T::BYTES).cast::<f32>();
                for (key, rank) in ranks.iter_mut().enumerate() {
                    *rank *= scales.add(key).read_unaligned();
                }
            }
        }
    }
}

impl AttentionTask<'_> {
    fn group(&self) -> usize {
        self.heads / self.kv.kv_heads
    }

    fn queries_len(&self) -> usize {
        self.ends.len() * self.group()
    }

    /// The keys of a segment that a query of a row sees, counted from the segment's first.
    fn seen(&self, query: usize, segment_start: usize, keys: usize) -> Range<usize> {
        let row = query / self.group();
        let end = (self.ends[row] as usize).saturating_sub(segment_start).min(keys);
        (self.firsts[row] as usize).saturating_sub(segment_start)..end
    }

    /// The head of a query.
    fn head(&self, query: usize) -> usize {
        self.kv_head * self.group() + query % self.group()
    }

    /// Which of all heads of all rows a query is.
    fn place(&self, query: usize) -> usize {
        (self.first_row + query / self.group()) * self.heads + self.head(query)
    }
}

#[inline(always)]
unsafe fn run<S: Simd, T: Stored, const COLUMNS: usize>(task: &AttentionTask<'_>, scratch: &mut Scratch) {
    let KvView { page_size, key_dim, value_dim, value_stride, .. } = task.kv;
    let queries = task.queries_len();
    let layout = Layout::new(queries, value_dim, S::LANES);
    let stride = layout.stride;
    let key_stride = key_dim.next_multiple_of(S::LANES);
    let pages = segment_pages(page_size);
    // The extra vector keeps the scores of different queries in different sets of the cache.
    let score_stride = (pages * page_size).next_multiple_of(MAX_LANES) + MAX_LANES;
    let x = Scratch::resize(&mut scratch.queries, queries * key_stride);
    let panel = Scratch::resize(&mut scratch.panel, page_size * stride.max(key_stride));
    let scores = Scratch::resize(&mut scratch.scores, queries * score_stride);
    let key_scales = Scratch::resize(&mut scratch.scales, 2 * score_stride);
    let value_scales = key_scales.wrapping_add(score_stride);
    let own = Scratch::resize(&mut scratch.segment, layout.len());
    let total = Scratch::resize(&mut scratch.total, layout.len());
    // Rows of a page must be whole vectors to be read as they are.
    let few = T::BYTES == 4 || (task.ends.len() == 1 && queries <= DIRECT_QUERIES);
    let direct_keys = few && key_stride == key_dim;
    let direct_values = few && stride == value_dim;
    let (first, end) = bounds(task.firsts, task.ends);
    let first_block = first / page_size;

    // SAFETY: rows and heads are inside the query tensor; blocks are those of indices that some row sees, so their
    // pages are in the table and hold keys and values; buffers have the sizes above, which are whole vectors.
    unsafe {
        for query in 0..queries {
            let (from, to) = (task.queries.add(task.place(query) * key_dim), x.add(query * key_stride));
            for i in 0..key_stride {
                *to.add(i) = if i < key_dim { *from.add(i) * task.scale } else { 0.0 };
            }
        }
        layout.clear(total);
        let key_block = |block: usize| {
            task.kv.keys.add(task.kv.offset(task.pages[block] as usize, task.kv_head, key_dim))
        };
        let value_block = |block: usize| {
            task.kv.values.add(task.kv.offset(task.pages[block] as usize, task.kv_head, value_stride))
        };
        let key_scales_offset = page_size * key_dim * T::BYTES;
        let value_scales_offset = page_size * value_stride * T::BYTES;
        for segment in task.segments.clone() {
            let start = segment * pages * page_size;
            let blocks =
                first_block.max(segment * pages)..((end - 1) / page_size + 1).min((segment + 1) * pages);
            let keys_of = |block: usize| (end - block * page_size).min(page_size);
            let first_values = value_block(blocks.start);

            for block in blocks.clone() {
                let (keys, at) = (keys_of(block), block * page_size - start);
                let from = key_block(block);
                let ahead = if block + 1 < blocks.end { key_block(block + 1) } else { first_values };
                if T::SCALED {
                    S::prefetch(ahead.wrapping_add(key_scales_offset));
                    S::prefetch(ahead.wrapping_add(key_scales_offset + CACHE_LINE));
                    copy_scales(from.add(key_scales_offset), keys, key_scales.add(at));
                }
                let y = Rows { values: scores.add(at), stride: score_stride };
                let x = Rows { values: x, stride: key_stride };
                if direct_keys {
                    let panel = Panel { from, rows: keys, columns: key_stride, stride: key_stride, ahead };
                    products::<S, T, COLUMNS>(&panel, x, queries, y);
                } else {
                    let panel = widen::<S, T>(from, keys, key_dim, key_dim, panel, ahead);
                    products::<S, F32, COLUMNS>(&panel, x, queries, y);
                }
            }

            if T::SCALED {
                for block in blocks.clone() {
                    let from = value_block(block).add(value_scales_offset);
                    copy_scales(from, keys_of(block), value_scales.add(block * page_size - start));
                }
            }
            let result = if task.partials.is_null() {
                own
            } else {
                task.partials.add((segment - task.segments.start) * layout.len())
            };
            layout.clear(result);
            let seen = |query| task.seen(query, start, pages * page_size);
            for query in 0..queries {
                let seen = seen(query);
                if seen.is_empty() {
                    continue;
                }
                let scores = scores.add(query * score_stride);
                let scales = T::SCALED.then_some((key_scales.cast_const(), value_scales.cast_const()));
                let (max, sum) = softmax::<S>(scores, score_stride, seen, task.softcap, scales);
                *result.add(layout.state(query)) = max;
                *result.add(layout.state(query) + 1) = sum;
            }

            for block in blocks.clone() {
                let (keys, at) = (keys_of(block), block * page_size - start);
                let from = value_block(block);
                let ahead = if block + 1 < blocks.end {
                    value_block(block + 1)
                } else if segment + 1 < task.segments.end {
                    key_block(block + 1)
                } else {
                    std::ptr::null()
                };
                let panel = if direct_values {
                    Panel { from, rows: keys, columns: stride, stride: value_stride, ahead }
                } else {
                    widen::<S, T>(from, keys, value_stride, value_dim, panel, ahead)
                };
                // Queries next to each other that see the same keys of this block.
                let seen = |query| {
                    let seen = seen(query);
                    seen.start.max(at) - at..seen.end.clamp(at, at + keys) - at
                };
                let mut query = 0;
                while query < queries {
                    let rows = seen(query);
                    let mut end = query + 1;
                    while end < queries && seen(end) == rows {
                        end += 1;
                    }
                    let weights =
                        Rows { values: scores.add(query * score_stride + at), stride: score_stride };
                    let sums = Rows { values: result.add(query * stride), stride };
                    if direct_values {
                        accumulate::<S, T, COLUMNS>(&panel, rows, weights, end - query, sums);
                    } else {
                        accumulate::<S, F32, COLUMNS>(&panel, rows, weights, end - query, sums);
                    }
                    query = end;
                }
            }
            if task.partials.is_null() {
                add_segment::<S>(layout, total, own);
            }
        }
        if task.partials.is_null() {
            write_output(task, layout, total);
        }
    }
}

/// Adds a segment's result to that of the segments before it.
#[inline(always)]
unsafe fn add_segment<S: Simd>(layout: Layout, total: *mut f32, segment: *const f32) {
    // SAFETY: both are results of this layout, whose rows are whole vectors.
    unsafe {
        for query in 0..layout.queries {
            let (state, other) = (total.add(layout.state(query)), segment.add(layout.state(query)));
            let (max, sum) = (*other, *other.add(1));
            if max == f32::NEG_INFINITY && !sum.is_nan() {
                // The query sees none of the segment.
                continue;
            }
            let largest = (*state).max(max);
            let (before, now) = ((*state - largest).exp(), (max - largest).exp());
            *state.add(1) = *state.add(1) * before + sum * now;
            *state = largest;
            let (before, now) = (S::splat(before), S::splat(now));
            let mut column = query * layout.stride;
            while column < (query + 1) * layout.stride {
                let sums = S::mul(S::load(total.add(column)), before);
                S::store(total.add(column), S::fma(S::load(segment.add(column)), now, sums));
                column += S::LANES;
            }
        }
    }
}

/// Writes the weighted means of a merged result.
#[inline(always)]
unsafe fn write_output(task: &AttentionTask<'_>, layout: Layout, total: *const f32) {
    let value_dim = task.kv.value_dim;
    // SAFETY: rows and heads are inside the output, and heads inside the sinks.
    unsafe {
        for query in 0..layout.queries {
            let to = task.out.add(task.place(query) * value_dim);
            let (max, sum) = (*total.add(layout.state(query)), *total.add(layout.state(query) + 1));
            let factor = if sum == 0.0 {
                // It sees nothing.
                0.0
            } else if task.sinks.is_null() {
                1.0 / sum
            } else {
                let sink = *task.sinks.add(task.head(query));
                let largest = max.max(sink);
                let own = (max - largest).exp();
                own / (sum * own + (sink - largest).exp())
            };
            for i in 0..value_dim {
                *to.add(i) = *total.add(query * layout.stride + i) * factor;
            }
        }
    }
}

/// Turns a query's scores into the weights of its values, in place, and returns the largest score and the sum of the
/// exponentials. Only `seen` is looked at. `scales`: those of keys and values.
#[inline(always)]
unsafe fn softmax<S: Simd>(
    scores: *mut f32,
    len: usize,
    seen: Range<usize>,
    softcap: Option<f32>,
    scales: Option<(*const f32, *const f32)>,
) -> (f32, f32) {
    let first = seen.start / S::LANES * S::LANES;
    let end = seen.end.next_multiple_of(S::LANES);
    // SAFETY: `scores`, and the scales, are valid for `len` elements, and `seen` ends a vector or more before that.
    unsafe {
        let slice = std::slice::from_raw_parts_mut(scores, len);
        if let Some((keys, _)) = scales {
            for i in (first..end).step_by(S::LANES) {
                S::store(scores.add(i), S::mul(S::load(scores.add(i)), S::load(keys.add(i))));
            }
        }
        if let Some(cap) = softcap {
            for score in &mut slice[seen.clone()] {
                *score = cap * (*score / cap).tanh();
            }
        }
        slice[first..seen.start].fill(f32::NEG_INFINITY);
        slice[seen.end..end].fill(f32::NEG_INFINITY);
        let mut largest = S::splat(f32::NEG_INFINITY);
        for i in (first..end).step_by(S::LANES) {
            largest = S::max(largest, S::load(scores.add(i)));
        }
        let max = S::max_lane(largest);
        let shift = S::splat(-max);
        for i in (first..end).step_by(S::LANES) {
            S::store(scores.add(i), S::exp(S::add(S::load(scores.add(i)), shift)));
        }
        // `exp` is clamped to normal numbers, so the weights of unseen keys must be made zero here.
        slice[first..seen.start].fill(0.0);
        slice[seen.end..end].fill(0.0);
        let mut sum = S::zero();
        for i in (first..end).step_by(S::LANES) {
            sum = S::add(sum, S::load(scores.add(i)));
        }
        if let Some((_, values)) = scales {
            for i in (first..end).step_by(S::LANES) {
                S::store(scores.add(i), S::mul(S::load(scores.add(i)), S::load(values.add(i))));
            }
        }
        (max, S::sum(sum))
    }
}

/// Copies a block's scales, which need not be aligned.
#[inline(always)]
unsafe fn copy_scales(from: *const u8, count: usize, to: *mut f32) {
    // SAFETY: both are valid for `count` scales, and the buffer is not part of the cache.
    unsafe { std::ptr::copy_nonoverlapping(from, to.cast(), 4 * count) }
}

/// Widens the first `dim` elements of a page's rows of one head, `from_stride` elements apart, into a buffer of rows that
/// are padded to whole vectors.
#[inline(always)]
unsafe fn widen<S: Simd, T: Stored>(
    from: *const u8,
    rows: usize,
    from_stride: usize,
    dim: usize,
    to: *mut f32,
    ahead: *const u8,
) -> Panel {
    let stride = dim.next_multiple_of(S::LANES);
    for row in 0..rows {
        let mut column = 0;
        while column < dim {
            // SAFETY: `column` is inside a row of the page, of which a last vector's part is copied to a whole one; the
            // buffer's rows are padded to whole vectors.
            unsafe {
                let from = from.add((row * from_stride + column) * T::BYTES);
                let vector = if dim - column >= S::LANES {
                    T::load::<S>(from)
                } else {
                    let mut buffer = [0u8; 4 * MAX_LANES];
                    let bytes = (dim - column) * T::BYTES;
                    std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), bytes);
                    T::load::<S>(buffer.as_ptr())
                };
                S::store(to.add(row * stride + column), vector);
            }
            column += S::LANES;
        }
    }
    Panel { from: to.cast::<u8>().cast_const(), rows, columns: stride, stride, ahead }
}

/// Rows of keys or values, one after the other.
struct Panel {
    from: *const u8,
    rows: usize,
    /// Elements of a row that count, a whole number of vectors.
    columns: usize,
    /// Elements from one row to the next.
    stride: usize,
    /// What is read next, to be fetched meanwhile; it need not be valid.
    ahead: *const u8,
}

impl Panel {
    /// Fetches what stands at the place of `rows` rows from `row` on in the block that comes next.
    #[inline(always)]
    unsafe fn fetch_ahead<S: Simd, T: Stored>(&self, row: usize, rows: usize) {
        let row_bytes = self.stride * T::BYTES;
        let from = self.ahead.wrapping_add(row * row_bytes);
        let mut byte = 0;
        while byte < rows * row_bytes {
            // SAFETY: a prefetch may have any address.
            unsafe { S::prefetch(from.wrapping_add(byte)) };
            byte += CACHE_LINE;
        }
    }
}

/// Rows of `f32`, `stride` elements apart.
#[derive(Clone, Copy)]
struct Rows {
    values: *mut f32,
    stride: usize,
}

/// `y[query][row] = x[query] · panel[row]`, each in one vector accumulator to which the columns are added in order.
#[inline(always)]
unsafe fn products<S: Simd, T: Stored, const COLUMNS: usize>(
    panel: &Panel,
    x: Rows,
    queries: usize,
    y: Rows,
) {
    // SAFETY: queries are counted off.
    unsafe {
        let mut m = 0;
        while m + COLUMNS <= queries {
            products_of::<S, T, COLUMNS>(panel, x, m, y);
            m += COLUMNS;
        }
        while m + 2 <= queries {
            products_of::<S, T, 2>(panel, x, m, y);
            m += 2;
        }
        if m < queries {
            products_of::<S, T, 1>(panel, x, m, y);
        }
    }
}

#[inline(always)]
unsafe fn products_of<S: Simd, T: Stored, const M: usize>(panel: &Panel, x: Rows, first: usize, y: Rows) {
    // SAFETY: as `products`'.
    unsafe {
        let mut row = 0;
        while row + TILE_ROWS <= panel.rows {
            if first == 0 {
                panel.fetch_ahead::<S, T>(row, TILE_ROWS);
            }
            products_block::<S, T, M, TILE_ROWS>(panel, x, first, row, y);
            row += TILE_ROWS;
        }
        while row < panel.rows {
            products_block::<S, T, M, 1>(panel, x, first, row, y);
            row += 1;
        }
    }
}

#[inline(always)]
unsafe fn products_block<S: Simd, T: Stored, const M: usize, const R: usize>(
    panel: &Panel,
    x: Rows,
    first: usize,
    row: usize,
    y: Rows,
) {
    // SAFETY: rows are inside the panel and queries inside `x`, whose rows are whole vectors.
    unsafe {
        let x_of = x.values.add(first * x.stride);
        let from = panel.from.add(row * panel.stride * T::BYTES);
        let mut sums = [[S::zero(); M]; R];
        let mut column = 0;
        while column < panel.columns {
            let mut keys = [S::zero(); R];
            for (r, key) in keys.iter_mut().enumerate() {
                *key = T::load::<S>(from.add((r * panel.stride + column) * T::BYTES));
            }
            for m in 0..M {
                let x = S::load(x_of.add(m * x.stride + column));
                for r in 0..R {
                    sums[r][m] = S::fma(keys[r], x, sums[r][m]);
                }
            }
            column += S::LANES;
        }
        for m in 0..M {
            for r in 0..R {
                *y.values.add((first + m) * y.stride + row + r) = S::sum(sums[r][m]);
            }
        }
    }
}

/// `sums[query] += weights[query] · panel[rows]`, row by row in order.
#[inline(always)]
unsafe fn accumulate<S: Simd, T: Stored, const COLUMNS: usize>(
    panel: &Panel,
    rows: Range<usize>,
    weights: Rows,
    queries: usize,
    sums: Rows,
) {
    // SAFETY: queries are counted off.
    unsafe {
        let mut m = 0;
        while m + COLUMNS <= queries {
            accumulate_of::<S, T, COLUMNS>(panel, rows.clone(), weights, m, sums);
            m += COLUMNS;
        }
        while m + 2 <= queries {
            accumulate_of::<S, T, 2>(panel, rows.clone(), weights, m, sums);
            m += 2;
        }
        if m < queries {
            accumulate_of::<S, T, 1>(panel, rows, weights, m, sums);
        }
    }
}

/// Vectors of columns that are accumulated together.
const TILE_COLUMNS: usize = 4;

#[inline(always)]
unsafe fn accumulate_of<S: Simd, T: Stored, const M: usize>(
    panel: &Panel,
    rows: Range<usize>,
    weights: Rows,
    first: usize,
    sums: Rows,
) {
    // SAFETY: columns are counted off.
    unsafe {
        let mut column = 0;
        while column + TILE_COLUMNS * S::LANES <= panel.columns {
            accumulate_block::<S, T, M, TILE_COLUMNS>(panel, rows.clone(), weights, first, column, sums);
            column += TILE_COLUMNS * S::LANES;
        }
        while column < panel.columns {
            accumulate_block::<S, T, M, 1>(panel, rows.clone(), weights, first, column, sums);
            column += S::LANES;
        }
    }
}

#[inline(always)]
unsafe fn accumulate_block<S: Simd, T: Stored, const M: usize, const N: usize>(
    panel: &Panel,
    rows: Range<usize>,
    weights: Rows,
    first: usize,
    column: usize,
    sums: Rows,
) {
    // SAFETY: rows and columns are inside the panel, queries inside `weights` and `sums`.
    unsafe {
        let sums_of = sums.values.add(first * sums.stride + column);
        let weights_of = weights.values.add(first * weights.stride);
        let mut acc = [[S::zero(); N]; M];
        for m in 0..M {
            for n in 0..N {
                acc[m][n] = S::load(sums_of.add(m * sums.stride + n * S::LANES));
            }
        }
        for row in rows {
            if first == 0 && column == 0 {
                panel.fetch_ahead::<S, T>(row, 1);
            }
            let mut splats = [S::zero(); M];
            for (m, weight) in splats.iter_mut().enumerate() {
                *weight = S::splat(*weights_of.add(m * weights.stride + row));
            }
            let from = panel.from.add((row * panel.stride + column) * T::BYTES);
            for n in 0..N {
                let value = T::load::<S>(from.add(n * S::LANES * T::BYTES));
                for m in 0..M {
                    acc[m][n] = S::fma(splats[m], value, acc[m][n]);
                }
            }
        }
        for m in 0..M {
            for n in 0..N {
                S::store(sums_of.add(m * sums.stride + n * S::LANES), acc[m][n]);
            }
        }
    }
}
