//! What a sequence keeps between steps, described: pages in cache groups, and state in slots.

use pippin_tensor::{KvCacheSpec, KvFormat, Reach, ValueStore};
use serde::ser::{Serialize, SerializeStruct, Serializer};

/// Layers whose keys and values have the same geometry and the same lifetime, and therefore the same pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheGroup {
    /// Number of layers that keep keys and values.
    pub layers: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Dimension of one head of the keys.
    pub key_dim: usize,
    /// Where values are, and their dimension.
    pub values: ValueStore,
    /// Which tokens later ones still see.
    pub reach: Reach,
}

impl CacheGroup {
    /// The storage of one layer.
    pub fn layer(&self, pages: usize, page_size: usize, format: KvFormat) -> KvCacheSpec {
        let &Self { kv_heads, key_dim, values, .. } = self;
        KvCacheSpec { pages, page_size, kv_heads, key_dim, values, format }
    }

    /// Bytes of one page over all layers.
    pub fn page_bytes(&self, page_size: usize, format: KvFormat) -> u64 {
        (self.layer(1, page_size, format).page_bytes() as u64).saturating_mul(self.layers as u64)
    }

    /// Bytes of one token over all layers.
    pub fn token_bytes(&self, format: KvFormat) -> u64 {
        self.page_bytes(1, format)
    }

    /// How many of a sequence's first tokens no token from `length` on sees any more.
    pub fn given_back(&self, length: usize) -> usize {
        self.reach.first(length)
    }
}

impl Serialize for CacheGroup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut group = serializer.serialize_struct("CacheGroup", 6)?;
        group.serialize_field("layers", &self.layers)?;
        group.serialize_field("kv_heads", &self.kv_heads)?;
        group.serialize_field("key_dim", &self.key_dim)?;
        group.serialize_field("value_dim", &self.values.dim())?;
        group.serialize_field("values_in_keys", &matches!(self.values, ValueStore::InKeys(_)))?;
        group.serialize_field("reach", &self.reach.limit())?;
        group.end()
    }
}

/// What each sequence of a model keeps between steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CacheLayout {
    /// The layers with keys and values.
    pub groups: Vec<CacheGroup>,
    /// Bytes of recurrent state of a slot, over all layers.
    pub state_bytes: u64,
}

impl CacheLayout {
    /// Bytes that one more token takes, over all groups, before any are given back.
    pub fn token_bytes(&self, format: KvFormat) -> u64 {
        self.groups.iter().map(|group| group.token_bytes(format)).fold(0, u64::saturating_add)
    }

    /// Bytes that a sequence of `length` tokens keeps: what later tokens see of it, and its state.
    pub fn sequence_bytes(&self, length: usize, format: KvFormat) -> u64 {
        let kept = |group: &CacheGroup| {
            let tokens = group.reach.limit().map_or(length, |limit| limit.min(length));
            group.token_bytes(format).saturating_mul(tokens as u64)
        };
        self.groups.iter().map(kept).fold(self.state_bytes, u64::saturating_add)
    }

    /// Whether layers keep state in slots.
    pub fn has_state(&self) -> bool {
        self.state_bytes > 0
    }

    /// Whether a sequence can be cut back to fewer tokens, as guesses that turn out wrong require. Keys and values can;
    /// state that has taken a token in cannot forget it.
    pub fn can_rewind(&self) -> bool {
        !self.has_state()
    }
}

/// How much of the caches to allocate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePlan {
    /// Tokens per page.
    pub page_size: usize,
    /// How keys and values are stored.
    pub format: KvFormat,
    /// Pages of each cache group.
    pub pages: Vec<usize>,
    /// Slots: sequences in a step, and states that are kept beside them.
    pub slots: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_follow_the_architecture() {
        let full = CacheGroup {
            layers: 2,
            kv_heads: 4,
            key_dim: 64,
            values: ValueStore::Own(32),
            reach: Reach::All,
        };
        let sliding = CacheGroup { layers: 10, reach: Reach::Window(100), ..full };
        let latent = CacheGroup {
            layers: 61,
            kv_heads: 1,
            key_dim: 576,
            values: ValueStore::InKeys(512),
            reach: Reach::All,
        };
        assert_eq!(full.token_bytes(KvFormat::F16), 2 * 4 * (64 + 32) * 2);
        assert_eq!(full.token_bytes(KvFormat::Int8), 2 * 4 * (64 + 4 + 32 + 4));
        assert_eq!(latent.token_bytes(KvFormat::Bf16), 61 * 576 * 2);
        assert_eq!(full.page_bytes(32, KvFormat::F32), 32 * full.token_bytes(KvFormat::F32));

        let layout = CacheLayout { groups: vec![full, sliding], state_bytes: 1000 };
        let per_token = full.token_bytes(KvFormat::F16);
        assert_eq!(layout.token_bytes(KvFormat::F16), 6 * per_token);
        assert_eq!(layout.sequence_bytes(50, KvFormat::F16), 50 * 6 * per_token + 1000);
        assert_eq!(layout.sequence_bytes(1000, KvFormat::F16), (1000 + 5 * 100) * per_token + 1000);
        assert_eq!((sliding.given_back(99), sliding.given_back(250)), (0, 151));
    }
}
