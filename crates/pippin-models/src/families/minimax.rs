//! MiniMax M2: llama with heads that rotate in part, norms over all queries and all keys, and a mixture of experts in every
//! layer, chosen by corrected sigmoid scores.

use pippin_tensor::{RouterSpec, ScoreFunction};

use super::common::{Sizes, expert_count, head_weights, pre_norm_layer};
use super::mixtral::block_sparse;
use crate::config::Fields;
use crate::parts::{Attention, Experts, HeadNorms, NormSpec, Part};
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head};
use crate::{Config, Result};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    attention_everywhere(fields)?;
    let sizes = Sizes::read(fields, 196_608)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let norm = match fields.flag_or("use_qk_norm", true)? {
        true => |path, eps| Some(NormSpec::rms(path, eps)),
        false => |_, _| None,
    };
    let dims = match fields.count("rotary_dim")? {
        Some(dims) => dims,
        None => rope::partial(sizes.head_dim, rope::share(fields, 1.0)?),
    };
    let attention = Attention {
        query_norm: norm("self_attn.q_norm", eps),
        key_norm: norm("self_attn.k_norm", eps),
        norms: HeadNorms::Spanning,
        rope: Some(rope::read(fields, &RopeDefaults { dims, theta: None, traditional: false })?),
        ..sizes.attention()
    };
    let count = expert_count(fields)?;
    let choice = RouterSpec {
        scores: match fields.text("scoring_func")?.unwrap_or("sigmoid") {
            "sigmoid" => ScoreFunction::Sigmoid,
            other => return Err(fields.unsupported("scoring_func", other, &["sigmoid"])),
        },
        normalize: true,
        ..RouterSpec::softmax(count, fields.limited_count("num_experts_per_tok", count)?)
    };
    let experts = Experts {
        correction: Some("block_sparse_moe.e_score_correction_bias"),
        ..block_sparse(choice, sizes.intermediate_size)
    };
    let layer = pre_norm_layer(eps, Part::Attention(attention), Part::Experts(experts));
    let head = Head::new(head_weights(fields)?);
    Ok(sizes.decoder(vec![layer; sizes.layers], NormSpec::rms("model.norm", eps), head))
}

/// An older model of the same `model_type` has linear attention in most layers.
fn attention_everywhere(fields: Fields<'_>) -> Result<()> {
    if let Some(types) = fields.indices("attn_type_list")?
        && types.contains(&0)
    {
        return Err(fields.error("attn_type_list", "is not supported where it is 0: linear attention"));
    }
    let types = fields.texts("layer_types")?.unwrap_or_default();
    match types.into_iter().find(|found| *found != "full_attention") {
        Some(other) => Err(fields.unsupported("layer_types", other, &["full_attention"])),
        None => Ok(()),
    }
}
