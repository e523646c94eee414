//! Operations on rows: sums, norms, activations, rotations.

use super::reference::{Array, Random, assert_close};
use crate::{Activation, Backend, RopeFrequencies, RopeSpec, TensorError};

const SHAPES: [(usize, usize); 8] =
    [(1, 1), (1, 3), (2, 16), (3, 40), (5, 64), (1, 1000), (33, 96), (70, 512)];

/// [`Backend::add`], with a full second operand and with one row.
pub fn add<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(1);
    for (rows, columns) in SHAPES {
        let a = Array::random(random, rows, columns);
        for b in [Array::random(random, rows, columns), Array::random(random, 1, columns)] {
            let sum = backend.add(&a.upload(backend), &b.upload(backend)).unwrap();
            assert_close(backend, &sum, &a.add(&b), tolerance, &(rows, columns, b.rows));
        }
        let wrong = Array::random(random, rows + 1, columns).upload(backend);
        assert!(matches!(backend.add(&a.upload(backend), &wrong), Err(TensorError::Shape { .. })));
    }
}

/// [`Backend::gated`], for arguments far into both tails too.
pub fn gated<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(2);
    for (rows, columns) in SHAPES {
        for magnitude in [1.0, 8.0, 200.0] {
            let mut gate = Array::random(random, rows, columns);
            gate.values.iter_mut().for_each(|v| *v = f64::from((*v * magnitude) as f32));
            let up = Array::random(random, rows, columns);
            let result = backend.gated(&gate.upload(backend), &up.upload(backend), Activation::Silu).unwrap();
            assert_close(backend, &result, &gate.silu_mul(&up), tolerance, &(rows, columns, magnitude));
        }
    }
}

/// [`Backend::rms_norm`] over rows and over heads.
pub fn rms_norm<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(3);
    for (rows, columns) in SHAPES {
        for heads in [1, 2, 8] {
            if !columns.is_multiple_of(heads) {
                continue;
            }
            let x = Array::random(random, rows, columns);
            let weight = Array::random(random, 1, columns / heads);
            for eps in [1e-6, 1e-2] {
                let expected = x.rms_norm(&weight, f64::from(eps));
                let actual = backend.rms_norm(&x.upload(backend), &weight.upload(backend), eps).unwrap();
                assert_close(backend, &actual, &expected, tolerance, &(rows, columns, heads, eps));
            }
        }
    }
    let x = Array::random(random, 2, 10).upload(backend);
    let weight = Array::random(random, 1, 4).upload(backend);
    assert!(matches!(backend.rms_norm(&x, &weight, 1e-5), Err(TensorError::Shape { .. })));
}

fn specs(dims: usize) -> Vec<RopeSpec> {
    let fixed = RopeFrequencies::Fixed(
        (0..dims / 2).map(|i| 10_000f64.powf(-2.0 * i as f64 / dims as f64) as f32).collect(),
    );
    let dynamic = RopeFrequencies::Dynamic { base: 10_000.0, factor: 4.0, original_context: 100 };
    let mut specs = Vec::new();
    for frequencies in [fixed, dynamic] {
        for traditional in [false, true] {
            for scale in [1.0, 1.25] {
                specs.push(RopeSpec { dims, traditional, frequencies: frequencies.clone(), scale });
            }
        }
    }
    specs
}

/// The reference for [`Backend::rope_angles`].
pub(super) fn reference_angles(positions: &[u32], spec: &RopeSpec) -> Array {
    let pairs = spec.dims / 2;
    let mut values = Vec::new();
    for position in positions {
        let frequency = |pair: usize| match &spec.frequencies {
            RopeFrequencies::Fixed(frequencies) => f64::from(frequencies[pair]),
            RopeFrequencies::Dynamic { base, factor, original_context } => {
                let (factor, dims) = (f64::from(*factor), spec.dims as f64);
                let n = (f64::from(*position) + 1.0).max(*original_context as f64);
                let base = f64::from(*base)
                    * (factor * n / *original_context as f64 - (factor - 1.0)).powf(dims / (dims - 2.0));
                base.powf(-2.0 * pair as f64 / dims)
            }
        };
        let angle = |pair| f64::from(*position) * frequency(pair);
        values.extend((0..pairs).map(|pair| angle(pair).cos() * f64::from(spec.scale)));
        values.extend((0..pairs).map(|pair| angle(pair).sin() * f64::from(spec.scale)));
    }
    Array { rows: positions.len(), columns: spec.dims, values }
}

/// The reference for [`Backend::rope`].
pub(super) fn reference_rope(x: &Array, angles: &Array, head_dim: usize, spec: &RopeSpec) -> Array {
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

/// [`Backend::rope_angles`] at positions up to a thousand times the tolerance's reach: angles are products of `f32`.
pub fn rope_angles<B: Backend>(backend: &B, tolerance: f64) {
    for dims in [4, 64, 128] {
        for spec in specs(dims) {
            let positions = [0, 1, 2, 99, 100, 101, 1000];
            let angles = backend.rope_angles(&backend.indices(&positions).unwrap(), &spec).unwrap();
            // An angle of a thousand radians has an error of its own in `f32`: half a unit in the last place.
            let allowed = tolerance + 1000.0 * f64::from(f32::EPSILON);
            assert_close(backend, &angles, &reference_angles(&positions, &spec), allowed, &spec);
        }
    }
    let mut wrong = specs(64)[0].clone();
    wrong.dims = 62;
    assert!(backend.rope_angles(&backend.indices(&[0]).unwrap(), &wrong).is_err());
}

/// [`Backend::rope`] over whole heads and over their leading dimensions.
pub fn rope<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(4);
    for (heads, head_dim, dims) in [(1, 4, 4), (3, 64, 64), (2, 64, 16), (4, 80, 32), (40, 128, 128)] {
        for spec in specs(dims) {
            for rows in [1, 3, 20] {
                let x = Array::random(random, rows, heads * head_dim);
                let angles = Array::random(random, rows, dims);
                let expected = reference_rope(&x, &angles, head_dim, &spec);
                let actual =
                    backend.rope(&x.upload(backend), &angles.upload(backend), head_dim, &spec).unwrap();
                assert_close(backend, &actual, &expected, tolerance, &(rows, heads, head_dim, &spec));
            }
        }
    }
    let x = Array::random(random, 2, 64).upload(backend);
    let angles = Array::random(random, 3, 32).upload(backend);
    assert!(matches!(backend.rope(&x, &angles, 32, &specs(32)[0]), Err(TensorError::Shape { .. })));
}

/// [`Backend::select_rows`], repetitions and any order included.
pub fn select_rows<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(5);
    let x = Array::random(random, 9, 33);
    for rows in [vec![], vec![8], vec![3, 0, 3, 8]] {
        let values = rows.iter().flat_map(|row| x.row(*row as usize).to_vec()).collect();
        let expected = Array { rows: rows.len(), columns: 33, values };
        let actual = backend.select_rows(&x.upload(backend), &backend.indices(&rows).unwrap()).unwrap();
        assert_close(backend, &actual, &expected, tolerance, &rows);
    }
    let outside = backend.indices(&[1, 9]).unwrap();
    let error = backend.select_rows(&x.upload(backend), &outside).unwrap_err();
    assert!(matches!(error, TensorError::Index { index: 9, limit: 9, .. }), "{error}");
}
