//! GPT-2, StarCoder 1 and SantaCoder (`gpt_bigcode`), and GPT-J: layer norms and a network without a gate. The former two have
//! learned positions, and StarCoder one key head for all; in GPT-J heads rotate in part, and attention and network stand side
//! by side.
//!
//! Where `gpt_bigcode` has a key head for each query head, their projections are interleaved, as the models were published;
//! mlx-lm takes them for those of GPT-2. It also has the exact GELU there, whatever the configuration says.

use pippin_tensor::Activation;

use super::common::{Sizes, activation};
use crate::config::Fields;
use crate::parts::{Attention, Dense, DenseForm, NormSpec, Part, Projections};
use crate::published::Tensors;
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits, rope};

pub(crate) fn gpt2(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    for field in ["scale_attn_by_inverse_layer_idx", "add_cross_attention"] {
        if fields.flag_or(field, false)? {
            return Err(fields.unsupported(field, "true", &["false"]));
        }
    }
    let sizes = sizes(fields)?;
    let attention = Attention {
        projections: Projections::Fused("attn.c_attn"),
        qkv_bias: true,
        output_bias: true,
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    with_positions(fields, sizes, attention, true, ["model", "model.wpe", "model.ln_f"])
}

pub(crate) fn gpt_bigcode(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let multi_query = fields.flag_or("multi_query", true)?;
    let sizes = sizes(fields)?;
    let sizes = Sizes { kv_heads: if multi_query { 1 } else { sizes.heads }, ..sizes };
    let bias = fields.flag_or("attention_bias", true)?;
    let attention = Attention {
        projections: match multi_query {
            true => Projections::Fused("attn.c_attn"),
            false => Projections::Interleaved("attn.c_attn"),
        },
        qkv_bias: bias,
        output_bias: bias,
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let names = ["transformer", "transformer.wpe", "transformer.ln_f"];
    with_positions(fields, sizes, attention, fields.flag_or("mlp_bias", true)?, names)
}

pub(crate) fn gptj(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let hidden_size = fields.count_or("n_embd", 4096, limits::HIDDEN)?;
    let heads = fields.count_or("n_head", 16, limits::HEADS)?;
    let sizes = Sizes {
        hidden_size,
        layers: fields.count_or("n_layer", 28, limits::LAYERS)?,
        heads,
        kv_heads: heads,
        head_dim: hidden_size / heads,
        intermediate_size: fields.count_or("n_inner", 4 * hidden_size, limits::INTERMEDIATE)?,
        vocab_size: fields.count_or("vocab_size", 50_400, limits::VOCAB)?,
        context_length: fields.count_or("n_positions", 2048, limits::CONTEXT)?,
    };
    let eps = fields.positive_or("layer_norm_epsilon", 1e-5)?;
    // Null is for whole heads.
    let rotated = match fields.value("rotary_dim") {
        None => 64,
        Some(_) => fields.count_or("rotary_dim", sizes.head_dim, limits::HEAD_DIM)?,
    };
    let attention = Attention {
        projections: Projections::Separate(["attn.q_proj", "attn.k_proj", "attn.v_proj"]),
        output: "attn.out_proj",
        rope: Some(rope::plain(10_000.0, rotated, true)),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let activation = activation(fields, "activation_function", Activation::GeluTanh)?;
    let network = Dense {
        form: DenseForm::Plain { name: "mlp.fc_in", activation },
        down: "mlp.fc_out",
        intermediate_size: sizes.intermediate_size,
        bias: true,
    };
    let parts = [Part::Attention(attention), Part::Dense(network)];
    let layer = LayerSpec::Blocks(vec![Block::parallel(NormSpec::layer("ln_1", eps, true), parts)]);
    let head = Head { bias: true, ..Head::new(HeadWeights::Separate) };
    let norm = NormSpec::layer("model.ln_f", eps, true);
    Ok(DecoderSpec {
        names: ModelNames::gpt("model"),
        ..sizes.decoder(vec![layer; sizes.layers], norm, head)
    })
}

/// GPT-2 was published without the name of the model, and with matrices that rows are multiplied with as they stand.
pub(crate) fn published_gpt2(_: &Config, tensors: &mut Tensors) -> Result<()> {
    if tensors.names().any(|name| name.starts_with("model.")) {
        return Ok(());
    }
    for matrix in ["attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"] {
        tensors.transpose(matrix)?;
    }
    tensors.replace_prefix("transformer.", "");
    tensors.rename(|name| (name != "lm_head.weight").then(|| format!("model.{name}")));
    Ok(())
}

pub(crate) fn published_gptj(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.replace_prefix("transformer.", "model.");
    Ok(())
}

fn sizes(fields: Fields<'_>) -> Result<Sizes> {
    let hidden_size = fields.limited_count("n_embd", limits::HIDDEN)?;
    let heads = fields.limited_count("n_head", limits::HEADS)?;
    Ok(Sizes {
        hidden_size,
        layers: fields.limited_count("n_layer", limits::LAYERS)?,
        heads,
        kv_heads: heads,
        head_dim: hidden_size / heads,
        intermediate_size: fields.count_or("n_inner", 4 * hidden_size, limits::INTERMEDIATE)?,
        vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
        context_length: fields.limited_count("n_positions", limits::CONTEXT)?,
    })
}

/// A model with learned positions; `names` are those of the model, of the positions and of the last norm.
fn with_positions(
    fields: Fields<'_>,
    sizes: Sizes,
    attention: Attention,
    network_bias: bool,
    [model, positions, norm]: [&'static str; 3],
) -> Result<DecoderSpec> {
    let eps = fields.required_positive("layer_norm_epsilon")? as f32;
    let activation = activation(fields, "activation_function", Activation::GeluTanh)?;
    let network = Dense {
        form: DenseForm::Plain { name: "mlp.c_fc", activation },
        down: "mlp.c_proj",
        intermediate_size: sizes.intermediate_size,
        bias: network_bias,
    };
    let attention = Part::Attention(Attention { output: "attn.c_proj", ..attention });
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(NormSpec::layer("ln_1", eps, true), attention),
        Block::pre_norm(NormSpec::layer("ln_2", eps, true), Part::Dense(network)),
    ]);
    let head = Head::new(match fields.flag_or("tie_word_embeddings", true)? {
        true => HeadWeights::Tied,
        false => HeadWeights::Separate,
    });
    Ok(DecoderSpec {
        names: ModelNames::gpt(model),
        position_embedding: Some(positions),
        ..sizes.decoder(vec![layer; sizes.layers], NormSpec::layer(norm, eps, true), head)
    })
}
