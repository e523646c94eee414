//! Qwen 3 Next: gated delta nets, gated attention in every fourth layer, and mixtures of experts beside one that every
//! token goes through.

use pippin_tensor::{Activation, Gate};

use super::common::{Sizes, activation, head_weights, layers_of_type, stack_experts};
use super::qwen3_moe::{experts, layers_of_experts};
use crate::config::Fields;
use crate::parts::{
    Attention, DeltaProjections, Dense, DenseForm, Experts, GatedDelta, NormSpec, Part, Projections,
    SharedExpert,
};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, Head, LayerSpec};
use crate::{Config, DecoderSpec, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 32_768)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let delta = GatedDelta {
        path: "linear_attn",
        value_heads: fields.limited_count("linear_num_value_heads", limits::HEADS)?,
        key_heads: fields.limited_count("linear_num_key_heads", limits::HEADS)?,
        key_dim: fields.limited_count("linear_key_head_dim", limits::HEAD_DIM)?,
        value_dim: fields.limited_count("linear_value_head_dim", limits::HEAD_DIM)?,
        taps: fields.limited_count("linear_conv_kernel_dim", limits::TAPS)?,
        projections: DeltaProjections::Interleaved,
        decay_columns: false,
        decay_bound: None,
        strength: 1.0,
        gate: Activation::Silu,
        norm: NormSpec::rms("norm", eps),
        output: "out_proj",
    };
    let width = fields.limited_count("shared_expert_intermediate_size", limits::INTERMEDIATE)?;
    let mixture = mixture(fields, experts(fields)?, width)?;
    let dense = Dense::gated(sizes.intermediate_size, activation(fields, "hidden_act", Activation::Silu)?);
    let network = |is_mixture| match is_mixture {
        true => Part::Experts(mixture.clone()),
        false => Part::Dense(dense.clone()),
    };
    let networks = layers_of_experts(fields, sizes.layers)?.into_iter().map(network);
    let layers = layers(fields, &sizes, eps, None, delta, networks)?;
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(head_weights(fields)?)))
}

/// A published checkpoint has experts one by one, and in its norms what their factors have above one.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    if !tensors.names().any(|name| name.ends_with("mlp.experts.0.up_proj.weight")) {
        return Ok(());
    }
    tensors.retain(|name| !name.contains("mtp."));
    stack_experts(tensors, "mlp.experts")?;
    raise_norms(tensors)
}

/// Adds one to the norms of layers, of heads of attention and of the output.
pub(crate) fn raise_norms(tensors: &mut Tensors) -> Result<()> {
    let names = [
        ".input_layernorm.weight",
        ".post_attention_layernorm.weight",
        "model.norm.weight",
        ".q_norm.weight",
        ".k_norm.weight",
    ];
    names.into_iter().try_for_each(|name| tensors.map(name, |weight| weight + 1.0))
}

/// Experts beside one, `width` wide, that every token goes through as much as a gate says.
pub(crate) fn mixture(fields: Fields<'_>, experts: Experts, width: usize) -> Result<Experts> {
    let activation = activation(fields, "hidden_act", Activation::Silu)?;
    let names = ["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"];
    let network = Dense {
        form: DenseForm::Gated { names, gate: Gate::Of(activation) },
        down: "mlp.shared_expert.down_proj",
        ..Dense::gated(width, activation)
    };
    let shared = SharedExpert { network, gate: Some("mlp.shared_expert_gate") };
    Ok(Experts { shared: Some(shared), ..experts })
}

/// Layers of delta nets or gated attention, each with its feed-forward network; `theta` is the base of rotations where the
/// configuration has none, if it need not have one.
pub(crate) fn layers(
    fields: Fields<'_>,
    sizes: &Sizes,
    eps: f32,
    theta: Option<f64>,
    delta: GatedDelta,
    networks: impl Iterator<Item = Part>,
) -> Result<Vec<LayerSpec>> {
    let bias = fields.flag_or("attention_bias", false)?;
    let dims = rope::partial(sizes.head_dim, rope::share(fields, 0.25)?);
    let attention = Attention {
        projections: Projections::Gated(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        qkv_bias: bias,
        output_bias: bias,
        query_norm: Some(NormSpec::rms("self_attn.q_norm", eps)),
        key_norm: Some(NormSpec::rms("self_attn.k_norm", eps)),
        rope: Some(rope::read(fields, &RopeDefaults { dims, theta, traditional: false })?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let layer = |(attends, network): (bool, Part)| {
        let mixer = match attends {
            true => Part::Attention(attention.clone()),
            false => Part::GatedDelta(delta.clone()),
        };
        LayerSpec::Blocks(vec![
            Block::pre_norm(NormSpec::rms("input_layernorm", eps), mixer),
            Block::pre_norm(NormSpec::rms("post_attention_layernorm", eps), network),
        ])
    };
    Ok(attention_layers(fields, sizes.layers)?.into_iter().zip(networks).map(layer).collect())
}

/// Which layers have attention: those that `layer_types` says, or every `full_attention_interval`-th.
fn attention_layers(fields: Fields<'_>, layers: usize) -> Result<Vec<bool>> {
    if let Some(attends) = layers_of_type(fields, layers, ["full_attention", "linear_attention"])? {
        return Ok(attends);
    }
    let interval = fields.count_or("full_attention_interval", 4, limits::LAYERS)?;
    Ok((0..layers).map(|layer| (layer + 1) % interval == 0).collect())
}
