//! Cohere's Command R7B and A: attention and feed-forward network side by side behind one layer norm; windowed layers with
//! rotated adjacent pairs, and full ones without positions.

use pippin_tensor::Activation;

use super::common::{Sizes, activation, window, windowed_layers};
use crate::parts::{Attention, Dense, NormSpec, Part};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec};
use crate::{Config, Result, limits, rope};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let default = Sizes {
        hidden_size: 4096,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        intermediate_size: 14_336,
        vocab_size: 256_000,
        context_length: 8192,
    };
    let sizes = Sizes::read_or(fields, &default)?;
    let eps = fields.positive_or("layer_norm_eps", 1e-5)?;
    let norm_bias = fields.flag_or("layer_norm_bias", false)?;
    let attention_bias = fields.flag_or("attention_bias", false)?;
    let length = fields.count_or("sliding_window", 4096, limits::CONTEXT)?;
    let pattern = fields.count_or("sliding_window_pattern", 4, limits::LAYERS)?;
    let windows = windowed_layers(fields, sizes.layers, |layer| layer % pattern != pattern - 1)?;
    let theta = rope::setting(fields, "rope_theta")?.unwrap_or(50_000.0);
    let rope = rope::plain(theta, sizes.head_dim, true);
    let network = Dense::gated(sizes.intermediate_size, activation(fields, "hidden_act", Activation::Silu)?);
    let layer = |windowed: bool| {
        let attention = Attention {
            qkv_bias: attention_bias,
            output_bias: attention_bias,
            rope: windowed.then(|| rope.clone()),
            reach: window(windowed, length),
            ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
        };
        let norm = NormSpec::layer("input_layernorm", eps, norm_bias);
        let parts = [Part::Attention(attention), Part::Dense(network.clone())];
        LayerSpec::Blocks(vec![Block::parallel(norm, parts)])
    };
    let head = Head { scale: fields.positive_or("logit_scale", 0.0625)?, ..Head::new(HeadWeights::Tied) };
    let norm = NormSpec::layer("model.norm", eps, norm_bias);
    Ok(sizes.decoder(windows.into_iter().map(layer).collect(), norm, head))
}
