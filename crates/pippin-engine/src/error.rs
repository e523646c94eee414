use std::sync::Arc;

use pippin_hub::HubError;
use pippin_models::ModelError;
use pippin_text::TextError;

use crate::Device;

/// What can go wrong when a model is loaded or used.
///
/// The message says what was wrong and where; [`hint`](Self::hint) says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The model was not found.
    #[error(transparent)]
    Hub(#[from] HubError),
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
    /// A token id that the model does not know.
    #[error("token id {token} is outside the model's vocabulary of {vocab} tokens")]
    TokenOutOfRange {
        /// The id.
        token: u32,
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
    /// A device that this build of Pippin cannot use.
    #[error("this build of Pippin has no {0} backend")]
    DeviceUnavailable(Device),
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
    /// The operating system refused a thread.
    #[error("cannot start the model's thread: {0}")]
    Thread(std::io::Error),
}

impl EngineError {
    pub(crate) fn parameter(field: &'static str, value: impl ToString, expected: &'static str) -> Self {
        Self::Parameter { field, value: value.to_string(), expected }
    }

    /// What the user can do about the error, when there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Hub(error) => return error.hint(),
            Self::Model(error) => return error.hint(),
            Self::PromptTooLong { .. } => {
                "shorten the prompt or the conversation, or load the model with a larger context".to_owned()
            }
            Self::ContextTooLong { maximum, .. } => format!("ask for {maximum} or less"),
            Self::EmptyPrompt => "give at least one token of text".to_owned(),
            Self::UnknownDevice(_) => format!("devices are {}", Device::NAMES.join(", ")),
            Self::DeviceUnavailable(_) => "use --device cpu, or auto".to_owned(),
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
            Self::Parameter { .. } | Self::Text(_) | Self::TokenOutOfRange { .. } | Self::Thread(_) => return None,
        })
    }
}

impl From<ModelError> for EngineError {
    fn from(error: ModelError) -> Self {
        Self::Model(Arc::new(error))
    }
}

/// The result of an engine operation.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;
