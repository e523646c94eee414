use serde_json::{Value, json};

use crate::support::{question, server, server_with};

const PATH: &str = "/v1/messages";

fn request(text: &str) -> Value {
    json!({
        "model": "pippin-nano",
        "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}],
        "temperature": 0,
        "max_tokens": 12,
    })
}

#[test]
fn a_message_is_the_answer_that_the_other_api_gives() {
    let server = server();
    let other = server.post("/v1/chat/completions", &question("What is 17 plus 25?")).answer();
    let message = server.post(PATH, &request("What is 17 plus 25?")).answer();
    assert_eq!((&message["type"], &message["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(message["content"][0]["type"], "text");
    let text = message["content"][0]["text"].as_str().expect("a text");
    assert_eq!(text, other["choices"][0]["message"]["content"]);
    let reason = if other["choices"][0]["finish_reason"] == "stop" { "end_turn" } else { "max_tokens" };
    assert_eq!(message["stop_reason"], reason);
    let tokens = |field: &str| message["usage"][field].as_u64().expect("a number");
    let read = tokens("input_tokens") + tokens("cache_read_input_tokens");
    assert_eq!(read, other["usage"]["prompt_tokens"].as_u64().expect("a number"));
    assert_eq!(tokens("output_tokens"), other["usage"]["completion_tokens"].as_u64().expect("a number"));
    let counted = server.post("/v1/messages/count_tokens", &request("What is 17 plus 25?")).answer();
    assert_eq!(counted, json!({"input_tokens": read}));

    let mut cut = request("What is 17 plus 25?");
    let stop: String = text.chars().skip(3).take(4).collect();
    cut["stop_sequences"] = json!([stop]);
    let cut = server.post(PATH, &cut).answer();
    assert_eq!((&cut["stop_reason"], &cut["stop_sequence"]), (&json!("stop_sequence"), &json!(stop)));
    assert_eq!(cut["content"][0]["text"], text.split(&stop).next().expect("a part"));
}

#[test]
fn events_come_in_their_order() {
    let server = server();
    let whole = server.post(PATH, &request("What is the capital of France?")).answer();
    let mut streamed = request("What is the capital of France?");
    streamed["stream"] = json!(true);
    let reply = server.post(PATH, &streamed);
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let names: Vec<&str> = reply.body.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let events: Vec<Value> = reply
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(names.iter().zip(&events).all(|(name, event)| event["type"] == *name));
    assert_eq!(names[..2], ["message_start", "content_block_start"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    let text: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    assert_eq!(text, whole["content"][0]["text"]);
    let last = &events[events.len() - 2];
    assert_eq!(last["delta"]["stop_reason"], whole["stop_reason"]);
    assert_eq!(last["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
    assert!(events[0]["message"]["usage"]["input_tokens"].as_u64() > Some(0));
}

#[test]
fn instructions_and_beginnings_of_answers_are_seen() {
    let server = server();
    let other = json!({"messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello!"},
    ]});
    let prompt = server.post("/tokenize", &other).answer()["count"].clone();
    let mut asked = request("Hello!");
    asked["system"] = json!([{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]);
    assert_eq!(server.post("/v1/messages/count_tokens", &asked).answer()["input_tokens"], prompt);
    let mut begun = request("What is the capital of France?");
    begun["messages"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"role": "assistant", "content": "The capital"}));
    let message = server.post(PATH, &begun).answer();
    let text = message["content"][0]["text"].as_str().expect("a text");
    assert!(!text.contains("The capital"), "{text}");
}

#[test]
fn errors_have_the_shape_of_this_api() {
    let keys = pippin_server::Keys::new(["a-long-key"]).expect("a key");
    let closed = server_with(crate::support::cache(), |options| options.with_keys(keys));
    let server = server();
    let error = |reply: crate::support::Reply, status: u16, kind: &str| {
        assert_eq!(reply.status, status, "{reply:?}");
        let body = reply.json();
        assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!(kind)), "{reply:?}");
        assert!(body["error"]["message"].is_string());
    };
    error(closed.post(PATH, &request("Hello!")), 401, "authentication_error");
    let with = |field: &str, value: Value| {
        let mut request = request("Hello!");
        request[field] = value;
        server.post(PATH, &request)
    };
    error(with("model", json!("no-such-model")), 404, "not_found_error");
    for (field, value) in [
        ("max_tokens", Value::Null),
        ("max_tokens", json!(0)),
        ("messages", json!([])),
        ("messages", json!([{"role": "system", "content": "x"}])),
        ("messages", json!([{"role": "user"}])),
        ("messages", json!([{"role": "user", "content": [{"type": "image", "source": {}}]}])),
        ("system", json!(7)),
        ("stop_sequences", json!([""])),
        ("temperature", json!(-1)),
        ("tools", json!([{"name": "f"}])),
        ("tools", json!([{"type": "web_search_20250305", "name": "web_search"}])),
        ("tool_choice", json!({"type": "any"})),
        ("tool_choice", json!("auto")),
        ("thinking", json!({"type": "enabled", "budget_tokens": 0})),
        ("thinking", json!(true)),
    ] {
        let reply = with(field, value);
        assert!(
            reply.json()["error"]["message"].as_str().is_some_and(|text| text.contains(field)),
            "{reply:?}"
        );
        error(reply, 400, "invalid_request_error");
    }
    // What asks for nothing is fine.
    assert_eq!(with("thinking", json!({"type": "disabled"})).status, 200);
    assert_eq!(with("tools", json!([])).status, 200);
    assert_eq!(with("thinking", json!({"type": "adaptive"})).status, 200);
    assert_eq!(with("context_management", json!({"edits": []})).status, 200);
}

#[test]
fn thoughts_and_calls_are_blocks() {
    let server = crate::scripted::saying(
        "<think>Weather, then.</think>I will look.<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 2}}</tool_call>",
    );
    let mut request = request("How is the weather?");
    request["model"] = json!("scripted");
    request["max_tokens"] = json!(200);
    request["tools"] =
        json!([{"name": "get_weather", "description": "Weather", "input_schema": {"type": "object"}}]);
    request["thinking"] = json!({"type": "enabled"});
    let message = server.post(PATH, &request).answer();
    let content = message["content"].as_array().expect("blocks");
    let kinds: Vec<&str> = content.iter().map(|block| block["type"].as_str().expect("a kind")).collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use"]);
    assert_eq!(
        (&content[0]["thinking"], &content[1]["text"]),
        (&json!("Weather, then."), &json!("I will look."))
    );
    assert_eq!(content[2]["input"], json!({"city": "Paris", "days": 2}));
    assert_eq!(message["stop_reason"], "tool_use");

    // Put together as Anthropic's clients do it.
    request["stream"] = json!(true);
    let reply = server.post(PATH, &request);
    let mut blocks: Vec<Value> = Vec::new();
    let mut open = false;
    for line in reply.body.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let index = event["index"].as_u64().map(|index| index as usize);
        match event["type"].as_str() {
            Some("content_block_start") => {
                assert!(!open && index == Some(blocks.len()));
                open = true;
                let mut block = event["content_block"].clone();
                block["json"] = json!("");
                blocks.push(block);
            }
            Some("content_block_delta") => {
                assert!(open && index == Some(blocks.len() - 1));
                let block = blocks.last_mut().expect("a block");
                for (delta, field) in [
                    ("text", "text"),
                    ("thinking", "thinking"),
                    ("partial_json", "json"),
                    ("signature", "signature"),
                ] {
                    if let Some(more) = event["delta"][delta].as_str() {
                        block[field] = json!(block[field].as_str().expect("a text").to_owned() + more);
                    }
                }
            }
            Some("content_block_stop") => open = !(open && index == Some(blocks.len() - 1)),
            Some("message_delta") => assert_eq!(event["delta"]["stop_reason"], "tool_use"),
            _ => {}
        }
    }
    assert!(!open);
    for (one, other) in content.iter().zip(&blocks) {
        match one["type"].as_str() {
            Some("tool_use") => {
                let input: Value =
                    serde_json::from_str(other["json"].as_str().expect("a text")).expect("JSON");
                assert_eq!((&one["name"], &one["input"]), (&other["name"], &input));
            }
            Some(kind) => assert_eq!(one[kind], other[kind]),
            None => panic!("{one}"),
        }
    }

    // The conversation goes on with what the tool says.
    let mut next = request.clone();
    next["stream"] = json!(false);
    let messages = next["messages"].as_array_mut().expect("a list");
    messages.push(json!({"role": "assistant", "content": content}));
    messages.push(json!({"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": content[2]["id"], "content": [{"type": "text", "text": "Sunny."}], "is_error": true},
        {"type": "text", "text": "Well?"},
    ]}));
    assert_eq!(server.post(PATH, &next).status, 200);
    let seen = server.post("/v1/messages/count_tokens?beta=true", &next).answer()["input_tokens"].as_u64();
    assert!(seen > server.post("/v1/messages/count_tokens", &request).answer()["input_tokens"].as_u64());

    let server = crate::scripted::free();
    request["thinking"]["budget_tokens"] = json!(1024);
    assert_eq!(server.post(PATH, &request).status, 200);

    // Calls can be asked for.
    for choice in [json!({"type": "any"}), json!({"type": "tool", "name": "get_weather"})] {
        let mut forced = request.clone();
        forced["stream"] = json!(false);
        forced["tools"][0]["input_schema"] = json!({"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"], "additionalProperties": false});
        forced["tool_choice"] = choice;
        let message = server.post(PATH, &forced).answer();
        let call = message["content"].as_array().expect("blocks").last().expect("a block").clone();
        assert_eq!(
            (&call["type"], &call["input"]),
            (&json!("tool_use"), &json!({"city": "Rome"})),
            "{message}"
        );
    }
}

#[test]
fn a_prompt_that_no_context_holds_is_counted() {
    let server = server();
    let context = server.cache.get("pippin-nano").expect("loads").context() as u64;
    let long = request(&"Hello there. ".repeat(20_000));
    let counted = server.post("/v1/messages/count_tokens", &long).answer();
    assert!(counted["input_tokens"].as_u64() > Some(2 * context), "{counted}");
    assert_eq!(server.post(PATH, &long).status, 400);
}

#[test]
fn the_kind_of_an_event_comes_before_its_data() {
    let server = server();
    let mut asked = request("Hello!");
    asked["stream"] = json!(true);
    let other = json!({"input": "Hello!", "max_output_tokens": 3, "stream": true});
    for (path, request) in [(PATH, &asked), ("/v1/responses", &other)] {
        let reply = server.post(path, request);
        let mut events = reply.body.split("\n\n").filter(|event| !event.is_empty()).peekable();
        assert!(events.peek().is_some());
        for event in events {
            let lines: Vec<&str> = event.lines().collect();
            assert!(lines[0].starts_with("event: ") && lines[1].starts_with("data: "), "{event}");
        }
    }
}
