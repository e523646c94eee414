use pippin_tensor::{Activation, Backend, Gate, Linear, Norm, Reduction};

use super::{Input, Needs, NormSpec, Pass, Place, join, miscounted};
use crate::source::{Cut, Source, same};
use crate::spec::check::{finite, within};
use crate::{Result, limits};

/// A feed-forward network.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    /// Its form, and what its first layer is called.
    pub form: DenseForm,
    /// The output projection.
    pub down: &'static str,
    /// Width between the two.
    pub intermediate_size: usize,
    /// Whether the projections have biases.
    pub bias: bool,
}

/// The first half of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum DenseForm {
    /// `gate(gate_proj(x), up_proj(x))`.
    Gated {
        /// The projections of gate and of what it is applied to.
        names: [&'static str; 2],
        /// How they are put together.
        gate: Gate,
    },
    /// The same, with the rows of both in one matrix.
    Fused {
        /// The projection.
        name: &'static str,
        /// How the halves are put together.
        gate: Gate,
        /// Which rows are whose.
        rows: FusedRows,
    },
    /// The same as `Gated`, with a norm of what comes out.
    Normed {
        /// The projections of gate and of what it is applied to.
        names: [&'static str; 2],
        /// How they are put together.
        gate: Gate,
        /// The norm.
        norm: NormSpec,
    },
    /// The same as `Gated`, but of the gates only those count that are more than so many standard deviations above their
    /// mean, by what they are above that; the others are zero.
    Sparse {
        /// The projections of gate and of what it is applied to.
        names: [&'static str; 2],
        /// How they are put together.
        gate: Gate,
        /// Standard deviations above the mean.
        cutoff: f32,
    },
    /// `activation(up(x))`.
    Plain {
        /// The projection.
        name: &'static str,
        /// The activation.
        activation: Activation,
    },
    /// The same with xIELU (<https://arxiv.org/abs/2411.13010>), whose slopes and curvatures are learned:
    /// `beta * x + softplus(alpha_p) * x²` above zero, and `beta * x + (beta + softplus(alpha_n)) * (exp(x) - 1 - x)` below.
    Xielu {
        /// The projection.
        name: &'static str,
        /// `alpha_p`, `alpha_n` and `beta`, a number each.
        parameters: [&'static str; 3],
    },
}

/// The order of rows in a matrix that holds a gate and what it is applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FusedRows {
    /// All rows of the gate, then all others.
    GateFirst,
    /// The others first.
    GateLast,
    /// By turns, beginning with one of the gate.
    Alternating,
}

#[derive(Debug)]
pub(crate) struct DenseWeights<L, V> {
    /// Gate and up, or up alone.
    input: Vec<L>,
    /// The numbers of a learned activation.
    parameters: Vec<V>,
    inner_norm: Option<Norm<V>>,
    down: L,
}

impl Dense {
    /// A gated network under the names that almost every family uses.
    pub(crate) fn gated(intermediate_size: usize, activation: Activation) -> Self {
        Self::gated_as(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"], intermediate_size, activation)
    }

    /// A gated network; the names are those of gate, up and down.
    pub(crate) fn gated_as(
        [gate, up, down]: [&'static str; 3],
        intermediate_size: usize,
        activation: Activation,
    ) -> Self {
        let form = DenseForm::Gated { names: [gate, up], gate: Gate::Of(activation) };
        Self { form, down, intermediate_size, bias: false }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if let DenseForm::Sparse { cutoff, .. } = self.form {
            finite("activation_sparsity_pattern", cutoff)?;
        }
        if let DenseForm::Normed { norm, .. } = self.form {
            norm.validate()?;
        }
        within("intermediate_size", self.intermediate_size, limits::INTERMEDIATE)
    }

    pub(crate) fn needs(&self) -> Needs {
        Needs::default()
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<DenseWeights<S::Linear, S::Vector>> {
        let &Self { intermediate_size: width, bias, .. } = self;
        let mut linear = |name: &str| source.linear(&join(at, name), [width, hidden], bias, Cut::Rows);
        let input = match self.form {
            DenseForm::Gated { names: [gate, up], .. }
            | DenseForm::Normed { names: [gate, up], .. }
            | DenseForm::Sparse { names: [gate, up], .. } => vec![linear(gate)?, linear(up)?],
            DenseForm::Plain { name, .. } | DenseForm::Xielu { name, .. } => vec![linear(name)?],
            DenseForm::Fused { name, rows, .. } => {
                let halves = match rows {
                    FusedRows::GateFirst => [vec![0..width], vec![width..2 * width]],
                    FusedRows::GateLast => [vec![width..2 * width], vec![0..width]],
                    FusedRows::Alternating => {
                        [0, 1].map(|first| (first..2 * width).step_by(2).map(|row| row..row + 1).collect())
                    }
                };
                source.split(&join(at, name), [2 * width, hidden], bias, &halves, Cut::Rows)?
            }
        };
        let parameters = match self.form {
            DenseForm::Xielu { parameters: [above, below, beta], .. } => {
                let softplus: fn(f32) -> f32 = |x| x.max(0.0) + (-x.abs()).exp().ln_1p();
                let numbers = [(above, softplus), (below, softplus), (beta, same)];
                let number = |(name, change)| source.vector(&join(at, name), &[1], change);
                numbers.into_iter().map(number).collect::<Result<_>>()?
            }
            _ => Vec::new(),
        };
        let inner_norm = match self.form {
            DenseForm::Normed { norm, .. } => Some(norm.weights(source, at, width)?),
            _ => None,
        };
        let down = source.linear(&join(at, self.down), [hidden, width], bias, Cut::Columns)?;
        Ok(DenseWeights { input, parameters, inner_norm, down })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &DenseWeights<Linear<B>, B::Tensor>,
        _: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let backend = pass.backend;
        let inner = match (self.form, weights.input.as_slice()) {
            (DenseForm::Gated { gate: kind, .. } | DenseForm::Fused { gate: kind, .. }, [gate, up]) => {
                backend.norm_gated(input.x, input.norm, gate, up, kind)?
            }
            (DenseForm::Normed { gate: kind, .. }, [gate, up]) => {
                let inner = backend.norm_gated(input.x, input.norm, gate, up, kind)?;
                match &weights.inner_norm {
                    Some(norm) => backend.norm(&inner, norm)?,
                    None => inner,
                }
            }
            (DenseForm::Sparse { gate: kind, cutoff, .. }, [gate, up]) => {
                let outputs = backend.norm_linears(input.x, input.norm, &[gate, up])?;
                let [gate, up] = outputs.as_slice() else {
                    return Err(miscounted("norm_linears", 2, outputs.len()));
                };
                let deviation = backend.scale(&backend.reduce(gate, Reduction::Deviation)?, -cutoff, 0.0)?;
                let mean = backend.scale(&backend.reduce(gate, Reduction::Mean)?, -1.0, 0.0)?;
                let above = backend.add(gate, &backend.add(&mean, &deviation)?)?;
                backend.gated(&backend.activate(&above, Activation::Relu)?, up, kind)?
            }
            (DenseForm::Plain { activation, .. }, [up]) => {
                let outputs = backend.norm_linears(input.x, input.norm, &[up])?;
                let [up] = outputs.as_slice() else {
                    return Err(miscounted("norm_linears", 1, outputs.len()));
                };
                backend.activate(up, activation)?
            }
            (DenseForm::Xielu { .. }, [up]) => {
                let outputs = backend.norm_linears(input.x, input.norm, &[up])?;
                let ([x], [above, below, beta]) = (outputs.as_slice(), weights.parameters.as_slice()) else {
                    return Err(miscounted("norm_linears", 1, outputs.len()));
                };
                let squares = backend.mul(&backend.activate(x, Activation::ReluSquared)?, above)?;
                let excess = backend.activate(x, Activation::ExpExcess)?;
                let linear = backend.mul(&backend.add(x, &excess)?, beta)?;
                backend.add(&backend.add(&squares, &backend.mul(&excess, below)?)?, &linear)?
            }
            (_, input) => return Err(miscounted("split", 2, input.len())),
        };
        pass.project(&inner, &weights.down, input).map(Some)
    }
}
