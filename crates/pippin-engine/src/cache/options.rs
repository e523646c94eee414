use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use pippin_hub::{ModelConfiguration, Resolver};

use crate::config::settings_for;
use crate::{CancelHandle, EngineConfig, KeepAlive, LoadOptions, LoadProgress, MemoryBudget, ModelSettings};

/// How a [`ModelCache`](super::ModelCache) loads models and keeps them.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// How models are loaded.
    pub load: LoadOptions,
    /// The memory that all of them together may take. A share is of what the machine has available when the cache is
    /// made, or its control group where that has less; or the GPU, where it is one that computes.
    pub memory_budget: MemoryBudget,
    /// How many may be loaded at a time; at least 1.
    pub max_loaded_models: usize,
    /// How long they stay loaded after their last use.
    pub keep_alive: KeepAlive,
    /// What holds for single models, by any of their names.
    pub models: BTreeMap<String, ModelSettings>,
    /// How often a thread looks after keep-alive and memory pressure. `None`: never; then call
    /// [`maintain`](super::ModelCache::maintain).
    pub maintenance: Option<Duration>,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self::from_config(&EngineConfig::default())
    }
}

impl CacheOptions {
    /// The options that a configuration describes.
    pub fn from_config(config: &EngineConfig) -> Self {
        Self {
            // Not a model's name: what holds for single models is looked up for each.
            load: config.load_options(""),
            memory_budget: config.memory_budget,
            max_loaded_models: config.max_loaded_models,
            keep_alive: config.keep_alive,
            models: config.models.clone(),
            maintenance: Some(Duration::from_secs(1)),
        }
    }

    /// What holds for this model only, by whichever of its names it was given.
    fn settings(&self, model: &ModelConfiguration) -> ModelSettings {
        settings_for(&self.models, model, Resolver::from_env)
    }

    pub(super) fn load_options(&self, model: &ModelConfiguration) -> LoadOptions {
        self.settings(model).apply(self.load.clone())
    }

    pub(crate) fn keep_alive(&self, model: &ModelConfiguration) -> KeepAlive {
        self.settings(model).keep_alive.unwrap_or(self.keep_alive)
    }
}

impl CacheOptions {
    /// Loads models with these options.
    #[must_use]
    pub fn with_load(mut self, load: LoadOptions) -> Self {
        self.load = load;
        self
    }

    /// With so much memory for all models together.
    #[must_use]
    pub fn with_memory_budget(mut self, memory_budget: MemoryBudget) -> Self {
        self.memory_budget = memory_budget;
        self
    }

    /// With so many models at a time.
    #[must_use]
    pub fn with_max_loaded_models(mut self, max_loaded_models: usize) -> Self {
        self.max_loaded_models = max_loaded_models;
        self
    }

    /// Keeps models for this long after their last use.
    #[must_use]
    pub fn with_keep_alive(mut self, keep_alive: KeepAlive) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// With settings of one model, by any of its names.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<String>, settings: ModelSettings) -> Self {
        self.models.insert(model.into(), settings);
        self
    }

    /// Looks after keep-alive and memory pressure so often.
    #[must_use]
    pub fn with_maintenance(mut self, maintenance: impl Into<Option<Duration>>) -> Self {
        self.maintenance = maintenance.into();
        self
    }
}

/// How to wait for a model.
///
/// ```
/// use pippin_engine::{CancelHandle, LoadRequest};
///
/// let cancel = CancelHandle::default();
/// let request = LoadRequest::new().with_cancel(&cancel).with_progress(|progress| eprintln!("{progress:?}"));
/// ```
#[derive(Default)]
pub struct LoadRequest<'a> {
    cancel: Option<CancelHandle>,
    progress: Option<Box<dyn FnMut(LoadProgress) + 'a>>,
}

impl<'a> LoadRequest<'a> {
    /// Waits to the end, and silently.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets this handle end the wait. The load itself ends with it when nobody else waits.
    #[must_use]
    pub fn with_cancel(mut self, handle: &CancelHandle) -> Self {
        self.cancel = Some(handle.clone());
        self
    }

    /// Calls this on the waiting thread with each step of the load, those included that it has made already. A model that
    /// is loaded makes none.
    #[must_use]
    pub fn with_progress(mut self, callback: impl FnMut(LoadProgress) + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(CancelHandle::is_cancelled)
    }

    /// The handle and the callback.
    pub(super) fn parts(&mut self) -> (Option<&CancelHandle>, &mut (dyn FnMut(LoadProgress) + 'a)) {
        let Self { cancel, progress } = self;
        (cancel.as_ref(), progress.get_or_insert_with(|| Box::new(|_| {})))
    }
}

impl fmt::Debug for LoadRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadRequest").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}
