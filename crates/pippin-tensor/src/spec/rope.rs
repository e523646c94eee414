use std::sync::Arc;

/// The rotation frequencies of a rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeFrequencies {
    /// One inverse frequency per rotated pair, in radians per position.
    Fixed(Vec<f32>),
    /// Dynamic NTK scaling: beyond `original_context` positions the base grows with the position,
    /// `base * (factor * n / original_context - (factor - 1)) ^ (dims / (dims - 2))` for the token that is the `n`-th.
    ///
    /// The base depends on a token's own position only, so that a prompt's chunking cannot change its result.
    Dynamic {
        /// The unscaled base (theta).
        base: f32,
        /// The scaling factor.
        factor: f32,
        /// The context length the model was trained with.
        original_context: usize,
    },
}

/// A rotary position embedding (RoPE, <https://arxiv.org/abs/2104.09864>).
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Number of leading dimensions of each head that are rotated; even, at most the head dimension.
    pub dims: usize,
    /// Whether rotated pairs are adjacent (`2i`, `2i+1`) rather than split halves (`i`, `i + dims/2`).
    pub traditional: bool,
    /// The rotation frequencies.
    pub frequencies: RopeFrequencies,
    /// Factor on the rotated dimensions (YaRN and LongRoPE); 1 otherwise.
    pub scale: f32,
    /// Which of a row's positions turns each pair, for models whose positions have several axes (time, height, width of an
    /// image). `None`: the first.
    pub axes: Option<Arc<[u8]>>,
}

/// A factor on queries that depends on their position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PositionScale {
    /// `1 + scale * ln(1 + floor((position + first) / floor))`: Llama 4's attention temperature, which counts positions from
    /// one, and Ministral's, which counts them from zero.
    Logarithmic {
        /// Positions that share a factor.
        floor: f32,
        /// Factor on the logarithm.
        scale: f32,
        /// What the first token's position counts as.
        first: f32,
    },
}
