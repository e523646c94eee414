//! Conversations.
//!
//! A [`ChatSession`] keeps what was said, applies the model's chat template, and recognises what has been computed before.
//! [`respond`](ChatSession::respond) returns the whole answer, [`stream`](ChatSession::stream) its pieces as they come. The
//! stream is a value of its own, which another thread or task may read, and the conversation goes on when it has ended or
//! is dropped.
//!
//! ```
//! use pippin::chat::ChatSession;
//! use pippin::GenerateParameters;
//!
//! let parameters = GenerateParameters::greedy().with_max_tokens(40);
//! let mut chat = ChatSession::new(pippin::load("pippin-nano")?)
//!     .with_system("You are a helpful assistant.")
//!     .with_parameters(parameters);
//! let stream = chat.stream("What is 17 plus 25?")?;
//! let reader = std::thread::spawn(move || stream.collect::<pippin::Result<String>>());
//! let answer = reader.join().expect("the reader does not panic")?;
//! assert!(answer.contains("42"), "{answer}");
//! assert_eq!(chat.history().len(), 2);
//! println!("{:.1} tokens/s", chat.last_info().map_or(0.0, |info| info.tokens_per_second()));
//! # Ok::<(), pippin::EngineError>(())
//! ```
//!
//! A model that calls tools is given their results by a function:
//!
//! ```no_run
//! use pippin::chat::{ChatSession, ToolCall};
//! use pippin::serde_json::json;
//!
//! let tools = [json!({"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}})];
//! let mut chat = ChatSession::new(pippin::load("qwen3-4b")?)
//!     .with_tools(tools)
//!     .with_tool_dispatch(|call: &ToolCall| match call.function.name.as_str() {
//!         "time" => Ok("a quarter past nine"),
//!         name => Err(format!("there is no tool named {name}")),
//!     });
//! println!("{}", chat.respond("What time is it?")?);
//! # Ok::<(), pippin::EngineError>(())
//! ```
//!
//! # Values
//!
//! [`respond_as`](ChatSession::respond_as) answers with a value of a Rust type (feature `schemars`, on by default). The type's
//! schema is what the answer is held to, so that what comes back is a value or an error, and never something to take apart.
//! The type derives `serde::Deserialize` and `schemars::JsonSchema` (version 1).
//!
//! ```no_run
//! # #[cfg(feature = "schemars")]
//! # fn main() -> pippin::Result<()> {
//! use pippin::chat::ChatSession;
//!
//! /// A stop of a journey.
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct Stop {
//!     place: String,
//!     nights: u8,
//!     by: Option<Vehicle>,
//! }
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! #[serde(rename_all = "lowercase")]
//! enum Vehicle {
//!     Train,
//!     Ship,
//! }
//!
//! let mut chat = ChatSession::new(pippin::load("qwen3-4b")?);
//! let journey: Vec<Stop> = chat.respond_as("Plan a week in Norway.")?;
//! for stop in &journey {
//!     println!("{}: {} nights", stop.place, stop.nights);
//! }
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "schemars"))]
//! # fn main() {}
//! ```
//!
//! [`answer_schema`] is the schema as text, for prompts: the model itself does not see what its answers are held to.
//!
//! Whoever keeps conversations elsewhere (a server with the client's messages) makes a [`ChatInput`] of them, and gives it
//! to [`ModelContainer::generate_chat`](crate::ModelContainer::generate_chat).

#[cfg(feature = "schemars")]
#[doc(inline)]
pub use pippin_engine::answer_schema;
#[doc(inline)]
pub use pippin_engine::{
    ChatInput, ChatSession, GrammarError, ResponseEvents, ResponseStream, check_schema, pattern_of_grammar,
};
#[doc(inline)]
pub use pippin_text::{
    Content, ContentPart, FunctionCall, Message, MessageError, OutputEvent, ParsedOutput, Role, ToolCall,
};
