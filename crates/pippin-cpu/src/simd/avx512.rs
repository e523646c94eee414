//! AVX-512 (F, BW, DQ, VL): servers since 2017, AMD desktops since Zen 4.

use std::arch::x86_64::*;

use super::{MAX_LANES, Simd, exp};

/// Sixteen lanes. `VNNI`: with the AVX512-VNNI extension.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const VNNI: bool>;

#[allow(clippy::undocumented_unsafe_blocks, reason = "each body relies on the trait's contract alone")]
impl<const VNNI: bool> Simd for Avx512<VNNI> {
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
            // Of a NaN and a number, both instructions take the second operand.
            let a = _mm512_min_ps(_mm512_set1_ps(exp::MAX), _mm512_max_ps(_mm512_set1_ps(exp::MIN), a));
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
    unsafe fn load_i8(from: *const i8) -> Self::F {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
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
    unsafe fn store_words(to: *mut u32, words: Self::U) {
        unsafe { _mm512_storeu_si512(to.cast(), words) }
    }
    #[inline(always)]
    unsafe fn zero_words() -> Self::U {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn add_words(a: Self::U, b: Self::U) -> Self::U {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn bytes<const BITS: u32>(words: Self::U, shift: u32) -> Self::U {
        unsafe {
            if BITS == 8 {
                return words;
            }
            let shifted = _mm512_srlv_epi32(words, _mm512_set1_epi32(shift as i32));
            _mm512_and_si512(shifted, _mm512_set1_epi8(((1u32 << BITS) - 1) as i8))
        }
    }
    #[inline(always)]
    unsafe fn splat_bytes(from: *const i8) -> Self::U {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn add_pairs(a: Self::U, b: Self::U) -> Self::U {
        unsafe {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            _mm512_add_epi32(_mm512_permutex2var_epi32(a, even, b), _mm512_permutex2var_epi32(a, odd, b))
        }
    }
    #[inline(always)]
    unsafe fn dot<const BITS: u32>(sums: Self::U, weights: Self::U, x: Self::U) -> Self::U {
        unsafe {
            if VNNI {
                _mm512_dpbusd_epi32(sums, weights, x)
            } else if BITS < 8 {
                // Pairs of products stay below 2^15: 2 * 127 * 127.
                let pairs = _mm512_maddubs_epi16(weights, x);
                _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
            } else {
                let even = _mm512_and_si512(weights, _mm512_set1_epi16(0xff));
                let odd = _mm512_srli_epi16::<8>(weights);
                let x_even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(x));
                let x_odd = _mm512_srai_epi16::<8>(x);
                let dot = _mm512_add_epi32(_mm512_madd_epi16(even, x_even), _mm512_madd_epi16(odd, x_odd));
                _mm512_add_epi32(sums, dot)
            }
        }
    }
    #[inline(always)]
    unsafe fn to_float(words: Self::U) -> Self::F {
        unsafe { _mm512_cvtepi32_ps(words) }
    }
    #[inline(always)]
    unsafe fn to_bits(a: Self::F) -> Self::U {
        unsafe { _mm512_castps_si512(a) }
    }
    #[inline(always)]
    unsafe fn transpose(rows: &[Self::U; MAX_LANES], to: *mut u32) {
        unsafe {
            // Loops, not closures: a closure that is not inlined lacks the instruction set, and calls intrinsics.
            let zero = _mm512_setzero_si512();
            let (mut pair, mut four) = ([zero; 16], [zero; 16]);
            // Pairs of rows, then fours within each quarter, then the quarters.
            for (i, pair) in pair.iter_mut().enumerate() {
                let (a, b) = (rows[i / 2 * 2], rows[i / 2 * 2 + 1]);
                *pair = if i % 2 == 0 { _mm512_unpacklo_epi32(a, b) } else { _mm512_unpackhi_epi32(a, b) };
            }
            // `four[4 * g + c]`: column `c` of each quarter, rows `4g..4g + 4`.
            for (i, four) in four.iter_mut().enumerate() {
                let (a, b) = (pair[i / 4 * 4 + i % 4 / 2], pair[i / 4 * 4 + 2 + i % 4 / 2]);
                *four = if i % 2 == 0 { _mm512_unpacklo_epi64(a, b) } else { _mm512_unpackhi_epi64(a, b) };
            }
            for column in 0..4 {
                let (a, b) = (four[column], four[4 + column]);
                let (c, d) = (four[8 + column], four[12 + column]);
                // Quarters 0 and 2, and 1 and 3, of rows 0 to 7 and of rows 8 to 15.
                let (ab_even, ab_odd) =
                    (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
                let (cd_even, cd_odd) =
                    (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
                Self::store_words(to.add(16 * column), _mm512_shuffle_i32x4::<0x88>(ab_even, cd_even));
                Self::store_words(to.add(16 * (column + 4)), _mm512_shuffle_i32x4::<0x88>(ab_odd, cd_odd));
                Self::store_words(to.add(16 * (column + 8)), _mm512_shuffle_i32x4::<0xdd>(ab_even, cd_even));
                Self::store_words(to.add(16 * (column + 12)), _mm512_shuffle_i32x4::<0xdd>(ab_odd, cd_odd));
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
