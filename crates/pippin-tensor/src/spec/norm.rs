/// What a norm divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// `x / sqrt(mean(x²) + eps)` (<https://arxiv.org/abs/1910.07467>).
    Rms,
    /// `(x - mean(x)) / sqrt(variance(x) + eps)` (<https://arxiv.org/abs/1607.06450>).
    Layer,
}

/// A normalisation over runs of `width` columns; `T` is a tensor.
///
/// With a width of a whole row that is the usual norm; with the width of a head, each head is normalised by itself.
/// Variants that add one to the weight do so when it is loaded.
#[derive(Clone, Debug)]
pub struct Norm<T> {
    /// What the norm divides by.
    pub kind: NormKind,
    /// Columns that are normalised together; divides those of the input.
    pub width: usize,
    /// Added to the mean square, or to the variance.
    pub eps: f32,
    /// Factors after the division: one row as wide as a run, the same for every run, or as wide as the input.
    pub weight: Option<T>,
    /// Added last; as wide as the weight may be.
    pub bias: Option<T>,
}

impl<T> Norm<T> {
    /// A root-mean-square norm with a weight.
    pub fn rms(width: usize, eps: f32, weight: T) -> Self {
        Self { kind: NormKind::Rms, width, eps, weight: Some(weight), bias: None }
    }
}
