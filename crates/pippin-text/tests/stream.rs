//! The streaming decoder: what it emits adds up to the one-shot text, and is never half a character.

mod common;

use std::sync::LazyLock;

use pippin_text::{StreamDecoder, Tokenizer};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

static TOKENIZERS: LazyLock<[Tokenizer; 3]> =
    LazyLock::new(|| [common::byte_level(), common::byte_fallback(true), common::byte_fallback(false)]);

fn stream(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> Vec<String> {
    let mut decoder = StreamDecoder::new(tokenizer, skip_special);
    let mut pieces = Vec::new();
    for id in ids {
        pieces.extend(decoder.push(*id).unwrap());
    }
    let rest = decoder.finish().unwrap();
    // Ready for the next text.
    assert_eq!(decoder.finish().unwrap(), "");
    pieces.push(rest);
    pieces
}

#[track_caller]
fn check(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) {
    let once = tokenizer.decode(ids, skip_special).unwrap();
    let pieces = stream(tokenizer, ids, skip_special);
    assert_eq!(pieces.concat(), once, "{ids:?}");
}

fn text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "hello",
        " world",
        " ",
        "  ",
        "\n",
        "\n\n",
        "a",
        "é",
        "日本語",
        "👨‍👩‍👧‍👦",
        "👍🏽",
        "🇨🇭",
        "e\u{301}",
        "नमस्ते",
        "\u{fffd}",
        "\u{200b}",
        "ß",
        "\0",
        "<0x41>",
        "</s>",
        "▁",
        "𝔘",
        "שלום",
        "hello hello",
        ".",
        "!",
    ]);
    prop_oneof![
        3 => prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat()),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn text_comes_back(text in text(), skip_special in any::<bool>()) {
        for tokenizer in TOKENIZERS.iter() {
            let ids = tokenizer.encode(&text, false).unwrap();
            check(tokenizer, &ids, skip_special);
        }
    }

    #[test]
    fn byte_level_text_is_exact(text in text()) {
        let tokenizer = &TOKENIZERS[0];
        let ids = tokenizer.encode(&text, false).unwrap();
        let pieces = stream(tokenizer, &ids, false);
        prop_assert_eq!(pieces.concat(), text.as_str());
        if !text.contains('\u{fffd}') {
            let broken = pieces.iter().any(|piece| piece.contains('\u{fffd}'));
            prop_assert!(!broken);
        }
    }

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let ids: Vec<u32> = bytes.iter().map(|byte| u32::from(*byte)).collect();
        check(&TOKENIZERS[0], &ids, true);
        let ids: Vec<u32> = ids.iter().map(|byte| byte + 3).collect();
        check(&TOKENIZERS[1], &ids, true);
        check(&TOKENIZERS[2], &ids, true);
    }

    #[test]
    fn arbitrary_tokens(ids in prop::collection::vec(0u32..290, 0..50), skip_special in any::<bool>()) {
        for tokenizer in TOKENIZERS.iter() {
            check(tokenizer, &ids, skip_special);
        }
    }

    /// Mostly continuation and lead bytes: sequences that break off everywhere.
    #[test]
    fn broken_characters(bytes in prop::collection::vec(prop::sample::select(vec![0xe2u8, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80, 0xff, 0x41, 0xc3, 0xa9, 0xed, 0xa0]), 0..60)) {
        let ids: Vec<u32> = bytes.iter().map(|byte| u32::from(*byte)).collect();
        check(&TOKENIZERS[0], &ids, true);
        let ids: Vec<u32> = ids.iter().map(|byte| byte + 3).collect();
        check(&TOKENIZERS[1], &ids, true);
        check(&TOKENIZERS[2], &ids, true);
    }
}

#[test]
fn characters_come_whole_and_at_once() {
    let tokenizer = &TOKENIZERS[0];
    let mut decoder = StreamDecoder::new(tokenizer, true);
    let ids = tokenizer.encode("a€b", false).unwrap();
    let pieces: Vec<_> = ids.iter().map(|id| decoder.push(*id).unwrap()).collect();
    assert_eq!(pieces, [Some("a".to_owned()), None, None, Some("€".to_owned()), Some("b".to_owned())]);
    assert_eq!(decoder.finish().unwrap(), "");
}

#[test]
fn a_broken_end_is_shown_by_finish() {
    let mut decoder = StreamDecoder::new(&TOKENIZERS[0], true);
    assert_eq!(decoder.push(0xe2).unwrap(), None);
    assert_eq!(decoder.push(0x82).unwrap(), None);
    assert_eq!(decoder.finish().unwrap(), "\u{fffd}");
}

#[test]
fn leading_spaces_follow_the_decoder() {
    for tokenizer in &TOKENIZERS[1..] {
        let [hello, world] = ["▁hello", "▁world"].map(|token| tokenizer.token_to_id(token).unwrap());
        assert_eq!(stream(tokenizer, &[1, hello, world], true), ["hello", " world", ""]);
    }
}

#[test]
fn unknown_ids_give_nothing() {
    for tokenizer in TOKENIZERS.iter() {
        let ids = tokenizer.encode("hello", false).unwrap();
        let with_unknown: Vec<u32> = ids.iter().flat_map(|id| [70_000, *id, u32::MAX]).collect();
        assert_eq!(stream(tokenizer, &with_unknown, true).concat(), "hello");
    }
}

/// Text is never held back for long, and each token costs the same, whatever comes.
#[test]
fn nothing_is_held_back_forever() {
    let patterns: [(&Tokenizer, &[u8], u32); 5] = [
        (&TOKENIZERS[0], &[0xff], 0),
        (&TOKENIZERS[0], &[0xe2, 0x82], 0),
        (&TOKENIZERS[1], &[0xff], 3),
        (&TOKENIZERS[1], &[0xf0, 0x9f, 0x98, 0x80], 3),
        (&TOKENIZERS[2], "日本語のテキスト".as_bytes(), 3),
    ];
    for (tokenizer, pattern, offset) in patterns {
        let mut decoder = StreamDecoder::new(tokenizer, true);
        let mut emitted = 0;
        for (count, byte) in pattern.iter().cycle().take(20_000).enumerate() {
            emitted += decoder.push(u32::from(*byte) + offset).unwrap().map_or(0, |piece| piece.len());
            if std::str::from_utf8(pattern).is_ok() {
                assert!(count < emitted + 80);
            }
        }
        assert!(emitted > 5_000);
        // Valid text stays exact even then.
        if let Ok(text) = std::str::from_utf8(pattern) {
            let ids: Vec<u32> = text.repeat(30).bytes().map(|byte| u32::from(byte) + offset).collect();
            check(tokenizer, &ids, true);
        }
    }
}

#[test]
fn long_special_runs_cost_nothing() {
    let tokenizer = &TOKENIZERS[1];
    let mut ids = vec![1; 1000];
    ids.push(tokenizer.token_to_id("▁hello").unwrap());
    assert_eq!(stream(tokenizer, &ids, true).concat(), "hello");
}
