//! The tokens that a tokenizer would use for a text that follows another.

use llguidance::toktrie::TokTrie;

use crate::Vocabulary;

impl Vocabulary {
    /// How a text that begins in the middle of an answer, behind the token `before`, is written in tokens. A special token stands in
    /// it as the parser writes them, with its id. Ends where the tokenizer does not say what its tokens are.
    pub(crate) fn spell(&self, mut before: Option<u32>, mut text: &[u8]) -> Vec<u32> {
        let mut tokens = Vec::new();
        while let Some(first) = text.first() {
            if *first == TokTrie::SPECIAL_TOKEN_MARKER {
                let Some((token, rest)) = special(text) else { break };
                tokens.push(token);
                (before, text) = (Some(token), rest);
            } else {
                let end = text.iter().position(|byte| *byte == TokTrie::SPECIAL_TOKEN_MARKER);
                let (own, rest) = text.split_at(end.unwrap_or(text.len()));
                let Some(spelled) = self.spell_text(before, own) else { break };
                before = spelled.last().copied();
                tokens.extend(spelled);
                text = rest;
            }
        }
        tokens
    }

    fn spell_text(&self, before: Option<u32>, text: &[u8]) -> Option<Vec<u32>> {
        let text = std::str::from_utf8(text).ok()?;
        let before = before.map_or(&[][..], |token| self.bytes(token));
        let before = std::str::from_utf8(before).unwrap_or_default();
        // A token of both texts does not begin where the second does: then what is before is left alone.
        self.tokens_behind(before, text).or_else(|| self.tokens_behind("", text))
    }

    /// The tokens of `text` in both texts together, if one begins there.
    fn tokens_behind(&self, before: &str, text: &str) -> Option<Vec<u32>> {
        let both = [before, text].concat();
        let tokens = self.tokenizer.encode(&both, false).ok()?;
        let written: Vec<u8> = tokens.iter().flat_map(|token| self.bytes(*token)).copied().collect();
        // Some tokenizers put a space before everything.
        let added = written.len().checked_sub(both.len())?;
        if written[added..] != *both.as_bytes() || !written[..added].iter().all(|byte| *byte == b' ') {
            return None;
        }
        let mut at = 0;
        let begin = tokens.iter().position(|token| {
            let is_there = at == added + before.len();
            at += self.bytes(*token).len();
            is_there
        });
        // Without anything before it, the space is part of the first token.
        match begin {
            None if before.is_empty() && added > 0 => None,
            begin => Some(tokens[begin?..].to_vec()),
        }
    }
}

/// The special token that a text begins with, and what follows it: written as its mark and `[id]`.
fn special(text: &[u8]) -> Option<(u32, &[u8])> {
    let inner = text.get(1..)?.strip_prefix(b"[")?;
    let end = inner.iter().position(|byte| *byte == b']')?;
    let id = std::str::from_utf8(&inner[..end]).ok()?.parse().ok()?;
    Some((id, &inner[end + 1..]))
}
