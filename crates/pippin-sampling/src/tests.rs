//! Sampling against mlx-lm, and its statistics. `tools/sampling/fixture.py` writes the fixture.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::sampler::{Sampler, Scratch};
use super::{GenerateParameters, processors};

#[derive(Deserialize)]
struct Fixture {
    vectors: Vec<Vec<f32>>,
    filters: Vec<FilterCase>,
    processors: Vec<ProcessorCase>,
}

#[derive(Debug, Deserialize)]
struct FilterCase {
    logits: usize,
    temperature: f32,
    top_p: f32,
    top_k: usize,
    min_p: f32,
    min_tokens_to_keep: usize,
    xtc_probability: f32,
    xtc_threshold: f32,
    protected: Vec<u32>,
    kept: Vec<u32>,
    probabilities: Vec<f32>,
}

#[derive(Debug, Deserialize)]
struct ProcessorCase {
    history: Vec<u32>,
    logit_bias: BTreeMap<u32, f32>,
    repetition_penalty: Option<f32>,
    repetition_context_size: usize,
    presence_penalty: Option<f32>,
    presence_context_size: usize,
    frequency_penalty: Option<f32>,
    frequency_context_size: usize,
    expected: Vec<f32>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixture.json")).expect("a valid fixture")
}

#[test]
fn filters_are_those_of_mlx_lm() {
    let fixture = fixture();
    assert!(fixture.filters.len() > 200);
    for case in &fixture.filters {
        let parameters = GenerateParameters {
            temperature: case.temperature,
            top_p: case.top_p,
            top_k: case.top_k,
            min_p: case.min_p,
            min_tokens_to_keep: case.min_tokens_to_keep,
            xtc_probability: case.xtc_probability,
            xtc_threshold: case.xtc_threshold,
            ..GenerateParameters::default()
        };
        parameters.validate().expect("valid parameters");
        let mut sampler = Sampler::new(Arc::new(parameters), case.protected.clone().into(), &[]);
        let mut logits = fixture.vectors[case.logits].clone();
        let distribution = sampler.distribution(&mut logits, &mut Scratch::default());
        let kept: Vec<u32> = distribution.iter().map(|(token, _)| *token).collect();
        assert_eq!(kept, case.kept, "{case:?}");
        for ((token, found), expected) in distribution.iter().zip(&case.probabilities) {
            assert!(
                (found - expected).abs() < 2e-6,
                "token {token}: {found} instead of {expected} in {case:?}"
            );
        }
    }
}

#[test]
fn processors_are_those_of_mlx_lm() {
    let fixture = fixture();
    assert!(fixture.processors.len() > 50);
    for case in &fixture.processors {
        let parameters = GenerateParameters {
            logit_bias: case.logit_bias.clone(),
            repetition_penalty: case.repetition_penalty,
            repetition_context_size: case.repetition_context_size,
            presence_penalty: case.presence_penalty,
            presence_context_size: case.presence_context_size,
            frequency_penalty: case.frequency_penalty,
            frequency_context_size: case.frequency_context_size,
            ..GenerateParameters::default()
        };
        let mut logits = fixture.vectors[0].clone();
        processors::apply(&parameters, &case.history, &mut logits, &mut Vec::new());
        for (token, (found, expected)) in logits.iter().zip(&case.expected).enumerate() {
            assert!(
                (found - expected).abs() < 2e-5,
                "token {token}: {found} instead of {expected} in {case:?}"
            );
        }
    }
}

fn sample(parameters: GenerateParameters, logits: &[f32]) -> Option<u32> {
    let mut sampler = Sampler::new(Arc::new(parameters), Arc::default(), &[]);
    sampler.sample(&mut logits.to_vec(), &mut Scratch::default()).map(|sampled| sampled.token)
}

#[test]
fn greedy_takes_the_lowest_id_of_equals() {
    assert_eq!(sample(GenerateParameters::greedy(), &[0.0, 3.0, 1.0, 3.0]), Some(1));
}

#[test]
fn logits_that_are_not_numbers_are_refused() {
    for parameters in
        [GenerateParameters::greedy(), GenerateParameters { top_k: 2, ..GenerateParameters::default() }]
    {
        for bad in [[0.0, f32::NAN, 1.0], [f32::INFINITY, 0.0, 0.0], [f32::NEG_INFINITY; 3]] {
            assert_eq!(sample(parameters.clone(), &bad), None);
        }
        assert!(sample(parameters, &[f32::NEG_INFINITY, f32::NEG_INFINITY, 1.0]).is_some());
    }
}

#[test]
fn extreme_temperatures_are_harmless() {
    for temperature in [f32::MIN_POSITIVE, 1e-30, 1e-5] {
        let parameters = GenerateParameters { temperature, seed: Some(1), ..GenerateParameters::default() };
        assert_eq!(sample(parameters.clone(), &[1.0, 2.0, -300.0]), Some(1), "{temperature}");
        let parameters = GenerateParameters { top_p: 0.99, ..parameters };
        assert_eq!(sample(parameters, &[1.0, 2.0, -300.0]), Some(1), "{temperature}");
    }
    let parameters =
        GenerateParameters { temperature: f32::MAX, seed: Some(1), ..GenerateParameters::default() };
    assert!(sample(parameters, &[1.0, 2.0, -300.0]).is_some());
}

#[test]
fn logprobs_are_those_of_the_processed_logits() {
    let parameters = GenerateParameters {
        logprobs: true,
        logit_bias: BTreeMap::from([(0, 100.0)]),
        ..GenerateParameters::greedy()
    };
    let mut sampler = Sampler::new(Arc::new(parameters), Arc::default(), &[]);
    let mut logits = [-100.0 + 2f32.ln(), 0.0, 0.0];
    let sampled = sampler.sample(&mut logits, &mut Scratch::default()).expect("finite");
    assert_eq!(sampled.token, 0);
    assert!((sampled.logprob.expect("asked for") - 0.5f32.ln()).abs() < 1e-5);
    let score = super::log_probability(&[2f32.ln(), 0.0, 0.0], 1).expect("finite");
    assert!((score - 0.25f32.ln()).abs() < 1e-6);
    assert_eq!(super::log_probability(&[0.0], 1), None);
    assert_eq!(super::log_probability(&[f32::NAN], 0), None);
}

/// With a fixed seed this is no gamble: the counts are what they are, and they are near the probabilities.
#[test]
fn draws_follow_the_distribution() {
    let probabilities = [0.5f32, 0.25, 0.125, 0.0625, 0.0625];
    let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
    for (parameters, expected) in [
        (
            GenerateParameters { temperature: 1.0, ..Default::default() },
            vec![0.5, 0.25, 0.125, 0.0625, 0.0625],
        ),
        (GenerateParameters { temperature: 1.0, top_k: 2, ..Default::default() }, vec![2.0 / 3.0, 1.0 / 3.0]),
        // At half the temperature the squares of the probabilities count.
        (GenerateParameters { temperature: 0.5, top_k: 2, ..Default::default() }, vec![0.8, 0.2]),
        // XTC strikes every other time, and leaves the least likely of the tokens above the threshold.
        (
            GenerateParameters {
                temperature: 1.0,
                top_k: 3,
                xtc_probability: 0.5,
                xtc_threshold: 0.2,
                ..Default::default()
            },
            vec![0.5 * 4.0 / 7.0, 0.5 * 2.0 / 7.0 + 0.5 * 4.0 / 7.0, 0.5 / 7.0 + 0.5 * 2.0 / 7.0, 0.5 / 7.0],
        ),
    ] {
        let parameters = GenerateParameters { seed: Some(11), ..parameters };
        let mut sampler = Sampler::new(Arc::new(parameters.clone()), Arc::default(), &[]);
        let mut scratch = Scratch::default();
        let mut counts = vec![0u32; logits.len()];
        const DRAWS: u32 = 40_000;
        for _ in 0..DRAWS {
            let sampled = sampler.sample(&mut logits.clone(), &mut scratch).expect("finite");
            counts[sampled.token as usize] += 1;
        }
        for (token, count) in counts.iter().enumerate() {
            let expected = expected.get(token).copied().unwrap_or(0.0);
            let found = f64::from(*count) / f64::from(DRAWS);
            // Ties of the last two tokens: XTC's top-k keeps the first.
            assert!(
                (found - expected).abs() < 0.01,
                "token {token}: {found} instead of {expected}, {parameters:?}"
            );
        }
    }
}

#[test]
fn the_same_seed_draws_the_same_tokens() {
    let logits: Vec<f32> = (0..1000).map(|i| ((i * 37) % 101) as f32 / 20.0).collect();
    let draws = |seed, top_p| -> Vec<u32> {
        let parameters = GenerateParameters { seed, top_p, temperature: 1.0, ..Default::default() };
        let mut sampler = Sampler::new(Arc::new(parameters), Arc::default(), &[]);
        let mut scratch = Scratch::default();
        (0..20).map(|_| sampler.sample(&mut logits.clone(), &mut scratch).expect("finite").token).collect()
    };
    for top_p in [1.0, 0.8] {
        assert_eq!(draws(Some(5), top_p), draws(Some(5), top_p));
        assert_ne!(draws(Some(5), top_p), draws(Some(6), top_p));
        assert_ne!(draws(None, top_p), draws(None, top_p));
    }
}

#[test]
fn penalties_see_as_much_of_the_past_as_their_windows_say() {
    let parameters = Arc::new(GenerateParameters {
        repetition_penalty: Some(2.0),
        repetition_context_size: 3,
        frequency_penalty: Some(0.1),
        frequency_context_size: 5,
        ..GenerateParameters::greedy()
    });
    let tokens: Vec<u32> = (0..40).map(|i| i * i % 7).collect();
    let logits: Vec<f32> = (0..7).map(|i| 1.0 + i as f32 / 50.0).collect();
    let mut scratch = Scratch::default();
    // One that has seen all of it draws what a new one draws for the same past.
    let mut going = Sampler::new(Arc::clone(&parameters), Arc::default(), &[]);
    for (length, token) in tokens.iter().enumerate() {
        let mut new = Sampler::new(Arc::clone(&parameters), Arc::default(), &tokens[..length]);
        let expected = new.sample(&mut logits.clone(), &mut scratch).expect("finite");
        let sampled = going.clone().sample(&mut logits.clone(), &mut scratch).expect("finite");
        assert_eq!(sampled, expected, "after {length}");
        going.accept(*token);
    }
}

#[test]
fn a_sampler_that_skips_goes_on_as_one_that_has_drawn() {
    for xtc_probability in [0.0, 0.5] {
        let parameters = Arc::new(GenerateParameters {
            temperature: 1.0,
            seed: Some(3),
            xtc_probability,
            ..Default::default()
        });
        let mut scratch = Scratch::default();
        let mut sampler = Sampler::new(Arc::clone(&parameters), Arc::default(), &[]);
        let mut draw =
            |sampler: &mut Sampler| sampler.sample(&mut [0.0; 50], &mut scratch).expect("finite").token;
        let drawn: Vec<u32> = (0..20).map(|_| draw(&mut sampler)).collect();
        let mut resumed = Sampler::new(parameters, Arc::default(), &drawn[..12]);
        resumed.skip(12);
        let rest: Vec<u32> = (0..8).map(|_| draw(&mut resumed)).collect();
        assert_eq!(rest, drawn[12..]);
    }
}

#[test]
fn a_mask_comes_before_everything_else() {
    let mut mask = super::TokenMask::none(3);
    mask.allow(2);
    let mut sampler = Sampler::new(Arc::new(GenerateParameters::greedy()), Arc::default(), &[]);
    sampler.set_mask(Some(Arc::new(mask)));
    let scratch = &mut Scratch::default();
    assert_eq!(sampler.sample(&mut [5.0, 4.0, 1.0], scratch).expect("one is left").token, 2);
    sampler.set_mask(Some(Arc::new(super::TokenMask::none(3))));
    assert_eq!(sampler.sample(&mut [5.0, 4.0, 1.0], scratch), None);
}

#[test]
fn the_likeliest_tokens_are_reported_whichever_is_drawn() {
    let logits = [1.0, 3.0, -2.0, 3.0, f32::NEG_INFINITY, 2.0];
    let total: f32 = logits.iter().map(|logit: &f32| logit.exp()).sum();
    for (top_logprobs, expected) in [(0, &[][..]), (3, &[1, 3, 5]), (20, &[1, 3, 5, 0, 2])] {
        for parameters in [
            GenerateParameters::greedy(),
            GenerateParameters { temperature: 2.0, top_p: 0.3, seed: Some(3), ..Default::default() },
            GenerateParameters { temperature: 2.0, seed: Some(4), ..Default::default() },
        ] {
            let parameters = GenerateParameters { logprobs: true, top_logprobs, ..parameters };
            parameters.validate().expect("valid");
            let mut sampler = Sampler::new(Arc::new(parameters.clone()), Arc::default(), &[]);
            let mut scratch = Scratch::default();
            let sampled = sampler.sample(&mut logits.clone(), &mut scratch).expect("finite");
            let tokens: Vec<u32> = sampled.top_logprobs.iter().map(|top| top.token).collect();
            assert_eq!(tokens, expected);
            for top in &sampled.top_logprobs {
                let logprob = logits[top.token as usize] - total.ln();
                assert!((top.logprob - logprob).abs() < 1e-5, "{top:?} instead of {logprob}");
                if top.token == sampled.token {
                    assert_eq!(Some(top.logprob), sampled.logprob);
                }
            }
            // What is drawn is the same as without.
            let plain = GenerateParameters { top_logprobs: 0, ..parameters };
            assert_eq!(sample(plain, &logits), Some(sampled.token));
            let score = super::score(&logits, 5, top_logprobs, &mut scratch).expect("finite");
            assert_eq!(score.top_logprobs.len(), expected.len());
            assert!((score.logprob - (2.0 - total.ln())).abs() < 1e-5);
        }
    }
    assert_eq!(super::score(&logits, 9, 3, &mut Scratch::default()), None);
}

#[test]
fn no_penalty_makes_a_logit_infinite() {
    for parameters in [
        GenerateParameters { frequency_penalty: Some(-3e38), ..GenerateParameters::greedy() },
        GenerateParameters {
            presence_penalty: Some(3e38),
            frequency_penalty: Some(3e38),
            ..Default::default()
        },
        GenerateParameters { repetition_penalty: Some(1e-38), ..GenerateParameters::greedy() },
        GenerateParameters { repetition_penalty: Some(3e38), ..Default::default() },
        GenerateParameters { logit_bias: BTreeMap::from([(0, f32::MAX)]), ..Default::default() },
    ] {
        let mut sampler = Sampler::new(Arc::new(parameters.clone()), [].into(), &[0, 0, 0, 1, 2]);
        let mut logits = [1e38, -1e38, 3.0];
        let sampled = sampler.sample(&mut logits, &mut Scratch::default());
        assert!(sampled.is_some(), "{parameters:?}");
    }
}

/// What a device is told to change is what is changed here.
#[test]
fn changes_are_those_that_are_made() {
    let change = |logit: &mut f32, changed: f32| {
        *logit = if logit.is_finite() { changed.clamp(f32::MIN, f32::MAX) } else { changed };
    };
    let mut next = 1u32;
    let mut random = move |limit: u32| {
        next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (next >> 8) % limit
    };
    for case in 0..200 {
        let mut penalty = |scale: f32| match random(3) {
            0 => None,
            1 => Some(0.0),
            _ => Some(random(50) as f32 * scale),
        };
        let parameters = GenerateParameters {
            repetition_penalty: penalty(0.1),
            presence_penalty: penalty(-1.0),
            frequency_penalty: penalty(if case % 10 == 0 { 1e37 } else { 0.5 }),
            repetition_context_size: random(9) as usize,
            presence_context_size: random(9) as usize,
            frequency_context_size: random(9) as usize,
            logit_bias: (0..random(5)).map(|_| (random(60), random(9) as f32 - 4.0)).collect(),
            ..GenerateParameters::greedy()
        };
        // Some are tokens that the logits do not have.
        let history: Vec<u32> = (0..random(12)).map(|_| random(55)).collect();
        let mut logits: Vec<f32> = (0..50).map(|_| random(2000) as f32 / 100.0 - 10.0).collect();
        logits[7] = f32::NEG_INFINITY;
        let mut expected = logits.clone();
        super::processors::apply(&parameters, &history, &mut expected, &mut Vec::new());
        let sampler = Sampler::new(Arc::new(parameters.clone()), Arc::default(), &history);
        assert_eq!(
            sampler.looks_back(),
            [parameters.repetition_penalty, parameters.presence_penalty, parameters.frequency_penalty]
                .iter()
                .any(Option::is_some)
        );
        let changes = sampler.changes(logits.len());
        assert!(changes.is_sorted_by(|a, b| a.token < b.token), "{changes:?}");
        for super::Change { token, bias, repeats, is_present, times } in changes {
            let logit = &mut logits[token as usize];
            if let Some(bias) = bias {
                change(logit, *logit + bias);
            }
            if repeats {
                let penalty = parameters.repetition_penalty.expect("active");
                change(logit, if *logit < 0.0 { *logit * penalty } else { *logit / penalty });
            }
            if is_present {
                change(logit, *logit - parameters.presence_penalty.expect("active"));
            }
            for _ in 0..times {
                change(logit, *logit - parameters.frequency_penalty.expect("active"));
            }
        }
        assert_eq!(logits, expected, "{parameters:?} after {history:?}");
    }
}

/// A device that is given a token's random numbers leaves the sampler where a draw leaves it.
#[test]
fn numbers_are_those_of_a_draw() {
    for xtc_probability in [0.0, 0.5] {
        for temperature in [0.0, 1.0] {
            let parameters =
                GenerateParameters { temperature, xtc_probability, seed: Some(5), ..Default::default() };
            let mut sampler = Sampler::new(Arc::new(parameters), Arc::default(), &[]);
            let mut device = sampler.clone();
            let mut struck = 0;
            for _ in 0..50 {
                let numbers = device.numbers();
                struck += u32::from(numbers.strikes);
                // Of equal weights the random number says which is drawn.
                let sampled = sampler.sample(&mut [0.0; 64], &mut Scratch::default()).expect("finite");
                assert_eq!(sampled.token, (numbers.uniform * 64.0) as u32);
            }
            assert_eq!((10..40).contains(&struck), temperature > 0.0 && xtc_probability > 0.0, "{struck}");
        }
    }
}

/// Zeros of either sign are equally likely, and of equals the lowest id comes first.
#[test]
fn the_sign_of_a_zero_makes_no_difference() {
    for seed in 0..30 {
        for (top_p, top_k) in [(0.01, 0), (0.9, 0), (1.0, 2), (1.0, 1), (0.5, 3)] {
            let parameters =
                GenerateParameters { temperature: 1.0, top_p, top_k, seed: Some(seed), ..Default::default() };
            let plain = sample(parameters.clone(), &[0.0, 0.0, 0.0, -1.0]);
            assert_eq!(sample(parameters.clone(), &[-0.0, 0.0, 0.0, -1.0]), plain, "{parameters:?}");
            assert_eq!(sample(parameters.clone(), &[-0.0, -0.0, 0.0, -1.0]), plain, "{parameters:?}");
        }
    }
}
