use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use pippin_cpu::{CpuBackend, InstructionSet};
use pippin_hub::Resolver;
use pippin_models::LanguageModel;
use pippin_tensor::{Backend, Dtype, KvFormat, Numerics};

use crate::{EngineError, Result};

/// What computes.
///
/// ```
/// use pippin_engine::Device;
///
/// assert_eq!("cuda".parse::<Device>()?, Device::Cuda(0));
/// assert_eq!("cuda:1".parse::<Device>()?.to_string(), "cuda:1");
/// # Ok::<(), pippin_engine::EngineError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The first NVIDIA GPU, if there is one that can be used, and the processor otherwise.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// An NVIDIA GPU, by its number: `cuda` is the first, `cuda:1` the second.
    Cuda(u32),
    /// An Apple GPU, through MLX.
    Mlx,
}

impl Device {
    /// The names of all kinds of devices, as the command line takes them. A number may follow: `cuda:1`.
    pub const NAMES: [&str; 4] = ["auto", "cpu", "cuda", "mlx"];

    /// The name of its kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
            Self::Mlx => "mlx",
        }
    }

    /// What [`Auto`](Self::Auto) stands for on this machine, and where that is the processor, why no GPU is used. It is found out once.
    pub fn automatic() -> (Self, Option<String>) {
        static FOUND: OnceLock<(Device, Option<String>)> = OnceLock::new();
        let find = || {
            #[cfg(feature = "cuda")]
            let outcome = match pippin_cuda::CudaDevice::usable(0) {
                Ok(_) => (Self::Cuda(0), None),
                Err(problem) => (Self::Cpu, Some(problem.to_string())),
            };
            #[cfg(not(feature = "cuda"))]
            let outcome = (Self::Cpu, Some(EngineError::DeviceUnavailable(Self::Cuda(0)).to_string()));
            outcome
        };
        FOUND.get_or_init(find).clone()
    }

    /// The device itself: what [`Auto`](Self::Auto) stands for, or this one.
    #[must_use]
    pub fn resolved(self) -> Self {
        if self == Self::Auto { Self::automatic().0 } else { self }
    }

    /// The memory that models have on this device, where that is not the machine's. `None` also where the device cannot be used: that
    /// is for loading to say.
    pub fn memory(self) -> Option<DeviceMemory> {
        match self.resolved() {
            #[cfg(feature = "cuda")]
            Self::Cuda(number) => {
                let found = pippin_cuda::CudaDevice::usable(number as usize).ok()?;
                let (available, total) = pippin_cuda::CudaDevice::memory(number as usize).ok()?;
                Some(
                    DeviceMemory::new(found.name, available, total)
                        .with_bytes_per_second(found.bytes_per_second),
                )
            }
            _ => None,
        }
    }
}

/// The memory of a GPU.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeviceMemory {
    /// The GPU's name.
    pub name: String,
    /// Bytes that are free.
    pub available: u64,
    /// All of them.
    pub total: u64,
    /// What can be read of it in a second, in bytes, as far as that is known.
    pub bytes_per_second: Option<f64>,
}

impl DeviceMemory {
    /// The memory of a GPU of this name: what of it is free, and all of it, in bytes.
    pub fn new(name: impl Into<String>, available: u64, total: u64) -> Self {
        Self { name: name.into(), available, total, bytes_per_second: None }
    }

    /// With so many bytes that can be read of it in a second.
    #[must_use]
    pub fn with_bytes_per_second(mut self, bytes_per_second: impl Into<Option<f64>>) -> Self {
        self.bytes_per_second = bytes_per_second.into();
        self
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cuda(number @ 1..) => f.pad(&format!("cuda:{number}")),
            device => f.pad(device.as_str()),
        }
    }
}

impl FromStr for Device {
    type Err = EngineError;

    fn from_str(name: &str) -> Result<Self> {
        let unknown = || EngineError::UnknownDevice(name.to_owned());
        // Digits only: a number may be written with a sign otherwise.
        let number =
            name.strip_prefix("cuda:").filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        if let Some(number) = number {
            return number.parse().map(Self::Cuda).map_err(|_| unknown());
        }
        let all = [Self::Auto, Self::Cpu, Self::Cuda(0), Self::Mlx];
        all.into_iter().find(|device| device.as_str() == name).ok_or_else(unknown)
    }
}

/// What models may take on a device where nobody says otherwise.
pub(crate) fn budget(device: Device) -> u64 {
    match device.memory() {
        Some(memory) => memory.available / 100 * u64::from(crate::memory::SHARE),
        None => crate::memory::budget(),
    }
}

/// Prompt tokens in one step where nobody says otherwise.
pub(crate) const DEFAULT_STEP: usize = 512;
/// More prompt tokens in one step than this are refused: they take memory and gain nothing.
pub(crate) const MAX_STEP: usize = 1 << 14;

/// Bytes of the prefixes on disk where nobody says otherwise.
pub(crate) const DEFAULT_PREFIX_CACHE: u64 = 10_000_000_000;

const MAX_SNAPSHOTS: usize = 1 << 16;

/// How to load a model.
///
/// ```
/// use pippin_engine::{Device, LoadOptions};
///
/// let options = LoadOptions::default().with_device(Device::Cpu).with_context(8192);
/// assert_eq!(options, LoadOptions { device: Device::Cpu, context: Some(8192), ..LoadOptions::default() });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// What computes.
    pub device: Device,
    /// Whether approximations are allowed. Exact numerics keep the KV cache in `f32`, if `kv_format` does not say
    /// otherwise.
    pub numerics: Numerics,
    /// How the KV cache stores its numbers. `None`: as the checkpoint does its own (`f16`, `bf16` or `f32`).
    /// [`KvFormat::Int8`] takes half the memory of 16 bits, and half the time to read where contexts are long; what it
    /// costs is measured in `docs/numerics.md`.
    pub kv_format: Option<KvFormat>,
    /// The longest sequence, prompt and answer together. `None`: what the model was made for, or less where its KV cache
    /// would take more than a quarter of the available memory.
    pub context: Option<usize>,
    /// Tokens that the KV cache holds over all sequences, running and remembered; at least the context, which is also
    /// the default.
    pub cache_tokens: Option<usize>,
    /// Sequences that are computed together; more wait. Where a model keeps recurrent state and memory is short, it may be
    /// fewer.
    pub max_sequences: usize,
    /// Requests that may wait while `max_sequences` others are computed. One more is refused
    /// ([`EngineError::QueueFull`]).
    pub max_waiting: usize,
    /// How many prompt tokens are computed in one step, over all requests; at most 16,384. Larger is faster, and takes more
    /// memory; smaller lets answers that are being written flow more evenly.
    pub prefill_step_size: usize,
    /// Copies of recurrent state that are kept for requests that begin alike, for models that have such state. `None`: 16, or
    /// as many as a quarter of the caches' memory holds.
    pub snapshots: Option<usize>,
    /// Bytes that the model may take, with weights, caches and all. `None`: four fifths of what is available.
    pub memory_budget: Option<u64>,
    /// Threads of the CPU backend. `None`: as many as the machine runs at once.
    pub threads: Option<usize>,
    /// A smaller model with the same vocabulary, which guesses what comes next
    /// ([`GenerateParameters::draft_tokens`](crate::GenerateParameters::draft_tokens)): its folder, or, where names of models are known, its
    /// hub id or alias. Answers are the same without it, but may take longer.
    pub draft_model: Option<PathBuf>,
    /// The folder where prefixes of requests that have ended are kept on disk, for later requests that begin alike, also of other
    /// processes. It holds what users have said, in a form that only this model reads, so only its owner may look into what is made there.
    /// `None`: they are kept in memory only.
    pub prefix_cache: Option<PathBuf>,
    /// Bytes that this folder may have, over all models; what was used least recently goes.
    pub prefix_cache_size: u64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            device: Device::Auto,
            numerics: Numerics::Fast,
            kv_format: None,
            context: None,
            cache_tokens: None,
            max_sequences: 32,
            max_waiting: 1024,
            prefill_step_size: DEFAULT_STEP,
            snapshots: None,
            memory_budget: None,
            threads: None,
            draft_model: None,
            prefix_cache: None,
            prefix_cache_size: DEFAULT_PREFIX_CACHE,
        }
    }
}

impl LoadOptions {
    /// The format of the KV cache for a checkpoint of this type.
    pub fn kv_format_of(&self, checkpoint: Dtype) -> KvFormat {
        self.kv_format.unwrap_or(match (self.numerics, checkpoint) {
            (Numerics::Fast, Dtype::F16) => KvFormat::F16,
            (Numerics::Fast, Dtype::Bf16) => KvFormat::Bf16,
            _ => KvFormat::F32,
        })
    }

    /// With the draft model's folder in place of its name. It has to be on this machine.
    pub(crate) fn with_draft_found(mut self, resolver: &Resolver) -> Result<Self> {
        if let Some(draft) = self.draft_model.as_mut().filter(|draft| !draft.is_dir()) {
            let found = draft.to_str().map(|name| resolver.resolve(name)).transpose()?;
            draft.clone_from(&found.map_or_else(|| draft.clone(), |found| found.directory));
        }
        Ok(self)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("context", self.context),
            ("cache_tokens", self.cache_tokens),
            ("max_sequences", Some(self.max_sequences)),
            ("threads", self.threads),
        ] {
            if value == Some(0) {
                return Err(EngineError::parameter(field, 0, "1 or more"));
            }
        }
        if !(1..=MAX_STEP).contains(&self.prefill_step_size) {
            let expected = "between 1 and 16384";
            return Err(EngineError::parameter("prefill_step_size", self.prefill_step_size, expected));
        }
        if self.snapshots.is_some_and(|snapshots| snapshots > MAX_SNAPSHOTS) {
            return Err(EngineError::parameter("snapshots", MAX_SNAPSHOTS + 1, "at most 65536"));
        }
        Ok(())
    }
}

impl LoadOptions {
    /// On this device.
    #[must_use]
    pub fn with_device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// With these numerics.
    #[must_use]
    pub fn with_numerics(mut self, numerics: Numerics) -> Self {
        self.numerics = numerics;
        self
    }

    /// With keys and values in this format.
    #[must_use]
    pub fn with_kv_format(mut self, kv_format: impl Into<Option<KvFormat>>) -> Self {
        self.kv_format = kv_format.into();
        self
    }

    /// With a longest sequence of so many tokens.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<Option<usize>>) -> Self {
        self.context = context.into();
        self
    }

    /// With a KV cache of so many tokens over all sequences.
    #[must_use]
    pub fn with_cache_tokens(mut self, cache_tokens: impl Into<Option<usize>>) -> Self {
        self.cache_tokens = cache_tokens.into();
        self
    }

    /// With so many sequences computed together.
    #[must_use]
    pub fn with_max_sequences(mut self, max_sequences: usize) -> Self {
        self.max_sequences = max_sequences;
        self
    }

    /// Lets so many requests wait.
    #[must_use]
    pub fn with_max_waiting(mut self, max_waiting: usize) -> Self {
        self.max_waiting = max_waiting;
        self
    }

    /// Computes so many prompt tokens in one step, over all requests.
    #[must_use]
    pub fn with_prefill_step_size(mut self, tokens: usize) -> Self {
        self.prefill_step_size = tokens;
        self
    }

    /// Keeps so many copies of recurrent state for requests that begin alike.
    #[must_use]
    pub fn with_snapshots(mut self, snapshots: impl Into<Option<usize>>) -> Self {
        self.snapshots = snapshots.into();
        self
    }

    /// Lets the model take so many bytes, with weights, caches and all.
    #[must_use]
    pub fn with_memory_budget(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.memory_budget = bytes.into();
        self
    }

    /// With a draft model from this folder.
    #[must_use]
    pub fn with_draft_model(mut self, folder: impl Into<Option<PathBuf>>) -> Self {
        self.draft_model = folder.into();
        self
    }

    /// Keeps prefixes on disk, in this folder.
    #[must_use]
    pub fn with_prefix_cache(mut self, folder: impl Into<Option<PathBuf>>) -> Self {
        self.prefix_cache = folder.into();
        self
    }

    /// Lets the folder of prefixes have so many bytes.
    #[must_use]
    pub fn with_prefix_cache_size(mut self, bytes: u64) -> Self {
        self.prefix_cache_size = bytes;
        self
    }

    /// With so many threads of the CPU.
    #[must_use]
    pub fn with_threads(mut self, threads: impl Into<Option<usize>>) -> Self {
        self.threads = threads.into();
        self
    }
}

/// What each device of this build is on this machine, in words, or why it cannot be used here.
pub fn devices() -> Vec<(Device, std::result::Result<String, String>)> {
    let unavailable = |device: Device| (device, Err(EngineError::DeviceUnavailable(device).to_string()));
    let mut all = vec![(Device::Cpu, Ok(CpuBackend::new(Numerics::Fast).description()))];
    #[cfg(feature = "cuda")]
    {
        let count = pippin_cuda::CudaBackend::count().unwrap_or(0);
        // Of none, it is said why.
        let numbers = 0..u32::try_from(count.max(1)).unwrap_or(1);
        all.extend(numbers.map(|number| {
            let found = cuda(number, Numerics::Fast).map(|cuda| cuda.description());
            (Device::Cuda(number), found.map_err(|problem| problem.to_string()))
        }));
    }
    #[cfg(not(feature = "cuda"))]
    all.push(unavailable(Device::Cuda(0)));
    all.push(unavailable(Device::Mlx));
    all
}

/// What there is on this machine for GPUs besides themselves, in names and words: the driver, the compiler of kernels, and where they are kept.
pub fn device_surroundings() -> Vec<(&'static str, String)> {
    #[cfg(feature = "cuda")]
    return pippin_cuda::CudaDevice::surroundings();
    #[cfg(not(feature = "cuda"))]
    Vec::new()
}

#[cfg(feature = "cuda")]
fn cuda(
    number: u32,
    numerics: Numerics,
) -> std::result::Result<pippin_cuda::CudaBackend, pippin_cuda::CudaProblem> {
    pippin_cuda::CudaBackend::new(number as usize, numerics)
}

/// A loaded model and its device in words.
pub(crate) type Loaded = (Box<dyn LanguageModel>, String);

/// Loads the model of a folder onto a device.
#[allow(
    clippy::arc_with_non_send_sync,
    reason = "a model stays on the thread that made it, whatever its backend can"
)]
pub(crate) fn load(folder: &std::path::Path, options: &LoadOptions) -> Result<Loaded> {
    match options.device.resolved() {
        Device::Auto | Device::Cpu => {
            let backend = cpu(options)?;
            let description = backend.description();
            Ok((pippin_models::load(folder, Arc::new(backend))?, description))
        }
        #[cfg(feature = "cuda")]
        device @ Device::Cuda(number) => {
            let backend = cuda(number, options.numerics)
                .map_err(|problem| EngineError::DeviceProblem { device, problem: problem.to_string() })?;
            let description = backend.description();
            Ok((pippin_models::load(folder, Arc::new(backend))?, description))
        }
        device => Err(EngineError::DeviceUnavailable(device)),
    }
}

/// The CPU as the options want it.
pub(crate) fn cpu(options: &LoadOptions) -> Result<CpuBackend> {
    let Some(threads) = options.threads else { return Ok(CpuBackend::new(options.numerics)) };
    InstructionSet::available()
        .into_iter()
        .find_map(|set| CpuBackend::with(options.numerics, set, threads))
        .ok_or(EngineError::DeviceUnavailable(Device::Cpu))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for name in Device::NAMES {
            assert_eq!(name.parse::<Device>().expect(name).to_string(), name);
        }
        assert_eq!("cuda:0".parse::<Device>().expect("a device").to_string(), "cuda");
        assert_eq!("cuda:12".parse::<Device>().expect("a device"), Device::Cuda(12));
        assert_eq!(Device::Cuda(12).to_string(), "cuda:12");
        for wrong in
            ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:99999999999", "cpu:1", "cuda1", ""]
        {
            let error = wrong.parse::<Device>().expect_err(wrong);
            assert!(error.hint().expect("a hint").contains("cuda:1"), "{wrong}");
        }
    }

    #[test]
    fn what_is_chosen_can_be_used_or_there_is_a_reason() {
        let (device, reason) = Device::automatic();
        assert_eq!(device == Device::Cpu, reason.is_some(), "{reason:?}");
        assert_eq!(Device::Auto.resolved(), device);
        assert_eq!(Device::Cuda(7).resolved(), Device::Cuda(7));
        assert_eq!((Device::Cpu.memory(), Device::Cuda(999).memory()), (None, None));
        assert_eq!(Device::Auto.memory().is_some(), device != Device::Cpu);
    }

    #[test]
    fn devices_that_are_not_built_in_say_so() {
        let options = LoadOptions { device: Device::Mlx, ..LoadOptions::default() };
        let Err(error) = load(std::path::Path::new("."), &options) else { panic!("there is no MLX backend") };
        assert_eq!(error.to_string(), "this build of Pippin has no mlx backend");
    }

    #[test]
    fn options_of_zero_are_refused() {
        let options = LoadOptions { max_sequences: 0, ..LoadOptions::default() };
        assert!(options.validate().unwrap_err().to_string().contains("max_sequences"));
        assert!(LoadOptions { context: Some(0), ..LoadOptions::default() }.validate().is_err());
        assert!(LoadOptions::default().validate().is_ok());
        for prefill_step_size in [0, MAX_STEP + 1, usize::MAX] {
            let options = LoadOptions { prefill_step_size, ..LoadOptions::default() };
            assert!(options.validate().unwrap_err().to_string().contains("prefill_step_size"));
        }
    }

    #[test]
    fn the_cache_has_the_checkpoints_type_unless_told_otherwise() {
        let fast = LoadOptions::default();
        let exact = LoadOptions { numerics: Numerics::Exact, ..LoadOptions::default() };
        assert_eq!(fast.kv_format_of(Dtype::Bf16), KvFormat::Bf16);
        assert_eq!(fast.kv_format_of(Dtype::F32), KvFormat::F32);
        assert_eq!(exact.kv_format_of(Dtype::F16), KvFormat::F32);
        for options in [fast, exact] {
            let options = LoadOptions { kv_format: Some(KvFormat::Int8), ..options };
            assert_eq!(options.kv_format_of(Dtype::F16), KvFormat::Int8);
        }
    }

    #[test]
    fn every_option_has_its_setter() {
        let set = LoadOptions::default()
            .with_device(Device::Cpu)
            .with_numerics(Numerics::Exact)
            .with_kv_format(KvFormat::Int8)
            .with_context(1)
            .with_cache_tokens(2)
            .with_max_sequences(3)
            .with_max_waiting(8)
            .with_threads(4)
            .with_prefill_step_size(5)
            .with_snapshots(6)
            .with_memory_budget(7)
            .with_draft_model(PathBuf::from("8"))
            .with_prefix_cache(PathBuf::from("kept"))
            .with_prefix_cache_size(9);
        let expected = LoadOptions {
            device: Device::Cpu,
            numerics: Numerics::Exact,
            kv_format: Some(KvFormat::Int8),
            context: Some(1),
            cache_tokens: Some(2),
            max_sequences: 3,
            max_waiting: 8,
            threads: Some(4),
            prefill_step_size: 5,
            snapshots: Some(6),
            memory_budget: Some(7),
            draft_model: Some(PathBuf::from("8")),
            prefix_cache: Some(PathBuf::from("kept")),
            prefix_cache_size: 9,
        };
        assert_eq!(set, expected);
        assert_eq!(set.with_context(None).context, None);
    }
}
