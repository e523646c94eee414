//! Plain Rust, for machines without a wider instruction set, and as a readable definition.

use half::{bf16, f16};

use super::{MAX_LANES, Simd};

/// Four lanes in an array; compilers turn most of it into the baseline's vector instructions.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const N: usize = 4;

#[inline(always)]
fn map2(a: [f32; N], b: [f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "each body relies on the trait's contract alone")]
impl Simd for Portable {
    const LANES: usize = N;
    type F = [f32; N];
    type U = [u32; N];

    #[inline(always)]
    unsafe fn zero() -> Self::F {
        [0.0; N]
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::F {
        [value; N]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        unsafe { from.cast::<[f32; N]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::F) {
        unsafe { to.cast::<[f32; N]>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        map2(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        map2(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        map2(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        // `f32::max` would take the other number for a NaN.
        map2(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // Not `mul_add`: without the instruction that is a library call per lane.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn sum(a: Self::F) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    unsafe fn max_lane(a: Self::F) -> f32 {
        a[0].max(a[1]).max(a[2].max(a[3]))
    }
    #[inline(always)]
    unsafe fn exp(a: Self::F) -> Self::F {
        a.map(f32::exp)
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        unsafe { from.cast::<[u16; N]>().read_unaligned() }.map(|bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::F {
        unsafe { from.cast::<[u16; N]>().read_unaligned() }.map(|bits| bf16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self::F {
        unsafe { from.cast::<[i8; N]>().read_unaligned() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn load_words(from: *const u8) -> Self::U {
        unsafe { from.cast::<[u32; N]>().read_unaligned() }.map(u32::from_le)
    }
    #[inline(always)]
    unsafe fn prefetch(_address: *const u8) {}
    #[inline(always)]
    unsafe fn field<const BITS: u32>(words: Self::U, index: u32) -> Self::F {
        words.map(|word| ((word >> (index * BITS)) & ((1 << BITS) - 1)) as f32)
    }
    #[inline(always)]
    unsafe fn store_words(to: *mut u32, words: Self::U) {
        unsafe { to.cast::<[u32; N]>().write_unaligned(words) }
    }
    #[inline(always)]
    unsafe fn zero_words() -> Self::U {
        [0; N]
    }
    #[inline(always)]
    unsafe fn add_words(a: Self::U, b: Self::U) -> Self::U {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn bytes<const BITS: u32>(words: Self::U, shift: u32) -> Self::U {
        words.map(|word| (word >> shift) & (0x0101_0101 * ((1 << BITS) - 1)))
    }
    #[inline(always)]
    unsafe fn splat_bytes(from: *const i8) -> Self::U {
        [u32::from_le_bytes(unsafe { from.cast::<[u8; 4]>().read() }); N]
    }
    #[inline(always)]
    unsafe fn add_pairs(a: Self::U, b: Self::U) -> Self::U {
        std::array::from_fn(|i| {
            let from = if i < N / 2 { &a } else { &b };
            let i = 2 * i % N;
            from[i].wrapping_add(from[i + 1])
        })
    }
    #[inline(always)]
    unsafe fn dot<const BITS: u32>(sums: Self::U, weights: Self::U, x: Self::U) -> Self::U {
        std::array::from_fn(|i| {
            let w = weights[i].to_le_bytes().map(i32::from);
            let x = x[i].to_le_bytes().map(|byte| i32::from(byte as i8));
            let dot = (w[0] * x[0] + w[1] * x[1]) + (w[2] * x[2] + w[3] * x[3]);
            sums[i].wrapping_add(dot as u32)
        })
    }
    #[inline(always)]
    unsafe fn to_float(words: Self::U) -> Self::F {
        words.map(|word| word as i32 as f32)
    }
    #[inline(always)]
    unsafe fn to_bits(a: Self::F) -> Self::U {
        a.map(f32::to_bits)
    }
    #[inline(always)]
    unsafe fn transpose(rows: &[Self::U; MAX_LANES], to: *mut u32) {
        for (row, words) in rows[..N].iter().enumerate() {
            for (column, word) in words.iter().enumerate() {
                unsafe { *to.add(column * N + row) = *word };
            }
        }
    }
    #[inline(always)]
    unsafe fn repeat_lanes(run: usize) -> Self::U {
        std::array::from_fn(|i| (i / run) as u32)
    }
    #[inline(always)]
    unsafe fn repeat(from: *const f32, lanes: Self::U) -> Self::F {
        let values = unsafe { Self::load(from) };
        lanes.map(|lane| values[lane as usize % N])
    }
}
