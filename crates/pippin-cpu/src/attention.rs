//! How a step's attention is divided among threads.
//!
//! A *piece* is a block of one sequence's rows with the queries of one key-value head. Where there are few pieces, or
//! some are much longer than others, a piece is divided further into *parts*, runs of its segments, so that every thread
//! gets several tasks, and so is a decoding sequence's, to read its pages in order; the thread that finishes the last part of a piece merges the segments' results. How pieces are
//! divided does not change an output's bits, see [`crate::kernels::attention`].

use std::{
    borrow::Cow,
    cell::RefCell,
    cmp::Reverse,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering::AcqRel},
};

use pippin_tensor::{AttentionSpec, KvCacheSpec, KvFormat, Result, StepInputs, TensorError, ValueStore};

use crate::{
    CpuBackend, CpuIndices, CpuKvCache, CpuTensor,
    kernels::attention::{AttentionTask, Layout, Scratch, segments},
    kv::SharedView,
    recurrence::sequence_rows,
    shape_of,
    tensor::Shared,
};

/// Tasks per thread to aim at: threads that are slowed down leave tasks to the others.
const TASKS_PER_THREAD: usize = 8;
/// Most segments of a task of a decoding sequence. Its time is that of memory, which is a quarter shorter when the heads
/// of a few pages are read one after the other (their addresses are translated once) than head by head through the
/// whole sequence.
const DECODE_SEGMENTS: usize = 4;
/// Elements that the results of segments may take at most; pieces beyond are not divided.
const MAX_PARTIALS: usize = 4 << 20;

thread_local! {
    pub(crate) static SCRATCH: RefCell<Scratch> = RefCell::default();
}

struct Piece {
    sequence: usize,
    kv_head: usize,
    rows: Range<usize>,
    segments: Range<usize>,
    /// Where the segments' results stand until they are merged, if the piece is divided.
    partials: Option<usize>,
    /// Parts that are not finished.
    parts: AtomicUsize,
}

/// A sequence's rows and its pages.
pub(crate) struct Sequence<'a> {
    pub(crate) rows: Range<usize>,
    pub(crate) pages: &'a [u32],
}

/// What each row sees: indices from `firsts` to before `ends`.
pub(crate) struct Visible {
    pub(crate) firsts: Vec<u32>,
    pub(crate) ends: Vec<u32>,
}

/// The rows of a step's sequences, and their pages of a cache, which have been checked.
pub(crate) struct Tables<'a> {
    rows: Vec<Range<usize>>,
    pages: Cow<'a, [u32]>,
    pages_per_sequence: usize,
}

impl<'a> Tables<'a> {
    pub(crate) fn new(
        operation: &'static str,
        cache: &CpuKvCache,
        step: &'a StepInputs<CpuBackend>,
        group: usize,
    ) -> Result<Self> {
        let Some(inputs) = step.groups.get(group) else {
            return Err(TensorError::shape(operation, format!("cache group {group}"), step.groups.len()));
        };
        let rows = sequence_rows(operation, step)?;
        let width = inputs.pages_per_sequence;
        let consistent = step.indices.len() == step.rows
            && step.visible_ends.len() == step.rows
            && inputs.page_tables.len() == step.sequences * width
            && step.visible_ends.iter().all(|end| *end as usize <= width * cache.view().page_size);
        if !consistent {
            let found = format!("{} rows of {} sequences", step.rows, step.sequences);
            return Err(TensorError::shape(operation, "consistent step inputs", found));
        }
        // A page beyond the cache reads as another: the contract asks for no more than that nothing is touched that is not
        // the cache's.
        let pages = cache.pages() as u32;
        let tables = if inputs.page_tables.iter().all(|page| *page < pages) {
            Cow::Borrowed(&*inputs.page_tables)
        } else {
            Cow::Owned(inputs.page_tables.iter().map(|page| (*page).min(pages.saturating_sub(1))).collect())
        };
        if pages == 0 && step.rows > 0 {
            return Err(TensorError::shape(operation, "a cache with pages", "none"));
        }
        Ok(Self { rows, pages: tables, pages_per_sequence: width })
    }

    pub(crate) fn sequences(&self) -> Vec<Sequence<'_>> {
        let width = self.pages_per_sequence;
        let pages = |sequence: usize| &self.pages[sequence * width..][..width];
        self.rows
            .iter()
            .enumerate()
            .map(|(i, rows)| Sequence { rows: rows.clone(), pages: pages(i) })
            .collect()
    }
}

/// Tokens of a page of the cache that keys and values of [`CpuBackend::run_attention_over`] are put into.
const OVER_PAGE: usize = 32;

fn check_spec(spec: &AttentionSpec) -> Result<()> {
    let divides = spec.kv_heads > 0 && spec.heads.is_multiple_of(spec.kv_heads);
    if divides && spec.reach.limit() != Some(0) {
        return Ok(());
    }
    let expected = "query heads in groups of equal size, and a window above zero";
    Err(TensorError::shape("attention", expected, format!("{spec:?}")))
}

impl CpuBackend {
    /// [`attention`](pippin_tensor::Backend::attention).
    pub(crate) fn run_attention(
        &self,
        queries: &CpuTensor,
        cache: &CpuKvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &AttentionSpec,
        sinks: Option<&CpuTensor>,
    ) -> Result<CpuTensor> {
        cache.check_attention(spec)?;
        let tables = Tables::new("attention", cache, step, group)?;
        let sequences = tables.sequences();
        let firsts = step.indices.iter().map(|index| spec.reach.first(*index as usize) as u32).collect();
        let visible = Visible { firsts, ends: step.visible_ends.to_vec() };
        self.attend(queries, SharedView(cache.view()), &sequences, &visible, spec, sinks)
    }

    /// [`attention_over`](pippin_tensor::Backend::attention_over): keys and values are put into a cache of their own.
    pub(crate) fn run_attention_over(
        &self,
        [queries, keys, values]: [&CpuTensor; 3],
        spans: &CpuIndices,
        spec: &AttentionSpec,
    ) -> Result<CpuTensor> {
        let pages = keys.rows.div_ceil(OVER_PAGE);
        let mut cache = CpuKvCache::new(&KvCacheSpec {
            pages,
            page_size: OVER_PAGE,
            kv_heads: spec.kv_heads,
            key_dim: spec.key_dim,
            values: ValueStore::Own(spec.value_dim),
            format: KvFormat::F32,
        })?;
        if spans.len() != 2 * queries.rows {
            let expected = format!("{} ends of spans", 2 * queries.rows);
            return Err(TensorError::shape("attention_over", expected, spans.len()));
        }
        let rows: Vec<u32> = (0..keys.rows as u32).collect();
        self.run_kv_write(&mut cache, keys, Some(values), &CpuIndices::new(&rows))?;
        let limit = keys.rows as u32;
        let (mut firsts, mut ends) = (Vec::new(), Vec::new());
        for span in spans.chunks_exact(2) {
            let end = span[1].min(limit);
            let reached = end.checked_sub(1).map_or(0, |last| spec.reach.first(last as usize) as u32);
            firsts.push(span[0].max(reached));
            ends.push(end);
        }
        let table: Vec<u32> = (0..pages as u32).collect();
        let sequences = [Sequence { rows: 0..queries.rows, pages: &table }];
        self.attend(queries, SharedView(cache.view()), &sequences, &Visible { firsts, ends }, spec, None)
    }

    /// Attention of rows that see what `visible` says; pages have been checked against the cache.
    pub(crate) fn attend(
        &self,
        queries: &CpuTensor,
        view: SharedView,
        sequences: &[Sequence<'_>],
        visible: &Visible,
        spec: &AttentionSpec,
        sinks: Option<&CpuTensor>,
    ) -> Result<CpuTensor> {
        check_spec(spec)?;
        let rows = visible.ends.len();
        let columns = spec.heads.saturating_mul(spec.key_dim);
        if queries.rows != rows || queries.columns != columns {
            let expected = format!("[{rows}, {columns}]");
            return Err(TensorError::shape("attention", expected, shape_of(queries)));
        }
        if let Some(sinks) = sinks
            && (sinks.rows != 1 || sinks.columns != spec.heads)
        {
            return Err(TensorError::shape(
                "attention",
                format!("[1, {}] sinks", spec.heads),
                shape_of(sinks),
            ));
        }
        let kernels = self.kernels.0;
        let group = spec.heads / spec.kv_heads;
        let layout = |piece: &Piece| Layout::new(piece.rows.len() * group, spec.value_dim, kernels.lanes);

        let mut pieces = pieces(sequences, visible, spec, view.get().page_size);
        let (tasks, partials) = divide(&mut pieces, self.threads(), |piece| layout(piece).len());
        let mut partials = self.buffer(partials)?;
        let partials = Shared::new(&mut partials);
        let mut out = self.buffer(rows * spec.heads * spec.value_dim)?;
        let to = Shared::new(&mut out);
        let from = queries.values().as_ptr() as usize;
        let sinks = sinks.map(CpuTensor::values);
        self.pool.run(tasks.len(), &|i| {
            let (piece, part) = &tasks[i];
            let piece = &pieces[*piece];
            let partials_at = |segment: usize| {
                let offset = piece.partials? + (segment - piece.segments.start) * layout(piece).len();
                Some(partials.at(offset))
            };
            let mut task = AttentionTask {
                queries: from as *const f32,
                out: to.at(0),
                heads: spec.heads,
                first_row: piece.rows.start,
                firsts: &visible.firsts[piece.rows.clone()],
                ends: &visible.ends[piece.rows.clone()],
                kv_head: piece.kv_head,
                kv: view.get(),
                pages: sequences[piece.sequence].pages,
                scale: spec.scale,
                softcap: spec.softcap,
                sinks: sinks.map_or(std::ptr::null(), <[f32]>::as_ptr),
                segments: part.clone(),
                partials: partials_at(part.start).unwrap_or(std::ptr::null_mut()),
            };
            SCRATCH.with_borrow_mut(|scratch| {
                // SAFETY: shapes, pages and lengths were checked; each piece writes its own rows of its own heads, and
                // each part its own segments' results.
                unsafe { (kernels.attention)(&task, scratch) };
                if let Some(partials) = partials_at(piece.segments.start)
                    && piece.parts.fetch_sub(1, AcqRel) == 1
                {
                    task.segments = piece.segments.clone();
                    // SAFETY: all parts have written their results, which the counter makes visible here.
                    unsafe { (kernels.attention_merge)(&task, partials, scratch) };
                }
            });
        });
        Ok(CpuTensor::new(rows, spec.heads * spec.value_dim, out))
    }
}

fn pieces(
    sequences: &[Sequence<'_>],
    visible: &Visible,
    spec: &AttentionSpec,
    page_size: usize,
) -> Vec<Piece> {
    let group = spec.heads / spec.kv_heads;
    // Enough queries to pay for widening a page of keys, few enough to stay in the first-level cache.
    let block = (32 / group).max(1);
    let mut pieces = Vec::new();
    for (sequence, Sequence { rows, .. }) in sequences.iter().enumerate() {
        // The last rows see the most keys; starting with them balances the threads.
        for start in rows.clone().step_by(block).rev() {
            let block = start..(start + block).min(rows.end);
            for kv_head in 0..spec.kv_heads {
                pieces.push(Piece {
                    sequence,
                    kv_head,
                    rows: block.clone(),
                    segments: segments(
                        &visible.firsts[block.clone()],
                        &visible.ends[block.clone()],
                        page_size,
                    ),
                    partials: None,
                    parts: AtomicUsize::new(1),
                });
            }
        }
    }
    pieces
}

/// Divides pieces into tasks of about equal numbers of segments. Returns the tasks, a piece and some of its segments
/// each, and the number of elements that the results of divided pieces' segments take; `result_len` is that of one.
fn divide(
    pieces: &mut [Piece],
    threads: usize,
    result_len: impl Fn(&Piece) -> usize,
) -> (Vec<(usize, Range<usize>)>, usize) {
    let segments: usize = pieces.iter().map(|piece| piece.segments.len()).sum();
    let balanced = segments.div_ceil(threads * TASKS_PER_THREAD).max(1);
    let mut tasks = Vec::with_capacity(pieces.len());
    let mut partials = 0;
    for (i, piece) in pieces.iter_mut().enumerate() {
        let len = piece.segments.len() * result_len(piece);
        let target = if piece.rows.len() == 1 { balanced.min(DECODE_SEGMENTS) } else { balanced };
        let parts = piece.segments.len().div_ceil(target);
        if parts < 2 || partials + len > MAX_PARTIALS {
            tasks.push((i, piece.segments.clone()));
            continue;
        }
        piece.partials = Some(partials);
        piece.parts = AtomicUsize::new(parts);
        partials += len;
        let at = |part: usize| piece.segments.start + part * piece.segments.len() / parts;
        tasks.extend((0..parts).map(|part| (i, at(part)..at(part + 1))));
    }
    // Heads lie side by side in a page of the cache: what belongs to the same pages is read at about the same time.
    tasks.sort_by_key(|(i, part)| (pieces[*i].sequence, Reverse(pieces[*i].rows.start), part.start));
    (tasks, partials)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Acquire;

    use super::*;

    fn piece(segments: Range<usize>) -> Piece {
        let parts = AtomicUsize::new(1);
        Piece { sequence: 0, kv_head: 0, rows: 0..1, segments, partials: None, parts }
    }

    #[test]
    fn tasks_cover_every_segment_once_and_are_balanced() {
        for threads in [1, 2, 3, 64] {
            for lengths in [vec![1], vec![63; 8], vec![1, 1, 200, 1], vec![5; 1000], vec![0, 7]] {
                let mut pieces: Vec<Piece> = lengths.iter().map(|len| piece(3..3 + len)).collect();
                let (tasks, partials) = divide(&mut pieces, threads, |_| 10);
                let total: usize = lengths.iter().sum();
                let mut next: Vec<usize> = vec![3; pieces.len()];
                for (i, part) in &tasks {
                    assert_eq!(part.start, next[*i]);
                    next[*i] = part.end;
                    assert!(part.len() <= DECODE_SEGMENTS.min(total.div_ceil(threads * TASKS_PER_THREAD)));
                }
                assert!(pieces.iter().zip(&next).all(|(piece, end)| piece.segments.end == *end));
                for (i, piece) in pieces.iter().enumerate() {
                    let parts = tasks.iter().filter(|(of, _)| *of == i).count();
                    assert_eq!(parts, piece.parts.load(Acquire));
                    assert_eq!(piece.partials.is_some(), parts > 1);
                }
                let divided = pieces.iter().filter(|piece| piece.partials.is_some());
                assert_eq!(partials, divided.map(|piece| 10 * piece.segments.len()).sum::<usize>());
            }
        }
    }

    #[test]
    fn results_of_segments_take_bounded_memory() {
        let mut pieces: Vec<Piece> = (0..100).map(|_| piece(0..100)).collect();
        let (tasks, partials) = divide(&mut pieces, 128, |_| MAX_PARTIALS / 1000);
        assert!(partials <= MAX_PARTIALS);
        assert_eq!(tasks.iter().map(|(_, part)| part.len()).sum::<usize>(), 100 * 100);
    }
}
