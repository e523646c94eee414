//! MiniCPM 3: latent attention, and factors on embeddings, on what each block adds, and on logits.

use pippin_tensor::Activation;

use super::common::{Sizes, head_weights};
use crate::parts::{Dense, Latent, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, EmbeddingScale, Head, LayerSpec};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 32_768)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let [key_dim, rope_dim] = [
        fields.limited_count("qk_nope_head_dim", limits::HEAD_DIM)?,
        fields.limited_count("qk_rope_head_dim", limits::HEAD_DIM)?,
    ];
    // mlx-lm has the head's share of the width always, which is what the field says where it is.
    let value_dim = fields.count_or("v_head_dim", sizes.hidden_size / sizes.heads, limits::HEAD_DIM)?;
    let defaults = RopeDefaults { dims: rope_dim, theta: Some(1_000_000.0), traditional: false };
    let rank = fields.limited_count("kv_lora_rank", limits::HIDDEN)?;
    let dims = [key_dim, rope_dim, value_dim];
    let attention = Latent {
        query_rank: Some(fields.limited_count("q_lora_rank", limits::HIDDEN)?),
        bias: fields.flag_or("attention_bias", false)?,
        joined: true,
        ..Latent::new(sizes.heads, rank, dims, rope::read(fields, &defaults)?)
    };
    let network = Dense::gated(sizes.intermediate_size, Activation::Silu);
    let scale = (fields.required_positive("scale_depth")? / (sizes.layers as f64).sqrt()) as f32;
    let block = |norm, part| Block { scale, ..Block::pre_norm(NormSpec::rms(norm, eps), part) };
    let layer = LayerSpec::Blocks(vec![
        block("input_layernorm", Part::Latent(attention)),
        block("post_attention_layernorm", Part::Dense(network)),
    ]);
    let base = fields.required_positive("dim_model_base")?;
    let head = Head { scale: (base / sizes.hidden_size as f64) as f32, ..Head::new(head_weights(fields)?) };
    let factor = fields.required_positive("scale_emb")? as f32;
    Ok(DecoderSpec {
        embedding_scale: EmbeddingScale { factor, as_stored: false },
        ..sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("model.norm", eps), head)
    })
}
