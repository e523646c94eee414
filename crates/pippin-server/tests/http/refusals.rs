use pippin_server::Limits;
use serde_json::{Value, json};

use crate::support::{Connection, cache, endless, question, server, server_with};

const CHAT: &str = "/v1/chat/completions";
const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/pippin-nano-4bit");

#[test]
fn fields_that_cannot_be_are_named() {
    let server = server();
    let long_stop: Vec<String> = (0..17).map(|number| format!("stop {number}")).collect();
    let biases: serde_json::Map<String, Value> =
        (0..1025).map(|token| (token.to_string(), json!(1))).collect();
    for (field, value) in [
        ("temperature", json!(-0.1)),
        ("temperature", json!("hot")),
        ("temperature", json!(1e300)),
        ("top_p", json!(1.5)),
        ("top_k", json!(-2)),
        ("min_p", json!(2)),
        ("xtc_threshold", json!(0.7)),
        ("repetition_penalty", json!(-1)),
        ("presence_penalty", json!(true)),
        ("frequency_context_size", json!(-1)),
        ("max_tokens", json!(0)),
        ("max_completion_tokens", json!(1.5)),
        ("seed", json!(0.5)),
        ("stop", json!(7)),
        ("stop", json!("")),
        ("stop", json!(long_stop)),
        ("n", json!(0)),
        ("n", json!(65)),
        ("logprobs", json!(1)),
        ("top_logprobs", json!(3)),
        ("top_logprobs", json!(21)),
        ("min_tokens", json!(13)),
        ("ignore_eos", json!("yes")),
        ("stop_token_ids", json!([4_000_000_000_u32])),
        ("stop_token_ids", json!([-1])),
        ("logit_bias", json!({"x": 1})),
        ("logit_bias", json!({"1": 101})),
        ("logit_bias", json!({"4000000000": 1})),
        ("logit_bias", Value::Object(biases)),
        ("stream", json!("yes")),
        ("stream_options", json!({"include_usage": true})),
        ("model", json!(7)),
        ("messages", json!([])),
        ("messages", json!("Hello!")),
        ("messages", json!([{"content": "Hello!"}])),
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]),
        ),
        ("messages", json!(vec![json!({"role": "user", "content": "x"}); 4097])),
        ("chat_template_kwargs", json!([])),
        ("continue_final_message", json!(true)),
    ] {
        let mut request = question("Hello!");
        request[field] = value.clone();
        server.post(CHAT, &request).fails(400, Some(field), None);
    }
    let mut request = question("Hello!");
    request["chat_template_kwargs"] = json!({"messages": []});
    assert_eq!(server.post(CHAT, &request).status, 400);
}

#[test]
fn what_is_not_supported_is_named() {
    let server = server();
    for (field, value) in [("functions", json!([{"name": "f"}])), ("audio", json!({"voice": "alloy"}))] {
        let mut request = question("Hello!");
        request[field] = value;
        server.post(CHAT, &request).fails(400, Some(field), Some("unsupported_parameter"));
    }
}

#[test]
fn prompts_of_completions_are_checked() {
    let server = server();
    for prompt in [
        json!(null),
        json!([]),
        json!(7),
        json!({}),
        json!([["x"]]),
        json!([1, "x"]),
        json!([-1]),
        json!([1.5]),
    ] {
        server.post("/v1/completions", &json!({"prompt": prompt})).fails(400, Some("prompt"), None);
    }
    server.post("/v1/completions", &json!({"prompt": vec!["x"; 65]})).fails(400, Some("prompt"), None);
    server.post("/v1/completions", &json!({"prompt": "x", "logprobs": 21})).fails(
        400,
        Some("logprobs"),
        None,
    );
    server.post("/v1/completions", &json!({"prompt": "x", "suffix": "y"})).fails(
        400,
        Some("suffix"),
        Some("unsupported_parameter"),
    );
    assert_eq!(server.post("/v1/completions", &json!({"prompt": [4_000_000_000_u32]})).status, 400);
}

#[test]
fn bodies_that_are_no_objects() {
    let server = server();
    let deep = format!("{{\"messages\": {}", "[".repeat(50_000));
    for body in ["", "{", "[]", "7", "nonsense", "{\"temperature\": NaN}", &deep] {
        server.send("POST", CHAT, &[], body.as_bytes()).fails(400, None, None);
    }
    server.send("POST", CHAT, &[], b"\xff\xfe").fails(400, None, None);
}

#[test]
fn models_that_are_not_to_be_had() {
    let server = server_with(cache(), |options| {
        options.with_local_models(pippin::hub::HubCache::new(std::env::temp_dir()))
    });
    let folder = std::env::temp_dir().display().to_string();
    for name in [
        "no-such-model",
        "no/such",
        "/etc",
        "../..",
        folder.as_str(),
        "https://huggingface.co/a/b",
        "",
        "x\ny",
    ] {
        let mut request = question("Hello!");
        request["model"] = json!(name);
        server.post(CHAT, &request).fails(404, Some("model"), Some("model_not_found"));
    }
    // Even one that is there, where the server is not to look.
    let only = server_with(cache(), |options| {
        let mut options = options.with_model("mine", "pippin-nano");
        options.models.remove(0);
        options
    });
    only.post(CHAT, &question("Hello!")).fails(404, Some("model"), Some("model_not_found"));
    let mut request = question("Hello!");
    request["model"] = json!("mine");
    assert_eq!(only.post(CHAT, &request).answer()["model"], "mine");
}

#[test]
fn routes_and_methods() {
    let server = server();
    server.get("/v1/nothing").fails(404, None, Some("unknown_url"));
    server.get(CHAT).fails(405, None, Some("method_not_allowed"));
    server.post("/health", &json!({})).fails(405, None, Some("method_not_allowed"));
}

#[test]
fn long_prompts_are_refused_before_they_are_tokenized() {
    let server = server();
    let context = server.cache.get("pippin-nano").expect("loads").context();
    let text = "a b ".repeat(context);
    server.post(CHAT, &question(&text)).fails(400, Some("messages"), Some("context_length_exceeded"));
    server.post("/v1/completions", &json!({"prompt": text})).fails(
        400,
        Some("prompt"),
        Some("context_length_exceeded"),
    );
}

#[test]
fn bodies_and_headers_have_limits() {
    let limits = Limits { body_bytes: 1000, ..Limits::default() };
    let server = server_with(cache(), |options| options.with_limits(limits));
    let long = question(&"x".repeat(2000)).to_string();
    server.send("POST", CHAT, &[], long.as_bytes()).fails(413, None, Some("body_too_large"));
    let header = "x".repeat(100_000);
    assert_eq!(server.send("GET", "/health", &[("x-long", &header)], b"").status, 431);
    let many: Vec<(String, String)> =
        (0..150).map(|number| (format!("x-{number}"), "1".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(server.send("GET", "/health", &many, b"").status, 431);
}

#[test]
fn a_full_server_says_so() {
    let limits = Limits { requests: 2, ..Limits::default() };
    let server = server_with(cache(), |options| options.with_limits(limits));
    let mut request = endless(&server.cache);
    request["n"] = json!(2);
    let mut running = Connection::open(server.address(), "POST", CHAT, &[], request.to_string().as_bytes());
    running.read_until("data: ");
    let refused = server.post(CHAT, &question("Hello!"));
    refused.fails(429, None, Some("rate_limit_exceeded"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(server.get("/health").status, 200);
    drop(running);
    // Its places are free again as soon as it is gone.
    let begin = std::time::Instant::now();
    while server.post(CHAT, &question("Hello!")).status == 429 {
        assert!(begin.elapsed() < std::time::Duration::from_secs(30));
    }
}

#[test]
fn nothing_that_a_request_says_is_the_servers_fault() {
    let server = server();
    // More alternatives than a parser has by default.
    let properties: serde_json::Map<String, Value> =
        (0..1500).map(|number| (format!("k{number}"), json!({"type": "integer"}))).collect();
    let schema = json!({"type": "object", "properties": properties});
    let mut request = question("Hello!");
    request["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let status = server.post(CHAT, &request).status;
    assert!(status == 200 || status == 400, "{status}");
    for (field, value) in [
        ("frequency_penalty", json!(-3e38)),
        ("presence_penalty", json!(3e38)),
        ("repetition_penalty", json!(1e-38)),
        ("repetition_penalty", json!(3e38)),
    ] {
        let mut request = question("Hello!");
        request[field] = value;
        assert_eq!(server.post(CHAT, &request).status, 200, "{field}");
    }
}

#[test]
fn bodies_and_paths_that_are_not_http_are_told_so() {
    let server = server();
    for path in ["/v1/models/%ff", "/v1/responses/%ff"] {
        server.get(path).fails(400, None, None);
    }
    let chunked = [("transfer-encoding", "chunked")];
    let mut stream = std::net::TcpStream::connect(server.address()).expect("connects");
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{}: {}\r\n\r\nZZ\r\n",
        chunked[0].0, chunked[0].1
    );
    std::io::Write::write_all(&mut stream, head.as_bytes()).expect("sent");
    let mut reply = String::new();
    std::io::Read::read_to_string(&mut stream, &mut reply).expect("an answer");
    assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
    // One that says that it is too long is not waited for.
    let mut stream = std::net::TcpStream::connect(server.address()).expect("connects");
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 99999999999\r\n\r\n"
    );
    std::io::Write::write_all(&mut stream, head.as_bytes()).expect("sent");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("set");
    let mut begin = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut begin).expect("an answer");
    assert_eq!(&begin, b"HTTP/1.1 413");
}

#[test]
fn more_answers_than_there_may_ever_be_are_no_matter_of_time() {
    let limits = Limits { requests: 2, requests_per_key: 1, ..Limits::default() };
    let open = server_with(cache(), |options| options.with_limits(limits.clone()));
    let keys = pippin_server::Keys::new(["first-key", "second-key"]).expect("keys");
    let closed = server_with(cache(), |options| options.with_limits(limits).with_keys(keys));
    let text =
        |reply: &crate::support::Reply| reply.json()["error"]["message"].as_str().expect("a text").to_owned();
    let mut request = question("Hello!");
    request["n"] = json!(3);
    let refused = open.post(CHAT, &request);
    refused.fails(400, Some("n"), None);
    assert_eq!(refused.header("retry-after"), None);
    assert!(text(&refused).contains("max_requests") && text(&refused).contains('2'), "{refused:?}");
    let ask = |key: &str, request: &Value| {
        closed.send("POST", CHAT, &[("x-api-key", key)], request.to_string().as_bytes())
    };
    request["n"] = json!(2);
    let refused = ask("first-key", &request);
    refused.fails(400, Some("n"), None);
    assert!(text(&refused).contains("max_requests_per_key"), "{refused:?}");
    let many = json!({"prompt": ["a", "b", "c"], "max_tokens": 1});
    open.post("/v1/completions", &many).fails(400, Some("n"), None);

    // What is only too much now says whose limit it is.
    let body = endless(&closed.cache).to_string();
    let running = ["first-key", "second-key"].map(|key| {
        let mut stream =
            Connection::open(closed.address(), "POST", CHAT, &[("x-api-key", key)], body.as_bytes());
        stream.read_until("data: ");
        stream
    });
    let own = ask("first-key", &question("Hello!"));
    own.fails(429, None, Some("rate_limit_exceeded"));
    assert!(text(&own).contains("key") && text(&own).contains("max_requests_per_key"), "{own:?}");
    drop(running);
    let mut request = endless(&open.cache);
    request["n"] = json!(2);
    let mut running = Connection::open(open.address(), "POST", CHAT, &[], request.to_string().as_bytes());
    running.read_until("data: ");
    let all = open.post(CHAT, &question("Hello!"));
    all.fails(429, None, Some("rate_limit_exceeded"));
    assert!(text(&all).contains("server") && !text(&all).contains("per_key"), "{all:?}");
}

#[test]
fn errors_name_models_as_requests_do() {
    // Two models of the same files: where there is room for one of them, the other has to wait.
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["one", "other"] {
        let copy = folder.path().join(name);
        std::fs::create_dir(&copy).expect("made");
        for file in std::fs::read_dir(NANO).expect("the model").map(|file| file.expect("a file").path()) {
            std::fs::copy(&file, copy.join(file.file_name().expect("a name"))).expect("copied");
        }
    }
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let text =
        |reply: &crate::support::Reply| reply.json()["error"]["message"].as_str().expect("a text").to_owned();
    for (options, code) in [
        (crate::support::options().with_max_loaded_models(1), "no_room_for_model"),
        (
            crate::support::options().with_memory_budget(pippin::config::MemoryBudget::Bytes(1 << 20)),
            "no_room_for_model",
        ),
    ] {
        let server = server_with(pippin::ModelCache::new(options), |mut options| {
            options.models.clear();
            options.with_model("first", path("one")).with_model("second", path("other"))
        });
        let lease = server.cache.get(&path("one"));
        let mut request = question("Hello!");
        request["model"] = json!("second");
        let refused = server.post(CHAT, &request);
        refused.fails(503, Some("model"), Some(code));
        let text = text(&refused);
        assert!(text.contains("second") && !text.contains(folder.path().to_str().expect("UTF-8")), "{text}");
        assert_eq!(text.contains("first"), lease.is_ok(), "{text}");
    }
}

#[test]
fn a_model_that_is_not_here_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = pippin::hub::HubCache::new(folder.path());
    let server = server_with(cache(), |options| {
        options.with_local_models(hub).with_management(pippin_server::Management::Everyone)
    });
    let mut request = question("Hello!");
    for (name, parts) in [
        ("qwen3-4b", &["\"qwen3-4b\"", "mlx-community/Qwen3-4B-4bit", "server"][..]),
        ("org/absent", &["\"org/absent\"", "server"]),
        ("no-such-model", &["\"no-such-model\""]),
    ] {
        request["model"] = json!(name);
        for reply in [server.post(CHAT, &request), server.post("/models/load", &json!({"model": name}))] {
            reply.fails(404, Some("model"), Some("model_not_found"));
            let text = reply.json()["error"]["message"].as_str().expect("a text").to_owned();
            assert!(parts.iter().all(|part| text.contains(part)), "{name}: {text}");
        }
    }
}

#[test]
fn a_model_that_is_not_listed_is_not_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = pippin::hub::HubCache::new(folder.path());
    let server = server_with(cache(), |mut options| {
        options.models.clear();
        options.with_model("mine", NANO).with_local_models(hub)
    });
    let listed = server.get("/v1/models").answer();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1), "{listed}");
    server.post(CHAT, &question("Hello!")).fails(404, Some("model"), Some("model_not_found"));
    server.get("/v1/models/pippin-nano").fails(404, Some("model"), Some("model_not_found"));
}

#[test]
fn messages_and_tools_have_what_openai_wants_of_them() {
    let server = server();
    for (field, value, place) in [
        ("messages", json!([{"role": "owner", "content": "x"}]), "messages.0.role"),
        ("messages", json!([{"role": "use", "content": "x"}]), "messages.0.role"),
        ("messages", json!([{"role": "system", "content": "x"}, {"role": "user"}]), "messages.1.content"),
        ("messages", json!([{"role": "user", "content": null}]), "messages.0.content"),
        ("messages", json!([{"role": "system"}]), "messages.0.content"),
        ("tools", json!([{"name": "f", "parameters": {"type": "object"}}]), "tools.0.type"),
        ("tools", json!([{"function": {"name": "f"}}]), "tools.0.type"),
        ("tools", json!([{"type": "function", "name": "f"}]), "tools.0.function"),
    ] {
        let mut request = question("Hello!");
        request[field] = value.clone();
        let reply = server.post(CHAT, &request);
        assert_eq!(
            (reply.status, reply.json()["error"]["param"].as_str()),
            (400, Some(place)),
            "{value}: {reply:?}"
        );
    }
    for message in [
        json!({"role": "developer", "content": "x"}),
        json!({"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}),
    ] {
        let mut request = question("Hello!");
        request["messages"] =
            json!([{"role": "user", "content": "Hello!"}, message, {"role": "user", "content": "Well?"}]);
        assert_eq!(server.post(CHAT, &request).status, 200, "{message}");
    }
}

#[test]
fn hints_that_need_nothing_are_taken_and_what_would_be_ignored_is_named() {
    let server = server();
    for (field, value) in [
        ("verbosity", json!("medium")),
        ("prediction", json!({"type": "content", "content": "Hello!"})),
        ("typical_p", json!(1)),
        ("return_token_ids", json!(false)),
    ] {
        let mut request = question("Hello!");
        request[field] = value;
        assert_eq!(server.post(CHAT, &request).status, 200, "{field}");
    }
    for (field, value) in [
        ("verbosity", json!("low")),
        ("prediction", json!({"type": "image"})),
        ("typical_p", json!(0.5)),
        ("return_token_ids", json!(true)),
    ] {
        let mut request = question("Hello!");
        request[field] = value;
        server.post(CHAT, &request).fails(400, Some(field), Some("unsupported_parameter"));
    }
}

#[test]
fn errors_say_what_was_asked() {
    let server = server();
    let text =
        |reply: &crate::support::Reply| reply.json()["error"]["message"].as_str().expect("a text").to_owned();
    let mut request = question("Hello!");
    request["structured_outputs"] = json!({"regex": "a", "choice": ["a"]});
    let two = text(&server.post(CHAT, &request));
    assert!(two.contains("structured_outputs.regex") && two.contains("structured_outputs.choice"), "{two}");
    let nothing = server.post("/tokenize", &json!({}));
    nothing.fails(400, Some("prompt"), None);
    assert!(text(&nothing).contains("prompt") && text(&nothing).contains("messages"), "{nothing:?}");
    let host = server.send("GET", "/v1/models", &[("host", "evil.example:80")], b"");
    assert!(text(&host).contains("\"evil.example:80\""), "{host:?}");
    let long = "x".repeat(5000);
    let host = server.send("GET", "/v1/models", &[("host", &long)], b"");
    assert_eq!(host.status, 403);
    assert!(text(&host).len() < 400, "{host:?}");
}
