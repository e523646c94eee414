//! Rotary position embeddings.

use pippin_tensor::{Result, RopeFrequencies, RopeSpec, TensorError};

use crate::tensor::CpuTensor;

pub(crate) fn check(positions: usize, axes: usize, spec: &RopeSpec) -> Result<()> {
    let pairs = match &spec.frequencies {
        RopeFrequencies::Fixed(frequencies) => frequencies.len(),
        RopeFrequencies::Dynamic { .. } => spec.dims / 2,
    };
    if !spec.dims.is_multiple_of(2) || pairs != spec.dims / 2 {
        return Err(TensorError::shape("rope_angles", format!("{} frequencies", spec.dims / 2), pairs));
    }
    if axes == 0 || !positions.is_multiple_of(axes) {
        return Err(TensorError::shape("rope_angles", format!("positions of {axes} axes"), positions));
    }
    match &spec.axes {
        Some(of_pairs)
            if of_pairs.len() != pairs || of_pairs.iter().any(|axis| usize::from(*axis) >= axes) =>
        {
            let expected = format!("one of {axes} axes for each of {pairs} pairs");
            Err(TensorError::shape("rope_angles", expected, format!("{of_pairs:?}")))
        }
        _ => Ok(()),
    }
}

pub(crate) fn check_operands(
    x: &CpuTensor,
    angles: &CpuTensor,
    head_dim: usize,
    spec: &RopeSpec,
) -> Result<()> {
    if head_dim == 0
        || !x.columns.is_multiple_of(head_dim)
        || spec.dims > head_dim
        || !spec.dims.is_multiple_of(2)
    {
        return Err(TensorError::shape(
            "rope",
            format!("heads of {head_dim}, an even {} of them rotated", spec.dims),
            x.columns,
        ));
    }
    if angles.rows != x.rows || angles.columns != spec.dims {
        let found = format!("[{}, {}]", angles.rows, angles.columns);
        return Err(TensorError::shape("rope", format!("angles of [{}, {}]", x.rows, spec.dims), found));
    }
    Ok(())
}

/// Cosines and sines of one row; `position` gives its position along an axis.
pub(crate) fn angles(position: impl Fn(usize) -> u32, spec: &RopeSpec, out: &mut [f32]) {
    let (cosines, sines) = out.split_at_mut(spec.dims / 2);
    let mut set = |pair: usize, frequency: f32| {
        let position = position(spec.axes.as_ref().map_or(0, |axes| usize::from(axes[pair])));
        // The product is rounded to `f32` as in mlx; only the sine and cosine of it are taken in `f64`.
        let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
        cosines[pair] = cos as f32 * spec.scale;
        sines[pair] = sin as f32 * spec.scale;
    };
    match &spec.frequencies {
        RopeFrequencies::Fixed(frequencies) => {
            for (pair, frequency) in frequencies.iter().enumerate() {
                set(pair, *frequency);
            }
        }
        RopeFrequencies::Dynamic { base, factor, original_context } => {
            let (factor, dims) = (f64::from(*factor), spec.dims as f64);
            let position = position(0);
            let context =
                (f64::from(position) + 1.0).max(*original_context as f64) / *original_context as f64;
            let base = f64::from(*base) * (factor * context - (factor - 1.0)).powf(dims / (dims - 2.0));
            for pair in 0..spec.dims / 2 {
                set(pair, base.powf(-2.0 * pair as f64 / dims) as f32);
            }
        }
    }
}

/// Rotates every head of a row in place.
pub(crate) fn rotate(row: &mut [f32], angles: &[f32], head_dim: usize, spec: &RopeSpec) {
    let pairs = spec.dims / 2;
    let (cosines, sines) = angles.split_at(pairs);
    for head in row.chunks_exact_mut(head_dim) {
        if spec.traditional {
            for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(cosines.iter().zip(sines)) {
                let (a, b) = (pair[0], pair[1]);
                pair[0] = a * cos - b * sin;
                pair[1] = a * sin + b * cos;
            }
        } else {
            let (first, rest) = head.split_at_mut(pairs);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(rest).zip(cosines.iter().zip(sines)) {
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
            }
        }
    }
}
