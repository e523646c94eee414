//! Mistral 7B and its successors of the same architecture (Nemo, Ministral 8B, Mistral Small 2501).
//!
//! Llama with a sliding window: where `sliding_window` is not null, every layer has it, unless `layer_types` says which.
//! That is what the models were trained with. mlx-lm ignores the window when there are no `layer_types`; the two agree
//! for sequences within it.

use super::standard::{Standard, Windows};
use crate::config::Fields;
use crate::{Config, DecoderSpec, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    standard(config.fields())?.spec(config.fields())
}

/// What a configuration says, or that of the text model in it.
pub(crate) fn standard(fields: Fields<'_>) -> Result<Standard> {
    Ok(Standard { default_context_length: 131_072, windows: Windows::All, ..Standard::llama(fields)? })
}
