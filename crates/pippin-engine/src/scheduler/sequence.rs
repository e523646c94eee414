use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pippin_models::{Logits, SlotEdit};
use pippin_sampling::{Sampled, Sampler, Scratch, TokenLogprob, TokenScore, random_seed, score};
use pippin_tensor::{Input, LogitRows, Want};
use pippin_text::StopTokens;

use crate::channel::Sender;
use crate::disk::{Bundle, Lookup, Saved};
use crate::kv::{Namespace, Pages, Prefix};
use crate::places::Place;
use crate::speculation::{Drafted, Forced, Guesses, PromptLookup};
use crate::steering::{Next, Steering};
use crate::{EngineError, FinishReason, GenerateParameters, Result};

/// The most guesses that a request may ask for.
const MAX_GUESSES: usize = 32;

/// For how many steps guesses that were not worth it are not waited for.
const PATIENCE: usize = 32;

/// A request as the scheduler takes it.
#[derive(Debug)]
pub(crate) struct Request {
    /// The prompt; at least one token.
    pub(crate) tokens: Vec<u32>,
    pub(crate) parameters: Arc<GenerateParameters>,
    /// What decides beside the model which tokens come.
    pub(crate) steering: Box<Steering>,
    /// What guesses tokens ahead.
    pub(crate) lookup: Option<Box<PromptLookup>>,
    pub(crate) stop: Arc<StopTokens>,
    /// Tokens that XTC never removes.
    pub(crate) protected: Arc<[u32]>,
    pub(crate) events: Sender<Event>,
    /// Set when nobody waits for the answer any more.
    pub(crate) cancelled: Arc<AtomicBool>,
    /// When the answer ends with what there is.
    pub(crate) deadline: Option<Instant>,
    pub(crate) place: Place,
    /// What the caller has kept of an earlier request, which this one may begin with.
    pub(crate) bundle: Option<Arc<Bundle>>,
}

/// Tokens to be scored, as the scheduler takes them.
#[derive(Debug)]
pub(crate) struct ScoreRequest {
    pub(crate) tokens: Vec<u32>,
    /// How many other tokens are reported in the place of each.
    pub(crate) top_logprobs: usize,
    pub(crate) reply: Sender<Result<Vec<TokenScore>>>,
    /// Set when nobody waits for the scores any more.
    pub(crate) cancelled: Arc<AtomicBool>,
    pub(crate) place: Place,
}

/// What a request hears back, in this order: `Started`, any number of `Token`s, with `Guessed` before those of a step that had
/// guesses to check, and `Finished` or `Failed`.
#[derive(Debug)]
pub(crate) enum Event {
    /// The first step is about to run.
    Started {
        /// Prompt tokens whose keys and values were already there.
        cached: usize,
        at: Instant,
    },
    /// So many tokens of the prompt are computed. Only where that is asked for.
    Read(usize),
    /// A token, the stop token included.
    Token {
        token: u32,
        logprob: Option<f32>,
        top_logprobs: Vec<TokenLogprob>,
        at: Instant,
    },
    /// So many tokens were guessed ahead, of which so many are right.
    Guessed {
        tokens: usize,
        right: usize,
    },
    Finished {
        reason: FinishReason,
        at: Instant,
    },
    Failed(EngineError),
}

/// Tokens on their way through the model.
#[derive(Debug)]
pub(super) struct Sequence {
    /// The prompt and what has been generated.
    pub(super) tokens: Vec<u32>,
    /// Tokens of the prompt.
    prompt: usize,
    /// How many tokens are computed for certain.
    pub(super) computed: usize,
    /// How many tokens are computed once all steps on their way are finished.
    pub(super) submitted: usize,
    /// Tokens that these steps draw.
    drawn: usize,
    /// Steps on their way that it is part of.
    pub(super) flying: usize,
    /// The last token and what may follow it, while that is checked; otherwise nothing.
    guessed: Vec<u32>,
    pub(super) pages: Pages,
    /// Its place on the device, while it runs.
    pub(super) slot: usize,
    /// Full pages that others can find.
    pub(super) published: usize,
    /// Tokens with which another sequence began alike, although one could not go on there.
    pub(super) branch: usize,
    /// Those with whom it shares prefixes.
    pub(super) namespace: Namespace,
    /// What is kept of its beginning outside of the caches.
    pub(super) outside: Outside,
    /// Steps in which it could have gone on, but had no part.
    pub(super) waited: usize,
    /// Until this many tokens are computed it runs alone: a step with it has failed.
    pub(super) suspect_until: usize,
    /// Those with a higher one go first.
    pub(super) priority: i32,
    /// When it ends with what there is.
    pub(super) deadline: Option<Instant>,
    /// Its place among the model's requests, until it has ended.
    place: Place,
    /// Whether the state in its slot is that after `submitted` tokens.
    pub(super) has_sound_state: bool,
    has_ended: bool,
    has_failed: bool,
    work: Work,
}

/// What is kept of a sequence's beginning outside of the caches.
#[derive(Debug)]
pub(super) enum Outside {
    /// The caller has brought it along.
    Brought(Arc<Bundle>),
    /// Nobody has asked the disk yet.
    Unknown,
    /// The disk has been asked.
    Asked(Lookup),
    /// The answer, which is used once.
    Known(Option<Saved>),
}

/// What a sequence is computed for.
#[derive(Debug)]
enum Work {
    Answer(Answer),
    Score(Score),
}

#[derive(Debug)]
struct Answer {
    /// With a seed, so that it can be resumed.
    parameters: Arc<GenerateParameters>,
    steering: Box<Steering>,
    lookup: Option<Box<PromptLookup>>,
    /// What the constraint leaves no choice about, where guesses can be checked.
    forced: Option<Forced>,
    /// The most tokens that a draft model guesses ahead.
    draft: usize,
    /// Steps in which guesses are not waited for, because they were not worth it.
    patience: usize,
    protected: Arc<[u32]>,
    /// The length at which it ends.
    limit: usize,
    stop: Arc<StopTokens>,
    events: Sender<Event>,
    cancelled: Arc<AtomicBool>,
    has_started: bool,
}

#[derive(Debug)]
struct Score {
    scores: Vec<TokenScore>,
    top_logprobs: usize,
    reply: Sender<Result<Vec<TokenScore>>>,
    cancelled: Arc<AtomicBool>,
}

impl Answer {
    /// Whether the token on its way is waited for, because what follows it can probably be guessed.
    fn waits_for_guesses(&self) -> bool {
        let is_confident = self.lookup.as_ref().is_some_and(|lookup| lookup.is_confident());
        self.patience == 0 && (is_confident || self.draft > 0)
    }

    fn send(&self, event: Event) {
        if self.events.send(event).is_err() {
            self.cancelled.store(true, Ordering::Relaxed);
        }
    }
}

impl Sequence {
    /// A prompt to be answered.
    pub(super) fn answer(request: Request, context: usize, can_draft: bool, can_rewind: bool) -> Self {
        let Request { tokens, mut parameters, steering, lookup, stop, protected, .. } = request;
        let Request { events, cancelled, deadline, place, bundle, .. } = request;
        let namespace = Namespace::new(parameters.cache_namespace.as_deref());
        let outside = bundle.map_or(Outside::Unknown, Outside::Brought);
        let priority = parameters.priority;
        if parameters.seed.is_none() {
            Arc::make_mut(&mut parameters).seed = Some(random_seed());
        }
        let limit =
            parameters.max_tokens.map_or(context, |max| tokens.len().saturating_add(max).min(context));
        let answer = Answer {
            forced: (can_rewind && parameters.constraint.is_some()).then(Forced::default),
            draft: if can_draft && can_rewind { parameters.draft_tokens } else { 0 },
            parameters,
            steering,
            lookup,
            patience: 0,
            protected,
            limit,
            stop,
            events,
            cancelled,
            has_started: false,
        };
        Self { priority, deadline, namespace, outside, ..Self::new(tokens, place, Work::Answer(answer)) }
    }

    /// Tokens to be scored; `None` where there is nothing to compute, which is answered at once.
    pub(super) fn score(request: ScoreRequest) -> Option<Self> {
        let ScoreRequest { tokens, top_logprobs, reply, cancelled, place } = request;
        if tokens.len() < 2 {
            drop(place);
            // A failed send means that nobody waits for the answer any more.
            let _ = reply.send(Ok(Vec::new()));
            return None;
        }
        let scores = Vec::with_capacity(tokens.len() - 1);
        Some(Self::new(tokens, place, Work::Score(Score { scores, top_logprobs, reply, cancelled })))
    }

    fn new(tokens: Vec<u32>, place: Place, work: Work) -> Self {
        Self {
            prompt: tokens.len(),
            tokens,
            computed: 0,
            submitted: 0,
            drawn: 0,
            flying: 0,
            guessed: Vec::new(),
            pages: Pages::new(),
            slot: usize::MAX,
            published: 0,
            branch: 0,
            namespace: Namespace::default(),
            outside: Outside::Unknown,
            waited: 0,
            suspect_until: 0,
            priority: 0,
            deadline: None,
            place,
            has_sound_state: true,
            has_ended: false,
            has_failed: false,
            work,
        }
    }

    /// Begins, or goes on, in a slot, with pages that hold the first `computed` tokens.
    pub(super) fn admitted(&mut self, slot: usize, pages: Pages, computed: usize) {
        (self.slot, self.pages) = (slot, pages);
        (self.computed, self.submitted, self.published) = (computed, computed, 0);
        (self.waited, self.has_sound_state) = (0, true);
        if let Work::Answer(answer) = &mut self.work
            && !answer.has_started
        {
            answer.has_started = true;
            answer.send(Event::Started { cached: computed, at: Instant::now() });
            self.tell_progress();
        }
    }

    /// Gives up its place; what was computed is no longer its own.
    pub(super) fn suspended(&mut self) -> Pages {
        (self.computed, self.submitted, self.drawn, self.slot) = (0, 0, 0, usize::MAX);
        self.guessed.clear();
        if let Work::Score(score) = &mut self.work {
            score.scores.clear();
        }
        std::mem::take(&mut self.pages)
    }

    /// All of its tokens, for those who begin alike.
    pub(super) fn whole(&self) -> Prefix<'_> {
        self.prefix(self.tokens.len())
    }

    /// Its first tokens, for those who begin alike.
    pub(super) fn prefix(&self, tokens: usize) -> Prefix<'_> {
        Prefix::new(&self.namespace, &self.tokens[..tokens])
    }

    /// Whether it is scored rather than continued.
    pub(super) fn is_score(&self) -> bool {
        matches!(self.work, Work::Score(_))
    }

    /// How many of its tokens can be computed now, those included that are on their way from the device.
    pub(super) fn missing(&self) -> usize {
        let length = match &self.work {
            // The logits after the last token say nothing about any of them.
            Work::Score(_) => self.tokens.len() - 1,
            Work::Answer(answer) if answer.limit == self.prompt => self.tokens.len(),
            // The last token is never fed back.
            Work::Answer(answer) if self.tokens.len() + self.drawn >= answer.limit => return 0,
            // Which tokens may come next is known when the last one is.
            Work::Answer(answer) if !answer.steering.is_known(self.drawn) => return 0,
            // So is what may follow it.
            Work::Answer(answer) if self.drawn > 0 && answer.waits_for_guesses() => return 0,
            Work::Answer(_) => self.tokens.len() + self.drawn,
        };
        length.saturating_sub(self.submitted)
    }

    /// The next tokens to compute, so many of the missing ones.
    pub(super) fn input(&self, rows: usize) -> Input<'_> {
        if !self.guessed.is_empty() {
            return Input::Tokens(&self.guessed);
        }
        match self.tokens.get(self.submitted..self.submitted + rows) {
            Some(tokens) => Input::Tokens(tokens),
            None => Input::Sampled,
        }
    }

    /// What is wanted of the next tokens, if they are so many.
    pub(super) fn want(&self, rows: usize) -> Want {
        match &self.work {
            Work::Score(_) => Want::Logits(LogitRows::All),
            Work::Answer(answer) => {
                let length = self.tokens.len() + self.drawn;
                let is_last = self.submitted + rows == length && length < answer.limit;
                if is_last { Want::Sample } else { Want::Nothing }
            }
        }
    }

    /// What may follow the last token, with the chance of each to be right. Nothing where that token is not known yet.
    pub(super) fn guess(&mut self) -> Guesses {
        let Some(most) = self.room_for_guesses().filter(|most| *most > 0) else { return Guesses::new() };
        let Work::Answer(Answer { lookup, forced, steering, .. }) = &mut self.work else {
            return Guesses::new();
        };
        let forced = forced.as_mut().map(|forced| forced.guess(&self.tokens, most, || steering.forced()));
        match (forced.filter(|forced| !forced.is_empty()), lookup) {
            (Some(forced), _) => forced,
            (None, Some(lookup)) => lookup.guess(&self.tokens, most).collect(),
            (None, None) => Guesses::new(),
        }
    }

    /// What a draft model is asked to go on with, unless what repeats, or is forced, promises more.
    pub(super) fn drafted(&self) -> Option<Drafted<'_>> {
        let Work::Answer(answer) = &self.work else { return None };
        let is_confident = answer.lookup.as_ref().is_some_and(|lookup| lookup.is_confident())
            || answer.forced.as_ref().is_some_and(|forced| forced.knows(&self.tokens));
        let most = self.room_for_guesses()?.min(answer.draft);
        (most > 0 && !is_confident).then_some(Drafted { slot: self.slot, tokens: &self.tokens, most })
    }

    /// How many guesses can follow the last token, if that is known: after the last guess a token is drawn, and nothing but the
    /// constraint may change what is allowed before.
    fn room_for_guesses(&self) -> Option<usize> {
        let Work::Answer(answer) = &self.work else { return None };
        if self.drawn > 0 || self.submitted + 1 != self.tokens.len() {
            return None;
        }
        let most = answer.limit.saturating_sub(self.tokens.len() + 1).min(MAX_GUESSES);
        (0..=most).rev().find(|guesses| answer.steering.is_even(*guesses))
    }

    /// Decides what of it is computed with the last token: nothing, if it was not worth it. Returns the change to its slot before that
    /// is checked.
    pub(super) fn set_guess(&mut self, guess: &[u32]) -> Option<SlotEdit> {
        let Work::Answer(answer) = &mut self.work else { return None };
        let masks = if guess.is_empty() { None } else { answer.steering.look_ahead(guess) };
        // What the constraint does not allow is not computed.
        let guess = &guess[..masks.as_ref().map_or(guess.len(), |masks| masks.len().min(guess.len()))];
        let is_worth_it = !guess.is_empty();
        answer.patience = if is_worth_it { 0 } else { PATIENCE };
        self.guessed.clear();
        if is_worth_it {
            self.guessed.extend(self.tokens.last());
            self.guessed.extend(guess);
        }
        masks.filter(|_| is_worth_it).map(|masks| SlotEdit::MasksAhead { slot: self.slot, masks })
    }

    /// How many guesses are to be computed with its last token.
    pub(super) fn guesses(&self) -> usize {
        self.guessed.len().saturating_sub(1)
    }

    /// The next tokens are on their way.
    pub(super) fn launched(&mut self, rows: usize, want: Want) {
        self.drawn += usize::from(matches!(want, Want::Sample | Want::Verify));
        if let Work::Answer(answer) = &mut self.work {
            answer.patience = answer.patience.saturating_sub(1);
        }
        self.submitted += rows;
        self.flying += 1;
    }

    /// A step is finished, in which so many of its tokens were computed; what was wanted of it follows.
    pub(super) fn landed(&mut self, rows: usize) {
        self.computed += rows;
        self.flying -= 1;
        self.tell_progress();
        if let Work::Answer(answer) = &self.work
            && answer.limit == self.prompt
            && self.computed == self.prompt
        {
            self.end(FinishReason::Length);
        }
    }

    /// Tells how much of the prompt is computed, where that is asked for.
    fn tell_progress(&self) {
        if let Work::Answer(answer) = &self.work
            && answer.parameters.prompt_progress
            && self.tokens.len() == self.prompt
        {
            answer.send(Event::Read(self.computed.min(self.prompt)));
        }
    }

    /// Takes the token that was drawn after what is computed. Returns the change to its slot before the next one can be drawn.
    pub(super) fn advance(&mut self, sampled: Option<Sampled>) -> Option<SlotEdit> {
        self.drawn -= 1;
        let has_changed = self.take(sampled);
        if has_changed && !self.has_ended { self.mask() } else { None }
    }

    /// Takes the tokens that were drawn after the last one and the guesses that were right. What was computed beyond them
    /// is forgotten. Returns the change to its slot before the next one can be drawn.
    pub(super) fn verified(&mut self, drawn: Vec<Option<Sampled>>) -> Option<SlotEdit> {
        self.drawn -= 1;
        if let (Work::Answer(answer), false) = (&self.work, self.has_ended) {
            let (tokens, right) = (self.guesses(), drawn.len().saturating_sub(1));
            answer.send(Event::Guessed { tokens, right });
        }
        let mut has_changed = false;
        for sampled in drawn {
            has_changed |= self.take(sampled);
            if self.has_ended {
                break;
            }
        }
        self.computed = self.computed.min(self.tokens.len());
        self.submitted = self.computed;
        self.guessed.clear();
        if has_changed && !self.has_ended { self.mask() } else { None }
    }

    /// Returns whether other tokens may come next than might have come in its place.
    fn take(&mut self, sampled: Option<Sampled>) -> bool {
        let Work::Answer(answer) = &mut self.work else { return false };
        let Some(Sampled { token, logprob, top_logprobs }) = sampled else {
            self.fail(EngineError::NonFiniteLogits { tokens: self.tokens.len() });
            return false;
        };
        // Also when it has been cancelled: the token may be on its way through the model already.
        self.tokens.push(token);
        if self.has_ended {
            return false;
        }
        if let Some(lookup) = &mut answer.lookup {
            lookup.push(&self.tokens);
        }
        answer.send(Event::Token { token, logprob, top_logprobs, at: Instant::now() });
        let is_last = self.tokens.len() >= answer.limit;
        let next = match answer.stop.contains(token) {
            true => Ok(Next::End),
            false => answer.steering.accept(token, is_last),
        };
        match next {
            Ok(Next::End) => self.end(FinishReason::Stop),
            Ok(_) if is_last => self.end(FinishReason::Length),
            Ok(next) => return next == Next::Changed,
            Err(error) => self.fail(error.into()),
        }
        false
    }

    /// The tokens that may come next, where that is decided from token to token.
    pub(super) fn mask(&self) -> Option<SlotEdit> {
        let Work::Answer(answer) = &self.work else { return None };
        let mask = answer.steering.mask().cloned();
        answer.steering.is_needed().then_some(SlotEdit::Mask { slot: self.slot, mask })
    }

    /// Takes the logits of the next tokens that are scored.
    pub(super) fn scored(&mut self, logits: &Logits) {
        let Work::Score(Score { scores, top_logprobs, .. }) = &mut self.work else { return };
        let mut scratch = Scratch::default();
        for row in 0..logits.rows {
            let length = scores.len() + 1;
            match score(logits.row(row), self.tokens[length], *top_logprobs, &mut scratch) {
                Some(score) => scores.push(score),
                None => return self.fail(EngineError::NonFiniteLogits { tokens: length }),
            }
        }
        if scores.len() == self.tokens.len() - 1 {
            self.end(FinishReason::Length);
        }
    }

    /// What was on its way is lost. Returns the edit that puts the slot's sampler back to where it was.
    pub(super) fn rolled_back(&mut self) -> Option<SlotEdit> {
        (self.submitted, self.drawn, self.flying) = (self.computed, 0, 0);
        self.guessed.clear();
        self.has_sound_state = false;
        self.sampler()
    }

    /// What draws the next tokens, if any are drawn.
    pub(super) fn sampler(&self) -> Option<SlotEdit> {
        let Work::Answer(answer) = &self.work else { return None };
        if answer.limit == self.prompt {
            return None;
        }
        let (parameters, protected) = (Arc::clone(&answer.parameters), Arc::clone(&answer.protected));
        let mut sampler = Sampler::new(parameters, protected, &self.tokens);
        sampler.skip(self.tokens.len() - self.prompt);
        sampler.set_mask(answer.steering.mask().cloned());
        Some(SlotEdit::Sampler { slot: self.slot, sampler: Box::new(sampler) })
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.computed < self.suspect_until
    }

    /// Why it ends now, if it does: nobody waits for it any more, or its time is up.
    pub(super) fn has_to_end(&self, now: Instant) -> Option<FinishReason> {
        let (Work::Answer(Answer { cancelled, .. }) | Work::Score(Score { cancelled, .. })) = &self.work;
        match self.deadline {
            _ if cancelled.load(Ordering::Relaxed) => Some(FinishReason::Cancelled),
            Some(deadline) if deadline <= now => Some(FinishReason::TimeLimit),
            _ => None,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    pub(super) fn end(&mut self, reason: FinishReason) {
        if self.has_ended {
            return;
        }
        self.has_ended = true;
        // Whoever learns of the end finds the place free.
        self.place = Place::default();
        match &mut self.work {
            Work::Answer(answer) => answer.send(Event::Finished { reason, at: Instant::now() }),
            Work::Score(Score { scores, reply, .. }) => {
                let _ = reply.send(match reason {
                    FinishReason::Cancelled => Err(EngineError::ScoreCancelled),
                    _ => Ok(std::mem::take(scores)),
                });
            }
        }
    }

    pub(super) fn fail(&mut self, error: EngineError) {
        self.has_failed = true;
        if self.has_ended {
            return;
        }
        self.has_ended = true;
        self.place = Place::default();
        match &self.work {
            Work::Answer(answer) => answer.send(Event::Failed(error)),
            Work::Score(Score { reply, .. }) => {
                let _ = reply.send(Err(error));
            }
        }
    }
}
