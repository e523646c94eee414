use std::sync::Arc;

use pippin_tensor::{
    Activation, AttentionSpec, Backend, Beside, BlockFloat, Gate, KeyChoice, Linear, Norm, Reach, RopeSpec,
    ScanInputs, ScanSpec, ScanUpdate, ValueStore,
};

use super::{CacheNeed, Input, Needs, NormSpec, Pass, Place, Rows, join, miscounted};
use crate::source::{Cut, Source, same};
use crate::spec::check::{positive, problem, within};
use crate::{Result, limits, rope};

/// Attention as DeepSeek V4.1 has it: of the tokens in a window each has a vector that is key and value of all heads; of those
/// before, several tokens have one together, of which an index chooses some. One softmax is over both, with sinks. Layers share the
/// vectors that one of them makes of several tokens, and what an index of one of them has chosen.
///
/// What is kept is rounded to 8 or 4 bits, as in training. The last dimensions are rotated, of values too, so that results are
/// rotated back.
#[derive(Clone, Debug, PartialEq)]
pub struct CompressedAttention {
    /// Where its parameters are.
    pub path: &'static str,
    /// Query heads.
    pub heads: usize,
    /// Dimension of a head, and of what is kept of a token.
    pub head_dim: usize,
    /// How many of its last dimensions are rotated.
    pub rope_dim: usize,
    /// Width of the vector that queries are made from.
    pub query_rank: usize,
    /// Groups of heads, each of which has a first output projection of its own.
    pub groups: usize,
    /// Width of the result of each of these.
    pub output_rank: usize,
    /// Tokens of the window.
    pub window: usize,
    /// The rotary positions.
    pub rope: Arc<RopeSpec>,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// What is seen of tokens before the window.
    pub compression: Option<Compression>,
}

/// Vectors that stand for several tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compression {
    /// For how many tokens each stands.
    pub ratio: usize,
    /// Whether this layer makes them, rather than one before it.
    pub makes: bool,
    /// The index of this layer, if it has one.
    pub index: Option<CompressedIndex>,
}

/// An index of such vectors: [`Index`](super::Index) but for where its keys come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompressedIndex {
    /// Queries of a row.
    pub heads: usize,
    /// Dimension of a query and of a key.
    pub key_dim: usize,
    /// How many vectors a row sees.
    pub top_k: usize,
    /// Blocks of neighbouring vectors that this layer chooses by the way, to which indices of later layers keep: how many, of how many
    /// vectors each.
    pub blocks: Option<[usize; 2]>,
}

/// What layers of a step leave to those behind them.
#[derive(Debug)]
pub(crate) struct Compressed<B: Backend> {
    /// The cache of vectors, and the group of it.
    vectors: Option<(usize, usize)>,
    /// The cache of the index's keys, and the group of it.
    keys: Option<(usize, usize)>,
    /// The vectors that each row sees.
    chosen: Option<B::Indices>,
    /// Those of the blocks that were chosen.
    blocks: Option<B::Indices>,
}

impl<B: Backend> Default for Compressed<B> {
    fn default() -> Self {
        Self { vectors: None, keys: None, chosen: None, blocks: None }
    }
}

/// Which tokens of a step begin and end groups of some length; made on the host.
#[derive(Debug)]
pub(crate) struct Strides<B: Backend> {
    /// For each row, 0 if a group begins with it, else 1.
    pub(crate) goes_on: B::Indices,
    /// The index of the first token of a group that ends with the row.
    pub(crate) firsts: B::Indices,
    /// For some cache groups, where a row is kept: nowhere if it does not end a group.
    pub(crate) rows: Vec<(usize, B::Indices)>,
}

#[derive(Debug)]
pub(crate) struct CompressedAttentionWeights<L, V> {
    query_input: L,
    query_norm: Norm<V>,
    query: L,
    vector: L,
    vector_norm: Norm<V>,
    /// One layer for each group of heads.
    inner_output: L,
    output: L,
    sinks: V,
    /// Ones for cosines, and minus ones for sines.
    back: V,
    compressor: Option<Compressor<L, V>>,
    index: Option<Indexer<L, V>>,
}

#[derive(Debug)]
struct Compressor<L, V> {
    vector: L,
    /// Absent where a vector stands for one token.
    gate: Option<L>,
    norm: Norm<V>,
    /// Rows of two zeros and of two ones.
    steps: V,
}

#[derive(Debug)]
struct Indexer<L, V> {
    query: L,
    weight: L,
    key: Option<(L, Norm<V>)>,
}

impl CompressedAttention {
    pub(crate) fn validate(&self) -> Result<()> {
        within("num_attention_heads", self.heads, limits::HEADS)?;
        within("head_dim", self.head_dim, limits::HEAD_DIM)?;
        within("qk_rope_head_dim", self.rope_dim, self.head_dim)?;
        within("q_lora_rank", self.query_rank, limits::HIDDEN)?;
        within("o_groups", self.groups, self.heads)?;
        within("o_lora_rank", self.output_rank, limits::HIDDEN)?;
        within("sliding_window", self.window, limits::CONTEXT)?;
        positive("rms_norm_eps", self.norm_eps)?;
        if !self.heads.is_multiple_of(self.groups) {
            let words = format!("is {}, which does not divide {} heads", self.groups, self.heads);
            return Err(problem("o_groups", words));
        }
        if let Some(Compression { ratio, index, .. }) = self.compression {
            within("compress_ratios", ratio, limits::CONTEXT)?;
            if let Some(index) = index {
                within("index_n_heads", index.heads, limits::HEADS)?;
                within("index_head_dim", index.key_dim, limits::HEAD_DIM)?;
                within("qk_rope_head_dim", self.rope_dim, index.key_dim)?;
                within("index_topk", index.top_k, limits::CONTEXT)?;
                for (field, size) in ["candidate_topk_blocks", "candidate_block_size"]
                    .into_iter()
                    .zip(index.blocks.into_iter().flatten())
                {
                    within(field, size, limits::CONTEXT)?;
                }
            }
        }
        rope::validate(&self.rope, self.rope_dim)
    }

    pub(crate) fn needs(&self) -> Needs {
        let kept = |dim: usize, reach: Reach| CacheNeed {
            kv_heads: 1,
            key_dim: dim,
            values: ValueStore::InKeys(dim),
            reach,
        };
        let makes = self.compression.filter(|compression| compression.makes);
        let vectors = makes.map(|_| kept(self.head_dim, Reach::All));
        let keys = makes.and_then(|makes| makes.index).map(|index| kept(index.key_dim, Reach::All));
        Needs {
            mixes: true,
            cache: Some(kept(self.head_dim, Reach::Window(self.window))),
            others: vectors.into_iter().chain(keys).collect(),
            states: makes
                .filter(|makes| makes.ratio > 1)
                .map(|_| self.pooling().state_columns())
                .into_iter()
                .collect(),
            stride: makes.map(|makes| makes.ratio),
            rope: Some(self.rope.clone()),
            routes: Some(self.groups),
            heads: self.heads,
            ..Needs::default()
        }
    }

    /// The recurrence that makes one vector of several: sums of vectors with weights, and of weights.
    fn pooling(&self) -> ScanSpec {
        ScanSpec { heads: 2, key_heads: 1, key_dim: 1, value_dim: self.head_dim }
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<CompressedAttentionWeights<S::Linear, S::Vector>> {
        let at = &join(at, self.path);
        let &Self { heads, head_dim, rope_dim, query_rank, groups, output_rank, norm_eps, .. } = self;
        let linear = |source: &mut S, name: &str, rows: usize, columns: usize, cut: Cut| {
            source.linear(&join(at, name), [rows, columns], false, cut)
        };
        let norm = |source: &mut S, name: &'static str, width| {
            NormSpec::rms(name, norm_eps).weights(source, at, width)
        };
        let makes = self.compression.filter(|compression| compression.makes);
        let compressor = match makes {
            Some(Compression { ratio, .. }) => Some(Compressor {
                vector: linear(source, "compressor.kv_proj", head_dim, hidden, Cut::Whole)?,
                gate: match ratio {
                    1 => None,
                    _ => Some(linear(source, "compressor.gate_proj", head_dim, hidden, Cut::Whole)?),
                },
                norm: norm(source, "compressor.kv_norm", head_dim)?,
                steps: source.constant([2, 2], |i| if i < 2 { 0.0 } else { 1.0 })?,
            }),
            None => None,
        };
        let index = match self.compression.and_then(|compression| compression.index) {
            Some(CompressedIndex { heads, key_dim, .. }) => Some(Indexer {
                query: linear(source, "indexer.q_b_proj", heads * key_dim, query_rank, Cut::Whole)?,
                weight: linear(source, "indexer.weights_proj", heads, hidden, Cut::Whole)?,
                key: match makes {
                    Some(_) => Some((
                        linear(source, "indexer.k_proj", key_dim, head_dim, Cut::Whole)?,
                        norm(source, "indexer.k_norm", key_dim)?,
                    )),
                    None => None,
                },
            }),
            None => None,
        };
        let inner = [groups, output_rank, heads / groups * head_dim];
        Ok(CompressedAttentionWeights {
            query_input: linear(source, "q_a_proj", query_rank, hidden, Cut::Whole)?,
            query_norm: norm(source, "q_a_norm", query_rank)?,
            query: linear(source, "q_b_proj", heads * head_dim, query_rank, Cut::Rows)?,
            vector: linear(source, "kv_proj", head_dim, hidden, Cut::Whole)?,
            vector_norm: norm(source, "kv_norm", head_dim)?,
            inner_output: source.stack(&join(at, "o_a_proj"), inner, false, Cut::Rows)?,
            output: linear(source, "o_b_proj", hidden, groups * output_rank, Cut::Columns)?,
            sinks: source.vector(&join(at, "sinks"), &[heads], same)?,
            back: source.constant([1, rope_dim], |i| if i < rope_dim / 2 { 1.0 } else { -1.0 })?,
            compressor,
            index,
        })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &CompressedAttentionWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let &Self { heads, head_dim, window, groups, .. } = self;
        let (backend, step) = (pass.backend, pass.step);
        let all_angles = pass.angles;
        let angles = &all_angles[place.rope];
        let mut linears = vec![&weights.query_input, &weights.vector];
        linears.extend(weights.index.as_ref().map(|index| &index.weight));
        linears.extend(
            weights.compressor.iter().flat_map(|made| std::iter::once(&made.vector).chain(&made.gate)),
        );
        let outputs = backend.norm_linears(input.x, input.norm, &linears)?;
        let [query_input, vector, rest @ ..] = outputs.as_slice() else {
            return Err(miscounted("norm_linears", linears.len(), outputs.len()));
        };
        let (weight, to_compress) = rest.split_at(usize::from(weights.index.is_some()).min(rest.len()));

        let vector = backend.norm(vector, &weights.vector_norm)?;
        let vector = self.rotated(backend, &vector, 1, angles)?;
        let vector = rounded(backend, &vector, BlockFloat::E4m3, head_dim)?;
        backend.kv_write(&mut pass.caches[place.cache], &vector, None, &step.groups[place.group].rows)?;
        if let Some(compressor) = &weights.compressor {
            self.compress(weights, compressor, place, pass, to_compress)?;
        }
        // Only the last layer that keeps anything is asked for no rows, so that nothing waits for what its index would choose.
        if input.rows == Rows::None {
            return Ok(None);
        }

        let mut linears = vec![&weights.query];
        linears.extend(weights.index.as_ref().map(|index| &index.query));
        let outputs = backend.norm_linears(query_input, Some(&weights.query_norm), &linears)?;
        let [queries, of_index @ ..] = outputs.as_slice() else {
            return Err(miscounted("norm_linears", linears.len(), outputs.len()));
        };
        if let (Some(Compression { ratio, index: Some(index), .. }), [queries], [weight]) =
            (self.compression, of_index, weight)
        {
            self.choose(&index, ratio, place, pass, queries, weight)?;
        }
        let queries = self.rotated(backend, queries, heads, angles)?;
        let spec = AttentionSpec {
            heads,
            kv_heads: 1,
            key_dim: head_dim,
            value_dim: head_dim,
            scale: (head_dim as f32).powf(-0.5),
            reach: Reach::All,
            softcap: None,
        };
        let sinks = Some(&weights.sinks);
        let reach = Reach::Window(window);
        let near = &pass.caches[place.cache];
        let seen = self.compression.and(pass.compressed.vectors.zip(pass.compressed.chosen.as_ref()));
        let mixed = match seen {
            Some(((cache, group), chosen)) => {
                let beside = Some(Beside { cache: near, group: place.group, reach });
                let vectors = &pass.caches[cache];
                backend.attention_among(&queries, vectors, step, group, &spec, chosen, beside, sinks)?
            }
            None => {
                let spec = AttentionSpec { reach, ..spec };
                backend.attention(&queries, near, step, place.group, &spec, sinks)?
            }
        };
        let mixed = self.rotated(backend, &mixed, heads, &backend.mul(angles, &weights.back)?)?;
        let [rows, _] = backend.shape(&mixed);
        let by_group = backend.reshape(&mixed, [rows * groups, heads / groups * head_dim])?;
        let routes = &pass.routes[place.routes];
        let inner = backend.gathered_matmul(&by_group, &weights.inner_output.weight, groups, routes)?;
        let inner = backend.reshape(&inner, [rows, groups * self.output_rank])?;
        pass.finish(&inner, &weights.output, input)
    }

    /// Makes vectors of the tokens that end groups, and keys of an index of them, and keeps both.
    fn compress<B: Backend>(
        &self,
        weights: &CompressedAttentionWeights<Linear<B>, B::Tensor>,
        compressor: &Compressor<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        inputs: &[B::Tensor],
    ) -> Result<()> {
        let (backend, step) = (pass.backend, pass.step);
        let all = pass.strides;
        let strides = &all[place.stride];
        let vectors = match inputs {
            [vectors] => vectors.clone(),
            [vectors, gates] => {
                // The softmax of the gates of a group, column by column, as a recurrence that begins anew with each group. (Gates
                // above 88 are too large for it; the result says so.)
                let powers = backend.activate(gates, Activation::Exp)?;
                let both = backend.join(&[&backend.mul(&powers, vectors)?, &powers])?;
                let decay = backend.select_rows(&compressor.steps, &strides.goes_on)?;
                let ones = backend.scale(&backend.columns(&decay, 0..1)?, 0.0, 1.0)?;
                let inputs = ScanInputs {
                    queries: &ones,
                    keys: &ones,
                    values: &both,
                    decay: &decay,
                    update: ScanUpdate::Add,
                };
                let state = &mut pass.states[place.states.start];
                let sums = backend.scan(&inputs, &self.pooling(), state, step)?;
                let weights = backend.columns(&sums, self.head_dim..2 * self.head_dim)?;
                let sums = backend.columns(&sums, 0..self.head_dim)?;
                backend.gated(&weights, &sums, Gate::Of(Activation::Reciprocal))?
            }
            others => return Err(miscounted("norm_linears", 2, others.len())),
        };
        let latent = backend.norm(&vectors, &compressor.norm)?;
        let angles = backend.rope_angles(&strides.firsts, 1, &self.rope)?;
        let vectors = self.rotated(backend, &latent, 1, &angles)?;
        let vectors = rounded(backend, &vectors, BlockFloat::E2m1Fine, self.head_dim)?;
        let rows = |group: usize| {
            let rows = strides.rows.iter().find(|(of, _)| *of == group).map(|(_, rows)| rows);
            rows.ok_or_else(|| miscounted("strides", 1, 0))
        };
        let mut others = place.others.iter();
        if let Some(&(cache, group)) = others.next() {
            backend.kv_write(&mut pass.caches[cache], &vectors, None, rows(group)?)?;
            pass.compressed.vectors = Some((cache, group));
        }
        let key = weights.index.as_ref().and_then(|index| index.key.as_ref());
        if let (Some((key, norm)), Some(&(cache, group))) = (key, others.next()) {
            let keys = backend.norm(&backend.linear(&latent, key)?, norm)?;
            let [_, width] = backend.shape(&keys);
            let keys = self.rotated(backend, &keys, 1, &angles)?;
            let keys = rounded(backend, &keys, BlockFloat::E2m1, width)?;
            backend.kv_write(&mut pass.caches[cache], &keys, None, rows(group)?)?;
            pass.compressed.keys = Some((cache, group));
        }
        Ok(())
    }

    /// Chooses the vectors that the rows of a step see, in this layer and in those behind it that have no index.
    fn choose<B: Backend>(
        &self,
        index: &CompressedIndex,
        stride: usize,
        place: &Place,
        pass: &mut Pass<'_, B>,
        queries: &B::Tensor,
        weights: &B::Tensor,
    ) -> Result<()> {
        let &CompressedIndex { heads, key_dim, top_k, blocks } = index;
        let Some((cache, group)) = pass.compressed.keys else { return Ok(()) };
        let backend = pass.backend;
        let queries = self.rotated(backend, queries, heads, &pass.angles[place.rope])?;
        let queries = rounded(backend, &queries, BlockFloat::E2m1, key_dim)?;
        let factor = (heads as f32).powf(-0.5) * (key_dim as f32).powf(-0.5);
        let weights = backend.scale(weights, factor, 0.0)?;
        let choose = |top_k: usize, block: usize, among: Option<&B::Indices>| {
            let choice = KeyChoice { heads, key_dim, top_k, stride, block };
            backend.choose_keys(&queries, &weights, &pass.caches[cache], pass.step, group, &choice, among)
        };
        let (chosen, blocks) = match blocks {
            Some([count, block]) => (choose(top_k, 1, None)?, Some(choose(count, block, None)?)),
            None => (choose(top_k, 1, pass.compressed.blocks.as_ref())?, None),
        };
        pass.compressed.chosen = Some(chosen);
        if blocks.is_some() {
            pass.compressed.blocks = blocks;
        }
        Ok(())
    }

    /// Heads whose last dimensions are rotated.
    fn rotated<B: Backend>(
        &self,
        backend: &B,
        x: &B::Tensor,
        heads: usize,
        angles: &B::Tensor,
    ) -> Result<B::Tensor> {
        let ([rows, columns], turned) = (backend.shape(x), self.rope_dim);
        let width = columns / heads.max(1);
        let by_head = backend.reshape(x, [rows * heads, width])?;
        let rest = backend.columns(&by_head, 0..width - turned)?;
        let last = backend.columns(&by_head, width - turned..width)?;
        let last = backend.reshape(&last, [rows, heads * turned])?;
        let last = backend.rope(&last, angles, turned, &self.rope)?;
        let last = backend.reshape(&last, [rows * heads, turned])?;
        Ok(backend.reshape(&backend.join(&[&rest, &last])?, [rows, columns])?)
    }
}

/// Heads of some dimension, rounded if that is whole blocks.
fn rounded<B: Backend>(backend: &B, x: &B::Tensor, kind: BlockFloat, head_dim: usize) -> Result<B::Tensor> {
    match head_dim.is_multiple_of(kind.block()) {
        true => Ok(backend.round_blocks(x, kind)?),
        false => Ok(x.clone()),
    }
}
