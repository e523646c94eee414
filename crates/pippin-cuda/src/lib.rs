//! The CUDA backend: NVIDIA GPUs from compute capability 8.0 on.
//!
//! Neither building nor starting needs anything of CUDA's: the driver is loaded when a device is first asked for, and kernels are
//! compiled for it by NVRTC on first use and kept on disk ([`CudaBackend::new`] says what is missing). They are written in CUDA C++
//! (`kernels/`), one translation unit for all.
//!
//! Activations are `f32`. A row's result depends neither on the other rows of a call nor on how they are batched, bit for bit: one
//! number's terms are always added in the same order.

mod attention;
mod backend;
mod compile;
mod device;
mod drawing;
mod flash;
mod heads;
mod kv;
mod launch;
mod matrix;
mod memory;
mod mixers;
mod nvrtc;
mod products;
mod recorder;
mod rows;
mod state;
mod tiles;

pub use compile::{ARCHITECTURES, compile_flash_for, compile_for};
pub use device::{CudaBackend, CudaDevice, CudaProblem};
pub use kv::CudaKvCache;
pub use matrix::CudaMatrix;
pub use memory::{CudaIndices, CudaTensor};
pub use state::CudaState;

/// The name of the backend, as `--device` spells it.
const NAME: &str = "cuda";

fn unsupported(what: impl Into<String>) -> pippin_tensor::TensorError {
    pippin_tensor::TensorError::Unsupported { backend: NAME, what: what.into() }
}
