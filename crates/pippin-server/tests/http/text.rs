use std::time::{Duration, Instant};

use pippin::ModelCache;
use pippin::config::{ConfigInputs, EngineConfig};
use pippin::hub::HubCache;
use pippin::loading::LoadOptions;
use serde_json::json;

use crate::support::{TestServer, options, question, server, server_with};

#[test]
fn text_becomes_tokens_and_back() {
    let server = server();
    let text = "Grüße, world!";
    let asked =
        json!({"model": "pippin-nano", "prompt": text, "add_special_tokens": false, "with_pieces": true});
    let tokens = server.post("/tokenize", &asked).answer();
    assert_eq!(tokens["count"], tokens["tokens"].as_array().expect("a list").len());
    assert_eq!(tokens["token_strs"].as_array().map(Vec::len), tokens["tokens"].as_array().map(Vec::len));
    let back = server.post("/detokenize", &json!({"tokens": tokens["tokens"]})).answer();
    assert_eq!(back["prompt"], text);
    server.post("/detokenize", &json!({"tokens": [4_000_000_000_u32]})).fails(400, Some("tokens"), None);
    server.post("/detokenize", &json!({"tokens": [-1]})).fails(400, Some("tokens"), None);
}

#[test]
fn a_conversation_is_what_its_template_makes_of_it() {
    let server = server();
    let request = question("Hello!");
    let prompt = server.post("/apply-template", &request).answer();
    let prompt = prompt["prompt"].as_str().expect("a text").to_owned();
    assert!(prompt.contains("Hello!"));
    let model = server.cache.get("pippin-nano").expect("loads");
    let expected = model.tokenizer().encode(&prompt, false).expect("tokens");
    let tokens = server.post("/tokenize", &request).answer();
    assert_eq!(tokens["tokens"], json!(expected));
    let answer = server.post("/v1/chat/completions", &request).answer();
    assert_eq!(answer["usage"]["prompt_tokens"], tokens["count"]);
}

#[test]
fn special_tokens_and_the_template_are_told() {
    let info = server().get("/tokenizer_info").answer();
    assert_eq!((&info["eos_token"], &info["bos_token"]), (&json!("<|im_end|>"), &json!(null)));
    assert_eq!(info["model_max_length"], 2048);
    assert!(info["chat_template"].as_str().is_some_and(|text| text.contains("<|im_start|>")));
}

#[test]
fn models_are_listed() {
    let server = server();
    let list = server.get("/v1/models").answer();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], "pippin-nano");
    assert_eq!(server.get("/v1/models/pippin-nano").answer()["object"], "model");
    server.get("/v1/models/no/such").fails(404, Some("model"), Some("model_not_found"));
}

#[test]
fn the_list_says_which_models_are_loaded() {
    let server = server_with(pippin::ModelCache::new(crate::support::options()), |options| options);
    for path in ["/v1/models/pippin-nano", "/v1/models"] {
        let before = server.get(path).answer();
        let model = if before["data"].is_array() { &before["data"][0] } else { &before };
        assert_eq!((&model["status"]["value"], &model["max_model_len"]), (&json!("unloaded"), &json!(null)));
    }
    let lease = server.cache.get("pippin-nano").expect("loads");
    for path in ["/v1/models/pippin-nano", "/v1/models"] {
        let after = server.get(path).answer();
        let model = if after["data"].is_array() { &after["data"][0] } else { &after };
        assert_eq!(model["status"]["value"], "loaded");
        assert_eq!(model["max_model_len"], lease.context());
    }
}

#[test]
fn numbers_are_there_for_prometheus() {
    let server = server();
    server.post("/v1/chat/completions", &question("Hello!")).answer();
    let reply = server.get("/metrics");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let value = |name: &str| -> f64 {
        let line = reply.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {}", reply.body)).parse().expect("a number")
    };
    assert!(value("pippin_generated_tokens_total{model=\"pippin-nano\"}") > 0.0);
    assert!(value("pippin_models_loaded") >= 1.0);
    assert_eq!(value("pippin_answers_under_way"), 0.0);
    assert_eq!(value("vllm:num_requests_waiting{model_name=\"pippin-nano\"}"), 0.0);
    assert!((0.0..=1.0).contains(&value("vllm:kv_cache_usage_perc{model_name=\"pippin-nano\"}")));
    // Every value is of a metric that has been introduced.
    for line in reply.body.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        assert!(reply.body.contains(&format!("# TYPE {name} ")), "{line}");
    }
}

#[test]
fn models_of_the_hub_that_are_here_can_be_named() {
    let root = tempfile::tempdir().expect("a folder");
    let model = root.path().join("models--some--Model");
    let snapshot = model.join("snapshots").join("c0ffee");
    for folder in [&snapshot, &model.join("refs")] {
        std::fs::create_dir_all(folder).expect("created");
    }
    std::fs::write(model.join("refs").join("main"), "c0ffee").expect("written");
    let nano = pippin::hub::resolve("pippin-nano").expect("is there").directory;
    for file in std::fs::read_dir(nano).expect("a folder") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), snapshot.join(file.file_name())).expect("copied");
    }
    let inputs = ConfigInputs::default().with_variable("HF_HUB_CACHE", root.path().to_str().expect("UTF-8"));
    let config = EngineConfig::resolve(&inputs).expect("valid");
    let cache = ModelCache::from_config(&config).expect("a cache");
    let server = server_with(cache, |options| options.with_local_models(HubCache::new(root.path())));
    let list = server.get("/v1/models").answer();
    assert_eq!(
        (&list["data"][0]["id"], &list["data"][1]["id"]),
        (&json!("pippin-nano"), &json!("some/Model"))
    );
    for name in ["some/Model", "SOME/model", "some/Model@main"] {
        assert_eq!(server.get(&format!("/v1/models/{name}")).answer()["id"], name);
        let mut request = question("Hello!");
        request["model"] = json!(name);
        assert_eq!(server.post("/v1/chat/completions", &request).answer()["model"], name);
    }
    server.get("/v1/models/some/other").fails(404, Some("model"), Some("model_not_found"));
}

#[test]
fn the_numbers_of_prefixes_on_disk_can_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let load = LoadOptions::default().with_prefix_cache(folder.path().to_owned());
    let serve = || server_with(ModelCache::new(options().with_load(load.clone())), |options| options);
    let numbers = |server: &TestServer| {
        let page = server.get("/metrics").body;
        let number = |name: &str| -> u64 {
            let name = format!("pippin_prefix_cache_{name}_total{{model=\"pippin-nano\"}} ");
            let line = page.lines().find_map(|line| line.strip_prefix(&name));
            line.unwrap_or_else(|| panic!("{name} {page}")).parse().expect("a number")
        };
        [
            "hits",
            "misses",
            "entries_read",
            "read_bytes",
            "entries_written",
            "written_bytes",
            "read_failures",
            "write_failures",
        ]
        .map(number)
    };
    let request = question(&"A long text that begins in the same way. ".repeat(20));
    let first = serve();
    let answer = first.post("/v1/chat/completions", &request).answer();
    // It is written when the answer has been given.
    let begin = Instant::now();
    while numbers(&first)[4] < 2 {
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", numbers(&first));
        std::thread::sleep(Duration::from_millis(10));
    }
    let [hits, misses, read, read_bytes, written, bytes, not_read, not_written] = numbers(&first);
    assert_eq!([hits, misses, read, read_bytes, not_read, not_written], [0, 1, 0, 0, 0, 0]);
    assert!(bytes > written * 1000);
    first.cache.unload("pippin-nano").expect("unloads");
    drop(first);
    let second = serve();
    assert_eq!(second.post("/v1/chat/completions", &request).answer()["choices"], answer["choices"]);
    let [hits, misses, read, read_bytes, _, _, not_read, not_written] = numbers(&second);
    assert_eq!([hits, misses, not_read, not_written], [1, 0, 0, 0]);
    assert!(read >= 2 && read_bytes > read * 1000);
    // What is damaged is a failure of the disk, and none of the answer.
    second.cache.unload("pippin-nano").expect("unloads");
    drop(second);
    let own =
        std::fs::read_dir(folder.path()).expect("a folder").next().expect("one").expect("an entry").path();
    for entry in std::fs::read_dir(own).expect("a folder") {
        std::fs::write(entry.expect("an entry").path(), "damaged").expect("written");
    }
    let third = serve();
    assert_eq!(third.post("/v1/chat/completions", &request).answer()["choices"], answer["choices"]);
    let [hits, misses, _, _, _, _, not_read, not_written] = numbers(&third);
    assert_eq!([hits, misses, not_written], [0, 1, 0]);
    assert!(not_read > 0);
}
