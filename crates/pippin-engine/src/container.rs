use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pippin_hub::{HubCache, ModelConfiguration, UseLock};
use pippin_models::{LanguageModel, ModelInfo};
use pippin_text::{StopStrings, StopTokens, Tokenizer};

use crate::constrained::{Constraints, PreparedConstraint};
use crate::disk::{Bundle, Counters, Disk, Identified, PrefixCacheCounts, Shape};
use crate::estimate::{MemoryPlan, ModelMemory};
use crate::kv::Namespace;
use crate::monitor::{ModelPerformance, Record};
use crate::places::{Occupancy, Places};
use crate::processor::{ChatInput, TextProcessor};
use crate::scheduler::{Command, ExportRequest, Job, Request, Scheduler, Worker};
use crate::speculation::{DraftModel, PromptLookup};
use crate::steering::Steering;
use crate::stream::{CancelHandle, GenerationStream, TokenStream};
use crate::thought::Thought;
use crate::{EngineError, GenerateParameters, LoadOptions, Measurement, Result, Workload, device};

/// A loaded model.
///
/// Cloning gives another handle to the same model, which lives until its last handle and its last stream are dropped.
/// One thread owns the model and runs its steps; requests of all handles are computed together.
#[derive(Clone, Debug)]
pub struct ModelContainer {
    pub(crate) inner: Arc<Inner>,
}

/// What handles and streams of a model share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) worker: Worker,
    pub(crate) places: Places,
    cache_use: Arc<AtomicU64>,
    /// What is counted of its prefixes on disk, where they are kept there.
    prefixes: Option<Arc<Counters>>,
    pub(crate) processor: TextProcessor,
    configuration: ModelConfiguration,
    directory: Option<PathBuf>,
    info: ModelInfo,
    device: String,
    memory: ModelMemory,
    stop: Arc<StopTokens>,
    protected: Arc<[u32]>,
    warnings: Vec<String>,
    /// What its prefixes look like outside of its caches, where they can be kept there.
    outside: Option<(Shape, Arc<Identified>)>,
    pub(crate) constraints: Constraints,
    /// Where requests are counted. A monitor may replace it by the one that it keeps for the model.
    record: Mutex<Arc<Record>>,
    /// Until the model is dropped, nobody removes its files from the cache.
    _in_use: Option<UseLock>,
}

impl Inner {
    pub(crate) fn record(&self) -> Arc<Record> {
        Arc::clone(&self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the model's thread reports when it has loaded the model.
struct Built {
    info: ModelInfo,
    device: String,
    memory: ModelMemory,
    places: Places,
    cache_use: Arc<AtomicU64>,
    prefixes: Option<Arc<Counters>>,
    outside: Option<(Shape, Arc<Identified>)>,
    warnings: Vec<String>,
}

impl ModelContainer {
    /// Loads the model that a name stands for: a folder, a hub id, an alias, or `pippin-nano`. [`open`](Self::open) does
    /// the same with more to say: about downloads, progress, cancellation.
    ///
    /// # Errors
    ///
    /// The model is not on this machine, its files are malformed, or it does not fit the memory.
    pub fn load(model: &str, options: &LoadOptions) -> Result<Self> {
        Self::open(model).with_options(options.clone()).load()
    }

    /// Loads a model from the folder where it was found.
    pub(crate) fn load_folder(
        configuration: &ModelConfiguration,
        folder: PathBuf,
        options: &LoadOptions,
    ) -> Result<Self> {
        let begin = Instant::now();
        let build = {
            let (folder, options) = (folder.clone(), options.clone());
            move || device::load(&folder, &options)
        };
        // Large tokenizers take as long to read as weights do to map.
        let (processor, started) = std::thread::scope(|scope| {
            let processor = scope.spawn(|| TextProcessor::from_dir(&folder, configuration));
            let started = start(build, Some(&folder), options);
            (processor.join(), started)
        });
        let (worker, built) = started?;
        let processor = processor.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let draft = options.draft_model.as_deref();
        let container = Self::assemble(worker, built, processor, draft, configuration.clone(), Some(folder))?;
        container.record().loaded(begin.elapsed());
        Ok(container)
    }

    /// A container for a model of one's own making, which is made, used and dropped on a thread of its own. Its caches are
    /// allocated here.
    ///
    /// # Errors
    ///
    /// Those of `model`; the options do not fit the model, or there is no memory for the caches.
    pub fn from_parts(
        model: impl FnOnce() -> Result<Box<dyn LanguageModel>> + Send + 'static,
        processor: TextProcessor,
        configuration: ModelConfiguration,
        options: &LoadOptions,
    ) -> Result<Self> {
        let begin = Instant::now();
        let (worker, built) = start(move || Ok((model()?, "custom".to_owned())), None, options)?;
        let draft = options.draft_model.as_deref();
        let container = Self::assemble(worker, built, processor, draft, configuration, None)?;
        container.record().loaded(begin.elapsed());
        Ok(container)
    }

    fn assemble(
        worker: Worker,
        built: Built,
        processor: TextProcessor,
        draft: Option<&Path>,
        configuration: ModelConfiguration,
        directory: Option<PathBuf>,
    ) -> Result<Self> {
        if let Some(draft) = draft {
            let own = TextProcessor::from_dir(draft, &ModelConfiguration::directory(draft))?;
            same_vocabulary(&processor.tokenizer, &own.tokenizer)
                .map_err(|problem| EngineError::Draft { draft: draft.to_owned(), problem })?;
        }
        let vocab = built.info.vocab_size;
        let mut warnings = built.info.warnings.clone();
        warnings.extend(built.warnings.iter().cloned());
        warnings.extend(processor.warnings.iter().cloned());
        let known = processor.tokenizer.vocab_size();
        if known > vocab {
            warnings.push(format!(
                "the tokenizer has {known} tokens, the model {vocab}: prompts with one of those from {vocab} on are refused"
            ));
        }
        // One that the user gave is to end answers; one of the model's files that cannot is left alone.
        for token in &configuration.extra_eos_tokens {
            let mut own = StopTokens::default();
            own.add_tokens([token], &processor.tokenizer)?;
            if let Some(id) = own.iter().find(|id| *id as usize >= vocab) {
                return Err(EngineError::TokenOutOfRange { token: id, text: Some(token.clone()), vocab });
            }
        }
        let stop = Arc::new(processor.stop_tokens.clone());
        let protected = processor.protected()?;
        let Built { info, device, memory, places, cache_use, prefixes, outside, .. } = built;
        let record = Mutex::default();
        let in_use = directory.as_deref().and_then(HubCache::use_lock);
        let inner = Inner {
            worker,
            places,
            cache_use,
            prefixes,
            processor,
            configuration,
            directory,
            info,
            device,
            memory,
            stop,
            protected,
            warnings,
            outside,
            constraints: Constraints::default(),
            record,
            _in_use: in_use,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What was loaded.
    pub fn configuration(&self) -> &ModelConfiguration {
        &self.inner.configuration
    }

    /// The model's name.
    pub fn name(&self) -> String {
        self.inner.configuration.name()
    }

    /// The folder it was loaded from, if it was.
    pub fn directory(&self) -> Option<&Path> {
        self.inner.directory.as_deref()
    }

    /// What the model is.
    pub fn info(&self) -> &ModelInfo {
        &self.inner.info
    }

    /// What was left out of the model's files and why, one line each: worth showing once.
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// The device in words.
    pub fn device(&self) -> &str {
        &self.inner.device
    }

    /// The longest sequence, prompt and answer together.
    pub fn context(&self) -> usize {
        self.inner.memory.context
    }

    /// The memory that it takes: weights and KV cache as they were allocated, and an estimate of what else it needs.
    pub fn memory(&self) -> ModelMemory {
        self.inner.memory
    }

    /// How busy the model is now.
    pub fn occupancy(&self) -> Occupancy {
        let (running, waiting) = self.inner.places.taken();
        let cache_use = f64::from_bits(self.inner.cache_use.load(Ordering::Relaxed));
        Occupancy { running, waiting, cache_use }
    }

    /// How much use it has had of prefixes that are kept on disk. `None`: none are.
    pub fn prefix_cache(&self) -> Option<PrefixCacheCounts> {
        self.inner.prefixes.as_ref().map(|counters| counters.snapshot())
    }

    /// The numbers of its requests so far: rates, times, tokens. Each stream counts when it ends.
    pub fn performance(&self) -> ModelPerformance {
        self.record().snapshot(&self.name())
    }

    pub(crate) fn record(&self) -> Arc<Record> {
        self.inner.record()
    }

    /// Counts in this record from now on.
    pub(crate) fn record_in(&self, record: Arc<Record>) {
        *self.inner.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
    }

    /// The number of handles to the model, and of streams that it answers. A model with one handle is not in use, and
    /// cannot be but through that handle.
    pub(crate) fn handles(&self) -> usize {
        Arc::strong_count(&self.inner)
    }

    /// Tokenizer, chat template, and what ends answers.
    pub fn processor(&self) -> &TextProcessor {
        &self.inner.processor
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.inner.processor.tokenizer
    }

    /// Whether the model's thread still runs; when it does not, every request fails.
    pub fn is_alive(&self) -> bool {
        self.inner.worker.is_alive()
    }

    /// Whether it does not because its device is lost.
    pub(crate) fn has_lost_device(&self) -> bool {
        self.inner.worker.has_lost_device()
    }

    /// The token ids of a text as it stands, preceded by the beginning-of-sequence token where the model has one.
    ///
    /// # Errors
    ///
    /// The tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer().encode_prompt(text)?)
    }

    /// The text of token ids.
    ///
    /// # Errors
    ///
    /// The tokenizer refuses the ids.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        Ok(self.tokenizer().decode(tokens, false)?)
    }

    /// The prompt of a conversation as text: what the chat template makes of it.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoChatTemplate`], or the template refuses the conversation.
    pub fn apply_chat_template(&self, input: &ChatInput) -> Result<String> {
        self.inner.processor.render(input, &self.name())
    }

    /// The prompt of a conversation as token ids.
    ///
    /// # Errors
    ///
    /// As for [`apply_chat_template`](Self::apply_chat_template).
    pub fn prepare(&self, input: &ChatInput) -> Result<Vec<u32>> {
        self.prompt_tokens(&self.apply_chat_template(input)?)
    }

    /// The token ids of what [`apply_chat_template`](Self::apply_chat_template) has made.
    ///
    /// # Errors
    ///
    /// The prompt is longer than any context could hold, or the tokenizer refuses it.
    pub fn prompt_tokens(&self, prompt: &str) -> Result<Vec<u32>> {
        self.check_size(prompt)?;
        // The template has written the special tokens.
        Ok(self.tokenizer().encode(prompt, false)?)
    }

    /// Refuses a text that the context could not hold whatever its tokens are, before time and memory go into them.
    /// [`encode`](Self::encode) does not ask: it is not only for prompts.
    ///
    /// # Errors
    ///
    /// [`EngineError::PromptTooLarge`]
    pub fn check_size(&self, prompt: &str) -> Result<()> {
        let (bytes, context) = (prompt.len(), self.inner.memory.context);
        match self.tokenizer().least_tokens(bytes) {
            Some(least) if least >= context => Err(EngineError::PromptTooLarge { bytes, least, context }),
            _ => Ok(()),
        }
    }

    /// Generates from a prompt of token ids.
    ///
    /// # Errors
    ///
    /// A parameter out of its range, a constraint that cannot be followed, an empty prompt, one that does not fit the context or
    /// the vocabulary, a full queue, or a model whose thread has died.
    pub fn generate(&self, prompt: Vec<u32>, parameters: &GenerateParameters) -> Result<GenerationStream> {
        let constraint = self.prepare_constraint(&prompt, parameters)?;
        self.generate_prepared(prompt, parameters, constraint)
    }

    /// Compiles the parameters' constraint for answers to a prompt, which takes milliseconds for most and seconds for some.
    /// [`generate`](Self::generate) does it by itself; this is for callers that cannot wait, such as tasks of an async
    /// runtime, and do it on a thread that can before they call [`generate_prepared`](Self::generate_prepared). `None`: the
    /// parameters have no constraint. Those that were used last are kept, and not compiled again.
    ///
    /// # Errors
    ///
    /// A parameter out of its range, or a constraint that cannot be followed.
    pub fn prepare_constraint(
        &self,
        prompt: &[u32],
        parameters: &GenerateParameters,
    ) -> Result<Option<PreparedConstraint>> {
        parameters.validate()?;
        let Inner { constraints, processor, info, .. } = &*self.inner;
        Ok(constraints.prepare(parameters, prompt, processor, info.vocab_size)?)
    }

    /// [`generate`](Self::generate) with what [`prepare_constraint`](Self::prepare_constraint) gave for the same prompt and
    /// parameters. It does not wait for anything.
    ///
    /// # Errors
    ///
    /// As for [`generate`](Self::generate), or the constraint was prepared for something else.
    pub fn generate_prepared(
        &self,
        prompt: Vec<u32>,
        parameters: &GenerateParameters,
        constraint: Option<PreparedConstraint>,
    ) -> Result<GenerationStream> {
        self.generate_with(prompt, parameters, constraint, None)
    }

    /// [`generate_prepared`](Self::generate_prepared) from what was kept of an earlier request.
    pub(crate) fn generate_with(
        &self,
        prompt: Vec<u32>,
        parameters: &GenerateParameters,
        constraint: Option<PreparedConstraint>,
        bundle: Option<Arc<Bundle>>,
    ) -> Result<GenerationStream> {
        let mut strings = parameters.stop.clone();
        if !parameters.ignore_eos {
            strings.extend(self.inner.processor.stop_strings.iter().cloned());
        }
        let stop = StopStrings::new(&strings)?;
        let tokens = self.submit(prompt, parameters, constraint, bundle)?;
        Ok(GenerationStream::new(tokens, stop, strings, parameters.min_tokens))
    }

    /// Writes what the caches hold of a prefix to a file. Returns whether there was anything; if not, nothing is written.
    pub(crate) fn export(
        &self,
        namespace: Option<&str>,
        tokens: Vec<u32>,
        path: &Path,
        failed: impl FnOnce(std::io::Error) -> EngineError,
    ) -> Result<bool> {
        let Some((_, identified)) = &self.inner.outside else { return Ok(false) };
        let (reply, answer) = channel();
        let request = ExportRequest { namespace: Namespace::new(namespace), tokens, reply };
        self.inner.worker.send(Command::Job(Job::Export(request)))?;
        let parts = answer.recv().map_err(|_| self.inner.worker.death())?;
        match identified.get().filter(|_| !parts.is_empty()) {
            Some(identity) => Bundle::write(path, &identity, &parts).map(|()| true).map_err(failed),
            None => Ok(false),
        }
    }

    /// Reads what [`export`](Self::export) has written, if it can be used.
    pub(crate) fn import(&self, path: &Path) -> Option<Bundle> {
        let (shape, identified) = self.inner.outside.as_ref()?;
        if !path.is_file() {
            return None;
        }
        Bundle::read(path, &identified.get()?, shape)
    }

    /// Continues a text as it stands, without the chat template.
    ///
    /// # Errors
    ///
    /// As for [`generate`](Self::generate).
    pub fn generate_text(&self, prompt: &str, parameters: &GenerateParameters) -> Result<GenerationStream> {
        self.check_size(prompt)?;
        self.generate(self.encode(prompt)?, parameters)
    }

    /// Answers a conversation.
    ///
    /// # Errors
    ///
    /// As for [`prepare`](Self::prepare) and [`generate`](Self::generate).
    pub fn generate_chat(
        &self,
        input: &ChatInput,
        parameters: &GenerateParameters,
    ) -> Result<GenerationStream> {
        self.generate(self.prepare(input)?, parameters)
    }

    /// Generates token ids from token ids, without text: stop tokens end the answer, stop strings do not.
    ///
    /// # Errors
    ///
    /// As for [`generate`](Self::generate).
    pub fn generate_tokens(&self, prompt: Vec<u32>, parameters: &GenerateParameters) -> Result<TokenStream> {
        let constraint = self.prepare_constraint(&prompt, parameters)?;
        self.submit(prompt, parameters, constraint, None)
    }

    fn submit(
        &self,
        prompt: Vec<u32>,
        parameters: &GenerateParameters,
        constraint: Option<PreparedConstraint>,
        bundle: Option<Arc<Bundle>>,
    ) -> Result<TokenStream> {
        parameters.validate()?;
        let vocab = self.inner.info.vocab_size;
        let is_unknown = |token: &&u32| **token as usize >= vocab;
        let mut fields = [
            ("logit_bias", parameters.logit_bias.keys().find(is_unknown)),
            ("stop_token_ids", parameters.stop_token_ids.iter().find(is_unknown)),
        ]
        .into_iter();
        if let Some((field, Some(token))) = fields.find(|(_, unknown)| unknown.is_some()) {
            return Err(EngineError::parameter(field, format!("token {token}"), "tokens of the vocabulary"));
        }
        self.check(&prompt)?;
        let prompt_tokens = prompt.len();
        if prompt_tokens >= self.inner.memory.context {
            return Err(EngineError::PromptTooLong {
                prompt: prompt_tokens,
                context: self.inner.memory.context,
            });
        }
        let thought = self.thought(parameters, &prompt)?;
        let inner = &self.inner;
        let constrained = inner.constraints.take(constraint, parameters, &prompt, &inner.processor)?;
        let (stop, protected) = self.stop_tokens(parameters);
        let steering = Box::new(Steering::new(parameters, constrained, thought, &stop, vocab));
        let submitted = Instant::now();
        let lookup = PromptLookup::of(parameters, &inner.info.cache, &prompt);
        let (events, receiver) = crate::channel::channel();
        let cancel = CancelHandle::default();
        let request = Request {
            tokens: prompt,
            parameters: Arc::new(GenerateParameters { constraint: None, ..parameters.clone() }),
            steering,
            stop: Arc::clone(&stop),
            protected,
            lookup,
            events,
            cancelled: Arc::clone(&cancel.0),
            deadline: parameters.max_time.and_then(|time| submitted.checked_add(time)),
            place: inner.places.take()?,
            bundle,
        };
        self.inner.worker.send(Command::Generate(request))?;
        Ok(TokenStream::new(receiver, cancel, Arc::clone(&self.inner), stop, submitted, prompt_tokens))
    }

    /// What closes the thought of an answer to a prompt, where the parameters limit it.
    fn thought(&self, parameters: &GenerateParameters, prompt: &[u32]) -> Result<Option<Box<Thought>>> {
        let Some(budget) = parameters.thinking_budget else { return Ok(None) };
        let Inner { processor, info, .. } = &*self.inner;
        match Thought::new(budget, prompt, processor, &info.model_type, info.vocab_size) {
            Some(thought) => Ok(Some(Box::new(thought))),
            None => {
                let expected = "left out for a model whose thoughts have no markers that are known";
                Err(EngineError::parameter("thinking_budget", budget, expected))
            }
        }
    }

    /// The tokens that end an answer, and those that XTC never removes.
    fn stop_tokens(&self, parameters: &GenerateParameters) -> (Arc<StopTokens>, Arc<[u32]>) {
        let Inner { stop, protected, .. } = &*self.inner;
        let own = &parameters.stop_token_ids;
        if own.is_empty() && !parameters.ignore_eos {
            return (Arc::clone(stop), Arc::clone(protected));
        }
        let models = stop.iter().filter(|_| !parameters.ignore_eos);
        let stop = StopTokens::from_iter(models.chain(own.iter().copied()));
        (Arc::new(stop), protected.iter().chain(own).copied().collect())
    }

    /// Times a workload: one repetition to warm up, then as many as asked for. Other requests wait meanwhile.
    ///
    /// # Errors
    ///
    /// A workload without tokens or with more than the context holds, or a step that fails.
    pub fn measure(&self, workload: Workload, repetitions: usize) -> Result<Measurement> {
        let (tokens, context) = (workload.tokens(), self.inner.memory.context);
        if tokens == 0 {
            return Err(EngineError::EmptyPrompt);
        }
        if tokens > context {
            return Err(EngineError::PromptTooLong { prompt: tokens, context });
        }
        let (reply, answer) = channel();
        let job = Job::Measure { workload, repetitions: repetitions.saturating_add(1), reply };
        self.inner.worker.send(Command::Job(job))?;
        let mut samples = answer.recv().unwrap_or_else(|_| Err(self.inner.worker.death()))?;
        samples.remove(0);
        Ok(Measurement { workload, samples })
    }

    /// Forgets the finished requests whose pages are kept in case that another begins alike. What is on disk stays there.
    ///
    /// # Errors
    ///
    /// The model's thread has died.
    pub fn clear_cache(&self) -> Result<()> {
        self.inner.worker.send(Command::ClearCache)
    }

    /// Refuses tokens that the model does not have, or none.
    pub(crate) fn check(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        let vocab = self.inner.info.vocab_size;
        match tokens.iter().find(|token| **token as usize >= vocab) {
            Some(&token) => {
                let text = self.tokenizer().id_to_token(token);
                Err(EngineError::TokenOutOfRange { token, text, vocab })
            }
            None => Ok(()),
        }
    }
}

/// Starts a model's thread: builds the model there and allocates its caches.
fn start(
    build: impl FnOnce() -> Result<device::Loaded> + Send + 'static,
    path: Option<&Path>,
    options: &LoadOptions,
) -> Result<(Worker, Built)> {
    options.validate()?;
    let (options, path) = (options.clone(), path.map(Path::to_owned));
    Worker::start(move || {
        let (mut model, device) = build()?;
        let info = model.info().clone();
        let draft = load_draft(&info, &options)?;
        let plan = MemoryPlan::new(&info, draft.as_ref().map(|draft| draft.info()), &options)?;
        let MemoryPlan { limits, caches, memory, .. } = plan;
        model.allocate(&caches)?;
        let places = Places::new(limits.sequences, options.max_waiting);
        let draft = match (draft, plan.draft) {
            (Some(draft), Some(caches)) => {
                Some(DraftModel::new(draft, &caches, info.vocab_size, limits.step)?)
            }
            _ => None,
        };
        let identity = |(shape, path)| {
            let kept_as = model.kept_as()?;
            Some((shape, Arc::new(Identified::new(path, kept_as))))
        };
        let outside = Shape::of(&*model).zip(path).and_then(identity);
        let (mut warnings, mut prefixes) = (Vec::new(), None);
        let mut scheduler = Scheduler::new(model, limits).with_draft(draft);
        let cache_use = scheduler.cache_use();
        match (options.prefix_cache, &outside) {
            (Some(folder), Some((shape, identified))) => {
                let identified = Arc::clone(identified);
                let disk = Disk::open(folder, options.prefix_cache_size, shape.clone(), identified)?;
                prefixes = Some(disk.counters());
                scheduler.set_disk(disk);
            }
            (Some(_), None) => warnings.push(
                "prefixes are not kept on disk: the model is not from files, or its device does not give them".to_owned(),
            ),
            (None, _) => {}
        }
        Ok((scheduler, Built { info, device, memory, places, cache_use, prefixes, outside, warnings }))
    })
}

/// Loads the draft model that the options name, if it can guess for a model.
fn load_draft(info: &ModelInfo, options: &LoadOptions) -> Result<Option<Box<dyn LanguageModel>>> {
    let Some(folder) = &options.draft_model else { return Ok(None) };
    let refused = |problem: &str| EngineError::Draft { draft: folder.clone(), problem: problem.to_owned() };
    if !info.cache.can_rewind() {
        return Err(refused(
            "the model that it should guess for keeps recurrent state, which cannot be cut back",
        ));
    }
    let (draft, _) = device::load(folder, options)?;
    if !draft.info().cache.can_rewind() {
        return Err(refused("it keeps recurrent state, which cannot be cut back when a guess is wrong"));
    }
    Ok(Some(draft))
}

/// Checks that two tokenizers have the same tokens, and says where not.
fn same_vocabulary(own: &Tokenizer, other: &Tokenizer) -> Result<(), String> {
    let count = own.vocab_size().max(other.vocab_size()) as u32;
    let tokens = |id: u32| (own.id_to_token(id), other.id_to_token(id));
    match (0..count).map(|id| (id, tokens(id))).find(|(_, (own, other))| own != other) {
        None => Ok(()),
        Some((id, (own, other))) => {
            let shown =
                |token: Option<String>| token.map_or("nothing".to_owned(), |token| format!("{token:?}"));
            Err(format!("its vocabulary is another one: token {id} is {}, not {}", shown(other), shown(own)))
        }
    }
}
