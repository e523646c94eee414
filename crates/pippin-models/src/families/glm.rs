//! GLM 4 and GLM Edge (`glm`), and GLM 4 0414 with norms on both sides of attention and feed-forward network (`glm4`): heads
//! rotate in part, adjacent dimensions forming pairs, and the feed-forward network's gate and input are one matrix.
//!
//! mlx-lm rotates whole heads in `glm`; here they rotate as the configuration says, by default the first half of each.

use pippin_tensor::{Activation, Gate};

use super::common::{Sizes, activation, head_weights};
use crate::config::Fields;
use crate::parts::{Attention, Dense, DenseForm, FusedRows, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec};
use crate::{Config, Result};

pub(crate) fn glm(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let (sizes, eps, attention, network) = read(fields, true)?;
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(NormSpec::rms("input_layernorm", eps), attention),
        Block::pre_norm(NormSpec::rms("post_attention_layernorm", eps), network),
    ]);
    let head = Head::new(head_weights(fields)?);
    Ok(sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("model.norm", eps), head))
}

pub(crate) fn glm4(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let (sizes, eps, attention, network) = read(fields, fields.flag_or("rope_traditional", true)?)?;
    let layer = LayerSpec::Blocks(vec![
        Block::sandwich(
            NormSpec::rms("input_layernorm", eps),
            attention,
            NormSpec::rms("post_self_attn_layernorm", eps),
        ),
        Block::sandwich(
            NormSpec::rms("post_attention_layernorm", eps),
            network,
            NormSpec::rms("post_mlp_layernorm", eps),
        ),
    ]);
    let head = Head::new(HeadWeights::Separate);
    Ok(sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("model.norm", eps), head))
}

/// What both have: sizes, epsilon, attention and feed-forward network.
fn read(fields: Fields<'_>, traditional: bool) -> Result<(Sizes, f32, Part, Part)> {
    let sizes = Sizes::read(fields, 32_768)?;
    let dims = rope::partial(sizes.head_dim, rope::share(fields, 0.5)?);
    let attention = Attention {
        qkv_bias: fields.flag_or("attention_bias", false)?,
        rope: Some(rope::read(fields, &RopeDefaults { dims, theta: Some(10_000.0), traditional })?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let gate = Gate::Of(activation(fields, "hidden_act", Activation::Silu)?);
    let network = Dense {
        form: DenseForm::Fused { name: "mlp.gate_up_proj", gate, rows: FusedRows::GateFirst },
        ..Dense::gated(sizes.intermediate_size, Activation::Silu)
    };
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    Ok((sizes, eps, Part::Attention(attention), Part::Dense(network)))
}
