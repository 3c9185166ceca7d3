//! The learning rate of each step. Computed in f64 from operations that are exact to the last bit
//! everywhere, as `cos` of a `libm` is not: all members of a group go at the same rate.

use cryptomind_protocol::task::{Schedule, TrainSpec};

use super::{as_written, power};

/// The learning rate as a function of the steps done.
pub(crate) struct Rate {
    lr: f64,
    course: Course,
}

/// [`Schedule`], with its numbers as people meant them.
enum Course {
    Constant,
    Cosine { warmup: u64, decay: u64, least: f64 },
    Step { every: u64, factor: f64 },
}

impl Rate {
    pub(crate) fn new(train: &TrainSpec) -> Self {
        let course = match train.schedule {
            Schedule::Constant => Course::Constant,
            Schedule::Cosine {
                warmup_steps,
                decay_steps,
                min_lr,
            } => Course::Cosine {
                warmup: warmup_steps.into(),
                decay: decay_steps.into(),
                least: as_written(min_lr),
            },
            Schedule::Step {
                every_steps,
                factor,
            } => Course::Step {
                every: u64::from(every_steps).max(1),
                factor: as_written(factor),
            },
        };
        Self {
            lr: as_written(train.optimizer.lr()),
            course,
        }
    }

    /// The rate of the step that follows `done` steps: see [`Schedule`] for the formulas.
    pub(crate) fn after(&self, done: u64) -> f64 {
        let lr = self.lr;
        match self.course {
            Course::Constant => lr,
            Course::Cosine { warmup, .. } if done < warmup => {
                lr * (done + 1) as f64 / (warmup + 1) as f64
            }
            Course::Cosine { decay, least, .. } if done >= decay => least,
            Course::Cosine {
                warmup,
                decay,
                least,
            } => {
                let way = (done - warmup) as f64 / (decay - warmup) as f64;
                least + 0.5 * (1.0 + cosine_of_half_turns(way)) * (lr - least)
            }
            Course::Step { every, factor } => lr * power(factor, done / every),
        }
    }
}

/// cos(π·x) for x from 0 to 1, off by less than 10⁻¹⁵: the Taylor series of the sine of π·(½ − x),
/// whose first term left out is (π/2)²³ / 23! ≈ 10⁻¹⁸.
fn cosine_of_half_turns(x: f64) -> f64 {
    const TERMS: usize = 11;
    const FACTORS: [f64; TERMS] = {
        let (mut factors, mut term, mut factor) = ([0.0; TERMS], 0, 1.0);
        while term < TERMS {
            factors[term] = factor;
            term += 1;
            factor /= -((2 * term * (2 * term + 1)) as f64);
        }
        factors
    };
    let angle = std::f64::consts::PI * (0.5 - x);
    let square = angle * angle;
    let mut sum = 0.0;
    for factor in FACTORS.iter().rev() {
        sum = sum * square + factor;
    }
    sum * angle
}

#[cfg(test)]
mod tests {
    use cryptomind_protocol::task::Optimizer;
    use proptest::prelude::*;

    use super::*;

    fn rate(lr: f32, schedule: Schedule) -> Rate {
        Rate::new(&TrainSpec {
            optimizer: Optimizer::adamw(lr),
            schedule,
            ..TrainSpec::default()
        })
    }

    fn assert_near(got: f64, want: f64) {
        assert!((got - want).abs() <= 1e-14 * want, "{got} for {want}");
    }

    #[test]
    fn the_cosine_is_one() {
        for i in 0..=10_000 {
            let x = f64::from(i) / 10_000.0;
            let (got, want) = (cosine_of_half_turns(x), (std::f64::consts::PI * x).cos());
            assert!((got - want).abs() < 1e-15, "{x}: {got} for {want}");
        }
        assert_eq!(cosine_of_half_turns(0.5), 0.0);
    }

    /// nanoGPT's `get_lr` with the settings of its GPT-2, in Python.
    #[test]
    fn a_cosine_is_nanogpts() {
        let schedule = Schedule::Cosine {
            warmup_steps: 2000,
            decay_steps: 600_000,
            min_lr: 6e-5,
        };
        let rate = rate(6e-4, schedule);
        for (done, want) in [
            (0, 2.998500749625187e-07),
            (1, 5.997001499250374e-07),
            (1999, 0.0005997001499250374),
            (2000, 0.0006),
            (301_000, 0.00032999999999999994),
            (599_999, 6.00000000037259e-05),
            (600_000, 6e-05),
            (700_000, 6e-05),
            (u64::MAX, 6e-05),
        ] {
            assert_near(rate.after(done), want);
        }
    }

    #[test]
    fn a_cosine_without_warm_up_begins_at_the_rate() {
        let schedule = Schedule::Cosine {
            warmup_steps: 0,
            decay_steps: 1,
            min_lr: 0.0,
        };
        let rate = rate(0.5, schedule);
        assert_near(rate.after(0), 0.5);
        assert_eq!((rate.after(1), rate.after(2)), (0.0, 0.0));
    }

    #[test]
    fn steps_fall_when_they_are_full() {
        let schedule = Schedule::Step {
            every_steps: 3,
            factor: 0.1,
        };
        let rate = rate(0.5, schedule);
        let falls = [0.5, 0.5, 0.5, 0.05, 0.05, 0.05, 0.005];
        for (done, want) in falls.into_iter().enumerate() {
            assert_near(rate.after(done as u64), want);
        }
        assert_eq!(rate.after(u64::MAX), 0.0);
    }

    proptest! {
        #[test]
        fn rates_stay_between_their_ends(warmup in 0u32..50, more in 1u32..50, done in 0u64..200) {
            let schedule = Schedule::Cosine { warmup_steps: warmup, decay_steps: warmup + more, min_lr: 1e-4 };
            let rate = rate(1e-3, schedule);
            let (here, next) = (rate.after(done), rate.after(done + 1));
            prop_assert!(here > 0.0 && here <= 1e-3 * (1.0 + 1e-15));
            match done < u64::from(warmup) {
                true => prop_assert!(here < next),
                false => prop_assert!(here >= next && next >= 1e-4),
            }
            prop_assert_eq!(rate_of(Schedule::Constant, done), as_written(1e-3));
        }
    }

    fn rate_of(schedule: Schedule, done: u64) -> f64 {
        rate(1e-3, schedule).after(done)
    }
}
