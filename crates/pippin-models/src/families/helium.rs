//! Kyutai's Helium: llama whose adjacent dimensions rotate, without a bias after attention.

use super::standard::Standard;
use crate::{Config, DecoderSpec, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    Standard {
        output_bias: false,
        rope_traditional: true,
        default_rope_theta: None,
        default_context_length: 4096,
        ..Standard::llama(config.fields())?
    }
    .spec(config.fields())
}
