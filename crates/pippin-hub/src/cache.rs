use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::{HubError, Result};

/// The largest shard index that is read; the biggest real ones have a few megabytes.
const MAX_INDEX_BYTES: u64 = 64 << 20;
/// The largest ref file: a commit hash and a newline.
const MAX_REF_BYTES: u64 = 256;

/// The standard Hugging Face cache: what Python tools downloaded is found here.
///
/// `models--ORG--NAME/refs/REVISION` names a commit, `models--ORG--NAME/snapshots/COMMIT/` holds its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubCache {
    root: PathBuf,
}

impl HubCache {
    /// A cache in a folder of one's own.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The cache that the environment describes, in the order in which `huggingface_hub` looks at it: `HF_HUB_CACHE`,
    /// `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, and the home folder.
    ///
    /// # Errors
    ///
    /// [`HubError::NoCache`] when none of them is set and there is no home folder.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        })
        .ok_or(HubError::NoCache)
    }

    fn from_variables(get: impl Fn(&str) -> Option<PathBuf>) -> Option<Self> {
        let home = || std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
        let root = get("HF_HUB_CACHE")
            .or_else(|| get("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| get("HF_HOME").map(|folder| folder.join("hub")))
            .or_else(|| get("XDG_CACHE_HOME").map(|folder| folder.join("huggingface").join("hub")))
            .or_else(|| home().map(|home| home.join(".cache").join("huggingface").join("hub")))?;
        Some(Self { root: expand_home(root) })
    }

    /// The folder that holds the cache.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The snapshot folder of a hub model, when every file that its index names is there and is what it should be.
    ///
    /// Files are hashed the first time that they are seen, which takes a second or so for every gigabyte, unless Pippin
    /// downloaded them itself; then the result is remembered until they change.
    ///
    /// # Errors
    ///
    /// [`HubError::NotCached`], [`HubError::Incomplete`], [`HubError::ForeignLink`] or [`HubError::InvalidName`].
    pub fn find(&self, id: &str, revision: &str) -> Result<PathBuf> {
        if !is_hub_id(id) {
            return Err(HubError::InvalidName { name: id.to_owned(), what: "hub id" });
        }
        if !is_revision(revision) {
            return Err(HubError::InvalidName { name: revision.to_owned(), what: "revision" });
        }
        let repository = self.repository(id);
        let commit = read_limited(&repository.join("refs").join(revision), MAX_REF_BYTES)
            .map(|commit| commit.trim().to_owned())
            .filter(|commit| is_revision(commit) && !commit.contains('/'));
        let snapshot = repository.join("snapshots").join(commit.as_deref().unwrap_or(revision));
        if !snapshot.is_dir() {
            return Err(HubError::NotCached {
                id: id.to_owned(),
                revision: revision.to_owned(),
                cache: self.root.clone(),
                registered: crate::ModelRegistry::shared().get(id).is_some(),
            });
        }
        let problem = match missing(&snapshot)? {
            None => crate::store::damage(&repository, &snapshot)?,
            problem => problem,
        };
        match problem {
            None => Ok(snapshot),
            Some(problem) => Err(HubError::Incomplete { id: id.to_owned(), path: snapshot, problem }),
        }
    }

    /// The folder of a model.
    pub(crate) fn repository(&self, id: &str) -> PathBuf {
        self.root.join(folder_name(id))
    }
}

/// The name of a model's folder.
pub(crate) fn folder_name(id: &str) -> String {
    format!("models--{}", id.replace('/', "--"))
}

/// The name under which the records know a file of a snapshot that is no link.
pub(crate) fn copy_key(commit: &str, path: &str) -> String {
    format!("snapshots/{commit}/{path}")
}

/// Where a path leads, when that is within a folder.
pub(crate) fn check_inside(folder: &Path, path: &Path) -> Result<PathBuf> {
    let real =
        |path: &Path| path.canonicalize().map_err(|source| HubError::Read { path: path.to_owned(), source });
    let target = real(path)?;
    if target.starts_with(real(folder)?) {
        Ok(target)
    } else {
        Err(HubError::ForeignLink { path: path.to_owned(), target })
    }
}

/// `~` reaches a program unexpanded when a variable was set in a file rather than by a shell.
pub(crate) fn expand_home(path: PathBuf) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

/// What a model folder lacks: `None` when `config.json` and every weight file that its index names are there.
pub(crate) fn missing(folder: &Path) -> Result<Option<String>> {
    if !folder.join("config.json").is_file() {
        return Ok(Some("no config.json".to_owned()));
    }
    let index = folder.join("model.safetensors.index.json");
    if index.is_file() {
        return Ok(missing_shards(folder, &index));
    }
    let entries = folder.read_dir().map_err(|source| HubError::Read { path: folder.to_owned(), source })?;
    // `metadata` follows links, so that a link to a blob that is gone does not count.
    let has_weights = entries.flatten().any(|entry| {
        let path = entry.path();
        path.extension().is_some_and(|extension| extension == "safetensors") && path.is_file()
    });
    Ok((!has_weights).then(|| "no *.safetensors file".to_owned()))
}

fn missing_shards(folder: &Path, index: &Path) -> Option<String> {
    let Some(text) = read_limited(index, MAX_INDEX_BYTES) else {
        return Some("an unreadable model.safetensors.index.json".to_owned());
    };
    let Ok(Value::Object(index)) = serde_json::from_str::<Value>(&text) else {
        return Some("a model.safetensors.index.json that is not valid JSON".to_owned());
    };
    let Some(Value::Object(map)) = index.get("weight_map") else {
        return Some("a model.safetensors.index.json without weight_map".to_owned());
    };
    let shards: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    // A name that leaves the folder is the loader's to refuse; here it only must not be looked at.
    let absent: Vec<&str> = shards
        .into_iter()
        .filter(|name| !is_plain(Path::new(name)) || !folder.join(name).is_file())
        .collect();
    match absent.as_slice() {
        [] => None,
        [one] => Some(format!("no {one:?}")),
        [first, ..] => Some(format!("no {first:?} and {} more", absent.len() - 1)),
    }
}

pub(crate) fn read_limited(path: &Path, limit: u64) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(limit + 1).read_to_string(&mut text).ok()?;
    (text.len() as u64 <= limit).then_some(text)
}

fn is_plain(path: &Path) -> bool {
    path.components().all(|component| matches!(component, Component::Normal(_)))
}

/// Whether a text has the form of a hub id: two names of letters, digits, `.`, `_` and `-`.
pub(crate) fn is_hub_id(text: &str) -> bool {
    let is_name = |name: &str| {
        (1..=96).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && !name.starts_with(['.', '-'])
            && !name.ends_with(['.', '-'])
            && !name.contains("..")
            && !name.contains("--")
    };
    text.split_once('/').is_some_and(|(organisation, name)| is_name(organisation) && is_name(name))
}

/// Whether a text can be a branch, tag or commit without leaving the folder that it is looked up in.
pub(crate) fn is_revision(text: &str) -> bool {
    (1..=256).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/+".contains(&byte))
        && text.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn cache_with(files: &[&str]) -> (tempfile::TempDir, HubCache) {
        let root = tempfile::tempdir().expect("a temporary folder");
        let repository = root.path().join("models--org--name");
        let snapshot = repository.join("snapshots/0123abcd");
        fs::create_dir_all(repository.join("refs/refs/pr")).expect("created");
        fs::create_dir_all(&snapshot).expect("created");
        fs::write(repository.join("refs/main"), "0123abcd\n").expect("written");
        fs::write(repository.join("refs/refs/pr/1"), "0123abcd").expect("written");
        fs::write(repository.join("refs/evil"), "../../../elsewhere").expect("written");
        for file in files {
            fs::write(snapshot.join(file), b"\x02\0\0\0\0\0\0\0{}").expect("written");
        }
        let cache = HubCache::new(root.path());
        (root, cache)
    }

    #[test]
    fn finds_branches_pull_requests_and_commits() {
        let (_root, cache) = cache_with(&["config.json", "model.safetensors"]);
        for revision in ["main", "refs/pr/1", "0123abcd"] {
            let folder = cache.find("org/name", revision).expect("found");
            assert!(folder.ends_with("snapshots/0123abcd"));
        }
    }

    #[test]
    fn absent_models_and_revisions_are_not_cached() {
        let (_root, cache) = cache_with(&["config.json", "model.safetensors"]);
        for (id, revision) in [("org/other", "main"), ("org/name", "v2"), ("org/name", "evil")] {
            assert!(matches!(cache.find(id, revision), Err(HubError::NotCached { .. })), "{id}@{revision}");
        }
    }

    #[test]
    fn names_cannot_leave_the_cache() {
        let (_root, cache) = cache_with(&["config.json", "model.safetensors"]);
        for (id, revision) in [
            ("../..", "main"),
            ("org/..", "main"),
            ("org/name", "../../.."),
            ("org/name", "/etc"),
            ("org/na me", "main"),
        ] {
            assert!(matches!(cache.find(id, revision), Err(HubError::InvalidName { .. })), "{id}@{revision}");
        }
    }

    #[test]
    fn incomplete_models_say_what_is_missing() {
        let (root, cache) = cache_with(&["config.json"]);
        let problem = |cache: &HubCache| match cache.find("org/name", "main") {
            Err(HubError::Incomplete { problem, .. }) => problem,
            other => panic!("unexpected: {other:?}"),
        };
        assert_eq!(problem(&cache), "no *.safetensors file");
        let snapshot = root.path().join("models--org--name/snapshots/0123abcd");
        let index = snapshot.join("model.safetensors.index.json");
        fs::write(
            &index,
            r#"{"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors", "c": "../../k"}}"#,
        )
        .expect("written");
        fs::write(snapshot.join("x-1.safetensors"), "").expect("written");
        assert_eq!(problem(&cache), r#"no "../../k" and 1 more"#);
        fs::write(&index, "[").expect("written");
        assert!(problem(&cache).contains("not valid JSON"));
    }

    #[test]
    fn variables_are_read_in_order() {
        let with = |set: &[(&str, &str)]| {
            let set: Vec<(String, String)> = set.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
            HubCache::from_variables(move |name| {
                set.iter().find(|(key, _)| key == name).map(|(_, value)| PathBuf::from(value))
            })
            .expect("a cache")
            .root
        };
        assert_eq!(with(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")]), Path::new("/c"));
        assert_eq!(with(&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Path::new("/h/hub"));
        assert_eq!(with(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        if let Some(home) = std::env::home_dir() {
            assert_eq!(with(&[]), home.join(".cache/huggingface/hub"));
            assert_eq!(with(&[("HF_HOME", "~/models")]), home.join("models/hub"));
        }
    }
}
