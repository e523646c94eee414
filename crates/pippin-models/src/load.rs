use std::path::Path;
use std::sync::Arc;

use pippin_tensor::Backend;
use pippin_weights::{Checkpoint, QuantizationConfig};

use crate::config::FILE;
use crate::weights::HostWeights;
use crate::{Config, Decoder, DecoderSpec, LanguageModel, ModelInfo, ModelTypeRegistry, Result};

/// Loads a model from its folder.
///
/// # Errors
///
/// A file is missing or malformed, the `model_type` is unknown, the checkpoint does not fit the configuration, or the
/// device has no memory.
pub fn load<B: Backend>(folder: &Path, backend: Arc<B>) -> Result<Box<dyn LanguageModel>> {
    let config = Config::read(folder)?;
    // Before the weights: whoever has the wrong model should learn that, not that a shard is missing.
    ModelTypeRegistry::find(&config)?.spec(&config)?;
    load_from(&config, &Checkpoint::open(folder)?, backend)
}

/// Loads a model whose configuration and checkpoint are already at hand.
///
/// # Errors
///
/// As for [`load`].
pub fn load_from<B: Backend>(
    config: &Config,
    checkpoint: &Checkpoint,
    backend: Arc<B>,
) -> Result<Box<dyn LanguageModel>> {
    Ok(Box::new(Decoder::load(config, checkpoint, backend)?))
}

impl<B: Backend> Decoder<B> {
    /// Loads a model without hiding its backend behind [`LanguageModel`], as [`load_from`] does.
    ///
    /// # Errors
    ///
    /// As for [`load`].
    pub fn load(config: &Config, checkpoint: &Checkpoint, backend: Arc<B>) -> Result<Self> {
        let Description { spec, weights, info } = Description::read(config, checkpoint)?;
        Ok(Self::new(spec, weights.upload(&*backend)?, info, backend))
    }
}

/// Says what the model in a folder is, without a device and without reading its weights.
///
/// # Errors
///
/// As for [`load`], memory aside: a model that can be described can be loaded.
pub fn describe(folder: &Path) -> Result<ModelInfo> {
    let config = Config::read(folder)?;
    ModelTypeRegistry::find(&config)?.spec(&config)?;
    describe_from(&config, &Checkpoint::open(folder)?)
}

/// Says what a model is whose configuration and checkpoint are already at hand.
///
/// # Errors
///
/// As for [`describe`].
pub fn describe_from(config: &Config, checkpoint: &Checkpoint) -> Result<ModelInfo> {
    Ok(Description::read(config, checkpoint)?.info)
}

/// A model as its files describe it.
struct Description {
    spec: DecoderSpec,
    weights: HostWeights,
    info: ModelInfo,
}

impl Description {
    fn read(config: &Config, checkpoint: &Checkpoint) -> Result<Self> {
        let family = ModelTypeRegistry::find(config)?;
        let spec = family.spec(config)?;
        let quantization = QuantizationConfig::from_config(config.value(), FILE)?;
        let (weights, totals) = HostWeights::read(&spec, checkpoint, &quantization)?;
        let info = ModelInfo::new(config.model_type()?, family.name, &spec, &weights, &totals);
        Ok(Self { spec, weights, info })
    }
}
