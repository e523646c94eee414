//! Random operands, and the arrays that references are computed with.

use std::ops::Range;

use crate::{Backend, TensorData};

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>): small, and the same everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[-1, 1)`.
    pub(super) fn value(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(super) fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.value()).collect()
    }

    /// Uniform below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }

    /// So many indices below `limit`.
    pub(super) fn indices(&mut self, len: usize, limit: usize) -> Vec<u32> {
        (0..len).map(|_| self.below(limit) as u32).collect()
    }

    /// The numbers below `limit` in random order.
    pub(super) fn shuffled(&mut self, limit: usize) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..limit as u32).collect();
        (0..limit).map(|_| numbers.swap_remove(self.below(numbers.len()))).collect()
    }
}

/// A two-dimensional array of reference values. Those of operands are such that an `f32` holds them.
#[derive(Clone, Debug)]
pub(super) struct Array {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) values: Vec<f64>,
}

impl Array {
    pub(super) fn random(random: &mut Random, rows: usize, columns: usize) -> Self {
        Self::new(rows, columns, &random.values(rows * columns))
    }

    pub(super) fn new(rows: usize, columns: usize, values: &[f32]) -> Self {
        assert_eq!(values.len(), rows * columns);
        Self { rows, columns, values: values.iter().map(|v| f64::from(*v)).collect() }
    }

    /// The same number everywhere.
    pub(super) fn filled(rows: usize, columns: usize, value: f64) -> Self {
        Self { rows, columns, values: vec![value; rows * columns] }
    }

    /// Rows that are made one by one.
    pub(super) fn from_rows(rows: usize, columns: usize, row: impl FnMut(usize) -> Vec<f64>) -> Self {
        let values: Vec<f64> = (0..rows).flat_map(row).collect();
        assert_eq!(values.len(), rows * columns);
        Self { rows, columns, values }
    }

    pub(super) fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..][..self.columns]
    }

    pub(super) fn rows_of(&self, range: Range<usize>) -> Self {
        let values = self.values[range.start * self.columns..range.end * self.columns].to_vec();
        Self { rows: range.len(), columns: self.columns, values }
    }

    pub(super) fn columns_of(&self, range: Range<usize>) -> Self {
        Self::from_rows(self.rows, range.len(), |row| self.row(row)[range.clone()].to_vec())
    }

    /// Rows by number; zeros for those that it does not have.
    pub(super) fn select(&self, rows: &[u32]) -> Self {
        let row = |row: u32| (row as usize) < self.rows;
        Self::from_rows(rows.len(), self.columns, |i| {
            if row(rows[i]) { self.row(rows[i] as usize).to_vec() } else { vec![0.0; self.columns] }
        })
    }

    /// The same numbers in rows of another length.
    pub(super) fn reshaped(&self, rows: usize, columns: usize) -> Self {
        assert_eq!(rows * columns, self.values.len());
        Self { rows, columns, values: self.values.clone() }
    }

    /// Arrays side by side.
    pub(super) fn join(parts: &[&Self]) -> Self {
        let columns = parts.iter().map(|part| part.columns).sum();
        Self::from_rows(parts[0].rows, columns, |row| {
            parts.iter().flat_map(|part| part.row(row).to_vec()).collect()
        })
    }

    /// Each number through `f`.
    /// These rows and, below them, those of another.
    pub(super) fn above(&self, other: &Self) -> Self {
        let values = self.values.iter().chain(&other.values).copied().collect();
        Self { rows: self.rows + other.rows, columns: self.columns, values }
    }

    pub(super) fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        let values = self.values.iter().map(|v| f(*v)).collect();
        Self { values, ..*self }
    }

    /// An operand made of another, number by number, rounded to `f32`.
    pub(super) fn operand(&self, f: impl Fn(f64) -> f64) -> Self {
        self.map(|v| f64::from(f(v) as f32))
    }

    /// Each row through `f`.
    pub(super) fn map_rows(&self, f: impl Fn(usize, &[f64]) -> Vec<f64>) -> Self {
        let values: Vec<f64> = (0..self.rows).flat_map(|row| f(row, self.row(row))).collect();
        Self { rows: self.rows, columns: values.len() / self.rows.max(1), values }
    }

    /// Each number and what stands in the same place of `other`, whose only row (or column) stands for all.
    pub(super) fn zip(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        self.map_rows(|row, values| {
            let others = other.row(if other.rows == 1 { 0 } else { row });
            let other = |column: usize| others[if other.columns == 1 { 0 } else { column }];
            values.iter().enumerate().map(|(column, value)| f(*value, other(column))).collect()
        })
    }

    pub(super) fn add(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    /// `x · wᵀ`.
    pub(super) fn matmul(&self, weight: &Self) -> Self {
        assert_eq!(self.columns, weight.columns);
        self.map_rows(|_, x| (0..weight.rows).map(|output| dot(weight.row(output), x)).collect())
    }

    pub(super) fn to_f32(&self) -> Vec<f32> {
        self.values.iter().map(|v| *v as f32).collect()
    }

    pub(super) fn upload<B: Backend>(&self, backend: &B) -> B::Tensor {
        upload(backend, [self.rows, self.columns], &self.to_f32())
    }
}

/// The sum of products.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A tensor on the device.
pub(super) fn upload<B: Backend>(backend: &B, shape: [usize; 2], values: &[f32]) -> B::Tensor {
    let data = TensorData::from_f32("operand", &shape, values).unwrap();
    backend.tensor(&data).unwrap_or_else(|error| panic!("an operand of {shape:?}: {error}"))
}
