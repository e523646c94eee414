//! Linear layers, and what is fused with them.

use super::{
    array::{Array, Random},
    check::{Check, assert_refused},
    elementwise::gate,
    norms::{normalised, upload_norm},
    weights::Weights,
};
use crate::{Activation, Backend, Gate, Linear, Norm, NormKind};

/// The gates of today's models.
const GATES: [Gate; 4] = [
    Gate::Of(Activation::Silu),
    Gate::Of(Activation::GeluTanh),
    Gate::Of(Activation::ReluSquared),
    Gate::ClampedSwiglu { alpha: 1.702, limit: 0.5 },
];

/// The norms that a layer's input may have: none, and one of either kind.
fn norms(random: &mut Random, width: usize) -> [Option<Norm<Array>>; 3] {
    let mut row = || Array::random(random, 1, width);
    let (kind, eps) = (NormKind::Layer, 1e-3);
    let layer = Norm { kind, width, eps, weight: Some(row()), bias: Some(row()) };
    [None, Some(Norm::rms(width, 1e-5, row())), Some(layer)]
}

/// [`Backend::linear`], [`Backend::norm_linears`], [`Backend::norm_gated`] and [`Backend::linear_add`] with every kind of
/// matrix, with and without biases and norms.
pub fn fused_products<B: Backend>(backend: &B, tolerance: f64) {
    // A gate deep in its tail multiplies the error of its argument.
    let check = Check::new(backend, 4.0 * tolerance);
    let random = &mut Random::new(13);
    for (outputs, inputs) in [(6, 64), (150, 256)] {
        let kinds = |random: &mut Random| Weights::kinds(random, outputs, inputs);
        for (i, (first, second)) in kinds(random).iter().zip(kinds(random)).enumerate() {
            for (with_bias, rows) in [(false, 1), (true, 1), (false, 19), (true, 19)] {
                let biases = [(); 2].map(|()| Array::random(random, 1, outputs));
                let bias = |i: usize| with_bias.then_some(&biases[i]);
                let linears = [first.linear(&check, bias(0)), second.linear(&check, bias(1))];
                let [Some(one), Some(two)] = &linears else { continue };
                let x = Array::random(random, rows, inputs);
                let residual = Array::random(random, rows, outputs);
                let case = (&first.kind, rows, with_bias);

                let expected = first.apply(&x, bias(0));
                check.rows(("linear", case), rows, &expected, |part| backend.linear(&part.tensor(&x), one));
                check.rows(("linear_add", case), rows, &residual.add(&expected), |part| {
                    backend.linear_add(&part.tensor(&x), one, &part.tensor(&residual))
                });

                let kind = GATES[(i + rows) % GATES.len()];
                for norm in norms(random, inputs) {
                    let case = (case, norm.as_ref().map(|norm| norm.kind), kind);
                    let normed = norm.as_ref().map_or(x.clone(), |norm| normalised(&x, norm));
                    let norm = norm.map(|norm| upload_norm(backend, &norm));
                    let expected = [first.apply(&normed, bias(0)), second.apply(&normed, bias(1))];
                    let each = expected.each_ref().map(|array| (array, check.tolerance));
                    check.row_outputs(&("norm_linears", case), rows, &each, |part| {
                        let outputs = backend.norm_linears(&part.tensor(&x), norm.as_ref(), &[one, two])?;
                        Ok(outputs.iter().map(|output| check.output(output)).collect())
                    });
                    let expected = expected[0].zip(&expected[1], |g, u| gate(kind, g, u));
                    check.rows(("norm_gated", case), rows, &expected, |part| {
                        backend.norm_gated(&part.tensor(&x), norm.as_ref(), one, two, kind)
                    });
                }
            }
        }
    }
}

/// [`Backend::norm_linears`] and [`Backend::norm_gated`] of matrices of all kinds and different widths in one call, with few
/// rows and with so many that products are cut into blocks.
pub fn mixed_linears<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, 4.0 * tolerance);
    let random = &mut Random::new(16);
    let inputs = 128;
    let kinds = Weights::kinds(random, 1, inputs).len();
    let mut one_of_each = |outputs: fn(usize) -> usize| -> Vec<Weights> {
        (0..kinds).map(|i| Weights::kinds(random, outputs(i), inputs).swap_remove(i)).collect()
    };
    let (uneven, even) = (one_of_each(|i| 3 + 7 * i), one_of_each(|_| 70));
    let upload = |weights: &[Weights]| -> Option<Vec<Linear<B>>> {
        weights.iter().map(|weights| weights.linear(&check, None)).collect()
    };
    let (Some(uneven_up), Some(even_up)) = (upload(&uneven), upload(&even)) else { return };
    for rows in [3, 150] {
        let x = Array::random(random, rows, inputs);
        let norm = Norm::rms(inputs, 1e-5, Array::random(random, 1, inputs));
        let (normed, norm) = (normalised(&x, &norm), upload_norm(backend, &norm));
        let expected: Vec<Array> = uneven.iter().map(|weights| weights.apply(&normed, None)).collect();
        let expected: Vec<(&Array, f64)> = expected.iter().map(|array| (array, check.tolerance)).collect();
        check.row_outputs(&("norm_linears", rows), rows, &expected, |part| {
            let linears: Vec<&Linear<B>> = uneven_up.iter().collect();
            let outputs = backend.norm_linears(&part.tensor(&x), Some(&norm), &linears)?;
            Ok(outputs.iter().map(|output| check.output(output)).collect())
        });
        for i in 0..kinds {
            let (j, kind) = ((i + 5) % kinds, GATES[i % GATES.len()]);
            let [gates, ups] = [&even[i], &even[j]].map(|weights| weights.apply(&normed, None));
            let case = ("norm_gated", &even[i].kind, &even[j].kind, kind, rows);
            check.rows(case, rows, &gates.zip(&ups, |g, u| gate(kind, g, u)), |part| {
                backend.norm_gated(&part.tensor(&x), Some(&norm), &even_up[i], &even_up[j], kind)
            });
        }
    }
}

/// Linear layers whose operands do not fit are refused.
pub fn linears_are_checked<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(15);
    let kind = Gate::Of(Activation::Silu);
    let other = Weights::dense(random, 7, 64).linear(&check, None).unwrap();
    for matrix in Weights::kinds(random, 8, 64) {
        let mut linear = |width: usize| matrix.linear(&check, Some(&Array::random(random, 1, width)));
        let (Some(good), Some(bad)) = (linear(8), linear(9)) else { continue };
        let mut tensor = |rows: usize, columns: usize| Array::random(random, rows, columns).upload(backend);
        let (fitting, narrow, residual) = (tensor(2, 64), tensor(2, 32), tensor(2, 8));
        let norm = Norm::rms(64, 1e-5, tensor(1, 64));
        let wrong = [
            Norm::rms(64, 1e-5, tensor(1, 60)),
            Norm::rms(60, 1e-5, tensor(1, 60)),
            Norm::rms(0, 1e-5, tensor(1, 64)),
            Norm { bias: Some(tensor(2, 64)), ..norm.clone() },
        ];
        let case = &matrix.kind;
        for (x, linear) in [(&narrow, &good), (&fitting, &bad)] {
            assert_refused(case, backend.linear(x, linear));
            assert_refused(case, backend.linear_add(x, linear, &residual));
            for norm in [None, Some(&norm)] {
                assert_refused(case, backend.norm_linears(x, norm, &[linear]));
                assert_refused(case, backend.norm_linears(x, norm, &[linear, linear]));
                assert_refused(case, backend.norm_gated(x, norm, linear, linear, kind));
            }
        }
        for norm in &wrong {
            assert_refused((case, norm), backend.norm_linears(&fitting, Some(norm), &[&good]));
            assert_refused((case, norm), backend.norm_gated(&fitting, Some(norm), &good, &good, kind));
        }
        assert_refused(case, backend.norm_linears(&fitting, None, &[&good, &bad]));
        assert_refused(case, backend.norm_gated(&fitting, None, &good, &bad, kind));
        assert_refused(case, backend.norm_gated(&fitting, None, &bad, &good, kind));
        assert_refused(case, backend.norm_gated(&fitting, None, &good, &other, kind));
        for residual in [tensor(2, 64), tensor(3, 8), tensor(2, 9)] {
            assert_refused(case, backend.linear_add(&fitting, &good, &residual));
        }
    }
}
