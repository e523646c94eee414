use std::fmt::{self, Debug, Display};

use crate::{MatrixData, Result, TensorData};

/// How a backend may trade exactness for speed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numerics {
    /// The default: approximations whose cost is measured and documented are allowed.
    #[default]
    Fast,
    /// No approximation beyond `f32` rounding: activations and the KV cache stay in `f32`.
    Exact,
}

/// The activation function of a gated feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `x * sigmoid(x)`, also called swish.
    Silu,
}

/// A linear layer: a weight matrix `[outputs, inputs]` and an optional bias `[outputs]`.
#[derive(Debug)]
pub struct Linear<B: Backend> {
    /// The weight matrix.
    pub weight: B::Matrix,
    /// The bias, added to every row.
    pub bias: Option<B::Tensor>,
}

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
}

/// Attention over the KV cache: causal, grouped-query, optionally windowed and soft-capped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Dimension of one head.
    pub head_dim: usize,
    /// Factor on the scores before the softmax, usually `head_dim^-0.5`.
    pub scale: f32,
    /// Sliding window: a token at position `p` sees positions above `p - window` only.
    pub window: Option<usize>,
    /// Soft cap `c`: scores become `c * tanh(score / c)`.
    pub softcap: Option<f32>,
}

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

/// The storage of one layer's KV cache: `pages` pages of `page_size` tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvCacheSpec {
    /// Number of pages.
    pub pages: usize,
    /// Tokens per page.
    pub page_size: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Dimension of one head.
    pub head_dim: usize,
    /// How numbers are stored.
    pub format: KvFormat,
}

impl KvCacheSpec {
    /// Bytes of one page, keys and values together.
    pub fn page_bytes(&self) -> usize {
        2 * self.page_size * self.kv_heads * self.format.row_bytes(self.head_dim)
    }
}

/// Per-head normalisation of queries and keys before the rotation.
#[derive(Debug)]
pub struct HeadNorms<'a, B: Backend> {
    /// Weight of the queries' norm, `[head_dim]`.
    pub query: &'a B::Tensor,
    /// Weight of the keys' norm, `[head_dim]`.
    pub key: &'a B::Tensor,
    /// Epsilon of both.
    pub eps: f32,
}

/// One step's inputs on the device; see [`Batch::upload`](crate::Batch::upload).
///
/// The three counts and the number of logit rows are a step's *shape*: a recorded step can be replayed for any batch that
/// has the same shape. The buffers are its contents.
#[derive(Debug)]
pub struct StepInputs<B: Backend> {
    /// New tokens over all sequences.
    pub rows: usize,
    /// Number of sequences.
    pub sequences: usize,
    /// Width of `page_tables`.
    pub pages_per_sequence: usize,
    /// Token ids, `[rows]`.
    pub tokens: B::Indices,
    /// Position of each row in its sequence, `[rows]`.
    pub positions: B::Indices,
    /// KV cache slot of each row, `page * page_size + offset`, `[rows]`.
    pub slots: B::Indices,
    /// First row of each sequence, and `rows` at the end, `[sequences + 1]`.
    pub query_starts: B::Indices,
    /// Tokens of each sequence in the KV cache after this step, `[sequences]`.
    pub context_lengths: B::Indices,
    /// Pages of each sequence, `[sequences, pages_per_sequence]`.
    pub page_tables: B::Indices,
    /// Rows whose logits are wanted.
    pub logit_rows: B::Indices,
}

/// A device that runs models.
///
/// Tensors are two-dimensional, `[rows, columns]`; a vector is a tensor of one row. Numbers are `f32` as far as this
/// contract goes: a backend may keep activations in a narrower type where [`Numerics::Fast`] allows it. Every method
/// checks its operands' shapes and returns an error rather than panicking, because what it is asked to do comes from
/// model files.
///
/// Results for one row must not depend on the other rows of the call, bit for bit: greedy output may depend neither on
/// batch neighbours nor on how a prompt was cut into chunks. The conformance suite checks this.
pub trait Backend: Sized + Send + Sync + Debug + 'static {
    /// An activation or a small parameter (norm weight, bias). Cloning is cheap.
    type Tensor: Clone + Send + Sync + Debug;
    /// A buffer of `u32` indices. Cloning is cheap.
    type Indices: Clone + Send + Sync + Debug;
    /// A weight matrix `[outputs, inputs]`, dense or quantized, in the device's own layout.
    type Matrix: Send + Sync + Debug;
    /// One layer's keys and values.
    type KvCache: Send + Debug;

    /// The backend's name, as `--device` spells it.
    fn name(&self) -> &'static str;

    /// The device in words: model, instruction set, threads or memory.
    fn description(&self) -> String;

    // Transfers

    /// Copies a dense parameter to the device. Tensors of more than two dimensions are refused; a vector becomes one
    /// row.
    ///
    /// # Errors
    /// Unsupported dtype, or no memory.
    fn tensor(&self, data: &TensorData) -> Result<Self::Tensor>;

    /// Takes a weight matrix over, borrowing from the mapped file where the layout allows.
    ///
    /// # Errors
    /// Unsupported dtype or quantization, or no memory.
    fn matrix(&self, data: MatrixData) -> Result<Self::Matrix>;

    /// Copies indices to the device.
    ///
    /// # Errors
    /// No memory.
    fn indices(&self, values: &[u32]) -> Result<Self::Indices>;

    /// Copies a tensor back, row by row; waits for whatever computes it.
    ///
    /// # Errors
    /// The device failed.
    fn read(&self, tensor: &Self::Tensor) -> Result<Vec<f32>>;

    /// Allocates one layer's KV cache. Its contents are unspecified until written.
    ///
    /// # Errors
    /// A format that the backend does not have, or no memory.
    fn kv_cache(&self, spec: &KvCacheSpec) -> Result<Self::KvCache>;

    /// A tensor's `[rows, columns]`.
    fn shape(&self, tensor: &Self::Tensor) -> [usize; 2];

    /// A matrix's `[outputs, inputs]`.
    fn matrix_shape(&self, matrix: &Self::Matrix) -> [usize; 2];

    // Required operations

    /// Rows of a matrix: `[n]` indices into `[v, d]` give `[n, d]`.
    ///
    /// # Errors
    /// An index out of range.
    fn embedding(&self, table: &Self::Matrix, rows: &Self::Indices) -> Result<Self::Tensor>;

    /// `x · wᵀ`: `[n, k]` times `[o, k]` gives `[n, o]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn matmul(&self, x: &Self::Tensor, weight: &Self::Matrix) -> Result<Self::Tensor>;

    /// Products with a mixture of experts: `weight` is `experts` matrices `[o, k]`, one below the other, and row `i` of
    /// the result is row `i / (routes / rows)` of `x` times the matrix of expert `routes[i]`. So `[n, k]` with `n · c`
    /// routes gives `[n · c, o]`: with `c` above one each row goes to `c` experts, with `c = 1` each has its own (the
    /// second half of a feed-forward network). Rows of one expert are multiplied together.
    ///
    /// # Errors
    /// Shapes that do not fit, or a route to no expert.
    fn gathered_matmul(
        &self,
        x: &Self::Tensor,
        weight: &Self::Matrix,
        experts: usize,
        routes: &Self::Indices,
    ) -> Result<Self::Tensor>;

    /// `a + b`; `b` has the shape of `a`, or one row that is added to every row.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;

    /// `activation(gate) * up`, element by element.
    ///
    /// # Errors
    /// Shapes that differ.
    fn gated(&self, gate: &Self::Tensor, up: &Self::Tensor, activation: Activation) -> Result<Self::Tensor>;

    /// Root-mean-square norm (<https://arxiv.org/abs/1910.07467>) over runs of `weight.columns` values:
    /// `x * weight / sqrt(mean(x²) + eps)`. With a weight as wide as `x` that is the usual norm of a row; with one as
    /// wide as a head, each head is normalised by itself.
    ///
    /// # Errors
    /// A weight whose width does not divide that of `x`.
    fn rms_norm(&self, x: &Self::Tensor, weight: &Self::Tensor, eps: f32) -> Result<Self::Tensor>;

    /// The cosines (first `dims / 2` columns) and sines (last `dims / 2`) of each position's rotations, times
    /// `spec.scale`: `[n]` positions give `[n, dims]`. Computed once a step and shared by all layers.
    ///
    /// # Errors
    /// Odd dimensions, or frequencies that do not match them.
    fn rope_angles(&self, positions: &Self::Indices, spec: &RopeSpec) -> Result<Self::Tensor>;

    /// Rotates the leading `spec.dims` dimensions of every head of `x` (`[n, heads * head_dim]`) by `angles`
    /// (`[n, dims]`); the others pass unchanged.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn rope(
        &self,
        x: &Self::Tensor,
        angles: &Self::Tensor,
        head_dim: usize,
        spec: &RopeSpec,
    ) -> Result<Self::Tensor>;

    /// Writes keys and values (`[n, kv_heads * head_dim]` each) into the slots of a KV cache.
    ///
    /// # Errors
    /// Shapes that do not fit, or a slot out of range.
    fn kv_write(
        &self,
        cache: &mut Self::KvCache,
        keys: &Self::Tensor,
        values: &Self::Tensor,
        slots: &Self::Indices,
    ) -> Result<()>;

    /// Causal attention of the step's queries (`[rows, heads * head_dim]`) over their sequences' keys and values,
    /// those of this step included (they have been written before).
    ///
    /// # Errors
    /// Shapes that do not fit, or a page out of range.
    fn attention(
        &self,
        queries: &Self::Tensor,
        cache: &Self::KvCache,
        step: &StepInputs<Self>,
        spec: &AttentionSpec,
    ) -> Result<Self::Tensor>;

    /// Rows of a tensor: `[m]` indices into `[n, d]` give `[m, d]`.
    ///
    /// # Errors
    /// An index out of range.
    fn select_rows(&self, x: &Self::Tensor, rows: &Self::Indices) -> Result<Self::Tensor>;

    // Fused operations: each default body is the operation's definition.

    /// A linear layer: [`matmul`](Self::matmul) and its bias.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn linear(&self, x: &Self::Tensor, linear: &Linear<Self>) -> Result<Self::Tensor> {
        let y = self.matmul(x, &linear.weight)?;
        match &linear.bias {
            Some(bias) => self.add(&y, bias),
            None => Ok(y),
        }
    }

    /// Several linear layers of one normalised input: queries, keys and values.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn rms_norm_matmul(
        &self,
        x: &Self::Tensor,
        norm: &Self::Tensor,
        eps: f32,
        linears: &[&Linear<Self>],
    ) -> Result<Vec<Self::Tensor>> {
        let x = self.rms_norm(x, norm, eps)?;
        linears.iter().map(|linear| self.linear(&x, linear)).collect()
    }

    /// The first half of a gated feed-forward network on a normalised input:
    /// `activation(gate(norm(x))) * up(norm(x))`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn rms_norm_gated_matmul(
        &self,
        x: &Self::Tensor,
        norm: &Self::Tensor,
        eps: f32,
        gate: &Linear<Self>,
        up: &Linear<Self>,
        activation: Activation,
    ) -> Result<Self::Tensor> {
        let x = self.rms_norm(x, norm, eps)?;
        self.gated(&self.linear(&x, gate)?, &self.linear(&x, up)?, activation)
    }

    /// A linear layer added to a residual: `residual + linear(x)`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn linear_add(
        &self,
        x: &Self::Tensor,
        linear: &Linear<Self>,
        residual: &Self::Tensor,
    ) -> Result<Self::Tensor> {
        self.add(residual, &self.linear(x, linear)?)
    }

    /// What stands between the projections and the attention: per-head norms of queries and keys where the model has
    /// them, their rotation, and the write of keys and values into the cache. Returns the queries.
    ///
    /// # Errors
    /// Shapes that do not fit, or a slot out of range.
    fn qkv_rope(
        &self,
        [queries, keys, values]: [&Self::Tensor; 3],
        norms: Option<HeadNorms<'_, Self>>,
        angles: &Self::Tensor,
        rope: &RopeSpec,
        cache: &mut Self::KvCache,
        slots: &Self::Indices,
        head_dim: usize,
    ) -> Result<Self::Tensor> {
        let (queries, keys) = match norms {
            Some(norms) => {
                (self.rms_norm(queries, norms.query, norms.eps)?, self.rms_norm(keys, norms.key, norms.eps)?)
            }
            None => (queries.clone(), keys.clone()),
        };
        let keys = self.rope(&keys, angles, head_dim, rope)?;
        self.kv_write(cache, &keys, values, slots)?;
        self.rope(&queries, angles, head_dim, rope)
    }
}
