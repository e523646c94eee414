//! Operations with weight matrices.

use super::reference::{Array, Random, assert_close, matrices, weights};
use crate::{Activation, Backend, Linear, MatrixData, TensorData, TensorError};

const SHAPES: [(usize, usize); 6] = [(1, 32), (3, 64), (5, 96), (17, 128), (40, 320), (70, 1024)];
const ROWS: [usize; 11] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 33];

fn linear<B: Backend>(backend: &B, matrix: &MatrixData, bias: Option<&Array>) -> Linear<B> {
    Linear { weight: backend.matrix(matrix.clone()).unwrap(), bias: bias.map(|bias| bias.upload(backend)) }
}

/// [`Backend::matmul`] with every kind of matrix and with few and many rows.
pub fn matmul<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(10);
    for (outputs, inputs) in SHAPES {
        for (case, matrix) in matrices(random, outputs, inputs) {
            let reference = weights(&matrix);
            let uploaded = backend.matrix(matrix).unwrap();
            assert_eq!(backend.matrix_shape(&uploaded), [outputs, inputs]);
            for rows in ROWS {
                let x = Array::random(random, rows, inputs);
                let actual = backend.matmul(&x.upload(backend), &uploaded).unwrap();
                assert_close(backend, &actual, &x.matmul(&reference), tolerance, &(&case, rows));
            }
        }
    }
    // Dense matrices of any width: not every model's is a multiple of a vector.
    for (outputs, inputs) in [(3, 1), (7, 45), (30, 131)] {
        let weight = Array::random(random, outputs, inputs);
        let values: Vec<f32> = weight.values.iter().map(|v| *v as f32).collect();
        let data = TensorData::from_f32("dense", &[outputs, inputs], &values).unwrap();
        let uploaded = backend.matrix(MatrixData::Dense(data)).unwrap();
        for rows in ROWS {
            let x = Array::random(random, rows, inputs);
            let actual = backend.matmul(&x.upload(backend), &uploaded).unwrap();
            assert_close(backend, &actual, &x.matmul(&weight), tolerance, &(outputs, inputs, rows));
        }
    }
}

/// Each row of a product equals the product of that row alone, bit for bit, also where a large product is cut into
/// blocks.
pub fn products_are_independent_of_batching<B: Backend>(backend: &B, _tolerance: f64) {
    let random = &mut Random::new(11);
    for (outputs, inputs) in [(70, 320), (40, 1024)] {
        for (case, matrix) in matrices(random, outputs, inputs) {
            let matrix = backend.matrix(matrix).unwrap();
            let x = Array::random(random, 300, inputs);
            let whole = backend.read(&backend.matmul(&x.upload(backend), &matrix).unwrap()).unwrap();
            for range in [0..1, 7..9, 100..103, 200..204, 31..38, 130..299] {
                let part = x.rows_of(range.clone()).upload(backend);
                let part = backend.read(&backend.matmul(&part, &matrix).unwrap()).unwrap();
                assert!(
                    part == whole[range.start * outputs..range.end * outputs],
                    "{case}: rows {range:?} depend on their neighbours"
                );
            }
        }
    }
}

/// [`Backend::gathered_matmul`] with every kind of matrix: routes at random, all to one expert, and to none of some.
pub fn gathered_matmul<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(14);
    for (experts, outputs, inputs) in [(1, 5, 64), (4, 6, 64), (9, 40, 128)] {
        for (case, matrix) in matrices(random, experts * outputs, inputs) {
            let reference = weights(&matrix);
            let uploaded = backend.matrix(matrix).unwrap();
            for (rows, choices) in [(1, 1), (1, 3), (2, 4), (23, 2), (40, 1)] {
                for limit in [1, experts] {
                    let routes: Vec<u32> = (0..rows * choices).map(|_| random.below(limit) as u32).collect();
                    let x = Array::random(random, rows, inputs);
                    let product = |route: usize| {
                        let first = routes[route] as usize * outputs;
                        x.rows_of(route / choices..route / choices + 1)
                            .matmul(&reference.rows_of(first..first + outputs))
                    };
                    let values = (0..routes.len()).flat_map(|route| product(route).values).collect();
                    let expected = Array { rows: routes.len(), columns: outputs, values };
                    let (x_up, routes_up) = (x.upload(backend), backend.indices(&routes).unwrap());
                    let actual = backend.gathered_matmul(&x_up, &uploaded, experts, &routes_up).unwrap();
                    assert_close(backend, &actual, &expected, tolerance, &(&case, rows, choices, limit));

                    // A row's result does not depend on the rows that share its experts.
                    let actual = backend.read(&actual).unwrap();
                    let last = x.rows_of(rows - 1..rows).upload(backend);
                    let routes = backend.indices(&routes[(rows - 1) * choices..]).unwrap();
                    let alone = backend.gathered_matmul(&last, &uploaded, experts, &routes).unwrap();
                    assert!(
                        backend.read(&alone).unwrap() == actual[(rows - 1) * choices * outputs..],
                        "{case}: the last of {rows} rows depends on its neighbours"
                    );
                }
            }
            let x = Array::random(random, 2, inputs).upload(backend);
            let routes = |routes: &[u32]| backend.indices(routes).unwrap();
            let gathered = |experts, routes| backend.gathered_matmul(&x, &uploaded, experts, &routes);
            let error = gathered(experts, routes(&[0, experts as u32]));
            assert!(matches!(error, Err(TensorError::Index { .. })), "{case}: {error:?}");
            for (experts, routes) in [(experts, routes(&[0; 3])), (experts * outputs + 1, routes(&[0; 2]))] {
                let error = gathered(experts, routes);
                assert!(matches!(error, Err(TensorError::Shape { .. })), "{case}: {error:?}");
            }
        }
    }
}

/// [`Backend::embedding`] with every kind of matrix.
pub fn embedding<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(12);
    for (rows, columns) in [(5, 64), (300, 128)] {
        for (case, matrix) in matrices(random, rows, columns) {
            let reference = weights(&matrix);
            let table = backend.matrix(matrix).unwrap();
            let indices: Vec<u32> = [0, rows - 1, 2, 2].map(|i| i as u32).to_vec();
            let values = indices.iter().flat_map(|i| reference.row(*i as usize).to_vec()).collect();
            let expected = Array { rows: indices.len(), columns, values };
            let actual = backend.embedding(&table, &backend.indices(&indices).unwrap()).unwrap();
            assert_close(backend, &actual, &expected, tolerance, &case);
            let outside = backend.indices(&[rows as u32]).unwrap();
            assert!(matches!(backend.embedding(&table, &outside), Err(TensorError::Index { .. })), "{case}");
        }
    }
}

/// The fused products against the reference of their definitions.
pub fn fused_products<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(13);
    // A gate deep in its tail multiplies the error of its argument.
    let tolerance = 4.0 * tolerance;
    for (outputs, inputs) in [(6, 64), (150, 256)] {
        for ((case, first), (_, second)) in
            matrices(random, outputs, inputs).into_iter().zip(matrices(random, outputs, inputs))
        {
            for rows in [1, 3, 19] {
                for with_bias in [false, true] {
                    let case = (&case, rows, with_bias);
                    let biases = [(); 2].map(|()| Array::random(random, 1, outputs));
                    let bias = |i: usize| with_bias.then_some(&biases[i]);
                    let linears = [linear(backend, &first, bias(0)), linear(backend, &second, bias(1))];
                    let x = Array::random(random, rows, inputs);
                    let norm = Array::random(random, 1, inputs);
                    let residual = Array::random(random, rows, outputs);
                    let reference = |x: &Array, i: usize| {
                        let y = x.matmul(&weights([&first, &second][i]));
                        if with_bias { y.add(&biases[i]) } else { y }
                    };
                    let (x_up, norm_up) = (x.upload(backend), norm.upload(backend));
                    let normed = x.rms_norm(&norm, 1e-5);

                    let actual = backend.linear(&x_up, &linears[0]).unwrap();
                    assert_close(backend, &actual, &reference(&x, 0), tolerance, &("linear", case));

                    let both = [&linears[0], &linears[1]];
                    let actual = backend.rms_norm_matmul(&x_up, &norm_up, 1e-5, &both).unwrap();
                    assert_eq!(actual.len(), 2);
                    for (i, actual) in actual.iter().enumerate() {
                        assert_close(
                            backend,
                            actual,
                            &reference(&normed, i),
                            tolerance,
                            &("rms_norm_matmul", case),
                        );
                    }

                    let actual = backend
                        .rms_norm_gated_matmul(
                            &x_up,
                            &norm_up,
                            1e-5,
                            &linears[0],
                            &linears[1],
                            Activation::Silu,
                        )
                        .unwrap();
                    let expected = reference(&normed, 0).silu_mul(&reference(&normed, 1));
                    assert_close(backend, &actual, &expected, tolerance, &("rms_norm_gated_matmul", case));

                    let actual = backend.linear_add(&x_up, &linears[0], &residual.upload(backend)).unwrap();
                    let expected = residual.add(&reference(&x, 0));
                    assert_close(backend, &actual, &expected, tolerance, &("linear_add", case));
                }
            }
        }
    }
}

/// Operands that do not fit are errors, not panics.
pub fn shapes_are_checked<B: Backend>(backend: &B, _tolerance: f64) {
    let random = &mut Random::new(14);
    for (case, matrix) in matrices(random, 8, 64) {
        let bias = Array::random(random, 1, 8);
        let good = linear(backend, &matrix, Some(&bias));
        let bad = linear(backend, &matrix, Some(&Array::random(random, 1, 9)));
        let narrow = Array::random(random, 2, 32).upload(backend);
        let fitting = Array::random(random, 2, 64).upload(backend);
        let norm = Array::random(random, 1, 64).upload(backend);
        let wrong_norm = Array::random(random, 1, 60).upload(backend);
        let is_shape = |result: crate::Result<()>| {
            assert!(matches!(result, Err(TensorError::Shape { .. })), "{case}: {result:?}");
        };
        is_shape(backend.matmul(&narrow, &good.weight).map(drop));
        is_shape(backend.linear(&narrow, &good).map(drop));
        is_shape(backend.linear(&fitting, &bad).map(drop));
        is_shape(backend.rms_norm_matmul(&fitting, &wrong_norm, 1e-5, &[&good]).map(drop));
        is_shape(backend.rms_norm_matmul(&fitting, &norm, 1e-5, &[&bad]).map(drop));
        let silu = Activation::Silu;
        is_shape(backend.rms_norm_gated_matmul(&fitting, &norm, 1e-5, &good, &bad, silu).map(drop));
        is_shape(backend.linear_add(&fitting, &good, &fitting).map(drop));
    }
    let cube = TensorData::from_f32("cube", &[2, 2, 2], &[0.0; 8]).unwrap();
    assert!(backend.tensor(&cube).is_err());
    assert!(backend.matrix(MatrixData::Dense(cube)).is_err());
}
