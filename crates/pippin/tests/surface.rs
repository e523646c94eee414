//! What an application can name: everything, and from here alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pippin::cache::{
    CacheEvent, CacheOptions, CacheUsage, Clock, LoadPlan, LoadReporter, LoadedModel, LocalLoader,
    MemoryProbe, MemoryReading, ModelCache, ModelLease, ModelLoader,
};
use pippin::chat::{ChatInput, ChatSession, Content, ResponseStream, ToolCall};
use pippin::config::{ConfigEntry, ConfigError, ConfigInputs, EngineConfig, KeepAlive};
use pippin::generate::{AsyncStream, GenerateInfo, GenerationStream, TokenStream};
use pippin::hub::{
    HubCache, HubClient, HubError, HubOptions, ModelConfiguration, PullPlan, ResolvedModel, Resolver,
};
use pippin::loading::{LoadTask, ModelMemory, ModelOpener, TextProcessor};
use pippin::models::{LanguageModel, ModelInfo};
use pippin::monitor::{LoadMemory, ModelPerformance, PerformanceSnapshot};
use pippin::text::{ChatTemplate, Message, StopTokens, Tokenizer};
use pippin::{GenerateParameters, LoadOptions, LoadProgress, ModelContainer, Result};

fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names that a file exports by `pub use`, and the crates of which it exports all.
fn exports(text: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut names, mut globs) = (BTreeSet::new(), BTreeSet::new());
    for part in text.split("pub use ").skip(1) {
        let path = part.split(';').next().expect("a statement");
        if let Some(name) = path.strip_suffix("::*") {
            globs.insert(name.to_owned());
            continue;
        }
        let list = path.rsplit_once("::").map_or(path, |(_, last)| last);
        let list = path.split_once('{').map_or(list, |(_, list)| list.trim_end_matches('}'));
        names.extend(list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
    }
    (names, globs)
}

/// Each crate exports what its signatures mention; so nothing is missing as long as nothing of theirs is.
#[test]
fn everything_that_the_crates_export_has_its_place() {
    let (mut names, mut globs) = (BTreeSet::new(), BTreeSet::new());
    for module in ["cache", "chat", "config", "generate", "loading", "measure", "monitor", "lib"] {
        names.append(&mut exports(&source(&format!("src/{module}.rs"))).0);
    }
    for module in ["hub", "models", "tensor", "text", "weights"] {
        globs.append(&mut exports(&source(&format!("src/{module}.rs"))).1);
    }
    for name in ["hub", "models", "tensor", "text", "weights"] {
        assert!(globs.contains(&format!("pippin_{name}")), "pippin::{name} is not all of pippin-{name}");
        names.append(&mut exports(&source(&format!("../pippin-{name}/src/lib.rs"))).0);
    }
    let engine = exports(&source("../pippin-engine/src/lib.rs")).0;
    assert!(engine.len() > 50, "{engine:?}");
    let missing: Vec<_> = engine.difference(&names).collect();
    assert!(missing.is_empty(), "pippin-engine exports what pippin does not: {missing:?}");
}

/// The signatures of the common path, written out: what a program needs to keep such values in its own types.
#[expect(dead_code, reason = "that its types can be named is all that is asked")]
struct Application {
    cache: ModelCache,
    lease: ModelLease,
    usage: CacheUsage,
    loaded: Vec<LoadedModel>,
    task: LoadTask<ModelLease>,
    opener: ModelOpener<'static>,
    model: ModelContainer,
    info: ModelInfo,
    memory: ModelMemory,
    load_memory: Option<LoadMemory>,
    processor: TextProcessor,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    stop: StopTokens,
    own: Option<Box<dyn LanguageModel>>,
    session: ChatSession,
    response: ResponseStream,
    stream: GenerationStream,
    tokens: TokenStream,
    task_stream: AsyncStream<ResponseStream>,
    last: Option<GenerateInfo>,
    input: ChatInput,
    content: Content,
    calls: Vec<ToolCall>,
    tools: Vec<pippin::serde_json::Value>,
    variables: pippin::serde_json::Map<String, pippin::serde_json::Value>,
    config: EngineConfig,
    entries: Vec<ConfigEntry>,
    inputs: std::result::Result<ConfigInputs, ConfigError>,
    hub: HubClient,
    options: HubOptions,
    plan: std::result::Result<PullPlan, HubError>,
    files: HubCache,
    resolver: Resolver,
    found: ResolvedModel,
    performance: ModelPerformance,
    snapshot: PerformanceSnapshot,
    parameters: GenerateParameters,
    event: CacheEvent,
    message: Message,
}

/// A loader that lets the usual one do the work, with a clock that stands still and a memory that is never short.
struct Own {
    usual: LocalLoader,
    start: Instant,
    loaded: Mutex<Vec<PathBuf>>,
}

impl ModelLoader for Own {
    fn configuration(&self, model: &str) -> Result<ModelConfiguration> {
        self.usual.configuration(if model == "mine" { ModelConfiguration::NANO } else { model })
    }

    fn plan(
        &self,
        configuration: &ModelConfiguration,
        options: &LoadOptions,
        budget: u64,
    ) -> Result<LoadPlan> {
        self.usual.plan(configuration, options, budget)
    }

    fn load(
        &self,
        configuration: &ModelConfiguration,
        plan: &LoadPlan,
        reporter: &LoadReporter<'_>,
    ) -> Result<ModelContainer> {
        let model = self.usual.load(configuration, plan, reporter)?;
        self.loaded.lock().expect("no panic").extend(model.directory().map(Path::to_owned));
        Ok(model)
    }
}

struct Still(Instant);

impl Clock for Still {
    fn now(&self) -> Instant {
        self.0
    }
}

struct Plenty;

impl MemoryProbe for Plenty {
    fn read(&self) -> MemoryReading {
        MemoryReading::new(1 << 40, 1 << 40)
    }
}

#[test]
fn a_cache_can_be_made_of_ones_own_parts() {
    let own = Own { usual: LocalLoader::new(), start: Instant::now(), loaded: Mutex::default() };
    let start = own.start;
    let options = CacheOptions::default()
        .with_load(LoadOptions::default().with_context(128).with_threads(1))
        .with_keep_alive(KeepAlive::For(Duration::from_secs(1)))
        .with_maintenance(None);
    let cache = ModelCache::from_parts(options, own, Still(start), Plenty);
    let mut steps = Vec::new();
    let opener = ModelOpener::new("mine").with_progress(|step| steps.push(step));
    let lease = opener.load_in(&cache).expect("the shipped model");
    assert_eq!((lease.name().as_str(), lease.context()), ("pippin-nano", 128));
    assert!(matches!(steps[..], [LoadProgress::Found(_), LoadProgress::Loading, LoadProgress::Ready]));
    assert_eq!(cache.usage().budget, (1 << 40) / 10 * 8 + 4);
}
