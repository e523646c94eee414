//! What layers are made of: one file for each kind of part.
//!
//! A part's file holds its description, the names of its tensors, its weights, what it keeps between steps, and how it is
//! computed. [`parts!`] at the end of this file lists them; nothing else in the crate does.

mod attention;
mod channel_mix;
mod compressed;
mod conv_gate;
mod dense;
mod experts;
mod first_input;
mod gated_delta;
mod index;
mod latent;
mod layer_input;
mod linear;
mod linear_attention;
mod norm;
mod rg_lru;
mod selective_scan;
mod short_conv;
mod state_space;
mod time_mix;
mod token_shift;

use std::ops::Range;
use std::sync::Arc;

use pippin_tensor::{Backend, Linear, Norm, Reach, RopeSpec, StepInputs, TensorError, ValueStore};

use crate::source::Source;
use crate::{ModelError, Result};

pub use attention::{Attention, HeadNorms, OutputGate, Projected, Projections, SecondPass};
pub use channel_mix::ChannelMix;
pub(crate) use compressed::{Compressed, Strides};
pub use compressed::{CompressedAttention, CompressedIndex, Compression};
pub use conv_gate::ConvGate;
pub use dense::{Dense, DenseForm, FusedRows};
pub use experts::{Experts, NarrowExperts, RouterNorm, SharedExpert};
pub use first_input::FirstInput;
pub use gated_delta::{DeltaInput, DeltaProjections, GatedDelta};
pub use index::Index;
pub use latent::Latent;
pub use layer_input::LayerInput;
pub use linear::LinearMap;
pub use linear_attention::LinearAttention;
pub use norm::{NormSpec, ScaledNorm};
pub use rg_lru::RgLru;
pub use selective_scan::{ScanForm, ScanNorms, SelectiveScan};
pub use short_conv::ShortConv;
pub use state_space::{GatedNorm, StateSpace};
pub use time_mix::TimeMix;

use attention::AttentionWeights;
use channel_mix::ChannelMixWeights;
use compressed::CompressedAttentionWeights;
use conv_gate::ConvGateWeights;
use dense::DenseWeights;
use experts::ExpertsWeights;
use first_input::FirstInputWeights;
use gated_delta::GatedDeltaWeights;
use latent::LatentWeights;
use layer_input::LayerInputWeights;
use linear::LinearMapWeights;
use linear_attention::LinearAttentionWeights;
pub(crate) use norm::ScaledNormWeights;
use rg_lru::RgLruWeights;
use selective_scan::SelectiveScanWeights;
use short_conv::ShortConvWeights;
use state_space::StateSpaceWeights;
use time_mix::TimeMixWeights;

/// Keys and values that a part keeps for each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheNeed {
    pub(crate) kv_heads: usize,
    pub(crate) key_dim: usize,
    pub(crate) values: ValueStore,
    pub(crate) reach: Reach,
}

/// What a part needs besides its weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Needs {
    /// Whether tokens see each other in it.
    pub(crate) mixes: bool,
    pub(crate) cache: Option<CacheNeed>,
    /// What else it keeps for tokens: keys of an index.
    pub(crate) others: Vec<CacheNeed>,
    /// Tokens of a group, of which only the last one has a place in these.
    pub(crate) stride: Option<usize>,
    /// The layer whose keys and values it reads instead of its own.
    pub(crate) shares: Option<usize>,
    /// A layer whose keys and values it reads beside its own.
    pub(crate) reads: Option<usize>,
    /// Numbers of recurrent state for each slot, for each state that it keeps.
    pub(crate) states: Vec<usize>,
    pub(crate) rope: Option<Arc<RopeSpec>>,
    /// Heads that have a matrix of their own each.
    pub(crate) routes: Option<usize>,
    /// Whether it is given what entered the first layer.
    pub(crate) recalls: bool,
    /// Query heads, for the model's description.
    pub(crate) heads: usize,
}

/// Where a part finds what it needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Place {
    /// Whether tokens see each other in it.
    pub(crate) mixes: bool,
    /// Its cache among all layers', and the group of it.
    pub(crate) cache: usize,
    pub(crate) group: usize,
    /// Its other caches, and the groups of them.
    pub(crate) others: Vec<(usize, usize)>,
    pub(crate) stride: usize,
    /// The cache of the layer that it reads beside its own, and the group of it.
    pub(crate) read: (usize, usize),
    /// Its states among all.
    pub(crate) states: Range<usize>,
    pub(crate) rope: usize,
    pub(crate) routes: usize,
}

/// One step's way through the layers.
#[derive(Debug)]
pub(crate) struct Pass<'a, B: Backend> {
    pub(crate) backend: &'a B,
    pub(crate) step: &'a StepInputs<B>,
    /// The angles of each distinct rotation.
    pub(crate) angles: &'a [B::Tensor],
    /// For each number of heads that have matrices of their own: which head each row of heads is.
    pub(crate) routes: &'a [B::Indices],
    /// For each length of groups of tokens of which only the last one is kept: where they begin and end.
    pub(crate) strides: &'a [Strides<B>],
    pub(crate) caches: &'a mut [B::KvCache],
    pub(crate) states: &'a mut [B::State],
    /// The values of the first layer, for those that mix them into their own.
    pub(crate) first_values: Option<B::Tensor>,
    /// What entered the first layer, if any part is given that, for the rows that are left.
    pub(crate) first_input: Option<B::Tensor>,
    /// What a branch has kept for a later block, for the rows that are left.
    pub(crate) kept: Option<B::Tensor>,
    /// The inputs of each layer's own, `[rows, layers * width]`, for the rows that are left.
    pub(crate) layer_inputs: Option<B::Tensor>,
    /// Projections of keys and values that layers take from one before them.
    pub(crate) projected: Option<(B::Tensor, B::Tensor)>,
    /// The sums of groups of layers before, in models that mix them, for the rows that are left.
    pub(crate) sums: Vec<B::Tensor>,
    pub(crate) compressed: Compressed<B>,
}

/// Which rows leave a part that lets tokens see each other. The last such part's keys, values and states are needed for
/// all rows, but what follows them only for the rows that something is wanted of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    None,
    Outputs,
    All,
}

/// What a part computes on.
#[derive(Debug)]
pub(crate) struct Input<'a, B: Backend> {
    pub(crate) x: &'a B::Tensor,
    /// The norm that `x` passes through first.
    pub(crate) norm: Option<&'a Norm<B::Tensor>>,
    /// What the result is added to; it has the rows that leave the part.
    pub(crate) residual: Option<&'a B::Tensor>,
    pub(crate) rows: Rows,
}

impl<B: Backend> Clone for Input<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Input<'_, B> {}

impl<B: Backend> Pass<'_, B> {
    /// The input after its norm.
    pub(crate) fn normalised(&self, input: &Input<'_, B>) -> Result<B::Tensor> {
        match input.norm {
            Some(norm) => Ok(self.backend.norm(input.x, norm)?),
            None => Ok(input.x.clone()),
        }
    }

    /// The rows that something is wanted of.
    pub(crate) fn outputs(&self, x: &B::Tensor) -> Result<B::Tensor> {
        match &self.step.output_rows {
            Some(rows) => Ok(self.backend.select_rows(x, rows)?),
            None => Ok(x.clone()),
        }
    }

    /// Leaves of what parts are given besides the stream the rows that something is wanted of.
    pub(crate) fn narrow(&mut self) -> Result<()> {
        if let Some(first) = self.first_input.take() {
            self.first_input = Some(self.outputs(&first)?);
        }
        if let Some(kept) = self.kept.take() {
            self.kept = Some(self.outputs(&kept)?);
        }
        if let Some(inputs) = self.layer_inputs.take() {
            self.layer_inputs = Some(self.outputs(&inputs)?);
        }
        self.sums = self.sums.iter().map(|sum| self.outputs(sum)).collect::<Result<_>>()?;
        Ok(())
    }

    /// The last linear layer of a part that lets tokens see each other.
    pub(crate) fn finish(
        &self,
        mixed: &B::Tensor,
        output: &Linear<B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let narrowed;
        let mixed = match input.rows {
            Rows::None => return Ok(None),
            Rows::All => mixed,
            Rows::Outputs => {
                narrowed = self.outputs(mixed)?;
                &narrowed
            }
        };
        self.project(mixed, output, input).map(Some)
    }

    /// A linear layer, added to the residual if there is one.
    pub(crate) fn project(
        &self,
        x: &B::Tensor,
        output: &Linear<B>,
        input: &Input<'_, B>,
    ) -> Result<B::Tensor> {
        Ok(match input.residual {
            Some(residual) => self.backend.linear_add(x, output, residual)?,
            None => self.backend.linear(x, output)?,
        })
    }
}

/// An operation returned another number of tensors than asked for.
pub(crate) fn miscounted(operation: &'static str, expected: usize, found: usize) -> ModelError {
    TensorError::shape(operation, format!("{expected} outputs"), found).into()
}

/// The full path of a module.
pub(crate) fn join(at: &str, path: &str) -> String {
    if at.is_empty() { path.to_owned() } else { format!("{at}.{path}") }
}

macro_rules! parts {
    ($($(#[$doc:meta])* $name:ident: $weights:ident,)*) => {
        /// What a block consists of.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Part {
            $($(#[$doc])* $name($name),)*
        }

        /// The weights of a part; `L` is a linear layer, `V` a small parameter.
        #[derive(Debug)]
        pub(crate) enum PartWeights<L, V> {
            $($name($weights<L, V>),)*
        }

        impl Part {
            /// What kind of part it is, as its type is called.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                }
            }

            pub(crate) fn validate(&self) -> Result<()> {
                match self {
                    $(Self::$name(part) => part.validate(),)*
                }
            }

            pub(crate) fn needs(&self) -> Needs {
                match self {
                    $(Self::$name(part) => part.needs(),)*
                }
            }

            /// Reads the weights of a part of the layer at a path, in a model `hidden` wide.
            pub(crate) fn weights<S: Source>(
                &self,
                source: &mut S,
                at: &str,
                hidden: usize,
            ) -> Result<PartWeights<S::Linear, S::Vector>> {
                Ok(match self {
                    $(Self::$name(part) => PartWeights::$name(part.weights(source, at, hidden)?),)*
                })
            }

            /// Computes the part. `None`: no rows were wanted.
            pub(crate) fn forward<B: Backend>(
                &self,
                weights: &PartWeights<Linear<B>, B::Tensor>,
                place: &Place,
                pass: &mut Pass<'_, B>,
                input: &Input<'_, B>,
            ) -> Result<Option<B::Tensor>> {
                match (self, weights) {
                    $((Self::$name(part), PartWeights::$name(weights)) => part.forward(weights, place, pass, input),)*
                    // Weights are read by the part that they are handed to.
                    #[allow(unreachable_patterns, reason = "there may be a single kind of part")]
                    _ => Err(TensorError::shape("part", "the weights of its kind", "others").into()),
                }
            }
        }
    };
}

parts! {
    /// Attention over keys and values of its own, or another layer's.
    Attention: AttentionWeights,
    /// Attention over a window, and over vectors that stand for several tokens before it.
    CompressedAttention: CompressedAttentionWeights,
    /// Attention over one latent vector for each token.
    Latent: LatentWeights,
    /// A feed-forward network of a token and the one before it.
    ChannelMix: ChannelMixWeights,
    /// Heads that see a few tokens back, without a softmax.
    ConvGate: ConvGateWeights,
    /// A feed-forward network.
    Dense: DenseWeights,
    /// A linear recurrence whose decays are fixed.
    LinearAttention: LinearAttentionWeights,
    /// A linear layer.
    LinearMap: LinearMapWeights,
    /// A mixture of feed-forward networks.
    Experts: ExpertsWeights,
    /// What entered the first layer.
    FirstInput: FirstInputWeights,
    /// A gated linear recurrence of single numbers.
    RgLru: RgLruWeights,
    /// A linear recurrence that replaces what is at its keys.
    TimeMix: TimeMixWeights,
    /// A linear recurrence by the gated delta rule.
    GatedDelta: GatedDeltaWeights,
    /// What a layer makes of the input that it has of its own.
    LayerInput: LayerInputWeights,
    /// A short convolution between gates.
    ShortConv: ShortConvWeights,
    /// A selective state space whose heads are columns.
    SelectiveScan: SelectiveScanWeights,
    /// A selective state space whose heads share their decays.
    StateSpace: StateSpaceWeights,
}
