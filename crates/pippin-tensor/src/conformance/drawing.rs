//! Tokens drawn on the device, where it draws any: they are those that the host draws.

use std::sync::Arc;

use super::{
    array::{Array, Random, upload},
    check::Check,
};
use crate::{
    Backend, Drawn,
    sampling::{GenerateParameters, Sampler, Scratch, TokenMask},
};

fn sampler(parameters: GenerateParameters) -> Sampler {
    Sampler::new(Arc::new(parameters), Arc::from([3]), &[])
}

/// What the device draws from each row of logits; `None` where it leaves that to the host.
fn draw<B: Backend>(backend: &B, logits: &B::Tensor, samplers: &mut [Sampler]) -> Option<Drawn<B>> {
    let mut samplers: Vec<&mut Sampler> = samplers.iter_mut().collect();
    backend.sample(logits, &mut samplers).unwrap()
}

/// Whether the device draws tokens at all.
fn draws<B: Backend>(backend: &B) -> bool {
    let logits = upload(backend, [1, 2], &[0.0, 1.0]);
    let draws = draw(backend, &logits, &mut [sampler(GenerateParameters::greedy())]).is_some();
    if !draws {
        eprintln!("skipped: the {} backend draws no tokens", backend.name());
    }
    draws
}

/// Parameters that a device may have samplers for.
fn parameters() -> Vec<GenerateParameters> {
    let seeded = |seed: u64| GenerateParameters { seed: Some(seed), temperature: 0.8, ..Default::default() };
    vec![
        GenerateParameters::greedy(),
        GenerateParameters { logprobs: true, ..GenerateParameters::greedy() },
        seeded(1),
        GenerateParameters { logprobs: true, temperature: 1.5, ..seeded(2) },
        GenerateParameters { top_k: 5, ..seeded(3) },
        GenerateParameters { top_p: 0.7, ..seeded(4) },
        GenerateParameters { min_p: 0.1, ..seeded(5) },
        GenerateParameters { xtc_probability: 0.5, ..seeded(6) },
        GenerateParameters { logit_bias: [(7, 3.0), (0, -5.0)].into(), ..seeded(7) },
    ]
}

/// [`Backend::sample`], draw for draw, for rows with samplers of their own, and with masks.
pub fn sample<B: Backend>(backend: &B, tolerance: f64) {
    if !draws(backend) {
        return;
    }
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(90);
    let mut mask = TokenMask::none(50);
    for token in [1, 8, 30, 49] {
        mask.allow(token);
    }
    let mask = Arc::new(mask);
    for masked in [false, true] {
        for parameters in parameters() {
            let rows = 6;
            let mut samplers: Vec<Sampler> = (0..rows as u64)
                .map(|row| {
                    let seed = parameters.seed.map(|seed| 100 * seed + row);
                    let mut sampler = sampler(GenerateParameters { seed, ..parameters.clone() });
                    sampler.set_mask(masked.then(|| Arc::clone(&mask)));
                    sampler
                })
                .collect();
            let mut hosts = samplers.clone();
            let (mut first, mut found) = (Vec::new(), Vec::new());
            for step in 0..4 {
                // As the device has them: another rounding of the logits would be another draw.
                let logits = Array::random(random, rows, 50).operand(|v| 4.0 * v).upload(backend);
                let values = check.output(&logits).values;
                let Some(drawn) = draw(backend, &logits, &mut samplers) else {
                    assert_eq!(step, 0, "{parameters:?}: drawn once and then no more");
                    break;
                };
                found = backend.read_indices(&drawn.tokens).unwrap();
                assert_eq!(found.len(), rows);
                let logprobs = drawn.logprobs.map(|logprobs| check.output(&logprobs));
                assert_eq!(logprobs.as_ref().map(|l| l.shape), parameters.logprobs.then_some([rows, 1]));
                for (row, host) in hosts.iter_mut().enumerate() {
                    let mut values = values[row * 50..][..50].to_vec();
                    let sampled = host.sample(&mut values, &mut Scratch::default()).unwrap();
                    assert_eq!(
                        found[row], sampled.token,
                        "{parameters:?}, masked: {masked}, row {row}, step {step}"
                    );
                    if let Some(logprobs) = &logprobs {
                        let difference = f64::from((sampled.logprob.unwrap() - logprobs.values[row]).abs());
                        assert!(difference <= tolerance.max(1e-5) * 10.0, "{parameters:?}: {difference}");
                    }
                }
                if step == 0 {
                    first = found.clone();
                }
            }
            if parameters.seed.is_some() && !masked && !found.is_empty() {
                assert_ne!(first, found, "{parameters:?}: random numbers stand still");
            }
        }
    }
}

/// [`Backend::sample`] of one row is what it is among others.
pub fn draws_are_independent<B: Backend>(backend: &B, _tolerance: f64) {
    if !draws(backend) {
        return;
    }
    let random = &mut Random::new(91);
    for parameters in parameters() {
        let logits = Array::random(random, 9, 50).operand(|v| 4.0 * v);
        let samplers: Vec<Sampler> = (0..9)
            .map(|row| {
                sampler(GenerateParameters {
                    seed: parameters.seed.map(|seed| seed + row),
                    ..parameters.clone()
                })
            })
            .collect();
        let tokens = |rows: std::ops::Range<usize>| {
            let mut samplers = samplers[rows.clone()].to_vec();
            let drawn = draw(backend, &logits.rows_of(rows).upload(backend), &mut samplers)?;
            Some(backend.read_indices(&drawn.tokens).unwrap())
        };
        let Some(whole) = tokens(0..9) else { continue };
        for rows in [0..1, 8..9, 2..7] {
            assert_eq!(
                tokens(rows.clone()).as_deref(),
                Some(&whole[rows.clone()]),
                "{parameters:?}, rows {rows:?}"
            );
        }
    }
}

/// [`Backend::place`] and [`Backend::choose`].
pub fn fed_tokens<B: Backend>(backend: &B, _tolerance: f64) {
    if !draws(backend) {
        return;
    }
    let indices = |values: &[u32]| backend.indices(values).unwrap();
    let read = |indices: &B::Indices| backend.read_indices(indices).unwrap();
    let before = indices(&[10, 11, 12, 13]);
    let placed = backend.place(&before, &indices(&[2, 0]), &indices(&[99, 98])).unwrap();
    assert_eq!(read(&placed), [98, 11, 99, 13]);
    assert_eq!(read(&before), [10, 11, 12, 13]);
    assert_eq!(read(&backend.place(&before, &indices(&[]), &indices(&[])).unwrap()), [10, 11, 12, 13]);
    // A place that is none takes nothing.
    let placed = backend.place(&before, &indices(&[4, u32::MAX, 1]), &indices(&[1, 2, 3])).unwrap();
    assert_eq!(read(&placed), [10, 3, 12, 13]);

    let choice = indices(&[u32::MAX, 3, 0, 4]);
    let chosen = backend.choose(&choice, &before, &indices(&[1, 2, 3, 4])).unwrap();
    assert_eq!(read(&chosen), [1, 13, 10, 4]);
}
