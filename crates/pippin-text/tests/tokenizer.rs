//! Tokenizer files: what is read, and what is refused.

mod common;

use std::fs;
use std::path::Path;

use pippin_text::{ChatTemplate, Message, RenderInputs, StopTokens, TextError, Tokenizer};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const TOKENIZER: &str = r#"{
  "version": "1.0", "truncation": null, "padding": null,
  "added_tokens": [
    {"id": 3, "content": "<s>", "special": true, "normalized": false, "single_word": false, "lstrip": false, "rstrip": false},
    {"id": 4, "content": "<tool>", "special": false, "normalized": false, "single_word": false, "lstrip": false, "rstrip": false},
    {"id": 5, "content": "</s>", "special": true, "normalized": false, "single_word": false, "lstrip": false, "rstrip": false}
  ],
  "normalizer": null, "pre_tokenizer": null, "post_processor": null,
  "decoder": {"type": "Fuse"},
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []}
}"#;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

/// Names of files with their texts.
type Files<'a> = &'a [(&'a str, &'a str)];

fn load(files: &[(&str, &str)]) -> Result<Tokenizer, TextError> {
    Tokenizer::from_dir(folder(files).path())
}

#[test]
fn tokenizers_can_be_shared() {
    fn shareable<T: Send + Sync + Clone + 'static>() {}
    shareable::<Tokenizer>();
    shareable::<pippin_text::StreamDecoder>();
    shareable::<pippin_text::StopStrings>();
    fn sendable<T: Send + Sync + 'static>() {}
    sendable::<ChatTemplate>();
}

#[test]
fn encodes_and_decodes() {
    let tokenizer = common::byte_level();
    let hello = tokenizer.encode("hello world", false).unwrap();
    assert_eq!(hello.len(), 2);
    assert_eq!(tokenizer.decode(&hello, false).unwrap(), "hello world");
    // The template of the post-processor adds the beginning; the truncation to 4 tokens in the file is ignored.
    let with_bos = tokenizer.encode("hello world, hello world", true).unwrap();
    assert_eq!(with_bos[0], tokenizer.bos_token_id().unwrap());
    assert!(with_bos.len() > 4);
    assert_eq!(tokenizer.decode(&with_bos, true).unwrap(), "hello world, hello world");
    assert_eq!(tokenizer.decode(&with_bos[..2], false).unwrap(), "<s>hello");
    // A prompt that has its beginning does not get a second one.
    assert_eq!(tokenizer.encode_prompt("<s>hello").unwrap(), with_bos[..2]);
    assert_eq!(tokenizer.encode_prompt("hello").unwrap(), with_bos[..2]);
}

#[test]
fn knows_its_special_tokens() {
    let tokenizer = common::byte_level();
    assert_eq!(tokenizer.bos_token(), Some("<s>"));
    assert_eq!(tokenizer.eos_token(), Some("</s>"));
    assert_eq!(tokenizer.pad_token(), None);
    assert_eq!(tokenizer.add_bos_token(), Some(true));
    assert_eq!(tokenizer.model_max_length(), Some(4096));
    assert!(tokenizer.is_special(tokenizer.eos_token_id().unwrap()));
    assert!(!tokenizer.is_special(65));
    let names: Vec<_> = tokenizer.special_tokens().iter().collect();
    assert_eq!(names, [("bos_token", "<s>"), ("eos_token", "</s>")]);
}

/// The tokenizer of a fine-tune whose `tokenizer.json` was not saved again: what it adds stands in `tokenizer_config.json` only.
#[test]
fn tokens_of_the_configuration_are_added() {
    let config = r#"{
        "eos_token": {"content": "<|end|>", "lstrip": false}, "pad_token": "c",
        "extra_special_tokens": ["<x>"], "added_tokens_decoder": {
            "7": {"content": "<|end|>", "special": true}, "6": {"content": "<|turn|>", "special": true},
            "4": {"content": "<tool>", "special": true, "normalized": false},
            "9": {"content": "<think>", "special": false, "normalized": false}
        }
    }"#;
    let tokenizer = load(&[("tokenizer.json", TOKENIZER), ("tokenizer_config.json", config)]).unwrap();
    // As transformers 5.24 has it: in the order of their ids, and then those that are only named.
    assert_eq!(tokenizer.encode("a<|turn|>b<|end|><think><x>", false).unwrap(), [0, 6, 1, 7, 8, 9]);
    // Special as the configuration says, and as its names say.
    assert_eq!(tokenizer.decode(&[0, 4, 6, 2, 7, 8, 9], true).unwrap(), "a<think>");
    assert!(tokenizer.is_special(4) && !tokenizer.is_special(8));
    let warnings = tokenizer.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("\"<think>\" has the id 9") && warnings[0].ends_with("added as 8"),
        "{warnings:?}"
    );
    assert!(warnings[1].contains("\"<x>\" is named"), "{warnings:?}");
}

/// Compared with transformers 5.24.
#[test]
fn further_tokens_are_those_of_transformers() {
    let encode = |config: &str, map: &str, text: &str| {
        let files = [
            ("tokenizer.json", TOKENIZER),
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", map),
        ];
        load(&files).unwrap().encode(text, false).unwrap()
    };
    // Tokens with names of the model's own come after those that every tokenizer may have.
    let named = r#"{"image_token": "<i>", "eos_token": "<e>", "extra_special_tokens": ["<x>"]}"#;
    assert_eq!(encode(named, "{}", "<i><e><x>"), [7, 6, 8]);
    // The older name counts where the newer one says nothing, and what the map says after what the configuration says.
    let (bar, foo) = ("[\"<bar>\"]", "[\"<foo>\"]");
    let list = |name: &str, tokens: &str| format!("{{\"{name}_special_tokens\": {tokens}}}");
    let both = format!("{{\"extra_special_tokens\": {bar}, \"additional_special_tokens\": {foo}}}");
    let ids = |config: &str, map: &str| {
        let files = [
            ("tokenizer.json", TOKENIZER),
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", map),
        ];
        let tokenizer = load(&files).unwrap();
        ["<bar>", "<foo>"].map(|token| tokenizer.token_to_id(token))
    };
    assert_eq!(ids(&both, "{}"), [Some(6), None]);
    for (config, map, expected) in [
        (list("additional", bar), list("additional", foo), [Some(6), None]),
        (list("extra", bar), list("extra", foo), [Some(6), Some(7)]),
        (list("extra", bar), list("additional", foo), [Some(6), None]),
        (list("additional", bar), list("extra", foo), [Some(6), Some(7)]),
        ("{}".to_owned(), list("additional", foo), [None, Some(6)]),
    ] {
        assert_eq!(ids(&config, &map), expected, "{config} {map}");
    }
    let many: Map<String, Value> =
        (0..1000).map(|id| ((1000 + id).to_string(), json!({"content": format!("<{id}>")}))).collect();
    let tokenizer = load(&[
        ("tokenizer.json", TOKENIZER),
        ("tokenizer_config.json", &json!({"added_tokens_decoder": many}).to_string()),
    ])
    .unwrap();
    assert!(
        tokenizer.warnings().len() < 10 && tokenizer.warnings().last().unwrap().contains("more of the kind")
    );
}

/// Four bytes that asked for eight gigabytes, and a normalizer that made them of two letters.
#[test]
fn tokenizers_that_grow_without_bound_are_refused() {
    let tenfold = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"});
    for (normalizer, part) in [
        (json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="}), "shorter than it says"),
        (json!({"type": "Sequence", "normalizers": vec![tenfold; 9]}), "times longer"),
    ] {
        let mut tokenizer: Value = serde_json::from_str(TOKENIZER).unwrap();
        tokenizer["normalizer"] = normalizer;
        let error = load(&[("tokenizer.json", &tokenizer.to_string())]).unwrap_err().to_string();
        assert!(
            error.contains("tokenizer.json") && error.contains("`normalizer`") && error.contains(part),
            "{error}"
        );
    }
    for text in ["null", "[]", "5"] {
        let error = load(&[("tokenizer.json", text)]).unwrap_err().to_string();
        assert!(error.contains("not the JSON object") && !error.contains("struct"), "{error}");
    }
}

#[test]
fn older_files_count_where_the_configuration_lists_no_tokens() {
    let files = |config| {
        load(&[
            ("tokenizer.json", TOKENIZER),
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", r#"{"eos_token": "<tool>", "pad_token": {"content": "<p>"}}"#),
            ("added_tokens.json", r#"{"<p>": 6, "<q>": 7.0, "<bad>": "x"}"#),
        ])
        .unwrap()
    };
    let tokenizer = files(r#"{"eos_token": "</s>"}"#);
    assert_eq!((tokenizer.eos_token(), tokenizer.pad_token()), (Some("<tool>"), Some("<p>")));
    assert_eq!(tokenizer.encode("<p><q>", false).unwrap(), [6, 7]);
    assert!(tokenizer.is_special(6) && !tokenizer.is_special(7));
    assert!(
        tokenizer.warnings()[0].contains("added_tokens.json: field `<bad>`"),
        "{:?}",
        tokenizer.warnings()
    );
    let tokenizer = files(r#"{"eos_token": "</s>", "added_tokens_decoder": {}}"#);
    assert_eq!((tokenizer.eos_token(), tokenizer.pad_token()), (Some("</s>"), None));
    // A file that cannot be read is as good as none.
    let tokenizer = load(&[("tokenizer.json", TOKENIZER), ("special_tokens_map.json", "{,}")]).unwrap();
    assert!(tokenizer.warnings()[0].contains("special_tokens_map.json: not valid JSON"));
}

/// Devstral's `tokenizer.json` has the decoder of a SentencePiece vocabulary; others have none.
#[test]
fn byte_level_vocabularies_are_decoded_byte_by_byte() {
    let tokenizer = |place: &str, decoder: Value| {
        let mut tokenizer: Value = serde_json::from_str(TOKENIZER).unwrap();
        tokenizer["added_tokens"] = json!([]);
        for (id, byte) in (3..).zip([b' ', 0xc3, 0xa9]) {
            tokenizer["model"]["vocab"][common::byte_char(byte).to_string()] = json!(id);
        }
        let level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        tokenizer[place] = match place {
            "pre_tokenizer" => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated", "invert": false}, level]}),
            _ => json!({"type": "ByteLevel"}),
        };
        tokenizer["decoder"] = decoder;
        load(&[("tokenizer.json", &tokenizer.to_string())]).unwrap()
    };
    let sentencepiece = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]});
    for place in ["pre_tokenizer", "normalizer"] {
        for decoder in [sentencepiece.clone(), Value::Null, json!({"type": "Fuse"})] {
            let tokenizer = tokenizer(place, decoder);
            let ids = tokenizer.encode("a é b", false).unwrap();
            assert_eq!(ids, [0, 3, 4, 5, 3, 1]);
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), "a é b");
        }
    }
    // Gemma and Llama 2 are no such vocabularies, and keep their decoders.
    for metaspace in [true, false] {
        let tokenizer = common::byte_fallback(metaspace);
        let ids = tokenizer.encode("hello é ab", false).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), "hello é ab");
    }
}

#[test]
fn missing_and_damaged_files_are_named() {
    let cases: [(Files<'_>, &str, &str); 8] = [
        (&[], "tokenizer.json", "file not found"),
        (&[("tokenizer.json", "{\"model\": ")], "tokenizer.json", "line 1"),
        (&[("tokenizer.json", "[]")], "tokenizer.json", ""),
        (&[("tokenizer.json", "{}")], "tokenizer.json", "not a usable tokenizer"),
        (
            &[(
                "tokenizer.json",
                r#"{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}"#,
            )],
            "tokenizer.json",
            "",
        ),
        (
            &[(
                "tokenizer.json",
                r#"{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["x y"]}}"#,
            )],
            "tokenizer.json",
            "not a usable tokenizer",
        ),
        (
            &[("tokenizer.json", TOKENIZER), ("tokenizer_config.json", "{")],
            "tokenizer_config.json",
            "not valid JSON",
        ),
        (
            &[("tokenizer.json", TOKENIZER), ("tokenizer_config.json", "[1]")],
            "tokenizer_config.json",
            "a list",
        ),
    ];
    for (files, file, part) in cases {
        let error = load(files).unwrap_err().to_string();
        assert!(error.contains(file) && error.contains(part), "{error}");
    }
    let deep = format!("{{\"model\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(load(&[("tokenizer.json", &deep)]).unwrap_err().to_string().contains("tokenizer.json"));
    let dir = folder(&[]);
    fs::write(dir.path().join("tokenizer.json"), [0xff, 0xfe]).unwrap();
    assert!(Tokenizer::from_dir(dir.path()).unwrap_err().to_string().contains("UTF-8"));
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    fs::create_dir(dir.path().join("tokenizer.json")).unwrap();
    assert!(Tokenizer::from_dir(dir.path()).is_err());
}

/// What a model can do without does not keep it from answering.
#[test]
fn odd_fields_are_left_out_with_a_warning() {
    for (config, field) in [
        (r#"{"eos_token": 5}"#, "eos_token"),
        (r#"{"eos_token": ["</s>"]}"#, "eos_token"),
        (r#"{"bos_token": {"lstrip": true}}"#, "bos_token"),
        (r#"{"extra_special_tokens": [5]}"#, "extra_special_tokens"),
        (r#"{"extra_special_tokens": {"image_token": 5}}"#, "image_token"),
        (r#"{"added_tokens_decoder": [1]}"#, "added_tokens_decoder"),
        (r#"{"added_tokens_decoder": {"x": {"content": "y"}}}"#, "added_tokens_decoder.x"),
        (r#"{"added_tokens_decoder": {"7": "y"}}"#, "added_tokens_decoder.7"),
        (r#"{"add_bos_token": "perhaps"}"#, "add_bos_token"),
    ] {
        let tokenizer = load(&[("tokenizer.json", TOKENIZER), ("tokenizer_config.json", config)]).unwrap();
        let warnings = tokenizer.warnings();
        let expected = format!("tokenizer_config.json: field `{field}`: must ");
        assert!(warnings.len() == 1 && warnings[0].contains(&expected), "{config}: {warnings:?}");
    }
    let nulls = r#"{"eos_token": null, "added_tokens_decoder": null, "extra_special_tokens": null, "add_bos_token": null,
                    "model_max_length": 1000000000000000019884624838656}"#;
    let tokenizer =
        load(&[("tokenizer.json", &format!("\u{feff}{TOKENIZER}")), ("tokenizer_config.json", nulls)])
            .unwrap();
    assert!(tokenizer.warnings().is_empty() && tokenizer.model_max_length().is_none());
}

#[test]
fn huge_files_are_refused_before_they_are_read() {
    let dir = folder(&[("tokenizer.json", TOKENIZER)]);
    for name in ["tokenizer_config.json", "chat_template.jinja"] {
        let path = dir.path().join(name);
        // Sparse: takes no space.
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = match name {
            "tokenizer_config.json" => Tokenizer::from_dir(dir.path()).unwrap_err().to_string(),
            _ => ChatTemplate::from_dir(dir.path()).unwrap().unwrap().warnings()[0].clone(),
        };
        assert!(error.contains(name) && error.contains("1099511627776 bytes"), "{error}");
        fs::remove_file(path).unwrap();
    }
}

fn stop(files: &[(&str, &str)]) -> Result<(Vec<u32>, Vec<String>), TextError> {
    let mut all = vec![("tokenizer.json", TOKENIZER)];
    all.extend_from_slice(files);
    let dir = folder(&all);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let stop = StopTokens::from_dir(dir.path(), &tokenizer)?;
    Ok((stop.iter().collect(), stop.warnings().to_vec()))
}

#[test]
fn stop_tokens_come_from_three_files() {
    let ids = |files: &[(&str, &str)]| stop(files).unwrap().0;
    assert!(ids(&[]).is_empty());
    assert_eq!(ids(&[("config.json", r#"{"eos_token_id": 1}"#)]), [1]);
    assert_eq!(ids(&[("config.json", r#"{"eos_token_id": [1, 2.0]}"#)]), [1, 2]);
    assert_eq!(ids(&[("config.json", r#"{"text_config": {"eos_token_id": [2]}}"#)]), [2]);
    assert_eq!(ids(&[("config.json", r#"{"eos_token_id": null, "text_config": {"eos_token_id": 2}}"#)]), [2]);
    // generation_config.json replaces config.json …
    let both = [
        ("config.json", r#"{"eos_token_id": 1}"#),
        ("generation_config.json", r#"{"eos_token_id": [0, 2]}"#),
    ];
    assert_eq!(ids(&both), [0, 2]);
    // … unless it says nothing.
    for nothing in ["{}", r#"{"eos_token_id": null}"#, r#"{"eos_token_id": []}"#] {
        assert_eq!(
            ids(&[("config.json", r#"{"eos_token_id": 1}"#), ("generation_config.json", nothing)]),
            [1]
        );
    }
    // The tokenizer's own token is always one.
    let tokenizer = load(&[("tokenizer.json", TOKENIZER)]).unwrap();
    let end = tokenizer.token_to_id("</s>").unwrap();
    assert_eq!(ids(&[both[0], both[1], ("tokenizer_config.json", r#"{"eos_token": "</s>"}"#)]), [0, 2, end]);
}

#[test]
fn impossible_stop_tokens_are_reported() {
    let (ids, warnings) =
        stop(&[("generation_config.json", r#"{"eos_token_id": [1, -1, 4000000000, 99999999999999999999]}"#)])
            .unwrap();
    assert_eq!(ids, [1]);
    assert_eq!(warnings.len(), 3);
    assert!(warnings[0].contains("generation_config.json: field `eos_token_id`: -1"), "{warnings:?}");
    for bad in [
        r#"{"eos_token_id": "two"}"#,
        r#"{"eos_token_id": [true]}"#,
        r#"{"eos_token_id": 1.5}"#,
        r#"{"eos_token_id": {}}"#,
    ] {
        let (ids, warnings) = stop(&[("config.json", bad)]).unwrap();
        assert!(ids.is_empty() && warnings[0].contains("config.json: field `eos_token_id`"), "{warnings:?}");
    }
    let (_, warnings) = stop(&[("config.json", r#"{"text_config": {"eos_token_id": "x"}}"#)]).unwrap();
    assert!(warnings[0].contains("text_config.eos_token_id"), "{warnings:?}");
}

/// A published Mistral has a comma too much there.
#[test]
fn a_generation_config_that_cannot_be_read_is_left_out() {
    for text in [r#"{"eos_token_id": 2,}"#, "", "[]", "{\"eos_token_id\": 2"] {
        let files = [("config.json", r#"{"eos_token_id": "1"}"#), ("generation_config.json", text)];
        let (ids, warnings) = stop(&files).unwrap();
        assert_eq!(ids, [1], "{text}");
        assert!(
            warnings[0].contains("generation_config.json: ") && !warnings[0].contains("download"),
            "{warnings:?}"
        );
    }
}

#[test]
fn stop_tokens_can_be_added() {
    let tokenizer = load(&[("tokenizer.json", TOKENIZER)]).unwrap();
    let mut stop = StopTokens::default();
    stop.add_tokens(["<tool>", "0"], &tokenizer).unwrap();
    assert!(stop.contains(tokenizer.token_to_id("<tool>").unwrap()) && stop.contains(0) && stop.len() == 2);
    for unknown in ["<nope>", "4000", "-1"] {
        assert!(matches!(stop.add_tokens([unknown], &tokenizer), Err(TextError::UnknownToken { .. })));
    }
}

fn template(files: &[(&str, &str)]) -> Result<Option<String>, TextError> {
    let dir = folder(files);
    let Some(template) = ChatTemplate::from_dir(dir.path())? else { return Ok(None) };
    let messages = [Message::user("x")];
    let tools = [json!({"type": "function"})];
    let plain = template.render(&RenderInputs::new(&messages))?;
    let with_tools = template.render(&RenderInputs::new(&messages).with_tools(&tools))?;
    Ok(Some(format!("{plain}/{with_tools}")))
}

#[test]
fn templates_are_found_in_order() {
    let jinja = ("chat_template.jinja", "jinja");
    let processor = ("chat_template.json", r#"{"chat_template": "json"}"#);
    let config = ("tokenizer_config.json", r#"{"chat_template": "config"}"#);
    let named = (
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}, {"name": "rag", "template": "{{"}]}"#,
    );
    let find = |files: &[(&str, &str)]| template(files).unwrap();
    assert_eq!(find(&[]), None);
    assert_eq!(find(&[("tokenizer_config.json", "{}")]), None);
    assert_eq!(find(&[("tokenizer_config.json", r#"{"chat_template": null}"#)]), None);
    assert_eq!(find(&[config]).as_deref(), Some("config/config"));
    assert_eq!(find(&[processor]).as_deref(), Some("json/json"));
    assert_eq!(find(&[config, processor]).as_deref(), Some("config/config"));
    assert_eq!(find(&[config, processor, jinja]).as_deref(), Some("jinja/jinja"));
    assert_eq!(find(&[named]).as_deref(), Some("d/t"));
    let object =
        ("tokenizer_config.json", r#"{"chat_template": {"tool_use": "t", "default": "d", "other": 5}}"#);
    assert_eq!(find(&[object]).as_deref(), Some("d/t"));
    let with_tools = ("additional_chat_templates/tool_use.jinja", "more");
    assert_eq!(find(&[jinja, with_tools]).as_deref(), Some("jinja/more"));
    assert_eq!(find(&[config, with_tools]).as_deref(), Some("config/more"));
    assert_eq!(find(&[named, with_tools]).as_deref(), Some("d/more"));
    let alone = ("additional_chat_templates/default.jinja", "alone");
    assert_eq!(find(&[alone]).as_deref(), Some("alone/alone"));
    assert_eq!(find(&[alone, config]).as_deref(), Some("config/config"));
}

/// A place that cannot be read is passed over, and a template with a mistake is an error of whoever renders it.
#[test]
fn damaged_templates_are_passed_over() {
    let processor = ("chat_template.json", r#"{"chat_template": "json"}"#);
    for (text, part) in [
        (r#"{"chat_template": 5}"#, "field `chat_template`: must be a string"),
        (r#"{"chat_template": [{"name": "default"}]}"#, "a name and a template"),
        (r#"{"chat_template": [{"name": "rag", "template": ""}]}"#, "named \"default\""),
        (r#"{"chat_template": {"default": null}}"#, "a name and a template"),
    ] {
        let dir = folder(&[("tokenizer_config.json", text), processor]);
        let template = ChatTemplate::from_dir(dir.path()).unwrap().unwrap();
        assert_eq!(template.source(false), "json");
        let warning = &template.warnings()[0];
        assert!(warning.contains("tokenizer_config.json") && warning.contains(part), "{warning}");
    }
    // Without another one, what was wrong is the error of whoever needs it.
    let alone = ChatTemplate::from_dir(folder(&[("chat_template.json", "{")]).path()).unwrap().unwrap();
    let error = alone.render(&RenderInputs::new(&[Message::user("x")])).unwrap_err().to_string();
    assert!(error.contains("chat_template.json: not valid JSON"), "{error}");
    let dir = folder(&[
        ("tokenizer_config.json", r#"{"chat_template": "fine"}"#),
        ("additional_chat_templates/tool_use.jinja", "a\n{{ 1 +"),
    ]);
    let template = ChatTemplate::from_dir(dir.path()).unwrap().unwrap();
    assert!(template.warnings()[0].contains("tool_use.jinja, line 2: "), "{:?}", template.warnings());
    let (messages, tools) = ([Message::user("x")], [json!({"name": "f"})]);
    let inputs = RenderInputs::new(&messages);
    assert_eq!(template.render(&inputs).unwrap(), "fine");
    let error = template.render(&inputs.with_tools(&tools)).unwrap_err().to_string();
    assert!(error.contains("tool_use.jinja, line 2"), "{error}");
}

/// What a download made leads to the model's own blobs; a link that leads elsewhere was planted. No file of a snapshot is read
/// through one, whichever it is and by whatever path the snapshot was found.
#[cfg(unix)]
#[test]
fn planted_links_of_a_snapshot_are_not_followed() {
    let outside = folder(&[
        ("generation_config.json", r#"{"eos_token_id": 1}"#),
        ("special_tokens_map.json", r#"{"eos_token": "a"}"#),
        ("tokenizer_config.json", r#"{"chat_template": "evil"}"#),
        ("chat_template.jinja", "evil"),
        ("templates/tool_use.jinja", "evil"),
        ("tokenizer.json", TOKENIZER),
    ]);
    let cache = TempDir::new().unwrap();
    let snapshot = cache.path().join("models--acme--m/snapshots/c0ffee");
    let link = |name: &str, to: &str| {
        std::os::unix::fs::symlink(outside.path().join(to), snapshot.join(name)).unwrap()
    };
    let fresh = || {
        let _ = fs::remove_dir_all(cache.path().join("models--acme--m"));
        fs::create_dir_all(&snapshot).unwrap();
        fs::write(snapshot.join("tokenizer.json"), TOKENIZER).unwrap();
    };
    fresh();
    for name in ["generation_config.json", "special_tokens_map.json", "chat_template.jinja"] {
        link(name, name);
    }
    link("additional_chat_templates", "templates");
    let tokenizer = Tokenizer::from_dir(&snapshot).unwrap();
    assert_eq!(tokenizer.eos_token(), None);
    assert!(
        tokenizer.warnings()[0].contains("special_tokens_map.json")
            && tokenizer.warnings()[0].contains("outside")
    );
    let stop = StopTokens::from_dir(&snapshot, &tokenizer).unwrap();
    assert!(
        stop.is_empty() && stop.warnings()[0].contains("outside the model's folder"),
        "{:?}",
        stop.warnings()
    );
    let template = ChatTemplate::from_dir(&snapshot).unwrap().unwrap();
    assert!(template.source(false).is_empty() && template.warnings().len() == 2, "{:?}", template.warnings());
    for name in ["tokenizer_config.json", "tokenizer.json"] {
        fresh();
        fs::remove_file(snapshot.join("tokenizer.json")).unwrap();
        if name != "tokenizer.json" {
            fs::write(snapshot.join("tokenizer.json"), TOKENIZER).unwrap();
        }
        link(name, name);
        let error = Tokenizer::from_dir(&snapshot).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("outside the model's folder"), "{error}");
    }
    // In a folder of one's own every link is meant, and one to nothing is told.
    let own = folder(&[("tokenizer.json", TOKENIZER)]);
    std::os::unix::fs::symlink(
        outside.path().join("tokenizer_config.json"),
        own.path().join("tokenizer_config.json"),
    )
    .unwrap();
    std::os::unix::fs::symlink("/nowhere/x", own.path().join("generation_config.json")).unwrap();
    assert_eq!(ChatTemplate::from_dir(own.path()).unwrap().unwrap().source(false), "evil");
    let stop = StopTokens::from_dir(own.path(), &Tokenizer::from_dir(own.path()).unwrap()).unwrap();
    assert!(stop.warnings()[0].contains("a link to /nowhere/x"), "{:?}", stop.warnings());
}

#[test]
fn a_token_may_be_named_like_a_variable() {
    let template = ChatTemplate::from_source("t", "{{ messages[0].content }}{{ image_token }}").unwrap();
    let tokens = [("messages", "<m>"), ("tools", "<t>"), ("image_token", "<i>")].into_iter().collect();
    let messages = [Message::user("x")];
    let inputs = RenderInputs::new(&messages).with_special_tokens(&tokens);
    assert_eq!(template.render(&inputs).unwrap(), "x<i>");
}

#[test]
fn conversations_that_cannot_be_rendered_are_refused() {
    let template = ChatTemplate::from_source("t", "{{ messages[0].content | trim }}").unwrap();
    assert!(matches!(template.render(&RenderInputs::new(&[])), Err(TextError::InvalidConversation { .. })));
    let messages = [Message::user("x")];
    let inputs = RenderInputs { continue_final_message: true, ..RenderInputs::new(&messages) };
    assert!(matches!(template.render(&inputs), Err(TextError::InvalidConversation { .. })));
    let mut deep = json!(1);
    for _ in 0..500 {
        deep = json!([deep]);
    }
    let inputs = RenderInputs::new(&messages);
    let extra: Map<String, Value> = [("deep".to_owned(), deep.clone())].into_iter().collect();
    assert!(matches!(
        template.render(&inputs.with_extra(&extra)),
        Err(TextError::InvalidConversation { .. })
    ));
    assert!(matches!(
        template.render(&inputs.with_tools(&[deep])),
        Err(TextError::InvalidConversation { .. })
    ));
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["", "</s>", "{{ x }}", "{% for", "default", "content", "é"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "eos_token_id",
        "eos_token",
        "bos_token",
        "text_config",
        "chat_template",
        "content",
        "name",
        "template",
        "add_bos_token",
        "model_max_length",
        "extra_special_tokens",
        "x_token",
        "type",
        "model",
        "decoder",
        "decoders",
        "vocab",
        "added_tokens",
    ])
    .prop_map(str::to_owned)
}

fn object() -> impl Strategy<Value = Value> {
    prop::collection::vec((key(), json_value()), 0..6)
        .prop_map(|entries| Value::Object(entries.into_iter().collect()))
}

fn write(dir: &Path, name: &str, value: &Value) {
    fs::write(dir.join(name), value.to_string()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    /// Whatever stands in the files: a value or an error, never a panic.
    #[test]
    fn random_configurations_never_panic(files in [object(), object(), object(), object()], tokenizer_config in json_value(), mutation in (key(), json_value())) {
        let dir = folder(&[("tokenizer.json", TOKENIZER)]);
        for (name, value) in ["tokenizer_config.json", "generation_config.json", "config.json", "chat_template.json"].iter().zip(&files) {
            write(dir.path(), name, value);
        }
        let _ = ChatTemplate::from_dir(dir.path());
        let _ = Tokenizer::from_dir(dir.path());
        let plain = load(&[("tokenizer.json", TOKENIZER)]).unwrap();
        let _ = StopTokens::from_dir(dir.path(), &plain);
        write(dir.path(), "tokenizer_config.json", &tokenizer_config);
        let _ = Tokenizer::from_dir(dir.path());
        // A tokenizer file with one part replaced.
        let mut tokenizer: Value = serde_json::from_str(TOKENIZER).unwrap();
        tokenizer[mutation.0.as_str()] = mutation.1;
        write(dir.path(), "tokenizer.json", &tokenizer);
        let _ = Tokenizer::from_dir(dir.path());
    }
}
