//! What is to be done: tasks of different sizes, and when they are posted.

use crate::dice::Dice;

/// Pay, in base units. One minute of a miner of speed 1 is paid [`MINUTE`]; a task's pay says how large it is.
pub type Pay = u64;

/// What a minute's work of a miner of speed 1 is paid.
pub const MINUTE: Pay = 1_000_000;
/// Half of the tasks are smaller.
const MEDIAN: f64 = 7.75;
/// Deviation of the logarithm of sizes.
const SIGMA: f64 = 0.68;
/// The smallest and the largest task, minutes.
const RANGE: (f64, f64) = (1.0, 60.0);
/// One task in ten is as large: MEDIAN · e^(1.2816 · SIGMA) minutes.
pub const LARGE: Pay = 18_525_000;
/// Mean pay of a task, with the sizes kept in their range.
pub const MEAN: Pay = 9_770_000;

/// Tasks of a seed, one after the other.
#[derive(Debug)]
pub struct Tasks {
    dice: Dice,
    /// From one to the next on average, milliseconds.
    gap_ms: f64,
    at_ms: f64,
}

/// A task that is posted.
#[derive(Debug, Clone, Copy)]
pub struct Task {
    /// When, milliseconds.
    pub at_ms: u64,
    /// What it is paid.
    pub pay: Pay,
}

impl Tasks {
    /// So many that miners of these speeds together are busy for a part of their time.
    pub fn new(dice: Dice, speeds: f64, busy: f64) -> Self {
        let minutes = MEAN as f64 / MINUTE as f64 / (speeds * busy);
        Self {
            dice,
            gap_ms: minutes * 60e3,
            at_ms: 0.0,
        }
    }

    /// The next one.
    pub fn draw(&mut self) -> Task {
        self.at_ms += self.dice.wait(self.gap_ms);
        let minutes = (MEDIAN * self.dice.factor(SIGMA)).clamp(RANGE.0, RANGE.1);
        Task {
            at_ms: self.at_ms as u64,
            pay: (minutes * MINUTE as f64) as Pay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_the_constants_say() {
        let mut tasks = Tasks::new(Dice::new(1), 2.0, 0.5);
        let drawn: Vec<_> = (0..100_000).map(|_| tasks.draw()).collect();
        let mean = drawn.iter().map(|task| task.pay).sum::<u64>() / 100_000;
        assert!(mean.abs_diff(MEAN) < MEAN / 50, "{mean}");
        let large = drawn.iter().filter(|task| task.pay >= LARGE).count();
        assert!((9_500..10_500).contains(&large), "{large}");
        // Miners of speed 2 that are half busy do what one of speed 1 does all the time.
        let minutes = drawn[99_999].at_ms as f64 / 60e3;
        let busy = minutes * MINUTE as f64 / (mean as f64 * 1e5);
        assert!((busy - 1.0).abs() < 0.03, "{busy}");
    }
}
