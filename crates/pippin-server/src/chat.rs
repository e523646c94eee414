//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use pippin::chat::{ChatInput, OutputEvent, ParsedOutput, ToolCall};
use pippin::{GenerateParameters, Message, ModelContainer, Role};
use serde_json::{Map, Value, json};

use crate::answers::{self, Chunks, Head, OpenAi, Piece, Token, token_text};
use crate::error::{ApiError, ApiResult, json_response};
use crate::fields::Fields;
use crate::options::Limits;
use crate::parameters::{self, Streaming};
use crate::reasoning::Reasoning;
use crate::request::{Begun, ChatRequest};
use crate::shared::{Caller, Shared};
use crate::structure::Structure;
use crate::tools::ToolUse;

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
    let most = GenerateParameters::MAX_TOP_LOGPROBS;
    parameters.top_logprobs = fields.count("top_logprobs", 0, most)?.unwrap_or(0);
    let streaming = Streaming::read(&mut fields)?;
    let has_logprobs = parameters.logprobs;
    check_tools(fields.get("tools"))?;
    let request = ChatRequest {
        count: fields.count("n", 1, limits.choices)?.unwrap_or(1),
        model: fields.text("model")?,
        tools: ToolUse::read(&mut fields, limits)?,
        structure: Structure::read(&mut fields)?,
        reasoning: Reasoning::read(&mut fields)?,
        input: conversation(&mut fields, limits)?,
        thinking_budget: None,
        parameters,
    };
    let count = request.count;
    let Begun { mut answers, model, name, .. } = request.begin(&shared, &caller).await?;
    let id = format!("chatcmpl-{}", shared.new_id());
    if streaming.is_wanted {
        let chunks = ChatChunks { model: has_logprobs.then_some(model), calls: vec![0; count] };
        let head = Head::new(id, "chat.completion.chunk", name);
        let includes_usage = streaming.includes_usage;
        return Ok(answers::events(answers, OpenAi { head, chunks, includes_usage }));
    }
    let all = answers::collect(&mut answers).await?;
    let choices = all.into_iter().enumerate().map(|(index, whole)| {
        let logprobs = has_logprobs.then(|| {
            let tokens: Vec<Value> = whole.tokens.iter().map(|token| logprob(&model, token)).collect();
            json!({"content": tokens, "refusal": null})
        });
        json!({
            "index": index,
            "finish_reason": whole.finish_reason(),
            "message": message(whole.output),
            "logprobs": logprobs,
        })
    });
    let head = Head::new(id, "chat.completion", name);
    Ok(json_response(&head.with(choices.collect(), Some(answers.usage().to_json()))))
}

/// Refuses tools that are not in the form of this API.
pub(crate) fn check_tools(tools: Option<&Value>) -> ApiResult<()> {
    let tools = tools.and_then(Value::as_array).into_iter().flatten();
    for (index, tool) in tools.enumerate().filter(|(_, tool)| tool.is_object()) {
        for (field, is_there, expected) in [
            ("type", tool["type"].is_string(), "function"),
            ("function", tool["type"] != "function" || tool["function"].is_object(), "an object"),
        ] {
            if !is_there {
                return Err(ApiError::field(&format!("tools.{index}.{field}"), expected));
            }
        }
    }
    Ok(())
}

/// The message of the assistant that an answer is.
fn message(output: ParsedOutput) -> Value {
    let ParsedOutput { reasoning, content, tool_calls } = output;
    // As OpenAI: what only calls has no content.
    let content = if content.is_empty() && !tool_calls.is_empty() { Value::Null } else { content.into() };
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !reasoning.is_empty() {
        message["reasoning_content"] = reasoning.into();
    }
    if !tool_calls.is_empty() {
        message["tool_calls"] = tool_calls.iter().map(call).collect();
    }
    message
}

/// A call with its arguments as a text, as OpenAI has them.
fn call(call: &ToolCall) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments(call)},
    })
}

/// The arguments of a call as a text.
pub(crate) fn arguments(call: &ToolCall) -> String {
    match &call.function.arguments {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The conversation of a request, and what else its template may show.
pub(crate) fn conversation(fields: &mut Fields, limits: &Limits) -> ApiResult<ChatInput> {
    let messages = fields.messages(limits)?;
    for (index, message) in messages.iter().enumerate() {
        let needs_content = matches!(message["role"].as_str(), Some("user" | "system" | "developer"));
        if needs_content && message["content"].is_null() {
            return Err(ApiError::field(&format!("messages.{index}.content"), "a string or a list of parts"));
        }
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

/// A token with its log-probability and those of others.
fn logprob(model: &ModelContainer, token: &Token) -> Value {
    let mut object = token_object(model, token.id, token.logprob);
    object["top_logprobs"] =
        token.top.iter().map(|other| token_object(model, other.token, Some(other.logprob))).collect();
    object
}

fn token_object(model: &ModelContainer, token: u32, logprob: Option<f32>) -> Value {
    let text = token_text(model, token);
    // Of half a character the bytes are not known.
    let bytes = (!text.contains(char::REPLACEMENT_CHARACTER)).then(|| text.as_bytes().to_vec());
    json!({"token": text, "logprob": logprob, "bytes": bytes})
}

struct ChatChunks {
    /// Where log-probabilities are wanted.
    model: Option<ModelContainer>,
    /// The calls of each answer so far.
    calls: Vec<usize>,
}

impl ChatChunks {
    /// What a part adds to the message.
    fn delta(&mut self, index: usize, part: OutputEvent) -> Option<Value> {
        Some(match part {
            OutputEvent::Content(text) => json!({"content": text}),
            OutputEvent::Reasoning(text) => json!({"reasoning_content": text}),
            OutputEvent::ToolCall { call: made, .. } => {
                let calls = self.calls.get_mut(index)?;
                let mut delta = Map::from_iter([("index".to_owned(), json!(*calls))]);
                *calls += 1;
                if let Value::Object(fields) = call(&made) {
                    delta.extend(fields);
                }
                json!({"tool_calls": [delta]})
            }
            _ => return None,
        })
    }
}

impl Chunks for ChatChunks {
    fn begin(&mut self) -> Vec<Value> {
        let begin = |index| {
            let delta = json!({"role": "assistant", "content": ""});
            json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null})
        };
        (0..self.calls.len()).map(begin).collect()
    }

    fn chunks(&mut self, index: usize, piece: Piece) -> Vec<Value> {
        let mut logprobs = match (&self.model, &piece.token) {
            (Some(model), Some(token)) => json!({"content": [logprob(model, token)], "refusal": null}),
            _ => Value::Null,
        };
        let mut deltas: Vec<Value> =
            piece.parts.into_iter().filter_map(|part| self.delta(index, part)).collect();
        if deltas.is_empty() && !logprobs.is_null() {
            deltas.push(json!({"content": ""}));
        }
        let mut choices: Vec<Value> = deltas
            .into_iter()
            .map(|delta| {
                let logprobs = logprobs.take();
                json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null})
            })
            .collect();
        if let Some(end) = piece.end {
            let reason = end.as_str();
            choices.push(json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": reason}));
        }
        choices
    }
}
