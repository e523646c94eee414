use std::sync::Arc;

use pippin_tensor::{Activation, Backend, Gate, Linear, Norm, RopeSpec, ScanInputs, ScanSpec, ScanUpdate};

use super::{Input, Needs, NormSpec, Pass, Place, Rows, join, miscounted};
use crate::source::{Cut, Source};
use crate::spec::check::{finite, multiple, within};
use crate::{Result, limits, rope};

/// Linear attention with a decay for each head that is fixed, as Lightning Attention has it
/// (<https://arxiv.org/abs/2401.04658>).
///
/// A head's state is the sum of `v kᵀ` over the tokens so far, and decays by `exp(-slope)` from each to the next; queries read
/// it. Slopes are those that ALiBi has for so many heads, times a factor. What is read is normalised in groups of columns,
/// multiplied by the sigmoid of a gate, and projected.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearAttention {
    /// Heads of queries, keys and values.
    pub heads: usize,
    /// Dimension of one head.
    pub head_dim: usize,
    /// The matrix with the rows of all queries, of all keys, of all values.
    pub projections: &'static str,
    /// Whether it has a bias.
    pub qkv_bias: bool,
    /// The queries' norm, over each head.
    pub query_norm: Option<NormSpec>,
    /// The keys' norm.
    pub key_norm: Option<NormSpec>,
    /// The rotary positions.
    pub rope: Option<Arc<RopeSpec>>,
    /// Factor on the slopes.
    pub slope_scale: f32,
    /// The linear layer that makes the gate.
    pub gate: &'static str,
    /// The norm of what is read.
    pub norm: NormSpec,
    /// Equal parts of the columns, each of which is normalised by itself.
    pub norm_groups: usize,
    /// The output projection.
    pub output: &'static str,
    /// Whether it has a bias.
    pub output_bias: bool,
}

#[derive(Debug)]
pub(crate) struct LinearAttentionWeights<L, V> {
    query: L,
    key: L,
    value: L,
    gate: L,
    query_norm: Option<Norm<V>>,
    key_norm: Option<Norm<V>>,
    /// One row, with a number for each head.
    decay: V,
    norm: Norm<V>,
    output: L,
}

impl LinearAttention {
    pub(crate) fn validate(&self) -> Result<()> {
        within("num_attention_heads", self.heads, limits::HEADS)?;
        within("head_dim", self.head_dim, limits::HEAD_DIM)?;
        finite("the factor on slopes", self.slope_scale)?;
        within("group_norm_size", self.norm_groups, limits::HEADS)?;
        multiple("group_norm_size", self.norm_groups, self.width(), "columns of linear attention")?;
        for norm in [&self.query_norm, &self.key_norm].into_iter().flatten() {
            norm.validate()?;
        }
        self.norm.validate()?;
        self.rope.as_ref().map_or(Ok(()), |spec| rope::validate(spec, self.head_dim))
    }

    pub(crate) fn needs(&self) -> Needs {
        let states = vec![self.scan().state_columns()];
        Needs { mixes: true, states, rope: self.rope.clone(), ..Needs::default() }
    }

    fn width(&self) -> usize {
        self.heads * self.head_dim
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
    ) -> Result<LinearAttentionWeights<S::Linear, S::Vector>> {
        let (heads, width) = (self.heads, self.width());
        let parts = [vec![0..width], vec![width..2 * width], vec![2 * width..3 * width]];
        let path = join(at, self.projections);
        let all = source.split(&path, [3 * width, hidden], self.qkv_bias, &parts, Cut::Rows)?;
        let [query, key, value] =
            <[S::Linear; 3]>::try_from(all).map_err(|all| miscounted("split", 3, all.len()))?;
        let mut norm = |norm: &Option<NormSpec>| {
            norm.as_ref().map(|norm| norm.weights(source, at, self.head_dim)).transpose()
        };
        let (query_norm, key_norm) = (norm(&self.query_norm)?, norm(&self.key_norm)?);
        Ok(LinearAttentionWeights {
            query,
            key,
            value,
            gate: source.linear(&join(at, self.gate), [width, hidden], false, Cut::Rows)?,
            query_norm,
            key_norm,
            decay: source.constant([1, heads], |head| (-slope(head, heads) * self.slope_scale).exp())?,
            norm: self.norm.weights_of(source, at, width / self.norm_groups, &[width])?,
            output: source.linear(&join(at, self.output), [hidden, width], self.output_bias, Cut::Columns)?,
        })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &LinearAttentionWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let (backend, step) = (pass.backend, pass.step);
        let linears = [&weights.query, &weights.key, &weights.value, &weights.gate];
        let outputs = backend.norm_linears(input.x, input.norm, &linears)?;
        let [queries, keys, values, gate] = outputs.as_slice() else {
            return Err(miscounted("norm_linears", 4, outputs.len()));
        };
        let [state] = &mut pass.states[place.states.clone()] else {
            return Err(miscounted("states", 1, place.states.len()));
        };
        let heads = |x: &B::Tensor, norm: &Option<Norm<B::Tensor>>| {
            let x = match norm {
                Some(norm) => backend.norm(x, norm)?,
                None => x.clone(),
            };
            match &self.rope {
                Some(spec) => backend.rope(&x, &pass.angles[place.rope], self.head_dim, spec),
                None => Ok(x),
            }
        };
        let queries = heads(queries, &weights.query_norm)?;
        let queries = backend.scale(&queries, (self.head_dim as f32).powf(-0.5), 0.0)?;
        let keys = heads(keys, &weights.key_norm)?;
        // The same row for each token.
        let [rows, _] = backend.shape(values);
        let decay = backend.select_rows(&weights.decay, &backend.indices(&vec![0; rows])?)?;
        let inputs =
            ScanInputs { queries: &queries, keys: &keys, values, decay: &decay, update: ScanUpdate::Add };
        let read = backend.scan(&inputs, &self.scan(), state, step)?;
        if input.rows == Rows::None {
            return Ok(None);
        }

        let y = backend.norm(&read, &weights.norm)?;
        let y = backend.gated(gate, &y, Gate::Of(Activation::Sigmoid))?;
        pass.finish(&y, &weights.output, input)
    }
}

/// ALiBi's slope of one of some heads (<https://arxiv.org/abs/2108.12409>): a geometric sequence for a power of two; heads
/// beyond that have every second slope of twice as many.
fn slope(head: usize, heads: usize) -> f32 {
    let power = 1 << heads.max(1).ilog2();
    let (number, of) = if head < power { (head + 1, power) } else { (2 * (head - power) + 1, 2 * power) };
    (-8.0 * number as f64 / of as f64).exp2() as f32
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn slopes_are_those_of_alibi() {
        let slopes =
            |heads: usize| -> Vec<f32> { (0..heads).map(|head| slope(head, heads).log2()).collect() };
        assert_eq!(slopes(1), [-8.0]);
        assert_eq!(slopes(4), [-2.0, -4.0, -6.0, -8.0]);
        assert_eq!(slopes(6), [-2.0, -4.0, -6.0, -8.0, -1.0, -3.0]);
    }
}
