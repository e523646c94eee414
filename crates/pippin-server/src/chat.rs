//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use pippin::chat::ChatInput;
use pippin::{Message, ModelContainer, Role};
use serde_json::{Value, json};

use crate::answers::{self, Answers, Chunks, Head, OpenAi, Piece, finish_reason, token_text};
use crate::error::{ApiError, ApiResult, json_response};
use crate::fields::Fields;
use crate::options::Limits;
use crate::parameters::{self, Streaming};
use crate::shared::{Caller, Shared, blocking};

pub(crate) async fn complete(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> ApiResult<Response> {
    let limits = &shared.options.limits;
    let mut fields = Fields::read(request, limits).await?;
    fields.refuse_unsupported()?;
    // The newer name first; null and absent are the same.
    let old = fields.count("max_tokens", 1, usize::MAX)?;
    let max_tokens = fields.count("max_completion_tokens", 1, usize::MAX)?.or(old);
    let mut parameters = parameters::read(&mut fields, &shared.options.parameters, limits)?;
    parameters.max_tokens = max_tokens.or(parameters.max_tokens);
    parameters.logprobs = fields.boolean("logprobs")?.unwrap_or(false);
    let streaming = Streaming::read(&mut fields)?;
    let count = fields.count("n", 1, limits.choices)?.unwrap_or(1);
    let name = fields.text("model")?;
    let input = conversation(&mut fields, limits)?;
    let permit = shared.permit(&caller, count)?;
    let (lease, name) = shared.model(name).await?;
    let Some(model) = lease.container() else { return Err(ApiError::no_model(&name)) };
    let prompt = {
        let model = model.clone();
        blocking(move || model.prepare(&input)).await?.map_err(|error| shared.fault(error))?
    };
    let logprobs = parameters.logprobs;
    let mut answers = Answers::begin(&shared, &model, lease, permit, vec![prompt], &parameters, count)?;
    let id = format!("chatcmpl-{}", shared.new_id());
    if streaming.is_wanted {
        let chunks = ChatChunks { model: logprobs.then_some(model), count };
        let head = Head::new(id, "chat.completion.chunk", name);
        let includes_usage = streaming.includes_usage;
        return Ok(answers::events(answers, OpenAi { head, chunks, includes_usage }));
    }
    let all = answers::collect(&mut answers, count).await?;
    let choices = all.into_iter().enumerate().map(|(index, whole)| {
        let logprobs = logprobs.then(|| {
            let tokens: Vec<Value> = whole.tokens.iter().map(|token| logprob(&model, *token)).collect();
            json!({"content": tokens, "refusal": null})
        });
        json!({
            "index": index,
            "message": {"role": "assistant", "content": whole.text, "refusal": null},
            "logprobs": logprobs,
            "finish_reason": whole.finish_reason(),
        })
    });
    let head = Head::new(id, "chat.completion", name);
    Ok(json_response(&head.with(choices.collect(), Some(answers.usage().to_json()))))
}

/// The conversation of a request, and what else its template may show.
pub(crate) fn conversation(fields: &mut Fields, limits: &Limits) -> ApiResult<ChatInput> {
    let Some(messages) = fields.list("messages")? else {
        return Err(ApiError::field("messages", "a list of messages"));
    };
    if messages.is_empty() || messages.len() > limits.messages {
        return Err(ApiError::field("messages", format!("1 to {} messages", limits.messages)));
    }
    let messages = Message::from_values(messages)
        .map_err(|error| ApiError::invalid(error.to_string()).at("messages"))?;
    let variables = fields.object("chat_template_kwargs")?.unwrap_or_default();
    let adds = fields.boolean("add_generation_prompt")?;
    let continues = fields.boolean("continue_final_message")?.unwrap_or(false);
    if continues {
        let is_answer = messages.last().is_some_and(|last| last.role() == Role::Assistant);
        if !is_answer || adds == Some(true) {
            let message = "the last message can be continued if it is the assistant's, and without add_generation_prompt";
            return Err(ApiError::invalid(message).at("continue_final_message"));
        }
    }
    Ok(ChatInput::from(messages)
        .with_template_kwargs(variables)
        .with_add_generation_prompt(adds.unwrap_or(!continues))
        .with_continue_final_message(continues))
}

/// A token with its log-probability.
fn logprob(model: &ModelContainer, (token, logprob): (u32, Option<f32>)) -> Value {
    let text = token_text(model, token);
    // Of half a character the bytes are not known.
    let bytes = (!text.contains(char::REPLACEMENT_CHARACTER)).then(|| text.as_bytes().to_vec());
    json!({"token": text, "logprob": logprob, "bytes": bytes, "top_logprobs": []})
}

struct ChatChunks {
    /// Where log-probabilities are wanted.
    model: Option<ModelContainer>,
    count: usize,
}

impl Chunks for ChatChunks {
    fn begin(&mut self) -> Vec<Value> {
        let begin = |index| {
            let delta = json!({"role": "assistant", "content": ""});
            json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null})
        };
        (0..self.count).map(begin).collect()
    }

    fn chunk(&mut self, index: usize, piece: Piece) -> Option<Value> {
        let (text, token) = match piece {
            Piece::End(reason) => {
                let reason = finish_reason(&reason);
                return Some(json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": reason}));
            }
            Piece::Text { text, token } => (text, token),
        };
        let logprobs = match (&self.model, token) {
            (Some(model), Some(token)) => json!({"content": [logprob(model, token)], "refusal": null}),
            _ => Value::Null,
        };
        if text.is_empty() && logprobs.is_null() {
            return None;
        }
        Some(json!({"index": index, "delta": {"content": text}, "logprobs": logprobs, "finish_reason": null}))
    }
}
