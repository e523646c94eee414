//! Which tokens of which sequences the model computes next.
//!
//! The [`Scheduler`] is a plain state machine around a model: requests go in, each [`step`](Scheduler::step) runs one
//! batch, events come out. It knows no thread; [`worker`] gives it one.
//!
//! # A step
//!
//! Every running sequence whose last token is not computed yet contributes that one row: decoding never waits. What is
//! left of prompts follows in order of arrival, up to the prefill budget. So a long prompt slows the answers that are
//! being written, but does not stop them, and a batch is any mixture of both.
//!
//! # Pages
//!
//! A sequence is admitted when there are pages for all its tokens; it grows page by page while it decodes. When none
//! is free, pages of finished sequences are given up, oldest first; when there are none of these either, the youngest
//! running sequence makes way and is resumed later. Since a row's result depends neither on its neighbours nor on how
//! a prompt was cut, none of this shows in the output.

mod sequence;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use pippin_models::{LanguageModel, Logits, ModelError};
use pippin_tensor::{Batch, LogitRows, SequenceRows};

use crate::kv::{PAGE_SIZE, PagePool, PrefixCache, common_prefix, pages_for};
use crate::measure::Workload;
use crate::sampling::{Scratch, log_probability};
use crate::{EngineError, FinishReason, Result};
use sequence::Sequence;
pub(crate) use sequence::{Event, Request};
pub(crate) use worker::{Command, Worker, panic_message};

/// Logits that a scoring step may hold at once; more rows than fit are computed in several steps.
const MAX_SCORE_LOGITS: usize = 16 << 20;

/// What the scheduler may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Tokens of one sequence, prompt and answer together.
    pub(crate) context: usize,
    /// Pages of the KV cache.
    pub(crate) pages: usize,
    /// Sequences in one step.
    pub(crate) sequences: usize,
}

/// Work that has the model to itself for a while.
#[derive(Debug)]
pub(crate) enum Job {
    /// Time steps on made-up tokens.
    Measure { workload: Workload, repetitions: usize, reply: Sender<Result<Vec<Duration>>> },
    /// The log-probability of each token after those before it.
    Score { tokens: Vec<u32>, reply: Sender<Result<Vec<f32>>> },
}

impl Job {
    fn tokens(&self) -> usize {
        match self {
            Self::Measure { workload, .. } => workload.tokens(),
            Self::Score { tokens, .. } => tokens.len(),
        }
    }
}

/// Rows of one running sequence in a step.
#[derive(Clone, Copy, Debug)]
struct Planned {
    /// Its place among the running ones.
    sequence: usize,
    /// How many of its tokens are computed.
    tokens: usize,
}

pub(crate) struct Scheduler {
    model: Box<dyn LanguageModel>,
    limits: Limits,
    pool: PagePool,
    cache: PrefixCache,
    jobs: VecDeque<Job>,
    waiting: VecDeque<Sequence>,
    /// In order of admission.
    running: Vec<Sequence>,
    plan: Vec<Planned>,
    scratch: Scratch,
}

impl Scheduler {
    /// A scheduler for a model whose KV cache has been allocated with `limits.pages` pages.
    pub(crate) fn new(model: Box<dyn LanguageModel>, limits: Limits) -> Self {
        Self {
            model,
            limits,
            pool: PagePool::new(limits.pages),
            cache: PrefixCache::default(),
            jobs: VecDeque::new(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            plan: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// Puts a request in the queue. Its tokens have been checked against vocabulary and context.
    pub(crate) fn submit(&mut self, request: Request) {
        self.waiting.push_back(Sequence::new(request, self.limits.context));
    }

    /// Puts a job in the queue; it runs before waiting requests do.
    pub(crate) fn submit_job(&mut self, job: Job) {
        self.jobs.push_back(job);
    }

    /// Gives up the pages of finished sequences.
    pub(crate) fn clear_cache(&mut self) {
        self.cache.clear(&mut self.pool);
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty() && self.jobs.is_empty()
    }

    /// Does the next piece of work: at most one batch of all running sequences, or one job.
    pub(crate) fn step(&mut self) {
        self.drop_cancelled();
        if self.run_job() {
            return;
        }
        self.admit();
        self.grow();
        self.plan();
        let plan = std::mem::take(&mut self.plan);
        if let Err(error) = self.run(&plan) {
            if let [only] = plan.as_slice() {
                self.fail(only.sequence, error);
            } else {
                // One of them is at fault. A step can be tried again, so the others need not suffer for it.
                for planned in &plan {
                    if let Err(error) = self.run(&[*planned]) {
                        self.fail(planned.sequence, error);
                    }
                }
            }
        }
        self.plan = plan;
        self.retire();
    }

    /// Ends requests whose stream is gone.
    fn drop_cancelled(&mut self) {
        for sequence in &mut self.running {
            if sequence.is_cancelled() {
                sequence.end(FinishReason::Cancelled);
            }
        }
        self.retire();
        self.waiting.retain_mut(|sequence| {
            let is_cancelled = sequence.is_cancelled();
            if is_cancelled {
                sequence.end(FinishReason::Cancelled);
            }
            !is_cancelled
        });
    }

    /// Moves waiting requests to the running ones, first come first served, as long as there are pages.
    fn admit(&mut self) {
        // A job waits for pages: let them become free.
        if !self.jobs.is_empty() {
            return;
        }
        while self.running.len() < self.limits.sequences
            && let Some(mut sequence) = self.waiting.pop_front()
        {
            if !self.try_admit(&mut sequence) {
                self.waiting.push_front(sequence);
                return;
            }
            self.running.push(sequence);
        }
    }

    fn try_admit(&mut self, sequence: &mut Sequence) -> bool {
        // A sequence of several tokens can share the pages of a running one that begins alike, as far as they are full.
        let usable = sequence.tokens.len() - 1;
        let running = self
            .running
            .iter()
            .map(|other| {
                let common = common_prefix(&sequence.tokens, &other.tokens).min(other.computed).min(usable);
                (common / PAGE_SIZE, other)
            })
            .max_by_key(|(pages, _)| *pages)
            .filter(|(pages, _)| *pages > 0);
        let cached = self
            .cache
            .find(&sequence.tokens)
            .filter(|found| running.is_none_or(|(pages, _)| found.tokens >= pages * PAGE_SIZE));
        let (shared, tokens) = match (&cached, running) {
            (Some(found), _) => (self.cache.pages(found).to_vec(), found.tokens),
            (None, Some((pages, other))) => (other.pages[..pages].to_vec(), pages * PAGE_SIZE),
            (None, None) => (Vec::new(), 0),
        };
        // In use from now on: what follows must not count them as reclaimable.
        for page in &shared {
            self.pool.retain(*page);
        }
        // Each sequence already running will soon need a page to go on; without that reserve, the newcomer would only
        // be sent away again.
        let needed = pages_for(sequence.tokens.len()) - shared.len() + self.running.len();
        if needed > self.pool.free() && needed > self.pool.free() + self.cache.reclaimable(&self.pool) {
            self.pool.release_all(shared);
            return false;
        }
        if let Some(found) = &cached {
            self.cache.accept(found, &mut self.pool);
        }
        sequence.admitted(shared, tokens);
        while sequence.pages.len() < pages_for(sequence.tokens.len()) {
            match self.take_page() {
                Some(page) => sequence.pages.push(page),
                None => {
                    // Not reached: the pages have just been counted.
                    self.pool.release_all(std::mem::take(&mut sequence.pages));
                    sequence.computed = 0;
                    return false;
                }
            }
        }
        true
    }

    /// Takes a page, from finished sequences if need be.
    fn take_page(&mut self) -> Option<u32> {
        loop {
            if let Some(page) = self.pool.allocate() {
                return Some(page);
            }
            if !self.cache.give_up_page(&mut self.pool) {
                return None;
            }
        }
    }

    /// Gives every running sequence the pages for its tokens; where there are none left, the youngest make way.
    fn grow(&mut self) {
        let mut index = 0;
        while index < self.running.len() {
            let sequence = &self.running[index];
            if sequence.pages.len() >= pages_for(sequence.tokens.len()) {
                index += 1;
                continue;
            }
            if let Some(page) = self.take_page() {
                self.running[index].pages.push(page);
            } else if self.running.len() > 1 {
                if let Some(youngest) = self.running.pop() {
                    self.suspend(youngest);
                }
            } else {
                // One sequence alone has the whole cache, which holds a whole context, so this is not reached.
                self.running[index].end(FinishReason::Length);
                index += 1;
            }
        }
        self.retire();
    }

    /// Sends a running sequence back to the front of the queue. Its pages stay in the cache while no one needs them.
    fn suspend(&mut self, mut sequence: Sequence) {
        let computed = sequence.tokens[..sequence.computed].to_vec();
        sequence.computed = 0;
        let pages = std::mem::take(&mut sequence.pages);
        self.keep(computed, pages);
        self.waiting.push_front(sequence);
    }

    /// Decides what each running sequence contributes to the step.
    fn plan(&mut self) {
        self.plan.clear();
        let mut budget = None;
        for (index, sequence) in self.running.iter().enumerate() {
            let missing = sequence.tokens.len() - sequence.computed;
            let tokens = if missing <= 1 {
                missing
            } else {
                let chunk = sequence.parameters.prefill_step_size;
                // The first prompt in the queue sets the budget that those behind it may use up.
                let budget = budget.get_or_insert(chunk);
                let tokens = missing.min(chunk).min(*budget);
                *budget -= tokens;
                tokens
            };
            if tokens > 0 {
                self.plan.push(Planned { sequence: index, tokens });
            }
        }
    }

    /// Runs one batch and samples from its logits.
    fn run(&mut self, plan: &[Planned]) -> Result<(), ModelError> {
        if plan.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new(PAGE_SIZE);
        for planned in plan {
            let sequence = &self.running[planned.sequence];
            let end = sequence.computed + planned.tokens;
            let logits = if end == sequence.tokens.len() && sequence.wants_more() {
                LogitRows::Last
            } else {
                LogitRows::None
            };
            batch.push(SequenceRows {
                tokens: &sequence.tokens[sequence.computed..end],
                start: sequence.computed,
                pages: &sequence.pages,
                logits,
            })?;
        }
        let mut logits = self.model.step(&batch)?;
        check(&logits, batch.logit_rows().len())?;
        let mut rows = logits.values.chunks_exact_mut(logits.vocab.max(1));
        for planned in plan {
            let sequence = &mut self.running[planned.sequence];
            sequence.computed += planned.tokens;
            if sequence.computed < sequence.tokens.len() {
                continue;
            }
            if !sequence.wants_more() {
                sequence.end(FinishReason::Length);
            } else if let Some(row) = rows.next() {
                sequence.advance(row, &mut self.scratch);
            }
        }
        Ok(())
    }

    /// Ends a sequence whose step failed. Its pages hold unspecified values from here on.
    fn fail(&mut self, index: usize, error: ModelError) {
        let sequence = &mut self.running[index];
        sequence.computed = 0;
        sequence.fail(error.into());
    }

    /// Removes the sequences that have ended; their pages go to the cache.
    fn retire(&mut self) {
        let mut index = 0;
        while index < self.running.len() {
            if self.running[index].has_ended() {
                let Sequence { mut tokens, computed, pages, .. } = self.running.remove(index);
                tokens.truncate(computed);
                self.keep(tokens, pages);
            } else {
                index += 1;
            }
        }
    }

    /// Puts the pages of computed tokens into the cache, and frees those beyond.
    fn keep(&mut self, tokens: Vec<u32>, mut pages: Vec<u32>) {
        let beyond = pages.split_off(pages_for(tokens.len()).min(pages.len()));
        self.pool.release_all(beyond);
        self.cache.insert(tokens, pages, &mut self.pool);
    }

    /// Runs the first job if its pages can be had. Returns whether there was one that ran.
    fn run_job(&mut self) -> bool {
        let Some(job) = self.jobs.pop_front() else { return false };
        let needed = pages_for(job.tokens());
        let mut pages = Vec::with_capacity(needed);
        while pages.len() < needed {
            match self.take_page() {
                Some(page) => pages.push(page),
                None => {
                    self.pool.release_all(pages);
                    self.jobs.push_front(job);
                    return false;
                }
            }
        }
        // A failed send means that nobody waits for the answer any more.
        match job {
            Job::Measure { workload, repetitions, reply } => {
                let _ = reply.send(self.measure(&workload, repetitions, &pages));
            }
            Job::Score { tokens, reply } => {
                let _ = reply.send(self.score(&tokens, &pages));
            }
        }
        self.pool.release_all(pages);
        true
    }

    fn measure(&mut self, workload: &Workload, repetitions: usize, pages: &[u32]) -> Result<Vec<Duration>> {
        let vocab = self.model.info().vocab_size.max(1) as u32;
        // Which tokens they are makes no difference to the time, except that experts should vary.
        let tokens: Vec<u32> =
            (0..workload.tokens() as u32).map(|i| i.wrapping_mul(2_654_435_761) % vocab).collect();
        let chunk = match workload {
            Workload::Prefill { step_size, .. } => (*step_size).max(1),
            Workload::Decode { .. } => 1,
        };
        let mut samples = Vec::with_capacity(repetitions);
        for _ in 0..repetitions {
            let start = Instant::now();
            let mut computed = 0;
            for part in tokens.chunks(chunk) {
                let is_last = computed + part.len() == tokens.len();
                let logits = if is_last || chunk == 1 { LogitRows::Last } else { LogitRows::None };
                self.compute(part, computed, pages, logits)?;
                computed += part.len();
            }
            samples.push(start.elapsed());
        }
        Ok(samples)
    }

    fn score(&mut self, tokens: &[u32], pages: &[u32]) -> Result<Vec<f32>> {
        let vocab = self.model.info().vocab_size.max(1);
        let chunk = (MAX_SCORE_LOGITS / vocab).clamp(1, 512);
        let mut scores = Vec::with_capacity(tokens.len() - 1);
        // The logits after the last token say nothing about any of them.
        for part in tokens[..tokens.len() - 1].chunks(chunk) {
            let computed = scores.len();
            let logits = self.compute(part, computed, pages, LogitRows::All)?;
            for row in 0..part.len() {
                let token = tokens[computed + row + 1];
                let score = log_probability(logits.row(row), token)
                    .ok_or(EngineError::NonFiniteLogits { tokens: computed + row + 1 })?;
                scores.push(score);
            }
        }
        Ok(scores)
    }

    fn compute(&mut self, tokens: &[u32], start: usize, pages: &[u32], logits: LogitRows) -> Result<Logits> {
        let mut batch = Batch::new(PAGE_SIZE);
        batch.push(SequenceRows { tokens, start, pages, logits }).map_err(ModelError::from)?;
        let logits = self.model.step(&batch)?;
        check(&logits, batch.logit_rows().len())?;
        Ok(logits)
    }
}

/// Checks that the model has returned what it was asked for.
fn check(logits: &Logits, rows: usize) -> Result<(), ModelError> {
    if logits.rows == rows && logits.values.len() == rows * logits.vocab {
        return Ok(());
    }
    Err(pippin_tensor::TensorError::shape("logits", format!("{rows} rows"), logits.rows).into())
}
