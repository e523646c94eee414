//! `pippin ps`: which models are loaded.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use pippin::monitor::{ModelPerformance, RunningModel, RunningProcess};
use serde::Serialize;

use crate::args::PsArgs;
use crate::error::{CliError, Result};
use crate::output::{self, visible};

/// Prints the models of all processes.
pub(super) fn run(args: &PsArgs) -> Result<()> {
    let processes = pippin::monitor::running().map_err(|error| {
        CliError::input(format!("cannot read which processes have published their models: {error}"))
    })?;
    let text = if args.json {
        format!("{}\n", output::json_pretty(&rows(&processes)))
    } else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        table(&processes, now) + &if args.stats { numbers(&processes) } else { String::new() }
    };
    output::data(&text)?;
    Ok(())
}

/// A model with its process. The field names are part of the interface.
#[derive(Serialize)]
struct Row<'a> {
    pid: u32,
    #[serde(flatten)]
    model: &'a RunningModel,
}

fn rows(processes: &[RunningProcess]) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for process in processes {
        rows.extend(process.models.iter().map(|model| Row { pid: process.pid, model }));
    }
    rows
}

const HEADER: [&str; 9] =
    ["NAME", "ID", "SIZE", "DEVICE", "CONTEXT", "SINCE", "UNTIL", "REQUESTS", "TOKENS/S"];

fn table(processes: &[RunningProcess], now: u64) -> String {
    let mut cells: Vec<[String; 9]> = vec![HEADER.map(str::to_owned)];
    cells.extend(processes.iter().flat_map(|process| &process.models).map(|model| {
        [
            one_line(&model.model),
            one_line(&model.id),
            output::bytes(model.bytes),
            one_line(&model.device),
            model.context.to_string(),
            format!("{} ago", time(now.saturating_sub(model.since))),
            match model.until {
                _ if model.in_use => "in use".to_owned(),
                Some(until) => format!("in {}", time(until.saturating_sub(now))),
                None => "forever".to_owned(),
            },
            performance(model).map_or(0, |numbers| numbers.requests.total).to_string(),
            performance(model)
                .and_then(|numbers| numbers.decode_tokens_per_second.last)
                .map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
        ]
    }));
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &cells {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn performance(model: &RunningModel) -> Option<&ModelPerformance> {
    model.performance.as_ref()
}

/// All numbers of each model.
fn numbers(processes: &[RunningProcess]) -> String {
    let mut text = String::new();
    for (process, model) in
        processes.iter().flat_map(|process| process.models.iter().map(move |m| (process, m)))
    {
        let numbers = performance(model).map_or_else(String::new, output::performance);
        let _ = write!(text, "\n{} in process {}:\n{numbers}", one_line(&model.model), process.pid);
    }
    text
}

/// What another process has written, as one cell.
fn one_line(text: &str) -> String {
    visible(text).replace(['\n', '\t'], " ")
}

/// A time in its largest unit.
fn time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes() -> Vec<RunningProcess> {
        serde_json::from_value(serde_json::json!([{
            "version": 2,
            "pid": 7,
            "models": [
                {
                    "model": "a/b\u{1b}[2J\n", "id": "abcdef012345", "bytes": 2_500_000_000_u64, "device": "CPU",
                    "context": 4096, "since": 1000, "until": null, "in_use": true,
                    "performance": {
                        "model": "a/b", "loads": 1, "load_s": 0.5, "load_memory": null,
                        "requests": {"total": 3, "stop": 2, "length": 1, "cancelled": 0, "failed": 0, "running": 1},
                        "tokens": {"prompt": 30, "cached": 10, "generated": 60},
                        "time_to_first_token_s": {"last": 0.25, "mean": 0.5, "p50": 0.25, "p95": 1.0},
                        "prefill_tokens_per_second": {"last": 99.0, "mean": 99.0, "p50": 99.0, "p95": 99.0},
                        "decode_tokens_per_second": {"last": 12.34, "mean": 12.0, "p50": 12.0, "p95": 13.0},
                        "peak_memory_bytes": 3_000_000_000_u64, "device_utilization": 0.75,
                    },
                },
                {
                    "model": "pippin-nano", "id": "0123456789ab", "bytes": 20_000_000, "device": "CPU",
                    "context": 2048, "since": 0, "until": 1400, "in_use": false, "performance": null,
                },
            ],
        }]))
        .expect("valid")
    }

    #[test]
    fn tables_are_aligned() {
        let table = table(&processes(), 1100);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3, "{table}");
        let column = |line: &str, text: &str| line.find(text).map(|at| line[..at].chars().count());
        assert_eq!(column(lines[0], "SINCE"), column(lines[1], "1 min ago"), "{table}");
        assert_eq!(column(lines[0], "UNTIL"), column(lines[2], "in 5 min"), "{table}");
        assert!(lines[1].contains("a/b␛[2J") && lines[1].ends_with("in use    3         12.3"), "{table}");
        assert!(lines[2].contains("20.0 MB") && lines[2].ends_with('-'), "{table}");
    }

    #[test]
    fn all_numbers_are_shown_on_request() {
        let text = numbers(&processes());
        for part in [
            "a/b␛[2J  in process 7:",
            "3, 1 cut, 1 running",
            "30 read, 10 of them cached; 60 written",
            "0.500 s mean, 0.250 median",
            "99.0 tokens/s mean",
            "loading        0.500 s",
            "peak memory    3.0 GB",
            "75 % busy",
            "pippin-nano in process 7:",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
    }

    #[test]
    fn times_are_in_their_largest_unit() {
        for (seconds, text) in [(0, "0 s"), (61, "1 min"), (7200, "2 h"), (172_800, "2 days")] {
            assert_eq!(time(seconds), text);
        }
    }
}
