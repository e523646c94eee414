//! LFM2 with experts: mixtures after the first layers, chosen by sigmoid scores that may be corrected.

use pippin_tensor::{Activation, RouterSpec, ScoreFunction};

use super::common::{expert_count, stack_experts};
use super::lfm2;
use crate::parts::{Dense, Experts, Part};
use crate::published::Tensors;
use crate::spec::DecoderSpec;
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let width = fields.limited_count("intermediate_size", limits::INTERMEDIATE)?;
    let names = ["feed_forward.gate_proj", "feed_forward.up_proj", "feed_forward.down_proj"];
    let dense = Part::Dense(Dense::gated_as(names, width, Activation::Silu));
    let count = expert_count(fields)?;
    let choice = RouterSpec {
        scores: ScoreFunction::Sigmoid,
        normalize: fields.flag_or("norm_topk_prob", true)?,
        scale: fields.positive_or("routed_scaling_factor", 1.0)?,
        ..RouterSpec::softmax(count, fields.limited_count("num_experts_per_tok", count)?)
    };
    let expert_width = fields.limited_count("moe_intermediate_size", limits::INTERMEDIATE)?;
    let experts = Part::Experts(Experts {
        router: "feed_forward.gate",
        correction: fields.flag_or("use_expert_bias", true)?.then_some("feed_forward.expert_bias"),
        names: [
            "feed_forward.switch_mlp.gate_proj",
            "feed_forward.switch_mlp.up_proj",
            "feed_forward.switch_mlp.down_proj",
        ],
        ..Experts::new(choice, expert_width)
    });
    let first = fields.index_or("num_dense_layers", 2)?;
    lfm2::decoder(fields, width, |index| if index < first { &dense } else { &experts }.clone())
}

/// A published checkpoint has experts one by one, and names for matrices that say nothing.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    for (published, name) in [("w1", "gate_proj"), ("w3", "up_proj"), ("w2", "down_proj")] {
        tensors.rename(|found| {
            let (at, parameter) = found.rsplit_once(&format!(".{published}."))?;
            at.contains(".feed_forward").then(|| format!("{at}.{name}.{parameter}"))
        });
    }
    stack_experts(tensors, "feed_forward.experts")
}
