//! Which models of the registry suit a machine.

use serde::Serialize;

use crate::{Bandwidth, Fit, Judge, MemoryEstimate, ModelConfiguration, ModelKind, ModelRegistry};

/// The sizes of machines, and the sizes of models that suit them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryTier {
    /// Gigabytes of memory from which it begins.
    pub from_gigabytes: u64,
    /// What it is called.
    pub name: &'static str,
    /// The models, in words.
    pub models: &'static str,
    /// The range of parameters, the second one excluded.
    #[serde(skip)]
    parameters: (u64, u64),
}

const BILLION: u64 = 1_000_000_000;

impl MemoryTier {
    /// All of them, the smallest first.
    pub const ALL: [Self; 4] = [
        Self { from_gigabytes: 0, name: "8 GB", models: "360M to 1B", parameters: (0, 5 * BILLION / 2) },
        Self {
            from_gigabytes: 12,
            name: "16 GB",
            models: "3B to 7B",
            parameters: (5 * BILLION / 2, 10 * BILLION),
        },
        Self { from_gigabytes: 24, name: "32 GB", models: "13B", parameters: (10 * BILLION, 40 * BILLION) },
        Self {
            from_gigabytes: 48,
            name: "64 GB and more",
            models: "70B",
            parameters: (40 * BILLION, u64::MAX),
        },
    ];

    /// The tier of a machine with so many bytes of memory.
    pub fn of_memory(bytes: u64) -> Self {
        let gigabytes = bytes / BILLION;
        let [smallest, ..] = Self::ALL;
        Self::ALL.into_iter().rfind(|tier| gigabytes >= tier.from_gigabytes).unwrap_or(smallest)
    }

    /// The tier of a model with so many parameters.
    pub fn of_parameters(parameters: u64) -> Self {
        let [smallest, ..] = Self::ALL;
        let is_in = |tier: &Self| (tier.parameters.0..tier.parameters.1).contains(&parameters);
        Self::ALL.into_iter().find(is_in).unwrap_or(smallest)
    }
}

/// A model, and what it would be like on a machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Recommendation {
    /// The hub id.
    pub id: String,
    /// Its shortest alias.
    pub alias: Option<String>,
    /// `model_type`.
    pub family: Option<String>,
    /// Number of weights.
    pub parameters: u64,
    /// Bits of a weight.
    pub bits: u8,
    /// The tier it belongs to.
    pub tier: &'static str,
    /// The memory it needs.
    pub memory: MemoryEstimate,
    /// The sum of it.
    pub memory_bytes: u64,
    /// Tokens per second when writing; an estimate.
    pub tokens_per_second: f64,
    /// Whether it fits.
    pub fits: Fit,
    /// Whether Pippin runs it.
    pub supported: bool,
    /// Whether it is the one to begin with: the largest that fits, runs, and writes at least as fast as people read.
    pub is_best: bool,
}

/// The speed below which waiting for an answer is no conversation: about as fast as people read.
const READING_SPEED: f64 = 5.0;

/// The models of a registry that write text, judged for a machine: those that run here first, then the largest.
///
/// With `all`, those too that do not fit, or that Pippin does not run.
pub fn recommend(
    registry: &ModelRegistry,
    judge: &Judge<'_>,
    bandwidth: Bandwidth,
    all: bool,
) -> Vec<Recommendation> {
    let mut models: Vec<Recommendation> = registry
        .iter()
        .filter(|model| model.kinds.contains(&ModelKind::Llm) && model.default_prompt.is_some())
        .filter_map(|model| judged(model, judge, bandwidth))
        .filter(|model| all || (model.supported && model.fits != Fit::No))
        .collect();
    models.sort_by_key(|model| {
        (!model.supported, model.fits != Fit::Yes, std::cmp::Reverse(model.parameters), model.memory_bytes)
    });
    let is_candidate = |model: &&mut Recommendation| {
        model.supported && model.fits == Fit::Yes && model.tokens_per_second >= READING_SPEED
    };
    if let Some(best) = models.iter_mut().find(is_candidate) {
        best.is_best = true;
    }
    models
}

fn judged(model: &ModelConfiguration, judge: &Judge<'_>, bandwidth: Bandwidth) -> Option<Recommendation> {
    let parameters = model.parameters?;
    let memory = model.memory_need(judge.context)?;
    let active = model.active_parameters.unwrap_or(parameters) as f64 / parameters as f64;
    Some(Recommendation {
        id: model.name(),
        alias: model.aliases.iter().min_by_key(|alias| alias.len()).cloned(),
        family: model.family.clone(),
        parameters,
        bits: model.weights.as_ref()?.bits,
        tier: MemoryTier::of_parameters(parameters).name,
        memory,
        memory_bytes: memory.total(),
        tokens_per_second: memory.tokens_per_second(bandwidth.bytes_per_second, active),
        fits: judge.fit(memory.total()).unwrap_or(Fit::No),
        supported: model.family.as_deref().is_some_and(judge.is_supported),
        is_best: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECENT: Bandwidth = Bandwidth::told(60e9);

    fn recommend_for(gigabytes: u64) -> Vec<Recommendation> {
        let judge = Judge {
            is_supported: &|family| matches!(family, "llama" | "mistral" | "qwen2" | "qwen3"),
            budget: Some(gigabytes * BILLION * 8 / 10),
            total_memory: Some(gigabytes * BILLION),
            context: 4096,
        };
        recommend(ModelRegistry::shared(), &judge, DECENT, false)
    }

    #[test]
    fn tiers_are_those_of_the_machine() {
        for (gigabytes, name) in [
            (4, "8 GB"),
            (8, "8 GB"),
            (16, "16 GB"),
            (32, "32 GB"),
            (64, "64 GB and more"),
            (512, "64 GB and more"),
        ] {
            assert_eq!(MemoryTier::of_memory(gigabytes * BILLION).name, name);
        }
        for (billions, name) in
            [(0, "8 GB"), (1, "8 GB"), (3, "16 GB"), (7, "16 GB"), (13, "32 GB"), (70, "64 GB and more")]
        {
            assert_eq!(MemoryTier::of_parameters(billions * BILLION).name, name);
        }
    }

    #[test]
    fn larger_machines_get_larger_models() {
        let largest = |gigabytes| {
            recommend_for(gigabytes)
                .into_iter()
                .filter(|model| model.fits == Fit::Yes)
                .map(|model| model.parameters)
                .max()
        };
        let sizes: Vec<u64> =
            [4, 8, 16, 32, 64].into_iter().map(|size| largest(size).expect("something fits")).collect();
        assert!(sizes.is_sorted(), "{sizes:?}");
        assert!(sizes[0] >= 360_000_000 && sizes[4] >= 70 * BILLION, "{sizes:?}");
    }

    #[test]
    fn what_is_recommended_fits_and_runs() {
        for gigabytes in [1, 8, 16, 64] {
            let models = recommend_for(gigabytes);
            assert!(models.iter().filter(|model| model.is_best).count() <= 1);
            for model in models {
                assert!(model.supported && model.fits != Fit::No, "{model:?}");
                assert!(!model.is_best || model.tokens_per_second >= READING_SPEED);
            }
        }
        // 0.28 GB of weights at 60 GB/s leave nothing to wish for.
        let small = recommend_for(8)
            .into_iter()
            .find(|model| model.id.ends_with("Qwen3-0.6B-4bit"))
            .expect("it fits");
        assert!((50.0..150.0).contains(&small.tokens_per_second), "{small:?}");
    }

    #[test]
    fn everything_is_listed_on_request() {
        let judge = Judge { is_supported: &|_| false, budget: None, total_memory: None, context: 4096 };
        assert!(recommend(ModelRegistry::shared(), &judge, DECENT, false).is_empty());
        let all = recommend(ModelRegistry::shared(), &judge, DECENT, true);
        assert!(all.len() > 60 && all.iter().all(|model| !model.is_best));
    }
}
