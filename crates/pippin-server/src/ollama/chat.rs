//! `POST /api/chat` and `/api/generate`.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use pippin::Message;
use pippin::chat::{ChatInput, ToolCall};
use pippin::config::KeepAlive;
use serde_json::{Value, json};

use super::answer::{Head, Lines};
use super::{format, model, options, think, time};
use crate::answers::{self, Answers, Reading};
use crate::error::{ApiError, ApiResult, json_response};
use crate::fields::Fields;
use crate::manage::keep_alive;
use crate::options::Limits;
use crate::request::{Begun, ChatRequest};
use crate::shared::{Caller, Shared, blocking};
use crate::tools::ToolUse;

pub(crate) async fn chat(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> ApiResult<Response> {
    let begin = Instant::now();
    let limits = &shared.options.limits;
    let mut fields = Fields::read(request, limits).await?;
    let name = model(&mut fields, &shared)?;
    let is_streamed = fields.boolean("stream")?.unwrap_or(true);
    let keep_alive = keep_alive(&mut fields)?;
    let parameters = options::read(&mut fields, &shared.options.parameters, limits)?;
    let messages = fields.list("messages")?.unwrap_or_default();
    if messages.is_empty() {
        return load(&shared, &caller, name, keep_alive, true).await;
    }
    let request = ChatRequest {
        model: Some(name),
        tools: ToolUse::read(&mut fields, limits)?,
        structure: format(&mut fields)?,
        reasoning: think(&mut fields)?,
        thinking_budget: None,
        count: 1,
        input: ChatInput::from(conversation(messages, limits)?),
        parameters,
    };
    let has_logprobs = request.parameters.logprobs;
    let Begun { answers, model, name, .. } = request.begin(&shared, &caller).await?;
    let head = Head {
        model: name,
        begin,
        loaded: Instant::now(),
        is_chat: true,
        logprobs: has_logprobs.then_some(model),
    };
    respond(answers, head, is_streamed).await
}

pub(crate) async fn generate(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> ApiResult<Response> {
    let begin = Instant::now();
    let limits = &shared.options.limits;
    let mut fields = Fields::read(request, limits).await?;
    let name = model(&mut fields, &shared)?;
    let is_streamed = fields.boolean("stream")?.unwrap_or(true);
    let keep_alive = keep_alive(&mut fields)?;
    for field in ["suffix", "images", "template", "context"] {
        fields.refuse_unless(field, |value| *value == "" || value.as_array().is_some_and(Vec::is_empty))?;
    }
    let mut parameters = options::read(&mut fields, &shared.options.parameters, limits)?;
    let prompt = fields.text("prompt")?.unwrap_or_default();
    if prompt.is_empty() {
        return load(&shared, &caller, name, keep_alive, false).await;
    }
    let structure = format(&mut fields)?;
    let has_logprobs = parameters.logprobs;
    let (answers, model, name) = if fields.boolean("raw")?.unwrap_or(false) {
        let ready = shared.ready(&caller, Some(name), 1).await?;
        let (model, name) = (ready.model.clone(), ready.name.clone());
        if let Some(structure) = structure {
            parameters.constraint = Some(structure.constraint);
        }
        let tokens = {
            let model = model.clone();
            blocking(move || crate::completions::encode(&model, &prompt, true)).await?
        };
        let tokens = tokens.map_err(|error| shared.fault(error).at("prompt"))?;
        let answers =
            Answers::begin(&shared, ready, vec![tokens], parameters, 1, &Reading::default()).await?;
        (answers, model, name)
    } else {
        let system = fields.text("system")?.filter(|text| !text.is_empty());
        let messages: Vec<Message> =
            system.into_iter().map(Message::system).chain([Message::user(prompt)]).collect();
        let request = ChatRequest {
            model: Some(name),
            tools: ToolUse::default(),
            structure,
            reasoning: think(&mut fields)?,
            thinking_budget: None,
            count: 1,
            input: ChatInput::from(messages),
            parameters,
        };
        let Begun { answers, model, name, .. } = request.begin(&shared, &caller).await?;
        (answers, model, name)
    };
    let head = Head {
        model: name,
        begin,
        loaded: Instant::now(),
        is_chat: false,
        logprobs: has_logprobs.then_some(model),
    };
    respond(answers, head, is_streamed).await
}

async fn respond(mut answers: Answers, head: Head, is_streamed: bool) -> ApiResult<Response> {
    if is_streamed {
        return Ok(answers::lines(answers, Lines::new(head)));
    }
    let whole = answers::collect(&mut answers).await?.pop().unwrap_or_default();
    Ok(json_response(&head.whole(whole, answers.usage())))
}

/// A request without a text loads the model, or unloads it.
async fn load(
    shared: &Arc<Shared>,
    caller: &Caller,
    name: String,
    keep_alive: Option<KeepAlive>,
    is_chat: bool,
) -> ApiResult<Response> {
    let reason = if keep_alive == Some(KeepAlive::For(Duration::ZERO)) {
        caller.check_management()?;
        shared.unload(&name).await?;
        "unload"
    } else {
        shared.ready(caller, Some(name.clone()), 1).await?;
        shared.keep(caller, &name, keep_alive).await?;
        "load"
    };
    let mut answer = json!({
        "model": name,
        "created_at": time(SystemTime::now()),
        "done": true,
        "done_reason": reason,
    });
    match is_chat {
        true => answer["message"] = json!({"role": "assistant", "content": ""}),
        false => answer["response"] = json!(""),
    }
    Ok(json_response(&answer))
}

/// Messages as the others write them: calls have no ids here, and results the names of their tools.
fn conversation(given: Vec<Value>, limits: &Limits) -> ApiResult<Vec<Message>> {
    if given.len() > limits.messages {
        return Err(ApiError::field("messages", format!("1 to {} messages", limits.messages)));
    }
    let mut open: Vec<(String, String)> = Vec::new();
    let mut messages = Vec::with_capacity(given.len());
    let mut calls = 0;
    for (index, mut value) in given.into_iter().enumerate() {
        let place = format!("messages.{index}");
        let Value::Object(fields) = &mut value else { return Err(ApiError::field(&place, "an object")) };
        if fields.remove("images").is_some_and(|images| images.as_array().is_none_or(|all| !all.is_empty())) {
            let message = format!("{place}: images are not supported by this version of Pippin");
            return Err(ApiError::invalid(message).at(format!("{place}.images")));
        }
        if let Some(name) = fields.remove("tool_name").or_else(|| fields.remove("name")) {
            // The first call of this tool that has no result yet.
            let call =
                open.iter().position(|(known, _)| name == known.as_str()).map(|place| open.remove(place));
            fields.insert("name".to_owned(), name);
            if let Some((_, id)) = call {
                fields.entry("tool_call_id").or_insert_with(|| id.into());
            }
        }
        if let Some(thinking) = fields.remove("thinking") {
            fields.insert("reasoning_content".to_owned(), thinking);
        }
        fields.retain(|_, value| !value.is_null());
        let mut message = Message::try_from(value)
            .map_err(|error| ApiError::invalid(format!("{place}: {error}")).at(place.clone()))?;
        let made = message.tool_calls();
        if !made.is_empty() {
            let named = made.into_iter().map(|call: ToolCall| {
                calls += 1;
                let id = call.id.clone().unwrap_or_else(|| format!("call{calls:05}"));
                open.push((call.function.name.clone(), id.clone()));
                ToolCall { id: Some(id), ..call }
            });
            let named: Vec<ToolCall> = named.collect();
            message = message.with_tool_calls(named);
        }
        messages.push(message);
    }
    Ok(messages)
}
