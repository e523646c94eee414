use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    /// A folder of this machine, or a GGUF file.
    Directory(PathBuf),
    /// The model that comes with Pippin.
    Shipped,
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ModelKind {
    /// It writes text.
    Llm,
    /// It writes text about images.
    Vlm,
    /// It turns text into vectors, or ranks texts.
    Embedder,
}

impl ModelKind {
    /// Its name: `llm`, `vlm`, `embedder`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Vlm => "vlm",
            Self::Embedder => "embedder",
        }
    }
}

/// The texts between which a model thinks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReasoningMarkers {
    /// Where thinking begins: `<think>`.
    pub start: String,
    /// Where it ends: `</think>`.
    pub end: String,
}

impl ReasoningMarkers {
    /// Markers.
    pub fn new(start: impl Into<String>, end: impl Into<String>) -> Self {
        Self { start: start.into(), end: end.into() }
    }
}

/// How the weights are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredWeights {
    /// Bits of a weight: 4, say; 16 or 32 in a dense model.
    pub bits: u8,
    /// Weights that share a scale; `None` in a dense model.
    pub group_size: Option<u32>,
    /// MLX's name for the quantization: `affine`, `mxfp4`, …; `None` in a dense model.
    pub mode: Option<String>,
}

impl StoredWeights {
    /// Weights of so many bits, in affine groups of `group_size` or dense.
    pub fn new(bits: u8, group_size: Option<u32>) -> Self {
        Self { bits, group_size, mode: group_size.map(|_| "affine".to_owned()) }
    }

    /// The bytes that so many weights take, scales and biases included.
    pub fn bytes(&self, parameters: u64) -> u64 {
        let extra = match (self.group_size, self.mode.as_deref()) {
            (None | Some(0), _) => 0.0,
            // One 8-bit scale for a group.
            (Some(group), Some("mxfp4" | "mxfp8" | "nvfp4")) => 8.0 / f64::from(group),
            // A scale and a bias of 16 bits.
            (Some(group), _) => 32.0 / f64::from(group),
        };
        (parameters as f64 * (f64::from(self.bits) + extra) / 8.0) as u64
    }
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
    /// Which quantization it is, of a hub model that has several as GGUF files: the name that its files have for it
    /// (`Q4_K_M`), or the name of a file.
    pub quantization: Option<String>,
    /// Short names under which the registry knows it.
    pub aliases: Vec<String>,
    /// Tokens, besides those its files name, that end an answer.
    pub extra_eos_tokens: Vec<String>,
    /// Texts that end an answer and are not part of it.
    pub stop_strings: Vec<String>,
    /// What it is for; a model of the hub may be for several things. Empty where that is not known.
    pub kinds: Vec<ModelKind>,
    /// The `model_type` of its `config.json`, where it is known without reading that.
    pub family: Option<String>,
    /// A prompt that shows what it does.
    pub default_prompt: Option<String>,
    /// The form in which it calls tools: `json`, `mistral`, `llama3`, ….
    pub tool_format: Option<String>,
    /// The texts between which it thinks.
    pub reasoning: Option<ReasoningMarkers>,
    /// The hub id or folder whose tokenizer it uses, where that is not its own.
    pub tokenizer: Option<String>,
    /// How its weights are stored.
    pub weights: Option<StoredWeights>,
    /// Number of weights.
    pub parameters: Option<u64>,
    /// Number of weights that one token uses, in a model with experts.
    pub active_parameters: Option<u64>,
    /// Bytes of keys and values for each token of the context, at 16 bits.
    pub kv_bytes_per_token: Option<u64>,
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
        Self {
            location,
            quantization: None,
            aliases: Vec::new(),
            extra_eos_tokens: Vec::new(),
            stop_strings: Vec::new(),
            kinds: Vec::new(),
            family: None,
            default_prompt: None,
            tool_format: None,
            reasoning: None,
            tokenizer: None,
            weights: None,
            parameters: None,
            active_parameters: None,
            kv_bytes_per_token: None,
        }
    }

    /// The same model at another branch, tag or commit. Only hub models have revisions; for others this does nothing.
    #[must_use]
    pub fn with_revision(mut self, wanted: impl Into<String>) -> Self {
        if let ModelLocation::Hub { revision, .. } = &mut self.location {
            *revision = wanted.into();
        }
        self
    }

    /// The same model in another quantization, of those that a hub model has as GGUF files.
    #[must_use]
    pub fn with_quantization(mut self, quantization: impl Into<Option<String>>) -> Self {
        self.quantization = quantization.into();
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

    /// The same model with other aliases.
    #[must_use]
    pub fn with_aliases<S: Into<String>>(mut self, aliases: impl IntoIterator<Item = S>) -> Self {
        self.aliases = aliases.into_iter().map(Into::into).collect();
        self
    }

    /// The bytes of its weights, where their number and form are known.
    pub fn weight_bytes(&self) -> Option<u64> {
        Some(self.weights.as_ref()?.bytes(self.parameters?))
    }

    /// The memory it needs with a context of so many tokens, where enough is known; an estimate.
    pub fn memory_need(&self, context: u64) -> Option<crate::MemoryEstimate> {
        crate::MemoryEstimate::of(self, context)
    }

    /// The name to show: the hub id, with the quantization if there is one, the path, or `pippin-nano`.
    pub fn name(&self) -> String {
        match &self.location {
            ModelLocation::Hub { id, .. } => match &self.quantization {
                Some(quantization) => format!("{id}:{quantization}"),
                None => id.clone(),
            },
            ModelLocation::Directory(path) => path.display().to_string(),
            ModelLocation::Shipped => Self::NANO.to_owned(),
        }
    }
}

/// An entry of `registry.json`, or of a file of the user's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) id: Option<String>,
    /// A folder in place of an id; only in the user's file.
    pub(crate) path: Option<PathBuf>,
    revision: Option<String>,
    #[serde(default)]
    pub(crate) aliases: Vec<String>,
    #[serde(default)]
    extra_eos_tokens: Vec<String>,
    #[serde(default)]
    stop_strings: Vec<String>,
    #[serde(default)]
    kinds: Vec<ModelKind>,
    family: Option<String>,
    default_prompt: Option<String>,
    tool_format: Option<String>,
    reasoning: Option<(String, String)>,
    tokenizer: Option<String>,
    bits: Option<u8>,
    group_size: Option<u32>,
    mode: Option<String>,
    parameters: Option<u64>,
    active_parameters: Option<u64>,
    kv_bytes_per_token: Option<u64>,
}

impl Entry {
    /// What is wrong with it, if anything is.
    pub(crate) fn problem(&self) -> Option<String> {
        let is_name = |text: &String| {
            !text.is_empty()
                && text.len() <= 96
                && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        match (&self.id, &self.path) {
            (Some(id), None) if !crate::cache::is_hub_id(id) => {
                return Some(format!("{id:?} is not a hub id, which is ORGANISATION/NAME"));
            }
            (None, Some(_)) if self.revision.is_some() => return Some("a folder has no revision".to_owned()),
            (Some(_), None) | (None, Some(_)) => {}
            _ => return Some("a model needs either an id or a path".to_owned()),
        }
        if let Some(revision) = &self.revision
            && !crate::cache::is_revision(revision)
        {
            return Some(format!("{revision:?} is not a revision"));
        }
        if let Some(alias) = self.aliases.iter().find(|alias| !is_name(alias)) {
            return Some(format!("{alias:?} is not an alias: no spaces, at most 96 characters"));
        }
        match self.bits {
            Some(0 | 65..) => Some("bits must be from 1 to 64".to_owned()),
            None if self.group_size.is_some() => Some("group_size needs bits".to_owned()),
            _ if self.group_size == Some(0) => Some("group_size must be from 1".to_owned()),
            _ => None,
        }
    }
}

impl From<Entry> for ModelConfiguration {
    fn from(entry: Entry) -> Self {
        let base = match (entry.id, entry.path) {
            (Some(id), _) => Self::hub(id).with_revision(entry.revision.as_deref().unwrap_or("main")),
            (None, path) => Self::directory(crate::expand_path(path.unwrap_or_default())),
        };
        let weights = entry.bits.map(|bits| {
            let stored = StoredWeights::new(bits, entry.group_size);
            StoredWeights { mode: entry.mode.or(stored.mode), ..stored }
        });
        Self {
            aliases: entry.aliases,
            extra_eos_tokens: entry.extra_eos_tokens,
            stop_strings: entry.stop_strings,
            kinds: entry.kinds,
            family: entry.family,
            default_prompt: entry.default_prompt,
            tool_format: entry.tool_format,
            reasoning: entry.reasoning.map(|(start, end)| ReasoningMarkers { start, end }),
            tokenizer: entry.tokenizer,
            weights,
            parameters: entry.parameters,
            active_parameters: entry.active_parameters,
            kv_bytes_per_token: entry.kv_bytes_per_token,
            ..base
        }
    }
}
