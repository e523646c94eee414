//! Runs MLX-format language models on any machine: the library that applications depend on.
//!
//! The models are those of `mlx-community` and its kin: a folder with `config.json`, safetensors weights (quantized to
//! 4 bits, as a rule) and a tokenizer. They run on the processor today; GPUs come behind the same interface.
//!
//! # Ten lines
//!
//! Load the small model that comes with Pippin, ask it something, and ask again:
//!
//! ```
//! use pippin::{ChatSession, GenerateParameters};
//!
//! let model = pippin::load("pippin-nano")?;
//! let mut chat = ChatSession::new(model).with_parameters(GenerateParameters::greedy());
//! let answer = chat.respond("What is 17 plus 25?")?;
//! assert!(answer.contains("42"), "{answer}");
//! for text in chat.stream("What is the capital of France?")? {
//!     print!("{}", text?);
//! }
//! # Ok::<(), pippin::EngineError>(())
//! ```
//!
//! [`load`] takes a folder, a hub id that is in the local Hugging Face cache (`mlx-community/Qwen3-4B-4bit`), or an alias
//! of the [`ModelRegistry`] (`qwen3-4b`).
//!
//! # What is what
//!
//! | to | use |
//! |---|---|
//! | find a model on this machine | [`resolve`], [`ModelConfiguration`], [`ModelRegistry`] |
//! | find models for this machine | [`search`], [`recommend`], [`describe_remote`], [`Hardware`] |
//! | read the user's settings | [`EngineConfig`] |
//! | download a model, list, check and remove models | [`HubClient::pull`], [`HubCache::models`] |
//! | know what a folder holds without loading it | [`describe`] |
//! | load a model with options | [`ModelContainer::load`], [`LoadOptions`], [`Device`] |
//! | keep several models within a memory budget | [`ModelCache`], [`ModelLease`], [`CacheOptions`] |
//! | begin with the models that the settings name | [`ModelCache::start`], [`ModelCache::preload_all`] |
//! | have numbers over all requests | [`PerformanceMonitor`], [`ModelContainer::performance`] |
//! | see which processes have models loaded | [`running`], [`RunState`] |
//! | hold a conversation | [`ChatSession`] |
//! | continue a text as it stands | [`ModelContainer::generate_text`] |
//! | have tokens, log-probabilities and numbers | [`ModelContainer::generate`], [`GenerationEvent`], [`GenerateInfo`] |
//! | cancel | drop the stream, or [`CancelHandle`] |
//! | measure | [`ModelContainer::measure`], [`ModelContainer::score`] |
//!
//! A [`ModelContainer`] is a cheap handle that can be cloned and used from many threads at once; their requests are
//! computed together. Streams are blocking iterators: no async runtime is needed, and none is used.
//!
//! Every error has a message that says what was wrong and where, and, where there is something to do about it, a
//! [`hint`](EngineError::hint).

use std::path::Path;

#[cfg(feature = "async")]
pub use pippin_engine::AsyncStream;
pub use pippin_engine::{
    CacheCounts, CacheEvent, CacheOptions, CacheUsage, CancelHandle, ChatInput, ChatSession, Clock,
    ConfigEntry, ConfigError, ConfigInputs, ConfigSource, Demand, Device, Distribution, EngineConfig,
    EngineError, EvictionReason, FinishReason, GenerateInfo, GenerateParameters, GenerationEvent,
    GenerationStream, Growth, HeldModel, HubSettings, KeepAlive, KvFormat, LanguageModel, LoadMemory,
    LoadOptions, LoadPlan, LoadProgress, LoadReporter, LoadRequest, LoadTask, LoadedModel, LocalLoader,
    MachineLimits, Measurement, MemoryBudget, MemoryProbe, MemoryReading, ModelCache, ModelContainer,
    ModelLease, ModelLoader, ModelMemory, ModelOpener, ModelPerformance, ModelSettings, Numerics,
    PerformanceMonitor, PerformanceSnapshot, ProcessPerformance, RequestCounts, ResponseStream, Result,
    RunState, RunningModel, RunningProcess, SystemClock, SystemProbe, TextProcessor, TokenCounts, TokenEvent,
    TokenStream, Workload, run_folder, running, running_in,
};
pub use pippin_hub::{
    Bandwidth, CachedModel, CachedRevision, FileCheck, FileHash, FileState, Fit, FoundModel, FoundModels,
    Gpu, Hardware, HubCache, HubClient, HubError, HubOptions, Judge, MemoryEstimate, MemoryTier,
    ModelConfiguration, ModelKind, ModelLocation, ModelRegistry, ModelSearch, ModelShape, Patience,
    PlannedFile, Pruned, PullEvent, PullOptions, PullPlan, PulledModel, ReasoningMarkers, Recommendation,
    RemoteDescription, RemoteFile, RemoteModel, Removal, ResolvedModel, Resolver, SearchPage, SearchQuery,
    SearchSort, StoredWeights, Token, UseLock, describe_remote, looks_like_model, memory_bandwidth,
    recommend, resolve, search,
};
pub use pippin_models::{ModelError, ModelInfo};
pub use pippin_tensor::TensorError;
pub use pippin_text::{ChatTemplate, Message, Role, StopTokens, TextError, Tokenizer};

/// Loads a model with the default options: a folder, a hub id, an alias, or `pippin-nano`.
///
/// # Errors
///
/// The model is not on this machine, its files are malformed, or there is no memory for it.
pub fn load(model: &str) -> Result<ModelContainer> {
    ModelContainer::load(model, &LoadOptions::default())
}

/// Says what the model in a folder is, without loading it.
///
/// # Errors
///
/// The folder holds no model, or one that Pippin cannot run.
pub fn describe(folder: impl AsRef<Path>) -> Result<ModelInfo> {
    Ok(pippin_models::describe(folder.as_ref())?)
}

/// Whether Pippin runs models of this `model_type`.
///
/// ```
/// assert!(pippin::is_supported("qwen3") && !pippin::is_supported("bert"));
/// ```
pub fn is_supported(model_type: &str) -> bool {
    pippin_models::ModelTypeRegistry::get(model_type).is_some()
}
