//! The threads of a download, and what they share.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::folder::Store;
use super::part::{PIECE, Part};
use super::plan::{PlannedFile, PullPlan};
use super::ranges::Ranges;
use super::{PullEvent, PullOptions, lock};
use crate::http::Ask;
use crate::lock::FileLock;
use crate::verify::Hasher;
use crate::{HubClient, HubError, Result};

/// The most that one request asks for.
const MAX_CHUNK: u64 = 32 << 20;
/// The least that a file is divided into.
const MIN_CHUNK: u64 = 4 << 20;
/// For each so many bytes, a file gets another connection. What a connection has on its way, in the kernel's buffers
/// above all, is lost when the process is killed, and has to stay a small share of the file.
const BYTES_PER_CONNECTION: u64 = 50 << 20;
/// Connections that a file has from the start.
const FIRST_CONNECTIONS: u64 = 2;
/// A connection that brings so many bytes a second needs no others beside it: what limits it is this machine, which more
/// of them only keep busy.
const FAST: f64 = 100e6;
/// So much of a file is written to the disk at a time: enough for the file system to find it room in one piece.
const FLUSH: u64 = 1 << 30;
/// How often progress is reported.
const TICK: Duration = Duration::from_millis(100);
/// How often a file whose content is wrong is fetched.
const MAX_WRONG: u32 = 2;

/// Files that are downloaded together.
pub(super) struct Round<'a> {
    client: &'a HubClient,
    store: &'a Store,
    plan: &'a PullPlan,
    options: &'a PullOptions,
    pub(super) files: Vec<FileWork<'a>>,
    state: Mutex<State>,
    /// Something changed: bytes came, a range came back, a file is finished, all is over.
    changed: Condvar,
    next_to_hash: AtomicUsize,
    started: Instant,
}

pub(super) struct FileWork<'a> {
    pub(super) file: &'a PlannedFile,
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
    /// The hub does not give it out, and the model does without.
    is_skipped: bool,
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
    pub(super) fn new(
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
            started: Instant::now(),
        })
    }

    /// Downloads, and returns how many bytes came.
    pub(super) fn run(&self, progress: &mut dyn FnMut(PullEvent)) -> Result<u64> {
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
                        let Self { plan, client, store, .. } = self;
                        if matches!(&error, HubError::Status { status: 404, message, .. } if message.contains("EntryNotFound"))
                        {
                            store.mark_missing(&plan.commit, &file.path);
                        }
                        if self.may_skip(&error, file) {
                            self.skip(claim, &error);
                            (failures, progress) = (0, 0);
                            continue;
                        }
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

    /// Whether the model does without a file that the hub refuses. What passes, or is damaged on the way, is no refusal.
    fn may_skip(&self, error: &HubError, file: &PlannedFile) -> bool {
        let has_tokenizer = self.plan.files.iter().any(|file| file.path == "tokenizer.json");
        matches!(error, HubError::Status { status: 401 | 403 | 404 | 410 | 451, .. })
            && super::plan::is_optional(&file.path, has_tokenizer)
    }

    fn skip(&self, claim: Claim, error: &HubError) {
        let FileWork { file, part, .. } = &self.files[claim.file];
        let mut state = lock(&self.state);
        let now = &mut state.files[claim.file];
        now.todo.clear();
        // Another connection may have met the same.
        if !std::mem::replace(&mut now.is_skipped, true) {
            now.lock = None;
            part.discard();
            state.unfinished -= 1;
            let reason = error.to_string();
            state.events.push(PullEvent::Skipped { path: file.path.clone(), reason });
        }
        self.changed.notify_all();
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
            let is_fast = self.is_fast(&state);
            for (index, file) in state.files.iter_mut().enumerate() {
                if file.is_sequential {
                    if !file.has_reader && !file.todo.is_empty() {
                        file.has_reader = true;
                        file.todo.clear();
                        let end = self.files[index].file.size;
                        return Some(Claim { file: index, start: 0, end, is_reader: true });
                    }
                } else if file.active <= self.files[index].file.size / BYTES_PER_CONNECTION
                    && (file.active < FIRST_CONNECTIONS || !is_fast)
                    && let Some((start, end)) = file.todo.pop_front()
                {
                    file.active += 1;
                    return Some(Claim { file: index, start, end, is_reader: false });
                }
            }
            state = self.wait(state, TICK);
        }
    }

    /// Whether the connections that there are bring all that can be brought, as far as can be told so early.
    fn is_fast(&self, state: &State) -> bool {
        let (time, active) =
            (self.started.elapsed(), state.files.iter().map(|file| file.active).sum::<u64>());
        time < TICK || state.transferred as f64 > FAST * time.as_secs_f64() * active as f64
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
        if file.is_skipped {
            // Nobody is to take it again.
        } else if file.is_sequential {
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
                        if state.files[index].is_skipped {
                            return Ok(true);
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
    HubError::Network { host: host.to_owned(), reason: reason.to_owned(), is_connected: true }
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
