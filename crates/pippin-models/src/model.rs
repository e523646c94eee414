use pippin_tensor::{Batch, Dtype, KvFormat, QuantSpec};
use serde::Serialize;

use crate::Result;

/// What a model is: the facts that `pippin show` prints and that an engine plans with.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ModelInfo {
    /// `model_type` as `config.json` spells it.
    pub model_type: String,
    /// The family whose code runs it.
    pub family: &'static str,
    /// Number of token ids.
    pub vocab_size: usize,
    /// The longest sequence the model was made for.
    pub context_length: usize,
    /// Number of layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads of the first layer.
    pub heads: usize,
    /// Key and value heads of the first layer.
    pub kv_heads: usize,
    /// Dimension of one head of the first layer.
    pub head_dim: usize,
    /// Numbers that the KV cache keeps for each token: keys and values of all layers.
    pub kv_values_per_token: u64,
    /// The smallest sliding window of any layer, if one has any.
    pub sliding_window: Option<usize>,
    /// Whether the output head is the embedding matrix.
    pub tied_head: bool,
    /// Number of weights: quantized ones are counted one by one, not by the words they are packed in.
    pub parameters: u64,
    /// Bytes of all tensors in use, scales and biases included.
    pub weight_bytes: u64,
    /// `8 * weight_bytes / parameters`.
    pub bits_per_weight: f64,
    /// The type of norm weights, dense matrices and scales.
    pub dtype: Dtype,
    /// The quantization of most weights; `None` for a dense model.
    pub quantization: Option<QuantSpec>,
}

/// The logits of a step: one row for each row that the [`Batch`] asked for, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logits {
    /// Number of rows.
    pub rows: usize,
    /// Number of values in a row.
    pub vocab: usize,
    /// The values, row by row.
    pub values: Vec<f32>,
}

impl Logits {
    /// The logits of one row.
    ///
    /// # Panics
    ///
    /// When `index` is not below [`rows`](Self::rows).
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.vocab..][..self.vocab]
    }
}

/// A loaded model: tokens in, logits out.
///
/// This is where everything generic ends. The engine holds a `Box<dyn LanguageModel>` and knows neither the backend nor
/// the family behind it. One thread owns a model and runs its steps one after another.
///
/// The KV cache lives in the model, but its pages belong to the caller: the caller decides how many there are
/// ([`allocate_kv`](Self::allocate_kv)) and which sequence uses which (the page lists in the [`Batch`]).
pub trait LanguageModel: Send {
    /// What the model is.
    fn info(&self) -> &ModelInfo;

    /// Bytes that one page of `page_size` tokens takes over all layers.
    fn kv_page_bytes(&self, page_size: usize, format: KvFormat) -> usize;

    /// Allocates the KV cache, in place of any earlier one, whose contents are lost.
    ///
    /// # Errors
    ///
    /// No memory, or a format that the backend cannot keep keys and values in.
    fn allocate_kv(&mut self, pages: usize, page_size: usize, format: KvFormat) -> Result<()>;

    /// Runs one step: writes the keys and values of the batch's tokens and returns the logits it asked for.
    ///
    /// After an error the slots of the batch's tokens hold unspecified values; all others are as before, so the step
    /// can be tried again or its sequences dropped.
    ///
    /// # Errors
    ///
    /// A token outside the vocabulary (nothing has been computed then), a batch that does not fit the KV cache, or a
    /// failure of the backend.
    fn step(&mut self, batch: &Batch) -> Result<Logits>;
}
