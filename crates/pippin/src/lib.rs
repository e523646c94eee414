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
//! of the registry (`qwen3-4b`). [`ModelContainer::open`] does the same with more to say: it downloads, reports progress,
//! and can be cancelled.
//!
//! # What is where
//!
//! The names that most programs need stand here. Everything else has a module, which begins with what it is for and an
//! example; whatever a signature mentions is in one of them.
//!
//! | to | see |
//! |---|---|
//! | find, download and load a model, with progress | [`loading`] |
//! | hold a conversation | [`chat`] |
//! | have tokens, log-probabilities and numbers; read answers from threads and tasks; cancel | [`generate`] |
//! | keep several models within a memory budget | [`cache`] |
//! | have numbers over all requests; see which processes have models loaded | [`monitor`] |
//! | read the user's settings | [`config`] |
//! | search the hub; list, check and remove models; know what suits this machine | [`hub`] |
//! | measure, and compare with what the machine can do | [`measure`] |
//! | tokenize, render chat templates | [`text`] |
//! | know what a folder holds; run a model of one's own | [`models`] |
//! | write a backend; read checkpoints | [`tensor`], [`weights`] |
//!
//! # How it runs
//!
//! A [`ModelContainer`] is a cheap handle that can be cloned and used from many threads at once; one thread owns the model
//! behind it, and requests of all handles are computed together. A request leaves as a stream. It is a blocking iterator,
//! can be looked at without waiting, and is a `futures_core::Stream` for tasks (feature `async`, on by default): no async
//! runtime is needed, and none is used.
//!
//! Values are built with `with_…` methods; options and parameters are plain data whose fields can be set as well.
//!
//! Every error has a message that says what was wrong and where, and, where there is something to do about it, a
//! [`hint`](EngineError::hint).

pub mod cache;
pub mod chat;
pub mod config;
pub mod generate;
pub mod hub;
pub mod loading;
pub mod measure;
pub mod models;
pub mod monitor;
pub mod tensor;
pub mod text;
pub mod weights;

#[doc(no_inline)]
pub use self::{
    cache::ModelCache,
    chat::{ChatSession, Message, ResponseStream, Role},
    config::EngineConfig,
    generate::{
        CancelHandle, FinishReason, GenerateInfo, GenerateParameters, GenerationEvent, GenerationStream,
    },
    loading::{Device, LoadOptions, LoadProgress, ModelContainer},
};
pub use pippin_engine::{EngineError, Result};
/// JSON as it stands in signatures: tools, and variables of chat templates.
#[doc(no_inline)]
pub use serde_json;

/// Loads a model with the default options: a folder, a hub id, an alias, or `pippin-nano`.
///
/// # Errors
///
/// The model is not on this machine, its files are malformed, or there is no memory for it.
pub fn load(model: &str) -> Result<ModelContainer> {
    ModelContainer::load(model, &LoadOptions::default())
}
