//! What a tokenizer's replacements may make of a text.
//!
//! They come with the model. The library that applies them has no limit: nine replacements of a letter by ten of them
//! make a gigabyte of it, and a table that claims to be longer than it is asks for what it claims.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// How many times longer all replacements together may make a text. Published tokenizers stay below 70: one letter of
/// Arabic script stands for a sentence of 33 bytes, and runs of spaces are looked for.
const MOST: f64 = 128.0;
/// How many tokens a post-processor may add to a text. Published ones add one or two.
const MOST_ADDED: usize = 1000;

/// Refuses a tokenizer whose parts could make more of a text than memory holds. Returns how many times longer they may make one
/// before it is cut into tokens.
pub(crate) fn check(
    normalizer: &Value,
    pre_tokenizer: &Value,
    post_processor: &Value,
    decoder: &Value,
) -> Result<f64, String> {
    let mut before = 1.0;
    for (part, name) in [(decoder, "decoder"), (normalizer, "normalizer"), (pre_tokenizer, "pre_tokenizer")] {
        let growth = growth(part).map_err(|problem| format!("`{name}`: {problem}"))?;
        if growth > MOST {
            return Err(format!("`{name}`: its replacements make a text up to {growth:.0} times longer"));
        }
        if name != "decoder" {
            before *= growth;
        }
    }
    let (repeats, added) = repeats(post_processor);
    if repeats > 1 || added > MOST_ADDED {
        return Err(format!("`post_processor`: it repeats a text {repeats} times and adds {added} tokens"));
    }
    Ok(before)
}

/// How many times longer a part may make a text.
fn growth(part: &Value) -> Result<f64, String> {
    let length = |name: &str| part.get(name).and_then(Value::as_str).map_or(0, str::len) as f64;
    let is_empty = |name: &str| part.get(name).and_then(Value::as_str).is_some_and(str::is_empty);
    let lists = ["normalizers", "pretokenizers", "decoders"];
    let members = lists.into_iter().filter_map(|list| part.get(list)?.as_array()).flatten();
    let mut total = 1.0;
    for member in members {
        total *= growth(member)?;
    }
    total *= match part.get("type").and_then(Value::as_str) {
        Some("Replace") => match part.get("pattern").and_then(|pattern| pattern.get("String")?.as_str()) {
            Some(pattern) if !pattern.is_empty() => (length("content") / pattern.len() as f64).max(1.0),
            // It may match where there is nothing, before every character.
            _ => length("content") + 1.0,
        },
        // Once for a text, but a text may be short.
        Some("Prepend") => length("prepend").max(1.0),
        Some("Metaspace") => length("replacement").max(1.0),
        Some("Precompiled") => precompiled(part.get("precompiled_charsmap"))?,
        // Letters of two bytes for bytes; spaces around ideographs.
        Some("ByteLevel" | "BertNormalizer") => 2.0,
        // What is empty is found, and replaced, before every character.
        Some("BPEDecoder") if is_empty("suffix") => 2.0,
        Some("CTC") if is_empty("word_delimiter_token") || is_empty("pad_token") => 2.0,
        _ => 1.0,
    };
    Ok(total)
}

/// How often a post-processor puts the text in, and how many tokens it adds.
fn repeats(part: &Value) -> (usize, usize) {
    let members = part.get("processors").and_then(Value::as_array).into_iter().flatten();
    let (mut repeated, mut added) = members
        .map(repeats)
        .fold((1_usize, 0_usize), |all, one| (all.0.saturating_mul(one.0), all.1.saturating_add(one.1)));
    if let Some(pieces) = part.get("single").and_then(Value::as_array) {
        let length = |id: &str| {
            let ids = part.get("special_tokens").and_then(|tokens| tokens.get(id)?.get("ids")?.as_array());
            ids.map_or(1, Vec::len)
        };
        let texts = pieces.iter().filter(|piece| piece.get("Sequence").is_some()).count();
        repeated = repeated.saturating_mul(texts.max(1));
        let tokens = pieces.iter().filter_map(|piece| piece.get("SpecialToken")?.get("id")?.as_str());
        added = tokens.map(length).fold(added, usize::saturating_add);
    }
    (repeated, added)
}

/// Checks a table of SentencePiece that stands in JSON, and returns the length of its longest replacement.
fn precompiled(table: Option<&Value>) -> Result<f64, String> {
    let Some(text) = table.and_then(Value::as_str).filter(|text| !text.is_empty()) else { return Ok(1.0) };
    let bytes = STANDARD.decode(text).map_err(|_| "`precompiled_charsmap` is not base64".to_owned())?;
    longest_replacement(&bytes)
}

/// [`check`] for a table of SentencePiece, which may be empty: how many times longer it may make a text.
pub(crate) fn charsmap_growth(table: &[u8]) -> Result<f64, String> {
    let growth = if table.is_empty() { 1.0 } else { longest_replacement(table)? };
    match growth > MOST {
        true => Err(format!("`precompiled_charsmap` makes a text up to {growth:.0} times longer")),
        false => Ok(growth),
    }
}

/// Checks a table: the length of an index in bytes, the index, and the replacements, each ended by a zero.
fn longest_replacement(table: &[u8]) -> Result<f64, String> {
    let replacements = table
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
        let check =
            |normalizer: &Value, decoder: &Value| super::check(normalizer, normalizer, &Value::Null, decoder);
        for fine in [json!(null), sequence(tenfold.clone(), 2), sequence(spaces, 4), sequence(runs, 5)] {
            assert!(check(&fine, &fine).is_ok(), "{fine}");
        }
        let nested = sequence(sequence(tenfold.clone(), 2), 2);
        let nothing = json!({"type": "Replace", "pattern": {"String": ""}, "content": "x".repeat(2000)});
        let long = json!({"type": "Prepend", "prepend": "x".repeat(5000)});
        let bytes = sequence(json!({"type": "ByteLevel"}), 22);
        for bomb in [sequence(tenfold, 9), nested, nothing, long, bytes] {
            assert!(check(&bomb, &Value::Null).unwrap_err().contains("`normalizer`"), "{bomb}");
            let error = super::check(&Value::Null, &bomb, &Value::Null, &Value::Null).unwrap_err();
            assert!(error.contains("`pre_tokenizer`"), "{bomb}");
            assert!(check(&Value::Null, &bomb).unwrap_err().contains("`decoder`"), "{bomb}");
        }
        for empty in [
            json!({"type": "BPEDecoder", "suffix": ""}),
            json!({"type": "CTC", "pad_token": "", "word_delimiter_token": ""}),
        ] {
            let bomb = json!({"type": "Sequence", "decoders": vec![empty; 40]});
            assert!(check(&Value::Null, &bomb).is_err(), "{bomb}");
        }
    }

    #[test]
    fn a_text_is_put_in_once() {
        let check = |processor: &Value| super::check(&Value::Null, &Value::Null, processor, &Value::Null);
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let token = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
        let template = |pieces: Vec<Value>, ids: usize| json!({"type": "TemplateProcessing", "single": pieces, "special_tokens": {"<s>": {"id": "<s>", "ids": vec![1; ids]}}});
        let usual = template(vec![token.clone(), text.clone(), token.clone()], 1);
        assert!(check(&usual).is_ok() && check(&json!({"type": "Sequence", "processors": [usual]})).is_ok());
        for bomb in [
            template(vec![text.clone(); 3], 1),
            template(vec![token.clone(); 3000], 1),
            template(vec![token, text], 100_000),
        ] {
            assert!(check(&bomb).unwrap_err().contains("`post_processor`"));
        }
    }

    #[test]
    fn tables_are_as_long_as_they_say() {
        let table =
            |bytes: &[u8]| json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(bytes)});
        let check = |part: Value| super::check(&part, &Value::Null, &Value::Null, &Value::Null).map(|_| ());
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
