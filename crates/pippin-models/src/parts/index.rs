use std::sync::Arc;

use pippin_tensor::{Backend, KeyChoice, Linear, Norm, Reach, RopeSpec, ValueStore};

use super::{CacheNeed, NormSpec, Pass, Place, join, miscounted};
use crate::source::{Cut, Source};
use crate::spec::check::{positive, within};
use crate::{Result, limits, rope};

/// An index of the tokens of a sequence (the lightning indexer of <https://arxiv.org/abs/2512.02556>): a small key of each,
/// ranked by several small queries of a row, of which each has a weight. Attention is over those that rank highest.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// Queries of a row.
    pub heads: usize,
    /// Dimension of a query and of a key.
    pub key_dim: usize,
    /// How many tokens a row sees.
    pub top_k: usize,
    /// Rotary positions of the first dimensions; the attention's own, but for which dimensions form pairs.
    pub rope: Arc<RopeSpec>,
    /// Epsilon of the keys' norm.
    pub norm_eps: f32,
}

#[derive(Debug)]
pub(crate) struct IndexWeights<L, V> {
    /// From what the attention's queries are made from.
    pub(crate) query: L,
    /// From the attention's input, as the next.
    pub(crate) key: L,
    pub(crate) weight: L,
    norm: Norm<V>,
}

impl Index {
    pub(crate) fn validate(&self) -> Result<()> {
        within("index_n_heads", self.heads, limits::HEADS)?;
        within("index_head_dim", self.key_dim, limits::HEAD_DIM)?;
        within("index_topk", self.top_k, limits::CONTEXT)?;
        positive("the epsilon of norms", self.norm_eps)?;
        rope::validate(&self.rope, self.key_dim)
    }

    /// Where its keys are kept.
    pub(crate) fn cache(&self) -> CacheNeed {
        let values = ValueStore::InKeys(self.key_dim);
        CacheNeed { kv_heads: 1, key_dim: self.key_dim, values, reach: Reach::All }
    }

    /// Reads the weights of the index of an attention at a path, whose queries are made from vectors of a width.
    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
        rank: usize,
    ) -> Result<IndexWeights<S::Linear, S::Vector>> {
        let at = &join(at, "indexer");
        let mut linear =
            |name, rows, columns| source.linear(&join(at, name), [rows, columns], false, Cut::Whole);
        Ok(IndexWeights {
            query: linear("wq_b", self.heads * self.key_dim, rank)?,
            key: linear("wk", self.key_dim, hidden)?,
            weight: linear("weights_proj", self.heads, hidden)?,
            norm: NormSpec::layer("k_norm", self.norm_eps, true).weights(source, at, self.key_dim)?,
        })
    }

    /// Keeps the keys of a step.
    pub(crate) fn write<B: Backend>(
        &self,
        weights: &IndexWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        keys: &B::Tensor,
    ) -> Result<()> {
        let keys = pass.backend.norm(keys, &weights.norm)?;
        let keys = pass.backend.rope(&keys, &pass.angles[place.rope], self.key_dim, &self.rope)?;
        let (cache, group) = own_cache(place)?;
        Ok(pass.backend.kv_write(&mut pass.caches[cache], &keys, None, &pass.step.groups[group].rows)?)
    }

    /// The tokens that the rows of a step see.
    pub(crate) fn choose<B: Backend>(
        &self,
        place: &Place,
        pass: &Pass<'_, B>,
        queries: &B::Tensor,
        weights: &B::Tensor,
    ) -> Result<B::Indices> {
        let &Self { heads, key_dim, top_k, .. } = self;
        let queries = pass.backend.rope(queries, &pass.angles[place.rope], key_dim, &self.rope)?;
        let factor = (heads as f32).powf(-0.5) * (key_dim as f32).powf(-0.5);
        let weights = pass.backend.scale(weights, factor, 0.0)?;
        let (cache, group) = own_cache(place)?;
        let choice = KeyChoice { heads, key_dim, top_k, stride: 1, block: 1 };
        Ok(pass.backend.choose_keys(
            &queries,
            &weights,
            &pass.caches[cache],
            pass.step,
            group,
            &choice,
            None,
        )?)
    }
}

/// The cache of an index, and the group of it.
fn own_cache(place: &Place) -> Result<(usize, usize)> {
    place.others.first().copied().ok_or_else(|| miscounted("caches", 1, 0))
}
