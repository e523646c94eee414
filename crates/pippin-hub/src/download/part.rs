//! A file that is being downloaded: the bytes so far, and a journal of which they are.
//!
//! Ranges arrive in any order and several at once, so a length does not say what is there. Each piece that is written
//! gets a line in the journal, with a checksum. That makes the journal true without a single `fsync`: after the process
//! was killed, whatever the kernel had been given is there; after the power failed, pieces that did not reach the disk
//! do not match their checksum and are fetched again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ranges::Ranges;
use crate::{HubError, Result};

/// Pieces, and with them what is lost when the process is killed, are at most this large.
pub(crate) const PIECE: usize = 128 << 10;
/// So much of a piece is written at a time. The kernel's cache takes memory in blocks as large as the write, and large
/// blocks tend to be fresh memory, which a virtual machine has to get from its host first: there, writing 128 KiB at a time
/// took from as long to four times as long as 16 KiB.
const WRITE: usize = 16 << 10;
/// The largest journal that is read: pieces of two terabytes.
const MAX_JOURNAL: u64 = 512 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Part {
    file: File,
    /// Held while a piece is written: the kernel lets one thread at a time write to a file, and threads that wait for it
    /// there spin, which cost a third of all processor time. Here they sleep.
    journal: Mutex<File>,
    pub(crate) path: PathBuf,
    journal_path: PathBuf,
}

/// The name of the bytes so far.
pub(crate) const PART_SUFFIX: &str = ".pippin-part";
/// The name of the journal.
pub(crate) const JOURNAL_SUFFIX: &str = ".pippin-journal";

impl Part {
    /// Opens what there is of a blob, and says which ranges of it are good.
    pub(crate) fn open(blobs: &Path, name: &str, size: u64) -> Result<(Self, Ranges)> {
        let path = blobs.join(format!("{name}{PART_SUFFIX}"));
        let journal_path = blobs.join(format!("{name}{JOURNAL_SUFFIX}"));
        let header = format!("pippin-journal 1 {size}\n");
        let open = |path: &Path| {
            // A link planted here would make us write elsewhere.
            if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
                std::fs::remove_file(path)
                    .map_err(|source| HubError::Write { path: path.to_owned(), source })?;
            }
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .map_err(|source| HubError::Write { path: path.to_owned(), source })
        };
        let file = open(&path)?;
        drop(open(&journal_path)?);
        let old = crate::cache::read_limited(&journal_path, MAX_JOURNAL).unwrap_or_default();
        let mut done = Ranges::default();
        if let Some(lines) = old.strip_prefix(&header) {
            let mut buffer = vec![0; PIECE];
            for (start, length, checksum) in lines.split_inclusive('\n').filter_map(entry) {
                let is_within =
                    length <= PIECE && start.checked_add(length as u64).is_some_and(|end| end <= size);
                if is_within
                    && read_at(&file, &mut buffer[..length], start).is_ok()
                    && crc32fast::hash(&buffer[..length]) == checksum
                {
                    done.add(start, start + length as u64);
                }
            }
        }
        let failed = |source| HubError::Write { path: journal_path.clone(), source };
        let mut journal = OpenOptions::new().append(true).open(&journal_path).map_err(failed)?;
        if done.is_empty() {
            journal.set_len(0).map_err(failed)?;
            journal.write_all(header.as_bytes()).map_err(failed)?;
            // Only where there is something: what was once cut to nothing, ext4 writes to the disk when it is closed, and a
            // process that was killed would go on receiving meanwhile.
            if !file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
                file.set_len(0).map_err(|source| HubError::Write { path: path.clone(), source })?;
            }
        } else if !old.ends_with('\n') {
            // The last line was cut off; the next must not continue it.
            journal.write_all(b"\n").map_err(failed)?;
        }
        Ok((Self { file, journal: Mutex::new(journal), path, journal_path }, done))
    }

    fn journal(&self) -> MutexGuard<'_, File> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a piece, and then that it is there.
    pub(crate) fn write(&self, start: u64, bytes: &[u8]) -> Result<()> {
        let line = format!("{start:x} {:x} {:08x}\n", bytes.len(), crc32fast::hash(bytes));
        let mut journal = self.journal();
        for (slice, at) in bytes.chunks(WRITE).zip((start..).step_by(WRITE)) {
            write_at(&self.file, slice, at)
                .map_err(|source| HubError::Write { path: self.path.clone(), source })?;
        }
        // One call, on a file opened for appending: a kill leaves whole lines, or nothing but the last cut off.
        journal
            .write_all(line.as_bytes())
            .map_err(|source| HubError::Write { path: self.journal_path.clone(), source })
    }

    pub(crate) fn read(&self, buffer: &mut [u8], start: u64) -> Result<()> {
        read_at(&self.file, buffer, start)
            .map_err(|source| HubError::Read { path: self.path.clone(), source })
    }

    /// Lets what was written so far reach the disk while more is on its way, so that the end has little to wait for.
    pub(crate) fn flush(&self) {
        // A failure shows when the file is published.
        let _ = self.file.sync_data();
    }

    /// Forgets everything.
    pub(crate) fn reset(&self, size: u64) -> Result<()> {
        let failed = |source| HubError::Write { path: self.journal_path.clone(), source };
        let mut journal = self.journal();
        journal.set_len(0).map_err(failed)?;
        journal.write_all(format!("pippin-journal 1 {size}\n").as_bytes()).map_err(failed)
    }

    /// Removes what there is, where nothing will come of it.
    pub(crate) fn discard(&self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(&self.journal_path);
    }

    /// Makes the file durable, and gives it its name.
    pub(crate) fn publish(&self, to: &Path, size: u64) -> Result<()> {
        let failed = |source| HubError::Write { path: self.path.clone(), source };
        self.file.set_len(size).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        std::fs::rename(&self.path, to).map_err(|source| HubError::Write { path: to.to_owned(), source })?;
        let _ = std::fs::remove_file(&self.journal_path);
        if let Some(folder) = to.parent() {
            sync_folder(folder);
        }
        Ok(())
    }
}

fn entry(line: &str) -> Option<(u64, usize, u32)> {
    let mut words = line.strip_suffix('\n')?.split(' ');
    let start = u64::from_str_radix(words.next()?, 16).ok()?;
    let length = usize::from_str_radix(words.next()?, 16).ok()?;
    let checksum = words.next().filter(|text| text.len() == 8)?;
    Some((start, length, u32::from_str_radix(checksum, 16).ok()?))
}

/// Makes a rename durable, where folders can be synchronized.
pub(crate) fn sync_folder(folder: &Path) {
    if cfg!(unix) {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], start: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, start)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], start: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, start)
}

#[cfg(windows)]
fn read_at(file: &File, mut buffer: &mut [u8], mut start: u64) -> std::io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, start)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                buffer = &mut buffer[count..];
                start += count as u64;
            }
        }
    }
    Ok(())
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut start: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_write(file, bytes, start)?;
        bytes = &bytes[count..];
        start += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_found_again() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (part, done) = Part::open(root.path(), "x", 100).expect("writable");
        assert!(done.is_empty());
        part.write(10, b"hello").expect("written");
        part.write(90, b"0123456789").expect("written");
        drop(part);
        let (_, done) = Part::open(root.path(), "x", 100).expect("writable");
        assert_eq!(done.missing(100), [(0, 10), (15, 90)]);
        // Another size means another file.
        let (_, done) = Part::open(root.path(), "x", 101).expect("writable");
        assert!(done.is_empty());
    }

    #[test]
    fn torn_pieces_and_lines_do_not_count() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (part, _) = Part::open(root.path(), "x", 100).expect("writable");
        part.write(0, b"hello").expect("written");
        part.write(5, b"world").expect("written");
        drop(part);
        let path = root.path().join("x.pippin-part");
        let journal = root.path().join("x.pippin-journal");
        let mut bytes = std::fs::read(&path).expect("readable");
        bytes[7] ^= 1;
        std::fs::write(&path, &bytes).expect("written");
        let mut lines = std::fs::read_to_string(&journal).expect("readable");
        lines.push_str(
            "ffffffffffffffff ffffffff 00000000\nx y z\nnonsense\n32 5 00000000\n50 ffff 0\n14 5 abc",
        );
        std::fs::write(&journal, &lines).expect("written");
        let (part, done) = Part::open(root.path(), "x", 100).expect("writable");
        assert_eq!(done.missing(100), [(5, 100)]);
        part.write(5, b"world").expect("written");
        drop(part);
        let (_, done) = Part::open(root.path(), "x", 100).expect("writable");
        assert_eq!(done.missing(100), [(10, 100)]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let victim = root.path().join("victim");
        std::fs::write(&victim, "precious").expect("written");
        std::os::unix::fs::symlink(&victim, root.path().join("x.pippin-part")).expect("linked");
        let (part, _) = Part::open(root.path(), "x", 100).expect("writable");
        part.write(0, b"overwritten").expect("written");
        assert_eq!(std::fs::read(&victim).expect("readable"), b"precious");
    }
}
