use pippin_tensor::{Backend, Norm, NormKind};

use super::join;
use crate::Result;
use crate::source::{Source, same};
use crate::spec::check::positive;

/// A norm, described.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct NormSpec {
    /// Module path, relative to what the norm belongs to.
    pub path: &'static str,
    /// What it divides by.
    pub kind: NormKind,
    /// Added to the mean square, or to the variance.
    pub eps: f32,
    /// Whether it has a weight.
    pub weight: bool,
    /// Whether the factor is one plus the weight.
    pub plus_one: bool,
    /// Whether it has a bias.
    pub bias: bool,
}

/// A root-mean-square norm whose weight multiplies what goes in, rather than what comes out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaledNorm {
    /// Module path, relative to what the norm belongs to.
    pub path: &'static str,
    /// Added to the mean square.
    pub eps: f32,
}

#[derive(Debug)]
pub(crate) struct ScaledNormWeights<V> {
    factors: V,
    norm: Norm<V>,
}

impl ScaledNorm {
    pub(crate) fn validate(&self) -> Result<()> {
        NormSpec::bare(self.eps).validate()
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        width: usize,
    ) -> Result<ScaledNormWeights<S::Vector>> {
        let factors = source.vector(&format!("{}.weight", join(at, self.path)), &[width], same)?;
        Ok(ScaledNormWeights { factors, norm: NormSpec::bare(self.eps).weights(source, at, width)? })
    }
}

impl<V> ScaledNormWeights<V> {
    pub(crate) fn of<B: Backend<Tensor = V>>(&self, backend: &B, x: &V) -> Result<V> {
        Ok(backend.norm(&backend.mul(x, &self.factors)?, &self.norm)?)
    }
}

impl NormSpec {
    /// A root-mean-square norm.
    pub(crate) fn rms(path: &'static str, eps: f32) -> Self {
        Self { path, kind: NormKind::Rms, eps, weight: true, plus_one: false, bias: false }
    }

    /// A root-mean-square norm whose factor is one plus the weight, as Gemma has them.
    pub(crate) fn plus_one(path: &'static str, eps: f32) -> Self {
        Self { plus_one: true, ..Self::rms(path, eps) }
    }

    /// A root-mean-square norm without a weight.
    pub(crate) fn bare(eps: f32) -> Self {
        Self { weight: false, ..Self::rms("", eps) }
    }

    /// A layer norm.
    pub(crate) fn layer(path: &'static str, eps: f32, bias: bool) -> Self {
        Self { kind: NormKind::Layer, bias, ..Self::rms(path, eps) }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let field = match self.kind {
            NormKind::Rms => "rms_norm_eps",
            NormKind::Layer => "layer_norm_eps",
        };
        positive(field, self.eps)
    }

    /// Reads a norm of runs of `width` columns with a parameter for each of them.
    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        width: usize,
    ) -> Result<Norm<S::Vector>> {
        self.weights_of(source, at, width, &[width])
    }

    /// Reads a norm of runs of `width` columns whose parameters have another shape: one for each column of the input, say.
    pub(crate) fn weights_of<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        width: usize,
        shape: &[usize],
    ) -> Result<Norm<S::Vector>> {
        let path = if at.is_empty() { self.path.to_owned() } else { format!("{at}.{}", self.path) };
        let change = if self.plus_one { |weight| 1.0 + weight } else { same };
        let weight = match self.weight {
            true => Some(source.vector(&format!("{path}.weight"), shape, change)?),
            false => None,
        };
        let bias = match self.bias {
            true => Some(source.vector(&format!("{path}.bias"), shape, same)?),
            false => None,
        };
        Ok(Norm { kind: self.kind, width, eps: self.eps, weight, bias })
    }
}
