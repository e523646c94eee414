//! GPT-NeoX (Pythia, Dolly, StableLM alpha): layer norms, biases, queries, keys and values fused head by head; attention and
//! feed-forward network side by side, each behind a norm of its own, or one after the other.

use pippin_tensor::Activation;

use super::common::{Sizes, activation};
use crate::parts::{Attention, Dense, DenseForm, NormSpec, Part, Projections};
use crate::published::Tensors;
use crate::spec::{Block, Branch, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits, rope};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let hidden_size = fields.limited_count("hidden_size", limits::HIDDEN)?;
    let heads = fields.limited_count("num_attention_heads", limits::HEADS)?;
    let sizes = Sizes {
        hidden_size,
        layers: fields.limited_count("num_hidden_layers", limits::LAYERS)?,
        heads,
        kv_heads: heads,
        head_dim: hidden_size / heads,
        intermediate_size: fields.count_or("intermediate_size", 4 * hidden_size, limits::INTERMEDIATE)?,
        vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
        context_length: rope::context_length(fields, 2048)?,
    };
    let eps = fields.positive_or("layer_norm_eps", 1e-5)?;
    // Newer configurations have the two numbers under the names that they have elsewhere.
    let number = |old: &str, new: &str, default: f64| -> Result<f64> {
        Ok(rope::setting(fields, new)?.or(fields.positive(old)?).unwrap_or(default))
    };
    let theta = number("rotary_emb_base", "rope_theta", 10_000.0)?;
    let share = number("rotary_pct", "partial_rotary_factor", 0.25)?;
    let attention = Attention {
        projections: Projections::Interleaved("attention.query_key_value"),
        qkv_bias: true,
        output: "attention.dense",
        output_bias: true,
        rope: Some(rope::plain(theta, rope::partial(sizes.head_dim, share), false)),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let activation = activation(fields, "hidden_act", Activation::Gelu)?;
    let network = Dense {
        form: DenseForm::Plain { name: "mlp.dense_h_to_4h", activation },
        down: "mlp.dense_4h_to_h",
        intermediate_size: sizes.intermediate_size,
        bias: true,
    };
    let branches = [
        Branch::new(NormSpec::layer("input_layernorm", eps, true), Part::Attention(attention)),
        Branch::new(NormSpec::layer("post_attention_layernorm", eps, true), Part::Dense(network)),
    ];
    let layer = LayerSpec::Blocks(match fields.flag_or("use_parallel_residual", true)? {
        true => vec![Block::new(branches.into())],
        false => branches.into_iter().map(|branch| Block::new(vec![branch])).collect(),
    });
    let norm = NormSpec::layer("model.final_layer_norm", eps, true);
    let names = ModelNames {
        embedding: "model.embed_in".into(),
        layers: "model.h".into(),
        head: "model.embed_out".into(),
    };
    let head = Head::new(HeadWeights::Separate);
    Ok(DecoderSpec { names, ..sizes.decoder(vec![layer; sizes.layers], norm, head) })
}

/// Published under the name of the model, but for the matrix of the output, which has none.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.replace_prefix("gpt_neox.layers.", "model.h.");
    tensors.replace_prefix("gpt_neox.", "model.");
    tensors.replace_prefix("embed_out.", "model.embed_out.");
    Ok(())
}
