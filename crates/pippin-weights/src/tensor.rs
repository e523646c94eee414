//! A tensor's bytes: mapped from a file, owned, or made when they are first read.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use half::{bf16, f16};

use crate::dtype::Dtype;
use crate::error::{TensorPlace, WeightsError};
use crate::mapped::MappedFile;

/// Immutable bytes with a name, a dtype and a shape.
///
/// The bytes are a range of a memory-mapped file, an owned buffer, or made by a function when they are first
/// read ([`deferred`](Self::deferred)); a clone, a row slice and a reshape share them. Elements lie in row-major order, little-endian.
///
/// # Alignment
///
/// [`bytes`](Self::bytes) of a mapped tensor starts wherever the file puts it. MLX does not pad the headers
/// it writes, so in real checkpoints even `U32` data commonly starts at an odd address: read elements with
/// unaligned loads (or `from_le_bytes`), or check the address first.
#[derive(Clone)]
pub struct TensorData {
    name: Arc<str>,
    dtype: Dtype,
    shape: Arc<[usize]>,
    elements: usize,
    storage: Storage,
    range: Range<usize>,
}

#[derive(Clone)]
enum Storage {
    Mapped(Arc<MappedFile>),
    Owned(Arc<Vec<u8>>),
    Deferred(Arc<Deferred>),
}

/// Writes the bytes of a tensor.
type Fill = dyn Fn(&mut [u8]) + Send + Sync;

/// Bytes that are made from others when they are first read, and then kept.
struct Deferred {
    size: usize,
    file: Option<PathBuf>,
    fill: Box<Fill>,
    bytes: OnceLock<Vec<u8>>,
}

impl Deferred {
    fn bytes(&self) -> &[u8] {
        self.bytes.get_or_init(|| {
            let mut bytes = vec![0; self.size];
            (self.fill)(&mut bytes);
            bytes
        })
    }
}

impl TensorData {
    /// A tensor that owns its bytes, which must be exactly as many as dtype and shape ask for.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Size`] when the number of bytes differs, or when the shape is too large to address.
    pub fn new(
        name: impl Into<String>,
        dtype: Dtype,
        shape: &[usize],
        bytes: Vec<u8>,
    ) -> Result<Self, WeightsError> {
        let name = name.into();
        let size_error = |problem| WeightsError::Size { place: TensorPlace::new(&name, None), problem };
        let (elements, size) = byte_size(dtype, shape)
            .ok_or_else(|| size_error(format!("shape {shape:?} is too large to address")))?;
        if bytes.len() != size {
            return Err(size_error(format!(
                "shape {shape:?} of {dtype} takes {size} bytes, but {} were given",
                bytes.len()
            )));
        }
        let range = 0..size;
        Ok(Self {
            name: name.into(),
            dtype,
            shape: shape.into(),
            elements,
            storage: Storage::Owned(Arc::new(bytes)),
            range,
        })
    }

    /// A tensor whose bytes follow from others': weights that are stored in another layout than the one that is computed
    /// with. `fill` is given zeros to write them to when they are first read, once, and whatever it needs to that
    /// end has been checked before. `file` is where they come from, for errors.
    ///
    /// So a model of which much has to be made over can be described without making any of it.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Size`] when the shape is too large to address.
    pub fn deferred(
        name: impl Into<String>,
        dtype: Dtype,
        shape: &[usize],
        file: Option<&Path>,
        fill: impl Fn(&mut [u8]) + Send + Sync + 'static,
    ) -> Result<Self, WeightsError> {
        let name = name.into();
        let (elements, size) = byte_size(dtype, shape).ok_or_else(|| WeightsError::Size {
            place: TensorPlace::new(&name, file),
            problem: format!("shape {shape:?} is too large to address"),
        })?;
        let file = file.map(Path::to_owned);
        let deferred = Deferred { size, file, fill: Box::new(fill), bytes: OnceLock::new() };
        Ok(Self {
            name: name.into(),
            dtype,
            shape: shape.into(),
            elements,
            storage: Storage::Deferred(Arc::new(deferred)),
            range: 0..size,
        })
    }

    /// An `F32` tensor that owns a copy of `values`.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Size`] when there are more or fewer values than the shape asks for.
    pub fn from_f32(name: impl Into<String>, shape: &[usize], values: &[f32]) -> Result<Self, WeightsError> {
        Self::new(name, Dtype::F32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// A `U32` tensor that owns a copy of `values`.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Size`] when there are more or fewer values than the shape asks for.
    pub fn from_u32(name: impl Into<String>, shape: &[usize], values: &[u32]) -> Result<Self, WeightsError> {
        Self::new(name, Dtype::U32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// A tensor of dtype `F32`, `F16` or `BF16` that owns a copy of `values`, rounded to nearest, ties to
    /// even.
    ///
    /// # Errors
    ///
    /// [`WeightsError::WrongDtype`] for another dtype; [`WeightsError::Size`] when there are more or fewer
    /// values than the shape asks for.
    pub fn from_f32_as(
        name: impl Into<String>,
        dtype: Dtype,
        shape: &[usize],
        values: &[f32],
    ) -> Result<Self, WeightsError> {
        let name = name.into();
        if !dtype.is_weight_float() {
            let place = TensorPlace::new(&name, None);
            return Err(WeightsError::WrongDtype { place, expected: "F16, BF16 or F32", found: dtype });
        }
        let mut bytes = Vec::with_capacity(values.len().saturating_mul(dtype.size()));
        for &value in values {
            push_float(dtype, value, &mut bytes);
        }
        Self::new(name, dtype, shape, bytes)
    }

    /// A range of a mapped file whose length the caller has checked against dtype and shape.
    pub(crate) fn mapped(
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        elements: usize,
        file: &Arc<MappedFile>,
        range: Range<usize>,
    ) -> Self {
        debug_assert!(range.start <= range.end && range.end <= file.bytes().len());
        Self {
            name: name.into(),
            dtype,
            shape: shape.into(),
            elements,
            storage: Storage::Mapped(Arc::clone(file)),
            range,
        }
    }

    /// The name in the checkpoint.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of the elements.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The sizes of the axes, slowest first; empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements == 0
    }

    /// The elements as bytes, little-endian, possibly unaligned (see the type's documentation). Deferred ones are made
    /// now, if they have not been.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let all = match &self.storage {
            Storage::Mapped(file) => file.bytes(),
            Storage::Owned(bytes) => bytes,
            Storage::Deferred(deferred) => deferred.bytes(),
        };
        &all[self.range.clone()]
    }

    /// The number of bytes, without making deferred ones.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.range.len()
    }

    /// Whether the bytes are not those of a file as they lie there, but take memory of this process.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        !matches!(self.storage, Storage::Mapped(_))
    }

    /// The file that holds the bytes, or what they are made from; `None` for a tensor made in memory.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.storage {
            Storage::Mapped(file) => Some(file.path()),
            Storage::Owned(_) => None,
            Storage::Deferred(deferred) => deferred.file.as_deref(),
        }
    }

    /// The same bytes under another name.
    #[must_use]
    pub fn renamed(&self, name: &str) -> Self {
        Self { name: name.into(), ..self.clone() }
    }

    /// The elements as `f32`.
    ///
    /// `F16` and `BF16` convert exactly, `F64` is rounded to nearest, integers convert when every value is
    /// exact.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Inexact`] for an integer beyond the exact range of `f32`; [`WeightsError::WrongDtype`]
    /// for booleans and 8-bit floats.
    pub fn to_f32(&self) -> Result<Vec<f32>, WeightsError> {
        let bytes = self.bytes();
        match self.dtype {
            Dtype::F32 => Ok(elements(bytes, f32::from_le_bytes).collect()),
            Dtype::F16 => Ok(elements(bytes, |e| f16::from_le_bytes(e).to_f32()).collect()),
            Dtype::Bf16 => Ok(elements(bytes, |e| bf16::from_le_bytes(e).to_f32()).collect()),
            Dtype::F64 => Ok(elements(bytes, |e| f64::from_le_bytes(e) as f32).collect()),
            Dtype::U8 => Ok(elements(bytes, |e| f32::from(u8::from_le_bytes(e))).collect()),
            Dtype::I8 => Ok(elements(bytes, |e| f32::from(i8::from_le_bytes(e))).collect()),
            Dtype::U16 => Ok(elements(bytes, |e| f32::from(u16::from_le_bytes(e))).collect()),
            Dtype::I16 => Ok(elements(bytes, |e| f32::from(i16::from_le_bytes(e))).collect()),
            Dtype::U32 => self.exact(elements(bytes, |e| i128::from(u32::from_le_bytes(e)))),
            Dtype::I32 => self.exact(elements(bytes, |e| i128::from(i32::from_le_bytes(e)))),
            Dtype::U64 => self.exact(elements(bytes, |e| i128::from(u64::from_le_bytes(e)))),
            Dtype::I64 => self.exact(elements(bytes, |e| i128::from(i64::from_le_bytes(e)))),
            Dtype::Bool | Dtype::F8E4m3 | Dtype::F8E5m2 | Dtype::F8E8m0 => Err(WeightsError::WrongDtype {
                place: self.place(),
                expected: "a 16- to 64-bit float or an integer",
                found: self.dtype,
            }),
        }
    }

    fn exact(&self, values: impl Iterator<Item = i128>) -> Result<Vec<f32>, WeightsError> {
        values
            .enumerate()
            .map(|(position, value)| {
                let float = value as f32;
                if float as i128 == value {
                    Ok(float)
                } else {
                    let value = value.to_string();
                    Err(WeightsError::Inexact { place: self.place(), position, value })
                }
            })
            .collect()
    }

    /// The elements of a `U32` tensor.
    ///
    /// # Errors
    ///
    /// [`WeightsError::WrongDtype`] for any other dtype.
    pub fn to_u32(&self) -> Result<Vec<u32>, WeightsError> {
        if self.dtype != Dtype::U32 {
            return Err(WeightsError::WrongDtype { place: self.place(), expected: "U32", found: self.dtype });
        }
        Ok(elements(self.bytes(), u32::from_le_bytes).collect())
    }

    /// The part of the tensor with these indices along the first axis, sharing the bytes.
    ///
    /// # Errors
    ///
    /// [`WeightsError::View`] when the tensor is a scalar or the range is not within the axis.
    pub fn slice_rows(&self, range: Range<usize>) -> Result<Self, WeightsError> {
        let rows = *self.shape.first().ok_or_else(|| WeightsError::View {
            place: self.place(),
            problem: "a scalar has no rows to slice".to_owned(),
        })?;
        if range.start > range.end || range.end > rows {
            return Err(WeightsError::View {
                place: self.place(),
                problem: format!("rows {}..{} of {rows}", range.start, range.end),
            });
        }
        // With at least one row both quotients are exact; with none, the range is 0..0.
        let elements_per_row = self.elements.checked_div(rows).unwrap_or(0);
        let bytes_per_row = elements_per_row * self.dtype.size();
        let mut shape = self.shape.to_vec();
        shape[0] = range.len();
        Ok(Self {
            shape: shape.into(),
            elements: elements_per_row * range.len(),
            range: self.range.start + bytes_per_row * range.start
                ..self.range.start + bytes_per_row * range.end,
            ..self.clone()
        })
    }

    /// Parts of the tensor along the first axis, one after the other. One range shares the bytes; several are copied
    /// together when they are first read.
    ///
    /// # Errors
    ///
    /// [`WeightsError::View`] when the tensor is a scalar or a range is not within the axis.
    pub fn select_rows(&self, ranges: &[Range<usize>]) -> Result<Self, WeightsError> {
        if let [range] = ranges {
            return self.slice_rows(range.clone());
        }
        let slices =
            ranges.iter().map(|range| self.slice_rows(range.clone())).collect::<Result<Vec<_>, _>>()?;
        let mut shape = self.shape.to_vec();
        if let Some(first) = shape.first_mut() {
            *first = slices.iter().fold(0, |rows, slice| rows.saturating_add(slice.shape[0]));
        }
        Self::deferred(self.name(), self.dtype, &shape, self.file(), move |mut bytes| {
            for slice in &slices {
                let (part, rest) = bytes.split_at_mut(slice.byte_len());
                part.copy_from_slice(slice.bytes());
                bytes = rest;
            }
        })
    }

    /// The same elements in another shape, sharing the bytes.
    ///
    /// # Errors
    ///
    /// [`WeightsError::View`] when the shape has another number of elements.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self, WeightsError> {
        match byte_size(self.dtype, shape) {
            Some((elements, _)) if elements == self.elements => {
                Ok(Self { shape: shape.into(), ..self.clone() })
            }
            _ => Err(WeightsError::View {
                place: self.place(),
                problem: format!("cannot take shape {:?} as {shape:?}", self.shape),
            }),
        }
    }

    /// The same bytes under another name, as elements of another type: what one tool calls signed words or bytes, another calls
    /// unsigned words.
    ///
    /// # Errors
    ///
    /// [`WeightsError::View`] when type and shape ask for another number of bytes.
    pub(crate) fn viewed(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Self, WeightsError> {
        match byte_size(dtype, shape) {
            Some((elements, size)) if size == self.byte_len() => {
                Ok(Self { name: name.into(), dtype, shape: shape.into(), elements, ..self.clone() })
            }
            _ => Err(WeightsError::View {
                place: self.place(),
                problem: format!("cannot take {:?} of {} as {shape:?} of {dtype}", self.shape, self.dtype),
            }),
        }
    }

    /// How errors name this tensor.
    pub(crate) fn place(&self) -> TensorPlace {
        TensorPlace::new(&self.name, self.file())
    }
}

impl fmt::Debug for TensorData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorData")
            .field("name", &self.name)
            .field("dtype", &self.dtype)
            .field("shape", &self.shape)
            .field("file", &self.file())
            .finish_non_exhaustive()
    }
}

/// Number of elements and of bytes of a shape, or `None` if they cannot be addressed.
///
/// A zero anywhere does not excuse the other sizes: strides computed from the shape must not overflow either, and whoever
/// goes through an axis must come to its end, though no byte of a file stands behind it.
pub(crate) fn byte_size(dtype: Dtype, shape: &[usize]) -> Option<(usize, usize)> {
    let nonzero = nonzero_product(shape)?;
    let bytes = nonzero.checked_mul(dtype.size()).filter(|&bytes| isize::try_from(bytes).is_ok())?;
    if shape.contains(&0) { Some((0, 0)) } else { Some((nonzero, bytes)) }
}

/// The product of the sizes that are not zero, unless it cannot be addressed, or is large though there are no elements.
pub(crate) fn nonzero_product(shape: &[usize]) -> Option<usize> {
    /// More than any layer of a published model that has been left empty.
    const EMPTY: usize = 1 << 20;
    let product = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size.max(1)))?;
    Some(product).filter(|product| !shape.contains(&0) || *product <= EMPTY)
}

/// Decodes consecutive `N`-byte elements.
fn elements<const N: usize, T>(bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> impl Iterator<Item = T> {
    bytes.as_chunks::<N>().0.iter().map(move |chunk| decode(*chunk))
}

/// Reads element `index` of a buffer of `F16`, `BF16` or `F32`; zero for other dtypes, which callers exclude.
pub(crate) fn read_float(dtype: Dtype, bytes: &[u8], index: usize) -> f32 {
    fn element<const N: usize>(bytes: &[u8], index: usize) -> [u8; N] {
        bytes.as_chunks::<N>().0[index]
    }
    match dtype {
        Dtype::F32 => f32::from_le_bytes(element(bytes, index)),
        Dtype::F16 => f16::from_le_bytes(element(bytes, index)).to_f32(),
        Dtype::Bf16 => bf16::from_le_bytes(element(bytes, index)).to_f32(),
        _ => 0.0,
    }
}

/// Rounds to `F16`, `BF16` or `F32` and back.
pub(crate) fn round_float(dtype: Dtype, value: f32) -> f32 {
    match dtype {
        Dtype::F16 => f16::from_f32(value).to_f32(),
        Dtype::Bf16 => bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// Appends a value as `F16`, `BF16` or (any other dtype) `F32`.
pub(crate) fn push_float(dtype: Dtype, value: f32, bytes: &mut Vec<u8>) {
    match dtype {
        Dtype::F16 => bytes.extend_from_slice(&f16::from_f32(value).to_le_bytes()),
        Dtype::Bf16 => bytes.extend_from_slice(&bf16::from_f32(value).to_le_bytes()),
        _ => bytes.extend_from_slice(&value.to_le_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn new_checks_the_number_of_bytes() {
        assert!(TensorData::new("a", Dtype::U16, &[2, 3], vec![0; 12]).is_ok());
        let error = TensorData::new("a", Dtype::U16, &[2, 3], vec![0; 11]).unwrap_err();
        assert_eq!(error.to_string(), "tensor `a`: shape [2, 3] of U16 takes 12 bytes, but 11 were given");
        let error = TensorData::new("a", Dtype::U16, &[usize::MAX, 3], vec![]).unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
        assert!(TensorData::new("a", Dtype::U8, &[0, usize::MAX, 3], vec![]).is_err());
        assert_eq!(TensorData::new("a", Dtype::U16, &[], vec![1, 0]).unwrap().len(), 1);
    }

    #[test]
    fn to_f32_converts_exactly_or_says_why_not() {
        let floats = [1.0f32, -0.5, 65504.0];
        for dtype in [Dtype::F32, Dtype::F16] {
            let tensor = TensorData::from_f32_as("a", dtype, &[3], &floats).unwrap();
            assert_eq!(tensor.to_f32().unwrap(), floats);
        }
        let tensor = TensorData::from_f32_as("a", Dtype::Bf16, &[3], &floats).unwrap();
        assert_eq!(tensor.to_f32().unwrap(), [1.0, -0.5, 65536.0]);

        let exact = TensorData::from_u32("a", &[2], &[1 << 24, 1 << 31]).unwrap();
        assert_eq!(exact.to_f32().unwrap(), [16_777_216.0, 2_147_483_648.0]);
        let inexact = TensorData::from_u32("ids", &[2], &[0, (1 << 24) + 1]).unwrap();
        let error = inexact.to_f32().unwrap_err();
        assert_eq!(error.to_string(), "tensor `ids`: element 1 is 16777217, which is not exact as F32");

        let integers = TensorData::new("a", Dtype::I64, &[1], (-5i64).to_le_bytes().to_vec()).unwrap();
        assert_eq!(integers.to_f32().unwrap(), [-5.0]);
        let bytes = TensorData::new("a", Dtype::I8, &[1], vec![0xff]).unwrap();
        assert_eq!(bytes.to_f32().unwrap(), [-1.0]);
        let flags = TensorData::new("a", Dtype::Bool, &[1], vec![1]).unwrap();
        assert!(matches!(flags.to_f32(), Err(WeightsError::WrongDtype { .. })));
    }

    #[test]
    fn deferred_bytes_are_made_once_and_only_when_they_are_read() {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&made);
        let tensor = TensorData::deferred("a", Dtype::U8, &[3, 2], Some(Path::new("x.gguf")), move |bytes| {
            counter.fetch_add(1, Ordering::Relaxed);
            bytes.copy_from_slice(&[0, 1, 2, 3, 4, 5]);
        })
        .unwrap();
        let last = tensor.renamed("b").slice_rows(2..3).unwrap();
        let outer = tensor.select_rows(&[2..3, 0..1]).unwrap();
        assert_eq!((last.byte_len(), outer.shape(), outer.file()), (2, &[2, 2][..], tensor.file()));
        assert_eq!(made.load(Ordering::Relaxed), 0);
        assert_eq!((last.bytes(), outer.bytes()), (&[4, 5][..], &[4, 5, 0, 1][..]));
        assert_eq!(tensor.bytes(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert!(TensorData::deferred("a", Dtype::F32, &[usize::MAX, 2], None, |_| ()).is_err());
    }

    #[test]
    fn slices_and_shapes_share_the_bytes() {
        let tensor = TensorData::from_u32("a", &[3, 2], &[0, 1, 2, 3, 4, 5]).unwrap();
        let middle = tensor.slice_rows(1..3).unwrap().slice_rows(0..1).unwrap();
        assert_eq!(middle.shape(), [1, 2]);
        assert_eq!(middle.to_u32().unwrap(), [2, 3]);
        assert_eq!(middle.bytes().as_ptr(), tensor.bytes()[8..].as_ptr());
        assert!(tensor.slice_rows(3..3).unwrap().is_empty());
        assert!(tensor.slice_rows(2..4).is_err());
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = tensor.slice_rows(2..1);
        assert!(reversed.is_err());
        assert!(tensor.reshape(&[]).is_err());
        assert_eq!(tensor.reshape(&[2, 3]).unwrap().slice_rows(1..2).unwrap().to_u32().unwrap(), [3, 4, 5]);
        let empty = TensorData::from_u32("a", &[0, 7], &[]).unwrap();
        assert_eq!(empty.slice_rows(0..0).unwrap().shape(), [0, 7]);
        let columnless = TensorData::from_u32("a", &[5, 0], &[]).unwrap();
        assert_eq!(columnless.slice_rows(2..4).unwrap().shape(), [2, 0]);
        assert!(TensorData::from_u32("a", &[], &[1]).unwrap().slice_rows(0..1).is_err());
    }
}
