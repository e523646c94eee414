//! Apple's OpenELM: llama whose layers have more heads and wider networks, the further up they are.

use pippin_tensor::{Activation, Gate};

use super::common::Sizes;
use crate::config::Numbers;
use crate::parts::{Attention, Dense, DenseForm, FusedRows, NormSpec, Part, Projections};
use crate::spec::{Block, DecoderSpec, Head, HeadWeights, LayerSpec, ModelNames};
use crate::{Config, Result, limits, rope};

pub(crate) fn spec(config: &Config) -> Result<DecoderSpec> {
    let fields = config.fields();
    if !fields.flag_or("ffn_with_glu", true)? {
        return Err(fields.unsupported("ffn_with_glu", "false", &["true"]));
    }
    let layers = fields.limited_count("num_transformer_layers", limits::LAYERS)?;
    let hidden_size = fields.limited_count("model_dim", limits::HIDDEN)?;
    let head_dim = fields.limited_count("head_dim", limits::HEAD_DIM)?;
    let heads = fields.counts("num_query_heads", layers)?;
    let kv_heads = fields.counts("num_kv_heads", layers)?;
    let divisor = fields.limited_count("ffn_dim_divisor", limits::INTERMEDIATE)?;
    let multipliers = match fields.positives("ffn_multipliers")? {
        Some(Numbers::List(list)) if list.len() == layers => list,
        Some(Numbers::One(one)) => vec![one; layers],
        _ => {
            let problem = format_args!("must be a list of {layers} positive numbers, one for each layer");
            return Err(fields.error("ffn_multipliers", problem));
        }
    };
    let eps = fields.positive_or("rms_norm_eps", 1e-6)?;
    let head_norms = fields.flag_or("normalize_qk_projections", true)?;
    let head_norm = |path| head_norms.then(|| NormSpec::rms(path, eps));
    let theta = fields.positive("rope_freq_constant")?.unwrap_or(10_000.0);
    let rope = rope::plain(theta, head_dim, false);
    let layer = |index: usize| {
        let attention = Attention {
            projections: Projections::Fused("attn.qkv_proj"),
            output: "attn.out_proj",
            query_norm: head_norm("attn.q_norm"),
            key_norm: head_norm("attn.k_norm"),
            rope: Some(rope.clone()),
            ..Attention::new(heads[index], kv_heads[index], head_dim)
        };
        let gate = Gate::Of(Activation::Silu);
        let network = Dense {
            form: DenseForm::Fused { name: "ffn.proj_1", gate, rows: FusedRows::GateFirst },
            down: "ffn.proj_2",
            intermediate_size: divisible(multipliers[index] * hidden_size as f64, divisor),
            bias: false,
        };
        LayerSpec::Blocks(vec![
            Block::pre_norm(NormSpec::rms("attn_norm", eps), Part::Attention(attention)),
            Block::pre_norm(NormSpec::rms("ffn_norm", eps), Part::Dense(network)),
        ])
    };
    let sizes = Sizes {
        hidden_size,
        layers,
        heads: heads[0],
        kv_heads: kv_heads[0],
        head_dim,
        intermediate_size: hidden_size,
        vocab_size: fields.limited_count("vocab_size", limits::VOCAB)?,
        context_length: fields.count_or("max_context_length", 2048, limits::CONTEXT)?,
    };
    let head = Head::new(match fields.flag_or("share_input_output_layers", true)? {
        true => HeadWeights::Tied,
        false => HeadWeights::Separate,
    });
    let names = ModelNames {
        embedding: "transformer.token_embeddings".into(),
        layers: "transformer.layers".into(),
        head: "lm_head".into(),
    };
    let layers = (0..layers).map(layer).collect();
    Ok(DecoderSpec { names, ..sizes.decoder(layers, NormSpec::rms("transformer.norm", eps), head) })
}

/// The multiple of a number that is nearest to a width, and not much below it.
fn divisible(width: f64, divisor: usize) -> usize {
    // What is far beyond the limit will be refused.
    let width = width.min(2.0 * limits::INTERMEDIATE as f64);
    let nearest = ((width + divisor as f64 / 2.0) as usize / divisor * divisor).max(divisor);
    if (nearest as f64) < 0.9 * width { nearest + divisor } else { nearest }
}
