use std::fmt::Debug;
use std::ops::Range;

use pippin_sampling::Sampler;

use crate::{
    Activation, AttentionSpec, Batch, Beside, BlockFloat, Gate, KeyChoice, KvCacheSpec, MatrixData, Norm,
    PositionScale, Reduction, Result, RopeSpec, RouterSpec, ScanInputs, ScanSpec, StateSpec, StepInputs,
    StepShape, TensorData, TensorError,
};

/// How a backend may trade exactness for speed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numerics {
    /// The default: approximations whose cost is measured and documented are allowed.
    #[default]
    Fast,
    /// No approximation beyond `f32` rounding: activations and the KV cache stay in `f32`.
    Exact,
}

/// A linear layer: a weight matrix `[outputs, inputs]` and an optional bias `[outputs]`. A stack of experts has its
/// matrices one below the other, and a bias `[experts, outputs]`.
#[derive(Debug)]
pub struct Linear<B: Backend> {
    /// The weight matrix.
    pub weight: B::Matrix,
    /// The bias, added to every row.
    pub bias: Option<B::Tensor>,
    /// The rotation of what it is given, if the matrix was made for one.
    pub hadamard: Option<Hadamard<B::Tensor>>,
}

/// A rotation of rows: each column with its sign, then [`Backend::hadamard`]. It makes the weights of a matrix that is rotated
/// the same way alike, so that few bits are enough for them (<https://arxiv.org/abs/2404.00456>).
#[derive(Clone, Debug)]
pub struct Hadamard<T> {
    /// Ones and minus ones, `[1, columns]`.
    pub signs: T,
    /// Columns that are transformed together, a power of two.
    pub block: usize,
}

impl<T: Clone> Hadamard<T> {
    /// The rotation of some rows.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn apply<B: Backend<Tensor = T>>(&self, backend: &B, x: &T) -> Result<T> {
        backend.hadamard(&backend.mul(x, &self.signs)?, self.block)
    }

    /// What is rotated, from the rotation of it.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn invert<B: Backend<Tensor = T>>(&self, backend: &B, x: &T) -> Result<T> {
        backend.mul(&backend.hadamard(x, self.block)?, &self.signs)
    }
}

/// How heads are rotated: the angles of this step's rows and what they were computed from.
#[derive(Debug)]
pub struct Rotation<'a, B: Backend> {
    /// What [`Backend::rope_angles`] returned.
    pub angles: &'a B::Tensor,
    /// What it was given.
    pub spec: &'a RopeSpec,
}

impl<B: Backend> Clone for Rotation<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Rotation<'_, B> {}

/// What happens to queries and keys between their projections and the attention.
#[derive(Debug)]
pub struct HeadSpec<'a, B: Backend> {
    /// Dimension of one head of the queries and keys.
    pub key_dim: usize,
    /// The queries' norm.
    pub query_norm: Option<&'a Norm<B::Tensor>>,
    /// The keys' norm.
    pub key_norm: Option<&'a Norm<B::Tensor>>,
    /// The rotation, after the norms.
    pub rotation: Option<Rotation<'a, B>>,
}

impl<B: Backend> Clone for HeadSpec<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for HeadSpec<'_, B> {}

/// Tokens that were drawn on a device.
#[derive(Debug)]
pub struct Drawn<B: Backend> {
    /// One for each row of the logits. [`u32::MAX`] where these hold a NaN or no finite maximum.
    pub tokens: B::Indices,
    /// Their log-probabilities, `[rows, 1]`, if any of the samplers reports them; those of the others may be anything.
    pub logprobs: Option<B::Tensor>,
}

/// A device that runs models.
///
/// Tensors are two-dimensional, `[rows, columns]`, row by row; a vector is a tensor of one row. Numbers are `f32` as far
/// as this contract goes: a backend may keep activations in a narrower type where [`Numerics::Fast`] allows it. Every
/// method checks its operands' shapes and returns an error rather than panicking, because what it is asked to do comes
/// from model files.
///
/// Results for one row must not depend on the other rows of the call, bit for bit: greedy output may depend neither on
/// batch neighbours nor on how a prompt was cut into chunks. The conformance suite checks this for every operation.
///
/// What is computed from a NaN is one: no clamp and no maximum may make a number of it, so that a model that has gone wrong
/// is noticed by its logits. What no row sees (of a cache, or of other rows) counts for nothing even if it is one.
///
/// Indices are checked on the host, where they enter ([`Batch::push`], [`checked_indices`](Self::checked_indices)). A
/// device is not asked to check those that it computes itself or is handed without: an index beyond its limit reads as
/// zeros, writes nothing, and touches no memory that is not the operand's.
///
/// A model is built, used and dropped on one thread, so nothing here needs to be `Send`.
pub trait Backend: Sized + Debug + 'static {
    /// An activation or a small parameter (norm weight, bias). Cloning is cheap.
    type Tensor: Clone + Debug;
    /// A buffer of `u32` indices. Cloning is cheap.
    type Indices: Clone + Debug;
    /// A weight matrix `[outputs, inputs]`, dense or quantized, in the device's own layout.
    type Matrix: Debug;
    /// One layer's keys and values.
    type KvCache: Debug;
    /// What a recurrent mixer keeps for each slot.
    type State: Debug;

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

    /// Copies indices to the device once all are known to be below a limit.
    ///
    /// # Errors
    /// An index that is not, or no memory.
    fn checked_indices(&self, values: &[u32], limit: usize) -> Result<Self::Indices> {
        match values.iter().find(|index| **index as usize >= limit) {
            Some(index) => {
                let index = u64::from(*index);
                Err(TensorError::Index { operation: "indices", index, limit: limit as u64 })
            }
            None => self.indices(values),
        }
    }

    /// Copies a tensor back, row by row; waits for whatever computes it.
    ///
    /// # Errors
    /// The device failed.
    fn read(&self, tensor: &Self::Tensor) -> Result<Vec<f32>>;

    /// Copies indices back; waits for whatever computes them.
    ///
    /// # Errors
    /// The device failed.
    fn read_indices(&self, indices: &Self::Indices) -> Result<Vec<u32>>;

    /// Lends a tensor's values to the host, which may change them: the tensor is given up. Where its memory is the
    /// host's, nothing is copied.
    ///
    /// # Errors
    /// The device failed.
    fn lend<T>(&self, tensor: Self::Tensor, f: impl FnOnce(&mut [f32]) -> T) -> Result<T> {
        Ok(f(&mut self.read(&tensor)?))
    }

    /// Allocates one layer's KV cache. Its contents are unspecified until written.
    ///
    /// # Errors
    /// A format that the backend does not have, or no memory.
    fn kv_cache(&self, spec: &KvCacheSpec) -> Result<Self::KvCache>;

    /// Allocates what a mixer keeps for each slot: zeros.
    ///
    /// # Errors
    /// No memory.
    fn state(&self, spec: &StateSpec) -> Result<Self::State>;

    /// Makes a slot's state zeros again.
    ///
    /// # Errors
    /// A slot out of range.
    fn reset_state(&self, state: &mut Self::State, slot: usize) -> Result<()>;

    /// Copies one slot's state to another slot.
    ///
    /// # Errors
    /// A slot out of range.
    fn copy_state(&self, state: &mut Self::State, from: usize, to: usize) -> Result<()>;

    // Keeping what a sequence has computed beyond the life of a cache. A backend that does not support it has none of these.

    /// Names all that decides, beside model and inputs, which bits a cache or a state holds: kernels, instruction set,
    /// numerics, the layout of what [`read_page`](Self::read_page) gives. What one backend has read, another may be
    /// given only if both say the same. `None`: nothing can be kept.
    fn kept_as(&self) -> Option<String> {
        None
    }

    /// Appends the bytes of one page to `to`, as the steps before have left them; waits for those. The number of bytes is
    /// [`KvCacheSpec::page_bytes`]. Rows that were never written have bytes that nobody looks at.
    ///
    /// # Errors
    /// A page out of range, the device failed, or the backend does not support it.
    fn read_page(&self, _cache: &Self::KvCache, _page: usize, _to: &mut Vec<u8>) -> Result<()> {
        Err(TensorError::Unsupported { backend: self.name(), what: "keeping pages".to_owned() })
    }

    /// Puts the bytes that [`read_page`](Self::read_page) gave, of a cache with the same spec but for the number of pages,
    /// into a page of this one: what is computed from it then has the same bits. Any bytes do no harm to memory.
    ///
    /// # Errors
    /// A page out of range or another number of bytes (nothing is written then), the device failed, or the backend does
    /// not support it.
    fn write_page(&self, _cache: &mut Self::KvCache, _page: usize, _bytes: &[u8]) -> Result<()> {
        Err(TensorError::Unsupported { backend: self.name(), what: "keeping pages".to_owned() })
    }

    /// Appends the bytes of a slot's state to `to`: four for each of [`StateSpec::columns`].
    ///
    /// # Errors
    /// A slot out of range, the device failed, or the backend does not support it.
    fn read_state(&self, _state: &Self::State, _slot: usize, _to: &mut Vec<u8>) -> Result<()> {
        Err(TensorError::Unsupported { backend: self.name(), what: "keeping states".to_owned() })
    }

    /// Puts the bytes that [`read_state`](Self::read_state) gave, of a state with as many columns, into a slot of this one.
    ///
    /// # Errors
    /// A slot out of range or another number of bytes (nothing is written then), the device failed, or the backend does
    /// not support it.
    fn write_state(&self, _state: &mut Self::State, _slot: usize, _bytes: &[u8]) -> Result<()> {
        Err(TensorError::Unsupported { backend: self.name(), what: "keeping states".to_owned() })
    }

    /// A tensor's `[rows, columns]`.
    fn shape(&self, tensor: &Self::Tensor) -> [usize; 2];

    /// A matrix's `[outputs, inputs]`.
    fn matrix_shape(&self, matrix: &Self::Matrix) -> [usize; 2];

    // Steps

    /// Copies a step's inputs to the device. A backend that records steps overrides this, to write into buffers that
    /// stay where they are and to pad counts.
    ///
    /// # Errors
    /// No memory.
    fn upload(&self, batch: &Batch) -> Result<StepInputs<Self>> {
        StepInputs::new(self, batch)
    }

    /// Runs the operations of a step. A backend that records steps overrides this: the operations that `f` asks for are
    /// the same for all steps of a shape, on the same buffers.
    ///
    /// # Errors
    /// Those of `f`, or of the recording.
    fn record<T, E: From<TensorError>>(
        &self,
        _shape: &StepShape,
        f: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        f()
    }

    /// Draws each row's next token with its sampler, without waiting for the result: the token that
    /// [`Sampler::sample`] draws from the same logits, which stay as they are. `None` where the device has no samplers, or
    /// not for these parameters: then the host draws from the logits. The samplers' random numbers move on by a token
    /// exactly where this draws; that it is [accepted](Sampler::accept) is for the caller to say, once it is known. It is not
    /// asked where a sampler reports [`top_logprobs`](pippin_sampling::GenerateParameters::top_logprobs), nor where one that
    /// [looks back](Sampler::looks_back) does not know all tokens before this one.
    ///
    /// Sums that decide are added as the host adds them. Excepted are those over sorted candidates (the masses that top-p
    /// compares, XTC's total), which may be added in any order in `f64`: that makes a difference of a unit in the last place
    /// where numbers differ by a factor of 2^30.
    ///
    /// # Errors
    /// The device failed.
    fn sample(&self, _logits: &Self::Tensor, _samplers: &mut [&mut Sampler]) -> Result<Option<Drawn<Self>>> {
        Ok(None)
    }

    /// A copy of `into` with `values[i]` at place `at[i]`. Asked only of devices that [`sample`](Self::sample).
    ///
    /// # Errors
    /// The device has no such operation.
    fn place(
        &self,
        _into: &Self::Indices,
        _at: &Self::Indices,
        _values: &Self::Indices,
    ) -> Result<Self::Indices> {
        Err(TensorError::Unsupported { backend: self.name(), what: "placing indices".into() })
    }

    /// `from[choice[i]]` where `choice[i]` is a place of `from`, else `otherwise[i]`. Asked only of devices that
    /// [`sample`](Self::sample).
    ///
    /// # Errors
    /// The device has no such operation.
    fn choose(
        &self,
        _choice: &Self::Indices,
        _from: &Self::Indices,
        _otherwise: &Self::Indices,
    ) -> Result<Self::Indices> {
        Err(TensorError::Unsupported { backend: self.name(), what: "choosing indices".into() })
    }

    // Products

    /// Rows of a matrix: `[n]` indices into `[v, d]` give `[n, d]`.
    ///
    /// # Errors
    /// The device failed.
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
    /// Shapes that do not fit.
    fn gathered_matmul(
        &self,
        x: &Self::Tensor,
        weight: &Self::Matrix,
        experts: usize,
        routes: &Self::Indices,
    ) -> Result<Self::Tensor>;

    // Elements and rows

    /// `a + b`; `b` has the shape of `a`, or is one row that is added to every row, or one column that is added to every
    /// column, or a single number that is added to every other.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;

    /// `a * b`, with the shapes of [`add`](Self::add).
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn mul(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;

    /// `x * factor + offset`.
    ///
    /// # Errors
    /// The device failed.
    fn scale(&self, x: &Self::Tensor, factor: f32, offset: f32) -> Result<Self::Tensor>;

    /// An activation of each element.
    ///
    /// # Errors
    /// An activation that the backend does not have.
    fn activate(&self, x: &Self::Tensor, activation: Activation) -> Result<Self::Tensor>;

    /// The gate of a feed-forward network, element by element.
    ///
    /// # Errors
    /// Shapes that differ, or a gate that the backend does not have.
    fn gated(&self, gate: &Self::Tensor, up: &Self::Tensor, kind: Gate) -> Result<Self::Tensor>;

    /// A normalisation, see [`Norm`].
    ///
    /// # Errors
    /// Widths that do not fit.
    fn norm(&self, x: &Self::Tensor, norm: &Norm<Self::Tensor>) -> Result<Self::Tensor>;

    /// One number of each row: `[n, d]` gives `[n, 1]`.
    ///
    /// # Errors
    /// The device failed.
    fn reduce(&self, x: &Self::Tensor, reduction: Reduction) -> Result<Self::Tensor>;

    /// The softmax of each row.
    ///
    /// # Errors
    /// The device failed.
    fn softmax(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// Rows of square matrices (`[n, s · s]`, row by row) made nearly doubly stochastic (Sinkhorn and Knopp): the softmax of each
    /// column, plus `eps`; then each row is divided by its sum plus `eps`, and each column and each row by turns, until rows
    /// have been `iterations` times.
    ///
    /// # Errors
    /// A number of columns that is no square, or no iterations.
    fn sinkhorn(&self, x: &Self::Tensor, iterations: usize, eps: f32) -> Result<Self::Tensor>;

    /// Numbers rounded in blocks of neighbouring columns, see [`BlockFloat`].
    ///
    /// # Errors
    /// Columns that are not whole blocks.
    fn round_blocks(&self, x: &Self::Tensor, kind: BlockFloat) -> Result<Self::Tensor>;

    /// Weighted sums of neighbouring rows: `[n · c, d]` with weights `[n, c]` gives `[n, d]`, the rows added in order.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn weighted_sum(&self, x: &Self::Tensor, weights: &Self::Tensor) -> Result<Self::Tensor>;

    // Shapes

    /// The same elements, row by row, in rows of another length.
    ///
    /// # Errors
    /// Sizes that differ.
    fn reshape(&self, x: &Self::Tensor, shape: [usize; 2]) -> Result<Self::Tensor>;

    /// Some columns of a tensor.
    ///
    /// # Errors
    /// Columns that it does not have.
    fn columns(&self, x: &Self::Tensor, range: Range<usize>) -> Result<Self::Tensor>;

    /// Tensors side by side.
    ///
    /// # Errors
    /// Numbers of rows that differ, or no tensors.
    fn join(&self, parts: &[&Self::Tensor]) -> Result<Self::Tensor>;

    /// Rows of a tensor: `[m]` indices into `[n, d]` give `[m, d]`. An index beyond the last row gives a row of zeros,
    /// which is what lies around the edges of a convolution.
    ///
    /// # Errors
    /// The device failed.
    fn select_rows(&self, x: &Self::Tensor, rows: &Self::Indices) -> Result<Self::Tensor>;

    // Positions and attention

    /// The cosines (first `dims / 2` columns) and sines (last `dims / 2`) of each row's rotations, times `spec.scale`:
    /// `[axes, n]` positions give `[n, dims]`. Computed once a step and shared by all layers.
    ///
    /// # Errors
    /// Odd dimensions, or frequencies or axes that do not match them.
    fn rope_angles(&self, positions: &Self::Indices, axes: usize, spec: &RopeSpec) -> Result<Self::Tensor>;

    /// A factor for each row from the first axis of its position: `[n, 1]`.
    ///
    /// # Errors
    /// A kind that the backend does not have.
    fn position_scale(
        &self,
        positions: &Self::Indices,
        axes: usize,
        spec: PositionScale,
    ) -> Result<Self::Tensor>;

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

    /// Writes keys (`[n, kv_heads * key_dim]`) and values (`[n, kv_heads * value_dim]`) into rows of a KV cache, which
    /// [`CacheInputs::rows`](crate::CacheInputs::rows) names. Values are absent where the cache keeps them in its keys.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn kv_write(
        &self,
        cache: &mut Self::KvCache,
        keys: &Self::Tensor,
        values: Option<&Self::Tensor>,
        rows: &Self::Indices,
    ) -> Result<()>;

    /// Attention of the step's queries (`[rows, heads * key_dim]`) over their sequences' keys and values in a cache of a
    /// group, those of this step included (they have been written before): `[rows, heads * value_dim]`. A row sees what
    /// `spec.reach` and the step's `visible_ends` leave. `sinks` (`[1, heads]`) are scores that take part in the softmax
    /// and have no value.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn attention(
        &self,
        queries: &Self::Tensor,
        cache: &Self::KvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &AttentionSpec,
        sinks: Option<&Self::Tensor>,
    ) -> Result<Self::Tensor>;

    /// Chooses for each row of the step the keys that an index ranks highest, of those that the row would see of its
    /// sequence: at most `spec.top_k`. The index has keys of one head in a cache of a group, and `spec.heads` queries for
    /// each row (`[rows, heads * key_dim]`); a key's rank is `Σ weights[h] · max(queries[h] · key, 0)`, the weights being
    /// `[rows, heads]`, and of equals the earlier key comes first. Returns `[rows * k]` indices of tokens within their
    /// sequences, ascending; where there are fewer than `k`, what follows them is `u32::MAX`. `k` is `top_k` blocks, or less where
    /// no row of the step sees so many. With `among`, which an earlier choice returned, only keys that are in it are chosen.
    ///
    /// # Errors
    /// Shapes that do not fit, or blocks among others.
    fn choose_keys(
        &self,
        queries: &Self::Tensor,
        weights: &Self::Tensor,
        keys: &Self::KvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &KeyChoice,
        among: Option<&Self::Indices>,
    ) -> Result<Self::Indices>;

    /// [`attention`](Self::attention) in which each row sees the keys that [`choose_keys`](Self::choose_keys) chose for it,
    /// `chosen`, those of another cache besides if there is one, and no others. Where the chosen are all that it would see, and
    /// there is no other cache, the result is that of `attention` to the bit.
    ///
    /// # Errors
    /// Shapes that do not fit, or a reach that is not [`Reach::All`](crate::Reach::All).
    fn attention_among(
        &self,
        queries: &Self::Tensor,
        cache: &Self::KvCache,
        step: &StepInputs<Self>,
        group: usize,
        spec: &AttentionSpec,
        chosen: &Self::Indices,
        beside: Option<Beside<'_, Self::KvCache>>,
        sinks: Option<&Self::Tensor>,
    ) -> Result<Self::Tensor>;

    /// Attention without a cache: row `i` of the queries sees the rows from `spans[2 i]` to before `spans[2 i + 1]` of
    /// keys and values (encoders, cross attention). `spec.reach` counts from the end of what a row sees.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn attention_over(
        &self,
        queries: &Self::Tensor,
        keys: &Self::Tensor,
        values: &Self::Tensor,
        spans: &Self::Indices,
        spec: &AttentionSpec,
    ) -> Result<Self::Tensor>;

    // Experts and recurrences

    /// Chooses `top_k` experts for each row of router logits (`[n, experts]`); `bias` (`[1, experts]`) is added to the
    /// scores for the choice alone. Returns the routes (`[n · top_k]`, the best first, the lower index of equals) and their
    /// weights (`[n, top_k]`).
    ///
    /// # Errors
    /// Shapes that do not fit, or a specification that contradicts itself.
    fn route(
        &self,
        logits: &Self::Tensor,
        bias: Option<&Self::Tensor>,
        spec: &RouterSpec,
    ) -> Result<(Self::Indices, Self::Tensor)>;

    /// A causal convolution of each column by itself along its sequence: `y[t] = bias + Σ_k weight[k] · x[t - taps + 1 + k]`
    /// for `weight` of `[columns, taps]`, with what came before the step from the state, which keeps the last `taps - 1`
    /// rows (`(taps - 1) · columns` numbers) of each slot.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn causal_convolution(
        &self,
        x: &Self::Tensor,
        weight: &Self::Tensor,
        bias: Option<&Self::Tensor>,
        state: &mut Self::State,
        step: &StepInputs<Self>,
    ) -> Result<Self::Tensor>;

    /// A linear recurrence with a matrix `S` (`[value_dim, key_dim]`) for a state in each head, row by row along each
    /// sequence: `S` decays and is updated as [`ScanUpdate`](crate::ScanUpdate) says, then `y = S q`, `[n, heads *
    /// value_dim]`. The state of a slot is its heads' matrices one after the other.
    ///
    /// However the rows of a sequence are cut into steps, results are the same bits.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn scan(
        &self,
        inputs: &ScanInputs<'_, Self::Tensor>,
        spec: &ScanSpec,
        state: &mut Self::State,
        step: &StepInputs<Self>,
    ) -> Result<Self::Tensor>;

    // Fused operations: each default body is the operation's definition.

    /// The Walsh-Hadamard transform of each run of `block` columns, a power of two, divided by the root of `block`: a column
    /// `i` of the result is the sum of all columns `j` of the run, negative where `i & j` has an odd number of ones. It keeps
    /// lengths, and is its own inverse.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn hadamard(&self, x: &Self::Tensor, block: usize) -> Result<Self::Tensor> {
        let [rows, columns] = self.shape(x);
        if !block.is_power_of_two() || !columns.is_multiple_of(block) {
            return Err(TensorError::shape("hadamard", format!("runs of {block} columns"), columns));
        }
        let (mut y, mut half) = (x.clone(), 1);
        while half < block {
            let pairs = self.reshape(&y, [rows * (columns / (2 * half)), 2 * half])?;
            let (first, second) = (self.columns(&pairs, 0..half)?, self.columns(&pairs, half..2 * half)?);
            let difference = self.add(&first, &self.scale(&second, -1.0, 0.0)?)?;
            y = self.join(&[&self.add(&first, &second)?, &difference])?;
            half *= 2;
        }
        self.scale(&self.reshape(&y, [rows, columns])?, (block as f32).sqrt().recip(), 0.0)
    }

    /// A linear layer: [`matmul`](Self::matmul) and its bias, of what is rotated first where the layer says so.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn linear(&self, x: &Self::Tensor, linear: &Linear<Self>) -> Result<Self::Tensor> {
        let y = match &linear.hadamard {
            Some(rotation) => self.matmul(&rotation.apply(self, x)?, &linear.weight)?,
            None => self.matmul(x, &linear.weight)?,
        };
        match &linear.bias {
            Some(bias) => self.add(&y, bias),
            None => Ok(y),
        }
    }

    /// Several linear layers of one input, which is normalised first if there is a norm: queries, keys and values.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn norm_linears(
        &self,
        x: &Self::Tensor,
        norm: Option<&Norm<Self::Tensor>>,
        linears: &[&Linear<Self>],
    ) -> Result<Vec<Self::Tensor>> {
        let x = &normalised(self, x, norm)?;
        linears.iter().map(|linear| self.linear(x, linear)).collect()
    }

    /// The first half of a gated feed-forward network on an input that is normalised first if there is a norm:
    /// `kind(gate(x), up(x))`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn norm_gated(
        &self,
        x: &Self::Tensor,
        norm: Option<&Norm<Self::Tensor>>,
        gate: &Linear<Self>,
        up: &Linear<Self>,
        kind: Gate,
    ) -> Result<Self::Tensor> {
        let x = &normalised(self, x, norm)?;
        self.gated(&self.linear(x, gate)?, &self.linear(x, up)?, kind)
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

    /// [`gathered_matmul`](Self::gathered_matmul) and each expert's own bias. Experts have no rotation.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn gathered_linear(
        &self,
        x: &Self::Tensor,
        linear: &Linear<Self>,
        experts: usize,
        routes: &Self::Indices,
    ) -> Result<Self::Tensor> {
        let y = self.gathered_matmul(x, &linear.weight, experts, routes)?;
        match &linear.bias {
            Some(biases) => self.add(&y, &self.select_rows(biases, routes)?),
            None => Ok(y),
        }
    }

    /// What stands between the projections and the attention: norms of queries and keys where the model has them, their
    /// rotation, and the write of keys and values into the cache. Returns the queries.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn write_heads(
        &self,
        queries: &Self::Tensor,
        keys: &Self::Tensor,
        values: Option<&Self::Tensor>,
        spec: HeadSpec<'_, Self>,
        cache: &mut Self::KvCache,
        rows: &Self::Indices,
    ) -> Result<Self::Tensor> {
        let rotated = |x: &Self::Tensor, norm| {
            let x = normalised(self, x, norm)?;
            match spec.rotation {
                Some(Rotation { angles, spec: rope }) => self.rope(&x, angles, spec.key_dim, rope),
                None => Ok(x),
            }
        };
        self.kv_write(cache, &rotated(keys, spec.key_norm)?, values, rows)?;
        rotated(queries, spec.query_norm)
    }

    /// A convolution: output row `i` is the linear layer of the rows `taps[i · c ..][.. c]` of `x` side by side, for
    /// matrices of `c · d` inputs and `x` of `d` columns. An index beyond the last row stands for zeros. One axis, two or
    /// three, strides, padding and dilation are all in the indices; see [`convolution`](crate::convolution).
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn convolve(
        &self,
        x: &Self::Tensor,
        linear: &Linear<Self>,
        taps: &Self::Indices,
        outputs: usize,
    ) -> Result<Self::Tensor> {
        let [_, inputs] = self.matrix_shape(&linear.weight);
        let windows = self.reshape(&self.select_rows(x, taps)?, [outputs, inputs])?;
        self.linear(&windows, linear)
    }

    /// A transposed convolution: each row of `x` gives `taps` rows of `d` columns (`linear` has `taps · d` outputs and no
    /// bias), and output row `i` is the sum of those that `sources[i · c ..][.. c]` names, an index beyond them standing for
    /// zeros; then the bias (`[1, d]`).
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn convolve_transposed(
        &self,
        x: &Self::Tensor,
        linear: &Linear<Self>,
        taps: usize,
        sources: &Self::Indices,
        outputs: usize,
        bias: Option<&Self::Tensor>,
    ) -> Result<Self::Tensor> {
        let [rows, _] = self.shape(x);
        let [width, _] = self.matrix_shape(&linear.weight);
        let Some(columns) = width.checked_div(taps).filter(|columns| columns * taps == width) else {
            return Err(TensorError::shape("convolve_transposed", format!("outputs for {taps} taps"), width));
        };
        let contributions = self.reshape(&self.linear(x, linear)?, [rows * taps, columns])?;
        let gathered = self.select_rows(&contributions, sources)?;
        let [total, _] = self.shape(&gathered);
        let terms = total.checked_div(outputs).unwrap_or(0);
        let ones = TensorData::from_f32("ones", &[outputs, terms], &vec![1.0; outputs * terms])?;
        let sums = self.weighted_sum(&gathered, &self.tensor(&ones)?)?;
        match bias {
            Some(bias) => self.add(&sums, bias),
            None => Ok(sums),
        }
    }
}

/// `x` through a norm, if there is one.
fn normalised<B: Backend>(backend: &B, x: &B::Tensor, norm: Option<&Norm<B::Tensor>>) -> Result<B::Tensor> {
    match norm {
        Some(norm) => backend.norm(x, norm),
        None => Ok(x.clone()),
    }
}
