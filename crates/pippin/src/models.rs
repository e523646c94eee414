//! What a model is.
//!
//! [`describe`] reads what a folder holds without loading it. A [`LanguageModel`] takes a batch of tokens and returns drawn tokens or logits;
//! one of one's own is run by [`ModelContainer::from_parts`](crate::ModelContainer::from_parts). Everything below it (families,
//! descriptions of decoders) is for those who add to Pippin.
//!
//! ```
//! use pippin::hub::resolve;
//! use pippin::models::{describe, is_supported};
//!
//! let nano = resolve("pippin-nano").map_err(pippin::EngineError::from)?;
//! let info = describe(&nano.directory).map_err(pippin::EngineError::from)?;
//! assert_eq!(info.family, "llama");
//! println!("{} weights in {} bytes", info.parameters, info.weight_bytes);
//! assert!(is_supported("qwen3") && !is_supported("bert"));
//! # Ok::<(), pippin::EngineError>(())
//! ```

#[doc(inline)]
pub use pippin_models::*;

/// Whether Pippin runs models of this `model_type`.
pub fn is_supported(model_type: &str) -> bool {
    ModelTypeRegistry::get(model_type).is_some()
}
