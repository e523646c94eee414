//! Vectors of `f32`, one implementation per instruction set.
//!
//! Kernels are written once, generic over [`Simd`], as `#[inline(always)]` functions; [`crate::kernels`] instantiates
//! each inside a function that enables the instruction set's target features.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;

/// The vector operations kernels are made of.
///
/// # Safety
///
/// Every function requires the instruction set of the implementing type, and pointers that are valid for
/// [`LANES`](Simd::LANES) elements; no alignment is required.
pub(crate) trait Simd: Copy + 'static {
    /// Elements of a vector; a power of two, at most [`MAX_LANES`].
    const LANES: usize;
    /// A vector of `f32`.
    type F: Copy;
    /// A vector of `u32`.
    type U: Copy;

    unsafe fn zero() -> Self::F;
    unsafe fn splat(value: f32) -> Self::F;
    unsafe fn load(from: *const f32) -> Self::F;
    unsafe fn store(to: *mut f32, value: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// The larger one; NaN where `b` is.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the instruction set can.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The sum of all lanes, in an order that depends on the instruction set only.
    unsafe fn sum(a: Self::F) -> f32;
    /// The largest lane. Of a vector with NaN it may be any.
    unsafe fn max_lane(a: Self::F) -> f32;
    /// The exponential, of NaN a NaN; see [`exp`] for its range.
    unsafe fn exp(a: Self::F) -> Self::F;

    /// Widens `LANES` IEEE half-precision numbers.
    unsafe fn load_f16(from: *const u16) -> Self::F;
    /// Widens `LANES` bfloat16 numbers.
    unsafe fn load_bf16(from: *const u16) -> Self::F;
    /// Widens `LANES` signed bytes.
    unsafe fn load_i8(from: *const i8) -> Self::F;

    /// Loads `LANES` little-endian words.
    unsafe fn load_words(from: *const u8) -> Self::U;
    /// Asks for a cache line that will be needed soon. The address need not be valid.
    unsafe fn prefetch(address: *const u8);
    /// The `index`-th field of `BITS` bits of each word, as a number.
    unsafe fn field<const BITS: u32>(words: Self::U, index: u32) -> Self::F;
    /// Stores `LANES` words.
    unsafe fn store_words(to: *mut u32, words: Self::U);
    unsafe fn zero_words() -> Self::U;
    unsafe fn add_words(a: Self::U, b: Self::U) -> Self::U;
    /// Four unsigned bytes per lane: bits `shift..` of each byte of each word, `BITS` of them. `shift` is a multiple of
    /// `BITS`.
    unsafe fn bytes<const BITS: u32>(words: Self::U, shift: u32) -> Self::U;
    /// The four bytes at `from` in every lane.
    unsafe fn splat_bytes(from: *const i8) -> Self::U;
    /// Adds to each lane of `sums` the product of its four weights, unsigned and of at most `BITS` bits, with its four
    /// signed bytes of `x`. Exact: no intermediate saturates for `x` within `±127`.
    unsafe fn dot<const BITS: u32>(sums: Self::U, weights: Self::U, x: Self::U) -> Self::U;
    /// The sums of neighbouring lanes: those of `a`, then those of `b`.
    unsafe fn add_pairs(a: Self::U, b: Self::U) -> Self::U;
    /// Signed integers to floating point.
    unsafe fn to_float(words: Self::U) -> Self::F;
    /// The bits of floating point numbers.
    unsafe fn to_bits(a: Self::F) -> Self::U;
    /// Transposes a square of words, the first `LANES` of `rows`: column `c` goes to `to[c * LANES..]`.
    unsafe fn transpose(rows: &[Self::U; MAX_LANES], to: *mut u32);
    /// What [`repeat`](Self::repeat) needs for runs of `run` lanes, a power of two below `LANES`.
    unsafe fn repeat_lanes(run: usize) -> Self::U;
    /// Lane `i` is `from[i / run]`. Reads `LANES` elements.
    unsafe fn repeat(from: *const f32, lanes: Self::U) -> Self::F;
}

/// The widest vector of any instruction set.
pub(crate) const MAX_LANES: usize = 16;

/// Coefficients of the exponential: `exp(r)` for `|r| <= ln(2) / 2` as a polynomial of degree 6 whose maximal relative
/// error is below one unit in the last place (Cephes' `expf`).
pub(crate) mod exp {
    pub(crate) const LOG2_E: f32 = std::f32::consts::LOG2_E;
    /// `ln(2)` in two parts, so that `x - n * ln(2)` loses nothing.
    pub(crate) const LN2_HIGH: f32 = 0.693_359_4;
    pub(crate) const LN2_LOW: f32 = -2.121_944_4e-4;
    pub(crate) const P: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    /// Arguments are clamped to this range, whose results are normal numbers; softmax needs no more.
    pub(crate) const MIN: f32 = -87.336_54;
    pub(crate) const MAX: f32 = 88.0;
}
