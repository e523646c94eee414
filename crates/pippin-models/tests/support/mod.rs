//! The golden models: their files, a model that is run step by step, and what is asked of it.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pippin_cpu::CpuBackend;
use pippin_cuda::CudaBackend;
use pippin_models::{CachePlan, Config, LanguageModel, Output, SlotEdit, load_from, testing};
use pippin_tensor::{
    Backend, Batch, Dtype, GIVEN_BACK, Input, KvFormat, LogitRows, Numerics, SequenceRows, Want,
};
use serde_json::Value;

/// Small and odd against prompts of 24 tokens, so that sequences span pages and end within them.
const PAGE_SIZE: usize = 8;
/// Pages of each cache group for four sequences of up to 96 tokens each.
const PAGES: usize = 4 * 12;
/// A slot for each sequence, and one for a snapshot.
const SLOTS: usize = 5;
pub(crate) const ALL: Want = Want::Logits(LogitRows::All);
pub(crate) const LAST: Want = Want::Logits(LogitRows::Last);
/// Ten times what is measured, which is the rounding of two orders of summation.
pub(crate) const TOLERANCE: f64 = 5e-5;

/// One golden file.
pub(crate) struct Golden {
    pub(crate) name: String,
    /// What computed the results.
    pub(crate) oracle: String,
    pub(crate) config: Config,
    pub(crate) dtype: Dtype,
    pub(crate) salt: u64,
    pub(crate) prompt: Vec<u32>,
    /// Logits of every position of the prompt.
    pub(crate) logits: Vec<Vec<f32>>,
    pub(crate) greedy: Vec<u32>,
    /// Logits from which some of the greedy tokens were chosen.
    pub(crate) greedy_logits: Vec<(usize, Vec<f32>)>,
    /// Other prompts, with their last logits.
    pub(crate) others: Vec<(Vec<u32>, Vec<f32>)>,
    /// Changes of the configuration that change the logits clearly.
    pub(crate) matters: Vec<Value>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn tokens(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|token| token.as_u64().unwrap() as u32).collect()
}

fn row(value: &Value) -> Vec<f32> {
    let digits = value.as_str().unwrap().as_bytes().chunks(8);
    digits
        .map(|d| f32::from_bits(u32::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()))
        .collect()
}

impl Golden {
    pub(crate) fn read(name: &str) -> Self {
        let text = std::fs::read(folder().join(format!("{name}.json"))).unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        let other = |value: &Value| (tokens(&value["prompt"]), row(&value["last"]));
        Self {
            name: name.to_owned(),
            oracle: value["oracle"].as_str().unwrap().to_owned(),
            config: Config::new(value["config"].clone()).unwrap(),
            dtype: Dtype::from_name(value["dtype"].as_str().unwrap()).unwrap(),
            salt: value["salt"].as_u64().unwrap(),
            prompt: tokens(&value["prompt"]),
            logits: value["logits"].as_array().unwrap().iter().map(row).collect(),
            greedy: tokens(&value["greedy"]),
            greedy_logits: value["greedy_logits"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(step, logits)| (step.parse().unwrap(), row(logits)))
                .collect(),
            others: value["others"].as_array().unwrap().iter().map(other).collect(),
            matters: value.get("matters").and_then(Value::as_array).cloned().unwrap_or_default(),
        }
    }

    /// The names of all golden files, sorted.
    pub(crate) fn names() -> Vec<String> {
        let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<String> =
            files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    pub(crate) fn model(&self, numerics: Numerics, kv: KvFormat) -> Runner {
        self.model_of(&self.config, numerics, kv)
    }

    /// With another configuration. On the CPU, or on the device that `PIPPIN_TEST_DEVICE` names.
    pub(crate) fn model_of(&self, config: &Config, numerics: Numerics, kv: KvFormat) -> Runner {
        match std::env::var("PIPPIN_TEST_DEVICE").as_deref() {
            Ok("cuda") => self.model_on(CudaBackend::new(0, numerics).unwrap(), config, kv),
            _ => self.model_on(CpuBackend::new(numerics), config, kv),
        }
    }

    pub(crate) fn model_on<B: Backend>(&self, backend: B, config: &Config, kv: KvFormat) -> Runner {
        let checkpoint = testing::checkpoint(config, self.dtype, self.salt).unwrap();
        let model = load_from(config, &checkpoint, Arc::new(backend)).unwrap();
        Runner::new(model, kv)
    }
}

pub(crate) struct Runner {
    pub(crate) model: Box<dyn LanguageModel>,
}

/// Each sequence's pages are scattered over the cache: page `i` of sequence `s` is `4 * (11 - i) + s`.
fn pages(sequence: usize) -> Vec<u32> {
    (0..12).rev().map(|page| 4 * page + sequence as u32).collect()
}

/// A sequence's part of a step: which of the four it is, how many tokens it has already, and the new ones.
pub(crate) type Part<'a> = (usize, usize, &'a [u32], Want);

impl Runner {
    pub(crate) fn new(mut model: Box<dyn LanguageModel>, format: KvFormat) -> Self {
        let pages = vec![PAGES; model.info().cache.groups.len()];
        model.allocate(&CachePlan { page_size: PAGE_SIZE, format, pages, slots: SLOTS }).unwrap();
        Self { model }
    }

    /// The pages that a sequence has of each group when its next token is the `start`-th: those out of every later
    /// token's reach were given back.
    fn tables(&self, sequence: usize, start: usize) -> Vec<Vec<u32>> {
        let groups = &self.model.info().cache.groups;
        groups
            .iter()
            .map(|group| {
                let mut pages = pages(sequence);
                pages[..group.given_back(start) / PAGE_SIZE].fill(GIVEN_BACK);
                pages
            })
            .collect()
    }

    pub(crate) fn step(&mut self, parts: &[Part<'_>]) -> Vec<Vec<f32>> {
        let mut batch = Batch::new(self.model.limits());
        for &(sequence, start, tokens, want) in parts {
            if start == 0 {
                self.model.edit(vec![SlotEdit::Reset { slot: sequence }]).unwrap();
            }
            let tables = self.tables(sequence, start);
            let tables: Vec<&[u32]> = tables.iter().map(Vec::as_slice).collect();
            batch.push(SequenceRows::text(sequence, Input::Tokens(tokens), start, &tables, want)).unwrap();
        }
        let submitted = self.model.submit(batch).unwrap();
        let vocab = self.model.info().vocab_size;
        let mut rows = Vec::new();
        for output in self.model.finish(submitted.id).unwrap() {
            match output {
                Output::Logits(logits) => {
                    assert_eq!(logits.vocab, vocab);
                    rows.extend((0..logits.rows).map(|index| logits.row(index).to_vec()));
                }
                Output::Nothing => {}
                other => panic!("nobody asked for {other:?}"),
            }
        }
        rows
    }

    /// The logits of every position of a prompt that is fed in chunks.
    pub(crate) fn prompt(&mut self, sequence: usize, prompt: &[u32], chunk: usize) -> Vec<Vec<f32>> {
        let chunks = prompt.chunks(chunk).enumerate();
        chunks.flat_map(|(i, tokens)| self.step(&[(sequence, i * chunk, tokens, ALL)])).collect()
    }

    /// The logits of greedy decoding that starts from some logits: those of each step, and the tokens.
    pub(crate) fn greedy(
        &mut self,
        sequence: usize,
        start: usize,
        first: &[f32],
        steps: usize,
    ) -> (Vec<Vec<f32>>, Vec<u32>) {
        let (mut rows, mut tokens) = (vec![first.to_vec()], Vec::new());
        for step in 0..steps {
            tokens.push(argmax(&rows[step]));
            let row = self.step(&[(sequence, start + step, &tokens[step..], LAST)]);
            rows.extend(row);
        }
        rows.pop();
        (rows, tokens)
    }
}

fn argmax(row: &[f32]) -> u32 {
    row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32
}

/// `‖a − b‖ / ‖b‖`
pub(crate) fn deviation(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference = square(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    (difference / square(&mut b.iter().map(|b| f64::from(*b)))).sqrt()
}

/// Prompt, greedy tokens and other prompts, one sequence at a time, against mlx-lm.
pub(crate) fn agrees_with_mlx(golden: &Golden, mut model: Runner) {
    let prompt = model.prompt(0, &golden.prompt, usize::MAX);
    assert_eq!(prompt.len(), golden.logits.len());
    let in_prompt = worst(prompt.iter().zip(&golden.logits));

    let (rows, tokens) = model.greedy(0, golden.prompt.len(), prompt.last().unwrap(), golden.greedy.len());
    assert_eq!(tokens, golden.greedy, "{}: greedy tokens differ", golden.name);
    let while_decoding = worst(golden.greedy_logits.iter().map(|(step, logits)| (&rows[*step], logits)));

    let last: Vec<Vec<f32>> =
        golden.others.iter().map(|(prompt, _)| model.prompt(1, prompt, usize::MAX).pop().unwrap()).collect();
    let in_others = worst(last.iter().zip(golden.others.iter().map(|(_, logits)| logits)));

    println!(
        "{:24} deviation from mlx-lm: prompt {in_prompt:.1e}, greedy {while_decoding:.1e}, others {in_others:.1e}",
        golden.name
    );
    for deviation in [in_prompt, while_decoding, in_others] {
        assert!(deviation < TOLERANCE, "{}: logits deviate by {deviation:e}", golden.name);
    }
}

pub(crate) fn worst<'a>(pairs: impl Iterator<Item = (&'a Vec<f32>, &'a Vec<f32>)>) -> f64 {
    pairs.map(|(a, b)| deviation(a, b)).fold(0.0, f64::max)
}

/// Chunks, batches and wanted rows change nothing, bit for bit; neither does what the KV cache holds elsewhere.
pub(crate) fn independent_of_steps(golden: &Golden, numerics: Numerics, kv: KvFormat) {
    let mut model = golden.model(numerics, kv);
    let prompt = &golden.prompt;
    let whole = model.prompt(0, prompt, usize::MAX);
    let (greedy, tokens) = model.greedy(0, prompt.len(), whole.last().unwrap(), 16);
    for chunk in [1, 3, 7] {
        assert!(model.prompt(1, prompt, chunk) == whole, "{}: chunks of {chunk}", golden.name);
        let (again, _) = model.greedy(1, prompt.len(), whole.last().unwrap(), 16);
        assert!(again == greedy, "{}: decoding after chunks of {chunk}", golden.name);
    }
    // A chunk without logits, then one with the last row only.
    assert!(model.step(&[(2, 0, &prompt[..11], Want::Nothing)]).is_empty());
    assert!(model.step(&[(2, 11, &prompt[11..], LAST)])[0] == whole[prompt.len() - 1]);

    // What a sequence keeps besides pages can be put aside and taken again.
    let rest = model.prompt(0, prompt, 7);
    assert!(rest == whole);
    model.model.edit(vec![SlotEdit::Copy { from: 0, to: 4 }]).unwrap();
    for _ in 0..2 {
        let (again, _) = model.greedy(0, prompt.len(), whole.last().unwrap(), 5);
        assert!(again == greedy[..5], "{}: decoding from a snapshot", golden.name);
        model.model.edit(vec![SlotEdit::Copy { from: 4, to: 0 }]).unwrap();
    }

    kept_elsewhere(golden, &mut model, golden.model(numerics, kv), (&greedy, whole.last().unwrap()));

    // Each prompt by itself, then all in one ragged batch, then decoding all at once.
    let prompts: Vec<&[u32]> =
        std::iter::once(&prompt[..]).chain(golden.others.iter().map(|(prompt, _)| &prompt[..])).collect();
    let mut alone = Vec::new();
    for (sequence, prompt) in prompts.iter().enumerate() {
        let last = model.step(&[(sequence, 0, prompt, LAST)]).remove(0);
        alone.push(model.greedy(sequence, prompt.len(), &last, 8));
    }
    let mut model = golden.model(numerics, kv);
    let parts: Vec<Part<'_>> =
        prompts.iter().enumerate().map(|(sequence, prompt)| (sequence, 0, *prompt, LAST)).collect();
    let mut together = vec![model.step(&parts)];
    for step in 0..7 {
        // In another order each time, and the first sequence rests every other step.
        let mut parts: Vec<Part<'_>> = (0..prompts.len())
            .map(|s| (s, prompts[s].len() + step, &alone[s].1[step..=step], LAST))
            .collect();
        parts.rotate_left(step % prompts.len());
        let mut rows = model.step(&parts);
        rows.rotate_right(step % prompts.len());
        together.push(rows);
    }
    for (step, rows) in together.iter().enumerate() {
        for (sequence, row) in rows.iter().enumerate() {
            assert!(
                *row == alone[sequence].0[step],
                "{}: batch, sequence {sequence}, step {step}",
                golden.name
            );
        }
    }

    // A prompt's chunk beside sequences that decode, wanting different rows.
    let mut model = golden.model(numerics, kv);
    model.prompt(0, prompt, usize::MAX);
    let mixed = model.step(&[
        (1, 0, &prompt[..10], ALL),
        (0, prompt.len(), &tokens[..1], LAST),
        (2, 0, &prompt[..5], Want::Nothing),
        (3, 0, prompt, LAST),
    ]);
    assert_eq!(mixed.len(), 12);
    assert!(mixed[..10] == whole[..10] && mixed[10] == greedy[1] && mixed[11] == whole[prompt.len() - 1]);
    let rest = model.step(&[(2, 5, &prompt[5..], ALL), (1, 10, &prompt[10..], ALL)]);
    assert!(rest[..prompt.len() - 5] == whole[5..] && rest[prompt.len() - 5..] == whole[10..]);
}

/// What pages and a slot hold after the prompt can be read, and written to other pages and another slot of another model,
/// which then goes on alike.
fn kept_elsewhere(
    golden: &Golden,
    from: &mut Runner,
    mut to: Runner,
    (greedy, last): (&[Vec<f32>], &Vec<f32>),
) {
    let (prompt, name) = (&golden.prompt, &golden.name);
    from.prompt(0, prompt, usize::MAX);
    let (source, target) = (&mut from.model, &mut to.model);
    assert_eq!(source.kept_as(), target.kept_as(), "{name}");
    let groups = source.info().cache.groups.clone();
    for (group, description) in groups.iter().enumerate() {
        let pages = pages(0).into_iter().zip(pages(2)).skip(description.given_back(prompt.len()) / PAGE_SIZE);
        for (page, other) in pages.take(prompt.len().div_ceil(PAGE_SIZE)) {
            let bytes = source.read_page(group, page).unwrap();
            assert_eq!(Some(bytes.len()), source.kept_bytes(Some(group)), "{name}");
            target.write_page(group, other, &bytes).unwrap();
            assert!(target.write_page(group, other, &bytes[1..]).is_err(), "{name}");
        }
        assert!(source.read_page(group, u32::MAX).is_err(), "{name}");
    }
    let state = source.read_slot(0).unwrap();
    assert_eq!(Some(state.len()), source.kept_bytes(None), "{name}");
    target.write_slot(2, &state).unwrap();
    assert!(target.write_slot(2, &state[1..]).is_err() && target.write_slot(99, &state).is_err(), "{name}");
    let (again, _) = to.greedy(2, prompt.len(), last, 8);
    assert!(again == greedy[..8], "{name}: decoding from what was kept");
}

/// The tests above can fail: with a field changed that a golden file is about, its logits are far off.
pub(crate) fn matters(golden: &Golden) {
    for change in &golden.matters {
        let mut value = golden.config.value().clone();
        for (field, change) in change.as_object().unwrap() {
            match (value.get_mut(field), change.as_object()) {
                (Some(Value::Object(inner)), Some(change)) if field == "text_config" => {
                    inner.extend(change.clone());
                }
                _ => value[field] = change.clone(),
            }
        }
        let config = Config::new(value).unwrap();
        let mut model = golden.model_of(&config, Numerics::Exact, KvFormat::F32);
        let prompt = model.prompt(0, &golden.prompt, usize::MAX);
        let deviation = worst(prompt.iter().zip(&golden.logits));
        assert!(
            deviation > 200.0 * TOLERANCE,
            "{} deviates by {deviation:e} only with {change}",
            golden.name
        );
    }
}
