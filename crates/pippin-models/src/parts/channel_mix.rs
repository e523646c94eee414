use pippin_tensor::{Activation, Backend, Linear};

use super::token_shift::{self, Shifted};
use super::{Input, Needs, Pass, Place, Rows, join};
use crate::source::{Cut, Source, same};
use crate::spec::check::within;
use crate::{Result, limits};

/// RWKV's feed-forward network, whose input is part of the way to that of the token before:
/// `value(relu(key(x + (before - x) * x_k))²)`.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelMix {
    /// Where its parameters are.
    pub path: &'static str,
    /// Columns of the input.
    pub width: usize,
    /// Width between the two layers.
    pub intermediate_size: usize,
}

#[derive(Debug)]
pub(crate) struct ChannelMixWeights<L, V> {
    shift: V,
    mix: V,
    key: L,
    value: L,
}

impl ChannelMix {
    pub(crate) fn validate(&self) -> Result<()> {
        within("hidden_size", self.width, limits::HIDDEN)?;
        within("intermediate_size", self.intermediate_size, limits::INTERMEDIATE)
    }

    pub(crate) fn needs(&self) -> Needs {
        Needs { mixes: true, states: vec![self.width], ..Needs::default() }
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<ChannelMixWeights<S::Linear, S::Vector>> {
        let &Self { width, intermediate_size, .. } = self;
        let at = join(at, self.path);
        Ok(ChannelMixWeights {
            mix: source.vector(&join(&at, "x_k"), &[width], same)?,
            shift: token_shift::kernels(source, width)?,
            key: source.linear(&join(&at, "key"), [intermediate_size, width], false, Cut::Rows)?,
            value: source.linear(&join(&at, "value"), [hidden, intermediate_size], false, Cut::Columns)?,
        })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &ChannelMixWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let (backend, step) = (pass.backend, pass.step);
        let x = pass.normalised(input)?;
        let past = &mut pass.states[place.states.start];
        let shifted = Shifted::new(backend, x, &weights.shift, past, step)?;
        let x = match input.rows {
            Rows::None => return Ok(None),
            Rows::Outputs => pass.outputs(&shifted.by(&weights.mix)?)?,
            Rows::All => shifted.by(&weights.mix)?,
        };
        let inner = backend.activate(&backend.linear(&x, &weights.key)?, Activation::ReluSquared)?;
        pass.project(&inner, &weights.value, input).map(Some)
    }
}
