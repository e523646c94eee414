use std::path::PathBuf;

use crate::resolve::is_gguf_file;

/// What can go wrong when a model is looked for, downloaded, checked or removed.
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
    #[error("there is no {} {}", if is_gguf_file(path) { "file" } else { "folder" }, path.display())]
    NoFolder {
        /// The path.
        path: PathBuf,
    },
    /// A path to a file that is no model, nor in the folder of one.
    #[error("{} is a file, and a model is a folder: {problem}", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
        /// What kind of file it is.
        problem: &'static str,
    },
    /// The address of something else than a model of the hub.
    #[error("{address:?} is not the address of a model: {problem}")]
    Address {
        /// The address as given, shortened.
        address: String,
        /// What it is instead.
        problem: String,
    },
    /// A folder that holds no model.
    #[error("{} holds no whole model: {problem}", path.display())]
    NotAModel {
        /// The folder.
        path: PathBuf,
        /// What it lacks.
        problem: String,
    },
    /// Of a model that has several quantizations as GGUF files it is not clear which one is meant, or there is none such.
    #[error("{model}: {problem}")]
    Quantization {
        /// The hub id, or the folder.
        model: String,
        /// What there is instead.
        problem: String,
    },
    /// A hub model of which the cache holds nothing, or not this revision.
    #[error(
        "{} (revision {revision}) is not in the Hugging Face cache at {}", named(id, quantization), cache.display()
    )]
    NotCached {
        /// The hub id.
        id: String,
        /// Which of its quantizations, if it has several. Behind a pointer, so that results stay small.
        quantization: Option<std::sync::Arc<String>>,
        /// The revision that was asked for.
        revision: String,
        /// The cache that was searched.
        cache: PathBuf,
        /// A commit of the model that the cache does hold, if there is one. Behind a pointer, so that results stay small.
        there: Option<std::sync::Arc<String>>,
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
    /// The hub could not be reached, or the connection broke.
    #[error("cannot reach {host}: {reason}")]
    Network {
        /// The server.
        host: String,
        /// What happened.
        reason: String,
        /// Whether there was a connection, which then broke.
        is_connected: bool,
    },
    /// The hub answered with a status that means failure.
    #[error("{url} answered with status {status}{}", after_colon(message))]
    Status {
        /// The address, without its query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server says about it; may be empty.
        message: String,
    },
    /// The hub wants fewer requests.
    #[error("{host} wants fewer requests (status {status})")]
    RateLimited {
        /// The server.
        host: String,
        /// 429; or 503 with the time when it will be back.
        status: u16,
        /// How long it wants to be left alone.
        retry_after: Option<std::time::Duration>,
    },
    /// An answer that makes no sense.
    #[error("{url} gave an answer that cannot be used: {problem}")]
    Protocol {
        /// The address, without its query.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The hub has no such model, or does not show it to everybody.
    #[error("the hub has no model {id}, or it is private")]
    NotOnHub {
        /// The hub id.
        id: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The model has no such branch, tag or commit.
    #[error("{id} has no revision {revision:?}")]
    NoRevision {
        /// The hub id.
        id: String,
        /// The revision that was asked for.
        revision: String,
    },
    /// The model has no such file.
    #[error("{id} has no file {path:?}")]
    NoFile {
        /// The hub id.
        id: String,
        /// The file.
        path: String,
    },
    /// The model's authors want their licence to be accepted first.
    #[error("{id} is gated: its licence has to be accepted first")]
    Gated {
        /// The hub id.
        id: String,
        /// Where it is accepted.
        page: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The hub does not know the token.
    #[error("the hub refuses the token")]
    BadToken,
    /// The network is needed, and switched off.
    #[error("{what} needs the network, and HF_HUB_OFFLINE is set")]
    Offline {
        /// What was to be done.
        what: String,
    },
    /// `HF_ENDPOINT` or `HF_TOKEN` has a value that cannot be used.
    #[error("{variable} has a value that cannot be used: {problem}")]
    Setting {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A file name that would leave the folder it belongs in, or that some systems cannot have.
    #[error("{id} names a file {path:?}, which is refused: {problem}")]
    UnsafePath {
        /// The hub id.
        id: String,
        /// The name.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A link in the cache that leads out of it.
    #[error("{} is a link to {}, outside of the model's folder in the cache", path.display(), target.display())]
    ForeignLink {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Something is larger than it may be.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The hub's model has no weights that Pippin could load.
    #[error("{id} has nothing that can be loaded: {problem}")]
    NoWeights {
        /// The hub id.
        id: String,
        /// What is missing.
        problem: String,
    },
    /// What was downloaded is not what the hub announced.
    #[error("{file} has {what} {found}, but the hub announced {expected}")]
    Mismatch {
        /// The file.
        file: String,
        /// What differs: the SHA-256, the git hash, the size.
        what: &'static str,
        /// What the hub says.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The disk is too full.
    #[error(
        "not enough space on the disk of {}: {} are needed, {} are free",
        path.display(), in_units(*needed), in_units(*available)
    )]
    NoSpace {
        /// The folder.
        path: PathBuf,
        /// Bytes to be written.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The model is loaded by some process, or being downloaded.
    #[error("{id} is in use by another process, or by this one")]
    InUse {
        /// The hub id.
        id: String,
    },
    /// A model is not what it was when its removal was planned.
    #[error("{id} has changed in the meantime: {what}; nothing was removed")]
    Changed {
        /// The hub id.
        id: String,
        /// What is different.
        what: String,
    },
    /// The file of the user's models is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    ModelsFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// An error that was met before.
    #[error(transparent)]
    Shared(std::sync::Arc<HubError>),
    /// The caller wanted it so.
    #[error("cancelled")]
    Cancelled,
}

/// A number of bytes for people.
pub(crate) fn in_units(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} bytes") } else { format!("{value:.1} {}", UNITS[unit]) }
}

fn after_colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
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
            Self::NotAFolder { .. } => {
                "give the folder that holds config.json and model*.safetensors files; pippin search NAME finds versions of a \
                 model in that form"
                    .to_owned()
            }
            Self::Address { .. } => {
                "give ORGANISATION/NAME, or the address of a model's page; HF_ENDPOINT names another server".to_owned()
            }
            Self::Quantization { .. } => {
                "a quantization is named behind a colon, as in ORGANISATION/NAME:Q4_K_M; in a folder, give the path of its file"
                    .to_owned()
            }
            Self::NotAModel { problem, .. } if problem.starts_with("no \"") => {
                "the model is incomplete: complete the folder, or download the model again".to_owned()
            }
            Self::NotAModel { .. } => {
                "a model folder holds config.json and model*.safetensors files in MLX or Hugging Face form".to_owned()
            }
            Self::NotCached { id, quantization, revision, there, .. } => {
                let id = named(id, quantization);
                let revision =
                    if revision == "main" { String::new() } else { format!(" --revision {revision}") };
                let there = match there {
                    None => String::new(),
                    Some(commit) => format!("; what is here is {id}@{commit}"),
                };
                format!("download it first: pippin pull {id}{revision}{there}")
            }
            Self::Incomplete { id, .. } => format!("download what is missing: pippin pull {id}"),
            Self::InvalidName { .. } => {
                "a hub id is ORGANISATION/NAME, ORGANISATION/NAME@REVISION or ORGANISATION/NAME:QUANTIZATION".to_owned()
            },
            Self::NoShippedModel { .. } => {
                "set PIPPIN_NANO_DIR to the folder models/pippin-nano-4bit of the repository, or name another model"
                    .to_owned()
            }
            Self::ModelsFile { .. } => {
                "correct the file; `[[model]]` begins a model, which has an id or a path, and aliases".to_owned()
            }
            Self::Shared(error) => return error.hint(),
            Self::NoCache => "set HF_HOME or HF_HUB_CACHE".to_owned(),
            Self::Network { .. } => {
                "check the connection and the proxy variables; HF_ENDPOINT names another server; what was downloaded is kept"
                    .to_owned()
            }
            Self::Status { status: 500.., .. } => "the server has a problem; try again later".to_owned(),
            Self::RateLimited { .. } => "wait a little; with a token in HF_TOKEN the hub allows more".to_owned(),
            Self::NotOnHub { has_token: false, .. } => {
                "check the spelling; for a private model, put a token into HF_TOKEN".to_owned()
            }
            Self::NotOnHub { .. } => "check the spelling, and that the token may read the model".to_owned(),
            Self::NoRevision { .. } => "leave out --revision, or name a branch, tag or commit of the model".to_owned(),
            Self::Gated { page, has_token, .. } => {
                let token = if *has_token { "" } else { ", then put a token of that account into HF_TOKEN" };
                format!("accept the licence at {page}{token}")
            }
            Self::BadToken => "get a token from the hub's settings page and put it into HF_TOKEN".to_owned(),
            Self::Offline { .. } => "unset HF_HUB_OFFLINE, or hub.offline in the configuration file".to_owned(),
            Self::Setting { variable, .. } => format!("correct {variable}, or unset it"),
            Self::UnsafePath { .. } => "do not use this model; report it to the hub".to_owned(),
            Self::ForeignLink { .. } => {
                "downloads make no such links: remove the model from the cache, and download it again; what you link yourself \
                 belongs into a folder outside of the cache, or is the model's folder blobs as a whole"
                    .to_owned()
            }
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                "give the current user permission to this path, or set HF_HUB_CACHE to another cache".to_owned()
            }
            Self::Write { source, .. }
                if matches!(
                    source.kind(),
                    std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                "give the current user permission to write there, or set HF_HUB_CACHE to another folder".to_owned()
            }
            Self::NoWeights { .. } => {
                "look for a version with *.safetensors files: pippin search NAME".to_owned()
            }
            Self::Mismatch { .. } => "download it again; if that does not help, the server is at fault".to_owned(),
            Self::NoSpace { .. } => {
                "make room (pippin list, pippin rm, pippin prune), or set HF_HUB_CACHE to a folder on another disk"
                    .to_owned()
            }
            Self::Changed { .. } => "see pippin list, and give the command again".to_owned(),
            Self::InUse { .. } => "end the program that uses it first".to_owned(),
            Self::Read { .. }
            | Self::Write { .. }
            | Self::Status { .. }
            | Self::Protocol { .. }
            | Self::NoFile { .. }
            | Self::TooLarge { .. }
            | Self::Cancelled => return None,
        })
    }
}

/// The result of looking for a model.
pub type Result<T, E = HubError> = std::result::Result<T, E>;

/// A model's name, with the quantization that is meant.
fn named(id: &str, quantization: &Option<std::sync::Arc<String>>) -> String {
    match quantization {
        Some(quantization) => format!("{id}:{quantization}"),
        None => id.to_owned(),
    }
}
