//! Steps on their way: handed to the device, and not finished yet.

use std::time::Instant;

use pippin_models::{ModelError, Output, SlotEdit, StepId};
use pippin_tensor::{Batch, LogitRows, SequenceRows, TensorError, Want};

use super::Scheduler;
use super::plan::Part;
use super::sequence::Sequence;
use crate::kv::{PAGE_SIZE, Prefix};

/// A step that was handed to the device.
#[derive(Debug)]
pub(super) struct Flight {
    id: StepId,
    /// Whether the next step may begin with the tokens drawn in this one before they are known.
    pub(super) feeds: bool,
    pub(super) parts: Vec<Part>,
    begun: Instant,
}

impl Flight {
    /// The rows of a step that only goes on with answers, `None` where prompts are read or scored.
    fn decoding_rows(&self) -> Option<usize> {
        let decodes = |part: &Part| part.want == Want::Verify || (part.want, part.rows) == (Want::Sample, 1);
        self.parts.iter().all(decodes).then(|| self.parts.iter().map(|part| part.rows).sum())
    }
}

impl Scheduler {
    /// Hands the next step to the device. Returns whether there was one.
    pub(super) fn launch(&mut self) -> bool {
        let parts = self.plan();
        if parts.is_empty() {
            return false;
        }
        match self.flush().and_then(|()| self.hand_over(&parts)) {
            Ok(mut flight) => {
                // Nothing goes behind a step that may fail.
                flight.feeds &= !self.running.iter().any(Sequence::is_suspect);
                self.flights.push_back(flight);
                true
            }
            Err(error) => {
                // Those before it are not affected.
                self.drain();
                self.recover(parts, error);
                false
            }
        }
    }

    /// Tells the model of changes to slots.
    pub(super) fn flush(&mut self) -> Result<(), ModelError> {
        if self.edits.is_empty() {
            return Ok(());
        }
        let outcome = self.model.edit(std::mem::take(&mut self.edits));
        if outcome.is_err() {
            self.lose_edits();
        }
        outcome
    }

    fn hand_over(&mut self, parts: &[Part]) -> Result<Flight, ModelError> {
        let begun = Instant::now();
        let places = self.places();
        let mut batch = Batch::new(&self.step_limits);
        for part in parts {
            let sequence = &self.running[places[part.slot]];
            let pages: Vec<&[u32]> = sequence.pages.iter().map(Vec::as_slice).collect();
            let input = sequence.input(part.rows);
            batch.push(SequenceRows::text(part.slot, input, sequence.submitted, &pages, part.want))?;
        }
        let submitted = self.model.submit(batch)?;
        for part in parts {
            self.running[places[part.slot]].launched(part.rows, part.want);
            let snapshot = part.snapshot.map(|to| SlotEdit::Copy { from: part.slot, to });
            self.edits.extend(snapshot);
        }
        // How long a sequence with guesses is by then is not known before they are checked.
        let feeds = submitted.feeds && parts.iter().all(|part| part.want != Want::Verify);
        Ok(Flight { id: submitted.id, feeds, parts: parts.to_vec(), begun })
    }

    /// Waits for the oldest step on its way, if there is one, and takes what it has computed.
    pub(super) fn finish(&mut self) {
        let Some(flight) = self.flights.pop_front() else { return };
        match self.outputs(&flight) {
            Ok(outputs) => {
                let now = Instant::now();
                let last = self.finished.replace(now);
                if let Some(rows) = flight.decoding_rows() {
                    let begun = last.map_or(flight.begun, |last| last.max(flight.begun));
                    self.times.record(rows, now.saturating_duration_since(begun));
                }
                let places = self.places();
                for (part, output) in flight.parts.into_iter().zip(outputs) {
                    self.land(places[part.slot], part, output);
                }
                self.retire();
            }
            Err(error) => {
                let mut parts = flight.parts;
                // What came after it has begun with what it should have computed.
                for next in std::mem::take(&mut self.flights) {
                    let _ = self.model.finish(next.id);
                    parts.extend(next.parts);
                }
                self.recover(parts, error);
            }
        }
    }

    /// Waits for all steps on their way.
    pub(super) fn drain(&mut self) {
        while !self.flights.is_empty() {
            self.finish();
        }
    }

    /// Waits for a step. The model must have returned what it was asked for.
    fn outputs(&mut self, flight: &Flight) -> Result<Vec<Output>, ModelError> {
        let outputs = self.model.finish(flight.id)?;
        let is_wanted = |(part, output): (&Part, &Output)| match (part.want, output) {
            (Want::Nothing, Output::Nothing) | (Want::Sample, Output::Sampled(_)) => true,
            (Want::Verify, Output::Verified(drawn)) => (1..=part.rows).contains(&drawn.len()),
            (Want::Logits(LogitRows::All), Output::Logits(logits)) => logits.rows == part.rows,
            _ => false,
        };
        if outputs.len() == flight.parts.len() && flight.parts.iter().zip(&outputs).all(is_wanted) {
            return Ok(outputs);
        }
        let expected = format!("what {} sequences want", flight.parts.len());
        Err(TensorError::shape("step", expected, format!("{} outputs", outputs.len())).into())
    }

    /// Takes what a step has computed for one of its sequences.
    fn land(&mut self, index: usize, part: Part, output: Output) {
        let sequence = &mut self.running[index];
        match &output {
            Output::Verified(drawn) => sequence.landed(drawn.len()),
            _ => sequence.landed(part.rows),
        }
        match output {
            Output::Nothing | Output::Hidden(_) => {}
            Output::Sampled(sampled) => self.edits.extend(sequence.advance(sampled)),
            Output::Verified(drawn) => self.edits.extend(sequence.verified(drawn)),
            Output::Logits(logits) => sequence.scored(&logits),
        }
        let computed = sequence.computed;
        if !sequence.is_score() && !sequence.has_failed() {
            let full = computed / PAGE_SIZE;
            if full > sequence.published {
                let prefix = Prefix::new(&sequence.namespace, &sequence.tokens[..computed]);
                self.store.publish(prefix, &mut sequence.pages);
                sequence.published = full;
            }
            if let Some(snapshot) = part.snapshot {
                self.store.attach(sequence.prefix(computed), snapshot);
            }
        } else if let Some(snapshot) = part.snapshot {
            self.store.release_copy(snapshot);
        }
        self.store.give_back(&mut sequence.pages, computed);
    }

    /// For each slot, the place of its sequence among the running ones.
    pub(super) fn places(&self) -> Vec<usize> {
        let mut places = vec![usize::MAX; self.step_limits.slots];
        for (index, sequence) in self.running.iter().enumerate() {
            places[sequence.slot] = index;
        }
        places
    }
}
