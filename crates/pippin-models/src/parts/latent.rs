use std::sync::Arc;

use pippin_tensor::{AttentionSpec, Backend, Gate, Linear, Norm, PositionScale, Reach, RopeSpec, ValueStore};

use super::index::{Index, IndexWeights};
use super::{CacheNeed, Input, Needs, NormSpec, OutputGate, Pass, Place, Rows, join, miscounted};
use crate::source::{Cut, Source};
use crate::spec::check::{positive, problem, within};
use crate::{Result, limits, rope};

/// Multi-head latent attention (<https://arxiv.org/abs/2405.04434>): all heads' keys and values are made from one latent
/// vector of each token, which is all that is kept of it, with a rotated key beside it.
///
/// The matrices that would make keys and values of it are absorbed: queries are taken into the latent space, and results out
/// of it. That is one way to compute for prompts and for single tokens alike, so that results do not depend on how a prompt
/// is cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Latent {
    /// Where its parameters are.
    pub path: &'static str,
    /// The output projection, under that path.
    pub output: &'static str,
    /// A linear layer, under that path, whose activated results multiply those of the attention.
    pub gate: Option<OutputGate>,
    /// Query heads.
    pub heads: usize,
    /// Width of the vector that queries are made from; without, they are made from the input.
    pub query_rank: Option<usize>,
    /// Width of the latent vector.
    pub rank: usize,
    /// Dimensions of a head that are not rotated.
    pub key_dim: usize,
    /// Dimensions of a head that are.
    pub rope_dim: usize,
    /// Dimension of a head of the values.
    pub value_dim: usize,
    /// Whether the projections from the input, and the output projection, have biases.
    pub bias: bool,
    /// Whether a converted checkpoint has the matrices that make all heads' keys and values as one, `kv_b_proj`, as published
    /// ones have.
    pub joined: bool,
    /// Epsilon of the norms of the vectors that queries, and keys and values, are made from.
    pub norm_eps: f32,
    /// Factor on the latent vector behind its norm.
    pub latent_scale: f32,
    /// The rotary positions.
    pub rope: Arc<RopeSpec>,
    /// A factor on queries by their position.
    pub position_scale: Option<PositionScale>,
    /// Factor on the scores before the softmax.
    pub scale: f32,
    /// What chooses the tokens that are seen; made for queries from a vector of their own.
    pub index: Option<Index>,
}

#[derive(Debug)]
pub(crate) struct LatentWeights<L, V> {
    /// What queries are made from, and the norm of it.
    query_input: Option<(L, Norm<V>)>,
    query: L,
    latent: L,
    latent_norm: Norm<V>,
    rotated_key: L,
    absorbed_key: L,
    absorbed_value: L,
    gate: Option<L>,
    output: L,
    index: Option<IndexWeights<L, V>>,
}

impl Latent {
    /// Latent attention without any of the options, under the names that almost every family uses. `dims` are those of a head:
    /// of keys without and with rotation, and of values.
    pub(crate) fn new(heads: usize, rank: usize, dims: [usize; 3], rope: Arc<RopeSpec>) -> Self {
        let [key_dim, rope_dim, value_dim] = dims;
        Self {
            path: "self_attn",
            output: "o_proj",
            gate: None,
            heads,
            query_rank: None,
            rank,
            key_dim,
            rope_dim,
            value_dim,
            bias: false,
            joined: false,
            norm_eps: 1e-6,
            latent_scale: 1.0,
            rope,
            position_scale: None,
            scale: ((key_dim + rope_dim) as f32).powf(-0.5),
            index: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        within("num_attention_heads", self.heads, limits::HEADS)?;
        within("kv_lora_rank", self.rank, limits::HIDDEN)?;
        if let Some(rank) = self.query_rank {
            within("q_lora_rank", rank, limits::HIDDEN)?;
        }
        within("qk_nope_head_dim", self.key_dim, limits::HEAD_DIM)?;
        within("qk_rope_head_dim", self.rope_dim, limits::HEAD_DIM)?;
        within("v_head_dim", self.value_dim, limits::HEAD_DIM)?;
        positive("the epsilon of norms", self.norm_eps)?;
        positive("the factor on latent vectors", self.latent_scale)?;
        positive("the attention scale", self.scale)?;
        if let Some(index) = &self.index {
            index.validate()?;
            if self.query_rank.is_none() {
                return Err(problem(
                    "q_lora_rank",
                    "must be a positive integer, because the index has queries from it",
                ));
            }
        }
        rope::validate(&self.rope, self.rope_dim)
    }

    pub(crate) fn needs(&self) -> Needs {
        Needs {
            mixes: true,
            cache: Some(CacheNeed {
                kv_heads: 1,
                key_dim: self.rank + self.rope_dim,
                values: ValueStore::InKeys(self.rank),
                reach: Reach::All,
            }),
            others: self.index.iter().map(Index::cache).collect(),
            rope: Some(self.rope.clone()),
            routes: Some(self.heads),
            heads: self.heads,
            ..Needs::default()
        }
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<LatentWeights<S::Linear, S::Vector>> {
        let at = &join(at, self.path);
        let &Self { heads, rank, key_dim, rope_dim, value_dim, bias, .. } = self;
        let queries = heads * (key_dim + rope_dim);
        let (query_input, query) = match self.query_rank {
            Some(width) => {
                let input = source.linear(&join(at, "q_a_proj"), [width, hidden], bias, Cut::Whole)?;
                let norm = NormSpec::rms("q_a_layernorm", self.norm_eps).weights(source, at, width)?;
                let query = source.linear(&join(at, "q_b_proj"), [queries, width], false, Cut::Rows)?;
                (Some((input, norm)), query)
            }
            None => (None, source.linear(&join(at, "q_proj"), [queries, hidden], false, Cut::Rows)?),
        };
        let parts = [vec![0..rank], vec![rank..rank + rope_dim]];
        let path = join(at, "kv_a_proj_with_mqa");
        let both = source.split(&path, [rank + rope_dim, hidden], bias, &parts, Cut::Whole)?;
        let [latent, rotated_key] =
            <[S::Linear; 2]>::try_from(both).map_err(|both| miscounted("split", 2, both.len()))?;
        let latent_norm = NormSpec::rms("kv_a_layernorm", self.norm_eps).weights(source, at, rank)?;
        let [absorbed_key, absorbed_value] =
            source.latent(at, heads, rank, [key_dim, value_dim], self.joined)?;
        let path = join(at, self.output);
        let output = source.linear(&path, [hidden, heads * value_dim], bias, Cut::Columns)?;
        let gate = match self.gate {
            Some(OutputGate { name, by_head, .. }) => {
                let rows = if by_head { heads } else { heads * value_dim };
                Some(source.linear(&join(at, name), [rows, hidden], false, Cut::Rows)?)
            }
            None => None,
        };
        let index = match (&self.index, self.query_rank) {
            (Some(index), Some(rank)) => Some(index.weights(source, at, hidden, rank)?),
            _ => None,
        };
        Ok(LatentWeights {
            query_input,
            query,
            latent,
            latent_norm,
            rotated_key,
            absorbed_key,
            absorbed_value,
            gate,
            output,
            index,
        })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &LatentWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let &Self { heads, rank, key_dim, rope_dim, value_dim, .. } = self;
        let (backend, step) = (pass.backend, pass.step);
        let (angles, routes) = (&pass.angles[place.rope], &pass.routes[place.routes]);
        let first = weights.query_input.as_ref().map_or(&weights.query, |(input, _)| input);
        let mut linears = vec![first, &weights.latent, &weights.rotated_key];
        linears.extend(weights.index.iter().flat_map(|index| [&index.key, &index.weight]));
        linears.extend(&weights.gate);
        let mut outputs = backend.norm_linears(input.x, input.norm, &linears)?;
        let gate = weights.gate.as_ref().and_then(|_| outputs.pop());
        let [queries, latent, rotated_key, of_index @ ..] = outputs.as_slice() else {
            return Err(miscounted("norm_linears", linears.len(), outputs.len()));
        };
        let mut latent = backend.norm(latent, &weights.latent_norm)?;
        if self.latent_scale != 1.0 {
            latent = backend.scale(&latent, self.latent_scale, 0.0)?;
        }
        let rotated_key = backend.rope(rotated_key, angles, rope_dim, &self.rope)?;
        let key = backend.join(&[&latent, &rotated_key])?;
        backend.kv_write(&mut pass.caches[place.cache], &key, None, &step.groups[place.group].rows)?;
        if let (Some(index), Some(weights), [keys, _]) = (&self.index, &weights.index, of_index) {
            index.write(weights, place, pass, keys)?;
        }
        if input.rows == Rows::None {
            return Ok(None);
        }

        let mut chosen = None;
        let queries = match &weights.query_input {
            Some((_, norm)) => {
                let mut linears = vec![&weights.query];
                linears.extend(weights.index.as_ref().map(|index| &index.query));
                let outputs = backend.norm_linears(queries, Some(norm), &linears)?;
                let [queries, of_queries @ ..] = outputs.as_slice() else {
                    return Err(miscounted("norm_linears", linears.len(), outputs.len()));
                };
                if let (Some(index), [queries], [_, weights]) = (&self.index, of_queries, of_index) {
                    chosen = Some(index.choose(place, pass, queries, weights)?);
                }
                queries.clone()
            }
            None => queries.clone(),
        };
        let [rows, _] = backend.shape(&queries);
        let by_head = backend.reshape(&queries, [rows * heads, key_dim + rope_dim])?;
        let plain = backend.columns(&by_head, 0..key_dim)?;
        let plain = backend.gathered_matmul(&plain, &weights.absorbed_key.weight, heads, routes)?;
        let rotated = backend.columns(&by_head, key_dim..key_dim + rope_dim)?;
        let rotated = backend.reshape(&rotated, [rows, heads * rope_dim])?;
        let rotated = backend.rope(&rotated, angles, rope_dim, &self.rope)?;
        let rotated = backend.reshape(&rotated, [rows * heads, rope_dim])?;
        let queries = backend.join(&[&plain, &rotated])?;
        let mut queries = backend.reshape(&queries, [rows, heads * (rank + rope_dim)])?;
        if let Some(spec) = self.position_scale {
            queries = backend.mul(&queries, &backend.position_scale(&step.positions, step.axes, spec)?)?;
        }

        let spec = AttentionSpec {
            heads,
            kv_heads: 1,
            key_dim: rank + rope_dim,
            value_dim: rank,
            scale: self.scale,
            reach: Reach::All,
            softcap: None,
        };
        let cache = &pass.caches[place.cache];
        let mixed = match &chosen {
            Some(chosen) => {
                backend.attention_among(&queries, cache, step, place.group, &spec, chosen, None, None)?
            }
            None => backend.attention(&queries, cache, step, place.group, &spec, None)?,
        };
        let mixed = backend.reshape(&mixed, [rows * heads, rank])?;
        let mut values = backend.gathered_matmul(&mixed, &weights.absorbed_value.weight, heads, routes)?;
        let gated = self.gate.zip(gate);
        if let Some((OutputGate { by_head: true, activation, .. }, gate)) = &gated {
            let gate = backend.activate(&backend.reshape(gate, [rows * heads, 1])?, *activation)?;
            values = backend.mul(&values, &gate)?;
        }
        let mut values = backend.reshape(&values, [rows, heads * value_dim])?;
        if let Some((OutputGate { by_head: false, activation, .. }, gate)) = &gated {
            values = backend.gated(gate, &values, Gate::Of(*activation))?;
        }
        pass.finish(&values, &weights.output, input)
    }
}
