//! Families that are llama but for a few flags: ERNIE 4.5, Hunyuan, MiMo, Nanbeige, Seed-OSS, SmolLM 3, TeleChat 3.

use super::common::attentions;
use super::standard::{Standard, Windows};
use crate::parts::NormSpec;
use crate::{Config, DecoderSpec, Result, limits};

/// Baidu's ERNIE 4.5: rotated pairs of adjacent dimensions, and one flag for all biases.
pub(crate) fn ernie4_5(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let bias = fields.flag_or("use_bias", false)?;
    let standard = Standard {
        qkv_bias: bias,
        output_bias: bias,
        mlp_bias: bias,
        rope_traditional: true,
        default_rope_theta: Some(500_000.0),
        default_context_length: 131_072,
        ..Standard::default()
    };
    standard.spec(fields)
}

/// Tencent's Hunyuan: norms of heads after the rotation, whose base a factor `alpha` may raise.
pub(crate) fn hunyuan_v1_dense(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let bias = fields.flag_or("attention_bias", false)?;
    let standard =
        Standard { qkv_bias: bias, output_bias: bias, default_context_length: 32_768, ..Standard::default() };
    let mut spec = standard.spec(fields)?;
    if fields.flag_or("use_qk_norm", true)? {
        let eps = fields.required_positive("rms_norm_eps")? as f32;
        for (_, attention) in attentions(&mut spec) {
            attention.query_norm = Some(NormSpec::rms("self_attn.query_layernorm", eps));
            attention.key_norm = Some(NormSpec::rms("self_attn.key_layernorm", eps));
            attention.norms_follow_rope = true;
        }
    }
    Ok(spec)
}

/// Xiaomi's MiMo: biases as Qwen 2 has them. Its layers for the prediction of several tokens are not read.
pub(crate) fn mimo(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let standard = Standard {
        qkv_bias: true,
        rope_traditional: fields.flag_or("rope_traditional", false)?,
        default_context_length: 32_768,
        ..Standard::default()
    };
    standard.spec(fields)
}

/// Nanbeige 4: the layers may be run several times over, with one set of weights.
pub(crate) fn nanbeige(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    for field in ["enable_double_loop_split", "loop_share_kv", "enable_depth_attention"] {
        if fields.flag_or(field, false)? {
            return Err(fields.unsupported(field, "true", &["false"]));
        }
    }
    let mut spec = Standard { rope_traditional: false, ..Standard::llama(fields)? }.spec(fields)?;
    // Models that were trained with the losses of all passes have a weight for each but the first.
    let weights = fields.get("loop_loss_weights").and_then(|weights| weights.as_array()).map_or(0, Vec::len);
    let passes = match weights {
        0 => fields.count_or("num_loops", 1, limits::LAYERS)?,
        weights => weights.saturating_add(1),
    };
    if spec.layers.len().saturating_mul(passes) > limits::LAYERS {
        let problem = format_args!("must be at most {} by layers, found {passes}", limits::LAYERS);
        return Err(fields.error("num_loops", problem));
    }
    let layers = spec.layers.len();
    spec.layers = spec.layers.iter().cycle().take(layers * passes).cloned().collect();
    spec.passes = passes;
    spec.norm_between_passes = !fields.flag_or("skip_loop_final_norm", false)?;
    Ok(spec)
}

/// ByteDance's Seed-OSS: biases of queries, keys and values without one of the output.
pub(crate) fn seed_oss(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let output_bias = fields.flag_or("attention_out_bias", false)?;
    let standard = Standard { output_bias, default_context_length: 524_288, ..Standard::llama(fields)? };
    standard.spec(fields)
}

/// Hugging Face's SmolLM 3: every fourth layer has no positions.
pub(crate) fn smollm3(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let standard = Standard { default_context_length: 32_768, ..Standard::llama(fields)? };
    let mut spec = standard.spec(fields)?;
    let layers = spec.layers.len();
    let rotated: Vec<bool> = match fields.indices("no_rope_layers")? {
        // In spite of its name, the list has a one for each layer that is rotated.
        Some(list) if list.len() == layers => list.into_iter().map(|flag| flag != 0).collect(),
        Some(list) => {
            let problem = format_args!("has {} entries for {layers} layers", list.len());
            return Err(fields.error("no_rope_layers", problem));
        }
        None => {
            let interval = fields.count_or("no_rope_layer_interval", 4, limits::LAYERS)?;
            (0..layers).map(|layer| (layer + 1) % interval != 0).collect()
        }
    };
    for (layer, attention) in attentions(&mut spec) {
        if !rotated[layer] {
            attention.rope = None;
        }
    }
    Ok(spec)
}

/// China Telecom's TeleChat 3.
pub(crate) fn telechat3(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let standard = Standard {
        rope_traditional: false,
        default_rope_theta: None,
        windows: Windows::None,
        ..Standard::llama(fields)?
    };
    standard.spec(fields)
}
