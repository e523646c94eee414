//! What ends a command early.

use std::error::Error as _;
use std::io;

use pippin::EngineError;
use pippin_server::ServerError;

use crate::exit::Exit;
use crate::output;

/// The result of a command.
pub(crate) type Result<T, E = CliError> = std::result::Result<T, E>;

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum CliError {
    /// The flags make no sense.
    Usage { message: String, hint: Option<String> },
    /// A file, a pipe or a prompt makes no sense.
    Input { message: String, hint: Option<String> },
    /// The model cannot be loaded, or cannot answer.
    Engine { error: Box<EngineError>, hint: Option<String> },
    /// Standard output does not take what is written to it.
    Output(io::Error),
    /// The user pressed Ctrl-C.
    Interrupted,
    /// The server cannot start.
    Server(ServerError),
    /// Everything has been said already.
    Reported(Exit),
}

impl CliError {
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::Input { message: message.into(), hint: None }
    }

    pub(crate) fn input_with_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Input { message: message.into(), hint: Some(hint.into()) }
    }

    /// Tells the user, and says how the program is to end.
    pub(crate) fn report(&self) -> Exit {
        match self {
            Self::Usage { message, hint } => {
                output::error(message, hint.as_deref());
                Exit::Usage
            }
            Self::Input { message, hint } => {
                output::error(message, hint.as_deref());
                Exit::BadInput
            }
            Self::Engine { error, hint } => {
                output::error(&describe(error), hint.as_deref());
                Exit::from(&**error)
            }
            // Whoever reads has what they wanted: `pippin … | head`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Self::Output(error) => {
                output::error(&format!("cannot write to standard output: {error}"), None);
                Exit::Failure
            }
            Self::Interrupted => Exit::Interrupted,
            Self::Server(error) => {
                output::error(&error.to_string(), error.hint());
                error.into()
            }
            Self::Reported(exit) => *exit,
        }
    }
}

impl From<EngineError> for CliError {
    fn from(error: EngineError) -> Self {
        let hint = error.hint();
        Self::Engine { error: Box::new(error), hint }
    }
}

impl From<ServerError> for CliError {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}

/// Only writing to standard output yields bare I/O errors; whatever is read says where from.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// An error with its causes, each said once: most messages of the libraries include their cause already.
pub(crate) fn describe(error: &EngineError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let thread = EngineError::Thread(io::Error::other("no more threads"));
        assert_eq!(describe(&thread).matches("no more threads").count(), 1);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let closed = CliError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(closed.report(), Exit::Success);
    }
}
