//! The prefix of one conversation, in a file beside it: entries one after the other, each after its length in 8 bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use super::entry::{self, Payload};
use super::folder::replace;
use super::place::{Hash, Part, Place};
use super::search::Source;
use super::{Identity, MAX_READ, Shape};

const MAGIC: &[u8; 8] = b"PIPPINPX";

/// Parts of a prefix in memory.
#[derive(Debug)]
pub(crate) struct Bundle {
    entries: HashMap<(Hash, Part), Payload>,
}

impl Bundle {
    /// Writes parts of a prefix to a file.
    pub(crate) fn write(
        path: &Path,
        identity: &Identity,
        parts: &[(Place, Part, Vec<u8>)],
    ) -> io::Result<()> {
        replace(path, |file| {
            let mut file = BufWriter::new(file);
            file.write_all(MAGIC)?;
            for (place, part, payload) in parts {
                let entry = entry::encode(identity, place, *part, payload);
                file.write_all(&(entry.len() as u64).to_le_bytes())?;
                file.write_all(&entry)?;
            }
            file.flush()
        })
    }

    /// Writes what was read from a file to another.
    pub(crate) fn write_again(&self, path: &Path) -> io::Result<()> {
        replace(path, |file| {
            let mut file = BufWriter::new(file);
            file.write_all(MAGIC)?;
            for payload in self.entries.values() {
                let (header, bytes) = payload.parts();
                let checksum = entry::checksum(header, bytes);
                let length = (header.len() + bytes.len() + checksum.len()) as u64;
                for bytes in [&length.to_le_bytes(), header, bytes, &checksum] {
                    file.write_all(bytes)?;
                }
            }
            file.flush()
        })
    }

    /// Reads a file. `None` where there is none, or one of another model, or one that is broken: whatever it is, nothing in it is
    /// needed.
    pub(crate) fn read(path: &Path, identity: &Identity, shape: &Shape) -> Option<Self> {
        let file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        let most = MAX_READ as u64;
        if length > most {
            return None;
        }
        let mut file = file.take(most);
        let mut magic = [0; 8];
        file.read_exact(&mut magic).ok()?;
        if magic != *MAGIC {
            return None;
        }
        let mut entries = HashMap::new();
        let mut left = length.checked_sub(8)?;
        while left > 0 {
            let mut bytes = [0; 8];
            file.read_exact(&mut bytes).ok()?;
            let count = u64::from_le_bytes(bytes);
            left = left.checked_sub(8)?.checked_sub(count)?;
            let mut bytes = vec![0; usize::try_from(count).ok()?];
            file.read_exact(&mut bytes).ok()?;
            let (place, part, payload) = entry::read(identity, shape, bytes)?;
            entries.insert((place.name, part), payload);
        }
        Some(Self { entries })
    }
}

impl Source for Bundle {
    fn has(&self, place: &Place, part: Part) -> bool {
        self.entries.contains_key(&(place.name, part))
    }

    fn read(&self, place: &Place, part: Part, bytes: usize) -> Option<Payload> {
        let payload = self.entries.get(&(place.name, part))?;
        (payload.bytes().len() == bytes).then(|| payload.clone())
    }
}
