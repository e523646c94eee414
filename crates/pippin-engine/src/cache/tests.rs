//! The cache with models of known sizes, a clock that stands still, and memory that is as scarce as told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Barrier, LazyLock, Mutex};
use std::time::{Duration, Instant};

use pippin_models::{
    CacheLayout, CachePlan, LanguageModel, ModelError, ModelInfo, Output, SlotEdit, StepId, Submitted,
};
use pippin_sampling::Sampled;
use pippin_tensor::{Batch, StepLimits, TensorError, Want};
use proptest::prelude::*;

use super::*;
use crate::error::HeldModel;
use crate::testing::{FakeModel, Kind, VOCAB, processor};
use crate::{
    CancelHandle, Device, DeviceMemory, GenerateParameters, GenerationStream, LoadOptions, LoadProgress,
    MemoryBudget, ModelSettings, TextProcessor,
};
use crate::{ModelContainer, ModelMemory};

/// A model of so many bytes that writes the same word for ever.
struct Weight {
    info: ModelInfo,
    limits: StepLimits,
    outputs: Vec<Output>,
}

impl LanguageModel for Weight {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn allocate(&mut self, plan: &CachePlan) -> Result<(), ModelError> {
        let (page_size, pages) = (plan.page_size, plan.pages.clone());
        self.limits = StepLimits { vocab: VOCAB, slots: plan.slots, page_size, pages, axes: 1 };
        Ok(())
    }

    fn limits(&self) -> &StepLimits {
        &self.limits
    }

    fn submit(&mut self, batch: Batch) -> Result<Submitted, ModelError> {
        assert!(!batch.tokens().contains(&DEADLY), "the model panics as told");
        if batch.tokens().contains(&LOST) {
            let (device, message) = ("fake".to_owned(), "it fell off the bus".to_owned());
            return Err(TensorError::DeviceLost { device, message }.into());
        }
        std::thread::sleep(Duration::from_micros(100));
        let drawn = Output::Sampled(Some(Sampled { token: 0, logprob: None, top_logprobs: Vec::new() }));
        let output = |want: &Want| if *want == Want::Sample { drawn.clone() } else { Output::Nothing };
        self.outputs = batch.wants().iter().map(output).collect();
        Ok(Submitted { id: StepId(0), feeds: false })
    }

    fn finish(&mut self, _: StepId) -> Result<Vec<Output>, ModelError> {
        Ok(std::mem::take(&mut self.outputs))
    }

    fn edit(&mut self, _: Vec<SlotEdit>) -> Result<(), ModelError> {
        Ok(())
    }
}

/// A token that kills the model's thread.
const DEADLY: u32 = 13;
/// A token with which the device is lost.
const LOST: u32 = 14;

/// What the loader does with a model.
#[derive(Clone, Default)]
struct Behaviour {
    bytes: u64,
    /// It takes that much more than was planned.
    surprise: u64,
    /// The next loads fail: with this message, or for want of memory.
    failures: Vec<Option<&'static str>>,
    panics: bool,
    /// Loading waits here.
    gate: Option<Arc<Gate>>,
}

/// Holds a load until it is opened.
#[derive(Default)]
struct Gate {
    is_reached: AtomicBool,
    is_open: AtomicBool,
}

impl Gate {
    fn pass(&self) {
        self.is_reached.store(true, Ordering::SeqCst);
        wait_for(|| self.is_open.load(Ordering::SeqCst));
    }

    fn wait_until_reached(&self) {
        wait_for(|| self.is_reached.load(Ordering::SeqCst));
    }

    fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }
}

#[track_caller]
fn wait_for(condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(30), "it never happens");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Loads models named `m0`, `m1`, ….
#[derive(Clone, Default)]
struct Fakes(Arc<Loads>);

#[derive(Default)]
struct Loads {
    models: Mutex<BTreeMap<String, Behaviour>>,
    count: AtomicUsize,
}

impl Fakes {
    fn of_sizes(sizes: &[u64]) -> Self {
        let fakes = Self::default();
        for (index, bytes) in sizes.iter().enumerate() {
            fakes.change(index, |model| model.bytes = *bytes);
        }
        fakes
    }

    fn change(&self, index: usize, change: impl FnOnce(&mut Behaviour)) {
        change(self.0.models.lock().expect("no panic").entry(name(index)).or_default());
    }

    fn loads(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }

    fn behaviour(&self, model: &str) -> Option<Behaviour> {
        self.0.models.lock().expect("no panic").get(model).cloned()
    }
}

impl ModelLoader for Fakes {
    fn configuration(&self, model: &str) -> Result<ModelConfiguration> {
        if model.starts_with('m') {
            return Ok(ModelConfiguration::hub(model));
        }
        Err(EngineError::UnknownDevice(model.to_owned()))
    }

    fn plan(&self, configuration: &ModelConfiguration, options: &LoadOptions, _: u64) -> Result<LoadPlan> {
        let behaviour = self.behaviour(&configuration.name()).ok_or(EngineError::EmptyPrompt)?;
        let options = LoadOptions { context: Some(4096), ..options.clone() };
        Ok(LoadPlan::new(options, ModelMemory::new(behaviour.bytes, 0, overhead(), 4096)))
    }

    fn load(
        &self,
        configuration: &ModelConfiguration,
        plan: &LoadPlan,
        reporter: &LoadReporter<'_>,
    ) -> Result<ModelContainer> {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        let name = configuration.name();
        let behaviour = self.behaviour(&name).expect("planned");
        reporter.report(LoadProgress::Loading)?;
        if let Some(gate) = &behaviour.gate {
            gate.pass();
        }
        assert!(!behaviour.panics, "the loader panics as told");
        if let Some(failure) = behaviour.failures.first() {
            self.0.models.lock().expect("no panic").get_mut(&name).expect("planned").failures.remove(0);
            return Err(match failure {
                Some(message) => EngineError::Thread(std::io::Error::other(*message)),
                None => out_of_memory(),
            });
        }
        let mut info = INFO.clone();
        info.weight_bytes = behaviour.bytes + behaviour.surprise;
        let model = Weight { info, limits: StepLimits::default(), outputs: Vec::new() };
        let build = || -> Result<Box<dyn LanguageModel>> { Ok(Box::new(model)) };
        let container =
            ModelContainer::from_parts(build, PROCESSOR.clone(), configuration.clone(), &plan.options)?;
        reporter.report(LoadProgress::Ready)?;
        Ok(container)
    }
}

static INFO: LazyLock<ModelInfo> = LazyLock::new(|| {
    let mut info = FakeModel::new(Kind::full(), 8192).0.info().clone();
    // Its caches take nothing.
    info.cache = CacheLayout::default();
    info
});
static PROCESSOR: LazyLock<TextProcessor> = LazyLock::new(processor);

/// What every fake model takes beside its size.
fn overhead() -> u64 {
    crate::estimate::working(&INFO, &LoadOptions::default())
}

fn out_of_memory() -> EngineError {
    let error = TensorError::OutOfMemory { device: "fake".to_owned(), bytes: 1, what: "a test" };
    ModelError::from(error).into()
}

/// Large enough that what models take beside their size does not matter.
const LARGE: u64 = 1 << 40;

fn name(index: usize) -> String {
    format!("m{index}")
}

#[derive(Clone)]
struct TestClock(Arc<Mutex<Instant>>);

impl TestClock {
    fn advance(&self, seconds: u64) {
        *self.0.lock().expect("no panic") += Duration::from_secs(seconds);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        *self.0.lock().expect("no panic")
    }
}

#[derive(Clone, Default)]
struct TestProbe(Arc<Mutex<MemoryReading>>);

impl TestProbe {
    fn set(&self, reading: MemoryReading) {
        *self.0.lock().expect("no panic") = reading;
    }
}

impl MemoryProbe for TestProbe {
    fn read(&self) -> MemoryReading {
        *self.0.lock().expect("no panic")
    }

    /// There is a GPU with room for ten large models, of which two are taken by others.
    fn device(&self, device: Device) -> Option<DeviceMemory> {
        (device == Device::Cuda(1)).then(|| DeviceMemory::new("a GPU", 8 * LARGE, 10 * LARGE))
    }
}

struct Bench {
    cache: ModelCache,
    fakes: Fakes,
    clock: TestClock,
    probe: TestProbe,
    events: Mutex<Receiver<CacheEvent>>,
}

impl Bench {
    /// Room for so many models, of together so many bytes beside their overhead.
    fn new(sizes: &[u64], models: usize, bytes: u64) -> Self {
        Self::with(
            sizes,
            CacheOptions {
                memory_budget: MemoryBudget::Bytes(bytes + models as u64 * overhead()),
                max_loaded_models: models,
                ..CacheOptions::default()
            },
        )
    }

    fn with(sizes: &[u64], options: CacheOptions) -> Self {
        let (fakes, probe) = (Fakes::of_sizes(sizes), TestProbe::default());
        probe.set(MemoryReading::new(1 << 40, 1 << 40));
        let clock = TestClock(Arc::new(Mutex::new(Instant::now())));
        let options = CacheOptions { maintenance: None, ..options };
        let cache = ModelCache::from_parts(options, fakes.clone(), clock.clone(), probe.clone());
        let events = Mutex::new(cache.subscribe());
        Self { cache, fakes, clock, probe, events }
    }

    #[track_caller]
    fn get(&self, index: usize) -> ModelLease {
        self.cache.get(&name(index)).expect("loaded")
    }

    /// What happened since, in short: `+m0` loaded, `-m0 Room` evicted, and so on.
    fn trace(&self) -> Vec<String> {
        let short = |event| match event {
            CacheEvent::Loading { .. } => None,
            CacheEvent::Loaded { model, .. } => Some(format!("+{model}")),
            CacheEvent::Evicted { model, reason, .. } => Some(format!("-{model} {reason:?}")),
            CacheEvent::Refused { model, .. } => Some(format!("!{model}")),
            CacheEvent::LoadFailed { model, .. } => Some(format!("x{model}")),
            CacheEvent::LoadCancelled { model } => Some(format!("c{model}")),
            CacheEvent::Retrying { model } => Some(format!("r{model}")),
            CacheEvent::Pressure { .. } => Some("pressure".to_owned()),
        };
        self.events.lock().expect("no panic").try_iter().filter_map(short).collect()
    }

    fn loaded(&self) -> Vec<String> {
        let mut names: Vec<String> = self.cache.models().into_iter().map(|model| model.model).collect();
        names.sort();
        names
    }
}

fn endless(model: &ModelContainer) -> GenerationStream {
    let mut stream = model.generate(vec![1], &GenerateParameters::greedy()).expect("accepted");
    stream.next().expect("a token").expect("no error");
    stream
}

#[test]
fn the_least_recently_used_model_makes_way() {
    let bench = Bench::new(&[10; 5], 3, 1000);
    for index in [0, 1, 2, 0, 3, 4, 0, 1] {
        drop(bench.get(index));
    }
    let expected = ["+m0", "+m1", "+m2", "-m1 Room", "+m3", "-m2 Room", "+m4", "-m3 Room", "+m1"];
    assert_eq!(bench.trace(), expected);
    assert_eq!(bench.loaded(), ["m0", "m1", "m4"]);
    let counts = bench.cache.usage().counts;
    assert_eq!((counts.loads, counts.hits, counts.evictions, counts.failures), (6, 2, 3, 0));
    let order: Vec<String> = bench.cache.models().into_iter().map(|model| model.model).collect();
    assert_eq!(order, ["m1", "m0", "m4"]);
}

#[test]
fn use_ends_when_the_lease_is_given_back() {
    let bench = Bench::new(&[10; 4], 3, 1000);
    let long = bench.get(0);
    for index in [1, 2] {
        drop(bench.get(index));
    }
    // Taken first, but given back last.
    drop(long);
    drop(bench.get(3));
    assert_eq!(bench.trace().last_chunk::<2>().expect("events"), &["-m1 Room", "+m3"]);
}

#[test]
fn the_budget_counts_bytes() {
    let bench = Bench::new(&[600, 300, 500, 90], 3, 1000);
    drop((bench.get(0), bench.get(1)));
    drop(bench.get(3));
    // 600 + 300 + 90 + 500: the oldest goes, which is enough.
    drop(bench.get(2));
    assert_eq!(bench.trace().last_chunk::<2>().expect("events"), &["-m0 Room", "+m2"]);
    let usage = bench.cache.usage();
    assert_eq!((usage.used, usage.models, usage.max_models), (890 + 3 * overhead(), 3, 3));
    assert_eq!(bench.cache.unload_idle(), 3);
    assert_eq!((bench.cache.usage().used, bench.cache.usage().models), (0, 0));
}

#[test]
fn nothing_is_evicted_in_vain() {
    let bench = Bench::new(&[4 * LARGE, 4 * LARGE, 9 * LARGE], 3, 10 * LARGE);
    let used = bench.get(0);
    drop(bench.get(1));
    let error = bench.cache.get("m2").expect_err("no room");
    let EngineError::OverBudget { model, needed, budget, held, .. } = error.root() else { panic!("{error}") };
    assert_eq!((model.as_str(), needed.weights, *budget), ("m2", 9 * LARGE, 10 * LARGE + 3 * overhead()));
    let expected = HeldModel { model: "m0".to_owned(), bytes: 4 * LARGE + overhead(), reason: "in use" };
    assert_eq!(held, &[expected]);
    assert_eq!(bench.trace(), ["+m0", "+m1", "!m2"]);
    // It is only a matter of time.
    assert!(error.hint().expect("a hint").contains("try again"));
    drop(used);
    drop(bench.get(2));
    assert_eq!(bench.trace(), ["-m1 Room", "-m0 Room", "+m2"]);
}

/// What a GPU computes has to fit into its memory, whatever the machine has.
#[test]
fn a_gpu_has_a_budget_of_its_own() {
    let of = |device| {
        let load = LoadOptions::default().with_device(device);
        let options =
            CacheOptions { load, memory_budget: MemoryBudget::Percent(50), ..CacheOptions::default() };
        Bench::with(&[3 * LARGE, 5 * LARGE], options)
    };
    let bench = of(Device::Cuda(1));
    assert_eq!(bench.cache.usage().budget, 4 * LARGE);
    drop(bench.get(0));
    let error = bench.cache.get("m1").expect_err("too large");
    let EngineError::OverBudget { device: Device::Cuda(1), .. } = error.root() else { panic!("{error}") };
    assert!(error.to_string().contains("of the memory of cuda:1"), "{error}");
    let hint = error.hint().expect("a hint");
    for part in ["context", "bits", "smaller model", "--device cpu"] {
        assert!(hint.contains(part), "{hint}");
    }
    // The machine itself has a terabyte.
    assert_eq!(of(Device::Cpu).cache.usage().budget, 1 << 39);
}

#[test]
fn a_lost_device_is_known_until_a_model_is_loaded_again() {
    let bench = Bench::new(&[1, 1], 3, 100);
    let lease = bench.get(0);
    assert!(!bench.cache.has_lost_device());
    let stream = lease.generate(vec![LOST], &GenerateParameters::greedy()).expect("accepted");
    assert!(matches!(stream.collect_text(), Err(EngineError::DeviceLost { .. })));
    wait_for(|| !lease.is_alive());
    assert!(bench.cache.has_lost_device() && bench.cache.models()[0].has_died);
    assert!(matches!(lease.score(&[1, 2]), Err(EngineError::DeviceLost { .. })));
    // It cannot be used again yet.
    bench.fakes.change(0, |model| model.failures = vec![Some("no such device")]);
    bench.cache.get("m0").expect_err("told to fail");
    assert!(bench.cache.has_lost_device() && bench.cache.models().is_empty());
    assert!(bench.get(0).is_alive() && !bench.cache.has_lost_device());
}

#[test]
fn refusals_name_sizes() {
    let gigabyte = 1_000_000_000;
    let sizes = [gigabyte, 2 * gigabyte, 3 * gigabyte, 30 * gigabyte];
    let budget = MemoryBudget::Bytes(5 * gigabyte);
    let bench = Bench::with(&sizes, CacheOptions { memory_budget: budget, ..CacheOptions::default() });
    let _used = bench.get(0);
    bench.cache.pin("m1").expect("known");
    drop(bench.get(1));
    let error = bench.cache.get("m2").expect_err("no room").to_string();
    for part in [
        "m2 needs 3.0 GB (weights 3.0 GB, ",
        "but the memory budget is 5.0 GB",
        "3.0 GB are held by m0 (1.0 GB, in use), m1 (2.0 GB, pinned)",
    ] {
        assert!(error.contains(part), "{part:?} in {error}");
    }
    let error = bench.cache.get("m3").expect_err("never");
    assert!(error.hint().expect("a hint").contains("smaller model"), "{error}");
    assert!(error.to_string().contains("30.0 GB"), "{error}");
}

#[test]
fn too_many_models_in_use() {
    let bench = Bench::new(&[1; 3], 2, LARGE);
    let (_first, second) = (bench.get(0), bench.get(1));
    let error = bench.cache.get("m2").expect_err("no place");
    assert!(matches!(error.root(), EngineError::TooManyModels { limit: 2, .. }), "{error}");
    assert!(error.to_string().contains("m0 (") && error.hint().is_some(), "{error}");
    drop(second);
    drop(bench.get(2));
    assert_eq!(bench.trace(), ["+m0", "+m1", "!m2", "-m1 Room", "+m2"]);
}

#[test]
fn a_stream_keeps_its_model() {
    let bench = Bench::new(&[10; 2], 1, 100);
    let stream = endless(&bench.get(0));
    assert!(bench.cache.models()[0].is_in_use);
    assert!(bench.cache.get("m1").is_err());
    assert!(matches!(bench.cache.unload("m0"), Err(EngineError::ModelInUse { .. })));
    assert_eq!(bench.cache.unload_idle(), 0);
    drop(stream);
    drop(bench.get(1));
    assert_eq!(bench.trace(), ["+m0", "!m1", "-m0 Room", "+m1"]);
}

#[test]
fn many_requests_are_one_load() {
    const THREADS: usize = 16;
    let bench = Bench::new(&[10], 3, 100);
    let gate = Arc::new(Gate::default());
    bench.fakes.change(0, |model| model.gate = Some(Arc::clone(&gate)));
    let barrier = Barrier::new(THREADS + 1);
    std::thread::scope(|scope| {
        let requests: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    bench.get(0).name()
                })
            })
            .collect();
        barrier.wait();
        wait_for(|| bench.cache.usage().counts.joined == THREADS as u64 - 1);
        gate.open();
        for request in requests {
            assert_eq!(request.join().expect("no panic"), "m0");
        }
    });
    assert_eq!((bench.fakes.loads(), bench.trace()), (1, vec!["+m0".to_owned()]));
    assert!(!bench.cache.models()[0].is_in_use);
}

#[test]
fn a_failed_load_fails_for_all_and_can_be_tried_again() {
    let bench = Bench::new(&[10], 3, 100);
    let gate = Arc::new(Gate::default());
    bench.fakes.change(0, |model| {
        model.gate = Some(Arc::clone(&gate));
        model.failures = vec![Some("broken for once")];
    });
    std::thread::scope(|scope| {
        let requests: Vec<_> = (0..4).map(|_| scope.spawn(|| bench.cache.get("m0").map(drop))).collect();
        wait_for(|| bench.cache.usage().counts.joined == 3);
        gate.open();
        for request in requests {
            let error = request.join().expect("no panic").expect_err("it fails");
            assert!(matches!(error.root(), EngineError::Thread(_)), "{error}");
            assert!(error.to_string().contains("broken for once"));
        }
    });
    assert_eq!((bench.cache.usage().used, bench.fakes.loads()), (0, 1));
    drop(bench.get(0));
    assert_eq!(bench.trace(), ["xm0", "+m0"]);
    // Neither plan nor name.
    assert!(matches!(bench.cache.get("m9").expect_err("no plan").root(), EngineError::EmptyPrompt));
    assert!(matches!(bench.cache.get("x"), Err(EngineError::UnknownDevice(_))));
}

#[test]
fn a_panic_of_the_loader_is_an_error() {
    let bench = Bench::new(&[10], 3, 100);
    bench.fakes.change(0, |model| model.panics = true);
    let error = bench.cache.get("m0").expect_err("it panics");
    assert!(
        matches!(error.root(), EngineError::ModelThreadDied { message } if message.contains("as told")),
        "{error}"
    );
    bench.fakes.change(0, |model| model.panics = false);
    drop(bench.get(0));
}

#[test]
fn progress_reaches_everyone_who_waits() {
    let bench = Bench::new(&[10], 3, 100);
    let gate = Arc::new(Gate::default());
    bench.fakes.change(0, |model| model.gate = Some(Arc::clone(&gate)));
    let ask = || {
        let mut seen = Vec::new();
        let request = LoadRequest::new().with_progress(|progress| seen.push(progress));
        drop(bench.cache.get_with("m0", request).expect("loaded"));
        seen
    };
    std::thread::scope(|scope| {
        let requests: Vec<_> = (0..2).map(|_| scope.spawn(ask)).collect();
        wait_for(|| bench.cache.usage().counts.joined == 1);
        gate.open();
        for request in requests {
            let seen = request.join().expect("no panic");
            assert_eq!(seen, [LoadProgress::Loading, LoadProgress::Ready]);
        }
    });
    assert_eq!(ask(), []);
}

#[test]
fn a_load_is_cancelled_with_its_last_request() {
    let bench = Bench::new(&[10], 3, 100);
    let gate = Arc::new(Gate::default());
    bench.fakes.change(0, |model| model.gate = Some(Arc::clone(&gate)));
    let (first, second) = (CancelHandle::default(), CancelHandle::default());
    let ask =
        |handle: CancelHandle| bench.cache.get_with("m0", LoadRequest::new().with_cancel(&handle)).map(drop);
    std::thread::scope(|scope| {
        let requests = [&first, &second].map(|handle| scope.spawn(|| ask(handle.clone())));
        wait_for(|| bench.cache.usage().counts.joined == 1);
        gate.wait_until_reached();
        first.cancel();
        second.cancel();
        for request in requests {
            let error = request.join().expect("no panic").expect_err("cancelled");
            assert!(matches!(error, EngineError::LoadCancelled { .. }), "{error}");
        }
        // A request that comes now waits for the end of what nobody wanted, and begins anew.
        let late = scope.spawn(|| bench.cache.get("m0").map(drop));
        gate.open();
        late.join().expect("no panic").expect("loaded");
    });
    assert_eq!(bench.trace(), ["cm0", "+m0"]);
    assert_eq!(bench.fakes.loads(), 2);
}

#[test]
fn a_load_goes_on_while_somebody_waits() {
    let bench = Bench::new(&[10], 3, 100);
    let gate = Arc::new(Gate::default());
    bench.fakes.change(0, |model| model.gate = Some(Arc::clone(&gate)));
    let handle = CancelHandle::default();
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| bench.cache.get("m0").map(drop));
        gate.wait_until_reached();
        handle.cancel();
        let request = LoadRequest::new().with_cancel(&handle);
        assert!(matches!(bench.cache.get_with("m0", request), Err(EngineError::LoadCancelled { .. })));
        gate.open();
        patient.join().expect("no panic").expect("loaded");
    });
    assert_eq!(bench.trace(), ["+m0"]);
}

#[test]
fn pinned_models_stay() {
    let bench = Bench::new(&[10; 4], 2, 1000);
    bench.cache.pin("m0").expect("known");
    for index in 0..4 {
        drop(bench.get(index));
    }
    assert_eq!(bench.loaded(), ["m0", "m3"]);
    bench.clock.advance(1_000_000);
    bench.probe.set(MemoryReading::new(1, 1000));
    bench.cache.maintain();
    assert_eq!(bench.loaded(), ["m0"]);
    assert_eq!(bench.cache.models()[0].expires_in, None);
    assert!(bench.cache.unpin("m0").expect("known"));
    assert!(!bench.cache.unpin("m0").expect("known"));
    assert!(bench.cache.models()[0].expires_in.is_some());
    bench.cache.pin("m0").expect("known");
    // Whoever asks for it gets it.
    assert!(bench.cache.unload("m0").expect("idle"));
    assert!(!bench.cache.unload("m0").expect("gone"));
    assert!(bench.cache.pin("x").is_err());
}

#[test]
fn models_that_are_not_used_go() {
    let keep_alive = KeepAlive::For(Duration::from_secs(60));
    let bench = Bench::with(&[1; 3], CacheOptions { keep_alive, ..CacheOptions::default() });
    bench.cache.set_keep_alive("m1", KeepAlive::Forever).expect("known");
    let used = bench.get(2);
    drop((bench.get(0), bench.get(1)));
    let expires = |bench: &Bench, index: usize| {
        bench.cache.models().into_iter().find(|model| model.model == name(index)).and_then(|m| m.expires_in)
    };
    bench.clock.advance(59);
    bench.cache.maintain();
    assert_eq!(expires(&bench, 0), Some(Duration::from_secs(1)));
    assert_eq!((expires(&bench, 1), expires(&bench, 2)), (None, None));
    assert_eq!(bench.loaded(), ["m0", "m1", "m2"]);
    bench.clock.advance(1);
    bench.cache.maintain();
    assert_eq!(bench.loaded(), ["m1", "m2"]);
    // A stream goes on after its lease.
    let stream = endless(&used);
    drop(used);
    bench.clock.advance(100);
    bench.cache.maintain();
    drop(stream);
    bench.clock.advance(59);
    bench.cache.maintain();
    assert_eq!(bench.loaded(), ["m1", "m2"]);
    bench.clock.advance(1);
    bench.cache.maintain();
    assert_eq!(bench.loaded(), ["m1"]);
    assert_eq!(bench.trace()[3..], ["-m0 KeepAlive", "-m2 KeepAlive"]);
}

#[test]
fn no_keep_alive_means_at_once() {
    let bench = Bench::new(&[1; 2], 3, 100);
    bench.cache.set_keep_alive("m0", KeepAlive::For(Duration::ZERO)).expect("known");
    let (first, second) = (bench.get(0), bench.get(0));
    drop(first);
    assert_eq!(bench.loaded(), ["m0"]);
    drop(second);
    assert_eq!(bench.trace(), ["+m0", "-m0 KeepAlive"]);
    // Changed while it is loaded.
    drop(bench.get(1));
    bench.cache.set_keep_alive("m1", KeepAlive::For(Duration::ZERO)).expect("known");
    bench.cache.maintain();
    assert_eq!(bench.loaded(), Vec::<String>::new());
}

#[test]
fn scarce_memory_drives_idle_models_out() {
    let bench = Bench::new(&[1; 4], 4, 100);
    let used = bench.get(0);
    for index in [1, 2, 3] {
        drop(bench.get(index));
    }
    bench.trace();
    bench.cache.maintain();
    assert_eq!(bench.trace(), Vec::<String>::new());

    // Tasks wait: one model, and a pause to see whether that was enough.
    let calm = MemoryReading::new(500, 1000);
    bench.probe.set(calm.with_stalls(50.0, 0.0));
    bench.cache.maintain();
    bench.cache.maintain();
    assert_eq!(bench.trace(), ["pressure", "-m1 MemoryPressure"]);
    bench.clock.advance(10);
    bench.cache.maintain();
    assert_eq!(bench.trace(), ["-m2 MemoryPressure"]);
    bench.probe.set(calm.with_stalls(1.0, 0.0));
    bench.clock.advance(10);
    bench.cache.maintain();
    assert_eq!(bench.trace(), Vec::<String>::new());

    // Hardly anything is left: no pause.
    bench.probe.set(MemoryReading::new(10, 1000));
    for _ in 0..3 {
        bench.cache.maintain();
    }
    assert_eq!(bench.trace(), ["pressure", "-m3 MemoryPressure"]);
    assert_eq!(bench.loaded(), ["m0"]);
    drop(used);
    bench.cache.maintain();
    assert_eq!(bench.trace(), ["-m0 MemoryPressure"]);
}

#[test]
fn out_of_memory_is_tried_again_without_the_idle_models() {
    let bench = Bench::new(&[1; 4], 4, 100);
    let used = bench.get(0);
    drop((bench.get(1), bench.get(2)));
    bench.fakes.change(3, |model| model.failures = vec![None]);
    drop(bench.get(3));
    let expected = ["+m0", "+m1", "+m2", "-m2 OutOfMemory", "-m1 OutOfMemory", "rm3", "+m3"];
    let trace = bench.trace();
    assert_eq!(trace[..3], expected[..3]);
    assert!(trace[3..5].iter().all(|event| event.ends_with("OutOfMemory")), "{trace:?}");
    assert_eq!(trace[5..], expected[5..]);

    // Once only, and not at all when nothing could be unloaded.
    bench.fakes.change(1, |model| model.failures = vec![None, None]);
    let loads = bench.fakes.loads();
    let error = bench.cache.get("m1").expect_err("out of memory");
    assert!(error.is_out_of_memory() && error.root().is_out_of_memory());
    assert_eq!(
        (bench.fakes.loads() - loads, bench.trace()),
        (2, vec!["-m3 OutOfMemory".to_owned(), "rm1".to_owned(), "xm1".to_owned()])
    );
    bench.fakes.change(1, |model| model.failures = vec![None]);
    let loads = bench.fakes.loads();
    assert!(bench.cache.get("m1").expect_err("out of memory").is_out_of_memory());
    assert_eq!(bench.fakes.loads() - loads, 1);
    drop(used);
    let usage = bench.cache.usage();
    assert_eq!((usage.used, usage.models), (1 + overhead(), 1));
}

#[test]
fn models_that_take_more_than_expected_are_counted_so() {
    let bench = Bench::new(&[4 * LARGE; 3], 3, 10 * LARGE);
    drop(bench.get(0));
    bench.fakes.change(1, |model| model.surprise = 3 * LARGE);
    drop(bench.get(1));
    // 4 + 7 is too much.
    assert_eq!(bench.trace(), ["+m0", "-m0 Room", "+m1"]);
    let models = bench.cache.models();
    assert_eq!((models.len(), models[0].bytes), (1, 7 * LARGE + overhead()));
    assert_eq!(models[0].memory.expect("loaded").difference_bytes, 3 * LARGE as i64);
    let numbers = bench.cache.monitor().model("m1").expect("known");
    assert_eq!(numbers.load_memory.expect("compared").difference_bytes, 3 * LARGE as i64);

    bench.fakes.change(2, |model| model.surprise = 7 * LARGE);
    let error = bench.cache.get("m2").expect_err("too much");
    assert!(matches!(error.root(), EngineError::OverBudget { .. }), "{error}");
    assert_eq!((bench.cache.usage().models, bench.cache.usage().used), (0, 0));
    assert_eq!(bench.trace(), ["-m1 Room", "!m2"]);
}

#[test]
fn a_dead_model_is_loaded_again() {
    let bench = Bench::new(&[1], 3, 100);
    let lease = bench.get(0);
    let stream = lease.generate(vec![DEADLY], &GenerateParameters::greedy()).expect("accepted");
    assert!(matches!(stream.collect_text(), Err(EngineError::ModelThreadDied { .. })));
    let again = bench.get(0);
    assert!(again.is_alive() && !lease.is_alive());
    assert_eq!(bench.trace(), ["+m0", "-m0 Died", "+m0"]);
    // The old lease does not concern the new model.
    drop(lease);
    assert!(bench.cache.models()[0].is_in_use);
}

#[test]
fn the_cache_may_go_before_its_leases() {
    let bench = Bench::new(&[1], 3, 100);
    let lease = bench.get(0);
    drop(bench);
    endless(&lease);
}

#[test]
fn options_follow_the_configuration() {
    let mut config = EngineConfig::default();
    config.max_loaded_models = 2;
    config.memory_budget = MemoryBudget::Percent(50);
    config.context = Some(1000);
    config.pin = vec!["pippin-nano".to_owned()];
    let mut own = ModelSettings::default();
    (own.context, own.keep_alive) = (Some(77), Some(KeepAlive::Forever));
    config.models = [("nano".to_owned(), own)].into();
    let options = CacheOptions::from_config(&config);
    let (nano, other) = (ModelConfiguration::nano(), ModelConfiguration::hub("a/b"));
    assert_eq!(options.load_options(&nano).context, Some(77));
    assert_eq!(options.load_options(&other).context, Some(1000));
    assert_eq!(options.keep_alive(&nano), KeepAlive::Forever);
    assert_eq!(options.keep_alive(&other), config.keep_alive);
    let cache = ModelCache::from_config(&config).expect("a cache");
    assert_eq!(cache.usage().max_models, 2);
    assert!(cache.usage().budget > 0);
    config.pin.push("no such model".to_owned());
    assert!(ModelCache::from_config(&config).is_err());
}

#[test]
fn models_of_the_list_are_there_from_the_start() {
    let bench = Bench::new(&[10; 5], 3, 1 << 30);
    let names = |indices: &[usize]| indices.iter().map(|index| name(*index)).collect::<Vec<_>>();
    let mut steps = Vec::new();
    bench.cache.preload_all(&names(&[0, 1, 0]), |model, _| steps.push(model.to_owned())).expect("loaded");
    assert_eq!(bench.trace(), ["+m0", "+m1"]);
    assert_eq!(bench.loaded(), ["m0", "m1"]);
    steps.dedup();
    assert_eq!(steps, ["m0", "m1"]);
    assert!(bench.cache.models().iter().all(|model| !model.is_in_use), "they may make way for others");
    // A request finds them there.
    drop(bench.get(1));
    assert_eq!(bench.cache.usage().counts.loads, 2);

    // What a list does not name makes way for it; its own models do not.
    let error = bench.cache.preload_all(&names(&[2, 3, 4, 1]), |_, _| {}).expect_err("four of three");
    assert!(
        matches!(error.root(), EngineError::TooManyModels { model, limit: 3, .. } if model == "m1"),
        "{error}"
    );
    assert_eq!(bench.loaded(), ["m2", "m3", "m4"]);

    let bench = Bench::new(&[10, 10, 900], 3, 1000);
    bench.fakes.change(2, |model| model.bytes = overhead() * 3 / 2);
    let error = bench.cache.preload_all(&names(&[0, 2]), |_, _| {}).expect_err("too large");
    assert!(matches!(error.root(), EngineError::OverBudget { held, .. } if held.len() == 1), "{error}");
    let error = bench.cache.preload_all(&["no such model".to_owned()], |_, _| {}).expect_err("unknown");
    assert!(error.to_string().contains("no such model"), "{error}");
}

#[test]
fn a_cache_starts_with_the_models_of_its_configuration() {
    let mut config = EngineConfig::default();
    config.memory_budget = MemoryBudget::Bytes(1 << 30);
    config.preload = vec!["pippin-nano".to_owned()];
    let mut found = false;
    let cache = ModelCache::start(&config, |model, step| {
        assert_eq!(model, "pippin-nano");
        found |= matches!(step, LoadProgress::Found(_));
    })
    .expect("started");
    assert!(found);
    assert_eq!(cache.models().iter().map(|model| model.is_loaded).collect::<Vec<_>>(), [true]);
    // The hub models of a configuration are those of its cache.
    let folder = tempfile::tempdir().expect("a temporary folder");
    config.hub.cache_dir = Some(folder.path().to_owned());
    config.preload = vec!["org/model".to_owned()];
    let error = ModelCache::start(&config, |_, _| {}).expect_err("not there").to_string();
    assert!(error.contains("org/model") && error.contains(folder.path().to_str().expect("UTF-8")), "{error}");
}

/// What somebody does with the cache.
#[derive(Clone, Debug)]
enum Action {
    /// Ask for a model and give it back.
    Use(usize),
    /// Begin an answer.
    Begin(usize),
    /// End the oldest answer.
    End,
    /// Let time pass.
    Wait(u64),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0usize..10).prop_map(Action::Use),
        2 => (0usize..10).prop_map(Action::Begin),
        2 => Just(Action::End),
        1 => (0u64..40).prop_map(Action::Wait),
    ]
}

/// The rules, written down as simply as possible.
struct Oracle {
    sizes: Vec<u64>,
    /// Least recently used first, with the time of the last use.
    loaded: Vec<(usize, u64)>,
    running: Vec<usize>,
    time: u64,
    trace: Vec<String>,
}

impl Oracle {
    const MODELS: usize = 3;
    const BUDGET: u64 = 1000;
    const KEEP_ALIVE: u64 = 60;

    fn is_idle(&self, model: usize) -> bool {
        !self.running.contains(&model)
    }

    fn touch(&mut self, model: usize) {
        self.loaded.retain(|(loaded, _)| *loaded != model);
        self.loaded.push((model, self.time));
    }

    fn get(&mut self, model: usize) -> bool {
        if !self.loaded.iter().any(|(loaded, _)| *loaded == model) {
            let size =
                |models: &[(usize, u64)]| models.iter().map(|(model, _)| self.sizes[*model]).sum::<u64>();
            let held: Vec<(usize, u64)> =
                self.loaded.iter().copied().filter(|(loaded, _)| !self.is_idle(*loaded)).collect();
            if size(&held) + self.sizes[model] > Self::BUDGET || held.len() == Self::MODELS {
                self.trace.push(format!("!m{model}"));
                return false;
            }
            while self.loaded.iter().map(|(model, _)| self.sizes[*model]).sum::<u64>() + self.sizes[model]
                > Self::BUDGET
                || self.loaded.len() == Self::MODELS
            {
                let index = self.loaded.iter().position(|(loaded, _)| self.is_idle(*loaded)).expect("room");
                let (gone, _) = self.loaded.remove(index);
                self.trace.push(format!("-m{gone} Room"));
            }
            self.trace.push(format!("+m{model}"));
        }
        self.touch(model);
        true
    }

    fn wait(&mut self, seconds: u64) {
        self.time += seconds;
        let mut gone = Vec::new();
        for (model, used) in self.loaded.clone() {
            if !self.is_idle(model) {
                self.loaded
                    .iter_mut()
                    .filter(|(loaded, _)| *loaded == model)
                    .for_each(|(_, at)| *at = self.time);
            } else if self.time - used >= Self::KEEP_ALIVE {
                gone.push(model);
            }
        }
        self.loaded.retain(|(loaded, _)| !gone.contains(loaded));
        self.trace.extend(gone.into_iter().map(|model| format!("-m{model} KeepAlive")));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Ten models of random sizes under a budget of three: every load, eviction and refusal is the one that the rules
    /// demand, no answer is ever disturbed, and in the end all memory is back.
    #[test]
    fn the_trace_is_exactly_lru(
        sizes in prop::collection::vec(1u64..600, 10),
        actions in prop::collection::vec(action(), 1..60),
    ) {
        // The overhead is counted with the size.
        let unit = overhead();
        let total: Vec<u64> = sizes.iter().map(|size| size * unit).collect();
        let planned: Vec<u64> = total.iter().map(|total| total - unit).collect();
        let bench = Bench::with(&planned, CacheOptions {
            memory_budget: MemoryBudget::Bytes(Oracle::BUDGET * unit),
            max_loaded_models: Oracle::MODELS,
            keep_alive: KeepAlive::For(Duration::from_secs(Oracle::KEEP_ALIVE)),
            ..CacheOptions::default()
        });
        let mut oracle =
            Oracle { sizes, loaded: Vec::new(), running: Vec::new(), time: 0, trace: Vec::new() };
        let mut answers: Vec<(ModelLease, GenerationStream)> = Vec::new();
        for action in actions {
            match action {
                Action::Use(model) => {
                    let expected = oracle.get(model);
                    prop_assert_eq!(bench.cache.get(&name(model)).map(drop).is_ok(), expected);
                }
                Action::Begin(model) => {
                    let expected = oracle.get(model);
                    let lease = bench.cache.get(&name(model));
                    prop_assert_eq!(lease.is_ok(), expected);
                    if let Ok(lease) = lease {
                        let stream = endless(&lease);
                        answers.push((lease, stream));
                        oracle.running.push(model);
                    }
                }
                Action::End if !answers.is_empty() => {
                    let (lease, mut stream) = answers.remove(0);
                    prop_assert!(stream.next().expect("it goes on").is_ok());
                    drop(stream);
                    drop(lease);
                    let model = oracle.running.remove(0);
                    oracle.touch(model);
                }
                Action::End => {}
                Action::Wait(seconds) => {
                    bench.clock.advance(seconds);
                    bench.cache.maintain();
                    oracle.wait(seconds);
                }
            }
            let used: u64 = oracle.loaded.iter().map(|(model, _)| total[*model]).sum();
            prop_assert_eq!(bench.cache.usage().used, used);
            for (_, stream) in &mut answers {
                prop_assert!(stream.next().expect("it goes on").is_ok());
            }
        }
        drop(answers);
        bench.cache.unload_idle();
        prop_assert_eq!((bench.cache.usage().used, bench.cache.usage().models), (0, 0));
        let trace: Vec<String> =
            bench.trace().into_iter().filter(|event| !event.ends_with("Requested")).collect();
        prop_assert_eq!(trace, oracle.trace);
    }
}
