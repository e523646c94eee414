//! JSON as Python writes it.

/// A JSON text in which the numbers that Python writes although JSON has none of them (`Infinity`, `-Infinity`, `NaN`) are written
/// as `{"__float__": "Infinity"}` and so on, as the tools that write MLX checkpoints spell them.
pub fn tag_numbers(text: &[u8]) -> Vec<u8> {
    let mut tagged = Vec::with_capacity(text.len());
    let (mut rest, mut quoted) = (text, false);
    while let Some(first) = rest.first() {
        let mut words = ["Infinity", "-Infinity", "NaN"].into_iter().filter(|_| !quoted);
        if let Some(word) = words.find(|word| rest.starts_with(word.as_bytes())) {
            tagged.extend(format!("{{\"__float__\": \"{word}\"}}").bytes());
            rest = &rest[word.len()..];
            continue;
        }
        // What follows a backslash does not end a string.
        let (taken, others) = rest.split_at(if *first == b'\\' { 2.min(rest.len()) } else { 1 });
        quoted ^= *first == b'"';
        tagged.extend(taken);
        rest = others;
    }
    tagged
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn numbers_outside_of_strings_are_tagged() {
        let text = br#"{"a": [0.5, Infinity, -Infinity], "b": NaN, "c \" NaN": "Infinity \\"}"#;
        let value: Value = serde_json::from_slice(&tag_numbers(text)).unwrap();
        let tag = |name: &str| json!({ "__float__": name });
        assert_eq!(value["a"], json!([0.5, tag("Infinity"), tag("-Infinity")]));
        assert_eq!((&value["b"], &value["c \" NaN"]), (&tag("NaN"), &json!("Infinity \\")));
        for text in [&b"\\"[..], b"\"NaN", b"", b"\"\\"] {
            assert_eq!(tag_numbers(text), text);
        }
    }
}
