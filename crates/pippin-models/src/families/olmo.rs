//! OLMo 1: layer norms without parameters, and queries, keys and values cut off in some; as it was published first (with
//! `d_model`, fused projections, and its own names), which is what mlx-lm reads, and as transformers has it.

use pippin_tensor::{Activation, Gate};

use super::common::{Sizes, activation};
use crate::config::Fields;
use crate::parts::{Attention, Dense, DenseForm, FusedRows, NormSpec, Part, Projections};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    if fields.get("d_model").is_some() { first(fields) } else { second(fields) }
}

fn first(fields: Fields<'_>) -> Result<DecoderSpec> {
    for field in
        ["alibi", "attention_layer_norm", "include_bias", "layer_norm_with_affine", "multi_query_attention"]
    {
        if fields.flag_or(field, false)? {
            return Err(fields.unsupported(field, "true", &["false"]));
        }
    }
    let hidden_size = fields.limited_count("d_model", limits::HIDDEN)?;
    let heads = fields.limited_count("n_heads", limits::HEADS)?;
    let ratio = fields.count_or("mlp_ratio", 4, limits::INTERMEDIATE)?;
    // That of gate and input together.
    let width = ratio.saturating_mul(hidden_size).min(limits::INTERMEDIATE);
    let width = fields.count_or("mlp_hidden_size", width, limits::INTERMEDIATE)?;
    let vocab_size = fields.limited_count("vocab_size", limits::VOCAB)?;
    let sizes = Sizes {
        hidden_size,
        layers: fields.limited_count("n_layers", limits::LAYERS)?,
        heads,
        kv_heads: heads,
        head_dim: hidden_size / heads,
        intermediate_size: width / 2,
        // Padded.
        vocab_size: fields.count_or("embedding_size", vocab_size, limits::VOCAB)?,
        context_length: fields.count_or("max_sequence_length", 2048, limits::CONTEXT)?,
    };
    let attention = Attention {
        projections: Projections::Fused("att_proj"),
        output: "attn_out",
        ..attention(fields, &sizes)?
    };
    let gate = Gate::Of(Activation::Silu);
    let network = Dense {
        form: DenseForm::Fused { name: "ff_proj", gate, rows: FusedRows::GateLast },
        down: "ff_out",
        intermediate_size: sizes.intermediate_size,
        bias: false,
    };
    let names = ModelNames {
        embedding: "model.transformer.wte".into(),
        layers: "model.transformer.blocks".into(),
        head: "model.transformer.ff_out".into(),
    };
    let tied = fields.flag_or("weight_tying", false)?;
    Ok(DecoderSpec { names, ..decoder(&sizes, attention, network, tied) })
}

fn second(fields: Fields<'_>) -> Result<DecoderSpec> {
    let sizes = Sizes::read(fields, 2048)?;
    let bias = fields.flag_or("attention_bias", false)?;
    let attention = Attention { qkv_bias: bias, output_bias: bias, ..attention(fields, &sizes)? };
    let activation = activation(fields, "hidden_act", Activation::Silu)?;
    let network = Dense::gated(sizes.intermediate_size, activation);
    let tied = fields.flag_or("tie_word_embeddings", false)?;
    Ok(decoder(&sizes, attention, network, tied))
}

fn attention(fields: Fields<'_>, sizes: &Sizes) -> Result<Attention> {
    let defaults = RopeDefaults {
        dims: sizes.head_dim,
        theta: Some(10_000.0),
        traditional: fields.flag_or("rope_traditional", false)?,
    };
    Ok(Attention {
        clamp: fields.positive("clip_qkv")?.map(|limit| limit as f32),
        rope: Some(rope::read(fields, &defaults)?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    })
}

fn decoder(sizes: &Sizes, attention: Attention, network: Dense, tied: bool) -> DecoderSpec {
    let norm = NormSpec { weight: false, ..NormSpec::layer("", 1e-5, false) };
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(norm, Part::Attention(attention)),
        Block::pre_norm(norm, Part::Dense(network)),
    ]);
    let head = Head::new(if tied { HeadWeights::Tied } else { HeadWeights::Separate });
    sizes.decoder(vec![layer; sizes.layers], norm, head)
}
