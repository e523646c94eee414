//! Step 3.5: layers with a window that have heads and rotations of their own, a gate for each head of the attention, and
//! experts whose activations are clamped in some layers.

use std::sync::Arc;

use pippin_tensor::{Activation, Gate, RopeSpec, RouterSpec, ScoreFunction};
use serde_json::Value;

use super::common::{Sizes, pre_norm_layer, window};
use crate::config::{Fields, Numbers, number};
use crate::parts::{Attention, Dense, DenseForm, Experts, NormSpec, OutputGate, Part, SharedExpert};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head, HeadWeights};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let groups = fields.limited_count("num_attention_groups", limits::HEADS)?;
    let sizes = Sizes { kv_heads: groups, ..Sizes::read(fields, 262_144)? };
    let eps = fields.positive_or("rms_norm_eps", 1e-5)?;
    let length = fields.count_or("sliding_window", 512, limits::CONTEXT)?;
    let windows = windows(fields, sizes.layers)?;
    let other = match fields.object("attention_other_setting.")? {
        Some(other) => [
            other.limited_count("num_attention_heads", limits::HEADS)?,
            other.limited_count("num_attention_groups", limits::HEADS)?,
        ],
        None => [sizes.heads, sizes.kv_heads],
    };
    let ropes = rotations(fields, &windows, &sizes)?;
    let gate = fields.flag_or("use_head_wise_attn_gate", true)?.then_some(OutputGate {
        name: "self_attn.g_proj",
        by_head: true,
        activation: Activation::Sigmoid,
    });
    let mixtures = mixtures(fields, sizes.layers)?;
    let gate_of = gates(fields, "swiglu_limits", sizes.layers)?;
    let gate_beside = gates(fields, "swiglu_limits_shared", sizes.layers)?;
    let experts = experts(fields)?;
    let beside = fields.count_or("share_expert_dim", 1280, limits::INTERMEDIATE)?;
    let layer = |index: usize| {
        let [heads, kv_heads] = if windows[index] { other } else { [sizes.heads, sizes.kv_heads] };
        let attention = Attention {
            gate,
            query_norm: Some(NormSpec::rms("self_attn.q_norm", eps)),
            key_norm: Some(NormSpec::rms("self_attn.k_norm", eps)),
            rope: Some(ropes[index].clone()),
            reach: window(windows[index], length),
            ..Attention::new(heads, kv_heads, sizes.head_dim)
        };
        let network = if mixtures[index] {
            let names =
                ["mlp.share_expert.gate_proj", "mlp.share_expert.up_proj", "mlp.share_expert.down_proj"];
            let network = clamped(Dense::gated_as(names, beside, Activation::Silu), gate_beside[index]);
            let shared = Some(SharedExpert { network, gate: None });
            Part::Experts(Experts { gate: gate_of[index], shared, ..experts.clone() })
        } else {
            let network = Dense::gated(sizes.intermediate_size, Activation::Silu);
            Part::Dense(clamped(network, gate_beside[index]))
        };
        pre_norm_layer(eps, Part::Attention(attention), network)
    };
    let layers = (0..sizes.layers).map(layer).collect();
    let head = Head::new(HeadWeights::Separate);
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), head))
}

/// A published checkpoint has other names, and norms whose factors are one plus the weight. Layers beyond the last are for
/// the prediction of several tokens.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    let is_published = |name: &str| name.contains(".moe.") || name.contains(".share_expert.");
    if !tensors.names().any(|name| is_published(name) && !name.contains(".mlp.share_expert.")) {
        return Ok(());
    }
    for name in ["gate_proj", "up_proj", "down_proj"] {
        tensors.replace(&format!("moe.{name}"), &format!("mlp.switch_mlp.{name}"));
    }
    tensors.replace("moe.gate", "mlp.gate.gate");
    tensors.replace("moe.router_bias", "mlp.gate.router_bias");
    tensors.replace("share_expert", "mlp.share_expert");
    tensors.map("norm.weight", |weight| weight + 1.0)
}

/// Which layers have a window. The list may go on for layers that are not read.
fn windows(fields: Fields<'_>, layers: usize) -> Result<Vec<bool>> {
    let Some(types) = fields.texts("layer_types")?.filter(|types| !types.is_empty()) else {
        return Ok((0..layers).map(|layer| layer.is_multiple_of(2)).collect());
    };
    if types.len() < layers {
        let problem = format_args!("has {} entries for {layers} layers", types.len());
        return Err(fields.error("layer_types", problem));
    }
    Ok(types[..layers].iter().map(|kind| *kind == "sliding_attention").collect())
}

/// The rotary positions of each layer: bases, rotated shares and whether positions are scaled may differ.
fn rotations(fields: Fields<'_>, windows: &[bool], sizes: &Sizes) -> Result<Vec<Arc<RopeSpec>>> {
    let bases = fields.positives("rope_theta")?.unwrap_or(Numbers::One(10_000.0));
    let shares = fields.positives("partial_rotary_factors")?;
    let scaled = fields.texts("yarn_only_types")?.unwrap_or_default();
    let has_types = fields.texts("layer_types")?.is_some_and(|types| !types.is_empty());
    let mut known: Vec<Arc<RopeSpec>> = Vec::new();
    let rotation = |(layer, windowed): (usize, &bool)| {
        let base = match &bases {
            Numbers::One(base) => *base,
            Numbers::List(bases) => *bases.get(layer).ok_or_else(|| {
                fields.error(
                    "rope_theta",
                    format_args!("has {} entries for {} layers", bases.len(), windows.len()),
                )
            })?,
        };
        let share = match &shares {
            Some(Numbers::List(shares)) => shares.get(layer).copied().unwrap_or(1.0),
            Some(Numbers::One(share)) => *share,
            None => 1.0,
        };
        let kind = if *windowed && has_types { "sliding_attention" } else { "full_attention" };
        let scaling = match scaled.is_empty() || scaled.contains(&kind) {
            true => rope::scaling(fields)?,
            false => None,
        };
        let dims = rope::partial(sizes.head_dim, share);
        let defaults = RopeDefaults { dims, theta: None, traditional: false };
        let rope = rope::read_from(fields, scaling, Some(base), &defaults)?;
        match known.iter().find(|known| **known == rope) {
            Some(known) => Ok(known.clone()),
            None => {
                known.push(rope.clone());
                Ok(rope)
            }
        }
    };
    windows.iter().enumerate().map(rotation).collect()
}

/// Which layers have experts: those that a text lists, or all but the first.
fn mixtures(fields: Fields<'_>, layers: usize) -> Result<Vec<bool>> {
    let Some(list) = fields.text("moe_layers_enum")? else {
        return Ok((0..layers).map(|layer| layer > 0).collect());
    };
    let mut mixtures = vec![false; layers];
    for number in list.split(',') {
        let Ok(layer) = number.trim().parse::<usize>() else {
            return Err(fields.error("moe_layers_enum", "must be numbers with commas between them"));
        };
        if let Some(mixture) = mixtures.get_mut(layer) {
            *mixture = true;
        }
    }
    Ok(mixtures)
}

/// The gate of each layer, which clamps where the list has a number other than zero.
fn gates(fields: Fields<'_>, field: &str, layers: usize) -> Result<Vec<Gate>> {
    let limit =
        |value: &Value| if value.is_null() { Some(0.0) } else { number(value).map(|limit| limit as f32) };
    let list: Option<Vec<f32>> =
        fields.get(field).map_or(Some(Vec::new()), |value| value.as_array()?.iter().map(limit).collect());
    let list = list.ok_or_else(|| fields.error(field, "must be a list of numbers"))?;
    let gate = |layer: usize| match list.get(layer) {
        Some(limit) if *limit > 0.0 && limit.is_finite() => Gate::ClampedSilu { limit: *limit },
        _ => Gate::Of(Activation::Silu),
    };
    Ok((0..layers).map(gate).collect())
}

fn clamped(mut network: Dense, clamp: Gate) -> Dense {
    if let DenseForm::Gated { gate, .. } = &mut network.form {
        *gate = clamp;
    }
    network
}

fn experts(fields: Fields<'_>) -> Result<Experts> {
    let count = fields.count_or("moe_num_experts", 288, limits::EXPERTS)?;
    let top_k = fields.count_or("moe_top_k", 8, count)?;
    let choice = RouterSpec {
        scores: ScoreFunction::Sigmoid,
        normalize: fields.flag_or("norm_expert_weight", true)?,
        scale: fields.positive_or("moe_router_scaling_factor", 3.0)?,
        ..RouterSpec::softmax(count, top_k)
    };
    let width = fields.count_or("moe_intermediate_size", 1280, limits::INTERMEDIATE)?;
    Ok(Experts {
        router: "mlp.gate.gate",
        correction: Some("mlp.gate.router_bias"),
        ..Experts::new(choice, width)
    })
}
