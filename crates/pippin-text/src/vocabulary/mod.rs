//! Vocabularies that are not written as `tokenizer.json`, each made into the tokenizer that it means.

mod bytes;
mod family;
mod gguf;
mod merges;
mod model;
mod sentencepiece;
mod tekken;
mod tiktoken;
mod trie;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
};

use crate::error::{Result, TextError};
use crate::files;
pub(crate) use bytes::byte_of;
use family::Family;
pub use gguf::GgufVocabulary;
pub(crate) use model::Model;

/// The tokenizer of the library, with the models that it does not have.
pub(crate) type Library =
    TokenizerImpl<Model, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// The most tokens that a vocabulary may have. The largest ones known have a quarter of a million.
const MOST_TOKENS: usize = 1 << 22;

/// The parts of a tokenizer, in the words of `tokenizer.json` but for the model.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) normalizer: Value,
    pub(crate) pre_tokenizer: Value,
    pub(crate) decoder: Value,
    pub(crate) model: Model,
    /// Tokens that are looked for in a text before anything else, and those that the model does not have.
    pub(crate) added: Vec<AddedToken>,
    pub(crate) ends: Ends,
    /// Special tokens that are named here and may be named otherwise beside it.
    pub(crate) names: Vec<(&'static str, String)>,
    /// How many times longer a text may become before it is cut into tokens.
    pub(crate) growth: f64,
    /// Whether every byte of a text becomes part of some token.
    pub(crate) keeps_every_byte: bool,
}

/// What is put around a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// What `add_bos_token` and `add_eos_token` say.
    Configured,
    /// These tokens, where they are in the vocabulary.
    Tokens { before: Option<String>, after: Option<String> },
}

impl Pipeline {
    /// A vocabulary of bytes, cut into words by regular expressions one after the other.
    fn byte_level(model: Model, patterns: &[impl AsRef<str>]) -> Self {
        let level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        let mut parts: Vec<Value> = patterns.iter().map(|pattern| split(pattern.as_ref())).collect();
        parts.push(level.clone());
        Self {
            normalizer: Value::Null,
            pre_tokenizer: sequence("pretokenizers", parts),
            decoder: level,
            model,
            added: Vec::new(),
            ends: Ends::Configured,
            names: Vec::new(),
            growth: 2.0,
            keeps_every_byte: true,
        }
    }

    /// Puts the parts together.
    pub(crate) fn assemble(self) -> tokenizers::Result<Library> {
        fn part<P: serde::de::DeserializeOwned>(value: Value) -> tokenizers::Result<Option<P>> {
            Ok(serde_json::from_value(value)?)
        }
        let mut library = Library::new(self.model);
        library.with_normalizer(part::<NormalizerWrapper>(self.normalizer)?)?;
        library.with_pre_tokenizer(part::<PreTokenizerWrapper>(self.pre_tokenizer)?);
        library.with_decoder(part::<DecoderWrapper>(self.decoder)?);
        library.add_tokens(self.added)?;
        Ok(library)
    }

    /// A configuration that names the special tokens that are named here, unless it names others. Those that the vocabulary does not
    /// have are not named.
    pub(crate) fn with_names(&self, mut config: Map<String, Value>) -> Map<String, Value> {
        for (name, token) in &self.names {
            let is_added = self.added.iter().any(|added| added.content == *token);
            if is_added || tokenizers::Model::token_to_id(&self.model, token).is_some() {
                config.entry(*name).or_insert_with(|| Value::from(token.as_str()));
            }
        }
        config
    }
}

impl Ends {
    /// The post-processor that puts them there. `named` gives the special tokens by name, `id` the ids of tokens.
    pub(crate) fn post_processor(
        &self,
        config: &Map<String, Value>,
        named: impl Fn(&str) -> Option<String>,
        id: impl Fn(&str) -> Option<u32>,
    ) -> Option<Value> {
        let asks = |name: &str| config.get(name).and_then(pippin_weights::json::flag) == Some(true);
        let (before, after) = match self {
            Self::Configured => (
                named("bos_token").filter(|_| asks("add_bos_token")),
                named("eos_token").filter(|_| asks("add_eos_token")),
            ),
            Self::Tokens { before, after } => (before.clone(), after.clone()),
        };
        let [before, after] = [before, after].map(|token| token.and_then(|token| Some((id(&token)?, token))));
        if before.is_none() && after.is_none() {
            return None;
        }
        let special = |token: &Option<(u32, String)>| {
            token.as_ref().map(|(_, token)| json!({"SpecialToken": {"id": token, "type_id": 0}}))
        };
        let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        let single: Vec<Value> =
            special(&before).into_iter().chain([text("A")]).chain(special(&after)).collect();
        let tokens: Map<String, Value> = [before, after]
            .into_iter()
            .flatten()
            .map(|(id, token)| (token.clone(), json!({"id": token, "ids": [id], "tokens": [token]})))
            .collect();
        Some(json!({
            "type": "TemplateProcessing", "single": single, "pair": [text("A"), text("B")], "special_tokens": tokens,
        }))
    }
}

/// Looks for the vocabulary of a folder without `tokenizer.json`; `None` if there is none. The path is that of the file.
pub(crate) fn from_dir(dir: &Path, config: &Map<String, Value>) -> Result<Option<(PathBuf, Pipeline)>> {
    let family = Family::of(dir, config)?;
    let read = |name: &str| -> Result<Option<(PathBuf, Vec<u8>)>> {
        let path = dir.join(name);
        Ok(files::read_bytes(&path, files::TOKENIZER_LIMIT)?.map(|bytes| (path, bytes)))
    };
    if let Some((path, bytes)) = read("tekken.json")? {
        let pipeline = tekken::pipeline(&bytes).map_err(|problem| invalid(&path, problem))?;
        return Ok(Some((path, pipeline)));
    }
    for name in ["tokenizer.model", "tiktoken.model", "spiece.model", "sentencepiece.bpe.model"] {
        if let Some((path, bytes)) = read(name)? {
            let pipeline = if tiktoken::looks_like_one(&bytes) {
                tiktoken::pipeline(&bytes, &path, &family, config)
            } else {
                sentencepiece::pipeline(&bytes, &family, config)
            };
            let pipeline = pipeline.map_err(|problem| invalid(&path, problem))?;
            return Ok(Some((path, pipeline)));
        }
    }
    if let Some(name) = tiktoken::file_in(dir)
        && let Some((path, bytes)) = read(&name)?
    {
        let pipeline = tiktoken::pipeline(&bytes, &path, &family, config);
        return Ok(Some((path.clone(), pipeline.map_err(|problem| invalid(&path, problem))?)));
    }
    if let Some((path, vocabulary)) = read("vocab.json")? {
        let merges_path = dir.join("merges.txt");
        let Some(merges) = files::read_text(&merges_path, files::TOKENIZER_LIMIT)? else {
            return Err(TextError::Missing {
                path: merges_path,
                hint: "`vocab.json` does not say what is merged",
            });
        };
        let pipeline = merges::pipeline(&vocabulary, &merges, &family, config);
        return Ok(Some((path.clone(), pipeline.map_err(|problem| invalid(&path, problem))?)));
    }
    Ok(None)
}

fn invalid(path: &Path, problem: String) -> TextError {
    TextError::InvalidVocabulary { path: path.to_owned(), problem }
}

/// Cuts a text at each match of a regular expression; what is matched is a piece of its own.
fn split(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

/// Parts one after the other, as a list of the given name; a single one stands for itself.
fn sequence(list: &str, mut parts: Vec<Value>) -> Value {
    match parts.len() {
        0 => Value::Null,
        1 => parts.remove(0),
        _ => json!({"type": "Sequence", list: parts}),
    }
}

/// A token that is looked for in the text as it was written.
fn token(content: impl Into<String>, is_special: bool) -> AddedToken {
    AddedToken::from(content, is_special).normalized(false)
}
