//! Phixtral, mixtures of Phi 2: attention and experts side by side behind one layer norm, biases everywhere but in the router.

use pippin_tensor::{Activation, RouterSpec};

use super::common::{Sizes, activation};
use crate::parts::{Attention, Experts, NormSpec, Part, Projections};
use crate::published::Tensors;
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits, rope};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    // mlx-lm's names of the fields, and those that were published.
    let count = |name: &str, published: &str, default: usize, limit: usize| {
        let name = if fields.get(name).is_some() { name } else { published };
        fields.count_or(name, default, limit)
    };
    let hidden_size = count("model_dim", "n_embd", 2560, limits::HIDDEN)?;
    let heads = count("num_heads", "n_head", 32, limits::HEADS)?;
    let sizes = Sizes {
        hidden_size,
        layers: count("num_layers", "n_layer", 32, limits::LAYERS)?,
        heads,
        kv_heads: heads,
        head_dim: hidden_size / heads,
        intermediate_size: 4 * hidden_size,
        vocab_size: count("num_vocab", "vocab_size", 51_200, limits::VOCAB)?,
        context_length: fields.count_or("n_positions", 2048, limits::CONTEXT)?,
    };
    let rotated = fields.count_or("rotary_dim", 32, limits::HEAD_DIM)?;
    let attention = Attention {
        projections: Projections::Fused("mixer.Wqkv"),
        qkv_bias: true,
        output: "mixer.out_proj",
        output_bias: true,
        rope: Some(rope::plain(10_000.0, rotated, false)),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let experts = fields.count_or("num_local_experts", 4, limits::EXPERTS)?;
    let top_k = fields.count_or("num_experts_per_tok", 2, experts)?;
    // A softmax over the chosen is one over all, divided by the sum of the chosen.
    let choice = RouterSpec { normalize: true, ..RouterSpec::softmax(experts, top_k) };
    let experts = Experts {
        router: "moe.gate",
        names: ["", "moe.switch_mlp.fc1", "moe.switch_mlp.fc2"],
        bias: true,
        plain: Some(activation(fields, "activation_function", Activation::GeluTanh)?),
        ..Experts::new(choice, sizes.intermediate_size)
    };
    let parts = [Part::Attention(attention), Part::Experts(experts)];
    let layer = LayerSpec::Blocks(vec![Block::parallel(NormSpec::layer("ln", 1e-5, true), parts)]);
    let names = ModelNames {
        embedding: "transformer.embd.wte".into(),
        layers: "transformer.h".into(),
        head: "lm_head.linear".into(),
    };
    let head = Head { bias: true, ..Head::new(HeadWeights::Separate) };
    let norm = NormSpec::layer("lm_head.ln", 1e-5, true);
    Ok(DecoderSpec { names, ..sizes.decoder(vec![layer; sizes.layers], norm, head) })
}

/// Published with a network for each expert.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.stack("moe.mlp.*.fc1", "moe.switch_mlp.fc1")?;
    tensors.stack("moe.mlp.*.fc2", "moe.switch_mlp.fc2")
}
