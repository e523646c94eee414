//! Between text and tokens.
//!
//! A loaded model has its [`Tokenizer`], [`ChatTemplate`] and [`StopTokens`] in its
//! [`TextProcessor`](crate::loading::TextProcessor); they can be read from a folder without the model, too.
//!
//! ```
//! use pippin::hub::resolve;
//! use pippin::text::{ChatTemplate, Message, RenderInputs, Tokenizer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = resolve("pippin-nano")?.directory;
//! let tokenizer = Tokenizer::from_dir(&folder)?;
//! let tokens = tokenizer.encode("What is 17 plus 25?", false)?;
//! assert_eq!(tokenizer.decode(&tokens, false)?, "What is 17 plus 25?");
//!
//! let template = ChatTemplate::from_dir(&folder)?.expect("it has one");
//! let messages = [Message::user("Hello")];
//! let prompt = template.render(&RenderInputs::new(&messages).with_special_tokens(tokenizer.special_tokens()))?;
//! assert!(prompt.contains("Hello"));
//! # Ok(())
//! # }
//! ```

#[doc(inline)]
pub use pippin_text::*;
