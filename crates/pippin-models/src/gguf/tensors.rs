//! From llama.cpp's tensors to those that a family asks for: their names, and the order of their rows.

use std::ops::Range;

use pippin_weights::gguf::{GgufTensor, GgufView};

use super::architectures::Architecture;
use super::metadata::Metadata;
use crate::published::Tensors;
use crate::{Result, limits};

/// What most architectures call the modules of a layer, and what most families do. Where a tensor has a name of its own,
/// `weight` and `bias` included, that stands here.
const LAYER: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_sinks.weight", "self_attn.sinks"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("ffn_gate_inp", "mlp.gate"),
    ("ffn_gate_exps", "mlp.switch_mlp.gate_proj"),
    ("ffn_up_exps", "mlp.switch_mlp.up_proj"),
    ("ffn_down_exps", "mlp.switch_mlp.down_proj"),
    ("ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
    ("ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_expert.up_proj"),
    ("ffn_down_shexp", "mlp.shared_expert.down_proj"),
    ("exp_probs_b.bias", "mlp.gate.e_score_correction_bias"),
];

/// The same of what is not in a layer.
const MODEL: &[(&str, &str)] =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// Tensors that the configuration has been made of.
const READ: [&str; 3] = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/// Puts a tensor of the file where it belongs.
pub(crate) fn place(
    architecture: &Architecture,
    metadata: &Metadata<'_>,
    tensor: &GgufTensor,
    tensors: &mut Tensors,
) -> Result<()> {
    let name = tensor.name();
    if READ.contains(&name) {
        return Ok(());
    }
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let layer = layer.and_then(|(number, rest)| Some((number.parse::<usize>().ok()?, rest)));
    let (prefix, rest, tables) = match layer {
        // Layers for the prediction of several tokens at once.
        Some((layer, _)) if layer >= metadata.layers => return Ok(()),
        Some((layer, rest)) => {
            (format!("{}.{layer}.", architecture.layers), rest, [architecture.layer, LAYER])
        }
        None => (String::new(), name, [architecture.model, MODEL]),
    };
    // A product of gate and up projections, and one of queries, keys and values, may be stored as one.
    if rest == "ffn_gate_up_exps.weight" {
        return split_experts(metadata, tensor, &prefix, tables, tensors);
    }
    let Some(ours) = tables.into_iter().find_map(|table| look_up(table, rest)) else {
        let problem = format!("has no place in an architecture {}", architecture.name);
        return Err(metadata.file.tensor_error(tensor, problem).into());
    };
    let view = arranged(architecture, metadata, rest, tensor.view())?;
    insert(tensors, view, format!("{prefix}{ours}"))
}

fn insert(tensors: &mut Tensors, view: GgufView, name: String) -> Result<()> {
    for tensor in view.tensors(&name)? {
        tensors.insert(tensor.name().to_owned(), tensor);
    }
    Ok(())
}

/// Our name of a tensor, if the table has it: by its full name, or by that of its module.
fn look_up(table: &[(&str, &str)], name: &str) -> Option<String> {
    if let Some((_, ours)) = table.iter().find(|(theirs, _)| *theirs == name) {
        return Some((*ours).to_owned());
    }
    let (module, parameter) = name.rsplit_once('.')?;
    let (_, ours) = table.iter().find(|(theirs, _)| *theirs == module)?;
    Some(format!("{ours}.{parameter}"))
}

/// The rows of queries and keys in the order of the model's own checkpoint, of architectures in which llama.cpp rotates
/// neighbours: there the rows of a head that form a pair lie side by side, here one lies in each half of the head.
fn arranged(
    architecture: &Architecture,
    metadata: &Metadata<'_>,
    name: &str,
    view: GgufView,
) -> Result<GgufView> {
    if !architecture.permuted {
        return Ok(view);
    }
    let heads = match name.split_once('.') {
        Some(("attn_q", _)) => metadata.count("attention.head_count")?,
        Some(("attn_k", _)) => {
            let kv_heads = match metadata.counts_of_layers("attention.head_count_kv")? {
                // Of those layers that have any.
                Some(list) => list.into_iter().max(),
                None => metadata.count("attention.head_count_kv")?,
            };
            kv_heads.or(metadata.count("attention.head_count")?)
        }
        _ => None,
    };
    let Some(heads) = heads.filter(|heads| *heads > 0) else { return Ok(view) };
    // A bias is one number a row.
    let is_vector = view.shape().len() == 1;
    let view = if is_vector { view.as_column()? } else { view };
    let rows = view.rows();
    if heads > limits::HEADS || !rows.is_multiple_of(2 * heads) {
        return Err(metadata.error(
            "attention.head_count",
            format!("is {heads}, which does not divide the {rows} rows of {name}"),
        ));
    }
    let view = view.select_rows(&halves(heads, rows / heads))?;
    Ok(if is_vector { view.as_vector() } else { view })
}

/// Where the rows of heads are whose pairs lie side by side: first the first of each pair, then the second.
fn halves(heads: usize, width: usize) -> Vec<Range<usize>> {
    let place = |head: usize, half: usize, pair: usize| head * width + 2 * pair + half;
    let rows = (0..heads).flat_map(|head| {
        (0..2).flat_map(move |half| (0..width / 2).map(move |pair| place(head, half, pair)))
    });
    rows.map(|row| row..row + 1).collect()
}

/// Gate and up projections of experts that are one tensor: of each expert, first the gate's rows.
fn split_experts(
    metadata: &Metadata<'_>,
    tensor: &GgufTensor,
    prefix: &str,
    tables: [&[(&str, &str)]; 2],
    tensors: &mut Tensors,
) -> Result<()> {
    let view = tensor.view();
    let &[experts, rows, columns] = view.shape() else {
        return Err(metadata.file.tensor_error(tensor, "must have three axes".to_owned()).into());
    };
    if rows % 2 != 0 {
        return Err(metadata
            .file
            .tensor_error(tensor, format!("must have an even number of rows, found {rows}"))
            .into());
    }
    for (half, name) in ["ffn_gate_exps.weight", "ffn_up_exps.weight"].into_iter().enumerate() {
        let first = half * rows / 2;
        let ranges: Vec<Range<usize>> =
            (0..experts).map(|expert| expert * rows + first..expert * rows + first + rows / 2).collect();
        let part = view.select_rows(&ranges)?.reshape(&[experts, rows / 2, columns])?;
        let Some(ours) = tables.into_iter().find_map(|table| look_up(table, name)) else { continue };
        insert(tensors, part, format!("{prefix}{ours}"))?;
    }
    Ok(())
}
