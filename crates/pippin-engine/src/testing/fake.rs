//! A model that costs nothing and notices everything.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pippin_models::{
    CacheGroup, CacheLayout, CachePlan, Config, LanguageModel, Logits, ModelError, ModelInfo, Output,
    SlotEdit, StepId, Submitted, describe_from, testing,
};
use pippin_sampling::{Sampler, Scratch, TokenMask};
use pippin_tensor::{Batch, Dtype, GIVEN_BACK, LogitRows, Reach, StepLimits, TensorError, ValueStore, Want};

/// Token ids of the fake model.
pub(crate) const VOCAB: usize = 64;
/// Its only stop token.
pub(crate) const STOP: u32 = 63;
/// A token in whose presence a step fails.
pub(crate) const POISON: u32 = 61;
/// A token after which the logits are NaN.
pub(crate) const NAN: u32 = 60;

/// What nobody should read.
const GARBAGE: (u32, u32) = (u32::MAX, u32::MAX);
/// The state of a slot before its first token.
const NO_STATE: u32 = 0x811c_9dc5;

/// What a fake model keeps of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) groups: Vec<Reach>,
    pub(crate) has_state: bool,
    /// How many of the last tokens that it sees the next one depends on. With few, it repeats itself.
    pub(crate) recall: usize,
}

impl Kind {
    /// Keys and values of all tokens.
    pub(crate) fn full() -> Self {
        Self { groups: vec![Reach::All], has_state: false, recall: usize::MAX }
    }

    /// All sorts of them.
    pub(crate) fn all() -> Vec<Self> {
        let stateless: [&[Reach]; 5] = [
            &[Reach::All],
            &[Reach::All, Reach::Window(40)],
            &[Reach::Window(70), Reach::All, Reach::Chunk(64)],
            &[Reach::Window(33)],
            &[Reach::Chunk(50), Reach::Window(5)],
        ];
        let recurrent: [&[Reach]; 4] =
            [&[], &[Reach::All], &[Reach::Window(40), Reach::All], &[Reach::Window(20)]];
        let kind = |groups: &&[Reach], has_state| Self { groups: groups.to_vec(), has_state, ..Self::full() };
        let recurrent = recurrent.iter().map(|groups| kind(groups, true));
        stateless.iter().map(|groups| kind(groups, false)).chain(recurrent).collect()
    }

    pub(crate) fn layout(&self) -> CacheLayout {
        let group = |reach: &Reach| CacheGroup {
            layers: 1,
            kv_heads: 1,
            key_dim: 4,
            values: ValueStore::Own(4),
            reach: *reach,
        };
        let state_bytes = if self.has_state { 64 } else { 0 };
        CacheLayout { groups: self.groups.iter().map(group).collect(), state_bytes }
    }

    /// The token that follows a sequence: a hash of all that the model keeps of it, and never one of the special ones
    /// above.
    pub(crate) fn next_token(&self, tokens: &[u32]) -> u32 {
        let index = tokens.len() - 1;
        let seen = self.groups.iter().map(|reach| self.recalled(&tokens[reach.first(index)..]));
        choose(seen, self.has_state.then(|| hash(tokens)))
    }

    /// A hash of what it makes of the tokens that it sees.
    fn recalled(&self, seen: &[u32]) -> u32 {
        hash(&seen[seen.len().saturating_sub(self.recall)..])
    }

    /// The logits after a sequence.
    pub(crate) fn logits(&self, tokens: &[u32]) -> Vec<f32> {
        logits_of(self.next_token(tokens), tokens.last() == Some(&NAN))
    }

    /// What greedy decoding gives.
    pub(crate) fn continuation(&self, prompt: &[u32], count: usize) -> Vec<u32> {
        let mut tokens = prompt.to_vec();
        for _ in 0..count {
            tokens.push(self.next_token(&tokens));
        }
        tokens.split_off(prompt.len())
    }
}

fn hash(tokens: &[u32]) -> u32 {
    tokens.iter().fold(NO_STATE, |hash, token| mix(hash, *token))
}

fn mix(hash: u32, token: u32) -> u32 {
    (hash ^ (token + 1)).wrapping_mul(0x0100_0193).rotate_left(5)
}

fn choose(seen: impl Iterator<Item = u32>, state: Option<u32>) -> u32 {
    seen.chain(state).fold(0, |all, hash| mix(all, hash / 2)) % 50
}

/// What greedy decoding of a model that keeps everything gives.
pub(crate) fn continuation(prompt: &[u32], count: usize) -> Vec<u32> {
    Kind::full().continuation(prompt, count)
}

/// The logits of such a model after a sequence.
pub(crate) fn logits(tokens: &[u32]) -> Vec<f32> {
    Kind::full().logits(tokens)
}

/// Logits of which the likeliest is this token's; the others follow at a distance.
fn logits_of(next: u32, is_nan: bool) -> Vec<f32> {
    let logit = |token: u32| match token {
        _ if is_nan => f32::NAN,
        _ if token == next => 4.0,
        STOP | POISON | NAN => -9.0,
        _ => ((token * 29 + next) % 50) as f32 / 20.0,
    };
    (0..VOCAB as u32).map(logit).collect()
}

/// What a step was asked to do: for each sequence the first new index and the number of rows.
pub(crate) type Step = Vec<(usize, usize)>;

/// When a device feeds its own tokens back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Feeds {
    /// Never: it samples on the host.
    #[default]
    Never,
    Always,
    /// In two of three steps.
    Sometimes,
}

/// What tests see and set while the model runs.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pub(crate) steps: Vec<Step>,
    /// Changes to slots.
    pub(crate) edits: usize,
    /// Panic in the step of this number.
    pub(crate) panic_at: Option<usize>,
    /// Take [`POISON`] for a token like any other.
    pub(crate) ignores_poison: bool,
    /// Take this long for a step.
    pub(crate) delay: Duration,
    pub(crate) feeds: Feeds,
    /// A step that fails is handed over all the same, and fails when it is finished.
    pub(crate) fails_late: bool,
    /// Every step fails.
    pub(crate) fails_steps: bool,
    /// The device is lost: every step fails, and every change to slots.
    pub(crate) is_lost: bool,
    /// There is no memory for steps of more rows.
    pub(crate) most_rows: Option<usize>,
    /// The next edits fail.
    pub(crate) fails_edits: bool,
    /// Neither pages nor slots can be written.
    pub(crate) fails_writes: bool,
    /// For each group, the token and its index in each row of the cache.
    rows: Vec<Vec<(u32, u32)>>,
}

impl Control {
    /// Spoils a page, which nobody should read any more.
    pub(crate) fn spoil(&mut self, group: usize, page: usize, page_size: usize) {
        self.rows[group][page * page_size..][..page_size].fill(GARBAGE);
    }
}

#[derive(Debug, Default)]
struct Slot {
    state: u32,
    sampler: Option<Sampler>,
    last: u32,
    ahead: Vec<Option<Arc<TokenMask>>>,
}

/// A model whose "keys and values" are the tokens themselves, and whose state is a hash of them. It reads them back
/// through the page tables, so that a page or a state which is shared, moved or overwritten wrongly changes what it
/// generates, or panics.
///
/// It computes when a step is handed over, as a device does in the order of its queue, and tells nothing of the results before
/// the step is finished.
#[derive(Debug)]
pub(crate) struct FakeModel {
    info: ModelInfo,
    kind: Kind,
    limits: StepLimits,
    slots: Vec<Slot>,
    flights: VecDeque<(Submitted, Result<Vec<Output>, ModelError>)>,
    count: u64,
    scratch: Scratch,
    control: Arc<Mutex<Control>>,
}

impl FakeModel {
    pub(crate) fn new(kind: Kind, context: usize) -> (Self, Arc<Mutex<Control>>) {
        let config = Config::new(testing::tiny_llama()).expect("a valid configuration");
        let checkpoint = testing::checkpoint(&config, Dtype::F32, 0).expect("a valid checkpoint");
        let mut info = describe_from(&config, &checkpoint).expect("a valid model");
        info.vocab_size = VOCAB;
        info.context_length = context;
        info.cache = kind.layout();
        let control = Arc::<Mutex<Control>>::default();
        let model = Self {
            info,
            kind,
            limits: StepLimits::default(),
            slots: Vec::new(),
            flights: VecDeque::new(),
            count: 0,
            scratch: Scratch::default(),
            control: Arc::clone(&control),
        };
        (model, control)
    }

    /// Computes a batch: writes everything first, as a layer does, then reads what each sequence wants.
    fn compute(&mut self, control: &mut Control, batch: &Batch) -> Vec<Output> {
        let starts = batch.query_starts();
        for (group, rows) in control.rows.iter_mut().enumerate() {
            for (row, at) in batch.cache_rows(group).iter().enumerate() {
                rows[*at as usize] = (batch.tokens()[row], batch.indices()[row]);
            }
        }
        let mut outputs = Vec::new();
        for (sequence, want) in batch.wants().iter().enumerate() {
            let slot = batch.slots()[sequence] as usize;
            let mut logits = Logits { rows: 0, vocab: VOCAB, values: Vec::new() };
            for row in starts[sequence]..starts[sequence + 1] {
                let (token, index) = (batch.tokens()[row as usize], batch.indices()[row as usize] as usize);
                let state = &mut self.slots[slot].state;
                *state = mix(*state, token);
                let is_last = row + 1 == starts[sequence + 1];
                let is_each = matches!(want, Want::Verify | Want::Logits(LogitRows::All));
                if !is_each && (*want == Want::Nothing || !is_last) {
                    continue;
                }
                let seen = self.kind.groups.iter().enumerate().map(|(group, reach)| {
                    let table = &batch.page_tables(group)[sequence];
                    let seen: Vec<u32> = (reach.first(index)..=index)
                        .map(|index| {
                            let page = table[index / self.limits.page_size];
                            assert_ne!(page, GIVEN_BACK, "the page of token {index} was given back");
                            let at = page as usize * self.limits.page_size + index % self.limits.page_size;
                            let (token, stored) = control.rows[group][at];
                            assert_eq!(stored, index as u32, "the row holds another token");
                            token
                        })
                        .collect();
                    self.kind.recalled(&seen)
                });
                let next = choose(seen, self.kind.has_state.then_some(*state));
                logits.values.extend(logits_of(next, token == NAN));
                logits.rows += 1;
            }
            outputs.push(match want {
                Want::Nothing => Output::Nothing,
                Want::Sample => {
                    let Slot { sampler, last, .. } = &mut self.slots[slot];
                    let sampler = sampler.as_mut().expect("checked");
                    let sampled = sampler.sample(&mut logits.values, &mut self.scratch);
                    *last = sampled.as_ref().map_or(0, |sampled| sampled.token);
                    Output::Sampled(sampled)
                }
                Want::Verify => {
                    let rows = starts[sequence] as usize..starts[sequence + 1] as usize;
                    let guesses = &batch.tokens()[rows.start + 1..rows.end];
                    let Slot { sampler, last, ahead, .. } = &mut self.slots[slot];
                    let sampler = sampler.as_mut().expect("checked");
                    let mut drawn = Vec::new();
                    for (row, logits) in logits.values.chunks_exact_mut(VOCAB).enumerate() {
                        let sampled = sampler.sample(logits, &mut self.scratch);
                        *last = sampled.as_ref().map_or(0, |sampled| sampled.token);
                        drawn.push(sampled);
                        if guesses.get(row) != Some(last) {
                            break;
                        }
                        if let Some(mask) = ahead.get_mut(row) {
                            sampler.set_mask(mask.take());
                        }
                    }
                    ahead.clear();
                    Output::Verified(drawn)
                }
                _ => Output::Logits(logits),
            });
        }
        outputs
    }

    /// What a failed step leaves behind.
    fn spoil(&mut self, control: &mut Control, batch: &Batch) {
        for (group, rows) in control.rows.iter_mut().enumerate() {
            batch.cache_rows(group).iter().for_each(|at| rows[*at as usize] = GARBAGE);
        }
        for slot in batch.slots() {
            self.slots[*slot as usize] = Slot { state: 1, sampler: None, last: 2, ahead: Vec::new() };
        }
    }
}

fn lost() -> ModelError {
    TensorError::DeviceLost { device: "fake".to_owned(), message: "it fell off the bus".to_owned() }.into()
}

pub(crate) fn lock(control: &Mutex<Control>) -> MutexGuard<'_, Control> {
    control.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl LanguageModel for FakeModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn allocate(&mut self, plan: &CachePlan) -> Result<(), ModelError> {
        let CachePlan { page_size, ref pages, slots, .. } = *plan;
        self.limits = StepLimits { vocab: VOCAB, slots, page_size, pages: pages.clone(), axes: 1 };
        self.slots = (0..slots).map(|_| Slot { state: NO_STATE, ..Slot::default() }).collect();
        lock(&self.control).rows = pages.iter().map(|pages| vec![GARBAGE; pages * page_size]).collect();
        Ok(())
    }

    fn limits(&self) -> &StepLimits {
        &self.limits
    }

    fn submit(&mut self, mut batch: Batch) -> Result<Submitted, ModelError> {
        let shared = Arc::clone(&self.control);
        let delay = lock(&shared).delay;
        std::thread::sleep(delay);
        let control = &mut *lock(&shared);
        assert!(self.flights.len() < 2, "too many steps on their way");
        assert!(
            self.flights.iter().all(|(submitted, _)| submitted.feeds),
            "the step before was to be finished"
        );
        assert!(batch.limits() == &self.limits && batch.rows() > 0);
        let starts = batch.query_starts();
        let step =
            starts.windows(2).map(|w| (batch.indices()[w[0] as usize] as usize, (w[1] - w[0]) as usize));
        control.steps.push(step.collect());
        assert!(control.panic_at != Some(control.steps.len()), "the fake model panics as told");
        batch.resolve(|slot| Some(self.slots[slot].last));
        let (slots, wants) = (batch.slots(), batch.wants());
        let draws = |want: &Want| matches!(want, Want::Sample | Want::Verify);
        for (slot, _) in slots.iter().zip(wants).filter(|(_, want)| draws(want)) {
            // After a failed step on its way there may be none: nobody will look at the result.
            if self.slots[*slot as usize].sampler.is_none()
                && self.flights.iter().all(|(_, result)| result.is_ok())
            {
                return Err(TensorError::shape("fake", "a sampler", "none").into());
            }
        }
        if control.is_lost && !control.fails_late {
            return Err(lost());
        }
        if control.most_rows.is_some_and(|most| batch.rows() > most) {
            let (device, what) = ("fake".to_owned(), "activations");
            return Err(TensorError::OutOfMemory { device, bytes: batch.rows() as u64, what }.into());
        }
        let verifies = wants.contains(&Want::Verify);
        if control.fails_steps {
            return Err(TensorError::shape("fake", "no step", "one").into());
        }
        let is_poisoned = batch.tokens().contains(&POISON) && !control.ignores_poison;
        let follows_failure = self.flights.iter().any(|(_, result)| result.is_err());
        let result = if control.is_lost {
            Err(lost())
        } else if is_poisoned || follows_failure {
            self.spoil(control, &batch);
            Err(ModelError::from(TensorError::shape("fake", "no poison", "poison")))
        } else {
            Ok(self.compute(control, &batch))
        };
        if !control.fails_late && !follows_failure && !control.is_lost {
            result.as_ref().map_err(|_| TensorError::shape("fake", "no poison", "poison"))?;
        }
        self.count += 1;
        let feeds = match control.feeds {
            Feeds::Never => false,
            Feeds::Always => true,
            Feeds::Sometimes => !self.count.is_multiple_of(3),
        };
        let feeds = feeds && !verifies;
        let submitted = Submitted { id: StepId(self.count), feeds };
        self.flights.push_back((submitted, result));
        Ok(submitted)
    }

    fn finish(&mut self, id: StepId) -> Result<Vec<Output>, ModelError> {
        let (submitted, result) = self.flights.pop_front().expect("a step on its way");
        assert_eq!(submitted.id, id, "steps are finished in order");
        result
    }

    fn edit(&mut self, edits: Vec<SlotEdit>) -> Result<(), ModelError> {
        let mut control = lock(&self.control);
        if control.is_lost {
            return Err(lost());
        }
        if std::mem::take(&mut control.fails_edits) {
            return Err(TensorError::shape("fake", "no edits", "edits").into());
        }
        control.edits += edits.len();
        for edit in edits {
            match edit {
                SlotEdit::Reset { slot } => self.slots[slot] = Slot { state: NO_STATE, ..Slot::default() },
                SlotEdit::Copy { from, to } => self.slots[to].state = self.slots[from].state,
                SlotEdit::Sampler { slot, sampler } => {
                    self.slots[slot].sampler = Some(*sampler);
                    self.slots[slot].ahead.clear();
                }
                SlotEdit::MasksAhead { slot, masks } => self.slots[slot].ahead = masks,
                SlotEdit::Mask { slot, mask } => {
                    if let Some(sampler) = &mut self.slots[slot].sampler {
                        sampler.set_mask(mask);
                    }
                }
                edit => panic!("unexpected: {edit:?}"),
            }
        }
        Ok(())
    }

    fn kept_as(&self) -> Option<String> {
        Some(format!("fake {:?}", self.kind))
    }

    fn kept_bytes(&self, group: Option<usize>) -> Option<usize> {
        match group {
            Some(group) => (group < self.kind.groups.len()).then_some(8 * self.limits.page_size),
            None => Some(4),
        }
    }

    fn read_page(&mut self, group: usize, page: u32) -> Result<Vec<u8>, ModelError> {
        let control = lock(&self.control);
        let rows = &control.rows[group][page as usize * self.limits.page_size..][..self.limits.page_size];
        Ok(rows
            .iter()
            .flat_map(|(token, index)| [token.to_le_bytes(), index.to_le_bytes()].concat())
            .collect())
    }

    fn write_page(&mut self, group: usize, page: u32, bytes: &[u8]) -> Result<(), ModelError> {
        let mut control = lock(&self.control);
        if control.fails_writes {
            return Err(TensorError::shape("fake", "no writes", "a write").into());
        }
        let size = self.limits.page_size;
        assert_eq!(bytes.len(), 8 * size, "the engine checks lengths");
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        for (row, bytes) in control.rows[group][page as usize * size..].iter_mut().zip(bytes.chunks(8)) {
            *row = (number(&bytes[..4]), number(&bytes[4..]));
        }
        Ok(())
    }

    fn read_slot(&mut self, slot: usize) -> Result<Vec<u8>, ModelError> {
        Ok(self.slots[slot].state.to_le_bytes().to_vec())
    }

    fn write_slot(&mut self, slot: usize, bytes: &[u8]) -> Result<(), ModelError> {
        if lock(&self.control).fails_writes {
            return Err(TensorError::shape("fake", "no writes", "a write").into());
        }
        self.slots[slot].state = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        Ok(())
    }
}
