use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llguidance::Matcher;
use pippin_sampling::TokenMask;

use crate::numbers::Follower;
use crate::{GrammarError, Vocabulary};

/// When a constraint begins to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// At once.
    #[default]
    Now,
    /// After this marker, which consists of special tokens. What comes before is free, but does not end the answer.
    After(String),
    /// At once, unless the answer begins with the first marker: then after the second.
    Thought {
        /// The token that begins a thought.
        open: String,
        /// The marker that ends it.
        close: String,
    },
}

/// What following an answer may take beyond [`TIME_FOR_TOKEN`] for each of its tokens. Masks are computed while all other answers wait, and
/// those of a grammar that can be read in very many ways take longer with every token.
const TIME: Duration = Duration::from_secs(4);
/// A mask is usually there in less than a hundredth of it.
const TIME_FOR_TOKEN: Duration = Duration::from_millis(20);

/// Follows one answer: which tokens may come next, and whether it is complete.
pub struct Guide {
    vocabulary: Arc<Vocabulary>,
    matcher: Matcher,
    phase: Phase,
    /// The token that begins a thought, where one may.
    open: Option<u32>,
    /// The marker after which the constraint holds.
    close: Vec<u32>,
    /// The last tokens before that, as many as the marker has at most.
    seen: Vec<u32>,
    /// Everything but what would end the answer.
    free: Arc<TokenMask>,
    /// Where in a number it is, if there are documents.
    place: Option<Follower>,
    /// The token that was accepted last.
    last: Option<u32>,
    /// What is left of the time that following the answer may take.
    time: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A thought may begin, or the answer.
    Undecided,
    /// Before the marker.
    Free,
    /// The constraint holds.
    Bound,
    Complete,
}

impl Clone for Guide {
    /// A guide for another answer, which goes on from here by itself. It costs far less than to compile anew.
    fn clone(&self) -> Self {
        // A shallow clone would share the state of its lexer, and wait for it.
        self.with(self.matcher.deep_clone())
    }
}

impl Guide {
    fn with(&self, matcher: Matcher) -> Self {
        Self {
            vocabulary: Arc::clone(&self.vocabulary),
            matcher,
            phase: self.phase,
            open: self.open,
            close: self.close.clone(),
            seen: self.seen.clone(),
            free: Arc::clone(&self.free),
            place: self.place,
            last: self.last,
            time: self.time,
        }
    }

    pub(crate) fn new(
        vocabulary: Arc<Vocabulary>,
        matcher: Matcher,
        start: &Start,
        place: Option<Follower>,
    ) -> Result<Self, GrammarError> {
        let (phase, open, close) = match start {
            Start::Now => (Phase::Bound, None, Vec::new()),
            Start::After(marker) => (Phase::Free, None, marker_tokens(&vocabulary, marker)?),
            Start::Thought { open, close } => match marker_tokens(&vocabulary, open)?[..] {
                [token] => (Phase::Undecided, Some(token), marker_tokens(&vocabulary, close)?),
                _ => {
                    return Err(GrammarError::Marker {
                        marker: open.clone(),
                        problem: "it is several tokens",
                    });
                }
            },
        };
        let mut free = TokenMask::from_words(vocabulary.size, &vec![u32::MAX; vocabulary.size.div_ceil(32)]);
        vocabulary.stop.iter().for_each(|token| free.exclude(*token));
        let (seen, free) = (Vec::new(), Arc::new(free));
        Ok(Self { vocabulary, matcher, phase, open, close, seen, free, place, last: None, time: TIME })
    }

    /// Computes the first mask of the constraint itself.
    pub(crate) fn warm_up(&mut self) -> Result<(), GrammarError> {
        self.bound().map(|_| ())
    }

    /// The tokens that may come next: never none.
    ///
    /// # Errors
    ///
    /// The parser has reached its limits, or no token of the vocabulary goes on as the constraint wants.
    pub fn mask(&mut self) -> Result<Arc<TokenMask>, GrammarError> {
        match self.phase {
            Phase::Free => Ok(Arc::clone(&self.free)),
            Phase::Complete => Ok(Arc::new(self.ends())),
            Phase::Bound => Ok(Arc::new(self.bound()?)),
            Phase::Undecided => {
                let mut mask = self.bound()?;
                self.open.into_iter().for_each(|token| mask.allow(token));
                Ok(Arc::new(mask))
            }
        }
    }

    /// Takes the token that was drawn. Returns whether the answer is complete: nothing can follow, or a stop token has ended it.
    ///
    /// # Errors
    ///
    /// The token was not allowed, or the parser has reached its limits.
    pub fn accept(&mut self, token: u32) -> Result<bool, GrammarError> {
        self.last = Some(token);
        match self.phase {
            Phase::Undecided if self.open == Some(token) => self.phase = Phase::Free,
            Phase::Undecided | Phase::Bound => {
                self.phase = Phase::Bound;
                self.follow(token)?;
            }
            Phase::Free => {
                self.seen.push(token);
                if self.seen.len() > self.close.len() {
                    self.seen.remove(0);
                }
                if self.seen == self.close {
                    self.phase = Phase::Bound;
                }
            }
            Phase::Complete => {}
        }
        Ok(self.is_complete())
    }

    /// Looks at tokens that may come next without accepting them: the mask after each, up to the first that is not allowed or
    /// completes the answer.
    pub fn ahead(&self, tokens: &[u32]) -> Vec<Arc<TokenMask>> {
        // It shares what the lexer has found out, of which both have a use.
        let mut branch = self.with(self.matcher.clone());
        let mut next = |token: &u32| match branch.accept(*token) {
            Ok(false) => branch.mask().ok(),
            _ => None,
        };
        tokens.iter().map_while(&mut next).collect()
    }

    /// The tokens that come next if the constraint leaves no choice of what is written: in what pieces it is written is still the
    /// model's to say, and these are those that the tokenizer would use. Empty where there is a choice. Of the last one, the text may go on.
    pub fn forced(&self) -> Vec<u32> {
        match self.phase {
            Phase::Bound => self.vocabulary.spell(self.last, &self.matcher.clone().compute_ff_bytes()),
            _ => Vec::new(),
        }
    }

    /// Whether the answer is complete.
    pub fn is_complete(&self) -> bool {
        self.phase == Phase::Complete
    }

    fn follow(&mut self, token: u32) -> Result<(), GrammarError> {
        if self.vocabulary.stop.contains(&token) {
            if !self.is_accepting()? {
                return Err(step(format!("the answer ended with token {token} before it was complete")));
            }
            self.phase = Phase::Complete;
            return Ok(());
        }
        if let Some(place) = &mut self.place {
            let bytes = self.vocabulary.bytes(token);
            *place = place.after(bytes).ok_or_else(|| step("a number is too large"))?;
        }
        let begin = Instant::now();
        self.matcher.consume_token(token).map_err(step)?;
        self.time += TIME_FOR_TOKEN;
        self.spend(begin.elapsed())?;
        if self.matcher.is_stopped() {
            // For any reason but this one, there is an error.
            if !self.matcher.stop_reason().is_ok() {
                return Err(step(self.matcher.stop_reason()));
            }
            self.phase = Phase::Complete;
        }
        Ok(())
    }

    fn is_accepting(&mut self) -> Result<bool, GrammarError> {
        self.matcher.is_accepting().map_err(step)
    }

    /// Counts time that following the answer has taken.
    fn spend(&mut self, time: Duration) -> Result<(), GrammarError> {
        self.time = self.time.checked_sub(time).ok_or_else(|| {
            step("it takes too long to find what may come next; what can be read in many ways is slow to follow")
        })?;
        Ok(())
    }

    /// What the constraint allows.
    fn bound(&mut self) -> Result<TokenMask, GrammarError> {
        let begin = Instant::now();
        let is_accepting = self.is_accepting()?;
        let mask = self.matcher.compute_mask();
        self.spend(begin.elapsed())?;
        match mask {
            Ok(mask) => {
                let mut mask = TokenMask::from_words(self.vocabulary.size, mask.as_slice());
                // Not left to the parser: what ends an answer does so where it is complete, and nowhere else.
                let set = if is_accepting { TokenMask::allow } else { TokenMask::exclude };
                self.vocabulary.stop.iter().for_each(|token| set(&mut mask, *token));
                if let Some(place) = self.place {
                    place.limit(&mut mask, self.vocabulary.trie(), &self.vocabulary.large);
                }
                match mask.words().iter().any(|word| *word != 0) {
                    true => Ok(mask),
                    false => Err(step("no token can follow")),
                }
            }
            Err(error) => Err(step(error)),
        }
    }

    /// The stop tokens.
    fn ends(&self) -> TokenMask {
        let mut mask = TokenMask::none(self.vocabulary.size);
        self.vocabulary.stop.iter().for_each(|token| mask.allow(*token));
        mask
    }
}

impl fmt::Debug for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guide").field("phase", &self.phase).finish_non_exhaustive()
    }
}

fn step(problem: impl fmt::Display) -> GrammarError {
    GrammarError::Step { problem: crate::compile::one_line(&problem.to_string()) }
}

/// The tokens of a marker, of which the last one must be special: an ordinary one might hold the beginning of the answer as well.
fn marker_tokens(vocabulary: &Vocabulary, marker: &str) -> Result<Vec<u32>, GrammarError> {
    let tokenizer = &vocabulary.tokenizer;
    let refuse = |problem| GrammarError::Marker { marker: marker.to_owned(), problem };
    let tokens = match tokenizer.token_to_id(marker) {
        Some(token) => vec![token],
        None => tokenizer.encode(marker, false).map_err(|_| refuse("the tokenizer refuses it"))?,
    };
    match tokens.last() {
        Some(last) if tokenizer.is_marker(*last) => {}
        _ => return Err(refuse("it does not end with a special token of this model")),
    }
    if tokens.iter().any(|token| *token as usize >= vocabulary.size || vocabulary.stop.contains(token)) {
        return Err(refuse("the model ends its answers with it, or does not know it"));
    }
    Ok(tokens)
}
