//! Grammars of answers: calls in a model's own form, with arguments that keep to their schemas.
//!
//! The notation is Lark's, in llguidance's variant, in which `<[7]>` is the token 7 and `%json` a schema.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::OutputFormat;
use super::rules::Dialect;
use super::schema::function_of;
use crate::tokenizer::Tokenizer;

/// Whether an answer calls tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Calls {
    /// It does not.
    Never,
    /// As the model likes, after text or instead of it.
    #[default]
    Optional,
    /// It is a call, or several.
    Required,
}

/// What an answer may consist of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnswerForm {
    /// The tools that may be called, in the form of the OpenAI API.
    pub tools: Vec<Value>,
    /// Whether they are.
    pub calls: Calls,
    /// Whether there may be several calls.
    pub is_parallel: bool,
    /// The schema of the answer's text, where it has one.
    pub schema: Option<Value>,
}

impl AnswerForm {
    /// A Lark grammar of such answers for a model that answers in this format, and the format in which they are to be read. What it
    /// describes begins behind the thought, if the model has marks for thoughts.
    ///
    /// `None`: the format's calls have no grammar, and so text cannot be told from them. Calls that are required come in another
    /// form then, Hermes', which reads well everywhere.
    pub fn grammar(&self, format: &OutputFormat, tokenizer: &Tokenizer) -> Option<(String, OutputFormat)> {
        let own = Form::of(format.dialect, tokenizer);
        let (form, format) = match (own, self.calls) {
            (Some(form), _) => (form, format.clone()),
            (None, Calls::Optional) => return None,
            (None, Calls::Required | Calls::Never) => {
                (HERMES, OutputFormat { dialect: Some(Dialect::Hermes), ..format.clone() })
            }
        };
        let mut grammar = Grammar { tokenizer, rules: String::new(), form };
        grammar.start(self);
        Some((grammar.rules, format))
    }
}

/// A part of a call.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// As it is written; a token of its own where the vocabulary has it.
    Text(&'static str),
    /// The function's name.
    Name,
    /// What matches this.
    Pattern(&'static str),
    /// The arguments as JSON.
    Arguments,
    /// The arguments one by one: what stands before a name, between it and the value, and behind that. Texts stand as they are, and
    /// other values as JSON.
    Each { before: &'static [&'static str], between: &'static [&'static str], after: &'static [&'static str] },
}

/// How a dialect writes calls.
#[derive(Clone, Copy, Debug)]
struct Form {
    /// Before the first call.
    open: &'static [&'static str],
    call: &'static [Part],
    /// Between two calls.
    between: &'static [&'static str],
    /// Behind the last.
    close: &'static [&'static str],
    /// Whether thoughts, calls and the answer are messages of harmony.
    is_harmony: bool,
}

const PLAIN: Form = Form { open: &[], call: &[], between: &[], close: &[], is_harmony: false };

const HERMES: Form = Form {
    call: &[
        Part::Text("<tool_call>"),
        Part::Text("\n{\"name\": \""),
        Part::Name,
        Part::Text("\", \"arguments\": "),
        Part::Arguments,
        Part::Text("}\n"),
        Part::Text("</tool_call>"),
    ],
    between: &["\n"],
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

const fn list(open: &'static [&'static str], close: &'static [&'static str]) -> Form {
    Form { open, call: LISTED, between: &[", "], close, ..PLAIN }
}

impl Form {
    /// That of a dialect, if its calls have a grammar.
    fn of(dialect: Option<Dialect>, tokenizer: &Tokenizer) -> Option<Self> {
        let has = |token: &str| tokenizer.token_to_id(token).is_some();
        Some(match dialect? {
            Dialect::Hermes if !has("<tool_call>") && has("<|tool_call|>") => {
                list(&["<|tool_call|>", "["], &["]"])
            }
            Dialect::Hermes => HERMES,
            Dialect::Json if has("<tool_calls>") => list(&["<tool_calls>", "["], &["]", "</tool_calls>"]),
            Dialect::Json if has("<TOOLCALL>") => list(&["<TOOLCALL>", "["], &["]", "</TOOLCALL>"]),
            Dialect::Json if has("<|tools_prefix|>") => {
                list(&["<|tools_prefix|>", "["], &["]", "<|tools_suffix|>"])
            }
            Dialect::Llama3 => Form {
                call: &[
                    Part::Text("{\"name\": \""),
                    Part::Name,
                    Part::Text("\", \"parameters\": "),
                    Part::Arguments,
                    Part::Text("}"),
                ],
                between: &["; "],
                ..PLAIN
            },
            Dialect::Mistral if has("[ARGS]") => Form {
                call: &[Part::Text("[TOOL_CALLS]"), Part::Name, Part::Text("[ARGS]"), Part::Arguments],
                ..PLAIN
            },
            Dialect::Mistral => list(&["[TOOL_CALLS]", "["], &["]"]),
            Dialect::Qwen3Coder => Form {
                call: &[
                    Part::Text("<tool_call>"),
                    Part::Text("\n<function="),
                    Part::Name,
                    Part::Text(">\n"),
                    Part::Each {
                        before: &["<parameter="],
                        between: &[">\n"],
                        after: &["\n</parameter>", "\n"],
                    },
                    Part::Text("</function>\n"),
                    Part::Text("</tool_call>"),
                ],
                between: &["\n"],
                ..PLAIN
            },
            Dialect::Glm4 => Form {
                call: &[
                    Part::Text("<tool_call>"),
                    Part::Name,
                    Part::Text("\n"),
                    Part::Each {
                        before: &["<arg_key>"],
                        between: &["</arg_key>", "\n", "<arg_value>"],
                        after: &["</arg_value>", "\n"],
                    },
                    Part::Text("</tool_call>"),
                ],
                between: &["\n"],
                ..PLAIN
            },
            Dialect::MiniMaxM2 => Form {
                open: &["<minimax:tool_call>", "\n"],
                call: &[
                    Part::Text("<invoke name=\""),
                    Part::Name,
                    Part::Text("\">\n"),
                    Part::Each {
                        before: &["<parameter name=\""],
                        between: &["\">"],
                        after: &["</parameter>", "\n"],
                    },
                    Part::Text("</invoke>\n"),
                ],
                close: &["</minimax:tool_call>"],
                ..PLAIN
            },
            Dialect::KimiK2 => Form {
                open: &["<|tool_calls_section_begin|>"],
                call: &[
                    Part::Text("<|tool_call_begin|>"),
                    Part::Text("functions."),
                    Part::Name,
                    Part::Pattern(":[0-9]{1,3}"),
                    Part::Text("<|tool_call_argument_begin|>"),
                    Part::Arguments,
                    Part::Text("<|tool_call_end|>"),
                ],
                close: &["<|tool_calls_section_end|>"],
                ..PLAIN
            },
            Dialect::DeepSeekV3 => Form {
                open: &["<｜tool▁calls▁begin｜>"],
                call: &[
                    Part::Text("<｜tool▁call▁begin｜>"),
                    Part::Name,
                    Part::Text("<｜tool▁sep｜>"),
                    Part::Arguments,
                    Part::Text("<｜tool▁call▁end｜>"),
                ],
                close: &["<｜tool▁calls▁end｜>"],
                ..PLAIN
            },
            Dialect::FunctionaryV31 => Form {
                call: &[
                    Part::Text("<function="),
                    Part::Name,
                    Part::Text(">"),
                    Part::Arguments,
                    Part::Text("</function>"),
                ],
                ..PLAIN
            },
            Dialect::Harmony => Form {
                call: &[
                    Part::Text("<|channel|>"),
                    Part::Text("commentary to=functions."),
                    Part::Name,
                    Part::Text(" "),
                    Part::Text("<|constrain|>"),
                    Part::Text("json"),
                    Part::Text("<|message|>"),
                    Part::Arguments,
                ],
                is_harmony: true,
                ..PLAIN
            },
            _ => return None,
        })
    }

    /// What every call begins with.
    fn first(&self) -> &'static str {
        match (self.open, self.call) {
            ([first, ..], _) | ([], [Part::Text(first), ..]) => first,
            _ => "",
        }
    }
}

struct Grammar<'a> {
    tokenizer: &'a Tokenizer,
    rules: String,
    form: Form,
}

impl Grammar<'_> {
    fn rule(&mut self, name: &str, body: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.rules, "{name}: {body}");
    }

    fn start(&mut self, answer: &AnswerForm) {
        let has_calls = answer.calls != Calls::Never && !answer.tools.is_empty();
        if has_calls {
            self.calls(&answer.tools, answer.is_parallel);
        }
        if let Some(schema) = &answer.schema {
            self.rule("answer", &format!("%json {schema}"));
        }
        let has_text = answer.calls != Calls::Required;
        let text = if answer.schema.is_some() { "answer" } else { "TEXT" };
        if self.form.is_harmony {
            let mark = |token: &str| self.literal(token);
            let [channel, message, end, start] =
                ["<|channel|>", "<|message|>", "<|end|>", "<|start|>"].map(mark);
            self.rule(
                "thought",
                &format!("{channel} \"analysis\" {message} TEXT? {end} {start} \"assistant\""),
            );
            self.rule("final", &format!("{channel} \"final\" {message} {text}"));
            let free = self.text_before("<|end|>");
            self.rule("TEXT", &free);
            let body = match (has_calls, has_text) {
                (true, true) => "calls | final",
                (true, false) => "calls",
                (false, _) => "final",
            };
            return self.rule("start", &format!("thought? ({body})"));
        }
        // Behind a thought there is white space, which a text has of itself.
        let body = match (has_calls, has_text, answer.schema.is_some()) {
            (true, true, false) => {
                self.text();
                // A call without a mark is one only where an answer begins.
                if self.form.first().starts_with('{') { "SPACE? calls | TEXT" } else { "TEXT? calls?" }
            }
            (true, true, true) => "SPACE? (calls | answer)",
            (true, false, _) => "SPACE? calls",
            (false, _, true) => "SPACE? answer",
            (false, _, false) => {
                self.rule("TEXT", "/(?s:.)+/");
                "TEXT?"
            }
        };
        if body.contains("SPACE") {
            self.rule("SPACE", "/[ \\n]{1,4}/");
        }
        self.rule("start", body);
    }

    /// Text in which no call begins.
    fn text(&mut self) {
        let first = self.form.first();
        let rule = match first.starts_with('{') {
            true => "/[ \\n]*[^{ \\n](?s:.)*/".to_owned(),
            false => self.text_before(first),
        };
        self.rule("TEXT", &rule);
    }

    /// Text in which this mark does not occur, as a terminal.
    fn text_before(&self, mark: &str) -> String {
        match self.marker(mark) {
            // No text is a token of its own.
            Some(_) => "/(?s:.)+/".to_owned(),
            None => format!("/(?s:.)+/ & ~/(?s:.)*{}(?s:.)*/", pattern(mark)),
        }
    }

    fn calls(&mut self, tools: &[Value], is_parallel: bool) {
        let form = self.form;
        let again = match is_parallel && !form.is_harmony {
            true => format!("({} call)*", self.literals(form.between)),
            false => String::new(),
        };
        let calls = format!("{} call {again} {}", self.literals(form.open), self.literals(form.close));
        self.rule("calls", &calls);
        let names: Vec<String> = (0..tools.len()).map(|number| format!("tool_{number}")).collect();
        self.rule("call", &names.join(" | "));
        for (number, tool) in tools.iter().enumerate() {
            let (name, parameters) = function_of(tool);
            let parts: Vec<String> =
                form.call.iter().map(|part| self.part(part, number, name, &parameters)).collect();
            self.rule(&format!("tool_{number}"), &parts.join(" "));
        }
    }

    /// A part of a call as it stands in a rule; what it consists of gets rules of its own.
    fn part(&mut self, part: &Part, number: usize, name: &str, parameters: &Value) -> String {
        match part {
            Part::Text(text) => self.literal(text),
            Part::Pattern(pattern) => format!("/{pattern}/"),
            // As it stands within the quotes of JSON, which is as it stands elsewhere for any name that a parser takes.
            Part::Name => quoted(quoted(name).trim_matches('"')),
            Part::Arguments => {
                let rule = format!("arguments_{number}");
                self.rule(&rule, &format!("%json {parameters}"));
                rule
            }
            Part::Each { before, between, after } => {
                let (none, no_names) = (Map::new(), Vec::new());
                let properties = parameters.get("properties").and_then(Value::as_object).unwrap_or(&none);
                let required = parameters.get("required").and_then(Value::as_array).unwrap_or(&no_names);
                let mut rules = Vec::with_capacity(properties.len());
                for (index, (key, schema)) in properties.iter().enumerate() {
                    let rule = format!("argument_{number}_{index}");
                    let value = self.value(&rule, schema, parameters, after.first().unwrap_or(&""));
                    let [before, between, after] = [before, between, after].map(|texts| self.literals(texts));
                    self.rule(&rule, &format!("{before} {} {between} {value} {after}", quoted(key)));
                    let is_required = required.iter().any(|name| name == key);
                    rules.push(if is_required { rule } else { format!("{rule}?") });
                }
                rules.join(" ")
            }
        }
    }

    /// The value of an argument that is written by itself, up to `end`.
    fn value(&mut self, rule: &str, schema: &Value, parameters: &Value, end: &str) -> String {
        let texts = |values: &Vec<Value>| values.iter().map(|value| value.as_str().map(quoted)).collect();
        let choices = match (schema.get("enum").and_then(Value::as_array), schema.get("const")) {
            (Some(values), _) => Some(values.clone()),
            (None, Some(value)) => Some(vec![value.clone()]),
            (None, None) => None,
        };
        let choices: Option<Vec<String>> = choices.as_ref().and_then(texts);
        match choices {
            Some(choices) if !choices.is_empty() => format!("({})", choices.join(" | ")),
            None if schema.get("type").is_some_and(|kind| kind == "string") => {
                let token = rule.to_ascii_uppercase();
                let body = self.text_before(end);
                self.rule(&token, &body);
                format!("{token}?")
            }
            _ => {
                let value = format!("{rule}_value");
                let mut schema = schema.clone();
                if let Value::Object(fields) = &mut schema {
                    for key in ["$defs", "definitions"] {
                        let all = parameters.get(key).cloned();
                        all.into_iter().for_each(|all| drop(fields.insert(key.to_owned(), all)));
                    }
                }
                self.rule(&value, &format!("%json {schema}"));
                value
            }
        }
    }

    /// The token that a text is by itself, and that is no text otherwise.
    fn marker(&self, text: &str) -> Option<u32> {
        self.tokenizer.token_to_id(text).filter(|id| self.tokenizer.is_marker(*id))
    }

    fn literal(&self, text: &str) -> String {
        self.marker(text).map_or_else(|| quoted(text), |id| format!("<[{id}]>"))
    }

    fn literals(&self, texts: &[&str]) -> String {
        texts.iter().map(|text| self.literal(text)).collect::<Vec<_>>().join(" ")
    }
}

fn quoted(text: &str) -> String {
    json!(text).to_string()
}

/// A text as a regular expression between slashes.
fn pattern(text: &str) -> String {
    let mut pattern = String::new();
    for char in text.chars() {
        match char {
            '\n' => pattern.push_str("\\n"),
            char if r"\.+*?()|[]{}^$/&~".contains(char) => pattern.extend(['\\', char]),
            char => pattern.push(char),
        }
    }
    pattern
}
