//! Which files of a model hold its weights: the one answer that loading, downloading and checking a model share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::error::{Quoted, QuotedList, WeightsError};
use crate::safetensors::{MAX_HEADER_LENGTH, MAX_TENSORS, json_offset, json_problem};

pub(crate) const SINGLE_FILE: &str = "model.safetensors";
const EXTENSION: &str = ".safetensors";
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

/// What an index says: which file holds which tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightIndex {
    tensors: BTreeMap<String, String>,
}

impl WeightIndex {
    /// The most bytes of an index that are read.
    pub const MAX_BYTES: u64 = MAX_HEADER_LENGTH;

    /// Reads the text of an index. `path` is its name for errors.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Index`] when it is no index, which leaves the names of the files to go by;
    /// [`WeightsError::UnsafeShard`] when it names a file outside the model's folder.
    pub fn parse(text: &[u8], path: &Path) -> Result<Self, WeightsError> {
        let bad =
            |problem| WeightsError::Index { path: path.to_owned(), field: "weight_map".to_owned(), problem };
        // Some editors begin a file with a mark of its byte order.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let Index(tensors) = serde_json::from_slice(text)
            .map_err(|error| bad(format!("{} (byte {})", json_problem(&error), json_offset(text, &error))))?;
        let index = Self { tensors };
        for shard in index.shards() {
            check_name(path, shard)?;
        }
        if index.tensors.is_empty() {
            return Err(bad("names no tensor".to_owned()));
        }
        if let Some(other) = index.shards().into_iter().find(|name| !name.ends_with(EXTENSION)) {
            return Err(bad(format!("names {}, which is not a {EXTENSION} file", Quoted(other))));
        }
        Ok(index)
    }

    /// The names of the files, in order.
    #[must_use]
    pub fn shards(&self) -> BTreeSet<&str> {
        self.tensors.values().map(String::as_str).collect()
    }

    /// The names of the tensors, in order.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}

/// Refuses names that lead out of the folder.
fn check_name(index: &Path, shard: &str) -> Result<(), WeightsError> {
    let problem =
        if shard.starts_with('/') || shard.contains(['\\', ':', '\0']) || Path::new(shard).is_absolute() {
            "an index may only name files of its own folder"
        } else if shard.contains("..") {
            "the name contains `..`"
        } else if shard.split('/').any(|part| part == ".") {
            "the name contains `.` as a folder"
        } else {
            return Ok(());
        };
    Err(WeightsError::UnsafeShard {
        path: index.to_owned(),
        shard: shard.to_owned(),
        problem: problem.to_owned(),
    })
}

/// The index file; only `weight_map` is of interest.
struct Index(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IndexVisitor;
        impl<'de> Visitor<'de> for IndexVisitor {
            type Value = Index;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `weight_map`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut weight_map = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "weight_map" {
                        map.next_value::<IgnoredAny>()?;
                    } else if weight_map.is_some() {
                        return Err(A::Error::custom("`weight_map` occurs twice"));
                    } else {
                        weight_map = Some(map.next_value::<WeightMap>()?);
                    }
                }
                match weight_map {
                    Some(WeightMap(map)) => Ok(Index(map)),
                    None => Err(A::Error::custom("`weight_map` is missing")),
                }
            }
        }
        deserializer.deserialize_map(IndexVisitor)
    }
}

struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WeightMapVisitor;
        impl<'de> Visitor<'de> for WeightMapVisitor {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`weight_map` as an object of file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut shards = BTreeMap::new();
                while let Some(tensor) = map.next_key::<String>()? {
                    if shards.contains_key(&tensor) {
                        return Err(A::Error::custom(format_args!(
                            "tensor {} occurs twice",
                            Quoted(&tensor)
                        )));
                    }
                    if shards.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
                    }
                    let shard = map.next_value::<String>()?;
                    shards.insert(tensor, shard);
                }
                Ok(WeightMap(shards))
            }
        }
        deserializer.deserialize_map(WeightMapVisitor)
    }
}

/// A model's folder, and where links in it may lead.
pub(crate) struct Root {
    /// As the caller gave it; errors show this.
    pub(crate) folder: PathBuf,
    /// Of a folder of a Hugging Face cache: the places that its links may lead to, without links. Of any other: `None`, because
    /// whoever puts links into a folder of his own means them.
    allowed: Option<Allowed>,
}

struct Allowed {
    folders: Vec<PathBuf>,
    /// The folders for blobs that several models share, `blobs/<2 digits>/<hash>` beside the models.
    shared: Vec<PathBuf>,
}

impl Root {
    pub(crate) fn new(folder: &Path) -> Result<Self, WeightsError> {
        let real = fs::canonicalize(folder).map_err(|error| WeightsError::io(folder, "open", error))?;
        if !real.is_dir() {
            return Err(WeightsError::NotAFolder { path: folder.to_owned() });
        }
        // A repository, or a folder in it, may itself be a link to another disk: then only the way there tells that it is one.
        let absolute = std::path::absolute(folder).ok();
        let repositories: Vec<PathBuf> =
            absolute.iter().chain([&real]).filter_map(|path| hub_repository(path)).collect();
        let allowed = (!repositories.is_empty()).then(|| {
            let real_path = |path: PathBuf| fs::canonicalize(path).ok();
            let mut allowed = Allowed { folders: vec![real.clone()], shared: Vec::new() };
            for repository in repositories {
                allowed.folders.extend(real_path(repository.join("blobs")));
                allowed.shared.extend(repository.parent().and_then(|cache| real_path(cache.join("blobs"))));
                let Some(repository) = real_path(repository) else { continue };
                allowed.shared.extend(repository.parent().and_then(|cache| real_path(cache.join("blobs"))));
                allowed.folders.push(repository);
            }
            allowed
        });
        Ok(Self { folder: folder.to_owned(), allowed })
    }

    /// The file behind a plain name in the folder, without links, if it is in an allowed place.
    pub(crate) fn resolve(&self, name: &str) -> Result<PathBuf, WeightsError> {
        let path = self.folder.join(name);
        let target = fs::canonicalize(&path).map_err(|error| WeightsError::io(&path, "open", error))?;
        if self.allowed.as_ref().is_none_or(|allowed| allowed.holds(&target)) {
            Ok(target)
        } else {
            Err(WeightsError::UnsafeShard {
                path: self.folder.clone(),
                shard: name.to_owned(),
                problem: format!(
                    "it is a link to {}, outside the model's folder in the cache",
                    target.display()
                ),
            })
        }
    }

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

/// The file behind a name in a model's folder, without links, if it is one that links of that folder may lead to: any, but in
/// a folder of a Hugging Face cache only the model's own blobs, as [`Checkpoint::open`](crate::Checkpoint::open) has it.
///
/// # Errors
///
/// [`WeightsError::UnsafeShard`] for a link that leads elsewhere, [`WeightsError::Io`] for one that leads nowhere.
pub fn resolve_link(folder: &Path, name: &str) -> Result<PathBuf, WeightsError> {
    Root::new(folder)?.resolve(name)
}

/// Opens a file of a model's folder, `None` where there is none: one that [`resolve_link`] lets through, and that is a file.
/// (Opening a pipe would wait for its other end.)
///
/// # Errors
///
/// A link that leads nowhere, or out of a folder of a Hugging Face cache; something that is not a file; or what the system says.
pub fn open_file_of_model(path: &Path) -> io::Result<Option<fs::File>> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let absolute = std::path::absolute(path)?;
    // Of a file in a folder of a snapshot, that folder may be the link: the snapshot is looked for above it.
    let is_snapshot = |folder: &&Path| {
        let real = fs::canonicalize(folder).ok();
        [Some(*folder), real.as_deref()].into_iter().flatten().any(|path| hub_repository(path).is_some())
    };
    let snapshot = absolute.ancestors().skip(1).take(3).filter(is_snapshot).last();
    let folder = snapshot.or(absolute.parent());
    let name = folder.and_then(|folder| absolute.strip_prefix(folder).ok()).and_then(Path::to_str);
    if let (Some(folder), Some(name)) = (folder, name) {
        match resolve_link(folder, name) {
            Err(WeightsError::UnsafeShard { problem, .. }) => return Err(io::Error::other(problem)),
            Err(WeightsError::Io { source, .. }) if metadata.is_symlink() => {
                let target = fs::read_link(path)?;
                return Err(io::Error::new(
                    source.kind(),
                    format!("it is a link to {}: {source}", target.display()),
                ));
            }
            _ => {}
        }
    }
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    fs::File::open(path).map(Some)
}

impl Allowed {
    fn holds(&self, target: &Path) -> bool {
        let is_hash = |name: &Path, length: usize| {
            name.to_str().is_some_and(|name| {
                name.len() == length && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            })
        };
        let is_shared = |folder: &PathBuf| {
            let Ok(rest) = target.strip_prefix(folder) else { return false };
            let parts: Vec<Component<'_>> = rest.components().collect();
            matches!(parts.as_slice(), [group, hash] if is_hash(group.as_ref(), 2) && is_hash(hash.as_ref(), 64))
        };
        self.folders.iter().any(|folder| target.starts_with(folder)) || self.shared.iter().any(is_shared)
    }
}

/// The repository folder `…/models--<id>` of a folder `…/models--<id>/snapshots/<revision>[/…]`.
fn hub_repository(folder: &Path) -> Option<PathBuf> {
    let components: Vec<Component<'_>> = folder.components().collect();
    if components.contains(&Component::ParentDir) {
        return None;
    }
    let name = |index: usize| match components.get(index) {
        Some(Component::Normal(name)) => name.to_str(),
        _ => None,
    };
    let position = (0..components.len().saturating_sub(2)).rev().find(|&index| {
        name(index).is_some_and(|name| name.starts_with("models--")) && name(index + 1) == Some("snapshots")
    })?;
    Some(components.iter().take(position + 1).collect())
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
