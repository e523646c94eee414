//! Requests that once made sense: whatever has become of them, the server answers, and lives.

use std::time::Duration;

use pippin::GenerateParameters;
use serde_json::{Value, json};

use crate::mix::Dice;
use crate::support::{cache, question, server_with};

const CHANGED: usize = 400;

fn requests() -> Vec<(&'static str, Value)> {
    let model = "pippin-nano";
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What time is it?"}]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "get_time", "arguments": "{\"zone\": \"UTC\"}"}},
        ]},
        {"role": "tool", "tool_call_id": "a", "content": "12:30"},
    ]);
    let schema = json!({
        "type": "object",
        "properties": {"zone": {"enum": ["UTC", "CET"]}, "hour": {"type": "integer", "minimum": 0, "maximum": 23}},
        "required": ["zone"],
        "additionalProperties": false,
    });
    let function = json!({"name": "get_time", "description": "x", "parameters": schema, "strict": true});
    let tools = json!([{"type": "function", "function": function}]);
    vec![
        (
            "/v1/chat/completions",
            json!({
                "model": model, "messages": messages, "tools": tools, "tool_choice": "required", "max_tokens": 8, "stop": ["x"],
                "logprobs": true, "top_logprobs": 2, "n": 2, "seed": 1, "logit_bias": {"5": -10}, "stream": false,
            }),
        ),
        (
            "/v1/chat/completions",
            json!({
                "messages": messages, "max_completion_tokens": 8, "stream": true, "stream_options": {"include_usage": true},
                "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": true}},
                "chat_template_kwargs": {"x": 1}, "reasoning_effort": "low", "presence_penalty": 0.5,
            }),
        ),
        (
            "/v1/completions",
            json!({
                "model": model, "prompt": ["Once", "Twice"], "max_tokens": 4, "logprobs": 1, "echo": true, "stop_token_ids": [3],
                "guided_regex": "[a-c]{1,4}", "min_tokens": 1,
            }),
        ),
        (
            "/v1/responses",
            json!({
                "model": model, "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": "What time is it?"}]},
                    {"type": "function_call", "call_id": "a", "name": "get_time", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "a", "output": "12:30"},
                ],
                "instructions": "Be brief.", "max_output_tokens": 8, "text": {"format": {"type": "json_schema", "name": "x", "schema": schema}},
                "reasoning": {"effort": "low"}, "previous_response_id": null, "store": true, "metadata": {"a": "b"},
            }),
        ),
        (
            "/v1/messages",
            json!({
                "model": model, "max_tokens": 8, "system": [{"type": "text", "text": "Be brief."}], "messages": [
                    {"role": "user", "content": "What time is it?"},
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "get_time", "input": {"zone": "UTC"}}]},
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "12:30"}]}]},
                ],
                "tools": [{"name": "get_time", "input_schema": schema}], "tool_choice": {"type": "any"}, "stream": true,
                "thinking": {"type": "enabled", "budget_tokens": 1024}, "stop_sequences": ["x"],
            }),
        ),
        (
            "/v1/messages/count_tokens",
            json!({"model": model, "messages": [{"role": "user", "content": "x"}]}),
        ),
        (
            "/api/chat",
            json!({
                "model": model, "messages": [{"role": "user", "content": "x", "images": []}], "tools": tools, "format": schema,
                "options": {"temperature": 0.5, "num_predict": 8, "stop": ["x"], "num_ctx": 512}, "think": false, "keep_alive": "5m",
            }),
        ),
        (
            "/api/generate",
            json!({"model": model, "prompt": "x", "system": "y", "raw": false, "options": {"num_predict": 4}}),
        ),
        ("/api/show", json!({"model": model})),
        ("/api/embed", json!({"model": model, "input": ["x"]})),
        ("/models/load", json!({"model": model, "keep_alive": "5m"})),
        ("/tokenize", json!({"prompt": "x", "with_pieces": true})),
        ("/tokenize", json!({"messages": messages, "tools": tools})),
        ("/detokenize", json!({"tokens": [1, 2, 3]})),
        ("/apply-template", json!({"messages": messages, "tools": tools, "add_generation_prompt": true})),
    ]
}

/// A value that somebody may not have thought of.
fn strange(dice: &mut Dice) -> Value {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let all = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(0.1),
        json!(""),
        json!("x".repeat(3000)),
        json!("\u{0}\u{feff}\u{1f980}<|im_end|>"),
        json!([]),
        json!({}),
        json!([[], {}, null]),
        json!({"type": "x", "": {"$ref": "#/x"}}),
        json!({"$ref": "#"}),
        json!("auto"),
        deep,
    ];
    all[dice.below(all.len())].clone()
}

/// Changes one of a value's parts, at any depth.
fn change(value: &mut Value, dice: &mut Dice) {
    let goes_deeper = dice.below(4) > 0;
    match value {
        Value::Object(fields) if goes_deeper && !fields.is_empty() => {
            let name = fields.keys().nth(dice.below(fields.len())).cloned().unwrap_or_default();
            match dice.below(6) {
                0 => drop(fields.remove(&name)),
                1 => drop(fields.insert(format!("{name}\u{e9}"), strange(dice))),
                _ => change(&mut fields[&name], dice),
            }
        }
        Value::Array(items) if goes_deeper && !items.is_empty() => {
            let at = dice.below(items.len());
            match dice.below(6) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                2 => items.insert(at, strange(dice)),
                _ => change(&mut items[at], dice),
            }
        }
        _ if dice.below(4) == 0 => *value = json!([value.take()]),
        _ => *value = strange(dice),
    }
}

/// Breaks the text of a request.
fn garble(body: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.below(body.len().max(1));
    match dice.below(3) {
        0 => body.truncate(at),
        1 => body.insert(at, dice.below(256) as u8),
        _ => {
            if let Some(byte) = body.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
    }
}

#[test]
fn no_change_of_a_request_ends_in_a_fault() {
    // Answers without a limit of their own are ended.
    let parameters = GenerateParameters::default().with_max_time(Duration::from_millis(50));
    let server = server_with(cache(), |options| options.with_parameters(parameters));
    let requests = requests();
    for (path, request) in &requests {
        let status = server.post(path, request).status;
        assert!(matches!(status, 200 | 400 | 403), "{status} for {path} {request}");
    }
    let mut dice = Dice(7);
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..CHANGED {
        let (path, request) = &requests[dice.below(requests.len())];
        let mut request = request.clone();
        for _ in 0..=dice.below(3) {
            change(&mut request, &mut dice);
        }
        let mut body = request.to_string().into_bytes();
        if dice.below(8) == 0 {
            garble(&mut body, &mut dice);
        }
        let reply = server.send("POST", path, &[], &body);
        let text = String::from_utf8_lossy(&body);
        assert!(reply.status < 500, "{} {} for {path} {text}", reply.status, reply.body);
        assert!(!reply.body.contains("server_error"), "{} for {path} {text}", reply.body);
        match reply.status {
            200 => answered += 1,
            _ => {
                assert!(reply.json()["error"].is_object() || reply.json()["error"].is_string(), "{reply:?}");
                refused += 1;
            }
        }
    }
    assert!(answered > CHANGED / 20 && refused > CHANGED / 20, "{answered} answered, {refused} refused");
    assert_eq!(server.get("/health").answer()["status"], "ok");
    let mut asked = question("What is 17 plus 25?");
    asked["t_max_predict_ms"] = json!(60_000);
    let answer = server.post("/v1/chat/completions", &asked).answer();
    assert_eq!(answer["choices"][0]["message"]["content"], "17 plus 25 is 42.");
}
