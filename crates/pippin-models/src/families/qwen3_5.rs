//! Qwen 3.5: the layers of Qwen 3 Next, with a projection for each input of the delta nets, and feed-forward networks that
//! are all dense or all mixtures of experts. Published models see, too; here they read. PrismML packs them in two bits, in
//! matrices that were made for Hadamard rotations of what they are given.

use std::collections::BTreeMap;

use pippin_tensor::Activation;

use super::common::{Sizes, activation, head_weights, split_experts};
use super::qwen3_moe::experts;
use super::qwen3_next::{layers, mixture, raise_norms};
use crate::config::Fields;
use crate::parts::{DeltaInput, DeltaProjections, Dense, GatedDelta, NormSpec, Part};
use crate::published::Tensors;
use crate::rope;
use crate::spec::{Head, ModelNames};
use crate::{Config, DecoderSpec, Result, limits};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = text(config)?;
    let sizes = Sizes { context_length: rope::context_length(fields, 131_072)?, ..sizes(fields)? };
    let eps = fields.positive_or("rms_norm_eps", 1e-6)?;
    let projections = DeltaProjections::Apart {
        mixed: &[("in_proj_qkv", "conv1d")],
        gate: DeltaInput::Linear("in_proj_z"),
        strength: "in_proj_b",
        decay: DeltaInput::Linear("in_proj_a"),
    };
    let delta = GatedDelta {
        path: "linear_attn",
        value_heads: fields.count_or("linear_num_value_heads", 64, limits::HEADS)?,
        key_heads: fields.count_or("linear_num_key_heads", 16, limits::HEADS)?,
        key_dim: fields.count_or("linear_key_head_dim", 192, limits::HEAD_DIM)?,
        value_dim: fields.count_or("linear_value_head_dim", 128, limits::HEAD_DIM)?,
        taps: fields.count_or("linear_conv_kernel_dim", 4, limits::TAPS)?,
        projections,
        decay_columns: false,
        decay_bound: None,
        strength: 1.0,
        gate: Activation::Silu,
        norm: NormSpec::rms("norm", eps),
        output: "out_proj",
    };
    let network = if has_experts(fields) {
        let width = fields.limited_count("shared_expert_intermediate_size", limits::INTERMEDIATE)?;
        let mut experts = experts(fields)?;
        experts.choice.normalize = fields.flag_or("norm_topk_prob", true)?;
        Part::Experts(mixture(fields, experts, width)?)
    } else {
        let activation = activation(fields, "hidden_act", Activation::Silu)?;
        Part::Dense(Dense::gated(sizes.intermediate_size, activation))
    };
    let layers = layers(fields, &sizes, eps, Some(100_000.0), delta, std::iter::repeat(network))?;
    // The field stands in either place.
    let tied = if fields.get("tie_word_embeddings").is_some() { fields } else { config.fields() };
    let norm = NormSpec::rms("language_model.model.norm", eps);
    let names = ModelNames::under("language_model.");
    let rotations = match config.model_type()? {
        "prism_hadamard_qwen35" => rotations(config.fields())?,
        _ => BTreeMap::new(),
    };
    Ok(DecoderSpec { names, rotations, ..sizes.decoder(layers, norm, Head::new(head_weights(tied)?)) })
}

/// The modules of a pack in two bits whose inputs are rotated, and by how many columns.
fn rotations(fields: Fields<'_>) -> Result<BTreeMap<String, usize>> {
    let schema = fields.count_or("schema_version", 2, limits::LAYERS)?;
    let namespace = match schema {
        1 => "mlx-lm-text",
        2 => "mlx-vlm-qwen3_5",
        other => return Err(fields.unsupported("schema_version", &other.to_string(), &["1", "2"])),
    };
    let found = fields.text("tensor_namespace")?.unwrap_or_default();
    if found != namespace {
        return Err(fields.unsupported("tensor_namespace", found, &[namespace]));
    }
    if let Some(other) = fields.text("gdn_activation_layout")?.filter(|layout| *layout != "grouped") {
        return Err(fields.unsupported("gdn_activation_layout", other, &["grouped"]));
    }
    let expected = "a list of packed modules";
    let modules = fields.objects("modules", "modules.")?.filter(|modules| !modules.is_empty());
    let modules = modules.ok_or_else(|| fields.missing("modules", expected))?;
    let mut rotations = BTreeMap::new();
    for module in modules {
        let path = module.text("path")?.ok_or_else(|| module.missing("path", "a module's path"))?;
        if let Some(other) = module.text("dtype")?.filter(|dtype| *dtype != "float16") {
            return Err(module.unsupported("dtype", other, &["float16"]));
        }
        if module.flag_or("embedding", false)? != (path == "model.embed_tokens") {
            return Err(module
                .error("embedding", format_args!("must be true for the embeddings alone, not for {path}")));
        }
        let block = module.index("block")?;
        if block > 0 && rotations.insert(format!("language_model.{path}"), block).is_some() {
            return Err(module.error("path", format_args!("is there twice: {path}")));
        }
    }
    Ok(rotations)
}

/// The fields of the text model, which a model that sees has in an object of their own.
fn text(config: &Config) -> Result<Fields<'_>> {
    let fields = config.fields();
    Ok(fields.object("text_config.")?.unwrap_or(fields))
}

fn sizes(fields: Fields<'_>) -> Result<Sizes> {
    let default = Sizes {
        hidden_size: 4096,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        head_dim: 0,
        intermediate_size: 14_336,
        vocab_size: 151_936,
        context_length: 131_072,
    };
    let sizes = Sizes::read_or(fields, &default)?;
    let head_dim = if sizes.head_dim == 0 { sizes.hidden_size / sizes.heads } else { sizes.head_dim };
    Ok(Sizes { head_dim, ..sizes })
}

fn has_experts(fields: Fields<'_>) -> bool {
    fields.get("num_experts").is_some_and(|value| value.as_u64() != Some(0))
}

/// A published checkpoint has other prefixes, in its norms what their factors have above one, and experts' gates and
/// projections in one stack.
pub(crate) fn published(config: &Config, tensors: &mut Tensors) -> Result<()> {
    let fields = text(config)?;
    let towers = ["model.visual", "vision_tower"];
    tensors.retain(|name| !towers.iter().any(|tower| name.starts_with(tower)) && !name.contains("mtp."));
    tensors.replace_prefix("model.language_model.", "language_model.model.");
    tensors.rename(|name| (!name.starts_with("language_model.")).then(|| format!("language_model.{name}")));
    if has_experts(fields) {
        split_experts(
            tensors,
            "mlp.experts",
            "mlp.switch_mlp",
            fields.limited_count("moe_intermediate_size", limits::INTERMEDIATE)?,
        )?;
    }
    // As mlx-lm tells: its converter has turned the kernels of convolutions.
    let is_published = |name: &str| {
        let shape = tensors.get(name).map(|tensor| tensor.shape());
        name.ends_with("conv1d.weight") && shape.is_some_and(|shape| shape.last() != Some(&1))
    };
    if tensors.names().any(is_published) {
        raise_norms(tensors)?;
    }
    Ok(())
}
