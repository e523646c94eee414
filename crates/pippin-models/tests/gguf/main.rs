//! GGUF files of the golden models: as llama.cpp's converter would write them, and read again, they give mlx-lm's logits.
//!
//! What the converter does is written down here a second time, from its source, and the names of tensors come from its own
//! table (`tools/gguf/make_names.py`).

mod convert;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use convert::convert;
use pippin_cpu::CpuBackend;
use pippin_models::{Config, ModelError, describe, gguf_architectures, gguf_config, gguf_model_types, load};
use pippin_tensor::{KvFormat, Numerics};
use pippin_weights::gguf::{GgmlType, Gguf, GgufWriter};
use serde_json::{Value, json};
use support::{Golden, Runner, TOLERANCE, agrees_with_mlx, worst};

fn written(golden: &Golden, architecture: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("{}.gguf", golden.name));
    fs::write(&path, convert(golden, architecture)).unwrap();
    (folder, path)
}

fn loaded(path: &Path) -> Runner {
    let file = Gguf::open(path).unwrap();
    let config = gguf_config(&file).unwrap();
    let model_type = config.model_type().unwrap();
    let architecture = file.architecture().unwrap();
    assert!(gguf_model_types(architecture).any(|known| known == model_type), "{architecture}: {model_type}");
    let model = load(path, Arc::new(CpuBackend::new(Numerics::Exact))).unwrap();
    Runner::new(model, KvFormat::F32)
}

/// With `changes`, where metadata cannot say what the golden model's configuration does, the logits are those of the model with
/// that configuration, as it is read from a folder.
fn agrees(name: &str, architecture: &str, changes: &Value) {
    let mut golden = Golden::read(name);
    if changes.is_null() {
        let (_folder, path) = written(&golden, architecture);
        return agrees_with_mlx(&golden, loaded(&path));
    }
    let mut config = golden.config.value().clone();
    for (path, value) in changes.as_object().unwrap() {
        let (parent, field) = path.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[field] = value.clone();
    }
    golden.config = Config::new(config).unwrap();
    let (_folder, path) = written(&golden, architecture);
    let expected = golden.model(Numerics::Exact, KvFormat::F32).prompt(0, &golden.prompt, usize::MAX);
    let found = loaded(&path).prompt(0, &golden.prompt, usize::MAX);
    assert!(worst(found.iter().zip(&expected)) < TOLERANCE, "{name}");
}

macro_rules! agree {
    ($($test:ident: $golden:literal as $architecture:literal $(with $changes:tt)?),+ $(,)?) => {
        $(#[test]
        fn $test() {
            let changes: &[Value] = &[$(json!($changes))?];
            agrees($golden, $architecture, changes.first().unwrap_or(&Value::Null));
        })+

        /// Every architecture that is read has a golden model here.
        #[test]
        fn every_architecture_is_tested() {
            let tested = [$($architecture),+];
            for name in gguf_architectures() {
                assert!(tested.contains(&name), "{name} is not tested");
            }
        }
    };
}

agree! {
    llama: "llama" as "llama",
    llama_untied: "llama-untied" as "llama",
    llama_biases: "llama-biases" as "llama",
    llama_rope_llama3: "llama-rope-llama3" as "llama",
    llama_rope_linear: "llama-rope-linear" as "llama",
    llama_rope_yarn: "llama-rope-yarn" as "llama",
    llama_rope_longrope: "llama-rope-longrope" as "llama",
    mixtral: "mixtral" as "llama",
    bailing_moe: "bailing_moe-sigmoid" as "bailingmoe2",
    cohere: "cohere" as "command-r",
    cohere2: "cohere2" as "cohere2",
    deepseek_v2: "deepseek_v2" as "deepseek2" with {"/rope_scaling/mscale": 1.0},
    deepseek_v3: "deepseek_v3" as "deepseek2",
    deepseek_v3_yarn: "deepseek_v3-yarn" as "deepseek2" with {"/rope_scaling/mscale": 1.0},
    dots1: "dots1" as "dots1",
    ernie4_5: "ernie4_5" as "ernie4_5",
    ernie4_5_moe: "ernie4_5_moe" as "ernie4_5-moe" with {"/moe_correction": true, "/moe_layer_end_index": -1},
    exaone_moe: "exaone_moe" as "exaone-moe",
    exaone4: "exaone4" as "exaone4",
    gemma: "gemma" as "gemma",
    gemma2: "gemma2" as "gemma2" with {"/query_pre_attn_scalar": 24},
    gemma3: "gemma3" as "gemma3" with {"/query_pre_attn_scalar": 24},
    gemma3n: "gemma3n" as "gemma3n" with {"/text_config/vocab_size_per_layer_input": 96},
    gemma4: "gemma4" as "gemma4",
    gemma4_dense: "gemma4-dense" as "gemma4",
    gemma4_text: "gemma4_text" as "gemma4" with {
        "/layer_types": [
            "sliding_attention", "sliding_attention", "full_attention",
            "sliding_attention", "sliding_attention", "full_attention",
        ],
        "/rope_parameters": {
            "full_attention":
                {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    glm4: "glm4" as "glm4",
    glm4_moe: "glm4_moe" as "glm4moe",
    solar_open: "solar_open" as "glm4moe" with {"/rope_parameters": null, "/rope_scaling": null},
    gpt_oss: "gpt_oss" as "gpt-oss",
    gpt2: "gpt2" as "gpt2",
    gpt_neox: "gpt_neox" as "gptneox",
    gpt_neox_sequential: "gpt_neox-sequential" as "gptneox" with {"/hidden_act": "gelu", "/tie_word_embeddings": false},
    granite: "granite" as "granite",
    granite_moe: "granitemoe" as "granitemoe",
    granite_hybrid: "granitemoehybrid" as "granitehybrid" with {"/time_step_limit": null},
    granite_hybrid_experts: "granitemoehybrid-4bit" as "granitehybrid" with {
        "/time_step_limit": null, "/quantization": null, "/shared_mlp_divided": true,
    },
    hunyuan_dense: "hunyuan_v1_dense" as "hunyuan-dense",
    hunyuan_moe: "hunyuan" as "hunyuan-moe" with {"/use_cla": false, "/norm_topk_prob": true},
    internlm2: "internlm2" as "internlm2",
    lfm2: "lfm2" as "lfm2",
    lfm2_moe: "lfm2_moe" as "lfm2moe" with {"/routed_scaling_factor": 1.0},
    mamba2: "mamba2" as "mamba2" with {"/time_step_limit": null},
    minicpm: "minicpm" as "minicpm",
    minimax: "minimax" as "minimax-m2",
    ministral3: "ministral3" as "mistral3" with {"/layer_types": null, "/sliding_window": null},
    mistral: "mistral" as "mistral3",
    mistral4: "mistral4" as "mistral4",
    nemotron: "nemotron" as "nemotron",
    nemotron_h: "nemotron_h" as "nemotron_h_moe" with {"/time_step_limit": null},
    nemotron_h_dense: "nemotron_h" as "nemotron_h" with {
        "/time_step_limit": null, "/hybrid_override_pattern": "M-*-M",
    },
    olmo2: "olmo2" as "olmo2",
    olmo3: "olmo3" as "olmo2",
    olmoe: "olmoe" as "olmoe",
    phi: "phi" as "phi2",
    phi3: "phi3" as "phi3",
    phi3_longrope: "phi3-longrope" as "phi3",
    qwen2: "qwen2" as "qwen2",
    qwen2_yarn: "qwen2-yarn" as "qwen2",
    qwen2_moe: "qwen2_moe" as "qwen2moe",
    qwen2_vl: "qwen2_vl" as "qwen2vl",
    qwen3: "qwen3" as "qwen3",
    qwen3_untied: "qwen3-untied" as "qwen3",
    qwen3_moe: "qwen3_moe" as "qwen3moe",
    qwen3_vl: "qwen3_vl" as "qwen3vl",
    qwen3_vl_moe: "qwen3_vl_moe" as "qwen3vlmoe",
    qwen3_5: "qwen3_5" as "qwen35",
    qwen3_5_moe: "qwen3_5_moe-4bit" as "qwen35moe" with {"/quantization": null},
    qwen3_next: "qwen3_next" as "qwen3next",
    seed_oss: "seed_oss" as "seed_oss",
    smollm3: "smollm3" as "smollm3" with {"/no_rope_layers": null, "/num_hidden_layers": 4},
    stablelm: "stablelm" as "stablelm",
    starcoder: "gpt_bigcode" as "starcoder" with {"/n_inner": 256},
    starcoder2: "starcoder2" as "starcoder2",
    xverse: "llama" as "xverse",
}

#[test]
fn unknown_architectures_are_refused_before_weights_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let mut writer = GgufWriter::new();
    writer.string("general.architecture", "quince\u{1b}").tensor("a", GgmlType::IQ1_S, &[256], &[0; 50]);
    fs::write(&path, writer.bytes()).unwrap();
    let error = describe(&path).unwrap_err();
    assert!(matches!(error, ModelError::Unsupported { .. }));
    let message = error.to_string();
    assert!(message.contains("x.gguf: field `general.architecture`: \"quince"), "{message}");
    assert!(message.contains("docs/models.md lists") && !message.contains('\u{1b}'), "{message}");
}

/// The message with which a changed file is refused.
fn refused(change: impl Fn(&mut GgufWriter)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("llama.gguf");
    let mut writer = GgufWriter::new();
    writer.string("general.architecture", "llama").u32("llama.embedding_length", 64);
    change(&mut writer);
    fs::write(&path, writer.bytes()).unwrap();
    describe(&path).unwrap_err().to_string()
}

#[test]
fn what_is_missing_or_does_not_fit_is_named() {
    let message = refused(|_| ());
    assert!(message.contains("metadata key `llama.block_count`: is missing"), "{message}");
    let message = refused(|writer| {
        writer.u32("llama.block_count", 1);
    });
    assert!(message.contains("token_embd.weight"), "{message}");
    let message = refused(|writer| {
        writer.u32("llama.block_count", 1).tensor("token_embd.weight", GgmlType::F32, &[2, 32], &[0; 256]);
    });
    assert!(
        message.contains("`llama.embedding_length`: is 64, but token_embd.weight has 32 columns"),
        "{message}"
    );
    let message = refused(|writer| {
        writer.u32("llama.block_count", u32::MAX);
    });
    assert!(message.contains("`llama.block_count`: must be from 0 to"), "{message}");
}

/// Fields of a configuration are what metadata was made into: errors name the key, or the file where there is none.
#[test]
fn errors_about_fields_name_the_metadata() {
    let file = |heads: u32, head_dim: u32, has_eps: bool| {
        refused(|writer| {
            if has_eps {
                writer.f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
            }
            for (key, value) in [
                ("block_count", 1),
                ("feed_forward_length", 96),
                ("attention.head_count", heads),
                ("attention.head_count_kv", 2),
                ("attention.key_length", head_dim),
            ] {
                writer.u32(&format!("llama.{key}"), value);
            }
            writer.tensor("token_embd.weight", GgmlType::F32, &[2, 64], &[0; 512]);
        })
    };
    for (message, key) in [
        (file(1_000_000_000, 16, true), "llama.attention.head_count"),
        (file(3, 16, true), "llama.attention.head_count_kv"),
        (file(4, 1 << 30, true), "llama.attention.key_length"),
        (file(4, 16, false), "llama.attention.layer_norm_rms_epsilon"),
    ] {
        assert!(message.contains("llama.gguf") && !message.contains("config.json"), "{message}");
        assert!(message.contains(&format!("metadata key `{key}`")), "{message}");
    }
}

#[test]
fn tensors_without_a_place_are_refused() {
    let golden = Golden::read("llama");
    let (_folder, path) = written(&golden, "llama");
    let bytes = fs::read(&path).unwrap();
    let name = b"blk.0.ffn_norm.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    let mut changed = bytes;
    changed[at..at + name.len()].copy_from_slice(b"blk.0.ffn_sorm.weight");
    fs::write(&path, changed).unwrap();
    let message = describe(&path).unwrap_err().to_string();
    assert!(
        message.contains("tensor `blk.0.ffn_sorm.weight`") && message.contains("has no place"),
        "{message}"
    );
}

#[test]
fn a_description_says_what_is_repacked() {
    let golden = Golden::read("qwen3");
    let (_folder, path) = written(&golden, "qwen3");
    let info = describe(&path).unwrap();
    assert_eq!((info.model_type.as_str(), info.copied_bytes), ("qwen3", 0));
    let config: Config = gguf_config(&Gguf::open(&path).unwrap()).unwrap();
    assert_eq!(config.model_type().unwrap(), "qwen3");
}
