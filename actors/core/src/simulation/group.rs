//! How long a group really takes for a step: every rank, every hop.
//!
//! Not the formulas by which groups are chosen ([`expectation`](crate::market::expectation)): each rank begins to send when
//! it has computed its own share, a hop begins where the one before it ended at this very rank, and what a slow link holds
//! up travels around the ring with the hops.

use super::truth::{Place, Truth};

/// What one step asks for.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Samples over the group.
    pub batch: u64,
    /// Floating-point operations of a sample.
    pub flops_per_sample: f64,
    /// Gradients, bytes.
    pub gradient_bytes: f64,
}

/// How long a step takes these members, by rank; `load` is how much slower than usual each one is now. Milliseconds.
pub fn step_ms(truth: &Truth, members: &[usize], load: &[f64], step: &Step) -> f64 {
    let count = members.len();
    let computed = members
        .iter()
        .zip(load)
        .enumerate()
        .map(|(rank, (miner, load))| {
            let samples = share(step.batch, count as u64, rank as u64) as f64;
            samples * step.flops_per_sample / truth.speed(*miner) * load
        });
    let mut at: Vec<f64> = computed.collect();
    if count < 2 {
        return at.iter().fold(0.0, |a, b| a.max(*b));
    }
    let next = |rank: usize| members[(rank + 1) % count];
    let ways = (0..count).map(|r| truth.way(Place::Miner(members[r]), Place::Miner(next(r))));
    let segment = step.gradient_bytes / count as f64;
    let hops: Vec<f64> = ways.map(|way| way.transfer_ms(segment)).collect();
    for _ in 0..crate::ring::hops(count) {
        let before = at.clone();
        for rank in 0..count {
            let from = (rank + count - 1) % count;
            // What came has to be there, and what went has to be gone.
            let arrived = before[from].max(before[rank]) + hops[from];
            at[rank] = arrived.max(before[rank] + hops[rank]);
        }
    }
    // A step ends when every member has confirmed it to the first.
    let ends = at.iter().fold(0.0, |a: f64, b| a.max(*b));
    let confirmed = members.iter().skip(1);
    let confirmed = confirmed.map(|m| truth.way(Place::Miner(members[0]), Place::Miner(*m)));
    ends + confirmed
        .map(|way| 2.0 * way.latency_ms)
        .fold(0.0, f64::max)
}

/// A rank's samples of a step: parts differ by one at most.
const fn share(batch: u64, count: u64, rank: u64) -> u64 {
    batch / count + (rank < batch % count) as u64
}
