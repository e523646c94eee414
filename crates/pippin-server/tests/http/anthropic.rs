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
        ("tools", json!([{"name": "f", "input_schema": {}}])),
        ("tool_choice", json!({"type": "any"})),
        ("thinking", json!({"type": "enabled", "budget_tokens": 1024})),
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
}
