//! DeepSeek V4.1: several residual streams, attention over a window and over compressed vectors that an index chooses, which
//! layers share, and experts in every layer. Its engram memory is not there, as in mlx-lm.

use std::sync::Arc;

use pippin_tensor::{Activation, Gate, RopeSpec, RouterSpec, ScoreFunction};

use super::common::Sizes;
use crate::config::Fields;
use crate::hyper::{HyperBlock, HyperConnections, HyperLayer};
use crate::parts::{
    CompressedAttention, CompressedIndex, Compression, Dense, DenseForm, Experts, NormSpec, Part,
    SharedExpert,
};
use crate::published::Tensors;
use crate::spec::{Head, HeadWeights, LayerSpec};
use crate::{Config, DecoderSpec, Result, limits, rope};

const SIZES: Sizes = Sizes {
    hidden_size: 5120,
    layers: 40,
    heads: 64,
    kv_heads: 1,
    head_dim: 512,
    intermediate_size: 2304,
    vocab_size: 129_280,
    context_length: 1_048_576,
};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let text = config.part("text_config.")?;
    let fields = text.as_ref().unwrap_or(config).fields();
    if fields.indices("engram_layer_ids")?.is_some_and(|layers| !layers.is_empty()) {
        return Err(
            fields.error("engram_layer_ids", "names layers with engram memory, which is not supported")
        );
    }
    let sizes = Sizes::read_or(fields, &SIZES)?;
    let eps = fields.positive_or("rms_norm_eps", 1e-20)?;
    let connections = HyperConnections {
        count: fields.count_or("hc_mult", 4, limits::STREAMS)?,
        iterations: fields.count_or("hc_sinkhorn_iters", 20, limits::ITERATIONS)?,
        eps: fields.positive_or("hc_eps", 1e-6)?,
        norm_eps: eps,
    };
    let mixture = Part::Experts(experts(fields)?);
    let layer = |attention: CompressedAttention| {
        let block = |path, norm, part| HyperBlock { path, norm: NormSpec::rms(norm, eps), part };
        let attention = Part::CompressedAttention(attention);
        LayerSpec::Hyper(Box::new(HyperLayer {
            connections,
            blocks: vec![
                block("attn_hc", "input_layernorm", attention),
                block("ffn_hc", "post_attention_layernorm", mixture.clone()),
            ],
        }))
    };
    let layers = attentions(fields, &sizes, eps)?.into_iter().map(layer).collect();
    let head = Head::new(HeadWeights::Separate);
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), head))
}

/// The attention of each layer.
fn attentions(fields: Fields<'_>, sizes: &Sizes, eps: f32) -> Result<Vec<CompressedAttention>> {
    let rope_dim = fields.count_or("qk_rope_head_dim", 64, sizes.head_dim)?;
    let [plain, stretched] = rotations(fields, sizes, rope_dim)?;
    let attention = CompressedAttention {
        path: "self_attn",
        heads: sizes.heads,
        head_dim: sizes.head_dim,
        rope_dim,
        query_rank: fields.count_or("q_lora_rank", 1280, limits::HIDDEN)?,
        groups: fields.count_or("o_groups", 8, sizes.heads)?,
        output_rank: fields.count_or("o_lora_rank", 1024, limits::HIDDEN)?,
        window: fields.count_or("sliding_window", 128, limits::CONTEXT)?,
        rope: plain,
        norm_eps: eps,
        compression: None,
    };
    let ratios = fields.indices("compress_ratios")?.unwrap_or_default();
    let sources = |name| fields.indices(name).map(Option::unwrap_or_default);
    let (makers, indexed) = (sources("kv_source_layer_ids")?, sources("index_source_layer_ids")?);
    let index = CompressedIndex {
        heads: fields.count_or("index_n_heads", 32, limits::HEADS)?,
        key_dim: fields.count_or("index_head_dim", 128, limits::HEAD_DIM)?,
        top_k: fields.count_or("index_topk", 512, limits::CONTEXT)?,
        blocks: None,
    };
    let candidates = candidates(fields, &index)?;
    // How many tokens the vectors stand for that a layer finds, and whether it finds keys of them.
    let (mut known, mut has_keys) = (None, false);
    let layer = |layer: usize| -> Result<CompressedAttention> {
        let ratio = ratios.get(layer).copied().filter(|ratio| *ratio > 0);
        let Some(ratio) = ratio else { return Ok(attention.clone()) };
        let (makes, has_index) = (makers.contains(&layer), indexed.contains(&layer));
        if makes {
            known = Some(ratio);
            has_keys |= has_index;
        }
        if known.is_some_and(|known| known != ratio) {
            let words =
                format!("is {ratio} in layer {layer}, whose vectors stand for other numbers of tokens");
            return Err(fields.error("compress_ratios", words));
        }
        if has_index && !has_keys {
            let words = format!("names layer {layer}, before which no layer makes keys of an index");
            return Err(fields.error("index_source_layer_ids", words));
        }
        let blocks = candidates.and_then(|(source, blocks)| (source == layer).then_some(blocks));
        let index = has_index.then_some(CompressedIndex { blocks, ..index });
        let compression = Some(Compression { ratio, makes, index });
        Ok(CompressedAttention { compression, rope: Arc::clone(&stretched), ..attention.clone() })
    };
    (0..sizes.layers).map(layer).collect()
}

/// The layer that chooses blocks for the indices behind it, and how many of which size.
fn candidates(fields: Fields<'_>, index: &CompressedIndex) -> Result<Option<(usize, [usize; 2])>> {
    let off = |name: &str, number: i64| fields.get(name).and_then(serde_json::Value::as_i64) == Some(number);
    let absent = fields.get("candidate_source_layer_id").is_none();
    if absent || off("candidate_source_layer_id", -1) || off("candidate_topk_blocks", 0) {
        return Ok(None);
    }
    let count = fields.count_or("candidate_topk_blocks", 2048, limits::CONTEXT)?;
    let size = fields.count_or("candidate_block_size", 8, limits::CONTEXT)?;
    if count.saturating_mul(size) < index.top_k {
        let words =
            format!("is {count}: blocks of {size} are fewer than the {} that are chosen", index.top_k);
        return Err(fields.error("candidate_topk_blocks", words));
    }
    Ok(Some((fields.index("candidate_source_layer_id")?, [count, size])))
}

/// The rotations of layers with a window alone, and of the others.
fn rotations(fields: Fields<'_>, sizes: &Sizes, dims: usize) -> Result<[Arc<RopeSpec>; 2]> {
    let base = |name, default| Ok::<_, crate::ModelError>(fields.positive(name)?.unwrap_or(default));
    let context = sizes.context_length as f64;
    let plain = rope::stretched(fields, None, base("rope_theta", 10_000.0)?, dims, context)?;
    let (scaling, theta) = (rope::scaling(fields)?, base("compress_rope_theta", 160_000.0)?);
    Ok([plain, rope::stretched(fields, scaling, theta, dims, context)?])
}

fn experts(fields: Fields<'_>) -> Result<Experts> {
    let count = fields.count_or("n_routed_experts", 384, limits::EXPERTS)?;
    let top_k = fields.count_or("num_experts_per_tok", 6, count)?;
    let width = fields.count_or("moe_intermediate_size", 2304, limits::INTERMEDIATE)?;
    let scores = match fields.text("scoring_func")? {
        Some("sigmoid") => ScoreFunction::Sigmoid,
        Some("softmax") => ScoreFunction::Softmax,
        // As in mlx-lm, whatever else it is called.
        _ => ScoreFunction::SqrtSoftplus,
    };
    let gate = match fields.finite("swiglu_limit")?.unwrap_or(10.0) {
        limit if limit > 0.0 => Gate::SiluOfClamped { limit: limit as f32 },
        _ => Gate::Of(Activation::Silu),
    };
    let names = ["mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj"];
    let network = Dense { form: DenseForm::Gated { names, gate }, ..SharedExpert::usual(width).network };
    let choice = RouterSpec {
        scores,
        normalize: top_k > 1 && fields.flag_or("norm_topk_prob", true)?,
        scale: fields.positive_or("routed_scaling_factor", 1.5)?,
        ..RouterSpec::softmax(count, top_k)
    };
    Ok(Experts {
        correction: Some("mlp.gate.e_score_correction_bias"),
        router_dense: true,
        router_scale: fields.positive_or("gate_temp", 1.0)?.recip(),
        names: [
            "mlp.experts.switch_mlp.gate_proj",
            "mlp.experts.switch_mlp.up_proj",
            "mlp.experts.switch_mlp.down_proj",
        ],
        gate,
        shared: Some(SharedExpert { network, gate: None }),
        ..Experts::new(choice, width)
    })
}

/// What a published checkpoint calls parts of paths, and a converted one.
const NAMES: [(&str, &str); 20] = [
    ("attn", "self_attn"),
    ("ffn", "mlp"),
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("attn_sink", "sinks"),
    ("wq_a", "q_a_proj"),
    ("wq_b", "q_b_proj"),
    ("wkv", "kv_proj"),
    ("wgate", "gate_proj"),
    ("wo_a", "o_a_proj"),
    ("wo_b", "o_b_proj"),
    ("q_norm", "q_a_norm"),
    ("compressor.norm", "compressor.kv_norm"),
    ("indexer.wk", "indexer.k_proj"),
    ("gate.bias", "gate.e_score_correction_bias"),
    ("shared_experts.w1", "shared_experts.gate_proj"),
    ("shared_experts.w2", "shared_experts.down_proj"),
    ("shared_experts.w3", "shared_experts.up_proj"),
    ("hc_attn", "attn_hc"),
    ("hc_ffn", "ffn_hc"),
];

/// A published checkpoint has names of its own, experts one by one, and groups of heads in one matrix.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    if !tensors.names().any(|name| name.starts_with("model.")) {
        let text = config.part("text_config.")?;
        let groups = text.as_ref().unwrap_or(config).fields().count_or("o_groups", 8, limits::HEADS)?;
        let others = ["vision.", "aligner.", "image_", "mtp."];
        tensors.retain(|name| {
            !others.iter().any(|other| name.starts_with(other))
                && !name.contains(".engram.")
                && !name.ends_with(".gate.bias_vl")
        });
        tensors.rename(|name| {
            Some(match name {
                "head.weight" => "lm_head.weight".to_owned(),
                "embed.weight" => "model.embed_tokens.weight".to_owned(),
                _ => format!(
                    "model.{}",
                    name.replace(".hc_attn_", ".hc_attn.").replace(".hc_ffn_", ".hc_ffn.")
                ),
            })
        });
        for (from, to) in NAMES {
            tensors.replace(from, to);
        }
        for (from, to) in [("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")] {
            tensors.stack(&format!("mlp.experts.*.{from}"), &format!("mlp.experts.switch_mlp.{to}"))?;
        }
        for parameter in ["weight", "scales", "biases"] {
            tensors.reshape(&format!(".o_a_proj.{parameter}"), |shape| match shape {
                [rows, columns] => vec![groups, rows / groups, *columns],
                others => others.to_vec(),
            })?;
        }
    }
    // Neither is a module of its own in mlx-lm.
    for (from, to) in [("base", "fn.bias"), ("fn", "fn.weight")] {
        for module in ["attn_hc", "ffn_hc"] {
            tensors.rename(|name| {
                let before = name.strip_suffix(&format!("{module}.{from}"))?;
                Some(format!("{before}{module}.{to}"))
            });
        }
    }
    Ok(())
}
