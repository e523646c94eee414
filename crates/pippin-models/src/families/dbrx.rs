//! Databricks' DBRX: layer norms without biases, queries, keys and values cut off, and a mixture of experts in every layer.

use pippin_tensor::RouterSpec;

use super::common::Sizes;
use crate::config::Fields;
use crate::parts::{Attention, Experts, NormSpec, Part, Projections};
use crate::published::Tensors;
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits, rope};

/// The matrices of an expert, and what the model's file calls the stacks of them.
const MATRICES: [&str; 3] = ["ffn.experts.w1", "ffn.experts.v1", "ffn.experts.w2"];

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let own = |prefix: &'static str| -> Result<Fields<'_>> {
        let object = fields.object(prefix)?;
        object.ok_or_else(|| fields.missing(prefix.trim_end_matches('.'), "an object"))
    };
    let (attention, experts) = (own("attn_config.")?, own("ffn_config.")?);
    let hidden_size = fields.limited_count("d_model", limits::HIDDEN)?;
    let heads = fields.limited_count("n_heads", limits::HEADS)?;
    let sizes = Sizes {
        hidden_size,
        layers: fields.limited_count("n_layers", limits::LAYERS)?,
        heads,
        kv_heads: attention.limited_count("kv_n_heads", limits::HEADS)?,
        head_dim: hidden_size / heads,
        intermediate_size: experts.limited_count("ffn_hidden_size", limits::INTERMEDIATE)?,
        vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
        context_length: fields.count_or("max_seq_len", 2048, limits::CONTEXT)?,
    };
    let theta = attention.required_positive("rope_theta")?;
    let attention = Attention {
        projections: Projections::Fused("norm_attn_norm.attn.Wqkv"),
        output: "norm_attn_norm.attn.out_proj",
        clamp: attention.positive("clip_qkv")?.map(|limit| limit as f32),
        rope: Some(rope::plain(theta, sizes.head_dim, false)),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    // Weights of experts are divided by their norm of this order; that of the first is their sum.
    if experts.finite("moe_normalize_expert_weights")?.is_some_and(|order| order != 1.0) {
        return Err(experts.error("moe_normalize_expert_weights", "is not supported: it must be 1"));
    }
    let count = experts.limited_count("moe_num_experts", limits::EXPERTS)?;
    let top_k = experts.limited_count("moe_top_k", count)?;
    let choice = RouterSpec { normalize: true, ..RouterSpec::softmax(count, top_k) };
    let [gate, up, down] = MATRICES;
    let experts = Experts {
        router: "ffn.router.layer",
        names: [gate, up, down],
        ..Experts::new(choice, sizes.intermediate_size)
    };
    let norm = |path: &'static str| NormSpec::layer(path, 1e-5, false);
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(norm("norm_attn_norm.norm_1"), Part::Attention(attention)),
        Block::pre_norm(norm("norm_attn_norm.norm_2"), Part::Experts(experts)),
    ]);
    let names = ModelNames {
        embedding: "transformer.wte".into(),
        layers: "transformer.blocks".into(),
        head: "lm_head".into(),
    };
    let head = Head::new(HeadWeights::Separate);
    Ok(DecoderSpec { names, ..sizes.decoder(vec![layer; sizes.layers], norm("transformer.norm_f"), head) })
}

/// Published with the experts' matrices one below the other, the last one's the other way round; mlx-lm's converter makes modules
/// of them.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    let experts = config.fields().object("ffn_config.")?;
    let count = experts.map_or(Ok(None), |experts| experts.count("moe_num_experts"))?;
    let Some(count) = count else { return Ok(()) };
    for (matrix, turned) in MATRICES.into_iter().zip([false, false, true]) {
        let Some((parent, name)) = matrix.rsplit_once('.') else { continue };
        let suffix = format!(".{parent}.mlp.{name}");
        let found: Vec<String> =
            tensors.names().filter(|name| name.ends_with(&suffix)).map(str::to_owned).collect();
        for fused in found {
            let Some(tensor) = tensors.take(&fused) else { continue };
            let &[rows, columns] = tensor.shape() else { continue };
            let stack = format!("{}.{matrix}.weight", fused.strip_suffix(&suffix).unwrap_or_default());
            tensors.insert(stack.clone(), tensor.reshape(&[count, rows / count, columns])?);
            if turned {
                tensors.transpose(&stack)?;
            }
        }
        tensors.stack(&format!("{parent}.*.{name}"), matrix)?;
    }
    Ok(())
}
