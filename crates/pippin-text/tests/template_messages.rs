//! What templates see of messages, and which messages are refused.

use pippin_text::{ChatTemplate, Content, ContentPart, Message, RenderInputs, Role, TextError, ToolCall};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

fn render(source: &str, messages: &[Message]) -> Result<String, TextError> {
    ChatTemplate::from_source("t", source).unwrap().render(&RenderInputs::new(messages))
}

fn message(value: Value) -> Message {
    Message::try_from(value).unwrap()
}

/// The message as a template prints it whole.
fn seen(value: Value) -> String {
    render("{{ messages[0] | tojson }}", &[message(value)]).unwrap()
}

#[test]
fn fields_keep_their_order_and_form() {
    let text = r#"{"name": "ann", "zeta": [1, 1.0, {"b": 1, "a": null}], "role": "user", "content": "Hi", "tool_calls": [], "alpha": true}"#;
    let message: Message = serde_json::from_str(text).unwrap();
    assert_eq!(render("{{ messages[0] | tojson }}", std::slice::from_ref(&message)).unwrap(), text);
    assert_eq!(serde_json::to_string(&message).unwrap(), text.replace(": ", ":").replace(", ", ","));
    // A call without `type` gets none.
    let text = r#"{"tool_calls": [{"index": 0, "function": {"arguments": {"b": 2, "a": 1}, "name": "f"}}], "role": "assistant", "content": ""}"#;
    assert_eq!(seen(serde_json::from_str(text).unwrap()), text);
    let tool = r#"{"function": {"parameters": {"z": 1, "a": 1.0}, "name": "f"}, "type": "function"}"#;
    let tools = [serde_json::from_str(tool).unwrap()];
    let template = ChatTemplate::from_source("t", "{{ tools[0] | tojson }}").unwrap();
    let messages = [Message::user("x")];
    assert_eq!(template.render(&RenderInputs::new(&messages).with_tools(&tools)).unwrap(), tool);
}

#[test]
fn numbers_keep_every_digit() {
    let text = r#"{"role": "user", "content": "", "n": [0.1, 47.376886500000005, 8.589973e-09, 1.7976931348623157e+308, 5e-324, 9007199254740993.0, 18446744073709551615, -9223372036854775808, 0.30000000000000004, 122.416294033786585]}"#;
    let expected = text
        .replace("9007199254740993.0", "9007199254740992.0")
        .replace("122.416294033786585", "122.41629403378658");
    assert_eq!(seen(serde_json::from_str(text).unwrap()), expected);
}

#[test]
fn nulls_are_absent() {
    let value =
        json!({"role": "user", "content": "x", "name": null, "tool_calls": null, "more": {"a": null}});
    assert_eq!(seen(value), r#"{"role": "user", "content": "x", "more": {"a": null}}"#);
}

#[test]
fn reasoning_is_where_templates_look_for_it() {
    // As in transformers, to the order of the fields.
    let expected = r#"{"thinking": "hm", "role": "assistant", "content": "x", "reasoning": "hm", "reasoning_content": "hm"}"#;
    assert_eq!(seen(json!({"role": "assistant", "content": "x", "reasoning": "hm"})), expected);
    // A template that refuses what was added sees the message without it: gpt-oss's refuses content beside thinking.
    let source = "{% for m in messages %}{% if m.content and m.thinking %}{{ raise_exception('both') }}{% endif %}\
                  {{ m.thinking }}{{ m.content }}{% endfor %}";
    let given = |name: &str| {
        message(json!({"role": "assistant", "content": "answer", name: "thought", "tool_calls": []}))
    };
    assert_eq!(render(source, &[given("reasoning_content")]).unwrap(), "answer");
    let error = render(source, &[given("thinking")]).unwrap_err();
    assert!(matches!(error, TextError::TemplateRefused { message, .. } if message == "both"));
}

/// Templates in the manner of DeepSeek ask for none and append arguments as text.
const ASKS_FOR_NONE: &str = "{% for m in messages %}{% if m['content'] is none %}{% for c in m['tool_calls'] %}\
    {{ 'call ' + c['function']['name'] + ' ' + c['function']['arguments'] }}{% endfor %}\
    {% else %}{{ 'says ' + m['content'] }}{% endif %};{% endfor %}";
/// Templates in the manner of Qwen 3 append content.
const APPENDS: &str = "{% for m in messages %}{{ 'says ' + m.content }}{% for c in m.tool_calls %}\
    {{ ' call ' + c.function.name + ' ' + (c.function.arguments | tojson) }}{% endfor %};{% endfor %}";

#[test]
fn calls_without_content_suit_every_template() {
    let call = json!([{"type": "function", "function": {"name": "f", "arguments": "{\"a\":1.0}"}}]);
    for calls in [
        json!({"role": "assistant", "content": null, "tool_calls": call}),
        json!({"role": "assistant", "tool_calls": call}),
    ] {
        let messages = [Message::user("x"), message(calls)];
        assert_eq!(render(ASKS_FOR_NONE, &messages).unwrap(), "says x;call f {\"a\":1.0};");
        assert_eq!(render(APPENDS, &messages).unwrap(), "says x;says  call f {\"a\": 1.0};");
    }
    let calls = [ToolCall::new("1", "f", json!({"a": 1})), ToolCall::new("2", "g", Value::Null)];
    let messages = [Message::user("x"), Message::assistant_calls(calls)];
    assert_eq!(render(ASKS_FOR_NONE, &messages).unwrap(), "says x;call f {\"a\": 1}call g {};");
    assert_eq!(render(APPENDS, &messages).unwrap(), "says x;says  call f {\"a\": 1} call g {};");
}

#[test]
fn one_rendering_is_enough_where_nothing_fails() {
    // Were the message rendered with an empty string first, or last, this would not be so.
    let messages = [message(json!({"role": "assistant", "content": null}))];
    assert_eq!(render("{{ messages[0].content is defined }}", &messages).unwrap(), "False");
    // All renderings share the limits of one.
    let source = "{% for i in range(20000) %}{% endfor %}{{ '' + messages[0].content }}";
    let limits = pippin_text::TemplateLimits { steps: 30_000, ..Default::default() };
    let template = ChatTemplate::from_source("t", source).unwrap().with_limits(limits);
    let error = template.render(&RenderInputs::new(&messages)).unwrap_err();
    assert!(matches!(error, TextError::TemplateLimit { .. }), "{error}");
}

#[test]
fn arguments_survive_as_they_are() {
    let seen = |arguments: Value| {
        let call = ToolCall::new("1", "f", arguments);
        let source = "{{ messages[0].tool_calls[0].function.arguments | tojson }}";
        render(source, &[Message::assistant_calls([call])])
    };
    for (arguments, expected) in [
        (r#"{"b": 1, "a": 1.0, "b": 2}"#, r#"{"b": 2, "a": 1.0}"#),
        (
            r#"{"n": 123456789012345678901234567890, "z": -0, "e": 1e5}"#,
            r#"{"n": 123456789012345678901234567890, "z": 0, "e": 100000.0}"#,
        ),
        (r#"{"x": NaN, "s": "\ud83c"}"#, "{\"x\": NaN, \"s\": \"\u{fffd}\"}"),
        ("", "{}"),
        ("  ", "{}"),
        ("{}", "{}"),
        // Not an object: the text itself.
        ("nonsense", "\"nonsense\""),
        ("[1]", "\"[1]\""),
        (r#"{"a": "#, r#""{\"a\": ""#),
        // A number that would be read as an infinity, and written as what is no JSON.
        (r#"{"x": 1e740}"#, r#""{\"x\": 1e740}""#),
    ] {
        assert_eq!(seen(arguments.into()).unwrap(), expected, "{arguments}");
    }
    assert_eq!(seen(Value::Null).unwrap(), "{}");
    assert_eq!(seen(json!({"b": 1.0, "a": [2]})).unwrap(), r#"{"b": 1.0, "a": [2]}"#);
}

#[test]
fn arguments_that_are_no_object_are_not_the_end() {
    let call = ToolCall::new("1", "f", "{\"a\": ".into());
    let messages = [Message::user("x"), Message::assistant_calls([call])];
    let items = "{% for m in messages %}{% for c in m.tool_calls %}{% for k, v in c.function.arguments | items %}\
                 {{ k }}={{ v }}{% endfor %}{% endfor %}{% endfor %}";
    assert_eq!(render(items, &messages).unwrap(), "arguments={\"a\": ");
    // Where nothing helps, the error is about the arguments.
    let error =
        render("{{ messages[1].tool_calls[0].function.arguments.a.b }}", &messages).unwrap_err().to_string();
    assert!(error.starts_with("messages[1].tool_calls[0].function.arguments is not valid JSON"), "{error}");
    assert!(error.contains("line 1"), "{error}");
}

#[test]
fn text_parts_of_every_name_are_text() {
    for (parts, expected) in [
        (json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "ab"),
        (
            json!([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b", "annotations": []}]),
            "ab",
        ),
        (json!(["a", {"text": "b"}]), "ab"),
        (json!([{"type": "refusal", "refusal": "no"}]), "no"),
        (json!([]), ""),
    ] {
        let message = message(json!({"role": "user", "content": parts}));
        assert_eq!(message.text().as_deref(), Some(expected));
        assert_eq!(render("{{ messages[0].content }}", &[message]).unwrap(), expected);
    }
}

#[test]
fn parts_that_the_model_does_not_take_are_named() {
    let image = json!({"type": "image_url", "image_url": {"url": "x"}});
    let given = json!({"role": "user", "content": [{"type": "input_text", "text": "a"}, image]});
    let messages = [Message::user("x"), message(given.clone())];
    assert_eq!(messages[1].text(), None);
    assert_eq!(serde_json::to_value(&messages[1]).unwrap(), given);
    let error = render("{{ messages | length }}", &messages).unwrap_err().to_string();
    assert_eq!(error, r#"messages[1].content[1] is a part of type "image_url"; this model takes text only"#);
    // For a model that takes them, they are there, and so is the text beside them.
    let template = ChatTemplate::from_source("t", "{{ messages[1].content | tojson }}").unwrap();
    let rendered = template.render(&RenderInputs::new(&messages).with_media(&["image_url"])).unwrap();
    assert_eq!(
        rendered,
        r#"[{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]"#
    );
    let error =
        template.render(&RenderInputs::new(&messages).with_media(&["audio"])).unwrap_err().to_string();
    assert!(error.contains("takes text and audio"), "{error}");
    for part in [
        json!({"image": "x.png"}),
        json!({"text": "a", "image": "x.png"}),
        json!({"type": "input_audio"}),
        json!({"type": "surprise"}),
    ] {
        let error =
            render("", &[message(json!({"role": "user", "content": [part]}))]).unwrap_err().to_string();
        assert!(error.starts_with("messages[0].content[0] is a part of type"), "{error}");
    }
    // What tools return is theirs, but an image in it is still an image.
    let tool = |content: Value| [message(json!({"role": "tool", "content": content}))];
    let source = "{{ messages[0].content | tojson }}";
    assert_eq!(
        render(source, &tool(json!([{"type": "bus", "line": 5}]))).unwrap(),
        r#"[{"type": "bus", "line": 5}]"#
    );
    assert!(render(source, &tool(json!([{"type": "image", "data": ""}]))).is_err());
}

#[test]
fn results_of_tools_may_be_any_json() {
    for content in [json!({"t": 18.0, "a": [1, null]}), json!([1, {"b": 2}]), json!(5), json!(true)] {
        let messages = [message(json!({"role": "tool", "content": content}))];
        let mut expected = content.to_string().replace(':', ": ").replace(',', ", ");
        assert_eq!(render("{{ messages[0].content | tojson }}", &messages).unwrap(), expected);
        // A template that takes text only gets the JSON text.
        expected.insert_str(0, "result: ");
        assert_eq!(render("{{ 'result: ' + messages[0].content }}", &messages).unwrap(), expected);
    }
}

/// The form before `tool_calls`: no template reads it.
#[test]
fn calls_of_the_older_form_are_not_lost() {
    let call =
        json!({"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}});
    let error = render("{{ messages[0].content }}", &[message(call)]).unwrap_err().to_string();
    assert!(error.starts_with("messages[0].function_call is the form of calls before"), "{error}");
    let null = json!({"role": "assistant", "content": "x", "function_call": null});
    assert_eq!(render("{{ messages[0].content }}", &[message(null)]).unwrap(), "x");
}

#[test]
fn wrong_fields_are_named() {
    for (value, expected) in [
        (json!(5), "messages[1] must be an object, found a number"),
        (json!({}), "messages[1].role is missing"),
        (json!({"role": 5}), "messages[1].role must be a string, found a number"),
        (
            json!({"role": "user", "content": 5}),
            "messages[1].content must be a string or a list of parts, found a number",
        ),
        (json!({"role": "user", "content": {}}), "messages[1].content must be a string or a list"),
        (json!({"role": "user", "content": [5]}), "messages[1].content[0] must be an object or a string"),
        (json!({"role": "user", "content": ["a", {}]}), "messages[1].content[1].type is missing"),
        (json!({"role": "user", "content": [{"type": 5}]}), "messages[1].content[0].type must be a string"),
        (json!({"role": "user", "content": [{"type": "text"}]}), "messages[1].content[0].text is missing"),
        (
            json!({"role": "user", "content": [{"type": "text", "text": 5}]}),
            "messages[1].content[0].text must be a string",
        ),
        (json!({"role": "user", "name": 5}), "messages[1].name must be a string"),
        (json!({"role": "tool", "tool_call_id": 5}), "messages[1].tool_call_id must be a string"),
        (
            json!({"role": "assistant", "tool_calls": {}}),
            "messages[1].tool_calls must be a list of tool calls, found an object",
        ),
        (json!({"role": "assistant", "tool_calls": [5]}), "messages[1].tool_calls[0] must be an object"),
        (json!({"role": "assistant", "tool_calls": [{}]}), "messages[1].tool_calls[0].function is missing"),
        (
            json!({"role": "assistant", "tool_calls": [{"function": 5}]}),
            "messages[1].tool_calls[0].function must be an object",
        ),
        (
            json!({"role": "assistant", "tool_calls": [{"function": {}}]}),
            "messages[1].tool_calls[0].function.name is missing",
        ),
        (
            json!({"role": "assistant", "tool_calls": [{"name": 5}]}),
            "messages[1].tool_calls[0].name must be a string",
        ),
        (
            json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}),
            "messages[1].tool_calls[0].function.arguments must be an object or a string of JSON, found a list",
        ),
    ] {
        let error = Message::from_values([json!({"role": "user"}), value]).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    // The constructor takes any arguments; rendering does not.
    let messages = [Message::assistant_calls([ToolCall::new("1", "f", json!(5))])];
    let error = render("", &messages).unwrap_err().to_string();
    assert!(error.starts_with("messages[0].tool_calls[0].function.arguments"), "{error}");
    let error = serde_json::from_str::<Message>(r#"{"role": "user", "content": 5}"#).unwrap_err().to_string();
    assert!(error.starts_with("content must be a string or a list of parts"), "{error}");
    let mut deep = json!(1);
    for _ in 0..500 {
        deep = json!([deep]);
    }
    let error =
        render("", &[message(json!({"role": "user", "content": "", "deep": deep}))]).unwrap_err().to_string();
    assert!(error.starts_with("messages[0].deep cannot be rendered: "), "{error}");
}

#[test]
fn typed_accessors_read_what_was_given() {
    let text = r#"{"role":"assistant","content":null,"refusal":null,"reasoning":"hm","name":"ann","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"},"index":0},{"name":"g"}]}"#;
    let message: Message = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&message).unwrap(), text);
    assert_eq!((message.role(), message.content(), message.text()), (Role::Assistant, None, None));
    assert_eq!(
        (message.reasoning(), message.name(), message.tool_call_id()),
        (Some("hm"), Some("ann"), None)
    );
    let calls = message.tool_calls();
    assert_eq!(calls[0], ToolCall::new("1", "f", "{\"a\": 1}".into()));
    assert_eq!((calls[1].id.as_deref(), calls[1].function.name.as_str()), (None, "g"));

    let made = Message::assistant("x").with_name("ann").with_reasoning("hm").with_tool_calls(calls);
    assert_eq!((made.reasoning(), made.tool_calls().len()), (Some("hm"), 2));
    assert_eq!(Message::tool("7", "x").tool_call_id(), Some("7"));
    let parts = Content::Parts(vec![ContentPart::text("a"), ContentPart::text("b")]);
    let message = Message::user(parts.clone());
    assert_eq!((message.content(), message.text().as_deref()), (Some(parts), Some("ab")));
}

#[test]
fn only_text_is_continued() {
    let continued = |source: &str, value: Value| {
        let messages = [Message::user("x"), message(value)];
        let inputs = RenderInputs {
            add_generation_prompt: false,
            continue_final_message: true,
            media: &["image"],
            ..RenderInputs::new(&messages)
        };
        ChatTemplate::from_source("t", source).unwrap().render(&inputs).map_err(|error| error.to_string())
    };
    let plain = "{% for m in messages %}<{{ m.content }}>{% endfor %}";
    assert_eq!(continued(plain, json!({"role": "assistant", "content": "a "})).unwrap(), "<x><a ");
    let trims = "{% for m in messages %}<{{ m.content | trim }}>{% endfor %}";
    assert_eq!(continued(trims, json!({"role": "assistant", "content": "a "})).unwrap(), "<x><a");
    let parts = json!([{"type": "image"}, {"type": "text", "text": "a"}, {"type": "image"}]);
    let lists = "{% for p in messages[1].content %}<{{ p.text }}>{% endfor %}";
    assert_eq!(continued(lists, json!({"role": "user", "content": parts})).unwrap(), "<><a");
    // Content that is not there stays so while the last message is continued.
    let strict = "{% for m in messages %}{{ '<' + m.content + '>' }}{% endfor %}";
    assert_eq!(continued(strict, json!({"role": "assistant", "content": "a"})).unwrap(), "<x><a");
    for (source, value) in [
        (plain, json!({"role": "assistant", "content": null})),
        (plain, json!({"role": "assistant"})),
        (plain, json!({"role": "tool", "content": {"a": 1}})),
        (plain, json!({"role": "user", "content": [{"type": "image"}]})),
        ("nothing", json!({"role": "assistant", "content": "a"})),
    ] {
        let error = continued(source, value).unwrap_err();
        assert!(
            error.starts_with("messages[1].content") && error.ends_with("cannot be continued"),
            "{error}"
        );
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec!["", "text", "user", "tool", "{\"a\": 1}", "image", "{", "é"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        let names = vec![
            "role",
            "content",
            "type",
            "text",
            "tool_calls",
            "function",
            "name",
            "arguments",
            "thinking",
            "reasoning",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(names), inner), 0..6).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(9), ..ProptestConfig::with_cases(400) })]

    /// Whatever is given for a message ends in a text or an error, never in a panic.
    #[test]
    fn any_json_is_rendered_or_refused(mut value in any_json(), role in any::<bool>()) {
        if let (Value::Object(fields), true) = (&mut value, role) {
            fields.insert("role".to_owned(), "assistant".into());
        }
        let Ok(message) = Message::try_from(value) else { return Ok(()) };
        for source in [ASKS_FOR_NONE, APPENDS, "{{ messages | tojson }}"] {
            if let Err(error) = render(source, std::slice::from_ref(&message)) {
                prop_assert!(!error.to_string().contains("internal error"), "{error}");
            }
        }
        _ = (message.content(), message.text(), message.tool_calls(), message.reasoning());
    }
}
