//! DeepSeek V3 and R1: latent attention, and experts chosen by sigmoid scores from the best groups, beside one that every
//! token goes through.

use pippin_tensor::{Activation, RouterSpec, ScoreFunction};

use super::common::Sizes;
use crate::config::Fields;
use crate::parts::{Dense, DenseForm, Experts, Latent, NormSpec, Part, SharedExpert};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes {
        hidden_size: fields.count_or("hidden_size", 4096, limits::HIDDEN)?,
        layers: fields.count_or("num_hidden_layers", 30, limits::LAYERS)?,
        heads: fields.count_or("num_attention_heads", 32, limits::HEADS)?,
        kv_heads: 1,
        head_dim: fields.count_or("qk_nope_head_dim", 128, limits::HEAD_DIM)?,
        intermediate_size: fields.count_or("intermediate_size", 11_008, limits::INTERMEDIATE)?,
        vocab_size: fields.count_or("vocab_size", 102_400, limits::VOCAB)?,
        context_length: rope::context_length(fields, 2048)?,
    };
    let eps = fields.positive_or("rms_norm_eps", 1e-6)?;
    let attention = Part::Latent(latent(fields, &sizes)?);
    let dense = Part::Dense(Dense::gated(sizes.intermediate_size, Activation::Silu));
    let experts = match fields.count("n_routed_experts")? {
        Some(_) => Some(Part::Experts(experts(fields)?)),
        None => None,
    };
    let first = match fields.get("first_k_dense_replace") {
        Some(value) if value.as_u64() == Some(0) => 0,
        _ => fields.count_or("first_k_dense_replace", 0, limits::LAYERS)?,
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

fn latent(fields: Fields<'_>, sizes: &Sizes) -> Result<Latent> {
    let (key_dim, rope_dim) = (sizes.head_dim, fields.count_or("qk_rope_head_dim", 64, limits::HEAD_DIM)?);
    let mut scale = ((key_dim + rope_dim) as f32).powf(-0.5);
    // YaRN's factor, which the rotation has for a part of a head only, is that of the whole score.
    if let Some(scaling) = rope::scaling(fields)?
        && let (Some(all), Some(factor)) = (scaling.finite("mscale_all_dim")?, scaling.positive("factor")?)
        && all != 0.0
        && factor > 1.0
    {
        let stretch = 0.1 * all * factor.ln() + 1.0;
        scale *= (stretch * stretch) as f32;
    }
    let defaults = RopeDefaults { dims: rope_dim, theta: Some(10_000.0), traditional: true };
    let query_rank = match fields.value("q_lora_rank") {
        // Absent is the default, null is none.
        Some(value) if value.is_null() => None,
        _ => Some(fields.count_or("q_lora_rank", 1536, limits::HIDDEN)?),
    };
    Ok(Latent {
        heads: sizes.heads,
        query_rank,
        rank: fields.count_or("kv_lora_rank", 512, limits::HIDDEN)?,
        key_dim,
        rope_dim,
        value_dim: fields.count_or("v_head_dim", 128, limits::HEAD_DIM)?,
        bias: fields.flag_or("attention_bias", false)?,
        norm_eps: 1e-6,
        rope: rope::read(fields, &defaults)?,
        scale,
    })
}

fn experts(fields: Fields<'_>) -> Result<Experts> {
    if let Some(method) = fields.text("topk_method")?
        && method != "noaux_tc"
    {
        return Err(fields.unsupported("topk_method", method, &["noaux_tc"]));
    }
    let experts = fields.limited_count("n_routed_experts", limits::EXPERTS)?;
    let top_k = fields.count_or("num_experts_per_tok", 1, experts)?;
    let groups = fields.count_or("n_group", 1, experts)?;
    let width = fields.count_or("moe_intermediate_size", 1407, limits::INTERMEDIATE)?;
    let choice = RouterSpec {
        scores: ScoreFunction::Sigmoid,
        groups,
        top_groups: fields.count_or("topk_group", 1, groups)?,
        best_of_group: (experts / groups).clamp(1, 2),
        normalize: top_k > 1 && fields.flag_or("norm_topk_prob", true)?,
        scale: fields.positive_or("routed_scaling_factor", 1.0)?,
        ..RouterSpec::softmax(experts, top_k)
    };
    let shared = fields.count("n_shared_experts")?.map(|count| {
        let names = ["mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"];
        let gate = pippin_tensor::Gate::Of(Activation::Silu);
        let network = Dense {
            form: DenseForm::Gated { names, gate },
            down: "mlp.shared_experts.down_proj",
            intermediate_size: width.saturating_mul(count),
            bias: false,
        };
        SharedExpert { network, gate: None }
    });
    let correction = Some("mlp.gate.e_score_correction_bias");
    Ok(Experts { correction, router_dense: true, shared, ..Experts::new(choice, width) })
}
