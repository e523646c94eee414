//! What the clients ask, well and badly.

use serde_json::{Value, json};

pub(crate) const CHAT: &str = "/v1/chat/completions";

/// A conversation whose greedy answer is always the same.
pub(crate) fn question(text: &str, max_tokens: usize) -> Value {
    json!({
        "model": "pippin-nano",
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": max_tokens,
    })
}

/// Requests with answers of all forms, none of them streamed.
pub(crate) fn well_formed() -> Vec<Value> {
    let questions = [
        "What is 17 plus 25?",
        "Hello!",
        "What is the capital of France?",
        "Tell me a story.",
        "Tell me a story about a dog.",
        "How many legs does a spider have?",
    ];
    let mut all: Vec<Value> = questions.iter().map(|text| question(text, 96)).collect();
    // Answers that go on.
    for text in ["Tell me a story about the sea.", "Count.", "What is the colour of the sky?"] {
        let mut long = question(text, 96);
        long["ignore_eos"] = json!(true);
        all.push(long);
    }
    let mut document = question("Describe a cat.", 200);
    document["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "cat", "schema": {
        "type": "object",
        "properties": {
            "colour": {"enum": ["black", "white", "red"]},
            "age": {"type": "integer", "minimum": 0, "maximum": 30},
            "is_asleep": {"type": "boolean"},
        },
        "required": ["colour", "age", "is_asleep"],
        "additionalProperties": false,
    }}});
    all.push(document);
    let mut call = question("What time is it?", 200);
    call["tool_choice"] = json!("required");
    call["tools"] = json!([{"type": "function", "function": {"name": "get_time", "strict": true, "parameters": {
        "type": "object",
        "properties": {"zone": {"enum": ["UTC", "CET", "PST"]}},
        "required": ["zone"],
        "additionalProperties": false,
    }}}]);
    all.push(call);
    all
}

/// A request that cannot be answered.
pub(crate) struct Malformed {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) body: Vec<u8>,
    /// Bytes that are promised, and never come.
    pub(crate) missing: usize,
}

pub(crate) fn malformed() -> Vec<Malformed> {
    let whole = question("Hello!", 8);
    let text = whole.to_string().into_bytes();
    let chat = |body: Vec<u8>, missing| Malformed { method: "POST", path: CHAT, body, missing };
    let mut all = vec![
        chat(text[..text.len() / 2].to_vec(), 0),
        chat(text[..text.len() / 2].to_vec(), text.len() / 2),
        chat(b"\xff\xfe{}".to_vec(), 0),
        chat("[".repeat(20_000).into_bytes(), 0),
        chat(Vec::new(), 0),
        Malformed { method: "PUT", path: CHAT, body: text.clone(), missing: 0 },
        Malformed { method: "POST", path: "/v1/nothing", body: text, missing: 0 },
        Malformed { method: "POST", path: "/v1/messages", body: b"{\"messages\": 7}".to_vec(), missing: 0 },
        Malformed { method: "POST", path: "/api/chat", body: b"[]".to_vec(), missing: 0 },
    ];
    for (field, value) in [
        ("messages", json!([{"role": 7}])),
        ("temperature", json!("hot")),
        ("max_tokens", json!(-1)),
        ("model", json!("no-such-model")),
        ("response_format", json!({"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}})),
        ("tools", json!([{"type": "function"}])),
        ("logit_bias", json!({"x": 1})),
        ("stop", json!([""])),
    ] {
        let mut request = whole.clone();
        request[field] = value;
        all.push(chat(request.to_string().into_bytes(), 0));
    }
    all
}
