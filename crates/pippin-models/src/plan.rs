//! What the layers of a model need between steps, and where each part finds it.

use std::sync::Arc;

use pippin_tensor::RopeSpec;

use crate::cache::{CacheGroup, CacheLayout};
use crate::ngrams::Ngrams;
use crate::parts::{CacheNeed, Needs, Part, Place};
use crate::spec::{DecoderSpec, LayerSpec};

/// Caches, states, rotations and head matrices of a model, numbered; and the places of its parts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) groups: Vec<CacheGroup>,
    /// The group of each cache.
    pub(crate) caches: Vec<usize>,
    /// The numbers that each state keeps for a slot.
    pub(crate) states: Vec<usize>,
    /// The distinct rotary positions.
    pub(crate) ropes: Vec<Arc<RopeSpec>>,
    /// The distinct numbers of heads that have matrices of their own.
    pub(crate) routes: Vec<usize>,
    /// The distinct lengths of groups of tokens of which only the last one is kept, and the cache groups where that is so.
    pub(crate) strides: Vec<(usize, Vec<usize>)>,
    /// Tokens of each slot that the host keeps.
    pub(crate) history: usize,
    /// Whether any part is given what entered the first layer.
    pub(crate) recalls: bool,
    /// The place of each part, layer by layer.
    pub(crate) places: Vec<Vec<Place>>,
}

impl Plan {
    pub(crate) fn new(spec: &DecoderSpec) -> Self {
        let history = spec.ngrams.as_ref().map_or(0, Ngrams::history);
        let mut plan = Self { history, ..Self::default() };
        // The place of the part of each layer that has a cache of its own.
        let mut owners: Vec<Option<Place>> = Vec::with_capacity(spec.layers.len());
        for layer in &spec.layers {
            let (mut places, mut owner) = (Vec::new(), None);
            for part in layer.parts() {
                let needs = part.needs();
                plan.recalls |= needs.recalls;
                let owner_of = |layer: usize| owners.get(layer)?.as_ref();
                let shared = needs.shares.and_then(owner_of);
                let mut place = plan.place(&needs, shared);
                if let Some(read) = needs.reads.and_then(owner_of) {
                    place.read = (read.cache, read.group);
                }
                if needs.cache.is_some() {
                    owner = Some(place.clone());
                }
                places.push(place);
            }
            owners.push(owner);
            plan.places.push(places);
        }
        plan
    }

    fn place(&mut self, needs: &Needs, shared: Option<&Place>) -> Place {
        let mut place = Place { mixes: needs.mixes, ..Place::default() };
        if let Some(need) = needs.cache {
            (place.cache, place.group) = self.cache(need);
        } else if let Some(shared) = shared {
            (place.cache, place.group) = (shared.cache, shared.group);
        }
        place.others = needs.others.iter().map(|need| self.cache(*need)).collect();
        if let Some(length) = needs.stride {
            place.stride = number(&mut self.strides, &(length, Vec::new()), |a, b| a.0 == b.0);
            for (_, group) in &place.others {
                number(&mut self.strides[place.stride].1, group, |a, b| a == b);
            }
        }
        place.states = self.states.len()..self.states.len() + needs.states.len();
        self.states.extend(&needs.states);
        if let Some(rope) = &needs.rope {
            place.rope = number(&mut self.ropes, rope, |a, b| Arc::ptr_eq(a, b) || a == b);
        }
        if let Some(heads) = &needs.routes {
            place.routes = number(&mut self.routes, heads, |a, b| a == b);
        }
        place
    }

    /// A cache of its own, and the group of it.
    fn cache(&mut self, need: CacheNeed) -> (usize, usize) {
        let group = CacheGroup {
            layers: 0,
            kv_heads: need.kv_heads,
            key_dim: need.key_dim,
            values: need.values,
            reach: need.reach,
        };
        let known = self.groups.iter().position(|known| CacheGroup { layers: 0, ..*known } == group);
        let number = known.unwrap_or_else(|| {
            self.groups.push(group);
            self.groups.len() - 1
        });
        self.groups[number].layers += 1;
        self.caches.push(number);
        (self.caches.len() - 1, number)
    }

    pub(crate) fn layout(&self) -> CacheLayout {
        let state = self.states.iter().sum::<usize>() + self.history;
        CacheLayout { groups: self.groups.clone(), state_bytes: 4 * state as u64 }
    }
}

/// The number of a value among those known, to which it is added if it is not there.
fn number<T: Clone>(known: &mut Vec<T>, value: &T, same: impl Fn(&T, &T) -> bool) -> usize {
    known.iter().position(|known| same(known, value)).unwrap_or_else(|| {
        known.push(value.clone());
        known.len() - 1
    })
}

impl DecoderSpec {
    /// What each sequence of the model keeps between steps.
    pub fn cache_layout(&self) -> CacheLayout {
        Plan::new(self).layout()
    }

    /// The last block in which tokens see each other: its layer, and its place in the layer.
    pub(crate) fn last_mixing_block(&self) -> Option<(usize, usize)> {
        self.last_block(|needs| needs.mixes)
    }

    /// The last block of which anything is kept for later tokens. Blocks behind it that mix read what others keep.
    pub(crate) fn last_keeping_block(&self) -> Option<(usize, usize)> {
        self.last_block(|needs| needs.cache.is_some() || !needs.states.is_empty())
    }

    /// The last block with such a part; a layer of streams counts as one block.
    fn last_block(&self, is_such: impl Fn(&Needs) -> bool) -> Option<(usize, usize)> {
        let is_such = |part: &Part| is_such(&part.needs());
        self.layers.iter().enumerate().rev().find_map(|(index, layer)| {
            let block = match layer {
                LayerSpec::Blocks(blocks) => {
                    blocks.iter().rposition(|block| block.branches.iter().any(|branch| is_such(&branch.part)))
                }
                LayerSpec::Hyper(layer) => layer.blocks.iter().rposition(|block| is_such(&block.part)),
                LayerSpec::AltUp(layer) => layer.parts().into_iter().any(is_such).then_some(0),
            };
            block.map(|block| (index, block))
        })
    }
}
