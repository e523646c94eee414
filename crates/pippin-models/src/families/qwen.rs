//! Qwen 1: llama under GPT-2's names, with biases of queries, keys and values only.
//!
//! Beyond the length that it was trained with, the model changes its rotation and its queries (`use_dynamic_ntk`,
//! `use_logn_attn`), which mlx-lm leaves out; here the context ends there.

use pippin_tensor::{Activation, Gate};

use super::common::Sizes;
use crate::parts::{Attention, Dense, DenseForm, NormSpec, Part, Projections};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits, rope};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let hidden_size = fields.count_or("hidden_size", 2048, limits::HIDDEN)?;
    let heads = fields.count_or("num_attention_heads", 16, limits::HEADS)?;
    let head_dim = hidden_size / heads;
    let width = fields.count_or("intermediate_size", 11_008, limits::INTERMEDIATE)?;
    let context = fields.count_or("max_position_embeddings", 8192, limits::CONTEXT)?;
    let changes = fields.flag_or("use_dynamic_ntk", false)? || fields.flag_or("use_logn_attn", false)?;
    let trained = if changes { fields.count("seq_length")? } else { None };
    let sizes = Sizes {
        hidden_size,
        layers: fields.count_or("num_hidden_layers", 24, limits::LAYERS)?,
        heads,
        kv_heads: heads,
        head_dim,
        intermediate_size: width / 2,
        vocab_size: fields.count_or("vocab_size", 151_936, limits::VOCAB)?,
        context_length: trained.map_or(context, |trained| trained.min(context)),
    };
    if fields.count_or("kv_channels", head_dim, limits::HEAD_DIM)? != head_dim {
        let problem = format_args!("must be {head_dim}, the width of a head");
        return Err(fields.error("kv_channels", problem));
    }
    let eps = fields.positive_or("layer_norm_epsilon", 1e-6)?;
    let bias = !fields.flag_or("no_bias", true)?;
    let theta = fields.positive("rotary_emb_base")?.unwrap_or(10_000.0);
    let share = fields.positive("rotary_pct")?.unwrap_or(1.0);
    let attention = Attention {
        projections: Projections::Fused("attn.c_attn"),
        qkv_bias: true,
        output: "attn.c_proj",
        output_bias: bias,
        rope: Some(rope::plain(theta, rope::partial(head_dim, share), false)),
        ..Attention::new(heads, heads, head_dim)
    };
    let network = Dense {
        form: DenseForm::Gated { names: ["mlp.w2", "mlp.w1"], gate: Gate::Of(Activation::Silu) },
        down: "mlp.c_proj",
        intermediate_size: sizes.intermediate_size,
        bias,
    };
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(NormSpec::rms("ln_1", eps), Part::Attention(attention)),
        Block::pre_norm(NormSpec::rms("ln_2", eps), Part::Dense(network)),
    ]);
    let head = Head { bias, ..Head::new(HeadWeights::Separate) };
    Ok(DecoderSpec {
        names: ModelNames::gpt("transformer"),
        ..sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("transformer.ln_f", eps), head)
    })
}
