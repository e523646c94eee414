use std::path::PathBuf;

use serde::Deserialize;

/// Where a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelLocation {
    /// A repository of the hub, found through the local cache.
    Hub {
        /// `organisation/name`.
        id: String,
        /// Branch, tag or commit.
        revision: String,
    },
    /// A folder of this machine.
    Directory(PathBuf),
    /// The model that comes with Pippin.
    Shipped,
}

/// What to load: where a model is, and what its own files do not say about it.
///
/// ```
/// use pippin_hub::ModelConfiguration;
///
/// let qwen = ModelConfiguration::hub("mlx-community/Qwen3-4B-4bit").with_revision("main");
/// let local = ModelConfiguration::directory("models/my-model").with_stop_strings(["\nUser:"]);
/// assert_eq!(qwen.name(), "mlx-community/Qwen3-4B-4bit");
/// assert_eq!(local.name(), "models/my-model");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelConfiguration {
    /// Where the model is.
    pub location: ModelLocation,
    /// Short names under which the registry knows it.
    pub aliases: Vec<String>,
    /// Tokens, besides those its files name, that end an answer.
    pub extra_eos_tokens: Vec<String>,
    /// Texts that end an answer and are not part of it.
    pub stop_strings: Vec<String>,
}

impl ModelConfiguration {
    /// The name of the shipped model.
    pub const NANO: &str = "pippin-nano";

    /// A model of the hub, at its main revision.
    pub fn hub(id: impl Into<String>) -> Self {
        Self::at(ModelLocation::Hub { id: id.into(), revision: "main".to_owned() })
    }

    /// A model in a folder.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self::at(ModelLocation::Directory(path.into()))
    }

    /// The model that comes with Pippin.
    pub fn nano() -> Self {
        let mut configuration = Self::at(ModelLocation::Shipped);
        configuration.aliases = vec!["nano".to_owned(), "pippin-nano-4bit".to_owned()];
        configuration
    }

    fn at(location: ModelLocation) -> Self {
        Self { location, aliases: Vec::new(), extra_eos_tokens: Vec::new(), stop_strings: Vec::new() }
    }

    /// The same model at another branch, tag or commit. Only hub models have revisions; for others this does nothing.
    #[must_use]
    pub fn with_revision(mut self, wanted: impl Into<String>) -> Self {
        if let ModelLocation::Hub { revision, .. } = &mut self.location {
            *revision = wanted.into();
        }
        self
    }

    /// The same model with other stop strings.
    #[must_use]
    pub fn with_stop_strings<S: Into<String>>(mut self, strings: impl IntoIterator<Item = S>) -> Self {
        self.stop_strings = strings.into_iter().map(Into::into).collect();
        self
    }

    /// The same model with other extra end-of-sequence tokens.
    #[must_use]
    pub fn with_extra_eos_tokens<S: Into<String>>(mut self, tokens: impl IntoIterator<Item = S>) -> Self {
        self.extra_eos_tokens = tokens.into_iter().map(Into::into).collect();
        self
    }

    /// The name to show: the hub id, the path, or `pippin-nano`.
    pub fn name(&self) -> String {
        match &self.location {
            ModelLocation::Hub { id, .. } => id.clone(),
            ModelLocation::Directory(path) => path.display().to_string(),
            ModelLocation::Shipped => Self::NANO.to_owned(),
        }
    }
}

/// An entry of `registry.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    id: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    extra_eos_tokens: Vec<String>,
    #[serde(default)]
    stop_strings: Vec<String>,
}

impl From<Entry> for ModelConfiguration {
    fn from(entry: Entry) -> Self {
        Self {
            aliases: entry.aliases,
            extra_eos_tokens: entry.extra_eos_tokens,
            stop_strings: entry.stop_strings,
            ..Self::hub(entry.id)
        }
    }
}
