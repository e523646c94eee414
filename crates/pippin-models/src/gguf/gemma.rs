//! Google's architectures.

use serde_json::{Value, json};

use super::metadata::Metadata;
use crate::Result;
use crate::families::normal_quantile;
use crate::published::Tensors;

/// Gemma 1, 2 and 3. The scale of scores is that of the models there are: of the 27B ones the width over the heads.
pub(super) fn gemma(metadata: &mut Metadata<'_>) -> Result<()> {
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
    metadata.set_from("query_pre_attn_scalar", "attention.key_length", scale);
    metadata.copy_number("attn_logit_softcapping", "attn_logit_softcapping")?;
    metadata.copy_number("final_logit_softcapping", "final_logit_softcapping")?;
    metadata.copy_count("sliding_window", "attention.sliding_window")?;
    if metadata.is("gemma3") {
        let windowed = match metadata.count("attention.sliding_window")? {
            Some(_) => metadata.windowed(6)?,
            None => vec![false; metadata.layers],
        };
        metadata.set_layer_types(|layer| windowed[layer], ["sliding_attention", "full_attention"]);
        let theta = metadata.number("rope.freq_base_swa")?.unwrap_or(10_000.0);
        metadata.set_from("rope_local_base_freq", "rope.freq_base_swa", theta);
    }
    Ok(())
}

/// What Gemma 3n and 4 have alike: windows, inputs of each layer's own, and layers that read others' keys and values.
fn later_gemma(metadata: &mut Metadata<'_>) -> Result<()> {
    metadata.copy_count("sliding_window", "attention.sliding_window")?;
    let windowed = metadata.windowed(5)?;
    metadata.set_layer_types(|layer| windowed[layer], ["sliding_attention", "full_attention"]);
    let shared = metadata.count("attention.shared_kv_layers")?.unwrap_or(0);
    metadata.set_from("num_kv_shared_layers", "attention.shared_kv_layers", shared);
    let width = metadata.count("embedding_length_per_layer_input")?.unwrap_or(0);
    metadata.set_from("hidden_size_per_layer_input", "embedding_length_per_layer_input", width);
    let table = metadata.file.tensor("per_layer_token_embd.weight");
    if let Some(rows) = table.and_then(|table| table.shape().first()) {
        metadata.set("vocab_size_per_layer_input", *rows);
    }
    let softcap = metadata.number("final_logit_softcapping")?.filter(|softcap| *softcap != 0.0);
    metadata.set_from("final_logit_softcapping", "final_logit_softcapping", softcap);
    Ok(())
}

/// Gemma 3n. How sparse networks are is given as the number of standard deviations that this is.
pub(super) fn gemma3n(metadata: &mut Metadata<'_>) -> Result<()> {
    later_gemma(metadata)?;
    metadata.copy_count("altup_num_inputs", "altup.num_inputs")?;
    metadata.copy_count("altup_active_idx", "altup.active_idx")?;
    metadata.set("altup_correct_scale", metadata.any_has("altup_correct_scale.weight"));
    metadata.set("laurel_rank", metadata.sizes("laurel_l.weight").map(|[rank, _]| rank));
    let theta = metadata.number("rope.freq_base_swa")?.unwrap_or(10_000.0);
    metadata.set_from("rope_local_base_freq", "rope.freq_base_swa", theta);
    if metadata.field("intermediate_size").is_none() {
        let widths = metadata.counts("feed_forward_length")?;
        metadata.set_from("intermediate_size", "feed_forward_length", widths);
    }
    let deviations = metadata.numbers("activation_sparsity_scale")?.unwrap_or_default();
    let shares: Vec<f64> = (0..metadata.layers)
        .map(|layer| deviations.get(layer).map_or(0.0, |deviation| share_below((*deviation).into())))
        .collect();
    metadata.set_from("activation_sparsity_pattern", "activation_sparsity_scale", shares);
    Ok(())
}

/// The share of normally distributed numbers that are below one.
fn share_below(number: f64) -> f64 {
    if !number.is_finite() {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    // So many halvings are as exact as the numbers can be.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if normal_quantile(middle) < number { low = middle } else { high = middle }
    }
    low
}

/// The matrices between the streams of Gemma 3n, which are two stacks.
pub(super) fn unstack_streams(_: &Metadata<'_>, tensors: &mut Tensors) -> Result<()> {
    tensors.unstack("altup_projections")?;
    tensors.unstack("altup_unembed_projections")
}

/// Gemma 4. Layers without a window have longer heads, of which a share turns: the factors of the others are beyond all numbers.
pub(super) fn gemma4(metadata: &mut Metadata<'_>) -> Result<()> {
    later_gemma(metadata)?;
    let windowed = metadata.windowed(5)?;
    let local = metadata.required("attention.key_length_swa")?;
    metadata.set_from("head_dim", "attention.key_length_swa", local);
    metadata.set_from("global_head_dim", "attention.key_length", metadata.required("attention.key_length")?);
    if metadata.count("rope.dimension_count_swa")?.is_some_and(|dims| dims != local) {
        let problem = format!("must be {local}, the length of heads");
        return Err(metadata.error("rope.dimension_count_swa", problem));
    }
    if let Some(kv_heads) = metadata.counts_of_layers("attention.head_count_kv")? {
        let of = |kind: bool| (0..metadata.layers).find(|layer| windowed[*layer] == kind);
        let [first_local, first_global] = [true, false].map(of);
        let counts = |layer: Option<usize>| layer.map(|layer| kv_heads[layer]);
        let [local, global] = [counts(first_local), counts(first_global)];
        let uneven = (0..metadata.layers).any(|layer| {
            let expected = if windowed[layer] { local } else { global };
            Some(kv_heads[layer]) != expected
        });
        if uneven {
            let problem = "must be the same in all layers with a window, and in all without";
            return Err(metadata.error("attention.head_count_kv", problem));
        }
        metadata.set_from("num_key_value_heads", "attention.head_count_kv", local.or(global));
        metadata.set_from("num_global_key_value_heads", "attention.head_count_kv", global.or(local));
    }
    let shared = metadata.count("attention.shared_kv_layers")?.unwrap_or(0);
    let own = metadata.layers.saturating_sub(shared);
    let one_for_both = (0..own).any(|layer| !windowed[layer] && !metadata.layer_has(layer, "attn_v.weight"));
    metadata.set("attention_k_eq_v", one_for_both);
    if let Some(widths) = metadata.counts_of_layers("feed_forward_length")? {
        let first = widths.first().copied().unwrap_or(0);
        metadata.set_from("intermediate_size", "feed_forward_length", first);
        metadata.set("use_double_wide_mlp", widths.iter().any(|width| *width != first));
    } else {
        metadata.set("use_double_wide_mlp", false);
    }

    let factors = metadata.factors("rope_freqs.weight")?;
    let share = match &factors {
        Some(factors) => {
            let turning = factors.iter().take_while(|factor| **factor == 1.0).count();
            if factors[turning..].iter().any(|factor| *factor < 1e20) {
                let problem = "does not fit rope_freqs.weight, which has factors other than 1 and infinity";
                return Err(metadata.error("rope.dimension_count", problem));
            }
            turning as f64 / factors.len().max(1) as f64
        }
        None => 1.0,
    };
    let theta = metadata.field("rope_theta").unwrap_or(Value::Null);
    let local_theta = metadata.number("rope.freq_base_swa")?.unwrap_or(10_000.0);
    for field in ["rope_scaling", "rope_theta", "partial_rotary_factor"] {
        metadata.unset(field);
    }
    metadata.set(
        "rope_parameters",
        json!({
            "full_attention":
                {"rope_type": "proportional", "partial_rotary_factor": share, "rope_theta": theta},
            "sliding_attention": {"rope_type": "default", "rope_theta": local_theta},
        }),
    );
    let has_experts = metadata.any_has("ffn_gate_inp.weight");
    metadata.set("enable_moe_block", has_experts);
    if has_experts {
        metadata.read_experts("num_experts")?;
        let used = metadata.required("expert_used_count")?;
        metadata.set_from("top_k_experts", "expert_used_count", used);
    }
    Ok(())
}
