//! IBM's Granite 4: Mamba 2 or attention in each layer, before mixtures of experts beside a network that every token goes
//! through, or before one network; with Granite's factors on embeddings, scores, residuals and logits.
//!
//! Time steps have the limits of the configuration, and none without it, as in transformers; mlx-lm has some of its own there.

use pippin_tensor::{Activation, Gate, RouterSpec};

use super::common::{Sizes, head_weights, layers_of_type};
use super::mamba2::time_step_limit;
use crate::config::Fields;
use crate::parts::{
    Attention, Dense, DenseForm, Experts, FusedRows, GatedNorm, NormSpec, Part, SharedExpert, StateSpace,
};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, EmbeddingScale, Head, HeadWeights, LayerSpec};
use crate::{Config, DecoderSpec, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 4096)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let bias = fields.flag_or("attention_bias", false)?;
    let attention = Attention {
        qkv_bias: bias,
        output_bias: bias,
        rope: match fields.text("position_embedding_type")? {
            Some("rope") => {
                let dims = sizes.head_dim;
                let defaults = RopeDefaults { dims, theta: Some(10_000.0), traditional: false };
                Some(rope::read(fields, &defaults)?)
            }
            _ => None,
        },
        scale: fields.required_positive("attention_multiplier")? as f32,
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let network = match has_experts(fields) {
        true => Part::Experts(experts(fields, &sizes)?),
        false => {
            let bias = fields.flag_or("mlp_bias", false)?;
            Part::Dense(Dense { bias, ..Dense::gated(sizes.intermediate_size, Activation::Silu) })
        }
    };
    let scale = fields.required_positive("residual_multiplier")? as f32;
    let layer = |is_mamba: bool| -> Result<LayerSpec> {
        let mixer = match is_mamba {
            true => Part::StateSpace(state_space(fields, eps)?),
            false => Part::Attention(attention.clone()),
        };
        let block = |norm, part| Block { scale, ..Block::pre_norm(NormSpec::rms(norm, eps), part) };
        Ok(LayerSpec::Blocks(vec![
            block("input_layernorm", mixer),
            block("post_attention_layernorm", network.clone()),
        ]))
    };
    let kinds = layers_of_type(fields, sizes.layers, ["mamba", "attention"])?;
    let kinds = kinds.ok_or_else(|| fields.missing("layer_types", "a list of strings"))?;
    let layers = kinds.into_iter().map(layer).collect::<Result<_>>()?;
    let factor = fields.required_positive("embedding_multiplier")? as f32;
    let weights = match fields.get("tie_word_embeddings") {
        Some(_) => head_weights(fields)?,
        None => HeadWeights::Tied,
    };
    let head =
        Head { scale: (1.0 / fields.required_positive("logits_scaling")?) as f32, ..Head::new(weights) };
    let embedding_scale = EmbeddingScale { factor, as_stored: false };
    Ok(DecoderSpec { embedding_scale, ..sizes.decoder(layers, NormSpec::rms("model.norm", eps), head) })
}

fn state_space(fields: Fields<'_>, eps: f32) -> Result<StateSpace> {
    let bias = fields.flag_or("mamba_proj_bias", false)?;
    Ok(StateSpace {
        path: "mamba",
        heads: fields.limited_count("mamba_n_heads", limits::HEADS)?,
        head_dim: fields.limited_count("mamba_d_head", limits::HEAD_DIM)?,
        groups: fields.limited_count("mamba_n_groups", limits::HEADS)?,
        state_size: fields.limited_count("mamba_d_state", limits::HEAD_DIM)?,
        taps: fields.limited_count("mamba_d_conv", limits::TAPS)?,
        bias,
        output_bias: bias,
        conv_bias: fields.flag_or("mamba_conv_bias", false)?,
        time_step_limit: time_step_limit(fields)?,
        norm: Some(GatedNorm { eps, groups: 1, before_gate: false }),
    })
}

fn has_experts(fields: Fields<'_>) -> bool {
    fields.get("num_local_experts").is_some_and(|value| value.as_u64() != Some(0))
}

fn experts(fields: Fields<'_>, sizes: &Sizes) -> Result<Experts> {
    let experts = fields.limited_count("num_local_experts", limits::EXPERTS)?;
    let top_k = fields.limited_count("num_experts_per_tok", experts)?;
    // A softmax over the chosen is one over all, divided by what the chosen have of it.
    let choice = RouterSpec { normalize: true, ..RouterSpec::softmax(experts, top_k) };
    let width = fields.limited_count("shared_intermediate_size", limits::INTERMEDIATE)?;
    let gate = Gate::Of(Activation::Silu);
    // As GGUF files have it.
    let is_divided = fields.flag_or("shared_mlp_divided", false)?;
    let network = Dense {
        form: match is_divided {
            true => DenseForm::Gated { names: ["shared_mlp.gate_proj", "shared_mlp.up_proj"], gate },
            false => DenseForm::Fused { name: "shared_mlp.input_linear", gate, rows: FusedRows::GateFirst },
        },
        down: "shared_mlp.output_linear",
        ..Dense::gated(width, Activation::Silu)
    };
    Ok(Experts {
        router: "block_sparse_moe.router.layer",
        names: [
            "block_sparse_moe.switch_mlp.gate_proj",
            "block_sparse_moe.switch_mlp.up_proj",
            "block_sparse_moe.switch_mlp.down_proj",
        ],
        shared: Some(SharedExpert { network, gate: None }),
        ..Experts::new(choice, sizes.intermediate_size)
    })
}

/// A published checkpoint has gates and projections in one matrix, of experts or, without any, of the one network, which has
/// the name of what stands beside experts.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    let fields = config.fields();
    let width = fields.limited_count("intermediate_size", limits::INTERMEDIATE)?;
    let (from, to) = match has_experts(fields) {
        true => ("block_sparse_moe", "block_sparse_moe.switch_mlp"),
        false => ("shared_mlp", "mlp"),
    };
    let parts = ["gate_proj", "up_proj"].map(|name| format!("{to}.{name}"));
    tensors.split(&format!("{from}.input_linear"), &parts.each_ref().map(|name| (name.as_str(), width)))?;
    tensors.replace(&format!("{from}.output_linear"), &format!("{to}.down_proj"));
    Ok(())
}
