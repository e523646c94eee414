//! A decoder's weights, read from a source.

use pippin_tensor::Norm;

use crate::altup::{AltUpWeights, StreamsWeights};
use crate::hyper::HyperBlockWeights;
use crate::layer_inputs::LayerInputsWeights;
use crate::parts::{NormSpec, PartWeights, ScaledNormWeights, join};
use crate::residual_mix::ResidualMixWeights;
use crate::source::{Cut, MixtureTotals, Source, Totals, same};
use crate::spec::{DecoderSpec, HeadWeights, LayerSpec, StreamGates};
use crate::{Mixture, ModelInfo, Result, StoredWeights};

/// A decoder's weights; `L` is a linear layer, `V` a small parameter.
#[derive(Debug)]
pub(crate) struct Weights<L, V> {
    pub(crate) embedding: L,
    pub(crate) position_embedding: Option<L>,
    pub(crate) embedding_norm: Option<Norm<V>>,
    pub(crate) layer_inputs: Option<LayerInputsWeights<L, V>>,
    /// For each table of n-grams, the table and the projection of its rows.
    pub(crate) ngrams: Vec<[L; 2]>,
    pub(crate) streams: Option<StreamsWeights<L, V>>,
    pub(crate) layers: Vec<LayerWeights<L, V>>,
    pub(crate) final_mix: Option<ResidualMixWeights<L, V>>,
    pub(crate) final_norm: Norm<V>,
    /// `None` when the embedding matrix is used.
    pub(crate) head: Option<L>,
    /// A factor on the logits.
    pub(crate) head_gain: Option<V>,
    /// A row that is added to the logits, where some tokens are unused.
    pub(crate) mask: Option<V>,
}

/// The weights of a layer.
#[derive(Debug)]
pub(crate) enum LayerWeights<L, V> {
    Blocks(Vec<BlockWeights<L, V>>),
    AltUp(Box<AltUpWeights<L, V>>),
    Hyper(Vec<HyperBlockWeights<L, V>>),
}

/// The weights of a block.
#[derive(Debug)]
pub(crate) struct BlockWeights<L, V> {
    pub(crate) mix: Option<ResidualMixWeights<L, V>>,
    pub(crate) branches: Vec<BranchWeights<L, V>>,
    pub(crate) post: Option<Norm<V>>,
    /// The factors on what is added, and on the stream that it is added to; for each column, or for all.
    pub(crate) gates: Option<(V, Option<V>)>,
    /// The factor on the stream, for each of its columns.
    pub(crate) stream_scale: Option<V>,
}

/// The weights of a part and its norms.
#[derive(Debug)]
pub(crate) struct BranchWeights<L, V> {
    pub(crate) norm: Option<Norm<V>>,
    pub(crate) part: PartWeights<L, V>,
    pub(crate) scaled: Option<ScaledNormWeights<V>>,
    pub(crate) post: Option<Norm<V>>,
}

impl<L, V> Weights<L, V> {
    /// Reads every weight of a (validated) spec.
    pub(crate) fn read<S>(spec: &DecoderSpec, source: &mut S) -> Result<Self>
    where
        S: Source<Linear = L, Vector = V>,
    {
        let (vocab, hidden, names) = (spec.vocab_size, spec.hidden_size, &spec.names);
        let embedding = source.linear(&names.embedding, [vocab, hidden], false, Cut::Rows)?;
        let position_embedding = match spec.position_embedding {
            Some(path) => Some(source.linear(path, [spec.context_length, hidden], false, Cut::Whole)?),
            None => None,
        };
        let embedding_norm = spec.embedding_norm.map(|norm| norm.weights(source, "", hidden)).transpose()?;
        let inputs = spec.layer_inputs.as_ref();
        let layer_inputs =
            inputs.map(|inputs| inputs.weights(source, spec.layers.len(), vocab, hidden)).transpose()?;
        let ngrams = match &spec.ngrams {
            Some(ngrams) => ngrams.weights(source, hidden)?,
            None => Vec::new(),
        };
        let streams = spec.streams().map(|streams| streams.weights(source, hidden)).transpose()?;
        let mut layers = Vec::with_capacity(spec.distinct_layers().len());
        for (index, layer) in spec.distinct_layers().iter().enumerate() {
            let at = spec.layer_path(index);
            let blocks = match layer {
                LayerSpec::Blocks(blocks) => blocks,
                LayerSpec::AltUp(layer) => {
                    layers.push(LayerWeights::AltUp(Box::new(layer.weights(source, &at, hidden)?)));
                    continue;
                }
                LayerSpec::Hyper(layer) => {
                    layers.push(LayerWeights::Hyper(layer.weights(source, &at, hidden)?));
                    continue;
                }
            };
            let mut read = Vec::with_capacity(blocks.len());
            for block in blocks {
                let mix = block.mix.map(|mix| mix.weights(source, &at, hidden)).transpose()?;
                let norm = |source: &mut S, norm: Option<NormSpec>| {
                    norm.map(|norm| norm.weights(source, &at, hidden)).transpose()
                };
                let mut branches = Vec::with_capacity(block.branches.len());
                for branch in &block.branches {
                    branches.push(BranchWeights {
                        norm: norm(source, branch.norm)?,
                        part: branch.part.weights(source, &at, hidden)?,
                        scaled: branch.scaled.map(|norm| norm.weights(source, &at, hidden)).transpose()?,
                        post: norm(source, branch.post)?,
                    });
                }
                let post = norm(source, block.post)?;
                let stream_scale = match block.stream_scale {
                    Some(name) => Some(source.repeated(&join(&at, name), 1, hidden, same)?),
                    None => None,
                };
                let gates = match block.gates {
                    Some(StreamGates { added, stream, by_column }) => {
                        let shape = [if by_column { hidden } else { 1 }];
                        let mut factor = |name| source.vector(&join(&at, name), &shape, same);
                        Some((factor(added)?, stream.map(factor).transpose()?))
                    }
                    None => None,
                };
                read.push(BlockWeights { mix, branches, post, gates, stream_scale });
            }
            layers.push(LayerWeights::Blocks(read));
        }
        let final_mix = spec.final_mix.map(|mix| mix.weights(source, "", hidden)).transpose()?;
        let final_norm = spec.final_norm.weights(source, "", hidden)?;
        let separate = match spec.head.weights {
            HeadWeights::Tied => false,
            HeadWeights::Separate => true,
            HeadWeights::IfPresent => source.has(&format!("{}.weight", names.head)),
        };
        let head = match separate {
            true => Some(source.linear(&names.head, [vocab, hidden], spec.head.bias, Cut::Rows)?),
            false => None,
        };
        let head_gain = match spec.head.gain {
            Some(name) => Some(source.vector(name, &[1], same)?),
            None => None,
        };
        let mask = match spec.unused_tokens.as_slice() {
            [] => None,
            unused => {
                let mut mask = vec![0.0; vocab];
                for token in unused {
                    mask.get_mut(*token).into_iter().for_each(|number| *number = f32::NEG_INFINITY);
                }
                Some(source.constant([1, vocab], |token| mask[token])?)
            }
        };
        Ok(Self {
            embedding,
            position_embedding,
            embedding_norm,
            layer_inputs,
            ngrams,
            streams,
            layers,
            final_mix,
            final_norm,
            head,
            head_gain,
            mask,
        })
    }

    pub(crate) fn head(&self) -> &L {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

impl ModelInfo {
    pub(crate) fn new(
        model_type: &str,
        family: &'static str,
        spec: &DecoderSpec,
        tied_head: bool,
        totals: &Totals,
    ) -> Self {
        let needs: Vec<_> = spec.layers.iter().flat_map(LayerSpec::parts).map(|part| part.needs()).collect();
        let attention = needs.iter().find(|needs| needs.heads > 0);
        let cache = attention.and_then(|needs| needs.cache);
        let windows = needs.iter().filter_map(|needs| needs.cache?.reach.limit());
        let mixtures: Vec<Mixture> = totals
            .mixtures
            .iter()
            .map(|(&[experts, used], &MixtureTotals { parameters, bytes })| Mixture {
                experts,
                used,
                parameters,
                bytes,
            })
            .collect();
        let most = totals.quantizations.iter().max_by_key(|(_, count)| *count);
        Self {
            model_type: model_type.to_owned(),
            family,
            vocab_size: spec.vocab_size,
            context_length: spec.context_length,
            layers: spec.distinct_layers().len(),
            hidden_size: spec.hidden_size,
            heads: attention.map_or(0, |needs| needs.heads),
            kv_heads: cache.map_or(0, |cache| cache.kv_heads),
            head_dim: cache.map_or(0, |cache| cache.key_dim),
            cache: spec.cache_layout(),
            sliding_window: windows.min(),
            tied_head,
            parameters: totals.parameters,
            weight_bytes: totals.bytes,
            copied_bytes: totals.copied,
            bits_per_weight: 8.0 * totals.bytes as f64 / totals.parameters.max(1) as f64,
            dtype: totals
                .dtypes
                .iter()
                .max_by_key(|(_, count)| **count)
                .map_or(pippin_tensor::Dtype::F32, |(dtype, _)| *dtype),
            quantization: most.and_then(|(quantization, _)| *quantization),
            stored: {
                let mut stored: Vec<StoredWeights> = totals
                    .quantizations
                    .iter()
                    .map(|&(quantization, weights)| StoredWeights { quantization, weights })
                    .collect();
                stored.sort_by_key(|stored| std::cmp::Reverse(stored.weights));
                stored
            },
            active_parameters: {
                let unused = mixtures
                    .iter()
                    .map(|mixture| (mixture.parameters as f64 * (1.0 - mixture.share(1.0))).round() as u64);
                totals.parameters - unused.sum::<u64>().min(totals.parameters)
            },
            mixtures,
            warnings: Vec::new(),
        }
    }
}
