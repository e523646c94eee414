//! Models by name: on this machine, and on the Hugging Face hub.
//!
//! [`resolve`] and the [`Resolver`] find models on this machine and touch no network; the [`ModelRegistry`] knows the short
//! names. [`HubClient`] is what goes out: it plans and does downloads, [`search`] asks it which models there are, and
//! [`describe_remote`] what one is before it is downloaded. [`HubCache`] lists, checks and removes what is here.
//! [`recommend`] tells which models suit the [`Hardware`].
//!
//! ```
//! use pippin::hub::{Hardware, Judge, ModelRegistry, resolve};
//!
//! let nano = resolve("pippin-nano").map_err(pippin::EngineError::from)?;
//! println!("{} is in {}", nano.configuration.name(), nano.directory.display());
//!
//! let qwen = ModelRegistry::shared().get("qwen3-4b").expect("is known");
//! assert_eq!(qwen.name(), "mlx-community/Qwen3-4B-4bit");
//! let hardware = Hardware::detect();
//! let judge = Judge {
//!     is_supported: &pippin::models::is_supported,
//!     budget: hardware.available_memory,
//!     total_memory: hardware.total_memory,
//!     context: 4096,
//! };
//! let need = qwen.memory_need(judge.context).expect("its size is known").total();
//! println!("{} needs about {need} bytes; does it fit? {:?}", qwen.name(), judge.fit(need));
//! # Ok::<(), pippin::EngineError>(())
//! ```
//!
//! To have a model downloaded and loaded in one go, see [`loading`](crate::loading).

#[doc(inline)]
pub use pippin_hub::*;
