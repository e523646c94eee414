//! IQuest's LoopCoder: llama whose layers are run twice. The second time, a gate for each head weighs attention to what the
//! first pass has kept of all tokens against attention to the last tokens of its own.

use pippin_tensor::Reach;

use super::common::attentions;
use super::standard::Standard;
use crate::parts::SecondPass;
use crate::published::Tensors;
use crate::{Config, DecoderSpec, Result, limits};

const GATE: &str = "self_attn.loop_gate";

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let passes = fields.count_or("loop_num", 2, limits::LAYERS)?;
    if passes != 2 {
        return Err(fields.unsupported("loop_num", &passes.to_string(), &["2"]));
    }
    let window = fields.count_or("loop_window_size", 64, limits::CONTEXT)?;
    let standard = Standard {
        kv_heads_optional: false,
        default_rope_theta: Some(500_000.0),
        rope_traditional: false,
        default_context_length: 131_072,
        ..Standard::llama(fields)?
    };
    let mut spec = standard.spec(fields)?;
    let layers = spec.layers.len();
    spec.layers.extend_from_within(..);
    spec.passes = passes;
    for (layer, attention) in attentions(&mut spec) {
        attention.second_pass = Some(SecondPass { gate: GATE, first: layer.checked_sub(layers) });
        if layer >= layers {
            attention.reach = Reach::Window(window);
        }
    }
    Ok(spec)
}

/// Gates are published beside the layers.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.rename(|name| {
        let (layer, parameter) = name.strip_prefix("model.gate_projections.")?.split_once('.')?;
        Some(format!("model.layers.{layer}.{GATE}.{parameter}"))
    });
    Ok(())
}
