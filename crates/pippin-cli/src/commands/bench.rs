//! `pippin bench`: how fast a model is.

use std::fmt::Write as _;

use pippin::GenerateParameters;
use pippin::loading::Numerics;
use pippin::measure::{Demand, MachineLimits, Measurement, Workload};
use serde::Serialize;

use crate::args::BenchFormat;
use crate::error::Result;
use crate::model::{self, Download, Loaded};
use crate::output;
use crate::settings::{BenchSettings, GUESSING_PROMPT, Guesses};

/// Measures every workload and prints the results.
pub(super) fn run(settings: &BenchSettings, is_verbose: bool) -> Result<()> {
    let limits = MachineLimits::measure(&settings.load, settings.machine)?;
    if settings.machine {
        output::data(&machine(&limits, settings.format))?;
        return Ok(());
    }
    let model = model::find(&settings.model, &settings.config, Download::Never)?;
    let mut load = settings.load.clone();
    if let Some(draft) = &settings.draft_model {
        load.draft_model = Some(model::locate(draft, &settings.config, Download::Never)?.directory);
    }
    let loaded = model::keep(&model, &load, &settings.config, is_verbose)?;
    let mut rows = Vec::with_capacity(settings.workloads.len());
    for workload in &settings.workloads {
        if is_verbose {
            output::note(&format!(
                "{}: {} repetitions after one to warm up",
                workload.name(),
                settings.repetitions
            ));
        }
        let measurement = loaded.container.measure(*workload, settings.repetitions)?;
        rows.push(Row::new(&loaded, settings, &measurement, &limits));
    }
    let answers = settings.workloads.iter().filter(|workload| matches!(workload, Workload::Decode { .. }));
    for workload in answers {
        for guesses in &settings.guesses {
            let (measurement, guessed) = guessing(&loaded, *workload, *guesses, settings.repetitions)?;
            let row = Row::new(&loaded, settings, &measurement, &limits);
            rows.push(Row { test: guesses.name(workload), guessed: Some(guessed), ..row });
        }
    }
    let text = match settings.format {
        BenchFormat::Table => table(&rows) + &roofline(&rows, &limits),
        BenchFormat::Json => format!("{}\n", output::json_pretty(&rows)),
        BenchFormat::Csv => csv(&rows),
    };
    output::data(&text)?;
    Ok(())
}

/// What is continued where tokens are guessed ahead: a text that repeats itself, as code and tables do.
const REPEATING: &str = "The days of the week:\n1. Monday is the first day of the week.\n2. Tuesday is the second day of the week.\n\
    3. Wednesday is the third day of the week.\n4. Thursday is the fourth day of the week.\n5. Friday is the fifth day of the week.\n\
    6. Saturday is the sixth day of the week.\n7. Sunday is the seventh day of the week.\n\nThe same once more:\n\
    1. Monday is the first day of the week.\n2. Tuesday is";

/// Times answers whose tokens are guessed ahead, from the first token to the last, and counts the guesses. A first one warms up.
fn guessing(
    loaded: &Loaded,
    workload: Workload,
    guesses: Guesses,
    repetitions: usize,
) -> Result<(Measurement, Guessed)> {
    let container = &loaded.container;
    let mut prompt = container.encode(REPEATING)?;
    prompt.truncate(GUESSING_PROMPT);
    let tokens = workload.tokens();
    let parameters = GenerateParameters { ignore_eos: true, ..GenerateParameters::greedy() };
    // The first token is the prompt's.
    let parameters = parameters.with_max_tokens(tokens + 1);
    let parameters = match guesses {
        Guesses::Lookup(count) => GenerateParameters { prompt_lookup: count, draft_tokens: 0, ..parameters },
        Guesses::Draft(count) => GenerateParameters { prompt_lookup: 0, draft_tokens: count, ..parameters },
    };
    let (mut samples, mut guessed) = (Vec::with_capacity(repetitions), Guessed { drafted: 0, right: 0 });
    for round in 0..=repetitions {
        let (_, info) = container.generate(prompt.clone(), &parameters)?.collect_text()?;
        if let (Some(info), 1..) = (info, round) {
            // An answer that ended before its time counts as what it was.
            let made = info.generated_tokens.saturating_sub(1).max(1);
            samples.push(info.generate_time.mul_f64(tokens as f64 / made as f64));
            guessed.drafted += info.drafted_tokens;
            guessed.right += info.accepted_tokens;
        }
    }
    Ok((Measurement::new(workload, samples), guessed))
}

/// Tokens that were guessed ahead, over all repetitions.
#[derive(Clone, Copy, Debug, Serialize)]
struct Guessed {
    drafted: usize,
    right: usize,
}

impl Guesses {
    fn name(self, workload: &Workload) -> String {
        let kind = if matches!(self, Self::Lookup(_)) { "lookup" } else { "draft" };
        format!("{}+{kind}", workload.name())
    }
}

/// What the machine can do at most.
fn machine(limits: &MachineLimits, format: BenchFormat) -> String {
    let names = ["bytes_per_second", "float_operations_per_second", "byte_operations_per_second"];
    let values =
        [limits.bytes_per_second, limits.float_operations_per_second, limits.byte_operations_per_second];
    let rate = |value: f64| {
        if value.is_finite() { format!("{:.0} Gop/s", value / 1e9) } else { "unknown".to_owned() }
    };
    match format {
        BenchFormat::Table => format!(
            "memory reads     {:.1} GB/s\nf32 products     {}\n8-bit products   {}\n",
            values[0] / 1e9,
            rate(values[1]),
            rate(values[2])
        ),
        BenchFormat::Json => {
            let object: serde_json::Map<_, _> =
                names.iter().zip(values).map(|(name, value)| ((*name).to_owned(), value.into())).collect();
            format!("{}\n", output::json_pretty(&object))
        }
        BenchFormat::Csv => {
            format!("{}\n{:.0},{:.0},{:.0}\n", names.join(","), values[0], values[1], values[2])
        }
    }
}

/// A line for each test: how near it is to what the machine can do.
fn roofline(rows: &[Row], limits: &MachineLimits) -> String {
    let mut text = String::from("\n");
    for row in rows {
        if let Some(Guessed { drafted, right }) = row.guessed {
            let _ = writeln!(text, "{}: {drafted} tokens guessed ahead, {right} of them right", row.test);
            continue;
        }
        // A test is held up by what it asks more of.
        let _ = if row.bandwidth_share > 1.0 && row.bandwidth_share >= row.peak_share {
            writeln!(
                text,
                "{}: {} read per token, {:.1} GB/s: more than the {:.1} GB/s that this machine reads from memory, so the \
                 weights come from the processor's caches (or the memory was busy when it was measured: pippin bench \
                 --machine)",
                row.test,
                output::bytes(row.bytes_per_token as u64),
                row.bytes_per_second / 1e9,
                limits.bytes_per_second / 1e9,
            )
        } else if row.bandwidth_share >= row.peak_share {
            writeln!(
                text,
                "{}: {} read per token, {:.1} GB/s, {:.0} % of the {:.1} GB/s this machine reads",
                row.test,
                output::bytes(row.bytes_per_token as u64),
                row.bytes_per_second / 1e9,
                100.0 * row.bandwidth_share,
                limits.bytes_per_second / 1e9,
            )
        } else {
            writeln!(
                text,
                "{}: {:.2} Gop per token, {:.0} Gop/s, {:.0} % of this machine's peak",
                row.test,
                row.operations_per_token / 1e9,
                row.operations_per_second / 1e9,
                100.0 * row.peak_share,
            )
        };
    }
    text
}

/// One test's result. The field names are part of the interface.
#[derive(Serialize)]
struct Row {
    test: String,
    kind: &'static str,
    tokens: usize,
    repetitions: usize,
    tokens_per_second_mean: f64,
    tokens_per_second_stddev: f64,
    /// Tokens per second of each repetition.
    samples: Vec<f64>,
    /// Bytes read from memory and operations done for a token, on average; what that makes in a second; and which share
    /// of this machine's measured limits that is.
    bytes_per_token: f64,
    bytes_per_second: f64,
    bandwidth_share: f64,
    operations_per_token: f64,
    operations_per_second: f64,
    peak_share: f64,
    /// Where tokens were guessed ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    guessed: Option<Guessed>,
    model: String,
    family: &'static str,
    quantization: Option<String>,
    parameters: u64,
    weight_bytes: u64,
    device: String,
    threads: usize,
    numerics: &'static str,
    version: &'static str,
    commit: Option<&'static str>,
}

impl Row {
    fn new(
        loaded: &Loaded,
        settings: &BenchSettings,
        measurement: &Measurement,
        limits: &MachineLimits,
    ) -> Self {
        let (container, workload) = (&loaded.container, measurement.workload);
        let info = container.info();
        let demand = Demand::new(info, workload, &settings.load);
        let mean = measurement.mean();
        let peak = limits.operations_per_second(settings.load.numerics);
        let rate = |sample: &std::time::Duration| workload.tokens() as f64 / sample.as_secs_f64().max(1e-9);
        Self {
            test: workload.name(),
            kind: match workload {
                Workload::Prefill { .. } => "prefill",
                _ => "decode",
            },
            tokens: workload.tokens(),
            repetitions: measurement.samples.len(),
            tokens_per_second_mean: mean,
            tokens_per_second_stddev: measurement.deviation(),
            samples: measurement.samples.iter().map(rate).collect(),
            bytes_per_token: demand.bytes,
            bytes_per_second: mean * demand.bytes,
            bandwidth_share: mean * demand.bytes / limits.bytes_per_second.max(1.0),
            operations_per_token: demand.operations,
            operations_per_second: mean * demand.operations,
            peak_share: mean * demand.operations / peak.max(1.0),
            guessed: None,
            model: container.name(),
            family: info.family,
            quantization: info.quantization.as_ref().map(ToString::to_string),
            parameters: info.parameters,
            weight_bytes: info.weight_bytes,
            device: container.device().to_owned(),
            threads: settings
                .load
                .threads
                .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
            numerics: match settings.load.numerics {
                Numerics::Exact => "exact",
                _ => "fast",
            },
            version: env!("CARGO_PKG_VERSION"),
            // Set by whoever builds releases; a build script that asked git would rebuild at every commit.
            commit: option_env!("PIPPIN_COMMIT"),
        }
    }
}

const HEADER: [&str; 6] = ["model", "size", "parameters", "device", "test", "tokens/s"];

fn table(rows: &[Row]) -> String {
    let mut cells: Vec<[String; 6]> = vec![HEADER.map(str::to_owned)];
    cells.extend(rows.iter().map(|row| {
        [
            output::visible(&row.model),
            output::bytes(row.weight_bytes),
            output::count(row.parameters),
            output::visible(&row.device),
            row.test.clone(),
            format!("{:.2} ± {:.2}", row.tokens_per_second_mean, row.tokens_per_second_stddev),
        ]
    }));
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for (index, row) in cells.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            // Numbers stand to the right.
            let _ = if column == 5 {
                write!(text, "| {cell:>width$} ")
            } else {
                write!(text, "| {cell:width$} ")
            };
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let _ = write!(text, "|{}{}", "-".repeat(width + 1), if column == 5 { ":" } else { "-" });
            }
            text.push_str("|\n");
        }
    }
    text
}

fn csv(rows: &[Row]) -> String {
    let mut text = String::from(
        "test,kind,tokens,repetitions,tokens_per_second_mean,tokens_per_second_stddev,bytes_per_token,\
         bandwidth_share,operations_per_token,peak_share,model,family,quantization,\
         parameters,weight_bytes,device,threads,numerics,version,commit\n",
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{},{},{},{},{:.4},{:.4},{:.0},{:.4},{:.0},{:.4},{},{},{},{},{},{},{},{},{},{}",
            row.test,
            row.kind,
            row.tokens,
            row.repetitions,
            row.tokens_per_second_mean,
            row.tokens_per_second_stddev,
            row.bytes_per_token,
            row.bandwidth_share,
            row.operations_per_token,
            row.peak_share,
            quoted(&row.model),
            row.family,
            quoted(row.quantization.as_deref().unwrap_or_default()),
            row.parameters,
            row.weight_bytes,
            quoted(&row.device),
            row.threads,
            row.numerics,
            row.version,
            row.commit.unwrap_or_default(),
        );
    }
    text
}

/// A field of CSV: in quotes where it needs them.
fn quoted(field: &str) -> String {
    let field = output::visible(field);
    if field.contains(['"', ',', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            test: "pp512".to_owned(),
            kind: "prefill",
            tokens: 512,
            repetitions: 3,
            tokens_per_second_mean: 1234.5678,
            tokens_per_second_stddev: 0.5,
            samples: vec![1234.0],
            bytes_per_token: 1e6,
            bytes_per_second: 1e9,
            bandwidth_share: 0.5,
            operations_per_token: 1e7,
            operations_per_second: 1e10,
            peak_share: 0.6,
            guessed: None,
            model: "a \"model\", mine".to_owned(),
            family: "llama",
            quantization: Some("4-bit affine, group 64".to_owned()),
            parameters: 7_000_000,
            weight_bytes: 4_000_000,
            device: "CPU, AVX2, 2 threads".to_owned(),
            threads: 2,
            numerics: "fast",
            version: "1.2.3",
            commit: None,
        }
    }

    #[test]
    fn tables_are_aligned() {
        let table = table(&[row()]);
        let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 3);
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
        assert!(table.contains("| 1234.57 ± 0.50 |"), "{table}");
    }

    #[test]
    fn csv_has_as_many_fields_as_its_header() {
        let text = csv(&[row()]);
        let (header, line) = text.split_once('\n').expect("two lines");
        let (mut fields, mut is_quoted) = (1, false);
        for character in line.chars() {
            match character {
                '"' => is_quoted = !is_quoted,
                ',' if !is_quoted => fields += 1,
                _ => {}
            }
        }
        assert_eq!(fields, header.split(',').count());
        assert!(line.contains("\"a \"\"model\"\", mine\""), "{line}");
    }
}
