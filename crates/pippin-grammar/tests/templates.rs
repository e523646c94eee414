//! Calls as published templates show them are what the grammars of their dialects allow: models are held to a form that they know.

mod common;

use std::fs;

use common::Tokens;
use pippin_grammar::Constraint;
use pippin_text::{
    AnswerForm, Calls, ChatTemplate, Message, OutputFormat, RenderInputs, SpecialTokens, ToolCall,
};
use serde_json::{Map, Value, json};

struct Case {
    template: &'static str,
    /// What a call begins with, and what ends the answer.
    first: &'static str,
    end: &'static str,
    /// The tokens of the vocabulary that tell forms of a dialect apart.
    tokens: &'static [&'static str],
    calls: usize,
}

const fn case(template: &'static str, first: &'static str, end: &'static str) -> Case {
    Case { template, first, end, tokens: &[], calls: 2 }
}

fn cases() -> Vec<Case> {
    let bot = "<｜end▁of▁sentence｜>";
    vec![
        case("google-gemma-4-31B-it", "<|tool_call>", "<|tool_response>"),
        case("LFM2.5-8B-A1B", "<|tool_call_start|>", "<|im_end|>"),
        case("deepseek-ai-DeepSeek-V3.1", "<｜tool▁calls▁begin｜>", bot),
        case("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "<｜tool▁calls▁begin｜>", bot),
        case("deepseek-ai-DeepSeek-V3.2", "<｜DSML｜", bot),
        case("deepseek-ai-DeepSeek-V4", "<｜DSML｜", bot),
        Case { calls: 1, ..case("meta-llama-Llama-3.1-8B-Instruct", "{\"name\"", "<|eot_id|>") },
        case("GLM-4.6", "<tool_call>", "<|observation|>"),
        case("GLM-4.7-Flash", "<tool_call>", "<|observation|>"),
        case("poolside-Laguna-S-2.1", "<tool_call>", "</assistant>"),
        case("Spark2.5", "<tool_call>", bot),
        case("inclusionai-ling-3.0-flash", "<tool_call>", "<|role_end|>"),
        Case {
            tokens: &["<tool_call:opensource>"],
            ..case("tencent-Hy3", "<tool_calls:opensource>", "<｜hy_eos:opensource｜>")
        },
        case("moonshotai-Kimi-K2", "<|tool_calls_section_begin|>", "<|im_end|>"),
        case("Kimi-K3", "<|open|>tools<|sep|>", "<|close|>message<|sep|>"),
        case("Qwen-Qwen3-0.6B", "<tool_call>", "<|im_end|>"),
        case("Qwen3-Coder", "<tool_call>", "<|im_end|>"),
        case("Qwen3.5-4B", "<tool_call>", "<|im_end|>"),
        case("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "<tool_call>", "<|im_end|>"),
        case("StepFun3.5-Flash", "<tool_call>", "<|im_end|>"),
        Case {
            tokens: &["<seed:tool_call>"],
            ..case("ByteDance-Seed-OSS", "<seed:tool_call>", "<seed:eos>")
        },
        case("MiniMax-M2", "<minimax:tool_call>", "[e~["),
        case("MiniMax-M3", "]<]minimax[>[<tool_call>", "[e~["),
        Case {
            tokens: &["[ARGS]"],
            ..case("mistralai-Ministral-3-14B-Reasoning-2512", "[TOOL_CALLS]", "<eos>")
        },
        Case { tokens: &["<tool_calls>"], ..case("unsloth-Apriel-1.5", "<tool_calls>", "\n<|end|>") },
        Case { tokens: &["<TOOLCALL>"], ..case("NVIDIA-Nemotron-Nano-v2", "<TOOLCALL>", "<SPECIAL_12>") },
        Case {
            tokens: &["<|tools_prefix|>"],
            ..case("Apertus-8B-Instruct", "<|tools_prefix|>", "<|assistant_end|>")
        },
        Case {
            tokens: &["<|START_ACTION|>"],
            ..case("Cohere2MoE", "<|START_ACTION|>", "<|END_OF_TURN_TOKEN|>")
        },
        Case {
            tokens: &["<|function_call|>"],
            calls: 1,
            ..case("GigaChat3.1-10B-A1.8B", "<|function_call|>", "<|message_sep|>")
        },
        Case { calls: 1, ..case("openai-gpt-oss-120b", " to=functions.", "<|call|>") },
        case("meetkai-functionary-medium-v3.1", "<function=", "<|eom_id|>"),
        case("meetkai-functionary-medium-v3.2", "get_weather\n", "<|eot_id|>"),
        case("openbmb-MiniCPM5-1B", "<function name=", "<|im_end|>"),
        case("muse-glimmer", " to=get_weather", "<|eot|>"),
        case("upstage-Solar-Open-100B", "<|tool_calls|>", "<|calls|>"),
    ]
}

fn tools() -> Vec<Value> {
    let properties = json!({
        "city": {"type": "string"}, "days": {"type": "integer"}, "deep": {"type": "boolean"},
        "opts": {"type": "object", "properties": {"flat": {"type": "boolean"}, "list": {"type": "array"}}},
    });
    let parameters = json!({"type": "object", "properties": properties, "required": ["city"]});
    vec![
        json!({"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": parameters}}),
    ]
}

fn answer(case: &Case) -> Option<(OutputFormat, String)> {
    let path = format!(
        "{}/../pippin-text/tests/goldens/published/{}.jinja",
        env!("CARGO_MANIFEST_DIR"),
        case.template
    );
    let template = ChatTemplate::from_source(case.template, fs::read_to_string(path).expect("a template"))
        .expect("valid");
    let all = [
        json!({"city": "Paris", "days": 3, "deep": true, "opts": {"flat": false, "list": [1, 2.5]}}),
        json!({"city": "Rome"}),
    ];
    let calls = all[..case.calls]
        .iter()
        .enumerate()
        .map(|(at, arguments)| ToolCall::new(format!("call0000{at}"), "get_weather", arguments.clone()));
    let messages = [Message::user("Weather?"), Message::assistant_calls(calls)];
    let tools = tools();
    let extra: Map<String, Value> = Map::new();
    let special = [("bos_token", "<bos>"), ("eos_token", "<eos>")].into_iter().collect::<SpecialTokens>();
    let inputs = RenderInputs { add_generation_prompt: false, ..RenderInputs::new(&messages) };
    let whole = template
        .render(&inputs.with_tools(&tools).with_extra(&extra).with_special_tokens(&special))
        .expect("renders");
    let (_, behind) = whole.rsplit_once("Weather?")?;
    let answer = &behind[behind.find(case.first)?..];
    let answer = answer.split_once(case.end).map_or(answer, |(answer, _)| answer);
    Some((OutputFormat::from_template(template.source(true)), answer.to_owned()))
}

#[test]
fn what_templates_show_is_allowed() {
    let form =
        AnswerForm { tools: tools(), calls: Calls::Required, is_parallel: true, ..AnswerForm::default() };
    let mut wrong = Vec::new();
    for case in cases() {
        let Some((format, answer)) = answer(&case) else {
            wrong.push(format!("{}: no answer", case.template));
            continue;
        };
        // Python's objects instead of JSON are read, and not written.
        let answer = answer
            .replace("True", "true")
            .replace("'flat': False", "\"flat\": false")
            .replace("'list'", "\"list\"");
        let answer =
            if case.template == "LFM2.5-8B-A1B" { answer.replace("deep=true", "deep=True") } else { answer };
        // Elements within elements are read, and JSON is written.
        let answer = match answer.split_once("]<]minimax[>[<flat>") {
            Some((before, _)) => {
                let (_, behind) = answer.split_once("</list>").expect("a list");
                format!("{before}{{\"flat\": false, \"list\": [1, 2.5]}}{behind}")
            }
            None => answer,
        };
        let answer = answer.trim_end();
        let tokens = Tokens::bytes_with(&[case.tokens, &["<|stop|>"]].concat(), &["<|stop|>"]);
        let Some((grammar, own)) = form.grammar(&format, &tokens.tokenizer) else {
            wrong.push(format!("{}: no grammar", case.template));
            continue;
        };
        if own != format {
            wrong.push(format!("{}: another form", case.template));
            continue;
        }
        let mut guide = tokens.compile(&Constraint::grammar(&grammar)).expect("compiles");
        let ids = tokens.tokenizer.encode(answer, false).expect("tokens");
        let refused = ids.iter().position(|id| guide.is_complete() || guide.accept(*id).is_err());
        if let Some(at) = refused {
            let said = tokens.tokenizer.decode(&ids[..at], false).expect("a text");
            wrong.push(format!("{}: {answer:?}\n    stops after {said:?}", case.template));
        } else if !(guide.is_complete() || guide.accept(tokens.id("<|stop|>")).is_ok()) {
            wrong.push(format!("{}: not at an end: {answer:?}", case.template));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
