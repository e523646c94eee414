//! Architectures with layers that keep a state: convolutions, state spaces, delta nets.

use std::ops::Range;

use super::dense::granite_factors;
use super::metadata::Metadata;
use super::mixtures::{read_shared_width, shared_gate};
use crate::published::Tensors;
use crate::{Result, limits};

/// LFM2: layers without heads of keys and values are convolutions.
pub(super) fn lfm2(metadata: &mut Metadata<'_>) -> Result<()> {
    let kv_heads = read_kv_heads(metadata)?;
    metadata.set_layer_types(|layer| kv_heads[layer] > 0, ["full_attention", "conv"]);
    metadata.copy_number("norm_eps", "attention.layer_norm_rms_epsilon")?;
    metadata.copy_count("conv_L_cache", "shortconv.l_cache")?;
    metadata.set("conv_bias", metadata.any_has("shortconv.in_proj.bias"));
    // The width is what comes out of the configuration's rule.
    metadata.set("block_auto_adjust_ff_dim", false);
    Ok(())
}

/// The same with experts after the first layers; their shares are those among the chosen.
pub(super) fn lfm2_moe(metadata: &mut Metadata<'_>) -> Result<()> {
    lfm2(metadata)?;
    metadata.read_experts("num_experts")?;
    metadata.expect_scores("sigmoid")?;
    metadata.set("norm_topk_prob", true);
    if let Some(scale) = metadata.number("expert_weights_scale")?.filter(|scale| *scale != 0.0) {
        metadata.set_from("routed_scaling_factor", "expert_weights_scale", scale);
    }
    metadata.set("use_expert_bias", metadata.any_has("exp_probs_b.bias"));
    metadata.set_from("num_dense_layers", "leading_dense_block_count", metadata.dense_layers());
    Ok(())
}

pub(super) fn short_convolutions(_: &Metadata<'_>, tensors: &mut Tensors) -> Result<()> {
    kernels(tensors, ".conv.conv.weight")
}

/// The sizes of state spaces: heads, and the dimension of one.
fn state_space_heads(metadata: &Metadata<'_>) -> Result<[usize; 2]> {
    let heads = metadata.required("ssm.time_step_rank")?;
    let inner = metadata.required("ssm.inner_size")?;
    match inner.checked_div(heads) {
        Some(head_dim) if head_dim * heads == inner => Ok([heads, head_dim]),
        _ => Err(metadata.error(
            "ssm.inner_size",
            format!("is {inner}, which {heads} heads (ssm.time_step_rank) do not divide"),
        )),
    }
}

pub(super) fn mamba2(metadata: &mut Metadata<'_>) -> Result<()> {
    let [heads, head_dim] = state_space_heads(metadata)?;
    metadata.set_from("num_heads", "ssm.time_step_rank", heads);
    metadata.set_from("head_dim", "ssm.inner_size", head_dim);
    metadata.copy_count("n_groups", "ssm.group_count")?;
    metadata.copy_count("state_size", "ssm.state_size")?;
    metadata.copy_count("conv_kernel", "ssm.conv_kernel")?;
    metadata.copy_number("layer_norm_epsilon", "attention.layer_norm_rms_epsilon")?;
    metadata.set("use_bias", metadata.has("blk.0.ssm_in.bias"));
    metadata.set("use_conv_bias", metadata.has("blk.0.ssm_conv1d.bias"));
    Ok(())
}

/// Granite 4: state spaces in layers without heads of keys and values; mixtures beside a network, or networks.
pub(super) fn granite_hybrid(metadata: &mut Metadata<'_>) -> Result<()> {
    let [heads, head_dim] = state_space_heads(metadata)?;
    metadata.set_from("mamba_n_heads", "ssm.time_step_rank", heads);
    metadata.set_from("mamba_d_head", "ssm.inner_size", head_dim);
    metadata.copy_count("mamba_n_groups", "ssm.group_count")?;
    metadata.copy_count("mamba_d_state", "ssm.state_size")?;
    metadata.copy_count("mamba_d_conv", "ssm.conv_kernel")?;
    metadata.set("mamba_proj_bias", metadata.any_has("ssm_in.bias"));
    metadata.set("mamba_conv_bias", metadata.any_has("ssm_conv1d.bias"));
    let kv_heads = read_kv_heads(metadata)?;
    metadata.set_layer_types(|layer| kv_heads[layer] > 0, ["attention", "mamba"]);
    let rotates = metadata.flag("rope.scaling.finetuned")?.unwrap_or(true);
    metadata.set("position_embedding_type", if rotates { "rope" } else { "nope" });
    metadata.set("attention_bias", metadata.any_has("attn_q.bias"));
    metadata.set("mlp_bias", metadata.any_has("ffn_up.bias"));
    granite_factors(metadata)?;
    if metadata.any_has("ffn_gate_inp.weight") {
        metadata.read_experts("num_local_experts")?;
        let width = metadata.sizes("ffn_down_exps.weight").map(|[_, width]| width);
        metadata.set_from("intermediate_size", "expert_feed_forward_length", width);
        read_shared_width(metadata, "shared_intermediate_size");
        metadata.set("shared_mlp_divided", true);
    }
    Ok(())
}

/// The heads of keys and values of each layer, of which some have none; those that have some must have as many.
fn read_kv_heads(metadata: &mut Metadata<'_>) -> Result<Vec<usize>> {
    let kv_heads = metadata.counts_of_layers("attention.head_count_kv")?;
    let kv_heads = kv_heads
        .ok_or_else(|| metadata.error("attention.head_count_kv", "must be a number for each layer"))?;
    let most = kv_heads.iter().copied().max().unwrap_or(0);
    if kv_heads.iter().any(|count| *count > 0 && *count != most) {
        return Err(metadata.error("attention.head_count_kv", "must be the same where it is not 0"));
    }
    metadata.set_from("num_key_value_heads", "attention.head_count_kv", most);
    Ok(kv_heads)
}

/// Nemotron H: attention, a state space, a network or a mixture, one in each layer.
pub(super) fn nemotron_h(metadata: &mut Metadata<'_>) -> Result<()> {
    let [heads, head_dim] = state_space_heads(metadata)?;
    metadata.set_from("mamba_num_heads", "ssm.time_step_rank", heads);
    metadata.set_from("mamba_head_dim", "ssm.inner_size", head_dim);
    metadata.copy_count("n_groups", "ssm.group_count")?;
    metadata.copy_count("ssm_state_size", "ssm.state_size")?;
    metadata.copy_count("conv_kernel", "ssm.conv_kernel")?;
    metadata.set("mamba_proj_bias", metadata.any_has("ssm_in.bias"));
    metadata.set("use_conv_bias", metadata.any_has("ssm_conv1d.bias"));
    metadata.set("attention_bias", metadata.any_has("attn_q.bias"));
    metadata.set("mlp_bias", metadata.any_has("ffn_up.bias"));
    let (rms, layer) = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon");
    metadata.copy_number("layer_norm_epsilon", if metadata.number(rms)?.is_some() { rms } else { layer })?;
    let kv_heads = read_kv_heads(metadata)?;
    let kinds: String = (0..metadata.layers)
        .map(|layer| match kv_heads[layer] {
            0 if metadata.layer_has(layer, "ffn_gate_inp.weight") => 'E',
            0 if metadata.layer_has(layer, "ffn_up.weight") => '-',
            0 => 'M',
            _ => '*',
        })
        .collect();
    metadata.set("hybrid_override_pattern", kinds);
    let widths = metadata.counts("feed_forward_length")?.unwrap_or_default();
    let width = metadata.sizes("ffn_up.weight").map(|[width, _]| width).or(widths.into_iter().max());
    metadata.set_from("intermediate_size", "feed_forward_length", width);
    if metadata.any_has("ffn_gate_inp.weight") {
        metadata.read_experts("n_routed_experts")?;
        metadata.read_choice()?;
        metadata.expect_scores("sigmoid")?;
        metadata.copy_count("moe_latent_size", "moe_latent_size")?;
        if metadata.any_has("ffn_up_shexp.weight") {
            metadata.set("n_shared_experts", 1);
            read_shared_width(metadata, "moe_shared_expert_intermediate_size");
        }
    }
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
pub(super) fn state_spaces(_: &Metadata<'_>, tensors: &mut Tensors) -> Result<()> {
    kernels(tensors, ".conv1d.weight")?;
    for name in ["A_log", "D", "norm.weight"] {
        for module in ["mixer", "mamba"] {
            tensors.flatten(&format!(".{module}.{name}"))?;
        }
    }
    tensors.map(".A_log", |decay| (-decay).ln())
}

/// Qwen 3.5 and Qwen 3 Next: delta nets, and attention in some layers. With experts, their shares are those among the chosen.
pub(super) fn qwen_delta(metadata: &mut Metadata<'_>) -> Result<()> {
    let Heads { keys, values, key_dim, value_dim } = heads(metadata)?;
    metadata.set_from("linear_num_value_heads", "ssm.time_step_rank", values);
    metadata.set_from("linear_num_key_heads", "ssm.group_count", keys);
    metadata.set_from("linear_key_head_dim", "ssm.state_size", key_dim);
    metadata.set_from("linear_value_head_dim", "ssm.inner_size", value_dim);
    metadata.copy_count("linear_conv_kernel_dim", "ssm.conv_kernel")?;
    let recurrent = metadata.flags("attention.recurrent_layers")?;
    let interval = metadata.count("full_attention_interval")?.unwrap_or(4).max(1);
    let attends = |layer: usize| match &recurrent {
        Some(list) => !list[layer],
        None => (layer + 1).is_multiple_of(interval),
    };
    metadata.set_layer_types(attends, ["full_attention", "linear_attention"]);
    if metadata.any_has("ffn_gate_inp.weight") {
        metadata.read_experts("num_experts")?;
        metadata.set("norm_topk_prob", true);
        read_shared_width(metadata, "shared_expert_intermediate_size");
    }
    Ok(())
}

/// The heads of delta nets.
struct Heads {
    keys: usize,
    values: usize,
    key_dim: usize,
    value_dim: usize,
}

fn heads(metadata: &Metadata<'_>) -> Result<Heads> {
    let [keys, values] = ["ssm.group_count", "ssm.time_step_rank"].map(|key| metadata.required(key));
    let (keys, values) = (keys?, values?);
    if keys == 0 || keys > limits::HEADS || values > limits::HEADS || !values.is_multiple_of(keys) {
        let problem = format!("is {keys}, which must divide the {values} of ssm.time_step_rank");
        return Err(metadata.error("ssm.group_count", problem));
    }
    let inner = metadata.required("ssm.inner_size")?;
    let value_dim = inner.checked_div(values).filter(|dim| dim * values == inner && *dim <= limits::HEAD_DIM);
    let value_dim = value_dim.ok_or_else(|| {
        metadata.error("ssm.inner_size", format!("is {inner}, which does not fit {values} heads"))
    })?;
    let key_dim = metadata.required("ssm.state_size")?;
    if key_dim > limits::HEAD_DIM {
        let problem = format!("must be at most {}, found {key_dim}", limits::HEAD_DIM);
        return Err(metadata.error("ssm.state_size", problem));
    }
    Ok(Heads { keys, values, key_dim, value_dim })
}

/// Decays and kernels as of state spaces. In Qwen 3.5, heads of values that share one of keys are apart, one of each group after
/// the other; ours are side by side.
pub(super) fn qwen35(metadata: &Metadata<'_>, tensors: &mut Tensors) -> Result<()> {
    delta_nets(metadata, tensors)?;
    let Heads { keys, values, key_dim, value_dim } = heads(metadata)?;
    if keys == values {
        return Ok(());
    }
    let group = values / keys;
    let order: Vec<usize> = (0..values).map(|head| head % group * keys + head / group).collect();
    let rows = |first: usize, dim: usize| -> Vec<Range<usize>> {
        let start = |head: &usize| first + head * dim;
        let kept = (first > 0).then_some(0..first);
        kept.into_iter().chain(order.iter().map(|head| start(head)..start(head) + dim)).collect()
    };
    let mixed = rows(2 * keys * key_dim, value_dim);
    tensors.order_rows("linear_attn.in_proj_qkv", &mixed)?;
    tensors.order_rows("linear_attn.conv1d", &mixed)?;
    tensors.order_rows("linear_attn.in_proj_z", &rows(0, value_dim))?;
    for name in ["in_proj_a", "in_proj_b", "A_log", "dt_bias"] {
        tensors.order_rows(&format!("linear_attn.{name}"), &rows(0, 1))?;
    }
    tensors.order_columns("linear_attn.out_proj", &order)
}

/// Qwen 3 Next, whose strengths and decays are in one matrix, those of each head of keys together. In older files so are all
/// inputs.
pub(super) fn qwen3_next(metadata: &Metadata<'_>, tensors: &mut Tensors) -> Result<()> {
    delta_nets(metadata, tensors)?;
    let Heads { keys, values, key_dim, value_dim } = heads(metadata)?;
    let group = values / keys;
    let rows = |width: usize, first: usize, count: usize| -> Vec<Range<usize>> {
        (0..keys).map(|head| head * width + first).map(|start| start..start + count).collect()
    };
    let both = |first| rows(2 * group, first, group);
    tensors.split_rows(
        "linear_attn.in_proj_ba",
        &[("linear_attn.in_proj_b", both(0)), ("linear_attn.in_proj_a", both(group))],
    )?;
    let values = group * value_dim;
    let all = |first, count| rows(2 * key_dim + 2 * values, first, count);
    let mixed = [all(0, key_dim), all(key_dim, key_dim), all(2 * key_dim, values)].concat();
    let gate = all(2 * key_dim + values, values);
    tensors.split_rows(
        "linear_attn.in_proj_qkvz",
        &[("linear_attn.in_proj_qkv", mixed), ("linear_attn.in_proj_z", gate)],
    )
}

fn delta_nets(metadata: &Metadata<'_>, tensors: &mut Tensors) -> Result<()> {
    kernels(tensors, ".conv1d.weight")?;
    tensors.map(".linear_attn.A_log", |decay| (-decay).ln())?;
    shared_gate(metadata, tensors)
}
