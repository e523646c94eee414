//! Liquid AI's LFM2: short convolutions between gates in most layers, attention in the others.

use pippin_tensor::Activation;

use super::common::{Sizes, layers_of_type, nested};
use crate::config::Fields;
use crate::parts::{Attention, Dense, NormSpec, Part, ShortConv};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, Head, HeadWeights, LayerSpec};
use crate::{Config, DecoderSpec, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let width = feed_forward_width(fields)?;
    let names = ["feed_forward.w1", "feed_forward.w3", "feed_forward.w2"];
    let network = Part::Dense(Dense::gated_as(names, width, Activation::Silu));
    decoder(fields, width, |_| network.clone())
}

/// The decoder with some feed-forward networks, by the layers' numbers.
pub(crate) fn decoder(
    fields: Fields<'_>,
    intermediate_size: usize,
    network: impl Fn(usize) -> Part,
) -> Result<DecoderSpec> {
    let hidden_size = fields.limited_count("hidden_size", limits::HIDDEN)?;
    let heads = fields.limited_count("num_attention_heads", limits::HEADS)?;
    let sizes = Sizes {
        hidden_size,
        layers: fields.limited_count("num_hidden_layers", limits::LAYERS)?,
        heads,
        kv_heads: fields.count_or("num_key_value_heads", heads, limits::HEADS)?,
        head_dim: hidden_size / heads,
        intermediate_size,
        vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
        context_length: fields.count_or("max_position_embeddings", 128_000, limits::CONTEXT)?,
    };
    let block_dim = fields.count_or("block_dim", hidden_size, limits::HIDDEN)?;
    if block_dim != hidden_size {
        let problem = format_args!("is {block_dim}, but hidden_size is {hidden_size}");
        return Err(fields.error("block_dim", problem));
    }
    let eps = fields.positive_or("norm_eps", 1e-5)?;
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: Some(1_000_000.0), traditional: false };
    let attention = Attention {
        output: "self_attn.out_proj",
        query_norm: Some(NormSpec::rms("self_attn.q_layernorm", eps)),
        key_norm: Some(NormSpec::rms("self_attn.k_layernorm", eps)),
        rope: Some(rope::read(fields, &defaults)?),
        ..Attention::new(heads, sizes.kv_heads, sizes.head_dim)
    };
    let convolution = ShortConv {
        path: "conv",
        width: hidden_size,
        taps: fields.count_or("conv_L_cache", 3, limits::TAPS)?,
        bias: fields.flag_or("conv_bias", false)?,
    };
    let layer = |(index, attends): (usize, bool)| {
        let mixer = match attends {
            true => Part::Attention(attention.clone()),
            false => Part::ShortConv(convolution.clone()),
        };
        LayerSpec::Blocks(vec![
            Block::pre_norm(NormSpec::rms("operator_norm", eps), mixer),
            Block::pre_norm(NormSpec::rms("ffn_norm", eps), network(index)),
        ])
    };
    let layers = attention_layers(fields, sizes.layers)?.into_iter().enumerate().map(layer).collect();
    let norm = NormSpec::rms("model.embedding_norm", eps);
    Ok(sizes.decoder(layers, norm, Head::new(HeadWeights::Tied)))
}

/// The text model of those that see.
pub(crate) fn vision(config: &Config) -> Result<DecoderSpec> {
    nested(config, "language_model.model.embedding_norm", spec)
}

/// The width of feed-forward networks: two thirds of what the configuration says, a multiple of that, and rounded up,
/// unless it says not to.
fn feed_forward_width(fields: Fields<'_>) -> Result<usize> {
    let field = if fields.get("block_ff_dim").is_some() { "block_ff_dim" } else { "intermediate_size" };
    let mut width = fields.limited_count(field, limits::INTERMEDIATE)?;
    if fields.flag_or("block_auto_adjust_ff_dim", true)? {
        let multiple = fields.count_or("block_multiple_of", 256, limits::INTERMEDIATE)?;
        width = 2 * width / 3;
        if let Some(factor) = fields.positive("block_ffn_dim_multiplier")? {
            width = (factor * width as f64) as usize;
        }
        width = width.min(2 * limits::INTERMEDIATE).next_multiple_of(multiple);
        if width == 0 || width > limits::INTERMEDIATE {
            let problem = format_args!("gives feed-forward networks an impossible width, {width}");
            return Err(fields.error(field, problem));
        }
    }
    Ok(width)
}

/// Which layers have attention: those of `full_attn_idxs`, or those that `layer_types` says.
fn attention_layers(fields: Fields<'_>, layers: usize) -> Result<Vec<bool>> {
    if let Some(indices) = fields.indices("full_attn_idxs")? {
        let mut attends = vec![false; layers];
        for index in indices {
            match attends.get_mut(index) {
                Some(attends) => *attends = true,
                None => {
                    let problem = format_args!("names layer {index} of {layers}");
                    return Err(fields.error("full_attn_idxs", problem));
                }
            }
        }
        return Ok(attends);
    }
    let attends = layers_of_type(fields, layers, ["full_attention", "conv"])?;
    attends.ok_or_else(|| fields.missing("layer_types", "a list of strings"))
}
