//! How a cache loads and unloads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use pippin_hub::ModelConfiguration;

use super::flight::Flight;
use super::lru::{self, Limits, Room, Slot};
use super::state::{Entry, Phase, Ready, State, Unloading};
use super::{CacheEvent, CacheOptions, Clock, EvictionReason, LoadReporter, MemoryProbe, ModelLoader};
use crate::memory::{self, Resident};
use crate::monitor::{Growth, LoadMemory, PerformanceMonitor};
use crate::scheduler::panic_message;
use crate::{EngineError, ModelMemory, Result};

/// After a model was unloaded because tasks waited for memory, the next one is spared for this long: the system reports
/// the mean of the last ten seconds.
const STALL_PAUSE: Duration = Duration::from_secs(10);

/// What handles, leases and threads of a cache share.
pub(super) struct Shared {
    pub(super) options: CacheOptions,
    pub(super) loader: Arc<dyn ModelLoader>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) probe: Arc<dyn MemoryProbe>,
    pub(super) limits: Limits,
    pub(super) monitor: PerformanceMonitor,
    pub(super) state: Mutex<State>,
    /// Something was loaded, unloaded or given up.
    pub(super) changed: Condvar,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn finish_unloading(&self, models: Vec<Unloading>) {
        for Unloading { id, container } in models {
            drop(container);
            self.lock().unloading.remove(&id);
            self.changed.notify_all();
        }
    }

    /// Begins a load on a thread of its own. The caller waits for the flight, whose first waiter it is.
    pub(super) fn take_off(
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
                    state.has_lost_device = false;
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
                        device: self.options.load.device.resolved(),
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
    pub(super) fn evict(
        &self,
        reason: EvictionReason,
        wanted: impl Fn(&Entry, bool) -> bool,
        most: usize,
    ) -> usize {
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
    pub(super) fn released(&self, key: &str, id: u64) {
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

    pub(super) fn maintain(&self) {
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
