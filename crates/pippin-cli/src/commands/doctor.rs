//! `pippin doctor`.

use pippin::loading::{Device, device_surroundings, devices};
use pippin::{EngineConfig, ModelCache};

use crate::error::Result;
use crate::output;

/// Says what each device is, or why it cannot be used, and where things are kept.
pub(super) fn run(config: &EngineConfig) -> Result<()> {
    let mut lines = format!("pippin {}\n\ndevices:\n", env!("CARGO_PKG_VERSION"));
    for (device, found) in devices() {
        let (mark, words) = match found {
            Ok(words) => ("yes", words),
            Err(problem) => ("no ", problem),
        };
        lines += &format!("  {device:<6} {mark}  {words}\n");
    }
    let chosen = match Device::automatic() {
        (device, None) => device.to_string(),
        (device, Some(reason)) => format!("{device}: {reason}"),
    };
    lines += &format!("  {:<6} is   {chosen}\n", Device::Auto.as_str());
    let surroundings = device_surroundings();
    if !surroundings.is_empty() {
        lines += "\nfor NVIDIA GPUs:\n";
    }
    for (name, words) in surroundings {
        lines += &format!("  {name:<8} {words}\n");
    }
    let memory = output::bytes(ModelCache::from_config(config)?.usage().budget);
    let memory = match config.device.memory() {
        Some(found) => format!("{memory} on {}", found.name),
        None => memory,
    };
    let cache =
        config.hub_cache().map_or_else(|error| error.to_string(), |cache| cache.root().display().to_string());
    lines += &format!("\nmemory for models: {memory}\ncache of models:   {cache}\n");
    Ok(output::data(&lines)?)
}
