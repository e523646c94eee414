//! Where weights come from, and where they go.
//!
//! A part names its tensors once, to a [`Source`]. What a source does with the names is its own: one describes a model
//! without reading its weights, one moves them to a device, one makes them up for tests; sharding and adapters are
//! sources too.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;

use pippin_tensor::{Backend, Dtype, Hadamard, Linear, MatrixData, QuantSpec, TensorData};
use pippin_weights::{Checkpoint, QuantizationConfig};

use crate::config::FILE;
use crate::{ModelError, Result};

/// How a matrix may be divided among several devices, each of which computes a part of the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Every device has all of it.
    Whole,
    /// By rows: each device has some of the outputs (queries, keys, values, gate, up).
    Rows,
    /// By columns: each device has some of the inputs, and results are summed (output, down).
    Columns,
}

/// Reads the weights of parts.
pub(crate) trait Source {
    /// A linear layer, or a stack of them.
    type Linear: Debug;
    /// A small dense parameter.
    type Vector: Debug;

    /// Whether there is a tensor of that name.
    fn has(&self, name: &str) -> bool;

    /// The linear layer at `path`: `[outputs, inputs]` in `{path}.weight`, quantized or not, and its bias if it has one.
    fn linear(&mut self, path: &str, shape: [usize; 2], bias: bool, cut: Cut) -> Result<Self::Linear>;

    /// A linear layer that no checkpoint quantizes.
    fn dense(&mut self, path: &str, shape: [usize; 2], bias: bool, cut: Cut) -> Result<Self::Linear> {
        self.linear(path, shape, bias, cut)
    }

    /// Rows of the linear layer at `path` as linear layers of their own: checkpoints that fuse projections.
    fn split(
        &mut self,
        path: &str,
        shape: [usize; 2],
        bias: bool,
        parts: &[Vec<Range<usize>>],
        cut: Cut,
    ) -> Result<Vec<Self::Linear>>;

    /// `[count, outputs, inputs]` matrices in one tensor: experts, or heads. Their biases are `[count, outputs]`.
    fn stack(&mut self, path: &str, shape: [usize; 3], bias: bool, cut: Cut) -> Result<Self::Linear>;

    /// What is read from here on is `experts` networks of which each token uses `used`; `None` ends that. It changes nothing but
    /// what the weights are counted as.
    fn mixture(&mut self, _sizes: Option<[usize; 2]>) {}

    /// The matrices of experts, as [`stack`](Self::stack), and a factor on the results of each where the checkpoint has one.
    fn experts(
        &mut self,
        path: &str,
        shape: [usize; 3],
        bias: bool,
        cut: Cut,
    ) -> Result<(Self::Linear, Option<Self::Vector>)> {
        Ok((self.stack(path, shape, bias, cut)?, None))
    }

    /// `[count, inputs, outputs]` matrices in one dense tensor, by its full name, that rows are multiplied with as they
    /// stand (`x W`): as a stack of `[outputs, inputs]`.
    fn turned(&mut self, name: &str, shape: [usize; 3]) -> Result<Self::Linear>;

    /// The first row of the matrix at `path`, whose shape is given, as a linear layer of one input. The matrix has been
    /// read, and counted, by itself.
    fn first_row(&mut self, path: &str, shape: [usize; 2]) -> Result<Self::Linear>;

    /// The two matrices of each head that latent attention absorbs into queries and outputs: keys' (`[heads, rank, key]`) and
    /// values' (`[heads, value, rank]`). Checkpoints have them so, or the matrices that make keys and values as one; `joined`
    /// tells which of them mlx-lm's converter writes.
    fn latent(
        &mut self,
        at: &str,
        heads: usize,
        rank: usize,
        dims: [usize; 2],
        joined: bool,
    ) -> Result<[Self::Linear; 2]>;

    /// A dense parameter by its full name, as one row, each number of it changed by `change`.
    fn vector(&mut self, name: &str, shape: &[usize], change: fn(f32) -> f32) -> Result<Self::Vector>;

    /// A parameter that no checkpoint has, from the place of each of its numbers.
    fn constant(&mut self, shape: [usize; 2], value: impl Fn(usize) -> f32) -> Result<Self::Vector>;

    /// A parameter of `len` numbers, each changed by `change` and `times` times over: numbers of heads for all columns of
    /// theirs.
    fn repeated(
        &mut self,
        name: &str,
        len: usize,
        times: usize,
        change: fn(f32) -> f32,
    ) -> Result<Self::Vector>;

    /// The kernels of a depthwise convolution, `[columns, taps, 1]` in `{path}.weight`, as `[columns, taps]`.
    fn kernels(&mut self, path: &str, columns: usize, taps: usize) -> Result<Self::Vector>;

    /// The kernels of a depthwise convolution that all columns of a head share, `[1, 1, heads, 1, taps]` in a tensor of this name, as
    /// `[heads * width, taps]`.
    fn head_kernels(&mut self, name: &str, heads: usize, taps: usize, width: usize) -> Result<Self::Vector>;
}

/// [`Source::latent`] of a checkpoint that has the two matrices of each head in stacks.
pub(crate) fn latent_stacks<S: Source + ?Sized>(
    source: &mut S,
    at: &str,
    heads: usize,
    rank: usize,
    [key, value]: [usize; 2],
) -> Result<[S::Linear; 2]> {
    Ok([
        source.stack(&format!("{at}.embed_q"), [heads, rank, key], false, Cut::Rows)?,
        source.stack(&format!("{at}.unembed_out"), [heads, value, rank], false, Cut::Rows)?,
    ])
}

/// Leaves a number as it is.
pub(crate) fn same(value: f32) -> f32 {
    value
}

/// A linear layer on the host.
#[derive(Debug)]
pub(crate) struct HostLinear {
    pub(crate) weight: MatrixData,
    pub(crate) bias: Option<TensorData>,
    /// The signs of a rotation, and how many columns are transformed together.
    pub(crate) hadamard: Option<(TensorData, usize)>,
}

impl HostLinear {
    /// A layer without a rotation.
    fn new(weight: MatrixData, bias: Option<TensorData>) -> Self {
        Self { weight, bias, hadamard: None }
    }
}

/// Takes weights that were read from a checkpoint.
pub(crate) trait Sink {
    type Linear: Debug;
    type Vector: Debug;
    fn linear(&mut self, host: HostLinear) -> Result<Self::Linear>;
    fn vector(&mut self, host: TensorData, change: fn(f32) -> f32) -> Result<Self::Vector>;
    fn constant(&mut self, shape: [usize; 2], value: impl Fn(usize) -> f32) -> Result<Self::Vector>;
}

/// Takes nothing: the weights have been found and counted.
#[derive(Debug)]
pub(crate) struct Describe;

impl Sink for Describe {
    type Linear = ();
    type Vector = ();

    fn linear(&mut self, _: HostLinear) -> Result<()> {
        Ok(())
    }

    fn vector(&mut self, _: TensorData, _: fn(f32) -> f32) -> Result<()> {
        Ok(())
    }

    fn constant(&mut self, _: [usize; 2], _: impl Fn(usize) -> f32) -> Result<()> {
        Ok(())
    }
}

/// Moves weights to a device.
#[derive(Debug)]
pub(crate) struct Upload<'a, B: Backend>(pub(crate) &'a B);

impl<B: Backend> Sink for Upload<'_, B> {
    type Linear = Linear<B>;
    type Vector = B::Tensor;

    fn linear(&mut self, host: HostLinear) -> Result<Linear<B>> {
        let bias = host.bias.map(|bias| self.0.tensor(&bias)).transpose()?;
        let hadamard = match &host.hadamard {
            Some((signs, block)) => {
                if signs.to_f32()?.iter().any(|sign| sign.abs() != 1.0) {
                    return Err(ModelError::field(signs.name(), "signs", "must be ones and minus ones"));
                }
                Some(Hadamard { signs: self.0.tensor(signs)?, block: *block })
            }
            None => None,
        };
        host.weight.make();
        Ok(Linear { weight: self.0.matrix(host.weight)?, bias, hadamard })
    }

    fn vector(&mut self, host: TensorData, change: fn(f32) -> f32) -> Result<B::Tensor> {
        if std::ptr::fn_addr_eq(change, same as fn(f32) -> f32) {
            return Ok(self.0.tensor(&host)?);
        }
        let values: Vec<f32> = host.to_f32()?.into_iter().map(change).collect();
        Ok(self.0.tensor(&TensorData::from_f32(host.name(), host.shape(), &values)?)?)
    }

    fn constant(&mut self, shape: [usize; 2], value: impl Fn(usize) -> f32) -> Result<B::Tensor> {
        let [rows, columns] = shape;
        let values: Vec<f32> = (0..rows * columns).map(value).collect();
        Ok(self.0.tensor(&TensorData::from_f32("constant", &shape, &values)?)?)
    }
}

/// What the tensors in use amount to.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) parameters: u64,
    pub(crate) bytes: u64,
    /// Of these, what is not read from files as it lies there.
    pub(crate) copied: u64,
    /// Weights by quantization; `None` is dense.
    pub(crate) quantizations: Vec<(Option<QuantSpec>, u64)>,
    /// Elements by the type of dense weights, scales and biases.
    pub(crate) dtypes: BTreeMap<Dtype, u64>,
    /// The weights of experts, by how many there are and how many of them a token uses.
    pub(crate) mixtures: BTreeMap<[usize; 2], MixtureTotals>,
    /// The mixture that is being read.
    mixture: Option<[usize; 2]>,
}

/// What the experts of some layers amount to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MixtureTotals {
    pub(crate) parameters: u64,
    pub(crate) bytes: u64,
}

impl Totals {
    fn count(&mut self, tensor: &TensorData) {
        let bytes = tensor.byte_len() as u64;
        self.bytes += bytes;
        if tensor.is_copy() {
            self.copied += bytes;
        }
        if let Some(mixture) = self.mixture {
            self.mixtures.entry(mixture).or_default().bytes += bytes;
        }
        if tensor.dtype().is_weight_float() {
            *self.dtypes.entry(tensor.dtype()).or_default() += tensor.len() as u64;
        }
    }

    fn count_matrix(&mut self, matrix: &MatrixData) {
        let weights = matrix.rows() as u64 * matrix.cols() as u64;
        self.parameters += weights;
        if let Some(mixture) = self.mixture {
            self.mixtures.entry(mixture).or_default().parameters += weights;
        }
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

/// A matrix's numbers, row by row.
fn dense(matrix: &MatrixData) -> Result<Vec<f32>> {
    Ok(match matrix {
        MatrixData::Dense(tensor) => tensor.to_f32()?,
        MatrixData::Quantized(quantized) => quantized.dequantize()?,
    })
}

/// A linear layer without a bias whose weights follow from those of a matrix; they are made when they are first read.
fn made_of(
    name: String,
    shape: [usize; 2],
    matrix: MatrixData,
    make: impl Fn(Vec<f32>) -> Vec<f32> + Send + Sync + 'static,
) -> Result<HostLinear> {
    let file = match &matrix {
        MatrixData::Dense(tensor) => tensor.file(),
        MatrixData::Quantized(quantized) => quantized.weight.file(),
    };
    let file = file.map(std::path::Path::to_owned);
    let weight = TensorData::deferred(name, Dtype::F32, &shape, file.as_deref(), move |bytes| {
        // What can be wrong with a matrix was seen when it was found.
        let Ok(values) = dense(&matrix) else { return };
        for (bytes, value) in bytes.chunks_exact_mut(size_of::<f32>()).zip(make(values)) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    })?;
    Ok(HostLinear::new(MatrixData::dense(weight)?, None))
}

/// Matrices of `[rows, columns]`, one below the other, each with its columns for rows.
fn turned(matrices: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut turned = vec![0.0; matrices.len()];
    for (turned, matrix) in turned.chunks_exact_mut(rows * columns).zip(matrices.chunks_exact(rows * columns))
    {
        for (i, row) in matrix.chunks_exact(columns).enumerate() {
            for (j, weight) in row.iter().enumerate() {
                turned[j * rows + i] = *weight;
            }
        }
    }
    turned
}

/// Reads a checkpoint's tensors, counts them, and hands them to a sink. Tensors that no part names are ignored.
#[derive(Debug)]
pub(crate) struct Reader<'a, K> {
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) quantization: &'a QuantizationConfig,
    /// The linear layers with rotations that have not been read yet; see [`DecoderSpec::rotations`](crate::DecoderSpec).
    pub(crate) rotations: BTreeMap<String, usize>,
    pub(crate) totals: Totals,
    pub(crate) sink: K,
}

impl<K: Sink> Reader<'_, K> {
    /// The rotation of what the linear layer at a path is given.
    fn hadamard(&mut self, path: &str, inputs: usize) -> Result<Option<(TensorData, usize)>> {
        let Some(block) = self.rotations.remove(path) else { return Ok(None) };
        if !inputs.is_multiple_of(block) {
            let problem = format!("has blocks of {block} columns for the {inputs} of {path}");
            return Err(ModelError::field(FILE, "modules", problem));
        }
        Ok(Some((self.host_vector(&format!("{path}.signs"), &[inputs])?, block)))
    }

    fn host_vector(&mut self, name: &str, shape: &[usize]) -> Result<TensorData> {
        let tensor = self.checkpoint.tensor(name, shape)?;
        self.totals.parameters += tensor.len() as u64;
        self.totals.count(&tensor);
        Ok(tensor.reshape(&[tensor.len()])?)
    }

    fn host_stack(
        &mut self,
        weight: MatrixData,
        path: &str,
        [count, outputs, _]: [usize; 3],
        bias: bool,
    ) -> Result<K::Linear> {
        self.totals.count_matrix(&weight);
        let bias = match bias {
            true => {
                let name = format!("{path}.bias");
                let tensor = self.checkpoint.tensor(&name, &[count, outputs])?;
                self.totals.parameters += tensor.len() as u64;
                self.totals.count(&tensor);
                Some(tensor)
            }
            false => None,
        };
        self.sink.linear(HostLinear::new(weight, bias))
    }

    fn host_bias(&mut self, path: &str, shape: &[usize], bias: bool) -> Result<Option<TensorData>> {
        if bias { Ok(Some(self.host_vector(&format!("{path}.bias"), shape)?)) } else { Ok(None) }
    }
}

impl<K: Sink> Source for Reader<'_, K> {
    type Linear = K::Linear;
    type Vector = K::Vector;

    fn has(&self, name: &str) -> bool {
        self.checkpoint.contains(name)
    }

    fn mixture(&mut self, sizes: Option<[usize; 2]>) {
        self.totals.mixture = sizes;
    }

    fn linear(&mut self, path: &str, shape: [usize; 2], bias: bool, _: Cut) -> Result<K::Linear> {
        let [outputs, inputs] = shape;
        let weight = self.checkpoint.matrix(path, outputs, inputs, self.quantization)?;
        self.totals.count_matrix(&weight);
        let bias = self.host_bias(path, &[outputs], bias)?;
        let hadamard = self.hadamard(path, inputs)?;
        self.sink.linear(HostLinear { weight, bias, hadamard })
    }

    fn split(
        &mut self,
        path: &str,
        shape: [usize; 2],
        bias: bool,
        parts: &[Vec<Range<usize>>],
        _: Cut,
    ) -> Result<Vec<K::Linear>> {
        let [outputs, inputs] = shape;
        let weight = self.checkpoint.matrix(path, outputs, inputs, self.quantization)?;
        self.totals.count_matrix(&weight);
        let bias = self.host_bias(path, &[outputs], bias)?;
        let hadamard = self.hadamard(path, inputs)?;
        let part = |ranges: &Vec<Range<usize>>| {
            let bias = bias.as_ref().map(|bias| bias.select_rows(ranges)).transpose()?;
            self.sink.linear(HostLinear {
                weight: weight.select_rows(ranges)?,
                bias,
                hadamard: hadamard.clone(),
            })
        };
        parts.iter().map(part).collect()
    }

    fn stack(&mut self, path: &str, shape: [usize; 3], bias: bool, _: Cut) -> Result<K::Linear> {
        let weight = self.checkpoint.stack(path, shape, self.quantization)?;
        self.host_stack(weight, path, shape, bias)
    }

    fn experts(
        &mut self,
        path: &str,
        shape: [usize; 3],
        bias: bool,
        _: Cut,
    ) -> Result<(K::Linear, Option<K::Vector>)> {
        let (weight, factors) = self.checkpoint.experts(path, shape, self.quantization)?;
        let linear = self.host_stack(weight, path, shape, bias)?;
        let factors = match factors {
            Some(factors) => {
                self.totals.parameters += factors.len() as u64;
                self.totals.count(&factors);
                Some(self.sink.vector(factors, same)?)
            }
            None => None,
        };
        Ok((linear, factors))
    }

    fn turned(&mut self, name: &str, shape: [usize; 3]) -> Result<K::Linear> {
        let [count, inputs, outputs] = shape;
        let tensor = self.checkpoint.tensor(name, &shape)?.reshape(&[count * inputs, outputs])?;
        let weight = MatrixData::dense(tensor)?;
        self.totals.count_matrix(&weight);
        let shape = [count * outputs, inputs];
        let turn = move |values: Vec<f32>| turned(&values, inputs, outputs);
        self.sink.linear(made_of(name.to_owned(), shape, weight, turn)?)
    }

    fn first_row(&mut self, path: &str, shape: [usize; 2]) -> Result<K::Linear> {
        let [rows, columns] = shape;
        let matrix = self.checkpoint.matrix(path, rows, columns, self.quantization)?;
        let row = matrix.select_rows(std::slice::from_ref(&(0..1)))?;
        self.sink.linear(made_of(format!("{path}.weight"), [columns, 1], row, |values| values)?)
    }

    fn latent(
        &mut self,
        at: &str,
        heads: usize,
        rank: usize,
        dims: [usize; 2],
        joined: bool,
    ) -> Result<[K::Linear; 2]> {
        let [key, value] = dims;
        // Where there is neither, the error names what the converter writes.
        if self.has(&format!("{at}.embed_q.weight"))
            || !joined && !self.has(&format!("{at}.kv_b_proj.weight"))
        {
            return latent_stacks(self, at, heads, rank, dims);
        }
        // One matrix for both, as the models were published: for each head the rows of its keys, then those of its
        // values. What queries are multiplied with is the keys' part the other way round, which packed words cannot
        // express.
        let path = format!("{at}.kv_b_proj");
        let both = self.checkpoint.matrix(&path, heads * (key + value), rank, self.quantization)?;
        self.totals.count_matrix(&both);
        let rows = |first: usize, len: usize| -> Vec<Range<usize>> {
            (0..heads).map(|head| head * (key + value) + first).map(|start| start..start + len).collect()
        };
        let turn = move |values: Vec<f32>| turned(&values, key, rank);
        let keys = both.select_rows(&rows(0, key))?;
        let keys = made_of(format!("{path}.weight"), [heads * rank, key], keys, turn)?;
        let values = both.select_rows(&rows(key, value))?;
        Ok([self.sink.linear(keys)?, self.sink.linear(HostLinear::new(values, None))?])
    }

    fn vector(&mut self, name: &str, shape: &[usize], change: fn(f32) -> f32) -> Result<K::Vector> {
        let host = self.host_vector(name, shape)?;
        self.sink.vector(host, change)
    }

    fn constant(&mut self, shape: [usize; 2], value: impl Fn(usize) -> f32) -> Result<K::Vector> {
        self.sink.constant(shape, value)
    }

    fn repeated(
        &mut self,
        name: &str,
        len: usize,
        times: usize,
        change: fn(f32) -> f32,
    ) -> Result<K::Vector> {
        let host = self.host_vector(name, &[len])?;
        if times == 1 {
            return self.sink.vector(host, change);
        }
        let numbers = host.to_f32()?.into_iter().map(change);
        let values: Vec<f32> = numbers.flat_map(|n| std::iter::repeat_n(n, times)).collect();
        self.sink.vector(TensorData::from_f32(name, &[values.len()], &values)?, same)
    }

    fn kernels(&mut self, path: &str, columns: usize, taps: usize) -> Result<K::Vector> {
        let name = format!("{path}.weight");
        // As PyTorch has them, the taps come last: the same numbers in the same order.
        let published = self.checkpoint.get(&name).is_some_and(|tensor| tensor.shape() == [columns, 1, taps]);
        let shape = if published { [columns, 1, taps] } else { [columns, taps, 1] };
        let tensor = self.checkpoint.tensor(&name, &shape)?;
        self.totals.parameters += tensor.len() as u64;
        self.totals.count(&tensor);
        let tensor = tensor.reshape(&[columns, taps])?;
        self.sink.vector(tensor, same)
    }

    fn head_kernels(&mut self, name: &str, heads: usize, taps: usize, width: usize) -> Result<K::Vector> {
        let host = self.host_vector(name, &[1, 1, heads, 1, taps])?.to_f32()?;
        let values: Vec<f32> = host.chunks_exact(taps).flat_map(|kernel| kernel.repeat(width)).collect();
        self.sink.vector(TensorData::from_f32(name, &[heads * width, taps], &values)?, same)
    }
}
