//! The choice among experts.

use pippin_tensor::{Result, RouterSpec, ScoreFunction, TensorError};

use crate::{CpuBackend, CpuIndices, CpuTensor, shape_of};

impl CpuBackend {
    pub(crate) fn run_route(
        &self,
        logits: &CpuTensor,
        bias: Option<&CpuTensor>,
        spec: &RouterSpec,
    ) -> Result<(CpuIndices, CpuTensor)> {
        check(logits, bias, spec)?;
        let (rows, top_k) = (logits.rows, spec.top_k);
        let mut routes = Vec::with_capacity(rows * top_k);
        let mut weights = self.buffer(rows * top_k)?;
        let mut scores = vec![0.0; spec.experts];
        let mut ranks = vec![0.0; spec.experts];
        for row in 0..rows {
            score(logits.row(row), spec.scores, &mut scores);
            ranks.copy_from_slice(&scores);
            if let Some(bias) = bias {
                ranks.iter_mut().zip(bias.values()).for_each(|(rank, bias)| *rank += bias);
            }
            if spec.top_groups < spec.groups {
                exclude_groups(&mut ranks, spec);
            }
            let chosen = best(&ranks, top_k);
            let weights = &mut weights[row * top_k..][..top_k];
            match spec.scores {
                ScoreFunction::SparseMixer { jitter } => mix_sparsely(&mut scores, &chosen, jitter, weights),
                _ => weights.iter_mut().zip(&chosen).for_each(|(weight, expert)| *weight = scores[*expert]),
            }
            let sum: f32 = weights.iter().sum();
            let factor = if spec.normalize { spec.scale / sum } else { spec.scale };
            weights.iter_mut().for_each(|weight| *weight *= factor);
            routes.extend(chosen.iter().map(|expert| *expert as u32));
        }
        Ok((CpuIndices::new(&routes), CpuTensor::new(rows, top_k, weights)))
    }
}

fn check(logits: &CpuTensor, bias: Option<&CpuTensor>, spec: &RouterSpec) -> Result<()> {
    let &RouterSpec { experts, top_k, groups, top_groups, best_of_group, .. } = spec;
    let size = experts.checked_div(groups).filter(|size| size * groups == experts).unwrap_or(0);
    let possible = (1..=groups).contains(&top_groups)
        && (1..=size).contains(&best_of_group)
        && (1..=size * top_groups).contains(&top_k);
    if !possible {
        return Err(TensorError::shape("route", "a choice that can be made", format!("{spec:?}")));
    }
    if logits.columns != experts {
        return Err(TensorError::shape("route", format!("[_, {experts}]"), shape_of(logits)));
    }
    match bias {
        Some(bias) if bias.rows != 1 || bias.columns != experts => {
            Err(TensorError::shape("route", format!("a bias of [1, {experts}]"), shape_of(bias)))
        }
        _ => Ok(()),
    }
}

fn score(logits: &[f32], function: ScoreFunction, scores: &mut [f32]) {
    match function {
        ScoreFunction::Sigmoid => {
            for (score, logit) in scores.iter_mut().zip(logits) {
                *score = 1.0 / (1.0 + (-logit).exp());
            }
        }
        ScoreFunction::SqrtSoftplus => {
            for (score, logit) in scores.iter_mut().zip(logits) {
                // Without overflow, and without hiding a NaN.
                *score = (logit.max(0.0) + (-logit.abs()).exp().ln_1p() + 0.0 * logit).sqrt();
            }
        }
        ScoreFunction::SparseMixer { .. } => scores.copy_from_slice(logits),
        _ => {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for (score, logit) in scores.iter_mut().zip(logits) {
                *score = (logit - max).exp();
            }
            let sum: f32 = scores.iter().sum();
            scores.iter_mut().for_each(|score| *score /= sum);
        }
    }
}

/// The share of each chosen expert among those close to it, less those chosen before, whose logits are spent.
fn mix_sparsely(logits: &mut [f32], chosen: &[usize], jitter: f32, weights: &mut [f32]) {
    for (weight, expert) in weights.iter_mut().zip(chosen) {
        let top = logits[*expert];
        let share = |logit: f32| match (top - logit) / logit.abs().max(top) > 2.0 * jitter {
            true => 0.0,
            false => (logit - top).exp(),
        };
        *weight = 1.0 / logits.iter().map(|logit| share(*logit)).sum::<f32>();
        logits[*expert] = f32::NEG_INFINITY;
    }
}

/// Makes the ranks of experts outside the best groups minus infinity.
fn exclude_groups(ranks: &mut [f32], spec: &RouterSpec) {
    let size = spec.experts / spec.groups;
    let group_ranks: Vec<f32> = ranks
        .chunks_exact(size)
        .map(|group| best(group, spec.best_of_group).iter().map(|expert| group[*expert]).sum())
        .collect();
    let kept = best(&group_ranks, spec.top_groups);
    for (group, ranks) in ranks.chunks_exact_mut(size).enumerate() {
        if !kept.contains(&group) {
            ranks.fill(f32::NEG_INFINITY);
        }
    }
}

/// The places of the `count` largest values, largest first, the lower place of equals. NaN counts as the smallest.
fn best(values: &[f32], count: usize) -> Vec<usize> {
    let key = |place: usize| if values[place].is_nan() { f32::NEG_INFINITY } else { values[place] };
    let mut best: Vec<usize> = Vec::with_capacity(count + 1);
    for place in 0..values.len() {
        if best.len() == count && best.last().is_some_and(|last| key(place) <= key(*last)) {
            continue;
        }
        let at = best.partition_point(|other| key(*other) >= key(place));
        best.insert(at, place);
        best.truncate(count);
    }
    best
}
