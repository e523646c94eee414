//! How a request wants its answer.

use std::time::Duration;

use pippin::GenerateParameters;
use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::fields::Fields;
use crate::options::Limits;

/// Reads what a request says about generating; `max_tokens` and `logprobs` mean different things in different routes.
pub(crate) fn read(
    fields: &mut Fields,
    defaults: &GenerateParameters,
    limits: &Limits,
) -> ApiResult<GenerateParameters> {
    let mut parameters = defaults.clone();
    let any = f32::MAX;
    set(&mut parameters.temperature, fields.number("temperature", 0.0, any)?);
    set(&mut parameters.top_p, fields.number("top_p", 0.0, 1.0)?);
    set(&mut parameters.min_p, fields.number("min_p", 0.0, 1.0)?);
    set(&mut parameters.top_k, top_k(fields)?);
    set(&mut parameters.min_tokens_to_keep, fields.count("min_tokens_to_keep", 1, usize::MAX)?);
    set(&mut parameters.xtc_probability, fields.number("xtc_probability", 0.0, 1.0)?);
    set(&mut parameters.xtc_threshold, fields.number("xtc_threshold", 0.0, 0.5)?);
    let penalties = [
        ("repetition", &mut parameters.repetition_penalty, &mut parameters.repetition_context_size, 0.0),
        ("presence", &mut parameters.presence_penalty, &mut parameters.presence_context_size, f32::MIN),
        ("frequency", &mut parameters.frequency_penalty, &mut parameters.frequency_context_size, f32::MIN),
    ];
    for (name, penalty, window, low) in penalties {
        if let Some(value) = fields.number(&format!("{name}_penalty"), low, any)? {
            *penalty = Some(value);
        }
        set(window, fields.count(&format!("{name}_context_size"), 0, usize::MAX)?);
    }
    set(&mut parameters.prompt_lookup, fields.count("prompt_lookup", 0, 32)?);
    set(&mut parameters.draft_tokens, fields.count("num_draft_tokens", 0, 32)?);
    match fields.take("seed") {
        None => {}
        // Negative seeds are seeds too, to OpenAI.
        Some(value) => match value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned)) {
            Some(seed) => parameters.seed = Some(seed),
            None => return Err(ApiError::field("seed", "a whole number")),
        },
    }
    if let Some(stop) = fields.texts("stop")? {
        if stop.len() > limits.stop {
            return Err(ApiError::field("stop", format!("no more than {} texts", limits.stop)));
        }
        if stop.iter().any(|text| text.is_empty() || text.len() > limits.stop_bytes) {
            return Err(ApiError::field("stop", format!("texts of 1 to {} bytes", limits.stop_bytes)));
        }
        parameters.stop = stop;
    }
    if let Some(budget) = fields.count("thinking_token_budget", 0, usize::MAX)? {
        parameters.thinking_budget = Some(budget);
    }
    if let Some(priority) = fields.take("priority") {
        let priority = priority.as_i64().and_then(|number| i32::try_from(number).ok());
        parameters.priority = priority.ok_or_else(|| ApiError::field("priority", "a whole number"))?;
    }
    // llama.cpp's
    if let Some(time) = fields.count("t_max_predict_ms", 0, usize::MAX)? {
        parameters.max_time = (time > 0).then(|| Duration::from_millis(time as u64));
    }
    set(&mut parameters.min_tokens, fields.count("min_tokens", 0, usize::MAX)?);
    set(&mut parameters.prompt_progress, fields.boolean("return_progress")?);
    set(&mut parameters.ignore_eos, fields.boolean("ignore_eos")?);
    if let Some(tokens) = fields.list("stop_token_ids")? {
        let ids: Option<Vec<u32>> = tokens.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect();
        match ids {
            Some(ids) if ids.len() <= limits.stop_token_ids => parameters.stop_token_ids = ids,
            _ => {
                let expected = format!("a list of up to {} token ids", limits.stop_token_ids);
                return Err(ApiError::field("stop_token_ids", expected));
            }
        }
    }
    if let Some(biases) = fields.object("logit_bias")? {
        if biases.len() > limits.logit_bias {
            return Err(ApiError::field("logit_bias", format!("no more than {} tokens", limits.logit_bias)));
        }
        parameters.logit_bias.clear();
        for (token, bias) in &biases {
            let bias = bias.as_f64().map(|bias| bias as f32).filter(|bias| (-100.0..=100.0).contains(bias));
            match (token.parse(), bias) {
                (Ok(token), Some(bias)) => parameters.logit_bias.insert(token, bias),
                _ => {
                    let expected = "an object of token ids with numbers from -100 to 100";
                    return Err(ApiError::field("logit_bias", expected));
                }
            };
        }
    }
    Ok(parameters)
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// -1 is off, as in vLLM; so is 0.
fn top_k(fields: &mut Fields) -> ApiResult<Option<usize>> {
    match fields.take("top_k") {
        None => Ok(None),
        Some(Value::Number(number)) if number.as_i64() == Some(-1) => Ok(Some(0)),
        Some(value) => {
            let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
            count.map(Some).ok_or_else(|| ApiError::field("top_k", "a whole number from 0"))
        }
    }
}

/// How a stream is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Streaming {
    /// Whether there is one at all.
    pub(crate) is_wanted: bool,
    /// Whether it ends with the numbers of tokens.
    pub(crate) includes_usage: bool,
}

impl Streaming {
    pub(crate) fn read(fields: &mut Fields) -> ApiResult<Self> {
        let is_wanted = fields.boolean("stream")?.unwrap_or(false);
        let mut includes_usage = false;
        if let Some(options) = fields.object("stream_options")? {
            if !is_wanted {
                return Err(ApiError::invalid("stream_options is for streams only").at("stream_options"));
            }
            match options.get("include_usage") {
                None | Some(Value::Null) => {}
                Some(Value::Bool(value)) => includes_usage = *value,
                Some(_) => return Err(ApiError::field("stream_options.include_usage", "true or false")),
            }
        }
        Ok(Self { is_wanted, includes_usage })
    }
}
