//! Between two attempts: how a member comes to rest, says where it stands, and hears who goes on.

use super::*;

impl Member {
    /// Comes to rest, from wherever it is.
    pub(super) fn halt(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        match self.phase {
            Phase::Preparing | Phase::Joining | Phase::Storing => {
                effects.push(Effect::Abandon);
                self.come_to_rest(now, effects);
            }
            Phase::Farewell { .. } => self.come_to_rest(now, effects),
            // Not to be broken off: the thread's answer belongs to this question.
            Phase::Standing { .. } => self.phase = Phase::Standing { rests: true },
            Phase::Training => {
                self.phase = Phase::Leaving;
                effects.push(Effect::Leave);
            }
            // The end of the attempt that it follows is on its way.
            Phase::Following => effects.push(Effect::Leave),
            Phase::Resting { .. } => self.answer(now, effects),
            Phase::Leaving | Phase::Saving | Phase::Over => {}
        }
    }

    pub(super) fn come_to_rest(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.phase = Phase::Resting { since: now };
        self.answer(now, effects);
    }

    pub(super) fn bound(
        &mut self,
        ring_address: String,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.binds = false;
        self.bound = Some(ring_address);
        self.answer(now, effects);
    }

    /// Says where it stands, once it has a socket for the attempt to come.
    fn answer(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(ring_address) = self.bound.clone() else {
            if !std::mem::replace(&mut self.binds, true) {
                effects.push(Effect::Bind);
            }
            return;
        };
        let at = self.at;
        if let Some(attempt) = self.pause.take() {
            let report = Report::Paused {
                committed: at.committed,
                prepared: at.prepared,
                ring_address: ring_address.clone(),
            };
            effects.push(Effect::Report { attempt, report });
        }
        if self.place.follows() {
            return;
        }
        let standing = Standing {
            at,
            ring_address,
            suspect: self.suspect,
        };
        let next = self.succession.rest(standing, now);
        self.agree(next, now, effects);
    }

    pub(super) fn heard(
        &mut self,
        (from, attempt): (NodeId, u32),
        message: Message,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if self.place.follows() {
            return;
        }
        if attempt == self.place.attempt {
            let next = self.succession.hear(from, message, now);
            return self.agree(next, now, effects);
        }
        let (Message::Prepare { ballot } | Message::Propose { ballot, .. }) = message else {
            return;
        };
        if attempt < self.place.attempt {
            let formed = self.formed.clone().filter(|d| d.attempt == attempt + 1);
            let deferred = Message::Deferred { ballot };
            let message = formed.map_or(deferred, Message::Decided);
            effects.push(Effect::Send {
                to: from,
                attempt,
                message,
            });
        }
    }

    /// Carries out what the members' agreement leads to.
    pub(super) fn agree(
        &mut self,
        next: Vec<succession::Effect>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let attempt = self.succession.attempt();
        for effect in next {
            match effect {
                succession::Effect::Send { to, message } => effects.push(Effect::Send {
                    to,
                    attempt,
                    message,
                }),
                succession::Effect::Rest => self.halt(now, effects),
                succession::Effect::Decided(decision) => self.decided(decision, now, effects),
            }
        }
    }

    /// It goes on with the others, or they without it: then it holds its state for the coordinator.
    fn decided(&mut self, decision: Decision, now: Timestamp, effects: &mut Vec<Effect>) {
        let members = &decision.successor.members;
        let rank = members.iter().position(|node| *node == self.voter.node());
        // Who is named has promised: it rests, and has the socket that it told.
        match rank.filter(|_| self.bound.is_some()) {
            Some(rank) => {
                let successor = decision.successor.clone();
                let shares = &self.place.shares;
                let place = Place {
                    attempt: decision.attempt,
                    shares: shares.kept(&self.place.members, members),
                    members: successor.members,
                    ring_addresses: successor.ring_addresses,
                    rank: rank as u32,
                    start_step: successor.start_step,
                    resume: None,
                };
                effects.push(Effect::Succeeded(decision.clone()));
                self.formed = Some(decision);
                self.enter(place, effects);
            }
            None => self.halt(now, effects),
        }
    }
}
