use std::path::PathBuf;
use std::sync::Arc;

use pippin_grammar::GrammarError;
use pippin_hub::HubError;
use pippin_models::ModelError;
use pippin_sampling::ParameterError;
use pippin_tensor::TensorError;
use pippin_text::TextError;

use crate::estimate::Bytes;
use crate::{ConfigError, Device, FinishReason, ModelMemory};

/// What can go wrong when a model is loaded or used.
///
/// The message says what was wrong and where; [`hint`](Self::hint) says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The model was not found.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model could not be loaded, or a step of it failed.
    #[error(transparent)]
    Model(Arc<ModelError>),
    /// Tokenizer or chat template.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A parameter is outside its range.
    #[error("{field} is {value}, but must be {expected}")]
    Parameter {
        /// The field of [`GenerateParameters`](crate::GenerateParameters) or [`LoadOptions`](crate::LoadOptions).
        field: &'static str,
        /// The value that was refused.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// The constraint on an answer cannot be followed.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    /// The prompt has no tokens.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt leaves no room in the context.
    #[error(
        "the prompt has {prompt} tokens, but the context holds {context}, of which the answer needs at least one"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// The prompt has more bytes than the context could hold of the longest tokens.
    #[error("the prompt has {bytes} bytes, at least {least} tokens, but the context holds {context}")]
    PromptTooLarge {
        /// Bytes of the prompt.
        bytes: usize,
        /// How many tokens they are at least.
        least: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// A token id that the model does not know.
    #[error("token id {token}{} is outside the model's vocabulary of {vocab} tokens", quoted(.text))]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// The token as the tokenizer has it, which may have more of them than the model.
        text: Option<String>,
        /// The size of the vocabulary.
        vocab: usize,
    },
    /// More context was asked for than the model was made for.
    #[error("a context of {requested} tokens was asked for, but the model was made for {maximum}")]
    ContextTooLong {
        /// What was asked for.
        requested: usize,
        /// What the model allows.
        maximum: usize,
    },
    /// A name that is no device.
    #[error("there is no device {0:?}")]
    UnknownDevice(String),
    /// A model that cannot guess for another.
    #[error("{} cannot be the draft model: {problem}", draft.display())]
    Draft {
        /// The folder of the draft model.
        draft: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A device that this build of Pippin cannot use.
    #[error("this build of Pippin has no {0} backend")]
    DeviceUnavailable(Device),
    /// The device cannot be used on this machine.
    #[error("the {device} backend cannot be used here: {problem}")]
    DeviceProblem {
        /// The device.
        device: Device,
        /// What is missing, or fails.
        problem: String,
    },
    /// The model has no chat template.
    #[error("{model} has no chat template")]
    NoChatTemplate {
        /// The model's name.
        model: String,
    },
    /// The model computed something that is not a number.
    #[error("the model computed logits without a finite maximum after {tokens} tokens")]
    NonFiniteLogits {
        /// Length of the sequence, prompt included.
        tokens: usize,
    },
    /// The model's thread has ended by a panic. Every request to this model fails from then on.
    #[error("the model's thread has died: {message}")]
    ModelThreadDied {
        /// The panic's message.
        message: String,
    },
    /// The model's device has failed for good, and the model with it. Every request to this model fails from then on.
    #[error("the device of the model is lost: {message}")]
    DeviceLost {
        /// What the device or its driver says.
        message: String,
    },
    /// A model that a cache was asked for could not be loaded. Everyone who waited for the load gets the same error.
    #[error(transparent)]
    Load(Arc<EngineError>),
    /// Loading was given up, because nobody waited for it any more.
    #[error("loading {model} was cancelled")]
    LoadCancelled {
        /// The model's name.
        model: String,
    },
    /// A model does not fit the memory budget, even without the models that could be unloaded.
    #[error(
        "{model} needs {needed}, but the memory budget is {}{}{}",
        Bytes(*budget),
        of_device(*device),
        held_by(held)
    )]
    OverBudget {
        /// The model's name.
        model: String,
        /// What it needs.
        needed: Box<ModelMemory>,
        /// The budget in bytes.
        budget: u64,
        /// The device whose memory that is a part of.
        device: Device,
        /// The models that hold a part of it and cannot be unloaded.
        held: Vec<HeldModel>,
    },
    /// As many models as allowed are loaded, and none of them can be unloaded.
    #[error("{model} cannot be loaded: no more than {limit} models may be loaded at a time{}", held_by(held))]
    TooManyModels {
        /// The model's name.
        model: String,
        /// How many are allowed.
        limit: usize,
        /// The models that are loaded and cannot be unloaded.
        held: Vec<HeldModel>,
    },
    /// A model that is being loaded or used cannot be unloaded.
    #[error("{model} is in use")]
    ModelInUse {
        /// The model's name.
        model: String,
    },
    /// A conversation was to go on while an answer to it was being written.
    #[error("the conversation cannot go on: an answer to it is still being written")]
    SessionBusy,
    /// A model has called tools as often in a row as it may.
    #[error("the model has called tools {limit} times in a row and not answered")]
    TooManyToolRounds {
        /// How often it may.
        limit: usize,
    },
    /// An answer that was to be a value ended before it was complete.
    #[error(
        "the answer is no complete {name}: it was cut after {tokens} tokens ({}): {}",
        cut(reason),
        shortened(text)
    )]
    AnswerCut {
        /// The type that the answer was to be.
        name: &'static str,
        /// What has cut it.
        reason: FinishReason,
        /// Tokens of the answer, thoughts included.
        tokens: usize,
        /// The answer without its thoughts.
        text: String,
    },
    /// An answer that was to be a value is none.
    #[error("the answer is no {name}: {problem}: {}", shortened(text))]
    AnswerType {
        /// The type that the answer was to be.
        name: &'static str,
        /// Why it is none.
        problem: String,
        /// The answer without its thoughts.
        text: String,
    },
    /// As many requests wait for the model as may.
    #[error("the queue is full: {waiting} requests are waiting already")]
    QueueFull {
        /// How many may wait.
        waiting: usize,
    },
    /// The folder of the prefixes on disk cannot be used.
    #[error("cannot keep prefixes in {}: {source}", path.display())]
    PrefixCache {
        /// The folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file of a conversation cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    SessionFile {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file that holds no conversation, or one of a form that this version does not know.
    #[error("{}: {problem}", path.display())]
    NoSession {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// Scoring was cancelled before it was done.
    #[error("scoring was cancelled")]
    ScoreCancelled,
    /// The operating system refused a thread.
    #[error("cannot start the model's thread: {0}")]
    Thread(std::io::Error),
}

/// A model that holds memory and cannot be unloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldModel {
    /// Its name.
    pub model: String,
    /// What it holds, in bytes.
    pub bytes: u64,
    /// Why it cannot be unloaded: `in use`, `loading`, `pinned`.
    pub reason: &'static str,
}

/// Whose memory a budget is, where that is not the machine's.
fn of_device(device: Device) -> String {
    match device {
        Device::Cpu | Device::Auto => String::new(),
        device => format!(" of the memory of {device}"),
    }
}

fn held_by(held: &[HeldModel]) -> String {
    if held.is_empty() {
        return String::new();
    }
    let total = held.iter().fold(0_u64, |sum, held| sum.saturating_add(held.bytes));
    let one =
        |HeldModel { model, bytes, reason }: &HeldModel| format!("{model} ({}, {reason})", Bytes(*bytes));
    let list: Vec<String> = held.iter().map(one).collect();
    format!("; {} are held by {}", Bytes(total), list.join(", "))
}

impl EngineError {
    /// The error itself, where this one only passes it on ([`Load`](Self::Load)).
    #[must_use]
    pub fn root(&self) -> &Self {
        match self {
            Self::Load(error) => error.root(),
            error => error,
        }
    }

    /// Whether the device had no memory left.
    pub fn is_out_of_memory(&self) -> bool {
        match self.root() {
            Self::Model(error) => matches!(**error, ModelError::Backend(TensorError::OutOfMemory { .. })),
            _ => false,
        }
    }

    pub(crate) fn parameter(field: &'static str, value: impl ToString, expected: &'static str) -> Self {
        Self::Parameter { field, value: value.to_string(), expected }
    }

    /// What the user can do about the error, when there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Hub(error) => return error.hint(),
            Self::Config(error) => return error.hint(),
            Self::Model(error) => return error.hint(),
            Self::Grammar(error) => return error.hint().map(str::to_owned),
            Self::PromptTooLong { .. } | Self::PromptTooLarge { .. } => {
                "shorten the prompt or the conversation, or load the model with a larger context".to_owned()
            }
            Self::ContextTooLong { maximum, .. } => format!("ask for {maximum} or less"),
            Self::Load(error) => return error.hint(),
            Self::OverBudget { needed, budget, device, .. }
                if needed.total() > *budget && !matches!(device, Device::Cpu | Device::Auto) =>
            {
                "choose a smaller context (--context), fewer bits (a 4-bit model, --kv-cache int8), a smaller model, or the processor \
                 (--device cpu); the memory budget (--memory-budget, memory_budget) is what was free of the GPU's memory, or less"
                    .to_owned()
            }
            Self::OverBudget { needed, budget, .. } if needed.total() > *budget => {
                "choose a smaller context or a smaller model, or raise the memory budget (--memory-budget, memory_budget)".to_owned()
            }
            Self::OverBudget { .. } => {
                "try again when a model is free, choose a smaller context, or raise the memory budget (--memory-budget, memory_budget)"
                    .to_owned()
            }
            Self::TooManyModels { .. } => {
                "try again when a model is free, unpin one, or raise the number (max_loaded_models)".to_owned()
            }
            Self::ModelInUse { .. } => "try again when its requests have ended".to_owned(),
            Self::QueueFull { .. } => {
                "try again when some of them have ended, or let more wait (max_waiting)".to_owned()
            }
            Self::LoadCancelled { .. } | Self::ScoreCancelled => return None,
            Self::SessionBusy => {
                "read the answer's stream to its end or drop it; clone the session for a second answer beside it".to_owned()
            }
            Self::PrefixCache { .. } => {
                "name a folder that can be written to (--prefix-cache, prefix_cache), or none".to_owned()
            }
            Self::SessionFile { .. } | Self::NoSession { .. } => return None,
            Self::TooManyToolRounds { .. } => "allow more with ChatSession::with_max_tool_rounds".to_owned(),
            Self::AnswerCut { .. } => {
                "allow more with max_tokens (a thought counts, too), or bound the type's lists and texts".to_owned()
            }
            Self::AnswerType { .. } => {
                "say in the type's schema what it asks for (#[schemars(range(…), regex(…))]), and ask again".to_owned()
            }
            Self::EmptyPrompt => "give at least one token of text".to_owned(),
            Self::UnknownDevice(_) => {
                format!("devices are {}; cuda:1 is the second GPU", Device::NAMES.join(", "))
            }
            Self::Draft { .. } => {
                "give a smaller model of the same family without recurrent layers, or none; --prompt-lookup needs no second model"
                    .to_owned()
            }
            Self::DeviceUnavailable(_) | Self::DeviceProblem { .. } => "use --device cpu, or auto".to_owned(),
            Self::NoChatTemplate { .. } => {
                "use the raw mode, which takes the prompt as it stands (--raw; generate_text in the library)".to_owned()
            }
            Self::NonFiniteLogits { .. } => {
                "the checkpoint is damaged, or overflows in this precision: try the exact numerics, or download it again"
                    .to_owned()
            }
            Self::ModelThreadDied { .. } => {
                "this is a bug in Pippin: please report it with the message; load the model again to go on".to_owned()
            }
            Self::DeviceLost { .. } => {
                "load the model again to go on; if that fails, start the program anew, and look at what nvidia-smi and the system's log say"
                    .to_owned()
            }
            Self::TokenOutOfRange { text: Some(_), .. } => {
                "the tokenizer has more tokens than the model: leave this one out".to_owned()
            }
            Self::Parameter { .. } | Self::Text(_) | Self::TokenOutOfRange { .. } | Self::Thread(_) => return None,
        })
    }
}

/// What has cut an answer, as the parameter that did.
fn cut(reason: &FinishReason) -> String {
    match reason {
        FinishReason::Length => "max_tokens, or the end of the context".to_owned(),
        FinishReason::TimeLimit => "max_time".to_owned(),
        FinishReason::StopString(text) => format!("the stop string {text:?}"),
        reason => reason.to_string(),
    }
}

/// A text for a message: of a long one, its end, where it broke off.
fn shortened(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().rev().nth(MOST) {
        Some((at, char)) => format!("…{:?}", &text[at + char.len_utf8()..]),
        None => format!("{text:?}"),
    }
}

fn quoted(token: &Option<String>) -> String {
    token.as_ref().map_or_else(String::new, |token| format!(" ({token:?})"))
}

impl From<ParameterError> for EngineError {
    fn from(ParameterError { field, value, expected }: ParameterError) -> Self {
        Self::Parameter { field, value, expected }
    }
}

impl From<ModelError> for EngineError {
    fn from(error: ModelError) -> Self {
        Self::Model(Arc::new(error))
    }
}

/// The result of an engine operation.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;
