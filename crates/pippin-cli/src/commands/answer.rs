//! An answer with what `--tokens`, `--logprobs` and `--top-logprobs` add to it.

use pippin::chat::{OutputEvent, ParsedOutput, ToolCall};
use pippin::text::OutputParser;
use pippin::{
    FinishReason, GenerateInfo, GenerateParameters, GenerationEvent, GenerationStream, ModelContainer, Result,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::run::Request;

/// What is reported of answers besides their text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Detail {
    /// The prompt as the model sees it, and the tokens.
    pub(crate) tokens: bool,
    /// The log-probabilities of the answer's tokens.
    pub(crate) logprobs: bool,
    /// How many of the likeliest tokens are reported with each.
    pub(crate) top_logprobs: usize,
}

impl Detail {
    /// The parameters that have it computed.
    pub(super) fn ask(self, parameters: &GenerateParameters) -> GenerateParameters {
        let top_logprobs = parameters.top_logprobs.max(self.top_logprobs);
        let logprobs = parameters.logprobs || self.logprobs || top_logprobs > 0;
        GenerateParameters { logprobs, top_logprobs, ..parameters.clone() }
    }

    /// The prompt, if it is wanted.
    pub(super) fn prompt(self, request: &Request, model: &ModelContainer) -> Result<Option<Prompt>> {
        if !self.tokens {
            return Ok(None);
        }
        let (prompt, prompt_token_ids) = request.prompt(model)?;
        Ok(Some(Prompt { prompt, prompt_token_ids }))
    }
}

/// The prompt as the model sees it.
#[derive(Debug, Serialize)]
pub(super) struct Prompt {
    prompt: String,
    prompt_token_ids: Vec<u32>,
}

/// A token of an answer.
#[derive(Debug, Serialize)]
struct Token {
    id: u32,
    /// As the vocabulary has it.
    token: String,
    /// What it says by itself; half a character is shown as a mark.
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprob: Option<f32>,
    /// The likeliest tokens in its place, if they are wanted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top_logprobs: Vec<Token>,
}

impl Token {
    fn new(id: u32, logprob: Option<f32>, model: &ModelContainer) -> Self {
        let token = model.tokenizer().id_to_token(id).unwrap_or_default();
        let text = model.decode(&[id]).unwrap_or_default();
        Self { id, token, text, logprob, top_logprobs: Vec::new() }
    }
}

/// An answer as it grows.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) text: String,
    /// Takes the text apart; `None`: it is a completion, which nothing is known of.
    parser: Option<OutputParser>,
    output: ParsedOutput,
    /// `None`: nobody asked for them.
    tokens: Option<Vec<Token>>,
    pub(super) info: Option<GenerateInfo>,
}

impl Collected {
    /// Nothing yet, of an answer whose details will be reported.
    pub(super) fn new(detail: Detail, parser: Option<OutputParser>) -> Self {
        let tokens = (detail != Detail::default()).then(Vec::new);
        Self { text: String::new(), parser, output: ParsedOutput::default(), tokens, info: None }
    }

    /// Reads a stream to its end.
    pub(super) fn read(
        stream: GenerationStream,
        model: &ModelContainer,
        detail: Detail,
        parser: Option<OutputParser>,
    ) -> Result<Self> {
        let mut collected = Self::new(detail, parser);
        for event in stream {
            collected.add(event?, model);
        }
        Ok(collected)
    }

    /// Adds what came next, and returns what is now known of the text.
    pub(super) fn add(&mut self, event: GenerationEvent, model: &ModelContainer) -> Vec<OutputEvent> {
        self.text.push_str(event.text());
        let found = match (&mut self.parser, &event) {
            (None, _) => Vec::new(),
            (Some(parser), GenerationEvent::Info(_)) => parser.finish(),
            (Some(parser), event) => parser.push(event.text()),
        };
        self.output.extend(found.iter().cloned());
        match event {
            GenerationEvent::Token { id, logprob, top_logprobs, .. } => {
                let Some(tokens) = &mut self.tokens else { return found };
                let top = top_logprobs.iter().map(|top| Token::new(top.token, Some(top.logprob), model));
                tokens.push(Token { top_logprobs: top.collect(), ..Token::new(id, logprob, model) });
            }
            GenerationEvent::Info(info) => self.info = Some(info),
            _ => {}
        }
        found
    }

    /// Why the answer ended, in one word.
    pub(super) fn finish_reason(&self, info: &GenerateInfo) -> &'static str {
        match info.finish_reason {
            FinishReason::Stop if !self.output.tool_calls.is_empty() => "tool_calls",
            ref reason => reason.as_str(),
        }
    }

    /// What is reported besides the text.
    pub(super) fn detail(&mut self, prompt: Option<Prompt>) -> Details {
        let ParsedOutput { reasoning, content, tool_calls } = std::mem::take(&mut self.output);
        let calls: Vec<Value> = tool_calls.iter().enumerate().map(|(at, call)| call_json(at, call)).collect();
        let has_parts = !reasoning.is_empty() || !calls.is_empty();
        Details {
            content: has_parts.then_some(content),
            reasoning_content: (!reasoning.is_empty()).then_some(reasoning),
            tool_calls: (!calls.is_empty()).then_some(calls),
            prompt,
            tokens: self.tokens.take(),
        }
    }
}

/// A call in the form of the OpenAI API.
fn call_json(at: usize, call: &ToolCall) -> Value {
    let id = call.id.clone().unwrap_or_else(|| format!("call{at:05}"));
    let arguments = call.function.arguments.to_string();
    json!({"id": id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}})
}

/// The fields that are reported besides the text.
#[derive(Debug, Default, Serialize)]
pub(super) struct Details {
    /// The text without thoughts and calls, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Vec<Value>>,
    #[serde(flatten)]
    prompt: Option<Prompt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<Vec<Token>>,
}
