//! Sequences cut into steps.

use std::ops::Range;

use super::array::{Array, upload};
use crate::{Backend, Batch, Input, Result, SequenceRows, StepInputs, StepLimits, Want};

/// The rows of one sequence that a step computes.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) sequence: usize,
    pub(super) rows: Range<usize>,
    /// Whether the operands are NaN instead of what they are.
    pub(super) spoiled: bool,
}

/// Which sequences are in a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    /// All that have rows left.
    Together,
    /// All, the last first.
    Backwards,
    /// One after the other.
    Apart,
    /// All; every other one brings a single row, as in a step of prompts and answers.
    Mixed,
    /// All; the operands of every other one are NaN.
    Spoiled,
}

/// A way to cut sequences into steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    order: Order,
    /// Rows of a sequence in one step.
    chunk: usize,
}

impl Schedule {
    /// Everything in one step.
    pub(super) const WHOLE: Self = Self { order: Order::Together, chunk: usize::MAX };

    /// The ways that must lead to the same bits.
    pub(super) fn others(lengths: &[usize]) -> Vec<Self> {
        use Order::{Apart, Backwards, Mixed, Spoiled, Together};
        let longest = lengths.iter().copied().max().unwrap_or(0);
        // Kernels cut long contexts into pieces.
        let chunks: &[(Order, usize)] = if longest > 512 {
            &[(Together, 1), (Apart, 60), (Together, 600), (Mixed, 511)]
        } else {
            &[(Together, 1), (Backwards, 9), (Apart, 40), (Mixed, 16)]
        };
        let mut schedules: Vec<Self> =
            chunks.iter().map(|(order, chunk)| Self { order: *order, chunk: *chunk }).collect();
        schedules.push(Self { order: Apart, ..Self::WHOLE });
        if lengths.len() > 1 {
            schedules.push(Self { order: Backwards, ..Self::WHOLE });
            schedules.push(Self { order: Spoiled, ..Self::WHOLE });
        }
        schedules
    }

    /// Whether the results of a sequence mean nothing.
    pub(super) fn spoils(self, sequence: usize) -> bool {
        self.order == Order::Spoiled && sequence.is_multiple_of(2)
    }

    /// The steps for sequences of these lengths, none of which ends within a block.
    pub(super) fn steps(self, lengths: &[usize], blocks: &[Range<usize>]) -> Vec<Vec<Piece>> {
        let mut done = vec![0usize; lengths.len()];
        let mut next = |sequence: usize| {
            let start = done[sequence];
            let single = self.order == Order::Mixed && !sequence.is_multiple_of(2);
            let end = start.saturating_add(if single { 1 } else { self.chunk });
            let end = blocks.iter().find(|block| block.start < end && end < block.end).map_or(end, |b| b.end);
            done[sequence] = end.min(lengths[sequence]);
            let rows = start..done[sequence];
            (!rows.is_empty()).then(|| Piece { sequence, rows, spoiled: self.spoils(sequence) })
        };
        let mut steps = Vec::new();
        if self.order == Order::Apart {
            for sequence in 0..lengths.len() {
                steps.extend(std::iter::from_fn(|| next(sequence)).map(|piece| vec![piece]));
            }
            return steps;
        }
        loop {
            let mut pieces: Vec<Piece> = (0..lengths.len()).filter_map(&mut next).collect();
            if pieces.is_empty() {
                return steps;
            }
            if self.order == Order::Backwards {
                pieces.reverse();
            }
            steps.push(pieces);
        }
    }
}

/// The rows of pieces, one after the other, of each sequence's array.
pub(super) fn gather<'a, B: Backend>(
    backend: &B,
    pieces: &[Piece],
    of: impl Fn(usize) -> &'a Array,
) -> B::Tensor {
    let (mut rows, mut columns, mut values) = (0, 0, Vec::new());
    for piece in pieces {
        let array = of(piece.sequence);
        columns = array.columns;
        rows += piece.rows.len();
        let source = &array.values[piece.rows.start * columns..piece.rows.end * columns];
        values.extend(source.iter().map(|v| if piece.spoiled { f32::NAN } else { *v as f32 }));
    }
    upload(backend, [rows, columns], &values)
}

/// A step's inputs where each sequence has a slot and nothing in pages.
pub(super) fn slot_step<B: Backend>(backend: &B, pieces: &[Piece], slots: &[usize]) -> Result<StepInputs<B>> {
    let limits = StepLimits {
        vocab: 1,
        slots: slots.iter().max().map_or(0, |slot| slot + 1),
        page_size: 1,
        pages: vec![],
        axes: 1,
    };
    let mut batch = Batch::new(&limits);
    for piece in pieces {
        let tokens = vec![0; piece.rows.len()];
        let slot = slots[piece.sequence];
        batch.push(SequenceRows::text(slot, Input::Tokens(&tokens), piece.rows.start, &[], Want::Nothing))?;
    }
    backend.upload(&batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_compute_every_row_once_and_cut_no_block() {
        let blocks = [0..3, 13..29, 500..530, 600..1028];
        for lengths in [vec![1], vec![40], vec![1, 70, 32, 33], vec![513, 1030]] {
            for schedule in Schedule::others(&lengths).into_iter().chain([Schedule::WHOLE]) {
                let mut done = vec![0; lengths.len()];
                for pieces in schedule.steps(&lengths, &blocks) {
                    for Piece { sequence, rows, spoiled } in pieces {
                        assert_eq!((rows.start, spoiled), (done[sequence], schedule.spoils(sequence)));
                        let end = rows.end;
                        let cut = |block: &Range<usize>| block.start < end && end < block.end;
                        assert!(!rows.is_empty() && (end == lengths[sequence] || !blocks.iter().any(cut)));
                        done[sequence] = end;
                    }
                }
                assert_eq!(done, lengths, "{schedule:?}");
            }
        }
    }
}
