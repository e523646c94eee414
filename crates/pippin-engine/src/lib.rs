//! Runs models: from a folder of weights to a stream of text.
//!
//! - A [`ModelContainer`] is a loaded model. It is a handle: cheap to clone, to send to other threads, and to ask from
//!   several of them at once. One thread owns the model behind it and computes all requests together, step by step.
//! - A request leaves as a stream, a blocking [`Iterator`] of [`GenerationEvent`]s: tokens with their text, and at the
//!   end the numbers ([`GenerateInfo`]). Dropping the stream cancels the request.
//! - A [`ChatSession`] is a conversation: it keeps the history and applies the model's chat template.
//! - A [`ModelCache`] loads models when they are asked for and keeps those that fit the memory; its
//!   [`PerformanceMonitor`] has their numbers.
//! - [`GenerateParameters`] say how to sample, with the meaning and in the order of mlx-lm.
//!
//! # Example
//!
//! ```no_run
//! use pippin_engine::{GenerateParameters, GenerationEvent, LoadOptions, ModelContainer};
//!
//! let model = ModelContainer::load("pippin-nano", &LoadOptions::default())?;
//! let parameters = GenerateParameters::greedy().with_max_tokens(50);
//! for event in model.generate_text("Once upon a time", &parameters)? {
//!     match event? {
//!         GenerationEvent::Info(info) => eprintln!("{:.1} tokens/s", info.tokens_per_second()),
//!         event => print!("{}", event.text()),
//!     }
//! }
//! # Ok::<(), pippin_engine::EngineError>(())
//! ```
//!
//! # How requests share a model
//!
//! Each step of the model is one batch: the next token of every answer that is being written, and a part of the prompts
//! that are being read, the shortest first. Requests join and leave between steps. Keys and values lie in pages that are
//! handed out as sequences grow; those of finished requests stay until their room is needed, and a request that begins like
//! an earlier one, running or finished, does not compute that beginning again. The same goes for models with sliding windows, which
//! keep no more than they see, and for those with recurrent state, of which copies are kept. With a folder for them
//! ([`LoadOptions::prefix_cache`]) they outlive the process, and a conversation can be saved with what was computed of it
//! ([`ChatSession::save_with_prefix`]).
//!
//! A request's result depends on none of this. Which others run beside it, how its prompt was cut, what was found in the
//! cache, whether it had to make way for a while: the same prompt, parameters and seed give the same tokens.
//!
//! An answer can be held to a form ([`Constraint`]): a JSON schema, a regular expression, one of several texts, a grammar. Its tokens
//! are drawn among those that the form allows, so that it holds whatever the model would say; what cannot be followed is an error
//! ([`GrammarError`]), never an answer that is free. The requests beside it do not notice.
//!
//! No async code is in here, and no global state: a server bridges the streams to its own tasks.

#[cfg(feature = "async")]
mod asynchronous;
mod cache;
mod channel;
mod config;
mod constrained;
mod container;
mod device;
mod disk;
mod error;
mod estimate;
mod kv;
mod measure;
mod memory;
mod monitor;
mod open;
mod places;
mod processor;
mod run_state;
mod scheduler;
mod score;
mod session;
mod session_file;
mod speculation;
mod steering;
mod stream;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod thought;
#[cfg(feature = "schemars")]
mod typed;

#[cfg(feature = "async")]
pub use asynchronous::AsyncStream;
pub use cache::{
    CacheCounts, CacheEvent, CacheOptions, CacheUsage, Clock, EvictionReason, LoadPlan, LoadReporter,
    LoadRequest, LoadedModel, LocalLoader, MemoryProbe, MemoryReading, ModelCache, ModelLease, ModelLoader,
    SystemClock, SystemProbe,
};
pub use config::{
    ConfigEntry, ConfigError, ConfigInputs, ConfigSource, EngineConfig, HubSettings, KeepAlive, MemoryBudget,
    ModelSettings, ServerSettings, Setting, SettingFlag, SettingKind, SettingVariable, environment_variables,
};
pub use constrained::{PreparedConstraint, check_schema};
pub use container::ModelContainer;
pub use device::{Device, DeviceMemory, LoadOptions, device_surroundings, devices};
pub use disk::PrefixCacheCounts;
pub use error::{EngineError, HeldModel, Result};
pub use estimate::ModelMemory;
pub use measure::{Demand, MachineLimits, Measurement, Workload};
pub use monitor::{
    Distribution, Growth, LoadMemory, ModelPerformance, PerformanceMonitor, PerformanceSnapshot,
    ProcessPerformance, RequestCounts, TokenCounts,
};
pub use open::{LoadProgress, LoadTask, ModelOpener};
pub use pippin_grammar::{GrammarError, pattern_of_grammar};
pub use pippin_hub::{ModelConfiguration, ModelLocation, ModelRegistry};
pub use pippin_models::{LanguageModel, ModelInfo};
pub use pippin_sampling::{Constraint, GenerateParameters, TokenLogprob, TokenScore};
pub use pippin_tensor::{KvFormat, Numerics};
pub use pippin_text::{Message, Role};
pub use places::Occupancy;
pub use processor::{ChatInput, TextProcessor};
pub use run_state::{RunState, RunningModel, RunningProcess, run_folder, running, running_in};
pub use score::ScoreTask;
pub use session::{ChatSession, ResponseEvents, ResponseStream};
pub use stream::{
    CancelHandle, FinishReason, GenerateInfo, GenerationEvent, GenerationStream, TokenEvent, TokenStream,
};
#[cfg(feature = "schemars")]
pub use typed::answer_schema;
