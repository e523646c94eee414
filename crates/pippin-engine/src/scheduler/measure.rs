//! Measurements: work that has the model to itself for a while.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pippin_models::{ModelError, SlotEdit};
use pippin_sampling::Sampler;
use pippin_tensor::{Batch, Input, SequenceRows, Want};

use super::{Job, Scheduler};
use crate::kv::{Found, Pages};
use crate::measure::Workload;
use crate::{GenerateParameters, Result};

impl Scheduler {
    /// Runs the first measurement if there is room for it. Returns whether there was one that ran.
    pub(super) fn run_measurement(&mut self) -> bool {
        let Some(Job::Measure { workload, .. }) = self.measurements.front() else { return false };
        if !self.flights.is_empty() {
            return false;
        }
        // Nothing is given up before it is certain that it can run.
        let nothing = vec![0; self.step_limits.pages.len()];
        if !self.store.fits(&Found::default(), workload.tokens(), self.limits.step, &nothing) {
            return false;
        }
        let Some(slot) = self.store.take_slot() else { return false };
        if let Some(Job::Measure { workload, repetitions, reply }) = self.measurements.pop_front() {
            let samples = (0..repetitions).map(|_| self.measure(&workload, slot)).collect();
            // A failed send means that nobody waits for the answer any more.
            let _ = reply.send(samples);
        }
        self.store.release_slot(slot);
        true
    }

    fn measure(&mut self, workload: &Workload, slot: usize) -> Result<Duration> {
        let vocab = self.step_limits.vocab.max(1) as u32;
        // Which tokens they are makes no difference to the time, except that experts should vary.
        let tokens: Vec<u32> =
            (0..workload.tokens() as u32).map(|i| i.wrapping_mul(2_654_435_761) % vocab).collect();
        let chunk = match workload {
            Workload::Prefill { step_size, .. } => (*step_size).clamp(1, self.limits.step),
            Workload::Decode { .. } => 1,
        };
        let sampler = Sampler::new(GenerateParameters::greedy().into(), [].into(), &[]);
        self.edits.push(SlotEdit::Reset { slot });
        self.edits.push(SlotEdit::Sampler { slot, sampler: Box::new(sampler) });
        self.flush()?;
        let mut pages = vec![Vec::new(); self.step_limits.pages.len()];
        let start = Instant::now();
        let outcome = self.compute(&tokens, chunk, slot, &mut pages);
        let time = start.elapsed();
        self.store.release(pages);
        outcome.map(|()| time)
    }

    /// Computes tokens as they would be computed for an answer: after the last of a prompt, and after each that is decoded,
    /// a token is drawn.
    fn compute(&mut self, tokens: &[u32], chunk: usize, slot: usize, pages: &mut Pages) -> Result<()> {
        let (mut begin, mut flights, mut outcome) = (0, VecDeque::new(), Ok(()));
        for part in tokens.chunks(chunk) {
            let end = begin + part.len();
            let want = if chunk == 1 || end == tokens.len() { Want::Sample } else { Want::Nothing };
            self.store.grow(pages, end);
            let lists: Vec<&[u32]> = pages.iter().map(Vec::as_slice).collect();
            let mut batch = Batch::new(&self.step_limits);
            let rows = SequenceRows::text(slot, Input::Tokens(part), begin, &lists, want);
            let submitted =
                batch.push(rows).map_err(ModelError::from).and_then(|()| self.model.submit(batch));
            // A device that feeds itself is kept busy, as it is by answers.
            let behind = match &submitted {
                Ok(submitted) => {
                    flights.push_back(submitted.id);
                    usize::from(submitted.feeds)
                }
                Err(_) => flights.len(),
            };
            outcome = submitted.map(drop);
            while outcome.is_ok() && flights.len() > behind {
                outcome = flights.pop_front().map_or(Ok(()), |id| self.model.finish(id).map(drop));
            }
            if outcome.is_err() {
                break;
            }
            self.store.give_back(pages, begin);
            begin = end;
        }
        for id in flights {
            outcome = outcome.and(self.model.finish(id).map(drop));
        }
        Ok(outcome?)
    }
}
