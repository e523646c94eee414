//! Embeddings of n-grams, as LongCat Flash has them: besides a token's own, rows of several tables for the last two tokens,
//! the last three, and so on. There are more n-grams than rows, of which each has one by its number modulo that of rows.
//!
//! Numbers are too large for the floats that devices compute in, so that the host makes them. It keeps the last tokens of
//! each slot to that end, which are a part of the slot's state.

use pippin_tensor::{Backend, Batch, Linear};

use crate::parts::join;
use crate::source::{Cut, Source};
use crate::spec::check::within;
use crate::{Result, limits};

/// Tables of n-grams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ngrams {
    /// Where `embedders` and `post_projs` are.
    pub path: &'static str,
    /// Tokens of the longest.
    pub longest: usize,
    /// Tables for each length.
    pub tables: usize,
    /// Rows of the first table, less one; each has two more than the one before it.
    pub rows: usize,
    /// Width of a row.
    pub width: usize,
}

/// Limits that keep numbers within what they are computed in.
const LONGEST: usize = 64;
const TABLES: usize = 64;
const ROWS: usize = 1 << 31;

impl Ngrams {
    pub(crate) fn validate(&self) -> Result<()> {
        within("emb_neighbor_num", self.longest, LONGEST)?;
        within("emb_split_num", self.tables, TABLES)?;
        within("ngram_vocab_size_ratio", self.rows, ROWS)?;
        within("the width of an n-gram's embedding", self.width, limits::HIDDEN)
    }

    /// Tokens before a row's own that count.
    pub(crate) fn history(&self) -> usize {
        self.longest.saturating_sub(1)
    }

    /// For each table, the tokens of its n-grams and its rows.
    fn all(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let &Self { tables, rows, .. } = self;
        (0..self.history() * tables).map(move |table| (table / tables + 2, rows + 2 * table + 1))
    }

    pub(crate) fn weights<S: Source>(&self, source: &mut S, hidden: usize) -> Result<Vec<[S::Linear; 2]>> {
        let mut read = Vec::new();
        for (table, (_, rows)) in self.all().enumerate() {
            let at = |list: &str| join(self.path, &format!("{list}.{table}"));
            read.push([
                source.linear(&at("embedders"), [rows, self.width], false, Cut::Whole)?,
                source.linear(&at("post_projs"), [hidden, self.width], false, Cut::Whole)?,
            ]);
        }
        Ok(read)
    }

    /// The row of each table for each row of a step, and the last tokens of each of its sequences; of a slot, `history`
    /// gives those before the step.
    pub(crate) fn numbers<'a>(
        &self,
        batch: &Batch,
        vocab: usize,
        history: impl Fn(usize) -> &'a [u32],
    ) -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
        let mut numbers = vec![Vec::with_capacity(batch.rows()); self.history() * self.tables];
        let mut histories = Vec::with_capacity(batch.sequences());
        // The factors of the tokens before a row's own, the nearest first.
        let factors: Vec<Vec<u64>> = self
            .all()
            .map(|(length, rows)| {
                let next = |factor: &u64| Some(factor * vocab as u64 % rows as u64);
                std::iter::successors(next(&1), next).take(length - 1).collect()
            })
            .collect();
        for (ends, slot) in batch.query_starts().windows(2).zip(batch.slots()) {
            let (first, end) = (ends[0] as usize, ends[1] as usize);
            let mut tokens = history(*slot as usize).to_vec();
            let before = tokens.len();
            tokens.extend_from_slice(&batch.tokens()[first..end]);
            for row in first..end {
                let (at, index) = (before + row - first, batch.indices()[row] as usize);
                // Before its beginning a sequence has zeros.
                let token = |back: usize| match at.checked_sub(back) {
                    Some(at) if back <= index => u64::from(tokens[at]),
                    _ => 0,
                };
                for ((numbers, factors), (_, rows)) in numbers.iter_mut().zip(&factors).zip(self.all()) {
                    let terms =
                        factors.iter().enumerate().map(|(i, factor)| token(i + 1) * factor % rows as u64);
                    let number = terms.fold(token(0), |sum, term| sum + term);
                    numbers.push((number % rows as u64) as u32);
                }
            }
            tokens.drain(..tokens.len().saturating_sub(self.history()));
            histories.push(tokens);
        }
        (numbers, histories)
    }

    /// The mean of tokens' embeddings and those of their n-grams.
    pub(crate) fn add<B: Backend>(
        &self,
        weights: &[[Linear<B>; 2]],
        backend: &B,
        x: B::Tensor,
        numbers: &[B::Indices],
    ) -> Result<B::Tensor> {
        let mut sum = x;
        for ([table, projection], numbers) in weights.iter().zip(numbers) {
            let own = backend.embedding(&table.weight, numbers)?;
            sum = backend.linear_add(&own, projection, &sum)?;
        }
        Ok(backend.scale(&sum, 1.0 / (1 + weights.len()) as f32, 0.0)?)
    }
}

#[cfg(test)]
mod tests {
    use pippin_tensor::{Input, SequenceRows, StepLimits, Want};

    use super::*;

    const NGRAMS: Ngrams = Ngrams { path: "", longest: 3, tables: 2, rows: 1000, width: 1 };

    fn numbers(steps: &[&[u32]]) -> Vec<Vec<u32>> {
        let limits = StepLimits { vocab: 100, slots: 1, page_size: 32, pages: vec![], axes: 1 };
        let (mut all, mut history, mut start) = (vec![Vec::new(); 4], Vec::new(), 0);
        for tokens in steps {
            let mut batch = Batch::new(&limits);
            batch.push(SequenceRows::text(0, Input::Tokens(tokens), start, &[], Want::Nothing)).unwrap();
            start += tokens.len();
            let (numbers, mut histories) = NGRAMS.numbers(&batch, 100, |_| &history);
            let last = histories.pop().unwrap();
            history = last;
            all.iter_mut().zip(numbers).for_each(|(all, numbers)| all.extend(numbers));
        }
        all
    }

    #[test]
    fn numbers_are_those_of_the_last_tokens() {
        let found = numbers(&[&[7, 99, 3]]);
        // Bigrams modulo 1001 and 1003, trigrams modulo 1005 and 1007.
        assert_eq!(found[0], [7, 799, (3 + 9900) % 1001]);
        assert_eq!(found[1], [7, 799, (3 + 9900) % 1003]);
        assert_eq!(found[2], [7, 799, (3 + 9900 + 70_000) % 1005]);
        assert_eq!(found[3], [7, 799, (3 + 9900 + 70_000) % 1007]);
    }

    #[test]
    fn numbers_do_not_depend_on_how_a_sequence_is_cut() {
        let whole = numbers(&[&[7, 99, 3, 0, 12, 54]]);
        assert_eq!(numbers(&[&[7], &[99], &[3], &[0], &[12], &[54]]), whole);
        assert_eq!(numbers(&[&[7, 99, 3, 0], &[12, 54]]), whole);
        assert_eq!(numbers(&[&[7], &[99, 3, 0, 12, 54]]), whole);
    }
}
