//! Where the time of training goes, by operation and pass.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Times of one operation, over all places in which a model has it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// In the forward pass.
    pub forward: Duration,
    /// For the gradients of its parameters.
    pub parameters: Duration,
    /// For the gradient of its input.
    pub input: Duration,
}

impl Spent {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.forward + self.parameters + self.input
    }
}

/// Times since it was begun.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    operations: BTreeMap<&'static str, Spent>,
}

/// What a clock is started for.
#[derive(Clone, Copy)]
pub(crate) enum Phase {
    Forward,
    Parameters,
    Input,
}

impl Profile {
    /// Operations with their times, the longest first.
    pub fn operations(&self) -> Vec<(&'static str, Spent)> {
        let mut all: Vec<_> = self
            .operations
            .iter()
            .map(|(name, spent)| (*name, *spent))
            .collect();
        all.sort_by_key(|(_, spent)| std::cmp::Reverse(spent.total()));
        all
    }

    fn add(&mut self, operation: &'static str, phase: Phase, took: Duration) {
        let spent = self.operations.entry(operation).or_default();
        let time = match phase {
            Phase::Forward => &mut spent.forward,
            Phase::Parameters => &mut spent.parameters,
            Phase::Input => &mut spent.input,
        };
        *time += took;
    }
}

/// Does the work, and notes what it took where there is a profile: no clock is read without one.
pub(crate) fn timed<R>(
    profile: &mut Option<Profile>,
    operation: &'static str,
    phase: Phase,
    work: impl FnOnce() -> R,
) -> R {
    let Some(profile) = profile else {
        return work();
    };
    let begin = Instant::now();
    let result = work();
    profile.add(operation, phase, begin.elapsed());
    result
}
