//! The families: one file each, from `config.json` to a [`DecoderSpec`].

mod cohere2;
mod common;
mod deepseek_v3;
mod gemma;
mod gemma3n;
mod gpt_neox;
mod gpt_oss;
mod lfm2;
mod llama;
mod llama4;
mod mamba2;
mod mistral;
mod olmo2;
mod phi;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod qwen3_next;
mod recurrent_gemma;
mod rwkv7;
mod standard;

use crate::{Config, DecoderSpec, Result};

/// A family of models: the values of `model_type` it answers to, and how it reads their configuration.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The family's name.
    pub name: &'static str,
    /// The values of `model_type` that belong to it.
    pub model_types: &'static [&'static str],
    read: fn(&Config) -> Result<DecoderSpec>,
}

impl Family {
    /// Turns a configuration into a description of the model.
    ///
    /// # Errors
    ///
    /// A field is missing or holds an impossible value.
    pub fn spec(&self, config: &Config) -> Result<DecoderSpec> {
        let spec = (self.read)(config)?;
        spec.validate()?;
        Ok(spec)
    }
}

/// Every family this version knows, in alphabetical order.
const FAMILIES: &[Family] = &[
    Family { name: "cohere2", model_types: &["cohere2"], read: cohere2::spec },
    Family { name: "deepseek_v3", model_types: &["deepseek_v3", "kimi_k2"], read: deepseek_v3::spec },
    Family { name: "gemma2", model_types: &["gemma2"], read: gemma::gemma2 },
    Family { name: "gemma3", model_types: &["gemma3", "gemma3_text"], read: gemma::gemma3 },
    Family { name: "gemma3n", model_types: &["gemma3n"], read: gemma3n::spec },
    Family { name: "gpt_neox", model_types: &["gpt_neox"], read: gpt_neox::spec },
    Family { name: "gpt_oss", model_types: &["gpt_oss"], read: gpt_oss::spec },
    Family { name: "lfm2", model_types: &["lfm2"], read: lfm2::spec },
    // mlx-lm takes the other two for llama, too.
    Family { name: "llama", model_types: &["llama", "iquestcoder", "xverse"], read: llama::spec },
    Family { name: "llama4", model_types: &["llama4"], read: llama4::spec },
    Family { name: "mamba2", model_types: &["mamba2"], read: mamba2::spec },
    Family { name: "mistral", model_types: &["mistral"], read: mistral::spec },
    Family { name: "olmo2", model_types: &["olmo2"], read: olmo2::spec },
    Family { name: "phi", model_types: &["phi"], read: phi::spec },
    Family { name: "phi3", model_types: &["phi3"], read: phi3::spec },
    Family { name: "qwen2", model_types: &["qwen2"], read: qwen2::spec },
    Family { name: "qwen3", model_types: &["qwen3"], read: qwen3::spec },
    Family { name: "qwen3_moe", model_types: &["qwen3_moe"], read: qwen3_moe::spec },
    Family { name: "qwen3_next", model_types: &["qwen3_next"], read: qwen3_next::spec },
    Family { name: "recurrent_gemma", model_types: &["recurrent_gemma"], read: recurrent_gemma::spec },
    Family { name: "rwkv7", model_types: &["rwkv7"], read: rwkv7::spec },
];

/// Which family runs which `model_type`.
#[derive(Clone, Copy, Debug)]
pub struct ModelTypeRegistry;

impl ModelTypeRegistry {
    /// Every family.
    pub fn families() -> &'static [Family] {
        FAMILIES
    }

    /// Every supported `model_type`.
    pub fn model_types() -> impl Iterator<Item = &'static str> {
        FAMILIES.iter().flat_map(|family| family.model_types.iter().copied())
    }

    /// The family of a `model_type`.
    pub fn get(model_type: &str) -> Option<&'static Family> {
        FAMILIES.iter().find(|family| family.model_types.contains(&model_type))
    }

    /// The family of a configuration.
    ///
    /// # Errors
    ///
    /// `model_type` is missing, or none that this version knows; the message lists those it does.
    pub fn find(config: &Config) -> Result<&'static Family> {
        let model_type = config.model_type()?;
        Self::get(model_type).ok_or_else(|| {
            config.fields().unsupported("model_type", model_type, &Self::model_types().collect::<Vec<_>>())
        })
    }
}
