//! The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes without gaps.
//!
//! Reading is written for hostile files. Nothing is allocated from a number in the file before that number is
//! checked against the length of the file, every offset is computed with checked arithmetic, and the rules of
//! the official implementation are kept: tensors lie back to back from the first byte after the header to the
//! last byte of the file. The one liberty the official implementation takes is not taken here: a name or a
//! field that occurs twice is an error, not "the last one wins".

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::dtype::Dtype;
use crate::error::{Quoted, TensorPlace, WeightsError};
use crate::mapped::MappedFile;
use crate::tensor::{TensorData, byte_size};

/// Longest header that is read, in bytes; the official implementation has the same limit.
pub(crate) const MAX_HEADER_LENGTH: u64 = 100_000_000;
/// Most tensors in one checkpoint. The largest published ones have about 200,000 in all their shards together.
pub(crate) const MAX_TENSORS: usize = 1 << 19;
/// Most keys of `__metadata__`. Its values may be long, but many tiny keys would take many times their length.
const MAX_METADATA: usize = 4096;
/// Most axes of a tensor.
pub(crate) const MAX_RANK: usize = 8;
/// Bytes before the header: its length.
const PREFIX_LENGTH: usize = 8;
/// The header key that does not name a tensor.
const METADATA_KEY: &str = "__metadata__";

/// One opened safetensors file.
pub(crate) struct OpenedFile {
    pub(crate) file: Arc<MappedFile>,
    pub(crate) tensors: Vec<TensorData>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Maps a file and reads its header.
pub(crate) fn open(path: &Path, target: &Path) -> Result<OpenedFile, WeightsError> {
    let file = Arc::new(MappedFile::open(path, target, PREFIX_LENGTH)?);
    let (tensors, metadata) = read_header(&file)?;
    Ok(OpenedFile { file, tensors, metadata })
}

type Header = (Vec<TensorData>, BTreeMap<String, String>);

fn read_header(file: &Arc<MappedFile>) -> Result<Header, WeightsError> {
    let path = file.path();
    let bytes = file.bytes();
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_LENGTH>() else {
        return Err(WeightsError::TooShort {
            path: path.to_owned(),
            length: bytes.len() as u64,
            prefix: PREFIX_LENGTH,
        });
    };
    let length = u64::from_le_bytes(*prefix);
    let header = match usize::try_from(length) {
        Ok(header_length) if length <= MAX_HEADER_LENGTH && header_length <= rest.len() => {
            // A copy, so that text checked to be UTF-8 stays it even if another process writes to the file.
            rest[..header_length].to_vec()
        }
        _ => {
            if let Some(looks_like) = recognise(bytes) {
                return Err(WeightsError::NotSafetensors { path: path.to_owned(), looks_like });
            }
            let limit = if length > rest.len() as u64 {
                format!("only {} bytes follow", rest.len())
            } else {
                format!("headers are limited to {MAX_HEADER_LENGTH} bytes")
            };
            return Err(WeightsError::HeaderLength { path: path.to_owned(), length, limit });
        }
    };
    if header.first() != Some(&b'{') {
        return Err(WeightsError::Header {
            path: path.to_owned(),
            offset: PREFIX_LENGTH as u64,
            problem: "the header must start with `{`".to_owned(),
        });
    }
    let parsed = parse_json(&header).map_err(|error| WeightsError::Header {
        path: path.to_owned(),
        offset: PREFIX_LENGTH as u64 + json_offset(&header, &error),
        problem: json_problem(&error),
    })?;
    let tensors = place_tensors(file, PREFIX_LENGTH + header.len(), parsed.entries)?;
    Ok((tensors, parsed.metadata))
}

/// Names the format of a file that is clearly not the one that it is read as.
pub(crate) fn recognise(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"version https://git-lfs") {
        Some("a Git LFS pointer, not the weights themselves")
    } else if bytes.starts_with(b"GGUF") {
        Some("a GGUF file")
    } else if bytes.starts_with(b"PK\x03\x04") {
        Some("a zip archive or a PyTorch .bin file")
    } else if bytes.starts_with(b"\x93NUMPY") {
        Some("a NumPy file")
    } else if bytes.starts_with(b"<!DOCTYPE")
        || bytes.starts_with(b"<!doctype")
        || bytes.starts_with(b"<html")
    {
        Some("a web page")
    } else if bytes.starts_with(b"{") {
        Some("a JSON file")
    } else {
        None
    }
}

/// Checks every entry's fields against each other and against the file, and turns them into tensors.
fn place_tensors(
    file: &Arc<MappedFile>,
    data_start: usize,
    entries: Vec<Entry<'_>>,
) -> Result<Vec<TensorData>, WeightsError> {
    let path = file.path();
    let data_length = file.bytes().len() - data_start;
    let mut spans = Vec::with_capacity(entries.len());
    let mut tensors = Vec::with_capacity(entries.len());
    for entry in &entries {
        let place = || TensorPlace::new(&entry.name, Some(path));
        let bad = |field, problem| WeightsError::Entry { place: place(), field, problem };
        let Some(dtype) = Dtype::from_name(&entry.dtype) else {
            let dtype = entry.dtype.chars().take(64).collect();
            return Err(WeightsError::UnknownDtype { place: place(), dtype });
        };
        let too_large = || bad("shape", format!("{:?} is too large to address", entry.shape()));
        let mut shape = [0usize; MAX_RANK];
        let shape = &mut shape[..entry.rank];
        for (size, &stored) in shape.iter_mut().zip(entry.shape()) {
            *size = usize::try_from(stored).map_err(|_| too_large())?;
        }
        let (elements, size) = byte_size(dtype, shape).ok_or_else(too_large)?;

        let [begin, end] = entry.offsets;
        if begin > end {
            return Err(bad("data_offsets", format!("begin {begin} is after end {end}")));
        }
        let range = match (usize::try_from(begin), usize::try_from(end)) {
            (Ok(begin), Ok(end)) if end <= data_length => begin..end,
            _ => {
                return Err(bad(
                    "data_offsets",
                    format!("end {end} is past the file's {data_length} bytes of tensor data"),
                ));
            }
        };
        if range.len() != size {
            return Err(bad(
                "data_offsets",
                format!(
                    "{begin}..{end} is {} bytes, but shape {shape:?} of {dtype} takes {size}",
                    range.len()
                ),
            ));
        }
        spans.push((range.start, range.end));
        let range = data_start + range.start..data_start + range.end;
        tensors.push(TensorData::mapped(&entry.name, dtype, shape, elements, file, range));
    }

    // Back to back from the first byte to the last: no overlap, no gap, nothing left over.
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_unstable_by_key(|&index| spans[index]);
    let mut covered = 0;
    for index in order {
        let (begin, end) = spans[index];
        if begin != covered {
            let problem = if begin < covered {
                format!("{begin}..{end} overlaps another tensor, which ends at {covered}")
            } else {
                format!("{begin}..{end} leaves a gap: bytes {covered}..{begin} belong to no tensor")
            };
            return Err(WeightsError::Entry {
                place: tensors[index].place(),
                field: "data_offsets",
                problem,
            });
        }
        covered = end;
    }
    if covered != data_length {
        return Err(WeightsError::Header {
            path: path.to_owned(),
            offset: (data_start + covered) as u64,
            problem: format!("the last {} bytes of the file belong to no tensor", data_length - covered),
        });
    }
    Ok(tensors)
}

/// One tensor of the header, as written there. Strings borrow from the mapped file unless they contain
/// escapes.
struct Entry<'a> {
    name: Cow<'a, str>,
    dtype: Cow<'a, str>,
    rank: usize,
    sizes: [u64; MAX_RANK],
    offsets: [u64; 2],
}

impl Entry<'_> {
    fn shape(&self) -> &[u64] {
        &self.sizes[..self.rank]
    }
}

struct ParsedHeader<'a> {
    entries: Vec<Entry<'a>>,
    metadata: BTreeMap<String, String>,
}

fn parse_json(header: &[u8]) -> Result<ParsedHeader<'_>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(header);
    let parsed = deserializer.deserialize_map(HeaderVisitor)?;
    deserializer.end()?;
    Ok(parsed)
}

/// The offset in `text` that a JSON error points to.
pub(crate) fn json_offset(text: &[u8], error: &serde_json::Error) -> u64 {
    let line_start = match error.line().saturating_sub(2) {
        _ if error.line() <= 1 => 0,
        skip => text
            .iter()
            .enumerate()
            .filter(|&(_, &byte)| byte == b'\n')
            .nth(skip)
            .map_or(0, |(position, _)| position + 1),
    };
    (line_start + error.column().saturating_sub(1)).min(text.len()) as u64
}

/// The message of a JSON error without its line and column, which mean little in a header without lines, and
/// cut where it quotes a long piece of the file.
pub(crate) fn json_problem(error: &serde_json::Error) -> String {
    const MAX_LENGTH: usize = 500;
    let message = error.to_string();
    let end = message.rfind(" at line ").unwrap_or(message.len());
    let message = &message[..end];
    match message.char_indices().nth(MAX_LENGTH) {
        Some((cut, _)) => format!("{}…", &message[..cut]),
        None => message.to_owned(),
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = ParsedHeader<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an entry per tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Vec<Entry<'de>> = Vec::new();
        let mut metadata = None;
        while let Some(name) = map.next_key_seed(Text)? {
            if name == METADATA_KEY {
                if metadata.is_some() {
                    return Err(A::Error::custom("`__metadata__` occurs twice"));
                }
                // MLX writes `null` here when there is no metadata.
                metadata = Some(map.next_value::<Option<Metadata>>()?.unwrap_or_default());
                continue;
            }
            if entries.len() == MAX_TENSORS {
                return Err(A::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
            }
            entries.push(map.next_value_seed(EntrySeed(name))?);
        }
        // After the fact, by sorting: no table of names that a hostile file could slow down.
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(A::Error::custom(format_args!("tensor {} occurs twice", Quoted(&pair[0].name))));
        }
        Ok(ParsedHeader { entries, metadata: metadata.map(|Metadata(values)| values).unwrap_or_default() })
    }
}

/// A string that borrows from the input where it can.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// The object of strings under `__metadata__`.
#[derive(Default)]
struct Metadata(BTreeMap<String, String>);

impl<'de> serde::Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MetadataVisitor;
        impl<'de> Visitor<'de> for MetadataVisitor {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`__metadata__` as an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut values = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if values.contains_key(&key) {
                        return Err(A::Error::custom(format_args!(
                            "key {} of `__metadata__` occurs twice",
                            Quoted(&key)
                        )));
                    }
                    if values.len() == MAX_METADATA {
                        return Err(A::Error::custom(format_args!(
                            "more than {MAX_METADATA} keys in `__metadata__`"
                        )));
                    }
                    let value = map.next_value_seed(Text)?.into_owned();
                    values.insert(key, value);
                }
                Ok(Metadata(values))
            }
        }
        deserializer.deserialize_map(MetadataVisitor)
    }
}

/// Reads the entry of the tensor with this name.
struct EntrySeed<'de>(Cow<'de, str>);

impl<'de> DeserializeSeed<'de> for EntrySeed<'de> {
    type Value = Entry<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EntrySeed<'de> {
    type Value = Entry<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with dtype, shape and data_offsets for tensor {}", Quoted(&self.0))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let name = self.0;
        let twice =
            |field| A::Error::custom(format_args!("tensor {}: field `{field}` occurs twice", Quoted(&name)));
        let missing =
            |field| A::Error::custom(format_args!("tensor {}: field `{field}` is missing", Quoted(&name)));
        let mut dtype = None;
        let mut shape = None;
        let mut offsets = None;
        while let Some(key) = map.next_key_seed(Text)? {
            match &*key {
                "dtype" if dtype.is_some() => return Err(twice("dtype")),
                "shape" if shape.is_some() => return Err(twice("shape")),
                "data_offsets" if offsets.is_some() => return Err(twice("data_offsets")),
                "dtype" => dtype = Some(map.next_value_seed(Text)?),
                "shape" => {
                    let numbers = Numbers { name: &name, field: "shape", limit: MAX_RANK };
                    shape = Some(map.next_value_seed(numbers)?);
                }
                "data_offsets" => {
                    let numbers = Numbers { name: &name, field: "data_offsets", limit: 2 };
                    let (count, values) = map.next_value_seed(numbers)?;
                    if count != 2 {
                        return Err(A::Error::custom(format_args!(
                            "tensor {}: field `data_offsets` must have 2 numbers, found {count}",
                            Quoted(&name)
                        )));
                    }
                    offsets = Some([values[0], values[1]]);
                }
                // The official implementation ignores unknown fields, too.
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let dtype = dtype.ok_or_else(|| missing("dtype"))?;
        let (rank, sizes) = shape.ok_or_else(|| missing("shape"))?;
        let offsets = offsets.ok_or_else(|| missing("data_offsets"))?;
        Ok(Entry { name, dtype, rank, sizes, offsets })
    }
}

/// A short list of unsigned integers; an error as soon as there is one too many.
struct Numbers<'a> {
    name: &'a str,
    field: &'static str,
    limit: usize,
}

impl<'de> DeserializeSeed<'de> for Numbers<'_> {
    type Value = (usize, [u64; MAX_RANK]);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Numbers<'_> {
    type Value = (usize, [u64; MAX_RANK]);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of unsigned integers in field `{}` of tensor {}", self.field, Quoted(self.name))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut values = [0; MAX_RANK];
        let mut count = 0;
        while let Some(value) = sequence.next_element_seed(Number { name: self.name, field: self.field })? {
            if count == self.limit {
                return Err(A::Error::custom(format_args!(
                    "tensor {}: field `{}` has more than {} numbers",
                    Quoted(self.name),
                    self.field,
                    self.limit
                )));
            }
            values[count] = value;
            count += 1;
        }
        Ok((count, values))
    }
}

/// An unsigned integer whose errors name the tensor and the field.
struct Number<'a> {
    name: &'a str,
    field: &'static str,
}

impl<'de> DeserializeSeed<'de> for Number<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_u64(self)
    }
}

impl Visitor<'_> for Number<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an unsigned integer in field `{}` of tensor {}", self.field, Quoted(self.name))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(value)
    }
}

/// Writes tensors as one safetensors file.
///
/// The tensors are ordered by falling element size and then by name, and the header is padded with spaces to
/// a multiple of 8 bytes, so that every tensor starts at a multiple of its element size. The bytes go to a
/// temporary file in the same folder, which is flushed to disk and then renamed to `path`: a reader, or a
/// mapping of an earlier file of that name, never sees a half-written file.
///
/// MLX expects `{"format": "mlx"}` as `metadata`.
///
/// # Errors
///
/// [`WeightsError::Io`] when the system refuses to write; [`WeightsError::Header`] when two tensors have the
/// same name, a tensor is named `__metadata__`, or the file would break a limit that reading has (number of
/// axes, number of tensors, header length).
pub fn write_safetensors(
    path: &Path,
    tensors: &[TensorData],
    metadata: &BTreeMap<String, String>,
) -> Result<(), WeightsError> {
    let mut ordered: Vec<&TensorData> = tensors.iter().collect();
    ordered.sort_by(|a, b| b.dtype().size().cmp(&a.dtype().size()).then_with(|| a.name().cmp(b.name())));
    let header = write_header(&ordered, metadata).map_err(|problem| WeightsError::Header {
        path: path.to_owned(),
        offset: 0,
        problem,
    })?;

    let write = |temporary: &Path| -> io::Result<()> {
        let mut file = BufWriter::new(File::create_new(temporary)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for tensor in &ordered {
            file.write_all(tensor.bytes())?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(temporary, path)
    };
    let temporary = temporary_path(path);
    write(&temporary).map_err(|error| {
        // The first error is the one worth reporting.
        let _ = fs::remove_file(&temporary);
        WeightsError::io(path, "write", error)
    })
}

fn write_header(ordered: &[&TensorData], metadata: &BTreeMap<String, String>) -> Result<String, String> {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut names: Vec<&str> = ordered.iter().map(|tensor| tensor.name()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("tensor {} is given twice", Quoted(pair[0])));
    }
    if names.len() > MAX_TENSORS {
        return Err(format!("more than {MAX_TENSORS} tensors"));
    }
    if metadata.len() > MAX_METADATA {
        return Err(format!("more than {MAX_METADATA} keys of metadata"));
    }
    let mut header = String::from("{");
    if !metadata.is_empty() {
        header += "\"__metadata__\":{";
        for (position, (key, value)) in metadata.iter().enumerate() {
            let separator = if position == 0 { "" } else { "," };
            header += &format!("{separator}{}:{}", quote(key), quote(value));
        }
        header += "}";
    }
    let mut offset = 0usize;
    for tensor in ordered {
        if tensor.name() == METADATA_KEY {
            return Err("a tensor cannot be named `__metadata__`".to_owned());
        }
        if tensor.shape().len() > MAX_RANK {
            return Err(format!("tensor {} has more than {MAX_RANK} axes", Quoted(tensor.name())));
        }
        let end = offset.saturating_add(tensor.byte_len());
        let separator = if header.len() == 1 { "" } else { "," };
        let shape = tensor.shape().iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        header += &format!(
            "{separator}{}:{{\"dtype\":\"{}\",\"shape\":[{shape}],\"data_offsets\":[{offset},{end}]}}",
            quote(tensor.name()),
            tensor.dtype()
        );
        offset = end;
    }
    header += "}";
    while header.len() % PREFIX_LENGTH != 0 {
        header.push(' ');
    }
    if header.len() as u64 > MAX_HEADER_LENGTH {
        return Err(format!("the header would be longer than {MAX_HEADER_LENGTH} bytes"));
    }
    Ok(header)
}

/// A name in the same folder that no other writer uses.
fn temporary_path(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}-{count}.tmp", std::process::id()));
    path.with_file_name(name)
}
