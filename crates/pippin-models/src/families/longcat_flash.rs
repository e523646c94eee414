//! Meituan's LongCat Flash: each layer has two latent attentions and two feed-forward networks, and beside all but the
//! first of these a mixture of experts, some of which give back what they are given.

use pippin_tensor::{Activation, RouterSpec};

use super::common::{Sizes, stack_experts};
use super::deepseek::stretch;
use crate::config::Fields;
use crate::parts::{Dense, Experts, Latent, NormSpec, Part};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, Branch, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Ngrams, Result, limits};

const NGRAMS: &str = "model.ngram_embeddings";

pub(crate) fn longcat_flash(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    for (field, known) in
        [("attention_method", "MLA"), ("zero_expert_type", "identity"), ("hidden_act", "silu")]
    {
        if let Some(found) = fields.text(field)?
            && found != known
        {
            return Err(fields.unsupported(field, found, &[known]));
        }
    }
    let attention = attention(fields)?;
    let sizes = Sizes {
        hidden_size: fields.limited_count("hidden_size", limits::HIDDEN)?,
        layers: fields.limited_count("num_layers", limits::LAYERS)?,
        heads: attention.heads,
        kv_heads: 1,
        head_dim: attention.key_dim,
        intermediate_size: fields.limited_count("ffn_hidden_size", limits::INTERMEDIATE)?,
        vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
        context_length: rope::context_length(fields, 131_072)?,
    };
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let attention = |path| Part::Latent(Latent { path, ..attention.clone() });
    let network = |names| Part::Dense(Dense::gated_as(names, sizes.intermediate_size, Activation::Silu));
    let norm = |path| NormSpec::rms(path, eps);
    let before_network = norm("post_attention_layernorm.0");
    let experts = Branch { kept: true, ..Branch::new(before_network, Part::Experts(experts(fields)?)) };
    let first = network(["mlps.0.gate_proj", "mlps.0.up_proj", "mlps.0.down_proj"]);
    let second = network(["mlps.1.gate_proj", "mlps.1.up_proj", "mlps.1.down_proj"]);
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(norm("input_layernorm.0"), attention("self_attn.0")),
        Block::new(vec![experts, Branch::new(before_network, first)]),
        Block::pre_norm(norm("input_layernorm.1"), attention("self_attn.1")),
        Block { adds_kept: true, ..Block::pre_norm(norm("post_attention_layernorm.1"), second) },
    ]);
    Ok(sizes.decoder(vec![layer; sizes.layers], norm("model.norm"), Head::new(HeadWeights::Separate)))
}

/// The same with tables of n-grams beside the embeddings.
pub(crate) fn longcat_flash_ngram(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let spec = longcat_flash(config)?;
    let longest = fields.count_or("emb_neighbor_num", 4, limits::STREAMS)?;
    let tables = fields.count_or("emb_split_num", 4, limits::STREAMS)?;
    if longest < 2 {
        return Err(fields.error("emb_neighbor_num", "must be at least 2, found 1"));
    }
    let width = spec.hidden_size / (tables * (longest - 1));
    if width == 0 {
        let problem = format_args!("is {tables}, of which each must have a column of {}", spec.hidden_size);
        return Err(fields.error("emb_split_num", problem));
    }
    let rows = fields.count("ngram_vocab_size_ratio")?.unwrap_or(78).saturating_mul(spec.vocab_size);
    let embedding = format!("{NGRAMS}.word_embeddings");
    let ngrams = Ngrams { path: NGRAMS, longest, tables, rows, width };
    Ok(DecoderSpec { names: ModelNames { embedding, ..spec.names }, ngrams: Some(ngrams), ..spec })
}

fn attention(fields: Fields<'_>) -> Result<Latent> {
    let hidden = fields.limited_count("hidden_size", limits::HIDDEN)?;
    let heads = fields.limited_count("num_attention_heads", limits::HEADS)?;
    let dim = |name| fields.limited_count(name, limits::HEAD_DIM);
    let dims = [dim("qk_nope_head_dim")?, dim("qk_rope_head_dim")?, dim("v_head_dim")?];
    let rank = fields.limited_count("kv_lora_rank", limits::HIDDEN)?;
    let query_rank = match fields.get("q_lora_rank") {
        Some(_) => Some(fields.limited_count("q_lora_rank", limits::HIDDEN)?),
        None => None,
    };
    let rope = RopeDefaults { dims: dims[1], theta: Some(10_000_000.0), traditional: true };
    let latent = Latent::new(heads, rank, dims, rope::read(fields, &rope)?);
    // What is made from a vector of lower rank is made as large as if it had been made from the whole width.
    let factor = |field, rank: usize| -> Result<f32> {
        let scales = fields.flag_or(field, true)?;
        Ok(if scales { (hidden as f64 / rank as f64).sqrt() as f32 } else { 1.0 })
    };
    let of_queries = query_rank.map_or(Ok(1.0), |rank| factor("mla_scale_q_lora", rank))?;
    Ok(Latent {
        query_rank,
        bias: fields.flag_or("attention_bias", false)?,
        latent_scale: factor("mla_scale_kv_lora", rank)?,
        scale: latent.scale * of_queries * stretch(fields)?,
        ..latent
    })
}

fn experts(fields: Fields<'_>) -> Result<Experts> {
    let count = fields.limited_count("n_routed_experts", limits::EXPERTS)?;
    let identities = fields.index_or("zero_expert_num", 0)?;
    let all = count.saturating_add(identities);
    let choice = RouterSpec {
        normalize: fields.flag_or("norm_topk_prob", false)?,
        scale: fields.required_positive("routed_scaling_factor")? as f32,
        ..RouterSpec::softmax(all, fields.limited_count("moe_topk", limits::EXPERTS)?)
    };
    let width = fields.limited_count("expert_ffn_hidden_size", limits::INTERMEDIATE)?;
    Ok(Experts {
        router: "mlp.router.classifier",
        router_bias: fields.flag_or("router_bias", false)?,
        correction: Some("mlp.router.e_score_correction_bias"),
        identities,
        ..Experts::new(choice, width)
    })
}

pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    stack_experts(tensors, "mlp.experts")
}

/// The embeddings have another name, too.
pub(crate) fn published_ngram(config: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.replace_prefix("model.embed_tokens.", &format!("{NGRAMS}.word_embeddings."));
    published(config, tensors)
}
