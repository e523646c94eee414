/*! Reads GGUF files, the format of llama.cpp: metadata, and tensors of ggml's types.

[`Gguf::open`] maps a file, or all files of a set that was split, and reads the headers. Metadata is asked for by key and
type; what is there but of another type is an error that names the key:

```
use pippin_weights::gguf::{Gguf, GgufWriter, GgufValue};

# fn main() -> Result<(), pippin_weights::WeightsError> {
# let folder = tempfile::tempdir().unwrap();
# let path = folder.path().join("tiny.gguf");
# let mut writer = GgufWriter::new();
# writer.string("general.architecture", "llama").u32("llama.block_count", 2).strings("tokenizer.ggml.tokens", &["a", "b"]);
# std::fs::write(&path, writer.bytes()).unwrap();
let file = Gguf::open(&path)?;
assert_eq!(file.architecture()?, "llama");
assert_eq!(file.count("llama.block_count")?, Some(2));
assert_eq!(file.count("llama.expert_count")?, None);
assert_eq!(file.strings("tokenizer.ggml.tokens")?.unwrap().get(1), Some("b"));
assert!(file.string("llama.block_count").unwrap_err().to_string().contains("`llama.block_count`"));
# Ok(())
# }
```

# Tensors

Matrices of ggml's block types become MLX's: codes in one tensor, scales and biases in two others ([`GgufView::tensors`]). A
block of any type that is read is an affine matrix, or one of 4-bit floats, exactly ([`GgmlType::quantization`]); only the
order in memory is another, so that such a matrix is made when it is first read, and takes memory of its own
([`TensorData::is_copy`](crate::TensorData::is_copy)). Numbers that stand as they are stay in the file.

# Files are not trusted

As with safetensors, nothing is allocated from a number in the file before it is checked against the bytes that are left;
sizes and offsets are computed with checked arithmetic; keys, names, rank and nesting have limits; nothing may occur twice,
overlap, or reach beyond the file. What is read takes a small multiple of the header's length.
*/

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Quoted, TensorPlace, WeightsError};
use crate::links::Root;
use crate::mapped::MappedFile;
use crate::safetensors::MAX_TENSORS;

mod blocks;
mod header;
mod repack;
mod split;
mod types;
mod value;
mod writer;

pub use repack::GgufView;
pub use split::SplitName;
pub use types::GgmlType;
pub use value::{GgufNumbers, GgufStrings, GgufValue};
#[doc(hidden)]
pub use writer::GgufWriter;

/// A GGUF file, or a set of files that one was split into: its metadata and its tensors.
#[derive(Clone)]
pub struct Gguf {
    path: PathBuf,
    files: Vec<Arc<MappedFile>>,
    version: u32,
    metadata: BTreeMap<String, GgufValue>,
    tensors: BTreeMap<Arc<str>, GgufTensor>,
}

impl Gguf {
    /// Opens a file. Of a set (`NAME-00001-of-00003.gguf`) any file opens all; the metadata is that of the first.
    ///
    /// Links are followed as [`Checkpoint::open`](crate::Checkpoint::open) has it.
    ///
    /// # Errors
    ///
    /// See [`WeightsError`]: no or missing files, another format, version or byte order, and whatever contradicts the format.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(WeightsError::NotAFile { path: path.to_owned() });
        };
        let root = Root::new(folder)?;
        let open = |name: &str| {
            let path = if folder == Path::new(".") { PathBuf::from(name) } else { folder.join(name) };
            let file = Arc::new(MappedFile::open(&path, &root.resolve(name)?, header::PREFIX_LENGTH)?);
            let header = header::read(&file)?;
            Ok::<_, WeightsError>((file, header))
        };

        let (file, header) = open(name)?;
        let mut gguf = Self {
            path: path.to_owned(),
            files: Vec::new(),
            version: header.version,
            metadata: header.metadata,
            tensors: BTreeMap::new(),
        };
        let count = gguf.count("split.count")?.unwrap_or(1);
        if count <= 1 {
            gguf.add(file, header.tensors)?;
            return Ok(gguf);
        }

        let set = SplitName::of(name).filter(|set| set.count == count).ok_or_else(|| {
            gguf.key_error(
                "split.count",
                format!("the file is one of {count}, but its name does not end in -00001-of-{count:05}.gguf"),
            )
        })?;
        let missing: Vec<String> = set.names().filter(|name| !folder.join(name).exists()).collect();
        if !missing.is_empty() {
            return Err(WeightsError::MissingShards { index: path.to_owned(), missing, links: Vec::new() });
        }
        let mut opened = (set.number == 1).then_some((file, header.tensors));
        for (index, name) in set.names().enumerate() {
            let (file, tensors) = match opened.take() {
                Some(first) => first,
                None => {
                    let (file, header) = open(&name)?;
                    if index == 0 {
                        gguf.path = file.path().to_owned();
                        gguf.metadata = header.metadata;
                    } else {
                        let part =
                            Self { path: file.path().to_owned(), metadata: header.metadata, ..gguf.empty() };
                        part.expect_count("split.count", count)?;
                        part.expect_count("split.no", index)?;
                    }
                    (file, header.tensors)
                }
            };
            if index == 0 {
                gguf.expect_count("split.count", count)?;
                gguf.expect_count("split.no", 0)?;
            }
            gguf.add(file, tensors)?;
        }
        if gguf.metadata.contains_key("split.tensors.count") {
            gguf.expect_count("split.tensors.count", gguf.tensors.len())?;
        }
        Ok(gguf)
    }

    fn empty(&self) -> Self {
        Self {
            files: Vec::new(),
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
            path: PathBuf::new(),
            version: self.version,
        }
    }

    /// What a set's files say of themselves must be what their names say.
    fn expect_count(&self, key: &str, expected: usize) -> Result<(), WeightsError> {
        match self.whole(key)? {
            Some(found) if found == expected as u64 => Ok(()),
            Some(found) => {
                Err(self.key_error(key, format!("must be {expected} in this set of files, found {found}")))
            }
            None => {
                Err(self.key_error(key, format!("is missing; it must be {expected} in this set of files")))
            }
        }
    }

    fn add(&mut self, file: Arc<MappedFile>, tensors: Vec<GgufTensor>) -> Result<(), WeightsError> {
        for tensor in tensors {
            if self.tensors.len() == MAX_TENSORS {
                return Err(WeightsError::TooManyTensors { path: self.path.clone(), limit: MAX_TENSORS });
            }
            if let Some(first) = self.tensors.get(&tensor.name) {
                return Err(WeightsError::DuplicateTensor {
                    tensor: tensor.name().to_owned(),
                    first: first.path().to_owned(),
                    second: tensor.path().to_owned(),
                });
            }
            self.tensors.insert(Arc::clone(&tensor.name), tensor);
        }
        self.files.push(file);
        Ok(())
    }

    /// The file that was opened, or the first of a set.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn mappings(&self) -> &[Arc<MappedFile>] {
        &self.files
    }

    /// All files of a set, in order; one where it was not split.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.files.iter().map(|file| file.path())
    }

    /// Bytes of all files.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.files.iter().map(|file| file.bytes().len() as u64).sum()
    }

    /// The version of the format: 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Asks the system to read the files ahead.
    pub fn prefetch(&self) {
        self.files.iter().for_each(|file| file.prefetch());
    }

    /// The metadata, by key.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, &GgufValue)> {
        self.metadata.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// A value of the metadata, of whatever type.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.get(key)
    }

    /// The text of a key, `None` where there is no such key.
    ///
    /// # Errors
    ///
    /// As of all these: [`WeightsError::GgufKey`] when the value is of another type.
    pub fn string(&self, key: &str) -> Result<Option<&str>, WeightsError> {
        self.typed(key, "a string", GgufValue::as_str)
    }

    /// The number of a key: one that is not negative.
    ///
    /// # Errors
    ///
    /// See [`string`](Self::string).
    pub fn whole(&self, key: &str) -> Result<Option<u64>, WeightsError> {
        self.typed(key, "an integer that is not negative", GgufValue::as_u64)
    }

    /// As [`whole`](Self::whole), as a number of things.
    ///
    /// # Errors
    ///
    /// See [`string`](Self::string).
    pub fn count(&self, key: &str) -> Result<Option<usize>, WeightsError> {
        self.typed(key, "a count", |value| usize::try_from(value.as_u64()?).ok())
    }

    /// The number of a key, of any type.
    ///
    /// # Errors
    ///
    /// See [`string`](Self::string).
    pub fn number(&self, key: &str) -> Result<Option<f64>, WeightsError> {
        self.typed(key, "a number", GgufValue::as_f64)
    }

    /// The truth value of a key.
    ///
    /// # Errors
    ///
    /// See [`string`](Self::string).
    pub fn flag(&self, key: &str) -> Result<Option<bool>, WeightsError> {
        self.typed(key, "true or false", GgufValue::as_bool)
    }

    /// The list of strings of a key.
    ///
    /// # Errors
    ///
    /// See [`string`](Self::string).
    pub fn strings(&self, key: &str) -> Result<Option<&GgufStrings>, WeightsError> {
        self.typed(key, "a list of strings", |value| match value {
            GgufValue::Strings(strings) => Some(strings),
            _ => None,
        })
    }

    /// The list of integers of a key.
    ///
    /// # Errors
    ///
    /// See [`string`](Self::string).
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, WeightsError> {
        self.typed(key, "a list of integers", |value| match value {
            GgufValue::Numbers(numbers) => numbers.iter().map(|number| number.as_i64()).collect(),
            _ => None,
        })
    }

    /// The list of numbers of a key, as `f32`.
    ///
    /// # Errors
    ///
    /// See [`string`](Self::string).
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, WeightsError> {
        self.typed(key, "a list of numbers", |value| match value {
            GgufValue::Numbers(numbers) => {
                numbers.iter().map(|number| Some(number.as_f64()? as f32)).collect()
            }
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a GgufValue) -> Option<T>,
    ) -> Result<Option<T>, WeightsError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.key_error(key, format!("must be {expected}, found {}", value.describe()))),
        }
    }

    /// An error about a key of the metadata.
    #[must_use]
    pub fn key_error(&self, key: &str, problem: impl Into<String>) -> WeightsError {
        WeightsError::GgufKey { path: self.path.clone(), key: key.to_owned(), problem: problem.into() }
    }

    /// An error about a tensor.
    #[must_use]
    pub fn tensor_error(&self, tensor: &GgufTensor, problem: impl Into<String>) -> WeightsError {
        let place = TensorPlace::new(tensor.name(), Some(tensor.path()));
        WeightsError::GgufTensor { place, problem: problem.into() }
    }

    /// The architecture, `general.architecture`: llama.cpp's name of the model's family.
    ///
    /// # Errors
    ///
    /// [`WeightsError::GgufKey`] when there is none.
    pub fn architecture(&self) -> Result<&str, WeightsError> {
        const KEY: &str = "general.architecture";
        self.string(KEY)?.ok_or_else(|| self.key_error(KEY, "is missing"))
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &GgufTensor> {
        self.tensors.values()
    }

    /// The tensor of that name, if there is one.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.tensors.get(name)
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("path", &self.path)
            .field("keys", &self.metadata.len())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

/// A tensor of a GGUF file, as it is there.
#[derive(Clone)]
pub struct GgufTensor {
    name: Arc<str>,
    kind: GgmlType,
    shape: Arc<[usize]>,
    file: Arc<MappedFile>,
    range: Range<usize>,
}

impl GgufTensor {
    /// The name in the file: llama.cpp's, such as `blk.0.attn_q.weight`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its elements.
    #[must_use]
    pub fn kind(&self) -> GgmlType {
        self.kind
    }

    /// The sizes of the axes, slowest first. (The file has them the other way round.)
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The file that holds it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The bytes: blocks of [`kind`](Self::kind), row by row.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.file.bytes()[self.range.clone()]
    }
}

impl fmt::Debug for GgufTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", Quoted(&self.name), self.kind, self.shape)
    }
}
