//! Google's architectures.

use super::metadata::Metadata;
use crate::Result;
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

/// Norms of Gemma multiply with one plus the weight; llama.cpp stores that sum.
pub(super) fn norms_without_one(_: &Metadata<'_>, tensors: &mut Tensors) -> Result<()> {
    tensors.map("norm.weight", |weight| weight - 1.0)
}
