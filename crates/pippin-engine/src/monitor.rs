//! The numbers about loaded models, over all their requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::stream::{FinishReason, GenerateInfo};
use crate::{ModelContainer, ModelMemory, memory};

/// Requests over which means and percentiles are taken.
const WINDOW: usize = 256;
/// Models that are remembered; of more, those that were not used for the longest time are forgotten.
const MAX_MODELS: usize = 256;

/// The numbers about models: how long they took to load, how fast they read and write, how often they were asked.
///
/// A monitor knows the models it was told to [`watch`](Self::watch); a [`ModelCache`](crate::ModelCache) has one and
/// tells it about every model it loads. What a model did before it was unloaded is kept, and goes on when it comes back.
/// Cloning gives another handle to the same monitor.
///
/// ```no_run
/// use pippin_engine::{GenerateParameters, LoadOptions, ModelContainer, PerformanceMonitor};
///
/// let monitor = PerformanceMonitor::new();
/// let model = ModelContainer::load("pippin-nano", &LoadOptions::default())?;
/// monitor.watch(&model);
/// model.generate_text("Once upon a time", &GenerateParameters::default())?.collect_text()?;
/// let snapshot = monitor.snapshot();
/// let decode = &snapshot.models[0].decode_tokens_per_second;
/// println!("{:?} tokens/s", decode.p50);
/// # Ok::<(), pippin_engine::EngineError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct PerformanceMonitor {
    models: Arc<Mutex<BTreeMap<String, Arc<Record>>>>,
}

/// All numbers at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PerformanceSnapshot {
    /// Each model that was ever watched, by name.
    pub models: Vec<ModelPerformance>,
    /// The process that they run in.
    pub process: ProcessPerformance,
}

/// The numbers of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelPerformance {
    /// The model's name.
    pub model: String,
    /// How often it was loaded.
    pub loads: u64,
    /// How long the last load took, in seconds.
    pub load_s: Option<f64>,
    /// What the last load was expected to take and took.
    pub load_memory: Option<LoadMemory>,
    /// Requests so far.
    pub requests: RequestCounts,
    /// Tokens so far.
    pub tokens: TokenCounts,
    /// From the request to the first token, in seconds.
    pub time_to_first_token_s: Distribution,
    /// Prompt tokens computed per second.
    pub prefill_tokens_per_second: Distribution,
    /// Tokens generated per second.
    pub decode_tokens_per_second: Distribution,
    /// The most memory that the process had used at the end of any of these requests, in bytes, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// How busy the device was while the model computed, from 0 to 1, where it can be read. On the CPU this is the
    /// process' share of all that its processors could have done.
    pub device_utilization: Option<f64>,
}

/// What a load was expected to take, and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LoadMemory {
    /// What was expected from the model's files and the options.
    pub estimated: ModelMemory,
    /// What was allocated and mapped, as the budget counts it.
    pub accounted: ModelMemory,
    /// `accounted − estimated`, in bytes.
    pub difference_bytes: i64,
    /// By how much the process grew in RAM during the load, where the system tells and nothing else was loaded at the
    /// time. Less than is accounted: weights and KV cache come in as they are first used.
    pub grown_by_load: Option<Growth>,
    /// The same from before the load to after the last use, where no other model was loaded since. Without long
    /// sequences still less than is accounted, by the part of the KV cache that was never written.
    pub grown_by_use: Option<Growth>,
}

impl LoadMemory {
    pub(crate) fn new(estimated: ModelMemory, accounted: ModelMemory) -> Self {
        let difference = i128::from(accounted.total()) - i128::from(estimated.total());
        let limits = (i128::from(i64::MIN), i128::from(i64::MAX));
        let difference_bytes = i64::try_from(difference.clamp(limits.0, limits.1)).unwrap_or(0);
        Self { estimated, accounted, difference_bytes, grown_by_load: None, grown_by_use: None }
    }
}

/// By how much the memory of the process grew, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Growth {
    /// What it has written: KV cache, tokenizer, working memory.
    pub anonymous: i64,
    /// Pages of mapped files: weights.
    pub file: i64,
}

impl Growth {
    pub(crate) fn between(before: memory::Resident, after: memory::Resident) -> Self {
        let difference = |before: u64, after: u64| after as i64 - before as i64;
        Self {
            anonymous: difference(before.anonymous, after.anonymous),
            file: difference(before.file, after.file),
        }
    }
}

/// Requests by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RequestCounts {
    /// All that have ended.
    pub total: u64,
    /// By a stop token or a stop string.
    pub stop: u64,
    /// By `max_tokens` or the context.
    pub length: u64,
    /// By whoever asked.
    pub cancelled: u64,
    /// By an error.
    pub failed: u64,
    /// Those that have not ended.
    pub running: u64,
}

/// Tokens of all requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TokenCounts {
    /// Tokens of prompts.
    pub prompt: u64,
    /// How many of them needed no computing, because an earlier request began alike.
    pub cached: u64,
    /// Tokens generated.
    pub generated: u64,
    /// Tokens that were guessed ahead and computed, right or wrong.
    #[serde(default)]
    pub drafted: u64,
    /// How many of them were right.
    #[serde(default)]
    pub accepted: u64,
}

/// A quantity over the last 256 requests that had one. Everything is `None` when none had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Distribution {
    /// Of the last request.
    pub last: Option<f64>,
    /// The arithmetic mean.
    pub mean: Option<f64>,
    /// The median: half of the requests had no more.
    pub p50: Option<f64>,
    /// 95 % of the requests had no more.
    pub p95: Option<f64>,
}

/// The numbers of the process.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ProcessPerformance {
    /// The most memory that it has used so far, in bytes, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// What it has written and is in RAM now, in bytes, where the system tells.
    pub anonymous_memory_bytes: Option<u64>,
    /// Pages of mapped files that are in RAM now, in bytes, where the system tells.
    pub file_memory_bytes: Option<u64>,
    /// Processor time of all its threads so far, in seconds, where the system tells.
    pub processor_time_s: Option<f64>,
}

impl PerformanceMonitor {
    /// A monitor that knows no model yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the requests of a model from now on, and those it has had where this is the first model of its name.
    pub fn watch(&self, model: &ModelContainer) {
        let name = model.name();
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        match models.get(&name) {
            Some(record) => {
                let own = model.record();
                if !Arc::ptr_eq(record, &own) {
                    record.take_over_load(&own);
                    model.record_in(Arc::clone(record));
                }
            }
            None => {
                if models.len() >= MAX_MODELS {
                    let oldest = models.iter().min_by_key(|(_, record)| record.lock().last_used);
                    if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                        models.remove(&name);
                    }
                }
                models.insert(name, model.record());
            }
        }
    }

    /// All numbers.
    pub fn snapshot(&self) -> PerformanceSnapshot {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let models = models.iter().map(|(name, record)| record.snapshot(name)).collect();
        let resident = memory::resident();
        PerformanceSnapshot {
            models,
            process: ProcessPerformance {
                peak_memory_bytes: memory::peak(),
                anonymous_memory_bytes: resident.map(|resident| resident.anonymous),
                file_memory_bytes: resident.map(|resident| resident.file),
                processor_time_s: memory::processor_time().map(|time| time.as_secs_f64()),
            },
        }
    }

    /// The numbers of one model, if it is known.
    pub fn model(&self, name: &str) -> Option<ModelPerformance> {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.get(name).map(|record| record.snapshot(name))
    }

    /// Forgets all models. Those that are loaded go on counting, but are not shown until they are watched again.
    pub fn clear(&self) {
        self.models.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Where the requests of a model are counted.
#[derive(Debug, Default)]
pub(crate) struct Record {
    numbers: Mutex<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    loads: u64,
    load_time: Option<Duration>,
    load_memory: Option<LoadMemory>,
    requests: RequestCounts,
    tokens: TokenCounts,
    first_token: Window,
    prefill: Window,
    decode: Window,
    peak_memory: Option<u64>,
    /// While at least one request runs: since when, and the processor time used until then.
    busy: Option<(Instant, Option<Duration>)>,
    busy_time: Duration,
    processor_time: Option<Duration>,
    last_used: Option<Instant>,
}

impl Record {
    /// A request begins.
    pub(crate) fn begin(&self) {
        let mut numbers = self.lock();
        numbers.requests.running += 1;
        if numbers.requests.running == 1 {
            numbers.busy = Some((Instant::now(), memory::processor_time()));
        }
    }

    /// A request that has begun has ended.
    pub(crate) fn end(&self, info: &GenerateInfo) {
        let mut numbers = self.lock();
        *numbers.count(&info.finish_reason) += 1;
        numbers.tokens.prompt += info.prompt_tokens as u64;
        numbers.tokens.cached += info.cached_tokens as u64;
        numbers.tokens.generated += info.generated_tokens as u64;
        numbers.tokens.drafted += info.drafted_tokens as u64;
        numbers.tokens.accepted += info.accepted_tokens as u64;
        if let Some(time) = info.time_to_first_token {
            numbers.first_token.push(time.as_secs_f64());
        }
        // A rate of zero says that there was nothing to time.
        if info.prompt_tokens_per_second() > 0.0 {
            numbers.prefill.push(info.prompt_tokens_per_second());
        }
        if info.tokens_per_second() > 0.0 {
            numbers.decode.push(info.tokens_per_second());
        }
        numbers.peak_memory = numbers.peak_memory.max(info.peak_memory);
        numbers.ended();
    }

    /// A request that has begun has failed.
    pub(crate) fn fail(&self) {
        let mut numbers = self.lock();
        numbers.requests.failed += 1;
        numbers.ended();
    }

    /// The end of a request has turned out to have another reason: text that was held back held a stop string.
    pub(crate) fn correct(&self, before: &FinishReason, after: &FinishReason) {
        let mut numbers = self.lock();
        let count = numbers.count(before);
        *count = count.saturating_sub(1);
        *numbers.count(after) += 1;
    }

    /// The model has been loaded.
    pub(crate) fn loaded(&self, time: Duration) {
        let mut numbers = self.lock();
        numbers.loads += 1;
        numbers.load_time = Some(time);
        numbers.last_used = Some(Instant::now());
    }

    /// The model has been loaded anew, by a handle that has counted so far in a record of its own.
    fn take_over_load(&self, other: &Self) {
        let (loads, time, memory) = {
            let other = other.lock();
            (other.loads, other.load_time, other.load_memory)
        };
        let mut numbers = self.lock();
        numbers.loads += loads;
        (numbers.load_time, numbers.load_memory) = (time, memory);
        numbers.last_used = Some(Instant::now());
    }

    /// What is known about the memory of the last load.
    pub(crate) fn set_memory(&self, memory: LoadMemory) {
        self.lock().load_memory = Some(memory);
    }

    pub(crate) fn snapshot(&self, model: &str) -> ModelPerformance {
        let numbers = self.lock();
        ModelPerformance {
            model: model.to_owned(),
            loads: numbers.loads,
            load_s: numbers.load_time.map(|time| time.as_secs_f64()),
            load_memory: numbers.load_memory,
            requests: RequestCounts {
                total: {
                    let RequestCounts { stop, length, cancelled, failed, .. } = numbers.requests;
                    stop + length + cancelled + failed
                },
                ..numbers.requests
            },
            tokens: numbers.tokens,
            time_to_first_token_s: numbers.first_token.distribution(),
            prefill_tokens_per_second: numbers.prefill.distribution(),
            decode_tokens_per_second: numbers.decode.distribution(),
            peak_memory_bytes: numbers.peak_memory,
            device_utilization: numbers.utilization(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Numbers {
    fn count(&mut self, reason: &FinishReason) -> &mut u64 {
        match reason {
            FinishReason::Stop | FinishReason::StopString(_) => &mut self.requests.stop,
            FinishReason::Length | FinishReason::TimeLimit => &mut self.requests.length,
            FinishReason::Cancelled => &mut self.requests.cancelled,
        }
    }

    fn ended(&mut self) {
        let now = Instant::now();
        self.last_used = Some(now);
        self.requests.running = self.requests.running.saturating_sub(1);
        if self.requests.running > 0 {
            return;
        }
        if let Some((since, used)) = self.busy.take() {
            self.busy_time += now.saturating_duration_since(since);
            if let (Some(before), Some(after)) = (used, memory::processor_time()) {
                *self.processor_time.get_or_insert_default() += after.saturating_sub(before);
            }
        }
    }

    fn utilization(&self) -> Option<f64> {
        let (used, wall) = (self.processor_time?.as_secs_f64(), self.busy_time.as_secs_f64());
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        (wall > 0.0).then(|| (used / (wall * processors)).min(1.0))
    }
}

/// The last values of a quantity.
#[derive(Debug, Default)]
struct Window(VecDeque<f64>);

impl Window {
    fn push(&mut self, value: f64) {
        if self.0.len() == WINDOW {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    fn distribution(&self) -> Distribution {
        let mut sorted: Vec<f64> = self.0.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        // The nearest rank: always a value that occurred.
        let percentile = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied()
        };
        Distribution {
            last: self.0.back().copied(),
            mean: (!sorted.is_empty()).then(|| sorted.iter().sum::<f64>() / sorted.len() as f64),
            p50: percentile(50),
            p95: percentile(95),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(reason: FinishReason, generated: usize) -> GenerateInfo {
        GenerateInfo {
            prompt_tokens: 10,
            cached_tokens: 4,
            generated_tokens: generated,
            drafted_tokens: 6,
            accepted_tokens: 5,
            time_to_first_token: Some(Duration::from_millis(250)),
            prompt_time: Duration::from_millis(100),
            generate_time: Duration::from_secs(1),
            peak_memory: Some(1000),
            finish_reason: reason,
        }
    }

    #[test]
    fn percentiles_are_of_the_last_requests() {
        let mut window = Window::default();
        assert_eq!(window.distribution(), Distribution::default());
        window.push(7.0);
        let only = Some(7.0);
        assert_eq!(window.distribution(), Distribution { last: only, mean: only, p50: only, p95: only });
        for value in (1..=100).rev() {
            window.push(f64::from(value));
        }
        window.0.pop_front();
        let Distribution { last, mean, p50, p95 } = window.distribution();
        assert_eq!((last, mean, p50, p95), (Some(1.0), Some(50.5), Some(50.0), Some(95.0)));
        for _ in 0..2 * WINDOW {
            window.push(3.0);
        }
        assert_eq!((window.0.len(), window.distribution().mean), (WINDOW, Some(3.0)));
    }

    #[test]
    fn requests_are_counted_by_their_end() {
        let record = Record::default();
        for _ in 0..5 {
            record.begin();
        }
        record.end(&info(FinishReason::Stop, 11));
        record.end(&info(FinishReason::Length, 21));
        record.end(&info(FinishReason::Cancelled, 1));
        record.fail();
        record.correct(&FinishReason::Length, &FinishReason::StopString("x".to_owned()));
        let numbers = record.snapshot("m");
        let expected = RequestCounts { total: 4, stop: 2, length: 0, cancelled: 1, failed: 1, running: 1 };
        assert_eq!(numbers.requests, expected);
        assert_eq!(
            numbers.tokens,
            TokenCounts { prompt: 30, cached: 12, generated: 33, drafted: 18, accepted: 15 }
        );
        assert_eq!(numbers.time_to_first_token_s.p95, Some(0.25));
        assert_eq!(numbers.prefill_tokens_per_second.mean, Some(60.0));
        // One token has no rate.
        assert_eq!(numbers.decode_tokens_per_second.mean, Some(15.0));
        assert_eq!(numbers.decode_tokens_per_second.last, Some(20.0));
        assert_eq!(numbers.peak_memory_bytes, Some(1000));
        record.end(&info(FinishReason::Stop, 1));
        assert_eq!(record.snapshot("m").requests.running, 0);
    }

    #[test]
    fn the_difference_of_a_load_is_signed() {
        let small = ModelMemory::new(100, 0, 0, 1);
        let large = ModelMemory::new(100, 50, 0, 1);
        assert_eq!(LoadMemory::new(small, large).difference_bytes, 50);
        assert_eq!(LoadMemory::new(large, small).difference_bytes, -50);
        let absurd = ModelMemory::new(u64::MAX, 0, 0, 1);
        assert_eq!(LoadMemory::new(small, absurd).difference_bytes, i64::MAX);
    }
}
