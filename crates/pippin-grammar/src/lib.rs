//! Structured output: what an answer must look like, as the tokens that may come next.
//!
//! A [`Vocabulary`] is a model's tokens as bytes, made once. [`compile`] turns a [`Constraint`] into a [`Guide`], which says before
//! each token which ones are allowed ([`Guide::mask`]), is told which was drawn ([`Guide::accept`]), and knows when the answer is
//! complete. The parser behind it is llguidance's; this crate is the only one that knows it.
//!
//! Three things are promised of whatever a user sends:
//!
//! - **It fails closed.** A keyword that is not supported, a pattern that cannot be read, a grammar without a start: each is an error
//!   that names the place. There is no answer with a part of the constraint left out.
//! - **It ends.** Sizes and depths are checked before anything is compiled, compiling happens on a thread of its own with a limit of
//!   time ([`Limits`]), and the work for one mask is bounded.
//! - **Whatever the logits are**, what is drawn under the masks until the guide is complete satisfies the constraint.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use pippin_grammar::{Limits, Start, Vocabulary, compile};
//! use pippin_sampling::Constraint;
//! use pippin_text::{StopTokens, Tokenizer};
//!
//! let tokenizer = Tokenizer::from_dir("models/pippin-nano-4bit")?;
//! let stop = StopTokens::from_dir("models/pippin-nano-4bit", &tokenizer)?;
//! let vocabulary = Arc::new(Vocabulary::new(&tokenizer, &stop, tokenizer.vocab_size())?);
//! let constraint = Constraint::choice(["yes", "no"]);
//! let mut guide = compile(&vocabulary, &constraint, Start::Now, &Limits::default())?;
//! let mask = guide.mask()?;
//! # let token = 0;
//! assert!(mask.allows(token));
//! let is_complete = guide.accept(token)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # JSON Schema
//!
//! Draft 2020-12 without what cannot be decided while an answer is written: `not`, `if`, `contains`, `uniqueItems`, `propertyNames`,
//! `dependentRequired` and their kin are errors. `oneOf` needs alternatives that visibly exclude each other. References lead into the
//! schema itself (`#/…`). Properties come in the schema's order. Texts are written in one way: escapes are the short ones, and control
//! characters without one are left out. Numbers are finite as doubles, and bounds beyond ±9·10^18 hold there. Between the parts of a document there is one space, or a new line with
//! an indentation, or nothing, so that no answer is lost in white space.
#![deny(missing_docs)]

mod compile;
mod error;
mod guide;
mod messages;
mod numbers;
mod regular;
mod rewrite;
mod schema;
mod spelling;
mod vocabulary;

pub use compile::{Limits, check_schema, compile};
pub use error::GrammarError;
pub use guide::{Guide, Start};
pub use pippin_sampling::Constraint;
pub use regular::pattern_of_grammar;
pub use vocabulary::Vocabulary;
