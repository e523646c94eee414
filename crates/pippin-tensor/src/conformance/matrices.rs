//! Products with weight matrices.

use super::{
    array::{Array, Random},
    check::{Check, assert_refused},
    weights::Weights,
};
use crate::{Backend, MatrixData, TensorData};

/// Outputs and inputs of matrices.
const SHAPES: [(usize, usize); 7] = [(1, 32), (3, 64), (6, 80), (5, 96), (17, 128), (40, 320), (70, 1024)];
/// Rows of a product: those of a decoding step in all the numbers that kernels have paths of their own for, and those of
/// a prompt. What is computed of the many is computed of the few too, see [`Check::rows`].
const ROWS: [usize; 3] = [1, 8, 33];

/// [`Backend::matmul`] with every kind of matrix and with few and many rows.
pub fn matmul<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(10);
    let product = |random: &mut Random, matrix: &Weights, rows: &[usize]| {
        let Some(uploaded) = matrix.upload(&check) else { return };
        for &rows in rows {
            let x = Array::random(random, rows, matrix.values.columns);
            check.rows((&matrix.kind, rows), rows, &x.matmul(&matrix.values), |part| {
                backend.matmul(&part.tensor(&x), &uploaded)
            });
        }
        let narrow = Array::random(random, 2, matrix.values.columns - 1).upload(backend);
        assert_refused(&matrix.kind, backend.matmul(&narrow, &uploaded));
    };
    for (outputs, inputs) in SHAPES {
        for matrix in Weights::kinds(random, outputs, inputs) {
            product(random, &matrix, &ROWS);
        }
    }
    // Dense matrices of any width: not every model's is a multiple of a vector.
    for (outputs, inputs) in [(3, 1), (7, 45), (30, 131)] {
        let matrix = Weights::dense(random, outputs, inputs);
        product(random, &matrix, &ROWS);
    }
}

/// [`Backend::matmul`] where a large product is cut into blocks: each row is the same bits in all of them.
pub fn large_products<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(11);
    for (outputs, inputs) in [(70, 320), (40, 1024), (24, 4416)] {
        for matrix in Weights::kinds(random, outputs, inputs) {
            let Some(uploaded) = matrix.upload(&check) else { continue };
            let x = Array::random(random, 300, inputs);
            check.rows(&matrix.kind, 300, &x.matmul(&matrix.values), |part| {
                backend.matmul(&part.tensor(&x), &uploaded)
            });
        }
    }
}

/// The reference for [`Backend::gathered_matmul`]: zeros for experts that are not there.
pub(super) fn gathered(x: &Array, weights: &Array, experts: usize, routes: &[u32]) -> Array {
    let (outputs, choices) = (weights.rows / experts, routes.len() / x.rows);
    Array::from_rows(routes.len(), outputs, |route| {
        let expert = routes[route] as usize;
        if expert >= experts {
            return vec![0.0; outputs];
        }
        let row = x.rows_of(route / choices..route / choices + 1);
        row.matmul(&weights.rows_of(expert * outputs..(expert + 1) * outputs)).values
    })
}

/// [`Backend::gathered_matmul`] and [`Backend::gathered_linear`] with every kind of matrix: routes at random, all to one
/// expert, to none of some, and to experts that are not there.
pub fn gathered_products<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(14);
    for (experts, outputs, inputs) in [(1, 5, 64), (4, 6, 64), (9, 40, 128)] {
        for matrix in Weights::kinds(random, experts * outputs, inputs) {
            let bias = Array::random(random, experts, outputs);
            let Some(linear) = matrix.linear(&check, Some(&bias)) else { continue };
            for (rows, choices) in [(1, 1), (1, 3), (2, 4), (23, 2), (40, 1)] {
                for limit in [1, experts, experts + 1] {
                    let mut routes = random.indices(rows * choices, limit);
                    if limit > experts {
                        routes[rows * choices / 2] = u32::MAX;
                    }
                    let x = Array::random(random, rows, inputs);
                    let expected = gathered(&x, &matrix.values, experts, &routes);
                    let case = (&matrix.kind, experts, rows, choices, limit);
                    check.rows(("gathered_matmul", case), rows, &expected, |part| {
                        let routes = part.indices(&routes);
                        backend.gathered_matmul(&part.tensor(&x), &linear.weight, experts, &routes)
                    });
                    let expected = expected.add(&bias.select(&routes));
                    check.rows(("gathered_linear", case), rows, &expected, |part| {
                        backend.gathered_linear(&part.tensor(&x), &linear, experts, &part.indices(&routes))
                    });
                }
            }
            let [x, narrow] =
                [inputs, inputs - 1].map(|width| Array::random(random, 2, width).upload(backend));
            let refused = |x: &B::Tensor, experts: usize, routes: usize| {
                let routes_up = backend.indices(&vec![0; routes]).unwrap();
                let case = (&matrix.kind, experts, routes);
                assert_refused(case, backend.gathered_matmul(x, &linear.weight, experts, &routes_up));
                assert_refused(case, backend.gathered_linear(x, &linear, experts, &routes_up));
            };
            refused(&x, experts, 3);
            refused(&x, experts, 1);
            refused(&x, experts * outputs + 1, 2);
            refused(&x, 0, 2);
            refused(&x, usize::MAX, 2);
            refused(&narrow, experts, 2);
            let wide = Array::random(random, experts, outputs + 1);
            let wrong = matrix.linear(&check, Some(&wide)).unwrap();
            let routes = backend.indices(&[0, 0]).unwrap();
            assert_refused(&matrix.kind, backend.gathered_linear(&x, &wrong, experts, &routes));
        }
    }
}

/// [`Backend::embedding`] with every kind of matrix, and zeros for rows that are not there.
pub fn embedding<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(12);
    for (rows, columns) in [(5, 64), (300, 128)] {
        for matrix in Weights::kinds(random, rows, columns) {
            let Some(table) = matrix.upload(&check) else { continue };
            let last = rows as u32 - 1;
            let outside = [0, last + 1, 2, u32::MAX, 1 << 31, u32::MAX / columns as u32 + 1];
            for list in [&[0, last, 2, 2][..], &[last], &outside, &random.indices(300, rows)] {
                check.rows((&matrix.kind, list), list.len(), &matrix.values.select(list), |part| {
                    backend.embedding(&table, &part.indices(list))
                });
            }
        }
    }
}

/// Data that are no matrix or have too many dimensions for a tensor are refused.
pub fn data_is_checked<B: Backend>(backend: &B, _tolerance: f64) {
    let cube = TensorData::from_f32("cube", &[2, 2, 2], &[0.0; 8]).unwrap();
    assert!(backend.tensor(&cube).is_err());
    assert!(backend.matrix(MatrixData::Dense(cube)).is_err());
}
