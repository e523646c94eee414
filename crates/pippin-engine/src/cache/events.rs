use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::MemoryReading;
use crate::{LoadMemory, ModelMemory};

/// What a [`ModelCache`](super::ModelCache) does, in the order in which it does it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum CacheEvent {
    /// There is room for a model, and it is being loaded.
    Loading {
        /// The model's name.
        model: String,
        /// What it is expected to take.
        estimated: ModelMemory,
    },
    /// A model has been loaded.
    Loaded {
        /// The model's name.
        model: String,
        /// What it was expected to take, and takes.
        memory: LoadMemory,
        /// How long it took, the unloading of others included.
        time: Duration,
    },
    /// The device had no memory left. Idle models have been unloaded, and the load begins again.
    Retrying {
        /// The model's name.
        model: String,
    },
    /// A model could not be loaded.
    LoadFailed {
        /// The model's name.
        model: String,
        /// The error's message.
        error: String,
    },
    /// Loading was given up, because nobody waited for it any more.
    LoadCancelled {
        /// The model's name.
        model: String,
    },
    /// There is no room for a model.
    Refused {
        /// The model's name.
        model: String,
        /// The message, which says what it needs and by what the budget is held.
        error: String,
    },
    /// A model has been unloaded.
    Evicted {
        /// The model's name.
        model: String,
        /// What it had taken, in bytes.
        bytes: u64,
        /// Why.
        reason: EvictionReason,
    },
    /// Memory has become scarce. What is unloaded for it follows.
    Pressure {
        /// What the system says.
        reading: MemoryReading,
    },
}

/// Why a model was unloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EvictionReason {
    /// Another model needed its room, and it was the one that had not been used for the longest time.
    Room,
    /// It was not used for as long as it was to be kept.
    KeepAlive,
    /// Memory was scarce.
    MemoryPressure,
    /// The device had no memory left for another model.
    OutOfMemory,
    /// Somebody asked for it.
    Requested,
    /// Its thread had died.
    Died,
}

impl fmt::Display for EvictionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Room => "another model needed its room",
            Self::KeepAlive => "it was not used for long enough",
            Self::MemoryPressure => "memory was scarce",
            Self::OutOfMemory => "the device was out of memory",
            Self::Requested => "somebody asked for it",
            Self::Died => "its thread had died",
        })
    }
}
