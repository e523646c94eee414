//! The families: one file each, from `config.json` to a [`DecoderSpec`].

mod llama;
mod mistral;
mod qwen2;
mod qwen3;
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
    Family { name: "llama", model_types: &["llama"], read: llama::spec },
    Family { name: "mistral", model_types: &["mistral"], read: mistral::spec },
    Family { name: "qwen2", model_types: &["qwen2"], read: qwen2::spec },
    Family { name: "qwen3", model_types: &["qwen3"], read: qwen3::spec },
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
