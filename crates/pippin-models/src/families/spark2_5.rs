//! Spark 2.5: three layers of four with a window, rotations by the type of layer, and a gate for each head of the attention.

use pippin_tensor::Activation;

use super::common::{Sizes, head_weights, pre_norm_layer, window, windowed_layers};
use crate::parts::{Attention, Dense, NormSpec, OutputGate, Part, Projections};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head, ModelNames};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    for (field, known) in [("hidden_act", "gelu"), ("gate_attn_act_mode", "sigmoid")] {
        if let Some(other) = fields.text(field)?.filter(|found| *found != known) {
            return Err(fields.unsupported(field, other, &[known]));
        }
    }
    if !fields.flag_or("headwise_attn_output_gate", true)? {
        return Err(fields.unsupported("headwise_attn_output_gate", "false", &["true"]));
    }
    // No published model has them, and a gate's would be needed too.
    if fields.flag_or("attention_bias", false)? {
        return Err(fields.unsupported("attention_bias", "true", &["false"]));
    }
    let sizes = Sizes::read(fields, 8192)?;
    let eps = fields.positive_or("rms_norm_eps", 1e-6)?;
    let length = fields.limited_count("sliding_window", limits::CONTEXT)?;
    let windows = windowed_layers(fields, sizes.layers, |layer| layer % 4 != 3)?;
    let rotation = |kind: &str| {
        let Some(own) = rope::of_layers(fields, kind)? else { return Ok(None) };
        let dims = rope::partial(sizes.head_dim, own.positive("partial_rotary_factor")?.unwrap_or(1.0));
        let defaults = RopeDefaults { dims, theta: Some(10_000.0), traditional: false };
        rope::read_of_layers(fields, own, &defaults).map(Some)
    };
    let (global, local) = (rotation("full_attention")?, rotation("sliding_attention")?);
    let network = Dense {
        bias: fields.flag_or("mlp_bias", false)?,
        ..Dense::gated(sizes.intermediate_size, Activation::Gelu)
    };
    let layer = |windowed: bool| {
        let rope = if windowed { &local } else { &global };
        let Some(rope) = rope else {
            return Err(fields.missing("rope_parameters", "an object with an entry for each type of layer"));
        };
        let attention = Attention {
            projections: Projections::Fused("self_attn.q_k_v_proj"),
            gate: Some(OutputGate {
                name: "self_attn.g_proj",
                by_head: true,
                activation: Activation::Sigmoid,
            }),
            output: "self_attn.out_proj",
            rope: Some(rope.clone()),
            reach: window(windowed, length),
            ..sizes.attention()
        };
        Ok(pre_norm_layer(eps, Part::Attention(attention), Part::Dense(network.clone())))
    };
    let layers = windows.into_iter().map(layer).collect::<Result<_>>()?;
    let head = Head::new(head_weights(fields)?);
    Ok(DecoderSpec {
        names: ModelNames { embedding: "model.embedding".to_owned(), ..ModelNames::default() },
        ..sizes.decoder(layers, NormSpec::rms("model.norm", eps), head)
    })
}

/// Some conversions have the usual name.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.replace_prefix("model.embed_tokens.", "model.embedding.");
    Ok(())
}
