//! The files of the store: written whole or not at all, and removed by the time of their last use.
//!
//! A folder holds one folder for each identity, and that the entries: `<name>.<part>`. Nothing else in it is touched.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::counts::Counters;
use super::entry::{self, Payload};
use super::identity::{Identity, hex};
use super::place::{Part, Place};
use super::search::Source;

/// The end of names of files that are being written.
const TEMPORARY: &str = "tmp";
/// A temporary file as old as this is a leftover.
const LEFTOVER: Duration = Duration::from_secs(3600);

/// A folder with prefixes of models, and how many bytes it may have.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    budget: u64,
    counters: Arc<Counters>,
}

impl Folder {
    pub(super) fn new(path: PathBuf, budget: u64) -> Self {
        Self { path, budget, counters: Arc::default() }
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Makes a folder that only its owner may look into, where there is none, and checks that it can be written to.
    pub(super) fn prepare(path: &Path) -> io::Result<()> {
        make_folder(path)?;
        let probe = temporary(path);
        let result = create(&probe).map(drop);
        let _ = fs::remove_file(&probe);
        result
    }

    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    /// The entries of an identity.
    pub(super) fn of(&self, identity: Identity) -> Entries {
        Entries { path: self.path.join(identity.to_hex()), identity, counters: self.counters() }
    }

    /// Removes what was used least recently, until no more than `limit` bytes are left, and leftovers of processes that did not end
    /// well. Returns how many bytes are left, and the names of the entries that are gone.
    pub(super) fn tidy(&self, limit: u64) -> (u64, Vec<String>) {
        let mut files = BTreeMap::new();
        let mut total = 0;
        for (path, metadata) in self.files() {
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if path.extension().is_some_and(|extension| extension == TEMPORARY) {
                if used.elapsed().is_ok_and(|age| age > LEFTOVER) {
                    let _ = fs::remove_file(&path);
                }
                continue;
            }
            total += metadata.len();
            files.insert((used, path), metadata.len());
        }
        let mut gone = Vec::new();
        for ((_, path), bytes) in files {
            if total <= limit {
                break;
            }
            // What another process has removed is gone as well.
            if fs::remove_file(&path).is_ok() || !path.exists() {
                total -= bytes;
                gone.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        (total, gone)
    }

    /// All files of ours.
    fn files(&self) -> impl Iterator<Item = (PathBuf, fs::Metadata)> {
        let list = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        let is_identity = |name: &str| name.len() == 32 && is_hex(name);
        let folders = list(&self.path)
            .filter(move |entry| entry.file_name().to_str().is_some_and(is_identity))
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let files = folders.flat_map(move |folder| list(&folder.path()));
        files
            .filter(|entry| entry.file_name().to_str().is_some_and(is_ours))
            .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
            .filter(|(_, metadata)| metadata.is_file())
    }
}

/// The entries of one identity.
#[derive(Clone, Debug)]
pub(super) struct Entries {
    path: PathBuf,
    identity: Identity,
    counters: Arc<Counters>,
}

impl Entries {
    fn file(&self, place: &Place, part: Part) -> PathBuf {
        self.path.join(file_name(place, part))
    }

    /// Writes an entry. Returns the bytes that it takes.
    pub(super) fn write(&self, place: &Place, part: Part, payload: &[u8]) -> io::Result<u64> {
        let written = self.try_write(place, part, payload);
        match &written {
            Ok(bytes) => self.counters.written(*bytes),
            Err(_) => self.counters.not_written(),
        }
        written
    }

    fn try_write(&self, place: &Place, part: Part, payload: &[u8]) -> io::Result<u64> {
        make_folder(&self.path)?;
        let header = entry::header(&self.identity, place, part, payload.len());
        let checksum = entry::checksum(&header, payload);
        let path = temporary(&self.path);
        let write = || {
            let mut file = create(&path)?;
            for bytes in [&header[..], payload, &checksum] {
                file.write_all(bytes)?;
            }
            file.sync_all()?;
            drop(file);
            fs::rename(&path, self.file(place, part))
        };
        let result = write();
        if result.is_err() {
            let _ = fs::remove_file(&path);
        }
        result.map(|()| entry::length(place, payload.len()) as u64)
    }

    /// Makes what was renamed last beyond a crash of the system.
    pub(super) fn synchronise(&self) {
        // A folder cannot be opened everywhere; without it, entries may be lost, and are computed again.
        if let Ok(folder) = File::open(&self.path) {
            let _ = folder.sync_all();
        }
    }

    /// An entry was used at this time. Returns whether it is there.
    pub(super) fn touch(&self, place: &Place, part: Part, time: SystemTime) -> bool {
        let path = self.file(place, part);
        if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            return false;
        }
        match OpenOptions::new().write(true).open(path) {
            Ok(file) => {
                let _ = file.set_modified(time);
                true
            }
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }
}

impl Source for Entries {
    fn has(&self, place: &Place, part: Part) -> bool {
        self.file(place, part).exists()
    }

    fn read(&self, place: &Place, part: Part, bytes: usize) -> Option<Payload> {
        let (path, length) = (self.file(place, part), entry::length(place, bytes));
        let read = || {
            // Opening a pipe would wait for ever.
            if !fs::symlink_metadata(&path)?.is_file() {
                return Ok(Vec::new());
            }
            let file = File::open(&path)?;
            let mut found = Vec::new();
            if file.metadata()?.len() == length as u64 {
                found.reserve_exact(length);
                // One more, if there is more by now: then it is none of ours.
                file.take(length as u64 + 1).read_to_end(&mut found)?;
            }
            Ok(found)
        };
        let found = match read() {
            Ok(found) => found,
            Err(error) => {
                let error: io::Error = error;
                if error.kind() != io::ErrorKind::NotFound {
                    self.counters.not_read();
                }
                return None;
            }
        };
        let payload = entry::decode(&self.identity, place, part, bytes, found);
        if payload.is_none() {
            self.counters.not_read();
            let _ = fs::remove_file(&path);
        }
        payload
    }
}

/// The name of an entry's file.
pub(crate) fn file_name(place: &Place, part: Part) -> String {
    let name = hex(&place.name[..20]);
    match part {
        Part::Page(group) => format!("{name}.{group}"),
        Part::State => format!("{name}.state"),
    }
}

/// Whether a file of this name is one of ours.
fn is_ours(name: &str) -> bool {
    let Some((name, part)) = name.split_once('.') else { return false };
    let is_entry = name.len() == 40 && is_hex(name);
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    is_entry && (part == "state" || is_number(part))
        || part == TEMPORARY && name.split('-').count() == 3 && name.split('-').all(is_number)
}

fn is_hex(name: &str) -> bool {
    name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A name that no other process and no other thread uses.
fn temporary(folder: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (id, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    folder.join(format!("{id}-{}-{count}.{TEMPORARY}", now.as_nanos()))
}

/// Creates a file that only its owner may read.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a folder, with those above it. What is made here only its owner may look into.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Writes a file of which only all is of use, for its owner alone: beside its place first.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = temporary(folder);
    let all = || {
        let mut file = create(&beside)?;
        write(&mut file)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&beside, path)
    };
    let result = all();
    if result.is_err() {
        let _ = fs::remove_file(&beside);
    }
    result
}
