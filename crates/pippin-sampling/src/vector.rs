//! Loops over a whole vocabulary, written so that the compiler vectorises them.

const LANES: usize = 16;
/// Partial sums in `f32` stay exact enough over this many values; blocks are added in `f64`.
const BLOCK: usize = 1024;

/// The largest value, or `None` when there is a NaN or no finite maximum.
pub(super) fn finite_max(values: &[f32]) -> Option<f32> {
    let mut largest = [f32::NEG_INFINITY; LANES];
    let mut is_nan = [false; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            is_nan[lane] |= chunk[lane].is_nan();
            largest[lane] = if chunk[lane] > largest[lane] { chunk[lane] } else { largest[lane] };
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        is_nan[lane] |= value.is_nan();
        largest[lane] = largest[lane].max(*value);
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    (largest.is_finite() && !is_nan.contains(&true)).then_some(largest)
}

/// `e^x` for `x` up to 0, within two units in the last place; 0 where the result would not be a normal number.
///
/// The polynomial is that of Cephes' `expf`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding and subtracting 1.5 * 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts, the first of few bits, so that its product with `n` is exact.
    let r = clamped - n * (355.0 / 512.0) - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    let scale = f32::from_bits(((n as i32 + 127) << 23) as u32);
    if x < -87.0 { 0.0 } else { y * scale }
}

/// The sum of `e^(value - max)`.
pub(super) fn exp_sum(values: &[f32], max: f32) -> f64 {
    let mut total = 0.0;
    for block in values.chunks(BLOCK) {
        let mut lanes = [0.0f32; LANES];
        let chunks = block.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for lane in 0..LANES {
                lanes[lane] += exp(chunk[lane] - max);
            }
        }
        for (lane, value) in rest.iter().enumerate() {
            lanes[lane] += exp(value - max);
        }
        total += f64::from(lanes.iter().sum::<f32>());
    }
    total
}

/// Replaces every value by `e^((value - max) * factor)`.
pub(super) fn exp_in_place(values: &mut [f32], max: f32, factor: f32) {
    for value in values {
        *value = exp((*value - max) * factor);
    }
}

/// Draws an index with probability proportional to its weight; `uniform` is in `[0, 1)`. `None` when no weight is
/// positive.
pub(super) fn draw(weights: &[f32], uniform: f64) -> Option<usize> {
    let total: f64 = weights.chunks(BLOCK).map(sum).sum();
    let mut target = uniform * total;
    let mut last = None;
    for (block, chunk) in weights.chunks(BLOCK).enumerate() {
        let mass = sum(chunk);
        if mass <= 0.0 {
            continue;
        }
        last = Some(block);
        if target < mass {
            break;
        }
        target -= mass;
    }
    // Sums in different orders differ by rounding: when the target is past the end, the last positive weight it is.
    let start = last? * BLOCK;
    let mut chosen = None;
    for (offset, weight) in weights[start..].iter().take(BLOCK).enumerate() {
        if *weight > 0.0 {
            chosen = Some(start + offset);
            target -= f64::from(*weight);
            if target < 0.0 {
                break;
            }
        }
    }
    chosen
}

fn sum(block: &[f32]) -> f64 {
    let mut lanes = [0.0f32; LANES];
    let chunks = block.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += chunk[lane];
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        lanes[lane] += value;
    }
    f64::from(lanes.iter().sum::<f32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate() {
        for i in 0..=8_700 {
            let x = -(i as f32) / 100.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 3e-7, "exp({x}): relative error {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn maximum_sees_every_lane() {
        for n in 1..50 {
            for at in 0..n {
                let mut values = vec![-1.0; n];
                values[at] = 2.0;
                assert_eq!(finite_max(&values), Some(2.0));
                values[at] = f32::NAN;
                assert_eq!(finite_max(&values), None);
                values[at] = f32::INFINITY;
                assert_eq!(finite_max(&values), None);
            }
        }
        assert_eq!(finite_max(&[f32::NEG_INFINITY; 20]), None);
        assert_eq!(finite_max(&[]), None);
    }

    #[test]
    fn draws_cover_the_positive_weights_only() {
        let mut weights = vec![0.0; 5_000];
        weights[3] = 1.0;
        weights[2_500] = 2.0;
        weights[4_998] = 1.0;
        for (uniform, expected) in [
            (0.0, 3),
            (0.24, 3),
            (0.26, 2_500),
            (0.74, 2_500),
            (0.76, 4_998),
            (1.0 - 1e-16, 4_998),
            (1.0, 4_998),
        ] {
            assert_eq!(draw(&weights, uniform), Some(expected), "{uniform}");
        }
        assert_eq!(draw(&[0.0; 10], 0.5), None);
        assert_eq!(draw(&[], 0.5), None);
    }
}
