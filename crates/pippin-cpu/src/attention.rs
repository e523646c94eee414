//! How a step's attention is divided among threads.
//!
//! A *piece* is a block of one sequence's rows with the queries of one key-value head. Where there are few pieces, or
//! some are much longer than others, a piece is divided further into *parts*, runs of its segments, so that every thread
//! gets several tasks, and so is a decoding sequence's, to read its pages in order; the thread that finishes the last part of a piece merges the segments' results. How pieces are
//! divided does not change an output's bits, see [`crate::kernels::attention`].

use std::{
    cell::RefCell,
    cmp::Reverse,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering::AcqRel},
};

use pippin_tensor::{AttentionSpec, Result, StepInputs};

use crate::{
    CpuBackend, CpuKvCache, CpuTensor,
    kernels::attention::{AttentionTask, Layout, Scratch, segments},
    kv::SharedView,
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
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

struct Piece {
    sequence: usize,
    kv_head: usize,
    rows: Range<usize>,
    /// Position of the first row.
    position: usize,
    segments: Range<usize>,
    /// Where the segments' results stand until they are merged, if the piece is divided.
    partials: Option<usize>,
    /// Parts that are not finished.
    parts: AtomicUsize,
}

impl CpuBackend {
    /// [`attention`](pippin_tensor::Backend::attention) of checked operands.
    pub(crate) fn run_attention(
        &self,
        queries: &CpuTensor,
        cache: &CpuKvCache,
        step: &StepInputs<Self>,
        spec: &AttentionSpec,
    ) -> Result<CpuTensor> {
        cache.check_attention(queries, step, spec)?;
        let kernels = self.kernels.0;
        let view = SharedView(cache.view());
        let group = spec.heads / spec.kv_heads;
        let layout = |piece: &Piece| Layout::new(piece.rows.len() * group, spec.head_dim, kernels.lanes);

        let mut pieces = pieces(step, spec, view.get().page_size);
        let (tasks, partials) = divide(&mut pieces, self.threads(), |piece| layout(piece).len());
        let mut partials = self.buffer(partials);
        let partials = Shared::new(&mut partials);
        let mut out = self.buffer(queries.rows * queries.columns);
        let to = Shared::new(&mut out);
        let from = queries.values().as_ptr() as usize;
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
                rows: piece.rows.len(),
                first_position: piece.position,
                kv_head: piece.kv_head,
                kv: view.get(),
                pages: &step.page_tables[piece.sequence * step.pages_per_sequence..]
                    [..step.pages_per_sequence],
                scale: spec.scale,
                window: spec.window,
                softcap: spec.softcap,
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
        Ok(CpuTensor::new(queries.rows, queries.columns, out))
    }
}

fn pieces(step: &StepInputs<CpuBackend>, spec: &AttentionSpec, page_size: usize) -> Vec<Piece> {
    let group = spec.heads / spec.kv_heads;
    // Enough queries to pay for widening a page of keys, few enough to stay in the first-level cache.
    let block = (32 / group).max(1);
    let mut pieces = Vec::new();
    for sequence in 0..step.sequences {
        let rows = step.query_starts[sequence] as usize..step.query_starts[sequence + 1] as usize;
        let context = step.context_lengths[sequence] as usize;
        // The last rows see the most keys; starting with them balances the threads.
        for start in rows.clone().step_by(block).rev() {
            let block = start..(start + block).min(rows.end);
            let position = context - (rows.end - start);
            for kv_head in 0..spec.kv_heads {
                pieces.push(Piece {
                    sequence,
                    kv_head,
                    rows: block.clone(),
                    position,
                    segments: segments(position, block.len(), spec.window, page_size),
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
        Piece { sequence: 0, kv_head: 0, rows: 0..1, position: 0, segments, partials: None, parts }
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
