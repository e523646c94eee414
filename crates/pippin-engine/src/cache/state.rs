//! What a cache holds at a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Instant, SystemTime};

use super::flight::Flight;
use super::{CacheCounts, CacheEvent, EvictionReason, LoadedModel};
use crate::error::HeldModel;
use crate::memory::Resident;
use crate::monitor::LoadMemory;
use crate::{KeepAlive, ModelContainer};

#[derive(Default)]
pub(super) struct State {
    pub(super) entries: BTreeMap<String, Entry>,
    /// Models on their way out of memory, which they still take.
    pub(super) unloading: BTreeMap<u64, u64>,
    /// Counts uses, so that of two models one was used later.
    pub(super) uses: u64,
    /// Tells entries of the same model apart.
    pub(super) ids: u64,
    pub(super) pinned: BTreeSet<String>,
    pub(super) keep_alive: BTreeMap<String, KeepAlive>,
    pub(super) subscribers: Vec<Sender<CacheEvent>>,
    pub(super) counts: CacheCounts,
    pub(super) is_pressing: bool,
    pub(super) stall_pause_until: Option<Instant>,
    pub(super) has_keeper: bool,
    /// A model was unloaded because its device is lost, and none has been loaded since.
    pub(super) has_lost_device: bool,
}

/// A model that is loaded or being loaded.
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) name: String,
    /// What it counts against the budget; 0 until there is room for it.
    pub(super) bytes: u64,
    pub(super) has_room: bool,
    pub(super) keep_alive: KeepAlive,
    pub(super) used: u64,
    pub(super) idle_since: Instant,
    pub(super) phase: Phase,
}

pub(super) enum Phase {
    Loading(Arc<Flight>),
    Ready(Ready),
}

pub(super) struct Ready {
    pub(super) container: ModelContainer,
    pub(super) memory: LoadMemory,
    pub(super) loaded_at: SystemTime,
    /// What the process took before the load, as long as no other model was loaded since.
    pub(super) baseline: Option<Resident>,
}

/// A model on its way out, to be dropped without the lock: that waits for its thread.
pub(super) struct Unloading {
    pub(super) id: u64,
    pub(super) container: ModelContainer,
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
    pub(super) fn is_idle(&self) -> bool {
        // The cache's own handle. Others come only from it, under the lock, or from others that exist.
        matches!(&self.phase, Phase::Ready(ready) if ready.container.handles() == 1)
    }

    pub(super) fn describe(&self, key: &str, is_pinned: bool, now: Instant) -> LoadedModel {
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
            has_died: ready.is_some_and(|ready| !ready.container.is_alive()),
            bytes: self.bytes,
            memory: ready.map(|ready| ready.memory),
            device: ready.map(|ready| ready.container.device().to_owned()),
            context: ready.map(|ready| ready.container.context()),
            occupancy: ready.map(|ready| ready.container.occupancy()),
            prefix_cache: ready.and_then(|ready| ready.container.prefix_cache()),
            is_pinned,
            is_in_use: !self.is_idle(),
            loaded_at: ready.map(|ready| ready.loaded_at),
            expires_in: expires_in.map(|keep| keep.saturating_sub(idle_for)),
        }
    }
}

impl State {
    pub(super) fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// The bytes that count against the budget.
    pub(super) fn used(&self) -> u64 {
        let held = self.entries.values().map(|entry| entry.bytes);
        held.chain(self.unloading.values().copied()).fold(0, u64::saturating_add)
    }

    pub(super) fn emit(&mut self, event: &CacheEvent) {
        self.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }

    /// Takes a loaded model out. It counts as unloading until [`Shared::finish_unloading`] has dropped it.
    pub(super) fn remove(&mut self, key: &str, reason: EvictionReason) -> Option<Unloading> {
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
    pub(super) fn held(&self, except: u64) -> Vec<HeldModel> {
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
