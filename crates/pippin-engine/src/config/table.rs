//! The list of the settings.

use std::path::{Path, PathBuf};

use pippin_tensor::{KvFormat, Numerics};
use serde_json::{Value, json};

use super::EngineConfig;
use super::values::Raw;
use crate::device::MAX_STEP;

pub(super) const MAX_CONTEXT: usize = u32::MAX as usize;
pub(super) const KEEP_ALIVE: &str = "a time such as 30 (seconds), \"5m\" or \"1h\", 0, or \"forever\"";
pub(super) const CONTEXT: &str = "a number of tokens from 1";

/// A setting: its key, its variables, and how it is read and shown.
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) variables: &'static [&'static str],
    pub(super) purpose: &'static str,
    pub(super) expected: &'static str,
    pub(super) is_list: bool,
    pub(super) set: fn(&mut EngineConfig, &Raw) -> Option<()>,
    pub(super) show: fn(&EngineConfig) -> Value,
}

pub(super) const SETTINGS: &[Setting] = &[
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
        key: "kv_cache",
        variables: &["PIPPIN_KV_CACHE"],
        purpose: "how the KV cache stores its numbers; unset: as the checkpoint does its own",
        expected: "one of f32, f16, bf16 and int8",
        is_list: false,
        set: |config, raw| {
            let name = raw.text()?;
            let format = KvFormat::ALL.into_iter().find(|format| format.as_str() == name)?;
            config.kv_cache = Some(format);
            Some(())
        },
        show: |config| json!(config.kv_cache.map(KvFormat::as_str)),
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
        key: "prefill_step_size",
        variables: &["PIPPIN_PREFILL_STEP_SIZE"],
        purpose: "prompt tokens in one step, over all requests of a model",
        expected: "a number from 1 to 16384",
        is_list: false,
        set: |config, raw| raw.integer(1, MAX_STEP).map(|value| config.prefill_step_size = value),
        show: |config| json!(config.prefill_step_size),
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
