//! Llama 4, the text model of the multimodal ones: three layers of four with rotated adjacent pairs and attention in chunks,
//! the fourth over everything without positions but with a factor that grows with them; experts that are given their input
//! weighted, beside one that every token goes through.

use pippin_tensor::{Activation, PositionScale, Reach, RouterSpec, ScoreFunction};

use super::common::{Sizes, pre_norm_layer};
use crate::config::Fields;
use crate::parts::{Attention, Dense, Experts, NormSpec, Part, SharedExpert};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head, HeadWeights, ModelNames};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let Some(fields) = config.fields().object("text_config.")? else {
        return Err(config.fields().missing("text_config", "an object"));
    };
    let sizes = Sizes::read(fields, 131_072)?;
    let eps = fields.positive_or("rms_norm_eps", 1e-5)?;
    let chunk = fields.limited_count("attention_chunk_size", limits::CONTEXT)?;
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: Some(500_000.0), traditional: true };
    let rope = rope::read(fields, &defaults)?;
    let temperature = temperature(fields, true)?;
    let bias = fields.flag_or("attention_bias", false)?;
    // Not the configuration's epsilon, which is that of the other norms.
    let head_norm = fields.flag_or("use_qk_norm", true)?.then(|| NormSpec::bare(1e-6));
    let attention = |index: usize| {
        let base = Attention { qkv_bias: bias, output_bias: bias, ..sizes.attention() };
        if (index + 1).is_multiple_of(4) {
            Attention { position_scale: temperature, ..base }
        } else {
            Attention {
                rope: Some(rope.clone()),
                reach: Reach::Chunk(chunk),
                query_norm: head_norm,
                key_norm: head_norm,
                norms_follow_rope: true,
                ..base
            }
        }
    };
    let step = fields.count_or("interleave_moe_layer_step", 1, limits::LAYERS)?;
    let dense_width =
        fields.count_or("intermediate_size_mlp", sizes.intermediate_size, limits::INTERMEDIATE)?;
    let names = ["feed_forward.gate_proj", "feed_forward.up_proj", "feed_forward.down_proj"];
    let dense = Part::Dense(Dense::gated_as(names, dense_width, Activation::Silu));
    let experts = Part::Experts(experts(fields, &sizes)?);
    let layer = |index: usize| {
        let network = if index % step == step - 1 { &experts } else { &dense };
        pre_norm_layer(eps, Part::Attention(attention(index)), network.clone())
    };
    let layers = (0..sizes.layers).map(layer).collect();
    let norm = NormSpec::rms("language_model.model.norm", eps);
    Ok(DecoderSpec {
        names: ModelNames::under("language_model."),
        ..sizes.decoder(layers, norm, Head::new(HeadWeights::Separate))
    })
}

/// The factor on queries by their position, in layers without a rotation.
pub(crate) fn temperature(fields: Fields<'_>, default: bool) -> Result<Option<PositionScale>> {
    // Written as a flag or as a number.
    let tempered = match fields.get("attn_temperature_tuning") {
        Some(value) => value.as_bool().unwrap_or(value.as_f64() != Some(0.0)),
        None => default,
    };
    let floor = fields.positive_or("floor_scale", 8192.0)?;
    let scale = fields.positive_or("attn_scale", 0.1)?;
    Ok(tempered.then_some(PositionScale::Logarithmic { floor, scale, first: 1.0 }))
}

fn experts(fields: Fields<'_>, sizes: &Sizes) -> Result<Experts> {
    let count = fields.limited_count("num_local_experts", limits::EXPERTS)?;
    let top_k = fields.count_or("num_experts_per_tok", 1, count)?;
    let shared = [
        "feed_forward.shared_expert.gate_proj",
        "feed_forward.shared_expert.up_proj",
        "feed_forward.shared_expert.down_proj",
    ];
    let network = Dense::gated_as(shared, sizes.intermediate_size, Activation::Silu);
    Ok(Experts {
        router: "feed_forward.router",
        choice: RouterSpec { scores: ScoreFunction::Sigmoid, ..RouterSpec::softmax(count, top_k) },
        names: [
            "feed_forward.experts.gate_proj",
            "feed_forward.experts.up_proj",
            "feed_forward.experts.down_proj",
        ],
        weights_inputs: true,
        shared: Some(SharedExpert { network, gate: None }),
        ..Experts::new(RouterSpec::softmax(count, top_k), sizes.intermediate_size)
    })
}

/// A published checkpoint has gates and what they are applied to in one stack, and all stacks the other way round.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    let fields = config.fields().object("text_config.")?;
    let width = match fields {
        Some(fields) => fields.limited_count("intermediate_size", limits::INTERMEDIATE)?,
        None => return Ok(()),
    };
    let at = "feed_forward.experts";
    let [gate, up, down] = ["gate_proj", "up_proj", "down_proj"].map(|name| format!("{at}.{name}"));
    tensors.split_columns(&format!("{at}.gate_up_proj"), &[(&gate, 0, 1), (&up, width, 1)])?;
    tensors.split_columns(&down, &[(&down, 0, 1)])
}
