//! The tools of a request, and whether they are called.

use std::time::{Duration, Instant};

use pippin::chat::{GrammarError, check_schema};
use pippin::generate::Constraint;
use pippin::text::{AnswerForm, Calls};
use pippin::{EngineError, GenerateParameters, ModelContainer};
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::fields::Fields;
use crate::options::Limits;

/// How long it is looked for which of several tools is at fault.
const SEARCH_TIME: Duration = Duration::from_secs(2);

/// What a request lets a model call.
#[derive(Clone, Debug, Default)]
pub(crate) struct ToolUse {
    /// What the model is told of, in the form of the OpenAI API.
    pub(crate) tools: Vec<Value>,
    /// Whether it calls.
    pub(crate) calls: Calls,
    /// The only one that it may call.
    only: Option<String>,
    /// Whether it may make several calls.
    pub(crate) is_parallel: bool,
    /// Where the request says what each of them is given.
    places: Vec<Place>,
}

/// A tool, and where the request says what it is given.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    /// In the form of the chat API.
    pub(crate) function: Value,
    pub(crate) place: Place,
}

/// Where a request says what a tool is given. Errors name what the client has sent, and not what that is for the model.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The schema of its arguments.
    Schema(String),
    /// What its text has to follow: only for the model a part of a schema.
    Text(String),
}

/// The forms of `tool_choice` that name a tool, in an API.
pub(crate) struct Choices<'n> {
    /// As an error shows them.
    pub(crate) shown: &'static str,
    /// The types of those that the API has here.
    pub(crate) types: &'static [&'static str],
    /// Which tool it is that a choice names, unless it names none.
    pub(crate) named: &'n dyn Fn(&Value) -> ApiResult<Option<String>>,
}

impl ToolUse {
    /// `tools`, `tool_choice` and `parallel_tool_calls`.
    pub(crate) fn read(fields: &mut Fields, limits: &Limits) -> ApiResult<Self> {
        let tools = fields.list("tools")?.unwrap_or_default();
        let tools =
            tools.into_iter().enumerate().map(|(index, tool)| function(tool, &format!("tools.{index}")));
        let choices = Choices {
            shown: "{\"type\": \"function\", \"function\": {\"name\": …}}",
            types: &["function"],
            named: &|choice| {
                let name = choice["function"]["name"].as_str().or(choice["name"].as_str());
                Ok(name.map(str::to_owned))
            },
        };
        Self::of(tools.collect::<ApiResult<_>>()?, &choices, fields, limits)
    }

    /// These tools, with `tool_choice` and `parallel_tool_calls`.
    pub(crate) fn of(
        tools: Vec<Tool>,
        choices: &Choices<'_>,
        fields: &mut Fields,
        limits: &Limits,
    ) -> ApiResult<Self> {
        let is_parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
        let expected = || format!("none, auto, required, or {}", choices.shown);
        let wrong = || ApiError::field("tool_choice", expected());
        let (calls, only) = match fields.take("tool_choice") {
            None => (Calls::Optional, None),
            Some(Value::String(choice)) => match choice.as_str() {
                "none" => (Calls::Never, None),
                "auto" => (Calls::Optional, None),
                "required" | "any" => (Calls::Required, None),
                _ => return Err(wrong()),
            },
            Some(choice) => {
                if let Some(kind) = choice["type"].as_str().filter(|kind| !choices.types.contains(kind)) {
                    let message = format!(
                        "tool_choice of type {kind:?} is not supported by this version of Pippin: it must be {}",
                        expected()
                    );
                    return Err(ApiError::invalid(message).at("tool_choice"));
                }
                let is_typed = matches!(choice["type"], Value::Null | Value::String(_));
                match (choices.named)(&choice)?.filter(|_| is_typed) {
                    Some(name) => (Calls::Required, Some(name)),
                    None => return Err(wrong()),
                }
            }
        };
        Self::new(tools, calls, only, is_parallel, limits)
    }

    pub(crate) fn new(
        tools: Vec<Tool>,
        calls: Calls,
        only: Option<String>,
        is_parallel: bool,
        limits: &Limits,
    ) -> ApiResult<Self> {
        if tools.len() > limits.tools {
            return Err(ApiError::field("tools", format!("no more than {} tools", limits.tools)));
        }
        let (tools, places): (Vec<Value>, Vec<Place>) =
            tools.into_iter().map(|tool| (tool.function, tool.place)).unzip();
        let mut names: Vec<&str> = tools.iter().map(name_of).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ApiError::invalid(format!("two tools have the name {:?}", pair[0])).at("tools"));
        }
        if let Some(only) = only.as_deref().filter(|only| !names.contains(only)) {
            return Err(ApiError::invalid(format!("tool_choice names {only:?}, which is none of the tools"))
                .at("tool_choice"));
        }
        if calls == Calls::Required && tools.is_empty() {
            return Err(
                ApiError::invalid("tool_choice wants a call, and there are no tools").at("tool_choice")
            );
        }
        Ok(Self { tools, calls, only, is_parallel, places })
    }

    /// Refuses strict tools with schemas that cannot be followed. This takes time.
    pub(crate) fn check(&self) -> ApiResult<()> {
        let strict = self.tools.iter().enumerate().filter(|(_, tool)| is_strict(tool));
        for (index, tool) in strict {
            check_schema(parameters(tool)).map_err(|error| self.of_tool(&error, index))?;
        }
        Ok(())
    }

    /// Which of the strict tools a model cannot be held to, and why. This takes time.
    pub(crate) fn at_fault(&self, model: &ModelContainer) -> Option<ApiError> {
        let end = Instant::now() + SEARCH_TIME;
        let strict = self.tools.iter().enumerate().filter(|(_, tool)| is_strict(tool));
        strict.take_while(|_| Instant::now() < end).find_map(|(index, tool)| {
            let parameters = GenerateParameters {
                constraint: Some(Constraint::json_schema(parameters(tool).clone())),
                ..GenerateParameters::default()
            };
            match model.prepare_constraint(&[], &parameters) {
                Err(EngineError::Grammar(error @ GrammarError::Schema { .. })) => {
                    Some(self.of_tool(&error, index))
                }
                _ => None,
            }
        })
    }

    fn of_tool(&self, error: &GrammarError, index: usize) -> ApiError {
        let chat = || Place::Schema(format!("tools.{index}.function.parameters"));
        match (self.places.get(index).cloned().unwrap_or_else(chat), error) {
            (Place::Text(place), GrammarError::Schema { problem, .. }) => {
                // The parser quotes the expression as the schema has it.
                let problem = problem.split(" in regex /").next().unwrap_or_default();
                let message = format!("{place}: what the text has to follow cannot be followed: {problem}");
                ApiError::invalid(message).at(place)
            }
            (Place::Schema(place) | Place::Text(place), error) => {
                ApiError::invalid(format!("{place}: {error}")).at(place)
            }
        }
    }

    /// Whether the model may call anything.
    pub(crate) fn may_call(&self) -> bool {
        self.calls != Calls::Never && !self.tools.is_empty()
    }

    /// What the prompt shows.
    pub(crate) fn shown(&self) -> Vec<Value> {
        if self.may_call() { self.tools.clone() } else { Vec::new() }
    }

    /// Whether answers have to be held to a form for what is asked of calls.
    pub(crate) fn needs_form(&self) -> bool {
        self.may_call() && (self.calls == Calls::Required || self.tools.iter().any(is_strict))
    }

    /// Lets the arguments of all tools that are not strict be any object. Returns whether there are such tools.
    pub(crate) fn loosen(&mut self) -> bool {
        let mut loose = self.tools.iter_mut().filter(|tool| !is_strict(tool)).peekable();
        let has_any = loose.peek().is_some();
        loose.for_each(|tool| tool["function"]["parameters"] = json!({"type": "object"}));
        has_any
    }

    /// The form of the answers.
    pub(crate) fn form(&self, schema: Option<Value>) -> AnswerForm {
        let may_be_called = |tool: &&Value| self.only.as_deref().is_none_or(|only| only == name_of(tool));
        AnswerForm {
            tools: self.tools.iter().filter(may_be_called).map(followable).collect(),
            calls: self.calls,
            is_parallel: self.is_parallel && self.only.is_none(),
            schema,
            text: None,
        }
    }
}

/// A tool with a schema that can be followed: of one that is not strict, what cannot be is left out.
fn followable(tool: &Value) -> Value {
    let mut tool = tool.clone();
    if is_strict(&tool) || parameters(&tool).is_null() {
        return tool;
    }
    for _ in 0..LEFT_OUT {
        match check_schema(parameters(&tool)) {
            Ok(()) => return tool,
            Err(GrammarError::Schema { path, .. })
                if leave_out(&mut tool["function"]["parameters"], &path) => {}
            Err(_) => break,
        }
    }
    tool["function"]["parameters"] = json!({"type": "object"});
    tool
}

/// Takes what stands at a place out of a schema: a keyword, or what a property has to be. Returns whether there was such.
fn leave_out(schema: &mut Value, path: &str) -> bool {
    let Some((parent, key)) = path.strip_prefix('#').and_then(|pointer| pointer.rsplit_once('/')) else {
        return false;
    };
    let key = key.replace("~1", "/").replace("~0", "~");
    let named = ["properties", "patternProperties", "$defs", "definitions"];
    let is_named = parent.rsplit('/').next().is_some_and(|of| named.contains(&of));
    let Some(Value::Object(fields)) = schema.pointer_mut(parent) else { return false };
    match fields.get_mut(&key) {
        Some(value) if is_named && *value != Value::Bool(true) => {
            *value = Value::Bool(true);
            true
        }
        Some(_) => fields.remove(&key).is_some(),
        None => false,
    }
}

/// Places of a tool's schema that are left out at most, before all of it is.
const LEFT_OUT: usize = 64;

fn is_strict(tool: &Value) -> bool {
    tool["function"]["strict"] == true
}

fn name_of(tool: &Value) -> &str {
    tool["function"]["name"].as_str().unwrap_or_default()
}

fn parameters(tool: &Value) -> &Value {
    static NONE: Value = Value::Bool(true);
    match &tool["function"]["parameters"] {
        Value::Null => &NONE,
        schema => schema,
    }
}

/// Reads a tool in the form of the chat API, or in the flat one of the responses API. Errors name fields by the form that it has.
pub(crate) fn function(tool: Value, at: &str) -> ApiResult<Tool> {
    let wrong = |place: &str, expected: &str| Err(ApiError::field(&format!("{at}{place}"), expected));
    let Value::Object(mut fields) = tool else { return wrong("", "an object") };
    match fields.get("type").and_then(Value::as_str) {
        Some("function") | None => {}
        Some(kind) => {
            let message = format!("tools of type {kind:?} are not supported by this version of Pippin");
            return Err(ApiError::invalid(message).at(format!("{at}.type")));
        }
    }
    let is_flat = !fields.contains_key("function");
    if is_flat {
        fields.remove("type");
        fields = [("type".to_owned(), json!("function")), ("function".to_owned(), fields.into())]
            .into_iter()
            .collect();
    }
    let tool = Value::Object(fields);
    let function = &tool["function"];
    if !function.is_object() {
        return wrong(".function", "an object");
    }
    let at = if is_flat { at.to_owned() } else { format!("{at}.function") };
    let wrong = |field: &str, expected: &str| Err(ApiError::field(&format!("{at}.{field}"), expected));
    match function["name"].as_str() {
        Some(name) if is_name(name) => {}
        _ => return wrong("name", "1 to 256 letters, digits, `_`, `-`, `.`, `:` or `/`"),
    }
    if !matches!(function["description"], Value::Null | Value::String(_)) {
        return wrong("description", "a string");
    }
    match &function["parameters"] {
        Value::Null => {}
        // Arguments have names.
        Value::Object(schema) if schema.get("type").is_none_or(|kind| kind == "object") => {}
        _ => return wrong("parameters", "the JSON schema of an object"),
    }
    if !matches!(function["strict"], Value::Null | Value::Bool(_)) {
        return wrong("strict", "true or false");
    }
    let place = Place::Schema(format!("{at}.parameters"));
    Ok(Tool { function: tool, place })
}

/// Whether a function can have this name: what all dialects can write.
fn is_name(name: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
    !name.is_empty() && name.len() <= 256 && name.bytes().all(is_char)
}
