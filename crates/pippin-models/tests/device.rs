//! The decoder on a device whose results come late: nothing but `finish` waits for it, tokens feed the next step without the
//! host, and what a step sends to the device is bounded.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pippin_cpu::CpuBackend;
use pippin_models::{CachePlan, Config, LanguageModel, Output, SlotEdit, load_from, testing};
use pippin_tensor::sampling::{GenerateParameters, Sampler};
use pippin_tensor::testing::{Counts, Late};
use pippin_tensor::{Batch, Dtype, Input, KvFormat, Numerics, SequenceRows, Want};
use serde_json::Value;

const PAGE: usize = 16;

fn config(name: &str) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/{name}.json"));
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    Config::new(golden["config"].clone()).unwrap()
}

#[allow(clippy::arc_with_non_send_sync, reason = "a model and its device stay on one thread")]
fn model(config: &Config, late: bool) -> (Box<dyn LanguageModel>, Rc<Counts>) {
    let checkpoint = testing::checkpoint(config, Dtype::F32, 3).unwrap();
    let cpu = CpuBackend::new(Numerics::Exact);
    let device = Late::new(cpu.clone(), Duration::from_millis(1));
    let counts = device.counts();
    let mut model = match late {
        true => load_from(config, &checkpoint, Arc::new(device)).unwrap(),
        false => load_from(config, &checkpoint, Arc::new(cpu)).unwrap(),
    };
    let pages = vec![16; model.info().cache.groups.len()];
    model.allocate(&CachePlan { page_size: PAGE, format: KvFormat::F32, pages, slots: 3 }).unwrap();
    (model, counts)
}

/// Two sequences: a prompt each, then tokens drawn from it. Returns what is drawn.
struct Two {
    model: Box<dyn LanguageModel>,
    lengths: [usize; 2],
}

impl Two {
    fn new(mut model: Box<dyn LanguageModel>, parameters: &GenerateParameters) -> Self {
        let sampler = |slot| SlotEdit::Sampler {
            slot,
            sampler: Box::new(Sampler::new(Arc::new(parameters.clone()), Arc::default(), &[])),
        };
        model
            .edit(vec![SlotEdit::Reset { slot: 0 }, SlotEdit::Reset { slot: 2 }, sampler(0), sampler(2)])
            .unwrap();
        Self { model, lengths: [0, 0] }
    }

    fn submit(&mut self, inputs: [Input<'_>; 2]) -> (pippin_models::StepId, bool) {
        let mut batch = Batch::new(self.model.limits());
        let groups = self.model.limits().pages.len();
        for (sequence, input) in inputs.into_iter().enumerate() {
            let pages: Vec<u32> = (0..8).map(|page| 2 * page + sequence as u32).collect();
            let pages = vec![pages.as_slice(); groups];
            let start = self.lengths[sequence];
            self.lengths[sequence] += input.len();
            batch.push(SequenceRows::text(2 * sequence, input, start, &pages, Want::Sample)).unwrap();
        }
        let submitted = self.model.submit(batch).unwrap();
        (submitted.id, submitted.feeds)
    }

    fn finish(&mut self, id: pippin_models::StepId) -> [u32; 2] {
        let outputs = self.model.finish(id).unwrap();
        let token = |output: &Output| match output {
            Output::Sampled(Some(sampled)) => sampled.token,
            other => panic!("{other:?}"),
        };
        [token(&outputs[0]), token(&outputs[1])]
    }
}

const PROMPTS: [&[u32]; 2] = [&[1, 2, 3, 4, 5], &[9, 8, 7]];
const FAMILIES: [&str; 10] = [
    "llama",
    "qwen3_moe",
    "gear",
    "gemma3",
    "gemma3n",
    "gemma4_text",
    "mamba2",
    "qwen3_next",
    "recurrent_gemma",
    "rwkv7",
];

/// One step ahead, with the tokens on the device, gives what one step after the other gives on the host.
#[test]
fn tokens_feed_the_next_step_on_the_device() {
    let parameters = [
        GenerateParameters::greedy(),
        GenerateParameters {
            temperature: 1.5,
            top_k: 20,
            seed: Some(7),
            logprobs: true,
            ..Default::default()
        },
    ];
    for family in FAMILIES {
        let config = config(family);
        for parameters in &parameters {
            let mut host = Two::new(model(&config, false).0, parameters);
            let (id, feeds) = host.submit(PROMPTS.map(Input::Tokens));
            assert!(!feeds, "the CPU draws on the host");
            let mut expected = vec![host.finish(id)];
            for _ in 0..20 {
                let (id, _) = host.submit([Input::Sampled, Input::Sampled]);
                expected.push(host.finish(id));
            }

            let (device, counts) = model(&config, true);
            let mut device = Two::new(device, parameters);
            let (mut flying, feeds) = device.submit(PROMPTS.map(Input::Tokens));
            assert!(feeds);
            let mut drawn = Vec::new();
            for _ in 0..20 {
                let (reads, uploads) = (counts.reads.get(), counts.uploads.get());
                let (next, _) = device.submit([Input::Sampled, Input::Sampled]);
                assert_eq!(counts.reads.get(), reads, "{family}: a step was waited for");
                let uploads = counts.uploads.get() - uploads;
                assert!(uploads <= 16, "{family}: a step sends {uploads} buffers");
                drawn.push(device.finish(flying));
                flying = next;
            }
            drawn.push(device.finish(flying));
            assert_eq!(drawn, expected, "{family}");
            // Decode steps of as many sequences have one shape until a page table grows.
            let shapes = counts.shapes.borrow();
            assert!(shapes[1..].windows(2).filter(|pair| pair[0] != pair[1]).count() <= 2, "{shapes:?}");
        }
    }
}

/// Parameters that the device does not know are drawn with on the host, after the step.
#[test]
fn what_a_device_cannot_draw_the_host_draws() {
    let config = config("llama");
    let penalty = GenerateParameters { repetition_penalty: Some(1.3), ..GenerateParameters::greedy() };
    let alternatives = GenerateParameters { logprobs: true, top_logprobs: 3, ..GenerateParameters::greedy() };
    let tokens = |late, parameters| {
        let mut two = Two::new(model(&config, late).0, parameters);
        let (id, feeds) = two.submit(PROMPTS.map(Input::Tokens));
        assert!(!feeds);
        // Without the tokens, no step can follow that begins with them.
        let mut drawn = vec![two.finish(id)];
        for _ in 0..10 {
            let (id, _) = two.submit([Input::Sampled, Input::Sampled]);
            drawn.push(two.finish(id));
        }
        drawn
    };
    for parameters in [&penalty, &alternatives] {
        assert_eq!(tokens(true, parameters), tokens(false, parameters));
    }
}

#[test]
fn a_token_that_is_not_drawn_yet_is_not_guessed() {
    let config = config("llama");
    let mut two = Two::new(model(&config, false).0, &GenerateParameters::greedy());
    two.submit(PROMPTS.map(Input::Tokens));
    let mut batch = Batch::new(two.model.limits());
    batch.push(SequenceRows::text(0, Input::Sampled, 5, &[&[0]], Want::Sample)).unwrap();
    let error = two.model.submit(batch).unwrap_err();
    assert!(error.to_string().contains("slot 0"), "{error}");
}
