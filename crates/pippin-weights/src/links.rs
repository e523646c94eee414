//! Where the files of a model's folder are, and where links in it may lead.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::error::WeightsError;

/// A model's folder, and where links in it may lead.
pub(crate) struct Root {
    /// As the caller gave it; errors show this.
    pub(crate) folder: PathBuf,
    /// Of a folder of a Hugging Face cache: the places that its links may lead to, without links. Of any other: `None`, because
    /// whoever puts links into a folder of his own means them.
    allowed: Option<Allowed>,
}

struct Allowed {
    folders: Vec<PathBuf>,
    /// The folders for blobs that several models share, `blobs/<2 digits>/<hash>` beside the models.
    shared: Vec<PathBuf>,
}

impl Root {
    pub(crate) fn new(folder: &Path) -> Result<Self, WeightsError> {
        let real = fs::canonicalize(folder).map_err(|error| WeightsError::io(folder, "open", error))?;
        if !real.is_dir() {
            return Err(WeightsError::NotAFolder { path: folder.to_owned() });
        }
        // A repository, or a folder in it, may itself be a link to another disk: then only the way there tells that it is one.
        let absolute = std::path::absolute(folder).ok();
        let repositories: Vec<PathBuf> =
            absolute.iter().chain([&real]).filter_map(|path| hub_repository(path)).collect();
        let allowed = (!repositories.is_empty()).then(|| {
            let real_path = |path: PathBuf| fs::canonicalize(path).ok();
            let mut allowed = Allowed { folders: vec![real.clone()], shared: Vec::new() };
            for repository in repositories {
                allowed.folders.extend(real_path(repository.join("blobs")));
                allowed.shared.extend(repository.parent().and_then(|cache| real_path(cache.join("blobs"))));
                let Some(repository) = real_path(repository) else { continue };
                allowed.shared.extend(repository.parent().and_then(|cache| real_path(cache.join("blobs"))));
                allowed.folders.push(repository);
            }
            allowed
        });
        Ok(Self { folder: folder.to_owned(), allowed })
    }

    /// The file behind a plain name in the folder, without links, if it is in an allowed place.
    pub(crate) fn resolve(&self, name: &str) -> Result<PathBuf, WeightsError> {
        let path = self.folder.join(name);
        let target = fs::canonicalize(&path).map_err(|error| WeightsError::io(&path, "open", error))?;
        if self.allowed.as_ref().is_none_or(|allowed| allowed.holds(&target)) {
            Ok(target)
        } else {
            Err(WeightsError::UnsafeShard {
                path: self.folder.clone(),
                shard: name.to_owned(),
                problem: format!(
                    "it is a link to {}, outside the model's folder in the cache",
                    target.display()
                ),
            })
        }
    }
}

/// The file behind a name in a model's folder, without links, if it is one that links of that folder may lead to: any, but in
/// a folder of a Hugging Face cache only the model's own blobs, as [`Checkpoint::open`](crate::Checkpoint::open) has it.
///
/// # Errors
///
/// [`WeightsError::UnsafeShard`] for a link that leads elsewhere, [`WeightsError::Io`] for one that leads nowhere.
pub fn resolve_link(folder: &Path, name: &str) -> Result<PathBuf, WeightsError> {
    Root::new(folder)?.resolve(name)
}

/// Opens a file of a model's folder, `None` where there is none: one that [`resolve_link`] lets through, and that is a file.
/// (Opening a pipe would wait for its other end.)
///
/// # Errors
///
/// A link that leads nowhere, or out of a folder of a Hugging Face cache; something that is not a file; or what the system says.
pub fn open_file_of_model(path: &Path) -> io::Result<Option<fs::File>> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let absolute = std::path::absolute(path)?;
    // Of a file in a folder of a snapshot, that folder may be the link: the snapshot is looked for above it.
    let is_snapshot = |folder: &&Path| {
        let real = fs::canonicalize(folder).ok();
        [Some(*folder), real.as_deref()].into_iter().flatten().any(|path| hub_repository(path).is_some())
    };
    let snapshot = absolute.ancestors().skip(1).take(3).filter(is_snapshot).last();
    let folder = snapshot.or(absolute.parent());
    let name = folder.and_then(|folder| absolute.strip_prefix(folder).ok()).and_then(Path::to_str);
    if let (Some(folder), Some(name)) = (folder, name) {
        match resolve_link(folder, name) {
            Err(WeightsError::UnsafeShard { problem, .. }) => return Err(io::Error::other(problem)),
            Err(WeightsError::Io { source, .. }) if metadata.is_symlink() => {
                let target = fs::read_link(path)?;
                return Err(io::Error::new(
                    source.kind(),
                    format!("it is a link to {}: {source}", target.display()),
                ));
            }
            _ => {}
        }
    }
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    fs::File::open(path).map(Some)
}

impl Allowed {
    fn holds(&self, target: &Path) -> bool {
        let is_hash = |name: &Path, length: usize| {
            name.to_str().is_some_and(|name| {
                name.len() == length && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            })
        };
        let is_shared = |folder: &PathBuf| {
            let Ok(rest) = target.strip_prefix(folder) else { return false };
            let parts: Vec<Component<'_>> = rest.components().collect();
            matches!(parts.as_slice(), [group, hash] if is_hash(group.as_ref(), 2) && is_hash(hash.as_ref(), 64))
        };
        self.folders.iter().any(|folder| target.starts_with(folder)) || self.shared.iter().any(is_shared)
    }
}

/// The repository folder `…/models--<id>` of a folder `…/models--<id>/snapshots/<revision>[/…]`.
fn hub_repository(folder: &Path) -> Option<PathBuf> {
    let components: Vec<Component<'_>> = folder.components().collect();
    if components.contains(&Component::ParentDir) {
        return None;
    }
    let name = |index: usize| match components.get(index) {
        Some(Component::Normal(name)) => name.to_str(),
        _ => None,
    };
    let position = (0..components.len().saturating_sub(2)).rev().find(|&index| {
        name(index).is_some_and(|name| name.starts_with("models--")) && name(index + 1) == Some("snapshots")
    })?;
    Some(components.iter().take(position + 1).collect())
}
