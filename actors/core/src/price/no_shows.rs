//! Miners that let a task down: for an hour they are no supply.

use std::collections::BTreeMap;

use cryptomind_protocol::{NodeId, Timestamp};

/// How long a miner that failed is not counted, milliseconds.
pub const NO_SHOW_MS: u64 = 3_600_000;

/// Who failed within the last hour. Who says to have speed and does not show it does not lower the price.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoShows(BTreeMap<NodeId, Timestamp>);

impl NoShows {
    /// `node` failed a task. Whoever is forgiven is forgotten: there are never more than fail in an hour.
    pub fn note(&mut self, node: NodeId, now: Timestamp) {
        self.0
            .retain(|_, failed| now.ms_since(*failed) < NO_SHOW_MS);
        self.0.insert(node, now);
    }

    /// Whether it is not counted yet.
    pub fn has(&self, node: &NodeId, now: Timestamp) -> bool {
        let failed = self.0.get(node);
        failed.is_some_and(|failed| now.ms_since(*failed) < NO_SHOW_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miner_that_failed_counts_again_after_an_hour() {
        let (a, b) = (NodeId::new([1; 32]), NodeId::new([2; 32]));
        let at = Timestamp::from_ms;
        let mut absent = NoShows::default();
        absent.note(a, at(0));
        assert!(absent.has(&a, at(NO_SHOW_MS - 1)) && !absent.has(&b, at(0)));
        assert!(!absent.has(&a, at(NO_SHOW_MS)));
        absent.note(b, at(NO_SHOW_MS));
        assert_eq!(absent.0.len(), 1);
    }
}
