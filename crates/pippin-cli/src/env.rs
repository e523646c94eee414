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
    variable(MODEL, "the model to use when none is named, instead of pippin-nano"),
    variable(DEVICE, "--device"),
    variable(THREADS, "--threads"),
    variable(CONTEXT, "--context"),
    variable(EXACT, "--exact (0, false, no and off mean no)"),
    variable(MAX_TOKENS, "--max-tokens"),
    variable(TEMP, "--temp"),
    variable(HISTORY, "history file of the interactive mode; empty or `off`: none is kept"),
    variable("PIPPIN_NANO_DIR", "folder of the shipped model"),
    variable("HF_HUB_CACHE", "cache in which hub models are looked for"),
    variable("HF_HOME", "parent of that cache, when HF_HUB_CACHE is not set"),
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
