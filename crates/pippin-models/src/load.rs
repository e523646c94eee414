use std::path::Path;
use std::sync::Arc;

use pippin_tensor::Backend;
use pippin_weights::gguf::Gguf;
use pippin_weights::{Checkpoint, QuantizationConfig};

use crate::config::FILE;
use crate::gguf::{gguf_config, gguf_model, is_gguf};
use crate::source::{Describe, Reader, Sink, Totals, Upload};
use crate::weights::Weights;
use crate::{Config, Decoder, DecoderSpec, LanguageModel, ModelError, ModelInfo, ModelTypeRegistry, Result};

/// Loads a model from its folder, or from its GGUF file.
///
/// # Errors
///
/// A file is missing or malformed, the `model_type` is unknown, the checkpoint does not fit the configuration, or the
/// device has no memory.
pub fn load<B: Backend>(folder: &Path, backend: Arc<B>) -> Result<Box<dyn LanguageModel>> {
    if is_gguf(folder) {
        let (config, checkpoint) = gguf_of(folder)?;
        return load_from(&config, &checkpoint, backend);
    }
    let config = config_of(folder)?;
    // Before the weights: whoever has the wrong model should learn that, not that a shard is missing.
    ModelTypeRegistry::find(&config)?.spec(&config)?;
    load_from(&config, &Checkpoint::open(folder)?, backend)
}

/// The configuration of a model's folder, if it is one of a model.
fn config_of(folder: &Path) -> Result<Config> {
    let config = Config::read(folder)?;
    if config.fields().get("model_type").is_some() {
        return Ok(config);
    }
    let has = |name: &str| folder.join(name).exists();
    let looks_like = if has("adapter_config.json") || config.fields().get("lora_parameters").is_some() {
        Some("an adapter, which is only the difference to a model")
    } else if has("model_index.json") || config.fields().get("_class_name").is_some() {
        Some("a part of an image generator")
    } else if !std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.path().extension().is_some_and(|extension| extension == "safetensors"))
    {
        Some("a tokenizer or a configuration without weights")
    } else {
        None
    };
    Err(ModelError::NoModelType { path: folder.join(FILE), looks_like })
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
        // Everything that can be wrong is found before the first weight is moved.
        let checkpoint = &prepared(config, checkpoint)?;
        let info = describe_prepared(config, checkpoint)?;
        let (spec, weights, _) = read(config, checkpoint, Upload(&*backend))?;
        Ok(Self::new(spec, weights, info, backend))
    }
}

/// The configuration and the tensors of a GGUF file.
fn gguf_of(path: &Path) -> Result<(Config, Checkpoint)> {
    let file = Gguf::open(path)?;
    // Before the tensors: whoever has the wrong model should learn that first.
    let config = gguf_config(&file)?;
    ModelTypeRegistry::find(&config)?.spec(&config)?;
    gguf_model(&file)
}

/// Says what the model in a folder, or in a GGUF file, is, without a device and without reading its weights.
///
/// # Errors
///
/// As for [`load`], memory aside: a model that can be described can be loaded.
pub fn describe(folder: &Path) -> Result<ModelInfo> {
    if is_gguf(folder) {
        let (config, checkpoint) = gguf_of(folder)?;
        return describe_from(&config, &checkpoint);
    }
    let config = config_of(folder)?;
    ModelTypeRegistry::find(&config)?.spec(&config)?;
    describe_from(&config, &Checkpoint::open(folder)?)
}

/// Says what a model is whose configuration and checkpoint are already at hand.
///
/// # Errors
///
/// As for [`describe`].
pub fn describe_from(config: &Config, checkpoint: &Checkpoint) -> Result<ModelInfo> {
    describe_prepared(config, &prepared(config, checkpoint)?)
}

/// The checkpoint as the family's parts ask for it: in MLX's layout, and with the names that mlx-lm's converter gives.
pub(crate) fn prepared(config: &Config, checkpoint: &Checkpoint) -> Result<Checkpoint> {
    ModelTypeRegistry::find(config)?.prepare(config, &checkpoint.unpacked(config.value())?)
}

/// Says what a model is whose tensors have the names that its family asks for.
fn describe_prepared(config: &Config, checkpoint: &Checkpoint) -> Result<ModelInfo> {
    let (spec, weights, totals) = read(config, checkpoint, Describe)?;
    let family = ModelTypeRegistry::find(config)?;
    let info = ModelInfo::new(config.model_type()?, family.name, &spec, weights.head.is_none(), &totals);
    let mut warnings = checkpoint.warnings().to_vec();
    warnings.extend(surplus_layers(&spec, checkpoint));
    warnings.extend_from_slice(QuantizationConfig::from_config(config.value(), FILE)?.warnings());
    Ok(ModelInfo { warnings, ..info })
}

/// Layers of the files beyond those of the configuration: the one or the other is wrong, or they are for training only.
fn surplus_layers(spec: &DecoderSpec, checkpoint: &Checkpoint) -> Option<String> {
    let prefix = format!("{}.", spec.names.layers);
    let layers = spec.distinct_layers().len();
    let of = |name: &str| name.strip_prefix(&prefix)?.split('.').next()?.parse::<usize>().ok();
    let most = checkpoint.names().filter_map(of).max().filter(|most| *most >= layers)?;
    Some(format!(
        "the weights have layers up to {prefix}{most}, but {FILE} says that there are {layers}: those from {layers} on are not used"
    ))
}

/// Reads a model's files, whose tensors have the names that its family asks for, into a sink.
#[allow(clippy::type_complexity, reason = "three things that come from one reading")]
fn read<K: Sink>(
    config: &Config,
    checkpoint: &Checkpoint,
    sink: K,
) -> Result<(DecoderSpec, Weights<K::Linear, K::Vector>, Totals)> {
    let spec = ModelTypeRegistry::find(config)?.spec(config)?;
    let quantization = &QuantizationConfig::from_config(config.value(), FILE)?;
    // mlx-lm then rounds activations to `nvfp4` or `mxfp8` in every product: other numbers than what is computed here.
    if config.fields().flag("quantize_activations")?.unwrap_or(false) {
        return Err(config.fields().unsupported("quantize_activations", "true", &["false"]));
    }
    let (rotations, totals) = (spec.rotations.clone(), Totals::default());
    let mut reader = Reader { checkpoint, quantization, rotations, totals, sink };
    let weights = Weights::read(&spec, &mut reader)?;
    if let Some(path) = reader.rotations.keys().next() {
        return Err(config
            .fields()
            .error("modules", format_args!("has {path}, which is no linear layer of the model")));
    }
    // Signs of a layer that is not listed say that its input would have to be rotated.
    let is_listed = |path: &str| spec.rotations.contains_key(path);
    let signs = checkpoint.names().filter(|_| !spec.rotations.is_empty());
    if let Some(path) = signs.filter_map(|name| name.strip_suffix(".signs")).find(|path| !is_listed(path)) {
        let problem = format_args!("lacks {path}, whose signs the weights have");
        return Err(config.fields().error("modules", problem));
    }
    Ok((spec, weights, reader.totals))
}
