//! RecurrentGemma (Griffin): recurrent units and local attention by turns, and Gemma's norms of one plus the weight and
//! embeddings times the root of their width, rounded to bf16.
//!
//! mlx-lm has some fields' usual values in their place (`conv1d_width`, `lru_width`, `rope_theta`, `partial_rotary_factor`,
//! the epsilon of the layers' norms); here they are read, as the models' own reference does.

use pippin_tensor::{Activation, Gate, Reach};

use super::common::{Sizes, activation, head_weights};
use crate::config::Fields;
use crate::parts::{Attention, Dense, DenseForm, NormSpec, Part, Projections, RgLru};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, EmbeddingScale, Head, LayerSpec};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes {
        kv_heads: fields.count_or("num_key_value_heads", 1, limits::HEADS)?,
        ..Sizes::read(fields, 8192)?
    };
    let eps = fields.positive_or("rms_norm_eps", 1e-6)?;
    let share = rope::share(fields, 0.5)?;
    let defaults = RopeDefaults {
        dims: rope::partial(sizes.head_dim, share),
        theta: Some(10_000.0),
        traditional: false,
    };
    let attention = Part::Attention(Attention {
        projections: Projections::Separate([
            "temporal_block.q_proj",
            "temporal_block.k_proj",
            "temporal_block.v_proj",
        ]),
        qkv_bias: fields.flag_or("attention_bias", false)?,
        output: "temporal_block.o_proj",
        output_bias: true,
        rope: Some(rope::read(fields, &defaults)?),
        reach: Reach::Window(fields.limited_count("attention_window_size", limits::CONTEXT)?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    });
    let unit = Part::RgLru(RgLru {
        path: "temporal_block",
        width: fields.count_or("lru_width", sizes.hidden_size, limits::HIDDEN)?,
        heads: sizes.heads,
        taps: fields.count_or("conv1d_width", 4, limits::TAPS)?,
    });
    if !sizes.intermediate_size.is_multiple_of(2) {
        let problem = format_args!("must be even, found {}", sizes.intermediate_size);
        return Err(fields.error("intermediate_size", problem));
    }
    let gate = Gate::Of(activation(fields, "hidden_activation", Activation::GeluTanh)?);
    let names = ["mlp_block.gate_proj", "mlp_block.up_proj"];
    let network = Dense {
        form: DenseForm::Gated { names, gate },
        down: "mlp_block.down_proj",
        intermediate_size: sizes.intermediate_size / 2,
        bias: true,
    };
    let layer = |is_attention: bool| {
        let mixer = if is_attention { attention.clone() } else { unit.clone() };
        LayerSpec::Blocks(vec![
            Block::pre_norm(NormSpec::plus_one("temporal_pre_norm", eps), mixer),
            Block::pre_norm(NormSpec::plus_one("channel_pre_norm", eps), Part::Dense(network.clone())),
        ])
    };
    let layers = block_types(fields)?.into_iter().cycle().take(sizes.layers).map(layer).collect();
    let scaled = fields.flag_or("embeddings_scale_by_sqrt_dim", true)?;
    let factor = half::bf16::from_f32((sizes.hidden_size as f32).sqrt()).to_f32();
    let head = Head { softcap: softcap(fields)?, ..Head::new(head_weights(fields)?) };
    Ok(DecoderSpec {
        embedding_scale: if scaled {
            EmbeddingScale { factor, as_stored: false }
        } else {
            EmbeddingScale::NONE
        },
        ..sizes.decoder(layers, NormSpec::plus_one("model.final_norm", eps), head)
    })
}

/// Which of a run of layers that is repeated over and over have attention.
fn block_types(fields: Fields<'_>) -> Result<Vec<bool>> {
    let field = if fields.get("block_types").is_some() { "block_types" } else { "_block_types" };
    let types = fields.texts(field)?.unwrap_or_default();
    if types.is_empty() {
        return Err(fields.missing("block_types", "a list of `recurrent` and `attention`"));
    }
    let is_attention = types.into_iter().map(|block_type| match block_type {
        "attention" => Ok(true),
        "recurrent" => Ok(false),
        other => Err(fields.unsupported(field, other, &["recurrent", "attention"])),
    });
    is_attention.collect()
}

/// The soft cap of the logits; zero is none.
fn softcap(fields: Fields<'_>) -> Result<Option<f32>> {
    match fields.finite("logits_soft_cap")? {
        None | Some(0.0) => Ok(None),
        Some(_) => Ok(Some(fields.positive_or("logits_soft_cap", 30.0)?)),
    }
}
