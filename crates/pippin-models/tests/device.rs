//! The decoder on a device whose results come late: nothing but `finish` waits for it, tokens feed the next step without the
//! host, and what a step sends to the device is bounded.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pippin_cpu::CpuBackend;
use pippin_cuda::CudaBackend;
use pippin_models::{
    CachePlan, Config, LanguageModel, ModelError, Output, SlotEdit, StepId, load_from, testing,
};
use pippin_tensor::sampling::{GenerateParameters, Sampled, Sampler};
use pippin_tensor::testing::{Counts, Late};
use pippin_tensor::{Backend, Batch, Dtype, Input, KvFormat, Numerics, SequenceRows, Want};
use serde_json::Value;

const PAGE: usize = 16;

fn config(name: &str) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/{name}.json"));
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    Config::new(golden["config"].clone()).unwrap()
}

fn model(config: &Config, late: bool) -> (Box<dyn LanguageModel>, Rc<Counts>) {
    let cpu = CpuBackend::new(Numerics::Exact);
    let device = Late::new(cpu.clone(), Duration::from_millis(1));
    let counts = device.counts();
    (if late { model_on(config, device) } else { model_on(config, cpu) }, counts)
}

#[allow(clippy::arc_with_non_send_sync, reason = "a model and its device stay on one thread")]
fn model_on<B: Backend>(config: &Config, backend: B) -> Box<dyn LanguageModel> {
    let checkpoint = testing::checkpoint(config, Dtype::F32, 3).unwrap();
    let mut model = load_from(config, &checkpoint, Arc::new(backend)).unwrap();
    let pages = vec![16; model.info().cache.groups.len()];
    model.allocate(&CachePlan { page_size: PAGE, format: KvFormat::F32, pages, slots: 3 }).unwrap();
    model
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

    /// Gives one of them a sampler of its own.
    fn set_sampler(&mut self, sequence: usize, parameters: &GenerateParameters) {
        let sampler = Box::new(Sampler::new(Arc::new(parameters.clone()), Arc::default(), &[]));
        self.model.edit(vec![SlotEdit::Sampler { slot: 2 * sequence, sampler }]).unwrap();
    }

    fn submit(&mut self, inputs: [Input<'_>; 2]) -> (StepId, bool) {
        let [first, second] = inputs;
        self.try_submit(&[(0, first), (1, second)]).unwrap()
    }

    fn try_submit(&mut self, inputs: &[(usize, Input<'_>)]) -> Result<(StepId, bool), ModelError> {
        let mut batch = Batch::new(self.model.limits());
        let groups = self.model.limits().pages.len();
        for (sequence, input) in inputs {
            let pages: Vec<u32> = (0..8).map(|page| 2 * page + *sequence as u32).collect();
            let pages = vec![pages.as_slice(); groups];
            let start = self.lengths[*sequence];
            batch.push(SequenceRows::text(2 * sequence, *input, start, &pages, Want::Sample)).unwrap();
        }
        let submitted = self.model.submit(batch)?;
        inputs.iter().for_each(|(sequence, input)| self.lengths[*sequence] += input.len());
        Ok((submitted.id, submitted.feeds))
    }

    fn sampled(&mut self, id: StepId) -> Vec<Sampled> {
        let outputs = self.model.finish(id).unwrap();
        let sampled = |output| match output {
            Output::Sampled(Some(sampled)) => sampled,
            other => panic!("{other:?}"),
        };
        outputs.into_iter().map(sampled).collect()
    }

    fn finish(&mut self, id: StepId) -> [u32; 2] {
        let sampled = self.sampled(id);
        [sampled[0].token, sampled[1].token]
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
    let bias = GenerateParameters { logit_bias: [(3, 1.0)].into(), ..GenerateParameters::greedy() };
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
    for parameters in [&bias, &alternatives] {
        assert_eq!(tokens(true, parameters), tokens(false, parameters));
    }
}

/// Penalties look at the tokens before: they are drawn with on the device, but not ahead of what they look at.
#[test]
fn penalties_wait_for_the_token_before() {
    let config = config("llama");
    let penalties = GenerateParameters {
        repetition_penalty: Some(1.5),
        frequency_penalty: Some(0.3),
        ..GenerateParameters::greedy()
    };
    let mut host = Two::new(model(&config, false).0, &penalties);
    let (device, counts) = model(&config, true);
    let mut device = Two::new(device, &penalties);
    let mut inputs = PROMPTS.map(Input::Tokens);
    for step in 0..12 {
        let (id, _) = host.submit(inputs);
        let (late, feeds) = device.submit(inputs);
        assert!(!feeds);
        let both = [(0, Input::Sampled), (1, Input::Sampled)];
        assert!(device.try_submit(&both).unwrap_err().to_string().contains("slot 0"));
        let reads = counts.reads.get();
        assert_eq!(host.finish(id), device.finish(late), "step {step}");
        assert_eq!(counts.reads.get(), reads + 1, "more than the tokens was read");
        inputs = [Input::Sampled; 2];
    }
}

/// Whether one sampler reports log-probabilities makes no difference to another.
#[test]
fn log_probabilities_are_for_those_who_ask() {
    let config = config("llama");
    let reports = GenerateParameters { logprobs: true, ..GenerateParameters::greedy() };
    for late in [false, true] {
        let mut two = Two::new(model(&config, late).0, &GenerateParameters::greedy());
        two.set_sampler(1, &reports);
        let (id, _) = two.submit(PROMPTS.map(Input::Tokens));
        let reported: Vec<bool> = two.sampled(id).iter().map(|sampled| sampled.logprob.is_some()).collect();
        assert_eq!(reported, [false, true], "late: {late}");
    }
}

/// What the host has drawn is not looked for on the device, whatever else is on its way there.
#[test]
fn tokens_of_the_host_and_of_the_device_are_told_apart() {
    let config = config("llama");
    let alternatives = GenerateParameters { logprobs: true, top_logprobs: 3, ..GenerateParameters::greedy() };
    let tokens = |late| {
        let mut two = Two::new(model(&config, late).0, &GenerateParameters::greedy());
        // The device draws for the first once, so that it keeps a token of it.
        let (id, _) = two.submit(PROMPTS.map(Input::Tokens));
        let mut drawn = two.finish(id).to_vec();
        two.set_sampler(0, &alternatives);
        let (id, _) = two.try_submit(&[(0, Input::Sampled)]).unwrap();
        drawn.push(two.sampled(id)[0].token);
        let (second, _) = two.try_submit(&[(1, Input::Sampled)]).unwrap();
        let (first, _) = two.try_submit(&[(0, Input::Sampled)]).unwrap();
        drawn.push(two.sampled(second)[0].token);
        drawn.push(two.sampled(first)[0].token);
        drawn
    };
    assert_eq!(tokens(true), tokens(false));
}

/// On the device that `PIPPIN_TEST_DEVICE` names: what it draws, one step ahead, is what the host draws from its logits.
#[test]
fn a_real_device_feeds_itself() {
    if std::env::var("PIPPIN_TEST_DEVICE").as_deref() != Ok("cuda") {
        eprintln!("skipped: PIPPIN_TEST_DEVICE names no device that draws tokens");
        return;
    }
    // A backend repeats the steps of one model.
    let model = |config: &Config| model_on(config, CudaBackend::new(0, Numerics::Exact).unwrap());
    let sampled = GenerateParameters {
        temperature: 1.5,
        top_k: 20,
        top_p: 0.95,
        seed: Some(7),
        logprobs: true,
        ..Default::default()
    };
    for family in FAMILIES {
        let config = config(family);
        for parameters in
            [GenerateParameters { logprobs: true, ..GenerateParameters::greedy() }, sampled.clone()]
        {
            // What is asked for beside the tokens only the host can tell.
            let on_host = GenerateParameters { top_logprobs: 1, ..parameters.clone() };
            let mut host = Two::new(model(&config), &on_host);
            let (id, feeds) = host.submit(PROMPTS.map(Input::Tokens));
            assert!(!feeds);
            let mut expected = vec![host.sampled(id)];
            for _ in 0..60 {
                let (id, _) = host.submit([Input::Sampled; 2]);
                expected.push(host.sampled(id));
            }
            let mut device = Two::new(model(&config), &parameters);
            let (mut flying, feeds) = device.submit(PROMPTS.map(Input::Tokens));
            assert!(feeds);
            let mut drawn = Vec::new();
            for step in 0..60 {
                // Now and then the device has nothing to do, and the host knows the tokens.
                if step % 23 == 22 {
                    drawn.push(device.sampled(flying));
                    flying = device.submit([Input::Sampled; 2]).0;
                    continue;
                }
                let (next, _) = device.submit([Input::Sampled; 2]);
                drawn.push(device.sampled(flying));
                flying = next;
            }
            drawn.push(device.sampled(flying));
            for (step, (drawn, expected)) in drawn.iter().zip(&expected).enumerate() {
                for (drawn, expected) in drawn.iter().zip(expected) {
                    assert_eq!(drawn.token, expected.token, "{family}, step {step}");
                    let difference = drawn.logprob.unwrap() - expected.logprob.unwrap();
                    assert!(difference.abs() < 1e-4, "{family}, step {step}: {difference}");
                }
            }
        }
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
