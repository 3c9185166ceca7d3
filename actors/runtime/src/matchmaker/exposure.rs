//! What miners have in their hands: the rule is `cryptomind_core::exposure`, what it is asked about is here.
//!
//! Kept for connected miners alone: whose connection is lost gets no further work anyway. What is withheld of an owner's earnings
//! is as it was when one of its nodes joined or was last rated anew, which is at the end of each of its tasks.

use std::collections::{BTreeMap, BTreeSet};

use cryptomind_core::exposure::{self, Group, Holding, Place, Refusal};
use cryptomind_core::run::Run;
use cryptomind_protocol::rating::RatingView;
use cryptomind_protocol::{Amount, NodeId, TaskId};

use super::Desk;
use super::past::Miner;
use crate::coordinator::links::Link;
use crate::ledger::{LEDGER_LIMIT, LedgerMsg};

/// Connected miners by what they count as.
#[derive(Default)]
pub(super) struct Groups {
    groups: BTreeMap<NodeId, Group>,
    /// Of their owners' earnings.
    withheld: BTreeMap<NodeId, Amount>,
    nodes: BTreeSet<(Group, NodeId)>,
}

impl Groups {
    pub(super) fn enter(&mut self, node: NodeId, group: Group) {
        if let Some(before) = self.groups.insert(node, group) {
            self.nodes.remove(&(before, node));
        }
        self.nodes.insert((group, node));
    }

    pub(super) fn leave(&mut self, node: &NodeId) {
        self.withheld.remove(node);
        if let Some(group) = self.groups.remove(node) {
            self.nodes.remove(&(group, *node));
        }
    }

    fn of(&self, group: Group) -> impl Iterator<Item = NodeId> + '_ {
        let from = (group, NodeId::new([0; NodeId::LEN]));
        let nodes = self.nodes.range(from..);
        let nodes = nodes.take_while(move |(other, _)| *other == group);
        nodes.map(|(_, node)| *node)
    }
}

/// What a miner counts as.
pub(super) fn group_of(link: &Link, rating: &RatingView) -> Group {
    Group::of(link.record.owner, rating.streak, Place::of(link.seen))
}

impl Desk {
    /// Looks at what is withheld of a miner's owner, where that matters.
    pub(super) async fn look_at_withheld(&mut self, link: &Link) {
        if self.world.allowance.is_none() {
            return;
        }
        let balances = |reply| LedgerMsg::BalancesOf(link.record.owner, reply);
        let balances = self.world.ledger.call(balances, LEDGER_LIMIT).await;
        // Without an answer it is as it was.
        if let Ok(balances) = balances {
            let node = link.record.node;
            self.free.groups.withheld.insert(node, balances.withheld);
        }
    }

    /// Why a task is too much for a miner now, where that is so.
    pub(super) fn exposed(&self, link: &Link, rating: &RatingView, run: &Run) -> Option<Refusal> {
        let allowance = self.world.allowance?;
        let besides = (link.record.node, run.task);
        let holding = self.holding(group_of(link, rating), besides);
        exposure::check(rating.streak, &holding, worth(run), allowance).err()
    }

    /// Why such a part of a task is too much for a miner whatever it does now, where that is so: what it has in its hands will be
    /// done one day.
    pub(super) fn outsized(&self, miner: &Miner, part: Amount) -> Option<Refusal> {
        let allowance = self.world.allowance?;
        let withheld = self.free.groups.withheld.get(&miner.record.node);
        let idle = Holding {
            withheld: withheld.copied().unwrap_or_default(),
            ..Holding::default()
        };
        exposure::check(miner.rating.streak, &idle, part, allowance).err()
    }

    /// What the miners of a group hold besides a miner's place in a task. Others' places in it are worth something, and no other
    /// work.
    fn holding(&self, group: Group, besides: (NodeId, TaskId)) -> Holding {
        let places = self.free.groups.of(group).flat_map(|node| {
            let tasks = self.runs.of_candidate(&node).into_iter();
            tasks.map(move |task| (node, task))
        });
        let others = places.filter(|place| *place != besides);
        let mut tasks: Vec<TaskId> = others.map(|(_, task)| task).collect();
        let worths = tasks.iter().filter_map(|task| self.runs.get(task));
        let worth = Amount::sum(worths.map(worth));
        tasks.sort_unstable();
        tasks.dedup();
        let withheld = self.free.groups.withheld.get(&besides.0).copied();
        tasks.retain(|task| *task != besides.1);
        Holding {
            works: tasks.len() as u32,
            worth: worth.unwrap_or(Amount::from_base_units(u64::MAX)),
            withheld: withheld.unwrap_or_default(),
        }
    }
}

/// What one member's part of a run will be paid, as far as it is not verified yet.
fn worth(run: &Run) -> Amount {
    let left = run.terms.work_cost.checked_sub(run.earned);
    part(left.unwrap_or_default(), run.spec.miners)
}

/// One member's part of what a group of so many is paid.
pub(super) fn part(whole: Amount, miners: u32) -> Amount {
    let part = whole.mul_div_ceil(1, u128::from(miners.max(1)));
    part.unwrap_or_default()
}
