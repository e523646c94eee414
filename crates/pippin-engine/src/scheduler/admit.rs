//! Who runs: which sequences have a slot and pages, and what they leave behind.

use pippin_models::SlotEdit;

use super::Scheduler;
use super::sequence::{Outside, Sequence};
use crate::EngineError;
use crate::kv::Found;

impl Scheduler {
    /// Puts a sequence in the queue, behind those of its priority.
    pub(super) fn queue(&mut self, sequence: Sequence) {
        let place = self.waiting.partition_point(|other| other.priority >= sequence.priority);
        self.waiting.insert(place, sequence);
    }

    /// Puts a sequence back in the queue, before those of its priority.
    pub(super) fn queue_again(&mut self, sequence: Sequence) {
        let place = self.waiting.partition_point(|other| other.priority > sequence.priority);
        self.waiting.insert(place, sequence);
    }

    /// Moves waiting sequences to the running ones, those of the highest priority first, and of equals who came first, as long as there are pages and slots.
    pub(super) fn admit(&mut self) {
        // A measurement waits for room: let it become free.
        if !self.measurements.is_empty() {
            return;
        }
        while self.running.len() < self.limits.sequences
            && let Some(index) = self.next_waiting()
        {
            let found = self.found(index);
            let next = &mut self.waiting[index];
            let mut promised = vec![0; self.step_limits.pages.len()];
            for sequence in &self.running {
                let outstanding = self.store.outstanding(sequence.tokens.len(), &sequence.pages);
                promised.iter_mut().zip(outstanding).for_each(|(sum, pages)| *sum += pages);
            }
            if !self.store.fits(&found, next.tokens.len(), self.limits.step, &promised) {
                if self.running.is_empty() && self.flights.is_empty() {
                    // It has all there is. Not reached: there is room for a whole context.
                    let (prompt, context) = (next.tokens.len(), self.limits.context);
                    next.fail(EngineError::PromptTooLong { prompt, context });
                    self.waiting.remove(index);
                }
                return;
            }
            let (Some(slot), Some(sequence)) = (self.store.take_slot(), self.waiting.remove(index)) else {
                return;
            };
            self.begin(sequence, slot, found);
        }
    }

    fn begin(&mut self, mut sequence: Sequence, slot: usize, found: Found) {
        let matched = found.matched;
        let was_kept = matches!(sequence.outside, Outside::Known(Some(_)));
        let (mut pages, computed) = match self.restore(&mut sequence, slot, &found) {
            Some(restored) => restored,
            None => {
                // What could not be restored was counted on.
                let found = if was_kept { self.store.find(sequence.whole()) } else { found };
                let (pages, snapshot) = self.store.adopt(&found);
                self.edits.push(SlotEdit::Reset { slot });
                self.edits.extend(snapshot.map(|from| SlotEdit::Copy { from, to: slot }));
                (pages, found.tokens)
            }
        };
        self.store.reserve(&mut pages, sequence.tokens.len());
        sequence.admitted(slot, pages, computed);
        sequence.branch = matched;
        self.edits.extend(sequence.sampler());
        // At once, so that what the device refuses is this sequence's fault.
        if let Err(error) = self.flush() {
            sequence.fail(error.into());
        }
        self.running.push(sequence);
    }

    /// Sends a running sequence back to the queue: of those with the lowest priority the youngest. What it has computed stays while no one needs
    /// the room. No step is on its way.
    pub(super) fn make_way(&mut self) {
        let last = (0..self.running.len()).rev().min_by_key(|index| self.running[*index].priority);
        if let Some(index) = last.filter(|_| self.running.len() > 1) {
            let mut sequence = self.running.remove(index);
            self.suspend(&mut sequence);
            self.queue_again(sequence);
        } else if let Some(only) = self.running.first_mut() {
            // One sequence alone has the whole cache, which holds a whole context, so this is not reached.
            only.end(crate::FinishReason::Length);
            self.retire();
        }
    }

    /// Takes a running sequence's place away.
    pub(super) fn suspend(&mut self, sequence: &mut Sequence) {
        let (computed, slot) = (sequence.computed, sequence.slot);
        let snapshot = self.last_snapshot(sequence);
        let pages = sequence.suspended();
        if let Some(draft) = &mut self.draft {
            draft.leave(slot, true);
        }
        if sequence.is_score() {
            self.store.release(pages);
        } else {
            self.store.leave(sequence.prefix(computed), pages, snapshot);
        }
        self.store.release_slot(slot);
    }

    /// Removes the sequences that have ended and have no part in a step on its way.
    pub(super) fn retire(&mut self) {
        let mut index = 0;
        while index < self.running.len() {
            if self.running[index].has_ended() && self.running[index].flying == 0 {
                let mut sequence = self.running.remove(index);
                if sequence.has_failed() {
                    // Nobody should go on where something has gone wrong.
                    let computed = sequence.computed;
                    if let Some(draft) = &mut self.draft {
                        draft.leave(sequence.slot, false);
                    }
                    self.store.release_slot(sequence.slot);
                    self.store.release(sequence.suspended());
                    self.store.forget(sequence.prefix(computed));
                } else {
                    let computed = sequence.computed;
                    self.suspend(&mut sequence);
                    self.keep(&sequence, computed);
                }
            } else {
                index += 1;
            }
        }
    }

    /// A copy of the state that a sequence ends with.
    fn last_snapshot(&mut self, sequence: &Sequence) -> Option<usize> {
        let is_of_use = sequence.has_sound_state && sequence.computed > 0 && !sequence.is_score();
        if !is_of_use || !self.model.info().cache.has_state() {
            return None;
        }
        let to = self.store.take_copy()?;
        self.edits.push(SlotEdit::Copy { from: sequence.slot, to });
        Some(to)
    }
}
