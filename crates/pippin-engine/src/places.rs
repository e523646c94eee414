//! How many requests a model takes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use crate::{EngineError, Result};

/// How busy a model is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Occupancy {
    /// Requests that are computed.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// How much of the cache of keys and values is in use, from 0 to 1, as of the last step. What ended requests have left there
    /// does not count: it makes room.
    pub cache_use: f64,
}

/// The places of a model's requests: those that are computed, and those that wait.
#[derive(Debug)]
pub(crate) struct Places {
    taken: Arc<AtomicUsize>,
    computed: usize,
    waiting: usize,
}

impl Places {
    /// Places for so many that are computed together, and so many that wait.
    pub(crate) fn new(computed: usize, waiting: usize) -> Self {
        Self { taken: Arc::default(), computed, waiting }
    }

    /// How many requests are computed, and how many wait, as far as their number says.
    pub(crate) fn taken(&self) -> (usize, usize) {
        let taken = self.taken.load(Ordering::Acquire);
        (taken.min(self.computed), taken.saturating_sub(self.computed))
    }

    /// Takes one.
    ///
    /// # Errors
    ///
    /// [`EngineError::QueueFull`]
    pub(crate) fn take(&self) -> Result<Place> {
        let limit = self.computed.saturating_add(self.waiting);
        let is_free = |taken| (taken < limit).then(|| taken + 1);
        match self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, is_free) {
            Ok(_) => Ok(Place(Some(Arc::clone(&self.taken)))),
            Err(_) => Err(EngineError::QueueFull { waiting: self.waiting }),
        }
    }
}

/// A place, which is free again when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Place(Option<Arc<AtomicUsize>>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(taken) = &self.0 {
            taken.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
