//! From logits to a token.
//!
//! The order is mlx-lm's: logit bias, repetition penalty, presence penalty, frequency penalty; then, unless the
//! temperature is 0, top-p, min-p, XTC and top-k on the probabilities *before* temperature, and a draw from what is
//! left at the temperature. [`GenerateParameters`] says what each of them does.

mod parameters;
mod processors;
mod random;
mod sampler;
#[cfg(test)]
mod tests;
mod vector;

pub use parameters::GenerateParameters;
pub(crate) use sampler::{Sampler, Scratch, log_probability};
