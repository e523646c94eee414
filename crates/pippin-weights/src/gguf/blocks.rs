//! What the blocks of ggml's types hold: codes, and a scale and a bias for each group of them.
//!
//! Every type here is affine: a weight is `scale * code + bias`, and computed in `f32` that is the number that ggml's own
//! definition gives (`dequantize_row_*` in `ggml-quants.c`), bit for bit but for the sign of zero. Products of scales have at
//! most 18 bits and codes 8, and their products at most 24.

use half::f16;

use super::types::GgmlType;
use crate::dtype::Dtype;
use crate::quantization::{QuantMode, QuantSpec};

/// Elements of the largest block.
pub(crate) const MAX_BLOCK: usize = 256;
/// Groups of the block with the most.
pub(crate) const MAX_GROUPS: usize = 16;

/// The codes of IQ4_NL and IQ4_XS, as signed bytes.
const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl GgmlType {
    /// How a matrix of this type is computed with, and the type of its scales; `None` for types that are numbers as they
    /// stand, and for those that are not read.
    ///
    /// Scales are `F16` where they are that in the file and the bias follows from them exactly. (It would be infinite for
    /// weights beyond `F16`; there are none.)
    #[must_use]
    pub const fn quantization(self) -> Option<(QuantSpec, Dtype)> {
        let (bits, group_size, dtype) = match self {
            Self::Q4_0 | Self::Q4_1 => (4, 32, Dtype::F16),
            Self::Q5_0 | Self::Q5_1 => (5, 32, Dtype::F16),
            Self::Q8_0 | Self::IQ4_NL => (8, 32, Dtype::F16),
            Self::Q2_K => (2, 16, Dtype::F32),
            Self::Q3_K => (3, 16, Dtype::F32),
            Self::Q4_K => (4, 32, Dtype::F32),
            Self::Q5_K => (5, 32, Dtype::F32),
            Self::Q6_K => (6, 16, Dtype::F32),
            Self::IQ4_XS => (8, 32, Dtype::F32),
            Self::Q1_0 | Self::TQ1_0 | Self::TQ2_0 => (2, 128, Dtype::F16),
            Self::Q2_0 => (2, 64, Dtype::F16),
            Self::Mxfp4 => return Some((QuantMode::Mxfp4.default_spec(), Dtype::U8)),
            Self::Nvfp4 => return Some((QuantMode::Nvfp4.default_spec(), Dtype::U8)),
            _ => return None,
        };
        Some((QuantSpec::affine(bits, group_size), dtype))
    }

    /// The type of the elements, where they are numbers as they stand.
    #[must_use]
    pub const fn dtype(self) -> Option<Dtype> {
        Some(match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::Bf16,
            Self::F64 => Dtype::F64,
            Self::I8 => Dtype::I8,
            Self::I16 => Dtype::I16,
            Self::I32 => Dtype::I32,
            Self::I64 => Dtype::I64,
            _ => return None,
        })
    }

    /// The names of all types that are read, for error messages.
    pub(crate) fn readable() -> String {
        let names = Self::ALL.iter().filter(|kind| kind.quantization().is_some() || kind.dtype().is_some());
        names.map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
    }
}

/// Bytes of a block by ranges that follow each other. Blocks have as many bytes as their type says.
fn parts<const N: usize>(mut block: &[u8], sizes: [usize; N]) -> [&[u8]; N] {
    sizes.map(|size| {
        let (part, rest) = block.split_at(size);
        block = rest;
        part
    })
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// Writes the codes of a block, one a byte.
pub(crate) fn codes(kind: GgmlType, block: &[u8], out: &mut [u8]) {
    // The lower halves of bytes, then the upper ones.
    let nibbles = |bytes: &[u8], out: &mut [u8]| {
        let (low, high) = out.split_at_mut(bytes.len());
        for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
            *low = byte & 15;
            *high = byte >> 4;
        }
    };
    match kind {
        GgmlType::Q4_0 => nibbles(&block[2..], out),
        GgmlType::Q4_1 => nibbles(&block[4..], out),
        GgmlType::Q5_0 | GgmlType::Q5_1 => {
            let skipped = if kind == GgmlType::Q5_0 { 2 } else { 4 };
            let [_, high, low] = parts(block, [skipped, 4, 16]);
            nibbles(low, out);
            for (i, code) in out.iter_mut().enumerate() {
                *code |= (high[i / 8] >> (i % 8) & 1) << 4;
            }
        }
        GgmlType::Q8_0 => {
            for (byte, code) in block[2..].iter().zip(out) {
                *code = byte ^ 0x80;
            }
        }
        GgmlType::IQ4_NL => {
            nibbles(&block[2..], out);
            out.iter_mut().for_each(|code| *code = IQ4_VALUES[usize::from(*code)] as u8 ^ 0x80);
        }
        GgmlType::IQ4_XS => {
            for (bytes, out) in block[8..].chunks_exact(16).zip(out.chunks_exact_mut(32)) {
                nibbles(bytes, out);
                out.iter_mut().for_each(|code| *code = IQ4_VALUES[usize::from(*code)] as u8 ^ 0x80);
            }
        }
        GgmlType::Q2_K | GgmlType::TQ2_0 => {
            let skipped = if kind == GgmlType::Q2_K { 16 } else { 0 };
            crumbs(&block[skipped..skipped + 64], out);
        }
        GgmlType::Q3_K => {
            let [mask, low, _] = parts(block, [32, 64, 14]);
            crumbs(low, out);
            for (i, code) in out.iter_mut().enumerate() {
                *code |= (mask[i % 32] >> (i / 32) & 1) << 2;
            }
        }
        GgmlType::Q4_K => {
            for (bytes, out) in block[16..].chunks_exact(32).zip(out.chunks_exact_mut(64)) {
                nibbles(bytes, out);
            }
        }
        GgmlType::Q5_K => {
            let [_, high, low] = parts(block, [16, 32, 128]);
            for (bytes, out) in low.chunks_exact(32).zip(out.chunks_exact_mut(64)) {
                nibbles(bytes, out);
            }
            for (i, code) in out.iter_mut().enumerate() {
                *code |= (high[i % 32] >> (i / 32) & 1) << 4;
            }
        }
        GgmlType::Q6_K => {
            let [low, high, _] = parts(block, [128, 64, 18]);
            for ((low, high), out) in
                low.chunks_exact(64).zip(high.chunks_exact(32)).zip(out.chunks_exact_mut(128))
            {
                nibbles(low, out);
                for (i, code) in out.iter_mut().enumerate() {
                    *code |= (high[i % 32] >> (2 * (i / 32)) & 3) << 4;
                }
            }
        }
        GgmlType::Q2_0 => {
            for (i, code) in out.iter_mut().enumerate() {
                *code = block[2 + i / 4] >> (2 * (i % 4)) & 3;
            }
        }
        GgmlType::Q1_0 => {
            for (i, code) in out.iter_mut().enumerate() {
                *code = (block[2 + i / 8] >> (i % 8) & 1) << 1;
            }
        }
        GgmlType::TQ1_0 => {
            // Five numbers of base three in a byte, as a fraction of 256: the next digit is what three times it carries.
            let digit = |byte: u8, place: u32| {
                let fraction = u16::from(byte.wrapping_mul(3u8.wrapping_pow(place)));
                ((fraction * 3) >> 8) as u8
            };
            let [first, second, last, _] = parts(block, [32, 16, 4, 2]);
            let mut places = out.iter_mut();
            for (bytes, digits) in [(first, 5), (second, 5), (last, 4)] {
                for place in 0..digits {
                    for (byte, code) in bytes.iter().zip(&mut places) {
                        *code = digit(*byte, place);
                    }
                }
            }
        }
        GgmlType::Mxfp4 => nibbles(&block[1..], out),
        GgmlType::Nvfp4 => {
            for (bytes, out) in block[4..].chunks_exact(8).zip(out.chunks_exact_mut(16)) {
                nibbles(bytes, out);
            }
        }
        // The others are not repacked.
        _ => {}
    }
}

/// Fields of two bits: the lowest of 32 bytes, then the next of the same.
fn crumbs(bytes: &[u8], out: &mut [u8]) {
    for (bytes, out) in bytes.chunks_exact(32).zip(out.chunks_exact_mut(128)) {
        for (field, out) in out.chunks_exact_mut(32).enumerate() {
            for (byte, code) in bytes.iter().zip(out) {
                *code = byte >> (2 * field) & 3;
            }
        }
    }
}

/// Writes scale and bias of each group of a block of an affine type; returns how many groups it has.
pub(crate) fn groups(kind: GgmlType, block: &[u8], out: &mut [(f32, f32); MAX_GROUPS]) -> usize {
    let one = |out: &mut [(f32, f32); MAX_GROUPS], scale: f32, zero: f32| {
        out[0] = (scale, -zero * scale);
        1
    };
    match kind {
        GgmlType::Q4_0 => one(out, half(block), 8.0),
        GgmlType::Q5_0 => one(out, half(block), 16.0),
        GgmlType::Q8_0 | GgmlType::IQ4_NL => one(out, half(block), 128.0),
        GgmlType::Q1_0 | GgmlType::Q2_0 => one(out, half(block), 1.0),
        GgmlType::Q4_1 | GgmlType::Q5_1 => {
            out[0] = (half(block), half(&block[2..]));
            1
        }
        GgmlType::TQ1_0 | GgmlType::TQ2_0 => {
            let scale = half(&block[block.len() - 2..]);
            out[..2].fill((scale, -scale));
            2
        }
        GgmlType::Q2_K => {
            let [scales, _, ends] = parts(block, [16, 64, 4]);
            let (scale, least) = (half(ends), half(&ends[2..]));
            for (packed, out) in scales.iter().zip(out.iter_mut()) {
                *out = (scale * f32::from(packed & 15), -(least * f32::from(packed >> 4)));
            }
            16
        }
        GgmlType::Q3_K => {
            let [_, packed, scale] = parts(block, [96, 12, 2]);
            let scale = half(scale);
            for (i, out) in out.iter_mut().enumerate() {
                let low = packed[i % 8] >> (4 * (i / 8)) & 15;
                let high = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
                let scale = scale * (f32::from(low | high << 4) - 32.0);
                *out = (scale, -4.0 * scale);
            }
            16
        }
        GgmlType::Q4_K | GgmlType::Q5_K => {
            let (scale, least, packed) = (half(block), half(&block[2..]), &block[4..16]);
            for (i, out) in out[..8].iter_mut().enumerate() {
                let (factor, offset) = if i < 4 {
                    (packed[i] & 63, packed[i + 4] & 63)
                } else {
                    let (low, both) = (i - 4, packed[i + 4]);
                    (both & 15 | packed[low] >> 6 << 4, both >> 4 | packed[low + 4] >> 6 << 4)
                };
                *out = (scale * f32::from(factor), -(least * f32::from(offset)));
            }
            8
        }
        GgmlType::Q6_K => {
            let [_, factors, scale] = parts(block, [192, 16, 2]);
            let scale = half(scale);
            for (factor, out) in factors.iter().zip(out.iter_mut()) {
                let scale = scale * f32::from(*factor as i8);
                *out = (scale, -32.0 * scale);
            }
            16
        }
        GgmlType::IQ4_XS => {
            let [scale, high, low, _] = parts(block, [2, 2, 4, 128]);
            let (scale, high) = (half(scale), u16::from_le_bytes([high[0], high[1]]));
            for (i, out) in out[..8].iter_mut().enumerate() {
                let factor = (low[i / 2] >> (4 * (i % 2)) & 15) | ((high >> (2 * i) & 3) << 4) as u8;
                let scale = scale * (f32::from(factor) - 32.0);
                *out = (scale, -128.0 * scale);
            }
            8
        }
        _ => 0,
    }
}

/// Writes the 8-bit scales of a block of 4-bit floats; returns how many groups it has.
pub(crate) fn small_scales(kind: GgmlType, block: &[u8], out: &mut [u8; MAX_GROUPS]) -> usize {
    match kind {
        GgmlType::Mxfp4 => {
            out[0] = block[0];
            1
        }
        GgmlType::Nvfp4 => {
            for (scale, out) in block[..4].iter().zip(out.iter_mut()) {
                // Without a sign, and with zero for what E4M3 has as NaN.
                *out = if scale & 0x7f == 0x7f { 0 } else { scale & 0x7f };
            }
            4
        }
        _ => 0,
    }
}
