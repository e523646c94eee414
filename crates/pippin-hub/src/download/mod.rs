//! Downloads that survive anything.
//!
//! Threads fetch ranges of files, several at once, and write them to a [`Part`]; others follow behind and hash what is
//! on the disk, from the first byte on, so that a file is checked as soon as it is whole. Only then it gets its name.

pub(crate) mod part;
pub(crate) mod plan;
mod ranges;

use std::collections::VecDeque;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::part::{PIECE, Part};
use self::plan::{PlannedFile, PullPlan};
use self::ranges::Ranges;
use crate::http::Ask;
use crate::lock::FileLock;
use crate::verify::{Hasher, Records, hash_file};
use crate::{HubCache, HubClient, HubError, Result};

/// The most that one request asks for.
const MAX_CHUNK: u64 = 32 << 20;
/// The least that a file is divided into.
const MIN_CHUNK: u64 = 4 << 20;
/// For each so many bytes, a file gets another connection. What a connection has on its way, in the kernel's buffers
/// above all, is lost when the process is killed, and has to stay a small share of the file.
const BYTES_PER_CONNECTION: u64 = 50 << 20;
/// Left free on the disk.
const DISK_MARGIN: u64 = 32 << 20;
/// So much of a file is written to the disk at a time.
const FLUSH: u64 = 64 << 20;
/// How often progress is reported.
const TICK: Duration = Duration::from_millis(100);
/// How often a file whose content is wrong is fetched.
const MAX_WRONG: u32 = 2;

/// How a download is done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PullOptions {
    /// Requests at a time.
    pub connections: usize,
    /// Set by the caller, from any thread, to end the download. What has been fetched is kept.
    pub cancel: Arc<AtomicBool>,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { connections: 8, cancel: Arc::default() }
    }
}

impl PullOptions {
    /// The same, with so many requests at a time.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }
}

/// What happens during a download.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PullEvent {
    /// Bytes so far; comes some ten times a second.
    Progress {
        /// Bytes of the model that are on this machine, those of earlier attempts included.
        done: u64,
        /// Bytes of the model.
        total: u64,
        /// Bytes that were transferred in this download.
        transferred: u64,
    },
    /// Something failed and is tried again.
    Retry {
        /// The file.
        path: String,
        /// What happened.
        reason: String,
        /// After this time.
        wait: Duration,
    },
    /// Another process is downloading this file; it is waited for.
    Waiting {
        /// The file.
        path: String,
    },
    /// A file is there, and is what it should be.
    Finished {
        /// The file.
        path: String,
        /// Bytes.
        size: u64,
    },
}

/// A model that was downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PulledModel {
    /// `organisation/name`.
    pub id: String,
    /// The commit.
    pub commit: String,
    /// The folder with its files.
    pub directory: PathBuf,
    /// Bytes of its files.
    pub total_bytes: u64,
    /// Bytes that were transferred for it.
    pub transferred_bytes: u64,
}

impl HubClient {
    /// Downloads what a plan says, or what is missing of it.
    ///
    /// Files appear in the cache whole and checked, or not at all. Whatever ends a download, the next one goes on where
    /// it stopped. When another process downloads a file, it is waited for and its file is used.
    ///
    /// # Errors
    ///
    /// The hub cannot be reached or sends something else than it announced, the disk is full or cannot be written,
    /// the model is being removed, or the caller [cancelled](PullOptions::cancel).
    pub fn pull(
        &self,
        cache: &HubCache,
        plan: &PullPlan,
        options: &PullOptions,
        mut progress: impl FnMut(&PullEvent),
    ) -> Result<PulledModel> {
        if self.options().is_offline {
            return Err(HubError::Offline { what: format!("downloading {}", plan.id) });
        }
        let store = cache.store(&plan.id);
        let _in_use = crate::lock::share(cache.root(), &store.folder_name)?
            .ok_or_else(|| HubError::InUse { id: plan.id.clone() })?;
        store.create(&plan.commit)?;
        check_space(&store.folder, plan)?;
        let total = plan.total_bytes();
        let mut finished = 0;
        let mut transferred = 0;
        // Files with one content are one blob.
        let mut waiting: VecDeque<&PlannedFile> = plan.files.iter().collect();
        let mut is_first = true;
        while !waiting.is_empty() {
            // First whatever nobody else works on. Then one after the other of the rest, holding no lock while waiting:
            // two processes never wait for each other.
            let mut mine: Vec<(FileLock, &PlannedFile)> = Vec::new();
            let mut busy = VecDeque::new();
            for (at, file) in waiting.into_iter().enumerate() {
                let path = store.blob_lock(&file.hash);
                if mine.iter().any(|(_, other)| other.hash == file.hash) {
                    busy.push_back(file);
                    continue;
                }
                let lock = if is_first || at > 0 {
                    FileLock::try_exclusive(&path)?
                } else {
                    progress(&PullEvent::Waiting { path: file.path.clone() });
                    Some(FileLock::exclusive(&path, || {
                        if options.cancel.load(Ordering::Relaxed) { Err(HubError::Cancelled) } else { Ok(()) }
                    })?)
                };
                match lock {
                    Some(lock) => mine.push((lock, file)),
                    None => busy.push_back(file),
                }
            }
            waiting = busy;
            is_first = false;
            let mut wanted = Vec::new();
            for (lock, file) in mine {
                if store.has(file)? {
                    store.link(&plan.commit, file)?;
                    finished += file.size;
                    progress(&PullEvent::Finished { path: file.path.clone(), size: file.size });
                } else {
                    wanted.push((lock, file));
                }
            }
            if wanted.is_empty() {
                continue;
            }
            let round = Round::new(self, &store, plan, wanted, options)?;
            transferred += round.run(&mut |event| {
                if let PullEvent::Progress { done, transferred: new, .. } = event {
                    progress(&PullEvent::Progress {
                        done: finished + done,
                        total,
                        transferred: transferred + new,
                    });
                } else {
                    progress(&event);
                }
            })?;
            finished += round.files.iter().map(|file| file.file.size).sum::<u64>();
        }
        progress(&PullEvent::Progress { done: total, total, transferred });
        let directory = store.finish(plan)?;
        Ok(PulledModel {
            id: plan.id.clone(),
            commit: plan.commit.clone(),
            directory,
            total_bytes: total,
            transferred_bytes: transferred,
        })
    }
}

fn check_space(folder: &Path, plan: &PullPlan) -> Result<()> {
    // Where the system does not tell, writing will.
    let Ok(available) = fs4::available_space(folder) else { return Ok(()) };
    let needed = plan.missing_bytes();
    if needed > 0 && needed.saturating_add(DISK_MARGIN) > available {
        return Err(HubError::NoSpace { path: folder.to_owned(), needed, available });
    }
    Ok(())
}

/// A model's folder in the cache, as a download sees it.
pub(crate) struct Store {
    root: PathBuf,
    pub(crate) folder_name: String,
    pub(crate) folder: PathBuf,
    records: Mutex<Records>,
}

impl HubCache {
    fn store(&self, id: &str) -> Store {
        let folder = self.repository(id);
        let records = Mutex::new(Records::of(&folder));
        Store { root: self.root().to_owned(), folder_name: crate::cache::folder_name(id), folder, records }
    }
}

impl Store {
    fn blobs(&self) -> PathBuf {
        self.folder.join("blobs")
    }

    fn blob(&self, file: &PlannedFile) -> PathBuf {
        self.blobs().join(file.hash.as_hex())
    }

    fn blob_lock(&self, hash: &crate::FileHash) -> PathBuf {
        crate::lock::lock_folder(&self.root, &self.folder_name).join(format!("{}.lock", hash.as_hex()))
    }

    fn create(&self, commit: &str) -> Result<()> {
        for folder in [self.blobs(), self.folder.join("refs"), self.folder.join("snapshots").join(commit)] {
            std::fs::create_dir_all(&folder)
                .map_err(|source| HubError::Write { path: folder.clone(), source })?;
            self.check_inside(&folder)?;
        }
        Ok(())
    }

    /// Refuses folders that a link has moved out of the model's own.
    fn check_inside(&self, path: &Path) -> Result<()> {
        crate::cache::check_inside(&self.folder, path).map(drop)
    }

    /// Whether a blob is there and right; a wrong one is removed.
    fn has(&self, file: &PlannedFile) -> Result<bool> {
        let path = self.blob(file);
        let Ok(metadata) = path.metadata() else {
            // A link to nowhere would be in the way of the rename on some systems.
            let _ = std::fs::remove_file(&path);
            return Ok(false);
        };
        let is_right = metadata.is_file() && metadata.len() == file.size && {
            // Another process may have finished, and recorded, it a moment ago.
            let mut records = lock(&self.records);
            if !records.holds(file.hash.as_hex(), &metadata, Some(&file.hash)) {
                *records = Records::of(&self.folder);
            }
            records.holds(file.hash.as_hex(), &metadata, Some(&file.hash)) || {
                drop(records);
                let is_right = hash_file(&path, &file.hash)? == file.hash;
                if is_right {
                    lock(&self.records).add(file.hash.as_hex(), &metadata, &file.hash);
                }
                is_right
            }
        };
        if !is_right {
            std::fs::remove_file(&path).map_err(|source| HubError::Write { path, source })?;
        }
        Ok(is_right)
    }

    /// Makes a blob appear under its name in the snapshot.
    fn link(&self, commit: &str, file: &PlannedFile) -> Result<()> {
        let snapshot = self.folder.join("snapshots").join(commit);
        let path = snapshot.join(&file.path);
        let folder = path.parent().unwrap_or(&snapshot);
        std::fs::create_dir_all(folder)
            .map_err(|source| HubError::Write { path: folder.to_owned(), source })?;
        crate::cache::check_inside(&snapshot, folder)?;
        let up = "../".repeat(2 + file.path.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{}", file.hash.as_hex()));
        if std::fs::read_link(&path).is_ok_and(|old| old == target) {
            return Ok(());
        }
        let temporary = folder.join(format!(".pippin-{}-{}", std::process::id(), file.hash.as_hex()));
        let _ = std::fs::remove_file(&temporary);
        let blob = self.blob(file);
        // Without links, another name of the same file; without those, a copy.
        symlink(&target, &temporary)
            .or_else(|_| std::fs::hard_link(&blob, &temporary))
            .or_else(|_| std::fs::copy(&blob, &temporary).map(drop))
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|source| HubError::Write { path: path.clone(), source })?;
        // What is no link does not say what its hash should be; the records do.
        if let Ok(metadata) = path.symlink_metadata().and_then(|_| path.metadata())
            && std::fs::read_link(&path).is_err()
        {
            lock(&self.records).add(&crate::cache::copy_key(commit, &file.path), &metadata, &file.hash);
        }
        part::sync_folder(folder);
        Ok(())
    }

    /// Points the branch to the commit, last of all.
    fn finish(&self, plan: &PullPlan) -> Result<PathBuf> {
        if plan.revision != plan.commit {
            let path = self.folder.join("refs").join(&plan.revision);
            let failed = |source| HubError::Write { path: path.clone(), source };
            let folder = path.parent().unwrap_or(&self.folder);
            std::fs::create_dir_all(folder).map_err(failed)?;
            self.check_inside(folder)?;
            let temporary = folder.join(format!(".pippin-{}", std::process::id()));
            std::fs::write(&temporary, &plan.commit).map_err(failed)?;
            std::fs::rename(&temporary, &path).map_err(failed)?;
            part::sync_folder(folder);
        }
        Ok(self.folder.join("snapshots").join(&plan.commit))
    }
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(windows)]
fn symlink(target: &Path, path: &Path) -> std::io::Result<()> {
    let target = target.to_string_lossy().replace('/', "\\");
    std::os::windows::fs::symlink_file(target, path)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Files that are downloaded together.
struct Round<'a> {
    client: &'a HubClient,
    store: &'a Store,
    plan: &'a PullPlan,
    options: &'a PullOptions,
    files: Vec<FileWork<'a>>,
    state: Mutex<State>,
    /// Something changed: bytes came, a range came back, a file is finished, all is over.
    changed: Condvar,
    next_to_hash: AtomicUsize,
}

struct FileWork<'a> {
    file: &'a PlannedFile,
    part: Part,
    url: String,
}

#[derive(Default)]
struct State {
    files: Vec<FileState>,
    events: Vec<PullEvent>,
    error: Option<HubError>,
    unfinished: usize,
    transferred: u64,
    /// The hub wants to be left alone until then.
    pause: Option<Instant>,
}

#[derive(Default)]
struct FileState {
    todo: VecDeque<(u64, u64)>,
    done: Ranges,
    /// Where the hub sent us for it.
    resolved: Option<String>,
    /// Ranges are not honoured: one connection fetches it all.
    is_sequential: bool,
    has_reader: bool,
    /// Ranges of it that are being fetched.
    active: u64,
    wrong: u32,
    /// Released as soon as the file is there.
    lock: Option<FileLock>,
}

/// A range to fetch, of a file.
#[derive(Clone, Copy)]
struct Claim {
    file: usize,
    start: u64,
    end: u64,
    /// It reads the whole file, because the server gives no ranges.
    is_reader: bool,
}

impl<'a> Round<'a> {
    fn new(
        client: &'a HubClient,
        store: &'a Store,
        plan: &'a PullPlan,
        wanted: Vec<(FileLock, &'a PlannedFile)>,
        options: &'a PullOptions,
    ) -> Result<Self> {
        let mut files = Vec::with_capacity(wanted.len());
        let mut state = State { unfinished: wanted.len(), ..State::default() };
        for (lock, file) in wanted {
            let (part, done) = Part::open(&store.blobs(), file.hash.as_hex(), file.size)?;
            let todo = divide(&done.missing(file.size), file.size, options.connections);
            files.push(FileWork { file, part, url: client.file_url(&plan.id, &plan.commit, &file.path) });
            state.files.push(FileState { todo, done, lock: Some(lock), ..FileState::default() });
        }
        Ok(Self {
            client,
            store,
            plan,
            options,
            files,
            state: Mutex::new(state),
            changed: Condvar::new(),
            next_to_hash: AtomicUsize::new(0),
        })
    }

    /// Downloads, and returns how many bytes came.
    fn run(&self, progress: &mut dyn FnMut(PullEvent)) -> Result<u64> {
        let total: u64 = self.files.iter().map(|file| file.file.size).sum();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..self.options.connections.clamp(1, 64) {
                scope.spawn(|| self.guard(|| self.fetch()));
            }
            scope.spawn(|| self.flush());
            for _ in 0..cores.clamp(1, 4).min(self.files.len()) {
                scope.spawn(|| self.guard(|| self.hash()));
            }
            let mut state = lock(&self.state);
            loop {
                let events = std::mem::take(&mut state.events);
                let done = state.files.iter().map(|file| file.done.total()).sum();
                let transferred = state.transferred;
                let is_over = state.unfinished == 0 || state.error.is_some();
                drop(state);
                events.into_iter().for_each(&mut *progress);
                if is_over {
                    break;
                }
                progress(PullEvent::Progress { done, total, transferred });
                state = lock(&self.state);
                if self.options.cancel.load(Ordering::Relaxed) {
                    state.error.get_or_insert(HubError::Cancelled);
                    self.changed.notify_all();
                    continue;
                }
                state = self
                    .changed
                    .wait_timeout_while(state, TICK, |state| state.unfinished > 0 && state.error.is_none())
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
        });
        let mut state = lock(&self.state);
        state.events.drain(..).for_each(&mut *progress);
        match state.error.take() {
            Some(error) => Err(error),
            None => Ok(state.transferred),
        }
    }

    /// Runs a thread's work; its failure ends all.
    fn guard(&self, work: impl FnOnce() -> Result<()>) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let error = match result {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => {
                HubError::Protocol { url: self.plan.id.clone(), problem: "a thread panicked".to_owned() }
            }
        };
        lock(&self.state).error.get_or_insert(self.disk_full(error));
        self.changed.notify_all();
    }

    /// A failed write as what it means.
    fn disk_full(&self, error: HubError) -> HubError {
        match error {
            HubError::Write { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                HubError::NoSpace {
                    path: self.store.folder.clone(),
                    needed: self.plan.missing_bytes(),
                    available: fs4::available_space(&self.store.folder).unwrap_or(0),
                }
            }
            error => error,
        }
    }

    fn is_over(&self, state: &State) -> bool {
        state.unfinished == 0 || state.error.is_some()
    }

    /// One connection: takes ranges until none is left.
    fn fetch(&self) -> Result<()> {
        let (mut failures, mut progress) = (0, 0);
        let mut buffer = vec![0; PIECE];
        while let Some(claim) = self.claim() {
            let (mut at, mut gained) = (claim.start, 0);
            let outcome = self.fetch_range(claim, &mut at, &mut gained, &mut buffer);
            if !claim.is_reader {
                lock(&self.state).files[claim.file].active -= 1;
                // Somebody else may have had nothing to do.
                self.changed.notify_all();
            }
            // A few bytes at every attempt would go on for ever.
            progress += gained;
            if progress >= PIECE as u64 {
                (failures, progress) = (0, 0);
            }
            match outcome {
                Ok(()) => failures = 0,
                Err(Trouble::Changed) => self.give_back(claim, at),
                Err(Trouble::Failed(error)) => {
                    failures += 1;
                    let patience = self.client.patience();
                    let limit = match error {
                        // What the hub announces does not change by asking again, but what is between us may.
                        HubError::Mismatch { .. } => 2.min(patience.retries),
                        _ if error.is_transient() => patience.retries,
                        _ => 0,
                    };
                    let file = self.files[claim.file].file;
                    if failures > limit {
                        let Self { plan, client, .. } = self;
                        return Err(client.explain(error, &plan.id, &plan.commit, Some(&file.path)));
                    }
                    let wait = patience.wait(failures, &error);
                    let mut state = lock(&self.state);
                    if matches!(error, HubError::RateLimited { .. }) {
                        let until = Instant::now() + wait;
                        state.pause = Some(state.pause.map_or(until, |pause| pause.max(until)));
                    }
                    let reason = error.to_string();
                    state.events.push(PullEvent::Retry { path: file.path.clone(), reason, wait });
                    // Only now: whoever takes the range has to see the pause.
                    self.give_back_to(&mut state, claim, at);
                    drop(self.changed.wait_timeout_while(state, wait, |state| !self.is_over(state)));
                }
            }
        }
        Ok(())
    }

    /// The next range; waits while others may still hand one back. `None` when all is over.
    fn claim(&self) -> Option<Claim> {
        let mut state = lock(&self.state);
        loop {
            if self.is_over(&state) {
                return None;
            }
            let pause = state.pause.and_then(|pause| pause.checked_duration_since(Instant::now()));
            if let Some(pause) = pause.filter(|pause| !pause.is_zero()) {
                state = self.wait(state, pause);
                continue;
            }
            for (index, file) in state.files.iter_mut().enumerate() {
                if file.is_sequential {
                    if !file.has_reader && !file.todo.is_empty() {
                        file.has_reader = true;
                        file.todo.clear();
                        let end = self.files[index].file.size;
                        return Some(Claim { file: index, start: 0, end, is_reader: true });
                    }
                } else if file.active <= self.files[index].file.size / BYTES_PER_CONNECTION
                    && let Some((start, end)) = file.todo.pop_front()
                {
                    file.active += 1;
                    return Some(Claim { file: index, start, end, is_reader: false });
                }
            }
            state = self.wait(state, Duration::from_secs(1));
        }
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>, time: Duration) -> MutexGuard<'s, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Puts back what was not fetched.
    fn give_back(&self, claim: Claim, at: u64) {
        self.give_back_to(&mut lock(&self.state), claim, at);
    }

    fn give_back_to(&self, state: &mut State, claim: Claim, at: u64) {
        let file = &mut state.files[claim.file];
        if file.is_sequential {
            file.has_reader &= !claim.is_reader;
            if !file.has_reader {
                file.todo = file.done.missing(self.files[claim.file].file.size).into();
            }
        } else if at < claim.end {
            file.todo.push_front((at, claim.end));
        }
        self.changed.notify_all();
    }

    /// Fetches a range. `at` is where it stopped, `gained` how many bytes came that were not there.
    fn fetch_range(
        &self,
        claim: Claim,
        at: &mut u64,
        gained: &mut u64,
        buffer: &mut [u8],
    ) -> Result<(), Trouble> {
        let work = &self.files[claim.file];
        let PlannedFile { path, size, hash, .. } = work.file;
        let size = *size;
        let (resolved, is_sequential) = {
            let file = &lock(&self.state).files[claim.file];
            (file.resolved.clone(), claim.is_reader)
        };
        let is_whole = claim.start == 0 && claim.end == size;
        let range = (!is_whole).then_some((claim.start, claim.end));
        let url = resolved.as_ref().unwrap_or(&work.url);
        let answer = match self.client.ask(url, Ask { range, head: false }) {
            Ok(answer) => answer,
            Err(HubError::Status { status: 400..=416, .. }) if resolved.is_some() => {
                // The address that the hub gave us has expired; it gives out another.
                lock(&self.state).files[claim.file].resolved = None;
                return Err(Trouble::Changed);
            }
            Err(HubError::Status { url, status: status @ 400..=416, .. })
                if !crate::http::same_origin(&url, &work.url) =>
            {
                // A store that refuses what the hub has just allowed says nothing about the model.
                return Err(broken(&url, &format!("status {status} where the hub had sent us")).into());
            }
            Err(error) => return Err(error.into()),
        };
        let mismatch = |what, expected: &str, found: &str| HubError::Mismatch {
            file: path.clone(),
            what,
            expected: expected.to_owned(),
            found: found.to_owned(),
        };
        // What the hub says along with the file has to agree with what its list said.
        let linked = &answer.linked;
        if let Some(commit) = linked.commit.as_ref().filter(|commit| **commit != self.plan.commit) {
            return Err(mismatch("the commit", &self.plan.commit, commit).into());
        }
        if let Some(etag) = &linked.etag
            && crate::FileHash::from_hex(etag)
                .is_some_and(|etag| std::mem::discriminant(&etag) == std::mem::discriminant(hash))
            && etag != hash.as_hex()
        {
            return Err(mismatch("the ETag", hash.as_hex(), etag).into());
        }
        if let Some(found) = linked.size.filter(|&found| found != size) {
            return Err(mismatch("the size", &size.to_string(), &found.to_string()).into());
        }
        if answer
            .header("content-encoding")
            .is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity"))
        {
            return Err(broken(&answer.url, "an encoding that was not asked for").into());
        }
        let length = answer.content_length();
        let (start, end) = match (answer.status, range) {
            (206, Some((start, end))) => {
                let (first, after, whole) = answer
                    .header("content-range")
                    .and_then(content_range)
                    .ok_or_else(|| broken(&answer.url, "a part without Content-Range"))?;
                if whole.is_some_and(|whole| whole != size) {
                    let whole = whole.unwrap_or_default().to_string();
                    return Err(mismatch("the size", &size.to_string(), &whole).into());
                }
                if first != start || after > end || length.is_some_and(|length| length != after - first) {
                    return Err(broken(&answer.url, "another range than was asked for").into());
                }
                (start, after)
            }
            (200, range) => {
                if let Some(found) = length.filter(|&found| found != size) {
                    return Err(mismatch("the size", &size.to_string(), &found.to_string()).into());
                }
                if range.is_some() {
                    // From now on one connection reads it all; this one gives up its range and may become it.
                    let mut state = lock(&self.state);
                    state.files[claim.file].is_sequential = true;
                    return Err(Trouble::Changed);
                }
                (0, size)
            }
            (status, _) => return Err(broken(&answer.url, &format!("an odd status {status}")).into()),
        };
        if !is_sequential && resolved.is_none() && !crate::http::same_origin(&answer.url, &work.url) {
            lock(&self.state).files[claim.file].resolved = Some(answer.url.clone());
        }
        let host_url = answer.url.clone();
        let mut reader = answer.into_reader();
        *at = start;
        while *at < end {
            let wanted = buffer.len().min((end - *at) as usize);
            let mut filled = 0;
            let mut failed = None;
            while filled < wanted {
                match reader.read(&mut buffer[filled..wanted]) {
                    Ok(0) => failed = Some("the connection ended early".to_owned()),
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                        failed = Some("no data in time".to_owned());
                    }
                    Err(error) => failed = Some(error.to_string()),
                }
                if failed.is_some() {
                    break;
                }
            }
            let next = *at + filled as u64;
            let is_known = is_sequential && lock(&self.state).files[claim.file].done.holds(*at, next);
            if filled > 0 && !is_known {
                work.part.write(*at, &buffer[..filled])?;
                *gained += filled as u64;
            }
            let mut state = lock(&self.state);
            state.transferred += filled as u64;
            let file = &mut state.files[claim.file];
            let frontier = file.done.frontier();
            file.done.add(*at, next);
            let has_moved = file.done.frontier() > frontier;
            let is_over = self.is_over(&state);
            drop(state);
            if has_moved {
                self.changed.notify_all();
            }
            *at = next;
            if let Some(reason) = failed {
                return Err(broken(&host_url, &reason).into());
            }
            if is_over || self.options.cancel.load(Ordering::Relaxed) {
                return Err(Trouble::Changed);
            }
        }
        if end < claim.end {
            // The server gave less than was asked for; the rest is asked for again.
            return Err(Trouble::Changed);
        }
        // Reading to the end leaves the connection usable for the next range.
        let _ = reader.read(&mut buffer[..1]);
        Ok(())
    }

    /// Keeps the disk busy during the download.
    fn flush(&self) {
        let mut flushed = vec![0; self.files.len()];
        let mut state = lock(&self.state);
        while !self.is_over(&state) {
            let due = state.files.iter().map(|file| file.done.total()).zip(&mut flushed).enumerate();
            let due: Vec<usize> = due
                .filter_map(|(index, (done, flushed))| {
                    // Where a file began again, its count did too.
                    *flushed = done.min(*flushed);
                    (done >= *flushed + FLUSH).then(|| *flushed = done).map(|()| index)
                })
                .collect();
            drop(state);
            due.iter().for_each(|&index| self.files[index].part.flush());
            state = lock(&self.state);
            if due.is_empty() && !self.is_over(&state) {
                state = self.wait(state, TICK);
            }
        }
    }

    /// Follows one file after the other, and finishes each.
    fn hash(&self) -> Result<()> {
        let mut buffer = vec![0; 4 * PIECE];
        loop {
            let index = self.next_to_hash.fetch_add(1, Ordering::Relaxed);
            if index >= self.files.len() || !self.hash_file(index, &mut buffer)? {
                return Ok(());
            }
        }
    }

    /// Whether the file could be finished; otherwise all is over.
    fn hash_file(&self, index: usize, buffer: &mut [u8]) -> Result<bool> {
        let FileWork { file, part, .. } = &self.files[index];
        'again: loop {
            let mut hasher = Hasher::new(&file.hash, file.size);
            let mut hashed = 0;
            while hashed < file.size {
                let frontier = {
                    let mut state = lock(&self.state);
                    loop {
                        if self.is_over(&state) {
                            return Ok(false);
                        }
                        let frontier = state.files[index].done.frontier();
                        if frontier > hashed {
                            break frontier;
                        }
                        state = self.wait(state, Duration::from_secs(1));
                    }
                };
                while hashed < frontier {
                    let count = buffer.len().min((frontier - hashed) as usize);
                    part.read(&mut buffer[..count], hashed)?;
                    hasher.update(&buffer[..count]);
                    hashed += count as u64;
                }
            }
            let found = hasher.finish();
            if found != file.hash {
                part.reset(file.size)?;
                let mut state = lock(&self.state);
                let now = &mut state.files[index];
                now.wrong += 1;
                if now.wrong >= MAX_WRONG {
                    return Err(HubError::Mismatch {
                        file: file.path.clone(),
                        what: file.hash.kind(),
                        expected: file.hash.as_hex().to_owned(),
                        found: found.as_hex().to_owned(),
                    });
                }
                now.done = Ranges::default();
                now.has_reader = false;
                now.todo = divide(&[(0, file.size)], file.size, self.options.connections);
                now.resolved = None;
                state.events.push(PullEvent::Retry {
                    path: file.path.clone(),
                    reason: format!("its {} is wrong", file.hash.kind()),
                    wait: Duration::ZERO,
                });
                self.changed.notify_all();
                continue 'again;
            }
            let blob = self.store.blob(file);
            part.publish(&blob, file.size)?;
            if let Ok(metadata) = blob.metadata() {
                lock(&self.store.records).add(file.hash.as_hex(), &metadata, &file.hash);
            }
            self.store.link(&self.plan.commit, file)?;
            let mut state = lock(&self.state);
            state.unfinished -= 1;
            state.files[index].lock = None;
            state.events.push(PullEvent::Finished { path: file.path.clone(), size: file.size });
            self.changed.notify_all();
            return Ok(true);
        }
    }
}

/// Why a range was not fetched to its end.
enum Trouble {
    Failed(HubError),
    /// Nothing is wrong; the range is to be given back.
    Changed,
}

impl From<HubError> for Trouble {
    fn from(error: HubError) -> Self {
        Self::Failed(error)
    }
}

fn broken(url: &str, reason: &str) -> HubError {
    let host = url.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next()).unwrap_or(url);
    HubError::Network { host: host.to_owned(), reason: reason.to_owned() }
}

/// First byte, the one after the last, and the whole size of `bytes 0-9/100`.
fn content_range(header: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, whole) = header.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let whole = if whole.trim() == "*" { None } else { Some(whole.trim().parse().ok()?) };
    (first <= last).then_some((first, last.checked_add(1)?, whole))
}

/// Cuts what is missing into ranges of a size that gives every connection something to do.
fn divide(missing: &[(u64, u64)], size: u64, connections: usize) -> VecDeque<(u64, u64)> {
    let chunk = (size / connections.max(1) as u64).clamp(MIN_CHUNK, MAX_CHUNK);
    let mut ranges = VecDeque::new();
    for &(start, end) in missing {
        let mut at = start;
        while at < end {
            let next = (at + chunk).min(end);
            ranges.push_back((at, next));
            at = next;
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(content_range("bytes 0-9/100"), Some((0, 10, Some(100))));
        assert_eq!(content_range("bytes 5-5/*"), Some((5, 6, None)));
        for bad in ["", "bytes */100", "bytes 9-0/100", "items 0-9/100", "bytes 0-18446744073709551615/1"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn ranges_cover_what_is_missing() {
        assert!(divide(&[], 0, 8).is_empty());
        let size = 100 << 20;
        let ranges = divide(&[(0, 10), (1 << 20, size)], size, 8);
        assert_eq!(ranges.iter().map(|(start, end)| end - start).sum::<u64>(), 10 + size - (1 << 20));
        assert!(ranges.iter().all(|(start, end)| end - start <= MAX_CHUNK));
    }
}
