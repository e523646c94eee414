//! Kimi Linear: gated delta nets with a decay for each column of keys, latent attention without positions in some layers,
//! and experts chosen as DeepSeek V3 chooses them.

use std::sync::Arc;

use pippin_tensor::{Activation, Gate, RopeFrequencies, RopeSpec, RouterSpec, ScoreFunction};

use super::common::{Sizes, head_weights, pre_norm_layer};
use crate::config::Fields;
use crate::parts::{
    DeltaInput, DeltaProjections, Dense, DenseForm, Experts, GatedDelta, Latent, NormSpec, Part, SharedExpert,
};
use crate::published::Tensors;
use crate::spec::{Head, HeadWeights};
use crate::{Config, DecoderSpec, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    // Published configurations have the length of their context here.
    let context = fields.count_or("model_max_length", 4096, limits::CONTEXT)?;
    let sizes = Sizes::read(fields, context)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let linear = fields.object("linear_attn_config.")?;
    let linear = linear.ok_or_else(|| fields.missing("linear_attn_config", "an object"))?;
    let (latent, delta) = (latent(fields, &sizes, eps)?, delta(linear, eps)?);
    let dense = Dense::gated(sizes.intermediate_size, Activation::Silu);
    let mixture = match fields.get("num_experts") {
        Some(value) if value.as_u64() == Some(0) => None,
        _ => Some(experts(fields)?),
    };
    let mixers = Mixers { delta, latent };
    let parts = parts_of_layers(fields, linear, sizes.layers, &mixers, &dense, mixture.as_ref())?;
    let layers = parts.into_iter().map(|[mixer, network]| pre_norm_layer(eps, mixer, network)).collect();
    let weights = match fields.get("tie_word_embeddings") {
        Some(_) => head_weights(fields)?,
        None => HeadWeights::Separate,
    };
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(weights)))
}

/// The two kinds of layers in which tokens see each other.
pub(crate) struct Mixers {
    pub(crate) delta: GatedDelta,
    pub(crate) latent: Latent,
}

/// The mixer and the network of each layer. Which layers are delta nets is a list of their numbers, which begin with one.
pub(crate) fn parts_of_layers(
    fields: Fields<'_>,
    linear: Fields<'_>,
    layers: usize,
    mixers: &Mixers,
    dense: &Dense,
    mixture: Option<&Experts>,
) -> Result<Vec<[Part; 2]>> {
    let expected = "a list of numbers of layers";
    let numbers = linear.indices("kda_layers")?.ok_or_else(|| linear.missing("kda_layers", expected))?;
    let first = match fields.get("first_k_dense_replace") {
        Some(_) => fields.index("first_k_dense_replace")?,
        None => 0,
    };
    let step = fields.count_or("moe_layer_freq", 1, limits::LAYERS)?;
    let parts = |index: usize| {
        let mixer = match numbers.contains(&(index + 1)) {
            true => Part::GatedDelta(mixers.delta.clone()),
            false => Part::Latent(mixers.latent.clone()),
        };
        let network = match mixture.filter(|_| index >= first && index.is_multiple_of(step)) {
            Some(mixture) => Part::Experts(mixture.clone()),
            None => Part::Dense(dense.clone()),
        };
        [mixer, network]
    };
    Ok((0..layers).map(parts).collect())
}

pub(crate) fn delta(linear: Fields<'_>, eps: f32) -> Result<GatedDelta> {
    let heads = linear.limited_count("num_heads", limits::HEADS)?;
    let head_dim = linear.limited_count("head_dim", limits::HEAD_DIM)?;
    Ok(GatedDelta {
        path: "self_attn",
        value_heads: heads,
        key_heads: heads,
        key_dim: head_dim,
        value_dim: head_dim,
        taps: linear.count_or("short_conv_kernel_size", 4, limits::TAPS)?,
        projections: DeltaProjections::Apart {
            mixed: &[("q_proj", "q_conv.conv"), ("k_proj", "k_conv.conv"), ("v_proj", "v_conv.conv")],
            gate: DeltaInput::LowRank(["g_a_proj", "g_b_proj"], head_dim),
            strength: "b_proj",
            decay: DeltaInput::LowRank(["f_a_proj", "f_b_proj"], head_dim),
        },
        decay_columns: true,
        decay_bound: None,
        strength: 1.0,
        gate: Activation::Sigmoid,
        norm: NormSpec::rms("o_norm", eps),
        output: "o_proj",
    })
}

fn latent(fields: Fields<'_>, sizes: &Sizes, eps: f32) -> Result<Latent> {
    if fields.get("q_lora_rank").is_some() {
        return Err(fields.error("q_lora_rank", "is not supported: queries must be made from the input"));
    }
    let key_dim = fields.count_or("qk_nope_head_dim", sizes.head_dim, limits::HEAD_DIM)?;
    let value_dim = fields.count_or("v_head_dim", sizes.head_dim, limits::HEAD_DIM)?;
    Ok(Latent { norm_eps: eps, ..without_positions(fields, sizes.heads, key_dim, value_dim)? })
}

/// Latent attention whose rotated dimensions are not rotated: their frequencies are zero.
pub(crate) fn without_positions(
    fields: Fields<'_>,
    heads: usize,
    key_dim: usize,
    value_dim: usize,
) -> Result<Latent> {
    if fields.flag("mla_use_nope")? == Some(false) {
        return Err(fields.unsupported("mla_use_nope", "false", &["true"]));
    }
    let rope_dim = fields.limited_count("qk_rope_head_dim", limits::HEAD_DIM)?;
    let frequencies = RopeFrequencies::Fixed(vec![0.0; rope_dim / 2]);
    let rope = RopeSpec { dims: rope_dim, traditional: false, frequencies, scale: 1.0, axes: None };
    let rank = fields.limited_count("kv_lora_rank", limits::HIDDEN)?;
    Ok(Latent::new(heads, rank, [key_dim, rope_dim, value_dim], Arc::new(rope)))
}

fn experts(fields: Fields<'_>) -> Result<Experts> {
    chosen_experts(fields, 1, Gate::Of(Activation::Silu))
}

/// The experts of a layer and the network beside them; how many are chosen where the configuration does not say, and the gate of all.
pub(crate) fn chosen_experts(fields: Fields<'_>, top_k: usize, gate: Gate) -> Result<Experts> {
    let experts = fields.limited_count("num_experts", limits::EXPERTS)?;
    let top_k = fields.count_or("num_experts_per_token", top_k, experts)?;
    let groups = fields.count_or("num_expert_group", 1, experts)?;
    let width = fields.limited_count("moe_intermediate_size", limits::INTERMEDIATE)?;
    let scores = match fields.text("moe_router_activation_func")? {
        None | Some("sigmoid") => ScoreFunction::Sigmoid,
        Some("softmax") => ScoreFunction::Softmax,
        Some(other) => {
            return Err(fields.unsupported("moe_router_activation_func", other, &["sigmoid", "softmax"]));
        }
    };
    let choice = RouterSpec {
        scores,
        groups,
        top_groups: fields.count_or("topk_group", 1, groups)?,
        best_of_group: (experts / groups).clamp(1, 2),
        normalize: top_k > 1 && fields.flag_or("moe_renormalize", true)?,
        scale: fields.positive_or("routed_scaling_factor", 1.0)?,
        ..RouterSpec::softmax(experts, top_k)
    };
    let shared = match fields.get("num_shared_experts") {
        None => None,
        Some(value) if value.as_u64() == Some(0) => None,
        Some(_) => {
            let count = fields.limited_count("num_shared_experts", limits::EXPERTS)?;
            let names = ["mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"];
            let network = Dense {
                form: DenseForm::Gated { names, gate },
                down: "mlp.shared_experts.down_proj",
                ..Dense::gated(width.saturating_mul(count), Activation::Silu)
            };
            Some(SharedExpert { network, gate: None })
        }
    };
    let correction = Some("mlp.e_score_correction_bias");
    Ok(Experts { correction, gate, shared, ..Experts::new(choice, width) })
}

/// A published checkpoint has other names for networks and convolutions, experts one by one, and some parameters in more
/// dimensions. Converted ones have the last of these, too.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.retain(|name| !name.starts_with("model.mtp"));
    published_layers(tensors)
}

/// The same for the tensors of layers alone.
pub(crate) fn published_layers(tensors: &mut Tensors) -> Result<()> {
    tensors.replace("block_sparse_moe", "mlp");
    tensors.replace("mlp.gate.e_score_correction_bias", "mlp.e_score_correction_bias");
    for (from, to) in [("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")] {
        tensors.stack(&format!("mlp.experts.*.{from}"), &format!("mlp.switch_mlp.{to}"))?;
    }
    for name in ["q_conv", "k_conv", "v_conv"] {
        tensors.replace(&format!("{name}1d"), &format!("{name}.conv"));
    }
    ["self_attn.A_log", "self_attn.dt_bias"].into_iter().try_for_each(|name| tensors.flatten(name))
}
