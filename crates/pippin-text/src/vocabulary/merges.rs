//! `vocab.json` and `merges.txt`, as GPT-2 has them.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use tokenizers::ModelWrapper;
use tokenizers::models::bpe::BPE;

use super::family::Family;
use super::model::Model;
use super::{Ends, MOST_TOKENS, Pipeline, split, tiktoken};

/// How Qwen 3.5 cuts words: as those before it, with marks among the letters.
pub(crate) const WITH_MARKS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Reads both. The folder says whose they are.
pub(crate) fn pipeline(
    vocabulary: &[u8],
    merges: &str,
    family: &Family,
    config: &Map<String, Value>,
) -> Result<Pipeline, String> {
    let vocabulary: HashMap<String, u32> = serde_json::from_slice(vocabulary)
        .map_err(|error| format!("not an object of tokens and ids: {error}"))?;
    if vocabulary.len() > MOST_TOKENS {
        return Err(format!("more than {MOST_TOKENS} tokens"));
    }
    let merges = read(merges)?;
    let prefix = config.get("add_prefix_space").and_then(pippin_weights::json::flag).unwrap_or(false);
    let mut names: Vec<(&'static str, &str)> =
        vec![("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>")];
    let words = |use_regex| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": use_regex});
    let sequence = |parts: Vec<Value>| json!({"type": "Sequence", "pretokenizers": parts});
    let nfc = json!({"type": "NFC"});
    let (normalizer, pre_tokenizer) = match family.class.as_str() {
        "Qwen2Tokenizer" => (nfc, sequence(vec![split(tiktoken::ONE_DIGIT), words(false)])),
        "Qwen3_5Tokenizer" => (nfc, sequence(vec![split(WITH_MARKS), words(false)])),
        "GPTNeoXTokenizer" => (nfc, words(true)),
        "CohereTokenizer" => {
            (nfc, sequence(vec![json!({"type": "Digits", "individual_digits": true}), words(true)]))
        }
        "CLIPTokenizer" | "OpenAIGPTTokenizer" | "WhisperTokenizer" => {
            return Err(format!(
                "the tokenizer of the class {} is not made of `vocab.json`: a `tokenizer.json` is needed",
                family.class
            ));
        }
        _ => (Value::Null, words(true)),
    };
    let mut ends = Ends::Configured;
    match family.class.as_str() {
        "Qwen2Tokenizer" | "Qwen3_5Tokenizer" => names.push(("pad_token", "<|endoftext|>")),
        "CohereTokenizer" => {
            names = vec![
                ("bos_token", "<BOS_TOKEN>"),
                ("eos_token", "<|END_OF_TURN_TOKEN|>"),
                ("pad_token", "<PAD>"),
                ("unk_token", "<UNK>"),
            ];
        }
        "RobertaTokenizer" | "BartTokenizer" | "LongformerTokenizer" => {
            names = vec![
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("cls_token", "<s>"),
                ("sep_token", "</s>"),
                ("unk_token", "<unk>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ];
            ends = Ends::Tokens { before: Some("<s>".to_owned()), after: Some("</s>".to_owned()) };
        }
        _ => names.push(("bos_token", "<|endoftext|>")),
    }
    // Pairs of tokens that the vocabulary does not have would be an error of the library.
    let model = BPE::builder()
        .vocab_and_merges(vocabulary.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges);
    let model = model.build().map_err(|error| format!("merges.txt: {error}"))?;
    let growth = if normalizer.is_null() { 2.0 } else { 6.0 };
    Ok(Pipeline {
        normalizer,
        pre_tokenizer,
        decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        model: Model::Library(ModelWrapper::BPE(model)),
        added: Vec::new(),
        ends,
        names: names.into_iter().map(|(name, text)| (name, text.to_owned())).collect(),
        growth,
        keeps_every_byte: true,
    })
}

/// The pairs that are merged, in their order.
fn read(merges: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    for (number, line) in (1..).zip(merges.lines()) {
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let Some((left, right)) = line.split_once(' ').filter(|(_, right)| !right.contains(' ')) else {
            return Err(format!("merges.txt, line {number}: not two tokens with a space between them"));
        };
        pairs.push((left.to_owned(), right.to_owned()));
    }
    Ok(pairs)
}
