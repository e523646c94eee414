//! Llama, and the many models that kept its architecture: CodeLlama, TinyLlama, SmolLM, DeepSeek's distillations.
//!
//! Biases are optional, every kind of rope scaling occurs, and `layer_types` may give single layers a sliding window.

use super::standard::Standard;
use crate::{Config, DecoderSpec, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    Standard::llama(config.fields())?.spec(config.fields())
}
