//! NEON: every 64-bit ARM processor.

use std::arch::aarch64::*;

use half::f16;

use super::{Simd, exp};

/// Four lanes.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

#[allow(clippy::undocumented_unsafe_blocks, reason = "each body relies on the trait's contract alone")]
impl Simd for Neon {
    const LANES: usize = 4;
    type F = float32x4_t;
    type U = uint32x4_t;

    #[inline(always)]
    unsafe fn zero() -> Self::F {
        unsafe { vdupq_n_f32(0.0) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::F {
        unsafe { vdupq_n_f32(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::F) {
        unsafe { vst1q_f32(to, value) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        unsafe { vdivq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        unsafe { vmaxq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn sum(a: Self::F) -> f32 {
        unsafe { vaddvq_f32(a) }
    }
    #[inline(always)]
    unsafe fn max_lane(a: Self::F) -> f32 {
        unsafe { vmaxvq_f32(a) }
    }
    #[inline(always)]
    unsafe fn exp(a: Self::F) -> Self::F {
        unsafe {
            let a = vminq_f32(vmaxq_f32(a, vdupq_n_f32(exp::MIN)), vdupq_n_f32(exp::MAX));
            let n = vrndnq_f32(vmulq_f32(a, vdupq_n_f32(exp::LOG2_E)));
            let r = vfmsq_f32(a, n, vdupq_n_f32(exp::LN2_HIGH));
            let r = vfmsq_f32(r, n, vdupq_n_f32(exp::LN2_LOW));
            let mut p = vdupq_n_f32(exp::P[0]);
            for c in &exp::P[1..] {
                p = vfmaq_f32(vdupq_n_f32(*c), p, r);
            }
            let p = vaddq_f32(vfmaq_f32(r, p, vmulq_f32(r, r)), vdupq_n_f32(1.0));
            let exponent = vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)));
            vmulq_f32(p, vreinterpretq_f32_s32(exponent))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::F {
        // The vector conversion's intrinsics need the unstable `f16` type.
        unsafe {
            let wide = from.cast::<[u16; 4]>().read_unaligned().map(|bits| f16::from_bits(bits).to_f32());
            vld1q_f32(wide.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self::F {
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from))) }
    }
    #[inline(always)]
    unsafe fn load_words(from: *const u8) -> Self::U {
        unsafe { vreinterpretq_u32_u8(vld1q_u8(from)) }
    }
    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        // The intrinsic is unstable. `nostack` and `readonly` hold: the instruction never faults and writes nothing.
        unsafe {
            std::arch::asm!("prfm pldl1strm, [{0}]", in(reg) address, options(nostack, readonly, preserves_flags));
        }
    }
    #[inline(always)]
    unsafe fn field<const BITS: u32>(words: Self::U, index: u32) -> Self::F {
        unsafe {
            let shifted = vshlq_u32(words, vdupq_n_s32(-((index * BITS) as i32)));
            vcvtq_f32_u32(vandq_u32(shifted, vdupq_n_u32((1 << BITS) - 1)))
        }
    }
    #[inline(always)]
    unsafe fn repeat_lanes(run: usize) -> Self::U {
        // Byte indices: lane `i` takes the four bytes of element `i / run`.
        unsafe {
            let indices: [u8; 16] = std::array::from_fn(|byte| (byte / 4 / run * 4 + byte % 4) as u8);
            vreinterpretq_u32_u8(vld1q_u8(indices.as_ptr()))
        }
    }
    #[inline(always)]
    unsafe fn repeat(from: *const f32, lanes: Self::U) -> Self::F {
        unsafe {
            let values = vreinterpretq_u8_f32(vld1q_f32(from));
            vreinterpretq_f32_u8(vqtbl1q_u8(values, vreinterpretq_u8_u32(lanes)))
        }
    }
}
