//! Microsoft's BitNet b1.58: llama with ternary weights, a squared ReLU in the gate, and norms of what goes into the output
//! projections of attention and feed-forward network. Inputs of layers are not rounded to eight bits, in which it is as
//! mlx-lm; `Numerics` may say otherwise.

use pippin_tensor::{Activation, Gate};

use super::common::{Sizes, activation, pre_norm_layer};
use crate::parts::{Attention, Dense, DenseForm, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head, HeadWeights};
use crate::{Config, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 4096)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let rope = RopeDefaults {
        dims: sizes.head_dim,
        theta: Some(10_000.0),
        traditional: fields.flag_or("rope_traditional", false)?,
    };
    let bias = fields.flag_or("attention_bias", false)?;
    let attention = Attention {
        qkv_bias: bias,
        output_bias: bias,
        inner_norm: Some(NormSpec::rms("self_attn.attn_sub_norm", eps)),
        rope: Some(rope::read(fields, &rope)?),
        ..sizes.attention()
    };
    let network = Dense {
        form: DenseForm::Normed {
            names: ["mlp.gate_proj", "mlp.up_proj"],
            gate: Gate::Of(activation(fields, "hidden_act", Activation::ReluSquared)?),
            norm: NormSpec::rms("mlp.ffn_sub_norm", eps),
        },
        down: "mlp.down_proj",
        intermediate_size: sizes.intermediate_size,
        bias: fields.flag_or("mlp_bias", false)?,
    };
    let layer = pre_norm_layer(eps, Part::Attention(attention), Part::Dense(network));
    let tied = fields.flag_or("tie_word_embeddings", true)?;
    let head = Head::new(if tied { HeadWeights::Tied } else { HeadWeights::Separate });
    Ok(sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("model.norm", eps), head))
}
