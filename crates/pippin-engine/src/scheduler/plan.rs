//! What each running sequence contributes to a step.
//!
//! One row of everyone who is writing, and of prompts as many rows as the engine's budget allows. The prompt with the
//! least left goes first among those of the highest priority, so that a short one does not wait for a long one; but none is
//! passed over more than [`PATIENCE`] times in a row, whatever the others' priority, so that none is put off for ever. Guesses
//! come last: they have what nobody else wants.

use pippin_tensor::Want;

use super::Scheduler;
use super::sequence::Sequence;
use crate::kv::PAGE_SIZE;

/// Logits that scoring may ask of a step; more rows than fit are computed in several steps.
pub(crate) const MAX_SCORE_LOGITS: usize = 16 << 20;

/// How many steps in a row may pass over a prompt.
pub(super) const PATIENCE: usize = 4;

/// The least distance between the snapshots of a prompt.
const SNAPSHOT_INTERVAL: usize = 512;
/// The most of them, beside the one at its end.
const MAX_SNAPSHOTS: usize = 8;

/// Rows of one running sequence in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its slot.
    pub(super) slot: usize,
    /// How many of its tokens are computed.
    pub(super) rows: usize,
    /// What for.
    pub(super) want: Want,
    /// The slot for a snapshot of its state after them.
    pub(super) snapshot: Option<usize>,
}

/// A prompt that could be read on.
#[derive(Clone, Copy, Debug)]
struct Prompt {
    /// Its place among the running sequences.
    index: usize,
    /// Tokens that are left.
    missing: usize,
    /// As many of them as one step may have.
    most: usize,
    /// How many steps have passed it over.
    waited: usize,
    priority: i32,
}

impl Scheduler {
    /// Decides what the next step computes, and takes the pages for it. It is empty if there is nothing to do before
    /// steps on their way are finished.
    pub(super) fn plan(&mut self) -> Vec<Part> {
        loop {
            let (rows, prompts) = self.wishes();
            if rows.is_empty() && prompts.is_empty() {
                return Vec::new();
            }
            let shares = share(self.limits.step, &prompts);
            let mut parts = Vec::with_capacity(rows.len() + prompts.len());
            let is_served = rows.iter().all(|index| self.provide(*index, 1, &mut parts));
            if is_served {
                for (prompt, rows) in prompts.iter().zip(shares) {
                    let is_served = rows > 0 && self.provide(prompt.index, rows, &mut parts);
                    let sequence = &mut self.running[prompt.index];
                    sequence.waited = if is_served { 0 } else { sequence.waited + 1 };
                }
                if !parts.is_empty() {
                    self.speculate(&mut parts);
                    return parts;
                }
            }
            if !self.flights.is_empty() {
                // They may free what is missing; and nobody makes way whose tokens are on their way.
                return Vec::new();
            }
            self.make_way();
        }
    }

    /// The sequences that have one token to compute, and those that have several.
    fn wishes(&self) -> (Vec<usize>, Vec<Prompt>) {
        let (mut rows, mut prompts) = (Vec::new(), Vec::new());
        let mut score_rows = (MAX_SCORE_LOGITS / self.step_limits.vocab.max(1)).max(1);
        let suspect = self.running.iter().position(|sequence| sequence.is_suspect() && !sequence.has_ended());
        for (index, sequence) in self.running.iter().enumerate() {
            if sequence.has_ended() || suspect.is_some_and(|suspect| suspect != index) {
                continue;
            }
            match sequence.missing() {
                0 => {}
                1 => rows.push(index),
                missing => {
                    let mut most = missing.min(self.limits.step);
                    if sequence.is_score() {
                        most = most.min(score_rows);
                        score_rows -= most;
                    }
                    if let Some(stop) = self.next_stop(sequence) {
                        most = most.min(stop - sequence.submitted);
                    }
                    let Sequence { waited, priority, .. } = *sequence;
                    prompts.push(Prompt { index, missing, most, waited, priority });
                }
            }
        }
        (rows, prompts)
    }

    /// Takes the pages for a sequence's part in the step. Returns whether it has one.
    fn provide(&mut self, index: usize, rows: usize, parts: &mut Vec<Part>) -> bool {
        let sequence = &mut self.running[index];
        let room = self.store.grow(&mut sequence.pages, sequence.submitted + rows);
        let rows = rows.min(room.saturating_sub(sequence.submitted));
        if rows == 0 {
            return false;
        }
        let sequence = &self.running[index];
        let is_stop = self.next_stop(sequence) == Some(sequence.submitted + rows);
        let (slot, want) = (sequence.slot, sequence.want(rows));
        let snapshot = if is_stop { self.store.take_copy() } else { None };
        parts.push(Part { slot, rows, want, snapshot });
        true
    }

    /// Where the next step of a prompt must stop, because a snapshot is taken there: where another sequence went its own
    /// way, at intervals, and at the last full page before the prompt's last token. (A snapshot inside a page would be of
    /// little use: whoever goes on there needs the page for itself, and has to compute its keys and values anew.)
    fn next_stop(&self, sequence: &Sequence) -> Option<usize> {
        let (copies, length) = (self.step_limits.slots - self.limits.sequences, sequence.tokens.len());
        if !self.model.info().cache.has_state() || copies == 0 || sequence.is_score() {
            return None;
        }
        let most = (copies / 4).clamp(1, MAX_SNAPSHOTS);
        let mut interval = SNAPSHOT_INTERVAL;
        while length / interval > most {
            interval *= 2;
        }
        let next = (sequence.submitted / interval + 1) * interval;
        let end = (length - 1) / PAGE_SIZE * PAGE_SIZE;
        [next, sequence.branch, end]
            .into_iter()
            .filter(|stop| (sequence.submitted + 1..=end).contains(stop))
            .min()
    }
}

/// Shares the rows of a step among prompts.
fn share(budget: usize, prompts: &[Prompt]) -> Vec<usize> {
    let mut shares = vec![0; prompts.len()];
    let mut left = budget;
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    // Those who have waited long enough, longest first. If they are several, each has a part.
    order.sort_by_key(|i| std::cmp::Reverse(prompts[*i].waited));
    let overdue = prompts.iter().filter(|prompt| prompt.waited >= PATIENCE).count();
    for i in order.iter().take(overdue) {
        shares[*i] = prompts[*i].most.min((budget / overdue).max(1)).min(left);
        left -= shares[*i];
    }
    // Then those of the highest priority who have the least left; of equals, who came first.
    order.sort_by_key(|i| (std::cmp::Reverse(prompts[*i].priority), prompts[*i].missing, *i));
    for i in order {
        let more = (prompts[i].most - shares[i]).min(left);
        shares[i] += more;
        left -= more;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prompt(missing: usize, waited: usize) -> Prompt {
        Prompt { index: 0, missing, most: missing.min(512), waited, priority: 0 }
    }

    #[test]
    fn the_shortest_goes_first() {
        let prompts = [prompt(8000, 0), prompt(100, 0), prompt(300, 1), prompt(100, 0)];
        assert_eq!(share(512, &prompts), [12, 100, 300, 100]);
        assert_eq!(share(150, &prompts), [0, 100, 0, 50]);
        assert_eq!(share(1, &prompts), [0, 1, 0, 0]);
        assert_eq!(share(512, &[]), [0; 0]);
    }

    #[test]
    fn the_highest_priority_goes_before_the_shortest() {
        let urgent = |missing| Prompt { priority: 1, ..prompt(missing, 0) };
        assert_eq!(share(512, &[prompt(100, 0), urgent(300), urgent(200)]), [12, 300, 200]);
        assert_eq!(share(512, &[prompt(100, 0), urgent(8000), prompt(50, 0)]), [0, 512, 0]);
        // Nobody's patience is endless.
        assert_eq!(share(512, &[prompt(100, PATIENCE), urgent(8000), prompt(50, 0)]), [100, 412, 0]);
    }

    #[test]
    fn the_patient_are_served() {
        assert_eq!(share(512, &[prompt(8000, PATIENCE), prompt(100, 0)]), [512, 0]);
        assert_eq!(
            share(512, &[prompt(8000, PATIENCE), prompt(9000, PATIENCE + 1), prompt(100, 0)]),
            [256, 256, 0]
        );
        assert_eq!(
            share(512, &[prompt(8000, PATIENCE), prompt(9000, PATIENCE + 1), prompt(9, PATIENCE)]),
            [333, 170, 9]
        );
        assert_eq!(share(1, &[prompt(8000, PATIENCE), prompt(9000, PATIENCE + 1)]), [0, 1]);
    }

    proptest! {
        /// A budget is used as far as there is something to read, and no further.
        #[test]
        fn budgets_are_used_and_kept(budget in 1usize..600, prompts in prop::collection::vec((1usize..2000, 0usize..9), 0..20)) {
            let prompts: Vec<Prompt> = prompts.into_iter().map(|(missing, waited)| prompt(missing, waited)).collect();
            let shares = share(budget, &prompts);
            let wanted: usize = prompts.iter().map(|prompt| prompt.most).sum();
            prop_assert_eq!(shares.iter().sum::<usize>(), budget.min(wanted));
            prop_assert!(shares.iter().zip(&prompts).all(|(share, prompt)| *share <= prompt.most));
        }

        /// Whatever arrives, no prompt is passed over for long.
        #[test]
        fn nobody_waits_for_ever(lengths in prop::collection::vec(2usize..2000, 1..8), arrivals in prop::collection::vec((1usize..600, 0i32..2), 100)) {
            let mut prompts: Vec<Prompt> = lengths.into_iter().map(|missing| prompt(missing, 0)).collect();
            let (most, mut short) = (prompts.len(), prompt(1, 0));
            for (arrival, priority) in arrivals {
                short = if short.missing <= 1 { Prompt { priority, ..prompt(arrival, 0) } } else { short };
                prompts.push(short);
                for (prompt, share) in prompts.clone().iter().zip(share(64, &prompts)).enumerate().map(|(i, (_, share))| (i, share)) {
                    let prompt = &mut prompts[prompt];
                    prompt.missing = (prompt.missing - share).max(1);
                    prompt.most = prompt.missing.min(512);
                    prompt.waited = if share > 0 { 0 } else { prompt.waited + 1 };
                    prop_assert!(prompt.waited <= PATIENCE + most);
                }
                short = prompts.pop().expect("pushed");
                prompts.retain(|prompt| prompt.missing > 1);
            }
        }
    }
}
