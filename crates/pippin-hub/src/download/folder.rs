//! A model's folder in the cache, while files are put into it.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::plan::{PlannedFile, PullPlan};
use super::{lock, part};
use crate::verify::{Records, hash_file};
use crate::{HubCache, HubError, Result};

/// A model's folder in the cache, as a download sees it.
pub(crate) struct Store {
    root: PathBuf,
    pub(crate) folder_name: String,
    pub(crate) folder: PathBuf,
    pub(super) records: Mutex<Records>,
}

impl HubCache {
    pub(super) fn store(&self, id: &str) -> Store {
        let folder = self.repository(id);
        let records = Mutex::new(Records::of(&folder));
        Store { root: self.root().to_owned(), folder_name: crate::cache::folder_name(id), folder, records }
    }
}

impl Store {
    pub(super) fn blobs(&self) -> PathBuf {
        self.folder.join("blobs")
    }

    pub(super) fn blob(&self, file: &PlannedFile) -> PathBuf {
        self.blobs().join(file.hash.as_hex())
    }

    pub(super) fn blob_lock(&self, hash: &crate::FileHash) -> PathBuf {
        crate::lock::lock_folder(&self.root, &self.folder_name).join(format!("{}.lock", hash.as_hex()))
    }

    pub(super) fn create(&self, commit: &str) -> Result<()> {
        for folder in [self.blobs(), self.folder.join("refs"), self.folder.join("snapshots").join(commit)] {
            std::fs::create_dir_all(&folder)
                .map_err(|source| HubError::Write { path: folder.clone(), source })?;
            // The blobs may have been moved to another disk; no download makes such a link. Links to blobs would lead nowhere
            // if the folders that hold them were elsewhere.
            if folder != self.blobs() {
                self.check_inside(&folder)?;
            }
        }
        Ok(())
    }

    /// Refuses folders that a link has moved out of the model's own.
    fn check_inside(&self, path: &Path) -> Result<()> {
        crate::cache::check_inside(&self.folder, path).map(drop)
    }

    /// Whether a blob is there and right; a wrong one is removed.
    pub(super) fn has(&self, file: &PlannedFile) -> Result<bool> {
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
    pub(super) fn link(&self, commit: &str, file: &PlannedFile) -> Result<()> {
        self.link_by(&WAYS, commit, file)
    }

    fn link_by(&self, ways: &[Way], commit: &str, file: &PlannedFile) -> Result<()> {
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
        let mut made = Err(std::io::ErrorKind::Unsupported.into());
        for way in ways {
            made = way(&target, &blob, &temporary);
            if made.is_ok() {
                break;
            }
        }
        made.and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|source| HubError::Write { path: path.clone(), source })?;
        // Whoever finds a mark looks no further.
        let _ = std::fs::remove_file(self.missing_mark(commit, &file.path));
        // What is no link does not say what its hash should be; the records do.
        if let Ok(metadata) = path.symlink_metadata().and_then(|_| path.metadata())
            && std::fs::read_link(&path).is_err()
        {
            lock(&self.records).add(&crate::cache::copy_key(commit, &file.path), &metadata, &file.hash);
        }
        part::sync_folder(folder);
        Ok(())
    }

    fn missing_mark(&self, commit: &str, path: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(path)
    }

    /// Marks a file as one that the hub does not have at this commit, as `huggingface_hub` does: its tools then need not
    /// ask. Pippin goes by the hub's list, and believes no marks. One that cannot be written costs them a question.
    pub(super) fn mark_missing(&self, commit: &str, path: &str) {
        let mark = self.missing_mark(commit, path);
        let Some(folder) = mark.parent() else { return };
        if std::fs::create_dir_all(folder).is_ok() && self.check_inside(folder).is_ok() {
            let _ = std::fs::OpenOptions::new().create(true).append(true).open(&mark);
        }
    }

    /// Points the branch to the commit, last of all.
    pub(super) fn finish(&self, plan: &PullPlan) -> Result<PathBuf> {
        if plan.revision != plan.commit {
            let path = self.folder.join("refs").join(&plan.revision);
            let failed = |source| HubError::Write { path: path.clone(), source };
            let folder = path.parent().unwrap_or(&self.folder);
            std::fs::create_dir_all(folder).map_err(failed)?;
            self.check_inside(folder)?;
            // Two threads may finish the same model at once: each has a name of its own.
            static NUMBER: AtomicU64 = AtomicU64::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let temporary = folder.join(format!(".pippin-{}-{number}", std::process::id()));
            std::fs::write(&temporary, &plan.commit).map_err(failed)?;
            std::fs::rename(&temporary, &path).map_err(failed)?;
            part::sync_folder(folder);
        }
        Ok(self.folder.join("snapshots").join(&plan.commit))
    }
}

/// A way to give a blob its name in a snapshot: by what a link there has to say, by the blob itself.
type Way = fn(&Path, &Path, &Path) -> std::io::Result<()>;

/// A link; where there are none, another name of the same file; without those, a copy.
const WAYS: [Way; 3] = [
    |target, _, path| symlink(target, path),
    |_, blob, path| std::fs::hard_link(blob, path),
    |_, blob, path| std::fs::copy(blob, path).map(drop),
];

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(windows)]
fn symlink(target: &Path, path: &Path) -> std::io::Result<()> {
    let target = target.to_string_lossy().replace('/', "\\");
    std::os::windows::fs::symlink_file(target, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileHash, FileState};

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// A downloaded model whose files got their names in these ways.
    fn model(cache: &HubCache, ways: &[Way]) -> PathBuf {
        let store = cache.store("o/n");
        store.create(COMMIT).expect("created");
        let weights = b"\x02\0\0\0\0\0\0\0{}".as_slice();
        let contents =
            [("config.json", b"{}".as_slice()), ("chat/a.jinja", b"{}"), ("model.safetensors", weights)];
        let files: Vec<PlannedFile> = contents
            .iter()
            .map(|(path, bytes)| PlannedFile {
                path: (*path).to_owned(),
                size: bytes.len() as u64,
                hash: FileHash::sha256(bytes),
                present: 0,
            })
            .collect();
        for (file, (_, bytes)) in files.iter().zip(contents) {
            std::fs::write(store.blob(file), bytes).expect("written");
            store.link_by(ways, COMMIT, file).expect("linked");
        }
        let (id, commit) = ("o/n".to_owned(), COMMIT.to_owned());
        let plan = PullPlan { id, revision: "main".to_owned(), commit, files, warnings: Vec::new() };
        store.finish(&plan).expect("finished")
    }

    #[test]
    fn file_systems_without_links_get_copies() {
        for (ways, is_copy) in [(&WAYS[..], false), (&WAYS[1..], false), (&WAYS[2..], true)] {
            let root = tempfile::tempdir().expect("a temporary folder");
            let cache = HubCache::new(root.path());
            let folder = model(&cache, ways);
            assert_eq!(cache.find("o/n", "main").expect("found"), folder);
            assert_eq!(std::fs::read(folder.join("chat/a.jinja")).expect("readable"), b"{}");
            let is_right = |cache: &HubCache| {
                let checks = cache.verify("o/n", true, |_, _| {}).expect("readable");
                assert_eq!(checks.len(), 3);
                checks.iter().all(|check| check.state == FileState::Right)
            };
            assert!(is_right(&cache));
            // A copy that was damaged is found out, though its name says nothing of its hash.
            if is_copy {
                std::fs::write(folder.join("model.safetensors"), b"\x02\0\0\0\0\0\0\0[]").expect("written");
                assert!(!is_right(&cache));
            }
            let removal = cache.plan_removal("o/n", None).expect("planned");
            cache.remove(&removal).expect("removed");
            assert!(cache.models().expect("readable").is_empty());
        }
    }
}
