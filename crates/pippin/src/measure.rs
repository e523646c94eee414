//! How fast a model is, and how fast it could be.
//!
//! [`ModelContainer::measure`](crate::ModelContainer::measure) times a [`Workload`]: steps of the model alone, on made-up
//! tokens. [`Demand`] says what each token costs in bytes and operations, [`MachineLimits`] what the machine can do.
//!
//! ```
//! use pippin::measure::{Demand, Workload};
//! use pippin::{LoadOptions, ModelContainer};
//!
//! let options = LoadOptions::default().with_context(64);
//! let model = ModelContainer::load("pippin-nano", &options)?;
//! let decode = Workload::decode(8);
//! let measurement = model.measure(decode, 2)?;
//! let demand = Demand::new(model.info(), decode, &options);
//! println!("{}: {:.1} tokens/s", decode.name(), measurement.mean());
//! println!("{:.2} GB/s of weights", measurement.mean() * demand.bytes / 1e9);
//! # Ok::<(), pippin::EngineError>(())
//! ```

#[doc(inline)]
pub use pippin_engine::{Demand, MachineLimits, Measurement, Workload};
