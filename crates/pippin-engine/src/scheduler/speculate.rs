//! Guesses that a step checks along with what it computes anyway.

use std::collections::BTreeMap;

use pippin_tensor::Want;

use super::Scheduler;
use super::plan::{MAX_SCORE_LOGITS, Part};
use super::sequence::Sequence;
use crate::speculation::{Guesses, worthwhile};

impl Scheduler {
    /// Adds guesses to the parts of a step that go on with answers: as many as the step can be expected to gain by, the
    /// likeliest first, whoever's they are. They get no page that another part of the step wants.
    pub(super) fn speculate(&mut self, parts: &mut [Part]) {
        if self.running.iter().any(Sequence::is_suspect) {
            return;
        }
        let places = self.places();
        let decoding = parts.iter().filter(|part| part.want == Want::Sample && part.rows == 1).count();
        // The guesses for each part, with the chance of each.
        let mut guesses: BTreeMap<usize, Guesses> = BTreeMap::new();
        for (index, part) in parts.iter().enumerate().filter(|(_, part)| part.want == Want::Sample) {
            guesses.insert(index, self.running[places[part.slot]].guess());
        }
        guesses.extend(self.draft(parts, &places, decoding));
        guesses.retain(|_, guesses| !guesses.is_empty());
        if guesses.is_empty() {
            return;
        }
        let own = guesses.iter().flat_map(|(index, own)| own.iter().map(|(_, chance)| (*chance, *index)));
        let mut chances: Vec<(f32, usize)> = own.collect();
        // Stable: of equals, a sequence's own stay in their order.
        chances.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        chances.truncate(self.room_for_guesses(parts));
        let values: Vec<f32> = chances.iter().map(|(chance, _)| *chance).collect();
        let count = worthwhile(decoding, &values, &self.times);
        for (index, tokens) in guesses {
            let own = chances[..count].iter().filter(|(_, part)| *part == index).count();
            let part = &mut parts[index];
            let sequence = &mut self.running[places[part.slot]];
            let wanted = sequence.submitted + 1 + own;
            let room = if own == 0 { wanted } else { self.store.grow(&mut sequence.pages, wanted) };
            let own = own - wanted.saturating_sub(room).min(own);
            let tokens: Vec<u32> = tokens.into_iter().take(own).map(|(token, _)| token).collect();
            self.edits.extend(sequence.set_guess(&tokens));
            if sequence.guesses() > 0 {
                (part.rows, part.want) = (1 + sequence.guesses(), Want::Verify);
            }
        }
    }

    /// What the draft model guesses, part by part. One that fails guesses nothing from now on: answers do without.
    fn draft(&mut self, parts: &[Part], places: &[usize], decoding: usize) -> Vec<(usize, Guesses)> {
        let Some(draft) = &mut self.draft else { return Vec::new() };
        let (mut indices, mut sequences) = (Vec::new(), Vec::new());
        for (index, part) in parts.iter().enumerate().filter(|(_, part)| part.want == Want::Sample) {
            if let Some(sequence) = self.running[places[part.slot]].drafted() {
                indices.push(index);
                sequences.push(sequence);
            }
        }
        if sequences.is_empty() {
            return Vec::new();
        }
        match draft.guess(&sequences, decoding, &self.times) {
            Ok(guesses) => {
                let known = indices.into_iter().zip(guesses);
                let known = known.filter_map(|(index, own)| Some((index, own?)));
                let (some, none): (Vec<_>, Vec<_>) = known.partition(|(_, own)| !own.is_empty());
                for (index, _) in none {
                    self.running[places[parts[index].slot]].set_guess(&[]);
                }
                some
            }
            Err(_) => {
                self.draft = None;
                Vec::new()
            }
        }
    }

    /// For how many guesses there is memory: they share that of prompts that are read and of logits that are scored.
    fn room_for_guesses(&self, parts: &[Part]) -> usize {
        let is_other = |part: &&Part| part.rows > 1 || part.want != Want::Sample;
        let others: usize = parts.iter().filter(is_other).map(|part| part.rows).sum();
        let scored = parts.iter().filter(|part| matches!(part.want, Want::Logits(_)));
        let scored: usize = scored.map(|part| part.rows).sum();
        let logits = (MAX_SCORE_LOGITS / self.step_limits.vocab.max(1)).saturating_sub(scored);
        self.limits.step.saturating_sub(others).min(logits)
    }
}
