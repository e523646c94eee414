//! MiniMax M3, the text model of the multimodal one: norms whose factor is one plus the weight, heads that rotate in part,
//! clamped gates, and mixtures chosen by corrected sigmoid scores beside a network that every token goes through.
//!
//! In most layers a token attends to the blocks of keys that an indexer finds best. As long as there are no more blocks than
//! are taken, nothing is left out: that is the context which this version gives the model, and the indexer is not read.

use pippin_tensor::{Activation, Gate, RouterSpec, ScoreFunction};

use super::common::{Sizes, expert_count, head_weights, stack_experts_as};
use super::mixtral::block_sparse;
use crate::config::Fields;
use crate::parts::{Attention, Dense, DenseForm, Experts, NormSpec, Part, SharedExpert};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, LayerSpec, ModelNames};
use crate::{Config, Result, limits};

const DEFAULT: Sizes = Sizes {
    hidden_size: 6144,
    layers: 60,
    heads: 64,
    kv_heads: 4,
    head_dim: 128,
    intermediate_size: 3072,
    vocab_size: 200_064,
    context_length: 1_048_576,
};

const SHARED: [&str; 3] = [
    "block_sparse_moe.shared_experts.gate_proj",
    "block_sparse_moe.shared_experts.up_proj",
    "block_sparse_moe.shared_experts.down_proj",
];

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = text(config)?;
    let sizes = Sizes::read_or(fields, &DEFAULT)?;
    let sizes = Sizes { context_length: whole_context(fields, sizes.context_length)?, ..sizes };
    let eps = fields.positive_or("rms_norm_eps", 1e-6)?;
    let norm = match fields.flag_or("use_gemma_norm", true)? {
        true => NormSpec::plus_one,
        false => NormSpec::rms,
    };
    let head_norms = fields.flag_or("use_qk_norm", true)?;
    let dims = match fields.count("rotary_dim")? {
        Some(dims) => dims,
        None => rope::partial(sizes.head_dim, rope::share(fields, 0.5)?),
    };
    let defaults = RopeDefaults { dims, theta: Some(5_000_000.0), traditional: false };
    let attention = Part::Attention(Attention {
        query_norm: head_norms.then(|| norm("self_attn.q_norm", eps)),
        key_norm: head_norms.then(|| norm("self_attn.k_norm", eps)),
        rope: Some(rope::read(fields, &defaults)?),
        ..sizes.attention()
    });
    let gate = Gate::ClampedSwiglu {
        alpha: fields.positive_or("swiglu_alpha", 1.702)?,
        limit: fields.positive_or("swiglu_limit", 7.0)?,
    };
    let width = fields.count_or("dense_intermediate_size", 12_288, limits::INTERMEDIATE)?;
    let dense = Part::Dense(gated(Dense::gated(width, Activation::Silu), gate));
    let experts = Part::Experts(experts(fields, &sizes, gate)?);
    let layer = |is_mixture: bool| {
        let network = if is_mixture { &experts } else { &dense };
        LayerSpec::Blocks(vec![
            Block::pre_norm(norm("input_layernorm", eps), attention.clone()),
            Block::pre_norm(norm("post_attention_layernorm", eps), network.clone()),
        ])
    };
    let mixtures = match fields.words("mlp_layer_types", sizes.layers, ["sparse", "dense"])? {
        Some(mixtures) => Some(mixtures),
        None => fields.flags("moe_layer_freq", sizes.layers)?,
    };
    let mixtures = mixtures.unwrap_or_else(|| vec![true; sizes.layers]);
    let layers = mixtures.into_iter().map(layer).collect();
    let head = Head::new(head_weights(fields)?);
    Ok(DecoderSpec {
        names: ModelNames::under("language_model."),
        ..sizes.decoder(layers, norm("language_model.model.norm", eps), head)
    })
}

fn text(config: &Config) -> Result<Fields<'_>> {
    let fields = config.fields();
    fields.object("text_config.")?.ok_or_else(|| fields.missing("text_config", "an object"))
}

fn gated(network: Dense, gate: Gate) -> Dense {
    let form = match network.form {
        DenseForm::Gated { names, .. } => DenseForm::Gated { names, gate },
        form => form,
    };
    Dense { form, ..network }
}

/// The context in which no block of keys is left out.
fn whole_context(fields: Fields<'_>, stated: usize) -> Result<usize> {
    // The published configuration has these in an object of their own, one that transformers wrote has them beside.
    let nested = fields.nested("sparse_attention_config", "text_config.sparse_attention_config.")?;
    let count = |nested_name: &str, name: &str| match nested {
        Some(nested) if nested.get(nested_name).is_some() => nested.count(nested_name),
        _ => fields.count(name),
    };
    let block = count("sparse_block_size", "index_block_size")?;
    let blocks = count("sparse_topk_blocks", "index_topk_blocks")?;
    Ok(match (block, blocks) {
        (Some(block), Some(blocks)) => stated.min(block.saturating_mul(blocks)),
        _ => stated,
    })
}

fn experts(fields: Fields<'_>, sizes: &Sizes, gate: Gate) -> Result<Experts> {
    let count = match fields.get("num_local_experts").or(fields.get("num_experts")) {
        Some(_) => expert_count(fields)?,
        None => 128,
    };
    let choice = RouterSpec {
        scores: ScoreFunction::Sigmoid,
        normalize: true,
        scale: fields.positive_or("routed_scaling_factor", 2.0)?,
        ..RouterSpec::softmax(count, fields.count_or("num_experts_per_tok", 4, limits::EXPERTS)?)
    };
    let width = fields.count_or("shared_intermediate_size", 3072, limits::INTERMEDIATE)?;
    let network = gated(Dense::gated_as(SHARED, width, Activation::Silu), gate);
    Ok(Experts {
        correction: Some("block_sparse_moe.e_score_correction_bias"),
        gate,
        shared: Some(SharedExpert { network, gate: None }),
        ..block_sparse(choice, sizes.intermediate_size)
    })
}

/// A published checkpoint has experts one by one. Some conversions have put gates and what they are applied to into one
/// matrix, and the networks of dense layers under the name of mixtures.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    let fields = text(config)?;
    for name in ["gate_proj", "up_proj", "down_proj"] {
        tensors.replace(&format!("block_sparse_moe.{name}"), &format!("mlp.{name}"));
    }
    let width = fields.count_or("intermediate_size", DEFAULT.intermediate_size, limits::INTERMEDIATE)?;
    let shared = fields.count_or("shared_intermediate_size", 3072, limits::INTERMEDIATE)?;
    for (at, width) in [("switch_mlp", width), ("shared_experts", shared)] {
        let [gate, up] = ["gate_proj", "up_proj"].map(|name| format!("{at}.{name}"));
        tensors.split(&format!("{at}.gate_up_proj"), &[(&gate, width), (&up, width)])?;
    }
    let to = "block_sparse_moe.switch_mlp";
    stack_experts_as(tensors, "block_sparse_moe.experts", ["w1", "w3", "w2"], to)
}
