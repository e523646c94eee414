//! Dense models with Llama 4's attention (MobileLLM-R1): bare norms of heads, adjacent pairs that are rotated in the layers
//! that `no_rope_layers` marks with a one.
//!
//! mlx-lm has neither the chunks nor the factors by position that the configuration may ask for. Published models have chunks
//! as long as their context, and no factors.

use pippin_tensor::{Activation, Reach};

use super::common::{Sizes, head_weights, pre_norm_layer};
use super::llama4::temperature;
use crate::config::Fields;
use crate::parts::{Attention, Dense, NormSpec, Part};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head, ModelNames};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    no_experts(fields)?;
    let sizes = Sizes::read(fields, 131_072)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: None, traditional: true };
    let rope = rope::read(fields, &defaults)?;
    let head_norm = fields.flag_or("use_qk_norm", false)?.then(|| NormSpec::bare(eps));
    let temperature = temperature(fields, false)?;
    let reach = fields.count("attention_chunk_size")?.map_or(Reach::All, Reach::Chunk);
    let attention = |rotated: bool| match rotated {
        true => Attention {
            rope: Some(rope.clone()),
            reach,
            query_norm: head_norm,
            key_norm: head_norm,
            ..sizes.attention()
        },
        false => Attention {
            position_scale: temperature,
            query_norm: head_norm,
            key_norm: head_norm,
            ..sizes.attention()
        },
    };
    let width = fields.count_or("intermediate_size_mlp", sizes.intermediate_size, limits::INTERMEDIATE)?;
    let names = ["feed_forward.gate_proj", "feed_forward.up_proj", "feed_forward.down_proj"];
    let network = Part::Dense(Dense::gated_as(names, width, Activation::Silu));
    let rotated = fields.flags("no_rope_layers", sizes.layers)?;
    let rotated =
        rotated.unwrap_or_else(|| (0..sizes.layers).map(|layer| !(layer + 1).is_multiple_of(4)).collect());
    let layer = |rotated| pre_norm_layer(eps, Part::Attention(attention(rotated)), network.clone());
    let layers = rotated.into_iter().map(layer).collect();
    Ok(DecoderSpec {
        names: ModelNames { head: "output".to_owned(), ..ModelNames::default() },
        ..sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(head_weights(fields)?))
    })
}

fn no_experts(fields: Fields<'_>) -> Result<()> {
    let none = fields.indices("moe_layers")?.is_some_and(|layers| layers.is_empty());
    let step = fields.index_or("interleave_moe_layer_step", 0)?;
    if !none && step > 0 && fields.index_or("num_local_experts", 0)? > 0 {
        return Err(fields.error("num_local_experts", "is not supported: these models are dense"));
    }
    Ok(())
}

/// A published checkpoint has the usual name for its output head.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.replace_prefix("lm_head.", "output.");
    Ok(())
}
