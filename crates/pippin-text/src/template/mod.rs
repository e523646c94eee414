//! Chat templates.

mod builtins;
mod conversation;
mod eval;
mod folder;
mod format;
mod json;
mod names;
mod ops;
mod parse;
mod value;

use serde_json::{Map, Value as Json};

use crate::error::{Result, TextError};
use crate::message::Message;
use crate::special_tokens::SpecialTokens;

use conversation::{Fields, Form};
use eval::{Fault, Interpreter, Outcome};
use parse::Block;
use value::{Key, Value};

/// Template files may have this many bytes; the longest published ones have 40,000.
const SOURCE_LIMIT: u64 = 1 << 20;

/// Stack for parsing and rendering. The depth of both is bounded, but what a level costs depends on the compiler, and
/// how much stack the caller has left is not known; so both run on a thread of their own. The unoptimised build needs
/// a quarter of this at the deepest.
const STACK: usize = 32 << 20;

/// What a template may use while rendering one prompt.
///
/// The defaults are far above what any published template needs for a conversation that fits a model, and low enough
/// that rendering a hostile template ends within seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateLimits {
    /// Steps of the interpreter. A usual template takes some hundred for each message, more for long ones.
    pub steps: u64,
    /// Bytes of the rendered prompt.
    pub output: u64,
    /// Bytes of all values made while rendering, taken together: those already dropped count, too. For each byte that
    /// is given to the template, 32 more are allowed.
    pub memory: u64,
}

impl Default for TemplateLimits {
    fn default() -> Self {
        Self { steps: 50_000_000, output: 32 << 20, memory: 256 << 20 }
    }
}

/// Everything that goes into one prompt.
///
/// ```
/// use pippin_text::{Message, RenderInputs};
///
/// let messages = [Message::user("Hello")];
/// let inputs = RenderInputs { add_generation_prompt: false, ..RenderInputs::new(&messages) };
/// assert!(inputs.tools.is_none());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RenderInputs<'a> {
    /// The conversation; at least one message.
    pub messages: &'a [Message],
    /// Tools the model may call, each a JSON object in the form of the OpenAI API. An empty list counts as none.
    pub tools: Option<&'a [Json]>,
    /// Ends the prompt with the header of an assistant message, so that the model answers.
    pub add_generation_prompt: bool,
    /// Ends the prompt inside the text of the last message, so that the model continues it. Excludes
    /// `add_generation_prompt`.
    pub continue_final_message: bool,
    /// Further variables for the template (`enable_thinking` and the like). Names the engine sets itself are refused.
    pub extra: Option<&'a Map<String, Json>>,
    /// The kinds of content part besides text that the model takes (`image`, `image_url`, …), as the `type` of a part names
    /// them. Any other part that is not text is an error: nothing of a message is left out silently. Empty, as it is by
    /// default, means text only.
    pub media: &'a [&'a str],
    /// The special tokens of the model: templates use `bos_token` and `eos_token`.
    pub special_tokens: Option<&'a SpecialTokens>,
    /// The time that `strftime_now` shows, in seconds since 1970, in UTC. Without it, the present time in the local
    /// time zone.
    pub now: Option<i64>,
}

impl<'a> RenderInputs<'a> {
    /// The usual prompt: the conversation, and then the model is to answer.
    pub fn new(messages: &'a [Message]) -> Self {
        Self { messages, add_generation_prompt: true, ..Self::default() }
    }

    /// With the special tokens of the model.
    #[must_use]
    pub fn with_special_tokens(self, special_tokens: &'a SpecialTokens) -> Self {
        Self { special_tokens: Some(special_tokens), ..self }
    }

    /// With tools.
    #[must_use]
    pub fn with_tools(self, tools: &'a [Json]) -> Self {
        Self { tools: Some(tools), ..self }
    }

    /// With the kinds of content part besides text that the model takes.
    #[must_use]
    pub fn with_media(self, media: &'a [&'a str]) -> Self {
        Self { media, ..self }
    }

    /// With further variables for the template.
    #[must_use]
    pub fn with_extra(self, extra: &'a Map<String, Json>) -> Self {
        Self { extra: Some(extra), ..self }
    }
}

/// The chat template of a model: renders a conversation into a prompt.
///
/// # Language
///
/// The language is Jinja as Hugging Face `transformers` 5 sets it up for chat templates: `trim_blocks`, `lstrip_blocks`,
/// `break` and `continue`, `{% generation %}` (which renders its contents), `raise_exception`, `strftime_now`, a `tojson`
/// that writes what Python's `json.dumps(ensure_ascii=False)` writes, and Python's own semantics for values: `True`
/// prints as `True`, dicts keep their order, strings, lists and dicts have their Python methods, an undefined variable
/// is empty until it is used, `map`, `select` and their like return something that can be read once. Goldens made with `transformers` and Jinja2 hold the two together.
///
/// # Conversations that a template does not expect
///
/// Templates disagree about messages without content, about the arguments of calls and about reasoning. One that fails on the
/// conversation as `transformers` shows it sees it in other forms, in a fixed order, until one renders; `docs/templates.md` in
/// the repository lists them. What a template refuses through `raise_exception` stays refused, unless it is something that
/// was added for it.
///
/// # Untrusted templates
///
/// A template comes with the model, so it is untrusted code. Existing engines bound the number of instructions, but a
/// dozen of them suffice to double a string until memory ends, to nest lists until dropping them overflows the stack, or to
/// compare lists that share their parts for hours. Therefore the interpreter is our own (the parser is minijinja's): every
/// step is counted and operations on large values count as many, every byte made is counted *before* it is made, the depth
/// and the unshared size of each value are bounded, recursion is bounded, and no value can contain itself. Templates have no
/// access to files, other templates, or anything but their variables. See [`TemplateLimits`].
#[derive(Debug)]
pub struct ChatTemplate {
    default: Program,
    tool_use: Option<Program>,
    limits: TemplateLimits,
    warnings: Vec<String>,
}

#[derive(Debug)]
struct Program {
    origin: String,
    source: String,
    block: Result<Block, Mistake>,
}

/// A template that cannot be run.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{origin}, line {line}: chat template error: {problem}")]
struct Mistake {
    origin: String,
    line: u32,
    problem: String,
}

impl From<Mistake> for TextError {
    fn from(Mistake { origin, line, problem }: Mistake) -> Self {
        Self::Template { origin, line, problem }
    }
}

impl Program {
    fn new(origin: impl Into<String>, source: impl Into<String>) -> Result<Self> {
        let (origin, source) = (origin.into(), source.into());
        if source.len() as u64 > SOURCE_LIMIT {
            let limit = SOURCE_LIMIT;
            return Err(TextError::TemplateLimit { origin, line: 1, what: "bytes of source", limit });
        }
        let program = Self::parse(origin, source);
        match &program.block {
            Ok(_) => Ok(program),
            Err(mistake) => Err(mistake.clone().into()),
        }
    }

    fn parse(origin: String, source: String) -> Self {
        let parsed = on_own_stack(|| parse::parse(&source)).unwrap_or_else(|problem| Err((1, problem)));
        let block = parsed.map_err(|(line, problem)| Mistake { origin: origin.clone(), line, problem });
        Self { origin, source, block }
    }

    /// One whose source cannot be had; whoever renders learns why.
    fn unreadable(origin: String, problem: String) -> Self {
        let block = Err(Mistake { origin: origin.clone(), line: 1, problem });
        Self { origin, source: String::new(), block }
    }
}

impl ChatTemplate {
    /// A template from its source; `origin` is the name used in errors.
    pub fn from_source(origin: impl Into<String>, source: impl Into<String>) -> Result<Self> {
        let (default, limits) = (Program::new(origin, source)?, TemplateLimits::default());
        Ok(Self { default, tool_use: None, limits, warnings: Vec::new() })
    }

    /// A template, and one for prompts with tools, each with its name; either may have a mistake.
    pub(crate) fn from_sources(default: (String, String), tool_use: Option<(String, String)>) -> Self {
        let program = |(origin, source)| Program::parse(origin, source);
        let (default, tool_use) = (program(default), tool_use.map(program));
        let mistakes = [Some(&default), tool_use.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(|program| program.block.as_ref().err());
        let warnings = mistakes.map(|mistake| format!("{mistake}: prompts that need it will fail")).collect();
        Self { default, tool_use, limits: TemplateLimits::default(), warnings }
    }

    /// Whether the template for these prompts can be run: it could be read, and has no mistake in its syntax.
    pub fn is_sound(&self, with_tools: bool) -> bool {
        self.program(with_tools).block.is_ok()
    }

    /// What was left out of a folder's files and why, one line each; worth showing once when a model is loaded.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The same template with other limits.
    #[must_use]
    pub fn with_limits(self, limits: TemplateLimits) -> Self {
        Self { limits, ..self }
    }

    /// The source of the template, for prompts with tools or without. Useful to recognise a model's dialect.
    pub fn source(&self, with_tools: bool) -> &str {
        &self.program(with_tools).source
    }

    fn program(&self, with_tools: bool) -> &Program {
        self.tool_use.as_ref().filter(|_| with_tools).unwrap_or(&self.default)
    }

    /// Renders a prompt.
    pub fn render(&self, inputs: &RenderInputs<'_>) -> Result<String> {
        if inputs.messages.is_empty() {
            let problem = "there is no message; give at least one".to_owned();
            return Err(TextError::InvalidConversation { problem });
        }
        if inputs.continue_final_message && inputs.add_generation_prompt {
            let problem = "`continue_final_message` continues the last message, `add_generation_prompt` starts a new \
                           one; set only one of them";
            return Err(TextError::InvalidConversation { problem: problem.to_owned() });
        }
        let render = || self.render_forms(inputs);
        on_own_stack(render).unwrap_or_else(|problem| Err(TextError::InvalidConversation { problem }))
    }

    /// Renders the first form of the conversation that the template takes.
    ///
    /// Nearly always that is the very first one. Others are tried only after an error, and share its budget of steps.
    fn render_forms(&self, inputs: &RenderInputs<'_>) -> Result<String> {
        let tools = inputs.tools.filter(|tools| !tools.is_empty());
        let program = self.program(tools.is_some());
        let mut steps = 0;
        let mut attempt = |form| match inputs.continue_final_message {
            true => self.continue_final(program, inputs, form, &mut steps),
            false => {
                let messages = conversation::fields(inputs.messages, form, inputs.media)?;
                self.run(program, inputs, messages, &mut steps)
            }
        };
        let error = match attempt(Form::default()) {
            Err(error @ (TextError::Template { .. } | TextError::TemplateRefused { .. })) => error,
            other => return other,
        };
        let refused = matches!(error, TextError::TemplateRefused { .. });
        for form in Form::others(inputs.messages, &program.source, refused) {
            match attempt(form) {
                Err(TextError::Template { .. } | TextError::TemplateRefused { .. }) => {}
                other => return other,
            }
        }
        Err(match (error, conversation::unreadable_arguments(inputs.messages)) {
            // Most templates can do something with objects only.
            (TextError::Template { line, problem: failure, .. }, Some((index, field, problem))) => {
                let problem =
                    format!("{problem}; and the chat template fails on text here (line {line}: {failure})");
                TextError::InvalidMessage { index, field, problem }
            }
            (error, _) => error,
        })
    }

    /// As `transformers` does it: marks the end of the last message's text, renders, and cuts at the mark.
    fn continue_final(
        &self,
        program: &Program,
        inputs: &RenderInputs<'_>,
        form: Form,
        steps: &mut u64,
    ) -> Result<String> {
        const MARK: &str = "CONTINUE_FINAL_MESSAGE_TAG ";
        let mut messages = conversation::fields(inputs.messages, form, inputs.media)?;
        let index = messages.len() - 1;
        let invalid = |problem: &str| TextError::InvalidMessage {
            index,
            field: "content".to_owned(),
            problem: format!("{problem}, so it cannot be continued"),
        };
        let is_absent = inputs.messages[index].fields().get("content").is_none_or(Json::is_null);
        let content = messages.last_mut().and_then(|message| message.get_mut("content"));
        let Some(content) = content.filter(|_| !is_absent) else { return Err(invalid("is absent")) };
        let original = match content {
            Value::Str(text) => {
                let original = text.clone();
                *content = Value::str([text.as_ref(), MARK].concat());
                original
            }
            Value::List(parts) => {
                let mut parts = parts.items.clone();
                let found = parts.iter_mut().rev().find_map(|part| {
                    let Value::Dict(dict) = part else { return None };
                    let text = dict.map.get("text")?.as_str()?;
                    let original: std::sync::Arc<str> = text.into();
                    let mut fields = dict.map.clone();
                    fields.insert(Key::Str("text".into()), Value::str([text, MARK].concat()));
                    Some((part, original, fields))
                });
                let Some((part, original, fields)) = found else { return Err(invalid("has no text")) };
                *part = convert(Value::dict(fields), || format!("messages[{index}]"))?;
                *content = convert(Value::list(parts), || format!("messages[{index}]"))?;
                original
            }
            _ => return Err(invalid("is not text")),
        };
        let mut prompt = self.run(program, inputs, messages, steps)?;
        let Some(end) = prompt.rfind(MARK.trim_end()).filter(|_| prompt.contains(original.trim())) else {
            return Err(invalid("is not rendered unchanged by the chat template"));
        };
        let spacing_kept = prompt[end..].starts_with(MARK);
        prompt.truncate(end);
        if !spacing_kept {
            prompt.truncate(prompt.trim_end().len());
        }
        Ok(prompt)
    }

    /// Runs the template once. `steps` are those that other runs have taken, and then this one, too.
    fn run(
        &self,
        program: &Program,
        inputs: &RenderInputs<'_>,
        messages: Vec<Fields>,
        steps: &mut u64,
    ) -> Result<String> {
        let block = program.block.as_ref().map_err(|mistake| mistake.clone())?;
        let mut interpreter = Interpreter::new(self.limits, inputs.now, *steps);
        // Extra variables first: whatever the engine sets itself stands above them.
        for (name, value) in inputs.extra.into_iter().flatten() {
            let special = inputs.special_tokens.is_some_and(|tokens| tokens.get(name).is_some());
            if special || is_reserved(name) {
                return Err(TextError::ReservedVariable { name: name.clone() });
            }
            let value = convert(Value::from_json(value), || format!("template variable `{name}`"))?;
            interpreter.define(name, value);
        }
        // Before the variables that the engine sets: a model may name a token as it likes.
        for (name, token) in inputs.special_tokens.into_iter().flat_map(SpecialTokens::iter) {
            interpreter.define(name, Value::str(token));
        }
        let mut list = Vec::with_capacity(messages.len());
        for (index, message) in messages.into_iter().enumerate() {
            list.push(convert(Value::dict(message), || format!("messages[{index}]"))?);
        }
        interpreter.define("messages", convert(Value::list(list), || "messages".to_owned())?);
        let tools = match inputs.tools.filter(|tools| !tools.is_empty()) {
            Some(tools) => {
                let tools: Outcome<Vec<Value>> = tools.iter().map(Value::from_json).collect();
                convert(tools.and_then(Value::list), || "tools".to_owned())?
            }
            None => Value::None,
        };
        interpreter.define("tools", tools);
        if inputs.extra.is_none_or(|extra| !extra.contains_key("documents")) {
            interpreter.define("documents", Value::None);
        }
        interpreter.define("add_generation_prompt", Value::Bool(inputs.add_generation_prompt));
        let outcome = interpreter.run(block);
        *steps = interpreter.steps();
        outcome.map_err(|(line, fault)| {
            let origin = program.origin.clone();
            match fault {
                Fault::Refused(mut message) => {
                    // Whoever reads it has seen enough.
                    if let Some((end, _)) = message.char_indices().nth(2000) {
                        message.truncate(end);
                        message.push('…');
                    }
                    TextError::TemplateRefused { origin, line, message }
                }
                Fault::Limit(what, limit) => TextError::TemplateLimit { origin, line, what, limit },
                Fault::Error(problem) => TextError::Template { origin, line, problem },
            }
        })
    }
}

/// Runs something on a thread with enough stack. An error if there is none to be had, or if it panics: templates that
/// reach a mistake of ours end their request, not the program.
fn on_own_stack<T: Send>(run: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat template".to_owned()).stack_size(STACK);
        let handle = thread.spawn_scoped(scope, run);
        let handle =
            handle.map_err(|error| format!("cannot start a thread for the chat template: {error}"))?;
        handle
            .join()
            .map_err(|_| "internal error in the chat template interpreter; please report it".to_owned())
    })
}

/// Reports a value that is too deep or too large to be given to a template.
fn convert(value: Outcome<Value>, what: impl Fn() -> String) -> Result<Value> {
    value.map_err(|fault| TextError::InvalidConversation {
        problem: format!("{}: {}", what(), problem(fault)),
    })
}

/// A fault in words.
fn problem(fault: Fault) -> String {
    match fault {
        Fault::Error(problem) | Fault::Refused(problem) => problem,
        Fault::Limit(unit, limit) => format!("exceeds the limit of {limit} {unit}"),
    }
}

/// Names that callers may not set: the engine's own, those of the language, and arguments of `transformers` that would
/// change what is rendered.
fn is_reserved(name: &str) -> bool {
    const RESERVED: &[&str] = &[
        "messages",
        "conversation",
        "tools",
        "add_generation_prompt",
        "continue_final_message",
        "chat_template",
        "tokenize",
        "loop",
        "caller",
        "varargs",
        "kwargs",
        "self",
        "super",
    ];
    // Also where the model has no such token: templates test whether it is defined.
    const TOKENS: &[&str] =
        &["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
    RESERVED.contains(&name) || TOKENS.contains(&name) || builtins::is_global(name)
}
