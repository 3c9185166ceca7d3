//! Offers, and the group that is chosen of them.

use cryptomind_protocol::task::{Event, TaskState};
use cryptomind_protocol::{NodeId, Timestamp};

use super::{Effect, Pace, Run, Seat};
use crate::market::waits::WaitRecord;
use crate::market::{
    self, Ability, Availability, Candidate, Gate, MatchReport, Offer, Surroundings, Verdict,
    Wanted, shortlist,
};
use crate::price::class_of;

impl Run {
    /// What is asked of a group for this task.
    pub fn wanted(&self) -> Wanted {
        Wanted::of(&self.spec, &self.terms)
    }

    /// Whether it needs more offers than it waits for: then the next miners are to be asked.
    pub fn is_short(&self) -> bool {
        self.asked.is_empty()
            && match self.state {
                TaskState::Waiting => self.offers.len() < self.spec.miners as usize,
                _ => self.vacant() > 0,
            }
    }

    /// Whether miners that come free are to be asked: it waits for its group, or a place in that is vacant.
    pub fn seeks(&self) -> bool {
        self.state == TaskState::Waiting || self.vacant() > 0
    }

    /// Whether one more miner that comes free may be asked: no task gathers more than it can choose among.
    pub fn has_room(&self) -> bool {
        let gathered = self.asked.len() + self.offers.len();
        gathered < shortlist::most_asked(self.spec.miners as usize)
    }

    pub(super) fn candidate(&self, offer: &Offer) -> Candidate {
        let strikes = self.strikes_of(offer.member.node);
        offer.candidate(strikes, self.terms.prices.unit_price)
    }

    /// What would become of these miners, were the group chosen among them now.
    pub fn explain(
        &self,
        miners: impl IntoIterator<Item = (NodeId, Availability, Ability)>,
        around: &Surroundings,
    ) -> MatchReport {
        let candidate = |(node, availability, ability)| Candidate {
            node,
            availability,
            strikes: self.strikes_of(node),
            ability,
            unit_price: self.terms.prices.unit_price,
        };
        let candidates: Vec<_> = miners.into_iter().map(candidate).collect();
        market::select(&self.wanted(), &candidates, around)
    }

    pub(super) fn offered(
        &mut self,
        offer: Offer,
        around: &Surroundings,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let node = offer.member.node;
        let was_asked = self.asked.contains(&node) || self.late.contains(&node);
        if self.vacant() > 0 && was_asked {
            return self.offers_to_join(offer, around, now, effects);
        }
        if self.state != TaskState::Waiting {
            self.asked.retain(|asked| *asked != node);
            let reason = "the group is complete".to_owned();
            if self.seat(node).is_none() {
                effects.push(Effect::Withdraw { node, reason });
            }
            return;
        }
        if !self.was_asked(node) {
            let reason = "it was not asked for this task".to_owned();
            return effects.push(Effect::Withdraw { node, reason });
        }
        self.asked.retain(|asked| *asked != node);
        self.late.retain(|late| *late != node);
        match market::gate(&self.wanted(), &self.candidate(&offer)) {
            Some(gate) => {
                self.offers.retain(|known| known.member.node != node);
                // These are over some day; the other gates are those of this task.
                let is_for_good = !matches!(gate, Gate::Barred(_) | Gate::Exposed(_));
                if is_for_good && !self.barred.contains(&node) {
                    self.barred.push(node);
                }
                let reason = gate.to_string();
                effects.push(Effect::Withdraw { node, reason });
            }
            None => self.keep_offer(offer, effects),
        }
        self.choose(around, now, effects);
    }

    fn keep_offer(&mut self, offer: Offer, effects: &mut Vec<Effect>) {
        let node = offer.member.node;
        match self.offers.iter_mut().find(|o| o.member.node == node) {
            Some(known) => *known = offer,
            None => {
                let name = offer.member.name.clone();
                self.offers.push(offer);
                self.tell(Event::Offered { node, name }, effects);
            }
        }
    }

    pub(super) fn declined(
        &mut self,
        node: NodeId,
        around: &Surroundings,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.asked.retain(|asked| *asked != node);
        self.late.retain(|late| *late != node);
        self.offers.retain(|offer| offer.member.node != node);
        if self.state == TaskState::Waiting {
            self.choose(around, now, effects);
        }
    }

    /// Forms the group once everybody has answered or the window is over, and enough are ready.
    pub(super) fn choose(
        &mut self,
        around: &Surroundings,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if !self.asked.is_empty() && now < self.window_ends {
            return;
        }
        // Whoever has not answered by now may still offer, but is not waited for.
        self.late.append(&mut self.asked);
        if self.offers.len() < self.spec.miners as usize {
            return self.wait(now, effects);
        }
        let report = market::select(&self.wanted(), &self.candidates(), around);
        self.late.clear();
        self.seat_chosen(&report, now, effects);
        let (workload, members) = (self.wanted().workload, self.seats.len());
        let pace = |expectation| Pace::of(expectation, &workload, members);
        self.pace = report.expectation.as_ref().map(pace).unwrap_or_default();
        if self.attempt == 0 {
            effects.push(Effect::Waited(self.waited(now)));
        }
        self.executions += 1;
        self.start_step = self.verified_step;
        self.step = self.verified_step;
        self.begin_attempt(now, effects);
    }

    fn waited(&self, now: Timestamp) -> WaitRecord {
        WaitRecord {
            at: now,
            task: self.task,
            class: class_of(&self.spec, &self.terms.extent),
            miners: self.spec.miners,
            waited_ms: now.ms_since(self.posted),
        }
    }

    /// Who is chosen from. Whoever failed the task and is back in time gets a second attempt at it, before others do; who was late
    /// with it gets one after them.
    fn candidates(&self) -> Vec<Candidate> {
        let failed: Vec<_> = self
            .offers
            .iter()
            .filter(|offer| self.is_charged(offer.member.node))
            .map(|offer| self.candidate(offer))
            .collect();
        let wanted = self.spec.miners as usize;
        if failed.len() >= wanted {
            return failed;
        }
        let prompt = self.offers.iter().filter(|o| !self.was_late(o.member.node));
        let prompt: Vec<_> = prompt.map(|o| self.candidate(o)).collect();
        if prompt.len() >= wanted {
            return prompt;
        }
        self.offers.iter().map(|o| self.candidate(o)).collect()
    }

    fn wait(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let (ready, needed) = (self.offers.len(), self.spec.miners as usize);
        let reason = format!(
            "{ready} of {needed} miners are ready; it starts when {} more are free, and expires in {} s",
            needed - ready,
            self.deadline.ms_since(now).div_ceil(1000),
        );
        if self.reason.split(';').next() != reason.split(';').next() {
            let reason = reason.clone();
            self.tell(Event::Waiting { reason }, effects);
        }
        self.reason = reason;
    }

    /// Gives the chosen their seats in ring order, and tells the others why not.
    fn seat_chosen(&mut self, report: &MatchReport, now: Timestamp, effects: &mut Vec<Effect>) {
        let rank = |offer: &Offer| match report.verdict(&offer.member.node) {
            Some(Verdict::Chosen { rank, .. }) => Ok(*rank),
            Some(verdict) => Err(verdict.to_string()),
            None => Err("a miner that failed it gets a second attempt first".to_owned()),
        };
        let (mut seats, from) = (Vec::new(), self.verified_step);
        for offer in std::mem::take(&mut self.offers) {
            let node = offer.member.node;
            match rank(&offer) {
                Ok(rank) => seats.push((rank, Seat::new(offer, from, now))),
                Err(reason) => effects.push(Effect::Withdraw { node, reason }),
            }
        }
        seats.sort_by_key(|(rank, _)| *rank);
        self.seats = seats.into_iter().map(|(_, seat)| seat).collect();
    }
}
