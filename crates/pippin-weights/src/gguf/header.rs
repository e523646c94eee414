//! The header of one GGUF file: what all numbers in it are checked against, and the order of the checks.
//!
//! ```text
//! "GGUF"  version: u32  tensors: u64  metadata: u64
//! metadata × (key: string, type: u32, value)
//! tensors  × (name: string, rank: u32, sizes: rank × u64, type: u32, offset: u64)
//! padding to a multiple of `general.alignment`, then the tensors' bytes, each at such a multiple
//! ```
//!
//! A string is a u64 of length and its bytes; an array is a type, a u64 of length and its values.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Quoted, WeightsError};
use crate::mapped::MappedFile;
use crate::safetensors::MAX_TENSORS;
use crate::tensor::nonzero_product;

use super::GgufTensor;
use super::types::GgmlType;
use super::value::{GgufNumbers, GgufStrings, GgufValue, Kind, scalar};

/// Magic, version and the two counts.
pub(crate) const PREFIX_LENGTH: usize = 24;
/// Most keys of metadata. Models have about a hundred at most.
const MAX_KEYS: u64 = 1 << 16;
/// Longest key or name of a tensor, in bytes; the format's own limit for keys.
const MAX_NAME: u64 = (1 << 16) - 1;
/// Deepest nesting of arrays. None of what is published nests at all.
const MAX_DEPTH: usize = 4;
/// Most axes of a tensor; ggml's own limit.
const MAX_RANK: u32 = 4;
/// The most that the start of a tensor may be aligned to.
const MAX_ALIGNMENT: u64 = 1 << 20;
/// What tensors are aligned to when the metadata does not say.
const DEFAULT_ALIGNMENT: u64 = 32;
/// The key that says otherwise.
const ALIGNMENT_KEY: &str = "general.alignment";

/// What a file's header says.
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) metadata: BTreeMap<String, GgufValue>,
    pub(crate) tensors: Vec<GgufTensor>,
}

/// Reads the header of a mapped file and places its tensors.
pub(crate) fn read(file: &Arc<MappedFile>) -> Result<Header, WeightsError> {
    let mut cursor = Cursor { path: file.path(), bytes: file.bytes(), at: 0 };
    let version = cursor.version()?;
    let tensor_count = cursor.count("the number of tensors", MAX_TENSORS as u64, 24)?;
    let key_count = cursor.count("the number of metadata keys", MAX_KEYS, 13)?;

    let mut metadata = BTreeMap::new();
    for index in 0..key_count {
        let start = cursor.at;
        let key = cursor.name(|| format!("metadata key {index}"))?;
        let value = cursor.value(&key)?;
        if metadata.contains_key(&key) {
            return Err(cursor.error(start, key_subject(&key), "occurs twice"));
        }
        metadata.insert(key, value);
    }
    let alignment = match metadata.get(ALIGNMENT_KEY) {
        None => DEFAULT_ALIGNMENT,
        Some(value) => match value.as_u64() {
            Some(size) if size.is_power_of_two() && size <= MAX_ALIGNMENT => size,
            _ => {
                let problem =
                    format!("must be a power of two up to {MAX_ALIGNMENT}, found {}", value.describe());
                return Err(cursor.error(0, key_subject(ALIGNMENT_KEY), problem));
            }
        },
    };

    let mut entries = Vec::new();
    for index in 0..tensor_count {
        entries.push(cursor.entry(index)?);
    }
    let tensors = place(file, &cursor, alignment, entries)?;
    Ok(Header { version, metadata, tensors })
}

/// A tensor of the header, as written there.
struct Entry {
    /// Where it is written.
    at: usize,
    name: String,
    kind: GgmlType,
    /// Sizes of the axes, slowest first; the file has them fastest first.
    shape: Vec<usize>,
    bytes: usize,
    offset: u64,
}

/// Checks offsets and sizes against the file and each other.
fn place(
    file: &Arc<MappedFile>,
    cursor: &Cursor<'_>,
    alignment: u64,
    entries: Vec<Entry>,
) -> Result<Vec<GgufTensor>, WeightsError> {
    let length = cursor.bytes.len() as u64;
    // A file without tensors, a vocabulary say, need not be padded.
    let data = (cursor.at as u64).next_multiple_of(alignment).min(length);
    let mut tensors = Vec::with_capacity(entries.len());
    let mut order: Vec<usize> = (0..entries.len()).collect();
    for entry in &entries {
        let error = |problem: String| cursor.error(entry.at, tensor_subject(&entry.name), problem);
        if !entry.offset.is_multiple_of(alignment) {
            return Err(error(format!(
                "offset {} is not a multiple of the alignment, {alignment}",
                entry.offset
            )));
        }
        let end = data.checked_add(entry.offset).and_then(|start| start.checked_add(entry.bytes as u64));
        let Some(end) = end.filter(|end| *end <= length) else {
            return Err(error(format!(
                "{} bytes at offset {} reach beyond the {} bytes of tensor data that the file has",
                entry.bytes,
                entry.offset,
                length - data
            )));
        };
        // Both are within the mapping now, so that they fit.
        let range = end as usize - entry.bytes..end as usize;
        tensors.push(GgufTensor {
            name: entry.name.as_str().into(),
            kind: entry.kind,
            shape: entry.shape.as_slice().into(),
            file: Arc::clone(file),
            range,
        });
    }

    order.sort_unstable_by(|&a, &b| entries[a].name.cmp(&entries[b].name));
    if let Some(pair) = order.windows(2).find(|pair| entries[pair[0]].name == entries[pair[1]].name) {
        let entry = &entries[pair[0].max(pair[1])];
        return Err(cursor.error(entry.at, tensor_subject(&entry.name), "occurs twice"));
    }
    // Gaps are let be: writers differ in how they pad. Tensors without bytes cannot overlap.
    order.retain(|&index| !tensors[index].range.is_empty());
    order.sort_unstable_by_key(|&index| tensors[index].range.start);
    if let Some(pair) =
        order.windows(2).find(|pair| tensors[pair[0]].range.end > tensors[pair[1]].range.start)
    {
        let (entry, other) = (&entries[pair[1]], &entries[pair[0]].name);
        let problem =
            format!("its bytes at offset {} overlap those of tensor {}", entry.offset, Quoted(other));
        return Err(cursor.error(entry.at, tensor_subject(&entry.name), problem));
    }
    Ok(tensors)
}

fn key_subject(key: &str) -> String {
    format!("metadata key {}", Quoted(key))
}

fn tensor_subject(name: &str) -> String {
    format!("tensor {}", Quoted(name))
}

/// A place in the header's bytes.
struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn error(&self, offset: usize, subject: impl Into<String>, problem: impl Into<String>) -> WeightsError {
        WeightsError::Gguf {
            path: self.path.to_owned(),
            offset: offset as u64,
            subject: subject.into(),
            problem: problem.into(),
        }
    }

    /// How many bytes there are from here.
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, count: usize, subject: impl FnOnce() -> String) -> Result<&'a [u8], WeightsError> {
        if count > self.left() {
            let problem = format!("takes {count} bytes, but the file ends after {}", self.left());
            return Err(self.error(self.at, subject(), problem));
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn u32(&mut self, subject: impl FnOnce() -> String) -> Result<u32, WeightsError> {
        let bytes = self.take(4, subject)?;
        Ok(bytes.try_into().map_or(0, u32::from_le_bytes))
    }

    fn u64(&mut self, subject: impl FnOnce() -> String) -> Result<u64, WeightsError> {
        let bytes = self.take(8, subject)?;
        Ok(bytes.try_into().map_or(0, u64::from_le_bytes))
    }

    /// Magic and version.
    fn version(&mut self) -> Result<u32, WeightsError> {
        if self.take(4, || "the magic number".to_owned())? != b"GGUF" {
            let looks_like = crate::safetensors::recognise(self.bytes);
            return Err(WeightsError::NotGguf { path: self.path.to_owned(), looks_like });
        }
        let at = self.at;
        let version = self.u32(|| "the version".to_owned())?;
        let problem = match version {
            2 | 3 => return Ok(version),
            1 => "version 1 is not read, only 2 and 3".to_owned(),
            _ if matches!(version.swap_bytes(), 1..=0xff) => {
                format!(
                    "the file is big-endian (version {}); only little-endian files are read",
                    version.swap_bytes()
                )
            }
            _ => format!("version {version} is not read, only 2 and 3"),
        };
        Err(self.error(at, "the version", problem))
    }

    /// A number of things of at least `least` bytes each that are to follow.
    fn count(&mut self, subject: &str, limit: u64, least: usize) -> Result<usize, WeightsError> {
        let at = self.at;
        let count = self.u64(|| subject.to_owned())?;
        // More than follow are found out when they are read; nothing is allocated from this number.
        if count > limit {
            return Err(self.error(at, subject, format!("{count} is more than the limit of {limit}")));
        }
        match usize::try_from(count)
            .ok()
            .filter(|count| count.checked_mul(least).is_some_and(|all| all <= self.left()))
        {
            Some(count) => Ok(count),
            None => Err(self.error(
                at,
                subject,
                format!("{count} cannot be in the {} bytes that follow", self.left()),
            )),
        }
    }

    /// A key or the name of a tensor.
    fn name(&mut self, subject: impl Fn() -> String) -> Result<String, WeightsError> {
        let at = self.at;
        let length = self.u64(&subject)?;
        if length > MAX_NAME {
            let problem = format!("a name of {length} bytes is longer than the limit of {MAX_NAME}");
            return Err(self.error(at, subject(), problem));
        }
        let bytes = self.take(length as usize, &subject)?.to_vec();
        String::from_utf8(bytes).map_err(|error| {
            self.error(at + 8 + error.utf8_error().valid_up_to(), subject(), "the name is not UTF-8")
        })
    }

    /// The text of a string value.
    fn text(&mut self, key: &str) -> Result<String, WeightsError> {
        let at = self.at;
        let length = self.u64(|| key_subject(key))?;
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= self.left()) else {
            let problem = format!("a string of {length} bytes, but the file ends after {}", self.left());
            return Err(self.error(at, key_subject(key), problem));
        };
        let bytes = self.take(length, || key_subject(key))?.to_vec();
        String::from_utf8(bytes).map_err(|error| {
            self.error(at + 8 + error.utf8_error().valid_up_to(), key_subject(key), "the string is not UTF-8")
        })
    }

    fn kind(&mut self, key: &str) -> Result<Kind, WeightsError> {
        let at = self.at;
        let id = self.u32(|| key_subject(key))?;
        Kind::from_id(id)
            .ok_or_else(|| self.error(at, key_subject(key), format!("there is no type of value {id}")))
    }

    fn value(&mut self, key: &str) -> Result<GgufValue, WeightsError> {
        match self.kind(key)? {
            Kind::String => Ok(GgufValue::String(self.text(key)?)),
            Kind::Array => self.array(key, 1),
            kind => {
                let at = self.at;
                let bytes = self.take(kind.least_bytes(), || key_subject(key))?;
                self.check_bools(kind, bytes, at, key)?;
                scalar(kind, bytes).ok_or_else(|| self.error(at, key_subject(key), "not a number"))
            }
        }
    }

    fn array(&mut self, key: &str, depth: usize) -> Result<GgufValue, WeightsError> {
        if depth > MAX_DEPTH {
            let problem = format!("lists nest deeper than the limit of {MAX_DEPTH}");
            return Err(self.error(self.at, key_subject(key), problem));
        }
        let kind = self.kind(key)?;
        let at = self.at;
        let stored = self.u64(|| key_subject(key))?;
        let count = usize::try_from(stored)
            .ok()
            .and_then(|count| Some((count, count.checked_mul(kind.least_bytes())?)))
            .filter(|(_, bytes)| *bytes <= self.left());
        let Some((count, bytes)) = count else {
            let problem = format!(
                "a list of {stored} values of type {} cannot be in the {} bytes that follow",
                kind.name(),
                self.left()
            );
            return Err(self.error(at, key_subject(key), problem));
        };
        Ok(match kind {
            Kind::String => {
                let mut strings = GgufStrings::with_capacity(count);
                for _ in 0..count {
                    strings.push(&self.text(key)?);
                }
                GgufValue::Strings(strings)
            }
            Kind::Array => {
                let mut lists = Vec::with_capacity(count);
                for _ in 0..count {
                    lists.push(self.array(key, depth + 1)?);
                }
                GgufValue::Arrays(lists)
            }
            kind => {
                let at = self.at;
                let bytes = self.take(bytes, || key_subject(key))?;
                self.check_bools(kind, bytes, at, key)?;
                GgufValue::Numbers(GgufNumbers { kind, bytes: bytes.to_vec() })
            }
        })
    }

    fn check_bools(&self, kind: Kind, bytes: &[u8], at: usize, key: &str) -> Result<(), WeightsError> {
        match bytes.iter().position(|byte| kind == Kind::Bool && *byte > 1) {
            None => Ok(()),
            Some(place) => {
                let problem = format!("a truth value must be 0 or 1, found {}", bytes[place]);
                Err(self.error(at + place, key_subject(key), problem))
            }
        }
    }

    fn entry(&mut self, index: usize) -> Result<Entry, WeightsError> {
        let at = self.at;
        let name = self.name(|| format!("the name of tensor {index}"))?;
        let subject = || tensor_subject(&name);
        let rank_at = self.at;
        let rank = self.u32(subject)?;
        if rank > MAX_RANK {
            return Err(self.error(
                rank_at,
                subject(),
                format!("{rank} axes are more than the limit of {MAX_RANK}"),
            ));
        }
        let mut stored = Vec::with_capacity(rank as usize);
        for _ in 0..rank {
            stored.push(self.u64(subject)?);
        }
        stored.reverse();
        let type_at = self.at;
        let id = self.u32(subject)?;
        let Some(kind) = GgmlType::from_id(id) else {
            let what = GgmlType::removed(id).unwrap_or("not a known one");
            return Err(self.error(type_at, subject(), format!("its type {id} is {what}")));
        };
        let offset = self.u64(subject)?;

        let too_large =
            || self.error(rank_at, subject(), format!("shape {stored:?} is too large to address"));
        let mut shape = Vec::with_capacity(stored.len());
        for &size in &stored {
            shape.push(usize::try_from(size).map_err(|_| too_large())?);
        }
        let nonzero = nonzero_product(&shape)
            .filter(|elements| isize::try_from(*elements).is_ok())
            .ok_or_else(too_large)?;
        let elements = if shape.contains(&0) { 0 } else { nonzero };
        let columns = shape.last().copied().unwrap_or(1);
        if !columns.is_multiple_of(kind.block_len()) {
            let problem = format!(
                "{columns} columns are not a whole number of blocks of {} for {kind}",
                kind.block_len()
            );
            return Err(self.error(rank_at, subject(), problem));
        }
        let bytes = (elements / kind.block_len()).checked_mul(kind.block_bytes()).ok_or_else(too_large)?;
        Ok(Entry { at, name, kind, shape, bytes, offset })
    }
}
