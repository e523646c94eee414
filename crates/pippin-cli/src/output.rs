//! What reaches the terminal.
//!
//! Standard output carries answers and data. Everything else (errors, hints, notes, statistics) goes to standard error,
//! with colours only where it is a terminal and `NO_COLOR` is not set, or empty. A model's text is untrusted: on a terminal its
//! control characters are shown instead of obeyed.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use pippin::GenerateInfo;
use pippin::chat::OutputEvent;
use pippin::monitor::{Distribution, ModelPerformance, TokenCounts};
use serde::Serialize;
use serde_json::json;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();
const NOTE: Style = Style::new().dimmed();

/// Prints `error:` and, where there is something to do about it, `hint:`.
pub(crate) fn error(message: &str, hint: Option<&str>) {
    labelled(ERROR, "error", message);
    if let Some(hint) = hint {
        labelled(HINT, "hint", hint);
    }
}

/// Prints a `warning:`.
pub(crate) fn warning(message: &str) {
    labelled(WARNING, "warning", message);
}

/// Prints a `hint:` alone.
pub(crate) fn hint(message: &str) {
    labelled(HINT, "hint", message);
}

fn labelled(style: Style, label: &str, message: &str) {
    // Nobody can be told that standard error is closed.
    let _ = writeln!(anstream::stderr(), "{style}{label}:{style:#} {}", visible(message));
}

/// Prints a remark that is neither answer nor error.
pub(crate) fn note(message: &str) {
    let _ = writeln!(anstream::stderr(), "{NOTE}{}{NOTE:#}", visible(message));
}

/// Prints lines as they stand.
pub(crate) fn lines(text: &str) {
    let _ = writeln!(anstream::stderr(), "{}", visible(text.trim_end_matches('\n')));
}

/// A text whose control characters are shown rather than obeyed, line ends and tabs aside.
pub(crate) fn visible(text: &str) -> String {
    text.chars().filter_map(visible_character).collect()
}

fn visible_character(character: char) -> Option<char> {
    match character {
        '\n' | '\t' => Some(character),
        // Carriage returns overwrite the line; beside a line feed they mean nothing.
        '\r' => None,
        // The pictures of control characters stand in their order: ESC becomes ␛.
        '\0'..='\u{1f}' => char::from_u32(0x2400 + character as u32),
        '\u{7f}' => Some('\u{2421}'),
        '\u{80}'..='\u{9f}' => Some(char::REPLACEMENT_CHARACTER),
        _ => Some(character),
    }
}

/// Writes an answer to standard output, piece by piece.
pub(crate) struct AnswerWriter<W> {
    out: W,
    is_terminal: bool,
    /// What stands before the next part.
    last: Option<Part>,
}

/// A part of an answer that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Thought,
    Text,
    Call,
}

impl AnswerWriter<io::Stdout> {
    pub(crate) fn stdout() -> Self {
        let out = io::stdout();
        let is_terminal = out.is_terminal();
        Self { out, is_terminal, last: None }
    }
}

impl<W: Write> AnswerWriter<W> {
    #[cfg(test)]
    pub(crate) fn new(out: W, is_terminal: bool) -> Self {
        Self { out, is_terminal, last: None }
    }

    #[cfg(test)]
    pub(crate) fn into_inner(self) -> W {
        self.out
    }

    /// Writes a piece so that it is seen at once.
    pub(crate) fn piece(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if self.is_terminal {
            self.out.write_all(visible(text).as_bytes())?;
        } else {
            self.out.write_all(text.as_bytes())?;
        }
        self.out.flush()
    }

    /// Writes a part of an answer: thoughts for people alone, each call as JSON on a line of its own.
    pub(crate) fn part(&mut self, part: &OutputEvent) -> io::Result<()> {
        match part {
            OutputEvent::Reasoning(text) if self.is_terminal => {
                self.begin(Part::Thought)?;
                write!(self.out, "{NOTE}{}{NOTE:#}", visible(text))?;
                self.out.flush()
            }
            OutputEvent::Content(text) => {
                self.begin(Part::Text)?;
                self.piece(text)
            }
            OutputEvent::ToolCall { call, .. } => {
                self.begin(Part::Call)?;
                let function = &call.function;
                self.piece(&json_line(&json!({"name": function.name, "arguments": function.arguments})))
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, part: Part) -> io::Result<()> {
        let between = match (self.last.replace(part), part) {
            (None, _) | (Some(Part::Text), Part::Text) | (Some(Part::Thought), Part::Thought) => "",
            (Some(Part::Thought), _) | (_, Part::Thought) => "\n\n",
            _ => "\n",
        };
        self.out.write_all(between.as_bytes())
    }

    /// Ends the answer's last line.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.last = None;
        self.out.write_all(b"\n")?;
        self.out.flush()
    }
}

/// Writes text to standard output.
pub(crate) fn data(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// JSON on one line. Control characters that JSON allows but a terminal may obey are escaped too.
pub(crate) fn json_line(value: &impl Serialize) -> String {
    escape_controls(serde_json::to_string(value))
}

/// JSON on several lines, for data that people look at too.
pub(crate) fn json_pretty(value: &impl Serialize) -> String {
    escape_controls(serde_json::to_string_pretty(value))
}

fn escape_controls(json: serde_json::Result<String>) -> String {
    // Serialising fails only for maps without string keys, which none of ours are.
    let json = json.unwrap_or_else(|error| format!("{{\"error\": {:?}}}", error.to_string()));
    let is_control = |character: char| ('\u{7f}'..='\u{9f}').contains(&character);
    if !json.contains(is_control) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_control(character) {
            let _ = write!(escaped, "\\u{:04x}", character as u32);
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// The numbers of an answer, for people.
pub(crate) fn statistics(info: &GenerateInfo) -> String {
    let mut text = String::new();
    let cached = match info.cached_tokens {
        0 => String::new(),
        cached => format!(" ({cached} of them cached)"),
    };
    let prompt_rate = info.prompt_tokens_per_second();
    let _ = writeln!(text, "  prompt         {} tokens{cached}{}", info.prompt_tokens, rate(prompt_rate));
    let _ =
        writeln!(text, "  answer         {} tokens{}", info.generated_tokens, rate(info.tokens_per_second()));
    if info.drafted_tokens > 0 {
        let _ =
            writeln!(text, "  guessed        {} tokens, {} right", info.drafted_tokens, info.accepted_tokens);
    }
    if let Some(time) = info.time_to_first_token {
        let _ = writeln!(text, "  first token    after {:.3} s", time.as_secs_f64());
    }
    if let Some(peak) = info.peak_memory {
        let _ = writeln!(text, "  peak memory    {}", bytes(peak));
    }
    let _ = writeln!(text, "  finish reason  {}", info.finish_reason);
    text
}

/// The numbers of a model over all its requests, for people.
pub(crate) fn performance(numbers: &ModelPerformance) -> String {
    let mut text = String::new();
    let requests = &numbers.requests;
    let kinds = [
        ("cut", requests.length),
        ("stopped", requests.cancelled),
        ("failed", requests.failed),
        ("running", requests.running),
    ];
    let kinds: String = kinds
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!(", {count} {kind}"))
        .collect();
    let _ = writeln!(text, "  requests       {}{kinds}", requests.total);
    let TokenCounts { prompt, cached, generated, drafted, accepted, .. } = numbers.tokens;
    let _ = writeln!(text, "  tokens         {prompt} read, {cached} of them cached; {generated} written");
    if drafted > 0 {
        let _ = writeln!(text, "  guessed        {drafted} tokens, {accepted} right");
    }
    let spread = |distribution: &Distribution, unit: &str, digits: usize| match distribution {
        Distribution { mean: Some(mean), p50: Some(p50), p95: Some(p95), .. } if requests.total > 1 => {
            format!(
                "{mean:.digits$} {unit} mean, {p50:.digits$} median, {p95:.digits$} at the 95th percentile"
            )
        }
        Distribution { last: Some(last), .. } => format!("{last:.digits$} {unit}"),
        _ => "none".to_owned(),
    };
    let _ = writeln!(text, "  first tokens   {}", spread(&numbers.time_to_first_token_s, "s", 3));
    let _ = writeln!(text, "  reading        {}", spread(&numbers.prefill_tokens_per_second, "tokens/s", 1));
    let _ = writeln!(text, "  writing        {}", spread(&numbers.decode_tokens_per_second, "tokens/s", 1));
    if let Some(load) = numbers.load_s {
        let times =
            if numbers.loads == 1 { String::new() } else { format!(", the last of {}", numbers.loads) };
        let _ = writeln!(text, "  loading        {load:.3} s{times}");
    }
    if let Some(peak) = numbers.peak_memory_bytes {
        let _ = writeln!(text, "  peak memory    {}", bytes(peak));
    }
    if let Some(share) = numbers.device_utilization {
        let _ = writeln!(text, "  device         {:.0} % busy", share * 100.0);
    }
    if let Some(memory) = &numbers.load_memory {
        let sign = if memory.difference_bytes < 0 { "−" } else { "+" };
        let difference = bytes(memory.difference_bytes.unsigned_abs());
        let _ = writeln!(text, "  memory         {}", memory.accounted);
        let _ = writeln!(text, "  estimate       off by {sign}{difference}");
        if let Some(growth) = memory.grown_by_use.or(memory.grown_by_load) {
            let size = |bytes_: i64| bytes(u64::try_from(bytes_).unwrap_or(0));
            let _ = writeln!(
                text,
                "  in RAM         {} written, {} of files",
                size(growth.anonymous),
                size(growth.file)
            );
        }
    }
    text
}

fn rate(tokens_per_second: f64) -> String {
    if tokens_per_second > 0.0 { format!(", {tokens_per_second:.1} tokens/s") } else { String::new() }
}

/// A number of bytes in decimal units.
pub(crate) fn bytes(count: u64) -> String {
    scaled(count, &["bytes", "kB", "MB", "GB", "TB"])
}

/// A large count in words.
pub(crate) fn count(count: u64) -> String {
    scaled(count, &["", "thousand", "million", "billion", "trillion"]).trim_end().to_owned()
}

fn scaled(count: u64, units: &[&str]) -> String {
    let (mut value, mut unit) = (count as f64, 0);
    // 999.95 would be shown as 1000.0.
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} {}", units[0]) } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_on_terminals_only() {
        let hostile = "a\u{1b}]0;title\u{7}\tb\r\n\u{9b}31m\u{7f}é";
        assert_eq!(visible(hostile), "a␛]0;title␇\tb\n\u{fffd}31m␡é");
        for (is_terminal, expected) in [(true, visible(hostile)), (false, hostile.to_owned())] {
            let mut writer = AnswerWriter::new(Vec::new(), is_terminal);
            writer.piece(hostile).expect("written");
            assert_eq!(writer.into_inner(), expected.as_bytes());
        }
    }

    #[test]
    fn parts_of_an_answer_stand_apart() {
        use pippin::chat::ToolCall;

        let parts = [
            OutputEvent::Reasoning("hm".to_owned()),
            OutputEvent::Content("He".to_owned()),
            OutputEvent::Content("llo".to_owned()),
            OutputEvent::ToolCall { index: 0, call: ToolCall::new("1", "f", json!({"x": "\u{9b}"})) },
            OutputEvent::ToolCall { index: 1, call: ToolCall::new("2", "g", json!({})) },
        ];
        let call = r#"{"name":"f","arguments":{"x":"\u009b"}}"#;
        let shown = format!("Hello\n{call}\n{{\"name\":\"g\",\"arguments\":{{}}}}\n");
        for is_terminal in [false, true] {
            let mut writer = AnswerWriter::new(Vec::new(), is_terminal);
            parts.iter().try_for_each(|part| writer.part(part)).and_then(|()| writer.end()).expect("written");
            let written = String::from_utf8(writer.into_inner()).expect("UTF-8");
            match is_terminal {
                false => assert_eq!(written, shown),
                true => assert_eq!(written, format!("{NOTE}hm{NOTE:#}\n\n{shown}")),
            }
        }
    }

    #[test]
    fn json_holds_no_control_characters() {
        let line = json_line(&serde_json::json!({"text": "\u{1b}[2J\u{9b}\u{7f}\né"}));
        assert!(!line.contains(char::is_control), "{line:?}");
        let back: serde_json::Value = serde_json::from_str(&line).expect("valid");
        assert_eq!(back["text"], "\u{1b}[2J\u{9b}\u{7f}\né");
    }

    #[test]
    fn numbers_are_scaled() {
        for (number, expected) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1.0 kB"),
            (999_999, "1.0 MB"),
            (u64::MAX, "18446744.1 TB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
        assert_eq!(count(12), "12");
        assert_eq!(count(595_776_512), "595.8 million");
    }
}
