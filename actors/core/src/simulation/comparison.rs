//! One scenario under every policy, over many seeds.

use super::outcome::{Outcome, percentile};
use super::scenario::Scenario;
use super::{Policy, simulate};

/// What a policy came to, over all seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct Played {
    /// Which.
    pub policy: Policy,
    /// All outcomes together.
    pub outcome: Outcome,
}

/// A scenario under every policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Over how many seeds.
    pub seeds: u64,
    /// By policy: the market, speed alone, by lot.
    pub results: [Played; 3],
}

impl Played {
    /// Median time from posting to end of the tasks that finished, milliseconds. Nothing where none did.
    pub fn median_ms(&self) -> Option<f64> {
        let times: Vec<f64> = self
            .outcome
            .completion_ms
            .iter()
            .map(|ms| *ms as f64)
            .collect();
        percentile(&times, 50)
    }
}

impl Comparison {
    /// What a policy came to.
    pub fn of(&self, policy: Policy) -> &Played {
        &self.results[policy as usize]
    }

    /// How many times as long tasks take under a policy as under the market's choice, by the medians.
    pub fn against(&self, policy: Policy) -> Option<f64> {
        Some(self.of(policy).median_ms()? / self.of(Policy::Market).median_ms()?)
    }
}

/// Plays a scenario under every policy, with the seeds from 0 on.
pub fn compare(scenario: &Scenario, seeds: u64) -> Comparison {
    let result = |policy| {
        let mut all = Outcome::default();
        for seed in 0..seeds {
            all.add(simulate(scenario, policy, seed));
        }
        Played {
            policy,
            outcome: all,
        }
    };
    Comparison {
        seeds,
        results: [Policy::Market, Policy::SpeedOnly, Policy::Random].map(result),
    }
}
