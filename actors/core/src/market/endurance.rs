//! How often nodes fail: the time that they lasted as members, over their failures.
//!
//! Owned by the matchmaker, fed with every [`RunStatistic`]; the count of failures is the rating's. A newcomer is taken to
//! last as long as home machines do, and that counts as one failure seen:
//!
//! ```text
//! mtbf = (3.8 days + time as a member) / (1 + failures)
//! ```
//!
//! This is the mean of a Gamma posterior of the failure rate with one failure in 3.8 days as its prior; the 3.8 days are what
//! Salad measured of its hosts in 2025 (182 reallocations of 100 instances in 168 h).

use std::collections::BTreeMap;

use cryptomind_protocol::NodeId;

use super::speed::RunStatistic;

/// Mean time between failures of a machine of which nothing is known, milliseconds.
pub const NEWCOMER_MTBF_MS: u64 = 328_320_000;

/// How long nodes were members of groups.
#[derive(Debug, Clone, Default)]
pub struct Endurance(BTreeMap<NodeId, u64>);

impl Endurance {
    /// Takes what a node did in a run.
    pub fn ran(&mut self, run: &RunStatistic) {
        let lasted = self.0.entry(run.node).or_default();
        *lasted = lasted.saturating_add(run.present_ms);
    }

    /// Mean time between a node's failures, of which there were so many, milliseconds.
    pub fn mtbf_ms(&self, node: &NodeId, failures: u32) -> u64 {
        let lasted = self.0.get(node).copied().unwrap_or_default();
        NEWCOMER_MTBF_MS.saturating_add(lasted) / (u64::from(failures) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::speed::Step;
    use crate::market::speed::{Engine, WorkKind};
    use cryptomind_protocol::{TaskId, Timestamp};

    #[test]
    fn time_lengthens_it_and_failures_shorten_it() {
        let node = NodeId::new([1; 32]);
        let mut endurance = Endurance::default();
        assert_eq!(endurance.mtbf_ms(&node, 0), NEWCOMER_MTBF_MS);
        assert_eq!(endurance.mtbf_ms(&node, 1), NEWCOMER_MTBF_MS / 2);
        endurance.ran(&RunStatistic {
            task: TaskId::new([1; 16]),
            node,
            kind: WorkKind::Train,
            engine: Engine::Cpu,
            step: Step {
                flops: 1,
                parameters: 1,
            },
            flops: 1,
            ms: 1,
            present_ms: NEWCOMER_MTBF_MS,
            at: Timestamp::from_ms(1),
        });
        assert_eq!(endurance.mtbf_ms(&node, 1), NEWCOMER_MTBF_MS);
        assert_eq!(
            endurance.mtbf_ms(&NodeId::new([2; 32]), 0),
            NEWCOMER_MTBF_MS
        );
    }
}
