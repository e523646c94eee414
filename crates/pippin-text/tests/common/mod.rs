//! Small tokenizers of the two usual kinds, made as JSON text.
#![allow(dead_code, reason = "each test file uses its own part")]

use pippin_text::Tokenizer;
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
