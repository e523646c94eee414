//! Youtu-LLM: latent attention in every layer, dense networks, and one embedding matrix for both ends.

use pippin_tensor::Activation;

use super::common::{Sizes, head_weights, pre_norm_layer};
use crate::parts::{Dense, Latent, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let default = Sizes {
        hidden_size: 2048,
        layers: 32,
        heads: 16,
        kv_heads: 16,
        head_dim: 128,
        intermediate_size: 6144,
        vocab_size: 128_256,
        context_length: 131_072,
    };
    let sizes = Sizes::read_or(fields, &default)?;
    let eps = fields.positive_or("rms_norm_eps", 1e-6)?;
    let dim = |name, default| fields.count_or(name, default, limits::HEAD_DIM);
    let dims = [dim("qk_nope_head_dim", 128)?, dim("qk_rope_head_dim", 64)?, dim("v_head_dim", 128)?];
    let defaults = RopeDefaults {
        dims: dims[1],
        theta: Some(1_600_000.0),
        traditional: fields.flag_or("rope_traditional", true)?,
    };
    let rank = fields.count_or("kv_lora_rank", 512, limits::HIDDEN)?;
    let attention = Latent {
        query_rank: match fields.value("q_lora_rank") {
            // Absent is the default, null is none.
            Some(value) if value.is_null() => None,
            _ => Some(fields.count_or("q_lora_rank", 1536, limits::HIDDEN)?),
        },
        bias: fields.flag_or("attention_bias", false)?,
        joined: true,
        norm_eps: eps,
        ..Latent::new(sizes.heads, rank, dims, rope::read(fields, &defaults)?)
    };
    let network = Dense {
        bias: fields.flag_or("mlp_bias", false)?,
        ..Dense::gated(sizes.intermediate_size, Activation::Silu)
    };
    let layer = pre_norm_layer(eps, Part::Latent(attention), Part::Dense(network));
    let head = Head::new(head_weights(fields)?);
    Ok(sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("model.norm", eps), head))
}
