//! LG's EXAONE 3 (`exaone`): llama under GPT-2's names; and EXAONE 4 (`exaone4`): norms after attention and feed-forward
//! network, norms of queries and keys, and in the larger ones windows in three layers of four, the fourth without positions.

use pippin_tensor::{Activation, Gate, Reach};

use super::common::{Sizes, activation, head_weights, windowed_layers};
use crate::config::Fields;
use crate::parts::{Attention, Dense, DenseForm, NormSpec, Part, Projections};
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits};

pub(crate) fn exaone(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read_layers(fields, "num_layers", 2048)?;
    let eps = fields.required_positive("layer_norm_epsilon")? as f32;
    let attention_bias = fields.flag_or("attention_bias", false)?;
    let defaults = RopeDefaults {
        dims: sizes.head_dim,
        theta: None,
        traditional: fields.flag_or("rope_traditional", false)?,
    };
    let attention = Attention {
        projections: Projections::Separate([
            "attn.attention.q_proj",
            "attn.attention.k_proj",
            "attn.attention.v_proj",
        ]),
        qkv_bias: attention_bias,
        output: "attn.attention.out_proj",
        output_bias: attention_bias,
        rope: Some(rope::read(fields, &defaults)?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let gate = Gate::Of(activation(fields, "activation_function", Activation::Silu)?);
    let network = Dense {
        form: DenseForm::Gated { names: ["mlp.c_fc_0", "mlp.c_fc_1"], gate },
        down: "mlp.c_proj",
        intermediate_size: sizes.intermediate_size,
        bias: fields.flag_or("mlp_bias", false)?,
    };
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(NormSpec::rms("ln_1", eps), Part::Attention(attention)),
        Block::pre_norm(NormSpec::rms("ln_2", eps), Part::Dense(network)),
    ]);
    let head = match fields.flag_or("tie_word_embeddings", true)? {
        true => HeadWeights::Tied,
        false => HeadWeights::Separate,
    };
    let norm = NormSpec::rms("transformer.ln_f", eps);
    Ok(DecoderSpec {
        names: ModelNames::gpt("transformer"),
        ..sizes.decoder(vec![layer; sizes.layers], norm, Head::new(head))
    })
}

pub(crate) fn exaone4(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 2048)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: None, traditional: false };
    let attention = Attention {
        query_norm: Some(NormSpec::rms("self_attn.q_norm", eps)),
        key_norm: Some(NormSpec::rms("self_attn.k_norm", eps)),
        rope: Some(rope::read(fields, &defaults)?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let network = Dense::gated(sizes.intermediate_size, activation(fields, "hidden_act", Activation::Silu)?);
    let layer = |attention: Attention| {
        LayerSpec::Blocks(vec![
            Block::post_norm(Part::Attention(attention), NormSpec::rms("post_attention_layernorm", eps)),
            Block::post_norm(Part::Dense(network.clone()), NormSpec::rms("post_feedforward_layernorm", eps)),
        ])
    };
    let layers = match fields.count("sliding_window")? {
        // Where no layer has a window, all have positions.
        None => vec![layer(attention); sizes.layers],
        Some(length) => pattern(fields, sizes.layers)?
            .into_iter()
            .map(|windowed| match windowed {
                true => layer(Attention { reach: Reach::Window(length), ..attention.clone() }),
                false => layer(Attention { rope: None, ..attention.clone() }),
            })
            .collect(),
    };
    let head = Head::new(head_weights(fields)?);
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), head))
}

/// Which layers have a window: `layer_types` says so, or a pattern that is repeated: a text of `L` (local) and `G` (global), or
/// its length.
fn pattern(fields: Fields<'_>, layers: usize) -> Result<Vec<bool>> {
    const FIELD: &str = "sliding_window_pattern";
    if let Some(text) = fields.get(FIELD).and_then(serde_json::Value::as_str) {
        let local = text.chars().map(|letter| match letter {
            'L' => Ok(true),
            'G' => Ok(false),
            _ => Err(fields.unsupported(FIELD, text, &["letters L and G"])),
        });
        let local: Vec<bool> = local.collect::<Result<_>>()?;
        return windowed_layers(fields, layers, |layer| local.get(layer % local.len().max(1)) == Some(&true));
    }
    let length = fields.count_or(FIELD, 4, limits::LAYERS)?;
    windowed_layers(fields, layers, |layer| layer % length != length - 1)
}
