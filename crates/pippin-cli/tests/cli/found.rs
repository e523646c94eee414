//! What users ran into elsewhere: models and inputs as they are found, which work or are refused in plain words.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use serde_json::json;

use crate::support::{Outcome, TinyModel, finish, pippin, pippin_with, program};

#[track_caller]
fn answers(outcome: &Outcome) {
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

fn run(model: &TinyModel, prompt: &str) -> Outcome {
    pippin(&["run", model.write(), prompt, "--max-tokens", "4", "--json"])
}

#[test]
fn an_optional_file_that_cannot_be_read_is_a_warning() {
    let model = TinyModel::new();
    let folder = model.write();
    fs::write(model.file("generation_config.json"), "{\"eos_token_id\": 2,\n}").expect("written");
    let outcome = pippin(&["run", folder, "hello", "--max-tokens", "4"]);
    answers(&outcome);
    assert!(
        outcome.stderr.contains("warning: ")
            && outcome.stderr.contains("generation_config.json: not valid JSON")
    );
    assert!(pippin(&["show", folder]).stderr.contains("generation_config.json"));
}

/// A stray `[PAD]` of a fine-tune, or the tokenizer of a larger sibling.
#[test]
fn a_tokenizer_may_have_more_tokens_than_the_model() {
    let mut model = TinyModel::new();
    let pad = json!({"id": 257, "content": "[PAD]", "special": true, "single_word": false, "lstrip": false,
                     "rstrip": false, "normalized": false});
    model.tokenizer["added_tokens"].as_array_mut().expect("a list").push(pad);
    model.tokenizer_config["pad_token"] = "[PAD]".into();
    let outcome = run(&model, "hello");
    answers(&outcome);
    assert!(outcome.stderr.contains("warning: the tokenizer has 258 tokens, the model 257"), "{outcome:?}");
    run(&model, "hello [PAD]")
        .fails(5, &["token id 257 (\"[PAD]\")", "vocabulary"])
        .hints("leave this one out");
}

#[test]
fn numbers_that_are_not_finite_end_the_answer() {
    let mut model = TinyModel::new();
    model.spoiled = Some("model.layers.0.self_attn.q_proj.weight");
    let folder = model.write();
    for flags in [&[][..], &["--exact"]] {
        pippin(&[&["run", folder, "hello", "--max-tokens", "4", "--json"], flags].concat())
            .fails(1, &["logits without a finite maximum"]);
    }
}

/// Eleven seconds and two gigabytes went into the tokens of one that no context could hold.
#[test]
fn a_prompt_that_no_context_can_hold_is_refused_by_its_size() {
    let text = "word ".repeat(3 << 20);
    pippin_with(&["run", "--max-tokens", "1"], text.as_bytes())
        .fails(5, &["bytes, at least ", "the context holds"])
        .hints("shorten");
}

#[test]
fn minus_one_and_null_mean_what_they_mean_elsewhere() {
    let model = TinyModel::new();
    let folder = model.write();
    let flags = ["--top-k", "-1", "--seed", "-1", "--max-tokens", "-1", "--stop", "\n"];
    answers(&pippin(&[&["run", folder, "hello"], &flags[..]].concat()));
    let line = r#"{"prompt": "hello", "max_tokens": 3, "temperature": null, "template_args": null, "tools": null, "seed": -1}"#;
    let outcome = pippin_with(&["run", folder, "--batch", "-"], line.as_bytes());
    answers(&outcome);
    assert_eq!(outcome.json()["generated_tokens"], 3);
}

#[test]
fn input_may_begin_with_a_mark() {
    let model = TinyModel::new();
    let folder = model.write();
    let tokens = |arguments: &[&str], input: &[u8]| {
        let arguments = [&["run", folder, "--json", "--max-tokens", "1"], arguments].concat();
        pippin_with(&arguments, input).json()["usage"]["prompt_tokens"].as_u64().expect("a number")
    };
    assert_eq!(tokens(&["--raw"], b"\xef\xbb\xbfhello"), 5);
    assert_eq!(tokens(&["--raw"], b"\xff\xfeh\0e\0l\0l\0o\0"), 5);
    let messages = model.file("messages.json");
    fs::write(&messages, "\u{feff}[{\"role\": \"user\", \"content\": \"hello\"}]").expect("written");
    let plain = tokens(&["hello"], b"");
    assert_eq!(tokens(&["--messages", messages.to_str().expect("UTF-8")], b""), plain);
    // Python writes the half of a character where a text was cut; it is read as Python reads it.
    let line = br#"{"prompt": "cut \ud83e", "max_tokens": 1}"#;
    answers(&pippin_with(&["run", folder, "--batch", "-"], line));
}

#[test]
fn whoever_waits_for_standard_input_is_told() {
    let model = TinyModel::new();
    let mut child = program()
        .args(["run", model.write(), "hello", "--max-tokens", "2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("a line");
    assert!(line.contains("reading standard input") && line.contains("< /dev/null"), "{line:?}");
    stdin.write_all(b" world").expect("still read");
    drop(stdin);
    let mut answer = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut answer).expect("UTF-8");
    assert!(child.wait().expect("ends").success() && answer.ends_with('\n'));
    // What ends at once needs no word.
    assert_eq!(pippin_with(&["run", model.write(), "hello", "--max-tokens", "2"], b"").stderr, "");
}

/// A service's user has no home, or one that it may not look into; here a file stands in its place.
#[test]
fn a_home_out_of_reach_is_no_configuration() {
    let model = TinyModel::new();
    let folder = model.write();
    let home = model.file("home");
    fs::write(&home, "").expect("written");
    let mut command = program();
    command.args(["run", folder, "hello", "--max-tokens", "2"]).env("HOME", &home);
    for name in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "HF_HUB_CACHE"] {
        command.env_remove(name);
    }
    answers(&finish(&mut command, b""));
    // One that is named has to be there.
    let named = home.join("config.toml");
    command.env("PIPPIN_CONFIG", &named);
    finish(&mut command, b"").fails(2, &["config.toml"]);
}

#[test]
fn tools_that_a_template_does_not_show_are_told_of() {
    let model = TinyModel::new();
    let folder = model.write();
    let tools = model.file("tools.json");
    fs::write(&tools, r#"[{"type": "function", "function": {"name": "f"}}]"#).expect("written");
    let tools = tools.to_str().expect("UTF-8");
    let outcome = pippin(&["run", folder, "hello", "--tools", tools, "--max-tokens", "2"]);
    answers(&outcome);
    assert!(outcome.stderr.contains("no place for tools"), "{outcome:?}");
    assert!(!pippin(&["run", "hello", "--tools", tools, "--max-tokens", "2"]).stderr.contains("tools"));
}

#[test]
fn parts_of_messages_are_not_lost() {
    let model = TinyModel::new();
    let folder = model.write();
    let run = |content: serde_json::Value| {
        let line = json!({"messages": [{"role": "user", "content": content}], "max_tokens": 1}).to_string();
        pippin_with(&["run", folder, "--batch", "-"], line.as_bytes()).stdout
    };
    let tokens = |content| {
        let line: serde_json::Value = serde_json::from_str(&run(content)).expect("JSON");
        line["prompt_tokens"].as_u64()
    };
    let plain = tokens(json!("hello"));
    assert!(plain.is_some());
    for kind in ["text", "input_text", "output_text"] {
        assert_eq!(tokens(json!([{"type": kind, "text": "hello"}])), plain, "{kind}");
    }
    let picture =
        json!([{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": "data:,"}}]);
    let refused = run(picture);
    assert!(refused.contains("messages[0].content[1]") && refused.contains("image_url"), "{refused}");
    assert!(run(json!(5)).contains("messages[0].content"), "{}", run(json!(5)));
}

#[test]
fn the_prompt_and_its_tokens_can_be_seen() {
    let model = TinyModel::new();
    let folder = model.write();
    let bare = pippin(&["tokenize", folder, "hé"]).answer();
    assert!(bare.contains("104  \"h\"") && bare.ends_with("3 tokens\n"), "{bare}");
    let chat = pippin(&["tokenize", folder, "hello", "--chat"]).answer();
    assert!(chat.starts_with("user: hello\nassistant: \n"), "{chat}");
    let listing = pippin(&["tokenize", folder, "hello", "--system", "be brief", "--json"]).json();
    assert_eq!(listing["prompt"], "system: be brief\nuser: hello\nassistant: ");
    assert_eq!(listing["count"].as_u64(), listing["tokens"].as_array().map(|tokens| tokens.len() as u64));
    assert_eq!(listing["tokens"][0], json!({"id": 115, "token": "s", "text": "s", "special": false}));
    assert_eq!(pippin_with(&["tokenize", folder], b"hello").answer().lines().last(), Some("5 tokens"));
    pippin(&["tokenize", folder, "x", "--chat", "--no-special"]).fails(2, &["--no-special"]);

    let answer =
        pippin(&["run", folder, "hello", "--json", "--tokens", "--logprobs", "--max-tokens", "3"]).json();
    assert_eq!(answer["prompt"], "user: hello\nassistant: ");
    assert_eq!(answer["prompt_token_ids"].as_array().map(Vec::len), Some(23));
    let tokens = answer["tokens"].as_array().expect("a list");
    assert_eq!(tokens.len(), 3);
    assert!(tokens.iter().all(|token| token["logprob"].as_f64() < Some(0.0) && token["id"].is_u64()));
    assert!(tokens.iter().all(|token| token.get("top_logprobs").is_none()));
    let flags = ["--json", "--temp", "0", "--top-logprobs", "2", "--max-tokens", "3"];
    let answer = pippin(&[&["run", folder, "hello"], &flags[..]].concat()).json();
    for token in answer["tokens"].as_array().expect("a list") {
        let top = token["top_logprobs"].as_array().expect("a list");
        assert_eq!((top.len(), &top[0]["id"], &top[0]["logprob"]), (2, &token["id"], &token["logprob"]));
        assert!(top[0]["logprob"].as_f64() >= top[1]["logprob"].as_f64() && top[1]["token"].is_string());
    }
    pippin(&["run", folder, "hello", "--top-logprobs", "2"]).fails(2, &["--top-logprobs needs --json"]);
    pippin(&["run", folder, "hello", "--json", "--top-logprobs", "21"]).fails(2, &["--top-logprobs"]);
    let end = answer["tokens"][0]["id"].to_string();
    let flags = ["--json", "--temp", "0", "--stop-token-id", &end, "--max-tokens", "3"];
    let ended = pippin(&[&["run", folder, "hello"], &flags[..]].concat()).json();
    assert_eq!((ended["text"].as_str(), ended["finish_reason"].as_str()), (Some(""), Some("stop")));
    let flags = ["--json", "--ignore-eos", "--min-tokens", "4", "--max-tokens", "3"];
    pippin(&[&["run", folder, "hello"], &flags[..]].concat()).fails(2, &["--min-tokens is 4"]);
    let plain = pippin(&["run", folder, "hello", "--json", "--max-tokens", "3"]).json();
    assert!(plain.get("tokens").is_none() && plain.get("prompt").is_none());
    pippin(&["run", folder, "hello", "--tokens"]).fails(2, &["--tokens needs --json"]);
    let line = br#"{"prompt": "hello", "max_tokens": 2}"#;
    let line = pippin_with(&["run", folder, "--batch", "-", "--logprobs"], line).json();
    assert_eq!(line["tokens"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_message_can_be_continued() {
    let mut model = TinyModel::new();
    model.tokenizer_config["chat_template"] =
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<end>\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}".into();
    let folder = model.write();
    let messages = model.file("messages.json");
    let conversation =
        json!([{"role": "user", "content": "Count."}, {"role": "assistant", "content": "One, two"}]);
    fs::write(&messages, conversation.to_string()).expect("written");
    let messages = messages.to_str().expect("UTF-8");
    let prompt = |flags: &[&str]| {
        let outcome =
            pippin(&[&["tokenize", folder, "--messages", messages, "--json"], flags].concat()).json();
        outcome["prompt"].as_str().expect("a prompt").to_owned()
    };
    let whole = "user: Count.<end>\nassistant: One, two<end>\n";
    assert_eq!(prompt(&[]), format!("{whole}assistant: "));
    assert_eq!(prompt(&["--no-generation-prompt"]), whole);
    assert_eq!(prompt(&["--continue"]), "user: Count.<end>\nassistant: One, two");
    let run =
        ["run", folder, "--messages", messages, "--continue", "--json", "--tokens", "--max-tokens", "1"];
    assert_eq!(pippin(&run).json()["prompt"], "user: Count.<end>\nassistant: One, two");
    pippin(&["run", folder, "--continue", "--no-generation-prompt", "x"]).fails(2, &["--continue"]);
}

#[test]
fn a_template_with_a_mistake_is_told_of() {
    let mut model = TinyModel::new();
    model.tokenizer_config["chat_template"] = "{{ messages[0".into();
    let folder = model.write();
    let shown = pippin(&["show", folder]);
    assert!(
        shown.stdout.contains("cannot be used")
            && shown.stderr.contains("tokenizer_config.json: chat_template")
    );
    answers(&pippin(&["run", folder, "--raw", "hello", "--max-tokens", "2"]));
    pippin(&["run", folder, "hello"]).fails(5, &["tokenizer_config.json: chat_template", "line 1"]);
}

#[test]
fn show_says_how_all_weights_are_stored() {
    let text = pippin(&["show", "pippin-nano"]).answer();
    let line = text.lines().find(|line| line.contains("quantization")).expect("a line");
    assert!(line.contains("4-bit affine"), "{line}");
    let stored = pippin(&["show", "pippin-nano", "--json"]).json();
    let total: u64 =
        stored["stored"].as_array().expect("a list").iter().filter_map(|kind| kind["weights"].as_u64()).sum();
    assert!(total > 12_000_000, "{total}");
}
