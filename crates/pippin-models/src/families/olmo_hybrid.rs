//! OLMo Hybrid: gated delta nets behind norms, and in every fourth layer attention before norms, as OLMo 2 has it.

use pippin_tensor::Activation;

use super::common::{Sizes, head_weights, layers_of_type};
use crate::parts::{Attention, DeltaInput, DeltaProjections, Dense, GatedDelta, HeadNorms, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, Head, LayerSpec};
use crate::{Config, DecoderSpec, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 65_536)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let bias = fields.flag_or("attention_bias", false)?;
    // A base that is written out as nothing means no positions.
    let rotates = match fields.object("rope_parameters.")? {
        Some(parameters) => parameters.get("rope_theta").is_some(),
        None => !fields.value("rope_theta").is_some_and(serde_json::Value::is_null),
    };
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: Some(10_000.0), traditional: false };
    let attention = Attention {
        qkv_bias: bias,
        output_bias: bias,
        query_norm: Some(NormSpec::rms("self_attn.q_norm", eps)),
        key_norm: Some(NormSpec::rms("self_attn.k_norm", eps)),
        norms: HeadNorms::Spanning,
        rope: if rotates { Some(rope::read(fields, &defaults)?) } else { None },
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let delta = GatedDelta {
        path: "linear_attn",
        value_heads: fields.limited_count("linear_num_value_heads", limits::HEADS)?,
        key_heads: fields.limited_count("linear_num_key_heads", limits::HEADS)?,
        key_dim: fields.limited_count("linear_key_head_dim", limits::HEAD_DIM)?,
        value_dim: fields.limited_count("linear_value_head_dim", limits::HEAD_DIM)?,
        taps: fields.limited_count("linear_conv_kernel_dim", limits::TAPS)?,
        projections: DeltaProjections::Apart {
            mixed: &[("q_proj", "q_conv1d"), ("k_proj", "k_conv1d"), ("v_proj", "v_conv1d")],
            gate: DeltaInput::Linear("g_proj"),
            strength: "b_proj",
            decay: DeltaInput::Linear("a_proj"),
        },
        decay_columns: false,
        decay_bound: None,
        strength: if fields.flag_or("linear_allow_neg_eigval", true)? { 2.0 } else { 1.0 },
        gate: Activation::Silu,
        norm: NormSpec::rms("o_norm", fields.positive_or("layer_norm_epsilon", 1e-5)?),
        output: "o_proj",
    };
    let network = Part::Dense(Dense::gated(sizes.intermediate_size, Activation::Silu));
    let (first, second) = ("post_attention_layernorm", "post_feedforward_layernorm");
    let layer = |attends: bool| {
        LayerSpec::Blocks(match attends {
            true => vec![
                Block::post_norm(Part::Attention(attention.clone()), NormSpec::rms(first, eps)),
                Block::post_norm(network.clone(), NormSpec::rms(second, eps)),
            ],
            false => vec![
                Block::pre_norm(NormSpec::rms("input_layernorm", eps), Part::GatedDelta(delta.clone())),
                Block::pre_norm(NormSpec::rms(first, eps), network.clone()),
            ],
        })
    };
    let attends = layers_of_type(fields, sizes.layers, ["full_attention", "linear_attention"])?;
    let attends = attends.unwrap_or_else(|| (0..sizes.layers).map(|layer| layer % 4 == 3).collect());
    let layers = attends.into_iter().map(layer).collect();
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(head_weights(fields)?)))
}
