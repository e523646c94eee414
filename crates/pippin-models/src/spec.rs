use std::sync::Arc;

use pippin_tensor::{Activation, RopeFrequencies, RopeSpec};

use crate::{ModelError, Result};

/// Upper limits for the sizes in a configuration.
///
/// Each is several times what any published model has. They keep products of sizes far from overflow, and tables that
/// are computed from the configuration alone (rotation frequencies) small.
pub mod limits {
    /// Layers.
    pub const LAYERS: usize = 10_000;
    /// Token ids.
    pub const VOCAB: usize = 1 << 24;
    /// Width of the residual stream.
    pub const HIDDEN: usize = 1 << 20;
    /// Width of a feed-forward network.
    pub const INTERMEDIATE: usize = 1 << 22;
    /// Query heads.
    pub const HEADS: usize = 1 << 14;
    /// Dimension of one head.
    pub const HEAD_DIM: usize = 1 << 12;
    /// Positions, and with them the context length and sliding windows.
    pub const CONTEXT: usize = 1 << 30;
}

/// A decoder, described: everything that the generic [`Decoder`](crate::Decoder) needs to know about a model.
///
/// A family turns its configuration into this plain data, and has no other code. What a family does not need is `None`
/// or `false`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DecoderSpec {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// The longest sequence the model was made for.
    pub context_length: usize,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// Where the output head's weights are.
    pub head: Head,
    /// The layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// What the checkpoint calls the tensors.
    pub names: TensorNames,
}

/// Where the weights of the output head are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The embedding matrix is used again.
    Tied,
    /// A matrix of its own, [`TensorNames::head`].
    Separate,
    /// The configuration does not say: a matrix of its own if the checkpoint has one.
    IfPresent,
}

/// One layer: `x += mixer(norm(x))`, then `x += feed_forward(norm(x))`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LayerSpec {
    /// What lets tokens see each other.
    pub mixer: Mixer,
    /// What transforms each token by itself.
    pub feed_forward: FeedForward,
}

/// The part of a layer in which tokens see each other.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Mixer {
    /// Causal attention with rotary positions.
    Attention(Attention),
}

/// Causal grouped-query attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Dimension of one head.
    pub head_dim: usize,
    /// Whether the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub output_bias: bool,
    /// Whether queries and keys are normalised head by head before the rotation.
    pub head_norms: bool,
    /// The rotary positions. Layers that share them share the allocation.
    pub rope: Arc<RopeSpec>,
    /// Sliding window: a token at position `p` sees positions above `p - window` only.
    pub window: Option<usize>,
    /// Factor on the scores before the softmax.
    pub scale: f32,
}

/// The part of a layer that transforms each token by itself.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FeedForward {
    /// `down(activation(gate(x)) * up(x))`.
    Gated {
        /// Width of the gate and of `up`.
        intermediate_size: usize,
        /// The gate's activation.
        activation: Activation,
        /// Whether the three projections have biases.
        bias: bool,
    },
}

/// What a checkpoint calls the tensors of a decoder.
///
/// The values are module paths without `.weight`; those of a layer are relative to `{layers}.{index}.`. The default is
/// what almost every family uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorNames {
    /// The embedding matrix.
    pub embedding: &'static str,
    /// The list of layers.
    pub layers: &'static str,
    /// The norm after the last layer.
    pub final_norm: &'static str,
    /// The output head, when it is not the embedding matrix.
    pub head: &'static str,
    /// The norm before the mixer.
    pub mixer_norm: &'static str,
    /// The projections to queries, keys and values.
    pub qkv: [&'static str; 3],
    /// The attention's output projection.
    pub attention_output: &'static str,
    /// The norm of the queries' heads.
    pub query_norm: &'static str,
    /// The norm of the keys' heads.
    pub key_norm: &'static str,
    /// The norm before the feed-forward network.
    pub feed_forward_norm: &'static str,
    /// The feed-forward network's gate.
    pub gate: &'static str,
    /// The feed-forward network's other input projection.
    pub up: &'static str,
    /// The feed-forward network's output projection.
    pub down: &'static str,
}

impl Default for TensorNames {
    fn default() -> Self {
        Self {
            embedding: "model.embed_tokens",
            layers: "model.layers",
            final_norm: "model.norm",
            head: "lm_head",
            mixer_norm: "input_layernorm",
            qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            attention_output: "self_attn.o_proj",
            query_norm: "self_attn.q_norm",
            key_norm: "self_attn.k_norm",
            feed_forward_norm: "post_attention_layernorm",
            gate: "mlp.gate_proj",
            up: "mlp.up_proj",
            down: "mlp.down_proj",
        }
    }
}

impl TensorNames {
    /// The full path of a layer's module.
    pub(crate) fn in_layer(&self, layer: usize, module: &str) -> String {
        format!("{}.{layer}.{module}", self.layers)
    }
}

impl DecoderSpec {
    /// Checks that every number is possible and that they fit together.
    ///
    /// The generic decoder may rely on a checked spec: no size is zero or absurd, heads divide, rotations match their
    /// heads. [`Family::spec`](crate::Family::spec) returns checked specs only.
    ///
    /// # Errors
    ///
    /// [`ModelError::Field`], in the words of `config.json`.
    pub fn validate(&self) -> Result<()> {
        within("vocab_size", self.vocab_size, limits::VOCAB)?;
        within("hidden_size", self.hidden_size, limits::HIDDEN)?;
        within("max_position_embeddings", self.context_length, limits::CONTEXT)?;
        within("num_hidden_layers", self.layers.len(), limits::LAYERS)?;
        positive("rms_norm_eps", self.norm_eps)?;
        self.layers.iter().try_for_each(LayerSpec::validate)
    }
}

impl LayerSpec {
    fn validate(&self) -> Result<()> {
        let Mixer::Attention(attention) = &self.mixer;
        attention.validate()?;
        let FeedForward::Gated { intermediate_size, .. } = &self.feed_forward;
        within("intermediate_size", *intermediate_size, limits::INTERMEDIATE)
    }
}

impl Attention {
    fn validate(&self) -> Result<()> {
        let &Self { heads, kv_heads, head_dim, .. } = self;
        within("num_attention_heads", heads, limits::HEADS)?;
        within("num_key_value_heads", kv_heads, limits::HEADS)?;
        within("head_dim", head_dim, limits::HEAD_DIM)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(problem(
                "num_key_value_heads",
                format!("is {kv_heads}, which does not divide the {heads} attention heads"),
            ));
        }
        if let Some(window) = self.window {
            within("sliding_window", window, limits::CONTEXT)?;
        }
        positive("the attention scale", self.scale)?;
        let rope = &*self.rope;
        if rope.dims == 0 || !rope.dims.is_multiple_of(2) || rope.dims > head_dim {
            return Err(problem(
                "head_dim",
                format!("is {head_dim}, but {} rotated dimensions must be even and within it", rope.dims),
            ));
        }
        positive("rope_scaling", rope.scale)?;
        match &rope.frequencies {
            RopeFrequencies::Fixed(frequencies) => {
                if frequencies.len() != rope.dims / 2 {
                    return Err(problem(
                        "rope_scaling",
                        format!(
                            "gives {} frequencies for {} rotated dimensions",
                            frequencies.len(),
                            rope.dims
                        ),
                    ));
                }
                // Zero is a pair that does not rotate.
                if let Some(frequency) = frequencies.iter().find(|f| !(f.is_finite() && **f >= 0.0)) {
                    return Err(problem("rope_scaling", format!("gives the frequency {frequency}")));
                }
            }
            RopeFrequencies::Dynamic { base, factor, original_context } => {
                positive("rope_theta", *base)?;
                positive("rope_scaling.factor", *factor)?;
                within("max_position_embeddings", *original_context, limits::CONTEXT)?;
                if rope.dims <= 2 {
                    return Err(problem("head_dim", "must be above 2 for dynamic rope scaling"));
                }
            }
        }
        Ok(())
    }
}

fn within(field: &str, value: usize, limit: usize) -> Result<()> {
    match value {
        0 => Err(problem(field, "must be a positive integer, found 0")),
        _ if value > limit => Err(problem(field, format!("must be at most {limit}, found {value}"))),
        _ => Ok(()),
    }
}

fn positive(field: &str, value: f32) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(problem(field, format!("must be a positive number, found {value}")))
    }
}

fn problem(field: &str, problem: impl ToString) -> ModelError {
    ModelError::field("config.json", field, problem)
}
