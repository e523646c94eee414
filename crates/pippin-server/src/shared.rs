//! What all requests of a server share.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use pippin::ModelCache;
use pippin::cache::ModelLease;
use pippin::hub::{ModelConfiguration, ModelLocation, Resolver};
use pippin::loading::ModelOpener;
use pippin::models::ModelInfo;
use pippin::{EngineError, ModelContainer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::error;

use crate::error::{ApiError, ApiResult};
use crate::options::{Management, ServerOptions};
use crate::responses::ResponseStore;

/// The most characters of a model's name.
const MAX_NAME: usize = 256;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) cache: ModelCache,
    pub(crate) options: ServerOptions,
    pub(crate) started: u64,
    /// Answers that requests may go on from.
    pub(crate) responses: ResponseStore,
    /// One for each answer that may be under way.
    permits: Arc<Semaphore>,
    /// The same for each key.
    key_permits: Vec<Arc<Semaphore>>,
    /// What models are, by their folders.
    descriptions: Mutex<HashMap<PathBuf, Arc<ModelInfo>>>,
    is_ready: AtomicBool,
    phase: watch::Sender<Phase>,
    ids: AtomicU64,
    random: RandomState,
}

/// How far a server is with shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Running answers are finished, and no others begun.
    Draining,
    /// Running answers end now.
    Ending,
}

/// The right to have answers under way.
#[derive(Debug)]
pub(crate) struct Permit {
    _all: OwnedSemaphorePermit,
    _own: Option<OwnedSemaphorePermit>,
}

/// What a request needs before it can be answered.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) model: ModelContainer,
    /// As the request names it.
    pub(crate) name: String,
    pub(crate) lease: Lease,
    pub(crate) permit: Permit,
    /// Those with whom it shares what has been computed of prompts.
    pub(crate) namespace: Option<String>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The number of the key that was shown.
    pub(crate) key: Option<usize>,
    /// Whether he may load, unload, download and delete models.
    pub(crate) may_manage: bool,
}

impl Shared {
    pub(crate) fn new(cache: &ModelCache, options: ServerOptions) -> Arc<Self> {
        let limits = &options.limits;
        let most = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self {
            cache: cache.clone(),
            started: now(),
            responses: ResponseStore::new(limits.responses, limits.response_bytes),
            permits: most(limits.requests),
            key_permits: (0..options.keys.len()).map(|_| most(limits.requests_per_key)).collect(),
            descriptions: Mutex::default(),
            is_ready: AtomicBool::new(false),
            phase: watch::Sender::new(Phase::Serving),
            ids: AtomicU64::new(0),
            random: RandomState::new(),
            options,
        })
    }

    pub(crate) fn set_ready(&self) {
        self.is_ready.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Goes on to a phase, never back.
    pub(crate) fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let is_later = phase > *now;
            *now = phase.max(*now);
            is_later
        });
    }

    /// Waits until this phase has been reached.
    pub(crate) async fn reached(&self, phase: Phase) {
        // The sender is in `self`: it is never gone.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    /// Answers that are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.options.limits.requests.saturating_sub(self.permits.available_permits())
    }

    /// A new id that nobody can guess.
    pub(crate) fn new_id(&self) -> String {
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}{:08x}", self.random.hash_one(number), number & 0xffff_ffff)
    }

    /// The right to so many answers; a refusal where too many are under way already.
    pub(crate) fn permit(&self, caller: &Caller, answers: usize) -> ApiResult<Permit> {
        if self.phase() != Phase::Serving {
            return Err(ApiError::shutting_down());
        }
        let limits = &self.options.limits;
        let own = caller.key.and_then(|key| self.key_permits.get(key));
        let of_key =
            |permits| take(permits, answers, limits.requests_per_key, "this key", "max_requests_per_key");
        let own = own.map(of_key).transpose()?;
        Ok(Permit {
            _all: take(&self.permits, answers, limits.requests, "the server", "max_requests")?,
            _own: own,
        })
    }

    /// The right to so many answers, and the model that gives them.
    pub(crate) async fn ready(
        self: &Arc<Self>,
        caller: &Caller,
        name: Option<String>,
        answers: usize,
    ) -> ApiResult<Ready> {
        let permit = self.permit(caller, answers)?;
        let (lease, name) = self.model(name).await?;
        let Some(model) = lease.container() else { return Err(ApiError::no_model(&name)) };
        Ok(Ready { model, name, lease, permit, namespace: self.namespace(caller) })
    }

    /// The name under which a key's prompts are remembered, unless all are remembered together.
    fn namespace(&self, caller: &Caller) -> Option<String> {
        let key = caller.key.filter(|_| !self.options.shared_prefixes)?;
        let own = self.options.keys.len();
        match (&self.options.management, key.checked_sub(own)) {
            (Management::Keys(keys), Some(number)) => keys.name(number),
            _ => self.options.keys.name(key),
        }
    }

    /// The model of a request: at once if it is loaded, else when it has been. Whoever stops waiting cancels the load, unless
    /// somebody else waits for it too.
    async fn model(self: &Arc<Self>, name: Option<String>) -> ApiResult<(Lease, String)> {
        let Some(name) = name.or_else(|| self.options.models.first().map(|(name, _)| name.clone())) else {
            return Err(ApiError::field("model", "the name of a model: see /v1/models"));
        };
        let configuration = {
            let (shared, name) = (Arc::clone(self), name.clone());
            blocking(move || shared.configuration(&name)).await??
        };
        // What it is called where it comes from, if that is not how it is asked for.
        let id = match &configuration.location {
            ModelLocation::Hub { id, .. } if !name.contains('/') => Some(id.clone()),
            _ => None,
        };
        let task = ModelOpener::from_configuration(configuration).spawn_in(&self.cache);
        let lease = match task {
            Ok(task) => tokio::select! {
                lease = task => lease,
                () = self.reached(Phase::Ending) => return Err(ApiError::shutting_down()),
            },
            Err(error) => Err(error),
        };
        let lease = lease.map_err(|error| match (error.root(), id) {
            (EngineError::Hub(_), Some(id)) => ApiError::not_downloaded(&name, &id),
            (EngineError::Hub(_), None) => ApiError::no_model(&name),
            _ => self.fault(error),
        })?;
        Ok((Lease(Some(lease)), name))
    }

    /// The model that a request may mean by a name.
    pub(crate) fn configuration(&self, name: &str) -> ApiResult<ModelConfiguration> {
        let known = self.options.models.iter().find(|(known, _)| known == name);
        if let Some((_, model)) = known {
            return self.cache.configuration(model).map_err(|error| self.fault(error));
        }
        if self.options.local_models.is_none() || !is_hub_name(name) {
            return Err(ApiError::no_model(name));
        }
        match self.cache.configuration(name) {
            // A folder that happens to have the name is the owner's own affair, and the model that comes with Pippin is none of
            // the hub: it is served where it is named.
            Ok(configuration) if matches!(configuration.location, ModelLocation::Hub { .. }) => {
                Ok(configuration)
            }
            _ => Err(ApiError::no_model(name)),
        }
    }

    /// What a client is told of an error; what it need not know goes to the log.
    pub(crate) fn fault(&self, error: EngineError) -> ApiError {
        let text = error.to_string();
        let answer = ApiError::from(self.named(error));
        if answer.status.is_server_error() {
            error!(code = answer.code, "{text}");
        }
        answer
    }

    /// An error about room with models by the names that clients know, which are no folders.
    fn named(&self, error: EngineError) -> EngineError {
        let shown = |model: &str| {
            let name = self.name_of(model);
            let last = || Path::new(&name).file_name().map(|last| last.to_string_lossy().into_owned());
            if Path::new(&name).is_absolute() { last().unwrap_or_default() } else { name }
        };
        match error.root() {
            EngineError::OverBudget { model, needed, budget, device, held } => {
                let mut held = held.clone();
                held.iter_mut().for_each(|held| held.model = shown(&held.model));
                let (model, needed) = (shown(model), needed.clone());
                EngineError::OverBudget { model, needed, budget: *budget, device: *device, held }
            }
            EngineError::TooManyModels { model, limit, held } => {
                let mut held = held.clone();
                held.iter_mut().for_each(|held| held.model = shown(&held.model));
                EngineError::TooManyModels { model: shown(model), limit: *limit, held }
            }
            _ => error,
        }
    }

    /// The models that requests may name: those that are served, and those that are on this machine, by their ids.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.options.models.iter().map(|(name, _)| name.clone()).collect();
        if let Some(cache) = &self.options.local_models {
            // What cannot be read is not there.
            let local = cache.models().unwrap_or_default().into_iter();
            let whole =
                local.filter(|model| model.revisions.first().is_some_and(|first| first.problem.is_none()));
            names.extend(whole.map(|model| model.id));
        }
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    /// The name under which requests know a model of the cache.
    pub(crate) fn name_of(&self, model: &str) -> String {
        let served = self.options.models.iter().find(|(_, loaded)| {
            let configuration = self.cache.configuration(loaded);
            configuration.is_ok_and(|configuration| configuration.name() == model)
        });
        served.map_or_else(|| model.to_owned(), |(name, _)| name.clone())
    }

    /// The folder of a model that a request may name.
    pub(crate) fn directory(&self, name: &str) -> Option<PathBuf> {
        let configuration = self.configuration(name).ok()?;
        match &configuration.location {
            ModelLocation::Directory(folder) => Some(folder.clone()),
            _ => {
                let resolver = Resolver { cache: self.options.local_models.clone(), ..Resolver::from_env() };
                resolver.locate(&configuration).ok().map(|found| found.directory)
            }
        }
    }

    /// What the model in a folder is. `None`: it cannot be read.
    pub(crate) fn description(&self, directory: &Path) -> Option<Arc<ModelInfo>> {
        let lock = || self.descriptions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(directory) {
            return Some(Arc::clone(known));
        }
        let info = Arc::new(pippin::models::describe(directory).ok()?);
        lock().insert(directory.to_owned(), Arc::clone(&info));
        Some(info)
    }

    /// Whether a request may name this model.
    pub(crate) fn knows(&self, name: &str) -> bool {
        if self.options.models.iter().any(|(known, _)| known == name) {
            return true;
        }
        // An alias, or an id in another case, is as good as the id that is listed.
        let id = match self.configuration(name).map(|configuration| configuration.location) {
            Ok(ModelLocation::Hub { id, .. }) => id,
            _ => return false,
        };
        self.names().iter().any(|known| known.eq_ignore_ascii_case(&id))
    }
}

/// The right to so many answers, of `most` that `whose` limit lets be under way at a time.
fn take(
    permits: &Arc<Semaphore>,
    answers: usize,
    most: usize,
    whose: &str,
    setting: &str,
) -> ApiResult<OwnedSemaphorePermit> {
    if answers > most.max(1) {
        // However long it waits.
        let message = format!(
            "n: {answers} answers are more than {whose} may have under way at a time: {most} ({setting})"
        );
        return Err(ApiError::invalid(message).at("n"));
    }
    let count = u32::try_from(answers).unwrap_or(u32::MAX);
    Arc::clone(permits).try_acquire_many_owned(count).map_err(|_| {
        let message =
            format!("{whose} has as many requests under way as it may have ({setting}); try again later");
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, Some("rate_limit_exceeded"), message).again_after(1)
    })
}

/// Whether a name can be that of a model of the hub, and is no path.
fn is_hub_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.starts_with(['/', '.', '~', '-'])
        && !name.contains("..")
        && !name.contains("://")
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/@".contains(&byte))
        && !Path::new(name).is_absolute()
        // C:/models
        && name.as_bytes().get(1) != Some(&b':')
}

/// A model in use. What may take time when it is given back does not hold up other requests.
#[derive(Debug)]
pub(crate) struct Lease(Option<ModelLease>);

impl Lease {
    /// A handle to the model.
    pub(crate) fn container(&self) -> Option<ModelContainer> {
        self.0.as_ref().map(|lease| lease.container().clone())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let lease = self.0.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(lease)));
        }
    }
}

/// Does what takes time on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> ApiResult<T> {
    tokio::task::spawn_blocking(work).await.map_err(|failed| {
        error!("a request has failed: {failed}");
        let message = "the request failed; the server's log says why";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, Some("internal_error"), message)
    })
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_no_names() {
        for name in ["qwen3-4b", "mlx-community/Qwen3-4B-4bit", "a/b@main", "a/b:Q4_K_M", "pippin-nano"] {
            assert!(is_hub_name(name), "{name}");
        }
        for name in [
            "",
            "/etc",
            "./x",
            "../x",
            "a/../b",
            "~/x",
            "C:/x",
            "c:\\x",
            "https://hf.co/a/b",
            "a b",
            "é",
            "-x",
        ] {
            assert!(!is_hub_name(name), "{name}");
        }
        assert!(!is_hub_name(&"x".repeat(MAX_NAME + 1)));
    }

    #[test]
    fn phases_only_advance() {
        let cache = ModelCache::new(pippin::cache::CacheOptions::default());
        let shared = Shared::new(&cache, ServerOptions::default());
        shared.advance(Phase::Ending);
        shared.advance(Phase::Draining);
        assert_eq!(shared.phase(), Phase::Ending);
        assert!(shared.permit(&Caller { key: None, may_manage: false }, 1).is_err());
    }
}
