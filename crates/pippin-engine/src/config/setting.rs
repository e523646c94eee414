//! What a setting is made of, and what is made of it.

use serde_json::Value;

use super::EngineConfig;
use super::table::{OTHER_VARIABLES, SETTINGS};
use super::values::Raw;

/// A setting: everything about it, once. The configuration file, the environment, the flags of the command line, `pippin
/// config` and `docs/settings.md` are all made from this list.
///
/// ```
/// use pippin_engine::Setting;
///
/// let threads = Setting::all().iter().find(|setting| setting.key == "threads").expect("is one");
/// assert_eq!(threads.variables[0].name, "PIPPIN_THREADS");
/// assert_eq!(threads.flag.as_ref().expect("has one").name, "--threads");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Setting {
    /// The key in the configuration file, with the table it is in: `hub.offline`.
    pub key: &'static str,
    /// The environment variables for it. The first that is set decides.
    pub variables: &'static [SettingVariable],
    /// The flag of the command line.
    pub flag: Option<SettingFlag>,
    /// What it decides, in lower case and without a full stop.
    pub purpose: &'static str,
    /// What holds where it is not set, if its default does not say that: "as many as it runs at once".
    pub unset: Option<&'static str>,
    /// What its value must be, as an error says it.
    pub expected: &'static str,
    /// The form of its values.
    pub kind: SettingKind,
    /// Takes a value, if it can be one.
    pub(super) set: fn(&mut EngineConfig, &Raw) -> Option<()>,
    /// The value as JSON.
    pub(super) show: fn(&EngineConfig) -> Value,
}

/// An environment variable of a [`Setting`].
#[derive(Debug)]
#[non_exhaustive]
pub struct SettingVariable {
    /// Its name.
    pub name: &'static str,
    /// What it means, where that is not just the setting.
    pub purpose: Option<&'static str>,
}

/// The flag of a [`Setting`].
#[derive(Debug)]
#[non_exhaustive]
pub struct SettingFlag {
    /// With its dashes: `--kv-cache`.
    pub name: &'static str,
    /// What stands for the value in the help: `FORMAT`.
    pub value_name: &'static str,
    /// The heading in the help: `Loading` for how a model is loaded, `Engine` for all models together.
    pub heading: &'static str,
}

/// The form of a [`Setting`]'s values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingKind {
    /// Any text.
    Text,
    /// True or false. Its flag has no value.
    Boolean,
    /// A whole number within these limits, both included.
    Integer(u64, u64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A device: one of [`Device::NAMES`](crate::Device::NAMES), perhaps with a number: `cuda:1`.
    Device,
    /// A size or a share: `12 GB`, `80%`.
    Size,
    /// A size: `12 GB`.
    Bytes,
    /// A time: `30s`, `5m`, `-1`.
    Time,
    /// Several texts. A variable has commas between them, a flag is given several times.
    List,
}

impl Setting {
    /// All settings, in the order in which they are shown.
    pub fn all() -> &'static [Self] {
        SETTINGS
    }

    /// The setting with this key.
    pub(super) fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// What it decides, and what holds where it is not set.
    pub fn description(&self) -> String {
        match self.unset {
            Some(unset) => format!("{}; unset: {unset}", self.purpose),
            None => self.purpose.to_owned(),
        }
    }

    /// Its default in words.
    pub fn default_text(&self) -> String {
        match (self.show)(&EngineConfig::default()) {
            Value::Null => self.unset.unwrap_or("none").to_owned(),
            Value::String(text) => text,
            Value::Array(items) if items.is_empty() => "none".to_owned(),
            value => value.to_string(),
        }
    }

    /// The flag's help.
    pub fn help(&self) -> String {
        let mut text: String = self.purpose.chars().take(1).flat_map(char::to_uppercase).collect();
        text.extend(self.purpose.chars().skip(1));
        match self.kind {
            SettingKind::Boolean => text,
            SettingKind::List => text + "; may be given several times",
            _ => format!("{text} [default: {}]", self.default_text()),
        }
    }

    pub(super) fn is_list(&self) -> bool {
        self.kind == SettingKind::List
    }
}

/// Every environment variable that the libraries read, and what it means: those of the settings, in their order, and
/// those that nothing in the configuration file stands for.
pub fn environment_variables() -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    for setting in SETTINGS {
        for variable in setting.variables {
            let text = match (variable.purpose, &setting.flag, setting.kind) {
                (Some(purpose), ..) => purpose.to_owned(),
                (None, Some(flag), SettingKind::List) => {
                    format!("{}; several are separated by commas", flag.name)
                }
                (None, Some(flag), SettingKind::Boolean) => {
                    format!("{} (1, true, yes, on; 0, false, no, off)", flag.name)
                }
                (None, Some(flag), _) => flag.name.to_owned(),
                (None, None, _) => setting.purpose.to_owned(),
            };
            all.push((variable.name, text));
        }
    }
    all.extend(OTHER_VARIABLES.iter().map(|(name, purpose)| (*name, (*purpose).to_owned())));
    all
}
