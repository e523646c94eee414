//! Apple's foundation model for devices: norms of heads behind their rotation, keys and values that are rounded as eight
//! bits would be, and upper layers that read those of the last layer below them.

use pippin_tensor::Activation;

use super::common::{Sizes, pre_norm_layer};
use crate::config::Fields;
use crate::parts::{Attention, Dense, NormSpec, Part, Projections};
use crate::published::Tensors;
use crate::rope;
use crate::spec::{DecoderSpec, Head, HeadWeights, ModelNames, check};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let hidden_size = fields.limited_count("hidden_dim", limits::HIDDEN)?;
    let heads = fields.limited_count("num_heads", limits::HEADS)?;
    check::multiple("num_heads", heads, hidden_size, "columns")?;
    let factor = fields.positive("hidden_dim_scale_factor")?.unwrap_or(3.25);
    let [layers, own] = layers(fields)?;
    let sizes = Sizes {
        hidden_size,
        layers,
        heads,
        kv_heads: fields.limited_count("num_kv_heads", limits::HEADS)?,
        head_dim: hidden_size / heads,
        intermediate_size: (hidden_size as f64 * factor) as usize,
        vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
        // Configurations do not say; it is what the model was made for.
        context_length: rope::context_length(fields, 4096)?,
    };
    let eps = fields.positive_or("rms_norm_eps", 1e-5)?;
    // In the heads it is not what the configuration says.
    let head_norm = |path| Some(NormSpec::rms(path, 1e-5));
    let theta = fields.positive("rope_theta")?.unwrap_or(50_000.0);
    check::within("head_dim", sizes.head_dim, limits::HEAD_DIM)?;
    let attention = Attention {
        projections: Projections::Fused("self_attn.qkv_proj"),
        output: "self_attn.out_proj",
        query_norm: head_norm("self_attn.q_norm"),
        key_norm: head_norm("self_attn.k_norm"),
        norms_follow_rope: true,
        steps: Some(["self_attn.quant_key_scale", "self_attn.quant_value_scale"]),
        rope: Some(rope::plain(theta, sizes.head_dim, true)),
        ..sizes.attention()
    };
    let sharing = Attention {
        projections: Projections::Separate(["self_attn.q_proj", "", ""]),
        shares: Some(own - 1),
        ..attention.clone()
    };
    let layer = |layer: usize| {
        let attention = if layer < own { &attention } else { &sharing };
        let network = Dense::gated(sizes.intermediate_size, Activation::Silu);
        pre_norm_layer(eps, Part::Attention(attention.clone()), Part::Dense(network))
    };
    let names = ModelNames { embedding: "model.embedding".to_owned(), ..ModelNames::default() };
    let (layers, norm) = ((0..layers).map(layer).collect(), NormSpec::rms("model.output_norm", eps));
    Ok(DecoderSpec { names, ..sizes.decoder(layers, norm, Head::new(HeadWeights::Tied)) })
}

/// The number of layers, and of those that have keys and values of their own.
fn layers(fields: Fields<'_>) -> Result<[usize; 2]> {
    let layers = fields.limited_count("num_layers", limits::LAYERS)?;
    let sharing = fields.index("num_kv_reuse_layers")?;
    match layers.checked_sub(sharing) {
        Some(own) if own > 0 => Ok([layers, own]),
        _ => Err(fields.error(
            "num_kv_reuse_layers",
            format_args!("is {sharing} of {layers} layers, of which one must be left"),
        )),
    }
}

/// Layers that read another's keys and values are in a list of their own.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    let [_, own] = layers(config.fields())?;
    tensors.rename(|name| {
        let (number, rest) = name.strip_prefix("model.kv_reuse_layers.")?.split_once('.')?;
        let layer = number.parse::<usize>().ok()?.checked_add(own)?;
        Some(format!("model.layers.{layer}.{rest}"))
    });
    Ok(())
}
