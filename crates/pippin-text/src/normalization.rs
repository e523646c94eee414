//! What a tokenizer's replacements may make of a text.
//!
//! They come with the model. The library that applies them has no limit: nine replacements of a letter by ten of them
//! make a gigabyte of it, and a table that claims to be longer than it is asks for what it claims.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// How many times longer all replacements together may make a text. Published tokenizers stay below 40: one letter of
/// Arabic script stands for a sentence of 33 bytes.
const MOST: f64 = 1024.0;

/// Refuses normalizers and decoders that could make more of a text than memory holds.
pub(crate) fn check(normalizer: &Value, decoder: &Value) -> Result<(), String> {
    for (part, name) in [(normalizer, "normalizer"), (decoder, "decoder")] {
        let growth = growth(part).map_err(|problem| format!("`{name}`: {problem}"))?;
        if growth > MOST {
            return Err(format!("`{name}`: its replacements make a text up to {growth:.0} times longer"));
        }
    }
    Ok(())
}

/// How many times longer a part may make a text.
fn growth(part: &Value) -> Result<f64, String> {
    let length = |value: Option<&Value>| value.and_then(Value::as_str).map_or(0, str::len) as f64;
    let members =
        ["normalizers", "decoders"].into_iter().filter_map(|list| part.get(list)?.as_array()).flatten();
    let mut total = 1.0;
    for member in members {
        total *= growth(member)?;
    }
    match part.get("type").and_then(Value::as_str) {
        Some("Replace") => {
            let content = length(part.get("content"));
            let own = match part.get("pattern").and_then(|pattern| pattern.get("String")) {
                Some(pattern) if pattern != "" => content / length(Some(pattern)),
                // It may match where there is nothing, before every character.
                _ => content + 1.0,
            };
            total *= own.max(1.0);
        }
        // Once for a text, but a text may be short.
        Some("Prepend") => total *= length(part.get("prepend")).max(1.0),
        Some("Precompiled") => total *= precompiled(part.get("precompiled_charsmap"))?,
        _ => {}
    }
    Ok(total)
}

/// Checks a table of SentencePiece, and returns the length of its longest replacement: the length of an index in bytes, the
/// index, and the replacements, each ended by a zero.
fn precompiled(table: Option<&Value>) -> Result<f64, String> {
    let Some(text) = table.and_then(Value::as_str).filter(|text| !text.is_empty()) else { return Ok(1.0) };
    let bytes = STANDARD.decode(text).map_err(|_| "`precompiled_charsmap` is not base64".to_owned())?;
    let replacements = bytes
        .split_first_chunk::<4>()
        .and_then(|(length, rest)| rest.get(usize::try_from(u32::from_le_bytes(*length)).ok()?..));
    let replacements = replacements.ok_or("`precompiled_charsmap` is shorter than it says")?;
    let longest = replacements.split(|byte| *byte == 0).map(<[u8]>::len).max().unwrap_or(0);
    Ok((longest as f64).max(1.0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sequence(part: Value, count: usize) -> Value {
        json!({"type": "Sequence", "normalizers": vec![part; count]})
    }

    #[test]
    fn replacements_are_bounded_together() {
        let tenfold = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(10)});
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let runs = json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "});
        for fine in [json!(null), sequence(tenfold.clone(), 2), sequence(spaces, 4), sequence(runs, 9)] {
            assert_eq!(check(&fine, &fine), Ok(()), "{fine}");
        }
        let nested = sequence(sequence(tenfold.clone(), 2), 2);
        let nothing = json!({"type": "Replace", "pattern": {"String": ""}, "content": "x".repeat(2000)});
        let long = json!({"type": "Prepend", "prepend": "x".repeat(5000)});
        for bomb in [sequence(tenfold, 9), nested, nothing, long] {
            assert!(check(&bomb, &Value::Null).unwrap_err().contains("`normalizer`"), "{bomb}");
            assert!(check(&Value::Null, &bomb).unwrap_err().contains("`decoder`"), "{bomb}");
        }
    }

    #[test]
    fn tables_are_as_long_as_they_say() {
        let table =
            |bytes: &[u8]| json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(bytes)});
        let check = |part: Value| check(&part, &Value::Null);
        assert!(check(table(b"\xff\xff\xff\xff")).unwrap_err().contains("shorter"));
        assert!(check(table(b"\x05\0\0\0abcd")).unwrap_err().contains("shorter"));
        assert!(check(table(b"\x04\0")).unwrap_err().contains("shorter"));
        assert_eq!(check(table(b"\x04\0\0\0abcdone\0two\0")), Ok(()));
        let long = [b"\0\0\0\0".to_vec(), vec![b'x'; 5000]].concat();
        assert!(check(table(&long)).is_err());
        assert!(
            check(json!({"type": "Precompiled", "precompiled_charsmap": "@"}))
                .unwrap_err()
                .contains("base64")
        );
    }
}
