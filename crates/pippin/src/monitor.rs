//! Numbers over all requests, and over all processes.
//!
//! Each model counts its requests, tokens, times and memory ([`ModelPerformance`]); a [`PerformanceMonitor`] has all models of
//! a cache. [`RunState`] publishes them for [`running`], which is what `pippin ps` shows, to other processes of this user.
//!
//! ```
//! use pippin::GenerateParameters;
//!
//! let model = pippin::load("pippin-nano")?;
//! let parameters = GenerateParameters::greedy().with_max_tokens(8);
//! model.generate_text("Once upon a time", &parameters)?.collect_text()?;
//! let performance = model.performance();
//! assert_eq!(performance.requests.total, 1);
//! println!("{}", pippin::serde_json::to_string_pretty(&performance).expect("numbers are JSON"));
//! # Ok::<(), pippin::EngineError>(())
//! ```

#[doc(inline)]
pub use pippin_engine::{
    Distribution, Growth, LoadMemory, ModelPerformance, PerformanceMonitor, PerformanceSnapshot,
    ProcessPerformance, RequestCounts, RunState, RunningModel, RunningProcess, TokenCounts, run_folder,
    running, running_in,
};
