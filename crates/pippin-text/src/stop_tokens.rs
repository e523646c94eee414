//! Ids that end an answer.

use std::collections::BTreeSet;
use std::path::Path;

use pippin_weights::json::signed;
use serde_json::{Map, Value};

use crate::error::{Result, TextError};
use crate::files::{self, kind};
use crate::tokenizer::Tokenizer;

/// The set of token ids that end an answer.
///
/// Gathered as mlx-lm 0.32 gathers it: `eos_token_id` of `generation_config.json`, where it is given, *replaces* that of
/// `config.json` (a number or a list in both); the tokenizer's own end-of-sequence token is always added. In
/// `config.json` of multimodal models the field may stand inside `text_config`; it is used when there is none at the
/// top.
///
/// Ids outside the vocabulary (some models ship −1, or the id of a larger sibling) can never be generated. mlx-lm loads
/// such models, and so does Pippin: these ids are left out and reported by [`warnings`](Self::warnings). So is what is no id
/// at all, and so is a `generation_config.json` that cannot be read: nothing of these keeps a model from answering.
///
/// One difference: mlx-lm takes an `eos_token_id` of 0 in `generation_config.json` for "not given", and goes on to
/// `config.json`. So does this, but token 0 ends an answer too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopTokens {
    ids: BTreeSet<u32>,
    warnings: Vec<String>,
}

impl StopTokens {
    /// Gathers the stop tokens of a model folder. Both configuration files may be absent.
    pub fn from_dir(dir: impl AsRef<Path>, tokenizer: &Tokenizer) -> Result<Self> {
        let dir = dir.as_ref();
        let (generation_path, config_path) = (dir.join("generation_config.json"), dir.join("config.json"));
        let mut stop = Self::default();
        let generation = files::read_optional_object(&generation_path, &mut stop.warnings);
        let config = files::read_object(&config_path)?.unwrap_or_default();
        if !stop.add_field(&generation_path, "eos_token_id", &generation, tokenizer)
            && !stop.add_field(&config_path, "eos_token_id", &config, tokenizer)
            && let Some(Value::Object(text_config)) = config.get("text_config")
        {
            stop.add_field(&config_path, "text_config.eos_token_id", text_config, tokenizer);
        }
        files::cut(&mut stop.warnings);
        if let Some(token) = tokenizer.eos_token() {
            match tokenizer.token_to_id(token) {
                Some(id) => {
                    stop.ids.insert(id);
                }
                None => stop.warnings.push(format!(
                    "{}: field `eos_token`: {token:?} is not in the vocabulary; ignored",
                    dir.join("tokenizer_config.json").display()
                )),
            }
        }
        Ok(stop)
    }

    /// Adds further end-of-sequence tokens, each given as the token's text or, as in mlx-lm, as its id in digits.
    pub fn add_tokens<S: AsRef<str>>(
        &mut self,
        tokens: impl IntoIterator<Item = S>,
        tokenizer: &Tokenizer,
    ) -> Result<()> {
        for token in tokens {
            let token = token.as_ref();
            let number = token.parse().ok().filter(|id| tokenizer.id_to_token(*id).is_some());
            let id = number.or_else(|| tokenizer.token_to_id(token));
            self.ids.insert(id.ok_or_else(|| TextError::UnknownToken { token: token.to_owned() })?);
        }
        Ok(())
    }

    /// Adds one id.
    pub fn insert(&mut self, id: u32) {
        self.ids.insert(id);
    }

    /// Whether the id ends an answer.
    pub fn contains(&self, id: u32) -> bool {
        self.ids.contains(&id)
    }

    /// All ids, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.ids.iter().copied()
    }

    /// The number of ids.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none: such a model only ends at the token limit.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// What was left out and why, one line each; worth showing once when a model is loaded.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Adds the ids of one field and returns whether the field says anything. `field` is the name for messages; its
    /// last part is the key.
    fn add_field(
        &mut self,
        path: &Path,
        field: &str,
        object: &Map<String, Value>,
        tokenizer: &Tokenizer,
    ) -> bool {
        let key = field.rsplit('.').next().unwrap_or(field);
        let ids = match object.get(key) {
            None | Some(Value::Null | Value::Bool(false)) => return false,
            Some(Value::Array(ids)) => ids.as_slice(),
            Some(id) => std::slice::from_ref(id),
        };
        let mut says_something = false;
        for value in ids {
            let problem = match signed(value) {
                None => format!("must be a token id or a list of token ids; found {}", kind(value)),
                Some(id) => {
                    says_something |= id != 0;
                    let known = u32::try_from(id).ok().filter(|id| (*id as usize) < tokenizer.vocab_size());
                    if let Some(id) = known {
                        self.ids.insert(id);
                        continue;
                    }
                    format!("{id} is outside the vocabulary of {} tokens", tokenizer.vocab_size())
                }
            };
            self.warnings.push(format!("{}: field `{field}`: {problem}; ignored", path.display()));
        }
        says_something
    }
}

impl FromIterator<u32> for StopTokens {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        Self { ids: ids.into_iter().collect(), warnings: Vec::new() }
    }
}
