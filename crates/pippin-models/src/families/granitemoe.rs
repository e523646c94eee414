//! Granite with experts: llama with factors on embeddings, scores, what layers add, and logits, and a mixture of experts in
//! every layer.

use pippin_tensor::{Activation, Gate};

use super::common::{Sizes, activation, expert_count, head_weights};
use super::mixtral::{block_sparse, chosen_softmax};
use crate::parts::{Attention, Experts, NormSpec, Part};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, EmbeddingScale, Head, LayerSpec};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 4096)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let bias = fields.flag_or("attention_bias", false)?;
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: Some(10_000.0), traditional: false };
    let attention = Attention {
        qkv_bias: bias,
        output_bias: bias,
        rope: Some(rope::read(fields, &defaults)?),
        scale: fields.positive_or("attention_multiplier", 1.0)?,
        ..sizes.attention()
    };
    let choice = chosen_softmax(fields, expert_count(fields)?)?;
    let experts = Experts {
        router: "block_sparse_moe.router.layer",
        gate: Gate::Of(activation(fields, "hidden_act", Activation::Silu)?),
        ..block_sparse(choice, sizes.intermediate_size)
    };
    let scale = fields.positive_or("residual_multiplier", 1.0)?;
    let block = |norm, part| Block { scale, ..Block::pre_norm(NormSpec::rms(norm, eps), part) };
    let layer = LayerSpec::Blocks(vec![
        block("input_layernorm", Part::Attention(attention)),
        block("post_attention_layernorm", Part::Experts(experts)),
    ]);
    let head =
        Head { scale: 1.0 / fields.positive_or("logits_scaling", 1.0)?, ..Head::new(head_weights(fields)?) };
    let factor = fields.positive_or("embedding_multiplier", 1.0)?;
    Ok(DecoderSpec {
        embedding_scale: EmbeddingScale { factor, as_stored: false },
        ..sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("model.norm", eps), head)
    })
}

/// A published checkpoint has the experts' gates and what they are applied to in one stack.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    let width = config.fields().limited_count("intermediate_size", limits::INTERMEDIATE)?;
    tensors.split(
        "block_sparse_moe.input_linear",
        &[("block_sparse_moe.switch_mlp.gate_proj", width), ("block_sparse_moe.switch_mlp.up_proj", width)],
    )?;
    tensors.replace("block_sparse_moe.output_linear", "block_sparse_moe.switch_mlp.down_proj");
    Ok(())
}
