//! How long steps take, by their rows.

use std::time::Duration;

/// Times of each number of rows that count.
const SAMPLES: usize = 5;

/// So many times are needed before they are believed: a single step may have been held up by anything.
const CONFIRMED: usize = 2;

/// A time that is older than this many steps no longer counts: contexts and machines change, and what was too slow is tried
/// again.
const MAX_AGE: u64 = 1024;

/// How much of a step another row is taken to cost, until that has been measured: less than it will be, so that it is.
const ASSUMED_SHARE: f64 = 0.06;

/// Rows beyond this are not told apart.
const MAX_ROWS: usize = 1 << 10;

/// The times of decoding steps.
#[derive(Debug, Default)]
pub(crate) struct StepTimes {
    steps: u64,
    /// By number of rows.
    samples: Vec<Samples>,
    #[cfg(test)]
    fixed: Option<fn(usize) -> f64>,
}

/// The last times of steps with the same number of rows, in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Samples {
    times: [f64; SAMPLES],
    count: usize,
    last: u64,
}

impl StepTimes {
    /// Times that do not depend on the machine.
    #[cfg(test)]
    pub(crate) fn fixed(time: fn(usize) -> f64) -> Self {
        Self { fixed: Some(time), ..Self::default() }
    }

    /// Whether nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        (0..self.samples.len()).all(|rows| self.least(rows).is_none())
    }

    /// A step of so many rows has taken this long.
    pub(crate) fn record(&mut self, rows: usize, time: Duration) {
        let rows = rows.min(MAX_ROWS);
        if self.samples.len() <= rows {
            self.samples.resize(rows + 1, Samples::default());
        }
        self.steps += 1;
        let samples = &mut self.samples[rows];
        if self.steps - samples.last > MAX_AGE {
            samples.count = 0;
        }
        samples.times[samples.count % SAMPLES] = time.as_secs_f64();
        (samples.count, samples.last) = (samples.count + 1, self.steps);
    }

    /// How long a step of so many rows takes, in seconds where anything is known. Between two numbers of rows that have
    /// been, it lies between them.
    pub(crate) fn estimate(&self, rows: usize) -> f64 {
        #[cfg(test)]
        if let Some(fixed) = self.fixed {
            return fixed(rows);
        }
        let rows = rows.min(MAX_ROWS);
        let known = |rows: usize| Some((rows, self.least(rows)?));
        let below = (0..=rows).rev().find_map(known);
        let above = (rows..self.samples.len()).find_map(known);
        let grown = |rows: usize| 1.0 + ASSUMED_SHARE * rows as f64;
        match (below, above) {
            (Some((low, time)), Some((high, more))) if low < high => {
                time + (more - time) * (rows - low) as f64 / (high - low) as f64
            }
            (Some((low, time)), _) => time * grown(rows - low),
            (None, Some((high, time))) => time / grown(high - rows),
            (None, None) => grown(rows),
        }
    }

    /// The least of the times that count: steps are held up by what else the machine does, and never hurried.
    fn least(&self, rows: usize) -> Option<f64> {
        let samples = self.samples.get(rows)?;
        if samples.count < CONFIRMED || self.steps - samples.last > MAX_AGE {
            return None;
        }
        samples.times[..samples.count.min(SAMPLES)].iter().copied().min_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(times: &mut StepTimes, rows: usize, milliseconds: u64) {
        for _ in 0..CONFIRMED {
            times.record(rows, Duration::from_millis(milliseconds));
        }
    }

    #[test]
    fn what_is_not_known_is_taken_to_be_cheap() {
        let mut times = StepTimes::default();
        assert!(times.estimate(5) > times.estimate(1) && times.estimate(5) < 1.5 * times.estimate(1));
        times.record(1, Duration::from_millis(10));
        assert!(times.is_empty());
        record(&mut times, 1, 10);
        assert_eq!(times.estimate(1), 0.010);
        assert!(times.estimate(8) > 0.010 && times.estimate(8) < 0.020);
        record(&mut times, 5, 30);
        assert!((times.estimate(3) - 0.020).abs() < 1e-9 && times.estimate(5) == 0.030);
        assert!(times.estimate(6) > 0.030);
        assert!(times.estimate(1 << 30).is_finite());
    }

    #[test]
    fn a_step_that_was_held_up_does_not_count() {
        let mut times = StepTimes::default();
        for milliseconds in [900, 11, 12, 700, 13] {
            times.record(2, Duration::from_millis(milliseconds));
        }
        assert_eq!(times.estimate(2), 0.011);
        // The last ones count, and not for ever.
        for _ in 0..SAMPLES {
            record(&mut times, 2, 20);
        }
        assert_eq!(times.estimate(2), 0.020);
        times.record(8, Duration::from_millis(900));
        assert!(times.estimate(8) < 0.040, "tried again");
        record(&mut times, 8, 500);
        assert_eq!(times.estimate(8), 0.500);
        for _ in 0..=MAX_AGE {
            times.record(2, Duration::from_millis(20));
        }
        assert!(times.estimate(8) < 0.040, "tried again");
        record(&mut times, 8, 100);
        assert_eq!(times.estimate(8), 0.100);
    }
}
