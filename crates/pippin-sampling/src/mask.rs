/// Tokens that may come next, one bit for each id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u32>,
    vocab: usize,
}

impl TokenMask {
    /// A mask of `vocab` tokens that excludes all of them.
    pub fn none(vocab: usize) -> Self {
        Self { words: vec![0; vocab.div_ceil(32)], vocab }
    }

    /// A mask of `vocab` tokens from its bits: token `i` is bit `i % 32` of word `i / 32`. Words that are missing exclude their
    /// tokens, and bits beyond the vocabulary are dropped.
    pub fn from_words(vocab: usize, words: &[u32]) -> Self {
        let mut mask = Self::none(vocab);
        mask.words.iter_mut().zip(words).for_each(|(word, bits)| *word = *bits);
        if let (Some(last), rest @ 1..) = (mask.words.last_mut(), vocab % 32) {
            *last &= (1 << rest) - 1;
        }
        mask
    }

    /// The number of tokens that it speaks of; all others are excluded.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Allows a token. One beyond the vocabulary stays excluded.
    pub fn allow(&mut self, token: u32) {
        if (token as usize) < self.vocab {
            self.words[token as usize / 32] |= 1 << (token % 32);
        }
    }

    /// Excludes a token.
    pub fn exclude(&mut self, token: u32) {
        if let Some(word) = self.words.get_mut(token as usize / 32) {
            *word &= !(1 << (token % 32));
        }
    }

    /// Whether a token is allowed.
    pub fn allows(&self, token: u32) -> bool {
        self.words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// How many tokens are allowed.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The bits: token `i` is bit `i % 32` of word `i / 32`.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Makes the logits of excluded tokens minus infinity.
    pub fn apply(&self, logits: &mut [f32]) {
        for (token, logit) in logits.iter_mut().enumerate() {
            if !self.allows(token as u32) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excluded_tokens_are_never_drawn() {
        let mut mask = TokenMask::none(40);
        for token in [3, 33, 39, 40, 1000] {
            mask.allow(token);
        }
        let allowed: Vec<u32> = (0..70).filter(|token| mask.allows(*token)).collect();
        assert_eq!(allowed, [3, 33, 39]);
        assert_eq!(mask.count(), 3);
        let mut logits = vec![1.0; 50];
        mask.apply(&mut logits);
        let left: Vec<usize> = (0..50).filter(|i| logits[*i] == 1.0).collect();
        assert_eq!(left, [3, 33, 39]);
        mask.exclude(33);
        mask.exclude(1000);
        assert!(!mask.allows(33) && mask.allows(39));
    }

    #[test]
    fn bits_beyond_the_vocabulary_are_dropped() {
        let mask = TokenMask::from_words(34, &[1 << 31, u32::MAX, u32::MAX]);
        let allowed: Vec<u32> = (0..100).filter(|token| mask.allows(*token)).collect();
        assert_eq!(allowed, [31, 32, 33]);
        assert_eq!(TokenMask::from_words(64, &[u32::MAX]).words(), [u32::MAX, 0]);
    }
}
