//! The first DeepSeek with experts: llama with mixtures after the first layers, beside a network that every token goes
//! through.

use pippin_tensor::{Activation, RouterSpec};

use super::common::{Sizes, head_weights, pre_norm_layer};
use crate::config::Fields;
use crate::parts::{Attention, Dense, Experts, NormSpec, Part, SharedExpert};
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let default = Sizes {
        hidden_size: 4096,
        layers: 30,
        heads: 32,
        kv_heads: 32,
        head_dim: 128,
        intermediate_size: 11_008,
        vocab_size: 102_400,
        context_length: 2048,
    };
    let context_length = rope::context_length(fields, default.context_length)?;
    let sizes = Sizes { context_length, ..Sizes::read_or(fields, &default)? };
    let sizes = Sizes { head_dim: sizes.hidden_size / sizes.heads, ..sizes };
    let eps = fields.positive_or("rms_norm_eps", 1e-6)?;
    let bias = fields.flag_or("attention_bias", false)?;
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: Some(10_000.0), traditional: false };
    let attention = Part::Attention(Attention {
        qkv_bias: bias,
        output_bias: bias,
        rope: Some(rope::read(fields, &defaults)?),
        ..sizes.attention()
    });
    let dense = Part::Dense(Dense::gated(sizes.intermediate_size, Activation::Silu));
    let experts = fields.count("n_routed_experts")?.map(|_| experts(fields)).transpose()?;
    let first = fields.index_or("first_k_dense_replace", 0)?;
    let step = fields.count_or("moe_layer_freq", 1, limits::LAYERS)?;
    let layer = |index: usize| {
        let network = match &experts {
            Some(experts) if index >= first && index.is_multiple_of(step) => Part::Experts(experts.clone()),
            _ => dense.clone(),
        };
        pre_norm_layer(eps, attention.clone(), network)
    };
    let layers = (0..sizes.layers).map(layer).collect();
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(head_weights(fields)?)))
}

fn experts(fields: Fields<'_>) -> Result<Experts> {
    let count = fields.limited_count("n_routed_experts", limits::EXPERTS)?;
    let width = fields.count_or("moe_intermediate_size", 1407, limits::INTERMEDIATE)?;
    let choice = RouterSpec {
        normalize: fields.flag_or("norm_topk_prob", false)?,
        ..RouterSpec::softmax(count, fields.limited_count("num_experts_per_tok", count)?)
    };
    let shared =
        fields.count("n_shared_experts")?.map(|count| SharedExpert::usual(width.saturating_mul(count)));
    Ok(Experts { router_dense: true, shared, ..Experts::new(choice, width) })
}
