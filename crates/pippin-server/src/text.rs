//! `POST /tokenize`, `/detokenize` and `/apply-template`, `GET /tokenizer_info`: what a model sees.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use serde_json::json;

use crate::chat::{check_tools, conversation};
use crate::completions::{encode, token_ids};
use crate::error::{ApiError, ApiResult, json_response};
use crate::fields::Fields;
use crate::request::render;
use crate::shared::{Caller, Ready, Shared, blocking};
use crate::tools::ToolUse;

/// The tokens of a text (`prompt`, or `content` as llama.cpp has it), or of a conversation (`messages`).
pub(crate) async fn tokenize(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> ApiResult<Response> {
    let limits = &shared.options.limits;
    let mut fields = Fields::read(request, limits).await?;
    let text = fields.text("prompt")?.or(fields.text("content")?);
    let adds_special = fields.boolean("add_special_tokens")?.unwrap_or(true);
    let with_pieces = fields.boolean("with_pieces")?.unwrap_or(false);
    let name = fields.text("model")?;
    let input = match &text {
        Some(_) => None,
        None if fields.get("messages").is_none() => {
            return Err(ApiError::field("prompt", "a text, unless messages are given instead"));
        }
        None => {
            fields.refuse_unsupported()?;
            Some(conversation(&mut fields, limits)?)
        }
    };
    let Ready { model, lease: _lease, permit: _permit, .. } = shared.ready(&caller, name, 1).await?;
    let work = move || {
        let tokens = match (&text, &input) {
            (Some(text), _) => encode(&model, text, adds_special)?,
            (None, Some(input)) => {
                let prompt = render(&model, &mut input.clone())?;
                model.prompt_tokens(&prompt)?
            }
            (None, None) => Vec::new(),
        };
        let pieces = with_pieces.then(|| {
            let piece = |id: &u32| model.tokenizer().id_to_token(*id);
            tokens.iter().map(piece).collect::<Vec<_>>()
        });
        let mut answer = json!({"count": tokens.len(), "max_model_len": model.context(), "tokens": tokens});
        if let Some(pieces) = pieces {
            answer["token_strs"] = json!(pieces);
        }
        Ok(answer)
    };
    let answer = blocking(work).await?.map_err(|error| shared.fault(error))?;
    Ok(json_response(&answer))
}

/// The text of tokens.
pub(crate) async fn detokenize(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> ApiResult<Response> {
    let mut fields = Fields::read(request, &shared.options.limits).await?;
    let tokens = fields.list("tokens")?.as_deref().and_then(token_ids);
    let Some(tokens) = tokens else { return Err(ApiError::field("tokens", "a list of token ids")) };
    let name = fields.text("model")?;
    let Ready { model, lease: _lease, permit: _permit, .. } = shared.ready(&caller, name, 1).await?;
    if let Some(unknown) = tokens.iter().find(|id| model.tokenizer().id_to_token(**id).is_none()) {
        return Err(ApiError::invalid(format!("there is no token {unknown}")).at("tokens"));
    }
    let text = blocking(move || model.decode(&tokens)).await?.map_err(|error| shared.fault(error))?;
    Ok(json_response(&json!({"prompt": text, "content": text})))
}

/// The prompt of a conversation, as text.
pub(crate) async fn apply_template(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request<Body>,
) -> ApiResult<Response> {
    let limits = &shared.options.limits;
    let mut fields = Fields::read(request, limits).await?;
    fields.refuse_unsupported()?;
    // As a chat would show them.
    check_tools(fields.get("tools"))?;
    let tools = ToolUse::read(&mut fields, limits)?.shown();
    let mut input = conversation(&mut fields, limits)?.with_tools(tools);
    let name = fields.text("model")?;
    let Ready { model, lease: _lease, permit: _permit, .. } = shared.ready(&caller, name, 1).await?;
    let prompt = blocking(move || render(&model, &mut input)).await?;
    let prompt = prompt.map_err(|error| shared.fault(error))?;
    Ok(json_response(&json!({"prompt": prompt})))
}

/// The first model's special tokens and chat template, as vLLM tells them: lm-evaluation-harness has no tokenizer of its own then.
pub(crate) async fn tokenizer_info(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> ApiResult<Response> {
    let Ready { model, lease: _lease, permit: _permit, .. } = shared.ready(&caller, None, 1).await?;
    let mut info = json!({
        "chat_template": model.processor().chat_template.as_ref().map(|template| template.source(false)),
        "model_max_length": model.context(),
    });
    for name in ["bos_token", "eos_token", "unk_token", "pad_token"] {
        info[name] = model.tokenizer().special_tokens().get(name).into();
    }
    Ok(json_response(&info))
}
