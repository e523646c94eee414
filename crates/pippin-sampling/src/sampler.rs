use std::cmp::Ordering;
use std::sync::Arc;

use super::random::Random;
use super::{Change, GenerateParameters, TokenMask, processors, vector};

/// Above this many, top-k selects by partitioning rather than with a heap.
const MAX_HEAP: usize = 1024;

/// Chooses the next tokens of one request.
#[derive(Clone, Debug)]
pub struct Sampler {
    parameters: Arc<GenerateParameters>,
    /// Tokens that XTC never removes: line ends and stop tokens, which an answer needs to take shape.
    protected: Arc<[u32]>,
    random: Random,
    /// The last tokens before the next one, as many as penalties look at.
    history: Vec<u32>,
    mask: Option<Arc<TokenMask>>,
}

/// The random numbers of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Numbers {
    /// Whether XTC strikes.
    pub strikes: bool,
    /// What the token is drawn with, in `[0, 1)`: 0 where the likeliest is taken.
    pub uniform: f64,
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub token: u32,
    /// Its log-probability before temperature and filters, where the parameters ask for it.
    pub logprob: Option<f32>,
    /// The likeliest tokens with theirs, likeliest first, as many as the parameters ask for. Tokens that a mask excludes
    /// are not among them.
    pub top_logprobs: Vec<TokenLogprob>,
}

/// A token that could be the next, and how likely it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Its id.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
}

/// How likely a token of a given text is after those before it.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenScore {
    /// Its log-probability.
    pub logprob: f32,
    /// The likeliest tokens in its place with theirs, likeliest first, as many as were asked for.
    pub top_logprobs: Vec<TokenLogprob>,
}

/// Buffers that all samplers of a thread share.
#[derive(Debug, Default)]
pub struct Scratch {
    window: Vec<u32>,
    candidates: Vec<Candidate>,
    weights: Vec<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    logit: f32,
    token: u32,
}

impl Candidate {
    /// A token and its logit, a zero of either sign being the same.
    fn new(token: usize, logit: f32) -> Self {
        Self { logit: logit + 0.0, token: token as u32 }
    }

    /// Likeliest first, lowest id first among equals. Logits are never NaN here.
    fn order(&self, other: &Self) -> Ordering {
        other.logit.total_cmp(&self.logit).then(self.token.cmp(&other.token))
    }
}

impl Sampler {
    /// A sampler for what follows `history`: the prompt, and what has been generated of the answer already. Tokens in
    /// `protected` are never removed by XTC.
    pub fn new(parameters: Arc<GenerateParameters>, protected: Arc<[u32]>, history: &[u32]) -> Self {
        let random = Random::new(parameters.seed);
        let mut sampler = Self { parameters, protected, random, history: Vec::new(), mask: None };
        let seen = sampler.window().min(history.len());
        sampler.history.extend_from_slice(&history[history.len() - seen..]);
        sampler
    }

    /// The parameters.
    pub fn parameters(&self) -> &GenerateParameters {
        &self.parameters
    }

    /// The last tokens before the next one, as many as penalties look at.
    pub fn history(&self) -> &[u32] {
        &self.history
    }

    /// Tokens that may come next; `None` allows all.
    pub fn set_mask(&mut self, mask: Option<Arc<TokenMask>>) {
        self.mask = mask;
    }

    /// What [`set_mask`](Self::set_mask) set last.
    pub fn mask(&self) -> Option<&Arc<TokenMask>> {
        self.mask.as_ref()
    }

    /// The tokens that XTC never removes.
    pub fn protected(&self) -> &[u32] {
        &self.protected
    }

    /// What bias and penalties change of the next token's `vocab` logits, after the mask: each token once, in ascending order.
    pub fn changes(&self, vocab: usize) -> Vec<Change> {
        processors::changes(&self.parameters, &self.history, vocab)
    }

    /// Whether what it draws depends on the tokens that were drawn before: a device must not draw ahead of
    /// [`accept`](Self::accept).
    pub fn looks_back(&self) -> bool {
        self.window() > 0
    }

    /// Uses up the random numbers of a token, with which a device draws it.
    pub fn numbers(&mut self) -> Numbers {
        if self.parameters.temperature == 0.0 {
            return Numbers::default();
        }
        Numbers { strikes: self.strikes(), uniform: self.random.uniform() }
    }

    /// Whether XTC strikes at the next token.
    fn strikes(&mut self) -> bool {
        let probability = self.parameters.xtc_probability;
        probability > 0.0 && self.random.uniform() <= f64::from(probability)
    }

    /// Goes on as a sampler that has drawn `tokens` tokens: their random numbers are used up.
    pub fn skip(&mut self, tokens: usize) {
        for _ in 0..tokens * self.draws() {
            self.random.uniform();
        }
    }

    /// Random numbers that each token uses up, whatever its logits.
    fn draws(&self) -> usize {
        match self.parameters.temperature {
            0.0 => 0,
            _ if self.parameters.xtc_probability > 0.0 => 2,
            _ => 1,
        }
    }

    /// How many of the last tokens the penalties look at.
    fn window(&self) -> usize {
        let p = &self.parameters;
        let windows = [
            (p.repetition_penalty, p.repetition_context_size),
            (p.presence_penalty, p.presence_context_size),
            (p.frequency_penalty, p.frequency_context_size),
        ];
        let active = windows.into_iter().filter(|(penalty, _)| penalty.is_some());
        active.map(|(_, size)| if size == 0 { usize::MAX } else { size }).max().unwrap_or(0)
    }

    /// Takes a token for drawn: penalties count it from now on.
    pub fn accept(&mut self, token: u32) {
        let window = self.window();
        if window == 0 {
            return;
        }
        // Twice as much as needed is kept before it is cut, so that a token costs no move of the others.
        if self.history.len() >= window.saturating_mul(2) {
            self.history.drain(..self.history.len() - (window - 1));
        }
        self.history.push(token);
    }

    /// The next token, given the model's logits, which are changed in the process; it is [accepted](Self::accept). `None`
    /// when the logits hold a NaN or no finite maximum, as they do when a mask excludes every token.
    pub fn sample(&mut self, logits: &mut [f32], scratch: &mut Scratch) -> Option<Sampled> {
        if let Some(mask) = &self.mask {
            mask.apply(logits);
        }
        processors::apply(&self.parameters, &self.history, logits, &mut scratch.window);
        let sampled = self.draw(logits, scratch)?;
        self.accept(sampled.token);
        Some(sampled)
    }

    fn draw(&mut self, logits: &mut [f32], scratch: &mut Scratch) -> Option<Sampled> {
        let max = vector::finite_max(logits)?;
        let normaliser = self.parameters.logprobs.then(|| max + vector::exp_sum(logits, max).ln() as f32);
        let top_logprobs = match normaliser {
            Some(normaliser) => likeliest(logits, normaliser, self.parameters.top_logprobs, scratch),
            None => Vec::new(),
        };
        if self.parameters.temperature == 0.0 {
            let token = logits.iter().position(|logit| *logit == max)? as u32;
            return Some(Sampled {
                token,
                logprob: normaliser.map(|normaliser| max - normaliser),
                top_logprobs,
            });
        }
        // An underflow of the temperature must not turn the maximum's exponent, 0, into NaN.
        let factor = (1.0 / self.parameters.temperature).min(f32::MAX);
        let xtc = self.strikes();
        let (token, logit) = if self.filters(logits.len(), xtc) {
            self.filter(logits, max, xtc, scratch);
            let Scratch { candidates, weights, .. } = scratch;
            // XTC may have removed the maximum itself.
            let max = candidates.iter().fold(f32::NEG_INFINITY, |max, candidate| max.max(candidate.logit));
            weights.clear();
            weights.extend(candidates.iter().map(|candidate| candidate.logit));
            vector::exp_in_place(weights, max, factor);
            let chosen = candidates[vector::draw(weights, self.random.uniform())?];
            (chosen.token, chosen.logit)
        } else {
            let weights = &mut scratch.weights;
            weights.clear();
            weights.extend_from_slice(logits);
            vector::exp_in_place(weights, max, factor);
            let token = vector::draw(weights, self.random.uniform())?;
            (token as u32, logits[token])
        };
        Some(Sampled { token, logprob: normaliser.map(|normaliser| logit - normaliser), top_logprobs })
    }

    /// What [`sample`](Self::sample) would draw from: the tokens left, by id, and their probabilities.
    #[cfg(test)]
    pub(super) fn distribution(&mut self, logits: &mut [f32], scratch: &mut Scratch) -> Vec<(u32, f32)> {
        let max = vector::finite_max(logits).expect("finite logits");
        let mut left: Vec<(u32, f32)> = if self.filters(logits.len(), self.parameters.xtc_probability > 0.0) {
            self.filter(logits, max, self.parameters.xtc_probability > 0.0, scratch);
            scratch.candidates.iter().map(|candidate| (candidate.token, candidate.logit)).collect()
        } else {
            logits.iter().enumerate().map(|(token, logit)| (token as u32, *logit)).collect()
        };
        left.sort_unstable_by_key(|(token, _)| *token);
        let max = left.iter().fold(f32::NEG_INFINITY, |max, (_, logit)| max.max(*logit));
        let weight = |logit: f32| vector::exp((logit - max) / self.parameters.temperature);
        let total: f32 = left.iter().map(|(_, logit)| weight(*logit)).sum();
        left.into_iter().map(|(token, logit)| (token, weight(logit) / total)).collect()
    }

    /// Whether any filter can remove a token.
    fn filters(&self, vocab: usize, xtc: bool) -> bool {
        let p = &self.parameters;
        xtc || is_share(p.top_p) || p.min_p > 0.0 || (1..vocab).contains(&p.top_k)
    }

    /// Fills `scratch.candidates` with the tokens that top-p, min-p, XTC and top-k leave, in an order that depends on
    /// the logits alone.
    ///
    /// Log-probabilities and logits differ by a constant, so all comparisons are made on logits relative to `max`.
    fn filter(&self, logits: &[f32], max: f32, xtc: bool, scratch: &mut Scratch) {
        let p = &self.parameters;
        let candidates = &mut scratch.candidates;
        candidates.clear();
        let nucleus = is_share(p.top_p).then(|| {
            let total = vector::exp_sum(logits, max);
            (f64::from(p.top_p) * total, total)
        });
        let least = if p.min_p > 0.0 { max + p.min_p.ln() } else { f32::NEG_INFINITY };

        // What a cheap comparison can already exclude. Tokens of less than a `vocab`-th of the mass outside the nucleus
        // have less than that mass all together, so none of them is in it.
        let mut bound = f32::NEG_INFINITY;
        if p.min_tokens_to_keep == 1 {
            bound = least;
        }
        if let Some((target, total)) = nucleus {
            let share = (total - target) / logits.len() as f64;
            bound = bound.max(max + share.ln() as f32 - 1e-3);
        }
        // The likeliest token stays, whatever rounding does.
        let bound = bound.min(max);
        let top_k = (1..logits.len()).contains(&p.top_k).then_some(p.top_k);
        // Only XTC looks at tokens beyond the top k that others have left: it removes from the top.
        match top_k.filter(|k| !xtc && *k <= MAX_HEAP) {
            Some(k) => largest(logits, bound, k, candidates),
            None => {
                let kept = logits.iter().enumerate().filter(|(_, logit)| **logit >= bound);
                candidates.extend(kept.map(|(token, logit)| Candidate::new(token, *logit)));
            }
        }

        if let Some((target, _)) = nucleus {
            let kept = nucleus_length(candidates, max, target);
            candidates.truncate(kept);
        }
        if p.min_p > 0.0 && p.min_tokens_to_keep > 1 {
            let kept = p.min_tokens_to_keep.min(candidates.len());
            if kept < candidates.len() {
                candidates.select_nth_unstable_by(kept, Candidate::order);
                candidates.sort_unstable_by(Candidate::order);
                let kept = candidates.partition_point(|candidate| candidate.logit >= least).max(kept);
                candidates.truncate(kept);
            }
        }
        if xtc {
            self.exclude_top_choices(candidates, max);
        }
        if let Some(k) = top_k
            && candidates.len() > k
        {
            candidates.select_nth_unstable_by(k, Candidate::order);
            candidates.truncate(k);
            candidates.sort_unstable_by(Candidate::order);
        }
    }

    /// Removes the candidates that are more likely than the least likely one above the threshold.
    fn exclude_top_choices(&self, candidates: &mut Vec<Candidate>, max: f32) {
        let total: f64 =
            candidates.iter().map(|candidate| f64::from(vector::exp(candidate.logit - max))).sum();
        let probability =
            |candidate: &Candidate| (f64::from(vector::exp(candidate.logit - max)) / total) as f32;
        let least = candidates
            .iter()
            .filter(|candidate| probability(candidate) > self.parameters.xtc_threshold)
            .map(|candidate| candidate.logit)
            .fold(f32::INFINITY, f32::min);
        candidates.retain(|candidate| candidate.logit <= least || self.protected.contains(&candidate.token));
    }
}

/// The log-probability of `token`, or `None` when the logits hold a NaN or no finite maximum.
pub fn log_probability(logits: &[f32], token: u32) -> Option<f32> {
    let max = vector::finite_max(logits)?;
    let logit = *logits.get(token as usize)?;
    Some((f64::from(logit - max) - vector::exp_sum(logits, max).ln()) as f32)
}

/// The log-probability of `token` and those of the `top_logprobs` likeliest tokens, or `None` as for [`log_probability`].
pub fn score(logits: &[f32], token: u32, top_logprobs: usize, scratch: &mut Scratch) -> Option<TokenScore> {
    let logprob = log_probability(logits, token)?;
    let normaliser = logits[token as usize] - logprob;
    Some(TokenScore { logprob, top_logprobs: likeliest(logits, normaliser, top_logprobs, scratch) })
}

/// The `count` likeliest tokens, of those that are possible at all.
fn likeliest(logits: &[f32], normaliser: f32, count: usize, scratch: &mut Scratch) -> Vec<TokenLogprob> {
    if count == 0 {
        return Vec::new();
    }
    let candidates = &mut scratch.candidates;
    candidates.clear();
    largest(logits, f32::MIN, count, candidates);
    let logprob =
        |Candidate { logit, token }: &Candidate| TokenLogprob { token: *token, logprob: logit - normaliser };
    candidates.iter().map(logprob).collect()
}

/// Whether a share is one that removes something.
fn is_share(share: f32) -> bool {
    share > 0.0 && share < 1.0
}

/// The `k` largest logits that are not below `bound`, sorted.
fn largest(logits: &[f32], bound: f32, k: usize, heap: &mut Vec<Candidate>) {
    // The root is the worst of the best: what a new candidate has to beat.
    let mut limit = bound;
    for (token, logit) in logits.iter().enumerate() {
        let candidate = Candidate::new(token, *logit);
        if heap.len() < k {
            if *logit >= limit {
                heap.push(candidate);
                if heap.len() == k {
                    for root in (0..k / 2).rev() {
                        sift_down(heap, root);
                    }
                    limit = heap[0].logit;
                }
            }
        } else if *logit > limit {
            // An equal logit of a higher id loses, as `Candidate::order` has it.
            heap[0] = candidate;
            sift_down(heap, 0);
            limit = heap[0].logit;
        }
    }
    heap.sort_unstable_by(Candidate::order);
}

fn sift_down(heap: &mut [Candidate], mut root: usize) {
    loop {
        let mut worst = root;
        for child in [2 * root + 1, 2 * root + 2] {
            if child < heap.len() && heap[child].order(&heap[worst]) == Ordering::Greater {
                worst = child;
            }
        }
        if worst == root {
            return;
        }
        heap.swap(root, worst);
        root = worst;
    }
}

/// Sorts as many candidates as hold the target mass to the front, and returns how many they are.
///
/// A candidate stays while the mass of those before it is below the target; equals of the last one stay too.
fn nucleus_length(candidates: &mut [Candidate], max: f32, target: f64) -> usize {
    let mut sorted = 0;
    let mut step = 64;
    let mut mass = 0.0;
    let mut last = None;
    while sorted < candidates.len() {
        let end = (sorted + step).min(candidates.len());
        if end < candidates.len() {
            candidates[sorted..].select_nth_unstable_by(end - sorted, Candidate::order);
        }
        candidates[sorted..end].sort_unstable_by(Candidate::order);
        for (offset, Candidate { logit, .. }) in candidates[sorted..end].iter().enumerate() {
            if mass >= target && last != Some(*logit) {
                return sorted + offset;
            }
            mass += f64::from(vector::exp(logit - max));
            last = Some(*logit);
        }
        sorted = end;
        step *= 4;
    }
    candidates.len()
}
