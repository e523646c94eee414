//! `tokenizer.model` and `spiece.model` of SentencePiece.
//!
//! What is made of them is what `transformers` 5 makes of them: for a few families what these are known to be, for all others what
//! the file itself says.

pub(crate) mod proto;

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tokenizers::models::unigram::Unigram;
use tokenizers::{AddedToken, ModelWrapper};

use super::family::Family;
use super::model::{MergeOptions, Model, RankedMerges};
use super::{Ends, Pipeline, sequence, split, token};
use crate::normalization;
use proto::{Piece, Proto};

/// The mark that stands for a space.
const SPACE: &str = "▁";

/// Classes whose tokenizers are not made here, though `transformers` makes them: their ids are others than the file's, or what they
/// do to a text is nowhere written in the folder.
const REFUSED: &[&str] = &[
    "BarthezTokenizer",
    "BigBirdTokenizer",
    "CamembertTokenizer",
    "DebertaV2Tokenizer",
    "FNetTokenizer",
    "LayoutXLMTokenizer",
    "M2M100Tokenizer",
    "MBart50Tokenizer",
    "MBartTokenizer",
    "MarianTokenizer",
    "NllbTokenizer",
    "PegasusTokenizer",
    "ReformerTokenizer",
    "RemBertTokenizer",
    "SeamlessM4TTokenizer",
    "SiglipTokenizer",
    "Speech2TextTokenizer",
    "SpeechT5Tokenizer",
    "UdopTokenizer",
    "XGLMTokenizer",
    "XLNetTokenizer",
];

/// Reads one. Which family's it is, the folder says; further settings are in `tokenizer_config.json`, the object given.
pub(crate) fn pipeline(
    file: &[u8],
    family: &Family,
    config: &Map<String, Value>,
) -> Result<Pipeline, String> {
    let proto = proto::read(file)?;
    let class = family.class.as_str();
    if REFUSED.contains(&class) {
        return Err(format!(
            "the tokenizer of the class {class} is not made of this file: a `tokenizer.json` is needed"
        ));
    }
    if proto.treats_whitespace_as_suffix {
        return Err("spaces belong to the word before them, which is not supported".to_owned());
    }
    let growth = 6.0 * normalization::charsmap_growth(&proto.charsmap)?;
    let keeps_every_byte = proto.byte_fallback;
    let parts = match (class, proto.algorithm) {
        ("LlamaTokenizer" | "CodeLlamaTokenizer", Proto::BPE) => llama(&proto, config),
        ("GemmaTokenizer", Proto::BPE) => gemma(&proto),
        ("T5Tokenizer", Proto::UNIGRAM) => t5(&proto, config)?,
        ("XLMRobertaTokenizer", Proto::UNIGRAM) => xlm_roberta(&proto)?,
        ("AlbertTokenizer", Proto::UNIGRAM) => albert(&proto, config)?,
        (_, Proto::UNIGRAM | Proto::BPE) => general(&proto, config)?,
        (_, algorithm) => {
            return Err(format!("a model of the kind {algorithm}, which is neither unigram nor BPE"));
        }
    };
    Ok(Pipeline { growth, keeps_every_byte, ..parts })
}

/// What the file says, and nothing else: the tokenizer that SentencePiece itself is.
fn general(proto: &Proto, config: &Map<String, Value>) -> Result<Pipeline, String> {
    let legacy = config.get("legacy").and_then(pippin_weights::json::flag).unwrap_or(true);
    let texts = renamed(proto, config);
    let user_defined: Vec<&str> = of_kind(proto, &texts, Piece::USER_DEFINED).collect();
    let model = match proto.algorithm {
        Proto::UNIGRAM => unigram(scored(proto, &texts), proto.unk_id, proto.byte_fallback)?,
        _ => {
            let is_merged = |piece: &Piece| piece.kind == Piece::NORMAL;
            let options = MergeOptions {
                whole_texts: !user_defined.is_empty(),
                byte_fallback: proto.byte_fallback,
                unknown: texts.iter().position(|text| **text == *proto.unk_piece).map(|id| id as u32),
                joins_unknown: true,
                ..MergeOptions::default()
            };
            let rank = |piece: &Piece| if is_merged(piece) { piece.score } else { f32::NAN };
            let ranks = proto.pieces.iter().map(rank).collect();
            Model::Ranked(RankedMerges::new(texts.clone(), ranks, options))
        }
    };
    let mut normalizers = precompiled(proto);
    if proto.remove_extra_whitespaces {
        // Only spaces: other whitespace is left alone.
        normalizers.push(replace_regex(r"\A +| +\z", ""));
        normalizers.push(replace_regex(" {2,}", " "));
    }
    if proto.escape_whitespaces {
        normalizers.push(replace(" ", SPACE));
    }
    let mut pre_tokenizers = Vec::new();
    if proto.add_dummy_prefix {
        if legacy {
            // What puts the prefix there would leave it out where there is one already.
            normalizers.push(replace_regex(r"\A▁", "▁▁"));
        }
        pre_tokenizers.push(metaspace(if legacy { "always" } else { "first" }, false));
    }
    if !user_defined.is_empty() {
        // These are never joined with what is around them.
        let mut longest_first = user_defined.clone();
        longest_first.sort_by_key(|text| std::cmp::Reverse(text.chars().count()));
        let escaped: Vec<String> = longest_first.into_iter().map(escape).collect();
        pre_tokenizers.push(split(&escaped.join("|")));
    }
    let mut decoders = vec![replace(SPACE, " ")];
    if proto.byte_fallback {
        decoders.push(json!({"type": "ByteFallback"}));
    }
    if proto.byte_fallback || proto.add_dummy_prefix {
        decoders.push(json!({"type": "Fuse"}));
    }
    if proto.add_dummy_prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let named = |id: i64, piece: &String| Some(piece.clone()).filter(|_| id >= 0);
    let names = [
        ("bos_token", named(proto.bos_id, &proto.bos_piece)),
        ("eos_token", named(proto.eos_id, &proto.eos_piece)),
        ("unk_token", named(proto.unk_id, &proto.unk_piece)),
    ];
    Ok(Pipeline {
        normalizer: sequence("normalizers", normalizers),
        pre_tokenizer: sequence("pretokenizers", pre_tokenizers),
        decoder: sequence("decoders", decoders),
        model,
        added: of_kind(proto, &texts, Piece::CONTROL).map(|text| token(text, true)).collect(),
        ends: Ends::Configured,
        names: names.into_iter().filter_map(|(name, text)| Some((name, text?))).collect(),
        growth: 1.0,
        keeps_every_byte: false,
    })
}

/// Llama 1 and 2, and those that took their tokenizer.
fn llama(proto: &Proto, config: &Map<String, Value>) -> Pipeline {
    let flag = |name: &str, default| config.get(name).and_then(pippin_weights::json::flag).unwrap_or(default);
    let prefix = flag("add_prefix_space", true);
    let scheme = match (prefix, flag("legacy", false)) {
        (false, _) => "never",
        (true, true) => "always",
        (true, false) => "first",
    };
    let mut decoders = vec![replace(SPACE, " "), json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Pipeline {
        normalizer: Value::Null,
        pre_tokenizer: metaspace(scheme, false),
        decoder: sequence("decoders", decoders),
        model: ranked_by_id(proto, None),
        added: control_and_user_defined(proto),
        ends: Ends::Configured,
        names: names(&[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")]),
        growth: 1.0,
        keeps_every_byte: true,
    }
}

/// Gemma, of any size and number.
fn gemma(proto: &Proto) -> Pipeline {
    let decoders = vec![replace(SPACE, " "), json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    Pipeline {
        normalizer: replace(" ", SPACE),
        pre_tokenizer: json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false}),
        decoder: sequence("decoders", decoders),
        model: ranked_by_id(proto, Some("<unk>")),
        added: control_and_user_defined(proto),
        ends: Ends::Configured,
        names: names(&[
            ("bos_token", "<bos>"),
            ("eos_token", "<eos>"),
            ("unk_token", "<unk>"),
            ("pad_token", "<pad>"),
            ("mask_token", "<mask>"),
        ]),
        growth: 1.0,
        keeps_every_byte: true,
    }
}

/// T5: a hundred tokens more than the file has.
fn t5(proto: &Proto, config: &Map<String, Value>) -> Result<Pipeline, String> {
    const MOST_EXTRA: u64 = 10_000;
    let count = config.get("extra_ids").and_then(pippin_weights::json::unsigned).unwrap_or(100);
    if count > MOST_EXTRA {
        return Err(format!(
            "tokenizer_config.json: field `extra_ids`: {count}; at most {MOST_EXTRA} are accepted"
        ));
    }
    let mut pieces = scored(proto, &texts(proto));
    let extra: Vec<String> = (0..count).rev().map(|number| format!("<extra_id_{number}>")).collect();
    pieces.extend(extra.iter().map(|text| (text.clone(), 0.0)));
    let mut added = control_and_user_defined(proto);
    added.extend(extra.into_iter().map(|text| token(text, true)));
    Ok(Pipeline {
        added,
        ends: Ends::Tokens { before: None, after: Some("</s>".to_owned()) },
        names: names(&[("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")]),
        ..words(proto, unigram(pieces, 2, false)?, "always")
    })
}

/// XLM-R, and the encoders that took its tokenizer: their ids are those of another library.
fn xlm_roberta(proto: &Proto) -> Result<Pipeline, String> {
    let first = ["<s>", "<pad>", "</s>", "<unk>"].map(|text| (text.to_owned(), 0.0));
    let mut pieces = first.to_vec();
    pieces.extend(scored(proto, &texts(proto)).into_iter().skip(3));
    pieces.push(("<mask>".to_owned(), 0.0));
    Ok(Pipeline {
        added: control_and_user_defined(proto),
        ends: Ends::Tokens { before: Some("<s>".to_owned()), after: Some("</s>".to_owned()) },
        names: names(&[
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("sep_token", "</s>"),
            ("cls_token", "<s>"),
            ("unk_token", "<unk>"),
            ("pad_token", "<pad>"),
            ("mask_token", "<mask>"),
        ]),
        ..words(proto, unigram(pieces, 3, false)?, "always")
    })
}

/// ALBERT: small letters without accents, unless it is told otherwise.
fn albert(proto: &Proto, config: &Map<String, Value>) -> Result<Pipeline, String> {
    let flag = |name: &str, default| config.get(name).and_then(pippin_weights::json::flag).unwrap_or(default);
    let mut normalizers = vec![replace("``", "\""), replace("''", "\"")];
    if !flag("keep_accents", false) {
        normalizers.extend([json!({"type": "NFKD"}), json!({"type": "StripAccents"})]);
    }
    if flag("do_lower_case", true) {
        normalizers.push(json!({"type": "Lowercase"}));
    }
    normalizers.extend(precompiled(proto));
    let scheme = if flag("add_prefix_space", true) { "always" } else { "never" };
    Ok(Pipeline {
        normalizer: sequence("normalizers", normalizers),
        added: control_and_user_defined(proto),
        ends: Ends::Tokens { before: Some("[CLS]".to_owned()), after: Some("[SEP]".to_owned()) },
        names: names(&[
            ("bos_token", "[CLS]"),
            ("eos_token", "[SEP]"),
            ("unk_token", "<unk>"),
            ("sep_token", "[SEP]"),
            ("pad_token", "<pad>"),
            ("cls_token", "[CLS]"),
            ("mask_token", "[MASK]"),
        ]),
        ..words(proto, unigram(scored(proto, &texts(proto)), 1, false)?, scheme)
    })
}

/// Encoders cut a text into words at any whitespace, and forget how much there was.
fn words(proto: &Proto, model: Model, scheme: &str) -> Pipeline {
    let space = metaspace(scheme, true);
    Pipeline {
        normalizer: sequence("normalizers", precompiled(proto)),
        pre_tokenizer: sequence("pretokenizers", vec![json!({"type": "WhitespaceSplit"}), space.clone()]),
        decoder: space,
        model,
        added: Vec::new(),
        ends: Ends::Configured,
        names: Vec::new(),
        growth: 1.0,
        keeps_every_byte: false,
    }
}

/// Merges in the order of the ids, which is how `transformers` has those of Llama and Gemma.
fn ranked_by_id(proto: &Proto, unknown: Option<&str>) -> Model {
    let texts = texts(proto);
    let unknown = unknown.and_then(|unknown| texts.iter().position(|text| **text == *unknown));
    let options = MergeOptions {
        shorter_left_first: true,
        byte_fallback: true,
        unknown: unknown.map(|id| id as u32),
        joins_unknown: true,
        ..MergeOptions::default()
    };
    let ranks = (0..texts.len()).map(|id| -(id as f32)).collect();
    Model::Ranked(RankedMerges::new(texts, ranks, options))
}

fn unigram(pieces: Vec<(String, f64)>, unknown: i64, byte_fallback: bool) -> Result<Model, String> {
    // A file may have none.
    let unknown = usize::try_from(unknown).ok();
    let model = Unigram::from(pieces, unknown, byte_fallback).map_err(|error| error.to_string())?;
    Ok(Model::Library(ModelWrapper::Unigram(model)))
}

fn texts(proto: &Proto) -> Vec<Box<str>> {
    proto.pieces.iter().map(|piece| piece.text.clone()).collect()
}

/// The pieces' texts, but for places that were kept free and that `added_tokens_decoder` gives another text.
fn renamed(proto: &Proto, config: &Map<String, Value>) -> Vec<Box<str>> {
    let mut texts = texts(proto);
    let listed = config.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten();
    let names: Vec<(usize, &str)> = listed
        .filter_map(|(id, token)| Some((id.trim().parse().ok()?, token.get("content")?.as_str()?)))
        .filter(|(id, text)| *id < texts.len() && !text.is_empty())
        .collect();
    // Two may change places, but a piece that stays where it is keeps its text to itself.
    let places: HashSet<usize> = names.iter().map(|(id, _)| *id).collect();
    let kept: HashSet<Box<str>> =
        (0..).zip(&texts).filter(|(id, _)| !places.contains(id)).map(|(_, text)| text.clone()).collect();
    for (id, text) in names {
        if !kept.contains(text) {
            texts[id] = text.into();
        }
    }
    texts
}

fn scored(proto: &Proto, texts: &[Box<str>]) -> Vec<(String, f64)> {
    proto.pieces.iter().zip(texts).map(|(piece, text)| (text.to_string(), f64::from(piece.score))).collect()
}

fn of_kind<'a>(proto: &'a Proto, texts: &'a [Box<str>], kind: i64) -> impl Iterator<Item = &'a str> {
    proto.pieces.iter().zip(texts).filter(move |(piece, _)| piece.kind == kind).map(|(_, text)| &**text)
}

/// Pieces that are looked for before anything else: special ones, and those of the model's makers.
fn control_and_user_defined(proto: &Proto) -> Vec<AddedToken> {
    let pieces =
        proto.pieces.iter().filter(|piece| [Piece::CONTROL, Piece::USER_DEFINED].contains(&piece.kind));
    pieces.map(|piece| token(&*piece.text, piece.kind == Piece::CONTROL)).collect()
}

fn names(names: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    names.iter().map(|(name, text)| (*name, (*text).to_owned())).collect()
}

fn precompiled(proto: &Proto) -> Vec<Value> {
    match proto.charsmap.is_empty() {
        true => Vec::new(),
        false => {
            vec![json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(&proto.charsmap)})]
        }
    }
}

fn replace(from: &str, to: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": from}, "content": to})
}

fn replace_regex(from: &str, to: &str) -> Value {
    json!({"type": "Replace", "pattern": {"Regex": from}, "content": to})
}

fn metaspace(scheme: &str, split: bool) -> Value {
    json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": split})
}

/// A text as a regular expression that finds it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(char) {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}
