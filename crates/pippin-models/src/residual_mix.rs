//! Attention over the residual stream as it was before (attention residuals): layers stand in groups, each of which begins a
//! new sum, and what a part is given is a mixture of the sums of all groups before its own and of its own so far.

use pippin_tensor::{Backend, Linear, Norm};

use crate::Result;
use crate::parts::{NormSpec, Pass, join};
use crate::source::{Cut, Source};

/// How a part's input is mixed of the sums of groups of layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResidualMix {
    /// The norm of each sum, before its score.
    pub norm: NormSpec,
    /// The linear layer from a normalised sum to its score; the softmax of the scores are the shares.
    pub score: &'static str,
    /// Whether a new sum begins here, once the input is mixed.
    pub begins: bool,
}

#[derive(Debug)]
pub(crate) struct ResidualMixWeights<L, V> {
    norm: Norm<V>,
    score: L,
}

impl ResidualMix {
    /// Reads the weights from the module at a path, in a model `hidden` wide.
    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<ResidualMixWeights<S::Linear, S::Vector>> {
        Ok(ResidualMixWeights {
            norm: self.norm.weights(source, at, hidden)?,
            score: source.dense(&join(at, self.score), [1, hidden], false, Cut::Whole)?,
        })
    }
}

impl<B: Backend> ResidualMixWeights<Linear<B>, B::Tensor> {
    /// The mixture of the sums of groups before, and of this one's so far.
    pub(crate) fn of(&self, pass: &Pass<'_, B>, sum: &B::Tensor) -> Result<B::Tensor> {
        let backend = pass.backend;
        if pass.sums.is_empty() {
            return Ok(sum.clone());
        }
        let [rows, hidden] = backend.shape(sum);
        let sums: Vec<&B::Tensor> = pass.sums.iter().chain([sum]).collect();
        let all = backend.reshape(&backend.join(&sums)?, [rows * sums.len(), hidden])?;
        let scores = backend.linear(&backend.norm(&all, &self.norm)?, &self.score)?;
        let shares = backend.softmax(&backend.reshape(&scores, [rows, sums.len()])?)?;
        Ok(backend.weighted_sum(&all, &shares)?)
    }
}
