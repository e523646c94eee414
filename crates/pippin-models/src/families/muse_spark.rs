//! Muse Spark, the text model: Glimmer with experts that are given, and give, a narrower vector between norms; with a norm
//! of what heads give; and with gates that weigh the residual stream and what is added to it.

use std::path::Path;

use pippin_tensor::{Dtype, RouterSpec, ScoreFunction, TensorData};

use super::common::{split_experts, window, windowed_layers};
use super::muse_glimmer::rotated_layers;
use crate::config::Fields;
use crate::parts::{Attention, Experts, NarrowExperts, NormSpec, Part, Projections, ScaledNorm};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{
    Block, Branch, DecoderSpec, EmbeddingScale, Head, HeadWeights, LayerSpec, ModelNames, StreamGates,
};
use crate::{Config, ModelError, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = text(config)?;
    fields.require(&["layer_types", "layer_rope_theta"])?;
    if fields.index_or("num_shared_experts", 0)? > 0 {
        return Err(
            fields.error("num_shared_experts", "must be 0: networks beside the experts are not supported")
        );
    }
    for kind in fields.texts("mlp_layer_types")?.unwrap_or_default() {
        if kind != "sparse" {
            return Err(fields.unsupported("mlp_layer_types", kind, &["sparse"]));
        }
    }
    let layers = fields.limited_count("num_hidden_layers", limits::LAYERS)?;
    let heads = fields.limited_count("num_attention_heads", limits::HEADS)?;
    let kv_heads = fields.limited_count("num_key_value_heads", limits::HEADS)?;
    let head_dim = fields.limited_count("head_dim", limits::HEAD_DIM)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let post_eps = fields.required_positive("post_norm_eps")? as f32;
    let multiplier = fields.required_positive("output_multiplier")? as f32;
    let length = fields.limited_count("sliding_window", limits::CONTEXT)?;
    let windows = windowed_layers(fields, layers, |_| false)?;
    let rotates = rotated_layers(fields, &windows)?;
    let rope = rope::read(fields, &RopeDefaults { dims: head_dim, theta: None, traditional: true })?;
    let attention = Attention {
        projections: Projections::FusedGated("self_attn.qkvg_proj"),
        query_norm: Some(NormSpec::bare(eps)),
        key_norm: Some(NormSpec::bare(eps)),
        result_norm: Some(NormSpec::bare(eps)),
        scale: (head_dim as f32).powf(-0.5) * fields.positive_or("qk_scale_factor", 5.473_006_5)?,
        ..Attention::new(heads, kv_heads, head_dim)
    };
    let experts = Part::Experts(experts(fields, [eps, post_eps], multiplier)?);
    let gates = |stream, added| Some(StreamGates { added, stream: Some(stream), by_column: true });
    let layer = |(windowed, rotates): (bool, bool)| {
        let attention = Attention {
            rope: rotates.then(|| rope.clone()),
            reach: window(windowed, length),
            ..attention.clone()
        };
        let norm = NormSpec::rms("input_layernorm", eps);
        let before_experts = NormSpec::rms("pre_feedforward_layernorm", eps);
        let scaled = ScaledNorm { path: "post_feedforward_layernorm", eps: post_eps };
        let network = Branch { scaled: Some(scaled), ..Branch::new(before_experts, experts.clone()) };
        LayerSpec::Blocks(vec![
            Block {
                gates: gates("add_attn_alpha", "add_attn_beta"),
                ..Block::sandwich(norm, Part::Attention(attention), NormSpec::bare(post_eps))
            },
            Block { gates: gates("add_ffn_alpha", "add_ffn_beta"), ..Block::new(vec![network]) },
        ])
    };
    Ok(DecoderSpec {
        final_mix: None,
        vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
        hidden_size: fields.limited_count("hidden_size", limits::HIDDEN)?,
        context_length: rope::context_length(fields, 1 << 20)?,
        names: ModelNames {
            embedding: "model.language_model.embed_tokens".to_owned(),
            layers: "model.language_model.layers".to_owned(),
            head: "lm_head".to_owned(),
        },
        embedding_scale: EmbeddingScale::NONE,
        position_embedding: None,
        unused_tokens: Vec::new(),
        rotations: Default::default(),
        embedding_norm: Some(NormSpec::bare(eps)),
        layer_inputs: None,
        ngrams: None,
        passes: 1,
        norm_between_passes: false,
        layers: windows.into_iter().zip(rotates).map(layer).collect(),
        final_norm: NormSpec::rms("model.language_model.norm", eps),
        head: Head {
            scale: multiplier,
            softcap: Some(fields.required_positive("final_logit_softcapping")? as f32),
            ..Head::new(HeadWeights::Separate)
        },
    })
}

fn text(config: &Config) -> Result<Fields<'_>> {
    let fields = config.fields();
    fields.object("text_config.")?.ok_or_else(|| fields.missing("text_config", "an object"))
}

fn experts(fields: Fields<'_>, [eps, post_eps]: [f32; 2], multiplier: f32) -> Result<Experts> {
    let count = fields.limited_count("num_local_experts", limits::EXPERTS)?;
    let choice = RouterSpec {
        scores: ScoreFunction::Sigmoid,
        normalize: true,
        scale: fields.positive_or("routed_scaling_factor", 1.0)?,
        ..RouterSpec::softmax(count, fields.limited_count("num_experts_per_tok", count)?)
    };
    let narrow = NarrowExperts {
        names: ["mlp.pre_expert_proj", "mlp.post_expert_proj"],
        width: fields.limited_count("moe_hidden_size", limits::HIDDEN)?,
        bias: false,
        norm: Some(NormSpec::rms("mlp.pre_expert_norm", eps)),
        back_norm: None,
    };
    let width = fields.limited_count("moe_intermediate_size", limits::INTERMEDIATE)?;
    Ok(Experts {
        router_dense: true,
        router_scale: multiplier,
        correction: Some("mlp.gate.e_score_correction_bias"),
        names: ["mlp.experts.gate_proj", "mlp.experts.up_proj", "mlp.experts.down_proj"],
        narrow: Some(narrow),
        result_norm: Some(ScaledNorm { path: "mlp.experts.post_expert_norm", eps: post_eps }),
        ..Experts::new(choice, width)
    })
}

/// Norms whose published weights are what one is added to.
const CENTERED: [&str; 5] = [
    ".input_layernorm.weight",
    ".pre_feedforward_layernorm.weight",
    ".post_feedforward_layernorm.weight",
    ".mlp.pre_expert_norm.weight",
    ".mlp.experts.post_expert_norm.weight",
];

/// A published checkpoint has projections apart, with the dimensions of a rotated pair half a head from each other; gate
/// and up of experts together; norms around zero; and what the weights of the residual stream are computed from.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    if tensors.names().any(|name| name.ends_with("_alpha")) {
        return Ok(());
    }
    let fields = text(config)?;
    for norm in CENTERED {
        tensors.map(norm, |weight| 1.0 + weight)?;
    }
    gates(tensors, fields.positive_or("residual_gate_temperature", 0.3)?)?;
    packed_experts(tensors)?;
    let width = fields.limited_count("moe_intermediate_size", limits::INTERMEDIATE)?;
    split_experts(tensors, "mlp.experts", "mlp.experts", width)?;
    join_projections(tensors, fields.limited_count("head_dim", limits::HEAD_DIM)?)
}

/// The weights of the stream and of what is added to it, of the gate that they are computed from.
fn gates(tensors: &mut Tensors, temperature: f32) -> Result<()> {
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    for (gate, to) in [
        ("post_attention_residual_gate.gate", "add_attn"),
        ("post_feedforward_residual_gate.gate", "add_ffn"),
    ] {
        for name in ending(tensors, gate) {
            let Some(tensor) = tensors.take(&name) else { continue };
            let at = &name[..name.len() - gate.len()];
            let beta = move |gate: f32| sigmoid(gate / temperature);
            let alpha = move |gate: f32| (sigmoid(-gate / temperature) * (1.0 + beta(gate))).max(1e-3).sqrt();
            let alphas = numbers(&format!("{at}{to}_alpha"), &tensor, tensor.shape(), move |values| {
                values.iter().map(|gate| alpha(*gate)).collect()
            })?;
            let betas = numbers(&format!("{at}{to}_beta"), &tensor, tensor.shape(), move |values| {
                values.iter().map(|gate| beta(*gate)).collect()
            })?;
            for tensor in [alphas, betas] {
                tensors.insert(tensor.name().to_owned(), tensor);
            }
        }
    }
    Ok(())
}

/// Experts in `nvfp4`, whose bytes are the words of MLX, and whose scales have a factor for each expert.
fn packed_experts(tensors: &mut Tensors) -> Result<()> {
    for projection in ["gate_up_proj", "down_proj"] {
        let bytes = format!("mlp.experts.{projection}");
        for name in ending(tensors, &bytes) {
            let Some(tensor) = tensors.get(&name).filter(|tensor| tensor.dtype() == Dtype::U8) else {
                continue;
            };
            let Some((shape, words)) = words_of(tensor) else { continue };
            let words = same_bytes(&format!("{name}.weight"), tensor, words, &shape)?;
            tensors.take(&name);
            tensors.insert(format!("{name}.weight"), words);
        }
        for name in ending(tensors, &format!("{bytes}_weight_scale")) {
            let Some(tensor) = tensors.take(&name) else { continue };
            let to = format!("{}.scales", name.trim_end_matches("_weight_scale"));
            let scales = same_bytes(&to, &tensor, Dtype::U8, tensor.shape())?;
            tensors.insert(to, scales);
        }
        for name in ending(tensors, &format!("{bytes}_weight_scale_2")) {
            let Some(tensor) = tensors.take(&name) else { continue };
            let module = name.trim_end_matches("_weight_scale_2");
            // A factor for either half of what is together.
            let modules = match module.strip_suffix("gate_up_proj") {
                Some(at) => vec![format!("{at}gate_proj"), format!("{at}up_proj")],
                None => vec![module.to_owned()],
            };
            let count = modules.len();
            for (column, module) in modules.iter().enumerate() {
                let to = format!("{module}.global_scale");
                // Stored here is the largest weight of an expert: the factor by the largest number of elements and scales.
                let scales = numbers(&to, &tensor, &[tensor.len() / count], move |values| {
                    values.iter().skip(column).step_by(count).map(|factor| factor * 6.0 * 448.0).collect()
                })?;
                tensors.insert(to, scales);
            }
        }
    }
    Ok(())
}

/// Queries, keys, values and gates as one matrix, in which the dimensions of a rotated pair are neighbours.
fn join_projections(tensors: &mut Tensors, head_dim: usize) -> Result<()> {
    if !head_dim.is_multiple_of(2) {
        return Ok(());
    }
    for parameter in ["weight", "scales", "biases"] {
        let query = format!("self_attn.q_proj.{parameter}");
        for name in ending(tensors, &query) {
            let at = &name[..name.len() - query.len()];
            let path = |projection: &str| format!("{at}self_attn.{projection}.{parameter}");
            let names = ["q_proj", "k_proj", "v_proj", "gate_proj"].map(path);
            let parts: Vec<TensorData> = names.iter().filter_map(|name| tensors.get(name).cloned()).collect();
            let Some(rows) = rows_of(&parts, head_dim) else { continue };
            let (dtype, columns) = (parts[0].dtype(), parts[0].shape()[1]);
            let to = path("qkvg_proj");
            let file = parts[0].file().map(Path::to_owned);
            let joined =
                TensorData::deferred(&*to, dtype, &[rows, columns], file.as_deref(), move |bytes| {
                    let width = columns * dtype.size();
                    let mut out = bytes.chunks_exact_mut(width.max(1));
                    for (number, part) in parts.iter().enumerate() {
                        let row = |row: usize| part.bytes()[row * width..][..width].iter();
                        for index in 0..part.shape()[0] {
                            // Of queries and keys, first the one half of a head's pairs, then the other.
                            let (head, place) = (index / head_dim * head_dim, index % head_dim);
                            let from = if number < 2 {
                                head + place % 2 * (head_dim / 2) + place / 2
                            } else {
                                index
                            };
                            if let Some(out) = out.next() {
                                out.iter_mut().zip(row(from)).for_each(|(out, byte)| *out = *byte);
                            }
                        }
                    }
                })?;
            names.iter().for_each(|name| drop(tensors.take(name)));
            tensors.insert(to, joined);
        }
    }
    Ok(())
}

/// The rows of four matrices together, if they fit each other and the first two are whole heads.
fn rows_of(parts: &[TensorData], head_dim: usize) -> Option<usize> {
    let first = parts.first().filter(|_| parts.len() == 4)?;
    let fits = |part: &TensorData| match (part.shape(), first.shape()) {
        ([_, columns], [_, known]) => columns == known && part.dtype() == first.dtype(),
        _ => false,
    };
    let heads = parts[..2].iter().all(|part| part.shape()[0].is_multiple_of(head_dim));
    (parts.iter().all(fits) && heads).then(|| parts.iter().map(|part| part.shape()[0]).sum())
}

/// The shape of bytes as words.
fn words_of(tensor: &TensorData) -> Option<(Vec<usize>, Dtype)> {
    let mut shape = tensor.shape().to_vec();
    let last = shape.last_mut().filter(|bytes| bytes.is_multiple_of(4))?;
    *last /= 4;
    Some((shape, Dtype::U32))
}

fn same_bytes(name: &str, tensor: &TensorData, dtype: Dtype, shape: &[usize]) -> Result<TensorData> {
    let source = tensor.clone();
    let changed = TensorData::deferred(name, dtype, shape, tensor.file(), move |bytes| {
        bytes.iter_mut().zip(source.bytes()).for_each(|(to, from)| *to = *from);
    })?;
    if changed.byte_len() != tensor.byte_len() {
        let problem = format!("must be of bytes that can be read as {dtype}, found {}", tensor.dtype());
        return Err(ModelError::field(tensor.name(), "dtype", problem));
    }
    Ok(changed)
}

/// Numbers that are computed from a tensor's, in `f32`.
fn numbers(
    name: &str,
    tensor: &TensorData,
    shape: &[usize],
    change: impl Fn(&[f32]) -> Vec<f32> + Send + Sync + 'static,
) -> Result<TensorData> {
    let source = tensor.clone();
    Ok(TensorData::deferred(name, Dtype::F32, shape, tensor.file(), move |bytes| {
        let values = source.to_f32().map(|values| change(&values)).unwrap_or_default();
        for (to, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *to = value.to_le_bytes();
        }
    })?)
}

fn ending(tensors: &Tensors, ends_with: &str) -> Vec<String> {
    let ends = format!(".{ends_with}");
    tensors.names().filter(|name| name.ends_with(&ends)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use pippin_weights::Checkpoint;
    use serde_json::json;

    use super::*;

    const LAYER: &str = "model.language_model.layers.0";

    fn prepared(list: Vec<TensorData>) -> Checkpoint {
        let text = json!({"head_dim": 4, "moe_intermediate_size": 2});
        let config = Config::new(json!({"model_type": "muse_spark", "text_config": text})).unwrap();
        let checkpoint = Checkpoint::from_tensors(list);
        let mut tensors = Tensors::of(&checkpoint);
        published(&config, &mut tensors).unwrap();
        tensors.into_checkpoint(&checkpoint)
    }

    fn floats(name: &str, shape: &[usize], values: &[f32]) -> TensorData {
        TensorData::from_f32(format!("{LAYER}.{name}"), shape, values).unwrap()
    }

    fn read(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
        checkpoint.get(&format!("{LAYER}.{name}")).unwrap().to_f32().unwrap()
    }

    #[test]
    fn projections_are_joined_with_pairs_side_by_side() {
        let part = |name: &str, first: f32| {
            let values: Vec<f32> = (0..4).map(|row| first + row as f32).collect();
            floats(&format!("self_attn.{name}.weight"), &[4, 1], &values)
        };
        let parts = [("q_proj", 0.0), ("k_proj", 10.0), ("v_proj", 20.0), ("gate_proj", 30.0)];
        let made = prepared(parts.map(|(name, first)| part(name, first)).to_vec());
        let expected =
            [0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0, 20.0, 21.0, 22.0, 23.0, 30.0, 31.0, 32.0, 33.0];
        assert_eq!(read(&made, "self_attn.qkvg_proj.weight"), expected);
        assert_eq!(made.names().count(), 1);
    }

    #[test]
    fn gates_and_norms_become_factors() {
        let gate = floats("post_attention_residual_gate.gate", &[2], &[0.0, 0.3]);
        let made = prepared(vec![gate, floats("input_layernorm.weight", &[1], &[0.25])]);
        let close = |found: Vec<f32>, expected: [f32; 2]| {
            found.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{found:?}"));
        };
        close(read(&made, "add_attn_beta"), [0.5, 0.731_058_6]);
        close(read(&made, "add_attn_alpha"), [0.866_025_4, 0.682_314_7]);
        assert_eq!(read(&made, "input_layernorm.weight"), [1.25]);
        // A converted checkpoint is as it should be.
        let again = prepared(made.tensors().cloned().collect());
        assert_eq!(read(&again, "input_layernorm.weight"), [1.25]);
    }

    #[test]
    fn packed_experts_are_words_with_a_factor_for_each() {
        let bytes = |name: &str, dtype, shape: &[usize]| {
            let bytes = (0..shape.iter().product::<usize>() as u8).collect();
            TensorData::new(format!("{LAYER}.mlp.experts.{name}"), dtype, shape, bytes).unwrap()
        };
        let made = prepared(vec![
            bytes("gate_up_proj", Dtype::U8, &[1, 4, 8]),
            bytes("gate_up_proj_weight_scale", Dtype::F8E4m3, &[1, 4, 1]),
            floats("mlp.experts.gate_up_proj_weight_scale_2", &[1, 2], &[1.0, 2.0]),
            floats("mlp.experts.down_proj_weight_scale_2", &[1], &[3.0]),
        ]);
        let of = |name: &str| made.get(&format!("{LAYER}.mlp.experts.{name}")).unwrap().clone();
        let up = of("up_proj.weight");
        assert_eq!((up.dtype(), up.shape()), (Dtype::U32, &[1, 2, 2][..]));
        assert_eq!(up.to_u32().unwrap()[0], 0x1312_1110);
        assert_eq!((of("up_proj.scales").dtype(), of("up_proj.scales").bytes()), (Dtype::U8, &[2, 3][..]));
        assert_eq!(read(&made, "mlp.experts.up_proj.global_scale"), [2.0 * 2688.0]);
        assert_eq!(read(&made, "mlp.experts.gate_proj.global_scale"), [2688.0]);
        assert_eq!(read(&made, "mlp.experts.down_proj.global_scale"), [3.0 * 2688.0]);
    }
}
