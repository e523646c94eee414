//! Text to ids and back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::{Result, TextError};
use crate::files::{self, kind};

/// The named special tokens of a model, as templates see them: `bos_token`, `eos_token`, `pad_token`, ….
///
/// Read from `tokenizer_config.json`: every `*_token` field, whether it is a string or an object with `content`, and
/// the entries of `extra_special_tokens` where that is an object (`image_token` and the like). Fields that are `null`
/// are absent.
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

    fn from_config(path: &Path, config: &Map<String, Value>) -> Result<Self> {
        let mut tokens = BTreeMap::new();
        let extra = match config.get("extra_special_tokens") {
            Some(Value::Object(extra)) => Some(extra.iter()),
            _ => None,
        };
        let own = config.iter().filter(|(name, _)| name.ends_with("_token"));
        for (name, value) in own.chain(extra.into_iter().flatten()) {
            let token = match value {
                Value::String(token) => token,
                Value::Object(object) => match object.get("content") {
                    Some(Value::String(token)) => token,
                    _ => {
                        return Err(TextError::Field {
                            path: path.to_owned(),
                            field: format!("{name}.content"),
                            problem: "must be the token as a string".to_owned(),
                        });
                    }
                },
                // `add_bos_token` and its kin are flags, and null means that there is no such token.
                Value::Null | Value::Bool(_) => continue,
                other => {
                    return Err(TextError::Field {
                        path: path.to_owned(),
                        field: name.clone(),
                        problem: format!(
                            "must be a string, an object with `content`, or null; found {}",
                            kind(other)
                        ),
                    });
                }
            };
            tokens.insert(name.clone(), token.clone());
        }
        Ok(Self { tokens })
    }
}

impl<N: Into<String>, T: Into<String>> FromIterator<(N, T)> for SpecialTokens {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(iter: I) -> Self {
        Self { tokens: iter.into_iter().map(|(name, token)| (name.into(), token.into())).collect() }
    }
}

/// The tokenizer of one model: immutable, `Send + Sync`, and cheap to clone (clones share everything).
///
/// It follows what Hugging Face `transformers` 5 does with the same folder: whether a beginning-of-sequence token is
/// added is decided by the post-processor in `tokenizer.json`, not by `add_bos_token`; truncation and padding settings
/// in `tokenizer.json` are for training and are ignored; and `clean_up_tokenization_spaces` is not applied.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    tokenizer: tokenizers::Tokenizer,
    special: SpecialTokens,
    special_ids: HashSet<u32>,
    highest_id: u32,
    add_bos_token: Option<bool>,
    model_max_length: Option<u64>,
    decoding: Decoding,
}

/// What the streaming decoder needs to know of the vocabulary.
#[derive(Debug, Default)]
pub(crate) struct Decoding {
    /// Ids of the `<0xNN>` tokens with their bytes, if the decoder joins runs of them to characters.
    pub(crate) byte_tokens: HashMap<u32, u8>,
    /// Ids that decoding leaves out when special tokens are skipped.
    pub(crate) skipped: HashSet<u32>,
    /// An ordinary token that decodes to visible text, to stand in front where a decoder trims what comes first.
    pub(crate) neutral: Option<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and `tokenizer_config.json` where there is one, from a model folder.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let path = dir.join("tokenizer.json");
        let Some(json) = files::read_text(&path, files::TOKENIZER_LIMIT)? else {
            return Err(TextError::Missing {
                path,
                hint: "Pippin needs a `tokenizer.json`; convert older `tokenizer.model` files with transformers",
            });
        };
        let config_path = dir.join("tokenizer_config.json");
        let config = files::read_object(&config_path)?.unwrap_or_default();
        Self::build(path, &json, &config_path, &config)
    }

    /// Builds a tokenizer from the text of a `tokenizer.json` and the object of a `tokenizer_config.json`, which may
    /// be empty. For tests and for models that do not lie in a folder.
    pub fn from_json(tokenizer_json: &str, tokenizer_config: &Map<String, Value>) -> Result<Self> {
        Self::build(
            PathBuf::from("tokenizer.json"),
            tokenizer_json,
            Path::new("tokenizer_config.json"),
            tokenizer_config,
        )
    }

    fn build(path: PathBuf, json: &str, config_path: &Path, config: &Map<String, Value>) -> Result<Self> {
        // Parsed twice: the first pass tells damaged JSON, with line and column, from a strange tokenizer.
        let outline: Outline = serde_json::from_str(json).map_err(|error| TextError::Malformed {
            path: path.clone(),
            problem: format!("not valid JSON: {error}"),
        })?;
        let built = guard(|| {
            let mut tokenizer = tokenizers::Tokenizer::from_bytes(json.as_bytes())?;
            tokenizer.with_truncation(None)?;
            tokenizer.with_padding(None);
            Ok(tokenizer)
        });
        let tokenizer =
            built.map_err(|problem| TextError::InvalidTokenizer { path: path.clone(), problem })?;
        let invalid =
            |problem: &str| TextError::InvalidTokenizer { path: path.clone(), problem: problem.to_owned() };

        let vocabulary = tokenizer.get_vocab(true);
        let highest_id = *vocabulary.values().max().ok_or_else(|| invalid("the vocabulary is empty"))?;
        let mut decoding = Decoding::default();
        if outline.decoder.as_ref().is_some_and(joins_byte_tokens) {
            decoding.byte_tokens = (0..=u8::MAX)
                .filter_map(|byte| Some((*vocabulary.get(&format!("<0x{byte:02X}>"))?, byte)))
                .collect();
        }
        let plain =
            |token: &String| token.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !token.is_empty();
        decoding.neutral = vocabulary.iter().filter(|(token, _)| plain(token)).map(|(_, id)| *id).min();

        let special = SpecialTokens::from_config(config_path, config)?;
        let added = tokenizer.get_added_tokens_decoder();
        decoding.skipped = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let mut special_ids = decoding.skipped.clone();
        special_ids.extend(special.iter().filter_map(|(_, token)| vocabulary.get(token).copied()));

        let add_bos_token = match config.get("add_bos_token") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(flag)) => Some(*flag),
            Some(other) => {
                return Err(TextError::Field {
                    path: config_path.to_owned(),
                    field: "add_bos_token".to_owned(),
                    problem: format!("must be true, false or null; found {}", kind(other)),
                });
            }
        };
        // transformers writes 1e30 for "no limit"; everything that is not a plausible length means the same.
        let model_max_length = config
            .get("model_max_length")
            .and_then(Value::as_u64)
            .filter(|&length| length > 0 && length < 1 << 40);

        Ok(Self {
            inner: Arc::new(Inner {
                path,
                tokenizer,
                special,
                special_ids,
                highest_id,
                add_bos_token,
                model_max_length,
                decoding,
            }),
        })
    }

    /// Turns text into ids. With `add_special_tokens`, the post-processor of `tokenizer.json` adds what the model
    /// expects around a bare text (usually a beginning-of-sequence token); without, the text is taken as it stands.
    /// Special tokens written out in the text are recognised either way.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let tokenizer = &self.inner.tokenizer;
        match guard(|| tokenizer.encode_fast(text, add_special_tokens)) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(problem) => Err(TextError::Encode { problem }),
        }
    }

    /// [`encode`](Self::encode) for a whole prompt: special tokens are added unless the text already begins with the
    /// beginning-of-sequence token, as rendered chat templates often do. This is mlx-lm's rule.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let has_bos = self.bos_token().is_some_and(|bos| text.starts_with(bos));
        self.encode(text, !has_bos)
    }

    /// Turns ids into text, leaving out special tokens with `skip_special`. Ids without a token give nothing.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let tokenizer = &self.inner.tokenizer;
        guard(|| tokenizer.decode(ids, skip_special)).map_err(|problem| TextError::Decode { problem })
    }

    /// The number of ids this tokenizer spans: the highest id plus one, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.highest_id as usize + 1
    }

    /// Checks that every id of this tokenizer has a row in a model with `model_vocab` rows.
    pub fn check_vocab(&self, model_vocab: usize) -> Result<()> {
        if self.vocab_size() <= model_vocab {
            return Ok(());
        }
        let id = self.inner.highest_id;
        Err(TextError::VocabularyMismatch {
            path: self.inner.path.clone(),
            token: self.id_to_token(id).unwrap_or_default(),
            id,
            model_vocab,
        })
    }

    /// The id of a token as it is written in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.tokenizer.token_to_id(token)
    }

    /// The token of an id as it is written in the vocabulary; see [`decode`](Self::decode) for its text.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.tokenizer.id_to_token(id)
    }

    /// Whether the id is a special token: marked so in `tokenizer.json`, or named in `tokenizer_config.json`.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.special_ids.contains(&id)
    }

    /// The named special tokens, for chat templates.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.inner.special
    }

    /// The beginning-of-sequence token.
    pub fn bos_token(&self) -> Option<&str> {
        self.inner.special.get("bos_token")
    }

    /// The end-of-sequence token.
    pub fn eos_token(&self) -> Option<&str> {
        self.inner.special.get("eos_token")
    }

    /// The padding token.
    pub fn pad_token(&self) -> Option<&str> {
        self.inner.special.get("pad_token")
    }

    /// The unknown token.
    pub fn unk_token(&self) -> Option<&str> {
        self.inner.special.get("unk_token")
    }

    /// The id of the beginning-of-sequence token.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.token_to_id(self.bos_token()?)
    }

    /// The id of the end-of-sequence token.
    pub fn eos_token_id(&self) -> Option<u32> {
        self.token_to_id(self.eos_token()?)
    }

    /// The field `add_bos_token` of `tokenizer_config.json`. For information: [`encode`](Self::encode) follows the
    /// post-processor of `tokenizer.json`.
    pub fn add_bos_token(&self) -> Option<bool> {
        self.inner.add_bos_token
    }

    /// The field `model_max_length` of `tokenizer_config.json`, unless it is the huge number that means "no limit".
    pub fn model_max_length(&self) -> Option<u64> {
        self.inner.model_max_length
    }

    pub(crate) fn decoding(&self) -> &Decoding {
        &self.inner.decoding
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("path", &self.inner.path)
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

/// The one part of `tokenizer.json` that this crate reads itself.
#[derive(serde::Deserialize)]
struct Outline {
    #[serde(default)]
    decoder: Option<Value>,
}

/// Whether a decoder, or a member of a sequence of decoders, is `ByteFallback`.
fn joins_byte_tokens(decoder: &Value) -> bool {
    match decoder.get("type").and_then(Value::as_str) {
        Some("ByteFallback") => true,
        Some("Sequence") => decoder
            .get("decoders")
            .and_then(Value::as_array)
            .is_some_and(|all| all.iter().any(joins_byte_tokens)),
        _ => false,
    }
}

/// Calls into the tokenizer library. Its code indexes and unwraps in places that only a malformed file or an unusual
/// text reaches; such a panic ends the request, not the process.
fn guard<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => {
            let message = panic
                .downcast_ref::<&str>()
                .map(|message| (*message).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "unknown failure".to_owned());
            Err(format!("the tokenizer library failed: {message}"))
        }
    }
}
