//! RWKV 7 (Goose): layers of time mixing and channel mixing, behind layer norms.

use super::common::Sizes;
use crate::parts::{ChannelMix, NormSpec, Part, TimeMix};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits};

/// Where the configuration has no context length: a state of fixed size sets none.
const CONTEXT_LENGTH: usize = 1 << 20;

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let hidden_size = fields.limited_count("hidden_size", limits::HIDDEN)?;
    let head_dim = fields.limited_count("head_dim", limits::HEAD_DIM)?;
    if !hidden_size.is_multiple_of(head_dim) {
        let problem = format_args!("is {head_dim}, which does not divide the {hidden_size} columns");
        return Err(fields.error("head_dim", problem));
    }
    let sizes = Sizes {
        hidden_size,
        layers: fields.limited_count("num_hidden_layers", limits::LAYERS)?,
        heads: hidden_size / head_dim,
        kv_heads: hidden_size / head_dim,
        head_dim,
        intermediate_size: fields.limited_count("intermediate_size", limits::INTERMEDIATE)?,
        vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
        context_length: fields.count_or("max_position_embeddings", CONTEXT_LENGTH, limits::CONTEXT)?,
    };
    let rank = |field: &str| fields.limited_count(field, limits::HIDDEN);
    let ranks = [rank("decay_low_rank_dim")?, rank("a_low_rank_dim")?, rank("gate_low_rank_dim")?];
    let value_rank = rank("v_low_rank_dim")?;
    let eps = fields.required_positive("norm_eps")? as f32;
    let layer = |index: usize| {
        let time = TimeMix {
            path: "attn",
            heads: sizes.heads,
            head_dim,
            ranks,
            value_rank: (index > 0).then_some(value_rank),
            norm_eps: head_dim as f32 * eps,
        };
        let channels =
            ChannelMix { path: "ffn", width: hidden_size, intermediate_size: sizes.intermediate_size };
        LayerSpec::Blocks(vec![
            Block::pre_norm(NormSpec::layer("attn_norm", eps, true), Part::TimeMix(time)),
            Block::pre_norm(NormSpec::layer("ffn_norm", eps, true), Part::ChannelMix(channels)),
        ])
    };
    let layers = (0..sizes.layers).map(layer).collect();
    let tied = fields.flag_or("tie_word_embeddings", false)?;
    let head = Head::new(if tied { HeadWeights::Tied } else { HeadWeights::Separate });
    Ok(DecoderSpec {
        names: ModelNames { embedding: "model.embeddings".to_owned(), ..ModelNames::default() },
        embedding_norm: Some(NormSpec::layer("model.layers.0.pre_norm", eps, true)),
        ..sizes.decoder(layers, NormSpec::layer("model.norm", eps, true), head)
    })
}
