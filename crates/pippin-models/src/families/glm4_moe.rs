//! GLM 4.5 and its relatives (Solar Open, dots.llm1): the choice among experts of DeepSeek V3, beside a network that every
//! token goes through, and attention as in llama, with norms of heads in some.
//!
//! mlx-lm ignores a scaling of the rotation in the first two; published models have none there but Solar Open.

use pippin_tensor::Activation;

use super::common::{Sizes, corrected_choice, head_weights, pre_norm_layer, stack_experts, stack_experts_as};
use crate::config::Fields;
use crate::parts::{Attention, Dense, Experts, NormSpec, Part, SharedExpert};
use crate::published::Tensors;
use crate::rope::{self, RopeDefaults};
use crate::spec::{DecoderSpec, Head};
use crate::{Config, Result, limits};

/// What the families differ in.
struct Options {
    qkv_bias: bool,
    head_norms: bool,
    mlp_bias: bool,
    /// The share of a head that is rotated where the configuration has none.
    rotated: f64,
    /// The experts' projections.
    names: [&'static str; 3],
}

const SWITCH: [&str; 3] = ["mlp.switch_mlp.gate_proj", "mlp.switch_mlp.up_proj", "mlp.switch_mlp.down_proj"];
const PLAIN: [&str; 3] = ["mlp.experts.gate_proj", "mlp.experts.up_proj", "mlp.experts.down_proj"];

pub(crate) fn glm4_moe(config: &Config) -> Result<DecoderSpec> {
    decoder(config.fields(), 0.5)
}

pub(crate) fn solar_open(config: &Config) -> Result<DecoderSpec> {
    decoder(config.fields(), 1.0)
}

fn decoder(fields: Fields<'_>, rotated: f64) -> Result<DecoderSpec> {
    let options = Options {
        qkv_bias: fields.flag_or("attention_bias", false)?,
        head_norms: fields.flag_or("use_qk_norm", false)?,
        mlp_bias: false,
        rotated,
        names: SWITCH,
    };
    options.spec(fields)
}

pub(crate) fn dots1(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    let bias = fields.flag_or("attention_bias", false)?;
    if bias {
        return Err(
            fields.error("attention_bias", "is not supported: projections of this family have no biases")
        );
    }
    let mlp_bias = fields.flag_or("mlp_bias", false)?;
    Options { qkv_bias: false, head_norms: true, mlp_bias, rotated: 1.0, names: PLAIN }.spec(fields)
}

impl Options {
    fn spec(&self, fields: Fields<'_>) -> Result<DecoderSpec> {
        let sizes = Sizes::read(fields, 131_072)?;
        let eps = fields.required_positive("rms_norm_eps")? as f32;
        let dims = rope::partial(sizes.head_dim, rope::share(fields, self.rotated)?);
        let norm = |path| self.head_norms.then(|| NormSpec::rms(path, eps));
        let attention = Attention {
            qkv_bias: self.qkv_bias,
            query_norm: norm("self_attn.q_norm"),
            key_norm: norm("self_attn.k_norm"),
            rope: Some(rope::read(fields, &RopeDefaults { dims, theta: None, traditional: false })?),
            ..sizes.attention()
        };
        let attention = Part::Attention(attention);
        let dense = Dense { bias: self.mlp_bias, ..Dense::gated(sizes.intermediate_size, Activation::Silu) };
        let experts = fields.count("n_routed_experts")?.map(|_| self.experts(fields)).transpose()?;
        let first = fields.index_or("first_k_dense_replace", 0)?;
        let layer = |index: usize| {
            let network = match &experts {
                Some(experts) if index >= first => Part::Experts(experts.clone()),
                _ => Part::Dense(dense.clone()),
            };
            pre_norm_layer(eps, attention.clone(), network)
        };
        let layers = (0..sizes.layers).map(layer).collect();
        Ok(sizes.decoder(layers, NormSpec::rms("model.norm", eps), Head::new(head_weights(fields)?)))
    }

    fn experts(&self, fields: Fields<'_>) -> Result<Experts> {
        let count = fields.limited_count("n_routed_experts", limits::EXPERTS)?;
        let width = fields.limited_count("moe_intermediate_size", limits::INTERMEDIATE)?;
        let choice = corrected_choice(fields, count, fields.limited_count("num_experts_per_tok", count)?)?;
        let shared = fields.count("n_shared_experts")?.map(|count| {
            let shared = SharedExpert::usual(width.saturating_mul(count));
            SharedExpert { network: Dense { bias: self.mlp_bias, ..shared.network }, ..shared }
        });
        Ok(Experts {
            router_dense: true,
            correction: Some("mlp.gate.e_score_correction_bias"),
            names: self.names,
            shared,
            ..Experts::new(choice, width)
        })
    }
}

/// A published checkpoint has experts one by one.
pub(crate) fn published(_: &Config, tensors: &mut Tensors) -> Result<()> {
    stack_experts(tensors, "mlp.experts")
}

/// The same where mlx-lm's converter leaves the stacks in their place.
pub(crate) fn published_in_place(_: &Config, tensors: &mut Tensors) -> Result<()> {
    stack_experts_as(tensors, "mlp.experts", ["gate_proj", "up_proj", "down_proj"], "mlp.experts")
}
