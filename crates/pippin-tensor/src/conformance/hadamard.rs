//! Rotations of what linear layers are given.

use super::{
    array::{Array, Random},
    check::{Check, assert_refused},
    elementwise::gate,
    norms::{normalised, upload_norm},
    weights::Weights,
};
use crate::{Activation, Backend, Gate, Hadamard, Linear, Norm};

/// The reference for [`Backend::hadamard`].
fn transformed(x: &Array, block: usize) -> Array {
    x.map_rows(|_, row| {
        let runs = row.chunks(block).flat_map(|run| {
            (0..block).map(|i| {
                let signed = run.iter().enumerate().map(|(j, value)| match (i & j).count_ones() % 2 {
                    0 => *value,
                    _ => -value,
                });
                signed.sum::<f64>() / (block as f64).sqrt()
            })
        });
        runs.collect()
    })
}

fn signs(random: &mut Random, columns: usize) -> Array {
    Array::new(1, columns, &random.values(columns).iter().map(|v| v.signum()).collect::<Vec<_>>())
}

/// [`Backend::hadamard`], and a rotation and its inverse.
pub fn hadamard<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, 4.0 * tolerance);
    let random = &mut Random::new(61);
    for (rows, columns, block) in
        [(1, 1, 1), (3, 6, 2), (5, 12, 4), (2, 128, 128), (19, 96, 32), (1, 1024, 512), (40, 1024, 1024)]
    {
        let x = Array::random(random, rows, columns);
        let expected = transformed(&x, block);
        check.rows((rows, columns, block), rows, &expected, |part| backend.hadamard(&part.tensor(&x), block));
        let signs = signs(random, columns);
        let rotation = Hadamard { signs: signs.upload(backend), block };
        let all = Array::join(&[&signs]);
        let signed = x.map_rows(|_, row| row.iter().zip(all.row(0)).map(|(v, s)| v * s).collect());
        let rotated = transformed(&signed, block);
        check.rows(("rotation", rows, columns, block), rows, &rotated, |part| {
            rotation.apply(backend, &part.tensor(&x))
        });
        check.rows(("and back", rows, columns, block), rows, &x, |part| {
            rotation.invert(backend, &rotation.apply(backend, &part.tensor(&x))?)
        });
    }
}

/// Every fused operation with linear layers that have rotations of their own, or none.
pub fn rotated_linears<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, 4.0 * tolerance);
    let random = &mut Random::new(62);
    let (outputs, inputs, kind) = (24, 128, Gate::Of(Activation::Silu));
    for weights in Weights::kinds(random, outputs, inputs) {
        let (first, second) = (signs(random, inputs), signs(random, inputs));
        let bias = Array::random(random, 1, outputs);
        let linear = |signs: Option<(&Array, usize)>| -> Option<Linear<B>> {
            let plain = weights.linear(&check, Some(&bias))?;
            let hadamard = signs.map(|(signs, block)| Hadamard { signs: signs.upload(backend), block });
            Some(Linear { hadamard, ..plain })
        };
        let linears = [linear(Some((&first, 128))), linear(Some((&second, 32))), linear(None)];
        let [Some(one), Some(two), Some(plain)] = &linears else { continue };
        for rows in [1, 19] {
            let x = Array::random(random, rows, inputs);
            let residual = Array::random(random, rows, outputs);
            let apply = |x: &Array, signs: Option<(&Array, usize)>| {
                let rotated = signs.map(|(signs, block)| {
                    let signed =
                        x.map_rows(|_, row| row.iter().zip(signs.row(0)).map(|(v, s)| v * s).collect());
                    transformed(&signed, block)
                });
                weights.apply(rotated.as_ref().unwrap_or(x), Some(&bias))
            };
            let case = (&weights.kind, rows);
            let expected = apply(&x, Some((&first, 128)));
            check.rows(("linear", case), rows, &expected, |part| backend.linear(&part.tensor(&x), one));
            check.rows(("linear_add", case), rows, &residual.add(&expected), |part| {
                backend.linear_add(&part.tensor(&x), one, &part.tensor(&residual))
            });
            for norm in [None, Some(Norm::rms(inputs, 1e-5, Array::random(random, 1, inputs)))] {
                let normed = norm.as_ref().map_or(x.clone(), |norm| normalised(&x, norm));
                let norm = norm.map(|norm| upload_norm(backend, &norm));
                let expected =
                    [Some((&first, 128)), Some((&second, 32)), None].map(|signs| apply(&normed, signs));
                let each = expected.each_ref().map(|array| (array, check.tolerance));
                check.row_outputs(&("norm_linears", case), rows, &each, |part| {
                    let outputs =
                        backend.norm_linears(&part.tensor(&x), norm.as_ref(), &[one, two, plain])?;
                    Ok(outputs.iter().map(|output| check.output(output)).collect())
                });
                for (a, b, up) in [(0, 1, two), (0, 2, plain)] {
                    let expected = expected[a].zip(&expected[b], |g, u| gate(kind, g, u));
                    check.rows(("norm_gated", case), rows, &expected, |part| {
                        backend.norm_gated(&part.tensor(&x), norm.as_ref(), one, up, kind)
                    });
                }
            }
        }
    }
}

/// Runs that are no power of two, or do not make up the columns, and signs of another width are refused.
pub fn rotations_are_checked<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(63);
    let x = Array::random(random, 2, 24).upload(backend);
    for block in [0, 3, 16, 24, 32, usize::MAX] {
        assert_refused(block, backend.hadamard(&x, block));
    }
    let weights = Weights::dense(random, 4, 24);
    for (columns, block) in [(24, 16), (24, 0), (12, 4), (48, 4)] {
        let plain = weights.linear(&check, None).unwrap();
        let hadamard = Some(Hadamard { signs: signs(random, columns).upload(backend), block });
        let linear = Linear { hadamard, ..plain };
        let residual = Array::random(random, 2, 4).upload(backend);
        let kind = Gate::Of(Activation::Silu);
        assert_refused((columns, block), backend.linear(&x, &linear));
        assert_refused((columns, block), backend.linear_add(&x, &linear, &residual));
        assert_refused((columns, block), backend.norm_linears(&x, None, &[&linear]));
        assert_refused((columns, block), backend.norm_gated(&x, None, &linear, &linear, kind));
    }
}
