//! Phi 3 and 4: llama with fused projections, LongRoPE, and in some sizes a window in every layer or heads that rotate in
//! part.

use pippin_tensor::{Activation, Gate, Reach};

use super::common::{Sizes, activation, head_weights};
use crate::parts::{Attention, Dense, DenseForm, FusedRows, NormSpec, Part, Projections};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec};
use crate::{Config, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 131_072)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let share = rope::share(fields, 1.0)?;
    let defaults = RopeDefaults {
        dims: rope::partial(sizes.head_dim, share),
        theta: Some(10_000.0),
        traditional: fields.flag_or("rope_traditional", false)?,
    };
    let attention = Attention {
        projections: Projections::Fused("self_attn.qkv_proj"),
        rope: Some(rope::read(fields, &defaults)?),
        reach: fields.count("sliding_window")?.map_or(Reach::All, Reach::Window),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let gate = Gate::Of(activation(fields, "hidden_act", Activation::Silu)?);
    let network = Dense {
        form: DenseForm::Fused { name: "mlp.gate_up_proj", gate, rows: FusedRows::GateFirst },
        ..Dense::gated(sizes.intermediate_size, Activation::Silu)
    };
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(NormSpec::rms("input_layernorm", eps), Part::Attention(attention)),
        Block::pre_norm(NormSpec::rms("post_attention_layernorm", eps), Part::Dense(network)),
    ]);
    let head = match head_weights(fields)? {
        HeadWeights::IfPresent => HeadWeights::Separate,
        head => head,
    };
    Ok(sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("model.norm", eps), Head::new(head)))
}
