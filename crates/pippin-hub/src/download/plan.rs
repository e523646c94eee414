//! Which files of a model are needed, and which of them are missing.

use std::collections::BTreeSet;

use serde_json::Value;

use super::ranges::Ranges;
use crate::http::Ask;
use crate::store::{check_file_name, is_trick};
use crate::{FileHash, HubCache, HubClient, HubError, RemoteModel, Result};

/// The index of weights in several files.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// The largest index that is read.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// What a download will do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PullPlan {
    /// `organisation/name`.
    pub id: String,
    /// The branch, tag or commit that was asked for.
    pub revision: String,
    /// The commit that it stands for now.
    pub commit: String,
    /// The files that the model needs.
    pub files: Vec<PlannedFile>,
}

/// A file that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedFile {
    /// Its name within the model.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// What its content has to hash to.
    pub hash: FileHash,
    /// Bytes that are in the cache already, perhaps unchecked.
    pub present: u64,
}

impl PullPlan {
    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Looks again at what the cache has, without asking the hub. What has to be downloaded may have become less, or more.
    pub fn refresh(&mut self, cache: &HubCache) {
        for file in &mut self.files {
            file.present = cache.present_bytes(&self.id, &file.hash, file.size);
        }
    }

    /// Bytes that have to be downloaded.
    pub fn missing_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size - file.present).sum()
    }
}

impl HubClient {
    /// Finds out what a download has to do, and downloads nothing but the file list and the index of the weights.
    ///
    /// Needed are the configuration, the tokenizer, templates, and the weights that the index names; or, without an
    /// index, `model*.safetensors`.
    ///
    /// # Errors
    ///
    /// The names are invalid, the hub cannot be reached, it has no such model or does not show it, the model has no
    /// weights in safetensors files, or names files that would leave their folder.
    pub fn plan(&self, cache: &HubCache, id: &str, revision: &str) -> Result<PullPlan> {
        let model = self.model_info(id, revision)?;
        let commit = model
            .sha
            .clone()
            .filter(|sha| is_commit(sha))
            .ok_or_else(|| HubError::Protocol { url: self.page(id), problem: "no commit".to_owned() })?;
        // A renamed model is kept under the name that it was asked for, as the Python tools do.
        let names = self.needed(id, &commit, &model)?;
        let mut files = Vec::with_capacity(names.len());
        for path in names {
            check_file_name(id, &path)?;
            let (size, hash) = match model.file(&path) {
                Some(file) => match (file.size, file.hash.clone()) {
                    (Some(size), Some(hash)) => (size, hash),
                    _ => self.ask_about(id, &commit, &path)?,
                },
                None => {
                    let problem = format!("its index names {path:?}, which it does not have");
                    return Err(HubError::NoWeights { id: id.to_owned(), problem });
                }
            };
            let present = cache.present_bytes(id, &hash, size);
            files.push(PlannedFile { path, size, hash, present });
        }
        Ok(PullPlan { id: id.to_owned(), revision: revision.to_owned(), commit, files })
    }

    fn needed(&self, id: &str, commit: &str, model: &RemoteModel) -> Result<BTreeSet<String>> {
        let names: Vec<&str> = model.siblings.iter().map(|file| file.path.as_str()).collect();
        // Nobody writes such a name by accident.
        if let Some(name) = names.iter().find(|name| is_trick(name)) {
            check_file_name(id, name)?;
        }
        let mut needed: BTreeSet<String> =
            names.iter().filter(|name| is_needed(name)).map(|&name| name.to_owned()).collect();
        if model.file(INDEX).is_some() {
            let bytes = self.fetch_small(id, commit, INDEX, MAX_INDEX_BYTES)?;
            needed.extend(shards(id, &bytes)?);
            return Ok(needed);
        }
        let in_root = |name: &&&str| !name.contains('/') && name.ends_with(".safetensors");
        let mut weights: Vec<&&str> = names.iter().filter(in_root).collect();
        if weights.iter().any(|name| name.starts_with("model")) {
            weights.retain(|name| name.starts_with("model"));
        }
        if weights.is_empty() {
            let has = |suffix: &str| names.iter().any(|name| name.ends_with(suffix));
            let problem = match (has(".gguf"), has(".bin")) {
                (true, _) => "it has GGUF files only",
                (_, true) => "it has PyTorch files only",
                _ => "it has no *.safetensors files",
            };
            return Err(HubError::NoWeights { id: id.to_owned(), problem: problem.to_owned() });
        }
        if !names.contains(&"config.json") {
            let problem = "it has no config.json".to_owned();
            return Err(HubError::NoWeights { id: id.to_owned(), problem });
        }
        needed.extend(weights.into_iter().map(|&name| name.to_owned()));
        Ok(needed)
    }

    /// Size and hash of a file, of a server whose list does not have them.
    fn ask_about(&self, id: &str, commit: &str, path: &str) -> Result<(u64, FileHash)> {
        let url = self.file_url(id, commit, path);
        let answer = self
            .retried(|| self.ask(&url, Ask { head: true, range: None }))
            .map_err(|error| self.explain(error, id, commit, Some(path)))?;
        let size = answer.linked.size.or_else(|| answer.content_length());
        let hash = answer.linked.etag.as_deref().and_then(FileHash::from_hex);
        size.zip(hash).ok_or_else(|| HubError::Protocol {
            url,
            problem: "neither size nor hash of the file".to_owned(),
        })
    }
}

/// The files that an index names.
pub(crate) fn shards(id: &str, index: &[u8]) -> Result<BTreeSet<String>> {
    let unusable = |problem: &str| HubError::NoWeights {
        id: id.to_owned(),
        problem: format!("its model.safetensors.index.json {problem}"),
    };
    let index: Value = serde_json::from_slice(index).map_err(|_| unusable("is not valid JSON"))?;
    let map =
        index.get("weight_map").and_then(Value::as_object).ok_or_else(|| unusable("has no weight_map"))?;
    let mut names = BTreeSet::new();
    for name in map.values() {
        let name = name.as_str().ok_or_else(|| unusable("names files that are no text"))?;
        check_file_name(id, name)?;
        if !name.ends_with(".safetensors") {
            return Err(unusable("names files that are not *.safetensors"));
        }
        names.insert(name.to_owned());
    }
    if names.is_empty() { Err(unusable("names no files")) } else { Ok(names) }
}

/// Whether a file, weights aside, is one that some part of Pippin reads.
fn is_needed(name: &str) -> bool {
    if let Some((folder, file)) = name.split_once('/') {
        return folder.ends_with("chat_templates") && !file.contains('/') && file.ends_with(".jinja");
    }
    match name {
        "tokenizer.model" | "merges.txt" | "vocab.txt" | INDEX => true,
        "vocab.json" | "added_tokens.json" | "special_tokens_map.json" | "chat_template.json" => true,
        _ => {
            name.ends_with("config.json")
                || name.ends_with(".jinja")
                || name.ends_with(".tiktoken")
                || (name.starts_with("tokenizer") && name.ends_with(".json"))
        }
    }
}

/// Whether a file, weights included, is one that some part of Pippin reads.
pub(crate) fn is_file_of_a_model(name: &str) -> bool {
    is_needed(name) || (!name.contains('/') && name.ends_with(".safetensors"))
}

/// Whether a text is the hash of a commit, in full.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && matches!(FileHash::from_hex(text), Some(FileHash::GitBlob(_)))
}

impl HubCache {
    /// Bytes of a blob that need not be downloaded, as far as lengths and journals say.
    fn present_bytes(&self, id: &str, hash: &FileHash, size: u64) -> u64 {
        let blobs = self.repository(id).join("blobs");
        if blobs.join(hash.as_hex()).metadata().is_ok_and(|metadata| metadata.len() == size) {
            return size;
        }
        journalled(&blobs, hash.as_hex(), size).total()
    }
}

/// What a journal says is there, unchecked.
fn journalled(blobs: &std::path::Path, name: &str, size: u64) -> Ranges {
    let mut ranges = Ranges::default();
    let journal = blobs.join(format!("{name}{}", super::part::JOURNAL_SUFFIX));
    for line in crate::cache::read_limited(&journal, 512 << 20).unwrap_or_default().lines().skip(1) {
        let mut words = line.split(' ').map(|word| u64::from_str_radix(word, 16).ok());
        if let (Some(Some(start)), Some(Some(length))) = (words.next(), words.next())
            && let Some(end) = start.checked_add(length).filter(|&end| end <= size)
        {
            ranges.add(start, end);
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_read_is_needed() {
        for name in [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.json",
            "merges.txt",
            "tokenizer.model",
            "special_tokens_map.json",
            "added_tokens.json",
            "chat_template.jinja",
            "chat_template.json",
            "additional_chat_templates/rag.jinja",
            "preprocessor_config.json",
            INDEX,
            "qwen.tiktoken",
        ] {
            assert!(is_needed(name), "{name}");
        }
        for name in [
            "README.md",
            "LICENSE",
            ".gitattributes",
            "model.bin",
            "pytorch_model.bin.index.json",
            "model.gguf",
            "onnx/model.onnx",
            "original/consolidated.00.pth",
            "original/tokenizer.model",
            "modeling_x.py",
            "trainer_state.json",
            "optimizer.pt",
            "consolidated.safetensors",
            "sub/config.json",
        ] {
            assert!(!is_needed(name), "{name}");
        }
    }

    #[test]
    fn indexes_with_tricks_are_refused() {
        let index = |name: &str| serde_json::json!({"weight_map": {"a": name}}).to_string().into_bytes();
        assert_eq!(shards("o/n", &index("model-1.safetensors")).expect("fine").len(), 1);
        for name in [
            "../x.safetensors",
            "/x.safetensors",
            "a\\x.safetensors",
            "a/../../x.safetensors",
            "",
            "x\0.safetensors",
        ] {
            assert!(matches!(shards("o/n", &index(name)), Err(HubError::UnsafePath { .. })), "{name:?}");
        }
        for text in [
            "[",
            "{}",
            r#"{"weight_map": {}}"#,
            r#"{"weight_map": {"a": 1}}"#,
            r#"{"weight_map": {"a": "x.bin"}}"#,
        ] {
            assert!(matches!(shards("o/n", text.as_bytes()), Err(HubError::NoWeights { .. })), "{text}");
        }
    }
}
