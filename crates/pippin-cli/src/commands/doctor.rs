//! `pippin doctor`.

use pippin::loading::devices;
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
        lines += &format!("  {:<5} {mark}  {words}\n", device.as_str());
    }
    let memory = output::bytes(ModelCache::from_config(config)?.usage().budget);
    let cache =
        config.hub_cache().map_or_else(|error| error.to_string(), |cache| cache.root().display().to_string());
    lines += &format!("\nmemory for models: {memory}\ncache of models:   {cache}\n");
    Ok(output::data(&lines)?)
}
