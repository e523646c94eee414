//! Convolutions, compared with their definitions: no reference here knows of indices.

use super::{
    array::{Array, Random},
    check::{Check, assert_refused},
    weights::Weights,
};
use crate::{Backend, Convolution};

const CONVOLUTIONS: [Convolution; 8] = [
    Convolution { taps: 1, stride: 1, padding: 0, dilation: 1 },
    Convolution { taps: 3, stride: 1, padding: 1, dilation: 1 },
    Convolution { taps: 3, stride: 2, padding: 1, dilation: 1 },
    Convolution { taps: 4, stride: 2, padding: 0, dilation: 1 },
    Convolution { taps: 4, stride: 4, padding: 3, dilation: 1 },
    Convolution { taps: 5, stride: 3, padding: 2, dilation: 1 },
    Convolution { taps: 2, stride: 1, padding: 4, dilation: 3 },
    Convolution { taps: 3, stride: 5, padding: 1, dilation: 2 },
];

/// Where a tap of an output lies in the input, if it does.
fn source(convolution: &Convolution, output: usize, tap: usize, rows: usize) -> Option<usize> {
    let place = output * convolution.stride + tap * convolution.dilation;
    place.checked_sub(convolution.padding).filter(|place| *place < rows)
}

/// Adds the product of some columns of a weight with a row to an output.
fn accumulate(output: &mut [f64], weight: &Array, first_column: usize, x: &[f64]) {
    for (channel, output) in output.iter_mut().enumerate() {
        let weight = &weight.row(channel)[first_column..][..x.len()];
        *output += weight.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
    }
}

/// [`Backend::convolve`] along one axis with strides, padding and dilation, with every kind of matrix.
pub fn convolve<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(70);
    for convolution in CONVOLUTIONS {
        for (rows, channels, inputs) in [(1, 3, 1), (17, 20, 32), (40, 6, 96)] {
            let mut kinds = vec![Weights::dense(random, channels, convolution.taps * inputs)];
            if rows == 17 {
                kinds = Weights::kinds(random, channels, convolution.taps * inputs);
            }
            let outputs = convolution.outputs(rows);
            if outputs == 0 {
                continue;
            }
            for (i, matrix) in kinds.iter().enumerate() {
                let bias = (i % 2 == 0).then(|| Array::random(random, 1, channels));
                let Some(linear) = matrix.linear(&check, bias.as_ref()) else { continue };
                let x = Array::random(random, rows, inputs);
                let expected = Array::from_rows(outputs, channels, |output| {
                    let mut sums = bias.as_ref().map_or(vec![0.0; channels], |bias| bias.values.clone());
                    for tap in 0..convolution.taps {
                        if let Some(row) = source(&convolution, output, tap, rows) {
                            accumulate(&mut sums, &matrix.values, tap * inputs, x.row(row));
                        }
                    }
                    sums
                });
                let (x, taps) = (x.upload(backend), convolution.indices(rows));
                assert_eq!(taps.len(), outputs * convolution.taps);
                check.rows((&convolution, rows, &matrix.kind), outputs, &expected, |part| {
                    backend.convolve(&x, &linear, &part.indices(&taps), part.len())
                });
            }
        }
    }
}

/// [`Backend::convolve`] over an image: two axes, both with strides and edges.
pub fn convolve_image<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(71);
    let (inputs, channels) = (3, 10);
    for (height, width) in [(1, 1), (5, 8), (14, 9)] {
        for [down, across] in [[1, 1], [2, 4], [3, 5], [6, 2]].map(|at| at.map(|at: usize| CONVOLUTIONS[at]))
        {
            let taps = down.taps * across.taps;
            let weight = Weights::dense(random, channels, taps * inputs);
            let linear = weight.linear(&check, None).unwrap();
            let image = Array::random(random, height * width, inputs);
            let [rows, columns] = [down.outputs(height), across.outputs(width)];
            let pixel = |output: usize, tap: usize| {
                let y = source(&down, output / columns, tap / across.taps, height)?;
                Some(y * width + source(&across, output % columns, tap % across.taps, width)?)
            };
            let expected = Array::from_rows(rows * columns, channels, |output| {
                let mut sums = vec![0.0; channels];
                for tap in 0..taps {
                    if let Some(pixel) = pixel(output, tap) {
                        accumulate(&mut sums, &weight.values, tap * inputs, image.row(pixel));
                    }
                }
                sums
            });
            let indices: Vec<u32> = (0..rows * columns * taps)
                .map(|place| pixel(place / taps, place % taps).map_or(u32::MAX, |pixel| pixel as u32))
                .collect();
            let image = image.upload(backend);
            check.rows((height, width, down, across), rows * columns, &expected, |part| {
                backend.convolve(&image, &linear, &part.indices(&indices), part.len())
            });
        }
    }
}

/// [`Backend::convolve_transposed`] along one axis.
pub fn convolve_transposed<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(72);
    for convolution in CONVOLUTIONS {
        let Convolution { taps, stride, padding, dilation } = convolution;
        for (rows, channels, inputs) in [(1, 1, 3), (5, 6, 32), (20, 16, 20)] {
            let outputs = convolution.transposed_outputs(rows);
            if outputs == 0 {
                continue;
            }
            for with_bias in [false, true] {
                let matrix = Weights::dense(random, taps * channels, inputs);
                let linear = matrix.linear(&check, None).unwrap();
                let bias = with_bias.then(|| Array::random(random, 1, channels));
                let x = Array::random(random, rows, inputs);
                // Each row spreads over the outputs that its taps reach.
                let mut expected = bias
                    .as_ref()
                    .map_or(Array::filled(outputs, channels, 0.0), |bias| bias.select(&vec![0; outputs]));
                for (row, tap) in (0..rows).flat_map(|row| (0..taps).map(move |tap| (row, tap))) {
                    let at = (row * stride + tap * dilation).checked_sub(padding);
                    if let Some(at) = at.filter(|at| *at < outputs) {
                        let weight = matrix.values.rows_of(tap * channels..(tap + 1) * channels);
                        accumulate(&mut expected.values[at * channels..][..channels], &weight, 0, x.row(row));
                    }
                }
                let sources = convolution.transposed_indices(rows);
                let (x, bias) = (x.upload(backend), bias.map(|bias| bias.upload(backend)));
                check.rows((&convolution, rows, channels, inputs), outputs, &expected, |part| {
                    let sources = part.indices(&sources);
                    backend.convolve_transposed(&x, &linear, taps, &sources, part.len(), bias.as_ref())
                });
            }
        }
    }
}

/// Both refuse operands that do not fit.
pub fn convolutions_are_checked<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(73);
    let mut linear =
        |outputs: usize, inputs: usize| Weights::dense(random, outputs, inputs).linear(&check, None).unwrap();
    let (six, four) = (linear(6, 8), linear(4, 8));
    let tensor = |rows: usize, columns: usize| Array::filled(rows, columns, 0.5).upload(backend);
    let indices = |len: usize| backend.indices(&vec![0; len]).unwrap();
    let x = tensor(5, 4);
    backend.convolve(&x, &six, &indices(6), 3).unwrap();
    assert_refused("few taps", backend.convolve(&x, &six, &indices(5), 3));
    assert_refused("many taps", backend.convolve(&x, &six, &indices(8), 3));
    assert_refused("no outputs", backend.convolve(&x, &six, &indices(6), 0));
    assert_refused("columns", backend.convolve(&tensor(5, 3), &six, &indices(6), 3));
    assert_refused("outputs", backend.convolve(&x, &six, &indices(6), usize::MAX));

    let x = tensor(5, 8);
    let transposed =
        |x: &B::Tensor, taps: usize, sources: usize, outputs: usize, bias: Option<&B::Tensor>| {
            backend.convolve_transposed(x, &six, taps, &indices(sources), outputs, bias)
        };
    transposed(&x, 2, 8, 4, Some(&tensor(1, 3))).unwrap();
    assert_refused("no taps", transposed(&x, 0, 8, 4, None));
    assert_refused("many taps", transposed(&x, usize::MAX, 8, 4, None));
    let result = transposed(&x, 2, 8, usize::MAX, None);
    assert!(result.is_err(), "as many outputs: {result:?}");
    assert_refused("taps", transposed(&x, 4, 8, 4, None));
    assert_refused("columns", transposed(&tensor(5, 7), 2, 8, 4, None));
    assert_refused("sources", transposed(&x, 2, 7, 4, None));
    assert_refused("no outputs", transposed(&x, 2, 8, 0, None));
    assert_refused("bias", transposed(&x, 2, 8, 4, Some(&tensor(1, 6))));
    assert_refused("taps", backend.convolve_transposed(&x, &four, 3, &indices(8), 4, None));
}
