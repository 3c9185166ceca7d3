//! When the slowest of several is done, who are each done at a time that is known by its median and spread.
//!
//! Times scatter by factors: the logarithm of each is taken as normal. All are done by t with the probability that each
//! is, since they do not wait for one another:
//!
//! ```text
//! P(all done by t) = Π Φ((ln t − ln median) ÷ spread),   Φ(x) = ½ · erfc(−x ÷ √2)
//! ```
//!
//! A quantile of it has no closed form; it is found by bisection.

use statrs::function::erf::erfc;

/// Halvings until a quantile is known to less than a millionth of the range that it is looked for in.
const HALVINGS: u32 = 24;
/// So many spreads above its median nobody is late any more: one of 10⁹ is.
const FARTHEST: f64 = 6.0;

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finish {
    /// Done by then with even odds, in any unit.
    pub median: f64,
    /// Standard deviation of its logarithm.
    pub spread: f64,
}

impl Finish {
    /// How likely it is done by the time of this logarithm.
    fn done(&self, ln_time: f64) -> f64 {
        let late = self.median.ln() - ln_time;
        match self.spread > 0.0 {
            true => erfc(late / self.spread * std::f64::consts::FRAC_1_SQRT_2) / 2.0,
            false if late <= 0.0 => 1.0,
            false => 0.0,
        }
    }
}

/// By when all are done with this probability, ½ or more and below 1. Whoever takes no time is not waited for; 0 where nobody takes any.
pub(super) fn all_done(finishes: impl Iterator<Item = Finish> + Clone, probability: f64) -> f64 {
    let finishes = finishes.filter(|finish| finish.median > 0.0);
    let slowest = finishes
        .clone()
        .map(|finish| finish.median)
        .reduce(f64::max);
    let Some(slowest) = slowest else { return 0.0 };
    let farthest = |finish: Finish| finish.median.ln() + FARTHEST * finish.spread;
    // The slowest is half done by its median, so all are done by then with even odds at best.
    let (mut early, mut late) = (
        slowest.ln(),
        finishes.clone().map(farthest).fold(f64::MIN, f64::max),
    );
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(early, late);
        let done: f64 = finishes.clone().map(|finish| finish.done(middle)).product();
        *(if done < probability {
            &mut early
        } else {
            &mut late
        }) = middle;
    }
    late.exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    fn of(all: &[(f64, f64)], probability: f64) -> f64 {
        let finish = |(median, spread): &(f64, f64)| Finish {
            median: *median,
            spread: *spread,
        };
        all_done(all.iter().map(finish), probability)
    }

    #[test]
    fn of_one_it_is_the_quantile_of_tables() {
        // Φ(1.6449) = 0.95.
        let found = of(&[(100.0, 0.5)], 0.95);
        assert!(
            (found / (100.0 * (0.5f64 * 1.644_854).exp()) - 1.0).abs() < 1e-6,
            "{found}"
        );
        let certain = of(&[(100.0, 0.0)], 0.95);
        assert!((certain - 100.0).abs() < 1e-9, "{certain}");
        assert_eq!(of(&[], 0.95), 0.0);
        assert_eq!(of(&[(0.0, 0.5)], 0.95), 0.0);
    }

    #[test]
    fn of_several_it_is_what_lots_say() {
        let all = [(100.0, 0.3), (90.0, 0.5), (20.0, 0.5), (110.0, 0.1)];
        let mut dice = Dice::new(7);
        let slowest = |dice: &mut Dice| {
            let drawn = all.map(|(median, spread)| median * dice.factor(spread));
            drawn.into_iter().fold(0.0, f64::max)
        };
        let mut drawn: Vec<f64> = (0..40_000).map(|_| slowest(&mut dice)).collect();
        drawn.sort_by(f64::total_cmp);
        for percent in [60, 80, 95] {
            let (found, lots) = (
                of(&all, f64::from(percent) / 100.0),
                drawn[400 * percent as usize],
            );
            assert!(
                (found / lots - 1.0).abs() < 0.02,
                "{percent}: {found} against {lots}"
            );
        }
    }
}
