//! Requests and their streams.
//!
//! A [`ModelContainer`](crate::ModelContainer) continues a text, answers a conversation, or takes token ids, with
//! [`GenerateParameters`] in the sense of mlx-lm. What comes back is a [`GenerationStream`] of [`GenerationEvent`]s: tokens
//! with their text, and at the end the numbers. [`TokenStream`] leaves the text out. Dropping a stream cancels the request,
//! and a [`CancelHandle`] does so from elsewhere.
//!
//! ```
//! use pippin::generate::{FinishReason, GenerateParameters, GenerationEvent};
//!
//! let model = pippin::load("pippin-nano")?;
//! let parameters = GenerateParameters::greedy().with_max_tokens(8).with_logprobs(true);
//! for event in model.generate_text("Once upon a time", &parameters)? {
//!     match event? {
//!         GenerationEvent::Token { text, logprob, .. } => println!("{text:?} {logprob:?}"),
//!         GenerationEvent::Info(info) => assert_eq!(info.finish_reason, FinishReason::Length),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), pippin::EngineError>(())
//! ```
//!
//! # Three ways to read
//!
//! As an iterator a stream blocks. [`try_next`](GenerationStream::try_next) does not: one thread can look after many answers,
//! or after answers and a window.
//!
//! ```
//! use std::task::Poll;
//!
//! use pippin::GenerateParameters;
//!
//! let model = pippin::load("pippin-nano")?;
//! let parameters = GenerateParameters::greedy().with_max_tokens(8);
//! let mut streams = Vec::new();
//! for prompt in ["Once upon a time", "The quick brown fox"] {
//!     streams.push((model.generate_text(prompt, &parameters)?, String::new()));
//! }
//! let mut running = streams.len();
//! while running > 0 {
//!     for (stream, text) in &mut streams {
//!         match stream.try_next() {
//!             Poll::Ready(Some(event)) => {
//!                 let event = event?;
//!                 text.push_str(event.text());
//!                 running -= usize::from(matches!(event, pippin::GenerationEvent::Info(_)));
//!             }
//!             Poll::Ready(None) | Poll::Pending => std::thread::yield_now(),
//!         }
//!     }
//! }
//! # Ok::<(), pippin::EngineError>(())
//! ```
//!
//! For tasks there is [`into_async`](GenerationStream::into_async), which returns a `futures_core::Stream` (feature `async`)
//! that the model's thread wakes. With any runtime and its `StreamExt`:
//!
//! ```text
//! let mut stream = model.generate_text("Once upon a time", &parameters)?.into_async();
//! while let Some(event) = stream.next().await {
//!     send(event?.text()).await?;
//! }
//! ```
//!
//! What nobody reads is kept, at most one event for each token that was asked for.
//!
//! # The form of an answer
//!
//! A [`Constraint`] is a parameter of the request. The answer keeps to it whatever the model would rather say, and ends where it is
//! complete; a constraint that cannot be followed is an error, a [`GrammarError`] that names the place.
//!
//! ```
//! use pippin::GenerateParameters;
//! use pippin::generate::Constraint;
//!
//! let model = pippin::load("pippin-nano")?;
//! let parameters = GenerateParameters::greedy().with_constraint(Constraint::choice(["red", "green", "blue"]));
//! let (colour, _) = model.generate_text("The colour of the sky is", &parameters)?.collect_text()?;
//! assert!(["red", "green", "blue"].contains(&colour.as_str()));
//! # Ok::<(), pippin::EngineError>(())
//! ```
//!
//! To compile a constraint takes milliseconds for most and seconds for some, and happens once for all requests that have it.
//! [`prepare_constraint`](crate::ModelContainer::prepare_constraint) does it apart from the request, on a thread that may wait.
//!
//! # How likely a text is
//!
//! ```
//! let model = pippin::load("pippin-nano")?;
//! let tokens = model.encode("Once upon a time")?;
//! let scores = model.score_tokens(tokens.clone(), 3)?.wait()?;
//! assert_eq!(scores.len(), tokens.len() - 1);
//! for (token, score) in tokens[1..].iter().zip(&scores) {
//!     println!("{token}: {}, instead of {:?}", score.logprob, score.top_logprobs);
//! }
//! # Ok::<(), pippin::EngineError>(())
//! ```

#[cfg(feature = "async")]
#[doc(inline)]
pub use pippin_engine::AsyncStream;
#[doc(inline)]
pub use pippin_engine::{
    CancelHandle, Constraint, FinishReason, GenerateInfo, GenerateParameters, GenerationEvent,
    GenerationStream, GrammarError, PreparedConstraint, ScoreTask, TokenEvent, TokenLogprob, TokenScore,
    TokenStream,
};
