use serde_json::{Value, json};

use crate::scripted::{free, saying, tools};
use crate::support::{TestServer, cache, question, server, server_with};

const PATH: &str = "/v1/responses";

fn text_of(response: &Value) -> &str {
    let message =
        response["output"].as_array().expect("a list").iter().find(|item| item["type"] == "message");
    message.expect("a message")["content"][0]["text"].as_str().expect("a text")
}

/// The events of a stream, whose last response they add up to.
fn streamed(server: &TestServer, request: &Value) -> (Vec<Value>, Value) {
    let mut request = request.clone();
    request["stream"] = json!(true);
    let reply = server.post(PATH, &request);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")), "{reply:?}");
    let names: Vec<&str> = reply.body.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let events: Vec<Value> = reply
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(names.len(), events.len());
    for (number, (name, event)) in names.iter().zip(&events).enumerate() {
        assert_eq!((&event["type"], &event["sequence_number"]), (&json!(name), &json!(number)));
    }
    assert_eq!(names[..2], ["response.created", "response.in_progress"]);
    // Items begin, grow and end one after the other, and are those of the whole.
    let last = events.last().expect("events")["response"].clone();
    let mut items: Vec<Value> = Vec::new();
    let (mut text, mut open) = (String::new(), None);
    for event in &events {
        match event["type"].as_str().expect("a type") {
            "response.output_item.added" => {
                assert_eq!((&open, &event["output_index"]), (&None, &json!(items.len())));
                (open, text) = (Some(event["item"]["id"].clone()), String::new());
            }
            kind if kind.ends_with(".delta") => {
                assert_eq!(Some(&event["item_id"]), open.as_ref());
                text.push_str(event["delta"].as_str().expect("a text"));
            }
            "response.output_text.done" | "response.reasoning_text.done" => assert_eq!(event["text"], text),
            "response.function_call_arguments.done" => assert_eq!(event["arguments"], text),
            "response.output_item.done" => {
                assert_eq!(Some(&event["item"]["id"]), open.take().as_ref());
                items.push(event["item"].clone());
            }
            _ => {}
        }
    }
    assert_eq!(last["output"], json!(items));
    (events, last)
}

#[test]
fn an_answer_is_that_of_the_other_api() {
    let server = server();
    let other = server.post("/v1/chat/completions", &question("What is 17 plus 25?")).answer();
    let request = json!({"model": "pippin-nano", "input": "What is 17 plus 25?", "temperature": 0, "max_output_tokens": 12});
    let response = server.post(PATH, &request).answer();
    assert_eq!(text_of(&response), other["choices"][0]["message"]["content"]);
    assert_eq!((&response["object"], &response["model"]), (&json!("response"), &json!("pippin-nano")));
    let is_whole = other["choices"][0]["finish_reason"] == "stop";
    assert_eq!(response["status"], if is_whole { "completed" } else { "incomplete" });
    assert_eq!(response["usage"]["input_tokens"], other["usage"]["prompt_tokens"]);
    assert_eq!(response["usage"]["output_tokens"], other["usage"]["completion_tokens"]);
    assert_eq!((&response["max_output_tokens"], &response["tools"]), (&json!(12), &json!([])));
    let (events, last) = streamed(&server, &request);
    assert_eq!(text_of(&last), text_of(&response));
    assert_eq!(
        events.last().expect("events")["type"],
        if is_whole { "response.completed" } else { "response.incomplete" }
    );
    assert_ne!(last["id"], response["id"]);

    let cut = server.post(PATH, &json!({"input": "Tell me a story.", "max_output_tokens": 2})).answer();
    assert_eq!(
        (&cut["status"], &cut["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    assert_eq!(cut["output"][0]["status"], "incomplete");
    let (events, last) = streamed(&server, &json!({"input": "Tell me a story.", "max_output_tokens": 2}));
    assert_eq!(last["output"][0]["status"], "incomplete");
    assert!(events.iter().any(|event| event["type"] == "response.output_item.done"));
}

#[test]
fn thoughts_messages_and_calls_are_items() {
    let server = saying(
        "<think>Weather, then.</think>I will look.<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 2}}</tool_call>",
    );
    // The flat form of tools, and of the choice.
    let flat = json!([{"type": "function", "name": "get_weather", "parameters": {"type": "object"}, "strict": false}]);
    let request = json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]}], "tools": flat});
    let response = server.post(PATH, &request).answer();
    let (_, last) = streamed(&server, &request);
    for response in [&response, &last] {
        let output = response["output"].as_array().expect("items");
        let kinds: Vec<&str> = output.iter().map(|item| item["type"].as_str().expect("a type")).collect();
        assert_eq!(kinds, ["reasoning", "message", "function_call"]);
        assert_eq!(output[0]["content"][0]["text"], "Weather, then.");
        assert_eq!(output[1]["content"][0]["text"], "I will look.");
        assert_eq!(output[2]["name"], "get_weather");
        let arguments: Value =
            serde_json::from_str(output[2]["arguments"].as_str().expect("a text")).expect("JSON");
        assert_eq!(arguments, json!({"city": "Paris", "days": 2}));
        assert!(output[2]["call_id"].is_string());
        assert_eq!(response["tools"], flat);
        assert!(response["usage"]["output_tokens_details"]["reasoning_tokens"].as_u64() > Some(0));
    }
    let server = free();
    let mut forced = json!({"input": "Weather?", "tools": [tools()[0]["function"].clone()], "tool_choice": {"type": "function", "name": "get_weather"}});
    forced["tools"][0]["type"] = json!("function");
    let call = server.post(PATH, &forced).answer()["output"][0].clone();
    assert_eq!((&call["type"], &call["name"]), (&json!("function_call"), &json!("get_weather")));
}

#[test]
fn a_request_goes_on_from_an_earlier_answer() {
    let server = server();
    let ask = |input: Value, previous: &Value| {
        let request = json!({"input": input, "previous_response_id": previous, "temperature": 0, "max_output_tokens": 8, "instructions": "Be brief."});
        server.post(PATH, &request).answer()
    };
    let first = ask(json!("What is the capital of France?"), &Value::Null);
    let second = ask(json!("And of Italy?"), &first["id"]);
    // As if all had been said in one request.
    let all = json!([
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": text_of(&first)},
        {"role": "user", "content": "And of Italy?"},
    ]);
    let whole = ask(all, &Value::Null);
    assert_eq!(
        (text_of(&second), &second["usage"]["input_tokens"]),
        (text_of(&whole), &whole["usage"]["input_tokens"])
    );
    assert_eq!(second["previous_response_id"], first["id"]);
    // Streamed answers are kept as well.
    let (_, streamed) = streamed(&server, &json!({"input": "Hello!", "max_output_tokens": 4}));
    let path = format!("{PATH}/{}", streamed["id"].as_str().expect("an id"));
    assert_eq!(server.get(&path).answer(), streamed);
    assert_eq!(server.send("DELETE", &path, &[], b"").answer()["deleted"], true);
    server.get(&path).fails(404, None, Some("response_not_found"));
    let mut gone = json!({"input": "Well?", "previous_response_id": streamed["id"]});
    server.post(PATH, &gone).fails(400, Some("previous_response_id"), Some("previous_response_not_found"));
    // What is not to be kept is not.
    gone["previous_response_id"] = json!(null);
    gone["store"] = json!(false);
    let unkept = server.post(PATH, &gone).answer();
    server.get(&format!("{PATH}/{}", unkept["id"].as_str().expect("an id"))).fails(
        404,
        None,
        Some("response_not_found"),
    );
}

#[test]
fn what_is_kept_is_its_keys_own() {
    let keys = pippin_server::Keys::new(["first-key", "second-key"]).expect("keys");
    let server = server_with(cache(), |options| options.with_keys(keys));
    let as_key = |key: &str, method: &str, path: &str, body: &Value| {
        server.send(method, path, &[("x-api-key", key)], body.to_string().as_bytes())
    };
    let mine =
        as_key("first-key", "POST", PATH, &json!({"input": "Hello!", "max_output_tokens": 2})).answer();
    let path = format!("{PATH}/{}", mine["id"].as_str().expect("an id"));
    assert_eq!(as_key("first-key", "GET", &path, &json!({})).status, 200);
    for method in ["GET", "DELETE"] {
        assert_eq!(as_key("second-key", method, &path, &json!({})).status, 404);
    }
    let next = json!({"input": "Well?", "previous_response_id": mine["id"], "max_output_tokens": 2});
    assert_eq!(as_key("second-key", "POST", PATH, &next).status, 400);
    assert_eq!(as_key("first-key", "POST", PATH, &next).status, 200);
}

#[test]
fn what_cannot_be_is_named() {
    let server = free();
    for (field, value, place) in [
        ("input", json!(null), "input"),
        ("input", json!([]), "input"),
        ("input", json!([7]), "input.0"),
        (
            "input",
            json!([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]),
            "input.0.content.0.type",
        ),
        ("input", json!([{"role": "owner", "content": "x"}]), "input.0.role"),
        ("input", json!([{"type": "web_search_call", "id": "x"}]), "input.0.type"),
        ("input", json!([{"type": "function_call", "name": "x"}]), "input.0.arguments"),
        ("text", json!({"format": {"type": "xml"}}), "text.format"),
        ("text", json!({"format": {"type": "json_schema", "schema": {"not": {}}}}), "text.format"),
        ("text", json!({"format": {"type": "json_schema"}}), "text.format"),
        ("text", json!({"verbosity": "low"}), "text.verbosity"),
        ("reasoning", json!({"effort": 7}), "reasoning.effort"),
        ("max_output_tokens", json!(0), "max_output_tokens"),
        ("background", json!(true), "background"),
        ("n", json!(3), "n"),
        ("logprobs", json!(true), "logprobs"),
        ("truncation", json!("auto"), "truncation"),
        ("include", json!(["message.output_text.logprobs"]), "include"),
        ("include", json!(["reasoning.encrypted_content", "a"]), "include.1"),
        ("include", json!([7]), "include.0"),
        // It is not called `messages` here.
        ("input", json!("Hello! ".repeat(200_000)), "input"),
    ] {
        let mut request = json!({"input": "Hello!", "max_output_tokens": 4});
        request[field] = value.clone();
        let reply = server.post(PATH, &request);
        assert_eq!(
            (reply.status, reply.json()["error"]["param"].as_str()),
            (400, Some(place)),
            "{field}: {value}: {reply:?}"
        );
        // By the names that it has in this API.
        assert!(!reply.body.contains("response_format"), "{reply:?}");
    }
    let format = json!({"format": {"type": "json_schema", "name": "x", "schema": {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false}}});
    let response = server.post(PATH, &json!({"input": "Hello!", "text": format, "reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"]})).answer();
    let document: Value = serde_json::from_str(text_of(&response)).expect("JSON");
    assert!(document["ok"].is_boolean());
}

#[test]
fn conversations_of_agents_are_read() {
    let server = free();
    let items = json!([
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"role": "user", "content": "Weather?"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "c1", "name": "get_time", "arguments": "{}", "id": "fc_1", "status": "completed"},
        {"type": "function_call", "call_id": "c2", "name": "get_weather", "arguments": "{\"city\": \"Rome\"}"},
        {"type": "function_call_output", "call_id": "c1", "output": "12:00"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "Sunny."}]},
    ]);
    let response =
        server.post(PATH, &json!({"input": items, "max_output_tokens": 3, "temperature": 0})).answer();
    let same = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": null, "reasoning_content": "Hm.", "tool_calls": [
            {"id": "c1", "function": {"name": "get_time", "arguments": {}}},
            {"id": "c2", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
        {"role": "tool", "tool_call_id": "c2", "content": "Sunny."},
    ]);
    let other = server.post("/v1/chat/completions", &json!({"messages": same, "max_tokens": 3})).answer();
    assert_eq!(response["usage"]["input_tokens"], other["usage"]["prompt_tokens"]);
}
