//! Loaded models, within limits.
//!
//! A [`ModelCache`] loads a model when it is first asked for, keeps it for those who ask next, and unloads the one that
//! has not been used for the longest time when another needs its room. Whoever asks gets a [`ModelLease`]: as long as
//! it lives, or a stream of the model, or any other handle, the model stays.
//!
//! # Rules
//!
//! - **Room.** Loaded models, and those being loaded, are no more than the count limit, and together take no more than
//!   the memory budget, as [`ModelMemory`] counts. Before a load that would not fit, idle models are unloaded, least
//!   recently used first, and no more of them than needed. When even that would not make room, nothing is unloaded and
//!   the load is refused with the sizes. Use is when a lease is taken and when it is given back.
//! - **One load.** Requests for a model that is being loaded wait for that load. When it fails, all of them get the
//!   error, and the next one tries again. When all of them are cancelled, so is the load.
//! - **Idle** is a model of which nobody has a handle but the cache. Only idle models are unloaded, whatever the reason.
//! - **Keep-alive.** A model that was idle for so long is unloaded, at once if that is zero.
//! - **Pinned** models are unloaded only by [`ModelCache::unload`] and with the cache.
//! - **Pressure.** When the system runs short of memory, idle models go one after another until it has enough again.
//! - **Out of memory.** When a load fails for want of memory, all idle models are unloaded and it is tried once more.
//!
//! Loads run on threads of their own; models are unloaded on the thread that needs their room, or on the one that looks
//! after keep-alive and pressure once a second. No lock is held meanwhile.

mod clock;
mod events;
mod flight;
mod lease;
mod loader;
mod lru;
mod options;
mod pressure;
mod shared;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, SystemTime};

use pippin_hub::{ModelConfiguration, ModelLocation};
use serde::Serialize;

pub use clock::{Clock, SystemClock};
pub use events::{CacheEvent, EvictionReason};
pub use lease::ModelLease;
pub use loader::{LoadPlan, LoadReporter, LocalLoader, ModelLoader};
pub use options::{CacheOptions, LoadRequest};
pub use pressure::{MemoryProbe, MemoryReading, SystemProbe};

use self::lru::Limits;
use self::shared::Shared;
use self::state::{Entry, Phase};
use crate::memory;
use crate::monitor::{LoadMemory, PerformanceMonitor};
use crate::{EngineConfig, EngineError, KeepAlive, LoadProgress, Result};

/// Loads models when they are needed, and keeps those that fit.
///
/// Cloning gives another handle to the same cache. All of it can be used from many threads.
///
/// ```no_run
/// use pippin_engine::{CacheOptions, GenerateParameters, MemoryBudget, ModelCache};
///
/// let cache = ModelCache::new(CacheOptions::default().with_memory_budget(MemoryBudget::Percent(50)));
/// let model = cache.get("pippin-nano")?;
/// let stream = model.generate_text("Once upon a time", &GenerateParameters::default())?;
/// // The stream keeps the model loaded; the lease need not.
/// drop(model);
/// println!("{}", stream.collect_text()?.0);
/// # Ok::<(), pippin_engine::EngineError>(())
/// ```
#[derive(Clone)]
pub struct ModelCache {
    shared: Arc<Shared>,
}

/// A model in the cache.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LoadedModel {
    /// Its name.
    pub model: String,
    /// A short id of what exactly is loaded: the commit of a hub model, a hash of the place of any other.
    pub id: String,
    /// Whether it is loaded; otherwise it is being loaded.
    pub is_loaded: bool,
    /// Whether its thread has died. Whoever asks for the model next has it loaded anew.
    pub has_died: bool,
    /// What it counts against the budget, in bytes.
    pub bytes: u64,
    /// What it was expected to take, and takes. `None` while it is being loaded.
    pub memory: Option<LoadMemory>,
    /// The device in words. `None` while it is being loaded.
    pub device: Option<String>,
    /// The longest sequence in tokens. `None` while it is being loaded.
    pub context: Option<usize>,
    /// How busy it is. `None` while it is being loaded.
    pub occupancy: Option<crate::Occupancy>,
    /// How much use it has had of prefixes that are kept on disk. `None` where none are, and while it is being loaded.
    pub prefix_cache: Option<crate::PrefixCacheCounts>,
    /// Whether it is pinned.
    pub is_pinned: bool,
    /// Whether somebody uses it: a lease, a stream or another handle exists.
    pub is_in_use: bool,
    /// When it was loaded.
    pub loaded_at: Option<SystemTime>,
    /// In what time it will be unloaded if nobody uses it. `None`: it will not, because it is in use, pinned, being
    /// loaded, or kept for ever.
    pub expires_in: Option<Duration>,
}

/// What a cache holds, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CacheUsage {
    /// Bytes that all models together may take.
    pub budget: u64,
    /// Bytes that they take, those included that are being loaded or unloaded.
    pub used: u64,
    /// Models that are loaded or being loaded.
    pub models: usize,
    /// Models that may be.
    pub max_models: usize,
    /// What has happened so far.
    pub counts: CacheCounts,
}

/// What has happened in a cache so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CacheCounts {
    /// Requests for a model that was loaded.
    pub hits: u64,
    /// Requests for a model that was being loaded for another one.
    pub joined: u64,
    /// Loads that have begun.
    pub loads: u64,
    /// Loads that have failed, refusals and cancellations included.
    pub failures: u64,
    /// Models that were unloaded.
    pub evictions: u64,
}

impl ModelCache {
    /// An empty cache for models of this machine.
    pub fn new(options: CacheOptions) -> Self {
        Self::from_loader(options, LocalLoader::new())
    }

    /// An empty cache with the limits of a configuration and its pinned models. What the configuration's `preload` list
    /// names is not loaded yet: see [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// A name in the `pin` list is unknown.
    pub fn from_config(config: &EngineConfig) -> Result<Self> {
        let cache = Self::from_loader(CacheOptions::from_config(config), LocalLoader::from_config(config));
        for model in &config.pin {
            cache.pin(model)?;
        }
        Ok(cache)
    }

    /// A cache by a configuration, with the models of its `preload` list: what a server begins with. `progress` is called
    /// with each model's name and each step of its load.
    ///
    /// # Errors
    ///
    /// As for [`from_config`](Self::from_config) and [`preload_all`](Self::preload_all).
    pub fn start(config: &EngineConfig, progress: impl FnMut(&str, LoadProgress)) -> Result<Self> {
        let cache = Self::from_config(config)?;
        cache.preload_all(&config.preload, progress)?;
        Ok(cache)
    }

    /// An empty cache whose models come from a loader of one's own.
    pub fn from_loader(options: CacheOptions, loader: impl ModelLoader + 'static) -> Self {
        Self::from_parts(options, loader, SystemClock, SystemProbe)
    }

    /// An empty cache with a loader, a clock and a view of memory of one's own.
    pub fn from_parts(
        options: CacheOptions,
        loader: impl ModelLoader + 'static,
        clock: impl Clock + 'static,
        probe: impl MemoryProbe + 'static,
    ) -> Self {
        // Where models are computed on a GPU, they are in its memory.
        let free = match probe.device(options.load.device) {
            Some(memory) => memory.available,
            None => probe.read().available.unwrap_or(memory::ASSUMED),
        };
        let limits =
            Limits { bytes: options.memory_budget.bytes(free), models: options.max_loaded_models.max(1) };
        Self {
            shared: Arc::new(Shared {
                options,
                loader: Arc::new(loader),
                clock: Arc::new(clock),
                probe: Arc::new(probe),
                limits,
                monitor: PerformanceMonitor::new(),
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
        }
    }

    /// A model by any of its names: at once if it is loaded, else when it has been.
    ///
    /// # Errors
    ///
    /// The name is unknown, the model cannot be loaded ([`EngineError::Load`] with what was wrong), or there is no room
    /// for it ([`EngineError::OverBudget`], [`EngineError::TooManyModels`] within it).
    pub fn get(&self, model: &str) -> Result<ModelLease> {
        self.get_with(model, LoadRequest::new())
    }

    /// A model by any of its names, with progress, or so that it can be cancelled.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get), and [`EngineError::LoadCancelled`].
    pub fn get_with(&self, model: &str, request: LoadRequest<'_>) -> Result<ModelLease> {
        self.get_configured(&self.shared.loader.configuration(model)?, request)
    }

    /// A model whose configuration is known already.
    ///
    /// # Errors
    ///
    /// As for [`get_with`](Self::get_with).
    pub fn get_configured(
        &self,
        configuration: &ModelConfiguration,
        mut request: LoadRequest<'_>,
    ) -> Result<ModelLease> {
        let shared = &self.shared;
        let key = key(configuration);
        loop {
            let mut state = shared.lock();
            let now = shared.clock.now();
            let use_number = state.next_use();
            let found = match state.entries.get_mut(&key) {
                None => None,
                Some(Entry { phase: Phase::Ready(ready), .. }) if !ready.container.is_alive() => {
                    state.has_lost_device |= ready.container.has_lost_device();
                    let dead = state.remove(&key, EvictionReason::Died);
                    drop(state);
                    shared.finish_unloading(dead.into_iter().collect());
                    continue;
                }
                Some(entry) => {
                    (entry.used, entry.idle_since) = (use_number, now);
                    let id = entry.id;
                    match &entry.phase {
                        Phase::Ready(ready) => {
                            let container = ready.container.clone();
                            state.counts.hits += 1;
                            return Ok(ModelLease::new(container, Arc::downgrade(shared), key, id));
                        }
                        Phase::Loading(flight) if flight.join() => Some((Arc::clone(flight), id)),
                        Phase::Loading(_) => {
                            // Given up, and soon gone.
                            drop(shared.changed.wait_timeout(state, flight::POLL));
                            if request.is_cancelled() {
                                return Err(EngineError::LoadCancelled { model: configuration.name() });
                            }
                            continue;
                        }
                    }
                }
            };
            let (flight, id) = match found {
                Some(found) => {
                    state.counts.joined += 1;
                    found
                }
                None => shared.take_off(&mut state, &key, configuration)?,
            };
            drop(state);
            let (cancel, progress) = request.parts();
            let container = flight.wait(&configuration.name(), cancel, progress)?;
            drop(flight);
            // Whoever has the model finds the cache up to date, and has used it later than others that wait still.
            let mut state = shared.lock();
            let use_number = state.next_use();
            if let Some(entry) = state.entries.get_mut(&key).filter(|entry| entry.id == id) {
                entry.used = use_number;
            }
            drop(state);
            return Ok(ModelLease::new(container, Arc::downgrade(shared), key, id));
        }
    }

    /// What a name stands for, by the cache's loader.
    ///
    /// # Errors
    ///
    /// The name is unknown.
    pub fn configuration(&self, model: &str) -> Result<ModelConfiguration> {
        self.shared.loader.configuration(model)
    }

    /// Whether a model is loaded or being loaded.
    pub(crate) fn holds(&self, configuration: &ModelConfiguration) -> bool {
        self.shared.lock().entries.contains_key(&key(configuration))
    }

    /// Loads a model in advance, and waits until it is there. Its keep-alive begins then.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub fn preload(&self, model: &str) -> Result<()> {
        self.get(model).map(drop)
    }

    /// Loads several models in advance, one after the other, and waits until they are there. None of them makes way for
    /// another: when they do not fit together, that is an error with the sizes. Those before it stay loaded.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub fn preload_all(&self, models: &[String], mut progress: impl FnMut(&str, LoadProgress)) -> Result<()> {
        let mut leases = Vec::with_capacity(models.len());
        for model in models {
            let request = LoadRequest::new().with_progress(|step| progress(model, step));
            leases.push(self.get_with(model, request)?);
        }
        Ok(())
    }

    /// Keeps a model from being unloaded for others, now or when it will be loaded. This does not load it.
    ///
    /// # Errors
    ///
    /// The name is unknown.
    pub fn pin(&self, model: &str) -> Result<()> {
        let key = key(&self.shared.loader.configuration(model)?);
        self.shared.lock().pinned.insert(key);
        Ok(())
    }

    /// Takes back [`pin`](Self::pin). Returns whether the model was pinned. Its keep-alive begins now.
    ///
    /// # Errors
    ///
    /// The name is unknown.
    pub fn unpin(&self, model: &str) -> Result<bool> {
        let key = key(&self.shared.loader.configuration(model)?);
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        if let Some(entry) = state.entries.get_mut(&key) {
            entry.idle_since = now;
        }
        Ok(state.pinned.remove(&key))
    }

    /// Sets how long a model stays loaded after its last use, now and when it is loaded again.
    ///
    /// # Errors
    ///
    /// The name is unknown.
    pub fn set_keep_alive(&self, model: &str, keep_alive: KeepAlive) -> Result<()> {
        let key = key(&self.shared.loader.configuration(model)?);
        let mut state = self.shared.lock();
        if let Some(entry) = state.entries.get_mut(&key) {
            entry.keep_alive = keep_alive;
        }
        state.keep_alive.insert(key, keep_alive);
        Ok(())
    }

    /// Unloads a model, pinned or not. Returns whether it was loaded.
    ///
    /// # Errors
    ///
    /// The name is unknown, or the model is in use.
    pub fn unload(&self, model: &str) -> Result<bool> {
        let configuration = self.shared.loader.configuration(model)?;
        let key = key(&configuration);
        let mut state = self.shared.lock();
        let Some(entry) = state.entries.get(&key) else { return Ok(false) };
        if !entry.is_idle() {
            return Err(EngineError::ModelInUse { model: configuration.name() });
        }
        let going = state.remove(&key, EvictionReason::Requested);
        drop(state);
        self.shared.finish_unloading(going.into_iter().collect());
        Ok(true)
    }

    /// Unloads all models that nobody uses, pinned ones too. Returns how many that were.
    pub fn unload_idle(&self) -> usize {
        self.shared.evict(EvictionReason::Requested, |_, _| true, usize::MAX)
    }

    /// The models that are loaded or being loaded, the most recently used first.
    pub fn models(&self) -> Vec<LoadedModel> {
        let now = self.shared.clock.now();
        let state = self.shared.lock();
        let mut entries: Vec<(&String, &Entry)> = state.entries.iter().collect();
        entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.used));
        entries.into_iter().map(|(key, entry)| entry.describe(key, state.pinned.contains(key), now)).collect()
    }

    /// Whether a model's device was lost, and no model has been loaded since. The next one may be: its context of the device is a new
    /// one, once all that had the old one are gone.
    pub fn has_lost_device(&self) -> bool {
        let state = self.shared.lock();
        let is_lost =
            |entry: &Entry| matches!(&entry.phase, Phase::Ready(ready) if ready.container.has_lost_device());
        state.has_lost_device || state.entries.values().any(is_lost)
    }

    /// How much of its limits the cache uses.
    pub fn usage(&self) -> CacheUsage {
        let state = self.shared.lock();
        CacheUsage {
            budget: self.shared.limits.bytes,
            used: state.used(),
            models: state.entries.values().filter(|entry| entry.has_room).count(),
            max_models: self.shared.limits.models,
            counts: state.counts,
        }
    }

    /// What happens from now on. Events that nobody receives pile up; drop the receiver to end the subscription.
    pub fn subscribe(&self) -> Receiver<CacheEvent> {
        let (sender, receiver) = channel();
        self.shared.lock().subscribers.push(sender);
        receiver
    }

    /// The numbers about the models that this cache has loaded.
    pub fn monitor(&self) -> &PerformanceMonitor {
        &self.shared.monitor
    }

    /// The options that the cache was made with.
    pub fn options(&self) -> &CacheOptions {
        &self.shared.options
    }

    /// Unloads what has not been used for long enough, and idle models where memory is scarce. The cache's own thread
    /// does this as often as [`CacheOptions::maintenance`] says.
    pub fn maintain(&self) {
        self.shared.maintain();
    }

    pub(crate) fn downgrade(&self) -> WeakCache {
        WeakCache(Arc::downgrade(&self.shared))
    }
}

impl fmt::Debug for ModelCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelCache").field("models", &self.models()).finish_non_exhaustive()
    }
}

/// A cache that may be gone.
pub(crate) struct WeakCache(Weak<Shared>);

impl WeakCache {
    pub(crate) fn upgrade(&self) -> Option<ModelCache> {
        Some(ModelCache { shared: self.0.upgrade()? })
    }
}

/// What tells loaded models apart: which they are, whatever they were called, and at which revision.
fn key(configuration: &ModelConfiguration) -> String {
    match &configuration.location {
        // As everywhere, the case of an id does not matter; what a revision is called does.
        ModelLocation::Hub { id, revision } => {
            let quantization = configuration.quantization.as_deref().unwrap_or_default().to_ascii_lowercase();
            format!("{}@{revision}:{quantization}", id.to_ascii_lowercase())
        }
        ModelLocation::Directory(path) => {
            path.canonicalize().unwrap_or_else(|_| path.clone()).display().to_string()
        }
        _ => configuration.name(),
    }
}
