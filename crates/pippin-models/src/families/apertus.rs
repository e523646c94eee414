//! Apertus: llama with norms of heads and a feed-forward network without a gate, whose activation is learned (xIELU).

use super::common::{Sizes, head_weights};
use crate::parts::{Attention, Dense, DenseForm, NormSpec, Part};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, LayerSpec};
use crate::{Config, Result};

/// The numbers of the activation.
const ACTIVATION: [&str; 3] = ["mlp.act_fn.alpha_p", "mlp.act_fn.alpha_n", "mlp.act_fn.beta"];

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 65_536)?;
    if fields.flag_or("post_norm", false)? {
        return Err(fields.unsupported("post_norm", "true", &["false"]));
    }
    if let Some(other) = fields.text("hidden_act")?
        && other != "xielu"
    {
        return Err(fields.unsupported("hidden_act", other, &["xielu"]));
    }
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let rope = RopeDefaults {
        dims: sizes.head_dim,
        theta: Some(12_000_000.0),
        traditional: fields.flag_or("rope_traditional", false)?,
    };
    let bias = fields.flag_or("attention_bias", false)?;
    let head_norm = |path| NormSpec::rms(path, eps);
    let normed = fields.flag_or("qk_norm", true)?;
    let attention = Attention {
        qkv_bias: bias,
        output_bias: bias,
        query_norm: normed.then(|| head_norm("self_attn.q_norm")),
        key_norm: normed.then(|| head_norm("self_attn.k_norm")),
        rope: Some(rope::read(fields, &rope)?),
        ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
    };
    let network = Dense {
        form: DenseForm::Xielu { name: "mlp.up_proj", parameters: ACTIVATION },
        down: "mlp.down_proj",
        intermediate_size: sizes.intermediate_size,
        bias: fields.flag_or("mlp_bias", false)?,
    };
    let layer = LayerSpec::Blocks(vec![
        Block::pre_norm(NormSpec::rms("attention_layernorm", eps), Part::Attention(attention)),
        Block::pre_norm(NormSpec::rms("feedforward_layernorm", eps), Part::Dense(network)),
    ]);
    let head = Head::new(head_weights(fields)?);
    Ok(sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("model.norm", eps), head))
}

/// The activation's numbers have one dimension, or none.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    let is_number = |name: &&str| ACTIVATION.iter().any(|number| name.ends_with(number));
    let names: Vec<String> = tensors.names().filter(is_number).map(str::to_owned).collect();
    for name in names {
        if let Some(tensor) = tensors.get(&name).filter(|tensor| tensor.shape().is_empty()) {
            let tensor = tensor.reshape(&[1])?;
            tensors.insert(name, tensor);
        }
    }
    Ok(())
}
