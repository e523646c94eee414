//! Phi 3 small: projections fused in groups, a gate and its input row by row in one matrix, factors on embeddings, scores and
//! logits, and every other layer with attention in blocks.
//!
//! Which blocks a token sees is no different from all of them until there are more than the nearest ones that every token
//! sees. The context ends there: masks that differ from head to head are not supported.

use pippin_tensor::{Activation, Gate};

use super::common::Sizes;
use crate::parts::{Attention, Dense, DenseForm, FusedRows, NormSpec, Part, Projections};
use crate::spec::{Block, DecoderSpec, EmbeddingScale, Head, HeadWeights, LayerSpec};
use crate::{Config, Result, limits, rope};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    if fields.get("rope_scaling").is_some() {
        return Err(fields.error("rope_scaling", "is not supported: it must be null"));
    }
    if fields.positive("rope_position_scale")?.is_some_and(|scale| scale != 1.0) {
        return Err(fields.error("rope_position_scale", "is not supported: it must be 1"));
    }
    let hidden_size = fields.limited_count("hidden_size", limits::HIDDEN)?;
    let heads = fields.limited_count("num_attention_heads", limits::HEADS)?;
    let block = fields.count_or("blocksparse_block_size", 64, limits::CONTEXT)?;
    let nearest = fields.count_or("blocksparse_num_local_blocks", 16, limits::CONTEXT)?;
    let context = fields.count_or("max_position_embeddings", 8192, limits::CONTEXT)?;
    let sizes = Sizes {
        hidden_size,
        layers: fields.limited_count("num_hidden_layers", limits::LAYERS)?,
        heads,
        kv_heads: fields.limited_count("num_key_value_heads", limits::HEADS)?,
        head_dim: hidden_size / heads,
        intermediate_size: fields.limited_count("ff_intermediate_size", limits::INTERMEDIATE)?,
        vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
        context_length: context.min(nearest.saturating_mul(block)),
    };
    let eps = fields.required_positive("layer_norm_epsilon")? as f32;
    // Zero and null are for no factor.
    let factor = |field: &str, default: f32| -> Result<f32> {
        Ok(match fields.finite(field)? {
            Some(0.0) => 1.0,
            _ => fields.positive_or(field, if fields.value(field).is_some() { 1.0 } else { default })?,
        })
    };
    let theta = fields.positive("rope_embedding_base")?.unwrap_or(1_000_000.0);
    let plain = Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim);
    let attention = Attention {
        projections: Projections::Interleaved("self_attn.query_key_value"),
        qkv_bias: true,
        output: "self_attn.dense",
        output_bias: true,
        rope: Some(rope::plain(theta, sizes.head_dim, false)),
        scale: match fields.flag_or("mup_use_scaling", true)? {
            true => fields.positive_or("mup_attn_multiplier", 1.0)? / sizes.head_dim as f32,
            false => plain.scale,
        },
        ..plain
    };
    let limit = fields.required_positive("gegelu_limit")? as f32;
    let gate = Gate::ClampedSwiglu { alpha: 1.702, limit };
    let network = Dense {
        form: DenseForm::Fused { name: "mlp.up_proj", gate, rows: FusedRows::Alternating },
        bias: true,
        ..Dense::gated(sizes.intermediate_size, Activation::Silu)
    };
    let norm = |path: &'static str| NormSpec::layer(path, eps, true);
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(norm("input_layernorm"), Part::Attention(attention)),
        Block::pre_norm(norm("post_attention_layernorm"), Part::Dense(network)),
    ]);
    let scale = 1.0 / factor("mup_width_multiplier", 8.0)?;
    let head = Head { scale, ..Head::new(HeadWeights::Tied) };
    let factor = factor("mup_embedding_multiplier", 10.0)?;
    // Tokens that nothing was trained for.
    let unused = match fields.indices("dummy_token_indices")? {
        Some(tokens) => tokens,
        None => [100_256]
            .into_iter()
            .chain(100_258..=100_260)
            .chain([100_264, 100_265])
            .chain(100_267..100_352)
            .collect(),
    };
    Ok(DecoderSpec {
        embedding_scale: EmbeddingScale { factor, as_stored: false },
        unused_tokens: unused.into_iter().filter(|token| *token < sizes.vocab_size).collect(),
        ..sizes.decoder(vec![layer; sizes.layers], norm("model.final_layernorm"), head)
    })
}
