use pippin_tensor::{Activation, Backend, Gate, Linear, Norm, ScanInputs, ScanSpec, ScanUpdate};

use super::{Input, Needs, NormSpec, Pass, Place, Rows, join, miscounted};
use crate::source::{Cut, Source, same};
use crate::spec::check::{multiple, problem, within};
use crate::{Result, limits};

/// A selective state space (Mamba 2, <https://arxiv.org/abs/2405.21060>).
///
/// One matrix projects the input to a gate, to `x`, `B` and `C`, which pass through a short convolution and a SiLU
/// together, and to a time step `dt` for each head. A head's state decays by `exp(-exp(A_log) dt)` and has `dt x Bᵀ` added;
/// `C` reads it, and `D x` is added to what it reads. That is multiplied by the SiLU of the gate, normalised, and projected.
#[derive(Clone, Debug, PartialEq)]
pub struct StateSpace {
    /// Where its parameters are.
    pub path: &'static str,
    /// Heads.
    pub heads: usize,
    /// Dimension of a head of `x`.
    pub head_dim: usize,
    /// Groups of heads that share `B` and `C`; divides `heads`.
    pub groups: usize,
    /// Dimension of `B` and `C`.
    pub state_size: usize,
    /// Taps of the convolution.
    pub taps: usize,
    /// Whether the first projection has a bias.
    pub bias: bool,
    /// Whether the last one has.
    pub output_bias: bool,
    /// Whether the convolution has one.
    pub conv_bias: bool,
    /// What time steps are clamped to; the second may be infinite.
    pub time_step_limit: [f32; 2],
    /// The norm of the result.
    pub norm: Option<GatedNorm>,
}

/// The norm of what a state space reads, together with its gate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GatedNorm {
    /// Added to the mean square.
    pub eps: f32,
    /// Equal parts of the columns, each of which is normalised by itself.
    pub groups: usize,
    /// Whether the gate comes after the norm.
    pub before_gate: bool,
}

#[derive(Debug)]
pub(crate) struct StateSpaceWeights<L, V> {
    gate: L,
    mixed: L,
    time_step: L,
    kernels: V,
    kernels_bias: Option<V>,
    time_step_bias: V,
    /// `-exp(A_log)`, one for each head.
    decay: V,
    /// `D`, one for each column of `x`.
    skip: V,
    norm: Option<Norm<V>>,
    output: L,
}

impl StateSpace {
    pub(crate) fn validate(&self) -> Result<()> {
        within("num_heads", self.heads, limits::HEADS)?;
        within("head_dim", self.head_dim, limits::HEAD_DIM)?;
        within("n_groups", self.groups, limits::HEADS)?;
        multiple("n_groups", self.groups, self.heads, "heads")?;
        within("state_size", self.state_size, limits::HEAD_DIM)?;
        within("conv_kernel", self.taps, limits::TAPS)?;
        let [least, most] = self.time_step_limit;
        if !(least >= 0.0 && least.is_finite() && most > least) {
            let words = format!("must be two numbers, from 0 on and ascending, found {least} and {most}");
            return Err(problem("time_step_limit", words));
        }
        if let Some(norm) = &self.norm {
            within("n_groups", norm.groups, limits::HEADS)?;
            multiple("n_groups", norm.groups, self.width(), "columns of the gated norm")?;
            NormSpec::rms("norm", norm.eps).validate()?;
        }
        Ok(())
    }

    pub(crate) fn needs(&self) -> Needs {
        let states = vec![(self.taps - 1) * self.conv_width(), self.scan().state_columns()];
        Needs { mixes: true, states, ..Needs::default() }
    }

    /// Columns of `x`.
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of `x`, `B` and `C` together.
    fn conv_width(&self) -> usize {
        self.width() + 2 * self.groups * self.state_size
    }

    fn scan(&self) -> ScanSpec {
        let &Self { heads, head_dim, groups, state_size, .. } = self;
        ScanSpec { heads, key_heads: groups, key_dim: state_size, value_dim: head_dim }
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<StateSpaceWeights<S::Linear, S::Vector>> {
        let &Self { heads, bias, .. } = self;
        let (width, conv) = (self.width(), self.conv_width());
        let at = join(at, self.path);
        let rows = width + conv + heads;
        let parts = [vec![0..width], vec![width..width + conv], vec![width + conv..rows]];
        let projections = source.split(&join(&at, "in_proj"), [rows, hidden], bias, &parts, Cut::Rows)?;
        let [gate, mixed, time_step] = <[S::Linear; 3]>::try_from(projections)
            .map_err(|projections| miscounted("split", 3, projections.len()))?;
        let kernels = source.kernels(&join(&at, "conv1d"), conv, self.taps)?;
        let kernels_bias = match self.conv_bias {
            true => Some(source.vector(&join(&at, "conv1d.bias"), &[conv], same)?),
            false => None,
        };
        Ok(StateSpaceWeights {
            gate,
            mixed,
            time_step,
            kernels,
            kernels_bias,
            time_step_bias: source.vector(&join(&at, "dt_bias"), &[heads], same)?,
            decay: source.vector(&join(&at, "A_log"), &[heads], |log| -log.exp())?,
            norm: match &self.norm {
                Some(GatedNorm { eps, groups, .. }) => {
                    Some(NormSpec::rms("norm", *eps).weights_of(source, &at, width / groups, &[width])?)
                }
                None => None,
            },
            output: source.linear(&join(&at, "out_proj"), [hidden, width], self.output_bias, Cut::Columns)?,
            skip: source.repeated(&join(&at, "D"), heads, self.head_dim, same)?,
        })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &StateSpaceWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let &Self { heads, head_dim, groups, state_size, .. } = self;
        let (backend, step, width) = (pass.backend, pass.step, self.width());
        let linears = [&weights.gate, &weights.mixed, &weights.time_step];
        let outputs = backend.norm_linears(input.x, input.norm, &linears)?;
        let [gate, mixed, time_step] = outputs.as_slice() else {
            return Err(miscounted("norm_linears", 3, outputs.len()));
        };
        let [past, state] = &mut pass.states[place.states.clone()] else {
            return Err(miscounted("states", 2, place.states.len()));
        };

        let mixed =
            backend.causal_convolution(mixed, &weights.kernels, weights.kernels_bias.as_ref(), past, step)?;
        let mixed = backend.activate(&mixed, Activation::Silu)?;
        let x = backend.columns(&mixed, 0..width)?;
        let keys = backend.columns(&mixed, width..width + groups * state_size)?;
        let queries = backend.columns(&mixed, width + groups * state_size..self.conv_width())?;

        let time_step = backend.add(time_step, &weights.time_step_bias)?;
        let time_step =
            clamped(backend, backend.activate(&time_step, Activation::Softplus)?, self.time_step_limit)?;
        let decay = backend.activate(&backend.mul(&time_step, &weights.decay)?, Activation::Exp)?;
        let [rows, _] = backend.shape(&x);
        let by_head = backend.reshape(&x, [rows * heads, head_dim])?;
        let values = backend.mul(&by_head, &backend.reshape(&time_step, [rows * heads, 1])?)?;
        let values = backend.reshape(&values, [rows, width])?;
        let inputs = ScanInputs {
            queries: &queries,
            keys: &keys,
            values: &values,
            decay: &decay,
            update: ScanUpdate::Add,
        };
        let read = backend.scan(&inputs, &self.scan(), state, step)?;
        if input.rows == Rows::None {
            return Ok(None);
        }

        let y = backend.add(&read, &backend.mul(&x, &weights.skip)?)?;
        let gated = |y: &B::Tensor| backend.gated(gate, y, Gate::Of(Activation::Silu));
        let y = match (&self.norm, &weights.norm) {
            (Some(GatedNorm { before_gate: true, .. }), Some(norm)) => gated(&backend.norm(&y, norm)?)?,
            (_, Some(norm)) => backend.norm(&gated(&y)?, norm)?,
            (_, None) => gated(&y)?,
        };
        pass.finish(&y, &weights.output, input)
    }
}

/// Time steps within their limits: `x + max(least - x, 0)`, and likewise from above. What is within them stays as it is;
/// published models have no limits that a softplus could exceed.
fn clamped<B: Backend>(backend: &B, mut x: B::Tensor, [least, most]: [f32; 2]) -> Result<B::Tensor> {
    if least > 0.0 {
        let lacking = backend.activate(&backend.scale(&x, -1.0, least)?, Activation::Relu)?;
        x = backend.add(&x, &lacking)?;
    }
    if most.is_finite() {
        let excess = backend.activate(&backend.scale(&x, 1.0, -most)?, Activation::Relu)?;
        x = backend.add(&x, &backend.scale(&excess, -1.0, 0.0)?)?;
    }
    Ok(x)
}
