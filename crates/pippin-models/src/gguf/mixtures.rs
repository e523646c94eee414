//! Architectures with mixtures of experts.

use super::dense::{attention_bias, granite_factors, hunyuan, no_biases, windows};
use super::metadata::Metadata;
use crate::Result;
use crate::published::Tensors;

/// Qwen 3 with experts, and Qwen 1.5 and 2, whose experts' shares are those among all and which have one more that every token
/// goes through. Neither is in the metadata; it is so in all models of the families.
pub(super) fn qwen_moe(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.read_experts("num_experts")?;
    metadata.set("decoder_sparse_step", 1);
    let dense = |layer: &usize| !metadata.layer_has(*layer, "ffn_gate_inp.weight");
    let dense: Vec<usize> = (0..metadata.layers).filter(dense).collect();
    metadata.set("mlp_only_layers", dense);
    let is_second = metadata.is("qwen2moe");
    metadata.set("norm_topk_prob", !is_second);
    if is_second {
        read_shared_width(metadata, "shared_expert_intermediate_size");
    }
    Ok(())
}

/// The width of the network that every token goes through.
pub(super) fn read_shared_width(metadata: &mut Metadata<'_>, field: &str) {
    if let Some([width, _]) = metadata.sizes("ffn_up_shexp.weight") {
        metadata.set_from(field, "expert_shared_feed_forward_length", width);
    }
}

/// The gate of that network, which llama.cpp has as a vector.
pub(super) fn shared_gate(_: &Metadata<'_>, tensors: &mut Tensors) -> Result<()> {
    tensors.reshape(".mlp.shared_expert_gate.weight", |shape| match *shape {
        [columns] => vec![1, columns],
        _ => shape.to_vec(),
    })
}

/// How many experts' widths the network that every token goes through is wide.
fn shared_experts(metadata: &Metadata<'_>) -> Result<usize> {
    let (Some([shared, _]), Some([_, width])) =
        (metadata.sizes("ffn_up_shexp.weight"), metadata.sizes("ffn_down_exps.weight"))
    else {
        return Ok(0);
    };
    match shared.checked_div(width) {
        Some(count) if count * width == shared => Ok(count),
        _ => Err(metadata.error(
            "expert_shared_count",
            format!("does not fit a network of {shared} beside experts of {width}"),
        )),
    }
}

pub(super) fn gpt_oss(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.read_experts("num_local_experts")?;
    metadata.copy_count("intermediate_size", "expert_feed_forward_length")?;
    windows(metadata, 2)?;
    // As the models were trained; the metadata does not say.
    metadata.set_in("rope_scaling", "truncate", false);
    Ok(())
}

/// OLMoE, whose experts' shares are those among all. Their width is the only one.
pub(super) fn olmoe(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.read_experts("num_experts")?;
    read_only_width(metadata);
    metadata.set("norm_topk_prob", false);
    no_biases(metadata)
}

/// The width of experts as that of all networks.
fn read_only_width(metadata: &mut Metadata<'_>) {
    if let Some([_, width]) = metadata.sizes("ffn_down_exps.weight") {
        metadata.set_from("intermediate_size", "expert_feed_forward_length", width);
    }
}

/// Granite with experts. Those with a network beside them, which every token goes through, are of another family.
pub(super) fn granite_moe(metadata: &mut Metadata<'_>) -> Result<()> {
    if metadata.any_has("ffn_up_shexp.weight") {
        let problem = "is not supported: a network beside the experts";
        return Err(metadata.error("expert_shared_feed_forward_length", problem));
    }
    metadata.read_experts("num_local_experts")?;
    read_only_width(metadata);
    attention_bias(metadata)?;
    granite_factors(metadata)
}

/// ERNIE 4.5 with experts.
pub(super) fn ernie_moe(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.read_experts("moe_num_experts")?;
    metadata.set_from("moe_k", "expert_used_count", metadata.required("expert_used_count")?);
    metadata.set("moe_num_shared_experts", shared_experts(metadata)?);
    metadata.set("use_bias", metadata.any_has("attn_q.bias"));
    let mixture = |layer: &usize| metadata.layer_has(*layer, "ffn_gate_inp.weight");
    let first = metadata.dense_layers();
    let last = (0..metadata.layers).rev().find(mixture).unwrap_or(first);
    let interval = metadata.count("interleave_moe_layer_step")?.unwrap_or(1);
    metadata.set_from("moe_layer_start_index", "leading_dense_block_count", first);
    metadata.set("moe_layer_end_index", last);
    metadata.set_from("moe_layer_interval", "interleave_moe_layer_step", interval);
    metadata.set("moe_correction", metadata.any_has("exp_probs_b.bias"));
    metadata.expect_scores("softmax")
}

/// Hunyuan with experts; their shares are those among the chosen.
pub(super) fn hunyuan_moe(metadata: &mut Metadata<'_>) -> Result<()> {
    hunyuan(metadata)?;
    metadata.read_experts("num_experts")?;
    metadata.set_from("moe_topk", "expert_used_count", metadata.required("expert_used_count")?);
    metadata.set("norm_topk_prob", true);
    let shared = metadata.sizes("ffn_up_shexp.weight");
    metadata.set("use_mixed_mlp_moe", shared.is_some());
    if let Some([width, _]) = shared {
        metadata.set("num_shared_expert", 1);
        metadata.set_from("intermediate_size", "expert_shared_feed_forward_length", width);
    }
    Ok(())
}

/// MiniMax M2: sigmoid scores, which are corrected for the choice.
pub(super) fn minimax(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.read_experts("num_local_experts")?;
    read_only_width(metadata);
    metadata.copy_count("rotary_dim", "rope.dimension_count")?;
    metadata.set("use_qk_norm", metadata.any_has("attn_q_norm.weight"));
    no_biases(metadata)?;
    metadata.expect_scores("sigmoid")
}

/// GLM 4.5, Solar Open, which is one without biases and norms of heads, and dots.llm1.
pub(super) fn glm4_moe(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.read_experts("n_routed_experts")?;
    metadata.read_choice()?;
    metadata.expect_scores("sigmoid")?;
    attention_bias(metadata)?;
    metadata.set("use_qk_norm", metadata.any_has("attn_q_norm.weight"));
    read_shared_and_dense(metadata)
}

/// How many experts' widths the network for all tokens has, and how many layers come before the first with experts.
fn read_shared_and_dense(metadata: &mut Metadata<'_>) -> Result<()> {
    let shared = shared_experts(metadata)?;
    if shared > 0 {
        metadata.set_from("n_shared_experts", "expert_shared_count", shared);
        metadata.set_from("num_shared_experts", "expert_shared_count", shared);
    }
    metadata.set_from("first_k_dense_replace", "leading_dense_block_count", metadata.dense_layers());
    Ok(())
}

/// EXAONE with experts: windows in most layers.
pub(super) fn exaone_moe(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.read_experts("num_experts")?;
    metadata.read_choice()?;
    metadata.expect_scores("sigmoid")?;
    no_biases(metadata)?;
    read_shared_and_dense(metadata)?;
    windows(metadata, 4)
}

/// Ling and Ring of the second generation, whose queries, keys and values are in one matrix.
pub(super) fn bailing_moe(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.read_experts("num_experts")?;
    metadata.read_choice()?;
    metadata.set_from("score_function", "expert_gating_func", metadata.scores("softmax")?);
    metadata.set("moe_router_enable_expert_bias", metadata.any_has("exp_probs_b.bias"));
    metadata.set("use_qk_norm", metadata.any_has("attn_q_norm.weight"));
    metadata.set("use_qkv_bias", metadata.any_has("attn_qkv.bias"));
    no_biases(metadata)?;
    metadata.set_from("first_k_dense_replace", "leading_dense_block_count", metadata.dense_layers());
    if metadata.any_has("ffn_up_shexp.weight") {
        metadata.set_from("num_shared_experts", "expert_shared_count", 1);
        read_shared_width(metadata, "moe_shared_expert_intermediate_size");
    }
    Ok(())
}

/// DeepSeek's second and third versions, and what is built like them: Kimi, GLM 4.7 Flash, Youtu.
pub(super) fn deepseek2(metadata: &mut Metadata<'_>) -> Result<()> {
    if metadata.number("attention.temperature_scale")?.is_some_and(|scale| scale != 0.0) {
        return Err(metadata.error("attention.temperature_scale", "is not supported in this architecture"));
    }
    let vocab = metadata.file.tensor("token_embd.weight").and_then(|tensor| tensor.shape().first());
    let is_glm = matches!(metadata.layers, 47 | 48) && vocab == Some(&154_880);
    let scores = metadata.scores(if is_glm { "sigmoid" } else { "softmax" })?;
    let has_experts = metadata.count("expert_count")?.is_some_and(|count| count > 0);
    metadata.set(
        "model_type",
        match scores {
            "sigmoid" if is_glm => "glm4_moe_lite",
            "sigmoid" => "deepseek_v3",
            // Without experts, nothing but the names differs.
            _ if !has_experts => "deepseek_v3",
            _ => "deepseek_v2",
        },
    );
    read_latent(metadata)?;
    if has_experts {
        metadata.read_experts("n_routed_experts")?;
        metadata.read_choice()?;
        read_shared_and_dense(metadata)?;
        if scores == "softmax" {
            if metadata.flag("expert_weights_norm")?.unwrap_or(false) {
                let problem = "is not supported with scores of softmax";
                return Err(metadata.error("expert_weights_norm", problem));
            }
            let grouped = metadata.count("expert_group_count")?.is_some_and(|count| count > 1);
            metadata.set("topk_method", if grouped { "group_limited_greedy" } else { "greedy" });
        }
    }
    Ok(())
}

/// Mistral 4, whose queries grow with their position.
pub(super) fn mistral4(metadata: &mut Metadata<'_>) -> Result<()> {
    read_latent(metadata)?;
    metadata.read_experts("n_routed_experts")?;
    metadata.read_choice()?;
    metadata.expect_scores("softmax")?;
    read_shared_and_dense(metadata)?;
    for (field, key) in [("n_group", "expert_group_count"), ("topk_group", "expert_group_used_count")] {
        if metadata.count(key)?.is_none() {
            metadata.set_from(field, key, 1);
        }
    }
    if metadata.number("expert_weights_scale")?.is_none_or(|scale| scale == 0.0) {
        metadata.set_from("routed_scaling_factor", "expert_weights_scale", 1.0);
    }
    if let Some(scale) = metadata.number("attention.temperature_scale")?.filter(|scale| *scale != 0.0) {
        metadata.set_in("rope_scaling", "llama_4_scaling_beta", scale);
    }
    if let Some(scaling) = metadata.field("rope_scaling") {
        metadata.unset("rope_scaling");
        metadata.set("rope_parameters", scaling);
    }
    Ok(())
}

/// The sizes of latent attention. Older files have the dimensions of heads as they are, newer ones as they are computed with,
/// and the former under other keys.
fn read_latent(metadata: &mut Metadata<'_>) -> Result<()> {
    let rope = metadata.required("rope.dimension_count")?;
    let (key, value) = match metadata.count("attention.key_length_mla")? {
        Some(_) => ("attention.key_length_mla", "attention.value_length_mla"),
        None => ("attention.key_length", "attention.value_length"),
    };
    let length = metadata.required(key)?;
    let plain = length.checked_sub(rope).filter(|plain| *plain > 0).ok_or_else(|| {
        metadata.error(key, format!("is {length}, which must be above rope.dimension_count, {rope}"))
    })?;
    metadata.set_from("qk_nope_head_dim", key, plain);
    metadata.set_from("qk_rope_head_dim", "rope.dimension_count", rope);
    metadata.set_from("v_head_dim", value, metadata.required(value)?);
    metadata.set_from("kv_lora_rank", "attention.kv_lora_rank", metadata.required("attention.kv_lora_rank")?);
    // Some files give it where queries are made from the input.
    let rank = metadata.sizes("attn_q_a.weight").map(|[rank, _]| rank);
    metadata.set_from("q_lora_rank", "attention.q_lora_rank", rank);
    for field in ["head_dim", "partial_rotary_factor", "num_key_value_heads"] {
        metadata.unset(field);
    }
    no_biases(metadata)
}

/// The head of these is never the embedding.
pub(super) fn separate_head(_: &Metadata<'_>, tensors: &mut Tensors) -> Result<()> {
    for parameter in ["weight", "scales", "biases"] {
        let head = format!("lm_head.{parameter}");
        if !tensors.contains(&head)
            && let Some(embedding) = tensors.get(&format!("model.embed_tokens.{parameter}")).cloned()
        {
            tensors.insert(head, embedding);
        }
    }
    Ok(())
}
