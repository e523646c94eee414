//! Finds models on this machine.
//!
//! A model is named in one of five ways, and [`resolve`] turns each into a folder that holds `config.json` and
//! weights:
//!
//! - a **folder**: `./my-model`, `/data/models/qwen3`;
//! - a **hub id**, with an optional revision: `mlx-community/Qwen3-4B-4bit`, `mlx-community/Qwen3-4B-4bit@main`; it is
//!   looked up in the standard Hugging Face cache, where Python tools put it too;
//! - the **address** of its page, as it is copied from a browser, with or without `/tree/REVISION`;
//! - an **alias** of the registry: `qwen3-4b`;
//! - **`pippin-nano`**, the small model that comes with Pippin.
//!
//! Finding them touches no network. A model that is not on this machine is an error, and the error says where it was
//! looked for and, for a name that is nearly right, which name was probably meant. [`HubClient`] is what goes out:
//! [`search`] asks the hub which models there are, [`describe_remote`] what one is before it is downloaded. [`recommend`]
//! tells which models of the [`ModelRegistry`] suit the [`Hardware`]. What Pippin runs is for the caller to say
//! ([`Judge`]): the hub knows no model families.
//!
//! # Example
//!
//! The registry is data, so questions about it need no model:
//!
//! ```
//! use pippin_hub::ModelRegistry;
//!
//! let registry = ModelRegistry::shared();
//! let configuration = registry.get("qwen3-4b").expect("the alias is in the registry");
//! assert_eq!(configuration.name(), "mlx-community/Qwen3-4B-4bit");
//! assert_eq!(registry.suggest("qwen3-4"), ["qwen3-4b"]);
//! ```
//!
//! # Where things are looked for
//!
//! The cache is `$HF_HUB_CACHE`, else `$HF_HOME/hub`, else `$XDG_CACHE_HOME/huggingface/hub`, else
//! `~/.cache/huggingface/hub`. The shipped model is `$PIPPIN_NANO_DIR`, or `pippin-nano-4bit` in one of the folders
//! that [`Resolver::from_env`] lists.

mod address;
mod cache;
mod client;
mod configuration;
mod download;
mod error;
mod estimate;
mod gguf;
mod hardware;
mod http;
mod lock;
mod nano;
mod recommend;
mod registry;
mod resolve;
mod search;
mod store;
mod verify;

pub use cache::{HubCache, expand_path};
pub use client::{FileHash, HubClient, HubOptions, RemoteFile, RemoteModel, SearchPage, SearchQuery};
pub use configuration::{ModelConfiguration, ModelKind, ModelLocation, ReasoningMarkers, StoredWeights};
pub use download::plan::{PlannedFile, PullPlan};
pub use download::{PullEvent, PullOptions, PulledModel};
pub use error::{HubError, Result};
pub use estimate::{Fit, MemoryEstimate, ModelShape};
pub use hardware::{Bandwidth, Gpu, Hardware, memory_bandwidth};
pub use http::{Patience, Token};
pub use lock::UseLock;
pub use recommend::{MemoryTier, Recommendation, recommend};
pub use registry::{ModelRegistry, config_folder, edit_distance};
pub use resolve::{ModelIdentity, ResolvedModel, Resolver, looks_like_model, resolve};
pub use search::{
    DEFAULT_AUTHOR, FoundModel, FoundModels, Judge, ModelSearch, RemoteDescription, SearchSort,
    describe_remote, search,
};
pub use store::{CachedModel, CachedRevision, FileCheck, FileState, Pruned, Removal};
pub use verify::{content_hash, is_content_known};
