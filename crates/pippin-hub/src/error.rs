use std::path::PathBuf;

/// What can go wrong when a model is looked for.
///
/// The message says what was looked for and where; [`hint`](Self::hint) says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The name is no folder, no hub id and no alias.
    #[error("there is no model named {name:?}")]
    UnknownModel {
        /// The name as given.
        name: String,
        /// Aliases that are spelled nearly like it, nearest first.
        suggestions: Vec<String>,
    },
    /// A path that does not exist.
    #[error("there is no folder {}", path.display())]
    NoFolder {
        /// The path.
        path: PathBuf,
    },
    /// A folder that holds no model.
    #[error("{} is not a model folder: {problem}", path.display())]
    NotAModel {
        /// The folder.
        path: PathBuf,
        /// What it lacks.
        problem: String,
    },
    /// A hub model of which the cache holds nothing, or not this revision.
    #[error("{id} (revision {revision}) is not in the Hugging Face cache at {}", cache.display())]
    NotCached {
        /// The hub id.
        id: String,
        /// The revision that was asked for.
        revision: String,
        /// The cache that was searched.
        cache: PathBuf,
        /// Whether the id stands in the registry.
        registered: bool,
    },
    /// A hub model whose download was not finished.
    #[error("{id} is incomplete in the cache: {problem} in {}", path.display())]
    Incomplete {
        /// The hub id.
        id: String,
        /// The snapshot folder.
        path: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// A hub id or revision that could not be one, or that would leave the cache.
    #[error("{name:?} is not a valid {what}")]
    InvalidName {
        /// The name as given.
        name: String,
        /// What it should have been: a hub id, a revision.
        what: &'static str,
    },
    /// The model that comes with Pippin was not found.
    #[error("the shipped model pippin-nano was not found; looked in {}", list(searched))]
    NoShippedModel {
        /// The folders that were tried, in order.
        searched: Vec<PathBuf>,
    },
    /// No home folder is known, so there is no default cache.
    #[error("the Hugging Face cache could not be located: no home folder is set")]
    NoCache,
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl HubError {
    /// What the user can do about the error, when there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownModel { suggestions, .. } => match suggestions.as_slice() {
                [] => "a model is a folder, a hub id such as mlx-community/Qwen3-4B-4bit, or an alias such as qwen3-4b"
                    .to_owned(),
                [one] => format!("did you mean {one}?"),
                several => format!("did you mean one of {}?", several.join(", ")),
            },
            Self::NoFolder { .. } => "check the spelling of the path".to_owned(),
            Self::NotAModel { .. } => {
                "a model folder holds config.json and *.safetensors files in MLX or Hugging Face form".to_owned()
            }
            Self::NotCached { id, revision, .. } => {
                let revision =
                    if revision == "main" { String::new() } else { format!(" --revision {revision}") };
                format!("download it first: hf download {id}{revision}")
            }
            Self::Incomplete { id, .. } => format!("the download was interrupted; repeat it: hf download {id}"),
            Self::InvalidName { .. } => "a hub id is ORGANISATION/NAME or ORGANISATION/NAME@REVISION".to_owned(),
            Self::NoShippedModel { .. } => {
                "set PIPPIN_NANO_DIR to the folder models/pippin-nano-4bit of the repository, or name another model"
                    .to_owned()
            }
            Self::NoCache => "set HF_HOME or HF_HUB_CACHE".to_owned(),
            Self::Read { .. } => return None,
        })
    }
}

/// The result of looking for a model.
pub type Result<T, E = HubError> = std::result::Result<T, E>;
