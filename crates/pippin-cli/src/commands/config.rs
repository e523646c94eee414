//! `pippin config`: the settings, and where each came from.

use std::fmt::Write as _;
use std::path::Path;

use pippin::config::ConfigEntry;
use serde::Serialize;
use serde_json::Value;

use crate::args::ConfigArgs;
use crate::error::Result;
use crate::output::{self, visible};
use crate::reference;
use crate::settings::Surroundings;

#[derive(Serialize)]
struct Listing<'a> {
    /// The file that is looked at.
    file: Option<&'a Path>,
    file_exists: bool,
    settings: Vec<ConfigEntry>,
}

/// Prints the settings.
pub(super) fn run(args: &ConfigArgs, surroundings: &Surroundings) -> Result<()> {
    if args.markdown {
        output::data(&reference::markdown())?;
        return Ok(());
    }
    let config = surroundings.configured(|inputs| args.settings.add_to(inputs))?;
    let file = surroundings.inputs.file();
    let listing = Listing { file, file_exists: file.is_some_and(Path::exists), settings: config.entries() };
    let text = if args.json { format!("{}\n", output::json_pretty(&listing)) } else { listing.to_text() };
    output::data(&text)?;
    Ok(())
}

impl Listing<'_> {
    fn to_text(&self) -> String {
        let mut text = match self.file {
            Some(file) if self.file_exists => format!("{}\n", visible(&file.display().to_string())),
            Some(file) => format!("{} (does not exist)\n", visible(&file.display().to_string())),
            None => "no configuration file: no home folder is set\n".to_owned(),
        };
        let rows: Vec<[String; 3]> = self
            .settings
            .iter()
            .map(|entry| [visible(&entry.key), visible(&shown(&entry.value)), visible(&entry.source)])
            .collect();
        let width =
            |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).min(60);
        let (first, second) = (width(0), width(1));
        for [key, value, source] in &rows {
            let _ = writeln!(text, "  {key:first$}  {value:second$}  {source}");
        }
        text
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "unset".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
}
