use std::path::PathBuf;

use pippin_tensor::TensorError;
use pippin_weights::WeightsError;

/// What can go wrong when a model is described, loaded or run.
///
/// A message says which file, field or tensor is at fault; [`hint`](Self::hint) says what to do about it. Values taken
/// from files are escaped and shortened, so that printing an error of a hostile file is safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file of the model's folder could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A configuration file is larger than any honest one.
    #[error("{}: {bytes} bytes, but a configuration file has at most {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The size up to which it would have been read.
        limit: u64,
    },
    /// A configuration file is not JSON.
    #[error("{}: not valid JSON: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's message, with line and column.
        message: String,
    },
    /// The configuration does not say which kind of model it is of, and so is none of a language model.
    #[error(
        "{} has no model_type{}", path.display(),
        looks_like.map(|kind| format!(": the folder looks like that of {kind}")).unwrap_or_default()
    )]
    NoModelType {
        /// The file.
        path: PathBuf,
        /// What the folder is instead, where that can be told.
        looks_like: Option<&'static str>,
    },
    /// A field of the configuration is missing, has the wrong type, or holds an impossible value.
    #[error("{file}: field `{field}` {problem}")]
    Field {
        /// The file, usually `config.json`.
        file: String,
        /// The field, as a dotted path: `rope_scaling.factor`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The configuration asks for something that this version has no code for.
    #[error("{file}: field `{field}`: {found} is not supported; supported: {}", listed(found, known))]
    Unsupported {
        /// The file, usually `config.json`.
        file: String,
        /// The field, as a dotted path.
        field: String,
        /// Its value in the file, escaped.
        found: String,
        /// The values that are supported.
        known: Vec<&'static str>,
    },
    /// The model's architecture is a program that comes with it.
    #[error(
        "{file}: field `{field}`: the model brings its own code for {model_type}, and Pippin never runs code of a model"
    )]
    CustomCode {
        /// The file, usually `config.json`.
        file: String,
        /// The field that names the program: `auto_map` or `model_file`.
        field: &'static str,
        /// The `model_type` that no family knows, escaped.
        model_type: String,
    },
    /// The checkpoint cannot be read, lacks a tensor, or holds one of another shape than the configuration asks for.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The backend refused an operation or ran out of memory.
    #[error(transparent)]
    Backend(#[from] TensorError),
    /// The caches cannot be allocated as asked.
    #[error("the KV cache does not fit the model: {problem}")]
    KvCache {
        /// What does not fit.
        problem: String,
    },
    /// A step was asked for that cannot be run.
    #[error("the step cannot be run: {problem}")]
    Step {
        /// What is wrong with it.
        problem: String,
    },
}

impl ModelError {
    /// A [`ModelError::Field`] from displayable parts.
    pub fn field(file: impl ToString, field: impl ToString, problem: impl ToString) -> Self {
        Self::Field { file: file.to_string(), field: field.to_string(), problem: problem.to_string() }
    }

    /// Whether the device has failed for good.
    #[must_use]
    pub fn is_device_lost(&self) -> bool {
        matches!(self, Self::Backend(TensorError::DeviceLost { .. }))
    }

    /// What the user can do about the error, when there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Read { .. } => "a model folder holds config.json and *.safetensors files; check its path",
            Self::TooLarge { .. } | Self::Json { .. } => {
                "the file is damaged, or is not a model's configuration: download the model again"
            }
            Self::NoModelType { .. } => {
                "a language model's config.json names its family, such as \"model_type\": \"llama\"; give the folder of one"
            }
            Self::Field { .. } => {
                "the configuration is damaged or of another kind of model: download the model again"
            }
            Self::Unsupported { .. } | Self::CustomCode { .. } => {
                "choose a model of a supported kind, or look for a newer version of Pippin"
            }
            Self::Weights(error) | Self::Backend(TensorError::Weights(error)) => return error.hint(),
            Self::Backend(TensorError::OutOfMemory { .. }) => {
                "choose a smaller model or a shorter context, or close other programs"
            }
            Self::Backend(TensorError::Shape { .. } | TensorError::Index { .. }) => {
                "the checkpoint does not fit its config.json: download the model again"
            }
            Self::Backend(_) | Self::KvCache { .. } | Self::Step { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// Names in a sentence: all of them, or those that are most like the one that was found.
fn listed(found: &str, known: &[&'static str]) -> String {
    const MOST: usize = 30;
    if known.len() <= MOST {
        return known.join(", ");
    }
    let found = found.trim_matches('"').to_ascii_lowercase();
    let pairs = |name: &str| -> Vec<[char; 2]> {
        let letters: Vec<char> = name.to_ascii_lowercase().chars().take(100).collect();
        letters.windows(2).map(|pair| [pair[0], pair[1]]).collect()
    };
    let own = pairs(&found);
    let likeness = |name: &&str| {
        let others = pairs(name);
        let common = others.iter().filter(|pair| own.contains(pair)).count();
        2.0 * common as f64 / (own.len() + others.len()).max(1) as f64
    };
    let mut like: Vec<(f64, &str)> = known.iter().map(|name| (likeness(name), *name)).collect();
    like.sort_by(|a, b| b.0.total_cmp(&a.0));
    let names: Vec<&str> =
        like.iter().take(8).filter(|(like, _)| *like > 0.3).map(|(_, name)| *name).collect();
    match names.as_slice() {
        [] => format!("one of {} that docs/models.md lists", known.len()),
        names => format!(
            "{} and {} others, which docs/models.md lists",
            names.join(", "),
            known.len() - names.len()
        ),
    }
}

/// The result of describing, loading or running a model.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;
