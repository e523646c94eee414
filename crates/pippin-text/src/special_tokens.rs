//! Tokens that a model folder names or adds beside `tokenizer.json`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::files::{self, kind};
use crate::vocabulary::Library;

/// The named special tokens of a model, as templates see them: `bos_token`, `eos_token`, `pad_token`, ….
///
/// Read from `tokenizer_config.json`: every `*_token` field, whether it is a string or an object with `content`, and
/// the entries of `extra_special_tokens` where that is an object (`image_token` and the like). Fields that are `null`
/// are absent. In a folder whose `tokenizer_config.json` has no `added_tokens_decoder`, `special_tokens_map.json` comes first,
/// as in `transformers`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    tokens: BTreeMap<String, String>,
}

impl SpecialTokens {
    /// The text of a token by its field name, for instance `get("bos_token")`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.tokens.get(name).map(String::as_str)
    }

    /// All names with their texts, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tokens.iter().map(|(name, token)| (name.as_str(), token.as_str()))
    }
}

impl<N: Into<String>, T: Into<String>> FromIterator<(N, T)> for SpecialTokens {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(iter: I) -> Self {
        Self { tokens: iter.into_iter().map(|(name, token)| (name.into(), token.into())).collect() }
    }
}

/// The names under which every tokenizer may have a special token; a model may have others.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What the files beside `tokenizer.json` say about tokens.
#[derive(Debug, Default)]
pub(crate) struct DeclaredTokens {
    pub(crate) special: SpecialTokens,
    /// Tokens with the ids that are given for them, in the order of these: those that the tokenizer does not have are to be
    /// added, those that it has are to be what is said here.
    pub(crate) added: Vec<(u32, AddedToken)>,
    /// Tokens with a name: special whatever else is said of them, and to be added where the tokenizer does not have them.
    pub(crate) named: Vec<AddedToken>,
    /// Special tokens without a name, to be added likewise.
    pub(crate) extra: Vec<AddedToken>,
    /// What was left out and why.
    pub(crate) warnings: Vec<String>,
}

impl DeclaredTokens {
    /// Reads `tokenizer_config.json`, and the older `special_tokens_map.json` and `added_tokens.json`, which count where it
    /// has no `added_tokens_decoder`: then, as in `transformers` 5, what the former says stands above it.
    pub(crate) fn from_dir(dir: &Path, config: &Map<String, Value>) -> Self {
        let mut warnings = Vec::new();
        let config_path = dir.join("tokenizer_config.json");
        if config.contains_key("added_tokens_decoder") {
            return Self::from_config(&config_path, config);
        }
        let mut merged = config.clone();
        let mut map = files::read_optional_object(&dir.join("special_tokens_map.json"), &mut warnings);
        // Its list of further tokens is added to that of the configuration, or nothing, if it has the older name.
        let own = ["extra_special_tokens", "additional_special_tokens"]
            .into_iter()
            .find_map(|name| config.get(name)?.as_array().filter(|list| !list.is_empty()));
        if let Some(own) = own {
            map.remove("additional_special_tokens");
            let mut all = own.clone();
            if let Some(Value::Array(further)) = map.remove("extra_special_tokens") {
                all.extend(further.into_iter().filter(|token| !own.contains(token)));
            }
            map.insert("extra_special_tokens".to_owned(), all.into());
        }
        merged.extend(map);
        let mut declared = Self::from_config(&config_path, &merged);
        let added_path = dir.join("added_tokens.json");
        let special = declared.named.iter().chain(&declared.extra);
        let special: HashSet<String> = special.map(|token| token.content.clone()).collect();
        for (content, id) in files::read_optional_object(&added_path, &mut warnings) {
            match pippin_weights::json::unsigned(&id).and_then(|id| u32::try_from(id).ok()) {
                Some(id) => {
                    let is_special = special.contains(&content);
                    declared.added.push((id, AddedToken::from(content, is_special)));
                }
                None => warnings.push(ignored(&added_path, &content, "must be a token id", &id)),
            }
        }
        declared.added.sort_by_key(|(id, _)| *id);
        declared.warnings.extend(warnings);
        declared
    }

    /// Reads the object of a `tokenizer_config.json`; `path` is for warnings.
    pub(crate) fn from_config(path: &Path, config: &Map<String, Value>) -> Self {
        let mut declared = Self::default();
        let own = config.iter().filter(|(name, _)| name.ends_with("_token") && !name.starts_with("add_"));
        let groups = ["extra_special_tokens", "model_specific_special_tokens"]
            .into_iter()
            .filter_map(|group| config.get(group)?.as_object())
            .flatten();
        let mut own: Vec<(&String, &Value)> = own.chain(groups).collect();
        // In the order in which they get their ids.
        own.sort_by_key(|(name, _)| NAMES.iter().position(|known| known == name).unwrap_or(NAMES.len()));
        for (name, value) in own {
            // Null means that there is no such token, and so does false.
            if matches!(value, Value::Null | Value::Bool(_)) {
                continue;
            }
            match token(value) {
                Some(token) => {
                    declared.special.tokens.insert(name.clone(), token.content.clone());
                    declared.named.push(token);
                }
                None => {
                    let problem = "must be a string, an object with `content`, or null";
                    declared.warnings.push(ignored(path, name, problem, value));
                }
            }
        }
        // The older name counts where the newer one says nothing.
        for name in ["extra_special_tokens", "additional_special_tokens"] {
            for value in config.get(name).and_then(Value::as_array).into_iter().flatten() {
                match token(value) {
                    Some(token) => declared.extra.push(token),
                    None => declared.warnings.push(ignored(path, name, "must hold strings", value)),
                }
            }
            if !declared.extra.is_empty() {
                break;
            }
        }
        let decoder = match config.get("added_tokens_decoder") {
            None | Some(Value::Null) => return declared,
            Some(Value::Object(decoder)) => decoder,
            Some(other) => {
                declared.warnings.push(ignored(path, "added_tokens_decoder", "must be an object", other));
                return declared;
            }
        };
        for (key, value) in decoder {
            let field = format!("added_tokens_decoder.{key}");
            match (key.trim().parse(), value.is_object().then(|| token_object(value, false)).flatten()) {
                (Ok(id), Some(token)) => declared.added.push((id, token)),
                _ => declared.warnings.push(ignored(
                    path,
                    &field,
                    "must be a token id with an object that has `content`",
                    value,
                )),
            }
        }
        declared.added.sort_by_key(|(id, _)| *id);
        declared
    }

    /// Adds to a tokenizer what it lacks, in the order that `transformers` has. `file` is where it comes from, for warnings.
    pub(crate) fn add_to(&mut self, tokenizer: &mut Library, file: &str) -> tokenizers::Result<()> {
        let present = tokenizer.get_added_tokens_decoder();
        let same = |token: &AddedToken| {
            let id = tokenizer.token_to_id(&token.content)?;
            present.get(&id).map(|present| present == token)
        };
        let named: HashSet<&str> = self.named.iter().map(|token| token.content.as_str()).collect();
        let mut missing: Vec<AddedToken> = Vec::new();
        let mut listed = HashSet::new();
        for (_, token) in &self.added {
            listed.insert(token.content.as_str());
            let is_special = token.special || named.contains(token.content.as_str());
            let token = token.clone().special(is_special);
            if same(&token) != Some(true) {
                missing.push(token);
            }
        }
        for token in self.named.iter().chain(&self.extra) {
            // What is there already stays as it is.
            if same(token).is_none() && listed.insert(token.content.as_str()) {
                missing.push(token.clone());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let unknown: Vec<String> = missing
            .iter()
            .filter(|token| tokenizer.token_to_id(&token.content).is_none())
            .map(|token| token.content.clone())
            .collect();
        tokenizer.add_tokens(missing)?;
        let declared: HashMap<&str, u32> =
            self.added.iter().map(|(id, token)| (token.content.as_str(), *id)).collect();
        for content in unknown {
            let id = tokenizer.token_to_id(&content).unwrap_or_default();
            let problem = match declared.get(content.as_str()) {
                Some(declared) if *declared == id => continue,
                Some(declared) => format!("has the id {declared} in the files beside it and no place there"),
                None => "is named in the files beside it and not there".to_owned(),
            };
            self.warnings.push(format!("{file}: the token {content:?} {problem}; added as {id}"));
        }
        Ok(())
    }
}

/// A named token: a string, or an object.
fn token(value: &Value) -> Option<AddedToken> {
    match value {
        Value::String(content) => Some(AddedToken::from(content.as_str(), true)),
        value => token_object(value, true).map(|token| token.special(true)),
    }
}

/// A token as an object with flags. Those that are missing are as `tokenizers` has them.
fn token_object(value: &Value, is_special: bool) -> Option<AddedToken> {
    let content = value.get("content")?.as_str().filter(|content| !content.is_empty())?;
    let flag =
        |name: &str, default: bool| value.get(name).and_then(pippin_weights::json::flag).unwrap_or(default);
    let is_special = flag("special", is_special);
    Some(
        AddedToken::from(content, is_special)
            .single_word(flag("single_word", false))
            .lstrip(flag("lstrip", false))
            .rstrip(flag("rstrip", false))
            .normalized(flag("normalized", !is_special)),
    )
}

fn ignored(path: &Path, field: &str, problem: &str, found: &Value) -> String {
    format!("{}: field `{field}`: {problem}; found {}; ignored", path.display(), kind(found))
}
