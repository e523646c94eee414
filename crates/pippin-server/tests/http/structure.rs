use serde_json::{Value, json};

use crate::scripted::{free, saying, tools};

const CHAT: &str = "/v1/chat/completions";

fn request(field: &str, value: Value) -> Value {
    let mut request =
        json!({"messages": [{"role": "user", "content": "Answer."}], "max_tokens": 300, "temperature": 1.2});
    request[field] = value;
    request
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"name": {"$ref": "#/$defs/name"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
            "age": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 120}, {"type": "null"}]}},
        "required": ["name", "tags", "age"],
        "additionalProperties": false,
        "$defs": {"name": {"type": "string", "maxLength": 12}},
    })
}

#[test]
fn answers_have_the_form_that_is_asked_for() {
    let server = free();
    let json_schema =
        json!({"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": schema()}});
    for (field, value) in [
        ("response_format", json_schema),
        ("response_format", json!({"type": "json_object", "schema": schema()})),
        ("structured_outputs", json!({"json": schema()})),
        ("guided_json", json!(schema().to_string())),
        ("json_schema", schema()),
    ] {
        let mut request = request(field, value);
        for seed in 0..2 {
            request["seed"] = json!(seed);
            let choice = server.post(CHAT, &request).answer()["choices"][0].clone();
            assert_eq!(choice["finish_reason"], "stop");
            let text = choice["message"]["content"].as_str().expect("a text");
            let document: Value = serde_json::from_str(text).expect("JSON");
            assert!(document["name"].as_str().is_some_and(|name| name.chars().count() <= 12), "{document}");
            assert!(document["tags"].as_array().is_some_and(|tags| tags.len() <= 3));
            assert!(document["age"].is_null() || document["age"].as_u64().is_some_and(|age| age <= 120));
        }
    }
    for (field, value, is_right) in [
        (
            "structured_outputs",
            json!({"regex": "[0-9]{3}-[0-9]{2}"}),
            (|text| text.len() == 6) as fn(&str) -> bool,
        ),
        ("guided_choice", json!(["red", "green"]), |text| ["red", "green"].contains(&text)),
        ("structured_outputs", json!({"choice": ["red"], "regex": null}), |text| text == "red"),
        ("guided_grammar", json!("start: \"a\" (\"b\" | \"c\")"), |text| ["ab", "ac"].contains(&text)),
        ("guided_regex", json!("x{2,4}"), |text| (2..=4).contains(&text.len())),
        ("response_format", json!({"type": "text"}), |_| true),
    ] {
        let answer = server.post(CHAT, &request(field, value.clone())).answer();
        let text = answer["choices"][0]["message"]["content"].as_str().expect("a text");
        assert!(is_right(text), "{field}: {value}: {text:?}");
    }
    // Also for plain texts.
    let answer = server
        .post("/v1/completions", &json!({"prompt": "Colour:", "guided_choice": ["red", "green"]}))
        .answer();
    assert!(["red", "green"].contains(&answer["choices"][0]["text"].as_str().expect("a text")));
}

#[test]
fn a_stream_is_held_to_it_as_well_and_neighbours_are_free() {
    let server = free();
    let mut constrained = request("guided_regex", json!("[ab]{30}"));
    constrained["stream"] = json!(true);
    let plain =
        json!({"messages": [{"role": "user", "content": "Count."}], "temperature": 0, "max_tokens": 20});
    let alone = server.post(CHAT, &plain).answer();
    let (text, beside) = std::thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let events = server.events(CHAT, &constrained);
            events
                .iter()
                .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
                .collect::<String>()
        });
        let beside = scope.spawn(|| server.post(CHAT, &plain).answer());
        (stream.join().expect("a text"), beside.join().expect("an answer"))
    });
    assert!(text.len() == 30 && text.bytes().all(|byte| b"ab".contains(&byte)), "{text}");
    assert_eq!(beside["choices"], alone["choices"]);
}

#[test]
fn what_cannot_be_followed_is_refused_with_its_place() {
    let server = free();
    let format =
        |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let unsupported =
        format(json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}}));
    let reply = server.post(CHAT, &request("response_format", unsupported));
    reply.fails(400, Some("response_format"), Some("invalid_constraint"));
    let message = reply.json()["error"]["message"].as_str().expect("a message").to_owned();
    assert!(message.contains("#/properties/a/uniqueItems"), "{message}");
    // Also of what only the parser knows to be wrong, and of what tools take.
    let inner = |schema: &Value| json!({"type": "object", "properties": {"a": schema}, "required": ["a"]});
    for (schema, key) in [
        (json!({"type": "string", "pattern": "a(?=b)"}), "pattern"),
        (json!({"type": "string", "format": "nonsense"}), "format"),
        (json!({"type": "object", "patternProperties": {"(": true}}), "patternProperties"),
    ] {
        let tools = json!([
            {"type": "function", "function": {"name": "good", "strict": true, "parameters": {"type": "object"}}},
            {"type": "function", "function": {"name": "bad", "strict": true, "parameters": inner(&schema)}},
        ]);
        for (request, param, place) in [
            (request("response_format", format(schema.clone())), "response_format", format!(" #/{key}:")),
            (
                request("response_format", format(inner(&schema))),
                "response_format",
                format!(" #/properties/a/{key}:"),
            ),
            (request("tools", tools), "tools.1.function.parameters", format!(" #/properties/a/{key}:")),
        ] {
            let reply = server.post(CHAT, &request);
            assert_eq!(
                (reply.status, reply.json()["error"]["param"].as_str()),
                (400, Some(param)),
                "{reply:?}"
            );
            let message = reply.json()["error"]["message"].as_str().expect("a message").to_owned();
            assert!(message.contains(&place), "{place} {message}");
        }
    }
    let grammar =
        request("guided_grammar", json!("start: \"x\" answer\nanswer: %json {\"format\": \"nonsense\"}\n"));
    let reply = server.post(CHAT, &grammar);
    reply.fails(400, Some("guided_grammar"), Some("invalid_constraint"));
    assert!(reply.body.contains("line 2: %json at #/format:"), "{reply:?}");
    for (field, value, code) in [
        ("response_format", json!({"type": "xml"}), None),
        ("response_format", json!({"type": "json_schema"}), None),
        ("response_format", json!(7), None),
        ("response_format", format(json!({"$ref": "http://example.com/x"})), Some("invalid_constraint")),
        ("structured_outputs", json!({"structural_tag": "x"}), None),
        ("guided_regex", json!("(unclosed"), Some("invalid_constraint")),
        ("guided_choice", json!([]), None),
        ("guided_json", json!("{"), None),
        ("guided_grammar", json!("no grammar"), Some("invalid_constraint")),
    ] {
        let reply = server.post(CHAT, &request(field, value.clone()));
        assert_eq!(reply.status, 400, "{field}: {value}: {reply:?}");
        let error = &reply.json()["error"];
        assert!(error["param"].as_str().is_some_and(|param| param.starts_with(field)), "{error}");
        assert_eq!(error["code"].as_str(), code, "{error}");
    }
    // A list it is, of texts, and an empty one.
    let reply = server.post(CHAT, &request("guided_choice", json!([])));
    assert!(reply.body.contains("at least one text"), "{reply:?}");
    let mut two = request("guided_regex", json!("a"));
    two["response_format"] = json!({"type": "json_object"});
    assert_eq!(server.post(CHAT, &two).status, 400);
}

#[test]
fn a_thought_comes_before_the_form() {
    // The template knows thoughts, so the model may think; told not to, it answers at once.
    let server = saying("<think>Hm, 2.</think>4");
    let mut asked = request("max_tokens", json!(50));
    let message = server.post(CHAT, &asked).answer()["choices"][0]["message"].clone();
    assert_eq!((&message["reasoning_content"], &message["content"]), (&json!("Hm, 2."), &json!("4")));
    asked["messages"] = json!([{"role": "assistant", "content": "<think>"}]);
    asked["continue_final_message"] = json!(true);
    asked["guided_choice"] = json!(["Hm.</think>4"]);
    let message = server.post(CHAT, &asked).answer()["choices"][0]["message"].clone();
    assert_eq!((&message["reasoning_content"], &message["content"]), (&json!("Hm."), &json!("4")));
    // Cut in the middle of a thought: all of it is one.
    asked["guided_choice"] = json!(["Hm, hm, hm, hm.</think>4"]);
    asked["max_tokens"] = json!(4);
    let choice = server.post(CHAT, &asked).answer()["choices"][0].clone();
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("length"), &json!("")));
    assert!(choice["message"]["reasoning_content"].as_str().is_some_and(|text| text.starts_with("Hm")));
}

#[test]
fn a_thought_ends_with_its_budget() {
    let server = free();
    let mut asked = request("thinking_token_budget", json!(5));
    asked["messages"] =
        json!([{"role": "user", "content": "Tell me a story."}, {"role": "assistant", "content": "<think>"}]);
    asked["continue_final_message"] = json!(true);
    (asked["temperature"], asked["max_tokens"], asked["ignore_eos"]) = (json!(0), json!(30), json!(true));
    let answer = server.post(CHAT, &asked).answer();
    let message = &answer["choices"][0]["message"];
    assert!(message["content"].as_str().is_some_and(|text| !text.is_empty()), "{message}");
    let thought = answer["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64();
    assert!((5..20).contains(&thought.expect("a number")), "{answer}");
    // A model without marks for thoughts says so.
    asked["thinking_token_budget"] = json!(-1);
    assert_eq!(server.post(CHAT, &asked).json()["error"]["param"], "thinking_token_budget");
}

#[test]
fn templates_are_told_whether_to_think() {
    let server = free();
    let prompt = |field: &str, value: Value| {
        let mut request = request(field, value);
        request["max_tokens"] = json!(1);
        server.post(CHAT, &request).answer()["usage"]["prompt_tokens"].as_u64().expect("a number")
    };
    let thinking = prompt("reasoning_effort", json!("high"));
    let not = prompt("reasoning_effort", json!("none"));
    assert!(not > thinking);
    assert_eq!(prompt("enable_thinking", json!(false)), not);
    assert_eq!(prompt("chat_template_kwargs", json!({"enable_thinking": false})), not);
    // Clients make up efforts.
    assert_eq!(prompt("reasoning_effort", json!("ultra")), thinking);
}

#[test]
fn tools_and_a_form_of_the_answer_go_together() {
    let server = free();
    let mut request =
        request("response_format", json!({"type": "json_schema", "json_schema": {"schema": schema()}}));
    request["tools"] = tools();
    for seed in 0..4 {
        request["seed"] = json!(seed);
        let message = server.post(CHAT, &request).answer()["choices"][0]["message"].clone();
        let is_document =
            message["content"].as_str().is_some_and(|text| serde_json::from_str::<Value>(text).is_ok());
        assert!(is_document || message["tool_calls"].is_array(), "{message}");
    }
    request["response_format"] = json!(null);
    request["guided_regex"] = json!("a");
    server.post(CHAT, &request).fails(400, Some("guided_regex"), None);
}
