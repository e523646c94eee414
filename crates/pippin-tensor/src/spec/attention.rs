use std::fmt::{self, Display};

/// Which earlier tokens of its sequence a token sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reach {
    /// All of them.
    #[default]
    All,
    /// A sliding window: the token at index `i` sees indices above `i - window`.
    Window(usize),
    /// Chunks: the token at index `i` sees those from the last multiple of the chunk's length on.
    Chunk(usize),
}

impl Reach {
    /// The first index that a token at `index` sees.
    pub fn first(self, index: usize) -> usize {
        match self {
            Self::All => 0,
            Self::Window(window) => (index + 1).saturating_sub(window),
            Self::Chunk(chunk) => index - index % chunk.max(1),
        }
    }

    /// The most tokens that one sees, itself included; `None` where there is no limit.
    pub fn limit(self) -> Option<usize> {
        match self {
            Self::All => None,
            Self::Window(length) | Self::Chunk(length) => Some(length),
        }
    }
}

/// Attention: grouped-query, with the options that models have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Dimension of one head of the queries and keys.
    pub key_dim: usize,
    /// Dimension of one head of the values.
    pub value_dim: usize,
    /// Factor on the scores before the softmax, usually `key_dim^-0.5`.
    pub scale: f32,
    /// How far back a token sees.
    pub reach: Reach,
    /// Soft cap `c`: scores become `c * tanh(score / c)`.
    pub softcap: Option<f32>,
}

/// How an index chooses keys, see [`Backend::choose_keys`](crate::Backend::choose_keys).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyChoice {
    /// Queries of a row.
    pub heads: usize,
    /// Dimension of a query and of a key.
    pub key_dim: usize,
    /// How many keys are chosen, or blocks of them.
    pub top_k: usize,
    /// Where it is above one, not every token has a key: those at `stride - 1`, `2 stride - 1`, ... stand for as many tokens each.
    pub stride: usize,
    /// How many neighbouring keys are chosen together, by the best of them. The last block that a row sees any key of is
    /// always chosen.
    pub block: usize,
}

/// Keys that are seen besides those that were chosen, see [`Backend::attention_among`](crate::Backend::attention_among); `C` is
/// a cache.
#[derive(Debug)]
pub struct Beside<'a, C> {
    /// The cache that they are in, of the shape and the format of the other one.
    pub cache: &'a C,
    /// Its group.
    pub group: usize,
    /// How far back a token sees of them.
    pub reach: Reach,
}

impl<C> Clone for Beside<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Beside<'_, C> {}

/// How a KV cache stores its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// 32-bit floating point: nothing is lost.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Signed bytes with one `f32` scale for each token and head, keys and values apart: a number is `scale * byte`, the
    /// scale a 127th of the largest magnitude, the byte rounded to nearest, so a number is off by at most half a scale.
    /// Rows that hold an infinity or a NaN come back with numbers that are not finite.
    Int8,
}

impl KvFormat {
    /// All formats.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::Int8];

    /// The format's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of one token's keys, or values, of one head of `head_dim` numbers, scale included.
    pub fn row_bytes(self, head_dim: usize) -> usize {
        match self {
            Self::F32 => head_dim.saturating_mul(4),
            Self::F16 | Self::Bf16 => head_dim.saturating_mul(2),
            Self::Int8 => head_dim.saturating_add(4),
        }
    }
}

impl Display for KvFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a KV cache has a token's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueStore {
    /// In rows of their own, of this many numbers for each head.
    Own(usize),
    /// They are the first so many numbers of each key: latent attention, which keeps one vector for both.
    InKeys(usize),
}

impl ValueStore {
    /// Dimension of one head of the values.
    pub fn dim(self) -> usize {
        match self {
            Self::Own(dim) | Self::InKeys(dim) => dim,
        }
    }
}

/// The storage of one layer's KV cache: `pages` pages of `page_size` tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvCacheSpec {
    /// Number of pages.
    pub pages: usize,
    /// Tokens per page.
    pub page_size: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Dimension of one head of the keys.
    pub key_dim: usize,
    /// Where values are, and the dimension of one head of them.
    pub values: ValueStore,
    /// How numbers are stored.
    pub format: KvFormat,
}

impl KvCacheSpec {
    /// Bytes of one token of one head, keys and values together.
    fn token_bytes(&self) -> usize {
        let values = match self.values {
            ValueStore::Own(dim) => self.format.row_bytes(dim),
            ValueStore::InKeys(_) => 0,
        };
        self.format.row_bytes(self.key_dim).saturating_add(values)
    }

    /// Bytes of one page.
    pub fn page_bytes(&self) -> usize {
        self.page_size.saturating_mul(self.kv_heads).saturating_mul(self.token_bytes())
    }
}
