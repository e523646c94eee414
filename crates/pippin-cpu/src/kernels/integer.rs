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

/// Quantized activation rows, in tiles of `width` rows.
///
/// A tile is interleaved: four consecutive values of its first row, of its second, …, then the next four of each; its
/// scales and sums likewise, group by group. So a kernel finds all that it multiplies with a vector of weights on one or
/// two cache lines, at constant distances. The last tile is filled up with rows of zeros.
#[derive(Clone, Copy)]
pub(crate) struct Activations {
    pub(crate) values: *const i8,
    pub(crate) scales: *const f32,
    /// Scale times sum of the group's values.
    pub(crate) sums: *const f32,
    /// Values per row, and groups per row.
    pub(crate) columns: usize,
    pub(crate) groups: usize,
    /// Rows, not counting those that fill up the last tile.
    pub(crate) rows: usize,
    pub(crate) width: usize,
}

impl Activations {
    /// The part that begins with the `tile`-th tile.
    #[inline(always)]
    fn tile(self, tile: usize) -> Self {
        let skipped = tile * self.width;
        Self {
            values: self.values.wrapping_add(skipped * self.columns),
            scales: self.scales.wrapping_add(skipped * self.groups),
            sums: self.sums.wrapping_add(skipped * self.groups),
            rows: self.rows.saturating_sub(skipped),
            ..self
        }
    }

    /// The part that begins with row `row`, which begins a tile.
    pub(crate) fn starting_at(self, row: usize) -> Self {
        self.tile(row / self.width)
    }
}

/// The width of tiles for so many rows: few are one tile, multiplied with weights as they are read.
pub(crate) fn tile_width(rows: usize, widest: usize) -> usize {
    if rows <= DIRECT_ROWS { rows } else { widest }
}

/// The largest group of any quantization.
const MAX_GROUP: usize = 128;

/// Where one row goes in a tile, and its scales and sums: the first element, and the distance of each next one.
pub(crate) struct PackedRow {
    pub(crate) values: *mut [i8; 4],
    pub(crate) scales: *mut f32,
    pub(crate) sums: *mut f32,
    pub(crate) width: usize,
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
///
/// # Safety
/// `to` has room for the row: `row.len() / 4` times four values, and a scale and a sum for each group.
#[inline(always)]
pub(crate) unsafe fn quantize(row: &[f32], group_size: usize, fields: usize, to: &PackedRow) {
    let units = group_size / 4;
    for (group, row) in row.chunks_exact(group_size).enumerate() {
        // As integers, so that a NaN is the largest of all and is not lost.
        let largest = row.iter().map(|v| v.to_bits() & 0x7fff_ffff).fold(0, u32::max);
        let largest = f32::from_bits(largest);
        let factor = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        // In order first, which compilers make vectors of, then permuted.
        let mut values = [0i8; MAX_GROUP];
        let values = &mut values[..group_size];
        let mut total = 0;
        for (value, x) in values.iter_mut().zip(row) {
            *value = (x * factor).round_ties_even() as i8;
            total += i32::from(*value);
        }
        let mut permuted = [[0i8; 4]; MAX_GROUP / 4];
        let vectors = fields / 4;
        for (values, permuted) in values.chunks_exact(fields).zip(permuted.chunks_exact_mut(vectors)) {
            for (vector, unit) in permuted.iter_mut().enumerate() {
                *unit = std::array::from_fn(|byte| values[vector + byte * vectors]);
            }
        }
        let scale = largest / 127.0;
        // SAFETY: by contract.
        unsafe {
            let first = to.values.add(group * units * to.width);
            if to.width == 1 {
                std::ptr::copy_nonoverlapping(permuted.as_ptr(), first, units);
            } else {
                for (unit, value) in permuted[..units].iter().enumerate() {
                    *first.add(unit * to.width) = *value;
                }
            }
            *to.scales.add(group * to.width) = scale;
            *to.sums.add(group * to.width) = scale * total as f32;
        }
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
    let mut row = 0;
    while row < args.rows {
        let rows = (args.rows - row).min(S::LANES);
        // SAFETY: rows stay below `args.rows`.
        unsafe {
            load_groups::<S>(args, row, rows, scratch);
            match args.x.width {
                1 => direct::<S, BITS, 1>(args, row, rows, scratch),
                2 => direct::<S, BITS, 2>(args, row, rows, scratch),
                3 => direct::<S, BITS, 3>(args, row, rows, scratch),
                4 => direct::<S, BITS, 4>(args, row, rows, scratch),
                _ => unpacked::<S, BITS, TILE>(args, row, rows, scratch),
            }
        }
        row += S::LANES;
    }
}

/// `LANES` weight rows, unpacked to bytes once, times all activation rows.
#[inline(always)]
unsafe fn unpacked<S: Simd, const BITS: u32, const TILE: usize>(
    args: &IntegerRows<'_>,
    row: usize,
    rows: usize,
    scratch: &mut Scratch,
) {
    let fields = 32 / BITS as usize;
    let vectors = fields / 4;
    let stride = 4 * args.row_words;
    let ahead = prefetch_distance::<S>(stride);
    let len = args.row_words.next_multiple_of(S::LANES) * S::LANES;
    scratch.words.resize(S::LANES * S::LANES, 0);
    scratch.panel.resize(len * vectors, 0);
    // SAFETY: squares cover the row's words, the last one possibly in part; the panel has room for whole squares.
    unsafe {
        let words = args.words.add(row * stride);
        for first in (0..args.row_words).step_by(S::LANES) {
            let from = words.add(4 * first);
            prefetch_rows::<S>(from, stride, ahead);
            let count = (args.row_words - first).min(S::LANES);
            transpose::<S>(from, stride, rows, count, scratch.words.as_mut_ptr());
            for word in 0..S::LANES {
                let packed = S::load_words(scratch.words.as_ptr().add(word * S::LANES).cast());
                for vector in 0..vectors {
                    let bytes = S::bytes::<BITS>(packed, vector as u32 * BITS);
                    let to = scratch.panel.as_mut_ptr().add(((first + word) * vectors + vector) * S::LANES);
                    S::store_words(to, bytes);
                }
            }
        }
        panel::<S, BITS, TILE>(args, row, rows, args.group_size / 4, scratch);
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
            let steps = args.group_size / 4;
            match args.x.width {
                1 => panel::<S, 7, 1>(args, row, rows, steps, scratch),
                2 => panel::<S, 7, 2>(args, row, rows, steps, scratch),
                3 => panel::<S, 7, 3>(args, row, rows, steps, scratch),
                4 => panel::<S, 7, 4>(args, row, rows, steps, scratch),
                _ => panel::<S, 7, TILE>(args, row, rows, steps, scratch),
            }
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

/// How far ahead the same words of later rows lie.
#[inline(always)]
fn prefetch_distance<S: Simd>(stride: usize) -> usize {
    let panel_bytes = stride * S::LANES;
    panel_bytes * PREFETCH_BYTES.div_ceil(panel_bytes)
}

/// Asks for the words of `LANES` rows `ahead` bytes further on.
#[inline(always)]
unsafe fn prefetch_rows<S: Simd>(from: *const u8, stride: usize, ahead: usize) {
    for row in 0..S::LANES {
        // SAFETY: the address need not be valid.
        unsafe { S::prefetch(from.wrapping_add(row * stride + ahead)) };
    }
}

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
    let ahead = prefetch_distance::<S>(stride);
    // SAFETY: chunks cover the row's words, the last one possibly in part; groups are whole.
    unsafe {
        let words = args.words.add(row * stride);
        let mut sums = [S::zero(); M];
        let mut first = 0;
        while first < args.row_words {
            let count = chunk.min(args.row_words - first);
            let from = words.add(4 * first);
            prefetch_rows::<S>(from, stride, ahead);
            transpose::<S>(from, stride, rows, count, scratch.words.as_mut_ptr());
            let mut word = 0;
            while word < count {
                let group = (first + word) / group_words;
                let mut dots = [[S::zero_words(); M]; 2];
                for w in word..word + group_words {
                    let packed = S::load_words(scratch.words.as_ptr().add(w * S::LANES).cast());
                    let x = args.x.values.add((first + w) * fields * M);
                    for vector in 0..vectors {
                        let bytes = S::bytes::<BITS>(packed, vector as u32 * BITS);
                        for m in 0..M {
                            let x = x.add(4 * (vector * M + m));
                            dots[vector % 2][m] = S::dot::<BITS>(dots[vector % 2][m], bytes, x);
                        }
                    }
                }
                for m in 0..M {
                    let dot = S::add_words(dots[0][m], dots[1][m]);
                    sums[m] = add_group::<S, M>(sums[m], dot, args.x, m, group, scratch);
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

/// A panel of bytes times all activation rows, a tile of them at a time. `steps` is vectors of bytes per group.
#[inline(always)]
unsafe fn panel<S: Simd, const BITS: u32, const M: usize>(
    args: &IntegerRows<'_>,
    row: usize,
    rows: usize,
    steps: usize,
    scratch: &Scratch,
) {
    for tile in 0..args.x.rows.div_ceil(M) {
        let x = args.x.tile(tile);
        // SAFETY: tiles are whole; the panel holds `groups * steps` vectors.
        unsafe {
            let mut sums = [S::zero(); M];
            for group in 0..args.groups {
                let mut dots = [S::zero_words(); M];
                for step in group * steps..(group + 1) * steps {
                    let bytes = S::load_words(scratch.panel.as_ptr().add(step * S::LANES).cast());
                    let x = x.values.add(4 * step * M);
                    for m in 0..M {
                        dots[m] = S::dot::<BITS>(dots[m], bytes, x.add(4 * m));
                    }
                }
                for m in 0..M {
                    sums[m] = add_group::<S, M>(sums[m], dots[m], x, m, group, scratch);
                }
            }
            for m in 0..M.min(x.rows) {
                store::<S>(args.y, tile * M + m, row, rows, sums[m]);
            }
        }
    }
}

/// Adds a group's part to the sums: the one place that fixes the order of floating-point operations.
#[inline(always)]
unsafe fn add_group<S: Simd, const M: usize>(
    sums: S::F,
    dots: S::U,
    x: Activations,
    m: usize,
    group: usize,
    scratch: &Scratch,
) -> S::F {
    // SAFETY: `m` and `group` are below their counts.
    unsafe {
        let scales = S::load(scratch.scales.as_ptr().add(group * S::LANES));
        let biases = S::load(scratch.biases.as_ptr().add(group * S::LANES));
        let scale = S::splat(*x.scales.add(group * M + m));
        let sum = S::splat(*x.sums.add(group * M + m));
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
