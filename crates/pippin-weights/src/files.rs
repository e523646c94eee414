//! Which files of a model hold its weights: the one answer that loading, downloading and checking a model share.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Quoted, QuotedList, WeightsError};
use crate::index::WeightIndex;
use crate::links::Root;

pub(crate) const SINGLE_FILE: &str = "model.safetensors";
pub(crate) const EXTENSION: &str = ".safetensors";
/// Sets of more files are not believed: each missing one is listed by name.
const MAX_SHARDS: u32 = 100_000;
/// What stands in a name beside which there is another form of the same weights: `model.fp16.safetensors`.
const VARIANTS: [&str; 14] = [
    "fp8", "fp16", "fp32", "f16", "f32", "bf16", "float16", "float32", "bfloat16", "int8", "8bit", "4bit",
    "ema", "non_ema",
];

/// Which files of a model hold its weights, and which of those are not there.
///
/// The rule, for a folder as for a list of files on a hub:
///
/// 1. When everything that `model.safetensors.index.json` names is there, these files are the weights. What else is called
///    `model*.safetensors` is [`extra`](Self::extra), unless its name says that it is another copy: a shard of a set of
///    another size, or a variant such as `model.fp16.safetensors`.
/// 2. When nothing is there of what the index names, or the index cannot be read, it counts for nothing, and there is a
///    warning: many conversions have the index of the model that they were made from.
/// 3. When only a part of it is there, the rest is missing, unless something whole stands beside it.
/// 4. Without an index every `model*.safetensors` holds weights, as it does for mlx-lm (or, where there is none, every
///    `weight*.safetensors`, as in conversions by the first versions). Numbers in names tell what is missing:
///    `model-00001-of-00002.safetensors` does not come alone. A set that is not whole is left out where another one is, or
///    where there is `model.safetensors`.
///
/// An empty file (or a folder of that name) counts as one that is not there if the weights are whole without it. Files of any other name
/// (`consolidated.safetensors`, `adapters.safetensors`, `._model.safetensors`) are not the model's weights unless the index
/// names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WeightFiles {
    /// The files that hold the weights, as far as they are there; sorted.
    pub files: Vec<String>,
    /// Files that may hold further tensors, although the index does not name them. They are taken for what they add, and
    /// left out when they contradict the others.
    pub extra: Vec<String>,
    /// The files that are not there, though the index or the numbers in names say that they belong to it; sorted.
    pub missing: Vec<String>,
    /// What is odd about the files, in sentences for the user.
    pub warnings: Vec<String>,
    /// Why a file that is missing is not there although its name is: where a link leads.
    pub(crate) links: Vec<String>,
    /// The index, where it says which files are the weights.
    pub(crate) index: Option<WeightIndex>,
}

impl WeightFiles {
    /// Name of the file that says which shard holds which tensor.
    pub const INDEX: &str = "model.safetensors.index.json";

    /// Chooses among files that are given by name and, where that is known, length in bytes. Files in folders count for
    /// nothing. `index` is what [`WeightIndex::parse`] made of the index, where there is one.
    ///
    /// # Errors
    ///
    /// [`WeightsError::UnsafeShard`]: the index names a file outside the model's folder, which nobody does by accident.
    pub fn choose<'a>(
        files: impl IntoIterator<Item = (&'a str, Option<u64>)>,
        index: Option<Result<WeightIndex, WeightsError>>,
    ) -> Result<Self, WeightsError> {
        let mut warnings = Vec::new();
        let index = match index {
            None => None,
            Some(Ok(index)) => Some(index),
            Some(Err(error @ WeightsError::UnsafeShard { .. })) => return Err(error),
            Some(Err(error)) => {
                warnings.push(format!("{error}; it is not used"));
                None
            }
        };
        let files: BTreeMap<&str, Option<u64>> = files
            .into_iter()
            .filter(|(name, _)| {
                name.ends_with(EXTENSION) && name.len() > EXTENSION.len() && !name.contains('/')
            })
            .collect();
        let is_empty = |name: &str| files.get(name).is_some_and(|length| *length == Some(0));
        let with_content: BTreeSet<&str> = files.keys().copied().filter(|name| !is_empty(name)).collect();
        let mut chosen = Self::among(&with_content, index.as_ref());
        if with_content.len() < files.len() {
            if chosen.is_complete() {
                let empty = owned(files.keys().copied().filter(|name| is_empty(name) && is_model_file(name)));
                if !empty.is_empty() {
                    chosen.warnings.push(format!("{} left out: empty, or not a file", is_or_are(&empty)));
                }
            } else {
                // Then an empty file is a damaged one, and opening it says so.
                chosen = Self::among(&files.keys().copied().collect(), index.as_ref());
            }
        }
        warnings.append(&mut chosen.warnings);
        Ok(Self { warnings, ..chosen })
    }

    /// Chooses among the files of a folder, by their names and its index.
    ///
    /// # Errors
    ///
    /// The folder cannot be read, or its index names a file outside of it, or is a link that is refused (see
    /// [`Checkpoint::open`](crate::Checkpoint::open)).
    pub fn of_folder(folder: &Path) -> Result<Self, WeightsError> {
        Root::new(folder)?.weight_files()
    }

    /// Whether there are weights, and none are known to be missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.files.is_empty() && self.missing.is_empty()
    }

    fn among(names: &BTreeSet<&str>, index: Option<&WeightIndex>) -> Self {
        let pool = pool(names);
        let Some(index) = index else { return Self::by_name(&pool) };
        let shards = index.shards();
        let (there, missing): (BTreeSet<&str>, BTreeSet<&str>) =
            shards.iter().copied().partition(|name| names.contains(name));
        if missing.is_empty() {
            return Self::by_index(index, &shards, &pool);
        }
        let rest: BTreeSet<&str> = pool.difference(&there).copied().collect();
        // One file alone would be anything; a whole set, or the only file there ever is, is a model.
        let is_whole = rest.contains(SINGLE_FILE) || sets(&rest).values().any(Set::is_whole);
        if there.is_empty() && !rest.is_empty() || is_whole {
            let mut chosen = Self::by_name(&rest);
            if chosen.is_complete() || there.is_empty() {
                let mut warning = format!(
                    "{} names {} not there: using {}",
                    Self::INDEX,
                    that_are(&owned(missing)),
                    QuotedList(&chosen.files)
                );
                if !there.is_empty() {
                    warning.push_str(&format!(", and not {}", QuotedList(&owned(there))));
                }
                chosen.warnings.insert(0, warning);
                return chosen;
            }
        }
        let index = Some(index.clone());
        Self { files: owned(there), missing: owned(missing), index, ..Self::default() }
    }

    fn by_index(index: &WeightIndex, shards: &BTreeSet<&str>, pool: &BTreeSet<&str>) -> Self {
        let mut chosen = Self { files: owned(shards.iter().copied()), ..Self::default() };
        let mut copies = Vec::new();
        let named: BTreeSet<Key<'_>> =
            shards.iter().filter_map(|name| Some(Numbered::parse(name)?.key)).collect();
        for name in pool.difference(shards) {
            if *name == SINGLE_FILE {
                // Some programs take this one and some the shards: both are opened, and must agree.
                chosen.files.push((*name).to_owned());
            } else if Numbered::parse(name).is_some_and(|file| !named.contains(&file.key))
                || is_variant(stem(name))
            {
                copies.push((*name).to_owned());
            } else {
                chosen.extra.push((*name).to_owned());
            }
        }
        chosen.files.sort_unstable();
        if !copies.is_empty() {
            let warning =
                format!("{} left out: {} does not name {}", is_or_are(&copies), Self::INDEX, them(&copies));
            chosen.warnings.push(warning);
        }
        chosen.index = Some(index.clone());
        chosen
    }

    fn by_name(pool: &BTreeSet<&str>) -> Self {
        let sets = sets(pool);
        let has_single = pool.contains(SINGLE_FILE);
        let has_plain = has_single
            || sets
                .iter()
                .any(|(key, set)| set.is_whole() && !is_variant(key.prefix) && !is_variant(key.suffix));
        let (mut chosen, mut partial, mut variants) = (Self::default(), Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for (key, set) in &sets {
            seen.extend(set.files.values().copied());
            let files = set.files.values().map(|name| (*name).to_owned());
            let is_whole = set.is_whole();
            let is_beside_whole = || {
                let whole = |(other, set): (&Key<'_>, &Set<'_>)| other.prefix == key.prefix && set.is_whole();
                has_single || sets.iter().any(whole)
            };
            if has_plain && (is_variant(key.prefix) || is_variant(key.suffix)) {
                variants.extend(files);
            } else if !is_whole && is_beside_whole() {
                partial.extend(files);
            } else {
                chosen.missing.extend(set.missing(key));
                chosen.files.extend(files);
            }
        }
        for name in pool.difference(&seen) {
            if has_plain && is_variant(stem(name)) {
                variants.push((*name).to_owned());
            } else {
                chosen.files.push((*name).to_owned());
            }
        }
        chosen.files.sort_unstable();
        chosen.missing.sort_unstable();
        for (names, reason) in [
            (partial, "the set that the name belongs to is not whole, and another is"),
            (variants, "the same weights are there in another form"),
        ] {
            if !names.is_empty() {
                chosen.warnings.push(format!("{} left out: {reason}", is_or_are(&names)));
            }
        }
        chosen
    }
}

fn owned<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn is_or_are(names: &[String]) -> String {
    format!("{} {}", QuotedList(names), if names.len() == 1 { "is" } else { "are" })
}

fn that_are(names: &[String]) -> String {
    format!("{}, which {}", QuotedList(names), if names.len() == 1 { "is" } else { "are" })
}

fn them(names: &[String]) -> &'static str {
    if names.len() == 1 { "it" } else { "them" }
}

fn is_model_file(name: &str) -> bool {
    name.starts_with("model")
}

/// The files that hold weights by their names alone.
fn pool<'a>(names: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
    let with = |prefix: &str| -> BTreeSet<&'a str> {
        names.iter().copied().filter(|name| name.starts_with(prefix)).collect()
    };
    let models = with("model");
    if models.is_empty() { with("weight") } else { models }
}

fn stem(name: &str) -> &str {
    name.strip_suffix(EXTENSION).unwrap_or(name)
}

/// Whether a part of a name ends in the name of a variant: `model.fp16`, `.fp16`, `model-bf16`.
fn is_variant(part: &str) -> bool {
    part.rsplit_once(['.', '-'])
        .is_some_and(|(_, word)| VARIANTS.contains(&word.to_ascii_lowercase().as_str()))
}

/// A name of the form `model-00001-of-00002.safetensors`.
struct Numbered<'a> {
    key: Key<'a>,
    number: u32,
}

/// What the names of a set of files have in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    prefix: &'a str,
    suffix: &'a str,
    count: u32,
    /// Digits of a number, and of the count.
    widths: (usize, usize),
}

impl<'a> Numbered<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let (before, after) = stem(name).rsplit_once("-of-")?;
        let (prefix, number) = before.rsplit_once('-')?;
        let end = after.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(after.len());
        let (count, suffix) = after.split_at(end);
        let value = |digits: &str| -> Option<u32> {
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let key = Key { prefix, suffix, count: value(count)?, widths: (number.len(), count.len()) };
        let number = value(number)?;
        ((1..=MAX_SHARDS).contains(&key.count) && number <= key.count).then_some(Self { key, number })
    }
}

/// The files of a set that are there, by number.
#[derive(Default)]
struct Set<'a> {
    count: u32,
    files: BTreeMap<u32, &'a str>,
}

impl Set<'_> {
    /// Counted from 1 or, by some tools, from 0.
    fn numbers(&self) -> std::ops::Range<u32> {
        if self.files.contains_key(&0) { 0..self.count } else { 1..self.count + 1 }
    }

    fn is_whole(&self) -> bool {
        self.numbers().all(|number| self.files.contains_key(&number))
    }

    fn missing(&self, key: &Key<'_>) -> Vec<String> {
        let Key { prefix, suffix, count, widths: (first, second) } = *key;
        let absent = self.numbers().filter(|number| !self.files.contains_key(number));
        absent
            .map(|number| format!("{prefix}-{number:0first$}-of-{count:0second$}{suffix}{EXTENSION}"))
            .collect()
    }
}

fn sets<'a>(pool: &BTreeSet<&'a str>) -> BTreeMap<Key<'a>, Set<'a>> {
    let mut sets: BTreeMap<Key<'a>, Set<'a>> = BTreeMap::new();
    for name in pool {
        if let Some(Numbered { key, number }) = Numbered::parse(name) {
            let set = sets.entry(key).or_default();
            set.count = key.count;
            set.files.insert(number, name);
        }
    }
    sets
}

impl Root {
    /// Chooses among the files that are there.
    pub(crate) fn weight_files(&self) -> Result<WeightFiles, WeightsError> {
        let failed = |error| WeightsError::io(&self.folder, "list", error);
        let (mut names, mut dangling, mut has_index) = (Vec::new(), BTreeMap::new(), false);
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            // A name that is not UTF-8 is none of ours.
            let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
            has_index |= name == WeightFiles::INDEX;
            if !name.ends_with(EXTENSION) {
                continue;
            }
            let path = self.folder.join(&name);
            match fs::metadata(&path) {
                Ok(metadata) => {
                    // A folder or a pipe holds no weights either.
                    names.push((name, Some(if metadata.is_file() { metadata.len() } else { 0 })));
                }
                // What may not be looked at is there, and opening it says what is wrong.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => names.push((name, None)),
                Err(error) => {
                    let Ok(target) = fs::read_link(&path) else { continue };
                    let reason = match error.kind() {
                        io::ErrorKind::NotFound => "which is not there".to_owned(),
                        _ => format!("which leads nowhere ({error})"),
                    };
                    let what = format!("{} is a link to {}, {reason}", Quoted(&name), target.display());
                    dangling.insert(name, what);
                }
            }
        }
        let index = has_index.then(|| self.read_index());
        let mut chosen =
            WeightFiles::choose(names.iter().map(|(name, length)| (name.as_str(), *length)), index)?;
        if dangling.is_empty() {
            return Ok(chosen);
        }
        if chosen.is_complete() {
            for (_, what) in dangling.into_iter().filter(|(name, _)| is_model_file(name)) {
                chosen.warnings.push(format!("{what}: left out"));
            }
        } else {
            for (name, what) in dangling {
                let is_listed = chosen.missing.contains(&name);
                if is_listed || is_model_file(&name) {
                    chosen.links.push(what);
                }
                if !is_listed && is_model_file(&name) {
                    chosen.missing.push(name);
                }
            }
            chosen.missing.sort_unstable();
        }
        Ok(chosen)
    }

    fn read_index(&self) -> Result<WeightIndex, WeightsError> {
        let path = self.folder.join(WeightFiles::INDEX);
        let target = self.resolve(WeightFiles::INDEX)?;
        let failed = |error| WeightsError::io(&path, "read", error);
        // Checked before opening: opening a named pipe would block until somebody writes to it.
        let metadata = fs::metadata(&target).map_err(failed)?;
        if !metadata.is_file() {
            return Err(WeightsError::NotAFile { path });
        }
        if metadata.len() > WeightIndex::MAX_BYTES {
            let problem = format!("the file is longer than {} bytes", WeightIndex::MAX_BYTES);
            return Err(WeightsError::Index { path, field: "weight_map".to_owned(), problem });
        }
        WeightIndex::parse(&fs::read(&target).map_err(failed)?, &path)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the names: what is chosen is there, what is missing is not, and what is complete stays so when only the
        /// chosen files are there, as after a download.
        #[test]
        fn a_choice_is_the_same_after_a_download(
            names in prop::collection::btree_set(
                "(model|weights|x)(-0000[0-3]-of-0000[1-3]|[.]fp16|-mtp|)(-1-of-2|)[.]safetensors", 0..7),
            shards in prop::collection::btree_set("(model|x)(-0000[1-3]-of-0000[1-3]|)[.]safetensors", 0..4),
            empty in prop::collection::vec(any::<bool>(), 7),
        ) {
            let index = (!shards.is_empty()).then(|| {
                let tensors = shards.iter().map(|shard| (format!("of {shard}"), shard.clone())).collect();
                WeightIndex { tensors }
            });
            let choose = |files: Vec<(&str, Option<u64>)>| {
                WeightFiles::choose(files, index.clone().map(Ok)).expect("no tricks")
            };
            let all = names.iter().zip(&empty).map(|(name, is_empty)| (name.as_str(), Some(u64::from(!is_empty))));
            let chosen = choose(all.clone().collect());
            for name in chosen.files.iter().chain(&chosen.extra) {
                prop_assert!(names.contains(name), "{name}");
            }
            for name in &chosen.missing {
                prop_assert!(!names.contains(name), "{name}");
            }
            let is_empty = |name: &String| all.clone().any(|(file, length)| file == name && length == Some(0));
            if chosen.is_complete() && !chosen.files.iter().any(is_empty) {
                let kept = all.clone().filter(|(name, _)| {
                    chosen.files.iter().chain(&chosen.extra).any(|chosen| chosen == name)
                });
                let again = choose(kept.collect());
                prop_assert_eq!((&again.files, &again.extra), (&chosen.files, &chosen.extra));
                prop_assert!(again.is_complete());
            }
        }
    }

    #[test]
    fn hostile_names_and_numbers_are_names() {
        for name in [
            "model-4294967295-of-4294967295.safetensors",
            "model-99999999999999999999-of-2.safetensors",
            "model--of-.safetensors",
            "model-1-of-.safetensors",
            "model-+1-of-2.safetensors",
            "model-3-of-2.safetensors",
            "model-0-of-0.safetensors",
            "-of-.safetensors",
            "model-١-of-٢.safetensors",
        ] {
            assert!(Numbered::parse(name).is_none(), "{name}");
            let _ = WeightFiles::choose([(name, None)], None).expect("no index");
        }
        let many = WeightFiles::choose([("model-1-of-100000.safetensors", None)], None).expect("no index");
        assert_eq!(many.missing.len(), 99_999);
    }
}
