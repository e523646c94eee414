//! What a device has to do: the contract between models and backends.
//!
//! [`Backend`] is what a device implements, [`Batch`] is a step of a model on the host, and [`conformance`] holds every
//! operation of a backend to a plain reference. This is for those who write a model of their own or bring a device;
//! it changes with the devices that come.
//!
//! ```
//! use pippin::tensor::{Batch, Input, SequenceRows, StepLimits, Want};
//!
//! // Three new tokens of one sequence, whose keys and values go into page 7; a token is to be drawn after the last of them.
//! let limits = StepLimits { vocab: 100, slots: 1, page_size: 32, pages: vec![8], axes: 1 };
//! let mut batch = Batch::new(&limits);
//! batch.push(SequenceRows::text(0, Input::Tokens(&[1, 2, 3]), 0, &[&[7]], Want::Sample))?;
//! assert_eq!(batch.head_rows(), [2]);
//! # Ok::<(), pippin::tensor::TensorError>(())
//! ```

#[doc(inline)]
pub use pippin_tensor::*;
