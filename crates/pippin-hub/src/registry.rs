use std::sync::LazyLock;

use crate::ModelConfiguration;
use crate::configuration::Entry;

/// The models known by name.
///
/// [`shared`](Self::shared) is the registry that comes with Pippin; a program that needs models of its own clones it
/// and [registers](Self::register) them, or starts from [`ModelRegistry::default`], which is empty.
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

    /// Adds a model, in place of any of the same name.
    pub fn register(&mut self, configuration: ModelConfiguration) {
        let name = configuration.name();
        match self.configurations.iter_mut().find(|known| known.name() == name) {
            Some(known) => *known = configuration,
            None => self.configurations.push(configuration),
        }
    }

    /// The model of this name or alias; case does not matter.
    pub fn get(&self, name: &str) -> Option<&ModelConfiguration> {
        self.configurations
            .iter()
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
        let limit = (wanted.chars().count() / 4).clamp(1, 3);
        let mut near: Vec<(usize, String)> = Vec::new();
        for configuration in &self.configurations {
            // One suggestion per model: its nearest name.
            let best = names(configuration)
                .map(|candidate| (distance(&wanted, &candidate.to_ascii_lowercase()), candidate))
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

/// A model's name, the part of it after the organisation, and its aliases.
fn names(configuration: &ModelConfiguration) -> impl Iterator<Item = String> {
    let name = configuration.name();
    let short = name.rsplit_once('/').map(|(_, short)| short.to_owned());
    configuration.aliases.iter().cloned().chain(std::iter::once(name)).chain(short)
}

/// The Levenshtein distance: insertions, deletions and replacements between two texts.
fn distance(a: &str, b: &str) -> usize {
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
    fn edit_distance() {
        for (a, b, expected) in
            [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }
}
