//! Checkpoints: safetensors files and MLX's quantization.
//!
//! [`Checkpoint`] maps the files of a folder and checks all they say before any of it sizes an allocation; its tensors are
//! ranges of the mapping.
//!
//! ```
//! use pippin::hub::resolve;
//! use pippin::weights::Checkpoint;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let checkpoint = Checkpoint::open(&resolve("pippin-nano")?.directory)?;
//! let norm = checkpoint.get("model.norm.weight").expect("every llama has it");
//! println!("{:?} {:?}, of {} bytes in all", norm.dtype(), norm.shape(), checkpoint.total_bytes());
//! # Ok(())
//! # }
//! ```

#[doc(inline)]
pub use pippin_weights::*;
