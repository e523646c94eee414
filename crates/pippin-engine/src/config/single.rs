//! What holds for single models, by whichever of their names.

use std::collections::BTreeMap;

use pippin_hub::{ModelConfiguration, ModelIdentity, ModelLocation, Resolver};

use super::{ConfigError, EngineConfig, ModelSettings, model_key};

/// What holds for a model. A name in the table means the model that it names, as everywhere, and all its revisions; with
/// a revision (`qwen3-4b@v1`) that one alone, before what holds for all.
pub(crate) fn settings_for(
    models: &BTreeMap<String, ModelSettings>,
    model: &ModelConfiguration,
    resolver: impl FnOnce() -> Resolver,
) -> ModelSettings {
    let mut found = ModelSettings::default();
    if models.is_empty() {
        return found;
    }
    let resolver = resolver();
    let identity = resolver.identity(model);
    let own = model.name();
    // Names that only the configuration itself knows: it may be of another registry.
    let names = |name: &str| model.aliases.iter().chain([&own]).any(|own| own.eq_ignore_ascii_case(name));
    for wants_revision in [true, false] {
        for (name, settings) in models {
            let (base, revision) = split(name);
            let is_same = names(base)
                || names(name)
                || resolver.configuration(name).is_ok_and(|named| resolver.identity(&named) == identity);
            let is_meant = match (revision, &model.location) {
                (Some(wanted), ModelLocation::Hub { revision, .. }) => wanted == revision,
                _ => true,
            };
            if is_same && is_meant && revision.is_some() == wants_revision {
                found.keep_alive = found.keep_alive.or(settings.keep_alive);
                found.context = found.context.or(settings.context);
                found.draft_model = found.draft_model.or_else(|| settings.draft_model.clone());
            }
        }
    }
    found
}

/// A name and the revision that stands behind it.
fn split(name: &str) -> (&str, Option<&str>) {
    name.split_once('@').map_or((name, None), |(base, revision)| (base, Some(revision)))
}

impl EngineConfig {
    /// What holds for the model of this name. A name that nothing is known of is one only as it is spelled.
    pub(super) fn settings(&self, model: &str) -> ModelSettings {
        if self.models.is_empty() {
            return ModelSettings::default();
        }
        let resolver = self.names();
        match resolver.configuration(model) {
            Ok(configuration) => settings_for(&self.models, &configuration, || resolver),
            Err(_) => self.models.get(model).cloned().unwrap_or_default(),
        }
    }

    /// What tells the models of names, also where the file of the user's models is wrong: who loads a model hears of that.
    fn names(&self) -> Resolver {
        self.resolver().unwrap_or_else(|_| Resolver::from_env())
    }

    /// Refuses two tables for one model: which of them holds could only be guessed.
    pub(super) fn check_models(&self) -> Result<(), ConfigError> {
        if self.models.len() < 2 {
            return Ok(());
        }
        let resolver = self.names();
        let mut seen: BTreeMap<(ModelIdentity, Option<&str>), &str> = BTreeMap::new();
        // In the order of the file, so that the later one is the mistake.
        let mut names: Vec<&str> = self.models.keys().map(String::as_str).collect();
        let place = |name: &str| {
            let keys = ModelSettings::KEYS.map(|key| self.source(&model_key(name, key)));
            keys.into_iter()
                .filter(|source| source.line().is_some())
                .min_by_key(|source| source.line())
                .cloned()
        };
        names.sort_by_key(|name| place(name).and_then(|source| source.line()));
        for name in names {
            let Ok(configuration) = resolver.configuration(name) else { continue };
            let key = (resolver.identity(&configuration), split(name).1);
            if let Some(other) = seen.insert(key, name) {
                return Err(ConfigError::SameModel {
                    origin: place(name).unwrap_or_default(),
                    model: name.to_owned(),
                    other: other.to_owned(),
                });
            }
        }
        Ok(())
    }
}
