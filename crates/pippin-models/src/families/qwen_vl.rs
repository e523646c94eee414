//! Qwen's models that see, versions 2, 2.5 and 3: the text model, which is Qwen 2, Qwen 3 or Qwen 3 with experts under another
//! prefix. Positions have three axes (time, height, width), which text has all alike.

use super::common::{nest_text, nested, split_experts};
use super::{qwen2, qwen3, qwen3_moe};
use crate::published::Tensors;
use crate::spec::DecoderSpec;
use crate::{Config, Result, limits};

const NORM: &str = "language_model.model.norm";

/// Qwen 2 and 2.5.
pub(crate) fn qwen2_vl(config: &Config) -> Result<DecoderSpec> {
    nested(config, NORM, qwen2::spec)
}

/// Qwen 3, dense.
pub(crate) fn qwen3_vl(config: &Config) -> Result<DecoderSpec> {
    nested(config, NORM, qwen3::spec)
}

/// Qwen 3 with experts.
pub(crate) fn qwen3_vl_moe(config: &Config) -> Result<DecoderSpec> {
    nested(config, NORM, qwen3_moe::spec)
}

/// A published checkpoint has the text model either beside what sees, without a prefix, or under `model`.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    nest_text(tensors);
    tensors.replace_prefix("model.", "language_model.model.");
    Ok(())
}

/// Experts are published in two stacks of matrices that rows are multiplied with as they stand, gates beside what they are
/// applied to.
pub(crate) fn published_experts(config: &Config, tensors: &mut Tensors) -> Result<()> {
    published(config, tensors)?;
    tensors.transpose("mlp.experts.gate_up_proj")?;
    tensors.transpose("mlp.experts.down_proj")?;
    let text = config.part("text_config.")?;
    let fields = text.as_ref().unwrap_or(config).fields();
    let width = fields.limited_count("moe_intermediate_size", limits::INTERMEDIATE)?;
    split_experts(tensors, "mlp.experts", "mlp.switch_mlp", width)
}
