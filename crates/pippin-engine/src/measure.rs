use std::time::Duration;

/// What a benchmark computes: steps of the model on made-up tokens, without tokenization, sampling or cache reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Workload {
    /// Reads a prompt.
    Prefill {
        /// Its length.
        tokens: usize,
        /// Tokens per step.
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
        Self::Prefill { tokens, step_size: crate::GenerateParameters::default().prefill_step_size }
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

#[cfg(test)]
mod tests {
    use super::*;

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
