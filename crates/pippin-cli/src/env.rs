//! The environment variables that Pippin reads, in one list.

use pippin::config::environment_variables;

use crate::parameters::PARAMETERS;

/// The history file of the interactive mode.
pub(crate) const HISTORY: &str = "PIPPIN_HISTORY";

/// Every variable that has a meaning, with what it means, Pippin's own first. Flags win over variables.
pub(crate) fn all() -> Vec<(&'static str, String)> {
    let mut all = environment_variables();
    let flags = PARAMETERS.iter().filter_map(|parameter| Some((parameter.variable?, parameter.flag)));
    all.extend(flags.map(|(variable, flag)| (variable, format!("--{flag}"))));
    all.push((HISTORY, "history file of the interactive mode; empty or `off`: none is kept".to_owned()));
    all.push(("NO_COLOR", "no colours on the terminal, unless it is empty".to_owned()));
    all.sort_by_key(|(name, _)| !name.starts_with("PIPPIN_"));
    all
}

/// The list as a section of the help.
pub(crate) fn help() -> String {
    let all = all();
    let width = all.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::from("Environment:\n");
    for (name, purpose) in all {
        text.push_str(&format!("  {name:width$}  {purpose}\n"));
    }
    text
}
