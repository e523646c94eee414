//! Every family against mlx-lm: logits, greedy tokens, and their independence of how the work was cut into steps.
//!
//! The files in `goldens/` come from `tools/goldens/generate.py`; weights are made from tensor names, so nothing but
//! expected results is stored. To see the deviations: `cargo test -p pippin-models --test goldens -- --nocapture`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pippin_cpu::{CpuBackend, InstructionSet};
use pippin_models::{CachePlan, Config, LanguageModel, Output, SlotEdit, describe, load, load_from, testing};
use pippin_tensor::{Batch, Dtype, GIVEN_BACK, Input, KvFormat, LogitRows, Numerics, SequenceRows, Want};
use pippin_weights::{Checkpoint, TensorData, write_safetensors};
use serde_json::{Value, json};

/// Small and odd against prompts of 24 tokens, so that sequences span pages and end within them.
const PAGE_SIZE: usize = 8;
/// Pages of each cache group for four sequences of up to 96 tokens each.
const PAGES: usize = 4 * 12;
/// A slot for each sequence, and one for a snapshot.
const SLOTS: usize = 5;
const ALL: Want = Want::Logits(LogitRows::All);
const LAST: Want = Want::Logits(LogitRows::Last);
/// Ten times what is measured, which is the rounding of two orders of summation.
const TOLERANCE: f64 = 5e-5;

/// One golden file.
struct Golden {
    name: &'static str,
    config: Config,
    dtype: Dtype,
    salt: u64,
    prompt: Vec<u32>,
    /// Logits of every position of the prompt.
    logits: Vec<Vec<f32>>,
    greedy: Vec<u32>,
    /// Logits from which some of the greedy tokens were chosen.
    greedy_logits: Vec<(usize, Vec<f32>)>,
    /// Other prompts, with their last logits.
    others: Vec<(Vec<u32>, Vec<f32>)>,
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
    fn read(name: &'static str) -> Self {
        let text = std::fs::read(folder().join(format!("{name}.json"))).unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        let other = |value: &Value| (tokens(&value["prompt"]), row(&value["last"]));
        Self {
            name,
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
        }
    }

    fn model(&self, numerics: Numerics, kv: KvFormat) -> Runner {
        self.model_on(CpuBackend::new(numerics), &self.config, kv)
    }

    fn model_on(&self, backend: CpuBackend, config: &Config, kv: KvFormat) -> Runner {
        let checkpoint = testing::checkpoint(config, self.dtype, self.salt).unwrap();
        let model = load_from(config, &checkpoint, Arc::new(backend)).unwrap();
        Runner::new(model, kv)
    }
}

struct Runner {
    model: Box<dyn LanguageModel>,
}

/// Each sequence's pages are scattered over the cache: page `i` of sequence `s` is `4 * (11 - i) + s`.
fn pages(sequence: usize) -> Vec<u32> {
    (0..12).rev().map(|page| 4 * page + sequence as u32).collect()
}

/// A sequence's part of a step: which of the four it is, how many tokens it has already, and the new ones.
type Part<'a> = (usize, usize, &'a [u32], Want);

impl Runner {
    fn new(mut model: Box<dyn LanguageModel>, format: KvFormat) -> Self {
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

    fn step(&mut self, parts: &[Part<'_>]) -> Vec<Vec<f32>> {
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
    fn prompt(&mut self, sequence: usize, prompt: &[u32], chunk: usize) -> Vec<Vec<f32>> {
        let chunks = prompt.chunks(chunk).enumerate();
        chunks.flat_map(|(i, tokens)| self.step(&[(sequence, i * chunk, tokens, ALL)])).collect()
    }

    /// The logits of greedy decoding that starts from some logits: those of each step, and the tokens.
    fn greedy(
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
fn deviation(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference = square(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    (difference / square(&mut b.iter().map(|b| f64::from(*b)))).sqrt()
}

/// Prompt, greedy tokens and other prompts, one sequence at a time, against mlx-lm.
fn agrees_with_mlx(golden: &Golden, mut model: Runner) {
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

fn worst<'a>(pairs: impl Iterator<Item = (&'a Vec<f32>, &'a Vec<f32>)>) -> f64 {
    pairs.map(|(a, b)| deviation(a, b)).fold(0.0, f64::max)
}

/// Chunks, batches and wanted rows change nothing, bit for bit; neither does what the KV cache holds elsewhere.
fn independent_of_steps(golden: &Golden, numerics: Numerics, kv: KvFormat) {
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

macro_rules! goldens {
    ($($module:ident: $name:literal,)*) => {
        $(mod $module {
            use super::*;

            #[test]
            fn mlx() {
                let golden = Golden::read($name);
                agrees_with_mlx(&golden, golden.model(Numerics::Exact, KvFormat::F32));
            }

            #[test]
            fn steps() {
                independent_of_steps(&Golden::read($name), Numerics::Exact, KvFormat::F32);
            }
        })*

        #[test]
        fn every_file_is_tested() {
            let mut files: Vec<String> = std::fs::read_dir(folder())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            let mut names = vec![$(concat!($name, ".json")),*];
            names.sort();
            assert_eq!(files, names);
        }
    };
}

goldens! {
    cohere2: "cohere2",
    cohere2_4bit: "cohere2-4bit",
    deepseek_v3: "deepseek_v3",
    deepseek_v3_4bit: "deepseek_v3-4bit",
    deepseek_v3_yarn: "deepseek_v3-yarn",
    gemma2: "gemma2",
    gemma2_4bit: "gemma2-4bit",
    gemma3: "gemma3",
    gemma3_4bit: "gemma3-4bit",
    gemma3n: "gemma3n",
    gemma3n_4bit: "gemma3n-4bit",
    gpt_neox: "gpt_neox",
    gpt_neox_4bit: "gpt_neox-4bit",
    gpt_neox_sequential: "gpt_neox-sequential",
    gpt_oss: "gpt_oss",
    gpt_oss_4bit: "gpt_oss-4bit",
    gpt_oss_mxfp4: "gpt_oss-mxfp4",
    lfm2: "lfm2",
    lfm2_4bit: "lfm2-4bit",
    llama: "llama",
    llama_4bit: "llama-4bit",
    llama_4bit_bf16: "llama-4bit-bf16",
    llama_4bit_untied: "llama-4bit-untied",
    llama_bf16: "llama-bf16",
    llama_biases: "llama-biases",
    llama_mixed_bits: "llama-mixed-bits",
    llama_mixed_modes: "llama-mixed-modes",
    llama_mxfp4: "llama-mxfp4",
    llama_nvfp4: "llama-nvfp4",
    llama_rope_dynamic: "llama-rope-dynamic",
    llama_rope_linear: "llama-rope-linear",
    llama_rope_llama3: "llama-rope-llama3",
    llama_rope_longrope: "llama-rope-longrope",
    llama_rope_traditional: "llama-rope-traditional",
    llama_rope_yarn: "llama-rope-yarn",
    llama_rope_yarn_mscale: "llama-rope-yarn-mscale",
    llama_sliding: "llama-sliding",
    llama_untied: "llama-untied",
    llama4: "llama4",
    llama4_4bit: "llama4-4bit",
    mamba2: "mamba2",
    mamba2_4bit: "mamba2-4bit",
    mistral: "mistral",
    mistral_4bit: "mistral-4bit",
    mistral_sliding: "mistral-sliding",
    olmo2: "olmo2",
    olmo2_4bit: "olmo2-4bit",
    phi: "phi",
    phi_4bit: "phi-4bit",
    phi3: "phi3",
    phi3_4bit: "phi3-4bit",
    phi3_longrope: "phi3-longrope",
    phi3_sliding: "phi3-sliding",
    qwen2: "qwen2",
    qwen2_4bit: "qwen2-4bit",
    qwen2_bf16: "qwen2-bf16",
    qwen2_yarn: "qwen2-yarn",
    qwen3: "qwen3",
    qwen3_4bit: "qwen3-4bit",
    qwen3_4bit_bf16: "qwen3-4bit-bf16",
    qwen3_8bit: "qwen3-8bit",
    qwen3_mxfp8: "qwen3-mxfp8",
    qwen3_rope_parameters: "qwen3-rope-parameters",
    qwen3_untied: "qwen3-untied",
    qwen3_moe: "qwen3_moe",
    qwen3_moe_4bit: "qwen3_moe-4bit",
    qwen3_next: "qwen3_next",
    qwen3_next_4bit: "qwen3_next-4bit",
    recurrent_gemma: "recurrent_gemma",
    recurrent_gemma_4bit: "recurrent_gemma-4bit",
    rwkv7: "rwkv7",
    rwkv7_4bit: "rwkv7-4bit",
}

/// What holds for exact numerics in `f32` holds for every other way to run.
#[test]
fn steps_with_other_numerics_and_caches() {
    for name in [
        "gemma3n-4bit",
        "llama-sliding",
        "qwen3-4bit-bf16",
        "qwen3_next-4bit",
        "recurrent_gemma-4bit",
        "rwkv7-4bit",
    ] {
        let golden = Golden::read(name);
        for numerics in [Numerics::Exact, Numerics::Fast] {
            for kv in KvFormat::ALL {
                independent_of_steps(&golden, numerics, kv);
            }
        }
    }
}

/// Every instruction set of this machine, and numbers of threads that do not divide the work evenly.
#[test]
fn other_instruction_sets_and_threads() {
    for name in [
        "gemma3n",
        "lfm2",
        "llama-biases",
        "llama-mixed-bits",
        "mamba2",
        "mistral-sliding",
        "qwen3-4bit-bf16",
        "qwen3_next-4bit",
        "recurrent_gemma",
        "rwkv7",
    ] {
        let golden = Golden::read(name);
        for set in InstructionSet::available() {
            let model = |threads| {
                let backend = CpuBackend::with(Numerics::Exact, set, threads).unwrap();
                golden.model_on(backend, &golden.config, KvFormat::F32)
            };
            agrees_with_mlx(&golden, model(1));
            let alone = model(1).prompt(0, &golden.prompt, usize::MAX);
            assert!(model(3).prompt(0, &golden.prompt, usize::MAX) == alone, "{name}, {set:?}: threads");
        }
    }
}

/// The tests above can fail: without the feature that a golden file is about, its logits are far off.
#[test]
fn features_matter() {
    for (name, change) in [
        ("gemma3n", json!({"text_config": {"activation_sparsity_pattern": null}})),
        ("gemma3n", json!({"text_config": {"altup_active_idx": 1}})),
        ("gemma3n", json!({"text_config": {"altup_correct_scale": false}})),
        ("gemma3n", json!({"text_config": {"num_kv_shared_layers": 0}})),
        ("gemma3n", json!({"text_config": {"sliding_window": 9}})),
        ("gemma3n", json!({"text_config": {"rope_local_base_freq": 1e6}})),
        ("lfm2", json!({"conv_bias": false})),
        ("lfm2", json!({"rope_theta": 10000.0})),
        ("llama-rope-linear", json!({"rope_scaling": null})),
        ("llama-rope-llama3", json!({"rope_scaling": null})),
        ("llama-rope-yarn", json!({"rope_scaling": null})),
        (
            "llama-rope-yarn-mscale",
            json!({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}),
        ),
        ("llama-rope-longrope", json!({"rope_scaling": null})),
        ("llama-rope-traditional", json!({"rope_traditional": false})),
        ("llama-sliding", json!({"sliding_window": 9})),
        ("llama-sliding", json!({"layer_types": null})),
        ("llama-biases", json!({"attention_bias": false})),
        ("llama-biases", json!({"mlp_bias": false})),
        ("llama-untied", json!({"tie_word_embeddings": true})),
        ("mamba2", json!({"time_step_limit": null})),
        ("mamba2", json!({"use_conv_bias": false})),
        ("mistral-sliding", json!({"sliding_window": null})),
        ("qwen2", json!({"model_type": "llama"})),
        ("qwen2-yarn", json!({"rope_scaling": null})),
        ("qwen3", json!({"model_type": "llama"})),
        ("qwen3-rope-parameters", json!({"rope_parameters": {"rope_theta": 100000.0}})),
        ("qwen3_next", json!({"norm_topk_prob": false})),
        ("qwen3_next", json!({"partial_rotary_factor": 1.0})),
        ("recurrent_gemma", json!({"attention_window_size": 9})),
        ("recurrent_gemma", json!({"block_types": ["recurrent", "attention"]})),
        ("recurrent_gemma", json!({"embeddings_scale_by_sqrt_dim": false})),
        ("recurrent_gemma", json!({"logits_soft_cap": 0})),
        ("recurrent_gemma", json!({"partial_rotary_factor": 1.0})),
        ("rwkv7", json!({"head_dim": 32})),
    ] {
        let golden = Golden::read(name);
        let mut value = golden.config.value().clone();
        for (field, change) in change.as_object().unwrap() {
            match (value.get_mut(field), change.as_object()) {
                (Some(Value::Object(text)), Some(change)) if field == "text_config" => {
                    text.extend(change.clone());
                }
                _ => value[field] = change.clone(),
            }
        }
        let config = Config::new(value).unwrap();
        let mut model = golden.model_on(CpuBackend::new(Numerics::Exact), &config, KvFormat::F32);
        let prompt = model.prompt(0, &golden.prompt, usize::MAX);
        let deviation = worst(prompt.iter().zip(&golden.logits));
        assert!(deviation > 200.0 * TOLERANCE, "{name} without its feature deviates by {deviation:e} only");
    }
    // The base of dynamic scaling grows beyond the trained context only, which the greedy tokens reach.
    let golden = Golden::read("llama-rope-dynamic");
    let mut value = golden.config.value().clone();
    value["rope_scaling"] = Value::Null;
    let mut model =
        golden.model_on(CpuBackend::new(Numerics::Exact), &Config::new(value).unwrap(), KvFormat::F32);
    model.prompt(0, &golden.prompt, usize::MAX);
    let tokens = golden.greedy.iter().enumerate();
    let rows: Vec<_> = tokens
        .map(|(i, token)| model.step(&[(0, golden.prompt.len() + i, &[*token], LAST)]).remove(0))
        .collect();
    for (step, logits) in &golden.greedy_logits {
        let (position, step) = (golden.prompt.len() + step, step - 1);
        let deviation = deviation(&rows[step], logits);
        assert_eq!(deviation > 200.0 * TOLERANCE, position > 48, "position {position}: {deviation:e}");
    }
}

/// From files, as users have them: the same logits as from memory, and a description that counts weights, not words.
#[test]
fn a_folder_is_loaded_and_described() {
    let golden = Golden::read("llama-mixed-bits");
    let tensors = testing::tensors(&golden.config, golden.dtype, golden.salt).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), golden.config.value().to_string()).unwrap();
    write_safetensors(&folder.path().join("model.safetensors"), &tensors, &Default::default()).unwrap();

    let model = load(folder.path(), Arc::new(CpuBackend::new(Numerics::Exact))).unwrap();
    let rows = Runner::new(model, KvFormat::F32).prompt(0, &golden.prompt, usize::MAX);
    assert!(rows == golden.model(Numerics::Exact, KvFormat::F32).prompt(0, &golden.prompt, usize::MAX));

    let info = describe(folder.path()).unwrap();
    let (hidden, intermediate, vocab, head) = (128, 192, 96, 32);
    let layer = hidden * head * (4 + 2 + 2 + 4) + 3 * hidden * intermediate + 2 * hidden;
    assert_eq!(info.parameters, 2 * vocab * hidden + 2 * layer + hidden);
    assert_eq!(info.weight_bytes, tensors.iter().map(|tensor| tensor.bytes().len() as u64).sum::<u64>());
    assert!((4.0..16.0).contains(&info.bits_per_weight), "{}", info.bits_per_weight);
    assert_eq!(info.quantization.unwrap().to_string(), "4-bit affine, group 64");
    assert_eq!((info.model_type.as_str(), info.family, info.tied_head), ("llama", "llama", false));
    assert_eq!((info.heads, info.kv_heads, info.head_dim, info.context_length), (4, 2, 32, 256));
    let json = serde_json::to_value(&info).unwrap();
    assert_eq!(json["dtype"], "F32");
    assert_eq!(json["quantization"]["bits"], 4);
}

/// DeepSeek checkpoints as they were published have one matrix for keys and values, in place of two that queries and results
/// are multiplied with.
#[test]
fn latent_attention_reads_the_matrix_of_keys_and_values() {
    let golden = Golden::read("deepseek_v3");
    let field = |name: &str| golden.config.value()[name].as_u64().unwrap() as usize;
    let (heads, rank) = (field("num_attention_heads"), field("kv_lora_rank"));
    let (key, value) = (field("qk_nope_head_dim"), field("v_head_dim"));
    let tensors = testing::tensors(&golden.config, golden.dtype, golden.salt).unwrap();
    let mut published = Vec::new();
    for tensor in &tensors {
        let Some(at) = tensor.name().strip_suffix(".embed_q.weight") else {
            if !tensor.name().ends_with(".unembed_out.weight") {
                published.push(tensor.clone());
            }
            continue;
        };
        let values = tensors.iter().find(|other| other.name() == format!("{at}.unembed_out.weight")).unwrap();
        let (keys, values) = (tensor.to_f32().unwrap(), values.to_f32().unwrap());
        let mut both = Vec::new();
        for head in 0..heads {
            for i in 0..key {
                both.extend((0..rank).map(|r| keys[(head * rank + r) * key + i]));
            }
            both.extend_from_slice(&values[head * value * rank..][..value * rank]);
        }
        let shape = [heads * (key + value), rank];
        published.push(TensorData::from_f32(format!("{at}.kv_b_proj.weight"), &shape, &both).unwrap());
    }
    let checkpoint = Checkpoint::from_tensors(published);
    let model = load_from(&golden.config, &checkpoint, Arc::new(CpuBackend::new(Numerics::Exact))).unwrap();
    agrees_with_mlx(&golden, Runner::new(model, KvFormat::F32));
}
