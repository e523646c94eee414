//! Mamba 2: state spaces and nothing else.
//!
//! All norms have the epsilon of the configuration, and the gated norm is by group, as the models were trained; mlx-lm has
//! 1e-5 in the layers' norms and normalises all groups at once, which is the same for published models.

use super::common::head_weights;
use crate::config::{Fields, number};
use crate::parts::{GatedNorm, NormSpec, Part, StateSpace};
use crate::spec::{Block, EmbeddingScale, Head, LayerSpec, ModelNames};
use crate::{Config, DecoderSpec, Result, limits};

/// The length of sequences where the configuration has none. States do not grow, so nothing but training limits it.
const CONTEXT: usize = 1 << 20;

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let layers = fields.limited_count("num_hidden_layers", limits::LAYERS)?;
    let state_size = if fields.get("ssm_state_size").is_some() { "ssm_state_size" } else { "state_size" };
    let eps = fields.positive_or("layer_norm_epsilon", 1e-5)?;
    if let Some(other) = fields.text("hidden_act")?.filter(|name| !["silu", "swish"].contains(name)) {
        return Err(fields.unsupported("hidden_act", other, &["silu"]));
    }
    let groups = fields.limited_count("n_groups", limits::HEADS)?;
    let mixer = StateSpace {
        path: "mixer",
        heads: fields.limited_count("num_heads", limits::HEADS)?,
        head_dim: fields.limited_count("head_dim", limits::HEAD_DIM)?,
        groups,
        state_size: fields.limited_count(state_size, limits::HEAD_DIM)?,
        taps: fields.limited_count("conv_kernel", limits::TAPS)?,
        bias: fields.flag_or("use_bias", false)?,
        output_bias: fields.flag_or("use_bias", false)?,
        conv_bias: fields.flag_or("use_conv_bias", true)?,
        time_step_limit: time_step_limit(fields)?,
        norm: Some(GatedNorm { eps, groups, before_gate: false }),
    };
    let block = Block::pre_norm(NormSpec::rms("norm", eps), Part::StateSpace(mixer));
    let head = Head::new(head_weights(fields)?);
    backbone(fields, layers, block, NormSpec::rms("backbone.norm_f", eps), head)
}

/// The decoder of both generations of Mamba: layers of one block, under the names that they were published with.
pub(crate) fn backbone(
    fields: Fields<'_>,
    layers: usize,
    block: Block,
    final_norm: NormSpec,
    head: Head,
) -> Result<DecoderSpec> {
    Ok(DecoderSpec {
        vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
        hidden_size: fields.limited_count("hidden_size", limits::HIDDEN)?,
        context_length: fields.count_or("max_position_embeddings", CONTEXT, limits::CONTEXT)?,
        names: ModelNames {
            embedding: "backbone.embeddings".into(),
            layers: "backbone.layers".into(),
            ..ModelNames::default()
        },
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
        layers: vec![LayerSpec::Blocks(vec![block]); layers],
        final_norm,
        head,
    })
}

/// What time steps are clamped to.
pub(crate) fn time_step_limit(fields: Fields<'_>) -> Result<[f32; 2]> {
    let Some(value) = fields.get("time_step_limit") else { return Ok([0.0, f32::INFINITY]) };
    let limits: Option<Vec<f64>> = value.as_array().and_then(|list| list.iter().map(number).collect());
    match limits.as_deref() {
        Some(&[least, most]) => Ok([least as f32, most as f32]),
        _ => Err(fields.error("time_step_limit", "must be a list of two numbers")),
    }
}
