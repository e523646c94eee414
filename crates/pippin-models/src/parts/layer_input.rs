use pippin_tensor::{Activation, Backend, Gate, Linear};

use super::{Input, Needs, Pass, Place, join};
use crate::source::{Cut, Source};
use crate::spec::check::{problem, within};
use crate::{Result, limits};

/// What a layer makes of the input that it has of its own: `projection(activation(gate(x)) * input)`.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerInput {
    /// The layer, whose input it reads.
    pub layer: usize,
    /// Width of the input.
    pub width: usize,
    /// The activation of the gate.
    pub activation: Activation,
}

#[derive(Debug)]
pub(crate) struct LayerInputWeights<L, V> {
    gate: L,
    projection: L,
    /// The part has no small parameters.
    _vectors: std::marker::PhantomData<V>,
}

impl LayerInput {
    pub(crate) fn validate(&self) -> Result<()> {
        within("hidden_size_per_layer_input", self.width, limits::HIDDEN)
    }

    pub(crate) fn needs(&self) -> Needs {
        Needs::default()
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<LayerInputWeights<S::Linear, S::Vector>> {
        let mut linear = |path: &str, shape| source.linear(&join(at, path), shape, false, Cut::Whole);
        Ok(LayerInputWeights {
            gate: linear("per_layer_input_gate", [self.width, hidden])?,
            projection: linear("per_layer_projection", [hidden, self.width])?,
            _vectors: std::marker::PhantomData,
        })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &LayerInputWeights<Linear<B>, B::Tensor>,
        _: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let backend = pass.backend;
        let Some(inputs) = &pass.layer_inputs else {
            return Err(problem("hidden_size_per_layer_input", "is not that of the model"));
        };
        let own = backend.columns(inputs, self.layer * self.width..(self.layer + 1) * self.width)?;
        let gate = backend.linear(&pass.normalised(input)?, &weights.gate)?;
        let own = backend.gated(&gate, &own, Gate::Of(self.activation))?;
        pass.project(&own, &weights.projection, input).map(Some)
    }
}
