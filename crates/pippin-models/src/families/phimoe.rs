//! Phi 3.5 with experts: layer norms, biases in attention and output head, and mixtures whose weights are those of
//! SparseMixer.

use pippin_tensor::{Activation, Gate, Reach, RouterSpec, ScoreFunction};

use super::common::{Sizes, activation, head_weights};
use super::mixtral::block_sparse;
use crate::config::Fields;
use crate::parts::{Attention, Experts, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let default = Sizes {
        hidden_size: 4096,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        intermediate_size: 6400,
        vocab_size: 32_064,
        context_length: 131_072,
    };
    let sizes = Sizes::read_or(fields, &default)?;
    let sizes = Sizes {
        head_dim: fields.count_or("head_dim", sizes.hidden_size / sizes.heads, limits::HEAD_DIM)?,
        ..sizes
    };
    let eps = fields.positive_or("rms_norm_eps", 1e-6)?;
    let attention = Attention {
        qkv_bias: true,
        output_bias: true,
        rope: Some(rotation(fields, &sizes)?),
        reach: fields.count("sliding_window")?.map_or(Reach::All, Reach::Window),
        ..sizes.attention()
    };
    let count = fields.count_or("num_local_experts", 16, limits::EXPERTS)?;
    let jitter = fields.positive_or("router_jitter_noise", 0.01)?;
    let choice = RouterSpec {
        scores: ScoreFunction::SparseMixer { jitter },
        ..RouterSpec::softmax(count, fields.count_or("num_experts_per_tok", 2, count)?)
    };
    let experts = Experts {
        gate: Gate::Of(activation(fields, "hidden_act", Activation::Silu)?),
        ..block_sparse(choice, sizes.intermediate_size)
    };
    let norm = |path| NormSpec::layer(path, eps, true);
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(norm("input_layernorm"), Part::Attention(attention)),
        Block::pre_norm(norm("post_attention_layernorm"), Part::Experts(experts)),
    ]);
    let weights = match head_weights(fields)? {
        HeadWeights::IfPresent => HeadWeights::Separate,
        weights => weights,
    };
    let head = Head { bias: true, ..Head::new(weights) };
    Ok(sizes.decoder(vec![layer; sizes.layers], norm("model.norm"), head))
}

/// LongRoPE, with a factor on rotated queries and keys that the configuration has, in place of the usual one.
fn rotation(fields: Fields<'_>, sizes: &Sizes) -> Result<std::sync::Arc<pippin_tensor::RopeSpec>> {
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: Some(10_000.0), traditional: false };
    let mut spec = rope::read(fields, &defaults)?;
    if let Some(scaling) = rope::scaling(fields)?
        && let Some(factor) = scaling.positive("long_mscale")?
    {
        std::sync::Arc::make_mut(&mut spec).scale = factor as f32;
    }
    Ok(spec)
}
