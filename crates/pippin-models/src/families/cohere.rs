//! Cohere's Command R and Aya (`cohere`), Command R7B and A (`cohere2`): attention and feed-forward network side by side
//! behind one layer norm, and rotated adjacent pairs; in the former, queries and keys may have norms, for each head its own; in
//! the latter, three layers of four have a window, and the fourth no positions.

use pippin_tensor::Activation;

use super::common::{Sizes, activation, window, windowed_layers};
use crate::config::Fields;
use crate::parts::{Attention, Dense, HeadNorms, NormSpec, Part};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec};
use crate::{Config, Result, limits, rope};

pub(crate) fn cohere(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let hidden_size = fields.count_or("hidden_size", 8192, limits::HIDDEN)?;
    let heads = fields.count_or("num_attention_heads", 64, limits::HEADS)?;
    let default = Sizes {
        hidden_size,
        layers: 40,
        heads,
        kv_heads: heads,
        head_dim: hidden_size / heads,
        intermediate_size: 22_528,
        vocab_size: 256_000,
        context_length: 8192,
    };
    let sizes = Sizes::read_or(fields, &default)?;
    let eps = eps(fields)?;
    let theta = rope::setting(fields, "rope_theta")?.unwrap_or(8_000_000.0);
    let head_norms = fields.flag_or("use_qk_norm", false)?;
    let head_norm = |path| head_norms.then(|| NormSpec::layer(path, eps, false));
    let attention = Attention {
        query_norm: head_norm("self_attn.q_norm"),
        key_norm: head_norm("self_attn.k_norm"),
        norms: HeadNorms::Own,
        rope: Some(rope::plain(theta, sizes.head_dim, true)),
        ..attention(fields, &sizes)?
    };
    let layer = layer(fields, &sizes, attention)?;
    decoder(fields, &sizes, vec![layer; sizes.layers])
}

pub(crate) fn cohere2(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let default = Sizes {
        hidden_size: 4096,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        intermediate_size: 14_336,
        vocab_size: 256_000,
        context_length: 8192,
    };
    let sizes = Sizes::read_or(fields, &default)?;
    let length = fields.count_or("sliding_window", 4096, limits::CONTEXT)?;
    let pattern = fields.count_or("sliding_window_pattern", 4, limits::LAYERS)?;
    let windows = windowed_layers(fields, sizes.layers, |layer| layer % pattern != pattern - 1)?;
    let theta = rope::setting(fields, "rope_theta")?.unwrap_or(50_000.0);
    let rope = rope::plain(theta, sizes.head_dim, true);
    let attention = attention(fields, &sizes)?;
    let layers = windows.into_iter().map(|windowed| {
        let rope = windowed.then(|| rope.clone());
        let attention = Attention { rope, reach: window(windowed, length), ..attention.clone() };
        layer(fields, &sizes, attention)
    });
    decoder(fields, &sizes, layers.collect::<Result<_>>()?)
}

fn eps(fields: Fields<'_>) -> Result<f32> {
    fields.positive_or("layer_norm_eps", 1e-5)
}

fn norm(fields: Fields<'_>, path: &'static str) -> Result<NormSpec> {
    Ok(NormSpec::layer(path, eps(fields)?, fields.flag_or("layer_norm_bias", false)?))
}

/// Attention without positions.
fn attention(fields: Fields<'_>, sizes: &Sizes) -> Result<Attention> {
    let attention_bias = fields.flag_or("attention_bias", false)?;
    Ok(Attention {
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    })
}

fn layer(fields: Fields<'_>, sizes: &Sizes, attention: Attention) -> Result<LayerSpec> {
    let network = Dense::gated(sizes.intermediate_size, activation(fields, "hidden_act", Activation::Silu)?);
    let parts = [Part::Attention(attention), Part::Dense(network)];
    Ok(LayerSpec::Blocks(vec![Block::parallel(norm(fields, "input_layernorm")?, parts)]))
}

fn decoder(fields: Fields<'_>, sizes: &Sizes, layers: Vec<LayerSpec>) -> Result<DecoderSpec> {
    let head = Head { scale: fields.positive_or("logit_scale", 0.0625)?, ..Head::new(HeadWeights::Tied) };
    Ok(sizes.decoder(layers, norm(fields, "model.norm")?, head))
}
