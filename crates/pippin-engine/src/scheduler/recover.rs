//! What happens when a step fails.
//!
//! One of its sequences may be at fault, so they run alone until they are past the point where it happened: who fails
//! then fails with the error, the others go on. Keys and values are simply computed again. State is not: sequences of a model that
//! keeps state go back to their last snapshot, or begin anew.
//!
//! A device that is lost takes everything with it: all requests fail, and the model's thread ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use pippin_models::ModelError;

use super::plan::Part;
use super::sequence::Sequence;
use super::{Job, Scheduler};
use crate::EngineError;

impl Scheduler {
    /// Puts the sequences of failed steps back to where they were. No step is on its way.
    pub(super) fn recover(&mut self, parts: Vec<Part>, error: ModelError) {
        if error.is_device_lost() {
            return self.lose(error.to_string());
        }
        let mut rows = BTreeMap::new();
        for part in parts {
            *rows.entry(part.slot).or_insert(0) += part.rows;
            part.snapshot.into_iter().for_each(|slot| self.store.release_copy(slot));
        }
        let error = Arc::new(error);
        for sequence in &mut self.running {
            let Some(failed) = rows.get(&sequence.slot) else { continue };
            let sampler = sequence.rolled_back();
            if rows.len() == 1 {
                sequence.fail(EngineError::Model(Arc::clone(&error)));
            } else {
                sequence.suspect_until = (sequence.computed + failed).min(sequence.tokens.len());
                self.edits.extend(sampler);
            }
        }
        self.retire();
        if self.model.info().cache.has_state() {
            self.restart();
        }
    }

    /// Ends everything: the device is gone, and all that was kept on it.
    fn lose(&mut self, message: String) {
        let failed = || EngineError::DeviceLost { message: message.clone() };
        // Their sequences fail here.
        self.flights.clear();
        self.edits.clear();
        for sequence in self.running.iter_mut().chain(&mut self.waiting) {
            sequence.fail(failed());
        }
        self.running.clear();
        self.waiting.clear();
        for job in self.measurements.drain(..) {
            if let Job::Measure { reply, .. } = job {
                // A failed send means that nobody waits for the answer any more.
                let _ = reply.send(Err(failed()));
            }
        }
        self.lost = Some(message);
    }

    /// Changes to slots did not reach the device: the copies of states that were among them hold nothing. A sampler that
    /// was among them is missed when it is asked for, which ends here again; a mask would not be, so all are set anew.
    pub(super) fn lose_edits(&mut self) {
        self.edits.extend(self.running.iter().filter_map(Sequence::mask));
        self.store.clear_snapshots();
        let parts = self.flights.iter_mut().flat_map(|flight| &mut flight.parts);
        for slot in parts.filter_map(|part| part.snapshot.take()) {
            self.store.release_copy(slot);
        }
    }

    /// Sends sequences whose state is lost back to the queue, in their order.
    fn restart(&mut self) {
        for index in (0..self.running.len()).rev() {
            if !self.running[index].has_sound_state {
                let mut sequence = self.running.remove(index);
                self.suspend(&mut sequence);
                self.queue_again(sequence);
            }
        }
    }
}
