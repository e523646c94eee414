//! `docs/settings.md`: every setting, every variable, every flag of generation, made from the lists that the program
//! itself goes by.

use std::fmt::Write as _;

use pippin::config::Setting;

use crate::env;
use crate::parameters::PARAMETERS;

const HEAD: &str = "\
# Settings

<!-- Written by `pippin config --markdown > docs/settings.md`; a test compares. -->

A value comes from the last of these places that has it: the default, the configuration file, the environment, a flag.
The file is `~/.config/pippin/config.toml`, or the one that `PIPPIN_CONFIG` names; a key `hub.offline` stands as `offline` in the
table `[hub]`. `pippin config` shows every value, and where it came from.
";

const MODELS: &str = "
Single models have `keep_alive` and `context` of their own, and a `draft_model` that guesses for them, by any of their names:

```toml
[models.\"qwen3-4b\"]
keep_alive = \"forever\"
context = 8192
```
";

/// The page.
pub(crate) fn markdown() -> String {
    let mut text = HEAD.to_owned();
    let mut table = |header: &str, rows: &mut dyn Iterator<Item = String>| {
        let columns = header.split(" | ").count();
        let _ = write!(text, "\n| {header} |\n|{}\n", "---|".repeat(columns));
        rows.for_each(|row| {
            let _ = writeln!(text, "| {row} |");
        });
    };
    table(
        "key | flag | variable | default | what it decides",
        &mut Setting::all().iter().map(|setting| {
            let flag = setting
                .flag
                .as_ref()
                .map_or(String::new(), |flag| code(format!("{} {}", flag.name, flag.value_name).trim_end()));
            let variables: Vec<String> =
                setting.variables.iter().map(|variable| code(variable.name)).collect();
            let default = setting.default_text();
            // Words say how it is chosen; anything else can be written into the file.
            let is_words = setting.unset.is_some() || default == "none";
            let default = if is_words { default } else { code(&default) };
            let cells = [&code(setting.key), &flag, &variables.join(", "), &default, setting.purpose];
            cells.map(cell).join(" | ")
        }),
    );
    text.push_str(MODELS);
    text.push_str("\n## Generation\n\nFlags of `pippin run`; `/set` and the lines of `--batch` have the names of the first column.\n");
    let mut rows = String::new();
    for parameter in PARAMETERS {
        let cells = [code(parameter.name), code(&format!("--{}", parameter.flag)), parameter.help()];
        let _ = writeln!(rows, "| {} |", cells.each_ref().map(|text| cell(text)).join(" | "));
    }
    let _ = write!(text, "\n| parameter | flag | what it does |\n|---|---|---|\n{rows}");
    text.push_str("\n## Environment\n\n| variable | what it means |\n|---|---|\n");
    for (name, purpose) in env::all() {
        let _ = writeln!(text, "| {} | {} |", code(name), cell(&purpose));
    }
    text
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// A text that does not end its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");
        let expected = markdown();
        let found = std::fs::read_to_string(path).unwrap_or_default().replace("\r\n", "\n");
        assert!(
            found == expected,
            "docs/settings.md is not what the lists say. Write it anew:\n  \
             cargo run -- config --markdown > docs/settings.md\nIt should be:\n{expected}"
        );
    }
}
