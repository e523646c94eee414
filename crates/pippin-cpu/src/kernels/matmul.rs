//! Matrix products `y = x · wᵀ`.
//!
//! Weights are dequantized to `f32` vectors and multiplied with packed activations; every output element has one vector
//! accumulator, to which the vectors along the inner dimension are added in order, and one horizontal sum at the end.
//! That order is the same whether a weight row is multiplied as it is read ([`quant_rows`], few activation rows) or
//! unpacked into a panel first ([`tile`], many), so an output depends neither on the number of activation rows nor on
//! the path.
//!
//! # Packing
//!
//! A vector of words holds `LANES` words of `32 / BITS` fields each. Taking field `j` of all of them gives the weights
//! of elements `j, j + 32/BITS, …`: with the activations permuted the same way (*interleaved*) no weight has to move
//! between lanes. The permutation is [`Order::pack`].

#![allow(clippy::needless_range_loop, reason = "index arithmetic is what these loops are about")]

use super::unpack::{e4m3_to_f32, e8m0_to_f32};
use crate::simd::Simd;

/// The order in which a packed activation row holds its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As they are.
    Natural,
    /// Field `j` of each of a block's words, then field `j + 1`: the order of a quantized row with this many fields per
    /// 32-bit word.
    Interleaved { fields: usize },
}

impl Order {
    /// Length of a packed row of `columns` elements, a whole number of vectors (and of blocks).
    pub(crate) fn packed_len(self, columns: usize, lanes: usize) -> usize {
        match self {
            Self::Natural => columns.next_multiple_of(lanes),
            Self::Interleaved { fields } => columns.next_multiple_of(lanes * fields),
        }
    }

    /// Packs a row; the padding becomes zero, so that whatever a kernel reads there adds nothing.
    pub(crate) fn pack(self, row: &[f32], lanes: usize, packed: &mut [f32]) {
        match self {
            Self::Natural => {
                packed[..row.len()].copy_from_slice(row);
                packed[row.len()..].fill(0.0);
            }
            Self::Interleaved { fields } => {
                let block = lanes * fields;
                let mut blocks = row.chunks_exact(block);
                for (from, to) in (&mut blocks).zip(packed.chunks_exact_mut(block)) {
                    for (word, elements) in from.chunks_exact(fields).enumerate() {
                        for (field, element) in elements.iter().enumerate() {
                            to[field * lanes + word] = *element;
                        }
                    }
                }
                let rest = blocks.remainder();
                if !rest.is_empty() {
                    let start = row.len() - rest.len();
                    let to = &mut packed[start..start + block];
                    to.fill(0.0);
                    for (i, element) in rest.iter().enumerate() {
                        to[(i % fields) * lanes + i / fields] = *element;
                    }
                }
            }
        }
    }
}

/// Weight rows multiplied with few activation rows at a time: more would spill the accumulators.
pub(crate) const DIRECT_COLUMNS: usize = 4;
/// Weight rows that are multiplied together, for independent accumulators.
pub(crate) const TILE_ROWS: usize = 4;
/// How far ahead of its use, at least, a weight is fetched: the latency of memory times the speed of the kernel.
const PREFETCH_BYTES: usize = 4096;

/// Consecutive rows of a quantized matrix with a power-of-two bit width, and where their products go.
pub(crate) struct QuantRows<'a> {
    /// The first row's words.
    pub(crate) words: *const u8,
    /// Words per row.
    pub(crate) row_words: usize,
    pub(crate) rows: usize,
    /// The rows' scales as `f32`, `groups` per row, and a vector's width beyond.
    pub(crate) scales: &'a [f32],
    /// The rows' biases, likewise.
    pub(crate) biases: &'a [f32],
    pub(crate) groups: usize,
    /// Words per group.
    pub(crate) group_words: usize,
    pub(crate) x: Packed,
    pub(crate) y: Output,
}

/// Packed activations.
#[derive(Clone, Copy)]
pub(crate) struct Packed {
    pub(crate) values: *const f32,
    /// Elements per row, the length of a packed row.
    pub(crate) stride: usize,
    pub(crate) rows: usize,
}

/// Where products go: activation row `m`, weight row `r` (counted from the first of the call) is `values[m * stride + r]`.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) values: *mut f32,
    pub(crate) stride: usize,
}

/// Loads the words of a row's last vector, which is not full; the missing words are zero.
///
/// # Safety
/// `words` is valid for `count` words, `count < LANES`.
#[inline(always)]
pub(super) unsafe fn load_last_words<S: Simd>(words: *const u8, count: usize) -> S::U {
    let mut buffer = [0u8; 4 * crate::simd::MAX_LANES];
    // SAFETY: `count` words are valid by contract and fit in the buffer.
    unsafe {
        std::ptr::copy_nonoverlapping(words, buffer.as_mut_ptr(), 4 * count);
        S::load_words(buffer.as_ptr())
    }
}

/// How the scales of a row spread over the lanes of a vector of words.
#[derive(Clone, Copy)]
struct Groups<S: Simd, const SEVERAL: bool> {
    /// Lane to group within a vector, where a vector spans several.
    lanes: S::U,
    /// The `block`-th vector's first group is `block * multiply >> shift`.
    multiply: usize,
    shift: u32,
}

impl<S: Simd, const SEVERAL: bool> Groups<S, SEVERAL> {
    /// # Safety
    /// `group_words` is a power of two; it is below `LANES` exactly if `SEVERAL`.
    #[inline(always)]
    unsafe fn new(group_words: usize) -> Self {
        // SAFETY: by contract.
        let lanes = unsafe { S::repeat_lanes(if SEVERAL { group_words } else { 1 }) };
        if SEVERAL {
            Self { lanes, multiply: S::LANES / group_words, shift: 0 }
        } else {
            Self { lanes, multiply: 1, shift: (group_words / S::LANES).trailing_zeros() }
        }
    }

    /// Index of the first group of the `block`-th vector.
    #[inline(always)]
    fn first(self, block: usize) -> usize {
        (block * self.multiply) >> self.shift
    }

    /// The value of each lane.
    ///
    /// # Safety
    /// `values` is valid for `LANES` elements.
    #[inline(always)]
    unsafe fn spread(self, values: *const f32) -> S::F {
        // SAFETY: by contract.
        unsafe { if SEVERAL { S::repeat(values, self.lanes) } else { S::splat(*values) } }
    }
}

/// Multiplies rows as they are read, with up to [`DIRECT_COLUMNS`] activation rows.
///
/// # Safety
/// Pointers are valid for the sizes in `args`; scales and biases are padded by `LANES` elements.
#[inline(always)]
pub(crate) unsafe fn quant_rows<S: Simd, const BITS: u32>(args: &QuantRows<'_>) {
    // SAFETY: as this function's.
    unsafe {
        if args.group_words < S::LANES {
            quant_rows_grouped::<S, BITS, true>(args);
        } else {
            quant_rows_grouped::<S, BITS, false>(args);
        }
    }
}

#[inline(always)]
unsafe fn quant_rows_grouped<S: Simd, const BITS: u32, const SEVERAL: bool>(args: &QuantRows<'_>) {
    // SAFETY: as `quant_rows`'s.
    unsafe {
        match args.x.rows {
            1 => quant_rows_by::<S, BITS, SEVERAL, 1>(args),
            2 => quant_rows_by::<S, BITS, SEVERAL, 2>(args),
            3 => quant_rows_by::<S, BITS, SEVERAL, 3>(args),
            _ => quant_rows_by::<S, BITS, SEVERAL, 4>(args),
        }
    }
}

#[inline(always)]
unsafe fn quant_rows_by<S: Simd, const BITS: u32, const SEVERAL: bool, const M: usize>(args: &QuantRows<'_>) {
    // SAFETY: rows stay below `args.rows`.
    unsafe {
        let mut row = 0;
        while row + TILE_ROWS <= args.rows {
            quant_block::<S, BITS, SEVERAL, M, TILE_ROWS>(args, row);
            row += TILE_ROWS;
        }
        while row < args.rows {
            quant_block::<S, BITS, SEVERAL, M, 1>(args, row);
            row += 1;
        }
    }
}

/// `R` weight rows times `M` activation rows.
#[inline(always)]
unsafe fn quant_block<S: Simd, const BITS: u32, const SEVERAL: bool, const M: usize, const R: usize>(
    args: &QuantRows<'_>,
    row: usize,
) {
    // SAFETY: blocks cover the row's words, the last one possibly in part; packed activations are padded to whole
    // blocks. (Loops, not closures: a closure that is not inlined lacks the instruction set, and calls intrinsics.)
    unsafe {
        let groups = Groups::<S, SEVERAL>::new(args.group_words);
        let words = args.words.add(4 * row * args.row_words);
        let mut sums = [[S::zero(); M]; R];
        let whole = args.row_words / S::LANES;
        // Rows are short streams, which hardware prefetchers do not follow well: ask for the rows that come next.
        let tile_bytes = 4 * TILE_ROWS * args.row_words;
        let ahead = tile_bytes * PREFETCH_BYTES.div_ceil(tile_bytes);
        for block in 0..whole {
            let words = words.add(4 * block * S::LANES);
            for r in 0..R {
                S::prefetch(words.wrapping_add(4 * r * args.row_words + ahead));
            }
            let mut vectors = [S::zero_words(); R];
            for (r, vector) in vectors.iter_mut().enumerate() {
                *vector = S::load_words(words.add(4 * r * args.row_words));
            }
            multiply_words::<S, BITS, SEVERAL, M, R>(args, groups, row, block, &vectors, &mut sums);
        }
        let rest = args.row_words - whole * S::LANES;
        if rest > 0 {
            let words = words.add(4 * whole * S::LANES);
            let mut vectors = [S::zero_words(); R];
            for (r, vector) in vectors.iter_mut().enumerate() {
                *vector = load_last_words::<S>(words.add(4 * r * args.row_words), rest);
            }
            multiply_words::<S, BITS, SEVERAL, M, R>(args, groups, row, whole, &vectors, &mut sums);
        }
        for r in 0..R {
            for m in 0..M {
                *args.y.values.add(m * args.y.stride + row + r) = S::sum(sums[r][m]);
            }
        }
    }
}

/// One vector of words of each of `R` rows.
#[inline(always)]
unsafe fn multiply_words<S: Simd, const BITS: u32, const SEVERAL: bool, const M: usize, const R: usize>(
    args: &QuantRows<'_>,
    groups: Groups<S, SEVERAL>,
    row: usize,
    block: usize,
    words: &[S::U; R],
    sums: &mut [[S::F; M]; R],
) {
    let fields = 32 / BITS;
    // SAFETY: as in `quant_block`.
    unsafe {
        let first = row * args.groups + groups.first(block);
        let scales = args.scales.as_ptr().add(first);
        let biases = args.biases.as_ptr().add(first);
        let x = args.x.values.add(block * S::LANES * fields as usize);
        let mut spread = [(S::zero(), S::zero()); R];
        for (r, spread) in spread.iter_mut().enumerate() {
            let offset = r * args.groups;
            *spread = (groups.spread(scales.add(offset)), groups.spread(biases.add(offset)));
        }
        for field in 0..fields {
            let mut xs = [S::zero(); M];
            for (m, x_vector) in xs.iter_mut().enumerate() {
                *x_vector = S::load(x.add(m * args.x.stride + field as usize * S::LANES));
            }
            for r in 0..R {
                let weight = S::fma(S::field::<BITS>(words[r], field), spread[r].0, spread[r].1);
                for m in 0..M {
                    sums[r][m] = S::fma(weight, xs[m], sums[r][m]);
                }
            }
        }
    }
}

/// Unpacks rows into a panel of packed `f32` rows, `args.x.stride` apart. `args.x.values` and `args.y` are not used.
///
/// # Safety
/// As [`quant_rows`]; the panel is valid for `args.rows` packed rows.
#[inline(always)]
pub(crate) unsafe fn quant_unpack<S: Simd, const BITS: u32>(args: &QuantRows<'_>, panel: *mut f32) {
    // SAFETY: as this function's.
    unsafe {
        if args.group_words < S::LANES {
            quant_unpack_grouped::<S, BITS, true>(args, panel);
        } else {
            quant_unpack_grouped::<S, BITS, false>(args, panel);
        }
    }
}

#[inline(always)]
unsafe fn quant_unpack_grouped<S: Simd, const BITS: u32, const SEVERAL: bool>(
    args: &QuantRows<'_>,
    panel: *mut f32,
) {
    let fields = 32 / BITS;
    // SAFETY: as in `quant_block`.
    unsafe {
        let groups = Groups::<S, SEVERAL>::new(args.group_words);
        for row in 0..args.rows {
            let words = args.words.add(4 * row * args.row_words);
            for block in 0..args.row_words.div_ceil(S::LANES) {
                let rest = args.row_words - block * S::LANES;
                let words = words.add(4 * block * S::LANES);
                let words =
                    if rest >= S::LANES { S::load_words(words) } else { load_last_words::<S>(words, rest) };
                let first = row * args.groups + groups.first(block);
                let scale = groups.spread(args.scales.as_ptr().add(first));
                let bias = groups.spread(args.biases.as_ptr().add(first));
                let to = panel.add(row * args.x.stride + block * S::LANES * fields as usize);
                for field in 0..fields {
                    let weight = S::fma(S::field::<BITS>(words, field), scale, bias);
                    S::store(to.add(field as usize * S::LANES), weight);
                }
            }
        }
    }
}

/// Element type of a dense matrix, a KV cache or scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F16,
    Bf16,
    /// Weights of the mode `mxfp8` and scales of `nvfp4`.
    E4m3,
    /// Scales of the modes `mxfp4` and `mxfp8`.
    E8m0,
}

impl Element {
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::E4m3 | Self::E8m0 => 1,
        }
    }
}

/// Consecutive rows of a dense matrix, and where their products go.
pub(crate) struct DenseRows<'a> {
    /// The first row's elements, in no particular alignment.
    pub(crate) values: &'a [u8],
    pub(crate) element: Element,
    pub(crate) columns: usize,
    pub(crate) rows: usize,
    pub(crate) x: Packed,
    pub(crate) y: Output,
}

/// Widens one vector of elements; `count` of them are there, the others become zero.
///
/// # Safety
/// `from` is valid for `count` elements.
#[inline(always)]
pub(crate) unsafe fn load_elements<S: Simd>(from: *const u8, element: Element, count: usize) -> S::F {
    // SAFETY: a full vector is valid by contract; a partial one is copied to a buffer of a full one.
    unsafe {
        let mut buffer = [0u8; 4 * crate::simd::MAX_LANES];
        let from = if count >= S::LANES {
            from
        } else {
            std::ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), count * element.size());
            buffer.as_ptr()
        };
        match element {
            Element::F32 => S::load(from.cast()),
            Element::F16 => S::load_f16(from.cast()),
            Element::Bf16 => S::load_bf16(from.cast()),
            Element::E4m3 => load_codes::<S>(from, e4m3_to_f32),
            Element::E8m0 => load_codes::<S>(from, e8m0_to_f32),
        }
    }
}

/// Widens one vector of 8-bit codes.
///
/// # Safety
/// `from` is valid for `LANES` bytes.
#[inline(always)]
unsafe fn load_codes<S: Simd>(from: *const u8, value: impl Fn(u8) -> f32) -> S::F {
    let mut values = [0.0; crate::simd::MAX_LANES];
    // SAFETY: by contract.
    unsafe {
        for (i, to) in values[..S::LANES].iter_mut().enumerate() {
            *to = value(*from.add(i));
        }
        S::load(values.as_ptr())
    }
}

/// Widens `to.len()` elements.
///
/// # Safety
/// `from` is valid for as many elements.
#[inline(always)]
pub(crate) unsafe fn widen<S: Simd>(from: *const u8, element: Element, to: &mut [f32]) {
    let mut i = 0;
    while i < to.len() {
        let count = to.len() - i;
        // SAFETY: `count` elements remain on both sides; a partial vector is stored through a buffer.
        unsafe {
            let vector = load_elements::<S>(from.add(i * element.size()), element, count);
            if count >= S::LANES {
                S::store(to.as_mut_ptr().add(i), vector);
            } else {
                let mut buffer = [0.0; crate::simd::MAX_LANES];
                S::store(buffer.as_mut_ptr(), vector);
                to[i..].copy_from_slice(&buffer[..count]);
            }
        }
        i += S::LANES;
    }
}

/// Multiplies dense rows as they are read, with up to [`DIRECT_COLUMNS`] activation rows.
///
/// # Safety
/// Pointers are valid for the sizes in `args`.
#[inline(always)]
pub(crate) unsafe fn dense_rows<S: Simd>(args: &DenseRows<'_>) {
    // SAFETY: as this function's.
    unsafe {
        match args.x.rows {
            1 => dense_rows_by::<S, 1>(args),
            2 => dense_rows_by::<S, 2>(args),
            3 => dense_rows_by::<S, 3>(args),
            _ => dense_rows_by::<S, 4>(args),
        }
    }
}

#[inline(always)]
unsafe fn dense_rows_by<S: Simd, const M: usize>(args: &DenseRows<'_>) {
    // SAFETY: rows stay below `args.rows`.
    unsafe {
        let mut row = 0;
        while row + TILE_ROWS <= args.rows {
            dense_block::<S, M, TILE_ROWS>(args, row);
            row += TILE_ROWS;
        }
        while row < args.rows {
            dense_block::<S, M, 1>(args, row);
            row += 1;
        }
    }
}

#[inline(always)]
unsafe fn dense_block<S: Simd, const M: usize, const R: usize>(args: &DenseRows<'_>, row: usize) {
    let size = args.element.size();
    // SAFETY: as in `dense_unpack`.
    unsafe {
        let mut sums = [[S::zero(); M]; R];
        let mut column = 0;
        while column < args.columns {
            let mut xs = [S::zero(); M];
            for (m, x_vector) in xs.iter_mut().enumerate() {
                *x_vector = S::load(args.x.values.add(m * args.x.stride + column));
            }
            for r in 0..R {
                let from = args.values.as_ptr().add(((row + r) * args.columns + column) * size);
                let weight = load_elements::<S>(from, args.element, args.columns - column);
                for m in 0..M {
                    sums[r][m] = S::fma(weight, xs[m], sums[r][m]);
                }
            }
            column += S::LANES;
        }
        for r in 0..R {
            for m in 0..M {
                *args.y.values.add(m * args.y.stride + row + r) = S::sum(sums[r][m]);
            }
        }
    }
}

/// Widens dense rows into a panel, `args.x.stride` elements apart and padded with zeros to whole vectors.
///
/// # Safety
/// The panel is valid for `args.rows` packed rows.
#[inline(always)]
pub(crate) unsafe fn dense_unpack<S: Simd>(args: &DenseRows<'_>, panel: *mut f32) {
    for row in 0..args.rows {
        let mut column = 0;
        while column < args.columns {
            // SAFETY: `column` is inside the row, and the panel's rows are padded to whole vectors.
            unsafe {
                let from = args.values.as_ptr().add((row * args.columns + column) * args.element.size());
                let weight = load_elements::<S>(from, args.element, args.columns - column);
                S::store(panel.add(row * args.x.stride + column), weight);
            }
            column += S::LANES;
        }
    }
}

/// A panel of packed `f32` weight rows times packed activations.
pub(crate) struct Tile {
    pub(crate) panel: *const f32,
    pub(crate) panel_rows: usize,
    /// Elements of a panel row, a whole number of vectors.
    pub(crate) panel_stride: usize,
    pub(crate) x: Packed,
    pub(crate) y: Output,
}

/// Multiplies a panel with all activation rows, `COLUMNS` of them by [`TILE_ROWS`] panel rows at a time.
///
/// # Safety
/// Pointers are valid for the sizes in `args`.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const COLUMNS: usize>(args: &Tile) {
    // SAFETY: rows stay inside the panel and the activations.
    unsafe {
        let mut m = 0;
        while m + COLUMNS <= args.x.rows {
            tile_columns::<S, COLUMNS>(args, m);
            m += COLUMNS;
        }
        while m + 2 <= args.x.rows {
            tile_columns::<S, 2>(args, m);
            m += 2;
        }
        if m < args.x.rows {
            tile_columns::<S, 1>(args, m);
        }
    }
}

#[inline(always)]
unsafe fn tile_columns<S: Simd, const M: usize>(args: &Tile, m: usize) {
    // SAFETY: as `tile`'s.
    unsafe {
        let mut row = 0;
        while row + TILE_ROWS <= args.panel_rows {
            tile_block::<S, M, TILE_ROWS>(args, m, row);
            row += TILE_ROWS;
        }
        while row < args.panel_rows {
            tile_block::<S, M, 1>(args, m, row);
            row += 1;
        }
    }
}

#[inline(always)]
unsafe fn tile_block<S: Simd, const M: usize, const R: usize>(args: &Tile, first: usize, row: usize) {
    // SAFETY: as `tile`'s.
    unsafe {
        let x = args.x.values.add(first * args.x.stride);
        let panel = args.panel.add(row * args.panel_stride);
        let mut sums = [[S::zero(); M]; R];
        let mut column = 0;
        while column < args.panel_stride {
            let mut weights = [S::zero(); R];
            for (r, weight) in weights.iter_mut().enumerate() {
                *weight = S::load(panel.add(r * args.panel_stride + column));
            }
            for m in 0..M {
                let x = S::load(x.add(m * args.x.stride + column));
                for r in 0..R {
                    sums[r][m] = S::fma(weights[r], x, sums[r][m]);
                }
            }
            column += S::LANES;
        }
        for m in 0..M {
            for r in 0..R {
                *args.y.values.add((first + m) * args.y.stride + row + r) = S::sum(sums[r][m]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaving_is_a_permutation_with_zero_padding() {
        for (columns, lanes, fields) in [(64, 4, 8), (96, 16, 8), (32, 16, 4), (160, 8, 16)] {
            let order = Order::Interleaved { fields };
            let row: Vec<f32> = (1..=columns).map(|i| i as f32).collect();
            let mut packed = vec![f32::NAN; order.packed_len(columns, lanes)];
            order.pack(&row, lanes, &mut packed);
            for (i, value) in row.iter().enumerate() {
                let block = i / (lanes * fields);
                let (word, field) = ((i / fields) % lanes, i % fields);
                assert_eq!(packed[block * lanes * fields + field * lanes + word], *value);
            }
            let mut sorted = packed.clone();
            sorted.sort_by(f32::total_cmp);
            assert!(sorted[..packed.len() - columns].iter().all(|v| *v == 0.0));
            assert_eq!(sorted[packed.len() - columns..], row);
        }
    }
}
