//! OLMoE: llama with norms over all queries and all keys, and a mixture of experts in every layer.

use pippin_tensor::{Activation, Gate, RouterSpec};

use super::common::{Sizes, activation, expert_count, head_weights, pre_norm_layer};
use crate::parts::{Attention, Experts, HeadNorms, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head};
use crate::{Config, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    if fields.get("clip_qkv").is_some() {
        return Err(fields.error("clip_qkv", "is not supported: queries, keys and values cannot be clipped"));
    }
    let sizes = Sizes::read(fields, 4096)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let bias = fields.flag_or("attention_bias", false)?;
    let defaults = RopeDefaults {
        dims: sizes.head_dim,
        theta: Some(10_000.0),
        traditional: fields.flag_or("rope_traditional", false)?,
    };
    let attention = Attention {
        qkv_bias: bias,
        output_bias: bias,
        query_norm: Some(NormSpec::rms("self_attn.q_norm", eps)),
        key_norm: Some(NormSpec::rms("self_attn.k_norm", eps)),
        norms: HeadNorms::Spanning,
        rope: Some(rope::read(fields, &defaults)?),
        ..sizes.attention()
    };
    let count = expert_count(fields)?;
    let choice = RouterSpec {
        normalize: fields.flag_or("norm_topk_prob", false)?,
        ..RouterSpec::softmax(count, fields.limited_count("num_experts_per_tok", count)?)
    };
    let experts = Experts {
        bias: fields.flag_or("mlp_bias", false)?,
        gate: Gate::Of(activation(fields, "hidden_act", Activation::Silu)?),
        ..Experts::new(choice, sizes.intermediate_size)
    };
    let layer = pre_norm_layer(eps, Part::Attention(attention), Part::Experts(experts));
    let head = Head::new(head_weights(fields)?);
    Ok(sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("model.norm", eps), head))
}
