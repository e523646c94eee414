//! Qwen 1.5 and 2 with experts: the attention of Qwen 2, and mixtures beside a gated network that every token goes through.

use super::qwen2;
use super::qwen3_moe::{experts, with_experts};
use super::qwen3_next::shared_expert;
use crate::parts::Experts;
use crate::spec::DecoderSpec;
use crate::{Config, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let experts = Experts { shared: Some(shared_expert(fields)?), ..experts(fields)? };
    with_experts(qwen2::spec(config)?, fields, &experts)
}
