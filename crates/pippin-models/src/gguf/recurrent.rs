//! Architectures with layers that keep a state: convolutions, state spaces, delta nets.

use super::metadata::Metadata;
use crate::Result;
use crate::published::Tensors;

/// LFM2: layers without heads of keys and values are convolutions.
pub(super) fn lfm2(metadata: &mut Metadata<'_>) -> Result<()> {
    let kv_heads = metadata.counts("attention.head_count_kv")?;
    let kv_heads = kv_heads.filter(|list| list.len() >= metadata.layers);
    let kv_heads = kv_heads
        .ok_or_else(|| metadata.error("attention.head_count_kv", "must be a number for each layer"))?;
    let most = kv_heads.iter().copied().max().unwrap_or(0);
    metadata.set_from("num_key_value_heads", "attention.head_count_kv", most);
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

pub(super) fn mamba2(metadata: &mut Metadata<'_>) -> Result<()> {
    let heads = metadata.required("ssm.time_step_rank")?;
    let inner = metadata.required("ssm.inner_size")?;
    let head_dim = inner.checked_div(heads).filter(|head_dim| head_dim * heads == inner);
    let head_dim = head_dim.ok_or_else(|| {
        metadata.error(
            "ssm.inner_size",
            format!("is {inner}, which {heads} heads (ssm.time_step_rank) do not divide"),
        )
    })?;
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
    for name in [".mixer.A_log", ".mixer.D", ".mixer.norm.weight"] {
        tensors.reshape(name, |shape| vec![shape.iter().product()])?;
    }
    tensors.map(".mixer.A_log", |decay| (-decay).ln())
}
