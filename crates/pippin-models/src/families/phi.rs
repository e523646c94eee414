//! Phi 1, 1.5 and 2: attention and feed-forward network side by side behind one layer norm, biases everywhere, heads that
//! rotate in part.

use pippin_tensor::Activation;

use super::common::{Sizes, activation};
use crate::parts::{Attention, Dense, DenseForm, NormSpec, Part};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec};
use crate::{Config, Result, limits, rope};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let heads = fields.count_or("num_attention_heads", 32, limits::HEADS)?;
    let hidden_size = fields.count_or("hidden_size", 2560, limits::HIDDEN)?;
    let sizes = Sizes {
        hidden_size,
        layers: fields.count_or("num_hidden_layers", 32, limits::LAYERS)?,
        heads,
        kv_heads: fields.count_or("num_key_value_heads", heads, limits::HEADS)?,
        head_dim: hidden_size / heads,
        intermediate_size: fields.count_or("intermediate_size", 10_240, limits::INTERMEDIATE)?,
        vocab_size: fields.count_or("vocab_size", 51_200, limits::VOCAB)?,
        context_length: rope::context_length(fields, 2048)?,
    };
    let eps = fields.positive_or("layer_norm_eps", 1e-5)?;
    let theta = rope::setting(fields, "rope_theta")?.unwrap_or(10_000.0);
    let share = rope::share(fields, 0.4)?;
    let attention = Attention {
        qkv_bias: true,
        output: "self_attn.dense",
        output_bias: true,
        rope: Some(rope::plain(theta, rope::partial(sizes.head_dim, share), false)),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let activation = activation(fields, "hidden_act", Activation::GeluTanh)?;
    let network = Dense {
        form: DenseForm::Plain { name: "mlp.fc1", activation },
        down: "mlp.fc2",
        intermediate_size: sizes.intermediate_size,
        bias: true,
    };
    let norm = NormSpec::layer("input_layernorm", eps, true);
    let layer =
        LayerSpec::Blocks(vec![Block::parallel(norm, [Part::Attention(attention), Part::Dense(network)])]);
    let head = Head { bias: true, ..Head::new(HeadWeights::Separate) };
    let norm = NormSpec::layer("model.final_layernorm", eps, true);
    Ok(sizes.decoder(vec![layer; sizes.layers], norm, head))
}
