use std::fmt;
use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{
    ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie,
};
use pippin_text::{StopTokens, TokenBytes, Tokenizer};

use crate::{GrammarError, numbers};

/// The longest token that the tree of tokens can hold, in bytes.
const LONGEST_TOKEN: usize = 1024;
/// Ids have 24 bits there, the highest of which means none.
const MOST_TOKENS: usize = 0xff_fffe;

/// Sets of tokens that are allowed or not as a whole, besides the parser's own, which are for texts of JSON: words, of which most tokens
/// are made. They are no longer than a set of the parser's, so that they lie within it.
const WORDS: [&str; 4] = ["[a-z]{1,10}", "[A-Za-z]{1,10}", " [a-z]{1,9}", " [A-Za-z]{1,9}"];

/// A model's tokens as bytes, in a tree: what masks are computed over. Made once for a model, for all its requests.
pub struct Vocabulary {
    pub(crate) factory: ParserFactory,
    /// The model's tokens, which may be more than the tokenizer's.
    pub(crate) size: usize,
    pub(crate) stop: Vec<u32>,
    pub(crate) trims_first_space: bool,
    pub(crate) tokenizer: Tokenizer,
    /// Tokens that may make a number too large.
    pub(crate) large: Vec<u32>,
}

impl Vocabulary {
    /// The vocabulary of a model with `size` tokens. Takes a second or two for the largest.
    ///
    /// # Errors
    ///
    /// More tokens than can be handled, or none that is a text.
    pub fn new(tokenizer: &Tokenizer, stop: &StopTokens, size: usize) -> Result<Self, GrammarError> {
        let refuse = |problem: String| GrammarError::Vocabulary { problem };
        if size > MOST_TOKENS {
            return Err(refuse(format!("its vocabulary has {size} tokens")));
        }
        let bytes = tokenizer.vocabulary_bytes();
        let marker = |name: &str| [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat();
        let mut words = vec![Vec::new(); size];
        for (word, (id, token)) in words.iter_mut().zip((0..).zip(bytes.tokens)) {
            *word = match token {
                // What ends an answer is no part of it, however it is written.
                _ if stop.contains(id) => marker(&tokenizer.id_to_token(id).unwrap_or_default()),
                TokenBytes::Text(text) => text,
                TokenBytes::Marker(name) => marker(&name),
                TokenBytes::Unknown => Vec::new(),
            };
            // A lone byte 0xff is no part of any text, and would be read as the mark of markers.
            if word.len() > LONGEST_TOKEN || word == &[TokTrie::SPECIAL_TOKEN_MARKER] {
                word.clear();
            }
        }
        if words.iter().all(|word| word.is_empty() || word[0] == TokTrie::SPECIAL_TOKEN_MARKER) {
            return Err(refuse("its tokenizer does not say what its tokens are as text".to_owned()));
        }
        let stop: Vec<u32> = stop.iter().filter(|id| (*id as usize) < size).collect();
        let mut trie = TokTrie::from(&TokRxInfo::new(size as u32, INVALID_TOKEN), &words);
        if !stop.is_empty() {
            trie = trie.with_eos_tokens(&stop);
        }
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut slices = SlicedBiasComputer::general_slices();
        slices.extend(WORDS.map(str::to_owned));
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
            .map_err(|error| refuse(format!("{error:#}")))?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        // Objects of a few thousand optional fields.
        factory.limits_mut().max_items_in_row = 10_000;
        let large = numbers::large_tokens(env.tok_trie());
        let (trims_first_space, tokenizer) = (bytes.trims_first_space, tokenizer.clone());
        Ok(Self { factory, size, stop, trims_first_space, tokenizer, large })
    }
}

impl Vocabulary {
    /// Whether a token ends answers.
    pub fn ends_with(&self, token: u32) -> bool {
        self.stop.contains(&token)
    }

    pub(crate) fn trie(&self) -> &TokTrie {
        self.factory.tok_env().tok_trie()
    }

    /// A token as text.
    pub(crate) fn bytes(&self, token: u32) -> &[u8] {
        self.trie().token(token)
    }
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary")
            .field("size", &self.size)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}
