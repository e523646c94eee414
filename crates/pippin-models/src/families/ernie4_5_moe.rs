//! ERNIE 4.5 with experts: llama with rotated adjacent pairs, and mixtures in some layers.
//!
//! Converted checkpoints lack the correction of scores that the models were trained with; as in mlx-lm, which drops it,
//! experts are chosen without; GGUF files have it, and then it counts.

use pippin_tensor::{Activation, RouterSpec, ScoreFunction};

use super::common::{Sizes, head_weights, pre_norm_layer};
use crate::config::Fields;
use crate::parts::{Attention, Dense, Experts, NormSpec, Part, SharedExpert};
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 131_072)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let bias = fields.flag_or("use_bias", false)?;
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: Some(500_000.0), traditional: true };
    let attention = Part::Attention(Attention {
        qkv_bias: bias,
        output_bias: bias,
        rope: Some(rope::read(fields, &defaults)?),
        ..sizes.attention()
    });
    let dense = Dense { bias, ..Dense::gated(sizes.intermediate_size, Activation::Silu) };
    let experts = experts(fields, sizes.intermediate_size, bias)?;
    let first = bound(fields, "moe_layer_start_index", 0, usize::min)?;
    let last = bound(fields, "moe_layer_end_index", sizes.layers - 1, usize::max)?;
    let interval = fields.count_or("moe_layer_interval", 1, limits::LAYERS)?;
    let layer = |index: usize| {
        let network = match (index + 1).is_multiple_of(interval) && (first..=last).contains(&index) {
            true => Part::Experts(experts.clone()),
            false => Part::Dense(dense.clone()),
        };
        pre_norm_layer(eps, attention.clone(), network)
    };
    let layers = (0..sizes.layers).map(layer).collect();
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(head_weights(fields)?)))
}

/// A layer's number, or that among several, one for text and one for images, which reaches furthest.
fn bound(
    fields: Fields<'_>,
    name: &str,
    default: usize,
    further: fn(usize, usize) -> usize,
) -> Result<usize> {
    match fields.get(name) {
        None => Ok(default),
        Some(value) if value.is_array() => {
            let found = fields.indices(name)?.unwrap_or_default();
            Ok(found.into_iter().reduce(further).unwrap_or(default))
        }
        // Minus one is the last.
        Some(value) if value.as_i64() == Some(-1) => Ok(default),
        Some(_) => fields.index(name),
    }
}

fn experts(fields: Fields<'_>, intermediate_size: usize, bias: bool) -> Result<Experts> {
    let count = fields.limited_count("moe_num_experts", limits::EXPERTS)?;
    let scores = match fields.text("moe_gate_act")?.unwrap_or("softmax") {
        "softmax" => ScoreFunction::Softmax,
        "sigmoid" => ScoreFunction::Sigmoid,
        other => return Err(fields.unsupported("moe_gate_act", other, &["softmax", "sigmoid"])),
    };
    let top_k = fields.count_or("moe_k", 1, count)?;
    let choice = RouterSpec { scores, normalize: true, ..RouterSpec::softmax(count, top_k) };
    // Zero is the width of the dense networks.
    let width = match fields.index_or("moe_intermediate_size", 0)? {
        0 => intermediate_size,
        width => width,
    };
    let shared = fields.index_or("moe_num_shared_experts", 0)?;
    let shared = (shared > 0).then(|| {
        let shared = SharedExpert::usual(width.saturating_mul(shared));
        SharedExpert { network: Dense { bias, ..shared.network }, ..shared }
    });
    let correction = fields.flag_or("moe_correction", false)?.then_some("mlp.gate.e_score_correction_bias");
    Ok(Experts { bias, correction, shared, ..Experts::new(choice, width) })
}
