//! Vocabularies in other forms than `tokenizer.json`, against the libraries they come from: see `tools/tokenizers/README.md`.

mod common;

use std::fs;
use std::path::PathBuf;

use pippin_text::{TextError, Tokenizer};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

#[test]
fn small_vocabularies_are_those_of_their_libraries() {
    let texts = common::texts();
    let mut folders: Vec<PathBuf> =
        fs::read_dir(common::goldens()).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    assert!(folders.len() > 14, "{folders:?}");
    let all: Vec<String> = folders.iter().flat_map(|folder| common::differences(folder, &texts)).collect();
    assert!(all.is_empty(), "{} differences\n{}", all.len(), all[..all.len().min(60)].join("\n"));
}

/// A folder with one vocabulary in it.
fn load(name: &str, file: &[u8], model_type: &str) -> Result<Tokenizer, TextError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), file).unwrap();
    fs::write(folder.path().join("config.json"), format!("{{\"model_type\": {model_type:?}}}")).unwrap();
    Tokenizer::from_dir(folder.path())
}

fn error(name: &str, file: &[u8]) -> String {
    let error = load(name, file, "llama").unwrap_err().to_string();
    assert!(error.contains(name), "{error}");
    error
}

#[test]
fn damaged_vocabularies_are_errors() {
    assert!(error("tokenizer.model", b"").contains("no pieces"));
    assert!(error("tokenizer.model", b"\xff\xff\xff").contains("not a SentencePiece model"));
    // A piece that claims to be longer than the file, and one without a text.
    assert!(error("tokenizer.model", b"\x0a\xff\xff\xff\x7f").contains("ends within a field"));
    assert!(error("tokenizer.model", b"\x0a\x05\x15\x00\x00\x00\x00").contains("piece 0: it has no text"));
    assert!(error("tokenizer.model", b"\x0a\x08\x0a\x01a\x15\x00\x00\xc0\x7f").contains("score"));
    assert!(error("tokenizer.model", b"\x0a\x04\x0a\x02\xff\xfe").contains("not UTF-8"));
    assert!(error("a.tiktoken", b"").contains("no tokens"));
    assert!(error("a.tiktoken", b"IQ== 0\nIQ==\n").contains("line 2"));
    assert!(error("a.tiktoken", b"IQ== 0\n@@ 1\n").contains("line 2: the token is not base64"));
    assert!(error("a.tiktoken", b"IQ== 0\nIg== 0\n").contains("another token has the rank 0"));
    // A few bytes that claim four thousand million tokens.
    assert!(error("a.tiktoken", b"IQ== 4294967295\n").contains("a rank of 4294967295"));
    assert!(error("tokenizer.model", b"IQ== 1000\n").contains("a rank of 1000"));
    assert!(error("tekken.json", b"{}").contains("tekken"));
    let tekken = |config: &str, special: &str| {
        let json = format!(
            "{{\"config\": {{\"pattern\": \".\", {config}}}, \"vocab\": [{{\"token_bytes\": \"IQ==\"}}], \"special_tokens\": {special}}}"
        );
        load("tekken.json", json.as_bytes(), "mistral").map(|_| ()).map_err(|error| error.to_string())
    };
    let one = r#"[{"rank": 0, "token_str": "<s>"}]"#;
    assert!(tekken(r#""default_vocab_size": 3, "default_num_special_tokens": 2"#, one).is_ok());
    assert!(tekken(r#""default_vocab_size": 99999999999"#, one).unwrap_err().contains("default_vocab_size"));
    assert!(
        tekken(r#""default_num_special_tokens": 99999999999"#, one)
            .unwrap_err()
            .contains("default_vocab_size")
    );
    assert!(
        tekken(r#""default_num_special_tokens": 0"#, one).unwrap_err().contains("default_num_special_tokens")
    );
    let gap = r#"[{"rank": 1, "token_str": "<s>"}]"#;
    assert!(tekken(r#""default_vocab_size": 3"#, gap).unwrap_err().contains("special_tokens"));
    assert!(error("vocab.json", b"{\"a\": 0}").contains("vocab.json"));
}

#[test]
fn classes_with_other_ids_are_refused() {
    let golden = common::goldens().join("unigram/tokenizer.model");
    let folder = tempfile::tempdir().unwrap();
    fs::copy(golden, folder.path().join("tokenizer.model")).unwrap();
    fs::write(folder.path().join("tokenizer_config.json"), r#"{"tokenizer_class": "NllbTokenizerFast"}"#)
        .unwrap();
    let error = Tokenizer::from_dir(folder.path()).unwrap_err().to_string();
    assert!(error.contains("NllbTokenizer") && error.contains("tokenizer.json"), "{error}");
}

#[test]
fn the_first_of_several_vocabularies_counts() {
    let folder = tempfile::tempdir().unwrap();
    let add = |from: &str, name: &str| {
        fs::copy(common::goldens().join(from).join(name), folder.path().join(name)).unwrap()
    };
    let size = || Tokenizer::from_dir(folder.path()).unwrap().vocab_size();
    let error = Tokenizer::from_dir(folder.path()).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json") && error.contains("file not found"), "{error}");
    add("gpt2", "vocab.json");
    add("gpt2", "merges.txt");
    let merges = size();
    add("qwen", "qwen.tiktoken");
    assert_eq!((merges, size()), (501, 708));
    add("t5", "spiece.model");
    assert_eq!(size(), 420);
    add("llama", "tokenizer.model");
    assert_eq!(size(), 700);
    add("tekken", "tekken.json");
    assert_eq!(size(), 520);
    fs::write(folder.path().join("tokenizer.json"), "{").unwrap();
    assert!(Tokenizer::from_dir(folder.path()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, rng_seed: RngSeed::Fixed(9), failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a file is, it is a tokenizer or an error, and never a panic.
    #[test]
    fn random_files_are_tokenizers_or_errors(
        name in prop::sample::select(vec!["tokenizer.model", "tiktoken.model", "tekken.json", "a.tiktoken"]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = load(name, &bytes, "mistral");
    }

    /// So is one of which some bytes were changed, cut out or doubled.
    #[test]
    fn changed_files_are_tokenizers_or_errors(
        source in prop::sample::select(vec![
            ("llama", "tokenizer.model"), ("unigram", "tokenizer.model"), ("mistral", "tokenizer.model"), ("kimi", "tiktoken.model"),
        ]),
        model_type in prop::sample::select(vec!["llama", "mistral", "gemma", "t5", "albert", "xlm-roberta", "kimi_k2"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..6),
        text in "(a|the| |é|日|<s>|▁|\\[INST\\]|\n){0,8}",
    ) {
        let mut file = fs::read(common::goldens().join(source.0).join(source.1)).unwrap();
        for (place, byte, kind) in changes {
            let place = place.index(file.len());
            match kind {
                0 => file[place] = byte,
                1 => file.truncate(place.max(1)),
                _ => file.insert(place, byte),
            }
        }
        if let Ok(tokenizer) = load(source.1, &file, model_type)
            && let Ok(ids) = tokenizer.encode(&text, true)
        {
            let _ = tokenizer.decode(&ids, true);
        }
    }
}
