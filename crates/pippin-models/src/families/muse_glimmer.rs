//! Muse Glimmer, the text model: norms of one plus the weight on both sides of attention and feed-forward network, queries and
//! keys with a norm that has no weight, gates on what leaves the attention, windows in three layers of four, and rotated
//! positions in those alone. Embeddings pass through a norm.

use pippin_tensor::Activation;

use super::common::{Sizes, activation, head_weights, window, windowed_layers};
use crate::config::{Fields, number};
use crate::parts::{Attention, Dense, NormSpec, OutputGate, Part};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, LayerSpec};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let text = config.part("text_config.")?;
    let fields = text.as_ref().unwrap_or(config).fields();
    let default = Sizes {
        hidden_size: 6656,
        layers: 52,
        heads: 32,
        kv_heads: 2,
        head_dim: 128,
        intermediate_size: 19_968,
        vocab_size: 202_048,
        context_length: 131_072,
    };
    let sizes = Sizes::read_or(fields, &default)?;
    if fields.flag_or("attention_bias", false)? {
        return Err(fields.unsupported("attention_bias", "true", &["false"]));
    }
    let eps = fields.positive_or("rms_norm_eps", 1e-5)?;
    let post_eps = fields.positive_or("post_norm_eps", 1e-8)?;
    let length = fields.count_or("sliding_window", 2048, limits::CONTEXT)?;
    let windows = windowed_layers(fields, sizes.layers, |layer| layer % 4 != 3)?;
    let rotates = rotated_layers(fields, &windows)?;
    let rope = RopeDefaults { dims: sizes.head_dim, theta: Some(500_000.0), traditional: false };
    let rope = rope::read(fields, &rope)?;
    let scale = (sizes.head_dim as f32).powf(-0.5) * fields.positive_or("qk_scale_factor", 3.87)?;
    let activation = activation(fields, "hidden_activation", Activation::Silu)?;
    let layer = |(windowed, rotates): (bool, bool)| {
        let attention = Attention {
            query_norm: Some(NormSpec::bare(eps)),
            key_norm: Some(NormSpec::bare(eps)),
            rope: rotates.then(|| rope.clone()),
            reach: window(windowed, length),
            scale,
            gate: Some(OutputGate {
                name: "self_attn.gate_proj",
                by_head: false,
                activation: Activation::Sigmoid,
            }),
            ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
        };
        LayerSpec::Blocks(vec![
            Block::sandwich(
                NormSpec::plus_one("input_layernorm", eps),
                Part::Attention(attention),
                NormSpec::plus_one("post_attention_layernorm", post_eps),
            ),
            Block::sandwich(
                NormSpec::plus_one("pre_feedforward_layernorm", eps),
                Part::Dense(Dense::gated(sizes.intermediate_size, activation)),
                NormSpec::plus_one("post_feedforward_layernorm", post_eps),
            ),
        ])
    };
    let layers = windows.iter().copied().zip(rotates).map(layer).collect();
    let softcap = match fields.value("final_logit_softcapping") {
        Some(value) if value.is_null() => None,
        _ => Some(fields.positive_or("final_logit_softcapping", 20.0)?),
    };
    // The field stands in either place.
    let tied = if fields.get("tie_word_embeddings").is_some() { fields } else { config.fields() };
    let head = Head {
        scale: fields.positive_or("output_multiplier", 0.196_116_13)?,
        softcap,
        ..Head::new(head_weights(tied)?)
    };
    Ok(DecoderSpec {
        embedding_norm: Some(NormSpec::bare(eps)),
        ..sizes.decoder(layers, NormSpec::rms("model.norm", eps), head)
    })
}

/// Which layers have rotated positions: those whose base is not zero, or those with a window.
pub(super) fn rotated_layers(fields: Fields<'_>, windows: &[bool]) -> Result<Vec<bool>> {
    let Some(value) = fields.get("layer_rope_theta") else { return Ok(windows.to_vec()) };
    let bases = value.as_array().map(|bases| bases.iter().map(|base| Some(number(base)? != 0.0)));
    match bases.and_then(|bases| bases.collect::<Option<Vec<bool>>>()) {
        Some(rotates) if rotates.len() == windows.len() => Ok(rotates),
        _ => {
            let problem = format_args!("must be a list of {} numbers", windows.len());
            Err(fields.error("layer_rope_theta", problem))
        }
    }
}

/// A published checkpoint has the text model under a prefix.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.replace_prefix("language_model.model.", "model.");
    tensors.replace_prefix("language_model.lm_head.", "lm_head.");
    tensors.replace_prefix("model.language_model.", "model.");
    Ok(())
}
