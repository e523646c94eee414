//! A model and a tokenizer that cost nothing, for tests.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pippin_cpu::CpuBackend;
use pippin_models::{Config, LanguageModel, Logits, ModelError, ModelInfo, describe_from, testing};
use pippin_tensor::{Batch, Dtype, KvFormat, Numerics, TensorError};
use pippin_text::{ChatTemplate, StopTokens, Tokenizer};
use serde_json::{Map, json};

use crate::TextProcessor;

/// Token ids of the fake model.
pub(crate) const VOCAB: usize = 64;
/// Its only stop token.
pub(crate) const STOP: u32 = 63;
/// A token in whose presence a step fails.
pub(crate) const POISON: u32 = 61;
/// A token after which the logits are NaN.
pub(crate) const NAN: u32 = 60;

/// The token that follows a sequence: a hash of all of it, and never one of the special ones above.
pub(crate) fn next_token(tokens: &[u32]) -> u32 {
    let hash = tokens
        .iter()
        .fold(0x811c_9dc5_u32, |hash, token| (hash ^ (token + 1)).wrapping_mul(0x0100_0193).rotate_left(5));
    hash % 50
}

/// What greedy decoding gives.
pub(crate) fn continuation(prompt: &[u32], count: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..count {
        tokens.push(next_token(&tokens));
    }
    tokens.split_off(prompt.len())
}

/// The logits after a sequence. The likeliest token is [`next_token`]; the others follow at a distance.
pub(crate) fn logits(tokens: &[u32]) -> Vec<f32> {
    let next = next_token(tokens);
    let is_nan = tokens.last() == Some(&NAN);
    let logit = |token: u32| match token {
        _ if is_nan => f32::NAN,
        _ if token == next => 4.0,
        STOP | POISON | NAN => -9.0,
        _ => ((token * 29 + next) % 50) as f32 / 20.0,
    };
    (0..VOCAB as u32).map(logit).collect()
}

/// What a step was asked to do: for each sequence the first new position and the number of rows.
pub(crate) type Step = Vec<(usize, usize)>;

/// What tests see and set while the model runs.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pub(crate) steps: Vec<Step>,
    /// Panic in the step of this number.
    pub(crate) panic_at: Option<usize>,
    /// Take [`POISON`] for a token like any other.
    pub(crate) ignores_poison: bool,
    /// Take this long for a step.
    pub(crate) delay: Duration,
}

/// A model whose "keys and values" are the tokens themselves. It reads them back through the page tables, so that a
/// page which is shared, moved or overwritten wrongly changes what it generates, or panics.
#[derive(Debug)]
pub(crate) struct FakeModel {
    info: ModelInfo,
    /// The token and its position in each slot.
    slots: Vec<(u32, u32)>,
    control: Arc<Mutex<Control>>,
    cpu: CpuBackend,
}

impl FakeModel {
    pub(crate) fn new(context: usize) -> (Self, Arc<Mutex<Control>>) {
        let config = Config::new(testing::tiny_llama()).expect("a valid configuration");
        let checkpoint = testing::checkpoint(&config, Dtype::F32, 0).expect("a valid checkpoint");
        let mut info = describe_from(&config, &checkpoint).expect("a valid model");
        info.vocab_size = VOCAB;
        info.context_length = context;
        let control = Arc::<Mutex<Control>>::default();
        let cpu = CpuBackend::new(Numerics::Exact);
        (Self { info, slots: Vec::new(), control: Arc::clone(&control), cpu }, control)
    }

    pub(crate) fn boxed(context: usize) -> (Box<dyn LanguageModel>, Arc<Mutex<Control>>) {
        let (model, control) = Self::new(context);
        (Box::new(model), control)
    }
}

pub(crate) fn lock(control: &Mutex<Control>) -> MutexGuard<'_, Control> {
    control.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl LanguageModel for FakeModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn kv_page_bytes(&self, page_size: usize, _: KvFormat) -> usize {
        page_size * 8
    }

    fn allocate_kv(&mut self, pages: usize, page_size: usize, _: KvFormat) -> Result<(), ModelError> {
        self.slots = vec![(u32::MAX, u32::MAX); pages * page_size];
        Ok(())
    }

    fn step(&mut self, batch: &Batch) -> Result<Logits, ModelError> {
        // The CPU's index buffers can be read, which a batch itself cannot.
        let inputs = batch.upload(&self.cpu)?;
        let starts = &inputs.query_starts;
        let (delay, ignores_poison) = {
            let mut control = lock(&self.control);
            control.steps.push(
                starts
                    .windows(2)
                    .map(|w| (inputs.positions[w[0] as usize] as usize, (w[1] - w[0]) as usize))
                    .collect(),
            );
            assert!(control.panic_at != Some(control.steps.len()), "the fake model panics as told");
            (control.delay, control.ignores_poison)
        };
        std::thread::sleep(delay);
        if inputs.tokens.contains(&POISON) && !ignores_poison {
            return Err(TensorError::shape("fake", "no poison", "poison").into());
        }
        for row in 0..inputs.rows {
            self.slots[inputs.slots[row] as usize] = (inputs.tokens[row], inputs.positions[row]);
        }
        let page_size = batch.page_size();
        let mut values = Vec::new();
        for row in inputs.logit_rows.iter() {
            let sequence = starts.partition_point(|start| start <= row) - 1;
            let table =
                &inputs.page_tables[sequence * inputs.pages_per_sequence..][..inputs.pages_per_sequence];
            let context: Vec<u32> = (0..=inputs.positions[*row as usize])
                .map(|position| {
                    let page = table[position as usize / page_size] as usize;
                    let (token, stored) = self.slots[page * page_size + position as usize % page_size];
                    assert_eq!(stored, position, "the slot holds another position");
                    token
                })
                .collect();
            values.extend(logits(&context));
        }
        Ok(Logits { rows: inputs.logit_rows.len(), vocab: VOCAB, values })
    }
}

/// A tokenizer of whole words: `w0` to `w59` are those ids, `<stop>` is the stop token.
pub(crate) fn tokenizer() -> Tokenizer {
    let mut vocab: Map<String, serde_json::Value> =
        (0..VOCAB).map(|id| (format!("w{id}"), json!(id))).collect();
    for (word, id) in [("<user>", 54), ("<assistant>", 55), ("<system>", 56), ("[UNK]", 59), ("<stop>", STOP)]
    {
        vocab.retain(|_, value| *value != json!(id));
        vocab.insert(word.to_owned(), json!(id));
    }
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" }
    });
    Tokenizer::from_json(&json.to_string(), &Map::new()).expect("a valid tokenizer")
}

/// The processor of the fake model, with a template that writes `<role> text` for every message.
pub(crate) fn processor() -> TextProcessor {
    let template = ChatTemplate::from_source(
        "test",
        "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}<assistant>",
    )
    .expect("a valid template");
    TextProcessor::new(tokenizer(), Some(template), StopTokens::from_iter([STOP]))
}
