//! Chat messages in the form of the OpenAI API, which is also the form chat templates expect.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::error::{Result, TextError};

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

/// What a message says: a string, or a list of parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}

impl<T: Into<String>> From<T> for Content {
    fn from(text: T) -> Self {
        Self::Text(text.into())
    }
}

/// One part of a message's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContentPart {
    /// `text`, `image`, `image_url`, ….
    #[serde(rename = "type")]
    pub kind: String,
    /// The text of a text part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Every other field.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ContentPart {
    /// A text part.
    pub fn text(text: impl Into<String>) -> Self {
        Self { kind: "text".to_owned(), text: Some(text.into()), extra: Map::new() }
    }

    fn as_text(&self) -> Option<&str> {
        (self.kind == "text").then_some(self.text.as_deref()).flatten()
    }
}

/// A tool call made by the model in an earlier turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The id that the tool's answer refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Always `function` today.
    #[serde(rename = "type", default = "function")]
    pub kind: String,
    /// Which function, with which arguments.
    pub function: FunctionCall,
    /// Every other field.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn function() -> String {
    "function".to_owned()
}

impl ToolCall {
    /// A call of the function `name`.
    pub fn new(id: impl Into<String>, name: impl Into<String>, arguments: Value) -> Self {
        Self {
            id: Some(id.into()),
            kind: function(),
            function: FunctionCall { name: name.into(), arguments, extra: Map::new() },
            extra: Map::new(),
        }
    }
}

/// The function of a tool call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// The function's name.
    pub name: String,
    /// The arguments: an object, or (as the OpenAI API has it) a string that holds the object as JSON. Templates always
    /// see the object.
    #[serde(default)]
    pub arguments: Value,
    /// Every other field.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One message of a conversation.
///
/// Deserialises from and serialises to the messages of the OpenAI chat API. Fields that this type does not know are kept
/// in [`extra`](Self::extra), and templates see them.
///
/// ```
/// use pippin_text::{Message, Role};
///
/// let message: Message = serde_json::from_str(
///     r#"{"role": "user", "content": [{"type": "text", "text": "Hello"}], "mood": "good"}"#,
/// )?;
/// assert_eq!(message.role, Role::User);
/// assert_eq!(message.text().as_deref(), Some("Hello"));
/// assert_eq!(message.extra["mood"], "good");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; absent in an assistant message that only calls tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// The speaker's name, or the tool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The thinking that preceded the answer. `reasoning` and `thinking`, the other names in use for it, are kept in
    /// [`extra`](Self::extra); see [`reasoning`](Self::reasoning).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The tools the assistant called.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// In a tool's answer, the id of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Every other field.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ToolCall>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Message {
    /// A message with nothing but role and text.
    pub fn new(role: Role, content: impl Into<Content>) -> Self {
        Self {
            role,
            content: Some(content.into()),
            name: None,
            reasoning_content: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            extra: Map::new(),
        }
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
        Self { content: None, tool_calls: calls.into_iter().collect(), ..Self::new(Role::Assistant, "") }
    }

    /// The answer of a tool to the call with this id.
    pub fn tool(tool_call_id: impl Into<String>, content: impl Into<Content>) -> Self {
        Self { tool_call_id: Some(tool_call_id.into()), ..Self::new(Role::Tool, content) }
    }

    /// The text of the message. `None` without content, or when there is a part that is not text.
    pub fn text(&self) -> Option<String> {
        self.content.as_ref()?.as_text()
    }

    /// The thinking of the message under any of its names: `reasoning_content`, `thinking`, `reasoning`.
    pub fn reasoning(&self) -> Option<&str> {
        let named = |name| self.extra.get(name).and_then(Value::as_str);
        self.reasoning_content.as_deref().or_else(|| named("thinking")).or_else(|| named("reasoning"))
    }

    /// The message as templates see it. As `transformers` and mlx-lm have it: fields that are null are absent, a list of
    /// text parts is one string, reasoning is found under each of its names, and arguments of tool calls are objects.
    pub(crate) fn for_template(&self, index: usize) -> Result<Map<String, Value>> {
        let invalid = |field: &str, problem: String| TextError::InvalidMessage {
            index,
            field: field.to_owned(),
            problem,
        };
        let value = serde_json::to_value(self).map_err(|error| invalid("extra", error.to_string()))?;
        let Value::Object(mut map) = value else {
            return Err(invalid("role", "is not an object".to_owned()));
        };
        map.retain(|_, value| !value.is_null());
        if let Some(text) = self.text() {
            map.insert("content".to_owned(), text.into());
        }
        if let Some(reasoning) = self.reasoning() {
            map.insert("reasoning_content".to_owned(), reasoning.into());
            map.entry("thinking").or_insert_with(|| reasoning.into());
        }
        if let Some(Value::Array(calls)) = map.get_mut("tool_calls") {
            for (number, call) in calls.iter_mut().enumerate() {
                let field = format!("tool_calls[{number}].function.arguments");
                let Some(arguments) =
                    call.get_mut("function").and_then(|function| function.get_mut("arguments"))
                else {
                    continue;
                };
                *arguments = match arguments.take() {
                    Value::Null => Value::Object(Map::new()),
                    Value::Object(object) => Value::Object(object),
                    Value::String(json) if json.trim().is_empty() => Value::Object(Map::new()),
                    Value::String(json) => match serde_json::from_str(&json) {
                        Ok(Value::Object(object)) => Value::Object(object),
                        Ok(other) => {
                            let kind = crate::files::kind(&other);
                            return Err(invalid(&field, format!("must hold a JSON object, found {kind}")));
                        }
                        Err(error) => return Err(invalid(&field, format!("is not valid JSON: {error}"))),
                    },
                    other => {
                        let kind = crate::files::kind(&other);
                        return Err(invalid(
                            &field,
                            format!("must be an object or a string of JSON, found {kind}"),
                        ));
                    }
                };
            }
        }
        Ok(map)
    }
}
