//! Successes and failures that fade: a Beta distribution with forgetting (Jøsang and Ismail, 2002).

use cryptomind_protocol::rating;
use statrs::function::beta::inv_beta_reg;

/// Successes and failures as taken before there are any.
const PRIOR: (f64, f64) = (4.0, 1.0);
/// What is known with 95 % certainty is not below this quantile.
const LOW: f64 = 0.05;
/// So many of both are looked at, in their proportion: far beyond, the quantile's search would not end.
const MOST: f64 = 1e6;
const PPM: f64 = 1e6;

/// What is remembered of both, the prior apart.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Odds {
    good: f64,
    bad: f64,
    /// The hour since 1970 of which that is so.
    hour: u64,
    /// After so many hours half of it is forgotten.
    half_life_h: f64,
}

impl Odds {
    pub(super) fn new(half_life_h: f64) -> Self {
        Self {
            half_life_h,
            ..Self::default()
        }
    }

    pub(super) fn count(&mut self, hour: u64, good: f64, bad: f64) {
        *self = self.at(hour);
        self.good += good;
        self.bad += bad;
    }

    /// What is left at an hour; the clock never goes back.
    fn at(mut self, hour: u64) -> Self {
        let passed = hour.saturating_sub(self.hour);
        if passed > 0 {
            let kept = (-(passed as f64) / self.half_life_h).exp2();
            (self.good, self.bad) = (self.good * kept, self.bad * kept);
            self.hour = hour;
        }
        self
    }

    /// Both sums at an hour, the prior apart.
    pub(super) fn sums(self, hour: u64) -> (f64, f64) {
        let faded = self.at(hour);
        (faded.good, faded.bad)
    }

    /// The distribution's mean and lower quantile at an hour.
    pub(super) fn known(self, hour: u64) -> rating::Odds {
        let (good, bad) = self.sums(hour);
        // More than a million is as good as that: the quantile is the mean then.
        let scale = (MOST / (good + bad)).min(1.0);
        let (good, bad) = (PRIOR.0 + good * scale, PRIOR.1 + bad * scale);
        let ppm = |part: f64| (part * PPM).round() as u32;
        rating::Odds {
            mean_ppm: ppm(good / (good + bad)),
            low_ppm: ppm(inv_beta_reg(good, bad, LOW)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn low(good: f64, bad: f64) -> f64 {
        let mut odds = Odds::new(24.0);
        odds.count(0, good, bad);
        f64::from(odds.known(0).low_ppm) / PPM
    }

    #[test]
    fn quantiles_are_those_of_the_beta_distribution() {
        // With one failure in the prior it is 0.05^(1/n); the others by an independent implementation (R's qbeta).
        for (good, bad, expected) in [
            (0.0, 0.0, 0.472_871),
            (3.0, 0.0, 0.651_836),
            (30.0, 0.0, 0.915_663),
            (98.0, 2.0, 0.941_2),
        ] {
            let found = low(good, bad);
            assert!((found - expected).abs() < 5e-4, "{good}/{bad}: {found}");
        }
    }

    #[test]
    fn however_many_there_are_it_is_known() {
        for (good, bad) in [(1e9, 0.0), (1e15, 3.0), (0.0, 1e12), (1e12, 1e12)] {
            let mut odds = Odds::new(24.0);
            odds.count(0, good, bad);
            let known = odds.known(0);
            let mean = good / (good + bad) * PPM;
            assert!((f64::from(known.mean_ppm) - mean).abs() < 10.0, "{known:?}");
            assert!(known.low_ppm <= known.mean_ppm && mean - f64::from(known.low_ppm) < 1_500.0);
        }
    }

    #[test]
    fn half_is_forgotten_in_a_half_life() {
        let mut odds = Odds::new(24.0);
        odds.count(0, 8.0, 4.0);
        let mut halved = Odds::new(24.0);
        halved.count(24, 4.0, 2.0);
        assert_eq!(odds.known(24), halved.known(24));
        assert_eq!(odds.known(24 * 1000), Odds::new(24.0).known(0));
        // A clock that was set back changes nothing.
        odds.count(24, 0.0, 0.0);
        assert_eq!(odds.known(3), odds.known(24));
    }
}
