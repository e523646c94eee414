//! Qwen 3 Next: gated delta nets, gated attention in every fourth layer, and mixtures of experts beside one that every
//! token goes through.

use pippin_tensor::{Activation, Gate};

use super::common::{Sizes, activation, head_weights, layers_of_type};
use super::qwen3_moe::{experts, layers_of_experts};
use crate::config::Fields;
use crate::parts::{
    Attention, Dense, DenseForm, Experts, GatedDelta, NormSpec, Part, Projections, SharedExpert,
};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, Head, LayerSpec};
use crate::{Config, DecoderSpec, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 32_768)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let bias = fields.flag_or("attention_bias", false)?;
    let dims = rope::partial(sizes.head_dim, rope::share(fields, 0.25)?);
    let attention = Attention {
        projections: Projections::Gated(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        qkv_bias: bias,
        output_bias: bias,
        query_norm: Some(NormSpec::rms("self_attn.q_norm", eps)),
        key_norm: Some(NormSpec::rms("self_attn.k_norm", eps)),
        rope: Some(rope::read(fields, &RopeDefaults { dims, theta: None, traditional: false })?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let delta = GatedDelta {
        path: "linear_attn",
        value_heads: fields.limited_count("linear_num_value_heads", limits::HEADS)?,
        key_heads: fields.limited_count("linear_num_key_heads", limits::HEADS)?,
        key_dim: fields.limited_count("linear_key_head_dim", limits::HEAD_DIM)?,
        value_dim: fields.limited_count("linear_value_head_dim", limits::HEAD_DIM)?,
        taps: fields.limited_count("linear_conv_kernel_dim", limits::TAPS)?,
        norm_eps: eps,
    };
    let activation = activation(fields, "hidden_act", Activation::Silu)?;
    let network = Dense::gated(sizes.intermediate_size, activation);
    let names = ["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"];
    let width = fields.limited_count("shared_expert_intermediate_size", limits::INTERMEDIATE)?;
    let beside = Dense {
        form: DenseForm::Gated { names, gate: Gate::Of(activation) },
        down: "mlp.shared_expert.down_proj",
        ..Dense::gated(width, activation)
    };
    let shared = SharedExpert { network: beside, gate: Some("mlp.shared_expert_gate") };
    let experts = Experts { shared: Some(shared), ..experts(fields)? };
    let layer = |(attends, is_mixture): (bool, bool)| {
        let mixer = match attends {
            true => Part::Attention(attention.clone()),
            false => Part::GatedDelta(delta.clone()),
        };
        let network = match is_mixture {
            true => Part::Experts(experts.clone()),
            false => Part::Dense(network.clone()),
        };
        LayerSpec::Blocks(vec![
            Block::pre_norm(NormSpec::rms("input_layernorm", eps), mixer),
            Block::pre_norm(NormSpec::rms("post_attention_layernorm", eps), network),
        ])
    };
    let mixtures = layers_of_experts(fields, sizes.layers)?;
    let layers = attention_layers(fields, sizes.layers)?.into_iter().zip(mixtures).map(layer).collect();
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(head_weights(fields)?)))
}

/// Which layers have attention: those that `layer_types` says, or every `full_attention_interval`-th.
fn attention_layers(fields: Fields<'_>, layers: usize) -> Result<Vec<bool>> {
    if let Some(attends) = layers_of_type(fields, layers, ["full_attention", "linear_attention"])? {
        return Ok(attends);
    }
    let interval = fields.count_or("full_attention_interval", 4, limits::LAYERS)?;
    Ok((0..layers).map(|layer| (layer + 1) % interval == 0).collect())
}
