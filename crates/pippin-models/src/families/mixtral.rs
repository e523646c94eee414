//! Mixtral: llama with a mixture of experts in every layer, whose weights are a softmax over the chosen.
//!
//! As in Mistral, every layer has the window that `sliding_window` says, which mlx-lm ignores; published models have none.

use pippin_tensor::{Activation, Gate, Reach, RouterSpec};

use super::common::{Sizes, activation, expert_count, head_weights, pre_norm_layer, stack_experts_as};
use crate::config::Fields;
use crate::parts::{Attention, Experts, NormSpec, Part};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 32_768)?;
    let eps = fields.positive_or("rms_norm_eps", 1e-5)?;
    let defaults = RopeDefaults {
        dims: sizes.head_dim,
        theta: Some(1_000_000.0),
        traditional: fields.flag_or("rope_traditional", false)?,
    };
    let attention = Attention {
        rope: Some(rope::read(fields, &defaults)?),
        reach: fields.count("sliding_window")?.map_or(Reach::All, Reach::Window),
        ..sizes.attention()
    };
    let count = expert_count(fields)?;
    let choice = chosen_softmax(fields, count)?;
    let experts = Experts {
        gate: Gate::Of(activation(fields, "hidden_act", Activation::Silu)?),
        ..block_sparse(choice, sizes.intermediate_size)
    };
    let layer = pre_norm_layer(eps, Part::Attention(attention), Part::Experts(experts));
    let head = Head::new(head_weights(fields)?);
    Ok(sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("model.norm", eps), head))
}

/// A softmax over the chosen, which is one over all, divided by the sum of the chosen.
pub(crate) fn chosen_softmax(fields: Fields<'_>, experts: usize) -> Result<RouterSpec> {
    let top_k = fields.count_or("num_experts_per_tok", 2, limits::EXPERTS)?;
    Ok(RouterSpec { normalize: true, ..RouterSpec::softmax(experts, top_k) })
}

/// Experts under the names of Mixtral, which some families have taken over.
pub(crate) fn block_sparse(choice: RouterSpec, intermediate_size: usize) -> Experts {
    Experts {
        router: "block_sparse_moe.gate",
        names: [
            "block_sparse_moe.switch_mlp.gate_proj",
            "block_sparse_moe.switch_mlp.up_proj",
            "block_sparse_moe.switch_mlp.down_proj",
        ],
        ..Experts::new(choice, intermediate_size)
    }
}

/// A published checkpoint has experts one by one, and names for their matrices that say nothing.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    stack_experts_as(tensors, "block_sparse_moe.experts", ["w1", "w3", "w2"], "block_sparse_moe.switch_mlp")
}
