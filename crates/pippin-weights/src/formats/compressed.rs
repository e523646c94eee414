//! compressed-tensors: integers packed as MLX packs them, symmetric around the middle; and 4-bit floats.

use super::{GROUPS, Tensors, matrix, modules, problem, take, write_floats};
use crate::dtype::Dtype;
use crate::error::WeightsError;
use crate::tensor::{TensorData, read_float};

pub(super) const SUFFIX: &str = ".weight_packed";

/// What the format has and MLX's layout has not.
const UNSUPPORTED: [(&str, &str); 3] = [
    ("weight_zero_point", "zero points are not supported"),
    ("weight_g_idx", "groups in an order of their own are not supported"),
    ("weight_global_scale", "a scale of the whole matrix is not supported"),
];

/// Puts packed matrices in MLX's layout.
pub(super) fn unpack(tensors: &mut Tensors) -> Result<(), WeightsError> {
    for path in modules(tensors, SUFFIX) {
        let Some(packed) = tensors.remove(&format!("{path}{SUFFIX}")) else { continue };
        let scales = take(tensors, &format!("{path}.weight_scale"), &packed)?;
        let shape = tensors.remove(&format!("{path}.weight_shape"));
        for (name, what) in UNSUPPORTED {
            if let Some(tensor) = tensors.get(&format!("{path}.{name}")) {
                return Err(problem(tensor, what));
            }
        }
        let converted = match packed.dtype() {
            Dtype::I32 | Dtype::U32 => integers(&path, &packed, &scales, shape.as_ref())?,
            Dtype::U8 => floats(&path, &packed, &scales)?,
            other => return Err(problem(&packed, format!("must be I32 or U8, found {other}"))),
        };
        tensors.extend(converted.into_iter().map(|tensor| (tensor.name().to_owned(), tensor)));
    }
    Ok(())
}

/// Integers of four or eight bits, of which the middle is subtracted: `weight = scale * (q - 2^(bits - 1))`.
fn integers(
    path: &str,
    packed: &TensorData,
    scales: &TensorData,
    shape: Option<&TensorData>,
) -> Result<Vec<TensorData>, WeightsError> {
    if !scales.dtype().is_weight_float() {
        return Err(problem(scales, format!("must be F16, BF16 or F32, found {}", scales.dtype())));
    }
    let ([outputs, words], [rows, groups]) = (matrix(packed)?, matrix(scales)?);
    let inputs = match shape.map(TensorData::to_f32).transpose()?.as_deref() {
        Some(&[_, inputs]) => inputs as usize,
        _ => words.saturating_mul(8),
    };
    let bits = match words.checked_mul(32) {
        Some(all) if all == inputs.saturating_mul(4) => 4,
        Some(all) if all == inputs.saturating_mul(8) => 8,
        _ => return Err(problem(packed, format!("{words} words are not {inputs} elements of 4 or 8 bits"))),
    };
    let group = inputs.checked_div(groups).filter(|group| group * groups == inputs).unwrap_or(0);
    let size = GROUPS.into_iter().find(|size| group > 0 && group.is_multiple_of(*size));
    let Some(size) = size.filter(|_| rows == outputs) else {
        let words = format!("{groups} groups of {inputs} inputs are not a multiple of 32 each");
        return Err(problem(scales, words));
    };
    let (dtype, middle) = (scales.dtype(), -((1 << (bits - 1)) as f32));
    let repeats = group / size;
    let derived = |name: &str, factor: f32| {
        let (source, name) = (scales.clone(), format!("{path}.{name}"));
        TensorData::deferred(name, dtype, &[outputs, groups * repeats], scales.file(), move |bytes| {
            let read = |index| factor * read_float(dtype, source.bytes(), index / repeats);
            write_floats(dtype, (0..outputs * groups * repeats).map(read), bytes);
        })
    };
    Ok(vec![
        packed.viewed(&format!("{path}.weight"), Dtype::U32, &[outputs, words])?,
        derived("scales", 1.0)?,
        derived("biases", middle)?,
    ])
}

/// Floats of four bits with 8-bit scales: MLX's layout but for the names.
fn floats(path: &str, packed: &TensorData, scales: &TensorData) -> Result<Vec<TensorData>, WeightsError> {
    let [outputs, bytes] = matrix(packed)?;
    if !bytes.is_multiple_of(4) {
        return Err(problem(packed, format!("rows of {bytes} bytes are not whole words")));
    }
    let is_scale = matches!(scales.dtype(), Dtype::U8 | Dtype::F8E4m3 | Dtype::F8E8m0);
    if !is_scale || matrix(scales)?[0] != outputs {
        return Err(problem(scales, format!("must be 8-bit scales of {outputs} rows")));
    }
    Ok(vec![
        packed.viewed(&format!("{path}.weight"), Dtype::U32, &[outputs, bytes / 4])?,
        scales.viewed(&format!("{path}.scales"), Dtype::U8, scales.shape())?,
    ])
}
