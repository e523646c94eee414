use serde_json::{Value, json};

use crate::scripted::{free, saying, tools};
use crate::support::{TestServer, question, server};

const CHAT: &str = "/api/chat";

fn request(text: &str) -> Value {
    json!({
        "model": "pippin-nano",
        "messages": [{"role": "user", "content": text}],
        "options": {"temperature": 0, "num_predict": 12},
        "stream": false,
    })
}

/// The lines of a stream.
fn lines(server: &TestServer, path: &str, request: &Value) -> Vec<Value> {
    let mut request = request.clone();
    // Here, a stream is what is usual.
    request.as_object_mut().expect("an object").remove("stream");
    let reply = server.post(path, &request);
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("application/x-ndjson")),
        "{reply:?}"
    );
    reply.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn an_answer_is_that_of_the_other_api() {
    let server = server();
    let other = server.post("/v1/chat/completions", &question("What is 17 plus 25?")).answer();
    let whole = server.post(CHAT, &request("What is 17 plus 25?")).answer();
    assert_eq!(whole["message"]["content"], other["choices"][0]["message"]["content"]);
    assert_eq!((&whole["model"], &whole["done"]), (&json!("pippin-nano"), &json!(true)));
    assert_eq!(whole["done_reason"], other["choices"][0]["finish_reason"]);
    assert_eq!(whole["prompt_eval_count"], other["usage"]["prompt_tokens"]);
    assert_eq!(whole["eval_count"], other["usage"]["completion_tokens"]);
    for time in ["total_duration", "eval_duration", "load_duration", "prompt_eval_duration"] {
        assert!(whole[time].is_u64(), "{time}");
    }
    assert!(whole["created_at"].as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')));

    let lines = lines(&server, CHAT, &request("What is 17 plus 25?"));
    let text: String = lines.iter().filter_map(|line| line["message"]["content"].as_str()).collect();
    assert_eq!(text, whole["message"]["content"].as_str().expect("a text"));
    let (last, others) = lines.split_last().expect("lines");
    assert!(others.iter().all(|line| line["done"] == false));
    assert_eq!((&last["done"], &last["eval_count"]), (&json!(true), &whole["eval_count"]));
    // Clients put a tag behind names.
    let mut tagged = request("What is 17 plus 25?");
    tagged["model"] = json!("pippin-nano:latest");
    assert_eq!(server.post(CHAT, &tagged).answer()["message"], whole["message"]);
}

#[test]
fn texts_are_continued_in_the_models_form_or_as_they_stand() {
    let server = server();
    let chat = server.post(CHAT, &request("What is 17 plus 25?")).answer();
    let mut asked = json!({"model": "pippin-nano", "prompt": "What is 17 plus 25?", "stream": false, "options": {"temperature": 0, "num_predict": 12}});
    let answer = server.post("/api/generate", &asked).answer();
    assert_eq!(answer["response"], chat["message"]["content"]);
    asked["raw"] = json!(true);
    let raw = server.post("/api/generate", &asked).answer();
    let other = server
        .post(
            "/v1/completions",
            &json!({"prompt": "What is 17 plus 25?", "temperature": 0, "max_tokens": 12}),
        )
        .answer();
    assert_eq!(raw["response"], other["choices"][0]["text"]);
    let streamed: String =
        lines(&server, "/api/generate", &asked).iter().filter_map(|line| line["response"].as_str()).collect();
    assert_eq!(raw["response"], streamed);
    for line in lines(&server, "/api/generate", &asked) {
        assert!(line.get("message").is_none(), "{line}");
    }
    for line in lines(&server, CHAT, &request("What is 17 plus 25?")) {
        assert!(line["message"].get("tool_calls").is_none(), "{line}");
    }
    asked["format"] = json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": false});
    asked["raw"] = json!(false);
    let formed = server.post("/api/generate", &asked).answer();
    let document: Value = serde_json::from_str(formed["response"].as_str().expect("a text")).expect("JSON");
    assert!(document["a"].is_boolean());
    // Nothing to say: the model is loaded.
    for (path, field) in [("/api/generate", "response"), (CHAT, "message")] {
        let loaded = server.post(path, &json!({"model": "pippin-nano"})).answer();
        assert_eq!((&loaded["done"], &loaded["done_reason"]), (&json!(true), &json!("load")));
        assert!(loaded.get(field).is_some());
    }
}

#[test]
fn thoughts_and_calls_have_places_of_their_own() {
    let server = saying(
        "<think>Weather, then.</think>I will look.<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 2}}</tool_call>\n\
         <tool_call>{\"name\": \"get_time\", \"arguments\": {}}</tool_call>",
    );
    let mut asked = request("Weather?");
    (asked["model"], asked["tools"], asked["options"]) = (json!("scripted"), tools(), json!({}));
    let message = server.post(CHAT, &asked).answer()["message"].clone();
    assert_eq!(
        (&message["thinking"], &message["content"]),
        (&json!("Weather, then."), &json!("I will look."))
    );
    let calls = message["tool_calls"].as_array().expect("calls");
    assert_eq!(calls[0]["function"]["arguments"], json!({"city": "Paris", "days": 2}));
    assert_eq!(
        (&calls[1]["function"]["name"], &calls[1]["function"]["index"]),
        (&json!("get_time"), &json!(1))
    );
    let streamed: Vec<Value> = lines(&server, CHAT, &asked)
        .iter()
        .filter_map(|line| line["message"]["tool_calls"].as_array().cloned())
        .flatten()
        .map(|call| call["function"].clone())
        .collect();
    assert_eq!(json!(streamed), json!([calls[0]["function"], calls[1]["function"]]));

    // Results have the names of their tools.
    let server = free();
    let messages = json!([
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Rome"}}}]},
        {"role": "tool", "content": "Sunny.", "tool_name": "get_weather"},
    ]);
    let answer = server.post(CHAT, &json!({"model": "scripted", "messages": messages, "stream": false, "options": {"num_predict": 2}})).answer();
    let same = json!([
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "reasoning_content": "Hm.", "tool_calls": [{"id": "call00001", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}]},
        {"role": "tool", "content": "Sunny.", "tool_call_id": "call00001", "name": "get_weather"},
    ]);
    let other = server.post("/v1/chat/completions", &json!({"messages": same, "max_tokens": 2})).answer();
    assert_eq!(answer["prompt_eval_count"], other["usage"]["prompt_tokens"]);
    assert_eq!((&answer["done_reason"], &answer["eval_count"]), (&json!("length"), &json!(2)));
}

#[test]
fn models_are_listed_and_described() {
    let server = server();
    assert!(server.get("/api/version").answer()["version"].is_string());
    let tags = server.get("/api/tags").answer();
    let tag = tags["models"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|model| model["name"] == "pippin-nano")
        .expect("it is there")
        .clone();
    assert!(
        tag["size"].as_u64() > Some(1000) && tag["digest"].as_str().is_some_and(|digest| digest.len() >= 40)
    );
    assert_eq!(tag["details"]["quantization_level"], "4bit");
    server.post(CHAT, &request("Hello!")).answer();
    let loaded = server.get("/api/ps").answer();
    let own = loaded["models"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|model| model["name"] == "pippin-nano")
        .expect("it is loaded")
        .clone();
    assert!(own["context_length"].as_u64() > Some(0) && own["expires_at"].is_string());
    for field in ["model", "name"] {
        let shown = server.post("/api/show", &json!({field: "pippin-nano"})).answer();
        // Its tokenizer has marks of thoughts, and its template knows nothing of them.
        assert_eq!(shown["capabilities"], json!(["completion", "tools"]));
        assert_eq!(shown["details"], tag["details"]);
        let architecture = shown["model_info"]["general.architecture"].as_str().expect("a name");
        assert!(shown["model_info"][format!("{architecture}.context_length")].as_u64() > Some(0));
    }
}

#[test]
fn errors_have_the_shape_of_this_api() {
    let server = server();
    for (path, body, status) in [
        (CHAT, json!({"model": "nobody", "messages": [{"role": "user", "content": "x"}]}), 404),
        (CHAT, json!({"messages": []}), 400),
        (
            CHAT,
            json!({"model": "pippin-nano", "messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}),
            400,
        ),
        (CHAT, json!({"model": "pippin-nano", "messages": [7]}), 400),
        (
            CHAT,
            json!({"model": "pippin-nano", "messages": [{"role": "user", "content": "x"}], "options": {"temperature": -1}}),
            400,
        ),
        (
            CHAT,
            json!({"model": "pippin-nano", "messages": [{"role": "user", "content": "x"}], "options": {"mirostat": 2}}),
            400,
        ),
        (
            CHAT,
            json!({"model": "pippin-nano", "messages": [{"role": "user", "content": "x"}], "format": "xml"}),
            400,
        ),
        ("/api/generate", json!({"model": "pippin-nano", "prompt": "x", "suffix": "y"}), 400),
        ("/api/show", json!({"model": "nobody"}), 404),
        ("/api/embed", json!({"model": "pippin-nano", "input": "x"}), 400),
        ("/api/create", json!({}), 404),
    ] {
        let reply = server.post(path, &body);
        assert_eq!(reply.status, status, "{body}: {reply:?}");
        assert!(reply.json()["error"].as_str().is_some_and(|text| !text.is_empty()), "{reply:?}");
    }
}

#[test]
fn only_a_model_whose_template_shows_thoughts_can_think() {
    let thoughts = free().post("/api/show", &json!({"model": "scripted"})).answer();
    assert_eq!(thoughts["capabilities"], json!(["completion", "tools", "thinking"]));
    let none = crate::scripted::with_template(
        "{% if tools %}{{ tools | tojson }} <tool_call></tool_call>{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    );
    let shown = none.server.post("/api/show", &json!({"model": "scripted"})).answer();
    assert_eq!(shown["capabilities"], json!(["completion", "tools"]));
}
