//! StarCoder 2: layer norms, biases everywhere, a feed-forward network without a gate, a window in every layer.
//!
//! mlx-lm takes the exact GELU and no window; here both are as the configuration says, as in training.

use pippin_tensor::{Activation, Reach};

use super::common::{Sizes, activation};
use crate::parts::{Attention, Dense, DenseForm, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec};
use crate::{Config, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 4096)?;
    let eps = fields.positive_or("norm_epsilon", 1e-5)?;
    let bias = fields.flag_or("use_bias", true)?;
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: Some(100_000.0), traditional: false };
    let attention = Attention {
        qkv_bias: bias,
        output_bias: bias,
        rope: Some(rope::read(fields, &defaults)?),
        reach: fields.count("sliding_window")?.map_or(Reach::All, Reach::Window),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let activation = activation(fields, "hidden_act", Activation::GeluTanh)?;
    let network = Dense {
        form: DenseForm::Plain { name: "mlp.c_fc", activation },
        down: "mlp.c_proj",
        intermediate_size: sizes.intermediate_size,
        bias,
    };
    let norm = |path: &'static str| NormSpec::layer(path, eps, true);
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(norm("input_layernorm"), Part::Attention(attention)),
        Block::pre_norm(norm("post_attention_layernorm"), Part::Dense(network)),
    ]);
    let head = match fields.flag_or("tie_word_embeddings", true)? {
        true => HeadWeights::Tied,
        false => HeadWeights::Separate,
    };
    Ok(sizes.decoder(vec![layer; sizes.layers], norm("model.norm"), Head::new(head)))
}
