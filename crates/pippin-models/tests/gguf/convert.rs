//! What llama.cpp's converter does with a model, from its source: metadata, and what it changes in tensors.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pippin_models::testing;
use pippin_tensor::Dtype;
use pippin_weights::gguf::{GgmlType, GgufWriter};
use serde_json::Value;

use crate::support::Golden;

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
        ("sinks" | "layer_scalar" | "correct_output_scale", name) if !name.ends_with(".weight") => {
            format!("{name}.weight")
        }
        ("dt_bias" | "e_score_correction_bias" | "expert_bias", name) if !name.ends_with(".bias") => {
            format!("{name}.bias")
        }
        _ => found,
    };
    match layer {
        Some(layer) => found.replacen("blk.0.", &format!("blk.{layer}."), 1),
        None => found,
    }
}

/// The configuration as the converter sees it: with the fields of the text model at the top.
struct Parameters {
    value: Value,
}

impl Parameters {
    fn of(golden: &Golden) -> Self {
        let mut value = golden.config.value().clone();
        if let Some(Value::Object(text)) = value.get("text_config").cloned() {
            value.as_object_mut().unwrap().extend(text);
        }
        // A field that is null is not there; where one says nothing, this is what the class of the configuration takes.
        value.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        Self { value }
    }

    /// The first of some fields that is there.
    fn find(&self, names: &[&str]) -> Option<&Value> {
        names.iter().find_map(|name| self.value.get(name))
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.value.get(name)
    }

    fn count(&self, name: &str) -> usize {
        self.get(name).and_then(Value::as_u64).unwrap_or_else(|| panic!("{name} is missing")) as usize
    }

    fn number(&self, name: &str) -> f64 {
        self.get(name).and_then(Value::as_f64).unwrap_or_else(|| panic!("{name} is missing"))
    }

    fn layers(&self) -> usize {
        self.find(&["num_hidden_layers", "n_layer"]).unwrap().as_u64().unwrap() as usize
    }

    fn heads(&self) -> usize {
        self.find(&["num_attention_heads", "n_head"]).and_then(Value::as_u64).unwrap_or(1) as usize
    }

    fn kv_heads(&self) -> usize {
        self.get("num_key_value_heads").and_then(Value::as_u64).map_or(self.heads(), |n| n as usize)
    }

    fn head_dim(&self) -> usize {
        match self.get("head_dim") {
            Some(dim) => dim.as_u64().unwrap() as usize,
            None => self.find(&["hidden_size", "n_embd"]).unwrap().as_u64().unwrap() as usize / self.heads(),
        }
    }

    /// Rope parameters, those of layers without a window where they differ.
    fn rope(&self) -> Option<&Value> {
        let all = self.find(&["rope_parameters", "rope_scaling"])?;
        Some(all.get("full_attention").unwrap_or(all))
    }

    /// A rope parameter, or the field of that name.
    fn rope_number(&self, name: &str) -> Option<f64> {
        let inside = self.rope().and_then(|rope| rope[name].as_f64());
        inside.or_else(|| self.get(name).and_then(Value::as_f64))
    }
}

type Write = Box<dyn Fn(&mut GgufWriter, &str)>;

/// Keys of one architecture, of which the last value counts.
struct Writer<'a> {
    keys: BTreeMap<String, Write>,
    architecture: &'a str,
}

impl Writer<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn set(&mut self, key: &str, write: impl Fn(&mut GgufWriter, &str) + 'static) {
        self.keys.insert(self.key(key), Box::new(write));
    }

    fn u32(&mut self, key: &str, value: usize) {
        self.set(key, move |file, key| _ = file.u32(key, value as u32));
    }

    fn f32(&mut self, key: &str, value: f64) {
        self.set(key, move |file, key| _ = file.f32(key, value as f32));
    }

    fn bool(&mut self, key: &str, value: bool) {
        self.set(key, move |file, key| _ = file.bool(key, value));
    }

    fn string(&mut self, key: &str, value: &str) {
        let value = value.to_owned();
        self.set(key, move |file, key| _ = file.string(key, &value));
    }

    fn bools(&mut self, key: &str, values: &[bool]) {
        let values: Vec<Vec<u8>> = values.iter().map(|value| vec![u8::from(*value)]).collect();
        self.set(key, move |file, key| _ = file.list(key, 7, &values));
    }

    fn i32s(&mut self, key: &str, values: &[usize]) {
        let values: Vec<i32> = values.iter().map(|value| *value as i32).collect();
        self.set(key, move |file, key| _ = file.i32s(key, &values));
    }

    /// A count, if there is the value.
    fn count(&mut self, key: &str, value: Option<&Value>) {
        if let Some(value) = value.and_then(Value::as_u64) {
            self.u32(key, value as usize);
        }
    }

    /// A number, if there is the value.
    fn number(&mut self, key: &str, value: Option<&Value>) {
        if let Some(value) = value.and_then(Value::as_f64) {
            self.f32(key, value);
        }
    }

    fn flag(&mut self, key: &str, value: Option<&Value>) {
        if let Some(value) = value.and_then(Value::as_bool) {
            self.bool(key, value);
        }
    }

    /// `TextModel.set_gguf_parameters`
    fn common(&mut self, config: &Parameters) {
        self.u32("block_count", config.layers());
        self.count("context_length", config.find(&["max_position_embeddings", "n_ctx", "n_positions"]));
        self.count("embedding_length", config.find(&["hidden_size", "n_embd"]));
        self.count("feed_forward_length", config.find(&["intermediate_size", "n_inner"]));
        self.count("attention.head_count", config.find(&["num_attention_heads", "n_head"]));
        if !self.architecture.starts_with("lfm2") {
            self.count("attention.head_count_kv", config.get("num_key_value_heads"));
        }
        self.rope(config);
        self.number("attention.layer_norm_rms_epsilon", config.find(&["rms_norm_eps", "norm_eps"]));
        let eps = config.find(&["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"]);
        self.number("attention.layer_norm_epsilon", eps);
        self.count("expert_count", config.find(&["num_local_experts", "num_experts", "n_routed_experts"]));
        self.count("expert_used_count", config.find(&["num_experts_per_tok", "top_k_experts"]));
        self.count("expert_group_count", config.get("n_group"));
        self.count("expert_group_used_count", config.get("topk_group"));
        match config.find(&["score_function", "scoring_func"]).and_then(Value::as_str) {
            Some("sigmoid" | "noaux_tc") => self.u32("expert_gating_func", 2),
            Some("softmax") => self.u32("expert_gating_func", 1),
            _ => {}
        }
        self.count("attention.key_length", config.get("head_dim"));
        self.count("attention.value_length", config.get("head_dim"));
    }

    fn rope(&mut self, config: &Parameters) {
        let rope = config.rope().unwrap_or(&Value::Null);
        let kind = rope["rope_type"].as_str().or(rope["type"].as_str());
        let number = |field: &str| rope[field].as_f64();
        match kind {
            Some(kind @ ("linear" | "yarn")) => {
                self.string("rope.scaling.type", kind);
                self.f32("rope.scaling.factor", number("factor").unwrap());
                if kind == "yarn" {
                    let original = number("original_max_position_embeddings").unwrap();
                    self.u32("rope.scaling.original_context_length", original as usize);
                    for beta in ["beta_fast", "beta_slow"] {
                        self.number(&format!("rope.scaling.yarn_{beta}"), rope.get(beta));
                    }
                }
            }
            Some("longrope" | "su") => {
                self.string("rope.scaling.type", "longrope");
                let original = rope.get("original_max_position_embeddings");
                let original = original.or(config.get("original_max_position_embeddings"));
                self.count("rope.scaling.original_context_length", original);
            }
            None | Some("default" | "mrope" | "dynamic" | "llama3" | "proportional") => {}
            Some(other) => panic!("{other}"),
        }
        if let Some(sections) = rope["mrope_section"].as_array() {
            let mut sections: Vec<usize> = sections.iter().map(|n| n.as_u64().unwrap() as usize).collect();
            sections.resize(4, 0);
            self.i32s("rope.dimension_sections", &sections);
        }
        if let Some(theta) = config.rope_number("rope_theta") {
            self.f32("rope.freq_base", theta);
        }
        let all = config.find(&["rope_parameters", "rope_scaling"]).unwrap_or(&Value::Null);
        let local = all["sliding_attention"].get("rope_theta").or(config.get("rope_local_base_freq"));
        self.number("rope.freq_base_swa", local);
    }

    fn windows(&mut self, config: &Parameters) {
        let windowed: Vec<bool> = (0..config.layers())
            .map(|layer| match config.get("layer_types") {
                Some(types) => types[layer] == "sliding_attention",
                None => !(layer + 1).is_multiple_of(4),
            })
            .collect();
        self.bools("attention.sliding_window_pattern", &windowed);
    }

    /// What classes of the converter add to it.
    fn own(&mut self, config: &Parameters) {
        let share = config.rope_number("partial_rotary_factor");
        let rotated = |default: f64| (config.head_dim() as f64 * share.unwrap_or(default)) as usize;
        match self.architecture {
            "llama" | "internlm2" | "xverse" | "smollm3" => {
                self.u32("rope.dimension_count", config.head_dim());
            }
            "mistral3" => {
                self.u32("rope.dimension_count", config.head_dim());
                let rope = config.rope().unwrap_or(&Value::Null);
                self.number("rope.scaling.yarn_log_multiplier", rope.get("mscale_all_dim"));
                self.number("attention.temperature_scale", rope.get("llama_4_scaling_beta"));
            }
            "granite" | "granitemoe" => {
                self.u32("rope.dimension_count", config.head_dim());
                self.number("attention.scale", config.get("attention_multiplier"));
                self.number("embedding_scale", config.get("embedding_multiplier"));
                self.number("residual_scale", config.get("residual_multiplier"));
                self.number("logit_scale", config.get("logits_scaling"));
                self.count("expert_shared_feed_forward_length", config.get("shared_intermediate_size"));
            }
            "minicpm" => {
                self.f32("embedding_scale", config.number("scale_emb"));
                let layers = config.layers() as f64;
                self.f32("residual_scale", config.number("scale_depth") / layers.sqrt());
                self.f32("logit_scale", config.number("hidden_size") / config.number("dim_model_base"));
            }
            "command-r" => {
                self.f32("logit_scale", config.number("logit_scale"));
                self.string("rope.scaling.type", "none");
            }
            "cohere2" => {
                self.f32("logit_scale", config.number("logit_scale"));
                self.count("attention.sliding_window", config.get("sliding_window"));
                self.count("attention.sliding_window_pattern", config.get("sliding_window_pattern"));
                self.u32("rope.dimension_count", config.head_dim());
                self.string("rope.scaling.type", "none");
            }
            "deepseek2" | "mistral4" => {
                let [rope, plain, value, rank] =
                    ["qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "kv_lora_rank"]
                        .map(|field| config.count(field));
                self.u32("attention.head_count_kv", 1);
                self.u32("leading_dense_block_count", config.count("first_k_dense_replace"));
                self.count("attention.q_lora_rank", config.get("q_lora_rank"));
                self.u32("attention.kv_lora_rank", rank);
                self.u32("attention.key_length", rank + rope);
                self.u32("attention.value_length", rank);
                self.u32("attention.key_length_mla", plain + rope);
                self.u32("attention.value_length_mla", value);
                self.u32("expert_feed_forward_length", config.count("moe_intermediate_size"));
                self.u32("expert_shared_count", config.count("n_shared_experts"));
                self.number("expert_weights_scale", config.get("routed_scaling_factor"));
                if config.get("norm_topk_prob") == Some(&Value::Bool(true)) {
                    self.bool("expert_weights_norm", true);
                }
                self.u32("rope.dimension_count", rope);
                if let Some(all) = config.rope().and_then(|rope| rope["mscale_all_dim"].as_f64()) {
                    self.f32("rope.scaling.yarn_log_multiplier", 0.1 * all);
                }
                if let Some(beta) = config.rope().and_then(|rope| rope.get("llama_4_scaling_beta")) {
                    self.number("attention.temperature_scale", Some(beta));
                }
            }
            "qwen2moe" | "qwen3moe" | "qwen3vlmoe" => {
                self.count("expert_feed_forward_length", config.get("moe_intermediate_size"));
                let shared = config.get("shared_expert_intermediate_size");
                self.count("expert_shared_feed_forward_length", shared);
            }
            "dots1" | "glm4moe" | "exaone-moe" => {
                if self.architecture == "glm4moe" {
                    let default = if config.value["model_type"] == "solar_open" { 1.0 } else { 0.5 };
                    self.u32("rope.dimension_count", rotated(default));
                    self.u32("expert_gating_func", 2);
                }
                if self.architecture == "exaone-moe" {
                    self.u32("expert_gating_func", 2);
                    self.count("attention.sliding_window", config.get("sliding_window"));
                    self.windows(config);
                }
                let dense = match config.get("is_moe_layer").and_then(Value::as_array) {
                    Some(list) => list.iter().position(|mixture| *mixture == true).unwrap(),
                    None => config.count("first_k_dense_replace"),
                };
                self.u32("leading_dense_block_count", dense);
                self.count("expert_feed_forward_length", config.get("moe_intermediate_size"));
                let shared = config.find(&["n_shared_experts", "num_shared_experts"]);
                self.count("expert_shared_count", shared);
                self.number("expert_weights_scale", config.get("routed_scaling_factor"));
                self.flag("expert_weights_norm", config.get("norm_topk_prob"));
            }
            "ernie4_5-moe" => {
                self.u32("expert_count", config.count("moe_num_experts"));
                self.u32("expert_used_count", config.count("moe_k"));
                self.u32("interleave_moe_layer_step", config.count("moe_layer_interval"));
                self.u32("leading_dense_block_count", config.count("moe_layer_start_index"));
                self.u32("expert_feed_forward_length", config.count("moe_intermediate_size"));
                self.u32("expert_shared_count", config.count("moe_num_shared_experts"));
                let shared = config.count("intermediate_size") / config.kv_heads();
                self.u32("expert_shared_feed_forward_length", shared);
            }
            "exaone4" => {
                if let Some(pattern) = config.get("sliding_window_pattern").and_then(Value::as_str) {
                    self.count("attention.sliding_window", config.get("sliding_window"));
                    let letters: Vec<char> = pattern.chars().collect();
                    let windowed: Vec<bool> =
                        (0..config.layers()).map(|layer| letters[layer % letters.len()] == 'L').collect();
                    self.bools("attention.sliding_window_pattern", &windowed);
                }
            }
            "gemma" | "gemma2" | "gemma3" => {
                self.number("attn_logit_softcapping", config.get("attn_logit_softcapping"));
                self.number("final_logit_softcapping", config.get("final_logit_softcapping"));
                self.count("attention.sliding_window", config.get("sliding_window"));
                self.count("attention.sliding_window_pattern", config.get("sliding_window_pattern"));
            }
            "gemma3n" => {
                self.number("final_logit_softcapping", config.get("final_logit_softcapping"));
                self.count("attention.sliding_window", config.get("sliding_window"));
                self.count("altup.active_idx", config.get("altup_active_idx"));
                self.count("altup.num_inputs", config.get("altup_num_inputs"));
                self.u32("embedding_length_per_layer_input", config.count("hidden_size_per_layer_input"));
                self.u32("attention.shared_kv_layers", config.count("num_kv_shared_layers"));
                let widths = config.get("intermediate_size").unwrap().as_array().unwrap();
                let widths: Vec<usize> = widths.iter().map(|n| n.as_u64().unwrap() as usize).collect();
                self.i32s("feed_forward_length", &widths);
                let pattern = config.get("activation_sparsity_pattern").unwrap().as_array().unwrap();
                let deviations: Vec<f32> = pattern
                    .iter()
                    .map(|share| match share.as_f64().unwrap() {
                        0.0 => f32::NEG_INFINITY,
                        // torch.distributions.normal.Normal(0, 1).icdf
                        0.7 => 0.524_400_5,
                        0.8 => 0.841_621_2,
                        other => panic!("{other}"),
                    })
                    .collect();
                self.set("activation_sparsity_scale", move |file, key| _ = file.f32s(key, &deviations));
                self.windows(config);
            }
            "gemma4" => {
                self.number("final_logit_softcapping", config.get("final_logit_softcapping"));
                self.count("attention.sliding_window", config.get("sliding_window"));
                self.u32("attention.shared_kv_layers", config.count("num_kv_shared_layers"));
                let width = config.get("hidden_size_per_layer_input").and_then(Value::as_u64).unwrap_or(0);
                self.u32("embedding_length_per_layer_input", width as usize);
                self.windows(config);
                let [local, global] = ["head_dim", "global_head_dim"].map(|field| config.count(field));
                for (key, dim) in [("key_length", global), ("value_length", global)] {
                    self.u32(&format!("attention.{key}"), dim);
                    self.u32(&format!("attention.{key}_swa"), local);
                }
                self.count("expert_feed_forward_length", config.get("moe_intermediate_size"));
                let (layers, shared) = (config.layers(), config.count("num_kv_shared_layers"));
                if config.get("use_double_wide_mlp") == Some(&Value::Bool(true)) {
                    let width = config.count("intermediate_size");
                    let widths: Vec<usize> = (0..layers)
                        .map(|layer| if layer < layers - shared { width } else { 2 * width })
                        .collect();
                    self.i32s("feed_forward_length", &widths);
                }
                if let Some(full) = config.get("num_global_key_value_heads").and_then(Value::as_u64) {
                    let types = config.get("layer_types").unwrap();
                    let of = |layer: usize| match types[layer] == "sliding_attention" {
                        true => config.kv_heads(),
                        false => full as usize,
                    };
                    let counts: Vec<usize> = (0..layers).map(of).collect();
                    self.i32s("attention.head_count_kv", &counts);
                }
                self.u32("rope.dimension_count", global);
                self.u32("rope.dimension_count_swa", local);
            }
            "qwen3next" | "qwen35" | "qwen35moe" => {
                if self.architecture != "qwen35" {
                    self.count("expert_feed_forward_length", config.get("moe_intermediate_size"));
                    let shared = config.get("shared_expert_intermediate_size");
                    self.count("expert_shared_feed_forward_length", shared);
                }
                let values = config.count("linear_num_value_heads");
                self.u32("ssm.conv_kernel", config.count("linear_conv_kernel_dim"));
                self.u32("ssm.state_size", config.count("linear_key_head_dim"));
                self.u32("ssm.group_count", config.count("linear_num_key_heads"));
                self.u32("ssm.time_step_rank", values);
                self.u32("ssm.inner_size", config.count("linear_value_head_dim") * values);
                self.u32("full_attention_interval", config.count("full_attention_interval"));
                self.u32("rope.dimension_count", rotated(0.25));
            }
            "glm4" => self.u32("rope.dimension_count", rotated(0.5)),
            "phi2" => self.u32("rope.dimension_count", rotated(0.4)),
            "phi3" => {
                self.u32("rope.dimension_count", rotated(1.0));
                self.count("attention.sliding_window", config.get("sliding_window"));
            }
            "gpt-oss" => {
                self.count("attention.sliding_window", config.get("sliding_window"));
                self.count("expert_feed_forward_length", config.get("intermediate_size"));
            }
            "hunyuan-dense" | "hunyuan-moe" => {
                let rope = config.rope().unwrap();
                let (alpha, dim) = (rope["alpha"].as_f64().unwrap(), config.head_dim() as f64);
                let base = config.number("rope_theta") * alpha.powf(dim / (dim - 2.0));
                self.f32("rope.freq_base", base);
                self.string("rope.scaling.type", "none");
                self.f32("rope.scaling.factor", 1.0);
                if self.architecture == "hunyuan-moe" {
                    let width = config.find(&["moe_intermediate_size", "intermediate_size"]);
                    self.count("expert_shared_feed_forward_length", config.get("intermediate_size"));
                    self.count("expert_feed_forward_length", width);
                    self.u32("expert_used_count", config.count("moe_topk"));
                    self.u32("expert_shared_count", config.count("num_shared_expert"));
                }
            }
            "lfm2" | "lfm2moe" => {
                let types = config.get("layer_types");
                let attends = |layer: usize| match types {
                    Some(types) => types[layer] == "full_attention",
                    None => config.value["full_attn_idxs"].as_array().unwrap().contains(&layer.into()),
                };
                let kv_heads = |layer| if attends(layer) { config.kv_heads() } else { 0 };
                let list: Vec<usize> = (0..config.layers()).map(kv_heads).collect();
                self.i32s("attention.head_count_kv", &list);
                self.u32("shortconv.l_cache", config.count("conv_L_cache"));
                if self.architecture == "lfm2moe" {
                    self.u32("expert_feed_forward_length", config.count("moe_intermediate_size"));
                    self.u32("leading_dense_block_count", config.count("num_dense_layers"));
                    self.u32("expert_gating_func", 2);
                }
            }
            "gpt2" => self.u32("feed_forward_length", 4 * config.count("n_embd")),
            "starcoder" => {
                self.u32("feed_forward_length", 4 * config.count("n_embd"));
                self.u32("attention.head_count_kv", 1);
            }
            "gptneox" => {
                let rotated = config.head_dim() as f64 * config.number("rotary_pct");
                self.u32("rope.dimension_count", rotated as usize);
                self.bool(
                    "use_parallel_residual",
                    config.get("use_parallel_residual") != Some(&false.into()),
                );
            }
            "bailingmoe2" => {
                self.u32("rope.dimension_count", rotated(0.5));
                self.u32("leading_dense_block_count", config.count("first_k_dense_replace"));
                let width = config.count("moe_intermediate_size");
                self.u32("expert_feed_forward_length", width);
                let shared = config.get("moe_shared_expert_intermediate_size").and_then(Value::as_u64);
                let shared = shared.map_or(width * config.count("num_shared_experts"), |n| n as usize);
                self.u32("expert_shared_feed_forward_length", shared);
                self.number("expert_weights_scale", config.get("routed_scaling_factor"));
                self.u32("expert_shared_count", config.count("num_shared_experts"));
                self.flag("expert_weights_norm", config.get("norm_topk_prob"));
            }
            "nemotron" => {
                self.number("attention.layer_norm_epsilon", config.get("norm_eps"));
                self.u32("rope.dimension_count", rotated(0.5));
                self.string("rope.scaling.type", "none");
            }
            "granitehybrid" => {
                self.u32("rope.dimension_count", config.head_dim());
                self.number("attention.scale", config.get("attention_multiplier"));
                self.number("embedding_scale", config.get("embedding_multiplier"));
                self.number("residual_scale", config.get("residual_multiplier"));
                self.number("logit_scale", config.get("logits_scaling"));
                self.count("expert_shared_feed_forward_length", config.get("shared_intermediate_size"));
                let heads = config.count("mamba_n_heads");
                self.u32("ssm.conv_kernel", config.count("mamba_d_conv"));
                self.u32("ssm.state_size", config.count("mamba_d_state"));
                self.u32("ssm.group_count", config.count("mamba_n_groups"));
                self.u32("ssm.inner_size", heads * config.count("mamba_d_head"));
                self.u32("ssm.time_step_rank", heads);
                let types = config.get("layer_types").unwrap();
                let kv_heads = |layer: usize| if types[layer] == "attention" { config.kv_heads() } else { 0 };
                let kv_heads: Vec<usize> = (0..config.layers()).map(kv_heads).collect();
                self.i32s("attention.head_count_kv", &kv_heads);
                // Without layers that keep a state it would be true.
                let rotates = config.get("position_embedding_type") == Some(&Value::from("rope"));
                self.bool("rope.scaling.finetuned", rotates);
            }
            "nemotron_h" | "nemotron_h_moe" => {
                let pattern: Vec<char> =
                    config.get("hybrid_override_pattern").unwrap().as_str().unwrap().chars().collect();
                let heads = config.count("mamba_num_heads");
                self.u32("ssm.conv_kernel", config.count("conv_kernel"));
                self.u32("ssm.state_size", config.count("ssm_state_size"));
                self.u32("ssm.group_count", config.count("n_groups"));
                self.u32("ssm.inner_size", heads * config.count("mamba_head_dim"));
                self.u32("ssm.time_step_rank", heads);
                let list =
                    |of: &dyn Fn(char) -> usize| -> Vec<usize> { pattern.iter().map(|c| of(*c)).collect() };
                self.i32s(
                    "attention.head_count_kv",
                    &list(&|kind| if kind == '*' { config.kv_heads() } else { 0 }),
                );
                let is_mixture = self.architecture == "nemotron_h_moe";
                let width = |kind| match kind {
                    '-' => config.count("intermediate_size"),
                    'E' => config.count("moe_intermediate_size"),
                    _ => 0,
                };
                self.i32s("feed_forward_length", &list(&width));
                self.bool("rope.scaling.finetuned", false);
                if is_mixture {
                    self.u32("expert_feed_forward_length", config.count("moe_intermediate_size"));
                    let shared = config.get("moe_shared_expert_intermediate_size");
                    self.count("expert_shared_feed_forward_length", shared);
                    self.u32("expert_shared_count", config.count("n_shared_experts"));
                    self.flag("expert_weights_norm", config.get("norm_topk_prob"));
                    self.number("expert_weights_scale", config.get("routed_scaling_factor"));
                }
            }
            "mamba2" => {
                self.u32("ssm.inner_size", config.count("num_heads") * config.count("head_dim"));
                self.u32("ssm.time_step_rank", config.count("num_heads"));
                self.u32("ssm.group_count", config.count("n_groups"));
                self.u32("ssm.state_size", config.count("state_size"));
                self.u32("ssm.conv_kernel", config.count("conv_kernel"));
                self.number("attention.layer_norm_rms_epsilon", config.get("layer_norm_epsilon"));
            }
            "minimax-m2" => {
                self.u32("expert_feed_forward_length", config.count("intermediate_size"));
                self.u32("rope.dimension_count", config.count("rotary_dim"));
            }
            "olmo2" if config.get("sliding_window").is_some() => {
                self.count("attention.sliding_window", config.get("sliding_window"));
                self.windows(config);
            }
            "stablelm" => {
                self.u32("rope.dimension_count", rotated(0.25));
                self.flag("use_parallel_residual", config.get("use_parallel_residual"));
            }
            "starcoder2" => self.count("attention.sliding_window", config.get("sliding_window")),
            "command-r-plus" | "olmo2" | "olmoe" | "qwen2" | "qwen3" | "qwen2vl" | "qwen3vl" | "seed_oss"
            | "ernie4_5" => {}
            other => panic!("{other}"),
        }
    }
}

/// The file that llama.cpp's converter would make of a golden model, in `f32`.
pub(crate) fn convert(golden: &Golden, architecture: &str) -> Vec<u8> {
    let config = Parameters::of(golden);
    let mut writer = Writer { keys: BTreeMap::new(), architecture };
    writer.common(&config);
    writer.own(&config);
    let mut file = GgufWriter::new();
    file.string("general.architecture", architecture);
    for (key, write) in &writer.keys {
        write(&mut file, key);
    }

    let mut names = names(architecture);
    if architecture == "qwen3moe" || architecture == "qwen3vlmoe" {
        // Not all layers have experts.
        names.extend(self::names("qwen3"));
    }
    for (name, shape, values) in extra(&config, architecture) {
        write(&mut file, &name, &shape, &values);
    }
    let checkpoint = testing::checkpoint(&golden.config, Dtype::F32, golden.salt).unwrap();
    for tensor in checkpoint.tensors() {
        let name = tensor.name().replace("language_model.", "");
        let mut values = tensor.to_f32().unwrap();
        let mut shape = tensor.shape().to_vec();
        // These are published in one.
        if architecture == "gemma4" && name.ends_with("experts.switch_glu.up_proj.weight") {
            continue;
        }
        if architecture == "gemma4" && name.ends_with("experts.switch_glu.gate_proj.weight") {
            let up = tensor.name().replace("gate_proj", "up_proj");
            let up = checkpoint.get(&up).unwrap().to_f32().unwrap();
            let expert = shape[1] * shape[2];
            let both = values.chunks_exact(expert).zip(up.chunks_exact(expert));
            values = both.flat_map(|(gate, up)| [gate, up].concat()).collect();
            shape[1] *= 2;
        }
        let changed = modified(&config, architecture, &name, &shape, values);
        for (name, shape, values) in changed {
            if architecture == "lfm2" && name.ends_with("layers.0.feed_forward.w1.weight") {
                file.u32("lfm2.feed_forward_length", shape[0] as u32);
            }
            write(&mut file, &theirs(&names, &name), &shape, &values);
        }
    }
    file.bytes()
}

fn write(file: &mut GgufWriter, name: &str, shape: &[usize], values: &[f32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    file.tensor(name, GgmlType::F32, shape, &bytes);
}

/// A tensor under our name of it.
type Tensor = (String, Vec<usize>, Vec<f32>);

/// `generate_extra_tensors`
fn extra(config: &Parameters, architecture: &str) -> Vec<Tensor> {
    let rope = config.rope().unwrap_or(&Value::Null);
    let list = |field: &str| -> Vec<f32> {
        rope[field].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
    };
    let factors = |name: &str, values: Vec<f32>| (name.to_owned(), vec![values.len()], values);
    match rope["rope_type"].as_str().or(rope["type"].as_str()) {
        Some("llama3") => vec![factors("rope_freqs.weight", llama3_factors(config))],
        Some("longrope" | "su") => vec![
            factors("rope_factors_long.weight", list("long_factor")),
            factors("rope_factors_short.weight", list("short_factor")),
        ],
        Some("proportional") => {
            assert_eq!(architecture, "gemma4");
            let half = config.count("global_head_dim") / 2;
            let turning = half as f64 * rope["partial_rotary_factor"].as_f64().unwrap();
            let factor = |pair| if pair < turning as usize { 1.0 } else { 1e30 };
            vec![factors("rope_freqs.weight", (0..half).map(factor).collect())]
        }
        _ => Vec::new(),
    }
}

/// `modify_tensors`: what a tensor becomes, under our names of what comes out.
fn modified(
    config: &Parameters,
    architecture: &str,
    name: &str,
    shape: &[usize],
    mut values: Vec<f32>,
) -> Vec<Tensor> {
    let mut shape = shape.to_vec();
    const PERMUTED: [&str; 9] = [
        "llama",
        "granite",
        "granitemoe",
        "granitehybrid",
        "smollm3",
        "mistral3",
        "minicpm",
        "xverse",
        "internlm2",
    ];
    if architecture == "internlm2" {
        return internlm2(config, name, &shape, &values);
    }
    if PERMUTED.contains(&architecture) {
        if name.contains("q_proj.") {
            values = permute(&values, shape[0], config.heads());
        } else if name.contains("k_proj.") {
            values = permute(&values, shape[0], config.kv_heads());
        }
    }
    let adds_one = ["gemma", "gemma2", "gemma3", "nemotron"].contains(&architecture);
    if adds_one && name.ends_with("norm.weight") {
        values.iter_mut().for_each(|value| *value += 1.0);
    }
    if architecture == "gemma3n" || architecture == "gemma4" {
        return gemma(config, name, &shape, values);
    }
    if architecture == "gptneox" && name.contains("query_key_value") {
        // reshape(heads, 3, dim, …), and then one after the other
        let width = values.len() / config.heads() / 3;
        let of = |part: usize| values.chunks_exact(width).skip(part).step_by(3).flatten().copied();
        values = (0..3).flat_map(of).collect();
    }
    if name.contains("linear_attn.") {
        return delta_net(config, architecture, name, &shape, values);
    }
    if architecture.starts_with("deepseek2") && name.ends_with(".kv_b_proj.weight") {
        return latent(config, name, &values);
    }
    if name.contains("conv1d.weight") || name.contains("conv.conv.weight") {
        shape.pop();
    }
    if name.ends_with("shared_expert_gate.weight") && architecture != "qwen35moe" {
        // As the tools of llama.cpp have written it for long.
        shape.remove(0);
    }
    if name.ends_with("A_log") {
        values.iter_mut().for_each(|value| *value = -value.exp());
        shape.push(1);
    }
    if name.ends_with("mixer.D") || name.ends_with("mamba.D") {
        shape.push(1);
    }
    if name.ends_with("mixer.norm.weight") || name.ends_with("mamba.norm.weight") {
        let groups = config.find(&["n_groups", "mamba_n_groups"]).unwrap().as_u64().unwrap() as usize;
        shape = vec![groups, shape[0] / groups];
    }
    vec![(name.to_owned(), shape, values)]
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

/// Gemma 3n and 4: some tensors have an ending that they have not in a checkpoint, and the streams' matrices are stacked.
fn gemma(config: &Parameters, name: &str, shape: &[usize], values: Vec<f32>) -> Vec<Tensor> {
    if name.contains(".altup_projections.") || name.contains(".altup_unembed_projections.") {
        let parts: Vec<&str> = name.split('.').collect();
        let [.., module, number, _] = parts[..] else { panic!("{name}") };
        let streams = config.count("altup_num_inputs") - 1;
        STACKS.with_borrow_mut(|stacks| {
            let stack = stacks.entry(module.to_owned()).or_default();
            assert_eq!(number.parse(), Ok(stack.len()));
            stack.push(values);
            if stack.len() < streams {
                return Vec::new();
            }
            let values = stacks.remove(module).unwrap().concat();
            vec![(format!("model.{module}.weight"), [&[streams][..], shape].concat(), values)]
        })
    } else {
        let name = match name.strip_suffix("router.scale") {
            Some(at) => format!("{at}router.proj.scale"),
            None => name.replace("router.per_expert_scale", "experts.down_proj.scale"),
        };
        let name = name.replace("experts.switch_glu.gate_proj", "experts.gate_up_proj");
        vec![(name.replace("switch_glu.", ""), shape.to_vec(), values)]
    }
}

thread_local! {
    /// Matrices that are waiting for others to be stacked with.
    static STACKS: std::cell::RefCell<BTreeMap<String, Vec<Vec<f32>>>> = std::cell::RefCell::default();
}

/// Qwen 3 Next, where the inputs of each head of keys are together, and Qwen 3.5, where they are apart, and the heads of values
/// in another order: `reshape(keys, group, …).swapaxes(0, 1)`.
fn delta_net(
    config: &Parameters,
    architecture: &str,
    name: &str,
    shape: &[usize],
    mut values: Vec<f32>,
) -> Vec<Tensor> {
    let [keys, heads, key_dim, value_dim] =
        ["linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim"]
            .map(|field| config.count(field));
    let group = heads / keys;
    let mut shape = shape.to_vec();
    if name.ends_with("A_log") {
        values.iter_mut().for_each(|value| *value = -value.exp());
    }
    if name.ends_with("conv1d.weight") {
        shape.pop();
    }
    if architecture == "qwen3next" {
        let Some(at) = name.strip_suffix("in_proj_qkvz.weight") else {
            return vec![(name.to_owned(), shape, values)];
        };
        let columns = shape[1];
        let sizes = [key_dim, key_dim, group * value_dim, group * value_dim].map(|rows| rows * columns);
        let mut parts: [Vec<f32>; 4] = Default::default();
        for head in values.chunks_exact(sizes.iter().sum()) {
            let mut first = 0;
            for (part, size) in parts.iter_mut().zip(sizes) {
                part.extend_from_slice(&head[first..first + size]);
                first += size;
            }
        }
        let [query, key, value, gate] = parts;
        let mixed = [query, key, value].concat();
        let tensor = |name: &str, values: Vec<f32>| {
            (format!("{at}{name}.weight"), vec![values.len() / columns, columns], values)
        };
        return vec![tensor("in_proj_qkv", mixed), tensor("in_proj_z", gate)];
    }
    let reorder = |values: &[f32], dim: usize| -> Vec<f32> {
        let width = dim * (values.len() / heads / dim);
        let head = |at: usize| &values[at * width..(at + 1) * width];
        (0..group)
            .flat_map(|inner| (0..keys).flat_map(move |key| head(key * group + inner).to_vec()))
            .collect()
    };
    let module = name.trim_end_matches(".weight").rsplit('.').next().unwrap();
    match module {
        "in_proj_qkv" | "conv1d" => {
            let kept = 2 * keys * key_dim * (values.len() / shape[0]);
            let reordered = reorder(&values[kept..], value_dim);
            values.truncate(kept);
            values.extend(reordered);
        }
        "in_proj_z" => values = reorder(&values, value_dim),
        "in_proj_a" | "in_proj_b" | "A_log" | "dt_bias" => values = reorder(&values, 1),
        "out_proj" => {
            values = values.chunks_exact(shape[1]).flat_map(|row| reorder(row, value_dim)).collect();
        }
        "norm" => {}
        other => panic!("{other}"),
    }
    vec![(name.to_owned(), shape, values)]
}

/// InternLM 2: queries of each head of keys, its keys and its values are in one matrix, and names are its own.
fn internlm2(config: &Parameters, name: &str, shape: &[usize], values: &[f32]) -> Vec<Tensor> {
    let ours = [
        ("model.tok_embeddings", "model.embed_tokens"),
        ("output.weight", "lm_head.weight"),
        ("attention.wo.", "self_attn.o_proj."),
        ("attention_norm", "input_layernorm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("feed_forward.w1", "mlp.gate_proj"),
        ("feed_forward.w3", "mlp.up_proj"),
        ("feed_forward.w2", "mlp.down_proj"),
    ];
    let Some((at, _)) = name.split_once("attention.wqkv") else {
        let name = ours.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to));
        return vec![(name, shape.to_vec(), values.to_vec())];
    };
    let (heads, kv_heads) = (config.heads(), config.kv_heads());
    let (group, columns) = (heads / kv_heads, shape[1]);
    let width = shape[0] / (heads + 2 * kv_heads) * columns;
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    for (i, head) in values.chunks_exact(width).enumerate() {
        let part = match i % (group + 2) {
            i if i < group => 0,
            i => i - group + 1,
        };
        parts[part].extend_from_slice(head);
    }
    let [query, key, value] = parts;
    let rows = |values: &[f32]| values.len() / columns;
    let query = permute(&query, rows(&query), heads);
    let key = permute(&key, rows(&key), kv_heads);
    [("q_proj", query), ("k_proj", key), ("v_proj", value)]
        .into_iter()
        .map(|(part, values)| (format!("{at}self_attn.{part}.weight"), vec![rows(&values), columns], values))
        .collect()
}

/// The matrix that makes keys and values of all heads, taken apart; that of keys with rows and columns exchanged.
fn latent(config: &Parameters, name: &str, values: &[f32]) -> Vec<Tensor> {
    let [heads, rank, key, value] = ["num_attention_heads", "kv_lora_rank", "qk_nope_head_dim", "v_head_dim"]
        .map(|field| config.count(field));
    let (mut keys, mut rest) = (Vec::new(), Vec::new());
    for head in values.chunks_exact((key + value) * rank) {
        for column in 0..rank {
            keys.extend((0..key).map(|row| head[row * rank + column]));
        }
        rest.extend_from_slice(&head[key * rank..]);
    }
    vec![
        (name.replace("kv_b_proj", "embed_q"), vec![heads, rank, key], keys),
        (name.replace("kv_b_proj", "unembed_out"), vec![heads, value, rank], rest),
    ]
}

/// The converter's `rope_freqs`.
fn llama3_factors(config: &Parameters) -> Vec<f32> {
    let number = |value: &Value| value.as_f64().unwrap();
    let scaling = config.rope().unwrap();
    let dims = config.head_dim();
    let (factor, low) = (number(&scaling["factor"]), number(&scaling["low_freq_factor"]));
    let (high, context) =
        (number(&scaling["high_freq_factor"]), number(&scaling["original_max_position_embeddings"]));
    let of = |pair: usize| {
        let frequency = 1.0 / config.number("rope_theta").powf(2.0 * pair as f64 / dims as f64);
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
    (0..dims / 2).map(|pair| of(pair) as f32).collect()
}
