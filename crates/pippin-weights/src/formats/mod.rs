//! Weights that other tools have quantized, in MLX's layout.
//!
//! A checkpoint that AutoAWQ, GPTQ or compressed-tensors packed holds the same kind of numbers as an MLX one, integers with
//! scales for groups of them, in another order and under other names. So it is not dequantized but put in order, as mlx-lm
//! does. Weights of eight bits with a scale for each block of them become bf16, or `mxfp8` where the scales are powers of two
//! for blocks of 32; BitNet's ternary weights become MLX's of two bits. Everything is done when a tensor is first read;
//! whether it can be done is checked before.
//!
//! What counts are the tensors' names, not what `config.json` calls the method: that sets only what names and shapes leave open.

mod awq;
mod bitnet;
mod blocks;
mod compressed;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::checkpoint::Checkpoint;
use crate::error::WeightsError;
use crate::tensor::TensorData;

/// Groups that MLX has, largest first: a larger group becomes several of one of these.
const GROUPS: [usize; 3] = [128, 64, 32];

/// The tensors of a checkpoint by name, while some are replaced.
type Tensors = BTreeMap<String, TensorData>;

impl Checkpoint {
    /// The checkpoint with the weights of AWQ, GPTQ, compressed-tensors, BitNet and block-wise FP8 in MLX's layout: `weight`,
    /// `scales` and `biases`, or a dense `weight`. One without such weights is returned as it is.
    ///
    /// `config` is the model's `config.json`. Biases are rounded to the type of the scales, dequantized weights to bf16, as in mlx-lm.
    ///
    /// # Errors
    ///
    /// Tensors that do not fit each other, and what these formats have that MLX's layout has not: weights in an order of
    /// their own (`g_idx`), other numbers of bits. The error names the tensor.
    pub fn unpacked(&self, config: &Value) -> Result<Self, WeightsError> {
        let packed = [awq::SUFFIX, bitnet::SUFFIX, compressed::SUFFIX, blocks::SUFFIX, blocks::SCALE];
        if !self.names().any(|name| packed.iter().any(|suffix| name.ends_with(suffix))) {
            return Ok(self.clone());
        }
        let empty = Map::new();
        let section = section(config).unwrap_or(&empty);
        let mut tensors: Tensors =
            self.tensors().map(|tensor| (tensor.name().to_owned(), tensor.clone())).collect();
        awq::unpack(&mut tensors, section)?;
        compressed::unpack(&mut tensors)?;
        bitnet::unpack(&mut tensors, config)?;
        blocks::unpack(&mut tensors, section)?;
        Ok(self.with_tensors(tensors.into_iter().map(|(name, tensor)| tensor.renamed(&name))))
    }
}

/// The section in which other tools say how they have quantized.
fn section(config: &Value) -> Option<&Map<String, Value>> {
    let object = |pointer: &str| config.pointer(pointer)?.as_object();
    object("/quantization_config").or_else(|| object("/text_config/quantization_config"))
}

/// The paths of the modules that have a tensor of a name that ends so.
fn modules(tensors: &Tensors, suffix: &str) -> Vec<String> {
    tensors.keys().filter_map(|name| name.strip_suffix(suffix)).map(str::to_owned).collect()
}

/// A tensor that a format must have.
fn take(tensors: &mut Tensors, name: &str, beside: &TensorData) -> Result<TensorData, WeightsError> {
    tensors.remove(name).ok_or_else(|| problem(beside, format!("`{name}` is missing beside it")))
}

/// An error about a packed tensor.
fn problem(tensor: &TensorData, problem: impl Into<String>) -> WeightsError {
    WeightsError::Quantized { place: tensor.place(), problem: problem.into() }
}

/// The two sizes of a matrix.
fn matrix(tensor: &TensorData) -> Result<[usize; 2], WeightsError> {
    match tensor.shape() {
        &[rows, columns] => Ok([rows, columns]),
        shape => Err(problem(tensor, format!("must be a matrix, found shape {shape:?}"))),
    }
}

/// Writes `f32` values in a floating-point type of weights.
fn write_floats(dtype: crate::Dtype, values: impl Iterator<Item = f32>, bytes: &mut [u8]) {
    let mut written = Vec::with_capacity(bytes.len());
    values.for_each(|value| crate::tensor::push_float(dtype, value, &mut written));
    bytes.copy_from_slice(&written);
}

/// Reads a word of a packed tensor.
fn word(bytes: &[u8], index: usize) -> u32 {
    u32::from_le_bytes(bytes.as_chunks::<4>().0[index])
}
