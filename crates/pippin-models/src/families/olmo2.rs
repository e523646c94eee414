//! OLMo 2: norms after attention and feed-forward network instead of before, and norms of all queries and of all keys
//! together.

use pippin_tensor::Activation;

use super::common::{Sizes, activation};
use crate::parts::{Attention, Dense, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec};
use crate::{Config, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 4096)?;
    let eps = fields.positive_or("rms_norm_eps", 1e-5)?;
    let attention_bias = fields.flag_or("attention_bias", false)?;
    let defaults = RopeDefaults {
        dims: sizes.head_dim,
        theta: Some(10_000.0),
        traditional: fields.flag_or("rope_traditional", false)?,
    };
    let attention = Attention {
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        query_norm: Some(NormSpec::rms("self_attn.q_norm", eps)),
        key_norm: Some(NormSpec::rms("self_attn.k_norm", eps)),
        norms_span_heads: true,
        rope: Some(rope::read(fields, &defaults)?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let activation = activation(fields, "hidden_act", Activation::Silu)?;
    let network = Dense {
        bias: fields.flag_or("mlp_bias", false)?,
        ..Dense::gated(sizes.intermediate_size, activation)
    };
    let layer = LayerSpec::Blocks(vec![
        Block::post_norm(Part::Attention(attention), NormSpec::rms("post_attention_layernorm", eps)),
        Block::post_norm(Part::Dense(network), NormSpec::rms("post_feedforward_layernorm", eps)),
    ]);
    let head = match fields.flag_or("tie_word_embeddings", true)? {
        true => HeadWeights::Tied,
        false => HeadWeights::Separate,
    };
    Ok(sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("model.norm", eps), Head::new(head)))
}
