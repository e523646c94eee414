//! Which of a model's files holds its chat template.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use super::{ChatTemplate, Program, SOURCE_LIMIT, TemplateLimits};
use crate::error::{Result, TextError};
use crate::files::{self, kind};

/// The templates of a folder by what they are for, in the place that counts, and what was left out.
#[derive(Default)]
struct Found {
    default: Option<Place>,
    tool_use: Option<Place>,
    warnings: Vec<String>,
}

/// Where a template is: its source, or why there is none.
struct Place {
    origin: String,
    source: Result<String, String>,
}

impl ChatTemplate {
    /// Looks for the template of a model folder; `None` when the model has none.
    ///
    /// As in `transformers`, files of their own come first:
    ///
    /// 1. `chat_template.jinja`;
    /// 2. `chat_template` in `tokenizer_config.json`: a string; a list of objects with `name` and `template`; or an object
    ///    whose fields are the names;
    /// 3. `chat_template.json`, an older form for models with a processor, which mlx-lm does not read;
    /// 4. `additional_chat_templates/default.jinja`.
    ///
    /// For prompts with tools, `additional_chat_templates/tool_use.jinja` counts, or the template named `tool_use` where the
    /// chosen place has several; without either, the same as for all others, which is the one named `default`.
    ///
    /// A place in a JSON file that makes no sense is passed over, with a [warning](Self::warnings); if there is no other, that is
    /// the error of whoever renders. So is a template that cannot be read or has a mistake: prompts that need no template do not
    /// need it to be right.
    ///
    /// # Errors
    ///
    /// `tokenizer_config.json` cannot be read.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Option<Self>> {
        let dir = dir.as_ref();
        let mut found = Found::default();
        found.default = found.file(dir.join("chat_template.jinja"));
        found.tool_use = found.file(dir.join("additional_chat_templates").join("tool_use.jinja"));
        if found.default.is_none() {
            let path = dir.join("tokenizer_config.json");
            let config = files::read_object(&path)?.unwrap_or_default();
            found.field(&path, &config);
        }
        if found.default.is_none() {
            let path = dir.join("chat_template.json");
            let config = files::read_optional_object(&path, &mut found.warnings);
            found.field(&path, &config);
        }
        if found.default.is_none() {
            found.default = found.file(dir.join("additional_chat_templates").join("default.jinja"));
        }
        let Found { default, tool_use, mut warnings } = found;
        let Some(default) = default else {
            // Where there might have been one, whoever needs it should learn what was wrong with it.
            let Some(problem) = warnings.first().cloned() else { return Ok(None) };
            let default = Program::unreadable(dir.display().to_string(), problem);
            return Ok(Some(Self { default, tool_use: None, limits: TemplateLimits::default(), warnings }));
        };
        let mut program = |Place { origin, source }: Place| {
            let program = match source {
                Ok(source) => Program::parse(origin, source),
                Err(problem) => Program::unreadable(origin, problem),
            };
            if let Err(error) = &program.block {
                warnings.push(format!("{error}: prompts that need it will fail"));
            }
            program
        };
        let (default, tool_use) = (program(default), tool_use.map(&mut program));
        Ok(Some(Self { default, tool_use, limits: TemplateLimits::default(), warnings }))
    }
}

impl Found {
    /// The template in a file of its own, if it is there. One that cannot be read is no reason to take another one.
    fn file(&mut self, path: PathBuf) -> Option<Place> {
        let source = match files::read_text(&path, SOURCE_LIMIT) {
            Ok(source) => Ok(source?),
            Err(TextError::Io { source, .. }) => Err(format!("cannot read the file: {source}")),
            Err(error) => Err(error.to_string()),
        };
        Some(Place { origin: path.display().to_string(), source })
    }

    /// Takes what a field `chat_template` says; `path` is that of its file.
    fn field(&mut self, path: &Path, config: &Map<String, Json>) {
        let named: Vec<(Option<&str>, Option<&str>)> = match config.get("chat_template") {
            None | Some(Json::Null) => return,
            Some(Json::String(source)) => vec![(Some("default"), Some(source.as_str()))],
            Some(Json::Object(templates)) => {
                templates.iter().map(|(name, source)| (Some(name.as_str()), source.as_str())).collect()
            }
            Some(Json::Array(entries)) => entries
                .iter()
                .map(|entry| {
                    let text = |key: &str| entry.get(key).and_then(Json::as_str);
                    (text("name"), text("template"))
                })
                .collect(),
            Some(other) => {
                self.ignored(
                    path,
                    "must be a string or a list of named templates",
                    &format!("found {}", kind(other)),
                );
                return;
            }
        };
        for (name, source) in named {
            let (Some(name), Some(source)) = (name, source) else {
                self.ignored(path, "must have a name and a template in each entry", "one has not");
                continue;
            };
            let slot = match name {
                "default" => &mut self.default,
                "tool_use" if self.tool_use.is_none() => &mut self.tool_use,
                // Templates for other purposes (retrieval and the like) are chosen by name; nothing here does.
                _ => continue,
            };
            let origin = format!("{}: chat_template {name:?}", path.display());
            *slot = Some(Place { origin, source: Ok(source.to_owned()) });
        }
        if self.default.is_none() {
            self.ignored(path, "must have a template named \"default\"", "there is none");
        }
    }

    fn ignored(&mut self, path: &Path, expected: &str, found: &str) {
        self.warnings
            .push(format!("{}: field `chat_template`: {expected}; {found}; ignored", path.display()));
    }
}
