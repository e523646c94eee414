//! JSON as Python writes and reads it.
//!
//! The files of a model are written by Python, and by people whose programs Python's tolerance was good enough for. What Python
//! takes without a word (a number with `.0` where a whole one is meant, the last of two equal keys, `Infinity`) is taken here
//! too; so is what has one meaning only (a byte order mark, a number as a text).

use serde_json::Value;

/// Parses a text: with or without a byte order mark, and with what [`tolerated`] is for.
///
/// # Errors
///
/// It is not JSON; line and column are those of the text.
pub fn parse(text: &[u8]) -> serde_json::Result<Value> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    serde_json::from_slice(text).or_else(|error| serde_json::from_slice(&tolerated(text)).map_err(|_| error))
}

/// A number; also as a text (`"1e-5"`), and one that JSON cannot write, as [`tolerated`] writes it.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => {
            text.trim().parse::<serde_json::Number>().ok().and_then(|number| number.as_f64())
        }
        Value::Object(map) if map.len() == 1 => match map.get("__float__")?.as_str()? {
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            "NaN" => Some(f64::NAN),
            _ => None,
        },
        _ => None,
    }
}

/// A whole number that is not negative; also as `2048.0` and as a text.
pub fn unsigned(value: &Value) -> Option<u64> {
    signed(value).and_then(|number| u64::try_from(number).ok())
}

/// A whole number; also as `2.0` and as a text.
pub fn signed(value: &Value) -> Option<i128> {
    let whole = |number: &serde_json::Number| {
        let float = || {
            // Beyond this, a float stands for many whole numbers.
            let exact = |float: &f64| float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0;
            number.as_f64().filter(exact).map(|float| float as i128)
        };
        number.as_i128().or_else(float)
    };
    match value {
        Value::Number(number) => whole(number),
        Value::String(text) => text.trim().parse().ok().as_ref().and_then(whole),
        _ => None,
    }
}

/// True or false; also as 1 and 0, and as a text.
pub fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        value => match signed(value)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
    }
}

/// A JSON text without what Python reads and JSON does not have.
///
/// Numbers that are not finite (`Infinity`, `-Infinity`, `NaN`, `1e400`) become `{"__float__": "Infinity"}` and so on, as the
/// tools that write MLX checkpoints spell them. The half of a character that is written as two escapes (`"\ud83e"`: a text was
/// cut there) becomes the character for what is no text, U+FFFD.
pub fn tolerated(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut rest, mut is_quoted) = (text, false);
    while let Some(first) = rest.first() {
        let (length, replacement) = match first {
            b'"' => {
                is_quoted = !is_quoted;
                (1, None)
            }
            b'\\' if is_quoted => escape(rest),
            _ if is_quoted => (1, None),
            _ => number_outside_of_json(rest),
        };
        let (taken, others) = rest.split_at(length.min(rest.len()));
        match replacement {
            Some(replacement) => out.extend(replacement.bytes()),
            None => out.extend(taken),
        }
        rest = others;
    }
    out
}

/// How long the escape is that a text begins with, and what is to stand in its place.
fn escape(text: &[u8]) -> (usize, Option<String>) {
    let unit = |text: &[u8]| {
        let digits = std::str::from_utf8(text.strip_prefix(b"\\u")?.get(..4)?).ok()?;
        u16::from_str_radix(digits, 16).ok()
    };
    match (unit(text), text.get(6..).and_then(unit)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, None),
        (Some(0xd800..=0xdfff), _) => (6, Some("\\ufffd".to_owned())),
        // What follows a backslash does not end a string.
        _ => (2, None),
    }
}

/// How long the number or the other character is that a text begins with, and what is to stand in its place.
fn number_outside_of_json(text: &[u8]) -> (usize, Option<String>) {
    let tagged = |name: &str| Some(format!("{{\"__float__\": \"{name}\"}}"));
    for word in ["Infinity", "-Infinity", "NaN"] {
        if text.starts_with(word.as_bytes()) {
            return (word.len(), tagged(word));
        }
    }
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let length = text.iter().take_while(|byte| is_part(byte)).count();
    let number = std::str::from_utf8(&text[..length]).ok().and_then(|number| number.parse::<f64>().ok());
    match number {
        Some(f64::INFINITY) => (length, tagged("Infinity")),
        Some(f64::NEG_INFINITY) => (length, tagged("-Infinity")),
        _ => (length.max(1), None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_read_as_python_would_use_them() {
        for value in [json!(2048), json!(2048.0), json!("2048"), json!(" 2048.0 "), json!("2.048e3")] {
            assert_eq!((unsigned(&value), number(&value)), (Some(2048), Some(2048.0)), "{value}");
        }
        for value in [
            json!(2.5),
            json!("2.5"),
            json!(-1),
            json!(true),
            json!(null),
            json!([4]),
            json!(1e300),
            json!("four"),
            json!(""),
        ] {
            assert_eq!(unsigned(&value), None, "{value}");
        }
        assert_eq!((signed(&json!(-1.0)), signed(&json!("-1"))), (Some(-1), Some(-1)));
        assert_eq!(unsigned(&json!(u64::MAX)), Some(u64::MAX));
        assert_eq!(
            (number(&json!("1e-5")), number(&json!("x")), number(&json!(true))),
            (Some(1e-5), None, None)
        );
        for (value, expected) in
            [(json!("True"), Some(true)), (json!(0), Some(false)), (json!(1.0), Some(true)), (json!(2), None)]
        {
            assert_eq!(flag(&value), expected, "{value}");
        }
    }

    #[test]
    fn what_only_python_reads_is_made_readable() {
        let float = |name: &str| json!({ "__float__": name });
        let text = br#"{"a": [1e400, -1e400, 1e-400, 12e3], "b": "\ud83e", "c": "\ud83e\udd80 \udd80x \\ud83e", "d": 1E+999}"#;
        let value = parse(text).unwrap();
        assert_eq!(value["a"], json!([float("Infinity"), float("-Infinity"), 0.0, 12e3]));
        assert_eq!((&value["b"], &value["d"]), (&json!("\u{fffd}"), &float("Infinity")));
        assert_eq!(value["c"], "🦀 \u{fffd}x \\ud83e");
        for text in [&b"{\"a\": \"\\ud8"[..], b"\"\\u", b"\\ud83e", b"1e", b"-", b"[1e400", b"\"\\ud83e"] {
            assert!(parse(text).is_err());
        }
    }

    #[test]
    fn texts_are_parsed_as_they_are_found() {
        assert_eq!(parse(b"\xef\xbb\xbf{\"a\": 1, \"a\": 2}").unwrap(), json!({"a": 2}));
        assert!(parse(b"{\"a\": Infinity}").is_ok());
        let error = parse(b"{\"a\": Infinity, \"b\" 2}").unwrap_err().to_string();
        assert!(error.contains("column 7"), "{error}");
        assert!(parse(b"{\"a\": 1,}").is_err() && parse(b"").is_err());
    }

    #[test]
    fn numbers_outside_of_strings_are_tagged() {
        let text = br#"{"a": [0.5, Infinity, -Infinity], "b": NaN, "c \" NaN": "Infinity \\"}"#;
        let value: Value = serde_json::from_slice(&tolerated(text)).unwrap();
        let tag = |name: &str| json!({ "__float__": name });
        assert_eq!(value["a"], json!([0.5, tag("Infinity"), tag("-Infinity")]));
        assert_eq!((&value["b"], &value["c \" NaN"]), (&tag("NaN"), &json!("Infinity \\")));
        for text in [&b"\\"[..], b"\"NaN", b"", b"\"\\"] {
            assert_eq!(tolerated(text), text);
        }
    }
}
