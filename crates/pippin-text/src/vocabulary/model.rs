//! What cuts a piece of text into tokens.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use tokenizers::models::TrainerWrapper;
use tokenizers::{Model as LibraryModel, ModelWrapper, Token};

use super::trie::{BestPath, LongestMatch};

/// A model of the tokenizer library, or one that it does not have.
#[derive(Debug)]
pub(crate) enum Model {
    /// What a `tokenizer.json` can say.
    Library(ModelWrapper),
    /// Merges that are not listed: the best token that two neighbours make.
    Ranked(RankedMerges),
    /// The longest token that fits, again and again.
    LongestMatch(LongestMatch),
    /// The way through the text whose tokens have the highest scores together.
    BestPath(BestPath),
}

impl Model {
    /// The vocabulary of a model that is not the library's.
    fn own(&self) -> Result<&Vocabulary, &ModelWrapper> {
        match self {
            Self::Library(model) => Err(model),
            Self::Ranked(model) => Ok(&model.vocabulary),
            Self::LongestMatch(model) => Ok(model.vocabulary()),
            Self::BestPath(model) => Ok(model.vocabulary()),
        }
    }
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ModelWrapper::deserialize(deserializer).map(Self::Library)
    }
}

impl LibraryModel for Model {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, text: &str) -> tokenizers::Result<Vec<Token>> {
        match self {
            Self::Library(model) => model.tokenize(text),
            Self::Ranked(model) => Ok(model.tokenize(text)),
            Self::LongestMatch(model) => Ok(model.tokenize(text)),
            Self::BestPath(model) => Ok(model.tokenize(text)),
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.own().map_or_else(|model| model.token_to_id(token), |vocabulary| vocabulary.id(token))
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.own().map_or_else(|model| model.id_to_token(id), |vocabulary| vocabulary.token(id))
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        self.own().map_or_else(LibraryModel::get_vocab, Vocabulary::to_map)
    }

    fn get_vocab_size(&self) -> usize {
        self.own().map_or_else(LibraryModel::get_vocab_size, Vocabulary::len)
    }

    fn save(&self, _: &Path, _: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        Err("tokenizers are read here, and not written".into())
    }

    fn get_trainer(&self) -> TrainerWrapper {
        TrainerWrapper::BpeTrainer(Default::default())
    }
}

/// Tokens with their ids, which are their places in a list.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    tokens: Vec<Box<str>>,
    ids: HashMap<Box<str>, u32>,
    longest: usize,
}

impl Vocabulary {
    /// Of two equal tokens the last one has the id of the text; either id gives the text.
    pub(crate) fn new(tokens: Vec<Box<str>>) -> Self {
        let ids = (0..).zip(&tokens).map(|(id, token)| (token.clone(), id)).collect();
        let longest = tokens.iter().map(|token| token.len()).max().unwrap_or(0);
        Self { tokens, ids, longest }
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    pub(crate) fn get(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(|token| &**token)
    }

    pub(crate) fn token(&self, id: u32) -> Option<String> {
        self.get(id).map(str::to_owned)
    }

    /// The tokens that are one byte each, `<0xNN>`.
    pub(crate) fn bytes(&self) -> [Option<u32>; 256] {
        std::array::from_fn(|byte| self.id(&format!("<0x{byte:02X}>")))
    }

    fn to_map(&self) -> HashMap<String, u32> {
        self.ids.iter().map(|(token, id)| (token.to_string(), *id)).collect()
    }
}

/// Byte pair encoding without a list of merges, as SentencePiece and tiktoken have it: of all neighbours that make a token
/// together, those are joined that make the one of the highest rank; the leftmost first where there are several.
///
/// Symbols that are no token become the tokens of their bytes (`<0xNN>`), where there are such, and else the unknown token.
#[derive(Debug)]
pub(crate) struct RankedMerges {
    vocabulary: Vocabulary,
    /// By id: a higher rank is joined before a lower one; what is not a number is never made by joining.
    ranks: Vec<f32>,
    options: MergeOptions,
    bytes: Option<Box<[Option<u32>; 256]>>,
}

/// How [`RankedMerges`] differ.
#[derive(Clone, Debug, Default)]
pub(crate) struct MergeOptions {
    /// Among several places that make the same token, the one whose left half is shortest comes first. The lists of merges that
    /// `transformers` makes of a vocabulary have that order.
    pub(crate) shorter_left_first: bool,
    /// A text that is a token as a whole is that token, however it would be made.
    pub(crate) whole_texts: bool,
    /// Whether symbols without a token become the tokens of their bytes.
    pub(crate) byte_fallback: bool,
    /// What else they become; nothing, if there is none.
    pub(crate) unknown: Option<u32>,
    /// Whether several of these in a row are one.
    pub(crate) joins_unknown: bool,
}

impl RankedMerges {
    pub(crate) fn new(tokens: Vec<Box<str>>, ranks: Vec<f32>, options: MergeOptions) -> Self {
        debug_assert_eq!(tokens.len(), ranks.len());
        let vocabulary = Vocabulary::new(tokens);
        let bytes = options.byte_fallback.then(|| Box::new(vocabulary.bytes()));
        Self { vocabulary, ranks, options, bytes }
    }

    fn tokenize(&self, text: &str) -> Vec<Token> {
        if self.options.whole_texts
            && let Some(id) = self.vocabulary.id(text)
        {
            return vec![Token::new(id, text.to_owned(), (0, text.len()))];
        }
        let mut tokens = Vec::new();
        let mut follows_unknown = false;
        for Symbol { start, end, .. } in self.merge(text) {
            let part = &text[start..end];
            if let Some(id) = self.vocabulary.id(part) {
                tokens.push(Token::new(id, part.to_owned(), (start, end)));
                follows_unknown = false;
                continue;
            }
            if let Some(bytes) = self.byte_tokens(part) {
                tokens.extend(bytes.map(|(id, token)| Token::new(id, token, (start, end))));
                follows_unknown = false;
                continue;
            }
            if let Some(id) = self.options.unknown {
                match tokens.last_mut() {
                    Some(last) if follows_unknown && self.options.joins_unknown => last.offsets.1 = end,
                    _ => tokens.push(Token::new(
                        id,
                        self.vocabulary.token(id).unwrap_or_default(),
                        (start, end),
                    )),
                }
                follows_unknown = true;
            }
        }
        tokens
    }

    /// The tokens of the bytes of a text, if there is one for each.
    fn byte_tokens(&self, text: &str) -> Option<impl Iterator<Item = (u32, String)>> {
        let bytes = self.bytes.as_ref()?;
        let ids: Option<Vec<u32>> = text.bytes().map(|byte| bytes[usize::from(byte)]).collect();
        let named = |id| (id, self.vocabulary.token(id).unwrap_or_default());
        Some(ids?.into_iter().map(named).collect::<Vec<_>>().into_iter())
    }

    /// Joins the characters of a text until nothing more can be joined.
    fn merge(&self, text: &str) -> Vec<Symbol> {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(text.len());
        for (index, (start, char)) in text.char_indices().enumerate() {
            let end = start + char.len_utf8();
            symbols.push(Symbol { start, end, previous: index.checked_sub(1), next: Some(index + 1) });
        }
        if let Some(last) = symbols.last_mut() {
            last.next = None;
        }
        let mut queue: BinaryHeap<Candidate> =
            (1..symbols.len()).filter_map(|right| self.candidate(text, &symbols, right - 1, right)).collect();
        while let Some(Candidate { left, right, size, .. }) = queue.pop() {
            // Either may have been joined with another one since.
            let is_current =
                symbols[left].next == Some(right) && symbols[right].end - symbols[left].start == size;
            if symbols[left].is_gone() || !is_current {
                continue;
            }
            symbols[left].end = symbols[right].end;
            symbols[left].next = symbols[right].next;
            symbols[right].start = symbols[right].end;
            if let Some(next) = symbols[left].next {
                symbols[next].previous = Some(left);
                queue.extend(self.candidate(text, &symbols, left, next));
            }
            if let Some(previous) = symbols[left].previous {
                queue.extend(self.candidate(text, &symbols, previous, left));
            }
        }
        symbols.retain(|symbol| !symbol.is_gone());
        symbols
    }

    /// Two neighbours that can be joined.
    fn candidate(&self, text: &str, symbols: &[Symbol], left: usize, right: usize) -> Option<Candidate> {
        let (start, end) = (symbols[left].start, symbols[right].end);
        let size = end - start;
        // Most are too long; that is known without looking for them.
        if size > self.vocabulary.longest {
            return None;
        }
        let rank = self.ranks[self.vocabulary.id(&text[start..end])? as usize];
        if rank.is_nan() {
            return None;
        }
        let left_size =
            if self.options.shorter_left_first { symbols[left].end - symbols[left].start } else { 0 };
        Some(Candidate { rank, left_size: Reverse(left_size), left, right, size })
    }
}

/// A part of a text, and its neighbours.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    end: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

impl Symbol {
    /// Whether it has become part of the one before it.
    fn is_gone(&self) -> bool {
        self.start == self.end
    }
}

struct Candidate {
    rank: f32,
    left_size: Reverse<usize>,
    left: usize,
    right: usize,
    /// Of both together, in bytes.
    size: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |candidate: &Self| (candidate.left_size, Reverse(candidate.left));
        self.rank.total_cmp(&other.rank).then_with(|| place(self).cmp(&place(other)))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}
