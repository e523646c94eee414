//! Models that walk along a text with a tree of their tokens: RWKV's, and that of PLaMo 2.

use std::collections::HashMap;

use tokenizers::Token;

use super::bytes;
use super::model::Vocabulary;

/// Tokens by their bytes.
#[derive(Debug)]
struct Trie {
    /// From a place, and a byte, to the next place. Zero is the root.
    edges: HashMap<(u32, u8), u32>,
    /// The tokens that end at the places.
    ends: Vec<Option<u32>>,
}

impl Trie {
    fn new(tokens: impl Iterator<Item = (u32, impl Iterator<Item = u8>)>) -> Self {
        let mut trie = Self { edges: HashMap::new(), ends: vec![None] };
        for (id, token) in tokens {
            let mut place = 0;
            for byte in token {
                let Self { edges, ends } = &mut trie;
                place = *edges.entry((place, byte)).or_insert_with(|| {
                    ends.push(None);
                    ends.len() as u32 - 1
                });
            }
            if place > 0 {
                trie.ends[place as usize] = Some(id);
            }
        }
        trie
    }

    /// The tokens that bytes begin with, shortest first, each with its length in bytes.
    fn prefixes(&self, bytes: impl Iterator<Item = u8>) -> impl Iterator<Item = (usize, u32)> {
        let mut place = 0;
        let places = (1..).zip(bytes).map_while(move |(length, byte)| {
            place = *self.edges.get(&(place, byte))?;
            Some((length, place))
        });
        places.filter_map(|(length, place)| Some((length, self.ends[place as usize]?)))
    }
}

/// Cuts the longest token off a text, again and again. Tokens are sequences of bytes, written in the alphabet that has a
/// character for each byte, and so are the texts that it gets.
#[derive(Debug)]
pub(crate) struct LongestMatch {
    vocabulary: Vocabulary,
    unknown: Option<u32>,
    trie: Trie,
}

impl LongestMatch {
    pub(crate) fn new(tokens: Vec<Box<str>>, unknown: Option<u32>) -> Self {
        let trie =
            Trie::new((0..).zip(&tokens).map(|(id, token)| (id, token.chars().filter_map(bytes::byte_of))));
        Self { vocabulary: Vocabulary::new(tokens), unknown, trie }
    }

    pub(crate) fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    pub(crate) fn tokenize(&self, text: &str) -> Vec<Token> {
        let chars: Vec<(usize, Option<u8>)> =
            text.char_indices().map(|(start, char)| (start, bytes::byte_of(char))).collect();
        let start_of = |place: usize| chars.get(place).map_or(text.len(), |(start, _)| *start);
        let mut tokens = Vec::new();
        let mut place = 0;
        while place < chars.len() {
            let bytes = chars[place..].iter().map_while(|(_, byte)| *byte);
            let longest = self.trie.prefixes(bytes).last();
            let (length, id) = longest.map_or((1, self.unknown), |(length, id)| (length, Some(id)));
            let (start, end) = (start_of(place), start_of(place + length));
            tokens.extend(id.and_then(|id| Some(Token::new(id, self.vocabulary.token(id)?, (start, end)))));
            place += length;
        }
        tokens
    }
}

/// Of all ways to cut a text into tokens, the one whose scores are highest together; the longer token first where two ways are
/// equal. Characters without a token become the tokens of their bytes, and cost more than anything else.
#[derive(Debug)]
pub(crate) struct BestPath {
    vocabulary: Vocabulary,
    /// By id; whole numbers, so that sums have no errors of rounding.
    scores: Vec<i64>,
    bytes: Box<[Option<u32>; 256]>,
    trie: Trie,
}

impl BestPath {
    /// What a character without a token costs.
    const UNKNOWN: i64 = 10_000_000;

    /// Tokens that are bytes, `<0xNN>`, are only for characters that have no token.
    pub(crate) fn new(tokens: Vec<Box<str>>, scores: &[f32]) -> Self {
        let vocabulary = Vocabulary::new(tokens);
        let bytes = Box::new(vocabulary.bytes());
        let scores: Vec<i64> = scores.iter().map(|score| (f64::from(*score) * 1e4).round() as i64).collect();
        let usable = |id: &u32| {
            let score = scores.get(*id as usize).copied().unwrap_or(0);
            score > -2 * Self::UNKNOWN && !bytes.contains(&Some(*id))
        };
        let tokens = (0..vocabulary.len() as u32).filter(usable);
        let trie = Trie::new(tokens.filter_map(|id| Some((id, vocabulary.get(id)?.bytes()))));
        Self { scores, bytes, trie, vocabulary }
    }

    pub(crate) fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    pub(crate) fn tokenize(&self, text: &str) -> Vec<Token> {
        // From the end to the beginning: what the rest of the text costs, and its first token.
        let mut best: Vec<(i64, usize, Option<u32>)> = vec![(i64::MAX, 0, None); text.len() + 1];
        best[text.len()] = (0, 0, None);
        for (start, char) in text.char_indices().rev() {
            let length = char.len_utf8();
            let mut first = (best[start + length].0.saturating_add(Self::UNKNOWN), length, None);
            for (length, id) in self.trie.prefixes(text.as_bytes()[start..].iter().copied()) {
                let score = self.scores.get(id as usize).copied().unwrap_or(0);
                let cost = best[start + length].0.saturating_sub(score);
                if cost <= first.0 {
                    first = (cost, length, Some(id));
                }
            }
            best[start] = first;
        }
        let mut tokens = Vec::new();
        let mut start = 0;
        while start < text.len() {
            let (_, length, id) = best[start];
            let end = start + length.max(1);
            let mut push = |id: u32| {
                tokens.extend(self.vocabulary.token(id).map(|token| Token::new(id, token, (start, end))));
            };
            match id {
                Some(id) => push(id),
                None => text.as_bytes()[start..end]
                    .iter()
                    .filter_map(|byte| self.bytes[usize::from(*byte)])
                    .for_each(push),
            }
            start = end;
        }
        tokens
    }
}
