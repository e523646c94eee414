//! `pippin recommend`: models that suit this machine.

use std::fmt::Write as _;

use pippin::EngineError;
use pippin::hub::{Bandwidth, Fit, Hardware, MemoryTier, ModelRegistry, Recommendation};
use serde::Serialize;

use crate::error::Result;
use crate::machine;
use crate::output;
use crate::settings::RecommendSettings;

#[derive(Serialize)]
struct Advice {
    hardware: Hardware,
    /// What computes: the estimates are for it.
    device: String,
    /// The GPU that it is, if it is one.
    gpu: Option<String>,
    bandwidth: Bandwidth,
    /// Bytes that models may take.
    budget: Option<u64>,
    context: u64,
    tier: MemoryTier,
    tiers: [MemoryTier; 4],
    models: Vec<Recommendation>,
}

/// Looks at the machine, and prints what suits it.
pub(super) fn run(settings: &RecommendSettings) -> Result<()> {
    let registry = ModelRegistry::local().map_err(EngineError::from)?;
    let hardware = Hardware::detect();
    let device = settings.config.device.resolved();
    let gpu = device.memory();
    let bandwidth = match gpu.as_ref().and_then(|gpu| gpu.bytes_per_second) {
        Some(bytes_per_second) => Bandwidth::told(bytes_per_second),
        None => pippin::hub::memory_bandwidth(&hardware, settings.measure),
    };
    let judge = machine::judge(&hardware, gpu.as_ref(), &settings.config, settings.context);
    let models = pippin::hub::recommend(registry, &judge, bandwidth, settings.all);
    let advice = Advice {
        device: device.to_string(),
        gpu: gpu.map(|gpu| gpu.name),
        bandwidth,
        budget: judge.budget,
        context: settings.context,
        tier: MemoryTier::of_memory(judge.total_memory.unwrap_or(0)),
        tiers: MemoryTier::ALL,
        models,
        hardware,
    };
    if settings.json {
        output::data(&format!("{}\n", output::json_pretty(&advice)))?;
        return Ok(());
    }
    output::data(&advice.to_text())?;
    if let Some(best) = advice.models.iter().find(|model| model.is_best) {
        output::hint(&format!("begin with: pippin run {}", best.alias.as_ref().unwrap_or(&best.id)));
    }
    if advice.gpu.is_none() && (!advice.hardware.gpus.is_empty() || advice.hardware.is_apple_silicon) {
        output::note("these are estimates for the processor; the GPU is not used (pippin doctor says why)");
    }
    Ok(())
}

impl Advice {
    fn to_text(&self) -> String {
        let mut text = format!("{}\n", machine::describe(&self.hardware));
        let how = match (self.bandwidth.is_told, self.bandwidth.is_remembered) {
            (true, _) => "as it is made",
            (false, true) => "measured earlier",
            (false, false) => "measured now",
        };
        let how = if cfg!(debug_assertions) && !self.bandwidth.is_told {
            format!("{how}, by a build without optimization")
        } else {
            how.to_owned()
        };
        let what = self.gpu.as_ref().map(|gpu| format!("{} ({}) ", self.device, gpu)).unwrap_or_default();
        let _ = writeln!(text, "{what}reads {:.1} GB/s ({how})", self.bandwidth.bytes_per_second / 1e9);
        if let Some(budget) = self.budget {
            let _ = writeln!(
                text,
                "models may take {}, with a context of {} tokens",
                output::bytes(budget),
                self.context
            );
        }
        let _ = writeln!(text, "for a machine of {}: models of {}\n", self.tier.name, self.tier.models);
        if self.models.is_empty() {
            text.push_str("no model of the registry fits\n");
            return text;
        }
        let header = ["MODEL", "ALIAS", "PARAMS", "BITS", "MEMORY", "TOKENS/S", "FITS", "RUNS", "FOR"];
        let right = [false, false, true, true, true, true, false, false, false];
        let row = |model: &Recommendation| {
            let mark = if model.is_best { " *" } else { "" };
            let rough = if model.memory.is_rough { "~" } else { "" };
            [
                format!("{}{mark}", model.id),
                model.alias.clone().unwrap_or_default(),
                machine::parameters(model.parameters),
                model.bits.to_string(),
                format!("{rough}{}", output::bytes(model.memory_bytes)),
                rate(model.tokens_per_second),
                model.fits.as_str().to_owned(),
                if model.supported { "yes" } else { "no" }.to_owned(),
                model.tier.to_owned(),
            ]
        };
        text.push_str(&machine::table(header, right, self.models.iter().map(row).collect()));
        text.push_str("\nMEMORY and TOKENS/S are estimates: weights, context and working memory; 80 % of the bandwidth.\n");
        if self.models.iter().any(|model| model.fits == Fit::Tight) {
            text.push_str("tight: it fits when other programs make room\n");
        }
        text
    }
}

fn rate(tokens_per_second: f64) -> String {
    if tokens_per_second >= 10.0 {
        format!("{tokens_per_second:.0}")
    } else {
        format!("{tokens_per_second:.1}")
    }
}
