//! NVIDIA's Nemotron H: each layer is one part behind a norm, as a pattern says: Mamba 2, attention without positions, a
//! network of squared ReLUs, or experts of them, which may be given a narrower vector than the layer.

use pippin_tensor::{Activation, RouterSpec, ScoreFunction};

use super::common::{Sizes, activation};
use super::mamba2::time_step_limit;
use crate::config::Fields;
use crate::parts::{
    Attention, Dense, DenseForm, Experts, GatedNorm, NarrowExperts, NormSpec, Part, Projections,
    SharedExpert, StateSpace,
};
use crate::published::Tensors;
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits, rope};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let kinds = kinds(fields)?;
    let hidden_size = fields.limited_count("hidden_size", limits::HIDDEN)?;
    let heads = fields.limited_count("num_attention_heads", limits::HEADS)?;
    let sizes = Sizes {
        hidden_size,
        layers: kinds.len(),
        heads,
        kv_heads: fields.limited_count("num_key_value_heads", limits::HEADS)?,
        head_dim: fields.count_or("head_dim", hidden_size / heads, limits::HEAD_DIM)?,
        intermediate_size: fields.limited_count("intermediate_size", limits::INTERMEDIATE)?,
        vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
        context_length: rope::context_length(fields, 4096)?,
    };
    let eps = fields.positive_or("layer_norm_epsilon", 1e-5)?;
    let bias = fields.flag_or("attention_bias", false)?;
    let attention = Attention {
        projections: Projections::Separate(["mixer.q_proj", "mixer.k_proj", "mixer.v_proj"]),
        output: "mixer.o_proj",
        qkv_bias: bias,
        output_bias: bias,
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let layer = |kind: Kind| {
        let part = match kind {
            Kind::Attention => Part::Attention(attention.clone()),
            Kind::Mamba => Part::StateSpace(state_space(fields, eps)?),
            Kind::Dense => {
                Part::Dense(network(fields, ["mixer.up_proj", "mixer.down_proj"], sizes.intermediate_size)?)
            }
            Kind::Experts => Part::Experts(experts(fields)?),
        };
        Ok(LayerSpec::Blocks(vec![Block::pre_norm(NormSpec::rms("norm", eps), part)]))
    };
    let layers = kinds.into_iter().map(layer).collect::<Result<_>>()?;
    let names = ModelNames {
        embedding: "backbone.embeddings".into(),
        layers: "backbone.layers".into(),
        ..ModelNames::default()
    };
    let head = Head::new(HeadWeights::Separate);
    Ok(DecoderSpec { names, ..sizes.decoder(layers, NormSpec::rms("backbone.norm_f", eps), head) })
}

/// What a layer is.
#[derive(Clone, Copy)]
enum Kind {
    Attention,
    Mamba,
    Dense,
    Experts,
}

/// What each layer is: characters, in one text or in a list, or words.
fn kinds(fields: Fields<'_>) -> Result<Vec<Kind>> {
    const WORDS: [(&str, Kind); 11] = [
        ("*", Kind::Attention),
        ("full_attention", Kind::Attention),
        ("attention", Kind::Attention),
        ("M", Kind::Mamba),
        ("linear_attention", Kind::Mamba),
        ("mamba", Kind::Mamba),
        ("conv", Kind::Mamba),
        ("-", Kind::Dense),
        ("mlp", Kind::Dense),
        ("E", Kind::Experts),
        ("moe", Kind::Experts),
    ];
    let names = ["hybrid_override_pattern", "layers_block_type", "layer_types"];
    let Some(name) = names.into_iter().find(|name| fields.get(name).is_some()) else {
        return Err(fields.missing(names[0], "a text with a character for each layer"));
    };
    let kind = |word: &str| match WORDS.into_iter().find(|(known, _)| *known == word) {
        Some((_, kind)) => Ok(kind),
        None => Err(fields.unsupported(name, word, &WORDS.map(|(known, _)| known))),
    };
    let kinds: Vec<Kind> = match fields.get(name).and_then(serde_json::Value::as_str) {
        Some(pattern) => {
            pattern.chars().map(|word| kind(word.encode_utf8(&mut [0; 4]))).collect::<Result<_>>()?
        }
        None => fields.texts(name)?.unwrap_or_default().into_iter().map(kind).collect::<Result<_>>()?,
    };
    if kinds.is_empty() || kinds.len() > limits::LAYERS {
        return Err(fields.error(name, format_args!("has {} entries", kinds.len())));
    }
    Ok(kinds)
}

fn state_space(fields: Fields<'_>, eps: f32) -> Result<StateSpace> {
    let groups = fields.limited_count("n_groups", limits::HEADS)?;
    let bias = fields.flag_or("mamba_proj_bias", false)?;
    Ok(StateSpace {
        path: "mixer",
        heads: fields.limited_count("mamba_num_heads", limits::HEADS)?,
        head_dim: fields.limited_count("mamba_head_dim", limits::HEAD_DIM)?,
        groups,
        state_size: fields.limited_count("ssm_state_size", limits::HEAD_DIM)?,
        taps: fields.limited_count("conv_kernel", limits::TAPS)?,
        bias,
        output_bias: bias,
        conv_bias: fields.flag_or("use_conv_bias", true)?,
        time_step_limit: time_step_limit(fields)?,
        norm: Some(GatedNorm { eps, groups, before_gate: false }),
    })
}

fn network(fields: Fields<'_>, [up, down]: [&'static str; 2], width: usize) -> Result<Dense> {
    let activation = activation(fields, "mlp_hidden_act", Activation::ReluSquared)?;
    let form = DenseForm::Plain { name: up, activation };
    Ok(Dense { form, down, bias: fields.flag_or("mlp_bias", false)?, ..Dense::gated(width, activation) })
}

fn experts(fields: Fields<'_>) -> Result<Experts> {
    let experts = fields.limited_count("n_routed_experts", limits::EXPERTS)?;
    let top_k = fields.limited_count("num_experts_per_tok", experts)?;
    let groups = fields.count_or("n_group", 1, experts)?;
    let choice = RouterSpec {
        scores: ScoreFunction::Sigmoid,
        groups,
        top_groups: if groups == 1 { 1 } else { fields.limited_count("topk_group", groups)? },
        best_of_group: (experts / groups).clamp(1, 2),
        normalize: top_k > 1 && fields.flag_or("norm_topk_prob", false)?,
        scale: fields.positive_or("routed_scaling_factor", 1.0)?,
        ..RouterSpec::softmax(experts, top_k)
    };
    let shared = match fields.get("n_shared_experts") {
        Some(_) => {
            let width = fields.limited_count("moe_shared_expert_intermediate_size", limits::INTERMEDIATE)?;
            let names = ["mixer.shared_experts.up_proj", "mixer.shared_experts.down_proj"];
            Some(SharedExpert { network: network(fields, names, width)?, gate: None })
        }
        None => None,
    };
    let narrow = match fields.count("moe_latent_size")? {
        Some(width) => Some(NarrowExperts {
            names: ["mixer.fc1_latent_proj", "mixer.fc2_latent_proj"],
            width,
            bias: fields.flag_or("mlp_bias", false)?,
            norm: None,
            back_norm: None,
        }),
        None => None,
    };
    Ok(Experts {
        router: "mixer.gate",
        router_dense: true,
        correction: Some("mixer.gate.e_score_correction_bias"),
        names: ["", "mixer.switch_mlp.fc1", "mixer.switch_mlp.fc2"],
        plain: Some(activation(fields, "mlp_hidden_act", Activation::ReluSquared)?),
        narrow,
        shared,
        ..Experts::new(choice, fields.limited_count("moe_intermediate_size", limits::INTERMEDIATE)?)
    })
}

/// A published checkpoint has experts one by one.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.retain(|name| !name.starts_with("mtp."));
    tensors.stack("mixer.experts.*.up_proj", "mixer.switch_mlp.fc1")?;
    tensors.stack("mixer.experts.*.down_proj", "mixer.switch_mlp.fc2")
}
