//! An attempt that members formed while the coordinator was away: see [`crate::succession`].
//!
//! It is adopted where the coordinator granted nothing after the attempt that they left: seats, ranks, addresses and the step to go
//! on from become those that they agreed on, each weighs in a batch what it did before, and whoever they do not name is lost by the usual rules. Where another attempt was
//! granted, theirs earns nothing: whoever is in it is told to stop, because its state is no longer that of the group. Members say
//! [`Input::Succeeded`](super::Input::Succeeded) before all other news of that attempt; the answer to those that keep their seats is their place,
//! with fresh tickets.

use cryptomind_protocol::task::{Event, TaskState};
use cryptomind_protocol::{NodeId, Timestamp};

use super::blame::{Fault, Loss};
use super::{Effect, Run};
use crate::succession::{Proof, Successor};

impl Run {
    pub(super) fn succeeded(
        &mut self,
        node: NodeId,
        proof: &Proof,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(seat) = self.seat(node) else {
            let reason = "the group went on without this node".to_owned();
            return effects.push(Effect::Stop { node, reason });
        };
        seat.returned = None;
        let away_since = seat.away_since.take();
        self.excuse_absence(away_since, now);
        if self.may_adopt(proof) {
            self.adopt(proof.successor(), now, effects);
        } else if proof.attempt() == self.attempt && self.is_granted(proof.successor()) {
            self.weigh_as_before();
            // Where the group forms again, it hears its place in the attempt after this one.
            if self.state != TaskState::Regrouping {
                effects.push(Effect::Match { only: Some(node) });
            }
        } else if proof.attempt() >= self.attempt {
            let reason = "it went on with others, and another group was granted meanwhile";
            self.lose(vec![Loss::new(node, reason, Fault::Nobodys)], now, effects);
        }
        // Else it is old news, and the member is told where the group stands by other ways.
    }

    fn may_adopt(&self, proof: &Proof) -> bool {
        use TaskState::{Matched, Regrouping, Running};
        let successor = proof.successor();
        let steps = self.verified_step..=self.terms.extent.steps;
        let is_seated = |node: &NodeId| self.seats.iter().any(|seat| seat.member.node == *node);
        self.is_training()
            && matches!(self.state, Matched | Running | Regrouping)
            && proof.attempt() == self.attempt + 1
            && proof.follows(self.task, &self.group)
            && successor.members.iter().all(is_seated)
            && steps.contains(&successor.start_step)
    }

    /// Whether a successor is the present attempt, as it began: members may be lost since.
    fn is_granted(&self, successor: &Successor) -> bool {
        let told = successor.members.iter().zip(&successor.ring_addresses);
        let told: Vec<_> = told.collect();
        let mut seats = self
            .seats
            .iter()
            .map(|seat| (&seat.member.node, &seat.ring_address));
        self.group == successor.members
            && self.start_step == successor.start_step
            && seats.all(|seat| told.contains(&seat))
    }

    fn adopt(&mut self, successor: &Successor, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.state != TaskState::Regrouping {
            let reason =
                "its members formed again by themselves while they did not hear the coordinator";
            let reason = reason.to_owned();
            self.tell(Event::Regroups { reason }, effects);
        }
        let rank = |node: NodeId| successor.members.iter().position(|n| *n == node);
        let left = self.nodes().into_iter().filter(|n| rank(*n).is_none());
        let reason = "the others heard nothing of it, and went on without it";
        let lost = left.map(|node| Loss::new(node, reason, Fault::Open));
        self.drop_members(lost.collect(), now, effects);
        self.seats.sort_by_key(|seat| rank(seat.member.node));
        for (seat, address) in self.seats.iter_mut().zip(&successor.ring_addresses) {
            seat.ring_address.clone_from(address);
        }
        (self.start_step, self.step) = (successor.start_step, successor.start_step);
        self.begin_as_weighed(now, effects);
        // They follow these members anew: what they answered was of an attempt that never was.
        for newcomer in &mut self.newcomers {
            newcomer.follow_anew(now);
        }
        // What they vouch for may have waited for the lost ones alone.
        self.verify_checkpoints(now, effects);
        let mut seats = self.seats.iter();
        let leaves = seats.find_map(|s| Some((s.member.name.as_str(), s.leaving.as_ref()?)));
        let leaves = leaves.map(|(name, reason)| format!("{name} leaves: {reason}"));
        if let Some(reason) = leaves.filter(|_| self.state == TaskState::Matched) {
            self.pause(reason, now, effects);
        }
    }
}
