//! Mamba and Falcon Mamba: selective state spaces and nothing else; Falcon's norms what controls them.
//!
//! The norms of layers have the epsilon of the configuration, as in transformers; mlx-lm has 1e-5 always, which is that of
//! published models.

use super::common::head_weights;
use super::mamba2::backbone;
use crate::config::Fields;
use crate::parts::{NormSpec, Part, ScanForm, ScanNorms, SelectiveScan};
use crate::spec::{Block, Head, HeadWeights};
use crate::{Config, DecoderSpec, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let layers = fields.limited_count("num_hidden_layers", limits::LAYERS)?;
    let hidden_size = fields.limited_count("hidden_size", limits::HIDDEN)?;
    let eps = fields.positive_or("layer_norm_epsilon", 1e-5)?;
    if let Some(other) = fields.text("hidden_act")?.filter(|name| !["silu", "swish"].contains(name)) {
        return Err(fields.unsupported("hidden_act", other, &["silu"]));
    }
    let normed = config.model_type()? == "falcon_mamba" || fields.flag_or("use_bcdt_rms", false)?;
    let mixer = SelectiveScan {
        path: "mixer",
        form: ScanForm::Columns,
        heads: fields.limited_count("intermediate_size", limits::INTERMEDIATE)?,
        head_dim: 1,
        state_size: fields.limited_count("state_size", limits::HEAD_DIM)?,
        rank: time_step_rank(fields, "time_step_rank", hidden_size)?,
        taps: fields.limited_count("conv_kernel", limits::TAPS)?,
        bias: fields.flag_or("use_bias", false)?,
        conv_bias: fields.flag_or("use_conv_bias", true)?,
        norms: match normed {
            true => ScanNorms::Bare(fields.positive_or("mixer_rms_eps", 1e-6)?),
            false => ScanNorms::None,
        },
    };
    let block = Block::pre_norm(NormSpec::rms("norm", eps), Part::SelectiveScan(mixer));
    let weights = match fields.get("tie_word_embeddings") {
        Some(_) => head_weights(fields)?,
        None => HeadWeights::Tied,
    };
    backbone(fields, layers, block, NormSpec::rms("backbone.norm_f", eps), Head::new(weights))
}

/// The width of the vector that time steps are made from: a number, or a sixteenth of the hidden size.
pub(crate) fn time_step_rank(fields: Fields<'_>, field: &str, hidden_size: usize) -> Result<usize> {
    match fields.get(field) {
        Some(value) if value.as_str() == Some("auto") => Ok(hidden_size.div_ceil(16)),
        _ => fields.limited_count(field, limits::HIDDEN),
    }
}
