//! Newcomers: miners that take the place of lost members while the rest train on.
//!
//! Where a group that trains is smaller than its task asks for, free miners are asked, and whoever offers becomes a newcomer: it
//! fetches its data, takes the state from a member and follows it step by step, by [`cryptomind_protocol::follow`]. Once it is *level*, the
//! group pauses where a step ends, and it has a seat in the next attempt. So what a group stands still for is a word to the
//! coordinator and a closed ring, however large the state is.
//!
//! A newcomer earns nothing, and nobody waits for it: what goes wrong with it costs the group nothing. It has no part in the
//! members' agreement, and its fingerprint counts from the step on at which it has its seat.

use cryptomind_protocol::node::Report;
use cryptomind_protocol::task::{Event, TaskState};
use cryptomind_protocol::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Effect, Run, SUSPECT_LIMIT_MS, Seat};
use crate::market::{self, Offer};
use crate::succession::Paused;

/// No newcomers are asked where less than one part in so many of the task is left: it would be done before they are level.
const LAST_PART: u64 = 10;

/// A miner that follows the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newcomer {
    /// Who, and where its ring socket listens.
    pub offer: Offer,
    /// Since when it follows the present attempt.
    pub since: Timestamp,
    /// Whether it has the state and keeps up.
    pub is_level: bool,
    /// Its answer to the present pause.
    pub paused: Option<Paused>,
}

impl Newcomer {
    pub(super) const fn node(&self) -> NodeId {
        self.offer.member.node
    }
}

impl Run {
    /// How many miners could join the group as it is.
    pub(super) fn vacant(&self) -> usize {
        let trains = self.is_training() && self.state == TaskState::Running;
        let total = self.terms.extent.steps;
        let is_worth_it = self.step < total - total / LAST_PART;
        match trains && is_worth_it && !self.gets_nowhere() {
            true => {
                (self.spec.miners as usize).saturating_sub(self.seats.len() + self.newcomers.len())
            }
            false => 0,
        }
    }

    pub(super) fn newcomer(&mut self, node: NodeId) -> Option<&mut Newcomer> {
        self.newcomers.iter_mut().find(|n| n.node() == node)
    }

    /// A miner offers to join a group that trains.
    pub(super) fn offers_to_join(
        &mut self,
        offer: Offer,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let node = offer.member.node;
        self.asked.retain(|asked| *asked != node);
        if let Some(gate) = market::gate(&self.wanted(), &self.candidate(&offer)) {
            let reason = gate.to_string();
            return effects.push(Effect::Withdraw { node, reason });
        }
        let name = offer.member.name.clone();
        self.newcomers.push(Newcomer {
            offer,
            since: now,
            is_level: false,
            paused: None,
        });
        // Members hear whom to let in; what else it says they know.
        let all = self.nodes().into_iter().chain([node]);
        effects.extend(all.map(|node| Effect::Match { only: Some(node) }));
        let level = false;
        self.tell(Event::Follows { node, name, level }, effects);
    }

    pub(super) fn newcomer_reported(
        &mut self,
        node: NodeId,
        attempt: u32,
        report: Report,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        // Called, it may be there before the members are.
        let pauses = self.state == TaskState::Regrouping || self.calls;
        let pauses = pauses && attempt == self.attempt + 1;
        match report {
            Report::Level { step, .. } if attempt == self.attempt => {
                self.is_level(node, step, effects);
                self.call_newcomers(effects);
            }
            Report::Paused {
                committed,
                prepared,
                ring_address,
            } if pauses => {
                if let Some(newcomer) = self.newcomer(node) {
                    newcomer.offer.ring_address = ring_address;
                    newcomer.paused = Some(Paused {
                        committed,
                        prepared,
                    });
                }
                if self.state == TaskState::Regrouping {
                    self.regroup_if_answered(now, effects);
                }
            }
            Report::Failed { reason, .. } => {
                self.strikes.push(node);
                self.turn_away(node, reason, effects);
            }
            Report::Leaving { reason } => self.turn_away(node, reason, effects),
            _ => {}
        }
    }

    fn is_level(&mut self, node: NodeId, step: u64, effects: &mut Vec<Effect>) {
        let most = self.terms.extent.steps;
        let Some(newcomer) = self.newcomer(node).filter(|n| !n.is_level && step <= most) else {
            return;
        };
        newcomer.is_level = true;
        let name = newcomer.offer.member.name.clone();
        let level = true;
        self.tell(Event::Follows { node, name, level }, effects);
    }

    /// Has the group pause where a step ends, for those that are level; not while a checkpoint waits for its verification, which
    /// earns for those alone who computed it.
    pub(super) fn call_newcomers(&mut self, effects: &mut Vec<Effect>) {
        let is_ready = self.state == TaskState::Running
            && !self.calls
            && self.checkpoints.is_empty()
            && self.seats.iter().all(|seat| seat.leaving.is_none());
        let level = self.level();
        if !is_ready || level.is_empty() {
            return;
        }
        self.calls = true;
        let nodes = self.nodes().into_iter().chain(level);
        effects.push(Effect::Pause {
            nodes: nodes.collect(),
            attempt: self.attempt + 1,
            at_step_end: true,
        });
    }

    /// The newcomers that are level.
    pub(super) fn level(&self) -> Vec<NodeId> {
        let level = self.newcomers.iter().filter(|n| n.is_level);
        level.map(|n| n.node()).collect()
    }

    /// A member has left its ring where it was called to: so have all others.
    pub(super) fn rests_as_called(&mut self, now: Timestamp) {
        self.begin_pause(now);
        self.reason = "miners join the group".to_owned();
    }

    /// Whether a pause waits for a newcomer's answer.
    pub(super) fn waits_for_newcomers(&self, waited_ms: u64) -> bool {
        let silent = |n: &Newcomer| n.is_level && n.paused.is_none();
        waited_ms < SUSPECT_LIMIT_MS && self.newcomers.iter().any(silent)
    }

    /// Gives seats to those that have the state from which the group goes on; the others follow anew.
    pub(super) fn seat_newcomers(&mut self, now: Timestamp) {
        let start = self.start_step;
        let reaches = |n: &Newcomer| n.paused.is_some_and(|at| at.reaches(start));
        let (seated, behind): (Vec<_>, Vec<_>) = std::mem::take(&mut self.newcomers)
            .into_iter()
            .partition(reaches);
        let seats = seated.into_iter();
        self.seats
            .extend(seats.map(|newcomer| Seat::new(newcomer.offer, start, now)));
        self.newcomers = behind;
        for newcomer in &mut self.newcomers {
            (newcomer.is_level, newcomer.paused, newcomer.since) = (false, None, now);
        }
    }

    /// Newcomers that were not level in time are in nobody's way, but in others' who would be.
    pub(super) fn look_for_late_newcomers(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let limit = self.limits.prepare_ms;
        let is_late = |n: &&Newcomer| !n.is_level && now.ms_since(n.since) >= limit;
        let late: Vec<_> = self.newcomers.iter().filter(is_late).collect();
        let late: Vec<_> = late.into_iter().map(|n| n.node()).collect();
        for node in late {
            self.strikes.push(node);
            let reason = format!(
                "it did not keep up with the group within {} s",
                limit / 1000
            );
            self.turn_away(node, reason, effects);
        }
    }

    /// When the first newcomer is late.
    pub(super) fn newcomer_late_at(&self) -> Option<Timestamp> {
        let coming = self.newcomers.iter().filter(|n| !n.is_level);
        let since = coming.map(|n| n.since).min()?;
        Some(since.plus_ms(self.limits.prepare_ms))
    }

    /// A newcomer is not one any more.
    pub(super) fn turn_away(&mut self, node: NodeId, reason: String, effects: &mut Vec<Effect>) {
        let before = self.newcomers.len();
        self.newcomers.retain(|n| n.node() != node);
        if self.newcomers.len() < before {
            effects.push(Effect::Stop { node, reason });
            if self.vacant() > 0 {
                effects.push(Effect::AskFree);
            }
        }
    }

    /// The group is no more, or needs nobody.
    pub(super) fn turn_all_away(&mut self, reason: &str, effects: &mut Vec<Effect>) {
        for newcomer in std::mem::take(&mut self.newcomers) {
            let (node, reason) = (newcomer.node(), reason.to_owned());
            effects.push(Effect::Stop { node, reason });
        }
    }
}
