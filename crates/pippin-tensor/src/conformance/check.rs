//! How a case is judged: against its reference, and against itself computed in other calls.

use std::fmt::Debug;

use super::{
    array::{Array, upload},
    schedule::{Piece, Schedule},
};
use crate::{Backend, Result, TensorError};

/// Norms below this count as this: a sum of terms of about one that happens to cancel has no digits of its own.
const SMALLEST_NORM: f64 = 0.3;
/// At least this is what a number beyond the largest `f32` becomes: infinity, or the product of an almost infinite factor.
const ALMOST_INFINITE: f64 = 1e30;

/// Judges the cases of one check.
///
/// There are two ways to compare results with a reference: [`rows`](Self::rows) for operations whose rows are
/// computed each by itself, and [`sequences`](Self::sequences) for those that look back along a sequence. Both compute
/// the same rows in other calls too, among other neighbours, and demand the same bits. So no operation is compared with
/// its reference whose independence of batching is not checked.
pub(super) struct Check<'a, B: Backend> {
    pub(super) backend: &'a B,
    pub(super) tolerance: f64,
}

/// A result on the host.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Output {
    pub(super) shape: [usize; 2],
    pub(super) values: Vec<f32>,
}

impl Output {
    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.shape[1]..][..self.shape[1]]
    }
}

/// The rows of a case that one call is made of. Rows of operands may be several for each row of the case.
pub(super) struct Rows<'a, B: Backend> {
    backend: &'a B,
    /// Rows of the case.
    count: usize,
    /// Those of this call, in its order.
    picked: Vec<usize>,
    /// Whether rows that are not [kept](Self::keeps) are NaN.
    spoiled: bool,
}

impl<B: Backend> Rows<'_, B> {
    pub(super) fn len(&self) -> usize {
        self.picked.len()
    }

    fn keeps(&self, row: usize) -> bool {
        !self.spoiled || row % 3 == 1
    }

    /// The rows of a tensor.
    pub(super) fn tensor(&self, array: &Array) -> B::Tensor {
        let length = array.values.len().checked_div(self.count).unwrap_or(0);
        let mut values = Vec::with_capacity(self.len() * length);
        for &row in &self.picked {
            let source = &array.values[row * length..][..length];
            values.extend(source.iter().map(|v| if self.keeps(row) { *v as f32 } else { f32::NAN }));
        }
        let rows = self.len() * array.rows.checked_div(self.count).unwrap_or(0);
        upload(self.backend, [rows, array.columns], &values)
    }

    /// The rows' indices, of which each has the same number.
    pub(super) fn indices(&self, indices: &[u32]) -> B::Indices {
        let length = indices.len().checked_div(self.count).unwrap_or(0);
        let picked = self.picked.iter().flat_map(|row| &indices[row * length..][..length]);
        self.backend.indices(&picked.copied().collect::<Vec<u32>>()).unwrap()
    }

    /// The rows' positions: those of the first axis, then those of the next.
    pub(super) fn positions(&self, positions: &[u32]) -> B::Indices {
        let axes = positions.chunks(self.count.max(1));
        let picked = axes.flat_map(|axis| self.picked.iter().map(|row| axis[*row]));
        self.backend.indices(&picked.collect::<Vec<u32>>()).unwrap()
    }
}

impl<'a, B: Backend> Check<'a, B> {
    pub(super) fn new(backend: &'a B, tolerance: f64) -> Self {
        Self { backend, tolerance }
    }

    /// A tensor on the host.
    pub(super) fn output(&self, tensor: &B::Tensor) -> Output {
        let shape = self.backend.shape(tensor);
        let values = self.backend.read(tensor).unwrap();
        assert_eq!(values.len(), shape[0] * shape[1], "a tensor of {shape:?}");
        Output { shape, values }
    }

    /// Compares an operation on `count` rows with its reference, and with itself on other selections of them.
    pub(super) fn rows(
        &self,
        case: impl Debug,
        count: usize,
        expected: &Array,
        operation: impl Fn(&Rows<'_, B>) -> Result<B::Tensor>,
    ) {
        let operation = |rows: &Rows<'_, B>| Ok(vec![self.output(&operation(rows)?)]);
        self.row_outputs(&case, count, &[(expected, self.tolerance)], operation);
    }

    /// The same for an operation with several results, each with its own tolerance.
    pub(super) fn row_outputs(
        &self,
        case: &dyn Debug,
        count: usize,
        expected: &[(&Array, f64)],
        operation: impl Fn(&Rows<'_, B>) -> Result<Vec<Output>>,
    ) {
        let backend = self.backend;
        let run = |rows: &Rows<'_, B>| {
            operation(rows).unwrap_or_else(|error| panic!("{case:?}, rows {:?}: {error}", rows.picked))
        };
        let all: Vec<usize> = (0..count).collect();
        let whole = run(&Rows { backend, count, picked: all.clone(), spoiled: false });
        assert_eq!(whole.len(), expected.len(), "{case:?}: results");
        for (output, (expected, tolerance)) in whole.iter().zip(expected) {
            assert_near(output, expected, *tolerance, case);
        }
        let mut selections: Vec<Rows<'_, B>> = selections(count)
            .into_iter()
            .map(|picked| Rows { backend, count, picked, spoiled: false })
            .collect();
        if count > 1 {
            selections.push(Rows { backend, count, picked: all, spoiled: true });
        }
        for rows in selections {
            let part = run(&rows);
            assert_eq!(part.len(), whole.len(), "{case:?}: results");
            for (whole, part) in whole.iter().zip(&part) {
                let each = whole.shape[0] / count;
                assert_eq!(part.shape, [rows.len() * each, whole.shape[1]], "{case:?}: shape of a part");
                for (place, row) in rows.picked.iter().enumerate().filter(|(_, row)| rows.keeps(**row)) {
                    for i in 0..each {
                        assert_same_bits(whole.row(row * each + i), part.row(place * each + i), &|| {
                            let neighbours = if rows.spoiled {
                                "among rows of NaN".into()
                            } else {
                                format!("in {:?}", rows.picked)
                            };
                            format!("{case:?}: row {row} of {count} is other bits {neighbours}")
                        });
                    }
                }
            }
        }
        // A step may want nothing of any sequence. Whether an operation then accepts no rows is its own affair.
        if let Ok(outputs) = operation(&Rows { backend, count, picked: Vec::new(), spoiled: false }) {
            assert!(outputs.iter().all(|output| output.shape[0] == 0), "{case:?}: rows of nothing");
        }
    }

    /// Compares an operation that looks back along its sequence with its reference, and with itself on the same sequences
    /// cut into other steps.
    ///
    /// `expected` has for each sequence the results of all its rows, and `tolerances` one for each result. Tokens of a
    /// block see each other, so that no step may end within one; sequences have blocks at the same indices. `start` makes
    /// what the operation keeps between steps, `step` runs one on it.
    pub(super) fn sequences<S>(
        &self,
        case: &dyn Debug,
        expected: &[Vec<Array>],
        tolerances: &[f64],
        blocks: &[std::ops::Range<usize>],
        start: impl Fn() -> S,
        step: impl Fn(&mut S, &[Piece]) -> Result<Vec<B::Tensor>>,
    ) {
        let lengths: Vec<usize> = expected.iter().map(|outputs| outputs[0].rows).collect();
        let run = |schedule: &Schedule| {
            let mut kept = start();
            let mut results = vec![vec![Vec::new(); tolerances.len()]; lengths.len()];
            for pieces in schedule.steps(&lengths, blocks) {
                let outputs = step(&mut kept, &pieces)
                    .unwrap_or_else(|error| panic!("{case:?}, {schedule:?}, {pieces:?}: {error}"));
                assert_eq!(outputs.len(), tolerances.len(), "{case:?}: results");
                for (result, output) in outputs.iter().enumerate() {
                    let output = self.output(output);
                    let columns = expected[0][result].columns;
                    let rows = pieces.iter().map(|piece| piece.rows.len()).sum();
                    assert_eq!(output.shape, [rows, columns], "{case:?}, {schedule:?}: shape");
                    let mut values = &output.values[..];
                    for piece in &pieces {
                        let (here, others) = values.split_at(piece.rows.len() * columns);
                        results[piece.sequence][result].extend_from_slice(here);
                        values = others;
                    }
                }
            }
            results
        };
        let whole = run(&Schedule::WHOLE);
        for (sequence, (expected, found)) in expected.iter().zip(&whole).enumerate() {
            for (result, (expected, values)) in expected.iter().zip(found).enumerate() {
                let output = Output { shape: [expected.rows, expected.columns], values: values.clone() };
                assert_near(&output, expected, tolerances[result], &(case, "sequence", sequence));
            }
        }
        for schedule in Schedule::others(&lengths) {
            let found = run(&schedule);
            for sequence in (0..lengths.len()).filter(|sequence| !schedule.spoils(*sequence)) {
                for (whole, found) in whole[sequence].iter().zip(&found[sequence]) {
                    assert_same_bits(whole, found, &|| {
                        format!("{case:?}: sequence {sequence} is other bits with {schedule:?}")
                    });
                }
            }
        }
    }

    /// What a backend may lack: `None`, and a line in the test's output, where it does.
    pub(super) fn supported<T>(&self, what: &dyn Debug, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(TensorError::Unsupported { .. }) => {
                eprintln!("skipped: the {} backend does not have {what:?}", self.backend.name());
                None
            }
            Err(error) => panic!("{what:?}: {error}"),
        }
    }
}

/// Fails unless an operation has refused operands whose shapes do not fit.
#[track_caller]
pub(super) fn assert_refused<T: Debug>(case: impl Debug, result: Result<T>) {
    assert!(matches!(result, Err(TensorError::Shape { .. })), "{case:?}: not refused but {result:?}");
}

/// Fails unless `found` is `expected` within `tolerance`, relative to each row's norm. A NaN never is.
fn assert_near(found: &Output, expected: &Array, tolerance: f64, case: &dyn Debug) {
    assert_eq!(found.shape, [expected.rows, expected.columns], "{case:?}: shape");
    for row in 0..expected.rows {
        let (expected, found) = (expected.row(row), found.row(row));
        let (mut difference, mut norm, mut overflows) = (0.0, 0.0, true);
        for (expected, found) in expected.iter().zip(found) {
            let found = f64::from(*found);
            if expected.abs() <= f64::from(f32::MAX) {
                difference += (expected - found).powi(2);
                norm += expected.powi(2);
            } else {
                overflows &= found * expected.signum() >= ALMOST_INFINITE;
            }
        }
        let (difference, norm) = (f64::sqrt(difference), f64::sqrt(norm).max(SMALLEST_NORM));
        // Comparisons that a NaN fails.
        assert!(
            difference <= tolerance * norm && overflows,
            "{case:?}: row {row} deviates by {:.3e} (allowed {tolerance:.1e})\nexpected {:?}\nfound    {:?}",
            difference / norm,
            &expected[..expected.len().min(8)],
            &found[..found.len().min(8)],
        );
    }
}

/// Fails unless all bits are the same.
pub(super) fn assert_same_bits(expected: &[f32], found: &[f32], deviation: &dyn Fn() -> String) {
    assert_eq!(expected.len(), found.len(), "{}", deviation());
    for (i, (expected, found)) in expected.iter().zip(found).enumerate() {
        if expected.to_bits() != found.to_bits() {
            panic!("{}: number {i} is {found:e} instead of {expected:e}", deviation());
        }
    }
}

/// Selections of rows to compute apart from the others: some alone, neighbours in all the numbers that kernels have paths
/// of their own for, a large part, all in another order.
fn selections(count: usize) -> Vec<Vec<usize>> {
    let mut selections: Vec<Vec<usize>> =
        if count <= 8 { (0..count).map(|row| vec![row]).collect() } else { vec![vec![0], vec![count - 1]] };
    for length in (1..=9).chain([16, count * 9 / 16]).filter(|length| *length < count) {
        let start = length * 7919 % (count - length + 1);
        selections.push((start..start + length).collect());
    }
    if count > 1 {
        selections.push((0..count).rev().collect());
    }
    selections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(values: &[f32]) -> Output {
        Output { shape: [1, values.len()], values: values.to_vec() }
    }

    fn near(expected: &[f64], found: &[f32]) -> bool {
        let expected = Array { rows: 1, columns: expected.len(), values: expected.to_vec() };
        std::panic::catch_unwind(|| assert_near(&output(found), &expected, 1e-3, &"case")).is_ok()
    }

    #[test]
    fn what_is_near_is_no_nan() {
        assert!(near(&[1.0, -2.0], &[1.0005, -2.0]));
        assert!(!near(&[1.0, -2.0], &[1.005, -2.0]));
        assert!(!near(&[1.0, -2.0], &[1.0, f32::NAN]));
        assert!(!near(&[1.0, -2.0], &[1.0, f32::INFINITY]));
        assert!(!near(&[1.0, -2.0], &[1.0]));
        assert!(near(&[1e50, 1.0], &[f32::INFINITY, 1.0]));
        assert!(!near(&[1e50, 1.0], &[f32::NEG_INFINITY, 1.0]));
        assert!(!near(&[1e50, 1.0], &[f32::NAN, 1.0]));
        assert!(!near(&[1e50, 1.0], &[1.0, 1.0]));
    }

    #[test]
    fn bits_differ_where_numbers_may_not() {
        let same = |expected: f32, found: f32| {
            std::panic::catch_unwind(|| assert_same_bits(&[expected], &[found], &|| "bits".into())).is_ok()
        };
        assert!(same(1.0, 1.0));
        assert!(!same(0.0, -0.0));
        assert!(!same(1.0, f32::NAN));
        assert!(!same(1.0, 1.0 + f32::EPSILON));
    }

    #[test]
    fn every_row_is_computed_apart_from_some_neighbour() {
        for count in [2, 3, 9, 10, 33, 300] {
            let selections = selections(count);
            assert!(selections.iter().all(|rows| rows.iter().all(|row| *row < count)));
            assert!(selections.iter().any(|rows| rows.len() == 1));
            assert!(selections.iter().any(|rows| rows.len() == count && rows[0] == count - 1));
            let lengths = selections.iter().map(Vec::len).collect::<std::collections::HashSet<_>>();
            assert!((1..=count.min(9)).all(|length| lengths.contains(&length)));
        }
    }
}
