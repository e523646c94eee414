//! Architectures whose layers are attention and a feed-forward network.

use std::ops::Range;

use super::metadata::Metadata;
use crate::published::Tensors;
use crate::{Result, limits};

/// Llama; or Mixtral, which llama.cpp takes for one with experts.
pub(super) fn llama(metadata: &mut Metadata<'_>) -> Result<()> {
    if metadata.count("expert_count")?.is_some_and(|count| count > 0) {
        metadata.set("model_type", "mixtral");
        metadata.read_experts("num_local_experts")?;
        let width = metadata.sizes("ffn_down_exps.weight").map(|[_, width]| width);
        if let Some(width) = width {
            metadata.set_from("intermediate_size", "expert_feed_forward_length", width);
        }
        return no_biases(metadata);
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

/// Refuses biases that the family has no place for: what is not read would change the results.
pub(super) fn no_biases(metadata: &mut Metadata<'_>) -> Result<()> {
    let names = ["attn_q.bias", "attn_output.bias", "ffn_up.bias", "ffn_up_exps.bias"];
    match names.into_iter().find(|name| metadata.any_has(name)) {
        Some(name) => Err(metadata.error("attention", format!("is not supported with biases ({name})"))),
        None => Ok(()),
    }
}

pub(super) fn attention_bias(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.set("attention_bias", metadata.has("blk.0.attn_q.bias"));
    Ok(())
}

/// Mistral 3: Ministral, with a factor on queries by their position, or Mistral Small without.
pub(super) fn mistral3(metadata: &mut Metadata<'_>) -> Result<()> {
    if metadata.count("expert_count")?.is_some_and(|count| count > 0) {
        return Err(metadata.error("expert_count", "is not supported: mixtures of this architecture"));
    }
    no_biases(metadata)?;
    match metadata.number("attention.temperature_scale")?.filter(|scale| *scale != 0.0) {
        Some(scale) => {
            if !metadata.set_in("rope_scaling", "llama_4_scaling_beta", scale) {
                let problem = "is not supported without a scaling of the rotation";
                return Err(metadata.error("attention.temperature_scale", problem));
            }
        }
        None => metadata.set("model_type", "mistral"),
    }
    Ok(())
}

pub(super) fn granite(metadata: &mut Metadata<'_>) -> Result<()> {
    let bias = metadata.has("blk.0.attn_q.bias");
    metadata.set("attention_bias", bias);
    metadata.set("mlp_bias", metadata.has("blk.0.ffn_up.bias"));
    granite_factors(metadata)
}

/// The factors of Granite, of whichever form.
pub(super) fn granite_factors(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.copy_number("attention_multiplier", "attention.scale")?;
    metadata.copy_number("embedding_multiplier", "embedding_scale")?;
    metadata.copy_number("residual_multiplier", "residual_scale")?;
    metadata.copy_number("logits_scaling", "logit_scale")
}

/// MiniCPM is a Granite with the usual factor on scores. What the first files do not say is as in the first models.
pub(super) fn minicpm(metadata: &mut Metadata<'_>) -> Result<()> {
    no_biases(metadata)?;
    let hidden = metadata.required("embedding_length")?;
    let heads = metadata.required("attention.head_count")?;
    let head_dim = metadata.count("attention.key_length")?.or(hidden.checked_div(heads)).unwrap_or(1);
    metadata.set("attention_multiplier", (head_dim.max(1) as f64).powf(-0.5));
    let factor = |key| metadata.number(key).map(|factor| factor.filter(|factor| *factor != 0.0));
    let embedding = factor("embedding_scale")?.unwrap_or(12.0);
    let residual = factor("residual_scale")?.unwrap_or(1.4 / (metadata.layers.max(1) as f64).sqrt());
    let logits = factor("logit_scale")?.unwrap_or(hidden as f64 / 256.0);
    metadata.set_from("embedding_multiplier", "embedding_scale", embedding);
    metadata.set_from("residual_multiplier", "residual_scale", residual);
    metadata.set_from("logits_scaling", "logit_scale", logits);
    Ok(())
}

/// Command R and Aya. Queries and keys may have norms, for each head its own.
pub(super) fn command_r(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.set("use_qk_norm", metadata.has("blk.0.attn_q_norm.weight"));
    metadata.copy_number("logit_scale", "logit_scale")
}

/// Cohere 2: a window in all layers but every fourth.
pub(super) fn cohere2(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.copy_number("logit_scale", "logit_scale")?;
    windows(metadata, 4)
}

/// A window, and which layers have it.
pub(super) fn windows(metadata: &mut Metadata<'_>, default_pattern: usize) -> Result<()> {
    metadata.copy_count("sliding_window", "attention.sliding_window")?;
    let windowed = metadata.windowed(default_pattern)?;
    metadata.set_layer_types(|layer| windowed[layer], ["sliding_attention", "full_attention"]);
    Ok(())
}

/// EXAONE 4: the larger models have windows.
pub(super) fn exaone4(metadata: &mut Metadata<'_>) -> Result<()> {
    match metadata.window()? {
        Some(_) => windows(metadata, 4),
        None => Ok(()),
    }
}

/// OLMo 2; or OLMo 3, which llama.cpp takes for one with windows.
pub(super) fn olmo2(metadata: &mut Metadata<'_>) -> Result<()> {
    if metadata.window()?.is_some() {
        metadata.set("model_type", "olmo3");
        windows(metadata, 4)?;
    }
    Ok(())
}

pub(super) fn starcoder2(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.copy_number("norm_epsilon", "attention.layer_norm_epsilon")?;
    metadata.set("use_bias", metadata.has("blk.0.attn_q.bias"));
    metadata.copy_count("sliding_window", "attention.sliding_window")
}

/// Phi 3 and 4. A window of zero is none.
pub(super) fn phi3(metadata: &mut Metadata<'_>) -> Result<()> {
    if let Some(window) = metadata.window()? {
        metadata.set_from("sliding_window", "attention.sliding_window", window);
    }
    Ok(())
}

/// Seed-OSS: biases of queries, keys and values, which the output may have or not.
pub(super) fn seed_oss(metadata: &mut Metadata<'_>) -> Result<()> {
    attention_bias(metadata)?;
    metadata.set("attention_out_bias", metadata.has("blk.0.attn_output.bias"));
    metadata.set("mlp_bias", metadata.has("blk.0.ffn_up.bias"));
    Ok(())
}

/// ERNIE 4.5: one flag for all biases.
pub(super) fn ernie(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.set("use_bias", metadata.any_has("attn_q.bias"));
    Ok(())
}

/// Hunyuan. The base of the rotation is that which its `alpha` has raised.
pub(super) fn hunyuan(metadata: &mut Metadata<'_>) -> Result<()> {
    attention_bias(metadata)?;
    metadata.set("use_qk_norm", metadata.any_has("attn_q_norm.weight"));
    Ok(())
}

/// StableLM: where there is no second norm, attention and network are side by side.
pub(super) fn stablelm(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.set("use_parallel_residual", !metadata.any_has("ffn_norm.weight"));
    metadata.set("use_qkv_bias", metadata.any_has("attn_q.bias"));
    metadata.set("qk_layernorm", metadata.any_has("attn_q_norm.weight"));
    Ok(())
}

/// Nemotron 4 and Minitron.
pub(super) fn nemotron(metadata: &mut Metadata<'_>) -> Result<()> {
    attention_bias(metadata)?;
    metadata.set("mlp_bias", metadata.any_has("ffn_up.bias"));
    metadata.copy_number("norm_eps", "attention.layer_norm_epsilon")
}

/// Norms that multiply with one plus the weight; llama.cpp stores that sum.
pub(super) fn norms_without_one(_: &Metadata<'_>, tensors: &mut Tensors) -> Result<()> {
    tensors.map("norm.weight", |weight| weight - 1.0)
}

/// GPT-2, and StarCoder 1 with its one head of keys.
pub(super) fn gpt2(metadata: &mut Metadata<'_>) -> Result<()> {
    for (field, key) in [
        ("n_embd", "embedding_length"),
        ("n_head", "attention.head_count"),
        ("n_layer", "block_count"),
        ("n_inner", "feed_forward_length"),
        ("n_positions", "context_length"),
    ] {
        metadata.copy_count(field, key)?;
    }
    metadata.copy_number("layer_norm_epsilon", "attention.layer_norm_epsilon")?;
    let kv_heads = metadata.count("attention.head_count_kv")?;
    metadata.set_from("multi_query", "attention.head_count_kv", kv_heads == Some(1));
    Ok(())
}

/// GPT-NeoX, in all models with the exact GELU.
pub(super) fn gpt_neox(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.set("use_parallel_residual", metadata.flag("use_parallel_residual")?.unwrap_or(true));
    metadata.set("hidden_act", "gelu");
    Ok(())
}

/// Queries, keys and values, which here are together for each head.
pub(super) fn heads_together(metadata: &Metadata<'_>, tensors: &mut Tensors) -> Result<()> {
    let hidden = metadata.required("embedding_length")?;
    let heads = metadata.required("attention.head_count")?;
    let head_dim = hidden.checked_div(heads).unwrap_or(0);
    if heads > limits::HEADS || hidden > limits::HIDDEN {
        return Err(metadata.error("attention.head_count", format!("must be at most {}", limits::HEADS)));
    }
    let start = |head: usize, part: usize| part * hidden + head * head_dim;
    let rows: Vec<Range<usize>> = (0..heads)
        .flat_map(|head| (0..3).map(move |part| start(head, part)..start(head, part) + head_dim))
        .collect();
    tensors.order_rows("attention.query_key_value", &rows)
}
