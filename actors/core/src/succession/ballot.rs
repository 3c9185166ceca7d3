//! A ballot of this member's own: it gathers promises, proposes, and counts votes.

use super::*;

/// How far it is.
#[derive(Debug, Clone)]
pub(super) struct Own {
    ballot: Ballot,
    since: Timestamp,
    resend: Timestamp,
    /// Members that are there and not yet at rest.
    coming: BTreeSet<NodeId>,
    promises: BTreeMap<NodeId, (Standing, Option<(Ballot, Successor)>)>,
    /// What is proposed, once it is.
    proposed: Option<Successor>,
    votes: BTreeMap<NodeId, Signed>,
}

impl Own {
    /// Until when it waits for whoever has not promised.
    fn gathers_until(&self, members: &[NodeId]) -> Timestamp {
        let promises = self.promises.values();
        let suspects: Vec<_> = promises.filter_map(|(s, _)| s.suspect).collect();
        let limit = |node: &NodeId| match node {
            node if self.promises.contains_key(node) => 0,
            node if self.coming.contains(node) => BUSY_LIMIT_MS,
            node if suspects.contains(node) => GATHER_MS,
            _ => SILENCE_LIMIT_MS,
        };
        let longest = members.iter().map(limit).max();
        self.since.plus_ms(longest.unwrap_or_default())
    }

    fn ends(&self, members: &[NodeId]) -> Timestamp {
        let limit = self.since.plus_ms(BALLOT_LIMIT_MS);
        match self.proposed {
            None => limit.max(self.gathers_until(members)),
            Some(_) => limit,
        }
    }

    pub(super) const fn next_timer(&self) -> Timestamp {
        self.resend
    }

    /// Whoever is told again: while it gathers everybody, or those that promised would take it for dead.
    fn addressees(&self, members: &[NodeId]) -> Vec<NodeId> {
        let has_voted = |node: &&NodeId| self.votes.contains_key(node);
        let rest = members.iter().filter(|node| !has_voted(node));
        rest.copied().collect()
    }

    fn message(&self) -> Message {
        let ballot = self.ballot;
        match &self.proposed {
            None => Message::Prepare { ballot },
            Some(successor) => Message::Propose {
                ballot,
                successor: successor.clone(),
            },
        }
    }
}

impl Succession {
    /// Calls a ballot above all that were heard of.
    pub(super) fn call(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.next = None;
        if self.round >= MAX_ROUND {
            return;
        }
        self.round += 1;
        self.own = Some(Own {
            ballot: Ballot {
                round: self.round,
                rank: self.rank as u32,
            },
            since: now,
            resend: now,
            coming: BTreeSet::new(),
            promises: BTreeMap::new(),
            proposed: None,
            votes: BTreeMap::new(),
        });
        self.tend(now, effects);
    }

    /// Says again what it says, goes on, or gives up.
    pub(super) fn tend(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.propose_if_gathered(now, effects);
        let Some(own) = &mut self.own else { return };
        if now >= own.ends(&self.members) {
            return self.back_off(0, now);
        }
        if now >= own.resend {
            own.resend = now.plus_ms(RESEND_MS);
            self.send_all(now, effects);
        }
    }

    fn send_all(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(own) = &self.own else { return };
        let (message, addressees) = (own.message(), own.addressees(&self.members));
        for node in addressees {
            self.send(node, message.clone(), now, effects);
        }
    }

    /// What came back of this member's own ballot.
    pub(super) fn answered(
        &mut self,
        from: NodeId,
        answer: Message,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(own) = &mut self.own else { return };
        let of = own.ballot;
        match answer {
            Message::Coming { ballot } if ballot == of => {
                own.coming.insert(from);
            }
            Message::Promise {
                ballot,
                standing,
                accepted,
            } if ballot == of && own.proposed.is_none() && is_host_port(&standing.ring_address) => {
                own.promises.insert(from, (standing, accepted));
                self.propose_if_gathered(now, effects);
            }
            Message::Accepted(signed) => self.voted(from, signed, now, effects),
            Message::Refused { ballot, promised }
                if ballot == of && promised.round <= MAX_ROUND =>
            {
                self.round = self.round.max(promised.round);
                self.back_off(0, now);
            }
            Message::Deferred { ballot } if ballot == of => self.back_off(DEFER_MS, now),
            _ => {}
        }
    }

    fn propose_if_gathered(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(own) = self.own.as_ref().filter(|own| own.proposed.is_none()) else {
            return;
        };
        let is_over = now >= own.gathers_until(&self.members);
        if !is_over || !self.is_majority(own.promises.len()) {
            return;
        }
        let Some(successor) = self.compose(own) else {
            // They cannot agree on a step: only the coordinator has a checkpoint for them.
            return self.back_off(DEFER_MS, now);
        };
        if let Some(own) = &mut self.own {
            own.proposed = Some(successor);
            (own.since, own.resend) = (now, now.plus_ms(RESEND_MS));
        }
        self.send_all(now, effects);
    }

    /// What somebody may have decided already; else whoever promised, as far as they reach the furthest of them.
    fn compose(&self, own: &Own) -> Option<Successor> {
        let voted = own.promises.values().filter_map(|(_, a)| a.as_ref());
        // Nobody can have voted for anything else: who says so lies, and it would be proposed again and again, and refused.
        let voted = voted.filter(|(at, successor)| *at < own.ballot && self.is_possible(successor));
        if let Some((_, successor)) = voted.max_by_key(|(ballot, _)| *ballot) {
            return Some(successor.clone());
        }
        let standing = |node: &NodeId| own.promises.get(node).map(|(standing, _)| standing);
        let all = self.members.iter().filter_map(standing);
        let steps: BTreeSet<u64> = all.map(|s| s.at.committed).collect();
        // Whoever says that it is further than a majority can be has nobody to go on with.
        steps.into_iter().rev().find_map(|step| {
            let able = |node: &&NodeId| standing(node).is_some_and(|s| s.at.reaches(step));
            let members: Vec<_> = self.members.iter().filter(able).copied().collect();
            let reached = members.iter().filter_map(standing);
            let ring_addresses = reached.map(|s| s.ring_address.clone()).collect();
            self.is_majority(members.len()).then_some(Successor {
                members,
                ring_addresses,
                start_step: step,
            })
        })
    }

    fn voted(&mut self, from: NodeId, signed: Signed, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(own) = &mut self.own else { return };
        let Some(successor) = &own.proposed else {
            return;
        };
        let wanted = Vote {
            version: 1,
            task: self.task,
            attempt: self.attempt,
            ballot: own.ballot,
            successor: successor.digest(),
        };
        let is_its_own = NodeId::of_key(&signed.signer) == from;
        if is_its_own && signed.verify::<Vote>(&self.voter.network) == Ok(wanted) {
            own.votes.insert(from, signed);
            self.decide_if_voted(now, effects);
        }
    }

    fn decide_if_voted(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(own) = &self.own else { return };
        let Some(successor) = own.proposed.clone() else {
            return;
        };
        if !self.is_majority(own.votes.len()) {
            return;
        }
        let decision = Decision {
            attempt: self.attempt + 1,
            successor,
            votes: own.votes.values().cloned().collect(),
        };
        self.decided(decision.clone(), effects);
        for node in self.members.clone() {
            if node != self.members[self.rank] {
                let message = Message::Decided(decision.clone());
                self.send(node, message, now, effects);
            }
        }
    }
}
