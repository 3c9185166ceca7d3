//! What miners have in their hands: the rule is `cryptomind_core::exposure`, what it is asked about is here.
//!
//! Kept for connected miners alone: whose connection is lost gets no further work anyway. What is withheld of their earnings counts
//! as nothing here, as it would have to be asked of the ledger for each candidate: so the cap is the lower one.

use std::collections::{BTreeMap, BTreeSet};

use cryptomind_core::exposure::{self, Group, Holding, Place, Refusal};
use cryptomind_core::run::Run;
use cryptomind_protocol::rating::RatingView;
use cryptomind_protocol::{Amount, NodeId, TaskId};

use super::Desk;
use crate::coordinator::links::Link;

/// Connected miners by what they count as.
#[derive(Default)]
pub(super) struct Groups {
    groups: BTreeMap<NodeId, Group>,
    nodes: BTreeSet<(Group, NodeId)>,
}

impl Groups {
    pub(super) fn enter(&mut self, node: NodeId, group: Group) {
        self.leave(&node);
        self.groups.insert(node, group);
        self.nodes.insert((group, node));
    }

    pub(super) fn leave(&mut self, node: &NodeId) {
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
    /// Why a task is too much for a miner now, where that is so.
    pub(super) fn exposed(&self, link: &Link, rating: &RatingView, run: &Run) -> Option<Refusal> {
        let allowance = self.world.allowance?;
        let besides = (link.record.node, run.task);
        let holding = self.holding(group_of(link, rating), besides);
        exposure::check(rating.streak, &holding, worth(run), allowance).err()
    }

    /// What the miners of a group hold besides a miner's place in a task. Others' places in it are worth something, and no other
    /// work.
    fn holding(&self, group: Group, besides: (NodeId, TaskId)) -> Holding {
        let places = self.free.groups.of(group).flat_map(|node| {
            let tasks = self.runs.of_member(&node).into_iter();
            tasks.map(move |task| (node, task))
        });
        let others = places.filter(|place| *place != besides);
        let mut tasks: Vec<TaskId> = others.map(|(_, task)| task).collect();
        let worths = tasks.iter().filter_map(|task| self.runs.get(task));
        let worth = Amount::sum(worths.map(worth));
        tasks.sort_unstable();
        tasks.dedup();
        tasks.retain(|task| *task != besides.1);
        Holding {
            works: tasks.len() as u32,
            worth: worth.unwrap_or(Amount::from_base_units(u64::MAX)),
            withheld: Amount::ZERO,
        }
    }
}

/// What one member's part of a run will be paid, as far as it is not verified yet. What a control task answers costs nobody
/// anything.
fn worth(run: &Run) -> Amount {
    if run.only.is_some() {
        return Amount::ZERO;
    }
    let left = run.terms.work_cost.checked_sub(run.earned);
    let part = left.and_then(|left| left.mul_div_ceil(1, u128::from(run.spec.miners.max(1))));
    part.unwrap_or_default()
}
