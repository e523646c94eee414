//! The 4- and 8-bit floating-point numbers of the modes `mxfp4`, `mxfp8` and `nvfp4`.
//!
//! | type | sign, exponent, mantissa bits | bias | largest | without |
//! |---|---|---|---|---|
//! | E2M1 | 1, 2, 1 | 1 | 6 | infinity, NaN |
//! | E4M3 | 1, 4, 3 | 7 | 448 | infinity; NaN is all ones after the sign |
//! | E8M0 | 0, 8, 0 | 127 | 2^127 | sign, zero |
//!
//! The types are those of the [OCP Microscaling Formats specification 1.0][ocp], and of `mlx.core` 0.32.4, from
//! which they differ in one code: E8M0 255 is NaN there and infinity in MLX, as it is here.
//!
//! [ocp]: https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf

/// The values of the 16 E2M1 codes. Bit 3 is the sign, so code 8 is negative zero.
pub const E2M1_VALUES: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// Twice the values of the 16 E2M1 codes, for integer kernels (which make up for the factor in the scale).
///
/// Codes 0 and 8 both give 0: an integer has no negative zero.
pub const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The largest E2M1 value.
pub const E2M1_MAX: f32 = 6.0;

/// The values of the 256 E4M3 codes. Codes 0x7f and 0xff are NaN.
pub static E4M3_VALUES: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        values[code] = e4m3_to_f32(code as u8);
        code += 1;
    }
    values
};

/// The largest E4M3 value.
pub const E4M3_MAX: f32 = 448.0;

/// The values of the 256 E8M0 codes: `2^(code - 127)`, and infinity for code 255.
pub static E8M0_VALUES: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        values[code] = e8m0_to_f32(code as u8);
        code += 1;
    }
    values
};

/// The value of an E4M3 code; NaN for 0x7f and 0xff.
#[must_use]
pub const fn e4m3_to_f32(code: u8) -> f32 {
    let sign = (code as u32 & 0x80) << 24;
    let magnitude = code as u32 & 0x7f;
    if magnitude == 0x7f {
        return f32::from_bits(sign | 0x7fc0_0000);
    }
    let value = if magnitude < 8 {
        // Subnormal: a multiple of 2^-9.
        magnitude as f32 / 512.0
    } else {
        // The exponent's bias grows from 7 to 127, and the mantissa from 3 to 23 bits.
        f32::from_bits((magnitude << 20) + (120 << 23))
    };
    f32::from_bits(sign | value.to_bits())
}

/// The value of an E8M0 code, `2^(code - 127)`; infinity for 255 (NaN in the OCP specification), as in MLX.
#[must_use]
pub const fn e8m0_to_f32(code: u8) -> f32 {
    // An f32 with an empty mantissa has the same exponent, except that 2^-127 is subnormal.
    f32::from_bits(if code == 0 { 1 << 22 } else { (code as u32) << 23 })
}

/// The nearest E2M1 code: ties go toward zero, values beyond the largest saturate, negative zero becomes code 0.
///
/// This is how `mlx.core.quantize` rounds on the CPU (it takes the first of the nearest table entries). NaN gives
/// code 0.
#[must_use]
pub fn e2m1_from_f32(value: f32) -> u8 {
    /// Halfway between neighbours: exactly here the smaller one is taken.
    const MIDPOINTS: [f32; 7] = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0];
    let code = MIDPOINTS.iter().map(|&midpoint| u8::from(value.abs() > midpoint)).sum();
    if code != 0 && value < 0.0 { code | 8 } else { code }
}

/// The nearest E4M3 code: ties go to the even code, values beyond the largest saturate, the sign of zero is kept.
///
/// This is `mlx.core.to_fp8`, except that NaN gives the code of NaN (MLX saturates it).
#[must_use]
pub fn e4m3_from_f32(value: f32) -> u8 {
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    let magnitude = value.abs();
    let code = if magnitude.is_nan() {
        0x7f
    } else if magnitude >= E4M3_MAX {
        0x7e
    } else if magnitude < 1.0 / 64.0 {
        // Subnormal: a multiple of 2^-9; 8 of them are the smallest normal number and its code.
        (magnitude * 512.0).round_ties_even() as u8
    } else {
        // Half a unit less one, plus one if the code would be odd, rounds the 20 dropped bits to even.
        let bits = magnitude.to_bits();
        ((bits + 0x7_ffff + (bits >> 20 & 1) - (120 << 23)) >> 20) as u8
    };
    sign | code
}

/// The code of the smallest E8M0 number that is not less than `value`, which must be finite and not negative.
///
/// `mlx.core.quantize` takes the scales of `mxfp4` and `mxfp8` like this, so that no element saturates. It wraps
/// around below 2^-127; here the code is then 0.
pub(crate) fn e8m0_at_least(value: f32) -> u8 {
    let bits = value.to_bits();
    // 2^-127 is subnormal as an f32.
    if bits <= 1 << 22 { 0 } else { ((bits + 0x7f_ffff) >> 23).min(254) as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e2m1_doubled_is_twice_the_value() {
        for (value, doubled) in E2M1_VALUES.iter().zip(E2M1_DOUBLED) {
            assert_eq!(value * 2.0, f32::from(doubled));
        }
    }

    #[test]
    fn e4m3_follows_from_its_fields() {
        for code in 0..=u8::MAX {
            let value = E4M3_VALUES[usize::from(code)];
            let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
            if exponent == 15 && mantissa == 7.0 {
                assert!(value.is_nan());
                continue;
            }
            let magnitude = match exponent {
                0 => mantissa / 8.0 * 2f64.powi(-6),
                exponent => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
            };
            let expected = if code & 0x80 == 0 { magnitude } else { -magnitude };
            assert_eq!(value.to_bits(), (expected as f32).to_bits(), "{code:#x}");
        }
        assert_eq!(E4M3_VALUES[0x7e], E4M3_MAX);
        assert_eq!(E2M1_VALUES[7], E2M1_MAX);
    }

    #[test]
    fn e8m0_is_a_power_of_two() {
        for code in 0..255u8 {
            let expected = 2f64.powi(i32::from(code) - 127) as f32;
            assert_eq!(E8M0_VALUES[usize::from(code)].to_bits(), expected.to_bits(), "{code}");
            assert_eq!(e8m0_at_least(expected), code);
            assert_eq!(e8m0_at_least(expected.next_up()), (code + 1).min(254));
            assert_eq!(e8m0_at_least(expected.next_down()), code);
        }
        assert_eq!(E8M0_VALUES[255], f32::INFINITY);
        assert_eq!((e8m0_at_least(0.0), e8m0_at_least(f32::MAX)), (0, 254));
    }

    /// Every code is its value's, every value between two neighbours goes to the nearer one.
    #[test]
    fn rounding_is_to_nearest() {
        for code in 0..=u8::MAX {
            assert_eq!(e4m3_from_f32(E4M3_VALUES[usize::from(code)]), code);
        }
        for code in 0..0x7e_u8 {
            let (low, high) = (E4M3_VALUES[usize::from(code)], E4M3_VALUES[usize::from(code) + 1]);
            let middle = (low + high) / 2.0;
            assert_eq!(e4m3_from_f32(middle), code + (code & 1), "{middle}");
            assert_eq!(e4m3_from_f32(middle.next_down()), code);
            assert_eq!(e4m3_from_f32(-middle.next_up()), (code + 1) | 0x80);
        }
        assert_eq!((e4m3_from_f32(f32::INFINITY), e4m3_from_f32(-1e9)), (0x7e, 0xfe));

        for code in 0..7_u8 {
            let (low, high) = (E2M1_VALUES[usize::from(code)], E2M1_VALUES[usize::from(code) + 1]);
            let middle = (low + high) / 2.0;
            assert_eq!(e2m1_from_f32(low), code);
            assert_eq!(e2m1_from_f32(middle), code);
            assert_eq!(e2m1_from_f32(middle.next_up()), code + 1);
            assert_eq!(e2m1_from_f32(-middle.next_up()), (code + 1) | 8);
        }
        assert_eq!((e2m1_from_f32(f32::INFINITY), e2m1_from_f32(-1e9)), (7, 15));
        assert_eq!((e2m1_from_f32(-0.0), e2m1_from_f32(f32::NAN)), (0, 0));
    }
}
