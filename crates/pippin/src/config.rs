//! The user's settings.
//!
//! An [`EngineConfig`] is put together from defaults, a TOML file, the environment, and whatever a program sets itself. It
//! tells for each value where it came from, and makes load options, a cache, a resolver and a hub client of them. Only who
//! asks for it gets it: [`load`](crate::load) and [`open`](crate::ModelContainer::open) do not read the user's file.
//!
//! ```
//! use pippin::config::{ConfigInputs, ConfigSource, EngineConfig};
//! use pippin::{LoadOptions, ModelContainer};
//!
//! // A program would begin with `ConfigInputs::from_env()`.
//! let inputs = ConfigInputs::default().with_variable("PIPPIN_CONTEXT", "512").with_flag("threads", "--threads", 1);
//! let config = EngineConfig::resolve(&inputs)?;
//! assert_eq!(config.source("context"), &ConfigSource::Environment("PIPPIN_CONTEXT"));
//! assert_eq!(config.load_options("pippin-nano"), LoadOptions::default().with_context(512).with_threads(1));
//!
//! let model = ModelContainer::open(&config.model).with_config(&config).load()?;
//! assert_eq!(model.context(), 512);
//! # Ok::<(), pippin::EngineError>(())
//! ```
//!
//! [`Setting::all`] is the list of them: key, variables, flag, default, meaning. A program makes its own flags and pages of it.

#[doc(inline)]
pub use pippin_engine::{
    ConfigEntry, ConfigError, ConfigInputs, ConfigSource, EngineConfig, HubSettings, KeepAlive, MemoryBudget,
    ModelSettings, ServerSettings, Setting, SettingFlag, SettingKind, SettingVariable, environment_variables,
};
