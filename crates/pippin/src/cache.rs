//! Several loaded models within a memory budget.
//!
//! A [`ModelCache`] loads a model when it is first asked for, keeps it for those who ask next, and unloads the one that has
//! not been used for the longest time when another needs its room. A [`ModelLease`] is the right to use one meanwhile.
//!
//! ```
//! use pippin::GenerateParameters;
//! use pippin::cache::{CacheOptions, ModelCache};
//! use pippin::config::MemoryBudget;
//!
//! let options = CacheOptions::default().with_memory_budget(MemoryBudget::Bytes(2_000_000_000));
//! let cache = ModelCache::new(options);
//! let model = cache.get("pippin-nano")?;
//! let parameters = GenerateParameters::greedy().with_max_tokens(8);
//! println!("{}", model.generate_text("Once upon a time", &parameters)?.collect_text()?.0);
//! drop(model);
//! // It stays for the next one who asks, until its keep-alive is over or its room is needed.
//! assert_eq!(cache.models()[0].model, "pippin-nano");
//! # Ok::<(), pippin::EngineError>(())
//! ```
//!
//! [`ModelCache::start`] begins with what the user's settings name, and
//! [`ModelOpener::load_in`](crate::loading::ModelOpener::load_in) downloads first what is not there; a task awaits
//! [`spawn_in`](crate::loading::ModelOpener::spawn_in) instead. Models of one's own, or
//! from elsewhere, come from a [`ModelLoader`].

#[doc(inline)]
pub use pippin_engine::{
    CacheCounts, CacheEvent, CacheOptions, CacheUsage, Clock, EvictionReason, HeldModel, LoadPlan,
    LoadReporter, LoadRequest, LoadedModel, LocalLoader, MemoryProbe, MemoryReading, ModelCache, ModelLease,
    ModelLoader, Occupancy, PrefixCacheCounts, SystemClock, SystemProbe,
};
