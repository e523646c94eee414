//! Qwen 1.5, 2 and 2.5, and what was made from them (DeepSeek's distillations, QwQ).
//!
//! Queries, keys and values have biases. `use_sliding_window` gives the layers from `max_window_layers` on a sliding
//! window; published models have it switched off, and mlx-lm ignores it.

use super::standard::{Standard, Windows};
use crate::{Config, DecoderSpec, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    Standard {
        qkv_bias: true,
        default_rope_theta: Some(1_000_000.0),
        rope_traditional: config.fields().flag("rope_traditional")?.unwrap_or(false),
        default_context_length: 32_768,
        windows: Windows::Upper,
        ..Standard::default()
    }
    .spec(config.fields())
}
