//! OLMo 2 and 3: norms after attention and feed-forward network instead of before, and norms of all queries and of all keys
//! together; in 3, windows in three layers of four, whose rotation is not scaled.

use pippin_tensor::Activation;

use super::common::{Sizes, activation, window, windowed_layers};
use crate::config::Fields;
use crate::parts::{Attention, Dense, HeadNorms, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec};
use crate::{Config, Result, limits};

pub(crate) fn olmo2(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 4096)?;
    let defaults = RopeDefaults {
        dims: sizes.head_dim,
        theta: Some(10_000.0),
        traditional: fields.flag_or("rope_traditional", false)?,
    };
    let rope = Some(rope::read(fields, &defaults)?);
    let attention = Attention { rope, ..attention(fields, &sizes)? };
    let layer = layer(fields, &sizes, attention)?;
    let tied = fields.flag_or("tie_word_embeddings", true)?;
    decoder(fields, &sizes, vec![layer; sizes.layers], tied)
}

pub(crate) fn olmo3(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 65_536)?;
    let length = fields.limited_count("sliding_window", limits::CONTEXT)?;
    let windows = windowed_layers(fields, sizes.layers, |layer| layer % 4 != 3)?;
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: None, traditional: false };
    let of_layers = |layer_type: &str| rope::of_layers(fields, layer_type);
    let global = match of_layers("full_attention")? {
        Some(own) => rope::read_of_layers(fields, own, &defaults)?,
        None => rope::read(fields, &defaults)?,
    };
    let local = match of_layers("sliding_attention")? {
        Some(own) => rope::read_of_layers(fields, own, &defaults)?,
        None => {
            let theta = rope::setting(fields, "rope_theta")?;
            let theta = theta.ok_or_else(|| fields.missing("rope_theta", "a positive number"))?;
            rope::plain(theta, sizes.head_dim, false)
        }
    };
    let attention = attention(fields, &sizes)?;
    let layers = windows.into_iter().map(|windowed| {
        let rope = Some(if windowed { local.clone() } else { global.clone() });
        let attention = Attention { rope, reach: window(windowed, length), ..attention.clone() };
        layer(fields, &sizes, attention)
    });
    let tied = fields.flag_or("tie_word_embeddings", false)?;
    decoder(fields, &sizes, layers.collect::<Result<_>>()?, tied)
}

fn eps(fields: Fields<'_>) -> Result<f32> {
    fields.positive_or("rms_norm_eps", 1e-5)
}

/// Attention without positions.
fn attention(fields: Fields<'_>, sizes: &Sizes) -> Result<Attention> {
    let attention_bias = fields.flag_or("attention_bias", false)?;
    Ok(Attention {
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        query_norm: Some(NormSpec::rms("self_attn.q_norm", eps(fields)?)),
        key_norm: Some(NormSpec::rms("self_attn.k_norm", eps(fields)?)),
        norms: HeadNorms::Spanning,
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    })
}

fn layer(fields: Fields<'_>, sizes: &Sizes, attention: Attention) -> Result<LayerSpec> {
    let eps = eps(fields)?;
    let activation = activation(fields, "hidden_act", Activation::Silu)?;
    let network = Dense {
        bias: fields.flag_or("mlp_bias", false)?,
        ..Dense::gated(sizes.intermediate_size, activation)
    };
    Ok(LayerSpec::Blocks(vec![
        Block::post_norm(Part::Attention(attention), NormSpec::rms("post_attention_layernorm", eps)),
        Block::post_norm(Part::Dense(network), NormSpec::rms("post_feedforward_layernorm", eps)),
    ]))
}

fn decoder(fields: Fields<'_>, sizes: &Sizes, layers: Vec<LayerSpec>, tied: bool) -> Result<DecoderSpec> {
    let head = Head::new(if tied { HeadWeights::Tied } else { HeadWeights::Separate });
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps(fields)?), head))
}
