//! Files that are wrong: each is refused with a message that names the file and the field or tensor, before anything
//! large is allocated, and nothing panics.

use std::sync::Arc;

use pippin_cpu::CpuBackend;
use pippin_models::{
    CachePlan, Config, LanguageModel, ModelError, ModelTypeRegistry, Output, SlotEdit, describe,
    describe_from, load_from, testing,
};
use pippin_tensor::{
    Batch, Dtype, Input, KvFormat, LogitRows, Numerics, SequenceRows, StepLimits, TensorData, Want,
};
use pippin_weights::{Checkpoint, write_safetensors};
use serde_json::{Value, json};

fn base(model_type: &str) -> Value {
    let mut value = testing::tiny_llama();
    value["model_type"] = model_type.into();
    value
}

fn spec_error(value: &Value) -> ModelError {
    let result = Config::new(value.clone())
        .and_then(|config| ModelTypeRegistry::find(&config).and_then(|family| family.spec(&config)));
    result.expect_err(&value.to_string())
}

fn cpu() -> Arc<CpuBackend> {
    Arc::new(CpuBackend::new(Numerics::Exact))
}

#[test]
fn fields_out_of_range_are_named() {
    let int = |field: &str| format!("field `{field}` must be a positive integer, found ");
    for (field, value, expected) in [
        ("num_attention_heads", json!(0), int("num_attention_heads") + "0"),
        ("num_hidden_layers", json!(0), int("num_hidden_layers") + "0"),
        (
            "num_hidden_layers",
            json!(10_001),
            "field `num_hidden_layers` must be at most 10000, found 10001".into(),
        ),
        ("num_hidden_layers", json!(u64::MAX), "field `num_hidden_layers` must be at most 10000".into()),
        ("num_key_value_heads", json!(0), int("num_key_value_heads")),
        (
            "num_key_value_heads",
            json!(3),
            "field `num_key_value_heads` is 3, which does not divide the 4 attention heads".into(),
        ),
        (
            "num_key_value_heads",
            json!(8),
            "field `num_key_value_heads` is 8, which does not divide the 4".into(),
        ),
        ("vocab_size", json!(0), int("vocab_size")),
        ("vocab_size", json!(1u64 << 40), "field `vocab_size` must be at most ".into()),
        ("vocab_size", Value::Null, "field `vocab_size` is missing; it must be a positive integer".into()),
        ("hidden_size", json!(-64), int("hidden_size")),
        ("hidden_size", json!(64.5), int("hidden_size") + "64.5"),
        ("hidden_size", json!("sixty-four"), int("hidden_size") + "\"sixty-four\""),
        ("hidden_size", json!(1u64 << 60), "field `hidden_size` must be at most ".into()),
        ("hidden_size", json!(3), "field `head_dim` must be an even number of at most 4096, found 0".into()),
        ("intermediate_size", json!([96]), int("intermediate_size") + "a list"),
        ("max_position_embeddings", json!(0), int("max_position_embeddings")),
        (
            "max_position_embeddings",
            json!(1u64 << 50),
            "field `max_position_embeddings` must be at most ".into(),
        ),
        ("rms_norm_eps", json!(0), "field `rms_norm_eps` must be a positive number, found 0".into()),
        (
            "rms_norm_eps",
            json!({"__float__": "NaN"}),
            "field `rms_norm_eps` must be a positive number, found NaN".into(),
        ),
        ("rms_norm_eps", json!(1e300), "field `rms_norm_eps` must be a positive number, found inf".into()),
        (
            "tie_word_embeddings",
            json!("yes"),
            "field `tie_word_embeddings` must be true or false, found \"yes\"".into(),
        ),
        (
            "hidden_act",
            json!("gelu"),
            "field `hidden_act`: \"gelu\" is not supported; supported: silu".into(),
        ),
        ("layer_types", json!(["full_attention"]), "field `layer_types` has 1 entries for 2 layers".into()),
        (
            "layer_types",
            json!(["sliding_attention", "full_attention"]),
            "field `sliding_window` is missing".into(),
        ),
        (
            "layer_types",
            json!(["full_attention", "mamba"]),
            "field `layer_types`: \"mamba\" is not supported".into(),
        ),
        ("layer_types", json!([1, 2]), "field `layer_types` must be a list of strings".into()),
    ] {
        for model_type in ["llama", "mistral", "qwen2"] {
            let mut config = base(model_type);
            config[field] = value.clone();
            let error = spec_error(&config).to_string();
            assert_eq!(error.split(": ").next(), Some("config.json"));
            assert!(error.contains(&expected), "{model_type}, {field} = {value}: {error}");
        }
    }
    let mut config = base("mistral");
    config["sliding_window"] = json!(0);
    assert!(
        spec_error(&config)
            .to_string()
            .contains("field `sliding_window` must be a positive integer, found 0")
    );
    let mut config = base("qwen2");
    config["use_sliding_window"] = json!(true);
    assert!(spec_error(&config).to_string().contains("field `max_window_layers` is missing"));
    let mut config = base("qwen3");
    config["rope_theta"] = Value::Null;
    assert!(spec_error(&config).to_string().contains("field `rope_theta` is missing"));
}

/// Programs that come with a model are never run; a known architecture needs none.
#[test]
fn code_of_a_model_is_never_run() {
    for (field, value) in
        [("auto_map", json!({"AutoModelForCausalLM": "modeling_x.Model"})), ("model_file", json!("model.py"))]
    {
        let mut config = base("llama");
        config[field] = value;
        let read = Config::new(config.clone()).unwrap();
        assert!(ModelTypeRegistry::find(&read).unwrap().spec(&read).is_ok());
        config["model_type"] = json!("gpt-9");
        let error = spec_error(&config).to_string();
        assert_eq!(
            error,
            format!(
                "config.json: field `{field}`: the model brings its own code for \"gpt-9\", and Pippin never runs code of a model"
            )
        );
    }
}

#[test]
fn an_unknown_model_type_names_the_known_ones() {
    let error = spec_error(&base("gpt-9\u{1b}[2J"));
    let known: Vec<&str> = ModelTypeRegistry::model_types().collect();
    assert!(known.len() > 15 && known.contains(&"llama"));
    let message = error.to_string();
    assert!(
        message.starts_with("config.json: field `model_type`: \"gpt-9\\u001b[2J\" is not supported"),
        "{message}"
    );
    assert!(message.len() < 400 && message.contains("docs/models.md lists"), "{message}");
    // Those that are most like it.
    let message = spec_error(&base("qwen33")).to_string();
    assert!(message.contains("supported: qwen3, "), "{message}");
    let message = spec_error(&base("LLaMA")).to_string();
    assert!(message.contains("supported: llama"), "{message}");
    let message = spec_error(&base("clip")).to_string();
    assert!(message.contains("docs/models.md lists"), "{message}");
    assert!(error.hint().unwrap().contains("newer version"));
    assert!(spec_error(&json!({})).to_string().contains("field `model_type` is missing"));
    assert!(
        spec_error(&json!({"model_type": 3}))
            .to_string()
            .contains("field `model_type` must be a string, found 3")
    );
    assert!(spec_error(&json!([])).to_string().contains("must be an object, found a list"));
}

#[test]
fn folders_without_a_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = describe(folder.path()).unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
    std::fs::write(folder.path().join("config.json"), base("llama").to_string()).unwrap();
    let error = describe(folder.path()).unwrap_err();
    assert!(error.to_string().contains("safetensors"), "{error}");
    // The wrong kind of model is reported before the missing weights.
    std::fs::write(folder.path().join("config.json"), base("bert").to_string()).unwrap();
    assert!(matches!(describe(folder.path()), Err(ModelError::Unsupported { .. })));
}

/// ModelOpt says how it has quantized in a file of its own.
#[test]
fn the_tool_that_packed_weights_is_named() {
    let config = base("llama");
    let mut tensors = testing::tensors(&Config::new(config.clone()).unwrap(), Dtype::F32, 0).unwrap();
    let packed = tensors.iter_mut().find(|tensor| tensor.name().ends_with("up_proj.weight")).unwrap();
    let (name, shape) = (packed.name().to_owned(), [packed.shape()[0], packed.shape()[1] / 2]);
    *packed = TensorData::new(name.clone(), Dtype::U8, &shape, vec![0; shape[0] * shape[1]]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    write_safetensors(&folder.path().join("model.safetensors"), &tensors, &Default::default()).unwrap();
    let error = describe(folder.path()).unwrap_err().to_string();
    assert!(error.contains(&name) && !error.contains("modelopt"), "{error}");

    let beside = folder.path().join("hf_quant_config.json");
    let section = json!({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}});
    std::fs::write(&beside, section.to_string()).unwrap();
    let error = describe(folder.path()).unwrap_err().to_string();
    assert!(error.contains("modelopt"), "{error}");
    std::fs::write(&beside, "[]").unwrap();
    let error = describe(folder.path()).unwrap_err().to_string();
    assert!(error.contains("hf_quant_config.json"), "{error}");
}

#[test]
fn checkpoints_that_do_not_fit_are_refused() {
    let config = Config::new(base("llama")).unwrap();
    let tensors = testing::tensors(&config, Dtype::F32, 0).unwrap();
    let without =
        |name: &str| tensors.iter().filter(|tensor| tensor.name() != name).cloned().collect::<Vec<_>>();
    let error =
        |tensors| load_from(&config, &Checkpoint::from_tensors(tensors), cpu()).err().unwrap().to_string();

    for name in ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"] {
        let error = error(without(name));
        assert!(error.contains(name), "{error}");
    }
    let name = "model.layers.0.self_attn.k_proj.weight";
    let mut wrong = without(name);
    wrong.push(TensorData::from_f32(name, &[64, 64], &vec![0.0; 64 * 64]).unwrap());
    let message = error(wrong);
    assert!(
        message.contains(name) && message.contains("[32, 64]") && message.contains("[64, 64]"),
        "{message}"
    );
    let name = "model.layers.0.input_layernorm.weight";
    let mut wrong = without(name);
    wrong.push(TensorData::from_f32(name, &[1], &[1.0]).unwrap());
    assert!(error(wrong).contains(name));

    // The configuration asks for more than the checkpoint has: by size, by count, by biases.
    for (field, value) in [
        ("hidden_size", json!(128)),
        ("num_hidden_layers", json!(10_000)),
        ("vocab_size", json!(1 << 24)),
        ("head_dim", json!(4096)),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("tie_word_embeddings", json!(false)),
    ] {
        let mut value_of = base("llama");
        value_of[field] = value;
        let config = Config::new(value_of).unwrap();
        let error = describe_from(&config, &Checkpoint::from_tensors(tensors.clone())).unwrap_err();
        assert!(matches!(error, ModelError::Weights(_)), "{field}: {error}");
        assert!(
            error.to_string().contains("model.") || error.to_string().contains("lm_head"),
            "{field}: {error}"
        );
    }
}

#[test]
fn tensors_that_no_spec_names_are_ignored() {
    let config = Config::new(base("llama")).unwrap();
    let mut tensors = testing::tensors(&config, Dtype::F32, 0).unwrap();
    let plain = describe_from(&config, &Checkpoint::from_tensors(tensors.clone())).unwrap();
    for name in ["model.layers.0.self_attn.rotary_emb.inv_freq", "lm_head.weight"] {
        tensors.push(TensorData::from_f32(name, &[1], &[0.0]).unwrap());
    }
    assert_eq!(describe_from(&config, &Checkpoint::from_tensors(tensors)).unwrap(), plain);
}

#[test]
fn layers_that_are_not_used_are_told_of() {
    let config = Config::new(base("llama")).unwrap();
    let checkpoint = testing::checkpoint(&config, Dtype::F32, 0).unwrap();
    assert_eq!(describe_from(&config, &checkpoint).unwrap().warnings, Vec::<String>::new());
    let mut value = base("llama");
    value["num_hidden_layers"] = 1.into();
    let warnings = describe_from(&Config::new(value).unwrap(), &checkpoint).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("model.layers.1"), "{warnings:?}");
}

#[test]
fn quantized_activations_are_refused_by_name() {
    let mut value = base("llama");
    value["quantize_activations"] = true.into();
    let config = Config::new(value).unwrap();
    let checkpoint = testing::checkpoint(&config, Dtype::F32, 0).unwrap();
    let error = describe_from(&config, &checkpoint).unwrap_err();
    assert!(error.to_string().contains("`quantize_activations`"), "{error}");
    assert!(matches!(error, ModelError::Unsupported { .. }));
}

#[test]
fn an_unspoken_head_is_used_if_it_is_there() {
    let mut value = base("llama");
    value["tie_word_embeddings"] = false.into();
    let untied = Config::new(value.clone()).unwrap();
    let checkpoint = testing::checkpoint(&untied, Dtype::F32, 0).unwrap();
    value.as_object_mut().unwrap().remove("tie_word_embeddings");
    let unspoken = Config::new(value).unwrap();
    assert!(!describe_from(&unspoken, &checkpoint).unwrap().tied_head);
    let tied = testing::checkpoint(&unspoken, Dtype::F32, 0).unwrap();
    assert!(describe_from(&unspoken, &tied).unwrap().tied_head);
}

fn model() -> Box<dyn LanguageModel> {
    let config = Config::new(base("llama")).unwrap();
    load_from(&config, &testing::checkpoint(&config, Dtype::F32, 0).unwrap(), cpu()).unwrap()
}

/// A step of one sequence that wants the logits of its last row.
fn run(model: &mut dyn LanguageModel, tokens: &[u32], pages: &[u32]) -> Result<Vec<Output>, ModelError> {
    let mut batch = Batch::new(model.limits());
    let want = Want::Logits(LogitRows::Last);
    batch.push(SequenceRows::text(0, Input::Tokens(tokens), 0, &[pages], want))?;
    let step = model.submit(batch)?;
    model.finish(step.id)
}

fn plan(pages: usize, page_size: usize) -> CachePlan {
    CachePlan { page_size, format: KvFormat::F32, pages: vec![pages], slots: 2 }
}

#[test]
fn steps_that_do_not_fit_are_refused_and_leave_the_model_usable() {
    let mut model = model();
    assert!(run(&mut *model, &[1, 2, 3], &[1]).unwrap_err().to_string().contains("slot"));
    model.allocate(&plan(2, 8)).unwrap();
    assert_eq!(model.info().cache.token_bytes(KvFormat::F32), 2 * 2 * 2 * 16 * 4);
    let good = |model: &mut dyn LanguageModel| run(model, &[1, 2, 3], &[1]).unwrap();
    let expected = good(&mut *model);

    let error = run(&mut *model, &[1, 96], &[0]).unwrap_err();
    assert_eq!(error.to_string(), "batch: token: index 96 is out of range, the limit is 96");
    assert!(matches!(run(&mut *model, &[1], &[7]), Err(ModelError::Backend(_))));
    assert!(run(&mut *model, &[1], &[u32::MAX]).is_err());
    let other = StepLimits { page_size: 16, ..model.limits().clone() };
    assert!(matches!(model.submit(Batch::new(&other)), Err(ModelError::Step { .. })));
    // Nobody has said how to draw.
    let mut batch = Batch::new(model.limits());
    batch.push(SequenceRows::text(1, Input::Tokens(&[1]), 0, &[&[0]], Want::Sample)).unwrap();
    assert!(model.submit(batch).unwrap_err().to_string().contains("slot 1 has no sampler"));
    // Steps are finished in order.
    let empty = Batch::new(model.limits());
    let (first, second) = (model.submit(empty.clone()).unwrap(), model.submit(empty).unwrap());
    assert!(matches!(model.finish(second.id), Err(ModelError::Step { .. })));
    assert_eq!(model.finish(first.id).unwrap(), []);
    assert_eq!(model.finish(second.id).unwrap(), []);
    assert!(matches!(model.finish(second.id), Err(ModelError::Step { .. })));
    for edit in [SlotEdit::Reset { slot: 2 }, SlotEdit::Copy { from: 0, to: 2 }] {
        assert!(model.edit(vec![edit]).is_err());
    }
    assert_eq!(good(&mut *model), expected);

    for (pages, page_size) in [(0, 8), (8, 0), (usize::MAX, 2), (1 << 20, 1 << 20), (usize::MAX, usize::MAX)]
    {
        let error = model.allocate(&plan(pages, page_size)).unwrap_err();
        assert!(error.to_string().contains("cannot be addressed"), "{error}");
    }
    assert!(model.allocate(&CachePlan { pages: vec![], ..plan(2, 8) }).is_err());
    // What was there before a refused request is still there.
    assert_eq!(good(&mut *model), expected);
}

#[test]
fn bytes_after_a_download_that_was_cut_short() {
    let config = Config::new(base("llama")).unwrap();
    let tensors = testing::tensors(&config, Dtype::F32, 0).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.value().to_string()).unwrap();
    let path = folder.path().join("model.safetensors");
    write_safetensors(&path, &tensors, &Default::default()).unwrap();
    assert!(describe(folder.path()).is_ok());
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
    let error = describe(folder.path()).unwrap_err();
    assert!(error.to_string().contains("model.safetensors"), "{error}");
}

/// A `model_type` may be that of two families, of which the architecture chooses one.
#[test]
fn an_architecture_may_choose_the_family() {
    for (architectures, family) in [
        (Value::Null, "bailing_hybrid"),
        (json!(["BailingMoeV2_5ForCausalLM"]), "bailing_hybrid"),
        (json!(["BailingMoeV3ForCausalLM"]), "bailing_moe_v3"),
        (json!("BailingMoeV3ForCausalLM"), "bailing_moe_v3"),
        (json!([7, {"a": 1}, "BailingMoeV3ForCausalLM"]), "bailing_moe_v3"),
        (json!(7), "bailing_hybrid"),
    ] {
        let config = json!({"model_type": "bailing_hybrid", "architectures": architectures});
        assert_eq!(ModelTypeRegistry::find(&Config::new(config).unwrap()).unwrap().name, family);
    }
    let config = json!({"model_type": "llama", "architectures": ["BailingMoeV3ForCausalLM"]});
    assert_eq!(ModelTypeRegistry::find(&Config::new(config).unwrap()).unwrap().name, "llama");
}

#[test]
fn fields_of_hybrids_are_named() {
    let golden = |name: &str| -> Value {
        let path = format!("{}/tests/goldens/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        golden["config"].clone()
    };
    for (name, field, value, expected) in [
        ("bailing_moe_linear", "group_norm_size", json!(0), "must be a positive integer, found 0"),
        ("bailing_moe_linear", "group_norm_size", json!(3), "is 3, which does not divide the 64 columns"),
        ("bailing_moe_linear", "layer_group_size", Value::Null, "is missing"),
        ("bailing_moe_linear", "score_function", json!("tanh"), "\"tanh\" is not supported"),
        ("bailing_hybrid", "head_dim", json!(15), "must be an even number"),
        ("bailing_hybrid", "kv_lora_rank", Value::Null, "is missing"),
        ("bailing_hybrid", "topk_group", json!(5), "must be at most 4"),
        ("bailing_moe_v3", "no_kda_lora", json!(false), "\"false\" is not supported"),
        ("bailing_moe_v3", "kda_safe_gate", json!(false), "\"false\" is not supported"),
        ("bailing_moe_v3", "rope_interleave", json!(false), "\"false\" is not supported"),
        ("bailing_moe_v3", "kda_lower_bound", json!(0.5), "must be a negative number, found 0.5"),
        (
            "prism_hadamard_qwen35",
            "tensor_namespace",
            json!("mlx-lm-text"),
            "\"mlx-lm-text\" is not supported",
        ),
        ("prism_hadamard_qwen35", "schema_version", json!(3), "\"3\" is not supported"),
        ("prism_hadamard_qwen35", "gdn_activation_layout", json!("flat"), "\"flat\" is not supported"),
        ("prism_hadamard_qwen35", "modules", json!([]), "is missing"),
        ("prism_hadamard_qwen35", "modules", json!([{"path": "lm_head", "block": 3}]), "3 columns"),
        ("prism_hadamard_qwen35", "modules", json!([{"path": "lm_head", "block": -1}]), "found -1"),
        (
            "prism_hadamard_qwen35",
            "modules",
            json!([{"path": "lm_head", "block": 8, "embedding": true}]),
            "embeddings alone",
        ),
        (
            "prism_hadamard_qwen35",
            "modules",
            json!([{"path": "lm_head", "block": 8, "dtype": "bfloat16"}]),
            "\"bfloat16\" is not",
        ),
        ("plamo2", "mamba_step", json!(1), "must be at least 2, found 1"),
        ("plamo2", "hidden_size_per_head", json!(1 << 13), "must be at most 4096"),
        ("plamo2", "full_attention_idx", json!(["a"]), "must be a list of integers"),
        ("iquestloopcoder", "loop_num", json!(3), "\"3\" is not supported; supported: 2"),
        ("iquestloopcoder", "loop_window_size", json!(0), "must be a positive integer, found 0"),
        ("iquestloopcoder", "num_hidden_layers", json!(5001), "must be at most 10000, found 10002"),
    ] {
        let mut config = golden(name);
        config[field] = value;
        let error = spec_error(&config).to_string();
        assert!(error.contains(field) && error.contains(expected), "{error}");
    }
}

/// What is rotated has to be a linear layer, with blocks that its input consists of and signs that are signs.
#[test]
fn rotations_fit_their_layers() {
    let path = format!("{}/tests/goldens/prism_hadamard_qwen35.json", env!("CARGO_MANIFEST_DIR"));
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let whole = Config::new(golden["config"].clone()).unwrap();
    let tensors = testing::tensors(&whole, Dtype::F32, 0).unwrap();
    let described = |modules: Value| {
        let mut config = golden["config"].clone();
        config["modules"] = modules;
        describe_from(&Config::new(config).unwrap(), &Checkpoint::from_tensors(tensors.clone()))
    };
    let error = described(json!([{"path": "model.norm", "block": 8}])).unwrap_err().to_string();
    assert!(error.contains("language_model.model.norm, which is no linear layer"), "{error}");
    let error = described(json!([{"path": "lm_head", "block": 1024}])).unwrap_err().to_string();
    assert!(error.contains("1024 columns for the 512 of language_model.lm_head"), "{error}");
    let path = "model.layers.0.linear_attn.in_proj_b";
    let error = described(json!([{"path": path, "block": 512}])).unwrap_err().to_string();
    assert!(error.contains(&format!("language_model.{path}.signs")), "{error}");

    let wrong = tensors.iter().map(|tensor| match tensor.name().ends_with("lm_head.signs") {
        true => TensorData::from_f32(tensor.name(), tensor.shape(), &vec![0.5; tensor.len()]).unwrap(),
        false => tensor.clone(),
    });
    let error =
        load_from(&whole, &Checkpoint::from_tensors(wrong.collect()), cpu()).err().expect("wrong signs");
    assert!(error.to_string().contains("must be ones and minus ones"), "{error}");
}
