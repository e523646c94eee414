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
//! # Three ways
//!
//! With one activation row ([`direct`]) the weights' bytes are what a product costs: rows are read one after the other,
//! as they lie in memory, and a vector of words is multiplied with the vectors of activations that belong to it. The
//! integer sums of `LANES` rows are transposed at the end, so that a lane is an output.
//!
//! With a few ([`few`]), weight rows are transposed as they are read: a lane is an output from the beginning, and its four
//! weights are multiplied with four activations that all lanes share. With many ([`panel`]) the transposed and unpacked
//! rows are kept, and multiplied with a tile of activation rows after the other.

#![allow(clippy::needless_range_loop, reason = "index arithmetic is what these loops are about")]

mod direct;
mod few;
mod panel;

use std::ops::Range;

use super::{
    matmul::{Element, Output, load_elements},
    unpack::{E2M1_FACTOR, E2M1_OFFSET},
};
use crate::{
    simd::{MAX_LANES, Simd},
    tensor::Lines,
};

/// Activation rows up to which a tile is as wide as there are rows.
const FEW_ROWS: usize = 4;

/// How quantized activation rows are laid out.
///
/// A row by itself, for [`direct`], is cut into blocks of as many words of weights as a vector has lanes; a block holds,
/// for each word, the four values that belong to the first vector of bytes unpacked from the words, then those of the
/// second, and so on. It is padded to whole tiles of [`direct`].
///
/// Several rows are interleaved in tiles of `width` rows: four consecutive values of its first row, of its second, …,
/// then the next four of each. So a kernel finds all that it multiplies with a vector of weights on one or two cache
/// lines, at constant distances. The last tile is filled up with rows of zeros.
///
/// Scales and sums are interleaved by `width` rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Rows, not counting those that fill up the last tile.
    pub(crate) rows: usize,
    /// Rows of a tile.
    pub(crate) width: usize,
    /// Values per row, padding included.
    pub(crate) columns: usize,
    /// Groups per row.
    pub(crate) groups: usize,
    /// Whether rows are laid out for [`direct`].
    pub(crate) direct: bool,
}

impl Layout {
    /// The layout for `rows` rows of `columns` values, in groups as the weights', for vectors of `lanes` lanes and tiles
    /// of `tile_rows` rows.
    pub(crate) fn new(
        rows: usize,
        columns: usize,
        group_size: usize,
        lanes: usize,
        tile_rows: usize,
    ) -> Self {
        let groups = columns / group_size;
        let direct = rows == 1;
        let columns = if direct { columns.next_multiple_of(lanes * group_size) } else { columns };
        let width = if rows <= FEW_ROWS { rows } else { tile_rows };
        Self { rows, width, columns, groups, direct }
    }

    fn padded_rows(self) -> usize {
        self.rows.next_multiple_of(self.width.max(1))
    }

    /// Bytes of all rows.
    pub(crate) fn values_len(self) -> usize {
        self.padded_rows() * self.columns
    }

    /// Scales, and sums, of all rows.
    pub(crate) fn groups_len(self) -> usize {
        self.padded_rows() * self.groups
    }

    /// Where the last tile begins, if rows of zeros must fill it up.
    pub(crate) fn unfilled_tile(self) -> Option<usize> {
        let padded = self.padded_rows();
        (padded > self.rows).then(|| padded - self.width)
    }

    /// Where a row goes, given where the first one does.
    pub(crate) fn row(self, row: usize, values: *mut i8, scales: *mut f32, sums: *mut f32) -> PackedRow {
        let (tile, place) = (row / self.width * self.width, row % self.width);
        let first_group = tile * self.groups + place;
        let (offset, distance) = if self.direct {
            (row * self.columns, None)
        } else {
            (tile * self.columns + 4 * place, Some(self.width))
        };
        PackedRow {
            values: values.wrapping_add(offset).cast(),
            distance,
            scales: scales.wrapping_add(first_group),
            sums: sums.wrapping_add(first_group),
            width: self.width,
        }
    }
}

/// Quantized activation rows.
#[derive(Clone, Copy)]
pub(crate) struct Activations {
    pub(crate) values: *const i8,
    pub(crate) scales: *const f32,
    /// Scale times sum of the group's values.
    pub(crate) sums: *const f32,
    pub(crate) layout: Layout,
}

impl Activations {
    /// The part that begins with the `tile`-th tile.
    #[inline(always)]
    fn tile(self, tile: usize) -> Self {
        let Layout { rows, width, columns, groups, .. } = self.layout;
        let skipped = tile * width;
        Self {
            values: self.values.wrapping_add(skipped * columns),
            scales: self.scales.wrapping_add(skipped * groups),
            sums: self.sums.wrapping_add(skipped * groups),
            layout: Layout { rows: rows.saturating_sub(skipped), ..self.layout },
        }
    }

    /// Some of the rows; the first of them begins a tile.
    pub(crate) fn rows(self, rows: Range<usize>) -> Self {
        let part = self.tile(rows.start / self.layout.width);
        Self { layout: Layout { rows: rows.len(), ..part.layout }, ..part }
    }
}

/// The largest group of any quantization.
const MAX_GROUP: usize = 128;

/// Where one row goes, and its scales and sums.
pub(crate) struct PackedRow {
    values: *mut [i8; 4],
    /// In a tile of many rows: the distance of four values to the next four, in fours.
    distance: Option<usize>,
    scales: *mut f32,
    sums: *mut f32,
    /// The distance of one group's scale to the next one's.
    width: usize,
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
    /// The biases, likewise. Without, the weights are E2M1 floats as [`super::unpack::Codes::E2m1`] describes.
    pub(crate) biases: Option<&'a [u8]>,
    pub(crate) element: Element,
    pub(crate) groups: usize,
    /// Weights per group.
    pub(crate) group_size: usize,
    pub(crate) x: Activations,
    pub(crate) y: Output,
}

/// Buffers of one thread; those of words hold the bits of floats.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Scales and biases of `LANES` rows, a vector per group.
    scales: Lines,
    biases: Lines,
    /// A square of words.
    words: Lines,
    /// `LANES` rows as bytes, a vector per four weights.
    panel: Lines,
    /// Integer sums of `LANES` rows, row by row; and those of one activation row, a vector per group.
    dots: Lines,
    transposed: Lines,
}

/// Quantizes an activation row and packs it for weights with `fields` fields per word (4 for those that are unpacked to
/// bytes first); see [`Layout`].
///
/// # Safety
/// `to` has room for the row: its values, and a scale and a sum for each group.
#[inline(always)]
pub(crate) unsafe fn quantize<S: Simd>(row: &[f32], group_size: usize, fields: usize, to: &PackedRow) {
    let (words, vectors) = (group_size / fields, fields / 4);
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
        // The bytes of each word's vectors.
        let mut permuted = [[0i8; 4]; MAX_GROUP / 4];
        for (values, permuted) in values.chunks_exact(fields).zip(permuted.chunks_exact_mut(vectors)) {
            for (vector, unit) in permuted.iter_mut().enumerate() {
                *unit = std::array::from_fn(|byte| values[vector + byte * vectors]);
            }
        }
        let scale = largest / 127.0;
        // SAFETY: by contract.
        unsafe {
            if let Some(distance) = to.distance {
                let first = to.values.add(group * group_size / 4 * distance);
                for (unit, value) in permuted[..group_size / 4].iter().enumerate() {
                    *first.add(unit * distance) = *value;
                }
            } else {
                for vector in 0..vectors {
                    for word in 0..words {
                        let place = group * words + word;
                        let (block, lane) = (place / S::LANES, place % S::LANES);
                        *to.values.add((block * vectors + vector) * S::LANES + lane) =
                            permuted[word * vectors + vector];
                    }
                }
            }
            *to.scales.add(group * to.width) = scale;
            *to.sums.add(group * to.width) = scale * total as f32;
        }
    }
}

/// Products of weights of `BITS` bits, a power of two, with any number of activation rows; of many, `TILE` at a time.
///
/// # Safety
/// Pointers are valid for the sizes in `args`.
#[inline(always)]
pub(crate) unsafe fn rows<S: Simd, const BITS: u32, const TILE: usize>(
    args: &IntegerRows<'_>,
    scratch: &mut Scratch,
) {
    // SAFETY: by contract.
    unsafe { rows_of::<S, BITS, BITS, TILE>(args, scratch) }
}

/// Products of weights of other widths, given as bytes: `args.words` are `args.rows` rows of one byte per weight, of at
/// most seven bits.
///
/// # Safety
/// As [`rows`].
#[inline(always)]
pub(crate) unsafe fn byte_rows<S: Simd, const TILE: usize>(args: &IntegerRows<'_>, scratch: &mut Scratch) {
    // SAFETY: by contract.
    unsafe { rows_of::<S, 8, 7, TILE>(args, scratch) }
}

/// Weights are fields of `FIELD` bits, of which at most `BITS` are used.
#[inline(always)]
unsafe fn rows_of<S: Simd, const FIELD: u32, const BITS: u32, const TILE: usize>(
    args: &IntegerRows<'_>,
    scratch: &mut Scratch,
) {
    for row in (0..args.rows).step_by(S::LANES) {
        let rows = (args.rows - row).min(S::LANES);
        // SAFETY: rows stay below `args.rows`.
        unsafe {
            load_groups::<S>(args, row, rows, scratch);
            if args.x.layout.direct {
                direct::rows::<S, FIELD, BITS>(args, row, rows, scratch);
            } else {
                match args.x.layout.width {
                    2 => few::multiply::<S, FIELD, BITS, 2>(args, row, rows, scratch),
                    3 => few::multiply::<S, FIELD, BITS, 3>(args, row, rows, scratch),
                    4 => few::multiply::<S, FIELD, BITS, 4>(args, row, rows, scratch),
                    _ if args.x.layout.rows <= TILE => {
                        few::multiply::<S, FIELD, BITS, TILE>(args, row, rows, scratch);
                    }
                    _ => {
                        panel::unpack::<S, FIELD>(args, row, rows, scratch);
                        panel::multiply::<S, BITS, TILE>(args, row, rows, scratch);
                    }
                }
            }
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
    // SAFETY: of squares that are not whole only the valid words are loaded.
    unsafe {
        for column in (0..columns).step_by(S::LANES) {
            let from = from.add(4 * column);
            let mut square = [S::zero_words(); MAX_LANES];
            if rows >= S::LANES && columns - column >= S::LANES {
                for r in 0..S::LANES {
                    // Four rows from each base: with two strides in registers the addresses need no arithmetic.
                    square[r] = S::load_words(from.add(r / 4 * (4 * stride)).add(r % 4 * stride));
                }
            } else {
                for r in 0..rows.min(S::LANES) {
                    let count = columns - column;
                    square[r] = S::to_bits(load_elements::<S>(from.add(r * stride), Element::F32, count));
                }
            }
            S::transpose(&square, to.add(column * S::LANES));
        }
    }
}

/// Widens and transposes the scales and biases of up to `LANES` rows, and asks for those of the next.
#[inline(always)]
unsafe fn load_groups<S: Simd>(args: &IntegerRows<'_>, row: usize, rows: usize, scratch: &mut Scratch) {
    let len = args.groups.next_multiple_of(S::LANES) * S::LANES;
    let scales = scratch.scales.reserve(len).as_mut_ptr();
    let biases = scratch.biases.reserve(len).as_mut_ptr();
    // SAFETY: `args` holds `groups` values per row.
    unsafe {
        for (from, to) in [(Some(args.scales), scales), (args.biases, biases)] {
            let (Some(from), to) = (from, to.cast()) else { continue };
            // The element type outside of the loops.
            match args.element {
                Element::F32 => transpose_groups::<S>(args, from, Element::F32, row, rows, to),
                Element::F16 => transpose_groups::<S>(args, from, Element::F16, row, rows, to),
                Element::Bf16 => transpose_groups::<S>(args, from, Element::Bf16, row, rows, to),
                Element::E4m3 => transpose_groups::<S>(args, from, Element::E4m3, row, rows, to),
                Element::E8m0 => transpose_groups::<S>(args, from, Element::E8m0, row, rows, to),
            }
        }
        if args.biases.is_none() {
            for at in (0..args.groups * S::LANES).step_by(S::LANES) {
                let scale = S::mul(S::load(scales.add(at)), S::splat(E2M1_FACTOR));
                S::store(scales.add(at), scale);
                S::store(biases.add(at), S::mul(scale, S::splat(-f32::from(E2M1_OFFSET))));
            }
        }
    }
}

#[inline(always)]
unsafe fn transpose_groups<S: Simd>(
    args: &IntegerRows<'_>,
    from: &[u8],
    element: Element,
    row: usize,
    rows: usize,
    to: *mut u32,
) {
    let row_bytes = args.groups * element.size();
    let first = row * row_bytes;
    // SAFETY: `from` holds `groups` values per row; vectors that reach over the end of a row are loaded only where
    // something follows.
    unsafe {
        let next = from.as_ptr().wrapping_add(first + S::LANES * row_bytes);
        for line in (0..S::LANES * row_bytes).step_by(64) {
            S::prefetch(next.wrapping_add(line));
        }
        for group in (0..args.groups).step_by(S::LANES) {
            let mut square = [S::zero_words(); MAX_LANES];
            let first = first + group * element.size();
            let count = args.groups - group;
            if rows == S::LANES
                && first + (S::LANES - 1) * row_bytes + S::LANES * element.size() <= from.len()
            {
                for r in 0..S::LANES {
                    let from = from.as_ptr().add(first + r * row_bytes);
                    square[r] = S::to_bits(load_elements::<S>(from, element, S::LANES));
                }
            } else {
                for r in 0..rows {
                    let from = from.as_ptr().add(first + r * row_bytes);
                    square[r] = S::to_bits(load_elements::<S>(from, element, count));
                }
            }
            S::transpose(&square, to.add(group * S::LANES));
        }
    }
}

/// The biases' part of the products with `M` activation rows. It is summed by itself, which makes two short chains of
/// dependent additions of one long.
#[inline(always)]
unsafe fn sum_biases<S: Simd, const M: usize>(
    args: &IntegerRows<'_>,
    x: Activations,
    scratch: &Scratch,
) -> [S::F; M] {
    // SAFETY: groups are below their count.
    unsafe {
        let mut sums = [S::zero(); M];
        for group in 0..args.groups {
            let biases = S::load(scratch.biases.as_ptr().add(group * S::LANES));
            for m in 0..M {
                sums[m] = S::fma(biases, S::splat(*x.sums.add(group * M + m)), sums[m]);
            }
        }
        sums
    }
}

/// Adds a group's scaled part to the sums. With [`sum_biases`] the place that fixes the order of floating-point
/// operations.
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
        let scale = S::splat(*x.scales.add(group * M + m));
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
