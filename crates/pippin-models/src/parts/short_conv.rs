use pippin_tensor::{Backend, Linear};

use super::{Input, Needs, Pass, Place, Rows, join, miscounted};
use crate::source::{Cut, Source, same};
use crate::spec::check::within;
use crate::{Result, limits};

/// A short convolution between two gates (LFM2, <https://arxiv.org/abs/2511.23404>): `output(c * convolution(b * x))`, where
/// `b`, `c` and `x` are projections of the input, in this order of rows in one matrix. Its state is the last inputs of the
/// convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct ShortConv {
    /// Where `in_proj`, `conv` and `out_proj` are.
    pub path: &'static str,
    /// Columns of the convolution.
    pub width: usize,
    /// Taps of the convolution: the tokens that a token sees, itself included.
    pub taps: usize,
    /// Whether projections and convolution have biases.
    pub bias: bool,
}

#[derive(Debug)]
pub(crate) struct ShortConvWeights<L, V> {
    before: L,
    after: L,
    input: L,
    kernels: V,
    kernels_bias: Option<V>,
    output: L,
}

impl ShortConv {
    pub(crate) fn validate(&self) -> Result<()> {
        within("hidden_size", self.width, limits::HIDDEN)?;
        within("conv_L_cache", self.taps, limits::TAPS)
    }

    pub(crate) fn needs(&self) -> Needs {
        Needs { mixes: true, states: vec![(self.taps - 1) * self.width], ..Needs::default() }
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<ShortConvWeights<S::Linear, S::Vector>> {
        let &Self { width, bias, .. } = self;
        let at = join(at, self.path);
        let parts = [0, 1, 2].map(|part| vec![part * width..(part + 1) * width]);
        let projections =
            source.split(&join(&at, "in_proj"), [3 * width, hidden], bias, &parts, Cut::Rows)?;
        let [before, after, input] = <[S::Linear; 3]>::try_from(projections)
            .map_err(|projections| miscounted("split", 3, projections.len()))?;
        let kernels = source.kernels(&join(&at, "conv"), width, self.taps)?;
        let kernels_bias = match bias {
            true => Some(source.vector(&join(&at, "conv.bias"), &[width], same)?),
            false => None,
        };
        let output = source.linear(&join(&at, "out_proj"), [hidden, width], bias, Cut::Columns)?;
        Ok(ShortConvWeights { before, after, input, kernels, kernels_bias, output })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &ShortConvWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let (backend, step) = (pass.backend, pass.step);
        let linears = [&weights.before, &weights.after, &weights.input];
        let outputs = backend.norm_linears(input.x, input.norm, &linears)?;
        let [before, after, x] = outputs.as_slice() else {
            return Err(miscounted("norm_linears", 3, outputs.len()));
        };
        let x = backend.mul(before, x)?;
        let past = &mut pass.states[place.states.start];
        let mixed =
            backend.causal_convolution(&x, &weights.kernels, weights.kernels_bias.as_ref(), past, step)?;
        if input.rows == Rows::None {
            return Ok(None);
        }
        pass.finish(&backend.mul(after, &mixed)?, &weights.output, input)
    }
}
