//! From lines to entries: what the user sends off at once.

use std::io;

/// Marks the beginning and the end of an entry of several lines.
const FENCE: &str = "\"\"\"";

const PROMPT: &str = ">>> ";
const MORE: &str = "... ";

/// What a line editor returns.
#[derive(Debug)]
pub(super) enum Line {
    /// A line; several when they were pasted.
    Text(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D on an empty line, or the terminal is gone.
    End,
}

/// Somewhere that lines come from.
pub(super) trait Lines {
    /// Reads a line.
    fn read(&mut self, prompt: &str) -> io::Result<Line>;

    /// Keeps an entry, so that the user can find it again.
    fn remember(&mut self, entry: &str);
}

/// What the user sends off at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A message or a command.
    Text {
        text: String,
        /// It stood between fences, so it is a message.
        is_block: bool,
    },
    /// The user thought better of it.
    Abandoned,
    /// There will be no more.
    End,
}

/// Reads an entry: one line, several that end with a backslash, or what stands between fences.
pub(super) fn read_entry(lines: &mut impl Lines) -> io::Result<Entry> {
    let (mut typed, mut prompt) = (String::new(), PROMPT);
    loop {
        match lines.read(prompt)? {
            Line::Text(line) => typed.push_str(&line),
            Line::Interrupted => return Ok(Entry::Abandoned),
            Line::End if prompt == PROMPT => return Ok(Entry::End),
            // Half an entry is better abandoned than sent.
            Line::End => return Ok(Entry::Abandoned),
        }
        if let Some(entry) = complete(&typed) {
            if !typed.trim().is_empty() {
                lines.remember(&typed);
            }
            return Ok(entry);
        }
        typed.push('\n');
        prompt = MORE;
    }
}

/// The entry that has been typed, once it is complete.
fn complete(typed: &str) -> Option<Entry> {
    if let Some(block) = typed.trim_start().strip_prefix(FENCE) {
        let text = block.trim_end().strip_suffix(FENCE)?;
        // The line ends next to the fences belong to them.
        let text = text.strip_prefix('\n').unwrap_or(text);
        let text = text.strip_suffix('\n').unwrap_or(text);
        return Some(Entry::Text { text: text.to_owned(), is_block: true });
    }
    if typed.ends_with('\\') {
        return None;
    }
    Some(Entry::Text { text: typed.replace("\\\n", "\n"), is_block: false })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    struct Script {
        lines: VecDeque<Line>,
        prompts: Vec<String>,
        remembered: Vec<String>,
    }

    impl Lines for Script {
        fn read(&mut self, prompt: &str) -> io::Result<Line> {
            self.prompts.push(prompt.to_owned());
            Ok(self.lines.pop_front().unwrap_or(Line::End))
        }

        fn remember(&mut self, entry: &str) {
            self.remembered.push(entry.to_owned());
        }
    }

    fn script(lines: Vec<Line>) -> Script {
        Script { lines: lines.into(), prompts: Vec::new(), remembered: Vec::new() }
    }

    fn typed(lines: &[&str]) -> (Entry, Script) {
        let mut script = script(lines.iter().map(|line| Line::Text((*line).to_owned())).collect());
        (read_entry(&mut script).expect("reads"), script)
    }

    fn text(text: &str, is_block: bool) -> Entry {
        Entry::Text { text: text.to_owned(), is_block }
    }

    #[test]
    fn lines_and_blocks() {
        for (lines, expected) in [
            (&["hello"][..], text("hello", false)),
            (&[""], text("", false)),
            (&["one\\", "two\\", "three"], text("one\ntwo\nthree", false)),
            (&["\"\"\"", "one", "two", "\"\"\""], text("one\ntwo", true)),
            (&["\"\"\"one", "two\"\"\""], text("one\ntwo", true)),
            (&["\"\"\"/etc\"\"\""], text("/etc", true)),
            (&["\"\"\"", "", "a\\", "\"\"\""], text("\na\\", true)),
            (&["\"\"\"\"\"\""], text("", true)),
            (&["pasted\nlines"], text("pasted\nlines", false)),
        ] {
            assert_eq!(typed(lines).0, expected, "{lines:?}");
        }
    }

    #[test]
    fn entries_are_remembered_whole() {
        let (_, script) = typed(&["one\\", "two"]);
        assert_eq!(script.remembered, ["one\\\ntwo"]);
        assert_eq!(script.prompts, [PROMPT, MORE]);
        assert!(typed(&["  "]).1.remembered.is_empty());
    }

    #[test]
    fn entries_can_be_abandoned_and_ended() {
        assert_eq!(typed(&[]).0, Entry::End);
        assert_eq!(typed(&["\"\"\"never ended"]).0, Entry::Abandoned);
        let mut interrupted = script(vec![Line::Text("one\\".to_owned()), Line::Interrupted]);
        assert_eq!(read_entry(&mut interrupted).expect("reads"), Entry::Abandoned);
    }
}
