//! The environment variables that Pippin reads, in one list.

/// The model to use when none is named.
pub(crate) const MODEL: &str = "PIPPIN_MODEL";
/// The device.
pub(crate) const DEVICE: &str = "PIPPIN_DEVICE";
/// The number of threads.
pub(crate) const THREADS: &str = "PIPPIN_THREADS";
/// The context length.
pub(crate) const CONTEXT: &str = "PIPPIN_CONTEXT";
/// Whether approximations are off.
pub(crate) const EXACT: &str = "PIPPIN_EXACT";
/// The longest answer.
pub(crate) const MAX_TOKENS: &str = "PIPPIN_MAX_TOKENS";
/// The temperature.
pub(crate) const TEMP: &str = "PIPPIN_TEMP";
/// The history file of the interactive mode.
pub(crate) const HISTORY: &str = "PIPPIN_HISTORY";

/// A variable and what it does.
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) purpose: &'static str,
}

const fn variable(name: &'static str, purpose: &'static str) -> Variable {
    Variable { name, purpose }
}

/// Every variable that has a meaning, as the help lists them. Flags win over variables.
pub(crate) const ALL: &[Variable] = &[
    variable("PIPPIN_CONFIG", "the configuration file, instead of ~/.config/pippin/config.toml"),
    variable(MODEL, "the model to use when none is named, instead of pippin-nano"),
    variable(DEVICE, "--device"),
    variable(THREADS, "--threads"),
    variable(CONTEXT, "--context"),
    variable(EXACT, "--exact (1, true, yes, on; 0, false, no, off)"),
    variable("PIPPIN_KV_CACHE", "--kv-cache"),
    variable("PIPPIN_MEMORY_BUDGET", "--memory-budget"),
    variable("PIPPIN_MAX_LOADED_MODELS", "--max-loaded-models"),
    variable("PIPPIN_KEEP_ALIVE", "--keep-alive"),
    variable("PIPPIN_MAX_SEQUENCES", "requests that one model computes together"),
    variable("PIPPIN_PRELOAD", "--preload; several models are separated by commas"),
    variable("PIPPIN_PIN", "--pin; several models are separated by commas"),
    variable(MAX_TOKENS, "--max-tokens"),
    variable(TEMP, "--temp"),
    variable(HISTORY, "history file of the interactive mode; empty or `off`: none is kept"),
    variable("PIPPIN_NANO_DIR", "folder of the shipped model"),
    variable("HF_HUB_CACHE", "cache of the hub's models"),
    variable("HF_HOME", "parent of that cache, when HF_HUB_CACHE is not set"),
    variable(
        "HF_TOKEN",
        "token for gated and private models; else the file HF_TOKEN_PATH, or token in HF_HOME",
    ),
    variable("HF_ENDPOINT", "server to download from, instead of https://huggingface.co"),
    variable("HF_HUB_OFFLINE", "1: never use the network"),
    variable("HTTPS_PROXY", "proxy; also HTTP_PROXY, ALL_PROXY and NO_PROXY"),
    variable(
        "XDG_RUNTIME_DIR",
        "parent of the folder in which processes publish their models, for pippin ps",
    ),
    variable("NO_COLOR", "no colours on the terminal, whatever its value"),
];

/// The value of a variable that is set, not empty and valid Unicode.
pub(crate) fn value(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The list as a section of the help.
pub(crate) fn help() -> String {
    let width = ALL.iter().map(|variable| variable.name.len()).max().unwrap_or(0);
    let mut text = String::from("Environment:\n");
    for Variable { name, purpose } in ALL {
        text.push_str(&format!("  {name:width$}  {purpose}\n"));
    }
    text
}
