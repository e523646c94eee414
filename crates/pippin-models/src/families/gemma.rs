//! Gemma: embeddings times the root of their width, and norms of one plus the weight: before attention and feed-forward
//! network in the first, on both sides of them in 2 and 3, which have windows in most layers; soft caps in 2, norms of
//! queries and keys and two rotations in 3.
//!
//! mlx-lm takes the exact GELU in the first Gemma, and gives no layer of Gemma 2 a window; here the one is approximated, and the
//! even layers have a window, as the models were trained.

use std::sync::Arc;

use pippin_tensor::{Activation, RopeSpec};

use super::common::{Sizes, activation, head_weights, nest_text, window, windowed_layers};
use crate::config::Fields;
use crate::parts::{Attention, Dense, NormSpec, Part};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, EmbeddingScale, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits};

pub(crate) fn gemma(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 8192)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let defaults = RopeDefaults {
        dims: sizes.head_dim,
        theta: Some(10_000.0),
        traditional: fields.flag_or("rope_traditional", false)?,
    };
    let attention = Attention {
        rope: Some(rope::read(fields, &defaults)?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let network = Part::Dense(network(fields, &sizes)?);
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(NormSpec::plus_one("input_layernorm", eps), Part::Attention(attention)),
        Block::pre_norm(NormSpec::plus_one("post_attention_layernorm", eps), network),
    ]);
    let norm = NormSpec::plus_one("model.norm", eps);
    let factor = (sizes.hidden_size as f32).sqrt();
    Ok(DecoderSpec {
        embedding_scale: EmbeddingScale { factor, as_stored: true },
        ..sizes.decoder(vec![layer; sizes.layers], norm, Head::new(HeadWeights::Tied))
    })
}

pub(crate) fn gemma2(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 8192)?;
    let length = fields.count_or("sliding_window", 4096, limits::CONTEXT)?;
    let windows = windowed_layers(fields, sizes.layers, |layer| layer % 2 == 0)?;
    let defaults = RopeDefaults {
        dims: sizes.head_dim,
        theta: Some(10_000.0),
        traditional: fields.flag_or("rope_traditional", false)?,
    };
    let attention = Attention {
        rope: Some(rope::read(fields, &defaults)?),
        scale: fields.positive_or("query_pre_attn_scalar", 144.0)?.powf(-0.5),
        softcap: Some(fields.positive_or("attn_logit_softcapping", 50.0)?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let layers = windows
        .into_iter()
        .map(|windowed| Attention { reach: window(windowed, length), ..attention.clone() });
    let factor = (sizes.hidden_size as f32).sqrt();
    let head = Head {
        softcap: Some(fields.positive_or("final_logit_softcapping", 30.0)?),
        ..Head::new(HeadWeights::Tied)
    };
    let layers = layers.map(|attention| layer(fields, &sizes, attention)).collect::<Result<_>>()?;
    let norm = NormSpec::plus_one("model.norm", eps(fields)?);
    let embedding_scale = EmbeddingScale { factor, as_stored: true };
    Ok(DecoderSpec { embedding_scale, ..sizes.decoder(layers, norm, head) })
}

/// The text model by itself, or in a multimodal one, whose fields stand in `text_config`.
pub(crate) fn gemma3(config: &Config) -> Result<DecoderSpec> {
    let (fields, prefix, norm) = match config.fields().object("text_config.")? {
        Some(text) => (text, "language_model.", "language_model.model.norm"),
        None => (config.fields(), "", "model.norm"),
    };
    // What published configurations of multimodal models leave out differs from what those of text models do.
    let multimodal = !prefix.is_empty();
    let vocab_size = if multimodal { 262_208 } else { 262_144 };
    let default = Sizes {
        hidden_size: 1152,
        layers: 26,
        heads: if multimodal { 8 } else { 4 },
        kv_heads: if multimodal { 4 } else { 1 },
        head_dim: 256,
        intermediate_size: 6912,
        vocab_size: config.fields().count_or("vocab_size", vocab_size, limits::VOCAB)?,
        context_length: 32_768,
    };
    let sizes = Sizes::read_or(fields, &default)?;
    let eps = eps(fields)?;
    let length = fields.count_or("sliding_window", 512, limits::CONTEXT)?;
    let pattern = fields.count_or("sliding_window_pattern", 6, limits::LAYERS)?;
    let windows = windowed_layers(fields, sizes.layers, |layer| layer % pattern != pattern - 1)?;
    let [local, global] = rotations(fields, sizes.head_dim)?;
    let attention = Attention {
        query_norm: Some(NormSpec::plus_one("self_attn.q_norm", eps)),
        key_norm: Some(NormSpec::plus_one("self_attn.k_norm", eps)),
        scale: fields.positive_or("query_pre_attn_scalar", 256.0)?.powf(-0.5),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let layers = windows.into_iter().map(|windowed| Attention {
        reach: window(windowed, length),
        rope: Some(if windowed { local.clone() } else { global.clone() }),
        ..attention.clone()
    });
    let layers = layers.map(|attention| layer(fields, &sizes, attention)).collect::<Result<_>>()?;
    // The factor is rounded to bf16 whatever the checkpoint's type.
    let factor = half::bf16::from_f32((sizes.hidden_size as f32).sqrt()).to_f32();
    let head = match head_weights(fields)? {
        HeadWeights::Separate => HeadWeights::Separate,
        _ => HeadWeights::IfPresent,
    };
    Ok(DecoderSpec {
        names: ModelNames::under(prefix),
        embedding_scale: EmbeddingScale { factor, as_stored: false },
        ..sizes.decoder(layers, NormSpec::plus_one(norm, eps), Head::new(head))
    })
}

/// A published checkpoint may have the text model under another prefix, also where there is nothing else in it.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    match config.fields().object("text_config.")? {
        Some(_) => nest_text(tensors),
        None => tensors.replace_prefix("model.language_model.", "model."),
    }
    Ok(())
}

/// The rotary positions of layers with a window, and of those without.
pub(crate) fn rotations(fields: Fields<'_>, head_dim: usize) -> Result<[Arc<RopeSpec>; 2]> {
    let defaults = |theta: f64| RopeDefaults { dims: head_dim, theta: Some(theta), traditional: false };
    let local = match rope::of_layers(fields, "sliding_attention")? {
        Some(own) => rope::read_of_layers(fields, own, &defaults(10_000.0))?,
        None => {
            let base = fields.positive_or("rope_local_base_freq", 10_000.0)?;
            rope::plain(f64::from(base), head_dim, false)
        }
    };
    let global = match rope::of_layers(fields, "full_attention")? {
        Some(own) => rope::read_of_layers(fields, own, &defaults(1_000_000.0))?,
        None => rope::read(fields, &defaults(1_000_000.0))?,
    };
    Ok([local, global])
}

fn eps(fields: Fields<'_>) -> Result<f32> {
    fields.positive_or("rms_norm_eps", 1e-6)
}

/// The feed-forward network.
fn network(fields: Fields<'_>, sizes: &Sizes) -> Result<Dense> {
    let field = if fields.get("hidden_activation").is_some() { "hidden_activation" } else { "hidden_act" };
    // Configurations say `gelu` where the tanh approximation is meant.
    let activation = match activation(fields, field, Activation::GeluTanh)? {
        Activation::Gelu => Activation::GeluTanh,
        other => other,
    };
    Ok(Dense::gated(sizes.intermediate_size, activation))
}

/// A layer with norms around everything.
fn layer(fields: Fields<'_>, sizes: &Sizes, attention: Attention) -> Result<LayerSpec> {
    let eps = eps(fields)?;
    Ok(LayerSpec::Blocks(vec![
        Block::sandwich(
            NormSpec::plus_one("input_layernorm", eps),
            Part::Attention(attention),
            NormSpec::plus_one("post_attention_layernorm", eps),
        ),
        Block::sandwich(
            NormSpec::plus_one("pre_feedforward_layernorm", eps),
            Part::Dense(network(fields, sizes)?),
            NormSpec::plus_one("post_feedforward_layernorm", eps),
        ),
    ]))
}
