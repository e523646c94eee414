use pippin_tensor::{Backend, Linear};

use super::{Input, Needs, Pass, Place, join};
use crate::Result;
use crate::source::{Cut, Source};

/// A linear layer, from the residual stream to itself: what attention or a feed-forward network was found to be replaceable
/// by.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearMap {
    /// Its path.
    pub path: &'static str,
    /// Whether it has a bias.
    pub bias: bool,
}

#[derive(Debug)]
pub(crate) struct LinearMapWeights<L, V> {
    linear: L,
    /// A linear layer has no small parameters.
    _vectors: std::marker::PhantomData<V>,
}

impl LinearMap {
    pub(crate) fn validate(&self) -> Result<()> {
        Ok(())
    }

    pub(crate) fn needs(&self) -> Needs {
        Needs::default()
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<LinearMapWeights<S::Linear, S::Vector>> {
        let linear = source.linear(&join(at, self.path), [hidden, hidden], self.bias, Cut::Rows)?;
        Ok(LinearMapWeights { linear, _vectors: std::marker::PhantomData })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &LinearMapWeights<Linear<B>, B::Tensor>,
        _: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let x = pass.normalised(input)?;
        pass.project(&x, &weights.linear, input).map(Some)
    }
}
