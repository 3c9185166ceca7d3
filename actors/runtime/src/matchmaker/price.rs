//! The market's prices: once a minute, who asks for what and who offers it.
//!
//! The board is `cryptomind_core`'s; here is when it is looked at, what it is shown, and where it is kept.

use std::time::{Duration, Instant};

use cryptomind_core::price::{
    Extent, FloatingRule, INTERVAL_MS, Market, NoShows, PriceBoard, PriceRecord, Prices, Supplier,
    class_of, tier_of,
};
use cryptomind_core::run::Run;
use cryptomind_protocol::price::{PriceClass, PricePoint, PriceRing, WorkClass};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::TaskSpec;
use cryptomind_protocol::{Amount, NodeId, Timestamp};
use cryptomind_storage::StoreError;
use cryptomind_storage::state::{Batch, StateStore, after_prefix};

use super::{Desk, MatchmakerArguments};
use crate::clock;
use crate::coordinator::links::Link;

/// How often prices move. A coordinator that was away waits for so long first: its miners come back.
pub const PRICE_INTERVAL: Duration = Duration::from_millis(INTERVAL_MS);

/// What the network charges beside the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tariff {
    /// How the price of work moves.
    pub work: FloatingRule,
    /// For each begun MiB of a task's results.
    pub storage_per_mib: Amount,
    /// The network's share of a settlement, in millionths.
    pub network_fee_ppm: u32,
}

/// Prices, and what they are made of.
pub(super) struct Pricing {
    board: PriceBoard,
    no_shows: NoShows,
    interval: Duration,
    looked: Instant,
}

impl Pricing {
    /// As the prices were when they were last stored.
    pub(super) fn start(world: &MatchmakerArguments, steady: Instant) -> Result<Self, StoreError> {
        let mut recorded = Vec::new();
        for class in PriceClass::ALL {
            recorded.extend(points(&world.store, class, PriceRing::Minutes)?);
        }
        Ok(Self {
            board: PriceBoard::new(world.tariff.work, recorded, clock::now()),
            no_shows: NoShows::default(),
            interval: world.price_interval,
            looked: steady,
        })
    }

    /// These nodes failed a task.
    pub(super) fn blame(&mut self, nodes: &[NodeId], now: Timestamp) {
        nodes.iter().for_each(|node| self.no_shows.note(*node, now));
    }

    pub(super) fn points(&self) -> Vec<PricePoint> {
        self.board.points().copied().collect()
    }

    pub(super) fn unit_price(&self, class: PriceClass) -> Amount {
        self.board.unit_price(class)
    }

    /// Whether a minute has passed, by a clock that nobody sets. What was missed is not made up for.
    fn is_due(&mut self, steady: Instant) -> bool {
        let due = steady.saturating_duration_since(self.looked) >= self.interval;
        if due {
            self.looked = steady;
        }
        due
    }
}

/// A ring of a class's history, in no order.
pub(crate) fn points(
    store: &StateStore,
    class: PriceClass,
    ring: PriceRing,
) -> Result<Vec<PricePoint>, StoreError> {
    let prefix = PriceRecord::prefix(class, ring);
    let records = store.range::<PriceRecord>(&prefix, &after_prefix(&prefix), usize::MAX, false)?;
    Ok(records.into_iter().map(|record| record.point).collect())
}

const fn work_of(run: &Run) -> WorkClass {
    if run.is_training() {
        WorkClass::Training
    } else {
        WorkClass::Inference
    }
}

impl Desk {
    /// What a task is charged that is posted now.
    pub(super) fn prices(&self, spec: &TaskSpec, extent: &Extent) -> Prices {
        let tariff = &self.world.tariff;
        Prices {
            unit_price: self.pricing.unit_price(class_of(spec, extent)),
            storage_per_mib: tariff.storage_per_mib,
            network_fee_ppm: tariff.network_fee_ppm,
        }
    }

    /// Moves the prices when it is time. A minute that is lost on its way to the disk is one move less.
    pub(super) fn move_prices(&mut self, steady: Instant) {
        if !self.pricing.is_due(steady) {
            return;
        }
        let now = clock::now();
        let market = self.market(now);
        self.pricing.board.tick(&market, now);
        let mut batch = Batch::new();
        let records = self
            .pricing
            .board
            .points()
            .copied()
            .flat_map(PriceRecord::of);
        records.for_each(|record| batch.put(&record));
        // Nobody waits for it.
        drop(self.world.store.commit(batch));
    }

    fn market(&self, now: Timestamp) -> Market {
        let miners = self.world.links.of_role(Role::Miner).into_iter();
        let shown = miners.filter(|link| !self.pricing.no_shows.has(&link.record.node, now));
        Market {
            demands: self.runs.all().filter_map(Run::demand).collect(),
            suppliers: shown.map(|link| self.supplier(&link)).collect(),
        }
    }

    fn supplier(&self, link: &Link) -> Supplier {
        let tasks = self.runs.of_member(&link.record.node);
        let run = tasks.first().and_then(|task| self.runs.get(task));
        Supplier {
            owner: link.record.owner,
            memory: tier_of(link.record.capacity.memory_bytes),
            mflops: link.record.capacity.mflops,
            serves: run.map(work_of),
            reserve: link.record.reserve,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        let start = Instant::now();
        let rule = FloatingRule {
            start: Amount::ZERO,
            floor: Amount::ZERO,
            ceiling: Amount::ZERO,
            account_share_ppm: 0,
        };
        let mut pricing = Pricing {
            board: PriceBoard::new(rule, [], Timestamp::from_ms(0)),
            no_shows: NoShows::default(),
            interval: PRICE_INTERVAL,
            looked: start,
        };
        let mut due_after = |seconds| pricing.is_due(start + Duration::from_secs(seconds));
        assert!(!due_after(59));
        assert!(due_after(60));
        assert!(!due_after(119));
        assert!(due_after(7200));
        assert!(!due_after(7259));
    }
}
