//! What positions do: rotations, and factors on queries.

use std::sync::Arc;

use super::{
    array::{Array, Random},
    check::{Check, assert_refused},
};
use crate::{Backend, PositionScale, RopeFrequencies, RopeSpec};

/// Rotations with frequencies from one down.
pub(super) fn fixed(dims: usize, base: f64) -> RopeSpec {
    let frequency = |pair: usize| base.powf(-2.0 * pair as f64 / dims as f64) as f32;
    let frequencies = RopeFrequencies::Fixed((0..dims / 2).map(frequency).collect());
    RopeSpec { dims, traditional: false, frequencies, scale: 1.0, axes: None }
}

fn dynamic(dims: usize) -> RopeSpec {
    let frequencies = RopeFrequencies::Dynamic { base: 10_000.0, factor: 4.0, original_context: 100 };
    RopeSpec { frequencies, ..fixed(dims, 10_000.0) }
}

fn specs(dims: usize) -> Vec<RopeSpec> {
    let mut specs = Vec::new();
    for spec in [fixed(dims, 10_000.0), dynamic(dims)] {
        for traditional in [false, true] {
            for scale in [1.0, 1.25] {
                specs.push(RopeSpec { traditional, scale, ..spec.clone() });
            }
        }
    }
    specs
}

/// The reference for [`Backend::rope_angles`].
pub(super) fn angles(positions: &[u32], axes: usize, spec: &RopeSpec) -> Array {
    let pairs = spec.dims / 2;
    let rows = positions.len() / axes;
    let frequency = |position: f64, pair: usize| match &spec.frequencies {
        RopeFrequencies::Fixed(frequencies) => f64::from(frequencies[pair]),
        RopeFrequencies::Dynamic { base, factor, original_context } => {
            let (factor, dims) = (f64::from(*factor), spec.dims as f64);
            let context = *original_context as f64;
            let n = (position + 1.0).max(context);
            let growth = factor * n / context - (factor - 1.0);
            (f64::from(*base) * growth.powf(dims / (dims - 2.0))).powf(-2.0 * pair as f64 / dims)
        }
    };
    Array::from_rows(rows, spec.dims, |row| {
        let angle = |pair: usize| {
            let axis = spec.axes.as_ref().map_or(0, |axes| usize::from(axes[pair]));
            let position = f64::from(positions[axis * rows + row]);
            position * frequency(position, pair)
        };
        let scale = f64::from(spec.scale);
        let cosines = (0..pairs).map(|pair| angle(pair).cos() * scale);
        cosines.chain((0..pairs).map(|pair| angle(pair).sin() * scale)).collect()
    })
}

/// The reference for [`Backend::rope`].
pub(super) fn rotated(x: &Array, angles: &Array, head_dim: usize, spec: &RopeSpec) -> Array {
    let pairs = spec.dims / 2;
    x.map_rows(|row, x| {
        let mut out = x.to_vec();
        for head in out.chunks_mut(head_dim) {
            for pair in 0..pairs {
                let (i, j) = if spec.traditional { (2 * pair, 2 * pair + 1) } else { (pair, pair + pairs) };
                let (cos, sin) = (angles.row(row)[pair], angles.row(row)[pair + pairs]);
                (head[i], head[j]) = (head[i] * cos - head[j] * sin, head[i] * sin + head[j] * cos);
            }
        }
        out
    })
}

/// [`Backend::rope_angles`]: angles are products of `f32`, and as far off as the half of their last place. Positions of
/// several axes, of which each pair has its own.
pub fn rope_angles<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(17);
    let angles_of = |positions: &[u32], axes: usize, spec: &RopeSpec| {
        let largest = positions.iter().copied().max().unwrap_or(0);
        let check = Check::new(backend, tolerance + f64::from(largest) * f64::from(f32::EPSILON));
        let rows = positions.len() / axes;
        check.rows((spec, positions, axes), rows, &angles(positions, axes, spec), |part| {
            backend.rope_angles(&part.positions(positions), axes, spec)
        });
    };
    for dims in [4, 64, 128] {
        for spec in specs(dims) {
            angles_of(&[0, 1, 2, 99, 100, 101, 1000], 1, &spec);
            // The first axis turns all pairs unless others are named.
            let positions = random.indices(3 * 12, 90);
            angles_of(&positions, 3, &spec);
            let axes: Arc<[u8]> = (0..dims / 2).map(|pair| [0, 2, 1, 0, 1][pair % 5]).collect();
            angles_of(&positions, 3, &RopeSpec { axes: Some(axes), ..spec });
        }
        angles_of(&[8191, 40_000, 131_071], 1, &fixed(dims, 500_000.0));
    }
    let one = backend.indices(&[0]).unwrap();
    let good = fixed(64, 100.0);
    let axes = |pairs: usize, axis: u8| Some(Arc::from(vec![axis; pairs]));
    let wrong = [
        RopeSpec { dims: 62, ..good.clone() },
        RopeSpec { dims: 66, ..good.clone() },
        RopeSpec { dims: 63, ..good.clone() },
        RopeSpec { dims: 63, ..dynamic(64) },
        RopeSpec { axes: axes(31, 0), ..good.clone() },
        RopeSpec { axes: axes(33, 0), ..good.clone() },
        RopeSpec { axes: axes(32, 1), ..good.clone() },
    ];
    for spec in &wrong {
        assert_refused(spec, backend.rope_angles(&one, 1, spec));
    }
    // Numbers may come from a model's file.
    let result = backend.rope_angles(&one, 1, &RopeSpec { dims: usize::MAX - 1, ..dynamic(64) });
    assert!(result.is_err(), "as many dimensions: {result:?}");
    for axes in [0, 2] {
        assert_refused(axes, backend.rope_angles(&one, axes, &good));
        let kind = PositionScale::Logarithmic { floor: 4.0, scale: 1.0, first: 1.0 };
        assert_refused(axes, backend.position_scale(&one, axes, kind));
    }
}

/// [`Backend::position_scale`], at and around the positions where the factor changes.
pub fn position_scale<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    for (floor, scale, start) in [(8192f32, 0.1f32, 1.0), (4.0, 1.0, 1.0), (1.0, -0.25, 1.0), (4.0, 0.5, 0.0)]
    {
        let kind = PositionScale::Logarithmic { floor, scale, first: start };
        let first = [0, 1, 2, 3, 4, 6, 7, 8, 8190, 8191, 8192, 16382, 16383, 100_000, 1 << 20];
        let other = [5; 15];
        for (axes, positions) in [(1, first.to_vec()), (2, [first, other].concat())] {
            if check
                .supported(&kind, backend.position_scale(&backend.indices(&[0]).unwrap(), 1, kind))
                .is_none()
            {
                continue;
            }
            let expected = Array::from_rows(first.len(), 1, |row| {
                let shared = ((f64::from(first[row]) + f64::from(start)) / f64::from(floor)).floor();
                vec![1.0 + f64::from(scale) * shared.ln_1p()]
            });
            check.rows((kind, axes), first.len(), &expected, |part| {
                backend.position_scale(&part.positions(&positions), axes, kind)
            });
        }
    }
}

/// [`Backend::rope`] over whole heads and over their leading dimensions.
pub fn rope<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(4);
    for (heads, head_dim, dims) in [(1, 4, 4), (3, 64, 64), (2, 64, 16), (4, 80, 32), (40, 128, 128)] {
        for spec in specs(dims) {
            for rows in [1, 3, 20] {
                let x = Array::random(random, rows, heads * head_dim);
                let angles = Array::random(random, rows, dims);
                let expected = rotated(&x, &angles, head_dim, &spec);
                check.rows((rows, heads, head_dim, &spec), rows, &expected, |part| {
                    backend.rope(&part.tensor(&x), &part.tensor(&angles), head_dim, &spec)
                });
            }
        }
    }
    let x = Array::random(random, 2, 64).upload(backend);
    let mut refused = |rows: usize, dims: usize, head_dim: usize, spec_dims: usize| {
        let angles = Array::random(random, rows, dims).upload(backend);
        let case = (rows, dims, head_dim, spec_dims);
        assert_refused(case, backend.rope(&x, &angles, head_dim, &fixed(spec_dims, 100.0)));
    };
    refused(3, 32, 32, 32);
    refused(1, 32, 32, 32);
    refused(2, 16, 32, 32);
    refused(2, 32, 24, 32);
    refused(2, 32, 48, 32);
    refused(2, 32, 0, 32);
    refused(2, 31, 32, 31);
    refused(2, 32, usize::MAX, 32);
}
