//! Llama, and the many models that kept its architecture: CodeLlama, TinyLlama, SmolLM, DeepSeek's distillations.
//!
//! Biases are optional, every kind of rope scaling occurs, and `layer_types` may give single layers a sliding window.

use super::standard::{Standard, Windows};
use crate::{Config, DecoderSpec, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let attention_bias = fields.flag("attention_bias")?.unwrap_or(false);
    Standard {
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: fields.flag("mlp_bias")?.unwrap_or(false),
        kv_heads_optional: true,
        rope_traditional: fields.flag("rope_traditional")?.unwrap_or(false),
        windows: Windows::None,
        ..Standard::default()
    }
    .spec(config)
}
