use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use serde::Deserialize;

use crate::configuration::Entry;
use crate::{HubError, ModelConfiguration, Result};

/// The largest file of the user's models that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The models known by name.
///
/// [`shared`](Self::shared) is the registry that comes with Pippin, [`local`](Self::local) has the user's additions too.
/// A program that needs models of its own clones one and [registers](Self::register) them, or starts from
/// [`ModelRegistry::default`], which is empty.
///
/// The user's additions stand in `pippin/models.toml` in the XDG configuration folder:
///
/// ```toml
/// [[model]]
/// id = "my-org/My-Model-4bit"          # or path = "/data/models/mine"
/// revision = "main"
/// aliases = ["mine"]
/// stop_strings = ["\nUser:"]
/// ```
///
/// Also: `extra_eos_tokens`, `kinds`, `family`, `default_prompt`, `tool_format`, `reasoning` (a pair of markers), `tokenizer`, `bits`,
/// `group_size`, `mode`, `parameters`, `active_parameters`, `kv_bytes_per_token`.
#[derive(Clone, Debug, Default)]
pub struct ModelRegistry {
    configurations: Vec<ModelConfiguration>,
}

impl ModelRegistry {
    /// The registry that comes with Pippin.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<ModelRegistry> = LazyLock::new(|| {
            // The file is compiled in and a test reads it, so a fault in it never reaches a user.
            let entries: Vec<Entry> = serde_json::from_str(include_str!("registry.json")).unwrap_or_default();
            let mut configurations = vec![ModelConfiguration::nano()];
            configurations.extend(entries.into_iter().map(ModelConfiguration::from));
            ModelRegistry { configurations }
        });
        &SHARED
    }

    /// The registry that comes with Pippin, and the user's additions. The file is read once.
    ///
    /// # Errors
    ///
    /// As for [`add_file`](Self::add_file).
    pub fn local() -> Result<&'static Self> {
        static LOCAL: LazyLock<Result<ModelRegistry, Arc<HubError>>> = LazyLock::new(|| {
            let mut registry = ModelRegistry::shared().clone();
            match user_file() {
                Some(path) if path.exists() => registry.add_file(&path).map(|()| registry).map_err(Arc::new),
                _ => Ok(registry),
            }
        });
        LOCAL.as_ref().map_err(|error| HubError::Shared(Arc::clone(error)))
    }

    /// Adds the models of a TOML file. Their aliases win over those of other models.
    ///
    /// # Errors
    ///
    /// [`HubError::Read`], or [`HubError::ModelsFile`] with the line that is wrong.
    pub fn add_file(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::metadata(path)
            .and_then(|metadata| {
                if metadata.len() > MAX_FILE_BYTES {
                    return Err(std::io::Error::other("it is larger than 1 MB"));
                }
                std::fs::read_to_string(path)
            })
            .map_err(|source| HubError::Read { path: path.to_owned(), source })?;
        self.add_toml(&text).map_err(|(line, problem)| HubError::ModelsFile {
            path: path.to_owned(),
            line,
            problem,
        })
    }

    fn add_toml(&mut self, text: &str) -> Result<(), (usize, String)> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            #[serde(default)]
            model: Vec<toml::Spanned<Entry>>,
        }
        let line = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        let file: File = toml::from_str(text).map_err(|error| {
            let message = error.message().lines().collect::<Vec<_>>().join(" ");
            (line(error.span().map_or(0, |span| span.start)), message)
        })?;
        let mut taken: Vec<String> = Vec::new();
        for entry in file.model {
            let line = line(entry.span().start);
            let entry = entry.into_inner();
            if let Some(problem) = entry.problem() {
                return Err((line, problem));
            }
            let configuration = ModelConfiguration::from(entry);
            for name in configuration.aliases.iter().cloned().chain([configuration.name()]) {
                let name = name.to_ascii_lowercase();
                if taken.contains(&name) {
                    return Err((line, format!("{name:?} stands here twice")));
                }
                taken.push(name);
            }
            self.register(configuration);
        }
        Ok(())
    }

    /// Adds a model, in place of any of the same name.
    pub fn register(&mut self, configuration: ModelConfiguration) {
        let name = configuration.name();
        match self.configurations.iter_mut().find(|known| known.name() == name) {
            Some(known) => *known = configuration,
            None => self.configurations.push(configuration),
        }
    }

    /// The model of this name or alias; case does not matter. Of several, the one registered last.
    pub fn get(&self, name: &str) -> Option<&ModelConfiguration> {
        self.configurations
            .iter()
            .rev()
            .find(|configuration| names(configuration).any(|candidate| candidate.eq_ignore_ascii_case(name)))
    }

    /// All models, in the order of registration.
    pub fn iter(&self) -> impl Iterator<Item = &ModelConfiguration> {
        self.configurations.iter()
    }

    /// Up to three names or aliases that are spelled nearly like `name`, nearest first.
    pub fn suggest(&self, name: &str) -> Vec<String> {
        // Long input is a prompt or a mistake, and edit distance is quadratic.
        if name.is_empty() || name.len() > 96 {
            return Vec::new();
        }
        let wanted = name.to_ascii_lowercase();
        let letters = |text: &str| -> String { text.chars().filter(char::is_ascii_alphanumeric).collect() };
        let wanted_letters = letters(&wanted);
        let limit = (wanted.chars().count() / 4).clamp(1, 3);
        let mut near: Vec<(usize, String)> = Vec::new();
        for configuration in &self.configurations {
            // One suggestion per model: its nearest name.
            let best = names(configuration)
                .map(|candidate| {
                    let lower = candidate.to_ascii_lowercase();
                    // Other separators, `qwen3_4b`, or none are no mistake in the letters.
                    let is_same = wanted_letters.len() > 3 && letters(&lower) == wanted_letters;
                    (if is_same { 0 } else { edit_distance(&wanted, &lower) }, candidate)
                })
                .min_by_key(|(distance, _)| *distance);
            if let Some((distance, candidate)) = best
                && distance <= limit
            {
                near.push((distance, candidate));
            }
        }
        near.sort_by_key(|(distance, _)| *distance);
        // A clear winner needs no company: one letter more or less away is what a typing error looks like.
        let nearest = near.first().map_or(0, |(distance, _)| *distance);
        near.into_iter().filter(|(distance, _)| *distance == nearest).take(3).map(|(_, name)| name).collect()
    }
}

/// The folder of Pippin's configuration: `$XDG_CONFIG_HOME/pippin`, else `~/.config/pippin`; on Windows
/// `%APPDATA%\\pippin`.
pub fn config_folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(crate::expand_path).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().filter(|home| home.is_absolute());
    let parent = variable("XDG_CONFIG_HOME")
        .or_else(|| if cfg!(windows) { variable("APPDATA") } else { Some(home()?.join(".config")) })?;
    Some(parent.join("pippin"))
}

/// The file of the user's models.
fn user_file() -> Option<PathBuf> {
    Some(config_folder()?.join("models.toml"))
}

/// A model's name, the part of it after the organisation, and its aliases.
fn names(configuration: &ModelConfiguration) -> impl Iterator<Item = String> {
    let name = configuration.name();
    let short = name.rsplit_once('/').map(|(_, short)| short.to_owned());
    configuration.aliases.iter().cloned().chain(std::iter::once(name)).chain(short)
}

/// The Levenshtein distance, for "did you mean": insertions, deletions and replacements between two texts.
pub fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (above + 1).min(row[j] + 1).min(diagonal + usize::from(x != *y));
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_is_valid_and_its_names_are_unique() {
        let entries: Vec<Entry> = serde_json::from_str(include_str!("registry.json")).expect("valid JSON");
        assert_eq!(entries.len() + 1, ModelRegistry::shared().iter().count());
        let mut all: Vec<String> =
            ModelRegistry::shared().iter().flat_map(names).map(|name| name.to_lowercase()).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count, "two models share a name");
    }

    #[test]
    fn finds_by_alias_id_and_short_name() {
        let registry = ModelRegistry::shared();
        for name in ["qwen3-4b", "QWEN3-4B", "mlx-community/Qwen3-4B-4bit", "Qwen3-4B-4bit"] {
            assert_eq!(
                registry.get(name).map(ModelConfiguration::name).as_deref(),
                Some("mlx-community/Qwen3-4B-4bit")
            );
        }
        assert!(registry.get("hello").is_none());
        assert_eq!(registry.get("pippin-nano"), Some(&ModelConfiguration::nano()));
    }

    #[test]
    fn suggests_near_names_only() {
        let registry = ModelRegistry::shared();
        assert_eq!(registry.suggest("qwen3-4bb"), ["qwen3-4b"]);
        assert_eq!(registry.suggest("pipin-nano"), ["pippin-nano"]);
        assert!(registry.suggest("What is 17 plus 25?").is_empty());
        assert!(registry.suggest(&"x".repeat(10_000)).is_empty());
    }

    #[test]
    fn registering_replaces_the_same_name() {
        let mut registry = ModelRegistry::default();
        registry.register(ModelConfiguration::hub("me/model"));
        registry.register(ModelConfiguration::hub("me/model").with_stop_strings(["END"]));
        assert_eq!(registry.iter().count(), 1);
        assert_eq!(registry.get("model").expect("registered").stop_strings, ["END"]);
    }

    #[test]
    fn every_model_of_the_reference_is_there_once() {
        let registry = ModelRegistry::shared();
        let lines =
            include_str!("../tests/data/registry_ids.txt").lines().filter(|line| !line.starts_with('#'));
        let mut counts = [0; 3];
        for line in lines {
            let (kind, id) = line.split_once(' ').expect("a kind and an id");
            let found: Vec<_> = registry.iter().filter(|configuration| configuration.name() == id).collect();
            assert_eq!(found.len(), 1, "{id}");
            assert!(found[0].kinds.iter().any(|known| known.as_str() == kind), "{id} is no {kind}");
            counts[["llm", "vlm", "embedder"].iter().position(|known| *known == kind).expect("a kind")] += 1;
        }
        assert_eq!(counts, [67, 21, 22]);
    }

    #[test]
    fn the_shipped_file_is_plausible() {
        let entries: Vec<Entry> = serde_json::from_str(include_str!("registry.json")).expect("valid JSON");
        for entry in entries {
            assert_eq!(entry.problem(), None, "{:?}", entry.id);
            let model = ModelConfiguration::from(entry);
            let name = model.name();
            assert!(!model.kinds.is_empty() && model.family.is_some(), "{name}");
            let parameters = model.parameters.expect("a number of parameters");
            assert!((1_000_000..1_000_000_000_000).contains(&parameters), "{name}");
            assert!(model.active_parameters.is_none_or(|active| active < parameters), "{name}");
            let weights = model.weights.as_ref().expect("a form of the weights");
            assert_eq!(weights.bits < 16, weights.group_size.is_some(), "{name}");
            let stated = name.split('-').find_map(|part| part.strip_suffix("bit")?.parse::<u8>().ok());
            assert!(stated.is_none_or(|bits| bits == weights.bits), "{name}");
            assert!(model.memory_need(4096).is_some(), "{name}");
            let is_dialogue = model.kinds.iter().any(|kind| *kind != crate::ModelKind::Embedder);
            assert_eq!(is_dialogue && !name.contains("reranker"), model.default_prompt.is_some(), "{name}");
        }
    }

    #[test]
    fn users_add_models() {
        let mut registry = ModelRegistry::shared().clone();
        let count = registry.iter().count();
        registry
            .add_toml(
                "[[model]]\nid = 'me/Mine-4bit'\nrevision = 'v2'\naliases = ['mine', 'qwen3']\nbits = 4\ngroup_size = 32\n\
                 reasoning = ['<a>', '</a>']\n[[model]]\npath = '/data/x'\naliases = ['x']\n\
                 [[model]]\nid = 'mlx-community/Qwen3-8B-4bit'\nstop_strings = ['END']\n",
            )
            .expect("valid");
        assert_eq!(registry.iter().count(), count + 2);
        let mine = registry.get("mine").expect("added");
        assert_eq!(mine, registry.get("qwen3").expect("the user's alias wins"));
        assert_eq!(mine.clone().with_revision("v2"), *mine);
        assert_eq!(mine.reasoning, Some(crate::ReasoningMarkers::new("<a>", "</a>")));
        assert_eq!(registry.get("x").map(ModelConfiguration::name).as_deref(), Some("/data/x"));
        assert_eq!(registry.get("Qwen3-8B-4bit").expect("replaced").stop_strings, ["END"]);
    }

    #[test]
    fn mistakes_of_users_are_told_with_their_line() {
        for (text, line, part) in [
            ("[[model]]\nid = 'a/b'\nalias = ['c']", 3, "alias"),
            ("\n\n[[model]]\naliases = ['c']", 3, "either an id or a path"),
            ("[[model]]\nid = 'a b'", 1, "hub id"),
            ("[[model]]\nid = 'a/b'\naliases = ['a b']", 1, "alias"),
            ("[[model]]\nid = 'a/b'\n[[model]]\nid = 'a/c'\naliases = ['A/B']", 3, "twice"),
            ("[[model]]\nid = 'a/b'\nbits = 0", 1, "bits"),
            ("[[model]]\nid = 'a/b'\nrevision = '../x'", 1, "revision"),
            ("[[model]]\nid = ", 2, ""),
            ("models = 3", 1, "models"),
        ] {
            let (found, problem) = ModelRegistry::default().add_toml(text).expect_err(text);
            assert_eq!(found, line, "{text:?}: {problem}");
            assert!(problem.contains(part), "{text:?}: {problem}");
        }
    }

    #[test]
    fn separators_are_no_spelling_mistakes() {
        let registry = ModelRegistry::shared();
        assert_eq!(registry.suggest("qwen3_4b"), ["qwen3-4b"]);
        assert_eq!(registry.suggest("Llama3.21b"), ["llama3.2-1b"]);
    }

    #[test]
    fn distances_of_words() {
        for (a, b, expected) in
            [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)]
        {
            assert_eq!(edit_distance(a, b), expected, "{a} {b}");
            assert_eq!(edit_distance(b, a), expected, "{b} {a}");
        }
    }
}
