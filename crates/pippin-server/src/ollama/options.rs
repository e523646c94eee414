//! `options`: how an answer is drawn.

use pippin::GenerateParameters;
use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::fields::Fields;
use crate::options::Limits;
use crate::parameters;

/// Ways to draw that Pippin has not, with the values that switch them off.
const UNSUPPORTED: [(&str, f64); 3] = [("mirostat", 0.0), ("typical_p", 1.0), ("tfs_z", 1.0)];

/// Reads `options`. Those that tune how a model is loaded (`num_ctx`, `num_gpu`, `num_thread` and the like) are for whoever starts
/// the server.
pub(super) fn read(
    fields: &mut Fields,
    defaults: &GenerateParameters,
    limits: &Limits,
) -> ApiResult<GenerateParameters> {
    let mut options = Fields::from_object(fields.object("options")?.unwrap_or_default());
    for (name, off) in UNSUPPORTED {
        if options.take(name).is_some_and(|value| value.as_f64() != Some(off)) {
            return Err(ApiError::unsupported(&format!("options.{name}")));
        }
    }
    options.rename("repeat_penalty", "repetition_penalty");
    let window = options.integer("repeat_last_n")?;
    let most = options.integer("num_predict")?;
    let mut parameters = parameters::read(&mut options, defaults, limits).map_err(of_options)?;
    match window {
        None => {}
        // None of them.
        Some(0) => parameters.repetition_penalty = None,
        // All of them.
        Some(count) => parameters.repetition_context_size = usize::try_from(count).unwrap_or(0),
    }
    match most {
        None => {}
        Some(most) if most < 0 => parameters.max_tokens = None,
        Some(most) => parameters.max_tokens = usize::try_from(most).ok(),
    }
    parameters.logprobs = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.count("top_logprobs", 0, GenerateParameters::MAX_TOP_LOGPROBS)?;
    parameters.top_logprobs = top.unwrap_or(0);
    Ok(parameters)
}

/// By the names that they have here.
fn of_options(error: ApiError) -> ApiError {
    let Some(param) = error.param.clone() else { return error };
    let name = if param == "repetition_penalty" { "repeat_penalty" } else { &param };
    let place = format!("options.{name}");
    let message = error.message.replacen(&param, &place, 1);
    ApiError { message, ..error }.at(place)
}

impl Fields {
    fn integer(&mut self, name: &str) -> ApiResult<Option<i64>> {
        let place = format!("options.{name}");
        let read = |value: Value| value.as_i64().ok_or_else(|| ApiError::field(&place, "a whole number"));
        self.take(name).map(read).transpose()
    }
}
