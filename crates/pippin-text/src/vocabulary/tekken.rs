//! `tekken.json` of Mistral: special tokens first, then the ranks of byte sequences.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::model::{MergeOptions, Model, RankedMerges};
use super::{MOST_TOKENS, Pipeline, bytes, token};

#[derive(Deserialize)]
struct Tekken {
    config: Config,
    vocab: Vec<Entry>,
    special_tokens: Option<Vec<Special>>,
}

#[derive(Deserialize)]
struct Config {
    pattern: String,
    default_vocab_size: Option<usize>,
    default_num_special_tokens: Option<usize>,
}

#[derive(Deserialize)]
struct Entry {
    token_bytes: String,
}

#[derive(Deserialize)]
struct Special {
    rank: usize,
    token_str: String,
}

/// The special tokens of files that do not list them.
const SPECIAL: [&str; 20] = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
];

/// Reads one. The file lists more entries than the model has; how many it has, it says too.
pub(crate) fn pipeline(json: &[u8]) -> Result<Pipeline, String> {
    let Tekken { config, vocab, special_tokens } = serde_json::from_slice(json)
        .map_err(|error| format!("not the JSON of a tekken vocabulary: {error}"))?;
    let mut special: Vec<Special> = match special_tokens {
        Some(special) => special,
        None => (0..).zip(SPECIAL).map(|(rank, text)| Special { rank, token_str: text.to_owned() }).collect(),
    };
    special.sort_by_key(|special| special.rank);
    if special.iter().enumerate().any(|(place, special)| special.rank != place) {
        return Err("field `special_tokens`: the ranks must be 0, 1, 2, …, each once".to_owned());
    }
    let count = config.default_num_special_tokens.unwrap_or(special.len());
    if count < special.len() {
        let listed = special.len();
        return Err(format!("field `config.default_num_special_tokens`: {count}, and {listed} are listed"));
    }
    let size = config.default_vocab_size.unwrap_or_else(|| vocab.len().saturating_add(count));
    if size > MOST_TOKENS || count > size {
        return Err(format!(
            "field `config.default_vocab_size`: {size} tokens with {count} special ones; at most {MOST_TOKENS} are accepted"
        ));
    }
    let mut tokens: Vec<Box<str>> = special.into_iter().map(|special| special.token_str.into()).collect();
    tokens.extend((tokens.len()..count).map(|id| format!("<SPECIAL_{id}>").into()));
    let added = tokens.iter().map(|text| token(&**text, true)).collect();
    let mut ranks = vec![f32::NAN; count];
    for (rank, entry) in vocab.iter().take(size - count).enumerate() {
        let bytes = STANDARD
            .decode(&entry.token_bytes)
            .map_err(|_| format!("field `vocab[{rank}].token_bytes`: not base64"))?;
        tokens.push(bytes::text_of(&bytes).into());
        ranks.push(-(rank as f32));
    }
    let options = MergeOptions { whole_texts: true, ..MergeOptions::default() };
    let model = Model::Ranked(RankedMerges::new(tokens, ranks, options));
    let names = [("bos_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "<pad>"), ("unk_token", "<unk>")];
    Ok(Pipeline {
        added,
        names: names.map(|(name, text)| (name, text.to_owned())).into(),
        ..Pipeline::byte_level(model, &[config.pattern])
    })
}
