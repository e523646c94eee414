//! PLaMo 2: Mamba, whose controls are normed, with attention in a window in between, and norms around everything, whose
//! factors are a number plus the weight.
//!
//! Two things are as in the model's own code and not as in mlx-lm: attention has a window in layers that are not listed as
//! full ones, and time steps have no limits.

use super::common::{Sizes, window};
use super::plamo3;
use crate::config::Fields;
use crate::parts::{Attention, HeadNorms, NormSpec, Part, Projections, ScanForm, ScanNorms, SelectiveScan};
use crate::published::Tensors;
use crate::rope;
use crate::spec::{DecoderSpec, Head, HeadWeights};
use crate::{Config, Result, limits};

/// Epsilon of the norms of queries and keys.
const HEAD_EPS: f32 = 1e-6;

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let head_dim = fields.count_or("hidden_size_per_head", 128, limits::HEAD_DIM)?;
    let sizes = Sizes { head_dim, ..Sizes::read_or(fields, &plamo3::DEFAULTS)? };
    let eps = fields.positive_or("rms_norm_eps", 1e-6)?;
    let mamba = SelectiveScan {
        path: "mixer",
        form: ScanForm::Heads,
        heads: fields.count_or("mamba_num_heads", 64, limits::HEADS)?,
        head_dim,
        state_size: fields.count_or("mamba_d_state", 64, limits::HEAD_DIM)?,
        rank: (sizes.hidden_size / 16).max(64),
        taps: fields.count_or("mamba_d_conv", 4, limits::TAPS)?,
        bias: false,
        conv_bias: false,
        norms: ScanNorms::Weighted(["dt_norm_weight", "B_norm_weight", "C_norm_weight"], eps),
    };
    let rope = |theta| -> Result<_> {
        Ok(rope::plain(fields.positive(theta)?.unwrap_or(10_000.0), head_dim, false))
    };
    let (global, local) = (rope("rope_theta")?, rope("rope_local_theta")?);
    let length = fields.count_or("attention_window_size", 2048, limits::CONTEXT)?;
    let full = fields.indices("full_attention_idx")?.unwrap_or_default();
    let mixer = |(index, is_mamba): (usize, bool)| {
        let windowed = !full.contains(&index);
        let attention = Attention {
            projections: Projections::Fused("mixer.qkv_proj"),
            output: "mixer.o_proj",
            query_norm: Some(NormSpec::rms("mixer.q_norm", HEAD_EPS)),
            key_norm: Some(NormSpec::rms("mixer.k_norm", HEAD_EPS)),
            norms: HeadNorms::Own,
            rope: Some(if windowed { local.clone() } else { global.clone() }),
            reach: window(windowed, length),
            ..sizes.attention()
        };
        match is_mamba {
            true => Part::SelectiveScan(mamba.clone()),
            false => Part::Attention(attention),
        }
    };
    let mixers = mamba_layers(fields, sizes.layers)?.into_iter().enumerate().map(mixer);
    let tied = fields.flag_or("tie_word_embeddings", true)?;
    let head = Head::new(if tied { HeadWeights::Tied } else { HeadWeights::Separate });
    Ok(plamo3::decoder(&sizes, mixers, eps, head))
}

/// Which layers are Mamba: all but the middle one of each few.
fn mamba_layers(fields: Fields<'_>, layers: usize) -> Result<Vec<bool>> {
    if !fields.flag_or("mamba_enabled", true)? {
        return Ok(vec![false; layers]);
    }
    let step = fields.count_or("mamba_step", 2, limits::LAYERS)?;
    if step < 2 {
        return Err(fields.error("mamba_step", format_args!("must be at least 2, found {step}")));
    }
    // Few layers have their attention in the last.
    let attends = |layer: usize| match layers <= step / 2 {
        true => layer + 1 == layers,
        false => layer % step == step / 2,
    };
    Ok((0..layers).map(|layer| !attends(layer)).collect())
}

/// The weights of norms of heads have names without a module, and the norms after mixer and network, whose numbers are less
/// than one, get their factors.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    for name in ["q", "k"] {
        tensors.rename(|found| {
            let at = found.strip_suffix(&format!("mixer.{name}_weight"))?;
            Some(format!("{at}mixer.{name}_norm.weight"))
        });
    }
    plamo3::published(config, tensors)
}
