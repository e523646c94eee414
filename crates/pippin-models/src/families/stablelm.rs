//! StableLM 3B, Zephyr, Code, 2 and 2 12B: layer norms, heads that rotate in part, a gated network; in the largest, a norm for
//! each head, and attention and network side by side.

use pippin_tensor::Activation;

use super::common::{Sizes, activation, head_weights};
use crate::parts::{Attention, Dense, HeadNorms, NormSpec, Part};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec};
use crate::{Config, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 4096)?;
    let eps = fields.positive_or("layer_norm_eps", 1e-5)?;
    let defaults = RopeDefaults {
        dims: rope::partial(sizes.head_dim, rope::share(fields, 0.25)?),
        theta: Some(10_000.0),
        traditional: false,
    };
    let head_norms = fields.flag_or("qk_layernorm", false)?;
    let head_norm = |path| head_norms.then(|| NormSpec::layer(path, eps, false));
    let attention = Attention {
        qkv_bias: fields.flag_or("use_qkv_bias", false)?,
        query_norm: head_norm("self_attn.q_layernorm"),
        key_norm: head_norm("self_attn.k_layernorm"),
        norms: HeadNorms::Own,
        rope: Some(rope::read(fields, &defaults)?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let activation = activation(fields, "hidden_act", Activation::Silu)?;
    let network = Part::Dense(Dense::gated(sizes.intermediate_size, activation));
    let attention = Part::Attention(attention);
    let norm = |path: &'static str| NormSpec::layer(path, eps, true);
    let layer = LayerSpec::Blocks(match fields.flag_or("use_parallel_residual", false)? {
        true => vec![Block::parallel(norm("input_layernorm"), [attention, network])],
        false => vec![
            Block::pre_norm(norm("input_layernorm"), attention),
            Block::pre_norm(norm("post_attention_layernorm"), network),
        ],
    });
    let head = match head_weights(fields)? {
        HeadWeights::IfPresent => HeadWeights::Separate,
        head => head,
    };
    Ok(sizes.decoder(vec![layer; sizes.layers], norm("model.norm"), Head::new(head)))
}

/// The norms of heads are a module each.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.stack("self_attn.q_layernorm.norms.*", "self_attn.q_layernorm")?;
    tensors.stack("self_attn.k_layernorm.norms.*", "self_attn.k_layernorm")
}
