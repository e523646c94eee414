//! From a name to a loaded model.
//!
//! [`ModelContainer::open`] begins, and what it returns says how: whether to download ([`with_download`]), with which
//! options ([`LoadOptions`]), by whose settings, whom to tell how far it is ([`LoadProgress`]). Then
//! [`load`](ModelOpener::load) works on this thread and [`spawn`](ModelOpener::spawn) on one of its own.
//!
//! ```
//! use pippin::loading::{LoadOptions, LoadProgress, ModelContainer};
//!
//! let mut steps = Vec::new();
//! let model = ModelContainer::open("pippin-nano")
//!     .with_download(true) // This one comes with Pippin; a hub model would be fetched if it is not here.
//!     .with_options(LoadOptions::default().with_context(1024))
//!     .with_progress(|step| steps.push(step))
//!     .load()?;
//! assert_eq!(model.context(), 1024);
//! assert_eq!(steps.last(), Some(&LoadProgress::Ready));
//! # Ok::<(), pippin::EngineError>(())
//! ```
//!
//! A task of an async runtime awaits the [`LoadTask`], anything else waits for it or looks at it now and then. Dropping it
//! cancels:
//!
//! ```
//! use pippin::ModelContainer;
//!
//! let task = ModelContainer::open("pippin-nano").spawn()?;
//! // … draw a window …
//! let model = task.wait()?;
//! println!("{} on {}, {} of memory", model.name(), model.device(), model.memory());
//! # Ok::<(), pippin::EngineError>(())
//! ```
//!
//! [`with_download`]: ModelOpener::with_download

#[doc(inline)]
pub use pippin_engine::{
    Device, DeviceMemory, LoadOptions, LoadProgress, LoadTask, ModelContainer, ModelMemory, ModelOpener,
    TextProcessor, device_surroundings, devices,
};
#[doc(inline)]
pub use pippin_tensor::{KvFormat, Numerics};
