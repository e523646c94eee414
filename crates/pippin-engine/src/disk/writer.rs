//! The thread that writes.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::entry;
use super::folder::{Entries, Folder, file_name};
use super::place::{Part, Place};
use super::search::Source;
use super::{Identified, MAX_WAITING};

/// An entry is not touched again before this.
const TOUCHED: Duration = Duration::from_secs(30);
/// The most bytes between two looks at what other processes have written is this part of the budget.
const LOOK_PART: u64 = 16;

#[derive(Debug)]
enum Work {
    Write(Place, Part, Vec<u8>),
    /// These were used, the first of a prefix first.
    Touch(Vec<(Place, Part)>),
}

#[derive(Debug, Default)]
struct Shared {
    /// When the entries of these files were last used, as far as is known: they are there, or on their way.
    kept: HashMap<String, Option<Instant>>,
    /// Bytes that wait to be written.
    waiting: usize,
}

/// Writes entries in the order in which they come. Dropping waits until all are written, unless the files of a large model are still being
/// read before the first can be.
#[derive(Debug)]
pub(super) struct Writer {
    work: Option<Sender<Work>>,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
    identified: Arc<Identified>,
}

impl Writer {
    pub(super) fn start(folder: Folder, identified: Arc<Identified>) -> std::io::Result<Self> {
        let (work, receiver) = channel();
        let shared = Arc::<Mutex<Shared>>::default();
        let thread = std::thread::Builder::new().name("pippin-prefix-write".to_owned()).spawn({
            let (shared, identified) = (Arc::clone(&shared), Arc::clone(&identified));
            move || serve(&folder, &identified, &receiver, &shared)
        })?;
        Ok(Self { work: Some(work), shared, thread: Some(thread), identified })
    }

    /// Whether an entry is on disk, or on its way, as far as is known.
    pub(super) fn is_kept(&self, place: &Place, part: Part) -> bool {
        lock(&self.shared).kept.contains_key(&file_name(place, part))
    }

    /// An entry is there.
    pub(super) fn note(&self, place: &Place, part: Part) {
        lock(&self.shared).kept.entry(file_name(place, part)).or_default();
    }

    /// Writes an entry later. Returns whether there is room for it among what waits.
    pub(super) fn write(&self, place: Place, part: Part, payload: Vec<u8>) -> bool {
        let mut shared = lock(&self.shared);
        if shared.waiting > 0 && shared.waiting.saturating_add(payload.len()) > MAX_WAITING {
            return false;
        }
        let Some(work) = &self.work else { return false };
        let (name, bytes) = (file_name(&place, part), payload.len());
        if work.send(Work::Write(place, part, payload)).is_err() {
            return false;
        }
        shared.waiting += bytes;
        shared.kept.insert(name, None);
        true
    }

    /// Entries of a prefix were used: the first first, after which those come that are of no use without it.
    pub(super) fn touch(&self, used: Vec<(Place, Part)>) {
        let mut shared = lock(&self.shared);
        let is_due = |(place, part): &(Place, Part)| {
            let last = shared.kept.get(&file_name(place, *part)).copied().flatten();
            last.is_none_or(|last| last.elapsed() >= TOUCHED)
        };
        if !used.iter().any(is_due) {
            return;
        }
        for (place, part) in &used {
            shared.kept.insert(file_name(place, *part), Some(Instant::now()));
        }
        if let Some(work) = &self.work {
            let _ = work.send(Work::Touch(used));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take().filter(|_| !self.identified.takes_long()) {
            let _ = thread.join();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(folder: &Folder, identified: &Identified, work: &Receiver<Work>, shared: &Mutex<Shared>) {
    let Some(identity) = identified.get() else { return };
    let mut writing = Writing { folder, entries: folder.of(identity), shared, bytes: 0, unseen: 0 };
    writing.tidy(folder.budget());
    while let Ok(first) = work.recv() {
        let mut has_written = false;
        for work in std::iter::once(first).chain(work.try_iter()) {
            match work {
                Work::Write(place, part, payload) => {
                    writing.write(&place, part, &payload);
                    has_written = true;
                }
                Work::Touch(used) => writing.touch(&used),
            }
        }
        if has_written {
            writing.entries.synchronise();
        }
    }
}

struct Writing<'a> {
    folder: &'a Folder,
    entries: Entries,
    shared: &'a Mutex<Shared>,
    /// Bytes in the folder, as far as is known.
    bytes: u64,
    /// Bytes written since it was looked at.
    unseen: u64,
}

impl Writing<'_> {
    fn write(&mut self, place: &Place, part: Part, payload: &[u8]) {
        let (bytes, budget) = (entry::length(place, payload.len()) as u64, self.folder.budget());
        if self.bytes.saturating_add(bytes) > budget || self.unseen > budget / LOOK_PART {
            // Some more than is needed, so that not every entry looks at all others.
            let is_full = self.bytes.saturating_add(bytes) > budget;
            let room = if is_full { bytes.max(budget / LOOK_PART) } else { bytes };
            self.tidy(budget.saturating_sub(room));
        }
        // More than all there may be is not kept, and what others have written need not be; if it is right.
        let written =
            if self.entries.read(place, part, payload.len()).is_some_and(|own| own.bytes() == payload) {
                Some(0)
            } else if self.bytes.saturating_add(bytes) > budget {
                None
            } else {
                self.entries.write(place, part, payload).ok()
            };
        let mut shared = lock(self.shared);
        shared.waiting = shared.waiting.saturating_sub(payload.len());
        match written {
            Some(bytes) => {
                self.bytes += bytes;
                self.unseen += bytes;
            }
            None => drop(shared.kept.remove(&file_name(place, part))),
        }
    }

    /// The first entry of a prefix was used last, so that the end of a prefix goes before its beginning.
    fn touch(&self, used: &[(Place, Part)]) {
        let now = SystemTime::now();
        for (index, (place, part)) in used.iter().enumerate() {
            let time = now.checked_sub(Duration::from_micros(index as u64)).unwrap_or(now);
            if !self.entries.touch(place, *part, time) {
                // Others have removed it.
                lock(self.shared).kept.remove(&file_name(place, *part));
            }
        }
    }

    fn tidy(&mut self, limit: u64) {
        let (bytes, gone) = self.folder.tidy(limit);
        (self.bytes, self.unseen) = (bytes, 0);
        let mut shared = lock(self.shared);
        for name in gone {
            shared.kept.remove(&name);
        }
    }
}
