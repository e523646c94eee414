//! Vocabularies of tiktoken: a line for each token, its bytes in base64 and its rank.
//!
//! The files say neither how a text is cut into words, nor what the special tokens are; the code of the models does.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::family::Family;
use super::model::{MergeOptions, Model, RankedMerges};
use super::{MOST_TOKENS, Pipeline, bytes, token};

/// How GPT-4, Llama 3, and GLM-4 cut words.
pub(crate) const THREE_DIGITS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// How the models cut words that have a token for each digit.
pub(crate) const ONE_DIGIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// How Kimi cuts words: those of Chinese characters apart.
pub(crate) const HAN: &str = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Whether a file of a name that several forms have is one of these.
pub(crate) fn looks_like_one(file: &[u8]) -> bool {
    let line = file.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.len() < 1 << 16 && std::str::from_utf8(line).is_ok_and(|line| entry(line).is_ok())
}

/// The name of a file that ends in `.tiktoken`; of several, the first one.
pub(crate) fn file_in(dir: &Path) -> Option<String> {
    let names =
        std::fs::read_dir(dir).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.ends_with(".tiktoken") && !name.starts_with('.')).min()
}

/// Reads one. Which model's it is, the folder says; what is special, that, or its `tokenizer_config.json`, the object given.
pub(crate) fn pipeline(
    file: &[u8],
    path: &Path,
    family: &Family,
    config: &Map<String, Value>,
) -> Result<Pipeline, String> {
    let ranked = read(file)?;
    let count = ranked.len();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is = |part: &str| family.class.to_lowercase().contains(part) || family.model_type.starts_with(part);
    let numbered = |numbers: std::ops::Range<usize>, kind: &str| {
        numbers.map(|number| format!("<|{kind}_{number}|>")).collect::<Vec<String>>()
    };
    let listed = |tokens: &[&str]| tokens.iter().map(|token| (*token).to_owned()).collect::<Vec<String>>();
    let extra = numbered(0..205, "extra");
    let (pattern, special, names): (_, Vec<String>, &[(&'static str, &str)]) = if name.starts_with("qwen")
        || family.class.eq_ignore_ascii_case("QWenTokenizer")
    {
        let special = [listed(&["<|endoftext|>", "<|im_start|>", "<|im_end|>"]), extra].concat();
        (ONE_DIGIT, special, &[("eos_token", "<|endoftext|>")])
    } else if is("hunyuan") || family.class == "HYTokenizer" || name.starts_with("hy.") {
        let own = ["<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>"];
        let names = &[("bos_token", "<|startoftext|>"), ("eos_token", "<|eos|>"), ("pad_token", "<|pad|>")];
        (ONE_DIGIT, [listed(&own), extra].concat(), names)
    } else if is("kimi") || family.class == "TikTokenTokenizer" {
        (
            HAN,
            Vec::new(),
            &[("bos_token", "[BOS]"), ("eos_token", "[EOS]"), ("pad_token", "[PAD]"), ("unk_token", "[UNK]")],
        )
    } else if count == 128_000 && !config.contains_key("added_tokens_decoder") {
        let own = [
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|reserved_special_token_0|>",
            "<|reserved_special_token_1|>",
            "<|finetune_right_pad_id|>",
            "<|step_id|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eom_id|>",
            "<|eot_id|>",
            "<|python_tag|>",
        ];
        let reserved = numbered(2..256 - own.len() + 2, "reserved_special_token");
        (THREE_DIGITS, [listed(&own), reserved].concat(), &[("bos_token", own[0]), ("eos_token", own[1])])
    } else {
        (THREE_DIGITS, Vec::new(), &[])
    };
    let declared = declared(config, count)?;
    // What the folder lists has its ids; places that it leaves out are reserved.
    let reserved = if pattern == HAN { 256 } else { special.len() };
    let size = declared.keys().max().map_or(0, |id| id + 1).max(count + reserved);
    let mut tokens: Vec<Box<str>> = Vec::with_capacity(size);
    let mut ranks = Vec::with_capacity(size);
    let mut added = Vec::new();
    for (id, ranked) in ranked.into_iter().chain(std::iter::repeat(None)).take(size).enumerate() {
        ranks.push(if ranked.is_some() { -(id as f32) } else { f32::NAN });
        tokens.push(ranked.unwrap_or_else(|| {
            let special = || id.checked_sub(count).and_then(|place| special.get(place));
            let text = declared.get(&id).or_else(special).cloned();
            let text = text.unwrap_or_else(|| format!("<|reserved_token_{id}|>"));
            added.push(token(text.as_str(), true));
            text.into()
        }));
    }
    let options = MergeOptions { whole_texts: true, ..MergeOptions::default() };
    let model = Model::Ranked(RankedMerges::new(tokens, ranks, options));
    let mut pipeline = Pipeline::byte_level(model, &[pattern]);
    if pattern == ONE_DIGIT {
        pipeline.normalizer = json!({"type": "NFC"});
        // A composed character may be decomposed first, and the other way round.
        pipeline.growth *= 3.0;
    }
    pipeline.added = added;
    pipeline.names = names.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
    Ok(pipeline)
}

/// The tokens that `added_tokens_decoder` lists, by id.
fn declared(config: &Map<String, Value>, count: usize) -> Result<HashMap<usize, String>, String> {
    let listed = config.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten();
    let mut declared = HashMap::new();
    for (key, value) in listed {
        let (Ok(id), Some(text)) = (key.trim().parse(), value.get("content").and_then(Value::as_str)) else {
            // Told of where the tokens are added.
            continue;
        };
        if id >= 2 * count + 1000 {
            return Err(format!(
                "tokenizer_config.json: field `added_tokens_decoder.{key}`: not a likely token id"
            ));
        }
        declared.insert(id, text.to_owned());
    }
    Ok(declared)
}

/// The tokens of a file in the alphabet of bytes, by rank; `None` for a rank that no token has.
fn read(file: &[u8]) -> Result<Vec<Option<Box<str>>>, String> {
    let text = std::str::from_utf8(file)
        .map_err(|_| "neither a SentencePiece model nor lines of text".to_owned())?;
    let mut entries = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            continue;
        }
        let (token, rank) = entry(line).map_err(|problem| format!("line {number}: {problem}"))?;
        if entries.len() == MOST_TOKENS {
            return Err(format!("more than {MOST_TOKENS} tokens"));
        }
        entries.push((rank, number, token));
    }
    entries.sort_unstable();
    let size = entries.last().map_or(0, |(rank, ..)| rank.saturating_add(1));
    if size == 0 {
        return Err("no tokens".to_owned());
    }
    // GPT-3's files leave one place to a special token.
    if size > 2 * entries.len() {
        return Err(format!("{} tokens, and a rank of {}", entries.len(), size - 1));
    }
    let mut tokens = vec![None; size];
    for (rank, number, token) in entries {
        if tokens[rank].replace(Box::from(bytes::text_of(&token))).is_some() {
            return Err(format!("line {number}: another token has the rank {rank}"));
        }
    }
    Ok(tokens)
}

/// A token's bytes, and its rank.
fn entry(line: &str) -> Result<(Vec<u8>, usize), String> {
    let mut parts = line.split_ascii_whitespace();
    let (Some(token), Some(rank), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err("not a token in base64 and its rank".to_owned());
    };
    let token = STANDARD.decode(token).map_err(|_| "the token is not base64".to_owned())?;
    let rank = rank.parse().map_err(|_| "the rank is not a number".to_owned())?;
    if token.is_empty() { Err("the token is empty".to_owned()) } else { Ok((token, rank)) }
}
