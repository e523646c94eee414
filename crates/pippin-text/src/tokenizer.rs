//! Text to ids and back.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use serde_json::{Map, Value};
use tokenizers::PostProcessorWrapper;
use tokenizers::decoders::byte_level::ByteLevel;

use crate::error::{Result, TextError};
use crate::files::{self, kind};
use crate::normalization;
use crate::special_tokens::{DeclaredTokens, SpecialTokens};
use crate::vocabulary::{self, Library, Pipeline};

/// The tokenizer of one model: immutable, `Send + Sync`, and cheap to clone (clones share everything).
///
/// It follows what Hugging Face `transformers` 5 does with the same folder: whether a beginning-of-sequence token is
/// added is decided by the post-processor in `tokenizer.json`, and only without that file by `add_bos_token`; truncation and padding settings
/// in `tokenizer.json` are for training and are ignored; and `clean_up_tokenization_spaces` is not applied.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    tokenizer: Library,
    special: SpecialTokens,
    special_ids: HashSet<u32>,
    highest_id: u32,
    /// Bytes of the longest token, where every byte of a text becomes part of some token.
    longest_token: Option<usize>,
    /// How many times longer a text may become before it is cut into tokens.
    growth: f64,
    add_bos_token: Option<bool>,
    model_max_length: Option<u64>,
    tool_parser_type: Option<String>,
    decoding: Decoding,
    warnings: Vec<String>,
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
    /// Ids of added tokens, special or not.
    pub(crate) added: HashSet<u32>,
    /// Whether tokens are written in the alphabet that has a character for each byte.
    pub(crate) is_byte_level: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and `tokenizer_config.json` where there is one, from a model folder.
    ///
    /// Without a `tokenizer.json`, the first of these that is there: `tekken.json`; `tokenizer.model`, of SentencePiece or of
    /// tiktoken; `tiktoken.model`; `spiece.model`; `sentencepiece.bpe.model`; a file whose name ends in `.tiktoken`; `vocab.json` and
    /// `merges.txt`. They are made into the tokenizer that `transformers` makes of them, which `tokenizer_class` and, in `config.json`,
    /// `model_type` decide.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let path = dir.join("tokenizer.json");
        let config_path = dir.join("tokenizer_config.json");
        let json = files::read_text(&path, files::TOKENIZER_LIMIT)?;
        let config = files::read_object(&config_path)?.unwrap_or_default();
        if let Some(json) = json {
            return Self::build(path, &json, &config_path, &config, DeclaredTokens::from_dir(dir, &config));
        }
        let Some((path, pipeline)) = vocabulary::from_dir(dir, &config)? else {
            let hint = "Pippin needs a `tokenizer.json`, or a vocabulary of SentencePiece or tiktoken";
            return Err(TextError::Missing { path, hint });
        };
        let config = pipeline.with_names(config);
        Self::from_pipeline(path, pipeline, &config_path, &config, DeclaredTokens::from_dir(dir, &config))
    }

    /// Builds a tokenizer from the text of a `tokenizer.json` and the object of a `tokenizer_config.json`, which may
    /// be empty. For tests and for models that do not lie in a folder.
    pub fn from_json(tokenizer_json: &str, tokenizer_config: &Map<String, Value>) -> Result<Self> {
        Self::build(
            PathBuf::from("tokenizer.json"),
            tokenizer_json,
            Path::new("tokenizer_config.json"),
            tokenizer_config,
            DeclaredTokens::from_config(Path::new("tokenizer_config.json"), tokenizer_config),
        )
    }

    fn build(
        path: PathBuf,
        json: &str,
        config_path: &Path,
        config: &Map<String, Value>,
        mut declared: DeclaredTokens,
    ) -> Result<Self> {
        // Parsed twice: the first pass tells damaged JSON, with line and column, from a strange tokenizer.
        let outline: Outline = serde_json::from_str(json).map_err(|error| {
            let problem = match error.is_data() {
                true => NO_OBJECT.to_owned(),
                false => format!("not valid JSON: {error}"),
            };
            TextError::Malformed { path: path.clone(), problem }
        })?;
        // A list would do for the outline.
        if !json.trim_start().starts_with('{') {
            return Err(TextError::Malformed { path, problem: NO_OBJECT.to_owned() });
        }
        let invalid = |problem: String| TextError::InvalidTokenizer { path: path.clone(), problem };
        let Outline { normalizer, pre_tokenizer, post_processor, decoder, .. } = &outline;
        let growth =
            normalization::check(normalizer, pre_tokenizer, post_processor, decoder).map_err(invalid)?;
        let traits = Traits {
            is_byte_level: outline.is_byte_level(),
            keeps_every_byte: outline.is_byte_level() || outline.model.byte_fallback == Some(true),
            joins_bytes: holds_part(decoder, "ByteFallback"),
            growth,
        };
        let built = guard(|| {
            let mut tokenizer = Library::from_bytes(json.as_bytes())?;
            tokenizer.with_truncation(None)?;
            tokenizer.with_padding(None);
            if traits.is_byte_level && !holds_part(decoder, "ByteLevel") {
                tokenizer.with_decoder(Some(ByteLevel::default()));
            }
            declared.add_to(&mut tokenizer, "tokenizer.json")?;
            Ok(tokenizer)
        });
        let tokenizer = built.map_err(invalid)?;
        Self::finish(path, tokenizer, &traits, config_path, config, declared)
    }

    /// Builds a tokenizer of parts, with the names of special tokens that `config`, an object like that of a
    /// `tokenizer_config.json`, gives.
    pub(crate) fn from_vocabulary(
        path: PathBuf,
        pipeline: Pipeline,
        config: &Map<String, Value>,
    ) -> Result<Self> {
        let declared = DeclaredTokens::from_config(&path, config);
        Self::from_pipeline(path.clone(), pipeline, &path, config, declared)
    }

    fn from_pipeline(
        path: PathBuf,
        pipeline: Pipeline,
        config_path: &Path,
        config: &Map<String, Value>,
        mut declared: DeclaredTokens,
    ) -> Result<Self> {
        let traits = Traits {
            is_byte_level: holds_part(&pipeline.pre_tokenizer, "ByteLevel"),
            keeps_every_byte: pipeline.keeps_every_byte,
            joins_bytes: holds_part(&pipeline.decoder, "ByteFallback"),
            growth: pipeline.growth,
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ends = pipeline.ends.clone();
        let built = guard(|| {
            let mut tokenizer = pipeline.assemble()?;
            declared.add_to(&mut tokenizer, &name)?;
            let named = |name: &str| declared.special.get(name).map(str::to_owned);
            let processor = ends.post_processor(config, named, |token| tokenizer.token_to_id(token));
            if let Some(processor) = processor {
                let processor: PostProcessorWrapper = serde_json::from_value(processor)?;
                tokenizer.with_post_processor(Some(processor));
            }
            Ok(tokenizer)
        });
        let tokenizer =
            built.map_err(|problem| TextError::InvalidVocabulary { path: path.clone(), problem })?;
        Self::finish(path, tokenizer, &traits, config_path, config, declared)
    }

    fn finish(
        path: PathBuf,
        tokenizer: Library,
        traits: &Traits,
        config_path: &Path,
        config: &Map<String, Value>,
        declared: DeclaredTokens,
    ) -> Result<Self> {
        let vocabulary = tokenizer.get_vocab(true);
        let highest_id = *vocabulary.values().max().ok_or_else(|| TextError::InvalidTokenizer {
            path: path.clone(),
            problem: "the vocabulary is empty".to_owned(),
        })?;
        let longest_token =
            traits.keeps_every_byte.then(|| vocabulary.keys().map(String::len).max().unwrap_or(1).max(1));
        let mut decoding = Decoding::default();
        if !traits.is_byte_level && traits.joins_bytes {
            decoding.byte_tokens = (0..=u8::MAX)
                .filter_map(|byte| Some((*vocabulary.get(&format!("<0x{byte:02X}>"))?, byte)))
                .collect();
        }
        let plain =
            |token: &String| token.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !token.is_empty();
        decoding.neutral = vocabulary.iter().filter(|(token, _)| plain(token)).map(|(_, id)| *id).min();

        let DeclaredTokens { special, mut warnings, .. } = declared;
        let added = tokenizer.get_added_tokens_decoder();
        decoding.added = added.keys().copied().collect();
        decoding.is_byte_level = traits.is_byte_level;
        let is_special = |token: &str| tokenizer.get_added_vocabulary().is_special_token(token);
        decoding.skipped =
            added.iter().filter(|(_, token)| is_special(&token.content)).map(|(id, _)| *id).collect();
        let mut special_ids = decoding.skipped.clone();
        special_ids.extend(special.iter().filter_map(|(_, token)| vocabulary.get(token).copied()));

        let add_bos_token = match config.get("add_bos_token") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let flag = pippin_weights::json::flag(value);
                if flag.is_none() {
                    warnings.push(format!(
                        "{}: field `add_bos_token`: must be true, false or null; found {}; ignored",
                        config_path.display(),
                        kind(value)
                    ));
                }
                flag
            }
        };
        files::cut(&mut warnings);
        // transformers writes 1e30 for "no limit"; everything that is not a plausible length means the same.
        let model_max_length = config
            .get("model_max_length")
            .and_then(pippin_weights::json::unsigned)
            .filter(|&length| length > 0 && length < 1 << 40);
        let tool_parser_type = config.get("tool_parser_type").and_then(Value::as_str).map(str::to_owned);

        Ok(Self {
            inner: Arc::new(Inner {
                path,
                tokenizer,
                special,
                special_ids,
                highest_id,
                longest_token,
                growth: traits.growth,
                add_bos_token,
                model_max_length,
                tool_parser_type,
                decoding,
                warnings,
            }),
        })
    }

    /// Turns text into ids. With `add_special_tokens`, the post-processor of `tokenizer.json` adds what the model
    /// expects around a bare text (usually a beginning-of-sequence token); without, the text is taken as it stands.
    /// Special tokens written out in the text are recognised either way.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let tokenizer = &self.inner.tokenizer;
        if text.len() as f64 * self.inner.growth > MOST_NORMALIZED {
            let problem = format!("its {} bytes could become too many in this tokenizer", text.len());
            return Err(TextError::Encode { problem });
        }
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

    /// The least number of tokens that a text of so many bytes can become, if it is known: a bound that needs no look at the
    /// text. (What normalizers take away is neglected: nothing but a run of spaces comes near it.)
    pub fn least_tokens(&self, bytes: usize) -> Option<usize> {
        self.inner.longest_token.map(|longest| bytes.div_ceil(longest))
    }

    /// What was left out of the files beside `tokenizer.json` and why, one line each; worth showing once when a model is
    /// loaded.
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// Whether the vocabulary has tokens between which a model thinks before it answers. The list is mlx-lm's.
    pub fn can_think(&self) -> bool {
        let marks = ["<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"];
        self.thought_markers().is_some() || marks.iter().all(|token| self.token_to_id(token).is_some())
    }

    /// The tokens between which a model thinks before it answers, where it has a pair of them.
    pub fn thought_markers(&self) -> Option<[&'static str; 2]> {
        let pairs = [
            ["<think>", "</think>"],
            ["<longcat_think>", "</longcat_think>"],
            ["<|think:start|>", "<|think:end|>"],
            ["<|channel>", "<channel|>"],
        ];
        pairs.into_iter().find(|pair| pair.iter().all(|token| self.token_to_id(token).is_some()))
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

    /// The field `add_bos_token` of `tokenizer_config.json`. For information: where there is a `tokenizer.json`,
    /// [`encode`](Self::encode) follows its post-processor.
    pub fn add_bos_token(&self) -> Option<bool> {
        self.inner.add_bos_token
    }

    /// The field `model_max_length` of `tokenizer_config.json`, unless it is the huge number that means "no limit".
    pub fn model_max_length(&self) -> Option<u64> {
        self.inner.model_max_length
    }

    /// The field `tool_parser_type` of `tokenizer_config.json`: the dialect of the model's calls by its name in mlx-lm.
    pub fn tool_parser_type(&self) -> Option<&str> {
        self.inner.tool_parser_type.as_deref()
    }

    pub(crate) fn is_added(&self, id: u32) -> bool {
        self.inner.decoding.added.contains(&id)
    }

    pub(crate) fn is_byte_level(&self) -> bool {
        self.inner.decoding.is_byte_level
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

/// The most bytes that a text may become before it is cut into tokens.
const MOST_NORMALIZED: f64 = (1_u64 << 30) as f64;

/// What is to be known of a tokenizer's parts once they are put together.
struct Traits {
    is_byte_level: bool,
    keeps_every_byte: bool,
    joins_bytes: bool,
    growth: f64,
}

const NO_OBJECT: &str = "not the JSON object of a tokenizer";

/// The parts of `tokenizer.json` that this crate reads itself.
#[derive(serde::Deserialize)]
struct Outline {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    model: ModelOutline,
}

#[derive(serde::Deserialize, Default)]
struct ModelOutline {
    #[serde(default)]
    byte_fallback: Option<bool>,
}

impl Outline {
    /// Whether tokens are written in the alphabet that has a character for each byte. Then they have to be decoded so,
    /// whatever the decoder says: several published tokenizers have one of another kind of vocabulary, or none.
    fn is_byte_level(&self) -> bool {
        [&self.normalizer, &self.pre_tokenizer].into_iter().any(|part| holds_part(part, "ByteLevel"))
    }
}

/// Whether a tokenizer's JSON holds, at one place or within a sequence at it, a part of the given type.
pub(crate) fn holds_part(part: &Value, kind: &str) -> bool {
    part.get("type").and_then(Value::as_str) == Some(kind)
        || ["decoders", "pretokenizers", "normalizers"].into_iter().any(|list| {
            part.get(list)
                .and_then(Value::as_array)
                .is_some_and(|all| all.iter().any(|part| holds_part(part, kind)))
        })
}

thread_local! {
    /// Whether this thread is in a call whose panics are errors.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Calls into the tokenizer library. Its code indexes and unwraps in places that only a malformed file or an unusual
/// text reaches; such a panic ends the request, not the process, and is reported as an error and not on standard error.
fn guard<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                others(panic);
            }
        }));
    });
    IS_GUARDED.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(call));
    IS_GUARDED.set(false);
    match outcome {
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
