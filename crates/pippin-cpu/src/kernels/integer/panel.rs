//! Many activation rows: `LANES` weight rows are unpacked to bytes once, a lane per output.

use super::{IntegerRows, Scratch, add_group, store, sum_biases, transpose};
use crate::simd::Simd;

/// Unpacks up to `LANES` rows to bytes, four to a lane.
///
/// # Safety
/// As [`super::rows`].
#[inline(always)]
pub(super) unsafe fn unpack<S: Simd, const BITS: u32>(
    args: &IntegerRows<'_>,
    row: usize,
    rows: usize,
    scratch: &mut Scratch,
) {
    let vectors = 8 / BITS as usize;
    let stride = 4 * args.row_words;
    let ahead = prefetch_distance::<S>(stride);
    let len = args.row_words.next_multiple_of(S::LANES) * S::LANES;
    scratch.words.reserve(S::LANES * S::LANES);
    scratch.panel.reserve(len * vectors);
    // SAFETY: squares cover the row's words, the last one possibly in part; the panel has room for whole squares.
    unsafe {
        let words = args.words.add(row * stride);
        for first in (0..args.row_words).step_by(S::LANES) {
            let from = words.add(4 * first);
            prefetch_rows::<S>(from, stride, ahead);
            let count = (args.row_words - first).min(S::LANES);
            transpose::<S>(from, stride, rows, count, scratch.words.as_mut_ptr().cast());
            for word in 0..S::LANES {
                let packed = S::load_words(scratch.words.as_ptr().add(word * S::LANES).cast());
                for vector in 0..vectors {
                    let bytes = S::bytes::<BITS>(packed, vector as u32 * BITS);
                    let to = scratch.panel.as_mut_ptr().add(((first + word) * vectors + vector) * S::LANES);
                    S::store_words(to.cast(), bytes);
                }
            }
        }
    }
}

/// How far ahead of its use, at least, a weight is fetched.
const PREFETCH_BYTES: usize = 4096;

/// How far ahead the same words of later rows lie.
#[inline(always)]
pub(super) fn prefetch_distance<S: Simd>(stride: usize) -> usize {
    let panel_bytes = stride * S::LANES;
    panel_bytes * PREFETCH_BYTES.div_ceil(panel_bytes)
}

/// Asks for the words of `LANES` rows `ahead` bytes further on.
#[inline(always)]
pub(super) unsafe fn prefetch_rows<S: Simd>(from: *const u8, stride: usize, ahead: usize) {
    for row in 0..S::LANES {
        // SAFETY: the address need not be valid.
        unsafe { S::prefetch(from.wrapping_add(row * stride + ahead)) };
    }
}

/// The panel times all activation rows, a tile of `M` at a time.
///
/// # Safety
/// As [`super::rows`]; the panel holds the rows.
#[inline(always)]
pub(super) unsafe fn multiply<S: Simd, const BITS: u32, const M: usize>(
    args: &IntegerRows<'_>,
    row: usize,
    rows: usize,
    scratch: &Scratch,
) {
    let steps = args.group_size / 4;
    for tile in 0..args.x.layout.rows.div_ceil(M) {
        let x = args.x.tile(tile);
        // SAFETY: tiles are whole; the panel holds `groups * steps` vectors.
        unsafe {
            let biases = sum_biases::<S, M>(args, x, scratch);
            let mut sums = [S::zero(); M];
            for group in 0..args.groups {
                let mut dots = [S::zero_words(); M];
                for step in group * steps..(group + 1) * steps {
                    let bytes = S::load_words(scratch.panel.as_ptr().add(step * S::LANES).cast());
                    let x = x.values.add(4 * step * M);
                    for m in 0..M {
                        dots[m] = S::dot::<BITS>(dots[m], bytes, S::splat_bytes(x.add(4 * m)));
                    }
                }
                for m in 0..M {
                    sums[m] = add_group::<S, M>(sums[m], dots[m], x, m, group, scratch);
                }
            }
            for m in 0..M.min(x.layout.rows) {
                store::<S>(args.y, tile * M + m, row, rows, S::add(sums[m], biases[m]));
            }
        }
    }
}
