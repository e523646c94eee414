//! Answers as Rust types: the type says what form an answer is held to, and what is made of it.

use pippin_text::{Message, ParsedOutput};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::stream::{FinishReason, GenerateInfo, GenerationEvent};
use crate::{ChatInput, ChatSession, Constraint, EngineError, GenerateParameters, ModelContainer, Result};

/// The largest number in size that answers have where their type sets a limit.
const LARGEST: i64 = 9_000_000_000_000_000_000;

/// Formats of texts that answers are held to. What other formats ask for is left to the type.
const FORMATS: [&str; 10] =
    ["date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

/// Keywords that hold a schema, a list of them, or one for each of their fields.
const APPLICATORS: [&str; 10] = [
    "$defs",
    "items",
    "additionalProperties",
    "propertyNames",
    "prefixItems",
    "anyOf",
    "oneOf",
    "allOf",
    "properties",
    "patternProperties",
];

/// The JSON schema that answers of a type are held to: what `schemars` says of it, adjusted to what can be followed.
///
/// The alternatives of an enumeration need not exclude each other, sets may repeat themselves, and structs have the fields that
/// they name and no others. Integers are within the range of their type, and, as `f32` is, within ±9·10^18. The descriptions
/// of types and fields, which are their doc comments, are part of it.
///
/// The model does not see the schema. Where the names of the fields do not say enough, this text can be part of a message.
///
/// ```
/// #[derive(schemars::JsonSchema)]
/// struct City {
///     /// In the language of the country.
///     name: String,
///     inhabitants: Option<u32>,
/// }
///
/// let schema = pippin_engine::answer_schema::<City>();
/// assert_eq!(schema["properties"]["name"]["description"], "In the language of the country.");
/// assert_eq!(schema["properties"]["inhabitants"]["maximum"], u32::MAX);
/// ```
pub fn answer_schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    let is_closed = !any_schema(&schema, &is_composed);
    adjust(&mut schema, is_closed);
    schema
}

impl ChatSession {
    /// Answers a message with a value, and keeps both; the answer is remembered as the JSON that it is.
    ///
    /// For this turn the answer is held to the type's schema ([`answer_schema`]) instead of the session's constraint, and
    /// the session's tools are not offered. A model that thinks does so before it answers.
    ///
    /// ```no_run
    /// use pippin_engine::{ChatSession, LoadOptions, ModelContainer};
    ///
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct City {
    ///     name: String,
    ///     country: String,
    ///     inhabitants: Option<u32>,
    /// }
    ///
    /// let model = ModelContainer::load("pippin-nano", &LoadOptions::default())?;
    /// let mut chat = ChatSession::new(model);
    /// let city: City = chat.respond_as("Name a city by the sea.")?;
    /// println!("{} in {}", city.name, city.country);
    /// # Ok::<(), pippin_engine::EngineError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`respond`](Self::respond). Answers cannot be held to the schema ([`EngineError::Grammar`], which names the
    /// place), the answer is cut before it is complete ([`EngineError::AnswerCut`]), or it is no value of the type after all
    /// ([`EngineError::AnswerType`]): a type may ask for more than its schema says. The conversation is then as it was before.
    pub fn respond_as<T: JsonSchema + DeserializeOwned>(&mut self, message: &str) -> Result<T> {
        self.respond_to_as(Message::user(message))
    }

    /// [`respond_as`](Self::respond_as) to a message of any role.
    ///
    /// # Errors
    ///
    /// As for [`respond_as`](Self::respond_as).
    pub fn respond_to_as<T: JsonSchema + DeserializeOwned>(&mut self, message: Message) -> Result<T> {
        let parameters = parameters_for::<T>(self.parameters());
        self.respond_bound(message, &parameters, |output, info| value(output, info))
    }
}

impl ModelContainer {
    /// Answers a conversation with a value, as [`ChatSession::respond_as`] does. Tools of the input are shown to the model,
    /// but cannot be called.
    ///
    /// # Errors
    ///
    /// As for [`generate_chat`](Self::generate_chat) and [`ChatSession::respond_as`].
    pub fn generate_as<T: JsonSchema + DeserializeOwned>(
        &self,
        input: &ChatInput,
        parameters: &GenerateParameters,
    ) -> Result<T> {
        let prompt = self.apply_chat_template(input)?;
        let mut parser = self.processor().output_format.text_parser(&prompt);
        let (mut output, mut info) = (ParsedOutput::default(), None);
        for event in self.generate(self.prompt_tokens(&prompt)?, &parameters_for::<T>(parameters))? {
            let event = event?;
            parser.push(event.text()).into_iter().for_each(|event| output.push(event));
            if let GenerationEvent::Info(last) = event {
                info = Some(last);
            }
        }
        parser.finish().into_iter().for_each(|event| output.push(event));
        value(&output, info.as_ref())
    }
}

/// The parameters of a request whose answer is a value.
fn parameters_for<T: JsonSchema>(parameters: &GenerateParameters) -> GenerateParameters {
    parameters.clone().with_constraint(Constraint::json_schema(answer_schema::<T>()))
}

fn value<T: DeserializeOwned>(output: &ParsedOutput, info: Option<&GenerateInfo>) -> Result<T> {
    let name = std::any::type_name::<T>();
    let text = || output.content.clone();
    match info {
        Some(info) if info.finish_reason != FinishReason::Stop => Err(EngineError::AnswerCut {
            name,
            reason: info.finish_reason.clone(),
            tokens: info.generated_tokens,
            text: text(),
        }),
        _ => serde_json::from_str(&output.content).map_err(|error| EngineError::AnswerType {
            name,
            problem: error.to_string(),
            text: text(),
        }),
    }
}

/// The schemas right below one.
fn children(fields: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let held = fields.iter().filter(|(key, _)| APPLICATORS.contains(&key.as_str()));
    held.flat_map(|(key, value)| match value {
        Value::Array(all) => all.iter().collect::<Vec<_>>(),
        Value::Object(all) if is_map(key) => all.values().collect(),
        value => vec![value],
    })
}

fn is_map(key: &str) -> bool {
    matches!(key, "properties" | "patternProperties" | "$defs")
}

fn any_schema(schema: &Value, is_such: &dyn Fn(&Map<String, Value>) -> bool) -> bool {
    schema
        .as_object()
        .is_some_and(|fields| is_such(fields) || children(fields).any(|child| any_schema(child, is_such)))
}

/// Whether fields of one object are named in several schemas, as flattened fields and tagged enumerations are: none of them
/// alone says which fields there are.
fn is_composed(fields: &Map<String, Value>) -> bool {
    let has = |key: &str| fields.contains_key(key);
    has("properties") && ["anyOf", "oneOf", "$ref"].iter().any(|key| has(key)) || has("allOf")
}

fn adjust(schema: &mut Value, is_closed: bool) {
    let Value::Object(fields) = schema else { return };
    if !fields.contains_key("anyOf") {
        // The type decides which alternative it is.
        *fields = std::mem::take(fields)
            .into_iter()
            .map(|(key, value)| if key == "oneOf" { ("anyOf".to_owned(), value) } else { (key, value) })
            .collect();
    }
    fields.shift_remove("uniqueItems");
    if let Some(format) = fields.get("format").and_then(Value::as_str) {
        let range = range(format);
        if !FORMATS.contains(&format) {
            fields.shift_remove("format");
        }
        if let Some((least, most)) = range {
            fields.entry("minimum").or_insert(json!(least));
            fields.entry("maximum").or_insert(json!(most));
        }
    }
    if is_closed && fields.contains_key("properties") {
        fields.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    for (key, value) in fields {
        match value {
            _ if !APPLICATORS.contains(&key.as_str()) => {}
            Value::Array(all) => all.iter_mut().for_each(|schema| adjust(schema, is_closed)),
            Value::Object(all) if is_map(key) => {
                all.values_mut().for_each(|schema| adjust(schema, is_closed));
            }
            value => adjust(value, is_closed),
        }
    }
}

/// The bounds of numbers of a type, by the name that `schemars` has for it.
fn range(format: &str) -> Option<(i64, i64)> {
    Some(match format {
        "int8" => (i8::MIN.into(), i8::MAX.into()),
        "int16" => (i16::MIN.into(), i16::MAX.into()),
        "int32" => (i32::MIN.into(), i32::MAX.into()),
        // A floating-point number of 32 bits ends at 3.4·10^38.
        "int64" | "int" | "int128" | "float" => (-LARGEST, LARGEST),
        "uint8" => (0, u8::MAX.into()),
        "uint16" => (0, u16::MAX.into()),
        "uint32" => (0, u32::MAX.into()),
        "uint64" | "uint" | "uint128" => (0, LARGEST),
        _ => return None,
    })
}
