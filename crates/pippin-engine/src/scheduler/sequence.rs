use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pippin_text::StopTokens;

use crate::channel::Sender;
use crate::sampling::{Sampler, Scratch};
use crate::{EngineError, FinishReason, GenerateParameters};

/// A request as the scheduler takes it.
#[derive(Debug)]
pub(crate) struct Request {
    /// The prompt; at least one token.
    pub(crate) tokens: Vec<u32>,
    pub(crate) parameters: Arc<GenerateParameters>,
    pub(crate) stop: Arc<StopTokens>,
    /// Tokens that XTC never removes.
    pub(crate) protected: Arc<[u32]>,
    pub(crate) events: Sender<Event>,
    /// Set when nobody waits for the answer any more.
    pub(crate) cancelled: Arc<AtomicBool>,
}

/// What a request hears back, in this order: `Started`, any number of `Token`s, and `Finished` or `Failed`.
#[derive(Debug)]
pub(crate) enum Event {
    /// The first step is about to run.
    Started {
        /// Prompt tokens whose keys and values were already there.
        cached: usize,
        at: Instant,
    },
    /// A token, the stop token included.
    Token {
        token: u32,
        logprob: Option<f32>,
        at: Instant,
    },
    Finished {
        reason: FinishReason,
        at: Instant,
    },
    Failed(EngineError),
}

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// The prompt and what has been generated.
    pub(super) tokens: Vec<u32>,
    /// How many of them have their keys and values in the pages.
    pub(super) computed: usize,
    pub(super) pages: Vec<u32>,
    pub(super) parameters: Arc<GenerateParameters>,
    /// The length at which it ends.
    limit: usize,
    sampler: Sampler,
    stop: Arc<StopTokens>,
    events: Sender<Event>,
    cancelled: Arc<AtomicBool>,
    has_started: bool,
    has_ended: bool,
}

impl Sequence {
    pub(super) fn new(request: Request, context: usize) -> Self {
        let Request { tokens, parameters, stop, protected, events, cancelled } = request;
        let limit =
            parameters.max_tokens.map_or(context, |max| tokens.len().saturating_add(max).min(context));
        Self {
            tokens,
            computed: 0,
            pages: Vec::new(),
            limit,
            sampler: Sampler::new(Arc::clone(&parameters), protected),
            parameters,
            stop,
            events,
            cancelled,
            has_started: false,
            has_ended: false,
        }
    }

    /// Begins, or goes on, with pages that hold the first `computed` tokens.
    pub(super) fn admitted(&mut self, pages: Vec<u32>, computed: usize) {
        self.pages = pages;
        self.computed = computed;
        if !self.has_started {
            self.has_started = true;
            self.send(Event::Started { cached: computed, at: Instant::now() });
        }
    }

    /// Whether another token may be generated.
    pub(super) fn wants_more(&self) -> bool {
        self.tokens.len() < self.limit
    }

    /// Takes the next token from the logits after the last one.
    pub(super) fn advance(&mut self, logits: &mut [f32], scratch: &mut Scratch) {
        let Some(sampled) = self.sampler.sample(&self.tokens, logits, scratch) else {
            return self.fail(EngineError::NonFiniteLogits { tokens: self.tokens.len() });
        };
        self.tokens.push(sampled.token);
        self.send(Event::Token { token: sampled.token, logprob: sampled.logprob, at: Instant::now() });
        if self.stop.contains(sampled.token) {
            self.end(FinishReason::Stop);
        } else if !self.wants_more() {
            self.end(FinishReason::Length);
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(super) fn end(&mut self, reason: FinishReason) {
        if !self.has_ended {
            self.has_ended = true;
            self.send(Event::Finished { reason, at: Instant::now() });
        }
    }

    pub(super) fn fail(&mut self, error: EngineError) {
        if !self.has_ended {
            self.has_ended = true;
            self.send(Event::Failed(error));
        }
    }

    fn send(&self, event: Event) {
        if self.events.send(event).is_err() {
            self.cancelled.store(true, Ordering::Relaxed);
        }
    }
}
