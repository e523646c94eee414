//! PLaMo 3: seven layers of eight with a window and rotations of their own, and norms around everything, whose factors are a
//! number plus the weight.

use pippin_tensor::{Activation, Gate};

use super::common::{Sizes, head_weights, window, windowed_layers};
use crate::parts::{Attention, Dense, DenseForm, FusedRows, NormSpec, Part, Projections};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{Block, DecoderSpec, Head, LayerSpec, ModelNames};
use crate::{Config, Result, limits};

/// What the configuration may leave out.
pub(super) const DEFAULTS: Sizes = Sizes {
    hidden_size: 4096,
    layers: 32,
    heads: 32,
    kv_heads: 4,
    head_dim: 128,
    intermediate_size: 13_312,
    vocab_size: 32_000,
    context_length: 2048,
};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let sizes = Sizes::read_or(fields, &DEFAULTS)?;
    let eps = fields.positive_or("rms_norm_eps", 1e-6)?;
    let length = fields.count_or("window_size", 2048, limits::CONTEXT)?;
    let length = fields.count_or("sliding_window", length, limits::CONTEXT)?;
    let pattern = fields.count_or("sliding_window_pattern", 8, limits::LAYERS)?;
    let windows = windowed_layers(fields, sizes.layers, |layer| (layer + 1) % pattern != 0)?;
    let defaults = |theta| RopeDefaults { dims: sizes.head_dim, theta: Some(theta), traditional: false };
    let global = match rope::of_layers(fields, "full_attention")? {
        Some(own) => rope::read_of_layers(fields, own, &defaults(1_000_000.0))?,
        None => rope::read(fields, &defaults(1_000_000.0))?,
    };
    let local = fields.positive("rope_local_theta")?.unwrap_or(10_000.0);
    let local = match rope::of_layers(fields, "sliding_attention")? {
        Some(own) => rope::read_of_layers(fields, own, &defaults(local))?,
        None => rope::plain(local, sizes.head_dim, false),
    };
    let mixer = |windowed: bool| {
        let attention = Attention {
            projections: Projections::Fused("mixer.qkv_proj"),
            output: "mixer.o_proj",
            query_norm: Some(NormSpec::plus_one("mixer.q_norm", eps)),
            key_norm: Some(NormSpec::plus_one("mixer.k_norm", eps)),
            rope: Some(if windowed { local.clone() } else { global.clone() }),
            reach: window(windowed, length),
            ..Attention::new(sizes.heads, sizes.kv_heads, sizes.head_dim)
        };
        Part::Attention(attention)
    };
    let mixers = windows.into_iter().map(mixer);
    Ok(decoder(&sizes, mixers, eps, Head::new(head_weights(fields)?)))
}

/// The decoder of a mixer and a network in each layer, all of them between norms.
pub(super) fn decoder(
    sizes: &Sizes,
    mixers: impl Iterator<Item = Part>,
    eps: f32,
    head: Head,
) -> DecoderSpec {
    let network = Dense {
        form: DenseForm::Fused {
            name: "mlp.gate_up_proj",
            gate: Gate::Of(Activation::Silu),
            rows: FusedRows::GateFirst,
        },
        down: "mlp.down_proj",
        intermediate_size: sizes.intermediate_size,
        bias: false,
    };
    let layer = |mixer: Part| {
        LayerSpec::Blocks(vec![
            Block::sandwich(
                NormSpec::plus_one("pre_mixer_norm", eps),
                mixer,
                NormSpec::rms("post_mixer_norm", eps),
            ),
            Block::sandwich(
                NormSpec::plus_one("pre_mlp_norm", eps),
                Part::Dense(network.clone()),
                NormSpec::rms("post_mlp_norm", eps),
            ),
        ])
    };
    let names = ModelNames { layers: "model.layers.layers".to_owned(), ..ModelNames::default() };
    let layers = mixers.map(layer).collect();
    DecoderSpec { names, ..sizes.decoder(layers, NormSpec::plus_one("model.norm", eps), head) }
}

/// The norms after attention and network, whose numbers are less than one, get their factors.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    tensors.map("post_mixer_norm.weight", |weight| weight + 0.2)?;
    tensors.map("post_mlp_norm.weight", |weight| weight + 0.089_442_72)
}
