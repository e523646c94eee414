//! The list of the settings. A new one stands here, and has its field in [`EngineConfig`](super::EngineConfig).

use std::time::Duration;

use pippin_tensor::{KvFormat, Numerics};
use serde_json::json;

use super::setting::{Setting, SettingFlag, SettingKind, SettingVariable};
use super::values::KeepAlive;
use super::{ConfigInputs, MemoryBudget};
use crate::device::MAX_STEP;

pub(super) const MAX_CONTEXT: usize = u32::MAX as usize;
pub(super) const KEEP_ALIVE: &str = "a time such as 30 (seconds), \"5m\" or \"1h\", 0, or \"forever\"";
pub(super) const CONTEXT: &str = "a number of tokens from 1";

/// Variables that are no settings.
pub(super) const OTHER_VARIABLES: &[(&str, &str)] = &[
    (ConfigInputs::FILE_VARIABLE, "the configuration file, instead of ~/.config/pippin/config.toml"),
    ("PIPPIN_NANO_DIR", "folder of the shipped model"),
    ("HF_TOKEN", "token for gated and private models; else the file HF_TOKEN_PATH, or token in HF_HOME"),
    ("HTTPS_PROXY", "proxy; also HTTP_PROXY, ALL_PROXY and NO_PROXY"),
    ("XDG_RUNTIME_DIR", "parent of the folder in which processes publish their models, for pippin ps"),
];

/// A variable that means its setting.
const fn variable(name: &'static str) -> SettingVariable {
    SettingVariable { name, purpose: None }
}

/// A variable that has something to say for itself.
const fn variable_for(name: &'static str, purpose: &'static str) -> SettingVariable {
    SettingVariable { name, purpose: Some(purpose) }
}

/// A flag for how a model is loaded.
const fn loading(name: &'static str, value_name: &'static str) -> Option<SettingFlag> {
    Some(SettingFlag { name, value_name, heading: "Loading" })
}

/// A flag for all models together.
const fn engine(name: &'static str, value_name: &'static str) -> Option<SettingFlag> {
    Some(SettingFlag { name, value_name, heading: "Engine" })
}

/// A flag for the server.
const fn server(name: &'static str, value_name: &'static str) -> Option<SettingFlag> {
    Some(SettingFlag { name, value_name, heading: "Server" })
}

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "model",
        variables: &[variable_for(
            "PIPPIN_MODEL",
            "the model to use when none is named, instead of pippin-nano",
        )],
        flag: None,
        purpose: "the model to use when none is named",
        unset: None,
        expected: "a model: a folder, a hub id or an alias",
        kind: SettingKind::Text,
        set: |config, raw| raw.text().map(|value| config.model = value),
        show: |config| json!(config.model),
    },
    Setting {
        key: "device",
        variables: &[variable("PIPPIN_DEVICE")],
        flag: loading("--device", "DEVICE"),
        purpose: "what computes: auto is the first NVIDIA GPU that can be used, or the processor; cuda:1 is the second",
        unset: None,
        expected: "one of auto, cpu, cuda, cuda:1 (the second GPU) and mlx",
        kind: SettingKind::Device,
        set: |config, raw| raw.text()?.parse().ok().map(|value| config.device = value),
        show: |config| json!(config.device.to_string()),
    },
    Setting {
        key: "threads",
        variables: &[variable("PIPPIN_THREADS")],
        flag: loading("--threads", "N"),
        purpose: "threads of the CPU",
        unset: Some("as many as it runs at once"),
        expected: "a number from 1 to 1024",
        kind: SettingKind::Integer(1, 1024),
        set: |config, raw| raw.integer(1, 1024).map(|value| config.threads = Some(value)),
        show: |config| json!(config.threads),
    },
    Setting {
        key: "context",
        variables: &[variable("PIPPIN_CONTEXT")],
        flag: loading("--context", "TOKENS"),
        purpose: "the longest sequence in tokens, prompt and answer together",
        unset: Some("what model and memory allow"),
        expected: CONTEXT,
        kind: SettingKind::Integer(1, MAX_CONTEXT as u64),
        set: |config, raw| raw.integer(1, MAX_CONTEXT).map(|value| config.context = Some(value)),
        show: |config| json!(config.context),
    },
    Setting {
        key: "exact",
        variables: &[variable("PIPPIN_EXACT")],
        flag: loading("--exact", ""),
        purpose: "compute exactly, without approximations for speed",
        unset: None,
        expected: "true or false",
        kind: SettingKind::Boolean,
        set: |config, raw| {
            let numerics = |exact| if exact { Numerics::Exact } else { Numerics::Fast };
            raw.boolean().map(|exact| config.numerics = numerics(exact))
        },
        show: |config| json!(config.numerics == Numerics::Exact),
    },
    Setting {
        key: "kv_cache",
        variables: &[variable("PIPPIN_KV_CACHE")],
        flag: loading("--kv-cache", "FORMAT"),
        purpose: "how the KV cache stores its numbers",
        unset: Some("as the checkpoint does its own"),
        expected: "one of f32, f16, bf16 and int8",
        kind: SettingKind::Choice(&["f32", "f16", "bf16", "int8"]),
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
        variables: &[variable("PIPPIN_MAX_SEQUENCES")],
        flag: None,
        purpose: "requests that one model computes together",
        unset: None,
        expected: "a number from 1 to 4096",
        kind: SettingKind::Integer(1, 4096),
        set: |config, raw| raw.integer(1, 4096).map(|value| config.max_sequences = value),
        show: |config| json!(config.max_sequences),
    },
    Setting {
        key: "max_waiting",
        variables: &[variable("PIPPIN_MAX_WAITING")],
        flag: None,
        purpose: "requests that may wait for one model; one more is refused",
        unset: None,
        expected: "a number from 0 to 1000000",
        kind: SettingKind::Integer(0, 1_000_000),
        set: |config, raw| raw.integer(0, 1_000_000).map(|value| config.max_waiting = value),
        show: |config| json!(config.max_waiting),
    },
    Setting {
        key: "prefill_step_size",
        variables: &[variable("PIPPIN_PREFILL_STEP_SIZE")],
        flag: loading("--prefill-step-size", "N"),
        purpose: "prompt tokens that are computed in one step, over all requests of a model",
        unset: None,
        expected: "a number from 1 to 16384",
        kind: SettingKind::Integer(1, MAX_STEP as u64),
        set: |config, raw| raw.integer(1, MAX_STEP).map(|value| config.prefill_step_size = value),
        show: |config| json!(config.prefill_step_size),
    },
    Setting {
        key: "prefix_cache",
        variables: &[variable("PIPPIN_PREFIX_CACHE")],
        flag: loading("--prefix-cache", "FOLDER"),
        purpose: "the folder where computed prefixes are kept on disk, for requests that begin alike after a restart",
        unset: Some("they are kept in memory only"),
        expected: "a folder",
        kind: SettingKind::Text,
        set: |config, raw| raw.text().map(|value| config.prefix_cache = Some(pippin_hub::expand_path(value))),
        show: |config| json!(config.prefix_cache),
    },
    Setting {
        key: "prefix_cache_size",
        variables: &[variable("PIPPIN_PREFIX_CACHE_SIZE")],
        flag: loading("--prefix-cache-size", "SIZE"),
        purpose: "how large that folder may be, over all models; what was used least recently goes",
        unset: None,
        expected: "a size such as \"20 GB\"",
        kind: SettingKind::Bytes,
        set: |config, raw| match raw.memory_budget()? {
            MemoryBudget::Bytes(bytes) => {
                config.prefix_cache_size = bytes;
                Some(())
            }
            MemoryBudget::Percent(_) => None,
        },
        show: |config| json!(MemoryBudget::Bytes(config.prefix_cache_size).to_string()),
    },
    Setting {
        key: "memory_budget",
        variables: &[variable("PIPPIN_MEMORY_BUDGET")],
        flag: loading("--memory-budget", "SIZE"),
        purpose: "memory that models may take: 12GB, or a share of what is free at the start",
        unset: None,
        expected: "a size such as \"12 GB\", or a share such as \"80%\"",
        kind: SettingKind::Size,
        set: |config, raw| raw.memory_budget().map(|value| config.memory_budget = value),
        show: |config| json!(config.memory_budget.to_string()),
    },
    Setting {
        key: "max_loaded_models",
        variables: &[variable("PIPPIN_MAX_LOADED_MODELS")],
        flag: engine("--max-loaded-models", "N"),
        purpose: "the most models that are loaded at a time",
        unset: None,
        expected: "a number from 1 to 1000",
        kind: SettingKind::Integer(1, 1000),
        set: |config, raw| raw.integer(1, 1000).map(|value| config.max_loaded_models = value),
        show: |config| json!(config.max_loaded_models),
    },
    Setting {
        key: "keep_alive",
        variables: &[variable("PIPPIN_KEEP_ALIVE")],
        flag: engine("--keep-alive", "TIME"),
        purpose: "how long a model stays loaded after its last use: 30s, 5m, 1h, 0 or forever",
        unset: None,
        expected: KEEP_ALIVE,
        kind: SettingKind::Time,
        set: |config, raw| raw.keep_alive().map(|value| config.keep_alive = value),
        show: |config| json!(config.keep_alive.to_string()),
    },
    Setting {
        key: "preload",
        variables: &[variable("PIPPIN_PRELOAD")],
        flag: engine("--preload", "MODEL"),
        purpose: "models to load at the start",
        unset: None,
        expected: "a list of model names",
        kind: SettingKind::List,
        set: |config, raw| raw.list().map(|value| config.preload = value),
        show: |config| json!(config.preload),
    },
    Setting {
        key: "pin",
        variables: &[variable("PIPPIN_PIN")],
        flag: engine("--pin", "MODEL"),
        purpose: "models that are never evicted",
        unset: None,
        expected: "a list of model names",
        kind: SettingKind::List,
        set: |config, raw| raw.list().map(|value| config.pin = value),
        show: |config| json!(config.pin),
    },
    Setting {
        key: "hub.cache_dir",
        variables: &[
            variable_for("HF_HUB_CACHE", "cache of the hub's models"),
            variable_for("HUGGINGFACE_HUB_CACHE", "the same, when HF_HUB_CACHE is not set"),
            variable_for("HF_HOME", "parent of that cache, when neither is set"),
        ],
        flag: None,
        purpose: "the Hugging Face cache",
        unset: Some("where its other tools keep it"),
        expected: "a folder",
        kind: SettingKind::Text,
        set: |config, raw| {
            raw.text().map(|value| config.hub.cache_dir = Some(pippin_hub::expand_path(value)))
        },
        show: |config| json!(config.hub.cache_dir),
    },
    Setting {
        key: "hub.endpoint",
        variables: &[variable_for(
            "HF_ENDPOINT",
            "server to download from, instead of https://huggingface.co",
        )],
        flag: None,
        purpose: "the address of the hub or of a mirror",
        unset: Some("the hub itself"),
        expected: "an address that begins with https:// or http://",
        kind: SettingKind::Text,
        set: |config, raw| {
            let text = raw.text()?;
            let is_address = text.starts_with("https://") || text.starts_with("http://");
            is_address.then(|| config.hub.endpoint = Some(text.trim_end_matches('/').to_owned()))
        },
        show: |config| json!(config.hub.endpoint),
    },
    Setting {
        key: "hub.offline",
        variables: &[variable_for("HF_HUB_OFFLINE", "1: never use the network")],
        flag: None,
        purpose: "leave the network alone",
        unset: None,
        expected: "true or false",
        kind: SettingKind::Boolean,
        set: |config, raw| raw.boolean().map(|value| config.hub.offline = value),
        show: |config| json!(config.hub.offline),
    },
    Setting {
        key: "server.host",
        variables: &[variable("PIPPIN_HOST")],
        flag: server("--host", "ADDRESS"),
        purpose: "the address or name at which the server listens; one that others can reach needs a file of keys",
        unset: None,
        expected: "an address such as 127.0.0.1, 0.0.0.0 or ::1, or a name of this machine",
        kind: SettingKind::Text,
        set: |config, raw| raw.text().map(|value| config.server.host = value),
        show: |config| json!(config.server.host),
    },
    Setting {
        key: "server.port",
        variables: &[variable("PIPPIN_PORT")],
        flag: server("--port", "N"),
        purpose: "the port at which the server listens; 0 is one that is free",
        unset: None,
        expected: "a number from 0 to 65535",
        kind: SettingKind::Integer(0, u16::MAX as u64),
        set: |config, raw| {
            let port = u16::try_from(raw.integer(0, u16::MAX.into())?).ok()?;
            config.server.port = port;
            Some(())
        },
        show: |config| json!(config.server.port),
    },
    Setting {
        key: "server.keys_file",
        variables: &[variable("PIPPIN_KEYS_FILE")],
        flag: server("--keys-file", "FILE"),
        purpose: "the keys that clients of the server may show, one in each line",
        unset: Some("no key is needed"),
        expected: "a file",
        kind: SettingKind::Text,
        set: |config, raw| {
            raw.text().map(|value| config.server.keys_file = Some(pippin_hub::expand_path(value)))
        },
        show: |config| json!(config.server.keys_file),
    },
    Setting {
        key: "server.manage_keys_file",
        variables: &[variable("PIPPIN_MANAGE_KEYS_FILE")],
        flag: server("--manage-keys-file", "FILE"),
        purpose: "the keys of those who may also load, unload, download and delete models, one in each line",
        unset: Some("nobody may, but with --manage"),
        expected: "a file",
        kind: SettingKind::Text,
        set: |config, raw| {
            raw.text().map(|value| config.server.manage_keys_file = Some(pippin_hub::expand_path(value)))
        },
        show: |config| json!(config.server.manage_keys_file),
    },
    Setting {
        key: "server.allowed_hosts",
        variables: &[variable("PIPPIN_ALLOWED_HOSTS")],
        flag: server("--allowed-hosts", "NAME"),
        purpose: "names by which the server may be asked, besides localhost and addresses; * is any",
        unset: None,
        expected: "a list of names",
        kind: SettingKind::List,
        set: |config, raw| raw.list().map(|value| config.server.allowed_hosts = value),
        show: |config| json!(config.server.allowed_hosts),
    },
    Setting {
        key: "server.allowed_origins",
        variables: &[variable("PIPPIN_ALLOWED_ORIGINS")],
        flag: server("--allowed-origins", "ORIGIN"),
        purpose: "origins whose web pages may ask the server, such as http://localhost:3000; * is any",
        unset: None,
        expected: "a list of origins",
        kind: SettingKind::List,
        set: |config, raw| raw.list().map(|value| config.server.allowed_origins = value),
        show: |config| json!(config.server.allowed_origins),
    },
    Setting {
        key: "server.max_requests",
        variables: &[variable("PIPPIN_MAX_REQUESTS")],
        flag: server("--max-requests", "N"),
        purpose: "answers that the server has under way at a time, waiting ones included; more are refused",
        unset: None,
        expected: "a number from 1 to 100000",
        kind: SettingKind::Integer(1, 100_000),
        set: |config, raw| raw.integer(1, 100_000).map(|value| config.server.max_requests = value),
        show: |config| json!(config.server.max_requests),
    },
    Setting {
        key: "server.max_requests_per_key",
        variables: &[variable("PIPPIN_MAX_REQUESTS_PER_KEY")],
        flag: server("--max-requests-per-key", "N"),
        purpose: "the same for each key",
        unset: Some("as many as the server has"),
        expected: "a number from 1 to 100000",
        kind: SettingKind::Integer(1, 100_000),
        set: |config, raw| {
            raw.integer(1, 100_000).map(|value| config.server.max_requests_per_key = Some(value))
        },
        show: |config| json!(config.server.max_requests_per_key),
    },
    Setting {
        key: "server.max_answer_time",
        variables: &[variable("PIPPIN_MAX_ANSWER_TIME")],
        flag: server("--max-answer-time", "TIME"),
        purpose: "in what time an answer has to be finished; what takes longer is an error",
        unset: Some("in any"),
        expected: "a time such as 30s or 10m, or -1 for any",
        kind: SettingKind::Time,
        set: |config, raw| {
            let value = raw.keep_alive()?.duration();
            // In no time there is no answer.
            (value != Some(Duration::ZERO)).then(|| config.server.max_answer_time = value)
        },
        show: |config| json!(config.server.max_answer_time.map(|time| KeepAlive::For(time).to_string())),
    },
];
