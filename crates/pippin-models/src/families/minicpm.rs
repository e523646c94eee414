//! MiniCPM 1, 2 and 4: llama with factors on embeddings, on what each block adds (less, the more layers there are), and on
//! what the output head is given (less, the wider the model is).
//!
//! Where the configuration has no `rope_theta`, as the first ones, it is the models' own 10,000, not mlx-lm's million; and a
//! head that is the embedding matrix has its factor, too.

use super::standard::Standard;
use crate::spec::{DecoderSpec, EmbeddingScale, Head};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let layers = fields.limited_count("num_hidden_layers", limits::LAYERS)?;
    let spec = Standard {
        residual_scale: fields.required_positive("scale_depth")? as f32 / (layers as f32).sqrt(),
        kv_heads_optional: true,
        rope_traditional: fields.flag_or("rope_traditional", false)?,
        ..Standard::default()
    }
    .spec(config.fields())?;
    let base = fields.limited_count("dim_model_base", limits::HIDDEN)?;
    let factor = fields.required_positive("scale_emb")? as f32;
    Ok(DecoderSpec {
        embedding_scale: EmbeddingScale { factor, as_stored: false },
        head: Head { scale: base as f32 / spec.hidden_size as f32, ..spec.head },
        ..spec
    })
}
