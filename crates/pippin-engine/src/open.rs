//! One call from a name to a loaded model.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pippin_hub::{
    HubCache, HubClient, HubError, HubOptions, ModelConfiguration, ModelLocation, ModelRegistry, PullEvent,
    PullOptions, PullPlan, ResolvedModel, Resolver,
};

use crate::channel::{Receiver, Wait, channel};
use crate::estimate::MemoryPlan;
use crate::scheduler::panic_message;
use crate::{
    CancelHandle, EngineConfig, EngineError, LoadOptions, LoadRequest, ModelCache, ModelContainer,
    ModelLease, Result,
};

/// How far the way from a name to a model has come, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadProgress {
    /// Files of the model are missing, and will be downloaded.
    Downloading {
        /// `organisation/name`.
        id: String,
        /// Bytes of all its files.
        total: u64,
        /// Bytes of them that are not on this machine.
        missing: u64,
    },
    /// What happens during the download: bytes so far some ten times a second, retries, finished files.
    Download(PullEvent),
    /// The model's folder was found.
    Found(PathBuf),
    /// Its weights are being read.
    Loading,
    /// It answers from now on.
    Ready,
}

type Progress<'a> = Box<dyn FnMut(LoadProgress) + Send + 'a>;
type Consent<'a> = Box<dyn FnMut(&PullPlan) -> bool + Send + 'a>;

/// Finds a model, downloads it if asked to, and loads it.
///
/// ```no_run
/// use pippin_engine::{LoadOptions, LoadProgress, ModelContainer};
///
/// let model = ModelContainer::open("qwen3-4b")
///     .with_download(true)
///     .with_options(LoadOptions::default().with_context(8192))
///     .with_progress(|progress| {
///         if let LoadProgress::Downloading { id, missing, .. } = progress {
///             eprintln!("downloading {id}: {missing} bytes");
///         }
///     })
///     .load()?;
/// # Ok::<(), pippin_engine::EngineError>(())
/// ```
///
/// [`load`](Self::load) works on the calling thread, [`spawn`](Self::spawn) on one of its own. [`load_in`](Self::load_in)
/// and [`spawn_in`](Self::spawn_in) load into a [`ModelCache`]; [`fetch`](Self::fetch) does everything but load.
///
/// It can be cancelled between its stages, and at any time during a download: what was downloaded is kept.
pub struct ModelOpener<'a> {
    model: Model,
    config: Option<EngineConfig>,
    options: Option<LoadOptions>,
    /// `None`: nothing is downloaded.
    consent: Option<Consent<'a>>,
    progress: Option<Progress<'a>>,
    cancel: CancelHandle,
}

#[derive(Clone, Debug)]
enum Model {
    Named(String),
    Configured(Box<ModelConfiguration>),
}

impl fmt::Debug for ModelOpener<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelOpener")
            .field("model", &self.model)
            .field("options", &self.options)
            .field("downloads", &self.consent.is_some())
            .finish_non_exhaustive()
    }
}

impl ModelContainer {
    /// Opens a model by any of its names: a folder, a hub id, an alias, or `pippin-nano`. What is returned says how, and
    /// then loads it.
    pub fn open<'a>(model: impl Into<String>) -> ModelOpener<'a> {
        ModelOpener::new(model)
    }
}

impl<'a> ModelOpener<'a> {
    /// Opens a model by any of its names: a folder, a hub id, an alias, or `pippin-nano`.
    pub fn new(model: impl Into<String>) -> Self {
        Self::from_model(Model::Named(model.into()))
    }

    /// Opens a model that has been configured.
    pub fn from_configuration(configuration: ModelConfiguration) -> Self {
        Self::from_model(Model::Configured(Box::new(configuration)))
    }

    fn from_model(model: Model) -> Self {
        Self {
            model,
            config: None,
            options: None,
            consent: None,
            progress: None,
            cancel: CancelHandle::default(),
        }
    }

    /// By these settings: they say where models are kept, which hub is asked, and, without
    /// [`with_options`](Self::with_options), how the model is loaded. Without this, the environment says where models are
    /// (`HF_HOME` and so on), and the defaults how they are loaded.
    #[must_use]
    pub fn with_config(mut self, config: &EngineConfig) -> Self {
        self.config = Some(config.clone());
        self
    }

    /// Loads it with these options.
    #[must_use]
    pub fn with_options(mut self, options: LoadOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// Whether a hub model that is not on this machine, or not whole, is downloaded. It is not, unless this says so; nor
    /// where the settings or `HF_HUB_OFFLINE` forbid the network.
    #[must_use]
    pub fn with_download(mut self, is_wanted: bool) -> Self {
        self.consent = if is_wanted { Some(Box::new(|_| true)) } else { None };
        self
    }

    /// Downloads a hub model that is not on this machine if this function, which is told what it takes, agrees. When it
    /// does not, the error is the same as without a download. It is asked again if the download has become larger since.
    #[must_use]
    pub fn with_download_if(mut self, consent: impl FnMut(&PullPlan) -> bool + Send + 'a) -> Self {
        self.consent = Some(Box::new(consent));
        self
    }

    /// Calls this on the thread that does the work.
    #[must_use]
    pub fn with_progress(mut self, callback: impl FnMut(LoadProgress) + Send + 'a) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Lets this handle end it with [`EngineError::LoadCancelled`].
    #[must_use]
    pub fn with_cancel(mut self, handle: &CancelHandle) -> Self {
        self.cancel = handle.clone();
        self
    }

    /// Finds the model, and downloads it if that was asked for, but does not load it.
    ///
    /// # Errors
    ///
    /// The name is unknown, the model is not on this machine and was not to be downloaded, the download failed, or it was
    /// cancelled.
    pub fn fetch(mut self) -> Result<ResolvedModel> {
        self.find()
    }

    /// Finds the model, downloads it if that was asked for, and loads it.
    ///
    /// # Errors
    ///
    /// As for [`fetch`](Self::fetch); or its files are malformed, or it does not fit the memory.
    pub fn load(mut self) -> Result<ModelContainer> {
        let found = self.find()?;
        let options = self.options().with_draft_found(&self.resolver()?)?;
        self.report(LoadProgress::Found(found.directory.clone()));
        let plan = MemoryPlan::of_folder(&found.directory, &options)?;
        if plan.memory.total() > plan.budget {
            return Err(EngineError::OverBudget {
                model: found.configuration.name(),
                needed: Box::new(plan.memory),
                budget: plan.budget,
                device: options.device.resolved(),
                held: Vec::new(),
            });
        }
        self.report(LoadProgress::Loading);
        self.check(&found.configuration)?;
        let options = plan.options(&options);
        let container = ModelContainer::load_folder(&found.configuration, found.directory, &options)?;
        self.check(&found.configuration)?;
        self.report(LoadProgress::Ready);
        Ok(container)
    }

    /// The same with a cache, whose loader knows the name and whose options say how it is loaded. A model that is loaded
    /// already is there at once. Whatever is downloaded has to come where the cache's loader looks for it: give
    /// [`with_config`](Self::with_config) the configuration that the cache was made from.
    ///
    /// # Errors
    ///
    /// As for [`fetch`](Self::fetch) and [`ModelCache::get_with`].
    pub fn load_in(mut self, cache: &ModelCache) -> Result<ModelLease> {
        let configuration = match &self.model {
            Model::Named(name) => cache.configuration(name)?,
            Model::Configured(configuration) => (**configuration).clone(),
        };
        if self.consent.is_some() && !cache.holds(&configuration) {
            self.locate(&configuration)?;
        }
        let Self { mut progress, cancel, .. } = self;
        let request = LoadRequest::new().with_cancel(&cancel).with_progress(|step| {
            if let Some(progress) = &mut progress {
                progress(step);
            }
        });
        cache.get_configured(&configuration, request)
    }

    fn options(&self) -> LoadOptions {
        self.options.clone().unwrap_or_else(|| match (&self.config, &self.model) {
            (None, _) => LoadOptions::default(),
            (Some(config), Model::Named(name)) => config.load_options(name),
            (Some(config), Model::Configured(configuration)) => config.load_options(&configuration.name()),
        })
    }

    fn report(&mut self, progress: LoadProgress) {
        if let Some(callback) = &mut self.progress {
            callback(progress);
        }
    }

    fn check(&self, configuration: &ModelConfiguration) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(EngineError::LoadCancelled { model: configuration.name() });
        }
        Ok(())
    }

    fn find(&mut self) -> Result<ResolvedModel> {
        let configuration = match &self.model {
            Model::Named(name) => self.resolver()?.configuration(name)?,
            Model::Configured(configuration) => (**configuration).clone(),
        };
        self.locate(&configuration)
    }

    /// Finds a model's folder, and fills it if that was asked for.
    fn locate(&mut self, configuration: &ModelConfiguration) -> Result<ResolvedModel> {
        self.check(configuration)?;
        let resolver = self.resolver()?;
        let error = match resolver.locate(configuration) {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        match (&error, &configuration.location) {
            (
                HubError::NotCached { .. } | HubError::Incomplete { .. },
                ModelLocation::Hub { id, revision },
            ) => {
                if !self.download(configuration, id, revision)? {
                    return Err(error.into());
                }
            }
            _ => return Err(error.into()),
        }
        self.check(configuration)?;
        Ok(resolver.locate(configuration)?)
    }

    /// Downloads a model. Returns whether that was wanted.
    fn download(&mut self, configuration: &ModelConfiguration, id: &str, revision: &str) -> Result<bool> {
        let Some(mut consent) = self.consent.take() else { return Ok(false) };
        let (options, cache) = match &self.config {
            Some(config) => (config.hub_options()?, config.hub_cache()?),
            None => (HubOptions::from_env()?, HubCache::from_env()?),
        };
        if options.is_offline {
            return Ok(false);
        }
        let client = HubClient::new(options)?;
        let mut plan = client.plan_of(&cache, id, revision, configuration.quantization.as_deref())?;
        loop {
            self.check(configuration)?;
            let shown = plan.missing_bytes();
            if !consent(&plan) {
                return Ok(false);
            }
            // While the question stood there, another process may have removed what was there already.
            plan.refresh(&cache);
            if plan.missing_bytes() <= shown {
                break;
            }
        }
        self.check(configuration)?;
        let (total, missing) = (plan.total_bytes(), plan.missing_bytes());
        self.report(LoadProgress::Downloading { id: plan.id.clone(), total, missing });
        let options = PullOptions::default().with_cancel(Arc::clone(&self.cancel.0));
        match client.pull(&cache, &plan, &options, |event| self.report(LoadProgress::Download(event.clone())))
        {
            Ok(_) => Ok(true),
            Err(HubError::Cancelled) => Err(EngineError::LoadCancelled { model: configuration.name() }),
            Err(error) => Err(error.into()),
        }
    }

    fn resolver(&self) -> Result<Resolver> {
        match &self.config {
            Some(config) => Ok(config.resolver()?),
            None => {
                ModelRegistry::local()?;
                Ok(Resolver::from_env())
            }
        }
    }
}

impl ModelOpener<'static> {
    /// [`load`](Self::load) on a thread of its own. Dropping what is returned cancels it.
    ///
    /// # Errors
    ///
    /// The operating system refuses the thread. What else may fail is the task's result.
    pub fn spawn(self) -> Result<LoadTask<ModelContainer>> {
        self.spawn_with(Self::load)
    }

    /// [`load_in`](Self::load_in) on a thread of its own. Dropping what is returned cancels it, unless somebody else waits
    /// for the same model.
    ///
    /// # Errors
    ///
    /// As for [`spawn`](Self::spawn).
    pub fn spawn_in(self, cache: &ModelCache) -> Result<LoadTask<ModelLease>> {
        let cache = cache.clone();
        self.spawn_with(move |opener| opener.load_in(&cache))
    }

    fn spawn_with<T: Send + 'static>(
        self,
        work: impl FnOnce(Self) -> Result<T> + Send + 'static,
    ) -> Result<LoadTask<T>> {
        let model = match &self.model {
            Model::Named(name) => name.clone(),
            Model::Configured(configuration) => configuration.name(),
        };
        let cancel = self.cancel.clone();
        let (sender, outcome) = channel();
        std::thread::Builder::new()
            .name("pippin-open".to_owned())
            .spawn(move || {
                let outcome = catch_unwind(AssertUnwindSafe(|| work(self))).unwrap_or_else(|panic| {
                    Err(EngineError::ModelThreadDied { message: panic_message(&*panic) })
                });
                // Where nobody waits any more, the model goes as it came.
                let _ = sender.send(outcome);
            })
            .map_err(EngineError::Thread)?;
        Ok(LoadTask { outcome, cancel, model })
    }
}

/// A model on its way, on a thread of its own: what [`ModelOpener::spawn`] returns. It is a [`Future`] of any runtime, too.
///
/// Dropping it cancels: nothing is loaded, or what was is unloaded.
#[derive(Debug)]
#[must_use = "dropping it cancels the load"]
pub struct LoadTask<T> {
    outcome: Receiver<Result<T>>,
    cancel: CancelHandle,
    model: String,
}

impl<T> LoadTask<T> {
    /// A handle to cancel it from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Waits for the model.
    ///
    /// # Errors
    ///
    /// Whatever ended it.
    pub fn wait(self) -> Result<T> {
        match self.receive(&mut Wait::Block) {
            Poll::Ready(outcome) => outcome,
            // Not reached: it has waited.
            Poll::Pending => Err(self.gone()),
        }
    }

    /// The model, if it is there: without waiting. It is given once.
    pub fn try_wait(&mut self) -> Poll<Result<T>> {
        self.receive(&mut Wait::Not)
    }

    fn receive(&self, wait: &mut Wait<'_, '_>) -> Poll<Result<T>> {
        self.outcome.receive(wait).map(|outcome| outcome.unwrap_or_else(|| Err(self.gone())))
    }

    /// What is said to those who ask again.
    fn gone(&self) -> EngineError {
        EngineError::LoadCancelled { model: self.model.clone() }
    }
}

impl<T> Future for LoadTask<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        self.receive(&mut Wait::Wake(context))
    }
}

impl<T> Drop for LoadTask<T> {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
