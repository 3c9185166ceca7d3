//! Offers, and the group that is chosen of them.

use cryptomind_protocol::task::{Event, TaskSpec, TaskState};
use cryptomind_protocol::{NodeId, Timestamp};

use super::{Effect, MAX_STRIKES, Run, Seat};
use crate::market::{
    self, Ability, Availability, Candidate, MatchReport, Offer, Preference, Surroundings, Verdict,
    Wanted, Workload, shortlist,
};
use crate::price::Terms;

/// What is asked of a group for such a task.
pub fn wanted(spec: &TaskSpec, terms: &Terms) -> Wanted {
    Wanted {
        workload: Workload::of(spec, terms),
        miners: spec.miners as usize,
        preference: Preference::default(),
        rating_floor_milli: 0,
        strikes: MAX_STRIKES,
        work_cap: terms.work_cost,
    }
}

impl Run {
    /// What is asked of a group for this task.
    pub fn wanted(&self) -> Wanted {
        wanted(&self.spec, &self.terms)
    }

    /// Whether it needs more offers than it waits for: then the next miners are to be asked.
    pub fn is_short(&self) -> bool {
        let waits = self.state == TaskState::Waiting && self.asked.is_empty();
        waits && self.offers.len() < self.spec.miners as usize
    }

    /// Whether one more miner that comes free may be asked: no task gathers more than it can choose among.
    pub fn has_room(&self) -> bool {
        let gathered = self.asked.len() + self.offers.len();
        gathered < shortlist::most_asked(self.spec.miners as usize)
    }

    fn candidate(&self, offer: &Offer) -> Candidate {
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
        if self.state != TaskState::Waiting {
            let reason = "the group is complete".to_owned();
            if self.seat(node).is_none() {
                effects.push(Effect::Withdraw { node, reason });
            }
            return;
        }
        self.asked.retain(|asked| *asked != node);
        match market::gate(&self.wanted(), &self.candidate(&offer)) {
            Some(gate) => {
                self.offers.retain(|known| known.member.node != node);
                if !self.barred.contains(&node) {
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
        self.asked.clear();
        if self.offers.len() < self.spec.miners as usize {
            return self.wait(now, effects);
        }
        let candidates: Vec<_> = self.offers.iter().map(|o| self.candidate(o)).collect();
        let report = market::select(&self.wanted(), &candidates, around);
        self.seat_chosen(&report, effects);
        self.executions += 1;
        self.start_step = self.verified_step;
        self.step = self.verified_step;
        self.begin_attempt(now, effects);
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
    fn seat_chosen(&mut self, report: &MatchReport, effects: &mut Vec<Effect>) {
        let rank = |offer: &Offer| match report.verdict(&offer.member.node) {
            Some(Verdict::Chosen { rank, .. }) => Ok(*rank),
            Some(verdict) => Err(verdict.to_string()),
            None => Err("it was not looked at".to_owned()),
        };
        let mut seats = Vec::new();
        for offer in std::mem::take(&mut self.offers) {
            let node = offer.member.node;
            match rank(&offer) {
                Ok(rank) => seats.push((rank, Seat::new(offer))),
                Err(reason) => effects.push(Effect::Withdraw { node, reason }),
            }
        }
        seats.sort_by_key(|(rank, _)| *rank);
        self.seats = seats.into_iter().map(|(_, seat)| seat).collect();
    }
}
