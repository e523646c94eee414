use std::collections::BTreeMap;

use half::{bf16, f16};
use pippin_tensor::Dtype;

use crate::Result;
use crate::altup::{AltUp, Streams};
use crate::hyper::{HyperConnections, HyperLayer};
use crate::layer_inputs::LayerInputs;
use crate::ngrams::Ngrams;
use crate::parts::{NormSpec, Part, ScaledNorm};
use crate::residual_mix::ResidualMix;

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
    /// Experts of a layer.
    pub const EXPERTS: usize = 1 << 14;
    /// Streams that alternate.
    pub const STREAMS: usize = 64;
    /// Iterations of a computation that is repeated for each part.
    pub const ITERATIONS: usize = 1 << 10;
    /// Taps of a short convolution.
    pub const TAPS: usize = 1 << 10;
    /// Positions, and with them the context length and sliding windows.
    pub const CONTEXT: usize = 1 << 30;
}

/// A decoder, described: everything that the generic [`Decoder`](crate::Decoder) needs to know about a model.
///
/// A family turns its configuration into this plain data, and has no other code.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DecoderSpec {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// The longest sequence the model was made for.
    pub context_length: usize,
    /// What the checkpoint calls the parts that are not in layers.
    pub names: ModelNames,
    /// Factor on the embeddings.
    pub embedding_scale: EmbeddingScale,
    /// The matrix with a row for each position in the context, which is added to a token's embedding; its full path.
    pub position_embedding: Option<&'static str>,
    /// The embeddings' norm; its path is a full one.
    pub embedding_norm: Option<NormSpec>,
    /// Inputs of each layer's own.
    pub layer_inputs: Option<LayerInputs>,
    /// What is added to a token's embedding for the n-grams that end with it.
    pub ngrams: Option<Ngrams>,
    /// The layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// How many passes they are made of: a model may be run several times over with the same weights, and keep keys and values
    /// of its own each time.
    pub passes: usize,
    /// What the final norm is given, where it is not the sum of the last layers alone; its paths are full ones.
    pub final_mix: Option<ResidualMix>,
    /// Whether the final norm also stands between passes.
    pub norm_between_passes: bool,
    /// The norm after the last layer; its path is a full one.
    pub final_norm: NormSpec,
    /// The output head.
    pub head: Head,
    /// Tokens that nothing was trained for: their logits are −∞.
    pub unused_tokens: Vec<usize>,
    /// The linear layers, by their full paths, whose matrices were made for a rotation of what they are given, and how many
    /// columns are transformed together ([`Hadamard`](pippin_tensor::Hadamard)); the signs are in `{path}.signs`. Rows of an
    /// embedding matrix are rotated back.
    pub rotations: BTreeMap<String, usize>,
}

/// A factor on the embeddings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmbeddingScale {
    /// The factor.
    pub factor: f32,
    /// Whether it is rounded to the checkpoint's type, as it was where the model was trained.
    pub as_stored: bool,
}

impl EmbeddingScale {
    /// No factor.
    pub(crate) const NONE: Self = Self { factor: 1.0, as_stored: false };

    /// The factor for a checkpoint of a type.
    pub(crate) fn for_type(self, dtype: Dtype) -> f32 {
        match dtype {
            Dtype::F16 if self.as_stored => f16::from_f32(self.factor).to_f32(),
            Dtype::Bf16 if self.as_stored => bf16::from_f32(self.factor).to_f32(),
            _ => self.factor,
        }
    }
}

/// What a checkpoint calls the parts of a decoder that are not in layers: module paths without `.weight`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelNames {
    /// The embedding matrix.
    pub embedding: String,
    /// The list of layers.
    pub layers: String,
    /// The output head, when it is not the embedding matrix.
    pub head: String,
}

impl Default for ModelNames {
    fn default() -> Self {
        Self::under("")
    }
}

impl ModelNames {
    /// The usual names after a prefix, which ends with a dot if it is not empty.
    pub(crate) fn under(prefix: &str) -> Self {
        Self {
            embedding: format!("{prefix}model.embed_tokens"),
            layers: format!("{prefix}model.layers"),
            head: format!("{prefix}lm_head"),
        }
    }

    /// The names that GPT-2 introduced, within a model of that name.
    pub(crate) fn gpt(model: &str) -> Self {
        Self { embedding: format!("{model}.wte"), layers: format!("{model}.h"), head: "lm_head".to_owned() }
    }
}

/// The output head.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Head {
    /// Where its weights are.
    pub weights: HeadWeights,
    /// Whether it has a bias.
    pub bias: bool,
    /// Factor on the logits.
    pub scale: f32,
    /// A parameter, a single number, that the logits are multiplied by.
    pub gain: Option<&'static str>,
    /// Soft cap of the logits.
    pub softcap: Option<f32>,
}

impl Head {
    /// A head without bias, factor and cap.
    pub(crate) fn new(weights: HeadWeights) -> Self {
        Self { weights, bias: false, scale: 1.0, gain: None, softcap: None }
    }
}

/// Where the weights of the output head are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadWeights {
    /// The embedding matrix is used again.
    Tied,
    /// A matrix of its own, [`ModelNames::head`].
    Separate,
    /// The configuration does not say: a matrix of its own if the checkpoint has one.
    IfPresent,
}

/// One layer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LayerSpec {
    /// Blocks, one after the other; usually two.
    Blocks(Vec<Block>),
    /// Alternating updates of several streams. All layers of a model have them, or none.
    AltUp(Box<AltUp>),
    /// Parts between which several streams are mixed. All layers of a model have them, or none.
    Hyper(Box<HyperLayer>),
}

/// `x += scale * post(Σ branches(x))`, with learned factors on both terms perhaps, after which the stream may be multiplied
/// by a parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// What the branches are given, where it is not the stream as it is.
    pub mix: Option<ResidualMix>,
    /// What stands side by side.
    pub branches: Vec<Branch>,
    /// The norm of their sum.
    pub post: Option<NormSpec>,
    /// Factor on what is added to the residual stream.
    pub scale: f32,
    /// Factors that are learned.
    pub gates: Option<StreamGates>,
    /// Whether what a branch has kept back is added after that, too.
    pub adds_kept: bool,
    /// The parameter, a single number, that the residual stream is multiplied by after that.
    pub stream_scale: Option<&'static str>,
}

/// Learned factors on what is added to the residual stream, and on the stream that it is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamGates {
    /// The parameter with the factor on what is added.
    pub added: &'static str,
    /// The parameter with the factor on the stream.
    pub stream: Option<&'static str>,
    /// Whether each column has a number, rather than all of them one.
    pub by_column: bool,
}

/// A part with norms of its own: `post(part(norm(x)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    /// The norm of what the part is given.
    pub norm: Option<NormSpec>,
    /// The part.
    pub part: Part,
    /// The norm of its result.
    pub post: Option<NormSpec>,
    /// Another norm of its result, before that.
    pub scaled: Option<ScaledNorm>,
    /// Whether its result is kept for a later block of the layer, instead of being added in this one.
    pub kept: bool,
}

impl Branch {
    /// A part behind a norm, or behind none.
    pub(crate) fn new(norm: impl Into<Option<NormSpec>>, part: Part) -> Self {
        Self { norm: norm.into(), part, post: None, scaled: None, kept: false }
    }
}

impl Block {
    /// Branches, side by side, without anything around them.
    pub(crate) fn new(branches: Vec<Branch>) -> Self {
        Self {
            mix: None,
            branches,
            post: None,
            scale: 1.0,
            gates: None,
            adds_kept: false,
            stream_scale: None,
        }
    }

    /// A norm and a part: `x += part(norm(x))`.
    pub(crate) fn pre_norm(norm: NormSpec, part: Part) -> Self {
        Self::new(vec![Branch::new(norm, part)])
    }

    /// Parts side by side behind one norm: `x += Σ parts(norm(x))`.
    pub(crate) fn parallel<const N: usize>(norm: NormSpec, parts: [Part; N]) -> Self {
        let branches = parts.into_iter().map(|part| Branch::new(norm, part)).collect();
        Self::new(branches)
    }

    /// A part between two norms: `x += post(part(norm(x)))`.
    pub(crate) fn sandwich(norm: NormSpec, part: Part, post: NormSpec) -> Self {
        Self { post: Some(post), ..Self::pre_norm(norm, part) }
    }

    /// A part and the norm of its result: `x += post(part(x))`.
    pub(crate) fn post_norm(part: Part, post: NormSpec) -> Self {
        Self { post: Some(post), ..Self::new(vec![Branch::new(None, part)]) }
    }
}

impl LayerSpec {
    /// The parts of the layer, in order.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        let (blocks, altup, hyper) = match self {
            Self::Blocks(blocks) => (blocks.as_slice(), None, &[][..]),
            Self::AltUp(layer) => (&[][..], Some(layer.parts()), &[][..]),
            Self::Hyper(layer) => (&[][..], None, layer.blocks.as_slice()),
        };
        let in_blocks = blocks.iter().flat_map(|block| &block.branches).map(|branch| &branch.part);
        in_blocks.chain(altup.into_iter().flatten()).chain(hyper.iter().map(|block| &block.part))
    }

    fn validate(&self) -> Result<()> {
        let blocks = match self {
            Self::Blocks(blocks) => blocks,
            Self::AltUp(layer) => return layer.validate(),
            Self::Hyper(layer) => return layer.validate(),
        };
        for block in blocks {
            for Branch { norm, part, post, scaled, .. } in &block.branches {
                norm.iter().chain(post).try_for_each(NormSpec::validate)?;
                scaled.iter().try_for_each(ScaledNorm::validate)?;
                part.validate()?;
            }
            block.post.iter().try_for_each(NormSpec::validate)?;
            block.mix.iter().try_for_each(|mix| mix.norm.validate())?;
            check::finite("the residual factor", block.scale)?;
        }
        Ok(())
    }
}

impl DecoderSpec {
    /// The streams of a model that has several.
    pub(crate) fn streams(&self) -> Option<&Streams> {
        match self.layers.first() {
            Some(LayerSpec::AltUp(layer)) => Some(&layer.streams),
            _ => None,
        }
    }

    /// How the streams of a model are mixed that has them in another way.
    pub(crate) fn connections(&self) -> Option<&HyperConnections> {
        match self.layers.first() {
            Some(LayerSpec::Hyper(layer)) => Some(&layer.connections),
            _ => None,
        }
    }

    /// The layers that have weights: those of one pass.
    pub(crate) fn distinct_layers(&self) -> &[LayerSpec] {
        &self.layers[..self.layers.len() / self.passes.max(1)]
    }

    /// The full path of a layer.
    pub(crate) fn layer_path(&self, layer: usize) -> String {
        format!("{}.{layer}", self.names.layers)
    }

    /// Checks that every number is possible and that they fit together.
    ///
    /// The generic decoder may rely on a checked spec: no size is zero or absurd, heads divide, rotations match their
    /// heads. [`Family::spec`](crate::Family::spec) returns checked specs only.
    ///
    /// # Errors
    ///
    /// [`ModelError::Field`](crate::ModelError::Field), in the words of `config.json`.
    pub fn validate(&self) -> Result<()> {
        check::within("vocab_size", self.vocab_size, limits::VOCAB)?;
        check::within("hidden_size", self.hidden_size, limits::HIDDEN)?;
        check::within("max_position_embeddings", self.context_length, limits::CONTEXT)?;
        check::within("num_hidden_layers", self.layers.len(), limits::LAYERS)?;
        if self.passes == 0 || !self.layers.len().is_multiple_of(self.passes) {
            return Err(check::problem("num_loops", "must be a positive integer, and divide the layers"));
        }
        check::finite("the embedding scale", self.embedding_scale.factor)?;
        self.embedding_norm.iter().try_for_each(NormSpec::validate)?;
        self.final_norm.validate()?;
        self.final_mix.iter().try_for_each(|mix| mix.norm.validate())?;
        check::finite("logit_scale", self.head.scale)?;
        if let Some(cap) = self.head.softcap {
            check::positive("final_logit_softcapping", cap)?;
        }
        self.layers.iter().try_for_each(LayerSpec::validate)?;
        let streams = |layer: &LayerSpec| match layer {
            LayerSpec::AltUp(layer) => Some(&*layer.streams) == self.streams(),
            LayerSpec::Hyper(layer) => Some(&layer.connections) == self.connections(),
            LayerSpec::Blocks(_) => self.streams().is_none() && self.connections().is_none(),
        };
        if !self.layers.iter().all(streams) {
            return Err(check::problem("hc_mult", "gives layers different streams"));
        }
        for block in self.rotations.values() {
            if !block.is_power_of_two() || *block > limits::HIDDEN {
                return Err(check::problem(
                    "modules",
                    format!("has a block of {block} columns, which is no power of two"),
                ));
            }
        }
        self.layer_inputs.iter().try_for_each(LayerInputs::validate)?;
        self.ngrams.iter().try_for_each(Ngrams::validate)?;
        let width = self.layer_inputs.as_ref().map(|inputs| inputs.width);
        for (index, layer) in self.layers.iter().enumerate() {
            for part in layer.parts() {
                if let Part::LayerInput(own) = part
                    && (own.layer != index || Some(own.width) != width)
                {
                    let words = format!("gives layer {index} an input that the model does not have");
                    return Err(check::problem("hidden_size_per_layer_input", words));
                }
            }
            let read =
                layer.parts().map(Part::needs).flat_map(|needs| needs.shares.into_iter().chain(needs.reads));
            for shared in read {
                let has_own = |part: &Part| part.needs().cache.is_some();
                if shared >= index || !self.layers[shared].parts().any(has_own) {
                    let words = format!("gives layer {index} the keys of layer {shared}, which has none");
                    return Err(check::problem("num_kv_shared_layers", words));
                }
            }
        }
        Ok(())
    }
}

/// Checks of single numbers, in the words of `config.json`.
pub(crate) mod check {
    use crate::{ModelError, Result};

    pub(crate) fn within(field: &str, value: usize, limit: usize) -> Result<()> {
        match value {
            0 => Err(problem(field, "must be a positive integer, found 0")),
            _ if value > limit => Err(problem(field, format!("must be at most {limit}, found {value}"))),
            _ => Ok(()),
        }
    }

    pub(crate) fn positive(field: &str, value: f32) -> Result<()> {
        if value.is_finite() && value > 0.0 {
            Ok(())
        } else {
            Err(problem(field, format!("must be a positive number, found {value}")))
        }
    }

    pub(crate) fn finite(field: &str, value: f32) -> Result<()> {
        if value.is_finite() {
            Ok(())
        } else {
            Err(problem(field, format!("must be a finite number, found {value}")))
        }
    }

    pub(crate) fn multiple(field: &str, value: usize, of: usize, what: &str) -> Result<()> {
        if of.is_multiple_of(value) {
            return Ok(());
        }
        Err(problem(field, format!("is {value}, which does not divide the {of} {what}")))
    }

    pub(crate) fn problem(field: &str, problem: impl ToString) -> ModelError {
        ModelError::field("config.json", field, problem)
    }
}
