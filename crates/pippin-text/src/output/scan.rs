//! How far the markup of a call reaches.
//!
//! A [`Scan`] looks at every byte once, however the text is cut. What it has to decide is where the markup ends, not whether it is
//! right: that is for the dialect's parser, which sees all of it at once.

/// What stands around strings within the markup; ends of the markup are not looked for between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quotes {
    None,
    /// JSON's.
    Double,
    /// Python's.
    Either,
    /// A mark of the dialect's own.
    Mark(&'static str),
}

/// How the extent of a call's markup is found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// It reaches to one of these texts. What comes first in it must begin with one of `first`, if there are any.
    Until { ends: &'static [&'static str], quotes: Quotes, first: &'static [&'static str] },
    /// It is a JSON object or list. With `keys`, an object, of which the first key is one of them.
    Json { keys: &'static [&'static str] },
    /// Mistral's: `name[ARGS]{…}` or `name[CALL_ID]id[ARGS]{…}`, or with `list` a JSON list.
    Named { list: bool },
}

/// What a scan has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// More text is needed.
    Nothing,
    /// The markup ends at `end`, and what follows it begins at `next`.
    End { end: usize, next: usize, is_closed: bool },
    /// It is no markup; what comes before this place is text.
    Refused(usize),
}

/// Positions are bytes from the beginning of the markup.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    at: usize,
    /// The string that is open: its closing mark.
    open: Option<&'static str>,
    depth: usize,
    has_begun: bool,
    /// Where the first string of a JSON object begins, until it was compared with the keys.
    key: Option<usize>,
    is_key_known: bool,
    is_past_name: bool,
    /// An end that stands within a string, which may be one that was never closed: where it begins and where it ends.
    pub(super) inner_end: Option<(usize, usize)>,
}

/// The bytes that a name before `[ARGS]` may take.
const MAX_NAME: usize = 256;

/// Whether `text` begins with one of these, and if so how long it is; `None`: that needs more text.
fn begins(text: &str, all: &[&str]) -> Option<usize> {
    let found = all.iter().find(|one| text.starts_with(**one));
    match found {
        Some(found) => Some(found.len()),
        None if all.iter().any(|one| one.starts_with(text)) => None,
        None => Some(0),
    }
}

impl Scan {
    /// Goes on in the markup's text, of which the beginning has been seen before. `start` is the mark before the markup: another
    /// one ends it as well.
    pub(super) fn advance(&mut self, shape: Shape, start: &str, text: &str) -> Found {
        match shape {
            Shape::Until { ends, quotes, first } => self.until(ends, quotes, first, start, text),
            Shape::Json { keys } => self.json(keys, text),
            Shape::Named { list } => self.named(list, text),
        }
    }

    fn until(&mut self, ends: &[&str], quotes: Quotes, first: &[&str], start: &str, text: &str) -> Found {
        if !self.has_begun {
            let trimmed = text[self.at..].trim_start();
            self.at = text.len() - trimmed.len();
            if trimmed.is_empty() {
                return Found::Nothing;
            }
            if !first.is_empty() {
                match begins(trimmed, first) {
                    None => return Found::Nothing,
                    Some(0) => return Found::Refused(self.at),
                    Some(_) => {}
                }
            }
            self.has_begun = true;
        }
        while let Some(byte) = text.as_bytes().get(self.at).copied() {
            // Marks begin with ASCII or with the first byte of a character, so this is the boundary of one.
            let rest = if text.is_char_boundary(self.at) { &text[self.at..] } else { "" };
            if let Some(close) = self.open {
                if byte == b'\\' && close.len() == 1 {
                    if rest.len() < 2 {
                        return Found::Nothing;
                    }
                    self.at += 2;
                    continue;
                }
                match begins(rest, &[close]).filter(|_| !rest.is_empty()) {
                    None if !rest.is_empty() => return Found::Nothing,
                    Some(length) if length > 0 => {
                        self.open = None;
                        self.at += length;
                        continue;
                    }
                    _ => {}
                }
                if self.inner_end.is_none() && !rest.is_empty() {
                    match begins(rest, ends) {
                        None => return Found::Nothing,
                        Some(0) => {}
                        Some(length) => self.inner_end = Some((self.at, self.at + length)),
                    }
                }
                self.at += 1;
                continue;
            }
            if rest.is_empty() {
                self.at += 1;
                continue;
            }
            match begins(rest, ends) {
                None => return Found::Nothing,
                Some(0) => {}
                Some(length) => {
                    return Found::End { end: self.at, next: self.at + length, is_closed: true };
                }
            }
            if !start.is_empty() {
                match begins(rest, &[start]) {
                    None => return Found::Nothing,
                    Some(0) => {}
                    Some(_) => return Found::End { end: self.at, next: self.at, is_closed: false },
                }
            }
            match quotes {
                Quotes::Double if byte == b'"' => self.open = Some("\""),
                Quotes::Either if byte == b'"' => self.open = Some("\""),
                Quotes::Either if byte == b'\'' => self.open = Some("'"),
                Quotes::Mark(mark) => match begins(rest, &[mark]) {
                    None => return Found::Nothing,
                    Some(0) => {}
                    Some(length) => {
                        self.open = Some(mark);
                        self.at += length;
                        continue;
                    }
                },
                _ => {}
            }
            self.at += 1;
        }
        Found::Nothing
    }

    fn json(&mut self, keys: &[&str], text: &str) -> Found {
        while let Some(byte) = text.as_bytes().get(self.at).copied() {
            if self.open.is_some() {
                match byte {
                    b'\\' => {
                        if self.at + 1 >= text.len() {
                            return Found::Nothing;
                        }
                        self.at += 1;
                    }
                    b'"' => {
                        self.open = None;
                        if let Some(key) = self.key.take() {
                            let key = text.get(key..self.at).unwrap_or_default();
                            if !keys.contains(&key) {
                                return Found::Refused(self.at);
                            }
                            self.is_key_known = true;
                        }
                    }
                    // No key that is known is so long.
                    _ if self.key.is_some_and(|key| self.at - key > 64) => return Found::Refused(self.at),
                    _ => {}
                }
                self.at += 1;
                continue;
            }
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => {}
                b'{' | b'[' => {
                    if !keys.is_empty() && !self.is_key_known && (self.has_begun || byte == b'[') {
                        return Found::Refused(self.at);
                    }
                    self.has_begun = true;
                    self.depth += 1;
                }
                _ if !self.has_begun => return Found::Refused(self.at),
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        let end = self.at + 1;
                        return Found::End { end, next: end, is_closed: true };
                    }
                }
                b'"' => {
                    self.open = Some("\"");
                    if !keys.is_empty() && !self.is_key_known {
                        self.key = Some(self.at + 1);
                    }
                }
                // What JSON may consist of, and Python's words beside it.
                b',' | b':' | b'+' | b'-' | b'.' | b'_' => {}
                byte if byte.is_ascii_alphanumeric() && (keys.is_empty() || self.is_key_known) => {}
                _ => return Found::Refused(self.at),
            }
            self.at += 1;
        }
        Found::Nothing
    }

    fn named(&mut self, list: bool, text: &str) -> Found {
        while !self.is_past_name {
            let Some(byte) = text.as_bytes().get(self.at).copied() else { return Found::Nothing };
            if list && !self.has_begun && byte == b'[' {
                self.is_past_name = true;
                break;
            }
            match byte {
                b'[' if self.has_begun => match begins(&text[self.at..], &["[ARGS]", "[CALL_ID]"]) {
                    None => return Found::Nothing,
                    Some(0) => return Found::Refused(self.at),
                    Some(length) => {
                        self.is_past_name = text[self.at..].starts_with("[ARGS]");
                        self.at += length;
                    }
                },
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte if byte.is_ascii_alphanumeric() || b"_.-".contains(&byte) => {
                    self.has_begun = true;
                    self.at += 1;
                }
                _ => return Found::Refused(self.at),
            }
            if self.is_past_name {
                self.has_begun = false;
            } else if self.at > MAX_NAME {
                return Found::Refused(self.at);
            }
        }
        self.json(&[], text)
    }
}
