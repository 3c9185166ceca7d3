//! What the market remembers, as it is stored: read when the matchmaker starts, looked up for every miner.
//!
//! What follows from it is [`Past`]'s to say.

use cryptomind_core::journal::NodeRecord;
use cryptomind_core::market::past::{MAX_STATISTICS, Past};
use cryptomind_core::market::waits::{MAX_WAITS, WaitRecord};
use cryptomind_core::market::{Ability, Known, Workload};
use cryptomind_core::price::{ItemUse, Terms, class_of};
use cryptomind_protocol::rating::RatingView;
use cryptomind_protocol::role::Role;
use cryptomind_protocol::speed::{RunStatistic, SpeedBasis};
use cryptomind_protocol::task::{TaskSpec, UsualWait};
use cryptomind_protocol::{ErrorBody, NodeId};
use cryptomind_storage::StoreError;
use cryptomind_storage::state::StateStore;

use super::{Desk, exposure};

/// A miner as it is stored, with its rating.
pub(super) struct Miner {
    pub(super) record: NodeRecord,
    pub(super) rating: RatingView,
}

/// What is remembered of what is stored.
pub(super) fn remembered(store: &StateStore) -> Result<Past, StoreError> {
    let mut past = Past::default();
    let records = store.load::<NodeRecord>()?.into_iter();
    let miners = records.filter(|record| record.role == Role::Miner);
    miners.for_each(|record| past.joined(&record));
    for run in last::<RunStatistic>(store, MAX_STATISTICS)? {
        past.ran(&run);
    }
    for wait in last::<WaitRecord>(store, MAX_WAITS)? {
        past.matched(wait);
    }
    Ok(past)
}

/// The last records of a table that is kept by time, oldest first.
fn last<R: cryptomind_storage::state::Record>(
    store: &StateStore,
    limit: usize,
) -> Result<Vec<R>, StoreError> {
    let mut records = store.range::<R>(&[], &[], limit, true)?;
    records.reverse();
    Ok(records)
}

impl Desk {
    /// Every miner that ever joined.
    pub(super) async fn known_miners(&self) -> Result<Vec<Miner>, ErrorBody> {
        let stored = self.world.store.load::<NodeRecord>();
        let mut records = stored.map_err(ErrorBody::internal)?;
        records.retain(|record| record.role == Role::Miner);
        self.rated(records).await
    }

    pub(super) async fn rated(&self, records: Vec<NodeRecord>) -> Result<Vec<Miner>, ErrorBody> {
        let nodes: Vec<NodeId> = records.iter().map(|record| record.node).collect();
        let ratings = self.ratings(nodes).await?;
        let miner = |(record, rating)| Miner { record, rating };
        Ok(records.into_iter().zip(ratings).map(miner).collect())
    }

    /// What a miner can do for such work with these items, and what its speed rests on.
    pub(super) fn ability(
        &self,
        miner: &Miner,
        workload: &Workload,
        items: &[ItemUse],
    ) -> (Ability, SpeedBasis) {
        let Miner { record, rating } = miner;
        self.past.ability(record, rating, workload, items)
    }

    /// The connected miners, as a quote looks at them.
    pub(super) async fn quotable(
        &self,
        spec: &TaskSpec,
        terms: &Terms,
    ) -> Result<Vec<Known>, ErrorBody> {
        let links = self.world.links.of_role(Role::Miner).into_iter();
        let miners = self.rated(links.map(|link| link.record).collect()).await?;
        let workload = Workload::of(spec, terms);
        let part = exposure::part(terms.work_cost, spec.miners);
        let known = |miner: Miner| {
            let (ability, basis) = self.ability(&miner, &workload, &terms.items);
            let exposed = self.outsized(&miner, part);
            let ability = Ability { exposed, ..ability };
            Known {
                candidate: self.candidate(&miner.record.node, ability, terms.prices.unit_price),
                name: miner.record.name,
                owner: miner.record.owner,
                basis,
            }
        };
        Ok(miners.into_iter().map(known).collect())
    }

    /// How long tasks like this one waited for their miners.
    pub(super) fn usual_wait(&self, spec: &TaskSpec, terms: &Terms) -> Option<UsualWait> {
        let class = class_of(spec, &terms.extent);
        self.past.usual_wait(class, spec.miners)
    }
}
