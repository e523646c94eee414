//! Guesses from a sequence's own tokens: what followed the last time that it went on like this.

use std::collections::HashMap;

use pippin_models::CacheLayout;

use crate::GenerateParameters;

/// How far back the tokens before a place are compared with the last ones: beyond, a longer likeness says nothing more.
const MAX_LIKENESS: usize = 16;

/// The least likeness of each class, and how often a guess of the class is taken to be right before any was checked.
const CLASSES: [(usize, f32); 4] = [(0, 0.3), (3, 0.5), (5, 0.65), (9, 0.8)];

/// The likeness from which on the next token may be waited for ([`PromptLookup::is_confident`]).
const CONFIDENT: f32 = 0.7;

/// Finds where a sequence has been before: the last place before which stand the same three tokens as at its end, or the
/// same two.
///
/// While the sequence follows such a place, the place is kept, so that the longest likeness counts. How often the next token is
/// right depends on how long the likeness is, and is counted by classes of that, whether or not the guess was
/// computed: a sequence in which guesses are wrong costs nothing, and is noticed as soon as they are right.
///
/// An n-gram is looked up when it is entered, so a token costs the same whatever the length of the sequence.
#[derive(Debug)]
pub(crate) struct PromptLookup {
    /// The most tokens that are guessed at once.
    most: usize,
    /// For each n-gram, the index of the token after its last occurrence. Tokens are what users choose, so the map's hash is
    /// the standard library's, which nobody can aim at.
    trigrams: HashMap<[u32; 3], u32>,
    bigrams: HashMap<[u32; 2], u32>,
    place: Option<Place>,
    rates: [Rate; CLASSES.len()],
}

/// A place in the sequence that went on as its end may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// The index of the token that is expected next.
    next: usize,
    /// How many tokens before it are the last ones of the sequence.
    likeness: usize,
}

/// How often guesses were right, the last ones counting most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    right: f32,
    all: f32,
}

impl Rate {
    /// What one more guess leaves of those before it.
    const MEMORY: f32 = 0.95;
    /// How many guesses the first assumption counts for.
    const ASSUMED: f32 = 4.0;

    pub(super) fn assumed(share: f32) -> Self {
        Self { right: Self::ASSUMED * share, all: Self::ASSUMED }
    }

    pub(super) fn count(&mut self, is_right: bool) {
        self.right = self.right * Self::MEMORY + f32::from(u8::from(is_right));
        self.all = self.all * Self::MEMORY + 1.0;
    }

    pub(super) fn share(self) -> f32 {
        self.right / self.all
    }
}

impl PromptLookup {
    /// What a request needs of it: nothing unless it asks for it, and nothing if the model's past cannot be cut back.
    pub(crate) fn of(
        parameters: &GenerateParameters,
        cache: &CacheLayout,
        prompt: &[u32],
    ) -> Option<Box<Self>> {
        let is_wanted = parameters.prompt_lookup > 0 && cache.can_rewind();
        is_wanted.then(|| Box::new(Self::new(prompt, parameters.prompt_lookup)))
    }

    fn new(prompt: &[u32], most: usize) -> Self {
        let mut lookup = Self {
            most,
            trigrams: HashMap::with_capacity(prompt.len()),
            bigrams: HashMap::with_capacity(prompt.len()),
            place: None,
            rates: CLASSES.map(|(_, share)| Rate::assumed(share)),
        };
        for end in 1..=prompt.len() {
            lookup.place = lookup.enter(&prompt[..end]);
        }
        lookup
    }

    /// Takes note of the last one of a sequence's tokens, which is new.
    pub(crate) fn push(&mut self, tokens: &[u32]) {
        let followed = self.place.take().and_then(|Place { next, likeness }| {
            let is_right = tokens.get(next) == tokens.last();
            self.rates[class(likeness)].count(is_right);
            is_right.then_some(Place { next: next + 1, likeness: likeness + 1 })
        });
        let found = self.enter(tokens);
        self.place = followed.or(found);
    }

    /// Enters the n-grams at the end, and finds where they ended before.
    fn enter(&mut self, tokens: &[u32]) -> Option<Place> {
        let end = tokens.len();
        let trigram = tokens.last_chunk().and_then(|trigram| self.trigrams.insert(*trigram, end as u32));
        let bigram = tokens.last_chunk().and_then(|bigram| self.bigrams.insert(*bigram, end as u32));
        let next = trigram.or(bigram)? as usize;
        let pairs = tokens[..next].iter().rev().zip(tokens.iter().rev());
        let likeness = pairs.take(MAX_LIKENESS).take_while(|(before, last)| before == last).count();
        Some(Place { next, likeness })
    }

    /// What may follow the tokens, at most so many of them, each with the chance that it and those before it are right.
    pub(crate) fn guess(&self, tokens: &[u32], most: usize) -> impl Iterator<Item = (u32, f32)> {
        let (next, likeness) = self.place.map_or((0, 0), |place| (place.next, place.likeness));
        let count = if self.place.is_some() { most.min(self.most) } else { 0 };
        let mut chance = 1.0;
        (0..count).map_while(move |index| {
            chance *= self.rates[class(likeness + index)].share();
            // What has been guessed is followed by what followed that.
            let known = tokens.len().checked_sub(next).filter(|known| *known > 0)?;
            Some((*tokens.get(next + index % known)?, chance))
        })
    }

    /// Whether the next token is expected to be right. A device that feeds tokens back by itself is made to wait for it then,
    /// because what follows it can be guessed.
    pub(crate) fn is_confident(&self) -> bool {
        self.place.is_some_and(|place| self.rates[class(place.likeness)].share() >= CONFIDENT)
    }
}

fn class(likeness: usize) -> usize {
    CLASSES.iter().rposition(|(least, _)| likeness >= *least).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guesses(lookup: &PromptLookup, tokens: &[u32], most: usize) -> Vec<u32> {
        lookup.guess(tokens, most).map(|(token, _)| token).collect()
    }

    #[test]
    fn what_followed_is_guessed() {
        let tokens = [1, 2, 3, 4, 5, 9, 1, 2, 3];
        let lookup = PromptLookup::new(&tokens, 4);
        assert_eq!(guesses(&lookup, &tokens, 8), [4, 5, 9, 1]);
        assert_eq!(guesses(&lookup, &tokens, 2), [4, 5]);
        // Two tokens do where no three are the same; one does not.
        let tokens = [1, 2, 3, 7, 2, 3];
        assert_eq!(guesses(&PromptLookup::new(&tokens, 2), &tokens, 8), [7, 2]);
        let tokens = [1, 2, 3, 7, 3];
        assert!(guesses(&PromptLookup::new(&tokens, 2), &tokens, 8).is_empty());
        for short in [&[][..], &[1], &[1, 1]] {
            assert!(guesses(&PromptLookup::new(short, 4), short, 8).is_empty());
        }
    }

    #[test]
    fn three_tokens_count_more_than_two_and_later_places_more_than_earlier_ones() {
        let tokens = [1, 2, 3, 4, 9, 2, 3, 5, 8, 1, 2, 3];
        assert_eq!(guesses(&PromptLookup::new(&tokens, 1), &tokens, 8), [4]);
        let tokens = [1, 2, 3, 4, 9, 1, 2, 3, 5, 8, 1, 2, 3];
        assert_eq!(guesses(&PromptLookup::new(&tokens, 1), &tokens, 8), [5]);
    }

    #[test]
    fn a_place_that_is_followed_is_kept() {
        // "5 6 7 1" has occurred, and later "6 7 2": whoever came from 5 goes on with 1.
        let mut tokens = vec![5, 6, 7, 1, 9, 6, 7, 2, 8, 4, 5, 6];
        let mut lookup = PromptLookup::new(&tokens, 1);
        assert_eq!(guesses(&lookup, &tokens, 8), [7]);
        tokens.push(7);
        lookup.push(&tokens);
        assert_eq!(guesses(&lookup, &tokens, 8), [1]);
    }

    #[test]
    fn repetitions_go_on_for_ever() {
        let tokens = [7, 1, 2, 1, 2, 1, 2];
        assert_eq!(guesses(&PromptLookup::new(&tokens, 7), &tokens, 8), [1, 2, 1, 2, 1, 2, 1]);
        let tokens = [5, 5, 5];
        assert_eq!(guesses(&PromptLookup::new(&tokens, 3), &tokens, 8), [5, 5, 5]);
    }

    #[test]
    fn chances_follow_what_happens() {
        let mut tokens: Vec<u32> = (0..200).chain([300, 0, 1, 2]).collect();
        let mut lookup = PromptLookup::new(&tokens, 4);
        let first =
            |lookup: &PromptLookup, tokens: &[u32]| lookup.guess(tokens, 1).next().map(|(_, chance)| chance);
        let assumed = first(&lookup, &tokens).expect("a guess");
        assert!(!lookup.is_confident());
        for token in 3..40 {
            tokens.push(token);
            lookup.push(&tokens);
        }
        let learnt = first(&lookup, &tokens).expect("a guess");
        assert!(learnt > 0.95 && learnt > assumed && lookup.is_confident(), "{learnt}");
        let chances: Vec<f32> = lookup.guess(&tokens, 4).map(|(_, chance)| chance).collect();
        assert!(chances.windows(2).all(|pair| pair[1] < pair[0]), "{chances:?}");
        // Pairs that are never followed by what followed them before lose all credit.
        let mut tokens = vec![1, 2];
        let mut lookup = PromptLookup::new(&tokens, 4);
        for token in 10..60 {
            tokens.extend([token]);
            lookup.push(&tokens);
            for token in [1, 2] {
                tokens.push(token);
                lookup.push(&tokens);
            }
        }
        let lost = first(&lookup, &tokens).expect("a guess");
        assert!(lost < 0.05 && !lookup.is_confident(), "{lost}");
    }

    proptest! {
        /// Token by token gives what the whole gives at once, and places are where they say.
        #[test]
        fn places_are_right(tokens in prop::collection::vec(0u32..4, 0..60), cut in 0usize..60) {
            let cut = cut.min(tokens.len());
            let mut lookup = PromptLookup::new(&tokens[..cut], 4);
            for end in cut + 1..=tokens.len() {
                lookup.push(&tokens[..end]);
            }
            let whole = PromptLookup::new(&tokens, 4);
            prop_assert_eq!(&lookup.trigrams, &whole.trigrams);
            prop_assert_eq!(&lookup.bigrams, &whole.bigrams);
            for place in lookup.place.into_iter().chain(whole.place) {
                prop_assert!(place.next < tokens.len() && place.likeness >= 2);
                let seen = place.likeness.min(MAX_LIKENESS).min(place.next);
                prop_assert!(tokens[..place.next].ends_with(&tokens[tokens.len() - seen..]));
            }
            // There is one exactly where the last two tokens have occurred before.
            let has_occurred = tokens.len() > 2
                && tokens[..tokens.len() - 1].windows(2).any(|pair| pair == &tokens[tokens.len() - 2..]);
            prop_assert_eq!(lookup.place.is_some(), has_occurred);
            prop_assert_eq!(whole.place.is_some(), has_occurred);
        }
    }
}
