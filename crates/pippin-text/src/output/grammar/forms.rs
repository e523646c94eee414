//! How each dialect writes calls.

use super::values::Notation;
use crate::output::rules::Dialect;
use crate::output::schema::Untyped;

/// A part of a call.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// As it is written; what the vocabulary has as a token of its own is that token.
    Text(&'static str),
    /// The same, or not.
    Maybe(&'static str),
    /// The function's name.
    Name,
    /// What matches this.
    Pattern(&'static str),
    /// One of these.
    Either(&'static [Part], &'static [Part]),
    /// The arguments as JSON.
    Arguments,
    /// The arguments one by one, each between tags.
    Each(Each),
    /// The arguments one by one, as literals behind their names.
    Fields { key: &'static str, notation: Notation },
}

/// What a parser takes off the edges of an argument's text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trim {
    Nothing,
    LineEnd,
    Space,
}

/// The type of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Boolean,
    Null,
    Object,
    Array,
}

/// How arguments stand between tags: texts as they are, and other values as JSON.
#[derive(Clone, Copy)]
pub(super) struct Each {
    /// Before the name.
    pub(super) before: &'static str,
    /// Between the name and the value.
    pub(super) between: fn(Kind) -> &'static [Part],
    /// Behind the value. A text does not go beyond its first line that is not empty.
    pub(super) after: &'static str,
    /// Behind that.
    pub(super) then: &'static [Part],
    pub(super) trim: Trim,
    /// What the parser makes of an argument that no schema tells of; `None`: the tag says whether it is a text.
    pub(super) untyped: Option<Untyped>,
    /// Whether texts with `<`, `&` or line ends stand in a quoted section.
    pub(super) is_quoted: bool,
    /// What may not be in a value, because the parser would take it for the end of something.
    pub(super) marks: &'static [&'static str],
}

/// Answers that consist of messages with headers.
#[derive(Clone, Copy)]
pub(super) struct Messages {
    /// Before a thought, and behind it.
    pub(super) thought: Option<[&'static str; 2]>,
    /// Whether the prompt may end inside of the answer's text.
    pub(super) begins_in_text: bool,
    /// Before the answer's text, and behind it.
    pub(super) text: [&'static str; 2],
    /// What may stand before the text or the calls.
    pub(super) before: &'static str,
    /// Between text and calls.
    pub(super) between: &'static str,
    /// Whether a call ends the answer.
    pub(super) has_one_call: bool,
}

/// The form of a dialect's calls.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// What the first call begins with, or what stands around all calls.
    pub(super) first: &'static str,
    /// What stands around all calls, behind `first`, and behind them. Without it, each call begins with `first`.
    pub(super) around: &'static [[&'static str; 2]],
    pub(super) call: &'static [Part],
    /// Between two calls.
    pub(super) between: &'static [Part],
    pub(super) messages: Option<Messages>,
    /// The characters beside letters, digits and `_` that a name may have.
    pub(super) name: &'static str,
    /// Names that mean something else.
    pub(super) taken: &'static [&'static str],
}

const ANY_NAME: &str = "-.:/";

const PLAIN: Form =
    Form { first: "", around: &[], call: &[], between: &[], messages: None, name: ANY_NAME, taken: &[] };

pub(super) const HERMES: Form = Form {
    first: "<tool_call>",
    call: &[
        Part::Text("\n{\"name\": \""),
        Part::Name,
        Part::Text("\", \"arguments\": "),
        Part::Arguments,
        Part::Text("}\n</tool_call>"),
    ],
    between: &[Part::Text("\n")],
    ..PLAIN
};

/// The members of a list of calls in JSON.
const LISTED: &[Part] = &[
    Part::Text("{\"name\": \""),
    Part::Name,
    Part::Text("\", \"arguments\": "),
    Part::Arguments,
    Part::Text("}"),
];

const fn list(first: &'static str, around: &'static [[&'static str; 2]]) -> Form {
    Form { first, around, call: LISTED, between: &[Part::Text(", ")], ..PLAIN }
}

const EACH: Each = Each {
    before: "",
    between: |_| &[],
    after: "",
    then: &[],
    trim: Trim::LineEnd,
    untyped: Some(Untyped::Text),
    is_quoted: false,
    marks: &[],
};

const QWEN: Each = Each {
    before: "<parameter=",
    between: |_| &[Part::Text(">\n")],
    after: "\n</parameter>",
    then: &[Part::Text("\n")],
    // The line ends that it takes are those of the tags.
    trim: Trim::Nothing,
    marks: &["<tool_call>", "</tool_call>", "</function>", "</parameter>"],
    ..EACH
};

const SEED: Each = Each {
    between: |_| &[Part::Text(">")],
    after: "</parameter>",
    trim: Trim::LineEnd,
    marks: &["<seed:tool_call>", "</seed:tool_call>", "</function>", "</parameter>"],
    ..QWEN
};

const GLM: Each = Each {
    before: "<arg_key>",
    between: |_| &[Part::Text("</arg_key>"), Part::Maybe("\n"), Part::Text("<arg_value>")],
    after: "</arg_value>",
    then: &[Part::Maybe("\n")],
    trim: Trim::Space,
    untyped: Some(Untyped::Literal),
    marks: &["<tool_call>", "</tool_call>", "<arg_key>", "</arg_value>"],
    ..EACH
};

const LONGCAT: Each = Each {
    before: "<longcat_arg_key>",
    between: |_| &[Part::Text("</longcat_arg_key>"), Part::Maybe("\n"), Part::Text("<longcat_arg_value>")],
    after: "</longcat_arg_value>",
    marks: &["<longcat_tool_call>", "</longcat_tool_call>", "<longcat_arg_key>", "</longcat_arg_value>"],
    ..GLM
};

const HUNYUAN: Each = Each {
    before: "<arg_key:opensource>",
    between: |_| {
        &[Part::Text("</arg_key:opensource>"), Part::Maybe("\n"), Part::Text("<arg_value:opensource>")]
    },
    after: "</arg_value:opensource>",
    marks: &[
        "<tool_call:opensource>",
        "</tool_call:opensource>",
        "<arg_key:opensource>",
        "</arg_value:opensource>",
    ],
    ..GLM
};

const MINIMAX_M2: Each = Each {
    before: "<parameter name=\"",
    between: |_| &[Part::Text("\">")],
    after: "</parameter>",
    then: &[Part::Text("\n")],
    marks: &["<minimax:tool_call>", "</minimax:tool_call>", "</invoke>", "</parameter>", "<![CDATA["],
    ..EACH
};

const MUSE: Each = Each {
    before: "<atem:parameter name=\"",
    between: |_| &[Part::Text("\">")],
    after: "</atem:parameter>",
    then: &[Part::Text("\n")],
    untyped: Some(Untyped::Literal),
    marks: &[
        "<atem:function_calls>",
        "</atem:function_calls>",
        "</atem:invoke>",
        "</atem:parameter>",
        "<![CDATA[",
    ],
    ..EACH
};

const DSML: Each = Each {
    before: "<｜DSML｜parameter name=\"",
    between: |kind| match kind {
        Kind::Text => &[Part::Text("\" string=\"true\">")],
        _ => &[Part::Text("\" string=\"false\">")],
    },
    after: "</｜DSML｜parameter>",
    then: &[Part::Text("\n")],
    untyped: None,
    marks: &["｜DSML｜", "<![CDATA["],
    ..EACH
};

const KIMI_K3: Each = Each {
    before: "<|open|>argument key=\"",
    between: |kind| match kind {
        Kind::Text => &[Part::Text("\" type=\"string\"<|sep|>")],
        Kind::Number => &[Part::Text("\" type=\"number\"<|sep|>")],
        Kind::Boolean => &[Part::Text("\" type=\"boolean\"<|sep|>")],
        Kind::Null => &[Part::Text("\" type=\"null\"<|sep|>")],
        Kind::Object => &[Part::Text("\" type=\"object\"<|sep|>")],
        Kind::Array => &[Part::Text("\" type=\"array\"<|sep|>")],
    },
    after: "<|close|>argument<|sep|>",
    trim: Trim::Nothing,
    untyped: None,
    marks: &["<|close|>", "<|open|>tools<|sep|>"],
    ..EACH
};

const MINICPM: Each = Each {
    before: "<param name=\"",
    between: |_| &[Part::Text("\">")],
    after: "</param>",
    is_quoted: true,
    marks: &["<function name=", "</function>", "</param>", "<![CDATA[", "]]>"],
    ..EACH
};

/// MiniMax M3 names its tags as the arguments; before each stands a mark.
const MINIMAX_M3: Each = Each {
    before: "]<]minimax[>[<",
    between: |_| &[Part::Text(">")],
    // The name comes between.
    after: "]<]minimax[>[</",
    then: &[Part::Text(">")],
    trim: Trim::Nothing,
    untyped: Some(Untyped::Literal),
    marks: &["]<]minimax[>["],
    ..EACH
};

/// JSON in the messages of gpt-oss, which name the recipient behind the channel or before it.
const HARMONY: &[Part] = &[
    Part::Either(
        &[Part::Text("<|channel|>commentary to=functions."), Part::Name],
        &[Part::Text(" to=functions."), Part::Name, Part::Text("<|channel|>commentary")],
    ),
    Part::Text(" "),
    Part::Maybe("<|constrain|>"),
    Part::Text("json<|message|>"),
    Part::Arguments,
];

const MESSAGES: Messages = Messages {
    thought: None,
    begins_in_text: false,
    text: ["", ""],
    before: "",
    between: "",
    has_one_call: false,
};

impl Form {
    /// That of a dialect.
    pub(super) fn of(dialect: Dialect, has: &dyn Fn(&str) -> bool) -> Self {
        match dialect {
            Dialect::Hermes if !has("<tool_call>") && has("<|tool_call|>") => {
                list("<|tool_call|>", &[["[", "]"]])
            }
            Dialect::Hermes => HERMES,
            Dialect::Json if has("<tool_calls>") => list("<tool_calls>", &[["[", "]</tool_calls>"]]),
            Dialect::Json if has("<TOOLCALL>") => list("<TOOLCALL>", &[["[", "]</TOOLCALL>"]]),
            Dialect::Json if has("<|START_ACTION|>") => Form {
                call: &[
                    Part::Text("{\"tool_call_id\": \""),
                    Part::Pattern("[0-9]{1,3}"),
                    Part::Text("\", \"tool_name\": \""),
                    Part::Name,
                    Part::Text("\", \"parameters\": "),
                    Part::Arguments,
                    Part::Text("}"),
                ],
                between: &[Part::Text(",\n    ")],
                ..list("<|START_ACTION|>", &[["[\n    ", "\n]<|END_ACTION|>"]])
            },
            Dialect::Json if has("<|tools_prefix|>") => Form {
                call: &[Part::Text("{\""), Part::Name, Part::Text("\": "), Part::Arguments, Part::Text("}")],
                taken: &["arguments", "parameters", "function", "name", "tool_name", "id", "tool_call_id"],
                ..list("<|tools_prefix|>", &[["[", "]<|tools_suffix|>"]])
            },
            Dialect::Json if has("<|function_call|>") => {
                Form { first: "<|function_call|>", call: LISTED, messages: None, ..PLAIN }
            }
            Dialect::Json => HERMES,
            Dialect::Llama3 => Form {
                first: "{\"name\": \"",
                call: &[Part::Name, Part::Text("\", \"parameters\": "), Part::Arguments, Part::Text("}")],
                between: &[Part::Text("; ")],
                ..PLAIN
            },
            Dialect::Mistral if has("[ARGS]") => Form {
                first: "[TOOL_CALLS]",
                call: &[Part::Name, Part::Text("[ARGS]"), Part::Arguments],
                name: "-.",
                ..PLAIN
            },
            Dialect::Mistral => list("[TOOL_CALLS]", &[["[", "]"]]),
            Dialect::Qwen3Coder => {
                let (first, call): (_, &[Part]) = match has("<seed:tool_call>") {
                    true => (
                        "<seed:tool_call>",
                        &[
                            Part::Text("\n<function="),
                            Part::Name,
                            Part::Text(">\n"),
                            Part::Each(SEED),
                            Part::Text("</function>\n</seed:tool_call>"),
                        ],
                    ),
                    false => (
                        "<tool_call>",
                        &[
                            Part::Text("\n<function="),
                            Part::Name,
                            Part::Text(">\n"),
                            Part::Each(QWEN),
                            Part::Text("</function>\n</tool_call>"),
                        ],
                    ),
                };
                Form { first, call, between: &[Part::Maybe("\n")], ..PLAIN }
            }
            Dialect::Glm4 if has("<tool_call:opensource>") => Form {
                first: "<tool_calls:opensource>",
                around: &[["\n", "</tool_calls:opensource>"]],
                call: &[
                    Part::Text("<tool_call:opensource>"),
                    Part::Name,
                    Part::Text("<tool_sep:opensource>\n"),
                    Part::Each(HUNYUAN),
                    Part::Text("</tool_call:opensource>\n"),
                ],
                ..PLAIN
            },
            Dialect::Glm4 => Form {
                first: "<tool_call>",
                call: &[Part::Name, Part::Maybe("\n"), Part::Each(GLM), Part::Text("</tool_call>")],
                between: &[Part::Maybe("\n")],
                ..PLAIN
            },
            Dialect::LongCat => Form {
                first: "<longcat_tool_call>",
                call: &[
                    Part::Name,
                    Part::Maybe("\n"),
                    Part::Each(LONGCAT),
                    Part::Text("</longcat_tool_call>"),
                ],
                between: &[Part::Maybe("\n")],
                ..PLAIN
            },
            Dialect::FunctionGemma => Form {
                first: "<start_function_call>",
                call: &[
                    Part::Text("call:"),
                    Part::Name,
                    Part::Text("{"),
                    Part::Fields { key: ":", notation: Notation::FUNCTION_GEMMA },
                    Part::Text("}<end_function_call>"),
                ],
                name: "-.",
                ..PLAIN
            },
            Dialect::Gemma4 => Form {
                first: "<|tool_call>",
                call: &[
                    Part::Text("call:"),
                    Part::Name,
                    Part::Text("{"),
                    Part::Fields { key: ":", notation: Notation::GEMMA4 },
                    Part::Text("}<tool_call|>"),
                ],
                name: "-.",
                ..PLAIN
            },
            Dialect::Pythonic => Form {
                first: "<|tool_call_start|>",
                around: &[["[", "]<|tool_call_end|>"]],
                call: &[
                    Part::Name,
                    Part::Text("("),
                    Part::Fields { key: "=", notation: Notation::PYTHON },
                    Part::Text(")"),
                ],
                between: &[Part::Text(", ")],
                name: "-.",
                ..PLAIN
            },
            Dialect::MiniMaxM2 => Form {
                first: "<minimax:tool_call>",
                around: &[["\n", "</minimax:tool_call>"]],
                call: &[
                    Part::Text("<invoke name=\""),
                    Part::Name,
                    Part::Text("\">\n"),
                    Part::Each(MINIMAX_M2),
                    Part::Text("</invoke>\n"),
                ],
                ..PLAIN
            },
            Dialect::MiniMaxM3 => Form {
                first: "]<]minimax[>[<tool_call>",
                around: &[["\n", "]<]minimax[>[</tool_call>"]],
                call: &[
                    Part::Text("]<]minimax[>[<invoke name=\""),
                    Part::Name,
                    Part::Text("\">"),
                    Part::Each(MINIMAX_M3),
                    Part::Text("]<]minimax[>[</invoke>\n"),
                ],
                ..PLAIN
            },
            Dialect::DeepSeekV32 => Form {
                first: "<｜DSML｜",
                // V3.2, V4.
                around: &[
                    ["function_calls>\n", "</｜DSML｜function_calls>"],
                    ["tool_calls>\n", "</｜DSML｜tool_calls>"],
                ],
                call: &[
                    Part::Text("<｜DSML｜invoke name=\""),
                    Part::Name,
                    Part::Text("\">\n"),
                    Part::Each(DSML),
                    Part::Text("</｜DSML｜invoke>\n"),
                ],
                ..PLAIN
            },
            Dialect::DeepSeekV3 => Form {
                first: "<｜tool▁calls▁begin｜>",
                around: &[["", "<｜tool▁calls▁end｜>"]],
                call: &[
                    Part::Text("<｜tool▁call▁begin｜>"),
                    // V3.1; V3 and R1.
                    Part::Either(
                        &[Part::Name, Part::Text("<｜tool▁sep｜>"), Part::Arguments],
                        &[
                            Part::Text("function<｜tool▁sep｜>"),
                            Part::Name,
                            Part::Text("\n```json\n"),
                            Part::Arguments,
                            Part::Text("\n```"),
                        ],
                    ),
                    Part::Text("<｜tool▁call▁end｜>"),
                ],
                between: &[Part::Maybe("\n")],
                ..PLAIN
            },
            Dialect::KimiK2 => Form {
                first: "<|tool_calls_section_begin|>",
                around: &[["", "<|tool_calls_section_end|>"]],
                call: &[
                    Part::Text("<|tool_call_begin|>functions."),
                    Part::Name,
                    Part::Pattern(":[0-9]{1,3}"),
                    Part::Text("<|tool_call_argument_begin|>"),
                    Part::Arguments,
                    Part::Text("<|tool_call_end|>"),
                ],
                ..PLAIN
            },
            Dialect::KimiK3 => Form {
                first: "<|open|>tools<|sep|>",
                around: &[["", "<|close|>tools<|sep|>"]],
                call: &[
                    Part::Text("<|open|>call tool=\""),
                    Part::Name,
                    Part::Text("\" index=\""),
                    Part::Pattern("[1-9][0-9]{0,2}"),
                    Part::Text("\"<|sep|>"),
                    Part::Each(KIMI_K3),
                    Part::Text("<|close|>call<|sep|>"),
                ],
                messages: Some(Messages {
                    begins_in_text: true,
                    text: ["<|open|>response<|sep|>", "<|close|>response<|sep|>"],
                    ..MESSAGES
                }),
                ..PLAIN
            },
            Dialect::FunctionaryV31 => Form {
                first: "<function=",
                call: &[Part::Name, Part::Text(">"), Part::Arguments, Part::Text("</function>")],
                ..PLAIN
            },
            Dialect::FunctionaryV32 => Form {
                call: &[Part::Name, Part::Text("\n"), Part::Arguments],
                between: &[Part::Text(">>>")],
                messages: Some(Messages { text: ["all\n", ""], between: ">>>", ..MESSAGES }),
                name: "-.",
                taken: &["all"],
                ..PLAIN
            },
            Dialect::MiniCpm5 => Form {
                first: "<function name=\"",
                call: &[Part::Name, Part::Text("\">"), Part::Each(MINICPM), Part::Text("</function>")],
                between: &[Part::Maybe("\n")],
                ..PLAIN
            },
            Dialect::Harmony => Form {
                call: HARMONY,
                messages: Some(Messages {
                    thought: Some(["<|channel|>analysis<|message|>", "<|end|><|start|>assistant"]),
                    text: ["<|channel|>final<|message|>", ""],
                    has_one_call: true,
                    ..MESSAGES
                }),
                ..PLAIN
            },
            Dialect::Muse => Form {
                call: &[
                    Part::Text(" to="),
                    Part::Name,
                    Part::Text("<|message|><atem:function_calls>\n<atem:invoke name=\""),
                    Part::Name,
                    Part::Text("\">\n"),
                    Part::Each(MUSE),
                    Part::Text("</atem:invoke>\n</atem:function_calls>"),
                ],
                between: &[Part::Text("<|eom|><|start|>assistant")],
                messages: Some(Messages {
                    thought: Some([" to=self<|message|>", "<|eom|><|start|>assistant"]),
                    text: [" to=user<|message|>", ""],
                    ..MESSAGES
                }),
                taken: &["self", "user"],
                ..PLAIN
            },
            Dialect::Solar => Form {
                first: "<|tool_calls|>",
                around: &[["", ""]],
                call: &[
                    Part::Text("<|tool_call:begin|>"),
                    Part::Pattern("[a-zA-Z0-9_-]{1,40}"),
                    Part::Text("<|tool_call:name|>"),
                    Part::Name,
                    Part::Text("<|tool_call:args|>"),
                    Part::Arguments,
                    Part::Text("<|tool_call:end|>"),
                ],
                messages: Some(Messages {
                    text: ["<|content|>", ""],
                    before: "<|begin|>assistant",
                    ..MESSAGES
                }),
                ..PLAIN
            },
        }
    }

    /// Whether a function can have this name.
    pub(super) fn can_name(&self, name: &str) -> bool {
        let is_char = |c: char| c.is_ascii_alphanumeric() || c == '_' || self.name.contains(c);
        !name.is_empty() && name.chars().all(is_char) && !self.taken.contains(&name)
    }
}
