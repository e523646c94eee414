//! Norms, activations and sums over rows.

use crate::simd::Simd;

/// `out = x * weight / sqrt(mean(x²) + eps)`; all slices have the same length.
///
/// # Safety
/// The machine has `S`.
#[inline(always)]
pub(crate) unsafe fn rms_norm<S: Simd>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let whole = x.len() / S::LANES * S::LANES;
    // SAFETY: vectors stay below `whole`.
    let squares = unsafe {
        let mut sums = S::zero();
        let mut i = 0;
        while i < whole {
            let v = S::load(x.as_ptr().add(i));
            sums = S::fma(v, v, sums);
            i += S::LANES;
        }
        S::sum(sums) + x[whole..].iter().map(|v| v * v).sum::<f32>()
    };
    let factor = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * factor * weight;
    }
}

/// `out = gate * sigmoid(gate) * up`.
///
/// # Safety
/// The machine has `S`; the slices have the same length.
#[inline(always)]
pub(crate) unsafe fn silu_mul<S: Simd>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    let whole = gate.len() / S::LANES * S::LANES;
    // SAFETY: vectors stay below `whole`; the rest passes through buffers of a full vector.
    unsafe {
        let mut i = 0;
        while i < whole {
            let value = S::mul(silu::<S>(S::load(gate.as_ptr().add(i))), S::load(up.as_ptr().add(i)));
            S::store(out.as_mut_ptr().add(i), value);
            i += S::LANES;
        }
        let mut buffer = [0.0; crate::simd::MAX_LANES];
        buffer[..gate.len() - whole].copy_from_slice(&gate[whole..]);
        let value = silu::<S>(S::load(buffer.as_ptr()));
        S::store(buffer.as_mut_ptr(), value);
        for ((out, silu), up) in out[whole..].iter_mut().zip(buffer).zip(&up[whole..]) {
            *out = silu * up;
        }
    }
}

#[inline(always)]
unsafe fn silu<S: Simd>(x: S::F) -> S::F {
    // SAFETY: the machine has `S`.
    unsafe { S::div(x, S::add(S::splat(1.0), S::exp(S::mul(x, S::splat(-1.0))))) }
}

/// `out = a + b`.
///
/// # Safety
/// The machine has `S`.
#[inline(always)]
pub(crate) unsafe fn add<S: Simd>(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = a + b;
    }
}

/// Independent chains of multiply-adds, as many as keep two units of four cycles' latency busy, and `rounds` of each.
/// Returns the operations done, a multiplication and an addition counted as two.
///
/// # Safety
/// The machine has `S`.
#[inline(always)]
pub(crate) unsafe fn peak_floats<S: Simd>(rounds: usize) -> (usize, f32) {
    // SAFETY: by contract.
    unsafe {
        let numbers = [0.999f32; crate::simd::MAX_LANES];
        let term = S::splat(1e-3);
        let mut chains = [S::splat(1.0); PEAK_CHAINS];
        for _ in 0..rounds {
            let factor = S::load(std::hint::black_box(&numbers).as_ptr());
            for chain in &mut chains {
                *chain = S::fma(*chain, factor, term);
            }
        }
        let sum = chains.into_iter().map(|chain| S::sum(chain)).sum();
        (rounds * PEAK_CHAINS * S::LANES * 2, sum)
    }
}

/// As [`peak_floats`], for products of bytes.
///
/// # Safety
/// The machine has `S`.
#[inline(always)]
pub(crate) unsafe fn peak_bytes<S: Simd>(rounds: usize) -> (usize, f32) {
    let x = [1i8; 4 * PEAK_CHAINS];
    // SAFETY: by contract; `x` holds four bytes for each chain.
    unsafe {
        let weights = S::load_words([0x0102_0304u32; crate::simd::MAX_LANES].as_ptr().cast());
        let mut chains = [S::zero_words(); PEAK_CHAINS];
        for _ in 0..rounds {
            let x = std::hint::black_box(&x).as_ptr();
            for (i, chain) in chains.iter_mut().enumerate() {
                *chain = S::dot::<4>(*chain, weights, S::splat_bytes(x.add(4 * i)));
            }
        }
        let sum = chains.into_iter().map(|chain| S::sum(S::to_float(chain))).sum();
        (rounds * PEAK_CHAINS * S::LANES * 8, sum)
    }
}

const PEAK_CHAINS: usize = 10;
