//! Ministral 3: Mistral with queries that grow with their position, as Llama 4's do.

use pippin_tensor::PositionScale;

use super::common::attentions;
use super::mistral;
use super::standard::{Standard, Windows};
use crate::config::Fields;
use crate::parts::NormSpec;
use crate::spec::{DecoderSpec, HeadWeights, ModelNames};
use crate::{Config, Result, rope};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    text(config.fields())
}

/// The decoder that a configuration says, or the text model in it.
pub(crate) fn text(fields: Fields<'_>) -> Result<DecoderSpec> {
    let Some(parameters) = rope::scaling(fields)? else {
        return Err(fields.missing("rope_parameters", "an object"));
    };
    let mut spec = mistral::standard(fields)?.spec(fields)?;
    let beta = parameters.required_positive("llama_4_scaling_beta")?;
    scale_queries(&mut spec, parameters, beta)?;
    Ok(spec)
}

/// Nemotron Labs Diffusion, as it generates token by token: the same under other names. (It may also fill in blocks of tokens;
/// that is not done here.)
pub(crate) fn nemotron_labs_diffusion(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let standard = Standard {
        default_rope_theta: Some(1_000_000.0),
        rope_traditional: false,
        windows: Windows::None,
        ..Standard::llama(fields)?
    };
    let mut spec = standard.spec(fields)?;
    if let Some(parameters) = rope::scaling(fields)?
        && let Some(beta) = parameters.positive("llama_4_scaling_beta")?
    {
        scale_queries(&mut spec, parameters, beta)?;
    }
    spec.names = ModelNames {
        embedding: "encoder.embed_tokens".to_owned(),
        layers: "encoder.layers".to_owned(),
        head: "diffusion_head".to_owned(),
    };
    spec.final_norm = NormSpec { path: "encoder.norm", ..spec.final_norm };
    spec.head.weights = HeadWeights::Separate;
    Ok(spec)
}

fn scale_queries(spec: &mut DecoderSpec, parameters: Fields<'_>, beta: f64) -> Result<()> {
    let floor = parameters.required_positive("original_max_position_embeddings")? as f32;
    for (_, attention) in attentions(spec) {
        attention.position_scale = Some(PositionScale::Logarithmic { floor, scale: beta as f32, first: 0.0 });
    }
    Ok(())
}
