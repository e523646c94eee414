//! Ling and Ring (Bailing) with linear attention, whose decays are fixed, in all layers but the last of each group and those
//! after the last whole group. These have softmax attention (Ring 2.0 Linear) or latent attention (Ling and Ring 2.5).

use std::sync::Arc;

use pippin_tensor::{Activation, RopeSpec};

use super::bailing_moe::{self, experts};
use super::common::{Sizes, head_weights, pre_norm_layer};
use super::deepseek;
use crate::config::Fields;
use crate::parts::{
    Attention, Dense, Experts, Latent, LinearAttention, NormSpec, Part, Projections, SharedExpert,
};
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head, LayerSpec, ModelNames};
use crate::{Config, Result, limits};

pub(crate) fn bailing_moe_linear(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 32_768)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let norm = head_norms(fields, false, eps)?;
    let share = rope::share(fields, 1.0)?;
    let traditional = fields.flag_or("rope_traditional", false)?;
    let rope = |head_dim: usize| {
        let dims = rope::partial(head_dim, share);
        rope::read(fields, &RopeDefaults { dims, theta: None, traditional })
    };
    let attention = Attention {
        projections: Projections::Fused("attention.query_key_value"),
        qkv_bias: fields.flag_or("use_qkv_bias", false)?,
        output: "attention.dense",
        output_bias: fields.flag_or("use_bias", false)?,
        query_norm: norm("attention.query_layernorm"),
        key_norm: norm("attention.key_layernorm"),
        rope: Some(rope(sizes.head_dim)?),
        ..sizes.attention()
    };
    let head_dim = sizes.hidden_size / sizes.heads;
    let linear = linear_attention(fields, [sizes.heads, head_dim], norm, eps, rope(head_dim)?)?;
    let mixer = |index: usize, attends: bool| match attends {
        true => Part::Attention(attention.clone()),
        // The first two layers have the same decays.
        false => Part::LinearAttention(LinearAttention {
            slope_scale: slope_scale(index.saturating_sub(1), sizes.layers),
            ..linear.clone()
        }),
    };
    let mixture = experts(fields, attention.output_bias, &bailing_moe::DEFAULTS)?;
    let first = fields.index("first_k_dense_replace")?;
    decoder(fields, &sizes, eps, mixer, mixture, first, fields.required_count("layer_group_size")?)
}

pub(crate) fn bailing_hybrid(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 32_768)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let share = rope::share(fields, 0.5)?;
    let rope = RopeDefaults { dims: rope::partial(sizes.head_dim, share), theta: None, traditional: false };
    let norm = head_norms(fields, true, eps)?;
    let rope = rope::read(fields, &rope)?;
    let linear = linear_attention(fields, [sizes.heads, sizes.head_dim], norm, eps, rope)?;
    let dim = |name| fields.limited_count(name, limits::HEAD_DIM);
    let dims = [dim("qk_nope_head_dim")?, dim("qk_rope_head_dim")?, dim("v_head_dim")?];
    let latent = Latent {
        query_rank: fields.count("q_lora_rank")?,
        bias: linear.qkv_bias,
        ..latent(fields, sizes.heads, fields.limited_count("kv_lora_rank", limits::HIDDEN)?, dims, eps)?
    };
    let mixer = |index: usize, attends: bool| match attends {
        true => Part::Latent(latent.clone()),
        false => Part::LinearAttention(LinearAttention {
            slope_scale: slope_scale(index, sizes.layers),
            ..linear.clone()
        }),
    };
    let defaults = bailing_moe::Defaults { scores: "sigmoid", corrected: true };
    let mut mixture = experts(fields, linear.output_bias, &defaults)?;
    // The width, where there is one, is that of all shared experts.
    if let Some(width) = fields.count("moe_shared_expert_intermediate_size")?
        && let Some(Experts { shared: Some(SharedExpert { network, .. }), .. }) = &mut mixture
    {
        network.intermediate_size = width;
    }
    let first = fields.index("first_k_dense_replace")?;
    decoder(fields, &sizes, eps, mixer, mixture, first, fields.required_count("layer_group_size")?)
}

/// The decoder whose layers have mixers by their number and by whether they are the last of a group, or beyond the last whole
/// one; and experts from the one with the number `first` on.
pub(super) fn decoder(
    fields: Fields<'_>,
    sizes: &Sizes,
    eps: f32,
    mixer: impl Fn(usize, bool) -> Part,
    mixture: Option<Experts>,
    first: usize,
    group: usize,
) -> Result<DecoderSpec> {
    let bias = fields.flag_or("use_bias", false)?;
    let dense = Dense { bias, ..Dense::gated(sizes.intermediate_size, Activation::Silu) };
    let layer = |index: usize| -> LayerSpec {
        let attends = (index + 1).is_multiple_of(group) || index >= sizes.layers / group * group;
        let network = match &mixture {
            Some(experts) if index >= first => Part::Experts(experts.clone()),
            _ => Part::Dense(dense.clone()),
        };
        pre_norm_layer(eps, mixer(index, attends), network)
    };
    let layers = (0..sizes.layers).map(layer).collect();
    let names = ModelNames { embedding: "model.word_embeddings".to_owned(), ..ModelNames::default() };
    let head = Head::new(head_weights(fields)?);
    Ok(DecoderSpec { names, ..sizes.decoder(layers, NormSpec::rms("model.norm", eps), head) })
}

/// Latent attention under this family's names.
pub(super) fn latent(
    fields: Fields<'_>,
    heads: usize,
    rank: usize,
    dims: [usize; 3],
    eps: f32,
) -> Result<Latent> {
    let traditional = fields.flag_or("rope_interleave", true)?;
    let rope = rope::read(fields, &RopeDefaults { dims: dims[1], theta: Some(6e6), traditional })?;
    let latent = Latent::new(heads, rank, dims, rope);
    Ok(Latent {
        path: "attention",
        output: "dense",
        norm_eps: eps,
        scale: latent.scale * deepseek::stretch(fields)?,
        ..latent
    })
}

fn linear_attention(
    fields: Fields<'_>,
    [heads, head_dim]: [usize; 2],
    norm: impl Fn(&'static str) -> Option<NormSpec>,
    eps: f32,
    rope: Arc<RopeSpec>,
) -> Result<LinearAttention> {
    Ok(LinearAttention {
        heads,
        head_dim,
        projections: "attention.query_key_value",
        qkv_bias: fields.flag_or("use_qkv_bias", false)?,
        query_norm: norm("attention.query_layernorm"),
        key_norm: norm("attention.key_layernorm"),
        rope: Some(rope),
        slope_scale: 1.0,
        gate: "attention.g_proj",
        norm: NormSpec::rms("attention.g_norm", eps),
        norm_groups: fields.limited_count("group_norm_size", limits::HEADS)?,
        output: "attention.dense",
        output_bias: fields.flag_or("use_bias", false)?,
    })
}

/// The norms of queries and keys, if there are some.
fn head_norms(
    fields: Fields<'_>,
    default: bool,
    eps: f32,
) -> Result<impl Fn(&'static str) -> Option<NormSpec> + Copy> {
    let present = fields.flag_or("use_qk_norm", default)?;
    Ok(move |path| present.then(|| NormSpec::rms(path, eps)))
}

/// The later a layer, the longer it remembers.
fn slope_scale(index: usize, layers: usize) -> f32 {
    (1.0 - index as f64 / layers.saturating_sub(1).max(1) as f64 + 1e-5) as f32
}
