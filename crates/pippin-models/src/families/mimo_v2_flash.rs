//! MiMo V2 Flash: layers with a window, which have heads, rotations and sinks of their own, and some without; values that are
//! narrower than keys, and the mixtures of DeepSeek V3.

use pippin_tensor::{Activation, Reach};

use super::common::{Sizes, corrected_choice, head_weights, pre_norm_layer, stack_experts};
use crate::config::Fields;
use crate::parts::{Attention, Dense, Experts, NormSpec, Part, SharedExpert};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 262_144)?;
    let eps = fields.required_positive("layernorm_epsilon")? as f32;
    let whole = attention(fields, &GLOBAL)?;
    let length = fields.limited_count("sliding_window_size", limits::CONTEXT)?;
    let windowed = Attention { reach: Reach::Window(length), ..attention(fields, &SLIDING)? };
    let dense = Part::Dense(Dense::gated(sizes.intermediate_size, Activation::Silu));
    let experts = fields.count("n_routed_experts")?.map(|_| experts(fields)).transpose()?;
    let layer = |(is_windowed, is_mixture): (bool, bool)| {
        let attention = if is_windowed { &windowed } else { &whole };
        let network = match &experts {
            Some(experts) if is_mixture => Part::Experts(experts.clone()),
            _ => dense.clone(),
        };
        pre_norm_layer(eps, Part::Attention(attention.clone()), network)
    };
    let pattern = |name| {
        let flags = fields.flags(name, sizes.layers)?;
        flags.ok_or_else(|| fields.missing(name, "a list of zeros and ones"))
    };
    let layers = pattern("hybrid_layer_pattern")?.into_iter().zip(pattern("moe_layer_freq")?);
    let layers = layers.map(layer).collect();
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(head_weights(fields)?)))
}

/// What the fields of layers with and without a window are called.
struct Names {
    heads: &'static str,
    kv_heads: &'static str,
    head_dim: &'static str,
    value_dim: &'static str,
    theta: &'static str,
    sinks: &'static str,
}

const GLOBAL: Names = Names {
    heads: "num_attention_heads",
    kv_heads: "num_key_value_heads",
    head_dim: "head_dim",
    value_dim: "v_head_dim",
    theta: "rope_theta",
    sinks: "add_full_attention_sink_bias",
};

const SLIDING: Names = Names {
    heads: "swa_num_attention_heads",
    kv_heads: "swa_num_key_value_heads",
    head_dim: "swa_head_dim",
    value_dim: "swa_v_head_dim",
    theta: "swa_rope_theta",
    sinks: "add_swa_attention_sink_bias",
};

fn attention(fields: Fields<'_>, names: &Names) -> Result<Attention> {
    let heads = fields.limited_count(names.heads, limits::HEADS)?;
    let kv_heads = fields.limited_count(names.kv_heads, limits::HEADS)?;
    let head_dim = fields.limited_count(names.head_dim, limits::HEAD_DIM)?;
    let dims = rope::partial(head_dim, rope::share(fields, 1.0)?);
    let theta = fields.required_positive(names.theta)?;
    let defaults = RopeDefaults { dims, theta: Some(theta), traditional: false };
    Ok(Attention {
        value_dim: fields.limited_count(names.value_dim, limits::HEAD_DIM)?,
        value_scale: fields.positive_or("attention_value_scale", 1.0)?,
        rope: Some(rope::read_with_theta(fields, theta, &defaults)?),
        sinks: fields.flag_or(names.sinks, false)?.then_some("self_attn.attention_sink_bias"),
        ..Attention::new(heads, kv_heads, head_dim)
    })
}

fn experts(fields: Fields<'_>) -> Result<Experts> {
    let count = fields.limited_count("n_routed_experts", limits::EXPERTS)?;
    let width = fields.limited_count("moe_intermediate_size", limits::INTERMEDIATE)?;
    let choice = corrected_choice(fields, count, fields.limited_count("num_experts_per_tok", count)?)?;
    let shared = fields.count("n_shared_experts")?;
    Ok(Experts {
        router_dense: true,
        correction: Some("mlp.gate.e_score_correction_bias"),
        shared: shared.map(|count| SharedExpert::usual(width.saturating_mul(count))),
        ..Experts::new(choice, width)
    })
}

/// A published checkpoint has experts one by one.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    stack_experts(tensors, "mlp.experts")
}
