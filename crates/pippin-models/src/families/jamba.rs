//! AI21's Jamba: Mamba, whose controls are normed, attention without positions in some layers, and mixtures of experts in
//! some.
//!
//! Two things are as in transformers and not as in mlx-lm: the weights of chosen experts are their shares among all, and the
//! layers with experts are those whose number, divided by the period, leaves the offset.

use pippin_tensor::{Activation, Gate, RouterSpec};

use super::common::{Sizes, head_weights, stack_experts};
use super::mamba::time_step_rank;
use crate::config::Fields;
use crate::parts::{
    Attention, Dense, DenseForm, Experts, NormSpec, Part, ScanForm, ScanNorms, SelectiveScan,
};
use crate::published::Tensors;
use crate::spec::{Block, Head, HeadWeights, LayerSpec};
use crate::{Config, DecoderSpec, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 262_144)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let attention = Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim);
    let rank = match fields.get("mamba_dt_rank") {
        Some(_) => time_step_rank(fields, "mamba_dt_rank", sizes.hidden_size)?,
        None => sizes.hidden_size.div_ceil(16),
    };
    let mamba = SelectiveScan {
        path: "mamba",
        form: ScanForm::Columns,
        heads: fields.limited_count("mamba_expand", limits::INTERMEDIATE)?.saturating_mul(sizes.hidden_size),
        head_dim: 1,
        state_size: fields.limited_count("mamba_d_state", limits::HEAD_DIM)?,
        rank,
        taps: fields.limited_count("mamba_d_conv", limits::TAPS)?,
        bias: fields.flag_or("mamba_proj_bias", false)?,
        conv_bias: fields.flag_or("mamba_conv_bias", true)?,
        norms: ScanNorms::Weighted(["dt_layernorm.weight", "b_layernorm.weight", "c_layernorm.weight"], eps),
    };
    let names = ["feed_forward.gate_proj", "feed_forward.up_proj"];
    let dense = Dense {
        form: DenseForm::Gated { names, gate: Gate::Of(Activation::Silu) },
        down: "feed_forward.down_proj",
        ..Dense::gated(sizes.intermediate_size, Activation::Silu)
    };
    let experts = fields.limited_count("num_experts", limits::EXPERTS)?;
    let choice = RouterSpec::softmax(experts, fields.limited_count("num_experts_per_tok", limits::EXPERTS)?);
    let mixture = Experts {
        router: "feed_forward.router",
        names: [
            "feed_forward.switch_mlp.gate_proj",
            "feed_forward.switch_mlp.up_proj",
            "feed_forward.switch_mlp.down_proj",
        ],
        ..Experts::new(choice, sizes.intermediate_size)
    };
    let period = fields.limited_count("expert_layer_period", limits::LAYERS)?;
    let offset = fields.index("expert_layer_offset")?;
    let layer = |(index, attends): (usize, bool)| {
        let mixer = match attends {
            true => Part::Attention(attention.clone()),
            false => Part::SelectiveScan(mamba.clone()),
        };
        let network = match experts > 1 && index % period == offset {
            true => Part::Experts(mixture.clone()),
            false => Part::Dense(dense.clone()),
        };
        LayerSpec::Blocks(vec![
            Block::pre_norm(NormSpec::rms("input_layernorm", eps), mixer),
            Block::pre_norm(NormSpec::rms("pre_ff_layernorm", eps), network),
        ])
    };
    let layers = attention_layers(fields, sizes.layers)?.into_iter().enumerate().map(layer).collect();
    let weights = match fields.get("tie_word_embeddings") {
        Some(_) => head_weights(fields)?,
        None => HeadWeights::Tied,
    };
    Ok(sizes.decoder(layers, NormSpec::rms("model.final_layernorm", eps), Head::new(weights)))
}

/// A published checkpoint has experts one by one.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    stack_experts(tensors, "feed_forward.experts")
}

/// Which layers have attention: those that `layers_block_type` says, or those whose number, divided by the period, leaves the
/// offset.
fn attention_layers(fields: Fields<'_>, layers: usize) -> Result<Vec<bool>> {
    if let Some(types) = fields.texts("layers_block_type")? {
        if types.len() != layers {
            let problem = format_args!("has {} entries for {layers} layers", types.len());
            return Err(fields.error("layers_block_type", problem));
        }
        let attends = |found: &str| match found {
            "attention" => Ok(true),
            "mamba" => Ok(false),
            other => Err(fields.unsupported("layers_block_type", other, &["attention", "mamba"])),
        };
        return types.into_iter().map(attends).collect();
    }
    let period = fields.limited_count("attn_layer_period", limits::LAYERS)?;
    let offset = fields.index("attn_layer_offset")?;
    Ok((0..layers).map(|layer| layer % period == offset).collect())
}
