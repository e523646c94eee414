//! Measures what the default numerics cost against the exact ones: the tables of `docs/numerics.md`.
//!
//! ```console
//! $ cargo run --release -p pippin-engine --example numerics -- TEXT [MODEL_FOLDER]...
//! ```
//!
//! For each model folder: perplexity on the text, and the divergence of the default's distributions from the exact
//! ones', over windows of 512 tokens. Then the divergence alone for random models of three families.

use std::{path::Path, sync::Arc};

use pippin_cpu::CpuBackend;
use pippin_models::{CachePlan, Config, LanguageModel, Output, load_from, testing};
use pippin_tensor::{Batch, Dtype, Input, KvFormat, LogitRows, Numerics, SequenceRows, Want};
use pippin_text::Tokenizer;

const WINDOW: usize = 512;
const PAGE_SIZE: usize = 32;

type Error = Box<dyn std::error::Error>;

/// How a model computes: its numerics, and how its KV cache stores numbers.
#[derive(Clone, Copy)]
struct Variant {
    name: &'static str,
    numerics: Numerics,
    kv: KvFormat,
}

const EXACT: Variant = Variant { name: "exact", numerics: Numerics::Exact, kv: KvFormat::F32 };
const VARIANTS: [Variant; 6] = [
    Variant { name: "16-bit KV cache (f16)", numerics: Numerics::Exact, kv: KvFormat::F16 },
    Variant { name: "16-bit KV cache (bf16)", numerics: Numerics::Exact, kv: KvFormat::Bf16 },
    Variant { name: "8-bit KV cache", numerics: Numerics::Exact, kv: KvFormat::Int8 },
    Variant { name: "8-bit activations", numerics: Numerics::Fast, kv: KvFormat::F32 },
    Variant { name: "8-bit activations, f16 KV cache", numerics: Numerics::Fast, kv: KvFormat::F16 },
    Variant { name: "8-bit activations, 8-bit KV cache", numerics: Numerics::Fast, kv: KvFormat::Int8 },
];

/// Natural logarithms of the probabilities after each token of a window, `[tokens, vocabulary]`.
fn distributions(
    model: &mut dyn LanguageModel,
    kv: KvFormat,
    tokens: &[u32],
) -> Result<Vec<Vec<f64>>, Error> {
    let groups = model.info().cache.groups.len();
    let pages = vec![WINDOW / PAGE_SIZE; groups];
    model.allocate(&CachePlan { page_size: PAGE_SIZE, format: kv, pages, slots: 1 })?;
    let pages: Vec<u32> = (0..(WINDOW / PAGE_SIZE) as u32).collect();
    let pages = vec![&pages[..]; groups];
    let mut batch = Batch::new(model.limits());
    let want = Want::Logits(LogitRows::All);
    batch.push(SequenceRows::text(0, Input::Tokens(tokens), 0, &pages, want))?;
    let submitted = model.submit(batch)?;
    let Some(Output::Logits(logits)) = model.finish(submitted.id)?.pop() else {
        return Err("the model has returned no logits".into());
    };
    Ok((0..logits.rows)
        .map(|row| {
            let row: Vec<f64> = logits.row(row).iter().map(|v| f64::from(*v)).collect();
            let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum = max + row.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
            row.iter().map(|v| v - sum).collect()
        })
        .collect())
}

#[derive(Default)]
struct Totals {
    positions: usize,
    divergence: f64,
    largest: f64,
    same_choice: usize,
    /// Sum of the true tokens' log-probabilities.
    likelihood: f64,
}

fn argmax(row: &[f64]) -> usize {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0)
}

/// Compares every variant with the exact model, window by window.
fn compare(
    load: &dyn Fn(Numerics) -> Result<Box<dyn LanguageModel>, Error>,
    windows: &[&[u32]],
) -> Result<(f64, Vec<Totals>), Error> {
    let mut exact_model = load(EXACT.numerics)?;
    let mut models =
        VARIANTS.map(|variant| load(variant.numerics)).into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut exact_likelihood = 0.0;
    let mut totals: Vec<Totals> = VARIANTS.iter().map(|_| Totals::default()).collect();
    for window in windows {
        let exact = distributions(exact_model.as_mut(), EXACT.kv, window)?;
        let next = |row: usize| window.get(row + 1).map(|token| *token as usize);
        exact_likelihood += exact.iter().enumerate().filter_map(|(i, p)| Some(p[next(i)?])).sum::<f64>();
        for ((variant, model), totals) in VARIANTS.iter().zip(&mut models).zip(&mut totals) {
            let other = distributions(model.as_mut(), variant.kv, window)?;
            for (row, (p, q)) in exact.iter().zip(&other).enumerate() {
                let divergence: f64 = p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum();
                totals.divergence += divergence;
                totals.largest = totals.largest.max(divergence);
                totals.same_choice += usize::from(argmax(p) == argmax(q));
                totals.positions += 1;
                totals.likelihood += next(row).map_or(0.0, |token| q[token]);
            }
        }
    }
    Ok((exact_likelihood, totals))
}

fn report(name: &str, windows: &[&[u32]], exact: f64, totals: &[Totals], is_text: bool) {
    let predicted: usize = windows.iter().map(|window| window.len() - 1).sum();
    let perplexity = |likelihood: f64| match is_text {
        true => format!("{:.4}", (-likelihood / predicted as f64).exp()),
        false => "-".to_owned(),
    };
    println!("| {name} | {} | {} | - | - | - |", EXACT.name, perplexity(exact));
    for (variant, totals) in VARIANTS.iter().zip(totals) {
        let positions = totals.positions as f64;
        println!(
            "| {name} | {} | {} | {:.1e} | {:.1e} | {:.2} % |",
            variant.name,
            perplexity(totals.likelihood),
            totals.divergence / positions,
            totals.largest,
            100.0 * totals.same_choice as f64 / positions,
        );
    }
}

/// A random model of some size: 4-bit weights, a vocabulary large enough for the choice to be a close one.
fn random_config(model_type: &str) -> serde_json::Value {
    serde_json::json!({
        "model_type": model_type, "vocab_size": 2048, "hidden_size": 512, "intermediate_size": 1536,
        "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 2048, "tie_word_embeddings": true,
        "quantization": {"group_size": 64, "bits": 4},
    })
}

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let text = std::fs::read_to_string(arguments.next().ok_or("usage: numerics TEXT [MODEL_FOLDER]...")?)?;
    println!("| model | numerics | perplexity | mean KL | largest KL | same first choice |");
    println!("|---|---|---|---|---|---|");
    for folder in arguments {
        let folder = Path::new(&folder);
        // A sample spread over the whole text.
        let tokens = Tokenizer::from_dir(folder)?.encode(&text, false)?;
        let all: Vec<&[u32]> = tokens.chunks_exact(WINDOW).collect();
        let windows: Vec<&[u32]> = all.iter().copied().step_by((all.len() / 40).max(1)).collect();
        let load = |numerics| Ok(pippin_models::load(folder, Arc::new(CpuBackend::new(numerics)))?);
        let (exact, totals) = compare(&load, &windows)?;
        let name =
            folder.file_name().map_or_else(|| folder.display().to_string(), |n| n.to_string_lossy().into());
        report(&name, &windows, exact, &totals, true);
    }
    for model_type in ["llama", "qwen2", "qwen3"] {
        let config = Config::new(random_config(model_type))?;
        let checkpoint = testing::checkpoint(&config, Dtype::F32, 1)?;
        let tokens: Vec<u32> =
            testing::stream(2, "tokens").map(|bits| (bits % 2048) as u32).take(4 * WINDOW).collect();
        let windows: Vec<&[u32]> = tokens.chunks_exact(WINDOW).collect();
        let load = |numerics| Ok(load_from(&config, &checkpoint, Arc::new(CpuBackend::new(numerics)))?);
        let (exact, totals) = compare(&load, &windows)?;
        report(&format!("random {model_type}"), &windows, exact, &totals, false);
    }
    Ok(())
}
