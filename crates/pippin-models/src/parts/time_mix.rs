use pippin_tensor::{
    Activation, Backend, Linear, Norm, NormKind, Reduction, ScanInputs, ScanSpec, ScanUpdate, TensorError,
};

use super::token_shift::{self, Shifted};
use super::{Input, Needs, NormSpec, Pass, Place, Rows, join, miscounted};
use crate::source::{Cut, Source, same};
use crate::spec::check::within;
use crate::{Result, limits};

/// RWKV 7's time mixing (<https://arxiv.org/abs/2503.14456>).
///
/// Each projection's input is part of the way to that of the token before, by a factor for each column. Receptance `r`,
/// key `k` and value `v` are linear; decay `w`, the rate `a` at which what is at a key is replaced, the gate `g`, and how
/// much of the first layer's value is taken in place of `v`, are of low rank. The state of a head becomes
/// `S diag(w) - (S κ) (κ a)ᵀ + v kᵀ`, where `κ` is the direction of `k * k_k`.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeMix {
    /// Where its parameters are.
    pub path: &'static str,
    /// Heads.
    pub heads: usize,
    /// Dimension of a head.
    pub head_dim: usize,
    /// Ranks of decay, rate and gate.
    pub ranks: [usize; 3],
    /// Rank of the factor between the layer's own value and the first layer's; absent in the first layer.
    pub value_rank: Option<usize>,
    /// Epsilon of the norm of each head's output.
    pub norm_eps: f32,
}

/// The logarithm of the fastest decay, -e^-½ to the digits that models were trained with.
const LOG_DECAY: f32 = -0.606_531;
/// The square of the length below which keys are not brought to unit length.
const LEAST_SQUARE: f32 = 1e-14;

#[derive(Debug)]
pub(crate) struct TimeMixWeights<L, V> {
    shift: V,
    /// How far to go to the token before: receptance, decay, key, value, rate, gate.
    mix: [V; 6],
    receptance: L,
    key: L,
    value: L,
    decay: [L; 2],
    rate: [L; 2],
    gate: [L; 2],
    value_mix: Option<[L; 2]>,
    /// `k_k`, and the norm to unit length.
    direction: (V, Norm<V>),
    /// `k_a`
    key_rate: V,
    /// `r_k`
    bonus: V,
    norm: Norm<V>,
    output: L,
}

impl TimeMix {
    pub(crate) fn validate(&self) -> Result<()> {
        within("head_dim", self.head_dim, limits::HEAD_DIM)?;
        within("hidden_size", self.heads, limits::HIDDEN)?;
        within("hidden_size", self.width(), limits::HIDDEN)?;
        let names = ["decay_low_rank_dim", "a_low_rank_dim", "gate_low_rank_dim"];
        for (name, rank) in names.into_iter().zip(self.ranks) {
            within(name, rank, limits::HIDDEN)?;
        }
        if let Some(rank) = self.value_rank {
            within("v_low_rank_dim", rank, limits::HIDDEN)?;
        }
        self.norm().validate()
    }

    pub(crate) fn needs(&self) -> Needs {
        let states = vec![self.width(), self.scan().state_columns()];
        Needs { mixes: true, states, ..Needs::default() }
    }

    fn width(&self) -> usize {
        self.heads.saturating_mul(self.head_dim)
    }

    fn norm(&self) -> NormSpec {
        NormSpec::layer("g_norm", self.norm_eps, true)
    }

    fn scan(&self) -> ScanSpec {
        let &Self { heads, head_dim, .. } = self;
        ScanSpec { heads, key_heads: heads, key_dim: head_dim, value_dim: head_dim }
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<TimeMixWeights<S::Linear, S::Vector>> {
        let &Self { heads, head_dim, ranks: [decay, rate, gate], .. } = self;
        let (at, width) = (join(at, self.path), self.width());
        let mut mix = |name: &str| source.vector(&join(&at, name), &[1, 1, width], same);
        let mix = [mix("x_r")?, mix("x_w")?, mix("x_k")?, mix("x_v")?, mix("x_a")?, mix("x_g")?];
        let mut low_rank = |name: &str, rank: usize, bias: bool| -> Result<[S::Linear; 2]> {
            Ok([
                source.linear(&format!("{at}.{name}.lora.0"), [rank, width], false, Cut::Whole)?,
                source.linear(&format!("{at}.{name}.lora.2"), [width, rank], bias, Cut::Rows)?,
            ])
        };
        let (decay, rate) = (low_rank("w_lora", decay, true)?, low_rank("a_lora", rate, true)?);
        let gate = low_rank("g_lora", gate, false)?;
        let value_mix = self.value_rank.map(|rank| low_rank("v_lora", rank, true)).transpose()?;
        let mut by_head = |name: &str| source.vector(&join(&at, name), &[heads, head_dim], same);
        let (direction, key_rate, bonus) = (by_head("k_k")?, by_head("k_a")?, by_head("r_k")?);
        // The mean square is the squared length over the dimension.
        let dim = head_dim as f32;
        let unit = Norm {
            kind: NormKind::Rms,
            width: head_dim,
            eps: LEAST_SQUARE / dim,
            weight: Some(source.constant([1, head_dim], |_| dim.powf(-0.5))?),
            bias: None,
        };
        let mut linear = |name: &str| source.linear(&join(&at, name), [width, width], false, Cut::Rows);
        let (receptance, key, value) = (linear("r_proj")?, linear("k_proj")?, linear("v_proj")?);
        Ok(TimeMixWeights {
            shift: token_shift::kernels(source, width)?,
            mix,
            receptance,
            key,
            value,
            decay,
            rate,
            gate,
            value_mix,
            direction: (direction, unit),
            key_rate,
            bonus,
            norm: self.norm().weights_of(source, &at, head_dim, &[heads, head_dim])?,
            output: source.linear(&join(&at, "o_proj"), [hidden, width], false, Cut::Columns)?,
        })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &TimeMixWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let &Self { heads, head_dim, .. } = self;
        let (backend, step) = (pass.backend, pass.step);
        let x = pass.normalised(input)?;
        let [past, state] = &mut pass.states[place.states.clone()] else {
            return Err(miscounted("states", 2, place.states.len()));
        };
        let x = Shifted::new(backend, x, &weights.shift, past, step)?;
        let low_rank = |x: &B::Tensor, [down, up]: &[Linear<B>; 2], between: Option<Activation>| {
            let mut inner = backend.linear(x, down)?;
            if let Some(activation) = between {
                inner = backend.activate(&inner, activation)?;
            }
            backend.linear(&inner, up)
        };
        let sigmoid = |x: &B::Tensor| backend.activate(x, Activation::Sigmoid);
        let [to_receptance, to_decay, to_key, to_value, to_rate, to_gate] = &weights.mix;

        let receptance = backend.linear(&x.by(to_receptance)?, &weights.receptance)?;
        let key = backend.linear(&x.by(to_key)?, &weights.key)?;
        let value_input = x.by(to_value)?;
        let mut value = backend.linear(&value_input, &weights.value)?;
        match &weights.value_mix {
            None => pass.first_values = Some(value.clone()),
            Some(mix) => {
                let first = pass.first_values.as_ref().ok_or_else(|| {
                    TensorError::shape("time mix", "values of a first layer before the others", "none")
                })?;
                let difference = backend.add(first, &backend.scale(&value, -1.0, 0.0)?)?;
                let share = sigmoid(&low_rank(&value_input, mix, None)?)?;
                value = backend.add(&value, &backend.mul(&difference, &share)?)?;
            }
        }
        let rate = sigmoid(&low_rank(&x.by(to_rate)?, &weights.rate, None)?)?;
        let decay = sigmoid(&low_rank(&x.by(to_decay)?, &weights.decay, Some(Activation::Tanh))?)?;
        let decay = backend.activate(&backend.scale(&decay, LOG_DECAY, 0.0)?, Activation::Exp)?;

        let (factors, unit) = &weights.direction;
        let direction = backend.norm(&backend.mul(&key, factors)?, unit)?;
        let replaced = backend.mul(&direction, &backend.scale(&rate, -1.0, 0.0)?)?;
        let key_factor = backend.mul(&backend.scale(&rate, 1.0, -1.0)?, &weights.key_rate)?;
        let key = backend.mul(&key, &backend.scale(&key_factor, 1.0, 1.0)?)?;
        let inputs = ScanInputs {
            queries: &receptance,
            keys: &key,
            values: &value,
            decay: &decay,
            update: ScanUpdate::LowRank { a: &direction, b: &replaced },
        };
        let read = backend.scan(&inputs, &self.scan(), state, step)?;
        if input.rows == Rows::None {
            return Ok(None);
        }

        let y = backend.norm(&read, &weights.norm)?;
        // A bonus for the token itself: its value, as much as its receptance and its key agree.
        let [rows, width] = backend.shape(&value);
        let by_head = [rows * heads, head_dim];
        let agreement = backend.mul(&backend.mul(&receptance, &key)?, &weights.bonus)?;
        let agreement = backend.reduce(&backend.reshape(&agreement, by_head)?, Reduction::Sum)?;
        let bonus = backend.mul(&backend.reshape(&value, by_head)?, &agreement)?;
        let y = backend.add(&y, &backend.reshape(&bonus, [rows, width])?)?;
        let gate = low_rank(&x.by(to_gate)?, &weights.gate, Some(Activation::Sigmoid))?;
        pass.finish(&backend.mul(&y, &gate)?, &weights.output, input)
    }
}
