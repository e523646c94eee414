//! Products with activations of eight bits.
//!
//! An activation row is quantized per group of the weights' groups: `x ≈ scale · x8` with `x8` in `±127`. With affine
//! weights `w = s · q + b` a group's part of a product is then
//!
//! ```text
//! sum of w·x  ≈  s · scale · (q · x8)  +  b · scale · (sum of x8)
//! ```
//!
//! whose two sums are integer and exact. (The sum of the quantized activations, not of the activations themselves, is
//! taken for the bias: the rounding errors then meet `w`, which is centred on zero, and not `q`, which is not.) The
//! floating-point part is one vector of outputs, to which groups are added in order; integer sums have no order. So here
//! too an output depends neither on the number of activation rows nor on the path.
//!
//! # Layout
//!
//! A lane is an output: `LANES` weight rows are transposed, so that a vector holds the same word of each. Masking it gives
//! four weights per lane, which are multiplied with four activations that all lanes share.

#![allow(clippy::needless_range_loop, reason = "index arithmetic is what these loops are about")]

use super::matmul::{Element, Output, widen};
use crate::simd::{MAX_LANES, Simd};

/// Quantized activation rows.
#[derive(Clone, Copy)]
pub(crate) struct Activations {
    /// `[rows, stride]`, each row in the order of [`pack`].
    pub(crate) values: *const i8,
    pub(crate) stride: usize,
    /// `[rows, groups]`.
    pub(crate) scales: *const f32,
    /// Scale times sum of the group's values, `[rows, groups]`.
    pub(crate) sums: *const f32,
    pub(crate) groups: usize,
    pub(crate) rows: usize,
}

/// Consecutive rows of a quantized matrix, and where their products go.
pub(crate) struct IntegerRows<'a> {
    /// The first row's words.
    pub(crate) words: *const u8,
    /// Words per row.
    pub(crate) row_words: usize,
    pub(crate) rows: usize,
    /// The scales of these rows and of those that follow, `groups` per row, in no particular alignment.
    pub(crate) scales: &'a [u8],
    /// The biases, likewise.
    pub(crate) biases: &'a [u8],
    pub(crate) element: Element,
    pub(crate) groups: usize,
    /// Weights per group.
    pub(crate) group_size: usize,
    pub(crate) x: Activations,
    pub(crate) y: Output,
}

/// Activation rows that are multiplied with weights as they are read.
pub(crate) const DIRECT_ROWS: usize = 4;

/// Buffers of one thread.
#[derive(Default)]
pub(crate) struct Scratch {
    words: Vec<u32>,
    widened: Vec<f32>,
    scales: Vec<f32>,
    biases: Vec<f32>,
    panel: Vec<u32>,
}

/// Quantizes an activation row and packs it for weights with `fields` fields per word (4 for those that go through a
/// byte panel): of each word's activations, those of byte 0, 1, 2 and 3 of its first vector of bytes, then of the next.
#[inline(always)]
pub(crate) fn quantize(
    row: &[f32],
    group_size: usize,
    fields: usize,
    out: &mut [i8],
    scales: &mut [f32],
    sums: &mut [f32],
) {
    let groups = row.chunks_exact(group_size).zip(out.chunks_exact_mut(group_size));
    for ((row, out), (scale, sum)) in groups.zip(scales.iter_mut().zip(sums)) {
        // As integers, so that a NaN is the largest of all and is not lost.
        let largest = row.iter().map(|v| v.to_bits() & 0x7fff_ffff).fold(0, u32::max);
        let largest = f32::from_bits(largest);
        let factor = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let mut total = 0;
        for (row, out) in row.chunks_exact(fields).zip(out.chunks_exact_mut(fields)) {
            let vectors = fields / 4;
            for vector in 0..vectors {
                for byte in 0..4 {
                    let value = (row[vector + byte * vectors] * factor).round_ties_even() as i8;
                    out[4 * vector + byte] = value;
                    total += i32::from(value);
                }
            }
        }
        *scale = largest / 127.0;
        *sum = *scale * total as f32;
    }
}

/// Transposes up to `LANES` rows of `columns` words; the missing rows become zero.
///
/// # Safety
/// `from` is valid for `rows` rows of `columns` words, `stride` bytes apart; `to` for `columns`, rounded up to `LANES`,
/// times `LANES` words.
#[inline(always)]
unsafe fn transpose<S: Simd>(from: *const u8, stride: usize, rows: usize, columns: usize, to: *mut u32) {
    // SAFETY: whole squares lie inside; the others are copied to a buffer first.
    unsafe {
        let mut column = 0;
        while column < columns {
            let from = from.add(4 * column);
            let to = to.add(column * S::LANES);
            if rows >= S::LANES && columns - column >= S::LANES {
                S::transpose(from, stride, to);
            } else {
                let mut buffer = [0u32; MAX_LANES * MAX_LANES];
                for row in 0..rows.min(S::LANES) {
                    let count = (columns - column).min(S::LANES);
                    let to = buffer.as_mut_ptr().add(row * S::LANES);
                    std::ptr::copy_nonoverlapping(from.add(row * stride), to.cast::<u8>(), 4 * count);
                }
                S::transpose(buffer.as_ptr().cast(), 4 * S::LANES, to);
            }
            column += S::LANES;
        }
    }
}

/// Products with any number of activation rows. `BITS` is the bit width, a power of two.
///
/// # Safety
/// Pointers are valid for the sizes in `args`.
#[inline(always)]
pub(crate) unsafe fn rows<S: Simd, const BITS: u32, const TILE: usize>(
    args: &IntegerRows<'_>,
    scratch: &mut Scratch,
) {
    let fields = 32 / BITS as usize;
    let group_words = args.group_size / fields;
    let mut row = 0;
    while row < args.rows {
        let rows = (args.rows - row).min(S::LANES);
        // SAFETY: rows stay below `args.rows`.
        unsafe {
            let words = args.words.add(4 * row * args.row_words);
            load_groups::<S>(args, row, rows, scratch);
            if args.x.rows <= DIRECT_ROWS {
                match args.x.rows {
                    1 => direct::<S, BITS, 1>(args, row, rows, scratch),
                    2 => direct::<S, BITS, 2>(args, row, rows, scratch),
                    3 => direct::<S, BITS, 3>(args, row, rows, scratch),
                    _ => direct::<S, BITS, 4>(args, row, rows, scratch),
                }
            } else {
                // Unpack to bytes once, for all activation rows.
                let vectors = fields / 4;
                let len = args.row_words.next_multiple_of(S::LANES) * S::LANES;
                scratch.words.resize(len, 0);
                transpose::<S>(words, 4 * args.row_words, rows, args.row_words, scratch.words.as_mut_ptr());
                scratch.panel.resize(len * vectors, 0);
                for word in 0..args.row_words {
                    let packed = S::load_words(scratch.words.as_ptr().add(word * S::LANES).cast());
                    for vector in 0..vectors {
                        let bytes = S::bytes::<BITS>(packed, vector as u32 * BITS);
                        let to = scratch.panel.as_mut_ptr().add((word * vectors + vector) * S::LANES);
                        S::store_words(to, bytes);
                    }
                }
                panel::<S, BITS, TILE>(args, row, rows, group_words * vectors, scratch);
            }
        }
        row += S::LANES;
    }
}

/// Products of weights of any width, given as bytes: `unpacked` holds `args.rows` rows of one byte per weight.
///
/// # Safety
/// As [`rows`]; `args.words` is not used.
#[inline(always)]
pub(crate) unsafe fn byte_rows<S: Simd, const TILE: usize>(
    args: &IntegerRows<'_>,
    unpacked: *const u8,
    scratch: &mut Scratch,
) {
    let columns = args.groups * args.group_size;
    let mut row = 0;
    while row < args.rows {
        let rows = (args.rows - row).min(S::LANES);
        // SAFETY: rows stay below `args.rows`.
        unsafe {
            load_groups::<S>(args, row, rows, scratch);
            scratch.panel.resize((columns / 4).next_multiple_of(S::LANES) * S::LANES, 0);
            transpose::<S>(
                unpacked.add(row * columns),
                columns,
                rows,
                columns / 4,
                scratch.panel.as_mut_ptr(),
            );
            // Widths that are not a power of two are below eight, and their products as safe as those of seven.
            panel::<S, 7, TILE>(args, row, rows, args.group_size / 4, scratch);
        }
        row += S::LANES;
    }
}

/// Widens and transposes the scales and biases of up to `LANES` rows, and asks for those of the next.
#[inline(always)]
unsafe fn load_groups<S: Simd>(args: &IntegerRows<'_>, row: usize, rows: usize, scratch: &mut Scratch) {
    let len = args.groups.next_multiple_of(S::LANES) * S::LANES;
    let row_bytes = args.groups * args.element.size();
    scratch.widened.resize(S::LANES * args.groups, 0.0);
    scratch.scales.resize(len, 0.0);
    scratch.biases.resize(len, 0.0);
    // SAFETY: `args` holds `groups` values per row.
    unsafe {
        for (from, to) in [(args.scales, &mut scratch.scales), (args.biases, &mut scratch.biases)] {
            let from = from.as_ptr().add(row * row_bytes);
            let next = from.wrapping_add(S::LANES * row_bytes);
            for line in (0..S::LANES * row_bytes).step_by(64) {
                S::prefetch(next.wrapping_add(line));
            }
            widen::<S>(from, args.element, &mut scratch.widened[..rows * args.groups]);
            let from = scratch.widened.as_ptr().cast();
            transpose::<S>(from, 4 * args.groups, rows, args.groups, to.as_mut_ptr().cast());
        }
    }
}

/// How far ahead of its use, at least, a weight is fetched.
const PREFETCH_BYTES: usize = 4096;

/// `LANES` weight rows, transposed as they are read, times `M` activation rows.
#[inline(always)]
unsafe fn direct<S: Simd, const BITS: u32, const M: usize>(
    args: &IntegerRows<'_>,
    row: usize,
    rows: usize,
    scratch: &mut Scratch,
) {
    let fields = 32 / BITS as usize;
    let vectors = fields / 4;
    let group_words = args.group_size / fields;
    // Whole groups and whole squares: both are powers of two.
    let chunk = group_words.max(S::LANES);
    scratch.words.resize(chunk * S::LANES, 0);
    let stride = 4 * args.row_words;
    let panel_bytes = stride * S::LANES;
    let ahead = panel_bytes * PREFETCH_BYTES.div_ceil(panel_bytes);
    // SAFETY: chunks cover the row's words, the last one possibly in part; groups are whole.
    unsafe {
        let words = args.words.add(row * stride);
        let mut sums = [S::zero(); M];
        let mut first = 0;
        while first < args.row_words {
            let count = chunk.min(args.row_words - first);
            let from = words.add(4 * first);
            for r in 0..S::LANES {
                S::prefetch(from.wrapping_add(r * stride + ahead));
            }
            transpose::<S>(from, stride, rows, count, scratch.words.as_mut_ptr());
            let mut word = 0;
            while word < count {
                let group = (first + word) / group_words;
                let mut dots = [[S::zero_words(); M]; 2];
                for w in word..word + group_words {
                    let packed = S::load_words(scratch.words.as_ptr().add(w * S::LANES).cast());
                    let x = args.x.values.add((first + w) * fields);
                    for vector in 0..vectors {
                        let bytes = S::bytes::<BITS>(packed, vector as u32 * BITS);
                        for m in 0..M {
                            let x = x.add(m * args.x.stride + 4 * vector);
                            dots[vector % 2][m] = S::dot::<BITS>(dots[vector % 2][m], bytes, x);
                        }
                    }
                }
                for m in 0..M {
                    let dot = S::add_words(dots[0][m], dots[1][m]);
                    sums[m] = add_group::<S>(sums[m], dot, args, m, group, scratch);
                }
                word += group_words;
            }
            first += chunk;
        }
        for m in 0..M {
            store::<S>(args.y, m, row, rows, sums[m]);
        }
    }
}

/// A panel of bytes times all activation rows, `TILE` of them at a time. `steps` is vectors of bytes per group.
#[inline(always)]
unsafe fn panel<S: Simd, const BITS: u32, const TILE: usize>(
    args: &IntegerRows<'_>,
    row: usize,
    rows: usize,
    steps: usize,
    scratch: &Scratch,
) {
    // SAFETY: activation rows stay below `args.x.rows`.
    unsafe {
        let mut m = 0;
        while m + TILE <= args.x.rows {
            panel_tile::<S, BITS, TILE>(args, m, row, rows, steps, scratch);
            m += TILE;
        }
        while m + 2 <= args.x.rows {
            panel_tile::<S, BITS, 2>(args, m, row, rows, steps, scratch);
            m += 2;
        }
        if m < args.x.rows {
            panel_tile::<S, BITS, 1>(args, m, row, rows, steps, scratch);
        }
    }
}

#[inline(always)]
unsafe fn panel_tile<S: Simd, const BITS: u32, const M: usize>(
    args: &IntegerRows<'_>,
    first: usize,
    row: usize,
    rows: usize,
    steps: usize,
    scratch: &Scratch,
) {
    // SAFETY: the panel holds `groups * steps` vectors.
    unsafe {
        let mut sums = [S::zero(); M];
        let x = args.x.values.add(first * args.x.stride);
        for group in 0..args.groups {
            let mut dots = [S::zero_words(); M];
            for step in group * steps..(group + 1) * steps {
                let bytes = S::load_words(scratch.panel.as_ptr().add(step * S::LANES).cast());
                let x = x.add(4 * step);
                for m in 0..M {
                    dots[m] = S::dot::<BITS>(dots[m], bytes, x.add(m * args.x.stride));
                }
            }
            for m in 0..M {
                sums[m] = add_group::<S>(sums[m], dots[m], args, first + m, group, scratch);
            }
        }
        for m in 0..M {
            store::<S>(args.y, first + m, row, rows, sums[m]);
        }
    }
}

/// Adds a group's part to the sums: the one place that fixes the order of floating-point operations.
#[inline(always)]
unsafe fn add_group<S: Simd>(
    sums: S::F,
    dots: S::U,
    args: &IntegerRows<'_>,
    m: usize,
    group: usize,
    scratch: &Scratch,
) -> S::F {
    // SAFETY: `m` and `group` are below their counts.
    unsafe {
        let scales = S::load(scratch.scales.as_ptr().add(group * S::LANES));
        let biases = S::load(scratch.biases.as_ptr().add(group * S::LANES));
        let scale = S::splat(*args.x.scales.add(m * args.x.groups + group));
        let sum = S::splat(*args.x.sums.add(m * args.x.groups + group));
        let sums = S::fma(biases, sum, sums);
        S::fma(S::mul(scales, scale), S::to_float(dots), sums)
    }
}

#[inline(always)]
unsafe fn store<S: Simd>(y: Output, m: usize, row: usize, rows: usize, sums: S::F) {
    // SAFETY: `rows` outputs from `row` on belong to this call.
    unsafe {
        let to = y.values.add(m * y.stride + row);
        if rows == S::LANES {
            S::store(to, sums);
        } else {
            let mut buffer = [0.0f32; MAX_LANES];
            S::store(buffer.as_mut_ptr(), sums);
            std::ptr::copy_nonoverlapping(buffer.as_ptr(), to, rows);
        }
    }
}
