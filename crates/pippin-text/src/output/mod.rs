//! What the text of an answer means: thoughts, text for the user, calls of tools.
//!
//! Every family writes calls in its own way, and marks its thoughts with its own tokens. [`OutputFormat`] finds out which way a model
//! has, from its `tokenizer_config.json`, its chat template and its vocabulary, as mlx-lm does; [`OutputParser`] reads an answer with it,
//! in whatever pieces the answer comes, and gives the same for all ways of cutting it.
//!
//! What looks like a call and is none comes back as the text that it is: no answer is an error. Special tokens have to be part of the text
//! (`StreamDecoder::new(tokenizer, false)`), because in most vocabularies the marks are such.

mod dialects;
mod grammar;
mod literal;
mod parser;
mod rules;
mod scan;
mod schema;

use std::sync::Arc;

use serde_json::Value;

pub use self::grammar::{AnswerForm, Calls};
pub use self::parser::OutputParser;
pub use self::rules::Dialect;
use self::rules::{APRIEL, CHANNEL, Headers, Marks, Rules, THOUGHTS};
use self::schema::Tools;
use crate::message::{Message, ToolCall};
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

/// What an [`OutputParser`] has found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum OutputEvent {
    /// More of what the model thinks before it answers; never empty.
    Reasoning(String),
    /// More of the answer; never empty.
    Content(String),
    /// A whole call of a tool. Its arguments are an object; it has an id only where the model gives one.
    ToolCall {
        /// Which call of this answer it is, from 0.
        index: usize,
        /// The call.
        call: ToolCall,
    },
}

/// An answer by its parts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedOutput {
    /// What the model has thought.
    pub reasoning: String,
    /// The answer's text.
    pub content: String,
    /// The calls, in their order.
    pub tool_calls: Vec<ToolCall>,
}

impl ParsedOutput {
    /// Adds what has been found next.
    pub fn push(&mut self, event: OutputEvent) {
        match event {
            OutputEvent::Reasoning(text) => self.reasoning.push_str(&text),
            OutputEvent::Content(text) => self.content.push_str(&text),
            OutputEvent::ToolCall { call, .. } => self.tool_calls.push(call),
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.reasoning.is_empty() && self.content.is_empty() && self.tool_calls.is_empty()
    }

    /// The message of the assistant that this is.
    pub fn into_message(self) -> Message {
        let Self { reasoning, content, tool_calls } = self;
        let mut message = match content.is_empty() && !tool_calls.is_empty() {
            true => Message::assistant_calls(tool_calls),
            false if tool_calls.is_empty() => Message::assistant(content),
            false => Message::assistant(content).with_tool_calls(tool_calls),
        };
        if !reasoning.is_empty() {
            message = message.with_reasoning(reasoning);
        }
        message
    }
}

impl Extend<OutputEvent> for ParsedOutput {
    fn extend<I: IntoIterator<Item = OutputEvent>>(&mut self, events: I) {
        events.into_iter().for_each(|event| self.push(event));
    }
}

/// How a model writes thoughts and calls.
///
/// ```
/// use pippin_text::{Dialect, OutputFormat, ParsedOutput};
///
/// let format = OutputFormat::from(Dialect::Hermes).with_reasoning_marks("<think>", "</think>");
/// let mut parser = format.parser(&[], "");
/// let mut output = ParsedOutput::default();
/// for piece in ["<thi", "nk>Paris?</think>\n\n<tool", "_call>{\"name\": \"weather\", ", "\"arguments\": {}}</tool_call>"] {
///     output.extend(parser.push(piece));
/// }
/// output.extend(parser.finish());
/// assert_eq!((output.reasoning.as_str(), output.content.as_str()), ("Paris?", ""));
/// assert_eq!(output.tool_calls[0].function.name, "weather");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputFormat {
    dialect: Option<Dialect>,
    thoughts: Option<Marks>,
}

impl From<Dialect> for OutputFormat {
    fn from(dialect: Dialect) -> Self {
        Self { dialect: Some(dialect), thoughts: None }
    }
}

impl OutputFormat {
    /// The format of a model: the dialect that `tool_parser_type` in its `tokenizer_config.json` names, or else that which its template
    /// shows, or else that of its vocabulary; the marks of thoughts in its vocabulary, or else in its template.
    pub fn detect(tokenizer: &Tokenizer, template: Option<&ChatTemplate>) -> Self {
        let has_token = |token: &str| tokenizer.token_to_id(token).is_some();
        let sources =
            [true, false].map(|with_tools| template.map_or("", |template| template.source(with_tools)));
        Self::from_signs(tokenizer.tool_parser_type(), &sources, &has_token)
    }

    /// [`detect`](Self::detect) from a template's source alone.
    pub fn from_template(source: &str) -> Self {
        Self::from_signs(None, &[source], &|_| false)
    }

    fn from_signs(name: Option<&str>, sources: &[&str], has_token: &dyn Fn(&str) -> bool) -> Self {
        let dialect = name
            .and_then(Dialect::from_name)
            .or_else(|| sources.iter().find_map(|source| Dialect::of_template(source)))
            .or_else(|| Dialect::of_vocabulary(has_token));
        let is_shown = |text: &str| sources.iter().any(|source| source.contains(text));
        let is_apt = |(start, _): &Marks| *start != "<|think|>" || dialect == Some(Dialect::Solar);
        let mut marks = THOUGHTS.into_iter().filter(is_apt);
        let thoughts = match dialect {
            // Their channels and recipients say what is a thought.
            Some(Dialect::Harmony | Dialect::Muse) => None,
            _ => marks
                .clone()
                .find(|(start, end)| has_token(start) && has_token(end))
                .or_else(|| (has_token("<|channel>") && has_token("<channel|>")).then_some(CHANNEL))
                .or_else(|| marks.find(|(start, end)| is_shown(start) && is_shown(end)))
                .or_else(|| (is_shown("<|channel>") && is_shown("<channel|>")).then_some(CHANNEL))
                .or_else(|| is_shown(APRIEL.1).then_some(APRIEL)),
        };
        // The template of Kimi K3 makes its tags of parts.
        let thoughts = match dialect {
            Some(Dialect::KimiK3) => THOUGHTS.into_iter().find(|(start, _)| start.starts_with("<|open|>")),
            _ => thoughts,
        };
        Self { dialect, thoughts }
    }

    /// With these marks around thoughts, if they are marks of a model that is known.
    #[must_use]
    pub fn with_reasoning_marks(self, start: &str, end: &str) -> Self {
        let all = THOUGHTS.into_iter().chain([CHANNEL, APRIEL]);
        let thoughts = all.into_iter().find(|marks| *marks == (start, end)).or(self.thoughts);
        Self { thoughts, ..self }
    }

    /// The dialect of calls. `None`: the model has none that is known, and all of an answer is text.
    pub fn dialect(&self) -> Option<Dialect> {
        self.dialect
    }

    /// The marks before and after a thought, where the model has such. Models without may have channels instead
    /// ([`Dialect::Harmony`]).
    pub fn reasoning_marks(&self) -> Option<(&str, &str)> {
        self.thoughts
    }

    /// Whether thoughts can be told from the answer: by marks, or by headers.
    pub fn has_thoughts(&self) -> bool {
        self.thoughts.is_some() || matches!(self.dialect, Some(Dialect::Harmony | Dialect::Muse))
    }

    /// Whether a prompt ends inside of a thought, so that the answer begins in it.
    pub fn ends_in_reasoning(&self, prompt: &str) -> bool {
        self.thoughts.is_some_and(|(start, _)| prompt.trim_end().ends_with(start))
    }

    /// A parser for the answer to a prompt. The tools, in the form of the OpenAI API, say what type an argument has where the dialect
    /// does not; of the prompt only the end counts, which may be the beginning of a thought or of a header.
    pub fn parser(&self, tools: &[Value], prompt: &str) -> OutputParser {
        self.parser_of(self.dialect.map(Dialect::rules).unwrap_or_default(), tools, prompt)
    }

    /// A parser for an answer in which nothing is a call, however it looks: of a model that was given no tools, or that is held to
    /// another form.
    pub fn text_parser(&self, prompt: &str) -> OutputParser {
        let rules = self.dialect.map(Dialect::rules).unwrap_or_default();
        self.parser_of(Rules { regions: Vec::new(), bare: None, again: None, ..rules }, &[], prompt)
    }

    fn parser_of(&self, rules: Rules, tools: &[Value], prompt: &str) -> OutputParser {
        let begins_in_header = match rules.headers {
            Some(Headers::Harmony) => prompt.trim_end().ends_with("<|start|>assistant"),
            Some(Headers::Functionary) => prompt.ends_with(">>>"),
            None => false,
        };
        let begins_in_thought = self.ends_in_reasoning(prompt);
        OutputParser::new(
            rules,
            self.dialect,
            self.thoughts,
            Arc::new(Tools::read(tools)),
            begins_in_header,
            begins_in_thought,
        )
    }
}
