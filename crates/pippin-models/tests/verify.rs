//! Guesses that are checked: whatever is guessed, the tokens are those that are drawn one row at a time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pippin_cpu::CpuBackend;
use pippin_models::{CachePlan, Config, LanguageModel, Output, SlotEdit, load_from, testing};
use pippin_tensor::sampling::{GenerateParameters, Sampled, Sampler};
use pippin_tensor::testing::Late;
use pippin_tensor::{Batch, Dtype, Input, KvFormat, Numerics, SequenceRows, Want};
use serde_json::Value;

const PAGE: usize = 16;
const PROMPT: [u32; 6] = [5, 1, 2, 3, 4, 5];
const TOKENS: usize = 30;

#[allow(clippy::arc_with_non_send_sync, reason = "a model and its device stay on one thread")]
fn model(name: &str, numerics: Numerics, late: bool) -> Box<dyn LanguageModel> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/{name}.json"));
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let config = Config::new(golden["config"].clone()).unwrap();
    let checkpoint = testing::checkpoint(&config, Dtype::F32, 3).unwrap();
    let cpu = CpuBackend::new(numerics);
    let mut model = match late {
        true => load_from(&config, &checkpoint, Arc::new(Late::new(cpu, Duration::ZERO))).unwrap(),
        false => load_from(&config, &checkpoint, Arc::new(cpu)).unwrap(),
    };
    let pages = vec![16; model.info().cache.groups.len()];
    model.allocate(&CachePlan { page_size: PAGE, format: KvFormat::F32, pages, slots: 3 }).unwrap();
    model
}

/// A sequence in a slot, with pages of its own.
struct Sequence {
    slot: usize,
    tokens: Vec<u32>,
    computed: usize,
    drawn: Vec<Sampled>,
}

impl Sequence {
    fn begin(model: &mut dyn LanguageModel, slot: usize, parameters: &GenerateParameters) -> Self {
        let sampler = Box::new(Sampler::new(Arc::new(parameters.clone()), Arc::default(), &PROMPT));
        model.edit(vec![SlotEdit::Reset { slot }, SlotEdit::Sampler { slot, sampler }]).unwrap();
        // All but the last token of the prompt: what follows the first row of a step is guesses.
        let (prompt, last) = (PROMPT[..PROMPT.len() - 1].to_vec(), PROMPT[PROMPT.len() - 1]);
        let mut sequence = Self { slot, tokens: prompt, computed: 0, drawn: Vec::new() };
        let mut batch = Batch::new(model.limits());
        sequence.push(&mut batch, &[], Want::Nothing);
        let id = model.submit(batch).unwrap().id;
        model.finish(id).unwrap();
        sequence.computed = sequence.tokens.len();
        sequence.tokens.push(last);
        sequence
    }

    /// Adds what is not computed yet, and guesses of what follows.
    fn push(&self, batch: &mut Batch, guesses: &[u32], want: Want) {
        let pages: Vec<u32> = (0..8).map(|page| 2 * page + (self.slot as u32) / 2).collect();
        let pages = vec![pages.as_slice(); batch.limits().pages.len()];
        let rows = [&self.tokens[self.computed..], guesses].concat();
        batch.push(SequenceRows::text(self.slot, Input::Tokens(&rows), self.computed, &pages, want)).unwrap();
    }

    fn take(&mut self, sampled: &[Option<Sampled>]) {
        self.computed = self.tokens.len() + sampled.len() - 1;
        let sampled: Vec<Sampled> = sampled.iter().flatten().cloned().collect();
        assert!(!sampled.is_empty());
        self.tokens.extend(sampled.iter().map(|sampled| sampled.token));
        self.drawn.extend(sampled);
    }
}

fn one_by_one(model: &mut dyn LanguageModel, parameters: &GenerateParameters) -> Vec<Sampled> {
    let mut sequence = Sequence::begin(model, 2, parameters);
    for _ in 0..TOKENS {
        let mut batch = Batch::new(model.limits());
        sequence.push(&mut batch, &[], Want::Sample);
        let id = model.submit(batch).unwrap().id;
        match &model.finish(id).unwrap()[..] {
            [Output::Sampled(sampled)] => sequence.take(std::slice::from_ref(sampled)),
            other => panic!("{other:?}"),
        }
    }
    sequence.drawn
}

#[test]
fn guesses_change_nothing_but_the_number_of_steps() {
    let sampled = GenerateParameters {
        temperature: 1.5,
        top_k: 20,
        top_p: 0.9,
        xtc_probability: 0.3,
        repetition_penalty: Some(1.3),
        frequency_penalty: Some(0.4),
        seed: Some(7),
        logprobs: true,
        ..Default::default()
    };
    let greedy = GenerateParameters { logprobs: true, ..GenerateParameters::greedy() };
    for family in
        ["llama", "qwen3_moe", "gemma3", "gemma3n", "gemma4_text", "gpt_oss", "llama4", "deepseek_v3"]
    {
        for numerics in [Numerics::Exact, Numerics::Fast] {
            for parameters in [&greedy, &sampled] {
                for late in [false, true] {
                    let mut model = model(family, numerics, late);
                    assert!(model.info().cache.can_rewind(), "{family}");
                    let expected = one_by_one(&mut *model, parameters);
                    let known: Vec<u32> = expected.iter().map(|sampled| sampled.token).collect();

                    // One sequence guesses, more or less well; its neighbour does not.
                    let mut guessing = Sequence::begin(&mut *model, 0, parameters);
                    let mut other = Sequence::begin(&mut *model, 2, parameters);
                    let mut steps = 0;
                    while guessing.drawn.len() + 5 < TOKENS {
                        let at = guessing.drawn.len();
                        let mut guesses = known[at..at + steps % 6].to_vec();
                        // Every second time one of them is wrong, which one changes.
                        if steps % 2 == 1 {
                            let wrong = (steps / 2) % guesses.len();
                            guesses[wrong] = (guesses[wrong] + 1) % 40;
                        }
                        let mut batch = Batch::new(model.limits());
                        guessing.push(&mut batch, &guesses, Want::Verify);
                        other.push(&mut batch, &[], Want::Sample);
                        let submitted = model.submit(batch).unwrap();
                        assert!(!submitted.feeds, "how many tokens there are is not known");
                        match &model.finish(submitted.id).unwrap()[..] {
                            [Output::Verified(drawn), Output::Sampled(sampled)] => {
                                let right =
                                    guesses.iter().zip(&known[at..]).take_while(|(a, b)| a == b).count();
                                assert_eq!(drawn.len(), right + 1, "{family}");
                                guessing.take(drawn);
                                other.take(std::slice::from_ref(sampled));
                            }
                            outputs => panic!("{outputs:?}"),
                        }
                        steps += 1;
                    }
                    assert!(steps < guessing.drawn.len());
                    assert_eq!(guessing.drawn, expected[..guessing.drawn.len()], "{family} {numerics:?}");
                    assert_eq!(other.drawn, expected[..other.drawn.len()], "{family} {numerics:?}");
                }
            }
        }
    }
}

#[test]
fn guesses_are_checked_with_the_sampler_of_the_slot() {
    let mut model = model("llama", Numerics::Exact, false);
    let mut batch = Batch::new(model.limits());
    let rows = Input::Tokens(&[1, 2, 3]);
    batch.push(SequenceRows::text(1, rows, 0, &[&[0]], Want::Verify)).unwrap();
    let error = model.submit(batch).unwrap_err();
    assert!(error.to_string().contains("slot 1 has no sampler"), "{error}");
}
