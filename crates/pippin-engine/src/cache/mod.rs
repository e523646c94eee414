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
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use pippin_hub::{ModelConfiguration, ModelLocation};
use serde::Serialize;

pub use clock::{Clock, SystemClock};
pub use events::{CacheEvent, EvictionReason};
pub use lease::ModelLease;
pub use loader::{LoadPlan, LoadReporter, LocalLoader, ModelLoader};
pub use options::{CacheOptions, LoadRequest};
pub use pressure::{MemoryProbe, MemoryReading, SystemProbe};

use crate::error::HeldModel;
use crate::memory::{self, Resident};
use crate::monitor::{Growth, LoadMemory, PerformanceMonitor};
use crate::scheduler::panic_message;
use crate::{EngineConfig, EngineError, KeepAlive, ModelContainer, ModelMemory, Result};
use flight::Flight;
use lru::{Limits, Room, Slot};

/// After a model was unloaded because tasks waited for memory, the next one is spared for this long: the system reports
/// the mean of the last ten seconds.
const STALL_PAUSE: Duration = Duration::from_secs(10);

/// Loads models when they are needed, and keeps those that fit.
///
/// Cloning gives another handle to the same cache. All of it can be used from many threads.
///
/// ```no_run
/// use pippin_engine::{CacheOptions, GenerateParameters, MemoryBudget, ModelCache};
///
/// let cache = ModelCache::new(CacheOptions { memory_budget: MemoryBudget::Percent(50), ..CacheOptions::default() });
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

/// What handles, leases and threads of a cache share.
struct Shared {
    options: CacheOptions,
    loader: Arc<dyn ModelLoader>,
    clock: Arc<dyn Clock>,
    probe: Arc<dyn MemoryProbe>,
    limits: Limits,
    monitor: PerformanceMonitor,
    state: Mutex<State>,
    /// Something was loaded, unloaded or given up.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    /// Models on their way out of memory, which they still take.
    unloading: BTreeMap<u64, u64>,
    /// Counts uses, so that of two models one was used later.
    uses: u64,
    /// Tells entries of the same model apart.
    ids: u64,
    pinned: BTreeSet<String>,
    keep_alive: BTreeMap<String, KeepAlive>,
    subscribers: Vec<Sender<CacheEvent>>,
    counts: CacheCounts,
    is_pressing: bool,
    stall_pause_until: Option<Instant>,
    has_keeper: bool,
}

/// A model that is loaded or being loaded.
struct Entry {
    id: u64,
    name: String,
    /// What it counts against the budget; 0 until there is room for it.
    bytes: u64,
    has_room: bool,
    keep_alive: KeepAlive,
    used: u64,
    idle_since: Instant,
    phase: Phase,
}

enum Phase {
    Loading(Arc<Flight>),
    Ready(Ready),
}

struct Ready {
    container: ModelContainer,
    memory: LoadMemory,
    loaded_at: SystemTime,
    /// What the process took before the load, as long as no other model was loaded since.
    baseline: Option<Resident>,
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
    /// What it counts against the budget, in bytes.
    pub bytes: u64,
    /// What it was expected to take, and takes. `None` while it is being loaded.
    pub memory: Option<LoadMemory>,
    /// The device in words. `None` while it is being loaded.
    pub device: Option<String>,
    /// The longest sequence in tokens. `None` while it is being loaded.
    pub context: Option<usize>,
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
        Self::with_loader(options, LocalLoader::new())
    }

    /// An empty cache with the limits of a configuration and its pinned models. What the configuration's `preload` list
    /// names is not loaded yet: see [`preload`](Self::preload).
    ///
    /// # Errors
    ///
    /// A name in the `pin` list is unknown.
    pub fn from_config(config: &EngineConfig) -> Result<Self> {
        let mut loader = LocalLoader::new();
        if let Some(folder) = &config.hub.cache_dir {
            loader = loader.with_hub_cache(folder);
        }
        let cache = Self::with_loader(CacheOptions::from_config(config), loader);
        for model in &config.pin {
            cache.pin(model)?;
        }
        Ok(cache)
    }

    /// An empty cache whose models come from a loader of one's own.
    pub fn with_loader(options: CacheOptions, loader: impl ModelLoader + 'static) -> Self {
        Self::with_parts(options, loader, SystemClock, SystemProbe)
    }

    /// An empty cache with a loader, a clock and a view of memory of one's own.
    pub fn with_parts(
        options: CacheOptions,
        loader: impl ModelLoader + 'static,
        clock: impl Clock + 'static,
        probe: impl MemoryProbe + 'static,
    ) -> Self {
        let free = probe.read().available.unwrap_or(memory::ASSUMED);
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

    /// Loads a model in advance, and waits until it is there. Its keep-alive begins then.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub fn preload(&self, model: &str) -> Result<()> {
        self.get(model).map(drop)
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

/// What tells models apart: where they are, and nothing else.
fn key(configuration: &ModelConfiguration) -> String {
    match &configuration.location {
        ModelLocation::Hub { id, revision } => format!("{id}@{revision}"),
        ModelLocation::Directory(path) => {
            path.canonicalize().unwrap_or_else(|_| path.clone()).display().to_string()
        }
        _ => configuration.name(),
    }
}

/// A short id of what a model's files are: the commit of a hub model, else a hash of the key.
fn id(key: &str, container: Option<&ModelContainer>) -> String {
    const LENGTH: usize = 12;
    let folder = container.and_then(ModelContainer::directory);
    if let Some(folder) = folder
        && folder.parent().and_then(|parent| parent.file_name()).is_some_and(|name| name == "snapshots")
        && let Some(commit) = folder.file_name().and_then(|name| name.to_str())
    {
        return commit.chars().take(LENGTH).collect();
    }
    // FNV-1a: stable from run to run, which the standard library's hash does not promise.
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")[..LENGTH].to_owned()
}

impl Entry {
    fn is_idle(&self) -> bool {
        // The cache's own handle. Others come only from it, under the lock, or from others that exist.
        matches!(&self.phase, Phase::Ready(ready) if ready.container.handles() == 1)
    }

    fn describe(&self, key: &str, is_pinned: bool, now: Instant) -> LoadedModel {
        let ready = match &self.phase {
            Phase::Ready(ready) => Some(ready),
            Phase::Loading(_) => None,
        };
        let idle_for = now.saturating_duration_since(self.idle_since);
        let expires_in = self.keep_alive.duration().filter(|_| self.is_idle() && !is_pinned);
        LoadedModel {
            model: self.name.clone(),
            id: id(key, ready.map(|ready| &ready.container)),
            is_loaded: ready.is_some(),
            bytes: self.bytes,
            memory: ready.map(|ready| ready.memory),
            device: ready.map(|ready| ready.container.device().to_owned()),
            context: ready.map(|ready| ready.container.context()),
            is_pinned,
            is_in_use: !self.is_idle(),
            loaded_at: ready.map(|ready| ready.loaded_at),
            expires_in: expires_in.map(|keep| keep.saturating_sub(idle_for)),
        }
    }
}

impl State {
    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// The bytes that count against the budget.
    fn used(&self) -> u64 {
        let held = self.entries.values().map(|entry| entry.bytes);
        held.chain(self.unloading.values().copied()).fold(0, u64::saturating_add)
    }

    fn emit(&mut self, event: &CacheEvent) {
        self.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }

    /// Takes a loaded model out. It counts as unloading until [`Shared::finish_unloading`] has dropped it.
    fn remove(&mut self, key: &str, reason: EvictionReason) -> Option<Unloading> {
        let entry = self.entries.remove(key)?;
        let Phase::Ready(Ready { container, .. }) = entry.phase else {
            self.entries.insert(key.to_owned(), entry);
            return None;
        };
        self.unloading.insert(entry.id, entry.bytes);
        self.counts.evictions += 1;
        self.emit(&CacheEvent::Evicted { model: entry.name, bytes: entry.bytes, reason });
        Some(Unloading { id: entry.id, container })
    }

    /// The models that cannot be unloaded, for a refusal.
    fn held(&self, except: u64) -> Vec<HeldModel> {
        let entries = self.entries.iter().filter(|(_, entry)| entry.id != except && entry.has_room);
        entries
            .filter_map(|(key, entry)| {
                let reason = match &entry.phase {
                    Phase::Loading(_) => "loading",
                    Phase::Ready(_) if !entry.is_idle() => "in use",
                    Phase::Ready(_) if self.pinned.contains(key) => "pinned",
                    Phase::Ready(_) => return None,
                };
                Some(HeldModel { model: entry.name.clone(), bytes: entry.bytes, reason })
            })
            .collect()
    }
}

/// A model on its way out, to be dropped without the lock: that waits for its thread.
struct Unloading {
    id: u64,
    container: ModelContainer,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn finish_unloading(&self, models: Vec<Unloading>) {
        for Unloading { id, container } in models {
            drop(container);
            self.lock().unloading.remove(&id);
            self.changed.notify_all();
        }
    }

    /// Begins a load on a thread of its own. The caller waits for the flight, whose first waiter it is.
    fn take_off(
        self: &Arc<Self>,
        state: &mut State,
        key: &str,
        configuration: &ModelConfiguration,
    ) -> Result<(Arc<Flight>, u64)> {
        state.ids += 1;
        let id = state.ids;
        let flight = Arc::new(Flight::new());
        self.start_keeper(state)?;
        std::thread::Builder::new()
            .name("pippin-load".to_owned())
            .spawn({
                let (shared, flight) = (Arc::clone(self), Arc::clone(&flight));
                let (key, configuration) = (key.to_owned(), configuration.clone());
                move || shared.fly(flight, &key, id, &configuration)
            })
            .map_err(EngineError::Thread)?;
        let keep_alive = state.keep_alive.get(key).copied();
        let entry = Entry {
            id,
            name: configuration.name(),
            bytes: 0,
            has_room: false,
            keep_alive: keep_alive.unwrap_or_else(|| self.options.keep_alive(configuration)),
            used: state.uses,
            idle_since: self.clock.now(),
            phase: Phase::Loading(Arc::clone(&flight)),
        };
        state.entries.insert(key.to_owned(), entry);
        Ok((flight, id))
    }

    /// Loads a model, from its plan to the end of its flight.
    fn fly(self: Arc<Self>, flight: Arc<Flight>, key: &str, id: u64, configuration: &ModelConfiguration) {
        let name = configuration.name();
        let attempt = AssertUnwindSafe(|| self.load(&flight, key, id, configuration));
        let outcome = catch_unwind(attempt)
            .unwrap_or_else(|panic| Err(EngineError::ModelThreadDied { message: panic_message(&*panic) }));
        let mut state = self.lock();
        let mut unwanted = None;
        let error = match outcome {
            Ok((ready, time)) => {
                let (container, memory) = (ready.container.clone(), ready.memory);
                let number = state.next_use();
                if let Some(entry) = state.entries.get_mut(key) {
                    entry.bytes = memory.accounted.total();
                    (entry.used, entry.idle_since) = (number, self.clock.now());
                    entry.phase = Phase::Ready(ready);
                }
                // Under the lock, so that nobody unloads it before those who wait have it.
                if flight.succeed(&container) {
                    drop(container);
                    state.emit(&CacheEvent::Loaded { model: name, memory, time });
                    drop(state);
                    self.changed.notify_all();
                    return;
                }
                unwanted = Some(container);
                EngineError::LoadCancelled { model: name.clone() }
            }
            Err(error) => error,
        };
        let entry = state.entries.remove(key);
        state.counts.failures += 1;
        if let Some(entry) = &entry {
            state.unloading.insert(id, entry.bytes);
        }
        match &error {
            EngineError::LoadCancelled { .. } => state.emit(&CacheEvent::LoadCancelled { model: name }),
            EngineError::OverBudget { .. } | EngineError::TooManyModels { .. } => {
                state.emit(&CacheEvent::Refused { model: name, error: error.to_string() });
            }
            error => state.emit(&CacheEvent::LoadFailed { model: name, error: error.to_string() }),
        }
        drop(state);
        // Whoever hears of the failure finds the memory free again.
        drop((entry, unwanted));
        self.lock().unloading.remove(&id);
        self.changed.notify_all();
        flight.fail(error);
    }

    fn load(
        &self,
        flight: &Flight,
        key: &str,
        id: u64,
        configuration: &ModelConfiguration,
    ) -> Result<(Ready, Duration)> {
        let begin = Instant::now();
        let name = configuration.name();
        let options = self.options.load_options(configuration);
        let plan = self.loader.plan(configuration, &options, self.limits.bytes)?;
        self.reserve(flight, key, id, plan.estimate)?;
        let baseline = self.baseline(id);
        let reporter = LoadReporter { flight, model: &name };
        let attempt = || self.loader.load(configuration, &plan, &reporter);
        let container = match attempt() {
            Err(error) if error.is_out_of_memory() => {
                if self.evict_for_room(EvictionReason::OutOfMemory) == 0 {
                    return Err(error);
                }
                self.lock().emit(&CacheEvent::Retrying { model: name.clone() });
                attempt()?
            }
            outcome => outcome?,
        };
        let mut memory = LoadMemory::new(plan.estimate, container.memory());
        if memory.difference_bytes > 0 {
            // More than was expected: the others have to make way for the rest, or this one goes again.
            if let Err(error) = self.reserve(flight, key, id, memory.accounted) {
                drop(container);
                return Err(error);
            }
        }
        if let (Some(before), Some(after)) = (baseline, memory::resident())
            && self.baseline(id).is_some()
        {
            memory.grown_by_load = Some(Growth::between(before, after));
        }
        self.monitor.watch(&container);
        container.record().set_memory(memory);
        Ok((Ready { container, memory, loaded_at: SystemTime::now(), baseline }, begin.elapsed()))
    }

    /// What the process takes now, if this is the only model there is; another's part could not be told from its own.
    fn baseline(&self, id: u64) -> Option<Resident> {
        let mut state = self.lock();
        let is_alone = state.unloading.is_empty() && state.entries.values().all(|entry| entry.id == id);
        for entry in state.entries.values_mut().filter(|entry| entry.id != id) {
            if let Phase::Ready(ready) = &mut entry.phase {
                ready.baseline = None;
            }
        }
        drop(state);
        is_alone.then(memory::resident).flatten()
    }

    /// Finds room for a load, and unloads what has to make way.
    fn reserve(&self, flight: &Flight, key: &str, id: u64, needed: ModelMemory) -> Result<()> {
        let mut state = self.lock();
        loop {
            let name = state.entries.get(key).map_or_else(String::new, |entry| entry.name.clone());
            if flight.is_abandoned() {
                return Err(EngineError::LoadCancelled { model: name });
            }
            let others: Vec<(String, Slot)> = state
                .entries
                .iter()
                .filter(|(_, entry)| entry.has_room && entry.id != id)
                .map(|(other, entry)| {
                    let is_idle = entry.is_idle() && !state.pinned.contains(other);
                    (other.clone(), Slot { bytes: entry.bytes, used: entry.used, is_idle })
                })
                .collect();
            let leaving = state.unloading.values().copied().fold(0, u64::saturating_add);
            let slots: Vec<Slot> = others.iter().map(|(_, slot)| *slot).collect();
            let going = match lru::make_room(&slots, needed.total(), self.limits) {
                Room::After(going) => going,
                Room::NoBytes => {
                    let (needed, held) = (Box::new(needed), state.held(id));
                    return Err(EngineError::OverBudget {
                        model: name,
                        needed,
                        budget: self.limits.bytes,
                        held,
                    });
                }
                Room::NoPlace => {
                    let held = state.held(id);
                    return Err(EngineError::TooManyModels { model: name, limit: self.limits.models, held });
                }
            };
            let used = slots.iter().map(|slot| slot.bytes).fold(leaving, u64::saturating_add);
            if going.is_empty() {
                if used.saturating_add(needed.total()) > self.limits.bytes {
                    // Those that are being unloaded leave enough, in a moment.
                    state = self.wait(state);
                    continue;
                }
                let mut is_first = false;
                if let Some(entry) = state.entries.get_mut(key).filter(|entry| entry.id == id) {
                    is_first = !entry.has_room;
                    (entry.bytes, entry.has_room) = (needed.total(), true);
                }
                if is_first {
                    state.counts.loads += 1;
                    state.emit(&CacheEvent::Loading { model: name, estimated: needed });
                }
                return Ok(());
            }
            let unloading: Vec<Unloading> = going
                .into_iter()
                .filter_map(|index| state.remove(&others[index].0, EvictionReason::Room))
                .collect();
            drop(state);
            self.finish_unloading(unloading);
            state = self.lock();
        }
    }

    /// Unloads up to `most` idle models for which `wanted` holds, least recently used first. Returns how many.
    fn evict(&self, reason: EvictionReason, wanted: impl Fn(&Entry, bool) -> bool, most: usize) -> usize {
        let mut state = self.lock();
        let mut going: Vec<(u64, String)> = state
            .entries
            .iter()
            .filter(|(key, entry)| entry.is_idle() && wanted(entry, state.pinned.contains(*key)))
            .map(|(key, entry)| (entry.used, key.clone()))
            .collect();
        going.sort();
        going.truncate(most);
        let unloading: Vec<Unloading> =
            going.into_iter().filter_map(|(_, key)| state.remove(&key, reason)).collect();
        drop(state);
        let count = unloading.len();
        self.finish_unloading(unloading);
        count
    }

    /// Unloads all idle models that are not pinned.
    fn evict_for_room(&self, reason: EvictionReason) -> usize {
        self.evict(reason, |_, is_pinned| !is_pinned, usize::MAX)
    }

    /// A lease has been given back; its handle is gone already.
    fn released(&self, key: &str, id: u64) {
        let now = self.clock.now();
        let mut state = self.lock();
        let number = state.next_use();
        let is_pinned = state.pinned.contains(key);
        let Some(entry) = state.entries.get_mut(key).filter(|entry| entry.id == id) else { return };
        (entry.used, entry.idle_since) = (number, now);
        let is_idle = entry.is_idle();
        if let (true, Phase::Ready(ready)) = (is_idle, &mut entry.phase)
            && let Some(before) = ready.baseline
            && let Some(after) = memory::resident()
        {
            ready.memory.grown_by_use = Some(Growth::between(before, after));
            ready.container.record().set_memory(ready.memory);
        }
        let is_over = entry.keep_alive.duration().is_some_and(|keep| keep.is_zero());
        if is_idle && is_over && !is_pinned {
            let going = state.remove(key, EvictionReason::KeepAlive);
            drop(state);
            self.finish_unloading(going.into_iter().collect());
        }
    }

    fn maintain(&self) {
        let now = self.clock.now();
        for entry in self.lock().entries.values_mut() {
            if !entry.is_idle() {
                entry.idle_since = now;
            }
        }
        let is_over = |entry: &Entry, is_pinned: bool| {
            let idle_for = now.saturating_duration_since(entry.idle_since);
            !is_pinned && entry.keep_alive.duration().is_some_and(|keep| idle_for >= keep)
        };
        self.evict(EvictionReason::KeepAlive, is_over, usize::MAX);
        self.relieve(now);
    }

    /// Unloads one idle model if memory is scarce.
    fn relieve(&self, now: Instant) {
        let reading = self.probe.read();
        let is_pressing = reading.is_short() || reading.is_stalling();
        let mut state = self.lock();
        if is_pressing && !state.is_pressing {
            state.emit(&CacheEvent::Pressure { reading });
        }
        state.is_pressing = is_pressing;
        let is_paused = state.stall_pause_until.is_some_and(|until| now < until);
        drop(state);
        if !is_pressing || (is_paused && !reading.is_short()) {
            return;
        }
        if self.evict(EvictionReason::MemoryPressure, |_, is_pinned| !is_pinned, 1) > 0 {
            self.lock().stall_pause_until = Some(now + STALL_PAUSE);
        }
    }

    /// Starts the thread that looks after keep-alive and pressure. It ends with the cache.
    fn start_keeper(self: &Arc<Self>, state: &mut State) -> Result<()> {
        let Some(interval) = self.options.maintenance else { return Ok(()) };
        if state.has_keeper {
            return Ok(());
        }
        let shared = Arc::downgrade(self);
        std::thread::Builder::new()
            .name("pippin-keeper".to_owned())
            .spawn(move || {
                loop {
                    std::thread::sleep(interval);
                    let Some(shared) = shared.upgrade() else { return };
                    shared.maintain();
                }
            })
            .map_err(EngineError::Thread)?;
        state.has_keeper = true;
        Ok(())
    }
}
