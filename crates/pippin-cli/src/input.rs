//! Reading files and standard input: bounded, and with errors that say what was read.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use pippin::Message;
use serde_json::{Map, Value};

use crate::error::{CliError, Result};
use crate::output;

/// The most that is read as one prompt, one file or one line. No context holds as much text.
const LIMIT: u64 = 16 << 20;

/// How long the end of standard input may be waited for without a word.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where input comes from: a file, or standard input, written `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Stdin,
    File(PathBuf),
}

impl FromStr for Source {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "-" { Self::Stdin } else { Self::File(PathBuf::from(text)) })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Source {
    /// A reader of the source.
    pub(crate) fn open(&self) -> Result<Box<dyn BufRead + Send>> {
        Ok(match self {
            Self::Stdin => Box::new(BufReader::new(io::stdin())),
            Self::File(path) => {
                Box::new(BufReader::new(File::open(path).map_err(|error| self.unreadable(&error))?))
            }
        })
    }

    /// All of its text: UTF-8, or whatever form of Unicode its byte order mark says, which is not part of it.
    pub(crate) fn text(&self) -> Result<String> {
        let mut bytes = Vec::new();
        {
            let _told = (*self == Self::Stdin).then(tell_of_waiting);
            self.open()?.take(LIMIT + 1).read_to_end(&mut bytes).map_err(|error| self.unreadable(&error))?;
        }
        if bytes.len() as u64 > LIMIT {
            return Err(CliError::input(format!("{self} has more than the {LIMIT} bytes that are accepted")));
        }
        decoded(bytes).map_err(|problem| {
            CliError::input_with_hint(
                format!("{self} is not {problem}"),
                "convert it to UTF-8 first, with iconv for example",
            )
        })
    }

    /// Its text, read as JSON.
    pub(crate) fn json(&self) -> Result<Value> {
        let text = self.text()?;
        pippin::weights::json::parse(text.as_bytes())
            .map_err(|error| CliError::input(format!("{self} is not valid JSON: {error}")))
    }

    /// The messages of a conversation: a JSON array.
    pub(crate) fn messages(&self) -> Result<Vec<Message>> {
        // A file may hold what is sent to a server: an object with the list in it.
        let value = match self.json()? {
            Value::Object(mut object) => object.remove("messages").unwrap_or(Value::Null),
            value => value,
        };
        match value {
            Value::Array(values) => {
                messages(values).map_err(|problem| CliError::input(format!("{self}: {problem}")))
            }
            _ => Err(CliError::input(format!(
                "{self} must hold a JSON array of messages, or an object with one as \"messages\""
            ))),
        }
    }

    /// Descriptions of tools: a JSON array of objects.
    pub(crate) fn tools(&self) -> Result<Vec<Value>> {
        tools(self.json()?).map_err(|problem| CliError::input(format!("{self}: {problem}")))
    }

    fn unreadable(&self, error: &io::Error) -> CliError {
        CliError::input(format!("cannot read {self}: {error}"))
    }
}

/// Says that standard input is read unless what is returned is dropped soon: a program that never closes it (`sleep 100 |
/// pippin run …`, a service without a terminal) looks like one that hangs.
fn tell_of_waiting() -> Sender<()> {
    let (done, waiting) = channel();
    // Where no thread can be had, nothing is said.
    let _ = std::thread::Builder::new().name("pippin-waiting".to_owned()).spawn(move || {
        if waiting.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            output::note("reading standard input until it ends; to answer without it, add: < /dev/null");
        }
    });
    done
}

/// The text of a file. PowerShell writes UTF-16, and several editors a mark that says UTF-8.
fn decoded(bytes: Vec<u8>) -> Result<String, String> {
    let utf16 = |bytes: &[u8], word: fn([u8; 2]) -> u16| {
        let words = bytes.chunks(2).map(|pair| word([pair[0], *pair.get(1).unwrap_or(&0)]));
        char::decode_utf16(words).collect::<Result<String, _>>().map_err(|_| "UTF-16 text".to_owned())
    };
    match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => return utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => return utf16(rest, u16::from_be_bytes),
        _ => {}
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        format!("UTF-8 text: byte {position} begins no valid character")
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// Reads messages in the form of the OpenAI API.
pub(crate) fn messages(values: Vec<Value>) -> Result<Vec<Message>, String> {
    Message::from_values(values).map_err(|error| error.to_string())
}

/// Checks that a value is an array of objects.
pub(crate) fn tools(value: Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(tools) if tools.iter().all(Value::is_object) => Ok(tools),
        _ => Err("tools must be a JSON array of objects, each as in the OpenAI API".to_owned()),
    }
}

/// Reads a flag's JSON object.
pub(crate) fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("must be a JSON object".to_owned()),
        Err(error) => Err(format!("is not valid JSON: {error}")),
    }
}

/// A line of a file of JSON lines.
pub(crate) enum NextLine {
    Line(String),
    /// The line cannot be read, but those after it can.
    Bad(String),
    End,
}

/// Reads the next line, without its end.
pub(crate) fn line(mut reader: &mut dyn BufRead) -> io::Result<NextLine> {
    let mut bytes = Vec::new();
    // Through the reference, which is sized.
    if Read::take(&mut reader, LIMIT + 1).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(NextLine::End);
    }
    if bytes.len() as u64 > LIMIT {
        reader.skip_until(b'\n')?;
        return Ok(NextLine::Bad(format!("the line has more than the {LIMIT} bytes that are accepted")));
    }
    // A byte order mark stands before the first line, and means nothing anywhere.
    let bytes = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => rest.to_vec(),
        None => bytes,
    };
    Ok(String::from_utf8(bytes)
        .map_or_else(|_| NextLine::Bad("the line is not UTF-8 text".to_owned()), NextLine::Line))
}

/// Asks a question with the answers yes and no.
pub(crate) fn ask(question: &str, default: bool) -> Result<bool> {
    let mut stderr = std::io::stderr().lock();
    let answers = if default { "[Y/n]" } else { "[y/N]" };
    // Nobody can be told that standard error is closed.
    let _ = write!(stderr, "{} {answers} ", output::visible(question));
    let _ = stderr.flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| CliError::input(format!("cannot read the answer: {error}")))?;
    Ok(match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => true,
        // The end of the input is no answer.
        "" => default && answer.ends_with('\n'),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dash_is_standard_input() {
        assert_eq!("-".parse(), Ok(Source::Stdin));
        assert_eq!("./-".parse(), Ok(Source::File("./-".into())));
    }

    #[test]
    fn marks_say_how_a_text_is_written_and_are_no_part_of_it() {
        let utf16 = |mark: [u8; 2], word: fn(u16) -> [u8; 2]| {
            let words = "é🦀".encode_utf16().flat_map(word);
            mark.into_iter().chain(words).collect::<Vec<u8>>()
        };
        assert_eq!(decoded("\u{feff}é🦀".into()), Ok("é🦀".to_owned()));
        assert_eq!(decoded(utf16([0xff, 0xfe], u16::to_le_bytes)), Ok("é🦀".to_owned()));
        assert_eq!(decoded(utf16([0xfe, 0xff], u16::to_be_bytes)), Ok("é🦀".to_owned()));
        assert_eq!(decoded(vec![0xff, 0xfe, 0x3d, 0xd8]), Err("UTF-16 text".to_owned()));
        let error = decoded(b"caf\xe9".to_vec()).expect_err("Latin-1");
        assert!(error.contains("byte 3"), "{error}");
        let mut reader: &[u8] = b"\xef\xbb\xbf{}\n";
        assert!(matches!(line(&mut reader), Ok(NextLine::Line(line)) if line == "{}\n"));
    }

    #[test]
    fn lines_that_are_not_text_do_not_end_the_file() {
        let mut reader: &[u8] = b"one\n\xff\ntwo";
        let mut found = Vec::new();
        loop {
            match line(&mut reader).expect("readable") {
                NextLine::Line(text) => found.push(text.trim_end().to_owned()),
                NextLine::Bad(problem) => found.push(problem),
                NextLine::End => break,
            }
        }
        assert_eq!(found, ["one", "the line is not UTF-8 text", "two"]);
    }

    #[test]
    fn messages_and_tools_are_checked() {
        let bad = messages(vec![serde_json::json!({"role": "user", "content": "a"}), Value::Null]);
        assert!(bad.expect_err("null is no message").starts_with("messages[1]"));
        assert!(tools(serde_json::json!({})).is_err());
        assert!(tools(serde_json::json!(["x"])).is_err());
        assert!(object("[1]").is_err() && object("{").is_err() && object("{\"a\": 1}").is_ok());
    }
}
