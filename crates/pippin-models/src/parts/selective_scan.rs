use std::ops::Range;

use pippin_tensor::{Activation, Backend, Gate, Linear, Norm, NormKind, ScanInputs, ScanSpec, ScanUpdate};

use super::{Input, Needs, Pass, Place, Rows, join, miscounted};
use crate::source::{Cut, Source, same};
use crate::spec::check::{positive, within};
use crate::{Result, limits};

/// A selective state space (Mamba, <https://arxiv.org/abs/2312.00752>).
///
/// One matrix projects the input to `x` and a gate. `x` passes through a short convolution and a SiLU, and a second matrix
/// makes of it `B`, `C` and a narrow vector, from which a third makes a time step `dt` for each head. A head's state decays by
/// `exp(-exp(A_log) dt)` and has `dt x Bᵀ` added; `C` reads it, and `D x` is added to what it reads. That is multiplied by the
/// SiLU of the gate and projected.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectiveScan {
    /// Where its parameters are.
    pub path: &'static str,
    /// How heads, and what belongs to them, are laid out.
    pub form: ScanForm,
    /// Heads.
    pub heads: usize,
    /// Dimension of a head of `x`.
    pub head_dim: usize,
    /// Dimension of `B` and `C`.
    pub state_size: usize,
    /// Width of the vector that time steps are made from.
    pub rank: usize,
    /// Taps of the convolution.
    pub taps: usize,
    /// Whether the first projection and the last have biases.
    pub bias: bool,
    /// Whether the convolution has one.
    pub conv_bias: bool,
    /// The norms of the vector that time steps are made from, of `B` and of `C`.
    pub norms: ScanNorms,
}

/// How the heads of a selective state space are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScanForm {
    /// Every column of `x` is a head, and each number of its state has a decay of its own. `x_proj` makes the vector of time
    /// steps, then `B` and `C`; `dt_proj` has a bias.
    Columns,
    /// PLaMo 2: heads have several columns, which come after those of their gate in `in_proj`, and one decay. `bcdt_proj`
    /// makes `B` and `C`, then the vector of time steps; the bias of these is `dt_bias`.
    Heads,
}

/// Norms of what a selective state space is controlled by.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ScanNorms {
    /// None.
    None,
    /// Root-mean-square norms without weights, and what is added to the mean square.
    Bare(f32),
    /// The same with weights: the parameters of time steps, `B` and `C`.
    Weighted([&'static str; 3], f32),
}

#[derive(Debug)]
pub(crate) struct SelectiveScanWeights<L, V> {
    x: L,
    gate: L,
    kernels: V,
    kernels_bias: Option<V>,
    /// What `x` is projected to: the vector of time steps, `B`, `C`.
    control: [L; 3],
    norms: [Option<Norm<V>>; 3],
    time_step: L,
    time_step_bias: Option<V>,
    /// `-exp(A_log)`, one for each head, or for each number of its state.
    decay: V,
    /// `D`, one for each column of `x`.
    skip: V,
    output: L,
}

impl SelectiveScan {
    pub(crate) fn validate(&self) -> Result<()> {
        match self.form {
            ScanForm::Columns => within("intermediate_size", self.heads, limits::INTERMEDIATE)?,
            ScanForm::Heads => within("mamba_num_heads", self.heads, limits::HEADS)?,
        }
        within("hidden_size_per_head", self.head_dim, limits::HEAD_DIM)?;
        within("state_size", self.state_size, limits::HEAD_DIM)?;
        within("time_step_rank", self.rank, limits::HIDDEN)?;
        within("conv_kernel", self.taps, limits::TAPS)?;
        match self.norms {
            ScanNorms::None => Ok(()),
            ScanNorms::Bare(eps) | ScanNorms::Weighted(_, eps) => positive("mixer_rms_eps", eps),
        }
    }

    pub(crate) fn needs(&self) -> Needs {
        let states = vec![(self.taps - 1) * self.width(), self.scan().state_columns()];
        Needs { mixes: true, states, ..Needs::default() }
    }

    /// Columns of `x`.
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn scan(&self) -> ScanSpec {
        let &Self { heads, head_dim, state_size, .. } = self;
        ScanSpec { heads, key_heads: 1, key_dim: state_size, value_dim: head_dim }
    }

    /// The rows of `x` and of the gate in the first projection.
    fn rows(&self) -> [Vec<Range<usize>>; 2] {
        let (width, dim) = (self.width(), self.head_dim);
        match self.form {
            ScanForm::Columns => [vec![0..width], vec![width..2 * width]],
            ScanForm::Heads => [1, 0].map(|part| {
                (0..self.heads).map(|head| (2 * head + part) * dim).map(|start| start..start + dim).collect()
            }),
        }
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<SelectiveScanWeights<S::Linear, S::Vector>> {
        let &Self { heads, state_size, rank, bias, .. } = self;
        let (at, width) = (join(at, self.path), self.width());
        let shape = [2 * width, hidden];
        let both = source.split(&join(&at, "in_proj"), shape, bias, &self.rows(), Cut::Rows)?;
        let [x, gate] =
            <[S::Linear; 2]>::try_from(both).map_err(|both| miscounted("split", 2, both.len()))?;
        let kernels = source.kernels(&join(&at, "conv1d"), width, self.taps)?;
        let kernels_bias = match self.conv_bias {
            true => Some(source.vector(&join(&at, "conv1d.bias"), &[width], same)?),
            false => None,
        };
        // Sizes in the order of rows, and which of these are the time steps', `B`'s and `C`'s.
        let (name, sizes, order) = match self.form {
            ScanForm::Columns => ("x_proj", [rank, state_size, state_size], [0, 1, 2]),
            ScanForm::Heads => ("bcdt_proj", [state_size, state_size, rank], [2, 0, 1]),
        };
        let parts = order.map(|part: usize| {
            let start: usize = sizes[..part].iter().sum();
            vec![start..start + sizes[part]]
        });
        let shape = [rank + 2 * state_size, width];
        let control = source.split(&join(&at, name), shape, false, &parts, Cut::Columns)?;
        let control = <[S::Linear; 3]>::try_from(control).map_err(|all| miscounted("split", 3, all.len()))?;
        let mut norms = [None, None, None];
        for (index, (norm, width)) in norms.iter_mut().zip([rank, state_size, state_size]).enumerate() {
            let (eps, weight) = match self.norms {
                ScanNorms::None => continue,
                ScanNorms::Bare(eps) => (eps, None),
                ScanNorms::Weighted(names, eps) => {
                    (eps, Some(source.vector(&join(&at, names[index]), &[width], same)?))
                }
            };
            *norm = Some(Norm { kind: NormKind::Rms, width, eps, weight, bias: None });
        }
        let by_column = self.form == ScanForm::Columns;
        let time_step = source.linear(&join(&at, "dt_proj"), [heads, rank], by_column, Cut::Rows)?;
        let time_step_bias = match by_column {
            true => None,
            false => Some(source.vector(&join(&at, "dt_bias"), &[heads], same)?),
        };
        let decays = if by_column { vec![heads, state_size] } else { vec![heads] };
        Ok(SelectiveScanWeights {
            x,
            gate,
            kernels,
            kernels_bias,
            control,
            norms,
            time_step,
            time_step_bias,
            decay: source.vector(&join(&at, "A_log"), &decays, |log| -log.exp())?,
            skip: source.repeated(&join(&at, "D"), heads, self.head_dim, same)?,
            output: source.linear(&join(&at, "out_proj"), [hidden, width], bias, Cut::Columns)?,
        })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &SelectiveScanWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let &Self { heads, head_dim, state_size, .. } = self;
        let (backend, step, width) = (pass.backend, pass.step, self.width());
        let outputs = backend.norm_linears(input.x, input.norm, &[&weights.x, &weights.gate])?;
        let [x, gate] = outputs.as_slice() else {
            return Err(miscounted("norm_linears", 2, outputs.len()));
        };
        let [past, state] = &mut pass.states[place.states.clone()] else {
            return Err(miscounted("states", 2, place.states.len()));
        };
        let x = backend.causal_convolution(x, &weights.kernels, weights.kernels_bias.as_ref(), past, step)?;
        let x = backend.activate(&x, Activation::Silu)?;

        let control = |index: usize| -> Result<B::Tensor> {
            let y = backend.linear(&x, &weights.control[index])?;
            Ok(match &weights.norms[index] {
                Some(norm) => backend.norm(&y, norm)?,
                None => y,
            })
        };
        let mut time_step = backend.linear(&control(0)?, &weights.time_step)?;
        if let Some(bias) = &weights.time_step_bias {
            time_step = backend.add(&time_step, bias)?;
        }
        let time_step = backend.activate(&time_step, Activation::Softplus)?;
        let (keys, queries) = (control(1)?, control(2)?);
        let [rows, _] = backend.shape(&x);
        let by_head = backend.reshape(&time_step, [rows * heads, 1])?;
        let decay = match self.form {
            ScanForm::Heads => backend.mul(&time_step, &weights.decay)?,
            ScanForm::Columns => {
                let each = backend.join(&vec![&by_head; state_size])?;
                backend.mul(&backend.reshape(&each, [rows, heads * state_size])?, &weights.decay)?
            }
        };
        let decay = backend.activate(&decay, Activation::Exp)?;
        let values = backend.mul(&backend.reshape(&x, [rows * heads, head_dim])?, &by_head)?;
        let inputs = ScanInputs {
            queries: &queries,
            keys: &keys,
            values: &backend.reshape(&values, [rows, width])?,
            decay: &decay,
            update: ScanUpdate::Add,
        };
        let read = backend.scan(&inputs, &self.scan(), state, step)?;
        if input.rows == Rows::None {
            return Ok(None);
        }

        let y = backend.add(&read, &backend.mul(&x, &weights.skip)?)?;
        let y = backend.gated(gate, &y, Gate::Of(Activation::Silu))?;
        pass.finish(&y, &weights.output, input)
    }
}
