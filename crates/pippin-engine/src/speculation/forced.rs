//! Guesses from a constraint: where it leaves no choice of what is written, only of the pieces in which it is.

use super::Guesses;
use super::lookup::Rate;

/// How often a guess is taken to be right before any was checked, and the last of several, whose text may go on in the same token.
const ASSUMED: [f32; 2] = [0.9, 0.6];

/// What a constraint forces, as tokens, and how often that was how the model wrote it.
#[derive(Debug)]
pub(crate) struct Forced {
    /// The index of the first guess in the sequence.
    begin: usize,
    guesses: Vec<u32>,
    /// Of all but the last, and of that.
    rates: [Rate; 2],
}

impl Default for Forced {
    fn default() -> Self {
        Self { begin: 0, guesses: Vec::new(), rates: ASSUMED.map(Rate::assumed) }
    }
}

impl Forced {
    /// What follows a sequence: guesses that have come true so far go on, otherwise `force` is asked.
    pub(crate) fn guess(&mut self, tokens: &[u32], most: usize, force: impl FnOnce() -> Vec<u32>) -> Guesses {
        let done = self.count(tokens);
        self.guesses = match done {
            Some(done) if done < self.guesses.len() => self.guesses.split_off(done),
            _ => force(),
        };
        self.begin = tokens.len();
        let mut chance = 1.0;
        let chances = (0..self.guesses.len()).map(|index| {
            chance *= self.rates[self.class(index)].share();
            chance
        });
        self.guesses.iter().copied().zip(chances).take(most).collect()
    }

    /// Whether there are guesses of what follows a sequence.
    pub(crate) fn knows(&self, tokens: &[u32]) -> bool {
        self.begin == tokens.len() && !self.guesses.is_empty()
    }

    /// Counts the guesses that were right. Returns how many, if none was wrong.
    fn count(&mut self, tokens: &[u32]) -> Option<usize> {
        let came = tokens.get(self.begin..)?;
        for (index, (guess, token)) in self.guesses.iter().zip(came).enumerate() {
            let class = self.class(index);
            self.rates[class].count(guess == token);
            if guess != token {
                return None;
            }
        }
        Some(came.len())
    }

    fn class(&self, index: usize) -> usize {
        usize::from(index + 1 == self.guesses.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(guesses: &Guesses) -> Vec<u32> {
        guesses.iter().map(|(token, _)| *token).collect()
    }

    #[test]
    fn guesses_go_on_while_they_come_true() {
        let mut forced = Forced::default();
        let guesses = forced.guess(&[1], 8, || vec![2, 3, 4]);
        assert_eq!(tokens(&guesses), [2, 3, 4]);
        assert!(guesses.windows(2).all(|pair| pair[0].1 > pair[1].1), "{guesses:?}");
        assert_eq!(tokens(&forced.guess(&[1, 2], 8, || unreachable!())), [3, 4]);
        assert_eq!(tokens(&forced.guess(&[1, 2], 1, || unreachable!())), [3]);
        assert_eq!(tokens(&forced.guess(&[1, 2, 9], 8, || vec![5])), [5]);
        assert!(forced.guess(&[1, 2, 9, 5], 8, Vec::new).is_empty());
        assert_eq!(tokens(&forced.guess(&[1, 2, 9, 5, 6, 7], 8, || vec![8])), [8]);
    }

    #[test]
    fn pieces_that_a_model_does_not_use_are_no_longer_expected() {
        let mut forced = Forced::default();
        let mut sequence = vec![0];
        let mut chance = 1.0;
        for _ in 0..8 {
            let before = chance;
            chance = forced.guess(&sequence, 8, || vec![1, 2])[0].1;
            assert!(chance < before);
            sequence.push(7);
        }
        assert!(chance < 0.5);
    }
}
