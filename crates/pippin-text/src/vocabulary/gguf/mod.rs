//! Vocabularies of GGUF files, as llama.cpp has them.

mod pre;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pippin_weights::gguf::Gguf;
use serde_json::{Map, Value, json};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{AddedToken, ModelWrapper};

use super::model::{MergeOptions, Model, RankedMerges};
use super::trie::{BestPath, LongestMatch};
use super::{Ends, MOST_TOKENS, Pipeline, bytes, sequence, split};
use crate::error::{Result, TextError};
use crate::normalization;
use pre::Pre;

/// What a GGUF file says of its tokens, in `tokenizer.ggml.*` and around it: plain data, of which [`Tokenizer::from_gguf`],
/// [`StopTokens::from_gguf`] and [`ChatTemplate::from_gguf`] make what a model needs.
///
/// [`Tokenizer::from_gguf`]: crate::Tokenizer::from_gguf
/// [`StopTokens::from_gguf`]: crate::StopTokens::from_gguf
/// [`ChatTemplate::from_gguf`]: crate::ChatTemplate::from_gguf
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocabulary {
    /// The file, for errors.
    pub path: PathBuf,
    /// The kind of tokenizer (`model`): `gpt2`, `llama`, `bert`, `t5`, `gemma4`, `rwkv` or `plamo2`.
    pub model: String,
    /// How a text is cut into words (`pre`); only some kinds have it.
    pub pre: Option<String>,
    /// The model's name, `general.name`, and its family, `general.architecture`.
    pub name: String,
    /// See [`name`](Self::name).
    pub architecture: String,
    /// The tokens by id.
    pub tokens: Vec<String>,
    /// A score for each token, or none at all.
    pub scores: Vec<f32>,
    /// What each token is: 1 normal, 2 unknown, 3 control, 4 the maker's own, 5 unused, 6 a byte. Or none at all.
    pub token_types: Vec<i64>,
    /// Pairs of tokens that are merged, with a space between them, in their order; `None` where the file has no list.
    pub merges: Option<Vec<String>>,
    /// The ids of named tokens: `bos`, `eos`, `eot`, `eom`, `unknown`, `seperator`, `padding`, `cls`, `mask`.
    pub special: Vec<(String, u64)>,
    /// Whether a text gets a beginning-of-sequence token.
    pub add_bos: Option<bool>,
    /// Whether it gets an end-of-sequence token.
    pub add_eos: Option<bool>,
    /// Whether a space is put in front of it.
    pub add_space_prefix: Option<bool>,
    /// Whether several spaces become one.
    pub remove_extra_whitespaces: Option<bool>,
    /// SentencePiece's table of characters and what stands for them.
    pub charsmap: Vec<u8>,
    /// Whether letters become small.
    pub lowercase: Option<bool>,
    /// Whether they lose their accents.
    pub strip_accents: Option<bool>,
    /// The chat template, and the one for prompts with tools.
    pub chat_template: Option<String>,
    /// See [`chat_template`](Self::chat_template).
    pub tool_template: Option<String>,
}

const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// Tokens that end an answer wherever they occur, whatever the file says of them.
const ENDS_OF_ANSWERS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
    // Between files, where a model fills in what is missing.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

impl GgufVocabulary {
    /// Reads what a file says.
    ///
    /// # Errors
    ///
    /// A key has a value of another type, or the file has no vocabulary.
    pub fn read(file: &Gguf) -> Result<Self> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let text = |key: &str| -> Result<Option<String>> { Ok(file.string(key)?.map(str::to_owned)) };
        let flag = |name: &str| file.flag(&key(name));
        let model = text(&key("model"))?.ok_or_else(|| file.key_error(&key("model"), "is missing"))?;
        let tokens = file.strings(&key("tokens"))?;
        let tokens: Vec<String> =
            tokens.into_iter().flat_map(|tokens| tokens.iter()).map(str::to_owned).collect();
        let merges = file.strings(&key("merges"))?;
        let charsmap = file.integers(&key("precompiled_charsmap"))?.unwrap_or_default();
        let mut special = Vec::new();
        for name in ["bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "cls", "mask"] {
            // Minus one is written for "none".
            if let Some(id) = file.get(&key(&format!("{name}_token_id"))).and_then(|value| value.as_u64()) {
                special.push((name.to_owned(), id));
            }
        }
        Ok(Self {
            path: file.path().to_owned(),
            model,
            pre: text(&key("pre"))?.filter(|pre| !pre.is_empty()),
            name: text("general.name")?.unwrap_or_default(),
            architecture: text("general.architecture")?.unwrap_or_default(),
            tokens,
            scores: file.floats(&key("scores"))?.unwrap_or_default(),
            token_types: file.integers(&key("token_type"))?.unwrap_or_default(),
            merges: merges.map(|merges| merges.iter().map(str::to_owned).collect()),
            special,
            add_bos: flag("add_bos_token")?,
            add_eos: flag("add_eos_token")?,
            add_space_prefix: flag("add_space_prefix")?,
            remove_extra_whitespaces: flag("remove_extra_whitespaces")?,
            // Bytes, with or without a sign.
            charsmap: charsmap.into_iter().map(|byte| byte as u8).collect(),
            lowercase: flag("normalizer.lowercase")?,
            strip_accents: flag("normalizer.strip_accents")?,
            chat_template: text("tokenizer.chat_template")?,
            tool_template: text("tokenizer.chat_template.tool_use")?,
        })
    }

    /// The ids that end an answer.
    pub(crate) fn ends_of_answers(&self) -> BTreeSet<u32> {
        let mut ends: BTreeSet<u32> = (0..)
            .zip(&self.tokens)
            .filter(|(_, token)| ENDS_OF_ANSWERS.contains(&token.as_str()))
            .map(|(id, _)| id)
            .collect();
        ends.extend(["eos", "eot", "eom"].into_iter().filter_map(|name| self.id(name)));
        let find = |text: &str| {
            ends.iter().copied().find(|id| self.tokens.get(*id as usize).is_some_and(|token| token == text))
        };
        let has = |text: &str| find(text).is_some();
        let mut none = Vec::new();
        // There an answer is several messages, and this token only ends one of them.
        if (has("<|return|>") && has("<|call|>"))
            || (has("<|flush|>") && (has("<|call|>") || has("<|calls|>")))
        {
            none.extend(find("<|end|>"));
        }
        // There this is a tag of HTML.
        if has("<|tool_response>") || has("<|plamo:eos|>") {
            none.extend(find("</s>"));
        }
        ends.retain(|id| !none.contains(id));
        ends
    }

    /// The id of a named token, or what llama.cpp takes it to be where the file does not say.
    fn id(&self, name: &str) -> Option<u32> {
        let listed = self.special.iter().find(|(listed, _)| listed == name).map(|(_, id)| *id);
        let usual = match (self.model.as_str(), name) {
            ("llama", "bos") | ("plamo2", "bos") => Some(1),
            ("llama", "eos") | ("plamo2", "eos") => Some(2),
            ("llama", "unknown") | ("plamo2", "unknown") => Some(0),
            ("plamo2", "padding") => Some(3),
            ("bert", "bos") => Some(101),
            ("bert", "unknown") => Some(100),
            ("bert", "seperator") => Some(102),
            ("bert", "padding") => Some(0),
            ("bert", "mask") => Some(103),
            ("t5", "eos") => Some(1),
            ("t5", "unknown") => Some(2),
            ("t5", "padding") => Some(0),
            _ => None,
        };
        let id = listed.filter(|id| *id < self.tokens.len() as u64).or(usual)?;
        u32::try_from(id).ok().filter(|id| (*id as usize) < self.tokens.len())
    }

    fn token(&self, name: &str) -> Option<String> {
        self.tokens.get(self.id(name)? as usize).cloned()
    }

    fn kind(&self, id: usize) -> i64 {
        self.token_types.get(id).copied().unwrap_or(1)
    }

    /// The configuration that names the special tokens, as `tokenizer_config.json` does.
    pub(crate) fn config(&self) -> Map<String, Value> {
        let names = [
            ("bos_token", "bos"),
            ("eos_token", "eos"),
            ("unk_token", "unknown"),
            ("sep_token", "seperator"),
            ("pad_token", "padding"),
            ("cls_token", "cls"),
            ("mask_token", "mask"),
        ];
        names
            .into_iter()
            .filter_map(|(name, key)| Some((name.to_owned(), Value::from(self.token(key)?))))
            .collect()
    }

    /// The tokenizer's parts.
    pub(crate) fn pipeline(&self) -> Result<Pipeline> {
        let invalid = |problem| TextError::InvalidVocabulary { path: self.path.clone(), problem };
        self.check().map_err(invalid)?;
        let pipeline = match self.model.as_str() {
            "gpt2" | "gemma4" => self.byte_pairs(),
            "llama" => self.scored_pairs(),
            "bert" => self.word_pieces(),
            "t5" => self.unigram(),
            "rwkv" => self.longest_match(),
            "plamo2" => self.best_path(),
            other => Err(format!("`tokenizer.ggml.model` is {other:?}, which Pippin does not know")),
        };
        let mut pipeline = pipeline.map_err(invalid)?;
        pipeline.added = self.added();
        Ok(pipeline)
    }

    fn check(&self) -> Result<(), String> {
        let count = self.tokens.len();
        if count == 0 {
            return Err("`tokenizer.ggml.tokens` is missing or empty".to_owned());
        }
        if count > MOST_TOKENS {
            return Err(format!("`tokenizer.ggml.tokens` has more than {MOST_TOKENS} tokens"));
        }
        for (name, length) in [("scores", self.scores.len()), ("token_type", self.token_types.len())] {
            if length > 0 && length < count {
                return Err(format!("`tokenizer.ggml.{name}` has {length} entries for {count} tokens"));
            }
        }
        Ok(())
    }

    /// Tokens that are looked for in a text before anything else: special ones, and those of the model's makers.
    fn added(&self) -> Vec<AddedToken> {
        let strips_right = {
            let name = self.name.to_lowercase();
            name.contains("phi-3") || name.contains("phi3")
        };
        let strips_left = match (self.pre.as_deref().unwrap_or(""), self.architecture.as_str()) {
            (pre, _) if ["jina-v2-de", "jina-v2-es", "jina-v2-code"].contains(&pre) => "<mask>",
            (_, "nomic-bert-moe" | "jina-bert-v3") => "<mask>",
            _ if self.name.to_lowercase().contains("modern-bert") => "[MASK]",
            _ => "",
        };
        let added = |(id, text): (usize, &String)| {
            let kind = match self.kind(id) {
                UNKNOWN => CONTROL,
                _ if ENDS_OF_ANSWERS.contains(&text.as_str()) && !self.is_tag(text) => CONTROL,
                kind => kind,
            };
            if text.is_empty() || ![CONTROL, USER_DEFINED].contains(&kind) {
                return None;
            }
            let keeps_spaces = ["<unk>", "<s>", "<|endoftext|>"].contains(&text.as_str());
            let token = super::token(text.as_str(), kind == CONTROL);
            Some(token.rstrip(strips_right && !keeps_spaces).lstrip(text == strips_left))
        };
        self.tokens.iter().enumerate().filter_map(added).collect()
    }

    /// Whether a token that ends answers elsewhere is an ordinary one here.
    fn is_tag(&self, text: &str) -> bool {
        text == "</s>"
            && self.tokens.iter().any(|token| token == "<|tool_response>" || token == "<|plamo:eos|>")
    }

    fn texts(&self) -> Vec<Box<str>> {
        self.tokens.iter().map(|token| token.as_str().into()).collect()
    }

    fn score(&self, id: usize) -> f32 {
        // Zero has no sign here.
        self.scores.get(id).copied().unwrap_or(0.0) + 0.0
    }

    fn ends(&self, add_bos: bool, add_eos: bool) -> Ends {
        Ends::Tokens {
            before: self.token("bos").filter(|_| self.add_bos.unwrap_or(add_bos)),
            after: self.token("eos").filter(|_| self.add_eos.unwrap_or(add_eos)),
        }
    }

    /// Merges that are listed, of bytes or of text: `gpt2`.
    fn byte_pairs(&self) -> Result<Pipeline, String> {
        let name = match self.model.as_str() {
            "gemma4" => "gemma4",
            _ => self.pre.as_deref().unwrap_or("default"),
        };
        let pre = Pre::named(name).ok_or_else(|| {
            format!("`tokenizer.ggml.pre` is {name:?}: how that cuts words, Pippin does not know")
        })?;
        let model = match &self.merges {
            Some(merges) => self.listed_merges(merges, &pre)?,
            // Their ids are ranks.
            None if name == "kimi-k2" => {
                let ranks =
                    (0..self.tokens.len()).map(|id| if self.kind(id) == 1 { -(id as f32) } else { f32::NAN });
                let options = MergeOptions { whole_texts: true, ..MergeOptions::default() };
                Model::Ranked(RankedMerges::new(self.texts(), ranks.collect(), options))
            }
            None => return Err("`tokenizer.ggml.merges` is missing".to_owned()),
        };
        let mut pipeline = Pipeline::byte_level(model, pre.patterns);
        if !pre.is_byte_level {
            let replace =
                |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
            pipeline.normalizer = replace(" ", "▁");
            pipeline.pre_tokenizer =
                sequence("pretokenizers", pre.patterns.iter().map(|pattern| split(pattern)).collect());
            let decoders = vec![replace("▁", " "), json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
            pipeline.decoder = sequence("decoders", decoders);
            pipeline.growth = 3.0;
        }
        // Files of Gemma 4 say otherwise, by mistake.
        let add_bos = (self.add_bos.unwrap_or(pre.add_bos)
            || ["gemma4", "granite-embed-multi-311m"].contains(&name))
        .then(|| self.token("bos"));
        let after = self.token("eos").filter(|_| self.add_eos.unwrap_or(false));
        pipeline.ends = Ends::Tokens { before: add_bos.flatten(), after };
        Ok(pipeline)
    }

    fn listed_merges(&self, merges: &[String], pre: &Pre) -> Result<Model, String> {
        // What is no token cannot be made; llama.cpp passes it over, and the library would refuse it.
        let vocabulary: Vocab = self.tokens.iter().cloned().zip(0..).collect();
        let mut pairs = Vec::with_capacity(merges.len());
        let mut joined = String::new();
        for merge in merges {
            let space = merge.char_indices().skip(1).find(|(_, char)| *char == ' ');
            let Some((left, right)) = space.map(|(place, _)| (&merge[..place], &merge[place + 1..])) else {
                continue;
            };
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            if [left, right, joined.as_str()].iter().all(|token| vocabulary.contains_key(*token)) {
                pairs.push((left.to_owned(), right.to_owned()));
            }
        }
        // Of two equal pairs the first counts.
        let mut seen = std::collections::HashSet::new();
        pairs.retain(|pair| seen.insert(pair.clone()));
        // Runs of line ends are tokens that no merge makes.
        let whole_words = pre.whole_words;
        let model = BPE::builder()
            .vocab_and_merges(vocabulary, pairs)
            .ignore_merges(whole_words)
            .byte_fallback(!pre.is_byte_level);
        let model = model.build().map_err(|error| format!("`tokenizer.ggml.merges`: {error}"))?;
        Ok(Model::Library(ModelWrapper::BPE(model)))
    }

    /// Merges that scores decide, as SentencePiece has them: `llama`.
    fn scored_pairs(&self) -> Result<Pipeline, String> {
        let options = MergeOptions {
            byte_fallback: true,
            unknown: self.id("unknown"),
            joins_unknown: true,
            ..MergeOptions::default()
        };
        let ranks = (0..self.tokens.len()).map(|id| self.score(id)).collect();
        let model = Model::Ranked(RankedMerges::new(self.texts(), ranks, options));
        let replace =
            |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
        let mut normalizers = vec![replace(" ", "▁")];
        let mut decoders = vec![replace("▁", " "), json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
        if self.add_space_prefix.unwrap_or(true) {
            normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        Ok(Pipeline {
            normalizer: sequence("normalizers", normalizers),
            pre_tokenizer: Value::Null,
            decoder: sequence("decoders", decoders),
            model,
            added: Vec::new(),
            ends: self.ends(true, false),
            names: Vec::new(),
            growth: 6.0,
            keeps_every_byte: true,
        })
    }

    /// The longest piece of a word, and then the longest of what is left: `bert`.
    fn word_pieces(&self) -> Result<Pipeline, String> {
        const MARK: char = '▁';
        const PREFIX: &str = "##";
        // The file marks what begins a word; the library, what goes on.
        let text = |(id, token): (usize, &String)| match token.strip_prefix(MARK) {
            Some(word) if self.kind(id) != CONTROL => word.to_owned(),
            None if self.kind(id) == 1 && !token.starts_with('[') => format!("{PREFIX}{token}"),
            _ => token.clone(),
        };
        let vocabulary: Vocab = self.tokens.iter().enumerate().map(text).zip(0..).collect();
        let unknown = self.token("unknown").unwrap_or_else(|| "[UNK]".to_owned());
        let model = WordPiece::builder()
            .vocab(vocabulary)
            .unk_token(unknown)
            .continuing_subword_prefix(PREFIX.to_owned());
        let model = model.build().map_err(|error| error.to_string())?;
        let lowercase = self.lowercase.unwrap_or(true);
        Ok(Pipeline {
            normalizer: json!({
                "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": self.strip_accents.unwrap_or(lowercase), "lowercase": lowercase,
            }),
            pre_tokenizer: json!({"type": "BertPreTokenizer"}),
            decoder: json!({"type": "WordPiece", "prefix": PREFIX, "cleanup": true}),
            model: Model::Library(ModelWrapper::WordPiece(model)),
            added: Vec::new(),
            ends: Ends::Tokens {
                before: self.token("bos").or_else(|| self.token("cls")),
                after: self.token("seperator").or_else(|| self.token("eos")),
            },
            names: Vec::new(),
            growth: 6.0,
            keeps_every_byte: false,
        })
    }

    /// The most likely pieces together, as SentencePiece has them: `t5`, and XLM-R.
    fn unigram(&self) -> Result<Pipeline, String> {
        let growth = 6.0 * normalization::charsmap_growth(&self.charsmap)?;
        let pieces: Vec<(String, f64)> = self
            .tokens
            .iter()
            .enumerate()
            .map(|(id, token)| (token.clone(), f64::from(self.score(id))))
            .collect();
        if let Some(id) = pieces.iter().position(|(_, score)| !score.is_finite()) {
            return Err(format!("`tokenizer.ggml.scores`: the score of token {id} is no finite number"));
        }
        let unknown = self.id("unknown").map(|id| id as usize);
        let model = Unigram::from(pieces, unknown, false).map_err(|error| error.to_string())?;
        let regex =
            |from: &str, to: &str| json!({"type": "Replace", "pattern": {"Regex": from}, "content": to});
        let mut normalizers = Vec::new();
        if !self.charsmap.is_empty() {
            normalizers.push(
                json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(&self.charsmap)}),
            );
        }
        let merges_spaces = self.remove_extra_whitespaces.unwrap_or(false);
        if merges_spaces {
            normalizers.push(regex(r"\A +| +\z", ""));
            normalizers.push(regex(" {2,}", " "));
        }
        normalizers.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}));
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "Fuse"}),
        ];
        if merges_spaces || self.add_space_prefix.unwrap_or(false) {
            normalizers.push(json!({"type": "Prepend", "prepend": "▁"}));
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        Ok(Pipeline {
            normalizer: sequence("normalizers", normalizers),
            pre_tokenizer: Value::Null,
            decoder: sequence("decoders", decoders),
            model: Model::Library(ModelWrapper::Unigram(model)),
            added: Vec::new(),
            ends: self.ends(false, true),
            names: Vec::new(),
            growth,
            keeps_every_byte: false,
        })
    }

    /// The longest token of bytes, again and again: `rwkv`.
    fn longest_match(&self) -> Result<Pipeline, String> {
        self.check_lengths()?;
        let text = |(id, token): (usize, &String)| match self.kind(id) {
            CONTROL | USER_DEFINED => token.as_str().into(),
            _ => bytes::text_of(&unescape(token)).into(),
        };
        let tokens = self.tokens.iter().enumerate().map(text).collect();
        let model = Model::LongestMatch(LongestMatch::new(tokens, self.id("unknown")));
        let none: [&str; 0] = [];
        Ok(Pipeline { ends: self.ends(false, false), ..Pipeline::byte_level(model, &none) })
    }

    /// The tokens whose scores are highest together: `plamo2`.
    fn best_path(&self) -> Result<Pipeline, String> {
        self.check_lengths()?;
        let model = Model::BestPath(BestPath::new(self.texts(), &self.scores));
        Ok(Pipeline {
            normalizer: Value::Null,
            pre_tokenizer: Value::Null,
            decoder: sequence("decoders", vec![json!({"type": "ByteFallback"}), json!({"type": "Fuse"})]),
            model,
            added: Vec::new(),
            ends: self.ends(false, false),
            names: Vec::new(),
            growth: 1.0,
            keeps_every_byte: true,
        })
    }

    /// These walk along the longest token at each place of a text.
    fn check_lengths(&self) -> Result<(), String> {
        const MOST_BYTES: usize = 4096;
        match self.tokens.iter().position(|token| token.len() > MOST_BYTES) {
            Some(id) => Err(format!("`tokenizer.ggml.tokens`: token {id} has more than {MOST_BYTES} bytes")),
            None => Ok(()),
        }
    }
}

/// The bytes of a token as RWKV's vocabulary writes it: with `\n`, `\x41` and the like.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let [escaped, after @ ..] = rest else { break };
        rest = after;
        let byte = match escaped {
            b't' => b'\t',
            b'n' => b'\n',
            b'r' => b'\r',
            b'x' => {
                let digits = rest.split_at_checked(2);
                let value = digits
                    .and_then(|(digits, _)| std::str::from_utf8(digits).ok())
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                let Some(value) = value else { continue };
                rest = &rest[2..];
                value
            }
            other => *other,
        };
        bytes.push(byte);
    }
    bytes
}

impl crate::Tokenizer {
    /// Makes the tokenizer of a GGUF file, as llama.cpp has it.
    ///
    /// # Errors
    ///
    /// The kind of tokenizer, or the way it cuts words, is unknown; or what the file says does not fit together.
    pub fn from_gguf(vocabulary: &GgufVocabulary) -> Result<Self> {
        Self::from_vocabulary(vocabulary.path.clone(), vocabulary.pipeline()?, &vocabulary.config())
    }
}

impl crate::StopTokens {
    /// The ids that end an answer, of a GGUF file: those that it names for the end of a sequence, a turn or a message, and those
    /// of tokens that mean so everywhere.
    pub fn from_gguf(vocabulary: &GgufVocabulary) -> Self {
        vocabulary.ends_of_answers().into_iter().collect()
    }
}

impl crate::ChatTemplate {
    /// The chat template of a GGUF file; `None` where it has none. One that has a mistake is the error of whoever renders it.
    pub fn from_gguf(vocabulary: &GgufVocabulary) -> Option<Self> {
        let origin = |key: &str| format!("{}: {key}", Path::new(&vocabulary.path).display());
        let named = |key: &str, source: &Option<String>| Some((origin(key), source.clone()?));
        let default = named("tokenizer.chat_template", &vocabulary.chat_template);
        Some(Self::from_sources(
            default?,
            named("tokenizer.chat_template.tool_use", &vocabulary.tool_template),
        ))
    }
}
