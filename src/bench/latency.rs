//! How long requests took: all of them, exactly, and the percentiles.

use std::time::Duration;

/// The durations of requests, in microseconds, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latencies(Vec<u32>);

/// A duration as it is kept: whole microseconds, at most an hour and some.
pub fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

impl Latencies {
    /// Of durations in microseconds, in any order.
    pub fn new(mut micros: Vec<u32>) -> Self {
        micros.sort_unstable();
        Self(micros)
    }

    /// The smallest duration, in milliseconds, that `percent` of all requests did not exceed (nearest rank).
    /// Nothing where there were no requests.
    pub fn percentile_ms(&self, percent: u32) -> Option<f64> {
        let rank = (self.0.len() as u64 * u64::from(percent.min(100))).div_ceil(100);
        let at = usize::try_from(rank).ok()?.saturating_sub(1);
        self.0.get(at).map(|micros| f64::from(*micros) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred = Latencies::new((1..=100).rev().map(|n| n * 1000).collect());
        let of = |percent| hundred.percentile_ms(percent).unwrap();
        assert_eq!(
            [of(0), of(1), of(50), of(99), of(100)],
            [1.0, 1.0, 50.0, 99.0, 100.0]
        );
        let three = Latencies::new(vec![3000, 1000, 2000]);
        assert_eq!(three.percentile_ms(50), Some(2.0));
        assert_eq!(three.percentile_ms(99), Some(3.0));
        assert_eq!(Latencies::default().percentile_ms(50), None);
    }

    #[test]
    fn what_takes_for_ever_is_kept_as_very_long() {
        assert_eq!(micros(Duration::from_millis(2)), 2000);
        assert_eq!(micros(Duration::MAX), u32::MAX);
    }
}
