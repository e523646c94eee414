//! What decides, beside the model, which token of an answer comes next.

use std::sync::Arc;

use pippin_grammar::GrammarError;
use pippin_sampling::TokenMask;
use pippin_text::StopTokens;

use crate::GenerateParameters;
use crate::constrained::Constrained;
use crate::thought::Thought;

/// What holds for the token after one that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// There is none: the answer is complete.
    End,
    /// The mask is another.
    Changed,
    /// The mask is the same.
    Same,
}

/// The tokens that may come next in one answer: those that its constraint allows, none that ends it too early, and those
/// that close a thought when its budget is spent.
#[derive(Debug, Default)]
pub(crate) struct Steering {
    constrained: Option<Box<Constrained>>,
    least: Option<Least>,
    thought: Option<Box<Thought>>,
    /// Tokens of the model.
    vocab: usize,
    /// Tokens that were accepted.
    generated: usize,
    mask: Option<Arc<TokenMask>>,
}

/// A number of tokens before which an answer does not end.
#[derive(Debug)]
struct Least {
    tokens: usize,
    /// What would end it.
    stop: Arc<StopTokens>,
    /// Everything else.
    free: Arc<TokenMask>,
}

impl Steering {
    /// For an answer of a model with `vocab` tokens that ends at those of `stop`.
    pub(crate) fn new(
        parameters: &GenerateParameters,
        constrained: Option<Box<Constrained>>,
        thought: Option<Box<Thought>>,
        stop: &Arc<StopTokens>,
        vocab: usize,
    ) -> Self {
        let least = (parameters.min_tokens > 0 && !stop.is_empty()).then(|| {
            let mut free = TokenMask::from_words(vocab, &vec![u32::MAX; vocab.div_ceil(32)]);
            stop.iter().for_each(|token| free.exclude(token));
            Least { tokens: parameters.min_tokens, stop: Arc::clone(stop), free: Arc::new(free) }
        });
        let mut steering = Self { constrained, least, thought, vocab, generated: 0, mask: None };
        steering.mask = steering.allowed();
        steering
    }

    /// What the next token is drawn from; `None`: from all.
    pub(crate) fn mask(&self) -> Option<&Arc<TokenMask>> {
        self.mask.as_ref()
    }

    /// Whether there is, or was, a mask at all.
    pub(crate) fn is_needed(&self) -> bool {
        self.constrained.is_some() || self.least.is_some() || self.thought.is_some()
    }

    /// Whether the mask holds for the token after `drawn` more, whatever these are.
    pub(crate) fn is_known(&self, drawn: usize) -> bool {
        drawn == 0 || self.constrained.is_none() && self.is_even(drawn)
    }

    /// Whether nothing but the constraint changes the mask before the token after `drawn` more.
    pub(crate) fn is_even(&self, drawn: usize) -> bool {
        let is_early = |generated| self.least.as_ref().is_some_and(|least| generated < least.tokens);
        let is_free = self.thought.as_ref().is_none_or(|thought| thought.is_free(drawn));
        is_free && is_early(self.generated) == is_early(self.generated + drawn)
    }

    /// The tokens that come next where the constraint leaves hardly a choice.
    pub(crate) fn forced(&self) -> Vec<u32> {
        self.constrained.as_ref().map(|constrained| constrained.forced()).unwrap_or_default()
    }

    /// The masks after guesses of what comes next, before which nothing but the constraint changes them: as many as may follow one
    /// another. `None` where the mask stays what it is.
    pub(crate) fn look_ahead(&mut self, guesses: &[u32]) -> Option<Vec<Option<Arc<TokenMask>>>> {
        let is_early = self.is_early();
        let Self { constrained, least, .. } = self;
        let masks = constrained.as_mut()?.look_ahead(guesses);
        Some(masks.map(|bound| least_of(least.as_ref().filter(|_| is_early), Some(bound))).collect())
    }

    /// Takes a token that does not end the answer by itself.
    ///
    /// # Errors
    ///
    /// The constraint cannot be followed any further.
    pub(crate) fn accept(&mut self, token: u32, is_last: bool) -> Result<Next, GrammarError> {
        self.generated += 1;
        if let Some(thought) = &mut self.thought {
            thought.accept(token);
        }
        if let Some(constrained) = &mut self.constrained {
            if constrained.accept(token)? {
                return Ok(Next::End);
            }
            if !is_last {
                constrained.advance()?;
            }
        }
        let mask = self.allowed();
        let is_same = match (&mask, &self.mask) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            (new, old) => new.is_none() && old.is_none(),
        };
        self.mask = mask;
        Ok(if is_same { Next::Same } else { Next::Changed })
    }

    fn allowed(&mut self) -> Option<Arc<TokenMask>> {
        if let Some((thought, token)) = self.thought.as_mut().and_then(|t| t.forced().map(|token| (t, token)))
        {
            // The white space after the marker may be none that the constraint knows.
            if self.constrained.as_ref().is_none_or(|constrained| constrained.mask().allows(token)) {
                let mut mask = TokenMask::none(self.vocab);
                mask.allow(token);
                return Some(Arc::new(mask));
            }
            thought.release();
        }
        let bound = self.constrained.as_ref().map(|constrained| constrained.mask());
        least_of(self.least.as_ref().filter(|_| self.is_early()), bound)
    }

    /// Whether the answer must not end yet.
    fn is_early(&self) -> bool {
        self.least.as_ref().is_some_and(|least| self.generated < least.tokens)
    }
}

/// What a constraint allows, without an end where that would be too early.
fn least_of(least: Option<&Least>, bound: Option<&Arc<TokenMask>>) -> Option<Arc<TokenMask>> {
    let Some(least) = least else { return bound.cloned() };
    let Some(bound) = bound else { return Some(Arc::clone(&least.free)) };
    if !least.stop.iter().any(|token| bound.allows(token)) {
        return Some(Arc::clone(bound));
    }
    let mut mask = (**bound).clone();
    least.stop.iter().for_each(|token| mask.exclude(token));
    // Where nothing but an end is left, the constraint wants it.
    let has_more = mask.words().iter().any(|word| *word != 0);
    Some(if has_more { Arc::new(mask) } else { Arc::clone(bound) })
}
