//! What each token of a vocabulary adds to a text.

use crate::tokenizer::Tokenizer;
use crate::vocabulary::byte_of;

/// What a token is within a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenBytes {
    /// It adds these bytes, which need not be whole characters.
    Text(Vec<u8>),
    /// A marker by its name: a special token, or an added one like `<think>`, which structures a conversation rather than being
    /// part of what is said.
    Marker(String),
    /// No token has this id, or what it adds depends on its neighbours.
    Unknown,
}

/// A vocabulary as bytes; see [`Tokenizer::vocabulary_bytes`].
#[derive(Clone, Debug)]
pub struct VocabularyBytes {
    /// For each id, what it is.
    pub tokens: Vec<TokenBytes>,
    /// Whether decoding drops a space at the beginning of a text, as SentencePiece does: the first word of an answer has one in its
    /// token, and none in its text.
    pub trims_first_space: bool,
}

impl Tokenizer {
    /// What each id adds to a text, for those who say beforehand which tokens may come next. Takes a second for the largest
    /// vocabularies.
    pub fn vocabulary_bytes(&self) -> VocabularyBytes {
        let ids = 0..self.vocab_size() as u32;
        let context = self.decoding().neutral.and_then(|id| Some((id, self.decode(&[id], false).ok()?)));
        let tokens = ids.map(|id| self.bytes_of(id, context.as_ref())).collect();
        let mut bytes = VocabularyBytes { tokens, trims_first_space: false };
        let is_word = |text: &[u8]| {
            text.len() > 1 && text[0] == b' ' && text[1..].iter().all(u8::is_ascii_alphanumeric)
        };
        let word = bytes.tokens.iter().zip(0..).find_map(|(token, id)| match token {
            TokenBytes::Text(text) if is_word(text) => Some((text, id)),
            _ => None,
        });
        if let Some((text, id)) = word {
            let first = self.decode(&[id], false);
            bytes.trims_first_space = first.is_ok_and(|first| first.as_bytes() == &text[1..]);
        }
        bytes
    }

    /// Whether a token is a marker: special, or added and written like `<think>`.
    pub fn is_marker(&self, id: u32) -> bool {
        let is_tag = |token: String| token.starts_with('<') && token.ends_with('>');
        self.is_special(id) || (self.is_added(id) && self.id_to_token(id).is_some_and(is_tag))
    }

    fn bytes_of(&self, id: u32, context: Option<&(u32, String)>) -> TokenBytes {
        let Some(token) = self.id_to_token(id) else { return TokenBytes::Unknown };
        if self.is_marker(id) {
            return TokenBytes::Marker(token);
        }
        if self.is_byte_level() {
            // As the decoder does: what is not written in the alphabet of bytes stands for itself.
            let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
            return TokenBytes::Text(bytes.unwrap_or_else(|| token.into_bytes()));
        }
        if let Some(byte) = self.decoding().byte_tokens.get(&id) {
            return TokenBytes::Text(vec![*byte]);
        }
        let text = context.and_then(|(before, text)| {
            let both = self.decode(&[*before, id], false).ok()?;
            both.strip_prefix(text.as_str()).map(str::to_owned)
        });
        match text {
            Some(text) if !text.contains(char::REPLACEMENT_CHARACTER) => TokenBytes::Text(text.into_bytes()),
            _ => TokenBytes::Unknown,
        }
    }
}
