//! Ling and Ring (Bailing) with experts: one matrix for queries, keys and values, and mixtures after the first layers, chosen
//! by softmax or corrected sigmoid scores, beside a network that every token goes through.

use pippin_tensor::{Activation, RouterSpec, ScoreFunction};

use super::common::{Sizes, head_weights, pre_norm_layer, stack_experts};
use crate::config::Fields;
use crate::parts::{Attention, Dense, Experts, NormSpec, Part, Projections, SharedExpert};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head, ModelNames};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 32_768)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let bias = fields.flag_or("use_bias", false)?;
    let head_norms = fields.flag_or("use_qk_norm", false)?;
    let norm = |path| head_norms.then(|| NormSpec::rms(path, eps));
    let dims = match fields.count("rotary_dim")? {
        Some(dims) => dims,
        None => rope::partial(sizes.head_dim, rope::share(fields, 1.0)?),
    };
    let attention = Part::Attention(Attention {
        projections: Projections::Fused("attention.query_key_value"),
        qkv_bias: fields.flag_or("use_qkv_bias", false)?,
        output: "attention.dense",
        output_bias: bias,
        query_norm: norm("attention.query_layernorm"),
        key_norm: norm("attention.key_layernorm"),
        rope: Some(rope::read(fields, &RopeDefaults { dims, theta: None, traditional: false })?),
        ..sizes.attention()
    });
    let dense = Dense { bias, ..Dense::gated(sizes.intermediate_size, Activation::Silu) };
    let experts = experts(fields, bias, &DEFAULTS)?;
    let first = fields.index_or("first_k_dense_replace", 0)?;
    let layer = |index: usize| {
        let network = match &experts {
            Some(experts) if index >= first => Part::Experts(experts.clone()),
            _ => Part::Dense(dense.clone()),
        };
        pre_norm_layer(eps, attention.clone(), network)
    };
    let layers = (0..sizes.layers).map(layer).collect();
    let names = ModelNames { embedding: "model.word_embeddings".to_owned(), ..ModelNames::default() };
    let head = Head::new(head_weights(fields)?);
    Ok(DecoderSpec { names, ..sizes.decoder(layers, NormSpec::rms("model.norm", eps), head) })
}

/// What the configuration may leave out.
pub(super) struct Defaults {
    pub(super) scores: &'static str,
    /// Whether scores are corrected for the choice.
    pub(super) corrected: bool,
}

pub(super) const DEFAULTS: Defaults = Defaults { scores: "softmax", corrected: false };

/// The experts of the layers that have some.
pub(super) fn experts(fields: Fields<'_>, bias: bool, defaults: &Defaults) -> Result<Option<Experts>> {
    if fields.get("num_experts").is_none() {
        return Ok(None);
    }
    let count = fields.limited_count("num_experts", limits::EXPERTS)?;
    let top_k = fields.limited_count("num_experts_per_tok", count)?;
    let groups = fields.count_or("n_group", 1, count)?;
    let choice = RouterSpec {
        scores: match fields.text("score_function")?.unwrap_or(defaults.scores) {
            "softmax" => ScoreFunction::Softmax,
            "sigmoid" => ScoreFunction::Sigmoid,
            other => return Err(fields.unsupported("score_function", other, &["softmax", "sigmoid"])),
        },
        groups,
        top_groups: if groups == 1 { 1 } else { fields.count_or("topk_group", 4, groups)? },
        best_of_group: (count / groups).clamp(1, 2),
        normalize: top_k > 1 && fields.flag_or("norm_topk_prob", true)?,
        scale: fields.positive_or("routed_scaling_factor", 1.0)?,
        ..RouterSpec::softmax(count, top_k)
    };
    let width = fields.limited_count("moe_intermediate_size", limits::INTERMEDIATE)?;
    let shared = match fields.flag_or("moe_router_enable_shared_expert", true)? {
        true => fields.index_or("num_shared_experts", 0)?,
        false => 0,
    };
    let shared_width = fields.count_or("moe_shared_expert_intermediate_size", width, limits::INTERMEDIATE)?;
    let shared = (shared > 0).then(|| {
        let shared = SharedExpert::usual(shared_width.saturating_mul(shared));
        SharedExpert { network: Dense { bias, ..shared.network }, ..shared }
    });
    let corrected = fields.flag_or("moe_router_enable_expert_bias", defaults.corrected)?;
    Ok(Some(Experts {
        router: "mlp.gate.gate_proj",
        correction: corrected.then_some("mlp.gate.expert_bias"),
        bias,
        shared,
        ..Experts::new(choice, width)
    }))
}

/// A published checkpoint has experts one by one and the router's matrix under another name; the output head of some has
/// columns that are to have length one.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    published_experts(config, tensors)?;
    if config.fields().flag_or("norm_head", false)? {
        tensors.normalize_columns("lm_head.weight", 1e-7)?;
    }
    Ok(())
}

/// The first of it alone.
pub(crate) fn published_experts(_: &Config, tensors: &mut Tensors) -> Result<()> {
    stack_experts(tensors, "mlp.experts")?;
    for parameter in ["weight", "bias"] {
        tensors.rename(|name| {
            let at = name.strip_suffix(&format!(".mlp.gate.{parameter}"))?;
            Some(format!("{at}.mlp.gate.gate_proj.{parameter}"))
        });
    }
    Ok(())
}
