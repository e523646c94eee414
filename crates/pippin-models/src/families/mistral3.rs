//! Mistral's models with eyes, and Llava: the text model, which is one of several families, under its own prefix.

use super::{ministral3, mistral};
use crate::config::Fields;
use crate::parts::NormSpec;
use crate::published::Tensors;
use crate::spec::{DecoderSpec, HeadWeights, ModelNames};
use crate::{Config, Result};

/// Mistral Small 3 and Ministral 3.
pub(crate) fn mistral3(config: &Config) -> Result<DecoderSpec> {
    let fields = text(config)?;
    let spec = match fields.text("model_type")? {
        Some("ministral3") => ministral3::text(fields)?,
        Some("mistral" | "llama") | None => classic(fields)?,
        Some(other) => {
            return Err(fields.unsupported("model_type", other, &["llama", "ministral3", "mistral"]));
        }
    };
    Ok(prefixed(spec))
}

/// Pixtral, whose head is never the embedding matrix.
pub(crate) fn pixtral(config: &Config) -> Result<DecoderSpec> {
    let mut spec = classic(text(config)?)?;
    spec.head.weights = HeadWeights::Separate;
    Ok(prefixed(spec))
}

/// Where newer versions of transformers put the text model, and its head.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.replace_prefix("model.language_model.", "language_model.model.");
    tensors.replace_prefix("lm_head.", "language_model.lm_head.");
    Ok(())
}

fn text(config: &Config) -> Result<Fields<'_>> {
    let fields = config.fields();
    fields.object("text_config.")?.ok_or_else(|| fields.missing("text_config", "an object"))
}

/// A text model of Mistral's or Llama's architecture; published configurations leave out what is as transformers has it.
fn classic(fields: Fields<'_>) -> Result<DecoderSpec> {
    let mut standard = mistral::standard(fields)?;
    standard.default_heads = Some(32);
    standard.spec(fields)
}

fn prefixed(spec: DecoderSpec) -> DecoderSpec {
    let final_norm = NormSpec { path: "language_model.model.norm", ..spec.final_norm };
    DecoderSpec { names: ModelNames::under("language_model."), final_norm, ..spec }
}
