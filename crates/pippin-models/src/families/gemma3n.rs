//! Gemma 3n, the text model: several streams that are updated by turns, inputs of each layer's own, feed-forward networks of
//! which the lower ones are sparse, and upper layers that read the keys and values of lower ones.
//!
//! mlx-lm clips the streams' coefficients to `altup_coef_clip` whenever it runs a model. The reference does so in training
//! only, after which they are within it; so there is nothing to clip here.

use std::sync::Arc;

use pippin_tensor::Activation;

use super::common::{activation, window, windowed_layers};
use super::gemma;
use crate::config::Fields;
use crate::parts::{Attention, Dense, DenseForm, LayerInput, NormSpec, Part};
use crate::published::Tensors;
use crate::spec::{DecoderSpec, EmbeddingScale, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{AltUp, Config, LayerInputs, Result, Streams, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    // The text model by itself is under `model`.
    let (fields, path, norm) = match config.fields().object("text_config.")? {
        Some(text) => (text, "model.language_model", "model.language_model.norm"),
        None if config.model_type()? == "gemma3n" => {
            return Err(config.fields().missing("text_config", "an object"));
        }
        None => (config.fields(), "model", "model.norm"),
    };
    let hidden_size = fields.limited_count("hidden_size", limits::HIDDEN)?;
    let layers = fields.limited_count("num_hidden_layers", limits::LAYERS)?;
    let head_dim = fields.limited_count("head_dim", limits::HEAD_DIM)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let streams = Arc::new(Streams {
        path: path.to_owned(),
        count: fields.limited_count("altup_num_inputs", limits::STREAMS)?,
        active: fields.index("altup_active_idx")?,
        eps,
    });
    let inputs = LayerInputs {
        path: path.to_owned(),
        width: fields.limited_count("hidden_size_per_layer_input", limits::HIDDEN)?,
        vocab: fields.limited_count("vocab_size_per_layer_input", limits::VOCAB)?,
        eps,
    };

    if fields.get("layer_types").is_none() {
        return Err(fields.missing("layer_types", "a list of strings"));
    }
    let windows = windowed_layers(fields, layers, |_| false)?;
    let length = fields.limited_count("sliding_window", limits::CONTEXT)?;
    let [local, global] = gemma::rotations(fields, head_dim)?;
    let attention = Attention {
        query_norm: Some(NormSpec::rms("self_attn.q_norm", eps)),
        key_norm: Some(NormSpec::rms("self_attn.k_norm", eps)),
        value_norm: Some(NormSpec::bare(eps)),
        scale: 1.0,
        ..Attention::new(
            fields.limited_count("num_attention_heads", limits::HEADS)?,
            fields.limited_count("num_key_value_heads", limits::HEADS)?,
            head_dim,
        )
    };
    let shares = shared_layers(fields, &windows, fields.index("num_kv_shared_layers")?)?;
    let networks = networks(fields, layers)?;
    let laurel_rank = fields.limited_count("laurel_rank", limits::HIDDEN)?;
    let scales_output = fields
        .flag("altup_correct_scale")?
        .ok_or_else(|| fields.missing("altup_correct_scale", "true or false"))?;
    let width = inputs.width;
    let layer = |(index, ((windowed, shares), network)): (usize, ((bool, Option<usize>), Dense))| {
        let attention = Attention {
            reach: window(windowed, length),
            rope: Some(if windowed { local.clone() } else { global.clone() }),
            shares,
            ..attention.clone()
        };
        LayerSpec::AltUp(Box::new(AltUp {
            streams: streams.clone(),
            mixer: Part::Attention(attention),
            network: Part::Dense(network),
            own: Part::LayerInput(LayerInput { layer: index, width, activation: Activation::GeluTanh }),
            laurel_rank,
            scales_output,
        }))
    };
    let softcap = match fields.get("final_logit_softcapping") {
        Some(_) => Some(fields.positive_or("final_logit_softcapping", 30.0)?),
        None => None,
    };
    Ok(DecoderSpec {
        vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
        hidden_size,
        context_length: fields.limited_count("max_position_embeddings", limits::CONTEXT)?,
        names: ModelNames {
            embedding: format!("{path}.embed_tokens"),
            layers: format!("{path}.layers"),
            head: format!("{path}.lm_head"),
        },
        embedding_scale: EmbeddingScale { factor: (hidden_size as f32).sqrt(), as_stored: true },
        position_embedding: None,
        unused_tokens: Vec::new(),
        rotations: Default::default(),
        embedding_norm: None,
        layer_inputs: Some(inputs),
        ngrams: None,
        passes: 1,
        norm_between_passes: false,
        final_mix: None,
        layers: windows.into_iter().zip(shares).zip(networks).enumerate().map(layer).collect(),
        final_norm: NormSpec::rms(norm, eps),
        head: Head { softcap, ..Head::new(HeadWeights::Tied) },
    })
}

/// The text model by itself may be published under its prefix in the whole one, and the whole one with the prefixes the other
/// way round.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    match config.fields().object("text_config.")? {
        Some(_) => tensors.replace_prefix("language_model.model.", "model.language_model."),
        None => tensors.replace_prefix("model.language_model.", "model."),
    }
    Ok(())
}

/// The layer of whose keys and values each layer makes use, for the last `count` layers: the last of its kind before them.
pub(crate) fn shared_layers(
    fields: Fields<'_>,
    windows: &[bool],
    count: usize,
) -> Result<Vec<Option<usize>>> {
    let own = windows.len().saturating_sub(count);
    let shared = |layer: usize| -> Result<Option<usize>> {
        if layer < own {
            return Ok(None);
        }
        match windows[..own].iter().rposition(|windowed| *windowed == windows[layer]) {
            Some(shared) => Ok(Some(shared)),
            None => {
                let problem =
                    format_args!("is {count}: no layer before them is of the kind of layer {layer}");
                Err(fields.error("num_kv_shared_layers", problem))
            }
        }
    };
    (0..windows.len()).map(shared).collect()
}

/// The feed-forward network of each layer.
fn networks(fields: Fields<'_>, layers: usize) -> Result<Vec<Dense>> {
    let widths = fields.counts("intermediate_size", layers)?;
    let sparsities = fields.shares_or("activation_sparsity_pattern", 0.0, layers)?;
    let activation = activation(fields, "hidden_activation", Activation::GeluTanh)?;
    let network = |(width, sparsity): (usize, f64)| {
        let network = Dense::gated(width, activation);
        match network.form {
            DenseForm::Gated { names, gate } if sparsity > 0.0 => {
                let form = DenseForm::Sparse { names, gate, cutoff: normal_quantile(sparsity) as f32 };
                Dense { form, ..network }
            }
            _ => network,
        }
    };
    Ok(widths.into_iter().zip(sparsities).map(network).collect())
}

/// The number that a share of all normally distributed ones is below of, to seven digits (algorithm AS 241, PPND7, of M. J.
/// Wichura, 1988).
pub(crate) fn normal_quantile(share: f64) -> f64 {
    let polynomial = |x: f64, coefficients: &[f64]| coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c);
    let middle = share - 0.5;
    if middle.abs() <= 0.425 {
        let x = 0.180_625 - middle * middle;
        let above = [3.387_132_717_9, 50.434_271_938, 159.291_132_02, 59.109_374_720];
        let below = [1.0, 17.895_169_469, 78.757_757_664, 67.187_563_600];
        return middle * polynomial(x, &above) / polynomial(x, &below);
    }
    let tail = (-share.min(1.0 - share).ln()).sqrt();
    let quantile = if tail <= 5.0 {
        let above = [1.423_437_277_7, 2.756_815_390_0, 1.306_728_481_6, 0.170_238_211_03];
        polynomial(tail - 1.6, &above) / polynomial(tail - 1.6, &[1.0, 0.737_001_642_50, 0.120_211_329_75])
    } else {
        let above = [6.657_905_115_0, 3.081_226_386_0, 0.428_682_943_37, 0.017_337_203_997];
        polynomial(tail - 5.0, &above) / polynomial(tail - 5.0, &[1.0, 0.241_978_942_25, 0.012_258_202_635])
    };
    quantile.copysign(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        for (share, expected) in [
            (0.5, 0.0),
            (0.8, 0.841_621_233_572_914_2),
            (0.7, 0.524_400_512_708_041),
            (0.95, 1.644_853_626_951_472_2),
            (0.02, -2.053_748_910_631_822_6),
            (1e-3, -3.090_232_306_167_813),
            (1.0 - 1e-12, 7.034_486_910_047_836),
        ] {
            let found = normal_quantile(share);
            assert!((found - expected).abs() < 1e-6, "{share}: {found}");
        }
    }
}
