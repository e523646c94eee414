//! Reads JSON into values as Python's `json.loads` does.
//!
//! Arguments of tool calls are JSON in a string, and templates write them out again. Going through `serde_json` would change
//! them: it makes floats of integers beyond 64 bits and of `-0`, and refuses `NaN` and halves of surrogate pairs, which
//! Python reads.

use indexmap::IndexMap;

use super::eval::{Outcome, fail};
use super::value::{Key, Value};

/// As deep as values may be.
const MAX_DEPTH: u32 = 100;

/// Reads a whole text. As in Python, the last of several equal keys wins, at the place of the first.
pub(super) fn parse(text: &str) -> Outcome<Value> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.skip_space();
    if reader.at < text.len() {
        return fail(format!("is not valid JSON: something follows the value at byte {}", reader.at));
    }
    Ok(value)
}

struct Reader<'a> {
    text: &'a str,
    /// Always the start of a character.
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Steps over these characters if they come next.
    fn eat(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    fn wrong<T>(&self, wanted: &str) -> Outcome<T> {
        match self.rest().chars().next() {
            Some(found) => {
                fail(format!("is not valid JSON: {wanted} is expected at byte {}, not {found:?}", self.at))
            }
            None => fail(format!("is not valid JSON: it ends where {wanted} is expected")),
        }
    }

    fn value(&mut self, depth: u32) -> Outcome<Value> {
        if depth > MAX_DEPTH {
            return fail(format!("is nested more than {MAX_DEPTH} levels deep"));
        }
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(Value::str),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                let words = [
                    ("null", Value::None),
                    ("true", Value::Bool(true)),
                    ("false", Value::Bool(false)),
                    ("NaN", Value::Float(f64::NAN)),
                    ("Infinity", Value::Float(f64::INFINITY)),
                ];
                for (word, value) in words {
                    if self.eat(word) {
                        return Ok(value);
                    }
                }
                self.wrong("a value")
            }
        }
    }

    fn object(&mut self, depth: u32) -> Outcome<Value> {
        self.at += 1;
        let mut map = IndexMap::new();
        self.skip_space();
        if self.eat("}") {
            return Value::dict(map);
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return self.wrong("a key");
            }
            let key = self.string()?;
            self.skip_space();
            if !self.eat(":") {
                return self.wrong("':'");
            }
            let value = self.value(depth + 1)?;
            map.insert(Key::Str(key.into()), value);
            self.skip_space();
            if self.eat("}") {
                return Value::dict(map);
            }
            if !self.eat(",") {
                return self.wrong("',' or '}'");
            }
        }
    }

    fn list(&mut self, depth: u32) -> Outcome<Value> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.eat("]") {
            return Value::list(items);
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip_space();
            if self.eat("]") {
                return Value::list(items);
            }
            if !self.eat(",") {
                return self.wrong("',' or ']'");
            }
        }
    }

    fn digits(&mut self) -> usize {
        let count = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        self.at += count;
        count
    }

    fn number(&mut self) -> Outcome<Value> {
        let start = self.at;
        if self.eat("-") && self.eat("Infinity") {
            return Ok(Value::Float(f64::NEG_INFINITY));
        }
        // No digit follows a leading zero: what does is found to be too much.
        if !self.eat("0") && self.digits() == 0 {
            return self.wrong("a digit");
        }
        let mut is_whole = true;
        let whole = self.at;
        if self.eat(".") {
            // A point without digits is not part of the number.
            if self.digits() == 0 {
                self.at = whole;
                return self.wrong("a digit after the point");
            }
            is_whole = false;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            _ = self.eat("+") || self.eat("-");
            if self.digits() == 0 {
                return self.wrong("a digit of the exponent");
            }
            is_whole = false;
        }
        let number = &self.text[start..self.at];
        match (is_whole, number.parse::<i128>(), number.parse::<f64>()) {
            (true, Ok(number), _) => Ok(Value::Int(number)),
            (false, _, Ok(number)) if number.is_finite() => Ok(Value::Float(number)),
            // Python makes an infinity of it, which is not JSON when it is written out again.
            (false, ..) => fail(format!("holds a number at byte {start} that is too large")),
            // Python's integers have no end. Ours have, and are not rounded silently.
            _ => fail(format!("holds an integer of more than 128 bits at byte {start}")),
        }
    }

    fn string(&mut self) -> Outcome<String> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let plain = self.rest().find(['"', '\\', '\n', '\r']).unwrap_or(self.rest().len());
            let piece = &self.rest()[..plain];
            if let Some(bad) = piece.bytes().position(|byte| byte < 0x20) {
                self.at += bad;
                return self.wrong("an escaped control character");
            }
            out.push_str(piece);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                Some(_) => return self.wrong("an escaped line end"),
                None => return self.wrong("the end of a string"),
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Outcome<char> {
        let simple = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return self.wrong("an escape"),
        };
        self.at += 1;
        Ok(simple)
    }

    fn unicode(&mut self) -> Outcome<char> {
        let first = self.code_unit()?;
        if (0xd800..0xdc00).contains(&first) {
            let before = self.at;
            if self.eat("\\u") {
                let second = self.code_unit()?;
                if (0xdc00..0xe000).contains(&second) {
                    let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                    return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                self.at = before;
            }
        }
        // Half of a pair is no character, and a prompt is text: Python fails only when it writes the text.
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn code_unit(&mut self) -> Outcome<u32> {
        let digits =
            self.rest().get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let Some(code) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else {
            return self.wrong("four hexadecimal digits");
        };
        self.at += 4;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::JsonStyle;
    use super::*;

    fn written(text: &str) -> Result<String, String> {
        let mut out = String::new();
        JsonStyle::PYTHON
            .write(&parse(text).map_err(|fault| format!("{fault:?}"))?, &mut out, 0, 1 << 20)
            .unwrap();
        Ok(out)
    }

    #[test]
    fn reads_what_python_reads() {
        for (text, expected) in [
            (r#" {"b": 1, "a": 1.0, "b": 2} "#, r#"{"b": 2, "a": 1.0}"#),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("-0", "0"),
            ("-0.0", "-0.0"),
            ("[1e5, 1E-7, 0.1, NaN, -Infinity]", "[100000.0, 1e-07, 0.1, NaN, -Infinity]"),
            (r#""\u00e9\ud83c\udf4e\/\n""#, "\"é🍎/\\n\""),
            (r#""\ud83c|\udf4e""#, "\"\u{fffd}|\u{fffd}\""),
            (r#""\ud83c\u0041""#, "\"\u{fffd}A\""),
            ("[]", "[]"),
            ("[null,true,\tfalse]", "[null, true, false]"),
        ] {
            assert_eq!(written(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_python_refuses() {
        let deep = "[".repeat(5000);
        for text in [
            "",
            " ",
            "{",
            "[1,]",
            "{\"a\" 1}",
            "{a: 1}",
            "01",
            "1.",
            ".5",
            "-",
            "1e",
            "+1",
            "nul",
            "'a'",
            "\"a",
            "\"\n\"",
            "\"\t\"",
            r#""\x""#,
            r#""\u12""#,
            r#""\u12é4""#,
            r#""\"#,
            "1 2",
            "\u{feff}1",
            "{\"a\": 1,}",
            &deep,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
