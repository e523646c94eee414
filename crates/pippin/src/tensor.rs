//! What a device has to do: the contract between models and backends.
//!
//! [`Backend`] is what a device implements, [`Batch`] is a step of a model on the host, and [`conformance`] holds every
//! operation of a backend to a plain reference. This is for those who write a model of their own or bring a device;
//! it changes with the devices that come.
//!
//! ```
//! use pippin::tensor::{Batch, LogitRows, SequenceRows};
//!
//! // Three new tokens of one sequence, whose keys and values go into page 7; logits after the last of them.
//! let mut batch = Batch::new(32);
//! batch.push(SequenceRows { tokens: &[1, 2, 3], start: 0, pages: &[7], logits: LogitRows::Last })?;
//! assert_eq!(batch.logit_rows(), [2]);
//! # Ok::<(), pippin::tensor::TensorError>(())
//! ```

#[doc(inline)]
pub use pippin_tensor::*;
