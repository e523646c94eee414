//! DeepSeek V2 and V3 and what is built like them: latent attention, and experts beside one that every token goes through.

use std::sync::Arc;

use pippin_tensor::{Activation, Gate, PositionScale, RopeSpec, RouterSpec, ScoreFunction};

use super::common::{Sizes, split_experts, stack_experts};
use crate::config::Fields;
use crate::parts::{Dense, DenseForm, Experts, Index, Latent, NormSpec, Part, SharedExpert};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits};

/// What the configuration may leave out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    hidden_size: usize,
    layers: usize,
    heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    context_length: usize,
    norm_eps: f32,
    rope_theta: f64,
    query_rank: usize,
    rank: usize,
    /// Dimensions of a head: of keys without and with rotation, and of values.
    dims: [usize; 3],
    experts: Option<usize>,
    shared_experts: Option<usize>,
    top_k: usize,
    expert_width: usize,
    expert_scale: f32,
    /// Layers that have no experts before the first that has.
    dense_layers: usize,
}

pub(crate) const DEEPSEEK: Defaults = Defaults {
    hidden_size: 4096,
    layers: 30,
    heads: 32,
    intermediate_size: 11_008,
    vocab_size: 102_400,
    context_length: 2048,
    norm_eps: 1e-6,
    rope_theta: 10_000.0,
    query_rank: 1536,
    rank: 512,
    dims: [128, 64, 128],
    experts: None,
    shared_experts: None,
    top_k: 1,
    expert_width: 1407,
    expert_scale: 1.0,
    dense_layers: 0,
};

const GLM4_MOE_LITE: Defaults = Defaults {
    hidden_size: 2048,
    layers: 47,
    heads: 20,
    intermediate_size: 10_240,
    vocab_size: 154_880,
    context_length: 202_752,
    norm_eps: 1e-5,
    rope_theta: 1_000_000.0,
    query_rank: 768,
    rank: 512,
    dims: [192, 64, 256],
    experts: Some(64),
    shared_experts: Some(1),
    top_k: 4,
    expert_width: 1536,
    expert_scale: 1.8,
    dense_layers: 1,
};

pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    stack_experts(tensors, "mlp.experts")
}

/// Experts are chosen by a softmax, at most from the groups with the best of them.
pub(crate) fn deepseek_v2(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let attention = Latent { joined: true, ..latent(fields, &DEEPSEEK)? };
    let experts = experts(fields, &DEEPSEEK, |experts| {
        let top_k = fields.limited_count("num_experts_per_tok", experts)?;
        let grouped = match fields.text("topk_method")? {
            // The one with the slip is mlx-lm's default.
            None | Some("greedy" | "gready") => false,
            Some("group_limited_greedy") => true,
            Some(other) => {
                let known = ["greedy", "group_limited_greedy"];
                return Err(fields.unsupported("topk_method", other, &known));
            }
        };
        let mut choice = RouterSpec::softmax(experts, top_k);
        if grouped {
            choice.groups = fields.limited_count("n_group", experts)?;
            choice.top_groups = fields.limited_count("topk_group", choice.groups)?;
        }
        Ok((choice, None))
    })?;
    decoder(fields, &DEEPSEEK, attention, experts)
}

/// Experts are chosen by sigmoids and a correction of them, from the groups whose best two are the best.
pub(crate) fn deepseek_v3(config: &Config) -> Result<DecoderSpec> {
    of_third_version(config.fields(), &DEEPSEEK)
}

/// The text model of Kimi VL and K2.5.
pub(crate) fn kimi(config: &Config) -> Result<DecoderSpec> {
    let Some(fields) = config.fields().object("text_config.")? else {
        return Err(config.fields().missing("text_config", "an object"));
    };
    let spec = of_third_version(fields, &DEEPSEEK)?;
    Ok(DecoderSpec {
        names: ModelNames::under("language_model."),
        final_norm: NormSpec { path: "language_model.model.norm", ..spec.final_norm },
        ..spec
    })
}

/// All norms have the same epsilon.
pub(crate) fn glm4_moe_lite(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let norm_eps = fields.positive_or("rms_norm_eps", GLM4_MOE_LITE.norm_eps)?;
    let attention = Latent { norm_eps, ..latent(fields, &GLM4_MOE_LITE)? };
    decoder(fields, &GLM4_MOE_LITE, attention, corrected_experts(fields, &GLM4_MOE_LITE)?)
}

/// Experts are chosen by a softmax, from the groups whose best two are the best, and queries grow with their position.
pub(crate) fn mistral4(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    fields.require(&[
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "moe_intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "n_shared_experts",
        "n_routed_experts",
        "routed_scaling_factor",
        "kv_lora_rank",
        "q_lora_rank",
        "norm_topk_prob",
        "max_position_embeddings",
        "rms_norm_eps",
        "topk_group",
        "num_experts_per_tok",
        "first_k_dense_replace",
        "n_group",
        "qk_rope_head_dim",
        "qk_nope_head_dim",
        "v_head_dim",
        "rope_parameters",
    ])?;
    let defaults = Defaults { rope_theta: 100_000.0, ..DEEPSEEK };
    let Some(scaling) = rope::scaling(fields)? else {
        return Err(fields.missing("rope_parameters", "an object"));
    };
    let latent = latent(fields, &defaults)?;
    let rope =
        RopeSpec { traditional: fields.flag_or("rope_interleave", true)?, ..RopeSpec::clone(&latent.rope) };
    let position_scale = PositionScale::Logarithmic {
        floor: scaling.required_positive("original_max_position_embeddings")? as f32,
        scale: scaling.required_positive("llama_4_scaling_beta")? as f32,
        first: 0.0,
    };
    let attention = Latent { rope: Arc::new(rope), position_scale: Some(position_scale), ..latent };
    let experts = experts(fields, &defaults, |experts| {
        let top_k = fields.count_or("num_experts_per_tok", 1, experts)?;
        let groups = fields.count_or("n_group", 1, experts)?;
        let choice = RouterSpec {
            groups,
            top_groups: fields.count_or("topk_group", 1, groups)?,
            best_of_group: (experts / groups).clamp(1, 2),
            normalize: fields.flag_or("norm_topk_prob", false)?,
            ..RouterSpec::softmax(experts, top_k)
        };
        Ok((choice, None))
    })?;
    let experts = experts.map(|experts| Experts { router_dense: false, ..experts });
    let spec = decoder(fields, &defaults, attention, experts)?;
    let tied = fields.flag_or("tie_word_embeddings", false)?;
    let head = Head::new(if tied { HeadWeights::Tied } else { HeadWeights::Separate });
    Ok(DecoderSpec { head, ..spec })
}

/// Experts are published with gate and up in one matrix.
pub(crate) fn mistral4_published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    let width = config.fields().count_or("moe_intermediate_size", 1, limits::INTERMEDIATE)?;
    split_experts(tensors, "mlp.experts", "mlp.switch_mlp", width)?;
    published(config, tensors)
}

/// The third version with an index of the tokens that rows see.
pub(crate) fn deepseek_v32(config: &Config) -> Result<DecoderSpec> {
    indexed(config.fields(), false)
}

/// The same with most fields required, and with an index that rotates adjacent dimensions.
pub(crate) fn glm_moe_dsa(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    fields.require(&[
        "vocab_size",
        "hidden_size",
        "index_head_dim",
        "index_n_heads",
        "index_topk",
        "intermediate_size",
        "moe_intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "n_shared_experts",
        "n_routed_experts",
        "routed_scaling_factor",
        "kv_lora_rank",
        "q_lora_rank",
        "qk_rope_head_dim",
        "v_head_dim",
        "qk_nope_head_dim",
        "n_group",
        "topk_group",
        "num_experts_per_tok",
        "first_k_dense_replace",
        "max_position_embeddings",
        "rms_norm_eps",
        "rope_parameters",
    ])?;
    let shared = |kind: &str| kind.eq_ignore_ascii_case("shared") || kind.contains('S');
    let types = fields.texts("indexer_types")?.unwrap_or_default();
    let pattern = fields.get("index_topk_pattern").and_then(|pattern| pattern.as_str());
    if types.into_iter().chain(pattern).any(shared) {
        return Err(fields.unsupported("indexer_types", "shared", &["full"]));
    }
    if fields.count("index_topk_freq")?.is_some_and(|every| every > 1) {
        return Err(
            fields.error("index_topk_freq", "must be 1: layers that share an index are not supported")
        );
    }
    indexed(fields, true)
}

fn indexed(fields: Fields<'_>, interleaved: bool) -> Result<DecoderSpec> {
    let latent = latent(fields, &DEEPSEEK)?;
    let rope = RopeSpec {
        traditional: fields.flag_or("indexer_rope_interleave", interleaved)?,
        ..RopeSpec::clone(&latent.rope)
    };
    let index = Index {
        heads: fields.count_or("index_n_heads", 64, limits::HEADS)?,
        key_dim: fields.count_or("index_head_dim", 128, limits::HEAD_DIM)?,
        top_k: fields.count_or("index_topk", 2048, limits::CONTEXT)?,
        rope: Arc::new(rope),
        // mlx-lm has 1e-5.
        norm_eps: 1e-6,
    };
    let attention = Latent { index: Some(index), ..latent };
    decoder(fields, &DEEPSEEK, attention, corrected_experts(fields, &DEEPSEEK)?)
}

fn of_third_version(fields: Fields<'_>, defaults: &Defaults) -> Result<DecoderSpec> {
    decoder(fields, defaults, latent(fields, defaults)?, corrected_experts(fields, defaults)?)
}

/// The decoder of some attention in each layer, and of experts in all layers but the first ones.
pub(crate) fn decoder(
    fields: Fields<'_>,
    defaults: &Defaults,
    attention: Latent,
    experts: Option<Experts>,
) -> Result<DecoderSpec> {
    let sizes = Sizes {
        hidden_size: fields.count_or("hidden_size", defaults.hidden_size, limits::HIDDEN)?,
        layers: fields.count_or("num_hidden_layers", defaults.layers, limits::LAYERS)?,
        heads: attention.heads,
        kv_heads: 1,
        head_dim: attention.key_dim,
        intermediate_size: fields.count_or(
            "intermediate_size",
            defaults.intermediate_size,
            limits::INTERMEDIATE,
        )?,
        vocab_size: fields.count_or("vocab_size", defaults.vocab_size, limits::VOCAB)?,
        context_length: rope::context_length(fields, defaults.context_length)?,
    };
    let eps = fields.positive_or("rms_norm_eps", defaults.norm_eps)?;
    let dense = Part::Dense(Dense::gated(sizes.intermediate_size, Activation::Silu));
    let (attention, experts) = (Part::Latent(attention), experts.map(Part::Experts));
    let first = match fields.get("first_k_dense_replace") {
        Some(value) if value.as_u64() == Some(0) => 0,
        _ => fields.count_or("first_k_dense_replace", defaults.dense_layers, limits::LAYERS)?,
    };
    let step = fields.count_or("moe_layer_freq", 1, limits::LAYERS)?;
    let layer = |index: usize| {
        let mixture = experts.as_ref().filter(|_| index >= first && index.is_multiple_of(step));
        let network = mixture.unwrap_or(&dense).clone();
        LayerSpec::Blocks(vec![
            Block::pre_norm(NormSpec::rms("input_layernorm", eps), attention.clone()),
            Block::pre_norm(NormSpec::rms("post_attention_layernorm", eps), network),
        ])
    };
    let layers = (0..sizes.layers).map(layer).collect();
    let head = Head::new(HeadWeights::Separate);
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), head))
}

pub(crate) fn latent(fields: Fields<'_>, defaults: &Defaults) -> Result<Latent> {
    let heads = fields.count_or("num_attention_heads", defaults.heads, limits::HEADS)?;
    let dim = |name, default: usize| fields.count_or(name, default, limits::HEAD_DIM);
    let [key_dim, rope_dim, value_dim] = defaults.dims;
    let key_dim = dim("qk_nope_head_dim", key_dim)?;
    let rope_dim = dim("qk_rope_head_dim", rope_dim)?;
    let value_dim = dim("v_head_dim", value_dim)?;
    let rope = RopeDefaults { dims: rope_dim, theta: Some(defaults.rope_theta), traditional: true };
    let rank = fields.count_or("kv_lora_rank", defaults.rank, limits::HIDDEN)?;
    let dims = [key_dim, rope_dim, value_dim];
    let latent = Latent::new(heads, rank, dims, rope::read(fields, &rope)?);
    Ok(Latent {
        query_rank: optional_count(fields, "q_lora_rank", Some(defaults.query_rank), limits::HIDDEN)?,
        bias: fields.flag_or("attention_bias", false)?,
        scale: latent.scale * stretch(fields)?,
        ..latent
    })
}

/// YaRN's factor, which the rotation has for a part of a head only, is that of the whole score.
pub(crate) fn stretch(fields: Fields<'_>) -> Result<f32> {
    if let Some(scaling) = rope::scaling(fields)?
        && let (Some(all), Some(factor)) = (scaling.finite("mscale_all_dim")?, scaling.positive("factor")?)
        && all != 0.0
        && factor > 1.0
    {
        let stretch = 0.1 * all * factor.ln() + 1.0;
        return Ok((stretch * stretch) as f32);
    }
    Ok(1.0)
}

/// A number that is none where the configuration says null, and has a default where it says nothing.
pub(super) fn optional_count(
    fields: Fields<'_>,
    name: &str,
    default: Option<usize>,
    limit: usize,
) -> Result<Option<usize>> {
    match fields.value(name) {
        None => Ok(default),
        Some(value) if value.is_null() => Ok(None),
        Some(_) => fields.limited_count(name, limit).map(Some),
    }
}

fn corrected_experts(fields: Fields<'_>, defaults: &Defaults) -> Result<Option<Experts>> {
    experts(fields, defaults, |experts| {
        for (name, known) in [("topk_method", "noaux_tc"), ("scoring_func", "sigmoid")] {
            if let Some(found) = fields.text(name)?
                && found != known
            {
                return Err(fields.unsupported(name, found, &[known]));
            }
        }
        let top_k = fields.count_or("num_experts_per_tok", defaults.top_k, experts)?;
        let groups = fields.count_or("n_group", 1, experts)?;
        let choice = RouterSpec {
            scores: ScoreFunction::Sigmoid,
            groups,
            top_groups: fields.count_or("topk_group", 1, groups)?,
            best_of_group: (experts / groups).clamp(1, 2),
            normalize: top_k > 1 && fields.flag_or("norm_topk_prob", true)?,
            ..RouterSpec::softmax(experts, top_k)
        };
        Ok((choice, Some("mlp.gate.e_score_correction_bias")))
    })
}

/// Experts, and the one that every token goes through; `choose` says how so many are chosen from, and what corrects the
/// choice.
pub(crate) fn experts(
    fields: Fields<'_>,
    defaults: &Defaults,
    choose: impl FnOnce(usize) -> Result<(RouterSpec, Option<&'static str>)>,
) -> Result<Option<Experts>> {
    let limit = limits::EXPERTS;
    let Some(experts) = optional_count(fields, "n_routed_experts", defaults.experts, limit)? else {
        return Ok(None);
    };
    let (choice, correction) = choose(experts)?;
    let scale = fields.positive_or("routed_scaling_factor", defaults.expert_scale)?;
    let width = fields.count_or("moe_intermediate_size", defaults.expert_width, limits::INTERMEDIATE)?;
    let shared = optional_count(fields, "n_shared_experts", defaults.shared_experts, limit)?.map(|count| {
        let names = ["mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"];
        let network = Dense {
            form: DenseForm::Gated { names, gate: Gate::Of(Activation::Silu) },
            down: "mlp.shared_experts.down_proj",
            intermediate_size: width.saturating_mul(count),
            bias: false,
        };
        SharedExpert { network, gate: None }
    });
    let choice = RouterSpec { scale, ..choice };
    Ok(Some(Experts { correction, router_dense: true, shared, ..Experts::new(choice, width) }))
}
