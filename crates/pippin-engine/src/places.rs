//! How many requests a model takes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{EngineError, Result};

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
