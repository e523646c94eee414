//! The third Ling and Ring (Bailing): gated delta nets with a bounded decay for each column of keys, and latent attention with
//! a gate for each head in the last layer of each group.

use pippin_tensor::{Activation, RouterSpec, ScoreFunction};

use super::bailing_moe_linear::{decoder, latent};
use super::common::Sizes;
use super::deepseek::optional_count;
use crate::config::Fields;
use crate::parts::{
    DeltaInput, DeltaProjections, Experts, GatedDelta, Latent, NormSpec, OutputGate, Part, SharedExpert,
};
use crate::spec::{Head, HeadWeights};
use crate::{Config, DecoderSpec, Result, limits};

const DEFAULTS: Sizes = Sizes {
    hidden_size: 1536,
    layers: 24,
    heads: 16,
    kv_heads: 16,
    head_dim: 128,
    intermediate_size: 4608,
    vocab_size: 157_184,
    context_length: 131_072,
};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    for name in ["no_kda_lora", "kda_safe_gate", "rope_interleave"] {
        if fields.flag(name)? == Some(false) {
            return Err(fields.unsupported(name, "false", &["true"]));
        }
    }
    let sizes = Sizes::read_or(fields, &DEFAULTS)?;
    let eps = fields.positive_or("rms_norm_eps", 1e-6)?;
    let bound = fields.finite("kda_lower_bound")?.unwrap_or(-5.0);
    if bound >= 0.0 {
        return Err(fields.error("kda_lower_bound", format_args!("must be a negative number, found {bound}")));
    }
    let delta = GatedDelta {
        path: "attention",
        value_heads: sizes.heads,
        key_heads: sizes.heads,
        key_dim: sizes.head_dim,
        value_dim: sizes.head_dim,
        taps: fields.count_or("short_conv_kernel_size", 4, limits::TAPS)?,
        projections: DeltaProjections::Apart {
            mixed: &[("q_proj", "q_conv1d"), ("k_proj", "k_conv1d"), ("v_proj", "v_conv1d")],
            gate: DeltaInput::Linear("g_proj"),
            strength: "b_proj",
            decay: DeltaInput::Linear("f_proj"),
        },
        decay_columns: true,
        decay_bound: Some(bound as f32),
        strength: 1.0,
        gate: Activation::Sigmoid,
        norm: NormSpec::rms("o_norm", eps),
        output: "o_proj",
    };
    let dim = |name, default: usize| fields.count_or(name, default, limits::HEAD_DIM);
    let dims = [dim("qk_nope_head_dim", 128)?, dim("qk_rope_head_dim", 64)?, dim("v_head_dim", 128)?];
    let rank = fields.count_or("kv_lora_rank", 512, limits::HIDDEN)?;
    let latent = Latent {
        query_rank: optional_count(fields, "q_lora_rank", Some(256), limits::HIDDEN)?,
        gate: Some(OutputGate { name: "g_proj", by_head: true, activation: Activation::Sigmoid }),
        ..latent(fields, sizes.heads, rank, dims, eps)?
    };
    let mixer = |_, attends: bool| match attends {
        true => Part::Latent(latent.clone()),
        false => Part::GatedDelta(delta.clone()),
    };
    let first = fields.index_or("first_k_dense_replace", 1)?;
    let group = fields.count_or("layer_group_size", 4, limits::LAYERS)?;
    let spec = decoder(fields, &sizes, eps, mixer, Some(experts(fields)?), first, group)?;
    let tied = fields.flag_or("tie_word_embeddings", false)?;
    let head = Head::new(if tied { HeadWeights::Tied } else { HeadWeights::Separate });
    Ok(DecoderSpec { head, ..spec })
}

fn experts(fields: Fields<'_>) -> Result<Experts> {
    let count = fields.count_or("num_experts", 128, limits::EXPERTS)?;
    let groups = fields.count_or("n_group", 8, count)?;
    let choice = RouterSpec {
        scores: ScoreFunction::Sigmoid,
        groups,
        top_groups: fields.count_or("topk_group", 4, groups)?,
        best_of_group: (count / groups).clamp(1, 2),
        normalize: true,
        scale: fields.positive_or("routed_scaling_factor", 2.5)?,
        ..RouterSpec::softmax(count, fields.count_or("num_experts_per_tok", 8, count)?)
    };
    let width = |name| fields.count_or(name, 512, limits::INTERMEDIATE);
    let shared = width("moe_shared_expert_intermediate_size")?.saturating_mul(fields.count_or(
        "num_shared_experts",
        1,
        limits::EXPERTS,
    )?);
    Ok(Experts {
        router_dense: true,
        correction: Some("mlp.gate.expert_bias"),
        shared: Some(SharedExpert::usual(shared)),
        ..Experts::new(choice, width("moe_intermediate_size")?)
    })
}
