//! From blocks to the layout of MLX: codes of a matrix in one tensor, scales and biases in two others.

#![allow(
    clippy::single_range_in_vec_init,
    reason = "rows of a matrix are a list of ranges, which may have one"
)]

use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use half::f16;

use super::blocks::{self, MAX_BLOCK, MAX_GROUPS};
use super::{GgmlType, GgufTensor};
use crate::dtype::Dtype;
use crate::error::WeightsError;
use crate::tensor::TensorData;

/// Bytes below which a tensor is made by one thread.
const PARALLEL_BYTES: usize = 1 << 20;

impl GgufTensor {
    /// The rows of all axes but the last as one list, to be chosen from.
    #[must_use]
    pub fn view(&self) -> GgufView {
        let columns = self.shape.last().copied().unwrap_or(1);
        let rows = self.shape.iter().rev().skip(1).product();
        GgufView { tensor: self.clone(), columns, shape: self.shape.to_vec(), rows: vec![0..rows] }
    }
}

/// Rows of a tensor in some order, on their way to the tensors that a model computes with.
#[derive(Debug, Clone)]
pub struct GgufView {
    tensor: GgufTensor,
    columns: usize,
    shape: Vec<usize>,
    rows: Vec<Range<usize>>,
}

impl GgufView {
    /// The sizes of the axes.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements of a row: the size of the last axis.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.iter().map(Range::len).sum()
    }

    fn error(&self, problem: String) -> WeightsError {
        WeightsError::View {
            place: crate::TensorPlace::new(self.tensor.name(), Some(self.tensor.path())),
            problem,
        }
    }

    /// Other rows, or the same in another order: a matrix of two axes.
    ///
    /// # Errors
    ///
    /// [`WeightsError::View`] for rows that are not there.
    pub fn select_rows(&self, ranges: &[Range<usize>]) -> Result<Self, WeightsError> {
        let mut rows: Vec<Range<usize>> = Vec::new();
        let all = self.rows();
        let whole = self.rows.len() == 1;
        for range in ranges {
            if range.start > range.end || range.end > all {
                return Err(self.error(format!("rows {}..{} of {all}", range.start, range.end)));
            }
            // A view of a view is composed row by row; of the whole it is the ranges themselves.
            let first = self.rows.first().map_or(0, |first| first.start);
            let parts: Vec<Range<usize>> = if whole {
                vec![first + range.start..first + range.end]
            } else {
                self.rows
                    .iter()
                    .cloned()
                    .flatten()
                    .skip(range.start)
                    .take(range.len())
                    .map(|row| row..row + 1)
                    .collect()
            };
            for part in parts {
                match rows.last_mut() {
                    Some(last) if last.end == part.start => last.end = part.end,
                    _ => rows.push(part),
                }
            }
        }
        let count = rows.iter().map(Range::len).sum();
        Ok(Self { shape: vec![count, self.columns], rows, ..self.clone() })
    }

    /// The same elements in another shape, of which the last axis stays.
    ///
    /// # Errors
    ///
    /// [`WeightsError::View`] when the shape does not fit.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self, WeightsError> {
        let rows = shape.iter().rev().skip(1).try_fold(1usize, |product, size| product.checked_mul(*size));
        if rows != Some(self.rows()) || shape.last().copied().unwrap_or(1) != self.columns {
            return Err(self.error(format!("cannot take shape {:?} as {shape:?}", self.shape)));
        }
        Ok(Self { shape: shape.to_vec(), ..self.clone() })
    }

    /// A vector of numbers as a column, so that its elements can be chosen as rows.
    ///
    /// # Errors
    ///
    /// [`WeightsError::View`] for anything but a vector, and for one of blocks.
    pub fn as_column(&self) -> Result<Self, WeightsError> {
        match *self.shape.as_slice() {
            [len] if self.tensor.kind().block_len() == 1 && self.rows == [0..1] => {
                Ok(Self { columns: 1, shape: vec![len, 1], rows: vec![0..len], ..self.clone() })
            }
            _ => Err(self.error(format!(
                "shape {:?} of {} is not a vector of numbers",
                self.shape,
                self.tensor.kind()
            ))),
        }
    }

    /// What [`as_column`](Self::as_column) was made from, or some of its elements, as a vector.
    #[must_use]
    pub fn as_vector(&self) -> Self {
        Self { shape: vec![self.rows() * self.columns], ..self.clone() }
    }

    /// The tensors that MLX has for it: `{path}.weight`, and where it is quantized `{path}.scales` and, in affine mode,
    /// `{path}.biases`. A bias, or what else is a tensor by itself, is dense: `{path}` is then its full name.
    ///
    /// Numbers stay where they are in the file, unless rows were chosen. Blocks are taken apart when the tensors are first
    /// read.
    ///
    /// # Errors
    ///
    /// [`WeightsError::GgufType`] for a type that is not read, or that has a `path` of its own although it is quantized.
    pub fn tensors(&self, path: &str) -> Result<Vec<TensorData>, WeightsError> {
        let kind = self.tensor.kind();
        let refused = |problem: String| WeightsError::GgufType {
            place: crate::TensorPlace::new(self.tensor.name(), Some(self.tensor.path())),
            problem,
        };
        if let Some(dtype) = kind.dtype() {
            return Ok(vec![self.dense(path, dtype)?]);
        }
        let Some((spec, scale_dtype)) = kind.quantization() else {
            return Err(refused(format!("type {kind} is not read, only {}", GgmlType::readable())));
        };
        let Some(module) = path.strip_suffix(".weight") else {
            return Err(refused(format!(
                "{path} cannot be of type {kind}, only the weights of matrices can"
            )));
        };
        let Some((_, outer)) = self.shape.split_last().filter(|(_, outer)| !outer.is_empty()) else {
            return Err(refused(format!("a vector cannot be of type {kind}")));
        };
        // A block is whole groups, and whole words.
        let with_columns = |columns: usize| [outer, &[columns]].concat();
        let rows: Arc<[Range<usize>]> = self.rows.as_slice().into();
        let deferred = |name: &str, dtype: Dtype, columns: usize, fill: fn(GgmlType, &[u8], &mut Vec<u8>)| {
            let (tensor, rows, width) = (self.tensor.clone(), Arc::clone(&rows), columns * dtype.size());
            let file = self.tensor.path();
            let row_bytes = self.columns / kind.block_len() * kind.block_bytes();
            TensorData::deferred(
                format!("{module}.{name}"),
                dtype,
                &with_columns(columns),
                Some(file),
                move |out| {
                    fill_rows(&tensor, &rows, row_bytes, width, out, fill);
                },
            )
        };
        let groups = self.columns / spec.group_size;
        let packed: fn(GgmlType, &[u8], &mut Vec<u8>) = match spec.bits {
            2 => pack::<2>,
            3 => pack::<3>,
            4 => pack::<4>,
            5 => pack::<5>,
            6 => pack::<6>,
            _ => pack::<8>,
        };
        let weight = deferred("weight", Dtype::U32, spec.packed_words(self.columns), packed)?;
        Ok(match scale_dtype {
            Dtype::U8 => vec![weight, deferred("scales", Dtype::U8, groups, small)?],
            Dtype::F16 => vec![
                weight,
                deferred("scales", Dtype::F16, groups, scales::<true, true>)?,
                deferred("biases", Dtype::F16, groups, scales::<true, false>)?,
            ],
            _ => vec![
                weight,
                deferred("scales", Dtype::F32, groups, scales::<false, true>)?,
                deferred("biases", Dtype::F32, groups, scales::<false, false>)?,
            ],
        })
    }

    /// The rows as they are in the file, or copied together when they are first read.
    fn dense(&self, name: &str, dtype: Dtype) -> Result<TensorData, WeightsError> {
        let tensor = &self.tensor;
        let elements: usize = tensor.shape().iter().product();
        // Of a vector that is seen as a column, these are its elements.
        let rows = match elements.checked_div(self.columns) {
            Some(rows) => rows,
            None => tensor.shape().iter().rev().skip(1).product(),
        };
        let shape = [rows, self.columns];
        let all = TensorData::mapped(name, dtype, &shape, elements, &tensor.file, tensor.range.clone());
        all.select_rows(&self.rows)?.reshape(&self.shape)
    }
}

/// Fills a tensor's rows of `width` bytes from the blocks of rows, on as many threads as it is worth.
fn fill_rows(
    tensor: &GgufTensor,
    rows: &[Range<usize>],
    row_bytes: usize,
    width: usize,
    out: &mut [u8],
    fill: fn(GgmlType, &[u8], &mut Vec<u8>),
) {
    if width == 0 || row_bytes == 0 {
        return;
    }
    let (kind, bytes) = (tensor.kind(), tensor.bytes());
    let count = out.len() / width;
    let threads = match out.len() {
        ..PARALLEL_BYTES => 1,
        _ => thread::available_parallelism().map_or(1, NonZero::get).min(count).max(1),
    };
    let share = count.div_ceil(threads);
    let work = |first: usize, out: &mut [u8]| {
        let mut made = Vec::with_capacity(width);
        let rows = rows.iter().cloned().flatten().skip(first);
        for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
            made.clear();
            for block in bytes[row * row_bytes..][..row_bytes].chunks_exact(kind.block_bytes()) {
                fill(kind, block, &mut made);
            }
            out.copy_from_slice(&made);
        }
    };
    if threads == 1 {
        return work(0, out);
    }
    thread::scope(|scope| {
        for (part, out) in out.chunks_mut(share * width).enumerate() {
            scope.spawn(move || work(part * share, out));
        }
    });
}

/// A block's codes as fields of `BITS` bits, the lowest first.
fn pack<const BITS: u32>(kind: GgmlType, block: &[u8], out: &mut Vec<u8>) {
    let mut codes = [0; MAX_BLOCK];
    let codes = &mut codes[..kind.block_len()];
    blocks::codes(kind, block, codes);
    // Eight codes are a whole number of bytes.
    for eight in codes.as_chunks::<8>().0 {
        let mut word = 0u64;
        for (i, code) in eight.iter().enumerate() {
            word |= u64::from(*code) << (BITS * i as u32);
        }
        out.extend_from_slice(&word.to_le_bytes()[..BITS as usize]);
    }
}

/// A block's scales, or its biases, as `F16` (`HALF`) or `F32`.
fn scales<const HALF: bool, const SCALE: bool>(kind: GgmlType, block: &[u8], out: &mut Vec<u8>) {
    let mut groups = [(0.0, 0.0); MAX_GROUPS];
    let count = blocks::groups(kind, block, &mut groups);
    for (scale, bias) in &groups[..count] {
        let value = if SCALE { *scale } else { *bias };
        if HALF {
            out.extend_from_slice(&f16::from_f32(value).to_le_bytes());
        } else {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// A block's 8-bit scales.
fn small(kind: GgmlType, block: &[u8], out: &mut Vec<u8>) {
    let mut scales = [0; MAX_GROUPS];
    let count = blocks::small_scales(kind, block, &mut scales);
    out.extend_from_slice(&scales[..count]);
}
