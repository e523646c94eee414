use std::sync::Arc;

use pippin_tensor::{
    Activation, AttentionSpec, Backend, HeadSpec, Linear, Norm, PositionScale, Reach, Reduction, RopeSpec,
    Rotation, ValueStore,
};

use super::{CacheNeed, Input, Needs, NormSpec, Pass, Place, Rows, join, miscounted};
use crate::source::{Cut, Source, same};
use crate::spec::check::{finite, multiple, positive, within};
use crate::{Result, limits, rope};

/// Tokens whose keys and values are blended: one and the one before it.
const BLENDED: usize = 2;

/// Softmax attention: grouped-query, with the options that models have.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Dimension of one head of queries and keys.
    pub head_dim: usize,
    /// Dimension of one head of values, where each of them has a matrix of its own.
    pub value_dim: usize,
    /// Factor on the values.
    pub value_scale: f32,
    /// Where queries, keys and values come from.
    pub projections: Projections,
    /// Whether these projections have biases.
    pub qkv_bias: bool,
    /// A linear layer whose activated results multiply those of the attention.
    pub gate: Option<OutputGate>,
    /// The norm of the results of each head, before the gate.
    pub result_norm: Option<NormSpec>,
    /// The norm of what goes into the output projection.
    pub inner_norm: Option<NormSpec>,
    /// The output projection.
    pub output: &'static str,
    /// Whether it has a bias.
    pub output_bias: bool,
    /// The queries' norm: over each head, or over all of them.
    pub query_norm: Option<NormSpec>,
    /// The keys' norm.
    pub key_norm: Option<NormSpec>,
    /// The values' norm, over each head.
    pub value_norm: Option<NormSpec>,
    /// A parameter with a factor for each query head, in place of the weight of the queries' norm.
    pub query_gain: Option<&'static str>,
    /// What queries' and keys' norms are over.
    pub norms: HeadNorms,
    /// Whether the norms come after the rotation.
    pub norms_follow_rope: bool,
    /// Where queries, keys and values are cut off on both sides, before all else.
    pub clamp: Option<f32>,
    /// Two parameters with two numbers for each key head: factors of the keys of the token before and of a token's own,
    /// before all else; and those of the values.
    pub blends: Option<[&'static str; 2]>,
    /// Two parameters of one number each: the steps to multiples of which keys and values are rounded, after all else, from
    /// -128 to 127 of them.
    pub steps: Option<[&'static str; 2]>,
    /// Whether query heads take key heads by turns (head `i` that of number `i` modulo their count), instead of as many
    /// neighbours sharing one.
    pub takes_turns: bool,
    /// The rotary positions. Layers that share them share the allocation.
    pub rope: Option<Arc<RopeSpec>>,
    /// A factor on queries by their position.
    pub position_scale: Option<PositionScale>,
    /// How far back a token sees.
    pub reach: Reach,
    /// Factor on the scores before the softmax.
    pub scale: f32,
    /// Soft cap of the scores.
    pub softcap: Option<f32>,
    /// The parameter with a score for each head that has no value.
    pub sinks: Option<&'static str>,
    /// The layer whose keys and values are read, instead of some of its own.
    pub shares: Option<usize>,
    /// Where keys and values come from before they are rotated and normalised.
    pub projected: Projected,
    /// What a second pass through the layer adds.
    pub second_pass: Option<SecondPass>,
}

/// Attention of a layer that is run twice: in the second pass, each head also attends to all that the first has kept, and has
/// a share of it, by its query, that is taken in place of the same share of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondPass {
    /// The module whose `weight`, a row for each head, multiplies the head's query; the sigmoid of that and of its `bias` is
    /// the share.
    pub gate: &'static str,
    /// The layer of the first pass that this one is; absent in the first pass.
    pub first: Option<usize>,
}

/// A gate between attention and output projection, a linear layer of what goes into the attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutputGate {
    /// The linear layer.
    pub name: &'static str,
    /// Whether each head has one number, rather than each dimension of it.
    pub by_head: bool,
    /// What it passes through.
    pub activation: Activation,
}

/// Whose projections of keys and values a layer rotates and normalises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projected {
    /// Its own.
    Own,
    /// Its own, which layers after it take, too.
    PassedOn,
    /// Those that a layer before it has passed on.
    Taken,
}

/// What the norms of queries and keys are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadNorms {
    /// Each head, with the same parameters.
    Shared,
    /// Each head, with parameters of its own: `[heads, head_dim]`.
    Own,
    /// All heads together.
    Spanning,
}

/// Where queries, keys and values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Projections {
    /// A matrix each.
    Separate([&'static str; 3]),
    /// A matrix each; that of the queries has, for each head, the rows of a gate after those of the query. Results of the
    /// attention are multiplied by the gates' sigmoids.
    Gated([&'static str; 3]),
    /// Matrices of queries and of keys; values are the keys before their norm and their rotation.
    KeysAsValues([&'static str; 2]),
    /// One matrix: the rows of all queries, of all keys, of all values.
    Fused(&'static str),
    /// The same, and after them those of a gate for each dimension of the queries. Results of the attention are multiplied by its
    /// sigmoids.
    FusedGated(&'static str),
    /// One matrix: for each key head the rows of the query heads that share it, of itself, of its value.
    Interleaved(&'static str),
}

impl Projections {
    /// What almost every family calls them.
    pub(crate) const USUAL: Self =
        Self::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]);
}

#[derive(Debug)]
pub(crate) struct AttentionWeights<L, V> {
    query: L,
    /// Absent where another layer's keys and values are read.
    key: Option<L>,
    /// Absent there too, and where values are keys.
    value: Option<L>,
    gate: Option<L>,
    result_norm: Option<Norm<V>>,
    inner_norm: Option<Norm<V>>,
    output: L,
    query_norm: Option<Norm<V>>,
    key_norm: Option<Norm<V>>,
    value_norm: Option<Norm<V>>,
    /// Of keys and of values, as kernels of a convolution.
    blends: Option<[V; 2]>,
    /// Of keys and of values: how many steps one is, and the step.
    steps: Option<[[V; 2]; 2]>,
    sinks: Option<V>,
    /// The rows of the second pass' gate, one after the other, and its bias.
    second_pass: Option<[V; 2]>,
}

impl Attention {
    /// Attention without any of the options, under the names that almost every family uses.
    pub(crate) fn new(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        Self {
            heads,
            kv_heads,
            head_dim,
            value_dim: head_dim,
            value_scale: 1.0,
            projections: Projections::USUAL,
            qkv_bias: false,
            gate: None,
            result_norm: None,
            inner_norm: None,
            output: "self_attn.o_proj",
            output_bias: false,
            query_norm: None,
            key_norm: None,
            value_norm: None,
            query_gain: None,
            norms: HeadNorms::Shared,
            norms_follow_rope: false,
            clamp: None,
            blends: None,
            steps: None,
            takes_turns: false,
            rope: None,
            position_scale: None,
            reach: Reach::All,
            scale: (head_dim as f32).powf(-0.5),
            softcap: None,
            sinks: None,
            shares: None,
            projected: Projected::Own,
            second_pass: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let &Self { heads, kv_heads, head_dim, .. } = self;
        within("num_attention_heads", heads, limits::HEADS)?;
        within("num_key_value_heads", kv_heads, limits::HEADS)?;
        within("head_dim", head_dim, limits::HEAD_DIM)?;
        within("v_head_dim", self.value_dim, limits::HEAD_DIM)?;
        finite("the factor on values", self.value_scale)?;
        multiple("num_key_value_heads", kv_heads, heads, "attention heads")?;
        if let Some(length) = self.reach.limit() {
            within("sliding_window", length, limits::CONTEXT)?;
        }
        positive("the attention scale", self.scale)?;
        if let Some(PositionScale::Logarithmic { floor, scale, .. }) = self.position_scale {
            positive("the number of positions that share a factor", floor)?;
            positive("the factor on queries by position", scale)?;
        }
        if let Some(cap) = self.softcap {
            positive("attn_logit_softcapping", cap)?;
        }
        if let Some(limit) = self.clamp {
            positive("clip_qkv", limit)?;
        }
        for norm in [&self.query_norm, &self.key_norm, &self.value_norm, &self.result_norm, &self.inner_norm]
            .into_iter()
            .flatten()
        {
            norm.validate()?;
        }
        self.rope.as_ref().map_or(Ok(()), |spec| rope::validate(spec, head_dim))
    }

    pub(crate) fn needs(&self) -> Needs {
        let own = CacheNeed {
            kv_heads: self.kv_heads,
            key_dim: self.head_dim,
            values: ValueStore::Own(self.value_dim),
            reach: self.reach,
        };
        let states = match self.blends {
            Some(_) => vec![self.kv_heads * self.head_dim, self.kv_heads * self.value_dim],
            None => Vec::new(),
        };
        Needs {
            mixes: true,
            states,
            cache: self.shares.is_none().then_some(own),
            shares: self.shares,
            reads: self.second_pass.and_then(|pass| pass.first),
            rope: self.rope.clone(),
            heads: self.heads,
            ..Needs::default()
        }
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<AttentionWeights<S::Linear, S::Vector>> {
        let &Self { heads, kv_heads, head_dim, value_dim, qkv_bias, .. } = self;
        let (queries, keys, values) = (heads * head_dim, kv_heads * head_dim, kv_heads * value_dim);
        let group = heads / kv_heads;
        let linear = |source: &mut S, path: &str, rows: usize| {
            source.linear(&join(at, path), [rows, hidden], qkv_bias, Cut::Rows)
        };
        let (query, mut gate, key, value) = match self.projections {
            Projections::Separate([query, ..]) | Projections::KeysAsValues([query, _])
                if self.shares.is_some() || self.projected == Projected::Taken =>
            {
                (linear(source, query, queries)?, None, None, None)
            }
            Projections::Separate([query, key, value]) => {
                let query = match self.takes_turns {
                    true => {
                        let order = self.in_groups().map(|head| head * head_dim..(head + 1) * head_dim);
                        let (path, shape, order) = (join(at, query), [queries, hidden], order.collect());
                        let mut one = source.split(&path, shape, qkv_bias, &[order], Cut::Rows)?.into_iter();
                        one.next().ok_or_else(|| miscounted("split", 1, 0))?
                    }
                    false => linear(source, query, queries)?,
                };
                (query, None, Some(linear(source, key, keys)?), Some(linear(source, value, values)?))
            }
            Projections::KeysAsValues([query, key]) => {
                (linear(source, query, queries)?, None, Some(linear(source, key, keys)?), None)
            }
            Projections::Gated([query, key, value]) => {
                let (key, value) = (linear(source, key, keys)?, linear(source, value, keys)?);
                let rows =
                    |first| (0..heads).map(|h| (2 * h + first) * head_dim).map(|s| s..s + head_dim).collect();
                let parts = [rows(0), rows(1)];
                let shape = [2 * queries, hidden];
                let mut both =
                    source.split(&join(at, query), shape, qkv_bias, &parts, Cut::Rows)?.into_iter();
                match (both.next(), both.next()) {
                    (Some(query), Some(gate)) => (query, Some(gate), Some(key), Some(value)),
                    _ => return Err(miscounted("split", 2, 0)),
                }
            }
            Projections::FusedGated(path) => {
                let ends = [queries, queries + keys, queries + keys + values, 2 * queries + keys + values];
                let starts = [0, ends[0], ends[1], ends[2]];
                let parts: Vec<_> =
                    starts.into_iter().zip(ends).map(|(start, end)| vec![start..end]).collect();
                let all = source.split(&join(at, path), [ends[3], hidden], qkv_bias, &parts, Cut::Rows)?;
                let [query, key, value, gate] =
                    <[S::Linear; 4]>::try_from(all).map_err(|all| miscounted("split", 4, all.len()))?;
                (query, Some(gate), Some(key), Some(value))
            }
            Projections::Fused(path) | Projections::Interleaved(path) => {
                let parts: [Vec<_>; 3] = if matches!(self.projections, Projections::Fused(_)) {
                    [
                        vec![0..queries],
                        vec![queries..queries + keys],
                        vec![queries + keys..queries + 2 * keys],
                    ]
                } else {
                    let rows = |first: usize, count: usize| {
                        let heads = (0..kv_heads).map(|head| head * (group + 2) + first);
                        heads.map(|head| head * head_dim..(head + count) * head_dim).collect()
                    };
                    [rows(0, group), rows(group, 1), rows(group + 1, 1)]
                };
                let shape = [queries + 2 * keys, hidden];
                let mut all = source.split(&join(at, path), shape, qkv_bias, &parts, Cut::Rows)?.into_iter();
                match (all.next(), all.next(), all.next()) {
                    (Some(query), Some(key), Some(value)) => (query, None, Some(key), Some(value)),
                    _ => return Err(miscounted("split", 3, 0)),
                }
            }
        };
        if let Some(OutputGate { name, by_head, .. }) = self.gate {
            let rows = if by_head { heads } else { heads * value_dim };
            gate = Some(source.linear(&join(at, name), [rows, hidden], false, Cut::Rows)?);
        }
        let shape = [hidden, heads * value_dim];
        let output = source.linear(&join(at, self.output), shape, self.output_bias, Cut::Columns)?;
        let mut norm = |spec: &Option<NormSpec>, all: usize| {
            let spec = spec.as_ref();
            let read = |spec: &NormSpec| match self.norms {
                HeadNorms::Shared => spec.weights(source, at, head_dim),
                HeadNorms::Own => spec.weights_of(source, at, head_dim, &[all / head_dim, head_dim]),
                HeadNorms::Spanning => spec.weights(source, at, all),
            };
            spec.map(read).transpose()
        };
        let mut query_norm = norm(&self.query_norm, queries)?;
        let has_keys = self.shares.is_none();
        let key_norm = if has_keys { norm(&self.key_norm, keys)? } else { None };
        if let (Some(norm), Some(name)) = (&mut query_norm, self.query_gain) {
            norm.weight = Some(source.repeated(&join(at, name), heads, head_dim, same)?);
        }
        let value_norm = match &self.value_norm {
            Some(spec) if has_keys => Some(spec.weights(source, at, value_dim)?),
            _ => None,
        };
        let result_norm = self.result_norm.map(|norm| norm.weights(source, at, value_dim)).transpose()?;
        let inner_norm =
            self.inner_norm.map(|norm| norm.weights(source, at, heads * value_dim)).transpose()?;
        let blends = match self.blends {
            Some([of_keys, of_values]) => Some([
                source.head_kernels(&join(at, of_keys), kv_heads, BLENDED, head_dim)?,
                source.head_kernels(&join(at, of_values), kv_heads, BLENDED, value_dim)?,
            ]),
            None => None,
        };
        let steps = match self.steps {
            Some(names) if has_keys => {
                let mut step = |name| -> Result<_> {
                    let name = join(at, name);
                    Ok([source.vector(&name, &[], |step| 1.0 / step)?, source.vector(&name, &[], same)?])
                };
                Some([step(names[0])?, step(names[1])?])
            }
            _ => None,
        };
        let sinks = match self.sinks {
            Some(path) => Some(source.vector(&join(at, path), &[heads], same)?),
            None => None,
        };
        let second_pass = match self.second_pass {
            Some(SecondPass { gate, .. }) => {
                let gate = join(at, gate);
                Some([
                    source.vector(&format!("{gate}.weight"), &[heads, head_dim], same)?,
                    source.vector(&format!("{gate}.bias"), &[heads], same)?,
                ])
            }
            None => None,
        };
        Ok(AttentionWeights {
            query,
            key,
            value,
            gate,
            result_norm,
            inner_norm,
            output,
            query_norm,
            key_norm,
            value_norm,
            blends,
            steps,
            sinks,
            second_pass,
        })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &AttentionWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let (backend, step) = (pass.backend, pass.step);
        let mut linears = vec![&weights.query];
        linears.extend([&weights.key, &weights.value].into_iter().flatten());
        linears.extend(&weights.gate);
        let mut projected = backend.norm_linears(input.x, input.norm, &linears)?;
        if let Some(limit) = self.clamp {
            let clamped = projected.iter().map(|x| backend.activate(x, Activation::Clamp(limit)));
            projected = clamped.collect::<Result<_, _>>()?;
        }
        let mut rest = projected.iter();
        let mut next =
            || rest.next().ok_or_else(|| miscounted("norm_linears", linears.len(), projected.len()));

        let rotation = self.rope.as_ref().map(|spec| Rotation { angles: &pass.angles[place.rope], spec });
        let mut heads = HeadSpec {
            key_dim: self.head_dim,
            query_norm: weights.query_norm.as_ref(),
            key_norm: weights.key_norm.as_ref(),
            rotation,
        };
        let rotated = |x: &B::Tensor| match rotation {
            Some(Rotation { angles, spec }) => backend.rope(x, angles, self.head_dim, spec),
            None => Ok(x.clone()),
        };
        let mut queries = next()?.clone();
        if self.norms_follow_rope {
            queries = rotated(&queries)?;
            heads.rotation = None;
        }
        if self.shares.is_none() {
            let (mut keys, mut values) = match (&weights.key, &weights.value, &pass.projected) {
                (Some(_), Some(_), _) => (next()?.clone(), next()?.clone()),
                (Some(_), None, _) => {
                    let keys = next()?.clone();
                    (keys.clone(), keys)
                }
                (None, _, Some(passed)) => passed.clone(),
                (None, _, None) => return Err(miscounted("projections that were passed on", 2, 0)),
            };
            if self.projected == Projected::PassedOn {
                pass.projected = Some((keys.clone(), values.clone()));
            }
            if let Some([of_keys, of_values]) = &weights.blends {
                let [before, values_before] = &mut pass.states[place.states.clone()] else {
                    return Err(miscounted("states of keys and values", 2, place.states.len()));
                };
                keys = backend.causal_convolution(&keys, of_keys, None, before, step)?;
                values = backend.causal_convolution(&values, of_values, None, values_before, step)?;
            }
            if self.norms_follow_rope {
                keys = rotated(&keys)?;
            }
            if let Some(norm) = &weights.value_norm {
                values = backend.norm(&values, norm)?;
            }
            if self.value_scale != 1.0 {
                values = backend.scale(&values, self.value_scale, 0.0)?;
            }
            if let Some([of_keys, of_values]) = &weights.steps {
                // What would be done to keys as they are written comes before they are rounded.
                if let Some(norm) = heads.key_norm.take() {
                    keys = backend.norm(&keys, norm)?;
                }
                if heads.rotation.take().is_some() {
                    keys = rotated(&keys)?;
                    if let Some(norm) = heads.query_norm.take() {
                        queries = backend.norm(&queries, norm)?;
                    }
                    queries = rotated(&queries)?;
                }
                keys = in_steps(backend, &keys, of_keys)?;
                values = in_steps(backend, &values, of_values)?;
            }
            let cache = &mut pass.caches[place.cache];
            let rows = &step.groups[place.group].rows;
            queries = backend.write_heads(&queries, &keys, Some(&values), heads, cache, rows)?;
        } else {
            if let Some(norm) = heads.query_norm {
                queries = backend.norm(&queries, norm)?;
            }
            if heads.rotation.is_some() {
                queries = rotated(&queries)?;
            }
        }
        if input.rows == Rows::None {
            return Ok(None);
        }
        if let Some(spec) = self.position_scale {
            queries = backend.mul(&queries, &backend.position_scale(&step.positions, step.axes, spec)?)?;
        }
        let cache = &pass.caches[place.cache];
        let mut mixed =
            backend.attention(&queries, cache, step, place.group, &self.spec(), weights.sinks.as_ref())?;
        if let Some(norm) = &weights.result_norm {
            mixed = backend.norm(&mixed, norm)?;
        }
        if let (Some(SecondPass { first: Some(_), .. }), Some(gate)) =
            (self.second_pass, &weights.second_pass)
        {
            mixed = self.with_first_pass(&mixed, &queries, gate, place, pass)?;
        }
        if weights.gate.is_some() {
            let activation = self.gate.map_or(Activation::Sigmoid, |gate| gate.activation);
            let gate = backend.activate(next()?, activation)?;
            mixed = match self.gate {
                Some(OutputGate { by_head: true, .. }) => {
                    let [rows, columns] = backend.shape(&mixed);
                    let heads = backend.reshape(&mixed, [rows * self.heads, self.value_dim])?;
                    let gate = backend.reshape(&gate, [rows * self.heads, 1])?;
                    backend.reshape(&backend.mul(&heads, &gate)?, [rows, columns])?
                }
                _ => backend.mul(&mixed, &gate)?,
            };
        }
        if self.takes_turns {
            // Back to the heads' own order, in which the output projection has its columns.
            let group = self.heads / self.kv_heads;
            let place = |head: usize| head % self.kv_heads * group + head / self.kv_heads;
            let starts = (0..self.heads).map(|head| place(head) * self.value_dim);
            let heads = starts.map(|start| backend.columns(&mixed, start..start + self.value_dim));
            let heads = heads.collect::<Result<Vec<_>, _>>()?;
            mixed = backend.join(&heads.iter().collect::<Vec<_>>())?;
        }
        if let Some(norm) = &weights.inner_norm {
            mixed = backend.norm(&mixed, norm)?;
        }
        pass.finish(&mixed, &weights.output, input)
    }

    /// What a second pass has mixed, with each head's share of what it finds in the first.
    fn with_first_pass<B: Backend>(
        &self,
        own: &B::Tensor,
        queries: &B::Tensor,
        [gate, bias]: &[B::Tensor; 2],
        place: &Place,
        pass: &Pass<'_, B>,
    ) -> Result<B::Tensor> {
        let (backend, step, (cache, group)) = (pass.backend, pass.step, place.read);
        let spec = AttentionSpec { reach: Reach::All, ..self.spec() };
        let first = backend.attention(queries, &pass.caches[cache], step, group, &spec, None)?;
        let [rows, columns] = backend.shape(own);
        let by_head = |x: &B::Tensor, columns| backend.reshape(x, [rows * self.heads, columns]);
        let products = backend.mul(queries, gate)?;
        let logits = backend.reduce(&by_head(&products, self.head_dim)?, Reduction::Sum)?;
        let logits = backend.add(&backend.reshape(&logits, [rows, self.heads])?, bias)?;
        let share = by_head(&backend.activate(&logits, Activation::Sigmoid)?, 1)?;
        let rest = backend.scale(&share, -1.0, 1.0)?;
        let first = backend.mul(&by_head(&first, self.value_dim)?, &share)?;
        let own = backend.mul(&by_head(own, self.value_dim)?, &rest)?;
        Ok(backend.reshape(&backend.add(&first, &own)?, [rows, columns])?)
    }

    /// The query heads in an order in which those that share a key head are neighbours.
    fn in_groups(&self) -> impl Iterator<Item = usize> + use<> {
        let &Self { heads, kv_heads, .. } = self;
        (0..kv_heads).flat_map(move |kv_head| (kv_head..heads).step_by(kv_heads))
    }

    fn spec(&self) -> AttentionSpec {
        AttentionSpec {
            heads: self.heads,
            kv_heads: self.kv_heads,
            key_dim: self.head_dim,
            value_dim: self.value_dim,
            scale: self.scale,
            reach: self.reach,
            softcap: self.softcap,
        }
    }
}

/// Multiples of a step, from -128 to 127 of it: the nearest ones, even ones where two are.
fn in_steps<B: Backend>(backend: &B, x: &B::Tensor, [inverse, step]: &[B::Tensor; 2]) -> Result<B::Tensor> {
    // Beside a number of this size an f32 has no fraction, so that adding it rounds.
    const WHOLE: f32 = 1.5 * (1 << 23) as f32;
    let counts = backend.activate(&backend.mul(x, inverse)?, Activation::Clamp(1024.0))?;
    let counts = backend.scale(&backend.scale(&counts, 1.0, WHOLE)?, 1.0, -WHOLE)?;
    let counts = backend.activate(&backend.scale(&counts, 1.0, 0.5)?, Activation::Clamp(127.5))?;
    Ok(backend.mul(&backend.scale(&counts, 1.0, -0.5)?, step)?)
}
