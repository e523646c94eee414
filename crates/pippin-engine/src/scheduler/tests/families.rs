//! Real models, tiny and with random weights: whatever is shared, cut or suspended, the tokens are those that a model gives
//! alone.

use std::path::Path;
use std::time::Duration;

use pippin_cpu::CpuBackend;
use pippin_models::{CachePlan, Config, load_from};
use pippin_tensor::testing::Late;
use pippin_tensor::{Backend, Dtype, Numerics};
use serde_json::Value;

use super::*;

const SEQUENCES: usize = 3;
const SNAPSHOTS: usize = 8;

/// A model of the model crate's golden tests, with what is expected of it.
struct Golden {
    name: String,
    value: Value,
}

impl Golden {
    /// One of each family, and those with windows.
    fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pippin-models/tests/goldens");
        let mut found: Vec<Self> = std::fs::read_dir(folder)
            .expect("goldens")
            .filter_map(|entry| {
                let path = entry.expect("a file").path();
                let name = path.file_stem()?.to_str()?.to_owned();
                let is_one = !name.contains('-') || name.ends_with("-sliding");
                let text = is_one.then(|| std::fs::read(&path).expect("read"))?;
                Some(Self { name, value: serde_json::from_slice(&text).expect("JSON") })
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(found.len() > 15);
        found
    }

    fn tokens(&self, key: &str) -> Vec<u32> {
        let tokens = self.value[key].as_array().expect("tokens");
        tokens.iter().map(|token| token.as_u64().expect("a token") as u32).collect()
    }

    /// A scheduler with caches for so many tokens, on the CPU.
    fn scheduler(&self, numerics: Numerics, tokens: usize, step: usize) -> Scheduler {
        self.scheduler_on(CpuBackend::new(numerics), tokens, step)
    }

    fn scheduler_on<B: Backend>(&self, backend: B, tokens: usize, step: usize) -> Scheduler {
        let config = Config::new(self.value["config"].clone()).expect("a configuration");
        let dtype = self.value["dtype"].as_str().and_then(Dtype::from_name).expect("a type");
        let salt = self.value["salt"].as_u64().expect("a number");
        let checkpoint = pippin_models::testing::checkpoint(&config, dtype, salt).expect("a checkpoint");
        let mut model = load_from(&config, &checkpoint, Arc::new(backend)).expect("a model");
        let layout = model.info().cache.clone();
        let pages = cache_pages(&layout, tokens, SEQUENCES, step);
        let snapshots = if layout.has_state() { SNAPSHOTS } else { 0 };
        let (format, slots) = (KvFormat::F32, SEQUENCES + snapshots);
        model.allocate(&CachePlan { page_size: PAGE_SIZE, format, pages, slots }).expect("allocated");
        Scheduler::new(model, Limits { context: tokens, sequences: SEQUENCES, step })
    }
}

fn ask(scheduler: &mut Scheduler, prompts: &[&[u32]], max_tokens: usize) -> Vec<(Vec<u32>, usize)> {
    let mut clients: Vec<Client> =
        prompts.iter().map(|prompt| Client::submit_to(scheduler, prompt, greedy(max_tokens), &[])).collect();
    while !scheduler.is_idle() {
        scheduler.step();
    }
    clients
        .iter_mut()
        .map(|client| (client.finished(FinishReason::Length).to_vec(), client.cached.expect("started")))
        .collect()
}

#[test]
fn tokens_depend_on_nothing_but_the_prompt() {
    for golden in Golden::all() {
        for numerics in [Numerics::Exact, Numerics::Fast] {
            // All of them have more tokens than that.
            let long: Vec<u32> = (0..100u32).map(|i| (i * i * 7 + i) % 47).collect();
            let short = golden.tokens("prompt");
            let mut alone = golden.scheduler(numerics, 256, 512);
            let mut expect = |prompt: &[u32]| {
                alone.clear_cache();
                ask(&mut alone, &[prompt], 30).remove(0).0
            };
            let (long_answer, short_answer) = (expect(&long), expect(&short));
            let greedy = golden.tokens("greedy");
            if numerics == Numerics::Exact {
                let count = greedy.len().min(30);
                assert_eq!(short_answer[..count], greedy[..count], "{}", golden.name);
            }
            let second = [&long[..], &long_answer, &[1, 2, 3]].concat();
            let second_answer = expect(&second);
            let parted = [&long[..70], &[5; 20]].concat();
            let parted_answer = expect(&parted);

            // In a cache that is just large enough, cut into small pieces, beside each other, and after each other.
            let mut scheduler = golden.scheduler(numerics, 192, 24);
            let name = &golden.name;
            let together = ask(&mut scheduler, &[&long, &short, &parted], 30);
            assert_eq!(
                together.iter().map(|answer| &answer.0).collect::<Vec<_>>(),
                [&long_answer, &short_answer, &parted_answer],
                "{name}"
            );
            for (prompt, answer) in [
                (&long, &long_answer),
                (&second, &second_answer),
                (&parted, &parted_answer),
                (&second, &second_answer),
            ] {
                let (found, cached) = ask(&mut scheduler, &[prompt], 30).remove(0);
                assert_eq!(&found, answer, "{name}: {cached} of {} tokens were cached", prompt.len());
            }
            // A turn goes on where the one before it ended, whatever the model keeps.
            let mut scheduler = golden.scheduler(numerics, 192, 24);
            ask(&mut scheduler, &[&long], 30);
            assert_eq!(ask(&mut scheduler, &[&second], 30), [(second_answer, 129)], "{name}");
        }
    }
}

/// On a device whose results come late, which draws tokens itself and refuses to be read within a step: the same tokens, one
/// step ahead, and a bounded number of buffers for each step.
#[test]
fn a_late_device_gives_the_same_tokens() {
    for golden in Golden::all() {
        let name = &golden.name;
        let prompts = [golden.tokens("prompt"), (0..40).map(|i| i * i % 43).collect(), vec![7, 3, 9]];
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let mut cpu = golden.scheduler(Numerics::Exact, 192, 24);
        let expected = ask(&mut cpu, &prompts, 30);
        let device = Late::new(CpuBackend::new(Numerics::Exact), Duration::from_micros(50));
        let counts = device.counts();
        let mut late = golden.scheduler_on(device, 192, 24);
        let uploads = counts.uploads.get();
        let found = ask(&mut late, &prompts, 30);
        let tokens = |answers: &[(Vec<u32>, usize)]| answers.iter().map(|a| a.0.clone()).collect::<Vec<_>>();
        assert_eq!(tokens(&found), tokens(&expected), "{name}");
        let per_step = (counts.uploads.get() - uploads) as f64 / counts.steps.get() as f64;
        assert!(per_step <= 20.0, "{name}: {per_step} buffers for each step");
        // Each step is waited for once: when its tokens are taken.
        assert!(counts.reads.get() <= counts.steps.get() + 1, "{name}: {counts:?}");
    }
}
