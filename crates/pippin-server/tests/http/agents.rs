//! Requests as coding agents send them.

use serde_json::{Value, json};

use crate::support::server;

/// What Claude Code sends: `session` is what changes from one conversation to the next.
fn claude_code(session: &str, messages: Value) -> Value {
    let cached = json!({"type": "ephemeral"});
    let tool = |name: &str, description: &str, parameter: &str| {
        json!({
            "name": name,
            "description": description,
            "input_schema": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "properties": {parameter: {"type": "string", "description": "What it is about"}},
                "required": [parameter],
                "additionalProperties": false,
            },
        })
    };
    let mut tools = json!([
        tool("Agent", "Launch a new agent to handle complex tasks", "prompt"),
        tool("Bash", "Executes a given bash command and returns its output", "command"),
        tool("Read", "Reads a file from the local filesystem", "file_path"),
    ]);
    tools[2]["cache_control"] = cached.clone();
    json!({
        "model": "pippin-nano",
        "messages": messages,
        "system": [
            {"type": "text", "text": format!("x-anthropic-billing-header: cc_version=2.1.197.{session}; cc_entrypoint=cli; cch={session};")},
            {"type": "text", "text": "You are Claude Code, Anthropic's official CLI for Claude.", "cache_control": cached},
            {"type": "text", "text": "You are an interactive agent that helps users with tasks of software engineering.", "cache_control": cached},
        ],
        "tools": tools,
        "metadata": {"user_id": format!("user_0_account__session_{session}")},
        "max_tokens": 8,
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "stream": true,
    })
}

/// The first messages of a conversation: instructions of the client stand behind the user's.
fn opening(question: &str) -> Value {
    json!([
        {"role": "user", "content": [
            {"type": "text", "text": "<system-reminder>\nToday is Monday.\n</system-reminder>\n"},
            {"type": "text", "text": question, "cache_control": {"type": "ephemeral"}},
        ]},
        {"role": "system", "content": "Available agent types for the Agent tool:\n- general-purpose\n- Explore"},
    ])
}

/// The events of a stream in Anthropic's form.
fn events(body: &str) -> Vec<Value> {
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn claude_code_is_answered() {
    let server = server();
    let request = claude_code("84c", opening("What is 17 plus 25?"));
    let headers = [
        ("anthropic-beta", "claude-code-20250219,mid-conversation-system-2026-04-07"),
        ("content-type", "application/json"),
    ];
    let reply = server.send("POST", "/v1/messages?beta=true", &headers, request.to_string().as_bytes());
    assert_eq!(reply.status, 200, "{reply:?}");
    let events = events(&reply.body);
    assert_eq!(events.last().expect("events")["type"], "message_stop", "{reply:?}");
    let counted = server.post("/v1/messages/count_tokens?beta=true", &request).answer();
    assert!(counted["input_tokens"].as_u64() > Some(50), "{counted}");
}

#[test]
fn instructions_between_messages_are_part_of_the_turn_where_they_stand() {
    let server = server();
    let count = |messages: &Value, system: Option<&str>| {
        let request = json!({"model": "pippin-nano", "messages": messages, "system": system});
        server.post("/v1/messages/count_tokens", &request).answer()["input_tokens"].clone()
    };
    let reminder = "<system-reminder>\nBe brief.\n</system-reminder>";
    let rule = json!({"role": "system", "content": [{"type": "text", "text": "Be brief."}]});
    let [hello, hi, well] = [("user", "Hello!"), ("assistant", "Hi."), ("user", "Well?")]
        .map(|(role, text)| json!({"role": role, "content": text}));
    for (given, same) in [
        (json!([hello, rule]), json!([{"role": "user", "content": format!("Hello!\n\n{reminder}")}])),
        (
            json!([hello, rule, hi, well]),
            json!([{"role": "user", "content": format!("Hello!\n\n{reminder}")}, hi, well]),
        ),
        (
            json!([hello, hi, rule, well]),
            json!([hello, hi, {"role": "user", "content": format!("{reminder}\n\nWell?")}]),
        ),
        (json!([hello, hi, rule]), json!([hello, hi, {"role": "user", "content": reminder}])),
    ] {
        assert_eq!(count(&given, None), count(&same, None), "{given}");
    }
    // Before all messages they are what `system` is.
    assert_eq!(count(&json!([rule, hello]), None), count(&json!([hello]), Some("Be brief.")));
    assert_eq!(
        count(&json!([rule, hello]), Some("Be kind.")),
        count(&json!([hello]), Some("Be kind.\n\nBe brief."))
    );
    // Results of tools stay with their calls.
    let results = json!([
        hello,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "f", "input": {}}]},
        rule,
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "12:00"}]},
    ]);
    assert!(count(&results, None).as_u64() > Some(0));
}

#[test]
fn a_header_that_changes_does_not_empty_the_cache() {
    let server = server();
    let usage = |request: &Value| {
        let reply = server.post("/v1/messages", request);
        assert_eq!(reply.status, 200, "{reply:?}");
        let events = events(&reply.body);
        let delta = events.iter().find(|event| event["type"] == "message_delta").expect("an end");
        let number = |name: &str| delta["usage"][name].as_u64().expect("a number");
        (number("input_tokens"), number("cache_read_input_tokens"))
    };
    // A question that nobody else asks, so that the first request finds nothing but what the frame shares.
    let first = claude_code("111", opening("Which of the cities of Iceland lies in the north?"));
    let second = claude_code("f0f", opening("Which of the cities of Iceland lies in the north?"));
    let (read, cached) = usage(&first);
    let (again, found) = usage(&second);
    assert_eq!(read + cached, again + found);
    // All but the last token or two, which have to be computed, or what does not fill a page.
    assert!(again <= 32, "{again} of {} had to be read again", again + found);
}

/// What Codex sends: functions of its own, groups of those of others, and tools that OpenAI's servers run.
fn codex(input: Value) -> Value {
    let function = |name: &str, parameter: &str| {
        json!({
            "type": "function", "name": name, "description": "Does it", "strict": false,
            "parameters": {"type": "object", "properties": {parameter: {"type": "string", "enum": ["a"]}}, "required": [parameter], "additionalProperties": false},
        })
    };
    json!({
        "model": "scripted",
        "instructions": "You are Codex, a coding agent.",
        "input": input,
        "tools": [
            function("exec_command", "cmd"),
            {"type": "namespace", "name": "mcp__files__", "description": "Tools of the server files", "tools": [function("read", "path"), function("write", "path")]},
            {"type": "namespace", "name": "collaboration", "description": "Agents", "tools": [function("read", "agent")]},
            {"type": "web_search", "external_web_access": false},
            {"type": "image_generation", "output_format": "png"},
            {"type": "tool_search", "execution": "client", "description": "Finds tools", "parameters": {"type": "object"}},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": false,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": false,
        "stream": true,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0198",
        "max_output_tokens": 64,
    })
}

#[test]
fn codex_is_answered_and_its_groups_of_tools_are_called_by_their_names() {
    let server = crate::scripted::saying(
        "<tool_call>{\"name\": \"mcp__files__read\", \"arguments\": {\"path\": \"a\"}}</tool_call>",
    );
    let input =
        json!([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Read it."}]}]);
    let reply = server.post("/v1/responses", &codex(input.clone()));
    assert_eq!(reply.status, 200, "{reply:?}");
    let events = events(&reply.body);
    let last = events.last().expect("events");
    assert_eq!(last["type"], "response.completed", "{last}");
    let call = last["response"]["output"][0].clone();
    assert_eq!(
        (&call["type"], &call["namespace"], &call["name"]),
        (&json!("function_call"), &json!("mcp__files__"), &json!("read"))
    );
    let done = events.iter().find(|event| event["type"] == "response.output_item.done").expect("an item");
    assert_eq!(done["item"], call);

    // The call comes back as it was given, with its result: the model sees the name that it has called.
    let mut next = input.as_array().expect("items").clone();
    next.push(call.clone());
    next.push(json!({"type": "function_call_output", "call_id": call["call_id"], "output": "text"}));
    let seen = |items: &[Value]| {
        let mut request = codex(json!(items));
        request["stream"] = json!(false);
        server.post("/v1/responses", &request).answer()["usage"]["input_tokens"].clone()
    };
    let again = seen(&next);
    let flat = json!({"type": "function_call", "call_id": call["call_id"], "name": "mcp__files__read", "arguments": call["arguments"]});
    next[1] = flat;
    assert_eq!(again, seen(&next));
}

#[test]
fn tools_that_a_server_would_run_are_passed_over_unless_they_are_demanded() {
    let server = crate::scripted::free();
    let count = |tools: Value| {
        let request = json!({"input": "Hello!", "tools": tools, "max_output_tokens": 2});
        server.post("/v1/responses", &request).answer()["usage"]["input_tokens"].clone()
    };
    assert_eq!(
        count(json!([{"type": "web_search"}, {"type": "web_search_preview_2025_03_11"}])),
        count(json!([]))
    );
    for (choice, field) in [
        (json!({"type": "web_search"}), "tool_choice"),
        (json!("required"), "tools.0.type"),
        (
            json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]}),
            "tool_choice",
        ),
    ] {
        let request = json!({"input": "Hello!", "tools": [{"type": "web_search"}], "tool_choice": choice});
        server.post("/v1/responses", &request).fails(400, Some(field), None);
    }
    // What the client would run is no tool that can be left out.
    for kind in ["local_shell", "no_such_kind"] {
        let request = json!({"input": "Hello!", "tools": [{"type": kind, "name": "x"}]});
        server.post("/v1/responses", &request).fails(400, Some("tools.0.type"), None);
    }
    // A function of a group can be demanded by the name that it has there.
    let group = json!([{"type": "namespace", "name": "clock", "tools": [{"type": "function", "name": "time"}, {"type": "function", "name": "date"}]}]);
    let request = json!({
        "input": "Hello!", "tools": group, "max_output_tokens": 64,
        "tool_choice": {"type": "function", "namespace": "clock", "name": "time"},
    });
    let call = server.post("/v1/responses", &request).answer()["output"][0].clone();
    assert_eq!((&call["namespace"], &call["name"]), (&json!("clock"), &json!("time")), "{call}");
    for group in [
        json!([{"type": "namespace", "name": "clock"}]),
        json!([{"type": "namespace", "tools": []}]),
        json!([{"type": "namespace", "name": "clock", "tools": [{"type": "function"}]}]),
        json!([{"type": "namespace", "name": "clock", "tools": [7]}]),
    ] {
        let reply = server.post("/v1/responses", &json!({"input": "Hello!", "tools": group}));
        assert_eq!(reply.status, 400, "{group}");
        assert!(
            reply.json()["error"]["param"].as_str().is_some_and(|param| param.starts_with("tools.0.")),
            "{reply:?}"
        );
    }
}

#[test]
fn instructions_reach_models_whose_templates_know_them_at_the_beginning_only() {
    let templated = crate::scripted::with_template(
        "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('System message must be at the beginning.') }}{% endif %}\
         <|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    );
    let server = &templated.server;
    // As Codex gives them: the second in a message of its own, the third when something has changed.
    let request = json!({"instructions": "Be brief.", "max_output_tokens": 2, "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello!"}]},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be quick."}]},
    ]});
    let same = json!({"max_output_tokens": 2, "input": [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "Hello!\n\n<system-reminder>\nBe quick.\n</system-reminder>"},
    ]});
    let count =
        |request: &Value| server.post("/v1/responses", request).answer()["usage"]["input_tokens"].clone();
    assert_eq!(count(&request), count(&same));
    let messages = json!([
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hi."},
        {"role": "system", "content": "Be quick."},
        {"role": "user", "content": "Well?"},
    ]);
    let prompt = server.post("/apply-template", &json!({"messages": messages})).answer();
    let prompt = prompt["prompt"].as_str().expect("a text");
    assert!(
        prompt.contains("user\n<system-reminder>\nBe quick.\n</system-reminder>\n\nWell?<|im_end|>"),
        "{prompt}"
    );
    assert_eq!(
        server.post("/v1/chat/completions", &json!({"messages": messages, "max_tokens": 2})).status,
        200
    );
}

/// The grammar of patches, as Codex sends it.
const PATCH: &str = r#"start: begin_patch hunk+ end_patch
begin_patch: "*** Begin Patch" LF
end_patch: "*** End Patch" LF?

hunk: add_hunk | delete_hunk | update_hunk
add_hunk: "*** Add File: " filename LF add_line+
delete_hunk: "*** Delete File: " filename LF
update_hunk: "*** Update File: " filename LF change_move? change?

filename: /(.+)/
add_line: "+" /(.*)/ LF -> line

change_move: "*** Move to: " filename LF
change: (change_context | change_line)+ eof_line?
change_context: ("@@" | "@@ " /(.+)/) LF
change_line: ("+" | "-" | " ") /(.*)/ LF
eof_line: "*** End of File" LF

%import common.LF
"#;

fn patching(format: Value) -> Value {
    json!({"type": "custom", "name": "apply_patch", "description": "Changes files.", "format": format})
}

#[test]
fn custom_tools_are_given_a_text() {
    let text = "*** Begin Patch\n*** Delete File: a.txt\n*** End Patch";
    let call = json!({"name": "apply_patch", "arguments": {"input": text}});
    let server = crate::scripted::saying(&format!("<tool_call>{call}</tool_call>"));
    let mut request = codex(json!([{"role": "user", "content": "Delete it."}]));
    request["max_output_tokens"] = json!(200);
    request["tools"].as_array_mut().expect("tools").push(patching(json!({"type": "text"})));
    let reply = server.post("/v1/responses", &request);
    assert_eq!(reply.status, 200, "{reply:?}");
    let events = events(&reply.body);
    let last = events.last().expect("events");
    assert_eq!(last["type"], "response.completed", "{last}");
    let call = last["response"]["output"][0].clone();
    assert_eq!(
        (&call["type"], &call["name"], &call["input"], &call["status"]),
        (&json!("custom_tool_call"), &json!("apply_patch"), &json!(text), &json!("completed"))
    );
    assert!(call["id"].as_str().is_some_and(|id| id.starts_with("ctc_")), "{call}");
    assert!(call["call_id"].is_string() && call.get("arguments").is_none(), "{call}");
    let of = |kind: &str| events.iter().find(|event| event["type"] == kind).expect(kind);
    assert_eq!(of("response.output_item.added")["item"]["input"], "");
    assert_eq!(of("response.custom_tool_call_input.delta")["delta"], text);
    let done = of("response.custom_tool_call_input.done");
    assert_eq!((&done["input"], &done["item_id"]), (&json!(text), &call["id"]));
    assert_eq!(of("response.output_item.done")["item"], call);

    // The call comes back with its result, and the model sees what it has called.
    let mut same = call.clone();
    same["type"] = "function_call".into();
    same["arguments"] = json!({"input": text}).to_string().into();
    let seen = |call: &Value, kind: &str| {
        let mut next = request.clone();
        next["stream"] = json!(false);
        next["input"] = json!([
            {"role": "user", "content": "Delete it."}, call,
            {"type": kind, "call_id": call["call_id"], "output": [{"type": "input_text", "text": "Done."}]},
        ]);
        server.post("/v1/responses", &next).answer()["usage"]["input_tokens"].clone()
    };
    assert_eq!(seen(&call, "custom_tool_call_output"), seen(&same, "function_call_output"));
}

#[test]
fn what_a_custom_tool_is_given_follows_its_grammar() {
    let server = crate::scripted::free();
    let lark = json!({"type": "grammar", "syntax": "lark", "definition": "start: \"get \" NAME \"\\n\"\nNAME: /[a-c]{3}/"});
    let regex = json!({"type": "grammar", "syntax": "regex", "definition": "get [a-c]{3}\\n"});
    for format in [lark, regex] {
        for choice in [json!("required"), json!({"type": "custom", "name": "apply_patch"})] {
            let request = json!({
                "input": "Get it.", "tools": [patching(format.clone())], "tool_choice": choice, "max_output_tokens": 200,
            });
            let item = server.post("/v1/responses", &request).answer()["output"][0].clone();
            assert_eq!(item["type"], "custom_tool_call", "{item}");
            let input = item["input"].as_str().expect("a text");
            let name = input.strip_prefix("get ").and_then(|rest| rest.strip_suffix('\n')).expect(input);
            assert!(name.len() == 3 && name.bytes().all(|byte| (b'a'..=b'c').contains(&byte)), "{input:?}");
        }
    }
    // As Codex says it.
    let lark = |definition: &str| json!({"type": "grammar", "syntax": "lark", "definition": definition});
    let request = json!({"input": "Hello!", "tools": [patching(lark(PATCH))], "max_output_tokens": 2});
    assert_eq!(server.post("/v1/responses", &request).status, 200);
    for (format, field) in [
        (lark("start: \"(\" start? \")\""), "tools.0.format.definition"),
        (lark("start: nothing"), "tools.0.format.definition"),
        (json!({"type": "grammar", "syntax": "lark"}), "tools.0.format.definition"),
        (json!({"type": "grammar", "syntax": "ebnf", "definition": "a"}), "tools.0.format.syntax"),
        (json!({"type": "schema"}), "tools.0.format.type"),
        (json!("text"), "tools.0.format.type"),
    ] {
        let request = json!({"input": "Hello!", "tools": [patching(format)]});
        server.post("/v1/responses", &request).fails(400, Some(field), None);
    }
    let request = json!({"input": "Hello!", "tools": [{"type": "custom"}]});
    assert_eq!(server.post("/v1/responses", &request).status, 400);
}

#[test]
fn errors_of_tools_name_what_the_client_has_sent() {
    let server = crate::scripted::free();
    let grammar = |syntax: &str, definition: &str| {
        patching(json!({"type": "grammar", "syntax": syntax, "definition": definition}))
    };
    let group = |tool: Value| json!({"type": "namespace", "name": "g", "tools": [tool]});
    let strict = json!({"type": "object", "properties": {"a": {"not": {}}}});
    let strict = json!({"type": "function", "name": "f", "strict": true, "parameters": strict});
    for (tool, place) in [
        (grammar("regex", "("), "tools.1.format.definition"),
        (grammar("regex", "a(?=b)"), "tools.1.format.definition"),
        (grammar("regex", r"\bfoo\b"), "tools.1.format.definition"),
        (grammar("lark", "start: \"a\"~5..2"), "tools.1.format.definition"),
        (grammar("lark", "start: /\\x00/"), "tools.1.format.definition"),
        (group(grammar("regex", "(")), "tools.1.tools.0.format.definition"),
        (json!({"type": "custom"}), "tools.1.name"),
        (json!({"type": "custom", "name": "a b"}), "tools.1.name"),
        (json!({"type": "function", "name": 7}), "tools.1.name"),
        (json!({"type": "function", "function": {"name": 7}}), "tools.1.function.name"),
        (json!({"type": "function", "name": "f", "strict": 1}), "tools.1.strict"),
        (strict.clone(), "tools.1.parameters"),
        (group(strict), "tools.1.tools.0.parameters"),
    ] {
        // A tool that is passed over counts as well.
        let request = json!({"input": "Hello!", "tools": [{"type": "web_search"}, tool]});
        let reply = server.post("/v1/responses", &request);
        reply.fails(400, Some(place), None);
        let error = reply.json();
        let message = error["error"]["message"].as_str().expect("a text");
        assert!(message.starts_with(place), "{message}");
        assert!(!message.contains("#/properties/input") && !message.contains("(?:"), "{message}");
    }
    // Where the other API calls it otherwise.
    for schema in [json!({"type": "string"}), json!({"type": "object", "properties": {"a": {"not": {}}}})] {
        let tool = json!({"name": "f", "input_schema": schema, "strict": true});
        let request =
            json!({"max_tokens": 2, "messages": [{"role": "user", "content": "Hello!"}], "tools": [tool]});
        let reply = server.post("/v1/messages", &request);
        assert_eq!(reply.status, 400, "{reply:?}");
        assert!(
            reply.body.contains("tools.0.input_schema") && !reply.body.contains("parameters"),
            "{reply:?}"
        );
    }
}

#[test]
fn texts_of_custom_tools_follow_flags() {
    let server = crate::scripted::free();
    let ask = |definition: &str, tokens: usize, seed: u64| {
        let tool = patching(json!({"type": "grammar", "syntax": "lark", "definition": definition}));
        let request = json!({
            "input": "Get it.", "tools": [tool], "tool_choice": "required", "max_output_tokens": tokens, "temperature": 4, "seed": seed,
        });
        server.post("/v1/responses", &request).answer()["output"][0].clone()
    };
    for seed in 0..4 {
        let item = ask("start: \"get \"i NAME\nNAME: /(?i)[a-c]{3}/", 200, seed);
        let input = item["input"].as_str().unwrap_or_else(|| panic!("{item}"));
        let name = input.get(4..).filter(|_| input[..4].eq_ignore_ascii_case("get ")).expect(input);
        assert!(name.len() == 3 && name.bytes().all(|byte| b"abcABC".contains(&byte)), "{input:?}");
    }
    ask("start: /a/is ESCAPED_STRING\n%import common.ESCAPED_STRING", 2, 0);
}

#[test]
fn choices_of_tools_are_read_as_the_api_has_them() {
    let server = crate::scripted::free();
    let tools = json!([
        {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}, "additionalProperties": false}},
        {"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "regex", "definition": "[a-c]{3}"}},
        {"type": "namespace", "name": "g", "tools": [
            {"type": "custom", "name": "num", "format": {"type": "grammar", "syntax": "regex", "definition": "[0-9]{3}"}},
        ]},
    ]);
    let ask = |choice: &Value| {
        let request =
            json!({"input": "Hello!", "tools": tools, "tool_choice": choice, "max_output_tokens": 64});
        server.post("/v1/responses", &request)
    };
    for (choice, expected) in [
        (json!({"type": "function", "name": "f"}), "f"),
        (json!({"type": "custom", "name": "c"}), "c"),
        (json!({"type": "custom", "namespace": "g", "name": "num"}), "num"),
        (json!({"type": "custom", "name": "g__num"}), "num"),
    ] {
        assert_eq!(ask(&choice).answer()["output"][0]["name"], expected, "{choice}");
    }
    assert_eq!(ask(&json!("any")).status, 200);
    for (choice, part) in [
        (json!({"type": "custom"}), "{\"type\": \"function\" or \"custom\", \"name\": …}"),
        (json!("always"), "{\"type\": \"function\" or \"custom\", \"name\": …}"),
        (json!({"type": 7, "name": "f"}), "must be none"),
        (json!(7), "must be none"),
        (
            json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}),
            "\"allowed_tools\" is not supported",
        ),
        (json!({"type": "custom", "name": "f"}), "\"f\", which is a function"),
        (json!({"type": "function", "name": "c"}), "\"c\", which is a tool of the type custom"),
        (json!({"type": "custom", "name": "num"}), "namespace \"g\""),
        (json!({"type": "custom", "name": "nobody"}), "none of the tools"),
    ] {
        let reply = ask(&choice);
        reply.fails(400, Some("tool_choice"), None);
        let error = reply.json();
        assert!(
            error["error"]["message"].as_str().is_some_and(|text| text.contains(part)),
            "{choice}: {error}"
        );
    }
    // The older API has neither.
    for (choice, part) in [
        (json!({"type": "custom"}), "\"custom\" is not supported"),
        (json!({"type": "allowed_tools"}), "\"allowed_tools\" is not supported"),
        (json!({"type": "function"}), "{\"type\": \"function\", \"function\": {\"name\": …}}"),
    ] {
        let request = json!({"messages": [{"role": "user", "content": "Hello!"}], "tools": crate::scripted::tools(), "tool_choice": choice});
        let reply = server.post("/v1/chat/completions", &request);
        reply.fails(400, Some("tool_choice"), None);
        let error = reply.json();
        assert!(
            error["error"]["message"].as_str().is_some_and(|text| text.contains(part)),
            "{choice}: {error}"
        );
    }
}
