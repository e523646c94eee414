//! Qwen 3 with experts: the attention of Qwen 3, and mixtures in all layers but those that the configuration excludes.

use pippin_tensor::{Activation, RouterSpec};

use super::common::{activation, expert_count, stack_experts};
use super::qwen3;
use crate::config::Fields;
use crate::parts::{Experts, Part};
use crate::published::Tensors;
use crate::spec::{DecoderSpec, LayerSpec};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    with_experts(qwen3::spec(config)?, fields, &experts(fields)?)
}

/// A decoder with mixtures in place of the feed-forward networks of the layers that have one.
pub(crate) fn with_experts(
    mut spec: DecoderSpec,
    fields: Fields<'_>,
    experts: &Experts,
) -> Result<DecoderSpec> {
    let mixtures = layers_of_experts(fields, spec.layers.len())?;
    for (layer, _) in spec.layers.iter_mut().zip(mixtures).filter(|(_, is_mixture)| *is_mixture) {
        let LayerSpec::Blocks(blocks) = layer else { continue };
        for branch in blocks.last_mut().into_iter().flat_map(|block| &mut block.branches) {
            branch.part = Part::Experts(experts.clone());
        }
    }
    Ok(spec)
}

/// A published checkpoint has experts one by one.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    stack_experts(tensors, "mlp.experts")
}

/// The mixture of each layer that has one.
pub(crate) fn experts(fields: Fields<'_>) -> Result<Experts> {
    let experts = expert_count(fields)?;
    let top_k = fields.limited_count("num_experts_per_tok", experts)?;
    let choice = RouterSpec {
        normalize: fields.flag_or("norm_topk_prob", false)?,
        ..RouterSpec::softmax(experts, top_k)
    };
    let width = fields.limited_count("moe_intermediate_size", limits::INTERMEDIATE)?;
    let gate = pippin_tensor::Gate::Of(activation(fields, "hidden_act", Activation::Silu)?);
    Ok(Experts { gate, ..Experts::new(choice, width) })
}

/// Which layers have a mixture of experts.
pub(crate) fn layers_of_experts(fields: Fields<'_>, layers: usize) -> Result<Vec<bool>> {
    let step = fields.count_or("decoder_sparse_step", 1, limits::LAYERS)?;
    let mut mixtures: Vec<bool> = (0..layers).map(|layer| (layer + 1) % step == 0).collect();
    for dense in fields.indices("mlp_only_layers")?.unwrap_or_default() {
        if let Some(mixture) = mixtures.get_mut(dense) {
            *mixture = false;
        }
    }
    Ok(mixtures)
}
