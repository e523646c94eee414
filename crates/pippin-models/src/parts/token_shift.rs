use pippin_tensor::{Backend, StepInputs};

use crate::Result;
use crate::source::Source;

/// The kernels with which a convolution returns, for each row, the row before it in its sequence less the row itself.
pub(super) fn kernels<S: Source>(source: &mut S, columns: usize) -> Result<S::Vector> {
    source.constant([columns, 2], |place| if place % 2 == 0 { 1.0 } else { -1.0 })
}

/// Rows of `x` on the way to those before them.
pub(super) struct Shifted<'a, B: Backend> {
    backend: &'a B,
    x: B::Tensor,
    difference: B::Tensor,
}

impl<'a, B: Backend> Shifted<'a, B> {
    /// Before a sequence's first row there are zeros; `past` keeps the last of each slot.
    pub(super) fn new(
        backend: &'a B,
        x: B::Tensor,
        kernels: &B::Tensor,
        past: &mut B::State,
        step: &StepInputs<B>,
    ) -> Result<Self> {
        let difference = backend.causal_convolution(&x, kernels, None, past, step)?;
        Ok(Self { backend, x, difference })
    }

    /// As much of the way as a factor for each column says.
    pub(super) fn by(&self, factors: &B::Tensor) -> Result<B::Tensor> {
        Ok(self.backend.add(&self.x, &self.backend.mul(&self.difference, factors)?)?)
    }
}
