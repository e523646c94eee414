//! Answers.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{TinyModel, pippin, pippin_with, program};

#[test]
fn a_question_is_answered_on_standard_output_alone() {
    let outcome = pippin(&["run", "What is 17 plus 25?", "--temp", "0"]);
    assert_eq!(outcome.stderr, "");
    let answer = outcome.answer();
    assert!(answer.contains("42"), "{answer}");
    assert!(answer.ends_with('\n') && !answer.ends_with("\n\n"), "{answer:?}");
    assert!(!answer.contains("<|"), "{answer}");
}

#[test]
fn statistics_go_to_standard_error() {
    let plain = pippin(&["run", "pippin-nano", "Hello", "--temp", "0"]).answer();
    let outcome = pippin(&["-v", "run", "pippin-nano", "Hello", "--temp", "0", "--stats"]);
    for part in ["loading pippin-nano", "prompt ", "tokens/s", "first token", "finish reason  stop"] {
        assert!(outcome.stderr.contains(part), "{part}: {outcome:?}");
    }
    assert_eq!(outcome.answer(), plain);
}

#[test]
fn piped_input_joins_the_prompt() {
    let tokens = |arguments: &[&str], input: &[u8]| {
        let arguments: Vec<&str> =
            ["run", "--json", "--max-tokens", "1"].iter().chain(arguments).copied().collect();
        pippin_with(&arguments, input).json()["usage"]["prompt_tokens"].as_u64().expect("a number")
    };
    assert_eq!(tokens(&[], b"one two\n"), tokens(&["one two"], b""));
    assert_eq!(tokens(&["one"], b"two\r\n"), tokens(&["one\n\ntwo"], b""));
    assert_eq!(tokens(&["pippin-nano", "one"], b"two"), tokens(&["one\n\ntwo"], b""));
    // A raw prompt is taken as it stands.
    let model = TinyModel::new();
    let folder = model.write();
    assert_eq!(tokens(&[folder, "--raw"], b"one\n"), 4);
    assert_eq!(tokens(&[folder, "--raw", "one"], b"two\n"), 9);
    assert_eq!(tokens(&[folder, "--raw"], b"nul\0"), 4);
}

#[test]
fn a_folder_of_prefixes_outlives_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("kept").display().to_string();
    let question = "Tell me about a fox, a river and a tree. ".repeat(6);
    let ask = || {
        let arguments =
            ["run", &question, "--temp", "0", "--max-tokens", "8", "--json", "--prefix-cache", &kept];
        pippin(&arguments).json()
    };
    let (first, second) = (ask(), ask());
    assert_eq!(first["usage"]["cached_tokens"], 0);
    assert!(second["usage"]["cached_tokens"].as_u64() >= Some(32), "{second}");
    assert_eq!(first["text"], second["text"]);
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    let file = file.display().to_string();
    pippin(&["run", "Hello", "--prefix-cache", &file]).fails(2, &["cannot keep prefixes in", &file]);
    pippin(&["run", "Hello", "--prefix-cache-size", "10%"]).fails(2, &["--prefix-cache-size", "20 GB"]);
}

#[test]
fn json_holds_text_and_numbers() {
    let answer = pippin(&["run", "What is 17 plus 25?", "--temp", "0", "--json"]).json();
    assert!(answer["text"].as_str().is_some_and(|text| text.contains("42")));
    assert_eq!(answer["finish_reason"], "stop");
    assert_eq!(answer["model"], "pippin-nano");
    for name in ["prompt_tokens", "generated_tokens"] {
        assert!(answer["usage"][name].as_u64() > Some(0), "{name}");
    }
    assert_eq!(answer["usage"]["cached_tokens"], 0);
    for name in ["load_s", "time_to_first_token_s", "prefill_tokens_per_second", "decode_tokens_per_second"] {
        assert!(answer["timings"][name].as_f64() > Some(0.0), "{name}");
    }
    if cfg!(target_os = "linux") {
        assert!(answer["peak_memory_bytes"].as_u64() > Some(1_000_000));
    }
    let cut = pippin(&["run", "Tell me a story.", "--max-tokens", "2", "--json"]).json();
    assert_eq!((&cut["finish_reason"], &cut["usage"]["generated_tokens"]), (&"length".into(), &2.into()));
}

#[test]
fn a_seed_fixes_the_answer() {
    let story = |seed: &str| {
        pippin(&["run", "Tell me a story.", "--temp", "1.5", "--max-tokens", "40", "--seed", seed]).answer()
    };
    assert_eq!(story("7"), story("7"));
    assert_ne!(story("7"), story("8"));
}

#[test]
fn stop_strings_end_the_answer() {
    let whole = pippin(&["run", "What is 17 plus 25?", "--temp", "0"]).answer();
    let (before, _) = whole.split_once("42").expect("the answer");
    let stopped = pippin(&["run", "What is 17 plus 25?", "--temp", "0", "--stop", "42", "--json"]).json();
    assert_eq!(stopped["text"], before);
    assert_eq!((&stopped["finish_reason"], &stopped["stop_string"]), (&"stop".into(), &"42".into()));
}

#[test]
fn instructions_messages_and_tools_reach_the_template() {
    let mut model = TinyModel::new();
    model.tokenizer_config["chat_template"] =
        "{% for m in messages %}{{ m.role }}{% endfor %}{% if tools %}tools{% endif %}\
         {% if extra is defined %}extra{% endif %}"
            .into();
    let folder = model.write();
    let messages = model.file("messages.json");
    std::fs::write(&messages, r#"[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]"#)
        .expect("written");
    let tools = model.file("tools.json");
    std::fs::write(&tools, r#"[{"type": "function", "function": {"name": "f"}}]"#).expect("written");
    let (messages, tools) = (messages.to_str().expect("UTF-8"), tools.to_str().expect("UTF-8"));
    for (arguments, prompt) in [
        (&["hi"][..], "user"),
        (&["hi", "--system", "x"], "systemuser"),
        (&["hi", "--system", ""], "user"),
        (&["--messages", messages], "userassistant"),
        (&["--messages", messages, "hi"], "userassistantuser"),
        (&["hi", "--tools", tools], "usertools"),
        (&["hi", "--template-args", r#"{"extra": true}"#], "userextra"),
    ] {
        let arguments: Vec<&str> =
            ["run", folder, "--json", "--max-tokens", "1"].iter().chain(arguments).copied().collect();
        assert_eq!(pippin(&arguments).json()["usage"]["prompt_tokens"], prompt.len(), "{arguments:?}");
    }
}

#[test]
fn calls_and_thoughts_stand_beside_the_text() {
    let mut model = TinyModel::new();
    // Each token is a whole answer.
    let answer = |id: u32| {
        format!(
            "<think>hm</think>Hello<tool_call>{{\"name\":\"f\",\"arguments\":{{\"x\":{id}}}}}</tool_call>"
        )
    };
    let mut vocab: serde_json::Map<String, serde_json::Value> =
        (0..256).map(|id| (answer(id), json!(id))).collect();
    vocab.insert("[UNK]".to_owned(), json!(256));
    model.tokenizer = json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    });
    model.tokenizer_config["chat_template"] =
        "{# <think></think><tool_call> #}{% for m in messages %}{{ m.content }} {% endfor %}{{ tools }}"
            .into();
    let folder = model.write();
    let tools = model.file("tools.json");
    std::fs::write(&tools, r#"[{"type": "function", "function": {"name": "f"}}]"#).expect("written");
    let tools = tools.to_str().expect("UTF-8");
    let run = ["run", folder, "hi", "--temp", "0", "--max-tokens", "1"];

    let plain = pippin(&run).answer();
    assert!(plain.starts_with("<think>hm</think>Hello<tool_call>"), "{plain}");
    let shown = pippin(&[&run[..], &["--tools", tools]].concat()).answer();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "Hello"), "{shown}");
    let call: serde_json::Value = serde_json::from_str(lines[1]).expect("JSON");
    assert_eq!(call["name"], "f");
    assert!(call["arguments"]["x"].is_u64(), "{shown}");

    let json = pippin(&[&run[..], &["--tools", tools, "--json"]].concat()).json();
    let batch = pippin_with(
        &["run", folder, "--batch", "-", "--temp", "0"],
        b"{\"prompt\": \"hi\", \"max_tokens\": 1}\n",
    );
    for json in [json, batch.json()] {
        assert!(
            json["text"].as_str().is_some_and(|text| text.starts_with("<think>hm</think>Hello")),
            "{json}"
        );
        assert_eq!((&json["content"], &json["reasoning_content"]), (&"Hello".into(), &"hm".into()));
        let call = &json["tool_calls"][0];
        assert_eq!((&call["type"], &call["function"]["name"]), (&"function".into(), &"f".into()));
        assert!(call["id"].is_string());
        assert!(
            call["function"]["arguments"].as_str().is_some_and(|text| text.starts_with("{\"x\":")),
            "{json}"
        );
    }
}

#[test]
fn models_without_a_template_complete() {
    let mut model = TinyModel::new();
    model.tokenizer_config = json!({});
    let folder = model.write();
    pippin(&["run", folder, "hi"]).fails(5, &["no chat template"]).hints("--raw");
    pippin(&["run", folder, "hi", "--raw", "--max-tokens", "3"]).answer();
}

#[test]
fn prompts_must_fit_the_context() {
    let outcome = pippin(&["run", &"word ".repeat(5000)]);
    outcome.fails(5, &["the prompt has", "context holds 2048"]).hints("context");
    let model = TinyModel::new();
    pippin(&["run", model.write(), "--raw", "--context", "8", "12345678"]).fails(5, &["8 tokens"]);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let model = TinyModel::new();
    let mut child = program()
        .args(["run", model.write(), "--raw", "x"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn every_line_of_a_batch_is_answered_in_order() {
    let questions = [("What is 17 plus 25?", "42"), ("What is the capital of France?", "Paris")];
    let mut input = String::new();
    for index in 0..60 {
        input.push_str(&json!({"prompt": questions[index % 2].0}).to_string());
        input.push_str("\n\n");
    }
    let outcome = pippin_with(&["run", "--batch", "-", "--temp", "0", "--stats"], input.as_bytes());
    assert!(outcome.stderr.contains("requests       60"), "{outcome:?}");
    let lines: Vec<Value> =
        outcome.answer().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 60);
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["index"], index);
        assert!(line["text"].as_str().is_some_and(|text| text.contains(questions[index % 2].1)), "{line}");
        assert_eq!(line["finish_reason"], "stop");
        assert!(line["prompt_tokens"].as_u64() > Some(0) && line["generated_tokens"].as_u64() > Some(0));
    }
    let alone = pippin(&["run", questions[0].0, "--temp", "0"]).answer();
    assert_eq!(lines[58]["text"], alone.trim_end());
}

#[test]
fn bad_lines_of_a_batch_spoil_nothing_but_the_exit_code() {
    let input = b"{\"prompt\": \"Hello\", \"max_tokens\": 2}\nnonsense\n\xff\n{\"messages\": []}\n{\"prompt\": \"Hello\"}";
    let outcome = pippin_with(&["run", "--batch", "-"], input);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("error: 3 of 5 requests failed"), "{outcome:?}");
    let lines: Vec<Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let failed: Vec<bool> = lines.iter().map(|line| line.get("error").is_some()).collect();
    assert_eq!(failed, [false, true, true, true, false]);
    assert_eq!(lines[0]["generated_tokens"], 2);
    assert!(lines.iter().enumerate().all(|(index, line)| line["index"] == index));
}

#[test]
fn a_batch_answers_while_lines_still_come() {
    let mut child = program()
        .args(["run", "--batch", "-", "--max-tokens", "2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut input = child.stdin.take().expect("piped");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    for index in 0..3 {
        input.write_all(b"{\"prompt\": \"Hello\"}\n").expect("written");
        let mut line = String::new();
        output.read_line(&mut line).expect("answered");
        let line: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(line["index"], index);
    }
    drop(input);
    assert!(child.wait().expect("ends").success());
}

#[test]
fn an_answer_has_the_form_that_is_asked_for() {
    let answer = |arguments: &[&str]| {
        let common = ["run", "What is 17 plus 25?", "--temp", "0", "--max-tokens", "120"];
        pippin(&[&common[..], arguments].concat()).answer().trim_end_matches('\n').to_owned()
    };
    let texts = ["red, or green", "a plum"];
    assert!(texts.contains(&answer(&["--choice", texts[0], "--choice", texts[1]]).as_str()));
    let number = answer(&["--regex", "[0-9]{2}"]);
    assert!(number.len() == 2 && number.parse::<u8>().is_ok(), "{number}");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("schema.json");
    let schema = json!({"type": "object", "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 999}},
        "required": ["sum"], "additionalProperties": false});
    std::fs::write(&file, schema.to_string()).expect("written");
    let file = file.to_str().expect("a name");
    let document: Value = serde_json::from_str(&answer(&["--schema", file])).expect("JSON");
    assert!(document["sum"].is_number(), "{document}");

    std::fs::write(file, json!({"properties": {"a": {"not": {}}}}).to_string()).expect("written");
    let outcome = pippin(&["run", "x", "--schema", file]);
    assert_eq!(outcome.code, Some(5), "{outcome:?}");
    assert!(outcome.stderr.contains("#/properties/a/not") && outcome.stdout.is_empty(), "{outcome:?}");
    let outcome = pippin(&["run", "x", "--json-object", "--regex", "a"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
}

#[test]
fn guesses_change_no_answer() {
    let text = "Once upon a time there was a fox who lived near a river. ".repeat(4);
    let ask = |flags: &[&str]| {
        let base = ["run", "--raw", "--temp", "0", "--max-tokens", "40", "--json", "pippin-nano", &text];
        pippin(&[&base[..], flags].concat()).json()
    };
    let expected = ask(&[]);
    assert_eq!(expected["usage"]["drafted_tokens"], 0);
    for flags in [&["--prompt-lookup"][..], &["--prompt-lookup=3"], &["--draft-model", "pippin-nano"]] {
        let answer = ask(flags);
        assert_eq!(answer["text"], expected["text"], "{flags:?}");
        assert!(answer["usage"]["drafted_tokens"].as_u64() > Some(0), "{flags:?}");
        assert!(answer["usage"]["accepted_tokens"].as_u64() <= answer["usage"]["drafted_tokens"].as_u64());
    }
    // What cannot guess is refused before anything is asked.
    let other = TinyModel::new();
    pippin(&["run", "--draft-model", other.write(), "pippin-nano", "Hello!"])
        .fails(4, &["cannot be the draft model", "its vocabulary is another one"])
        .hints("--prompt-lookup");
}
