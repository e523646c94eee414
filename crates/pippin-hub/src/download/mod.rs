//! Downloads that survive anything.
//!
//! Threads fetch ranges of files, several at once, and write them to a [`Part`](part::Part); others follow behind and hash what is
//! on the disk, from the first byte on, so that a file is checked as soon as it is whole. Only then it gets its name.

mod folder;
pub(crate) mod part;
pub(crate) mod plan;
mod ranges;
mod round;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::plan::{PlannedFile, PullPlan};
use self::round::Round;
use crate::lock::FileLock;
use crate::{HubCache, HubClient, HubError, Result};

/// Left free on the disk.
const DISK_MARGIN: u64 = 32 << 20;

/// How a download is done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PullOptions {
    /// Requests at a time, at most. A large file has two at first, and more where each brings less than 100 MB/s.
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
    /// With so many requests at a time.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Ends when this is set.
    #[must_use]
    pub fn with_cancel(mut self, cancel: Arc<AtomicBool>) -> Self {
        self.cancel = cancel;
        self
    }
}

/// What happens during a download.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// A file that the model does without could not be had, and is left out.
    Skipped {
        /// The file.
        path: String,
        /// What the hub says.
        reason: String,
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
    /// it stopped. When another process downloads a file, it is waited for and its file is used. Where everything is there
    /// already, the cache need not be writable. A file that the model does without (`generation_config.json`, say) may be
    /// refused by the hub: that is [`PullEvent::Skipped`].
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
        match self.pull_into(cache, plan, options, &mut progress) {
            // A cache that others fill, or on a disk that is not to be written to, may hold it all.
            Err(HubError::Write { path, source }) => match whole(cache, plan) {
                Some(model) => {
                    let total = model.total_bytes;
                    progress(&PullEvent::Progress { done: total, total, transferred: 0 });
                    Ok(model)
                }
                None => Err(HubError::Write { path, source }),
            },
            pulled => pulled,
        }
    }

    fn pull_into(
        &self,
        cache: &HubCache,
        plan: &PullPlan,
        options: &PullOptions,
        progress: &mut dyn FnMut(&PullEvent),
    ) -> Result<PulledModel> {
        let store = cache.store(&plan.id);
        let _in_use = crate::lock::share(cache.root(), &store.folder_name)?
            .ok_or_else(|| HubError::InUse { id: plan.id.clone() })?;
        store.create(&plan.commit)?;
        // The plan may be from before somebody thought about an answer.
        let plan = &{
            let mut plan = plan.clone();
            plan.refresh(cache);
            plan
        };
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

/// The model, where the cache holds it under the name that was asked for and at the commit that the hub has.
fn whole(cache: &HubCache, plan: &PullPlan) -> Option<PulledModel> {
    let directory = cache.find(&plan.id, &plan.revision).ok()?;
    (directory.file_name()? == plan.commit.as_str()).then(|| PulledModel {
        id: plan.id.clone(),
        commit: plan.commit.clone(),
        directory,
        total_bytes: plan.total_bytes(),
        transferred_bytes: 0,
    })
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
