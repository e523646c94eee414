//! From logits to a token.
//!
//! The order is mlx-lm's: logit bias, repetition penalty, presence penalty, frequency penalty; then, unless the
//! temperature is 0, top-p, min-p, XTC and top-k on the probabilities *before* temperature, and a draw from what is
//! left at the temperature. [`GenerateParameters`] says what each of them does; a [`TokenMask`] excludes tokens before
//! all of it.
//!
//! A [`Sampler`] is one request's: it has its own random numbers and remembers the tokens that penalties look at, so a
//! result depends on nothing but the parameters, the seed and the logits. It is defined here, below devices and engine,
//! because a device that draws tokens itself must draw the same.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//!
//! use pippin_sampling::{GenerateParameters, Sampler, Scratch};
//!
//! let parameters = Arc::new(GenerateParameters { repetition_penalty: Some(4.0), ..GenerateParameters::greedy() });
//! let mut sampler = Sampler::new(parameters, Arc::default(), &[0]);
//! let mut scratch = Scratch::default();
//! // Token 0 has been seen: its logit counts as 0.5.
//! let sampled = sampler.sample(&mut [2.0, 1.0, -1.0], &mut scratch).expect("finite logits");
//! assert_eq!(sampled.token, 1);
//! ```

mod constraint;
mod mask;
mod parameters;
mod processors;
mod random;
mod sampler;
#[cfg(test)]
mod tests;
mod vector;

pub use constraint::Constraint;
pub use mask::TokenMask;
pub use parameters::{GenerateParameters, ParameterError};
pub use processors::Change;
pub use random::random_seed;
pub use sampler::{Numbers, Sampled, Sampler, Scratch, TokenLogprob, TokenScore, log_probability, score};
