use std::ops::Range;

use pippin_tensor::{Activation, Backend, Gate, Linear, Norm, ScanInputs, ScanSpec, ScanUpdate};

use super::{Input, Needs, NormSpec, Pass, Place, Rows, join, miscounted};
use crate::source::{Cut, Source, same};
use crate::spec::check::{finite, multiple, within};
use crate::{Result, limits};

/// A gated delta net (<https://arxiv.org/abs/2412.06464>), as Qwen 3 Next has it, or with a decay for each column of keys, as
/// Kimi Linear has it (<https://arxiv.org/abs/2510.26692>).
///
/// Queries, keys and values pass through a short convolution and a SiLU; then queries and keys are brought to unit length,
/// head by head. Each value head has a strength `sigmoid(b)` and a decay `exp(-exp(A_log) softplus(a + dt_bias))` of its own.
/// What queries read from the state is normalised head by head, multiplied by the activation of the gate `z`, and projected.
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
    /// Where its inputs come from.
    pub projections: DeltaProjections,
    /// Whether each column of keys decays by itself, rather than each head. The projection of decays, and their bias, then
    /// have `value_heads * key_dim` rows.
    pub decay_columns: bool,
    /// The logarithm of the fastest decay, which is then `exp(decay_bound * sigmoid(exp(A_log) (a + dt_bias)))`.
    pub decay_bound: Option<f32>,
    /// Factor on strengths: with 2, the state may change its sign along a key.
    pub strength: f32,
    /// Activation of the gate.
    pub gate: Activation,
    /// The norm of what is read, over each head.
    pub norm: NormSpec,
    /// The output projection.
    pub output: &'static str,
}

/// Where the inputs of a gated delta net come from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DeltaProjections {
    /// `in_proj_qkvz` has, for each key head, the rows of its query, its key, its values and their gates; `in_proj_ba` the
    /// strengths of its value heads and their decays.
    Interleaved,
    /// Each has a projection.
    Apart {
        /// Queries, keys and values: a projection and a convolution for all of them, or for each.
        mixed: &'static [(&'static str, &'static str)],
        /// The gate.
        gate: DeltaInput,
        /// The strengths.
        strength: &'static str,
        /// The decays.
        decay: DeltaInput,
    },
}

/// One input of a gated delta net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeltaInput {
    /// A linear layer.
    Linear(&'static str),
    /// Two, with a vector of some width between them.
    LowRank([&'static str; 2], usize),
}

/// Added to the squared length of queries and keys before they are divided by it.
const LENGTH_EPS: f32 = 1e-6;

#[derive(Debug)]
pub(crate) struct GatedDeltaWeights<L, V> {
    /// Queries, keys and values, each of all heads, and the kernels of their convolution: all together, or each.
    mixed: Vec<(L, V)>,
    /// One layer, or two.
    gate: Vec<L>,
    strength: L,
    decay: Vec<L>,
    decay_bias: V,
    /// `-exp(A_log)`, or `exp(A_log)` if decays have a bound.
    decay_rate: V,
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
        if let DeltaProjections::Apart { gate, decay, .. } = &self.projections {
            for input in [gate, decay] {
                if let DeltaInput::LowRank(_, rank) = input {
                    within("the rank of gates and decays", *rank, limits::HIDDEN)?;
                }
            }
        }
        finite("the bound of decays", self.decay_bound.unwrap_or(0.0))?;
        self.norm.validate()
    }

    pub(crate) fn needs(&self) -> Needs {
        let mut states: Vec<usize> =
            self.mixed_widths().into_iter().map(|width| (self.taps - 1) * width).collect();
        states.push(self.scan().state_columns());
        Needs { mixes: true, states, ..Needs::default() }
    }

    /// Columns of the keys, or the queries.
    fn key_width(&self) -> usize {
        self.key_heads * self.key_dim
    }

    fn value_width(&self) -> usize {
        self.value_heads * self.value_dim
    }

    /// Columns of queries, keys and values: of all together, or of each, as they are convolved.
    fn mixed_widths(&self) -> Vec<usize> {
        let (keys, values) = (self.key_width(), self.value_width());
        match &self.projections {
            DeltaProjections::Apart { mixed, .. } if mixed.len() == 3 => vec![keys, keys, values],
            _ => vec![2 * keys + values],
        }
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
        let &Self { value_heads, key_dim, .. } = self;
        let at = join(at, self.path);
        let times = if self.decay_columns { key_dim } else { 1 };
        let Projected { mixed, gate, strength, decay } = match &self.projections {
            DeltaProjections::Interleaved => self.interleaved(source, &at, hidden)?,
            DeltaProjections::Apart { mixed, gate, strength, decay } => {
                let mut linears = Vec::new();
                for ((projection, convolution), width) in mixed.iter().zip(self.mixed_widths()) {
                    let linear = source.linear(&join(&at, projection), [width, hidden], false, Cut::Rows)?;
                    linears.push((linear, source.kernels(&join(&at, convolution), width, self.taps)?));
                }
                let mut stages = |input: &DeltaInput, rows: usize| -> Result<Vec<S::Linear>> {
                    match *input {
                        DeltaInput::Linear(name) => {
                            Ok(vec![source.linear(&join(&at, name), [rows, hidden], false, Cut::Rows)?])
                        }
                        DeltaInput::LowRank([down, up], rank) => Ok(vec![
                            source.linear(&join(&at, down), [rank, hidden], false, Cut::Whole)?,
                            source.linear(&join(&at, up), [rows, rank], false, Cut::Rows)?,
                        ]),
                    }
                };
                let gate = stages(gate, self.value_width())?;
                let decay = stages(decay, value_heads * times)?;
                let strength =
                    source.linear(&join(&at, strength), [value_heads, hidden], false, Cut::Rows)?;
                Projected { mixed: linears, gate, strength, decay }
            }
        };
        // A head's length is the root of its mean square, times that of its dimension; queries have the usual factor of
        // attention besides.
        let (width, root) = (self.key_width(), (key_dim as f32).sqrt());
        let factors =
            source.constant([1, 2 * width], |i| if i < width { root.powi(-2) } else { root.recip() })?;
        let rate: fn(f32) -> f32 = if self.decay_bound.is_some() { f32::exp } else { |log| -log.exp() };
        let output = [hidden, self.value_width()];
        Ok(GatedDeltaWeights {
            unit: Norm::rms(key_dim, LENGTH_EPS / key_dim as f32, factors),
            mixed,
            gate,
            strength,
            decay,
            decay_bias: source.vector(&join(&at, "dt_bias"), &[value_heads * times], same)?,
            decay_rate: source.repeated(&join(&at, "A_log"), value_heads, times, rate)?,
            norm: self.norm.weights(source, &at, self.value_dim)?,
            output: source.linear(&join(&at, self.output), output, false, Cut::Columns)?,
        })
    }

    /// The projections of [`DeltaProjections::Interleaved`].
    fn interleaved<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<Projected<S::Linear, S::Vector>> {
        let &Self { value_heads, key_heads, key_dim, value_dim, .. } = self;
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
        let both = source.split(&join(at, "in_proj_qkvz"), shape, false, &parts, Cut::Rows)?;
        let [mixed, gate] =
            <[S::Linear; 2]>::try_from(both).map_err(|both| miscounted("split", 2, both.len()))?;
        let parts = [rows(2 * shared, 0, shared), rows(2 * shared, shared, shared)];
        let shape = [2 * value_heads, hidden];
        let both = source.split(&join(at, "in_proj_ba"), shape, false, &parts, Cut::Rows)?;
        let [strength, decay] =
            <[S::Linear; 2]>::try_from(both).map_err(|both| miscounted("split", 2, both.len()))?;
        let width = 2 * self.key_width() + self.value_width();
        let kernels = source.kernels(&join(at, "conv1d"), width, self.taps)?;
        Ok(Projected { mixed: vec![(mixed, kernels)], gate: vec![gate], strength, decay: vec![decay] })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &GatedDeltaWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let (backend, step, count) = (pass.backend, pass.step, weights.mixed.len());
        let mut linears: Vec<&Linear<B>> = weights.mixed.iter().map(|(linear, _)| linear).collect();
        linears.push(&weights.strength);
        linears.extend(weights.gate.first());
        linears.extend(weights.decay.first());
        let mut outputs = backend.norm_linears(input.x, input.norm, &linears)?;
        let mixed: Vec<B::Tensor> = outputs.drain(..count.min(outputs.len())).collect();
        let [strength, gate, decay] = <[B::Tensor; 3]>::try_from(outputs)
            .map_err(|rest| miscounted("norm_linears", count + 3, count + rest.len()))?;
        let Some((state, pasts)) = pass.states[place.states.clone()].split_last_mut() else {
            return Err(miscounted("states", count + 1, place.states.len()));
        };

        let mut convolved = Vec::new();
        for ((mixed, (_, kernels)), past) in mixed.iter().zip(&weights.mixed).zip(pasts) {
            let mixed = backend.causal_convolution(mixed, kernels, None, past, step)?;
            convolved.push(backend.activate(&mixed, Activation::Silu)?);
        }
        let width = self.key_width();
        let (both, values) = match convolved.as_slice() {
            [all] => {
                let both = backend.columns(all, 0..2 * width)?;
                (both, backend.columns(all, 2 * width..2 * width + self.value_width())?)
            }
            [queries, keys, values] => (backend.join(&[queries, keys])?, values.clone()),
            others => return Err(miscounted("convolutions", count, others.len())),
        };
        let both = backend.norm(&both, &weights.unit)?;
        let queries = backend.columns(&both, 0..width)?;
        let keys = backend.columns(&both, width..2 * width)?;

        // The second of two layers.
        let rest = |x: B::Tensor, stages: &[Linear<B>]| match stages.get(1) {
            Some(second) => backend.linear(&x, second),
            None => Ok(x),
        };
        let mut beta = backend.activate(&strength, Activation::Sigmoid)?;
        if self.strength != 1.0 {
            beta = backend.scale(&beta, self.strength, 0.0)?;
        }
        let decay = self.decay(backend, &rest(decay, &weights.decay)?, weights)?;
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
        let y = backend.gated(&rest(gate, &weights.gate)?, &y, Gate::Of(self.gate))?;
        pass.finish(&y, &weights.output, input)
    }

    fn decay<B: Backend>(
        &self,
        backend: &B,
        logits: &B::Tensor,
        weights: &GatedDeltaWeights<Linear<B>, B::Tensor>,
    ) -> Result<B::Tensor> {
        let logits = backend.add(logits, &weights.decay_bias)?;
        let log = match self.decay_bound {
            Some(bound) => {
                let share =
                    backend.activate(&backend.mul(&logits, &weights.decay_rate)?, Activation::Sigmoid)?;
                backend.scale(&share, bound, 0.0)?
            }
            None => backend.mul(&backend.activate(&logits, Activation::Softplus)?, &weights.decay_rate)?,
        };
        Ok(backend.activate(&log, Activation::Exp)?)
    }
}

/// The projections of a gated delta net.
struct Projected<L, V> {
    mixed: Vec<(L, V)>,
    gate: Vec<L>,
    strength: L,
    decay: Vec<L>,
}
