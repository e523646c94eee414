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
//! rows, with no padding. Everything that changes from step to step (token ids, positions, page tables, slots) reaches
//! the operations as device buffers in [`StepInputs`], never as constants, so that a backend can record a step once and
//! replay it ([`Backend::record`]).
//!
//! Operations are functional: they take tensors and return new ones. That suits a lazy graph (MLX), a tape (automatic
//! differentiation wraps a backend in another backend), and a device with a stream-ordered allocator (CUDA graphs)
//! alike. The two exceptions are written in place: the KV cache, in pages, and recurrent state, in slots.
//!
//! What a sequence keeps between steps is of two kinds. Keys and values lie in pages; layers of the same geometry and
//! lifetime form a *cache group*, whose pages are handed out together. State of a fixed size lies in the sequence's
//! *slot*, which can be copied to another: that is how a recurrent model's past is kept and shared.
//!
//! Norms, activations and gates are values ([`Norm`], [`Activation`], [`Gate`]), so that one fused operation serves every
//! topology. The *fused* operations have default bodies made of required ones; a default body is the operation's
//! definition and the oracle its override is tested against.
//!
//! # Example
//!
//! A host-side batch of one sequence, three prompt tokens long, whose next token is to be drawn:
//!
//! ```
//! use pippin_tensor::{Batch, Input, SequenceRows, StepLimits, Want};
//!
//! let limits = StepLimits { vocab: 100, slots: 1, page_size: 16, pages: vec![4], axes: 1 };
//! let mut batch = Batch::new(&limits);
//! batch.push(SequenceRows::text(0, Input::Tokens(&[5, 6, 7]), 0, &[&[2]], Want::Sample))?;
//! assert_eq!(batch.cache_rows(0), [32, 33, 34]);
//! assert_eq!(batch.head_rows(), [2]);
//! # Ok::<(), pippin_tensor::TensorError>(())
//! ```

mod backend;
pub mod conformance;
pub mod convolution;
mod error;
mod spec;
mod step;
#[doc(hidden)]
pub mod testing;

pub use backend::{Backend, Drawn, Hadamard, HeadSpec, Linear, Numerics, Rotation};
pub use convolution::Convolution;
pub use error::TensorError;
pub use pippin_sampling as sampling;
pub use pippin_weights::{Dtype, MatrixData, QuantMode, QuantSpec, QuantizedData, TensorData, minifloat};
pub use spec::{
    Activation, AttentionSpec, Beside, BlockFloat, Gate, KeyChoice, KvCacheSpec, KvFormat, Norm, NormKind,
    PositionScale, Reach, Reduction, RopeFrequencies, RopeSpec, RouterSpec, ScanInputs, ScanSpec, ScanUpdate,
    ScoreFunction, StateSpec, ValueStore,
};
pub use step::{
    Batch, CacheInputs, GIVEN_BACK, Input, LogitRows, SequenceRows, StepInputs, StepLimits, StepShape, Want,
};

/// The result of a backend operation.
pub type Result<T, E = TensorError> = std::result::Result<T, E>;
