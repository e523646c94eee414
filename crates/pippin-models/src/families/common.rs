//! Readings of configuration fields that many families share.

use pippin_tensor::{Activation, Reach, RouterSpec, ScoreFunction};

use crate::config::Fields;
use crate::parts::{Attention, NormSpec, Part};
use crate::published::Tensors;
use crate::spec::{Block, DecoderSpec, EmbeddingScale, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits, rope};

/// The sizes that every decoder has.
pub(crate) struct Sizes {
    pub(crate) hidden_size: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) vocab_size: usize,
    pub(crate) context_length: usize,
}

impl Sizes {
    /// Reads the fields as most families have them. Heads of keys and values are as many as of queries where the
    /// configuration does not say; a head is the hidden size over the heads.
    pub(crate) fn read(fields: Fields<'_>, context_length: usize) -> Result<Self> {
        Self::read_layers(fields, "num_hidden_layers", context_length)
    }

    /// The same with the layers counted by another field.
    pub(crate) fn read_layers(fields: Fields<'_>, layers: &str, context_length: usize) -> Result<Self> {
        let hidden_size = fields.limited_count("hidden_size", limits::HIDDEN)?;
        let heads = fields.limited_count("num_attention_heads", limits::HEADS)?;
        Ok(Self {
            hidden_size,
            layers: fields.limited_count(layers, limits::LAYERS)?,
            heads,
            kv_heads: fields.count_or("num_key_value_heads", heads, limits::HEADS)?,
            head_dim: fields.count_or("head_dim", hidden_size / heads, limits::HEAD_DIM)?,
            intermediate_size: fields.limited_count("intermediate_size", limits::INTERMEDIATE)?,
            vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
            context_length: rope::context_length(fields, context_length)?,
        })
    }

    /// Reads the fields as most families have them, of a family that has a default for each.
    pub(crate) fn read_or(fields: Fields<'_>, default: &Self) -> Result<Self> {
        let &Self { intermediate_size: width, context_length: context, .. } = default;
        Ok(Self {
            hidden_size: fields.count_or("hidden_size", default.hidden_size, limits::HIDDEN)?,
            layers: fields.count_or("num_hidden_layers", default.layers, limits::LAYERS)?,
            heads: fields.count_or("num_attention_heads", default.heads, limits::HEADS)?,
            kv_heads: fields.count_or("num_key_value_heads", default.kv_heads, limits::HEADS)?,
            head_dim: fields.count_or("head_dim", default.head_dim, limits::HEAD_DIM)?,
            intermediate_size: fields.count_or("intermediate_size", width, limits::INTERMEDIATE)?,
            vocab_size: fields.count_or("vocab_size", default.vocab_size, limits::VOCAB)?,
            context_length: fields.count_or("max_position_embeddings", context, limits::CONTEXT)?,
        })
    }

    /// Attention without any of the options, under the names that almost every family uses.
    pub(crate) fn attention(&self) -> Attention {
        Attention::new(self.heads, self.kv_heads, self.head_dim)
    }

    /// The decoder of some layers, with usual names and nothing between embedding, layers and head.
    pub(crate) fn decoder(&self, layers: Vec<LayerSpec>, final_norm: NormSpec, head: Head) -> DecoderSpec {
        DecoderSpec {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            context_length: self.context_length,
            names: ModelNames::default(),
            embedding_scale: EmbeddingScale::NONE,
            position_embedding: None,
            unused_tokens: Vec::new(),
            rotations: Default::default(),
            embedding_norm: None,
            layer_inputs: None,
            ngrams: None,
            passes: 1,
            norm_between_passes: false,
            final_mix: None,
            layers,
            final_norm,
            head,
        }
    }
}

/// A layer of two parts, each behind a norm: attention or another mixer, and a feed-forward network.
pub(crate) fn pre_norm_layer(eps: f32, mixer: Part, network: Part) -> LayerSpec {
    LayerSpec::Blocks(vec![
        Block::pre_norm(NormSpec::rms("input_layernorm", eps), mixer),
        Block::pre_norm(NormSpec::rms("post_attention_layernorm", eps), network),
    ])
}

/// The attention of each layer, with the layer's number, for a family that differs in some of it from another.
pub(crate) fn attentions(spec: &mut DecoderSpec) -> impl Iterator<Item = (usize, &mut Attention)> {
    spec.layers.iter_mut().enumerate().flat_map(|(index, layer)| {
        let blocks = match layer {
            LayerSpec::Blocks(blocks) => blocks.as_mut_slice(),
            LayerSpec::AltUp(_) | LayerSpec::Hyper(_) => &mut [],
        };
        let branches = blocks.iter_mut().flat_map(|block| &mut block.branches);
        branches.filter_map(move |branch| match &mut branch.part {
            Part::Attention(attention) => Some((index, attention)),
            _ => None,
        })
    })
}

/// Where the output head is, as `tie_word_embeddings` says.
pub(crate) fn head_weights(fields: Fields<'_>) -> Result<HeadWeights> {
    Ok(match fields.flag("tie_word_embeddings")? {
        Some(true) => HeadWeights::Tied,
        Some(false) => HeadWeights::Separate,
        None => HeadWeights::IfPresent,
    })
}

/// The text part of a multimodal model, which another family reads: `text_config`, or the whole configuration where there is
/// none. Its tensors, and the norm after the last layer, are under `language_model.`
pub(crate) fn nested(
    config: &Config,
    final_norm: &'static str,
    family: impl Fn(&Config) -> Result<DecoderSpec>,
) -> Result<DecoderSpec> {
    let text = config.part("text_config.")?;
    let spec = family(text.as_ref().unwrap_or(config))?;
    // The field may stand outside, beside the text model's own.
    let weights = match spec.head.weights {
        HeadWeights::IfPresent => head_weights(config.fields())?,
        known => known,
    };
    let final_norm = NormSpec { path: final_norm, ..spec.final_norm };
    let (names, head) = (ModelNames::under("language_model."), Head { weights, ..spec.head });
    Ok(DecoderSpec { names, final_norm, head, ..spec })
}

/// The text part of a multimodal model where mlx-lm's converter puts it, if the checkpoint has it where `transformers` does.
pub(crate) fn nest_text(tensors: &mut Tensors) {
    tensors.replace_prefix("model.language_model.", "language_model.model.");
    tensors.replace_prefix("lm_head.", "language_model.lm_head.");
}

/// Experts that were published in two stacks, `{at}.gate_up_proj` and `{at}.down_proj`, without `.weight` behind their names:
/// where mlx-lm's converter puts them. `width` is that of an expert.
pub(crate) fn split_experts(tensors: &mut Tensors, at: &str, to: &str, width: usize) -> Result<()> {
    for name in ["gate_up_proj", "down_proj"] {
        tensors.rename(|found| {
            let before = found.strip_suffix(&format!("{at}.{name}"))?;
            Some(format!("{before}{to}.{name}.weight"))
        });
    }
    let parts = ["gate_proj", "up_proj"].map(|name| format!("{to}.{name}"));
    tensors.split(&format!("{to}.gate_up_proj"), &[(&parts[0], width), (&parts[1], width)])
}

/// The number of experts. Versions of `transformers` write one name in place of the other.
pub(crate) fn expert_count(fields: Fields<'_>) -> Result<usize> {
    let names = ["num_experts", "num_local_experts"];
    let name = names.into_iter().find(|name| fields.get(name).is_some()).unwrap_or(names[0]);
    fields.limited_count(name, limits::EXPERTS)
}

/// The choice of DeepSeek V3 and of the families that took it over: sigmoid scores, which are corrected for the choice, and
/// experts from the best groups, a group's rank being the sum of its two best.
pub(crate) fn corrected_choice(fields: Fields<'_>, experts: usize, top_k: usize) -> Result<RouterSpec> {
    let only = |name: &str, known: &[&'static str]| match fields.text(name)? {
        Some(other) if !known.contains(&other) => Err(fields.unsupported(name, other, known)),
        _ => Ok(()),
    };
    only("topk_method", &["noaux_tc"])?;
    // The latter is what dots1 has here.
    only("scoring_func", &["sigmoid", "noaux_tc"])?;
    let groups = fields.count_or("n_group", 1, experts)?;
    Ok(RouterSpec {
        scores: ScoreFunction::Sigmoid,
        groups,
        top_groups: if groups == 1 { 1 } else { fields.count_or("topk_group", 1, groups)? },
        best_of_group: (experts / groups).clamp(1, 2),
        normalize: top_k > 1 && fields.flag_or("norm_topk_prob", true)?,
        scale: fields.positive_or("routed_scaling_factor", 1.0)?,
        ..RouterSpec::softmax(experts, top_k)
    })
}

/// Experts that were published one by one, at `{at}.{number}.{gate,up,down}_proj`, where mlx-lm's converter puts them.
pub(crate) fn stack_experts(tensors: &mut Tensors, at: &str) -> Result<()> {
    let parent = at.strip_suffix(".experts").unwrap_or(at);
    let names = ["gate_proj", "up_proj", "down_proj"];
    stack_experts_as(tensors, at, names, &format!("{parent}.switch_mlp"))
}

/// Experts that were published one by one, with other names for gate, up and down.
pub(crate) fn stack_experts_as(tensors: &mut Tensors, at: &str, names: [&str; 3], to: &str) -> Result<()> {
    ["gate_proj", "up_proj", "down_proj"].into_iter().zip(names).try_for_each(|(name, published)| {
        tensors.stack(&format!("{at}.*.{published}"), &format!("{to}.{name}"))
    })
}

/// An activation by the name that configurations have for it.
pub(crate) fn activation(fields: Fields<'_>, field: &str, default: Activation) -> Result<Activation> {
    Ok(match fields.text(field)?.map(str::to_ascii_lowercase).as_deref() {
        None => default,
        Some("silu" | "swish") => Activation::Silu,
        Some("gelu") => Activation::Gelu,
        Some("gelu_new" | "gelu_fast" | "gelu_pytorch_tanh") => Activation::GeluTanh,
        Some("quick_gelu") => Activation::GeluSigmoid,
        Some("relu") => Activation::Relu,
        Some("relu2") => Activation::ReluSquared,
        Some(other) => {
            let known = ["silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu2"];
            return Err(fields.unsupported(field, other, &known));
        }
    })
}

/// Which layers are of the first of two types, as `layer_types` says; nothing if it is not there.
pub(crate) fn layers_of_type(
    fields: Fields<'_>,
    layers: usize,
    known: [&'static str; 2],
) -> Result<Option<Vec<bool>>> {
    fields.words("layer_types", layers, known)
}

/// Which layers have a sliding window: those that `layer_types` names, or those of which `otherwise` says so.
pub(crate) fn windowed_layers(
    fields: Fields<'_>,
    layers: usize,
    otherwise: impl Fn(usize) -> bool,
) -> Result<Vec<bool>> {
    let windowed = layers_of_type(fields, layers, ["sliding_attention", "full_attention"])?;
    Ok(windowed.unwrap_or_else(|| (0..layers).map(otherwise).collect()))
}

/// The reach of a layer with or without a sliding window.
pub(crate) fn window(windowed: bool, length: usize) -> Reach {
    if windowed { Reach::Window(length) } else { Reach::All }
}
