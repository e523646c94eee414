use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pippin_weights::{WeightFiles, WeightsError};
use serde_json::Value;

use crate::download::plan::is_needed;
use crate::{HubError, Result, gguf};

/// The largest `config.json` that is read.
const MAX_CONFIG_BYTES: u64 = 16 << 20;
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
    /// `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, and the home folder. As there, `~` and variables in their
    /// values stand for what they mean to a shell ([`expand_path`]).
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
        Some(Self { root: expand_path(root) })
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
            // What may not be looked at may be there all the same.
            for path in [&self.root, &repository, &snapshot] {
                match path.read_dir() {
                    Err(source) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                        return Err(HubError::Read { path: path.clone(), source });
                    }
                    _ => {}
                }
            }
            return Err(self.not_cached(id, revision));
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

/// Where a file of a model's folder is, when that is where one may be.
pub(crate) fn check_link(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    pippin_weights::resolve_link(folder, name).map_err(|error| match error {
        WeightsError::Io { source, .. } => HubError::Read { path, source },
        _ => HubError::ForeignLink { target: path.canonicalize().unwrap_or_default(), path },
    })
}

/// A path in which `~` at its beginning stands for the home folder and `$NAME` or `${NAME}` for a variable, as in a shell and as
/// `huggingface_hub` has it: they reach a program as they are when a setting was made in a file or in quotes. Variables
/// that are not set stay.
///
/// ```
/// use pippin_hub::expand_path;
///
/// let home = std::env::home_dir().expect("a home folder");
/// assert_eq!(expand_path("~/models"), home.join("models"));
/// assert_eq!(expand_path("/data/$PIPPIN_NO_SUCH_VARIABLE"), std::path::Path::new("/data/$PIPPIN_NO_SUCH_VARIABLE"));
/// ```
pub fn expand_path(path: impl Into<PathBuf>) -> PathBuf {
    expand(path.into(), std::env::home_dir(), |name| std::env::var_os(name))
}

fn expand(path: PathBuf, home: Option<PathBuf>, variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let path = match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) if rest.as_os_str().is_empty() => home,
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    };
    let Some(mut rest) = path.to_str().filter(|text| text.contains('$')) else { return path };
    let mut expanded = OsString::new();
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push(before);
        let braced = after.strip_prefix('{').and_then(|after| after.split_once('}'));
        let (name, others) = braced.unwrap_or_else(|| {
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            after.split_at(after.bytes().position(|byte| !is_part(byte)).unwrap_or(after.len()))
        });
        // Some systems do not like to be asked about such names.
        let is_name = !name.is_empty() && !name.contains(['=', '\0']);
        match is_name.then(|| variable(name)).flatten() {
            Some(value) => {
                expanded.push(value);
                rest = others;
            }
            None => {
                expanded.push("$");
                rest = after;
            }
        }
    }
    expanded.push(rest);
    PathBuf::from(expanded)
}

/// Whether the weights of a folder's model are GGUF files: it has some, and no others.
pub(crate) fn is_folder_of_gguf(folder: &Path) -> bool {
    if gguf::names_in(folder).is_empty() {
        return false;
    }
    let others = WeightFiles::of_folder(folder);
    !folder.join("config.json").is_file()
        || others.is_ok_and(|files| files.files.is_empty() && files.missing.is_empty())
}

/// What a model folder lacks: `None` when `config.json` and all files are there that hold its weights.
pub(crate) fn missing(folder: &Path) -> Result<Option<String>> {
    if is_folder_of_gguf(folder) {
        // One whole quantization is a model, whatever else is there.
        let names = gguf::names_in(folder);
        let sets = gguf::sets(names.iter().map(String::as_str));
        let lacks = sets.iter().find_map(|set| set.missing.first());
        let is_whole = sets.iter().any(|set| set.missing.is_empty());
        return Ok(lacks.filter(|_| !is_whole).map(|name| format!("no {name:?}")));
    }
    if !folder.join("config.json").is_file() {
        return Ok(Some("no config.json".to_owned()));
    }
    // Reading a pipe would wait for its other end.
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let is_special = || entry.path().metadata().is_ok_and(|metadata| !metadata.is_file());
        if is_needed(&name) && name != WeightFiles::INDEX && is_special() {
            return Ok(Some(format!("{name} is not a regular file")));
        }
    }
    let files = match WeightFiles::of_folder(folder) {
        Ok(files) => files,
        Err(WeightsError::Io { path, source, .. }) => return Err(HubError::Read { path, source }),
        // What the loader would refuse.
        Err(error) => return Ok(Some(error.to_string())),
    };
    Ok(match files.missing.as_slice() {
        [] if files.files.is_empty() => Some("no model*.safetensors file".to_owned()),
        [] => None,
        [one] => Some(format!("no {one:?}")),
        [first, ..] => Some(format!("no {first:?} and {} more", files.missing.len() - 1)),
    })
}

/// The `config.json` of a folder, as far as it can be read.
pub(crate) fn read_config(folder: &Path) -> Value {
    let path = folder.join("config.json");
    read_limited(&path, MAX_CONFIG_BYTES)
        .and_then(|text| pippin_weights::json::parse(text.as_bytes()).ok())
        .unwrap_or_default()
}

pub(crate) fn read_limited(path: &Path, limit: u64) -> Option<String> {
    let mut text = String::new();
    // Opening a pipe would wait for its other end.
    if !path.is_file() {
        return None;
    }
    File::open(path).ok()?.take(limit + 1).read_to_string(&mut text).ok()?;
    (text.len() as u64 <= limit).then_some(text)
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
        assert_eq!(problem(&cache), "no model*.safetensors file");
        let snapshot = root.path().join("models--org--name/snapshots/0123abcd");
        let index = snapshot.join("model.safetensors.index.json");
        let map =
            |text: &str| fs::write(&index, format!(r#"{{"weight_map": {{{text}}}}}"#)).expect("written");
        map(r#""a": "x-1.safetensors", "b": "x-2.safetensors", "c": "x-3.safetensors""#);
        fs::write(snapshot.join("x-1.safetensors"), b"\x02\0\0\0\0\0\0\0{}").expect("written");
        assert_eq!(problem(&cache), r#"no "x-2.safetensors" and 1 more"#);
        map(r#""a": "../../k.safetensors""#);
        assert!(problem(&cache).contains("refusing"), "{}", problem(&cache));
        // An index that cannot be read is not needed, and the numbers of shards tell what is missing.
        fs::write(&index, "[").expect("written");
        assert_eq!(problem(&cache), "no model*.safetensors file");
        fs::write(snapshot.join("model-00002-of-00002.safetensors"), b"\x02\0\0\0\0\0\0\0{}")
            .expect("written");
        assert_eq!(problem(&cache), r#"no "model-00001-of-00002.safetensors""#);
    }

    #[test]
    fn paths_are_expanded_as_by_a_shell() {
        let variable = |name: &str| match name {
            "A" => Some(OsString::from("/a")),
            "LONG_1" => Some(OsString::from("long $A")),
            _ => None,
        };
        for (path, expected) in [
            ("~", "/home/me"),
            ("~/x/~", "/home/me/x/~"),
            ("~other/x", "~other/x"),
            ("x/~", "x/~"),
            ("$A/x", "/a/x"),
            ("${A}b/$LONG_1/$A", "/ab/long $A//a"),
            ("$B/$A", "$B//a"),
            ("$", "$"),
            ("a$$A", "a$/a"),
            ("${A", "${A"),
            ("${}$=", "${}$="),
            ("$AB", "$AB"),
        ] {
            let found = expand(PathBuf::from(path), Some(PathBuf::from("/home/me")), variable);
            assert_eq!(found.to_str(), Some(expected), "{path}");
        }
        assert_eq!(expand(PathBuf::from("~/x"), None, variable), Path::new("~/x"));
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
            assert_eq!(with(&[("HUGGINGFACE_HUB_CACHE", "~")]), home);
        }
    }
}
