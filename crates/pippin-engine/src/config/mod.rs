//! The settings of an engine, and where each came from.

mod error;
mod inputs;
mod setting;
mod single;
mod table;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pippin_hub::{HubCache, HubError, HubOptions, ModelRegistry, Resolver};
use pippin_tensor::{KvFormat, Numerics};
use serde::Serialize;
use serde_json::{Value, json};
use toml::de::{DeTable, DeValue};

pub use error::{ConfigError, ConfigSource};
pub use inputs::ConfigInputs;
pub use setting::{Setting, SettingFlag, SettingKind, SettingVariable, environment_variables};
pub(crate) use single::settings_for;
pub use values::{KeepAlive, MemoryBudget};

use self::inputs::{Given, read};
use self::table::{CONTEXT, KEEP_ALIVE, MAX_CONTEXT};
use self::values::Raw;
use crate::{Device, LoadOptions};

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
    /// How the KV cache stores its numbers. `None`: as the checkpoint does its own.
    pub kv_cache: Option<KvFormat>,
    /// Sequences of one model that are computed together; more wait.
    pub max_sequences: usize,
    /// Requests that may wait for one model while others are computed; one more is refused.
    pub max_waiting: usize,
    /// Prompt tokens of one model that are computed in one step, over all its requests.
    pub prefill_step_size: usize,
    /// The folder where prefixes of ended requests are kept on disk. `None`: in memory only.
    pub prefix_cache: Option<PathBuf>,
    /// Bytes that this folder may have.
    pub prefix_cache_size: u64,
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
    /// How models are served.
    pub server: ServerSettings,
    /// Settings of single models, by the name that the file gives them: `[models."qwen3-4b"]`. They hold for the model by
    /// whichever of its names it is loaded: alias, hub id, folder.
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

/// How models are served over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerSettings {
    /// The address or name at which the server listens.
    pub host: String,
    /// The port; 0 is one that is free.
    pub port: u16,
    /// The file of the keys that clients may show. `None`: no key is needed.
    pub keys_file: Option<PathBuf>,
    /// The file of the keys of those who may load, unload, download and delete models. `None`: nobody has one.
    pub manage_keys_file: Option<PathBuf>,
    /// Names by which it may be asked, besides `localhost` and addresses.
    pub allowed_hosts: Vec<String>,
    /// Origins whose web pages may ask it.
    pub allowed_origins: Vec<String>,
    /// Answers that are under way at a time, waiting ones included.
    pub max_requests: usize,
    /// The same for each key. `None`: as many as that.
    pub max_requests_per_key: Option<usize>,
    /// In what time an answer has to be finished. `None`: in any.
    pub max_answer_time: Option<Duration>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8080,
            keys_file: None,
            manage_keys_file: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            max_requests: 256,
            max_requests_per_key: None,
            max_answer_time: None,
        }
    }
}

/// What holds for one model only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelSettings {
    /// How long it stays loaded after its last use, in place of [`EngineConfig::keep_alive`].
    pub keep_alive: Option<KeepAlive>,
    /// Its longest sequence, in place of [`EngineConfig::context`].
    pub context: Option<usize>,
    /// The smaller model that guesses for it: a folder, a hub id or an alias ([`LoadOptions::draft_model`]).
    pub draft_model: Option<String>,
}

impl ModelSettings {
    pub(crate) const KEYS: [&str; 3] = ["keep_alive", "context", "draft_model"];

    /// Keeps it for this long after its last use.
    #[must_use]
    pub fn with_keep_alive(mut self, keep_alive: impl Into<Option<KeepAlive>>) -> Self {
        self.keep_alive = keep_alive.into();
        self
    }

    /// With a longest sequence of so many tokens.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<Option<usize>>) -> Self {
        self.context = context.into();
        self
    }

    /// With a smaller model that guesses for it.
    #[must_use]
    pub fn with_draft_model(mut self, model: impl Into<Option<String>>) -> Self {
        self.draft_model = model.into();
        self
    }

    /// What these settings make of options.
    pub(crate) fn apply(self, options: LoadOptions) -> LoadOptions {
        LoadOptions {
            context: self.context.or(options.context),
            draft_model: self.draft_model.map(PathBuf::from).or(options.draft_model),
            ..options
        }
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
    pub purpose: String,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            model: pippin_hub::ModelConfiguration::NANO.to_owned(),
            device: Device::Auto,
            threads: None,
            context: None,
            numerics: Numerics::Fast,
            kv_cache: None,
            max_sequences: LoadOptions::default().max_sequences,
            max_waiting: LoadOptions::default().max_waiting,
            prefill_step_size: LoadOptions::default().prefill_step_size,
            prefix_cache: None,
            prefix_cache_size: LoadOptions::default().prefix_cache_size,
            memory_budget: MemoryBudget::default(),
            max_loaded_models: 3,
            keep_alive: KeepAlive::default(),
            preload: Vec::new(),
            pin: Vec::new(),
            hub: HubSettings::default(),
            server: ServerSettings::default(),
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
        config.check_models()?;
        for setting in Setting::all() {
            // The first variable of a setting that is set decides.
            for SettingVariable { name, .. } in setting.variables {
                if let Some(value) = inputs.variables.get(name) {
                    let raw = if *name == "HF_HOME" {
                        Raw::Word(Path::new(value).join("hub").to_string_lossy().into_owned())
                    } else if setting.is_list() {
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
            let Some(setting) = Setting::find(key) else { continue };
            let mut words = values.iter().cloned().map(Raw::Word);
            let raw = if setting.is_list() {
                Raw::List(words.collect())
            } else {
                words.next().unwrap_or(Raw::Other)
            };
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
        let entry = |key: &str, value, purpose: String| ConfigEntry {
            key: key.to_owned(),
            value,
            source: self.source(key).to_string(),
            purpose,
        };
        let general = Setting::all()
            .iter()
            .map(|setting| entry(setting.key, (setting.show)(self), setting.description()));
        let single = self.models.iter().flat_map(|(model, settings)| {
            let keep_alive = settings.keep_alive.map(|value| ("keep_alive", json!(value.to_string())));
            let context = settings.context.map(|value| ("context", json!(value)));
            let draft = settings.draft_model.as_ref().map(|value| ("draft_model", json!(value)));
            keep_alive.into_iter().chain(context).chain(draft).map(move |(key, value)| {
                entry(&model_key(model, key), value, "the same for this model only".to_owned())
            })
        });
        general.chain(single).collect()
    }

    /// How to load a model by these settings; those of the single model win.
    pub fn load_options(&self, model: &str) -> LoadOptions {
        let options = LoadOptions {
            device: self.device,
            numerics: self.numerics,
            kv_format: self.kv_cache,
            context: self.context,
            max_sequences: self.max_sequences,
            max_waiting: self.max_waiting,
            prefill_step_size: self.prefill_step_size,
            threads: self.threads,
            prefix_cache: self.prefix_cache.clone(),
            prefix_cache_size: self.prefix_cache_size,
            ..LoadOptions::default()
        };
        self.settings(model).apply(options)
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
        // Without a cache, models in folders are found all the same.
        resolver.cache = self.hub_cache().ok();
        if let Some(endpoint) = &self.hub.endpoint {
            resolver.endpoint = Some(endpoint.clone());
        }
        Ok(resolver)
    }

    /// The Hugging Face cache, by these settings.
    ///
    /// # Errors
    ///
    /// They do not name one, and no home folder is known.
    pub fn hub_cache(&self) -> Result<HubCache, HubError> {
        self.hub.cache_dir.as_ref().map_or_else(HubCache::from_env, |folder| Ok(HubCache::new(folder)))
    }

    /// How long a model stays loaded after its last use.
    pub fn keep_alive(&self, model: &str) -> KeepAlive {
        self.settings(model).keep_alive.unwrap_or(self.keep_alive)
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
                DeValue::Table(table) if key == "hub" || key == "server" => {
                    self.apply_table(path, text, &format!("{key}."), table)?;
                }
                DeValue::Table(table) if key == "models" => {
                    for (model, settings) in table {
                        self.apply_model(path, text, model.get_ref(), settings.get_ref(), &origin)?;
                    }
                }
                value => match Setting::find(&key) {
                    Some(setting) => self.apply(setting, &Raw::from(value), origin)?,
                    None if matches!(key.as_str(), "hub" | "server" | "models") => {
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
                "draft_model" => raw
                    .text()
                    .map(|value| entry.draft_model = Some(value))
                    .ok_or("a model: a folder, a hub id or an alias"),
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
    let suggestion = Setting::all()
        .iter()
        .map(|setting| (pippin_hub::edit_distance(setting.key, &key), setting.key))
        .min()
        .filter(|(distance, nearest)| *distance <= (nearest.len() / 3).clamp(1, 3) && key.len() <= 64)
        .map(|(_, nearest)| nearest.to_owned());
    ConfigError::UnknownKey { origin, key, suggestion }
}

/// The line, from 1, of a byte.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}
