//! Chat messages in the form of the OpenAI API, which is also the form chat templates expect.
//!
//! A message is kept as the JSON object it came as: templates may print it whole, and then the order of its fields, and
//! fields nobody here knows, belong to the prompt. The types below check it and read it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::error::{Result, TextError};
use crate::files::kind;

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Role {
    /// Instructions for the model.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
    /// Any other role a template may know (`developer`, `ipython`, …).
    Other(String),
}

impl Role {
    /// The role as it is written in JSON.
    pub fn as_str(&self) -> &str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
            Self::Other(role) => role,
        }
    }
}

impl From<String> for Role {
    fn from(role: String) -> Self {
        match role.as_str() {
            "system" => Self::System,
            "user" => Self::User,
            "assistant" => Self::Assistant,
            "tool" => Self::Tool,
            _ => Self::Other(role),
        }
    }
}

impl From<Role> for String {
    fn from(role: Role) -> Self {
        role.as_str().to_owned()
    }
}

/// What is wrong with a message, before its place in a conversation is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageError {
    /// The field, as a path: `content[1].text`. Empty when the message as a whole is meant.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl MessageError {
    fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// The error of the message at this place of a conversation.
    pub fn at(self, index: usize) -> TextError {
        TextError::InvalidMessage { index, field: self.field, problem: self.problem }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => write!(f, "a message {}", self.problem),
            field => write!(f, "{} {}", field.trim_start_matches('.'), self.problem),
        }
    }
}

impl std::error::Error for MessageError {}

/// What a message says: a string, or a list of parts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// A list of parts: text, or media for models that take them.
    Parts(Vec<ContentPart>),
}

impl Content {
    /// The text of all text parts, joined. `None` when there is a part that is not text.
    pub fn as_text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Parts(parts) => parts.iter().map(ContentPart::as_text).collect(),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => Value::String(text.clone()),
            Self::Parts(parts) => {
                parts.iter().map(|part| Value::Object(part.fields.clone())).collect::<Vec<_>>().into()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let content = match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self::Text(text)),
            Value::Array(parts) => {
                parts.into_iter().map(ContentPart::try_from).collect::<Result<_, _>>().map(Self::Parts)
            }
            other => {
                let problem = format!("must be a string or a list of parts, found {}", kind(&other));
                Err(MessageError::new("content", problem))
            }
        };
        content.map_err(serde::de::Error::custom)
    }
}

impl<T: Into<String>> From<T> for Content {
    fn from(text: T) -> Self {
        Self::Text(text.into())
    }
}

/// One part of a message's content: a JSON object, kept as it was given.
///
/// ```
/// use pippin_text::ContentPart;
/// use serde_json::json;
///
/// let part = ContentPart::try_from(json!({"type": "input_text", "text": "Hello"}))?;
/// assert_eq!((part.kind(), part.as_text()), ("input_text", Some("Hello")));
/// # Ok::<(), pippin_text::MessageError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ContentPart {
    fields: Map<String, Value>,
}

/// Kinds of part that are text, and the field that holds it. The chat API has `text`, the responses API the next two; a
/// `refusal` is what the model said instead of an answer.
const TEXT_KINDS: &[(&str, &str)] =
    &[("text", "text"), ("input_text", "text"), ("output_text", "text"), ("refusal", "refusal")];

/// Fields that name the kind of a part without `type`, as templates of vision models know them. Text comes last: what
/// stands beside it would be lost.
const UNTYPED_KINDS: &[&str] = &["image", "image_url", "audio", "input_audio", "video", "video_url", "text"];

/// Kinds of part that no tool result has by chance: these are media, whoever speaks.
const MEDIA_KINDS: &[&str] = &[
    "image",
    "image_url",
    "input_image",
    "audio",
    "audio_url",
    "input_audio",
    "video",
    "video_url",
    "input_video",
    "file",
    "input_file",
];

impl ContentPart {
    /// A text part.
    pub fn text(text: impl Into<String>) -> Self {
        let fields = [("type".to_owned(), "text".into()), ("text".to_owned(), Value::String(text.into()))];
        Self { fields: fields.into_iter().collect() }
    }

    /// `text`, `image_url`, …. What has no `type` is named after the field that says what it is.
    pub fn kind(&self) -> &str {
        part_kind(&self.fields).unwrap_or("text")
    }

    /// The text of a text part: of kind `text`, `input_text` or `output_text`, or a `refusal`.
    pub fn as_text(&self) -> Option<&str> {
        text_field(&self.fields)
    }

    /// Every field, as it was given.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }
}

/// A string is a text part, as in vLLM.
impl TryFrom<Value> for ContentPart {
    type Error = MessageError;

    fn try_from(value: Value) -> Result<Self, MessageError> {
        part_text(&value)?;
        Ok(match value {
            Value::Object(fields) => Self { fields },
            other => Self::text(other.as_str().unwrap_or_default()),
        })
    }
}

impl<'de> Deserialize<'de> for ContentPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The kind of a part, from its `type` or from the fields it has. `None` when nothing says it.
fn part_kind(fields: &Map<String, Value>) -> Option<&str> {
    match fields.get("type") {
        Some(Value::String(kind)) => Some(kind),
        None | Some(Value::Null) => UNTYPED_KINDS.iter().find(|kind| fields.contains_key(**kind)).copied(),
        Some(_) => None,
    }
}

/// The text of a text part.
fn text_field(fields: &Map<String, Value>) -> Option<&str> {
    let kind = part_kind(fields)?;
    let (_, field) = TEXT_KINDS.iter().find(|(name, _)| *name == kind)?;
    fields.get(*field)?.as_str()
}

/// Checks a part; the field of an error is within the part.
fn check_part(fields: &Map<String, Value>) -> Result<(), MessageError> {
    let Some(part_kind) = part_kind(fields) else {
        return Err(match fields.get("type") {
            Some(other) => MessageError::new(".type", format!("must be a string, found {}", kind(other))),
            None => MessageError::new(".type", "is missing: \"text\", for example"),
        });
    };
    let Some((_, field)) = TEXT_KINDS.iter().find(|(name, _)| *name == part_kind) else { return Ok(()) };
    match fields.get(*field) {
        Some(Value::String(_)) => Ok(()),
        Some(other) => {
            Err(MessageError::new(format!(".{field}"), format!("must be a string, found {}", kind(other))))
        }
        None => {
            Err(MessageError::new(format!(".{field}"), format!("is missing in a part of type {part_kind:?}")))
        }
    }
}

/// A tool call made by the model in an earlier turn.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// The id that the tool's answer refers to.
    pub id: Option<String>,
    /// Which function, with which arguments.
    pub function: FunctionCall,
}

impl ToolCall {
    /// A call of the function `name`.
    pub fn new(id: impl Into<String>, name: impl Into<String>, arguments: Value) -> Self {
        Self { id: Some(id.into()), function: FunctionCall { name: name.into(), arguments } }
    }

    /// The call as it is written in a message.
    fn to_json(&self) -> Value {
        let mut call = Map::new();
        if let Some(id) = &self.id {
            call.insert("id".to_owned(), id.as_str().into());
        }
        call.insert("type".to_owned(), "function".into());
        let mut function = Map::new();
        function.insert("name".to_owned(), self.function.name.as_str().into());
        function.insert("arguments".to_owned(), self.function.arguments.clone());
        call.insert("function".to_owned(), function.into());
        call.into()
    }

    /// Reads a checked call. `None` if it was not checked and names no function.
    fn from_json(call: &Value) -> Option<Self> {
        let function = function_of(call.as_object()?);
        Some(Self {
            id: call.get("id").and_then(Value::as_str).map(str::to_owned),
            function: FunctionCall {
                name: function.get("name")?.as_str()?.to_owned(),
                arguments: function.get("arguments").cloned().unwrap_or_default(),
            },
        })
    }
}

impl Serialize for ToolCall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ToolCall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let call = Value::deserialize(deserializer)?;
        check_call(&call).map_err(serde::de::Error::custom)?;
        Self::from_json(&call).ok_or_else(|| serde::de::Error::custom("is not a tool call"))
    }
}

/// The function of a tool call.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionCall {
    /// The function's name.
    pub name: String,
    /// The arguments: an object, or (as the OpenAI API has it) a string that holds the object as JSON.
    pub arguments: Value,
}

/// The object that has the name and the arguments of a call: its `function`, or the call itself in the flat form
/// (`{"name": …, "arguments": …}`), which some templates take.
pub(crate) fn function_of(call: &Map<String, Value>) -> &Map<String, Value> {
    call.get("function").and_then(Value::as_object).unwrap_or(call)
}

/// One message of a conversation.
///
/// A checked JSON object in the form of the OpenAI chat API. It serialises as it was given, and the fields that this type
/// does not know are seen by templates like all others.
///
/// ```
/// use pippin_text::{Message, Role};
///
/// let message: Message = serde_json::from_str(
///     r#"{"role": "user", "content": [{"type": "text", "text": "Hello"}], "mood": "good"}"#,
/// )?;
/// assert_eq!(message.role(), Role::User);
/// assert_eq!(message.text().as_deref(), Some("Hello"));
/// assert_eq!(message.fields()["mood"], "good");
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// # What is checked
///
/// - `role` is a string.
/// - `content` is a string, a list of parts, null or absent. A part is a string, or an object with a `type`; those of type
///   `text`, `input_text` and `output_text` have a `text`. The result of a tool (a role other than `system`, `developer`,
///   `user` and `assistant`) may be any JSON.
/// - `name` and `tool_call_id` are strings, null or absent.
/// - `tool_calls` is a list of calls, null or absent. A call has a `function` with a `name` (or a `name` of its own), and
///   `arguments` that are an object, a string, null or absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Message {
    fields: Map<String, Value>,
}

impl TryFrom<Map<String, Value>> for Message {
    type Error = MessageError;

    fn try_from(fields: Map<String, Value>) -> Result<Self, MessageError> {
        let message = Self { fields };
        message.check()?;
        Ok(message)
    }
}

impl TryFrom<Value> for Message {
    type Error = MessageError;

    fn try_from(value: Value) -> Result<Self, MessageError> {
        match value {
            Value::Object(fields) => Self::try_from(fields),
            other => Err(MessageError::new("", format!("must be an object, found {}", kind(&other)))),
        }
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Message {
    /// A message with nothing but role and text.
    pub fn new(role: Role, content: impl Into<Content>) -> Self {
        let mut message = Self { fields: Map::new() };
        message.set("role", String::from(role));
        message.set("content", content.into().to_json());
        message
    }

    /// The messages of a conversation from JSON.
    ///
    /// # Errors
    ///
    /// [`TextError::InvalidMessage`] names the message and the field.
    pub fn from_values(values: impl IntoIterator<Item = Value>) -> Result<Vec<Self>> {
        let read = |(index, value): (usize, Value)| {
            Self::try_from(value).map_err(|error: MessageError| error.at(index))
        };
        values.into_iter().enumerate().map(read).collect()
    }

    /// Instructions for the model.
    pub fn system(content: impl Into<Content>) -> Self {
        Self::new(Role::System, content)
    }

    /// A message of the person.
    pub fn user(content: impl Into<Content>) -> Self {
        Self::new(Role::User, content)
    }

    /// An earlier answer of the model.
    pub fn assistant(content: impl Into<Content>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// An earlier answer of the model that consists of tool calls.
    pub fn assistant_calls(calls: impl IntoIterator<Item = ToolCall>) -> Self {
        let mut message = Self::new(Role::Assistant, "");
        message.set("content", Value::Null);
        message.with_tool_calls(calls)
    }

    /// The answer of a tool to the call with this id.
    pub fn tool(tool_call_id: impl Into<String>, content: impl Into<Content>) -> Self {
        let mut message = Self::new(Role::Tool, content);
        message.set("tool_call_id", tool_call_id.into());
        message
    }

    /// With the name of the speaker, or of the tool.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.set("name", name.into());
        self
    }

    /// With the thinking that preceded the answer.
    #[must_use]
    pub fn with_reasoning(mut self, reasoning: impl Into<String>) -> Self {
        self.set("reasoning_content", reasoning.into());
        self
    }

    /// With the tools that the assistant called.
    #[must_use]
    pub fn with_tool_calls(mut self, calls: impl IntoIterator<Item = ToolCall>) -> Self {
        self.set("tool_calls", calls.into_iter().map(|call| call.to_json()).collect::<Vec<_>>());
        self
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// Every field, in the order and form in which it was given.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// Who speaks.
    pub fn role(&self) -> Role {
        Role::from(self.string("role").unwrap_or_default().to_owned())
    }

    /// What is said. `None` when content is absent or null, and for a tool's result that is neither text nor parts;
    /// [`fields`](Self::fields) has it.
    pub fn content(&self) -> Option<Content> {
        match self.content_form(&[]).ok()? {
            ContentForm::Nothing | ContentForm::Data => None,
            ContentForm::Text(text) => Some(text.into()),
            ContentForm::TextParts(parts) | ContentForm::Parts { parts, .. } => {
                let parts = parts.iter().cloned().map(ContentPart::try_from);
                parts.collect::<Result<_, _>>().ok().map(Content::Parts)
            }
        }
    }

    /// The text of the message. `None` without content, or when there is a part that is not text.
    pub fn text(&self) -> Option<String> {
        match self.content_form(&[]) {
            Ok(ContentForm::Text(text)) => Some(text.to_owned()),
            Ok(ContentForm::TextParts(parts)) => {
                Some(parts.iter().filter_map(|part| part_text(part).ok().flatten()).collect())
            }
            _ => None,
        }
    }

    /// The speaker's name, or the tool's.
    pub fn name(&self) -> Option<&str> {
        self.string("name")
    }

    /// In a tool's answer, the id of the call.
    pub fn tool_call_id(&self) -> Option<&str> {
        self.string("tool_call_id")
    }

    /// The tools that the assistant called.
    pub fn tool_calls(&self) -> Vec<ToolCall> {
        let calls = self.fields.get("tool_calls").and_then(Value::as_array);
        calls.into_iter().flatten().filter_map(ToolCall::from_json).collect()
    }

    /// The thinking of the message under any of its names: `reasoning_content`, `thinking`, `reasoning`.
    pub fn reasoning(&self) -> Option<&str> {
        REASONING.iter().find_map(|name| self.string(name))
    }

    fn string(&self, field: &str) -> Option<&str> {
        self.fields.get(field).and_then(Value::as_str)
    }

    /// Whether the content of the message is data that may have any form, as the results of tools are.
    fn holds_data(&self) -> bool {
        !matches!(self.string("role"), Some("system" | "developer" | "user" | "assistant"))
    }

    /// Checks what [`Message`] promises.
    pub(crate) fn check(&self) -> Result<(), MessageError> {
        match self.fields.get("role") {
            Some(Value::String(_)) => {}
            Some(other) => {
                return Err(MessageError::new("role", format!("must be a string, found {}", kind(other))));
            }
            None => return Err(MessageError::new("role", "is missing: \"user\", for example")),
        }
        for name in ["name", "tool_call_id"] {
            match self.fields.get(name) {
                None | Some(Value::Null | Value::String(_)) => {}
                Some(other) => {
                    return Err(MessageError::new(name, format!("must be a string, found {}", kind(other))));
                }
            }
        }
        self.content_form(&[])?;
        let calls = match self.fields.get("tool_calls") {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::Array(calls)) => calls,
            Some(other) => {
                let problem = format!("must be a list of tool calls, found {}", kind(other));
                return Err(MessageError::new("tool_calls", problem));
            }
        };
        calls.iter().enumerate().try_for_each(|(number, call)| {
            check_call(call).map_err(|error| {
                MessageError::new(format!("tool_calls[{number}]{}", error.field), error.problem)
            })
        })
    }

    /// What the content is. `media` are the kinds of part besides text that the model takes.
    pub(crate) fn content_form(&self, media: &[&str]) -> Result<ContentForm<'_>, MessageError> {
        let parts = match self.fields.get("content") {
            None | Some(Value::Null) => return Ok(ContentForm::Nothing),
            Some(Value::String(text)) => return Ok(ContentForm::Text(text)),
            Some(Value::Array(parts)) => parts,
            Some(_) if self.holds_data() => return Ok(ContentForm::Data),
            Some(other) => {
                let problem = format!("must be a string or a list of parts, found {}", kind(other));
                return Err(MessageError::new("content", problem));
            }
        };
        let is_known = |kind: &str| {
            TEXT_KINDS.iter().any(|(name, _)| *name == kind)
                || MEDIA_KINDS.contains(&kind)
                || media.contains(&kind)
        };
        // A list that a tool returns need not be one of parts. It is one if each of its items looks like a part.
        let is_part = |part: &Value| part.as_object().and_then(part_kind).is_some_and(is_known);
        if self.holds_data() && !parts.iter().all(is_part) {
            return Ok(ContentForm::Data);
        }
        let (mut has_media, mut foreign) = (false, None);
        for (number, part) in parts.iter().enumerate() {
            let error = |error: MessageError| {
                MessageError::new(format!("content[{number}]{}", error.field), error.problem)
            };
            if part_text(part).map_err(error)?.is_none() {
                has_media = true;
                let kind = part.as_object().and_then(part_kind).unwrap_or_default();
                if foreign.is_none() && !media.contains(&kind) {
                    foreign = Some((number, kind));
                }
            }
        }
        Ok(if has_media { ContentForm::Parts { parts, foreign } } else { ContentForm::TextParts(parts) })
    }
}

/// The text of a part, `None` if it is not one of text. The field of an error is within the part.
pub(crate) fn part_text(part: &Value) -> Result<Option<&str>, MessageError> {
    match part {
        Value::String(text) => Ok(Some(text)),
        Value::Object(fields) => {
            check_part(fields)?;
            Ok(text_field(fields))
        }
        other => Err(MessageError::new("", format!("must be an object or a string, found {}", kind(other)))),
    }
}

/// A part as templates see it that take lists: they look for the type `text`.
pub(crate) fn part_for_template(part: &Value) -> Value {
    match (part_text(part), part) {
        (Ok(Some(_)), Value::Object(fields)) if fields.get("type").is_none_or(|kind| kind == "text") => {
            part.clone()
        }
        (Ok(Some(text)), _) => Value::Object(ContentPart::text(text).fields),
        _ => part.clone(),
    }
}

/// The names under which reasoning is known. The first one that is there counts.
pub(crate) const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// What the content of a message is.
pub(crate) enum ContentForm<'a> {
    /// Absent or null.
    Nothing,
    /// A string.
    Text(&'a str),
    /// Parts that are all text.
    TextParts(&'a [Value]),
    /// Parts of which some are not text.
    Parts {
        /// All of them.
        parts: &'a [Value],
        /// The first that is no text and no medium that the model takes: where it is, and its kind.
        foreign: Option<(usize, &'a str)>,
    },
    /// Data of a tool.
    Data,
}

/// Checks a tool call; the field of an error is within the call.
fn check_call(call: &Value) -> Result<(), MessageError> {
    let Value::Object(call) = call else {
        return Err(MessageError::new("", format!("must be an object, found {}", kind(call))));
    };
    let path = match call.get("function") {
        Some(Value::Object(_)) => ".function",
        Some(Value::Null) | None if call.contains_key("name") => "",
        None => return Err(MessageError::new(".function", "is missing")),
        Some(other) => {
            return Err(MessageError::new(".function", format!("must be an object, found {}", kind(other))));
        }
    };
    let function = function_of(call);
    match function.get("name") {
        Some(Value::String(_)) => {}
        Some(other) => {
            let problem = format!("must be a string, found {}", kind(other));
            return Err(MessageError::new(format!("{path}.name"), problem));
        }
        None => return Err(MessageError::new(format!("{path}.name"), "is missing")),
    }
    match function.get("arguments") {
        None | Some(Value::Null | Value::Object(_) | Value::String(_)) => Ok(()),
        Some(other) => {
            let problem = format!("must be an object or a string of JSON, found {}", kind(other));
            Err(MessageError::new(format!("{path}.arguments"), problem))
        }
    }
}
