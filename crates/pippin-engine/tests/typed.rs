//! Answers as Rust types, with the shipped model.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;

use pippin_engine::{
    ChatInput, ChatSession, EngineError, FinishReason, GenerateParameters, GrammarError, LoadOptions,
    Message, ModelContainer, answer_schema,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn nano() -> ModelContainer {
    ModelContainer::load("pippin-nano", &LoadOptions::default()).expect("the shipped model")
}

/// A conversation in which the model draws what it likes.
fn chat(model: &ModelContainer, temperature: f32, seed: u64) -> ChatSession {
    let parameters =
        GenerateParameters::greedy().with_max_tokens(70).with_temperature(temperature).with_seed(seed);
    ChatSession::new(model.clone()).with_parameters(parameters)
}

#[derive(Debug, Deserialize, JsonSchema)]
enum Colour {
    Red,
    #[serde(rename = "dark green")]
    Green,
}

/// A shape.
#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code, reason = "only read into")]
struct Point {
    /// To the right.
    x: i8,
    y: Option<i8>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(dead_code, reason = "only read into")]
enum Tagged {
    Nothing,
    Circle { radius: u8 },
    At(Point),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "value")]
#[allow(dead_code, reason = "only read into")]
enum Adjacent {
    Number(u8),
    Point(Point),
    None,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only read into")]
enum Untagged {
    Number(u16),
    Word(Colour),
    Both { number: u8, colour: Colour },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code, reason = "only read into")]
enum External {
    Unit,
    Newtype(u8),
    Tuple(bool, u8),
    Struct { colour: Colour },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code, reason = "only read into")]
struct Tree {
    leaf: bool,
    left: Option<Box<Tree>>,
    right: Option<Box<Tree>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code, reason = "only read into")]
struct Numbers(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize, std::num::NonZeroU8);

#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code, reason = "only read into")]
struct Wide(i128, u128);

#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code, reason = "only read into")]
struct Size {
    width: u8,
    height: Option<u8>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code, reason = "only read into")]
struct Flat {
    #[serde(flatten)]
    size: Size,
    #[serde(flatten)]
    tagged: Tagged,
    #[serde(default)]
    sure: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only read into")]
struct Strict {
    #[serde(rename = "type")]
    kind: (),
    both: (bool, Colour),
    three: [bool; 3],
}

/// Draws at random, which is what a model does that has learned nothing; what comes to an end must be a value. Returns how many
/// have come to one.
fn draws<T: JsonSchema + DeserializeOwned + Debug>(model: &ModelContainer) -> usize {
    let mut values = 0;
    for seed in 0..3 {
        let mut chat = chat(model, if seed == 0 { 0.5 } else { 100.0 }, seed);
        // It would think at such temperatures, and not come to an end.
        chat.parameters_mut().constraint_after = Some(String::new());
        match chat.respond_as::<T>("Say something.") {
            Ok(_) => {
                values += 1;
                let history = chat.history();
                let text = history[1].text().expect("a text");
                assert!(serde_json::from_str::<T>(&text).is_ok(), "{text}");
            }
            Err(EngineError::AnswerCut { .. }) => assert!(chat.history().is_empty()),
            Err(error) => panic!("{}: {error}: {:#}", std::any::type_name::<T>(), answer_schema::<T>()),
        }
    }
    values
}

#[test]
fn answers_are_values_of_types_of_all_kinds() {
    let model = nano();
    let values = [
        draws::<bool>(&model),
        draws::<u8>(&model),
        draws::<f32>(&model),
        draws::<Option<i16>>(&model),
        draws::<Colour>(&model),
        draws::<Point>(&model),
        draws::<Tagged>(&model),
        draws::<Adjacent>(&model),
        draws::<Untagged>(&model),
        draws::<External>(&model),
        draws::<Tree>(&model),
        draws::<Numbers>(&model),
        draws::<Wide>(&model),
        draws::<Flat>(&model),
        draws::<Strict>(&model),
        draws::<Vec<Point>>(&model),
        draws::<HashMap<String, bool>>(&model),
        draws::<BTreeMap<String, Colour>>(&model),
        draws::<HashSet<bool>>(&model),
        draws::<Value>(&model),
        draws::<char>(&model),
    ];
    // Maps and texts seldom end by chance.
    let ended = values.iter().filter(|count| **count > 0).count();
    assert!(ended >= 15, "{values:?}");
}

#[test]
fn a_conversation_goes_on_after_a_value() {
    let model = nano();
    let mut chat = chat(&model, 0.0, 0).with_tools([json!({"type": "function", "function": {"name": "f"}})]);
    let point: Point = chat.respond_as("What is 17 plus 25?").expect("a point");
    let history = chat.history();
    assert_eq!(history.len(), 2);
    let document: Value = serde_json::from_str(&history[1].text().expect("a text")).expect("JSON");
    assert_eq!(document["x"], point.x);
    // The form was that turn's alone.
    assert_eq!(chat.parameters().constraint, None);
    let mut free = ChatSession::new(model.clone())
        .with_parameters(chat.parameters().clone())
        .with_tools(chat.tools())
        .with_history(history);
    assert_eq!(
        chat.respond("What is the capital of France?").expect("an answer"),
        free.respond("What is the capital of France?").expect("an answer"),
    );

    let input = ChatInput::from(vec![Message::user("What is 17 plus 25?")]);
    let again: Point = model.generate_as(&input, chat.parameters()).expect("a point");
    let mut alone = ChatSession::new(model).with_parameters(chat.parameters().clone());
    let same: Point = alone.respond_as("What is 17 plus 25?").expect("a point");
    assert_eq!((again.x, again.y), (same.x, same.y));
}

#[test]
fn what_is_no_value_is_an_error_and_not_remembered() {
    /// Asks for more than its schema says.
    #[derive(Debug)]
    struct Even;
    impl<'de> Deserialize<'de> for Even {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            u8::deserialize(deserializer)?;
            Err(serde::de::Error::custom("it is odd"))
        }
    }
    impl JsonSchema for Even {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "Even".into()
        }
        fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
            schemars::json_schema!({"type": "integer", "minimum": 77, "maximum": 77})
        }
    }
    #[derive(Debug, Deserialize, JsonSchema)]
    #[allow(dead_code, reason = "only read into")]
    struct Unfollowable {
        #[schemars(extend("not" = {"type": "null"}))]
        field: bool,
    }

    let mut chat = chat(&nano(), 0.0, 0);
    chat.respond("Hello").expect("an answer");
    let error = chat.respond_as::<Even>("A number?").expect_err("no value");
    assert!(error.to_string().contains("it is odd") && error.to_string().contains("77"), "{error}");
    assert!(matches!(error, EngineError::AnswerType { text, .. } if text == "77"));
    let error = chat.respond_as::<Unfollowable>("A value?").expect_err("not supported");
    match error {
        EngineError::Grammar(GrammarError::Schema { path, .. }) => {
            assert_eq!(path, "#/properties/field/not");
        }
        error => panic!("{error}"),
    }
    chat.parameters_mut().max_tokens = Some(2);
    match chat.respond_as::<Numbers>("Numbers?").expect_err("cut") {
        EngineError::AnswerCut { reason, tokens, text, .. } => {
            assert_eq!((reason, tokens), (FinishReason::Length, 2));
            assert!(text.starts_with('['), "{text}");
        }
        error => panic!("{error}"),
    }
    assert_eq!(chat.history().len(), 2);
}

#[test]
fn schemas_say_what_the_types_say() {
    let schema = answer_schema::<Point>();
    assert_eq!(schema["description"], "A shape.");
    assert_eq!(schema["properties"]["x"]["description"], "To the right.");
    assert_eq!(schema["properties"]["x"]["minimum"], -128);
    assert_eq!(schema["required"], json!(["x"]));
    assert_eq!(schema["additionalProperties"], false);
    // Which fields there are is said in two places: neither closes the object for the other.
    let flat = answer_schema::<Flat>().to_string();
    assert!(!flat.contains("additionalProperties"), "{flat}");
    assert_eq!(answer_schema::<u32>()["maximum"], u32::MAX);
}
