use std::path::PathBuf;

use pippin_hub::{HubCache, ModelConfiguration, Resolver};

use super::flight::Flight;
use crate::estimate::MemoryPlan;
use crate::{EngineConfig, EngineError, LoadOptions, LoadProgress, ModelContainer, ModelMemory, Result};

/// Finds and loads models for a [`ModelCache`](super::ModelCache). Implement it to load models of your own, or from
/// elsewhere.
pub trait ModelLoader: Send + Sync {
    /// What a name stands for.
    ///
    /// # Errors
    ///
    /// The name is unknown.
    fn configuration(&self, model: &str) -> Result<ModelConfiguration>;

    /// Says what loading a model will take, without loading it. Where the options leave the context open, the plan's
    /// fix it, so that what is loaded is what was planned. `budget` is the memory for all models, in bytes.
    ///
    /// # Errors
    ///
    /// The model is not there, or cannot be run.
    fn plan(
        &self,
        configuration: &ModelConfiguration,
        options: &LoadOptions,
        budget: u64,
    ) -> Result<LoadPlan>;

    /// Loads a model. The budget has room for it.
    ///
    /// # Errors
    ///
    /// The model is malformed, there is no memory for it, or nobody waits for it any more: pass on the error of
    /// [`LoadReporter::report`].
    fn load(
        &self,
        configuration: &ModelConfiguration,
        plan: &LoadPlan,
        reporter: &LoadReporter<'_>,
    ) -> Result<ModelContainer>;
}

/// How a model will be loaded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadPlan {
    /// The folder it will be loaded from, if it is one.
    pub directory: Option<PathBuf>,
    /// The options, the context among them.
    pub options: LoadOptions,
    /// What it will take.
    pub estimate: ModelMemory,
}

impl LoadPlan {
    /// A plan to load a model with these options, which will take so much.
    pub fn new(options: LoadOptions, estimate: ModelMemory) -> Self {
        Self { directory: None, options, estimate }
    }

    /// From this folder.
    #[must_use]
    pub fn with_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }
}

/// Tells those who wait for a load how far it is, and the load whether anyone still waits.
#[derive(Debug)]
pub struct LoadReporter<'a> {
    pub(super) flight: &'a Flight,
    pub(super) model: &'a str,
}

impl LoadReporter<'_> {
    /// Reports progress.
    ///
    /// # Errors
    ///
    /// [`EngineError::LoadCancelled`]: nobody waits any more.
    pub fn report(&self, progress: LoadProgress) -> Result<()> {
        self.flight.report(progress);
        if self.is_cancelled() {
            return Err(EngineError::LoadCancelled { model: self.model.to_owned() });
        }
        Ok(())
    }

    /// Whether nobody waits any more.
    pub fn is_cancelled(&self) -> bool {
        self.flight.is_abandoned()
    }
}

/// Loads models that are on this machine: folders, hub models in the Hugging Face cache, `pippin-nano`.
#[derive(Clone, Debug, Default)]
pub struct LocalLoader {
    hub_cache: Option<PathBuf>,
    endpoint: Option<String>,
}

impl LocalLoader {
    /// Looks for hub models where the environment says.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for hub models in this folder instead.
    #[must_use]
    pub fn with_hub_cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.hub_cache = Some(folder.into());
        self
    }

    /// Looks for hub models where a configuration says.
    pub fn from_config(config: &EngineConfig) -> Self {
        Self { hub_cache: config.hub.cache_dir.clone(), endpoint: config.hub.endpoint.clone() }
    }

    fn resolver(&self) -> Resolver {
        let mut resolver = Resolver::from_env();
        if let Some(folder) = &self.hub_cache {
            resolver.cache = Some(HubCache::new(folder));
        }
        if self.endpoint.is_some() {
            resolver.endpoint.clone_from(&self.endpoint);
        }
        resolver
    }
}

impl ModelLoader for LocalLoader {
    fn configuration(&self, model: &str) -> Result<ModelConfiguration> {
        Ok(self.resolver().configuration(model)?)
    }

    fn plan(
        &self,
        configuration: &ModelConfiguration,
        options: &LoadOptions,
        budget: u64,
    ) -> Result<LoadPlan> {
        let resolver = self.resolver();
        let folder = resolver.locate(configuration)?.directory;
        let options =
            LoadOptions { memory_budget: Some(budget), ..options.clone() }.with_draft_found(&resolver)?;
        let plan = MemoryPlan::of_folder(&folder, &options)?;
        Ok(LoadPlan { directory: Some(folder), options: plan.options(&options), estimate: plan.memory })
    }

    fn load(
        &self,
        configuration: &ModelConfiguration,
        plan: &LoadPlan,
        reporter: &LoadReporter<'_>,
    ) -> Result<ModelContainer> {
        let folder = match &plan.directory {
            Some(folder) => folder.clone(),
            None => self.resolver().locate(configuration)?.directory,
        };
        reporter.report(LoadProgress::Found(folder.clone()))?;
        reporter.report(LoadProgress::Loading)?;
        let container = ModelContainer::load_folder(configuration, folder, &plan.options)?;
        reporter.report(LoadProgress::Ready)?;
        Ok(container)
    }
}
