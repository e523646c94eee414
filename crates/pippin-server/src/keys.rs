use std::fmt;
use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::ServerError;

/// The largest file of keys that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The fewest characters of a key.
const MIN_LENGTH: usize = 8;

/// The keys that clients may show. Only their hashes are kept.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// These keys.
    ///
    /// # Errors
    ///
    /// One has fewer than eight characters, or some that no header can carry.
    pub fn new<S: AsRef<str>>(keys: impl IntoIterator<Item = S>) -> Result<Self, ServerError> {
        let mut all = Vec::new();
        for (index, key) in keys.into_iter().enumerate() {
            let key = key.as_ref();
            if key.len() < MIN_LENGTH || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(ServerError::Key { number: index + 1 });
            }
            all.push(Sha256::digest(key).into());
        }
        Ok(Self(all))
    }

    /// The keys of a file: one in a line; empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    ///
    /// The file cannot be read or holds no key, or one of them is none.
    pub fn from_file(path: &Path) -> Result<Self, ServerError> {
        let failed = |error| ServerError::KeysFile { path: path.to_owned(), error };
        let size = std::fs::metadata(path).map_err(failed)?.len();
        if size > MAX_FILE_BYTES {
            return Err(failed(std::io::Error::other(format!("it has {size} bytes"))));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys = Self::new(lines)?;
        if keys.is_empty() { Err(ServerError::NoKeys { path: path.to_owned() }) } else { Ok(keys) }
    }

    /// Whether there is none, and so none is needed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A name that says nothing of the key, and is the same in whatever order they are given.
    pub(crate) fn name(&self, number: usize) -> Option<String> {
        // Of the hash of its hash: who finds the name on a disk cannot ask with it.
        let digest = Sha256::digest(self.0.get(number)?);
        Some(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// The number of this key. Every key is compared whole, whichever fits.
    pub(crate) fn find(&self, key: &[u8]) -> Option<usize> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut found = None;
        for (index, known) in self.0.iter().enumerate() {
            if bool::from(known.ct_eq(&digest)) {
                found = Some(index);
            }
        }
        found
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_the_whole_of_them() {
        let keys = Keys::new(["first-key", "second-key"]).expect("keys");
        assert_eq!(keys.find(b"first-key"), Some(0));
        assert_eq!(keys.find(b"second-key"), Some(1));
        for wrong in ["", "first-ke", "first-keyy", "FIRST-KEY"] {
            assert_eq!(keys.find(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(format!("{keys:?}"), "Keys(2)");
        let turned = Keys::new(["second-key", "first-key"]).expect("keys");
        assert_eq!((keys.name(0), keys.name(1)), (turned.name(1), turned.name(0)));
        assert_ne!(keys.name(0), keys.name(1));
        assert_eq!(keys.name(2), None);
    }

    #[test]
    fn a_file_has_a_key_in_a_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        std::fs::write(&path, "# of the house\nfirst-key\r\n\n  second-key  \n").expect("written");
        let keys = Keys::from_file(&path).expect("keys");
        assert_eq!((keys.len(), keys.find(b"second-key")), (2, Some(1)));

        for (text, part) in
            [("# none\n", "no key"), ("good-one\nshort\n", "key 2"), ("has a space in it", "key 1")]
        {
            std::fs::write(&path, text).expect("written");
            let error = Keys::from_file(&path).expect_err(text).to_string();
            assert!(error.contains(part) && !error.contains("short"), "{error}");
        }
        assert!(Keys::from_file(&folder.path().join("absent")).is_err());
    }
}
