//! 8-bit floats with a scale for each block of a matrix, for each matrix of a stack, or for all of it.

use serde_json::{Map, Value};

use super::{Tensors, problem, write_floats};
use crate::dtype::Dtype;
use crate::error::WeightsError;
use crate::json::unsigned;
use crate::minifloat::{E4M3_VALUES, E8M0_VALUES};
use crate::tensor::{TensorData, read_float};

pub(super) const SUFFIX: &str = "_scale_inv";

/// What DeepSeek calls them from V4 on: `{path}.scale` beside `{path}.weight`.
pub(super) const SCALE: &str = ".scale";

/// Rows and columns of a block, where the configuration does not say.
const BLOCK: [usize; 2] = [128, 128];

/// Dequantizes weights of eight bits to bf16, or renames them where they are `mxfp8`.
pub(super) fn unpack(tensors: &mut Tensors, section: &Map<String, Value>) -> Result<(), WeightsError> {
    let block = section.get("weight_block_size").and_then(Value::as_array).map(Vec::as_slice);
    let size =
        |value: &Value| unsigned(value).and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
    let block = match block {
        Some([rows, columns]) => match (size(rows), size(columns)) {
            (Some(rows), Some(columns)) => [rows, columns],
            _ => BLOCK,
        },
        _ => BLOCK,
    };
    let powers = section.get("scale_fmt").is_some_and(|format| format == "ue8m0");
    let scales: Vec<String> = tensors.keys().filter(|name| name.ends_with(SUFFIX)).cloned().collect();
    for name in scales {
        let Some(scales) = tensors.remove(&name) else { continue };
        let weight_name = name.trim_end_matches(SUFFIX).to_owned();
        // Scales of what is not there, or not quantized, are nobody's.
        let Some(weight) =
            tensors.get(&weight_name).filter(|weight| weight.dtype() == Dtype::F8E4m3).cloned()
        else {
            continue;
        };
        let path = weight_name.strip_suffix(".weight");
        let converted = match path {
            Some(path) if powers && block == [32, 32] => packed(path, &weight, &scales)?,
            _ => vec![dense(&weight_name, &weight, &scales, block)?],
        };
        tensors.remove(&weight_name);
        tensors.extend(converted.into_iter().map(|tensor| (tensor.name().to_owned(), tensor)));
    }
    for path in super::modules(tensors, SCALE) {
        let of = |parameter: &str| tensors.get(&format!("{path}{parameter}")).cloned();
        let (Some(weight), Some(scales)) = (of(".weight"), of(SCALE)) else { continue };
        let are_powers = matches!(scales.dtype(), Dtype::F8E8m0 | Dtype::U8);
        // Anything else of that name is a parameter by itself.
        let converted = match weight.dtype() {
            Dtype::F8E4m3 if are_powers => packed(&path, &weight, &scales)?,
            // Of 32 rows together, or of each.
            Dtype::F8E4m3 => {
                let rows = super::matrix(&weight)?[0];
                let block = if super::matrix(&scales)?[0] == rows { [1, 32] } else { [32, 32] };
                vec![dense(weight.name(), &weight, &scales, block)?]
            }
            Dtype::I8 | Dtype::U8 if are_powers => packed_in_halves(&path, &weight, &scales)?,
            Dtype::I8 | Dtype::U8 => {
                let found = scales.dtype();
                return Err(problem(&scales, format!("must be F8_E8M0 beside 4-bit floats, found {found}")));
            }
            _ => continue,
        };
        tensors.remove(&format!("{path}{SCALE}"));
        tensors.remove(weight.name());
        tensors.extend(converted.into_iter().map(|tensor| (tensor.name().to_owned(), tensor)));
    }
    Ok(())
}

/// What reads scale `index`, if the tensor has scales.
fn scale_reader(scales: &TensorData) -> Result<impl Fn(&[u8], usize) -> f32 + use<>, WeightsError> {
    let dtype = scales.dtype();
    if !dtype.is_weight_float() && !matches!(dtype, Dtype::F8E8m0 | Dtype::U8) {
        return Err(problem(scales, format!("must be F16, BF16, F32 or F8_E8M0, found {dtype}")));
    }
    Ok(move |bytes: &[u8], index: usize| match dtype {
        // Exponents have no type of their own everywhere.
        Dtype::F8E8m0 | Dtype::U8 => E8M0_VALUES[usize::from(bytes[index])],
        dtype => read_float(dtype, bytes, index),
    })
}

/// `bf16(weight * scale)`, each product rounded once.
fn dense(
    name: &str,
    weight: &TensorData,
    scales: &TensorData,
    block: [usize; 2],
) -> Result<TensorData, WeightsError> {
    let read = scale_reader(scales)?;
    let &[ref outer @ .., rows, columns] = weight.shape() else {
        return Err(problem(weight, format!("must be a matrix, found shape {:?}", weight.shape())));
    };
    // One scale for everything, one for each matrix of a stack, or one for each block.
    let count: usize = outer.iter().product();
    let found = scales.shape();
    let [block_rows, block_columns] = block;
    let blocks = [rows.div_ceil(block_rows), columns.div_ceil(block_columns)];
    let (block_rows, block_columns, per_matrix) = if scales.len() == 1 {
        (rows.max(1), columns.max(1), 0)
    } else if found.len() == outer.len() + 2 && found.starts_with(outer) && found.ends_with(&[1, 1]) {
        (rows.max(1), columns.max(1), 1)
    } else if found.len() == outer.len() + 2 && found.starts_with(outer) && found.ends_with(&blocks) {
        (block_rows, block_columns, blocks[0] * blocks[1])
    } else if found.len() == outer.len() + 2 && found.starts_with(outer) && found.ends_with(&[rows, 1]) {
        (1, columns.max(1), rows)
    } else {
        let words = format!(
            "its shape {found:?} does not fit weights of {:?} in blocks of {block:?}",
            weight.shape()
        );
        return Err(problem(scales, words));
    };
    let per_row = columns.div_ceil(block_columns);
    let (source, scales) = (weight.clone(), scales.clone());
    TensorData::deferred(name, Dtype::Bf16, weight.shape(), weight.file(), move |bytes| {
        let (codes, scales) = (source.bytes(), scales.bytes());
        let values = (0..count * rows).flat_map(|row| {
            let (matrix, row) = (row / rows, row);
            let first = matrix * per_matrix + (row % rows) / block_rows * per_row;
            let read = &read;
            codes[row * columns..(row + 1) * columns].iter().enumerate().map(move |(column, code)| {
                E4M3_VALUES[usize::from(*code)] * read(scales, first + column / block_columns)
            })
        });
        write_floats(Dtype::Bf16, values, bytes);
    })
}

/// Powers of two for blocks of 32 rows and columns are `mxfp8`, whose scales are for 32 columns of one row.
fn packed(path: &str, weight: &TensorData, scales: &TensorData) -> Result<Vec<TensorData>, WeightsError> {
    let [rows, columns] = super::matrix(weight)?;
    let scales = exponents(path, weight, scales, [rows, columns])?;
    Ok(vec![weight.viewed(&format!("{path}.weight"), Dtype::U32, &[rows, columns / 4])?, scales])
}

/// Numbers of four bits, two in a byte, are `mxfp4` as they are.
fn packed_in_halves(
    path: &str,
    weight: &TensorData,
    scales: &TensorData,
) -> Result<Vec<TensorData>, WeightsError> {
    let [rows, bytes] = super::matrix(weight)?;
    let scales = exponents(path, weight, scales, [rows, bytes.saturating_mul(2)])?;
    Ok(vec![weight.viewed(&format!("{path}.weight"), Dtype::U32, &[rows, bytes / 4])?, scales])
}

/// The scales of a matrix of `[rows, columns]` for 32 columns of each row, from those or from scales of 32 rows together.
fn exponents(
    path: &str,
    weight: &TensorData,
    scales: &TensorData,
    [rows, columns]: [usize; 2],
) -> Result<TensorData, WeightsError> {
    let read = scale_reader(scales)?;
    let (groups, found) = (columns / 32, super::matrix(scales)?);
    let rows_of_each = match found {
        _ if !columns.is_multiple_of(32) => 0,
        [found, _] if found == rows => 1,
        [found, _] if found == rows.div_ceil(32) => 32,
        _ => 0,
    };
    if rows_of_each == 0 || found[1] != groups {
        let words = format!(
            "its shape {:?} does not fit weights of {:?} in blocks of 32",
            scales.shape(),
            weight.shape()
        );
        return Err(problem(scales, words));
    }
    let source = scales.clone();
    let name = format!("{path}.scales");
    TensorData::deferred(name, Dtype::U8, &[rows, groups], scales.file(), move |bytes| {
        for (index, code) in bytes.iter_mut().enumerate() {
            let (row, group) = (index / groups, index % groups);
            let place = row / rows_of_each * groups + group;
            *code = match source.dtype() {
                Dtype::F8E8m0 | Dtype::U8 => source.bytes()[place],
                // The exponent as it is stored in an f32 is the code.
                _ => (read(source.bytes(), place).to_bits() >> 23 & 0xff) as u8,
            };
        }
    })
}
