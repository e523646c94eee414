//! The models of the cache: what there is, whether it is whole, and how it is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use pippin_weights::WeightFiles;

use crate::cache::{check_link, copy_key, folder_name, missing, read_config, read_limited};
use crate::client::check_names;
use crate::download::part::{JOURNAL_SUFFIX, PART_SUFFIX};
use crate::download::plan::{is_needed, is_optional};
use crate::lock::{FileLock, POLL, UseLock, lock_folder, own, share};
use crate::verify::{Records, hash_file, weights_fault};
use crate::{FileHash, HubCache, HubError, ModelShape, Result, gguf};

/// The longest that removing a model is waited for.
const REMOVAL: Duration = Duration::from_secs(60);

/// The folders within a snapshot that are looked into.
const MAX_DEPTH: usize = 8;

/// A model in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CachedModel {
    /// `organisation/name`.
    pub id: String,
    /// Its folder.
    pub path: PathBuf,
    /// What there is of it, newest first.
    pub revisions: Vec<CachedRevision>,
    /// Bytes on the disk, partial files included.
    pub bytes: u64,
    /// Bytes of partial files.
    pub partial_bytes: u64,
    /// When it was last loaded; or, where that is not known, downloaded.
    pub last_used: Option<SystemTime>,
}

/// A commit of a model in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CachedRevision {
    /// The commit.
    pub commit: String,
    /// The branches and tags that point to it.
    pub refs: Vec<String>,
    /// The folder with its files.
    pub path: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
    /// What it lacks to be loaded, as far as can be said without hashing.
    pub problem: Option<String>,
    /// Whether every file was found to be right, and has not changed since.
    pub is_verified: bool,
    /// `model_type` of its configuration.
    pub model_type: Option<String>,
    /// Bits of a quantized weight.
    pub bits: Option<u64>,
}

/// The result of checking a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileCheck {
    /// The commit.
    pub commit: String,
    /// The file's name within the model.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// How it is.
    pub state: FileState,
}

/// How a file of the cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileState {
    /// It is what the hub has.
    Right,
    /// It is something else.
    Damaged,
    /// It is not there, though the model needs it or a link leads to it.
    Missing,
    /// Nothing says what it should be: neither a hash in its name, nor a record.
    Unknown,
}

/// What a removal will do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removal {
    /// `organisation/name`.
    pub id: String,
    /// The commits that go.
    pub commits: Vec<String>,
    /// Whether nothing remains of the model.
    pub is_all: bool,
    /// Bytes that become free.
    pub bytes: u64,
    revision: Option<String>,
    quantization: Option<String>,
    /// What goes, by path within the model's folder, and how it looked.
    files: BTreeMap<PathBuf, Look>,
}

/// What can be told of a file without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Look {
    File { bytes: u64 },
    Link { target: PathBuf },
}

impl Removal {
    /// What a later plan for the same model does differently, in words.
    fn difference(&self, later: &Self) -> Option<String> {
        let named = |from: &Self, to: &Self| {
            let new = |commit: &&String| !from.commits.contains(commit);
            to.commits.iter().find(new).map(|commit| commit.chars().take(12).collect::<String>())
        };
        if let Some(commit) = named(self, later) {
            return Some(format!("the revision {commit} is there now"));
        }
        if let Some(commit) = named(later, self) {
            return Some(format!("the revision {commit} has gone"));
        }
        for (path, look) in &later.files {
            match self.files.get(path) {
                None => return Some(format!("{} was added", path.display())),
                Some(before) if before != look => return Some(format!("{} is another now", path.display())),
                Some(_) => {}
            }
        }
        let gone = self.files.keys().find(|path| !later.files.contains_key(*path));
        if let Some(path) = gone {
            return Some(format!("{} has gone, or another revision needs it now", path.display()));
        }
        (self.is_all != later.is_all).then(|| "another revision came or went".to_owned())
    }
}

/// What pruning did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// Partial files that were removed.
    pub files: usize,
    /// Bytes that became free.
    pub bytes: u64,
    /// Partial files that some process is working on.
    pub busy: usize,
}

impl HubCache {
    /// The models of the cache, by id. Nothing is hashed.
    ///
    /// # Errors
    ///
    /// The cache cannot be read. One that does not exist is empty.
    pub fn models(&self) -> Result<Vec<CachedModel>> {
        let entries = match fs::read_dir(self.root()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(HubError::Read { path: self.root().to_owned(), source }),
        };
        let mut models = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_prefix("models--")) else { continue };
            let id = id.replacen("--", "/", 1);
            if crate::cache::is_hub_id(&id) && entry.path().is_dir() {
                models.push(self.describe(id));
            }
        }
        models.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(models)
    }

    /// One model of the cache.
    ///
    /// # Errors
    ///
    /// The name is invalid, or there is nothing of the model.
    pub fn model(&self, id: &str) -> Result<CachedModel> {
        check_names(id, "main")?;
        if self.repository(id).is_dir() {
            Ok(self.describe(id.to_owned()))
        } else {
            Err(self.not_cached(id, "main"))
        }
    }

    pub(crate) fn not_cached(&self, id: &str, revision: &str) -> HubError {
        HubError::NotCached {
            there: folders(&self.repository(id).join("snapshots"))
                .into_iter()
                .map(|(commit, _)| commit)
                .min()
                .map(Arc::new),
            id: id.to_owned(),
            quantization: None,
            revision: revision.to_owned(),
            cache: self.root().to_owned(),
        }
    }

    fn describe(&self, id: String) -> CachedModel {
        let path = self.repository(&id);
        let records = Records::of(&path);
        let refs = refs(&path);
        let mut revisions = Vec::new();
        for (commit, snapshot) in folders(&path.join("snapshots")) {
            let files = files(&snapshot);
            let bytes =
                files.iter().filter_map(|file| fs::metadata(&file.1).ok()).map(|data| data.len()).sum();
            let problem = missing(&snapshot).unwrap_or_else(|error| Some(error.to_string()));
            let needed = needed(&snapshot);
            let is_verified = problem.is_none()
                && needed.iter().all(|name| {
                    matches!(check(&path, &snapshot, name, Some(&records), false), Ok((FileState::Right, _)))
                });
            let shape = ModelShape::from_config(&read_config(&snapshot));
            revisions.push(CachedRevision {
                refs: refs
                    .iter()
                    .filter(|(_, target)| **target == commit)
                    .map(|(name, _)| name.clone())
                    .collect(),
                commit,
                path: snapshot,
                bytes,
                problem,
                is_verified,
                model_type: shape.family,
                bits: shape.bits.map(u64::from),
            });
        }
        let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
        revisions.sort_by_key(|revision| std::cmp::Reverse(modified(&revision.path)));
        let mut last_used = modified(&path.join(".pippin").join("used"));
        if last_used.is_none() {
            last_used = revisions.iter().filter_map(|revision| modified(&revision.path)).max();
        }
        let (mut bytes, mut partial_bytes) = (0, 0);
        for (name, path) in plain_files(&path.join("blobs")) {
            let size = allocated(&path);
            bytes += size;
            if is_partial(&name) {
                partial_bytes += size;
            }
        }
        // Copies, where links are not possible.
        let copies = revisions.iter().flat_map(|revision| files(&revision.path));
        bytes += copies.filter(|(_, path)| is_copy(path)).map(|(_, path)| allocated(&path)).sum::<u64>();
        CachedModel { id, path, revisions, bytes, partial_bytes, last_used }
    }

    /// Says that the model in a folder is in use, when the folder is a snapshot of this or any other cache: until the
    /// lock is dropped, no process removes it. While one is about to, it is waited for. `None` for other folders, for what
    /// was removed, and for caches that cannot be written.
    ///
    /// A file in a snapshot stands for it.
    pub fn use_lock(folder: &Path) -> Option<UseLock> {
        let is_snapshot =
            |path: &&Path| path.parent().and_then(Path::file_name).is_some_and(|name| name == "snapshots");
        let folder = folder.ancestors().take(MAX_DEPTH).find(is_snapshot)?;
        let snapshots = folder.parent()?;
        let repository = snapshots.parent()?;
        let name = repository.file_name()?.to_str()?;
        if snapshots.file_name()? != "snapshots" || !name.starts_with("models--") {
            return None;
        }
        let begin = Instant::now();
        let lock = loop {
            if let Some(lock) = share(repository.parent()?, name).ok()? {
                break lock;
            }
            // Whoever removes it may still find that it must stay; loaded without a lock, it could be removed later.
            if begin.elapsed() > REMOVAL {
                return None;
            }
            std::thread::sleep(POLL);
        };
        if !folder.is_dir() {
            return None;
        }
        // Only its time matters.
        let used = repository.join(".pippin").join("used");
        let _ = fs::create_dir_all(repository.join(".pippin")).and_then(|()| fs::write(used, ""));
        Some(lock)
    }

    /// Checks every file of a model's snapshots against its hash. Files that were checked before and have not changed
    /// are believed, unless `all` of them are to be hashed again. `progress` sees each file before it is read.
    ///
    /// # Errors
    ///
    /// There is nothing of the model, a file cannot be read, or a link leads out of the model's folder.
    pub fn verify(&self, id: &str, all: bool, mut progress: impl FnMut(&str, u64)) -> Result<Vec<FileCheck>> {
        let model = self.model(id)?;
        let mut checks = Vec::new();
        for revision in &model.revisions {
            let mut names: BTreeSet<String> =
                files(&revision.path).into_iter().map(|(name, _)| name).collect();
            names.extend(needed(&revision.path));
            for name in names {
                let size = fs::metadata(revision.path.join(&name)).map_or(0, |metadata| metadata.len());
                progress(&name, size);
                let records = (!all).then(|| Records::of(&model.path));
                let (state, _) = check(&model.path, &revision.path, &name, records.as_ref(), true)?;
                checks.push(FileCheck { commit: revision.commit.clone(), path: name, size, state });
            }
        }
        Ok(checks)
    }

    /// Finds out what removing a model, or one revision of it, means. Blobs that another revision refers to stay.
    ///
    /// # Errors
    ///
    /// The names are invalid, or there is nothing of the model or no such revision.
    pub fn plan_removal(&self, id: &str, revision: Option<&str>) -> Result<Removal> {
        self.plan_removal_of(id, revision, None)
    }

    /// The same for one of the quantizations that a model has as GGUF files, by its name (`Q4_K_M`) or that of a file. What else
    /// there is of the model stays.
    ///
    /// # Errors
    ///
    /// As [`plan_removal`](Self::plan_removal); and there is no such quantization, or the name may be any of several.
    pub fn plan_removal_of(
        &self,
        id: &str,
        revision: Option<&str>,
        quantization: Option<&str>,
    ) -> Result<Removal> {
        check_names(id, revision.unwrap_or("main"))?;
        let model = self.model(id)?;
        let refs = refs(&model.path);
        let commits: Vec<String> = match revision {
            None => model.revisions.iter().map(|revision| revision.commit.clone()).collect(),
            Some(wanted) => {
                let target = refs.iter().find(|(name, _)| *name == wanted).map(|(_, commit)| commit.as_str());
                let commit = target.unwrap_or(wanted);
                let known = model.revisions.iter().find(|revision| revision.commit == commit);
                vec![known.ok_or_else(|| self.not_cached(id, wanted))?.commit.clone()]
            }
        };
        let found = inventory(&model.path);
        if let Some(wanted) = quantization {
            return removal_of_quantization(&model, &commits, revision, wanted, found);
        }
        let is_all = commits.len() == model.revisions.len();
        let (revision, quantization) = (revision.map(str::to_owned), None);
        if is_all {
            let bytes = model.bytes;
            let id = id.to_owned();
            return Ok(Removal { id, commits, is_all, bytes, revision, quantization, files: found });
        }
        let blobs_of = |goes: bool| -> BTreeSet<PathBuf> {
            model
                .revisions
                .iter()
                .filter(|revision| commits.contains(&revision.commit) == goes)
                .flat_map(|revision| files(&revision.path))
                .filter_map(|(_, path)| Some(Path::new("blobs").join(blob_name(&path)?)))
                .filter(|blob| found.contains_key(blob))
                .collect()
        };
        let mut going: BTreeSet<PathBuf> = refs
            .iter()
            .filter(|(_, commit)| commits.contains(commit))
            .map(|(name, _)| Path::new("refs").join(name))
            .collect();
        let mut bytes = 0;
        for path in blobs_of(true).difference(&blobs_of(false)) {
            bytes += allocated(&model.path.join(path));
            going.insert(path.clone());
        }
        let snapshots: Vec<PathBuf> =
            commits.iter().map(|commit| Path::new("snapshots").join(commit)).collect();
        let goes =
            |path: &Path| going.contains(path) || snapshots.iter().any(|snapshot| path.starts_with(snapshot));
        let files = found.into_iter().filter(|(path, _)| goes(path)).collect();
        Ok(Removal { id: id.to_owned(), commits, is_all, bytes, revision, quantization, files })
    }

    /// Removes what was planned, and nothing else: what has come to the model since then stays, and with it the rest.
    ///
    /// # Errors
    ///
    /// [`HubError::InUse`] when the model is loaded or being downloaded, [`HubError::Changed`] when the removal would not
    /// be the one that was planned, or a file cannot be removed.
    pub fn remove(&self, removal: &Removal) -> Result<()> {
        let name = folder_name(&removal.id);
        let in_use = || HubError::InUse { id: removal.id.clone() };
        let _lock = own(self.root(), &name)?.ok_or_else(in_use)?;
        let repository = self.repository(&removal.id);
        // Python tools do not say that they use a model, but lock what they download.
        let mut locks = Vec::new();
        for path in removal.files.keys() {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if is_partial(name) {
                let lock = lock_folder(self.root(), &folder_name(&removal.id)).join(lock_name(name));
                if !locks.iter().any(|(path, _)| *path == lock) {
                    let held = FileLock::try_exclusive(&lock)?.ok_or_else(in_use)?;
                    locks.push((lock, held));
                }
            }
        }
        // The plan is from before somebody thought about an answer.
        let changed = |what: String| HubError::Changed { id: removal.id.clone(), what };
        let (revision, quantization) = (removal.revision.as_deref(), removal.quantization.as_deref());
        let now = match self.plan_removal_of(&removal.id, revision, quantization) {
            Err(HubError::NotCached { .. } | HubError::Quantization { .. }) => {
                Err(changed("it has gone".to_owned()))
            }
            other => other,
        }?;
        if let Some(what) = removal.difference(&now) {
            return Err(changed(what));
        }
        // In an order in which an interruption leaves a model that is incomplete rather than one that looks whole.
        let order =
            |path: &Path| ["refs", "snapshots"].iter().position(|part| path.starts_with(part)).unwrap_or(2);
        let mut files: Vec<&PathBuf> = removal.files.keys().collect();
        files.sort_by_key(|path| order(path));
        for path in files {
            let path = repository.join(path);
            gone(&path, fs::remove_file(&path))?;
        }
        // Of a snapshot of which a part stays, only folders that are empty now.
        let snapshots: BTreeSet<&Path> = removal.files.keys().filter_map(|path| snapshot_of(path)).collect();
        let commits = removal.commits.iter().map(|commit| Path::new("snapshots").join(commit));
        for snapshot in snapshots.into_iter().map(Path::to_owned).chain(commits) {
            remove_empty(&repository.join(snapshot));
        }
        if !removal.is_all {
            return Ok(());
        }
        for part in ["refs", "snapshots", "blobs"] {
            let path = repository.join(part);
            remove_empty(&path);
            // The blobs were on another disk, from which they have gone.
            if path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) && is_empty(&path) {
                gone(&path, fs::remove_file(&path))?;
            }
        }
        // Records of files that are no more. Where something came in this very moment, they stay with it.
        if ["refs", "snapshots", "blobs"].iter().any(|part| repository.join(part).exists()) {
            return Ok(());
        }
        for part in [".no_exist", ".pippin"] {
            let path = repository.join(part);
            gone(&path, fs::remove_dir_all(&path))?;
        }
        // Where the folder is a link, somebody keeps models elsewhere: what is in it goes, the link stays.
        if !repository.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
            remove_empty(&repository);
        }
        Ok(())
    }

    /// Removes partial files, those of Python tools included, that no process is working on.
    ///
    /// # Errors
    ///
    /// The cache cannot be read, or a file cannot be removed.
    pub fn prune(&self) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        for model in self.models()? {
            let folder = lock_folder(self.root(), &folder_name(&model.id));
            for (name, path) in plain_files(&model.path.join("blobs")) {
                if is_partial(&name) {
                    pruned.remove(&folder.join(lock_name(&name)), &path)?;
                }
            }
        }
        Ok(pruned)
    }
}

impl Pruned {
    /// Removes a partial file, unless somebody holds its lock. Only what was there until now counts: its download may have
    /// ended after the folder was read.
    fn remove(&mut self, lock: &Path, path: &Path) -> Result<()> {
        let Some(_lock) = FileLock::try_exclusive(lock)? else {
            self.busy += 1;
            return Ok(());
        };
        let size = allocated(path);
        match fs::remove_file(path) {
            Ok(()) => {
                let is_journal = path.to_string_lossy().ends_with(JOURNAL_SUFFIX);
                self.files += usize::from(!is_journal);
                self.bytes += size;
                Ok(())
            }
            removed => gone(path, removed),
        }
    }
}

/// What removing one quantization of some of a model's revisions means: its files go, and the blobs that no other file refers to.
/// A revision of which nothing is left goes as a whole, and with the last one the model; partial files stay, as they may be of
/// another quantization.
fn removal_of_quantization(
    model: &CachedModel,
    commits: &[String],
    revision: Option<&str>,
    wanted: &str,
    found: BTreeMap<PathBuf, Look>,
) -> Result<Removal> {
    let mut going = BTreeSet::new();
    let mut problem = None;
    for commit in commits {
        let snapshot = Path::new("snapshots").join(commit);
        let names = gguf::names_in(&model.path.join(&snapshot));
        match gguf::choose(&gguf::sets(names.iter().map(String::as_str)), Some(wanted)) {
            Ok(set) => going.extend(set.files.iter().map(|name| snapshot.join(name))),
            // Another revision may have it; but what is ambiguous in one is not guessed.
            Err(gguf::NotChosen::Several(text)) => {
                problem = Some(text);
                going.clear();
                break;
            }
            Err(gguf::NotChosen::None(text)) => problem = problem.or(Some(text)),
        }
    }
    going.retain(|path| found.contains_key(path));
    if going.is_empty() {
        let problem = problem.unwrap_or_else(|| format!("nothing of its quantization {wanted:?} is here"));
        return Err(HubError::Quantization { model: model.id.clone(), problem });
    }
    let blobs_of = |goes: bool| -> BTreeSet<PathBuf> {
        let links =
            found.keys().filter(|path| path.starts_with("snapshots") && going.contains(*path) == goes);
        links.filter_map(|path| Some(Path::new("blobs").join(blob_name(&model.path.join(path))?))).collect()
    };
    let blobs: BTreeSet<PathBuf> = blobs_of(true)
        .difference(&blobs_of(false))
        .filter(|blob| found.contains_key(*blob))
        .cloned()
        .collect();
    let copies = going.iter().map(|path| model.path.join(path)).filter(|path| is_copy(path));
    let copied: u64 = copies.map(|path| allocated(&path)).sum();
    let bytes = copied + blobs.iter().map(|blob| allocated(&model.path.join(blob))).sum::<u64>();
    let is_left = |commit: &&String| {
        let snapshot = Path::new("snapshots").join(commit);
        found.keys().any(|path| path.starts_with(&snapshot) && !going.contains(path))
    };
    let commits: Vec<String> = commits.iter().filter(|commit| !is_left(commit)).cloned().collect();
    going.extend(blobs);
    for (name, _) in refs(&model.path).into_iter().filter(|(_, commit)| commits.contains(commit)) {
        going.insert(Path::new("refs").join(name));
    }
    let is_all = found.keys().all(|path| going.contains(path));
    let files = found.into_iter().filter(|(path, _)| going.contains(path)).collect();
    let (id, revision) = (model.id.clone(), revision.map(str::to_owned));
    Ok(Removal { id, commits, is_all, bytes, revision, quantization: Some(wanted.to_owned()), files })
}

/// The snapshot that a path within a model's folder is in.
fn snapshot_of(path: &Path) -> Option<&Path> {
    let is_snapshot = |path: &&Path| path.parent() == Some(Path::new("snapshots"));
    path.ancestors().skip(1).find(is_snapshot)
}

/// The lock of whoever downloads the blob that a partial file will be.
fn lock_name(partial: &str) -> String {
    format!("{}.lock", partial.split('.').next().unwrap_or_default())
}

/// Everything in a model's folder but what Pippin and others have noted about it.
fn inventory(repository: &Path) -> BTreeMap<PathBuf, Look> {
    fn walk(root: &Path, within: &Path, found: &mut BTreeMap<PathBuf, Look>) {
        for entry in fs::read_dir(root.join(within)).into_iter().flatten().flatten() {
            let path = within.join(entry.file_name());
            if path == Path::new(".pippin") || path == Path::new(".no_exist") {
                continue;
            }
            let Ok(kind) = entry.file_type() else { continue };
            // Somebody may have moved the blobs to another disk.
            let is_blobs = || path == Path::new("blobs") && entry.path().is_dir();
            if kind.is_dir() || is_blobs() {
                // The system bounds how long a path can be.
                walk(root, &path, found);
                continue;
            }
            let look = if kind.is_symlink() {
                Look::Link { target: fs::read_link(entry.path()).unwrap_or_default() }
            } else {
                Look::File { bytes: allocated(&entry.path()) }
            };
            found.insert(path, look);
        }
    }
    let mut found = BTreeMap::new();
    walk(repository, Path::new(""), &mut found);
    found
}

/// Removes a folder and those in it, as far as there are no files in them.
fn remove_empty(folder: &Path) {
    for (_, path) in folders(folder) {
        remove_empty(&path);
    }
    let _ = fs::remove_dir(folder);
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// The name of the blob that a file of a snapshot is a link to.
fn blob_name(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    (target.parent()?.file_name()? == "blobs").then(|| target.file_name()?.to_str().map(str::to_owned))?
}

/// Removing what is not there is no failure.
fn gone(path: &Path, result: std::io::Result<()>) -> Result<()> {
    match result {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(HubError::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn is_partial(name: &str) -> bool {
    [PART_SUFFIX, JOURNAL_SUFFIX, ".incomplete"].iter().any(|suffix| name.ends_with(suffix))
}

/// Whether a file of a snapshot has its own bytes, rather than being another name of a blob.
fn is_copy(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() && links(&metadata) == 1)
}

#[cfg(unix)]
fn links(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(metadata)
}

#[cfg(not(unix))]
fn links(_: &fs::Metadata) -> u64 {
    1
}

/// Bytes on the disk: a partial file has holes.
fn allocated(path: &Path) -> u64 {
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    #[cfg(unix)]
    let bytes = metadata.len().min(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512);
    #[cfg(not(unix))]
    let bytes = metadata.len();
    bytes
}

/// The plain files of a folder.
fn plain_files(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    files.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect()
}

/// The folders of a folder.
fn folders(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect()
}

/// Everything in a folder and below that is no folder, links included, by name within it.
fn files(folder: &Path) -> Vec<(String, PathBuf)> {
    fn walk(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<(String, PathBuf)>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = format!("{prefix}{name}");
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push((name, entry.path()));
            } else if depth < MAX_DEPTH {
                walk(&entry.path(), &format!("{name}/"), depth + 1, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, "", 0, &mut found);
    found.sort();
    found
}

/// Branches and tags, with the commits that they point to.
fn refs(repository: &Path) -> BTreeMap<String, String> {
    let files = files(&repository.join("refs"));
    files
        .into_iter()
        .filter_map(|(name, path)| Some((name, read_limited(&path, 256)?.trim().to_owned())))
        .collect()
}

/// The files of a snapshot that Pippin reads: the weights that are loaded, and all that is small.
fn needed(snapshot: &Path) -> Vec<String> {
    let mut needed: BTreeSet<String> =
        files(snapshot).into_iter().map(|(name, _)| name).filter(|name| is_needed(name)).collect();
    needed.extend(gguf::names_in(snapshot));
    if let Ok(weights) = WeightFiles::of_folder(snapshot) {
        needed.extend([weights.files, weights.extra, weights.missing].into_iter().flatten());
    }
    needed.into_iter().collect()
}

/// What is wrong with the files of a snapshot that Pippin cannot do without: `None` when all are right. Those that were not
/// checked before are hashed, several at once.
pub(crate) fn damage(repository: &Path, snapshot: &Path) -> Result<Option<String>> {
    let mut names = needed(snapshot);
    let has_tokenizer = names.iter().any(|name| name == "tokenizer.json");
    names.retain(|name| !is_optional(name, has_tokenizer));
    let records = Records::of(repository);
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8).min(names.len().max(1));
    let work = || {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = check(repository, snapshot, name, Some(&records), true);
            if let Ok(mut outcomes) = outcomes.lock() {
                outcomes.push((name, outcome));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_default();
    outcomes.sort_by_key(|(name, _)| *name);
    for (name, outcome) in outcomes {
        match outcome? {
            (FileState::Right | FileState::Unknown, _) => {}
            (FileState::Missing, _) => return Ok(Some(format!("no {name:?}"))),
            (FileState::Damaged, problem) => return Ok(Some(format!("{name:?} is damaged: {problem}"))),
        }
    }
    Ok(None)
}

/// Checks a file of a snapshot. `records`: what may be believed; `hashes`: whether to read the file when they do not
/// say.
fn check(
    repository: &Path,
    snapshot: &Path,
    name: &str,
    records: Option<&Records>,
    hashes: bool,
) -> Result<(FileState, &'static str)> {
    if fault(name).is_some() {
        return Ok((FileState::Damaged, "its name is not allowed"));
    }
    let path = snapshot.join(name);
    let Ok(metadata) = fs::metadata(&path) else { return Ok((FileState::Missing, "")) };
    let blob = check_link(snapshot, name)?;
    if !metadata.is_file() {
        return Ok((FileState::Damaged, "it is not a regular file"));
    }
    let link = blob_name(&path);
    let stored = records.is_none().then(|| Records::of(repository));
    let known = records.or(stored.as_ref());
    let commit = snapshot.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // The blob may itself be a link, to one that several models share and that is named otherwise.
    let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    let behind = || blob.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let (key, expected) = if let Some(key) = link.or_else(|| is_link.then(behind)) {
        let expected = FileHash::from_hex(&key);
        (key, expected)
    } else {
        let key = copy_key(commit, name);
        let expected = known.and_then(|records| records.hash(&key));
        (key, expected)
    };
    let Some(expected) = expected else {
        // What can be said without a hash: the lengths in the headers of the weights.
        return Ok(match name.ends_with(".safetensors").then(|| weights_fault(&path)).flatten() {
            Some(problem) => (FileState::Damaged, problem),
            None => (FileState::Unknown, ""),
        });
    };
    if records.is_some_and(|records| records.holds(&key, &metadata, Some(&expected))) {
        return Ok((FileState::Right, ""));
    }
    if !hashes {
        return Ok((FileState::Unknown, ""));
    }
    if hash_file(&blob, &expected)? != expected {
        return Ok((FileState::Damaged, "its content has another hash"));
    }
    Records::of(repository).add(&key, &metadata, &expected);
    Ok((FileState::Right, ""))
}

/// Names that Windows gives to devices, in every folder.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];
/// The longest file name, all folders included.
const MAX_NAME: usize = 512;

/// Refuses names of files that would leave the folder they belong in, that would hide, or that some systems cannot
/// have. A model's file list and its shard index come from strangers.
///
/// # Errors
///
/// [`HubError::UnsafePath`].
pub(crate) fn check_file_name(id: &str, path: &str) -> Result<()> {
    match fault(path) {
        None => Ok(()),
        Some(problem) => {
            let path = path.chars().take(200).collect();
            Err(HubError::UnsafePath { id: id.to_owned(), path, problem })
        }
    }
}

/// Whether a name is an attempt to leave a folder: nobody names a file so by accident.
pub(crate) fn is_trick(path: &str) -> bool {
    path.starts_with('/')
        || path.contains('\\')
        || path.contains('\0')
        || path.split('/').any(|part| matches!(part, "." | ".."))
}

/// What is wrong with a file name.
pub(crate) fn fault(path: &str) -> Option<&'static str> {
    if path.is_empty() || path.len() > MAX_NAME {
        return Some("it is empty, or too long");
    }
    if path.contains('\\') {
        return Some("it holds a backslash");
    }
    if path.chars().any(char::is_control) {
        return Some("it holds control characters");
    }
    if path.contains(['<', '>', ':', '"', '|', '?', '*']) {
        return Some("it holds characters that file names cannot have everywhere");
    }
    for part in path.split('/') {
        match part {
            "" => return Some("it is absolute, or has an empty part"),
            "." | ".." => return Some("it leads out of its folder"),
            _ => {}
        }
        if part.len() > 255 {
            return Some("it is empty, or too long");
        }
        if part.ends_with(['.', ' ']) {
            return Some("a part of it ends with a dot or a space");
        }
        let stem = part.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let is_numbered = |prefix: &str| {
            stem.strip_prefix(prefix).is_some_and(|rest| {
                matches!(rest, "¹" | "²" | "³") || matches!(rest.as_bytes(), [b'0'..=b'9'])
            })
        };
        if DEVICES.contains(&stem.as_str()) || is_numbered("com") || is_numbered("lpt") {
            return Some("it is the name of a device");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_to_use_a_model_waits_for_who_removes_it() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let repository = root.path().join("models--o--n");
        let snapshot = repository.join("snapshots").join("0123");
        for stays in [true, false] {
            fs::create_dir_all(&snapshot).expect("created");
            let remover = own(root.path(), "models--o--n").expect("writable").expect("free");
            let user = std::thread::spawn({
                let snapshot = snapshot.clone();
                move || HubCache::use_lock(&snapshot)
            });
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(10));
                assert!(!user.is_finished(), "nobody has decided yet whether it stays");
            }
            if !stays {
                fs::remove_dir_all(&repository).expect("removed");
            }
            drop(remover);
            let lock = user.join().expect("no panic");
            assert_eq!(lock.is_some(), stays);
            assert_eq!(repository.exists(), stays, "what was removed does not come back");
            assert_eq!(own(root.path(), "models--o--n").expect("writable").is_none(), stays);
        }
    }

    #[test]
    fn only_what_pruning_removed_counts() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (lock, partial) = (root.path().join("0123.lock"), root.path().join("0123.incomplete"));
        fs::write(&partial, [1; 5000]).expect("written");
        let mut pruned = Pruned::default();
        pruned.remove(&lock, &partial).expect("removed");
        // Its download ended after it was listed.
        pruned.remove(&lock, &partial).expect("nothing to remove");
        assert_eq!((pruned.files, pruned.bytes, pruned.busy), (1, 5000, 0));
    }

    #[test]
    fn names_of_model_files_are_fine() {
        for name in [
            "config.json",
            "model-00001-of-00002.safetensors",
            "additional_chat_templates/tool use.jinja",
            "tokenizer.model.v3",
            ".gitattributes",
            "console.json",
            "ünicode.json",
        ] {
            assert_eq!(fault(name), None, "{name}");
        }
    }

    #[test]
    fn path_tricks_are_refused() {
        for name in [
            "",
            "..",
            "../x",
            "a/../x",
            "a/..",
            "/etc/passwd",
            "//x",
            "a//b",
            "a/",
            "./a",
            "C:/x",
            "C:x",
            "a\\b",
            "..\\x",
            "\\\\server\\share",
            "a\0b",
            "a\nb",
            "a\u{1b}[2J",
            "nul",
            "NUL.json",
            "a/con/b",
            "aux.safetensors",
            "com1.json",
            "LPT9",
            "x.",
            "x ",
            "x./y",
            "file:stream",
            "a?b",
            "CONIN$",
        ] {
            assert!(fault(name).is_some(), "{name:?}");
            assert!(matches!(check_file_name("o/n", name), Err(HubError::UnsafePath { .. })));
        }
        assert!(fault(&"x/".repeat(400)).is_some());
        assert!(fault(&"x".repeat(256)).is_some());
    }
}
