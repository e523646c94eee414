//! What decides the bytes of pages and slots, beside the tokens.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use pippin_weights::WeightFiles;
use pippin_weights::gguf::Gguf;
use sha2::{Digest, Sha256};

use crate::kv::PAGE_SIZE;

/// More bytes than this take so long to hash that nobody should wait for it.
const SOON: u64 = 1 << 30;

/// The SHA-256 of all that decides the bytes of pages and slots: the model's files, the device with its kernels and numerics, the format
/// of the caches, the size of pages, the engine's version. Two with the same identity have the same bytes for the same tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity(pub(crate) [u8; 32]);

impl Identity {
    /// Of what a device says and of the contents of files, each with its name.
    pub(crate) fn new<'a>(kept_as: &str, files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        add(env!("CARGO_PKG_VERSION"));
        add(&PAGE_SIZE.to_string());
        add(kept_as);
        for (name, content) in files {
            add(name);
            add(content);
        }
        Self(hash.finalize().into())
    }

    /// As the name of a folder.
    pub(crate) fn to_hex(self) -> String {
        hex(&self.0[..16])
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The identity of a loaded model, which is found out when it is first asked for.
#[derive(Debug)]
pub(crate) struct Identified {
    /// The model's folder or file.
    model: PathBuf,
    kept_as: String,
    found: OnceLock<Option<Identity>>,
    /// Only one hashes.
    finding: Mutex<()>,
    takes_long: AtomicBool,
}

impl Identified {
    pub(crate) fn new(model: PathBuf, kept_as: String) -> Self {
        let (found, finding, takes_long) = Default::default();
        Self { model, kept_as, found, finding, takes_long }
    }

    /// An identity that needs no files.
    #[cfg(test)]
    pub(crate) fn known(identity: Identity) -> Self {
        let this = Self::new(PathBuf::new(), String::new());
        let _ = this.found.set(Some(identity));
        this
    }

    /// The identity, after reading all of the files, if nobody has before. `None`: they cannot be read.
    pub(crate) fn get(&self) -> Option<Identity> {
        let _finding = self.finding.lock().unwrap_or_else(PoisonError::into_inner);
        *self.found.get_or_init(|| self.find())
    }

    /// Whether the files are being read, and nobody should wait for it.
    pub(crate) fn takes_long(&self) -> bool {
        self.takes_long.load(Ordering::Relaxed) && self.found.get().is_none()
    }

    fn find(&self) -> Option<Identity> {
        let files = files(&self.model)?;
        let unknown = files.iter().filter(|path| !pippin_hub::is_content_known(path));
        let bytes: u64 = unknown.map(|path| path.metadata().map_or(0, |metadata| metadata.len())).sum();
        self.takes_long.store(bytes > SOON, Ordering::Relaxed);
        let mut contents = Vec::new();
        for path in files {
            let content = pippin_hub::content_hash(&path).ok()?;
            let name = path.file_name()?.to_string_lossy().into_owned();
            contents.push((name, content.as_hex().to_owned()));
        }
        let contents = contents.iter().map(|(name, content)| (name.as_str(), content.as_str()));
        Some(Identity::new(&self.kept_as, contents))
    }
}

/// The files that a model is read from: its weights, and everything that may be its configuration.
fn files(model: &Path) -> Option<BTreeSet<PathBuf>> {
    if model.is_file() {
        return Some(Gguf::open(model).ok()?.files().map(Path::to_owned).collect());
    }
    let weights = WeightFiles::of_folder(model).ok()?;
    let mut files: BTreeSet<PathBuf> =
        weights.files.iter().chain(&weights.extra).map(|name| model.join(name)).collect();
    for entry in std::fs::read_dir(model).ok()? {
        let path = entry.ok()?.path();
        if path.extension().is_some_and(|extension| extension == "json") && path.is_file() {
            files.insert(path);
        }
    }
    Some(files)
}
