//! A few activation rows: `LANES` weight rows are transposed and unpacked as they are read, a lane per output.

use super::{
    IntegerRows, Scratch, add_group,
    panel::{prefetch_distance, prefetch_rows},
    store, sum_biases, transpose,
};
use crate::simd::Simd;

/// Up to `LANES` weight rows times `M` activation rows, which are one tile.
///
/// # Safety
/// As [`super::rows`].
#[inline(always)]
pub(super) unsafe fn multiply<S: Simd, const FIELD: u32, const BITS: u32, const M: usize>(
    args: &IntegerRows<'_>,
    row: usize,
    rows: usize,
    scratch: &mut Scratch,
) {
    let fields = 32 / FIELD as usize;
    let vectors = fields / 4;
    let chains = if M <= 4 { 2 } else { 1 };
    let group_words = args.group_size / fields;
    // Whole groups and whole squares: both are powers of two.
    let chunk = group_words.max(S::LANES);
    scratch.words.reserve(chunk * S::LANES);
    let stride = 4 * args.row_words;
    let ahead = prefetch_distance::<S>(stride);
    // SAFETY: chunks cover the row's words, the last one possibly in part; groups are whole.
    unsafe {
        let words = args.words.add(row * stride);
        let squares = scratch.words.as_mut_ptr().cast::<u32>();
        let mut sums = [S::zero(); M];
        for first in (0..args.row_words).step_by(chunk) {
            let count = chunk.min(args.row_words - first);
            let from = words.add(4 * first);
            for square in (0..4 * count).step_by(4 * S::LANES) {
                prefetch_rows::<S>(from.wrapping_add(square), stride, ahead);
            }
            transpose::<S>(from, stride, rows, count, squares);
            for word in (0..count).step_by(group_words) {
                // With few sums, two chains of dependent products for each: one would wait for itself.
                let mut dots = [[S::zero_words(); M]; 2];
                for w in word..word + group_words {
                    let packed = S::load_words(squares.add(w * S::LANES).cast());
                    let x = args.x.values.add((first + w) * fields * M);
                    for vector in 0..vectors {
                        let bytes = S::bytes::<FIELD>(packed, vector as u32 * FIELD);
                        for m in 0..M {
                            let x = S::splat_bytes(x.add(4 * (vector * M + m)));
                            dots[vector % chains][m] = S::dot::<BITS>(dots[vector % chains][m], bytes, x);
                        }
                    }
                }
                for m in 0..M {
                    let group = (first + word) / group_words;
                    let dots = S::add_words(dots[0][m], dots[1][m]);
                    sums[m] = add_group::<S, M>(sums[m], dots, args.x, m, group, scratch);
                }
            }
        }
        let biases = sum_biases::<S, M>(args, args.x, scratch);
        for m in 0..M.min(args.x.layout.rows) {
            store::<S>(args.y, m, row, rows, S::add(sums[m], biases[m]));
        }
    }
}
