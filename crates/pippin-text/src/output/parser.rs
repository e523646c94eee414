//! The state machine that all dialects share.

use std::sync::Arc;

use super::OutputEvent;
use super::dialects::Context;
use super::rules::{Dialect, Headers, MAX_HEADER, Marks, Region, Rules};
use super::scan::{Found, Scan};
use super::schema::Tools;
use crate::message::ToolCall;

/// A call of more bytes than this is text.
const MAX_CALL: usize = 4 << 20;
/// White space that may turn out to stand before a call is held back up to this many bytes.
const MAX_SPACE: usize = 1 << 10;
/// How often a mark at the end of a call, seen within a string, is taken for the end after all.
const MAX_RESCUES: usize = 8;

/// Where text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    Content,
    Reasoning,
}

/// What a mark means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Thought,
    ThoughtEnd,
    Region(usize),
    Header,
    MessageEnd,
    Nothing,
}

/// What is looked for in a channel.
#[derive(Clone, Debug)]
struct Lookout {
    marks: Vec<(&'static str, Meaning)>,
    /// Whether a mark begins with this byte.
    firsts: [bool; 256],
}

impl Lookout {
    fn new(marks: Vec<(&'static str, Meaning)>) -> Self {
        let mut firsts = [false; 256];
        for first in marks.iter().filter_map(|(mark, _)| mark.bytes().next()) {
            firsts[usize::from(first)] = true;
        }
        Self { marks, firsts }
    }

    /// The first mark in a text: where it is and which. A mark that the text ends in the middle of has no meaning yet.
    fn find(&self, text: &str) -> Option<(usize, Option<(&'static str, Meaning)>)> {
        for (at, byte) in text.bytes().enumerate() {
            if !self.firsts[usize::from(byte)] {
                continue;
            }
            let Some(rest) = text.get(at..) else { continue };
            if let Some(found) = self.marks.iter().find(|(mark, _)| rest.starts_with(mark)) {
                return Some((at, Some(*found)));
            }
            if self.marks.iter().any(|(mark, _)| mark.starts_with(rest)) {
                return Some((at, None));
            }
        }
        None
    }
}

#[derive(Clone)]
enum State {
    /// In text, of the user's or of a thought.
    Text,
    /// In what may be a call, behind `opening`.
    Call { region: Region, opening: String, name: Option<String>, scan: Scan },
    /// In a header, behind `opening`.
    Header { opening: String },
}

/// White space at the edges of a channel's text.
#[derive(Clone, Debug, Default)]
struct Edge {
    /// What may yet turn out to be the white space before a mark.
    held: String,
    /// Whether white space is left out, because a mark has come last.
    is_fresh: bool,
    /// Whether there has been text.
    has_text: bool,
}

/// Reads an answer, piece by piece. See [`OutputFormat`](super::OutputFormat).
///
/// Text comes out as soon as it can no longer be the beginning of a mark; a call when it is whole. White space between marks and text is
/// left out, unless what looked like a mark was none. Every byte is looked at a bounded number of times, and what is held back is bounded:
/// a call by 4 MiB, anything else by far less.
#[derive(Clone)]
pub struct OutputParser {
    rules: Rules,
    dialect: Option<Dialect>,
    tools: Arc<Tools>,
    lookouts: [Lookout; 2],
    state: State,
    channel: Channel,
    edges: [Edge; 2],
    /// Text that is not decided about.
    buffer: String,
    /// How much of the buffer is decided.
    at: usize,
    /// Whether a call came last.
    is_after_call: bool,
    calls: usize,
    rescues: usize,
    events: Vec<OutputEvent>,
}

impl std::fmt::Debug for OutputParser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputParser")
            .field("dialect", &self.dialect)
            .field("channel", &self.channel)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl OutputParser {
    pub(super) fn new(
        rules: Rules,
        dialect: Option<Dialect>,
        thoughts: Option<Marks>,
        tools: Arc<Tools>,
        begins_in_header: bool,
        begins_in_thought: bool,
    ) -> Self {
        let regions =
            rules.regions.iter().enumerate().map(|(at, region)| (region.start, Meaning::Region(at)));
        let headers = rules.header_starts.iter().map(|mark| (*mark, Meaning::Header));
        let ends = rules.message_ends.iter().map(|mark| (*mark, Meaning::MessageEnd));
        let both: Vec<_> = regions.chain(headers).chain(ends).collect();
        let mut content = both.clone();
        content.extend(thoughts.map(|(start, _)| (start, Meaning::Thought)));
        content.extend(rules.dropped.iter().map(|mark| (*mark, Meaning::Nothing)));
        let mut reasoning: Vec<_> = thoughts.map(|(_, end)| (end, Meaning::ThoughtEnd)).into_iter().collect();
        reasoning.extend(both);
        reasoning.extend(rules.dropped.iter().map(|mark| (*mark, Meaning::Nothing)));
        let state = match begins_in_header {
            true => State::Header { opening: String::new() },
            false => State::Text,
        };
        let mut edges = [Edge::default(), Edge { is_fresh: true, ..Edge::default() }];
        edges[0].is_fresh = begins_in_thought;
        Self {
            rules,
            dialect,
            tools,
            lookouts: [Lookout::new(content), Lookout::new(reasoning)],
            state,
            channel: if begins_in_thought { Channel::Reasoning } else { Channel::Content },
            edges,
            buffer: String::new(),
            at: 0,
            is_after_call: false,
            calls: 0,
            rescues: MAX_RESCUES,
            events: Vec::new(),
        }
    }

    /// Takes the next piece of the answer, and returns what is now certain.
    pub fn push(&mut self, text: &str) -> Vec<OutputEvent> {
        self.buffer.push_str(text);
        self.run(false);
        std::mem::take(&mut self.events)
    }

    /// Ends the answer: returns what was held back. What is pushed after that is text.
    pub fn finish(&mut self) -> Vec<OutputEvent> {
        self.run(true);
        // White space that no mark has claimed belongs to the answer.
        let Edge { held, is_fresh, .. } = &mut self.edges[0];
        let held = std::mem::take(held);
        if !*is_fresh {
            self.emit(Channel::Content, held);
        }
        self.edges[1].held.clear();
        self.state = State::Text;
        std::mem::take(&mut self.events)
    }

    /// Whether the text that comes next belongs to a thought.
    pub fn is_reasoning(&self) -> bool {
        self.channel == Channel::Reasoning
    }

    fn run(&mut self, is_last: bool) {
        loop {
            let goes_on = match std::mem::replace(&mut self.state, State::Text) {
                State::Text => self.text_state(is_last),
                State::Call { region, opening, name, scan } => {
                    self.call_state(region, opening, name, scan, is_last)
                }
                State::Header { opening } => self.header_state(opening, is_last),
            };
            if !goes_on {
                break;
            }
        }
        self.buffer.drain(..self.at);
        self.at = 0;
    }

    /// What is not decided about.
    fn rest(&self) -> &str {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    /// Whether there is more to be done.
    fn text_state(&mut self, is_last: bool) -> bool {
        if self.rest().is_empty() {
            return false;
        }
        if self.channel == Channel::Content && (self.is_after_call || self.can_be_bare()) {
            let rest = self.rest();
            let space = rest.len() - rest.trim_start().len();
            if space > 0 {
                self.take_text(space);
                return true;
            }
            if self.is_after_call {
                let trailing = self.rules.trailing;
                if let Some(mark) = trailing.iter().find(|mark| rest.starts_with(**mark)) {
                    self.at += mark.len();
                    return true;
                }
                if !is_last && trailing.iter().any(|mark| mark.starts_with(rest)) {
                    return false;
                }
            }
            if let Some(region) = self.rules.bare.filter(|_| rest.starts_with('{') && self.can_be_bare()) {
                self.begin(region, String::new(), None);
                return true;
            }
        }
        let rest = self.rest();
        match self.lookouts[self.channel as usize].find(rest) {
            None => {
                self.take_text(rest.len());
                false
            }
            Some((at, None)) => {
                let length = if is_last { rest.len() } else { at };
                self.take_text(length);
                false
            }
            Some((at, Some((mark, meaning)))) => {
                self.take_text(at);
                self.at += mark.len();
                self.mark(mark, meaning);
                true
            }
        }
    }

    /// Whether a call without a mark may begin here.
    fn can_be_bare(&self) -> bool {
        let is_begin = self.is_after_call || !self.edges[0].has_text;
        self.rules.bare.is_some() && !self.tools.is_empty() && is_begin
    }

    fn mark(&mut self, mark: &str, meaning: Meaning) {
        match meaning {
            Meaning::Thought => {
                self.edges[0].held.clear();
                self.turn_to(Channel::Reasoning);
            }
            Meaning::ThoughtEnd => {
                self.edges[1].held.clear();
                self.turn_to(Channel::Content);
            }
            Meaning::Region(index) => {
                if let Some(region) = self.rules.regions.get(index).copied() {
                    self.begin(region, mark.to_owned(), None);
                }
            }
            Meaning::Header => self.state = State::Header { opening: mark.to_owned() },
            Meaning::MessageEnd => {
                self.edges.iter_mut().for_each(|edge| edge.held.clear());
                self.turn_to(Channel::Content);
            }
            Meaning::Nothing => {
                let edge = &mut self.edges[self.channel as usize];
                edge.held.clear();
                edge.is_fresh = true;
            }
        }
    }

    /// Text goes there from now on.
    fn turn_to(&mut self, channel: Channel) {
        self.channel = channel;
        self.edges[channel as usize].is_fresh = true;
    }

    fn begin(&mut self, region: Region, opening: String, name: Option<String>) {
        self.state = State::Call { region, opening, name, scan: Scan::default() };
    }

    fn call_state(
        &mut self,
        region: Region,
        opening: String,
        name: Option<String>,
        mut scan: Scan,
        is_last: bool,
    ) -> bool {
        let rest = self.rest();
        let length = rest.len();
        let (end, next, is_closed) = match scan.advance(region.shape, region.start, rest) {
            Found::End { end, next, is_closed } => (end, next, is_closed),
            Found::Refused(at) => {
                let at = (0..=at.min(length)).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(0);
                self.emit_text(&opening);
                self.take_text(at);
                return true;
            }
            Found::Nothing if !is_last && length <= MAX_CALL => {
                self.state = State::Call { region, opening, name, scan };
                return false;
            }
            // It has not ended, and will not.
            Found::Nothing => match scan.inner_end.filter(|_| self.rescues > 0) {
                Some((end, next)) if self.read(&region, name.as_deref(), length, false).is_none() => {
                    self.rescues -= 1;
                    (end, next, true)
                }
                _ => (length, length, false),
            },
        };
        match self.read(&region, name.as_deref(), end, is_closed) {
            Some(calls) => {
                self.at += next;
                self.found(calls);
                // What a header has named is a message of its own.
                if name.is_some() {
                    self.turn_to(Channel::Content);
                }
                if let Some(again) = self.rules.again {
                    self.begin(again, String::new(), None);
                }
            }
            None => {
                self.emit_text(&opening);
                self.take_text(next);
            }
        }
        true
    }

    fn read(
        &self,
        region: &Region,
        name: Option<&str>,
        end: usize,
        is_closed: bool,
    ) -> Option<Vec<ToolCall>> {
        let markup = self.rest().get(..end).filter(|markup| markup.len() <= MAX_CALL)?;
        (region.parse)(markup, &Context { tools: &self.tools, name, is_closed })
    }

    fn found(&mut self, calls: Vec<ToolCall>) {
        for call in calls {
            self.events.push(OutputEvent::ToolCall { index: self.calls, call });
            self.calls += 1;
        }
        self.is_after_call = true;
        for edge in &mut self.edges {
            edge.held.clear();
            edge.is_fresh = true;
        }
    }

    fn header_state(&mut self, opening: String, is_last: bool) -> bool {
        let rest = self.rest();
        let is_functionary = self.rules.headers == Some(Headers::Functionary);
        let mark = if is_functionary { "\n" } else { "<|message|>" };
        let header = rest.split_once(mark).map(|(header, _)| header);
        let is_good = match is_functionary {
            true => self.can_name(header.unwrap_or(rest), header.is_some()),
            false => opening == "<|channel|>" || begins_header(rest),
        };
        match header {
            Some(header) if is_good && header.len() <= MAX_HEADER => {
                let header = header.to_owned();
                self.at += header.len() + mark.len();
                match is_functionary {
                    true => self.functionary(&header, format!("{opening}{header}\n")),
                    false => self.harmony(&header, &opening),
                }
                true
            }
            None if is_good && !is_last && rest.len() < MAX_HEADER + mark.len() => {
                self.state = State::Header { opening };
                false
            }
            // The answer has ended within a header, which says nothing.
            None if is_good && is_last && !is_functionary => {
                self.at = self.buffer.len();
                false
            }
            _ => {
                self.emit_text(&opening);
                true
            }
        }
    }

    /// Whether that is a header of functionary, or may become one.
    fn can_name(&self, header: &str, is_whole: bool) -> bool {
        let is_name = |c: char| c.is_alphanumeric() || "_.-".contains(c);
        let is_known = header == "all" || self.tools.is_empty() || self.tools.has(header);
        header.chars().all(is_name) && (!is_whole || is_known && !header.is_empty())
    }

    fn functionary(&mut self, name: &str, opening: String) {
        self.edges[0].held.clear();
        self.turn_to(Channel::Content);
        if let Some(region) = self.dialect.and_then(Dialect::message).filter(|_| name != "all") {
            self.begin(region, opening, Some(name.to_owned()));
        }
    }

    fn harmony(&mut self, header: &str, opening: &str) {
        let after = |mark: &str| {
            let (_, rest) = header.split_once(mark)?;
            rest.split(|c: char| c.is_whitespace() || c == '<').next().filter(|word| !word.is_empty())
        };
        let channel = match opening == "<|channel|>" {
            true => header.split(|c: char| c.is_whitespace() || c == '<').next(),
            false => after("<|channel|>"),
        };
        let recipient = after("to=");
        let is_thought = channel == Some("analysis") || recipient == Some("self");
        self.edges.iter_mut().for_each(|edge| edge.held.clear());
        self.turn_to(if is_thought { Channel::Reasoning } else { Channel::Content });
        let region = self.dialect.and_then(Dialect::message);
        if let (Some(recipient), Some(region)) =
            (recipient.filter(|to| !matches!(*to, "self" | "user")), region)
        {
            let name = recipient.strip_prefix("functions.").unwrap_or(recipient).to_owned();
            self.begin(region, format!("{opening}{header}<|message|>"), Some(name));
        }
    }

    /// The next bytes that are not decided about are text.
    fn take_text(&mut self, length: usize) {
        let text = self.buffer.get(self.at..self.at + length).unwrap_or_default().to_owned();
        self.at += length;
        self.emit_text(&text);
    }

    /// Text of the channel that is open, with white space at its edges.
    fn emit_text(&mut self, text: &str) {
        let channel = self.channel;
        let edge = &mut self.edges[channel as usize];
        let text = if edge.is_fresh { text.trim_start() } else { text };
        if text.is_empty() {
            return;
        }
        edge.is_fresh = false;
        let kept = text.trim_end().len();
        if kept == 0 {
            edge.held.push_str(text);
            if edge.held.len() <= MAX_SPACE {
                return;
            }
            let held = std::mem::take(&mut edge.held);
            return self.emit(channel, held);
        }
        edge.has_text = true;
        self.is_after_call = false;
        let mut whole = std::mem::replace(&mut edge.held, text[kept..].to_owned());
        whole.push_str(&text[..kept]);
        self.emit(channel, whole);
    }

    fn emit(&mut self, channel: Channel, text: String) {
        if text.is_empty() {
            return;
        }
        match (channel, self.events.last_mut()) {
            (Channel::Content, Some(OutputEvent::Content(last)))
            | (Channel::Reasoning, Some(OutputEvent::Reasoning(last))) => last.push_str(&text),
            (Channel::Content, _) => self.events.push(OutputEvent::Content(text)),
            (Channel::Reasoning, _) => self.events.push(OutputEvent::Reasoning(text)),
        }
    }
}

/// Whether that is the beginning of a header of harmony, or may become one.
fn begins_header(text: &str) -> bool {
    let text = text.trim_start();
    let beginnings = ["<|channel|>", "<|message|>", "<|start|>", "assistant", "to="];
    beginnings.iter().any(|one| text.starts_with(one) || one.starts_with(text))
}
