//! An answer with what `--tokens` and `--logprobs` add to it.

use pippin::{GenerateInfo, GenerateParameters, GenerationEvent, GenerationStream, ModelContainer, Result};
use serde::Serialize;

use super::run::Request;

/// What is reported of answers besides their text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Detail {
    /// The prompt as the model sees it, and the tokens.
    pub(crate) tokens: bool,
    /// The log-probabilities of the answer's tokens.
    pub(crate) logprobs: bool,
}

impl Detail {
    /// The parameters that have it computed.
    pub(super) fn ask(self, parameters: &GenerateParameters) -> GenerateParameters {
        GenerateParameters { logprobs: parameters.logprobs || self.logprobs, ..parameters.clone() }
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
}

/// An answer as it grows.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) text: String,
    /// `None`: nobody asked for them.
    tokens: Option<Vec<Token>>,
    pub(super) info: Option<GenerateInfo>,
}

impl Collected {
    /// Nothing yet, of an answer whose details will be reported.
    pub(super) fn new(detail: Detail) -> Self {
        let tokens = (detail.tokens || detail.logprobs).then(Vec::new);
        Self { text: String::new(), tokens, info: None }
    }

    /// Reads a stream to its end.
    pub(super) fn read(stream: GenerationStream, model: &ModelContainer, detail: Detail) -> Result<Self> {
        let mut collected = Self::new(detail);
        for event in stream {
            collected.add(event?, model);
        }
        Ok(collected)
    }

    pub(super) fn add(&mut self, event: GenerationEvent, model: &ModelContainer) {
        self.text.push_str(event.text());
        match event {
            GenerationEvent::Token { id, logprob, .. } => {
                let Some(tokens) = &mut self.tokens else { return };
                let token = model.tokenizer().id_to_token(id).unwrap_or_default();
                let text = model.decode(&[id]).unwrap_or_default();
                tokens.push(Token { id, token, text, logprob });
            }
            GenerationEvent::Info(info) => self.info = Some(info),
            _ => {}
        }
    }

    /// What is reported besides the text.
    pub(super) fn detail(&mut self, prompt: Option<Prompt>) -> Details {
        Details { prompt, tokens: self.tokens.take() }
    }
}

/// The fields that are reported besides the text.
#[derive(Debug, Default, Serialize)]
pub(super) struct Details {
    #[serde(flatten)]
    prompt: Option<Prompt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<Vec<Token>>,
}
