use std::fmt;
use std::ops::Deref;
use std::sync::Weak;

use super::Shared;
use crate::ModelContainer;

/// A model that stays loaded as long as the lease lives.
///
/// It can be used like the [`ModelContainer`] that it is. Handles cloned from that keep the model loaded as well, and so
/// do streams: a lease may be given back while an answer is still being written.
pub struct ModelLease {
    /// `None` only while the lease is dropped.
    container: Option<ModelContainer>,
    cache: Weak<Shared>,
    key: String,
    id: u64,
}

impl ModelLease {
    pub(super) fn new(container: ModelContainer, cache: Weak<Shared>, key: String, id: u64) -> Self {
        Self { container: Some(container), cache, key, id }
    }

    /// The model.
    pub fn container(&self) -> &ModelContainer {
        // Taken by `drop` alone.
        self.container.as_ref().expect("a lease has its model until it is dropped")
    }
}

impl Deref for ModelLease {
    type Target = ModelContainer;

    fn deref(&self) -> &ModelContainer {
        self.container()
    }
}

impl fmt::Debug for ModelLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ModelLease").field(&self.container().name()).finish()
    }
}

impl Drop for ModelLease {
    fn drop(&mut self) {
        // Before the cache looks who has a handle.
        self.container = None;
        if let Some(cache) = self.cache.upgrade() {
            cache.released(&self.key, self.id);
        }
    }
}
