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

    /// Whether a token is allowed.
    pub fn allows(&self, token: u32) -> bool {
        self.words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
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
        let mut logits = vec![1.0; 50];
        mask.apply(&mut logits);
        let left: Vec<usize> = (0..50).filter(|i| logits[*i] == 1.0).collect();
        assert_eq!(left, [3, 33, 39]);
    }
}
