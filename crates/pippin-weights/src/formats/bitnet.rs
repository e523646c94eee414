//! BitNet's ternary weights: four rows in the fields of one row of bytes, and one scale for the whole matrix.

use serde_json::Value;

use super::{GROUPS, Tensors, matrix, problem, word, write_floats};
use crate::dtype::Dtype;
use crate::error::WeightsError;
use crate::tensor::{TensorData, read_float};

pub(super) const SUFFIX: &str = ".weight_scale";

/// Bits of a weight, which is a field's number less one: −1, 0 or 1.
const BITS: usize = 2;

/// Puts packed matrices in MLX's layout of two bits: `weight = scale * q - scale`.
///
/// Layers of the type that `transformers` calls `bitlinear`, which it takes if the configuration does not say, have stored
/// what is divided by; those of `autobitlinear`, and all of the family `bitnet`, what is multiplied by.
pub(super) fn unpack(tensors: &mut Tensors, config: &Value) -> Result<(), WeightsError> {
    let class = super::section(config).and_then(|section| section.get("linear_class"));
    let is_family = config.get("model_type").is_some_and(|name| name == "bitnet");
    let divides = !is_family && class.is_none_or(|class| class != "autobitlinear");
    for path in super::modules(tensors, SUFFIX) {
        // Other formats have scales of this name, too, but of other weights.
        let (weight_name, scale_name) = (format!("{path}.weight"), format!("{path}{SUFFIX}"));
        let (Some(packed), Some(scale)) = (tensors.get(&weight_name), tensors.get(&scale_name)) else {
            continue;
        };
        if packed.dtype() != Dtype::U8 || scale.len() != 1 {
            continue;
        }
        let converted = convert(&path, packed, scale, divides)?;
        tensors.remove(&scale_name);
        tensors.extend(converted.map(|tensor| (tensor.name().to_owned(), tensor)));
    }
    Ok(())
}

fn convert(
    path: &str,
    packed: &TensorData,
    scale: &TensorData,
    divides: bool,
) -> Result<[TensorData; 3], WeightsError> {
    if !scale.dtype().is_weight_float() {
        return Err(problem(scale, format!("must be F16, BF16 or F32, found {}", scale.dtype())));
    }
    let [packed_rows, columns] = matrix(packed)?;
    let Some(group) = GROUPS.into_iter().find(|size| columns.is_multiple_of(*size)) else {
        return Err(problem(packed, format!("rows of {columns} weights are not a multiple of 32")));
    };
    let (rows, file) = (packed_rows.saturating_mul(8 / BITS), packed.file());
    let source = packed.clone();
    let words = [rows, columns * BITS / 32];
    let weight = TensorData::deferred(format!("{path}.weight"), Dtype::U32, &words, file, move |bytes| {
        unpack_rows(source.bytes(), packed_rows * columns, bytes);
    })?;
    // What has been divided by need not be a number of the stored type.
    let dtype = if divides { Dtype::F32 } else { scale.dtype() };
    let derived = |name: &str, sign: f32| {
        let (source, shape) = (scale.clone(), [rows, columns / group]);
        TensorData::deferred(format!("{path}.{name}"), dtype, &shape, file, move |bytes| {
            let stored = read_float(source.dtype(), source.bytes(), 0);
            let scale = if divides { 1.0 / stored } else { stored };
            write_floats(dtype, std::iter::repeat_n(sign * scale, bytes.len() / dtype.size()), bytes);
        })
    };
    Ok([weight, derived("scales", 1.0)?, derived("biases", -1.0)?])
}

/// Field `i` of byte `b` is element `b` of part `i` of the matrix, a quarter of its rows; of neighbours MLX makes a word.
fn unpack_rows(packed: &[u8], part: usize, bytes: &mut [u8]) {
    for (index, out) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let first = index * 16;
        let (field, start) = (first / part, first % part);
        // Four bytes at a time, each of which gives one field.
        let word = (0..4).fold(0, |gathered, quarter| {
            let fields = word(packed, start / 4 + quarter) >> (field * BITS) & 0x0303_0303;
            let byte = (fields | fields >> 6 | fields >> 12 | fields >> 18) & 0xff;
            gathered | byte << (8 * quarter)
        });
        *out = word.to_le_bytes();
    }
}
