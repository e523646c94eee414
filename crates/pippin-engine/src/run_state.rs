//! Which models the processes of this machine have loaded: what `pippin ps` shows.
//!
//! A process that wants to be seen publishes a small file, and keeps a lock for as long as it lives. The system lets go
//! of the lock however the process ends, so a file whose lock is free is a leftover: it is not shown, and removed.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::cache::WeakCache;
use crate::{CacheEvent, LoadedModel, ModelCache, ModelPerformance, PerformanceMonitor};

/// How often a process looks whether its numbers have changed.
const INTERVAL: Duration = Duration::from_secs(1);
/// Larger files are not ours.
const MAX_BYTES: u64 = 1 << 20;
/// How the lock of a process is called until it is locked.
const NEW: &str = "new";
/// The form of the files; others are not read.
const VERSION: u32 = 2;

/// A process with models, as it has published itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunningProcess {
    /// The form of what follows.
    version: u32,
    /// The process.
    pub pid: u32,
    /// The models that it has loaded, the most recently used first.
    pub models: Vec<RunningModel>,
}

/// A model that a process has loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunningModel {
    /// Its name.
    pub model: String,
    /// A short id of what exactly is loaded.
    pub id: String,
    /// What it takes, in bytes, as the memory budget counts.
    pub bytes: u64,
    /// The device in words.
    pub device: String,
    /// The longest sequence in tokens.
    pub context: usize,
    /// When it was loaded, in seconds since 1970.
    pub since: u64,
    /// When it will be unloaded if nobody uses it, in seconds since 1970. `None`: it is in use, or kept for ever.
    pub until: Option<u64>,
    /// Whether somebody uses it.
    pub in_use: bool,
    /// Its numbers over all its requests.
    pub performance: Option<ModelPerformance>,
}

/// Publishes what a cache has loaded, until it is dropped.
///
/// A library does this only when asked to: a process that does not want to be seen leaves no trace.
#[derive(Debug)]
pub struct RunState {
    files: Arc<Mutex<Option<Files>>>,
}

impl RunState {
    /// Publishes what this cache has loaded, in the [`run_folder`].
    ///
    /// # Errors
    ///
    /// There is no such folder, or it cannot be written to.
    pub fn publish(cache: &ModelCache) -> io::Result<Self> {
        let folder = run_folder().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "neither XDG_RUNTIME_DIR nor a home folder is set")
        })?;
        Self::publish_in(cache, &folder)
    }

    /// Publishes what this cache has loaded, in a folder of one's own.
    ///
    /// # Errors
    ///
    /// The folder cannot be written to, or this process publishes another cache there.
    pub fn publish_in(cache: &ModelCache, folder: &Path) -> io::Result<Self> {
        let files = Arc::new(Mutex::new(Some(Files::new(folder, std::process::id())?)));
        let events = cache.subscribe();
        let (weak, shared) = (cache.downgrade(), Arc::clone(&files));
        std::thread::Builder::new()
            .name("pippin-state".to_owned())
            .spawn(move || keep_up(&weak, &events, &shared))?;
        let state = Self { files };
        if let Some(files) = &mut *lock(&state.files) {
            files.write(cache);
        }
        Ok(state)
    }
}

impl Drop for RunState {
    fn drop(&mut self) {
        // The thread notices; it need not be waited for.
        *lock(&self.files) = None;
    }
}

fn lock(files: &Mutex<Option<Files>>) -> MutexGuard<'_, Option<Files>> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes the file anew whenever something has changed.
fn keep_up(cache: &WeakCache, events: &Receiver<CacheEvent>, files: &Mutex<Option<Files>>) {
    loop {
        let is_over = matches!(events.recv_timeout(INTERVAL), Err(RecvTimeoutError::Disconnected));
        // Of many events at once, one state is the result.
        while events.try_recv().is_ok() {}
        let Some(cache) = cache.upgrade() else {
            *lock(files) = None;
            return;
        };
        match &mut *lock(files) {
            Some(files) if !is_over => files.write(&cache),
            _ => return,
        }
    }
}

/// The files of a process. Dropping removes them.
#[derive(Debug)]
struct Files {
    state: PathBuf,
    lock: PathBuf,
    /// Holds the lock.
    _locked: File,
    pid: u32,
    written: Option<RunningProcess>,
}

impl Files {
    fn new(folder: &Path, pid: u32) -> io::Result<Self> {
        create_private(folder)?;
        let lock = folder.join(format!("{pid}.lock"));
        let file = claim(folder, pid, || ())?;
        let state = folder.join(format!("{pid}.json"));
        // Of an earlier process with this number, whose lock nobody has found free yet.
        let _ = fs::remove_file(&state);
        Ok(Self { state, lock, _locked: file, pid, written: None })
    }

    /// Writes what a cache has loaded, if it is not what stands there. A process without models has no file.
    fn write(&mut self, cache: &ModelCache) {
        let process = RunningProcess {
            version: VERSION,
            pid: self.pid,
            models: cache
                .models()
                .iter()
                .filter(|model| model.is_loaded)
                .map(|model| RunningModel::new(model, cache.monitor()))
                .collect(),
        };
        if self.written.as_ref().is_some_and(|written| written.is_like(&process)) {
            return;
        }
        // What cannot be published is only not shown.
        let outcome = if process.models.is_empty() {
            fs::remove_file(&self.state).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
        } else {
            replace(&self.state, &process)
        };
        self.written = outcome.is_ok().then_some(process);
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.state);
        let _ = fs::remove_file(&self.lock);
    }
}

impl RunningProcess {
    /// Whether another state need not be written. The time of unloading is computed from what is left, and may jitter.
    fn is_like(&self, other: &Self) -> bool {
        let near = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => a.abs_diff(b) <= 1,
            (a, b) => a == b,
        };
        self.models.len() == other.models.len()
            && self
                .models
                .iter()
                .zip(&other.models)
                .all(|(a, b)| near(a.until, b.until) && *a == RunningModel { until: a.until, ..b.clone() })
    }
}

impl RunningModel {
    fn new(model: &LoadedModel, monitor: &PerformanceMonitor) -> Self {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Self {
            model: model.model.clone(),
            id: model.id.clone(),
            bytes: model.bytes,
            device: model.device.clone().unwrap_or_default(),
            context: model.context.unwrap_or_default(),
            since: model.loaded_at.map_or(0, seconds),
            until: model.expires_in.and_then(|rest| SystemTime::now().checked_add(rest)).map(seconds),
            in_use: model.is_in_use,
            performance: monitor.model(&model.model),
        }
    }
}

/// Where processes publish their models: `$XDG_RUNTIME_DIR/pippin/run`, else `pippin/run` in `$XDG_CACHE_HOME` or
/// `~/.cache`; on Windows in `%LOCALAPPDATA%`.
pub fn run_folder() -> Option<PathBuf> {
    let variable =
        |name| std::env::var_os(name).map(pippin_hub::expand_path).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().filter(|home| home.is_absolute());
    let parent = variable("XDG_RUNTIME_DIR")
        .or_else(|| variable("XDG_CACHE_HOME"))
        .or_else(|| if cfg!(windows) { variable("LOCALAPPDATA") } else { Some(home()?.join(".cache")) })?;
    Some(parent.join("pippin").join("run"))
}

/// The processes that have published models, by their number. What ended processes have left behind is removed.
///
/// # Errors
///
/// The folder exists, but cannot be read.
pub fn running() -> io::Result<Vec<RunningProcess>> {
    run_folder().map_or_else(|| Ok(Vec::new()), |folder| running_in(&folder))
}

/// [`running`] in a folder of one's own.
///
/// # Errors
///
/// The folder exists, but cannot be read.
pub fn running_in(folder: &Path) -> io::Result<Vec<RunningProcess>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let pid = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u32>().ok());
        let (Some(pid), Some(extension)) = (pid, path.extension().and_then(|extension| extension.to_str()))
        else {
            continue;
        };
        match extension {
            "json" if is_locked(&path.with_extension("lock")) => {
                found.extend(read(&path).filter(|process| process.pid == pid));
            }
            // A lock without a state is a process that has no models, or has just begun.
            "json" | "lock" | NEW if !is_locked(&path.with_extension("lock")) => {
                clean_up(folder, pid);
            }
            _ => {}
        }
    }
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

/// Makes the lock of a process. It is locked under another name before it gets its own: who looks never finds it free.
/// `between` is called where it is made, but not locked yet: for tests, as the moment in which somebody may look.
fn claim(folder: &Path, pid: u32, between: impl FnOnce()) -> io::Result<File> {
    let path = folder.join(format!("{pid}.lock"));
    // Keeps those away who remove what an earlier process with this number left. One that stands still there is not waited
    // for: this process is not kept from its work by another.
    let broom = broom(folder)?;
    for _ in 0..100 {
        match broom.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            _ => break,
        }
    }
    if is_locked(&path) {
        let problem = "this process publishes its models already";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
    }
    let new = folder.join(format!("{pid}.{NEW}"));
    let file = private_file(&new, false)?;
    between();
    let outcome = file.lock().and_then(|()| fs::rename(&new, &path));
    if let Err(error) = outcome {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    Ok(file)
}

/// Whether a living process holds this lock.
fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    // Shared, so that two who look do not take each other for the owner.
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// What whoever removes leftovers, or begins, locks: the folder itself, so that nothing is left of it.
#[cfg(unix)]
fn broom(folder: &Path) -> io::Result<File> {
    File::open(folder)
}

/// What whoever removes leftovers, or begins, locks. It stays: a lock that comes and goes would need one, too.
#[cfg(not(unix))]
fn broom(folder: &Path) -> io::Result<File> {
    private_file(&folder.join("clean-up"), false)
}

/// Removes the files of a process that has ended. Meanwhile no process with the same number begins.
fn clean_up(folder: &Path, pid: u32) {
    let Ok(broom) = broom(folder) else { return };
    // Where folders cannot be locked, there is only less to keep apart.
    if matches!(broom.try_lock(), Err(TryLockError::WouldBlock)) {
        return;
    }
    let file = |extension: &str| folder.join(format!("{pid}.{extension}"));
    // It may have begun before the broom was taken.
    if !is_locked(&file("lock")) && !is_locked(&file(NEW)) {
        for extension in ["json", "lock", NEW] {
            let _ = fs::remove_file(file(extension));
        }
    }
}

fn read(path: &Path) -> Option<RunningProcess> {
    use std::io::Read as _;

    let mut text = String::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok().filter(|process: &RunningProcess| process.version == VERSION)
}

fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Opens a file to write, for nobody else to read.
fn private_file(path: &Path, truncate: bool) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(truncate);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Replaces a file as a whole: who reads it sees the old state or the new one.
fn replace(path: &Path, process: &RunningProcess) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let outcome = private_file(&temporary, true)
        .and_then(|mut file| file.write_all(&serde_json::to_vec(process)?))
        .and_then(|()| fs::rename(&temporary, path));
    if outcome.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeModel, Kind, processor};
    use crate::{
        CacheOptions, GenerateParameters, LoadOptions, LoadPlan, LoadReporter, ModelConfiguration,
        ModelContainer, ModelLoader, ModelMemory, Result,
    };

    struct Fakes;

    impl ModelLoader for Fakes {
        fn configuration(&self, model: &str) -> Result<ModelConfiguration> {
            Ok(ModelConfiguration::hub(model))
        }

        fn plan(&self, _: &ModelConfiguration, options: &LoadOptions, _: u64) -> Result<LoadPlan> {
            Ok(LoadPlan::new(options.clone(), ModelMemory::new(1, 1, 1, 64)))
        }

        fn load(
            &self,
            configuration: &ModelConfiguration,
            plan: &LoadPlan,
            _: &LoadReporter<'_>,
        ) -> Result<ModelContainer> {
            ModelContainer::from_parts(
                || Ok(Box::new(FakeModel::new(Kind::full(), 64).0)),
                processor(),
                configuration.clone(),
                &plan.options,
            )
        }
    }

    fn rate(model: &RunningModel) -> Option<f64> {
        model.performance.as_ref()?.decode_tokens_per_second.last
    }

    fn wait_for(condition: impl Fn() -> bool) {
        let begin = std::time::Instant::now();
        while !condition() {
            assert!(begin.elapsed() < Duration::from_secs(30), "it never happens");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn loaded_models_are_seen_until_the_end() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().join("pippin").join("run");
        let running = || running_in(&folder).expect("read");
        assert_eq!(running(), []);
        let cache = ModelCache::from_loader(CacheOptions::default(), Fakes);
        let state = RunState::publish_in(&cache, &folder).expect("published");
        // One process, one file.
        assert!(RunState::publish_in(&cache, &folder).is_err());
        assert_eq!(running(), []);

        let lease = cache.get("a/b").expect("loaded");
        wait_for(|| !running().is_empty());
        let processes = running();
        assert_eq!((processes.len(), processes[0].pid), (1, std::process::id()));
        let model = &processes[0].models[0];
        assert_eq!((model.model.as_str(), model.context, model.in_use), ("a/b", 64, true));
        assert_eq!((model.device.as_str(), model.until, model.id.len()), ("custom", None, 12));
        assert!(model.bytes > 0 && model.since > 0);

        let parameters = GenerateParameters { max_tokens: Some(20), ..GenerateParameters::greedy() };
        lease.generate(vec![1], &parameters).expect("accepted").collect_text().expect("no error");
        drop(lease);
        wait_for(|| {
            running().first().is_some_and(|process| {
                let model = &process.models[0];
                !model.in_use && model.until > Some(model.since) && rate(model) > Some(0.0)
            })
        });
        #[cfg(unix)]
        for (path, mode) in
            [(folder.clone(), 0o700), (folder.join(format!("{}.json", std::process::id())), 0o600)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).expect("exists").permissions().mode() & 0o777, mode, "{path:?}");
        }

        cache.unload_idle();
        wait_for(|| running().is_empty());
        cache.preload("a/b").expect("loaded");
        wait_for(|| !running().is_empty());
        drop(state);
        assert_eq!(fs::read_dir(&folder).expect("exists").count(), 0);
    }

    /// What a process with one model does to be seen, and how it is seen.
    fn appears(folder: &Path, pid: u32, between: impl FnOnce()) -> Vec<u32> {
        let lock = claim(folder, pid, between).expect("claimed");
        let process = RunningProcess { version: VERSION, pid, models: Vec::new() };
        replace(&folder.join(format!("{pid}.json")), &process).expect("written");
        let seen = running_in(folder).expect("read").iter().map(|process| process.pid).collect();
        drop(lock);
        seen
    }

    #[test]
    fn a_process_that_is_looked_at_while_it_begins_is_seen() {
        let root = tempfile::tempdir().expect("a temporary folder");
        // Between making the lock file and locking it: the first time, and when the number is used again.
        for _ in 0..3 {
            let look = || assert_eq!(running_in(root.path()).expect("read"), []);
            assert_eq!(appears(root.path(), 4242, look), [4242]);
        }
        // One that ended there.
        fs::write(root.path().join("77.new"), "").expect("written");
        assert_eq!(running_in(root.path()).expect("read"), []);
        assert_eq!(fs::read_dir(root.path()).expect("exists").count(), 0);
    }

    #[test]
    fn a_process_that_many_look_at_is_seen() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                        running_in(root.path()).expect("read");
                    }
                });
            }
            let seen: Vec<_> = (0..200).map(|_| appears(root.path(), 4242, || ())).collect();
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(seen.iter().all(|seen| *seen == [4242]), "{seen:?}");
        });
    }

    #[test]
    fn what_ended_processes_left_behind_is_removed() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).expect("written");
        write("4242.json", r#"{"version": 2, "pid": 4242, "models": []}"#);
        write("4242.lock", "");
        write("77.json", "{}");
        write("notes.txt", "not ours");
        write("other.json", "not ours either");
        // Of a living process, but not what it should be.
        write("88.json", "nonsense");
        let alive = File::create(root.path().join("88.lock")).expect("created");
        alive.lock().expect("locked");
        assert_eq!(running_in(root.path()).expect("read"), []);
        let mut left: Vec<String> = fs::read_dir(root.path())
            .expect("exists")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["88.json", "88.lock", "notes.txt", "other.json"]);
    }
}
