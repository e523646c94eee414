//! A decoder's weights as a tree, on the host or on a device.
//!
//! The tree is read from a checkpoint in one place ([`HostWeights::read`]) and moved to a device in another
//! ([`HostWeights::upload`]), so that a model can be described without a device and so that both agree on what is in use.
//! Host tensors are ranges of mapped files: reading the tree reads headers, not weights.

use std::collections::BTreeMap;

use pippin_tensor::{Backend, Dtype, Linear, MatrixData, QuantSpec, TensorData};
use pippin_weights::{Checkpoint, QuantizationConfig};

use crate::{Attention, DecoderSpec, FeedForward, Head, LayerSpec, Mixer, ModelInfo, Result};

/// A linear layer on the host.
pub(crate) struct HostLinear {
    weight: MatrixData,
    bias: Option<TensorData>,
}

/// A decoder's weights; `L` is a linear layer (or a matrix without bias), `T` a vector.
#[derive(Debug)]
pub(crate) struct Weights<L, T> {
    pub(crate) embedding: L,
    pub(crate) layers: Vec<LayerWeights<L, T>>,
    pub(crate) final_norm: T,
    /// `None` when the embedding matrix is used.
    pub(crate) head: Option<L>,
}

/// The weights of one layer.
#[derive(Debug)]
pub(crate) struct LayerWeights<L, T> {
    pub(crate) mixer_norm: T,
    pub(crate) mixer: MixerWeights<L, T>,
    pub(crate) feed_forward_norm: T,
    pub(crate) feed_forward: FeedForwardWeights<L>,
}

#[derive(Debug)]
pub(crate) enum MixerWeights<L, T> {
    Attention { qkv: [L; 3], output: L, norms: Option<HeadNormWeights<T>> },
}

#[derive(Debug)]
pub(crate) struct HeadNormWeights<T> {
    pub(crate) query: T,
    pub(crate) key: T,
}

#[derive(Debug)]
pub(crate) enum FeedForwardWeights<L> {
    Gated { gate: L, up: L, down: L },
}

pub(crate) type HostWeights = Weights<HostLinear, TensorData>;
pub(crate) type DeviceWeights<B> = Weights<Linear<B>, <B as Backend>::Tensor>;

impl<L, T> Weights<L, T> {
    pub(crate) fn head(&self) -> &L {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

/// Reads tensors by the names of a spec, and counts what it has read.
struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    quantization: &'a QuantizationConfig,
    totals: Totals,
}

/// What the tensors in use amount to.
#[derive(Default)]
pub(crate) struct Totals {
    parameters: u64,
    bytes: u64,
    /// Weights by quantization; `None` is dense.
    quantizations: Vec<(Option<QuantSpec>, u64)>,
    /// Elements by the type of dense weights, scales and biases.
    dtypes: BTreeMap<Dtype, u64>,
}

impl Reader<'_> {
    fn vector(&mut self, name: &str, length: usize) -> Result<TensorData> {
        let tensor = self.checkpoint.tensor(name, &[length])?;
        self.totals.parameters += length as u64;
        self.totals.count(&tensor);
        Ok(tensor)
    }

    fn norm(&mut self, path: &str, length: usize) -> Result<TensorData> {
        self.vector(&format!("{path}.weight"), length)
    }

    fn linear(&mut self, path: &str, outputs: usize, inputs: usize, bias: bool) -> Result<HostLinear> {
        let weight = self.checkpoint.matrix(path, outputs, inputs, self.quantization)?;
        self.totals.count_matrix(&weight, outputs, inputs);
        let bias = if bias { Some(self.vector(&format!("{path}.bias"), outputs)?) } else { None };
        Ok(HostLinear { weight, bias })
    }

    fn layer(
        &mut self,
        spec: &DecoderSpec,
        index: usize,
        layer: &LayerSpec,
    ) -> Result<LayerWeights<HostLinear, TensorData>> {
        let hidden = spec.hidden_size;
        let names = &spec.names;
        let path = |module| names.in_layer(index, module);
        let Mixer::Attention(Attention {
            heads, kv_heads, head_dim, qkv_bias, output_bias, head_norms, ..
        }) = layer.mixer;
        let [query, key, value] = names.qkv;
        let mixer_norm = self.norm(&path(names.mixer_norm), hidden)?;
        let mixer = MixerWeights::Attention {
            qkv: [
                self.linear(&path(query), heads * head_dim, hidden, qkv_bias)?,
                self.linear(&path(key), kv_heads * head_dim, hidden, qkv_bias)?,
                self.linear(&path(value), kv_heads * head_dim, hidden, qkv_bias)?,
            ],
            output: self.linear(&path(names.attention_output), hidden, heads * head_dim, output_bias)?,
            norms: if head_norms {
                Some(HeadNormWeights {
                    query: self.norm(&path(names.query_norm), head_dim)?,
                    key: self.norm(&path(names.key_norm), head_dim)?,
                })
            } else {
                None
            },
        };
        let FeedForward::Gated { intermediate_size, bias, .. } = layer.feed_forward;
        Ok(LayerWeights {
            mixer_norm,
            mixer,
            feed_forward_norm: self.norm(&path(names.feed_forward_norm), hidden)?,
            feed_forward: FeedForwardWeights::Gated {
                gate: self.linear(&path(names.gate), intermediate_size, hidden, bias)?,
                up: self.linear(&path(names.up), intermediate_size, hidden, bias)?,
                down: self.linear(&path(names.down), hidden, intermediate_size, bias)?,
            },
        })
    }
}

impl Totals {
    fn count(&mut self, tensor: &TensorData) {
        self.bytes += tensor.bytes().len() as u64;
        if tensor.dtype().is_weight_float() {
            *self.dtypes.entry(tensor.dtype()).or_default() += tensor.len() as u64;
        }
    }

    fn count_matrix(&mut self, matrix: &MatrixData, outputs: usize, inputs: usize) {
        let weights = outputs as u64 * inputs as u64;
        self.parameters += weights;
        let quantization = match matrix {
            MatrixData::Dense(tensor) => {
                self.count(tensor);
                None
            }
            MatrixData::Quantized(quantized) => {
                for tensor in [Some(&quantized.weight), Some(&quantized.scales), quantized.biases.as_ref()] {
                    tensor.into_iter().for_each(|tensor| self.count(tensor));
                }
                Some(quantized.spec)
            }
        };
        match self.quantizations.iter_mut().find(|(known, _)| *known == quantization) {
            Some((_, count)) => *count += weights,
            None => self.quantizations.push((quantization, weights)),
        }
    }
}

impl HostWeights {
    /// Finds every tensor of a (validated) spec in a checkpoint. Tensors that the spec does not name are ignored.
    pub(crate) fn read(
        spec: &DecoderSpec,
        checkpoint: &Checkpoint,
        quantization: &QuantizationConfig,
    ) -> Result<(Self, Totals)> {
        let mut reader = Reader { checkpoint, quantization, totals: Totals::default() };
        let (vocab, hidden, names) = (spec.vocab_size, spec.hidden_size, &spec.names);
        let embedding = reader.linear(names.embedding, vocab, hidden, false)?;
        let layers = spec.layers.iter().enumerate();
        let layers = layers.map(|(index, layer)| reader.layer(spec, index, layer)).collect::<Result<_>>()?;
        let final_norm = reader.norm(names.final_norm, hidden)?;
        let separate = match spec.head {
            Head::Tied => false,
            Head::Separate => true,
            Head::IfPresent => checkpoint.contains(&format!("{}.weight", names.head)),
        };
        let head = if separate { Some(reader.linear(names.head, vocab, hidden, false)?) } else { None };
        Ok((Self { embedding, layers, final_norm, head }, reader.totals))
    }

    /// Moves the weights to a device.
    pub(crate) fn upload<B: Backend>(self, backend: &B) -> Result<DeviceWeights<B>> {
        let tensor = |data: TensorData| backend.tensor(&data);
        let linear = |host: HostLinear| -> Result<Linear<B>> {
            Ok(Linear { weight: backend.matrix(host.weight)?, bias: host.bias.map(tensor).transpose()? })
        };
        let layer =
            |host: LayerWeights<HostLinear, TensorData>| -> Result<LayerWeights<Linear<B>, B::Tensor>> {
                let MixerWeights::Attention { qkv: [query, key, value], output, norms } = host.mixer;
                let FeedForwardWeights::Gated { gate, up, down } = host.feed_forward;
                Ok(LayerWeights {
                    mixer_norm: tensor(host.mixer_norm)?,
                    mixer: MixerWeights::Attention {
                        qkv: [linear(query)?, linear(key)?, linear(value)?],
                        output: linear(output)?,
                        norms: match norms {
                            Some(norms) => {
                                Some(HeadNormWeights { query: tensor(norms.query)?, key: tensor(norms.key)? })
                            }
                            None => None,
                        },
                    },
                    feed_forward_norm: tensor(host.feed_forward_norm)?,
                    feed_forward: FeedForwardWeights::Gated {
                        gate: linear(gate)?,
                        up: linear(up)?,
                        down: linear(down)?,
                    },
                })
            };
        Ok(Weights {
            embedding: linear(self.embedding)?,
            layers: self.layers.into_iter().map(layer).collect::<Result<_>>()?,
            final_norm: tensor(self.final_norm)?,
            head: self.head.map(linear).transpose()?,
        })
    }
}

impl ModelInfo {
    pub(crate) fn new(
        model_type: &str,
        family: &'static str,
        spec: &DecoderSpec,
        weights: &HostWeights,
        totals: &Totals,
    ) -> Self {
        let attention = |layer: &LayerSpec| {
            let Mixer::Attention(attention) = &layer.mixer;
            (attention.heads, attention.kv_heads, attention.head_dim)
        };
        let (heads, kv_heads, head_dim) = spec.layers.first().map_or((0, 0, 0), attention);
        let window = |layer: &LayerSpec| {
            let Mixer::Attention(attention) = &layer.mixer;
            attention.window
        };
        let kv_values = |layer: &LayerSpec| {
            let (_, kv_heads, head_dim) = attention(layer);
            2 * (kv_heads as u64).saturating_mul(head_dim as u64)
        };
        let most = totals.quantizations.iter().max_by_key(|(_, count)| *count);
        Self {
            model_type: model_type.to_owned(),
            family,
            vocab_size: spec.vocab_size,
            context_length: spec.context_length,
            layers: spec.layers.len(),
            hidden_size: spec.hidden_size,
            heads,
            kv_heads,
            head_dim,
            kv_values_per_token: spec.layers.iter().map(kv_values).fold(0, u64::saturating_add),
            sliding_window: spec.layers.iter().filter_map(window).min(),
            tied_head: weights.head.is_none(),
            parameters: totals.parameters,
            weight_bytes: totals.bytes,
            bits_per_weight: 8.0 * totals.bytes as f64 / totals.parameters.max(1) as f64,
            dtype: totals
                .dtypes
                .iter()
                .max_by_key(|(_, count)| **count)
                .map_or(Dtype::F32, |(dtype, _)| *dtype),
            quantization: most.and_then(|(quantization, _)| *quantization),
        }
    }
}
