//! Everything between text and token ids.
//!
//! A language model maps numbers to numbers. This crate holds what stands between those numbers and a
//! conversation, and nothing that computes with tensors:
//!
//! - [`Tokenizer`] reads `tokenizer.json`, or the vocabularies that models had before it (SentencePiece, tiktoken, tekken, GPT-2's),
//!   and turns text into ids and back. It is immutable and cheap to clone, so every session shares one.
//! - [`StreamDecoder`] turns ids into text *while they are generated*. It never emits half a character, and what it
//!   emits adds up to exactly what [`Tokenizer::decode`] gives for all ids at once.
//! - [`ChatTemplate`] renders [`Message`]s into the prompt the model was trained on, as Hugging Face `transformers`
//!   renders it, in an interpreter that a hostile template can neither leave, nor stall, nor exhaust.
//! - [`OutputFormat`] and [`OutputParser`] tell an answer's thoughts, text and calls of tools apart.
//! - [`StopTokens`] gathers the ids that end an answer; [`StopStrings`] finds the texts that end it, and holds back
//!   text for as long as it may still become one of them.
//!
//! Model folders are untrusted. File sizes are checked before anything is read, a wrong value is a [`TextError`] that
//! names the file and the field, and nothing in a file can make these functions panic or allocate without bound.
//!
//! ```
//! use pippin_text::{ChatTemplate, Message, RenderInputs, StopStrings};
//!
//! // Usually `ChatTemplate::from_dir(model_folder)`.
//! let template = ChatTemplate::from_source(
//!     "example",
//!     "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}\
//!      {% if add_generation_prompt %}<|assistant|>{% endif %}",
//! )?;
//! let messages = [Message::system("Be brief."), Message::user("Name a fruit.")];
//! let prompt = template.render(&RenderInputs::new(&messages))?;
//! assert_eq!(prompt, "<|system|>Be brief.\n<|user|>Name a fruit.\n<|assistant|>");
//!
//! // The answer arrives in pieces; the end marker may be cut anywhere.
//! let mut stop = StopStrings::new(["<|end|>"])?;
//! assert_eq!(stop.push("A pippin.<|e").text, "A pippin.");
//! let last = stop.push("nd|> and more");
//! assert_eq!((last.text.as_str(), last.stopped), ("", Some(0)));
//! # Ok::<(), pippin_text::TextError>(())
//! ```
//!
//! With a model folder at hand the pieces join like this:
//!
//! ```no_run
//! use pippin_text::{ChatTemplate, Message, RenderInputs, StopTokens, StreamDecoder, Tokenizer};
//! # fn generate(_prompt: &[u32]) -> Vec<u32> { Vec::new() }
//! let folder = "models/pippin-nano-4bit";
//! let tokenizer = Tokenizer::from_dir(folder)?;
//! let stop = StopTokens::from_dir(folder, &tokenizer)?;
//! let messages = [Message::user("What is 17 plus 25?")];
//! let text = match ChatTemplate::from_dir(folder)? {
//!     Some(template) => template.render(
//!         &RenderInputs::new(&messages).with_special_tokens(tokenizer.special_tokens()),
//!     )?,
//!     None => "What is 17 plus 25?".to_owned(),
//! };
//! // The template has written the special tokens: do not add them again.
//! let prompt = tokenizer.encode_prompt(&text)?;
//! let mut decoder = StreamDecoder::new(&tokenizer, true);
//! for id in generate(&prompt) {
//!     if stop.contains(id) {
//!         break;
//!     }
//!     if let Some(piece) = decoder.push(id)? {
//!         print!("{piece}");
//!     }
//! }
//! print!("{}", decoder.finish()?);
//! # Ok::<(), pippin_text::TextError>(())
//! ```
#![deny(missing_docs)]

mod error;
mod files;
mod message;
mod normalization;
mod output;
mod special_tokens;
mod stop_strings;
mod stop_tokens;
mod stream;
mod template;
mod token_bytes;
mod tokenizer;
mod vocabulary;

pub use error::{Result, TextError};
pub use message::{Content, ContentPart, FunctionCall, Message, MessageError, Role, ToolCall};
pub use output::{AnswerForm, Calls, Dialect, OutputEvent, OutputFormat, OutputParser, ParsedOutput};
pub use special_tokens::SpecialTokens;
pub use stop_strings::{StopOutput, StopStrings};
pub use stop_tokens::StopTokens;
pub use stream::StreamDecoder;
pub use template::{ChatTemplate, RenderInputs, TemplateLimits};
pub use token_bytes::{TokenBytes, VocabularyBytes};
pub use tokenizer::Tokenizer;
pub use vocabulary::GgufVocabulary;
