//! llama.cpp's architectures: which family each is, what its configuration says, what its tensors are called, and what its
//! converter has changed in them.

use super::metadata::Metadata;
use crate::published::Tensors;
use crate::{ModelTypeRegistry, Result};

type Names = &'static [(&'static str, &'static str)];

/// How models of an architecture are read.
pub(crate) struct Architecture {
    /// llama.cpp's name.
    pub(crate) name: &'static str,
    /// The `model_type` of its family.
    pub(crate) model_type: &'static str,
    /// Fields of the configuration beyond those that all have.
    pub(crate) config: fn(&mut Metadata<'_>) -> Result<()>,
    /// What tensors of a layer are called, before what is common.
    pub(crate) layer: Names,
    /// What the others are called.
    pub(crate) model: Names,
    /// What is before the number of a layer.
    pub(crate) layers: &'static str,
    /// Whether the rows of queries and keys are in the order in which llama.cpp rotates neighbours.
    pub(crate) permuted: bool,
    /// What else the converter has done, undone.
    pub(crate) finish: fn(&Metadata<'_>, &mut Tensors) -> Result<()>,
}

impl Architecture {
    const fn new(name: &'static str, model_type: &'static str) -> Self {
        Self {
            name,
            model_type,
            config: |_| Ok(()),
            layer: &[],
            model: &[],
            layers: "model.layers",
            permuted: false,
            finish: |_, _| Ok(()),
        }
    }

    const fn config(self, config: fn(&mut Metadata<'_>) -> Result<()>) -> Self {
        Self { config, ..self }
    }

    const fn layer(self, layer: Names) -> Self {
        Self { layer, ..self }
    }

    const fn model(self, model: Names) -> Self {
        Self { model, ..self }
    }

    const fn layers(self, layers: &'static str) -> Self {
        Self { layers, ..self }
    }

    const fn permuted(self) -> Self {
        Self { permuted: true, ..self }
    }

    const fn finish(self, finish: fn(&Metadata<'_>, &mut Tensors) -> Result<()>) -> Self {
        Self { finish, ..self }
    }

    /// Whether there is the family.
    pub(crate) fn is_there(&self) -> bool {
        ModelTypeRegistry::get(self.model_type).is_some()
    }
}

/// Norms around attention and feed-forward network.
const SANDWICH: Names = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

/// Norms after attention and feed-forward network, and none before.
const POST_NORMS: Names =
    &[("post_attention_norm", "post_attention_layernorm"), ("post_ffw_norm", "post_feedforward_layernorm")];

/// All architectures that are read, in alphabetical order.
pub(crate) const ARCHITECTURES: &[Architecture] = &[
    Architecture::new("cohere2", "cohere2").config(cohere),
    Architecture::new("exaone4", "exaone4").config(exaone4).layer(POST_NORMS),
    Architecture::new("gemma", "gemma").config(gemma).finish(norms_without_one),
    Architecture::new("gemma2", "gemma2").config(gemma).layer(SANDWICH).finish(norms_without_one),
    Architecture::new("gemma3", "gemma3_text").config(gemma).layer(SANDWICH).finish(norms_without_one),
    Architecture::new("glm4", "glm4").config(attention_bias).layer(&[
        ("post_attention_norm", "post_self_attn_layernorm"),
        ("ffn_up", "mlp.gate_up_proj"),
        ("post_ffw_norm", "post_mlp_layernorm"),
    ]),
    Architecture::new("gpt-oss", "gpt_oss").config(gpt_oss).layer(&[
        ("post_attention_norm", "post_attention_layernorm"),
        ("ffn_gate_inp", "mlp.router"),
        ("ffn_gate_exps", "mlp.experts.gate_proj"),
        ("ffn_up_exps", "mlp.experts.up_proj"),
        ("ffn_down_exps", "mlp.experts.down_proj"),
    ]),
    Architecture::new("granite", "granite").config(granite).permuted(),
    Architecture::new("lfm2", "lfm2")
        .config(lfm2)
        .layer(&[
            ("attn_norm", "operator_norm"),
            ("attn_output", "self_attn.out_proj"),
            ("attn_q_norm", "self_attn.q_layernorm"),
            ("attn_k_norm", "self_attn.k_layernorm"),
            ("ffn_norm", "ffn_norm"),
            ("ffn_gate", "feed_forward.w1"),
            ("ffn_up", "feed_forward.w3"),
            ("ffn_down", "feed_forward.w2"),
            ("shortconv.conv", "conv.conv"),
            ("shortconv.in_proj", "conv.in_proj"),
            ("shortconv.out_proj", "conv.out_proj"),
        ])
        .model(&[("token_embd_norm", "model.embedding_norm"), ("output_norm", "model.embedding_norm")])
        .finish(|_, tensors| kernels(tensors, ".conv.conv.weight")),
    Architecture::new("llama", "llama").config(llama).permuted(),
    Architecture::new("mamba2", "mamba2")
        .config(mamba2)
        .layers("backbone.layers")
        .layer(&[
            ("attn_norm", "norm"),
            ("ssm_in", "mixer.in_proj"),
            ("ssm_conv1d", "mixer.conv1d"),
            ("ssm_dt.bias", "mixer.dt_bias"),
            ("ssm_a", "mixer.A_log"),
            ("ssm_d", "mixer.D"),
            ("ssm_norm", "mixer.norm"),
            ("ssm_out", "mixer.out_proj"),
        ])
        .model(&[("token_embd", "backbone.embeddings"), ("output_norm", "backbone.norm_f")])
        .finish(state_spaces),
    Architecture::new("olmo2", "olmo2").config(olmo2).layer(POST_NORMS),
    Architecture::new("phi2", "phi")
        .layer(&[("attn_output", "self_attn.dense"), ("ffn_up", "mlp.fc1"), ("ffn_down", "mlp.fc2")])
        .model(&[("output_norm", "model.final_layernorm")]),
    Architecture::new("phi3", "phi3")
        .config(phi3)
        .layer(&[("attn_qkv", "self_attn.qkv_proj"), ("ffn_up", "mlp.gate_up_proj")]),
    Architecture::new("qwen2", "qwen2"),
    Architecture::new("qwen3", "qwen3"),
    Architecture::new("qwen3moe", "qwen3_moe").config(qwen_moe),
    Architecture::new("starcoder2", "starcoder2")
        .config(starcoder2)
        .layer(&[("ffn_up", "mlp.c_fc"), ("ffn_down", "mlp.c_proj")]),
];

/// Llama. Mixtral, which llama.cpp takes for one with experts, is not read.
fn llama(metadata: &mut Metadata<'_>) -> Result<()> {
    if let Some(count) = metadata.count("expert_count")?.filter(|count| *count > 0) {
        return Err(metadata.error(
            "expert_count",
            format!("is {count}, but mixtures of this architecture are not supported"),
        ));
    }
    let [query, output] = ["blk.0.attn_q.bias", "blk.0.attn_output.bias"].map(|name| metadata.has(name));
    if query != output {
        return Err(
            metadata.error("attention", "has biases of queries, or of outputs, alone, which no llama has")
        );
    }
    metadata.set("attention_bias", query);
    metadata.set("mlp_bias", metadata.has("blk.0.ffn_up.bias"));
    Ok(())
}

fn attention_bias(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.set("attention_bias", metadata.has("blk.0.attn_q.bias"));
    Ok(())
}

fn granite(metadata: &mut Metadata<'_>) -> Result<()> {
    llama(metadata)?;
    metadata.copy_number("attention_multiplier", "attention.scale")?;
    metadata.copy_number("embedding_multiplier", "embedding_scale")?;
    metadata.copy_number("residual_multiplier", "residual_scale")?;
    metadata.copy_number("logits_scaling", "logit_scale")
}

fn qwen_moe(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.read_experts("num_experts")?;
    metadata.set("decoder_sparse_step", 1);
    let dense = |layer: &usize| !metadata.has(&format!("blk.{layer}.ffn_gate_inp.weight"));
    let dense: Vec<usize> = (0..metadata.layers).filter(dense).collect();
    metadata.set("mlp_only_layers", dense);
    // Not in the metadata; it is so in all models of the family.
    metadata.set("norm_topk_prob", true);
    Ok(())
}

/// Gemma 1, 2 and 3. The scale of scores is that of the models there are: of the 27B ones the width over the heads.
fn gemma(metadata: &mut Metadata<'_>) -> Result<()> {
    let heads = metadata.required("attention.head_count")?;
    let head_dim = match metadata.count("attention.key_length")? {
        Some(head_dim) => head_dim,
        None => metadata.required("embedding_length")?.checked_div(heads).unwrap_or(0),
    };
    let is_27b = if metadata.is("gemma2") { metadata.layers == 46 } else { metadata.layers == 62 };
    let scale = match is_27b {
        true => metadata.required("embedding_length")?.checked_div(heads).unwrap_or(0),
        false => head_dim,
    };
    metadata.set("query_pre_attn_scalar", scale);
    metadata.copy_number("attn_logit_softcapping", "attn_logit_softcapping")?;
    metadata.copy_number("final_logit_softcapping", "final_logit_softcapping")?;
    metadata.copy_count("sliding_window", "attention.sliding_window")?;
    if metadata.is("gemma3") {
        let windowed = match metadata.count("attention.sliding_window")? {
            Some(_) => metadata.windowed(6)?,
            None => vec![false; metadata.layers],
        };
        metadata.set_layer_types(|layer| windowed[layer], ["sliding_attention", "full_attention"]);
        metadata.set("rope_local_base_freq", metadata.number("rope.freq_base_swa")?.unwrap_or(10_000.0));
    }
    Ok(())
}

/// Norms of Gemma multiply with one plus the weight; llama.cpp stores that sum.
fn norms_without_one(_: &Metadata<'_>, tensors: &mut Tensors) -> Result<()> {
    tensors.map("norm.weight", |weight| weight - 1.0)
}

fn gpt_oss(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.read_experts("num_local_experts")?;
    metadata.copy_count("intermediate_size", "expert_feed_forward_length")?;
    metadata.copy_count("sliding_window", "attention.sliding_window")?;
    let windowed = metadata.windowed(2)?;
    metadata.set_layer_types(|layer| windowed[layer], ["sliding_attention", "full_attention"]);
    // As the models were trained; the metadata does not say.
    metadata.set_in("rope_scaling", "truncate", false);
    Ok(())
}

/// Cohere 2: a window in all layers but every fourth.
fn cohere(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.copy_number("logit_scale", "logit_scale")?;
    metadata.copy_count("sliding_window", "attention.sliding_window")?;
    let windowed = metadata.windowed(4)?;
    metadata.set_layer_types(|layer| windowed[layer], ["sliding_attention", "full_attention"]);
    Ok(())
}

/// EXAONE 4: the larger models have windows.
fn exaone4(metadata: &mut Metadata<'_>) -> Result<()> {
    if let Some(window) = metadata.count("attention.sliding_window")?.filter(|window| *window > 0) {
        metadata.set("sliding_window", window);
        let windowed = metadata.windowed(4)?;
        metadata.set_layer_types(|layer| windowed[layer], ["sliding_attention", "full_attention"]);
    }
    Ok(())
}

fn starcoder2(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.copy_number("norm_epsilon", "attention.layer_norm_epsilon")?;
    metadata.set("use_bias", metadata.has("blk.0.attn_q.bias"));
    metadata.copy_count("sliding_window", "attention.sliding_window")
}

/// Phi 3 and 4. A window of zero is none.
fn phi3(metadata: &mut Metadata<'_>) -> Result<()> {
    if let Some(window) = metadata.count("attention.sliding_window")?.filter(|window| *window > 0) {
        metadata.set("sliding_window", window);
    }
    Ok(())
}

/// OLMo 2. llama.cpp has the same name for OLMo 3, which has windows.
fn olmo2(metadata: &mut Metadata<'_>) -> Result<()> {
    match metadata.count("attention.sliding_window")? {
        Some(window) if window > 0 => Err(metadata.error(
            "attention.sliding_window",
            format!("is {window}: OLMo 3 is not supported in GGUF files yet"),
        )),
        _ => Ok(()),
    }
}

/// LFM2: layers without heads of keys and values are convolutions.
fn lfm2(metadata: &mut Metadata<'_>) -> Result<()> {
    let kv_heads = metadata.counts("attention.head_count_kv")?;
    let kv_heads = kv_heads.filter(|list| list.len() >= metadata.layers);
    let kv_heads = kv_heads
        .ok_or_else(|| metadata.error("attention.head_count_kv", "must be a number for each layer"))?;
    metadata.set("num_key_value_heads", kv_heads.iter().copied().max().unwrap_or(0));
    metadata.set_layer_types(|layer| kv_heads[layer] > 0, ["full_attention", "conv"]);
    metadata.copy_number("norm_eps", "attention.layer_norm_rms_epsilon")?;
    metadata.copy_count("conv_L_cache", "shortconv.l_cache")?;
    let has_bias = metadata.file.tensors().any(|tensor| tensor.name().ends_with(".shortconv.in_proj.bias"));
    metadata.set("conv_bias", has_bias);
    // The width is what comes out of the configuration's rule.
    metadata.set("block_auto_adjust_ff_dim", false);
    Ok(())
}

fn mamba2(metadata: &mut Metadata<'_>) -> Result<()> {
    let heads = metadata.required("ssm.time_step_rank")?;
    let inner = metadata.required("ssm.inner_size")?;
    let head_dim = inner.checked_div(heads).filter(|head_dim| head_dim * heads == inner);
    let head_dim = head_dim.ok_or_else(|| {
        metadata.error(
            "ssm.inner_size",
            format!("is {inner}, which {heads} heads (ssm.time_step_rank) do not divide"),
        )
    })?;
    metadata.set("num_heads", heads);
    metadata.set("head_dim", head_dim);
    metadata.copy_count("n_groups", "ssm.group_count")?;
    metadata.copy_count("state_size", "ssm.state_size")?;
    metadata.copy_count("conv_kernel", "ssm.conv_kernel")?;
    metadata.copy_number("layer_norm_epsilon", "attention.layer_norm_rms_epsilon")?;
    metadata.set("use_bias", metadata.has("blk.0.ssm_in.bias"));
    metadata.set("use_conv_bias", metadata.has("blk.0.ssm_conv1d.bias"));
    Ok(())
}

/// Kernels of convolutions, which llama.cpp has without their axis of one.
fn kernels(tensors: &mut Tensors, ends_with: &str) -> Result<()> {
    tensors.reshape(ends_with, |shape| match *shape {
        [columns, taps] => vec![columns, taps, 1],
        _ => shape.to_vec(),
    })
}

/// State spaces: decays are stored as such and not as the logarithm of their negative; vectors have axes of one or of
/// groups.
fn state_spaces(_: &Metadata<'_>, tensors: &mut Tensors) -> Result<()> {
    kernels(tensors, ".conv1d.weight")?;
    for name in [".mixer.A_log", ".mixer.D", ".mixer.norm.weight"] {
        tensors.reshape(name, |shape| vec![shape.iter().product()])?;
    }
    tensors.map(".mixer.A_log", |decay| (-decay).ln())
}
