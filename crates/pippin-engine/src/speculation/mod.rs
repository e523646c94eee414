//! Guessing tokens ahead, and when that pays.
//!
//! A step of several rows costs little more than one of a single row, because both read all weights. So what follows a
//! sequence is guessed, the guesses are computed with the last token, and a token is drawn after each row as long as the
//! guesses were right ([`Want::Verify`](pippin_tensor::Want::Verify)). Every token is drawn by the request's own sampler, with
//! its own random numbers, from the logits that it would have been drawn from one row at a time: an answer is the same, bit
//! by bit, whatever was guessed. What may differ is the time it takes, and that is measured: how often guesses of a kind are
//! right ([`PromptLookup`], [`Forced`], [`DraftModel`]) and how long steps of so many rows take ([`StepTimes`]). From these, [`worthwhile`] says how many
//! guesses a step should have.

mod draft;
mod forced;
mod lookup;
mod times;

pub(crate) use draft::{DraftModel, Drafted};
pub(crate) use forced::Forced;
pub(crate) use lookup::PromptLookup;
pub(crate) use times::StepTimes;

/// Tokens that may follow, each with the chance that it and those before it are right.
pub(crate) type Guesses = Vec<(u32, f32)>;

/// A step with guesses has to be expected to be faster than without by this factor: estimates are not exact.
const LEAST_GAIN: f64 = 1.03;

/// How many guesses a step of `rows` sequences should check, given the chance of each to give a token, highest first.
pub(crate) fn worthwhile(rows: usize, chances: &[f32], times: &StepTimes) -> usize {
    let mut tokens = rows as f64;
    let (mut best, mut count) = (LEAST_GAIN * tokens / times.estimate(rows), 0);
    for (index, chance) in chances.iter().enumerate() {
        tokens += f64::from(*chance);
        let rate = tokens / times.estimate(rows + index + 1);
        if rate > best {
            (best, count) = (rate, index + 1);
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_worth_what_they_cost() {
        // A row more costs a tenth of a step.
        let cheap = StepTimes::fixed(|rows| 0.9 + 0.1 * rows as f64);
        assert_eq!(worthwhile(1, &[], &cheap), 0);
        assert_eq!(worthwhile(1, &[0.9, 0.8, 0.7, 0.6], &cheap), 4);
        // A chance that gives less than it costs: nothing; and nothing behind it makes up for that.
        assert_eq!(worthwhile(1, &[0.1, 0.05], &cheap), 0);
        assert_eq!(worthwhile(1, &[0.9, 0.8, 0.05, 0.01], &cheap), 2);
        // Rows that cost as much as steps of their own cannot help.
        let dear = StepTimes::fixed(|rows| rows as f64);
        assert_eq!(worthwhile(1, &[0.99, 0.98, 0.97], &dear), 0);
        // A second row costs a step of its own, further ones nothing: only several are worth it.
        let stepped = StepTimes::fixed(|rows| if rows == 1 { 1.0 } else { 2.0 });
        assert_eq!(worthwhile(1, &[0.9], &stepped), 0);
        assert_eq!(worthwhile(1, &[0.9, 0.8, 0.7], &stepped), 3);
        // Beside others, whose tokens the step gives too, a guess has to be better.
        assert_eq!(worthwhile(20, &[0.5], &cheap), 0);
        assert_eq!(worthwhile(20, &[0.6; 8], &cheap), 0);
        assert_eq!(worthwhile(20, &[0.99; 8], &cheap), 8);
        let free = StepTimes::fixed(|_| 1.0);
        assert_eq!(worthwhile(20, &[0.9; 8], &free), 8);
    }
}
