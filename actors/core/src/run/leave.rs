//! Members that go because they want to: let go where a step ends, with what they earned, and no failure.
//!
//! A member announces it with [`Report::Leaving`](cryptomind_protocol::node::Report::Leaving). Its group pauses, as after a
//! loss, but nobody has to fall silent first: the others answer, it gets [`Effect::Stop`], and they go on from the step that
//! they agree on. It may go without waiting for that; then it counts as having left all the same. A member that is alone is
//! let go at once, and the task waits for another miner, from the last verified checkpoint on.

use cryptomind_protocol::task::TaskState;
use cryptomind_protocol::{NodeId, Timestamp};

use super::blame::{Fault, Loss};
use super::{Effect, MAX_LEAVES, Run};

impl Run {
    pub(super) fn leaving(
        &mut self,
        node: NodeId,
        reason: String,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(seat) = self.seat(node) else { return };
        let name = seat.member.name.clone();
        seat.leaving = Some(reason.clone());
        // A member without others to agree with, or without a part that is still to be done.
        if self.seats.len() == 1 || self.has_done_its_part(node) {
            return self.let_go(node, now, effects);
        }
        match self.state {
            TaskState::Matched | TaskState::Running => {
                self.pause(format!("{name} leaves: {reason}"), now, effects);
            }
            TaskState::Regrouping => self.regroup_if_answered(now, effects),
            _ => {}
        }
    }

    /// When all work is verified, the first rank alone owes something: the result.
    pub(super) fn has_done_its_part(&self, node: NodeId) -> bool {
        self.is_verified_whole() && self.seats.first().is_some_and(|s| s.member.node != node)
    }

    fn let_go(&mut self, node: NodeId, now: Timestamp, effects: &mut Vec<Effect>) {
        let loss = Loss::new(node, "it leaves", Fault::Nobodys);
        if self.has_done_its_part(node) {
            self.release(vec![loss], now, effects);
        } else {
            self.lose(vec![loss], now, effects);
        }
    }

    /// Gives up the seats of members that have done their part: they leave, whatever became of them since.
    pub(super) fn release(&mut self, gone: Vec<Loss>, now: Timestamp, effects: &mut Vec<Effect>) {
        for loss in gone {
            effects.extend(self.praise(loss.node));
            if let Some(seat) = self.seat(loss.node) {
                seat.leaving.get_or_insert_with(|| loss.reason.clone());
            }
            self.drop_members(vec![loss], now, effects);
        }
    }

    /// It said that it would go, and is gone.
    pub(super) fn gone_if_leaving(
        &mut self,
        node: NodeId,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let leaves = self.seat(node).is_some_and(|seat| seat.leaving.is_some());
        if leaves && !self.state.is_final() {
            self.let_go(node, now, effects);
        }
    }

    /// Whether a node left the task so often that it is not asked again.
    pub(super) fn left_too_often(&self, node: NodeId) -> bool {
        self.leaves.iter().filter(|n| **n == node).count() >= MAX_LEAVES
    }
}
