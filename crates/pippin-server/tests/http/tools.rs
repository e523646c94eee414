use serde_json::{Value, json};

use crate::scripted::{free, saying, tools};
use crate::support::TestServer;

const CHAT: &str = "/v1/chat/completions";

const TWO_CALLS: &str = "<think>Weather, then.</think>I will look.\n\
    <tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 2}}\n</tool_call>\n\
    <tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>";

fn request() -> Value {
    json!({"messages": [{"role": "user", "content": "How is the weather?"}], "tools": tools()})
}

/// A streamed answer put together as clients do it.
fn streamed(server: &TestServer, request: &Value) -> Value {
    let mut request = request.clone();
    request["stream"] = json!(true);
    let mut message = json!({"content": "", "reasoning_content": "", "tool_calls": []});
    let mut reason = Value::Null;
    for event in server.events(CHAT, &request) {
        let choice = &event["choices"][0];
        for field in ["content", "reasoning_content"] {
            if let Some(text) = choice["delta"][field].as_str() {
                message[field] = json!(message[field].as_str().expect("a text").to_owned() + text);
            }
        }
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().expect("an index") as usize;
            let calls = message["tool_calls"].as_array_mut().expect("a list");
            assert_eq!(index, calls.len(), "each call is new");
            assert_eq!(call["type"], "function");
            assert!(call["id"].is_string() && call["function"]["name"].is_string());
            calls.push(call.clone());
        }
        if choice["finish_reason"].is_string() {
            assert!(reason.is_null());
            reason = choice["finish_reason"].clone();
        }
    }
    json!({"message": message, "finish_reason": reason})
}

#[test]
fn calls_thoughts_and_text_are_apart() {
    let server = saying(TWO_CALLS);
    let answer = server.post(CHAT, &request()).answer();
    let choice = &answer["choices"][0];
    let message = &choice["message"];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(
        (&message["content"], &message["reasoning_content"]),
        (&json!("I will look."), &json!("Weather, then."))
    );
    let calls = message["tool_calls"].as_array().expect("calls");
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0]["function"]["name"], "get_weather");
    // A text that is JSON.
    let arguments: Value =
        serde_json::from_str(calls[0]["function"]["arguments"].as_str().expect("a text")).expect("JSON");
    assert_eq!(arguments, json!({"city": "Paris", "days": 2}));
    assert_eq!(calls[1]["function"], json!({"name": "get_time", "arguments": "{}"}));
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    let thought =
        answer["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64().expect("a number");
    assert!(thought > 3 && thought < answer["usage"]["completion_tokens"].as_u64().expect("a number"));

    let again = streamed(&server, &request());
    assert_eq!(again["finish_reason"], "tool_calls");
    for field in ["content", "reasoning_content"] {
        assert_eq!(again["message"][field], message[field]);
    }
    for (one, other) in calls.iter().zip(again["message"]["tool_calls"].as_array().expect("calls")) {
        assert_eq!(one["function"], other["function"]);
    }
}

#[test]
fn one_call_at_a_time_where_that_is_asked_for() {
    let server = saying(TWO_CALLS);
    let mut request = request();
    request["parallel_tool_calls"] = json!(false);
    for choice in [server.post(CHAT, &request).answer()["choices"][0].clone(), streamed(&server, &request)] {
        let calls = choice["message"]["tool_calls"].as_array().expect("calls");
        assert_eq!((calls.len(), &choice["finish_reason"]), (1, &json!("tool_calls")));
    }
}

#[test]
fn what_is_no_call_is_text() {
    for text in [
        "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": </tool_call>",
        "<tool_call>{\"name\": \"get_weather\"",
        "<tool_call>",
    ] {
        let choice = saying(text).post(CHAT, &request()).answer()["choices"][0].clone();
        assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(text), &json!("stop")));
    }
    // Without tools nothing is a call, nor with the choice of none.
    let call = "<tool_call>{\"name\": \"get_time\", \"arguments\": {}}</tool_call>";
    let server = saying(call);
    for change in [json!({"tools": null}), json!({"tools": []}), json!({"tool_choice": "none"})] {
        let mut request = request();
        change.as_object().expect("an object").iter().for_each(|(key, value)| request[key] = value.clone());
        let message = server.post(CHAT, &request).answer()["choices"][0]["message"].clone();
        assert_eq!(message["content"], call);
        assert!(message.get("tool_calls").is_none());
    }
}

#[test]
fn calls_that_are_required_come_and_keep_to_their_schemas() {
    let server = free();
    let schema = |call: &Value| {
        let arguments: Value =
            serde_json::from_str(call["function"]["arguments"].as_str().expect("a text")).expect("JSON");
        match call["function"]["name"].as_str() {
            Some("get_weather") => {
                assert!(["Paris", "Rome"].contains(&arguments["city"].as_str().expect("a city")));
                assert!((1..=5).contains(&arguments["days"].as_u64().expect("a number")));
            }
            Some("get_time") => assert_eq!(arguments, json!({})),
            name => panic!("{name:?}"),
        }
    };
    for seed in 0..4 {
        let mut request = request();
        request["tool_choice"] = json!("required");
        (request["temperature"], request["seed"], request["max_tokens"]) =
            (json!(1.5), json!(seed), json!(400));
        request["parallel_tool_calls"] = json!(false);
        let choice = server.post(CHAT, &request).answer()["choices"][0].clone();
        assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
        assert_eq!(choice["message"]["content"], Value::Null);
        let calls = choice["message"]["tool_calls"].as_array().expect("calls");
        assert_eq!(calls.len(), 1);
        schema(&calls[0]);

        request["tool_choice"] = json!({"type": "function", "function": {"name": "get_weather"}});
        request["stream"] = json!(true);
        let choice = streamed(&server, &request);
        let calls = choice["message"]["tool_calls"].as_array().expect("calls");
        assert_eq!((calls.len(), &calls[0]["function"]["name"]), (1, &json!("get_weather")), "{choice}");
        schema(&calls[0]);
    }
}

#[test]
fn strict_calls_are_right_and_text_stays_free() {
    let server = free();
    let mut request = request();
    request["tools"][0]["function"]["strict"] = json!(true);
    request["max_tokens"] = json!(5);
    request["temperature"] = json!(0);
    let strict = server.post(CHAT, &request).answer();
    request["tools"][0]["function"]["strict"] = json!(null);
    let free = server.post(CHAT, &request).answer();
    assert_eq!(strict["choices"][0]["message"], free["choices"][0]["message"]);
    // What cannot be followed is refused only where it has to be.
    request["tools"][0]["function"]["parameters"] =
        json!({"type": "object", "properties": {"a": {"not": {}}}});
    assert_eq!(server.post(CHAT, &request).status, 200);
    request["tools"][0]["function"]["strict"] = json!(true);
    let reply = server.post(CHAT, &request);
    reply.fails(400, Some("tools.0.function.parameters"), None);
    assert!(
        reply.json()["error"]["message"].as_str().is_some_and(|text| text.contains("#/properties/a/not"))
    );
}

#[test]
fn a_tool_that_is_not_strict_is_followed_as_far_as_it_can_be() {
    let server = free();
    let mut request = request();
    request["tool_choice"] = json!("required");
    request["max_tokens"] = json!(200);
    for property in [
        json!({"type": "string", "format": "uri-reference"}),
        json!({"type": "integer", "minimum": 5, "maximum": 3}),
    ] {
        request["tools"] = json!([{"type": "function", "function": {
            "name": "get", "parameters": {"type": "object", "properties": {"x": property}, "required": ["x"]},
        }}]);
        assert_eq!(server.post(CHAT, &request).status, 200);
        request["tools"][0]["function"]["strict"] = json!(true);
        assert_eq!(server.post(CHAT, &request).status, 400);
    }
    // What can be followed is, beside what cannot.
    request["tools"] = json!([{"type": "function", "function": {"name": "get", "parameters": {
        "type": "object", "properties": {"x": {"not": {"type": "string"}}, "y": {"enum": [7, 9]}},
        "required": ["x", "y"], "additionalProperties": false,
    }}}]);
    let answer = server.post(CHAT, &request).json();
    let arguments = answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"].as_str();
    let arguments: Value = serde_json::from_str(arguments.expect("a call")).expect("JSON");
    assert!(arguments["y"] == 7 || arguments["y"] == 9, "{arguments}");
    // Arguments have names.
    request["tools"] =
        json!([{"type": "function", "function": {"name": "get", "parameters": {"type": "integer"}}}]);
    server.post(CHAT, &request).fails(400, Some("tools.0.function.parameters"), None);
}

#[test]
fn conversations_with_calls_are_rendered() {
    let server = free();
    let messages = json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {"role": "assistant", "content": null, "reasoning_content": "Hm.", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "get_time", "arguments": "{\"zone\": \"UTC\"}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "12:00"}]},
    ]);
    let prompt = server.post("/apply-template", &json!({"messages": messages, "tools": tools()})).answer();
    let prompt = prompt["prompt"].as_str().expect("a text");
    for part in [
        "tools: [",
        "<|im_start|>system\nBe brief.",
        "Weather?",
        "<think>Hm.</think>",
        "\"zone\": \"UTC\"",
        "<|im_start|>tool\n12:00",
    ] {
        assert!(prompt.contains(part), "{part:?} in {prompt}");
    }
    assert_eq!(server.post(CHAT, &json!({"messages": messages, "max_tokens": 3})).status, 200);
}

#[test]
fn tools_that_cannot_be_are_named() {
    let server = free();
    let tool = |function: Value| json!([{"type": "function", "function": function}]);
    for (field, value, place) in [
        ("tools", json!([7]), "tools.0"),
        ("tools", json!("x"), "tools"),
        ("tools", json!([{"type": "web_search"}]), "tools.0.type"),
        ("tools", tool(json!({})), "tools.0.function.name"),
        ("tools", tool(json!({"name": "a b"})), "tools.0.function.name"),
        ("tools", tool(json!({"name": "x".repeat(257)})), "tools.0.function.name"),
        ("tools", tool(json!({"name": "f", "parameters": []})), "tools.0.function.parameters"),
        ("tools", tool(json!({"name": "f", "strict": 1})), "tools.0.function.strict"),
        ("tools", json!([tools()[1], tools()[1]]), "tools"),
        ("tool_choice", json!("always"), "tool_choice"),
        ("tool_choice", json!({"type": "function", "function": {"name": "nobody"}}), "tool_choice"),
        ("tool_choice", json!({"type": "allowed_tools"}), "tool_choice"),
        ("parallel_tool_calls", json!(1), "parallel_tool_calls"),
    ] {
        let mut request = request();
        request[field] = value;
        server.post(CHAT, &request).fails(400, Some(place), None);
        // What a chat would not show, no template does.
        server.post("/apply-template", &request).fails(400, Some(place), None);
    }
    let mut request = request();
    (request["tools"], request["tool_choice"]) = (json!(null), json!("required"));
    server.post(CHAT, &request).fails(400, Some("tool_choice"), None);
}
