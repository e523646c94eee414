//! Finding and loading the model of a command.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use pippin::cache::{CacheOptions, LocalLoader, ModelLease};
use pippin::hub::{HubError, ModelConfiguration, PullPlan, ResolvedModel};
use pippin::loading::ModelOpener;
use pippin::monitor::RunState;
use pippin::{EngineConfig, EngineError, LoadOptions, LoadProgress, ModelCache, ModelContainer};

use crate::error::{CliError, Result};
use crate::progress::Display;
use crate::{input, output};

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

/// What to do about a model that is not on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Download {
    /// Say so.
    Never,
    /// Download it if the user agrees, where there is a terminal to ask at.
    Ask,
    /// Download it.
    Agreed,
}

/// Finds a model by any of its names, and makes sure that it is there: before prompts are read, which may take long.
pub(crate) fn find(model: &str, config: &EngineConfig, download: Download) -> Result<ModelConfiguration> {
    Ok(locate(model, config, download)?.configuration)
}

/// The same, with the folder where it is.
pub(crate) fn locate(model: &str, config: &EngineConfig, download: Download) -> Result<ResolvedModel> {
    let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let mut display: Option<Display> = None;
    let (mut asked, mut is_again) = (Ok(()), false);
    let mut opener = ModelOpener::new(model).with_config(config).with_progress(|step| match step {
        LoadProgress::Downloading { id, total, missing } => display = Some(Display::new(&id, total, missing)),
        LoadProgress::Download(event) => display.iter_mut().for_each(|display| display.event(&event)),
        _ => {}
    });
    if download == Download::Agreed || (download == Download::Ask && can_ask) {
        opener = opener.with_download_if(|plan| {
            if std::mem::replace(&mut is_again, true) && download != Download::Agreed {
                output::note("some of it has been removed in the meantime");
            }
            match agrees(plan, download) {
                Ok(agrees) => agrees,
                Err(error) => {
                    asked = Err(error);
                    false
                }
            }
        });
    }
    let found = opener.fetch();
    if let Some(display) = display {
        display.end();
    }
    asked?;
    match found {
        Ok(found) => Ok(found),
        Err(error) => {
            let is_absent =
                matches!(error, EngineError::Hub(HubError::NotCached { .. } | HubError::Incomplete { .. }));
            let mut hint = error.hint();
            if is_absent && download == Download::Ask && !can_ask && !config.hub.offline {
                hint = hint.map(|hint| format!("{hint}; or give --yes, and it is downloaded first"));
            }
            Err(CliError::Engine { error: Box::new(error), hint })
        }
    }
}

/// Whether the user wants this download.
fn agrees(plan: &PullPlan, download: Download) -> Result<bool> {
    let (id, size) = (&plan.id, output::bytes(plan.missing_bytes()));
    if download == Download::Agreed {
        output::note(&format!("{id} is not on this machine: downloading {size}"));
        return Ok(true);
    }
    input::ask(&format!("{id} is not on this machine. Download {size}?"), true)
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
    let cache = ModelCache::from_loader(options, LocalLoader::from_config(config));
    let opener = ModelOpener::from_configuration(configuration.clone()).with_config(config);
    let lease = opener
        .with_progress(|step| {
            if let (true, LoadProgress::Found(folder)) = (is_verbose, step) {
                output::note(&format!("loading {} from {}", configuration.name(), folder.display()));
            }
        })
        .load_in(&cache)?;
    // Where nothing can be published, the model answers all the same.
    let state = RunState::publish(&cache).ok();
    let (container, time) = (lease.container().clone(), started.elapsed());
    let kept = Kept { _state: state, _lease: lease, _cache: cache };
    Ok(Loaded::new(container, time, kept, is_verbose))
}

impl Loaded {
    fn new(container: ModelContainer, time: Duration, kept: Kept, is_verbose: bool) -> Self {
        for warning in container.warnings() {
            output::warning(warning);
        }
        if is_verbose {
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
