/// State that a mixer keeps for each slot: rows of `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSpec {
    /// Number of slots.
    pub slots: usize,
    /// Numbers that a slot keeps.
    pub columns: usize,
}

/// The shape of a linear recurrence with a matrix for a state, see [`Backend::scan`](crate::Backend::scan).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanSpec {
    /// Heads, each with a state `[value_dim, key_dim]`.
    pub heads: usize,
    /// Heads of queries and keys; divides `heads`, whose groups share them.
    pub key_heads: usize,
    /// Dimension of a head's keys and queries.
    pub key_dim: usize,
    /// Dimension of a head's values.
    pub value_dim: usize,
}

impl ScanSpec {
    /// Numbers of a slot's state.
    pub fn state_columns(&self) -> usize {
        self.heads.saturating_mul(self.value_dim).saturating_mul(self.key_dim)
    }
}

/// The operands of a linear recurrence; `T` is a tensor.
#[derive(Debug)]
pub struct ScanInputs<'a, T> {
    /// What the state is read with, `[rows, key_heads * key_dim]`.
    pub queries: &'a T,
    /// Where values are written, `[rows, key_heads * key_dim]`.
    pub keys: &'a T,
    /// What is written, `[rows, heads * value_dim]`.
    pub values: &'a T,
    /// Factors on what is there, one for each head or one for each column of its state: `[rows, heads]` or
    /// `[rows, heads * key_dim]`.
    pub decay: &'a T,
    /// What else happens to the state.
    pub update: ScanUpdate<'a, T>,
}

/// How a linear recurrence changes its state `S` apart from the decay `w`.
#[derive(Debug)]
pub enum ScanUpdate<'a, T> {
    /// `S·diag(w) + v kᵀ`: state spaces, retention, gated linear attention.
    Add,
    /// `S' = S·diag(w)`, then `S' + beta (v - S' k) kᵀ`: the gated delta rule (<https://arxiv.org/abs/2412.06464>). `beta`
    /// is `[rows, heads]`.
    Delta {
        /// How much of what the key recalls is replaced.
        beta: &'a T,
    },
    /// `S·diag(w) + (S a) bᵀ + v kᵀ`: RWKV 7 (<https://arxiv.org/abs/2503.14456>). Both are `[rows, heads * key_dim]`.
    LowRank {
        /// What the state is read with before it decays.
        a: &'a T,
        /// Where what was read is written.
        b: &'a T,
    },
}

impl<T> Clone for ScanInputs<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ScanInputs<'_, T> {}

impl<T> Clone for ScanUpdate<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ScanUpdate<'_, T> {}
