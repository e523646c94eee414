//! gpt-oss: attention sinks, a window in every other layer, experts with biases and a clamped gate.

use pippin_tensor::{Gate, RouterSpec};

use super::common::{Sizes, pre_norm_layer, window, windowed_layers};
use crate::parts::{Attention, Experts, NormSpec, Part};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head, HeadWeights};
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
        ..sizes.attention()
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
        pre_norm_layer(eps, Part::Attention(attention), Part::Experts(experts.clone()))
    };
    let layers = windows.into_iter().map(layer).collect();
    let head = Head::new(HeadWeights::Separate);
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), head))
}

/// A published checkpoint has gates and what they are applied to in one stack whose rows take turns: in blocks of `mxfp4`, or dense
/// and the other way round.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.words("_proj_blocks", "_proj.weight")?;
    for parameter in ["scales", "bias"] {
        tensors.rename(|name| {
            let module = name.strip_suffix(&format!("_proj_{parameter}"))?;
            Some(format!("{module}_proj.{parameter}"))
        });
    }
    tensors
        .split_columns("experts.gate_up_proj", &[("experts.gate_proj", 0, 2), ("experts.up_proj", 1, 2)])?;
    tensors.split_columns("experts.down_proj", &[("experts.down_proj", 0, 1)])?;
    tensors.split_turns("experts.gate_up_proj", ["experts.gate_proj", "experts.up_proj"])
}
