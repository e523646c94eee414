//! What the layers of a model need between steps, and where each part finds it.

use std::sync::Arc;

use pippin_tensor::RopeSpec;

use crate::cache::{CacheGroup, CacheLayout};
use crate::parts::Place;
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
    /// The place of each part, layer by layer.
    pub(crate) places: Vec<Vec<Place>>,
}

impl Plan {
    pub(crate) fn new(spec: &DecoderSpec) -> Self {
        let mut plan = Self::default();
        for layer in &spec.layers {
            let places = layer.parts().map(|part| plan.place(&part.needs())).collect();
            plan.places.push(places);
        }
        plan
    }

    fn place(&mut self, needs: &crate::parts::Needs) -> Place {
        let mut place = Place::default();
        if let Some(need) = needs.cache {
            let group = CacheGroup {
                layers: 0,
                kv_heads: need.kv_heads,
                key_dim: need.key_dim,
                values: need.values,
                reach: need.reach,
            };
            let known = self.groups.iter().position(|known| CacheGroup { layers: 0, ..*known } == group);
            place.group = known.unwrap_or_else(|| {
                self.groups.push(group);
                self.groups.len() - 1
            });
            self.groups[place.group].layers += 1;
            place.cache = self.caches.len();
            self.caches.push(place.group);
        } else if let Some(layer) = needs.shares {
            let places = self.places.get(layer).into_iter().flatten();
            if let Some(shared) = places.last() {
                (place.cache, place.group) = (shared.cache, shared.group);
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

    pub(crate) fn layout(&self) -> CacheLayout {
        let state: usize = self.states.iter().sum();
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
        let layers = self.layers.iter().enumerate();
        layers.rev().find_map(|(index, LayerSpec::Blocks(blocks))| {
            let mixes = |block: &crate::spec::Block| block.parts.iter().any(|(_, part)| part.needs().mixes);
            blocks.iter().rposition(mixes).map(|block| (index, block))
        })
    }
}
