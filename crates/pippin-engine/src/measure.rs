use std::time::Duration;

/// What a benchmark computes: steps of the model on made-up tokens, without tokenization, sampling or cache reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Workload {
    /// Reads a prompt.
    Prefill {
        /// Its length.
        tokens: usize,
        /// Tokens per step, at most [`LoadOptions::prefill_step_size`](crate::LoadOptions::prefill_step_size).
        step_size: usize,
    },
    /// Computes one token after another, from an empty context.
    Decode {
        /// How many.
        tokens: usize,
    },
}

impl Workload {
    /// Reads a prompt of so many tokens, in steps of the default size.
    pub fn prefill(tokens: usize) -> Self {
        Self::Prefill { tokens, step_size: crate::device::DEFAULT_STEP }
    }

    /// Computes so many tokens one after another.
    pub fn decode(tokens: usize) -> Self {
        Self::Decode { tokens }
    }

    /// The number of tokens.
    pub fn tokens(&self) -> usize {
        match self {
            Self::Prefill { tokens, .. } | Self::Decode { tokens } => *tokens,
        }
    }

    /// The name that llama-bench gives it: `pp512`, `tg64`.
    pub fn name(&self) -> String {
        match self {
            Self::Prefill { tokens, .. } => format!("pp{tokens}"),
            Self::Decode { tokens } => format!("tg{tokens}"),
        }
    }
}

/// How long a [`Workload`] took, once for each repetition.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Measurement {
    /// What was computed.
    pub workload: Workload,
    /// The time of each repetition.
    pub samples: Vec<Duration>,
}

impl Measurement {
    /// What somebody has timed.
    pub fn new(workload: Workload, samples: Vec<Duration>) -> Self {
        Self { workload, samples }
    }

    /// Mean of the repetitions' tokens per second.
    pub fn mean(&self) -> f64 {
        let rates = self.rates();
        rates.iter().sum::<f64>() / rates.len().max(1) as f64
    }

    /// Sample standard deviation of the repetitions' tokens per second; 0 for a single one.
    pub fn deviation(&self) -> f64 {
        let rates = self.rates();
        if rates.len() < 2 {
            return 0.0;
        }
        let mean = self.mean();
        let squares: f64 = rates.iter().map(|rate| (rate - mean).powi(2)).sum();
        (squares / (rates.len() - 1) as f64).sqrt()
    }

    fn rates(&self) -> Vec<f64> {
        let tokens = self.workload.tokens() as f64;
        self.samples.iter().map(|sample| tokens / sample.as_secs_f64().max(1e-9)).collect()
    }
}

/// What a machine can do at most: the two lines of a roofline. Of a GPU, it is what its memory was made for; what it computes is not
/// known, and infinite here.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct MachineLimits {
    /// Bytes of memory read per second, all cores together.
    pub bytes_per_second: f64,
    /// Operations on `f32` per second, all threads together; a multiplication and an addition count as two.
    pub float_operations_per_second: f64,
    /// Operations on 8-bit integers per second.
    pub byte_operations_per_second: f64,
}

impl MachineLimits {
    /// Measures this machine's processor, within half a second. The memory's part is remembered between runs and only
    /// measured afresh when `again` asks for it.
    ///
    /// # Errors
    ///
    /// The options ask for a device or a number of threads that is not there.
    pub fn measure(options: &crate::LoadOptions, again: bool) -> crate::Result<Self> {
        if let Some(bytes_per_second) = options.device.memory().and_then(|gpu| gpu.bytes_per_second) {
            // What a GPU computes at most is not known here.
            let unknown = f64::INFINITY;
            return Ok(Self {
                bytes_per_second,
                float_operations_per_second: unknown,
                byte_operations_per_second: unknown,
            });
        }
        let peak = crate::device::cpu(options)?.peak_rates();
        let hardware = pippin_hub::Hardware::detect();
        Ok(Self {
            bytes_per_second: pippin_hub::memory_bandwidth(&hardware, again).bytes_per_second,
            float_operations_per_second: peak.floats,
            byte_operations_per_second: peak.bytes,
        })
    }

    /// The operations per second that a model's products can reach with these numerics.
    pub fn operations_per_second(&self, numerics: crate::Numerics) -> f64 {
        match numerics {
            crate::Numerics::Exact => self.float_operations_per_second,
            crate::Numerics::Fast => self.byte_operations_per_second,
        }
    }
}

/// What a [`Workload`] asks of a machine, on average for each token.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Demand {
    /// Bytes read: the weights once a step, and the keys and values of the context.
    pub bytes: f64,
    /// Operations of products with weights and of attention, a multiplication and an addition counted as two.
    pub operations: f64,
}

impl Demand {
    /// The demand of a workload on a model loaded with some options.
    pub fn new(info: &crate::ModelInfo, workload: Workload, options: &crate::LoadOptions) -> Self {
        let tokens = workload.tokens() as f64;
        let step = match workload {
            Workload::Prefill { step_size, .. } => step_size.clamp(1, workload.tokens().max(1)),
            Workload::Decode { .. } => 1,
        } as f64;
        let table = info.vocab_size as f64 * info.hidden_size as f64;
        // A tied table is read as the head; an embedding of its own is only looked up.
        let read = if info.tied_head { 1.0 } else { 1.0 - table / info.parameters as f64 };
        let heads_per_step = if step > 1.0 { 1.0 / step } else { 1.0 };
        let tables = if info.tied_head { 1.0 } else { 2.0 };
        let layers = info.active_parameters as f64 - tables * table;
        // The rows of a step share the experts that they go through.
        let unread: f64 =
            info.mixtures.iter().map(|mixture| mixture.bytes as f64 * (1.0 - mixture.share(step))).sum();
        let format = options.kv_format_of(info.dtype);
        let (mut cached, mut attention) = (0.0, 0.0);
        for group in &info.cache.groups {
            let seen = seen(group.reach.limit(), tokens);
            cached += group.token_bytes(format) as f64 * seen;
            let dims = (group.key_dim + group.values.dim()) as f64;
            attention += group.layers as f64 * info.heads as f64 * dims * 2.0 * seen;
        }
        Self {
            bytes: (info.weight_bytes as f64 * read - unread + cached) / step,
            operations: 2.0 * (layers + table * heads_per_step) + attention,
        }
    }
}

/// How many tokens one sees, on average over a sequence: half of it, or less where there is a limit.
fn seen(limit: Option<usize>, tokens: f64) -> f64 {
    let limit = limit.map_or(tokens, |limit| (limit as f64).min(tokens));
    limit - limit * limit / (2.0 * tokens.max(1.0))
}

#[cfg(test)]
mod tests {
    use pippin_models::{CacheGroup, Mixture};
    use pippin_tensor::{Reach, ValueStore};

    use super::*;

    #[test]
    fn demands_of_a_known_shape() {
        let nano = pippin_hub::resolve("pippin-nano").expect("it ships with the repository");
        let mut info = pippin_models::describe(&nano.directory).expect("a model");
        (info.vocab_size, info.hidden_size, info.layers, info.tied_head) = (1000, 100, 2, true);
        (info.heads, info.kv_heads, info.head_dim) = (4, 2, 10);
        let (values, reach) = (ValueStore::Own(10), Reach::All);
        info.cache.groups = vec![CacheGroup { layers: 2, kv_heads: 2, key_dim: 10, values, reach }];
        (info.parameters, info.weight_bytes) = (300_000, 150_000);
        info.active_parameters = info.parameters;
        info.dtype = pippin_tensor::Dtype::F16;
        let options = crate::LoadOptions::default();
        let decode = Demand::new(&info, Workload::decode(64), &options);
        // Weights, and 2 layers of 2 heads of 10, keys and values, 2 bytes each, over 32 tokens.
        assert_eq!(decode.bytes, 150_000.0 + (2 * 2 * 10 * 2 * 2 * 32) as f64);
        // All parameters twice, and 4 heads of 10 in 2 layers against 32 keys and values.
        assert_eq!(decode.operations, 600_000.0 + (2 * 4 * 10 * 4 * 32) as f64);
        let prefill = Demand::new(&info, Workload::Prefill { tokens: 64, step_size: 64 }, &options);
        assert_eq!(prefill.bytes, decode.bytes / 64.0);
        assert_eq!(prefill.operations, 2.0 * (200_000.0 + 100_000.0 / 64.0) + (2 * 4 * 10 * 4 * 32) as f64);

        // A mixture of which a token uses a quarter.
        info.mixtures = vec![Mixture { experts: 8, used: 2, parameters: 160_000, bytes: 80_000 }];
        info.active_parameters = 300_000 - 120_000;
        let sparse = Demand::new(&info, Workload::decode(64), &options);
        assert_eq!(sparse.bytes, decode.bytes - 60_000.0);
        assert_eq!(sparse.operations, decode.operations - 240_000.0);
        // Many tokens together go through nearly all of them.
        let together = Demand::new(&info, Workload::Prefill { tokens: 64, step_size: 64 }, &options);
        assert!((prefill.bytes - together.bytes) * 64.0 < 1.0, "{together:?}");
    }

    #[test]
    fn windows_bound_what_is_seen() {
        assert_eq!((seen(None, 100.0), seen(Some(200), 100.0)), (50.0, 50.0));
        // Half of 50 on average for the first 50 tokens, 50 for the others.
        assert_eq!(seen(Some(50), 100.0), 37.5);
    }

    #[test]
    fn mean_and_deviation() {
        let seconds = |samples: &[f64]| Measurement {
            workload: Workload::decode(10),
            samples: samples.iter().map(|seconds| Duration::from_secs_f64(*seconds)).collect(),
        };
        let measured = seconds(&[1.0, 0.5]);
        assert!((measured.mean() - 15.0).abs() < 1e-9);
        assert!((measured.deviation() - 50f64.sqrt()).abs() < 1e-9);
        assert_eq!(seconds(&[1.0]).deviation(), 0.0);
        assert_eq!(seconds(&[]).mean(), 0.0);
        assert_eq!(measured.workload.name(), "tg10");
        assert_eq!(Workload::prefill(512).name(), "pp512");
    }
}
