//! A model and a tokenizer that cost nothing, for tests.

mod fake;

use pippin_text::{ChatTemplate, StopTokens, Tokenizer};
use serde_json::{Map, json};

pub(crate) use self::fake::{
    Control, FakeModel, Feeds, Kind, NAN, POISON, STOP, Step, VOCAB, continuation, lock, logits,
};
use crate::TextProcessor;

/// A tokenizer of whole words: `w0` to `w59` are those ids, `<stop>` is the stop token.
pub(crate) fn tokenizer() -> Tokenizer {
    tokenizer_with(json!({}))
}

/// The same with a `tokenizer_config.json`.
pub(crate) fn tokenizer_with(config: serde_json::Value) -> Tokenizer {
    tokenizer_of(&[], config)
}

/// The processor of a model that thinks between the tokens 57 and 58.
pub(crate) fn thinking_processor() -> TextProcessor {
    let markers = [("<think>", 57), ("</think>", 58)];
    let config = json!({"additional_special_tokens": ["<think>", "</think>"]});
    let template = ChatTemplate::from_source("test", "{{ messages[0].content }} <think>\n{# </think> #}");
    TextProcessor::new(
        tokenizer_of(&markers, config),
        Some(template.expect("a valid template")),
        StopTokens::from_iter([STOP]),
    )
}

fn tokenizer_of(more: &[(&str, u32)], config: serde_json::Value) -> Tokenizer {
    let mut vocab: Map<String, serde_json::Value> =
        (0..VOCAB).map(|id| (format!("w{id}"), json!(id))).collect();
    let words = [("<user>", 54), ("<assistant>", 55), ("<system>", 56), ("[UNK]", 59), ("<stop>", STOP)];
    for (word, id) in words.into_iter().chain(more.iter().copied()) {
        vocab.retain(|_, value| *value != json!(id));
        vocab.insert(word.to_owned(), json!(id));
    }
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" }
    });
    let config = config.as_object().expect("an object");
    Tokenizer::from_json(&json.to_string(), config).expect("a valid tokenizer")
}

/// The processor of a model whose tokens are letters: 1 is `A`, 2 is `B`, and so on through ASCII.
pub(crate) fn lettered_processor() -> TextProcessor {
    let letter = |id: usize| char::from(b'@' + id as u8).to_string();
    let vocab: Map<String, serde_json::Value> = (0..VOCAB)
        .map(|id| (if id as u32 == STOP { "<stop>".to_owned() } else { letter(id) }, json!(id)))
        .collect();
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [], "pre_tokenizer": bytes, "decoder": bytes,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}
    });
    let tokenizer = Tokenizer::from_json(&json.to_string(), &Map::new()).expect("a valid tokenizer");
    TextProcessor::new(tokenizer, None, StopTokens::from_iter([STOP]))
}

/// The processor of the fake model, with a template that writes `<role> text` for every message.
pub(crate) fn processor() -> TextProcessor {
    let template = ChatTemplate::from_source(
        "test",
        "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}<assistant>",
    )
    .expect("a valid template");
    TextProcessor::new(tokenizer(), Some(template), StopTokens::from_iter([STOP]))
}
