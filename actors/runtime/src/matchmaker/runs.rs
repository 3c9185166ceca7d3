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
    /// Every member of every group.
    members: BTreeSet<(NodeId, TaskId)>,
    /// How many each client has.
    clients: BTreeMap<AccountId, usize>,
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
        let members = run.seats.iter().map(|seat| (seat.member.node, run.task));
        self.members.extend(members);
        *self.clients.entry(run.client).or_default() += 1;
        self.runs.insert(run.task, run);
    }

    /// The run has ended.
    pub(super) fn forget(&mut self, task: &TaskId) {
        if let Some(run) = self.runs.remove(task) {
            self.leave_client(run.client);
            for seat in &run.seats {
                self.members.remove(&(seat.member.node, *task));
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
        let (first, last) = (TaskId::new([0; 16]), TaskId::new([u8::MAX; 16]));
        let of_node = self.members.range((*node, first)..=(*node, last));
        of_node.map(|(_, task)| *task).collect()
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
        self.that(|run| run.next_timer().is_some_and(|at| at <= now))
    }

    /// Who waits for miners, the oldest first.
    pub(super) fn waiting(&self) -> Vec<TaskId> {
        let runs = self.runs.values();
        let waiting = runs.filter(|run| run.state == TaskState::Waiting);
        let mut waiting: Vec<_> = waiting.map(|run| (run.posted, run.task)).collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, task)| task).collect()
    }
}
