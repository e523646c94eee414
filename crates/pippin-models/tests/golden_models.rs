//! Some golden models in other ways: other numerics and caches, instruction sets, from a folder, under published names.

mod support;

use std::sync::Arc;

use pippin_cpu::{CpuBackend, InstructionSet};
use pippin_models::{Config, describe, load, load_from, testing};
use pippin_tensor::{KvFormat, Numerics};
use pippin_weights::{Checkpoint, TensorData, write_safetensors};
use serde_json::Value;
use support::{Golden, LAST, Runner, TOLERANCE, agrees_with_mlx, deviation, independent_of_steps};

/// What holds for exact numerics in `f32` holds for every other way to run.
#[test]
fn steps_with_other_numerics_and_caches() {
    for name in [
        "gear",
        "gemma3n-4bit",
        "gemma4_text-4bit",
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

/// The base of dynamic scaling grows beyond the trained context only, which the greedy tokens reach.
#[test]
fn dynamic_scaling_begins_beyond_the_trained_context() {
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

/// Mixtures as they were published have a matrix for each expert, which the converter stacks.
#[test]
fn experts_that_were_published_one_by_one_are_stacked() {
    for name in ["qwen3_moe", "qwen3_moe-4bit", "deepseek_v3"] {
        let golden = Golden::read(name);
        let mut published = Vec::new();
        for tensor in testing::tensors(&golden.config, golden.dtype, golden.salt).unwrap() {
            let Some((at, rest)) = tensor.name().split_once("switch_mlp.") else {
                published.push(tensor);
                continue;
            };
            for expert in 0..tensor.shape()[0] {
                let matrix =
                    tensor.slice_rows(expert..expert + 1).unwrap().reshape(&tensor.shape()[1..]).unwrap();
                published.push(matrix.renamed(&format!("{at}experts.{expert}.{rest}")));
            }
        }
        let checkpoint = Checkpoint::from_tensors(published);
        let model =
            load_from(&golden.config, &checkpoint, Arc::new(CpuBackend::new(Numerics::Exact))).unwrap();
        agrees_with_mlx(&golden, Runner::new(model, KvFormat::F32));
    }
}

/// Text parts of multimodal models were published under other prefixes, and experts in two stacks, gates beside what they are
/// applied to; in some the matrices stand as rows are multiplied with them.
#[test]
fn text_parts_are_read_where_they_were_published() {
    for (name, prefix, experts) in [
        ("gemma3-nested", "model.language_model.", None),
        ("gemma4", "model.language_model.", Some(("experts.switch_glu", "experts", false))),
        ("gemma4-dense", "model.language_model.", None),
        ("qwen2_vl", "model.", None),
        ("qwen3_vl", "model.language_model.", None),
        ("qwen3_vl-4bit", "model.language_model.", None),
        ("qwen3_vl_moe", "model.language_model.", Some(("mlp.switch_mlp", "mlp.experts", true))),
        ("lfm2_vl", "model.language_model.", None),
    ] {
        let golden = Golden::read(name);
        let mut tensors = testing::tensors(&golden.config, golden.dtype, golden.salt).unwrap();
        if let Some((module, published, turned)) = experts {
            tensors = with_fused_experts(tensors, module, published, turned);
        }
        let renamed = tensors.into_iter().map(|tensor| {
            let name = tensor.name().strip_prefix("language_model.").unwrap();
            let name = match name.strip_prefix("model.") {
                Some(rest) => format!("{prefix}{rest}"),
                None => name.to_owned(),
            };
            tensor.renamed(&name)
        });
        let checkpoint = Checkpoint::from_tensors(renamed.collect::<Vec<_>>());
        let model =
            load_from(&golden.config, &checkpoint, Arc::new(CpuBackend::new(Numerics::Exact))).unwrap();
        agrees_with_mlx(&golden, Runner::new(model, KvFormat::F32));
    }
}

/// The text model of Gemma 3n by itself, whose tensors have the same names as in the whole one or lack a component.
#[test]
fn the_text_model_of_gemma_3n_stands_alone() {
    let golden = Golden::read("gemma3n");
    let config = Config::new(golden.config.value()["text_config"].clone()).unwrap();
    for prefix in ["model.", "model.language_model."] {
        let tensors = testing::tensors(&golden.config, golden.dtype, golden.salt).unwrap().into_iter();
        let renamed = tensors.map(|tensor| {
            let rest = tensor.name().strip_prefix("model.language_model.").unwrap();
            tensor.renamed(&format!("{prefix}{rest}"))
        });
        let checkpoint = Checkpoint::from_tensors(renamed.collect::<Vec<_>>());
        let model = load_from(&config, &checkpoint, Arc::new(CpuBackend::new(Numerics::Exact))).unwrap();
        agrees_with_mlx(&golden, Runner::new(model, KvFormat::F32));
    }
}

/// The tensors with the experts of `module` in two stacks, the rows of gates and of what they are applied to in one; `turned`:
/// with the last two axes exchanged.
fn with_fused_experts(
    tensors: Vec<TensorData>,
    module: &str,
    published: &str,
    turned: bool,
) -> Vec<TensorData> {
    let stack = |name: String, [experts, rows, columns]: [usize; 3], values: Vec<f32>| {
        if !turned {
            return TensorData::from_f32(name, &[experts, rows, columns], &values).unwrap();
        }
        let mut across = Vec::with_capacity(values.len());
        for matrix in values.chunks(rows * columns) {
            across.extend((0..rows * columns).map(|i| matrix[i % rows * columns + i / rows]));
        }
        TensorData::from_f32(name, &[experts, columns, rows], &across).unwrap()
    };
    let mut result = Vec::new();
    for tensor in &tensors {
        let Some((at, rest)) = tensor.name().split_once(&format!("{module}.")) else {
            result.push(tensor.clone());
            continue;
        };
        let &[experts, rows, columns] = tensor.shape() else { panic!("{}", tensor.name()) };
        let values = tensor.to_f32().unwrap();
        match rest {
            "gate_proj.weight" => {
                let up = tensors.iter().find(|up| up.name() == format!("{at}{module}.up_proj.weight"));
                let up = up.unwrap().to_f32().unwrap();
                let both = values.chunks(rows * columns).zip(up.chunks(rows * columns));
                let both = both.flat_map(|(gate, up)| [gate, up].concat()).collect();
                result.push(stack(
                    format!("{at}{published}.gate_up_proj"),
                    [experts, 2 * rows, columns],
                    both,
                ));
            }
            "down_proj.weight" => {
                result.push(stack(format!("{at}{published}.down_proj"), [experts, rows, columns], values));
            }
            _ => {}
        }
    }
    result
}
