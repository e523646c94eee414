//! Falcon H1: Mamba 2 and attention side by side in every layer.
//!
//! The models have factors on what goes in and out of everything. mlx-lm's converter multiplies the weights by them; those of
//! a published checkpoint are multiplied when it is loaded, by the factors that the reference has: the converter leaves out
//! that of keys and the attention's on values. The gated norm, which some models have, is by group, as in the reference.

use pippin_tensor::{Activation, Gate};

use super::common::{Sizes, head_weights};
use super::mamba2::time_step_limit;
use crate::config::{Fields, Numbers};
use crate::parts::{Attention, Dense, DenseForm, GatedNorm, NormSpec, Part, StateSpace};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let default = Sizes {
        hidden_size: 1024,
        layers: 36,
        heads: 8,
        kv_heads: 2,
        head_dim: 64,
        intermediate_size: 2048,
        vocab_size: 32_784,
        context_length: 131_072,
    };
    let sizes = Sizes::read_or(fields, &default)?;
    let eps = fields.positive_or("rms_norm_eps", 1e-5)?;
    let bias = fields.flag_or("attention_bias", false)?;
    let defaults = RopeDefaults {
        dims: sizes.head_dim,
        theta: Some(1e11),
        traditional: fields.flag_or("rope_traditional", false)?,
    };
    let attention = Attention {
        qkv_bias: bias,
        output_bias: bias,
        rope: Some(rope::read(fields, &defaults)?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let names = ["feed_forward.gate_proj", "feed_forward.up_proj"];
    let network = Dense {
        form: DenseForm::Gated { names, gate: Gate::Of(Activation::Silu) },
        down: "feed_forward.down_proj",
        intermediate_size: sizes.intermediate_size,
        bias: fields.flag_or("mlp_bias", false)?,
    };
    let mixers = [Part::StateSpace(state_space(fields, &sizes, eps)?), Part::Attention(attention)];
    let layer = LayerSpec::Blocks(vec![
        Block::parallel(NormSpec::rms("input_layernorm", eps), mixers),
        Block::pre_norm(NormSpec::rms("pre_ff_layernorm", eps), Part::Dense(network)),
    ]);
    let weights = match fields.get("tie_word_embeddings") {
        Some(_) => head_weights(fields)?,
        None => HeadWeights::Tied,
    };
    // Embeddings have their factor in them; a matrix of the output its own.
    let factors = Factors::read(fields)?;
    let scale = if weights == HeadWeights::Tied { factors.head / factors.embedding } else { 1.0 };
    let head = Head { scale, ..Head::new(weights) };
    Ok(sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("model.final_layernorm", eps), head))
}

fn state_space(fields: Fields<'_>, sizes: &Sizes, eps: f32) -> Result<StateSpace> {
    let heads = fields.count_or("mamba_n_heads", 24, limits::HEADS)?;
    let head_dim = fields.count_or("mamba_d_head", 64, limits::HEAD_DIM)?;
    let groups = fields.count_or("mamba_n_groups", 1, limits::HEADS)?;
    let width = match fields.value("mamba_d_ssm") {
        Some(value) if value.is_null() => {
            fields.count_or("mamba_expand", 2, limits::HIDDEN)?.saturating_mul(sizes.hidden_size)
        }
        _ => fields.count_or("mamba_d_ssm", 1536, limits::HIDDEN)?,
    };
    if heads.saturating_mul(head_dim) != width {
        let problem = format_args!("must be {width} over mamba_d_head, found {heads}");
        return Err(fields.error("mamba_n_heads", problem));
    }
    let norm = GatedNorm { eps, groups, before_gate: fields.flag_or("mamba_norm_before_gate", false)? };
    Ok(StateSpace {
        path: "mamba",
        heads,
        head_dim,
        groups,
        state_size: fields.count_or("mamba_d_state", 128, limits::HEAD_DIM)?,
        taps: fields.count_or("mamba_d_conv", 4, limits::TAPS)?,
        bias: fields.flag_or("mamba_proj_bias", false)?,
        output_bias: fields.flag_or("projectors_bias", false)?,
        conv_bias: fields.flag_or("mamba_conv_bias", true)?,
        time_step_limit: time_step_limit(fields)?,
        norm: fields.flag_or("mamba_rms_norm", false)?.then_some(norm),
    })
}

/// The factors on what goes in and out.
struct Factors {
    embedding: f32,
    head: f32,
    attention: [f32; 2],
    key: f32,
    /// Of the network's gate, and of its result.
    network: [f32; 2],
    mamba: [f32; 2],
    /// Of a state space's gate, `x`, `B`, `C` and time steps.
    mamba_parts: [f32; 5],
}

impl Factors {
    fn read(fields: Fields<'_>) -> Result<Self> {
        Ok(Self {
            embedding: fields.positive_or("embedding_multiplier", 5.656_854)?,
            head: fields.positive_or("lm_head_multiplier", 0.039_062_5)?,
            attention: [
                fields.positive_or("attention_in_multiplier", 1.0)?,
                fields.positive_or("attention_out_multiplier", 0.9375)?,
            ],
            key: fields.positive_or("key_multiplier", 0.390_625)?,
            network: list(fields, "mlp_multipliers", [0.883_883_5, 0.585_937_5])?,
            mamba: [
                fields.positive_or("ssm_in_multiplier", 1.25)?,
                fields.positive_or("ssm_out_multiplier", 0.235_702_26)?,
            ],
            mamba_parts: list(
                fields,
                "ssm_multipliers",
                [0.353_553_39, 0.25, 0.353_553_39, 0.5, 0.353_553_39],
            )?,
        })
    }
}

fn list<const N: usize>(fields: Fields<'_>, name: &str, default: [f32; N]) -> Result<[f32; N]> {
    let numbers: Vec<f32> = match fields.positives(name)? {
        None => return Ok(default),
        Some(Numbers::One(number)) => vec![number as f32],
        Some(Numbers::List(numbers)) => numbers.into_iter().map(|number| number as f32).collect(),
    };
    let wrong =
        |found: Vec<f32>| fields.error(name, format_args!("must have {N} numbers, found {}", found.len()));
    <[f32; N]>::try_from(numbers).map_err(wrong)
}

/// A published checkpoint has its factors apart. As mlx-lm tells: its converter has turned the kernels of convolutions.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    let fields = config.fields();
    let kernels = tensors.get("model.layers.0.mamba.conv1d.weight").map(|kernels| kernels.shape().to_vec());
    if !matches!(kernels.as_deref(), Some([_, middle, last]) if last > middle) {
        return Ok(());
    }
    let factors = Factors::read(fields)?;
    let space = state_space(fields, &Sizes::read(fields, 1)?, 1.0)?;
    let (width, shared) = (space.heads * space.head_dim, space.groups.saturating_mul(space.state_size));
    let ends = [width, 2 * width, 2 * width + shared, 2 * width + 2 * shared];
    let part = |row: usize| factors.mamba_parts[ends.iter().filter(|end| row >= **end).count()];
    let [into, out] = factors.attention;
    let [gate, down] = factors.network;
    // Factors of weights, and of biases.
    let all = [
        ("embed_tokens", factors.embedding, 1.0),
        ("lm_head", factors.head, 1.0),
        ("self_attn.q_proj", into, 1.0),
        ("self_attn.k_proj", into * factors.key, factors.key),
        ("self_attn.v_proj", into, 1.0),
        ("self_attn.o_proj", out, out),
        ("mamba.out_proj", factors.mamba[1], factors.mamba[1]),
        ("feed_forward.gate_proj", gate, gate),
        ("feed_forward.down_proj", down, down),
    ];
    for (path, weight, bias) in all {
        tensors.scale_rows(&format!("{path}.weight"), |_| weight)?;
        tensors.scale_rows(&format!("{path}.bias"), |_| bias)?;
    }
    tensors.scale_rows("mamba.in_proj.weight", |row| factors.mamba[0] * part(row))?;
    tensors.scale_rows("mamba.in_proj.bias", part)
}
