//! Where values come from, and what can be wrong with them.

use std::fmt;
use std::path::PathBuf;

use super::setting::Setting;

/// Where a value came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConfigSource {
    /// Nothing else was said.
    #[default]
    Default,
    /// A configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the key, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(&'static str),
    /// A flag of the command line, or what a program calls its own setting.
    Flag(String),
}

impl ConfigSource {
    /// The line, of what stands in a file.
    pub(super) fn line(&self) -> Option<usize> {
        match self {
            Self::File { line, .. } => Some(*line),
            _ => None,
        }
    }
}

impl fmt::Display for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        reason: String,
        /// Whether `PIPPIN_CONFIG` named it.
        named: bool,
    },
    /// The file is not TOML.
    #[error("{}:{line}: not valid TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A key that has no meaning.
    #[error("{origin}: there is no setting {key:?}")]
    UnknownKey {
        /// Where it stands.
        origin: ConfigSource,
        /// The key, with the tables it is in.
        key: String,
        /// The key that is spelled nearly like it.
        suggestion: Option<String>,
    },
    /// A value that the key cannot have.
    #[error("{} is {value}, but must be {expected}", place(origin, key))]
    Value {
        /// Where it stands.
        origin: ConfigSource,
        /// The key, with the tables it is in.
        key: String,
        /// The value as given.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// Settings of one model in two places.
    #[error("{origin}: models.{model:?} is the same model as models.{other:?}")]
    SameModel {
        /// Where the later one stands.
        origin: ConfigSource,
        /// Its name there.
        model: String,
        /// The name that the model has in the other place.
        other: String,
    },
}

fn place(origin: &ConfigSource, key: &str) -> String {
    match origin {
        ConfigSource::File { .. } => format!("{origin}: {key}"),
        ConfigSource::Default => key.to_owned(),
        ConfigSource::Environment(_) | ConfigSource::Flag(_) => origin.to_string(),
    }
}

impl ConfigError {
    /// What the user can do about the error, when there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { named: true, .. } => {
                Some("PIPPIN_CONFIG names this file: correct the variable, or unset it".to_owned())
            }
            Self::UnknownKey { suggestion: Some(key), .. } => Some(format!("did you mean {key}?")),
            Self::UnknownKey { key, .. } if key.starts_with("models.") => {
                Some("a model's settings are keep_alive, context and draft_model".to_owned())
            }
            Self::UnknownKey { .. } => Some(format!(
                "the settings are {}",
                Setting::all().iter().map(|setting| setting.key).collect::<Vec<_>>().join(", ")
            )),
            Self::SameModel { .. } => Some("put its settings into one table".to_owned()),
            Self::Value { key, .. } if key == "context" || key == "threads" => {
                Some("leave it out to have it chosen".to_owned())
            }
            _ => None,
        }
    }
}
