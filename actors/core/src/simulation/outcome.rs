//! What came of a simulation.

use cryptomind_protocol::task::TaskState;

/// What came of one scenario, policy and seed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Tasks that were posted.
    pub posted: u32,
    /// Tasks that were not posted, since a CU cost more than their clients pay.
    pub too_dear: u32,
    /// Tasks by how they ended: finished, then every other way.
    pub finished: u32,
    /// Tasks that ended in any other way.
    pub unfinished: u32,
    /// From posting to end of each finished task, milliseconds.
    pub completion_ms: Vec<u64>,
    /// From posting to the first match of each task that had one, milliseconds.
    pub wait_ms: Vec<u64>,
    /// Each finished task's time from its first match on, as a multiple of what was expected (the median of it).
    pub over_expected: Vec<f64>,
    /// Finished tasks that took no longer than was expected of 19 in 20.
    pub within_p95: u32,
    /// What was expected of 19 in 20, for each finished task, as a multiple of its median.
    pub range: Vec<f64>,
    /// Members lost.
    pub lost: u32,
    /// Groups all of whose members were in one local network.
    pub in_one_lan: u32,
    /// Groups in all.
    pub groups: u32,
    /// What one CU cost each minute, in base units: a curve a seed, where the price floats.
    pub prices: Vec<Vec<u64>>,
}

impl Outcome {
    pub(super) fn ended(&mut self, state: TaskState, took_ms: u64) {
        if state == TaskState::Finished {
            self.finished += 1;
            self.completion_ms.push(took_ms);
        } else {
            self.unfinished += 1;
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.posted += other.posted;
        self.too_dear += other.too_dear;
        self.finished += other.finished;
        self.unfinished += other.unfinished;
        self.completion_ms.extend(other.completion_ms);
        self.wait_ms.extend(other.wait_ms);
        self.over_expected.extend(other.over_expected);
        self.within_p95 += other.within_p95;
        self.range.extend(other.range);
        self.lost += other.lost;
        self.in_one_lan += other.in_one_lan;
        self.groups += other.groups;
        self.prices.extend(other.prices);
    }
}

/// The value that so many per cent of all values do not exceed (nearest rank).
pub fn percentile(values: &[f64], percent: u32) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as u64 * u64::from(percent.min(100))).div_ceil(100);
    let at = usize::try_from(rank.max(1) - 1).ok()?;
    values.get(at).copied()
}
