//! nanochat: norms without weights, also of heads and of the embeddings, positions that turn the other way round, squares of
//! rectified sums, and a soft cap of the logits.

use pippin_tensor::Activation;

use super::common::{Sizes, head_weights};
use crate::parts::{Attention, Dense, DenseForm, NormSpec, Part, Projections};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let default = Sizes {
        hidden_size: 1280,
        layers: 20,
        heads: 10,
        kv_heads: 10,
        head_dim: 128,
        intermediate_size: 5120,
        vocab_size: 65_536,
        context_length: 2048,
    };
    let mut sizes = Sizes::read_or(fields, &default)?;
    sizes.head_dim = fields.count_or("head_dim", sizes.hidden_size / sizes.heads, limits::HEAD_DIM)?;
    sizes.kv_heads = fields.count_or("num_key_value_heads", sizes.heads, limits::HEADS)?;
    let norm = NormSpec::bare(fields.positive_or("rms_norm_eps", 1e-5)?);
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: Some(10_000.0), traditional: false };
    let bias = fields.flag_or("attention_bias", false)?;
    let attention = Attention {
        projections: Projections::Separate(["attn.c_q", "attn.c_k", "attn.c_v"]),
        qkv_bias: bias,
        output: "attn.c_proj",
        output_bias: bias,
        query_norm: Some(norm),
        key_norm: Some(norm),
        norms_follow_rope: true,
        rope: Some(rope::reversed(&*rope::read(fields, &defaults)?)?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let network = Dense {
        form: DenseForm::Plain { name: "mlp.c_fc", activation: Activation::ReluSquared },
        down: "mlp.c_proj",
        intermediate_size: sizes.intermediate_size,
        bias: false,
    };
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(norm, Part::Attention(attention)),
        Block::pre_norm(norm, Part::Dense(network)),
    ]);
    let softcap = match fields.value("final_logit_softcapping") {
        // Absent is the default, null is none.
        Some(value) if value.is_null() => None,
        _ => Some(fields.positive_or("final_logit_softcapping", 15.0)?),
    };
    let weights = match head_weights(fields)? {
        HeadWeights::Tied => HeadWeights::Tied,
        _ => HeadWeights::Separate,
    };
    Ok(DecoderSpec {
        names: ModelNames {
            embedding: "transformer.wte".to_owned(),
            layers: "transformer.h".to_owned(),
            head: "lm_head".to_owned(),
        },
        embedding_norm: Some(norm),
        ..sizes.decoder(vec![layer; sizes.layers], norm, Head { softcap, ..Head::new(weights) })
    })
}

/// transformers has other names for everything.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.replace_prefix("model.embed_tokens.", "transformer.wte.");
    tensors.replace_prefix("model.layers.", "transformer.h.");
    let names = [("q_proj", "c_q"), ("k_proj", "c_k"), ("v_proj", "c_v"), ("o_proj", "c_proj")];
    for (from, to) in names {
        tensors.replace(&format!("self_attn.{from}"), &format!("attn.{to}"));
    }
    tensors.replace("mlp.fc1", "mlp.c_fc");
    tensors.replace("mlp.fc2", "mlp.c_proj");
    Ok(())
}
