//! Qwen 1.5 and 2 with experts: the attention of Qwen 2, and mixtures beside a gated network that every token goes through.

use super::qwen2;
use super::qwen3_moe::{experts, with_experts};
use super::qwen3_next::mixture;
use crate::spec::DecoderSpec;
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let width = fields.limited_count("shared_expert_intermediate_size", limits::INTERMEDIATE)?;
    let experts = mixture(fields, experts(fields)?, width)?;
    with_experts(qwen2::spec(config)?, fields, &experts)
}
