//! EXAONE with experts: norms of heads, windows with rotations in most layers and neither in the others, and mixtures in
//! some, with the choice of DeepSeek V3.

use pippin_tensor::{Activation, RouterSpec};

use super::common::{
    Sizes, corrected_choice, head_weights, pre_norm_layer, stack_experts, window, windowed_layers,
};
use crate::config::Fields;
use crate::parts::{Attention, Dense, Experts, NormSpec, Part, SharedExpert};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 131_072)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let length = fields.count("sliding_window")?;
    let windows = windowed_layers(fields, sizes.layers, |_| false)?;
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: Some(1_000_000.0), traditional: false };
    let rope = rope::read(fields, &defaults)?;
    let mixed = windows.contains(&true);
    if mixed && length.is_none() {
        return Err(fields.missing("sliding_window", "a positive integer, because layers are windowed"));
    }
    let attention = |windowed: bool| Attention {
        query_norm: Some(NormSpec::rms("self_attn.q_norm", eps)),
        key_norm: Some(NormSpec::rms("self_attn.k_norm", eps)),
        // Where no layer has a window, all are rotated.
        rope: (windowed || !mixed).then(|| rope.clone()),
        reach: window(windowed, length.unwrap_or(1)),
        ..sizes.attention()
    };
    let dense = Part::Dense(Dense::gated(sizes.intermediate_size, Activation::Silu));
    let experts = Part::Experts(experts(fields)?);
    let layer = |(windowed, is_mixture): (bool, bool)| {
        let network = if is_mixture { &experts } else { &dense };
        pre_norm_layer(eps, Part::Attention(attention(windowed)), network.clone())
    };
    let layers = windows.into_iter().zip(mixtures(fields, sizes.layers)?).map(layer).collect();
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(head_weights(fields)?)))
}

/// Which layers have a mixture: a list of flags in older configurations, of words in newer ones, or a number of the first
/// layers that have none.
fn mixtures(fields: Fields<'_>, layers: usize) -> Result<Vec<bool>> {
    if let Some(mixtures) = fields.flags("is_moe_layer", layers)? {
        return Ok(mixtures);
    }
    if let Some(types) = fields.words("mlp_layer_types", layers, ["sparse", "dense"])? {
        return Ok(types);
    }
    let first = fields.index_or("first_k_dense_replace", 1)?;
    Ok((0..layers).map(|layer| layer >= first).collect())
}

fn experts(fields: Fields<'_>) -> Result<Experts> {
    let count = fields.limited_count("num_experts", limits::EXPERTS)?;
    let width = fields.limited_count("moe_intermediate_size", limits::INTERMEDIATE)?;
    let choice = corrected_choice(fields, count, fields.limited_count("num_experts_per_tok", count)?)?;
    let choice = RouterSpec { scale: fields.positive_or("routed_scaling_factor", 2.5)?, ..choice };
    let shared = fields.index_or("num_shared_experts", 0)?;
    Ok(Experts {
        router_dense: true,
        correction: Some("mlp.gate.e_score_correction_bias"),
        shared: (shared > 0).then(|| SharedExpert::usual(width.saturating_mul(shared))),
        ..Experts::new(choice, width)
    })
}

/// A published checkpoint has experts one by one, and the correction of scores beside the router.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.replace("mlp.e_score_correction_bias", "mlp.gate.e_score_correction_bias");
    stack_experts(tensors, "mlp.experts")
}
