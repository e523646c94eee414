mod answers;
mod caching;
mod disk;
mod failures;
mod fairness;
mod families;
mod property;
mod speculation;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use pippin_sampling::{Sampler, Scratch, TokenMask, TokenScore};
use pippin_tensor::{KvFormat, Reach};
use pippin_text::StopTokens;

use super::*;
use crate::channel::{self, Receiver};
use crate::constrained::Constraints;
use crate::estimate::cache_pages;
use crate::kv::PAGE_SIZE;
use crate::places::Place;
use crate::speculation::{DraftModel, PromptLookup, StepTimes};
use crate::steering::Steering;
use crate::testing::{Control, FakeModel, Feeds, Kind, STOP, VOCAB, lock};
use crate::{EngineError, FinishReason, GenerateParameters};

/// How a scheduler is set up.
#[derive(Clone, Debug)]
struct Setup {
    kind: Kind,
    context: usize,
    /// Tokens of the caches.
    tokens: usize,
    sequences: usize,
    step: usize,
    snapshots: usize,
    feeds: Feeds,
}

impl Setup {
    fn new(context: usize, pages: usize, sequences: usize) -> Self {
        let tokens = pages * PAGE_SIZE;
        Self { kind: Kind::full(), context, tokens, sequences, step: 512, snapshots: 0, feeds: Feeds::Never }
    }

    fn of(kind: &Kind, context: usize, pages: usize, sequences: usize) -> Self {
        let snapshots = if kind.has_state { 16 } else { 0 };
        Self { kind: kind.clone(), snapshots, ..Self::new(context, pages, sequences) }
    }

    fn build(&self) -> Rig {
        let Self { ref kind, context, tokens, sequences, step, snapshots, feeds } = *self;
        let (mut model, control) = FakeModel::new(kind.clone(), context);
        let pages = cache_pages(&kind.layout(), tokens, sequences, step);
        let (format, slots) = (KvFormat::F32, sequences + snapshots);
        let plan = pippin_models::CachePlan { page_size: PAGE_SIZE, format, pages, slots };
        model.allocate(&plan).expect("allocated");
        lock(&control).feeds = feeds;
        let scheduler = Scheduler::new(Box::new(model), Limits { context, sequences, step });
        Rig { scheduler, control, setup: self.clone() }
    }
}

/// Gives a scheduler a draft model of this kind, which has pages for so many tokens.
fn with_draft(rig: &mut Rig, kind: &Kind, tokens: usize) -> Arc<Mutex<Control>> {
    let Setup { context, sequences, step, .. } = rig.setup;
    let (model, control) = FakeModel::new(kind.clone(), context);
    let pages = cache_pages(&kind.layout(), tokens, sequences, step);
    let plan =
        pippin_models::CachePlan { page_size: PAGE_SIZE, format: KvFormat::F32, pages, slots: sequences };
    let vocab = crate::testing::VOCAB;
    let draft = DraftModel::new(Box::new(model), &plan, vocab, step).expect("allocated");
    rig.scheduler.draft = Some(draft.with_times(StepTimes::fixed(|_| 0.01)));
    control
}

/// A scheduler with a fake model.
struct Rig {
    scheduler: Scheduler,
    control: Arc<Mutex<Control>>,
    setup: Setup,
}

impl Rig {
    /// A step, after which nobody should read what is in free pages.
    fn step(&mut self) {
        self.scheduler.step();
        let mut control = lock(&self.control);
        for group in 0..self.setup.kind.groups.len() {
            let pool = self.scheduler.store.pool(group);
            for page in (0..pool.capacity()).filter(|page| pool.users(*page as u32) == 0) {
                control.spoil(group, page, PAGE_SIZE);
            }
        }
    }

    fn run(&mut self) {
        for _ in 0..100_000 {
            if self.scheduler.is_idle() {
                return;
            }
            self.step();
        }
        panic!("the scheduler makes no progress");
    }

    /// Asks, and waits for the answer.
    fn ask(&mut self, prompt: &[u32], parameters: GenerateParameters) -> Client {
        let mut client = Client::submit(self, prompt, parameters);
        self.run();
        client.poll();
        client
    }

    fn edits(&self) -> usize {
        lock(&self.control).edits
    }

    fn steps(&self) -> Vec<crate::testing::Step> {
        lock(&self.control).steps.clone()
    }

    /// After everything has ended, every page and every slot is free once the cache is cleared.
    fn assert_nothing_is_lost(&mut self) {
        assert!(self.scheduler.is_idle());
        self.scheduler.clear_cache();
        for group in 0..self.setup.kind.groups.len() {
            let pool = self.scheduler.store.pool(group);
            assert_eq!(pool.free(), pool.capacity(), "group {group}");
        }
        assert_eq!(self.scheduler.store.free_slots(), (self.setup.sequences, self.setup.snapshots));
    }
}

fn scheduler(context: usize, pages: usize, sequences: usize) -> Rig {
    Setup::new(context, pages, sequences).build()
}

fn greedy(max_tokens: usize) -> GenerateParameters {
    GenerateParameters { max_tokens: Some(max_tokens), ..GenerateParameters::greedy() }
}

/// A request's side of its channel.
#[derive(Debug)]
struct Client {
    events: Option<Receiver<Event>>,
    cancelled: Arc<AtomicBool>,
    cached: Option<usize>,
    /// Tokens that were guessed, and how many of them were right.
    guessed: (usize, usize),
    tokens: Vec<u32>,
    logprobs: Vec<Option<f32>>,
    end: Option<Result<FinishReason, String>>,
}

impl Client {
    fn submit(rig: &mut Rig, prompt: &[u32], parameters: GenerateParameters) -> Self {
        Self::submit_to(&mut rig.scheduler, prompt, parameters, &[STOP])
    }

    fn submit_to(
        scheduler: &mut Scheduler,
        prompt: &[u32],
        parameters: GenerateParameters,
        stop: &[u32],
    ) -> Self {
        let constraints = Constraints::default();
        let processor = crate::testing::lettered_processor();
        let constrained = constraints
            .prepare(&parameters, prompt, &processor, VOCAB)
            .map_err(EngineError::from)
            .and_then(|prepared| constraints.take(prepared, &parameters, prompt, &processor))
            .expect("a constraint");
        let lookup = PromptLookup::of(&parameters, &scheduler.model.info().cache, prompt);
        let (events, receiver) = channel::channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let stop = Arc::new(StopTokens::from_iter(stop.iter().copied()));
        scheduler.submit(Request {
            tokens: prompt.to_vec(),
            steering: Box::new(Steering::new(&parameters, constrained, None, &stop, VOCAB)),
            lookup,
            parameters: Arc::new(parameters),
            stop,
            protected: Arc::default(),
            events,
            cancelled: Arc::clone(&cancelled),
            deadline: None,
            place: Place::default(),
            bundle: None,
        });
        Self {
            events: Some(receiver),
            cancelled,
            cached: None,
            guessed: (0, 0),
            tokens: Vec::new(),
            logprobs: Vec::new(),
            end: None,
        }
    }

    /// Takes what has arrived.
    fn poll(&mut self) -> &mut Self {
        for event in self.events.iter().flat_map(Receiver::try_iter) {
            assert!(self.end.is_none(), "an event after the end: {event:?}");
            match event {
                Event::Started { cached, .. } => {
                    assert_eq!(self.cached, None, "started twice");
                    self.cached = Some(cached);
                }
                Event::Read(_) => {}
                Event::Token { token, logprob, .. } => {
                    self.tokens.push(token);
                    self.logprobs.push(logprob);
                }
                Event::Guessed { tokens, right } => {
                    assert!(tokens > 0 && right <= tokens);
                    self.guessed.0 += tokens;
                    self.guessed.1 += right;
                }
                Event::Finished { reason, .. } => self.end = Some(Ok(reason)),
                Event::Failed(error) => self.end = Some(Err(error.to_string())),
            }
        }
        self
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    #[track_caller]
    fn finished(&mut self, reason: FinishReason) -> &[u32] {
        self.poll();
        assert_eq!(self.end, Some(Ok(reason)));
        &self.tokens
    }

    #[track_caller]
    fn error(&mut self) -> String {
        self.poll().end.clone().expect("ended").expect_err("failed")
    }
}

/// A text's side of its channel.
#[derive(Debug)]
struct Scoring {
    scores: Receiver<Result<Vec<TokenScore>>>,
    cancelled: Arc<AtomicBool>,
}

impl Scoring {
    fn submit(rig: &mut Rig, tokens: Vec<u32>, top_logprobs: usize) -> Self {
        let (reply, scores) = channel::channel();
        let cancelled = Arc::<AtomicBool>::default();
        let place = Place::default();
        let request = ScoreRequest { tokens, top_logprobs, reply, cancelled: Arc::clone(&cancelled), place };
        rig.scheduler.submit_job(Job::Score(request));
        Self { scores, cancelled }
    }

    /// The answer, if there is one yet.
    fn poll(&self) -> Option<Result<Vec<TokenScore>>> {
        self.scores.try_iter().next()
    }
}

fn prompt(seed: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|i| i.wrapping_mul(i + seed).wrapping_add(seed) % 50).collect()
}

/// The answer that a request should get, told without a scheduler.
fn reference(kind: &Kind, prompt: &[u32], parameters: &GenerateParameters) -> Vec<u32> {
    let mut sampler = Sampler::new(Arc::new(parameters.clone()), [].into(), prompt);
    let (mut tokens, mut scratch) = (prompt.to_vec(), Scratch::default());
    let mut early = TokenMask::from_words(VOCAB, &[u32::MAX; VOCAB.div_ceil(32)]);
    early.exclude(STOP);
    let early = Arc::new(early);
    for generated in 0..parameters.max_tokens.unwrap_or(0) {
        sampler.set_mask((generated < parameters.min_tokens).then(|| Arc::clone(&early)));
        let sampled = sampler.sample(&mut kind.logits(&tokens), &mut scratch).expect("finite logits");
        tokens.push(sampled.token);
        if sampled.token == STOP {
            break;
        }
    }
    tokens.split_off(prompt.len())
}
