//! The choice among experts.

use std::cmp::Ordering;

use super::{
    array::{Array, Random},
    check::{Check, Output, Rows, assert_refused},
};
use crate::{Backend, Result, RouterSpec, ScoreFunction};

/// Choices closer than this are not asked for: rounding may decide them.
const MARGIN: f64 = 1e-4;

/// The reference for [`Backend::route`] on one row: routes, their weights, and by how much the closest decision was made.
struct Choice {
    routes: Vec<usize>,
    weights: Vec<f64>,
    margin: f64,
}

/// The places of the `count` largest, the lower of equals first, and how far the last differs from what comes next.
fn largest(values: &[f64], count: usize) -> (Vec<usize>, f64) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].partial_cmp(&values[*a]).unwrap_or(Ordering::Equal).then(a.cmp(b)));
    let gaps = order.windows(2).take(count).map(|pair| values[pair[0]] - values[pair[1]]);
    // Equals have an order.
    let margin = gaps.filter(|gap| *gap > 0.0).fold(f64::INFINITY, f64::min);
    order.truncate(count);
    (order, margin)
}

fn choose(logits: &[f64], bias: Option<&Array>, spec: &RouterSpec) -> Choice {
    let scores: Vec<f64> = match spec.scores {
        ScoreFunction::Softmax => {
            let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits.iter().map(|logit| (logit - max).exp()).sum();
            logits.iter().map(|logit| (logit - max).exp() / sum).collect()
        }
        ScoreFunction::Sigmoid => logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect(),
        ScoreFunction::SqrtSoftplus => logits.iter().map(|logit| logit.exp().ln_1p().sqrt()).collect(),
        ScoreFunction::SparseMixer { .. } => logits.to_vec(),
    };
    let biased = |expert: usize| scores[expert] + bias.map_or(0.0, |bias| bias.values[expert]);
    let mut ranks: Vec<f64> = (0..spec.experts).map(biased).collect();
    let group_size = spec.experts / spec.groups;
    let groups: Vec<f64> = ranks
        .chunks(group_size)
        .map(|group| largest(group, spec.best_of_group).0.iter().map(|expert| group[*expert]).sum())
        .collect();
    let (allowed, group_margin) = largest(&groups, spec.top_groups);
    for (group, ranks) in ranks.chunks_mut(group_size).enumerate() {
        if !allowed.contains(&group) {
            ranks.fill(f64::NEG_INFINITY);
        }
    }
    let (routes, mut margin) = largest(&ranks, spec.top_k);
    let mut weights: Vec<f64> = routes.iter().map(|expert| scores[*expert]).collect();
    if let ScoreFunction::SparseMixer { jitter } = spec.scores {
        for (place, weight) in weights.iter_mut().enumerate() {
            let top = scores[routes[place]];
            let mut sum = 0.0;
            for (_, logit) in scores.iter().enumerate().filter(|(i, _)| !routes[..place].contains(i)) {
                let distance = (top - logit) / logit.abs().max(top);
                // Whether one is close is a decision, too. Zero is close to itself.
                if !distance.is_nan() {
                    margin = margin.min((distance - 2.0 * f64::from(jitter)).abs());
                }
                if distance.is_nan() || distance <= 2.0 * f64::from(jitter) {
                    sum += (logit - top).exp();
                }
            }
            *weight = 1.0 / sum;
        }
    }
    if spec.normalize {
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    weights.iter_mut().for_each(|weight| *weight *= f64::from(spec.scale));
    Choice { routes, weights, margin: margin.min(group_margin) }
}

fn specs() -> Vec<RouterSpec> {
    use ScoreFunction::{Sigmoid, Softmax, SparseMixer, SqrtSoftplus};
    let plain = |scores, experts, top_k| RouterSpec { scores, ..RouterSpec::softmax(experts, top_k) };
    let grouped = |spec: RouterSpec, groups, top_groups, best_of_group| RouterSpec {
        groups,
        top_groups,
        best_of_group,
        ..spec
    };
    let normalized = |spec: RouterSpec, scale| RouterSpec { normalize: true, scale, ..spec };
    let mixer = SparseMixer { jitter: 0.11 };
    let mut specs =
        vec![plain(mixer, 16, 2), plain(mixer, 8, 3), plain(SqrtSoftplus, 60, 4), plain(SqrtSoftplus, 8, 2)];
    for scores in [Softmax, Sigmoid] {
        specs.extend([
            plain(scores, 1, 1),
            plain(scores, 4, 4),
            plain(scores, 8, 2),
            normalized(plain(scores, 60, 4), 1.0),
            normalized(plain(scores, 128, 8), 2.5),
            RouterSpec { scale: 16.0, ..plain(scores, 33, 6) },
            grouped(plain(scores, 16, 3), 4, 2, 1),
            grouped(plain(scores, 16, 4), 4, 1, 2),
            grouped(plain(scores, 20, 4), 5, 5, 4),
            normalized(grouped(plain(scores, 256, 8), 8, 4, 2), 2.5),
        ]);
    }
    specs
}

/// Judges a router on these logits.
fn judge<B: Backend>(check: &Check<'_, B>, logits: &Array, bias: Option<&Array>, spec: &RouterSpec) {
    let choices: Vec<Choice> = (0..logits.rows).map(|row| choose(logits.row(row), bias, spec)).collect();
    let top_k = spec.top_k;
    let routes = Array::from_rows(logits.rows, top_k, |row| {
        choices[row].routes.iter().map(|expert| *expert as f64).collect()
    });
    let weights = Array::from_rows(logits.rows, top_k, |row| choices[row].weights.clone());
    let uploaded = bias.map(|bias| bias.upload(check.backend));
    let route = |part: &Rows<'_, B>| -> Result<Vec<Output>> {
        let (routes, weights) = check.backend.route(&part.tensor(logits), uploaded.as_ref(), spec)?;
        let routes = check.backend.read_indices(&routes)?;
        let values = routes.iter().map(|expert| *expert as f32).collect();
        Ok(vec![Output { shape: [routes.len() / top_k, top_k], values }, check.output(&weights)])
    };
    // Routes are right or wrong.
    let expected = [(&routes, 0.0), (&weights, check.tolerance)];
    check.row_outputs(&(spec, bias.is_some()), logits.rows, &expected, route);
}

/// [`Backend::route`]: all kinds of scores, with and without a bias, groups, normalisation.
pub fn route<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(50);
    for spec in specs() {
        for with_bias in [false, true] {
            // Biases of either sign: what is excluded must not win for having none.
            let bias = Array::random(random, 1, spec.experts).operand(|v| v - 0.5);
            let bias = with_bias.then_some(&bias);
            for rows in [1, 7, 40] {
                let row = |_| loop {
                    // Different logits on a grid, of which no two scores are alike.
                    let order = random.shuffled(spec.experts.max(64));
                    let middle = order.len() as f64 / 2.0;
                    let logits =
                        order[..spec.experts].iter().map(|place| (f64::from(*place) - middle) / 32.0);
                    let logits: Vec<f64> = logits.collect();
                    if choose(&logits, bias, &spec).margin > MARGIN {
                        break logits;
                    }
                };
                judge(&check, &Array::from_rows(rows, spec.experts, row), bias, &spec);
            }
        }
    }
}

/// [`Backend::route`] among equals: the lower expert, and the lower group, comes first.
pub fn ties<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    for spec in specs() {
        // All alike, and only few different numbers.
        let logits = Array::from_rows(5, spec.experts, |row| {
            (0..spec.experts)
                .map(|expert| [0.0, 1.0, -40.0, (expert % 3) as f64, (expert / 2 % 2) as f64][row])
                .collect()
        });
        judge(&check, &logits, None, &spec);
        judge(&check, &logits.rows_of(0..2), Some(&Array::filled(1, spec.experts, -2.0)), &spec);
    }
}

/// [`Backend::route`] refuses what contradicts itself, and comes to an end with logits that are not numbers.
pub fn routers_are_checked<B: Backend>(backend: &B, _tolerance: f64) {
    let tensor = |rows: usize, columns: usize| Array::filled(rows, columns, 0.5).upload(backend);
    let logits = tensor(3, 8);
    let good = RouterSpec { groups: 4, top_groups: 2, best_of_group: 2, ..RouterSpec::softmax(8, 3) };
    backend.route(&logits, Some(&tensor(1, 8)), &good).unwrap();
    assert_refused("experts", backend.route(&tensor(3, 7), None, &good));
    for bias in [tensor(1, 7), tensor(3, 8), tensor(8, 1)] {
        assert_refused("bias", backend.route(&logits, Some(&bias), &good));
    }
    for wrong in [
        RouterSpec { groups: 3, ..good },
        RouterSpec { groups: 0, ..good },
        RouterSpec { top_groups: 5, ..good },
        RouterSpec { top_groups: 0, ..good },
        RouterSpec { best_of_group: 3, ..good },
        RouterSpec { top_k: 9, ..good },
        // Of two groups of two there are only four.
        RouterSpec { top_k: 5, ..good },
        // Numbers may come from a model's file.
        RouterSpec { top_k: usize::MAX, ..good },
        RouterSpec { top_groups: usize::MAX, ..good },
        RouterSpec { best_of_group: usize::MAX, ..good },
        RouterSpec { groups: usize::MAX, ..good },
        RouterSpec { experts: usize::MAX - 3, ..good },
    ] {
        let result = backend.route(&logits, None, &wrong);
        assert!(result.is_err(), "{wrong:?}: not refused but {result:?}");
    }
    let others =
        [ScoreFunction::Sigmoid, ScoreFunction::SqrtSoftplus, ScoreFunction::SparseMixer { jitter: 0.1 }];
    for spec in others.map(|scores| RouterSpec { scores, ..good }).into_iter().chain([good]) {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut logits = Array::filled(3, 8, 0.0);
            logits.values[9] = bad;
            logits.values[16..].fill(bad);
            if let Ok((routes, weights)) = backend.route(&logits.upload(backend), None, &spec) {
                assert_eq!(backend.read_indices(&routes).unwrap().len(), 9);
                assert_eq!(backend.shape(&weights), [3, 3]);
            }
        }
    }
}
