//! Which files of a model are needed, and which of them are missing.

use std::collections::BTreeSet;
use std::path::Path;

use pippin_weights::{WeightFiles, WeightIndex, WeightsError};

use super::ranges::Ranges;
use crate::gguf;
use crate::http::Ask;
use crate::store::{check_file_name, is_trick};
use crate::{FileHash, HubCache, HubClient, HubError, RemoteModel, Result};

/// The index of weights in several files.
const INDEX: &str = WeightFiles::INDEX;

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
    /// What is odd about the model's files, in sentences for the user.
    pub warnings: Vec<String>,
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
    /// Needed are the configuration, the tokenizer, templates, and the weights: the files that
    /// [`WeightFiles`] chooses, which are those that a model is loaded from.
    ///
    /// # Errors
    ///
    /// The names are invalid, the hub cannot be reached, it has no such model or does not show it, the model has no
    /// weights in safetensors files or not all of them, or names files that would leave their folder.
    pub fn plan(&self, cache: &HubCache, id: &str, revision: &str) -> Result<PullPlan> {
        self.plan_of(cache, id, revision, None)
    }

    /// The same for one of the quantizations that a model has as GGUF files, by its name (`Q4_K_M`) or that of a file. A model
    /// that has nothing else needs one; where there is only one, it need not be named.
    ///
    /// # Errors
    ///
    /// As [`plan`](Self::plan); and there is no such quantization, or there are several (the message lists them).
    pub fn plan_of(
        &self,
        cache: &HubCache,
        id: &str,
        revision: &str,
        quantization: Option<&str>,
    ) -> Result<PullPlan> {
        let model = self.model_info(id, revision)?;
        let commit = model
            .sha
            .clone()
            .filter(|sha| is_commit(sha))
            .ok_or_else(|| HubError::Protocol { url: self.page(id), problem: "no commit".to_owned() })?;
        // A renamed model is kept under the name that it was asked for, as the Python tools do.
        let (names, warnings) = self.needed(id, &commit, &model, quantization)?;
        let mut files = Vec::with_capacity(names.len());
        for path in names {
            check_file_name(id, &path)?;
            let (size, hash) = match model.file(&path).map(|file| (file.size, file.hash.clone())) {
                Some((Some(size), Some(hash))) => (size, hash),
                _ => self.ask_about(id, &commit, &path)?,
            };
            let present = cache.present_bytes(id, &hash, size);
            files.push(PlannedFile { path, size, hash, present });
        }
        Ok(PullPlan { id: id.to_owned(), revision: revision.to_owned(), commit, files, warnings })
    }

    fn needed(
        &self,
        id: &str,
        commit: &str,
        model: &RemoteModel,
        quantization: Option<&str>,
    ) -> Result<(BTreeSet<String>, Vec<String>)> {
        let names: Vec<&str> = model.siblings.iter().map(|file| file.path.as_str()).collect();
        // Nobody writes such a name by accident.
        if let Some(name) = names.iter().find(|name| is_trick(name)) {
            check_file_name(id, name)?;
        }
        let sets = gguf::sets(names.iter().copied());
        let of_gguf = || {
            let no_weights = |problem| HubError::NoWeights { id: id.to_owned(), problem };
            let set = gguf::choose(&sets, quantization)
                .map_err(|error| HubError::Quantization { model: id.to_owned(), problem: error.into() })?;
            match set.missing.first() {
                Some(missing) => Err(no_weights(format!(
                    "{missing:?} belongs to its weights, but the hub does not have it"
                ))),
                None => Ok((set.files.into_iter().collect(), Vec::new())),
            }
        };
        if quantization.is_some() {
            return of_gguf();
        }
        let has_index = names.contains(&INDEX);
        let index = if has_index { Some(self.index(id, commit)?) } else { None };
        let sizes = model.siblings.iter().map(|file| (file.path.as_str(), file.size));
        let weights = WeightFiles::choose(sizes, index).map_err(|error| unsafe_path(id, &error))?;
        let nothing = |problem: String| Err(HubError::NoWeights { id: id.to_owned(), problem });
        if let Some(first) = weights.missing.first() {
            let others = match weights.missing.len() - 1 {
                0 => String::new(),
                others => format!(" and {others} more"),
            };
            return nothing(format!(
                "{first:?}{others} belongs to its weights, but the hub does not have it"
            ));
        }
        if weights.files.is_empty() && !sets.is_empty() {
            return of_gguf();
        }
        if weights.files.is_empty() {
            let has = |suffix: &str| names.iter().any(|name| name.ends_with(suffix));
            let kinds = [
                (has("model_index.json"), "it has the parts of an image generator"),
                (has("adapter_config.json"), "it is an adapter, the difference to a model"),
                (has(".safetensors"), "none of its *.safetensors files is called model*.safetensors"),
                (has(".bin"), "it has PyTorch files only"),
                (has(".npz"), "it has NumPy files only"),
            ];
            let kind = kinds.into_iter().find(|(is_so, _)| *is_so);
            return nothing(kind.map_or("it has no *.safetensors files", |(_, kind)| kind).to_owned());
        }
        if !names.contains(&"config.json") {
            return nothing("it has no config.json".to_owned());
        }
        let mut needed: BTreeSet<String> =
            names.iter().filter(|name| is_needed(name)).map(|&name| name.to_owned()).collect();
        needed.extend(weights.files);
        needed.extend(weights.extra);
        Ok((needed, weights.warnings))
    }

    /// What the index says. One that the hub lists but does not give out is as good as none.
    fn index(&self, id: &str, commit: &str) -> Result<Result<WeightIndex, WeightsError>> {
        let unread = |problem: String| WeightsError::Index {
            path: Path::new(INDEX).to_owned(),
            field: "weight_map".to_owned(),
            problem,
        };
        let index = match self.fetch_small(id, commit, INDEX, WeightIndex::MAX_BYTES) {
            Ok(bytes) => WeightIndex::parse(&bytes, Path::new(INDEX)),
            Err(
                error @ (HubError::NoFile { .. } | HubError::NotOnHub { .. } | HubError::TooLarge { .. }),
            ) => Err(unread(error.to_string())),
            Err(error) => return Err(error),
        };
        if let Ok(index) = &index {
            for shard in index.shards() {
                check_file_name(id, shard)?;
            }
        }
        Ok(index)
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

fn unsafe_path(id: &str, error: &WeightsError) -> HubError {
    let path = match error {
        WeightsError::UnsafeShard { shard, .. } => shard.chars().take(200).collect(),
        _ => INDEX.to_owned(),
    };
    HubError::UnsafePath { id: id.to_owned(), path, problem: "it leads out of its folder" }
}

/// Whether a file, weights aside, is one that some part of Pippin reads.
pub(crate) fn is_needed(name: &str) -> bool {
    if let Some((folder, file)) = name.split_once('/') {
        return folder.ends_with("chat_templates") && !file.contains('/') && file.ends_with(".jinja");
    }
    match name {
        "tokenizer.model" | "tiktoken.model" | "spiece.model" | "sentencepiece.bpe.model" | "tekken.json" => {
            true
        }
        "merges.txt" | "vocab.txt" | INDEX => true,
        "vocab.json" | "added_tokens.json" | "special_tokens_map.json" | "chat_template.json" => true,
        _ => {
            name.ends_with("config.json")
                || name.ends_with(".jinja")
                || name.ends_with(".tiktoken")
                || (name.starts_with("tokenizer") && name.ends_with(".json"))
        }
    }
}

/// Whether a needed file is one without which a model runs all the same. `has_tokenizer`: whether `tokenizer.json` is there,
/// which says everything that older forms of a tokenizer do.
pub(crate) fn is_optional(name: &str, has_tokenizer: bool) -> bool {
    match name {
        "config.json" | "tokenizer_config.json" => false,
        INDEX | "added_tokens.json" | "special_tokens_map.json" => true,
        "tokenizer.model" | "tiktoken.model" | "spiece.model" | "sentencepiece.bpe.model" | "tekken.json" => {
            has_tokenizer
        }
        "merges.txt" | "vocab.txt" | "vocab.json" => has_tokenizer,
        _ => {
            name.contains('/')
                || name.ends_with("config.json")
                || (has_tokenizer && name.ends_with(".tiktoken"))
                || (has_tokenizer && name.starts_with("tokenizer.") && name != "tokenizer.json")
        }
    }
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
            "tekken.json",
            "tiktoken.model",
            "spiece.model",
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
    fn what_is_optional() {
        for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
            assert!(!is_optional(name, true) && !is_optional(name, false), "{name}");
        }
        for name in [
            "generation_config.json",
            "preprocessor_config.json",
            INDEX,
            "additional_chat_templates/rag.jinja",
        ] {
            assert!(is_optional(name, true) && is_optional(name, false), "{name}");
        }
        for name in [
            "tokenizer.model",
            "vocab.json",
            "merges.txt",
            "qwen.tiktoken",
            "tokenizer.model.v3",
            "tekken.json",
            "spiece.model",
        ] {
            assert!(is_optional(name, true) && !is_optional(name, false), "{name}");
        }
    }
}
