//! What one member means to its group.

use super::super::candidate::Candidate;
use super::super::expectation::{self, Demand, Tally};
use super::super::link::Party;
use super::super::select::{Surroundings, Wanted};
use crate::price::work_cost;
use crate::rating::BEST_MILLI;

/// A candidate as groups are reckoned with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) compute_ms: f64,
    pub(super) fetch_ms: f64,
    pub(super) store_ms_per_byte: f64,
    pub(super) hazard_per_ms: f64,
    /// One over its rating as a part of the best.
    pub(super) weight: f64,
    pub(super) price: f64,
}

impl Load {
    pub(super) fn of(
        candidate: &Candidate,
        demand: &Demand,
        wanted: &Wanted,
        around: &Surroundings,
    ) -> Self {
        let ability = &candidate.ability;
        let node = Party::Node(candidate.node);
        let store = expectation::best_store(&around.links, node, &around.stores);
        let price = work_cost(wanted.workload.flops, candidate.unit_price);
        Self {
            compute_ms: demand.compute_ms(ability.mflops),
            fetch_ms: expectation::fetch_ms(ability.missing_bytes, store),
            store_ms_per_byte: expectation::store_ms_per_byte(store),
            hazard_per_ms: expectation::hazard_per_ms(ability),
            weight: f64::from(BEST_MILLI) / f64::from(ability.low_milli.max(1)),
            // What costs more than all tokens does not pass the gates.
            price: price.map_or(f64::MAX, |price| price.base_units() as f64),
        }
    }

    pub(super) fn tally(&self, hop_ms: f64) -> Tally {
        Tally::empty(hop_ms).with(self)
    }

    /// The time of a group at this member's pace, over its rating; `rest_ms` is all but the computing.
    pub(super) fn weighed_ms(&self, rest_ms: f64) -> f64 {
        (self.compute_ms + rest_ms) * self.weight
    }
}

impl Tally {
    pub(super) fn empty(hop_ms: f64) -> Self {
        Self {
            hop_ms,
            store_ms_per_byte: f64::INFINITY,
            ..Self::default()
        }
    }

    /// With one more member; its links are the caller's to add.
    pub(super) fn with(self, load: &Load) -> Self {
        Self {
            compute_ms: self.compute_ms.max(load.compute_ms),
            fetch_ms: self.fetch_ms.max(load.fetch_ms),
            store_ms_per_byte: self.store_ms_per_byte.min(load.store_ms_per_byte),
            hazard_per_ms: self.hazard_per_ms + load.hazard_per_ms,
            ..self
        }
    }
}
