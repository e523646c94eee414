//! OpenAI's newer API: `POST /v1/responses`, and the answers that are kept for the next request.

mod answer;
mod input;
mod store;
mod tools;

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use pippin::Message;
use pippin::chat::ChatInput;
use serde_json::{Value, json};

use self::answer::{Head, ResponseFrames};
pub(crate) use self::store::ResponseStore;
use self::tools::Known;
use crate::answers;
use crate::error::{ApiError, ApiResult, IdResult, json_response, path_name};
use crate::fields::Fields;
use crate::instructions;
use crate::parameters;
use crate::reasoning::Reasoning;
use crate::request::{Begun, ChatRequest};
use crate::shared::{Caller, Shared};
use crate::structure::Structure;

/// Fields that would change an answer and are not supported, besides those of the older API.
const UNSUPPORTED: [&str; 6] =
    ["background", "conversation", "prompt", "max_tool_calls", "logprobs", "top_logprobs"];

/// What an answer may be asked to hold besides: of items that there are none of here, or of thoughts, which come as they are.
const INCLUDED: [&str; 7] = [
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
];

pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> ApiResult<Response> {
    let limits = &shared.options.limits;
    let mut fields = Fields::read(request, limits).await?;
    let echo = answer::echo(&fields);
    // Here, to keep an answer is what is usual.
    let is_kept = fields.boolean("store")?.unwrap_or(true);
    fields.refuse_unsupported()?;
    for name in UNSUPPORTED {
        fields.refuse_unless(name, |value| *value == 0 || *value == false)?;
    }
    fields.refuse_unless("n", |value| *value == 1)?;
    fields.refuse_unless("truncation", |value| *value == "disabled")?;
    let includes = fields.list("include")?.unwrap_or_default();
    for (index, one) in includes.iter().enumerate() {
        match one.as_str() {
            Some("message.output_text.logprobs") => return Err(ApiError::unsupported("include")),
            Some(known) if INCLUDED.contains(&known) => {}
            _ => {
                let expected = format!("one of {}", INCLUDED.join(", "));
                return Err(ApiError::field(&format!("include.{index}"), expected));
            }
        }
    }
    let previous = fields.text("previous_response_id")?;
    let mut items = match &previous {
        Some(id) => shared.responses.conversation(id, &caller).ok_or_else(|| not_found(id))?,
        None => Vec::new(),
    };
    let begin = items.len();
    items.extend(input::items(&mut fields)?);
    if items.len() > limits.messages {
        return Err(ApiError::field(
            "input",
            format!("no more than {} items with those before", limits.messages),
        ));
    }
    let (request, known) = chat_request(&mut fields, &shared, &items, begin)?;
    let is_streamed = fields.boolean("stream")?.unwrap_or(false);
    let begun = request.begin(&shared, &caller).await.map_err(|error| match error.param.as_deref() {
        // Here they are called otherwise.
        Some("messages") => error.at("input"),
        _ => error,
    });
    let Begun { mut answers, name, .. } = begun?;
    let keep = is_kept.then(|| store::Keep { shared: Arc::clone(&shared), caller, items });
    let head = Head::new(&shared, name, echo, is_kept, known);
    if is_streamed {
        return Ok(answers::events(answers, ResponseFrames::new(head, keep)));
    }
    let whole = answers::collect(&mut answers).await?.pop().unwrap_or_default();
    let response = head.whole(whole, answers.usage());
    if let Some(keep) = keep {
        keep.keep(&response);
    }
    Ok(json_response(&response))
}

pub(crate) async fn one(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    id: IdResult,
) -> ApiResult<Response> {
    let id = path_name(id)?;
    let response = shared.responses.response(&id, &caller).ok_or_else(|| unknown(&id))?;
    Ok(json_response(&response))
}

pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    id: IdResult,
) -> ApiResult<Response> {
    let id = path_name(id)?;
    match shared.responses.delete(&id, &caller) {
        true => Ok(json_response(&json!({"id": id, "object": "response", "deleted": true}))),
        false => Err(unknown(&id)),
    }
}

fn unknown(id: &str) -> ApiError {
    let message = format!("there is no response {id:?}, or it is no longer kept");
    ApiError::new(axum::http::StatusCode::NOT_FOUND, Some("response_not_found"), message)
}

fn not_found(id: &str) -> ApiError {
    let message = format!("there is no response {id:?}, or it is no longer kept");
    ApiError::new(axum::http::StatusCode::BAD_REQUEST, Some("previous_response_not_found"), message)
        .at("previous_response_id")
}

/// Reads what the older API calls differently; `begin` is where the request's own items begin.
fn chat_request(
    fields: &mut Fields,
    shared: &Shared,
    items: &[Value],
    begin: usize,
) -> ApiResult<(ChatRequest, Known)> {
    let limits = &shared.options.limits;
    let max_tokens = fields.count("max_output_tokens", 1, usize::MAX)?;
    let mut parameters = parameters::read(fields, &shared.options.parameters, limits)?;
    parameters.max_tokens = max_tokens.or(parameters.max_tokens);
    if let Some(mut text) = fields.object("text")? {
        if text.get("verbosity").is_some_and(|value| !value.is_null() && value != "medium") {
            return Err(ApiError::unsupported("text.verbosity"));
        }
        if let Some(format) = text.remove("format").filter(|format| !format.is_null()) {
            fields.put("response_format", format);
        }
    }
    let reasoning = fields.object("reasoning")?.unwrap_or_default();
    let effort = match reasoning.get("effort").filter(|effort| !effort.is_null()) {
        Some(effort) => Some(effort.as_str().ok_or_else(|| ApiError::field("reasoning.effort", "a string"))?),
        None => None,
    };
    let structure = Structure::read(fields).map_err(|mut error| match error.param.as_deref() {
        Some(param) if param.starts_with("response_format") => {
            // There it stands flat.
            let known = ["response_format.json_schema", "response_format"];
            error.message =
                known.iter().fold(error.message, |message, name| message.replace(name, "text.format"));
            error.at("text.format")
        }
        _ => error,
    })?;
    let structure = structure.map(|structure| match structure.field {
        "response_format" => Structure { field: "text.format", ..structure },
        _ => structure,
    });
    let given = fields.text("instructions")?;
    let mut messages: Vec<Message> = given.into_iter().map(Message::system).collect();
    messages.extend(input::messages(items, begin)?);
    // `instructions` are followed by more, which some templates would not show.
    let messages = instructions::gather(messages);
    let variables = fields.object("chat_template_kwargs")?.unwrap_or_default();
    let (tools, known) = tools::read(fields, limits)?;
    let request = ChatRequest {
        model: fields.text("model")?,
        tools,
        structure,
        reasoning: effort.map(Reasoning::of_effort).unwrap_or_default(),
        thinking_budget: None,
        count: 1,
        input: ChatInput::from(messages).with_template_kwargs(variables),
        parameters,
    };
    Ok((request, known))
}
