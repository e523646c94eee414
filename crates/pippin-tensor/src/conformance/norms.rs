//! Norms, and what else becomes of a whole row.

use super::{
    array::{Array, Random, dot},
    check::{Check, assert_refused},
    elementwise::SHAPES,
};
use crate::{Backend, BlockFloat, Norm, NormKind, Reduction};

/// A norm on the device.
pub(super) fn upload_norm<B: Backend>(backend: &B, norm: &Norm<Array>) -> Norm<B::Tensor> {
    let upload = |parameter: &Option<Array>| parameter.as_ref().map(|array| array.upload(backend));
    let Norm { kind, width, eps, .. } = *norm;
    Norm { kind, width, eps, weight: upload(&norm.weight), bias: upload(&norm.bias) }
}

/// The reference for [`Backend::norm`].
pub(super) fn normalised(x: &Array, norm: &Norm<Array>) -> Array {
    let runs = x.map_rows(|_, row| {
        let runs = row.chunks(norm.width).flat_map(|run| {
            let mean = match norm.kind {
                NormKind::Rms => 0.0,
                NormKind::Layer => mean(run),
            };
            let centred: Vec<f64> = run.iter().map(|v| v - mean).collect();
            let factor = 1.0 / (dot(&centred, &centred) / run.len() as f64 + f64::from(norm.eps)).sqrt();
            centred.into_iter().map(move |v| v * factor)
        });
        runs.collect()
    });
    // As many times as there are runs, or once where it is as wide as the row.
    let repeated = |parameter: &Option<Array>, neutral: f64| match parameter {
        Some(array) => Array::join(&vec![array; x.columns / array.columns]),
        None => Array::filled(1, x.columns, neutral),
    };
    runs.zip(&repeated(&norm.weight, 1.0), |v, w| v * w).add(&repeated(&norm.bias, 0.0))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Numbers that lie far from zero compared with their distances: the square of the mean must not swallow the variance.
/// Asked only of backends that claim to keep the digits for it.
fn offset(x: &Array, tolerance: f64) -> Array {
    if tolerance < 1e-3 { x.operand(|x| x + 30.0) } else { x.clone() }
}

/// [`Backend::norm`] of both kinds over rows and over runs, with every combination of weights and biases.
pub fn norm<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(3);
    for (rows, columns) in SHAPES {
        for width in [columns, columns / 2, columns / 8] {
            if width == 0 || !columns.is_multiple_of(width) {
                continue;
            }
            for kind in [NormKind::Rms, NormKind::Layer] {
                let mut x = Array::random(random, rows, columns);
                if kind == NormKind::Layer {
                    x = offset(&x, tolerance);
                }
                // A row without any direction.
                x.values[..columns].fill(if rows > 1 { 0.0 } else { 0.5 });
                let widths = [None, Some(width), Some(columns)];
                for (weight, bias) in widths.into_iter().flat_map(|w| widths.map(|b| (w, b))) {
                    let mut parameter = |width: Option<usize>| width.map(|w| Array::random(random, 1, w));
                    let (weight, bias) = (parameter(weight), parameter(bias));
                    let eps = if weight.is_some() { 1e-6 } else { 1e-2 };
                    let norm = Norm { kind, width, eps, weight, bias };
                    let uploaded = upload_norm(backend, &norm);
                    let widths = [&norm.weight, &norm.bias].map(|p| p.as_ref().map(|p| p.columns));
                    let case = (kind, rows, columns, width, widths);
                    check.rows(case, rows, &normalised(&x, &norm), |part| {
                        backend.norm(&part.tensor(&x), &uploaded)
                    });
                }
            }
        }
    }
    let x = Array::random(random, 2, 12).upload(backend);
    let wide = |rows: usize, columns: usize| Some(Array::filled(rows, columns, 1.0).upload(backend));
    for kind in [NormKind::Rms, NormKind::Layer] {
        let good = Norm { kind, width: 4, eps: 1e-5, weight: None, bias: None };
        for width in [0, 5, 24, usize::MAX] {
            assert_refused((kind, width), backend.norm(&x, &Norm { width, ..good.clone() }));
        }
        for (rows, columns) in [(1, 3), (1, 6), (2, 4), (2, 12), (1, 24)] {
            let weight = wide(rows, columns);
            assert_refused((kind, rows, columns), backend.norm(&x, &Norm { weight, ..good.clone() }));
            let bias = wide(rows, columns);
            assert_refused((kind, rows, columns), backend.norm(&x, &Norm { bias, ..good.clone() }));
        }
    }
}

/// [`Backend::reduce`] with every reduction.
pub fn reduce<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(8);
    for (rows, columns) in SHAPES {
        // Sums of numbers around zero have no digits of their own.
        let around_one = Array::random(random, rows, columns).operand(|x| x + 1.0);
        for kind in [Reduction::Sum, Reduction::Mean, Reduction::RootMeanSquare, Reduction::Deviation] {
            let x = if kind == Reduction::Deviation { &offset(&around_one, tolerance) } else { &around_one };
            let expected = x.map_rows(|_, row| {
                let distances: Vec<f64> = row.iter().map(|v| v - mean(row)).collect();
                vec![match kind {
                    Reduction::Sum => row.iter().sum(),
                    Reduction::Mean => mean(row),
                    Reduction::RootMeanSquare => (dot(row, row) / row.len() as f64).sqrt(),
                    Reduction::Deviation => (dot(&distances, &distances) / row.len() as f64).sqrt(),
                }]
            });
            check.rows((kind, rows, columns), rows, &expected, |part| backend.reduce(&part.tensor(x), kind));
        }
    }
}

/// [`Backend::softmax`] of rows that are close together, far apart, and out of the exponential's range.
pub fn softmax<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(41);
    for (rows, columns) in SHAPES {
        for (magnitude, offset) in [(1.0, 0.0), (8.0, 300.0), (60.0, -1000.0)] {
            let x = Array::random(random, rows, columns).operand(|x| x * magnitude + offset);
            let expected = x.map_rows(|_, row| {
                let highest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = row.iter().map(|x| (x - highest).exp()).collect();
                let sum: f64 = powers.iter().sum();
                powers.iter().map(|power| power / sum).collect()
            });
            check.rows((rows, columns, magnitude), rows, &expected, |part| backend.softmax(&part.tensor(&x)));
        }
    }
    let x = Array::new(2, 3, &[0.0, f32::NAN, 1.0, 2.0, f32::NEG_INFINITY, 2.0]).upload(backend);
    let values = backend.read(&backend.softmax(&x).unwrap()).unwrap();
    assert!(values[..3].iter().all(|value| value.is_nan()), "{values:?}");
    assert_eq!(values[3..], [0.5, 0.0, 0.5]);
}

/// [`Backend::sinkhorn`] of small and larger matrices, after few and many iterations.
pub fn sinkhorn<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(42);
    for (rows, side) in [(1, 1), (3, 2), (33, 4), (5, 7)] {
        for (iterations, eps, magnitude) in [(1, 1e-6, 1.0), (2, 0.125, 4.0), (20, 1e-6, 8.0)] {
            let x = Array::random(random, rows, side * side).operand(|x| x * magnitude);
            let eps_exact = f64::from(eps);
            let expected = x.map_rows(|_, row| {
                let at = |values: &[f64], line: usize, by_row: bool| -> Vec<f64> {
                    (0..side)
                        .map(|i| if by_row { values[line * side + i] } else { values[i * side + line] })
                        .collect()
                };
                let mut values: Vec<f64> = row.iter().map(|x| x.exp()).collect();
                let sums: Vec<f64> =
                    (0..side).map(|column| at(&values, column, false).iter().sum()).collect();
                values.iter_mut().enumerate().for_each(|(i, v)| *v = *v / sums[i % side] + eps_exact);
                for iteration in 0..iterations {
                    if iteration > 0 {
                        let sums: Vec<f64> =
                            (0..side).map(|column| at(&values, column, false).iter().sum()).collect();
                        values.iter_mut().enumerate().for_each(|(i, v)| *v /= sums[i % side] + eps_exact);
                    }
                    let sums: Vec<f64> = (0..side).map(|row| at(&values, row, true).iter().sum()).collect();
                    values.iter_mut().enumerate().for_each(|(i, v)| *v /= sums[i / side] + eps_exact);
                }
                values
            });
            check.rows((rows, side, iterations), rows, &expected, |part| {
                backend.sinkhorn(&part.tensor(&x), iterations, eps)
            });
        }
    }
    let x = Array::random(random, 2, 12).upload(backend);
    assert_refused("no square", backend.sinkhorn(&x, 2, 1e-6));
    let x = Array::random(random, 2, 9).upload(backend);
    assert_refused("no iterations", backend.sinkhorn(&x, 0, 1e-6));
}

/// [`Backend::round_blocks`]: every kind, blocks of every magnitude, and numbers in the middle of two.
pub fn round_blocks<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(43);
    for kind in [BlockFloat::E4m3, BlockFloat::E2m1, BlockFloat::E2m1Fine] {
        let block = kind.block();
        for (rows, blocks) in [(1, 1), (5, 3), (33, 2)] {
            for magnitude in [1.0, 1e-6, 3e4] {
                let x = Array::random(random, rows, blocks * block).operand(|x| x * magnitude);
                let expected =
                    x.map_rows(|_, row| row.chunks(block).flat_map(|block| rounded(kind, block)).collect());
                check.rows((kind, rows, blocks, magnitude), rows, &expected, |part| {
                    backend.round_blocks(&part.tensor(&x), kind)
                });
            }
        }
        // The scale is one: the largest number is that of the type. What is between two numbers becomes the even one.
        let largest = if kind == BlockFloat::E4m3 { 448.0 } else { 6.0 };
        let mut values = vec![0.0; block];
        let halves: &[(f32, f32)] = match kind {
            BlockFloat::E4m3 => &[(9.5, 10.0), (17.0, 16.0), (-19.0, -20.0), (0.000_976_562_5, 0.0)],
            _ => {
                &[(0.25, 0.0), (0.75, 1.0), (-1.25, -1.0), (1.75, 2.0), (2.5, 2.0), (-3.5, -4.0), (5.0, 4.0)]
            }
        };
        halves.iter().enumerate().for_each(|(i, (given, _))| values[i] = *given);
        values[block - 1] = largest;
        let rounded = backend.round_blocks(&Array::new(1, block, &values).upload(backend), kind).unwrap();
        let rounded = backend.read(&rounded).unwrap();
        halves
            .iter()
            .zip(&rounded)
            .for_each(|((_, expected), found)| assert_eq!(expected, found, "{kind:?}"));
        assert_eq!(rounded[block - 1], largest);
        let x = Array::random(random, 2, block + 1).upload(backend);
        assert_refused(kind, backend.round_blocks(&x, kind));
        values[1] = f32::NAN;
        let spoiled = backend.round_blocks(&Array::new(1, block, &values).upload(backend), kind).unwrap();
        assert!(backend.read(&spoiled).unwrap()[1].is_nan(), "{kind:?}");
    }
}

/// The reference for [`Backend::round_blocks`], by looking for the nearest of all numbers of a type.
fn rounded(kind: BlockFloat, block: &[f64]) -> Vec<f64> {
    let numbers = |mantissa: i32, exponents: std::ops::Range<i32>, largest: f64| -> Vec<f64> {
        let steps = 1 << mantissa;
        let subnormal = (0..steps).map(|i| f64::from(i) / f64::from(steps) * 2f64.powi(exponents.start));
        let normal = exponents
            .clone()
            .flat_map(|e| (steps..2 * steps).map(move |i| f64::from(i) / f64::from(steps) * 2f64.powi(e)));
        subnormal.chain(normal).filter(|number| *number <= largest).collect()
    };
    let (e4m3, e2m1) = (numbers(3, -6..9, 448.0), numbers(1, 0..3, 6.0));
    let nearest = |numbers: &[f64], x: f64| {
        let distance = |number: &&f64| (x.abs() - **number).abs();
        numbers.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap().copysign(x)
    };
    let largest = block.iter().fold(0f64, |largest, x| largest.max(x.abs()));
    let power_above = |x: f64| 2f64.powi(x.log2().ceil() as i32);
    let (scale, numbers) = match kind {
        BlockFloat::E4m3 => (power_above(largest.max(1e-4) / 448.0), &e4m3),
        BlockFloat::E2m1 => (power_above((largest / 6.0).max(2f64.powi(-126))), &e2m1),
        BlockFloat::E2m1Fine => (nearest(&e4m3, (largest / 6.0).max(2f64.powi(-9))), &e2m1),
    };
    block.iter().map(|x| scale * nearest(numbers, x / scale)).collect()
}

/// [`Backend::weighted_sum`] of one to many neighbouring rows.
pub fn weighted_sum<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(9);
    for (rows, columns) in SHAPES {
        for terms in [1, 2, 3, 8] {
            let x = Array::random(random, rows * terms, columns);
            let weights = Array::random(random, rows, terms);
            let expected = weights.map_rows(|row, weights| {
                let terms = x.rows_of(row * terms..(row + 1) * terms);
                (0..columns)
                    .map(|column| dot(weights, &terms.columns_of(column..column + 1).values))
                    .collect()
            });
            check.rows((rows, columns, terms), rows, &expected, |part| {
                backend.weighted_sum(&part.tensor(&x), &part.tensor(&weights))
            });
        }
    }
    let x = Array::random(random, 6, 10).upload(backend);
    for (rows, terms) in [(6, 2), (3, 3), (4, 1), (1, 5), (2, 6)] {
        let weights = Array::random(random, rows, terms).upload(backend);
        assert_refused((rows, terms), backend.weighted_sum(&x, &weights));
    }
}
