//! JetBrains' Mellum 2: Qwen 3 with experts in every layer, and windows and rotations by the type of layer.

use pippin_tensor::{Activation, Gate};

use super::common::{Sizes, activation, head_weights, window, windowed_layers};
use super::qwen3_moe::experts;
use crate::config::Fields;
use crate::parts::{Attention, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, LayerSpec};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 131_072)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let length = fields.count_or("sliding_window", 1024, limits::CONTEXT)?;
    let windows = windowed_layers(fields, sizes.layers, |_| false)?;
    let [global, local] = ["full_attention", "sliding_attention"].map(|kind| rotation(fields, kind, &sizes));
    let (global, local) = (global?, local?);
    let mut experts = experts(fields)?;
    experts.gate = Gate::Of(activation(fields, "hidden_act", Activation::Silu)?);
    let layer = |windowed: bool| {
        let attention = Attention {
            query_norm: Some(NormSpec::rms("self_attn.q_norm", eps)),
            key_norm: Some(NormSpec::rms("self_attn.k_norm", eps)),
            rope: Some(if windowed { local.clone() } else { global.clone() }),
            reach: window(windowed, length),
            ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
        };
        LayerSpec::Blocks(vec![
            Block::pre_norm(NormSpec::rms("input_layernorm", eps), Part::Attention(attention)),
            Block::pre_norm(NormSpec::rms("post_attention_layernorm", eps), Part::Experts(experts.clone())),
        ])
    };
    let layers = windows.into_iter().map(layer).collect();
    let head = Head::new(head_weights(fields)?);
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), head))
}

/// The rotary positions of a type of layers, or those of all.
fn rotation(
    fields: Fields<'_>,
    kind: &str,
    sizes: &Sizes,
) -> Result<std::sync::Arc<pippin_tensor::RopeSpec>> {
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: None, traditional: false };
    match rope::of_layers(fields, kind)? {
        Some(own) => rope::read_of_layers(fields, own, &defaults),
        None => rope::read(fields, &defaults),
    }
}
