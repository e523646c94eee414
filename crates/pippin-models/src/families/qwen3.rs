//! Qwen 3, dense.
//!
//! Queries and keys are normalised head by head, and the head dimension is independent of the hidden size. There are no
//! biases unless `attention_bias` asks for them, which no published model does and mlx-lm ignores.

use super::standard::{Standard, Windows};
use crate::{Config, DecoderSpec, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let attention_bias = config.fields().flag("attention_bias")?.unwrap_or(false);
    Standard {
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        head_norms: true,
        default_head_dim: Some(128),
        default_rope_theta: None,
        default_context_length: 40_960,
        windows: Windows::Upper,
        ..Standard::default()
    }
    .spec(config.fields())
}
