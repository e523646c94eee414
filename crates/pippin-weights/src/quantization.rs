//! Quantized matrices: how they are described, read from a checkpoint's tensors, unpacked and made.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::dtype::Dtype;
use crate::error::{TensorPlace, WeightsError};
use crate::minifloat::{
    E2M1_MAX, E2M1_VALUES, E4M3_MAX, E4M3_VALUES, E8M0_VALUES, e2m1_from_f32, e4m3_from_f32, e8m0_at_least,
};
use crate::tensor::{TensorData, push_float, read_float, round_float};

/// How the elements of a quantized matrix encode weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuantMode {
    /// `weight = scale * q + bias`, with a scale and a bias per group in the dtype of the unquantized weight.
    Affine,
    /// 4-bit floats (E2M1) with a power-of-two scale (E8M0) per 32 elements.
    Mxfp4,
    /// 8-bit floats (E4M3) with a power-of-two scale (E8M0) per 32 elements.
    Mxfp8,
    /// 4-bit floats (E2M1) with an 8-bit float scale (E4M3) per 16 elements.
    Nvfp4,
}

impl QuantMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Affine, Self::Mxfp4, Self::Mxfp8, Self::Nvfp4];

    /// The name in `config.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Affine => "affine",
            Self::Mxfp4 => "mxfp4",
            Self::Mxfp8 => "mxfp8",
            Self::Nvfp4 => "nvfp4",
        }
    }

    /// What MLX takes when bits or group size are not stated.
    #[must_use]
    pub const fn default_spec(self) -> QuantSpec {
        let (bits, group_size) = match self {
            Self::Affine => (4, 64),
            Self::Mxfp4 => (4, 32),
            Self::Mxfp8 => (8, 32),
            Self::Nvfp4 => (4, 16),
        };
        QuantSpec { mode: self, bits, group_size }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

impl fmt::Display for QuantMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Mode, bits per element and group size of a quantized matrix. Displays like `4-bit affine, group 64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QuantSpec {
    /// How elements encode weights.
    pub mode: QuantMode,
    /// Bits per element.
    pub bits: u32,
    /// Consecutive elements of a row that share a scale.
    pub group_size: usize,
}

impl QuantSpec {
    /// An affine spec, not yet validated.
    #[must_use]
    pub const fn affine(bits: u32, group_size: usize) -> Self {
        Self { mode: QuantMode::Affine, bits, group_size }
    }

    /// Checks that the mode has these bits and this group size.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Spec`] if it does not.
    pub fn validate(&self) -> Result<(), WeightsError> {
        let valid = match self.mode {
            QuantMode::Affine => {
                matches!(self.bits, 2 | 3 | 4 | 5 | 6 | 8) && matches!(self.group_size, 16 | 32 | 64 | 128)
            }
            mode => *self == mode.default_spec(),
        };
        if valid {
            Ok(())
        } else {
            Err(WeightsError::Spec { problem: format!("unsupported quantization: {self}") })
        }
    }

    /// Whether MLX has it too. Affine groups of 16 are those of GGUF files; MLX has none, so that nothing is to be written
    /// with them.
    #[must_use]
    pub fn is_of_mlx(&self) -> bool {
        self.validate().is_ok() && (self.mode != QuantMode::Affine || self.group_size != 16)
    }

    /// Whether rows of so many elements are whole groups, and whole words.
    #[must_use]
    pub const fn divides(&self, cols: usize) -> bool {
        cols.is_multiple_of(self.group_size) && (cols % 32 * self.bits as usize).is_multiple_of(32)
    }

    /// The number of `u32` words in a packed row of `cols` elements, which must be whole groups and
    /// words.
    #[must_use]
    pub const fn packed_words(&self, cols: usize) -> usize {
        // Split so that no column count overflows: a group is a whole number of words.
        cols / 32 * self.bits as usize + cols % 32 * self.bits as usize / 32
    }

    /// Bits of storage per weight, scales and biases included.
    #[must_use]
    pub fn bits_per_weight(&self, scale_dtype: Dtype) -> f64 {
        let per_group = match self.mode {
            QuantMode::Affine => 2 * scale_dtype.size(),
            _ => scale_dtype.size(),
        };
        f64::from(self.bits) + (8 * per_group) as f64 / self.group_size as f64
    }
}

impl fmt::Display for QuantSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-bit {}, group {}", self.bits, self.mode, self.group_size)
    }
}

/// A quantized matrix of `rows` output and `cols` input features.
///
/// # Layout
///
/// A row of `weight` is a little-endian bit stream: element `i` occupies bits `i * bits ..` of the row,
/// counted from the lowest bit of its first word. For 2, 4 and 8 bits that is "lowest bits of each word
/// first"; elements of 3, 5 and 6 bits cross words.
#[derive(Debug, Clone)]
pub struct QuantizedData {
    /// Mode, bits and group size.
    pub spec: QuantSpec,
    /// Number of rows (output features).
    pub rows: usize,
    /// Number of columns (input features), unpacked.
    pub cols: usize,
    /// Packed elements: `U32` of shape `[rows, cols * bits / 32]`.
    pub weight: TensorData,
    /// A scale per group, of shape `[rows, cols / group_size]`: a float, or `U8` in the modes other than
    /// affine.
    pub scales: TensorData,
    /// A bias per group, like `scales`; only in affine mode.
    pub biases: Option<TensorData>,
}

impl QuantizedData {
    /// Puts the tensors together after checking all shapes and dtypes against each other.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Spec`] for bits or a group size the mode does not have; otherwise an error that names
    /// the tensor which does not fit.
    pub fn new(
        spec: QuantSpec,
        rows: usize,
        cols: usize,
        weight: TensorData,
        scales: TensorData,
        biases: Option<TensorData>,
    ) -> Result<Self, WeightsError> {
        spec.validate()?;
        if !spec.divides(cols) {
            return Err(WeightsError::Quantized {
                place: weight.place(),
                problem: format!("{cols} columns are not a whole number of groups of {}", spec.group_size),
            });
        }
        expect_dtype(&weight, weight.dtype() == Dtype::U32, "U32 (packed elements)")?;
        expect_shape(&weight, &[rows, spec.packed_words(cols)])?;
        expect_shape(&scales, &[rows, cols / spec.group_size])?;
        if spec.mode == QuantMode::Affine {
            expect_dtype(&scales, scales.dtype().is_weight_float(), "F16, BF16 or F32")?;
            let Some(biases) = &biases else {
                return Err(without_biases(&weight));
            };
            expect_shape(biases, scales.shape())?;
            expect_dtype(biases, biases.dtype() == scales.dtype(), "that of the scales")?;
        } else {
            expect_dtype(&scales, scales.dtype() == Dtype::U8, "U8 (8-bit float scales)")?;
            if let Some(biases) = &biases {
                return Err(WeightsError::Quantized {
                    place: biases.place(),
                    problem: format!("{} quantization has no biases", spec.mode),
                });
            }
        }
        Ok(Self { spec, rows, cols, weight, scales, biases })
    }

    /// Bytes of weight, scales and biases.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        [Some(&self.weight), Some(&self.scales), self.biases.as_ref()]
            .into_iter()
            .flatten()
            .map(TensorData::byte_len)
            .sum()
    }

    /// The weights as `f32`, row by row, computed in `f32`: `scale * q + bias` in affine mode, and in the other
    /// modes the product of two small floats (see [`minifloat`](crate::minifloat)), which is exact.
    ///
    /// This is the plain definition that faster kernels are tested against. In the modes other than affine it
    /// is what `mlx.core.dequantize` gives for `dtype=mlx.core.float32`, bit for bit, but for the payload of
    /// NaN.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Quantized`] for an affine matrix without biases, which [`new`](Self::new) does not make.
    pub fn dequantize(&self) -> Result<Vec<f32>, WeightsError> {
        // The product fits: the packed tensor of this shape exists.
        let mut values = vec![0.0; self.rows * self.cols];
        if self.cols > 0 {
            for (row, out) in values.chunks_exact_mut(self.cols).enumerate() {
                self.dequantize_row(row, out)?;
            }
        }
        Ok(values)
    }

    /// The weights of one row as `f32` (one embedding, say).
    ///
    /// # Errors
    ///
    /// [`WeightsError::View`] when there is no such row or `out` is not as long as a row; otherwise as
    /// [`dequantize`](Self::dequantize).
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) -> Result<(), WeightsError> {
        self.row_elements(row, out, |q, scale, bias| scale * q + bias)
    }

    /// The matrix as a dense tensor, equal bit for bit (but for the payload of NaN) to what
    /// `mlx.core.dequantize` gives when it is not told a dtype.
    ///
    /// In affine mode that is the dtype of the scales, to which MLX rounds the product and the sum. In the
    /// other modes, whose scales are 8-bit, it is `BF16`; only numbers below its range are rounded there.
    ///
    /// # Errors
    ///
    /// As [`dequantize`](Self::dequantize).
    pub fn dequantize_as_stored(&self, name: impl Into<String>) -> Result<TensorData, WeightsError> {
        let dtype = match self.spec.mode {
            QuantMode::Affine => self.scales.dtype(),
            QuantMode::Mxfp4 | QuantMode::Mxfp8 | QuantMode::Nvfp4 => Dtype::Bf16,
        };
        // Without rows, no tensor bounds the number of columns.
        let mut values = vec![0.0; if self.rows == 0 { 0 } else { self.cols }];
        let mut bytes = Vec::with_capacity(self.rows * self.cols * dtype.size());
        for row in 0..self.rows {
            self.row_elements(row, &mut values, |q, scale, bias| round_float(dtype, scale * q) + bias)?;
            for &value in &values {
                push_float(dtype, value, &mut bytes);
            }
        }
        TensorData::new(name, dtype, &[self.rows, self.cols], bytes)
    }

    /// Unpacks a row. `affine` combines an element with its group's scale and bias; in the other modes there
    /// is only one way.
    fn row_elements(
        &self,
        row: usize,
        out: &mut [f32],
        affine: impl Fn(f32, f32, f32) -> f32,
    ) -> Result<(), WeightsError> {
        if row >= self.rows || out.len() != self.cols {
            return Err(WeightsError::View {
                place: self.weight.place(),
                problem: format!(
                    "row {row} into {} values, of a matrix of {} by {}",
                    out.len(),
                    self.rows,
                    self.cols
                ),
            });
        }
        let first_group = row * (self.cols / self.spec.group_size);
        let scale_codes = self.scales.bytes();
        match self.spec.mode {
            QuantMode::Affine => {
                let biases = self.biases.as_ref().ok_or_else(|| without_biases(&self.weight))?;
                let dtype = self.scales.dtype();
                self.unpack_row(row, out, |group| {
                    let scale = read_float(dtype, scale_codes, first_group + group);
                    let bias = read_float(dtype, biases.bytes(), first_group + group);
                    let affine = &affine;
                    move |q| affine(q as f32, scale, bias)
                });
            }
            QuantMode::Mxfp4 => self.unpack_row(row, out, |group| {
                let scale = E8M0_VALUES[usize::from(scale_codes[first_group + group])];
                move |q| scale * E2M1_VALUES[q as usize & 15]
            }),
            QuantMode::Mxfp8 => self.unpack_row(row, out, |group| {
                let scale = E8M0_VALUES[usize::from(scale_codes[first_group + group])];
                move |q| scale * E4M3_VALUES[q as usize & 255]
            }),
            QuantMode::Nvfp4 => self.unpack_row(row, out, |group| {
                let scale = E4M3_VALUES[usize::from(scale_codes[first_group + group])];
                move |q| scale * E2M1_VALUES[q as usize & 15]
            }),
        }
        Ok(())
    }

    /// Unpacks a row that exists, given for each group the function from packed elements to weights.
    fn unpack_row<F: Fn(u32) -> f32>(&self, row: usize, out: &mut [f32], group_decoder: impl Fn(usize) -> F) {
        let QuantSpec { bits, group_size, .. } = self.spec;
        let row_bytes = 4 * self.spec.packed_words(self.cols);
        let packed = &self.weight.bytes()[row * row_bytes..(row + 1) * row_bytes];
        let mask = (1u32 << bits) - 1;
        // The lowest `filled` bits of `window` are the next bits of the stream. A u32 word is stored
        // little-endian, so the stream of words and the stream of bytes are the same stream.
        let mut stream = packed.iter();
        let (mut window, mut filled) = (0u32, 0u32);
        for (group, out) in out.chunks_exact_mut(group_size).enumerate() {
            let decode = group_decoder(group);
            for value in out {
                while filled < bits {
                    window |= u32::from(*stream.next().unwrap_or(&0)) << filled;
                    filled += 8;
                }
                *value = decode(window & mask);
                window >>= bits;
                filled -= bits;
            }
        }
    }
}

fn without_biases(weight: &TensorData) -> WeightsError {
    WeightsError::Quantized { place: weight.place(), problem: "affine quantization needs biases".to_owned() }
}

fn expect_shape(tensor: &TensorData, expected: &[usize]) -> Result<(), WeightsError> {
    if tensor.shape() == expected {
        return Ok(());
    }
    Err(WeightsError::WrongShape {
        place: tensor.place(),
        expected: expected.to_vec(),
        found: tensor.shape().to_vec(),
    })
}

fn expect_dtype(tensor: &TensorData, fits: bool, expected: &'static str) -> Result<(), WeightsError> {
    if fits {
        return Ok(());
    }
    Err(WeightsError::WrongDtype { place: tensor.place(), expected, found: tensor.dtype() })
}

/// A weight matrix, dense or quantized.
#[derive(Debug, Clone)]
pub enum MatrixData {
    /// `F16`, `BF16` or `F32` of shape `[rows, cols]`.
    Dense(TensorData),
    /// Packed elements with scales.
    Quantized(QuantizedData),
}

impl MatrixData {
    /// A dense matrix, after checking rank and dtype.
    ///
    /// # Errors
    ///
    /// An error that names the tensor when it is not a matrix of `F16`, `BF16` or `F32`.
    pub fn dense(tensor: TensorData) -> Result<Self, WeightsError> {
        expect_dtype(&tensor, tensor.dtype().is_weight_float(), "F16, BF16 or F32")?;
        if tensor.shape().len() != 2 {
            return Err(WeightsError::View {
                place: tensor.place(),
                problem: format!("shape {:?} is not that of a matrix", tensor.shape()),
            });
        }
        Ok(Self::Dense(tensor))
    }

    /// Number of rows (output features).
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Dense(tensor) => tensor.shape().first().copied().unwrap_or(0),
            Self::Quantized(matrix) => matrix.rows,
        }
    }

    /// Number of columns (input features).
    #[must_use]
    pub fn cols(&self) -> usize {
        match self {
            Self::Dense(tensor) => tensor.shape().get(1).copied().unwrap_or(0),
            Self::Quantized(matrix) => matrix.cols,
        }
    }

    /// Some of the rows, one range after the other. One range shares the bytes; several are copied together.
    ///
    /// # Errors
    ///
    /// [`WeightsError::View`] when a range is not within the rows.
    pub fn select_rows(&self, ranges: &[Range<usize>]) -> Result<Self, WeightsError> {
        Ok(match self {
            Self::Dense(tensor) => Self::Dense(tensor.select_rows(ranges)?),
            Self::Quantized(matrix) => Self::Quantized(QuantizedData {
                spec: matrix.spec,
                rows: ranges.iter().map(ExactSizeIterator::len).sum(),
                cols: matrix.cols,
                weight: matrix.weight.select_rows(ranges)?,
                scales: matrix.scales.select_rows(ranges)?,
                biases: matrix.biases.as_ref().map(|biases| biases.select_rows(ranges)).transpose()?,
            }),
        })
    }

    /// Makes the bytes of tensors that are made when they are first read: when a model is loaded, and not in the midst of its
    /// first step.
    pub fn make(&self) {
        let make = |tensor: &TensorData| {
            if tensor.is_copy() {
                let _ = tensor.bytes();
            }
        };
        match self {
            Self::Dense(tensor) => make(tensor),
            Self::Quantized(matrix) => {
                [Some(&matrix.weight), Some(&matrix.scales), matrix.biases.as_ref()]
                    .into_iter()
                    .flatten()
                    .for_each(make);
            }
        }
    }

    /// Bytes of all the tensors the matrix consists of.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        match self {
            Self::Dense(tensor) => tensor.byte_len(),
            Self::Quantized(matrix) => matrix.byte_len(),
        }
    }
}

/// Finds mode, bits and group size of a matrix from its tensors, as MLX's loader does for paths its
/// configuration does not list.
///
/// `cols` comes from the model's configuration; the packed row length then gives the bits, and the number of
/// scales the group size.
pub(crate) fn infer_spec(
    weight: &TensorData,
    scales: &TensorData,
    cols: usize,
) -> Result<QuantSpec, WeightsError> {
    expect_dtype(weight, weight.dtype() == Dtype::U32, "U32 (packed elements, as the matrix has scales)")?;
    let (&[_, words], &[_, groups]) = (weight.shape(), scales.shape()) else {
        return Err(WeightsError::Quantized {
            place: weight.place(),
            problem: format!(
                "a quantized matrix has two axes, but weight and scales have shapes {:?} and {:?}",
                weight.shape(),
                scales.shape()
            ),
        });
    };
    let spec = exact_quotient(words.checked_mul(32), cols)
        .and_then(|bits| u32::try_from(bits).ok())
        .zip(exact_quotient(Some(cols), groups))
        .and_then(|(bits, group_size)| {
            let mode = match (scales.dtype(), bits, group_size) {
                (Dtype::U8, 4, 16) => QuantMode::Nvfp4,
                (Dtype::U8, 4, _) => QuantMode::Mxfp4,
                (Dtype::U8, ..) => QuantMode::Mxfp8,
                _ => QuantMode::Affine,
            };
            let spec = QuantSpec { mode, bits, group_size };
            spec.validate().is_ok().then_some(spec)
        });
    spec.ok_or_else(|| WeightsError::Quantized {
        place: weight.place(),
        problem: format!(
            "no quantization has {words} words and {groups} {} scales in a row of {cols} columns",
            scales.dtype()
        ),
    })
}

fn exact_quotient(dividend: Option<usize>, divisor: usize) -> Option<usize> {
    let dividend = dividend?;
    (divisor != 0 && dividend.is_multiple_of(divisor)).then(|| dividend / divisor)
}

/// Quantizes a row-major matrix exactly as `mlx.core.quantize` does with an array of dtype `scale_dtype`.
///
/// `values` are first rounded to `scale_dtype`, the dtype that scales and biases get. The scale of a group is
/// negative unless its smallest value is the largest in magnitude; the larger end of the range and zero are
/// exactly representable. The tensors are named `weight`, `scales` and `biases`; [`TensorData::renamed`] puts
/// a module path in front.
///
/// # Errors
///
/// [`WeightsError::Spec`] for a spec that is invalid or not affine; [`WeightsError::WrongDtype`] when
/// `scale_dtype` is not `F16`, `BF16` or `F32`; [`WeightsError::Size`] or [`WeightsError::Quantized`] when
/// values, rows, columns and group size do not fit together; [`WeightsError::Values`] for values that are not
/// finite in `scale_dtype`.
pub fn quantize_affine(
    values: &[f32],
    rows: usize,
    cols: usize,
    spec: QuantSpec,
    scale_dtype: Dtype,
) -> Result<QuantizedData, WeightsError> {
    if spec.mode != QuantMode::Affine {
        return Err(WeightsError::Spec { problem: format!("cannot quantize to {spec}: not affine") });
    }
    spec.validate()?;
    if !spec.is_of_mlx() {
        return Err(WeightsError::Spec {
            problem: format!("cannot quantize to {spec}: MLX has no such groups"),
        });
    }
    check_values(values.len(), rows, cols, spec, scale_dtype)?;
    let groups = values.len() / spec.group_size;
    let mut packed = Vec::with_capacity(values.len() / 8 * spec.bits as usize);
    let mut scales = Vec::with_capacity(groups * scale_dtype.size());
    let mut biases = Vec::with_capacity(groups * scale_dtype.size());
    let mut group = vec![0.0f32; spec.group_size];
    let largest = ((1u32 << spec.bits) - 1) as f32;
    for (index, source) in values.chunks_exact(spec.group_size).enumerate() {
        round_group(source, &mut group, scale_dtype, index * spec.group_size, cols)?;
        let (scale, bias) = scale_and_bias(&group, largest);
        if !round_float(scale_dtype, scale).is_finite() {
            return Err(WeightsError::Values {
                row: index * spec.group_size / cols,
                column: index * spec.group_size % cols,
                problem: format!("the range of the group is not finite as {scale_dtype}"),
            });
        }
        push_float(scale_dtype, scale, &mut scales);
        push_float(scale_dtype, bias, &mut biases);
        let (mut window, mut filled) = (0u32, 0u32);
        for &value in &group {
            let element = ((value - bias) / scale).round_ties_even().max(0.0).min(largest) as u32;
            window |= element << filled;
            filled += spec.bits;
            while filled >= 8 {
                packed.push(window as u8);
                window >>= 8;
                filled -= 8;
            }
        }
    }
    let groups_per_row = cols / spec.group_size;
    QuantizedData::new(
        spec,
        rows,
        cols,
        TensorData::new("weight", Dtype::U32, &[rows, spec.packed_words(cols)], packed)?,
        TensorData::new("scales", scale_dtype, &[rows, groups_per_row], scales)?,
        Some(TensorData::new("biases", scale_dtype, &[rows, groups_per_row], biases)?),
    )
}

/// MLX's rule for a group, in `f32`.
fn scale_and_bias(group: &[f32], largest: f32) -> (f32, f32) {
    let max = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let min = group.iter().copied().fold(f32::INFINITY, f32::min);
    let min_is_edge = min.abs() > max.abs();
    let magnitude = ((max - min) / largest).max(1e-7);
    let scale = if min_is_edge { magnitude } else { -magnitude };
    let edge = if min_is_edge { min } else { max };
    let steps = (edge / scale).round_ties_even();
    if steps == 0.0 { (scale, 0.0) } else { (edge / steps, edge) }
}

/// Quantizes a row-major matrix to `mxfp4`, `mxfp8` or `nvfp4`, as `mlx.core.quantize` does on the CPU with an
/// array of dtype `dtype`.
///
/// `values` are first rounded to `dtype`, and so are the quotients of values and scales. The scale of a group is
/// its largest magnitude divided by the largest element, rounded up to a power of two in the MX modes, so that
/// no element saturates, and to the nearest E4M3 in `nvfp4`. Elements are rounded by
/// [`e2m1_from_f32`](crate::minifloat::e2m1_from_f32) and [`e4m3_from_f32`](crate::minifloat::e4m3_from_f32).
/// A group of zeros has the scale 1 in the MX modes and 0 in `nvfp4`.
///
/// The result equals that of MLX 0.32.4 except in MX groups whose scale would be less than 2^-127: there MLX's
/// wraps around to a huge one. MLX's kernels for GPUs round ties of E2M1 to even codes and keep the sign of zero.
///
/// # Errors
///
/// [`WeightsError::Spec`] for affine mode; the others as [`quantize_affine`].
pub fn quantize_minifloat(
    values: &[f32],
    rows: usize,
    cols: usize,
    mode: QuantMode,
    dtype: Dtype,
) -> Result<QuantizedData, WeightsError> {
    let spec = mode.default_spec();
    let largest = match mode {
        QuantMode::Affine => {
            let problem = "cannot quantize to affine with 8-bit scales".to_owned();
            return Err(WeightsError::Spec { problem });
        }
        QuantMode::Mxfp4 | QuantMode::Nvfp4 => E2M1_MAX,
        QuantMode::Mxfp8 => E4M3_MAX,
    };
    check_values(values.len(), rows, cols, spec, dtype)?;
    let mut packed = Vec::with_capacity(values.len() / 8 * spec.bits as usize);
    let mut scales = Vec::with_capacity(values.len() / spec.group_size);
    let mut group = vec![0.0f32; spec.group_size];
    for (index, source) in values.chunks_exact(spec.group_size).enumerate() {
        round_group(source, &mut group, dtype, index * spec.group_size, cols)?;
        let magnitude = group.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let wanted = round_float(dtype, magnitude / largest);
        let (code, scale) = match mode {
            QuantMode::Nvfp4 => {
                let code = e4m3_from_f32(wanted);
                (code, E4M3_VALUES[usize::from(code)])
            }
            _ => {
                let code = if wanted == 0.0 { 127 } else { e8m0_at_least(wanted) };
                (code, E8M0_VALUES[usize::from(code)])
            }
        };
        scales.push(code);
        // A scale may be rounded to zero: the elements are then zeros too.
        let quotient = |value: f32| if scale == 0.0 { 0.0 } else { round_float(dtype, value / scale) };
        if spec.bits == 4 {
            let (pairs, _) = group.as_chunks::<2>();
            packed.extend(
                pairs
                    .iter()
                    .map(|&[low, high]| e2m1_from_f32(quotient(low)) | e2m1_from_f32(quotient(high)) << 4),
            );
        } else {
            packed.extend(group.iter().map(|&value| e4m3_from_f32(quotient(value))));
        }
    }
    QuantizedData::new(
        spec,
        rows,
        cols,
        TensorData::new("weight", Dtype::U32, &[rows, spec.packed_words(cols)], packed)?,
        TensorData::new("scales", Dtype::U8, &[rows, cols / spec.group_size], scales)?,
        None,
    )
}

/// Checks what is asked of a quantization against the values that are there.
fn check_values(
    count: usize,
    rows: usize,
    cols: usize,
    spec: QuantSpec,
    dtype: Dtype,
) -> Result<(), WeightsError> {
    spec.validate()?;
    let place = || TensorPlace::new("weight", None);
    if !dtype.is_weight_float() {
        let expected = "F16, BF16 or F32 (for weights to quantize)";
        return Err(WeightsError::WrongDtype { place: place(), expected, found: dtype });
    }
    if rows.checked_mul(cols) != Some(count) {
        let problem = format!("{count} values for {rows} rows of {cols} columns");
        return Err(WeightsError::Size { place: place(), problem });
    }
    if !cols.is_multiple_of(spec.group_size) {
        return Err(WeightsError::Quantized {
            place: place(),
            problem: format!("{cols} columns are not a whole number of groups of {}", spec.group_size),
        });
    }
    Ok(())
}

/// Rounds the values of the group that starts at index `start` of the matrix.
fn round_group(
    source: &[f32],
    group: &mut [f32],
    dtype: Dtype,
    start: usize,
    cols: usize,
) -> Result<(), WeightsError> {
    for (position, (value, &source)) in group.iter_mut().zip(source).enumerate() {
        *value = round_float(dtype, source);
        if !value.is_finite() {
            return Err(WeightsError::Values {
                row: (start + position) / cols,
                column: (start + position) % cols,
                problem: format!("{source} is not finite as {dtype}"),
            });
        }
    }
    Ok(())
}
