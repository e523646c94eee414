//! Model families as descriptions, and the generic decoder that runs them.
//!
//! A family is one file that turns a `config.json` into a [`DecoderSpec`]: plain data that says which layers there are,
//! what each consists of, and what the checkpoint calls their tensors. It holds no arithmetic. One [`Decoder`], generic
//! over the [`Backend`](pippin_tensor::Backend), runs every spec on every device. So a new family without a new kind of
//! layer is a few dozen lines and a golden file, and a new device gets all families at once.
//!
//! ```text
//! config.json ──family──▶ DecoderSpec ─┐
//!                          of parts    ├─▶ Decoder<B> ──▶ Box<dyn LanguageModel>
//! *.safetensors ──Source───────────────┘
//! ```
//!
//! Layers are made of *parts*: attention, feed-forward networks, experts, recurrences. A part is one file, which holds its
//! description, the names of its tensors, and how it is computed; a `Source` reads its weights, whether to describe a model,
//! to move it to a device, or to make one up for a test. A layer that is more than parts which add to one stream is a
//! variant of [`LayerSpec`] of its own, in a file of its own.
//!
//! Everything generic ends at [`LanguageModel`]: tokens in, logits out. What is above never sees a backend or a family.
//!
//! # What is checked
//!
//! Model files are untrusted. Every field that is used is checked when it is read; every number in a spec again before it
//! sizes anything ([`DecoderSpec::validate`], [`limits`]); every tensor's shape against the spec before a device sees it;
//! every token id before a step. A wrong file ends in a [`ModelError`] that names the field or the tensor.
//!
//! # What the numbers are checked against
//!
//! mlx-lm is the reference. For every family and option, `tests/goldens/` holds logits and greedy tokens that mlx-lm
//! computed for a tiny model with random weights; see `tools/goldens/`. Where mlx-lm ignores a field that the models were
//! trained with, Pippin follows the training: sliding windows of Mistral and Qwen (the results agree within the window),
//! rope fields in the places where newer configurations have them, and an output head that is in the checkpoint although
//! the configuration does not say whether it is tied.
//!
//! # Example
//!
//! A tiny random model stands in for one from disk; with one, it would be `load(folder, backend)`.
//!
//! ```
//! use std::sync::Arc;
//!
//! use pippin_cpu::CpuBackend;
//! use pippin_models::{CachePlan, Config, LanguageModel, Output, load_from, testing};
//! use pippin_tensor::{Batch, Dtype, Input, KvFormat, LogitRows, Numerics, SequenceRows, Want};
//!
//! let config = Config::new(testing::tiny_llama())?;
//! let checkpoint = testing::checkpoint(&config, Dtype::F32, 0)?;
//! let mut model = load_from(&config, &checkpoint, Arc::new(CpuBackend::new(Numerics::Exact)))?;
//! assert_eq!(model.info().family, "llama");
//!
//! // A KV cache of four pages, of which a prompt of three tokens needs one, and a single slot.
//! model.allocate(&CachePlan { page_size: 16, format: KvFormat::F32, pages: vec![4], slots: 1 })?;
//! let mut batch = Batch::new(model.limits());
//! let want = Want::Logits(LogitRows::Last);
//! batch.push(SequenceRows::text(0, Input::Tokens(&[5, 6, 7]), 0, &[&[2]], want))?;
//! let step = model.submit(batch)?;
//! let outputs = model.finish(step.id)?;
//! let [Output::Logits(logits)] = outputs.as_slice() else { panic!("one sequence wants logits") };
//! assert_eq!((logits.rows, logits.row(0).len()), (1, model.info().vocab_size));
//! # Ok::<(), pippin_models::ModelError>(())
//! ```

#![allow(
    clippy::single_range_in_vec_init,
    reason = "rows of a matrix are a list of ranges, which may have one"
)]

mod altup;
mod cache;
mod config;
mod decoder;
mod error;
mod families;
mod gguf;
mod hyper;
mod layer_inputs;
mod load;
mod model;
mod ngrams;
mod parts;
mod plan;
mod published;
mod residual_mix;
mod rope;
mod source;
mod spec;
#[doc(hidden)]
pub mod testing;
mod weights;

pub use altup::{AltUp, Streams};
pub use cache::{CacheGroup, CacheLayout, CachePlan};
pub use config::Config;
pub use decoder::Decoder;
pub use error::{ModelError, Result};
pub use families::{Family, ModelTypeRegistry};
pub use gguf::{gguf_architectures, gguf_config, gguf_model, gguf_model_types, is_gguf};
pub use hyper::{HyperBlock, HyperConnections, HyperLayer};
pub use layer_inputs::LayerInputs;
pub use load::{describe, describe_from, load, load_from};
pub use model::{
    LanguageModel, Logits, Mixture, ModelInfo, Output, SlotEdit, StepId, StoredWeights, Submitted,
};
pub use ngrams::Ngrams;
pub use parts::{
    Attention, ChannelMix, CompressedAttention, CompressedIndex, Compression, ConvGate, DeltaInput,
    DeltaProjections, Dense, DenseForm, Experts, FirstInput, FusedRows, GatedDelta, GatedNorm, HeadNorms,
    Index, Latent, LayerInput, LinearAttention, LinearMap, NarrowExperts, NormSpec, OutputGate, Part,
    Projected, Projections, RgLru, RouterNorm, ScaledNorm, ScanForm, ScanNorms, SecondPass, SelectiveScan,
    SharedExpert, ShortConv, StateSpace, TimeMix,
};
/// What steps are given and give, by the crate that draws tokens.
pub use pippin_sampling::{Sampled, Sampler, TokenMask};
pub use residual_mix::ResidualMix;
pub use spec::{
    Block, Branch, DecoderSpec, EmbeddingScale, Head, HeadWeights, LayerSpec, ModelNames, StreamGates, limits,
};
