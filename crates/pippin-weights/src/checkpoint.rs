//! A model folder's weights, as one set of named tensors.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Quoted, QuotedList, WeightsError};
use crate::files::WeightFiles;
use crate::gguf::Gguf;
use crate::index::WeightIndex;
use crate::links::Root;
use crate::mapped::MappedFile;
use crate::minifloat::{E2M1_MAX, E4M3_MAX};
use crate::quantization::{MatrixData, QuantizedData, infer_spec};
use crate::quantization_config::{Lookup, QuantizationConfig};
use crate::safetensors::{self, MAX_TENSORS, OpenedFile};
use crate::tensor::TensorData;

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
    warnings: Vec<String>,
}

impl Checkpoint {
    /// Opens the weights in a model folder: the files that [`WeightFiles`] chooses. What is odd about them but does no
    /// harm is told by [`warnings`](Self::warnings).
    ///
    /// A tensor may be in several files if it is the same in all of them, byte for byte.
    ///
    /// # Links
    ///
    /// Links that somebody made on his own disk are followed, wherever they lead: the files of the folder may be links, and
    /// the way to it may lead over some. What was downloaded is another matter. The Hugging Face cache keeps a snapshot's
    /// files as links to `../../blobs/<hash>`, and no download makes any other. So in a folder of the form
    /// `models--<id>/snapshots/<revision>` a link may only lead to a file within that `models--<id>` folder, into its
    /// `blobs`, which may be a link to another disk, or to a blob that the cache keeps for several models
    /// (`blobs/<2 digits>/<hash>` beside them). Shards must be named plainly: an index cannot name a path.
    ///
    /// # Errors
    ///
    /// See [`WeightsError`]: no or missing files, refused files, malformed headers, and contradictions between files.
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        let root = Root::new(folder)?;
        let WeightFiles { files, extra, missing, warnings, links, index } = root.weight_files()?;
        if !missing.is_empty() {
            let place = if index.is_some() { folder.join(WeightFiles::INDEX) } else { folder.to_owned() };
            return Err(WeightsError::MissingShards { index: place, missing, links });
        }
        if files.is_empty() {
            return Err(WeightsError::NoWeights { folder: folder.to_owned(), others: others(folder) });
        }
        let mut checkpoint = Self { folder: Some(folder.to_owned()), warnings, ..Self::default() };
        for name in files {
            let target = root.resolve(&name)?;
            checkpoint.add(&folder.join(&name), &target)?;
        }
        for name in extra {
            checkpoint.add_extra(&root, &name)?;
        }
        if let Some(index) = index {
            checkpoint.compare(&index);
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

    /// The tensors that were made of those of a GGUF file, by the names that a model has for them.
    #[must_use]
    pub fn of_gguf(gguf: &Gguf, tensors: Vec<TensorData>) -> Self {
        Self {
            files: gguf.files().map(Path::to_owned).collect(),
            mappings: gguf.mappings().to_vec(),
            ..Self::from_tensors(tensors)
        }
    }

    /// The same checkpoint with other tensors: made over from its own, for a model that wants them otherwise.
    #[must_use]
    pub fn with_tensors(&self, tensors: impl IntoIterator<Item = TensorData>) -> Self {
        let tensors = tensors.into_iter().map(|tensor| (tensor.name().into(), tensor)).collect();
        Self { tensors, ..self.clone() }
    }

    fn add(&mut self, path: &Path, target: &Path) -> Result<(), WeightsError> {
        let opened = safetensors::open(path, target)?;
        if let Some((tensor, first)) = self.contradiction(&opened) {
            return Err(WeightsError::DuplicateTensor { tensor, first, second: path.to_owned() });
        }
        self.insert(path, opened)
    }

    /// Takes what a file adds that the index does not name. It is not needed for sure, so what is wrong with it is a warning.
    fn add_extra(&mut self, root: &Root, name: &str) -> Result<(), WeightsError> {
        let path = root.folder.join(name);
        let opened = root.resolve(name).and_then(|target| safetensors::open(&path, &target));
        let problem = match opened {
            Ok(opened) => match self.contradiction(&opened) {
                None => return self.insert(&path, opened),
                Some((tensor, first)) => format!(
                    "its {} is another than that in {}, which {} names",
                    Quoted(&tensor),
                    Quoted(&file_name(&first)),
                    WeightFiles::INDEX
                ),
            },
            Err(error @ WeightsError::UnsafeShard { .. }) => return Err(error),
            Err(error) => error.to_string(),
        };
        self.warnings.push(format!("{} is left out: {problem}", Quoted(name)));
        Ok(())
    }

    /// A tensor of a file that another file has with other contents, and that file.
    fn contradiction(&self, opened: &OpenedFile) -> Option<(String, PathBuf)> {
        let differs = |tensor: &&TensorData| {
            self.get(tensor.name()).is_some_and(|known| {
                (known.dtype(), known.shape(), known.bytes())
                    != (tensor.dtype(), tensor.shape(), tensor.bytes())
            })
        };
        let tensor = opened.tensors.iter().find(differs)?;
        let first = self.get(tensor.name()).and_then(TensorData::file).unwrap_or(Path::new(""));
        Some((tensor.name().to_owned(), first.to_owned()))
    }

    fn insert(&mut self, path: &Path, opened: OpenedFile) -> Result<(), WeightsError> {
        let (mut repeated, mut added) = (Vec::new(), 0);
        let is_empty = opened.tensors.is_empty();
        for tensor in opened.tensors {
            if self.tensors.len() == MAX_TENSORS {
                return Err(WeightsError::TooManyTensors { path: path.to_owned(), limit: MAX_TENSORS });
            }
            match self.tensors.entry(tensor.name().into()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(tensor);
                    added += 1;
                }
                Entry::Occupied(occupied) => repeated.extend(occupied.get().file().map(file_name)),
            }
        }
        if !repeated.is_empty() {
            let count = repeated.len();
            repeated.sort_unstable();
            repeated.dedup();
            self.warnings.push(format!(
                "{} repeats {count} tensor{} of {}",
                Quoted(&file_name(path)),
                if count == 1 { "" } else { "s" },
                QuotedList(&repeated)
            ));
        }
        for (key, value) in opened.metadata {
            self.metadata.entry(key).or_insert(value);
        }
        if added > 0 || is_empty {
            self.files.push(path.to_owned());
            self.mappings.push(opened.file);
        }
        Ok(())
    }

    /// Says what an index names that there is not. Conversions drop tensors that nobody reads, and the model that is
    /// loaded will say what it lacks.
    fn compare(&mut self, index: &WeightIndex) {
        let absent: Vec<String> =
            index.tensors().filter(|name| !self.contains(name)).map(str::to_owned).collect();
        if !absent.is_empty() {
            let warning =
                format!("{} names tensors that no file has: {}", WeightFiles::INDEX, QuotedList(&absent));
            self.warnings.push(warning);
        }
    }

    /// What is odd about the files, in sentences for the user: an index that is not used, files that are left out.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
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
            let warning = self.warnings.first().cloned();
            WeightsError::MissingTensor { tensor: name.to_owned(), location, closest, warning }
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
        self.read_matrix(path, &[rows, cols], quantization).map_err(|error| quantization.explain(error))
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
        let shape = [count, rows, cols];
        self.read_matrix(path, &shape, quantization).map_err(|error| quantization.explain(error))
    }

    /// A stack as [`stack`](Self::stack) reads it, of experts each of which may have a factor on its weights: then the factors
    /// too, `[count]`. Stored is the largest weight of each expert, of which `nvfp4` makes the factor by the largest number
    /// that elements and scales can be together.
    ///
    /// # Errors
    ///
    /// As for [`stack`](Self::stack); and where the configuration says that there are factors, but there are none.
    pub fn experts(
        &self,
        path: &str,
        [count, rows, cols]: [usize; 3],
        quantization: &QuantizationConfig,
    ) -> Result<(MatrixData, Option<TensorData>), WeightsError> {
        let name = format!("{path}.global_scale");
        if !self.contains(&name) && !quantization.has_global_scale(path) {
            return Ok((self.stack(path, [count, rows, cols], quantization)?, None));
        }
        let largest = self.tensor(&name, &[count])?;
        let matrix = self
            .read_stored(path, &[count, rows, cols], quantization)
            .map_err(|error| quantization.explain(error))?;
        if !matches!(&matrix, MatrixData::Quantized(data) if data.spec.mode == crate::QuantMode::Nvfp4) {
            let problem = "only weights of the mode nvfp4 have a global scale".to_owned();
            return Err(WeightsError::Quantized { place: largest.place(), problem });
        }
        let factors: Vec<f32> =
            largest.to_f32()?.into_iter().map(|largest| largest / (E4M3_MAX * E2M1_MAX)).collect();
        Ok((matrix, Some(TensorData::from_f32(name, &[count], &factors)?)))
    }

    fn read_matrix(
        &self,
        path: &str,
        shape: &[usize],
        quantization: &QuantizationConfig,
    ) -> Result<MatrixData, WeightsError> {
        if let Some(global_scale) = self.get(&format!("{path}.global_scale")) {
            return Err(WeightsError::Quantized {
                place: global_scale.place(),
                problem: "only experts may have a global scale".to_owned(),
            });
        }
        self.read_stored(path, shape, quantization)
    }

    fn read_stored(
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
        self.tensors.values().map(|tensor| tensor.byte_len() as u64).sum()
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

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Files of a folder that look like weights, but are not those of an MLX model.
fn others(folder: &Path) -> Vec<String> {
    let endings = [".safetensors", ".gguf", ".bin", ".pt", ".pth", ".npz", ".part", ".incomplete"];
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| endings.iter().any(|ending| name.ends_with(ending)))
        .collect();
    names.sort_unstable();
    names
}
