//! Baichuan M1: llama whose keys and values are blended with those of the token before, with a window, and other numbers of
//! heads, in some layers.

use pippin_tensor::Activation;

use super::common::{Sizes, head_weights, pre_norm_layer, window};
use crate::parts::{Attention, Dense, NormSpec, Part, Projections};
use crate::published::Tensors;
use crate::rope;
use crate::spec::{DecoderSpec, Head, HeadWeights, check};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 32_768)?;
    let Sizes { hidden_size, heads, kv_heads, .. } = sizes;
    let of_windows = [
        fields.count_or("num_swa_attention_heads", heads, limits::HEADS)?,
        fields.count_or("num_swa_key_value_heads", kv_heads, limits::HEADS)?,
    ];
    let taps = fields.required_count("conv_window")?;
    if taps != 2 {
        return Err(fields.unsupported("conv_window", &taps.to_string(), &["2"]));
    }
    if head_weights(fields)? == HeadWeights::Tied {
        return Err(fields.unsupported("tie_word_embeddings", "true", &["false"]));
    }
    let windowed = fields.indices("sliding_window_layers")?;
    let windowed = windowed.ok_or_else(|| fields.missing("sliding_window_layers", "a list of integers"))?;
    let length = fields.limited_count("sliding_window", limits::CONTEXT)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let theta = fields.required_positive("rope_theta")?;
    let attention = |windowed: bool| -> Result<Attention> {
        let [heads, kv_heads] = if windowed { of_windows } else { [heads, kv_heads] };
        check::multiple("num_attention_heads", heads, hidden_size, "columns")?;
        let head_dim = hidden_size / heads;
        check::within("head_dim", head_dim, limits::HEAD_DIM)?;
        Ok(Attention {
            projections: Projections::Fused("self_attn.W_pack"),
            blends: Some(["self_attn.conv_k", "self_attn.conv_v"]),
            rope: Some(rope::plain(theta, head_dim, false)),
            reach: window(windowed, length),
            ..Attention::new(heads, kv_heads, head_dim)
        })
    };
    let all = [attention(false)?, attention(true)?].map(|attention| {
        let network = Dense::gated(sizes.intermediate_size, Activation::Silu);
        pre_norm_layer(eps, Part::Attention(attention), Part::Dense(network))
    });
    let layers = (0..sizes.layers).map(|layer| all[usize::from(windowed.contains(&layer))].clone()).collect();
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(HeadWeights::Separate)))
}

/// The rows of a dense head are given length one.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.normalize_rows("lm_head.weight", 1e-7)
}
