//! The places in which values are looked for.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use pippin_hub::config_folder;

use super::ConfigError;
use super::setting::Setting;

/// The largest configuration file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where the values of an [`EngineConfig`](super::EngineConfig) are looked for. The default looks nowhere.
#[derive(Clone, Debug, Default)]
pub struct ConfigInputs {
    pub(super) file: Option<PathBuf>,
    pub(super) is_file_named: bool,
    pub(super) variables: HashMap<&'static str, String>,
    pub(super) flags: Vec<Given>,
}

#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) key: &'static str,
    pub(super) flag: String,
    pub(super) values: Vec<String>,
}

impl ConfigInputs {
    /// The variable that names the configuration file.
    pub const FILE_VARIABLE: &str = "PIPPIN_CONFIG";

    /// The environment and the configuration file of this process.
    ///
    /// Variables that are empty or not Unicode count as not set.
    pub fn from_env() -> Self {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let named = get(Self::FILE_VARIABLE).map(pippin_hub::expand_path);
        Self {
            is_file_named: named.is_some(),
            file: named.or_else(|| Some(config_folder()?.join("config.toml"))),
            variables: Setting::all()
                .iter()
                .flat_map(|setting| setting.variables)
                .filter_map(|variable| Some((variable.name, get(variable.name)?)))
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
        let mut variables = Setting::all().iter().flat_map(|setting| setting.variables);
        if let Some(known) = variables.find(|known| known.name == name) {
            self.variables.insert(known.name, value.into());
        }
        self
    }

    /// The same with a flag given. `key` is the setting, `flag` what the user knows it by. A flag of a list may be given
    /// several times. Keys without a meaning are ignored.
    #[must_use]
    pub fn with_flag(mut self, key: &str, flag: impl Into<String>, value: impl ToString) -> Self {
        let Some(setting) = Setting::find(key) else { return self };
        let value = value.to_string();
        match self.flags.iter_mut().find(|given| given.key == key) {
            Some(given) if setting.is_list() => given.values.push(value),
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

/// The text of a configuration file; `None` where there is none and none was named.
pub(super) fn read(path: &Path, is_named: bool) -> Result<Option<String>, ConfigError> {
    let failed = |reason: String| Err(ConfigError::Read { path: path.to_owned(), reason, named: is_named });
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound && !is_named => return Ok(None),
        // The home folder of somebody else, whose settings are not meant: `sudo -u` keeps HOME. A file of the user's own that
        // cannot be read is another matter.
        Err(_) if !is_named && path.metadata().is_err() => return Ok(None),
        Err(error) => return failed(error.to_string()),
    };
    let mut text = String::new();
    match file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text) {
        Err(error) => failed(error.to_string()),
        Ok(_) if text.len() as u64 > MAX_FILE_BYTES => failed("it is larger than 1 MB".to_owned()),
        Ok(_) => Ok(Some(text)),
    }
}
