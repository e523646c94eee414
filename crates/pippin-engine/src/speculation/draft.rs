//! Guesses from a second, smaller model of the same vocabulary.

use std::time::Instant;

use pippin_models::{CachePlan, LanguageModel, ModelError, Output, SlotEdit};
use pippin_sampling::{GenerateParameters, Sampler};
use pippin_tensor::{Batch, Input, SequenceRows, StepLimits, Want};

use super::lookup::Rate;
use super::{Guesses, LEAST_GAIN, StepTimes};
use crate::kv::{Pages, Store};

/// How often a guess is taken to be right before any was checked.
const ASSUMED: f32 = 0.7;
/// A sequence whose guesses are right less often has none.
const LEAST_CHANCE: f32 = 0.2;
/// After so many steps without guesses, some are made to see whether they are right by now.
const PROBE_INTERVAL: usize = 256;
/// How many tokens are guessed then.
const PROBE: usize = 2;
/// How many tokens a sequence may be ahead of the draft model when guesses are made for it.
const LAG: usize = 33;

/// A sequence that the draft model is to go on with.
#[derive(Debug)]
pub(crate) struct Drafted<'a> {
    /// Its slot, in the model that answers and in this one.
    pub(crate) slot: usize,
    /// Its tokens.
    pub(crate) tokens: &'a [u32],
    /// The most that may be guessed.
    pub(crate) most: usize,
}

/// A draft model: what it would say next, its likeliest token every time, is guessed.
///
/// It follows the sequences in slots and on pages of its own. What it reads and guesses costs time, so it is only asked
/// where that has been worth it.
pub(crate) struct DraftModel {
    model: Box<dyn LanguageModel>,
    limits: StepLimits,
    /// Tokens that it reads in a step.
    step: usize,
    /// Token ids that both models have.
    vocab: usize,
    store: Store,
    /// By slot.
    lines: Vec<Option<Line>>,
    /// Of steps with one row for each sequence.
    times: StepTimes,
}

/// What the draft model keeps of a sequence.
struct Line {
    pages: Pages,
    /// The tokens that it has computed. Those from `certain` on are guesses.
    tokens: Vec<u32>,
    certain: usize,
    /// What was guessed last, and the index of the first of it.
    guesses: (usize, Vec<u32>),
    rate: Rate,
    /// Steps since something was guessed.
    declined: usize,
}

impl DraftModel {
    /// A draft for a model with so many token ids, which computes so many sequences at once.
    pub(crate) fn new(
        mut model: Box<dyn LanguageModel>,
        plan: &CachePlan,
        vocab: usize,
        step: usize,
    ) -> Result<Self, ModelError> {
        model.allocate(plan)?;
        let limits = model.limits().clone();
        let store = Store::new(&model.info().cache, &limits.pages, plan.slots, plan.slots);
        let lines = std::iter::repeat_with(|| None).take(plan.slots).collect();
        let vocab = vocab.min(limits.vocab);
        Ok(Self { model, limits, step, vocab, store, lines, times: StepTimes::default() })
    }

    /// With times that do not depend on the machine.
    #[cfg(test)]
    pub(crate) fn with_times(self, times: StepTimes) -> Self {
        Self { times, ..self }
    }

    /// Guesses what follows, where that is worth its time: for each sequence the guesses, with the chance that each and those
    /// before it are right; `None` while it still reads. A step of the model that answers would have `rows` rows without them, and takes the `times`.
    pub(crate) fn guess(
        &mut self,
        sequences: &[Drafted<'_>],
        rows: usize,
        times: &StepTimes,
    ) -> Result<Vec<Option<Guesses>>, ModelError> {
        let mut guesses = vec![Vec::new(); sequences.len()];
        let mut ready = Vec::with_capacity(sequences.len());
        let mut is_read = vec![true; sequences.len()];
        for (index, sequence) in sequences.iter().enumerate() {
            if self.follow(sequence)? {
                ready.push(index);
            }
        }
        ready.iter().for_each(|index| is_read[*index] = false);
        self.read(sequences, &mut ready)?;
        ready.iter().for_each(|index| is_read[*index] = true);
        ready.retain(|index| self.is_promising(sequences[*index].slot));
        let most = ready.iter().map(|index| sequences[*index].most).max().unwrap_or(0);
        let depth = self.depth(sequences, &ready, most, rows, times);
        let mut wanted = vec![0; sequences.len()];
        for index in ready {
            let Some(line) = &mut self.lines[sequences[index].slot] else { continue };
            let depth = if depth == 0 && line.declined >= PROBE_INTERVAL { PROBE } else { depth };
            line.declined = if depth == 0 { line.declined + 1 } else { 0 };
            line.guesses.0 = sequences[index].tokens.len();
            wanted[index] = depth.min(sequences[index].most);
        }
        self.draft(sequences, &wanted, &mut guesses)?;
        Ok(guesses.into_iter().zip(is_read).map(|(own, is_read)| is_read.then_some(own)).collect())
    }

    /// A sequence has lost its slot. What was computed of it stays of use, unless something has gone wrong.
    pub(crate) fn leave(&mut self, slot: usize, is_sound: bool) {
        let Some(line) = self.lines.get_mut(slot).and_then(Option::take) else { return };
        if is_sound {
            self.store.leave(&line.tokens[..line.certain], line.pages, None);
        } else {
            self.store.release(line.pages);
        }
    }

    /// Forgets what sequences have left behind.
    pub(crate) fn clear(&mut self) {
        self.store.clear();
    }

    /// Puts a line to where a sequence is: guesses that have come true stay. Returns whether it can be followed.
    fn follow(&mut self, sequence: &Drafted<'_>) -> Result<bool, ModelError> {
        let Drafted { slot, tokens, .. } = *sequence;
        if tokens.len() + sequence.most > self.model.info().context_length {
            return Ok(false);
        }
        if self.lines[slot].is_none() {
            let found = self.store.find(tokens);
            let (pages, _) = self.store.adopt(&found);
            let sampler = Sampler::new(GenerateParameters::greedy().into(), [].into(), &[]);
            self.model.edit(vec![
                SlotEdit::Reset { slot },
                SlotEdit::Sampler { slot, sampler: Box::new(sampler) },
            ])?;
            self.lines[slot] = Some(Line {
                pages,
                tokens: tokens[..found.tokens].to_vec(),
                certain: found.tokens,
                guesses: (0, Vec::new()),
                rate: Rate::assumed(ASSUMED),
                declined: 0,
            });
        }
        let Some(line) = &mut self.lines[slot] else { return Ok(false) };
        let (at, guesses) = &mut line.guesses;
        for (guess, token) in guesses.iter().zip(tokens.get(*at..).unwrap_or_default()) {
            line.rate.count(guess == token);
            if guess != token {
                break;
            }
        }
        guesses.clear();
        // The last token is computed again where it has been already: what follows it is wanted.
        line.certain = line.certain.min(tokens.len() - 1);
        let later = line.tokens[line.certain..].iter().zip(&tokens[line.certain..tokens.len() - 1]);
        line.certain += later.take_while(|(own, token)| own == token).count();
        line.tokens.truncate(line.certain);
        self.store.give_back(&mut line.pages, line.certain.saturating_sub(1));
        let is_known = |token: &u32| (*token as usize) < self.vocab;
        Ok(tokens[line.certain..].iter().all(is_known))
    }

    /// Reads on where sequences are far ahead: prompts, one step of them. Those that are not read to their end are ready in a
    /// later step.
    fn read(&mut self, sequences: &[Drafted<'_>], ready: &mut Vec<usize>) -> Result<(), ModelError> {
        let mut left = self.step;
        let mut parts = Vec::new();
        ready.retain(|index| {
            let sequence = &sequences[*index];
            let Some(line) = &self.lines[sequence.slot] else { return false };
            let missing = sequence.tokens.len() - line.tokens.len();
            if missing <= LAG {
                return true;
            }
            let rows = (missing - 1).min(left);
            left -= rows;
            if rows > 0 {
                let begin = line.tokens.len();
                parts.push((sequence.slot, sequence.tokens[begin..begin + rows].to_vec()));
            }
            rows + 1 == missing
        });
        self.compute(&mut parts, Want::Nothing)?;
        for (slot, tokens) in &parts {
            if let Some(line) = &mut self.lines[*slot] {
                line.certain += tokens.len();
            }
        }
        // Where there were no pages, nothing was read.
        ready.retain(|index| {
            let sequence = &sequences[*index];
            let line = self.lines[sequence.slot].as_ref();
            line.is_some_and(|line| sequence.tokens.len() - line.tokens.len() <= LAG)
        });
        Ok(())
    }

    fn is_promising(&mut self, slot: usize) -> bool {
        let Some(line) = &mut self.lines[slot] else { return false };
        let is_promising = line.rate.share() >= LEAST_CHANCE || line.declined >= PROBE_INTERVAL;
        line.declined += usize::from(!is_promising);
        is_promising
    }

    /// How many tokens should be guessed for each of the sequences.
    fn depth(
        &self,
        sequences: &[Drafted<'_>],
        ready: &[usize],
        most: usize,
        rows: usize,
        times: &StepTimes,
    ) -> usize {
        let chances: Vec<f64> = ready
            .iter()
            .filter_map(|index| self.lines[sequences[*index].slot].as_ref())
            .map(|line| f64::from(line.rate.share()))
            .collect();
        let step = if self.times.is_empty() { 0.0 } else { self.times.estimate(chances.len()) };
        let mut tokens = rows as f64;
        let (mut best, mut depth) = (LEAST_GAIN * tokens / times.estimate(rows), 0);
        for guesses in 1..=most {
            tokens += chances.iter().map(|chance| chance.powi(guesses as i32)).sum::<f64>();
            let checked = times.estimate(rows + guesses * chances.len());
            let rate = tokens / (checked + step * guesses as f64);
            if rate > best {
                (best, depth) = (rate, guesses);
            }
        }
        depth
    }

    /// Guesses so many tokens for each of the sequences, one after the other.
    fn draft(
        &mut self,
        sequences: &[Drafted<'_>],
        wanted: &[usize],
        guesses: &mut [Guesses],
    ) -> Result<(), ModelError> {
        for count in 0..wanted.iter().copied().max().unwrap_or(0) {
            let mut parts = Vec::new();
            for (index, sequence) in sequences.iter().enumerate() {
                let Some(line) = &self.lines[sequence.slot] else { continue };
                if wanted[index] <= count || guesses[index].len() < count {
                    continue;
                }
                let mut rows = sequence.tokens.get(line.tokens.len()..).unwrap_or_default().to_vec();
                rows.extend(guesses[index].last().map(|(token, _)| *token));
                parts.push((sequence.slot, rows));
            }
            let is_single = parts.iter().all(|(_, rows)| rows.len() == 1);
            let begin = Instant::now();
            let drawn = self.compute(&mut parts, Want::Sample)?;
            if is_single && !parts.is_empty() {
                self.times.record(parts.len(), begin.elapsed());
            }
            for ((slot, _), token) in parts.iter().zip(drawn) {
                let Some(index) = sequences.iter().position(|sequence| sequence.slot == *slot) else {
                    continue;
                };
                let Some(line) = &mut self.lines[*slot] else { continue };
                if count == 0 {
                    line.certain = sequences[index].tokens.len();
                }
                // A token that only this model has ends the guesses.
                if let Some(token) = token.filter(|token| (*token as usize) < self.vocab) {
                    let before = guesses[index].last().map_or(1.0, |(_, chance)| *chance);
                    guesses[index].push((token, before * line.rate.share()));
                    line.guesses.1.push(token);
                }
            }
        }
        Ok(())
    }

    /// Computes rows of some lines; those for which there are no pages are left out. Returns the drawn tokens.
    fn compute(
        &mut self,
        parts: &mut Vec<(usize, Vec<u32>)>,
        want: Want,
    ) -> Result<Vec<Option<u32>>, ModelError> {
        let mut batch = Batch::new(&self.limits);
        let mut served = Vec::with_capacity(parts.len());
        for (slot, rows) in parts.drain(..) {
            let Some(line) = &mut self.lines[slot] else { continue };
            let end = line.tokens.len() + rows.len();
            if self.store.grow(&mut line.pages, end) < end {
                continue;
            }
            let pages: Vec<&[u32]> = line.pages.iter().map(Vec::as_slice).collect();
            batch.push(SequenceRows::text(slot, Input::Tokens(&rows), line.tokens.len(), &pages, want))?;
            served.push((slot, rows));
        }
        *parts = served;
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        let submitted = self.model.submit(batch)?;
        let outputs = self.model.finish(submitted.id)?;
        for (slot, rows) in parts.iter() {
            if let Some(line) = &mut self.lines[*slot] {
                line.tokens.extend_from_slice(rows);
            }
        }
        let token = |output: Output| match output {
            Output::Sampled(sampled) => sampled.map(|sampled| sampled.token),
            _ => None,
        };
        Ok(outputs.into_iter().map(token).collect())
    }
}
