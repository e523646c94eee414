//! PLaMo 13B: attention and network side by side behind one norm, and few key heads, which query heads take by turns.

use pippin_tensor::Activation;

use super::common::Sizes;
use crate::parts::{Attention, Dense, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 2048)?;
    let shared = fields.count_or("n_shared_head", 8, limits::HEADS)?;
    if !sizes.heads.is_multiple_of(shared) {
        let problem = format_args!("is {shared}, which does not divide the {} attention heads", sizes.heads);
        return Err(fields.error("n_shared_head", problem));
    }
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let defaults = RopeDefaults {
        dims: sizes.head_dim,
        theta: Some(10_000.0),
        traditional: fields.flag_or("rope_traditional", false)?,
    };
    let attention = Attention {
        takes_turns: true,
        rope: Some(rope::read(fields, &defaults)?),
        ..Attention::new(sizes.heads, sizes.heads / shared, sizes.head_dim)
    };
    let network = Dense::gated(sizes.intermediate_size, Activation::Silu);
    let parts = [Part::Attention(attention), Part::Dense(network)];
    let layer = LayerSpec::Blocks(vec![Block::parallel(NormSpec::rms("norm", eps), parts)]);
    let names = ModelNames { layers: "model.layers.layers".into(), ..ModelNames::default() };
    let head = Head::new(HeadWeights::Separate);
    Ok(DecoderSpec {
        names,
        ..sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("model.norm", eps), head)
    })
}
