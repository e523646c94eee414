//! Gemma 4, the text model by itself or in a multimodal one: Gemma 3's order of norms with plain weights, attention without a
//! factor over normed values, longer heads of which a quarter turns in layers without a window, and a factor on each layer's
//! result.
//!
//! The small ones (e2b, e4b) give each layer an input of its own, and their upper layers read the keys and values of lower
//! ones. In the large ones (31b, 26b-a4b) layers without a window have one matrix for keys and values; 26b-a4b has a mixture
//! of experts beside each feed-forward network.

use pippin_tensor::{Activation, Gate, RouterSpec};

use super::common::{Sizes, activation, split_experts, window, windowed_layers};
use super::gemma;
use super::gemma3n::shared_layers;
use crate::config::Fields;
use crate::parts::{Attention, Dense, Experts, LayerInput, NormSpec, Part, Projections, RouterNorm};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, Branch, DecoderSpec, EmbeddingScale, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, LayerInputs, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let (fields, prefix, norm) = match config.fields().object("text_config.")? {
        Some(text) => (text, "language_model.", "language_model.model.norm"),
        None => (config.fields(), "", "model.norm"),
    };
    let default = Sizes {
        hidden_size: 1536,
        layers: 35,
        heads: 8,
        kv_heads: 1,
        head_dim: 256,
        intermediate_size: 6144,
        vocab_size: config.fields().count_or("vocab_size", 262_144, limits::VOCAB)?,
        context_length: 131_072,
    };
    let sizes = Sizes::read_or(fields, &default)?;
    if let Some(kind) = fields.text("use_bidirectional_attention")?.filter(|kind| *kind == "all") {
        return Err(fields.unsupported("use_bidirectional_attention", kind, &["vision"]));
    }
    let eps = fields.positive_or("rms_norm_eps", 1e-6)?;
    let activation = activation(fields, "hidden_activation", Activation::GeluTanh)?;
    let pattern = fields.count_or("sliding_window_pattern", 5, limits::LAYERS)?;
    let windows = windowed_layers(fields, sizes.layers, |layer| layer % pattern != pattern - 1)?;
    let sharing = count_unless_none(fields, "num_kv_shared_layers", 20, limits::LAYERS)?.unwrap_or(0);
    let shares = shared_layers(fields, &windows, sharing)?;
    let [local, global] = attentions(fields, &sizes, eps)?;
    let experts = match fields.flag_or("enable_moe_block", false)? {
        true => Some(experts(fields, eps, activation)?),
        false => None,
    };
    let inputs = match count_unless_none(fields, "hidden_size_per_layer_input", 256, limits::HIDDEN)? {
        None => None,
        Some(width) => Some(LayerInputs {
            path: format!("{prefix}model"),
            width,
            vocab: fields.count_or("vocab_size_per_layer_input", 262_144, limits::VOCAB)?,
            eps,
        }),
    };
    let doubles = fields.flag_or("use_double_wide_mlp", true)?;
    let layer = |layer: usize| {
        let attention = if windows[layer] { &local } else { &global };
        let attention = Attention { shares: shares[layer], ..attention.clone() };
        let times = if doubles && shares[layer].is_some() { 2 } else { 1 };
        let network = Dense::gated(times * sizes.intermediate_size, activation);
        let mut blocks = vec![
            Block::sandwich(
                NormSpec::rms("input_layernorm", eps),
                Part::Attention(attention),
                NormSpec::rms("post_attention_layernorm", eps),
            ),
            feed_forward(network, experts.as_ref(), eps),
        ];
        if let Some(&LayerInputs { width, .. }) = inputs.as_ref() {
            let part = Part::LayerInput(LayerInput { layer, width, activation });
            blocks.push(Block::post_norm(part, NormSpec::rms("post_per_layer_input_norm", eps)));
        }
        if let Some(last) = blocks.last_mut() {
            last.stream_scale = Some("layer_scalar");
        }
        LayerSpec::Blocks(blocks)
    };
    let layers = (0..sizes.layers).map(layer).collect();
    let tied = fields.flag_or("tie_word_embeddings", true)?;
    // No cap where the configuration says `null`, the usual one where it says nothing.
    let softcap = match fields.value("final_logit_softcapping") {
        Some(value) if value.is_null() => None,
        _ => Some(fields.positive_or("final_logit_softcapping", 30.0)?),
    };
    let head = Head { softcap, ..Head::new(if tied { HeadWeights::Tied } else { HeadWeights::Separate }) };
    Ok(DecoderSpec {
        names: ModelNames::under(prefix),
        embedding_scale: EmbeddingScale { factor: (sizes.hidden_size as f32).sqrt(), as_stored: true },
        layer_inputs: inputs,
        ..sizes.decoder(layers, NormSpec::rms(norm, eps), head)
    })
}

/// A count that is none where the configuration says 0 or `null`; where it says nothing, it is the default.
fn count_unless_none(fields: Fields<'_>, name: &str, default: usize, limit: usize) -> Result<Option<usize>> {
    match fields.value(name) {
        None => Ok(Some(default)),
        Some(value) if value.is_null() || value.as_f64() == Some(0.0) => Ok(None),
        Some(_) => fields.limited_count(name, limit).map(Some),
    }
}

/// A published checkpoint has the text model under another prefix, and the gates of experts in one stack with what they are
/// applied to.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    gemma::published(config, tensors)?;
    let text = config.fields().object("text_config.")?;
    let Some(width) = text.unwrap_or(config.fields()).count("moe_intermediate_size")? else { return Ok(()) };
    split_experts(tensors, "experts", "experts.switch_glu", width)
}

/// The attention of layers with a window, and of those without.
fn attentions(fields: Fields<'_>, sizes: &Sizes, eps: f32) -> Result<[Attention; 2]> {
    let traditional = fields.flag_or("rope_traditional", false)?;
    let bias = fields.flag_or("attention_bias", false)?;
    let attention = |kv_heads: usize, head_dim: usize| Attention {
        qkv_bias: bias,
        output_bias: bias,
        query_norm: Some(NormSpec::rms("self_attn.q_norm", eps)),
        key_norm: Some(NormSpec::rms("self_attn.k_norm", eps)),
        value_norm: Some(NormSpec::bare(eps)),
        scale: 1.0,
        ..Attention::new(sizes.heads, kv_heads, head_dim)
    };
    let length = fields.count_or("sliding_window", 512, limits::CONTEXT)?;
    let defaults = |theta: f64, dims: usize| RopeDefaults { dims, theta: Some(theta), traditional };
    let local_rope = match rope::of_layers(fields, "sliding_attention")? {
        Some(own) => rope::read_of_layers(fields, own, &defaults(10_000.0, sizes.head_dim))?,
        None => rope::plain(10_000.0, sizes.head_dim, traditional),
    };
    let local = Attention {
        rope: Some(local_rope),
        reach: window(true, length),
        ..attention(sizes.kv_heads, sizes.head_dim)
    };

    let head_dim = count_unless_none(fields, "global_head_dim", 512, limits::HEAD_DIM)?;
    let head_dim = head_dim.unwrap_or(sizes.head_dim);
    let one_for_both = fields.flag_or("attention_k_eq_v", false)?;
    let kv_heads = match one_for_both {
        true => fields.count_or("num_global_key_value_heads", sizes.kv_heads, limits::HEADS)?,
        false => sizes.kv_heads,
    };
    let global_rope = match rope::of_layers(fields, "full_attention")? {
        Some(own) => rope::read_of_layers(fields, own, &defaults(10_000.0, head_dim))?,
        None => rope::plain_proportional(1_000_000.0, head_dim, 0.25, traditional),
    };
    let mut global = Attention { rope: Some(global_rope), ..attention(kv_heads, head_dim) };
    if one_for_both {
        global.projections = Projections::KeysAsValues(["self_attn.q_proj", "self_attn.k_proj"]);
    }
    Ok([local, global])
}

/// The network between its norms, or network and mixture, each with norms of its own, before a norm of their sum.
fn feed_forward(network: Dense, experts: Option<&Experts>, eps: f32) -> Block {
    let before = NormSpec::rms("pre_feedforward_layernorm", eps);
    let after = NormSpec::rms("post_feedforward_layernorm", eps);
    let Some(experts) = experts else { return Block::sandwich(before, Part::Dense(network), after) };
    let dense = Branch {
        post: Some(NormSpec::rms("post_feedforward_layernorm_1", eps)),
        ..Branch::new(before, Part::Dense(network))
    };
    let experts = Branch {
        post: Some(NormSpec::rms("post_feedforward_layernorm_2", eps)),
        ..Branch::new(NormSpec::rms("pre_feedforward_layernorm_2", eps), Part::Experts(experts.clone()))
    };
    Block { post: Some(after), ..Block::new(vec![dense, experts]) }
}

fn experts(fields: Fields<'_>, eps: f32, activation: Activation) -> Result<Experts> {
    let count = fields.limited_count("num_experts", limits::EXPERTS)?;
    let top_k = fields.limited_count("top_k_experts", count)?;
    let choice = RouterSpec { normalize: true, ..RouterSpec::softmax(count, top_k) };
    let width = fields.limited_count("moe_intermediate_size", limits::INTERMEDIATE)?;
    Ok(Experts {
        router: "router.proj",
        router_norm: Some(RouterNorm { weight: "router.scale", eps }),
        expert_scale: Some("router.per_expert_scale"),
        names: ["experts.switch_glu.gate_proj", "experts.switch_glu.up_proj", "experts.switch_glu.down_proj"],
        gate: Gate::Of(activation),
        ..Experts::new(choice, width)
    })
}
