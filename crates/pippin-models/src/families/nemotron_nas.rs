//! NVIDIA's Nemotron Super and Ultra 1: llama from which a search has taken parts of layers, replaced them by a linear layer, or
//! made them narrower, layer by layer.

use pippin_tensor::Activation;

use super::common::{Sizes, activation, head_weights};
use crate::config::Fields;
use crate::parts::{Attention, Dense, LinearMap, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let default = Sizes {
        hidden_size: 8192,
        layers: 80,
        heads: 64,
        kv_heads: 64,
        head_dim: 128,
        intermediate_size: 8192,
        vocab_size: 128_256,
        context_length: 131_072,
    };
    let sizes = Sizes::read_or(fields, &default)?;
    let sizes = Sizes { head_dim: sizes.hidden_size / sizes.heads, ..sizes };
    let eps = fields.positive_or("rms_norm_eps", 1e-5)?;
    let attention_bias = fields.flag_or("attention_bias", false)?;
    let network_bias = fields.flag_or("mlp_bias", false)?;
    let activation = activation(fields, "hidden_act", Activation::Silu)?;
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: Some(500_000.0), traditional: false };
    let rope = rope::read(fields, &defaults)?;
    let blocks = fields.objects("block_configs", "block_configs[].")?.unwrap_or_default();
    if blocks.len() != sizes.layers {
        let problem = format_args!("has {} entries for {} layers", blocks.len(), sizes.layers);
        return Err(fields.error("block_configs", problem));
    }
    let layer = |block: Fields<'_>| {
        let mut blocks = Vec::new();
        let own = block.nested("attention", "block_configs[].attention.")?;
        let own = own.ok_or_else(|| block.missing("attention", "an object"))?;
        let norm = NormSpec::rms("input_layernorm", eps);
        match kind(own)? {
            Kind::Nothing => {}
            Kind::Linear => {
                let linear = LinearMap { path: "self_attn.linear", bias: attention_bias };
                blocks.push(Block::pre_norm(norm, Part::LinearMap(linear)));
            }
            Kind::Whole => {
                for field in ["window_length", "num_sink_tokens", "sparsify"] {
                    if own.get(field).is_some() {
                        return Err(own.error(field, "is not supported: it must be null"));
                    }
                }
                let group = own.limited_count("n_heads_in_group", sizes.heads)?;
                if !sizes.heads.is_multiple_of(group) {
                    let problem = format_args!("is {group}, which does not divide the {} heads", sizes.heads);
                    return Err(own.error("n_heads_in_group", problem));
                }
                let attention = Attention {
                    qkv_bias: attention_bias,
                    output_bias: attention_bias,
                    rope: Some(rope.clone()),
                    ..Attention::new(sizes.heads, sizes.heads / group, sizes.head_dim)
                };
                blocks.push(Block::pre_norm(norm, Part::Attention(attention)));
            }
        }
        let own = block.nested("ffn", "block_configs[].ffn.")?;
        let own = own.ok_or_else(|| block.missing("ffn", "an object"))?;
        let norm = NormSpec::rms("post_attention_layernorm", eps);
        match kind(own)? {
            Kind::Nothing => {}
            Kind::Linear => {
                let linear = LinearMap { path: "mlp.linear", bias: network_bias };
                blocks.push(Block::pre_norm(norm, Part::LinearMap(linear)));
            }
            Kind::Whole => {
                let width = width(own.required_positive("ffn_mult")?, sizes.hidden_size);
                let network = Dense { bias: network_bias, ..Dense::gated(width, activation) };
                blocks.push(Block::pre_norm(norm, Part::Dense(network)));
            }
        }
        Ok(LayerSpec::Blocks(blocks))
    };
    let layers = blocks.into_iter().map(layer).collect::<Result<_>>()?;
    let head = match head_weights(fields)? {
        HeadWeights::IfPresent => HeadWeights::Separate,
        head => head,
    };
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(head)))
}

/// What is left of a part of a layer.
enum Kind {
    Nothing,
    Linear,
    Whole,
}

fn kind(part: Fields<'_>) -> Result<Kind> {
    Ok(match (part.flag_or("no_op", false)?, part.flag_or("replace_with_linear", false)?) {
        (true, _) => Kind::Nothing,
        (false, true) => Kind::Linear,
        (false, false) => Kind::Whole,
    })
}

/// The width of a network by its multiplier: as that of llama, of a whole number of 256 columns.
fn width(multiplier: f64, hidden_size: usize) -> usize {
    let multiplier = (multiplier * 1e6).round_ties_even() / 1e6;
    // What is beyond the limit will be refused.
    let width = (2.0 * multiplier * hidden_size as f64 / 3.0).min(2.0 * limits::INTERMEDIATE as f64);
    (width as usize).next_multiple_of(256)
}
