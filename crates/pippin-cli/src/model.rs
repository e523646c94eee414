//! Finding and loading the model of a command.

use std::time::{Duration, Instant};

use pippin::{
    CacheOptions, EngineConfig, EngineError, LoadOptions, LoadProgress, LoadRequest, LocalLoader, ModelCache,
    ModelConfiguration, ModelContainer, ModelLease, RunState,
};

use crate::error::Result;
use crate::output;

/// A loaded model and how long that took.
pub(crate) struct Loaded {
    pub(crate) container: ModelContainer,
    pub(crate) time: Duration,
    /// What keeps the model loaded and `pippin ps` informed.
    _kept: Kept,
}

struct Kept {
    /// Removes what is published when it is dropped.
    _state: Option<RunState>,
    _lease: ModelLease,
    _cache: ModelCache,
}

/// Finds a model by any of its names, and makes sure that it is there: before prompts are read, which may take long.
pub(crate) fn find(model: &str, config: &EngineConfig) -> Result<ModelConfiguration> {
    let found = config.resolver().and_then(|resolver| resolver.resolve(model));
    Ok(found.map_err(EngineError::from)?.configuration)
}

/// Loads a model within the memory budget, for others to see in `pippin ps`.
pub(crate) fn keep(
    configuration: &ModelConfiguration,
    options: &LoadOptions,
    config: &EngineConfig,
    is_verbose: bool,
) -> Result<Loaded> {
    let started = Instant::now();
    // The options have been put together from the configuration and the flags of this call.
    let options = CacheOptions {
        load: options.clone(),
        models: Default::default(),
        ..CacheOptions::from_config(config)
    };
    let cache = ModelCache::with_loader(options, LocalLoader::from_config(config));
    let request = LoadRequest::new().progress(|progress| report(configuration, &progress, is_verbose));
    let lease = cache.get_configured(configuration, request)?;
    // Where nothing can be published, the model answers all the same.
    let state = RunState::publish(&cache).ok();
    let (container, time) = (lease.container().clone(), started.elapsed());
    let kept = Kept { _state: state, _lease: lease, _cache: cache };
    Ok(Loaded::new(container, time, kept, is_verbose))
}

fn report(configuration: &ModelConfiguration, progress: &LoadProgress, is_verbose: bool) {
    if let (true, LoadProgress::Found(folder)) = (is_verbose, progress) {
        output::note(&format!("loading {} from {}", configuration.name(), folder.display()));
    }
}

impl Loaded {
    fn new(container: ModelContainer, time: Duration, kept: Kept, is_verbose: bool) -> Self {
        if is_verbose {
            for warning in container.processor().stop_tokens.warnings() {
                output::note(&format!("warning: {warning}"));
            }
            output::note(&format!(
                "loaded in {:.3} s; {}; context of {} tokens",
                time.as_secs_f64(),
                container.device(),
                container.context()
            ));
        }
        Self { container, time, _kept: kept }
    }
}
