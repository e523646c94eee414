//! GGUF files of the golden models: as llama.cpp's converter would write them, and read again, they give mlx-lm's logits.
//!
//! What the converter does is written down here a second time, from its source, and the names of tensors come from its own
//! table (`tools/gguf/make_names.py`).

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use pippin_cpu::CpuBackend;
use pippin_models::{Config, ModelError, describe, gguf_architectures, gguf_config, load, testing};
use pippin_tensor::{Dtype, KvFormat, Numerics};
use pippin_weights::gguf::{GgmlType, Gguf, GgufWriter};
use serde_json::{Value, json};
use support::{Golden, Runner, TOLERANCE, agrees_with_mlx, worst};

/// llama.cpp's names of an architecture's tensors, by ours.
fn names(architecture: &str) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf_names.json");
    let all: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    all[architecture].clone()
}

/// llama.cpp's name of a tensor.
fn theirs(names: &BTreeMap<String, String>, ours: &str) -> String {
    // A layer's number stands for 0.
    let parts: Vec<&str> = ours.split('.').collect();
    let number = parts.iter().position(|part| part.parse::<usize>().is_ok());
    let (general, layer) = match number {
        Some(at) => {
            let mut general = parts.clone();
            general[at] = "0";
            (general.join("."), Some(parts[at]))
        }
        None => (ours.to_owned(), None),
    };
    let found = names.get(&general).cloned().or_else(|| {
        let (module, parameter) = general.rsplit_once('.')?;
        Some(format!("{}.{parameter}", names.get(module)?))
    });
    let found = found.unwrap_or_else(|| panic!("{ours} has no name in GGUF"));
    // What is a tensor by itself has the ending in the name already, or none.
    let found = match (ours.rsplit('.').next().unwrap(), found.as_str()) {
        ("sinks", name) if !name.ends_with(".weight") => format!("{name}.weight"),
        ("dt_bias", name) if !name.ends_with(".bias") => format!("{name}.bias"),
        _ => found,
    };
    match layer {
        Some(layer) => found.replacen("blk.0.", &format!("blk.{layer}."), 1),
        None => found,
    }
}

struct Writer<'a> {
    file: GgufWriter,
    architecture: &'a str,
    config: &'a Value,
}

impl Writer<'_> {
    fn count(&mut self, key: &str, field: &str) {
        if let Some(value) = self.config[field].as_u64() {
            self.file.u32(&format!("{}.{key}", self.architecture), value as u32);
        }
    }

    fn number(&mut self, key: &str, field: &str) {
        if let Some(value) = self.config[field].as_f64() {
            self.file.f32(&format!("{}.{key}", self.architecture), value as f32);
        }
    }

    fn u32(&mut self, key: &str, value: usize) {
        self.file.u32(&format!("{}.{key}", self.architecture), value as u32);
    }
}

/// The file that llama.cpp's converter would make of a golden model, in `f32`.
fn convert(golden: &Golden, architecture: &str) -> Vec<u8> {
    let config = golden.config.value();
    let mut file = GgufWriter::new();
    file.string("general.architecture", architecture);
    let mut writer = Writer { file, architecture, config };
    writer.count("block_count", "num_hidden_layers");
    writer.count("context_length", "max_position_embeddings");
    writer.count("embedding_length", "hidden_size");
    if architecture != "lfm2" {
        writer.count("feed_forward_length", "intermediate_size");
    }
    writer.count("attention.head_count", "num_attention_heads");
    if architecture != "lfm2" {
        writer.count("attention.head_count_kv", "num_key_value_heads");
    }
    writer.count("attention.key_length", "head_dim");
    writer.count("attention.sliding_window", "sliding_window");
    writer.number("attention.layer_norm_rms_epsilon", "rms_norm_eps");
    writer.number("attention.layer_norm_epsilon", "layer_norm_eps");
    writer.number("rope.freq_base", "rope_theta");
    writer.number("attn_logit_softcapping", "attn_logit_softcapping");
    writer.number("final_logit_softcapping", "final_logit_softcapping");
    writer.number("attention.layer_norm_epsilon", "norm_epsilon");
    writer.number("logit_scale", "logit_scale");
    writer.number("logit_scale", "logits_scaling");
    writer.number("attention.scale", "attention_multiplier");
    writer.number("embedding_scale", "embedding_multiplier");
    writer.number("residual_scale", "residual_multiplier");
    writer.count("attention.sliding_window_pattern", "sliding_window_pattern");
    writer.count("expert_count", "num_experts");
    writer.count("expert_count", "num_local_experts");
    writer.count("expert_used_count", "num_experts_per_tok");
    writer.count("expert_feed_forward_length", "moe_intermediate_size");
    let count = |field: &str| config[field].as_u64().unwrap_or(0) as usize;
    let heads = count("num_attention_heads");
    let kv_heads = config["num_key_value_heads"].as_u64().map_or(heads, |count| count as usize);
    if let Some(share) = config["partial_rotary_factor"].as_f64() {
        let head_dim =
            config["head_dim"].as_u64().map_or_else(|| count("hidden_size") / heads, |dim| dim as usize);
        writer.u32("rope.dimension_count", (head_dim as f64 * share) as usize);
    }
    let layers = count("num_hidden_layers");
    let mut factors = Vec::new();
    let scaling = &config["rope_scaling"];
    match scaling["rope_type"].as_str().or(scaling["type"].as_str()) {
        Some("linear") => {
            writer.file.string(&format!("{architecture}.rope.scaling.type"), "linear");
            writer.file.f32(
                &format!("{architecture}.rope.scaling.factor"),
                scaling["factor"].as_f64().unwrap() as f32,
            );
        }
        Some("yarn") => {
            writer.file.string(&format!("{architecture}.rope.scaling.type"), "yarn");
            writer.file.f32(
                &format!("{architecture}.rope.scaling.factor"),
                scaling["factor"].as_f64().unwrap() as f32,
            );
            let original = scaling["original_max_position_embeddings"].as_u64().unwrap();
            writer.u32("rope.scaling.original_context_length", original as usize);
            for beta in ["beta_fast", "beta_slow"] {
                if let Some(value) = scaling[beta].as_f64() {
                    writer.file.f32(&format!("{architecture}.rope.scaling.yarn_{beta}"), value as f32);
                }
            }
        }
        Some("llama3") => factors.push(("rope_freqs.weight", llama3_factors(config))),
        Some("longrope" | "su") => {
            let original = scaling["original_max_position_embeddings"].as_u64();
            let original = original.or(config["original_max_position_embeddings"].as_u64()).unwrap();
            writer.file.string(&format!("{architecture}.rope.scaling.type"), "longrope");
            writer.u32("rope.scaling.original_context_length", original as usize);
            let list = |field: &str| -> Vec<f32> {
                scaling[field].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
            };
            factors.push(("rope_factors_long.weight", list("long_factor")));
            factors.push(("rope_factors_short.weight", list("short_factor")));
        }
        None | Some("default") => {}
        Some(other) => panic!("{other}"),
    }
    match architecture {
        "gemma3" => writer.number("rope.freq_base_swa", "rope_local_base_freq"),
        "exaone4" => {
            let letters: Vec<char> = config["sliding_window_pattern"].as_str().unwrap().chars().collect();
            let local: Vec<Vec<u8>> =
                (0..layers).map(|layer| vec![u8::from(letters[layer % letters.len()] == 'L')]).collect();
            writer.file.list("exaone4.attention.sliding_window_pattern", 7, &local);
        }
        "gpt-oss" => writer.count("expert_feed_forward_length", "intermediate_size"),
        "lfm2" => {
            let types = config["layer_types"].as_array();
            let attends = |layer: usize| match types {
                Some(types) => types[layer] == "full_attention",
                None => config["full_attn_idxs"].as_array().unwrap().contains(&layer.into()),
            };
            let list: Vec<i32> =
                (0..layers).map(|layer| if attends(layer) { kv_heads as i32 } else { 0 }).collect();
            writer.file.i32s("lfm2.attention.head_count_kv", &list);
            writer.number("attention.layer_norm_rms_epsilon", "norm_eps");
            writer.count("shortconv.l_cache", "conv_L_cache");
        }
        "mamba2" => {
            let inner = count("num_heads") * count("head_dim");
            writer.u32("ssm.inner_size", inner);
            writer.count("ssm.time_step_rank", "num_heads");
            writer.count("ssm.group_count", "n_groups");
            writer.count("ssm.state_size", "state_size");
            writer.count("ssm.conv_kernel", "conv_kernel");
            writer.number("attention.layer_norm_rms_epsilon", "layer_norm_epsilon");
        }
        _ => {}
    }

    let mut names = names(architecture);
    if architecture == "qwen3moe" {
        // Not all layers have experts.
        names.extend(self::names("qwen3"));
    }
    let is_gemma = architecture.starts_with("gemma");
    for tensor in testing::checkpoint(&golden.config, Dtype::F32, golden.salt).unwrap().tensors() {
        let name = tensor.name();
        let mut shape = tensor.shape().to_vec();
        let mut values = tensor.to_f32().unwrap();
        if architecture == "lfm2" && name.ends_with("layers.0.feed_forward.w1.weight") {
            writer.u32("feed_forward_length", shape[0]);
        }
        if ["llama", "granite", "smollm3"].contains(&architecture) {
            if name.contains("q_proj.") {
                values = permute(&values, shape[0], heads);
            } else if name.contains("k_proj.") {
                values = permute(&values, shape[0], kv_heads);
            }
        }
        if is_gemma && name.ends_with("norm.weight") {
            values.iter_mut().for_each(|value| *value += 1.0);
        }
        if name.contains("conv1d.weight") || name.contains("conv.conv.weight") {
            shape.pop();
        }
        if name.ends_with("A_log") {
            values.iter_mut().for_each(|value| *value = -value.exp());
            shape.push(1);
        }
        if name.ends_with("mixer.D") {
            shape.push(1);
        }
        if name.ends_with("mixer.norm.weight") {
            shape = vec![count("n_groups"), shape[0] / count("n_groups")];
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.file.tensor(&theirs(&names, name), GgmlType::F32, &shape, &bytes);
    }
    for (name, values) in factors {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.file.tensor(name, GgmlType::F32, &[values.len()], &bytes);
    }
    writer.file.bytes()
}

/// `weights.reshape(heads, 2, rows / heads / 2, columns).swapaxes(1, 2)`
fn permute(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (columns, half) = (values.len() / rows, rows / heads / 2);
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for pair in 0..half {
            for side in 0..2 {
                let row = (head * 2 + side) * half + pair;
                out.extend_from_slice(&values[row * columns..(row + 1) * columns]);
            }
        }
    }
    out
}

/// The converter's `rope_freqs`.
fn llama3_factors(config: &Value) -> Vec<f32> {
    let number = |value: &Value| value.as_f64().unwrap();
    let scaling = &config["rope_scaling"];
    let heads = number(&config["num_attention_heads"]);
    let dims = config["head_dim"].as_f64().unwrap_or_else(|| number(&config["hidden_size"]) / heads);
    let (factor, low) = (number(&scaling["factor"]), number(&scaling["low_freq_factor"]));
    let (high, context) =
        (number(&scaling["high_freq_factor"]), number(&scaling["original_max_position_embeddings"]));
    let of = |pair: usize| {
        let frequency = 1.0 / number(&config["rope_theta"]).powf(2.0 * pair as f64 / dims);
        let length = 2.0 * std::f64::consts::PI / frequency;
        if length < context / high {
            1.0
        } else if length > context / low {
            factor
        } else {
            let smooth = (context / length - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..dims as usize / 2).map(|pair| of(pair) as f32).collect()
}

fn written(golden: &Golden, architecture: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("{}.gguf", golden.name));
    fs::write(&path, convert(golden, architecture)).unwrap();
    (folder, path)
}

fn loaded(path: &Path) -> Runner {
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
    for (field, value) in changes.as_object().unwrap() {
        config[field] = value.clone();
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
    qwen2: "qwen2" as "qwen2",
    qwen2_yarn: "qwen2-yarn" as "qwen2",
    qwen3: "qwen3" as "qwen3",
    qwen3_untied: "qwen3-untied" as "qwen3",
    qwen3_moe: "qwen3_moe" as "qwen3moe",
    exaone4: "exaone4" as "exaone4",
    gemma: "gemma" as "gemma",
    gemma2: "gemma2" as "gemma2" with {"query_pre_attn_scalar": 24},
    gemma3: "gemma3" as "gemma3" with {"query_pre_attn_scalar": 24},
    glm4: "glm4" as "glm4",
    gpt_oss: "gpt_oss" as "gpt-oss",
    granite: "granite" as "granite",
    olmo2: "olmo2" as "olmo2",
    phi: "phi" as "phi2",
    phi3: "phi3" as "phi3",
    phi3_longrope: "phi3-longrope" as "phi3",
    cohere2: "cohere2" as "cohere2",
    lfm2: "lfm2" as "lfm2",
    mamba2: "mamba2" as "mamba2" with {"time_step_limit": null},
    starcoder2: "starcoder2" as "starcoder2",
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
    assert!(
        message.contains("llama") && message.contains("qwen3") && !message.contains('\u{1b}'),
        "{message}"
    );
}

/// The message with which a changed file is refused.
fn refused(change: impl Fn(&mut GgufWriter)) -> String {
    let golden = Golden::read("llama");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("llama.gguf");
    let mut writer = GgufWriter::new();
    writer.string("general.architecture", "llama").u32("llama.embedding_length", 64);
    change(&mut writer);
    fs::write(&path, writer.bytes()).unwrap();
    drop(golden);
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

/// llama.cpp calls OLMo 3 by the name of OLMo 2: only its window tells them apart.
#[test]
fn a_window_in_olmo2_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("olmo3.gguf");
    let mut writer = GgufWriter::new();
    writer.string("general.architecture", "olmo2");
    for (key, value) in [
        ("embedding_length", 64),
        ("block_count", 1),
        ("feed_forward_length", 96),
        ("context_length", 256),
        ("attention.head_count", 4),
        ("attention.sliding_window", 128),
    ] {
        writer.u32(&format!("olmo2.{key}"), value);
    }
    writer.tensor("token_embd.weight", GgmlType::F32, &[2, 64], &[0; 512]);
    fs::write(&path, writer.bytes()).unwrap();
    let message = describe(&path).unwrap_err().to_string();
    assert!(message.contains("`olmo2.attention.sliding_window`: is 128: OLMo 3"), "{message}");
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
