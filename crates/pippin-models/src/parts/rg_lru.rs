use pippin_tensor::{Activation, Backend, Linear, ScanInputs, ScanSpec, ScanUpdate};

use super::{Input, Needs, Pass, Place, Rows, join, miscounted};
use crate::source::{Cut, Source, same};
use crate::spec::check::{multiple, within};
use crate::{Result, limits};

/// A real-gated linear recurrent unit behind a short convolution (Griffin, <https://arxiv.org/abs/2402.19427>).
///
/// One projection is convolved and becomes the unit's input `x`, the other the gate of its output. Each column's state is a
/// number: `state = a * state + sqrt(1 - a²) * x * sigmoid(i)` with `log a = -8 sigmoid(r) softplus(recurrent_param)`, where
/// `i` and `r` are made of `x` by matrices that are diagonal in blocks. A sequence's first token has 1 in place of the root.
#[derive(Clone, Debug, PartialEq)]
pub struct RgLru {
    /// Where its parameters are.
    pub path: &'static str,
    /// Columns of the unit.
    pub width: usize,
    /// Blocks of the matrices; divides `width`.
    pub heads: usize,
    /// Taps of the convolution.
    pub taps: usize,
}

/// Added to the logarithm of `a²` of a sequence's first token: nothing is left of it.
const FIRST: f32 = -1e4;

#[derive(Debug)]
pub(crate) struct RgLruWeights<L, V> {
    input: L,
    output_gate: L,
    kernels: V,
    kernels_bias: V,
    input_gate: L,
    input_gate_bias: V,
    recurrent_gate: L,
    recurrent_gate_bias: V,
    /// `-8 softplus(recurrent_param)`
    log_decay: V,
    /// [`FIRST`]
    first: V,
    output: L,
}

impl RgLru {
    pub(crate) fn validate(&self) -> Result<()> {
        within("lru_width", self.width, limits::HIDDEN)?;
        within("num_attention_heads", self.heads, limits::HEADS)?;
        multiple("num_attention_heads", self.heads, self.width, "columns of the recurrent unit")?;
        within("conv1d_width", self.taps, limits::TAPS)
    }

    pub(crate) fn needs(&self) -> Needs {
        let states = vec![self.taps.saturating_sub(1).saturating_mul(self.width), self.width];
        Needs { mixes: true, states, routes: Some(self.heads), ..Needs::default() }
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<RgLruWeights<S::Linear, S::Vector>> {
        let &Self { width, heads, .. } = self;
        let at = join(at, self.path);
        let block = width / heads;
        let input = source.linear(&join(&at, "linear_x"), [width, hidden], true, Cut::Rows)?;
        let output_gate = source.linear(&join(&at, "linear_y"), [width, hidden], true, Cut::Rows)?;
        let kernels = source.kernels(&join(&at, "conv_1d"), width, self.taps)?;
        let unit = join(&at, "rg_lru");
        let mut gate = |name: &str| -> Result<(S::Linear, S::Vector)> {
            let weight = source.turned(&format!("{unit}.{name}_weight"), [heads, block, block])?;
            Ok((weight, source.vector(&format!("{unit}.{name}_bias"), &[heads, block], same)?))
        };
        let (input_gate, input_gate_bias) = gate("input_gate")?;
        let (recurrent_gate, recurrent_gate_bias) = gate("recurrent_gate")?;
        let log_decay = |parameter: f32| -8.0 * (parameter.max(0.0) + (-parameter.abs()).exp().ln_1p());
        Ok(RgLruWeights {
            input,
            output_gate,
            kernels,
            kernels_bias: source.vector(&join(&at, "conv_1d.bias"), &[width], same)?,
            input_gate,
            input_gate_bias,
            recurrent_gate,
            recurrent_gate_bias,
            log_decay: source.vector(&join(&unit, "recurrent_param"), &[width], log_decay)?,
            first: source.constant([1, 1], |_| FIRST)?,
            output: source.linear(&join(&at, "linear_out"), [hidden, width], true, Cut::Columns)?,
        })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &RgLruWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let &Self { width, heads, .. } = self;
        let (backend, step, routes) = (pass.backend, pass.step, &pass.routes[place.routes]);
        let linears = [&weights.input, &weights.output_gate];
        let outputs = backend.norm_linears(input.x, input.norm, &linears)?;
        let [x, output_gate] = outputs.as_slice() else {
            return Err(miscounted("norm_linears", 2, outputs.len()));
        };
        let [past, state] = &mut pass.states[place.states.clone()] else {
            return Err(miscounted("states", 2, place.states.len()));
        };
        let x = backend.causal_convolution(x, &weights.kernels, Some(&weights.kernels_bias), past, step)?;

        let [rows, _] = backend.shape(&x);
        let by_block = backend.reshape(&x, [rows * heads, width / heads])?;
        let gate = |weight: &Linear<B>, bias: &B::Tensor| -> Result<B::Tensor> {
            let gate = backend.gathered_matmul(&by_block, &weight.weight, heads, routes)?;
            let gate = backend.add(&backend.reshape(&gate, [rows, width])?, bias)?;
            Ok(backend.activate(&gate, Activation::Sigmoid)?)
        };
        let values = backend.mul(&x, &gate(&weights.input_gate, &weights.input_gate_bias)?)?;
        let recurrent = gate(&weights.recurrent_gate, &weights.recurrent_gate_bias)?;
        let log_decay = backend.mul(&recurrent, &weights.log_decay)?;
        let decay = backend.activate(&log_decay, Activation::Exp)?;
        // Rows beyond the first of one row are zeros.
        let first = backend.select_rows(&weights.first, &step.indices)?;
        let square = backend.add(&backend.scale(&log_decay, 2.0, 0.0)?, &first)?;
        let square = backend.activate(&square, Activation::Exp)?;
        let factor = backend.activate(&backend.scale(&square, -1.0, 1.0)?, Activation::Sqrt)?;
        let queries = backend.activate(output_gate, Activation::GeluTanh)?;

        // A head for each column: keys are factors on what is added, queries are factors on what is read.
        let spec = ScanSpec { heads: width, key_heads: width, key_dim: 1, value_dim: 1 };
        let inputs = ScanInputs {
            queries: &queries,
            keys: &factor,
            values: &values,
            decay: &decay,
            update: ScanUpdate::Add,
        };
        let y = backend.scan(&inputs, &spec, state, step)?;
        if input.rows == Rows::None {
            return Ok(None);
        }
        pass.finish(&y, &weights.output, input)
    }
}
