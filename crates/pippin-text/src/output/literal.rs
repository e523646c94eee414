//! Values as models write them: JSON, Python's literals, and Gemma's notation, by one forgiving parser.

use serde_json::{Map, Number, Value};

/// How deeply lists and objects may be nested.
const MAX_DEPTH: usize = 64;

/// Reads one value after another from a text.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// A mark that stands on both sides of strings, besides quotation marks.
    mark: Option<&'static str>,
}

/// The value that a whole text is: JSON, or else a literal of Python.
pub(super) fn value(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    let mut reader = Reader::new(text);
    let value = reader.value()?;
    reader.is_at_end().then_some(value)
}

/// The object that a whole text is.
pub(super) fn object(text: &str) -> Option<Map<String, Value>> {
    match value(text)? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, mark: None }
    }

    /// With strings between two of this mark; words that are no literal are strings as well then.
    pub(super) fn with_mark(self, mark: &'static str) -> Self {
        Self { mark: Some(mark), ..self }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Whether nothing but white space follows.
    pub(super) fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.rest().is_empty()
    }

    /// Takes what is expected, after white space, if it is there.
    pub(super) fn take(&mut self, expected: &str) -> bool {
        self.skip_space();
        let is_there = self.rest().starts_with(expected);
        if is_there {
            self.at += expected.len();
        }
        is_there
    }

    /// Takes the characters that belong to a word.
    pub(super) fn word(&mut self, belongs: impl Fn(char) -> bool) -> Option<&'a str> {
        self.skip_space();
        let rest = self.rest();
        let word = &rest[..rest.find(|c: char| !belongs(c)).unwrap_or(rest.len())];
        self.at += word.len();
        (!word.is_empty()).then_some(word)
    }

    pub(super) fn value(&mut self) -> Option<Value> {
        self.nested(0)
    }

    fn nested(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip_space();
        if let Some(text) = self.string()? {
            return Some(text.into());
        }
        match self.rest().chars().next()? {
            '{' => self.object(depth).map(Value::Object),
            '[' => self.list(depth, "[", "]").map(Value::Array),
            '(' => self.list(depth, "(", ")").map(Value::Array),
            _ => self.scalar(),
        }
    }

    /// Reads an object, whose keys may stand without quotation marks.
    fn object(&mut self, depth: usize) -> Option<Map<String, Value>> {
        let mut object = Map::new();
        self.take("{");
        while !self.take("}") {
            self.skip_space();
            let key = match self.string()? {
                Some(key) => key,
                None => self.word(|c| !c.is_whitespace() && !",:{}[]\"'".contains(c))?.to_owned(),
            };
            if !self.take(":") {
                return None;
            }
            let value = self.nested(depth + 1)?;
            object.insert(key, value);
            if !self.take(",") {
                return self.take("}").then_some(object);
            }
        }
        Some(object)
    }

    fn list(&mut self, depth: usize, open: &str, close: &str) -> Option<Vec<Value>> {
        let mut list = Vec::new();
        self.take(open);
        while !self.take(close) {
            list.push(self.nested(depth + 1)?);
            if !self.take(",") {
                return self.take(close).then_some(list);
            }
        }
        Some(list)
    }

    /// A string, if there is one here; `None`: it does not end.
    fn string(&mut self) -> Option<Option<String>> {
        let rest = self.rest();
        if let Some(text) = self.mark.and_then(|mark| rest.strip_prefix(mark)) {
            let mark = self.mark.unwrap_or_default();
            let end = text.find(mark)?;
            self.at += end + 2 * mark.len();
            return Some(Some(text[..end].to_owned()));
        }
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else { return Some(None) };
        let mut chars = rest.char_indices().skip(1);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.at += at + 1;
                return Some(Some(text));
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let (_, escaped) = chars.next()?;
            match escaped {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'b' => text.push('\u{8}'),
                'f' => text.push('\u{c}'),
                '\n' => {}
                '/' | '\\' | '"' | '\'' => text.push(escaped),
                'u' | 'x' => {
                    let unit = hexadecimal(&mut chars, if escaped == 'u' { 4 } else { 2 })?;
                    let code = match unit {
                        0xd800..0xdc00 => {
                            let mut ahead = chars.clone();
                            let low = (ahead.next()?.1 == '\\' && ahead.next()?.1 == 'u')
                                .then(|| hexadecimal(&mut ahead, 4))
                                .flatten()
                                .filter(|low| (0xdc00..0xe000).contains(low));
                            match low {
                                Some(low) => {
                                    chars = ahead;
                                    0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
                                }
                                None => unit,
                            }
                        }
                        unit => unit,
                    };
                    text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                other => text.extend(['\\', other]),
            }
        }
        None
    }

    /// A word: a number, a truth value, nothing.
    fn scalar(&mut self) -> Option<Value> {
        let ends = if self.mark.is_some() { ",]}" } else { ",]}) \n\r\t:" };
        let word = self.word(|c| !ends.contains(c))?.trim_end();
        Some(match word {
            "true" | "True" => true.into(),
            "false" | "False" => false.into(),
            "null" | "None" => Value::Null,
            word => match number(word) {
                Some(number) => number.into(),
                None if self.mark.is_some() => word.into(),
                None => return None,
            },
        })
    }
}

fn hexadecimal(chars: &mut impl Iterator<Item = (usize, char)>, digits: usize) -> Option<u32> {
    (0..digits).try_fold(0, |value, _| Some(value * 16 + chars.next()?.1.to_digit(16)?))
}

/// A number as JSON has it, or with a plus sign before it.
pub(super) fn number(text: &str) -> Option<Number> {
    let text = text.trim();
    let text = text.strip_prefix('+').filter(|rest| !rest.starts_with('-')).unwrap_or(text);
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn python_and_json_are_read() {
        assert_eq!(value(r#"{"a": [1, -2.5, null]}"#), Some(json!({"a": [1, -2.5, null]})));
        assert_eq!(
            value(r#"{'deep': [True, None, 'it\'s'], 'x': (1,), }"#),
            Some(json!({"deep": [true, null, "it's"], "x": [1]}))
        );
        assert_eq!(value("'a\nb\\x41\\u00e9\\ud83d\\ude00\\d'"), Some(json!("a\nbAé😀\\d")));
        for wrong in ["", "{", "[1", "{'a'}", "'open", "word", "[1] 2", "{'a': }", "\"\\u12", "\"\\ud800"] {
            assert_eq!(value(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        assert!(value(&"[".repeat(100_000)).is_none());
        assert!(value(&format!("{}{}", "['',".repeat(50), "]".repeat(50))).is_some());
    }

    #[test]
    fn marks_stand_for_quotation_marks() {
        let text = r#"{city:<|"|>P {"a"}<|"|>,days:3,word:some words,opts:{deep:[true,None]}}"#;
        let read = Reader::new(text).with_mark("<|\"|>").value();
        let expected =
            json!({"city": "P {\"a\"}", "days": 3, "word": "some words", "opts": {"deep": [true, null]}});
        assert_eq!(read, Some(expected));
    }
}
