//! The open runs, and which nodes are members of their groups: found without looking at every run.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use cryptomind_core::run::Run;
use cryptomind_protocol::task::TaskState;
use cryptomind_protocol::{AccountId, NodeId, TaskId, Timestamp};

/// All runs that have not ended.
#[derive(Default)]
pub(super) struct Runs {
    runs: BTreeMap<TaskId, Run>,
    /// Every member of every group, and every newcomer to one.
    members: BTreeSet<(NodeId, TaskId)>,
    /// Every miner that offered to be one and may be chosen.
    offers: BTreeSet<(NodeId, TaskId)>,
    /// Those that are for one miner alone and wait for it.
    only: BTreeSet<(NodeId, TaskId)>,
    /// How many each client has.
    clients: BTreeMap<AccountId, usize>,
    /// When each wants to be woken.
    timers: BTreeSet<(Timestamp, TaskId)>,
    /// Those that wait for miners, for their group or for a vacant place in it, the oldest first.
    waiting: BTreeSet<(Timestamp, TaskId)>,
    /// How many tasks wait for a miner's answer.
    owed: BTreeMap<NodeId, u32>,
}

/// Who works for a run.
fn engaged(run: &Run) -> impl Iterator<Item = NodeId> {
    let members = run.seats.iter().map(|seat| seat.member.node);
    members.chain(run.newcomers.iter().map(|n| n.offer.member.node))
}

impl FromIterator<Run> for Runs {
    fn from_iter<T: IntoIterator<Item = Run>>(runs: T) -> Self {
        let mut all = Self::default();
        runs.into_iter().for_each(|run| all.keep(run));
        all
    }
}

impl Runs {
    /// Takes a run in its new form.
    pub(super) fn keep(&mut self, run: Run) {
        self.forget(&run.task);
        let members = engaged(&run).map(|node| (node, run.task));
        self.members.extend(members);
        let offers = run.offers.iter().map(|o| (o.member.node, run.task));
        self.offers.extend(offers);
        *self.clients.entry(run.client).or_default() += 1;
        self.timers
            .extend(run.next_timer().map(|at| (at, run.task)));
        if run.seeks() {
            self.waiting.insert((run.posted, run.task));
        }
        if run.state == TaskState::Waiting {
            self.only.extend(run.only.map(|node| (node, run.task)));
        }
        for node in &run.asked {
            *self.owed.entry(*node).or_default() += 1;
        }
        self.runs.insert(run.task, run);
    }

    /// The run has ended.
    pub(super) fn forget(&mut self, task: &TaskId) {
        let Some(run) = self.runs.remove(task) else {
            return;
        };
        self.leave_client(run.client);
        for node in engaged(&run) {
            self.members.remove(&(node, *task));
        }
        for offer in &run.offers {
            self.offers.remove(&(offer.member.node, *task));
        }
        if let Some(node) = run.only {
            self.only.remove(&(node, *task));
        }
        if let Some(at) = run.next_timer() {
            self.timers.remove(&(at, *task));
        }
        self.waiting.remove(&(run.posted, *task));
        run.asked.iter().for_each(|node| self.answered(node));
    }

    fn answered(&mut self, node: &NodeId) {
        if let Some(owed) = self.owed.get_mut(node) {
            *owed -= 1;
            if *owed == 0 {
                self.owed.remove(node);
            }
        }
    }

    fn leave_client(&mut self, client: AccountId) {
        if let Entry::Occupied(mut count) = self.clients.entry(client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// How many open tasks an account has.
    pub(super) fn of_client(&self, client: &AccountId) -> usize {
        self.clients.get(client).copied().unwrap_or_default()
    }

    /// How many tasks wait for this miner's answer.
    pub(super) fn owed(&self, node: &NodeId) -> u32 {
        self.owed.get(node).copied().unwrap_or_default()
    }

    /// The members of a task's group, and who follows it.
    pub(super) fn seated(&self, task: &TaskId) -> Vec<NodeId> {
        self.runs.get(task).into_iter().flat_map(engaged).collect()
    }

    pub(super) fn get(&self, task: &TaskId) -> Option<&Run> {
        self.runs.get(task)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Run> {
        self.runs.values()
    }

    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn tasks(&self) -> Vec<TaskId> {
        self.runs.keys().copied().collect()
    }

    /// The tasks in whose groups a node is.
    pub(super) fn of_member(&self, node: &NodeId) -> Vec<TaskId> {
        of_node(&self.members, node).collect()
    }

    /// The tasks in whose groups a node is, or may be at any moment.
    pub(super) fn of_candidate(&self, node: &NodeId) -> Vec<TaskId> {
        let offers = of_node(&self.offers, node);
        of_node(&self.members, node).chain(offers).collect()
    }

    /// A task that waits for this miner alone.
    pub(super) fn only_for(&self, node: &NodeId) -> Option<TaskId> {
        of_node(&self.only, node).next()
    }

    pub(super) fn is_member(&self, node: &NodeId) -> bool {
        let from = (*node, TaskId::new([0; 16]));
        let next = self.members.range(from..).next();
        next.is_some_and(|(member, _)| member == node)
    }

    /// The tasks of the runs for which `wanted` holds.
    pub(super) fn that(&self, wanted: impl Fn(&Run) -> bool) -> Vec<TaskId> {
        let runs = self.runs.values().filter(|run| wanted(run));
        runs.map(|run| run.task).collect()
    }

    /// Whose timers have come.
    pub(super) fn due(&self, now: Timestamp) -> Vec<TaskId> {
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, task)| *task).collect()
    }

    /// Who waits for miners, the oldest first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.waiting.iter().map(|(_, task)| *task)
    }
}

/// A node's tasks among these.
fn of_node<'a>(
    pairs: &'a BTreeSet<(NodeId, TaskId)>,
    node: &NodeId,
) -> impl Iterator<Item = TaskId> + use<'a> {
    let (first, last) = (TaskId::new([0; 16]), TaskId::new([u8::MAX; 16]));
    let of_node = pairs.range((*node, first)..=(*node, last));
    of_node.map(|(_, task)| *task)
}

#[cfg(test)]
mod tests;
