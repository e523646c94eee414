//! Inputs of each layer's own, as Gemma 3n and the small Gemma 4 have them: every token id has a row in a table for each
//! layer, to which a projection of the token's embedding is added. [`LayerInput`](crate::parts::LayerInput) is the part that
//! reads them.

use pippin_tensor::{Backend, Linear, Norm};

use crate::parts::{NormSpec, join};
use crate::source::{Cut, Source};
use crate::spec::check::within;
use crate::{Result, limits};

/// What the layers' own inputs are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerInputs {
    /// Where their parameters are.
    pub path: String,
    /// Width of a layer's input.
    pub width: usize,
    /// Token ids that have inputs of their own; all others have those of token 0.
    pub vocab: usize,
    /// Epsilon of the norm.
    pub eps: f32,
}

/// The weights that they are made with.
#[derive(Debug)]
pub(crate) struct LayerInputsWeights<L, V> {
    table: L,
    /// For ids beyond those that have inputs of their own: ones for each that has, and the first's.
    beyond: Option<(V, L)>,
    projection: L,
    norm: Norm<V>,
}

impl LayerInputs {
    pub(crate) fn validate(&self) -> Result<()> {
        within("hidden_size_per_layer_input", self.width, limits::HIDDEN)?;
        within("vocab_size_per_layer_input", self.vocab, limits::VOCAB)?;
        NormSpec::bare(self.eps).validate()
    }

    /// Reads the weights, in a model of some layers that is `hidden` wide.
    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        layers: usize,
        vocab: usize,
        hidden: usize,
    ) -> Result<LayerInputsWeights<S::Linear, S::Vector>> {
        let path = |name: &str| join(&self.path, name);
        let shape = [self.vocab, layers * self.width];
        let table = source.linear(&path("embed_tokens_per_layer"), shape, false, Cut::Whole)?;
        let beyond = match vocab > self.vocab {
            true => Some((
                source.constant([self.vocab, 1], |_| 1.0)?,
                source.first_row(&path("embed_tokens_per_layer"), shape)?,
            )),
            false => None,
        };
        let projection =
            source.linear(&path("per_layer_model_projection"), [shape[1], hidden], false, Cut::Whole)?;
        // The reference divides by the root of the hidden size before the norm.
        let eps = self.eps * hidden as f32;
        let norm = NormSpec::rms("per_layer_projection_norm", eps).weights(source, &self.path, self.width)?;
        Ok(LayerInputsWeights { table, beyond, projection, norm })
    }

    /// The inputs of all layers, `[rows, layers * width]`, of tokens whose embeddings are `x`.
    pub(crate) fn of<B: Backend>(
        &self,
        weights: &LayerInputsWeights<Linear<B>, B::Tensor>,
        backend: &B,
        tokens: &B::Indices,
        x: &B::Tensor,
    ) -> Result<B::Tensor> {
        let mut inputs = backend.embedding(&weights.table.weight, tokens)?;
        if let Some((known, first)) = &weights.beyond {
            // Ids beyond the table read zeros, of both.
            let unknown = backend.scale(&backend.select_rows(known, tokens)?, -1.0, 1.0)?;
            inputs = backend.linear_add(&unknown, first, &inputs)?;
        }
        let inputs = backend.scale(&inputs, (self.width as f32).sqrt(), 0.0)?;
        let projected = backend.linear(x, &weights.projection)?;
        let inputs = backend.add(&backend.norm(&projected, &weights.norm)?, &inputs)?;
        Ok(backend.scale(&inputs, std::f32::consts::FRAC_1_SQRT_2, 0.0)?)
    }
}
