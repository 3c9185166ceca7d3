//! What a task asks of the market while it waits or runs.

use crate::price::{Demand, class_of};

use super::{Run, samples_after};

/// Floating-point operations in the unit of a [`Demand`].
const FLOPS_PER_MFLOP: u128 = 1_000_000;

impl Run {
    /// What is left of it, by its verified checkpoints. Nothing where it has ended, and nothing where a miner of its own
    /// client works on it: nobody makes a price by paying oneself.
    pub fn demand(&self) -> Option<Demand> {
        let own = self.seats.iter().any(|s| s.member.owner == self.client);
        if own || self.state.is_final() {
            return None;
        }
        let extent = &self.terms.extent;
        let verified = samples_after(self, self.verified_step);
        let left = extent.total_samples.saturating_sub(verified);
        let flops = u128::from(left) * u128::from(extent.flops_per_sample);
        Some(Demand {
            client: self.client,
            class: class_of(&self.spec, extent),
            miners: self.spec.miners,
            mflop: u64::try_from(flops.div_ceil(FLOPS_PER_MFLOP)).unwrap_or(u64::MAX),
        })
    }
}
