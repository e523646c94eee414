//! Files that are mapped into memory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::WeightsError;

/// A read-only mapping of a whole file.
pub(crate) struct MappedFile {
    path: PathBuf,
    mapping: Mmap,
}

impl MappedFile {
    /// Maps `target`, which errors call `path` (the two differ when `path` is a link). It must have at least `prefix` bytes.
    pub(crate) fn open(path: &Path, target: &Path, prefix: usize) -> Result<Self, WeightsError> {
        // Checked before opening: opening a named pipe would block until somebody writes to it.
        let metadata = fs::metadata(target).map_err(|error| WeightsError::io(path, "open", error))?;
        if !metadata.is_file() {
            return Err(WeightsError::NotAFile { path: path.to_owned() });
        }
        if metadata.len() < prefix as u64 {
            return Err(WeightsError::TooShort { path: path.to_owned(), length: metadata.len(), prefix });
        }
        let file = File::open(target).map_err(|error| WeightsError::io(path, "open", error))?;
        // SAFETY: the mapping is read-only and private to this process, and every access goes through
        // `bytes`, whose length is the mapping's. What the type system cannot rule out is another process
        // changing the file: a write shows up as changed weights (all bit patterns of all dtypes are valid,
        // and text is copied before it is checked to be UTF-8, so memory safety depends on neither), and a truncation
        // makes later reads beyond the new end fail with SIGBUS, which ends the process. Every engine that maps
        // weights accepts this; tools that replace a model file write a new one and rename it, as
        // `write_safetensors` does, which leaves the mapped file as it was.
        let mapping = unsafe { Mmap::map(&file) }.map_err(|error| WeightsError::io(path, "map", error))?;
        Ok(Self { path: path.to_owned(), mapping })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.mapping
    }

    /// Asks the system to read the file ahead; a hint, so failures are ignored.
    pub(crate) fn prefetch(&self) {
        #[cfg(unix)]
        let _ = self.mapping.advise(memmap2::Advice::WillNeed);
    }
}
