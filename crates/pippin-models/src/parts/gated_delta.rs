use std::ops::Range;

use pippin_tensor::{Activation, Backend, Gate, Linear, Norm, ScanInputs, ScanSpec, ScanUpdate};

use super::{Input, Needs, NormSpec, Pass, Place, Rows, join, miscounted};
use crate::source::{Cut, Source, same};
use crate::spec::check::{multiple, within};
use crate::{Result, limits};

/// A gated delta net (<https://arxiv.org/abs/2412.06464>), as Qwen 3 Next has it.
///
/// Queries, keys and values pass through a short convolution and a SiLU together; then queries and keys are brought to unit
/// length, head by head. Each value head has a strength `sigmoid(b)` and a decay `exp(-exp(A_log) softplus(a + dt_bias))`
/// of its own. What queries read from the state is normalised head by head, multiplied by the SiLU of the gate `z`, and
/// projected.
#[derive(Clone, Debug, PartialEq)]
pub struct GatedDelta {
    /// Where its parameters are.
    pub path: &'static str,
    /// Heads of values.
    pub value_heads: usize,
    /// Heads of queries and keys; divides `value_heads`.
    pub key_heads: usize,
    /// Dimension of a head of queries and keys.
    pub key_dim: usize,
    /// Dimension of a head of values.
    pub value_dim: usize,
    /// Taps of the convolution.
    pub taps: usize,
    /// Epsilon of the gated norm.
    pub norm_eps: f32,
}

/// Added to the squared length of queries and keys before they are divided by it.
const LENGTH_EPS: f32 = 1e-6;

#[derive(Debug)]
pub(crate) struct GatedDeltaWeights<L, V> {
    /// Queries, keys and values, each of all heads.
    mixed: L,
    gate: L,
    strength: L,
    decay: L,
    decay_bias: V,
    /// `-exp(A_log)`.
    decay_rate: V,
    kernels: V,
    /// Brings queries and keys to unit length, and has the queries' factor.
    unit: Norm<V>,
    norm: Norm<V>,
    output: L,
}

impl GatedDelta {
    pub(crate) fn validate(&self) -> Result<()> {
        within("linear_num_value_heads", self.value_heads, limits::HEADS)?;
        within("linear_num_key_heads", self.key_heads, limits::HEADS)?;
        multiple("linear_num_key_heads", self.key_heads, self.value_heads, "value heads")?;
        within("linear_key_head_dim", self.key_dim, limits::HEAD_DIM)?;
        within("linear_value_head_dim", self.value_dim, limits::HEAD_DIM)?;
        within("linear_conv_kernel_dim", self.taps, limits::TAPS)?;
        self.norm().validate()
    }

    pub(crate) fn needs(&self) -> Needs {
        let states = vec![(self.taps - 1) * self.mixed_width(), self.scan().state_columns()];
        Needs { mixes: true, states, ..Needs::default() }
    }

    /// Columns of the keys, or the queries.
    fn key_width(&self) -> usize {
        self.key_heads * self.key_dim
    }

    fn value_width(&self) -> usize {
        self.value_heads * self.value_dim
    }

    fn mixed_width(&self) -> usize {
        2 * self.key_width() + self.value_width()
    }

    fn norm(&self) -> NormSpec {
        NormSpec::rms("norm", self.norm_eps)
    }

    fn scan(&self) -> ScanSpec {
        let &Self { value_heads: heads, key_heads, key_dim, value_dim, .. } = self;
        ScanSpec { heads, key_heads, key_dim, value_dim }
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<GatedDeltaWeights<S::Linear, S::Vector>> {
        let &Self { value_heads, key_heads, key_dim, value_dim, .. } = self;
        let at = join(at, self.path);
        // Both matrices have, for each key head, the rows of its query, its key, its values and their gates; the strengths of
        // its value heads and their decays.
        let shared = value_heads / key_heads;
        let rows = |each: usize, first: usize, len: usize| -> Vec<Range<usize>> {
            (0..key_heads).map(|head| head * each + first).map(|start| start..start + len).collect()
        };
        let values = shared * value_dim;
        let each = 2 * (key_dim + values);
        let queries_keys_values = [(0, key_dim), (key_dim, key_dim), (2 * key_dim, values)];
        let mixed = queries_keys_values.into_iter().flat_map(|(first, len)| rows(each, first, len)).collect();
        let parts = [mixed, rows(each, 2 * key_dim + values, values)];
        let shape = [each * key_heads, hidden];
        let both = source.split(&join(&at, "in_proj_qkvz"), shape, false, &parts, Cut::Rows)?;
        let [mixed, gate] =
            <[S::Linear; 2]>::try_from(both).map_err(|both| miscounted("split", 2, both.len()))?;
        let parts = [rows(2 * shared, 0, shared), rows(2 * shared, shared, shared)];
        let shape = [2 * value_heads, hidden];
        let both = source.split(&join(&at, "in_proj_ba"), shape, false, &parts, Cut::Rows)?;
        let [strength, decay] =
            <[S::Linear; 2]>::try_from(both).map_err(|both| miscounted("split", 2, both.len()))?;
        // A head's length is the root of its mean square, times that of its dimension; queries have the usual factor of
        // attention besides.
        let (width, root) = (self.key_width(), (key_dim as f32).sqrt());
        let factors =
            source.constant([1, 2 * width], |i| if i < width { root.powi(-2) } else { root.recip() })?;
        let unit = Norm::rms(key_dim, LENGTH_EPS / key_dim as f32, factors);
        Ok(GatedDeltaWeights {
            unit,
            mixed,
            gate,
            strength,
            decay,
            decay_bias: source.vector(&join(&at, "dt_bias"), &[value_heads], same)?,
            decay_rate: source.vector(&join(&at, "A_log"), &[value_heads], |log| -log.exp())?,
            kernels: source.kernels(&join(&at, "conv1d"), self.mixed_width(), self.taps)?,
            norm: self.norm().weights(source, &at, value_dim)?,
            output: source.linear(
                &join(&at, "out_proj"),
                [hidden, self.value_width()],
                false,
                Cut::Columns,
            )?,
        })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &GatedDeltaWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let (backend, step) = (pass.backend, pass.step);
        let linears = [&weights.mixed, &weights.gate, &weights.strength, &weights.decay];
        let outputs = backend.norm_linears(input.x, input.norm, &linears)?;
        let [mixed, gate, strength, decay] = outputs.as_slice() else {
            return Err(miscounted("norm_linears", 4, outputs.len()));
        };
        let [past, state] = &mut pass.states[place.states.clone()] else {
            return Err(miscounted("states", 2, place.states.len()));
        };

        let mixed = backend.causal_convolution(mixed, &weights.kernels, None, past, step)?;
        let mixed = backend.activate(&mixed, Activation::Silu)?;
        let width = self.key_width();
        let both = backend.norm(&backend.columns(&mixed, 0..2 * width)?, &weights.unit)?;
        let queries = backend.columns(&both, 0..width)?;
        let keys = backend.columns(&both, width..2 * width)?;
        let values = backend.columns(&mixed, 2 * width..self.mixed_width())?;

        let beta = backend.activate(strength, Activation::Sigmoid)?;
        let decay = backend.activate(&backend.add(decay, &weights.decay_bias)?, Activation::Softplus)?;
        let decay = backend.activate(&backend.mul(&decay, &weights.decay_rate)?, Activation::Exp)?;
        let inputs = ScanInputs {
            queries: &queries,
            keys: &keys,
            values: &values,
            decay: &decay,
            update: ScanUpdate::Delta { beta: &beta },
        };
        let read = backend.scan(&inputs, &self.scan(), state, step)?;
        if input.rows == Rows::None {
            return Ok(None);
        }

        let y = backend.norm(&read, &weights.norm)?;
        let y = backend.gated(gate, &y, Gate::Of(Activation::Silu))?;
        pass.finish(&y, &weights.output, input)
    }
}
