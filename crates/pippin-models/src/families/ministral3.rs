//! Ministral 3: Mistral with queries that grow with their position, as Llama 4's do.

use pippin_tensor::PositionScale;

use super::common::attentions;
use super::mistral;
use crate::config::Fields;
use crate::{Config, DecoderSpec, Result, rope};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    text(config.fields())
}

/// The decoder that a configuration says, or the text model in it.
pub(crate) fn text(fields: Fields<'_>) -> Result<DecoderSpec> {
    let mut spec = mistral::standard(fields)?.spec(fields)?;
    let Some(parameters) = rope::scaling(fields)? else {
        return Err(fields.missing("rope_parameters", "an object"));
    };
    let floor = parameters.required_positive("original_max_position_embeddings")? as f32;
    let scale = parameters.required_positive("llama_4_scaling_beta")? as f32;
    for (_, attention) in attentions(&mut spec) {
        attention.position_scale = Some(PositionScale::Logarithmic { floor, scale, first: 0.0 });
    }
    Ok(spec)
}
