//! Numbers that stay finite. JSON sets no limit to a number, but whoever reads one does: `1e999` is no number in most languages, and
//! an error in some. Digits without an end are also what a model that has lost its way likes to write.

use llguidance::toktrie::TokTrie;
use pippin_sampling::TokenMask;

/// The highest power of ten that a number reaches: below the largest double, whatever its digits.
const HIGHEST: u32 = 307;
/// With so many digits before the point or fewer, only unusual tokens could lead too far.
const FEW: u32 = 100;

/// Where in a document an answer is, as far as numbers go. That it is a document at all is known otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// Between values, or in a word such as `true`.
    #[default]
    Outside,
    Text,
    /// Behind a backslash.
    Escape,
    /// In a number, behind so many digits.
    Whole(u32),
    /// Behind the point.
    Fraction(u32),
    /// Behind the `e`.
    Exponent {
        digits: u32,
        is_negative: bool,
        value: u32,
    },
}

impl Place {
    /// The place after these bytes. `None` where a number has become too large.
    pub(crate) fn after(self, bytes: &[u8]) -> Option<Self> {
        bytes.iter().try_fold(self, |place, byte| place.next(*byte))
    }

    fn next(self, byte: u8) -> Option<Self> {
        let place = self.step(byte);
        (place.power() <= HIGHEST).then_some(place)
    }

    fn step(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Text, b'"') => Self::Outside,
            (Self::Text, b'\\') => Self::Escape,
            (Self::Text | Self::Escape, _) => Self::Text,
            (Self::Whole(digits), b'0'..=b'9') => Self::Whole(digits.saturating_add(1)),
            (Self::Whole(digits), b'.') => Self::Fraction(digits),
            (Self::Fraction(digits), b'0'..=b'9') => Self::Fraction(digits),
            (Self::Whole(digits) | Self::Fraction(digits), b'e' | b'E') => {
                Self::Exponent { digits, is_negative: false, value: 0 }
            }
            (Self::Exponent { digits, value, .. }, b'+') => {
                Self::Exponent { digits, is_negative: false, value }
            }
            (Self::Exponent { digits, value, .. }, b'-') => {
                Self::Exponent { digits, is_negative: true, value }
            }
            (Self::Exponent { digits, is_negative, value }, b'0'..=b'9') => {
                let value = value.saturating_mul(10).saturating_add(u32::from(byte - b'0'));
                Self::Exponent { digits, is_negative, value }
            }
            (_, b'"') => Self::Text,
            (_, b'-') => Self::Whole(0),
            (_, b'0'..=b'9') => Self::Whole(1),
            _ => Self::Outside,
        }
    }

    /// The power of ten that a number has reached. A negative exponent has limits as well: readers count its digits.
    fn power(self) -> u32 {
        match self {
            Self::Whole(digits) | Self::Fraction(digits) => digits.saturating_sub(1),
            Self::Exponent { digits, is_negative: false, value } => {
                digits.saturating_sub(1).saturating_add(value)
            }
            Self::Exponent { is_negative: true, value, .. } => value,
            Self::Outside | Self::Text | Self::Escape => 0,
        }
    }

    /// Whether a number is so far that any token has to be looked at.
    fn is_critical(self) -> bool {
        match self {
            Self::Whole(digits) | Self::Fraction(digits) => digits > FEW,
            Self::Exponent { .. } => true,
            Self::Outside | Self::Text | Self::Escape => false,
        }
    }
}

/// Where an answer is, as far as numbers go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Follower {
    /// It is a document.
    Document(Place),
    /// There are documents in it. What stands around them is not known here, so this is where it would be if it were in a number.
    Parts(Place),
}

impl Follower {
    /// After these bytes. `None` where a number of a document has become too large.
    pub(crate) fn after(self, bytes: &[u8]) -> Option<Self> {
        match self {
            Self::Document(place) => place.after(bytes).map(Self::Document),
            Self::Parts(place) => {
                // Quotation marks in a text need not come in pairs.
                let step = |place: Place, byte: &u8| match byte {
                    b'"' => Place::Outside,
                    byte => place.step(*byte),
                };
                Some(Self::Parts(bytes.iter().fold(place, step)))
            }
        }
    }

    /// Takes away what would make a number too large. It can always end instead.
    pub(crate) fn limit(self, mask: &mut TokenMask, trie: &TokTrie, large: &[u32]) {
        match self {
            Self::Document(place) => limit(mask, place, trie, large),
            Self::Parts(place) => {
                let may_be_critical = place.is_critical() || large.iter().any(|token| mask.allows(*token));
                if !may_be_critical || is_text(mask, trie) {
                    return;
                }
                let mut limited = mask.clone();
                limit(&mut limited, place, trie, large);
                // Something else than a number, then, of which a pattern says how long it is.
                if limited.words().iter().any(|word| *word != 0) {
                    *mask = limited;
                }
            }
        }
    }
}

/// Whether more letters can follow than where a value of a document begins (`true`, `false`, `null`), or goes on (`e`).
fn is_text(mask: &TokenMask, trie: &TokTrie) -> bool {
    let mut letters = 0_u32;
    for token in tokens(mask) {
        if let Some(letter) = trie.token(token).first()
            && letter.is_ascii_alphabetic()
            && !b"eE".contains(letter)
        {
            // Small and capital ones have the same lowest five bits, which is as good for counting.
            letters |= 1 << (letter & 31);
            if letters.count_ones() > 3 {
                return true;
            }
        }
    }
    false
}

/// The tokens of a mask.
fn tokens(mask: &TokenMask) -> impl Iterator<Item = u32> {
    let all = |(word, bits): (usize, &u32)| {
        let bits = *bits;
        (0..32).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| (word * 32 + bit) as u32)
    };
    mask.words().iter().enumerate().filter(|(_, bits)| **bits != 0).flat_map(all)
}

/// Tokens that may make a number too large wherever one stands: those with an exponent of three digits, and those with very many.
pub(crate) fn large_tokens(trie: &TokTrie) -> Vec<u32> {
    let is_large = |id: &u32| {
        let bytes = trie.token(*id);
        let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let has_exponent = bytes.iter().enumerate().any(|(at, byte)| {
            let rest = &bytes[at + 1..];
            let rest = rest.strip_prefix(b"+").or_else(|| rest.strip_prefix(b"-")).unwrap_or(rest);
            matches!(byte, b'e' | b'E') && digits(rest) > 2
        });
        has_exponent
            || bytes.len() > FEW as usize
                && bytes.iter().filter(|b| b.is_ascii_digit()).count() > FEW as usize
    };
    (0..trie.vocab_size() as u32).filter(is_large).collect()
}

/// Takes away what would make a number of a document too large.
fn limit(mask: &mut TokenMask, place: Place, trie: &TokTrie, large: &[u32]) {
    let is_too_large = |token: &u32| place.after(trie.token(*token)).is_none();
    let found: Vec<u32> = match place.is_critical() {
        true => tokens(mask).filter(is_too_large).collect(),
        false => large.iter().copied().filter(|token| mask.allows(*token) && is_too_large(token)).collect(),
    };
    found.into_iter().for_each(|token| mask.exclude(token));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_followed_through_a_document() {
        let is_finite = |text: &str| Place::default().after(text.as_bytes()).is_some();
        let digits = |count: usize| "9".repeat(count);
        for text in [
            "1e307",
            "[-1.5E+300, 1e-307, \"1e999\", true]",
            "{\"a\\\"1e999\": 1e30}",
            &digits(308),
            &format!("0.{}", digits(5000)),
            &format!("{}e7", digits(301)),
            &format!("[{0},{0}]", digits(308)),
        ] {
            assert!(is_finite(text), "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
        }
        for text in ["1e308", "[1, 10.0e307]", "\"\\\\\",1e999", &digits(309), &format!("{}e8", digits(301))]
        {
            assert!(!is_finite(text), "{text}");
        }
    }
}
