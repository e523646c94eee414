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

/// What has come before: some tokens more than once, one that hardly any vocabulary has.
const HISTORY: [u32; 9] = [7, 30, 7, 2, 1 << 20, 11, 30, 7, 4];

fn sampler(parameters: GenerateParameters) -> Sampler {
    Sampler::new(Arc::new(parameters), Arc::from([3, 12]), &HISTORY)
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

fn seeded(seed: u64) -> GenerateParameters {
    GenerateParameters { seed: Some(seed), temperature: 0.8, ..Default::default() }
}

/// Parameters that a device may have samplers for.
fn parameters() -> Vec<GenerateParameters> {
    let greedy = GenerateParameters::greedy;
    let penalties = |parameters: GenerateParameters| GenerateParameters {
        repetition_penalty: Some(1.4),
        presence_penalty: Some(0.5),
        frequency_penalty: Some(-0.25),
        frequency_context_size: 4,
        ..parameters
    };
    vec![
        greedy(),
        GenerateParameters { logprobs: true, ..greedy() },
        seeded(1),
        GenerateParameters { logprobs: true, temperature: 1.5, ..seeded(2) },
        GenerateParameters { top_k: 5, ..seeded(3) },
        GenerateParameters { top_p: 0.7, ..seeded(4) },
        GenerateParameters { min_p: 0.1, ..seeded(5) },
        GenerateParameters { xtc_probability: 0.5, ..seeded(6) },
        GenerateParameters { logit_bias: [(7, 3.0), (0, -5.0)].into(), ..seeded(7) },
        penalties(greedy()),
        penalties(GenerateParameters {
            top_p: 0.9,
            logprobs: true,
            logit_bias: [(7, 3.0), (u32::MAX, 1.0)].into(),
            ..seeded(8)
        }),
        GenerateParameters { top_k: 20, top_p: 0.95, min_p: 0.01, logprobs: true, ..seeded(9) },
        GenerateParameters { min_p: 0.3, min_tokens_to_keep: 3, ..seeded(10) },
        GenerateParameters { min_p: 0.02, xtc_probability: 0.7, xtc_threshold: 0.05, ..seeded(11) },
        GenerateParameters {
            top_p: 0.95,
            top_k: 4,
            xtc_probability: 0.7,
            xtc_threshold: 0.1,
            logprobs: true,
            ..seeded(12)
        },
        GenerateParameters { temperature: 1e-3, ..seeded(13) },
        GenerateParameters { temperature: 1e6, top_p: 0.999, ..seeded(14) },
        GenerateParameters { top_k: 1500, ..seeded(15) },
        GenerateParameters { top_k: 1500, min_p: 0.05, top_p: 0.99, ..seeded(16) },
        GenerateParameters { top_k: 1500, min_p: 0.05, ..seeded(17) },
        GenerateParameters { top_p: 0.9, min_p: 0.2, min_tokens_to_keep: 4, ..seeded(18) },
    ]
}

/// A mask of a few tokens, and one of nearly all.
fn masks(random: &mut Random, vocab: usize) -> Vec<Arc<TokenMask>> {
    let mut few = TokenMask::none(vocab);
    for token in [1, 8, 30, 49].into_iter().chain(random.indices(40, vocab)) {
        few.allow(token);
    }
    // It speaks of fewer tokens than there are.
    let vocab = vocab.max(40) - 3;
    let mut most = TokenMask::from_words(vocab, &vec![u32::MAX; vocab.div_ceil(32)]);
    random.indices(vocab / 8, vocab).into_iter().for_each(|token| most.exclude(token));
    vec![Arc::new(few), Arc::new(most)]
}

/// Draws from some rows, each with a sampler of its own, as often as is said, and compares with what the host draws.
/// Returns the tokens of each time, none where that is left to the host.
fn compare<B: Backend>(
    check: &Check<'_, B>,
    samplers: Vec<Sampler>,
    logits: &mut dyn FnMut() -> Array,
    times: usize,
    case: &str,
) -> Vec<Vec<u32>> {
    let backend = check.backend;
    let (mut hosts, mut samplers) = (samplers.clone(), samplers);
    let mut found: Vec<Vec<u32>> = Vec::new();
    for time in 0..times {
        // As the device has them: another rounding of the logits would be another draw.
        let logits = logits().upload(backend);
        let values = check.output(&logits).values;
        let vocab = values.len() / samplers.len();
        let Some(drawn) = draw(backend, &logits, &mut samplers) else {
            assert_eq!(time, 0, "{case}: drawn once and then no more");
            return found;
        };
        let tokens = backend.read_indices(&drawn.tokens).unwrap();
        assert_eq!(tokens.len(), samplers.len());
        let reports = samplers.iter().any(|sampler| sampler.parameters().logprobs);
        let logprobs = drawn.logprobs.map(|logprobs| check.output(&logprobs));
        let shape = logprobs.as_ref().map(|logprobs| logprobs.shape);
        assert_eq!(shape, reports.then_some([samplers.len(), 1]), "{case}");
        for (row, host) in hosts.iter_mut().enumerate() {
            let mut own = values[row * vocab..][..vocab].to_vec();
            let sampled = host.sample(&mut own, &mut Scratch::default());
            let expected = sampled.as_ref().map_or(u32::MAX, |sampled| sampled.token);
            let parameters = host.parameters();
            assert_eq!(
                tokens[row], expected,
                "{case}, {vocab} tokens, row {row}, time {time}, {parameters:?}"
            );
            if let (Some(logprobs), Some(expected)) = (&logprobs, sampled.and_then(|sampled| sampled.logprob))
            {
                let difference = f64::from((expected - logprobs.values[row]).abs());
                assert!(
                    difference <= check.tolerance.max(1e-5) * 10.0,
                    "{case}: {difference}, {parameters:?}"
                );
            }
            samplers[row].accept(tokens[row]);
        }
        // The logits stay as they are.
        assert!(check.output(&logits).values.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
        found.push(tokens);
    }
    found
}

/// [`Backend::sample`], draw for draw, for rows with samplers of their own, and with masks.
pub fn sample<B: Backend>(backend: &B, tolerance: f64) {
    if !draws(backend) {
        return;
    }
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(90);
    let masks = masks(random, 50);
    for mask in [None, Some(&masks[0]), Some(&masks[1])] {
        for parameters in parameters() {
            let rows = 6;
            let samplers = (0..rows as u64).map(|row| {
                let seed = parameters.seed.map(|seed| 100 * seed + row);
                let mut sampler = sampler(GenerateParameters { seed, ..parameters.clone() });
                sampler.set_mask(mask.cloned());
                sampler
            });
            let samplers = samplers.collect();
            let mut logits = || Array::random(random, rows, 50).operand(|v| 4.0 * v);
            let found = compare(&check, samplers, &mut logits, 4, "one kind");
            if let ([first, .., last], true, None) = (&found[..], parameters.seed.is_some(), mask) {
                assert_ne!(first, last, "{parameters:?}: random numbers stand still");
            }
        }
    }
}

/// [`Backend::sample`] from vocabularies of several sizes, of logits of several kinds, with all parameters in one call.
pub fn large_vocabularies<B: Backend>(backend: &B, tolerance: f64) {
    if !draws(backend) {
        return;
    }
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(93);
    let zeros = upload(backend, [1, 2], &[0.0; 2]);
    // A device may lack samplers for some parameters, and draws nothing of a call then.
    let is_known =
        |parameters: &GenerateParameters| draw(backend, &zeros, &mut [sampler(parameters.clone())]).is_some();
    let known: Vec<GenerateParameters> = parameters().into_iter().filter(is_known).collect();
    let rows = known.len();
    for (vocab, times) in [(1, 1), (2, 2), (1023, 2), (1024, 2), (5000, 3), (40_000, 2), (151_936, 1)] {
        let masks = masks(random, vocab);
        // Nearly alike, as a model has them, with many that are equal, all equal.
        for kind in ["flat", "steep", "steps", "equal", "far below"] {
            let f = |v: f64| match kind {
                "flat" => v,
                "steep" => 20.0 * v * v.abs() * v.abs(),
                "steps" => (5.0 * v).round(),
                "equal" => 1.5,
                _ if v > 0.9 => v,
                _ => v - 200.0,
            };
            for masked in [false, true] {
                let samplers = known.iter().enumerate().map(|(number, parameters)| {
                    let seed = parameters.seed.map(|seed| seed + 1000 * vocab as u64);
                    let mut sampler = sampler(GenerateParameters { seed, ..parameters.clone() });
                    if masked {
                        sampler.set_mask(masks.get(number % 3).cloned());
                    }
                    sampler
                });
                let mut logits = || Array::random(random, rows, vocab).operand(f);
                let found = compare(&check, samplers.collect(), &mut logits, times, kind);
                assert_eq!(found.len(), times, "{kind}: each alone, but not together");
            }
        }
    }
}

/// Any parameters that requests may have, the unlikely ones more often than in life.
fn any_parameters(random: &mut Random) -> GenerateParameters {
    let mut one_of = |values: &[f32]| values[random.below(values.len())];
    let parameters = GenerateParameters {
        temperature: one_of(&[0.0, 1e-30, 0.1, 0.7, 1.0, 1.0, 3.0, 1e38]),
        top_p: one_of(&[1e-40, 0.1, 0.5, 0.9, 0.999, 1.0, 1.0, 1.0]),
        min_p: one_of(&[0.0, 0.0, 0.0, 0.01, 0.1, 0.5, 1.0]),
        xtc_probability: one_of(&[0.0, 0.0, 0.0, 0.5, 1.0]),
        xtc_threshold: one_of(&[0.0, 0.02, 0.1, 0.5]),
        repetition_penalty: Some(one_of(&[0.0, 0.5, 1.0, 1.3, 1e38])),
        presence_penalty: Some(one_of(&[-1.0, 0.0, 0.7, 3e38])),
        frequency_penalty: Some(one_of(&[-3e38, 0.0, 0.1, 1.0])),
        ..Default::default()
    };
    let [below, small] = [300, 10].map(|limit| random.below(limit));
    GenerateParameters {
        top_k: [0, 1, small, below, 299, 300, 2000][random.below(7)],
        min_tokens_to_keep: [1, 1, 2, small + 1, 400][random.below(5)],
        repetition_context_size: random.below(4),
        frequency_context_size: random.below(10),
        logit_bias: random.indices(small, 320).into_iter().map(|token| (token, random.value())).collect(),
        logprobs: random.below(2) == 0,
        seed: Some(random.bits()),
        ..parameters
    }
}

/// [`Backend::sample`] with any parameters.
pub fn any_draws<B: Backend>(backend: &B, tolerance: f64) {
    if !draws(backend) {
        return;
    }
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(96);
    let masks = masks(random, 300);
    for case in 0..300 {
        let mut sampler = sampler(any_parameters(random));
        sampler.set_mask(masks.get(random.below(6)).cloned());
        // From nearly alike to one that is all but certain.
        let scale = f64::from(1_u32 << (case % 6));
        let mut logits = || Array::random(random, 1, 300).operand(|v| scale * v);
        compare(&check, vec![sampler], &mut logits, 3, "any parameters");
    }
}

/// [`Backend::sample`] from logits that are no numbers, or infinite: no token, and the other rows' are what they are.
pub fn logits_without_maximum<B: Backend>(backend: &B, tolerance: f64) {
    if !draws(backend) {
        return;
    }
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(94);
    for parameters in parameters() {
        for vocab in [50, 3000] {
            let logits = Array::random(random, 6, vocab).map_rows(|row, values| {
                let mut values = values.to_vec();
                match row {
                    0 => values[vocab - 7] = f64::NAN,
                    2 => values[9] = f64::INFINITY,
                    3 => values.fill(f64::NEG_INFINITY),
                    4 => values[1..vocab - 1].fill(f64::NEG_INFINITY),
                    _ => {}
                }
                values
            });
            let samplers = (0..6).map(|row| {
                let seed = parameters.seed.map(|seed| seed + row);
                sampler(GenerateParameters { seed, ..parameters.clone() })
            });
            let found = compare(&check, samplers.collect(), &mut || logits.clone(), 1, "no numbers");
            if let Some(tokens) = found.first() {
                assert_eq!([tokens[0], tokens[2], tokens[3]], [u32::MAX; 3]);
                assert!([tokens[1], tokens[4], tokens[5]].iter().all(|token| *token < vocab as u32));
            }
        }
    }
    // A mask that allows nothing.
    let mut none = sampler(GenerateParameters::greedy());
    none.set_mask(Some(Arc::new(TokenMask::none(50))));
    compare(&check, vec![none], &mut || Array::random(random, 1, 50), 1, "nothing allowed");
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

/// [`Backend::sample`] several times before anything is read: what comes later changes nothing that came before.
pub fn draws_are_read_late<B: Backend>(backend: &B, _tolerance: f64) {
    if !draws(backend) {
        return;
    }
    let random = &mut Random::new(95);
    let parameters = GenerateParameters { logprobs: true, top_p: 0.9, ..seeded(3) };
    let (mut device, mut host) = (sampler(parameters.clone()), sampler(parameters));
    let mut expected = Vec::new();
    let drawn: Vec<Drawn<B>> = (0..5)
        .map(|_| {
            let values = Array::random(random, 1, 300).operand(|v| 6.0 * v);
            let logits = values.upload(backend);
            let mut values = backend.read(&logits).unwrap();
            expected.push(host.sample(&mut values, &mut Scratch::default()).unwrap());
            draw(backend, &logits, std::slice::from_mut(&mut device)).unwrap()
        })
        .collect();
    for (drawn, expected) in drawn.iter().zip(&expected) {
        // Once more is no other.
        for _ in 0..2 {
            assert_eq!(backend.read_indices(&drawn.tokens).unwrap(), [expected.token]);
            let logprob = backend.read(drawn.logprobs.as_ref().unwrap()).unwrap()[0];
            assert!((logprob - expected.logprob.unwrap()).abs() < 1e-4);
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

    // Tokens that the device has drawn, of more slots than a block of threads has.
    let many: Vec<u32> = (0..700).collect();
    let logits = upload(backend, [3, 4], &[0.0, 1.0, 0.0, 0.0, 2.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 3.0]);
    let mut samplers = vec![sampler(GenerateParameters::greedy()); 3];
    let drawn = draw(backend, &logits, &mut samplers).unwrap();
    let placed = backend.place(&indices(&many), &indices(&[5, 699, 300]), &drawn.tokens).unwrap();
    let chosen = backend.choose(&indices(&many), &placed, &indices(&many)).unwrap();
    let mut expected = many;
    (expected[5], expected[699], expected[300]) = (1, 0, 3);
    assert_eq!(read(&chosen), expected);
}
