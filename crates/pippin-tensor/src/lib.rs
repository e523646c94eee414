//! The contract between models and devices.
//!
//! A model is written once, generic over a [`Backend`]; a backend is a device (CPU, CUDA, MLX) that owns its tensors
//! and keeps weight matrices in whatever layout it reads fastest. This crate holds the contract and the means to check
//! it: the [`Backend`] trait, the host-side description of a step ([`Batch`]), and the [`conformance`] suite, which
//! compares every operation of a backend with a plain `f64` reference.
//!
//! # The shape of the contract
//!
//! Activations are two-dimensional, `[rows, columns]`: a row is a token of one of the sequences in the step, and heads
//! lie side by side in its columns. A step is *ragged*: sequences of different lengths contribute different numbers of
//! rows, with no padding. Everything that changes from step to step (token ids, positions, page tables, lengths)
//! reaches the operations as device buffers in [`StepInputs`], never as constants, so that a backend can record a step
//! once and replay it.
//!
//! Operations are functional: they take tensors and return new ones. That suits a lazy graph (MLX), a tape (automatic
//! differentiation wraps a backend in another backend), and a device with a stream-ordered allocator (CUDA graphs)
//! alike. The one exception is the KV cache, which is written in place.
//!
//! The required operations are few. The *fused* ones have default bodies made of required ones; a default body is the
//! operation's definition and the oracle its override is tested against.
//!
//! # Example
//!
//! A host-side batch of one sequence, three prompt tokens long, whose last row's logits are wanted:
//!
//! ```
//! use pippin_tensor::{Batch, SequenceRows};
//!
//! let mut batch = Batch::new(16);
//! batch.push(SequenceRows { tokens: &[5, 6, 7], start: 0, pages: &[0], logits: pippin_tensor::LogitRows::Last })?;
//! assert_eq!(batch.rows(), 3);
//! assert_eq!(batch.logit_rows(), &[2]);
//! # Ok::<(), pippin_tensor::TensorError>(())
//! ```

mod backend;
mod batch;
pub mod conformance;
mod error;

pub use backend::{
    Activation, AttentionSpec, Backend, HeadNorms, KvCacheSpec, KvFormat, Linear, Numerics, RopeFrequencies,
    RopeSpec, StepInputs,
};
pub use batch::{Batch, LogitRows, SequenceRows};
pub use error::TensorError;
pub use pippin_weights::{Dtype, MatrixData, QuantMode, QuantSpec, QuantizedData, TensorData, minifloat};

/// The result of a backend operation.
pub type Result<T> = std::result::Result<T, TensorError>;
