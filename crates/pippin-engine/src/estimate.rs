use std::fmt;

use pippin_models::ModelInfo;
use serde::{Deserialize, Serialize};

use crate::kv::{PAGE_SIZE, pages_for};
use crate::{GenerateParameters, LoadOptions};

/// A context that is never reduced for want of memory.
pub(crate) const MIN_CONTEXT: usize = 4096;

/// Values that a layer's step keeps per row and hidden dimension: the residual stream, its norm, queries, keys and
/// values, and a gated feed-forward of about four times the width.
const ACTIVATIONS: u64 = 16;
/// Bytes that a tokenizer keeps for each entry of the vocabulary: the text both ways, its merge, and the maps' overhead.
const TOKENIZER_BYTES: u64 = 512;
/// Bytes that do not depend on the model: stacks of its threads, buffers, the chat template.
const BASE_BYTES: u64 = 4 << 20;

/// The memory of a model: what it is expected to take, or what it takes.
///
/// This is what a memory budget counts:
///
/// - **Weights** count in full, as large as they are in the checkpoint. On the CPU they stay in the mapped file, so that
///   the system may drop their pages and read them again; but every token needs all of them, and a model whose weights
///   are not in memory computes at the speed of the disk.
/// - The **KV cache** counts in full too. The system commits it only as it fills, but it may fill at any time.
/// - **Working memory** is estimated: activations of the largest step, logits, the tokenizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelMemory {
    /// Bytes of the weights.
    pub weights: u64,
    /// Bytes of the KV cache.
    pub kv_cache: u64,
    /// Bytes of everything else.
    pub working: u64,
    /// The longest sequence, in tokens.
    pub context: usize,
}

impl ModelMemory {
    /// A model of known sizes, in bytes, and its context in tokens.
    pub fn new(weights: u64, kv_cache: u64, working: u64, context: usize) -> Self {
        Self { weights, kv_cache, working, context }
    }

    /// What a model will take when it is loaded with these options.
    ///
    /// Where the options leave the context open, it is what the model was made for, or less: its KV cache is to take no
    /// more than a quarter of `budget` and no more than weights and working memory leave of it, but 4096 tokens in any
    /// case.
    pub fn estimate(info: &ModelInfo, options: &LoadOptions, budget: u64) -> Self {
        let working = working(info, options);
        let token_bytes = options.kv_token_bytes(info);
        let context = options.context.unwrap_or_else(|| {
            let rest = budget.saturating_sub(info.weight_bytes).saturating_sub(working);
            let affordable = (budget / 4).min(rest) / token_bytes.max(1);
            // Whole pages: a part of one would be allocated and not used.
            let affordable = usize::try_from(affordable).unwrap_or(usize::MAX) / PAGE_SIZE * PAGE_SIZE;
            info.context_length.min(affordable.max(MIN_CONTEXT))
        });
        let tokens = pages_for(context.max(options.cache_tokens.unwrap_or(0))).saturating_mul(PAGE_SIZE);
        let kv_cache = token_bytes.saturating_mul(tokens as u64);
        Self { weights: info.weight_bytes, kv_cache, working, context }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.kv_cache).saturating_add(self.working)
    }
}

impl fmt::Display for ModelMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { weights, kv_cache, working, context } = *self;
        write!(
            f,
            "{} (weights {}, KV cache {} for {context} tokens, working memory {})",
            Bytes(self.total()),
            Bytes(weights),
            Bytes(kv_cache),
            Bytes(working)
        )
    }
}

/// What a model takes besides weights and KV cache.
pub(crate) fn working(info: &ModelInfo, options: &LoadOptions) -> u64 {
    const F32: u64 = 4;
    let (hidden, vocab) = (info.hidden_size as u64, info.vocab_size as u64);
    let sequences = options.max_sequences as u64;
    let rows = (GenerateParameters::default().prefill_step_size as u64).saturating_add(sequences);
    let activations = rows.saturating_mul(hidden).saturating_mul(ACTIVATIONS * F32);
    // Once as the model returns them, once as the sampler sorts them.
    let logits = sequences.saturating_mul(vocab).saturating_mul(F32).saturating_add(vocab * 2 * F32);
    let tokenizer = vocab.saturating_mul(TOKENIZER_BYTES);
    [activations, logits, tokenizer].into_iter().fold(BASE_BYTES, u64::saturating_add)
}

/// A number of bytes for people, in decimal units.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
        let value = self.0 as f64;
        // 999.95 MB would be shown as 1000.0 MB.
        match units.into_iter().find(|(_, size)| value >= size * 0.99995) {
            Some((unit, size)) => write!(f, "{:.1} {unit}", value / size),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeModel;
    use pippin_models::LanguageModel as _;
    use pippin_tensor::{Dtype, KvFormat, Numerics};

    fn info() -> ModelInfo {
        let mut info = FakeModel::new(1 << 20).0.info().clone();
        (info.hidden_size, info.vocab_size, info.weight_bytes) = (1024, 100_000, 2 << 30);
        (info.kv_values_per_token, info.dtype) = (1 << 15, Dtype::Bf16);
        info
    }

    #[test]
    fn the_context_follows_request_model_and_budget() {
        let context =
            |budget: u64, options: LoadOptions| ModelMemory::estimate(&info(), &options, budget).context;
        let options = LoadOptions::default();
        // 64 KiB for each token: a quarter of 16 GiB is 65,536 tokens.
        assert_eq!(context(16 << 30, options.clone()), 65_536);
        assert_eq!(context(u64::MAX, options.clone()), 1 << 20);
        assert_eq!(context(16 << 30, LoadOptions { context: Some(100), ..options.clone() }), 100);
        // What weights and working memory leave is less than a quarter.
        let tight = context(5 << 29, options.clone());
        assert!((MIN_CONTEXT..8192).contains(&tight) && tight.is_multiple_of(PAGE_SIZE), "{tight}");
        assert_eq!(context(0, options), MIN_CONTEXT);
    }

    #[test]
    fn parts_add_up() {
        let options = LoadOptions { context: Some(1000), ..LoadOptions::default() };
        let memory = ModelMemory::estimate(&info(), &options, 0);
        assert_eq!(memory.kv_cache, 1024 * (64 << 10));
        assert_eq!(memory.total(), memory.weights + memory.kv_cache + memory.working);
        // Activations, tokenizer and logits of such a model take some hundred megabytes.
        assert!((50 << 20..300 << 20).contains(&memory.working), "{memory}");
        let exact = LoadOptions { numerics: Numerics::Exact, ..options.clone() };
        assert_eq!(ModelMemory::estimate(&info(), &exact, 0).kv_cache, 2 * memory.kv_cache);
        let eight = LoadOptions { kv_format: Some(KvFormat::Int8), ..options.clone() };
        let head_dim = info().head_dim as u64;
        let bytes = ModelMemory::estimate(&info(), &eight, 0).kv_cache;
        assert_eq!(bytes, memory.kv_cache / (2 * head_dim) * (head_dim + 4));
        let shared = LoadOptions { cache_tokens: Some(2048), ..options };
        assert_eq!(ModelMemory::estimate(&info(), &shared, 0).kv_cache, 2 * memory.kv_cache);
    }

    #[test]
    fn absurd_models_overflow_nothing() {
        let mut info = info();
        info.weight_bytes = u64::MAX;
        info.kv_values_per_token = u64::MAX;
        info.hidden_size = usize::MAX;
        let memory = ModelMemory::estimate(&info, &LoadOptions::default(), u64::MAX);
        assert_eq!(memory.total(), u64::MAX);
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (999_999_999, "1.0 GB")] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        let memory = ModelMemory::new(2_000_000_000, 500_000_000, 1_000_000, 8192);
        assert_eq!(
            memory.to_string(),
            "2.5 GB (weights 2.0 GB, KV cache 500.0 MB for 8192 tokens, working memory 1.0 MB)"
        );
    }
}
