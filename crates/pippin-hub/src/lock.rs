//! Advisory locks between processes, on the same files that `huggingface_hub` locks.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{HubError, Result};

/// How often a lock that another process holds is tried again.
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// A lock, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// The lock, unless somebody else has it.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        Self::try_with(path, File::try_lock)
    }

    /// A lock that others may share.
    pub(crate) fn try_shared(path: &Path) -> Result<Option<Self>> {
        Self::try_with(path, File::try_lock_shared)
    }

    /// Waits for the lock, for as long as `goes_on` says so.
    pub(crate) fn exclusive(path: &Path, mut goes_on: impl FnMut() -> Result<()>) -> Result<Self> {
        loop {
            if let Some(lock) = Self::try_exclusive(path)? {
                return Ok(lock);
            }
            goes_on()?;
            std::thread::sleep(POLL);
        }
    }

    fn try_with(path: &Path, lock: impl Fn(&File) -> Result<(), TryLockError>) -> Result<Option<Self>> {
        let failed = |source| HubError::Write { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .map_err(failed)?;
            match lock(&file) {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            // Some programs remove lock files that they release: then this lock is on a file that nobody else sees.
            if is_at(&file, path) {
                return Ok(Some(Self { _file: file }));
            }
        }
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

/// Says to other processes that a model of the cache is in use: until this is dropped, it is not removed.
#[derive(Debug)]
#[must_use]
pub struct UseLock {
    _lock: FileLock,
}

/// Where the locks of a model are: beside its folder, so that they outlive it.
pub(crate) fn lock_folder(root: &Path, folder_name: &str) -> PathBuf {
    root.join(".locks").join(folder_name)
}

fn use_lock_file(root: &Path, folder_name: &str) -> PathBuf {
    lock_folder(root, folder_name).join("pippin-in-use.lock")
}

/// The lock of those who use a model.
pub(crate) fn share(root: &Path, folder_name: &str) -> Result<Option<UseLock>> {
    Ok(FileLock::try_shared(&use_lock_file(root, folder_name))?.map(|lock| UseLock { _lock: lock }))
}

/// The lock of whoever removes it.
pub(crate) fn own(root: &Path, folder_name: &str) -> Result<Option<FileLock>> {
    FileLock::try_exclusive(&use_lock_file(root, folder_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_share_and_exclude_removal() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let first = share(root.path(), "models--o--n").expect("writable").expect("free");
        let second = share(root.path(), "models--o--n").expect("writable").expect("shared");
        assert!(own(root.path(), "models--o--n").expect("writable").is_none());
        drop((first, second));
        let owner = own(root.path(), "models--o--n").expect("writable").expect("free");
        assert!(share(root.path(), "models--o--n").expect("writable").is_none());
        drop(owner);
    }

    #[test]
    fn waiting_ends_when_the_lock_is_free_or_the_caller_wants_it() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let path = root.path().join("a/b.lock");
        let held = FileLock::try_exclusive(&path).expect("writable").expect("free");
        assert!(matches!(FileLock::exclusive(&path, || Err(HubError::Cancelled)), Err(HubError::Cancelled)));
        let mut held = Some(held);
        FileLock::exclusive(&path, || {
            held.take();
            Ok(())
        })
        .expect("free in the end");
    }
}
