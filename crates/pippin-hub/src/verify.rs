//! Hashes of files, and the memory of which files had the right one.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::{FileHash, HubError, Result};

/// How much of a file is read at once.
const BUFFER: usize = 1 << 20;

/// A hash in the making.
pub(crate) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    /// Of the kind that is expected, for a file of this size.
    pub(crate) fn new(expected: &FileHash, size: u64) -> Self {
        match expected {
            FileHash::Sha256(_) => Self::Sha256(Sha256::new()),
            FileHash::GitBlob(_) => {
                let mut hasher = Sha1::new();
                hasher.update(format!("blob {size}\0"));
                Self::Git(hasher)
            }
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> FileHash {
        match self {
            Self::Sha256(hasher) => FileHash::Sha256(hex(&hasher.finalize())),
            Self::Git(hasher) => FileHash::GitBlob(hex(&hasher.finalize())),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl FileHash {
    /// The SHA-256 of bytes.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::Sha256(hex(&Sha256::digest(bytes)))
    }

    /// What git calls a blob of these bytes.
    pub fn git_blob(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(&Self::GitBlob(String::new()), bytes.len() as u64);
        hasher.update(bytes);
        hasher.finish()
    }

    /// What the hash is called.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::GitBlob(_) => "git hash",
        }
    }
}

/// Hashes a file in the way that is expected of it.
pub(crate) fn hash_file(path: &Path, expected: &FileHash) -> Result<FileHash> {
    let failed = |source| HubError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut hasher = Hasher::new(expected, size);
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(failed(source)),
        }
    }
}

/// What tells that a file is the one that was checked: its size and when it was written.
fn stamp(metadata: &Metadata) -> (u64, u128) {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    (metadata.len(), modified.map_or(0, |time| time.as_nanos()))
}

/// Which files of a model had the right hash, and how they looked then.
///
/// Lines are only ever added, so that several processes can write: the last about a file counts. They stand beside the model;
/// where the cache cannot be written, in a folder of the user's. A file that is lost or cannot be written costs another
/// hashing, nothing else.
pub(crate) struct Records {
    places: Vec<Place>,
}

struct Place {
    path: PathBuf,
    known: HashMap<String, (String, u64, u128)>,
}

/// The largest file of records that is read.
const MAX_RECORDS: u64 = 16 << 20;

impl Records {
    /// Those of a model's folder in the cache.
    pub(crate) fn of(repository: &Path) -> Self {
        let mut paths = vec![repository.join(".pippin").join("verified")];
        // By where it is, because two caches may hold the same model.
        if let (Some(folder), Ok(real)) = (crate::hardware::user_folder(), repository.canonicalize()) {
            let name = FileHash::sha256(real.as_os_str().as_encoded_bytes());
            paths.push(folder.join("verified").join(name.as_hex()));
        }
        Self { places: paths.into_iter().map(Place::read).collect() }
    }

    /// Whether this file was checked, and has not changed since. `expected`: against that hash.
    pub(crate) fn holds(&self, key: &str, metadata: &Metadata, expected: Option<&FileHash>) -> bool {
        self.places.iter().filter_map(|place| place.known.get(key)).any(|(hash, size, time)| {
            (*size, *time) == stamp(metadata) && expected.is_none_or(|expected| expected.as_hex() == hash)
        })
    }

    /// The hash that a file had, whatever has become of it.
    pub(crate) fn hash(&self, key: &str) -> Option<FileHash> {
        FileHash::from_hex(&self.places.iter().find_map(|place| place.known.get(key))?.0)
    }

    /// Remembers that a file is right, in the first place that can be written.
    pub(crate) fn add(&mut self, key: &str, metadata: &Metadata, hash: &FileHash) {
        let (size, time) = stamp(metadata);
        let line = format!("{} {size} {time} {key}\n", hash.as_hex());
        if let Some(place) = self.places.iter_mut().find(|place| place.write(&line).is_ok()) {
            place.known.insert(key.to_owned(), (hash.as_hex().to_owned(), size, time));
        }
    }
}

impl Place {
    fn read(path: PathBuf) -> Self {
        let mut known = HashMap::new();
        for line in crate::cache::read_limited(&path, MAX_RECORDS).unwrap_or_default().lines() {
            let mut words = line.splitn(4, ' ');
            if let (Some(hash), Some(size), Some(time), Some(key)) =
                (words.next(), words.next(), words.next(), words.next())
                && let (Ok(size), Ok(time)) = (size.parse(), time.parse())
            {
                known.insert(key.to_owned(), (hash.to_owned(), size, time));
            }
        }
        Self { path, known }
    }

    fn write(&self, line: &str) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        OpenOptions::new().create(true).append(true).open(&self.path)?.write_all(line.as_bytes())
    }
}

/// The SHA-256 of a file. It is remembered, in a folder of the user's, and not computed again while size and time of the file are the
/// same.
///
/// # Errors
///
/// The file cannot be read.
pub fn content_hash(path: &Path) -> Result<FileHash> {
    let failed = |source| HubError::Read { path: path.to_owned(), source };
    let real = path.canonicalize().map_err(failed)?;
    let (mut records, key) = contents(&real);
    let before = real.metadata().map_err(failed)?;
    if let Some(known) = records.hash(&key).filter(|_| records.holds(&key, &before, None)) {
        return Ok(known);
    }
    let hash = hash_file(&real, &FileHash::Sha256(String::new()))?;
    // What was written meanwhile is hashed again next time.
    if real.metadata().is_ok_and(|after| stamp(&after) == stamp(&before)) {
        records.add(&key, &before, &hash);
    }
    Ok(hash)
}

/// Whether [`content_hash`] need not read this file.
pub fn is_content_known(path: &Path) -> bool {
    let known = || {
        let real = path.canonicalize().ok()?;
        let (records, key) = contents(&real);
        Some(records.holds(&key, &real.metadata().ok()?, None))
    };
    known().unwrap_or(false)
}

/// Where the hash of a file is remembered, and under which key.
fn contents(real: &Path) -> (Records, String) {
    let name = FileHash::sha256(real.as_os_str().as_encoded_bytes());
    let place = crate::hardware::user_folder().map(|folder| folder.join("contents").join(name.as_hex()));
    (Records { places: place.map(Place::read).into_iter().collect() }, name.as_hex().to_owned())
}

/// The largest header of a safetensors file.
const MAX_HEADER: u64 = 100 << 20;

/// What is wrong with the length of a safetensors file, by its own header: a download that was cut short.
pub(crate) fn weights_fault(path: &Path) -> Option<&'static str> {
    let read = || -> Option<bool> {
        let mut file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        let mut bytes = [0; 8];
        file.read_exact(&mut bytes).ok()?;
        let header = u64::from_le_bytes(bytes);
        if header > MAX_HEADER || header + 8 > length {
            return None;
        }
        let mut text = vec![0; header as usize];
        file.read_exact(&mut text).ok()?;
        let header_json: HashMap<String, serde_json::Value> = serde_json::from_slice(&text).ok()?;
        let end =
            header_json.values().filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64()).max();
        Some(header.checked_add(8)?.checked_add(end.unwrap_or(0))? == length)
    };
    match read() {
        Some(true) => None,
        Some(false) => Some("whose length is not what its header says"),
        None => Some("whose header cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_sha256sum() {
        assert_eq!(FileHash::git_blob(b"hello\n").as_hex(), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(FileHash::git_blob(b"").as_hex(), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(
            FileHash::sha256(b"hello\n").as_hex(),
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
        );
    }

    #[test]
    fn records_are_remembered_until_the_file_changes() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let path = root.path().join("a file");
        std::fs::write(&path, "hello\n").expect("written");
        let metadata = path.metadata().expect("exists");
        let hash = FileHash::git_blob(b"hello\n");
        Records::of(root.path()).add("a file", &metadata, &hash);
        let records = Records::of(root.path());
        assert!(records.holds("a file", &metadata, Some(&hash)));
        assert!(!records.holds("a file", &metadata, Some(&FileHash::git_blob(b"x"))));
        assert!(!records.holds("another", &metadata, None));
        std::fs::write(&path, "hello!\n").expect("written");
        assert!(!records.holds("a file", &path.metadata().expect("exists"), None));
        // Lines that make no sense are skipped.
        std::fs::write(root.path().join(".pippin/verified"), "\nx y z\nabc 1 2\n").expect("written");
        assert!(Records::of(root.path()).places.iter().all(|place| place.known.is_empty()));
    }

    #[test]
    fn truncated_weights_are_seen() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let path = root.path().join("model.safetensors");
        let header = br#"{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header);
        file.extend_from_slice(b"1234");
        for (length, is_fine) in
            [(file.len(), true), (file.len() - 1, false), (20, false), (3, false), (0, false)]
        {
            std::fs::write(&path, &file[..length]).expect("written");
            assert_eq!(weights_fault(&path).is_none(), is_fine, "{length}");
        }
        std::fs::write(&path, u64::MAX.to_le_bytes()).expect("written");
        assert!(weights_fault(&path).is_some());
    }
}
