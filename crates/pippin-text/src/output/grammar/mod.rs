//! Grammars of answers: calls in a model's own form, with arguments that keep to their schemas.
//!
//! The notation is Lark's, in llguidance's variant, in which `<[7]>` is the token 7 and `%json` a schema.

mod forms;
mod values;

use std::fmt::Write;

use serde_json::{Value, json};

use self::forms::{Each, Form, HERMES, Kind, Part, Trim};
use self::values::{
    Bounds, Choice, Fields, MAX_STEPS, Notation, bounds, choices, fields, is_identifier, is_plain, kind_of,
};
use super::OutputFormat;
use super::rules::Dialect;
use super::schema::{Tools, function_of};
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
    /// A grammar of the answer's text in Lark's notation, where it has one. Without a schema beside it.
    pub text: Option<String>,
}

impl AnswerForm {
    /// A Lark grammar of such answers for a model that answers in this format, and the format in which they are to be read. What it
    /// describes begins behind the thought, if the model has marks for thoughts that are tokens.
    ///
    /// Calls come in the model's own form. Where that cannot keep to what is asked (a tool's name or schema that the form has no way
    /// to write, or a format without calls), calls that are required come in another form, Hermes', which reads well everywhere;
    /// `None`: calls are optional, and so they have to be told from text.
    pub fn grammar(&self, format: &OutputFormat, tokenizer: &Tokenizer) -> Option<(String, OutputFormat)> {
        let has = |token: &str| tokenizer.token_to_id(token).is_some();
        let own = format.dialect.map(|dialect| Form::of(dialect, &has));
        if let Some(grammar) = own.and_then(|form| Builder::new(tokenizer, form).build(self)) {
            return Some((grammar, format.clone()));
        }
        if self.calls == Calls::Optional {
            return None;
        }
        let grammar = Builder::new(tokenizer, HERMES).build(self)?;
        Some((grammar, OutputFormat { dialect: Some(Dialect::Hermes), ..format.clone() }))
    }
}

struct Builder<'a> {
    tokenizer: &'a Tokenizer,
    rules: String,
    form: Form,
    /// Names of rules end with their number.
    count: usize,
    /// Rules of schemas that have been seen.
    known: Vec<(String, Notation, String)>,
    has_numbers: bool,
    /// Schemas that may still be looked at.
    steps: usize,
}

/// The tool of which the rules are made.
struct Tool<'t> {
    name: &'t str,
    parameters: &'t Value,
    /// As the parser knows it.
    read: Tools,
}

impl<'a> Builder<'a> {
    fn new(tokenizer: &'a Tokenizer, form: Form) -> Self {
        Self {
            tokenizer,
            rules: String::new(),
            form,
            count: 0,
            known: Vec::new(),
            has_numbers: false,
            steps: MAX_STEPS,
        }
    }

    fn rule(&mut self, name: &str, body: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.rules, "{name}: {body}");
    }

    /// A name that no rule has, of a terminal if it is in capitals.
    fn name(&mut self, kind: &str) -> String {
        self.count += 1;
        format!("{kind}_{}", self.count)
    }

    /// `None`: the form has no way to write such answers.
    fn build(mut self, answer: &AnswerForm) -> Option<String> {
        let has_calls = answer.calls != Calls::Never && !answer.tools.is_empty();
        if has_calls {
            self.calls(&answer.tools, answer.is_parallel)?;
        }
        let document = match (&answer.schema, &answer.text) {
            (Some(schema), _) => Some(format!("%json {schema}")),
            (None, Some(grammar)) => Some(format!("%lark {{\n{grammar}\n}}")),
            (None, None) => None,
        };
        let has_document = document.is_some();
        if let Some(document) = document {
            self.rule("answer", &document);
        }
        let has_text = answer.calls != Calls::Required || !has_calls;
        let start = match self.form.messages {
            Some(_) => self.messages(answer, has_calls, has_text, has_document),
            None => self.plain(has_calls, has_text, has_document),
        };
        self.rule("start", &start);
        self.rule("SPACE", "/[ \\n]{1,4}/");
        self.rule("KEY", "/[a-zA-Z_][a-zA-Z0-9_]{0,63}/");
        self.rule("QUOTED_KEY", "/\"[a-zA-Z_][a-zA-Z0-9_]{0,63}\"/");
        if self.has_numbers {
            self.rule("INTEGER", "/0|-?[1-9][0-9]{0,17}/");
            self.rule("NUMBER", "/-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?/");
        }
        Some(self.rules)
    }

    /// Answers without headers.
    fn plain(&mut self, has_calls: bool, has_text: bool, has_document: bool) -> String {
        let first = self.form.first;
        // Behind a thought there is white space, which a text has of itself.
        match (has_calls, has_text, has_document) {
            // A call without a mark is one only where an answer begins.
            (true, true, false) if first.starts_with('{') => {
                self.rule("TEXT", "/[ \\n]*[^{ \\n](?s:.)*/");
                format!("SPACE? {} calls | TEXT", self.text(first))
            }
            (true, true, false) => {
                let before = self.text_until(&Bounds::FREE, &[first], first);
                let without = self.without(&[first]);
                self.rule("TEXT", &format!("/(?s:.)+/{without}"));
                format!("{before} calls | TEXT?")
            }
            (true, true, true) => format!("SPACE? ({} calls | answer)", self.text(first)),
            (true, false, _) => format!("SPACE? {} calls", self.text(first)),
            (false, _, true) => "SPACE? answer".to_owned(),
            (false, _, false) => {
                self.rule("TEXT", "/(?s:.)+/");
                "TEXT?".to_owned()
            }
        }
    }

    /// Answers that consist of messages.
    fn messages(
        &mut self,
        answer: &AnswerForm,
        has_calls: bool,
        has_text: bool,
        has_document: bool,
    ) -> String {
        let Some(messages) = self.form.messages else { return String::new() };
        let [open, close] = messages.text;
        let open = if messages.begins_in_text { format!("({})?", self.text(open)) } else { self.text(open) };
        let maybe = |text: String| if text.is_empty() { text } else { format!("({text})?") };
        let thought = match messages.thought {
            Some([before, behind]) => {
                let inner = self.text_until(&Bounds::FREE, &[behind], behind);
                format!("({} {inner})?", self.text(before))
            }
            None => String::new(),
        };
        let before = maybe(self.text(messages.before));
        let mut all = Vec::new();
        let calls = format!("{} calls", self.text(self.form.first));
        if has_calls {
            // Some have a text in any case, which is empty then.
            let empty = if close.is_empty() { String::new() } else { format!("{open} {}", self.text(close)) };
            all.push(format!("{} {calls}", maybe(empty)));
        }
        if has_text {
            let more = if has_calls { format!("({calls})?") } else { String::new() };
            all.push(match (has_document, close.is_empty()) {
                (true, true) => format!("{open} answer"),
                (true, false) => format!("{open} answer {}", self.text(close)),
                (false, false) => {
                    let marks = [close, self.form.first];
                    format!("{open} {} {more}", self.text_until(&Bounds::FREE, &marks, close))
                }
                (false, true) => {
                    let names = answer.tools.iter().map(|tool| function_of(tool).0);
                    let marks: Vec<String> = match messages.between {
                        "" => Vec::new(),
                        between => names.chain(["all"]).map(|name| format!("{between}{name}\n")).collect(),
                    };
                    let marks: Vec<&str> = marks.iter().map(String::as_str).collect();
                    let without = self.without(&marks);
                    self.rule("TEXT", &format!("/(?s:.)+/{without}"));
                    let between = messages.between;
                    let with_calls = match has_calls && !between.is_empty() {
                        true => {
                            let until = self.text_until(&Bounds::FREE, &[between], between);
                            format!(" | {until} calls")
                        }
                        false => String::new(),
                    };
                    format!("{open} (TEXT?{with_calls})")
                }
            });
        }
        format!("{thought} {before} ({})", all.join(" | "))
    }

    /// The rule of calls, without what they begin with.
    fn calls(&mut self, tools: &[Value], is_parallel: bool) -> Option<()> {
        let form = self.form;
        let between = self.parts(form.between, None)?;
        let first = if form.around.is_empty() { self.text(form.first) } else { String::new() };
        let again = match is_parallel && !form.messages.is_some_and(|messages| messages.has_one_call) {
            true => format!("({between} {first} call)*"),
            false => String::new(),
        };
        let around = if form.around.is_empty() { &[["", ""]][..] } else { form.around };
        let all: Vec<String> = around
            .iter()
            .map(|[open, close]| format!("{} call {again} {}", self.text(open), self.text(close)))
            .collect();
        self.rule("calls", &all.join(" | "));
        let names: Vec<String> = (0..tools.len()).map(|number| format!("tool_{number}")).collect();
        self.rule("call", &names.join(" | "));
        for (tool, rule) in tools.iter().zip(names) {
            let (name, parameters) = function_of(tool);
            if !form.can_name(name) {
                return None;
            }
            // References are within one tool.
            self.known.clear();
            let read = Tools::read(std::slice::from_ref(tool));
            let body = self.parts(form.call, Some(&Tool { name, parameters: &parameters, read }))?;
            self.rule(&rule, &body);
        }
        Some(())
    }

    /// Parts of a call as they stand in a rule; what they consist of gets rules of its own.
    fn parts(&mut self, parts: &[Part], tool: Option<&Tool<'_>>) -> Option<String> {
        let mut all = Vec::with_capacity(parts.len());
        for part in parts {
            all.push(match (part, tool) {
                (Part::Text(text), _) => self.text(text),
                (Part::Maybe(text), _) => format!("({})?", self.text(text)),
                (Part::Pattern(pattern), _) => format!("/{pattern}/"),
                (Part::Either(one, other), _) => {
                    format!("({} | {})", self.parts(one, tool)?, self.parts(other, tool)?)
                }
                // As it stands within the quotes of JSON, which is as it stands elsewhere for any name that a form takes.
                (Part::Name, Some(tool)) => quoted(tool.name),
                (Part::Arguments, Some(tool)) => {
                    let rule = self.name("arguments");
                    self.rule(&rule, &format!("%json {}", tool.parameters));
                    rule
                }
                (Part::Each(each), Some(tool)) => self.each(each, tool)?,
                (Part::Fields { key, notation }, Some(tool)) => {
                    let fields = fields(tool.parameters)?;
                    let is_good = if *notation == Notation::Python { is_identifier } else { is_plain };
                    let write = |name: &str| is_good(name).then(|| quoted(&format!("{name}{key}")));
                    self.fields_of(&fields, tool.parameters, *notation, &write)?
                }
                (Part::Name | Part::Arguments | Part::Each(_) | Part::Fields { .. }, None) => return None,
            });
        }
        Some(all.join(" "))
    }

    /// Arguments between tags.
    fn each(&mut self, each: &Each, tool: &Tool<'_>) -> Option<String> {
        let Fields { named, others } = fields(tool.parameters)?;
        if let Some(others) = others {
            // What the parser makes of them depends on their text.
            (others == true || others == json!({})).then_some(())?;
            // What is opened by any name would have to be closed by the same.
            (!is_named(each)).then_some(())?;
            let before = self.text(each.before);
            let value = self.text_value(each, None, &Bounds::FREE)?;
            let between = self.parts((each.between)(Kind::Text), None)?;
            let then = self.parts(each.then, None)?;
            return Some(format!("({before} KEY {between} {value} {then})*"));
        }
        let mut all = Vec::with_capacity(named.len());
        for (key, schema, is_required) in named {
            is_plain(key).then_some(())?;
            let value = self.value(each, key, &schema, tool)?;
            let rule = self.name("argument");
            let before = self.text(each.before);
            self.rule(&rule, &format!("{before} {} {value}", quoted(key)));
            all.push(if is_required { rule } else { format!("{rule}?") });
        }
        Some(all.join(" "))
    }

    /// What stands behind the name of an argument.
    fn value(&mut self, each: &Each, key: &str, schema: &Value, tool: &Tool<'_>) -> Option<String> {
        let all = choices(schema, tool.parameters, &mut self.steps)?;
        let has_text = all.iter().any(|choice| matches!(choice, Choice::Text(_) | Choice::Anything));
        let is_typed = each.untyped.is_none();
        let closing = if is_named(each) { format!("{}{key}", each.after) } else { each.after.to_owned() };
        let then = self.parts(each.then, None)?;
        let mut found = Vec::new();
        if !is_typed && has_text && all.iter().all(Choice::is_whole_type) {
            // Whatever it says is one of them.
            let between = self.parts((each.between)(Kind::Text), None)?;
            let value = self.text_value(each, Some(key), &Bounds::FREE)?;
            return Some(format!("{between} {value} {then}"));
        }
        for choice in all {
            let kind = match &choice {
                Choice::Anything | Choice::Text(_) => Kind::Text,
                Choice::Value(value) => kind_of(value),
                Choice::Other(kind, _) => *kind,
            };
            let between = self.parts((each.between)(kind), None)?;
            let value = match &choice {
                Choice::Anything if is_typed => self.text_value(each, Some(key), &Bounds::FREE)?,
                Choice::Anything => return None,
                Choice::Text(schema) => self.text_value(each, Some(key), &bounds(schema)?)?,
                Choice::Value(Value::String(text)) => {
                    let is_marked = each.marks.iter().any(|mark| text.contains(mark));
                    let is_good = match each.untyped {
                        _ if is_marked || each.is_quoted && text.contains(['<', '&', '\n']) => false,
                        None => without_edges(text, each.trim) == text,
                        Some(untyped) => {
                            let read = without_edges(text, each.trim);
                            tool.read.convert(tool.name, key, read, untyped) == text.as_str()
                        }
                    };
                    is_good.then(|| format!("{} {}", quoted(text), self.text(&closing)))?
                }
                // The parser would take a text for any of them.
                Choice::Other(..) if !is_typed && has_text && !choice.is_whole_type() => return None,
                Choice::Value(_) if !is_typed && has_text => return None,
                Choice::Other(_, schema) => {
                    let value = self.document(each, schema, tool.parameters)?;
                    format!("{value} {}", self.text(&closing))
                }
                Choice::Value(value) => {
                    let value = self.document(each, &json!({ "const": value }), tool.parameters)?;
                    format!("{value} {}", self.text(&closing))
                }
            };
            found.push(format!("{between} {value}"));
        }
        (!found.is_empty()).then(|| format!("({}) {then}", found.join(" | ")))
    }

    /// A document of JSON in which none of the marks occur.
    fn document(&mut self, each: &Each, schema: &Value, root: &Value) -> Option<String> {
        let (count, rules, known) = (self.count, self.rules.len(), self.known.len());
        if let Some(value) = self.literal_of(schema, root, Notation::Json(each.marks)) {
            return Some(value);
        }
        self.count = count;
        self.rules.truncate(rules);
        self.known.truncate(known);
        // Whoever spells a mark that is a token does so on purpose.
        let is_token = |mark: &str| self.pieces(mark).iter().any(Result::is_ok);
        if !each.marks.iter().all(|mark| mark.starts_with("<![") || is_token(mark)) {
            return None;
        }
        let mut schema = schema.clone();
        if let Value::Object(fields) = &mut schema {
            for key in ["$defs", "definitions"] {
                let all = root.get(key).cloned();
                all.into_iter().for_each(|all| drop(fields.insert(key.to_owned(), all)));
            }
        }
        let rule = self.name("document");
        self.rule(&rule, &format!("%json {schema}"));
        Some(rule)
    }

    /// An argument that is a text, and what is behind it.
    fn text_value(&mut self, each: &Each, key: Option<&str>, bounds: &Bounds) -> Option<String> {
        let closing = match key {
            Some(key) if is_named(each) => format!("{}{key}", each.after),
            _ => each.after.to_owned(),
        };
        let mut all = bounds.all.clone();
        if each.is_quoted {
            let quoted = self.text_until(bounds, each.marks, "]]>");
            all.push("[^<&\\n]+".to_owned());
            let token = self.name("TEXT");
            let body = join(&all);
            self.rule(&token, &format!("{body}{}", self.without(each.marks)));
            let mark = if bounds.may_be_empty { "?" } else { "" };
            let (open, closing) = (self.text("<![CDATA["), self.text(&closing));
            return Some(format!("({token}{mark} | {open} {quoted}) {closing}"));
        }
        if each.trim != Trim::Nothing && !bounds.all.is_empty() {
            // What is taken off the edges would not count.
            all.push("(\\S((?s:.)*\\S)?)?".to_owned());
        }
        let bounds = Bounds { all, may_be_empty: bounds.may_be_empty };
        Some(self.text_until(&bounds, each.marks, &closing))
    }

    /// A text without these marks in it, and what ends it.
    fn text_until(&mut self, bounds: &Bounds, marks: &[&str], end: &str) -> String {
        let without = self.without(marks);
        let pieces = self.pieces(end);
        let Some(at) = pieces.iter().position(Result::is_ok) else {
            // The first that there is.
            let rule = self.name("text");
            let any = ["(?s:.)*".to_owned()];
            let body = join(if bounds.all.is_empty() { &any } else { &bounds.all });
            let body = format!("{rule}[suffix={}]: {body}{without}", quoted(end));
            let _ = writeln!(self.rules, "{body}");
            return rule;
        };
        let lead: String = pieces[..at].iter().filter_map(|piece| piece.as_ref().err()).copied().collect();
        let rest: String = pieces[at..].iter().map(written_piece).collect::<Vec<_>>().join(" ");
        let token = self.name("TEXT");
        let any = ["(?s:.)+".to_owned()];
        let all = if bounds.all.is_empty() { &any[..] } else { &bounds.all };
        match lead.is_empty() {
            true => {
                self.rule(&token, &format!("{}{without}", join(all)));
                let mark = if bounds.may_be_empty { "?" } else { "" };
                format!("{token}{mark} {rest}")
            }
            // A text would go on into what stands before the token.
            false => {
                let any = ["(?s:.)*".to_owned()];
                let all = if bounds.all.is_empty() { &any[..] } else { &bounds.all };
                let all: Vec<String> = all.iter().map(|one| format!("(?:{one}){}", pattern(&lead))).collect();
                self.rule(&token, &format!("{}{without}", join(&all)));
                format!("{token} {rest}")
            }
        }
    }

    /// A text, and the tokens in it that are no text otherwise.
    fn pieces<'t>(&self, text: &'t str) -> Vec<Result<u32, &'t str>> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        let tokens = match self.marker(text) {
            Some(token) => vec![token],
            None => self.tokenizer.encode(text, false).unwrap_or_default(),
        };
        for token in tokens.into_iter().filter(|token| self.tokenizer.is_marker(*token)) {
            let content = self.tokenizer.id_to_token(token);
            if let Some((before, behind)) = content.and_then(|content| rest.split_once(content.as_str())) {
                if !before.is_empty() {
                    pieces.push(Err(before));
                }
                pieces.push(Ok(token));
                rest = behind;
            }
        }
        if !rest.is_empty() {
            pieces.push(Err(rest));
        }
        pieces
    }

    /// The token that a text is by itself, and that is no text otherwise.
    fn marker(&self, text: &str) -> Option<u32> {
        self.tokenizer.token_to_id(text).filter(|id| self.tokenizer.is_marker(*id))
    }

    /// A text as it stands in a rule.
    fn text(&self, text: &str) -> String {
        self.pieces(text).iter().map(written_piece).collect::<Vec<_>>().join(" ")
    }
}

fn written_piece(piece: &Result<u32, &str>) -> String {
    match piece {
        Ok(token) => format!("<[{token}]>"),
        Err(text) => quoted(text),
    }
}

/// Whether tags are named as the arguments.
fn is_named(each: &Each) -> bool {
    each.after.ends_with("</")
}

fn without_edges(text: &str, trim: Trim) -> &str {
    match trim {
        Trim::Nothing => text,
        Trim::LineEnd => {
            let text = text.strip_prefix('\n').unwrap_or(text);
            text.strip_suffix('\n').unwrap_or(text)
        }
        Trim::Space => text.trim(),
    }
}

/// What matches all of these regular expressions.
fn join(all: &[String]) -> String {
    all.iter().map(|one| format!("/{one}/")).collect::<Vec<_>>().join(" & ")
}

fn quoted(text: &str) -> String {
    json!(text).to_string().replace('\u{7f}', "\\u007f")
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
