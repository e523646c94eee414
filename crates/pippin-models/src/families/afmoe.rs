//! Arcee's Trinity (AFMoE): norms of heads, a gate on the attention's results, windows with rotations in most layers and
//! neither in the others, norms before and after each block, and mixtures after the first layers.

use pippin_tensor::{Activation, RouterSpec, ScoreFunction};

use super::common::{Sizes, head_weights, stack_experts_as, window, windowed_layers};
use crate::config::Fields;
use crate::parts::{Attention, Dense, Experts, NormSpec, OutputGate, Part, SharedExpert};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, EmbeddingScale, Head, LayerSpec};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let default = Sizes {
        hidden_size: 2048,
        layers: 32,
        heads: 32,
        kv_heads: 4,
        head_dim: 64,
        intermediate_size: 6144,
        vocab_size: 200_192,
        context_length: 131_072,
    };
    let context_length = rope::context_length(fields, default.context_length)?;
    let sizes = Sizes { context_length, ..Sizes::read_or(fields, &default)? };
    let eps = fields.positive_or("rms_norm_eps", 1e-5)?;
    let length = fields.count_or("sliding_window", 2048, limits::CONTEXT)?;
    let interval = fields.count_or("global_attn_every_n_layers", 4, limits::LAYERS)?;
    let windows = windowed_layers(fields, sizes.layers, |layer| !(layer + 1).is_multiple_of(interval))?;
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: Some(10_000.0), traditional: false };
    let rope = rope::read(fields, &defaults)?;
    let attention = |windowed: bool| Attention {
        query_norm: Some(NormSpec::rms("self_attn.q_norm", eps)),
        key_norm: Some(NormSpec::rms("self_attn.k_norm", eps)),
        gate: Some(OutputGate {
            name: "self_attn.gate_proj",
            by_head: false,
            activation: Activation::Sigmoid,
        }),
        rope: windowed.then(|| rope.clone()),
        reach: window(windowed, length),
        ..sizes.attention()
    };
    let dense = Part::Dense(Dense::gated(sizes.intermediate_size, Activation::Silu));
    let experts = Part::Experts(experts(fields)?);
    let first = fields.index_or("num_dense_layers", 2)?;
    let layer = |(index, windowed): (usize, bool)| {
        let network = if index < first { &dense } else { &experts };
        let sandwich = |before, part, after| {
            Block::sandwich(NormSpec::rms(before, eps), part, NormSpec::rms(after, eps))
        };
        LayerSpec::Blocks(vec![
            sandwich("input_layernorm", Part::Attention(attention(windowed)), "post_attention_layernorm"),
            sandwich("pre_mlp_layernorm", network.clone(), "post_mlp_layernorm"),
        ])
    };
    let layers = windows.into_iter().enumerate().map(layer).collect();
    let factor = match fields.flag_or("mup_enabled", true)? {
        true => (sizes.hidden_size as f32).sqrt(),
        false => 1.0,
    };
    Ok(DecoderSpec {
        embedding_scale: EmbeddingScale { factor, as_stored: false },
        ..sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(head_weights(fields)?))
    })
}

fn experts(fields: Fields<'_>) -> Result<Experts> {
    let count = fields.count_or("num_experts", 128, limits::EXPERTS)?;
    let top_k = fields.count_or("num_experts_per_tok", 8, count)?;
    let groups = fields.count_or("n_group", 1, count)?;
    let choice = RouterSpec {
        scores: match fields.text("score_func")?.unwrap_or("sigmoid") {
            "sigmoid" => ScoreFunction::Sigmoid,
            "softmax" => ScoreFunction::Softmax,
            other => return Err(fields.unsupported("score_func", other, &["sigmoid", "softmax"])),
        },
        groups,
        top_groups: if groups == 1 { 1 } else { fields.count_or("topk_group", 1, groups)? },
        best_of_group: (count / groups).clamp(1, 2),
        normalize: top_k > 1 && fields.flag_or("route_norm", true)?,
        scale: fields.positive_or("route_scale", 2.826)?,
        ..RouterSpec::softmax(count, top_k)
    };
    let width = fields.count_or("moe_intermediate_size", 1024, limits::INTERMEDIATE)?;
    let shared = fields.index_or("num_shared_experts", 1)?;
    Ok(Experts {
        router: "mlp.router.gate",
        correction: Some("mlp.expert_bias"),
        names: ["mlp.experts.gate_proj", "mlp.experts.up_proj", "mlp.experts.down_proj"],
        shared: (shared > 0).then(|| SharedExpert::usual(width.saturating_mul(shared))),
        ..Experts::new(choice, width)
    })
}

/// A published checkpoint has experts one by one.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    stack_experts_as(tensors, "mlp.experts", ["gate_proj", "up_proj", "down_proj"], "mlp.experts")
}
