//! Operations on each number by itself.

use super::{
    array::{Array, Random},
    check::{Check, assert_refused},
};
use crate::{Activation, Backend, Gate};

pub(super) const SHAPES: [(usize, usize); 8] =
    [(1, 1), (1, 3), (2, 16), (3, 40), (5, 64), (1, 1000), (33, 96), (70, 512)];

/// Every activation, those with a limit with one that bends much and one that bends little.
pub const ACTIVATIONS: [Activation; 17] = [
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::GeluSigmoid,
    Activation::Relu,
    Activation::ReluSquared,
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Softplus,
    Activation::Exp,
    Activation::ExpExcess,
    Activation::Sqrt,
    Activation::Reciprocal,
    Activation::SoftCap(0.5),
    Activation::SoftCap(30.0),
    Activation::Clamp(0.5),
    Activation::Clamp(30.0),
];

/// Arguments at and near the edges of what approximations distinguish, far into both tails.
const ARGUMENTS: [f32; 24] = [
    0.0, 1e-40, 1e-30, 1e-8, 1e-4, 0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 8.0, 9.0, 10.0, 12.0, 17.0, 20.0, 40.0,
    80.0, 88.0, 104.0, 200.0, 1e4, 3e38,
];

/// The reference for [`Backend::activate`].
pub(super) fn activation(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => x / 2.0 * (1.0 + erf(x / f64::sqrt(2.0))),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            x / 2.0 * (1.0 + inner.tanh())
        }
        Activation::GeluSigmoid => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Activation::Exp => x.exp(),
        Activation::ExpExcess => x.min(0.0).exp_m1() - x.min(0.0),
        Activation::Sqrt => x.max(0.0).sqrt(),
        Activation::Reciprocal => x.recip(),
        Activation::SoftCap(cap) => f64::from(cap) * (x / f64::from(cap)).tanh(),
        Activation::Clamp(limit) => x.clamp(f64::from(-limit), f64::from(limit)),
    }
}

/// The reference for [`Backend::gated`].
pub(super) fn gate(kind: Gate, gate: f64, up: f64) -> f64 {
    match kind {
        Gate::Of(kind) => activation(kind, gate) * up,
        Gate::ClampedSwiglu { alpha, limit } => {
            let (alpha, limit) = (f64::from(alpha), f64::from(limit));
            let gate = gate.min(limit);
            gate / (1.0 + (-alpha * gate).exp()) * (up.clamp(-limit, limit) + 1.0)
        }
        Gate::SiluOfClamped { limit } => {
            let limit = f64::from(limit);
            activation(Activation::Silu, gate.min(limit)) * up.clamp(-limit, limit)
        }
        Gate::Situ { beta, limit } => {
            let cap = |x, cap| activation(Activation::SoftCap(cap), x);
            cap(gate, beta) * activation(Activation::Sigmoid, gate) * limit.map_or(up, |limit| cap(up, limit))
        }
        Gate::ClampedSilu { limit } => {
            let limit = f64::from(limit);
            activation(Activation::Silu, gate).min(limit) * up.clamp(-limit, limit)
        }
    }
}

/// The error function, by a series without cancellation.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

/// Each argument of either sign in a row of its own, so that each result is held to its own magnitude.
fn tails() -> Array {
    let arguments: Vec<f32> = ARGUMENTS.iter().flat_map(|x| [*x, -*x]).collect();
    Array::new(arguments.len(), 1, &arguments)
}

/// [`Backend::add`] and [`Backend::mul`]: operands of the same shape, one row for all, one column for all, one number.
pub fn add_and_mul<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(1);
    for (rows, columns) in SHAPES {
        let a = Array::random(random, rows, columns);
        for (b_rows, b_columns) in [(rows, columns), (1, columns), (rows, 1), (1, 1)] {
            let b = Array::random(random, b_rows, b_columns);
            let case = (rows, columns, b_rows, b_columns);
            let only = b.upload(backend);
            // The only row belongs to no row of the call.
            let shared = b_rows == 1 && rows > 1;
            check.rows(("add", case), rows, &a.add(&b), |part| {
                backend.add(&part.tensor(&a), &if shared { only.clone() } else { part.tensor(&b) })
            });
            check.rows(("mul", case), rows, &a.zip(&b, |a, b| a * b), |part| {
                backend.mul(&part.tensor(&a), &if shared { only.clone() } else { part.tensor(&b) })
            });
        }
        let a = a.upload(backend);
        for shape in [(rows + 1, columns), (rows, columns + 1), (1, columns + 1), (rows + 1, 1)] {
            let b = Array::random(random, shape.0, shape.1).upload(backend);
            assert_refused(("add", rows, columns, shape), backend.add(&a, &b));
            assert_refused(("mul", rows, columns, shape), backend.mul(&a, &b));
        }
    }
}

/// [`Backend::scale`].
pub fn scale<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(6);
    for (rows, columns) in SHAPES {
        let x = Array::random(random, rows, columns);
        for (factor, offset) in [(1.0, 0.0), (-0.5, 0.0), (1.0, 1.0), (45.25, -3.5), (0.0, 2.0)] {
            let expected = x.map(|x| x * f64::from(factor) + f64::from(offset));
            check.rows((rows, columns, factor, offset), rows, &expected, |part| {
                backend.scale(&part.tensor(&x), factor, offset)
            });
        }
    }
}

/// [`Backend::activate`] with every activation, for arguments far into both tails too.
pub fn activate<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(7);
    for kind in ACTIVATIONS {
        let probe = backend.activate(&Array::filled(1, 1, 0.0).upload(backend), kind);
        if check.supported(&kind, probe).is_none() {
            continue;
        }
        let mut arrays = vec![tails()];
        for (rows, columns) in SHAPES {
            for magnitude in [1.0, 8.0, 80.0] {
                arrays.push(Array::random(random, rows, columns).operand(|x| x * magnitude));
            }
        }
        for x in &arrays {
            let expected = x.map(|x| activation(kind, x));
            check.rows((kind, x.rows, x.columns), x.rows, &expected, |part| {
                backend.activate(&part.tensor(x), kind)
            });
        }
    }
}

/// Every gate: each activation's, and those that clamp.
pub fn gates() -> Vec<Gate> {
    let clamped = [(1.702, 7.0), (1.0, 0.25)];
    let clamped = clamped.map(|(alpha, limit)| Gate::ClampedSwiglu { alpha, limit });
    let after = [7.0, 0.25].map(|limit| Gate::ClampedSilu { limit });
    let before = [7.0, 0.25].map(|limit| Gate::SiluOfClamped { limit });
    let soft = [(1.0, None), (4.0, Some(0.5)), (0.5, Some(25.0))];
    let soft = soft.map(|(beta, limit)| Gate::Situ { beta, limit });
    ACTIVATIONS.map(Gate::Of).into_iter().chain(clamped).chain(after).chain(before).chain(soft).collect()
}

/// [`Backend::gated`] with every gate, for arguments far into both tails too.
pub fn gated<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(2);
    for kind in gates() {
        let zero = Array::filled(1, 1, 0.0).upload(backend);
        if check.supported(&kind, backend.gated(&zero, &zero, kind)).is_none() {
            continue;
        }
        // What is clamped has to be beyond the clamp.
        let ups = if matches!(kind, Gate::Of(_)) { 1.0 } else { 8.0 };
        let tails = tails();
        let mut pairs = vec![(tails.clone(), Array::random(random, tails.rows, 1).operand(|x| x * ups))];
        for (rows, columns) in SHAPES {
            for magnitude in [1.0, 8.0, 80.0] {
                let gate = Array::random(random, rows, columns).operand(|x| x * magnitude);
                pairs.push((gate, Array::random(random, rows, columns).operand(|x| x * ups)));
            }
        }
        for (gates, ups) in &pairs {
            let expected = gates.zip(ups, |g, u| gate(kind, g, u));
            check.rows((kind, gates.rows, gates.columns), gates.rows, &expected, |part| {
                backend.gated(&part.tensor(gates), &part.tensor(ups), kind)
            });
        }
        let gate = Array::random(random, 3, 40).upload(backend);
        for (rows, columns) in [(2, 40), (3, 41), (1, 40), (3, 1), (4, 30)] {
            let up = Array::random(random, rows, columns).upload(backend);
            assert_refused((kind, rows, columns), backend.gated(&gate, &up, kind));
        }
    }
}
