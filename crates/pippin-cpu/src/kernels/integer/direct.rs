//! One activation row: weight rows are multiplied as they are read, one after the other.

use super::{IntegerRows, Scratch, add_group, store, sum_biases, transpose};
use crate::{
    kernels::matmul::load_last_words,
    simd::{MAX_LANES, Simd},
};

/// How far ahead of its use a weight is fetched.
const PREFETCH_BYTES: usize = 8192;

/// Up to `LANES` weight rows times the activation row. Weights are fields of `FIELD` bits, of which at most `BITS` are
/// used.
///
/// # Safety
/// As [`super::rows`]; activations are laid out for this.
#[inline(always)]
pub(super) unsafe fn rows<S: Simd, const FIELD: u32, const BITS: u32>(
    args: &IntegerRows<'_>,
    row: usize,
    rows: usize,
    scratch: &mut Scratch,
) {
    // SAFETY: by contract.
    unsafe {
        match args.group_size {
            16 => multiply::<S, FIELD, BITS, 16>(args, row, rows, scratch),
            32 => multiply::<S, FIELD, BITS, 32>(args, row, rows, scratch),
            64 => multiply::<S, FIELD, BITS, 64>(args, row, rows, scratch),
            _ => multiply::<S, FIELD, BITS, 128>(args, row, rows, scratch),
        }
    }
}

#[inline(always)]
unsafe fn multiply<S: Simd, const FIELD: u32, const BITS: u32, const GROUP: usize>(
    args: &IntegerRows<'_>,
    row: usize,
    rows: usize,
    scratch: &mut Scratch,
) {
    let tile_words = GROUP * FIELD as usize / 32 * S::LANES;
    // Groups per row, padded to whole tiles, which are `LANES` groups.
    let padded = args.groups.next_multiple_of(S::LANES);
    scratch.dots.reserve(S::LANES * padded);
    scratch.transposed.reserve(padded * S::LANES);
    // SAFETY: tiles cover a row's words, the last one possibly in part, and whole tiles of the padded activations.
    unsafe {
        for r in 0..rows {
            let words = args.words.add(4 * (row + r) * args.row_words);
            for index in 0..padded / S::LANES {
                let (words, count) = (words.add(4 * index * tile_words), args.row_words - index * tile_words);
                let x = args.x.values.add(index * GROUP * S::LANES);
                let dots = if count >= tile_words {
                    tile::<S, FIELD, BITS, GROUP, true>(words, count, x)
                } else {
                    tile::<S, FIELD, BITS, GROUP, false>(words, count, x)
                };
                S::store_words(scratch.dots.as_mut_ptr().add(r * padded + index * S::LANES).cast(), dots);
            }
        }
        let transposed = scratch.transposed.as_mut_ptr().cast();
        transpose::<S>(scratch.dots.as_ptr().cast(), 4 * padded, rows, args.groups, transposed);
        let [biases] = sum_biases::<S, 1>(args, args.x, scratch);
        let mut sums = S::zero();
        for group in 0..args.groups {
            let dots = S::load_words(transposed.add(group * S::LANES).cast());
            sums = add_group::<S, 1>(sums, dots, args.x, 0, group, scratch);
        }
        store::<S>(args.y, 0, row, rows, S::add(sums, biases));
    }
}

/// The integer sums of `LANES` groups of a row, a group per lane. `count` words are there; the others count as zeros.
#[inline(always)]
unsafe fn tile<S: Simd, const FIELD: u32, const BITS: u32, const GROUP: usize, const WHOLE: bool>(
    words: *const u8,
    count: usize,
    x: *const i8,
) -> S::U {
    let vectors = 8 / FIELD as usize;
    let group_words = GROUP * FIELD as usize / 32;
    // A vector of sums belongs to one group, or, where groups are shorter than a vector, to several.
    let (sums, lines) = (group_words.min(S::LANES), (group_words / S::LANES).max(1));
    // SAFETY: by contract.
    unsafe {
        let mut dots = [S::zero_words(); MAX_LANES];
        for sum in 0..sums {
            for line in sum * lines..(sum + 1) * lines {
                let first = line * S::LANES;
                if WHOLE || first < count {
                    let from = words.add(4 * first);
                    // Bytes unpacked a moment ago are near, and nothing follows them.
                    if FIELD == BITS {
                        S::prefetch(from.wrapping_add(PREFETCH_BYTES));
                    }
                    let packed = if WHOLE || first + S::LANES <= count {
                        S::load_words(from)
                    } else {
                        load_last_words::<S>(from, count - first)
                    };
                    for vector in 0..vectors {
                        let bytes = S::bytes::<FIELD>(packed, vector as u32 * FIELD);
                        let x = S::load_words(x.add(4 * (line * vectors + vector) * S::LANES).cast());
                        dots[sum] = S::dot::<BITS>(dots[sum], bytes, x);
                    }
                }
            }
        }
        // Sums of pairs, of fours, …: after as many rounds as it takes a lane is a group.
        for half in [8, 4, 2, 1] {
            if 2 * half <= sums {
                for i in 0..half {
                    dots[i] = S::add_pairs(dots[2 * i], dots[2 * i + 1]);
                }
            }
        }
        dots[0]
    }
}
