//! Finding and loading the model of a command.

use std::time::{Duration, Instant};

use pippin::{EngineError, LoadOptions, LoadProgress, ModelConfiguration, ModelContainer};

use crate::error::Result;
use crate::output;

/// A loaded model and how long that took.
pub(crate) struct Loaded {
    pub(crate) container: ModelContainer,
    pub(crate) time: Duration,
}

/// Finds a model by any of its names, and makes sure that it is there: before prompts are read, which may take long.
pub(crate) fn find(model: &str) -> Result<ModelConfiguration> {
    Ok(pippin::resolve(model).map_err(EngineError::from)?.configuration)
}

/// Loads a model.
pub(crate) fn load(
    configuration: &ModelConfiguration,
    options: &LoadOptions,
    is_verbose: bool,
) -> Result<Loaded> {
    let started = Instant::now();
    let container = ModelContainer::load_with_progress(configuration, options, |progress| {
        if let (true, LoadProgress::Found(folder)) = (is_verbose, progress) {
            output::note(&format!("loading {} from {}", configuration.name(), folder.display()));
        }
    })?;
    let time = started.elapsed();
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
    Ok(Loaded { container, time })
}
