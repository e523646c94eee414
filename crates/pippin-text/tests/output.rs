//! Answers taken apart: what real templates show of calls, as the model would write it, comes back as the same calls.

use std::fs;
use std::path::Path;

use pippin_text::{
    ChatTemplate, Dialect, Message, OutputEvent, OutputFormat, OutputParser, ParsedOutput, RenderInputs,
    SpecialTokens, ToolCall,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const THOUGHT: &str = "The user wants 1 < 2 forecasts.";
const TEXT: &str = "Let me look.";

fn tools() -> Vec<Value> {
    let properties = json!({
        "city": {"type": "string", "description": "Where."},
        "days": {"type": "integer", "description": "How many."},
        "opts": {"type": "object", "description": "More."},
    });
    let parameters = json!({"type": "object", "properties": properties, "required": ["city"]});
    vec![
        json!({"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": parameters}}),
    ]
}

fn template(name: &str) -> ChatTemplate {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/published").join(format!("{name}.jinja"));
    ChatTemplate::from_source(name, fs::read_to_string(path).unwrap()).unwrap()
}

/// Calls with values that some dialects write in ways of their own.
fn arguments(count: usize) -> Vec<Value> {
    let all = [
        json!({"city": "Paris, {the} \"5th\"", "days": 3, "opts": {"deep": [true, "x y", 1.5], "flat": {"a": false}}}),
        json!({"city": "Rome"}),
    ];
    all[..count].to_vec()
}

/// What a model is asked and what it answers, by its template.
fn transcript(case: &Case) -> (String, String) {
    let template = template(case.template);
    let calls = arguments(case.calls)
        .into_iter()
        .enumerate()
        .map(|(at, arguments)| ToolCall::new(format!("call0000{at}"), "get_weather", arguments));
    let mut answer = match case.text {
        "" => Message::assistant_calls(calls),
        text => Message::assistant(text).with_tool_calls(calls),
    };
    if !case.thought.is_empty() {
        answer = answer.with_reasoning(case.thought);
    }
    let messages = [Message::user("Weather?"), answer];
    let tools = tools();
    let extra: Map<String, Value> = [("enable_thinking".to_owned(), json!(true))].into_iter().collect();
    let render = |messages: &[Message], add_generation_prompt| {
        let inputs = RenderInputs { add_generation_prompt, ..RenderInputs::new(messages) };
        let special = [("bos_token", "<bos>"), ("eos_token", "<eos>")].into_iter().collect::<SpecialTokens>();
        template.render(&inputs.with_tools(&tools).with_extra(&extra).with_special_tokens(&special)).unwrap()
    };
    let prompt = render(&messages[..1], true);
    let whole = render(&messages, false);
    let shared = prompt.bytes().zip(whole.bytes()).take_while(|(a, b)| a == b).count();
    let shared = (0..=shared).rev().find(|at| whole.is_char_boundary(*at)).unwrap();
    // Where prompt and answer differ within a mark, the answer has the whole mark.
    let open = whole[..shared].rfind('<').filter(|at| !whole[*at..shared].contains('>'));
    let shared = open.unwrap_or(shared);
    let answer = &whole[shared..];
    let answer = if case.stop.is_empty() { answer } else { answer.split_once(case.stop).unwrap().0 };
    (prompt, answer.to_owned())
}

fn parse(parser: &mut OutputParser, pieces: impl IntoIterator<Item = impl AsRef<str>>) -> ParsedOutput {
    let mut output = ParsedOutput::default();
    for piece in pieces {
        output.extend(parser.push(piece.as_ref()));
    }
    output.extend(parser.finish());
    output
}

fn characters(text: &str) -> impl Iterator<Item = String> {
    text.chars().map(String::from)
}

struct Case {
    template: &'static str,
    dialect: Dialect,
    thought: &'static str,
    text: &'static str,
    calls: usize,
    /// What ends the answer, and is not part of it.
    stop: &'static str,
}

fn case(template: &'static str, dialect: Dialect, stop: &'static str) -> Case {
    Case { template, dialect, thought: THOUGHT, text: TEXT, calls: 2, stop }
}

impl Case {
    fn without_thought(self) -> Self {
        Self { thought: "", ..self }
    }

    fn without_text(self) -> Self {
        Self { text: "", ..self }
    }

    fn with_one_call(self) -> Self {
        Self { calls: 1, ..self }
    }
}

fn cases() -> Vec<Case> {
    use Dialect::{
        DeepSeekV3, DeepSeekV32, FunctionaryV31, FunctionaryV32, Gemma4, Glm4, Harmony, Hermes, Json, KimiK2,
        KimiK3, Llama3, MiniCpm5, MiniMaxM2, MiniMaxM3, Mistral, Muse, Pythonic, Qwen3Coder, Solar,
    };
    let bot = "<｜end▁of▁sentence｜>";
    vec![
        case("Apertus-8B-Instruct", Json, "").without_thought(),
        case("Apriel-1.6-15b-Thinker-fixed", Json, ""),
        case("Bielik-11B-v3.0-Instruct", Hermes, "<|im_end|>"),
        case("ByteDance-Seed-OSS", Qwen3Coder, "<seed:eos>"),
        case("Cohere2MoE", Json, "<|END_OF_TURN_TOKEN|>").without_text(),
        case("CohereForAI-c4ai-command-r7b-12-2024-tool_use", Json, "<|END_OF_TURN_TOKEN|>").without_text(),
        case("GLM-4.6", Glm4, ""),
        case("GLM-4.7-Flash", Glm4, ""),
        case("GigaChat3.1-10B-A1.8B", Json, "").without_thought().with_one_call(),
        case("Kimi-K3", KimiK3, ""),
        case("LFM2.5-8B-A1B", Pythonic, "<|im_end|>"),
        case("MiMo-VL", Hermes, "<|im_end|>").without_thought(),
        case("MiniMax-M1", Json, "<end_of_sentence>").without_thought().without_text(),
        case("MiniMax-M2", MiniMaxM2, "[e~["),
        case("MiniMax-M3", MiniMaxM3, "[e~["),
        case("Mistral-Small-3.2-24B-Instruct-2506", Mistral, "<eos>").without_thought().without_text(),
        case("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", Qwen3Coder, "<|im_end|>"),
        case("NVIDIA-Nemotron-Nano-v2", Json, "<SPECIAL_12>").without_thought().without_text(),
        case("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", Hermes, "<|im_end|>")
            .without_thought()
            .without_text(),
        case("NousResearch-Hermes-3-Llama-3.1-8B-tool_use", Hermes, "<|im_end|>")
            .without_thought()
            .without_text(),
        case("Qwen-Qwen2.5-7B-Instruct", Hermes, "<|im_end|>").without_thought(),
        case("Qwen-QwQ-32B", Hermes, "<|im_end|>").without_thought().without_text(),
        case("Qwen-Qwen3-0.6B", Hermes, "<|im_end|>"),
        case("Qwen3-Coder", Qwen3Coder, "<|im_end|>").without_thought(),
        case("Qwen3.5-4B", Qwen3Coder, "<|im_end|>"),
        case("Reka-Edge", Hermes, "<sep>"),
        case("Spark2.5", Glm4, bot),
        case("StepFun3.5-Flash", Qwen3Coder, "<|im_end|>"),
        case("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", DeepSeekV3, bot).without_thought().without_text(),
        case("deepseek-ai-DeepSeek-V3.1", DeepSeekV3, bot).without_thought(),
        case("deepseek-ai-DeepSeek-V3.2", DeepSeekV32, bot),
        case("deepseek-ai-DeepSeek-V4", DeepSeekV32, bot),
        case("deepseek-ai-DeepSeek-V4-Flash-0731", DeepSeekV32, bot),
        case("google-gemma-4-31B-it", Gemma4, "<|tool_response>"),
        case("google-gemma-4-31B-it-interleaved", Gemma4, "<turn|>"),
        case("ibm-granite-granite-4.0", Hermes, "<|end_of_text|>").without_thought(),
        case("ibm-granite-granite-4.1", Hermes, "<|end_of_text|>").without_thought(),
        case("inclusionai-ling-3.0-flash", Glm4, "<|role_end|>"),
        case("meetkai-functionary-medium-v3.1", FunctionaryV31, "<|eom_id|>").without_thought(),
        case("meetkai-functionary-medium-v3.2", FunctionaryV32, "<|eot_id|>").without_thought(),
        case("meta-llama-Llama-3.1-8B-Instruct", Llama3, "<|eot_id|>")
            .without_thought()
            .without_text()
            .with_one_call(),
        case("meta-llama-Llama-3.2-3B-Instruct", Llama3, "<|eot_id|>")
            .without_thought()
            .without_text()
            .with_one_call(),
        case("meta-llama-Llama-3.3-70B-Instruct", Llama3, "<|eot_id|>")
            .without_thought()
            .without_text()
            .with_one_call(),
        case("mistralai-Ministral-3-14B-Reasoning-2512", Mistral, "<eos>").without_thought(),
        case("mistralai-Mistral-Nemo-Instruct-2407", Mistral, "<eos>").without_thought().without_text(),
        case("moonshotai-Kimi-K2", KimiK2, "<|im_end|>").without_thought(),
        case("muse-glimmer", Muse, "<|eot|>").without_text(),
        case("openai-gpt-oss-120b", Harmony, "<|call|>").without_text().with_one_call(),
        case("openbmb-MiniCPM5-1B", MiniCpm5, "<|im_end|>"),
        case("poolside-Laguna-S-2.1", Glm4, "</assistant>"),
        case("poolside-Laguna-XS-2.1", Glm4, "</assistant>"),
        case("tencent-Hy3", Glm4, "<｜hy_eos:opensource｜>").without_thought(),
        case("unsloth-Apriel-1.5", Json, "\n<|end|>").without_thought(),
        case("unsloth-mistral-Devstral-Small-2507", Mistral, "<eos>").without_thought(),
        case("upstage-Solar-Open-100B", Solar, "<|calls|>").without_thought().without_text(),
    ]
}

#[test]
fn calls_come_back_as_templates_show_them() {
    let mut wrong = Vec::new();
    for case in cases() {
        let format = OutputFormat::from_template(template(case.template).source(true));
        let (prompt, answer) = transcript(&case);
        if format.dialect() != Some(case.dialect) {
            wrong.push(format!("{}: {:?} instead of {:?}", case.template, format.dialect(), case.dialect));
            continue;
        }
        let whole = parse(&mut format.parser(&tools(), &prompt), [&answer]);
        let calls: Vec<(&str, &Value)> = whole
            .tool_calls
            .iter()
            .map(|call| (call.function.name.as_str(), &call.function.arguments))
            .collect();
        let arguments = arguments(case.calls);
        let expected: Vec<(&str, &Value)> = arguments.iter().map(|value| ("get_weather", value)).collect();
        if (whole.reasoning.as_str(), whole.content.as_str(), &calls) != (case.thought, case.text, &expected)
        {
            wrong.push(format!("{}: {whole:?} from {answer:?}", case.template));
        }
        let one_by_one = parse(&mut format.parser(&tools(), &prompt), characters(&answer));
        if whole != one_by_one {
            wrong.push(format!("{}: {whole:?} and, in characters, {one_by_one:?}", case.template));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The transcripts again, in pieces of any length.
#[test]
fn cuts_change_nothing() {
    let all: Vec<_> = cases()
        .iter()
        .map(|case| {
            let (prompt, answer) = transcript(case);
            (OutputFormat::from_template(template(case.template).source(true)), prompt, answer)
        })
        .collect();
    let pieces = (0..all.len(), prop::collection::vec(1..12_usize, 1..40));
    proptest!(|((index, lengths) in pieces)| {
        let (format, prompt, answer) = &all[index];
        let mut lengths = lengths.iter().cycle();
        let mut rest = answer.as_str();
        let cut = std::iter::from_fn(|| {
            let length = *lengths.next()?;
            let at = rest.char_indices().nth(length).map_or(rest.len(), |(at, _)| at);
            let (piece, next) = rest.split_at(at);
            rest = next;
            (!piece.is_empty()).then_some(piece)
        });
        let pieces: Vec<&str> = cut.collect();
        let cut = parse(&mut format.parser(&tools(), prompt), pieces);
        prop_assert_eq!(cut, parse(&mut format.parser(&tools(), prompt), [answer]));
    });
}

fn read(format: &OutputFormat, prompt: &str, answer: &str) -> ParsedOutput {
    let whole = parse(&mut format.parser(&tools(), prompt), [answer]);
    let one_by_one = parse(&mut format.parser(&tools(), prompt), characters(answer));
    assert_eq!(whole, one_by_one, "{answer:?}");
    whole
}

fn calls(output: &ParsedOutput) -> Vec<(String, Value)> {
    let call = |call: &ToolCall| (call.function.name.clone(), call.function.arguments.clone());
    output.tool_calls.iter().map(call).collect()
}

fn call(city: &str) -> (String, Value) {
    ("get_weather".to_owned(), json!({"city": city}))
}

#[test]
fn dialects_without_a_template_here() {
    let cases = [
        (
            Dialect::FunctionGemma,
            "<start_function_call>call:get_weather{city:<escape>Rome, {Italy}<escape>,days:3,fast:true}<end_function_call>",
            json!({"city": "Rome, {Italy}", "days": 3, "fast": true}),
        ),
        (
            Dialect::LongCat,
            "<longcat_tool_call>get_weather\n<longcat_arg_key>city</longcat_arg_key>\n<longcat_arg_value>5</longcat_arg_value>\n\
             <longcat_arg_key>days</longcat_arg_key>\n<longcat_arg_value>3</longcat_arg_value>\n</longcat_tool_call>",
            json!({"city": "5", "days": 3}),
        ),
        (
            Dialect::LongCat,
            "<longcat_tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}</longcat_tool_call>",
            json!({"city": "Rome"}),
        ),
        (
            Dialect::Hermes,
            "<tool_call>[{\"name\": \"get_weather\", \"arguments\": \"{\\\"days\\\": 1}\"}]</tool_call>",
            json!({"days": 1}),
        ),
        (
            // Granite 3 and Phi 4.
            Dialect::Hermes,
            "<|tool_call|>[{\"name\": \"get_weather\", \"parameters\": {\"days\": 1}}]<|/tool_call|>",
            json!({"days": 1}),
        ),
        (
            Dialect::Hermes,
            "<tool_call>{'name': 'get_weather', 'arguments': {'deep': True}}</tool_call>",
            json!({"deep": true}),
        ),
        (
            Dialect::Llama3,
            "<|python_tag|>{\"type\": \"function\", \"name\": \"get_weather\", \"parameters\": {\"city\": \"a;b\"}}<|eom_id|>",
            json!({"city": "a;b"}),
        ),
        (Dialect::Llama3, "<|python_tag|>get_weather.call(city=\"Rome\")<|eom_id|>", json!({"city": "Rome"})),
        (Dialect::Llama3, "<function=get_weather>{\"city\": \"Rome\"}</function>", json!({"city": "Rome"})),
        (Dialect::Mistral, "[TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": {}}]", json!({})),
        (
            Dialect::Qwen3Coder,
            "<function=get_weather>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
            json!({"days": 3}),
        ),
        (Dialect::Glm4, "<tool_call>get_weather</tool_call>", json!({})),
        (
            Dialect::MiniCpm5,
            "<function name=\"get_weather\"><param name=\"city\"><![CDATA[</param>&]]></param></function>",
            json!({"city": "</param>&"}),
        ),
        (
            Dialect::KimiK3,
            "<|open|>tools<|sep|><|open|>call tool=\"get_weather\"<|sep|><|open|>json type=\"object\"<|sep|>{\"days\": 3}\
             <|close|>json<|sep|><|close|>call<|sep|><|close|>tools<|sep|>",
            json!({"days": 3}),
        ),
        (
            Dialect::Pythonic,
            "<|tool_call_start|>[get_weather(city=\"<|tool_call_end|>\", opts={\"a\": null}, list=[1, 'b'])]<|tool_call_end|>",
            json!({"city": "<|tool_call_end|>", "opts": {"a": null}, "list": [1, "b"]}),
        ),
    ];
    for (dialect, answer, arguments) in cases {
        let output = read(&dialect.into(), "", answer);
        assert_eq!(calls(&output), [("get_weather".to_owned(), arguments)], "{dialect:?}: {output:?}");
        assert_eq!((output.content.as_str(), output.reasoning.as_str()), ("", ""), "{dialect:?}");
    }
}

/// What the mark of one Gemma is, is text for the other.
#[test]
fn gemmas_have_marks_of_their_own() {
    let answer = "<|tool_call>call:get_weather{city:<|\"|>a <escape> b<|\"|>,days:3}<tool_call|>";
    let output = read(&Dialect::Gemma4.into(), "", answer);
    assert_eq!(calls(&output), [("get_weather".to_owned(), json!({"city": "a <escape> b", "days": 3}))]);
}

/// Types are followed through references, and lists are no objects.
#[test]
fn types_of_arguments_are_followed() {
    let tools = [json!({"type": "function", "function": {"name": "f", "parameters": {
        "type": "object",
        "properties": {"days": {"$ref": "#/$defs/days"}, "one": {"type": ["string", "array"]}, "itself": {"$ref": "#/properties/itself"}},
        "$defs": {"days": {"type": "integer"}},
    }}})];
    let answer = "<tool_call>\n<function=f>\n<parameter=days>\n3\n</parameter>\n<parameter=one>\n{\"a\": 1}\n</parameter>\n\
        <parameter=itself>\nx\n</parameter>\n</function>\n</tool_call>";
    let output = parse(&mut OutputFormat::from(Dialect::Qwen3Coder).parser(&tools, ""), [answer]);
    assert_eq!(calls(&output), [("f".to_owned(), json!({"days": 3, "one": "{\"a\": 1}", "itself": "x"}))]);
}

#[test]
fn mistral_repeats_without_its_mark() {
    let answer = "Now: [TOOL_CALLS]get_weather[ARGS]{\"city\": \"Rome\"}get_weather[ARGS]{\"city\": \"Oslo\"} That was it [ok].";
    let output = read(&Dialect::Mistral.into(), "", answer);
    assert_eq!(calls(&output), [call("Rome"), call("Oslo")]);
    assert_eq!(output.content, "Now:That was it [ok].");
}

#[test]
fn llama_calls_only_what_there_is() {
    let format = OutputFormat::from(Dialect::Llama3);
    let two = "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Rome\"}}; {\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\"}}";
    assert_eq!(calls(&read(&format, "", two)), [call("Rome"), call("Oslo")]);
    for text in [
        "{\"name\": \"Paris\", \"parameters\": {}}",
        "{\"answer\": {\"name\": \"get_weather\"}}",
        " { x } ",
        "{}",
        "See {\"name\": \"get_weather\", \"parameters\": {}}",
    ] {
        let output = read(&format, "", text);
        assert_eq!((output.content.as_str(), output.tool_calls.len()), (text, 0));
    }
}

#[test]
fn channels_of_harmony() {
    let format = OutputFormat::from(Dialect::Harmony);
    let prompt = "<|start|>user<|message|>Weather?<|end|><|start|>assistant";
    let answer = "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant<|channel|>commentary<|message|>Wait.<|end|>\
        <|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"Rome\"}<|call|>\
        <|start|>assistant<|channel|>final<|message|>Sunny. <b>Really</b>.<|return|>";
    let output = read(&format, prompt, answer);
    assert_eq!(
        (output.reasoning.as_str(), output.content.as_str()),
        ("Think.", "Wait.Sunny. <b>Really</b>.")
    );
    assert_eq!(calls(&output), [call("Rome")]);
    // A call that was cut off is text, a header nothing.
    let output = read(&format, prompt, " to=functions.f<|channel|>commentary json<|message|>{\"a\": ");
    assert_eq!(output.content, " to=functions.f<|channel|>commentary json<|message|>{\"a\": ".trim_start());
    assert!(read(&format, prompt, "<|channel|>ana").is_empty());
    // An answer without a header.
    assert_eq!(read(&format, prompt, "Hello there.").content, "Hello there.");
}

#[test]
fn functionary_names_recipients() {
    let format = OutputFormat::from(Dialect::FunctionaryV32);
    let output = read(
        &format,
        "assistant\n\n>>>",
        "all\nIn Python:\n>>> print(1)\n>>>other\n>>>get_weather\n{\"city\": \"Rome\"}",
    );
    assert_eq!(output.content, "In Python:\n>>> print(1)\n>>>other");
    assert_eq!(calls(&output), [call("Rome")]);
}

#[test]
fn thoughts() {
    let format = OutputFormat::from(Dialect::Hermes).with_reasoning_marks("<think>", "</think>");
    let parts = |prompt: &str, answer: &str| {
        let output = read(&format, prompt, answer);
        (output.reasoning, output.content)
    };
    let pair = |thought: &str, text: &str| (thought.to_owned(), text.to_owned());
    assert_eq!(parts("", "<think>\n1 < 2\n</think>\n\nYes. \n"), pair("1 < 2", "Yes. \n"));
    assert_eq!(parts("<think>\n", "1 < 2\n</think>\n\nYes."), pair("1 < 2", "Yes."));
    assert_eq!(parts("<think>\n\n</think>\n\n", "Yes."), pair("", "Yes."));
    assert_eq!(parts("<think>\n", "cut off "), pair("cut off", ""));
    assert_eq!(parts("", " \n<thin </think> <think"), pair("", " \n<thin </think> <think"));
    // A call within a thought, as some models make them.
    let output =
        read(&format, "<think>", "So\n<tool_call>{\"name\": \"get_weather\"}</tool_call>\n</think>Done.");
    assert_eq!((output.reasoning.as_str(), output.content.as_str()), ("So", "Done."));
    assert_eq!(output.tool_calls.len(), 1);
}

/// What is no call is the text that it is; so is what stands around calls.
#[test]
fn malformed_calls_are_text() {
    let good = "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}</tool_call>";
    for bad in [
        "<tool_call>{\"name\": \"get_weather\", \"arguments\": [1]}</tool_call>",
        "<tool_call>{\"name\": 3, \"arguments\": {}}</tool_call>",
        "<tool_call>{\"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome}}</tool_call>",
        "<tool_call>{broken}</tool_call>",
        "<tool_call></tool_call>",
        "<tool_call> is how calls begin",
        "<tool_call>\n{\"name\": \"get_weather\", ",
        "<tool_call",
        "</tool_call>",
    ] {
        let format = OutputFormat::from(Dialect::Hermes);
        assert_eq!(read(&format, "", bad).content, bad);
        let output = read(&format, "", &format!("First {bad} then\n{good}\nlast"));
        assert_eq!(calls(&output), [call("Rome")], "{bad}: {output:?}");
        assert_eq!(output.content, format!("First {bad} thenlast"));
    }
    // The mark at the end was forgotten.
    let output =
        read(&Dialect::Hermes.into(), "", &format!("{}\n{good}", good.trim_end_matches("</tool_call>")));
    assert_eq!(calls(&output), [call("Rome"), call("Rome")]);
    let output = read(&Dialect::Hermes.into(), "", good.trim_end_matches("</tool_call>"));
    assert_eq!(calls(&output), [call("Rome")]);

    let others = [
        (Dialect::Qwen3Coder, "<tool_call>\n<function=f>\n<parameter=a>\n1\n</function>\n</tool_call>"),
        (Dialect::Qwen3Coder, "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n"),
        (Dialect::Glm4, "<tool_call>f<arg_key>a</arg_key><arg_value>1</tool_call>"),
        (Dialect::Glm4, "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n"),
        (Dialect::Gemma4, "<|tool_call>call:f{a:<|\"|>x}<tool_call|>"),
        (Dialect::FunctionGemma, "<start_function_call>run:f{}<end_function_call>"),
        (Dialect::KimiK2, "<|tool_call_begin|>functions.f:0{}<|tool_call_end|>"),
        (Dialect::KimiK3, "<|open|>tools<|sep|><|open|>call<|sep|><|close|>call<|sep|><|close|>tools<|sep|>"),
        (
            Dialect::MiniMaxM2,
            "<minimax:tool_call><invoke name=\"f\"><parameter name=\"a\">1</invoke></minimax:tool_call>",
        ),
        (Dialect::DeepSeekV3, "<｜tool▁call▁begin｜>f<｜tool▁sep｜>[]<｜tool▁call▁end｜>"),
        (Dialect::DeepSeekV32, "<｜DSML｜tool_calls>text</｜DSML｜tool_calls>"),
        (Dialect::Mistral, "[TOOL_CALLS]Paris is nice"),
        (Dialect::Mistral, "[TOOL_CALLS]f[ARGS]{\"a\": "),
        (Dialect::Pythonic, "<|tool_call_start|>[f(1)]<|tool_call_end|>"),
        (Dialect::MiniCpm5, "<function name=\"f\"><param>1</param></function>"),
        (Dialect::Muse, "<atem:function_calls>f()</atem:function_calls>"),
        (Dialect::Solar, "<|tool_call:begin|>1<|tool_call:name|>f<|tool_call:end|>"),
    ];
    for (dialect, bad) in others {
        let output = read(&dialect.into(), "", &format!("Look:\n{bad}"));
        assert_eq!(
            (output.content.as_str(), output.tool_calls.len()),
            (format!("Look:\n{bad}").as_str(), 0),
            "{dialect:?}"
        );
    }
}

const ALL: [Dialect; 22] = [
    Dialect::Hermes,
    Dialect::Json,
    Dialect::Llama3,
    Dialect::Mistral,
    Dialect::Qwen3Coder,
    Dialect::Glm4,
    Dialect::LongCat,
    Dialect::FunctionGemma,
    Dialect::Gemma4,
    Dialect::KimiK2,
    Dialect::KimiK3,
    Dialect::MiniMaxM2,
    Dialect::MiniMaxM3,
    Dialect::DeepSeekV32,
    Dialect::DeepSeekV3,
    Dialect::Harmony,
    Dialect::Pythonic,
    Dialect::FunctionaryV31,
    Dialect::FunctionaryV32,
    Dialect::MiniCpm5,
    Dialect::Muse,
    Dialect::Solar,
];

#[test]
fn plain_text_is_what_it_was() {
    let text = "\n Some text: f(x) < 3 && {\"a\": [1]}.\n\n```rust\nlet é = '<';\n```\n ";
    for dialect in ALL {
        assert_eq!(read(&dialect.into(), "", text).content, text, "{dialect:?}");
    }
    assert_eq!(
        read(&OutputFormat::default(), "", "<tool_call>{}</tool_call>").content,
        "<tool_call>{}</tool_call>"
    );
}

/// Texts made of marks and of what stands between them.
fn wild() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "<tool_call>",
        "</tool_call>",
        "<tool_calls>",
        "<think>",
        "</think>",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[CALL_ID]",
        "<function=",
        "f",
        ">",
        "<parameter=",
        "a",
        "</parameter>",
        "</function>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "<start_function_call>",
        "<end_function_call>",
        "<escape>",
        "call:",
        "{",
        "}",
        "[",
        "]",
        "<|tool_call>",
        "<tool_call|>",
        "<|\"|>",
        "\"",
        "'",
        "\\",
        "\\u",
        "(",
        ")",
        "=",
        ",",
        ":",
        ";",
        "\n",
        " ",
        "é",
        "｜",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        "<|open|>",
        "<|close|>",
        "<|sep|>",
        "tools",
        "call tool=\"f\"",
        "argument key=\"a\"",
        "<minimax:tool_call>",
        "</minimax:tool_call>",
        "<invoke name=\"f\">",
        "</invoke>",
        "]<]minimax[>[",
        "<item>",
        "<｜DSML｜tool_calls>",
        "</｜DSML｜tool_calls>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "```",
        "<｜tool▁call▁end｜>",
        "<|start|>",
        "<|channel|>",
        "<|message|>",
        "analysis",
        "to=functions.f",
        "<|call|>",
        "<|end|>",
        "<|tool_call_start|>",
        "<|tool_call_end|>",
        ">>>",
        "all\n",
        "<function name=",
        "<param name=\"a\">",
        "<![CDATA[",
        "]]>",
        "</param>",
        "<atem:function_calls>",
        "{\"name\": \"f\", \"arguments\": {}}",
        "1",
        "<longcat_tool_call>",
    ]);
    prop::collection::vec(parts, 0..60).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_text_fails_and_none_depends_on_cuts(text in wild(), dialect in prop::sample::select(ALL.to_vec())) {
        let format = OutputFormat::from(dialect).with_reasoning_marks("<think>", "</think>");
        for prompt in ["", "<think>", "<|start|>assistant", ">>>"] {
            let whole = parse(&mut format.parser(&tools(), prompt), [&text]);
            let one_by_one = parse(&mut format.parser(&tools(), prompt), characters(&text));
            prop_assert_eq!(whole, one_by_one);
        }
    }
}

/// Texts that a careless parser takes quadratic time for, or that it would have to keep.
#[test]
fn long_answers_take_linear_time() {
    let count = 1 << 15;
    let parts = [
        "<tool_call>",
        "<tool_call>{\"",
        "[TOOL_CALLS]",
        "[TOOL_CALLS]a",
        "<function=a>",
        "<parameter=a>",
        " ",
        "\n",
        "<|channel|>",
        "<|start|>",
        ">>>",
        ">>>all\n",
        "<arg_key>a",
        "{\"",
        "[",
        "<escape>",
        "<tool_call><function=f><parameter=a>",
        "</tool_call>\"",
        "<![CDATA[",
        "<function name=\"a\"><param name=\"b\"><![CDATA[</param>",
        "<|tool_call>call:f{a:",
        "\\",
        "é",
        "<think></think>",
        "<|open|>",
        "]<]minimax[>[<a>",
    ];
    for dialect in ALL {
        let format = OutputFormat::from(dialect).with_reasoning_marks("<think>", "</think>");
        for part in parts {
            let text = part.repeat(count / part.len());
            let whole = parse(&mut format.parser(&tools(), ""), [&text]);
            let one_by_one = parse(&mut format.parser(&tools(), ""), characters(&text));
            assert!(whole == one_by_one, "{dialect:?}: {part:?}");
        }
    }
}

/// A call without an end is text at last, and so is not kept for ever.
#[test]
fn endless_calls_are_given_up() {
    let mut parser = OutputFormat::from(Dialect::Hermes).parser(&[], "");
    assert!(parser.push("<tool_call>{\"name\": \"").is_empty());
    let piece = "x".repeat(1 << 16);
    let first = (0..100).find(|_| !parser.push(&piece).is_empty());
    assert!(first.is_some_and(|first| first < 80));
    assert_eq!(parser.push("y"), [OutputEvent::Content("y".into())]);
}

#[test]
fn an_answer_becomes_a_message() {
    let output = read(
        &OutputFormat::from(Dialect::Hermes).with_reasoning_marks("<think>", "</think>"),
        "",
        "<think>Hm.</think>Look.<tool_call>{\"name\": \"get_weather\", \"arguments\": {}, \"id\": \"7\"}</tool_call>",
    );
    let message = output.into_message();
    assert_eq!((message.reasoning(), message.text().as_deref()), (Some("Hm."), Some("Look.")));
    assert_eq!(message.tool_calls(), [ToolCall::new("7", "get_weather", json!({}))]);
}

#[test]
fn dialects_have_the_names_of_mlx_lm() {
    let names = [
        "function_gemma",
        "gemma4",
        "glm47",
        "json_tools",
        "kimi_k2",
        "kimi_k3",
        "laguna",
        "longcat",
        "minicpm5",
        "minimax_m2",
        "mistral",
        "muse_spark",
        "pythonic",
        "qwen3_coder",
    ];
    for name in names {
        assert!(Dialect::from_name(name).is_some(), "{name}");
    }
    assert_eq!(Dialect::from_name("of somebody"), None);
}
