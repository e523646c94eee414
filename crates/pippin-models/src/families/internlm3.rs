//! InternLM 3: llama with biases of attention and of feed-forward network by fields of their own.

use super::standard::Standard;
use crate::{Config, DecoderSpec, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let attention_bias = fields.flag_or("qkv_bias", false)?;
    Standard {
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: fields.flag_or("bias", false)?,
        kv_heads_optional: true,
        rope_traditional: fields.flag_or("rope_traditional", false)?,
        default_context_length: 32_768,
        ..Standard::default()
    }
    .spec(config.fields())
}
