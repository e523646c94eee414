//! Talkie: norms without weights, learned factors on what attention and feed-forward network add, and on each query head;
//! positions that turn backwards; and the normalized embedding of its token added behind each layer.

use pippin_tensor::Activation;

use super::common::Sizes;
use crate::parts::{Attention, Dense, FirstInput, NormSpec, Part, Projections};
use crate::published::Tensors;
use crate::rope;
use crate::spec::{Block, Branch, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames, StreamGates};
use crate::{Config, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let default = Sizes {
        hidden_size: 5120,
        layers: 40,
        heads: 40,
        kv_heads: 40,
        head_dim: 128,
        intermediate_size: 13_696,
        vocab_size: 65_540,
        context_length: 2048,
    };
    let sizes = Sizes::read_or(fields, &default)?;
    let norm = NormSpec::bare(fields.positive_or("rms_norm_eps", f32::EPSILON)?);
    let theta = fields.positive("rope_theta")?.unwrap_or(1_000_000.0);
    let attention = Attention {
        projections: Projections::Separate(["attn.attn_query", "attn.attn_key", "attn.attn_value"]),
        output: "attn.attn_resid",
        query_norm: Some(norm),
        key_norm: Some(norm),
        query_gain: Some("attn.head_gain.head_g"),
        norms_follow_rope: true,
        rope: Some(rope::reversed(&rope::plain(theta, sizes.head_dim, false))?),
        // There are as many heads of keys as of queries.
        ..Attention::new(sizes.heads, sizes.heads, sizes.head_dim)
    };
    let names = ["mlp.mlp_gate", "mlp.mlp_linear", "mlp.mlp_resid"];
    let network = Dense::gated_as(names, sizes.intermediate_size, Activation::Silu);
    let block = |norm: Option<NormSpec>, part: Part, added: &'static str| Block {
        gates: Some(StreamGates { added, stream: None, by_column: false }),
        ..Block::new(vec![Branch::new(norm, part)])
    };
    let layer = LayerSpec::Blocks(vec![
        block(Some(norm), Part::Attention(attention), "attn_gain.a_g"),
        block(Some(norm), Part::Dense(network), "mlp_gain.a_g"),
        block(None, Part::FirstInput(FirstInput), "embed_skip.a_g"),
    ]);
    let head = Head { gain: Some("lm_head_gain.w_g"), ..Head::new(HeadWeights::Separate) };
    Ok(DecoderSpec {
        names: ModelNames {
            embedding: "model.embed".to_owned(),
            layers: "model.blocks".to_owned(),
            ..ModelNames::default()
        },
        embedding_norm: Some(norm),
        ..sizes.decoder(vec![layer; sizes.layers], norm, head)
    })
}

/// The matrix of the head is stored under the name of its module.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.rename(|name| (name == "lm_head").then(|| "lm_head.weight".to_owned()));
    Ok(())
}
