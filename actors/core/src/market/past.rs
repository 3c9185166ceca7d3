//! What the market remembers of miners, and what it therefore takes them to be able to do.
//!
//! Owned by the matchmaker, which stores what it is fed ([`RunStatistic`]s and [`WaitRecord`]s) and reads the last of them
//! when it starts. Choice, quote and explanation ask the same [`Past::ability`].

use cryptomind_protocol::price::PriceClass;
use cryptomind_protocol::rating::{Evidence, RatingView};
use cryptomind_protocol::speed::{RunStatistic, SpeedBasis};
use cryptomind_protocol::task::UsualWait;
use cryptomind_protocol::{AccountId, ItemId, NodeId};

use super::candidate::Ability;
use super::endurance::Endurance;
use super::speed::{Prediction, Speeds, StartTest};
use super::waits::{WaitRecord, Waits};
use super::warmth::Warmth;
use super::workload::Workload;
use crate::journal::NodeRecord;
use crate::price::ItemUse;

/// Statistics that are read again after a start, the last ones.
pub const MAX_STATISTICS: usize = 20_000;
/// Floating-point operations a second in the unit of an [`Ability`].
const MFLOPS: f64 = 1e6;
/// Millionths in a whole.
const PPM: f64 = 1e6;

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Past {
    speeds: Speeds,
    endurance: Endurance,
    waits: Waits,
    warmth: Warmth,
}

impl Past {
    /// A node joined, and says what it can do.
    pub fn joined(&mut self, record: &NodeRecord) {
        let flops_per_s = record.capacity.mflops.saturating_mul(MFLOPS as u64);
        let test = StartTest::from(flops_per_s).with_paces(&record.steps);
        self.speeds.started(record.node, record.owner, test);
        if let Some(machine) = &record.machine {
            self.speeds.made_of(record.node, machine);
        }
    }

    /// A node was a member of a group.
    pub fn ran(&mut self, run: &RunStatistic) {
        self.speeds.ran(run);
        self.endurance.ran(run);
    }

    /// A task has its group.
    pub fn matched(&mut self, wait: WaitRecord) {
        self.waits.matched(wait);
    }

    /// A node has these items at hand.
    pub fn has(&mut self, node: NodeId, items: impl IntoIterator<Item = ItemId>) {
        self.warmth.has(node, items);
    }

    /// How long such tasks waited for their groups.
    pub fn usual_wait(&self, class: PriceClass, miners: u32) -> Option<UsualWait> {
        self.waits.usual(class, miners)
    }

    /// What a miner can do for such work with these items, and what its speed rests on.
    pub fn ability(
        &self,
        record: &NodeRecord,
        rating: &RatingView,
        workload: &Workload,
        items: &[ItemUse],
    ) -> (Ability, SpeedBasis) {
        let (node, capacity) = (record.node, &record.capacity);
        let sort = workload.sort(capacity.engine);
        let predicted = self.speeds.predict(node, sort).unwrap_or(Prediction {
            flops_per_s: capacity.mflops as f64 * MFLOPS,
            spread: super::speed::START_TEST_SPREAD,
            basis: SpeedBasis::StartTest {},
        });
        let ability = Ability {
            mflops: (predicted.flops_per_s / MFLOPS) as u64,
            spread_ppm: (predicted.spread * PPM) as u32,
            memory_bytes: capacity.memory_bytes,
            reserve: record.reserve,
            missing_bytes: self.warmth.missing_bytes(&node, items),
            mtbf_ms: Some(self.endurance.mtbf_ms(&node, rating.failed)),
            ..Ability::new(0, 0)
        };
        (ability.rated(rating), predicted.basis)
    }

    /// How fast a node was in a client's run beside what its start test promises for such work. Nobody shows it in his own.
    pub fn speed_truth(&self, run: &RunStatistic, client: AccountId) -> Option<Evidence> {
        if self.speeds.owner(&run.node)? == client {
            return None;
        }
        let promised = self.speeds.promised(&run.node, run.kind, run.step)?;
        let achieved_mflops = run.mflops()?;
        Some(Evidence::Speed {
            achieved_mflops,
            promised_mflops: (promised / MFLOPS) as u64,
        })
    }
}

#[cfg(test)]
mod tests;
