//! From messages to the values that a template sees.
//!
//! The first form is what `transformers` 5 shows for the same messages. Templates disagree about a few things in it: what
//! stands for content that is not there, whether the arguments of a call are an object or its text, and whether reasoning
//! may be there under several names. So a template that fails on the first form sees others.

use indexmap::IndexMap;
use serde_json::{Map, Value as Json};

use super::eval::{Fault, Outcome};
use super::json;
use super::value::{JsonStyle, Key, Value};
use crate::error::{Result, TextError};
use crate::message::{ContentForm, Message, REASONING, function_of, part_for_template, part_text};

/// One way to show a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// What a message without content has.
    missing: Missing,
    /// What arguments of calls are, and data that tools return.
    objects: Objects,
    /// Nothing is added to a message, and an empty list of calls is no list.
    is_bare: bool,
}

/// What stands for content that is absent or null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Missing {
    /// Nothing: what `transformers` makes of null, too.
    #[default]
    Absent,
    /// `None`: DeepSeek's templates ask whether content `is none`.
    None,
    /// An empty string, as mlx-lm's server has it.
    Empty,
}

/// What arguments of calls are, and data that tools return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Objects {
    /// Arguments are objects, if they can be, and data is as it was given.
    #[default]
    AsGiven,
    /// Data is JSON text: most templates append it to a string.
    DataAsText,
    /// Arguments and data are JSON text: some templates append both.
    Text,
    /// As [`DataAsText`](Self::DataAsText), and arguments that are a text but no object stand in one, under the name
    /// `arguments`, for templates that look into them.
    Wrapped,
}

impl Form {
    /// All forms to try after the first one has failed, in this order. Only forms in which something of this conversation
    /// looks different are among them. A template that did not fail but refused the conversation has understood it; then only
    /// what was added is taken away, and arguments that are no object are wrapped.
    ///
    /// `None` comes before the empty string, because a template that asks for it renders calls nowhere else; and a template
    /// that does not ask for it would print it.
    pub(super) fn others(messages: &[Message], source: &str, refused: bool) -> Vec<Self> {
        let any = |test: &dyn Fn(&Message) -> bool| messages.iter().any(test);
        let calls = |message: &Message| message.fields().get("tool_calls")?.as_array().map(Vec::len);
        let mut missing = vec![Missing::Absent];
        let mut objects = vec![Objects::AsGiven];
        let mut bare = vec![false];
        if !refused {
            if any(&|message| message.fields().get("content").is_none_or(Json::is_null)) {
                if source.contains("none") || source.contains("None") {
                    missing.push(Missing::None);
                }
                missing.push(Missing::Empty);
            }
            if any(&|message| matches!(message.content_form(&[]), Ok(ContentForm::Data))) {
                objects.push(Objects::DataAsText);
            }
            if any(&|message| calls(message).is_some_and(|count| count > 0)) {
                objects.push(Objects::Text);
            }
        }
        if unreadable_arguments(messages).is_some() {
            objects.push(Objects::Wrapped);
        }
        if any(&|message| reasoning(message).is_some() || calls(message) == Some(0)) {
            bare.push(true);
        }
        let mut forms = Vec::new();
        for is_bare in bare {
            for missing in &missing {
                forms.extend(objects.iter().map(|objects| Self {
                    missing: *missing,
                    objects: *objects,
                    is_bare,
                }));
            }
        }
        forms.retain(|form| *form != Self::default());
        forms
    }
}

/// The first reasoning that a message has.
fn reasoning(message: &Message) -> Option<&Json> {
    REASONING.iter().find_map(|name| message.fields().get(*name).filter(|value| !value.is_null()))
}

/// A message as templates see it: a dict, still open.
pub(super) type Fields = IndexMap<Key, Value>;

fn key(name: &str) -> Key {
    Key::Str(name.into())
}

/// The messages in a form. `media` are the kinds of part besides text that the model takes.
pub(super) fn fields(messages: &[Message], form: Form, media: &[&str]) -> Result<Vec<Fields>> {
    messages.iter().enumerate().map(|(index, message)| message_fields(message, index, form, media)).collect()
}

fn message_fields(message: &Message, index: usize, form: Form, media: &[&str]) -> Result<Fields> {
    message.check().map_err(|error| error.at(index))?;
    let invalid = |field: String, problem: String| TextError::InvalidMessage { index, field, problem };
    let json = |field: &str, value: &Json| {
        Value::from_json(value).map_err(|fault| {
            invalid(field.to_owned(), format!("cannot be rendered: {}", super::problem(fault)))
        })
    };
    // The form before `tool_calls`: no template reads it, and a call must not vanish.
    let older = message.fields().get("function_call").filter(|call| !call.is_null());
    if older.is_some() && message.tool_calls().is_empty() {
        let problem =
            "is the form of calls before `tool_calls`, which templates do not know: give that instead";
        return Err(invalid("function_call".to_owned(), problem.to_owned()));
    }
    let missing = match form.missing {
        Missing::Absent => None,
        Missing::None => Some(Value::None),
        Missing::Empty => Some(Value::str("")),
    };
    let mut fields = Fields::new();
    let reasoning = reasoning(message).filter(|_| !form.is_bare);
    if let Some(reasoning) = reasoning {
        fields.insert(key("thinking"), json("thinking", reasoning)?);
    }
    for (name, value) in message.fields() {
        let value = match name.as_str() {
            "content" => match message.content_form(media).map_err(|error| error.at(index))? {
                ContentForm::Nothing => missing.clone(),
                ContentForm::Text(text) => Some(Value::str(text)),
                ContentForm::TextParts(parts) => {
                    let texts = parts.iter().filter_map(|part| part_text(part).ok().flatten());
                    Some(Value::str(texts.collect::<String>()))
                }
                ContentForm::Parts { foreign: Some((number, kind)), .. } => {
                    let takes = match media {
                        [] => "text only".to_owned(),
                        media => format!("text and {}", media.join(", ")),
                    };
                    let problem = format!("is a part of type {kind:?}; this model takes {takes}");
                    return Err(invalid(format!("content[{number}]"), problem));
                }
                ContentForm::Parts { parts, .. } => {
                    Some(json(name, &parts.iter().map(part_for_template).collect())?)
                }
                ContentForm::Data => {
                    let value = json(name, value)?;
                    Some(match form.objects {
                        Objects::AsGiven => value,
                        _ => as_text(&value).map_err(|fault| {
                            invalid(name.clone(), format!("cannot be rendered: {}", super::problem(fault)))
                        })?,
                    })
                }
            },
            "tool_calls" => match value {
                Json::Array(calls) if calls.is_empty() && form.is_bare => None,
                Json::Array(calls) => {
                    let calls = calls.iter().enumerate().map(|(number, call)| {
                        tool_call(call, form).map_err(|fault| {
                            invalid(
                                format!("tool_calls[{number}]"),
                                format!("cannot be rendered: {}", super::problem(fault)),
                            )
                        })
                    });
                    let calls = Value::list(calls.collect::<Result<_>>()?);
                    Some(calls.map_err(|fault| {
                        invalid(name.clone(), format!("cannot be rendered: {}", super::problem(fault)))
                    })?)
                }
                _ => None,
            },
            _ if value.is_null() => None,
            _ => Some(json(name, value)?),
        };
        if let Some(value) = value {
            fields.insert(key(name), value);
        }
    }
    if let (Some(missing), None) = (missing, message.fields().get("content")) {
        fields.insert(key("content"), missing);
    }
    if let Some(reasoning) = reasoning {
        fields.insert(key("reasoning_content"), json("reasoning_content", reasoning)?);
    }
    Ok(fields)
}

/// A tool call whose arguments are an object, or in the other form its text.
fn tool_call(call: &Json, form: Form) -> Outcome<Value> {
    let Json::Object(call) = call else { return Value::from_json(call) };
    let function = function_of(call);
    let convert = |object: &Map<String, Json>, is_function: bool| {
        let mut fields = Fields::new();
        for (name, value) in object {
            let value = match (name.as_str(), value) {
                ("arguments", value) if is_function => arguments(value, form)?,
                // Made below; this keeps its place.
                ("function", Json::Object(_)) if !is_function => Value::None,
                _ => Value::from_json(value)?,
            };
            fields.insert(key(name), value);
        }
        if is_function && !object.contains_key("arguments") {
            fields.insert(key("arguments"), arguments(&Json::Null, form)?);
        }
        Ok::<_, Fault>(fields)
    };
    if std::ptr::eq(function, call) {
        return Value::dict(convert(call, true)?);
    }
    let mut fields = convert(call, false)?;
    fields.insert(key("function"), Value::dict(convert(function, true)?)?);
    Value::dict(fields)
}

/// A call without arguments has none: nothing, null and an empty text are an empty object. A text that is not a JSON
/// object stays a text: models write such texts, and a conversation must survive it.
fn arguments(value: &Json, form: Form) -> Outcome<Value> {
    let object = match value {
        Json::Null => Value::dict(Fields::new())?,
        Json::String(text) if text.trim().is_empty() => Value::dict(Fields::new())?,
        Json::String(text) if form.objects == Objects::Text => return Ok(Value::str(text.as_str())),
        Json::String(text) => match (json::parse(text), form.objects) {
            (Ok(object @ Value::Dict(_)), _) => object,
            (_, Objects::Wrapped) => {
                Value::dict([(key("arguments"), Value::str(text.as_str()))].into_iter().collect())?
            }
            _ => return Ok(Value::str(text.as_str())),
        },
        other => Value::from_json(other)?,
    };
    if form.objects == Objects::Text { as_text(&object) } else { Ok(object) }
}

fn as_text(value: &Value) -> Outcome<Value> {
    let mut out = String::new();
    JsonStyle::PYTHON.write(value, &mut out, 0, usize::MAX)?;
    Ok(Value::str(out))
}

/// The first arguments of a call that are not what templates expect: the message, the field, and what is wrong.
pub(super) fn unreadable_arguments(messages: &[Message]) -> Option<(usize, String, String)> {
    messages.iter().enumerate().find_map(|(index, message)| {
        let calls = message.fields().get("tool_calls").and_then(Json::as_array)?;
        calls.iter().enumerate().find_map(|(number, call)| {
            let call = call.as_object()?;
            let function = function_of(call);
            let text = function.get("arguments")?.as_str().filter(|text| !text.trim().is_empty())?;
            let problem = match json::parse(text) {
                Ok(Value::Dict(_)) => return None,
                Ok(other) => format!("must hold a JSON object, found a {}", other.type_name()),
                Err(fault) => super::problem(fault),
            };
            let path = if std::ptr::eq(function, call) { "" } else { ".function" };
            Some((index, format!("tool_calls[{number}]{path}.arguments"), problem))
        })
    })
}
