//! A model folder's weights, as one set of named tensors.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::error::{Quoted, WeightsError};
use crate::quantization::{Lookup, MatrixData, QuantizationConfig, QuantizedData, infer_spec};
use crate::safetensors::{self, MAX_HEADER_LENGTH, MAX_TENSORS, MappedFile, json_offset, json_problem};
use crate::tensor::TensorData;

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
const EXTENSION: &str = ".safetensors";

/// The tensors of a checkpoint, by name.
///
/// Opening maps the files and reads only their headers; the bytes of a tensor come into memory when they are
/// first touched. A clone shares the mappings. The mappings live as long as any tensor of them.
#[derive(Clone, Default)]
pub struct Checkpoint {
    folder: Option<PathBuf>,
    files: Vec<PathBuf>,
    mappings: Vec<Arc<MappedFile>>,
    tensors: BTreeMap<Arc<str>, TensorData>,
    metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens the weights in a model folder.
    ///
    /// These are, whichever is there first: `model.safetensors`; the shards that
    /// `model.safetensors.index.json` names; every `model*.safetensors`.
    ///
    /// # Links
    ///
    /// The Hugging Face cache keeps a snapshot's files as links to `../../blobs/<hash>`. So a weight file may
    /// be a symbolic link, but only to a file inside the model folder or, for a folder of the form
    /// `models--<id>/snapshots/<revision>`, inside that `models--<id>` folder. Other links are refused: a
    /// downloaded model has no business with files elsewhere. `folder` itself may be reached through any
    /// links. Shards must be named plainly: an index cannot name a path.
    ///
    /// # Errors
    ///
    /// See [`WeightsError`]: no or missing files, refused files, malformed headers and indexes, and
    /// contradictions between them.
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        let root = Root::new(folder)?;
        let mut checkpoint = Self { folder: Some(folder.to_owned()), ..Self::default() };
        if exists(&folder.join(SINGLE_FILE))? {
            checkpoint.add_file(&root, SINGLE_FILE)?;
            return Ok(checkpoint);
        }
        let index = folder.join(INDEX_FILE);
        if exists(&index)? {
            checkpoint.add_indexed(&root, &index)?;
            return Ok(checkpoint);
        }
        let names = root.list_weights()?;
        if names.is_empty() {
            return Err(WeightsError::NoWeights { folder: folder.to_owned() });
        }
        for name in names {
            checkpoint.add_file(&root, &name)?;
        }
        Ok(checkpoint)
    }

    /// Opens one safetensors file that the user names (an adapter, say); unlike in [`open`](Self::open) it
    /// may be any link.
    ///
    /// # Errors
    ///
    /// See [`WeightsError`]: no file, or a malformed header.
    pub fn open_file(path: &Path) -> Result<Self, WeightsError> {
        let mut checkpoint = Self::default();
        checkpoint.add(path, path)?;
        Ok(checkpoint)
    }

    /// A checkpoint in memory, for tests and conversions. Of several tensors with one name the last counts.
    #[must_use]
    pub fn from_tensors(tensors: Vec<TensorData>) -> Self {
        let tensors = tensors.into_iter().map(|tensor| (tensor.name().into(), tensor)).collect();
        Self { tensors, ..Self::default() }
    }

    fn add_file(&mut self, root: &Root, name: &str) -> Result<(), WeightsError> {
        let target = root.resolve(name)?;
        self.add(&root.folder.join(name), &target)
    }

    fn add(&mut self, path: &Path, target: &Path) -> Result<(), WeightsError> {
        let opened = safetensors::open(path, target)?;
        for tensor in opened.tensors {
            if self.tensors.len() == MAX_TENSORS {
                return Err(WeightsError::TooManyTensors { path: path.to_owned(), limit: MAX_TENSORS });
            }
            match self.tensors.entry(tensor.name().into()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(tensor);
                }
                Entry::Occupied(occupied) => {
                    return Err(WeightsError::DuplicateTensor {
                        tensor: occupied.key().to_string(),
                        first: occupied.get().file().unwrap_or(Path::new("")).to_owned(),
                        second: path.to_owned(),
                    });
                }
            }
        }
        for (key, value) in opened.metadata {
            self.metadata.entry(key).or_insert(value);
        }
        self.files.push(path.to_owned());
        self.mappings.push(opened.file);
        Ok(())
    }

    fn add_indexed(&mut self, root: &Root, index: &Path) -> Result<(), WeightsError> {
        let weight_map = read_index(root, index)?;
        let mut shards: Vec<&str> = weight_map.values().map(String::as_str).collect();
        shards.sort_unstable();
        shards.dedup();
        let mut missing = Vec::new();
        for &shard in &shards {
            check_plain_name(index, shard)?;
            if !exists(&root.folder.join(shard))? {
                missing.push(shard.to_owned());
            }
        }
        if !missing.is_empty() {
            return Err(WeightsError::MissingShards { index: index.to_owned(), missing });
        }
        for shard in shards {
            self.add_file(root, shard)?;
        }
        for (tensor, shard) in &weight_map {
            let holder = self.tensors.get(tensor.as_str()).and_then(TensorData::file);
            if holder != Some(&root.folder.join(shard)) {
                let elsewhere = match holder.and_then(Path::file_name) {
                    Some(holder) => format!("; it is in {}", Quoted(&holder.to_string_lossy())),
                    None => String::new(),
                };
                return Err(WeightsError::Index {
                    path: index.to_owned(),
                    field: format!("weight_map.{tensor}"),
                    problem: format!("{} has no such tensor{elsewhere}", Quoted(shard)),
                });
            }
        }
        Ok(())
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(|name| &**name)
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorData> {
        self.tensors.values()
    }

    /// The tensor of that name, if there is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&TensorData> {
        self.tensors.get(name)
    }

    /// Whether there is a tensor of that name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor of that name.
    ///
    /// # Errors
    ///
    /// [`WeightsError::MissingTensor`] if there is none; its hint names a tensor that differs only by a
    /// prefix, if there is one.
    pub fn require(&self, name: &str) -> Result<&TensorData, WeightsError> {
        self.get(name).ok_or_else(|| {
            let location = match (&self.folder, self.files.as_slice()) {
                (Some(folder), [_, _, ..]) => {
                    format!("the checkpoint in {} ({} files)", folder.display(), self.files.len())
                }
                (_, [file, ..]) => file.display().to_string(),
                (Some(folder), []) => folder.display().to_string(),
                (None, []) => "the checkpoint in memory".to_owned(),
            };
            let closest = self
                .names()
                .find(|present| {
                    is_dotted_suffix(present, name)
                        || (present.contains('.') && is_dotted_suffix(name, present))
                })
                .map(str::to_owned);
            WeightsError::MissingTensor { tensor: name.to_owned(), location, closest }
        })
    }

    /// The tensor of that name, which must have that shape.
    ///
    /// # Errors
    ///
    /// [`WeightsError::MissingTensor`], or [`WeightsError::WrongShape`] with both shapes and the file.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorData, WeightsError> {
        let tensor = self.require(name)?;
        if tensor.shape() != shape {
            return Err(WeightsError::WrongShape {
                place: tensor.place(),
                expected: shape.to_vec(),
                found: tensor.shape().to_vec(),
            });
        }
        Ok(tensor.clone())
    }

    /// The weight matrix of the module at `path`, which must have `rows` output and `cols` input features.
    ///
    /// MLX's loader rule: a path that the configuration lists is quantized as it says, or dense; any other
    /// path is quantized if and only if `<path>.scales` exists, and then mode, bits and group size follow
    /// from the shapes and from the dtype of the scales, never from the configuration's default.
    ///
    /// # Errors
    ///
    /// An error that names the tensor: missing `weight`, `scales` or `biases`, or a shape or dtype that does
    /// not fit.
    pub fn matrix(
        &self,
        path: &str,
        rows: usize,
        cols: usize,
        quantization: &QuantizationConfig,
    ) -> Result<MatrixData, WeightsError> {
        self.read_matrix(path, &[rows, cols], quantization)
    }

    /// The weight matrices of the module at `path` that are stored as one tensor of three axes, `[count, rows, cols]`: the
    /// experts of a mixture, or a matrix for each head. They come as one matrix of `count * rows` rows.
    ///
    /// # Errors
    ///
    /// As for [`matrix`](Self::matrix).
    pub fn stack(
        &self,
        path: &str,
        [count, rows, cols]: [usize; 3],
        quantization: &QuantizationConfig,
    ) -> Result<MatrixData, WeightsError> {
        self.read_matrix(path, &[count, rows, cols], quantization)
    }

    fn read_matrix(
        &self,
        path: &str,
        shape: &[usize],
        quantization: &QuantizationConfig,
    ) -> Result<MatrixData, WeightsError> {
        let (outer, cols) = match shape {
            [outer @ .., cols] => (outer, *cols),
            [] => (shape, 1),
        };
        let rows = outer.iter().fold(1usize, |product, size| product.saturating_mul(*size));
        // All axes but the last become one, if they are what they should be.
        let flat = |tensor: &TensorData| match tensor.shape() {
            [found @ .., columns] if found == outer => tensor.reshape(&[rows, *columns]),
            _ => Ok(tensor.clone()),
        };
        let weight_name = format!("{path}.weight");
        let scales_name = format!("{path}.scales");
        let lookup = quantization.lookup(path);
        if lookup == Lookup::Dense || (lookup == Lookup::Infer && !self.contains(&scales_name)) {
            let weight = self.require(&weight_name)?;
            if weight.dtype() == crate::Dtype::U32 {
                let problem = if lookup == Lookup::Dense {
                    "the weight is packed, but the configuration says that it is not quantized".to_owned()
                } else {
                    format!("the weight is packed, but {} is missing", Quoted(&scales_name))
                };
                return Err(WeightsError::Quantized { place: weight.place(), problem });
            }
            return MatrixData::dense(flat(&self.tensor(&weight_name, shape)?)?);
        }
        let weight = &flat(self.require(&weight_name)?)?;
        let scales = &flat(self.require(&scales_name)?)?;
        let spec = match lookup {
            Lookup::Quantized(spec) => spec,
            Lookup::Dense | Lookup::Infer => infer_spec(weight, scales, cols)?,
        };
        let biases_name = format!("{path}.biases");
        let biases = match spec.mode {
            // Scales of another mode are a better explanation than missing biases.
            crate::QuantMode::Affine if scales.dtype() != crate::Dtype::U8 => {
                Some(flat(self.require(&biases_name)?)?)
            }
            _ => self.get(&biases_name).map(flat).transpose()?,
        };
        if let Some(global_scale) = self.get(&format!("{path}.global_scale")) {
            return Err(WeightsError::Quantized {
                place: global_scale.place(),
                problem: "weights with a global scale are not supported (nvfp4 experts have one)".to_owned(),
            });
        }
        QuantizedData::new(spec, rows, cols, weight.clone(), scales.clone(), biases)
            .map(MatrixData::Quantized)
    }

    /// The opened files, in the order of opening.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Bytes of all tensors together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.bytes().len() as u64).sum()
    }

    /// The `__metadata__` of the files; where they differ, the first file counts.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Asks the system to read the files ahead, in the background. Only a hint; it returns at once, and it
    /// does nothing where the system has no such request.
    pub fn prefetch(&self) {
        for mapping in &self.mappings {
            mapping.prefetch();
        }
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("files", &self.files)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

/// Whether `long` is `<something>.<short>`.
fn is_dotted_suffix(long: &str, short: &str) -> bool {
    long.strip_suffix(short).is_some_and(|prefix| prefix.ends_with('.'))
}

/// Whether there is something of that name, be it a link to nothing.
fn exists(path: &Path) -> Result<bool, WeightsError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(WeightsError::io(path, "open", error)),
    }
}

/// Refuses names that are anything but the plain name of a safetensors file.
fn check_plain_name(index: &Path, shard: &str) -> Result<(), WeightsError> {
    let refuse = |problem: &str| {
        Err(WeightsError::UnsafeShard {
            path: index.to_owned(),
            shard: shard.to_owned(),
            problem: problem.to_owned(),
        })
    };
    if shard.contains(['/', '\\', ':', '\0']) || Path::new(shard).is_absolute() {
        return refuse("an index may only name files of its own folder, without a path");
    }
    if shard.contains("..") {
        return refuse("the name contains `..`");
    }
    if shard.len() <= EXTENSION.len() || !shard.ends_with(EXTENSION) {
        return refuse("not a .safetensors file");
    }
    Ok(())
}

/// The model folder and the places that links in it may lead to.
struct Root {
    /// As the caller gave it; errors show this.
    folder: PathBuf,
    /// Without links.
    allowed: Vec<PathBuf>,
}

impl Root {
    fn new(folder: &Path) -> Result<Self, WeightsError> {
        let real = fs::canonicalize(folder).map_err(|error| WeightsError::io(folder, "open", error))?;
        if !real.is_dir() {
            return Err(WeightsError::NotAFolder { path: folder.to_owned() });
        }
        let mut allowed = vec![real.clone()];
        allowed.extend(hub_repository(&real));
        Ok(Self { folder: folder.to_owned(), allowed })
    }

    /// The file behind a plain name in the folder, without links, if it is in an allowed place.
    fn resolve(&self, name: &str) -> Result<PathBuf, WeightsError> {
        let path = self.folder.join(name);
        let target = fs::canonicalize(&path).map_err(|error| WeightsError::io(&path, "open", error))?;
        if self.allowed.iter().any(|place| target.starts_with(place)) {
            Ok(target)
        } else {
            Err(WeightsError::UnsafeShard {
                path: self.folder.clone(),
                shard: name.to_owned(),
                problem: format!("it is a link to {}, outside the model folder", target.display()),
            })
        }
    }

    /// The names of all `model*.safetensors`, sorted.
    fn list_weights(&self) -> Result<Vec<String>, WeightsError> {
        let failed = |error| WeightsError::io(&self.folder, "list", error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry.map_err(failed)?.file_name().into_string()
                && name.starts_with("model")
                && name.ends_with(EXTENSION)
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// The repository folder `…/models--<id>` of a folder `…/models--<id>/snapshots/<revision>[/…]`.
fn hub_repository(folder: &Path) -> Option<PathBuf> {
    let components: Vec<Component<'_>> = folder.components().collect();
    let name = |index: usize| match components[index] {
        Component::Normal(name) => name.to_str(),
        _ => None,
    };
    let position = (0..components.len().saturating_sub(2)).rev().find(|&index| {
        name(index).is_some_and(|name| name.starts_with("models--")) && name(index + 1) == Some("snapshots")
    })?;
    Some(components[..=position].iter().collect())
}

/// Reads the `weight_map` of an index: tensor name to shard name.
fn read_index(root: &Root, index: &Path) -> Result<BTreeMap<String, String>, WeightsError> {
    let target = root.resolve(INDEX_FILE)?;
    let failed = |error| WeightsError::io(index, "read", error);
    let metadata = fs::metadata(&target).map_err(failed)?;
    if !metadata.is_file() {
        return Err(WeightsError::NotAFile { path: index.to_owned() });
    }
    let bad =
        |problem| WeightsError::Index { path: index.to_owned(), field: "weight_map".to_owned(), problem };
    if metadata.len() > MAX_HEADER_LENGTH {
        return Err(bad(format!("the file is longer than {MAX_HEADER_LENGTH} bytes")));
    }
    let text = fs::read(&target).map_err(failed)?;
    let Index(weight_map) = serde_json::from_slice(&text)
        .map_err(|error| bad(format!("{} (byte {})", json_problem(&error), json_offset(&text, &error))))?;
    if weight_map.is_empty() {
        return Err(bad("names no tensor".to_owned()));
    }
    Ok(weight_map)
}

/// The index file; only `weight_map` is of interest.
struct Index(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IndexVisitor;
        impl<'de> Visitor<'de> for IndexVisitor {
            type Value = Index;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `weight_map`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut weight_map = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "weight_map" {
                        map.next_value::<IgnoredAny>()?;
                    } else if weight_map.is_some() {
                        return Err(A::Error::custom("`weight_map` occurs twice"));
                    } else {
                        weight_map = Some(map.next_value::<WeightMap>()?);
                    }
                }
                match weight_map {
                    Some(WeightMap(map)) => Ok(Index(map)),
                    None => Err(A::Error::custom("`weight_map` is missing")),
                }
            }
        }
        deserializer.deserialize_map(IndexVisitor)
    }
}

struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WeightMapVisitor;
        impl<'de> Visitor<'de> for WeightMapVisitor {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`weight_map` as an object of file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut shards = BTreeMap::new();
                while let Some(tensor) = map.next_key::<String>()? {
                    if shards.contains_key(&tensor) {
                        return Err(A::Error::custom(format_args!(
                            "tensor {} occurs twice",
                            Quoted(&tensor)
                        )));
                    }
                    if shards.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
                    }
                    let shard = map.next_value::<String>()?;
                    shards.insert(tensor, shard);
                }
                Ok(WeightMap(shards))
            }
        }
        deserializer.deserialize_map(WeightMapVisitor)
    }
}
