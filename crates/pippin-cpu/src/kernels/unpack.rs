//! Weights whose codes are not fields of a power of two of bits, or not numbers: unpacked to bytes before they are
//! multiplied.

use crate::simd::Simd;

/// How a row's codes become unsigned bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codes {
    /// Numbers of three, five or six bits, one after the other in a little-endian stream.
    Three,
    Five,
    Six,
    /// E2M1 floats, two per byte: twice their value plus [`E2M1_OFFSET`], which is a whole number from 0 to 24.
    E2m1,
}

/// What is added to twice an E2M1 float.
pub(crate) const E2M1_OFFSET: u8 = 12;
/// What the scale is multiplied with to make up for the doubling.
pub(crate) const E2M1_FACTOR: f32 = 0.5;

/// Unpacks `out.len()` codes, a multiple of eight: whole rows.
///
/// # Safety
/// The instruction set is there.
#[inline(always)]
pub(crate) unsafe fn unpack<S: Simd>(row: &[u8], codes: Codes, out: &mut [u8]) {
    // SAFETY: by contract.
    unsafe {
        match codes {
            Codes::Three => fields::<S, 3>(row, out),
            Codes::Five => fields::<S, 5>(row, out),
            Codes::Six => fields::<S, 6>(row, out),
            Codes::E2m1 => {
                for (byte, out) in row.iter().zip(out.chunks_exact_mut(2)) {
                    out[0] = e2m1(byte & 0xf);
                    out[1] = e2m1(byte >> 4);
                }
            }
        }
    }
}

/// How far ahead of its use a weight is fetched.
const PREFETCH_BYTES: usize = 4096;

/// Unpacks fields of `BITS` bits, eight words of eight fields at a time, which compilers make vectors of.
#[inline(always)]
unsafe fn fields<S: Simd, const BITS: u32>(row: &[u8], out: &mut [u8]) {
    const WORDS: usize = 8;
    let bytes = BITS as usize;
    // Whole words are read as long as the row has them, although only their first bytes are needed.
    let whole = row.len().saturating_sub(8 - bytes) / bytes / WORDS * WORDS;
    let (vectors, rest) = out.split_at_mut(8 * whole.min(out.len() / 8 / WORDS * WORDS));
    for (i, out) in vectors.chunks_exact_mut(8 * WORDS).enumerate() {
        let row = &row[i * WORDS * bytes..][..(WORDS - 1) * bytes + 8];
        // SAFETY: the address need not be valid.
        unsafe { S::prefetch(row.as_ptr().wrapping_add(PREFETCH_BYTES)) };
        let mut words = [0; WORDS];
        for (j, word) in words.iter_mut().enumerate() {
            let mut from = [0; 8];
            from.copy_from_slice(&row[j * bytes..j * bytes + 8]);
            *word = u64::from_le_bytes(from);
        }
        for word in &mut words {
            *word = spread::<BITS>(*word);
        }
        for (out, word) in out.chunks_exact_mut(8).zip(&words) {
            out.copy_from_slice(&word.to_le_bytes());
        }
    }
    let done = vectors.len() / 8 * bytes;
    for (row, out) in row[done..].chunks_exact(bytes).zip(rest.chunks_exact_mut(8)) {
        let mut from = [0; 8];
        from[..bytes].copy_from_slice(row);
        out.copy_from_slice(&spread::<BITS>(u64::from_le_bytes(from)).to_le_bytes());
    }
}

/// Spreads eight fields of `BITS` bits to eight bytes, in three steps, each of which moves the upper half of every group
/// of fields.
#[inline(always)]
fn spread<const BITS: u32>(word: u64) -> u64 {
    let mask = |bits: u32| (1u64 << bits) - 1;
    let word = word & mask(4 * BITS) | (word >> (4 * BITS) & mask(4 * BITS)) << 32;
    let pairs = mask(2 * BITS) * 0x0000_0001_0000_0001;
    let word = word & pairs | (word >> (2 * BITS) & pairs) << 16;
    let ones = mask(BITS) * 0x0001_0001_0001_0001;
    word & ones | (word >> BITS & ones) << 8
}

/// Twice the E2M1 float of a code, plus [`E2M1_OFFSET`]; arithmetic rather than a table, for vectors.
#[inline(always)]
fn e2m1(code: u8) -> u8 {
    let magnitude = code & 7;
    // 0, 1, 2, 3, 4, 6, 8, 12
    let beyond = match magnitude {
        7 => 5,
        6 => 2,
        5 => 1,
        _ => 0,
    };
    let value = magnitude + beyond;
    if code & 8 == 0 { E2M1_OFFSET + value } else { E2M1_OFFSET - value }
}

/// The value of an E8M0 code; see [`pippin_weights::minifloat`].
#[inline(always)]
pub(crate) fn e8m0_to_f32(code: u8) -> f32 {
    // Code 0 is the one subnormal number.
    f32::from_bits((u32::from(code) << 23).max(0x0040_0000))
}

/// The value of an E4M3 code; see [`pippin_weights::minifloat`].
#[inline(always)]
pub(crate) fn e4m3_to_f32(code: u8) -> f32 {
    // Exponent and mantissa in their places, subnormals included; the product corrects the exponent's bias.
    const REBIAS: f32 = f32::from_bits((127 + 120) << 23);
    let magnitude = u32::from(code & 0x7f);
    let value = f32::from_bits(magnitude << 20) * REBIAS;
    let value = if magnitude == 0x7f { f32::NAN } else { value };
    f32::from_bits(value.to_bits() | u32::from(code & 0x80) << 24)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::portable::Portable;
    use pippin_tensor::minifloat;

    #[test]
    fn codes_have_the_values_of_their_types() {
        for code in 0..=255 {
            assert_eq!(e8m0_to_f32(code).to_bits(), minifloat::e8m0_to_f32(code).to_bits(), "E8M0 {code}");
            let (found, expected) = (e4m3_to_f32(code), minifloat::e4m3_to_f32(code));
            assert!(
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                "E4M3 {code}"
            );
        }
        for code in 0..16 {
            let doubled = i16::from(e2m1(code)) - i16::from(E2M1_OFFSET);
            assert_eq!(doubled, i16::from(minifloat::E2M1_DOUBLED[usize::from(code)]), "E2M1 {code}");
        }
    }

    #[test]
    fn fields_of_a_stream_are_found_at_every_place() {
        for (bits, codes) in [(3, Codes::Three), (5, Codes::Five), (6, Codes::Six)] {
            for count in [8, 16, 24, 64, 72, 128, 200] {
                let row: Vec<u8> = (0..count * bits / 8).map(|i| (i * 89 % 251) as u8).collect();
                let mut out = vec![0; count];
                // SAFETY: portable vectors need nothing.
                unsafe { unpack::<Portable>(&row, codes, &mut out) };
                for (i, found) in out.iter().enumerate() {
                    let bit = |bit: usize| (row[bit / 8] >> (bit % 8)) & 1;
                    let expected = (0..bits).map(|b| bit(i * bits + b) << b).sum::<u8>();
                    assert_eq!(*found, expected, "field {i} of {count}, {bits} bits");
                }
            }
        }
    }
}
