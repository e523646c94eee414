//! The one error type of this crate.

use std::path::PathBuf;

/// The result of every fallible function of this crate.
pub type Result<T, E = TextError> = std::result::Result<T, E>;

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A file that the model folder must contain is not there.
    #[error("{}: file not found; the model folder is incomplete or the path is wrong: {hint}", path.display())]
    Missing {
        /// The file that was looked for.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// A file exists but cannot be read.
    #[error("{}: cannot read the file: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file is larger than any honest file of its kind.
    #[error("{}: the file has {size} bytes, at most {limit} are accepted; download the model again", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The largest size accepted.
        limit: u64,
    },
    /// A file is not the JSON, or not the UTF-8 text, that it must be.
    #[error("{}: {problem}; the file is damaged: download the model again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column where they are known.
        problem: String,
    },
    /// A field of a configuration file has a value it cannot have.
    #[error("{}: field `{field}`: {problem}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, with dots for nesting.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// `tokenizer.json` is JSON but not a tokenizer that can be built.
    #[error("{}: not a usable tokenizer: {problem}; a fast tokenizer (`tokenizer.json`) of the Hugging Face format is needed", path.display())]
    InvalidTokenizer {
        /// The file.
        path: PathBuf,
        /// The reason given by the tokenizer library.
        problem: String,
    },
    /// A vocabulary in another form than `tokenizer.json` cannot be made into a tokenizer.
    #[error("{}: not a usable vocabulary: {problem}", path.display())]
    InvalidVocabulary {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
    /// What a file of weights says of its tokens is not what it must be.
    #[error(transparent)]
    Weights(#[from] pippin_weights::WeightsError),
    /// Text could not be turned into ids.
    #[error("cannot tokenize the text: {problem}")]
    Encode {
        /// The reason given by the tokenizer library.
        problem: String,
    },
    /// Ids could not be turned into text.
    #[error("cannot decode the token ids: {problem}")]
    Decode {
        /// The reason given by the tokenizer library.
        problem: String,
    },
    /// A token named by the caller is not in the vocabulary.
    #[error(
        "{token:?} is not a token of this tokenizer; give a token exactly as it stands in tokenizer.json, or its id"
    )]
    UnknownToken {
        /// The token as given.
        token: String,
    },
    /// A chat template does not parse, or uses something that does not exist.
    #[error("{origin}, line {line}: chat template error: {problem}")]
    Template {
        /// The file (and template name) the source came from.
        origin: String,
        /// The line in the template source, counted from 1.
        line: u32,
        /// What is wrong.
        problem: String,
    },
    /// A chat template refused the conversation through `raise_exception`.
    #[error("the chat template refuses this conversation: {message} ({origin}, line {line})")]
    TemplateRefused {
        /// The file (and template name) the source came from.
        origin: String,
        /// The line of the call, counted from 1.
        line: u32,
        /// The template's own words.
        message: String,
    },
    /// A chat template used more than it is allowed to.
    #[error(
        "{origin}, line {line}: the chat template exceeds the limit of {limit} {what}; it does not end or is not meant for chat"
    )]
    TemplateLimit {
        /// The file (and template name) the source came from.
        origin: String,
        /// The line being executed, counted from 1.
        line: u32,
        /// The resource: steps, bytes of output, ….
        what: &'static str,
        /// How much of it is allowed.
        limit: u64,
    },
    /// A template variable given by the caller has a name that the engine sets itself.
    #[error(
        "template variable `{name}` is set by the engine and cannot be overridden; rename or remove it from the chat template arguments"
    )]
    ReservedVariable {
        /// The variable.
        name: String,
    },
    /// A message of the conversation cannot be rendered.
    #[error("messages[{index}]{}{field} {problem}", if field.is_empty() { "" } else { "." })]
    InvalidMessage {
        /// Position in the conversation.
        index: usize,
        /// The offending field; empty when the message as a whole is meant.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// The conversation as a whole cannot be rendered.
    #[error("cannot render the conversation: {problem}")]
    InvalidConversation {
        /// What is wrong and what to do.
        problem: String,
    },
    /// A stop string cannot be used.
    #[error("stop string {index}: {problem}")]
    InvalidStopString {
        /// Position in the list given.
        index: usize,
        /// What is wrong.
        problem: String,
    },
}
