//! Vocabularies of GGUF files, against llama.cpp: see `tools/tokenizers/gguf.py`.

mod common;

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pippin_text::{ChatTemplate, GgufVocabulary, Message, RenderInputs, StopTokens, Tokenizer};
use pippin_weights::gguf::{Gguf, GgufWriter};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::Value;

/// The vocabulary of a golden file.
fn vocabulary(model: &str, keys: &Value) -> GgufVocabulary {
    let strings =
        |name: &str| -> Option<Vec<String>> { serde_json::from_value(keys.get(name)?.clone()).unwrap() };
    let flag = |name: &str| keys.get(name).and_then(Value::as_bool);
    let special = ["bos", "eos", "unknown"].into_iter();
    GgufVocabulary {
        model: model.to_owned(),
        tokens: strings("tokens").unwrap(),
        scores: keys.get("scores").map_or(Vec::new(), |list| serde_json::from_value(list.clone()).unwrap()),
        token_types: serde_json::from_value(keys["token_type"].clone()).unwrap(),
        merges: strings("merges"),
        special: special
            .filter_map(|name| Some((name.to_owned(), keys.get(format!("{name}_token_id"))?.as_u64()?)))
            .collect(),
        add_bos: flag("add_bos_token"),
        add_eos: flag("add_eos_token"),
        add_space_prefix: flag("add_space_prefix"),
        remove_extra_whitespaces: flag("remove_extra_whitespaces"),
        charsmap: keys
            .get("precompiled_charsmap")
            .map_or(Vec::new(), |table| STANDARD.decode(table.as_str().unwrap()).unwrap()),
        ..GgufVocabulary::default()
    }
}

fn goldens(name: &str) -> Value {
    common::json(&common::goldens().join("../gguf").join(format!("{name}.json")))
}

fn texts() -> Vec<String> {
    serde_json::from_value(goldens("texts")).unwrap()
}

fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}

/// The expressions are the models' own, and llama.cpp has to write some of them otherwise: it knows no marks beside letters, tells
/// capital letters from small ones up to `Z` at most, and in `'s` it has no other letter than `s`.
fn is_cut_otherwise(name: &str, text: &str) -> bool {
    let has = |test: &dyn Fn(char) -> bool| text.chars().any(test);
    let knows_cases =
        ["tekken", "gpt-4o", "granite-embed-multi-97m", "tiny_aya", "youtu", "kimi-k2"].contains(&name);
    let has_no_cases = ["tiny_aya", "youtu", "kimi-k2"].contains(&name);
    let is_mark_or_letter = |char: char| !char.is_ascii() && !char.is_whitespace();
    has(&|char| char == 'ſ')
        || (knows_cases && has(&is_mark_or_letter))
        || (has_no_cases && has(&char::is_uppercase) && has(&char::is_lowercase))
}

#[test]
fn words_are_cut_as_llama_cpp_cuts_them() {
    let goldens = goldens("pre");
    let texts = texts();
    let names = goldens["names"].as_object().unwrap();
    assert!(names.len() > 25, "{}", names.len());
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (name, places) in names {
        let vocabulary =
            GgufVocabulary { pre: Some(name.clone()), ..vocabulary("gpt2", &goldens["vocabulary"]) };
        let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
        for (text, place) in texts.iter().zip(places.as_array().unwrap()) {
            if is_cut_otherwise(name, text) {
                continue;
            }
            let expected = common::ids(&goldens["ids"][place.as_u64().unwrap() as usize]);
            let found = tokenizer.encode(text, false).unwrap();
            checked += 1;
            if found != expected {
                let shown = |ids: &[u32]| -> Vec<String> {
                    ids.iter().map(|id| tokenizer.decode(&[*id], false).unwrap()).collect()
                };
                wrong.push(format!(
                    "{name}: {text:?}\n  expected {:?}\n  found    {:?}",
                    shown(&expected),
                    shown(&found)
                ));
            }
        }
    }
    assert!(checked > 4000, "{checked}");
    report(&wrong);
}

#[test]
fn other_kinds_are_those_of_llama_cpp() {
    let mut wrong = Vec::new();
    for name in ["spm", "spm-bare", "unigram"] {
        let goldens = goldens(name);
        let tokenizer =
            Tokenizer::from_gguf(&vocabulary(goldens["model"].as_str().unwrap(), &goldens["vocabulary"]))
                .unwrap();
        for (text, expected) in texts().iter().zip(goldens["ids"].as_array().unwrap()) {
            let expected = common::ids(expected);
            let found = tokenizer.encode(text, true).unwrap();
            // The library looks for what is replaced in whole characters, with all marks that they have.
            let has_more_marks = name == "unigram" && text.contains("\u{301}\u{301}");
            if found != expected && !has_more_marks {
                wrong.push(format!("{name}: {text:?}\n  expected {expected:?}\n  found    {found:?}"));
            }
            let whole = tokenizer.decode(&expected, true).unwrap();
            assert_eq!(common::streamed(&tokenizer, &expected), whole, "{name}: {text:?}");
        }
    }
    report(&wrong);
}

/// A vocabulary of a byte for each token, and three more.
fn bytes(pre: &str) -> GgufVocabulary {
    let mut tokens: Vec<String> = (0..=u8::MAX).map(|byte| common::byte_char(byte).to_string()).collect();
    tokens.extend(["<|start|>", "<|im_end|>", "<own>", "ab"].map(str::to_owned));
    let mut token_types = vec![1; 256];
    token_types.extend([3, 1, 4, 1]);
    GgufVocabulary {
        path: "tiny.gguf".into(),
        model: "gpt2".to_owned(),
        pre: Some(pre.to_owned()),
        tokens,
        token_types,
        merges: Some(vec!["a b".to_owned(), "ab c".to_owned(), "nonsense".to_owned()]),
        special: vec![("bos".to_owned(), 256), ("eos".to_owned(), 257), ("padding".to_owned(), 1 << 40)],
        add_bos: Some(true),
        ..GgufVocabulary::default()
    }
}

#[test]
fn a_file_says_what_its_special_tokens_are() {
    let vocabulary = GgufVocabulary {
        chat_template: Some(
            "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}{{ eos_token }}".to_owned(),
        ),
        tool_template: Some("{% nonsense %}".to_owned()),
        ..bytes("qwen2")
    };
    let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
    assert_eq!(tokenizer.encode_prompt("abc<own>").unwrap(), [256, 259, 99, 258]);
    assert_eq!(tokenizer.encode_prompt("<|start|>a").unwrap(), [256, 97]);
    assert_eq!((tokenizer.bos_token(), tokenizer.pad_token()), (Some("<|start|>"), None));
    // The token that ends a turn is special, though the file says that it is an ordinary one.
    assert_eq!(tokenizer.decode(&[256, 97, 257, 258], true).unwrap(), "a<own>");
    let stop = StopTokens::from_gguf(&vocabulary);
    assert_eq!(stop.iter().collect::<Vec<_>>(), [257]);
    let template = ChatTemplate::from_gguf(&vocabulary).unwrap();
    let messages = [Message::user("hi")];
    let inputs = RenderInputs::new(&messages).with_special_tokens(tokenizer.special_tokens());
    assert_eq!(template.render(&inputs).unwrap(), "<|start|>hi<|im_end|>");
    assert!(
        !template.is_sound(true) && template.warnings()[0].contains("tool_use"),
        "{:?}",
        template.warnings()
    );
    assert!(ChatTemplate::from_gguf(&bytes("qwen2")).is_none());
}

/// Every name that llama.cpp knows, in the order of its list.
const NAMES: &str = "default minicpm5 llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano deepseek-llm \
    deepseek-coder deepseek-v3 spark2_5 youtu falcon mpt starcoder gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 \
    mellum modern-bert jais-2 gemma4 granite-embed-multi-311m sarvam-moe jina-v1-en jina-v2-code roberta-bpe refact command-r qwen2 \
    deepseek-r1-qwen kormo f2llmv2 qwen35 stablelm2 olmo dbrx smaug-bpe poro-chat chatglm-bpe glm4 glm5 viking jais tekken smollm \
    codeshell bloom gpt3-finnish exaone exaone4 exaone-moe chameleon minerva-7b megrez gpt-4o llama4 kanana2 talkie \
    granite-embed-multi-97m tiny_aya cohere2moe superbpe trillion granite-docling bailingmoe bailingmoe2 llada-moe seed-coder hunyuan \
    hunyuan-dense hy_v4 joyai-llm kimi-k2 ufakzeka grok-2 afmoe laguna minimax-m2 solar-open mellum2";

#[test]
fn words_of_every_name_make_up_the_text() {
    for name in NAMES.split_whitespace() {
        let is_text = ["gemma4", "granite-embed-multi-311m", "sarvam-moe"].contains(&name);
        let mut vocabulary = bytes(name);
        if is_text {
            vocabulary.tokens.extend((0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")));
            vocabulary.token_types.extend([6; 256]);
            vocabulary.tokens.push("▁".to_owned());
            vocabulary.token_types.push(1);
        }
        let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap_or_else(|error| panic!("{name}: {error}"));
        for text in common::texts() {
            let ids = tokenizer.encode(&text, false).unwrap();
            // There the mark and the space are one.
            let text = if is_text { text.replace('▁', " ") } else { text };
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text, "{name}");
        }
    }
}

/// Merges that know no words: what is not merged was cut.
fn pieces(name: &str, text: &str) -> Vec<String> {
    let mut vocabulary = bytes(name);
    let mut merges = Vec::new();
    let letters: Vec<String> = text.bytes().map(|byte| common::byte_char(byte).to_string()).collect();
    for start in 0..letters.len() {
        for end in start + 2..=letters.len() {
            let token = letters[start..end].concat();
            if !vocabulary.tokens.contains(&token) {
                merges.push(format!("{} {}", letters[start..end - 1].concat(), letters[end - 1]));
                vocabulary.tokens.push(token);
                vocabulary.token_types.push(1);
            }
        }
    }
    vocabulary.merges = Some(merges);
    let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
    tokenizer.encode(text, false).unwrap().iter().map(|id| tokenizer.decode(&[*id], false).unwrap()).collect()
}

/// The test of digits, and what else tells the best-known names apart.
#[test]
fn words_are_cut_as_their_names_say() {
    for (name, expected) in [
        ("gpt-2", vec!["What", " is", " 3333", "+", "777", "?"]),
        ("llama-bpe", vec!["What", " is", " ", "333", "3", "+", "777", "?"]),
        ("qwen2", vec!["What", " is", " ", "3", "3", "3", "3", "+", "7", "7", "7", "?"]),
        ("deepseek-v3", vec!["What", " is", " ", "333", "3", "+", "777", "?"]),
        ("superbpe", vec!["What is ", "3", "333", "+", "777", "?"]),
        ("afmoe", vec!["What", " is", " ", "3", "333", "+", "777", "?"]),
    ] {
        assert_eq!(pieces(name, "What is 3333+777?"), expected, "{name}");
    }
    assert_eq!(pieces("gpt-2", "I'M, we'll"), ["I", "'", "M", ",", " we", "'ll"]);
    assert_eq!(pieces("llama-bpe", "I'M, we'll"), ["I", "'M", ",", " we", "'ll"]);
    assert_eq!(pieces("gpt-4o", "I'M aBc"), ["I'M", " a", "Bc"]);
    assert_eq!(pieces("tekken", "I'M aBc"), ["I", "'M", " a", "Bc"]);
    assert_eq!(pieces("kimi-k2", "漢a字b"), ["漢", "a", "字", "b"]);
}

#[test]
fn what_nobody_knows_is_refused_by_name() {
    let error = |vocabulary: GgufVocabulary| Tokenizer::from_gguf(&vocabulary).unwrap_err().to_string();
    let found = error(bytes("plum"));
    assert!(
        found.contains("tiny.gguf") && found.contains("tokenizer.ggml.pre") && found.contains("plum"),
        "{found}"
    );
    let found = error(GgufVocabulary { model: "hybriddna".to_owned(), ..bytes("qwen2") });
    assert!(found.contains("tokenizer.ggml.model") && found.contains("hybriddna"), "{found}");
    assert!(error(GgufVocabulary { merges: None, ..bytes("qwen2") }).contains("merges"));
    assert!(error(GgufVocabulary { token_types: vec![1], ..bytes("qwen2") }).contains("token_type"));
    assert!(error(GgufVocabulary { tokens: Vec::new(), ..bytes("qwen2") }).contains("tokens"));
}

#[test]
fn answers_of_several_messages_go_on() {
    let ends = |tokens: &[&str]| {
        let tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
        StopTokens::from_gguf(&GgufVocabulary {
            model: "gemma4".to_owned(),
            tokens,
            ..GgufVocabulary::default()
        })
        .iter()
        .collect::<Vec<_>>()
    };
    assert_eq!(ends(&["<|end|>", "a", "<|eot_id|>"]), [0, 2]);
    assert_eq!(ends(&["<|end|>", "<|return|>", "<|call|>"]), [1, 2]);
    assert_eq!(ends(&["</s>", "<eos>", "<|tool_response>"]), [1, 2]);
}

#[test]
fn files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let mut writer = GgufWriter::new();
    writer.string("general.architecture", "rwkv6").string("tokenizer.ggml.model", "rwkv");
    writer
        .strings("tokenizer.ggml.tokens", &["<s>", "\\x00", "a", "ab", "\\n", "\\xe6\\x97", "\\xa5", "\\\\"]);
    writer.i32s("tokenizer.ggml.token_type", &[3, 1, 1, 1, 1, 1, 1, 1]).u32("tokenizer.ggml.eos_token_id", 0);
    fs::write(&path, writer.bytes()).unwrap();
    let vocabulary = GgufVocabulary::read(&Gguf::open(&path).unwrap()).unwrap();
    let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
    // The longest token, though another would leave no rest; what has no token is left out.
    let ids = tokenizer.encode("aab\n日\\b<s>", true).unwrap();
    assert_eq!(ids, [2, 3, 4, 5, 6, 7, 0]);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "aab\n日\\<s>");
    assert_eq!(common::streamed(&tokenizer, &ids), "aab\n日\\");
}

#[test]
fn the_best_path_is_found() {
    let special = ["<|plamo:unk|>", "<|plamo:bos|>", "<|plamo:eos|>", "<|plamo:pad|>"];
    let mut tokens: Vec<String> =
        [&special[..], &["a", "b", "ab", "aba", "日"]].concat().into_iter().map(str::to_owned).collect();
    let mut scores = vec![0.0, 0.0, 0.0, 0.0, -1.0, -1.0, -3.0, -2.5, -1.0];
    let mut token_types = vec![2, 3, 3, 3, 1, 1, 1, 1, 1];
    for byte in 0..=u8::MAX {
        tokens.push(format!("<0x{byte:02X}>"));
        scores.push(0.0);
        token_types.push(6);
    }
    let vocabulary = GgufVocabulary {
        model: "plamo2".to_owned(),
        tokens,
        scores,
        token_types,
        ..GgufVocabulary::default()
    };
    let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
    let byte = |byte: u32| 9 + byte;
    // Two single letters cost less than both together, three letters more than the three.
    assert_eq!(tokenizer.encode("ab", false).unwrap(), [4, 5]);
    assert_eq!(tokenizer.encode("aba", false).unwrap(), [7]);
    let ids = tokenizer.encode("日é", false).unwrap();
    assert_eq!(ids, [8, byte(0xc3), byte(0xa9)]);
    assert_eq!(common::streamed(&tokenizer, &ids), "日é");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, rng_seed: RngSeed::Fixed(5), failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a file says ends in a tokenizer or in an error.
    #[test]
    fn hostile_vocabularies_are_errors(
        model in prop::sample::select(vec!["gpt2", "llama", "bert", "t5", "rwkv", "plamo2", "gemma4"]),
        tokens in prop::collection::vec("(a|b|ab|▁|<0x4[0-9]>|##a|\\\\x[0-9a-g]{0,2}|é|<s>|</s>){0,3}", 0..12),
        scores in prop::collection::vec(prop::num::f32::ANY, 0..14),
        token_types in prop::collection::vec(-1_i64..8, 0..14),
        merges in prop::option::of(prop::collection::vec("(a|b| |ab|▁){0,4}", 0..6)),
        ids in prop::collection::vec(0_u64..20, 4),
        charsmap in prop::collection::vec(any::<u8>(), 0..12),
        flags in any::<[Option<bool>; 4]>(),
        text in "(a|b|ab| |é|日|<s>|▁){0,12}",
    ) {
        let vocabulary = GgufVocabulary {
            model: model.to_owned(),
            tokens, scores, token_types, merges, charsmap,
            special: ["bos", "eos", "unknown", "seperator"].into_iter().map(str::to_owned).zip(ids).collect(),
            add_bos: flags[0], add_eos: flags[1], add_space_prefix: flags[2], remove_extra_whitespaces: flags[3],
            ..GgufVocabulary::default()
        };
        let _ = StopTokens::from_gguf(&vocabulary);
        if let Ok(tokenizer) = Tokenizer::from_gguf(&vocabulary)
            && let Ok(ids) = tokenizer.encode(&text, true)
        {
            let _ = tokenizer.decode(&ids, true);
        }
    }
}
