//! What a model takes, and what its caches are given: the one place where memory is planned.

use std::fmt;
use std::path::Path;

use pippin_models::{CacheGroup, CacheLayout, CachePlan, ModelInfo};
use pippin_tensor::KvFormat;
use serde::{Deserialize, Serialize};

use crate::kv::{PAGE_SIZE, pages_for};
use crate::scheduler::{Limits, MAX_SCORE_LOGITS};
use crate::{EngineError, LoadOptions, Result};

/// A context that is never reduced for want of memory.
pub(crate) const MIN_CONTEXT: usize = 4096;

/// Values that a layer's step keeps per row and hidden dimension: the residual stream, its norm, queries, keys and
/// values, and a gated feed-forward of about four times the width.
const ACTIVATIONS: u64 = 16;
/// Bytes that a tokenizer keeps for each entry of the vocabulary: the text both ways, its merge, and the maps' overhead.
const TOKENIZER_BYTES: u64 = 512;
/// Bytes that do not depend on the model: stacks of its threads, buffers, the chat template.
const BASE_BYTES: u64 = 4 << 20;
/// Copies of recurrent state that are kept, if memory allows and the options do not say otherwise.
const SNAPSHOTS: usize = 16;

/// The memory of a model: what it is expected to take, or what it takes.
///
/// This is what a memory budget counts:
///
/// - **Weights** count in full, as large as they are in the checkpoint. On the CPU they stay in the mapped file, so that
///   the system may drop their pages and read them again; but every token needs all of them, and a model whose weights
///   are not in memory computes at the speed of the disk.
/// - The **caches** count in full too: keys and values, and recurrent state. The system commits them only as they fill, but
///   they may fill at any time.
/// - **Working memory** is estimated: activations of the largest step, logits, the tokenizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelMemory {
    /// Bytes of the weights.
    pub weights: u64,
    /// Bytes of the KV cache, and of recurrent state where the model has any.
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

    /// What a model will take when it is loaded with these options and this budget.
    ///
    /// Where the options leave the context open, it is what the model was made for, or less: its caches are to take no
    /// more than a quarter of `budget` and no more than weights and working memory leave of it, but 4096 tokens in any
    /// case.
    pub fn estimate(info: &ModelInfo, options: &LoadOptions, budget: u64) -> Self {
        MemoryPlan::fitting(info, None, options, budget).memory
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

/// How a model is loaded: what its caches are given, and what all of it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryPlan {
    pub(crate) limits: Limits,
    pub(crate) caches: CachePlan,
    /// The caches of the draft model, if there is one.
    pub(crate) draft: Option<CachePlan>,
    pub(crate) memory: ModelMemory,
    /// What it was planned for, in bytes.
    pub(crate) budget: u64,
}

impl MemoryPlan {
    /// A plan for the model of a folder, and the draft model that the options name.
    ///
    /// # Errors
    ///
    /// A model cannot be described, and as for [`new`](Self::new).
    pub(crate) fn of_folder(folder: &Path, options: &LoadOptions) -> Result<Self> {
        let draft = options.draft_model.as_deref().map(pippin_models::describe).transpose()?;
        Self::new(&pippin_models::describe(folder)?, draft.as_ref(), options)
    }

    /// A plan for the options' budget.
    ///
    /// # Errors
    ///
    /// The options are out of their range, or ask for more context than the model was made for.
    pub(crate) fn new(info: &ModelInfo, draft: Option<&ModelInfo>, options: &LoadOptions) -> Result<Self> {
        options.validate()?;
        match options.context {
            Some(requested) if requested > info.context_length => {
                Err(EngineError::ContextTooLong { requested, maximum: info.context_length })
            }
            _ => {
                let budget = options.memory_budget.unwrap_or_else(|| crate::device::budget(options.device));
                Ok(Self::fitting(info, draft, options, budget))
            }
        }
    }

    /// The plan that makes the most of a budget. Where even the least is too much, that is what it plans.
    fn fitting(info: &ModelInfo, draft: Option<&ModelInfo>, options: &LoadOptions, budget: u64) -> Self {
        let (layout, format) = (&info.cache, options.kv_format_of(info.dtype));
        let beside = draft.map_or(0, |draft| working(draft, options));
        let working = working(info, options).saturating_add(beside);
        let weights = info.weight_bytes.saturating_add(draft.map_or(0, |draft| draft.weight_bytes));
        let rest = budget.saturating_sub(weights).saturating_sub(working);
        let rest = rest.min(budget / 4);
        let (sequences, snapshots) = states(layout, options, rest);
        let states = layout.state_bytes.saturating_mul((sequences + snapshots) as u64);
        let rest = rest.saturating_sub(states);

        let pages_of =
            |layout: &CacheLayout, tokens| cache_pages(layout, tokens, sequences, options.prefill_step_size);
        let bytes = |tokens| {
            let of_draft = draft.map_or(0, |draft| {
                let pages = pages_of(&draft.cache, tokens);
                cache_bytes(&draft.cache, &pages, options.kv_format_of(draft.dtype))
            });
            cache_bytes(layout, &pages_of(layout, tokens), format).saturating_add(of_draft)
        };
        let context = options.context.unwrap_or_else(|| {
            // Whole pages: a part of one would be allocated and not used.
            let fits = |count: usize| bytes(count.saturating_mul(PAGE_SIZE)) <= rest;
            let affordable = most(pages_for(info.context_length), fits).saturating_mul(PAGE_SIZE);
            info.context_length.min(affordable.max(MIN_CONTEXT))
        });
        let tokens = context.max(options.cache_tokens.unwrap_or(0));
        let kv_cache = bytes(tokens).saturating_add(states);
        let pages = pages_of(layout, tokens);
        let draft = draft.map(|draft| CachePlan {
            page_size: PAGE_SIZE,
            format: options.kv_format_of(draft.dtype),
            pages: pages_of(&draft.cache, tokens),
            slots: sequences,
        });
        Self {
            draft,
            limits: Limits { context, sequences, step: options.prefill_step_size },
            caches: CachePlan { page_size: PAGE_SIZE, format, pages, slots: sequences + snapshots },
            memory: ModelMemory { weights, kv_cache, working, context },
            budget,
        }
    }

    /// The options with what the plan has decided.
    pub(crate) fn options(&self, options: &LoadOptions) -> LoadOptions {
        let (context, budget) = (Some(self.memory.context), Some(self.budget));
        LoadOptions { context, memory_budget: budget, ..options.clone() }
    }
}

/// How many sequences with state can run, and how many copies of states can be kept. The running ones get half of the
/// memory at most, and the copies a quarter.
fn states(layout: &CacheLayout, options: &LoadOptions, bytes: u64) -> (usize, usize) {
    if !layout.has_state() {
        return (options.max_sequences, 0);
    }
    let affordable = |bytes: u64, most: usize| {
        usize::try_from(bytes / layout.state_bytes).unwrap_or(usize::MAX).clamp(1, most.max(1))
    };
    let snapshots = options.snapshots.unwrap_or_else(|| affordable(bytes / 4, SNAPSHOTS));
    (affordable(bytes / 2, options.max_sequences), snapshots)
}

/// The pages of each cache group for so many tokens over all sequences, which read prompts in steps of `step` tokens. A
/// group with a window needs no more than that for each sequence, and what the steps on their way are adding to it: two
/// on a device that is kept busy.
pub(crate) fn cache_pages(layout: &CacheLayout, tokens: usize, sequences: usize, step: usize) -> Vec<usize> {
    let pages = |group: &CacheGroup| match group.reach.limit() {
        None => pages_for(tokens),
        Some(limit) => {
            let most = (pages_for(limit).saturating_add(3)).saturating_mul(sequences);
            pages_for(tokens).min(most.saturating_add(pages_for(2 * step)))
        }
    };
    layout.groups.iter().map(pages).collect()
}

fn cache_bytes(layout: &CacheLayout, pages: &[usize], format: KvFormat) -> u64 {
    let bytes = layout.groups.iter().zip(pages);
    let bytes = bytes.map(|(group, pages)| group.page_bytes(PAGE_SIZE, format).saturating_mul(*pages as u64));
    bytes.fold(0, u64::saturating_add)
}

/// The largest number up to `limit` that fits, where smaller ones do if it does.
fn most(limit: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, limit);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

/// What a model takes besides weights and caches.
pub(crate) fn working(info: &ModelInfo, options: &LoadOptions) -> u64 {
    const F32: u64 = 4;
    let (hidden, vocab) = (info.hidden_size as u64, info.vocab_size as u64);
    let (sequences, step) = (options.max_sequences as u64, options.prefill_step_size as u64);
    let activations = step.saturating_add(sequences).saturating_mul(hidden).saturating_mul(ACTIVATIONS * F32);
    // Those that are drawn from and those that are scored; and once as the sampler sorts them.
    let scored = step.saturating_mul(vocab).min(MAX_SCORE_LOGITS as u64);
    let logits = sequences.saturating_mul(vocab).saturating_add(scored).saturating_mul(F32);
    let logits = logits.saturating_add(vocab.saturating_mul(2 * F32));
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
    use crate::testing::{FakeModel, Kind};
    use pippin_models::LanguageModel as _;
    use pippin_tensor::{Dtype, Numerics, Reach, ValueStore};

    fn group(reach: Reach) -> CacheGroup {
        // 64 KiB for each token at 16 bits.
        CacheGroup { layers: 16, kv_heads: 8, key_dim: 128, values: ValueStore::Own(128), reach }
    }

    fn info() -> ModelInfo {
        let mut info = FakeModel::new(Kind::full(), 1 << 20).0.info().clone();
        (info.hidden_size, info.vocab_size, info.weight_bytes) = (1024, 100_000, 2 << 30);
        info.dtype = Dtype::Bf16;
        info.cache = CacheLayout { groups: vec![group(Reach::All)], state_bytes: 0 };
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
        assert_eq!(context(0, options.clone()), MIN_CONTEXT);
        let most = LoadOptions { context: Some((1 << 20) + 1), ..options };
        let error = MemoryPlan::new(&info(), None, &most).expect_err("too long").to_string();
        assert!(error.contains("1048577") && error.contains("1048576"), "{error}");
    }

    #[test]
    fn a_draft_model_counts_too() {
        let mut small = info();
        (small.weight_bytes, small.cache.groups[0].layers) = (1 << 30, 4);
        let options = LoadOptions { context: Some(8192), ..LoadOptions::default() };
        let alone = MemoryPlan::fitting(&info(), None, &options, 16 << 30);
        let both = MemoryPlan::fitting(&info(), Some(&small), &options, 16 << 30);
        assert_eq!((&both.limits, &both.caches), (&alone.limits, &alone.caches));
        assert_eq!(both.memory.weights, alone.memory.weights + (1 << 30));
        // It has a quarter of the layers, and as many tokens.
        assert_eq!(both.memory.kv_cache, alone.memory.kv_cache / 4 * 5);
        let caches = both.draft.expect("planned");
        assert_eq!((&caches.pages, caches.slots), (&alone.caches.pages, alone.limits.sequences));
        assert!(both.memory.working > alone.memory.working && alone.draft.is_none());
        // Where memory is short, contexts are shorter.
        let open = LoadOptions::default();
        let context = |draft| MemoryPlan::fitting(&info(), draft, &open, 16 << 30).memory.context;
        assert!(context(Some(&small)) < context(None));
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
        let bytes = ModelMemory::estimate(&info(), &eight, 0).kv_cache;
        assert_eq!(bytes, memory.kv_cache / 256 * 132);
        let shared = LoadOptions { cache_tokens: Some(2048), ..options.clone() };
        assert_eq!(ModelMemory::estimate(&info(), &shared, 0).kv_cache, 2 * memory.kv_cache);
        // Larger steps have more activations.
        let large = LoadOptions { prefill_step_size: 4096, ..options };
        let more = ModelMemory::estimate(&info(), &large, 0).working - memory.working;
        assert!(more >= (4096 - 512) * 1024 * 16 * 4, "{more}");
    }

    #[test]
    fn windows_cost_only_what_they_see() {
        let mut windowed = info();
        windowed.cache.groups = vec![group(Reach::All), group(Reach::Window(1024))];
        let options = LoadOptions { context: Some(100_000), max_sequences: 4, ..LoadOptions::default() };
        let plan = MemoryPlan::fitting(&windowed, None, &options, 0);
        // A hundred thousand tokens in one group; in the other, four windows and a little.
        assert_eq!(plan.caches.pages, [3125, 4 * (32 + 3) + 32]);
        let page = 64 << 15;
        assert_eq!(plan.memory.kv_cache, (3125 + 172) * page);
        // A context that is shorter than that needs no more than itself.
        let short = LoadOptions { context: Some(1000), ..options.clone() };
        assert_eq!(MemoryPlan::fitting(&windowed, None, &short, 0).caches.pages, [32, 32]);
        // A budget goes further.
        let open = LoadOptions { context: None, ..options };
        let context = |info: &ModelInfo| ModelMemory::estimate(info, &open, 16 << 30).context;
        let mut whole = windowed.clone();
        whole.cache.groups[1].reach = Reach::All;
        assert_eq!(context(&whole), 32_768);
        assert!(context(&windowed) > 59_000, "{}", context(&windowed));
        windowed.cache.groups.remove(0);
        assert_eq!(context(&windowed), 1 << 20);
    }

    #[test]
    fn states_are_counted_and_kept_to_their_share() {
        let mut recurrent = info();
        recurrent.cache = CacheLayout { groups: vec![], state_bytes: 64 << 20 };
        let options = LoadOptions::default();
        // Of 4 GiB for caches, 32 states take half; of the other, 16 copies a half.
        let plan = MemoryPlan::fitting(&recurrent, None, &options, 16 << 30);
        assert_eq!((plan.limits.sequences, plan.caches.slots), (32, 48));
        assert_eq!(plan.memory.kv_cache, 48 * (64 << 20));
        assert_eq!(plan.memory.context, 1 << 20);
        // Of 1 GiB there are fewer.
        let plan = MemoryPlan::fitting(&recurrent, None, &options, 4 << 30);
        assert_eq!((plan.limits.sequences, plan.caches.slots), (8, 12));
        let none = LoadOptions { snapshots: Some(0), ..options.clone() };
        assert_eq!(MemoryPlan::fitting(&recurrent, None, &none, 0).caches.slots, 1);
        // The plan's options lead to the same plan, whatever is available then.
        let again = plan.options(&options);
        assert_eq!(MemoryPlan::new(&recurrent, None, &again).expect("valid"), plan);
    }

    #[test]
    fn absurd_models_overflow_nothing() {
        let mut info = info();
        info.weight_bytes = u64::MAX;
        info.cache.groups[0].kv_heads = usize::MAX;
        info.cache.state_bytes = u64::MAX;
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
