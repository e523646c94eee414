//! `POST /v1/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use pippin::chat::ParsedOutput;
use pippin::{GenerateParameters, ModelContainer};
use serde_json::{Map, Value, json};

use crate::answers::{self, Answers, Chunks, End, Head, OpenAi, Piece, Reading, Token, token_text};
use crate::error::{ApiError, ApiResult, json_response};
use crate::fields::Fields;
use crate::parameters::{self, Streaming};
use crate::shared::{Caller, Shared, blocking};
use crate::structure::Structure;

/// Tokens of an answer where a request does not say, as OpenAI has it.
const MAX_TOKENS: usize = 16;

/// What is to be continued.
#[derive(Clone, Debug)]
enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// A prompt as it is shown again, where that is asked for.
#[derive(Clone, Debug, Default)]
struct Echo {
    text: String,
    /// Its tokens with their log-probabilities, of which the first has none.
    tokens: Vec<Token>,
}

impl Echo {
    /// Computes how likely the prompt's tokens are.
    async fn score(&mut self, model: &ModelContainer, prompt: &[u32], top: usize) -> pippin::Result<()> {
        let scores = model.score_tokens(prompt.to_vec(), top)?.await?;
        let first = prompt.first().map(|id| Token { id: *id, logprob: None, top: Vec::new() });
        let others = prompt.iter().skip(1).zip(scores);
        let others = others.map(|(id, score)| Token {
            id: *id,
            logprob: Some(score.logprob),
            top: score.top_logprobs,
        });
        self.tokens = first.into_iter().chain(others).collect();
        Ok(())
    }
}

pub(crate) async fn complete(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> ApiResult<Response> {
    let limits = &shared.options.limits;
    let mut fields = Fields::read(request, limits).await?;
    fields.refuse_unsupported()?;
    fields.refuse_unless("tools", |value| value.as_array().is_some_and(Vec::is_empty))?;
    fields.refuse_unless("top_logprobs", |value| *value == 0)?;
    let max_tokens = fields.count("max_tokens", 0, usize::MAX)?.unwrap_or(MAX_TOKENS);
    let mut parameters = parameters::read(&mut fields, &shared.options.parameters, limits)?;
    parameters.max_tokens = Some(max_tokens);
    let structure = Structure::read(&mut fields)?;
    let field = structure.as_ref().map_or("prompt", |structure| structure.field);
    if let Some(structure) = structure {
        parameters.constraint = Some(structure.constraint);
    }
    let most = GenerateParameters::MAX_TOP_LOGPROBS;
    let top = match fields.take("logprobs") {
        None | Some(Value::Bool(false)) => None,
        Some(value) => match value.as_u64().and_then(|count| usize::try_from(count).ok()) {
            Some(count) if count <= most => Some(count),
            _ => return Err(ApiError::field("logprobs", format!("a whole number from 0 to {most}"))),
        },
    };
    (parameters.logprobs, parameters.top_logprobs) = (top.is_some(), top.unwrap_or(0));
    let echo = fields.boolean("echo")?.unwrap_or(false);
    let streaming = Streaming::read(&mut fields)?;
    let per_prompt = fields.count("n", 1, limits.choices)?.unwrap_or(1);
    let name = fields.text("model")?;
    let prompts = prompts(fields.take("prompt"))?;
    let count = prompts.len().saturating_mul(per_prompt);
    if count > limits.choices {
        return Err(ApiError::field("prompt", format!("no more than {} prompts, n of each", limits.choices)));
    }
    let ready = shared.ready(&caller, name, count).await?;
    let (model, name) = (ready.model.clone(), ready.name.clone());
    let (prompts, mut echoes) = {
        let model = model.clone();
        let prepared = blocking(move || prepare(&model, prompts, echo)).await?;
        prepared.map_err(|error| of_prompt(shared.fault(error)))?
    };
    if let Some(top) = top {
        for (echo, prompt) in echoes.iter_mut().zip(&prompts) {
            echo.score(&model, prompt, top).await.map_err(|error| of_prompt(shared.fault(error)))?;
        }
    }
    let mut answers = Answers::begin(&shared, ready, prompts, parameters, per_prompt, &Reading::default())
        .await
        .map_err(|error| if error.is_of_constraint() { error.at(field) } else { of_prompt(error) })?;
    let head = Head::new(format!("cmpl-{}", shared.new_id()), "text_completion", name);
    let mut chunks =
        TextChunks { model: top.map(|top| (model, top)), echoes, per_prompt, offsets: vec![0; count] };
    if streaming.is_wanted {
        let includes_usage = streaming.includes_usage;
        return Ok(answers::events(answers, OpenAi { head, chunks, includes_usage }));
    }
    let all = answers::collect(&mut answers).await?;
    let choices = all.into_iter().enumerate().map(|(index, whole)| {
        let echo = chunks.echo(index).cloned().unwrap_or_default();
        let reason = whole.finish_reason();
        let tokens: Vec<_> = echo.tokens.into_iter().chain(whole.tokens).collect();
        chunks.choice(index, echo.text + &whole.output.content, &tokens, reason)
    });
    let choices = choices.collect();
    Ok(json_response(&head.with(choices, Some(answers.usage().to_json()))))
}

/// What is wrong with a prompt, where there are no messages.
fn of_prompt(error: ApiError) -> ApiError {
    let is_of_prompt = error.param.as_deref().is_none_or(|param| param == "messages");
    if error.status.is_client_error() && is_of_prompt { error.at("prompt") } else { error }
}

/// A text, a list of texts, the tokens of a text, or a list of those.
fn prompts(value: Option<Value>) -> ApiResult<Vec<Prompt>> {
    let wrong = || ApiError::field("prompt", "a text or the ids of its tokens, or a list of such");
    let prompts = match value {
        Some(Value::String(text)) => vec![Prompt::Text(text)],
        Some(Value::Array(items)) if items.iter().all(Value::is_number) => {
            vec![Prompt::Tokens(token_ids(&items).ok_or_else(wrong)?)]
        }
        Some(Value::Array(items)) => {
            let read = |item| match item {
                Value::String(text) => Ok(Prompt::Text(text)),
                Value::Array(items) => token_ids(&items).map(Prompt::Tokens).ok_or_else(wrong),
                _ => Err(wrong()),
            };
            items.into_iter().map(read).collect::<ApiResult<_>>()?
        }
        _ => return Err(wrong()),
    };
    if prompts.is_empty() { Err(wrong()) } else { Ok(prompts) }
}

/// Token ids of JSON.
pub(crate) fn token_ids(items: &[Value]) -> Option<Vec<u32>> {
    items.iter().map(|item| u32::try_from(item.as_u64()?).ok()).collect()
}

/// The tokens of a text, unless it has more bytes than any context could hold.
pub(crate) fn encode(model: &ModelContainer, text: &str, adds_special: bool) -> pippin::Result<Vec<u32>> {
    model.check_size(text)?;
    if adds_special { model.encode(text) } else { Ok(model.tokenizer().encode(text, false)?) }
}

type Prepared = (Vec<Vec<u32>>, Vec<Echo>);

fn prepare(model: &ModelContainer, prompts: Vec<Prompt>, echo: bool) -> pippin::Result<Prepared> {
    let (mut all, mut echoes) = (Vec::new(), Vec::new());
    for prompt in prompts {
        let tokens = match &prompt {
            Prompt::Text(text) => encode(model, text, true)?,
            Prompt::Tokens(tokens) => tokens.clone(),
        };
        if echo {
            let text = match prompt {
                Prompt::Text(text) => text,
                Prompt::Tokens(tokens) => model.decode(&tokens)?,
            };
            echoes.push(Echo { text, tokens: Vec::new() });
        }
        all.push(tokens);
    }
    Ok((all, echoes))
}

struct TextChunks {
    /// Where log-probabilities are wanted, and of how many other tokens.
    model: Option<(ModelContainer, usize)>,
    /// One for each prompt, or none.
    echoes: Vec<Echo>,
    per_prompt: usize,
    /// How many characters of tokens each answer has so far.
    offsets: Vec<usize>,
}

impl TextChunks {
    fn echo(&self, index: usize) -> Option<&Echo> {
        self.echoes.get(index / self.per_prompt)
    }

    fn choice(&mut self, index: usize, text: String, tokens: &[Token], finish_reason: Option<&str>) -> Value {
        let logprobs = match (&self.model, self.offsets.get_mut(index)) {
            (Some((model, top)), Some(offset)) => {
                let texts: Vec<String> = tokens.iter().map(|token| token_text(model, token.id)).collect();
                let offsets = texts.iter().map(|text| {
                    let begin = *offset;
                    *offset += text.chars().count();
                    begin
                });
                json!({
                    "text_offset": offsets.collect::<Vec<_>>(),
                    "tokens": texts,
                    "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
                    "top_logprobs": (*top > 0).then(|| {
                        tokens.iter().map(|token| likeliest(model, token)).collect::<Vec<_>>()
                    }),
                })
            }
            _ => Value::Null,
        };
        json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason})
    }
}

/// The likeliest tokens in a token's place and, as OpenAI has it, the token itself. Of tokens with the same text the likeliest counts.
fn likeliest(model: &ModelContainer, token: &Token) -> Value {
    let Some(own) = token.logprob else { return Value::Null };
    let mut all = Map::new();
    for (id, logprob) in token.top.iter().map(|other| (other.token, other.logprob)).chain([(token.id, own)]) {
        all.entry(token_text(model, id)).or_insert_with(|| json!(logprob));
    }
    all.into()
}

impl Chunks for TextChunks {
    fn begin(&mut self) -> Vec<Value> {
        let count = self.echoes.len() * self.per_prompt;
        let echoes: Vec<Echo> = (0..count).filter_map(|index| self.echo(index).cloned()).collect();
        echoes
            .into_iter()
            .enumerate()
            .map(|(index, echo)| self.choice(index, echo.text, &echo.tokens, None))
            .collect()
    }

    fn chunks(&mut self, index: usize, piece: Piece) -> Vec<Value> {
        let mut output = ParsedOutput::default();
        output.extend(piece.parts);
        let token = piece.token.filter(|_| self.model.is_some());
        let reason = piece.end.as_ref().map(End::as_str);
        if output.content.is_empty() && token.is_none() && reason.is_none() {
            return Vec::new();
        }
        vec![self.choice(index, output.content, token.as_slice(), reason)]
    }
}
