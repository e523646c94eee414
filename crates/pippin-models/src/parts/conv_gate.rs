use pippin_tensor::{Activation, Backend, Linear, Norm};

use super::{Input, Needs, NormSpec, Pass, Place, Rows, join, miscounted};
use crate::source::{Cut, Source, same};
use crate::spec::check::{multiple, within};
use crate::{Result, limits};

/// Heads that see a few tokens back, without a softmax: `output(sigmoid(query * convolution(key)) * convolution(value))`, with
/// queries and keys normalised head by head, and each head of keys and values for several of queries. Its states are the last
/// inputs of the two convolutions.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvGate {
    /// Where projections, norms and convolutions are.
    pub path: &'static str,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Dimension of one head.
    pub head_dim: usize,
    /// Taps of the convolutions: the tokens that a token sees, itself included.
    pub taps: usize,
    /// Whether projections and convolutions have biases.
    pub bias: bool,
    /// The queries' norm and the keys', over each head; their paths are within `path`.
    pub norms: [NormSpec; 2],
}

#[derive(Debug)]
pub(crate) struct ConvGateWeights<L, V> {
    query: L,
    key: L,
    value: L,
    query_norm: Norm<V>,
    key_norm: Norm<V>,
    key_conv: Convolution<V>,
    value_conv: Convolution<V>,
    output: L,
}

#[derive(Debug)]
struct Convolution<V> {
    kernels: V,
    bias: Option<V>,
}

impl ConvGate {
    pub(crate) fn validate(&self) -> Result<()> {
        within("num_attention_heads", self.heads, limits::HEADS)?;
        within("num_key_value_heads", self.kv_heads, limits::HEADS)?;
        within("head_dim", self.head_dim, limits::HEAD_DIM)?;
        multiple("num_key_value_heads", self.kv_heads, self.heads, "attention heads")?;
        self.norms.iter().try_for_each(NormSpec::validate)?;
        within("conv_L_cache", self.taps, limits::TAPS)
    }

    pub(crate) fn needs(&self) -> Needs {
        let state = self.taps.saturating_sub(1) * self.kv_heads * self.head_dim;
        Needs { mixes: true, states: vec![state; 2], ..Needs::default() }
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<ConvGateWeights<S::Linear, S::Vector>> {
        let &Self { heads, kv_heads, head_dim, bias, taps, .. } = self;
        let at = join(at, self.path);
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        let mut linear = |path: &str, shape, cut| source.linear(&join(&at, path), shape, bias, cut);
        let query = linear("q_proj", [queries, hidden], Cut::Rows)?;
        let key = linear("k_proj", [keys, hidden], Cut::Rows)?;
        let value = linear("v_proj", [keys, hidden], Cut::Rows)?;
        let output = linear("o_proj", [hidden, queries], Cut::Columns)?;
        let [query_norm, key_norm] = &self.norms;
        let query_norm = query_norm.weights(source, &at, head_dim)?;
        let key_norm = key_norm.weights(source, &at, head_dim)?;
        let mut convolution = |path: &str| -> Result<Convolution<S::Vector>> {
            let path = join(&at, path);
            let kernels = source.kernels(&path, keys, taps)?;
            let bias = match bias {
                true => Some(source.vector(&format!("{path}.bias"), &[keys], same)?),
                false => None,
            };
            Ok(Convolution { kernels, bias })
        };
        let (key_conv, value_conv) = (convolution("key_conv")?, convolution("value_conv")?);
        Ok(ConvGateWeights { query, key, value, query_norm, key_norm, key_conv, value_conv, output })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &ConvGateWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let (backend, step) = (pass.backend, pass.step);
        let linears = [&weights.query, &weights.key, &weights.value];
        let outputs = backend.norm_linears(input.x, input.norm, &linears)?;
        let [query, key, value] = outputs.as_slice() else {
            return Err(miscounted("norm_linears", 3, outputs.len()));
        };
        let key = backend.norm(key, &weights.key_norm)?;
        let mut mixed = Vec::with_capacity(2);
        for ((x, Convolution { kernels, bias }), state) in
            [(&key, &weights.key_conv), (value, &weights.value_conv)].into_iter().zip(place.states.clone())
        {
            let past = &mut pass.states[state];
            mixed.push(backend.causal_convolution(x, kernels, bias.as_ref(), past, step)?);
        }
        if input.rows == Rows::None {
            return Ok(None);
        }
        let [key, value] = mixed.as_slice() else { return Err(miscounted("states", 2, mixed.len())) };
        let query = backend.norm(query, &weights.query_norm)?;
        let gate = backend.mul(&query, &self.repeated(backend, key)?)?;
        let gate = backend.activate(&gate, Activation::Sigmoid)?;
        pass.finish(&backend.mul(&gate, &self.repeated(backend, value)?)?, &weights.output, input)
    }

    /// Each head of keys or values as often as there are heads of queries for it.
    fn repeated<B: Backend>(&self, backend: &B, x: &B::Tensor) -> Result<B::Tensor> {
        let &Self { heads, kv_heads, head_dim, .. } = self;
        let [rows, _] = backend.shape(x);
        let apart = backend.reshape(x, [rows * kv_heads, head_dim])?;
        let joined = backend.join(&vec![&apart; heads / kv_heads])?;
        Ok(backend.reshape(&joined, [rows, heads * head_dim])?)
    }
}
