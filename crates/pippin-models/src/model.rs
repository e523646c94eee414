use std::sync::Arc;

use pippin_sampling::{Sampled, Sampler, TokenMask};
use pippin_tensor::{Batch, Dtype, QuantSpec, StepLimits};
use serde::Serialize;

use crate::cache::{CacheLayout, CachePlan};
use crate::{ModelError, Result};

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
    /// Query heads of the first layer that has attention; 0 if none has.
    pub heads: usize,
    /// Key and value heads of that layer.
    pub kv_heads: usize,
    /// Dimension of one head of that layer.
    pub head_dim: usize,
    /// What a sequence keeps between steps.
    pub cache: CacheLayout,
    /// The smallest sliding window of any layer, if one has any.
    pub sliding_window: Option<usize>,
    /// Whether the output head is the embedding matrix.
    pub tied_head: bool,
    /// Number of weights: quantized ones are counted one by one, not by the words they are packed in.
    pub parameters: u64,
    /// Bytes of all tensors in use, scales and biases included.
    pub weight_bytes: u64,
    /// Of these, the bytes that are not read from the files as they lie there, but made of them when the model is loaded, and
    /// so take memory of the process.
    pub copied_bytes: u64,
    /// `8 * weight_bytes / parameters`.
    pub bits_per_weight: f64,
    /// The type of norm weights, dense matrices and scales.
    pub dtype: Dtype,
    /// The quantization of most weights; `None` for a dense model.
    pub quantization: Option<QuantSpec>,
    /// All weights by how they are stored, the most first.
    pub stored: Vec<StoredWeights>,
    /// Weights that a token uses: all but those of the experts that it does not go through.
    pub active_parameters: u64,
    /// The experts of the layers that have a mixture.
    pub mixtures: Vec<Mixture>,
    /// What is odd about the model's files but does no harm, in sentences for the user.
    pub warnings: Vec<String>,
}

/// Weights that are stored alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredWeights {
    /// Their quantization; `None` where they are dense.
    pub quantization: Option<QuantSpec>,
    /// How many they are.
    pub weights: u64,
}

/// Experts of one or several layers with as many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Mixture {
    /// How many experts a layer has.
    pub experts: usize,
    /// How many of them a token goes through.
    pub used: usize,
    /// Weights of all experts of these layers.
    pub parameters: u64,
    /// Bytes of all experts of these layers.
    pub bytes: u64,
}

impl Mixture {
    /// The share of the experts that some tokens go through together, if each chooses by chance: `1 - (1 - used / experts)^tokens`.
    #[must_use]
    pub fn share(&self, tokens: f64) -> f64 {
        1.0 - (1.0 - self.used as f64 / self.experts.max(1) as f64).powf(tokens)
    }
}

/// Rows of logits.
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

/// A step on its way. Steps are finished in the order in which they were submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StepId(pub u64);

/// A step that was handed to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// What [`LanguageModel::finish`] is asked for.
    pub id: StepId,
    /// Whether a step may follow that begins with the tokens drawn in this one
    /// ([`Input::Sampled`](pippin_tensor::Input::Sampled)) before this one is finished. Never where it has guesses to
    /// check ([`Want::Verify`](pippin_tensor::Want::Verify)).
    pub feeds: bool,
}

/// What a step returns for one of its sequences.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Nothing was wanted.
    Nothing,
    /// The drawn token; `None` when the logits held a NaN or no finite maximum.
    Sampled(Option<Sampled>),
    /// The tokens drawn after each row, as far as the rows were the right ones: one at least. `None` comes last, where the
    /// logits held a NaN or no finite maximum.
    Verified(Vec<Option<Sampled>>),
    /// Logits of the last row, or of all.
    Logits(Logits),
    /// The representation of the last row, or of all: `hidden_size` numbers for each.
    Hidden(Vec<f32>),
}

/// A change to a slot: what a sequence keeps on the device besides its pages.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SlotEdit {
    /// The slot is a new sequence's: recurrent state becomes zeros, and it has no sampler.
    Reset {
        /// The slot.
        slot: usize,
    },
    /// The recurrent state of one slot is copied to another.
    Copy {
        /// Where from.
        from: usize,
        /// Where to.
        to: usize,
    },
    /// What draws the slot's tokens from now on.
    Sampler {
        /// The slot.
        slot: usize,
        /// A sampler that knows what came before.
        sampler: Box<Sampler>,
    },
    /// The tokens that may come next; `None` allows all. It stays until it is changed.
    Mask {
        /// The slot.
        slot: usize,
        /// The mask.
        mask: Option<Arc<TokenMask>>,
    },
    /// The tokens that may come after each of the guesses that the slot's next step is to check
    /// ([`Want::Verify`](pippin_tensor::Want::Verify)), where that depends on them. The last one that was used stays.
    MasksAhead {
        /// The slot.
        slot: usize,
        /// A mask for each guess; `None` allows all.
        masks: Vec<Option<Arc<TokenMask>>>,
    },
}

/// A loaded model: tokens in, tokens or logits out.
///
/// This is where everything generic ends. The engine holds a `Box<dyn LanguageModel>` and knows neither the backend nor
/// the family behind it. One thread builds a model, runs its steps one after another, and drops it.
///
/// The caches live in the model, but their pages and slots belong to the caller: the caller decides how many there are
/// ([`allocate`](Self::allocate)) and which sequence uses which (the page lists and slots in the [`Batch`]).
///
/// A step is handed over ([`submit`](Self::submit)) and finished later, so that a device works on the next while the host
/// still looks at the last. Nothing but [`finish`](Self::finish) waits for the device.
pub trait LanguageModel {
    /// What the model is.
    fn info(&self) -> &ModelInfo;

    /// Allocates KV caches and slots, in place of any earlier ones, whose contents are lost. Slots begin as if they had
    /// been reset.
    ///
    /// # Errors
    ///
    /// No memory, a plan that does not fit the model, or a format that the backend cannot keep keys and values in.
    fn allocate(&mut self, plan: &CachePlan) -> Result<()>;

    /// What the indices of a batch must stay below: what [`allocate`](Self::allocate) was asked for.
    fn limits(&self) -> &StepLimits;

    /// Hands a step to the device: it writes the keys, values and states of the batch's tokens and computes what they
    /// want.
    ///
    /// After an error the cache rows and the slots' states of the batch hold unspecified values; all others are as before.
    /// So where no layer keeps state, the step can be tried again; where one does, its sequences must start anew.
    ///
    /// # Errors
    ///
    /// A batch made for other limits, a slot without a sampler that is to draw (nothing has been computed then), or a
    /// failure of the backend.
    fn submit(&mut self, batch: Batch) -> Result<Submitted>;

    /// Waits for the oldest step that is not finished and returns what each of its sequences wanted, in their order.
    ///
    /// # Errors
    ///
    /// Another step than the oldest, or a failure of the device.
    fn finish(&mut self, id: StepId) -> Result<Vec<Output>>;

    /// Changes slots, after the steps that were submitted and before those that will be.
    ///
    /// # Errors
    ///
    /// A slot out of range, or a failure of the backend.
    fn edit(&mut self, edits: Vec<SlotEdit>) -> Result<()>;

    /// Names all that decides, beside the model's files and the tokens, which bytes pages and slots hold: device, kernels, numerics,
    /// format, page size. What a model has read, another of the same files may be given only if both say the same. `None`: nothing can
    /// be kept, and the four methods below are errors.
    fn kept_as(&self) -> Option<String> {
        None
    }

    /// Bytes of a page of a cache group over all its layers, and, without a group, of a slot. `None`: there is no such group.
    fn kept_bytes(&self, _group: Option<usize>) -> Option<usize> {
        None
    }

    /// The bytes of a page of a cache group over all its layers, after the steps that were submitted; waits for those.
    ///
    /// # Errors
    ///
    /// A group or a page out of range, a failure of the device, or the device does not support it.
    fn read_page(&mut self, _group: usize, _page: u32) -> Result<Vec<u8>> {
        Err(nothing_is_kept())
    }

    /// Puts the bytes that [`read_page`](Self::read_page) gave into a page that no step on its way uses.
    ///
    /// # Errors
    ///
    /// As for [`read_page`](Self::read_page), or another number of bytes. The page then holds unspecified values.
    fn write_page(&mut self, _group: usize, _page: u32, _bytes: &[u8]) -> Result<()> {
        Err(nothing_is_kept())
    }

    /// The bytes of what a slot holds of its sequence beside the sampler, after the steps and edits so far; waits for those.
    ///
    /// # Errors
    ///
    /// A slot out of range, a failure of the device, or the device does not support it.
    fn read_slot(&mut self, _slot: usize) -> Result<Vec<u8>> {
        Err(nothing_is_kept())
    }

    /// Puts the bytes that [`read_slot`](Self::read_slot) gave into a slot that no step on its way uses.
    ///
    /// # Errors
    ///
    /// As for [`read_slot`](Self::read_slot), or bytes that no slot gives. The slot must then be reset.
    fn write_slot(&mut self, _slot: usize, _bytes: &[u8]) -> Result<()> {
        Err(nothing_is_kept())
    }
}

fn nothing_is_kept() -> ModelError {
    ModelError::Step { problem: "this model keeps neither pages nor slots".to_owned() }
}
