//! NEON: every 64-bit ARM processor.

use std::arch::aarch64::*;

use half::f16;

use super::{MAX_LANES, Simd, exp};

/// Four lanes. `BYTES` is how products of bytes are computed: [`PLAIN`], [`DOTPROD`] or [`I8MM`].
#[derive(Clone, Copy)]
pub(crate) struct Neon<const BYTES: u8>;

/// With products of 16 bits.
pub(crate) const PLAIN: u8 = 0;
/// With the dot product extension of ARMv8.2, whose operands are both signed.
pub(crate) const DOTPROD: u8 = 1;
/// With the 8-bit matrix extension of ARMv8.6, which has a dot product of unsigned with signed bytes.
pub(crate) const I8MM: u8 = 2;

#[allow(clippy::undocumented_unsafe_blocks, reason = "each body relies on the trait's contract alone")]
impl<const BYTES: u8> Simd for Neon<BYTES> {
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
    unsafe fn load_i8(from: *const i8) -> Self::F {
        unsafe {
            let bytes = vreinterpret_s8_u32(vdup_n_u32(from.cast::<u32>().read_unaligned()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
        }
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
    unsafe fn store_words(to: *mut u32, words: Self::U) {
        unsafe { vst1q_u32(to, words) }
    }
    #[inline(always)]
    unsafe fn zero_words() -> Self::U {
        unsafe { vdupq_n_u32(0) }
    }
    #[inline(always)]
    unsafe fn add_words(a: Self::U, b: Self::U) -> Self::U {
        unsafe { vaddq_u32(a, b) }
    }
    #[inline(always)]
    unsafe fn bytes<const BITS: u32>(words: Self::U, shift: u32) -> Self::U {
        unsafe {
            if BITS == 8 {
                return words;
            }
            let shifted = vshlq_u32(words, vdupq_n_s32(-(shift as i32)));
            vandq_u32(shifted, vreinterpretq_u32_u8(vdupq_n_u8(((1u32 << BITS) - 1) as u8)))
        }
    }
    #[inline(always)]
    unsafe fn splat_bytes(from: *const i8) -> Self::U {
        unsafe { vdupq_n_u32(from.cast::<u32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn add_pairs(a: Self::U, b: Self::U) -> Self::U {
        unsafe { vpaddq_u32(a, b) }
    }
    #[inline(always)]
    unsafe fn dot<const BITS: u32>(sums: Self::U, weights: Self::U, x: Self::U) -> Self::U {
        unsafe {
            if BYTES == I8MM {
                // The intrinsic is unstable, the instruction is not.
                let mut sums = sums;
                std::arch::asm!(
                    "usdot {sums:v}.4s, {weights:v}.16b, {x:v}.16b",
                    sums = inout(vreg) sums, weights = in(vreg) weights, x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags),
                );
                sums
            } else if BYTES == DOTPROD {
                // The intrinsics are unstable, the instruction is not. It takes signed weights: with eight bits they are
                // shifted by 128, which is added back as twice 64.
                let mut sums = sums;
                let weights = if BITS == 8 {
                    let shift = vreinterpretq_u32_u8(vdupq_n_u8(64));
                    std::arch::asm!(
                        "sdot {sums:v}.4s, {shift:v}.16b, {x:v}.16b",
                        "sdot {sums:v}.4s, {shift:v}.16b, {x:v}.16b",
                        sums = inout(vreg) sums, shift = in(vreg) shift, x = in(vreg) x,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                    veorq_u32(weights, vdupq_n_u32(0x8080_8080))
                } else {
                    weights
                };
                std::arch::asm!(
                    "sdot {sums:v}.4s, {weights:v}.16b, {x:v}.16b",
                    sums = inout(vreg) sums, weights = in(vreg) weights, x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags),
                );
                sums
            } else {
                let weights = vreinterpretq_u8_u32(weights);
                let x = vreinterpretq_s8_u32(x);
                let (x_low, x_high) = (vmovl_s8(vget_low_s8(x)), vmovl_s8(vget_high_s8(x)));
                let low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(weights)));
                let high = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(weights)));
                // Each lane's products are four neighbours; two pairwise additions gather them.
                let a = vmull_s16(vget_low_s16(low), vget_low_s16(x_low));
                let b = vmull_s16(vget_high_s16(low), vget_high_s16(x_low));
                let c = vmull_s16(vget_low_s16(high), vget_low_s16(x_high));
                let d = vmull_s16(vget_high_s16(high), vget_high_s16(x_high));
                let dot = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
                vaddq_u32(sums, vreinterpretq_u32_s32(dot))
            }
        }
    }
    #[inline(always)]
    unsafe fn to_float(words: Self::U) -> Self::F {
        unsafe { vcvtq_f32_s32(vreinterpretq_s32_u32(words)) }
    }
    #[inline(always)]
    unsafe fn to_bits(a: Self::F) -> Self::U {
        unsafe { vreinterpretq_u32_f32(a) }
    }
    #[inline(always)]
    unsafe fn transpose(rows: &[Self::U; MAX_LANES], to: *mut u32) {
        unsafe {
            let wide = |v| vreinterpretq_u64_u32(v);
            let narrow = |v| vreinterpretq_u32_u64(v);
            let (a, b) = (vtrn1q_u32(rows[0], rows[1]), vtrn2q_u32(rows[0], rows[1]));
            let (c, d) = (vtrn1q_u32(rows[2], rows[3]), vtrn2q_u32(rows[2], rows[3]));
            Self::store_words(to, narrow(vtrn1q_u64(wide(a), wide(c))));
            Self::store_words(to.add(4), narrow(vtrn1q_u64(wide(b), wide(d))));
            Self::store_words(to.add(8), narrow(vtrn2q_u64(wide(a), wide(c))));
            Self::store_words(to.add(12), narrow(vtrn2q_u64(wide(b), wide(d))));
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
