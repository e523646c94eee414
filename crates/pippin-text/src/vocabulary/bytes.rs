//! The alphabet of byte-level vocabularies: a printable character for each byte.

/// The character that stands for a byte, as in GPT-2: itself where Latin-1 has something to see, and else one of those that
/// follow Latin-1.
pub(crate) fn char_of(byte: u8) -> char {
    if is_itself(byte) {
        return char::from(byte);
    }
    let place = (0..byte).filter(|byte| !is_itself(*byte)).count() as u32;
    char::from_u32(256 + place).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character stands for.
pub(crate) fn byte_of(char: char) -> Option<u8> {
    match u8::try_from(u32::from(char)) {
        Ok(byte) => Some(byte).filter(|byte| is_itself(*byte)),
        Err(_) => {
            let place = usize::try_from(u32::from(char).checked_sub(256)?).ok()?;
            (0..=u8::MAX).filter(|byte| !is_itself(*byte)).nth(place)
        }
    }
}

/// Bytes written in that alphabet.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char_of(*byte)).collect()
}

fn is_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        let text = text_of(&(0..=u8::MAX).collect::<Vec<u8>>());
        let back: Vec<u8> = text.chars().filter_map(byte_of).collect();
        assert!(back.iter().copied().eq(0..=u8::MAX));
        assert_eq!(text_of(" \né".as_bytes()), "ĠĊÃ©");
        assert_eq!(byte_of('€'), None);
        assert_eq!(byte_of('\u{144}'), None);
    }
}
