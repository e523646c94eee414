//! AVX2 with FMA and F16C: every x86-64 processor since about 2013.

use std::arch::x86_64::*;

use super::{MAX_LANES, Simd, exp};

/// Eight lanes. `VNNI`: with the AVX-VNNI extension.
#[derive(Clone, Copy)]
pub(crate) struct Avx2<const VNNI: bool>;

#[allow(clippy::undocumented_unsafe_blocks, reason = "each body relies on the trait's contract alone")]
impl<const VNNI: bool> Simd for Avx2<VNNI> {
    const LANES: usize = 8;
    type F = __m256;
    type U = __m256i;

    #[inline(always)]
    unsafe fn zero() -> Self::F {
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::F {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::F) {
        unsafe { _mm256_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn sum(a: Self::F) -> f32 {
        unsafe {
            let half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
        }
    }
    #[inline(always)]
    unsafe fn max_lane(a: Self::F) -> f32 {
        unsafe {
            let half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)))
        }
    }
    #[inline(always)]
    unsafe fn exp(a: Self::F) -> Self::F {
        unsafe {
            // Of a NaN and a number, both instructions take the second operand.
            let a = _mm256_min_ps(_mm256_set1_ps(exp::MAX), _mm256_max_ps(_mm256_set1_ps(exp::MIN), a));
            let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
                a,
                _mm256_set1_ps(exp::LOG2_E),
            ));
            let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(exp::LN2_HIGH), a);
            let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(exp::LN2_LOW), r);
            let mut p = _mm256_set1_ps(exp::P[0]);
            for c in &exp::P[1..] {
                p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(*c));
            }
            let p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0));
            let exponent =
                _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
            _mm256_mul_ps(p, _mm256_castsi256_ps(exponent))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::F {
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self::F {
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_words(from: *const u8) -> Self::U {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    unsafe fn field<const BITS: u32>(words: Self::U, index: u32) -> Self::F {
        unsafe {
            let shifted = _mm256_srlv_epi32(words, _mm256_set1_epi32((index * BITS) as i32));
            _mm256_cvtepi32_ps(_mm256_and_si256(shifted, _mm256_set1_epi32((1 << BITS) - 1)))
        }
    }
    #[inline(always)]
    unsafe fn store_words(to: *mut u32, words: Self::U) {
        unsafe { _mm256_storeu_si256(to.cast(), words) }
    }
    #[inline(always)]
    unsafe fn zero_words() -> Self::U {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn add_words(a: Self::U, b: Self::U) -> Self::U {
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn bytes<const BITS: u32>(words: Self::U, shift: u32) -> Self::U {
        unsafe {
            if BITS == 8 {
                return words;
            }
            let shifted = _mm256_srlv_epi32(words, _mm256_set1_epi32(shift as i32));
            _mm256_and_si256(shifted, _mm256_set1_epi8(((1u32 << BITS) - 1) as i8))
        }
    }
    #[inline(always)]
    unsafe fn splat_bytes(from: *const i8) -> Self::U {
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn add_pairs(a: Self::U, b: Self::U) -> Self::U {
        // The instruction adds within halves; the middle quarters change places.
        unsafe { _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(a, b)) }
    }
    #[inline(always)]
    unsafe fn dot<const BITS: u32>(sums: Self::U, weights: Self::U, x: Self::U) -> Self::U {
        unsafe {
            if VNNI {
                _mm256_dpbusd_avx_epi32(sums, weights, x)
            } else if BITS < 8 {
                // Pairs of products stay below 2^15: 2 * 127 * 127.
                let pairs = _mm256_maddubs_epi16(weights, x);
                _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            } else {
                let even = _mm256_and_si256(weights, _mm256_set1_epi16(0xff));
                let odd = _mm256_srli_epi16::<8>(weights);
                let x_even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x));
                let x_odd = _mm256_srai_epi16::<8>(x);
                let dot = _mm256_add_epi32(_mm256_madd_epi16(even, x_even), _mm256_madd_epi16(odd, x_odd));
                _mm256_add_epi32(sums, dot)
            }
        }
    }
    #[inline(always)]
    unsafe fn to_float(words: Self::U) -> Self::F {
        unsafe { _mm256_cvtepi32_ps(words) }
    }
    #[inline(always)]
    unsafe fn to_bits(a: Self::F) -> Self::U {
        unsafe { _mm256_castps_si256(a) }
    }
    #[inline(always)]
    unsafe fn transpose(rows: &[Self::U; MAX_LANES], to: *mut u32) {
        unsafe {
            // Loops, not closures: a closure that is not inlined lacks the instruction set, and calls intrinsics.
            let zero = _mm256_setzero_si256();
            let (mut pair, mut four) = ([zero; 8], [zero; 8]);
            // Pairs of rows, then fours within each half, then the halves.
            for (i, pair) in pair.iter_mut().enumerate() {
                let (a, b) = (rows[i / 2 * 2], rows[i / 2 * 2 + 1]);
                *pair = if i % 2 == 0 { _mm256_unpacklo_epi32(a, b) } else { _mm256_unpackhi_epi32(a, b) };
            }
            for (i, four) in four.iter_mut().enumerate() {
                let (a, b) = (pair[i / 4 * 4 + i % 4 / 2], pair[i / 4 * 4 + 2 + i % 4 / 2]);
                *four = if i % 2 == 0 { _mm256_unpacklo_epi64(a, b) } else { _mm256_unpackhi_epi64(a, b) };
            }
            for column in 0..4 {
                let (a, b) = (four[column], four[column + 4]);
                Self::store_words(to.add(8 * column), _mm256_permute2x128_si256::<0x20>(a, b));
                Self::store_words(to.add(8 * (column + 4)), _mm256_permute2x128_si256::<0x31>(a, b));
            }
        }
    }
    #[inline(always)]
    unsafe fn repeat_lanes(run: usize) -> Self::U {
        unsafe {
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_srl_epi32(lane, _mm_cvtsi32_si128(run.trailing_zeros() as i32))
        }
    }
    #[inline(always)]
    unsafe fn repeat(from: *const f32, lanes: Self::U) -> Self::F {
        unsafe { _mm256_permutevar8x32_ps(_mm256_loadu_ps(from), lanes) }
    }
}
