//! The settings of an engine, and where each came from.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pippin_hub::{HubCache, HubError, HubOptions, ModelRegistry, Resolver, config_folder};
use pippin_tensor::Numerics;
use serde::Serialize;
use serde_json::{Value, json};
use toml::de::{DeTable, DeValue};

use crate::{Device, LoadOptions};

/// The largest configuration file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The most models that one list of names may hold.
const MAX_LIST: usize = 256;

/// How an engine loads models and keeps them.
///
/// The values come from four places. A later one wins, value by value:
///
/// 1. the defaults,
/// 2. a TOML file: `PIPPIN_CONFIG`, else `pippin/config.toml` in the XDG configuration folder,
/// 3. the environment: `PIPPIN_DEVICE` and so on; for the hub the names that its other tools use (`HF_ENDPOINT`),
/// 4. flags of the command line, or whatever a program sets.
///
/// [`source`](Self::source) tells for each where it came from. Unknown keys and values that cannot be are errors that
/// name the file, the key and the line.
///
/// ```toml
/// device = "cpu"
/// memory_budget = "12 GB"      # or a share of what is free: "80%"
/// max_loaded_models = 2
/// keep_alive = "30m"           # seconds, "5m", "1h", 0 or "forever"
/// preload = ["qwen3-4b"]
///
/// [hub]
/// offline = true
///
/// [models."qwen3-4b"]
/// keep_alive = "forever"
/// ```
///
/// ```
/// use pippin_engine::{ConfigInputs, ConfigSource, EngineConfig};
///
/// let inputs = ConfigInputs::default().with_variable("PIPPIN_THREADS", "4").with_flag("context", "--context", "8192");
/// let config = EngineConfig::resolve(&inputs)?;
/// assert_eq!((config.threads, config.context), (Some(4), Some(8192)));
/// assert_eq!(config.source("threads"), &ConfigSource::Environment("PIPPIN_THREADS"));
/// assert_eq!(config.source("device"), &ConfigSource::Default);
/// # Ok::<(), pippin_engine::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EngineConfig {
    /// The model to use when none is named.
    pub model: String,
    /// What computes.
    pub device: Device,
    /// Threads of the CPU backend. `None`: as many as the machine runs at once.
    pub threads: Option<usize>,
    /// The longest sequence. `None`: what model and memory allow.
    pub context: Option<usize>,
    /// Whether approximations are allowed; the key is `exact`.
    pub numerics: Numerics,
    /// Sequences of one model that are computed together; more wait.
    pub max_sequences: usize,
    /// The memory that all loaded models together may take.
    pub memory_budget: MemoryBudget,
    /// The most models that are loaded at a time.
    pub max_loaded_models: usize,
    /// How long a model stays loaded after its last use.
    pub keep_alive: KeepAlive,
    /// Models to load at the start.
    pub preload: Vec<String>,
    /// Models that are never evicted.
    pub pin: Vec<String>,
    /// Where models come from.
    pub hub: HubSettings,
    /// Settings of single models, by the name that the file gives them: `[models."qwen3-4b"]`.
    pub models: BTreeMap<String, ModelSettings>,
    sources: BTreeMap<String, ConfigSource>,
}

/// Where models come from, and where they are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubSettings {
    /// The Hugging Face cache. `None`: where its other tools keep it.
    pub cache_dir: Option<PathBuf>,
    /// The address of the hub or of a mirror. `None`: the hub itself.
    pub endpoint: Option<String>,
    /// Whether the network is left alone.
    pub offline: bool,
}

/// What holds for one model only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelSettings {
    /// How long it stays loaded after its last use, in place of [`EngineConfig::keep_alive`].
    pub keep_alive: Option<KeepAlive>,
    /// Its longest sequence, in place of [`EngineConfig::context`].
    pub context: Option<usize>,
}

/// The memory that loaded models may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryBudget {
    /// So many bytes.
    Bytes(u64),
    /// A share, from 1 to 100 percent, of what the machine or the GPU has free at the start.
    Percent(u8),
}

impl MemoryBudget {
    /// The budget in bytes where `free` bytes are free at the start.
    pub fn bytes(self, free: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => {
                u64::try_from(u128::from(free) * u128::from(percent) / 100).unwrap_or(free)
            }
        }
    }

    fn read(text: &str) -> Option<Self> {
        match text.trim().strip_suffix('%') {
            Some(number) => {
                let percent = number.trim().parse().ok()?;
                (1..=100).contains(&percent).then_some(Self::Percent(percent))
            }
            None => read_bytes(text).map(Self::Bytes),
        }
    }
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self::Percent(80)
    }
}

impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => {
                let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)];
                match units.into_iter().find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size)) {
                    Some((unit, size)) => write!(f, "{} {unit}", bytes / size),
                    None => write!(f, "{bytes}"),
                }
            }
        }
    }
}

/// How long a model stays loaded after its last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// This long; zero unloads it at once.
    For(Duration),
    /// Until its room is needed.
    Forever,
}

impl KeepAlive {
    /// The time, unless it is without end.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::For(duration) => Some(duration),
            Self::Forever => None,
        }
    }

    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("forever") || text == "-1" {
            return Some(Self::Forever);
        }
        let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..split].parse().ok()?;
        let seconds = match text[split..].trim() {
            "" | "s" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        // A century is as good as for ever, and leaves room to add it to a point in time.
        let duration = number.checked_mul(seconds).filter(|seconds| *seconds <= 3_155_760_000)?;
        Some(Self::For(Duration::from_secs(duration)))
    }
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self::For(Duration::from_secs(300))
    }
}

impl fmt::Display for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str("forever"),
            Self::For(duration) => match duration.as_secs() {
                0 => f.write_str("0"),
                seconds if seconds % 3600 == 0 => write!(f, "{}h", seconds / 3600),
                seconds if seconds % 60 == 0 => write!(f, "{}m", seconds / 60),
                seconds => write!(f, "{seconds}s"),
            },
        }
    }
}

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
                Some("a model's settings are keep_alive and context".to_owned())
            }
            Self::UnknownKey { .. } => Some(format!(
                "the settings are {}",
                SETTINGS.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", ")
            )),
            Self::Value { key, .. } if key == "context" || key == "threads" => {
                Some("leave it out to have it chosen".to_owned())
            }
            _ => None,
        }
    }
}

/// Where the values of an [`EngineConfig`] are looked for. The default looks nowhere.
#[derive(Clone, Debug, Default)]
pub struct ConfigInputs {
    file: Option<PathBuf>,
    is_file_named: bool,
    variables: HashMap<&'static str, String>,
    flags: Vec<Given>,
}

#[derive(Clone, Debug)]
struct Given {
    key: &'static str,
    flag: String,
    values: Vec<String>,
}

impl ConfigInputs {
    /// The variable that names the configuration file.
    pub const FILE_VARIABLE: &str = "PIPPIN_CONFIG";

    /// The environment and the configuration file of this process.
    ///
    /// Variables that are empty or not Unicode count as not set.
    pub fn from_env() -> Self {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let named = get(Self::FILE_VARIABLE).map(PathBuf::from);
        Self {
            is_file_named: named.is_some(),
            file: named.or_else(|| Some(config_folder()?.join("config.toml"))),
            variables: SETTINGS
                .iter()
                .flat_map(|setting| setting.variables.iter().copied())
                .filter_map(|name| Some((name, get(name)?)))
                .collect(),
            flags: Vec::new(),
        }
    }

    /// The same with this file, which must exist.
    #[must_use]
    pub fn with_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self.is_file_named = true;
        self
    }

    /// The same as if this variable were set. Variables without a meaning are ignored.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<String>) -> Self {
        if let Some(known) =
            SETTINGS.iter().flat_map(|setting| setting.variables).find(|known| **known == name)
        {
            self.variables.insert(known, value.into());
        }
        self
    }

    /// The same with a flag given. `key` is the setting, `flag` what the user knows it by. A flag of a list may be given
    /// several times. Keys without a meaning are ignored.
    #[must_use]
    pub fn with_flag(mut self, key: &str, flag: impl Into<String>, value: impl ToString) -> Self {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else { return self };
        let value = value.to_string();
        match self.flags.iter_mut().find(|given| given.key == key) {
            Some(given) if setting.is_list => given.values.push(value),
            Some(given) => given.values = vec![value],
            None => self.flags.push(Given { key: setting.key, flag: flag.into(), values: vec![value] }),
        }
        self
    }

    /// [`with_flag`](Self::with_flag) for a flag that may be absent.
    #[must_use]
    pub fn with_optional_flag(self, key: &str, flag: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with_flag(key, flag, value),
            None => self,
        }
    }

    /// The configuration file that is looked at, whether or not it exists.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

/// A setting as `pippin config` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ConfigEntry {
    /// The key, with the table it is in.
    pub key: String,
    /// The value; `null` where it is chosen later.
    pub value: Value,
    /// Where it came from.
    pub source: String,
    /// What it decides.
    pub purpose: &'static str,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            model: pippin_hub::ModelConfiguration::NANO.to_owned(),
            device: Device::Auto,
            threads: None,
            context: None,
            numerics: Numerics::Fast,
            max_sequences: LoadOptions::default().max_sequences,
            memory_budget: MemoryBudget::default(),
            max_loaded_models: 3,
            keep_alive: KeepAlive::default(),
            preload: Vec::new(),
            pin: Vec::new(),
            hub: HubSettings::default(),
            models: BTreeMap::new(),
            sources: BTreeMap::new(),
        }
    }
}

impl EngineConfig {
    /// The configuration of this process: [`resolve`](Self::resolve) with [`ConfigInputs::from_env`].
    ///
    /// # Errors
    ///
    /// Whatever [`resolve`](Self::resolve) returns.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::resolve(&ConfigInputs::from_env())
    }

    /// Puts together what the places say, a later one over an earlier one.
    ///
    /// # Errors
    ///
    /// A file that was named cannot be read, or a place holds an unknown key or a value that cannot be, even one that
    /// a later place replaces.
    pub fn resolve(inputs: &ConfigInputs) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(path) = &inputs.file
            && let Some(text) = read(path, inputs.is_file_named)?
        {
            config.apply_file(path, &text)?;
        }
        for setting in SETTINGS {
            // The first variable of a setting that is set decides.
            for name in setting.variables {
                if let Some(value) = inputs.variables.get(name) {
                    let raw = if *name == "HF_HOME" {
                        Raw::Word(Path::new(value).join("hub").to_string_lossy().into_owned())
                    } else if setting.is_list {
                        Raw::List(value.split(',').map(|part| Raw::Word(part.trim().to_owned())).collect())
                    } else {
                        Raw::Word(value.clone())
                    };
                    config.apply(setting, &raw, ConfigSource::Environment(name))?;
                    break;
                }
            }
        }
        for Given { key, flag, values } in &inputs.flags {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.key == *key) else { continue };
            let mut words = values.iter().cloned().map(Raw::Word);
            let raw =
                if setting.is_list { Raw::List(words.collect()) } else { words.next().unwrap_or(Raw::Other) };
            config.apply(setting, &raw, ConfigSource::Flag(flag.clone()))?;
        }
        Ok(config)
    }

    /// Where the value of a key came from. A key without a meaning has the default.
    pub fn source(&self, key: &str) -> &ConfigSource {
        self.sources.get(key).unwrap_or(&ConfigSource::Default)
    }

    /// All settings with their values and sources.
    pub fn entries(&self) -> Vec<ConfigEntry> {
        let entry = |key: &str, value, purpose| ConfigEntry {
            key: key.to_owned(),
            value,
            source: self.source(key).to_string(),
            purpose,
        };
        let general =
            SETTINGS.iter().map(|setting| entry(setting.key, (setting.show)(self), setting.purpose));
        let single = self.models.iter().flat_map(|(model, settings)| {
            let keep_alive = settings.keep_alive.map(|value| ("keep_alive", json!(value.to_string())));
            let context = settings.context.map(|value| ("context", json!(value)));
            keep_alive
                .into_iter()
                .chain(context)
                .map(move |(key, value)| entry(&model_key(model, key), value, "the same for this model only"))
        });
        general.chain(single).collect()
    }

    /// How to load a model by these settings; those of the single model win.
    pub fn load_options(&self, model: &str) -> LoadOptions {
        LoadOptions {
            device: self.device,
            numerics: self.numerics,
            context: self.models.get(model).and_then(|settings| settings.context).or(self.context),
            max_sequences: self.max_sequences,
            threads: self.threads,
            ..LoadOptions::default()
        }
    }

    /// How the hub is reached, by these settings; the token is the environment's.
    ///
    /// # Errors
    ///
    /// A token or an address that cannot be one.
    pub fn hub_options(&self) -> Result<HubOptions, HubError> {
        let mut options = HubOptions::from_env()?;
        if let Some(endpoint) = &self.hub.endpoint {
            options.endpoint.clone_from(endpoint);
        }
        options.is_offline = self.hub.offline;
        Ok(options)
    }

    /// What finds models on this machine, by these settings.
    ///
    /// # Errors
    ///
    /// The file of the user's models is wrong.
    pub fn resolver(&self) -> Result<Resolver, HubError> {
        ModelRegistry::local()?;
        let mut resolver = Resolver::from_env();
        if let Some(folder) = &self.hub.cache_dir {
            resolver.cache = Some(HubCache::new(folder));
        }
        Ok(resolver)
    }

    /// How long a model stays loaded after its last use.
    pub fn keep_alive(&self, model: &str) -> KeepAlive {
        self.models.get(model).and_then(|settings| settings.keep_alive).unwrap_or(self.keep_alive)
    }

    fn apply(&mut self, setting: &Setting, raw: &Raw, origin: ConfigSource) -> Result<(), ConfigError> {
        match (setting.set)(self, raw) {
            Some(()) => {
                self.sources.insert(setting.key.to_owned(), origin);
                Ok(())
            }
            None => Err(ConfigError::Value {
                origin,
                key: setting.key.to_owned(),
                value: raw.to_string(),
                expected: setting.expected,
            }),
        }
    }

    fn apply_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().lines().collect::<Vec<_>>().join(" "),
        })?;
        self.apply_table(path, text, "", table.get_ref())
    }

    fn apply_table(
        &mut self,
        path: &Path,
        text: &str,
        prefix: &str,
        table: &DeTable<'_>,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let origin = ConfigSource::File { path: path.to_owned(), line: line_of(text, name.span().start) };
            match value.get_ref() {
                DeValue::Table(table) if key == "hub" => self.apply_table(path, text, "hub.", table)?,
                DeValue::Table(table) if key == "models" => {
                    for (model, settings) in table {
                        self.apply_model(path, text, model.get_ref(), settings.get_ref(), &origin)?;
                    }
                }
                value => match SETTINGS.iter().find(|setting| setting.key == key) {
                    Some(setting) => self.apply(setting, &Raw::from(value), origin)?,
                    None if matches!(key.as_str(), "hub" | "models") => {
                        let (value, expected) = (Raw::from(value).to_string(), "a table");
                        return Err(ConfigError::Value { origin, key, value, expected });
                    }
                    None => return Err(unknown(origin, key)),
                },
            }
        }
        Ok(())
    }

    fn apply_model(
        &mut self,
        path: &Path,
        text: &str,
        model: &str,
        settings: &DeValue<'_>,
        origin: &ConfigSource,
    ) -> Result<(), ConfigError> {
        let DeValue::Table(settings) = settings else {
            let (key, value) = (format!("models.{model:?}"), Raw::from(settings).to_string());
            return Err(ConfigError::Value { origin: origin.clone(), key, value, expected: "a table" });
        };
        for (name, value) in settings {
            let origin = ConfigSource::File { path: path.to_owned(), line: line_of(text, name.span().start) };
            let key = model_key(model, name.get_ref());
            let raw = Raw::from(value.get_ref());
            let entry = self.models.entry(model.to_owned()).or_default();
            let read = match name.get_ref().as_ref() {
                "keep_alive" => {
                    raw.keep_alive().map(|value| entry.keep_alive = Some(value)).ok_or(KEEP_ALIVE)
                }
                "context" => {
                    raw.integer(1, MAX_CONTEXT).map(|value| entry.context = Some(value)).ok_or(CONTEXT)
                }
                _ => return Err(unknown(origin, key)),
            };
            match read {
                Ok(()) => self.sources.insert(key, origin),
                Err(expected) => {
                    return Err(ConfigError::Value { origin, key, value: raw.to_string(), expected });
                }
            };
        }
        Ok(())
    }
}

fn model_key(model: &str, key: &str) -> String {
    format!("models.{model:?}.{key}")
}

fn unknown(origin: ConfigSource, key: String) -> ConfigError {
    let suggestion = SETTINGS
        .iter()
        .map(|setting| (pippin_hub::edit_distance(setting.key, &key), setting.key))
        .min()
        .filter(|(distance, nearest)| *distance <= (nearest.len() / 3).clamp(1, 3) && key.len() <= 64)
        .map(|(_, nearest)| nearest.to_owned());
    ConfigError::UnknownKey { origin, key, suggestion }
}

/// The text of a configuration file; `None` where there is none and none was named.
fn read(path: &Path, is_named: bool) -> Result<Option<String>, ConfigError> {
    let failed = |reason: String| Err(ConfigError::Read { path: path.to_owned(), reason, named: is_named });
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_named => return Ok(None),
        Err(error) => return failed(error.to_string()),
    };
    let mut text = String::new();
    match file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text) {
        Err(error) => failed(error.to_string()),
        Ok(_) if text.len() as u64 > MAX_FILE_BYTES => failed("it is larger than 1 MB".to_owned()),
        Ok(_) => Ok(Some(text)),
    }
}

/// The line, from 1, of a byte.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}

/// A value before it has a meaning.
#[derive(Clone, Debug, PartialEq)]
enum Raw {
    /// Of a variable or a flag: anything, spelled out.
    Word(String),
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Raw>),
    /// What no setting takes: tables, dates, fractions.
    Other,
}

impl From<&DeValue<'_>> for Raw {
    fn from(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.as_ref().to_owned()),
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).map_or(Self::Other, Self::Integer)
            }
            DeValue::Boolean(value) => Self::Boolean(*value),
            DeValue::Array(items) => {
                Self::List(items.iter().map(|item| Self::from(item.get_ref())).collect())
            }
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::List(_) => f.write_str("a list"),
            Self::Other => f.write_str("something else"),
        }
    }
}

impl Raw {
    fn text(&self) -> Option<String> {
        match self {
            Self::Word(text) | Self::Text(text) if !text.is_empty() && !text.contains('\0') => {
                Some(text.clone())
            }
            _ => None,
        }
    }

    fn integer(&self, minimum: usize, maximum: usize) -> Option<usize> {
        let value = match self {
            Self::Word(text) => text.trim().parse().ok()?,
            Self::Integer(value) => usize::try_from(*value).ok()?,
            _ => return None,
        };
        (minimum..=maximum).contains(&value).then_some(value)
    }

    fn boolean(&self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(*value),
            Self::Word(text) => match text.trim().to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" | "y" | "t" => Some(true),
                "0" | "false" | "no" | "off" | "n" | "f" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    fn list(&self) -> Option<Vec<String>> {
        let Self::List(items) = self else { return None };
        // An empty part of a variable, `a,,b` or a comma at the end, names nothing.
        let items = items.iter().filter(|item| **item != Self::Word(String::new()));
        let names: Vec<String> = items.map(Self::text).collect::<Option<_>>()?;
        (names.len() <= MAX_LIST).then_some(names)
    }

    fn keep_alive(&self) -> Option<KeepAlive> {
        match self {
            Self::Integer(seconds) => KeepAlive::read(&seconds.to_string()),
            other => KeepAlive::read(&other.text()?),
        }
    }

    fn memory_budget(&self) -> Option<MemoryBudget> {
        match self {
            Self::Integer(bytes) => {
                u64::try_from(*bytes).ok().filter(|bytes| *bytes > 0).map(MemoryBudget::Bytes)
            }
            other => MemoryBudget::read(&other.text()?),
        }
    }
}

/// Reads a size: `12 GB`, `512MiB`, `1.5GB`, or bytes.
fn read_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split =
        text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let unit: f64 = match text[split..].trim().to_ascii_lowercase().as_str() {
        "" | "b" | "bytes" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let number: f64 = text[..split].parse().ok()?;
    let bytes = (number * unit).round();
    // Far above any machine's memory, and below where the conversion would lose bytes.
    (1.0..=1e18).contains(&bytes).then_some(bytes as u64)
}

const MAX_CONTEXT: usize = u32::MAX as usize;
const KEEP_ALIVE: &str = "a time such as 30 (seconds), \"5m\" or \"1h\", 0, or \"forever\"";
const CONTEXT: &str = "a number of tokens from 1";

/// A setting: its key, its variables, and how it is read and shown.
struct Setting {
    key: &'static str,
    variables: &'static [&'static str],
    purpose: &'static str,
    expected: &'static str,
    is_list: bool,
    set: fn(&mut EngineConfig, &Raw) -> Option<()>,
    show: fn(&EngineConfig) -> Value,
}

const SETTINGS: &[Setting] = &[
    Setting {
        key: "model",
        variables: &["PIPPIN_MODEL"],
        purpose: "the model to use when none is named",
        expected: "a model: a folder, a hub id or an alias",
        is_list: false,
        set: |config, raw| raw.text().map(|value| config.model = value),
        show: |config| json!(config.model),
    },
    Setting {
        key: "device",
        variables: &["PIPPIN_DEVICE"],
        purpose: "what computes",
        expected: "one of auto, cpu, cuda and mlx",
        is_list: false,
        set: |config, raw| raw.text()?.parse().ok().map(|value| config.device = value),
        show: |config| json!(config.device.as_str()),
    },
    Setting {
        key: "threads",
        variables: &["PIPPIN_THREADS"],
        purpose: "threads of the CPU; unset: as many as it runs at once",
        expected: "a number from 1 to 1024",
        is_list: false,
        set: |config, raw| raw.integer(1, 1024).map(|value| config.threads = Some(value)),
        show: |config| json!(config.threads),
    },
    Setting {
        key: "context",
        variables: &["PIPPIN_CONTEXT"],
        purpose: "the longest sequence in tokens; unset: what model and memory allow",
        expected: CONTEXT,
        is_list: false,
        set: |config, raw| raw.integer(1, MAX_CONTEXT).map(|value| config.context = Some(value)),
        show: |config| json!(config.context),
    },
    Setting {
        key: "exact",
        variables: &["PIPPIN_EXACT"],
        purpose: "compute exactly, without approximations for speed",
        expected: "true or false",
        is_list: false,
        set: |config, raw| {
            let numerics = |exact| if exact { Numerics::Exact } else { Numerics::Fast };
            raw.boolean().map(|exact| config.numerics = numerics(exact))
        },
        show: |config| json!(config.numerics == Numerics::Exact),
    },
    Setting {
        key: "max_sequences",
        variables: &["PIPPIN_MAX_SEQUENCES"],
        purpose: "requests that one model computes together",
        expected: "a number from 1 to 4096",
        is_list: false,
        set: |config, raw| raw.integer(1, 4096).map(|value| config.max_sequences = value),
        show: |config| json!(config.max_sequences),
    },
    Setting {
        key: "memory_budget",
        variables: &["PIPPIN_MEMORY_BUDGET"],
        purpose: "memory for all loaded models; a share is of what is free at the start",
        expected: "a size such as \"12 GB\", or a share such as \"80%\"",
        is_list: false,
        set: |config, raw| raw.memory_budget().map(|value| config.memory_budget = value),
        show: |config| json!(config.memory_budget.to_string()),
    },
    Setting {
        key: "max_loaded_models",
        variables: &["PIPPIN_MAX_LOADED_MODELS"],
        purpose: "the most models that are loaded at a time",
        expected: "a number from 1 to 1000",
        is_list: false,
        set: |config, raw| raw.integer(1, 1000).map(|value| config.max_loaded_models = value),
        show: |config| json!(config.max_loaded_models),
    },
    Setting {
        key: "keep_alive",
        variables: &["PIPPIN_KEEP_ALIVE"],
        purpose: "how long a model stays loaded after its last use",
        expected: KEEP_ALIVE,
        is_list: false,
        set: |config, raw| raw.keep_alive().map(|value| config.keep_alive = value),
        show: |config| json!(config.keep_alive.to_string()),
    },
    Setting {
        key: "preload",
        variables: &["PIPPIN_PRELOAD"],
        purpose: "models to load at the start",
        expected: "a list of model names",
        is_list: true,
        set: |config, raw| raw.list().map(|value| config.preload = value),
        show: |config| json!(config.preload),
    },
    Setting {
        key: "pin",
        variables: &["PIPPIN_PIN"],
        purpose: "models that are never evicted",
        expected: "a list of model names",
        is_list: true,
        set: |config, raw| raw.list().map(|value| config.pin = value),
        show: |config| json!(config.pin),
    },
    Setting {
        key: "hub.cache_dir",
        variables: &["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"],
        purpose: "the Hugging Face cache; unset: where its other tools keep it",
        expected: "a folder",
        is_list: false,
        set: |config, raw| raw.text().map(|value| config.hub.cache_dir = Some(home_relative(&value))),
        show: |config| json!(config.hub.cache_dir),
    },
    Setting {
        key: "hub.endpoint",
        variables: &["HF_ENDPOINT"],
        purpose: "the address of the hub or of a mirror; unset: the hub itself",
        expected: "an address that begins with https:// or http://",
        is_list: false,
        set: |config, raw| {
            let text = raw.text()?;
            let is_address = text.starts_with("https://") || text.starts_with("http://");
            is_address.then(|| config.hub.endpoint = Some(text.trim_end_matches('/').to_owned()))
        },
        show: |config| json!(config.hub.endpoint),
    },
    Setting {
        key: "hub.offline",
        variables: &["HF_HUB_OFFLINE"],
        purpose: "leave the network alone",
        expected: "true or false",
        is_list: false,
        set: |config, raw| raw.boolean().map(|value| config.hub.offline = value),
        show: |config| json!(config.hub.offline),
    },
];

/// A path whose `~` stands for the home folder, as in a shell.
fn home_relative(text: &str) -> PathBuf {
    match (Path::new(text).strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, ConfigInputs) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).expect("written");
        (folder, ConfigInputs::default().with_file(path))
    }

    fn from_file(text: &str) -> Result<EngineConfig, ConfigError> {
        EngineConfig::resolve(&file(text).1)
    }

    #[test]
    fn defaults() {
        let config = EngineConfig::resolve(&ConfigInputs::default()).expect("valid");
        assert_eq!(config, EngineConfig::default());
        assert_eq!(config.load_options("x"), LoadOptions::default());
        assert_eq!(config.max_loaded_models, 3);
        assert_eq!(config.memory_budget.bytes(1000), 800);
        assert!(config.entries().iter().all(|entry| entry.source == "default"));
    }

    #[test]
    fn every_setting_can_stand_in_the_file() {
        let (_folder, inputs) = file(
            "model = 'qwen3-4b'\ndevice = 'cpu'\nthreads = 4\ncontext = 8192\nexact = true\nmax_sequences = 8\n\
             memory_budget = '12 GB'\nmax_loaded_models = 2\nkeep_alive = '1h'\npreload = ['a', 'b']\npin = ['a']\n\
             [hub]\ncache_dir = '/data/hub'\nendpoint = 'https://mirror.example/'\noffline = true\n\
             [models.'qwen3-4b']\nkeep_alive = 'forever'\ncontext = 100\n",
        );
        let config = EngineConfig::resolve(&inputs).expect("valid");
        for (index, entry) in config.entries().iter().enumerate() {
            assert!(entry.source.contains("config.toml:"), "{entry:?}");
            let line: usize = entry.source.rsplit(':').next().expect("a line").parse().expect("a number");
            // The settings stand in their order, and tables begin with a line of their own.
            let expected = index
                + 1
                + usize::from(entry.key.starts_with("hub."))
                + 2 * usize::from(entry.key.starts_with("models."));
            assert_eq!(line, expected, "{entry:?}");
        }
        assert_eq!(config.memory_budget, MemoryBudget::Bytes(12_000_000_000));
        assert_eq!(config.keep_alive, KeepAlive::For(Duration::from_secs(3600)));
        assert_eq!(config.keep_alive("qwen3-4b"), KeepAlive::Forever);
        assert_eq!(config.load_options("qwen3-4b").context, Some(100));
        assert_eq!(config.load_options("other").context, Some(8192));
        assert_eq!(config.hub.endpoint.as_deref(), Some("https://mirror.example"));
        assert_eq!(config.numerics, Numerics::Exact);
        let options = config.hub_options().expect("valid");
        assert!(options.is_offline && options.endpoint == "https://mirror.example");
    }

    #[test]
    fn later_places_win() {
        let (_folder, inputs) = file("threads = 1\ncontext = 1\nmax_sequences = 1\n");
        let inputs = inputs
            .with_variable("PIPPIN_CONTEXT", "2")
            .with_variable("PIPPIN_MAX_SEQUENCES", "2")
            .with_flag("max_sequences", "--max-sequences", 3);
        let config = EngineConfig::resolve(&inputs).expect("valid");
        assert_eq!((config.threads, config.context, config.max_sequences), (Some(1), Some(2), 3));
        assert!(matches!(config.source("threads"), ConfigSource::File { line: 1, .. }));
        assert_eq!(config.source("context"), &ConfigSource::Environment("PIPPIN_CONTEXT"));
        assert_eq!(config.source("max_sequences"), &ConfigSource::Flag("--max-sequences".to_owned()));
        assert_eq!(config.source("device"), &ConfigSource::Default);
    }

    #[test]
    fn lists_come_from_everywhere() {
        let inputs = ConfigInputs::default()
            .with_variable("PIPPIN_PRELOAD", "a, b,,")
            .with_flag("pin", "--pin", "x")
            .with_flag("pin", "--pin", "y");
        let config = EngineConfig::resolve(&inputs).expect("valid");
        assert_eq!(
            (config.preload, config.pin),
            (vec!["a".to_owned(), "b".to_owned()], vec!["x".to_owned(), "y".to_owned()])
        );
    }

    #[test]
    fn the_hubs_own_variables_count() {
        let cache = |pairs: &[(&str, &str)]| {
            let inputs = pairs
                .iter()
                .fold(ConfigInputs::default(), |inputs, (name, value)| inputs.with_variable(name, *value));
            EngineConfig::resolve(&inputs).expect("valid").hub.cache_dir
        };
        assert_eq!(cache(&[("HF_HOME", "/h")]), Some(PathBuf::from("/h/hub")));
        assert_eq!(cache(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]), Some(PathBuf::from("/c")));
        let config = EngineConfig::resolve(&ConfigInputs::default().with_variable("HF_HUB_OFFLINE", "1"))
            .expect("valid");
        assert!(config.hub.offline);
    }

    #[test]
    fn mistakes_name_place_key_and_line() {
        for (text, part, hint) in [
            ("\nthread = 4", "config.toml:2: there is no setting \"thread\"", "did you mean threads?"),
            ("[hub]\nof_line = true", "config.toml:2: there is no setting \"hub.of_line\"", "hub.offline"),
            ("zzzzzzzzzz = 1", "config.toml:1: there is no setting", "the settings are model, device"),
            ("[hub]\n\nzzzzzzz.x = 1", "config.toml:3: there is no setting \"hub.zzzzzzz\"", "settings"),
            ("a = 1\nb = ", "config.toml:2: not valid TOML", ""),
            ("threads = 1\nthreads = 2", "config.toml:2: not valid TOML", ""),
            (
                "threads = '4'",
                "config.toml:1: threads is \"4\", but must be a number from 1 to 1024",
                "leave it out",
            ),
            ("threads = 0", "threads is 0", ""),
            ("threads = 1.5", "threads is something else", ""),
            ("\n\ndevice = 'abacus'", "config.toml:3: device is \"abacus\", but must be one of auto", ""),
            ("exact = 1", "exact is 1", ""),
            ("memory_budget = '0%'", "memory_budget", ""),
            ("memory_budget = '101%'", "memory_budget", ""),
            ("memory_budget = 'lots'", "memory_budget", ""),
            ("memory_budget = -1", "memory_budget is -1", ""),
            ("keep_alive = '5 fortnights'", "keep_alive", ""),
            ("preload = 'a'", "preload is \"a\", but must be a list", ""),
            ("preload = [1]", "preload is a list, but must be a list of model names", ""),
            ("hub = 3", "hub is 3, but must be a table", ""),
            ("[models]\nx = 3", "models.\"x\" is 3, but must be a table", ""),
            (
                "[models.x]\ntemperature = 3",
                "there is no setting \"models.\\\"x\\\".temperature\"",
                "keep_alive and context",
            ),
            ("[models.x]\n\ncontext = 0", "config.toml:3: models.\"x\".context is 0", ""),
            ("[hub]\nendpoint = 'ftp://x'", "config.toml:2: hub.endpoint is \"ftp://x\"", ""),
        ] {
            let error = from_file(text).expect_err(text);
            assert!(error.to_string().contains(part), "{text:?}: {error}");
            assert!(error.hint().unwrap_or_default().contains(hint), "{text:?}: {:?}", error.hint());
        }
        let variable = ConfigInputs::default().with_variable("PIPPIN_THREADS", "many");
        let error = EngineConfig::resolve(&variable).expect_err("no number");
        assert_eq!(error.to_string(), "PIPPIN_THREADS is \"many\", but must be a number from 1 to 1024");
        let flag = ConfigInputs::default().with_flag("memory_budget", "--memory-budget", "much");
        assert!(
            EngineConfig::resolve(&flag)
                .expect_err("no size")
                .to_string()
                .starts_with("--memory-budget is \"much\"")
        );
        // A value that a later place replaces is still a mistake that somebody wants to know of.
        let (_folder, inputs) = file("threads = 0");
        assert!(EngineConfig::resolve(&inputs.with_flag("threads", "--threads", 2)).is_err());
    }

    #[test]
    fn a_named_file_must_exist_and_be_sane() {
        let missing = ConfigInputs::default().with_file("/no/such/config.toml");
        let error = EngineConfig::resolve(&missing).expect_err("no file");
        assert!(error.to_string().contains("/no/such/config.toml") && error.hint().is_some());
        let usual = ConfigInputs { file: Some("/no/such/config.toml".into()), ..ConfigInputs::default() };
        assert_eq!(EngineConfig::resolve(&usual).expect("the defaults"), EngineConfig::default());
        assert!(from_file(&"#".repeat(2 << 20)).expect_err("too large").to_string().contains("1 MB"));
        assert!(from_file(&format!("preload = {}", "[".repeat(100_000))).is_err());
    }

    #[test]
    fn sizes_and_times_are_read_and_written() {
        for (text, bytes) in [
            ("1", 1),
            ("512MiB", 512 << 20),
            ("1.5 GB", 1_500_000_000),
            ("16g", 16_000_000_000),
            ("2 TiB", 2 << 40),
        ] {
            assert_eq!(MemoryBudget::read(text), Some(MemoryBudget::Bytes(bytes)), "{text}");
        }
        for text in
            ["", "GB", "-1", "0", "1e3", "1 EB", "1.2.3", "99999999999 TB", "50.5%", "%", "nan", "inf"]
        {
            assert_eq!(MemoryBudget::read(text), None, "{text}");
        }
        for (text, seconds) in [("0", 0), ("90", 90), ("90s", 90), ("5 m", 300), ("2h", 7200), ("1d", 86_400)]
        {
            assert_eq!(KeepAlive::read(text), Some(KeepAlive::For(Duration::from_secs(seconds))), "{text}");
        }
        assert_eq!(
            (KeepAlive::read("forever"), KeepAlive::read("-1")),
            (Some(KeepAlive::Forever), Some(KeepAlive::Forever))
        );
        for text in ["", "h", "-2", "5x", "99999999999999999999", "18446744073709551615d"] {
            assert_eq!(KeepAlive::read(text), None, "{text}");
        }
        assert_eq!(MemoryBudget::Percent(100).bytes(u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn each_value_comes_from_the_last_place_that_has_it(
            values in prop::collection::vec((prop::option::of(1_usize..1000), prop::option::of(1_usize..1000), prop::option::of(1_usize..1000)), 4)
        ) {
            let keys = ["threads", "context", "max_sequences", "max_loaded_models"];
            let variables = ["PIPPIN_THREADS", "PIPPIN_CONTEXT", "PIPPIN_MAX_SEQUENCES", "PIPPIN_MAX_LOADED_MODELS"];
            let mut text = String::new();
            for (key, (in_file, ..)) in keys.iter().zip(&values) {
                if let Some(value) = in_file {
                    text.push_str(&format!("{key} = {value}\n"));
                }
            }
            let (_folder, mut inputs) = file(&text);
            for ((key, variable), (_, in_environment, flag)) in keys.iter().zip(variables).zip(&values) {
                if let Some(value) = in_environment {
                    inputs = inputs.with_variable(variable, value.to_string());
                }
                inputs = inputs.with_optional_flag(key, "--flag", *flag);
            }
            let config = EngineConfig::resolve(&inputs).expect("valid");
            let defaults = EngineConfig::default().entries();
            for (key, (in_file, in_environment, flag)) in keys.iter().zip(&values) {
                let entry = config.entries().into_iter().find(|entry| entry.key == *key).expect("listed");
                let default = defaults.iter().find(|entry| entry.key == *key).expect("listed").value.clone();
                let expected = flag.or(*in_environment).or(*in_file).map_or(default, |value| json!(value));
                prop_assert_eq!(entry.value, expected);
                let place = match config.source(key) {
                    ConfigSource::Default => 0,
                    ConfigSource::File { .. } => 1,
                    ConfigSource::Environment(_) => 2,
                    ConfigSource::Flag(_) => 3,
                };
                let expected = if flag.is_some() { 3 } else if in_environment.is_some() { 2 } else { usize::from(in_file.is_some()) };
                prop_assert_eq!(place, expected);
            }
        }

        #[test]
        fn no_file_panics(text in "\\PC{0,200}") {
            let _ = EngineConfig::default().apply_file(Path::new("x"), &text);
        }

        #[test]
        fn no_value_panics(key in 0..SETTINGS.len(), text in "\\PC{0,20}", number in any::<i64>()) {
            let mut config = EngineConfig::default();
            for raw in [Raw::Word(text.clone()), Raw::Text(text.clone()), Raw::Integer(number), Raw::Word(number.to_string()),
                Raw::List(vec![Raw::Text(text.clone())]), Raw::Boolean(true), Raw::Other] {
                let _ = config.apply(&SETTINGS[key], &raw, ConfigSource::Default);
            }
            config.entries();
        }

        #[test]
        fn shown_values_are_read_back(bytes in 1_u64..1_000_000_000_000, seconds in 0_u64..10_000_000) {
            let budget = MemoryBudget::Bytes(bytes);
            prop_assert_eq!(MemoryBudget::read(&budget.to_string()), Some(budget));
            let keep_alive = KeepAlive::For(Duration::from_secs(seconds));
            prop_assert_eq!(KeepAlive::read(&keep_alive.to_string()), Some(keep_alive));
        }
    }
}
