//! Lille 130M: llama under names of its own, whose norms belong to attention and feed-forward network.

use pippin_tensor::{Activation, Gate};

use crate::parts::{Attention, Dense, DenseForm, NormSpec, Part, Projections};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits};

use super::common::Sizes;

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let hidden_size = fields.limited_count("n_embd", limits::HIDDEN)?;
    let heads = fields.limited_count("n_head", limits::HEADS)?;
    let sizes = Sizes {
        hidden_size,
        layers: fields.limited_count("n_layer", limits::LAYERS)?,
        heads,
        kv_heads: fields.limited_count("n_kv_heads", limits::HEADS)?,
        head_dim: hidden_size / heads,
        // Eight thirds of the width, as a multiple of 256.
        intermediate_size: 256 * ((8 * hidden_size / 3) as f64 / 256.0).round_ties_even() as usize,
        vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
        context_length: fields.limited_count("block_size", limits::CONTEXT)?,
    };
    let eps = fields.required_positive("layer_norm_eps")? as f32;
    let rope = RopeDefaults { dims: sizes.head_dim, theta: None, traditional: true };
    let attention = Attention {
        projections: Projections::Fused("attention.qkv_proj"),
        output: "attention.out_proj",
        rope: Some(rope::read(fields, &rope)?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let names = ["feed_forward.gate_proj", "feed_forward.up_proj"];
    let network = Dense {
        form: DenseForm::Gated { names, gate: Gate::Of(Activation::Silu) },
        down: "feed_forward.down_proj",
        intermediate_size: sizes.intermediate_size,
        bias: false,
    };
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(NormSpec::rms("attention.norm", eps), Part::Attention(attention)),
        Block::pre_norm(NormSpec::rms("feed_forward.norm", eps), Part::Dense(network)),
    ]);
    let head = Head::new(HeadWeights::Tied);
    let norm = NormSpec::rms("transformer.norm", eps);
    Ok(DecoderSpec {
        names: ModelNames {
            embedding: "transformer.tok_embeddings".to_owned(),
            layers: "transformer.layers".to_owned(),
            head: "lm_head".to_owned(),
        },
        ..sizes.decoder(vec![layer; sizes.layers], norm, head)
    })
}
