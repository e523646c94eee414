//! Norms, activations and sums over rows.

use pippin_tensor::{Activation, Gate, NormKind, Reduction};

use crate::simd::{MAX_LANES, Simd};

/// A norm of a row, see [`pippin_tensor::Norm`].
#[derive(Clone, Copy)]
pub(crate) struct RowNorm<'a> {
    pub(crate) kind: NormKind,
    pub(crate) width: usize,
    pub(crate) eps: f32,
    /// As wide as a run, or as the row.
    pub(crate) weight: Option<&'a [f32]>,
    pub(crate) bias: Option<&'a [f32]>,
}

/// Normalises a row.
///
/// # Safety
/// The machine has `S`; `x` and `out` have the same length, which the norm's widths divide.
#[inline(always)]
pub(crate) unsafe fn norm<S: Simd>(norm: &RowNorm<'_>, x: &[f32], out: &mut [f32]) {
    let runs = x.chunks_exact(norm.width).zip(out.chunks_exact_mut(norm.width));
    for (run, (x, out)) in runs.enumerate() {
        let of_run = |values: &'_ [f32]| -> *const f32 {
            if values.len() == norm.width { values.as_ptr() } else { values[run * norm.width..].as_ptr() }
        };
        // SAFETY: by contract; parameters are as wide as a run or hold one for each.
        unsafe {
            let weight = norm.weight.map(|values| std::slice::from_raw_parts(of_run(values), norm.width));
            let bias = norm.bias.map(|values| std::slice::from_raw_parts(of_run(values), norm.width));
            match norm.kind {
                NormKind::Rms => rms_norm::<S>(x, weight, norm.eps, out),
                NormKind::Layer => layer_norm::<S>(x, weight, norm.eps, out),
            }
            if let Some(bias) = bias {
                for (out, bias) in out.iter_mut().zip(bias) {
                    *out += bias;
                }
            }
        }
    }
}

/// The sum of squares of `x - shift`.
///
/// # Safety
/// The machine has `S`.
#[inline(always)]
unsafe fn squares<S: Simd>(x: &[f32], shift: f32) -> f32 {
    let whole = x.len() / S::LANES * S::LANES;
    // SAFETY: vectors stay below `whole`.
    unsafe {
        let mut sums = S::zero();
        let mut i = 0;
        while i < whole {
            let v = S::add(S::load(x.as_ptr().add(i)), S::splat(-shift));
            sums = S::fma(v, v, sums);
            i += S::LANES;
        }
        S::sum(sums) + x[whole..].iter().map(|v| (v - shift) * (v - shift)).sum::<f32>()
    }
}

/// The sum of a row.
///
/// # Safety
/// The machine has `S`.
#[inline(always)]
unsafe fn total<S: Simd>(x: &[f32]) -> f32 {
    let whole = x.len() / S::LANES * S::LANES;
    // SAFETY: vectors stay below `whole`.
    unsafe {
        let mut sums = S::zero();
        let mut i = 0;
        while i < whole {
            sums = S::add(sums, S::load(x.as_ptr().add(i)));
            i += S::LANES;
        }
        S::sum(sums) + x[whole..].iter().sum::<f32>()
    }
}

/// `out = x * weight / sqrt(mean(x²) + eps)`; all slices have the same length.
///
/// # Safety
/// The machine has `S`.
#[inline(always)]
unsafe fn rms_norm<S: Simd>(x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    // SAFETY: by contract.
    let squares = unsafe { squares::<S>(x, 0.0) };
    let factor = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    scale_row(x, 0.0, factor, weight, out);
}

/// `out = (x - mean) * weight / sqrt(variance + eps)`; all slices have the same length.
///
/// # Safety
/// The machine has `S`.
#[inline(always)]
unsafe fn layer_norm<S: Simd>(x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let len = x.len() as f32;
    // SAFETY: by contract.
    let (mean, variance) = unsafe {
        let mean = total::<S>(x) / len;
        (mean, squares::<S>(x, mean) / len)
    };
    scale_row(x, mean, 1.0 / (variance + eps).sqrt(), weight, out);
}

#[inline(always)]
fn scale_row(x: &[f32], shift: f32, factor: f32, weight: Option<&[f32]>, out: &mut [f32]) {
    match weight {
        Some(weight) => {
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = (x - shift) * factor * weight;
            }
        }
        None => {
            for (out, x) in out.iter_mut().zip(x) {
                *out = (x - shift) * factor;
            }
        }
    }
}

/// One number of a row.
///
/// # Safety
/// The machine has `S`.
#[inline(always)]
pub(crate) unsafe fn reduce<S: Simd>(x: &[f32], reduction: Reduction) -> f32 {
    let len = x.len() as f32;
    // SAFETY: by contract.
    unsafe {
        match reduction {
            Reduction::Sum => total::<S>(x),
            Reduction::Mean => total::<S>(x) / len,
            Reduction::RootMeanSquare => (squares::<S>(x, 0.0) / len).sqrt(),
            _ => (squares::<S>(x, total::<S>(x) / len) / len).sqrt(),
        }
    }
}

/// Two rows that become one.
#[derive(Clone, Copy)]
pub(crate) enum Binary {
    Gate(Gate),
    Mul,
}

/// `out = binary(a, b)`.
///
/// # Safety
/// The machine has `S`; the slices have the same length.
#[inline(always)]
pub(crate) unsafe fn binary<S: Simd>(kind: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
    // SAFETY: by contract.
    unsafe {
        match kind {
            // The gate of most models is worth a pass of its own.
            Binary::Gate(Gate::Of(Activation::Silu)) => {
                zip::<S, SiluGate>(a, b, out, &SiluGate);
            }
            Binary::Gate(Gate::ClampedSwiglu { alpha, limit }) => {
                zip::<S, Clamped>(a, b, out, &Clamped { alpha, limit });
            }
            Binary::Gate(Gate::ClampedSilu { limit }) => {
                zip::<S, ClampedSilu>(a, b, out, &ClampedSilu { limit });
            }
            Binary::Gate(Gate::SiluOfClamped { limit }) => {
                zip::<S, SiluOfClamped>(a, b, out, &SiluOfClamped { limit });
            }
            Binary::Gate(Gate::Situ { beta, limit }) => {
                zip::<S, Situ>(a, b, out, &Situ { beta, limit });
            }
            Binary::Gate(Gate::Of(activation)) => {
                activate::<S>(activation, a, out);
                out.iter_mut().zip(b).for_each(|(out, b)| *out *= b);
            }
            // The backend refuses gates that are not above.
            _ => out.iter_mut().zip(a).zip(b).for_each(|((out, a), b)| *out = a * b),
        }
    }
}

/// A function of two vectors.
trait OfTwo {
    /// # Safety
    /// The machine has `S`.
    unsafe fn apply<S: Simd>(&self, a: S::F, b: S::F) -> S::F;
}

struct SiluGate;

struct Clamped {
    alpha: f32,
    limit: f32,
}

struct ClampedSilu {
    limit: f32,
}

struct SiluOfClamped {
    limit: f32,
}

struct Situ {
    beta: f32,
    limit: Option<f32>,
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "the trait's contract is the operations' contract")]
impl OfTwo for SiluGate {
    #[inline(always)]
    unsafe fn apply<S: Simd>(&self, a: S::F, b: S::F) -> S::F {
        unsafe { S::mul(silu::<S>(a), b) }
    }
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "the trait's contract is the operations' contract")]
impl OfTwo for Clamped {
    #[inline(always)]
    unsafe fn apply<S: Simd>(&self, a: S::F, b: S::F) -> S::F {
        unsafe {
            // Below this the sigmoid is zero, but not what it rounds to times a large number.
            let least = S::splat(SILU_MIN / self.alpha);
            let gate = S::max(least, min::<S>(S::splat(self.limit), a));
            let up = S::max(S::splat(-self.limit), min::<S>(S::splat(self.limit), b));
            let swish = S::mul(gate, sigmoid::<S>(S::mul(gate, S::splat(self.alpha))));
            S::fma(swish, up, swish)
        }
    }
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "the trait's contract is the operations' contract")]
impl OfTwo for ClampedSilu {
    #[inline(always)]
    unsafe fn apply<S: Simd>(&self, a: S::F, b: S::F) -> S::F {
        unsafe {
            let gate = min::<S>(S::splat(self.limit), silu::<S>(a));
            let up = S::max(S::splat(-self.limit), min::<S>(S::splat(self.limit), b));
            S::mul(gate, up)
        }
    }
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "the trait's contract is the operations' contract")]
impl OfTwo for SiluOfClamped {
    #[inline(always)]
    unsafe fn apply<S: Simd>(&self, a: S::F, b: S::F) -> S::F {
        unsafe {
            let gate = silu::<S>(min::<S>(S::splat(self.limit), a));
            let up = S::max(S::splat(-self.limit), min::<S>(S::splat(self.limit), b));
            S::mul(gate, up)
        }
    }
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "the trait's contract is the operations' contract")]
impl OfTwo for Situ {
    #[inline(always)]
    unsafe fn apply<S: Simd>(&self, a: S::F, b: S::F) -> S::F {
        unsafe {
            let gate = S::mul(soft_cap::<S>(a, self.beta), sigmoid::<S>(a));
            let up = match self.limit {
                Some(limit) => soft_cap::<S>(b, limit),
                None => b,
            };
            S::mul(gate, up)
        }
    }
}

/// Applies a function to two rows, vector by vector.
///
/// # Safety
/// The machine has `S`; the slices have the same length.
#[inline(always)]
unsafe fn zip<S: Simd, F: OfTwo>(a: &[f32], b: &[f32], out: &mut [f32], f: &F) {
    let whole = a.len() / S::LANES * S::LANES;
    // SAFETY: vectors stay below `whole`; the rest passes through buffers of a full vector.
    unsafe {
        let mut i = 0;
        while i < whole {
            let value = f.apply::<S>(S::load(a.as_ptr().add(i)), S::load(b.as_ptr().add(i)));
            S::store(out.as_mut_ptr().add(i), value);
            i += S::LANES;
        }
        let rest = a.len() - whole;
        if rest > 0 {
            let mut buffers = [[0.0; MAX_LANES]; 2];
            buffers[0][..rest].copy_from_slice(&a[whole..]);
            buffers[1][..rest].copy_from_slice(&b[whole..]);
            let value = f.apply::<S>(S::load(buffers[0].as_ptr()), S::load(buffers[1].as_ptr()));
            S::store(buffers[0].as_mut_ptr(), value);
            out[whole..].copy_from_slice(&buffers[0][..rest]);
        }
    }
}

/// `out = activation(x)`.
///
/// # Safety
/// The machine has `S`; the slices have the same length.
#[inline(always)]
pub(crate) unsafe fn activate<S: Simd>(activation: Activation, x: &[f32], out: &mut [f32]) {
    let whole = x.len() / S::LANES * S::LANES;
    // SAFETY: vectors stay below `whole`; the rest passes through a buffer of a full vector.
    unsafe {
        let mut i = 0;
        while i < whole {
            S::store(out.as_mut_ptr().add(i), of_one::<S>(activation, S::load(x.as_ptr().add(i))));
            i += S::LANES;
        }
        let rest = x.len() - whole;
        if rest > 0 {
            let mut buffer = [0.0; MAX_LANES];
            buffer[..rest].copy_from_slice(&x[whole..]);
            S::store(buffer.as_mut_ptr(), of_one::<S>(activation, S::load(buffer.as_ptr())));
            out[whole..].copy_from_slice(&buffer[..rest]);
        }
    }
}

/// Whether [`activate`] has an activation.
pub(crate) fn has_activation(activation: Activation) -> bool {
    use Activation::{
        Clamp, Exp, ExpExcess, Gelu, GeluSigmoid, GeluTanh, Reciprocal, Relu, ReluSquared, Sigmoid, Silu,
        SoftCap, Softplus, Sqrt, Tanh,
    };
    matches!(
        activation,
        Silu | Gelu
            | GeluTanh
            | GeluSigmoid
            | Relu
            | ReluSquared
            | Sigmoid
            | Tanh
            | Softplus
            | Exp
            | ExpExcess
            | Sqrt
            | Reciprocal
            | SoftCap(_)
            | Clamp(_)
    )
}

#[inline(always)]
unsafe fn of_one<S: Simd>(activation: Activation, x: S::F) -> S::F {
    // SAFETY: the machine has `S`.
    unsafe {
        let half = S::splat(0.5);
        match activation {
            Activation::Silu => silu::<S>(x),
            Activation::Gelu => {
                let x = S::max(S::splat(GELU_MIN), x);
                let inner = erf::<S>(S::mul(x, S::splat(std::f32::consts::FRAC_1_SQRT_2)));
                let x = S::mul(x, half);
                S::fma(x, inner, x)
            }
            Activation::GeluTanh => {
                let x = S::max(S::splat(GELU_MIN), x);
                let cubic = S::fma(S::mul(x, x), S::splat(0.044_715), S::splat(1.0));
                let inner = tanh::<S>(S::mul(S::mul(x, cubic), S::splat(0.797_884_6)));
                let x = S::mul(x, half);
                S::fma(x, inner, x)
            }
            Activation::GeluSigmoid => {
                let x = S::max(S::splat(-50.0), x);
                S::mul(x, sigmoid::<S>(S::mul(x, S::splat(1.702))))
            }
            Activation::Relu => S::max(S::zero(), x),
            Activation::ReluSquared => {
                let x = S::max(S::zero(), x);
                S::mul(x, x)
            }
            Activation::Sigmoid => sigmoid::<S>(x),
            Activation::Tanh => tanh::<S>(x),
            Activation::Exp => S::exp(x),
            Activation::SoftCap(cap) => soft_cap::<S>(x, cap),
            Activation::Clamp(limit) => S::max(S::splat(-limit), min::<S>(S::splat(limit), x)),
            Activation::Softplus => one_by_one::<S>(x, |x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
            Activation::ExpExcess => one_by_one::<S>(x, exp_excess),
            Activation::Sqrt => one_by_one::<S>(x, |x| if x < 0.0 { 0.0 } else { x.sqrt() }),
            Activation::Reciprocal => one_by_one::<S>(x, f32::recip),
            // The backend refuses activations that are not above.
            _ => x,
        }
    }
}

/// `cap * tanh(x / cap)`.
///
/// # Safety
/// The machine has `S`.
#[inline(always)]
unsafe fn soft_cap<S: Simd>(x: S::F, cap: f32) -> S::F {
    // SAFETY: by contract.
    unsafe { S::mul(tanh::<S>(S::mul(x, S::splat(1.0 / cap))), S::splat(cap)) }
}

/// `exp(x) - 1 - x` below zero, and zero above. Near zero, where the difference would lose its digits, by its series.
fn exp_excess(x: f32) -> f32 {
    match x {
        x if x > 0.0 => 0.0,
        x if x > -0.5 => {
            let series = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];
            x * x * series.into_iter().fold(0.0, |sum, coefficient| sum * x + coefficient)
        }
        x => x.exp_m1() - x,
    }
}

/// Below this the Gaussian error linear unit is zero as far as sums of numbers about one go. Its factors are not: their
/// last bit times a large number is far from zero.
const GELU_MIN: f32 = -6.5;

/// A function of the standard library, lane by lane.
#[inline(always)]
unsafe fn one_by_one<S: Simd>(x: S::F, f: impl Fn(f32) -> f32) -> S::F {
    let mut lanes = [0.0; MAX_LANES];
    // SAFETY: the machine has `S`, and the buffer room for a vector.
    unsafe {
        S::store(lanes.as_mut_ptr(), x);
        for lane in &mut lanes[..S::LANES] {
            *lane = f(*lane);
        }
        S::load(lanes.as_ptr())
    }
}

/// The smaller one; NaN where `b` is.
#[inline(always)]
unsafe fn min<S: Simd>(a: S::F, b: S::F) -> S::F {
    // SAFETY: the machine has `S`.
    unsafe {
        let minus = S::splat(-1.0);
        S::mul(S::max(S::mul(a, minus), S::mul(b, minus)), minus)
    }
}

#[inline(always)]
unsafe fn sigmoid<S: Simd>(x: S::F) -> S::F {
    // SAFETY: the machine has `S`.
    unsafe { S::div(S::splat(1.0), S::add(S::splat(1.0), S::exp(S::mul(x, S::splat(-1.0))))) }
}

/// A polynomial in `x`, highest power first.
#[inline(always)]
unsafe fn polynomial<S: Simd, const N: usize>(x: S::F, coefficients: [f32; N]) -> S::F {
    // SAFETY: the machine has `S`.
    unsafe {
        let mut value = S::splat(coefficients[0]);
        for coefficient in &coefficients[1..] {
            value = S::fma(value, x, S::splat(*coefficient));
        }
        value
    }
}

/// The hyperbolic tangent as a quotient of polynomials, within a few units in the last place (the coefficients are those
/// of Eigen's `generic_fast_tanh_float`).
#[inline(always)]
unsafe fn tanh<S: Simd>(x: S::F) -> S::F {
    const LIMIT: f32 = 7.905_311;
    const P: [f32; 7] = [
        -2.760_768_5e-16,
        2.000_188e-13,
        -8.604_672e-11,
        5.122_297e-8,
        1.485_722_4e-5,
        6.372_619e-4,
        4.893_524_6e-3,
    ];
    const Q: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3];
    // SAFETY: the machine has `S`.
    unsafe {
        let x = S::max(S::splat(-LIMIT), min::<S>(S::splat(LIMIT), x));
        let square = S::mul(x, x);
        S::div(S::mul(x, polynomial::<S, 7>(square, P)), polynomial::<S, 4>(square, Q))
    }
}

/// The error function as a quotient of polynomials, within a few units in the last place (the coefficients are those of
/// Eigen's and XLA's `erf` of `f32`).
#[inline(always)]
unsafe fn erf<S: Simd>(x: S::F) -> S::F {
    const LIMIT: f32 = 4.0;
    const P: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    const Q: [f32; 5] = [-1.456_607_2e-5, -2.133_740_5e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2];
    // SAFETY: the machine has `S`.
    unsafe {
        let x = S::max(S::splat(-LIMIT), min::<S>(S::splat(LIMIT), x));
        let square = S::mul(x, x);
        S::div(S::mul(x, polynomial::<S, 7>(square, P)), polynomial::<S, 5>(square, Q))
    }
}

#[inline(always)]
unsafe fn silu<S: Simd>(x: S::F) -> S::F {
    // SAFETY: the machine has `S`.
    unsafe {
        // The exponential is bounded, so the quotient would not be zero for large negative numbers.
        let x = S::max(S::splat(SILU_MIN), x);
        S::div(x, S::add(S::splat(1.0), S::exp(S::mul(x, S::splat(-1.0)))))
    }
}

/// Where SiLU is zero as far as normal numbers go.
const SILU_MIN: f32 = -88.0;

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
