//! Which tokens of which sequences the model computes next.
//!
//! The [`Scheduler`] is a plain state machine around a model: requests go in, each [`step`](Scheduler::step) hands one
//! batch to the device, events come out. It knows no thread; [`worker`] gives it one.
//!
//! # A step
//!
//! Every running sequence that has one token to compute contributes that row: decoding never waits. Prompts follow, and
//! share the engine's budget of rows ([`plan`]). So a long prompt slows the answers that are being written, but does not stop
//! them, and a batch is any mixture of both.
//!
//! Where the device feeds drawn tokens back by itself, the next step is planned and handed over before the last one's
//! tokens are known, so that the device never waits for the host ([`flight`]). A stop token then costs a row that nobody
//! needed.
//!
//! # Pages and slots
//!
//! A sequence is admitted when there is a slot for it and pages for all its tokens ([`admit`]); it grows page by page while
//! it decodes. When none is free, what finished sequences have left behind is given up, oldest first; when there is none of that
//! either, the youngest running sequence of the lowest priority makes way and is resumed later. Since a row's result depends neither on its
//! neighbours nor on how a prompt was cut, none of this shows in the output.
//!
//! # Guesses
//!
//! Where it pays, the row of a sequence is followed by rows with what may come next, and one step gives as many tokens as were
//! guessed right ([`speculate`]). What was guessed wrong is as if it had never been computed.
//!
//! # Prefixes on disk
//!
//! Where they are kept there ([`crate::disk`]), a sequence whose beginning the caches do not have waits for the reader's answer before it is admitted ([`disk`]);
//! others go before it meanwhile. When it has ended, what is not on disk yet goes to the writer.
//!
//! # Failures
//!
//! When a step fails, its sequences are tried again one by one, and the one at fault fails alone ([`recover`]). When the device is
//! lost, all fail.

mod admit;
mod disk;
mod flight;
mod measure;
mod plan;
mod recover;
mod sequence;
mod speculate;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use pippin_models::{LanguageModel, SlotEdit};
use pippin_tensor::StepLimits;

use crate::Result;
use crate::disk::{Disk, Part, Place, Shape};
use crate::kv::{Namespace, Store};
use crate::measure::Workload;
use crate::speculation::{DraftModel, StepTimes};
use flight::Flight;
pub(crate) use plan::MAX_SCORE_LOGITS;
use sequence::Sequence;
pub(crate) use sequence::{Event, Request, ScoreRequest};
pub(crate) use worker::{Command, Worker, panic_message};

/// What the scheduler may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Tokens of one sequence, prompt and answer together.
    pub(crate) context: usize,
    /// Sequences in one step.
    pub(crate) sequences: usize,
    /// Prompt tokens in one step.
    pub(crate) step: usize,
}

/// Work that is not a request for an answer.
#[derive(Debug)]
pub(crate) enum Job {
    /// Time steps on made-up tokens. Nothing else runs meanwhile.
    Measure { workload: Workload, repetitions: usize, reply: Sender<Result<Vec<Duration>>> },
    /// How likely each token is after those before it. It runs beside requests.
    Score(ScoreRequest),
    /// Give what the caches hold of a prefix. It is done at once.
    Export(ExportRequest),
}

/// A prefix whose pages and state are wanted, as the scheduler takes it.
#[derive(Debug)]
pub(crate) struct ExportRequest {
    pub(crate) namespace: Namespace,
    pub(crate) tokens: Vec<u32>,
    pub(crate) reply: Sender<Vec<(Place, Part, Vec<u8>)>>,
}

pub(crate) struct Scheduler {
    model: Box<dyn LanguageModel>,
    limits: Limits,
    step_limits: StepLimits,
    store: Store,
    /// Changes to slots that the model has not been told of yet.
    edits: Vec<SlotEdit>,
    measurements: VecDeque<Job>,
    /// In order of priority, and of equals in that of arrival; those that had to make way come before others.
    waiting: VecDeque<Sequence>,
    /// In order of admission.
    running: Vec<Sequence>,
    /// Steps that were handed to the device, oldest first: two at most.
    flights: VecDeque<Flight>,
    /// How much of the cache is in use, for whoever looks from outside: the bits of a share from 0 to 1.
    cache_use: Arc<AtomicU64>,
    /// When the last of them was finished.
    finished: Option<Instant>,
    times: StepTimes,
    /// What guesses tokens where a request wants it, if there is one.
    draft: Option<DraftModel>,
    /// What is kept of prefixes looks like this, if the device gives it.
    shape: Option<Shape>,
    /// Prefixes on disk.
    disk: Option<Disk>,
    /// What the device said when it was lost.
    lost: Option<String>,
}

impl Scheduler {
    /// A scheduler for a model whose caches have been allocated. The slots beyond `limits.sequences` are for snapshots.
    pub(crate) fn new(model: Box<dyn LanguageModel>, limits: Limits) -> Self {
        let step_limits = model.limits().clone();
        let shape = Shape::of(&*model);
        let layout = &model.info().cache;
        let store = Store::new(layout, &step_limits.pages, limits.sequences, step_limits.slots);
        Self {
            model,
            limits,
            step_limits,
            store,
            edits: Vec::new(),
            measurements: VecDeque::new(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            flights: VecDeque::new(),
            cache_use: Arc::default(),
            finished: None,
            times: StepTimes::default(),
            draft: None,
            shape,
            disk: None,
            lost: None,
        }
    }

    /// What the device said when it was lost. Nothing can be computed any more.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// With a draft model, whose caches have slots for all running sequences.
    pub(crate) fn with_draft(mut self, draft: Option<DraftModel>) -> Self {
        self.draft = draft;
        self
    }

    /// Where it says how much of the cache is in use: the bits of a share from 0 to 1, as of the last step.
    pub(crate) fn cache_use(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.cache_use)
    }

    /// Keeps prefixes on disk too.
    pub(crate) fn set_disk(&mut self, disk: Disk) {
        self.disk = Some(disk);
    }

    /// Puts a request in the queue. Its tokens have been checked against vocabulary and context.
    pub(crate) fn submit(&mut self, request: Request) {
        let can_rewind = self.model.info().cache.can_rewind();
        self.queue(Sequence::answer(request, self.limits.context, self.draft.is_some(), can_rewind));
    }

    /// Puts a job in the queue.
    pub(crate) fn submit_job(&mut self, job: Job) {
        match job {
            Job::Measure { .. } => self.measurements.push_back(job),
            Job::Export(request) => self.export(request),
            Job::Score(request) => {
                if let Some(sequence) = Sequence::score(request) {
                    self.queue(sequence);
                }
            }
        }
    }

    /// Gives up what finished sequences have left behind.
    pub(crate) fn clear_cache(&mut self) {
        self.store.clear();
        self.draft.iter_mut().for_each(DraftModel::clear);
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty()
            && self.waiting.is_empty()
            && self.measurements.is_empty()
            && self.flights.is_empty()
    }

    /// Does the next piece of work: hands a step to the device and finishes the one before it, or runs a measurement.
    pub(crate) fn step(&mut self) {
        self.drop_ended();
        if self.run_measurement() {
            return;
        }
        self.admit();
        // A measurement begins when no step is on its way.
        let is_alone = self.measurements.is_empty();
        let is_next = self.flights.back().is_none_or(|flight| flight.feeds && is_alone);
        let has_launched = is_next && self.launch();
        // The first of a row of steps is not waited for: the next is planned behind it.
        let is_first = has_launched && self.flights.len() == 1 && self.flights[0].feeds && is_alone;
        if !is_first {
            self.finish();
        }
        if self.lost.is_some() {
            return;
        }
        self.cache_use.store(self.store.use_share().to_bits(), Ordering::Relaxed);
    }

    /// Ends requests whose stream is gone, or whose time is up.
    fn drop_ended(&mut self) {
        let now = Instant::now();
        let end = |sequence: &mut Sequence| {
            let reason = sequence.has_to_end(now);
            reason.map(|reason| sequence.end(reason)).is_some()
        };
        for sequence in &mut self.running {
            end(sequence);
        }
        self.retire();
        self.waiting.retain_mut(|sequence| !end(sequence));
    }
}
