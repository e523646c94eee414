//! The indices of convolutions: which rows each output row is made of.
//!
//! A device sees a convolution as a gather and a product ([`Backend::convolve`](crate::Backend::convolve)); everything
//! about strides and edges is decided here, on the host.

/// A convolution along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Rows that one output row is made of.
    pub taps: usize,
    /// Rows between the first taps of neighbouring outputs; above zero.
    pub stride: usize,
    /// Rows of zeros before the first and after the last.
    pub padding: usize,
    /// Rows between neighbouring taps; above zero.
    pub dilation: usize,
}

impl Convolution {
    /// Taps without gaps, stride or padding.
    pub fn new(taps: usize) -> Self {
        Self { taps, stride: 1, padding: 0, dilation: 1 }
    }

    /// The number of output rows for so many input rows.
    pub fn outputs(&self, rows: usize) -> usize {
        let reach = self.taps.saturating_sub(1) * self.dilation + 1;
        match (rows + 2 * self.padding).checked_sub(reach) {
            Some(room) if self.taps > 0 => room / self.stride.max(1) + 1,
            _ => 0,
        }
    }

    /// For each output row the input row of each tap, and `u32::MAX` for those of the padding.
    pub fn indices(&self, rows: usize) -> Vec<u32> {
        let mut indices = Vec::with_capacity(self.outputs(rows) * self.taps);
        for output in 0..self.outputs(rows) {
            for tap in 0..self.taps {
                let at = (output * self.stride + tap * self.dilation).checked_sub(self.padding);
                indices.push(at.filter(|at| *at < rows).map_or(u32::MAX, |at| at as u32));
            }
        }
        indices
    }

    /// The number of output rows of the transposed convolution.
    pub fn transposed_outputs(&self, rows: usize) -> usize {
        let full = rows.saturating_sub(1) * self.stride + self.taps.saturating_sub(1) * self.dilation + 1;
        if rows == 0 || self.taps == 0 { 0 } else { full.saturating_sub(2 * self.padding) }
    }

    /// For each output row of the transposed convolution the contributions that it sums, as `row * taps + tap`: as many for
    /// each as the most that any has, `u32::MAX` where there are fewer.
    pub fn transposed_indices(&self, rows: usize) -> Vec<u32> {
        let outputs = self.transposed_outputs(rows);
        let mut sources: Vec<Vec<u32>> = vec![Vec::new(); outputs];
        for row in 0..rows {
            for tap in 0..self.taps {
                let at = (row * self.stride + tap * self.dilation).checked_sub(self.padding);
                if let Some(sources) = at.and_then(|at| sources.get_mut(at)) {
                    sources.push((row * self.taps + tap) as u32);
                }
            }
        }
        let terms = sources.iter().map(Vec::len).max().unwrap_or(0);
        for list in &mut sources {
            list.resize(terms, u32::MAX);
        }
        sources.concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: u32 = u32::MAX;

    #[test]
    fn taps_follow_stride_padding_and_dilation() {
        assert_eq!(Convolution::new(2).indices(3), [0, 1, 1, 2]);
        let padded = Convolution { padding: 1, stride: 2, ..Convolution::new(3) };
        assert_eq!(padded.outputs(4), 2);
        assert_eq!(padded.indices(4), [NONE, 0, 1, 1, 2, 3]);
        let dilated = Convolution { dilation: 2, ..Convolution::new(2) };
        assert_eq!(dilated.indices(4), [0, 2, 1, 3]);
        assert_eq!(Convolution::new(5).outputs(4), 0);
        assert!(Convolution::new(5).indices(4).is_empty());
        assert_eq!(Convolution::new(0).outputs(4), 0);
    }

    #[test]
    fn a_transposed_convolution_sums_what_the_convolution_reads() {
        for (taps, stride, padding, dilation) in [(3, 1, 0, 1), (4, 2, 1, 1), (5, 3, 2, 1), (2, 2, 0, 2)] {
            let convolution = Convolution { taps, stride, padding, dilation };
            let rows = convolution.outputs(17);
            // The pairs (input, output, tap) of the convolution, and those of the transposed one the other way round.
            let mut pairs: Vec<(usize, usize)> = Vec::new();
            for (place, input) in convolution.indices(17).into_iter().enumerate() {
                if input != NONE {
                    pairs.push((input as usize, place));
                }
            }
            let length = convolution.transposed_outputs(rows);
            let sources = convolution.transposed_indices(rows);
            let terms = sources.len() / length;
            let mut transposed: Vec<(usize, usize)> = sources
                .iter()
                .enumerate()
                .filter(|(_, source)| **source != NONE)
                .map(|(at, source)| (at / terms, *source as usize))
                .collect();
            pairs.retain(|(input, _)| *input < length);
            pairs.sort_unstable();
            transposed.sort_unstable();
            assert_eq!(pairs, transposed);
        }
    }
}
