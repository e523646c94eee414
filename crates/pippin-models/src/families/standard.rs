//! What the classic decoder families have in common: pre-norm attention with rotary positions and a gated feed-forward
//! network, under the field names that Llama introduced.

use pippin_tensor::{Activation, Reach};

use super::common::head_weights;
use crate::config::Fields;
use crate::parts::{Attention, Dense, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, EmbeddingScale, Head, LayerSpec, ModelNames};
use crate::{Result, limits};

/// The differences between the classic families.
pub(crate) struct Standard {
    /// Whether the query, key and value projections have biases.
    pub(crate) qkv_bias: bool,
    /// Whether the attention's output projection has one.
    pub(crate) output_bias: bool,
    /// Whether the feed-forward network's projections have one.
    pub(crate) mlp_bias: bool,
    /// Whether queries and keys are normalised head by head.
    pub(crate) head_norms: bool,
    /// `num_attention_heads` where the configuration has none; without it, the configuration must have one.
    pub(crate) default_heads: Option<usize>,
    /// Head dimension where the configuration has none; otherwise the hidden size over the heads.
    pub(crate) default_head_dim: Option<usize>,
    /// Whether `num_key_value_heads` may be absent, meaning as many as there are query heads.
    pub(crate) kv_heads_optional: bool,
    /// `rope_theta` where the configuration has none; without it, the configuration must have one.
    pub(crate) default_rope_theta: Option<f64>,
    /// Whether adjacent dimensions form rotated pairs.
    pub(crate) rope_traditional: bool,
    /// `max_position_embeddings` where the configuration has none.
    pub(crate) default_context_length: usize,
    /// Which layers have a sliding window.
    pub(crate) windows: Windows,
    /// Factor on the scores, where it is not the inverse root of the head dimension.
    pub(crate) attention_scale: Option<f32>,
    /// Factor on what attention and feed-forward network add to the residual stream.
    pub(crate) residual_scale: f32,
}

impl Default for Standard {
    fn default() -> Self {
        Self {
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            head_norms: false,
            default_heads: None,
            default_head_dim: None,
            kv_heads_optional: false,
            default_rope_theta: Some(10_000.0),
            rope_traditional: false,
            default_context_length: 2048,
            windows: Windows::None,
            attention_scale: None,
            residual_scale: 1.0,
        }
    }
}

/// Which layers have a sliding window where `layer_types` does not say so layer by layer.
pub(crate) enum Windows {
    /// None.
    None,
    /// Every layer, if `sliding_window` is there.
    All,
    /// If `use_sliding_window` is true, the layers from `max_window_layers` on.
    Upper,
}

impl Standard {
    /// What llama's configuration says, and that of the families that share its fields.
    pub(crate) fn llama(fields: Fields<'_>) -> Result<Self> {
        let attention_bias = fields.flag("attention_bias")?.unwrap_or(false);
        Ok(Self {
            qkv_bias: attention_bias,
            output_bias: attention_bias,
            mlp_bias: fields.flag("mlp_bias")?.unwrap_or(false),
            kv_heads_optional: true,
            rope_traditional: fields.flag("rope_traditional")?.unwrap_or(false),
            windows: Windows::None,
            ..Self::default()
        })
    }

    /// The decoder that these fields say: those of the configuration, or of the text model in it.
    pub(crate) fn spec(&self, fields: Fields<'_>) -> Result<DecoderSpec> {
        let hidden_size = fields.limited_count("hidden_size", limits::HIDDEN)?;
        let layers = fields.limited_count("num_hidden_layers", limits::LAYERS)?;
        let intermediate_size = fields.limited_count("intermediate_size", limits::INTERMEDIATE)?;
        let heads = match self.default_heads {
            Some(heads) => fields.count_or("num_attention_heads", heads, limits::HEADS)?,
            None => fields.limited_count("num_attention_heads", limits::HEADS)?,
        };
        let kv_heads = match fields.count("num_key_value_heads")? {
            None if self.kv_heads_optional => heads,
            _ => fields.limited_count("num_key_value_heads", limits::HEADS)?,
        };
        let head_dim = match fields.count("head_dim")?.or(self.default_head_dim) {
            Some(head_dim) => head_dim,
            None => hidden_size / heads,
        };
        let rope = rope::read(
            fields,
            &RopeDefaults {
                dims: head_dim,
                theta: self.default_rope_theta,
                traditional: self.rope_traditional,
            },
        )?;
        let windows = self.windows.read(fields, layers)?;
        let activation = activation(fields)?;
        let eps = fields.required_positive("rms_norm_eps")? as f32;
        let head_norm = |path| self.head_norms.then(|| NormSpec::rms(path, eps));
        let layer = |window: Option<usize>| {
            let plain = Attention::new(heads, kv_heads, head_dim);
            let attention = Attention {
                qkv_bias: self.qkv_bias,
                output_bias: self.output_bias,
                query_norm: head_norm("self_attn.q_norm"),
                key_norm: head_norm("self_attn.k_norm"),
                rope: Some(rope.clone()),
                reach: window.map_or(Reach::All, Reach::Window),
                scale: self.attention_scale.unwrap_or(plain.scale),
                ..plain
            };
            let network = Dense { bias: self.mlp_bias, ..Dense::gated(intermediate_size, activation) };
            let block = |norm: &'static str, part: Part| Block {
                scale: self.residual_scale,
                ..Block::pre_norm(NormSpec::rms(norm, eps), part)
            };
            LayerSpec::Blocks(vec![
                block("input_layernorm", Part::Attention(attention)),
                block("post_attention_layernorm", Part::Dense(network)),
            ])
        };
        Ok(DecoderSpec {
            vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
            hidden_size,
            context_length: rope::context_length(fields, self.default_context_length)?,
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
            layers: windows.into_iter().map(layer).collect(),
            final_norm: NormSpec::rms("model.norm", eps),
            head: Head::new(head_weights(fields)?),
        })
    }
}

impl Windows {
    /// The window of each layer.
    fn read(&self, fields: Fields<'_>, layers: usize) -> Result<Vec<Option<usize>>> {
        let window = || {
            fields.count("sliding_window")?.ok_or_else(|| {
                fields.missing("sliding_window", "a positive integer, because layers are windowed")
            })
        };
        if let Some(types) = fields.texts("layer_types")? {
            if types.len() != layers {
                let problem = format_args!("has {} entries for {layers} layers", types.len());
                return Err(fields.error("layer_types", problem));
            }
            return types
                .into_iter()
                .map(|layer_type| match layer_type {
                    "full_attention" => Ok(None),
                    "sliding_attention" => window().map(Some),
                    other => Err(fields.unsupported(
                        "layer_types",
                        other,
                        &["full_attention", "sliding_attention"],
                    )),
                })
                .collect();
        }
        match self {
            Self::None => Ok(vec![None; layers]),
            Self::All => Ok(vec![fields.count("sliding_window")?; layers]),
            Self::Upper if fields.flag("use_sliding_window")? == Some(true) => {
                // Zero is allowed here: every layer is windowed.
                let first = match fields.get("max_window_layers") {
                    Some(value) if value.as_u64() == Some(0) => 0,
                    _ => fields.required_count("max_window_layers")?,
                };
                let window = window()?;
                Ok((0..layers).map(|layer| (layer >= first).then_some(window)).collect())
            }
            Self::Upper => Ok(vec![None; layers]),
        }
    }
}

/// The feed-forward network's activation, which the field may leave to the family.
fn activation(fields: Fields<'_>) -> Result<Activation> {
    match fields.text("hidden_act")? {
        None => Ok(Activation::Silu),
        Some(name) if ["silu", "swish"].iter().any(|known| known.eq_ignore_ascii_case(name)) => {
            Ok(Activation::Silu)
        }
        Some(other) => Err(fields.unsupported("hidden_act", other, &["silu"])),
    }
}
