//! NVIDIA's Minitron and Nemotron 4: layer norms of one plus the weight, heads that rotate in part, and squared ReLU without a
//! gate.

use pippin_tensor::Activation;

use super::common::{Sizes, activation, head_weights};
use crate::parts::{Attention, Dense, DenseForm, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, LayerSpec};
use crate::{Config, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 4096)?;
    let eps = fields.required_positive("norm_eps")? as f32;
    let attention_bias = fields.flag_or("attention_bias", false)?;
    let defaults = RopeDefaults {
        dims: rope::partial(sizes.head_dim, rope::share(fields, 0.5)?),
        theta: Some(10_000.0),
        traditional: false,
    };
    let attention = Attention {
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        rope: Some(rope::read(fields, &defaults)?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let activation = activation(fields, "hidden_act", Activation::ReluSquared)?;
    let network = Dense {
        form: DenseForm::Plain { name: "mlp.up_proj", activation },
        bias: fields.flag_or("mlp_bias", false)?,
        ..Dense::gated(sizes.intermediate_size, activation)
    };
    let norm = |path: &'static str| NormSpec { plus_one: true, ..NormSpec::layer(path, eps, true) };
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(norm("input_layernorm"), Part::Attention(attention)),
        Block::pre_norm(norm("post_attention_layernorm"), Part::Dense(network)),
    ]);
    let head = Head::new(head_weights(fields)?);
    Ok(sizes.decoder(vec![layer; sizes.layers], norm("model.norm"), head))
}
