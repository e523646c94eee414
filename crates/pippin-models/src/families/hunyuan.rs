//! Tencent's Hunyuan Large: norms of heads behind the rotation, mixtures beside a network that every token goes through, and
//! layers that take the projections of keys and values from one before them.

use std::ops::Range;

use pippin_tensor::{Activation, RouterSpec};

use super::common::{Sizes, pre_norm_layer, stack_experts};
use crate::config::Fields;
use crate::parts::{Attention, Dense, Experts, NormSpec, Part, Projected, SharedExpert};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head, HeadWeights};
use crate::{Config, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 131_072)?;
    let eps = fields.required_positive("rms_norm_eps")? as f32;
    let bias = fields.flag_or("attention_bias", false)?;
    let norm = match fields.flag_or("use_qk_norm", false)? {
        true => |path, eps| Some(NormSpec::rms(path, eps)),
        false => |_, _| None,
    };
    let defaults = RopeDefaults { dims: sizes.head_dim, theta: Some(10_000.0), traditional: false };
    let rope = rope::read(fields, &defaults)?;
    let sharing = match fields.flag_or("use_cla", false)? {
        true => fields.count_or("cla_share_factor", 2, limits::LAYERS)?,
        false => 1,
    };
    let attention = |index: usize| Attention {
        qkv_bias: bias,
        output_bias: bias,
        query_norm: norm("self_attn.query_layernorm", eps),
        key_norm: norm("self_attn.key_layernorm", eps),
        norms_follow_rope: true,
        rope: Some(rope.clone()),
        projected: match index % sharing {
            _ if sharing == 1 => Projected::Own,
            0 => Projected::PassedOn,
            _ => Projected::Taken,
        },
        ..sizes.attention()
    };
    let networks = networks(fields, &sizes)?;
    let layer = |(index, network)| pre_norm_layer(eps, Part::Attention(attention(index)), network);
    let layers = networks.into_iter().enumerate().map(layer).collect();
    Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(HeadWeights::Tied)))
}

/// Widths of each layer's experts, and of the network beside them, if there is one.
fn widths(fields: Fields<'_>, sizes: &Sizes) -> Result<Vec<(usize, Option<usize>)>> {
    let experts = match fields.get("moe_intermediate_size") {
        Some(_) => fields.counts("moe_intermediate_size", sizes.layers)?,
        None => vec![sizes.intermediate_size; sizes.layers],
    };
    let shared = match fields.flag_or("use_mixed_mlp_moe", false)? {
        true => {
            let counts = fields.counts("num_shared_expert", sizes.layers)?;
            counts.into_iter().map(|count| Some(sizes.intermediate_size.saturating_mul(count))).collect()
        }
        false => vec![None; sizes.layers],
    };
    Ok(experts.into_iter().zip(shared).collect())
}

fn networks(fields: Fields<'_>, sizes: &Sizes) -> Result<Vec<Part>> {
    let count = fields.limited_count("num_experts", limits::EXPERTS)?;
    if count == 1 {
        let dense = Dense::gated(sizes.intermediate_size, Activation::Silu);
        return Ok(vec![Part::Dense(dense); sizes.layers]);
    }
    let chosen = fields.counts("moe_topk", sizes.layers)?;
    let normalize = fields.flag_or("norm_topk_prob", false)?;
    let names = ["mlp.shared_mlp.gate_proj", "mlp.shared_mlp.up_proj", "mlp.shared_mlp.down_proj"];
    let network = |((width, shared), top_k): ((usize, Option<usize>), usize)| {
        let shared = shared.map(|width| {
            let network = Dense::gated_as(names, width, Activation::Silu);
            SharedExpert { network, gate: None }
        });
        Part::Experts(Experts {
            router: "mlp.gate.wg",
            shared,
            ..Experts::new(RouterSpec { normalize, ..RouterSpec::softmax(count, top_k) }, width)
        })
    };
    Ok(widths(fields, sizes)?.into_iter().zip(chosen).map(network).collect())
}

/// A published checkpoint has experts one by one; some have queries, keys and values in one matrix, those of each head of keys
/// together, and gates behind what they are applied to.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    let fields = config.fields();
    let sizes = Sizes::read(fields, 131_072)?;
    let (group, dim) = (sizes.heads / sizes.kv_heads, sizes.head_dim);
    let rows = |first: usize, count: usize| -> Vec<Range<usize>> {
        let start = |head: usize| (head * (group + 2) + first) * dim;
        (0..sizes.kv_heads).map(|head| start(head)..start(head) + count * dim).collect()
    };
    let parts = [("q_proj", rows(0, group)), ("k_proj", rows(group, 1)), ("v_proj", rows(group + 1, 1))];
    tensors.split_rows("qkv_proj", &parts)?;
    let widths = widths(fields, &sizes)?;
    let mut widths: Vec<usize> =
        widths.into_iter().flat_map(|(experts, shared)| [Some(experts), shared]).flatten().collect();
    widths.push(sizes.intermediate_size);
    widths.sort_unstable();
    widths.dedup();
    for width in widths {
        tensors.split("gate_and_up_proj", &[("up_proj", width), ("gate_proj", width)])?;
    }
    stack_experts(tensors, "mlp.experts")
}
