//! The marks of each dialect.

use super::dialects::{self, Parse};
use super::scan::{Quotes, Shape};

/// A kind of markup that holds calls.
#[derive(Clone, Copy)]
pub(super) struct Region {
    /// The mark before it.
    pub(super) start: &'static str,
    pub(super) shape: Shape,
    pub(super) parse: Parse,
}

/// Headers say what follows them: the channels of harmony, the recipients of Muse and functionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Headers {
    /// `<|channel|>analysis<|message|>`, ` to=functions.name<|channel|>commentary json<|message|>`.
    Harmony,
    /// `name`, or `all` for text, and a line end.
    Functionary,
}

/// What to look for in an answer.
#[derive(Clone, Default)]
pub(super) struct Rules {
    pub(super) regions: Vec<Region>,
    /// Calls without a mark, where an answer or another call may begin.
    pub(super) bare: Option<Region>,
    /// What may follow a call directly without a mark before it.
    pub(super) again: Option<Region>,
    /// Marks that say nothing by themselves.
    pub(super) dropped: &'static [&'static str],
    /// The same, where they follow a call.
    pub(super) trailing: &'static [&'static str],
    pub(super) headers: Option<Headers>,
    /// What begins a header.
    pub(super) header_starts: &'static [&'static str],
    /// What ends the message that a header began.
    pub(super) message_ends: &'static [&'static str],
}

/// The bytes that a header may take.
pub(super) const MAX_HEADER: usize = 512;

const fn until(start: &'static str, ends: &'static [&'static str], quotes: Quotes, parse: Parse) -> Region {
    Region { start, shape: Shape::Until { ends, quotes, first: &[] }, parse }
}

/// JSON between two marks.
const fn json(start: &'static str, ends: &'static [&'static str]) -> Region {
    let shape = Shape::Until { ends, quotes: Quotes::Double, first: &["{", "["] };
    Region { start, shape, parse: dialects::json }
}

/// JSON that ends where it ends.
const fn bare_json(start: &'static str, keys: &'static [&'static str]) -> Region {
    Region { start, shape: Shape::Json { keys }, parse: dialects::json }
}

/// The way in which a family of models writes calls of tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// JSON between `<tool_call>` and `</tool_call>`: Hermes, Qwen 2.5 and 3, Granite, and many others.
    Hermes,
    /// JSON between marks of other names: Apertus, Apriel, Cohere, GigaChat, MiniMax M1, Nemotron, Phi 4.
    Json,
    /// Bare JSON, or JSON behind `<|python_tag|>`: Llama 3.
    Llama3,
    /// `[TOOL_CALLS]` before a list, or before `name[ARGS]{…}`: Mistral.
    Mistral,
    /// `<function=name><parameter=key>value</parameter></function>`: Qwen3-Coder, Qwen 3.5, Nemotron 3, Seed, Step.
    Qwen3Coder,
    /// `name<arg_key>key</arg_key><arg_value>value</arg_value>`: GLM 4, Laguna, Ling, Spark, Hy3.
    Glm4,
    /// The same, with names of its own.
    LongCat,
    /// `call:name{key:<escape>value<escape>}`: FunctionGemma.
    FunctionGemma,
    /// `call:name{key:<|"|>value<|"|>}`: Gemma 4.
    Gemma4,
    /// `functions.name:0` and JSON between special tokens: Kimi K2.
    KimiK2,
    /// Elements made of special tokens: Kimi K3.
    KimiK3,
    /// `<invoke name="…"><parameter name="…">`: MiniMax M2.
    MiniMaxM2,
    /// Elements with arguments for names, each after a mark: MiniMax M3.
    MiniMaxM3,
    /// The same in `<|DSML|…>` tags: DeepSeek V3.2 and V4.
    DeepSeekV32,
    /// Name and JSON between special tokens: DeepSeek V3, V3.1 and R1.
    DeepSeekV3,
    /// Channels: gpt-oss.
    Harmony,
    /// `[name(key='value')]`: LFM2.
    Pythonic,
    /// `<function=name>{…}</function>`: functionary 3.1.
    FunctionaryV31,
    /// `>>>name`, a line end, and JSON: functionary 3.2.
    FunctionaryV32,
    /// `<function name="…"><param name="…">`: MiniCPM 5.
    MiniCpm5,
    /// `<atem:invoke name="…">` in messages with recipients: Muse.
    Muse,
    /// An id, a name and JSON between special tokens: Solar.
    Solar,
}

impl Dialect {
    /// The dialect of a name, as `tool_parser_type` in a `tokenizer_config.json` or another engine has it.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().replace('-', "_").as_str() {
            "json_tools" | "json" | "hermes" | "qwen" | "granite" => Self::Hermes,
            "llama3" | "llama3_json" | "llama4_json" => Self::Llama3,
            "mistral" => Self::Mistral,
            "qwen3_coder" | "qwen3_xml" | "qwen3_5" | "xml_function" | "seed_oss" | "step3p5" => {
                Self::Qwen3Coder
            }
            "glm4" | "glm45" | "glm46" | "glm47" | "laguna" | "hy3" => Self::Glm4,
            "longcat" => Self::LongCat,
            "function_gemma" | "functiongemma" | "gemma" => Self::FunctionGemma,
            "gemma4" => Self::Gemma4,
            "kimi_k2" => Self::KimiK2,
            "kimi_k3" => Self::KimiK3,
            "minimax_m2" => Self::MiniMaxM2,
            "minimax_m3" => Self::MiniMaxM3,
            "deepseek_v32" | "deepseek_v4" => Self::DeepSeekV32,
            "deepseek_v3" | "deepseek_v31" | "deepseek_r1" => Self::DeepSeekV3,
            "gpt_oss" | "harmony" | "openai" => Self::Harmony,
            "pythonic" | "lfm2" => Self::Pythonic,
            "functionary" | "functionary_v31" => Self::FunctionaryV31,
            "functionary_v32" => Self::FunctionaryV32,
            "minicpm5" => Self::MiniCpm5,
            "muse_spark" | "atem" => Self::Muse,
            "solar" | "solar_open" => Self::Solar,
            "cohere" | "command" | "minimax" | "phi4_mini_json" => Self::Json,
            _ => return None,
        })
    }

    /// The dialect that a chat template shows, by marks that no other dialect has; the more telling ones come first.
    pub(super) fn of_template(template: &str) -> Option<Self> {
        let has = |mark: &str| template.contains(mark);
        let line_end = ["<tool_call>\\n<function=", "<tool_call>\n<function="];
        Some(match () {
            () if has("<|start|>assistant") && has("<|channel|>") => Self::Harmony,
            () if has("<atem:function_calls>") => Self::Muse,
            () if has("]<]minimax[>[") => Self::MiniMaxM3,
            () if has("<minimax:tool_call>") => Self::MiniMaxM2,
            () if has("｜DSML｜") => Self::DeepSeekV32,
            () if has("<｜tool▁call▁begin｜>") => Self::DeepSeekV3,
            () if has("<|tool_call>") && has("<tool_call|>") => Self::Gemma4,
            () if has("<start_function_call>") => Self::FunctionGemma,
            () if has("<longcat_tool_call>") => Self::LongCat,
            () if has("<arg_key") => Self::Glm4,
            () if has("<|tool_list_start|>") || has("<|tool_call_start|>") => Self::Pythonic,
            () if line_end.into_iter().any(has) || has("<parameter=") => Self::Qwen3Coder,
            () if has("<|tool_call_begin|>") || has("<|tool_calls_section_begin|>") => Self::KimiK2,
            () if has("<|tool_call:begin|>") => Self::Solar,
            () if has("<|open|>") && has("<|sep|>") => Self::KimiK3,
            () if has("<function name=\"") && has("<param name=\"") => Self::MiniCpm5,
            () if has("[TOOL_CALLS]") => Self::Mistral,
            () if has(">>>all") || has(">>>") && has("recipient") => Self::FunctionaryV32,
            () if (has("<tool_call>") && !has("</tool_calls>")) || has("<|tool_call|>") => Self::Hermes,
            () if has("<function=") && !has("<|python_tag|>{") => Self::FunctionaryV31,
            () if [
                "<tool_calls>",
                "<TOOLCALL>",
                "<|tools_prefix|>",
                "<|START_ACTION|>",
                "<|function_call|>",
            ]
            .into_iter()
            .any(has) =>
            {
                Self::Json
            }
            () if has("<|python_tag|>") || has("<|start_header_id|>") && has("\"parameters\"") => {
                Self::Llama3
            }
            () => return None,
        })
    }

    /// The dialect of a vocabulary, where a template shows none.
    pub(super) fn of_vocabulary(has: &dyn Fn(&str) -> bool) -> Option<Self> {
        Some(match () {
            () if ["<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"].into_iter().all(has) => Self::KimiK3,
            () if has("<|tool_call_start|>") && has("<|tool_call_end|>") => Self::Pythonic,
            () if ["<|channel|>", "<|message|>", "<|call|>"].into_iter().all(has) => Self::Harmony,
            () if has("<｜tool▁call▁begin｜>") => Self::DeepSeekV3,
            () if has("<|tool_call_begin|>") => Self::KimiK2,
            () if has("[TOOL_CALLS]") => Self::Mistral,
            () if has("<|tool_call>") && has("<tool_call|>") => Self::Gemma4,
            () if has("<arg_key>") => Self::Glm4,
            () if has("<tool_call>") || has("<|tool_call|>") => Self::Hermes,
            () if has("<|python_tag|>") => Self::Llama3,
            () => return None,
        })
    }

    pub(super) fn rules(self) -> Rules {
        const NO_QUOTES: Quotes = Quotes::None;
        let regions = |regions: &[Region]| Rules { regions: regions.to_vec(), ..Rules::default() };
        let call_end = &["</tool_call>"];
        match self {
            Self::Hermes => Rules {
                trailing: &["</tool_call>", "<|/tool_call|>"],
                ..regions(&[json("<tool_call>", call_end), bare_json("<|tool_call|>", &[])])
            },
            Self::Json => Rules {
                trailing: &["<|message_sep|>", "</tool_call>", "<|/tool_call|>"],
                dropped: &[
                    "<|START_RESPONSE|>",
                    "<|END_RESPONSE|>",
                    "[BEGIN FINAL RESPONSE]",
                    "[END FINAL RESPONSE]",
                ],
                ..regions(&[
                    json("<tool_calls>", &["</tool_calls>"]),
                    json("<TOOLCALL>", &["</TOOLCALL>"]),
                    json("<|tools_prefix|>", &["<|tools_suffix|>"]),
                    json("<|START_ACTION|>", &["<|END_ACTION|>"]),
                    json("<tool_call>", call_end),
                    bare_json("<|tool_call|>", &[]),
                    bare_json("<|function_call|>", &[]),
                ])
            },
            Self::Llama3 => {
                let keys = &["name", "type", "function", "parameters", "arguments"];
                let ends = &["<|eom_id|>", "<|eot_id|>", ";"];
                let bare = Region { parse: dialects::llama, ..bare_json("", keys) };
                Rules {
                    bare: Some(bare),
                    trailing: &[";", "<|eom_id|>", "<|eot_id|>"],
                    ..regions(&[
                        until("<|python_tag|>", ends, Quotes::Double, dialects::llama),
                        until("<function=", &["</function>"], Quotes::Double, dialects::wrapped_name),
                    ])
                }
            }
            Self::Mistral => {
                let region =
                    |start, list| Region { start, shape: Shape::Named { list }, parse: dialects::mistral };
                Rules { again: Some(region("", false)), ..regions(&[region("[TOOL_CALLS]", true)]) }
            }
            Self::Qwen3Coder => {
                let first = &["<function=", "{", "["];
                let whole = |start, ends| Region {
                    start,
                    shape: Shape::Until { ends, quotes: NO_QUOTES, first },
                    parse: dialects::functions,
                };
                Rules {
                    trailing: &["</tool_call>", "</seed:tool_call>"],
                    ..regions(&[
                        whole("<tool_call>", call_end),
                        whole("<seed:tool_call>", &["</seed:tool_call>"]),
                        // Some models forget the mark before it.
                        until("<function=", &["</function>"], NO_QUOTES, dialects::function),
                    ])
                }
            }
            Self::Glm4 => Rules {
                dropped: &["<tool_calls:opensource>", "</tool_calls:opensource>"],
                ..regions(&[
                    until("<tool_call>", call_end, NO_QUOTES, dialects::keyed),
                    until("<tool_call:opensource>", &["</tool_call:opensource>"], NO_QUOTES, dialects::keyed),
                ])
            },
            Self::LongCat => regions(&[until(
                "<longcat_tool_call>",
                &["</longcat_tool_call>"],
                NO_QUOTES,
                dialects::keyed,
            )]),
            Self::FunctionGemma => regions(&[until(
                "<start_function_call>",
                &["<end_function_call>"],
                Quotes::Mark("<escape>"),
                dialects::function_gemma,
            )]),
            Self::Gemma4 => {
                regions(&[until("<|tool_call>", &["<tool_call|>"], Quotes::Mark("<|\"|>"), dialects::gemma4)])
            }
            Self::KimiK2 => Rules {
                dropped: &["<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"],
                ..regions(&[until(
                    "<|tool_call_begin|>",
                    &["<|tool_call_end|>"],
                    Quotes::Double,
                    dialects::kimi_k2,
                )])
            },
            Self::KimiK3 => Rules {
                dropped: &[
                    "<|open|>response<|sep|>",
                    "<|close|>response<|sep|>",
                    "<|close|>message<|sep|>",
                    "<|end_of_msg|>",
                ],
                ..regions(&[until(
                    "<|open|>tools<|sep|>",
                    &["<|close|>tools<|sep|>"],
                    NO_QUOTES,
                    dialects::kimi_k3,
                )])
            },
            Self::MiniMaxM2 => regions(&[until(
                "<minimax:tool_call>",
                &["</minimax:tool_call>"],
                NO_QUOTES,
                dialects::invokes,
            )]),
            Self::MiniMaxM3 => regions(&[until(
                "]<]minimax[>[<tool_call>",
                &["]<]minimax[>[</tool_call>"],
                NO_QUOTES,
                dialects::elements,
            )]),
            Self::DeepSeekV32 => regions(&[
                until(
                    "<｜DSML｜function_calls>",
                    &["</｜DSML｜function_calls>"],
                    NO_QUOTES,
                    dialects::invokes,
                ),
                until("<｜DSML｜tool_calls>", &["</｜DSML｜tool_calls>"], NO_QUOTES, dialects::invokes),
            ]),
            Self::DeepSeekV3 => Rules {
                dropped: &["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"],
                ..regions(&[until(
                    "<｜tool▁call▁begin｜>",
                    &["<｜tool▁call▁end｜>"],
                    Quotes::Double,
                    dialects::deepseek,
                )])
            },
            Self::Harmony => Rules {
                headers: Some(Headers::Harmony),
                header_starts: &["<|start|>", "<|channel|>"],
                message_ends: &["<|end|>", "<|call|>", "<|return|>"],
                ..Rules::default()
            },
            Self::Pythonic => regions(&[until(
                "<|tool_call_start|>",
                &["<|tool_call_end|>"],
                Quotes::Either,
                dialects::pythonic,
            )]),
            Self::FunctionaryV31 => {
                regions(&[until("<function=", &["</function>"], Quotes::Double, dialects::wrapped_name)])
            }
            Self::FunctionaryV32 => {
                Rules { headers: Some(Headers::Functionary), header_starts: &[">>>"], ..Rules::default() }
            }
            Self::MiniCpm5 => {
                // The mark is put back by the parser of elements, which needs it whole.
                regions(&[until("<function name=", &["</function>"], NO_QUOTES, dialects::one_invoke)])
            }
            Self::Muse => Rules {
                headers: Some(Headers::Harmony),
                header_starts: &["<|start|>"],
                message_ends: &["<|eom|>", "<|eot|>"],
                ..regions(&[until(
                    "<atem:function_calls>",
                    &["</atem:function_calls>"],
                    NO_QUOTES,
                    dialects::invokes,
                )])
            },
            Self::Solar => Rules {
                dropped: &[
                    "<|begin|>assistant",
                    "<|content|>",
                    "<|tool_calls|>",
                    "<|calls|>",
                    "<|end|>",
                    "<|flush|>",
                ],
                ..regions(&[until(
                    "<|tool_call:begin|>",
                    &["<|tool_call:end|>"],
                    Quotes::Double,
                    dialects::solar,
                )])
            },
        }
    }

    /// The call that a header has named, whose arguments follow it.
    pub(super) fn message(self) -> Option<Region> {
        match self {
            Self::Harmony => Some(until(
                "",
                &["<|call|>", "<|end|>", "<|return|>", "<|start|>", "<|channel|>"],
                Quotes::Double,
                dialects::named,
            )),
            Self::FunctionaryV32 => {
                Some(Region { start: "", shape: Shape::Json { keys: &[] }, parse: dialects::named })
            }
            _ => None,
        }
    }
}

/// The marks around a model's thoughts.
pub(super) type Marks = (&'static str, &'static str);

/// Those that a vocabulary or a template may have, in the order in which they count.
pub(super) const THOUGHTS: [Marks; 11] = [
    ("<think>", "</think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<|think:start|>", "<|think:end|>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<think:opensource>", "</think:opensource>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|think|>", "<|end|>"),
];

/// Gemma 4's, whose channel has a name.
pub(super) const CHANNEL: Marks = ("<|channel>thought", "<channel|>");

/// Apriel's prompts end inside of a thought that has no mark before it.
pub(super) const APRIEL: Marks = ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]");
