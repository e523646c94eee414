//! Exit codes.

use std::process::ExitCode;

use pippin::EngineError;
use pippin::hub::HubError;
use pippin::models::ModelError;
use pippin::tensor::TensorError;
use pippin::text::TextError;
use pippin_server::ServerError;

/// How the program ends. Scripts rely on the numbers: they never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Success,
    Failure,
    Usage,
    ModelNotFound,
    ModelInvalid,
    BadInput,
    DeviceUnavailable,
    OutOfMemory,
    DownloadFailed,
    Interrupted,
}

impl Exit {
    /// All of them, with what the help says.
    const ALL: [(Self, &'static str); 10] = [
        (Self::Success, "success"),
        (Self::Failure, "generation failed, or output could not be written"),
        (Self::Usage, "wrong usage: an unknown flag, a value out of its range"),
        (Self::ModelNotFound, "the model is not on this machine"),
        (
            Self::ModelInvalid,
            "the model's files are damaged, contradict each other, or are of an unsupported kind",
        ),
        (Self::BadInput, "the input was refused: prompt too long, chat template error, unreadable file"),
        (Self::DeviceUnavailable, "the device is not available, or cannot run this model"),
        (Self::OutOfMemory, "out of memory"),
        (
            Self::DownloadFailed,
            "the hub cannot be reached or sends nonsense, the disk is full, or the model is in use",
        ),
        (Self::Interrupted, "interrupted by Ctrl-C"),
    ];

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::ModelNotFound => 3,
            Self::ModelInvalid => 4,
            Self::BadInput => 5,
            Self::DeviceUnavailable => 6,
            Self::OutOfMemory => 7,
            Self::DownloadFailed => 8,
            Self::Interrupted => 130,
        }
    }

    /// The list as a section of the help.
    pub(crate) fn help() -> String {
        let mut text = String::from("Exit codes:\n");
        for (exit, meaning) in Self::ALL {
            text.push_str(&format!("  {:>3}  {meaning}\n", exit.code()));
        }
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl From<&EngineError> for Exit {
    fn from(error: &EngineError) -> Self {
        match error {
            EngineError::Hub(error) => error.into(),
            EngineError::Model(error) => (&**error).into(),
            EngineError::Load(error) => (&**error).into(),
            EngineError::OverBudget { .. } => Self::OutOfMemory,
            EngineError::LoadCancelled { .. } => Self::Interrupted,
            EngineError::Text(error) => error.into(),
            EngineError::Parameter { .. }
            | EngineError::PrefixCache { .. }
            | EngineError::ContextTooLong { .. }
            | EngineError::UnknownDevice(_)
            | EngineError::Config(_) => Self::Usage,
            EngineError::EmptyPrompt
            | EngineError::PromptTooLong { .. }
            | EngineError::PromptTooLarge { .. }
            | EngineError::TokenOutOfRange { .. }
            | EngineError::NoChatTemplate { .. }
            | EngineError::Grammar(_) => Self::BadInput,
            EngineError::Draft { .. } => Self::ModelInvalid,
            EngineError::DeviceUnavailable(_) | EngineError::DeviceProblem { .. } => Self::DeviceUnavailable,
            _ => Self::Failure,
        }
    }
}

impl From<&ServerError> for Exit {
    fn from(error: &ServerError) -> Self {
        match error {
            ServerError::Unprotected { .. } | ServerError::Parameters(_) | ServerError::Origin { .. } => {
                Self::Usage
            }
            ServerError::KeysFile { .. } | ServerError::NoKeys { .. } | ServerError::Key { .. } => {
                Self::BadInput
            }
            _ => Self::Failure,
        }
    }
}

impl From<&HubError> for Exit {
    fn from(error: &HubError) -> Self {
        match error {
            HubError::Shared(error) => Self::from(&**error),
            HubError::ModelsFile { .. } => Self::Usage,
            HubError::Setting { .. } => Self::Usage,
            HubError::NoWeights { .. } | HubError::UnsafePath { .. } | HubError::ForeignLink { .. } => {
                Self::ModelInvalid
            }
            HubError::Network { .. }
            | HubError::Status { .. }
            | HubError::RateLimited { .. }
            | HubError::Protocol { .. }
            | HubError::BadToken
            | HubError::Offline { .. }
            | HubError::TooLarge { .. }
            | HubError::Mismatch { .. }
            | HubError::NoFile { .. }
            | HubError::NoSpace { .. }
            | HubError::Write { .. }
            | HubError::InUse { .. }
            | HubError::Changed { .. }
            | HubError::Cancelled => Self::DownloadFailed,
            HubError::NotAModel { .. } | HubError::Incomplete { .. } | HubError::Read { .. } => {
                Self::ModelInvalid
            }
            _ => Self::ModelNotFound,
        }
    }
}

impl From<&ModelError> for Exit {
    fn from(error: &ModelError) -> Self {
        match error {
            ModelError::Backend(TensorError::OutOfMemory { .. }) => Self::OutOfMemory,
            ModelError::Backend(TensorError::Unsupported { .. }) => Self::DeviceUnavailable,
            ModelError::Backend(TensorError::Device { .. } | TensorError::DeviceLost { .. })
            | ModelError::KvCache { .. } => Self::Failure,
            _ => Self::ModelInvalid,
        }
    }
}

impl From<&TextError> for Exit {
    fn from(error: &TextError) -> Self {
        match error {
            TextError::Missing { .. }
            | TextError::Io { .. }
            | TextError::TooLarge { .. }
            | TextError::Malformed { .. }
            | TextError::Field { .. }
            | TextError::InvalidTokenizer { .. }
            | TextError::InvalidVocabulary { .. }
            | TextError::Weights(..) => Self::ModelInvalid,
            TextError::Decode { .. } => Self::Failure,
            _ => Self::BadInput,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_documented() {
        let help = Exit::help();
        let mut codes: Vec<u8> = Exit::ALL.iter().map(|(exit, _)| exit.code()).collect();
        for code in &codes {
            assert!(help.contains(&format!(" {code}  ")), "{code}");
        }
        codes.dedup();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 130]);
    }

    #[test]
    fn errors_of_the_engine_have_codes() {
        let memory = TensorError::OutOfMemory { device: "cpu".to_owned(), bytes: 1, what: "the KV cache" };
        let kernel = TensorError::Unsupported { backend: "cpu", what: "this".to_owned() };
        let driver = TensorError::Device { device: "cuda:0".to_owned(), message: "gone".to_owned() };
        let shape = TensorError::shape("matmul", 1, 2);
        for (error, exit) in [
            (memory, Exit::OutOfMemory),
            (kernel, Exit::DeviceUnavailable),
            (driver, Exit::Failure),
            (shape, Exit::ModelInvalid),
        ] {
            assert_eq!(Exit::from(&EngineError::from(ModelError::from(error))), exit);
        }
        for (error, exit) in [
            (EngineError::from(HubError::NoCache), Exit::ModelNotFound),
            (
                HubError::NotAModel { path: "x".into(), problem: "no config.json".to_owned() }.into(),
                Exit::ModelInvalid,
            ),
            (EngineError::PromptTooLong { prompt: 2, context: 1 }, Exit::BadInput),
            (EngineError::ContextTooLong { requested: 2, maximum: 1 }, Exit::Usage),
            (EngineError::ModelThreadDied { message: "x".to_owned() }, Exit::Failure),
            (TextError::ReservedVariable { name: "messages".to_owned() }.into(), Exit::BadInput),
        ] {
            assert_eq!(Exit::from(&error), exit, "{error}");
        }
    }
}
