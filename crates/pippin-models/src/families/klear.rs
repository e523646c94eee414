//! Klear: the attention of Qwen 3, and mixtures chosen by corrected sigmoid scores that are weighed against a network that
//! every token goes through.

use pippin_tensor::{Activation, RouterSpec, ScoreFunction};

use super::common::{Sizes, head_weights, pre_norm_layer, stack_experts_as};
use super::qwen3_moe::layers_of_experts;
use crate::config::Fields;
use crate::parts::{Attention, Dense, Experts, NormSpec, Part, SharedExpert};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 65_536)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let bias = fields.flag_or("attention_bias", false)?;
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: None, traditional: false };
    let attention = Part::Attention(Attention {
        qkv_bias: bias,
        output_bias: bias,
        query_norm: Some(NormSpec::rms("self_attn.q_norm", eps)),
        key_norm: Some(NormSpec::rms("self_attn.k_norm", eps)),
        rope: Some(rope::read(fields, &defaults)?),
        ..sizes.attention()
    });
    let dense = Part::Dense(Dense::gated(sizes.intermediate_size, Activation::Silu));
    let experts = Part::Experts(experts(fields)?);
    let layer = |is_mixture: bool| {
        pre_norm_layer(eps, attention.clone(), if is_mixture { &experts } else { &dense }.clone())
    };
    let layers = layers_of_experts(fields, sizes.layers)?.into_iter().map(layer).collect();
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(head_weights(fields)?)))
}

fn experts(fields: Fields<'_>) -> Result<Experts> {
    let count = fields.limited_count("num_experts", limits::EXPERTS)?;
    let choice = RouterSpec {
        scores: ScoreFunction::Sigmoid,
        normalize: fields.flag_or("norm_topk_prob", false)?,
        ..RouterSpec::softmax(count, fields.limited_count("num_experts_per_tok", count)?)
    };
    let width = fields.limited_count("moe_intermediate_size", limits::INTERMEDIATE)?;
    let shared = fields.limited_count("n_shared_experts", limits::EXPERTS)?;
    Ok(Experts {
        correction: Some("mlp.expert_bias"),
        names: ["mlp.experts.gate_proj", "mlp.experts.up_proj", "mlp.experts.down_proj"],
        shared: Some(SharedExpert::usual(width.saturating_mul(shared))),
        balance: Some("mlp.coefficient"),
        ..Experts::new(choice, width)
    })
}

/// A published checkpoint has experts one by one.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    stack_experts_as(tensors, "mlp.experts", ["gate_proj", "up_proj", "down_proj"], "mlp.experts")
}
