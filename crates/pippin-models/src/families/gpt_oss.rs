//! gpt-oss: attention sinks, a window in every other layer, experts with biases and a clamped gate.

use pippin_tensor::{Gate, RouterSpec};

use super::common::{Sizes, window, windowed_layers};
use crate::parts::{Attention, Experts, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let default = Sizes {
        hidden_size: 2880,
        layers: 36,
        heads: 64,
        kv_heads: 8,
        head_dim: 64,
        intermediate_size: 2880,
        vocab_size: 201_088,
        context_length: 131_072,
    };
    let context_length = rope::context_length(fields, default.context_length)?;
    let sizes = Sizes { context_length, ..Sizes::read_or(fields, &default)? };
    let eps = fields.positive_or("rms_norm_eps", 1e-5)?;
    let length = fields.count_or("sliding_window", 128, limits::CONTEXT)?;
    let windows = windowed_layers(fields, sizes.layers, |layer| layer % 2 == 0)?;
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: Some(150_000.0), traditional: false };
    let attention = Attention {
        qkv_bias: true,
        output_bias: true,
        rope: Some(rope::read(fields, &defaults)?),
        sinks: Some("self_attn.sinks"),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let count = fields.count_or("num_local_experts", 128, limits::EXPERTS)?;
    let top_k = fields.count_or("num_experts_per_tok", 4, count)?;
    let experts = Experts {
        router: "mlp.router",
        router_bias: true,
        // A softmax over the chosen is one over all, divided by the sum of the chosen.
        choice: RouterSpec { normalize: true, ..RouterSpec::softmax(count, top_k.min(count)) },
        names: ["mlp.experts.gate_proj", "mlp.experts.up_proj", "mlp.experts.down_proj"],
        bias: true,
        gate: Gate::ClampedSwiglu {
            alpha: fields.positive_or("swiglu_alpha", 1.702)?,
            limit: fields.positive_or("swiglu_limit", 7.0)?,
        },
        ..Experts::new(RouterSpec::softmax(count, 1), sizes.intermediate_size)
    };
    let layer = |windowed: bool| {
        let attention = Attention { reach: window(windowed, length), ..attention.clone() };
        LayerSpec::Blocks(vec![
            Block::pre_norm(NormSpec::rms("input_layernorm", eps), Part::Attention(attention)),
            Block::pre_norm(NormSpec::rms("post_attention_layernorm", eps), Part::Experts(experts.clone())),
        ])
    };
    let layers = windows.into_iter().map(layer).collect();
    let head = Head::new(HeadWeights::Separate);
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), head))
}
