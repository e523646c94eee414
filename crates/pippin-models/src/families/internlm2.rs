//! InternLM 2 and 2.5: llama with fused projections, in groups of the query heads that share a key head.

use pippin_tensor::{Activation, Gate};

use super::common::{Sizes, activation, head_weights};
use crate::parts::{Attention, Dense, DenseForm, NormSpec, Part, Projections};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, LayerSpec, ModelNames};
use crate::{Config, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 32_768)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let bias = fields.flag_or("bias", true)?;
    let defaults = RopeDefaults {
        dims: sizes.head_dim,
        theta: Some(10_000.0),
        traditional: fields.flag_or("rope_traditional", false)?,
    };
    let attention = Attention {
        projections: Projections::Interleaved("attention.wqkv"),
        qkv_bias: bias,
        output: "attention.wo",
        output_bias: bias,
        rope: Some(rope::read(fields, &defaults)?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let gate = Gate::Of(activation(fields, "hidden_act", Activation::Silu)?);
    let network = Dense {
        form: DenseForm::Gated { names: ["feed_forward.w1", "feed_forward.w3"], gate },
        down: "feed_forward.w2",
        intermediate_size: sizes.intermediate_size,
        bias: false,
    };
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(NormSpec::rms("attention_norm", eps), Part::Attention(attention)),
        Block::pre_norm(NormSpec::rms("ffn_norm", eps), Part::Dense(network)),
    ]);
    let names = ModelNames {
        embedding: "model.tok_embeddings".into(),
        head: "output".into(),
        ..ModelNames::default()
    };
    let head = Head::new(head_weights(fields)?);
    Ok(DecoderSpec {
        names,
        ..sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("model.norm", eps), head)
    })
}
