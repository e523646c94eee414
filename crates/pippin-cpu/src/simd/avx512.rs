//! AVX-512 (F, BW, DQ, VL): servers since 2017, AMD desktops since Zen 4.

use std::arch::x86_64::*;

use super::{Simd, exp};

/// Sixteen lanes.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

#[allow(clippy::undocumented_unsafe_blocks, reason = "each body relies on the trait's contract alone")]
impl Simd for Avx512 {
    const LANES: usize = 16;
    type F = __m512;
    type U = __m512i;

    #[inline(always)]
    unsafe fn zero() -> Self::F {
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::F {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::F) {
        unsafe { _mm512_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn sum(a: Self::F) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    unsafe fn max_lane(a: Self::F) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    unsafe fn exp(a: Self::F) -> Self::F {
        unsafe {
            let a = _mm512_min_ps(_mm512_max_ps(a, _mm512_set1_ps(exp::MIN)), _mm512_set1_ps(exp::MAX));
            let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm512_mul_ps(
                a,
                _mm512_set1_ps(exp::LOG2_E),
            ));
            let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(exp::LN2_HIGH), a);
            let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(exp::LN2_LOW), r);
            let mut p = _mm512_set1_ps(exp::P[0]);
            for c in &exp::P[1..] {
                p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*c));
            }
            let p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0));
            _mm512_scalef_ps(p, n)
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::F {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_words(from: *const u8) -> Self::U {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    unsafe fn field<const BITS: u32>(words: Self::U, index: u32) -> Self::F {
        unsafe {
            let shifted = _mm512_srlv_epi32(words, _mm512_set1_epi32((index * BITS) as i32));
            if BITS == 4 {
                // The permutation looks at the low four bits of each lane only: a table of sixteen numbers does the
                // masking and the conversion in one instruction.
                let table = _mm512_setr_ps(
                    0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
                );
                _mm512_permutexvar_ps(shifted, table)
            } else {
                _mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32((1 << BITS) - 1)))
            }
        }
    }
    #[inline(always)]
    unsafe fn repeat_lanes(run: usize) -> Self::U {
        unsafe {
            let lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            _mm512_srl_epi32(lane, _mm_cvtsi32_si128(run.trailing_zeros() as i32))
        }
    }
    #[inline(always)]
    unsafe fn repeat(from: *const f32, lanes: Self::U) -> Self::F {
        unsafe { _mm512_permutexvar_ps(lanes, _mm512_loadu_ps(from)) }
    }
}
