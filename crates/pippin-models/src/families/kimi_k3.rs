//! Kimi K3: the layers of Kimi Linear, whose inputs are mixtures of the residual stream as it was after groups of layers before,
//! with a gate after attention, and experts that may work on a narrower vector.

use pippin_tensor::{Activation, Gate};

use super::common::{Sizes, nested};
use super::kimi_linear;
use crate::config::Fields;
use crate::parts::{DeltaInput, DeltaProjections, Dense, DenseForm, GatedDelta, Latent, NarrowExperts};
use crate::parts::{NormSpec, OutputGate, Part};
use crate::published::Tensors;
use crate::residual_mix::ResidualMix;
use crate::spec::{Block, Head, HeadWeights, LayerSpec};
use crate::{Config, DecoderSpec, Result, limits};

const SIZES: Sizes = Sizes {
    hidden_size: 7168,
    layers: 93,
    heads: 96,
    kv_heads: 96,
    head_dim: 128,
    intermediate_size: 33_792,
    vocab_size: 163_840,
    context_length: 1_048_576,
};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    nested(config, "language_model.model.norm", text)
}

fn text(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    if let Some(found) = fields.text("hidden_act")?.filter(|found| *found != "situ") {
        return Err(fields.unsupported("hidden_act", found, &["situ"]));
    }
    if let Some(found) = fields.text("moe_router_activation_func")?.filter(|found| *found != "sigmoid") {
        return Err(fields.unsupported("moe_router_activation_func", found, &["sigmoid"]));
    }
    let sizes = Sizes::read_or(fields, &SIZES)?;
    let eps = fields.positive_or("rms_norm_eps", 1e-5)?;
    let gate = Gate::Situ {
        beta: match fields.finite("activation_situ_beta")? {
            Some(beta) if beta != 0.0 => fields.positive_or("activation_situ_beta", 1.0)?,
            _ => 1.0,
        },
        limit: match fields.get("activation_situ_linear_beta") {
            Some(_) => Some(fields.positive_or("activation_situ_linear_beta", 1.0)?),
            None => None,
        },
    };
    let linear = fields.object("linear_attn_config.")?;
    let linear = linear.ok_or_else(|| fields.missing("linear_attn_config", "an object"))?;
    let (latent, delta) = (latent(fields, &sizes)?, delta(linear, eps)?);
    let names = ["mlp.gate_proj", "mlp.up_proj"];
    let dense = Dense {
        form: DenseForm::Gated { names, gate },
        ..Dense::gated(sizes.intermediate_size, Activation::Silu)
    };
    let mixture = match fields.get("num_experts") {
        Some(value) if value.as_u64() != Some(0) => {
            let narrow = narrow(fields, eps)?;
            Some(crate::parts::Experts { narrow, ..kimi_linear::chosen_experts(fields, 16, gate)? })
        }
        _ => None,
    };
    let group = fields.count("attn_res_block_size")?;
    let layer = |(index, [mixer, network]): (usize, [Part; 2])| {
        let mix = |[norm, score]: [&'static str; 2], begins| {
            Some(ResidualMix { norm: NormSpec::rms(norm, eps), score, begins })
        };
        let [before_mixer, before_network] = match group {
            Some(group) => [
                mix(["self_attention_res_norm", "self_attention_res_proj"], index % group == 0),
                mix(["mlp_res_norm", "mlp_res_proj"], false),
            ],
            None => [None, None],
        };
        LayerSpec::Blocks(vec![
            Block { mix: before_mixer, ..Block::pre_norm(NormSpec::rms("input_layernorm", eps), mixer) },
            Block {
                mix: before_network,
                ..Block::pre_norm(NormSpec::rms("post_attention_layernorm", eps), network)
            },
        ])
    };
    let mixers = kimi_linear::Mixers { delta, latent };
    let mixture = mixture.as_ref();
    let parts = kimi_linear::parts_of_layers(fields, linear, sizes.layers, &mixers, &dense, mixture)?;
    let layers = parts.into_iter().enumerate().map(layer).collect();
    let final_mix = group.map(|_| ResidualMix {
        norm: NormSpec::rms("language_model.model.output_attn_res_norm", eps),
        score: "language_model.model.output_attn_res_proj",
        begins: false,
    });
    let weights = match fields.flag("tie_word_embeddings")? {
        Some(true) => HeadWeights::Tied,
        _ => HeadWeights::Separate,
    };
    let norm = NormSpec::rms("model.norm", eps);
    Ok(DecoderSpec { final_mix, ..sizes.decoder(layers, norm, Head::new(weights)) })
}

fn delta(linear: Fields<'_>, eps: f32) -> Result<GatedDelta> {
    let delta = kimi_linear::delta(linear, eps)?;
    let gate = match linear.flag_or("use_full_rank_gate", false)? {
        true => DeltaInput::Linear("g_proj"),
        false => DeltaInput::LowRank(["g_a_proj", "g_b_proj"], delta.key_dim),
    };
    let projections = DeltaProjections::Apart {
        mixed: &[("qkv_proj", "qkv_conv.conv")],
        gate,
        strength: "b_proj",
        decay: DeltaInput::LowRank(["f_a_proj", "f_b_proj"], delta.key_dim),
    };
    let decay_bound = linear.finite("gate_lower_bound")?.map(|bound| bound as f32);
    Ok(GatedDelta { projections, decay_bound, ..delta })
}

fn latent(fields: Fields<'_>, sizes: &Sizes) -> Result<Latent> {
    let dim = |name| fields.limited_count(name, limits::HEAD_DIM);
    let (key_dim, value_dim) = (dim("qk_nope_head_dim")?, dim("v_head_dim")?);
    let query_rank = match fields.get("q_lora_rank") {
        Some(_) => Some(fields.limited_count("q_lora_rank", limits::HIDDEN)?),
        None => None,
    };
    let gate = OutputGate { name: "g_proj", by_head: false, activation: Activation::Sigmoid };
    let gate = fields.flag_or("mla_use_output_gate", false)?.then_some(gate);
    let latent = kimi_linear::without_positions(fields, sizes.heads, key_dim, value_dim)?;
    Ok(Latent { query_rank, gate, ..latent })
}

fn narrow(fields: Fields<'_>, eps: f32) -> Result<Option<NarrowExperts>> {
    if fields.get("routed_expert_hidden_size").is_none() {
        return Ok(None);
    }
    let norm = fields.flag_or("latent_moe_use_norm", false)?;
    Ok(Some(NarrowExperts {
        names: ["mlp.routed_expert_down_proj", "mlp.routed_expert_up_proj"],
        width: fields.limited_count("routed_expert_hidden_size", limits::HIDDEN)?,
        bias: false,
        norm: None,
        back_norm: norm.then(|| NormSpec::rms("mlp.routed_expert_norm", eps)),
    }))
}

/// A published checkpoint has its text model under this prefix or under none, the names of Kimi Linear, and queries, keys and values
/// apart.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    let text = config.part("text_config.")?;
    let fields = text.as_ref().unwrap_or(config).fields();
    let layers = Sizes::read_or(fields, &SIZES)?.layers;
    let linear = fields.object("linear_attn_config.")?;
    let heads = linear.map(|linear| linear.limited_count("num_heads", limits::HEADS)).transpose()?;
    let seeing = ["vision_tower", "vision_model", "multi_modal_projector", "mm_projector"];
    tensors.retain(|name| !seeing.iter().any(|module| name.starts_with(module)));
    tensors.rename(|name| (!name.starts_with("language_model.")).then(|| format!("language_model.{name}")));
    tensors.retain(|name| {
        let layer = name.strip_prefix("language_model.model.layers.").and_then(|rest| rest.split_once('.'));
        let beyond = layer.and_then(|(number, _)| number.parse().ok()).is_some_and(|at: usize| at >= layers);
        let guesses = ["language_model.model.mtp", "language_model.mtp"];
        !beyond && !guesses.iter().any(|module| name.starts_with(module))
    });
    for mix in ["self_attention_res", "mlp_res", "output_attn_res"] {
        for part in ["proj", "norm"] {
            tensors.rename(|name| {
                let before = name.strip_suffix(&format!("{mix}.{part}_weight"))?;
                Some(format!("{before}{mix}_{part}.weight"))
            });
        }
    }
    kimi_linear::published_layers(tensors)?;
    if let Some(heads) = heads {
        tensors.first_rows("self_attn.A_log", heads)?;
    }
    tensors.join(&["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "self_attn.qkv_proj")?;
    let kernels = ["self_attn.q_conv.conv", "self_attn.k_conv.conv", "self_attn.v_conv.conv"];
    tensors.join(&kernels, "self_attn.qkv_conv.conv")
}
