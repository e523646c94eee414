//! The machine, and what the commands that look for models ask about it.

use std::time::Duration;

use pippin::hub::{Hardware, HubClient, Judge, Patience};
use pippin::loading::DeviceMemory;
use pippin::{EngineConfig, EngineError};

use crate::error::Result;
use crate::output;

/// The hub, for questions that somebody waits for: a server that does not answer is not asked for minutes.
pub(crate) fn hub(config: &EngineConfig) -> Result<HubClient> {
    let options = config.hub_options().map_err(EngineError::from)?;
    let patience = Patience::default()
        .with_stall(Duration::from_secs(20))
        .with_backoff(Duration::from_millis(300))
        .with_retries(2);
    Ok(HubClient::new(options.with_patience(patience)).map_err(EngineError::from)?)
}

/// What decides whether a model is of use on this machine, or on a GPU of it.
pub(crate) fn judge(
    hardware: &Hardware,
    gpu: Option<&DeviceMemory>,
    config: &EngineConfig,
    context: u64,
) -> Judge<'static> {
    let (available, total_memory) = match gpu {
        Some(gpu) => (Some(gpu.available), Some(gpu.total)),
        None => (hardware.available_memory, hardware.total_memory),
    };
    Judge {
        is_supported: &pippin::models::is_supported,
        budget: available.map(|available| config.memory_budget.bytes(available)),
        total_memory,
        context,
    }
}

/// The machine in a line.
pub(crate) fn describe(hardware: &Hardware) -> String {
    let memory = match (hardware.total_memory, hardware.available_memory) {
        (Some(total), Some(available)) => {
            let limit = if hardware.memory_limit.is_some() { " (the container's limit)" } else { "" };
            format!("{} of memory{limit}, {} available", output::bytes(total), output::bytes(available))
        }
        _ => "memory unknown".to_owned(),
    };
    let cores = if hardware.cores == 1 { "1 core".to_owned() } else { format!("{} cores", hardware.cores) };
    let sets = match hardware.instruction_sets.as_slice() {
        [] => String::new(),
        sets => format!(" ({})", sets.join(", ")),
    };
    let mut text = format!("{memory}; {cores}{sets}");
    for gpu in &hardware.gpus {
        let memory = gpu.total_memory.map(|bytes| format!(", {}", output::bytes(bytes))).unwrap_or_default();
        text.push_str(&format!("; {}{memory}", gpu.name));
    }
    if hardware.is_apple_silicon {
        text.push_str("; Apple GPU");
    }
    text
}

/// Columns of text, the numbers of them to the right.
pub(crate) fn table<const N: usize>(header: [&str; N], right: [bool; N], rows: Vec<[String; N]>) -> String {
    let mut all = vec![header.map(str::to_owned)];
    all.extend(rows.into_iter().map(|row| row.map(|cell| output::visible(&cell).replace('\n', "␊"))));
    let widths: [usize; N] =
        std::array::from_fn(|column| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in &all {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .zip(right)
            .map(
                |((cell, width), right)| {
                    if right { format!("{cell:>width$}") } else { format!("{cell:width$}") }
                },
            )
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A number of parameters, shortly: 596M, 4.0B.
pub(crate) fn parameters(count: u64) -> String {
    match count {
        0..1_000_000 => count.to_string(),
        1_000_000..999_500_000 => format!("{:.0}M", count as f64 / 1e6),
        1_000_000_000_000.. => format!("{:.1}T", count as f64 / 1e12),
        99_950_000_000.. => format!("{:.0}B", count as f64 / 1e9),
        _ => format!("{:.1}B", count as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_judged_by_the_memory_that_they_would_be_in() {
        let config = EngineConfig::default();
        let (hardware, gpu) =
            (Hardware::detect(), DeviceMemory::new("a GPU", 70_000_000_000, 80_000_000_000));
        let on_gpu = judge(&hardware, Some(&gpu), &config, 4096);
        assert_eq!((on_gpu.budget, on_gpu.total_memory), (Some(56_000_000_000), Some(80_000_000_000)));
        let on_host = judge(&hardware, None, &config, 4096);
        assert_eq!(on_host.total_memory, hardware.total_memory);
    }

    #[test]
    fn parameters_are_short() {
        for (count, text) in [
            (12, "12"),
            (596_049_920, "596M"),
            (999_700_000, "1.0B"),
            (4_022_000_000, "4.0B"),
            (671_026_000_000, "671B"),
            (2_000_000_000_000, "2.0T"),
        ] {
            assert_eq!(parameters(count), text);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let text = table(["a", "bb"], [false, true], vec![["xyz".to_owned(), "1".to_owned()]]);
        assert_eq!(text, "a    bb\nxyz   1\n");
    }
}
