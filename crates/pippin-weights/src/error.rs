//! The error type of this crate, and the helpers that keep untrusted names printable.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::dtype::Dtype;

/// Everything that can be wrong with a checkpoint, or with a request about one.
///
/// A message says what is wrong and where (file, tensor, field or byte); [`WeightsError::hint`] says what to
/// do about it. Names taken from files are escaped and shortened, so that printing an error of a hostile file
/// is safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The operating system refused to read or write.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted, as an infinitive ("open", "map", …).
        action: &'static str,
        /// The reason the system gave.
        source: io::Error,
    },
    /// A path that must be a regular file is something else (a folder, a pipe, a device).
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A path that must be a model folder is something else.
    #[error("{} is not a folder", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The folder holds no safetensors file of a model.
    #[error("no model*.safetensors in {}{}", folder.display(), There(others))]
    NoWeights {
        /// The folder that was searched.
        folder: PathBuf,
        /// Files that look like weights of another kind.
        others: Vec<String>,
    },
    /// The file is shorter than the fixed part at its beginning.
    #[error("{} is truncated: {length} bytes, but its header takes at least {prefix}", path.display())]
    TooShort {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// The length of the fixed part.
        prefix: usize,
    },
    /// The file is recognisably something other than safetensors.
    #[error("{} is not a safetensors file: it looks like {looks_like}", path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What it looks like ("a Git LFS pointer", …).
        looks_like: &'static str,
    },
    /// The file is not a GGUF file.
    #[error("{} is not a GGUF file{}", path.display(), looks_like.map_or_else(String::new, |what| format!(": it looks like {what}")))]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// What it looks like, if it is recognisably something else.
        looks_like: Option<&'static str>,
    },
    /// A GGUF file is not what the format prescribes, or of a kind that is not read.
    #[error("{}: {subject} at byte {offset}: {problem}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// Offset of the problem from the start of the file.
        offset: u64,
        /// What is there: a metadata key, a tensor, a number of the header.
        subject: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A metadata key of a GGUF file is missing or has a value that does not fit its use.
    #[error("{}: metadata key {}: {problem}", path.display(), Quoted(key))]
    GgufKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor of a GGUF file does not fit the architecture that the metadata names.
    #[error("{place}: {problem}")]
    GgufTensor {
        /// The tensor and its file.
        place: TensorPlace,
        /// What does not fit.
        problem: String,
    },
    /// A tensor of a GGUF file is of a type that is not read, or not for its use.
    #[error("{place}: {problem}")]
    GgufType {
        /// The tensor and its file.
        place: TensorPlace,
        /// What is wrong with its type.
        problem: String,
    },
    /// The header length at byte 0 is impossible.
    #[error("{}: the header length at byte 0 is {length}, but {limit}", path.display())]
    HeaderLength {
        /// The file.
        path: PathBuf,
        /// The length the file claims.
        length: u64,
        /// The limit that it breaks, in words.
        limit: String,
    },
    /// The header is not what the safetensors format prescribes.
    #[error("{}: bad header at byte {offset}: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Offset of the problem from the start of the file.
        offset: u64,
        /// What is wrong there.
        problem: String,
    },
    /// One field of a tensor's header entry is wrong.
    #[error("{place}: field `{field}`: {problem}")]
    Entry {
        /// The tensor and its file.
        place: TensorPlace,
        /// The header field: `shape`, `dtype` or `data_offsets`.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor has a dtype that this crate does not know.
    #[error("{place}: field `dtype`: unknown dtype {}", Quoted(dtype))]
    UnknownDtype {
        /// The tensor and its file.
        place: TensorPlace,
        /// The dtype as the file spells it.
        dtype: String,
    },
    /// `model.safetensors.index.json` is malformed or contradicts the shards.
    #[error("{}: field {}: {problem}", path.display(), Quoted(field))]
    Index {
        /// The index file.
        path: PathBuf,
        /// The field of the index.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A weight file is refused because it is, or may be, outside the model folder.
    #[error("{}: refusing weight file {}: {problem}", path.display(), Quoted(shard))]
    UnsafeShard {
        /// The index or folder that names the weight file.
        path: PathBuf,
        /// The name of the weight file.
        shard: String,
        /// Why it is refused.
        problem: String,
    },
    /// Weight files are not there that the index names, or that belong to a set of which others are there.
    #[error("{}: missing weight files: {}{}", index.display(), QuotedList(missing), Sentences(links))]
    MissingShards {
        /// The index file, or the folder where there is none.
        index: PathBuf,
        /// The names of the missing files.
        missing: Vec<String>,
        /// Of those that are links to nothing: where they lead, in words.
        links: Vec<String>,
    },
    /// Two files hold different tensors of the same name.
    #[error(
        "tensor {} is both in {} and in {}, and not the same",
        Quoted(tensor), first.display(), second.display()
    )]
    DuplicateTensor {
        /// The name of the tensor.
        tensor: String,
        /// One file that holds it.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// The checkpoint holds more tensors than this crate accepts.
    #[error("{}: more than {limit} tensors", path.display())]
    TooManyTensors {
        /// The file or folder.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// A tensor that the caller needs is not in the checkpoint.
    #[error("{location} has no tensor {}", Quoted(tensor))]
    MissingTensor {
        /// The name of the tensor.
        tensor: String,
        /// The checkpoint that was searched, in words.
        location: String,
        /// A tensor of the checkpoint whose name differs only by a prefix, if there is one.
        closest: Option<String>,
        /// What is odd about the checkpoint's files, if anything is.
        warning: Option<String>,
    },
    /// A tensor has another shape than the caller expects.
    #[error("{place}: expected shape {expected:?}, found {found:?}")]
    WrongShape {
        /// The tensor and its file.
        place: TensorPlace,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has a dtype that does not fit its use.
    #[error("{place}: expected dtype {expected}, found {found}")]
    WrongDtype {
        /// The tensor and its file.
        place: TensorPlace,
        /// The dtypes that would do, in words.
        expected: &'static str,
        /// The dtype in the file.
        found: Dtype,
    },
    /// An integer has no exact value as `f32`.
    #[error("{place}: element {position} is {value}, which is not exact as F32")]
    Inexact {
        /// The tensor and its file.
        place: TensorPlace,
        /// The position of the element, counted in row-major order.
        position: usize,
        /// The element.
        value: String,
    },
    /// A tensor made in memory has the wrong number of bytes or values, or an impossible shape.
    #[error("{place}: {problem}")]
    Size {
        /// The tensor.
        place: TensorPlace,
        /// What does not fit.
        problem: String,
    },
    /// A row range or a new shape does not fit the tensor.
    #[error("{place}: {problem}")]
    View {
        /// The tensor and its file.
        place: TensorPlace,
        /// What does not fit.
        problem: String,
    },
    /// A field of `config.json` is wrong.
    #[error("{}: field {}: {problem}", file.display(), Quoted(field))]
    Config {
        /// The configuration file.
        file: PathBuf,
        /// The field, as a dotted path.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The checkpoint is quantized by a method this crate does not read.
    #[error("{}: field `{field}`: unsupported quantization method {}", file.display(), Quoted(method))]
    UnsupportedMethod {
        /// The configuration file.
        file: PathBuf,
        /// The field that names the method.
        field: String,
        /// The method ("gptq", "awq", …).
        method: String,
    },
    /// Bits or group size that the mode does not have.
    #[error("{problem}")]
    Spec {
        /// What is wrong.
        problem: String,
    },
    /// The tensors of a quantized matrix do not fit together.
    #[error("{place}: {problem}")]
    Quantized {
        /// The tensor at fault and its file.
        place: TensorPlace,
        /// What does not fit.
        problem: String,
    },
    /// Values that cannot be quantized (not finite, or too large for the dtype of the scales).
    #[error("cannot quantize row {row}, column {column}: {problem}")]
    Values {
        /// The row of the first bad value or group.
        row: usize,
        /// Its column.
        column: usize,
        /// What is wrong.
        problem: String,
    },
}

impl WeightsError {
    /// What the user can do about the error, when there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { source, action, .. }
                if source.kind() == io::ErrorKind::NotFound && *action != "write" =>
            {
                "check the path; if it is a link into a download cache, download the model again"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "give the current user permission to this path"
            }
            Self::Io { .. } | Self::Size { .. } | Self::View { .. } => return None,
            Self::NotAFile { .. } => "put the weights there as a plain file",
            Self::NotAFolder { .. } => "give the folder that holds config.json and model.safetensors",
            Self::NoWeights { others, .. } if others.iter().any(|name| name.starts_with("adapter")) => {
                "an adapter is only the difference to a model: give the folder of the model that it was made for"
            }
            Self::NoWeights { .. } => {
                "a model folder holds model.safetensors, or model.safetensors.index.json and its shards; \
                 PyTorch .bin and GGUF files are not read"
            }
            Self::NotSafetensors { looks_like, .. } if looks_like.contains("LFS") => {
                "the folder was cloned without its large files: run `git lfs pull` in it, or download the model again"
            }
            Self::GgufTensor { .. } => {
                "the file is of a newer or another version of the architecture: look for a newer version of Pippin"
            }
            Self::GgufType { .. } => {
                "get the model in another quantization: Q4_K_M, Q8_0, MXFP4, …, or as an MLX model"
            }
            Self::NotGguf { .. } => "give a .gguf file, or download it again",
            Self::Gguf { problem, .. } if problem.contains("big-endian") => {
                "get the file for little-endian machines, which nearly all are"
            }
            Self::Gguf { .. } | Self::GgufKey { .. } => {
                "the file is damaged or was written by a faulty or an old tool: download or convert the model again"
            }
            Self::NotSafetensors { .. } => "get the model in safetensors form, or download it again",
            Self::TooShort { .. } | Self::HeaderLength { .. } => {
                "the file is damaged or the download was cut short: download it again"
            }
            Self::Entry { field: "data_offsets", .. } => {
                "the file is damaged, or the download was cut short: download it again"
            }
            Self::Header { .. } | Self::Entry { .. } => {
                "the file is damaged or was written by a faulty tool: download or convert the model again"
            }
            Self::UnknownDtype { .. } => {
                return Some(format!("known dtypes: {}; convert the tensor to one of them", Dtype::list()));
            }
            Self::Index { .. } => {
                "download the index again, or delete it: then every model*.safetensors in the folder is loaded"
            }
            Self::UnsafeShard { .. } => {
                "in a folder of the Hugging Face cache, links lead to the model's own blobs: download the model again; \
                 links of your own are followed in any other folder"
            }
            Self::MissingShards { links, .. } if !links.is_empty() => {
                "put the files back to where the links lead, or download the model again"
            }
            Self::MissingShards { .. } => "the download is incomplete: download the model again",
            Self::DuplicateTensor { .. } => {
                "the folder mixes files of two checkpoints: remove the ones that do not belong, or \
                 download into an empty folder"
            }
            Self::TooManyTensors { .. } => {
                "no known model has that many tensors: the file is damaged or hostile"
            }
            Self::MissingTensor { closest: Some(closest), .. } => {
                return Some(format!(
                    "the checkpoint has {}: is it for another model type than config.json says?",
                    Quoted(closest)
                ));
            }
            Self::MissingTensor { warning: Some(warning), .. } => {
                return Some(format!("a weight file may be missing: {warning}"));
            }
            Self::MissingTensor { .. } => {
                "the weights and config.json do not belong together, or a shard is missing"
            }
            Self::WrongShape { .. } => {
                "the weights and config.json do not belong together: download both again"
            }
            Self::WrongDtype { .. } => "convert the tensor, or get another conversion of the model",
            Self::Inexact { .. } => "read the tensor in its own dtype",
            Self::Config { .. } => "correct the field, or download config.json again",
            Self::UnsupportedMethod { .. } => {
                "get an MLX conversion of the model (most are in the mlx-community organisation), or the \
                 unquantized model"
            }
            Self::Spec { .. } => {
                "affine: 2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128 (of 16 when read, not written); mxfp4: 4 bits in 32; \
                 mxfp8: 8 bits in 32; nvfp4: 4 bits in 16"
            }
            Self::Quantized { .. } => {
                "the weights, scales and config.json do not belong together: download or convert the model again"
            }
            Self::Values { .. } => "the weights are damaged, or need a wider dtype for the scales",
        };
        Some(hint.to_owned())
    }

    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }
}

/// A tensor as an error names it: its name, and its file when it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlace {
    name: String,
    file: Option<PathBuf>,
}

impl TensorPlace {
    pub(crate) fn new(name: &str, file: Option<&Path>) -> Self {
        // An error is no place for a megabyte of name.
        Self { name: name.chars().take(2 * MAX_SHOWN).collect(), file: file.map(Path::to_owned) }
    }

    /// The name of the tensor as the file spells it (very long names are cut).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds it; `None` for a tensor made in memory.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

impl fmt::Display for TensorPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tensor {}", Quoted(&self.name))?;
        match &self.file {
            Some(file) => write!(f, " in {}", file.display()),
            None => Ok(()),
        }
    }
}

/// How many characters of an untrusted name an error shows.
const MAX_SHOWN: usize = 160;

/// Displays an untrusted string in backquotes: control characters escaped, at most [`MAX_SHOWN`] characters.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`")?;
        let mut characters = self.0.chars();
        for character in characters.by_ref().take(MAX_SHOWN) {
            match character {
                '"' | '\'' => write!(f, "{character}")?,
                _ => write!(f, "{}", character.escape_debug())?,
            }
        }
        if characters.next().is_some() {
            f.write_str("…")?;
        }
        f.write_str("`")
    }
}

/// Displays a list of untrusted strings, the first ten of them.
pub(crate) struct QuotedList<'a>(pub(crate) &'a [String]);

impl fmt::Display for QuotedList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        for (position, name) in self.0.iter().take(SHOWN).enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}{}", Quoted(name))?;
        }
        if self.0.len() > SHOWN {
            write!(f, " and {} more", self.0.len() - SHOWN)?;
        }
        Ok(())
    }
}

/// Displays what is there instead, if anything is.
struct There<'a>(&'a [String]);

impl fmt::Display for There<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; there is {}", QuotedList(self.0)) }
    }
}

/// Displays sentences, each after a semicolon.
struct Sentences<'a>(&'a [String]);

impl fmt::Display for Sentences<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(3).try_for_each(|sentence| write!(f, "; {sentence}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_names_are_escaped_and_cut() {
        assert_eq!(Quoted("a\u{1b}[31m\n'b'").to_string(), "`a\\u{1b}[31m\\n'b'`");
        let long = Quoted(&"x".repeat(100_000)).to_string();
        assert!(long.len() < 200, "{}", long.len());
        assert!(long.ends_with("…`"));
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..12).map(|number| format!("m{number}")).collect();
        let shown = QuotedList(&names).to_string();
        assert!(shown.starts_with("`m0`, `m1`") && shown.ends_with(" and 2 more"), "{shown}");
    }
}
