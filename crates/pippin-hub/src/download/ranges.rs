//! Sets of bytes of a file.

/// Ranges that neither overlap nor touch, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the bytes from `start` to before `end`.
    pub(crate) fn add(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let first = self.0.partition_point(|range| range.1 < start);
        let last = self.0.partition_point(|range| range.0 <= end);
        let start = self.0.get(first).filter(|_| first < last).map_or(start, |range| range.0.min(start));
        let end = if first < last { self.0[last - 1].1.max(end) } else { end };
        self.0.splice(first..last, [(start, end)]);
    }

    /// How many bytes there are.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// How many there are before the first that is missing.
    pub(crate) fn frontier(&self) -> u64 {
        self.0.first().filter(|range| range.0 == 0).map_or(0, |range| range.1)
    }

    /// What is missing of a file of this size.
    pub(crate) fn missing(&self, size: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut at = 0;
        for &(start, end) in &self.0 {
            if at < start {
                missing.push((at, start));
            }
            at = end;
        }
        if at < size {
            missing.push((at, size));
        }
        missing
    }

    /// Whether all these bytes are there.
    pub(crate) fn holds(&self, start: u64, end: u64) -> bool {
        self.0.iter().any(|range| range.0 <= start && end <= range.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agree_with_a_bitmap() {
        let mut state = 1_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let mut ranges = Ranges::default();
            let mut bitmap = [false; 40];
            for _ in 0..12 {
                let (a, b) = (next(41), next(41));
                let (start, end) = (a.min(b), a.max(b).min(a.min(b) + 8));
                ranges.add(start, end);
                bitmap[start as usize..end as usize].fill(true);
                assert_eq!(ranges.total(), bitmap.iter().filter(|&&bit| bit).count() as u64);
                assert_eq!(ranges.frontier(), bitmap.iter().take_while(|&&bit| bit).count() as u64);
                let mut covered = bitmap;
                for (start, end) in ranges.missing(40) {
                    assert!(bitmap[start as usize..end as usize].iter().all(|bit| !bit));
                    covered[start as usize..end as usize].fill(true);
                }
                assert!(covered.iter().all(|&bit| bit));
                assert!(ranges.0.windows(2).all(|pair| pair[0].1 < pair[1].0));
            }
        }
    }
}
