//! Gear: Gemma 3's layers, in some of which heads that see a few tokens back stand in for the attention.

use pippin_tensor::Activation;

use super::common::{Sizes, activation, head_weights, window};
use super::gemma::rotations;
use crate::config::Fields;
use crate::parts::{Attention, ConvGate, Dense, NormSpec, Part};
use crate::spec::{Block, EmbeddingScale, Head, HeadWeights, LayerSpec};
use crate::{Config, DecoderSpec, Result, limits};

/// What mixes the tokens of a layer.
const TYPES: [&str; 3] = ["full_attention", "sliding_attention", "conv_mixer"];

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 131_072)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    if fields.flag_or("use_bidirectional_attention", false)? {
        return Err(fields.unsupported("use_bidirectional_attention", "true", &["false"]));
    }
    let bias = fields.flag_or("attention_bias", false)?;
    let length = fields.count_or("sliding_window", 512, limits::CONTEXT)?;
    let [local, global] = rotations(fields, sizes.head_dim)?;
    let softcap = optional_cap(fields, "attn_logit_softcapping")?;
    let scalar = fields.positive_or("query_pre_attn_scalar", sizes.head_dim as f32)?;
    let attention = |windowed: bool| Attention {
        qkv_bias: bias,
        output_bias: bias,
        query_norm: Some(NormSpec::plus_one("self_attn.q_norm", eps)),
        key_norm: Some(NormSpec::plus_one("self_attn.k_norm", eps)),
        rope: Some(if windowed { local.clone() } else { global.clone() }),
        reach: window(windowed, length),
        scale: scalar.powf(-0.5),
        softcap,
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let conv_gate = ConvGate {
        path: "local_mixer",
        heads: sizes.heads,
        kv_heads: sizes.kv_heads,
        head_dim: sizes.head_dim,
        taps: fields.count_or("conv_L_cache", 3, limits::TAPS)?,
        bias,
        norms: [NormSpec::plus_one("q_norm", eps), NormSpec::plus_one("k_norm", eps)],
    };
    let types = match fields.texts("layer_types")? {
        Some(types) if types.len() != sizes.layers => {
            let problem = format_args!("has {} entries for {} layers", types.len(), sizes.layers);
            return Err(fields.error("layer_types", problem));
        }
        types => types.unwrap_or_else(|| vec![TYPES[0]; sizes.layers]),
    };
    let mixer = |kind: &str| match kind {
        "full_attention" => Ok(Part::Attention(attention(false))),
        "sliding_attention" => Ok(Part::Attention(attention(true))),
        "conv_mixer" => Ok(Part::ConvGate(conv_gate.clone())),
        other => Err(fields.unsupported("layer_types", other, &TYPES)),
    };
    let activation = activation(fields, "hidden_activation", Activation::GeluTanh)?;
    let norm = |path| NormSpec::plus_one(path, eps);
    let layer = |mixer: Part| {
        let network = Part::Dense(Dense::gated(sizes.intermediate_size, activation));
        LayerSpec::Blocks(vec![
            Block::sandwich(norm("input_layernorm"), mixer, norm("post_attention_layernorm")),
            Block::sandwich(norm("pre_feedforward_layernorm"), network, norm("post_feedforward_layernorm")),
        ])
    };
    let layers = types.into_iter().map(|kind| mixer(kind).map(layer)).collect::<Result<_>>()?;
    let head = match head_weights(fields)? {
        HeadWeights::Separate => HeadWeights::Separate,
        _ => HeadWeights::Tied,
    };
    let head = Head { softcap: optional_cap(fields, "final_logit_softcapping")?, ..Head::new(head) };
    Ok(DecoderSpec {
        embedding_scale: EmbeddingScale { factor: (sizes.hidden_size as f32).sqrt(), as_stored: true },
        ..sizes.decoder(layers, norm("model.norm"), head)
    })
}

/// A soft cap, if there is one: zero is none.
fn optional_cap(fields: Fields<'_>, name: &str) -> Result<Option<f32>> {
    match fields.finite(name)? {
        None | Some(0.0) => Ok(None),
        Some(_) => fields.positive_or(name, 1.0).map(Some),
    }
}
