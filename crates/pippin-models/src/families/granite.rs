//! IBM's Granite 3 and 4, dense: llama with a factor on embeddings, on scores, on what each block adds, and on logits.

use super::standard::Standard;
use crate::spec::{DecoderSpec, EmbeddingScale, Head};
use crate::{Config, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let factor = |field: &str| fields.required_positive(field).map(|factor| factor as f32);
    let spec = Standard {
        attention_scale: Some(factor("attention_multiplier")?),
        residual_scale: factor("residual_multiplier")?,
        default_rope_theta: None,
        rope_traditional: false,
        ..Standard::llama(config.fields())?
    }
    .spec(config.fields())?;
    Ok(DecoderSpec {
        embedding_scale: EmbeddingScale { factor: factor("embedding_multiplier")?, as_stored: false },
        head: Head { scale: 1.0 / factor("logits_scaling")?, ..spec.head },
        ..spec
    })
}
