//! Poolside's Laguna: layers of which some have a window, each kind with a rotation and each layer with a number of heads of
//! its own, norms of heads and a gate for each, and mixtures chosen by corrected scores.

use std::collections::HashMap;

use pippin_tensor::{Activation, RouterSpec, ScoreFunction};

use super::common::{Sizes, head_weights, pre_norm_layer, stack_experts, window, windowed_layers};
use crate::config::Fields;
use crate::parts::{Attention, Dense, Experts, NormSpec, OutputGate, Part, SharedExpert};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let default = Sizes {
        hidden_size: 2048,
        layers: 40,
        heads: 48,
        kv_heads: 8,
        head_dim: 128,
        intermediate_size: 8192,
        vocab_size: 100_352,
        context_length: 262_144,
    };
    let sizes = Sizes::read_or(fields, &default)?;
    let eps = fields.positive_or("rms_norm_eps", 1e-6)?;
    let length = fields.count_or("sliding_window", 512, limits::CONTEXT)?;
    let windows = windowed_layers(fields, sizes.layers, |_| false)?;
    let heads = match fields.get("num_attention_heads_per_layer") {
        Some(_) => fields.counts("num_attention_heads_per_layer", sizes.layers)?,
        None => vec![sizes.heads; sizes.layers],
    };
    let mut ropes = HashMap::new();
    for windowed in [false, true] {
        if windows.contains(&windowed) {
            ropes.insert(windowed, layer_rope(fields, windowed, sizes.head_dim)?);
        }
    }
    let gate = gate(fields)?;
    let output_bias = fields.flag_or("attention_bias", false)?;
    let qkv_bias = fields.flag_or("qkv_bias", false)?;
    let attention = |heads: usize, windowed: bool| Attention {
        qkv_bias,
        output_bias,
        query_norm: Some(NormSpec::rms("self_attn.q_norm", eps)),
        key_norm: Some(NormSpec::rms("self_attn.k_norm", eps)),
        gate,
        rope: ropes.get(&windowed).cloned(),
        reach: window(windowed, length),
        ..Attention::new(heads, sizes.kv_heads, sizes.head_dim)
    };
    let dense = Part::Dense(Dense::gated(sizes.intermediate_size, Activation::Silu));
    let experts = Part::Experts(experts(fields)?);
    let mixtures = fields.words("mlp_layer_types", sizes.layers, ["sparse", "dense"])?;
    let mixtures = mixtures.unwrap_or_else(|| (0..sizes.layers).map(|layer| layer > 0).collect());
    let layer = |((heads, windowed), is_mixture): ((usize, bool), bool)| {
        let network = if is_mixture { &experts } else { &dense };
        pre_norm_layer(eps, Part::Attention(attention(heads, windowed)), network.clone())
    };
    let layers = heads.into_iter().zip(windows).zip(mixtures).map(layer).collect();
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(head_weights(fields)?)))
}

fn layer_rope(
    fields: Fields<'_>,
    windowed: bool,
    head_dim: usize,
) -> Result<std::sync::Arc<pippin_tensor::RopeSpec>> {
    let layer_type = if windowed { "sliding_attention" } else { "full_attention" };
    let own = rope::of_layers(fields, layer_type)?;
    let share = match own {
        Some(own) => own.positive("partial_rotary_factor")?,
        None => None,
    };
    let share = share.or(fields.positive("partial_rotary_factor")?).unwrap_or(1.0);
    let dims = rope::partial(head_dim, share);
    let defaults = RopeDefaults { dims, theta: Some(10_000.0), traditional: false };
    match own {
        Some(own) => rope::read_of_layers(fields, own, &defaults),
        None => rope::read(fields, &defaults),
    }
}

/// The gate on the attention's results: a flag, or a word that says how many numbers it has.
fn gate(fields: Fields<'_>) -> Result<Option<OutputGate>> {
    let by_head = match fields.get("gating") {
        Some(value) if value.is_string() => match fields.text("gating")?.unwrap_or_default() {
            "per-head" => true,
            "per-element" => false,
            other => return Err(fields.unsupported("gating", other, &["per-head", "per-element"])),
        },
        _ if fields.flag_or("gating", true)? => true,
        _ => return Ok(None),
    };
    Ok(Some(OutputGate { name: "self_attn.g_proj", by_head, activation: Activation::Softplus }))
}

fn experts(fields: Fields<'_>) -> Result<Experts> {
    let count = fields.count_or("num_experts", 256, limits::EXPERTS)?;
    if fields.flag_or("moe_apply_router_weight_on_input", false)? {
        return Err(fields.error("moe_apply_router_weight_on_input", "is not supported"));
    }
    let choice = RouterSpec {
        scores: match fields.text("moe_router_score_func")?.unwrap_or("sigmoid") {
            "sigmoid" => ScoreFunction::Sigmoid,
            "sqrtsoftplus" => ScoreFunction::SqrtSoftplus,
            other => {
                return Err(fields.unsupported("moe_router_score_func", other, &["sigmoid", "sqrtsoftplus"]));
            }
        },
        normalize: true,
        scale: fields.positive_or("moe_routed_scaling_factor", 1.0)?,
        ..RouterSpec::softmax(count, fields.count_or("num_experts_per_tok", 8, count)?)
    };
    let width = fields.count_or("moe_intermediate_size", 512, limits::INTERMEDIATE)?;
    let names = ["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj"];
    let shared = fields.count_or("shared_expert_intermediate_size", 512, limits::INTERMEDIATE)?;
    let network = Dense::gated_as(names, shared, Activation::Silu);
    // Zero is none.
    let cap = fields.finite("moe_router_logit_softcapping")?.map(|cap| cap as f32).filter(|cap| *cap > 0.0);
    Ok(Experts {
        router: "mlp.gate.proj",
        router_softcap: cap,
        correction: Some("mlp.gate.e_score_correction_bias"),
        shared: Some(SharedExpert { network, gate: None }),
        ..Experts::new(choice, width)
    })
}

/// A published checkpoint has experts one by one, the correction of scores among them, and the router without a name of its
/// own; some have a prefix before all names.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.replace_prefix("language_model.", "");
    tensors.rename(|name| Some(format!("{}.mlp.gate.proj.weight", name.strip_suffix(".mlp.gate.weight")?)));
    tensors.replace("mlp.experts.e_score_correction_bias", "mlp.gate.e_score_correction_bias");
    stack_experts(tensors, "mlp.experts")
}
