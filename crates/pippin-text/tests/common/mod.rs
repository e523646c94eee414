//! Small tokenizers of the two usual kinds, made as JSON text.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};

use pippin_text::{StreamDecoder, Tokenizer};
use serde_json::{Map, Value, json};

/// The printable stand-in that byte-level vocabularies use for a byte.
pub(crate) fn byte_char(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|byte| !printable(*byte)).count() as u32;
    char::from_u32(256 + rank).unwrap()
}

fn special(id: usize, content: &str) -> Value {
    json!({"id": id, "content": content, "special": true, "normalized": false,
           "single_word": false, "lstrip": false, "rstrip": false})
}

/// A byte-level BPE in the manner of GPT-2, Llama 3 and Qwen: 256 byte tokens, some merges (one of them ends inside a
/// character), and three special tokens.
pub(crate) fn byte_level() -> Tokenizer {
    let mut vocab: Map<String, Value> = Map::new();
    for byte in 0..=u8::MAX {
        vocab.insert(byte_char(byte).to_string(), json!(byte));
    }
    let words = ["he", "ll", "hell", "hello", " w", "or", " wor", " world", "\n\n"];
    let pairs = [
        ("h", "e"),
        ("l", "l"),
        ("he", "ll"),
        ("hell", "o"),
        (" ", "w"),
        ("o", "r"),
        (" w", "or"),
        (" wor", "ld"),
        ("\n", "\n"),
    ];
    let letters = |text: &str| text.bytes().map(byte_char).collect::<String>();
    let mut merges = Vec::new();
    vocab.insert("ld".to_owned(), json!(256));
    merges.push("l d".to_owned());
    for ((left, right), word) in pairs.iter().zip(words) {
        merges.push(format!("{} {}", letters(left), letters(right)));
        vocab.insert(letters(word), json!(vocab.len()));
    }
    // The first two bytes of most emoji.
    let half: String = [0xf0, 0x9f].map(byte_char).into_iter().collect();
    merges.push(format!("{} {}", byte_char(0xf0), byte_char(0x9f)));
    vocab.insert(half, json!(vocab.len()));
    let first_special = vocab.len();
    let json = json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [
            special(first_special, "<s>"), special(first_special + 1, "</s>"), special(first_special + 2, "<|im_end|>"),
        ],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [first_special], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": merges},
    });
    let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>", "special": true}, "pad_token": null,
                        "add_bos_token": true, "model_max_length": 4096});
    Tokenizer::from_json(&json.to_string(), config.as_object().unwrap()).unwrap()
}

/// A byte-fallback BPE in the manner of Llama 2 and Mistral. With `metaspace`, the decoder is `Metaspace` (Gemma-like
/// sequences use `Replace`): both trim the space in front of the first word.
pub(crate) fn byte_fallback(metaspace: bool) -> Tokenizer {
    let mut vocab: Map<String, Value> = Map::new();
    for token in ["<unk>", "<s>", "</s>"] {
        vocab.insert(token.to_owned(), json!(vocab.len()));
    }
    for byte in 0..=u8::MAX {
        vocab.insert(format!("<0x{byte:02X}>"), json!(vocab.len()));
    }
    for token in
        ["▁", "▁▁", "▁hello", "▁world", "hello", "!", "a", "b", "é", "日", "本", "▁a", "\n", "…", "\u{fffd}"]
    {
        vocab.insert(token.to_owned(), json!(vocab.len()));
    }
    let merges = ["▁ ▁", "▁ a"];
    let decoders = if metaspace {
        json!({"type": "Sequence", "decoders": [
            {"type": "ByteFallback"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        ]})
    } else {
        json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]})
    };
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null, "post_processor": null, "decoder": decoders,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                  "vocab": vocab, "merges": merges},
    });
    let config = json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": {"content": "<unk>"}});
    Tokenizer::from_json(&json.to_string(), config.as_object().unwrap()).unwrap()
}

/// The small vocabularies, and what is expected of them.
pub(crate) fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tokenizers")
}

pub(crate) fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The text of ids that come one by one, without special tokens.
pub(crate) fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut decoder = StreamDecoder::new(tokenizer, true);
    let mut text: String = ids.iter().filter_map(|id| decoder.push(*id).unwrap()).collect();
    text += &decoder.finish().unwrap();
    text
}

/// What differs from what `expected.json` in a folder says.
pub(crate) fn differences(folder: &Path, texts: &[String]) -> Vec<String> {
    let expected = json(&folder.join("expected.json"));
    let name = folder.file_name().unwrap().to_string_lossy();
    let tokenizer = Tokenizer::from_dir(folder).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (before, after) = (ids(&expected["before"]), ids(&expected["after"]));
    let mut differences = Vec::new();
    let mut differ = |what: &str, text: &str, expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
        differences.push(format!("{name}: {what} {text:?}\n  expected {expected:?}\n  found    {found:?}"));
    };
    for (index, text) in texts.iter().enumerate() {
        let expected_ids = ids(&expected["ids"][index]);
        let found = tokenizer.encode(text, false).unwrap();
        if found != expected_ids {
            differ("ids of", text, &expected_ids, &found);
        }
        let around = [before.as_slice(), &expected_ids, &after].concat();
        let found = tokenizer.encode(text, true).unwrap();
        if found != around {
            differ("ids and those around", text, &around, &found);
        }
        let expected_text =
            expected["decoded"].get(index.to_string()).map_or(text.as_str(), |text| text.as_str().unwrap());
        let found = tokenizer.decode(&expected_ids, true).unwrap();
        if found != expected_text {
            differ("text of", text, &expected_text, &found);
        }
        let piecewise = streamed(&tokenizer, &expected_ids);
        if piecewise != found {
            differ("streamed text of", text, &found, &piecewise);
        }
    }
    differences
}

/// The texts that these are checked with.
pub(crate) fn texts() -> Vec<String> {
    serde_json::from_value(json(&goldens().join("texts.json"))).unwrap()
}
